/*
 * cuda_linear.cu
 *	  Matrix products: neighbours joined, then cuBLASLt, own kernels for few
 *	  rows, and a plain one for what neither takes.
 *
 * Parts whose weights lie one behind the other, and whose outputs do too
 * (q/k/v, gate/up), are one product.  Which of cuBLASLt's algorithms is best
 * is measured at the first product of a shape: the weights are pushed out of
 * the cache before each trial, as they are in a step.  Shapes are classes of
 * row counts, so that prompts of all lengths share a few measurements.  The own
 * kernels for few rows are one more candidate, but for the fewest rows, where
 * nothing comes near them, and for small weights.  Where results must not
 * depend on the number of rows, cuda_linear_fixed.cu chooses.
 *
 * cuda/cuda_linear.cu
 */
#include "cuda/cuda_linear.cuh"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHOICES 1024
#define N_TRIALS 3

/* Up to so many rows own kernels need no comparison. */
#define OWN_MAX_ROWS 4
#define MIN_COMPARED_WEIGHTS (1 << 22)

/* What starting early saves them in a pass, which trials alone do not show. */
#define EARLY_START_MS 0.004f

bool
cuda_linear_open(LlmCuda *cuda, LlmError *err)
{
	CUBLAS_TRY(cublasLtCreate(&cuda->cublas));
	cuda->workspace = (char *) cuda_alloc(&cuda->base, WORKSPACE_BYTES,
										  "scratch of matrix products", err);
	if (cuda->workspace == NULL)
		return false;
	cuda_algorithms_open(cuda);
	cuda->choices = (GemmChoice *) calloc(MAX_CHOICES, sizeof(GemmChoice));
	return cuda->choices != NULL ||
		   llm_error_no_memory(err, MAX_CHOICES * sizeof(GemmChoice),
							   "algorithms of matrix products");
}

static void
free_choice(GemmChoice *choice)
{
	if (choice->op != NULL)
		(void) cublasLtMatmulDescDestroy(choice->op);
	if (choice->weight != NULL)
		(void) cublasLtMatrixLayoutDestroy(choice->weight);
	if (choice->x != NULL)
		(void) cublasLtMatrixLayoutDestroy(choice->x);
	if (choice->out != NULL)
		(void) cublasLtMatrixLayoutDestroy(choice->out);
	memset(choice, 0, sizeof(*choice));
}

void
cuda_linear_close(LlmCuda *cuda)
{
	for (int i = 0; i < cuda->n_choices; i++)
		free_choice(&cuda->choices[i]);
	free(cuda->choices);
	cuda_algorithms_close(cuda);
	cuda_free(&cuda->base, cuda->workspace);
	if (cuda->cublas != NULL)
		(void) cublasLtDestroy(cuda->cublas);
}

/* ------------------------------------------------------------------------
 * cuBLASLt
 * ------------------------------------------------------------------------
 */

int32_t
cuda_row_class(int32_t n_rows)
{
	int32_t step = 16;

	while (n_rows > 16 * step)
		step *= 2;
	return (int32_t) ceil_div(n_rows, step) * step;
}

/* Own kernels differ more from row to row. */
static int32_t
choice_class(const LlmCuda *cuda, int32_t n_rows)
{
	if (cuda->options.deterministic)
		return cuda->plan.is_prompt ? CLASS_PROMPTS : CLASS_OUTPUTS;
	return n_rows <= 8 ? 8 : cuda_row_class(n_rows);
}

/*
 * cuBLAS thinks in columns: out^T [n_out, n_rows] = W [n_out, n_cols] x^T,
 * where W as it lies is the transposed of an [n_cols, n_out] matrix.
 */
