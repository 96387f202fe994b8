/*
 * cuda_attention_decode.cu
 *	  Attention of one new token per sequence over paged contexts.
 *
 * Contexts are cut into pieces (flash-decoding, Dao et al. 2023) that blocks
 * work through alone: all heads of a kv head's group together, padded to the
 * 16 rows of a tensor-core product, so that keys and values are read once.
 * Each of the four warps takes 16 keys of a tile of 64; three tiles are on
 * their way.  Results of pieces carry the logarithm of their weight, and a
 * second kernel adds them up; a sequence of one piece is done at once.
 *
 * cuda/cuda_attention_decode.cu
 */
#include "cuda/cuda_attention_tile.cuh"

#define DECODE_WARPS 4
#define DECODE_THREADS (DECODE_WARPS * WARP)
#define STAGES 3

template <int DIM> struct Decode
{
	static const int stage_elements = 2 * KEY_TILE * DIM;
	static const int shared_bytes =
		(STAGES * stage_elements + MMA_ROWS * DIM) * (int) sizeof(bf16);
	/* the warps' results lie in the stages when those are done with */
	static_assert(DECODE_WARPS * MMA_ROWS * DIM * 4 <=
					  STAGES * stage_elements * 2,
				  "results fit");
};

template <int DIM> struct Partial
{
	float out[DIM / 8][4];
	float max[2]; /* rows g and g + 8 */
	float sum[2];
};

/* The warp's 16 keys of a tile. */
template <int DIM>
static __device__ __forceinline__ void
attend_keys(Partial<DIM> &part, const uint32_t queries[DIM / 16][4],
			const AttentionParams &p, const bf16 *tile, int32_t first_key,
			int32_t position)
{
	const int lane = (int) threadIdx.x % WARP;
	const int own = (int) threadIdx.x / WARP * 16;
	const bf16 *values = tile + KEY_TILE * DIM;
	float scores[2][4] = {};
	uint32_t weights[4];

#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
	{
		uint32_t k[4];

		key_fragment<DIM>(k, tile, own, s);
		mma_16x8x16(scores[0], queries[s], k[0], k[1]);
		mma_16x8x16(scores[1], queries[s], k[2], k[3]);
	}
#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		float *row[4];
		float factor;

#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			int32_t key = first_key + own + i / 2 * 8 + lane % 4 * 2 + i % 2;

			row[i] = &scores[i / 2][2 * h + i % 2];
			if (p.soft_cap > 0)
				*row[i] = capped_score(p, *row[i]);
			if (!sees(p, position, key))
				*row[i] = -INFINITY;
		}
		factor = soften<4>(row, score_scale(p), part.max[h], part.sum[h]);
#pragma unroll
		for (int i = 0; i < DIM / 8; i++)
		{
			part.out[i][2 * h] *= factor;
			part.out[i][2 * h + 1] *= factor;
		}
	}
	weights[0] = pack_bf16(scores[0][0], scores[0][1]);
	weights[1] = pack_bf16(scores[0][2], scores[0][3]);
	weights[2] = pack_bf16(scores[1][0], scores[1][1]);
	weights[3] = pack_bf16(scores[1][2], scores[1][3]);
#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
	{
		uint32_t v[4];

		value_fragment<DIM>(v, values, own, s);
		mma_16x8x16(part.out[2 * s], weights, v[0], v[1]);
		mma_16x8x16(part.out[2 * s + 1], weights, v[2], v[3]);
	}
}

