/*
 * cpu_embed.c
 *	  Rows of a table: embedding by token id, gathering by row index, sums.
 *
 * src/engine/compute/cpu_embed.c
 */
#include <assert.h>

#include "src/engine/compute/cpu_quant.h"

/* Below so many values one thread is done before another has woken up. */
#define PARALLEL_VALUES 65536

typedef struct RowsJob
{
	const LlmCpu *cpu;
	LlmMatrix table;
	const int32_t *rows;
	float *out;
	int64_t n_rows;
	float scale;
} RowsJob;

static void
rows_job(void *arg, int thread_idx, int n_threads)
{
	const RowsJob *job = arg;
	const LlmMatrix *table = &job->table;
	int64_t dim = table->n_cols;
	int64_t begin;
	int64_t end;

	llm_cpu_share(job->n_rows, 1, thread_idx, n_threads, &begin, &end);
	for (int64_t i = begin; i < end; i++)
	{
		const char *row =
			(const char *) table->data +
			job->rows[i] * dim * (int64_t) llm_dtype_bytes(table->dtype);

		if (llm_dtype_is_float(table->dtype))
			job->cpu->vector.convert(row, table->dtype, job->scale, dim,
									 job->out + i * dim);
		else
			llm_cpu_quant_read_row(table, job->rows[i], job->scale,
								   job->out + i * dim);
	}
}

static void
run_rows(LlmCpu *cpu, RowsJob *job)
{
	if (job->n_rows * job->table.n_cols < PARALLEL_VALUES)
		rows_job(job, 0, 1);
	else
		llm_cpu_threads_run(cpu->threads, rows_job, job);
}

bool
llm_cpu_embed(LlmCompute *compute, const LlmEmbedArgs *args, LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	RowsJob job = {
		.cpu = cpu,
		.table = args->table,
		.rows = args->token_ids,
		.out = args->out,
		.n_rows = args->n_rows,
		.scale = args->scale,
	};

	(void) err;
	for (int32_t i = 0; i < args->n_rows; i++)
		assert(args->token_ids[i] >= 0 &&
			   args->token_ids[i] < args->table.n_rows);
	run_rows(cpu, &job);
	if (args->lora.step != NULL)
		llm_cpu_lora_embed(cpu, args);
	return true;
}

bool
llm_cpu_gather(LlmCompute *compute, const LlmGatherArgs *args, LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	RowsJob job = {
		.cpu = cpu,
		.table = { .data = args->x,
				   .dtype = LLM_DTYPE_F32,
				   .n_cols = args->dim },
		.rows = args->rows,
		.out = args->out,
		.n_rows = args->n_rows,
		.scale = 1.0f,
	};

	(void) err;
	run_rows(cpu, &job);
	return true;
}

/* Columns that are summed at once: an accumulator each. */
#define SUM_COLUMNS 64

typedef struct SumJob
{
	const LlmSumRowsArgs *args;
	int64_t n_tiles; /* of columns */
} SumJob;

/* Columns first .. first + n - 1 of a range's sum. */
static void
sum_tile(const LlmSumRowsArgs *args, int64_t range_idx, int64_t first,
		 int64_t n)
{
	const LlmRowRange *range = &args->ranges[range_idx];
	const float *x =
		(const float *) args->x + (int64_t) range->first_row * args->dim;
	double sums[SUM_COLUMNS] = { 0 };

	for (int64_t row = 0; row < range->n_rows; row++)
		for (int64_t i = 0; i < n; i++)
			sums[i] += (double) x[row * args->dim + first + i];
	for (int64_t i = 0; i < n; i++)
		args->out[range_idx * args->dim + first + i] = (float) sums[i];
}

static void
sum_job(void *arg, int thread_idx, int n_threads)
{
	const SumJob *job = arg;
	int64_t begin;
	int64_t end;

	llm_cpu_share(job->args->n_ranges * job->n_tiles, 1, thread_idx, n_threads,
				  &begin, &end);
	for (int64_t i = begin; i < end; i++)
	{
		int64_t first = i % job->n_tiles * SUM_COLUMNS;
		int64_t n = job->args->dim - first;

		sum_tile(job->args, i / job->n_tiles, first,
				 n < SUM_COLUMNS ? n : SUM_COLUMNS);
	}
}

bool
llm_cpu_sum_rows(LlmCompute *compute, const LlmSumRowsArgs *args, LlmError *err)
{
	SumJob job = { .args = args,
				   .n_tiles = (args->dim + SUM_COLUMNS - 1) / SUM_COLUMNS };
	int64_t n_values = 0;

	(void) err;
	for (int32_t i = 0; i < args->n_ranges; i++)
	{
		assert(args->ranges[i].first_row >= 0 && args->ranges[i].n_rows > 0);
		n_values += (int64_t) args->ranges[i].n_rows * args->dim;
	}
	if (n_values < PARALLEL_VALUES)
		sum_job(&job, 0, 1);
	else
		llm_cpu_threads_run(llm_cpu(compute)->threads, sum_job, &job);
	return true;
}
