/*
 * cpu_kv_cache.c
 *	  The paged key/value cache.
 *
 * Values lie row by row, [block_size, head_dim], padded with zeros to whole
 * vectors.  Keys lie transposed, so that a vector holds 16 tokens and scores
 * need no sums across lanes: f32 [head_dim, block_size]; bf16
 * [head_dim / 2, block_size, 2], where neighbouring dimensions share a 32-bit
 * word, which one cheap instruction each widens to f32.  Codes of 8 bits lie
 * as bf16 does, each head's units [block_size] behind them.
 *
 * src/engine/compute/cpu_kv_cache.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/half_float.h"
#include "src/common/util/unit_code.h"
#include "src/engine/compute/cpu_internal.h"

/* bf16 values, and those that become bf16, are read as pairs of vectors. */
static int32_t
padded_dim(const LlmKvCacheSpec *spec)
{
	int32_t step = spec->dtype == LLM_DTYPE_F32 ? 16 : 32;

	return (spec->head_dim + step - 1) / step * step;
}

/* A head of a block whose rows have so many elements. */
static size_t
head_bytes(const LlmKvCacheSpec *spec, int32_t dim)
{
	size_t row = (size_t) dim * llm_dtype_bytes(spec->dtype) +
				 (llm_dtype_is_coded(spec->dtype) ? 1 : 0);

	return row * (size_t) spec->block_size;
}

static size_t
layer_bytes(const LlmKvCacheSpec *spec)
{
	return (head_bytes(spec, spec->head_dim) +
			head_bytes(spec, padded_dim(spec))) *
		   (size_t) spec->n_kv_heads * (size_t) spec->n_blocks;
}

size_t
llm_cpu_kv_bytes(const LlmKvCacheSpec *spec)
{
	return layer_bytes(spec) * (size_t) spec->n_layers;
}

LlmKvCache *
llm_cpu_kv_create(LlmCompute *compute, const LlmKvCacheSpec *spec,
				  LlmError *err)
{
	LlmKvCache *kv;

	if (spec->dtype != LLM_DTYPE_F32 && spec->dtype != LLM_DTYPE_BF16 &&
		!llm_dtype_is_coded(spec->dtype))
	{
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "the CPU backend keeps keys and values in float32, "
					  "bfloat16, fp8 or int8, not in %s",
					  llm_dtype_name(spec->dtype));
		return NULL;
	}
	if (spec->head_dim % 2 != 0 || spec->head_dim > LLM_CPU_MAX_HEAD_DIM ||
		spec->block_size % 16 != 0)
	{
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "head dimension %d with key/value blocks of %d tokens "
					  "is not supported",
					  spec->head_dim, spec->block_size);
		return NULL;
	}
	kv = calloc(1, sizeof(*kv));
	if (kv == NULL)
	{
		llm_error_no_memory(err, sizeof(*kv), "the key/value cache");
		return NULL;
	}
	kv->spec = *spec;
	kv->compute = compute;
	kv->dim_padded = padded_dim(spec);
	kv->k_head_bytes = head_bytes(spec, spec->head_dim);
	kv->v_head_bytes = head_bytes(spec, kv->dim_padded);
	kv->data = llm_cpu_alloc_sparse(llm_cpu_kv_bytes(spec),
									"the key/value cache", err);
	if (kv->data == NULL)
	{
		free(kv);
		return NULL;
	}
	return kv;
}

void
llm_cpu_kv_free(LlmKvCache *kv)
{
	if (kv == NULL)
		return;
	llm_cpu_free(kv->data);
	free(kv);
}

/* A head's index within its layer. */
static size_t
head_index(const LlmKvCache *kv, int32_t block_idx, int32_t kv_head)
{
	assert(block_idx >= 0 && block_idx < kv->spec.n_blocks);
	assert(kv_head >= 0 && kv_head < kv->spec.n_kv_heads);
	return (size_t) block_idx * (size_t) kv->spec.n_kv_heads + (size_t) kv_head;
}

