/*
 * cuda_attention_decode.cuh
 *	  What a warp of the decode kernel does with a slice of 16 keys.
 *
 * The tensor cores' 16x8x16 product has keys, then dimensions of values, as its
 * rows, and as its 8 columns what is called rows here: (sequence, head) pairs,
 * the heads of a group and, where sequences share a piece, those of several
 * sequences.  Groups of up to 8 heads so use half as many products as with
 * heads as rows, and half the registers; more rows take a second tile.
 *
 * Thread 4 g + t of a warp has of scores the keys g and g + 8, of results the
 * dimensions g and g + 8 of each 16, both for rows 2 t and 2 t + 1.
 *
 * Codes of 8 bits become f16 in registers, without their units, which multiply
 * scores and weights: nothing is rounded on the way, and sums are f32.  Queries
 * beyond f16's range are taken for its largest number.
 *
 * cuda/cuda_attention_decode.cuh
 */
#ifndef LLM_CUDA_ATTENTION_DECODE_CUH
#define LLM_CUDA_ATTENTION_DECODE_CUH

#include "cuda/cuda_attention_tile.cuh"
#include "cuda/cuda_code.cuh"

#define SLICE_KEYS 16
#define TILE_ROWS 8

/* What weights of codes are multiplied with, to use f16's whole range. */
#define WEIGHT_BITS 15

typedef enum KvFormat
{
	KV_BF16,
	KV_E4M3,
	KV_INT8
} KvFormat;

/* Keys of a slice, then its values; behind codes their units. */
template <int DIM, KvFormat FORMAT> struct Slice
{
	static const bool is_coded = FORMAT != KV_BF16;
	static const int half_bytes = SLICE_KEYS * (is_coded ? DIM + 1 : 2 * DIM);
	static const int n_bytes = 2 * half_bytes;
	static_assert(half_bytes % 16 == 0, "copies are by 16 bytes");
};

/* Queries: a fragment for each 16 dimensions. */
template <int DIM, int TILES> struct Queries
{
	uint32_t pairs[TILES][DIM / 16][2];
};

/* A warp's results so far; maxima are of powers of 2. */
template <int DIM, int TILES> struct Partial
{
	float out[TILES][DIM / 16][4];
	float max[TILES][2];
	float sum[TILES][2]; /* of this thread's keys */
};

/* Where rows come from, and their results go. */
typedef struct PieceRows
{
	int64_t first_token;
	int32_t first_head;
	int32_t n_heads; /* of a sequence, here */
	int32_t n_rows;	 /* of all of them */
} PieceRows;

/* Which keys rows see, where a slice has any that not all of them do. */
template <int TILES> struct Sight
{
	int32_t first_masked; /* slices from here on are to be masked */
	int32_t position[TILES][2];
};

/* Over the threads that share a row. */
static __device__ __forceinline__ float
row_max(float x)
{
	x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, 4));
	x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, 8));
	return fmaxf(x, __shfl_xor_sync(FULL_MASK, x, 16));
}

static __device__ __forceinline__ float
row_sum(float x)
{
	x += __shfl_xor_sync(FULL_MASK, x, 4);
	x += __shfl_xor_sync(FULL_MASK, x, 8);
	return x + __shfl_xor_sync(FULL_MASK, x, 16);
}

/* Transpose an 8 x 8 matrix of which each thread has two neighbours. */
static __device__ __forceinline__ uint32_t
transpose_matrix(uint32_t pair)
{
	uint32_t turned;

	asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
				 : "=r"(turned)
				 : "r"(pair));
	return turned;
}

static __device__ __forceinline__ uint32_t
pack_half(float low, float high)
{
	__half2 pair = __floats2half2_rn(low, high);

	return *reinterpret_cast<uint32_t *>(&pair);
}

/* bf16 to f16; comparisons that leave a NaN */
static __device__ __forceinline__ uint32_t
half_pair(uint32_t pair)
{
	float2 q = __bfloat1622float2(*reinterpret_cast<__nv_bfloat162 *>(&pair));

	q.x = q.x > 65504 ? 65504 : q.x < -65504 ? -65504 : q.x;
	q.y = q.y > 65504 ? 65504 : q.y < -65504 ? -65504 : q.y;
	return pack_half(q.x, q.y);
}