/* Walk over the piece's tiles, STAGES - 1 of them ahead being fetched. */
template <int DIM>
static __device__ __forceinline__ void
attend_piece(Partial<DIM> &part, const uint32_t queries[DIM / 16][4],
			 const AttentionParams &p, const DecodePiece &piece,
			 int32_t kv_head, bf16 *stages, int32_t first_key)
{
	const int32_t *table =
		p.block_tables + (int64_t) piece.seq * p.table_stride;
	const int32_t position = p.context_len[piece.seq] - 1;
	const int n_tiles = (piece.end_key - first_key + KEY_TILE - 1) / KEY_TILE;

#pragma unroll
	for (int t = 0; t < STAGES - 1; t++)
	{
		bf16 *stage = stages + t * Decode<DIM>::stage_elements;

		if (t < n_tiles)
		{
			fetch_tile<DIM, DECODE_THREADS>(p, p.keys, table, kv_head,
											first_key + t * KEY_TILE,
											piece.end_key, stage);
			fetch_tile<DIM, DECODE_THREADS>(
				p, p.values, table, kv_head, first_key + t * KEY_TILE,
				piece.end_key, stage + KEY_TILE * DIM);
		}
		copies_commit();
	}
	for (int t = 0; t < n_tiles; t++)
	{
		int ahead = t + STAGES - 1;
		bf16 *stage = stages + ahead % STAGES * Decode<DIM>::stage_elements;

		copies_wait<STAGES - 2>();
		__syncthreads();
		if (ahead < n_tiles)
		{
			fetch_tile<DIM, DECODE_THREADS>(p, p.keys, table, kv_head,
											first_key + ahead * KEY_TILE,
											piece.end_key, stage);
			fetch_tile<DIM, DECODE_THREADS>(
				p, p.values, table, kv_head, first_key + ahead * KEY_TILE,
				piece.end_key, stage + KEY_TILE * DIM);
		}
		copies_commit();
		attend_keys<DIM>(part, queries, p,
						 stages + t % STAGES * Decode<DIM>::stage_elements,
						 first_key + t * KEY_TILE, position);
	}
	copies_wait<0>();
	__syncthreads();
}

/* Each warp's result, normalized to its own maximum, to shared memory. */
template <int DIM>
static __device__ __forceinline__ void
share_results(const Partial<DIM> &part, float *outs, float *maxima, float *sums)
{
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;

#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		int row = lane / 4 + 8 * h;
		float sum = quad_sum(part.sum[h]);

		if (lane % 4 == 0)
		{
			maxima[warp * MMA_ROWS + row] = part.max[h];
			sums[warp * MMA_ROWS + row] = sum;
		}
#pragma unroll
		for (int i = 0; i < DIM / 8; i++)
			*(float2 *) (outs + (warp * MMA_ROWS + row) * DIM + i * 8 +
						 lane % 4 * 2) =
				make_float2(part.out[i][2 * h], part.out[i][2 * h + 1]);
	}
	__syncthreads();
}

/* Add up the warps' results and store rows first_row .. of the group. */
template <int DIM>
static __device__ __forceinline__ void
store_results(const AttentionParams &p, const DecodePiece &piece,
			  int32_t first_head, int32_t n_rows, const float *outs,
			  const float *maxima, const float *sums)
{
	const int64_t token = p.query_start[piece.seq];

	for (int i = (int) threadIdx.x; i < n_rows * DIM; i += DECODE_THREADS)
	{
		int row = i / DIM;
		int d = i % DIM;
		int32_t head = first_head + row;
		const float scale = score_scale(p);
		float max = -INFINITY;
		float sum = 0;
		float out = 0;
		float base;

#pragma unroll
		for (int w = 0; w < DECODE_WARPS; w++)
			max = fmaxf(max, maxima[w * MMA_ROWS + row]);
		base = max == -INFINITY ? 0 : max * scale;
#pragma unroll
		for (int w = 0; w < DECODE_WARPS; w++)
		{
			float factor = exp2f(maxima[w * MMA_ROWS + row] * scale - base);

			sum += factor * sums[w * MMA_ROWS + row];
			out += factor * outs[(w * MMA_ROWS + row) * DIM + d];
		}
		out = sum > 0 ? out / sum : 0;
		if (d >= p.head_dim)
			continue;
		if (piece.is_whole)
			p.out[(token * p.n_heads + head) * p.head_dim + d] =
				__float2bfloat16(out);
		else
		{
			int64_t at = (int64_t) blockIdx.x * p.n_heads + head;

			p.partial_out[at * p.head_dim + d] = out;
			if (d == 0)
				p.partial_lse[at] = sum > 0 ? base + log2f(sum) : -INFINITY;
		}
	}
}

