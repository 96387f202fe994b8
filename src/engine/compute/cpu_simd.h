/*
 * cpu_simd.h
 *	  Vectors of 16 floats, for kernels that are written once.
 *
 * A kernel's body is a header over these functions; each instruction set has
 * one source file that includes it, compiled with that set's flags (the file
 * name's suffix names it).  V16 is one register with AVX-512, two with AVX2,
 * and four of the compiler's own 16-byte vectors otherwise
 * (cpu_simd_portable.h).  The lane order of every operation, reductions
 * included, is the same in all three.
 *
 * Loads and stores take any alignment: weights come straight from mapped
 * files.
 *
 * src/engine/compute/cpu_simd.h
 */
#ifndef LLM_CPU_SIMD_H
#define LLM_CPU_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "src/common/util/dtype.h"
#include "src/engine/compute/cpu_inline.h"

#if defined(__AVX512F__)

#include <immintrin.h>

typedef __m512 V16;

LLM_INLINE V16
v16_set1(float value)
{
	return _mm512_set1_ps(value);
}

LLM_INLINE V16
v16_load(const void *src)
{
	return _mm512_loadu_ps(src);
}

LLM_INLINE void
v16_store(void *dest, V16 a)
{
	_mm512_storeu_ps(dest, a);
}

LLM_INLINE V16
v16_add(V16 a, V16 b)
{
	return _mm512_add_ps(a, b);
}

LLM_INLINE V16
v16_sub(V16 a, V16 b)
{
	return _mm512_sub_ps(a, b);
}

LLM_INLINE V16
v16_mul(V16 a, V16 b)
{
	return _mm512_mul_ps(a, b);
}

LLM_INLINE V16
v16_div(V16 a, V16 b)
{
	return _mm512_div_ps(a, b);
}

/* a * b + c */
LLM_INLINE V16
v16_fma(V16 a, V16 b, V16 c)
{
	return _mm512_fmadd_ps(a, b, c);
}

/* The larger one; b where either is NaN. */
LLM_INLINE V16
v16_max(V16 a, V16 b)
{
	return _mm512_max_ps(a, b);
}

LLM_INLINE V16
v16_min(V16 a, V16 b)
{
	return _mm512_min_ps(a, b);
}

/* To the nearest integer, ties to even; |a| < 2^22. */
LLM_INLINE V16
v16_round(V16 a)
{
	return _mm512_roundscale_ps(a,
								_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* a * 2^n for integral |n| < 250 */
LLM_INLINE V16
v16_ldexp(V16 a, V16 n)
{
	return _mm512_scalef_ps(a, n);
}

/* where x < y: a, otherwise (NaN too): b */
LLM_INLINE V16
v16_select_lt(V16 x, V16 y, V16 a, V16 b)
{
	return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), b, a);
}

/* bit i: x[i] >= y[i] */
LLM_INLINE uint32_t
v16_mask_ge(V16 x, V16 y)
{
	return _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ);
}

/* where bit i: a, otherwise b */
LLM_INLINE V16
v16_select_bits(uint32_t bits, V16 a, V16 b)
{
	return _mm512_mask_blend_ps((__mmask16) bits, b, a);
}

LLM_INLINE V16
v16_abs(V16 a)
{
	return _mm512_abs_ps(a);
}

/* magnitude of a, sign of b */
LLM_INLINE V16
v16_copysign(V16 a, V16 b)
{
	__m512i sign = _mm512_set1_epi32((int) 0x80000000u);

	/* 0xCA: where sign is set b, otherwise a */
	return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
		sign, _mm512_castps_si512(b), _mm512_castps_si512(a), 0xCA));
}

LLM_INLINE V16
v16_load_f16(const void *src)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) src));
}

LLM_INLINE V16
v16_load_bf16(const void *src)
{
	__m256i half = _mm256_loadu_si256((const __m256i *) src);

	return _mm512_castsi512_ps(
		_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/*
 * 32 bf16 as two vectors, elements 0, 2, 4, ... and 1, 3, 5, ...: one cheap
 * instruction for each, where keeping the order takes two.
 */
LLM_INLINE V16
v16_load_bf16_even(const void *src)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(src), 16));
}

