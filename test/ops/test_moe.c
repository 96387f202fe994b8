/*
 * test_moe.c
 *	  The mixture of experts: every path against a naive loop in double, which
 *	  routes row by row and expert by expert.
 *
 * test/ops/test_moe.c
 */
#include "test/ops/ops_test.h"

#define F32 LLM_DTYPE_F32
#define F16 LLM_DTYPE_F16
#define BF16 LLM_DTYPE_BF16

#define MAX_EXPERTS 64

/* Rounding x, then the inner values, to bf16: some 1.3e-6 each time. */
#define BF16_INPUTS_NMSE 2e-5

typedef struct MoeCase
{
	int n_rows;
	int dim;
	int inner_dim;
	int n_experts;
	int n_top;
	bool renormalize;
	LlmDtype dtype;
	LlmDtype precision;
	LlmActivation activation;
	int misalign;
} MoeCase;

#define SILU LLM_ACTIVATION_SILU
#define GELU LLM_ACTIVATION_GELU
#define TANH LLM_ACTIVATION_GELU_TANH

/* clang-format off */
static const MoeCase moe_cases[] = {
	/* rows dim inner experts top renorm weights precision act misaligned */
	{   1,   1,   1,  1, 1, false, F32,  F32,  SILU, 0 },
	{   1,  64,  48,  8, 2, true,  F32,  F32,  SILU, 0 },
	{   1,  64,  48,  8, 2, false, F32,  F32,  SILU, 0 },
	{   3,  33,  17,  4, 4, true,  F32,  F32,  GELU, 4 },
	{   3,  33,  17,  4, 4, false, F32,  F32,  TANH, 0 },
	{  90,  40,  70,  5, 3, true,  F32,  F32,  SILU, 0 },
	{ 128,  32,  24,  2, 1, false, F32,  BF16, SILU, 0 },
	{   2, 100,  36, 64, 8, true,  F32,  F32,  SILU, 0 },
	{  20,  64,  32,  8, 2, true,  F16,  F32,  SILU, 2 },
	{   1, 256, 128, 16, 4, true,  BF16, F32,  SILU, 2 },
	{  70,  96,  50,  6, 2, true,  BF16, F32,  TANH, 0 },
	{   1, 256, 128, 16, 4, false, BF16, BF16, SILU, 0 },
	{  70,  96,  50,  6, 2, true,  BF16, BF16, SILU, 2 },
	{  40,  64,  24, 64, 8, false, BF16, BF16, GELU, 0 },
};
/* clang-format on */

typedef struct MoeData
{
	float *x;
	float *logits;
	float *out;
	Tensor tensor[3][MAX_EXPERTS]; /* gate, up, down */
	LlmMatrix matrix[3][MAX_EXPERTS];
	LlmMoeArgs args;
} MoeData;

static void
set_matrix(MoeData *d, int kind, int expert, LlmDtype dtype, int misalign)
{
	int64_t n_rows = kind == 2 ? d->args.dim : d->args.inner_dim;
	int64_t n_cols = kind == 2 ? d->args.inner_dim : d->args.dim;
	Tensor *t = &d->tensor[kind][expert];

	tensor_free(t);
	*t = tensor_random(n_rows * n_cols, dtype, 1.0f, (size_t) misalign);
	d->matrix[kind][expert] = (LlmMatrix){
		.data = t->data, .dtype = dtype, .n_rows = n_rows, .n_cols = n_cols
	};
}

