/*
 * cuda_train.cu
 *	  The operations of training on the GPU: the table, and those that compute
 *	  each number by itself.
 *
 * compute_train.h has the contracts, cpu_train_rows.c the plain twins.
 * Activations are bf16; what is computed from them is f32 and rounded once.
 *
 * cuda/cuda_train.cu
 */
#include "cuda/cuda_train.cuh"

#include <math.h>

#define THREADS 256

/* The first of this thread's eight values, and how far it is to the next. */
static __device__ __forceinline__ int64_t
first_value(void)
{
	return ((int64_t) blockIdx.x * THREADS + threadIdx.x) * VALUES;
}

static __device__ __forceinline__ int64_t
value_stride(void)
{
	return (int64_t) gridDim.x * THREADS * VALUES;
}

static LaunchShape
shape_over(const LlmCuda *cuda, int64_t n_values)
{
	return { dim3(blocks_over(cuda, ceil_div(n_values, VALUES), THREADS)),
			 THREADS };
}

/* ------------------------------------------------------------------------
 * Sums of two
 * ------------------------------------------------------------------------
 */
static __global__ void
__launch_bounds__(THREADS) add_values(LlmAddArgs args, bool is_aligned)
{
	for (int64_t i = first_value(); i < args.n; i += value_stride())
	{
		float a[VALUES];
		float b[VALUES];

		load_values((const bf16 *) args.a, i, args.n, is_aligned, a);
		load_values((const bf16 *) args.b, i, args.n, is_aligned, b);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
			a[k] += b[k];
		store_values((bf16 *) args.out, i, args.n, is_aligned, a);
	}
}

static bool
add(LlmCompute *compute, const LlmAddArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	if (args->n == 0)
		return true;
	return train_launch(cuda, shape_over(cuda, args->n), err, add_values, *args,
						are_aligned((uintptr_t) args->a | (uintptr_t) args->b |
									(uintptr_t) args->out));
}

/* ------------------------------------------------------------------------
 * Rotations
 * ------------------------------------------------------------------------
 */

/* Pair i of a head: where its two values lie. */
static __device__ __forceinline__ void
rotate_pair(const LlmRotateArgs &args, bf16 *head, const float *angles,
			int32_t i)
{
	const int32_t half = args.rotary_dim / 2;
	const int32_t first = args.interleaved ? 2 * i : i;
	const int32_t second = args.interleaved ? 2 * i + 1 : i + half;
	const float c = angles[i];
	const float s = args.is_inverse ? -angles[half + i] : angles[half + i];
	const float a = __bfloat162float(head[first]);
	const float b = __bfloat162float(head[second]);

	head[first] = __float2bfloat16(a * c - b * s);
	head[second] = __float2bfloat16(b * c + a * s);
}

static __global__ void
__launch_bounds__(THREADS) rotate_single(LlmRotateArgs args)
{
	const int32_t half = args.rotary_dim / 2;
	const float *angles =
		args.cos_sin + (int64_t) args.rope_rows[blockIdx.x] * args.rotary_dim;
	bf16 *token =
		(bf16 *) args.x + (int64_t) blockIdx.x * args.n_heads * args.head_dim;

	for (int32_t i = (int32_t) threadIdx.x; i < args.n_heads * half;
		 i += THREADS)
		rotate_pair(args, token + (int64_t) (i / half) * args.head_dim, angles,
					i % half);
}

/* Eight pairs (j, j + half) at a time. */
static __global__ void
__launch_bounds__(THREADS) rotate_wide(LlmRotateArgs args)
{
	const int32_t half = args.rotary_dim / 2;
	const int32_t n_groups = half / VALUES;
	const float *angles =
		args.cos_sin + (int64_t) args.rope_rows[blockIdx.x] * args.rotary_dim;
	bf16 *token =
		(bf16 *) args.x + (int64_t) blockIdx.x * args.n_heads * args.head_dim;

	for (int32_t i = (int32_t) threadIdx.x; i < args.n_heads * n_groups;
		 i += THREADS)
	{
		const int32_t first = i % n_groups * VALUES;
		uint4 *low =
			(uint4 *) (token + (int64_t) (i / n_groups) * args.head_dim +
					   first);
		uint4 *high = (uint4 *) ((bf16 *) low + half);
		float a[VALUES];
		float b[VALUES];

		train_widen(*low, a);
		train_widen(*high, b);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
		{
			const float c = angles[first + k];
			const float angle = angles[half + first + k];
			const float s = args.is_inverse ? -angle : angle;
			const float x = a[k];

			a[k] = x * c - b[k] * s;
			b[k] = b[k] * c + x * s;
		}
		*low = train_narrow(a);
		*high = train_narrow(b);
	}
}

