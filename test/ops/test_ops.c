/*
 * test_ops.c
 *	  Matrix products, norms, activations, lookups: every path against naive
 *	  loops in double.
 *
 * test/ops/test_ops.c
 */
#include <stdatomic.h>
#include <unistd.h>

#include "src/engine/compute/cpu_threads.h"
#include "test/ops/ops_test.h"

/* ------------------------------------------------------------------------
 * linear
 * ------------------------------------------------------------------------
 */
typedef struct LinearCase
{
	int n_rows;
	int n_cols;
	int n_out[LLM_LINEAR_MAX_PARTS];
	LlmDtype dtype;
	LlmDtype precision;
	int bias; /* LlmDtype of the biases, -1 none */
	int misalign;
} LinearCase;

#define F32 LLM_DTYPE_F32
#define F16 LLM_DTYPE_F16
#define BF16 LLM_DTYPE_BF16

/* clang-format off */
static const LinearCase linear_cases[] = {
	/* rows cols   outputs        weights precision bias misaligned */
	{    1,    1, {   1,  0, 0 }, F32,  F32,  -1,   0 },
	{    1,   64, {  16,  0, 0 }, F32,  F32,  F32,  0 },
	{    2,   17, {   3,  0, 0 }, F32,  F32,  -1,   2 },
	{    3,  100, {  37,  5, 1 }, F32,  F32,  F16,  0 },
	{   70,   33, {  13,  0, 0 }, F32,  F32,  -1,   4 },
	{    5, 8192, {   9,  0, 0 }, F32,  F32,  -1,   0 },
	{    4,  256, {  40,  0, 0 }, F32,  BF16, -1,   0 },
	{    1,    1, {   1,  0, 0 }, F16,  F32,  -1,   0 },
	{    1,  128, {  24,  8, 8 }, F16,  F32,  F16,  2 },
	{    7,   31, {  11,  0, 0 }, F16,  F32,  -1,   0 },
	{   19,  300, {  21,  0, 0 }, F16,  BF16, F32,  6 },
	{    2, 8192, {   5,  0, 0 }, F16,  F32,  -1,   0 },
	{    1,    1, {   1,  0, 0 }, BF16, F32,  -1,   0 },
	{    1,  128, {  24,  8, 8 }, BF16, F32,  BF16, 2 },
	{    6,   31, {  11,  0, 0 }, BF16, F32,  -1,   0 },
	{   13,   97, {   6,  3, 0 }, BF16, F32,  BF16, 6 },
	{   66,  320, {  18,  0, 0 }, BF16, F32,  -1,   0 },
	{    3, 8192, {   7,  0, 0 }, BF16, F32,  -1,   0 },
	{    1,    1, {   1,  0, 0 }, BF16, BF16, -1,   0 },
	{    1,  128, {  24,  8, 8 }, BF16, BF16, BF16, 2 },
	{    6,   31, {  11,  0, 0 }, BF16, BF16, -1,   0 },
	{   12,   97, {   6,  3, 0 }, BF16, BF16, F32,  6 },
	{   65, 2048, {  18,  0, 0 }, BF16, BF16, -1,   0 },
	{    1, 8192, {  67,  0, 0 }, BF16, BF16, -1,   2 },
	{   30,  512, { 130, 33, 1 }, BF16, BF16, BF16, 0 },
};
/* clang-format on */

typedef struct LinearData
{
	float *x;
	Tensor weight[LLM_LINEAR_MAX_PARTS];
	Tensor bias[LLM_LINEAR_MAX_PARTS];
	float *out[LLM_LINEAR_MAX_PARTS];
	LlmLinearArgs args;
} LinearData;

/* Outputs have some unused columns, which must stay as they are. */
static int extra_cols = 3;
#define UNTOUCHED -12345.0f

