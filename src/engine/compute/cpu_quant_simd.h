/*
 * cpu_quant_simd.h
 *	  Sums of products of small integers, 16 rows of weights at a time.
 *
 * A QWeights is 64 bytes: 4 columns of 16 rows (cpu_quant.h).  A QSum gathers
 * the products of such columns with x, a sum for each row: q_start, then
 * q_add for each four columns of a group of 32, then q_finish, which returns
 * it as floats.  All of it is exact, so that every instruction set has the
 * same results.  bits is 8 or 4, constant after inlining, what a weight has;
 * start is that of LlmCpuQuantX.
 *
 * VNNI adds four products of an unsigned and a signed byte to an int32, so
 * int8 weights are kept as value + 128, and start corrects that.  AVX2 without
 * it multiplies pairs of bytes to int16, where 255 * 127 * 2 would not fit.
 * int8 weights therefore become signed again there, and their sign goes over
 * to x; int4 weights are small enough for a whole group to be added up in
 * int16: 8 * 2 * 15 * 127 < 2^15.
 *
 * src/engine/compute/cpu_quant_simd.h
 */
#ifndef LLM_CPU_QUANT_SIMD_H
#define LLM_CPU_QUANT_SIMD_H

#include "src/engine/compute/cpu_simd.h"

#if defined(__AVX512VNNI__)

typedef __m512i QWeights;
typedef __m512i QSum;

LLM_INLINE QWeights
q_load(const void *src)
{
	return _mm512_loadu_si512(src);
}

/* The low nibbles, and the high ones. */
LLM_INLINE QWeights
q_low(QWeights packed)
{
	return _mm512_and_si512(packed, _mm512_set1_epi8(15));
}

LLM_INLINE QWeights
q_high(QWeights packed)
{
	return _mm512_and_si512(_mm512_srli_epi16(packed, 4), _mm512_set1_epi8(15));
}

LLM_INLINE QSum
q_start(int bits, int32_t start)
{
	(void) bits;
	return _mm512_set1_epi32(start);
}

LLM_INLINE QSum
q_add(int bits, QSum sum, QWeights w, int32_t x4)
{
	(void) bits;
	return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x4));
}

LLM_INLINE V16
q_finish(int bits, QSum sum, int32_t start)
{
	(void) bits;
	(void) start;
	return _mm512_cvtepi32_ps(sum);
}

/* 16 bytes as floats */
LLM_INLINE V16
q_load_u8(const void *src)
{
	return _mm512_cvtepi32_ps(
		_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) src)));
}

/* 16 integral floats, |a| <= 127, as bytes */
LLM_INLINE void
q_store_i8(void *dest, V16 a)
{
	_mm_storeu_si128((__m128i *) dest,
					 _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}

#elif defined(__AVX2__)

typedef struct QWeights
{
	__m256i lo;
	__m256i hi;
} QWeights;

/* AVX-VNNI, or int8: int32; otherwise int16, two for each row */
typedef QWeights QSum;

LLM_INLINE QWeights
q_load(const void *src)
{
	const __m256i *p = src;

	return (QWeights){ _mm256_loadu_si256(p), _mm256_loadu_si256(p + 1) };
}

LLM_INLINE QWeights
q_low(QWeights packed)
{
	__m256i mask = _mm256_set1_epi8(15);

	return (QWeights){ _mm256_and_si256(packed.lo, mask),
					   _mm256_and_si256(packed.hi, mask) };
}

LLM_INLINE QWeights
q_high(QWeights packed)
{
	return q_low((QWeights){ _mm256_srli_epi16(packed.lo, 4),
							 _mm256_srli_epi16(packed.hi, 4) });
}

#if defined(__AVXVNNI__)

LLM_INLINE QSum
q_start(int bits, int32_t start)
{
	(void) bits;
	return (QSum){ _mm256_set1_epi32(start), _mm256_set1_epi32(start) };
}

LLM_INLINE QSum
q_add(int bits, QSum sum, QWeights w, int32_t x4)
{
	__m256i x = _mm256_set1_epi32(x4);

	(void) bits;
	return (QSum){ _mm256_dpbusd_avx_epi32(sum.lo, w.lo, x),
				   _mm256_dpbusd_avx_epi32(sum.hi, w.hi, x) };
}

LLM_INLINE V16
q_finish(int bits, QSum sum, int32_t start)
{
	(void) bits;
	(void) start;
	return (V16){ _mm256_cvtepi32_ps(sum.lo), _mm256_cvtepi32_ps(sum.hi) };
}

#else

LLM_INLINE QSum
q_start(int bits, int32_t start)
{
	(void) bits;
	(void) start;
	return (QSum){ _mm256_setzero_si256(), _mm256_setzero_si256() };
}

/* The sums of four products of signed bytes, |x| <= 127. */
LLM_INLINE __m256i
q8_dot(__m256i w, __m256i x)
{
	w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
	return _mm256_madd_epi16(
		_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)),
		_mm256_set1_epi16(1));
}

