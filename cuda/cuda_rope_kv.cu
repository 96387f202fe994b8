/*
 * cuda_rope_kv.cu
 *	  Norms of heads, rotary embedding, and writing the paged cache.
 *
 * Heads of 64, 128 or 256 dimensions that turn as a whole, which most models
 * have, stay in registers: a thread has 8 dimensions of a head's first half
 * and the 8 of its second half that turn with them, for some heads of one
 * token, and reads angles once for all of them.  What is left of shapes takes
 * a warp for a head, by way of shared memory.
 *
 * cuda/cuda_rope_kv.cu
 */
#include "cuda/cuda_code.cuh"

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

/* Where a head of q, k or v is, and where a token's goes in the cache. */
typedef enum HeadKind
{
	HEAD_Q,
	HEAD_K,
	HEAD_V
} HeadKind;

typedef struct Head
{
	HeadKind kind;
	int32_t index; /* among its kind */
	bf16 *src;
} Head;

static __device__ __forceinline__ Head
find_head(const RopeParams &p, int64_t token, int32_t h)
{
	const LlmRopeKvArgs &args = p.args;
	Head head;

	if (h < args.n_heads)
		head = { HEAD_Q, h, (bf16 *) args.q + token * args.q_stride };
	else if (h < args.n_heads + args.n_kv_heads)
		head = { HEAD_K, h - args.n_heads,
				 (bf16 *) args.k + token * args.k_stride };
	else
		head = { HEAD_V, h - args.n_heads - args.n_kv_heads,
				 (bf16 *) args.v + token * args.v_stride };
	head.src += (int64_t) head.index * args.head_dim;
	return head;
}

/* The token's row of a head of its block. */
static __device__ __forceinline__ char *
find_cached(const RopeParams &p, const Head &head, int32_t block)
{
	return (head.kind == HEAD_K ? p.keys : p.values) +
		   ((int64_t) block * p.args.n_kv_heads + head.index) * p.head_bytes;
}

static __device__ __forceinline__ int32_t
block_of(const RopeParams &p, int32_t seq, int32_t position)
{
	return p.step.block_tables[(int64_t) seq * p.step.max_blocks_per_seq +
							   position / p.block_size];
}

/* Where the code of dimension d of a block's token lies. */
static __device__ __forceinline__ int32_t
code_at(const RopeParams &p, int32_t row, bool is_key, int32_t d)
{
	const int32_t group_at = row / CODE_GROUP * CODE_GROUP * p.padded_dim;
	const int in_group = row % CODE_GROUP;

	return group_at + (is_key ? in_group / 8 * 8 * p.padded_dim + d / 16 * 128 +
									in_group % 8 * 16 + d % 16
							  : d * 16 + code_slot(in_group));
}

/* ------------------------------------------------------------------------
 * Heads in registers
 * ------------------------------------------------------------------------
 */
#define WIDE_THREADS 128
#define WIDE_HEADS 3 /* that a thread has at once */
#define WIDE_HALF 8	 /* dimensions of each half of a head */

static __device__ __forceinline__ void
unpack_eight(float out[WIDE_HALF], const uint4 &packed)
{
	const uint32_t words[4] = { packed.x, packed.y, packed.z, packed.w };

#pragma unroll
	for (int i = 0; i < 4; i++)
	{
		out[2 * i] = __uint_as_float(words[i] << 16);
		out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000);
	}
}

static __device__ __forceinline__ uint4
pack_eight(const float x[WIDE_HALF])
{
	return make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]),
					  pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

static __device__ __forceinline__ void
load_floats(float out[WIDE_HALF], const float *src)
{
	*(float4 *) out = *(const float4 *) src;
	*(float4 *) (out + 4) = *(const float4 *) (src + 4);
}

/* The root mean square's norm; LANES threads have a head. */
template <int LANES>
static __device__ __forceinline__ void
normalize_wide(const RopeParams &p, const LlmVector &norm, int32_t d,
			   float low[WIDE_HALF], float high[WIDE_HALF])
{
	const int32_t half = LANES * WIDE_HALF;
	float sum = 0;
	float factor;

#pragma unroll
	for (int i = 0; i < WIDE_HALF; i++)
		sum += low[i] * low[i] + high[i] * high[i];
#pragma unroll
	for (int offset = LANES / 2; offset > 0; offset /= 2)
		sum += __shfl_xor_sync(FULL_MASK, sum, offset);
	if (norm.data == NULL)
		return;
	factor = rsqrtf(sum / (float) (2 * half) + p.args.norm_eps);
#pragma unroll
	for (int i = 0; i < WIDE_HALF; i++)
	{
		low[i] *= factor * (load_float(norm.data, norm.dtype, d + i) +
							p.args.norm_weight_offset);
		high[i] *= factor * (load_float(norm.data, norm.dtype, half + d + i) +
							 p.args.norm_weight_offset);
	}
}

