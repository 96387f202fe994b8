/*
 * cuda_train_product.cu
 *	  Products of any two matrices, for training.
 *
 * cuBLASLt multiplies what is bf16 and aligned; f32 sums, f32 or bf16 results.
 * The algorithm is the first of its heuristics, which the shape decides:
 * algorithms that are chosen by time add up in another order from process to
 * process, and a job that goes on would not give the same bits.  Choices are
 * kept, the last ones of them, since micro-batches differ in length.
 *
 * Thin products that are added to what is there, B (A x) to W x above all,
 * move many numbers for little work, and have a kernel that does so at the
 * rate of a copy.
 *
 * What is left (ranks that are no multiple of 8, f16 weights, ...) takes a
 * plain kernel.
 *
 * cuda/cuda_train_product.cu
 */
#include "cuda/cuda_linear.cuh"
#include "cuda/cuda_train.cuh"

#include <stdlib.h>
#include <string.h>

#define MAX_PLANS 256

/* What a plan is for. */
typedef struct PlanKey
{
	int64_t m;
	int64_t n;
	int64_t k;
	int64_t a_stride;
	int64_t b_stride;
	int64_t out_stride;
	int32_t a_transposed;
	int32_t b_transposed;
	int32_t out_is_f32;
	int32_t unused; /* no bytes between, keys are compared as bytes */
} PlanKey;

typedef struct ProductPlan
{
	PlanKey key;
	cublasLtMatmulDesc_t op;
	cublasLtMatrixLayout_t a; /* as cuBLAS numbers them: our b */
	cublasLtMatrixLayout_t b;
	cublasLtMatrixLayout_t out;
	cublasLtMatmulAlgo_t algorithm;
} ProductPlan;

struct ProductPlans
{
	ProductPlan plans[MAX_PLANS];
	int n_plans;
	int next; /* the oldest one, which is forgotten first */
};

static void
free_plan(ProductPlan *plan)
{
	if (plan->op != NULL)
		(void) cublasLtMatmulDescDestroy(plan->op);
	if (plan->a != NULL)
		(void) cublasLtMatrixLayoutDestroy(plan->a);
	if (plan->b != NULL)
		(void) cublasLtMatrixLayoutDestroy(plan->b);
	if (plan->out != NULL)
		(void) cublasLtMatrixLayoutDestroy(plan->out);
	memset(plan, 0, sizeof(*plan));
}

void
cuda_train_close(LlmCuda *cuda)
{
	for (int i = 0; cuda->product_plans != NULL && i < MAX_PLANS; i++)
		free_plan(&cuda->product_plans->plans[i]);
	free(cuda->product_plans);
	cuda->product_plans = NULL;
}

/* ------------------------------------------------------------------------
 * Plans
 * ------------------------------------------------------------------------
 */

/*
 * cuBLAS thinks in columns: out^T [n, m] = b^T [n, k] a^T [k, m].  A matrix
 * that is stored by rows is its transposed one, stored by columns.
 */
static bool
describe(ProductPlan *plan, LlmError *err)
{
	const PlanKey *key = &plan->key;
	cublasOperation_t a_op = key->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
	cublasOperation_t b_op = key->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
	uint64_t m = (uint64_t) key->m;
	uint64_t n = (uint64_t) key->n;
	uint64_t k = (uint64_t) key->k;

	CUBLAS_TRY(
		cublasLtMatmulDescCreate(&plan->op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
	CUBLAS_TRY(cublasLtMatmulDescSetAttribute(
		plan->op, CUBLASLT_MATMUL_DESC_TRANSA, &a_op, sizeof(a_op)));
	CUBLAS_TRY(cublasLtMatmulDescSetAttribute(
		plan->op, CUBLASLT_MATMUL_DESC_TRANSB, &b_op, sizeof(b_op)));
	CUBLAS_TRY(cublasLtMatrixLayoutCreate(
		&plan->a, CUDA_R_16BF, key->b_transposed ? k : n,
		key->b_transposed ? n : k, key->b_stride));
	CUBLAS_TRY(cublasLtMatrixLayoutCreate(
		&plan->b, CUDA_R_16BF, key->a_transposed ? m : k,
		key->a_transposed ? k : m, key->a_stride));
	CUBLAS_TRY(cublasLtMatrixLayoutCreate(
		&plan->out, key->out_is_f32 ? CUDA_R_32F : CUDA_R_16BF, n, m,
		key->out_stride));
	return true;
}

static bool
choose_algorithm(LlmCuda *cuda, ProductPlan *plan, LlmError *err)
{
	static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
		CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
		CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
		CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
		CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
	};
	cublasLtMatmulPreference_t preference;
	cublasLtMatmulHeuristicResult_t result;
	size_t workspace_bytes = WORKSPACE_BYTES;
	uint32_t align = 16;
	int n_results = 0;
	cublasStatus_t status;

	CUBLAS_TRY(cublasLtMatmulPreferenceCreate(&preference));
	(void) cublasLtMatmulPreferenceSetAttribute(
		preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
		sizeof(workspace_bytes));
	for (int i = 0; i < 4; i++)
		(void) cublasLtMatmulPreferenceSetAttribute(preference, alignments[i],
													&align, sizeof(align));
	status = cublasLtMatmulAlgoGetHeuristic(cuda->cublas, plan->op, plan->a,
											plan->b, plan->out, plan->out,
											preference, 1, &result, &n_results);
	(void) cublasLtMatmulPreferenceDestroy(preference);
	if (status != CUBLAS_STATUS_SUCCESS || n_results == 0)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "cuBLASLt has no algorithm for %lld x %lld x %lld",
							 (long long) plan->key.m, (long long) plan->key.n,
							 (long long) plan->key.k);
	plan->algorithm = result.algo;
	return true;
}

