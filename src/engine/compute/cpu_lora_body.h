/*
 * cpu_lora_body.h
 *	  Adapters' products with a few rows: the kernels' one body.
 *
 * "shrink" multiplies rows of x with A: dot products along the columns, a tile
 * of rows of A by rows of x at a time, as in cpu_linear_body.h.  "expand" adds
 * what B makes of the results to the outputs; B lies by rank, so that a vector
 * is 16 outputs and nothing is added across lanes.  Each sum has one order,
 * whatever rows are computed together.
 *
 * The including file defines LORA_ROWS, how many rows of x a tile has.
 *
 * src/engine/compute/cpu_lora_body.h
 */
#ifndef LLM_CPU_LORA_BODY_H
#define LLM_CPU_LORA_BODY_H

#include "src/engine/compute/cpu_internal.h"
#include "src/engine/compute/cpu_simd.h"

/* Ranks of a tile of shrink; LLM_LORA_RANK_UNIT is a multiple of it. */
#define TILE_RANKS 4

/* Vectors of outputs of a tile of expand. */
#define TILE_VECTORS 2

LLM_INLINE V16
load_number(const char *src, bool is_bf16)
{
	return is_bf16 ? v16_load_bf16(src) : v16_load(src);
}

/* What a tile computes; constant after inlining. */
typedef struct LoraTile
{
	bool is_bf16;
	int n_rows;
} LoraTile;

LLM_INLINE void
shrink_columns(LoraTile tile, const LlmCpuLoraTask *task, int32_t rank,
			   const float *const x[], int64_t col, bool is_rest,
			   V16 acc[LORA_ROWS][TILE_RANKS])
{
	const int64_t size = tile.is_bf16 ? 2 : 4;
	const char *down =
		(const char *) task->down + (rank * task->down_stride + col) * size;
	V16 a[TILE_RANKS];

	LLM_UNROLL
	for (int k = 0; k < TILE_RANKS; k++)
		a[k] = load_number(down + k * task->down_stride * size, tile.is_bf16);
	LLM_UNROLL
	for (int i = 0; i < tile.n_rows; i++)
	{
		V16 v = is_rest ? v16_load_first(x[i] + col, task->n_in - col)
						: v16_load(x[i] + col);

		LLM_UNROLL
		for (int k = 0; k < TILE_RANKS; k++)
			acc[i][k] = v16_fma(a[k], v, acc[i][k]);
	}
}

/* Ranks rank .. rank + 3 of some rows. */
LLM_INLINE void
shrink_tile(LoraTile tile, const LlmCpuLoraTask *task, int32_t rank,
			int32_t row)
{
	const float *x[LORA_ROWS];
	V16 acc[LORA_ROWS][TILE_RANKS];
	int64_t col = 0;

	LLM_UNROLL
	for (int i = 0; i < tile.n_rows; i++)
	{
		x[i] = task->x + task->rows[row + i] * task->n_in;
		LLM_UNROLL
		for (int k = 0; k < TILE_RANKS; k++)
			acc[i][k] = v16_zero();
	}
	for (; col + 16 <= task->n_in; col += 16)
		shrink_columns(tile, task, rank, x, col, false, acc);
	if (col < task->n_in)
		shrink_columns(tile, task, rank, x, col, true, acc);
	LLM_UNROLL
	for (int i = 0; i < tile.n_rows; i++)
		v16_reduce_add4(acc[i],
						task->inner + (row + i) * task->inner_stride + rank);
}

LLM_INLINE void
shrink_rows(bool is_bf16, const LlmCpuLoraTask *task, int32_t begin,
			int32_t end)
{
	for (int32_t rank = begin; rank < end; rank += TILE_RANKS)
	{
		int32_t row = 0;

		for (; row + LORA_ROWS <= task->n_rows; row += LORA_ROWS)
			shrink_tile((LoraTile){ is_bf16, LORA_ROWS }, task, rank, row);
		for (; row < task->n_rows; row++)
			shrink_tile((LoraTile){ is_bf16, 1 }, task, rank, row);
	}
}

