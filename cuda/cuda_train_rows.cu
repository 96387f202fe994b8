/*
 * cuda_train_rows.cu
 *	  The operations of training that sum over rows, columns, or everything.
 *
 * A row belongs to one block of threads, or to one warp where it is short;
 * each thread sums its own numbers in ascending order, and then the threads'
 * sums are added up in one order.
 *
 * cuda/cuda_train_rows.cu
 */
#include "cuda/cuda_train.cuh"

#include <float.h>

#define THREADS 256
#define WARPS (THREADS / WARP)

/* Rows up to so many numbers are a warp's. */
#define WARP_ROW 512

template <typename T>
static __device__ __forceinline__ T
warp_total(T x)
{
#pragma unroll
	for (int offset = WARP / 2; offset > 0; offset /= 2)
		x += __shfl_xor_sync(FULL_MASK, x, offset);
	return x;
}

/* The sum over a block; all threads get it.  Called by all of them. */
template <typename T>
static __device__ T
block_total(T x)
{
	__shared__ T sums[WARPS];

	x = warp_total(x);
	__syncthreads();
	if (threadIdx.x % WARP == 0)
		sums[threadIdx.x / WARP] = x;
	__syncthreads();
	x = threadIdx.x % WARP < WARPS ? sums[threadIdx.x % WARP] : 0;
	return warp_total(x);
}

/* ------------------------------------------------------------------------
 * RMSNorm
 * ------------------------------------------------------------------------
 */

/* Values i .. i + 7 of a row: x, and g = d_y * (weight + offset). */
static __device__ __forceinline__ void
load_slopes(const LlmRmsNormBackArgs &args, int64_t row, int32_t i,
			bool is_aligned, float x[VALUES], float g[VALUES])
{
	load_values((const bf16 *) args.x + row, i, args.dim, is_aligned, x);
	load_values((const bf16 *) args.d_y + row, i, args.dim, is_aligned, g);
	if (args.weight.dtype == LLM_DTYPE_BF16)
	{
		float w[VALUES];

		load_values((const bf16 *) args.weight.data, i, args.dim, is_aligned,
					w);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
			g[k] *= w[k] + args.weight_offset;
		return;
	}
#pragma unroll
	for (int k = 0; k < VALUES; k++)
		if (i + k < args.dim)
			g[k] *= load_float(args.weight.data, args.weight.dtype, i + k) +
					args.weight_offset;
}

/* N: threads of a row, a warp's or a block's. */
template <int N>
static __global__ void
__launch_bounds__(THREADS)
	rms_norm_back_rows(LlmRmsNormBackArgs args, bool is_aligned)
{
	const int64_t row_idx =
		(int64_t) blockIdx.x * (THREADS / N) + threadIdx.x / N;
	const int64_t row = row_idx * args.dim;
	const bool is_row = row_idx < args.n_rows;
	const int32_t first = (int32_t) threadIdx.x % N * VALUES;
	float squares = 0;
	float dots = 0;
	float r;
	float mean;

	for (int32_t i = first; is_row && i < args.dim; i += N * VALUES)
	{
		float x[VALUES];
		float g[VALUES];

		load_slopes(args, row, i, is_aligned, x, g);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
		{
			squares += x[k] * x[k];
			dots += g[k] * x[k];
		}
	}
	squares = N == WARP ? warp_total(squares) : block_total(squares);
	dots = N == WARP ? warp_total(dots) : block_total(dots);
	r = rsqrtf(squares / (float) args.dim + args.eps);
	mean = dots / (float) args.dim * r * r;
	for (int32_t i = first; is_row && i < args.dim; i += N * VALUES)
	{
		float x[VALUES];
		float g[VALUES];
		float d[VALUES] = {};

		load_slopes(args, row, i, is_aligned, x, g);
		if (args.adds)
			load_values((const bf16 *) args.d_x + row, i, args.dim, is_aligned,
						d);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
			d[k] += r * (g[k] - x[k] * mean);
		store_values((bf16 *) args.d_x + row, i, args.dim, is_aligned, d);
	}
}