static ProductPlan *
find_plan(LlmCuda *cuda, const PlanKey *key, LlmError *err)
{
	ProductPlans *plans = cuda->product_plans;
	ProductPlan *plan;

	if (plans == NULL)
	{
		plans = (ProductPlans *) calloc(1, sizeof(*plans));
		cuda->product_plans = plans;
	}
	if (plans == NULL)
	{
		llm_error_no_memory(err, sizeof(*plans), "plans of products");
		return NULL;
	}
	for (int i = 0; i < plans->n_plans; i++)
	{
		if (memcmp(&plans->plans[i].key, key, sizeof(*key)) == 0)
			return &plans->plans[i];
	}
	plan = &plans->plans[plans->next];
	plans->next = (plans->next + 1) % MAX_PLANS;
	if (plans->n_plans < MAX_PLANS)
		plans->n_plans++;
	free_plan(plan);
	plan->key = *key;
	if (describe(plan, err) && choose_algorithm(cuda, plan, err))
		return plan;
	/* an empty key is that of no product */
	free_plan(plan);
	return NULL;
}

static bool
multiply_dense(LlmCuda *cuda, const LlmProductArgs *args, LlmError *err)
{
	PlanKey key = { args->m,
					args->n,
					args->k,
					args->a.stride,
					args->b.stride,
					args->out_stride,
					args->a.is_transposed,
					args->b.is_transposed,
					args->out_dtype == LLM_DTYPE_F32 };
	ProductPlan *plan = find_plan(cuda, &key, err);
	float scale = args->scale;
	float kept = args->adds ? 1 : 0;

	if (plan == NULL)
		return false;
	CUBLAS_TRY(cublasLtMatmul(cuda->cublas, plan->op, &scale, args->b.data,
							  plan->a, args->a.data, plan->b, &kept, args->out,
							  plan->out, args->out, plan->out, &plan->algorithm,
							  cuda->workspace, WORKSPACE_BYTES, cuda->stream));
	return true;
}

/* ------------------------------------------------------------------------
 * Thin products, added
 * ------------------------------------------------------------------------
 */
#define THIN_WARPS 8
#define THIN_COLUMNS \
	32				  /* of a warp: eight of each thread, which lie together */
#define THIN_TILES 4  /* of 16 rows that are on their way at a time */
#define THIN_ROWS 128 /* of a block */
#define THIN_MAX_K 64

typedef struct ThinParams
{
	const bf16 *a; /* [m, k] */
	const bf16 *b; /* [k, n], or [n, k] */
	bf16 *out;	   /* [m, n] */
	int64_t a_stride;
	int64_t b_stride;
	int64_t out_stride;
	int32_t m;
	int32_t n;
	int32_t k; /* a multiple of 8 */
	float scale;
} ThinParams;

/* Elements (k, column) and (k + 1, column) of b; zeros beyond it. */
template <bool B_TRANSPOSED>
static __device__ __forceinline__ uint32_t
thin_pair(const ThinParams &p, int32_t k, int32_t column)
{
	const uint16_t *b = (const uint16_t *) p.b;

	if (k >= p.k || column >= p.n)
		return 0;
	if (B_TRANSPOSED)
		return *(const uint32_t *) (b + column * p.b_stride + k);
	b += k * p.b_stride + column;
	return (uint32_t) b[p.b_stride] << 16 | b[0];
}

static __device__ __forceinline__ uint32_t
thin_row_pair(const ThinParams &p, int32_t row, int32_t k)
{
	return k < p.k && row < p.m
			   ? *(const uint32_t *) (p.a + row * p.a_stride + k)
			   : 0;
}

