/*
 * cpu_lora.c
 *	  What adapters add to the outputs of a linear operation, and to
 *	  embeddings.
 *
 * Rows are grouped by their adapter, so that its matrices are read once for
 * all of them, and each group's products with each of the operation's parts
 * are cut into units that threads take from a counter: first all of x A^T,
 * then all of what B makes of them.  Of an embedding x A^T are columns of A.
 *
 * src/engine/compute/cpu_lora.c
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/half_float.h"
#include "src/engine/compute/cpu_internal.h"

/* Rows, ranks and outputs of a unit. */
#define UNIT_ROWS 64
#define UNIT_RANKS LLM_LORA_RANK_UNIT
#define UNIT_OUTPUTS 1024

/* One adapter's rows with one part of the operation. */
typedef struct Piece
{
	LlmCpuLoraTask task;
	int64_t n_out;
	int64_t shrink_end; /* units of this piece and of those before it */
	int64_t expand_end;
} Piece;

struct LlmCpuLora
{
	int32_t max_rank;
	int32_t max_loras;
	int32_t *starts; /* [max_loras + 1] in rows */
	int32_t *rows;	 /* [max_rows] sorted by adapter */
	Piece *pieces;	 /* [max_loras, LLM_LINEAR_MAX_PARTS] */
	float *inner;	 /* [LLM_LINEAR_MAX_PARTS, max_rows, max_rank] */
	int32_t max_rows;
};

typedef struct LoraJob
{
	const LlmCpuLoraKernels *kernels;
	const Piece *pieces;
	int n_pieces;
	bool is_expand;
	atomic_llong next_unit;
} LoraJob;

LlmCpuLora *
llm_cpu_lora_create(const LlmComputeOptions *options, LlmError *err)
{
	LlmCpuLora *lora = calloc(1, sizeof(*lora));
	size_t max_rows = (size_t) options->max_rows;
	size_t max_loras = (size_t) options->max_loras;
	size_t inner_bytes = LLM_LINEAR_MAX_PARTS * max_rows * sizeof(float) *
						 (size_t) llm_lora_rank(options->max_lora_rank);

	if (lora == NULL)
	{
		llm_error_no_memory(err, sizeof(*lora), "adapters' scratch");
		return NULL;
	}
	lora->max_rank = llm_lora_rank(options->max_lora_rank);
	lora->max_loras = options->max_loras;
	lora->max_rows = options->max_rows;
	lora->starts = calloc(max_loras + 1, sizeof(int32_t));
	lora->rows = calloc(max_rows, sizeof(int32_t));
	lora->pieces = calloc(max_loras * LLM_LINEAR_MAX_PARTS, sizeof(Piece));
	if (lora->starts != NULL && lora->rows != NULL && lora->pieces != NULL)
		lora->inner = llm_cpu_alloc(inner_bytes, "adapters' scratch", err);
	else
		llm_error_no_memory(err, max_loras * sizeof(Piece),
							"adapters' scratch");
	if (lora->inner != NULL)
		return lora;
	llm_cpu_lora_free(lora);
	return NULL;
}

void
llm_cpu_lora_free(LlmCpuLora *lora)
{
	if (lora == NULL)
		return;
	free(lora->starts);
	free(lora->rows);
	free(lora->pieces);
	llm_cpu_free(lora->inner);
	free(lora);
}

static int32_t
row_lora(const LlmLoraRows *rows, int32_t row)
{
	int32_t token = rows->of_logit_rows ? rows->step->logit_rows[row] : row;

	return rows->step->token_lora[token];
}

/* Sort rows by their adapters, in place of which starts[i] .. tell. */
static void
group_rows(LlmCpuLora *lora, const LlmLinearArgs *args)
{
	int32_t n_loras = args->lora.step->n_loras;
	int32_t *starts = lora->starts;

	assert(n_loras <= lora->max_loras && args->n_rows <= lora->max_rows);
	memset(starts, 0, ((size_t) n_loras + 1) * sizeof(int32_t));
	for (int32_t row = 0; row < args->n_rows; row++)
	{
		int32_t i = row_lora(&args->lora, row);

		assert(i >= -1 && i < n_loras);
		if (i >= 0)
			starts[i + 1]++;
	}
	for (int32_t i = 0; i < n_loras; i++)
		starts[i + 1] += starts[i];
	for (int32_t row = 0; row < args->n_rows; row++)
	{
		int32_t i = row_lora(&args->lora, row);

		if (i >= 0)
			lora->rows[starts[i]++] = row;
	}
	/* each start has moved to the next one's place */
	memmove(starts + 1, starts, (size_t) n_loras * sizeof(int32_t));
	starts[0] = 0;
}

static int64_t
n_units(int64_t n, int64_t unit)
{
	return (n + unit - 1) / unit;
}