/* Dimensions d and d + 1 of a row of q; zeros beyond its end. */
static __device__ __forceinline__ uint32_t
load_query_pair(const AttentionParams &p, const bf16 *row, int d)
{
	__nv_bfloat162 pair;

	if (d >= p.head_dim)
		return 0;
	if (p.q_is_aligned)
		return *(const uint32_t *) (row + d);
	pair.x = row[d];
	pair.y = row[d + 1];
	return *reinterpret_cast<uint32_t *>(&pair);
}

/*
 * Queries of a piece's rows, zeros where there are none.  With codes the
 * dimensions are in the order in which a word of codes has them.
 */
template <int DIM, int TILES, bool IS_CODED>
static __device__ __forceinline__ void
load_query_rows(Queries<DIM, TILES> &queries, const AttentionParams &p,
				const PieceRows &rows)
{
	const int lane = (int) threadIdx.x % WARP;

#pragma unroll
	for (int n = 0; n < TILES; n++)
	{
		const int32_t r = n * TILE_ROWS + lane / 4;
		const bf16 *row =
			p.q + (rows.first_token + r / rows.n_heads) * p.q_stride +
			(int64_t) (rows.first_head + r % rows.n_heads) * p.head_dim;

#pragma unroll
		for (int i = 0; i < DIM / 8; i++)
		{
			int d = IS_CODED ? i / 2 * 16 + lane % 4 * 4 + i % 2 * 2
							 : i * 8 + lane % 4 * 2;
			uint32_t pair = r < rows.n_rows ? load_query_pair(p, row, d) : 0;

			queries.pairs[n][i / 2][i % 2] = IS_CODED ? half_pair(pair) : pair;
		}
	}
}

template <int DIM, int TILES>
static __device__ __forceinline__ void
partial_init(Partial<DIM, TILES> &part)
{
#pragma unroll
	for (int n = 0; n < TILES; n++)
	{
#pragma unroll
		for (int i = 0; i < DIM / 4; i++)
			part.out[n][i / 4][i % 4] = 0;
#pragma unroll
		for (int k = 0; k < 2; k++)
		{
			part.max[n][k] = -INFINITY;
			part.sum[n][k] = 0;
		}
	}
}

/* ------------------------------------------------------------------------
 * Scores
 * ------------------------------------------------------------------------
 */

/* Sums of even and odd 16 dimensions, which do not wait for one another. */
template <int DIM, int TILES, KvFormat FORMAT>
static __device__ __forceinline__ void
compute_scores(float scores[TILES][4], const Queries<DIM, TILES> &queries,
			   const char *keys)
{
	const int lane = (int) threadIdx.x % WARP;
	float sums[2][TILES][4] = {};

	if constexpr (FORMAT == KV_BF16)
	{
#pragma unroll
		for (int s = 0; s < DIM / 16; s++)
		{
			uint32_t k[4];

			query_fragment<DIM>(k, (const bf16 *) keys, 0, s);
#pragma unroll
			for (int n = 0; n < TILES; n++)
				mma_16x8x16(sums[s % 2][n], k, queries.pairs[n][s][0],
							queries.pairs[n][s][1]);
		}
	}
	else
	{
		const char *row =
			keys + lane / 8 % 2 * 8 * DIM + lane / 16 * 128 + lane % 8 * 16;

#pragma unroll
		for (int s = 0; s < DIM / 16; s += 2)
		{
			uint32_t codes[4]; /* of 8 keys, the other 8; 16 dims further */

			load_matrices(codes, (const bf16 *) (row + s * 128));
#pragma unroll
			for (int i = 0; i < 2; i++)
			{
				uint32_t low[2];
				uint32_t high[2];

				codes_to_half<FORMAT == KV_E4M3>(low, codes[2 * i]);
				codes_to_half<FORMAT == KV_E4M3>(high, codes[2 * i + 1]);
				const uint32_t k[4] = { low[0], high[0], low[1], high[1] };
#pragma unroll
				for (int n = 0; n < TILES; n++)
					mma_16x8x16_half(sums[i][n], k, queries.pairs[n][s + i][0],
									 queries.pairs[n][s + i][1]);
			}
		}
	}
#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			scores[n][i] = sums[0][n][i] + sums[1][n][i];
}