static bool
rotate(LlmCompute *compute, const LlmRotateArgs *args, LlmError *err)
{
	bool is_wide = !args->interleaved && args->rotary_dim % (2 * VALUES) == 0 &&
				   args->head_dim % VALUES == 0 &&
				   are_aligned((uintptr_t) args->x);

	if (args->rotary_dim == 0 || args->n_tokens == 0)
		return true;
	return train_launch(llm_cuda(compute),
						{ dim3((unsigned) args->n_tokens), THREADS }, err,
						is_wide ? rotate_wide : rotate_single, *args);
}

/* ------------------------------------------------------------------------
 * Gated activations
 * ------------------------------------------------------------------------
 */

/* activation(x), and its derivative in *slope */
static __device__ __forceinline__ float
activation_with_slope(LlmActivation kind, float x, float *slope)
{
	float phi;

	if (kind == LLM_ACTIVATION_SILU)
	{
		float s = 1.0f / (1.0f + __expf(-x));

		*slope = s * (1.0f + x * (1.0f - s));
		return x * s;
	}
	if (kind == LLM_ACTIVATION_GELU)
	{
		phi = 0.5f * erfcf(-x * 0.70710678f);
		*slope = phi + x * 0.39894228f * expf(-0.5f * x * x);
		return x * phi;
	}
	{
		float u = 0.79788456f * (x + 0.044715f * x * x * x);
		float t = tanhf(u);

		phi = 0.5f * (1.0f + t);
		*slope = phi + 0.5f * x * (1.0f - t * t) * 0.79788456f *
						   (1.0f + 3 * 0.044715f * x * x);
		return x * phi;
	}
}

static __global__ void
__launch_bounds__(THREADS)
	gated_act_back_values(LlmGatedActBackArgs args, bool is_aligned)
{
	for (int64_t i = first_value(); i < args.n; i += value_stride())
	{
		float gate[VALUES];
		float up[VALUES];
		float d[VALUES];

		load_values((const bf16 *) args.gate, i, args.n, is_aligned, gate);
		load_values((const bf16 *) args.up, i, args.n, is_aligned, up);
		load_values((const bf16 *) args.d_out, i, args.n, is_aligned, d);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
		{
			float slope;
			float value =
				activation_with_slope(args.activation, gate[k], &slope);

			gate[k] = d[k] * up[k] * slope;
			up[k] = d[k] * value;
		}
		store_values((bf16 *) args.d_gate, i, args.n, is_aligned, gate);
		store_values((bf16 *) args.d_up, i, args.n, is_aligned, up);
	}
}

static bool
gated_act_back(LlmCompute *compute, const LlmGatedActBackArgs *args,
			   LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	uintptr_t bits = (uintptr_t) args->gate | (uintptr_t) args->up |
					 (uintptr_t) args->d_out | (uintptr_t) args->d_gate |
					 (uintptr_t) args->d_up;

	if (args->n == 0)
		return true;
	return train_launch(cuda, shape_over(cuda, args->n), err,
						gated_act_back_values, *args, are_aligned(bits));
}

/* ------------------------------------------------------------------------
 * Random numbers
 * ------------------------------------------------------------------------
 */

/* Words i .. i + 7 of a sequence, i a multiple of 8. */
static __device__ __forceinline__ void
random_words(uint64_t seed, uint64_t sequence, int64_t i,
			 uint32_t words[VALUES])
{
	uint4 low = philox(seed, (uint64_t) i / 4, sequence);
	uint4 high = philox(seed, (uint64_t) i / 4 + 1, sequence);

	words[0] = low.x;
	words[1] = low.y;
	words[2] = low.z;
	words[3] = low.w;
	words[4] = high.x;
	words[5] = high.y;
	words[6] = high.z;
	words[7] = high.w;
}

