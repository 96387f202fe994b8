/*
 * cpu_linear.c
 *	  y = x W^T + b: cutting it into work for caches and threads.
 *
 * x is prepared block by block (rounded, padded or reordered as the weight's
 * kernel wants it); a block is as many rows as stay in a core's second-level
 * cache, so that the weights stream from memory once per block.
 *
 * Threads take chunks of the weights' rows from a common counter, the parts
 * of one call as if they were one matrix.  Equal shares would be a little
 * simpler, but make everybody wait for a core that something else, a busy
 * database for instance, is using too.
 *
 * src/engine/compute/cpu_linear.c
 */
#include <assert.h>
#include <stdatomic.h>

#include "src/engine/compute/cpu_internal.h"

/* Prepared rows of x that are kept in the cache. */
#define X_BLOCK_BYTES ((int64_t) 1200 << 10)

/* Threads take about so much of the weights at a time, some 10 us' worth. */
#define CHUNK_BYTES ((int64_t) 128 << 10)

/*
 * Where x has many rows, multiplying takes longer than reading, and a chunk
 * is so many panels at least: its first one is not fetched ahead.
 */
#define MANY_X_ROWS 7
#define MIN_CHUNK_PANELS 8

/* And at least so many chunks for each thread, or one panel each. */
#define MIN_CHUNKS_PER_THREAD 4

/* Below so many values, waking other threads to prepare x costs more. */
#define PARALLEL_PREPARE_VALUES 16384

typedef struct LinearJob
{
	LlmCpu *cpu;
	const LlmLinearArgs *args;
	const LlmCpuLinearKernel *kernel;
	int first_part; /* parts of one kernel, first .. end - 1 */
	int end_part;
	int32_t x_begin; /* the block of x */
	int32_t n_x;
	int64_t col_begin;
	int64_t n_cols;
	int64_t x_stride;
	int64_t n_rows; /* of the parts' weights together, in whole panels */
	int64_t chunk_rows;
	atomic_llong next_row;
} LinearJob;

/* Blocks of about equal size: how large, where n are cut by at most "most". */
static int64_t
block_size(int64_t n, int64_t most)
{
	int64_t n_blocks = (n + most - 1) / most;

	return (n + n_blocks - 1) / n_blocks;
}

int64_t
llm_cpu_linear_block_rows(int64_t row_bytes, int64_t n_rows)
{
	int64_t most = X_BLOCK_BYTES / row_bytes;

	if (most > LLM_CPU_MAX_X_ROWS)
		most = LLM_CPU_MAX_X_ROWS;
	if (most < LLM_CPU_MIN_BLOCK_ROWS)
		most = LLM_CPU_MIN_BLOCK_ROWS;
	return n_rows == 0 ? 1 : block_size(n_rows, most);
}

size_t
llm_cpu_linear_x_bytes(void)
{
	/* the threads' scratch follows */
	return (size_t) (X_BLOCK_BYTES + 63) / 64 * 64;
}

size_t
llm_cpu_linear_thread_bytes(void)
{
	return (size_t) LLM_CPU_PANEL_ROWS *
		   (2 * LLM_CPU_MAX_X_ROWS + LLM_CPU_SEGMENT_COLS) * sizeof(float);
}

const LlmCpuLinearKernel *
llm_cpu_linear_kernel(const LlmCpu *cpu, LlmDtype dtype)
{
	if (dtype == LLM_DTYPE_F32)
		return &cpu->linear.f32;
	if (dtype == LLM_DTYPE_F16)
		return &cpu->linear.f16;
	if (dtype == LLM_DTYPE_INT8)
		return &cpu->quant.int8;
	if (dtype == LLM_DTYPE_INT4)
		return &cpu->quant.int4;
	if (dtype == LLM_DTYPE_INT4_K)
		return &cpu->quant.int4_k;
	assert(dtype == LLM_DTYPE_BF16);
	if (cpu->base.precision == LLM_DTYPE_BF16 &&
		cpu->linear.bf16_inputs.multiply != NULL)
		return &cpu->linear.bf16_inputs;
	return &cpu->linear.bf16;
}

static void
prepare_job(void *arg, int thread_idx, int n_threads)
{
	const LinearJob *job = arg;
	const LlmLinearArgs *args = job->args;
	int64_t n_cols = args->part[job->first_part].weight.n_cols;
	int64_t begin;
	int64_t end;

	llm_cpu_share(job->n_x, 1, thread_idx, n_threads, &begin, &end);
	for (int64_t i = begin; i < end; i++)
		job->kernel->prepare((const float *) args->x +
								 (job->x_begin + i) * n_cols + job->col_begin,
							 job->n_cols,
							 job->cpu->linear_x + i * job->x_stride);
}

/* Rows that a weight takes among the parts': each begins a panel. */
static int64_t
panel_rows(const LlmMatrix *w)
{
	return (w->n_rows + LLM_CPU_PANEL_ROWS - 1) / LLM_CPU_PANEL_ROWS *
		   LLM_CPU_PANEL_ROWS;
}

