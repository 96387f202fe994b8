/*
 * cuda_linear.cuh
 *	  What the files of matrix products share: products, and the algorithms
 *	  chosen for them.
 *
 * cuda/cuda_linear.cuh
 */
#ifndef LLM_CUDA_LINEAR_CUH
#define LLM_CUDA_LINEAR_CUH

#include "cuda/cuda_internal.cuh"

#define N_HEURISTICS 8
#define MAX_CANDIDATES (4 * N_HEURISTICS)

/* Classes of row counts where bits must not depend on these. */
#define CLASS_PROMPTS (-1)
#define CLASS_OUTPUTS (-2)

/* A product of one or more joined parts. */
typedef struct Product
{
	const void *x;
	const void *weight;
	void *out;
	int64_t out_stride;
	int64_t n_out;
	int64_t n_cols;
	int32_t n_rows;
	LlmDtype dtype; /* of the weight */
	bool out_is_f32;
} Product;

/* One shape's descriptors and its algorithm. */
struct GemmChoice
{
	int32_t row_class;
	int32_t n_rows; /* of the layouts */
	int64_t n_out;
	int64_t n_cols;
	int64_t out_stride;
	bool out_is_f32;
	bool is_chosen; /* the best of the candidates is candidates[0] ... */
	bool is_own;	/* ... or the own kernel */
	int n_candidates;
	cublasLtMatmulHeuristicResult_t candidates[MAX_CANDIDATES];
	cublasLtMatmulDesc_t op;
	cublasLtMatrixLayout_t weight;
	cublasLtMatrixLayout_t x;
	cublasLtMatrixLayout_t out;
};

#define CUBLAS_TRY(call)                                             \
	do                                                               \
	{                                                                \
		cublasStatus_t status_ = (call);                             \
		if (status_ != CUBLAS_STATUS_SUCCESS)                        \
			return llm_error_set(err, LLM_ERROR_INTERNAL,            \
								 "cuBLASLt failed in %s: %s", #call, \
								 cublasLtGetStatusString(status_));  \
	} while (0)

/* Split sums are added up there: where order counts there is none. */
static inline size_t
gemm_workspace_bytes(const LlmCuda *cuda)
{
	return cuda->options.deterministic ? 0 : WORKSPACE_BYTES;
}

extern bool gemm_set_rows(GemmChoice *choice, int32_t n_rows, LlmError *err);

/* Append what cuBLASLt suggests for the choice's number of rows. */
extern bool
gemm_find_candidates(LlmCuda *cuda, GemmChoice *choice, LlmError *err);

/* By candidate i; the number of rows is set. */
extern cublasStatus_t gemm_run(LlmCuda *cuda, const GemmChoice *choice,
							   const Product *product, int i);

/*
 * cuda_linear_fixed.cu: find an algorithm that gives a row the same bits
 * whatever the number of rows, and the row's place among them.
 */
extern bool gemm_choose_fixed(LlmCuda *cuda, GemmChoice *choice,
							  const void *weight, LlmError *err);

/* cuda_linear_tile.cu: an own kernel of which the same is true. */
extern bool
cuda_tile_product(LlmCuda *cuda, const Product *product, LlmError *err);

/*
 * cuda_algorithms.cu: choices of earlier processes.  A file that cannot be read
 * or written is as good as none.
 */
extern void cuda_algorithms_open(LlmCuda *cuda);
extern void cuda_algorithms_close(LlmCuda *cuda);
/* The choice is made if it was made before: by the same key, and valid. */
extern void cuda_algorithms_recall(LlmCuda *cuda, GemmChoice *choice);
extern void cuda_algorithms_keep(LlmCuda *cuda, const GemmChoice *choice);

#endif /* LLM_CUDA_LINEAR_CUH */
