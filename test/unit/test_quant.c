/*
 * test_quant.c
 *	  Tests of src/common/quant: block formats against the values of python's
 *	  gguf package (test/vectors/quant), encoding against its error bounds.
 *
 * test/unit/test_quant.c
 */
#include <math.h>

#include "src/common/quant/quant.h"
#include "src/common/util/philox.h"
#include "test/unit/unit_test.h"

#define GROUP LLM_QUANT_GROUP_ELEMENTS
#define N_BLOCKS 24
#define MAX_ELEMENTS (N_BLOCKS * 256)

static const LlmDtype block_dtypes[] = { LLM_DTYPE_Q8_0, LLM_DTYPE_Q4_0,
										 LLM_DTYPE_Q4_K, LLM_DTYPE_Q6_K };

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

/* What the plain form says of element i. */
static float
plain_value(LlmDtype dtype, const LlmQuantGroups *groups, int64_t i)
{
	float scale = groups->scales[i / GROUP];

	if (dtype == LLM_DTYPE_INT8)
		return scale * (float) (int8_t) groups->values[i];
	return scale * (float) groups->values[i] + groups->offsets[i / GROUP];
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
	static uint8_t values[MAX_ELEMENTS];
	float scales[MAX_ELEMENTS / GROUP];
	float offsets[MAX_ELEMENTS / GROUP];

	for (size_t k = 0; k < sizeof(block_dtypes) / sizeof(*block_dtypes); k++)
	{
		LlmDtype dtype = block_dtypes[k];
		LlmDtype plain = llm_quant_plain_dtype(dtype);
		LlmQuantGroups groups = { values, scales,
								  plain == LLM_DTYPE_INT8 ? NULL : offsets };
		int n_wrong = 0;

		REQUIRE(read_vector(dtype, &vector));
		if (plain == dtype)
		{
			CHECK(!llm_quant_unpack(dtype, vector.blocks, vector.n, &groups));
			continue;
		}
		REQUIRE(llm_quant_unpack(dtype, vector.blocks, vector.n, &groups));
		for (int64_t i = 0; i < vector.n; i++)
			n_wrong += plain_value(plain, &groups, i) != vector.expected[i];
		if (n_wrong > 0)
			CHECK_FAIL("%s: %d elements are wrong", llm_dtype_name(dtype),
					   n_wrong);
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

static double
encoding_error(LlmDtype dtype, const float *src, int64_t n)
{
	static uint8_t values[MAX_ELEMENTS];
	float scales[MAX_ELEMENTS / GROUP];
	float offsets[MAX_ELEMENTS / GROUP];
	LlmQuantGroups groups = { values, scales,
							  dtype == LLM_DTYPE_INT8 ? NULL : offsets };
	double error = 0;

	llm_quant_encode(dtype, src, n, &groups);
	for (int64_t i = 0; i < n; i++)
	{
		double rest = plain_value(dtype, &groups, i) - (double) src[i];

		error += rest * rest;
		/* no element is further off than half a step, of int8 */
		if (dtype == LLM_DTYPE_INT8)
			CHECK(fabs(rest) <= 0.5001 * scales[i / GROUP]);
	}
	return sqrt(error / (double) n);
}

static void
test_encode(void)
{
	static float src[MAX_ELEMENTS];
	double int8_error;
	double int4_error;

	fill_normal(src, MAX_ELEMENTS);
	int8_error = encoding_error(LLM_DTYPE_INT8, src, MAX_ELEMENTS);
	int4_error = encoding_error(LLM_DTYPE_INT4, src, MAX_ELEMENTS);
	/* steps of about max / 127 and (max - min) / 15, error step / sqrt(12) */
	CHECK(int8_error < 0.02);
	CHECK(int4_error < 0.25);
	CHECK(int4_error > 4 * int8_error);
}

/* Elements that a format can hold come out unchanged. */
static void
test_encode_exact(void)
{
	float src[2 * GROUP];

	for (int i = 0; i < GROUP; i++)
	{
		src[i] = (float) (i * 4 - 64 + (i == 0 ? 1 : 0)) * 2.0f + 128.0f;
		src[GROUP + i] = 0.0f;
	}
	CHECK(encoding_error(LLM_DTYPE_INT8, src + GROUP, GROUP) == 0);
	CHECK(encoding_error(LLM_DTYPE_INT4, src + GROUP, GROUP) == 0);
	for (int i = 0; i < GROUP; i++)
	{
		src[i] = (float) (i % 16) * 0.25f - 1.0f;
		src[GROUP + i] = (float) (i * 8 - 127) * 0.5f;
	}
	CHECK(encoding_error(LLM_DTYPE_INT4, src, GROUP) == 0);
	CHECK(encoding_error(LLM_DTYPE_INT8, src + GROUP, GROUP) < 1e-6);
}

int
main(void)
{
	RUN_TEST(test_decode);
	RUN_TEST(test_unpack);
	RUN_TEST(test_encode);
	RUN_TEST(test_encode_exact);
	return unit_test_finish();
}
