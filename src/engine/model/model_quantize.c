/*
 * model_quantize.c
 *	  Quantized weights: of floats, and of the blocks of GGUF files.
 *
 * Blocks become exactly what they say where there is a plain form for it
 * (src/common/quant).  Others, which compute backends have no kernels for,
 * become int8: what rounding their values to 8 bits adds is small beside the
 * error that 6 bits and fewer have already.  NF4, which is no plain form but
 * that of a model for training, is taken as the floats that it says.
 *
 * Floats are rounded as the options ask.  A matrix whose rows are no multiple
 * of a group stays floats.
 *
 * Rows go through a staging buffer, many at a time, and threads share them.
 *
 * src/engine/model/model_quantize.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/quant/quant.h"
#include "src/engine/compute/cpu_threads.h"
#include "src/engine/model/model_internal.h"

/* Elements that are staged at a time, unless 64 rows have more. */
#define STAGED_ELEMENTS ((int64_t) 4 << 20)

/* Rows of quant_write's calls are multiples of this. */
#define STAGED_ROWS 64

#define GROUP LLM_QUANT_GROUP
#define UNIT (LLM_QUANT_GROUP * LLM_QUANT_UNIT_GROUPS)

_Static_assert(LLM_QUANT_GROUP == LLM_QUANT_GROUP_ELEMENTS, "one plain form");

/* ------------------------------------------------------------------------
 * What a weight becomes
 * ------------------------------------------------------------------------
 */
LlmDtype
model_quantized_dtype(const LlmModel *model, const LlmWeightSpec *spec,
					  const WeightSource *source)
{
	LlmQuantization quantization = model->options.quantization;
	LlmDtype stored = source->stored_dtype;

	if (quantization >= LLM_QUANTIZATION_NF4)
		return model_is_nf4(model, spec, source) ? LLM_DTYPE_NF4
												 : source->dtype;
	if (quantization == LLM_QUANTIZATION_DECODE ||
		model->compute->ops->quant_write == NULL || spec->n_cols == 0 ||
		spec->n_cols % GROUP != 0 || spec->role == LLM_WEIGHT_ROUTER)
		return source->dtype;
	if (source->stored != NULL && !llm_dtype_is_float(stored) &&
		stored != LLM_DTYPE_NF4)
	{
		LlmDtype plain = llm_quant_plain_dtype(stored);

		if (plain == stored)
			plain = LLM_DTYPE_INT8; /* there is none */
		/* more bits than are stored would tell nothing more */
		if (plain != LLM_DTYPE_INT8 || quantization != LLM_QUANTIZATION_INT4)
			return plain;
	}
	if (quantization == LLM_QUANTIZATION_INT8)
		return LLM_DTYPE_INT8;
	return quantization == LLM_QUANTIZATION_INT4 ? LLM_DTYPE_INT4_K
												 : source->dtype;
}

/* ------------------------------------------------------------------------
 * Rows in plain form
 * ------------------------------------------------------------------------
 */
typedef struct QuantizeJob
{
	const WeightSource *source;
	LlmDtype dtype;
	int64_t n_cols;
	int64_t n_units; /* of a row */
	int64_t first_row;
	int64_t n_rows;
	LlmQuantGroups groups;
	float *floats; /* [n_threads, n_cols] */
} QuantizeJob;

static float *
part_of(float *array, int64_t at)
{
	return array == NULL ? NULL : array + at;
}

/* Row first_row + row, to the staging buffer's row. */
static void
quantize_row(const QuantizeJob *job, int64_t row, float *floats)
{
	int64_t first = (job->first_row + row) * job->n_cols;
	int64_t group = row * (job->n_cols / GROUP);
	LlmQuantGroups out = {
		.values = job->groups.values + row * job->n_cols,
		.scales = job->groups.scales + group,
		.offsets = part_of(job->groups.offsets, group),
		.scale_units = part_of(job->groups.scale_units, row * job->n_units),
		.offset_units = part_of(job->groups.offset_units, row * job->n_units),
	};
	WeightSource source = *job->source;

	if (source.stored != NULL && !llm_dtype_is_float(source.stored_dtype) &&
		llm_quant_plain_dtype(source.stored_dtype) == job->dtype)
	{
		(void) llm_quant_unpack(
			source.stored_dtype,
			(const char *) source.stored +
				llm_dtype_stored_bytes(source.stored_dtype, first),
			job->n_cols, &out);
		return;
	}
	source.dtype = LLM_DTYPE_F32;
	source.dummy.dtype = LLM_DTYPE_F32;
	weight_source_fill(&source, first, job->n_cols, floats);
	llm_quant_encode(job->dtype, floats, job->n_cols, &out);
}