bool
cuda_rms_norm_back(LlmCompute *compute, const LlmRmsNormBackArgs *args,
				   LlmError *err)
{
	uintptr_t bits = (uintptr_t) args->x | (uintptr_t) args->d_y |
					 (uintptr_t) args->d_x | (uintptr_t) args->weight.data;
	bool is_aligned = args->dim % VALUES == 0 && are_aligned(bits);
	bool is_short = args->dim <= WARP_ROW;
	unsigned n_blocks =
		(unsigned) (is_short ? ceil_div(args->n_rows, WARPS) : args->n_rows);

	assert(args->weight.n == args->dim);
	if (args->n_rows == 0)
		return true;
	return train_launch(llm_cuda(compute), { dim3(n_blocks), THREADS }, err,
						is_short ? rms_norm_back_rows<WARP>
								 : rms_norm_back_rows<THREADS>,
						*args, is_aligned);
}

/* ------------------------------------------------------------------------
 * Cross entropy
 * ------------------------------------------------------------------------
 */
#define LOGIT_VALUES 4 /* of a 16-byte access */

/* Logits i .. i + 3 of a row; -infinity beyond the end. */
static __device__ __forceinline__ void
load_logits(const LlmCrossEntropyArgs &args, const float *row, int32_t i,
			bool is_aligned, float x[LOGIT_VALUES])
{
	if (is_aligned && i + LOGIT_VALUES <= args.n_vocab)
	{
		float4 four = *(const float4 *) (row + i);

		x[0] = four.x;
		x[1] = four.y;
		x[2] = four.z;
		x[3] = four.w;
	}
	else
	{
#pragma unroll
		for (int k = 0; k < LOGIT_VALUES; k++)
			x[k] = i + k < args.n_vocab ? row[i + k] : -INFINITY;
	}
	if (args.soft_cap > 0)
	{
#pragma unroll
		for (int k = 0; k < LOGIT_VALUES; k++)
			if (i + k < args.n_vocab)
				x[k] = args.soft_cap * tanhf(x[k] / args.soft_cap);
	}
}

/* The largest of a block's; NaN is left to the sums. */
static __device__ float
block_max(float x)
{
	__shared__ float most[WARPS];

#pragma unroll
	for (int offset = WARP / 2; offset > 0; offset /= 2)
		x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, offset));
	__syncthreads();
	if (threadIdx.x % WARP == 0)
		most[threadIdx.x / WARP] = x;
	__syncthreads();
	x = most[0];
	for (int i = 1; i < WARPS; i++)
		x = fmaxf(x, most[i]);
	return x;
}

/* The logarithm of a row's sum of powers. */
static __device__ float
log_sum_exp(const LlmCrossEntropyArgs &args, const float *row, bool is_aligned)
{
	float max = -FLT_MAX;
	float sum = 0;
	float top;

	for (int32_t i = (int32_t) threadIdx.x * LOGIT_VALUES; i < args.n_vocab;
		 i += THREADS * LOGIT_VALUES)
	{
		float x[LOGIT_VALUES];
		float most = max;

		load_logits(args, row, i, is_aligned, x);
#pragma unroll
		for (int k = 0; k < LOGIT_VALUES; k++)
			most = fmaxf(most, x[k]);
		sum *= __expf(max - most);
		max = most;
#pragma unroll
		for (int k = 0; k < LOGIT_VALUES; k++)
			sum += __expf(x[k] - max);
	}
	top = block_max(max);
	return top + logf(block_total(sum * __expf(max - top)));
}

static __device__ __forceinline__ void
store_slopes(const LlmCrossEntropyArgs &args, bf16 *d_row, int32_t i,
			 bool is_aligned, const float d[LOGIT_VALUES])
{
	if (is_aligned && i + LOGIT_VALUES <= args.n_vocab)
	{
		*(uint2 *) (d_row + i) =
			make_uint2(pack_bf16(d[0], d[1]), pack_bf16(d[2], d[3]));
		return;
	}
#pragma unroll
	for (int k = 0; k < LOGIT_VALUES; k++)
		if (i + k < args.n_vocab)
			d_row[i + k] = __float2bfloat16(d[k]);
}