static MoeData *
moe_setup(const MoeCase *c)
{
	MoeData *d = need(sizeof(*d));
	int64_t n = (int64_t) c->n_rows * c->dim;

	d->x = need((size_t) n * sizeof(float));
	d->out = need((size_t) n * sizeof(float));
	d->logits = need((size_t) c->n_rows * (size_t) c->n_experts * 4);
	fill_random(d->x, n, 1.0f);
	fill_random(d->logits, (int64_t) c->n_rows * c->n_experts, 3.0f);
	d->args = (LlmMoeArgs){ .x = d->x,
							.router_logits = d->logits,
							.out = d->out,
							.n_rows = c->n_rows,
							.dim = c->dim,
							.inner_dim = c->inner_dim,
							.n_experts = c->n_experts,
							.n_top = c->n_top,
							.renormalize = c->renormalize,
							.activation = c->activation,
							.gate = d->matrix[0],
							.up = d->matrix[1],
							.down = d->matrix[2] };
	for (int kind = 0; kind < 3; kind++)
	{
		for (int i = 0; i < c->n_experts; i++)
			set_matrix(d, kind, i, c->dtype, c->misalign);
	}
	return d;
}

static void
moe_free(MoeData *d)
{
	for (int kind = 0; kind < 3; kind++)
	{
		for (int i = 0; i < MAX_EXPERTS; i++)
			tensor_free(&d->tensor[kind][i]);
	}
	free(d->x);
	free(d->logits);
	free(d->out);
	free(d);
}

/* ---- the naive loop ---- */

/* share[i] of expert i; 0 where it is not chosen */
static void
naive_route(const LlmMoeArgs *args, int row, double share[MAX_EXPERTS])
{
	const float *logits = args->router_logits + (int64_t) row * args->n_experts;
	bool taken[MAX_EXPERTS] = { false };
	double p[MAX_EXPERTS];
	double sum = 0;
	double chosen = 0;

	for (int i = 0; i < args->n_experts; i++)
	{
		p[i] = exp((double) logits[i]);
		sum += p[i];
		share[i] = 0;
	}
	for (int k = 0; k < args->n_top; k++)
	{
		int best = -1;

		for (int i = 0; i < args->n_experts; i++)
		{
			if (!taken[i] && (best < 0 || p[i] > p[best]))
				best = i;
		}
		taken[best] = true;
		share[best] = p[best] / sum;
		chosen += share[best];
	}
	for (int i = 0; i < args->n_experts && args->renormalize; i++)
		share[i] /= chosen;
}

static double
naive_activation(LlmActivation activation, double x)
{
	const double pi = 3.14159265358979323846;

	if (activation == LLM_ACTIVATION_SILU)
		return x / (1 + exp(-x));
	if (activation == LLM_ACTIVATION_GELU)
		return 0.5 * x * (1 + erf(x / sqrt(2)));
	return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
}

static double
naive_dot(const double *w, const double *x, int n)
{
	double sum = 0;

	for (int i = 0; i < n; i++)
		sum += w[i] * x[i];
	return sum;
}

/* inner: [inner_dim] scratch */
static void
naive_expert(const MoeData *d, int expert, const double *x, double share,
			 double *inner, double *out)
{
	int dim = d->args.dim;
	int inner_dim = d->args.inner_dim;

	for (int j = 0; j < inner_dim; j++)
	{
		const double *gate = d->tensor[0][expert].value + (int64_t) j * dim;
		const double *up = d->tensor[1][expert].value + (int64_t) j * dim;

		inner[j] =
			naive_activation(d->args.activation, naive_dot(gate, x, dim)) *
			naive_dot(up, x, dim);
	}
	for (int j = 0; j < dim; j++)
		out[j] += share * naive_dot(d->tensor[2][expert].value +
										(int64_t) j * inner_dim,
									inner, inner_dim);
}

/* [n_rows, dim]; the caller frees it */
static double *
naive_moe(const MoeData *d)
{
	int dim = d->args.dim;
	double *out = need((size_t) d->args.n_rows * (size_t) dim * sizeof(double));
	double *x = need((size_t) dim * sizeof(double));
	double *inner = need((size_t) d->args.inner_dim * sizeof(double));

	for (int row = 0; row < d->args.n_rows; row++)
	{
		double share[MAX_EXPERTS];

		naive_route(&d->args, row, share);
		for (int i = 0; i < dim; i++)
			x[i] = (double) d->x[(int64_t) row * dim + i];
		for (int i = 0; i < d->args.n_experts; i++)
		{
			if (share[i] > 0)
				naive_expert(d, i, x, share[i], inner,
							 out + (int64_t) row * dim);
		}
	}
	free(x);
	free(inner);
	return out;
}

