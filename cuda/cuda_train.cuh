/*
 * cuda_train.cuh
 *	  What the files of training on the GPU share.
 *
 *	  cuda_train.cu						the table; what computes number by number
 *	  cuda_train_rows.cu				what sums over rows, or over all numbers
 *	  cuda_train_product.cu				products of any two matrices
 *	  cuda_train_attention.cu			attention among segments, and back
 *	  cuda_train_attention_hopper.cu	the same on Hopper
 *
 * Every sum has one order: blocks write what is their own, nothing is added up
 * atomically, and no algorithm is chosen by how long it took.
 *
 * cuda/cuda_train.cuh
 */
#ifndef LLM_CUDA_TRAIN_CUH
#define LLM_CUDA_TRAIN_CUH

#include "cuda/cuda_internal.cuh"

extern "C"
{
#include "src/engine/compute/compute_train.h"
}

#define VALUES 8 /* of a 16-byte access */

/* Shared memory that a kernel gets without asking. */
#define SMALL_SHARED_BYTES ((size_t) 48 << 10)

/* Launch on the stream; the kernel is allowed the shared memory it takes. */
template <typename... Params, typename... Args>
static inline bool
train_launch(const LlmCuda *cuda, const LaunchShape &shape, LlmError *err,
			 void (*kernel)(Params...), Args... args)
{
	if (shape.shared_bytes > SMALL_SHARED_BYTES)
		CUDA_TRY(cudaFuncSetAttribute(
			kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
			(int) shape.shared_bytes));
	kernel<<<shape.grid, shape.n_threads, shape.shared_bytes, cuda->stream>>>(
		Params(args)...);
	return cuda_launched("an operation of training", err);
}

/* Blocks that go over n items, some for each thread. */
static inline unsigned
blocks_over(const LlmCuda *cuda, int64_t n_items, int n_threads)
{
	int64_t wanted = ceil_div(n_items, n_threads);
	int64_t most = (int64_t) cuda->n_sms * 16;

	return (unsigned) (wanted < most ? wanted : most);
}

/* Whether arrays, as bits of their addresses, can be read by 16 bytes. */
static inline bool
are_aligned(uintptr_t bits)
{
	return bits % 16 == 0;
}

/* ------------------------------------------------------------------------
 * Eight numbers at a time
 * ------------------------------------------------------------------------
 */
static __device__ __forceinline__ void
train_widen(const uint4 &raw, float values[VALUES])
{
	const uint32_t words[4] = { raw.x, raw.y, raw.z, raw.w };

#pragma unroll
	for (int i = 0; i < VALUES / 2; i++)
	{
		/* a bf16 is the upper half of a float */
		values[2 * i] = __uint_as_float(words[i] << 16);
		values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
	}
}

static __device__ __forceinline__ uint4
train_narrow(const float values[VALUES])
{
	return make_uint4(
		pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]),
		pack_bf16(values[4], values[5]), pack_bf16(values[6], values[7]));
}

/* Values i .. i + 7 of n; those beyond are 0. */
static __device__ __forceinline__ void
load_values(const bf16 *x, int64_t i, int64_t n, bool is_aligned,
			float values[VALUES])
{
	if (is_aligned && i + VALUES <= n)
	{
		train_widen(*(const uint4 *) (x + i), values);
		return;
	}
#pragma unroll
	for (int k = 0; k < VALUES; k++)
		values[k] = i + k < n ? __bfloat162float(x[i + k]) : 0;
}

static __device__ __forceinline__ void
store_values(bf16 *x, int64_t i, int64_t n, bool is_aligned,
			 const float values[VALUES])
{
	if (is_aligned && i + VALUES <= n)
	{
		*(uint4 *) (x + i) = train_narrow(values);
		return;
	}
#pragma unroll
	for (int k = 0; k < VALUES; k++)
		if (i + k < n)
			x[i + k] = __float2bfloat16(values[k]);
}

/* ------------------------------------------------------------------------
 * The files' functions
 * ------------------------------------------------------------------------
 */

/* cuda_train_rows.cu */
extern bool cuda_rms_norm_back(LlmCompute *compute,
							   const LlmRmsNormBackArgs *args, LlmError *err);
extern bool cuda_cross_entropy(LlmCompute *compute,
							   const LlmCrossEntropyArgs *args, LlmError *err);
extern bool cuda_column_dots(LlmCompute *compute, const LlmColumnDotsArgs *args,
							 LlmError *err);
extern bool
cuda_row_dots(LlmCompute *compute, const LlmRowDotsArgs *args, LlmError *err);
extern bool cuda_row_squares(LlmCompute *compute, const LlmRowSquaresArgs *args,
							 LlmError *err);
extern bool cuda_adapted_norms(LlmCompute *compute,
							   const LlmAdaptedNormsArgs *args, LlmError *err);
extern bool cuda_sum_squares(LlmCompute *compute, const float *x, int64_t n,
							 double *sum, LlmError *err);

/* cuda_train_product.cu */
extern bool
cuda_product(LlmCompute *compute, const LlmProductArgs *args, LlmError *err);
extern bool cuda_train_linear(LlmCompute *compute, const LlmLinearArgs *args,
							  LlmError *err);

/* cuda_train_attention.cu */
extern bool
cuda_segment_attention(LlmCompute *compute, const LlmSegmentAttentionArgs *args,
					   LlmError *err);
extern bool cuda_segment_attention_back(LlmCompute *compute,
										const LlmSegmentAttentionBackArgs *args,
										LlmError *err);

#endif /* LLM_CUDA_TRAIN_CUH */