/*
 * out += scale a b.  Grid: columns, rows.  A warp keeps its columns of b.
 * Column i of its j-th tile of 8 is column i / 2 * 8 + 2 * j + i % 2 of its
 * 32: so a thread's two of each tile are eight in a row.
 */
template <int STEPS, bool B_TRANSPOSED>
static __global__ void
__launch_bounds__(THIN_WARPS *WARP)
	add_thin_product(const __grid_constant__ ThinParams p)
{
	const int lane = (int) threadIdx.x % WARP;
	const int32_t first_column =
		((int32_t) blockIdx.x * THIN_WARPS + (int32_t) threadIdx.x / WARP) *
		THIN_COLUMNS;
	const int32_t own_column = first_column + lane % 4 * VALUES;
	const int own_k = lane % 4 * 2;
	const int32_t end_row = min(((int32_t) blockIdx.y + 1) * THIN_ROWS, p.m);
	uint32_t b[STEPS][4][2];

#pragma unroll
	for (int i = 0; i < STEPS * 8; i++)
		b[i / 8][i / 2 % 4][i % 2] = thin_pair<B_TRANSPOSED>(
			p, i / 8 * 16 + i % 2 * 8 + own_k,
			first_column + lane / 8 * 8 + i / 2 % 4 * 2 + lane / 4 % 2);
	for (int32_t first = (int32_t) blockIdx.y * THIN_ROWS; first < end_row;
		 first += THIN_TILES * MMA_ROWS)
	{
		uint4 raw[2 * THIN_TILES];

#pragma unroll
		for (int i = 0; i < 2 * THIN_TILES; i++)
		{
			const int32_t row = first + i * 8 + lane / 4;

			if (row < p.m && own_column < p.n)
				raw[i] =
					*(const uint4 *) (p.out + row * p.out_stride + own_column);
		}
#pragma unroll
		for (int t = 0; t < THIN_TILES; t++)
		{
			const int32_t row = first + t * MMA_ROWS + lane / 4;
			float sums[4][4] = {};

#pragma unroll
			for (int s = 0; s < STEPS; s++)
			{
				const uint32_t a[4] = {
					thin_row_pair(p, row, s * 16 + own_k),
					thin_row_pair(p, row + 8, s * 16 + own_k),
					thin_row_pair(p, row, s * 16 + 8 + own_k),
					thin_row_pair(p, row + 8, s * 16 + 8 + own_k),
				};

#pragma unroll
				for (int j = 0; j < 4; j++)
					mma_16x8x16(sums[j], a, b[s][j][0], b[s][j][1]);
			}
#pragma unroll
			for (int h = 0; h < 2; h++)
			{
				float values[VALUES];

				if (row + 8 * h >= p.m || own_column >= p.n)
					continue;
				train_widen(raw[2 * t + h], values);
#pragma unroll
				for (int k = 0; k < VALUES; k++)
					values[k] += p.scale * sums[k / 2][2 * h + k % 2];
				*(uint4 *) (p.out + (row + 8 * h) * p.out_stride + own_column) =
					train_narrow(values);
			}
		}
	}
}

static bool
is_thin(const LlmProductArgs *args)
{
	return args->adds && args->out_dtype == LLM_DTYPE_BF16 &&
		   !args->a.is_transposed && args->k <= THIN_MAX_K &&
		   args->k % VALUES == 0 && args->n % VALUES == 0;
}

template <int STEPS>
static bool
launch_thin(LlmCuda *cuda, const ThinParams &p, bool b_transposed,
			LlmError *err)
{
	dim3 grid((unsigned) ceil_div(p.n, THIN_WARPS * THIN_COLUMNS),
			  (unsigned) ceil_div(p.m, THIN_ROWS));

	return train_launch(cuda, { grid, THIN_WARPS * WARP }, err,
						b_transposed ? add_thin_product<STEPS, true>
									 : add_thin_product<STEPS, false>,
						p);
}

static bool
multiply_thin(LlmCuda *cuda, const LlmProductArgs *args, LlmError *err)
{
	const ThinParams p = {
		(const bf16 *) args->a.data,
		(const bf16 *) args->b.data,
		(bf16 *) args->out,
		args->a.stride,
		args->b.stride,
		args->out_stride,
		(int32_t) args->m,
		(int32_t) args->n,
		(int32_t) args->k,
		args->scale,
	};

	if (args->k <= 16)
		return launch_thin<1>(cuda, p, args->b.is_transposed, err);
	if (args->k <= 32)
		return launch_thin<2>(cuda, p, args->b.is_transposed, err);
	return launch_thin<4>(cuda, p, args->b.is_transposed, err);
}

