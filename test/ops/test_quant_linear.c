/*
 * test_quant_linear.c
 *	  Quantized weights on the compute backend: products against naive loops
 *	  in double, the same bits on every path, lookup.
 *
 * test/ops/test_quant_linear.c
 */
#include "test/ops/ops_test.h"

#define GROUP LLM_QUANT_GROUP
#define UNIT (LLM_QUANT_GROUP * LLM_QUANT_UNIT_GROUPS)

#define INT8 LLM_DTYPE_INT8
#define INT4 LLM_DTYPE_INT4
#define INT4_K LLM_DTYPE_INT4_K

static const LlmDtype dtypes[] = { INT8, INT4, INT4_K };

/* ---- weights ---- */

/* A weight in plain form, and the numbers it stands for. */
typedef struct Weight
{
	LlmDtype dtype;
	int64_t n_rows;
	int64_t n_cols;
	uint8_t *values;
	float *scales;
	float *offsets;
	float *scale_units;
	float *offset_units;
	double *w; /* [n_rows, n_cols] */
} Weight;

static float
f16_of(float value)
{
	return llm_f16_to_float(llm_float_to_f16(value));
}

/* The scale and offset of a group; its unit's where it is the first one. */
static void
random_scale(Weight *weight, int64_t row, int64_t g)
{
	int64_t n_groups = weight->n_cols / GROUP;
	int64_t unit = row * ((n_groups + 7) / 8) + g / 8;
	int64_t at = row * n_groups + g;

	if (weight->dtype != INT4_K)
	{
		weight->scales[at] = f16_of(0.01f + fabsf(random_float()));
		weight->offsets[at] =
			weight->dtype == INT8 ? 0 : -8 * weight->scales[at];
		return;
	}
	if (g % 8 == 0)
	{
		weight->scale_units[unit] = f16_of(fabsf(random_float()) / 100);
		weight->offset_units[unit] = f16_of(random_float() / 20);
	}
	weight->scales[at] = weight->scale_units[unit] * random_int(0, 255);
	weight->offsets[at] = weight->offset_units[unit] * random_int(0, 255);
}

static Weight
weight_random(LlmDtype dtype, int64_t n_rows, int64_t n_cols)
{
	Weight weight = { .dtype = dtype, .n_rows = n_rows, .n_cols = n_cols };
	size_t n = (size_t) (n_rows * n_cols);

	weight.values = need(n);
	weight.scales = need(n / GROUP * sizeof(float));
	weight.offsets = need(n / GROUP * sizeof(float));
	weight.scale_units = need(n / GROUP * sizeof(float));
	weight.offset_units = need(n / GROUP * sizeof(float));
	weight.w = need(n * sizeof(double));
	for (int64_t i = 0; i < n_rows * n_cols; i++)
	{
		int64_t row = i / n_cols;
		int64_t at = i / GROUP;
		int value = random_int(0, dtype == INT8 ? 255 : 15);

		if (i % GROUP == 0)
			random_scale(&weight, row, i % n_cols / GROUP);
		/* now and then a group of extremes */
		if (at % 5 == 0)
			value = dtype == INT8 ? (at % 2 == 0 ? 128 : 127) : 15;
		weight.values[i] = (uint8_t) value;
		weight.w[i] = (double) weight.scales[at] *
						  (dtype == INT8 ? (int8_t) value : value) +
					  (double) weight.offsets[at];
	}
	return weight;
}

static void
weight_free(Weight *weight)
{
	free(weight->values);
	free(weight->scales);
	free(weight->offsets);
	free(weight->scale_units);
	free(weight->offset_units);
	free(weight->w);
}

