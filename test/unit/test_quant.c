/*
 * test_quant.c
 *	  Tests of src/common/quant: block formats against the values of python's
 *	  gguf package (test/vectors/quant), encoding against its error bounds.
 *
 * test/unit/test_quant.c
 */
#include <math.h>

#include "src/common/quant/quant.h"
#include "src/common/util/half_float.h"
#include "src/common/util/philox.h"
#include "test/unit/unit_test.h"

#define GROUP LLM_QUANT_GROUP_ELEMENTS
#define UNIT (GROUP * LLM_QUANT_UNIT_GROUPS)
#define N_BLOCKS 24
#define MAX_ELEMENTS (N_BLOCKS * 256)

static const LlmDtype block_dtypes[] = {
	LLM_DTYPE_Q8_0, LLM_DTYPE_Q4_0, LLM_DTYPE_Q4_K,	  LLM_DTYPE_Q6_K,
	LLM_DTYPE_Q4_1, LLM_DTYPE_Q5_0, LLM_DTYPE_Q5_1,	  LLM_DTYPE_Q2_K,
	LLM_DTYPE_Q3_K, LLM_DTYPE_Q5_K, LLM_DTYPE_IQ4_NL, LLM_DTYPE_IQ4_XS
};

typedef struct Vector
{
	uint8_t blocks[N_BLOCKS * 256];
	float expected[MAX_ELEMENTS];
	int64_t n;
} Vector;

static bool
read_file(LlmDtype dtype, const char *suffix, void *dest, size_t n_bytes)
{
	char path[128];
	FILE *file;
	bool ok;

	snprintf(path, sizeof(path), "test/vectors/quant/%s.%s",
			 llm_dtype_name(dtype), suffix);
	file = fopen(path, "rb");
	ok = file != NULL && fread(dest, 1, n_bytes, file) == n_bytes &&
		 fgetc(file) == EOF;
	if (file != NULL)
		fclose(file);
	if (!ok)
		CHECK_FAIL("%s does not hold %zu bytes", path, n_bytes);
	return ok;
}

static bool
read_vector(LlmDtype dtype, Vector *vector)
{
	vector->n = N_BLOCKS * llm_dtype_block_elements(dtype);
	return read_file(dtype, "blocks", vector->blocks,
					 N_BLOCKS * llm_dtype_block_bytes(dtype)) &&
		   read_file(dtype, "f32", vector->expected,
					 (size_t) vector->n * sizeof(float));
}

/* A row in plain form. */
static uint8_t values[MAX_ELEMENTS];
static float scales[MAX_ELEMENTS / GROUP];
static float offsets[MAX_ELEMENTS / GROUP];
static float scale_units[MAX_ELEMENTS / UNIT];
static float offset_units[MAX_ELEMENTS / UNIT];

/* With the arrays that a format has, and no others. */
static LlmQuantGroups
groups_of(LlmDtype dtype)
{
	LlmQuantGroups groups = { values, scales, NULL, NULL, NULL };

	if (dtype != LLM_DTYPE_INT8)
		groups.offsets = offsets;
	if (dtype == LLM_DTYPE_INT4_K)
	{
		groups.scale_units = scale_units;
		groups.offset_units = offset_units;
	}
	return groups;
}

static float
plain_value(LlmDtype dtype, int64_t i)
{
	if (dtype == LLM_DTYPE_INT8)
		return scales[i / GROUP] * (float) (int8_t) values[i];
	return scales[i / GROUP] * (float) values[i] + offsets[i / GROUP];
}

static bool
is_f16(float value)
{
	return llm_f16_to_float(llm_float_to_f16(value)) == value;
}