/* bound: words below it are dropped */
static __global__ void
__launch_bounds__(THREADS)
	drop_values(LlmDropoutArgs args, uint64_t bound, bool is_aligned)
{
	const float factor = 1 / (1 - args.probability);

	for (int64_t i = first_value(); i < args.n; i += value_stride())
	{
		uint32_t words[VALUES];
		float x[VALUES];
		float out[VALUES] = {};

		random_words(args.seed, args.sequence, i, words);
		load_values((const bf16 *) args.x, i, args.n, is_aligned, x);
		if (args.adds)
			load_values((const bf16 *) args.out, i, args.n, is_aligned, out);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
			out[k] += words[k] < bound ? 0 : x[k] * factor;
		store_values((bf16 *) args.out, i, args.n, is_aligned, out);
	}
}

static bool
dropout(LlmCompute *compute, const LlmDropoutArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	uint64_t bound = (uint64_t) ceil((double) args->probability * 4294967296.0);

	if (args->n == 0)
		return true;
	return train_launch(
		cuda, shape_over(cuda, args->n), err, drop_values, *args, bound,
		are_aligned((uintptr_t) args->x | (uintptr_t) args->out));
}

static __global__ void
__launch_bounds__(THREADS) add_noise(LlmNoiseArgs args, bool is_aligned)
{
	for (int64_t i = first_value(); i < args.n; i += value_stride())
	{
		uint32_t words[VALUES];
		float x[VALUES];

		random_words(args.seed, args.sequence, i, words);
		load_values((const bf16 *) args.x, i, args.n, is_aligned, x);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
		{
			/* as llm_philox_unit_float */
			float unit = (float) (words[k] >> 8) * 5.9604644775390625e-8f;

			x[k] += args.scale * (2 * unit - 1);
		}
		store_values((bf16 *) args.x, i, args.n, is_aligned, x);
	}
}

static bool
noise(LlmCompute *compute, const LlmNoiseArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	if (args->n == 0)
		return true;
	return train_launch(cuda, shape_over(cuda, args->n), err, add_noise, *args,
						are_aligned((uintptr_t) args->x));
}

/* ------------------------------------------------------------------------
 * Rows and columns
 * ------------------------------------------------------------------------
 */
static __global__ void
scatter_rows(LlmScatterArgs args, bool is_aligned)
{
	const int64_t from = (int64_t) blockIdx.x * args.dim;
	const int64_t to = (int64_t) args.rows[blockIdx.x] * args.dim;

	for (int32_t i = (int32_t) threadIdx.x * VALUES; i < args.dim;
		 i += THREADS * VALUES)
	{
		float x[VALUES];

		load_values((const bf16 *) args.x + from, i, args.dim, is_aligned, x);
		store_values((bf16 *) args.out + to, i, args.dim, is_aligned, x);
	}
}

static bool
scatter(LlmCompute *compute, const LlmScatterArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	size_t n_bytes =
		(size_t) args->n_out_rows * (size_t) args->dim * sizeof(bf16);
	bool is_aligned = args->dim % VALUES == 0 &&
					  are_aligned((uintptr_t) args->x | (uintptr_t) args->out);

	CUDA_TRY(cudaMemsetAsync(args->out, 0, n_bytes, cuda->stream));
	if (args->n_rows == 0)
		return true;
	return train_launch(cuda, { dim3((unsigned) args->n_rows), THREADS }, err,
						scatter_rows, *args, is_aligned);
}

/* A token's entries, one after the other. */
static __global__ void
__launch_bounds__(THREADS) combine_rows(LlmCombineArgs args, bool is_aligned)
{
	const int64_t row = (int64_t) blockIdx.x * args.dim;
	const int32_t *entries =
		args.entries + (int64_t) blockIdx.x * args.n_entries;

	for (int32_t i = (int32_t) threadIdx.x * VALUES; i < args.dim;
		 i += THREADS * VALUES)
	{
		float sum[VALUES] = {};

		for (int32_t k = 0; k < args.n_entries; k++)
		{
			const float factor = args.factors[entries[k]];
			float x[VALUES];

			load_values((const bf16 *) args.x + (int64_t) entries[k] * args.dim,
						i, args.dim, is_aligned, x);
#pragma unroll
			for (int j = 0; j < VALUES; j++)
				sum[j] += factor * x[j];
		}
		store_values((bf16 *) args.out + row, i, args.dim, is_aligned, sum);
	}
}