LLM_INLINE V16
v16_load_bf16_odd(const void *src)
{
	return _mm512_castsi512_ps(_mm512_and_si512(
		_mm512_loadu_si512(src), _mm512_set1_epi32((int) 0xFFFF0000u)));
}

/* The sums of four vectors' lanes. */
LLM_INLINE void
v16_reduce_add4(const V16 in[4], float out[4])
{
	__m512 t0 = _mm512_add_ps(_mm512_unpacklo_ps(in[0], in[1]),
							  _mm512_unpackhi_ps(in[0], in[1]));
	__m512 t1 = _mm512_add_ps(_mm512_unpacklo_ps(in[2], in[3]),
							  _mm512_unpackhi_ps(in[2], in[3]));
	__m512d p0 = _mm512_castps_pd(t0);
	__m512d p1 = _mm512_castps_pd(t1);
	__m512 u = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p0, p1)),
							 _mm512_castpd_ps(_mm512_unpackhi_pd(p0, p1)));
	__m256 half =
		_mm256_add_ps(_mm512_castps512_ps256(u), _mm512_extractf32x8_ps(u, 1));

	_mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half),
								  _mm256_extractf128_ps(half, 1)));
}

LLM_INLINE float
v16_reduce_max(V16 a)
{
	return _mm512_reduce_max_ps(a);
}

#elif defined(__AVX2__)

#include <immintrin.h>

typedef struct V16
{
	__m256 lo;
	__m256 hi;
} V16;

LLM_INLINE V16
v16_set1(float value)
{
	return (V16){ _mm256_set1_ps(value), _mm256_set1_ps(value) };
}

LLM_INLINE V16
v16_load(const void *src)
{
	const char *p = src;

	return (V16){ _mm256_loadu_ps((const float *) p),
				  _mm256_loadu_ps((const float *) (p + 32)) };
}

LLM_INLINE void
v16_store(void *dest, V16 a)
{
	char *p = dest;

	_mm256_storeu_ps((float *) p, a.lo);
	_mm256_storeu_ps((float *) (p + 32), a.hi);
}

LLM_INLINE V16
v16_add(V16 a, V16 b)
{
	return (V16){ _mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi) };
}

LLM_INLINE V16
v16_sub(V16 a, V16 b)
{
	return (V16){ _mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi) };
}

LLM_INLINE V16
v16_mul(V16 a, V16 b)
{
	return (V16){ _mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi) };
}

LLM_INLINE V16
v16_div(V16 a, V16 b)
{
	return (V16){ _mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi) };
}

LLM_INLINE V16
v16_fma(V16 a, V16 b, V16 c)
{
	return (V16){ _mm256_fmadd_ps(a.lo, b.lo, c.lo),
				  _mm256_fmadd_ps(a.hi, b.hi, c.hi) };
}

LLM_INLINE V16
v16_max(V16 a, V16 b)
{
	return (V16){ _mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi) };
}

LLM_INLINE V16
v16_min(V16 a, V16 b)
{
	return (V16){ _mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi) };
}

LLM_INLINE V16
v16_round(V16 a)
{
	return (V16){
		_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
		_mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
	};
}

LLM_INLINE __m256
v8_pow2(__m256i n)
{
	return _mm256_castsi256_ps(
		_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* In two steps, so that the result may be subnormal or overflow. */
LLM_INLINE __m256
v8_ldexp(__m256 a, __m256 n)
{
	__m256i whole = _mm256_cvtps_epi32(n);
	__m256i half = _mm256_srai_epi32(whole, 1);

	a = _mm256_mul_ps(a, v8_pow2(half));
	return _mm256_mul_ps(a, v8_pow2(_mm256_sub_epi32(whole, half)));
}

LLM_INLINE V16
v16_ldexp(V16 a, V16 n)
{
	return (V16){ v8_ldexp(a.lo, n.lo), v8_ldexp(a.hi, n.hi) };
}

LLM_INLINE V16
v16_select_lt(V16 x, V16 y, V16 a, V16 b)
{
	return (V16){
		_mm256_blendv_ps(b.lo, a.lo, _mm256_cmp_ps(x.lo, y.lo, _CMP_LT_OQ)),
		_mm256_blendv_ps(b.hi, a.hi, _mm256_cmp_ps(x.hi, y.hi, _CMP_LT_OQ))
	};
}

/* all ones in lane i where bit i is set */
LLM_INLINE __m256
v8_from_bits(uint32_t bits)
{
	const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
	__m256i set = _mm256_and_si256(_mm256_set1_epi32((int) bits), each);

	return _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, each));
}

