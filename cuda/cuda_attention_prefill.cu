/*
 * cuda_attention_prefill.cu
 *	  Attention of many new tokens over their sequence's paged context.
 *
 * A block takes 64 or 128 rows (tokens times heads of a group) of a sequence,
 * four warps with 16 or 32 rows each, and walks over the keys that any of them
 * sees, in tiles of 64, one being computed while the next is fetched (the
 * scheme of FlashAttention-2, Dao 2023).  Late tiles, which see most, start
 * first.  Codes of 8 bits are expanded to bf16 on the way to shared memory, the
 * next tile's after this one is computed.
 *
 * cuda/cuda_attention_prefill.cu
 */
#include "cuda/cuda_attention_tile.cuh"
#include "cuda/cuda_code.cuh"

#define PREFILL_THREADS 128
#define KEY_STEPS (KEY_TILE / 16)

template <int DIM, int TILES> struct Prefill
{
	static const int rows = 4 * TILES * MMA_ROWS;
	static const int shared_bytes =
		(rows + 4 * KEY_TILE) * DIM * (int) sizeof(bf16);
};

template <int DIM, int TILES>
static __device__ __forceinline__ void
compute_scores(float scores[TILES][KEY_TILE / 8][4], const bf16 *queries,
			   const bf16 *keys)
{
	const int warp = (int) threadIdx.x / WARP;

#pragma unroll
	for (int m = 0; m < TILES; m++)
#pragma unroll
		for (int i = 0; i < KEY_TILE / 8; i++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				scores[m][i][k] = 0;
#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
	{
		uint32_t q[TILES][4];

#pragma unroll
		for (int m = 0; m < TILES; m++)
			query_fragment<DIM>(q[m], queries, (warp * TILES + m) * MMA_ROWS,
								s);
#pragma unroll
		for (int j = 0; j < KEY_STEPS; j++)
		{
			uint32_t k[4];

			key_fragment<DIM>(k, keys, j * 16, s);
#pragma unroll
			for (int m = 0; m < TILES; m++)
			{
				mma_16x8x16(scores[m][2 * j], q[m], k[0], k[1]);
				mma_16x8x16(scores[m][2 * j + 1], q[m], k[2], k[3]);
			}
		}
	}
}

/* Cap, mask, soften; weights replace the scores. */
template <int DIM>
static __device__ __forceinline__ void
weigh(RowTile<DIM> &tile, float scores[KEY_TILE / 8][4],
	  const AttentionParams &p, int32_t first_key, bool is_masked)
{
	const int lane = (int) threadIdx.x % WARP;
	const float scale = score_scale(p);

	if (p.soft_cap > 0)
	{
#pragma unroll
		for (int i = 0; i < KEY_TILE / 2; i++)
			scores[i / 4][i % 4] = capped_score(p, scores[i / 4][i % 4]);
	}
	if (is_masked)
	{
#pragma unroll
		for (int i = 0; i < KEY_TILE / 2; i++)
			if (!sees(p, tile.position[i % 4 / 2],
					  first_key + i / 4 * 8 + lane % 4 * 2 + i % 2))
				scores[i / 4][i % 4] = -INFINITY;
	}
#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		float *row[KEY_TILE / 4];
		float factor;

#pragma unroll
		for (int i = 0; i < KEY_TILE / 4; i++)
			row[i] = &scores[i / 2][2 * h + i % 2];
		factor = soften<KEY_TILE / 4>(row, scale, tile.max[h], tile.sum[h]);
#pragma unroll
		for (int i = 0; i < DIM / 8; i++)
		{
			tile.out[i][2 * h] *= factor;
			tile.out[i][2 * h + 1] *= factor;
		}
	}
}

