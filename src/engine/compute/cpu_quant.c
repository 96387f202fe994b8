/*
 * cpu_quant.c
 *	  Quantized weights: into the backend's layout, and a row back out of it.
 *
 * cpu_quant.h describes the layout, cpu_quant_body.h multiplies with it.
 *
 * src/engine/compute/cpu_quant.c
 */
#include <math.h>
#include <string.h>

#include "src/common/util/half_float.h"
#include "src/engine/compute/cpu_quant.h"

#define LANES LLM_CPU_QUANT_LANES
#define GROUP LLM_QUANT_GROUP

size_t
llm_cpu_quant_bytes(LlmDtype dtype, int64_t n_rows, int64_t n_cols)
{
	assert(llm_cpu_is_quantized(dtype));
	return (size_t) ((n_rows + LANES - 1) / LANES *
					 llm_cpu_quant_panel_bytes(dtype, n_cols));
}

/* ------------------------------------------------------------------------
 * Writing
 * ------------------------------------------------------------------------
 */
typedef struct WriteJob
{
	LlmDtype dtype;
	int64_t n_cols;
	const LlmQuantRows *rows;
	char *dest; /* the first row's panel */
} WriteJob;

/* A group of one row into its lane of the group's bytes. */
static void
write_values(LlmDtype dtype, const uint8_t *values, uint8_t *dest)
{
	for (int k = 0; k < 8; k++)
	{
		for (int c = 0; c < 4; c++)
		{
			uint8_t value = values[4 * k + c];

			if (dtype == LLM_DTYPE_INT8)
				dest[k * 64 + c] = value ^ 128;
			else if (k < 4)
				dest[k * 64 + c] = value;
			else
				dest[(k - 4) * 64 + c] |= (uint8_t) (value << 4);
		}
	}
}

static void
store_f16(char *dest, float value)
{
	uint16_t bits = llm_float_to_f16(value);

	/* scales are f16 values: the contract of the plain form */
	assert(isnan(value) || llm_f16_to_float(bits) == value);
	memcpy(dest, &bits, sizeof(bits));
}

/* scale in units; 0 where the unit is */
static uint8_t
in_units(float scale, float unit)
{
	float n = unit == 0.0f ? 0.0f : scale / unit;

	if (!(n >= 0.0f && n <= 255.0f)) /* NaN: the unit says so, too */
		return 1;
	return (uint8_t) lrintf(n);
}

/* The scales of a row into its lane. */
static void
write_scales(const WriteJob *job, int64_t row, char *panel, int lane)
{
	const LlmQuantRows *rows = job->rows;
	const int64_t n_groups = job->n_cols / GROUP;
	const int64_t n_units =
		(n_groups + LLM_QUANT_UNIT_GROUPS - 1) / LLM_QUANT_UNIT_GROUPS;
	char *units = panel + llm_cpu_quant_values_at(job->dtype, n_groups);
	char *scales = panel + llm_cpu_quant_scales_at(job->dtype, job->n_cols);

	for (int64_t g = 0; g < n_groups; g++, scales += LLM_CPU_QUANT_SCALE_BYTES)
	{
		int64_t at = row * n_groups + g;
		int64_t unit = row * n_units + g / LLM_QUANT_UNIT_GROUPS;

		if (job->dtype != LLM_DTYPE_INT4_K)
		{
			store_f16(scales + lane * 2, rows->scales[at]);
			continue;
		}
		scales[lane] =
			(char) in_units(rows->scales[at], rows->scale_units[unit]);
		scales[LANES + lane] =
			(char) in_units(rows->offsets[at], rows->offset_units[unit]);
	}
	if (job->dtype != LLM_DTYPE_INT4_K)
		return;
	for (int64_t u = 0; u < n_units; u++, units += LLM_CPU_QUANT_UNIT_BYTES)
	{
		store_f16(units + lane * 2, rows->scale_units[row * n_units + u]);
		store_f16(units + (LANES + lane) * 2,
				  rows->offset_units[row * n_units + u]);
	}
}

