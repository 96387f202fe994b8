/*
 * cpu_threads.h
 *	  A fixed team of threads that runs one function together.
 *
 * The caller is thread 0.  Workers spin for a moment after a job, because a
 * forward pass follows one job with the next within microseconds, and sleep
 * on a futex after that: an idle engine costs nothing.
 *
 * src/engine/compute/cpu_threads.h
 */
#ifndef LLM_CPU_THREADS_H
#define LLM_CPU_THREADS_H

#include "src/common/util/error.h"

typedef struct LlmCpuThreads LlmCpuThreads;

/* Runs once on every thread, thread_idx 0 .. n_threads - 1. */
typedef void (*LlmCpuJob)(void *arg, int thread_idx, int n_threads);

/* n_threads 0: one for each CPU of the process's affinity mask. */
extern LlmCpuThreads *llm_cpu_threads_create(int n_threads, LlmError *err);
extern void llm_cpu_threads_free(LlmCpuThreads *threads);

extern int llm_cpu_threads_count(const LlmCpuThreads *threads);

/* Returns when every thread has returned from the job. */
extern void
llm_cpu_threads_run(LlmCpuThreads *threads, LlmCpuJob job, void *arg);

/*
 * Thread idx's share of n items in units of granule: *begin .. *end - 1.
 * Shares differ by one granule at most.
 */
static inline void
llm_cpu_share(int64_t n_items, int64_t granule, int idx, int n_threads,
			  int64_t *begin, int64_t *end)
{
	int64_t n_granules = (n_items + granule - 1) / granule;
	int64_t first = n_granules * idx / n_threads * granule;
	int64_t last = n_granules * (idx + 1) / n_threads * granule;

	*begin = first < n_items ? first : n_items;
	*end = last < n_items ? last : n_items;
}

#endif /* LLM_CPU_THREADS_H */