static bool
combine(LlmCompute *compute, const LlmCombineArgs *args, LlmError *err)
{
	bool is_aligned = args->dim % VALUES == 0 &&
					  are_aligned((uintptr_t) args->x | (uintptr_t) args->out);

	if (args->n_rows == 0)
		return true;
	return train_launch(llm_cuda(compute),
						{ dim3((unsigned) args->n_rows), THREADS }, err,
						combine_rows, *args, is_aligned);
}

static __global__ void
__launch_bounds__(THREADS)
	scale_columns_rows(LlmScaleColumnsArgs args, bool is_aligned)
{
	const int64_t row = (int64_t) blockIdx.x * args.dim;

	for (int32_t i = (int32_t) threadIdx.x * VALUES; i < args.dim;
		 i += THREADS * VALUES)
	{
		float x[VALUES];

		load_values((const bf16 *) args.x + row, i, args.dim, is_aligned, x);
#pragma unroll
		for (int k = 0; k < VALUES; k++)
		{
			if (i + k >= args.dim)
				continue;
			x[k] *= args.scales[i + k];
			if (args.bias.data != NULL)
				x[k] += load_float(args.bias.data, args.bias.dtype, i + k);
		}
		store_values((bf16 *) args.out + row, i, args.dim, is_aligned, x);
	}
}

static bool
scale_columns(LlmCompute *compute, const LlmScaleColumnsArgs *args,
			  LlmError *err)
{
	bool is_aligned = args->dim % VALUES == 0 &&
					  are_aligned((uintptr_t) args->x | (uintptr_t) args->out);

	if (args->n_rows == 0)
		return true;
	return train_launch(llm_cuda(compute),
						{ dim3((unsigned) args->n_rows), THREADS }, err,
						scale_columns_rows, *args, is_aligned);
}

/* ------------------------------------------------------------------------
 * Matrices that are trained: f32
 * ------------------------------------------------------------------------
 */
static __global__ void
__launch_bounds__(THREADS) divide_values(LlmDivideArgs args)
{
	int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x;

	if (i < args.n)
		args.out[i] = args.a[i] / args.b[i];
}

static bool
divide(LlmCompute *compute, const LlmDivideArgs *args, LlmError *err)
{
	if (args->n == 0)
		return true;
	return train_launch(
		llm_cuda(compute),
		{ dim3((unsigned) ceil_div(args->n, THREADS)), THREADS }, err,
		divide_values, *args);
}

static __global__ void
__launch_bounds__(THREADS) round_values(LlmRoundArgs args)
{
	const int64_t stride = (int64_t) gridDim.x * THREADS;

	for (int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x; i < args.n;
		 i += stride)
		((bf16 *) args.out)[i] = __float2bfloat16(args.x[i]);
}

static bool
round_to_act(LlmCompute *compute, const LlmRoundArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	if (args->n == 0)
		return true;
	return train_launch(cuda,
						{ dim3(blocks_over(cuda, args->n, THREADS)), THREADS },
						err, round_values, *args);
}

/* The magnitude of a block of 64, rounded step by step. */
static __device__ __forceinline__ float
nf4_magnitude(const LlmNf4Args &args, int64_t block)
{
	if (args.scale_codes == NULL)
		return args.scales[block];
	return __fadd_rn(
		__fmul_rn(args.map[args.scale_codes[block]], args.scales[block / 256]),
		*args.offset);
}

/* is_wide: eight values at a time, to bf16 */
static __global__ void
__launch_bounds__(THREADS) decode_nf4_values(LlmNf4Args args, bool is_wide)
{
	__shared__ float codes[16];

	if (threadIdx.x < 16)
		codes[threadIdx.x] = args.codes[threadIdx.x];
	__syncthreads();
	for (int64_t i = first_value(); i < args.n; i += value_stride())
	{
		const float magnitude = nf4_magnitude(args, i / 64);
		const int n = args.n - i < VALUES ? (int) (args.n - i) : VALUES;
		uint32_t packed = 0;
		float out[VALUES];

		if (is_wide && n == VALUES)
			packed = *(const uint32_t *) (args.values + i / 2);
		else
			for (int k = 0; k < (n + 1) / 2; k++)
				packed |= (uint32_t) args.values[i / 2 + k] << 8 * k;
#pragma unroll
		for (int k = 0; k < VALUES; k++)
			/* the first of two is in a byte's high half */
			out[k] =
				__fmul_rn(codes[packed >> (8 * (k / 2) + 4 - 4 * (k % 2)) & 15],
						  magnitude);
		if (args.out_dtype == LLM_DTYPE_BF16)
			store_values((bf16 *) args.out, i, args.n, is_wide, out);
		else
			for (int k = 0; k < n; k++)
			{
				if (args.out_dtype == LLM_DTYPE_F16)
					((__half *) args.out)[i + k] = __float2half(out[k]);
				else
					((float *) args.out)[i + k] = out[k];
			}
	}
}