static void
quantize_job(void *arg, int thread_idx, int n_threads)
{
	const QuantizeJob *job = arg;
	int64_t begin;
	int64_t end;

	llm_cpu_share(job->n_rows, 1, thread_idx, n_threads, &begin, &end);
	for (int64_t row = begin; row < end; row++)
		quantize_row(job, row, job->floats + thread_idx * job->n_cols);
}

/* ------------------------------------------------------------------------
 * A weight
 * ------------------------------------------------------------------------
 */

/* A buffer for n_rows rows in plain form; the job's pointers lead into it. */
static void *
create_staging(QuantizeJob *job, int64_t n_rows, int n_threads)
{
	size_t n = (size_t) (n_rows * job->n_cols);
	size_t n_floats = (size_t) n_threads * (size_t) job->n_cols;
	size_t n_groups = n / GROUP;
	size_t n_units = (size_t) (n_rows * job->n_units);
	float *next =
		malloc(n + sizeof(float) * (n_floats + 2 * n_groups + 2 * n_units));

	if (next == NULL)
		return NULL;
	job->floats = next;
	job->groups.scales = job->floats + n_floats;
	next = job->groups.scales + n_groups;
	if (job->dtype != LLM_DTYPE_INT8)
		job->groups.offsets = next;
	next += n_groups;
	if (job->dtype == LLM_DTYPE_INT4_K)
	{
		job->groups.scale_units = next;
		job->groups.offset_units = next + n_units;
	}
	job->groups.values = (uint8_t *) (next + 2 * n_units);
	return job->floats;
}

static bool
write_rows(LlmModel *model, const LlmMatrix *matrix, const QuantizeJob *job,
		   LlmError *err)
{
	LlmQuantRows rows = {
		.values = job->groups.values,
		.scales = job->groups.scales,
		.offsets = job->groups.offsets,
		.scale_units = job->groups.scale_units,
		.offset_units = job->groups.offset_units,
		.n_rows = job->n_rows,
	};

	return model->compute->ops->quant_write(model->compute, matrix,
											job->first_row, &rows, err);
}

static bool
quantize_rows(LlmModel *model, const LlmMatrix *matrix, QuantizeJob *job,
			  LlmCpuThreads *threads, LlmError *err)
{
	int64_t n_staged =
		STAGED_ELEMENTS / matrix->n_cols / STAGED_ROWS * STAGED_ROWS;
	void *staging;
	bool ok = true;

	if (n_staged < STAGED_ROWS)
		n_staged = STAGED_ROWS;
	if (n_staged > matrix->n_rows)
		n_staged = matrix->n_rows;
	staging = create_staging(job, n_staged, llm_cpu_threads_count(threads));
	if (staging == NULL)
		return llm_error_no_memory(err, (uint64_t) (n_staged * matrix->n_cols),
								   "quantizing weights");
	for (; ok && job->first_row < matrix->n_rows; job->first_row += n_staged)
	{
		int64_t n_left = matrix->n_rows - job->first_row;

		job->n_rows = n_left < n_staged ? n_left : n_staged;
		llm_cpu_threads_run(threads, quantize_job, job);
		ok = write_rows(model, matrix, job, err);
	}
	free(staging);
	return ok;
}

bool
model_quantize_weight(LlmModel *model, const LlmWeightSpec *spec,
					  const WeightSource *source, LlmDtype dtype, LlmError *err)
{
	const LlmComputeOps *ops = model->compute->ops;
	ModelWeight *weight = model_weight_of(model, spec);
	QuantizeJob job = {
		.source = source,
		.dtype = dtype,
		.n_cols = spec->n_cols,
		.n_units = (spec->n_cols + UNIT - 1) / UNIT,
	};
	LlmMatrix matrix = { NULL, dtype, spec->n_rows, spec->n_cols };
	LlmCpuThreads *threads;
	bool ok;

	assert(spec->n_cols % GROUP == 0);
	matrix.data = ops->alloc(
		model->compute, ops->quant_bytes(dtype, spec->n_rows, spec->n_cols),
		spec->name, err);
	if (matrix.data == NULL)
		return false;
	weight->data = matrix.data;
	weight->owner = WEIGHT_ALLOCATED;
	weight->dtype = dtype;
	threads = llm_cpu_threads_create(model->options.n_threads, err);
	if (threads == NULL)
		return false;
	ok = quantize_rows(model, &matrix, &job, threads, err);
	llm_cpu_threads_free(threads);
	return ok;
}