static LinearData
linear_setup(const LinearCase *c)
{
	LinearData d = { 0 };

	d.x = need((size_t) c->n_rows * (size_t) c->n_cols * sizeof(float));
	fill_random(d.x, (int64_t) c->n_rows * c->n_cols, 1.0f);
	d.args.x = d.x;
	d.args.n_rows = c->n_rows;
	for (int p = 0; p < LLM_LINEAR_MAX_PARTS && c->n_out[p] > 0; p++)
	{
		int64_t stride = c->n_out[p] + extra_cols;

		d.weight[p] = tensor_random((int64_t) c->n_out[p] * c->n_cols, c->dtype,
									1.0f, (size_t) c->misalign);
		d.out[p] = need((size_t) (c->n_rows * stride) * sizeof(float));
		for (int64_t i = 0; i < c->n_rows * stride; i++)
			d.out[p][i] = UNTOUCHED;
		d.args.part[p].weight = (LlmMatrix){ .data = d.weight[p].data,
											 .dtype = c->dtype,
											 .n_rows = c->n_out[p],
											 .n_cols = c->n_cols };
		if (c->bias >= 0)
		{
			d.bias[p] = tensor_random(c->n_out[p], (LlmDtype) c->bias, 1.0f,
									  (size_t) c->misalign);
			d.args.part[p].bias = tensor_vector(&d.bias[p]);
		}
		d.args.part[p].out = d.out[p];
		d.args.part[p].out_stride = stride;
		d.args.n_parts = p + 1;
	}
	return d;
}

static void
linear_free(LinearData *d)
{
	free(d->x);
	for (int p = 0; p < d->args.n_parts; p++)
	{
		tensor_free(&d->weight[p]);
		tensor_free(&d->bias[p]);
		free(d->out[p]);
	}
}

static double
linear_expected(const LinearCase *c, const LinearData *d, int p, int row,
				int col, bool round_x)
{
	double sum = c->bias >= 0 ? d->bias[p].value[col] : 0;

	for (int k = 0; k < c->n_cols; k++)
	{
		float x = d->x[(int64_t) row * c->n_cols + k];

		if (round_x)
			x = llm_bf16_to_float(llm_float_to_bf16(x));
		sum += (double) x * d->weight[p].value[(int64_t) col * c->n_cols + k];
	}
	return sum;
}

static void
check_linear(const LinearCase *c, const LinearData *d, const char *isa)
{
	bool rounds = c->precision == BF16 && c->dtype == BF16 &&
				  strcmp(isa, "avx512bf16") == 0;

	for (int p = 0; p < d->args.n_parts; p++)
	{
		int64_t n = (int64_t) c->n_rows * c->n_out[p];
		int64_t stride = c->n_out[p] + extra_cols;
		float *actual = need((size_t) n * sizeof(float));
		double *exact = need((size_t) n * sizeof(double));
		double *rounded = need((size_t) n * sizeof(double));

		for (int64_t i = 0; i < n; i++)
		{
			int row = (int) (i / c->n_out[p]);
			int col = (int) (i % c->n_out[p]);

			actual[i] = d->out[p][row * stride + col];
			exact[i] = linear_expected(c, d, p, row, col, false);
			rounded[i] = linear_expected(c, d, p, row, col, rounds);
		}
		CHECK_NMSE(actual, rounded, n, F32_NMSE, "%s linear %dx%d to %d, %s",
				   isa, c->n_rows, c->n_cols, c->n_out[p],
				   llm_dtype_name(c->dtype));
		/* rounding x to 8 bits: 2^-9 at most each, 1.3e-6 squared on average,
		 * a single product may have all of it */
		if (rounds)
			CHECK_NMSE(actual, exact, n, 4e-6, "%s linear, rounding", isa);
		for (int64_t i = 0; i < c->n_rows * extra_cols; i++)
			CHECK(d->out[p][i / extra_cols * stride + c->n_out[p] +
							i % extra_cols] == UNTOUCHED);
		free(actual);
		free(exact);
		free(rounded);
	}
}

static void
test_linear(void)
{
	for (size_t i = 0; i < sizeof(linear_cases) / sizeof(linear_cases[0]); i++)
	{
		const LinearCase *c = &linear_cases[i];

		FOR_EACH_PATH(c->precision, 1 + (int) i % 3)
		{
			LinearData d = linear_setup(c);
			LlmError err = { 0 };

			CHECK(compute->ops->linear(compute, &d.args, &err));
			check_linear(c, &d, isa);
			linear_free(&d);
		}
	}
}

/*
 * A row's result has the same bits whatever is computed with it: any number
 * of rows, from any place, with any number of threads.
 */