template <int DIM, int TILES, bool IS_CODED>
static __device__ __forceinline__ void
add_values(RowTile<DIM> tiles[TILES],
		   const float weights[TILES][KEY_TILE / 8][4], const bf16 *values)
{
#pragma unroll
	for (int j = 0; j < KEY_STEPS; j++)
	{
		uint32_t w[TILES][4];

#pragma unroll
		for (int m = 0; m < TILES; m++)
		{
			const float(*each)[4] = &weights[m][2 * j];

			w[m][0] = pack_bf16(each[0][0], each[0][1]);
			w[m][1] = pack_bf16(each[0][2], each[0][3]);
			w[m][2] = pack_bf16(each[1][0], each[1][1]);
			w[m][3] = pack_bf16(each[1][2], each[1][3]);
		}
#pragma unroll
		for (int s = 0; s < DIM / 16; s++)
		{
			uint32_t v[4];

			value_fragment<DIM, IS_CODED>(v, values, j * 16, s);
#pragma unroll
			for (int m = 0; m < TILES; m++)
			{
				mma_16x8x16(tiles[m].out[2 * s], w[m], v[0], v[1]);
				mma_16x8x16(tiles[m].out[2 * s + 1], w[m], v[2], v[3]);
			}
		}
	}
}

/*
 * Codes of a tile, straight from the cache.  In the last tile, what
 * stands for groups beyond the end does not matter: it is masked, or zeros.
 */
template <int DIM>
static __device__ __forceinline__ void
expand_tile(const AttentionParams &p, const int32_t *table, int32_t kv_head,
			int32_t first_key, int32_t end_key, bf16 *tile)
{
	const bool is_e4m3 = p.kv_dtype == LLM_DTYPE_FP8_E4M3;
	const int32_t mask = (1 << p.block_shift) - 1;

	for (int i = (int) threadIdx.x; i < KEY_TILE / CODE_GROUP * DIM;
		 i += PREFILL_THREADS)
	{
		const int32_t in_tile = i / DIM * CODE_GROUP;
		int32_t key =
			min(first_key + in_tile, (end_key - 1) & ~(CODE_GROUP - 1));
		int64_t head =
			((int64_t) table[key >> p.block_shift] * p.n_kv_heads + kv_head) *
			p.head_bytes;
		int64_t codes = head + (key & mask) * DIM + i % DIM * 16;
		/* as if the tile's units lay together */
		int64_t units = head + (mask + 1) * DIM + (key & mask) - in_tile;

		expand_key_piece<DIM>(is_e4m3, p.keys + codes, p.keys + units, i, tile);
		expand_value_piece<DIM>(is_e4m3, p.values + codes, p.values + units, i,
								end_key - first_key, tile + KEY_TILE * DIM);
	}
}

