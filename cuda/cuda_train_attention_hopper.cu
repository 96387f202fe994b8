/*
 * cuda_train_attention_hopper.cu
 *	  Attention among segments, and its derivative, on Hopper.
 *
 * As cuda_train_attention.cu, with products of warpgroups: each has 64 rows of
 * the block's queries, or keys.  All threads fetch tiles of 64 tokens into a
 * ring, two ahead of their use.  There is one barrier for a tile: behind it
 * the tile is there, and everybody's products with the tile before the last
 * one are done, whose place is filled next.
 *
 * A tile's last products, which need what its scores became, are started
 * together with the next tile's first ones, so that they run beside its
 * powers.  For the first tile these are products with zeros.
 *
 * cuda/cuda_train_attention_hopper.cu
 */
#include "cuda/cuda_hopper.cuh"
#include "cuda/cuda_train_attention.cuh"

#define GROUP_THREADS 128 /* of a warpgroup */
#define GROUP_ROWS 64
#define AHEAD 2
#define STAGES (AHEAD + 2)

/* Warpgroups of a block: as many as sums fit the registers. */
#define GROUPS_THERE 3
#define GROUPS_BACK 2

/* n fixed tiles of N_GROUPS * 64 rows, and a ring of pairs */
template <int DIM, int N_GROUPS>
static constexpr size_t
shared_bytes(int n)
{
	return (size_t) (n * N_GROUPS * GROUP_ROWS + STAGES * 2 * TILE) * DIM *
		   sizeof(bf16);
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* ------------------------------------------------------------------------
 * Products of tiles
 * ------------------------------------------------------------------------
 */

/* Start sums = the warpgroup's 64 rows times the rows of a tile. */
template <int DIM>
static __device__ __forceinline__ void
start_rows(float (&sums)[TILE / 8][4], const bf16 *rows, const bf16 *others)
{
	const uint64_t a = wgmma_matrix(rows, 128, DIM * 16);
	const uint64_t b = wgmma_matrix(others, 128, DIM * 16);

	wgmma_pin(sums);
	wgmma_fence();
#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
		/* an address counts in 16 bytes; two 8 x 8 matrices further */
		wgmma_shared<TILE>(sums, a + s * 16, b + s * 16, s > 0);
	wgmma_commit();
}

/* Start sums += weights [64, TILE] times the rows of a tile. */
template <int DIM>
static __device__ __forceinline__ void
start_weighted(float (&sums)[DIM / 8][4], const uint32_t weights[TILE / 16][4],
			   const bf16 *rows)
{
	const uint64_t b = wgmma_matrix(rows, DIM * 16, 128);

	wgmma_pin(sums);
	wgmma_fence();
#pragma unroll
	for (int s = 0; s < TILE / 16; s++)
		wgmma_registers<DIM, true>(sums, weights[s], b + s * (2 * DIM));
	wgmma_commit();
}

static __device__ __forceinline__ void
clear_fragments(uint32_t fragments[TILE / 16][4])
{
#pragma unroll
	for (int i = 0; i < TILE / 4; i++)
		fragments[i / 4][i % 4] = 0;
}

/* ------------------------------------------------------------------------
 * The ring
 * ------------------------------------------------------------------------
 */

/* Tile t's place: keys, and values behind them; or queries, and d_out. */
template <int DIM>
static __device__ __forceinline__ bf16 *
place_of(bf16 *ring, int32_t t)
{
	return ring + t % STAGES * 2 * TILE * DIM;
}

template <int DIM, int N_THREADS>
static __device__ __forceinline__ void
fetch_keys(const SegmentParams &p, const KeyTiles &tiles, int32_t kv_head,
		   int32_t t, bf16 *ring)
{
	bf16 *keys = place_of<DIM>(ring, t);
	const int32_t first = tiles.first + t * TILE;

	if (t < tiles.n_tiles)
	{
		fetch_rows<DIM, TILE, N_THREADS>(p, p.k, p.n_kv_heads, kv_head, first,
										 keys);
		fetch_rows<DIM, TILE, N_THREADS>(p, p.v, p.n_kv_heads, kv_head, first,
										 keys + TILE * DIM);
	}
	copies_commit();
}

template <int DIM, int N_THREADS>
static __device__ __forceinline__ void
fetch_queries(const SegmentParams &p, const QueryTiles &tiles, int32_t t,
			  bf16 *ring, QueryTile *facts)
{
	bf16 *queries = place_of<DIM>(ring, t);

	if (t < tiles.n_tiles)
	{
		const int32_t head = query_head(tiles, t);
		const int32_t first = first_query_of(tiles, t);

		fetch_rows<DIM, TILE, N_THREADS>(p, p.q, p.n_heads, head, first,
										 queries);
		fetch_rows<DIM, TILE, N_THREADS>(p, p.d_out, p.n_heads, head, first,
										 queries + TILE * DIM);
		fetch_facts(p, head, first, facts + t % STAGES);
	}
	copies_commit();
}

/* Tile t has come, and that before the last is no longer read. */
static __device__ __forceinline__ void
await_tile(void)
{
	copies_wait<AHEAD - 1>();
	fence_async_proxy();
	__syncthreads();
}

#endif

/* ------------------------------------------------------------------------
 * There
 * ------------------------------------------------------------------------
 */

/* Grid: tiles of queries, heads. */
template <int DIM>
static __global__ void
__launch_bounds__(GROUPS_THERE *GROUP_THREADS, 1)
	attend_hopper(const __grid_constant__ SegmentParams p)
{
/* on an older GPU it is never started */
#if __CUDA_ARCH__ >= 900
	const int n_threads = GROUPS_THERE * GROUP_THREADS;
	const int n_rows = GROUPS_THERE * GROUP_ROWS;
	const int group = (int) threadIdx.x / GROUP_THREADS;
	const int32_t head = (int32_t) blockIdx.y;
	const int32_t kv_head = head / (p.n_heads / p.n_kv_heads);
	/* late queries, which see most, start first */
	const int32_t first_query = (int32_t) (gridDim.x - 1 - blockIdx.x) * n_rows;
	const int32_t own_query = first_query + (int) threadIdx.x / WARP * MMA_ROWS;
	const KeyTiles tiles = keys_of(p, first_query, n_rows);
	bf16 *queries = (bf16 *) dynamic_shared();
	bf16 *ring = queries + n_rows * DIM;
	const bf16 *own = queries + group * GROUP_ROWS * DIM;
	RowState rows = row_state(p, own_query);
	float out[DIM / 8][4];
	float scores[TILE / 8][4];
	uint32_t weights[TILE / 16][4];

	clear_sums<DIM>(out);
	clear_fragments(weights);
	fetch_rows<DIM, n_rows, n_threads>(p, p.q, p.n_heads, head, first_query,
									   queries);
	for (int32_t t = 0; t < AHEAD; t++)
		fetch_keys<DIM, n_threads>(p, tiles, kv_head, t, ring);
	for (int32_t t = 0; t < tiles.n_tiles; t++)
	{
		float factors[2];

		await_tile();
		start_rows<DIM>(scores, own, place_of<DIM>(ring, t));
		start_weighted<DIM>(out, weights,
							place_of<DIM>(ring, max(t - 1, 0)) + TILE * DIM);
		fetch_keys<DIM, n_threads>(p, tiles, kv_head, t + AHEAD, ring);
		wgmma_wait<1>();
		wgmma_pin(scores);
		soften_tile(p, rows, scores, tiles, t, factors);
		wgmma_wait<0>();
		wgmma_pin(out);
#pragma unroll
		for (int i = 0; i < DIM / 8; i++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				out[i][k] *= factors[k / 2];
		pack_fragments(weights, scores);
	}
	start_weighted<DIM>(out, weights,
						place_of<DIM>(ring, tiles.n_tiles - 1) + TILE * DIM);
	wgmma_wait<0>();
	wgmma_pin(out);
	finish_queries<DIM>(p, head, own_query, rows, out);
#endif
}

/* ------------------------------------------------------------------------
 * Back
 * ------------------------------------------------------------------------
 */

/* Grid: tiles of queries, heads. */
template <int DIM>
static __global__ void
__launch_bounds__(GROUPS_BACK *GROUP_THREADS, 1)
	queries_back_hopper(const __grid_constant__ SegmentParams p)
{
#if __CUDA_ARCH__ >= 900
	const int n_threads = GROUPS_BACK * GROUP_THREADS;
	const int n_rows = GROUPS_BACK * GROUP_ROWS;
	const int group = (int) threadIdx.x / GROUP_THREADS;
	const int32_t head = (int32_t) blockIdx.y;
	const int32_t kv_head = head / (p.n_heads / p.n_kv_heads);
	const int32_t first_query = (int32_t) (gridDim.x - 1 - blockIdx.x) * n_rows;
	const int32_t own_query = first_query + (int) threadIdx.x / WARP * MMA_ROWS;
	const KeyTiles tiles = keys_of(p, first_query, n_rows);
	const QueryFacts facts = query_facts(p, head, own_query);
	const float factors[2] = { p.scale, p.scale };
	bf16 *queries = (bf16 *) dynamic_shared();
	bf16 *d_outs = queries + n_rows * DIM;
	bf16 *ring = d_outs + n_rows * DIM;
	const int own = group * GROUP_ROWS * DIM;
	float d_q[DIM / 8][4];
	float scores[TILE / 8][4];
	float slopes[TILE / 8][4];
	uint32_t fragments[TILE / 16][4];

	clear_sums<DIM>(d_q);
	clear_fragments(fragments);
	fetch_rows<DIM, n_rows, n_threads>(p, p.q, p.n_heads, head, first_query,
									   queries);
	fetch_rows<DIM, n_rows, n_threads>(p, p.d_out, p.n_heads, head, first_query,
									   d_outs);
	for (int32_t t = 0; t < AHEAD; t++)
		fetch_keys<DIM, n_threads>(p, tiles, kv_head, t, ring);
	for (int32_t t = 0; t < tiles.n_tiles; t++)
	{
		const bf16 *keys = place_of<DIM>(ring, t);

		await_tile();
		start_rows<DIM>(scores, queries + own, keys);
		start_rows<DIM>(slopes, d_outs + own, keys + TILE * DIM);
		start_weighted<DIM>(d_q, fragments, place_of<DIM>(ring, max(t - 1, 0)));
		fetch_keys<DIM, n_threads>(p, tiles, kv_head, t + AHEAD, ring);
		wgmma_wait<1>();
		wgmma_pin(scores);
		wgmma_pin(slopes);
		query_slopes(p, facts, scores, slopes, tiles, t);
		wgmma_wait<0>();
		wgmma_pin(d_q);
		pack_fragments(fragments, slopes);
	}
	start_weighted<DIM>(d_q, fragments, place_of<DIM>(ring, tiles.n_tiles - 1));
	wgmma_wait<0>();
	wgmma_pin(d_q);
	store_sums<DIM>(p, p.d_q, p.n_heads, head, own_query, d_q, factors);
#endif
}

/* Grid: tiles of keys, kv heads. */
template <int DIM>
static __global__ void
__launch_bounds__(GROUPS_BACK *GROUP_THREADS, 1)
	keys_back_hopper(const __grid_constant__ SegmentParams p)
{
#if __CUDA_ARCH__ >= 900
	__shared__ __align__(16) QueryTile facts[STAGES];
	const int n_threads = GROUPS_BACK * GROUP_THREADS;
	const int n_rows = GROUPS_BACK * GROUP_ROWS;
	const int group = (int) threadIdx.x / GROUP_THREADS;
	const int32_t kv_head = (int32_t) blockIdx.y;
	/* early keys are seen by most */
	const int32_t first_key = (int32_t) blockIdx.x * n_rows;
	const int32_t own_key = first_key + (int) threadIdx.x / WARP * MMA_ROWS;
	const QueryTiles tiles = queries_of(p, kv_head, first_key, n_rows);
	const float factors[2] = { p.scale, p.scale };
	const float ones[2] = { 1, 1 };
	bf16 *keys = (bf16 *) dynamic_shared();
	bf16 *values = keys + n_rows * DIM;
	bf16 *ring = values + n_rows * DIM;
	const int own = group * GROUP_ROWS * DIM;
	float d_k[DIM / 8][4];
	float d_v[DIM / 8][4];
	float weights[TILE / 8][4];
	float slopes[TILE / 8][4];
	uint32_t weight_fragments[TILE / 16][4];
	uint32_t slope_fragments[TILE / 16][4];

	clear_sums<DIM>(d_k);
	clear_sums<DIM>(d_v);
	clear_fragments(slope_fragments);
	fetch_rows<DIM, n_rows, n_threads>(p, p.k, p.n_kv_heads, kv_head, first_key,
									   keys);
	fetch_rows<DIM, n_rows, n_threads>(p, p.v, p.n_kv_heads, kv_head, first_key,
									   values);
	for (int32_t t = 0; t < AHEAD; t++)
		fetch_queries<DIM, n_threads>(p, tiles, t, ring, facts);
	for (int32_t t = 0; t < tiles.n_tiles; t++)
	{
		const bf16 *queries = place_of<DIM>(ring, t);
		const bf16 *d_outs = queries + TILE * DIM;
		KeyRows rows;

		await_tile();
		start_rows<DIM>(weights, keys + own, queries);
		start_rows<DIM>(slopes, values + own, d_outs);
		start_weighted<DIM>(d_k, slope_fragments,
							place_of<DIM>(ring, max(t - 1, 0)));
		fetch_queries<DIM, n_threads>(p, tiles, t + AHEAD, ring, facts);
		rows = key_rows(p, &facts[t % STAGES], first_key, n_rows,
						first_query_of(tiles, t));
		wgmma_wait<2>();
		wgmma_pin(weights);
		key_weights(p, rows, weights, weight_fragments);
		start_weighted<DIM>(d_v, weight_fragments, d_outs);
		/* d_k's and d_v's products may still be under way */
		wgmma_wait<2>();
		wgmma_pin(slopes);
		key_slopes(rows, weights, slopes);
		wgmma_wait<0>();
		wgmma_pin(d_k);
		wgmma_pin(d_v);
		pack_fragments(slope_fragments, slopes);
	}
	start_weighted<DIM>(d_k, slope_fragments,
						place_of<DIM>(ring, tiles.n_tiles - 1));
	wgmma_wait<0>();
	wgmma_pin(d_k);
	store_sums<DIM>(p, p.d_k, p.n_kv_heads, kv_head, own_key, d_k, factors);
	store_sums<DIM>(p, p.d_v, p.n_kv_heads, kv_head, own_key, d_v, ones);
#endif
}

/* ------------------------------------------------------------------------
 * Launches
 * ------------------------------------------------------------------------
 */
static LaunchShape
shape_of(const SegmentParams *p, int n_groups, int32_t n_heads, size_t bytes)
{
	return { dim3((unsigned) ceil_div(p->n_tokens, n_groups * GROUP_ROWS),
				  (unsigned) n_heads),
			 (unsigned) (n_groups * GROUP_THREADS), bytes };
}

template <int DIM>
static bool
launch_there(LlmCuda *cuda, const SegmentParams *p, LlmError *err)
{
	return train_launch(cuda,
						shape_of(p, GROUPS_THERE, p->n_heads,
								 shared_bytes<DIM, GROUPS_THERE>(1)),
						err, attend_hopper<DIM>, *p);
}

template <int DIM>
static bool
launch_back(LlmCuda *cuda, const SegmentParams *p, LlmError *err)
{
	const size_t bytes = shared_bytes<DIM, GROUPS_BACK>(2);

	return train_launch(cuda, shape_of(p, GROUPS_BACK, p->n_heads, bytes), err,
						queries_back_hopper<DIM>, *p) &&
		   train_launch(cuda, shape_of(p, GROUPS_BACK, p->n_kv_heads, bytes),
						err, keys_back_hopper<DIM>, *p);
}

bool
cuda_segment_attention_hopper(LlmCuda *cuda, const SegmentParams *p,
							  int32_t padded_dim, LlmError *err)
{
	return padded_dim == 64 ? launch_there<64>(cuda, p, err)
							: launch_there<128>(cuda, p, err);
}

bool
cuda_segment_attention_back_hopper(LlmCuda *cuda, const SegmentParams *p,
								   int32_t padded_dim, LlmError *err)
{
	return padded_dim == 64 ? launch_back<64>(cuda, p, err)
							: launch_back<128>(cuda, p, err);
}