/*
 * Scores become powers of 2: capped, masked, in units.  value_units are those
 * of keys g and g + 8.
 */
template <int DIM, int TILES, KvFormat FORMAT>
static __device__ __forceinline__ void
scale_scores(float scores[TILES][4], const AttentionParams &p,
			 const Sight<TILES> &sight, const char *keys, int32_t first_key,
			 const uint32_t value_units[2])
{
	const int g = (int) threadIdx.x % WARP / 4;
	const float scale = score_scale(p);
	const uint8_t *units = (const uint8_t *) keys + SLICE_KEYS * DIM;

#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			float &score = scores[n][i];

			if constexpr (FORMAT != KV_BF16)
				score *= unit_value(units[g + i / 2 * 8]);
			if (p.soft_cap > 0)
				score = capped_score(p, score);
			score *= scale;
			if constexpr (FORMAT != KV_BF16)
				score = value_units[i / 2] == LLM_UNIT_NAN
							? NAN
							: score + (float) ((int) value_units[i / 2] - 127);
		}
	if (first_key < sight.first_masked)
		return;
#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			/* last: what lies beyond the end may not be a number */
			if (!sees(p, sight.position[n][i % 2], first_key + g + i / 2 * 8))
				scores[n][i] = -INFINITY;
}

/* ------------------------------------------------------------------------
 * Weights
 * ------------------------------------------------------------------------
 */

/* New maxima where a score is above them: rare in a long context. */
template <int DIM, int TILES>
static __device__ __forceinline__ void
raise_maxima(Partial<DIM, TILES> &part, const float scores[TILES][4])
{
	bool is_above = false;

#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			is_above = is_above || scores[n][i] > part.max[n][i % 2];
	if (!__any_sync(FULL_MASK, is_above))
		return;
#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int k = 0; k < 2; k++)
		{
			float most = row_max(
				fmaxf(part.max[n][k], fmaxf(scores[n][k], scores[n][k + 2])));
			/* nothing seen yet: exp2(-inf - 0) = 0 */
			float factor =
				exp2_fast(part.max[n][k] - (most == -INFINITY ? 0 : most));

			part.max[n][k] = most;
			part.sum[n][k] *= factor;
#pragma unroll
			for (int s = 0; s < DIM / 16; s++)
			{
				part.out[n][s][k] *= factor;
				part.out[n][s][k + 2] *= factor;
			}
		}
}

/*
 * The running softmax (Milakov & Gimelshein 2018); weights replace scores.
 * Those of values in units are 2^WEIGHT_BITS p unit, where the maximum is that
 * of p unit, so that they fit f16 whatever the units are.
 */
template <int DIM, int TILES, KvFormat FORMAT>
static __device__ __forceinline__ void
weigh(Partial<DIM, TILES> &part, float scores[TILES][4],
	  const uint32_t value_units[2])
{
	const int bits = FORMAT == KV_BF16 ? 0 : WEIGHT_BITS;

	raise_maxima<DIM, TILES>(part, scores);
#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			float most = part.max[n][i % 2];
			float weight = exp2_fast(scores[n][i] -
									 ((most == -INFINITY ? 0 : most) - bits));

			scores[n][i] = weight;
			if constexpr (FORMAT != KV_BF16)
				weight *= __uint_as_float(
					(254 - WEIGHT_BITS - value_units[i / 2]) << 23);
			part.sum[n][i % 2] += weight;
		}
}