/* A tile of keys, and of values behind it, if there is one. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
load_stage(const AttentionParams &p, const int32_t *table, int32_t kv_head,
		   int32_t first_key, int32_t end_key, bf16 *stage)
{
	bf16 *values = stage + KEY_TILE * DIM;

	if (first_key >= end_key)
		return;
	if constexpr (IS_CODED)
		expand_tile<DIM>(p, table, kv_head, first_key, end_key, stage);
	else
	{
		fetch_tile<DIM, PREFILL_THREADS>(p, p.keys, table, kv_head, first_key,
										 end_key, stage);
		fetch_tile<DIM, PREFILL_THREADS>(p, p.values, table, kv_head, first_key,
										 end_key, values);
	}
}

template <int DIM, int TILES, bool IS_CODED>
static __global__ void
__launch_bounds__(PREFILL_THREADS)
	attention_prefill(const __grid_constant__ AttentionParams p,
					  const int32_t *seqs)
{
	extern __shared__ __align__(128) unsigned char shared[];
	const int n_rows_of_block = Prefill<DIM, TILES>::rows;
	const int32_t seq = seqs[blockIdx.z];
	const int32_t kv_head = (int32_t) blockIdx.y;
	const int32_t first_token = p.query_start[seq];
	const int32_t n_rows = (p.query_start[seq + 1] - first_token) * p.group;
	const int32_t first_row =
		(int32_t) (gridDim.x - 1 - blockIdx.x) * n_rows_of_block;
	const int32_t first_position =
		p.context_len[seq] - (p.query_start[seq + 1] - first_token);
	const int32_t *table = p.block_tables + (int64_t) seq * p.table_stride;
	const int32_t own_row =
		first_row + (int32_t) (threadIdx.x / WARP) * TILES * MMA_ROWS;
	bf16 *queries = (bf16 *) shared;
	bf16 *stages = queries + n_rows_of_block * DIM;
	RowTile<DIM> tiles[TILES];
	KeyRange range;

	if (first_row >= n_rows)
		return;
	range = key_range<KEY_TILE>(
		p, first_position + first_row / p.group,
		first_position +
			(min(first_row + n_rows_of_block, n_rows) - 1) / p.group);
#pragma unroll
	for (int m = 0; m < TILES; m++)
		tile_init(tiles[m], p, first_position, own_row + m * MMA_ROWS);
	load_stage<DIM, IS_CODED>(p, table, kv_head, range.first_tile * KEY_TILE,
							  range.end_key, stages);
	copies_commit();
	fetch_query_rows<DIM, Prefill<DIM, TILES>::rows, PREFILL_THREADS>(
		p, first_token, n_rows, first_row, kv_head, queries);
	copies_wait<0>();
	for (int32_t t = range.first_tile; t < range.end_tile; t++)
	{
		bf16 *keys = stages + (t - range.first_tile) % 2 * 2 * KEY_TILE * DIM;
		bf16 *next =
			stages + (t + 1 - range.first_tile) % 2 * 2 * KEY_TILE * DIM;
		float scores[TILES][KEY_TILE / 8][4];
		bool is_masked = t >= range.first_masked || t < range.end_windowed;

		if constexpr (!IS_CODED)
			load_stage<DIM, false>(p, table, kv_head, (t + 1) * KEY_TILE,
								   range.end_key, next);
		copies_commit();
		copies_wait<1>();
		__syncthreads();
		compute_scores<DIM, TILES>(scores, queries, keys);
#pragma unroll
		for (int m = 0; m < TILES; m++)
			weigh(tiles[m], scores[m], p, t * KEY_TILE, is_masked);
		add_values<DIM, TILES, IS_CODED>(tiles, scores, keys + KEY_TILE * DIM);
		if constexpr (IS_CODED)
			load_stage<DIM, true>(p, table, kv_head, (t + 1) * KEY_TILE,
								  range.end_key, next);
		__syncthreads();
	}
#pragma unroll
	for (int m = 0; m < TILES; m++)
		store_tile(tiles[m], p, first_token, n_rows, own_row + m * MMA_ROWS,
				   kv_head);
}

template <int DIM, int TILES, bool IS_CODED>
static bool
launch(LlmCuda *cuda, const AttentionParams &p, LlmError *err)
{
	const StepPlan *plan = &cuda->plan;
	const int bytes = Prefill<DIM, TILES>::shared_bytes;
	dim3 grid((unsigned) ceil_div((int64_t) plan->max_prefill_len * p.group,
								  Prefill<DIM, TILES>::rows),
			  (unsigned) p.n_kv_heads, (unsigned) plan->n_prefill_seqs);

	CUDA_TRY(cudaFuncSetAttribute(attention_prefill<DIM, TILES, IS_CODED>,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  bytes));
	attention_prefill<DIM, TILES, IS_CODED>
		<<<grid, PREFILL_THREADS, bytes, cuda->stream>>>(p, plan->prefill_seqs);
	return cuda_launched("prefill attention", err);
}

template <int DIM, int TILES>
static bool
launch_format(LlmCuda *cuda, const AttentionParams &p, LlmError *err)
{
	return llm_dtype_is_coded(p.kv_dtype)
			   ? launch<DIM, TILES, true>(cuda, p, err)
			   : launch<DIM, TILES, false>(cuda, p, err);
}

bool
cuda_attention_prefill(LlmCuda *cuda, const AttentionParams *params,
					   int32_t padded_dim, LlmError *err)
{
	if (cuda->capability == 90)
		return cuda_attention_hopper(cuda, params, padded_dim, err);
	switch (padded_dim)
	{
		case 64:
			return launch_format<64, 2>(cuda, *params, err);
		case 96:
			return launch_format<96, 2>(cuda, *params, err);
		case 128:
			return launch_format<128, 2>(cuda, *params, err);
		default:
			return launch_format<256, 1>(cuda, *params, err);
	}
}
