/*
 * cuda_elementwise.cu
 *	  Operations that compute each element by itself: embedding, gather,
 *	  sums of rows, activation, soft cap, and made-up weights.
 *
 * cuda/cuda_elementwise.cu
 */
#include "cuda/cuda_activation.cuh"

#include <string.h>

#define THREADS 256
#define VALUES 8 /* of a 16-byte access */

/* Blocks along a row of so many items of a thread. */
static unsigned
blocks_for(int64_t n_items)
{
	return (unsigned) ceil_div(n_items, THREADS);
}

/* ------------------------------------------------------------------------
 * Rows looked up
 * ------------------------------------------------------------------------
 */
static __global__ void
embed_rows(const void *table, LlmDtype dtype, const int32_t *token_ids,
		   bf16 *out, int32_t dim, float scale)
{
	int64_t token_id = token_ids[blockIdx.x];

	for (int32_t i = (int32_t) threadIdx.x; i < dim; i += THREADS)
		out[(int64_t) blockIdx.x * dim + i] = __float2bfloat16(
			load_float(table, dtype, token_id * dim + i) * scale);
}

bool
cuda_embed(LlmCompute *compute, const LlmEmbedArgs *args, LlmError *err)
{
	if (args->n_rows == 0)
		return true;
	embed_rows<<<(unsigned) args->n_rows, THREADS, 0,
				 llm_cuda(compute)->stream>>>(
		args->table.data, args->table.dtype, args->token_ids,
		(bf16 *) args->out, (int32_t) args->table.n_cols, args->scale);
	return cuda_launched("embed", err) &&
		   cuda_lora_embed(llm_cuda(compute), args, err);
}

static __global__ void
gather_rows(const bf16 *x, const int32_t *rows, bf16 *out, int32_t dim)
{
	int64_t row = rows[blockIdx.x];

	for (int32_t i = (int32_t) threadIdx.x; i < dim; i += THREADS)
		out[(int64_t) blockIdx.x * dim + i] = x[row * dim + i];
}

static __global__ void
gather_wide_rows(const uint4 *x, const int32_t *rows, uint4 *out, int32_t dim)
{
	int64_t row = rows[blockIdx.x];

	for (int32_t i = (int32_t) threadIdx.x; i < dim; i += THREADS)
		out[(int64_t) blockIdx.x * dim + i] = x[row * dim + i];
}

bool
cuda_gather(LlmCompute *compute, const LlmGatherArgs *args, LlmError *err)
{
	uintptr_t bits = (uintptr_t) args->x | (uintptr_t) args->out;

	if (args->n_rows == 0)
		return true;
	if (!cuda_lora_settle(llm_cuda(compute), err))
		return false;
	if (args->dim % VALUES == 0 && bits % 16 == 0)
	{
		gather_wide_rows<<<(unsigned) args->n_rows, THREADS, 0,
						   llm_cuda(compute)->stream>>>(
			(const uint4 *) args->x, args->rows, (uint4 *) args->out,
			args->dim / VALUES);
		return cuda_launched("gather", err);
	}
	gather_rows<<<(unsigned) args->n_rows, THREADS, 0,
				  llm_cuda(compute)->stream>>>(
		(const bf16 *) args->x, args->rows, (bf16 *) args->out, args->dim);
	return cuda_launched("gather", err);
}

/* ------------------------------------------------------------------------
 * Sums of rows
 * ------------------------------------------------------------------------
 */

/* Ranges travel as a kernel's parameter, so many at a time. */
#define SUM_RANGES 128

typedef struct SumParams
{
	const bf16 *x;
	float *out;
	int32_t dim;
	LlmRowRange ranges[SUM_RANGES];
} SumParams;

/* A column of range blockIdx.y: in double, so that long ranges lose nothing. */
static __global__ void
__launch_bounds__(THREADS) sum_range(const __grid_constant__ SumParams p)
{
	int32_t column = (int32_t) (blockIdx.x * THREADS + threadIdx.x);
	const LlmRowRange range = p.ranges[blockIdx.y];
	const bf16 *x = p.x + (int64_t) range.first_row * p.dim + column;
	double sum = 0;

	if (column >= p.dim)
		return;
#pragma unroll 8
	for (int32_t row = 0; row < range.n_rows; row++)
		sum += (double) __bfloat162float(x[(int64_t) row * p.dim]);
	p.out[(int64_t) blockIdx.y * p.dim + column] = (float) sum;
}