/* Part p for the rows of adapter i, where the adapter changes it. */
static void
add_piece(const LlmCpu *cpu, const LlmLinearArgs *args, int32_t i, int p,
		  int *n_pieces)
{
	LlmCpuLora *lora = cpu->lora;
	const void *image = args->lora.step->loras[i];
	const LlmLoraModule *module =
		llm_lora_module(image, args->lora.first_module + p);
	const LlmMatrix *weight = &args->part[p].weight;
	Piece *piece = &lora->pieces[*n_pieces];
	int32_t first = lora->starts[i];
	int64_t inner_row = (int64_t) p * lora->max_rows + first;
	int64_t n_row_units = n_units(lora->starts[i + 1] - first, UNIT_ROWS);

	if (module->rank == 0)
		return;
	assert(module->rank <= lora->max_rank);
	piece->task = (LlmCpuLoraTask){
		.dtype = cpu->base.lora_format.dtype,
		.down = llm_lora_part(image, module->down),
		.down_stride = llm_lora_cols(weight->n_cols),
		.up = llm_lora_part(image, module->up),
		.up_stride = llm_lora_cols(weight->n_rows),
		.gain = module->gain == 0 ? NULL : llm_lora_part(image, module->gain),
		.bias = args->part[p].bias,
		.rank = module->rank,
		.n_in = weight->n_cols,
		.x = args->x,
		.out = args->part[p].out,
		.out_stride = args->part[p].out_stride,
		.rows = lora->rows + first,
		.n_rows = lora->starts[i + 1] - first,
		.inner = lora->inner + inner_row * lora->max_rank,
		.inner_stride = lora->max_rank,
	};
	piece->n_out = weight->n_rows;
	piece->shrink_end = n_row_units * n_units(module->rank, UNIT_RANKS);
	piece->expand_end = n_row_units * n_units(piece->n_out, UNIT_OUTPUTS);
	if (*n_pieces > 0)
	{
		piece->shrink_end += piece[-1].shrink_end;
		piece->expand_end += piece[-1].expand_end;
	}
	++*n_pieces;
}

/* Some rows of a piece's task. */
static LlmCpuLoraTask
task_rows(const LlmCpuLoraTask *task, int64_t unit)
{
	LlmCpuLoraTask some = *task;
	int64_t first = unit * UNIT_ROWS;

	some.rows += first;
	some.inner += first * task->inner_stride;
	some.n_rows -= (int32_t) first;
	if (some.n_rows > UNIT_ROWS)
		some.n_rows = UNIT_ROWS;
	return some;
}

/* Units of a piece: all row units of the first ranks, of the next, ... */
static void
run_unit(const LoraJob *job, const Piece *piece, int64_t unit)
{
	int64_t n_row_units = n_units(piece->task.n_rows, UNIT_ROWS);
	LlmCpuLoraTask task = task_rows(&piece->task, unit % n_row_units);
	int64_t begin = unit / n_row_units;

	if (job->is_expand)
	{
		int64_t end = (begin + 1) * UNIT_OUTPUTS;

		job->kernels->expand(&task, begin * UNIT_OUTPUTS,
							 end < piece->n_out ? end : piece->n_out);
	}
	else
		job->kernels->shrink(&task, (int32_t) begin * UNIT_RANKS,
							 (int32_t) (begin + 1) * UNIT_RANKS);
}

static int64_t
end_of(const LoraJob *job, int i)
{
	return job->is_expand ? job->pieces[i].expand_end
						  : job->pieces[i].shrink_end;
}

static void
lora_job(void *arg, int thread_idx, int n_threads)
{
	LoraJob *job = arg;
	int64_t n = end_of(job, job->n_pieces - 1);
	int64_t unit;
	int i = 0;

	(void) thread_idx;
	(void) n_threads;
	while ((unit = atomic_fetch_add(&job->next_unit, 1)) < n)
	{
		while (unit >= end_of(job, i))
			i++;
		run_unit(job, &job->pieces[i], unit - (i > 0 ? end_of(job, i - 1) : 0));
	}
}

/* Every adapter's part of the operation, where there is any. */
static void
list_pieces(LlmCpu *cpu, const LlmLinearArgs *args, LoraJob *job)
{
	LlmCpuLora *lora = cpu->lora;

	assert(lora != NULL);
	group_rows(lora, args);
	for (int32_t i = 0; i < args->lora.step->n_loras; i++)
	{
		for (int p = 0;
			 lora->starts[i] < lora->starts[i + 1] && p < args->n_parts; p++)
			add_piece(cpu, args, i, p, &job->n_pieces);
	}
	job->pieces = lora->pieces;
}

static void
run_expand(LlmCpu *cpu, LoraJob *job)
{
	job->is_expand = true;
	atomic_store(&job->next_unit, 0);
	llm_cpu_threads_run(cpu->threads, lora_job, job);
}

void
llm_cpu_lora(LlmCpu *cpu, const LlmLinearArgs *args)
{
	LoraJob job = { .kernels = &cpu->lora_kernels };

	list_pieces(cpu, args, &job);
	if (job.n_pieces == 0)
		return;
	llm_cpu_threads_run(cpu->threads, lora_job, &job);
	run_expand(cpu, &job);
}

/* The tokens' columns of A, times scale, for all rows of a piece. */
static void
take_columns(const LlmCpuLoraTask *task, const LlmEmbedArgs *args)
{
	for (int32_t i = 0; i < task->n_rows; i++)
	{
		int64_t token_id = args->token_ids[task->rows[i]];
		float *inner = task->inner + i * task->inner_stride;

		for (int32_t r = 0; r < task->rank; r++)
		{
			int64_t at = r * task->down_stride + token_id;

			inner[r] =
				args->scale *
				(task->dtype == LLM_DTYPE_BF16
					 ? llm_bf16_to_float(((const uint16_t *) task->down)[at])
					 : ((const float *) task->down)[at]);
		}
	}
}

void
llm_cpu_lora_embed(LlmCpu *cpu, const LlmEmbedArgs *args)
{
	/* the table from the other side: its rows are the columns of A */
	LlmLinearArgs transposed = { .n_rows = args->n_rows,
								 .n_parts = 1,
								 .lora = args->lora };
	LoraJob job = { .kernels = &cpu->lora_kernels };

	transposed.part[0].weight.n_rows = args->table.n_cols;
	transposed.part[0].weight.n_cols = args->table.n_rows;
	transposed.part[0].out = args->out;
	transposed.part[0].out_stride = args->table.n_cols;
	list_pieces(cpu, &transposed, &job);
	if (job.n_pieces == 0)
		return;
	for (int i = 0; i < job.n_pieces; i++)
		take_columns(&job.pieces[i].task, args);
	run_expand(cpu, &job);
}
