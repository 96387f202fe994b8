/*
 * cpu_quant_body.h
 *	  Products with quantized weights: the kernels' one body.
 *
 * x is rounded to int8 in groups of 32 columns, so that a group's products
 * are added as integers; a group's sum of 16 rows of weights becomes floats
 * once and is added, scaled, to the rows' totals.  Groups are added in order
 * and each total lies in a lane of its own: a result does not depend on the
 * tile, on the threads or on the instruction set.
 *
 * A tile is a panel of weights with up to TILE_X rows of x, which the
 * including file defines: 16 sums and 16 totals for each of them are to fit
 * into the registers, and to leave some for the weights.
 *
 * src/engine/compute/cpu_quant_body.h
 */
#ifndef LLM_CPU_QUANT_BODY_H
#define LLM_CPU_QUANT_BODY_H

#include "src/engine/compute/cpu_quant.h"
#include "src/engine/compute/cpu_quant_simd.h"

#ifndef TILE_X
#define TILE_X 1
#endif

#define MAX_TILE_X 10

_Static_assert(TILE_X <= MAX_TILE_X, "see multiply_tile_of");

/* Bytes ahead of what a single tile reads. */
#define AHEAD_BYTES 4096

LLM_INLINE int
weight_bits(LlmDtype dtype)
{
	return dtype == LLM_DTYPE_INT8 ? 8 : 4;
}

/* ------------------------------------------------------------------------
 * x
 * ------------------------------------------------------------------------
 */
static inline int64_t
quant_row_bytes(int64_t n_cols)
{
	return n_cols / LLM_QUANT_GROUP * (int64_t) sizeof(LlmCpuQuantX) +
		   LLM_CPU_ROW_PAD;
}

/* Below it 127 / largest would overflow, and the group counts as zeros. */
#define SMALLEST_GROUP 1e-35f

/* NaN and infinity make the group NaN. */
LLM_INLINE void
prepare_group(LlmDtype dtype, const float *x, LlmCpuQuantX *out)
{
	V16 lo = v16_load(x);
	V16 hi = v16_load(x + 16);
	V16 zero = v16_zero();
	V16 nothing = v16_add(v16_mul(lo, zero), v16_mul(hi, zero));
	bool is_finite = v16_mask_ge(nothing, zero) == 0xFFFF;
	float largest = v16_reduce_max(v16_max(v16_abs(lo), v16_abs(hi)));
	bool is_zero = !is_finite || largest < SMALLEST_GROUP;
	float inverse = is_zero ? 0.0f : 127.0f / largest;
	int32_t sum;

	if (!is_finite)
	{
		lo = zero;
		hi = zero;
	}
	lo = v16_round(v16_mul(lo, v16_set1(inverse)));
	hi = v16_round(v16_mul(hi, v16_set1(inverse)));
	q_store_i8(out->values, lo);
	q_store_i8(out->values + 16, hi);
	sum = (int32_t) v16_reduce_add(v16_add(lo, hi));
	out->scale = !is_finite ? NAN : is_zero ? 0.0f : largest / 127.0f;
	if (dtype == LLM_DTYPE_INT4_K)
		out->sum = out->scale * (float) sum;
	else
		out->start = sum * (dtype == LLM_DTYPE_INT8 ? -128 : -8);
}

LLM_INLINE void
prepare(LlmDtype dtype, const float *x, int64_t n_cols, void *out)
{
	LlmCpuQuantX *groups = out;

	for (int64_t g = 0; g < n_cols / LLM_QUANT_GROUP; g++)
		prepare_group(dtype, x + g * LLM_QUANT_GROUP, &groups[g]);
}

/* ------------------------------------------------------------------------
 * A tile
 * ------------------------------------------------------------------------
 */
typedef struct Tile
{
	const LlmCpuLinearTask *task;
	const char *panel;
	const char *ahead; /* what is fetched meanwhile */
	int n_lines;	   /* of it, for each group; or 0 */
	int n_rows;
	int64_t w_row;
	int64_t x_row;
} Tile;

/* Values 4 k .. 4 k + 3. */
LLM_INLINE int32_t
x_four(const LlmCpuQuantX *group, int k)
{
	int32_t four;

	memcpy(&four, group->values + 4 * k, sizeof(four));
	return four;
}