/* ---- the tests ---- */

static void
run_moe(LlmCompute *compute, MoeData *d)
{
	LlmError err = { 0 };

	/* what is there before must not matter */
	for (int64_t i = 0; i < (int64_t) d->args.n_rows * d->args.dim; i++)
		d->out[i] = NAN;
	CHECK(compute->ops->moe(compute, &d->args, &err));
}

static void
check_moe(const MoeCase *c, MoeData *d, int n_threads)
{
	double *expected = naive_moe(d);

	FOR_EACH_PATH(c->precision, n_threads)
	{
		bool rounds = c->precision == BF16 && c->dtype == BF16 &&
					  strcmp(isa, "avx512bf16") == 0;

		run_moe(compute, d);
		CHECK_NMSE(d->out, expected, (int64_t) c->n_rows * c->dim,
				   rounds ? BF16_INPUTS_NMSE : F32_NMSE,
				   "%s moe, %d rows, %d of %d experts, %s", isa, c->n_rows,
				   c->n_top, c->n_experts, llm_dtype_name(c->dtype));
	}
	free(expected);
}

static void
test_moe(void)
{
	for (size_t i = 0; i < sizeof(moe_cases) / sizeof(moe_cases[0]); i++)
	{
		MoeData *d = moe_setup(&moe_cases[i]);

		check_moe(&moe_cases[i], d, 1 + (int) i % 3);
		moe_free(d);
	}
}

/* Of equal ones the first: all equal, and equal ones at the border. */
static void
test_ties(void)
{
	static const MoeCase c = { 3, 32, 16, 8, 3, true, F32, F32, SILU, 0 };
	static const float logits[3][8] = {
		{ 0, 0, 0, 0, 0, 0, 0, 0 },
		{ 1, -1, 2, 1, 2, 1, 0, 1 },		   /* 2, 4 and then 0 */
		{ -90, -90, -90, 90, -90, -90, 90, 0 } /* 3, 6 and then 7 */
	};
	MoeData *d = moe_setup(&c);

	memcpy(d->logits, logits, sizeof(logits));
	check_moe(&c, d, 2);
	moe_free(d);
}

/* An expert that nobody chose is not looked at. */
static void
test_idle_experts(void)
{
	static const MoeCase c = { 30, 48, 20, 16, 2, true, BF16, F32, SILU, 0 };
	MoeData *d = moe_setup(&c);

	for (int row = 0; row < c.n_rows; row++)
	{
		for (int i = 0; i < c.n_experts; i++)
		{
			if (i != 5 && i != 11 && i != 12)
				d->logits[row * c.n_experts + i] = -50;
		}
	}
	for (int kind = 0; kind < 3; kind++)
	{
		for (int i = 0; i < c.n_experts; i++)
		{
			if (i != 5 && i != 11 && i != 12)
				d->matrix[kind][i].data = NULL;
		}
	}
	check_moe(&c, d, 2);
	moe_free(d);
}

/* Experts, and their gate and up, in different formats. */
static void
test_mixed_formats(void)
{
	static const MoeCase c = { 25, 64, 40, 6, 3, true, F32, F32, SILU, 0 };
	static const LlmDtype dtypes[] = { F32, F16, BF16 };
	MoeData *d = moe_setup(&c);

	for (int i = 0; i < c.n_experts; i++)
	{
		set_matrix(d, 0, i, dtypes[i % 3], 0);
		set_matrix(d, 1, i, dtypes[i / 2 % 3], 0);
		set_matrix(d, 2, i, dtypes[(i + 1) % 3], 0);
	}
	check_moe(&c, d, 2);
	moe_free(d);
}

