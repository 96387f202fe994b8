/*
 * cuda_linear_fixed.cu
 *	  One algorithm for a weight's shape, whatever the number of rows.
 *
 * With options.deterministic a row's bits must depend neither on how many rows
 * there are nor on its place among them.  cuBLASLt promises nothing of the
 * kind, so its algorithms are tried: those without split sums are run over
 * made-up rows, all at once and in parts, and only one whose results are the
 * same bit by bit is used.  Of these the best on the whole is taken, for few
 * and for many rows: the sum of its times, each divided by the best one.  The
 * own kernel of cuda_linear_tile.cu is a candidate, too.
 *
 * Rows and results of the trials lie in memory that is taken for them where
 * there is some (choices are made before the first request), or else in the
 * workspace, which algorithms without split sums do not need.
 *
 * cuda/cuda_linear_fixed.cu
 */
#include "cuda/cuda_linear.cuh"

#include <float.h>
#include <string.h>

#define OWN (-1)
#define NONE (-2)
#define MAX_PROBES 4
#define N_TRIALS 3
#define COUNT_THREADS 256
#define MAX_TRIAL_BYTES ((size_t) 320 << 20)

/* Numbers of rows that count. */
static const int32_t output_probes[MAX_PROBES] = { 1, 16, 64, 256 };
static const int32_t prompt_probes[MAX_PROBES] = { 16, 128, 512, 2048 };

/* What trials work on. */
typedef struct Trial
{
	LlmCuda *cuda;
	GemmChoice *choice;
	const void *weight;
	char *memory;	/* taken for it; NULL: it is the workspace */
	bf16 *x;		/* [most_rows, n_cols] */
	char *all;		/* [most_rows, n_out] results of all rows at once */
	char *some;		/* likewise: of some of them */
	int32_t *count; /* of words that differ */
	int32_t most_rows;
	int64_t out_bytes; /* of a row */
	int n_probes;
	int32_t probes[MAX_PROBES];
} Trial;

/* Room for the most rows: the workspace, or more while there is more. */
static size_t
take_room(Trial *trial, size_t wanted)
{
	if (wanted > MAX_TRIAL_BYTES)
		wanted = MAX_TRIAL_BYTES;
	if (wanted > WORKSPACE_BYTES &&
		cudaMalloc((void **) &trial->memory, wanted) == cudaSuccess)
		return wanted;
	trial->memory = NULL;
	(void) cudaGetLastError();
	return WORKSPACE_BYTES;
}

static bool
prepare_trial(Trial *trial, LlmError *err)
{
	GemmChoice *choice = trial->choice;
	const int32_t *probes =
		choice->row_class == CLASS_PROMPTS ? prompt_probes : output_probes;
	int32_t most = probes[MAX_PROBES - 1];
	int64_t row_bytes;
	size_t room;
	char *base;
	LlmFillNormalArgs fill = {};

	trial->out_bytes = choice->n_out * (choice->out_is_f32 ? 4 : 2);
	row_bytes = choice->n_cols * 2 + 2 * trial->out_bytes;
	/* parts begin at multiples of 256 bytes */
	room = take_room(trial, (size_t) (most * row_bytes) + 4 * 256);
	trial->most_rows = (int32_t) (((int64_t) room - 4 * 256) / row_bytes);
	if (trial->most_rows > most)
		trial->most_rows = most;
	for (int i = 0; i < MAX_PROBES && probes[i] <= trial->most_rows; i++)
		trial->probes[trial->n_probes++] = probes[i];
	if (trial->n_probes == 0)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "a matrix of %lld x %lld is too large for "
							 "deterministic products",
							 (long long) choice->n_out,
							 (long long) choice->n_cols);
	base = trial->memory != NULL ? trial->memory : trial->cuda->workspace;
	trial->count = (int32_t *) base;
	trial->x = (bf16 *) (base + 256);
	trial->all =
		(char *) trial->x +
		ceil_div((int64_t) trial->most_rows * choice->n_cols * 2, 256) * 256;
	trial->some =
		trial->all + ceil_div(trial->most_rows * trial->out_bytes, 256) * 256;
	fill.dest = trial->x;
	fill.dtype = LLM_DTYPE_BF16;
	fill.n = (int64_t) trial->most_rows * choice->n_cols;
	fill.unit = 1.0f / 148;
	fill.seed = 1;
	return cuda_fill_normal(&trial->cuda->base, &fill, err);
}

