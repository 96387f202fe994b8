/*
 * cuda_train_attention_hopper.cu
 *	  Attention among segments, and its derivative, on Hopper.
 *
 * As cuda_train_attention.cu, with the means of FlashAttention-3 (Shah et al.
 * 2024): a block has 128 queries, or keys, 64 for each of two warpgroups that
 * compute, and a third warpgroup that does nothing but fetch pairs of tiles
 * into a ring in shared memory, ahead of their use.  Barriers say when a pair
 * is there and when both warpgroups are done with it, so that one's products
 * run beside the other's powers.
 *
 * On the way back a tile's last products, which need what its scores became,
 * are started together with the next tile's first ones, so that they run
 * beside its powers.  For the first tile these are products with zeros.
 *
 * Tiles lie in shared memory as panels of 64 dimensions, whose rows of 128
 * bytes are swizzled.  A warp fetches whole rows, which is what the cache of
 * the chip has: with parts of them its lookups would bound everything.
 *
 * Blocks are started in the order of how many tiles they have, the longest
 * ones first, whatever segments they belong to: the last ones to end are then
 * short.
 *
 * cuda/cuda_train_attention_hopper.cu
 */
#include "cuda/cuda_hopper.cuh"
#include "cuda/cuda_train_attention.cuh"

#define GROUP_THREADS 128 /* of a warpgroup */
#define GROUP_ROWS 64
#define WORKER_THREADS (2 * GROUP_THREADS)
#define WORKER_WARPS (WORKER_THREADS / WARP)
#define BLOCK_THREADS (WORKER_THREADS + GROUP_THREADS)
#define BLOCK_ROWS (2 * GROUP_ROWS)
#define ORDER_THREADS 256

/* Registers of their threads. */
#define WORKER_REGISTERS 232
#define FETCHER_REGISTERS 40

/* Pairs of tiles of a ring. */
#define STAGES_THERE 3
#define STAGES_BACK 4

/* Barriers of hardware; 0 is __syncthreads. */
#define WORKERS_BARRIER 1
#define TURN_BARRIER 2 /* and 3: one for each warpgroup */

/* n fixed tiles of a block's rows, and a ring of pairs */
template <int DIM, int TOKENS, int STAGES>
static constexpr size_t
shared_bytes(int n)
{
	return (size_t) (n * BLOCK_ROWS + STAGES * 2 * TOKENS) * DIM * sizeof(bf16);
}

/* ------------------------------------------------------------------------
 * The order of blocks
 * ------------------------------------------------------------------------
 */

/* How many tokens a block of queries, or of keys, goes over. */
static __device__ __forceinline__ int32_t
work_of(const SegmentParams &p, int32_t block, bool is_of_keys)
{
	const int32_t first = block * BLOCK_ROWS;
	const int32_t last = min(first + BLOCK_ROWS, p.n_tokens) - 1;

	return is_of_keys ? end_seen(p, last) - first : last - first_seen(p, first);
}

