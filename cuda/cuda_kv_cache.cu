/*
 * cuda_kv_cache.cu
 *	  The paged cache, and what writes it: norm per head, rotary embedding.
 *
 * A layer's keys are [n_blocks, n_kv_heads, block_size / 8, dim / 8, 8 tokens,
 * 8 dims], its values likewise: the 8 x 8 matrices that tensor cores load, 128
 * contiguous bytes each, so that a tile is copied to shared memory as it lies
 * and read from there without bank conflicts.  dim is head_dim rounded up to
 * what attention is compiled for; the rest stays zero.  Codes of 8 bits lie as
 * cuda_code.cuh says.
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

/* ------------------------------------------------------------------------
 * rope_kv
 * ------------------------------------------------------------------------
 */
#define ROPE_WARPS 8

typedef struct RopeParams
{
	LlmRopeKvArgs args;
	LlmStepInputs step; /* device addresses */
	char *keys;			/* the layer's */
	char *values;
	LlmDtype kv_dtype;
	int32_t head_bytes;
	int32_t block_size;
	int32_t padded_dim;
	bool by_fours; /* q, k and v can be read and written by 8 bytes */
} RopeParams;

/* Four numbers of a head from d on, as many as there are. */
static __device__ __forceinline__ void
load_four(const RopeParams &p, const bf16 *src, int32_t d, float *head)
{
	if (p.by_fours)
	{
		uint2 pairs = *(const uint2 *) (src + d);
		float2 low = __bfloat1622float2(
			*reinterpret_cast<const __nv_bfloat162 *>(&pairs.x));
		float2 high = __bfloat1622float2(
			*reinterpret_cast<const __nv_bfloat162 *>(&pairs.y));

		*(float4 *) (head + d) = make_float4(low.x, low.y, high.x, high.y);
		return;
	}
	for (int k = 0; k < 4 && d + k < p.args.head_dim; k++)
		head[d + k] = __bfloat162float(src[d + k]);
}

static __device__ __forceinline__ void
store_four(const RopeParams &p, bf16 *dest, const float *head, int32_t n)
{
	if (p.by_fours)
		*(uint2 *) dest = make_uint2(pack_bf16(head[0], head[1]),
									 pack_bf16(head[2], head[3]));
	else
		for (int k = 0; k < 4 && k < n; k++)
			dest[k] = __float2bfloat16(head[k]);
}

/* A warp writes a head's key or value as codes. */
static __device__ __forceinline__ void
store_codes(const RopeParams &p, char *cache, int32_t row, bool is_key,
			const float *head, int lane)
{
	const int32_t group_at = row / CODE_GROUP * CODE_GROUP * p.padded_dim;
	const int in_group = row % CODE_GROUP;
	uint32_t largest = 0;
	uint32_t unit;
	float inverse;

	for (int32_t d = lane; d < p.args.head_dim; d += WARP)
		largest = max(largest, __float_as_uint(head[d]) & 0x7fffffff);
	largest = __reduce_max_sync(FULL_MASK, largest);
	unit = unit_of(p.kv_dtype, largest);
	inverse = unit == LLM_UNIT_NAN ? 0 : unit_value(254 - unit);
	if (lane == 0)
		cache[p.block_size * p.padded_dim + row] = (char) unit;
	for (int32_t d = lane; d < p.args.head_dim; d += WARP)
	{
		int32_t at = is_key ? in_group / 8 * 8 * p.padded_dim + d / 16 * 128 +
								  in_group % 8 * 16 + d % 16
							: d * 16 + code_slot(in_group);

		cache[group_at + at] = (char) code_of(p.kv_dtype, head[d], inverse);
	}
}

static __device__ __forceinline__ void
store_cached(const RopeParams &p, char *cache, int32_t row, const float *head,
			 int lane)
{
	bf16 *dest = (bf16 *) cache + row / 8 * 8 * p.padded_dim + row % 8 * 8;

	/* d is a multiple of 4: four stay within eight */
	for (int32_t d = 4 * lane; d < p.args.head_dim; d += 4 * WARP)
		store_four(p, dest + d / 8 * 64 + d % 8, head + d, p.args.head_dim - d);
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
	__shared__ __align__(16) float heads[ROPE_WARPS][MAX_HEAD_DIM];
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
	for (int32_t d = 4 * lane; d < args.head_dim; d += 4 * WARP)
		load_four(p, src, d, head);
	__syncwarp();
	if (is_q || is_k)
		rotate_head(p, is_q ? args.q_norm : args.k_norm, cos_sin, head, lane);
	if (is_q)
	{
		bf16 *dest =
			(bf16 *) args.q + token * args.q_stride + h * args.head_dim;

		for (int32_t d = 4 * lane; d < args.head_dim; d += 4 * WARP)
			store_four(p, dest + d, head + d, args.head_dim - d);
	}
	else
	{
		int32_t block =
			p.step.block_tables[(int64_t) seq * p.step.max_blocks_per_seq +
								position / p.block_size];
		char *cache =
			(is_k ? p.keys : p.values) +
			((int64_t) block * args.n_kv_heads + kv_head) * p.head_bytes;

		if (p.kv_dtype == LLM_DTYPE_BF16)
			store_cached(p, cache, position % p.block_size, head, lane);
		else
			store_codes(p, cache, position % p.block_size, is_k, head, lane);
	}
}

static bool
is_by_fours(const LlmRopeKvArgs *args)
{
	uintptr_t bits =
		(uintptr_t) args->q | (uintptr_t) args->k | (uintptr_t) args->v;
	int64_t strides = args->q_stride | args->k_stride | args->v_stride;

	return bits % 8 == 0 && strides % 4 == 0 && args->head_dim % 4 == 0;
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
	params.keys = kv->data + 2 * args->layer_idx * kv->half_bytes;
	params.values = params.keys + kv->half_bytes;
	params.kv_dtype = kv->spec.dtype;
	params.head_bytes = kv->head_bytes;
	params.by_fours = is_by_fours(args);
	params.block_size = kv->spec.block_size;
	params.padded_dim = kv->padded_dim;
	if (args->step->n_tokens == 0)
		return true;
	if (!cuda_lora_settle(cuda, err))
		return false;
	CUDA_TRY(
		launch_early(cuda, { grid, ROPE_WARPS * WARP }, rope_kv_heads, params));
	return true;
}
