/*
 * cpu_attention_body.h
 *	  Attention of a tile of query rows over one chunk of the cache.
 *
 * A vector's lanes are 16 tokens where scores are computed and 16 dimensions
 * where values are gathered, so nothing is summed across lanes but the
 * softmax's sum.  bf16 keys and values are widened exactly.  Every row goes
 * through the same operations in the same order whatever other rows share its
 * tile: a token that a row may not see gets a weight of exactly 0.
 *
 * src/engine/compute/cpu_attention_body.h
 */
#ifndef LLM_CPU_ATTENTION_BODY_H
#define LLM_CPU_ATTENTION_BODY_H

#include <assert.h>

#include "src/common/util/unit_code.h"
#include "src/engine/compute/cpu_internal.h"
#include "src/engine/compute/cpu_simd.h"

/* Register tile: rows x vectors of tokens or of dimensions. */
#if defined(__AVX512F__)
#define TILE_ROWS 6
#else
#define TILE_ROWS 3
#endif
#define TILE_VECTORS 4

/* ------------------------------------------------------------------------
 * Scores
 * ------------------------------------------------------------------------
 */

/*
 * q k^T of n_rows rows with groups group .. group + n_groups - 1 of 16
 * tokens.  A key's dimensions lie block_size words of 4 bytes apart; a word
 * is one f32 or a pair of bf16.
 */
LLM_INLINE void
score_tile(bool is_bf16, int n_rows, int n_groups,
		   const LlmCpuAttentionTile *tile, const LlmCpuAttentionChunk *chunk,
		   int32_t row, int32_t group)
{
	const int64_t k_step = (int64_t) tile->block_size * 4;
	const int d_step = is_bf16 ? 2 : 1;
	const float *q = tile->q + (int64_t) row * tile->head_dim;
	const char *k[TILE_VECTORS];
	V16 acc[TILE_ROWS][TILE_VECTORS];

	LLM_UNROLL
	for (int j = 0; j < n_groups; j++)
	{
		k[j] = chunk->k[group + j];
		LLM_UNROLL
		for (int i = 0; i < n_rows; i++)
			acc[i][j] = v16_zero();
	}
	for (int32_t d = 0; d < tile->head_dim; d += d_step)
	{
		V16 k0[TILE_VECTORS];
		V16 k1[TILE_VECTORS];

		LLM_UNROLL
		for (int j = 0; j < n_groups; j++)
		{
			if (is_bf16)
			{
				k0[j] = v16_load_bf16_even(k[j]);
				k1[j] = v16_load_bf16_odd(k[j]);
			}
			else
				k0[j] = v16_load(k[j]);
			k[j] += k_step;
		}
		LLM_UNROLL
		for (int i = 0; i < n_rows; i++)
		{
			V16 q0 = v16_set1(q[i * tile->head_dim + d]);

			LLM_UNROLL
			for (int j = 0; j < n_groups; j++)
				acc[i][j] = v16_fma(k0[j], q0, acc[i][j]);
			if (!is_bf16)
				continue;
			q0 = v16_set1(q[i * tile->head_dim + d + 1]);
			LLM_UNROLL
			for (int j = 0; j < n_groups; j++)
				acc[i][j] = v16_fma(k1[j], q0, acc[i][j]);
		}
	}
	LLM_UNROLL
	for (int i = 0; i < n_rows; i++)
	{
		LLM_UNROLL
		for (int j = 0; j < n_groups; j++)
			v16_store(tile->scores + (row + i) * LLM_CPU_CHUNK_TOKENS +
						  (group + j) * 16,
					  acc[i][j]);
	}
}

LLM_INLINE void
score_rows(bool is_bf16, int n_rows, const LlmCpuAttentionTile *tile,
		   const LlmCpuAttentionChunk *chunk, int32_t row)
{
	int32_t n_groups = (chunk->n_tokens + 15) / 16;
	int32_t group = 0;

	for (; group + 4 <= n_groups; group += 4)
		score_tile(is_bf16, n_rows, 4, tile, chunk, row, group);
	for (; group + 2 <= n_groups; group += 2)
		score_tile(is_bf16, n_rows, 2, tile, chunk, row, group);
	for (; group < n_groups; group++)
		score_tile(is_bf16, n_rows, 1, tile, chunk, row, group);
}

