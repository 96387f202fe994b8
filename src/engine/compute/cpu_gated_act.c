/*
 * cpu_gated_act.c
 *	  The gated activation of a feed-forward layer.
 *
 * src/engine/compute/cpu_gated_act.c
 */
#include <assert.h>

#include "src/engine/compute/cpu_internal.h"

/* Below so many values one thread is done before another has woken up. */
#define PARALLEL_VALUES 16384

/* Threads share single rows in units of so many values. */
#define VALUE_GRANULE 64

typedef struct GatedActJob
{
	const LlmCpu *cpu;
	const LlmGatedActArgs *args;
} GatedActJob;

static void
gated_act_job(void *arg, int thread_idx, int n_threads)
{
	const GatedActJob *job = arg;
	const LlmGatedActArgs *args = job->args;
	bool by_row = args->n_rows >= n_threads;
	int64_t row = 0;
	int64_t row_end = args->n_rows;
	int64_t begin = 0;
	int64_t end = args->dim;

	if (by_row)
		llm_cpu_share(args->n_rows, 1, thread_idx, n_threads, &row, &row_end);
	else
		llm_cpu_share(args->dim, VALUE_GRANULE, thread_idx, n_threads, &begin,
					  &end);
	for (; row < row_end; row++)
	{
		int64_t in = row * args->in_stride + begin;

		job->cpu->vector.gated_act(
			args->activation, (const float *) args->gate + in,
			(const float *) args->up + in, end - begin,
			(float *) args->out + row * args->dim + begin);
	}
}

bool
llm_cpu_gated_act(LlmCompute *compute, const LlmGatedActArgs *args,
				  LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	GatedActJob job = { .cpu = cpu, .args = args };

	(void) err;
	/* in place only where rows do not move */
	assert(args->out != args->gate || args->in_stride == args->dim ||
		   args->n_rows <= 1);
	if ((int64_t) args->n_rows * args->dim < PARALLEL_VALUES)
		gated_act_job(&job, 0, 1);
	else
		llm_cpu_threads_run(cpu->threads, gated_act_job, &job);
	return true;
}