/* What the plain form promises of scales, offsets and values. */
static void
check_plain(LlmDtype dtype, int64_t n)
{
	for (int64_t g = 0; g < n / GROUP; g++)
	{
		float scale_unit = scale_units[g / LLM_QUANT_UNIT_GROUPS];
		float offset_unit = offset_units[g / LLM_QUANT_UNIT_GROUPS];
		float s = scale_unit == 0 ? 0 : scales[g] / scale_unit;
		float o = offset_unit == 0 ? 0 : offsets[g] / offset_unit;

		if (dtype != LLM_DTYPE_INT4_K)
		{
			CHECK(is_f16(scales[g]));
			CHECK(dtype == LLM_DTYPE_INT8 || offsets[g] == -8 * scales[g]);
			continue;
		}
		CHECK(is_f16(scale_unit) && is_f16(offset_unit));
		CHECK(s == rintf(s) && s >= 0 && s <= 255);
		CHECK(o == rintf(o) && o >= 0 && o <= 255);
		CHECK(s * scale_unit == scales[g] && o * offset_unit == offsets[g]);
	}
	for (int64_t i = 0; i < n && dtype != LLM_DTYPE_INT8; i++)
		CHECK(values[i] < 16);
}

static void
test_decode(void)
{
	static Vector vector;
	static float out[MAX_ELEMENTS];

	for (size_t k = 0; k < sizeof(block_dtypes) / sizeof(*block_dtypes); k++)
	{
		LlmDtype dtype = block_dtypes[k];
		int n_wrong = 0;

		REQUIRE(read_vector(dtype, &vector));
		llm_quant_decode(dtype, vector.blocks, vector.n, out);
		for (int64_t i = 0; i < vector.n; i++)
			n_wrong += out[i] != vector.expected[i];
		if (n_wrong > 0)
			CHECK_FAIL("%s: %d elements are wrong", llm_dtype_name(dtype),
					   n_wrong);
	}
}

static void
test_unpack(void)
{
	static Vector vector;

	for (size_t k = 0; k < sizeof(block_dtypes) / sizeof(*block_dtypes); k++)
	{
		LlmDtype dtype = block_dtypes[k];
		LlmDtype plain = llm_quant_plain_dtype(dtype);
		LlmQuantGroups groups = groups_of(plain);
		int n_wrong = 0;

		REQUIRE(read_vector(dtype, &vector));
		if (plain == dtype)
		{
			CHECK(!llm_quant_unpack(dtype, vector.blocks, vector.n, &groups));
			continue;
		}
		REQUIRE(llm_quant_unpack(dtype, vector.blocks, vector.n, &groups));
		for (int64_t i = 0; i < vector.n; i++)
			n_wrong += plain_value(plain, i) != vector.expected[i];
		if (n_wrong > 0)
			CHECK_FAIL("%s: %d elements are wrong", llm_dtype_name(dtype),
					   n_wrong);
		check_plain(plain, vector.n);
	}
}

/* Near normal numbers of deviation 1, one in 64 of them ten times that. */
static void
fill_normal(float *out, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
	{
		LlmPhilox random = llm_philox(5, (uint64_t) i, 0);
		double sum = -2.0;

		for (int k = 0; k < 4; k++)
			sum += random.word[k] / 4294967296.0;
		out[i] = (float) (sum * 1.732);
		if (i % 64 == 17)
			out[i] *= 10.0f;
	}
}

/* The root of the mean squared error. */
static double
encoding_error(LlmDtype dtype, const float *src, int64_t n)
{
	LlmQuantGroups groups = groups_of(dtype);
	double error = 0;

	llm_quant_encode(dtype, src, n, &groups);
	check_plain(dtype, n);
	for (int64_t i = 0; i < n; i++)
	{
		double rest = plain_value(dtype, i) - (double) src[i];

		error += rest * rest;
		/* no element is further off than half a step, of int8 */
		if (dtype == LLM_DTYPE_INT8)
			CHECK(fabs(rest) <= 0.5001 * scales[i / GROUP]);
	}
	return sqrt(error / (double) n);
}

/* The same of a grid of 15 steps from a group's least to its largest. */
static double
grid_error(const float *src, int64_t n)
{
	double error = 0;

	for (int64_t g = 0; g < n; g += GROUP)
	{
		double min = 0;
		double max = 0;

		for (int i = 0; i < GROUP; i++)
		{
			min = fmin(min, (double) src[g + i]);
			max = fmax(max, (double) src[g + i]);
		}
		for (int i = 0; i < GROUP; i++)
		{
			double step = (max - min) / 15;
			double rest =
				min + step * rint((src[g + i] - min) / step) - src[g + i];

			error += rest * rest;
		}
	}
	return sqrt(error / (double) n);
}