/* Keys g and g + 8 of rows become pairs of keys of row g. */
template <int TILES, bool IS_CODED>
static __device__ __forceinline__ void
turn_weights(uint32_t pairs[TILES][2], const float weights[TILES][4])
{
#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int i = 0; i < 2; i++)
		{
			float low = weights[n][2 * i];
			float high = weights[n][2 * i + 1];

			pairs[n][i] = transpose_matrix(IS_CODED ? pack_half(low, high)
													: pack_bf16(low, high));
		}
}

template <int DIM, int TILES, KvFormat FORMAT>
static __device__ __forceinline__ void
add_values(Partial<DIM, TILES> &part, const uint32_t weights[TILES][2],
		   const char *values)
{
	const int lane = (int) threadIdx.x % WARP;

	if constexpr (FORMAT == KV_BF16)
	{
		const bf16 *row = (const bf16 *) values + lane / 16 * 8 * DIM +
						  lane / 8 % 2 * 64 + lane % 8 * 8;

#pragma unroll
		for (int s = 0; s < DIM / 16; s++)
		{
			uint32_t v[4];

			load_matrices_transposed(v, row + s * 128);
#pragma unroll
			for (int n = 0; n < TILES; n++)
				mma_16x8x16(part.out[n][s], v, weights[n][0], weights[n][1]);
		}
	}
	else
	{
#pragma unroll
		for (int s = 0; s < DIM / 16; s += 2)
		{
			uint32_t codes[4]; /* of 8 dimensions each */

			load_matrices(codes,
						  (const bf16 *) (values + (s * 16 + lane) * 16));
#pragma unroll
			for (int i = 0; i < 2; i++)
			{
				uint32_t low[2];
				uint32_t high[2];

				codes_to_half<FORMAT == KV_E4M3>(low, codes[2 * i]);
				codes_to_half<FORMAT == KV_E4M3>(high, codes[2 * i + 1]);
				const uint32_t v[4] = { low[0], high[0], low[1], high[1] };
#pragma unroll
				for (int n = 0; n < TILES; n++)
					mma_16x8x16_half(part.out[n][s + i], v, weights[n][0],
									 weights[n][1]);
			}
		}
	}
}

/* A slice that begins at first_key. */
template <int DIM, int TILES, KvFormat FORMAT>
static __device__ __forceinline__ void
attend_slice(Partial<DIM, TILES> &part, const Queries<DIM, TILES> &queries,
			 const AttentionParams &p, const Sight<TILES> &sight,
			 const char *slice, int32_t first_key)
{
	const char *values = slice + Slice<DIM, FORMAT>::half_bytes;
	const int g = (int) threadIdx.x % WARP / 4;
	uint32_t value_units[2] = {};
	float scores[TILES][4];
	uint32_t weights[TILES][2];

	if constexpr (FORMAT != KV_BF16)
	{
#pragma unroll
		for (int i = 0; i < 2; i++)
			value_units[i] =
				((const uint8_t *) values)[SLICE_KEYS * DIM + g + 8 * i];
	}
	compute_scores<DIM, TILES, FORMAT>(scores, queries, slice);
	scale_scores<DIM, TILES, FORMAT>(scores, p, sight, slice, first_key,
									 value_units);
	weigh<DIM, TILES, FORMAT>(part, scores, value_units);
	turn_weights<TILES, FORMAT != KV_BF16>(weights, scores);
	add_values<DIM, TILES, FORMAT>(part, weights, values);
}

/*
 * Zeros for the values from a slice's n-th key on: what lies there may not be
 * numbers, which weights of zero do not hide.  Codes are always numbers.
 */
template <int DIM>
static __device__ __forceinline__ void
clear_values(char *slice, int n)
{
	bf16 *values = (bf16 *) (slice + Slice<DIM, KV_BF16>::half_bytes);

	for (int i = (int) threadIdx.x % WARP; i < SLICE_KEYS / 8 * DIM; i += WARP)
		if (i / DIM * 8 + i % 8 >= n)
			*(uint4 *) (values + i * 8) = make_uint4(0, 0, 0, 0);
	__syncwarp();
}

#endif /* LLM_CUDA_ATTENTION_DECODE_CUH */
