/*
 * cuda_kv_cache.cu
 *	  The paged cache, and what writes it: norm per head, rotary embedding.
 *
 * A layer's keys are [n_blocks, n_kv_heads, block_size / 8, dim / 8, 8 tokens,
 * 8 dims], its values likewise: the 8 x 8 matrices that tensor cores load, 128
 * contiguous bytes each, so that a tile is copied to shared memory as it lies
 * and read from there without bank conflicts.  dim is head_dim rounded up to
 * what attention is compiled for; the rest stays zero.
 *
 * cuda/cuda_kv_cache.cu
 */
#include "cuda/cuda_internal.cuh"

#include <stdlib.h>

static int32_t
padded_dim(int32_t head_dim)
{
	return head_dim <= 64	 ? 64
		   : head_dim <= 96	 ? 96
		   : head_dim <= 128 ? 128
							 : 256;
}

static double
half_elements(const LlmKvCacheSpec *spec)
{
	return (double) spec->n_blocks * spec->n_kv_heads * spec->block_size *
		   padded_dim(spec->head_dim);
}

size_t
cuda_kv_bytes(const LlmKvCacheSpec *spec)
{
	return (size_t) spec->n_layers * 2 * sizeof(bf16) *
		   (size_t) spec->n_blocks * (size_t) spec->n_kv_heads *
		   (size_t) spec->block_size * (size_t) padded_dim(spec->head_dim);
}

static bool
check_spec(const LlmKvCacheSpec *spec, LlmError *err)
{
	if (spec->dtype != LLM_DTYPE_BF16)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "a KV cache of %s is not supported on a GPU",
							 llm_dtype_name(spec->dtype));
	if (spec->head_dim > MAX_HEAD_DIM || spec->head_dim % 2 != 0)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "heads of %d dimensions are not supported on a "
							 "GPU, only even ones up to %d",
							 spec->head_dim, MAX_HEAD_DIM);
	if (half_elements(spec) * 4 * spec->n_layers > 1e15)
		return llm_error_set(err, LLM_ERROR_NO_MEMORY,
							 "a KV cache of %.0f GB is more than any GPU has",
							 half_elements(spec) * 4 * spec->n_layers / 1e9);
	return true;
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
	kv->half_elements = (int64_t) half_elements(spec);
	kv->data =
		(bf16 *) cuda_alloc(compute, cuda_kv_bytes(spec), "the KV cache", err);
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

/* ------------------------------------------------------------------------
 * rope_kv
 * ------------------------------------------------------------------------
 */
#define ROPE_WARPS 8

typedef struct RopeParams
{
	LlmRopeKvArgs args;
	LlmStepInputs step; /* device addresses */
	bf16 *keys;			/* the layer's */
	bf16 *values;
	int32_t block_size;
	int32_t padded_dim;
} RopeParams;

/* Where dimension d of the token lies in the layer's keys or values. */
static __device__ __forceinline__ int64_t
cache_index(const RopeParams &p, int32_t block, int32_t head, int32_t row,
			int32_t d)
{
	int64_t at = ((int64_t) block * p.args.n_kv_heads + head) * p.block_size;

	return (at + row / 8 * 8) * p.padded_dim + d / 8 * 64 + row % 8 * 8 + d % 8;
}

/* Norm and rotation of a head that lies in shared memory as f32, by a warp. */
static __device__ void
rotate_head(const RopeParams &p, const LlmVector &norm, const float *cos_sin,
			float *head, int lane)
{
	const int32_t dim = p.args.head_dim;
	const int32_t half = p.args.rotary_dim / 2;

	if (norm.data != NULL)
	{
		float sum = 0;
		float factor;

		for (int32_t d = lane; d < dim; d += WARP)
			sum += head[d] * head[d];
		factor = rsqrtf(warp_sum(sum) / (float) dim + p.args.norm_eps);
		for (int32_t d = lane; d < dim; d += WARP)
			head[d] *= factor * (load_float(norm.data, norm.dtype, d) +
								 p.args.norm_weight_offset);
		__syncwarp();
	}
	for (int32_t i = lane; i < half; i += WARP)
	{
		int32_t first = p.args.interleaved ? 2 * i : i;
		int32_t second = p.args.interleaved ? 2 * i + 1 : i + half;
		float a = head[first];
		float b = head[second];
		float c = cos_sin[i];
		float s = cos_sin[half + i];

		head[first] = a * c - b * s;
		head[second] = b * c + a * s;
	}
	__syncwarp();
}

