/*
 * test_deterministic.c
 *	  On a GPU with options.deterministic: rows of matrix products have the same
 *	  bits whatever their number and place.
 *
 * That whole answers do not depend on anything is tested by test_executor.
 *
 * Sizes are those of an 8B model, and small and odd ones.  Everything lies on
 * the device; only what is compared is read.
 *
 * test/ops/test_deterministic.c
 */
#include "test/ops/ops_test.h"

#define MAX_ROWS 600
#define MAX_SEQS 256

static LlmCompute *gpu;

typedef struct Shape
{
	int64_t n_cols;
	int64_t n_out;
	bool out_is_f32;
} Shape;

static const Shape shapes[] = {
	{ 4096, 6144, false },	{ 4096, 4096, false }, { 4096, 28672, false },
	{ 14336, 4096, false }, { 4096, 16384, true }, { 256, 1408, false },
	{ 64, 96, false },		{ 100, 37, false },
};

static void
need_ok(bool ok, const LlmError *err)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

static void *
device_random(int64_t n, uint64_t sequence, float unit)
{
	LlmError err = { 0 };
	LlmFillNormalArgs args = { .dtype = LLM_DTYPE_BF16,
							   .n = n,
							   .unit = unit / 148,
							   .seed = 7,
							   .sequence = sequence };

	args.dest = gpu->ops->alloc(gpu, (size_t) n * 2, "numbers", &err);
	need_ok(args.dest != NULL && gpu->ops->fill_normal(gpu, &args, &err), &err);
	return args.dest;
}

/* Tell the backend whose tokens come. */
static void
begin_step(bool is_prompt)
{
	static const int32_t zeros[2];
	static const int32_t starts[2] = { 0, 1 };
	static const int32_t ones[1] = { 1 };
	static const int32_t nobody[1] = { -1 };
	LlmStepInputs host = {
		.n_tokens = 1,
		.n_seqs = 1,
		.n_logit_rows = 1,
		.max_blocks_per_seq = 1,
		.max_query_len = 1,
		.max_context_len = 1,
		.is_prompt = is_prompt,
		.token_ids = zeros,
		.positions = zeros,
		.rope_rows = zeros,
		.token_seq = nobody,
		.query_start = starts,
		.context_len = ones,
		.block_tables = zeros,
		.logit_rows = zeros,
	};
	LlmStepInputs device;
	LlmError err = { 0 };

	need_ok(gpu->ops->step_upload(gpu, &host, &device, &err), &err);
}

/* Rows first .. first + n - 1 of x; what comes out, on the host. */
static char *
multiply(const Shape *shape, const char *x, const void *weight, void *out,
		 int32_t first, int32_t n)
{
	LlmLinearArgs args = { .x = x + first * shape->n_cols * 2,
						   .n_rows = n,
						   .n_parts = 1,
						   .out_is_f32 = shape->out_is_f32 };
	size_t n_bytes = (size_t) (n * shape->n_out) * (shape->out_is_f32 ? 4 : 2);
	char *bytes = need(n_bytes);
	LlmError err = { 0 };

	args.part[0].weight =
		(LlmMatrix){ weight, LLM_DTYPE_BF16, shape->n_out, shape->n_cols };
	args.part[0].out = out;
	args.part[0].out_stride = shape->n_out;
	need_ok(gpu->ops->linear(gpu, &args, &err) &&
				gpu->ops->read(gpu, bytes, out, n_bytes, &err),
			&err);
	return bytes;
}