/* ------------------------------------------------------------------------
 * Softmax
 * ------------------------------------------------------------------------
 */

LLM_INLINE V16
capped(V16 scores, float soft_cap)
{
	V16 cap = v16_set1(soft_cap);

	return v16_mul(v16_tanh(v16_div(scores, cap)), cap);
}

/* Scores of tokens begin .. end - 1 of the chunk, -inf for the others. */
LLM_INLINE V16
masked(V16 scores, int group, int32_t begin, int32_t end)
{
	static const float lanes[16] = { 0, 1, 2,  3,  4,  5,  6,  7,
									 8, 9, 10, 11, 12, 13, 14, 15 };
	const V16 lowest = v16_set1(-INFINITY);
	V16 token = v16_add(v16_load(lanes), v16_set1((float) (group * 16)));

	scores = v16_select_lt(token, v16_set1((float) end), scores, lowest);
	return v16_select_lt(token, v16_set1((float) begin), lowest, scores);
}

LLM_INLINE float
exp_one(float x)
{
	float lanes[16];

	v16_store(lanes, v16_exp(v16_set1(x)));
	return lanes[0];
}

/*
 * Turn a row's scores into weights, in place, and its sum into the sum over
 * this chunk too.  Returns what earlier weights have to be multiplied with.
 */
LLM_INLINE float
soften_row(const LlmCpuAttentionTile *tile, const LlmCpuAttentionChunk *chunk,
		   int32_t row)
{
	float *scores = tile->scores + row * LLM_CPU_CHUNK_TOKENS;
	int32_t begin = tile->visible[2 * row] - chunk->first_token;
	int32_t end = tile->visible[2 * row + 1] - chunk->first_token;
	int32_t n_groups = (chunk->n_tokens + 15) / 16;
	bool all_visible = begin <= 0 && end >= n_groups * 16;
	float old_max = tile->state.max[row];
	float *sums = tile->state.sum + row * 16;
	V16 best = v16_set1(-INFINITY);
	V16 sum = v16_load(sums);
	float decay = 1.0f;
	float max;

	if (begin >= chunk->n_tokens || end <= 0)
	{
		memset(scores, 0, LLM_CPU_CHUNK_TOKENS * sizeof(float));
		return 1.0f;
	}
	for (int j = 0; j < n_groups; j++)
	{
		V16 s = v16_load(scores + 16 * j);

		if (tile->soft_cap > 0)
			s = capped(s, tile->soft_cap);
		if (!all_visible)
			s = masked(s, j, begin, end);
		if (tile->soft_cap > 0 || !all_visible)
			v16_store(scores + 16 * j, s);
		best = v16_max(s, best);
	}
	max = v16_reduce_max(best);
	if (max <= old_max)
		max = old_max;
	else
	{
		decay = exp_one(old_max - max);
		tile->state.max[row] = max;
		sum = v16_mul(sum, v16_set1(decay));
	}
	for (int j = 0; j < n_groups; j++)
	{
		V16 weight = v16_exp(v16_sub(v16_load(scores + 16 * j), v16_set1(max)));

		v16_store(scores + 16 * j, weight);
		sum = v16_add(sum, weight);
	}
	v16_store(sums, sum);
	return decay;
}

/* ------------------------------------------------------------------------
 * Values
 * ------------------------------------------------------------------------
 */

/*
 * Add the chunk's weighted values to n_vectors vectors of the output, from
 * dimension dim.  bf16 comes as pairs of vectors (even dimensions, odd ones)
 * and stays in that order until the output is written.
 */