/* Rows first .. first + n_rows - 1; false where the candidate does not run. */
static bool
run_rows(const Trial *trial, int candidate, int32_t first, int32_t n_rows,
		 char *out)
{
	GemmChoice *choice = trial->choice;
	Product product = { trial->x + first * choice->n_cols, trial->weight };
	LlmError ignored;

	product.out = out;
	product.out_stride = choice->n_out;
	product.n_out = choice->n_out;
	product.n_cols = choice->n_cols;
	product.n_rows = n_rows;
	product.dtype = LLM_DTYPE_BF16;
	product.out_is_f32 = choice->out_is_f32;
	if (candidate == OWN)
		return cuda_tile_product(trial->cuda, &product, &ignored);
	return gemm_set_rows(choice, n_rows, &ignored) &&
		   gemm_run(trial->cuda, choice, &product, candidate) ==
			   CUBLAS_STATUS_SUCCESS;
}

static __global__ void
count_differences(const uint32_t *a, const uint32_t *b, int64_t n,
				  int32_t *count)
{
	int64_t i = (int64_t) blockIdx.x * COUNT_THREADS + threadIdx.x;

	if (i < n && a[i] != b[i])
		atomicAdd(count, 1);
}

/* Is it the same for a part of the rows alone? */
static bool
compare_part(const Trial *trial, int candidate, int32_t first, int32_t n_rows,
			 bool *is_same, LlmError *err)
{
	LlmCuda *cuda = trial->cuda;
	int64_t n_words = n_rows * trial->out_bytes / 4;
	int32_t n_different = 0;

	*is_same = false;
	CUDA_TRY(cudaMemsetAsync(
		trial->some, 0xff, (size_t) (n_rows * trial->out_bytes), cuda->stream));
	if (!run_rows(trial, candidate, first, n_rows, trial->some))
		return true;
	CUDA_TRY(cudaMemsetAsync(trial->count, 0, sizeof(int32_t), cuda->stream));
	count_differences<<<(unsigned) ceil_div(n_words, COUNT_THREADS),
						COUNT_THREADS, 0, cuda->stream>>>(
		(const uint32_t *) (trial->all + first * trial->out_bytes),
		(const uint32_t *) trial->some, n_words, trial->count);
	if (!cuda_launched("comparison", err) ||
		!cuda_read(&cuda->base, &n_different, trial->count, sizeof(n_different),
				   err))
		return false;
	*is_same = n_different == 0;
	return true;
}

static bool
is_fixed(const Trial *trial, int candidate, bool *result, LlmError *err)
{
	const int32_t most = trial->most_rows;
	const int32_t parts[][2] = { { 0, 1 },
								 { most > 1 ? 1 : 0, 1 },
								 { most / 2, most > 5 ? 3 : 1 },
								 { most / 3, most / 2 + 1 - most / 3 },
								 { most - most / 4 - 1, most / 4 + 1 } };

	*result = run_rows(trial, candidate, 0, most, trial->all);
	for (size_t i = 0; *result && i < sizeof(parts) / sizeof(parts[0]); i++)
		if (!compare_part(trial, candidate, parts[i][0], parts[i][1], result,
						  err))
			return false;
	return true;
}

/* Best of some runs; FLT_MAX where it does not run. */
static bool
time_rows(const Trial *trial, int candidate, int32_t n_rows, float *best_ms,
		  LlmError *err)
{
	LlmCuda *cuda = trial->cuda;
	cudaEvent_t begin;
	cudaEvent_t end;

	*best_ms = FLT_MAX;
	CUDA_TRY(cudaEventCreate(&begin));
	CUDA_TRY(cudaEventCreate(&end));
	for (int i = 0; i <= N_TRIALS; i++)
	{
		float ms;

		CUDA_TRY(cudaEventRecord(begin, cuda->stream));
		if (!run_rows(trial, candidate, 0, n_rows, trial->some))
			break;
		CUDA_TRY(cudaEventRecord(end, cuda->stream));
		CUDA_TRY(cudaEventSynchronize(end));
		CUDA_TRY(cudaEventElapsedTime(&ms, begin, end));
		if (i > 0 && ms < *best_ms)
			*best_ms = ms;
	}
	CUDA_TRY(cudaEventDestroy(begin));
	CUDA_TRY(cudaEventDestroy(end));
	return true;
}

/* Does it add up parts of a row's sum, by what it says itself? */
static bool
is_split(const cublasLtMatmulAlgo_t *algo)
{
	int32_t n_splits = 0;
	uint32_t scheme = 0;
	size_t n_written;

	(void) cublasLtMatmulAlgoConfigGetAttribute(
		algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &n_splits, sizeof(n_splits),
		&n_written);
	(void) cublasLtMatmulAlgoConfigGetAttribute(
		algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof(scheme),
		&n_written);
	return n_splits > 1 || scheme != CUBLASLT_REDUCTION_SCHEME_NONE;
}