static void
check_linear_invariance(const LinearCase *c, const char *isa)
{
	LinearData d = linear_setup(c);
	int64_t stride = c->n_out[0] + extra_cols;
	size_t out_bytes = (size_t) (c->n_rows * stride) * sizeof(float);
	float *whole = need(out_bytes);
	LlmError err = { 0 };

	for (int n_threads = 1; n_threads <= 3; n_threads++)
	{
		LlmCompute *compute = test_open(isa, c->precision, n_threads);

		CHECK(compute->ops->linear(compute, &d.args, &err));
		if (n_threads == 1)
			memcpy(whole, d.out[0], out_bytes);
		CHECK(memcmp(whole, d.out[0], out_bytes) == 0);
		for (int n = 1; n < c->n_rows; n++)
		{
			int first = random_int(0, c->n_rows - n);
			LlmLinearArgs args = d.args;

			args.n_rows = n;
			args.x = d.x + (int64_t) first * c->n_cols;
			CHECK(compute->ops->linear(compute, &args, &err));
			if (memcmp(whole + first * stride, d.out[0],
					   (size_t) (n * stride) * sizeof(float)) != 0)
				CHECK_FAIL("%s: rows %d .. %d of %d differ, weights %s", isa,
						   first, first + n - 1, c->n_rows,
						   llm_dtype_name(c->dtype));
		}
		compute->ops->close(compute);
	}
	free(whole);
	linear_free(&d);
}

static void
test_linear_invariance(void)
{
	static const LinearCase cases[] = {
		{ 70, 200, { 21 }, F32, F32, F32, 0 },
		{ 70, 200, { 21 }, F16, F32, F16, 2 },
		{ 70, 200, { 21 }, BF16, F32, -1, 2 },
		{ 70, 200, { 21 }, BF16, BF16, BF16, 2 },
		/* several segments, cut along the columns where rows are many */
		{ 70, 5003, { 5 }, F32, F32, F32, 0 },
		{ 70, 5003, { 5 }, BF16, F32, BF16, 2 },
		{ 70, 5003, { 5 }, BF16, BF16, -1, 0 },
		/* and cut along the rows */
		{ 150, 1025, { 5 }, BF16, F32, -1, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		for (int isa = 0; isa < N_ISAS; isa++)
		{
			LlmCompute *compute =
				test_open(isa_names[isa], cases[i].precision, 1);

			if (compute == NULL)
				continue;
			compute->ops->close(compute);
			check_linear_invariance(&cases[i], isa_names[isa]);
		}
	}
}

/* x rows wider than the cache block: several blocks in one call. */
static void
test_linear_blocks(void)
{
	static const LinearCase c = { 100, 16384, { 3 }, BF16, BF16, -1, 0 };

	FOR_EACH_PATH(c.precision, 2)
	{
		LinearData d = linear_setup(&c);
		LlmError err = { 0 };

		CHECK(compute->ops->linear(compute, &d.args, &err));
		check_linear(&c, &d, isa);
		linear_free(&d);
	}
}

/* Shapes and strides that tensor cores take, from few rows to many. */
static void
test_linear_regular(void)
{
	static const LinearCase cases[] = {
		{ 1, 4096, { 64 }, BF16, BF16, -1, 0 },
		{ 3, 256, { 128, 40, 24 }, BF16, BF16, BF16, 0 },
		{ 8, 2048, { 24 }, BF16, BF16, -1, 0 },
		{ 9, 96, { 200 }, BF16, BF16, F32, 0 },
		{ 16, 1056, { 32, 8 }, BF16, BF16, -1, 0 },
		{ 17, 4096, { 64 }, BF16, BF16, -1, 0 },
		{ 40, 512, { 136, 64 }, BF16, BF16, F16, 0 },
		{ 128, 1024, { 96 }, BF16, BF16, -1, 0 },
	};

	extra_cols = 8;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const LinearCase *c = &cases[i];

		FOR_EACH_PATH(c->precision, 2)
		{
			LinearData d = linear_setup(c);
			LlmError err = { 0 };

			CHECK(compute->ops->linear(compute, &d.args, &err));
			/* twice: the first may have tried several ways */
			CHECK(compute->ops->linear(compute, &d.args, &err));
			check_linear(c, &d, isa);
			linear_free(&d);
		}
	}
	extra_cols = 3;
}

