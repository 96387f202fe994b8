/*
 * cpu_quant.h
 *	  Quantized weights of the CPU backend: their layout, and x beside them.
 *
 * A matrix is a sequence of panels of 16 rows; rows that the last one lacks
 * are zeros.  A panel is
 *
 *	  values, group by group of 32 columns.  int8: 8 times 64 bytes, each
 *	  4 columns of the 16 rows, row by row, value + 128.  int4 and int4_k:
 *	  4 times 64 bytes; the low nibbles are the first 16 columns in the same
 *	  order, the high ones the other 16.
 *
 *	  scales.  int8 and int4: for each group f16 [16].  int4_k: for each unit
 *	  of 8 groups f16 [16] scale units and [16] offset units, after all those
 *	  for each group uint8 [16] scales and [16] offsets in these units.
 *
 * So 64 bytes, one register, hold what 4 neighbouring values of x meet in 16
 * rows, which is what VPDPBUSD adds up; and weights are read front to back.
 *
 * w = scale * value + offset; offset is 0 for int8 and -8 * scale for int4.
 *
 * src/engine/compute/cpu_quant.h
 */
#ifndef LLM_CPU_QUANT_H
#define LLM_CPU_QUANT_H

#include <assert.h>

#include "src/engine/compute/cpu_internal.h"

#define LLM_CPU_QUANT_LANES LLM_CPU_PANEL_ROWS

static inline bool
llm_cpu_is_quantized(LlmDtype dtype)
{
	return dtype == LLM_DTYPE_INT8 || dtype == LLM_DTYPE_INT4 ||
		   dtype == LLM_DTYPE_INT4_K;
}

/* Where group g's values lie in a panel, g = the number of groups: the end. */
static inline int64_t
llm_cpu_quant_values_at(LlmDtype dtype, int64_t g)
{
	return g * LLM_QUANT_GROUP * LLM_CPU_QUANT_LANES /
		   (dtype == LLM_DTYPE_INT8 ? 1 : 2);
}

/* Bytes of a unit's two scales, and of a group's. */
#define LLM_CPU_QUANT_UNIT_BYTES (2 * LLM_CPU_QUANT_LANES * 2)
#define LLM_CPU_QUANT_SCALE_BYTES (2 * LLM_CPU_QUANT_LANES)

/* Where the scales of group 0 lie in a panel, behind the units if any. */
static inline int64_t
llm_cpu_quant_scales_at(LlmDtype dtype, int64_t n_cols)
{
	int64_t n_groups = n_cols / LLM_QUANT_GROUP;
	int64_t at = llm_cpu_quant_values_at(dtype, n_groups);

	if (dtype == LLM_DTYPE_INT4_K)
		at += (n_groups + LLM_QUANT_UNIT_GROUPS - 1) / LLM_QUANT_UNIT_GROUPS *
			  LLM_CPU_QUANT_UNIT_BYTES;
	return at;
}

static inline int64_t
llm_cpu_quant_panel_bytes(LlmDtype dtype, int64_t n_cols)
{
	int64_t n_bytes = llm_cpu_quant_scales_at(dtype, n_cols) +
					  n_cols / LLM_QUANT_GROUP * LLM_CPU_QUANT_SCALE_BYTES;

	assert(n_cols % LLM_QUANT_GROUP == 0);
	return (n_bytes + 63) / 64 * 64;
}

/*
 * A group of x as the kernels read it: x = scale * value.  start is what an
 * integer sum begins with so that it ends as that of value - 128 (int8) or
 * value - 8 (int4) times x; sum is for int4_k, whose offset is free.
 */
typedef struct LlmCpuQuantX
{
	int8_t values[LLM_QUANT_GROUP];
	float scale;
	union
	{
		int32_t start;
		float sum; /* of scale * values */
	};
} LlmCpuQuantX;

_Static_assert(sizeof(LlmCpuQuantX) == 40, "");

/* cpu_quant.c */
extern size_t
llm_cpu_quant_bytes(LlmDtype dtype, int64_t n_rows, int64_t n_cols);
extern bool
llm_cpu_quant_write(LlmCompute *compute, const LlmMatrix *matrix,
					int64_t first_row, const LlmQuantRows *rows, LlmError *err);

/* out = one row * scale, as floats */
extern void llm_cpu_quant_read_row(const LlmMatrix *matrix, int64_t row,
								   float scale, float *out);

#endif /* LLM_CPU_QUANT_H */
