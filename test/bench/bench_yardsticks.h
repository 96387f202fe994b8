/*
 * bench_yardsticks.h
 *	  Loops that only read and loops that only multiply, for comparison, and
 *	  the clock that both benchmarks of operations use.
 *
 * test/bench/bench_yardsticks.h
 */
#ifndef LLM_BENCH_YARDSTICKS_H
#define LLM_BENCH_YARDSTICKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "src/common/util/clock.h"
#include "src/common/util/dtype.h"
#include "src/common/util/error.h"
#include "src/engine/compute/cpu_threads.h"

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

/* ---- what every benchmark needs ---- */

/* Count the time that the program was given instead of the time that passed. */
static bool uses_cpu_time;

static int64_t
clock_us(void)
{
	struct timespec used;

	if (!uses_cpu_time)
		return llm_clock_us();
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (int64_t) used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

static void *
need(void *p)
{
	if (p == NULL || p == MAP_FAILED)
	{
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	return p;
}

static void
check(bool ok, const LlmError *err)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

/* ---- both loops on all threads ---- */

#define BUFFER_BYTES ((size_t) 1 << 30)
#define READ_BYTES ((size_t) 128 << 20)
#define READ_CHUNK_BYTES ((size_t) 256 << 10)
#define MAX_THREADS 4096

typedef struct Yardsticks
{
	LlmCpuThreads *threads;
	const char *buffer; /* BUFFER_BYTES */
	size_t begin;		/* of what is read next */
	const char *isa;
	LlmDtype precision;
	double flops[MAX_THREADS];
	atomic_llong next;
} Yardsticks;

/* Chunk by chunk, like the backend's own work. */
static void
read_job(void *arg, int thread_idx, int n_threads)
{
	Yardsticks *yardsticks = arg;
	size_t at;

	(void) thread_idx;
	(void) n_threads;
	while ((at = (size_t) atomic_fetch_add(&yardsticks->next,
										   READ_CHUNK_BYTES)) < READ_BYTES)
		sink = read_bytes(yardsticks->buffer + yardsticks->begin + at,
						  READ_CHUNK_BYTES);
}

/* GB/s; another part of the buffer each time, so that no cache has it. */
static double
measure_reading(Yardsticks *yardsticks)
{
	int64_t start = clock_us();

	yardsticks->begin = (yardsticks->begin + READ_BYTES) % BUFFER_BYTES;
	atomic_store(&yardsticks->next, 0);
	llm_cpu_threads_run(yardsticks->threads, read_job, yardsticks);
	return (double) READ_BYTES / (double) (clock_us() - start) / 1e3;
}

static void
peak_job(void *arg, int thread_idx, int n_threads)
{
	Yardsticks *yardsticks = arg;

	(void) n_threads;
	yardsticks->flops[thread_idx] =
		peak_of(yardsticks->isa, yardsticks->precision);
}

/* GFLOP/s in registers; 0 in portable C. */
static double
measure_multiplying(Yardsticks *yardsticks)
{
	int64_t start = clock_us();
	double total = 0;
	int64_t us;

	llm_cpu_threads_run(yardsticks->threads, peak_job, yardsticks);
	us = clock_us() - start;
	for (int i = 0; i < llm_cpu_threads_count(yardsticks->threads); i++)
		total += yardsticks->flops[i];
	return us > 0 ? total / (double) us / 1e3 : 0;
}

#endif /* LLM_BENCH_YARDSTICKS_H */
