/*
 * cpu_simd_portable.h
 *	  V16 of cpu_simd.h in plain C, with the vectors that compilers offer on
 *	  every processor.
 *
 * Included by cpu_simd.h alone.
 *
 * src/engine/compute/cpu_simd_portable.h
 */
#ifndef LLM_CPU_SIMD_PORTABLE_H
#define LLM_CPU_SIMD_PORTABLE_H

#include <stdint.h>
#include <string.h>

#include "src/engine/compute/cpu_inline.h"

typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));

typedef struct V16
{
	F4 q[4];
} V16;

LLM_INLINE F4
f4_select(I4 mask, F4 a, F4 b)
{
	return (F4) (((I4) a & mask) | ((I4) b & ~mask));
}

#define V16_EACH(expression)        \
	do                              \
	{                               \
		LLM_UNROLL                  \
		for (int i = 0; i < 4; i++) \
			r.q[i] = (expression);  \
	} while (0)

LLM_INLINE V16
v16_set1(float value)
{
	V16 r;

	V16_EACH(((F4){ value, value, value, value }));
	return r;
}

LLM_INLINE V16
v16_load(const void *src)
{
	V16 r;

	memcpy(&r, src, sizeof(r));
	return r;
}

LLM_INLINE void
v16_store(void *dest, V16 a)
{
	memcpy(dest, &a, sizeof(a));
}

LLM_INLINE V16
v16_add(V16 a, V16 b)
{
	V16 r;

	V16_EACH(a.q[i] + b.q[i]);
	return r;
}

LLM_INLINE V16
v16_sub(V16 a, V16 b)
{
	V16 r;

	V16_EACH(a.q[i] - b.q[i]);
	return r;
}

LLM_INLINE V16
v16_mul(V16 a, V16 b)
{
	V16 r;

	V16_EACH(a.q[i] * b.q[i]);
	return r;
}

LLM_INLINE V16
v16_div(V16 a, V16 b)
{
	V16 r;

	V16_EACH(a.q[i] / b.q[i]);
	return r;
}

LLM_INLINE V16
v16_fma(V16 a, V16 b, V16 c)
{
	V16 r;

	V16_EACH(a.q[i] * b.q[i] + c.q[i]);
	return r;
}

LLM_INLINE V16
v16_max(V16 a, V16 b)
{
	V16 r;

	V16_EACH(f4_select((I4) (a.q[i] > b.q[i]), a.q[i], b.q[i]));
	return r;
}

LLM_INLINE V16
v16_min(V16 a, V16 b)
{
	V16 r;

	V16_EACH(f4_select((I4) (a.q[i] < b.q[i]), a.q[i], b.q[i]));
	return r;
}

/* Adding 1.5 * 2^23 leaves no bits for a fraction. */
LLM_INLINE V16
v16_round(V16 a)
{
	const F4 magic = { 12582912.0f, 12582912.0f, 12582912.0f, 12582912.0f };
	V16 r;

	V16_EACH((a.q[i] + magic) - magic);
	return r;
}

LLM_INLINE F4
f4_pow2(I4 n)
{
	return (F4) ((n + 127) << 23);
}

/* In two steps, so that the result may be subnormal or overflow. */
LLM_INLINE F4
f4_ldexp(F4 a, F4 n)
{
	I4 whole = { (int32_t) n[0], (int32_t) n[1], (int32_t) n[2],
				 (int32_t) n[3] };
	I4 half = whole >> 1;

	return a * f4_pow2(half) * f4_pow2(whole - half);
}

LLM_INLINE V16
v16_ldexp(V16 a, V16 n)
{
	V16 r;

	V16_EACH(f4_ldexp(a.q[i], n.q[i]));
	return r;
}

LLM_INLINE V16
v16_select_lt(V16 x, V16 y, V16 a, V16 b)
{
	V16 r;

	V16_EACH(f4_select((I4) (x.q[i] < y.q[i]), a.q[i], b.q[i]));
	return r;
}