/* Parts of different formats in one call. */
static void
test_linear_mixed_parts(void)
{
	FOR_EACH_ISA(BF16, 2)
	{
		static const LinearCase c = { 5, 70, { 9, 6, 4 }, BF16, F32, -1, 0 };
		LinearData d = linear_setup(&c);
		LlmError err = { 0 };
		LlmDtype dtypes[] = { F32, BF16, F16 };

		for (int p = 0; p < 3; p++)
		{
			int64_t n = 5 * c.n_out[p];
			float *actual = need((size_t) n * sizeof(float));
			double *expected = need((size_t) n * sizeof(double));

			tensor_free(&d.weight[p]);
			d.weight[p] = tensor_random(c.n_out[p] * 70, dtypes[p], 1.0f, 0);
			d.args.part[p].weight.data = d.weight[p].data;
			d.args.part[p].weight.dtype = dtypes[p];
			if (p == 2)
				CHECK(compute->ops->linear(compute, &d.args, &err));
			free(actual);
			free(expected);
		}
		for (int p = 0; p < 3; p++)
		{
			for (int i = 0; i < 5 * c.n_out[p]; i++)
			{
				int row = i / c.n_out[p];
				int col = i % c.n_out[p];
				double e = linear_expected(&c, &d, p, row, col, false);
				float a = d.out[p][row * (c.n_out[p] + extra_cols) + col];

				CHECK(fabs((double) a - e) < (p == 1 ? 0.1 : 1e-4));
			}
		}
		(void) isa;
		linear_free(&d);
	}
}

/* ------------------------------------------------------------------------
 * rms_norm
 * ------------------------------------------------------------------------
 */
static void
check_norm(LlmCompute *compute, const char *isa, int n_rows, int dim,
		   LlmDtype dtype, bool with_residual, float offset)
{
	int64_t n = (int64_t) n_rows * dim;
	Tensor weight = tensor_random(dim, dtype, 1.0f, 2);
	float *x = need((size_t) n * sizeof(float));
	float *residual = need((size_t) n * sizeof(float));
	float *out = need((size_t) n * sizeof(float));
	double *expected = need((size_t) n * sizeof(double));
	double *sums = need((size_t) n * sizeof(double));
	LlmError err = { 0 };
	LlmRmsNormArgs args = {
		.x = x,
		.residual = with_residual ? residual : NULL,
		.weight = tensor_vector(&weight),
		.out = dim % 2 == 0 ? out : x, /* also in place */
		.n_rows = n_rows,
		.dim = dim,
		.eps = 1e-5f,
		.weight_offset = offset,
	};

	fill_random(x, n, 3.0f);
	fill_random(residual, n, 10.0f);
	for (int row = 0; row < n_rows; row++)
	{
		double squares = 0;

		for (int64_t i = (int64_t) row * dim; i < (int64_t) (row + 1) * dim;
			 i++)
		{
			sums[i] =
				with_residual ? (double) (residual[i] + x[i]) : (double) x[i];
			squares += sums[i] * sums[i];
		}
		for (int d = 0; d < dim; d++)
			expected[(int64_t) row * dim + d] =
				sums[(int64_t) row * dim + d] /
				sqrt(squares / dim + (double) args.eps) *
				(weight.value[d] + (double) offset);
	}
	CHECK(compute->ops->rms_norm(compute, &args, &err));
	CHECK_NMSE((float *) args.out, expected, n, F32_NMSE, "%s norm %dx%d", isa,
			   n_rows, dim);
	if (with_residual)
		CHECK_NMSE(residual, sums, n, 0.0, "%s norm's residual", isa);
	tensor_free(&weight);
	free(x);
	free(residual);
	free(out);
	free(expected);
	free(sums);
}

static void
test_rms_norm(void)
{
	static const int dims[] = { 1, 15, 16, 64, 100, 129, 2048, 5000 };

	FOR_EACH_PATH(F32, 2)
	{
		for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++)
		{
			check_norm(compute, isa, 1, dims[i], F32, false, 0);
			check_norm(compute, isa, 1, dims[i], BF16, true, 0);
			check_norm(compute, isa, 19, dims[i], F16, true, 1);
			check_norm(compute, isa, 2, dims[i], BF16, false, 1);
		}
	}
}