/* On the device, written chunk_rows at a time. */
static LlmMatrix
weight_write(LlmCompute *compute, const Weight *weight, int64_t chunk_rows)
{
	const LlmComputeOps *ops = compute->ops;
	int64_t n_groups = weight->n_cols / GROUP;
	int64_t n_units = (n_groups + 7) / 8;
	bool has_units = weight->dtype == INT4_K;
	LlmError err = { 0 };
	LlmMatrix matrix = {
		.data = ops->alloc(
			compute,
			ops->quant_bytes(weight->dtype, weight->n_rows, weight->n_cols),
			"a weight", &err),
		.dtype = weight->dtype,
		.n_rows = weight->n_rows,
		.n_cols = weight->n_cols,
	};

	if (matrix.data == NULL)
		abort();
	for (int64_t row = 0; row < weight->n_rows; row += chunk_rows)
	{
		int64_t n = weight->n_rows - row;
		LlmQuantRows rows = {
			.values = weight->values + row * weight->n_cols,
			.scales = weight->scales + row * n_groups,
			.offsets =
				weight->dtype == INT8 ? NULL : weight->offsets + row * n_groups,
			.scale_units =
				has_units ? weight->scale_units + row * n_units : NULL,
			.offset_units =
				has_units ? weight->offset_units + row * n_units : NULL,
			.n_rows = n < chunk_rows ? n : chunk_rows,
		};

		CHECK(ops->quant_write(compute, &matrix, row, &rows, &err));
	}
	return matrix;
}

/* ---- x as the backend rounds it ---- */

static double *
round_x(const float *x, int64_t n)
{
	double *rounded = need((size_t) n * sizeof(double));

	for (int64_t i = 0; i < n; i += GROUP)
	{
		float largest = 0;

		for (int k = 0; k < GROUP; k++)
			largest = fmaxf(largest, fabsf(x[i + k]));
		for (int k = 0; k < GROUP && largest > 0; k++)
			rounded[i + k] = (double) (largest / 127.0f) *
							 (double) nearbyintf(x[i + k] * (127.0f / largest));
	}
	return rounded;
}

static double *
exact_x(const float *x, int64_t n)
{
	double *exact = need((size_t) n * sizeof(double));

	for (int64_t i = 0; i < n; i++)
		exact[i] = (double) x[i];
	return exact;
}

/* ---- linear ---- */

typedef struct Case
{
	int n_rows; /* of x */
	int n_cols;
	int n_out[LLM_LINEAR_MAX_PARTS];
	LlmDtype bias; /* LLM_DTYPE_COUNT: none */
} Case;

static const Case cases[] = {
	{ 1, 32, { 1 }, LLM_DTYPE_COUNT },
	{ 1, 256, { 16 }, LLM_DTYPE_F32 },
	{ 2, 2048, { 48, 24, 8 }, LLM_DTYPE_BF16 },
	{ 3, 96, { 100, 5 }, LLM_DTYPE_F16 },
	{ 13, 320, { 17 }, LLM_DTYPE_COUNT },
	{ 24, 512, { 130, 33, 1 }, LLM_DTYPE_F32 },
	{ 61, 8192, { 40 }, LLM_DTYPE_COUNT },
	{ 90, 64, { 70 }, LLM_DTYPE_BF16 },
};

#define N_CASES (sizeof(cases) / sizeof(cases[0]))

/* Outputs have three unused columns, which must stay as they are. */
#define EXTRA_COLS 3
#define UNTOUCHED -12345.0f

typedef struct Data
{
	Case shape;
	LlmDtype dtype;
	float *x;
	Weight weight[LLM_LINEAR_MAX_PARTS];
	Tensor bias[LLM_LINEAR_MAX_PARTS];
	float *out[LLM_LINEAR_MAX_PARTS];
	int n_parts;
} Data;

static Data
data_create(const Case *c, LlmDtype dtype)
{
	Data d = { .shape = *c, .dtype = dtype };
	int64_t n_x = (int64_t) c->n_rows * c->n_cols;

	d.x = need((size_t) n_x * sizeof(float));
	fill_random(d.x, n_x, 1.0f);
	/* groups of zeros, and of very different sizes */
	for (int64_t i = 0; i < n_x; i++)
		d.x[i] *= i / GROUP % 7 == 3 ? 0.0f : i / GROUP % 7 == 4 ? 100.0f : 1;
	for (; d.n_parts < LLM_LINEAR_MAX_PARTS && c->n_out[d.n_parts] > 0;
		 d.n_parts++)
	{
		int p = d.n_parts;

		d.weight[p] = weight_random(dtype, c->n_out[p], c->n_cols);
		if (c->bias != LLM_DTYPE_COUNT)
			d.bias[p] = tensor_random(c->n_out[p], c->bias, 1.0f, 0);
		d.out[p] = need((size_t) (c->n_rows * (c->n_out[p] + EXTRA_COLS)) *
						sizeof(float));
	}
	return d;
}