LLM_INLINE void
value_tile(bool is_bf16, int n_rows, int n_vectors,
		   const LlmCpuAttentionTile *tile, const LlmCpuAttentionChunk *chunk,
		   int32_t row, int32_t dim)
{
	const int64_t element = is_bf16 ? 2 : 4;
	const int64_t v_step = tile->dim_padded * element;
	const float *weights = tile->scores + row * LLM_CPU_CHUNK_TOKENS;
	float *output = tile->state.output + (int64_t) row * tile->dim_padded + dim;
	V16 acc[TILE_ROWS][TILE_VECTORS];

	LLM_UNROLL
	for (int i = 0; i < n_rows; i++)
	{
		LLM_UNROLL
		for (int j = 0; j < n_vectors; j++)
			acc[i][j] = v16_load(output + i * tile->dim_padded + 16 * j);
	}
	for (int32_t t = 0; t < chunk->n_tokens; t++)
	{
		const char *v =
			(const char *) chunk->v[t / 16] + t % 16 * v_step + dim * element;
		V16 value[TILE_VECTORS];

		LLM_UNROLL
		for (int j = 0; j < n_vectors; j++)
		{
			if (!is_bf16)
				value[j] = v16_load(v + 64 * j);
			else if (j % 2 == 0)
			{
				value[j] = v16_load_bf16_even(v + 32 * j);
				value[j + 1] = v16_load_bf16_odd(v + 32 * j);
			}
		}
		LLM_UNROLL
		for (int i = 0; i < n_rows; i++)
		{
			V16 weight = v16_set1(weights[i * LLM_CPU_CHUNK_TOKENS + t]);

			LLM_UNROLL
			for (int j = 0; j < n_vectors; j++)
				acc[i][j] = v16_fma(value[j], weight, acc[i][j]);
		}
	}
	LLM_UNROLL
	for (int i = 0; i < n_rows; i++)
	{
		LLM_UNROLL
		for (int j = 0; j < n_vectors; j++)
			v16_store(output + i * tile->dim_padded + 16 * j, acc[i][j]);
	}
}

LLM_INLINE void
value_rows(bool is_bf16, int n_rows, const LlmCpuAttentionTile *tile,
		   const LlmCpuAttentionChunk *chunk, int32_t row)
{
	int32_t dim = 0;

	for (; dim + 64 <= tile->dim_padded; dim += 64)
		value_tile(is_bf16, n_rows, 4, tile, chunk, row, dim);
	for (; dim + 32 <= tile->dim_padded; dim += 32)
		value_tile(is_bf16, n_rows, 2, tile, chunk, row, dim);
	/* whole pairs of vectors are left over by f32 alone */
	if (!is_bf16 && dim < tile->dim_padded)
		value_tile(is_bf16, n_rows, 1, tile, chunk, row, dim);
}

static void
decay_output(const LlmCpuAttentionTile *tile, int32_t row, float decay)
{
	float *output = tile->state.output + (int64_t) row * tile->dim_padded;

	if (decay == 1.0f)
		return;
	for (int32_t dim = 0; dim < tile->dim_padded; dim += 16)
		v16_store(output + dim,
				  v16_mul(v16_load(output + dim), v16_set1(decay)));
}

/* ------------------------------------------------------------------------
 * The table's entries
 * ------------------------------------------------------------------------
 */
LLM_INLINE void
for_rows(bool is_bf16, bool values, const LlmCpuAttentionTile *tile,
		 const LlmCpuAttentionChunk *chunk)
{
	int32_t row = 0;

#define ROWS(n)                                       \
	for (; row + (n) <= tile->n_rows; row += (n))     \
	{                                                 \
		if (values)                                   \
			value_rows(is_bf16, n, tile, chunk, row); \
		else                                          \
			score_rows(is_bf16, n, tile, chunk, row); \
	}
#if TILE_ROWS == 6
	ROWS(6)
	ROWS(4)
#endif
	ROWS(3)
	ROWS(2)
	ROWS(1)
#undef ROWS
}

LLM_INLINE void
add_chunk(bool is_bf16, const LlmCpuAttentionTile *tile,
		  const LlmCpuAttentionChunk *chunk)
{
	assert(tile->n_rows <= LLM_CPU_TILE_ROWS);
	assert(chunk->n_tokens > 0 && chunk->n_tokens <= LLM_CPU_CHUNK_TOKENS);
	for_rows(is_bf16, false, tile, chunk);
	for (int32_t row = 0; row < tile->n_rows; row++)
		decay_output(tile, row, soften_row(tile, chunk, row));
	for_rows(is_bf16, true, tile, chunk);
}

