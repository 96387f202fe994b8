/*
 * cpu_norm.c
 *	  RMSNorm with the residual stream folded in.
 *
 * src/engine/compute/cpu_norm.c
 */
#include <assert.h>

#include "src/engine/compute/cpu_internal.h"

/* Below so many values one thread is done before another has woken up. */
#define PARALLEL_VALUES 16384

typedef struct NormJob
{
	const LlmCpu *cpu;
	const LlmRmsNormArgs *args;
} NormJob;

static void
norm_job(void *arg, int thread_idx, int n_threads)
{
	const NormJob *job = arg;
	const LlmRmsNormArgs *args = job->args;
	int64_t begin;
	int64_t end;

	llm_cpu_share(args->n_rows, 1, thread_idx, n_threads, &begin, &end);
	for (int64_t i = begin * args->dim; i < end * args->dim; i += args->dim)
		job->cpu->vector.rms_norm(
			args, (const float *) args->x + i,
			args->residual == NULL ? NULL : (float *) args->residual + i,
			(float *) args->out + i);
}

bool
llm_cpu_rms_norm(LlmCompute *compute, const LlmRmsNormArgs *args, LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	NormJob job = { .cpu = cpu, .args = args };

	(void) err;
	assert(args->weight.n == args->dim);
	if ((int64_t) args->n_rows * args->dim < PARALLEL_VALUES)
		norm_job(&job, 0, 1);
	else
		llm_cpu_threads_run(cpu->threads, norm_job, &job);
	return true;
}
