/*
 * cpu_soft_cap.c
 *	  Logits bent smoothly below a limit.
 *
 * src/engine/compute/cpu_soft_cap.c
 */
#include <assert.h>

#include "src/engine/compute/cpu_internal.h"

/* Below so many values one thread is done before another has woken up. */
#define PARALLEL_VALUES 16384

/* Threads share the values in units of so many. */
#define VALUE_GRANULE 64

typedef struct SoftCapJob
{
	const LlmCpu *cpu;
	const LlmSoftCapArgs *args;
} SoftCapJob;

static void
soft_cap_job(void *arg, int thread_idx, int n_threads)
{
	const SoftCapJob *job = arg;
	int64_t begin;
	int64_t end;

	llm_cpu_share(job->args->n, VALUE_GRANULE, thread_idx, n_threads, &begin,
				  &end);
	job->cpu->vector.soft_cap(job->args->x + begin, end - begin,
							  job->args->soft_cap);
}

bool
llm_cpu_soft_cap(LlmCompute *compute, const LlmSoftCapArgs *args, LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	SoftCapJob job = { .cpu = cpu, .args = args };

	(void) err;
	assert(args->soft_cap > 0);
	if (args->n < PARALLEL_VALUES)
		soft_cap_job(&job, 0, 1);
	else
		llm_cpu_threads_run(cpu->threads, soft_cap_job, &job);
	return true;
}
