/*
 * cuda_kv_cache.cu
 *	  The paged cache: its layout and its memory.
 *
 * A layer's keys are [n_blocks, n_kv_heads, block_size / 8, dim / 8, 8 tokens,
 * 8 dims], its values likewise: the 8 x 8 matrices that tensor cores load, 128
 * contiguous bytes each, so that a tile is copied to shared memory as it lies
 * and read from there without bank conflicts.  dim is head_dim rounded up to
 * what attention is compiled for; the rest stays zero.  Codes of 8 bits lie as
 * cuda_code.cuh says.  cuda_rope_kv.cu writes it.
 *
 * cuda/cuda_kv_cache.cu
 */
#include "cuda/cuda_code.cuh"

#include <stdlib.h>

static int32_t
padded_dim(int32_t head_dim)
{
	return head_dim <= 64	 ? 64
		   : head_dim <= 96	 ? 96
		   : head_dim <= 128 ? 128
							 : 256;
}

/* A head of a block, with a unit for each token where it holds codes. */
static size_t
head_bytes(const LlmKvCacheSpec *spec)
{
	size_t row = (size_t) padded_dim(spec->head_dim);

	row = llm_dtype_is_coded(spec->dtype) ? row + 1 : row * sizeof(bf16);
	return (size_t) spec->block_size * row;
}

size_t
cuda_kv_bytes(const LlmKvCacheSpec *spec)
{
	return (size_t) spec->n_layers * 2 * (size_t) spec->n_blocks *
		   (size_t) spec->n_kv_heads * head_bytes(spec);
}

static bool
check_spec(const LlmKvCacheSpec *spec, LlmError *err)
{
	double n_bytes = 2.0 * spec->n_layers * spec->n_blocks * spec->n_kv_heads *
					 (double) head_bytes(spec);

	if (spec->dtype != LLM_DTYPE_BF16 && !llm_dtype_is_coded(spec->dtype))
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "a KV cache of %s is not supported on a GPU",
							 llm_dtype_name(spec->dtype));
	if (spec->head_dim > MAX_HEAD_DIM || spec->head_dim % 2 != 0)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "heads of %d dimensions are not supported on a "
							 "GPU, only even ones up to %d",
							 spec->head_dim, MAX_HEAD_DIM);
	if (n_bytes > 1e15)
		return llm_error_set(err, LLM_ERROR_NO_MEMORY,
							 "a KV cache of %.0f GB is more than any GPU has",
							 n_bytes / 1e9);
	return true;
}

/* What plans of decode steps, made for all caches, may count on. */
static void
note_cache(LlmCuda *cuda, const LlmKvCacheSpec *spec)
{
	int32_t group =
		(int32_t) ceil_div(cuda->options.max_heads, spec->n_kv_heads);
	int32_t tile_seqs = group <= MMA_ROWS ? MMA_ROWS / group : 1;
	bool is_first = cuda->tile_seqs == 0;

	if (is_first || tile_seqs < cuda->tile_seqs)
		cuda->tile_seqs = tile_seqs;
	if (is_first)
		cuda->kv_block_size = spec->block_size;
	else if (cuda->kv_block_size != spec->block_size)
		cuda->kv_block_size = 0;
}

LlmKvCache *
cuda_kv_create(LlmCompute *compute, const LlmKvCacheSpec *spec, LlmError *err)
{
	LlmKvCache *kv;

	if (!check_spec(spec, err))
		return NULL;
	kv = (LlmKvCache *) calloc(1, sizeof(*kv));
	if (kv == NULL)
	{
		llm_error_no_memory(err, sizeof(*kv), "a KV cache");
		return NULL;
	}
	kv->cuda = llm_cuda(compute);
	kv->spec = *spec;
	kv->padded_dim = padded_dim(spec->head_dim);
	kv->head_bytes = (int32_t) head_bytes(spec);
	kv->half_bytes =
		(int64_t) spec->n_blocks * spec->n_kv_heads * kv->head_bytes;
	note_cache(kv->cuda, spec);
	kv->data =
		(char *) cuda_alloc(compute, cuda_kv_bytes(spec), "the KV cache", err);
	if (kv->data != NULL)
		return kv;
	free(kv);
	return NULL;
}

void
cuda_kv_free(LlmKvCache *kv)
{
	if (kv == NULL)
		return;
	cuda_free(&kv->cuda->base, kv->data);
	free(kv);
}