/* Grid: pieces, kv heads, tiles of 16 heads of a group. */
template <int DIM>
static __global__ void
__launch_bounds__(DECODE_THREADS)
	attention_decode(const __grid_constant__ AttentionParams p,
					 const DecodePiece *pieces, const int32_t *n_pieces)
{
	extern __shared__ __align__(128) unsigned char shared[];
	__shared__ float maxima[DECODE_WARPS * MMA_ROWS];
	__shared__ float sums[DECODE_WARPS * MMA_ROWS];
	bf16 *stages = (bf16 *) shared;
	bf16 *query_tile = stages + STAGES * Decode<DIM>::stage_elements;
	const int32_t kv_head = (int32_t) blockIdx.y;
	const int32_t first_row = (int32_t) blockIdx.z * MMA_ROWS;
	uint32_t queries[DIM / 16][4];
	Partial<DIM> part;
	DecodePiece piece;
	int32_t first_key;

	pass_release();
	pass_wait();
	if ((int32_t) blockIdx.x >= *n_pieces)
		return;
	piece = pieces[blockIdx.x];
	first_key = piece.first_key;
	if (p.window > 0)
		first_key = max(first_key, (p.context_len[piece.seq] - p.window) /
									   KEY_TILE * KEY_TILE);
	load_queries<DIM, MMA_ROWS, DECODE_THREADS>(
		p, p.query_start[piece.seq], p.group, first_row, kv_head, query_tile);
	__syncthreads();
#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
		query_fragment<DIM>(queries[s], query_tile, 0, s);
#pragma unroll
	for (int i = 0; i < DIM / 8; i++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			part.out[i][k] = 0;
#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		part.max[h] = -INFINITY;
		part.sum[h] = 0;
	}
	attend_piece<DIM>(part, queries, p, piece, kv_head, stages, first_key);
	share_results<DIM>(part, (float *) shared, maxima, sums);
	store_results<DIM>(p, piece, kv_head * p.group + first_row,
					   min(p.group - first_row, MMA_ROWS), (float *) shared,
					   maxima, sums);
}

/* ------------------------------------------------------------------------
 * Adding up the pieces of a sequence
 * ------------------------------------------------------------------------
 */

/* Grid: decoding sequences, heads; a thread for each dimension. */
static __global__ void
combine_pieces(const __grid_constant__ AttentionParams p,
			   const int32_t *decode_seqs, const int32_t *seq_pieces)
{
	const int32_t head = (int32_t) blockIdx.y;
	float max = -INFINITY;
	int32_t first;
	int32_t end;
	int64_t token;

	pass_release();
	pass_wait();
	first = seq_pieces[blockIdx.x];
	end = seq_pieces[blockIdx.x + 1];
	token = p.query_start[decode_seqs[blockIdx.x]];
	if (end - first <= 1)
		return;
	for (int32_t i = first; i < end; i++)
		max = fmaxf(max, p.partial_lse[(int64_t) i * p.n_heads + head]);
	for (int32_t d = (int32_t) threadIdx.x; d < p.head_dim;
		 d += (int32_t) blockDim.x)
	{
		float sum = 0;
		float out = 0;

		for (int32_t i = first; i < end; i++)
		{
			int64_t at = (int64_t) i * p.n_heads + head;
			float weight = exp2f(p.partial_lse[at] - max);

			sum += weight;
			out += weight * p.partial_out[at * p.head_dim + d];
		}
		p.out[(token * p.n_heads + head) * p.head_dim + d] =
			__float2bfloat16(out / sum);
	}
}

template <int DIM>
static bool
launch(LlmCuda *cuda, const AttentionParams &p, LlmError *err)
{
	const StepPlan *plan = &cuda->plan;
	const int bytes = Decode<DIM>::shared_bytes;
	dim3 grid((unsigned) plan->n_pieces, (unsigned) p.n_kv_heads,
			  (unsigned) ceil_div(p.group, MMA_ROWS));

	CUDA_TRY(cudaFuncSetAttribute(attention_decode<DIM>,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  bytes));
	CUDA_TRY(launch_early(cuda, { grid, DECODE_THREADS, (size_t) bytes },
						  attention_decode<DIM>, p, plan->pieces,
						  plan->n_pieces_now));
	return true;
}

bool
cuda_attention_decode(LlmCuda *cuda, const AttentionParams *params,
					  int32_t padded_dim, LlmError *err)
{
	const StepPlan *plan = &cuda->plan;
	dim3 grid((unsigned) plan->n_decode_seqs, (unsigned) params->n_heads);
	bool ok;

	switch (padded_dim)
	{
		case 64:
			ok = launch<64>(cuda, *params, err);
			break;
		case 96:
			ok = launch<96>(cuda, *params, err);
			break;
		case 128:
			ok = launch<128>(cuda, *params, err);
			break;
		default:
			ok = launch<256>(cuda, *params, err);
			break;
	}
	if (!ok || plan->n_pieces == plan->n_decode_seqs)
		return ok;
	CUDA_TRY(launch_early(cuda, { grid, 128 }, combine_pieces, *params,
						  plan->decode_seqs, plan->seq_pieces));
	return true;
}
