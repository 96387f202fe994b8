/*
 * cuda_train_attention.cu
 *	  Attention among segments, and its derivative, on any GPU.
 *
 * A block has four warps with 16 rows each of 64 queries, or of 64 keys on
 * the way back to them, and fetches tiles of 64 tokens one ahead of their use.
 * Keys' blocks compute scores as keys times queries: probabilities and their
 * slopes then lie in registers as the products with d_out and q need them.
 * Tiles lie in shared memory as in cuda_attention_tile.cuh: 8 x 8 matrices of
 * 128 contiguous bytes, of 8 tokens first all of their dimensions.
 * Hopper has kernels of its own for heads of up to 128 dimensions.
 *
 * cuda/cuda_train_attention.cu
 */
#include "cuda/cuda_train_attention.cuh"

#define THREADS 128
#define WARPS (THREADS / WARP)
#define ROWS (WARPS * MMA_ROWS)

template <int DIM> struct Tiles
{
	/* a second tile on its way does not fit for the longest heads */
	static const int stages = DIM <= 128 ? 2 : 1;
	static const int elements = TILE * DIM;
	/* n fixed tiles, and a ring of pairs */
	static constexpr size_t bytes(int n)
	{
		return (size_t) (n + 2 * stages) * elements * sizeof(bf16);
	}
};

/* ------------------------------------------------------------------------
 * Products of tiles
 * ------------------------------------------------------------------------
 */

/* sums = rows (this warp's 16 of a tile) times all rows of another */
template <int DIM>
static __device__ __forceinline__ void
multiply_rows(float (&sums)[TILE / 8][4], const bf16 *rows, const bf16 *others)
{
	const int first = (int) threadIdx.x / WARP * MMA_ROWS;

	clear_sums<TILE>(sums);
#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
	{
		uint32_t a[4];

		query_fragment<DIM>(a, rows, first, s);
#pragma unroll
		for (int i = 0; i < TILE / 16; i++)
		{
			uint32_t b[4];

			key_fragment<DIM>(b, others, 16 * i, s);
			mma_16x8x16(sums[2 * i], a, b[0], b[1]);
			mma_16x8x16(sums[2 * i + 1], a, b[2], b[3]);
		}
	}
}

/* sums += weights [16, TILE] times the rows of a tile */
template <int DIM>
static __device__ __forceinline__ void
add_weighted(float (&sums)[DIM / 8][4], const uint32_t weights[TILE / 16][4],
			 const bf16 *rows)
{
#pragma unroll
	for (int i = 0; i < TILE / 16; i++)
#pragma unroll
		for (int d = 0; d < DIM / 16; d++)
		{
			uint32_t b[4];

			value_fragment<DIM, false>(b, rows, 16 * i, d);
			mma_16x8x16(sums[2 * d], weights[i], b[0], b[1]);
			mma_16x8x16(sums[2 * d + 1], weights[i], b[2], b[3]);
		}
}

/* ------------------------------------------------------------------------
 * There
 * ------------------------------------------------------------------------
 */

/* Start fetching tile t of the keys and values that a block goes over. */
template <int DIM>
static __device__ __forceinline__ void
fetch_keys(const SegmentParams &p, const KeyTiles &tiles, int32_t kv_head,
		   int32_t t, bf16 *ring)
{
	bf16 *keys = ring + t % Tiles<DIM>::stages * 2 * Tiles<DIM>::elements;
	const int32_t first = tiles.first + t * TILE;

	fetch_rows<DIM, TILE, THREADS>(p, p.k, p.n_kv_heads, kv_head, first, keys);
	fetch_rows<DIM, TILE, THREADS>(p, p.v, p.n_kv_heads, kv_head, first,
								   keys + Tiles<DIM>::elements);
}