LLM_INLINE V16
v16_select_bits(uint32_t bits, V16 a, V16 b)
{
	const I4 each = { 1, 2, 4, 8 };
	V16 r;

	V16_EACH(f4_select((I4) (((int32_t) (bits >> 4 * i) & each) == each),
					   a.q[i], b.q[i]));
	return r;
}

LLM_INLINE uint32_t
v16_mask_ge(V16 x, V16 y)
{
	uint32_t mask = 0;

	for (int i = 0; i < 16; i++)
		mask |= (uint32_t) (x.q[i / 4][i % 4] >= y.q[i / 4][i % 4]) << i;
	return mask;
}

LLM_INLINE V16
v16_abs(V16 a)
{
	V16 r;

	V16_EACH((F4) ((I4) a.q[i] & 0x7FFFFFFF));
	return r;
}

LLM_INLINE V16
v16_copysign(V16 a, V16 b)
{
	const int32_t sign = INT32_MIN;
	V16 r;

	V16_EACH((F4) (((I4) a.q[i] & ~sign) | ((I4) b.q[i] & sign)));
	return r;
}

/* 16 halves, each at the low end of a word. */
LLM_INLINE V16
v16_load_halves(const void *src)
{
	uint16_t half[16];
	uint32_t wide[16];

	memcpy(half, src, sizeof(half));
	for (int i = 0; i < 16; i++)
		wide[i] = half[i];
	return v16_load(wide);
}

/*
 * Exponent and mantissa move to their places, and a multiplication by 2^112
 * corrects the exponent, subnormal numbers' too; infinities and NaNs have to
 * be told apart.
 */
LLM_INLINE V16
v16_load_f16(const void *src)
{
	V16 halves = v16_load_halves(src);
	V16 r;

	LLM_UNROLL
	for (int i = 0; i < 4; i++)
	{
		I4 h = (I4) halves.q[i];
		I4 magnitude = (h & 0x7FFF) << 13;
		I4 is_special = (h & 0x7C00) == 0x7C00;
		F4 value = (F4) magnitude * 0x1p112f;
		I4 special = magnitude | 0x7F800000;

		r.q[i] = f4_select(is_special, (F4) special, value);
		r.q[i] = (F4) ((I4) r.q[i] | (h & 0x8000) << 16);
	}
	return r;
}

LLM_INLINE V16
v16_load_bf16(const void *src)
{
	V16 halves = v16_load_halves(src);
	V16 r;

	V16_EACH((F4) ((I4) halves.q[i] << 16));
	return r;
}

/* Little-endian: element 0 of a pair is the low half of its word. */
LLM_INLINE V16
v16_load_bf16_even(const void *src)
{
	V16 both = v16_load(src);
	V16 r;

	V16_EACH((F4) ((I4) both.q[i] << 16));
	return r;
}

LLM_INLINE V16
v16_load_bf16_odd(const void *src)
{
	V16 both = v16_load(src);
	V16 r;

	V16_EACH((F4) ((I4) both.q[i] & (int32_t) 0xFFFF0000u));
	return r;
}

LLM_INLINE void
v16_reduce_add4(const V16 in[4], float out[4])
{
	LLM_UNROLL
	for (int i = 0; i < 4; i++)
	{
		F4 u[4];

		LLM_UNROLL
		for (int j = 0; j < 4; j++)
		{
			F4 v = in[i].q[j];

			u[j][0] = (v[0] + v[2]) + (v[1] + v[3]);
		}
		out[i] = (u[0][0] + u[2][0]) + (u[1][0] + u[3][0]);
	}
}

LLM_INLINE float
v16_reduce_max(V16 a)
{
	float best = a.q[0][0];

	for (int i = 1; i < 16; i++)
		best = a.q[i / 4][i % 4] > best ? a.q[i / 4][i % 4] : best;
	return best;
}

#endif /* LLM_CPU_SIMD_PORTABLE_H */