static inline void
shrink(const LlmCpuLoraTask *task, int32_t begin, int32_t end)
{
	if (task->dtype == LLM_DTYPE_BF16)
		shrink_rows(true, task, begin, end);
	else
		shrink_rows(false, task, begin, end);
}

/* out = gain * (out - bias + sum) + bias, or out + sum without gains. */
LLM_INLINE void
add_outputs(const LlmCpuLoraTask *task, int32_t row, int64_t first, int64_t n,
			V16 sum)
{
	float *out = task->out + task->rows[row] * task->out_stride + first;
	V16 v = n == 16 ? v16_load(out) : v16_load_first(out, n);

	if (task->gain != NULL)
	{
		V16 bias = task->bias.data == NULL
					   ? v16_zero()
					   : v16_load_first_as(task->bias.data, task->bias.dtype,
										   first, n);
		V16 gain = v16_load(task->gain + first);

		v = v16_fma(gain, v16_add(v16_sub(v, bias), sum), bias);
	}
	else
		v = v16_add(v, sum);
	if (n == 16)
		v16_store(out, v);
	else
		v16_store_first(out, v, n);
}

/* TILE_VECTORS vectors of outputs of some rows. */
LLM_INLINE void
expand_tile(LoraTile tile, const LlmCpuLoraTask *task, int32_t row,
			int64_t first, int64_t end)
{
	const int64_t size = tile.is_bf16 ? 2 : 4;
	const char *up = (const char *) task->up + first * size;
	const float *inner = task->inner + row * task->inner_stride;
	V16 acc[LORA_ROWS][TILE_VECTORS];

	LLM_UNROLL
	for (int i = 0; i < tile.n_rows; i++)
	{
		LLM_UNROLL
		for (int v = 0; v < TILE_VECTORS; v++)
			acc[i][v] = v16_zero();
	}
	for (int32_t rank = 0; rank < task->rank; rank++)
	{
		V16 b[TILE_VECTORS];

		LLM_UNROLL
		for (int v = 0; v < TILE_VECTORS; v++)
			b[v] = load_number(up + (rank * task->up_stride + 16 * v) * size,
							   tile.is_bf16);
		LLM_UNROLL
		for (int i = 0; i < tile.n_rows; i++)
		{
			V16 h = v16_set1(inner[i * task->inner_stride + rank]);

			LLM_UNROLL
			for (int v = 0; v < TILE_VECTORS; v++)
				acc[i][v] = v16_fma(h, b[v], acc[i][v]);
		}
	}
	LLM_UNROLL
	for (int i = 0; i < tile.n_rows; i++)
	{
		LLM_UNROLL
		for (int v = 0; v < TILE_VECTORS; v++)
		{
			int64_t n = end - first - 16 * v;

			if (n > 0)
				add_outputs(task, row + i, first + 16 * v, n < 16 ? n : 16,
							acc[i][v]);
		}
	}
}

LLM_INLINE void
expand_rows(bool is_bf16, const LlmCpuLoraTask *task, int64_t begin,
			int64_t end)
{
	for (int64_t first = begin; first < end; first += 16 * TILE_VECTORS)
	{
		int32_t row = 0;

		for (; row + LORA_ROWS <= task->n_rows; row += LORA_ROWS)
			expand_tile((LoraTile){ is_bf16, LORA_ROWS }, task, row, first,
						end);
		for (; row < task->n_rows; row++)
			expand_tile((LoraTile){ is_bf16, 1 }, task, row, first, end);
	}
}

static inline void
expand(const LlmCpuLoraTask *task, int64_t begin, int64_t end)
{
	if (task->dtype == LLM_DTYPE_BF16)
		expand_rows(true, task, begin, end);
	else
		expand_rows(false, task, begin, end);
}

#define LORA_KERNELS   \
	{                  \
		shrink, expand \
	}

#endif /* LLM_CPU_LORA_BODY_H */
