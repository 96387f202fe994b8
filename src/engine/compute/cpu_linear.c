/*
 * cpu_linear.c
 *	  y = x W^T + b: cutting it into work for caches and threads.
 *
 * x is prepared block by block (rounded, padded or reordered as the weight's
 * kernel wants it); a block is as many rows as stay in a core's second-level
 * cache, so that the weights stream from memory once per block.  Threads
 * share out the rows of the weights, the parts of one call as if they were
 * one matrix.
 *
 * src/engine/compute/cpu_linear.c
 */
#include <assert.h>

#include "src/engine/compute/cpu_internal.h"

/* Prepared rows of x that are kept in the cache. */
#define BLOCK_BYTES ((int64_t) 1 << 20)

/* At least so many, however wide: the largest tile several times over. */
#define MIN_BLOCK_ROWS 24

/* Threads take rows of the weights in units of so many. */
#define ROW_GRANULE 8

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
	int64_t x_stride;
} LinearJob;

static int64_t
block_rows(int64_t row_bytes)
{
	int64_t n = BLOCK_BYTES / row_bytes;

	return n < MIN_BLOCK_ROWS ? MIN_BLOCK_ROWS : n;
}

/* Enough for every width up to max_cols at four bytes a value. */
size_t
llm_cpu_linear_scratch_bytes(const LlmComputeOptions *options)
{
	int64_t row_bytes = (options->max_cols + 31) / 32 * 128;

	return (size_t) (BLOCK_BYTES + MIN_BLOCK_ROWS * row_bytes);
}

static const LlmCpuLinearKernel *
choose_kernel(const LlmCpu *cpu, LlmDtype dtype)
{
	if (dtype == LLM_DTYPE_F32)
		return &cpu->linear.f32;
	if (dtype == LLM_DTYPE_F16)
		return &cpu->linear.f16;
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
								 (job->x_begin + i) * n_cols,
							 n_cols, job->cpu->linear_x + i * job->x_stride);
}

static void
multiply_job(void *arg, int thread_idx, int n_threads)
{
	const LinearJob *job = arg;
	const LlmLinearArgs *args = job->args;
	int64_t n_rows = 0;
	int64_t part_row = 0;
	int64_t begin;
	int64_t end;

	for (int i = job->first_part; i < job->end_part; i++)
		n_rows += args->part[i].weight.n_rows;
	llm_cpu_share(n_rows, ROW_GRANULE, thread_idx, n_threads, &begin, &end);
	for (int i = job->first_part; i < job->end_part; i++)
	{
		const LlmMatrix *w = &args->part[i].weight;
		LlmCpuLinearTask task = {
			.w = w->data,
			.x = job->cpu->linear_x,
			.x_stride = job->x_stride,
			.n_cols = w->n_cols,
			.n_x = job->n_x,
			.bias = args->part[i].bias,
			.out = (float *) args->part[i].out +
				   job->x_begin * args->part[i].out_stride,
			.out_stride = args->part[i].out_stride,
		};
		int64_t first = begin > part_row ? begin - part_row : 0;
		int64_t last = end - part_row < w->n_rows ? end - part_row : w->n_rows;

		if (first < last)
			job->kernel->multiply(&task, first, last);
		part_row += w->n_rows;
	}
}

static void
run_parts(LinearJob *job)
{
	const LlmLinearArgs *args = job->args;
	int64_t n_cols = args->part[job->first_part].weight.n_cols;
	int64_t n_block;

	job->x_stride = job->kernel->row_bytes(n_cols);
	n_block = block_rows(job->x_stride);
	assert((size_t) (n_block * job->x_stride) <= job->cpu->linear_x_bytes);
	for (int32_t x = 0; x < args->n_rows; x += (int32_t) n_block)
	{
		job->x_begin = x;
		job->n_x =
			args->n_rows - x < n_block ? args->n_rows - x : (int32_t) n_block;
		if (job->n_x == 1 || job->n_x * n_cols < PARALLEL_PREPARE_VALUES)
			prepare_job(job, 0, 1);
		else
			llm_cpu_threads_run(job->cpu->threads, prepare_job, job);
		llm_cpu_threads_run(job->cpu->threads, multiply_job, job);
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
		job.kernel = choose_kernel(job.cpu, args->part[i].weight.dtype);
		job.first_part = i;
		job.end_part = i + 1;
		while (job.end_part < args->n_parts &&
			   choose_kernel(job.cpu, args->part[job.end_part].weight.dtype) ==
				   job.kernel)
			job.end_part++;
		for (int k = i; k < job.end_part; k++)
			assert(args->part[k].weight.n_cols == args->part[0].weight.n_cols);
		run_parts(&job);
	}
	return true;
}
