/*
 * bench_yardsticks.h
 *	  Loops that only read and loops that only multiply, for comparison.
 *
 * test/bench/bench_yardsticks.h
 */
#ifndef LLM_BENCH_YARDSTICKS_H
#define LLM_BENCH_YARDSTICKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "src/common/util/dtype.h"

/* Where results go, so that they are computed. */
static volatile float sink;

#if defined(__x86_64__)

__attribute__((target("avx2"))) static float
read_bytes(const char *p, size_t n_bytes)
{
	__m256i sum[8];

	memset(sum, 0, sizeof(sum));
	for (size_t i = 0; i + 256 <= n_bytes; i += 256)
	{
#pragma GCC unroll 8
		for (int j = 0; j < 8; j++)
			sum[j] = _mm256_xor_si256(
				sum[j], _mm256_loadu_si256((const __m256i *) (p + i + 32 * j)));
	}
	for (int j = 1; j < 8; j++)
		sum[0] = _mm256_xor_si256(sum[0], sum[j]);
	return (float) _mm256_extract_epi32(sum[0], 0);
}

#define N_PEAK 200000
#define N_ACC 12

__attribute__((target("avx2,fma"))) static double
peak_avx2(void)
{
	__m256 acc[N_ACC];
	__m256 a = _mm256_set1_ps(0.5f);
	__m256 b = _mm256_set1_ps(0.25f);

	for (int j = 0; j < N_ACC; j++)
		acc[j] = _mm256_set1_ps((float) j);
	for (int i = 0; i < N_PEAK; i++)
	{
#pragma GCC unroll 12
		for (int j = 0; j < N_ACC; j++)
			acc[j] = _mm256_fmadd_ps(acc[j], a, b);
	}
	for (int j = 1; j < N_ACC; j++)
		acc[0] = _mm256_add_ps(acc[0], acc[j]);
	sink = _mm256_cvtss_f32(acc[0]);
	return (double) N_PEAK * N_ACC * 16;
}

__attribute__((target("avx512f"))) static double
peak_avx512(void)
{
	__m512 acc[N_ACC];
	__m512 a = _mm512_set1_ps(0.5f);
	__m512 b = _mm512_set1_ps(0.25f);

	for (int j = 0; j < N_ACC; j++)
		acc[j] = _mm512_set1_ps((float) j);
	for (int i = 0; i < N_PEAK; i++)
	{
#pragma GCC unroll 12
		for (int j = 0; j < N_ACC; j++)
			acc[j] = _mm512_fmadd_ps(acc[j], a, b);
	}
	for (int j = 1; j < N_ACC; j++)
		acc[0] = _mm512_add_ps(acc[0], acc[j]);
	sink = _mm512_cvtss_f32(acc[0]);
	return (double) N_PEAK * N_ACC * 32;
}

__attribute__((target("avx512f,avx512bf16"))) static double
peak_avx512bf16(void)
{
	__m512 acc[N_ACC];
	__m512bh a = (__m512bh) _mm512_set1_epi32(0x3F003F00);

	for (int j = 0; j < N_ACC; j++)
		acc[j] = _mm512_set1_ps((float) j);
	for (int i = 0; i < N_PEAK; i++)
	{
#pragma GCC unroll 12
		for (int j = 0; j < N_ACC; j++)
			acc[j] = _mm512_dpbf16_ps(acc[j], a, a);
	}
	for (int j = 1; j < N_ACC; j++)
		acc[0] = _mm512_add_ps(acc[0], acc[j]);
	sink = _mm512_cvtss_f32(acc[0]);
	return (double) N_PEAK * N_ACC * 64;
}

#else

static float
read_bytes(const char *p, size_t n_bytes)
{
	uint64_t sum = 0;

	for (size_t i = 0; i + 8 <= n_bytes; i += 8)
		sum ^= *(const uint64_t *) (p + i);
	return (float) sum;
}

#endif

/* Plain C has no peak of its own to be measured against. */
static double
peak_of(const char *isa, LlmDtype precision)
{
#if defined(__x86_64__)
	if (strncmp(isa, "avx2", 4) == 0)
		return peak_avx2();
	if (strcmp(isa, "avx512bf16") == 0 && precision == LLM_DTYPE_BF16)
		return peak_avx512bf16();
	if (strncmp(isa, "avx512", 6) == 0)
		return peak_avx512();
#endif
	(void) isa;
	(void) precision;
	return 0;
}

#endif /* LLM_BENCH_YARDSTICKS_H */