LLM_INLINE QSum
q_add(int bits, QSum sum, QWeights w, int32_t x4)
{
	__m256i x = _mm256_set1_epi32(x4);

	if (bits == 8)
		return (QSum){ _mm256_add_epi32(sum.lo, q8_dot(w.lo, x)),
					   _mm256_add_epi32(sum.hi, q8_dot(w.hi, x)) };
	return (QSum){ _mm256_add_epi16(sum.lo, _mm256_maddubs_epi16(w.lo, x)),
				   _mm256_add_epi16(sum.hi, _mm256_maddubs_epi16(w.hi, x)) };
}

LLM_INLINE V16
q_finish(int bits, QSum sum, int32_t start)
{
	if (bits == 4)
	{
		__m256i one = _mm256_set1_epi16(1);
		__m256i first = _mm256_set1_epi32(start);

		sum.lo = _mm256_add_epi32(_mm256_madd_epi16(sum.lo, one), first);
		sum.hi = _mm256_add_epi32(_mm256_madd_epi16(sum.hi, one), first);
	}
	return (V16){ _mm256_cvtepi32_ps(sum.lo), _mm256_cvtepi32_ps(sum.hi) };
}

#endif

LLM_INLINE V16
q_load_u8(const void *src)
{
	__m128i bytes = _mm_loadu_si128((const __m128i *) src);

	return (V16){ _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
				  _mm256_cvtepi32_ps(
					  _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))) };
}

LLM_INLINE void
q_store_i8(void *dest, V16 a)
{
	/* 0 .. 3, 8 .. 11, 4 .. 7, 12 .. 15 */
	__m256i words =
		_mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));

	words = _mm256_permute4x64_epi64(words, 0xD8);
	_mm_storeu_si128((__m128i *) dest,
					 _mm_packs_epi16(_mm256_castsi256_si128(words),
									 _mm256_extracti128_si256(words, 1)));
}

#else

typedef struct QWeights
{
	uint8_t byte[64];
} QWeights;

typedef struct QSum
{
	int32_t row[16];
} QSum;

LLM_INLINE QWeights
q_load(const void *src)
{
	QWeights w;

	memcpy(&w, src, sizeof(w));
	return w;
}

LLM_INLINE QWeights
q_low(QWeights packed)
{
	for (int i = 0; i < 64; i++)
		packed.byte[i] &= 15;
	return packed;
}

LLM_INLINE QWeights
q_high(QWeights packed)
{
	for (int i = 0; i < 64; i++)
		packed.byte[i] >>= 4;
	return packed;
}

LLM_INLINE QSum
q_start(int bits, int32_t start)
{
	QSum sum;

	(void) bits;
	for (int i = 0; i < 16; i++)
		sum.row[i] = start;
	return sum;
}

LLM_INLINE QSum
q_add(int bits, QSum sum, QWeights w, int32_t x4)
{
	int8_t x[4];

	(void) bits;
	memcpy(x, &x4, sizeof(x));
	for (int i = 0; i < 16; i++)
		sum.row[i] += w.byte[4 * i] * x[0] + w.byte[4 * i + 1] * x[1] +
					  w.byte[4 * i + 2] * x[2] + w.byte[4 * i + 3] * x[3];
	return sum;
}

LLM_INLINE V16
q_finish(int bits, QSum sum, int32_t start)
{
	float lanes[16];

	(void) bits;
	(void) start;
	for (int i = 0; i < 16; i++)
		lanes[i] = (float) sum.row[i];
	return v16_load(lanes);
}

LLM_INLINE V16
q_load_u8(const void *src)
{
	const uint8_t *bytes = src;
	float lanes[16];

	for (int i = 0; i < 16; i++)
		lanes[i] = bytes[i];
	return v16_load(lanes);
}

LLM_INLINE void
q_store_i8(void *dest, V16 a)
{
	int8_t *bytes = dest;
	float lanes[16];

	v16_store(lanes, a);
	for (int i = 0; i < 16; i++)
		bytes[i] = (int8_t) lanes[i];
}

#endif

/* a * b + c, rounded once on every instruction set. */
LLM_INLINE V16
q_fma(V16 a, V16 b, V16 c)
{
#if defined(__FMA__)
	return v16_fma(a, b, c);
#else
	float in[3][16];

	v16_store(in[0], a);
	v16_store(in[1], b);
	v16_store(in[2], c);
	for (int i = 0; i < 16; i++)
		in[0][i] = fmaf(in[0][i], in[1][i], in[2][i]);
	return v16_load(in[0]);
#endif
}

#endif /* LLM_CPU_QUANT_SIMD_H */
