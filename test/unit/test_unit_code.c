/*
 * test_unit_code.c
 *	  Codes of 8 bits and the units that vectors of them share.
 *
 * test/unit/test_unit_code.c
 */
#include <math.h>

#include "src/common/util/half_float.h"
#include "src/common/util/unit_code.h"
#include "test/unit/unit_test.h"

/* e4m3 by its definition: 1 sign, 4 bits of exponent (bias 7), 3 of mantissa. */
static double
e4m3_by_definition(int code)
{
	int exponent = code >> 3 & 15;
	double mantissa = (code & 7) / 8.0;
	double value =
		exponent == 0 ? ldexp(mantissa, -6) : ldexp(1 + mantissa, exponent - 7);

	return code & 0x80 ? -value : value;
}

static bool
is_e4m3_nan(int code)
{
	return (code & 0x7F) == 0x7F;
}

static void
test_e4m3(void)
{
	for (int code = 0; code < 256; code++)
	{
		double value = e4m3_by_definition(code);

		if (is_e4m3_nan(code))
			continue;
		CHECK((double) llm_e4m3_to_float((uint8_t) code) == value);
		CHECK_INT_EQ(llm_float_to_e4m3((float) value), code);
	}
	CHECK_INT_EQ(llm_float_to_e4m3(1e9f), 0x7E);
	CHECK_INT_EQ(llm_float_to_e4m3(-449), 0xFE);
}

/* Every number between two codes goes to the nearer one, ties to even. */
static void
test_e4m3_rounding(void)
{
	for (int code = 0; code < 0x7E; code++)
	{
		float low = llm_e4m3_to_float((uint8_t) code);
		float high = llm_e4m3_to_float((uint8_t) (code + 1));
		float middle = (low + high) / 2;

		CHECK_INT_EQ(llm_float_to_e4m3(middle), code + code % 2);
		CHECK_INT_EQ(llm_float_to_e4m3(nextafterf(middle, 0)), code);
		CHECK_INT_EQ(llm_float_to_e4m3(nextafterf(middle, 1e9f)), code + 1);
	}
}

/* The largest value is in range, and would not be in half of it. */
static void
check_unit(LlmDtype dtype, float largest, float limit)
{
	uint8_t unit = llm_unit_of(dtype, llm_magnitude_bits(largest));
	float size = llm_unit_value(unit);

	CHECK(fabsf(largest) <= limit * size);
	if (unit > LLM_UNIT_MIN)
		CHECK(fabsf(largest) > limit * size / 2);
}

static void
test_units(void)
{
	static const float sizes[] = { 1e-30f, 1e-12f,	   0.003f,	  1,
								   1.75f,  1.7500001f, 1.984375f, 1.9843751f,
								   3,	   448,		   449,		  3e8f };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		check_unit(LLM_DTYPE_FP8_E4M3, sizes[i], 448);
		check_unit(LLM_DTYPE_INT8, -sizes[i], 127);
	}
	CHECK_INT_EQ(llm_unit_of(LLM_DTYPE_INT8, 0), LLM_UNIT_MIN);
	CHECK_INT_EQ(llm_unit_of(LLM_DTYPE_INT8, llm_magnitude_bits(INFINITY)),
				 LLM_UNIT_NAN);
	CHECK_INT_EQ(llm_unit_of(LLM_DTYPE_INT8, llm_magnitude_bits(NAN)),
				 LLM_UNIT_NAN);
	CHECK(isnan(llm_code_value(LLM_DTYPE_INT8, 0, LLM_UNIT_NAN)));
}

/* Codes are bf16 numbers, and what they stand for has the same code again. */
static void
test_codes(LlmDtype dtype)
{
	for (int code = 0; code < 256; code++)
	{
		uint8_t unit = (uint8_t) (100 + code % 60);
		float value = llm_code_value(dtype, (uint8_t) code, unit);

		if (dtype == LLM_DTYPE_FP8_E4M3 ? is_e4m3_nan(code) : code == 0x80)
			continue;
		CHECK(llm_bf16_to_float(llm_float_to_bf16(value)) == value);
		CHECK_INT_EQ(llm_code_of(dtype, value, unit), code);
	}
}

static void
test_all_codes(void)
{
	test_codes(LLM_DTYPE_FP8_E4M3);
	test_codes(LLM_DTYPE_INT8);
	CHECK_INT_EQ(llm_code_of(LLM_DTYPE_INT8, 1e9f, 127), 127);
	CHECK_INT_EQ((int8_t) llm_code_of(LLM_DTYPE_INT8, -1e9f, 127), -127);
}

int
main(void)
{
	RUN_TEST(test_e4m3);
	RUN_TEST(test_e4m3_rounding);
	RUN_TEST(test_units);
	RUN_TEST(test_all_codes);
	return unit_test_finish();
}