/*
 * Entries that do not fit the scratch memory at once: a row of this width
 * takes more than 130 kilobytes, and 100 rows visit 3 experts each.  Two
 * experts have so many rows that they are cut.
 */
static void
test_waves(void)
{
	static const MoeCase c = { 100, 16384, 3, 4, 3, true, BF16, F32, SILU, 0 };
	MoeData *d = moe_setup(&c);

	check_moe(&c, d, 2);
	moe_free(d);
}

/* A row's result has the same bits whatever is computed with it. */
static void
check_invariance(const MoeCase *c, const char *isa)
{
	MoeData *d = moe_setup(c);
	size_t row_bytes = (size_t) c->dim * sizeof(float);
	float *whole = need((size_t) c->n_rows * row_bytes);
	LlmMoeArgs all = d->args;

	for (int n_threads = 1; n_threads <= 3; n_threads++)
	{
		LlmCompute *compute = test_open(isa, c->precision, n_threads);

		if (compute == NULL)
			break;
		d->args = all;
		run_moe(compute, d);
		if (n_threads == 1)
			memcpy(whole, d->out, (size_t) c->n_rows * row_bytes);
		CHECK(memcmp(whole, d->out, (size_t) c->n_rows * row_bytes) == 0);
		for (int n = 1; n < c->n_rows; n += n < 3 ? 1 : 2 * n)
		{
			int first = random_int(0, c->n_rows - n);

			d->args.n_rows = n;
			d->args.x = d->x + (int64_t) first * c->dim;
			d->args.router_logits = d->logits + (int64_t) first * c->n_experts;
			run_moe(compute, d);
			if (memcmp(whole + (int64_t) first * c->dim, d->out,
					   (size_t) n * row_bytes) != 0)
				CHECK_FAIL("%s: rows %d .. %d of %d differ, weights %s", isa,
						   first, first + n - 1, c->n_rows,
						   llm_dtype_name(c->dtype));
		}
		compute->ops->close(compute);
	}
	free(whole);
	moe_free(d);
}

static void
test_invariance(void)
{
	static const MoeCase cases[] = {
		{ 90, 200, 37, 6, 2, true, F32, F32, SILU, 0 },
		{ 90, 200, 37, 6, 2, true, BF16, BF16, SILU, 2 },
		{ 30, 64, 90, 64, 8, false, BF16, F32, TANH, 0 },
		{ 70, 16384, 1, 4, 4, true, F32, F32, SILU, 0 }, /* waves */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		for (int isa = 0; isa < N_ISAS; isa++)
			check_invariance(&cases[i], isa_names[isa]);
	}
}

/* Logits that are not numbers spoil their own row only. */
static void
test_nan(void)
{
	static const MoeCase c = { 3, 32, 16, 8, 2, true, F32, F32, SILU, 0 };
	MoeData *d = moe_setup(&c);
	double *expected = naive_moe(d);

	for (int i = 0; i < c.n_experts; i++)
		d->logits[c.n_experts + i] = i % 2 == 0 ? NAN : (float) i;
	FOR_EACH_PATH(c.precision, 2)
	{
		run_moe(compute, d);
		CHECK_NMSE(d->out, expected, c.dim, F32_NMSE, "%s, row 0", isa);
		CHECK(isnan(d->out[c.dim]));
		CHECK_NMSE(d->out + (int64_t) 2 * c.dim, expected + (int64_t) 2 * c.dim,
				   c.dim, F32_NMSE, "%s, row 2", isa);
	}
	free(expected);
	moe_free(d);
}

int
main(void)
{
	RUN_TEST(skip_missing_isas);
	RUN_TEST(test_moe);
	RUN_TEST(test_ties);
	RUN_TEST(test_idle_experts);
	RUN_TEST(test_mixed_formats);
	RUN_TEST(test_waves);
	RUN_TEST(test_invariance);
	RUN_TEST(test_nan);
	return unit_test_finish();
}
