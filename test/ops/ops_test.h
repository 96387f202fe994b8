/*
 * ops_test.h
 *	  What the tests of the compute operations share: repeatable numbers,
 *	  backends on every path of this machine, and the error measure.
 *
 * Inputs are compared with naive loops in double.  The measure is the
 * normalized mean squared error, |actual - expected|^2 / |expected|^2: its
 * root is the error relative to a typical output, which is what the next
 * operation sees; single outputs near zero have no meaning of their own.
 *
 * test/ops/ops_test.h
 */
#ifndef LLM_OPS_TEST_H
#define LLM_OPS_TEST_H

#include <math.h>
#include <unistd.h>

#include "src/common/util/half_float.h"
#include "src/engine/compute/compute.h"
#include "test/ops/cuda_mirror.h"
#include "test/unit/unit_test.h"

/* The CPU's paths, and then the GPU. */
#define N_ISAS 6
#define N_PATHS 7

static const char *const isa_names[N_PATHS] = {
	"portable", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16", "cuda"
};

/* Every float operation rounds by 2^-24; sums of thousands stay below 1e-6. */
#define F32_NMSE 1e-12

/*
 * A GPU rounds activations to bf16: 2^-8 at most of an input and of an output,
 * which is all of the error where there is a single number.
 */
#define CUDA_NMSE 6.2e-5

/* What errors may be at least on the path under test. */
static double path_nmse;

static uint64_t random_state = 1;

static inline uint32_t
random_u32(void)
{
	uint64_t z = (random_state += 0x9E3779B97F4A7C15u);

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return (uint32_t) (z >> 32);
}

/* In (-1, 1). */
static inline float
random_float(void)
{
	return (float) ((int32_t) random_u32() | 1) * 4.65661287e-10f;
}

static inline int
random_int(int low, int high)
{
	return low + (int) (random_u32() % (uint32_t) (high - low + 1));
}

static inline void
fill_random(float *x, int64_t n, float scale)
{
	for (int64_t i = 0; i < n; i++)
		x[i] = random_float() * scale;
}

static inline void *
need(size_t n_bytes)
{
	void *p = calloc(1, n_bytes == 0 ? 1 : n_bytes);

	if (p == NULL)
		abort();
	return p;
}

/* A tensor as stored and as the numbers it stands for. */
typedef struct Tensor
{
	char *block; /* to free */
	void *data;	 /* as stored, possibly 2-byte aligned only */
	double *value;
	LlmDtype dtype;
	int64_t n;
} Tensor;

static inline Tensor
tensor_random(int64_t n, LlmDtype dtype, float scale, size_t misalign)
{
	size_t size = llm_dtype_bytes(dtype);
	Tensor t = { .dtype = dtype, .n = n };

	t.block = need((size_t) n * size + misalign);
	t.data = t.block + misalign;
	t.value = need((size_t) n * sizeof(double));
	for (int64_t i = 0; i < n; i++)
	{
		float f = random_float() * scale;
		uint16_t half;
		char *at = (char *) t.data + (size_t) i * size;

		if (dtype == LLM_DTYPE_F32)
			memcpy(at, &f, 4);
		else if (dtype == LLM_DTYPE_F16)
		{
			half = llm_float_to_f16(f);
			memcpy(at, &half, 2);
			f = llm_f16_to_float(half);
		}
		else
		{
			half = llm_float_to_bf16(f);
			memcpy(at, &half, 2);
			f = llm_bf16_to_float(half);
		}
		t.value[i] = (double) f;
	}
	return t;
}

static inline void
tensor_free(Tensor *t)
{
	free(t->block);
	free(t->value);
}

static inline LlmVector
tensor_vector(const Tensor *t)
{
	return (LlmVector){ .data = t->data, .dtype = t->dtype, .n = t->n };
}