/* Grid: 2, queries and keys.  A block's place is how many come before it. */
static __global__ void
__launch_bounds__(ORDER_THREADS)
	order_blocks(const __grid_constant__ SegmentParams p, int32_t *order,
				 int32_t n_blocks)
{
	extern __shared__ int32_t works[];
	const bool is_of_keys = blockIdx.x == 1;

	for (int32_t i = (int32_t) threadIdx.x; i < n_blocks; i += ORDER_THREADS)
		works[i] = work_of(p, i, is_of_keys);
	__syncthreads();
	for (int32_t i = (int32_t) threadIdx.x; i < n_blocks; i += ORDER_THREADS)
	{
		int32_t place = 0;

		for (int32_t j = 0; j < n_blocks; j++)
			place += works[j] > works[i] || (works[j] == works[i] && j < i);
		order[blockIdx.x * n_blocks + place] = i;
	}
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* ------------------------------------------------------------------------
 * Tiles
 * ------------------------------------------------------------------------
 */

/* Dimensions of a panel, and the numbers of 16 bytes. */
#define PANEL_DIM (SWIZZLED_BYTES / (int) sizeof(bf16))
#define PIECE 8

/* Where a piece of a row is, of a tile of N_ROWS rows. */
template <int N_ROWS>
static __device__ __forceinline__ int
piece_at(int row, int piece)
{
	const int in_panel = piece % PIECE ^ row % PIECE;

	return (piece / PIECE * N_ROWS + row) * PANEL_DIM + in_panel * PIECE;
}

/*
 * Start fetching tokens first .. first + N_ROWS - 1 of a head of an array;
 * zeros where there are none.  This is one of N_THREADS that do.
 */
template <int DIM, int N_ROWS, int N_THREADS>
static __device__ __forceinline__ void
fetch_panels(const SegmentParams &p, const bf16 *array, int32_t n_heads,
			 int32_t head, int32_t first, bf16 *tile, int thread)
{
	/* a thread's pieces are the same one of rows that are swizzled alike */
	const int stride = N_THREADS / (DIM / PIECE);
	const int row = thread / (DIM / PIECE);
	const int d = thread % (DIM / PIECE) * PIECE;
	int32_t token = first + row;
	const bf16 *src = array + row_at(p, token, n_heads, head) + d;
	bf16 *dest = tile + piece_at<N_ROWS>(row, d / PIECE);

	static_assert(stride % PIECE == 0, "swizzled alike");
#pragma unroll
	for (int i = 0; i < N_ROWS / stride; i++)
	{
		const bool is_there = token < p.n_tokens && d < p.head_dim;

		if (p.is_aligned)
			copy_async(dest, is_there ? src : array, is_there);
		else
			for (int k = 0; k < PIECE; k++)
				dest[k] = is_there && d + k < p.head_dim ? src[k]
														 : __float2bfloat16(0);
		token += stride;
		src += (int64_t) stride * n_heads * p.head_dim;
		dest += stride * PANEL_DIM;
	}
}

/* ------------------------------------------------------------------------
 * The ring
 * ------------------------------------------------------------------------
 */
typedef struct RingBarriers
{
	uint64_t full[STAGES_BACK];
	uint64_t empty[STAGES_BACK];
} RingBarriers;

template <int DIM, int TOKENS, int STAGES> struct Ring
{
	static const int elements = TOKENS * DIM; /* of a tile */
	static const int stages = STAGES;
	RingBarriers *barriers;
	bf16 *pairs; /* [stages, 2, TOKENS, DIM] */
};

/* Keys, or queries, of pair t; values, or d_out, lie behind them. */
template <typename Pairs>
static __device__ __forceinline__ bf16 *
first_of(const Pairs &ring, int32_t t)
{
	return ring.pairs + t % Pairs::stages * 2 * Pairs::elements;
}

template <typename Pairs>
static __device__ __forceinline__ bf16 *
second_of(const Pairs &ring, int32_t t)
{
	return first_of(ring, t) + Pairs::elements;
}

/* By all threads of the block. */
static __device__ __forceinline__ void
init_ring(RingBarriers *barriers)
{
	if (threadIdx.x == 0)
	{
		for (int i = 0; i < STAGES_BACK; i++)
		{
			barrier_init(&barriers->full[i], GROUP_THREADS);
			barrier_init(&barriers->empty[i], WORKER_WARPS);
		}
		fence_async_proxy();
	}
	__syncthreads();
}

template <typename Pairs>
static __device__ __forceinline__ void
await_pair(const Pairs &ring, int32_t t)
{
	barrier_wait(&ring.barriers->full[t % Pairs::stages],
				 t / Pairs::stages % 2);
	/* it was copied in the way of ordinary accesses */
	fence_async_proxy();
}

/* This warp's products with pair t are done. */
template <typename Pairs>
static __device__ __forceinline__ void
release_pair(const Pairs &ring, int32_t t)
{
	if (threadIdx.x % WARP == 0)
		barrier_arrive(&ring.barriers->empty[t % Pairs::stages]);
}

/* By the fetchers: fetch(t) starts copies of pair t. */
template <typename Pairs, typename Fetch>
static __device__ __forceinline__ void
fetch_pairs(const SegmentParams &p, const Pairs &ring, int32_t n_tiles,
			const Fetch &fetch)
{
	for (int32_t t = 0; t < n_tiles; t++)
	{
		uint64_t *full = &ring.barriers->full[t % Pairs::stages];

		barrier_wait(&ring.barriers->empty[t % Pairs::stages],
					 (t / Pairs::stages + 1) % 2);
		fetch(t);
		if (p.is_aligned)
		{
			barrier_arrive_copied(full);
			continue;
		}
		/* stores are not waited for as copies are */
		copies_commit();
		copies_wait<0>();
		fence_async_proxy();
		barrier_arrive(full);
	}
}

/* Which thread of the fetchers this is. */
static __device__ __forceinline__ int
own_fetcher(void)
{
	return (int) threadIdx.x - WORKER_THREADS;
}

template <int DIM, int TOKENS, int STAGES>
static __device__ __forceinline__ void
fetch_keys(const SegmentParams &p, const Ring<DIM, TOKENS, STAGES> &ring,
		   const KeyTiles &tiles, int32_t kv_head)
{
	const int thread = own_fetcher();

	fetch_pairs(p, ring, tiles.n_tiles,
				[&](int32_t t)
				{
					const int32_t first = tiles.first + t * TOKENS;

					fetch_panels<DIM, TOKENS, GROUP_THREADS>(
						p, p.k, p.n_kv_heads, kv_head, first, first_of(ring, t),
						thread);
					fetch_panels<DIM, TOKENS, GROUP_THREADS>(
						p, p.v, p.n_kv_heads, kv_head, first,
						second_of(ring, t), thread);
				});
}

template <int DIM>
static __device__ __forceinline__ void
fetch_queries(const SegmentParams &p, const Ring<DIM, TILE, STAGES_BACK> &ring,
			  const QueryTiles &tiles, QueryTile *facts)
{
	const int thread = own_fetcher();

	fetch_pairs(
		p, ring, tiles.n_tiles,
		[&](int32_t t)
		{
			const int32_t head = query_head(tiles, t);
			const int32_t first = first_query_of(tiles, t);

			fetch_panels<DIM, TILE, GROUP_THREADS>(
				p, p.q, p.n_heads, head, first, first_of(ring, t), thread);
			fetch_panels<DIM, TILE, GROUP_THREADS>(
				p, p.d_out, p.n_heads, head, first, second_of(ring, t), thread);
			fetch_facts(p, head, first, facts + t % STAGES_BACK, thread);
		});
}

/* ------------------------------------------------------------------------
 * The warpgroups that compute
 * ------------------------------------------------------------------------
 */
static __device__ __forceinline__ void
named_sync(int barrier)
{
	asm volatile("bar.sync %0, %1;"
				 :
				 : "r"(barrier), "n"(WORKER_THREADS)
				 : "memory");
}

static __device__ __forceinline__ void
named_arrive(int barrier)
{
	asm volatile("bar.arrive %0, %1;"
				 :
				 : "r"(barrier), "n"(WORKER_THREADS)
				 : "memory");
}

/* The block's own rows of an array, by all that compute. */
template <int DIM>
static __device__ __forceinline__ void
fetch_own(const SegmentParams &p, const bf16 *array, int32_t n_heads,
		  int32_t head, int32_t first, bf16 *tile)
{
	fetch_panels<DIM, BLOCK_ROWS, WORKER_THREADS>(
		p, array, n_heads, head, first, tile, (int) threadIdx.x);
	copies_commit();
}

static __device__ __forceinline__ void
await_own(void)
{
	copies_wait<0>();
	fence_async_proxy();
	named_sync(WORKERS_BARRIER);
}

/* Which of the warpgroups this is. */
static __device__ __forceinline__ int
own_group(void)
{
	return (int) threadIdx.x / GROUP_THREADS;
}

/* This warp's 16 of the block's rows, as fragments for all dimensions. */
template <int DIM>
static __device__ __forceinline__ void
hold_rows(uint32_t held[DIM / 16][4], const bf16 *tile)
{
	const int lane = (int) threadIdx.x % WARP;
	const int row = (int) threadIdx.x / WARP * MMA_ROWS + lane % 16;

#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
		load_matrices(held[s],
					  tile + piece_at<BLOCK_ROWS>(row, 2 * s + lane / 16));
}

/* 16 dimensions of a tile of N_ROWS rows: in a descriptor's 16 bytes. */
template <int N_ROWS>
static __device__ __forceinline__ int
step_of(int s)
{
	const int per_panel = PANEL_DIM / 16;

	return s / per_panel * (N_ROWS * SWIZZLED_BYTES / 16) + s % per_panel * 2;
}

/* Start sums = the warpgroup's 64 of the block's rows times a tile's 8 N. */
template <int DIM, int N>
static __device__ __forceinline__ void
start_rows(float (&sums)[N][4], const bf16 *rows, const bf16 *others)
{
	const uint64_t a =
		wgmma_swizzled(rows + own_group() * GROUP_ROWS * PANEL_DIM, 0);
	const uint64_t b = wgmma_swizzled(others, 0);

	wgmma_pin(sums);
	wgmma_fence();
#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
		wgmma_shared<8 * N>(sums, a + step_of<BLOCK_ROWS>(s),
							b + step_of<8 * N>(s), s > 0);
	wgmma_commit();
}

/* The same with rows that are held. */
template <int DIM, int N>
static __device__ __forceinline__ void
start_held(float (&sums)[N][4], const uint32_t held[DIM / 16][4],
		   const bf16 *others)
{
	const uint64_t b = wgmma_swizzled(others, 0);

	wgmma_pin(sums);
	wgmma_fence();
#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
		wgmma_registers<8 * N, false>(sums, held[s], b + step_of<8 * N>(s),
									  s > 0);
	wgmma_commit();
}

/* Start sums += weights [64, 16 N] times the rows of a tile. */
template <int DIM, int N>
static __device__ __forceinline__ void
start_weighted(float (&sums)[DIM / 8][4], const uint32_t (&weights)[N][4],
			   const bf16 *rows)
{
	const uint64_t b = wgmma_swizzled(rows, 16 * N * SWIZZLED_BYTES);

	wgmma_pin(sums);
	wgmma_fence();
#pragma unroll
	for (int s = 0; s < N; s++)
		/* 16 rows further */
		wgmma_registers<DIM, true>(sums, weights[s],
								   b + s * (16 * SWIZZLED_BYTES / 16));
	wgmma_commit();
}

static __device__ __forceinline__ void
clear_fragments(uint32_t fragments[TILE / 16][4])
{
#pragma unroll
	for (int i = 0; i < TILE / 4; i++)
		fragments[i / 4][i % 4] = 0;
}

/* Most tiles of a long segment have no new maximum. */
template <int DIM>
static __device__ __forceinline__ void
rescale(float (&out)[DIM / 8][4], const float factors[2])
{
	if (__all_sync(FULL_MASK, factors[0] == 1 && factors[1] == 1))
		return;
#pragma unroll
	for (int i = 0; i < DIM / 8; i++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			out[i][k] *= factors[k / 2];
}

/* All tiles of keys; the two warpgroups take turns at starting products. */
template <int DIM>
static __device__ __forceinline__ void
attend_tiles(const SegmentParams &p,
			 const Ring<DIM, LONG_TILE, STAGES_THERE> &ring,
			 const KeyTiles &tiles, const bf16 *queries, RowState &rows,
			 float (&out)[DIM / 8][4])
{
	const int group = own_group();
	const int32_t n_tiles = tiles.n_tiles;
	float scores[LONG_TILE / 8][4];
	uint32_t weights[LONG_TILE / 16][4];
	float factors[2];

	await_pair(ring, 0);
	start_rows<DIM>(scores, queries, first_of(ring, 0));
	wgmma_wait<0>();
	wgmma_pin(scores);
	soften_tile(p, rows, scores, tiles, 0, factors);
	pack_fragments(weights, scores);
	if (group == 1 && n_tiles > 1)
		named_arrive(TURN_BARRIER);
	for (int32_t t = 1; t < n_tiles; t++)
	{
		named_sync(TURN_BARRIER + group);
		await_pair(ring, t);
		start_rows<DIM>(scores, queries, first_of(ring, t));
		start_weighted<DIM>(out, weights, second_of(ring, t - 1));
		if (group == 0 || t + 1 < n_tiles)
			named_arrive(TURN_BARRIER + 1 - group);
		wgmma_wait<1>();
		wgmma_pin(scores);
		soften_tile(p, rows, scores, tiles, t, factors);
		wgmma_wait<0>();
		wgmma_pin(out);
		release_pair(ring, t - 1);
		rescale<DIM>(out, factors);
		pack_fragments(weights, scores);
	}
	start_weighted<DIM>(out, weights, second_of(ring, n_tiles - 1));
	wgmma_wait<0>();
	wgmma_pin(out);
}

/* All tiles of keys, back to the queries whose rows are held. */
template <int DIM>
static __device__ __forceinline__ void
queries_back_tiles(const SegmentParams &p,
				   const Ring<DIM, TILE, STAGES_BACK> &ring,
				   const KeyTiles &tiles, const bf16 *queries,
				   const bf16 *d_outs, const QueryFacts &facts,
				   float (&d_q)[DIM / 8][4])
{
	uint32_t query[DIM / 16][4];
	float weights[TILE / 8][4];
	float slopes[TILE / 8][4];
	uint32_t fragments[TILE / 16][4];

	hold_rows<DIM>(query, queries);
	clear_fragments(fragments);
	for (int32_t t = 0; t < tiles.n_tiles; t++)
	{
		await_pair(ring, t);
		start_held<DIM>(weights, query, first_of(ring, t));
		start_weighted<DIM>(d_q, fragments, first_of(ring, max(t - 1, 0)));
		start_rows<DIM>(slopes, d_outs, second_of(ring, t));
		wgmma_wait<2>();
		wgmma_pin(weights);
		query_weights(p, facts, weights, tiles, t);
		wgmma_wait<0>();
		wgmma_pin(d_q);
		wgmma_pin(slopes);
		if (t > 0)
			release_pair(ring, t - 1);
		query_slopes(facts, weights, slopes);
		pack_fragments(fragments, slopes);
	}
	start_weighted<DIM>(d_q, fragments, first_of(ring, tiles.n_tiles - 1));
	wgmma_wait<0>();
	wgmma_pin(d_q);
}

/* What a block of keys has. */
typedef struct KeyBlock
{
	const bf16 *keys;
	const bf16 *values;
	const QueryTile *facts; /* [STAGES_BACK] */
	int32_t first_key;
} KeyBlock;

/* All tiles of queries, back to keys and values. */
template <int DIM, bool IS_CAPPED>
static __device__ __forceinline__ void
keys_back_tiles(const SegmentParams &p,
				const Ring<DIM, TILE, STAGES_BACK> &ring,
				const QueryTiles &tiles, const KeyBlock &block,
				float (&d_k)[DIM / 8][4], float (&d_v)[DIM / 8][4])
{
	float weights[TILE / 8][4];
	float slopes[TILE / 8][4];
	uint32_t weight_fragments[TILE / 16][4];
	uint32_t factors[TILE / 16][4];
	uint32_t slope_fragments[TILE / 16][4];

	clear_fragments(slope_fragments);
	for (int32_t t = 0; t < tiles.n_tiles; t++)
	{
		const bf16 *queries = first_of(ring, t);
		const bf16 *d_outs = second_of(ring, t);
		KeyRows rows;

		await_pair(ring, t);
		start_rows<DIM>(weights, block.keys, queries);
		start_weighted<DIM>(d_k, slope_fragments,
							first_of(ring, max(t - 1, 0)));
		rows = key_rows(p, &block.facts[t % STAGES_BACK], block.first_key,
						BLOCK_ROWS, first_query_of(tiles, t));
		wgmma_wait<1>();
		wgmma_pin(weights);
		weigh_keys<IS_CAPPED>(p, rows, weights, weight_fragments, factors);
		wgmma_wait<0>();
		wgmma_pin(d_k);
		if (t > 0)
			release_pair(ring, t - 1);
		start_rows<DIM>(slopes, block.values, d_outs);
		start_weighted<DIM>(d_v, weight_fragments, d_outs);
		wgmma_wait<1>();
		wgmma_pin(slopes);
		key_slopes(rows, factors, slopes);
		wgmma_wait<0>();
		wgmma_pin(d_v);
		pack_fragments(slope_fragments, slopes);
	}
	start_weighted<DIM>(d_k, slope_fragments,
						first_of(ring, tiles.n_tiles - 1));
	wgmma_wait<0>();
	wgmma_pin(d_k);
}

#endif

/* ------------------------------------------------------------------------
 * Kernels
 * ------------------------------------------------------------------------
 */

/* Grid: heads, blocks of queries.  On an older GPU none is ever started. */
template <int DIM>
static __global__ void
__launch_bounds__(BLOCK_THREADS, 1)
	attend_hopper(const __grid_constant__ SegmentParams p)
{
#if __CUDA_ARCH__ >= 900
	__shared__ RingBarriers barriers;
	const int32_t head = (int32_t) blockIdx.x;
	const int32_t kv_head = head / (p.n_heads / p.n_kv_heads);
	const int32_t first_query = p.block_order[blockIdx.y] * BLOCK_ROWS;
	const KeyTiles tiles = keys_of<LONG_TILE>(p, first_query, BLOCK_ROWS);
	bf16 *queries = (bf16 *) dynamic_shared();
	const Ring<DIM, LONG_TILE, STAGES_THERE> ring = {
		&barriers, queries + BLOCK_ROWS * DIM
	};

	init_ring(&barriers);
	if (threadIdx.x >= WORKER_THREADS)
	{
		registers_give<FETCHER_REGISTERS>();
		fetch_keys(p, ring, tiles, kv_head);
	}
	else
	{
		const int32_t own_query =
			first_query + (int) threadIdx.x / WARP * MMA_ROWS;
		RowState rows;
		float out[DIM / 8][4];

		registers_take<WORKER_REGISTERS>();
		fetch_own<DIM>(p, p.q, p.n_heads, head, first_query, queries);
		rows = row_state(p, own_query);
		clear_sums<DIM>(out);
		await_own();
		attend_tiles<DIM>(p, ring, tiles, queries, rows, out);
		finish_queries<DIM>(p, head, own_query, rows, out);
	}
#endif
}

/* Grid: heads, blocks of queries. */
template <int DIM>
static __global__ void
__launch_bounds__(BLOCK_THREADS, 1)
	queries_back_hopper(const __grid_constant__ SegmentParams p)
{
#if __CUDA_ARCH__ >= 900
	__shared__ RingBarriers barriers;
	const int32_t head = (int32_t) blockIdx.x;
	const int32_t kv_head = head / (p.n_heads / p.n_kv_heads);
	const int32_t first_query = p.block_order[blockIdx.y] * BLOCK_ROWS;
	const KeyTiles tiles = keys_of<TILE>(p, first_query, BLOCK_ROWS);
	bf16 *queries = (bf16 *) dynamic_shared();
	bf16 *d_outs = queries + BLOCK_ROWS * DIM;
	const Ring<DIM, TILE, STAGES_BACK> ring = { &barriers,
												d_outs + BLOCK_ROWS * DIM };

	init_ring(&barriers);
	if (threadIdx.x >= WORKER_THREADS)
	{
		registers_give<FETCHER_REGISTERS>();
		fetch_keys(p, ring, tiles, kv_head);
	}
	else
	{
		const float factors[2] = { p.scale, p.scale };
		const int32_t own_query =
			first_query + (int) threadIdx.x / WARP * MMA_ROWS;
		QueryFacts facts;
		float d_q[DIM / 8][4];

		registers_take<WORKER_REGISTERS>();
		fetch_own<DIM>(p, p.q, p.n_heads, head, first_query, queries);
		fetch_own<DIM>(p, p.d_out, p.n_heads, head, first_query, d_outs);
		facts = query_facts(p, head, own_query);
		clear_sums<DIM>(d_q);
		await_own();
		queries_back_tiles<DIM>(p, ring, tiles, queries, d_outs, facts, d_q);
		store_sums<DIM>(p, p.d_q, p.n_heads, head, own_query, d_q, factors);
	}
#endif
}

/* Grid: kv heads, blocks of keys. */
template <int DIM, bool IS_CAPPED>
static __global__ void
__launch_bounds__(BLOCK_THREADS, 1)
	keys_back_hopper(const __grid_constant__ SegmentParams p)
{
#if __CUDA_ARCH__ >= 900
	__shared__ RingBarriers barriers;
	__shared__ __align__(16) QueryTile facts[STAGES_BACK];
	const int32_t kv_head = (int32_t) blockIdx.x;
	const int32_t first_key =
		p.block_order[gridDim.y + blockIdx.y] * BLOCK_ROWS;
	const QueryTiles tiles = queries_of(p, kv_head, first_key, BLOCK_ROWS);
	bf16 *keys = (bf16 *) dynamic_shared();
	bf16 *values = keys + BLOCK_ROWS * DIM;
	const Ring<DIM, TILE, STAGES_BACK> ring = { &barriers,
												values + BLOCK_ROWS * DIM };

	init_ring(&barriers);
	if (threadIdx.x >= WORKER_THREADS)
	{
		registers_give<FETCHER_REGISTERS>();
		fetch_queries<DIM>(p, ring, tiles, facts);
	}
	else
	{
		const float factors[2] = { p.scale, p.scale };
		const float ones[2] = { 1, 1 };
		const int32_t own_key = first_key + (int) threadIdx.x / WARP * MMA_ROWS;
		const KeyBlock block = { keys, values, facts, first_key };
		float d_k[DIM / 8][4];
		float d_v[DIM / 8][4];

		registers_take<WORKER_REGISTERS>();
		fetch_own<DIM>(p, p.k, p.n_kv_heads, kv_head, first_key, keys);
		fetch_own<DIM>(p, p.v, p.n_kv_heads, kv_head, first_key, values);
		clear_sums<DIM>(d_k);
		clear_sums<DIM>(d_v);
		await_own();
		keys_back_tiles<DIM, IS_CAPPED>(p, ring, tiles, block, d_k, d_v);
		store_sums<DIM>(p, p.d_k, p.n_kv_heads, kv_head, own_key, d_k, factors);
		store_sums<DIM>(p, p.d_v, p.n_kv_heads, kv_head, own_key, d_v, ones);
	}
#endif
}

/* ------------------------------------------------------------------------
 * Launches
 * ------------------------------------------------------------------------
 */
static int32_t
n_blocks_of(const SegmentParams *p)
{
	return (int32_t) ceil_div(p->n_tokens, BLOCK_ROWS);
}

/* Lay down the order of blocks, in what products use as their workspace. */
static bool
find_order(LlmCuda *cuda, SegmentParams *p, LlmError *err)
{
	const int32_t n_blocks = n_blocks_of(p);
	const size_t bytes = (size_t) n_blocks * sizeof(int32_t);
	int32_t *order = (int32_t *) cuda->workspace;

	assert(bytes <= SMALL_SHARED_BYTES && 2 * bytes <= WORKSPACE_BYTES);
	p->block_order = order;
	return train_launch(cuda, { dim3(2), ORDER_THREADS, bytes }, err,
						order_blocks, *p, order, n_blocks);
}

static LaunchShape
shape_of(const SegmentParams *p, int32_t n_heads, size_t bytes)
{
	return { dim3((unsigned) n_heads, (unsigned) n_blocks_of(p)), BLOCK_THREADS,
			 bytes };
}

template <int DIM>
static bool
launch_there(LlmCuda *cuda, const SegmentParams *p, LlmError *err)
{
	const size_t bytes = shared_bytes<DIM, LONG_TILE, STAGES_THERE>(1);

	return train_launch(cuda, shape_of(p, p->n_heads, bytes), err,
						attend_hopper<DIM>, *p);
}

template <int DIM>
static bool
launch_back(LlmCuda *cuda, const SegmentParams *p, LlmError *err)
{
	const size_t bytes = shared_bytes<DIM, TILE, STAGES_BACK>(2);

	return train_launch(cuda, shape_of(p, p->n_heads, bytes), err,
						queries_back_hopper<DIM>, *p) &&
		   train_launch(cuda, shape_of(p, p->n_kv_heads, bytes), err,
						p->soft_cap > 0 ? keys_back_hopper<DIM, true>
										: keys_back_hopper<DIM, false>,
						*p);
}

bool
cuda_segment_attention_hopper(LlmCuda *cuda, const SegmentParams *params,
							  int32_t padded_dim, LlmError *err)
{
	SegmentParams p = *params;

	if (!find_order(cuda, &p, err))
		return false;
	return padded_dim == 64 ? launch_there<64>(cuda, &p, err)
							: launch_there<128>(cuda, &p, err);
}

bool
cuda_segment_attention_back_hopper(LlmCuda *cuda, const SegmentParams *params,
								   int32_t padded_dim, LlmError *err)
{
	SegmentParams p = *params;

	if (!find_order(cuda, &p, err))
		return false;
	return padded_dim == 64 ? launch_back<64>(cuda, &p, err)
							: launch_back<128>(cuda, &p, err);
}