/* Rows begin .. end - 1 of the parts' weights, one below the other. */
static void
multiply_rows(const LinearJob *job, int64_t begin, int64_t end, float *scratch)
{
	const LlmLinearArgs *args = job->args;
	int64_t part_row = 0;

	for (int i = job->first_part; i < job->end_part; i++)
	{
		const LlmMatrix *w = &args->part[i].weight;
		int64_t w_bytes = (int64_t) llm_dtype_bytes(w->dtype);
		LlmCpuLinearTask task = {
			.w = (const char *) w->data + job->col_begin * w_bytes,
			.w_stride = w->n_cols * w_bytes,
			.x = job->cpu->linear_x,
			.x_stride = job->x_stride,
			.n_cols = job->n_cols,
			.is_first = job->col_begin == 0,
			.is_last = job->col_begin + job->n_cols == w->n_cols,
			.n_x = job->n_x,
			.bias = args->part[i].bias,
			.out = (float *) args->part[i].out +
				   job->x_begin * args->part[i].out_stride,
			.out_stride = args->part[i].out_stride,
			.scratch = scratch,
		};
		int64_t first = begin > part_row ? begin - part_row : 0;
		int64_t last = end - part_row < w->n_rows ? end - part_row : w->n_rows;

		if (first < last)
			job->kernel->multiply(&task, first, last);
		part_row += panel_rows(w);
	}
}

static void
multiply_job(void *arg, int thread_idx, int n_threads)
{
	LinearJob *job = arg;
	char *scratch = job->cpu->linear_scratch +
					(size_t) thread_idx * llm_cpu_linear_thread_bytes();
	int64_t row;

	(void) n_threads;
	while ((row = atomic_fetch_add(&job->next_row, job->chunk_rows)) <
		   job->n_rows)
		multiply_rows(job, row,
					  row + job->chunk_rows < job->n_rows
						  ? row + job->chunk_rows
						  : job->n_rows,
					  (float *) scratch);
}

int64_t
llm_cpu_linear_chunk_rows(const LlmCpu *cpu, const LlmMatrix *weight,
						  int64_t n_rows, int64_t n_x)
{
	int64_t row_bytes =
		weight->n_cols * (int64_t) llm_dtype_bytes(weight->dtype);
	int64_t n_chunks =
		MIN_CHUNKS_PER_THREAD * llm_cpu_threads_count(cpu->threads);
	int64_t n = CHUNK_BYTES / row_bytes;

	if (n_x >= MANY_X_ROWS && n < MIN_CHUNK_PANELS * LLM_CPU_PANEL_ROWS)
		n = MIN_CHUNK_PANELS * LLM_CPU_PANEL_ROWS;
	if (n > n_rows / n_chunks)
		n = n_rows / n_chunks;
	n = n / LLM_CPU_PANEL_ROWS * LLM_CPU_PANEL_ROWS;
	return n < LLM_CPU_PANEL_ROWS ? LLM_CPU_PANEL_ROWS : n;
}

static void
plan_chunks(LinearJob *job)
{
	job->n_rows = 0;
	for (int i = job->first_part; i < job->end_part; i++)
		job->n_rows += panel_rows(&job->args->part[i].weight);
	job->chunk_rows = llm_cpu_linear_chunk_rows(
		job->cpu, &job->args->part[job->first_part].weight, job->n_rows,
		job->args->n_rows);
}

/* One block of x, prepared and multiplied. */
static void
run_block(LinearJob *job)
{
	assert((size_t) (job->n_x * job->x_stride) <= job->cpu->linear_x_bytes);
	if (job->n_x == 1 || job->n_x * job->n_cols < PARALLEL_PREPARE_VALUES)
		prepare_job(job, 0, 1);
	else
		llm_cpu_threads_run(job->cpu->threads, prepare_job, job);
	atomic_store(&job->next_row, 0);
	llm_cpu_threads_run(job->cpu->threads, multiply_job, job);
}

static void
run_parts(LinearJob *job)
{
	const LlmLinearArgs *args = job->args;
	const int64_t n_cols = args->part[job->first_part].weight.n_cols;
	const int64_t n_segments =
		(n_cols + LLM_CPU_SEGMENT_COLS - 1) / LLM_CPU_SEGMENT_COLS;
	const int64_t most_segments =
		X_BLOCK_BYTES / job->kernel->row_bytes(LLM_CPU_SEGMENT_COLS);
	int32_t n_rows;
	int64_t block_cols;

	if (args->n_rows == 0)
		return;
	n_rows = (int32_t) block_size(args->n_rows, LLM_CPU_MAX_X_ROWS);
	block_cols =
		block_size(n_segments, most_segments / n_rows) * LLM_CPU_SEGMENT_COLS;
	plan_chunks(job);
	for (int32_t x = 0; x < args->n_rows; x += n_rows)
	{
		job->x_begin = x;
		job->n_x = args->n_rows - x < n_rows ? args->n_rows - x : n_rows;
		for (int64_t col = 0; col < n_cols; col += block_cols)
		{
			job->col_begin = col;
			job->n_cols = n_cols - col < block_cols ? n_cols - col : block_cols;
			job->x_stride = job->kernel->row_bytes(job->n_cols);
			run_block(job);
		}
	}
}

bool
llm_cpu_linear(LlmCompute *compute, const LlmLinearArgs *args, LlmError *err)
{
	LinearJob job = { .cpu = llm_cpu(compute), .args = args };

	(void) err;
	assert(args->n_parts >= 1 && args->n_parts <= LLM_LINEAR_MAX_PARTS);
	for (int i = 0; i < args->n_parts; i = job.end_part)
	{
		job.kernel = llm_cpu_linear_kernel(job.cpu, args->part[i].weight.dtype);
		job.first_part = i;
		job.end_part = i + 1;
		while (job.end_part < args->n_parts &&
			   llm_cpu_linear_kernel(job.cpu,
									 args->part[job.end_part].weight.dtype) ==
				   job.kernel)
			job.end_part++;
		for (int k = i; k < job.end_part; k++)
			assert(args->part[k].weight.n_cols == args->part[0].weight.n_cols);
		run_parts(&job);
	}
	if (args->lora.step != NULL && args->lora.step->token_lora != NULL)
		llm_cpu_lora(job.cpu, args);
	return true;
}