bool
cuda_sum_rows(LlmCompute *compute, const LlmSumRowsArgs *args, LlmError *err)
{
	if (!cuda_lora_settle(llm_cuda(compute), err))
		return false;
	for (int32_t first = 0; first < args->n_ranges; first += SUM_RANGES)
	{
		int32_t n = args->n_ranges - first < SUM_RANGES ? args->n_ranges - first
														: SUM_RANGES;
		SumParams params;

		params.x = (const bf16 *) args->x;
		params.out = args->out + (int64_t) first * args->dim;
		params.dim = args->dim;
		memcpy(params.ranges, args->ranges + first,
			   (size_t) n * sizeof(LlmRowRange));
		sum_range<<<dim3(blocks_for(args->dim), (unsigned) n), THREADS, 0,
					llm_cuda(compute)->stream>>>(params);
		if (!cuda_launched("sum_rows", err))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Gated activation
 * ------------------------------------------------------------------------
 */
template <LlmActivation KIND>
static __global__ void
__launch_bounds__(THREADS)
	gated_act_wide(const bf16 *gates, const bf16 *ups, bf16 *out,
				   int64_t in_stride, int32_t dim)
{
	int32_t i = (int32_t) (blockIdx.y * THREADS + threadIdx.x) * VALUES;
	int64_t row = blockIdx.x;
	uint4 g;
	uint4 u;
	uint4 result;
	__nv_bfloat162 *g_pairs = reinterpret_cast<__nv_bfloat162 *>(&g);
	__nv_bfloat162 *u_pairs = reinterpret_cast<__nv_bfloat162 *>(&u);
	uint32_t *words = reinterpret_cast<uint32_t *>(&result);

	pass_release();
	pass_wait();
	if (i >= dim)
		return;
	g = *(const uint4 *) (gates + row * in_stride + i);
	u = *(const uint4 *) (ups + row * in_stride + i);
#pragma unroll
	for (int k = 0; k < VALUES / 2; k++)
	{
		float2 a = __bfloat1622float2(g_pairs[k]);
		float2 b = __bfloat1622float2(u_pairs[k]);

		words[k] = pack_bf16(gate(KIND, a.x) * b.x, gate(KIND, a.y) * b.y);
	}
	*(uint4 *) (out + row * dim + i) = result;
}

template <LlmActivation KIND>
static __global__ void
gated_act_single(const bf16 *gates, const bf16 *ups, bf16 *out,
				 int64_t in_stride, int32_t dim)
{
	int32_t i = (int32_t) (blockIdx.y * THREADS + threadIdx.x);
	int64_t row = blockIdx.x;

	pass_release();
	pass_wait();
	if (i < dim)
		out[row * dim + i] = __float2bfloat16(
			gate(KIND, __bfloat162float(gates[row * in_stride + i])) *
			__bfloat162float(ups[row * in_stride + i]));
}

bool
cuda_gated_act(LlmCompute *compute, const LlmGatedActArgs *args, LlmError *err)
{
	uintptr_t bits =
		(uintptr_t) args->gate | (uintptr_t) args->up | (uintptr_t) args->out;
	bool is_wide = args->dim % VALUES == 0 && args->in_stride % VALUES == 0 &&
				   bits % 16 == 0;
	dim3 grid((unsigned) args->n_rows,
			  blocks_for(is_wide ? args->dim / VALUES : args->dim));
	LlmActivation kind = args->activation;
	bool is_done;

	if (args->n_rows == 0)
		return true;
	if (!cuda_lora_gated_act(llm_cuda(compute), args, &is_done, err))
		return false;
	if (is_done)
		return true;
	CUDA_TRY(launch_early(llm_cuda(compute), { grid, THREADS },
						  is_wide ? ACTIVATION_INSTANCE(gated_act_wide, kind)
								  : ACTIVATION_INSTANCE(gated_act_single, kind),
						  (const bf16 *) args->gate, (const bf16 *) args->up,
						  (bf16 *) args->out, args->in_stride, args->dim));
	return true;
}

/* ------------------------------------------------------------------------
 * The rest
 * ------------------------------------------------------------------------
 */
static __global__ void
soft_cap_all(float *x, int64_t n, float soft_cap)
{
	int64_t stride = (int64_t) gridDim.x * THREADS;

	for (int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x; i < n;
		 i += stride)
		x[i] = soft_cap * tanhf(x[i] / soft_cap);
}

bool
cuda_soft_cap(LlmCompute *compute, const LlmSoftCapArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	int64_t most = (int64_t) cuda->n_sms * 8;
	int64_t wanted = ceil_div(args->n, THREADS);

	if (args->n == 0)
		return true;
	soft_cap_all<<<(unsigned) (wanted < most ? wanted : most), THREADS, 0,
				   cuda->stream>>>(args->x, args->n, args->soft_cap);
	return cuda_launched("soft_cap", err);
}

static __device__ __forceinline__ void
store_float(void *dest, LlmDtype dtype, int64_t i, float value)
{
	if (dtype == LLM_DTYPE_BF16)
		((bf16 *) dest)[i] = __float2bfloat16(value);
	else if (dtype == LLM_DTYPE_F16)
		((__half *) dest)[i] = __float2half(value);
	else
		((float *) dest)[i] = value;
}

/* The sum of a random word's bytes, as compute.h defines it. */
static __global__ void
fill_normal_all(LlmFillNormalArgs args)
{
	int64_t stride = (int64_t) gridDim.x * THREADS * 4;

	for (int64_t i = ((int64_t) blockIdx.x * THREADS + threadIdx.x) * 4;
		 i < args.n; i += stride)
	{
		uint4 random = philox(args.seed, (uint64_t) i / 4, args.sequence);
		uint32_t words[4] = { random.x, random.y, random.z, random.w };

#pragma unroll
		for (int k = 0; k < 4; k++)
		{
			uint32_t w = words[k];
			int sum = (int) ((w & 255) + (w >> 8 & 255) + (w >> 16 & 255) +
							 (w >> 24));

			if (i + k < args.n)
				store_float(args.dest, args.dtype, i + k,
							(float) (sum - 510) * args.unit);
		}
	}
}

bool
cuda_fill_normal(LlmCompute *compute, const LlmFillNormalArgs *args,
				 LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	fill_normal_all<<<(unsigned) cuda->n_sms * 8, THREADS, 0, cuda->stream>>>(
		*args);
	return cuda_launched("fill_normal", err);
}