template <int LANES>
static __device__ __forceinline__ void
store_codes_wide(const RopeParams &p, const Head &head, char *cache,
				 int32_t row, int32_t d, const float low[WIDE_HALF],
				 const float high[WIDE_HALF])
{
	const int32_t half = LANES * WIDE_HALF;
	uint32_t largest = 0;
	uint32_t unit;
	float inverse;
	uint32_t codes[4] = {};

#pragma unroll
	for (int i = 0; i < WIDE_HALF; i++)
		largest = max(largest, max(__float_as_uint(low[i]) & 0x7fffffff,
								   __float_as_uint(high[i]) & 0x7fffffff));
#pragma unroll
	for (int offset = LANES / 2; offset > 0; offset /= 2)
		largest = max(largest, __shfl_xor_sync(FULL_MASK, largest, offset));
	if (cache == NULL)
		return;
	unit = unit_of(p.kv_dtype, largest);
	inverse = unit == LLM_UNIT_NAN ? 0 : unit_value(254 - unit);
	if (d == 0)
		cache[p.block_size * p.padded_dim + row] = (char) unit;
#pragma unroll
	for (int i = 0; i < WIDE_HALF; i++)
	{
		codes[i / 4] |= code_of(p.kv_dtype, low[i], inverse) << i % 4 * 8;
		codes[2 + i / 4] |= code_of(p.kv_dtype, high[i], inverse) << i % 4 * 8;
	}
	if (head.kind == HEAD_K)
	{
		*(uint2 *) (cache + code_at(p, row, true, d)) =
			make_uint2(codes[0], codes[1]);
		*(uint2 *) (cache + code_at(p, row, true, half + d)) =
			make_uint2(codes[2], codes[3]);
		return;
	}
#pragma unroll
	for (int i = 0; i < 2 * WIDE_HALF; i++)
		cache[code_at(p, row, false,
					  i / WIDE_HALF * half + d + i % WIDE_HALF)] =
			(char) (codes[i / 4] >> i % 4 * 8);
}

/* All threads of a warp come here; a head may be beyond the last one. */
template <int LANES>
static __device__ __forceinline__ void
store_wide(const RopeParams &p, const Head &head, bool is_there, int32_t block,
		   int32_t row, int32_t d, const float low[WIDE_HALF],
		   const float high[WIDE_HALF])
{
	const int32_t half = LANES * WIDE_HALF;
	const bool is_cached = is_there && head.kind != HEAD_Q;
	char *cache = is_cached ? find_cached(p, head, block) : NULL;

	if (p.kv_dtype != LLM_DTYPE_BF16)
		store_codes_wide<LANES>(p, head, cache, row, d, low, high);
	else if (is_cached)
	{
		bf16 *dest =
			(bf16 *) cache + row / 8 * 8 * p.padded_dim + row % 8 * 8 + d * 8;

		*(uint4 *) dest = pack_eight(low);
		*(uint4 *) (dest + half * 8) = pack_eight(high);
	}
	if (is_there && head.kind == HEAD_Q)
	{
		*(uint4 *) (head.src + d) = pack_eight(low);
		*(uint4 *) (head.src + half + d) = pack_eight(high);
	}
}

/* A block for each token; LANES threads have a head. */
template <int LANES>
static __global__ void
__launch_bounds__(WIDE_THREADS, 5)
	rope_kv_wide(const __grid_constant__ RopeParams p)
{
	const LlmRopeKvArgs &args = p.args;
	const int64_t token = blockIdx.x;
	const int32_t half = LANES * WIDE_HALF;
	const int32_t d = (int32_t) threadIdx.x % LANES * WIDE_HALF;
	const int32_t step = WIDE_THREADS / LANES; /* heads of the block at once */
	const int32_t n_heads = args.n_heads + 2 * args.n_kv_heads;
	int32_t seq;
	int32_t position;
	int32_t rope_row;
	int32_t block;
	const float *cos_sin;
	float cos[WIDE_HALF];
	float sin[WIDE_HALF];

	pass_release();
	pass_wait();
	seq = p.step.token_seq[token];
	position = p.step.positions[token];
	rope_row = p.step.rope_rows[token];
	if (seq < 0)
		return;
	cos_sin = args.cos_sin + (int64_t) rope_row * args.rotary_dim;
	block = block_of(p, seq, position);
	load_floats(cos, cos_sin + d);
	load_floats(sin, cos_sin + half + d);
	for (int32_t first = 0; first < n_heads; first += WIDE_HEADS * step)
	{
		const int32_t h = first + (int32_t) threadIdx.x / LANES;
		uint4 packed[WIDE_HEADS][2];

		/* all are on their way before the first one is used */
#pragma unroll
		for (int i = 0; i < WIDE_HEADS; i++)
		{
			const Head head =
				find_head(p, token, min(h + i * step, n_heads - 1));

			packed[i][0] = *(const uint4 *) (head.src + d);
			packed[i][1] = *(const uint4 *) (head.src + half + d);
		}
#pragma unroll
		for (int i = 0; i < WIDE_HEADS; i++)
		{
			const bool is_there = h + i * step < n_heads;
			const Head head =
				find_head(p, token, min(h + i * step, n_heads - 1));
			float low[WIDE_HALF];
			float high[WIDE_HALF];

			unpack_eight(low, packed[i][0]);
			unpack_eight(high, packed[i][1]);
			normalize_wide<LANES>(p,
								  head.kind == HEAD_Q	? args.q_norm
								  : head.kind == HEAD_K ? args.k_norm
														: LlmVector{},
								  d, low, high);
#pragma unroll
			for (int k = 0; k < WIDE_HALF && head.kind != HEAD_V; k++)
			{
				float a = low[k];
				float b = high[k];

				low[k] = a * cos[k] - b * sin[k];
				high[k] = b * cos[k] + a * sin[k];
			}
			store_wide<LANES>(p, head, is_there, block, position % p.block_size,
							  d, low, high);
		}
	}
}