static bool
decode_nf4(LlmCompute *compute, const LlmNf4Args *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	return train_launch(
		cuda, shape_over(cuda, args->n), err, decode_nf4_values, *args,
		are_aligned((uintptr_t) args->values | (uintptr_t) args->out));
}

/* LlmAdamwArgs' numbers as the CPU rounds them. */
typedef struct AdamwParams
{
	float *p;
	const float *d_p;
	float *m;
	float *v;
	int64_t n;
	float clip;
	float beta1;
	float beta2;
	float shrink;
	float step;
	float root;
	float eps;
} AdamwParams;

static __global__ void
__launch_bounds__(THREADS) adamw_values(AdamwParams a)
{
	const int64_t stride = (int64_t) gridDim.x * THREADS;

	for (int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x; i < a.n;
		 i += stride)
	{
		float g = a.d_p[i] * a.clip;
		float m = a.m[i] + (1 - a.beta1) * (g - a.m[i]);
		float v = a.v[i] * a.beta2 + (1 - a.beta2) * g * g;

		a.m[i] = m;
		a.v[i] = v;
		a.p[i] = a.p[i] * a.shrink - a.step * m / (sqrtf(v) / a.root + a.eps);
	}
}

static bool
adamw(LlmCompute *compute, const LlmAdamwArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	AdamwParams params = {
		args->p,
		args->d_p,
		args->m,
		args->v,
		args->n,
		args->clip,
		(float) args->beta1,
		(float) args->beta2,
		(float) (1 - args->rate * args->decay),
		(float) (args->rate / args->correction1),
		(float) sqrt(args->correction2),
		(float) args->eps,
	};

	if (args->n == 0)
		return true;
	return train_launch(cuda,
						{ dim3(blocks_over(cuda, args->n, THREADS)), THREADS },
						err, adamw_values, params);
}

/* ------------------------------------------------------------------------
 * Memory
 * ------------------------------------------------------------------------
 */
static bool
clear(LlmCompute *compute, void *x, size_t n_bytes, LlmError *err)
{
	CUDA_TRY(cudaMemsetAsync(x, 0, n_bytes, llm_cuda(compute)->stream));
	return true;
}

static bool
copy(LlmCompute *compute, void *dest, const void *src, size_t n_bytes,
	 LlmError *err)
{
	CUDA_TRY(cudaMemcpyAsync(dest, src, n_bytes, cudaMemcpyDeviceToDevice,
							 llm_cuda(compute)->stream));
	return true;
}

const LlmTrainOps *
cuda_train_ops(void)
{
	static LlmTrainOps ops;

	ops.linear = cuda_train_linear;
	ops.product = cuda_product;
	ops.add = add;
	ops.rms_norm_back = cuda_rms_norm_back;
	ops.rotate = rotate;
	ops.attention = cuda_segment_attention;
	ops.attention_back = cuda_segment_attention_back;
	ops.gated_act_back = gated_act_back;
	ops.cross_entropy = cuda_cross_entropy;
	ops.scatter = scatter;
	ops.dropout = dropout;
	ops.noise = noise;
	ops.scale_columns = scale_columns;
	ops.column_dots = cuda_column_dots;
	ops.row_squares = cuda_row_squares;
	ops.adapted_norms = cuda_adapted_norms;
	ops.decode_nf4 = decode_nf4;
	ops.divide = divide;
	ops.round = round_to_act;
	ops.combine = combine;
	ops.row_dots = cuda_row_dots;
	ops.adamw = adamw;
	ops.sum_squares = cuda_sum_squares;
	ops.clear = clear;
	ops.copy = copy;
	return &ops;
}
