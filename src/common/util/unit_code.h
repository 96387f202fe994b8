/*
 * unit_code.h
 *	  Vectors as codes of 8 bits that share a unit, a power of two.
 *
 * A value is its code, an e4m3 float or an int8, times 2^(unit - 127), where
 * unit is a byte chosen so that the vector's largest value is just
 * representable (the shared scale of OCP's Microscaling formats).  Such a
 * product has at most 8 significant bits, so it is a bf16 number exactly:
 * whoever reads codes computes with the same values, in whatever format.  A
 * vector that holds something infinite or not a number has the unit
 * LLM_UNIT_NAN and reads as NaN; codes themselves are always finite.
 *
 * src/common/util/unit_code.h
 */
#ifndef LLM_UNIT_CODE_H
#define LLM_UNIT_CODE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "src/common/util/dtype.h"

#define LLM_UNIT_NAN 255

/*
 * Units stay far inside f32's range, so that a unit, its inverse and some
 * powers of two more are normal numbers.
 */
#define LLM_UNIT_MIN 63
#define LLM_UNIT_MAX 227

static inline bool
llm_dtype_is_coded(LlmDtype dtype)
{
	return dtype == LLM_DTYPE_FP8_E4M3 || dtype == LLM_DTYPE_INT8;
}

/* The bits of |x|: they order like the numbers, infinities and NaNs last. */
static inline uint32_t
llm_magnitude_bits(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	return bits & 0x7FFFFFFFu;
}

/*
 * The unit for a vector whose largest magnitude has these bits: 2^8 times
 * 1.75 is e4m3's largest number, 2^6 times 127/64 int8's.
 */
static inline uint8_t
llm_unit_of(LlmDtype dtype, uint32_t largest_bits)
{
	bool is_e4m3 = dtype == LLM_DTYPE_FP8_E4M3;
	uint32_t mantissa = largest_bits & 0x7FFFFFu;
	int32_t unit = (int32_t) (largest_bits >> 23) - (is_e4m3 ? 8 : 6) +
				   (mantissa > (is_e4m3 ? 0x600000u : 0x7E0000u));

	if (largest_bits >= 0x7F800000u)
		return LLM_UNIT_NAN;
	if (unit > LLM_UNIT_MAX)
		return LLM_UNIT_MAX;
	return (uint8_t) (unit < LLM_UNIT_MIN ? LLM_UNIT_MIN : unit);
}

/* 2^(unit - 127), or NaN. */
static inline float
llm_unit_value(uint8_t unit)
{
	uint32_t bits = unit == LLM_UNIT_NAN ? 0x7FC00000u : (uint32_t) unit << 23;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* To e4m3, nearest, ties to even; beyond its range its largest number. */
static inline uint8_t
llm_float_to_e4m3(float value)
{
	uint32_t magnitude = llm_magnitude_bits(value);
	uint32_t bits;
	float absolute;

	memcpy(&bits, &value, sizeof(bits));
	memcpy(&absolute, &magnitude, sizeof(absolute));
	if (!(absolute < 448))
		magnitude = 0x7E;
	else if (absolute < 0.015625f) /* 2^-6: subnormal, units of 2^-9 */
		magnitude = (uint32_t) lrintf(absolute * 512);
	else
		magnitude = ((magnitude + 0x7FFFFu + (magnitude >> 20 & 1u)) >> 20) -
					(120 << 3);
	return (uint8_t) (bits >> 31 << 7 | magnitude);
}

/* Every code of e4m3 but its NaN. */
static inline float
llm_e4m3_to_float(uint8_t code)
{
	uint32_t bits = (code & 0x7Fu) << 20;
	float tiny;

	memcpy(&tiny, &bits, sizeof(tiny));
	return (code & 0x80 ? -1.329227995784916e36f : 1.329227995784916e36f) *
		   tiny; /* 2^120 */
}

/* The code of a value in a vector of this unit. */
static inline uint8_t
llm_code_of(LlmDtype dtype, float value, uint8_t unit)
{
	float in_units;

	if (unit == LLM_UNIT_NAN)
		return 0;
	in_units = value * llm_unit_value((uint8_t) (254 - unit));
	if (dtype == LLM_DTYPE_FP8_E4M3)
		return llm_float_to_e4m3(in_units);
	in_units = in_units > 127 ? 127 : in_units < -127 ? -127 : in_units;
	return (uint8_t) (int8_t) lrintf(in_units);
}

static inline float
llm_code_value(LlmDtype dtype, uint8_t code, uint8_t unit)
{
	return llm_unit_value(unit) * (dtype == LLM_DTYPE_FP8_E4M3
									   ? llm_e4m3_to_float(code)
									   : (float) (int8_t) code);
}

#endif /* LLM_UNIT_CODE_H */