void *
llm_cpu_kv_k(const LlmKvCache *kv, int32_t layer_idx, int32_t block_idx,
			 int32_t kv_head)
{
	assert(layer_idx >= 0 && layer_idx < kv->spec.n_layers);
	return kv->data + (size_t) layer_idx * layer_bytes(&kv->spec) +
		   head_index(kv, block_idx, kv_head) * kv->k_head_bytes;
}

void *
llm_cpu_kv_v(const LlmKvCache *kv, int32_t layer_idx, int32_t block_idx,
			 int32_t kv_head)
{
	size_t all_k = (size_t) kv->spec.n_blocks * (size_t) kv->spec.n_kv_heads *
				   kv->k_head_bytes;

	assert(layer_idx >= 0 && layer_idx < kv->spec.n_layers);
	return kv->data + (size_t) layer_idx * layer_bytes(&kv->spec) + all_k +
		   head_index(kv, block_idx, kv_head) * kv->v_head_bytes;
}

static uint8_t
unit_of_row(LlmDtype dtype, const float *x, int32_t n)
{
	uint32_t largest = 0;

	for (int32_t i = 0; i < n; i++)
	{
		uint32_t magnitude = llm_magnitude_bits(x[i]);

		largest = magnitude > largest ? magnitude : largest;
	}
	return llm_unit_of(dtype, largest);
}

/* The same for codes, keys in pairs of dimensions as bf16. */
static void
write_codes(const LlmKvCache *kv, uint8_t *k_head, uint8_t *v_head, int32_t row,
			const float *k, const float *v)
{
	const LlmDtype dtype = kv->spec.dtype;
	const int32_t head_dim = kv->spec.head_dim;
	const int64_t block_size = kv->spec.block_size;
	uint8_t k_unit = unit_of_row(dtype, k, head_dim);
	uint8_t v_unit = unit_of_row(dtype, v, head_dim);
	uint8_t *k_out = k_head + 2 * row;
	uint8_t *v_out = v_head + (int64_t) row * kv->dim_padded;

	k_head[head_dim * block_size + row] = k_unit;
	v_head[kv->dim_padded * block_size + row] = v_unit;
	for (int32_t d = 0; d < head_dim; d++)
	{
		k_out[d / 2 * 2 * block_size + d % 2] =
			llm_code_of(dtype, k[d], k_unit);
		v_out[d] = llm_code_of(dtype, v[d], v_unit);
	}
}

/* Token "row" of a block: its key [head_dim] and value [head_dim]. */
void
llm_cpu_kv_write(const LlmKvCache *kv, void *k_head, void *v_head, int32_t row,
				 const float *k, const float *v)
{
	int32_t head_dim = kv->spec.head_dim;
	int32_t block_size = kv->spec.block_size;

	assert(row >= 0 && row < block_size);
	if (kv->spec.dtype == LLM_DTYPE_F32)
	{
		float *k_out = (float *) k_head + row;
		float *v_out = (float *) v_head + (int64_t) row * kv->dim_padded;

		for (int32_t d = 0; d < head_dim; d++)
			k_out[(int64_t) d * block_size] = k[d];
		memcpy(v_out, v, (size_t) head_dim * sizeof(float));
		return;
	}
	if (llm_dtype_is_coded(kv->spec.dtype))
	{
		write_codes(kv, k_head, v_head, row, k, v);
		return;
	}

	uint16_t *k_out = (uint16_t *) k_head + 2 * row;
	uint16_t *v_out = (uint16_t *) v_head + (int64_t) row * kv->dim_padded;

	for (int32_t d = 0; d < head_dim; d += 2)
	{
		uint16_t *pair = k_out + (int64_t) d * block_size;

		pair[0] = llm_float_to_bf16(k[d]);
		pair[1] = llm_float_to_bf16(k[d + 1]);
	}
	for (int32_t d = 0; d < head_dim; d++)
		v_out[d] = llm_float_to_bf16(v[d]);
}