/* What cuBLASLt suggests for each of the numbers of rows, once. */
static bool
gather_candidates(Trial *trial, LlmError *err)
{
	GemmChoice *choice = trial->choice;
	LlmError ignored;
	int n_kept = 0;

	if (trial->cuda->own_products)
		return true;
	for (int i = 0; i < trial->n_probes; i++)
	{
		if (!gemm_set_rows(choice, trial->probes[i], err))
			return false;
		/* the own kernel is there where it has none */
		(void) gemm_find_candidates(trial->cuda, choice, &ignored);
	}
	for (int i = 0; i < choice->n_candidates; i++)
	{
		bool is_known = is_split(&choice->candidates[i].algo);

		for (int k = 0; k < n_kept && !is_known; k++)
			is_known =
				memcmp(&choice->candidates[k].algo, &choice->candidates[i].algo,
					   sizeof(cublasLtMatmulAlgo_t)) == 0;
		if (!is_known)
			choice->candidates[n_kept++] = choice->candidates[i];
	}
	choice->n_candidates = n_kept;
	return true;
}

/* times[candidate + 1][probe]; those that may not be used have FLT_MAX. */
static bool
time_all(const Trial *trial, float times[MAX_CANDIDATES + 1][MAX_PROBES],
		 LlmError *err)
{
	for (int c = OWN; c < trial->choice->n_candidates; c++)
	{
		bool is_usable;

		if (!is_fixed(trial, c, &is_usable, err))
			return false;
		for (int i = 0; i < trial->n_probes; i++)
		{
			times[c + 1][i] = FLT_MAX;
			if (is_usable &&
				!time_rows(trial, c, trial->probes[i], &times[c + 1][i], err))
				return false;
		}
	}
	return true;
}

static int
best_of(const Trial *trial, const float times[MAX_CANDIDATES + 1][MAX_PROBES])
{
	float best_score = FLT_MAX;
	int best = NONE;

	for (int c = OWN; c < trial->choice->n_candidates; c++)
	{
		float score = 0;

		for (int i = 0; i < trial->n_probes; i++)
		{
			float least = FLT_MAX;

			for (int k = OWN; k < trial->choice->n_candidates; k++)
				least = times[k + 1][i] < least ? times[k + 1][i] : least;
			score = times[c + 1][i] == FLT_MAX
						? FLT_MAX
						: score + times[c + 1][i] / least;
			if (score == FLT_MAX)
				break;
		}
		if (score < best_score)
		{
			best_score = score;
			best = c;
		}
	}
	return best;
}

static bool
choose(Trial *trial, LlmError *err)
{
	GemmChoice *choice = trial->choice;
	float times[MAX_CANDIDATES + 1][MAX_PROBES];
	int best;

	if (!prepare_trial(trial, err) || !gather_candidates(trial, err) ||
		!time_all(trial, times, err))
		return false;
	best = best_of(trial, times);
	if (best == NONE)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "no algorithm gives %lld outputs of %lld inputs "
							 "the same bits for any number of rows",
							 (long long) choice->n_out,
							 (long long) choice->n_cols);
	choice->is_own = best == OWN;
	if (best != OWN)
		choice->candidates[0] = choice->candidates[best];
	choice->n_candidates = best != OWN;
	choice->is_chosen = true;
	return true;
}

bool
gemm_choose_fixed(LlmCuda *cuda, GemmChoice *choice, const void *weight,
				  LlmError *err)
{
	Trial trial = { cuda, choice, weight };
	uint64_t stride = (uint64_t) choice->n_out;
	uint64_t out_stride = (uint64_t) choice->out_stride;
	bool ok;

	assert(!cuda->is_capturing);
	CUBLAS_TRY(cublasLtMatrixLayoutSetAttribute(
		choice->out, CUBLASLT_MATRIX_LAYOUT_LD, &stride, sizeof(stride)));
	ok = choose(&trial, err);
	(void) cudaFree(trial.memory);
	if (!ok)
		return false;
	CUBLAS_TRY(
		cublasLtMatrixLayoutSetAttribute(choice->out, CUBLASLT_MATRIX_LAYOUT_LD,
										 &out_stride, sizeof(out_stride)));
	cuda_algorithms_keep(cuda, choice);
	return true;
}