static void
data_free(Data *d)
{
	free(d->x);
	for (int p = 0; p < d->n_parts; p++)
	{
		weight_free(&d->weight[p]);
		tensor_free(&d->bias[p]);
		free(d->out[p]);
	}
}

/* Rows first .. first + n - 1 of x, to the beginning of the outputs. */
static void
run(LlmCompute *compute, Data *d, int first, int n)
{
	LlmLinearArgs args = {
		.x = d->x + (int64_t) first * d->shape.n_cols,
		.n_rows = n,
		.n_parts = d->n_parts,
	};
	LlmError err = { 0 };

	for (int p = 0; p < d->n_parts; p++)
	{
		int64_t stride = d->shape.n_out[p] + EXTRA_COLS;

		for (int64_t i = 0; i < d->shape.n_rows * stride; i++)
			d->out[p][i] = UNTOUCHED;
		args.part[p].weight = weight_write(compute, &d->weight[p], 64);
		if (d->shape.bias != LLM_DTYPE_COUNT)
			args.part[p].bias = tensor_vector(&d->bias[p]);
		args.part[p].out = d->out[p];
		args.part[p].out_stride = stride;
	}
	CHECK(compute->ops->linear(compute, &args, &err));
	for (int p = 0; p < d->n_parts; p++)
		compute->ops->free(compute, (void *) args.part[p].weight.data);
}

/* All products, part by part; x as numbers, rounded or not. */
static double *
expected_products(const Data *d, const double *x)
{
	const Case *c = &d->shape;
	int64_t n_out = c->n_out[0] + c->n_out[1] + c->n_out[2];
	double *expected = need((size_t) (c->n_rows * n_out) * sizeof(double));
	double *next = expected;

	for (int p = 0; p < d->n_parts; p++)
	{
		for (int64_t i = 0; i < (int64_t) c->n_rows * c->n_out[p]; i++)
		{
			const double *row = x + i / c->n_out[p] * c->n_cols;
			int64_t col = i % c->n_out[p];
			const double *w = d->weight[p].w + col * c->n_cols;
			double sum = c->bias != LLM_DTYPE_COUNT ? d->bias[p].value[col] : 0;

			for (int64_t k = 0; k < c->n_cols; k++)
				sum += row[k] * w[k];
			*next++ = sum;
		}
	}
	return expected;
}

static void
check_products(const Data *d, const double *expected, double bound,
			   const char *what)
{
	const Case *c = &d->shape;

	for (int p = 0; p < d->n_parts; p++)
	{
		int64_t n = (int64_t) c->n_rows * c->n_out[p];
		int64_t stride = c->n_out[p] + EXTRA_COLS;
		float *actual = need((size_t) n * sizeof(float));

		for (int64_t i = 0; i < n; i++)
			actual[i] = d->out[p][i / c->n_out[p] * stride + i % c->n_out[p]];
		CHECK_NMSE(actual, expected, n, bound, "%s: %s %dx%d to %d", what,
				   llm_dtype_name(d->dtype), c->n_rows, c->n_cols, c->n_out[p]);
		for (int64_t i = 0; i < c->n_rows * EXTRA_COLS; i++)
			CHECK(d->out[p][i / EXTRA_COLS * stride + c->n_out[p] +
							i % EXTRA_COLS] == UNTOUCHED);
		free(actual);
		expected += n;
	}
}

/*
 * With x rounded as it is said to be, nothing is left but float additions.
 * Against x itself: values are uniform in a group, so that the step is
 * max / 127 with a squared error of step^2 / 12, and a value's square max^2 /
 * 3; their ratio is 1.6e-5.  Few products may have many times that.
 */
static void
products_are_those_of_rounded_x(void)
{
	for (size_t i = 0; i < N_CASES * 3; i++)
	{
		const Case *c = &cases[i / 3];
		Data d = data_create(c, dtypes[i % 3]);
		double *x = round_x(d.x, (int64_t) c->n_rows * c->n_cols);
		double *rounded = expected_products(&d, x);
		double *exact;

		free(x);
		x = exact_x(d.x, (int64_t) c->n_rows * c->n_cols);
		exact = expected_products(&d, x);
		FOR_EACH_ISA(LLM_DTYPE_F32, 1 + (int) i % 3)
		{
			run(compute, &d, 0, c->n_rows);
			check_products(&d, rounded, F32_NMSE, isa);
			check_products(&d, exact, 4e-4, isa);
		}
		free(x);
		free(rounded);
		free(exact);
		data_free(&d);
	}
}