/* ------------------------------------------------------------------------
 * embed, gather
 * ------------------------------------------------------------------------
 */
static void
check_embed(LlmCompute *compute, const char *isa, int n_rows, int dim,
			LlmDtype dtype)
{
	Tensor table = tensor_random(50 * (int64_t) dim, dtype, 1.0f, 2);
	int64_t n = (int64_t) n_rows * dim;
	int32_t *ids = need((size_t) n_rows * sizeof(int32_t));
	float *out = need((size_t) n * sizeof(float));
	double *expected = need((size_t) n * sizeof(double));
	LlmError err = { 0 };
	LlmEmbedArgs args = {
		.table = { table.data, dtype, 50, dim },
		.token_ids = ids,
		.out = out,
		.n_rows = n_rows,
		.scale = 4.0f, /* exact */
	};
	LlmGatherArgs gather = { .x = out, .rows = ids, .dim = dim };
	float *gathered;

	for (int i = 0; i < n_rows; i++)
	{
		ids[i] = random_int(0, 49);
		for (int d = 0; d < dim; d++)
			expected[(int64_t) i * dim + d] = 4 * table.value[ids[i] * dim + d];
	}
	CHECK(compute->ops->embed(compute, &args, &err));
	CHECK_NMSE(out, expected, n, 0.0, "%s embed %dx%d", isa, n_rows, dim);

	for (int i = 0; i < n_rows; i++)
		ids[i] = n_rows - 1 - i;
	gathered = need((size_t) n * sizeof(float));
	gather.out = gathered;
	gather.n_rows = n_rows;
	CHECK(compute->ops->gather(compute, &gather, &err));
	for (int i = 0; i < n_rows; i++)
		CHECK(memcmp(gathered + (int64_t) i * dim,
					 out + (int64_t) (n_rows - 1 - i) * dim,
					 (size_t) dim * sizeof(float)) == 0);
	tensor_free(&table);
	free(ids);
	free(out);
	free(expected);
	free(gathered);
}

static void
test_embed_gather(void)
{
	FOR_EACH_PATH(F32, 2)
	{
		check_embed(compute, isa, 1, 64, BF16);
		check_embed(compute, isa, 3, 33, F16);
		check_embed(compute, isa, 40, 2048, F32);
		check_embed(compute, isa, 70, 1025, BF16);
	}
}

/* Ranges that overlap, touch, and are as long as all rows. */
static void
check_sum_rows(LlmCompute *compute, const char *isa, int n_rows, int dim)
{
	Tensor x = tensor_random((int64_t) n_rows * dim, BF16, 1.0f, 2);
	float *rows = need((size_t) (n_rows * dim) * sizeof(float));
	LlmRowRange ranges[] = {
		{ 0, n_rows }, { 0, 1 }, { n_rows - 1, 1 }, { n_rows / 3, n_rows / 2 }
	};
	int64_t n = 4 * (int64_t) dim;
	float *out = need((size_t) n * sizeof(float));
	double *expected = need((size_t) n * sizeof(double));
	LlmError err = { 0 };
	LlmSumRowsArgs args = {
		.x = rows, .ranges = ranges, .out = out, .n_ranges = 4, .dim = dim
	};

	for (int64_t i = 0; i < (int64_t) n_rows * dim; i++)
		rows[i] = (float) x.value[i];
	for (int64_t i = 0; i < n; i++)
	{
		const LlmRowRange *range = &ranges[i / dim];

		expected[i] = 0;
		for (int32_t r = 0; r < range->n_rows; r++)
			expected[i] += x.value[(range->first_row + r) * dim + i % dim];
	}
	CHECK(compute->ops->sum_rows(compute, &args, &err));
	/* sums are exact up to their own rounding */
	CHECK_NMSE(out, expected, n, 1e-14, "%s sum_rows %dx%d", isa, n_rows, dim);
	tensor_free(&x);
	free(rows);
	free(out);
	free(expected);
}