static __global__ void
__launch_bounds__(THREADS)
	cross_entropy_rows(LlmCrossEntropyArgs args, bool is_aligned)
{
	const float *row = args.logits + (int64_t) blockIdx.x * args.n_vocab;
	const int32_t label = args.labels[blockIdx.x];
	const float log_sum = log_sum_exp(args, row, is_aligned);
	const float cap = args.soft_cap;
	float own = row[label];
	float weight;

	if (cap > 0)
		own = cap * tanhf(own / cap);
	if (threadIdx.x == 0)
		args.log_probs[blockIdx.x] = own - log_sum;
	if (args.weights == NULL)
		return;
	weight = args.weights[blockIdx.x];
	for (int32_t i = (int32_t) threadIdx.x * LOGIT_VALUES; i < args.n_vocab;
		 i += THREADS * LOGIT_VALUES)
	{
		float x[LOGIT_VALUES];

		load_logits(args, row, i, is_aligned, x);
#pragma unroll
		for (int k = 0; k < LOGIT_VALUES; k++)
		{
			/* the cap's derivative is 1 - tanh^2 */
			float t = cap > 0 ? x[k] / cap : 0;
			float p = __expf(x[k] - log_sum) - (i + k == label);

			x[k] = weight * p * (1 - t * t);
		}
		store_slopes(
			args, (bf16 *) args.d_logits + (int64_t) blockIdx.x * args.n_vocab,
			i, is_aligned, x);
	}
}

bool
cuda_cross_entropy(LlmCompute *compute, const LlmCrossEntropyArgs *args,
				   LlmError *err)
{
	bool is_aligned =
		args->n_vocab % LOGIT_VALUES == 0 &&
		are_aligned((uintptr_t) args->logits | (uintptr_t) args->d_logits);

	assert(args->d_logits != args->logits);
	if (args->n_rows == 0)
		return true;
	return train_launch(llm_cuda(compute),
						{ dim3((unsigned) args->n_rows), THREADS }, err,
						cross_entropy_rows, *args, is_aligned);
}

/* ------------------------------------------------------------------------
 * DoRA's sums
 * ------------------------------------------------------------------------
 */
#define DOT_COLUMNS 32
#define DOT_LANES (THREADS / DOT_COLUMNS)

/* A block takes 32 columns; 8 rows at a time. */
static __global__ void
__launch_bounds__(THREADS) column_dots_block(LlmColumnDotsArgs args)
{
	__shared__ float sums[DOT_LANES][DOT_COLUMNS];
	const int lane = (int) threadIdx.x / DOT_COLUMNS;
	const int own = (int) threadIdx.x % DOT_COLUMNS;
	const int32_t column = (int32_t) blockIdx.x * DOT_COLUMNS + own;
	float sum = 0;

	for (int32_t i = lane; column < args.dim && i < args.n_rows; i += DOT_LANES)
	{
		int64_t at = (int64_t) i * args.dim + column;

		sum += __bfloat162float(((const bf16 *) args.a)[at]) *
			   __bfloat162float(((const bf16 *) args.b)[at]);
	}
	sums[lane][own] = sum;
	__syncthreads();
	if (lane > 0 || column >= args.dim)
		return;
	for (int i = 1; i < DOT_LANES; i++)
		sum += sums[i][own];
	args.out[column] += sum / args.divisors[column];
}

bool
cuda_column_dots(LlmCompute *compute, const LlmColumnDotsArgs *args,
				 LlmError *err)
{
	return train_launch(
		llm_cuda(compute),
		{ dim3((unsigned) ceil_div(args->dim, DOT_COLUMNS)), THREADS }, err,
		column_dots_block, *args);
}

/* A warp takes a row. */
static __global__ void
__launch_bounds__(THREADS) row_dots_rows(LlmRowDotsArgs args)
{
	const int64_t row = (int64_t) blockIdx.x * WARPS + (int) threadIdx.x / WARP;
	const bf16 *a = (const bf16 *) args.a + row * args.dim;
	const bf16 *b = (const bf16 *) args.b + row * args.dim;
	float sum = 0;

	if (row >= args.n_rows)
		return;
	for (int32_t i = (int32_t) threadIdx.x % WARP; i < args.dim; i += WARP)
		sum += __bfloat162float(a[i]) * __bfloat162float(b[i]);
	sum = warp_total(sum);
	if (threadIdx.x % WARP == 0)
		args.out[row] = sum;
}