static void
add_chunk_f32(const LlmCpuAttentionTile *tile,
			  const LlmCpuAttentionChunk *chunk)
{
	add_chunk(false, tile, chunk);
}

static void
add_chunk_bf16(const LlmCpuAttentionTile *tile,
			   const LlmCpuAttentionChunk *chunk)
{
	add_chunk(true, tile, chunk);
}

/* n codes, each with its own unit, or all with the first; exact. */
LLM_INLINE void
expand_codes(bool is_e4m3, bool own_units, int32_t n, const uint8_t *codes,
			 const float *units, uint16_t *out)
{
	for (int32_t i = 0; i < n; i++)
	{
		float unit = own_units ? units[i] : units[0];
		float value;
		uint32_t bits;

		if (is_e4m3)
		{
			bits = (uint32_t) (codes[i] & 0x80) << 24 |
				   (uint32_t) (codes[i] & 0x7F) << 20;
			memcpy(&value, &bits, sizeof(value));
			value *= 1.329227995784916e36f; /* 2^120 */
		}
		else
			value = (float) (int8_t) codes[i];
		value *= unit;
		memcpy(&bits, &value, sizeof(bits));
		out[i] = (uint16_t) (bits >> 16);
	}
}

LLM_INLINE void
expand_as(bool is_e4m3, const LlmCpuCodes *codes, uint16_t *keys,
		  uint16_t *values)
{
	float units[32];

	for (int32_t i = 0; i < 32; i++)
		units[i] = llm_unit_value(codes->key_units[i / 2]);
	for (int32_t pair = 0; pair < codes->head_dim / 2; pair++)
		expand_codes(is_e4m3, true, 32,
					 codes->keys + (int64_t) pair * 2 * codes->block_size,
					 units, keys + (int64_t) pair * 2 * LLM_CPU_CHUNK_TOKENS);
	for (int32_t t = 0; t < 16; t++)
	{
		float unit = llm_unit_value(codes->value_units[t]);

		expand_codes(is_e4m3, false, codes->dim_padded,
					 codes->values + (int64_t) t * codes->dim_padded, &unit,
					 values + (int64_t) t * codes->dim_padded);
	}
}

static void
expand(const LlmCpuCodes *codes, uint16_t *keys, uint16_t *values)
{
	if (codes->dtype == LLM_DTYPE_FP8_E4M3)
		expand_as(true, codes, keys, values);
	else
		expand_as(false, codes, keys, values);
}

static void
merge(const LlmCpuAttentionState *into, int into_row,
	  const LlmCpuAttentionState *from, int from_row, int32_t dim_padded)
{
	float *dest = into->output + (int64_t) into_row * dim_padded;
	const float *src = from->output + (int64_t) from_row * dim_padded;
	float old_max = into->max[into_row];
	float new_max = from->max[from_row];
	float max = old_max > new_max ? old_max : new_max;
	float keep;
	float add;

	if (new_max == -INFINITY)
		return;
	keep = exp_one(old_max - max);
	add = exp_one(new_max - max);
	into->max[into_row] = max;
	v16_store(
		into->sum + into_row * 16,
		v16_fma(v16_load(from->sum + from_row * 16), v16_set1(add),
				v16_mul(v16_load(into->sum + into_row * 16), v16_set1(keep))));
	for (int32_t dim = 0; dim < dim_padded; dim += 16)
	{
		V16 old = v16_mul(v16_load(dest + dim), v16_set1(keep));

		v16_store(dest + dim, v16_fma(v16_load(src + dim), v16_set1(add), old));
	}
}

#define ATTENTION_KERNELS                                                 \
	{                                                                     \
		.add_chunk_f32 = add_chunk_f32, .add_chunk_bf16 = add_chunk_bf16, \
		.expand = expand, .merge = merge,                                 \
	}

#endif /* LLM_CPU_ATTENTION_BODY_H */