LLM_INLINE V16
v16_select_bits(uint32_t bits, V16 a, V16 b)
{
	return (V16){ _mm256_blendv_ps(b.lo, a.lo, v8_from_bits(bits)),
				  _mm256_blendv_ps(b.hi, a.hi, v8_from_bits(bits >> 8)) };
}

LLM_INLINE uint32_t
v16_mask_ge(V16 x, V16 y)
{
	uint32_t lo =
		(uint32_t) _mm256_movemask_ps(_mm256_cmp_ps(x.lo, y.lo, _CMP_GE_OQ));
	uint32_t hi =
		(uint32_t) _mm256_movemask_ps(_mm256_cmp_ps(x.hi, y.hi, _CMP_GE_OQ));

	return lo | hi << 8;
}

LLM_INLINE V16
v16_abs(V16 a)
{
	__m256 sign = _mm256_set1_ps(-0.0f);

	return (V16){ _mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi) };
}

LLM_INLINE V16
v16_copysign(V16 a, V16 b)
{
	__m256 sign = _mm256_set1_ps(-0.0f);

	return (V16){
		_mm256_or_ps(_mm256_andnot_ps(sign, a.lo), _mm256_and_ps(sign, b.lo)),
		_mm256_or_ps(_mm256_andnot_ps(sign, a.hi), _mm256_and_ps(sign, b.hi))
	};
}

LLM_INLINE V16
v16_load_f16(const void *src)
{
	const __m128i *p = src;

	return (V16){ _mm256_cvtph_ps(_mm_loadu_si128(p)),
				  _mm256_cvtph_ps(_mm_loadu_si128(p + 1)) };
}

LLM_INLINE __m256
v8_from_bf16(__m128i half)
{
	return _mm256_castsi256_ps(
		_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

LLM_INLINE V16
v16_load_bf16(const void *src)
{
	const __m128i *p = src;

	return (V16){ v8_from_bf16(_mm_loadu_si128(p)),
				  v8_from_bf16(_mm_loadu_si128(p + 1)) };
}

LLM_INLINE V16
v16_load_bf16_even(const void *src)
{
	const __m256i *p = src;

	return (V16){
		_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(p), 16)),
		_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(p + 1), 16))
	};
}

LLM_INLINE V16
v16_load_bf16_odd(const void *src)
{
	const __m256i *p = src;
	__m256i mask = _mm256_set1_epi32((int) 0xFFFF0000u);

	return (V16){
		_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(p), mask)),
		_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(p + 1), mask))
	};
}

LLM_INLINE __m128
v8_reduce_add4(__m256 a, __m256 b, __m256 c, __m256 d, __m128 *high)
{
	__m256 t0 =
		_mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
	__m256 t1 =
		_mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
	__m256d p0 = _mm256_castps_pd(t0);
	__m256d p1 = _mm256_castps_pd(t1);
	__m256 u = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(p0, p1)),
							 _mm256_castpd_ps(_mm256_unpackhi_pd(p0, p1)));

	*high = _mm256_extractf128_ps(u, 1);
	return _mm256_castps256_ps128(u);
}

LLM_INLINE void
v16_reduce_add4(const V16 in[4], float out[4])
{
	__m128 q1;
	__m128 q3;
	__m128 q0 = v8_reduce_add4(in[0].lo, in[1].lo, in[2].lo, in[3].lo, &q1);
	__m128 q2 = v8_reduce_add4(in[0].hi, in[1].hi, in[2].hi, in[3].hi, &q3);

	_mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(q0, q2), _mm_add_ps(q1, q3)));
}

LLM_INLINE float
v16_reduce_max(V16 a)
{
	__m256 m = _mm256_max_ps(a.lo, a.hi);
	__m128 q =
		_mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));

	q = _mm_max_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