static bool
describe(GemmChoice *choice, LlmError *err)
{
	cublasOperation_t transpose = CUBLAS_OP_T;
	uint64_t n_out = (uint64_t) choice->n_out;
	uint64_t n_rows = (uint64_t) choice->n_rows;
	uint64_t n_cols = (uint64_t) choice->n_cols;

	CUBLAS_TRY(
		cublasLtMatmulDescCreate(&choice->op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
	CUBLAS_TRY(cublasLtMatmulDescSetAttribute(choice->op,
											  CUBLASLT_MATMUL_DESC_TRANSA,
											  &transpose, sizeof(transpose)));
	CUBLAS_TRY(cublasLtMatrixLayoutCreate(&choice->weight, CUDA_R_16BF, n_cols,
										  n_out, choice->n_cols));
	CUBLAS_TRY(cublasLtMatrixLayoutCreate(&choice->x, CUDA_R_16BF, n_cols,
										  n_rows, choice->n_cols));
	CUBLAS_TRY(cublasLtMatrixLayoutCreate(
		&choice->out, choice->out_is_f32 ? CUDA_R_32F : CUDA_R_16BF, n_out,
		n_rows, choice->out_stride));
	return true;
}

bool
gemm_set_rows(GemmChoice *choice, int32_t n_rows, LlmError *err)
{
	uint64_t n = (uint64_t) n_rows;

	if (choice->n_rows == n_rows)
		return true;
	CUBLAS_TRY(cublasLtMatrixLayoutSetAttribute(
		choice->x, CUBLASLT_MATRIX_LAYOUT_COLS, &n, sizeof(n)));
	CUBLAS_TRY(cublasLtMatrixLayoutSetAttribute(
		choice->out, CUBLASLT_MATRIX_LAYOUT_COLS, &n, sizeof(n)));
	choice->n_rows = n_rows;
	return true;
}

bool
gemm_find_candidates(LlmCuda *cuda, GemmChoice *choice, LlmError *err)
{
	cublasLtMatmulPreference_t preference;
	size_t workspace_bytes = gemm_workspace_bytes(cuda);
	uint32_t align = 16;
	int n_found = 0;
	cublasStatus_t status;

	CUBLAS_TRY(cublasLtMatmulPreferenceCreate(&preference));
	(void) cublasLtMatmulPreferenceSetAttribute(
		preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
		sizeof(workspace_bytes));
	(void) cublasLtMatmulPreferenceSetAttribute(
		preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align,
		sizeof(align));
	(void) cublasLtMatmulPreferenceSetAttribute(
		preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align,
		sizeof(align));
	(void) cublasLtMatmulPreferenceSetAttribute(
		preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align,
		sizeof(align));
	(void) cublasLtMatmulPreferenceSetAttribute(
		preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align,
		sizeof(align));
	status = cublasLtMatmulAlgoGetHeuristic(
		cuda->cublas, choice->op, choice->weight, choice->x, choice->out,
		choice->out, preference, N_HEURISTICS,
		choice->candidates + choice->n_candidates, &n_found);
	(void) cublasLtMatmulPreferenceDestroy(preference);
	if (status == CUBLAS_STATUS_SUCCESS)
		choice->n_candidates += n_found;
	if (choice->n_candidates == 0)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "cuBLASLt has no algorithm for %d x %lld x %lld",
							 choice->n_rows, (long long) choice->n_cols,
							 (long long) choice->n_out);
	return true;
}

static bool
multiply_few(LlmCuda *cuda, const Product *product, LlmError *err)
{
	SkinnyArgs skinny = {
		(const bf16 *) product->x,
		(const bf16 *) product->weight,
		product->out,
		product->out_stride,
		product->n_rows,
		(int32_t) product->n_cols,
		(int32_t) product->n_out,
		product->out_is_f32,
	};

	return cuda_skinny(cuda, &skinny, err);
}

cublasStatus_t
gemm_run(LlmCuda *cuda, const GemmChoice *choice, const Product *product, int i)
{
	float one = 1;
	float zero = 0;

	return cublasLtMatmul(cuda->cublas, choice->op, &one, product->weight,
						  choice->weight, product->x, choice->x, &zero,
						  product->out, choice->out, product->out, choice->out,
						  &choice->candidates[i].algo, cuda->workspace,
						  gemm_workspace_bytes(cuda), cuda->stream);
}

/*
 * The best of some runs in ms; FLT_MAX where the algorithm does not run.  OWN
 * is the own kernel.
 */
#define OWN (-1)
static bool
time_candidate(LlmCuda *cuda, const GemmChoice *choice, const Product *product,
			   int i, float *best_ms, LlmError *err)
{
	cudaEvent_t begin;
	cudaEvent_t end;

	*best_ms = FLT_MAX;
	CUDA_TRY(cudaEventCreate(&begin));
	CUDA_TRY(cudaEventCreate(&end));
	for (int trial = 0; trial <= N_TRIALS; trial++)
	{
		float ms;

		CUDA_TRY(
			cudaMemsetAsync(cuda->workspace, 0, WORKSPACE_BYTES, cuda->stream));
		CUDA_TRY(cudaEventRecord(begin, cuda->stream));
		if (i == OWN
				? !multiply_few(cuda, product, err)
				: gemm_run(cuda, choice, product, i) != CUBLAS_STATUS_SUCCESS)
			break;
		CUDA_TRY(cudaEventRecord(end, cuda->stream));
		CUDA_TRY(cudaEventSynchronize(end));
		CUDA_TRY(cudaEventElapsedTime(&ms, begin, end));
		/* the first run loads the kernel */
		if (trial > 0 && ms < *best_ms)
			*best_ms = ms;
	}
	CUDA_TRY(cudaEventDestroy(begin));
	CUDA_TRY(cudaEventDestroy(end));
	return true;
}

static bool
choose_algorithm(LlmCuda *cuda, GemmChoice *choice, const Product *product,
				 LlmError *err)
{
	float best_ms = FLT_MAX;
	float own_ms = FLT_MAX;
	int best = 0;

	if (product->n_rows <= SKINNY_MAX_ROWS &&
		!time_candidate(cuda, choice, product, OWN, &own_ms, err))
		return false;
	for (int i = 0; i < choice->n_candidates; i++)
	{
		float ms;

		if (!time_candidate(cuda, choice, product, i, &ms, err))
			return false;
		if (ms < best_ms)
		{
			best_ms = ms;
			best = i;
		}
	}
	choice->candidates[0] = choice->candidates[best];
	choice->is_own = own_ms < FLT_MAX && own_ms <= best_ms + EARLY_START_MS;
	choice->is_chosen = true;
	cuda_algorithms_keep(cuda, choice);
	return true;
}

static bool
is_choice_for(const GemmChoice *choice, int32_t row_class,
			  const Product *product)
{
	return choice->row_class == row_class && choice->n_out == product->n_out &&
		   choice->n_cols == product->n_cols &&
		   choice->out_stride == product->out_stride &&
		   choice->out_is_f32 == product->out_is_f32;
}

/* Made before, or now, or with the first product that may be timed. */
static bool
find_algorithm(LlmCuda *cuda, GemmChoice *choice, const Product *product,
			   LlmError *err)
{
	cuda_algorithms_recall(cuda, choice);
	if (choice->is_chosen)
		return true;
	return cuda->options.deterministic
			   ? gemm_choose_fixed(cuda, choice, product->weight, err)
			   : gemm_find_candidates(cuda, choice, err);
}

static GemmChoice *
find_choice(LlmCuda *cuda, const Product *product, LlmError *err)
{
	int32_t row_class = choice_class(cuda, product->n_rows);
	GemmChoice *choice;

	for (int i = 0; i < cuda->n_choices; i++)
	{
		if (is_choice_for(&cuda->choices[i], row_class, product))
			return &cuda->choices[i];
	}
	/* a full table forgets: it fills only with very many different shapes */
	if (cuda->n_choices == MAX_CHOICES)
	{
		for (int i = 0; i < MAX_CHOICES; i++)
			free_choice(&cuda->choices[i]);
		cuda->n_choices = 0;
	}
	choice = &cuda->choices[cuda->n_choices++];
	choice->row_class = row_class;
	choice->n_rows = product->n_rows;
	choice->n_out = product->n_out;
	choice->n_cols = product->n_cols;
	choice->out_stride = product->out_stride;
	choice->out_is_f32 = product->out_is_f32;
	if (describe(choice, err) && find_algorithm(cuda, choice, product, err))
		return choice;
	free_choice(choice);
	cuda->n_choices--;
	return NULL;
}

static bool
multiply_dense(LlmCuda *cuda, const Product *product, LlmError *err)
{
	GemmChoice *choice = find_choice(cuda, product, err);

	if (choice == NULL || !gemm_set_rows(choice, product->n_rows, err))
		return false;
	if (!choice->is_chosen && !cuda->is_capturing &&
		!choose_algorithm(cuda, choice, product, err))
		return false;
	if (choice->is_own)
		return cuda->options.deterministic
				   ? cuda_tile_product(cuda, product, err)
				   : multiply_few(cuda, product, err);
	CUBLAS_TRY(gemm_run(cuda, choice, product, 0));
	return true;
}

/* ------------------------------------------------------------------------
 * What cuBLASLt does not take: odd shapes, f32 and f16 weights
 * ------------------------------------------------------------------------
 */
#define PLAIN_TILE 16

static __global__ void
plain_product(Product p)
{
	__shared__ float xs[PLAIN_TILE][PLAIN_TILE + 1];
	__shared__ float ws[PLAIN_TILE][PLAIN_TILE + 1];
	const int tx = (int) threadIdx.x;
	const int ty = (int) threadIdx.y;
	int64_t row = (int64_t) blockIdx.x * PLAIN_TILE + ty;
	int64_t out = (int64_t) blockIdx.y * PLAIN_TILE + tx;
	int64_t w_row = (int64_t) blockIdx.y * PLAIN_TILE + ty;
	float sum = 0;

	for (int64_t first = 0; first < p.n_cols; first += PLAIN_TILE)
	{
		int64_t col = first + tx;

		xs[ty][tx] =
			row < p.n_rows && col < p.n_cols
				? __bfloat162float(((const bf16 *) p.x)[row * p.n_cols + col])
				: 0;
		ws[ty][tx] = w_row < p.n_out && col < p.n_cols
						 ? load_float(p.weight, p.dtype, w_row * p.n_cols + col)
						 : 0;
		__syncthreads();
#pragma unroll
		for (int k = 0; k < PLAIN_TILE; k++)
			sum += xs[ty][k] * ws[tx][k];
		__syncthreads();
	}
	if (row >= p.n_rows || out >= p.n_out)
		return;
	if (p.out_is_f32)
		((float *) p.out)[row * p.out_stride + out] = sum;
	else
		((bf16 *) p.out)[row * p.out_stride + out] = __float2bfloat16(sum);
}

static bool
multiply_plain(LlmCuda *cuda, const Product *product, LlmError *err)
{
	dim3 grid((unsigned) ceil_div(product->n_rows, PLAIN_TILE),
			  (unsigned) ceil_div(product->n_out, PLAIN_TILE));

	plain_product<<<grid, dim3(PLAIN_TILE, PLAIN_TILE), 0, cuda->stream>>>(
		*product);
	return cuda_launched("plain product", err);
}

/* ------------------------------------------------------------------------
 * Biases
 * ------------------------------------------------------------------------
 */
static __global__ void
add_bias_rows(void *out, int64_t out_stride, bool out_is_f32, LlmVector bias)
{
	int64_t i = (int64_t) blockIdx.y * blockDim.x + threadIdx.x;
	int64_t at = (int64_t) blockIdx.x * out_stride + i;

	if (i >= bias.n)
		return;
	if (out_is_f32)
		((float *) out)[at] += load_float(bias.data, bias.dtype, i);
	else
		((bf16 *) out)[at] =
			__float2bfloat16(__bfloat162float(((bf16 *) out)[at]) +
							 load_float(bias.data, bias.dtype, i));
}

bool
cuda_add_biases(LlmCuda *cuda, const LlmLinearArgs *args, LlmError *err)
{
	for (int i = 0; i < args->n_parts; i++)
	{
		const LlmVector *bias = &args->part[i].bias;
		dim3 grid((unsigned) args->n_rows, (unsigned) ceil_div(bias->n, 256));

		if (bias->data == NULL)
			continue;
		add_bias_rows<<<grid, 256, 0, cuda->stream>>>(args->part[i].out,
													  args->part[i].out_stride,
													  args->out_is_f32, *bias);
		if (!cuda_launched("bias", err))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * The operation
 * ------------------------------------------------------------------------
 */
static size_t
out_bytes(const Product *product)
{
	return product->out_is_f32 ? sizeof(float) : sizeof(bf16);
}

/* Does the next part continue where the product ends? */
static bool
can_join(const Product *product, const LlmLinearArgs *args, int i)
{
	const LlmMatrix *weight = &args->part[i].weight;

	return weight->dtype == product->dtype &&
		   args->part[i].out_stride == product->out_stride &&
		   (const char *) weight->data ==
			   (const char *) product->weight +
				   (size_t) (product->n_out * product->n_cols) *
					   llm_dtype_bytes(product->dtype) &&
		   (const char *) args->part[i].out ==
			   (const char *) product->out +
				   (size_t) product->n_out * out_bytes(product);
}

/* cuBLAS and the skinny kernel want what is aligned to 16 bytes. */
static bool
is_regular(const Product *product)
{
	uintptr_t bits = (uintptr_t) product->x | (uintptr_t) product->weight |
					 (uintptr_t) product->out;

	return product->dtype == LLM_DTYPE_BF16 && bits % 16 == 0 &&
		   product->n_cols % 32 == 0 && product->n_out % 8 == 0 &&
		   product->out_stride % 8 == 0;
}

static bool
multiply_product(LlmCuda *cuda, const Product *product, LlmError *err)
{
	bool is_small = product->n_out * product->n_cols < MIN_COMPARED_WEIGHTS;

	if (!is_regular(product))
		return multiply_plain(cuda, product, err);
	if (!cuda->options.deterministic &&
		product->n_rows <= (is_small ? SKINNY_MAX_ROWS : OWN_MAX_ROWS))
		return multiply_few(cuda, product, err);
	return multiply_dense(cuda, product, err);
}

bool
cuda_linear(LlmCompute *compute, const LlmLinearArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	bool has_adapters = cuda_lora_applies(cuda, args);

	if (args->n_rows == 0)
		return true;
	if (!cuda_lora_settle(cuda, err) ||
		(has_adapters && !cuda_lora_shrink(cuda, args, err)))
		return false;
	for (int i = 0; i < args->n_parts;)
	{
		const LlmMatrix *weight = &args->part[i].weight;
		Product product = { args->x };

		assert(llm_dtype_is_float(weight->dtype));
		product.weight = weight->data;
		product.out = args->part[i].out;
		product.out_stride = args->part[i].out_stride;
		product.n_out = weight->n_rows;
		product.n_cols = weight->n_cols;
		product.n_rows = args->n_rows;
		product.dtype = weight->dtype;
		product.out_is_f32 = args->out_is_f32;
		for (i++; i < args->n_parts && can_join(&product, args, i); i++)
			product.n_out += args->part[i].weight.n_rows;
		if (!multiply_product(cuda, &product, err))
			return false;
	}
	if (has_adapters && !cuda_lora_expand(cuda, args, err))
		return false;
	return cuda_add_biases(cuda, args, err);
}