static void
write_job(void *arg, int thread_idx, int n_threads)
{
	const WriteJob *job = arg;
	const int64_t n_groups = job->n_cols / GROUP;
	const int64_t panel_bytes =
		llm_cpu_quant_panel_bytes(job->dtype, job->n_cols);
	int64_t begin;
	int64_t end;

	llm_cpu_share(job->rows->n_rows, LANES, thread_idx, n_threads, &begin,
				  &end);
	for (int64_t row = begin; row < end; row++)
	{
		int lane = (int) (row % LANES);
		char *panel = job->dest + row / LANES * panel_bytes;

		for (int64_t g = 0; g < n_groups; g++)
			write_values(job->dtype,
						 job->rows->values + row * job->n_cols + g * GROUP,
						 (uint8_t *) panel +
							 llm_cpu_quant_values_at(job->dtype, g) + lane * 4);
		write_scales(job, row, panel, lane);
	}
}

bool
llm_cpu_quant_write(LlmCompute *compute, const LlmMatrix *matrix,
					int64_t first_row, const LlmQuantRows *rows, LlmError *err)
{
	int64_t panel_bytes =
		llm_cpu_quant_panel_bytes(matrix->dtype, matrix->n_cols);
	WriteJob job = {
		.dtype = matrix->dtype,
		.n_cols = matrix->n_cols,
		.rows = rows,
		.dest = (char *) matrix->data + first_row / LANES * panel_bytes,
	};

	(void) err;
	assert(llm_cpu_is_quantized(matrix->dtype));
	assert(first_row % LANES == 0);
	assert(first_row + rows->n_rows <= matrix->n_rows);
	assert(rows->n_rows % LANES == 0 ||
		   first_row + rows->n_rows == matrix->n_rows);
	llm_cpu_threads_run(llm_cpu(compute)->threads, write_job, &job);
	return true;
}

/* ------------------------------------------------------------------------
 * Reading a row
 * ------------------------------------------------------------------------
 */
static float
load_f16(const char *src)
{
	uint16_t bits;

	memcpy(&bits, src, sizeof(bits));
	return llm_f16_to_float(bits);
}

static void
read_scale(const LlmMatrix *matrix, const char *panel, int64_t g, int lane,
		   float *scale, float *offset)
{
	LlmDtype dtype = matrix->dtype;
	const char *scales = panel +
						 llm_cpu_quant_scales_at(dtype, matrix->n_cols) +
						 g * LLM_CPU_QUANT_SCALE_BYTES;
	const char *units = panel +
						llm_cpu_quant_values_at(dtype, matrix->n_cols / GROUP) +
						g / LLM_QUANT_UNIT_GROUPS * LLM_CPU_QUANT_UNIT_BYTES;

	if (dtype != LLM_DTYPE_INT4_K)
	{
		*scale = load_f16(scales + lane * 2);
		*offset = *scale * (dtype == LLM_DTYPE_INT8 ? -128.0f : -8.0f);
		return;
	}
	*scale = load_f16(units + lane * 2) * (float) (uint8_t) scales[lane];
	*offset = load_f16(units + (LANES + lane) * 2) *
			  (float) (uint8_t) scales[LANES + lane];
}

void
llm_cpu_quant_read_row(const LlmMatrix *matrix, int64_t row, float scale,
					   float *out)
{
	int lane = (int) (row % LANES);
	const char *panel =
		(const char *) matrix->data +
		row / LANES * llm_cpu_quant_panel_bytes(matrix->dtype, matrix->n_cols);

	for (int64_t g = 0; g < matrix->n_cols / GROUP; g++, out += GROUP)
	{
		const uint8_t *values = (const uint8_t *) panel + lane * 4 +
								llm_cpu_quant_values_at(matrix->dtype, g);
		float w_scale;
		float w_offset;

		read_scale(matrix, panel, g, lane, &w_scale, &w_offset);
		for (int i = 0; i < GROUP; i++)
		{
			int value;

			if (matrix->dtype == LLM_DTYPE_INT8)
				value = values[i / 4 * 64 + i % 4];
			else
				value = values[i % 16 / 4 * 64 + i % 4] >> (i / 16 * 4) & 15;
			out[i] = (w_scale * (float) value + w_offset) * scale;
		}
	}
}