static void
test_sum_rows(void)
{
	FOR_EACH_PATH(F32, 2)
	{
		check_sum_rows(compute, isa, 2, 64);
		check_sum_rows(compute, isa, 7, 33);
		check_sum_rows(compute, isa, 70, 1025);
	}
}

/* Every number of the two 16-bit formats, as half_float.h converts it. */
static void
test_all_halves(void)
{
	uint16_t *table = need(65536 * sizeof(uint16_t));
	float *out = need(65536 * sizeof(float));
	int32_t *ids = need(4096 * sizeof(int32_t));

	for (int i = 0; i < 65536; i++)
		table[i] = (uint16_t) i;
	for (int i = 0; i < 4096; i++)
		ids[i] = i;
	FOR_EACH_ISA(F32, 1)
	{
		for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
		{
			LlmError err = { 0 };
			LlmEmbedArgs args = {
				.table = { table, is_bf16 ? BF16 : F16, 4096, 16 },
				.token_ids = ids,
				.out = out,
				.n_rows = 4096,
				.scale = 1.0f,
			};

			CHECK(compute->ops->embed(compute, &args, &err));
			for (int i = 0; i < 65536; i++)
			{
				float e = is_bf16 ? llm_bf16_to_float(table[i])
								  : llm_f16_to_float(table[i]);

				if (isnan(e) ? !isnan(out[i]) : memcmp(&e, &out[i], 4) != 0)
					CHECK_FAIL("%s: 16-bit number %04x is %g, not %g", isa, i,
							   (double) out[i], (double) e);
			}
		}
	}
	free(table);
	free(out);
	free(ids);
}

/* ------------------------------------------------------------------------
 * gated_act
 * ------------------------------------------------------------------------
 */