/* What a group's integer sum begins with. */
LLM_INLINE int32_t
x_start(LlmDtype dtype, const LlmCpuQuantX *group)
{
	return dtype == LLM_DTYPE_INT4_K ? 0 : group->start;
}

/* The values of a group of weights with n_x rows of x. */
LLM_INLINE void
add_products(LlmDtype dtype, int n_x, const char *values,
			 const LlmCpuQuantX *const x[MAX_TILE_X], QSum sum[MAX_TILE_X])
{
	const int bits = weight_bits(dtype);

	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
		sum[j] = q_start(bits, x_start(dtype, x[j]));
	LLM_UNROLL
	for (int k = 0; k < bits; k++)
	{
		QWeights w = q_load(values + k * 64);
		QWeights first = bits == 8 ? w : q_low(w);
		QWeights second = q_high(w);

		LLM_UNROLL
		for (int j = 0; j < n_x; j++)
			sum[j] = q_add(bits, sum[j], first, x_four(x[j], k));
		LLM_UNROLL
		for (int j = 0; bits == 4 && j < n_x; j++)
			sum[j] = q_add(bits, sum[j], second, x_four(x[j], 4 + k));
	}
}

/* A group's scales of 16 rows; offset for int4_k alone. */
LLM_INLINE V16
load_scale(LlmDtype dtype, const char *units, const char *scales, V16 *offset)
{
	if (dtype != LLM_DTYPE_INT4_K)
		return v16_load_f16(scales);
	*offset = v16_mul(v16_load_f16(units + LLM_CPU_QUANT_UNIT_BYTES / 2),
					  q_load_u8(scales + LLM_CPU_QUANT_LANES));
	return v16_mul(v16_load_f16(units), q_load_u8(scales));
}

/* Group g: its sums, scaled, to the totals. */
LLM_INLINE void
add_group(LlmDtype dtype, int n_x, const Tile *tile, int64_t g,
		  V16 total[MAX_TILE_X])
{
	const LlmCpuLinearTask *task = tile->task;
	const char *units =
		tile->panel +
		llm_cpu_quant_values_at(dtype, task->n_cols / LLM_QUANT_GROUP) +
		g / LLM_QUANT_UNIT_GROUPS * LLM_CPU_QUANT_UNIT_BYTES;
	const char *scales = tile->panel +
						 llm_cpu_quant_scales_at(dtype, task->n_cols) +
						 g * LLM_CPU_QUANT_SCALE_BYTES;
	const LlmCpuQuantX *x[MAX_TILE_X];
	QSum sum[MAX_TILE_X];
	V16 offset = v16_zero();
	V16 scale;

	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
		x[j] = (const LlmCpuQuantX *) ((const char *) task->x +
									   (tile->x_row + j) * task->x_stride) +
			   g;
	add_products(dtype, n_x, tile->panel + llm_cpu_quant_values_at(dtype, g), x,
				 sum);
	scale = load_scale(dtype, units, scales, &offset);
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
	{
		V16 products =
			q_finish(weight_bits(dtype), sum[j], x_start(dtype, x[j]));

		total[j] =
			q_fma(products, v16_mul(scale, v16_set1(x[j]->scale)), total[j]);
		if (dtype == LLM_DTYPE_INT4_K)
			total[j] = q_fma(offset, v16_set1(x[j]->sum), total[j]);
	}
}

/* n_x, constant after inlining, rows of x with the panel of w_row. */
LLM_INLINE void
multiply_tile(LlmDtype dtype, int n_x, const Tile *tile)
{
	const LlmCpuLinearTask *task = tile->task;
	const char *ahead = tile->ahead;
	V16 total[MAX_TILE_X];
	V16 bias = v16_zero();

	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
		total[j] = v16_zero();
	for (int64_t g = 0; g < task->n_cols / LLM_QUANT_GROUP; g++)
	{
		for (int i = 0; i < tile->n_lines; i++, ahead += 64)
			__builtin_prefetch(ahead, 0, 2);
		add_group(dtype, n_x, tile, g, total);
	}
	if (task->bias.data != NULL)
		bias = v16_load_first_as(task->bias.data, task->bias.dtype, tile->w_row,
								 tile->n_rows);
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
	{
		float *out =
			task->out + (tile->x_row + j) * task->out_stride + tile->w_row;

		total[j] = v16_add(total[j], bias);
		if (tile->n_rows == LLM_CPU_PANEL_ROWS)
			v16_store(out, total[j]);
		else
			v16_store_first(out, total[j], tile->n_rows);
	}
}