bool
cuda_row_dots(LlmCompute *compute, const LlmRowDotsArgs *args, LlmError *err)
{
	if (args->n_rows == 0)
		return true;
	return train_launch(
		llm_cuda(compute),
		{ dim3((unsigned) ceil_div(args->n_rows, WARPS)), THREADS }, err,
		row_dots_rows, *args);
}

static __global__ void
__launch_bounds__(THREADS) row_squares_rows(LlmRowSquaresArgs args)
{
	const int64_t row = (int64_t) blockIdx.x * args.weight.n_cols;
	double sum = 0;

	for (int64_t i = threadIdx.x; i < args.weight.n_cols; i += THREADS)
	{
		double x =
			(double) load_float(args.weight.data, args.weight.dtype, row + i);

		sum += x * x;
	}
	sum = block_total(sum);
	if (threadIdx.x == 0)
		args.out[blockIdx.x] = (float) sum;
}

bool
cuda_row_squares(LlmCompute *compute, const LlmRowSquaresArgs *args,
				 LlmError *err)
{
	return train_launch(llm_cuda(compute),
						{ dim3((unsigned) args->weight.n_rows), THREADS }, err,
						row_squares_rows, *args);
}

/* A warp takes a row; a lane every 32nd of the inner matrix's. */
static __global__ void
__launch_bounds__(THREADS) adapted_norms_rows(LlmAdaptedNormsArgs args)
{
	const int32_t i =
		(int32_t) blockIdx.x * WARPS + (int32_t) threadIdx.x / WARP;
	const int32_t rank = args.rank;
	const float *b = args.b + (int64_t) i * rank;
	double cross = 0;
	double own = 0;

	if (i >= args.n_rows)
		return;
	for (int32_t r = (int32_t) threadIdx.x % WARP; r < rank; r += WARP)
	{
		double sum = 0;

		for (int32_t s = 0; s < rank; s++)
			sum += (double) args.aa[r * rank + s] * (double) b[s];
		cross += (double) b[r] * (double) args.wa[(int64_t) i * rank + r];
		own += (double) b[r] * sum;
	}
	cross = warp_total(cross);
	own = warp_total(own);
	if (threadIdx.x % WARP == 0)
		args.out[i] = (float) sqrt(
			(double) args.weight_squares[i] + 2 * (double) args.scale * cross +
			(double) args.scale * (double) args.scale * own);
}

bool
cuda_adapted_norms(LlmCompute *compute, const LlmAdaptedNormsArgs *args,
				   LlmError *err)
{
	return train_launch(
		llm_cuda(compute),
		{ dim3((unsigned) ceil_div(args->n_rows, WARPS)), THREADS }, err,
		adapted_norms_rows, *args);
}

/* ------------------------------------------------------------------------
 * The sum of all squares
 * ------------------------------------------------------------------------
 */

/* Whatever the GPU: the order of a sum is part of its result. */
#define SQUARES_BLOCKS 512

/* partial [SQUARES_BLOCKS] */
static __global__ void
__launch_bounds__(THREADS)
	sum_squares_part(const float *x, int64_t n, double *partial)
{
	double sum = 0;

	for (int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x; i < n;
		 i += (int64_t) SQUARES_BLOCKS * THREADS)
		sum += (double) x[i] * (double) x[i];
	sum = block_total(sum);
	if (threadIdx.x == 0)
		partial[blockIdx.x] = sum;
}

static __global__ void
__launch_bounds__(THREADS) sum_partial(double *partial)
{
	double sum = 0;

	for (int i = (int) threadIdx.x; i < SQUARES_BLOCKS; i += THREADS)
		sum += partial[i];
	sum = block_total(sum);
	if (threadIdx.x == 0)
		partial[0] = sum;
}

bool
cuda_sum_squares(LlmCompute *compute, const float *x, int64_t n, double *sum,
				 LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	/* products in front have done with their scratch */
	double *partial = (double *) cuda->workspace;

	return train_launch(cuda, { dim3(SQUARES_BLOCKS), THREADS }, err,
						sum_squares_part, x, n, partial) &&
		   train_launch(cuda, { dim3(1), THREADS }, err, sum_partial,
						partial) &&
		   cuda_read(compute, sum, partial, sizeof(*sum), err);
}