static double
activation(LlmActivation kind, double x)
{
	if (kind == LLM_ACTIVATION_SILU)
		return x / (1 + exp(-x));
	if (kind == LLM_ACTIVATION_GELU)
		return x * 0.5 * erfc(-x / sqrt(2.0));
	return 0.5 * x *
		   (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

static void
check_gated_act(LlmCompute *compute, const char *isa, LlmActivation kind,
				int n_rows, int dim, float scale)
{
	int stride = 2 * dim + 5;
	float *in = need((size_t) (n_rows * stride) * sizeof(float));
	float *out = need((size_t) (n_rows * dim) * sizeof(float));
	double *expected = need((size_t) (n_rows * dim) * sizeof(double));
	LlmError err = { 0 };
	LlmGatedActArgs args = {
		.gate = in,
		.up = in + dim,
		.out = out,
		.in_stride = stride,
		.n_rows = n_rows,
		.dim = dim,
		.activation = kind,
	};

	fill_random(in, (int64_t) n_rows * stride, scale);
	for (int i = 0; i < n_rows * dim; i++)
	{
		const float *row = in + (int64_t) (i / dim) * stride;

		expected[i] = activation(kind, (double) row[i % dim]) *
					  (double) row[dim + i % dim];
	}
	CHECK(compute->ops->gated_act(compute, &args, &err));
	CHECK_NMSE(out, expected, n_rows * dim, F32_NMSE,
			   "%s activation %d of %dx%d", isa, (int) kind, n_rows, dim);
	/*
	 * Value by value too, small results included: a few roundings, and the
	 * exponent's own, which e^(-x^2 / 2) multiplies with x^2.
	 */
	for (int i = 0; i < n_rows * dim; i++)
	{
		double x = (double) in[(int64_t) (i / dim) * stride + i % dim];

		if (path_nmse == 0 && fabs(expected[i]) > 1e-30 &&
			kind != LLM_ACTIVATION_GELU_TANH)
			CHECK(fabs((double) out[i] - expected[i]) <=
				  fabs(expected[i]) * (1e-6 + 1e-7 * x * x));
	}
	free(in);
	free(out);
	free(expected);
}

static void
test_gated_act(void)
{
	FOR_EACH_PATH(F32, 2)
	{
		for (int kind = 0; kind < 3; kind++)
		{
			check_gated_act(compute, isa, (LlmActivation) kind, 1, 64, 1);
			check_gated_act(compute, isa, (LlmActivation) kind, 5, 77, 10);
			check_gated_act(compute, isa, (LlmActivation) kind, 1, 20001, 8);
			check_gated_act(compute, isa, (LlmActivation) kind, 40, 512, 0.1f);
		}
	}
}

/* Values far outside: no NaN, and the limits of the function. */
static void
test_gated_act_extremes(void)
{
	static const float x[] = { 1e30f,	-1e30f, 90.0f,	  -90.0f,
							   -200.0f, 0.0f,	INFINITY, -0.0f,
							   1e-38f,	-20.0f, 20.0f,	  -1e-38f,
							   -104.0f, 104.0f, 3.4e38f,  -3.4e38f };

	FOR_EACH_ISA(F32, 1)
	{
		for (int kind = 0; kind < 3; kind++)
		{
			float one[16];
			float out[16];
			LlmError err = { 0 };
			LlmGatedActArgs args = { .gate = x,
									 .up = one,
									 .out = out,
									 .in_stride = 16,
									 .n_rows = 1,
									 .dim = 16,
									 .activation = (LlmActivation) kind };

			for (int i = 0; i < 16; i++)
				one[i] = 1;
			CHECK(compute->ops->gated_act(compute, &args, &err));
			for (int i = 0; i < 16; i++)
			{
				double e = x[i] > 50	? (double) x[i]
						   : x[i] < -50 ? 0
										: activation((LlmActivation) kind,
													 (double) x[i]);

				if (!(out[i] == (float) e ||
					  fabs((double) out[i] - e) <= 1e-6 * fabs(e) + 1e-6))
					CHECK_FAIL("%s: activation %d of %g is %g", isa, kind,
							   (double) x[i], (double) out[i]);
			}
		}
	}
}

/* ------------------------------------------------------------------------
 * soft_cap
 * ------------------------------------------------------------------------
 */
static void
check_soft_cap(LlmCompute *compute, const char *isa, int n, float cap)
{
	float *x = need((size_t) n * sizeof(float));
	double *expected = need((size_t) n * sizeof(double));
	LlmError err = { 0 };
	LlmSoftCapArgs args = { .x = x, .n = n, .soft_cap = cap };

	/* from where the cap does nothing to where nothing else is left */
	fill_random(x, n, 4 * cap);
	for (int i = 0; i < n; i++)
	{
		if (i % 3 == 0)
			x[i] *= 1e-3f;
		expected[i] = (double) cap * tanh((double) x[i] / (double) cap);
	}
	CHECK(compute->ops->soft_cap(compute, &args, &err));
	CHECK_NMSE(x, expected, n, F32_NMSE, "%s soft cap %g of %d", isa,
			   (double) cap, n);
	for (int i = 0; i < n; i++)
		CHECK(fabs((double) x[i] - expected[i]) <= 1e-6 * fabs(expected[i]));
	free(x);
	free(expected);
}

static void
test_soft_cap(void)
{
	FOR_EACH_ISA(F32, 2)
	{
		check_soft_cap(compute, isa, 1, 30);
		check_soft_cap(compute, isa, 77, 0.5f);
		check_soft_cap(compute, isa, 20001, 30);
		check_soft_cap(compute, isa, 64 * 1024, 50);
	}
}

/* Infinities are capped, NaN stays, zeros keep their sign. */
static void
test_soft_cap_extremes(void)
{
	FOR_EACH_ISA(F32, 1)
	{
		float x[] = { INFINITY, -INFINITY, 3.4e38f, -3.4e38f,
					  0.0f,		-0.0f,	   NAN,		1e-38f };
		LlmError err = { 0 };
		LlmSoftCapArgs args = { .x = x, .n = 8, .soft_cap = 30 };

		CHECK(compute->ops->soft_cap(compute, &args, &err));
		CHECK(x[0] == 30 && x[1] == -30 && x[2] == 30 && x[3] == -30);
		CHECK(x[4] == 0 && !signbit(x[4]) && x[5] == 0 && signbit(x[5]));
		CHECK(isnan(x[6]) && fabsf(x[7]) <= 2e-38f);
		if (unit_check_failures > 0)
			fprintf(stderr, "    on %s\n", isa);
	}
}

/* ------------------------------------------------------------------------
 * Opening
 * ------------------------------------------------------------------------
 */
static void
test_open_errors(void)
{
	LlmComputeOptions options = test_options("avx1024", F32, 1);
	LlmError err = { 0 };

	CHECK(llm_compute_cpu_open(&options, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	CHECK(strstr(err.message, "\"avx1024\"") != NULL);
	options = test_options(NULL, F16, 1);
	CHECK(llm_compute_cpu_open(&options, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_UNSUPPORTED);
	options = test_options(NULL, F32, -1);
	CHECK(llm_compute_cpu_open(&options, &err) == NULL);
	CHECK(strstr(err.message, "-1") != NULL);
}

static void
test_memory(void)
{
	LlmCompute *compute = test_open(NULL, F32, 0);
	LlmError err = { 0 };
	size_t sizes[] = { 1, 1000, (size_t) 3 << 20, (size_t) 40 << 20 };

	REQUIRE(compute != NULL);
	CHECK(llm_compute_cpu_n_threads(compute) >= 1);
	for (int i = 0; i < 4; i++)
	{
		char *p = compute->ops->alloc(compute, sizes[i], "a test", &err);
		char byte = 7;

		REQUIRE(p != NULL);
		CHECK((uintptr_t) p % 64 == 0);
		CHECK(p[0] == 0 && p[sizes[i] - 1] == 0);
		CHECK(compute->ops->write(compute, p + sizes[i] - 1, &byte, 1, &err));
		byte = 0;
		CHECK(compute->ops->read(compute, &byte, p + sizes[i] - 1, 1, &err));
		CHECK_INT_EQ(byte, 7);
		compute->ops->free(compute, p);
	}
	CHECK(compute->ops->alloc(compute, SIZE_MAX - 5, "too much", &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_NO_MEMORY);
	CHECK(compute->ops->alloc(compute, SIZE_MAX / 4, "too much", &err) == NULL);
	compute->ops->free(compute, NULL);
	compute->ops->close(compute);
}

/* ------------------------------------------------------------------------
 * Threads
 * ------------------------------------------------------------------------
 */
#define MAX_THREADS 5

typedef struct CountJob
{
	int64_t runs[MAX_THREADS]; /* each thread its own */
	atomic_llong items;
} CountJob;

static void
count_job(void *arg, int thread_idx, int n_threads)
{
	CountJob *job = arg;
	int64_t begin;
	int64_t end;

	job->runs[thread_idx]++;
	llm_cpu_share(1000, 16, thread_idx, n_threads, &begin, &end);
	atomic_fetch_add(&job->items, end - begin);
}

/* Every job once on every thread; more threads than processors too. */
static void
test_threads(void)
{
	for (int n = 1; n <= MAX_THREADS; n++)
	{
		LlmError err = { 0 };
		LlmCpuThreads *threads = llm_cpu_threads_create(n, &err);
		CountJob job = { 0 };

		REQUIRE(threads != NULL);
		CHECK_INT_EQ(llm_cpu_threads_count(threads), n);
		for (int i = 0; i < 300; i++)
		{
			llm_cpu_threads_run(threads, count_job, &job);
			CHECK_INT_EQ(atomic_load(&job.items), 1000 * (i + 1));
			if (i % 100 == 0)
				usleep(2000); /* long enough to fall asleep */
		}
		for (int i = 0; i < n; i++)
			CHECK_INT_EQ(job.runs[i], 300);
		llm_cpu_threads_free(threads);
	}
}

int
main(void)
{
	RUN_TEST(skip_missing_isas);
	RUN_TEST(test_open_errors);
	RUN_TEST(test_memory);
	RUN_TEST(test_threads);
	RUN_TEST(test_linear);
	RUN_TEST(test_linear_invariance);
	RUN_TEST(test_linear_blocks);
	RUN_TEST(test_linear_regular);
	RUN_TEST(test_linear_mixed_parts);
	RUN_TEST(test_rms_norm);
	RUN_TEST(test_embed_gather);
	RUN_TEST(test_sum_rows);
	RUN_TEST(test_all_halves);
	RUN_TEST(test_gated_act);
	RUN_TEST(test_gated_act_extremes);
	RUN_TEST(test_soft_cap);
	RUN_TEST(test_soft_cap_extremes);
	return unit_test_finish();
}