static inline double
nmse(const float *actual, const double *expected, int64_t n)
{
	double error = 0;
	double norm = 0;

	for (int64_t i = 0; i < n; i++)
	{
		double d = (double) actual[i] - expected[i];

		error += d * d;
		norm += expected[i] * expected[i];
	}
	if (error == 0)
		return 0;
	return norm > 0 ? error / norm : INFINITY;
}

/* A NaN fails too. */
#define CHECK_NMSE(actual, expected, n, bound, ...)            \
	do                                                         \
	{                                                          \
		double e_ = nmse(actual, expected, n);                 \
		double bound_ = fmax(bound, path_nmse);                \
		if (!(e_ <= bound_))                                   \
		{                                                      \
			CHECK_FAIL("error %.3g exceeds %.3g", e_, bound_); \
			fprintf(stderr, "    in " __VA_ARGS__);            \
			fputc('\n', stderr);                               \
		}                                                      \
	} while (0)

static inline LlmComputeOptions
test_options(const char *isa, LlmDtype precision, int n_threads)
{
	return (LlmComputeOptions){
		.precision = precision,
		.n_threads = n_threads,
		.max_rows = 2048,
		.max_cols = 16384,
		.max_seqs = 64,
		.max_context_len = 8192,
		.max_heads = 80,
		.max_vocab = 140000,
		.max_experts = 64,
		.max_experts_per_token = 8,
		.max_expert_dim = 256,
		/* less than some contexts take */
		.kv_expand_bytes = (size_t) 256 << 10,
		.max_loras = 64,
		.max_lora_rank = 64,
		.isa = isa,
	};
}

/* NULL where this processor lacks the path. */
static inline LlmCompute *
test_open(const char *isa, LlmDtype precision, int n_threads)
{
	LlmComputeOptions options = test_options(isa, precision, n_threads);
	LlmError err = { 0 };
	bool is_cuda = isa == isa_names[N_ISAS];
	LlmCompute *compute = is_cuda ? mirror_open(&options, &err)
								  : llm_compute_cpu_open(&options, &err);

	path_nmse = is_cuda ? CUDA_NMSE : 0;
	if (compute == NULL && err.code != LLM_ERROR_UNSUPPORTED &&
		err.code != LLM_ERROR_UNAVAILABLE)
		CHECK_FAIL("open: %s", err.message);
	return compute;
}

/* A skipped GPU on a machine that has one would hide that nothing is tested. */
static inline void
skip_cuda(void)
{
	LlmComputeOptions options = test_options(NULL, LLM_DTYPE_F32, 1);
	LlmError err = { 0 };
	LlmCompute *compute = mirror_open(&options, &err);

	if (compute != NULL)
		compute->ops->close(compute);
	else if (access("/dev/nvidia0", F_OK) == 0)
		CHECK_FAIL("a GPU is here, but %s", err.message);
	else
		unit_test_skip("cuda", err.message);
}

/* Say once which paths this machine cannot test. */
static inline void
skip_missing_isas(void)
{
	for (int i = 0; i < N_ISAS; i++)
	{
		LlmCompute *compute = test_open(isa_names[i], LLM_DTYPE_F32, 1);

		if (compute == NULL)
			unit_test_skip(isa_names[i], "not supported by this machine");
		else
			compute->ops->close(compute);
	}
	skip_cuda();
}

/* The loops over the CPU's paths, or all: body sees "compute" and "isa". */
#define FOR_EACH_ISA(precision, n_threads) \
	FOR_EACH_OF(N_ISAS, precision, n_threads)
#define FOR_EACH_PATH(precision, n_threads) \
	FOR_EACH_OF(N_PATHS, precision, n_threads)
#define FOR_EACH_OF(n_paths, precision, n_threads)                          \
	for (int isa_ = 0; isa_ < (n_paths); isa_++)                            \
		for (LlmCompute *compute =                                          \
				 test_open(isa_names[isa_], precision, n_threads);          \
			 compute != NULL; compute->ops->close(compute), compute = NULL) \
			for (const char *isa = isa_names[isa_]; isa != NULL; isa = NULL)

#endif /* LLM_OPS_TEST_H */