static void
test_encode(void)
{
	static float src[MAX_ELEMENTS];

	fill_normal(src, MAX_ELEMENTS);
	/* steps of at most 30 / 127 and 60 / 15, and an error of step / sqrt(12) */
	CHECK(encoding_error(LLM_DTYPE_INT8, src, MAX_ELEMENTS) < 0.05);
	CHECK(encoding_error(LLM_DTYPE_INT4_K, src, MAX_ELEMENTS) <
		  0.95 * grid_error(src, MAX_ELEMENTS));
	/* a row that ends within a unit */
	CHECK(encoding_error(LLM_DTYPE_INT4_K, src, 11 * GROUP) <
		  grid_error(src, 11 * GROUP));
	/* numbers that f16 can barely hold, or only in units of 2^-24 */
	for (int i = 0; i < MAX_ELEMENTS; i++)
		src[i] *= i < MAX_ELEMENTS / 2 ? 1e-4f : 1e4f;
	CHECK(encoding_error(LLM_DTYPE_INT4_K, src, MAX_ELEMENTS / 2) <
		  grid_error(src, MAX_ELEMENTS / 2));
	CHECK(encoding_error(LLM_DTYPE_INT4_K, src, MAX_ELEMENTS) <
		  grid_error(src, MAX_ELEMENTS));
	CHECK(encoding_error(LLM_DTYPE_INT8, src, MAX_ELEMENTS / 2) < 0.05e-4);
}

/* Elements that a format can hold come out unchanged. */
static void
test_encode_exact(void)
{
	float src[3 * GROUP] = { 0 };

	CHECK(encoding_error(LLM_DTYPE_INT8, src, 3 * GROUP) == 0);
	CHECK(encoding_error(LLM_DTYPE_INT4_K, src, 3 * GROUP) == 0);
	for (int i = 0; i < 3 * GROUP; i++)
		src[i] = (float) (i % 16 - 8) * 255.0f / 1024;
	CHECK(encoding_error(LLM_DTYPE_INT4_K, src, 3 * GROUP) == 0);
	for (int i = 0; i < 3 * GROUP; i++)
		src[i] = (float) (i % 32 * 8 - 127) / 64;
	CHECK(encoding_error(LLM_DTYPE_INT8, src, 3 * GROUP) == 0);
}

/* What is not a number does not become one. */
static void
test_encode_not_a_number(void)
{
	static const float odd[] = { NAN, INFINITY, -INFINITY };
	float src[10 * GROUP];

	for (int i = 0; i < 3; i++)
	{
		LlmQuantGroups int8 = groups_of(LLM_DTYPE_INT8);
		LlmQuantGroups int4 = groups_of(LLM_DTYPE_INT4_K);

		fill_normal(src, 10 * GROUP);
		src[2 * GROUP + 5] = odd[i];
		llm_quant_encode(LLM_DTYPE_INT8, src, 10 * GROUP, &int8);
		CHECK(isnan(plain_value(LLM_DTYPE_INT8, 2 * GROUP + 5)));
		CHECK(isfinite(plain_value(LLM_DTYPE_INT8, GROUP)));
		llm_quant_encode(LLM_DTYPE_INT4_K, src, 10 * GROUP, &int4);
		CHECK(isnan(plain_value(LLM_DTYPE_INT4_K, 2 * GROUP + 5)));
		CHECK(isfinite(plain_value(LLM_DTYPE_INT4_K, 8 * GROUP)));
	}
}

int
main(void)
{
	RUN_TEST(test_decode);
	RUN_TEST(test_unpack);
	RUN_TEST(test_encode);
	RUN_TEST(test_encode_exact);
	RUN_TEST(test_encode_not_a_number);
	return unit_test_finish();
}