/* ------------------------------------------------------------------------
 * Any heads
 * ------------------------------------------------------------------------
 */
#define ROPE_WARPS 8

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
		cache[code_at(p, row, is_key, d)] =
			(char) code_of(p.kv_dtype, head[d], inverse);
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
	float *numbers = heads[threadIdx.x / WARP];
	int32_t h = (int32_t) (blockIdx.y * ROPE_WARPS + threadIdx.x / WARP);
	int32_t seq;
	int32_t position;
	const float *cos_sin;
	Head head;

	pass_release();
	pass_wait();
	seq = p.step.token_seq[token];
	position = p.step.positions[token];
	cos_sin =
		args.cos_sin + (int64_t) p.step.rope_rows[token] * args.rotary_dim;
	if (h >= args.n_heads + 2 * args.n_kv_heads || seq < 0)
		return;
	head = find_head(p, token, h);
	for (int32_t d = 4 * lane; d < args.head_dim; d += 4 * WARP)
		load_four(p, head.src, d, numbers);
	__syncwarp();
	if (head.kind != HEAD_V)
		rotate_head(p, head.kind == HEAD_Q ? args.q_norm : args.k_norm, cos_sin,
					numbers, lane);
	if (head.kind == HEAD_Q)
	{
		for (int32_t d = 4 * lane; d < args.head_dim; d += 4 * WARP)
			store_four(p, head.src + d, numbers + d, args.head_dim - d);
	}
	else
	{
		char *cache = find_cached(p, head, block_of(p, seq, position));

		if (p.kv_dtype == LLM_DTYPE_BF16)
			store_cached(p, cache, position % p.block_size, numbers, lane);
		else
			store_codes(p, cache, position % p.block_size, head.kind == HEAD_K,
						numbers, lane);
	}
}

/* ------------------------------------------------------------------------
 * The operation
 * ------------------------------------------------------------------------
 */

/* q, k and v begin and continue at multiples of n numbers. */
static bool
is_by(const LlmRopeKvArgs *args, int n)
{
	uintptr_t bits =
		(uintptr_t) args->q | (uintptr_t) args->k | (uintptr_t) args->v;
	int64_t strides = args->q_stride | args->k_stride | args->v_stride;

	return bits % (n * sizeof(bf16)) == 0 && strides % n == 0 &&
		   args->head_dim % n == 0;
}

static bool
launch_wide(LlmCuda *cuda, const RopeParams &params, LlmError *err)
{
	const LaunchShape shape = { dim3((unsigned) params.args.step->n_tokens),
								WIDE_THREADS };

	switch (params.args.head_dim)
	{
		case 64:
			CUDA_TRY(launch_early(cuda, shape, rope_kv_wide<4>, params));
			break;
		case 128:
			CUDA_TRY(launch_early(cuda, shape, rope_kv_wide<8>, params));
			break;
		default:
			CUDA_TRY(launch_early(cuda, shape, rope_kv_wide<16>, params));
			break;
	}
	return true;
}

static bool
is_wide(const LlmRopeKvArgs *args)
{
	int32_t dim = args->head_dim;

	return (dim == 64 || dim == 128 || dim == 256) && !args->interleaved &&
		   args->rotary_dim == dim && (uintptr_t) args->cos_sin % 16 == 0 &&
		   is_by(args, WIDE_HALF);
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
	params.by_fours = is_by(args, 4);
	params.block_size = kv->spec.block_size;
	params.padded_dim = kv->padded_dim;
	if (args->step->n_tokens == 0)
		return true;
	if (!cuda_lora_settle(cuda, err))
		return false;
	if (is_wide(args))
		return launch_wide(cuda, params, err);
	CUDA_TRY(
		launch_early(cuda, { grid, ROPE_WARPS * WARP }, rope_kv_heads, params));
	return true;
}
