/*
 * cuda_norm.cu
 *	  RMSNorm with the residual stream folded in.
 *
 * A block of threads takes a row and keeps it in registers between the sum
 * and the scaling, where the row is short enough; the rest of a longer row is
 * read again.  Sums are f32; what is normalized is the residual's new value
 * as it is stored.
 *
 * cuda/cuda_norm.cu
 */
#include "cuda/cuda_internal.cuh"

#define NORM_THREADS 256
#define VALUES 8 /* of a 16-byte access */
#define KEPT 4	 /* accesses kept in registers: rows up to 8192 */

typedef struct NormParams
{
	const bf16 *x;
	bf16 *residual;
	bf16 *out;
	const void *weight;
	LlmDtype weight_dtype;
	int32_t dim;
	float eps;
	float weight_offset;
} NormParams;

static __device__ float
block_sum(float x)
{
	__shared__ float sums[NORM_THREADS / WARP];

	x = warp_sum(x);
	if (threadIdx.x % WARP == 0)
		sums[threadIdx.x / WARP] = x;
	__syncthreads();
	x = threadIdx.x % WARP < NORM_THREADS / WARP ? sums[threadIdx.x % WARP] : 0;
	return warp_sum(x);
}

static __device__ __forceinline__ void
widen(const uint4 &raw, float values[VALUES])
{
	const __nv_bfloat162 *pairs =
		reinterpret_cast<const __nv_bfloat162 *>(&raw);

#pragma unroll
	for (int i = 0; i < VALUES / 2; i++)
	{
		float2 two = __bfloat1622float2(pairs[i]);

		values[2 * i] = two.x;
		values[2 * i + 1] = two.y;
	}
}

static __device__ __forceinline__ uint4
narrow(const float values[VALUES])
{
	return make_uint4(
		pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]),
		pack_bf16(values[4], values[5]), pack_bf16(values[6], values[7]));
}

/* The row's values i .. i + 7, the residual updated. */
static __device__ __forceinline__ uint4
take(const NormParams &p, int64_t row, int32_t i)
{
	uint4 raw = *(const uint4 *) (p.x + row * p.dim + i);
	float x[VALUES];
	float r[VALUES];

	if (p.residual == NULL)
		return raw;
	widen(raw, x);
	widen(*(const uint4 *) (p.residual + row * p.dim + i), r);
#pragma unroll
	for (int k = 0; k < VALUES; k++)
		r[k] += x[k];
	raw = narrow(r);
	*(uint4 *) (p.residual + row * p.dim + i) = raw;
	return raw;
}

static __device__ __forceinline__ float
squares(const uint4 &raw)
{
	float x[VALUES];
	float sum = 0;

	widen(raw, x);
#pragma unroll
	for (int k = 0; k < VALUES; k++)
		sum += x[k] * x[k];
	return sum;
}

static __device__ __forceinline__ void
put(const NormParams &p, int64_t row, int32_t i, const uint4 &raw, float factor)
{
	float x[VALUES];

	widen(raw, x);
	if (p.weight_dtype == LLM_DTYPE_BF16)
	{
		float w[VALUES];

		widen(*(const uint4 *) ((const bf16 *) p.weight + i), w);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
			x[k] *= factor * (w[k] + p.weight_offset);
	}
	else
	{
#pragma unroll
		for (int k = 0; k < VALUES; k++)
			x[k] *= factor * (load_float(p.weight, p.weight_dtype, i + k) +
							  p.weight_offset);
	}
	*(uint4 *) (p.out + row * p.dim + i) = narrow(x);
}

static __global__ void
__launch_bounds__(NORM_THREADS) rms_norm_rows(NormParams p)
{
	const int32_t stride = NORM_THREADS * VALUES;
	const int64_t row = blockIdx.x;
	uint4 kept[KEPT];
	float sum = 0;
	float factor;

	pass_release();
	pass_wait();
#pragma unroll
	for (int k = 0; k < KEPT; k++)
	{
		int32_t i = (int32_t) threadIdx.x * VALUES + k * stride;

		if (i < p.dim)
		{
			kept[k] = take(p, row, i);
			sum += squares(kept[k]);
		}
	}
	for (int32_t i = (int32_t) threadIdx.x * VALUES + KEPT * stride; i < p.dim;
		 i += stride)
		sum += squares(take(p, row, i));
	factor = rsqrtf(block_sum(sum) / (float) p.dim + p.eps);
#pragma unroll
	for (int k = 0; k < KEPT; k++)
	{
		int32_t i = (int32_t) threadIdx.x * VALUES + k * stride;

		if (i < p.dim)
			put(p, row, i, kept[k], factor);
	}
	for (int32_t i = (int32_t) threadIdx.x * VALUES + KEPT * stride; i < p.dim;
		 i += stride)
	{
		const bf16 *v = p.residual == NULL ? p.x : p.residual;

		put(p, row, i, *(const uint4 *) (v + row * p.dim + i), factor);
	}
}

/* Rows that are no multiple of 8 elements, one element at a time. */
static __global__ void
__launch_bounds__(NORM_THREADS) rms_norm_odd_rows(NormParams p)
{
	const int64_t first = (int64_t) blockIdx.x * p.dim;
	const bf16 *v = p.residual == NULL ? p.x : p.residual;
	float sum = 0;
	float factor;

	pass_release();
	pass_wait();
	for (int32_t i = (int32_t) threadIdx.x; i < p.dim; i += NORM_THREADS)
	{
		float x = __bfloat162float(p.x[first + i]);

		if (p.residual != NULL)
		{
			p.residual[first + i] =
				__float2bfloat16(x + __bfloat162float(p.residual[first + i]));
			x = __bfloat162float(p.residual[first + i]);
		}
		sum += x * x;
	}
	factor = rsqrtf(block_sum(sum) / (float) p.dim + p.eps);
	for (int32_t i = (int32_t) threadIdx.x; i < p.dim; i += NORM_THREADS)
		p.out[first + i] = __float2bfloat16(
			__bfloat162float(v[first + i]) * factor *
			(load_float(p.weight, p.weight_dtype, i) + p.weight_offset));
}

bool
cuda_rms_norm(LlmCompute *compute, const LlmRmsNormArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	NormParams params = {
		(const bf16 *) args->x,
		(bf16 *) args->residual,
		(bf16 *) args->out,
		args->weight.data,
		args->weight.dtype,
		args->dim,
		args->eps,
		args->weight_offset,
	};
	uintptr_t bits = (uintptr_t) args->x | (uintptr_t) args->residual |
					 (uintptr_t) args->out | (uintptr_t) args->weight.data;

	if (args->n_rows == 0)
		return true;
	if (!cuda_lora_settle(cuda, err))
		return false;
	CUDA_TRY(launch_early(cuda, { dim3((unsigned) args->n_rows), NORM_THREADS },
						  args->dim % VALUES == 0 && bits % 16 == 0
							  ? rms_norm_rows
							  : rms_norm_odd_rows,
						  params));
	return true;
}