/*
 * The same bits on every path, whatever the number of rows, their place and
 * the number of threads.
 */
static void
rows_have_the_same_bits_everywhere(void)
{
	static const Case c = { 70, 544, { 21 }, LLM_DTYPE_F32 };
	int64_t stride = c.n_out[0] + EXTRA_COLS;
	float *whole = need((size_t) (c.n_rows * stride) * sizeof(float));

	for (int i = 0; i < 3; i++)
	{
		Data d = data_create(&c, dtypes[i]);
		bool is_first = true;

		for (int n_threads = 1; n_threads <= 3; n_threads++)
		{
			FOR_EACH_ISA(LLM_DTYPE_F32, n_threads)
			{
				for (int n = c.n_rows; n > 0; n -= n > 20 ? 7 : 1)
				{
					int first = random_int(0, c.n_rows - n);

					run(compute, &d, first, n);
					if (is_first)
						memcpy(whole, d.out[0],
							   (size_t) (c.n_rows * stride) * sizeof(float));
					is_first = false;
					if (memcmp(whole + first * stride, d.out[0],
							   (size_t) (n * stride) * sizeof(float)) != 0)
						CHECK_FAIL("%s, %d threads, %s: rows %d .. %d differ",
								   isa, n_threads, llm_dtype_name(d.dtype),
								   first, first + n - 1);
				}
			}
		}
		data_free(&d);
	}
	free(whole);
}

/* What is not a number stays so, in its row alone. */
static void
not_a_number_stays_in_its_row(void)
{
	static const Case c = { 3, 64, { 16 }, LLM_DTYPE_COUNT };

	for (int i = 0; i < 3; i++)
	{
		Data d = data_create(&c, dtypes[i]);

		d.x[5] = NAN;
		d.x[2 * c.n_cols + 40] = INFINITY;
		FOR_EACH_ISA(LLM_DTYPE_F32, 1)
		{
			run(compute, &d, 0, 3);
			for (int k = 0; k < 16; k++)
			{
				CHECK(isnan(d.out[0][k]));
				CHECK(isfinite(d.out[0][16 + EXTRA_COLS + k]));
				CHECK(isnan(d.out[0][2 * (16 + EXTRA_COLS) + k]));
			}
			(void) isa;
		}
		data_free(&d);
	}
}

/* ---- embed ---- */

static void
rows_can_be_looked_up(void)
{
	static const int32_t ids[] = { 0, 36, 5, 5, 99, 64 };
	enum
	{
		N_IDS = 6,
		DIM = 288
	};

	for (int i = 0; i < 3; i++)
	{
		Weight weight = weight_random(dtypes[i], 100, DIM);

		FOR_EACH_ISA(LLM_DTYPE_F32, 2)
		{
			float out[N_IDS * DIM];
			LlmEmbedArgs args = { .table = weight_write(compute, &weight, 128),
								  .token_ids = ids,
								  .out = out,
								  .n_rows = N_IDS,
								  .scale = 2.0f };
			LlmError err = { 0 };

			CHECK(compute->ops->embed(compute, &args, &err));
			for (int k = 0; k < N_IDS * DIM; k++)
			{
				float w = (float) weight.w[ids[k / DIM] * DIM + k % DIM];

				if (out[k] != 2.0f * w)
					CHECK_FAIL("%s, %s: element %d", isa,
							   llm_dtype_name(dtypes[i]), k);
			}
			compute->ops->free(compute, (void *) args.table.data);
		}
		weight_free(&weight);
	}
}

int
main(void)
{
	RUN_TEST(skip_missing_isas);
	RUN_TEST(products_are_those_of_rounded_x);
	RUN_TEST(rows_have_the_same_bits_everywhere);
	RUN_TEST(not_a_number_stays_in_its_row);
	RUN_TEST(rows_can_be_looked_up);
	return unit_test_finish();
}