LLM_INLINE void
multiply_tile_of(LlmDtype dtype, int64_t n_x, const Tile *tile)
{
#define CASE(n)                        \
	case n:                            \
		multiply_tile(dtype, n, tile); \
		break

	switch (n_x)
	{
		CASE(1);
#if TILE_X > 1
		CASE(2);
		CASE(3);
#endif
#if TILE_X > 3
		CASE(4);
		CASE(5);
		CASE(6);
		CASE(7);
		CASE(8);
		CASE(9);
		CASE(10);
#endif
		default:
			assert(false);
	}
#undef CASE
}

/* ------------------------------------------------------------------------
 * A task
 * ------------------------------------------------------------------------
 */

/* One panel with all of x, in tiles of about equal height. */
LLM_INLINE void
multiply_panel(LlmDtype dtype, Tile *tile, const char *next)
{
	const int64_t n_x = tile->task->n_x;
	const int64_t n_tiles = (n_x + TILE_X - 1) / TILE_X;
	const int64_t n_groups = tile->task->n_cols / LLM_QUANT_GROUP;

	/* the next panel, spread over the tiles; or what a single one reads soon */
	int n_lines = (int) ((weight_bits(dtype) + n_tiles - 1) / n_tiles);

	for (int64_t i = 0; i < n_tiles; i++)
	{
		int64_t x_end = n_x * (i + 1) / n_tiles;

		tile->x_row = n_x * i / n_tiles;
		tile->n_lines = 0;
		if (n_tiles == 1 || (next != NULL && i * n_lines < weight_bits(dtype)))
			tile->n_lines = n_lines;
		if (tile->n_lines > 0)
			tile->ahead = n_tiles == 1 ? tile->panel + AHEAD_BYTES
									   : next + i * n_lines * n_groups * 64;
		multiply_tile_of(dtype, x_end - tile->x_row, tile);
	}
}

LLM_INLINE void
multiply(LlmDtype dtype, const LlmCpuLinearTask *task, int64_t row_begin,
		 int64_t row_end)
{
	const int64_t panel_bytes = llm_cpu_quant_panel_bytes(dtype, task->n_cols);
	const char *panel =
		(const char *) task->w + row_begin / LLM_CPU_PANEL_ROWS * panel_bytes;

	assert(row_begin % LLM_CPU_PANEL_ROWS == 0);
	for (int64_t row = row_begin; row < row_end; row += LLM_CPU_PANEL_ROWS)
	{
		bool is_last = row + LLM_CPU_PANEL_ROWS >= row_end;
		Tile tile = {
			.task = task,
			.panel = panel,
			.w_row = row,
			.n_rows = is_last ? (int) (row_end - row) : LLM_CPU_PANEL_ROWS,
		};

		panel += panel_bytes;
		multiply_panel(dtype, &tile, is_last ? NULL : panel);
	}
}

#define QUANT_KERNEL(name, dtype)                                            \
	static void prepare_##name(const float *x, int64_t n_cols, void *out)    \
	{                                                                        \
		prepare(dtype, x, n_cols, out);                                      \
	}                                                                        \
	static void multiply_##name(const LlmCpuLinearTask *task, int64_t begin, \
								int64_t end)                                 \
	{                                                                        \
		multiply(dtype, task, begin, end);                                   \
	}

QUANT_KERNEL(int8, LLM_DTYPE_INT8)
QUANT_KERNEL(int4, LLM_DTYPE_INT4)
QUANT_KERNEL(int4_k, LLM_DTYPE_INT4_K)

#define QUANT_KERNELS                                                   \
	{                                                                   \
		.int8 = { quant_row_bytes, prepare_int8, multiply_int8 },       \
		.int4 = { quant_row_bytes, prepare_int4, multiply_int4 },       \
		.int4_k = { quant_row_bytes, prepare_int4_k, multiply_int4_k }, \
	}

#endif /* LLM_CPU_QUANT_BODY_H */