/* Grid: tiles of queries, heads. */
template <int DIM>
static __global__ void
__launch_bounds__(THREADS) attend(const __grid_constant__ SegmentParams p)
{
	const int stages = Tiles<DIM>::stages;
	const int warp_row = (int) threadIdx.x / WARP * MMA_ROWS;
	const int32_t head = (int32_t) blockIdx.y;
	const int32_t kv_head = head / (p.n_heads / p.n_kv_heads);
	/* late queries, which see most, start first */
	const int32_t first_query = (int32_t) (gridDim.x - 1 - blockIdx.x) * ROWS;
	const KeyTiles tiles = keys_of<TILE>(p, first_query, ROWS);
	bf16 *queries = (bf16 *) dynamic_shared();
	bf16 *ring = queries + Tiles<DIM>::elements;
	RowState rows = row_state(p, first_query + warp_row);
	float out[DIM / 8][4];

	clear_sums<DIM>(out);
	fetch_rows<DIM, ROWS, THREADS>(p, p.q, p.n_heads, head, first_query,
								   queries);
	if (stages > 1)
		fetch_keys<DIM>(p, tiles, kv_head, 0, ring);
	copies_commit();
	for (int32_t t = 0; t < tiles.n_tiles; t++)
	{
		const bf16 *keys = ring + t % stages * 2 * Tiles<DIM>::elements;
		float scores[TILE / 8][4];
		uint32_t weights[TILE / 16][4];
		float factors[2];

		if (t + stages - 1 < tiles.n_tiles)
			fetch_keys<DIM>(p, tiles, kv_head, t + stages - 1, ring);
		copies_commit();
		copies_wait<stages - 1>();
		__syncthreads();
		multiply_rows<DIM>(scores, queries, keys);
		soften_tile(p, rows, scores, tiles, t, factors);
		pack_fragments(weights, scores);
#pragma unroll
		for (int i = 0; i < DIM / 8; i++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				out[i][k] *= factors[k / 2];
		add_weighted<DIM>(out, weights, keys + Tiles<DIM>::elements);
		__syncthreads();
	}
	finish_queries<DIM>(p, head, first_query + warp_row, rows, out);
}

/* ------------------------------------------------------------------------
 * Back to queries
 * ------------------------------------------------------------------------
 */

template <int DIM>
static __global__ void
__launch_bounds__(THREADS) queries_back(const __grid_constant__ SegmentParams p)
{
	const int stages = Tiles<DIM>::stages;
	const int warp_row = (int) threadIdx.x / WARP * MMA_ROWS;
	const int32_t head = (int32_t) blockIdx.y;
	const int32_t kv_head = head / (p.n_heads / p.n_kv_heads);
	const int32_t first_query = (int32_t) (gridDim.x - 1 - blockIdx.x) * ROWS;
	const KeyTiles tiles = keys_of<TILE>(p, first_query, ROWS);
	const QueryFacts facts = query_facts(p, head, first_query + warp_row);
	const float factors[2] = { p.scale, p.scale };
	bf16 *queries = (bf16 *) dynamic_shared();
	bf16 *d_outs = queries + Tiles<DIM>::elements;
	bf16 *ring = d_outs + Tiles<DIM>::elements;
	float d_q[DIM / 8][4];

	clear_sums<DIM>(d_q);
	fetch_rows<DIM, ROWS, THREADS>(p, p.q, p.n_heads, head, first_query,
								   queries);
	fetch_rows<DIM, ROWS, THREADS>(p, p.d_out, p.n_heads, head, first_query,
								   d_outs);
	if (stages > 1)
		fetch_keys<DIM>(p, tiles, kv_head, 0, ring);
	copies_commit();
	for (int32_t t = 0; t < tiles.n_tiles; t++)
	{
		const bf16 *keys = ring + t % stages * 2 * Tiles<DIM>::elements;
		float scores[TILE / 8][4];
		float slopes[TILE / 8][4];
		uint32_t fragments[TILE / 16][4];

		if (t + stages - 1 < tiles.n_tiles)
			fetch_keys<DIM>(p, tiles, kv_head, t + stages - 1, ring);
		copies_commit();
		copies_wait<stages - 1>();
		__syncthreads();
		multiply_rows<DIM>(scores, queries, keys);
		multiply_rows<DIM>(slopes, d_outs, keys + Tiles<DIM>::elements);
		query_weights(p, facts, scores, tiles, t);
		query_slopes(facts, scores, slopes);
		pack_fragments(fragments, slopes);
		add_weighted<DIM>(d_q, fragments, keys);
		__syncthreads();
	}
	store_sums<DIM>(p, p.d_q, p.n_heads, head, first_query + warp_row, d_q,
					factors);
}

/* ------------------------------------------------------------------------
 * Back to keys and values
 * ------------------------------------------------------------------------
 */

/* Start fetching tile t of the queries that a block goes over. */
template <int DIM>
static __device__ __forceinline__ void
fetch_queries(const SegmentParams &p, const QueryTiles &tiles, int32_t t,
			  bf16 *ring, QueryTile *facts)
{
	const int stage = t % Tiles<DIM>::stages;
	bf16 *queries = ring + stage * 2 * Tiles<DIM>::elements;
	const int32_t head = query_head(tiles, t);
	const int32_t first = first_query_of(tiles, t);

	fetch_rows<DIM, TILE, THREADS>(p, p.q, p.n_heads, head, first, queries);
	fetch_rows<DIM, TILE, THREADS>(p, p.d_out, p.n_heads, head, first,
								   queries + Tiles<DIM>::elements);
	fetch_facts(p, head, first, facts + stage, (int) threadIdx.x);
}

/* Grid: tiles of keys, kv heads.  The longest heads take a pass for each. */
template <int DIM, bool HAS_K, bool HAS_V>
static __global__ void
__launch_bounds__(THREADS) keys_back(const __grid_constant__ SegmentParams p)
{
	const int stages = Tiles<DIM>::stages;
	__shared__ __align__(16) QueryTile facts[stages];
	const int32_t kv_head = (int32_t) blockIdx.y;
	/* early keys are seen by most */
	const int32_t first_key = (int32_t) blockIdx.x * ROWS;
	const int32_t own_key = first_key + (int) threadIdx.x / WARP * MMA_ROWS;
	const QueryTiles tiles = queries_of(p, kv_head, first_key, ROWS);
	const float scales[2] = { p.scale, p.scale };
	const float ones[2] = { 1, 1 };
	bf16 *keys = (bf16 *) dynamic_shared();
	bf16 *values = keys + Tiles<DIM>::elements;
	bf16 *ring = values + Tiles<DIM>::elements;
	float d_k[DIM / 8][4];
	float d_v[DIM / 8][4];

	clear_sums<DIM>(d_k);
	clear_sums<DIM>(d_v);
	fetch_rows<DIM, ROWS, THREADS>(p, p.k, p.n_kv_heads, kv_head, first_key,
								   keys);
	fetch_rows<DIM, ROWS, THREADS>(p, p.v, p.n_kv_heads, kv_head, first_key,
								   values);
	if (stages > 1)
		fetch_queries<DIM>(p, tiles, 0, ring, facts);
	copies_commit();
	for (int32_t t = 0; t < tiles.n_tiles; t++)
	{
		const bf16 *queries = ring + t % stages * 2 * Tiles<DIM>::elements;
		const bf16 *d_outs = queries + Tiles<DIM>::elements;
		float weights[TILE / 8][4];
		float slopes[TILE / 8][4];
		uint32_t fragments[TILE / 16][4];
		uint32_t factors[TILE / 16][4];
		KeyRows rows;

		if (t + stages - 1 < tiles.n_tiles)
			fetch_queries<DIM>(p, tiles, t + stages - 1, ring, facts);
		copies_commit();
		copies_wait<stages - 1>();
		__syncthreads();
		rows = key_rows(p, &facts[t % stages], first_key, ROWS,
						first_query_of(tiles, t));
		multiply_rows<DIM>(weights, keys, queries);
		if (p.soft_cap > 0)
			weigh_keys<true>(p, rows, weights, fragments, factors);
		else
			weigh_keys<false>(p, rows, weights, fragments, factors);
		if (HAS_V)
			add_weighted<DIM>(d_v, fragments, d_outs);
		if (HAS_K)
		{
			multiply_rows<DIM>(slopes, values, d_outs);
			key_slopes(rows, factors, slopes);
			pack_fragments(fragments, slopes);
			add_weighted<DIM>(d_k, fragments, queries);
		}
		__syncthreads();
	}
	if (HAS_K)
		store_sums<DIM>(p, p.d_k, p.n_kv_heads, kv_head, own_key, d_k, scales);
	if (HAS_V)
		store_sums<DIM>(p, p.d_v, p.n_kv_heads, kv_head, own_key, d_v, ones);
}

/* ------------------------------------------------------------------------
 * out . d_out
 * ------------------------------------------------------------------------
 */

/* A warp takes a token's head. */
static __global__ void
__launch_bounds__(THREADS) sum_outs(const __grid_constant__ SegmentParams p)
{
	const int lane = (int) threadIdx.x % WARP;
	const int64_t row = (int64_t) blockIdx.x * WARPS + (int) threadIdx.x / WARP;
	const int64_t first = row * p.head_dim;
	float sum = 0;

	if (row >= (int64_t) p.n_tokens * p.n_heads)
		return;
	for (int32_t i = lane * VALUES; i < p.head_dim; i += WARP * VALUES)
	{
		float a[VALUES];
		float b[VALUES];

		load_values(p.out + first, i, p.head_dim, p.is_aligned, a);
		load_values(p.d_out + first, i, p.head_dim, p.is_aligned, b);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
			sum += a[k] * b[k];
	}
	sum = warp_sum(sum);
	if (lane == 0)
		p.out_sums[row % p.n_heads * p.n_tokens + row / p.n_heads] = sum;
}

/* ------------------------------------------------------------------------
 * The operations
 * ------------------------------------------------------------------------
 */
static SegmentParams
params_of(const LlmSegmentAttentionArgs *args)
{
	SegmentParams p = {};
	uintptr_t bits = (uintptr_t) args->q | (uintptr_t) args->k |
					 (uintptr_t) args->v | (uintptr_t) args->out;

	assert(args->n_heads % args->n_kv_heads == 0);
	assert(args->head_dim <= MAX_HEAD_DIM);
	p.q = (const bf16 *) args->q;
	p.k = (const bf16 *) args->k;
	p.v = (const bf16 *) args->v;
	p.segment_start = args->segment_start;
	p.segment_end = args->segment_end;
	p.out = (bf16 *) args->out;
	p.log_sums = args->log_sums;
	p.n_tokens = args->n_tokens;
	p.n_heads = args->n_heads;
	p.n_kv_heads = args->n_kv_heads;
	p.head_dim = args->head_dim;
	p.window = args->sliding_window;
	p.scale = args->scale;
	p.soft_cap = args->soft_cap;
	p.is_aligned = args->head_dim % VALUES == 0 && are_aligned(bits);
	return p;
}

static int32_t
padded_dim(int32_t head_dim)
{
	return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 256;
}

/* Blocks of rows, times heads. */
static LaunchShape
shape_of(const SegmentParams *p, int32_t n_heads, size_t shared_bytes)
{
	return { dim3((unsigned) ceil_div(p->n_tokens, ROWS), (unsigned) n_heads),
			 THREADS, shared_bytes };
}

template <int DIM>
static bool
launch_there(LlmCuda *cuda, const SegmentParams *p, LlmError *err)
{
	return train_launch(cuda, shape_of(p, p->n_heads, Tiles<DIM>::bytes(1)),
						err, attend<DIM>, *p);
}

template <int DIM>
static bool
launch_back(LlmCuda *cuda, const SegmentParams *p, LlmError *err)
{
	const LaunchShape of_keys =
		shape_of(p, p->n_kv_heads, Tiles<DIM>::bytes(2));

	if (!train_launch(cuda, shape_of(p, p->n_heads, Tiles<DIM>::bytes(2)), err,
					  queries_back<DIM>, *p))
		return false;
	/* both sums do not fit the registers for the longest heads */
	if constexpr (DIM > 128)
		return train_launch(cuda, of_keys, err, keys_back<DIM, true, false>,
							*p) &&
			   train_launch(cuda, of_keys, err, keys_back<DIM, false, true>,
							*p);
	else
		return train_launch(cuda, of_keys, err, keys_back<DIM, true, true>, *p);
}

bool
cuda_segment_attention(LlmCompute *compute, const LlmSegmentAttentionArgs *args,
					   LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	SegmentParams p = params_of(args);

	if (p.n_tokens == 0)
		return true;
	if (cuda->capability == 90 && p.head_dim <= 128)
		return cuda_segment_attention_hopper(cuda, &p, padded_dim(p.head_dim),
											 err);
	switch (padded_dim(p.head_dim))
	{
		case 64:
			return launch_there<64>(cuda, &p, err);
		case 128:
			return launch_there<128>(cuda, &p, err);
		default:
			return launch_there<256>(cuda, &p, err);
	}
}

bool
cuda_segment_attention_back(LlmCompute *compute,
							const LlmSegmentAttentionBackArgs *args,
							LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	SegmentParams p = params_of(&args->forward);
	uintptr_t bits = (uintptr_t) args->d_out | (uintptr_t) args->d_q |
					 (uintptr_t) args->d_k | (uintptr_t) args->d_v;
	unsigned n_sums =
		(unsigned) ceil_div((int64_t) p.n_tokens * p.n_heads, WARPS);

	p.d_out = (const bf16 *) args->d_out;
	p.d_q = (bf16 *) args->d_q;
	p.d_k = (bf16 *) args->d_k;
	p.d_v = (bf16 *) args->d_v;
	p.out_sums = args->d_out_sums;
	p.is_aligned = p.is_aligned && are_aligned(bits);
	if (p.n_tokens == 0)
		return true;
	if (!train_launch(cuda, { dim3(n_sums), THREADS }, err, sum_outs, p))
		return false;
	if (cuda->capability == 90 && p.head_dim <= 128)
		return cuda_segment_attention_back_hopper(cuda, &p,
												  padded_dim(p.head_dim), err);
	switch (padded_dim(p.head_dim))
	{
		case 64:
			return launch_back<64>(cuda, &p, err);
		case 128:
			return launch_back<128>(cuda, &p, err);
		default:
			return launch_back<256>(cuda, &p, err);
	}
}