#else

#include "src/engine/compute/cpu_simd_portable.h"

#endif

/* ------------------------------------------------------------------------
 * What all of them share
 * ------------------------------------------------------------------------
 */

LLM_INLINE V16
v16_zero(void)
{
	return v16_set1(0.0f);
}

LLM_INLINE float
v16_reduce_add(V16 a)
{
	V16 in[4] = { a, v16_zero(), v16_zero(), v16_zero() };
	float out[4];

	v16_reduce_add4(in, out);
	return out[0];
}

/* The first n of 16 floats, zeros after them. */
LLM_INLINE V16
v16_load_first(const void *src, int64_t n)
{
	float lanes[16] = { 0 };

	memcpy(lanes, src, (size_t) n * sizeof(float));
	return v16_load(lanes);
}

LLM_INLINE void
v16_store_first(void *dest, V16 a, int64_t n)
{
	float lanes[16];

	v16_store(lanes, a);
	memcpy(dest, lanes, (size_t) n * sizeof(float));
}

/* Elements i .. i + 15 of a weight vector in its stored dtype. */
LLM_INLINE V16
v16_load_as(const void *src, LlmDtype dtype, int64_t i)
{
	const char *p = (const char *) src;

	if (dtype == LLM_DTYPE_F32)
		return v16_load(p + i * 4);
	if (dtype == LLM_DTYPE_F16)
		return v16_load_f16(p + i * 2);
	return v16_load_bf16(p + i * 2);
}

LLM_INLINE V16
v16_load_first_as(const void *src, LlmDtype dtype, int64_t i, int64_t n)
{
	char lanes[64] = { 0 };
	size_t size = llm_dtype_bytes(dtype);

	memcpy(lanes, (const char *) src + (size_t) i * size, (size_t) n * size);
	return v16_load_as(lanes, dtype, 0);
}

/*
 * exp(x) - 1 for |x| <= ln(2) / 2, and the power of two that is left:
 * exp(x) = 2^n (1 + result).  Taylor to the 7th order: the first term left
 * out is below 6e-9 there.  ln(2) is taken off in two parts, the first of so
 * few bits that n times it is exact.
 */
LLM_INLINE V16
v16_exp_reduced(V16 x, V16 *n)
{
	V16 r;
	V16 p;

	*n = v16_round(v16_mul(x, v16_set1(1.44269504088896341f)));
	r = v16_fma(*n, v16_set1(-0.693359375f), x);
	r = v16_fma(*n, v16_set1(2.12194440054690583e-4f), r);
	p = v16_fma(r, v16_set1(1.0f / 5040), v16_set1(1.0f / 720));
	p = v16_fma(r, p, v16_set1(1.0f / 120));
	p = v16_fma(r, p, v16_set1(1.0f / 24));
	p = v16_fma(r, p, v16_set1(1.0f / 6));
	p = v16_fma(r, p, v16_set1(0.5f));
	return v16_fma(v16_mul(r, r), p, r);
}

/* exp(0) is 1 and exp(-inf) is 0, exactly; NaN stays NaN. */
LLM_INLINE V16
v16_exp(V16 x)
{
	V16 n;
	V16 p;

	x = v16_min(v16_set1(90.0f), x);
	x = v16_max(v16_set1(-110.0f), x);
	p = v16_exp_reduced(x, &n);
	return v16_ldexp(v16_add(p, v16_set1(1.0f)), n);
}

/* tanh(x) = (e^2x - 1) / (e^2x + 1), from e^2x - 1 without cancellation. */
LLM_INLINE V16
v16_tanh(V16 x)
{
	V16 a = v16_abs(x);
	V16 n;
	V16 p;
	V16 two_n;

	a = v16_min(v16_set1(10.0f), a);
	p = v16_exp_reduced(v16_add(a, a), &n);
	two_n = v16_ldexp(v16_set1(1.0f), n);
	p = v16_fma(p, two_n, v16_sub(two_n, v16_set1(1.0f)));
	return v16_copysign(v16_div(p, v16_add(p, v16_set1(2.0f))), x);
}

#endif /* LLM_CPU_SIMD_H */