/* A warp for each head of q, k and v of a token. */
static __global__ void
__launch_bounds__(ROPE_WARPS *WARP)
	rope_kv_heads(const __grid_constant__ RopeParams p)
{
	__shared__ float heads[ROPE_WARPS][MAX_HEAD_DIM];
	const LlmRopeKvArgs &args = p.args;
	const int lane = (int) threadIdx.x % WARP;
	const int64_t token = blockIdx.x;
	float *head = heads[threadIdx.x / WARP];
	int32_t h = (int32_t) (blockIdx.y * ROPE_WARPS + threadIdx.x / WARP);
	int32_t seq;
	int32_t position;
	const float *cos_sin;
	bool is_q = h < args.n_heads;
	bool is_k = !is_q && h < args.n_heads + args.n_kv_heads;
	int32_t kv_head =
		is_k ? h - args.n_heads : h - args.n_heads - args.n_kv_heads;
	const bf16 *src;
	int64_t at = 0;

	pass_release();
	pass_wait();
	seq = p.step.token_seq[token];
	position = p.step.positions[token];
	cos_sin =
		args.cos_sin + (int64_t) p.step.rope_rows[token] * args.rotary_dim;
	if (h >= args.n_heads + 2 * args.n_kv_heads || seq < 0)
		return;
	if (is_q)
		src = (bf16 *) args.q + token * args.q_stride + h * args.head_dim;
	else if (is_k)
		src = (bf16 *) args.k + token * args.k_stride + kv_head * args.head_dim;
	else
		src = (const bf16 *) args.v + token * args.v_stride +
			  kv_head * args.head_dim;
	for (int32_t d = lane; d < args.head_dim; d += WARP)
		head[d] = __bfloat162float(src[d]);
	__syncwarp();
	if (is_q || is_k)
		rotate_head(p, is_q ? args.q_norm : args.k_norm, cos_sin, head, lane);
	if (!is_q)
	{
		int32_t block =
			p.step.block_tables[(int64_t) seq * p.step.max_blocks_per_seq +
								position / p.block_size];

		at = cache_index(p, block, kv_head, position % p.block_size, 0);
	}
	for (int32_t d = lane; d < args.head_dim; d += WARP)
	{
		bf16 value = __float2bfloat16(head[d]);

		if (is_q)
			((bf16 *) args.q)[token * args.q_stride + h * args.head_dim + d] =
				value;
		else
			(is_k ? p.keys : p.values)[at + d / 8 * 64 + d % 8] = value;
	}
}

bool
cuda_rope_kv(LlmCompute *compute, const LlmRopeKvArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	LlmKvCache *kv = args->kv;
	int32_t n_heads = args->n_heads + 2 * args->n_kv_heads;
	RopeParams params = { *args, *args->step };
	dim3 grid((unsigned) args->step->n_tokens,
			  (unsigned) ceil_div(n_heads, ROPE_WARPS));

	assert(args->head_dim == kv->spec.head_dim);
	params.keys = kv->data + 2 * args->layer_idx * kv->half_elements;
	params.values = params.keys + kv->half_elements;
	params.block_size = kv->spec.block_size;
	params.padded_dim = kv->padded_dim;
	if (args->step->n_tokens == 0)
		return true;
	CUDA_TRY(
		launch_early(cuda, { grid, ROPE_WARPS * WARP }, rope_kv_heads, params));
	return true;
}
