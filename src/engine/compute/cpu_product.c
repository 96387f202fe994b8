/*
 * cpu_product.c
 *	  Products of any two matrices: tiles for threads.
 *
 * src/engine/compute/cpu_product.c
 */
#include <assert.h>
#include <stdatomic.h>

#include "src/engine/compute/cpu_train.h"

/* Below so many multiplications waking other threads costs more. */
#define PARALLEL_PRODUCTS 65536

typedef struct ProductJob
{
	const LlmCpu *cpu;
	const LlmProductArgs *args;
	int64_t n_tile_cols; /* tiles side by side */
	int64_t n_tiles;
	atomic_llong next_tile;
} ProductJob;

static void
product_job(void *arg, int thread_idx, int n_threads)
{
	ProductJob *job = arg;
	const LlmProductArgs *args = job->args;
	int64_t tile;

	(void) n_threads;
	while ((tile = atomic_fetch_add(&job->next_tile, 1)) < job->n_tiles)
	{
		LlmCpuProductTask task = {
			.args = args,
			.row = tile / job->n_tile_cols * LLM_CPU_PRODUCT_ROWS,
			.col = tile % job->n_tile_cols * LLM_CPU_PRODUCT_COLS,
			.n_rows = LLM_CPU_PRODUCT_ROWS,
			.n_cols = LLM_CPU_PRODUCT_COLS,
			.scratch = llm_cpu_train_scratch(job->cpu, thread_idx),
		};

		if (task.n_rows > args->m - task.row)
			task.n_rows = args->m - task.row;
		if (task.n_cols > args->n - task.col)
			task.n_cols = args->n - task.col;
		job->cpu->train->product(&task);
	}
}

bool
llm_cpu_product(LlmCompute *compute, const LlmProductArgs *args, LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	int64_t n_tile_rows =
		(args->m + LLM_CPU_PRODUCT_ROWS - 1) / LLM_CPU_PRODUCT_ROWS;
	ProductJob job = {
		.cpu = cpu,
		.args = args,
		.n_tile_cols =
			(args->n + LLM_CPU_PRODUCT_COLS - 1) / LLM_CPU_PRODUCT_COLS,
	};

	(void) err;
	assert(args->out_dtype == LLM_DTYPE_F32);
	assert(args->k > 0);
	job.n_tiles = n_tile_rows * job.n_tile_cols;
	if (job.n_tiles <= 1 || args->m * args->n * args->k < PARALLEL_PRODUCTS)
		product_job(&job, 0, 1);
	else
		llm_cpu_threads_run(cpu->threads, product_job, &job);
	return true;
}
