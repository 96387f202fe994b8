/*
 * half_float.h
 *	  Conversions between float and the two 16-bit formats, one value each.
 *
 * Rounding is to nearest, ties to even; infinities and NaNs survive.  Whole
 * rows are converted by the compute backends, which must agree with these.
 *
 * src/common/util/half_float.h
 */
#ifndef LLM_HALF_FLOAT_H
#define LLM_HALF_FLOAT_H

#include <stdint.h>
#include <string.h>

static inline float
llm_bf16_to_float(uint16_t bits)
{
	uint32_t wide = (uint32_t) bits << 16;
	float value;

	memcpy(&value, &wide, sizeof(value));
	return value;
}

static inline uint16_t
llm_float_to_bf16(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
		return (uint16_t) ((bits >> 16) | 0x40u); /* keep a NaN a NaN */
	return (uint16_t) ((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

static inline float
llm_f16_to_float(uint16_t bits)
{
	uint32_t sign = (uint32_t) (bits & 0x8000u) << 16;
	uint32_t exponent = (bits >> 10) & 0x1Fu;
	uint32_t mantissa = bits & 0x3FFu;
	uint32_t wide;
	float value;

	if (exponent == 0)
	{
		/* zero or subnormal: mantissa units of 2^-24, exact in a float */
		value = (float) mantissa * 5.9604644775390625e-8f;
		memcpy(&wide, &value, sizeof(wide));
		wide |= sign;
	}
	else if (exponent == 31)
		wide = sign | 0x7F800000u | (mantissa << 13);
	else
		wide = sign | ((exponent + 112) << 23) | (mantissa << 13);
	memcpy(&value, &wide, sizeof(value));
	return value;
}

static inline uint16_t
llm_float_to_f16(float value)
{
	uint32_t bits;
	uint32_t sign;
	uint32_t magnitude;

	memcpy(&bits, &value, sizeof(bits));
	sign = (bits >> 16) & 0x8000u;
	magnitude = bits & 0x7FFFFFFFu;
	if (magnitude > 0x7F800000u)
		return (uint16_t) (sign | 0x7E00u);
	if (magnitude >= 0x477FF000u) /* rounds to 2^16 or more */
		return (uint16_t) (sign | 0x7C00u);
	if (magnitude < 0x38800000u)
	{
		/*
		 * Subnormal in the target: adding 0.5 leaves the value's units of
		 * 2^-24 in the low mantissa bits, rounded by the addition itself.
		 */
		float shifted;
		uint32_t shifted_bits;

		memcpy(&shifted, &magnitude, sizeof(shifted));
		shifted += 0.5f;
		memcpy(&shifted_bits, &shifted, sizeof(shifted_bits));
		return (uint16_t) (sign | (shifted_bits - 0x3F000000u));
	}
	magnitude += 0xC8000FFFu + ((magnitude >> 13) & 1u);
	return (uint16_t) (sign | (magnitude >> 13));
}

#endif /* LLM_HALF_FLOAT_H */