/* ------------------------------------------------------------------------
 * What cuBLASLt does not take
 * ------------------------------------------------------------------------
 */
#define PLAIN_TILE 16

static __device__ __forceinline__ float
load_operand(const LlmOperand &from, int64_t row, int64_t col)
{
	return load_float(from.data, from.dtype,
					  from.is_transposed ? col * from.stride + row
										 : row * from.stride + col);
}

/* blockDim is one dimension: 16 columns of 16 rows. */
static __global__ void
__launch_bounds__(PLAIN_TILE *PLAIN_TILE) plain_train_product(LlmProductArgs p)
{
	__shared__ float as[PLAIN_TILE][PLAIN_TILE + 1];
	__shared__ float bs[PLAIN_TILE][PLAIN_TILE + 1];
	const int tx = (int) threadIdx.x % PLAIN_TILE;
	const int ty = (int) threadIdx.x / PLAIN_TILE;
	const int64_t row = (int64_t) blockIdx.x * PLAIN_TILE + ty;
	const int64_t col = (int64_t) blockIdx.y * PLAIN_TILE + tx;
	const int64_t at = row * p.out_stride + col;
	float sum = 0;

	for (int64_t first = 0; first < p.k; first += PLAIN_TILE)
	{
		as[ty][tx] = row < p.m && first + tx < p.k
						 ? load_operand(p.a, row, first + tx)
						 : 0;
		bs[ty][tx] = first + ty < p.k && col < p.n
						 ? load_operand(p.b, first + ty, col)
						 : 0;
		__syncthreads();
#pragma unroll
		for (int i = 0; i < PLAIN_TILE; i++)
			sum += as[ty][i] * bs[i][tx];
		__syncthreads();
	}
	if (row >= p.m || col >= p.n)
		return;
	sum *= p.scale;
	if (p.out_dtype == LLM_DTYPE_F32)
		((float *) p.out)[at] = sum + (p.adds ? ((float *) p.out)[at] : 0);
	else
		((bf16 *) p.out)[at] = __float2bfloat16(
			sum + (p.adds ? __bfloat162float(((bf16 *) p.out)[at]) : 0));
}

static bool
multiply_plain(LlmCuda *cuda, const LlmProductArgs *args, LlmError *err)
{
	dim3 grid((unsigned) ceil_div(args->m, PLAIN_TILE),
			  (unsigned) ceil_div(args->n, PLAIN_TILE));

	return train_launch(cuda, { grid, PLAIN_TILE * PLAIN_TILE }, err,
						plain_train_product, *args);
}

/* ------------------------------------------------------------------------
 * The operations
 * ------------------------------------------------------------------------
 */
static bool
is_dense(const LlmProductArgs *args)
{
	int64_t out_unit = args->out_dtype == LLM_DTYPE_F32 ? 4 : 8;

	return args->a.dtype == LLM_DTYPE_BF16 && args->b.dtype == LLM_DTYPE_BF16 &&
		   are_aligned((uintptr_t) args->a.data | (uintptr_t) args->b.data |
					   (uintptr_t) args->out) &&
		   args->a.stride % VALUES == 0 && args->b.stride % VALUES == 0 &&
		   args->out_stride % out_unit == 0;
}

bool
cuda_product(LlmCompute *compute, const LlmProductArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	assert(args->k > 0);
	assert(args->out_dtype == LLM_DTYPE_F32 ||
		   args->out_dtype == LLM_DTYPE_BF16);
	if (args->m == 0 || args->n == 0)
		return true;
	if (!is_dense(args))
		return multiply_plain(cuda, args, err);
	return is_thin(args) ? multiply_thin(cuda, args, err)
						 : multiply_dense(cuda, args, err);
}

bool
cuda_train_linear(LlmCompute *compute, const LlmLinearArgs *args, LlmError *err)
{
	assert(args->lora.step == NULL);
	for (int i = 0; i < args->n_parts; i++)
	{
		const LlmMatrix *weight = &args->part[i].weight;
		LlmProductArgs product = {
			{ args->x, LLM_DTYPE_BF16, weight->n_cols, false },
			{ weight->data, weight->dtype, weight->n_cols, true },
			args->n_rows,
			weight->n_rows,
			weight->n_cols,
			1,
			false,
			args->part[i].out,
			args->out_is_f32 ? LLM_DTYPE_F32 : LLM_DTYPE_BF16,
			args->part[i].out_stride,
		};

		if (!cuda_product(compute, &product, err))
			return false;
	}
	return cuda_add_biases(llm_cuda(compute), args, err);
}