/* Some of the outputs against sums in double. */
static void
check_values(const Shape *shape, const void *x, const void *weight,
			 const char *whole, int32_t n_rows)
{
	enum
	{
		N = 64
	};
	size_t n_bytes = (size_t) shape->n_cols * 2;
	uint16_t *a = need(n_bytes);
	uint16_t *b = need(n_bytes);
	double expected[N];
	float actual[N];
	LlmError err = { 0 };

	for (int i = 0; i < N; i++)
	{
		int64_t row = i == 0 ? n_rows - 1 : random_int(0, n_rows - 1);
		int64_t out =
			i == 0 ? shape->n_out - 1 : random_int(0, (int) shape->n_out - 1);
		int64_t at = row * shape->n_out + out;

		need_ok(
			gpu->ops->read(gpu, a, (const char *) x + row * (int64_t) n_bytes,
						   n_bytes, &err) &&
				gpu->ops->read(gpu, b,
							   (const char *) weight + out * (int64_t) n_bytes,
							   n_bytes, &err),
			&err);
		expected[i] = 0;
		for (int64_t k = 0; k < shape->n_cols; k++)
			expected[i] += (double) llm_bf16_to_float(a[k]) *
						   (double) llm_bf16_to_float(b[k]);
		actual[i] = shape->out_is_f32
						? ((const float *) whole)[at]
						: llm_bf16_to_float(((const uint16_t *) whole)[at]);
	}
	path_nmse = CUDA_NMSE;
	CHECK_NMSE(actual, expected, N, CUDA_NMSE, "%lld x %lld",
			   (long long) shape->n_cols, (long long) shape->n_out);
	free(a);
	free(b);
}

static void
check_shape(const Shape *shape, bool is_prompt)
{
	static const int32_t parts[][2] = { { 0, 1 },	 { 5, 1 },	 { 3, 7 },
										{ 16, 16 },	 { 17, 33 }, { 0, 64 },
										{ 64, 100 }, { 1, 255 }, { 40, 513 } };
	int32_t most = is_prompt ? MAX_ROWS : MAX_SEQS;
	size_t row_bytes = (size_t) shape->n_out * (shape->out_is_f32 ? 4 : 2);
	void *x = device_random(MAX_ROWS * shape->n_cols, 1, 1.0f);
	void *weight = device_random(shape->n_out * shape->n_cols, 2, 0.02f);
	LlmError err = { 0 };
	void *out =
		gpu->ops->alloc(gpu, (size_t) MAX_ROWS * row_bytes, "outputs", &err);
	char *whole;

	need_ok(out != NULL, &err);
	begin_step(is_prompt);
	whole = multiply(shape, x, weight, out, 0, most);
	check_values(shape, x, weight, whole, most);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
	{
		int32_t first = parts[i][0];
		int32_t n = parts[i][1];
		char *some;

		if (first + n > most)
			continue;
		some = multiply(shape, x, weight, out, first, n);
		if (memcmp(some, whole + (size_t) first * row_bytes,
				   (size_t) n * row_bytes) != 0)
			CHECK_FAIL("%lld x %lld: rows %d .. %d differ %s",
					   (long long) shape->n_cols, (long long) shape->n_out,
					   first, first + n - 1,
					   is_prompt ? "in a prompt" : "in a decode step");
		free(some);
	}
	free(whole);
	gpu->ops->free(gpu, x);
	gpu->ops->free(gpu, weight);
	gpu->ops->free(gpu, out);
}

static void
rows_of_products_are_alike(void)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
	{
		check_shape(&shapes[i], false);
		check_shape(&shapes[i], true);
	}
}

/* False: there is no GPU. */
static bool
open_gpu(const char *isa, LlmError *err)
{
	LlmComputeOptions options = {
		.precision = LLM_DTYPE_BF16,
		.max_rows = MAX_ROWS,
		.max_cols = 14336,
		.max_seqs = MAX_SEQS,
		.max_context_len = 4096,
		.max_heads = 32,
		.max_vocab = 128256,
		.deterministic = true,
		.enforce_eager = true,
		.isa = isa,
	};

	gpu = llm_compute_cuda_load(&options, err);
	if (gpu == NULL && err->code == LLM_ERROR_UNAVAILABLE)
		return false;
	need_ok(gpu != NULL, err);
	return true;
}

int
main(void)
{
	/* what is fastest, and then own kernels alone */
	static const char *const paths[] = { NULL, "own" };
	LlmError err = { 0 };

	for (int i = 0; i < 2; i++)
	{
		if (!open_gpu(paths[i], &err))
		{
			unit_test_skip("rows_of_products_are_alike", err.message);
			continue;
		}
		RUN_TEST(rows_of_products_are_alike);
		gpu->ops->close(gpu);
	}
	return unit_test_finish();
}
