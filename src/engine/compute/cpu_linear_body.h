/*
 * cpu_linear_body.h
 *	  Matrix products as dot products of rows: the kernels' one body.
 *
 * Both operands are row-major over the same columns, so a tile of rows of w
 * and rows of x needs no repacking: each pair has one 16-lane accumulator,
 * both sides step along the columns, and the accumulators' lanes are added at
 * the end.  Every product is summed in the same order whatever the tile's
 * shape, which makes a row's result independent of the rows computed with
 * it.
 *
 * The including file defines TILE_W and TILE_X, the largest tile that its
 * registers hold.
 *
 * src/engine/compute/cpu_linear_body.h
 */
#ifndef LLM_CPU_LINEAR_BODY_H
#define LLM_CPU_LINEAR_BODY_H

#include <assert.h>

#include "src/engine/compute/cpu_internal.h"
#include "src/engine/compute/cpu_simd.h"

#ifndef TILE_W
#define TILE_W 4
#define TILE_X 1
#endif

#define MAX_TILE_X 6

_Static_assert(TILE_W == 4 || TILE_W == 2, "see finish_tile");
_Static_assert(TILE_X <= MAX_TILE_X, "see multiply_tile");

/* What is multiplied with what. */
typedef enum Form
{
	FORM_F32,		 /* both f32 */
	FORM_F16,		 /* w f16, x f32 */
	FORM_BF16,		 /* w bf16, x f32 reordered by prepare_pairs() */
	FORM_BF16_INPUTS /* both bf16: cpu_linear_avx512bf16.c */
} Form;

/* Columns that one step takes. */
LLM_INLINE int64_t
step_cols(Form form)
{
	return form == FORM_F32 || form == FORM_F16 ? 16 : 32;
}

/* Bytes of a step's columns. */
LLM_INLINE int64_t
w_step_bytes(Form form)
{
	return form == FORM_F16 ? 32 : 64;
}

LLM_INLINE int64_t
x_step_bytes(Form form)
{
	return form == FORM_BF16 ? 128 : 64;
}

/* Where the rows of a tile begin. */
typedef struct Rows
{
	const char *w[TILE_W];
	const char *x[MAX_TILE_X];
} Rows;

#if defined(__AVX512BF16__)

/* Every lane adds the products of two neighbouring columns. */
LLM_INLINE void
step_tile_bf16_inputs(int n_w, int n_x, const Rows *rows, int64_t k,
					  V16 acc[TILE_W][MAX_TILE_X])
{
	__m512bh w[TILE_W];

	LLM_UNROLL
	for (int i = 0; i < n_w; i++)
		w[i] = (__m512bh) _mm512_loadu_si512(rows->w[i] + k * 64);
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
	{
		__m512bh x = (__m512bh) _mm512_loadu_si512(rows->x[j] + k * 64);

		LLM_UNROLL
		for (int i = 0; i < n_w; i++)
			acc[i][j] = _mm512_dpbf16_ps(acc[i][j], w[i], x);
	}
}

#endif

/* Part 0 of step k or, of FORM_BF16, part 1: its odd columns. */
LLM_INLINE void
step_part(Form form, int part, int n_w, int n_x, const Rows *rows, int64_t k,
		  V16 acc[TILE_W][MAX_TILE_X])
{
	V16 w[TILE_W];

	LLM_UNROLL
	for (int i = 0; i < n_w; i++)
	{
		const char *at = rows->w[i] + k * w_step_bytes(form);

		if (form == FORM_BF16)
			w[i] = part == 0 ? v16_load_bf16_even(at) : v16_load_bf16_odd(at);
		else if (form == FORM_F16)
			w[i] = v16_load_f16(at);
		else
			w[i] = v16_load(at);
	}
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
	{
		V16 x = v16_load(rows->x[j] + k * x_step_bytes(form) + 64 * part);

		LLM_UNROLL
		for (int i = 0; i < n_w; i++)
			acc[i][j] = v16_fma(w[i], x, acc[i][j]);
	}
}

/* Step k of every pair. */
LLM_INLINE void
step_tile(Form form, int n_w, int n_x, const Rows *rows, int64_t k,
		  V16 acc[TILE_W][MAX_TILE_X])
{
#if defined(__AVX512BF16__)
	if (form == FORM_BF16_INPUTS)
	{
		step_tile_bf16_inputs(n_w, n_x, rows, k, acc);
		return;
	}
#endif

	step_part(form, 0, n_w, n_x, rows, k, acc);
	if (form != FORM_BF16)
		return;
	/* w is loaded again: there is no register to keep it in */
	LLM_KEEP_ORDER();
	step_part(form, 1, n_w, n_x, rows, k, acc);
}

/*
 * A panel of rows of w with all of x, cut along the columns into blocks so
 * narrow that a tile of x stays in the first-level cache while the panel's
 * tiles pass by.  Accumulators wait in memory from block to block.
 */
#define PANEL_ROWS LLM_CPU_PANEL_ROWS

/* A block of columns of a panel. */
typedef struct Block
{
	const LlmCpuLinearTask *task;
	int64_t w_row; /* the panel's first */
	int64_t first; /* steps first .. end - 1 */
	int64_t end;
	bool is_last;
	const char *next; /* what is multiplied after this block, or NULL */
} Block;

/* The accumulators of a tile between two blocks. */
LLM_INLINE float *
tile_storage(const Block *block, int64_t w_row, int64_t x_row)
{
	return block->task->scratch + PANEL_ROWS * block->task->n_x +
		   ((w_row - block->w_row) * block->task->n_x + x_row) * 16;
}

/* Add lanes: rows of w are neighbours in the panel's results. */
LLM_INLINE void
finish_tile(const Block *block, int64_t w_row, int64_t x_row, int n_w, int n_x,
			V16 acc[TILE_W][MAX_TILE_X])
{
	float *out =
		block->task->scratch + x_row * PANEL_ROWS + (w_row - block->w_row);

	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
	{
		V16 in[4] = { v16_zero(), v16_zero(), v16_zero(), v16_zero() };
		float sums[4];

		LLM_UNROLL
		for (int i = 0; i < n_w; i++)
			in[i] = acc[i][j];
		v16_reduce_add4(in, sums);
		memcpy(out + j * PANEL_ROWS, sums, (size_t) n_w * sizeof(float));
	}
}

/* The columns after the last whole step: x is padded with zeros, w ends. */
LLM_INLINE void
step_rest(Form form, int n_w, int n_x, const LlmCpuLinearTask *task,
		  const Rows *rows, V16 acc[TILE_W][MAX_TILE_X])
{
	int64_t n_rest = task->n_cols % step_cols(form);
	int64_t k = task->n_cols / step_cols(form);
	char rest[TILE_W][64];
	Rows last;

	if (n_rest == 0)
		return;
	LLM_UNROLL
	for (int i = 0; i < n_w; i++)
	{
		memset(rest[i], 0, sizeof(rest[i]));
		memcpy(rest[i], rows->w[i] + k * w_step_bytes(form),
			   (size_t) (n_rest * w_step_bytes(form) / step_cols(form)));
		last.w[i] = rest[i];
	}
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
		last.x[j] = rows->x[j] + k * x_step_bytes(form);
	step_tile(form, n_w, n_x, &last, 0, acc);
}

/* Steps between two rounds of prefetching. */
#define STEPS_PER_ROUND 8

/*
 * n_w rows of w with n_x rows of x, both constant after inlining.  Meanwhile
 * n_ahead rows of what comes next are fetched into the second-level cache.
 */
LLM_INLINE void
multiply_tile(Form form, int n_w, int n_x, const Block *block, int64_t w_row,
			  int64_t x_row, const char *ahead, int n_ahead)
{
	const LlmCpuLinearTask *task = block->task;
	const int64_t w_step = w_step_bytes(form);
	const int64_t row_bytes = task->n_cols * w_step / step_cols(form);
	float *storage = tile_storage(block, w_row, x_row);
	Rows rows;
	V16 acc[TILE_W][MAX_TILE_X];

	LLM_UNROLL
	for (int i = 0; i < n_w; i++)
	{
		rows.w[i] = (const char *) task->w + (w_row + i) * row_bytes;
		LLM_UNROLL
		for (int j = 0; j < n_x; j++)
			acc[i][j] = block->first == 0
							? v16_zero()
							: v16_load(storage + (i * task->n_x + j) * 16);
	}
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
		rows.x[j] = (const char *) task->x + (x_row + j) * task->x_stride;

	for (int64_t k = block->first; k < block->end;)
	{
		int64_t round_end =
			k + STEPS_PER_ROUND < block->end ? k + STEPS_PER_ROUND : block->end;

		for (int i = 0; i < n_ahead; i++)
		{
			for (int64_t at = 0; at < STEPS_PER_ROUND * w_step; at += 64)
				__builtin_prefetch(ahead + i * row_bytes + at, 0, 2);
		}
		ahead += STEPS_PER_ROUND * w_step;
		for (; k < round_end; k++)
			step_tile(form, n_w, n_x, &rows, k, acc);
	}
	if (block->is_last)
	{
		step_rest(form, n_w, n_x, task, &rows, acc);
		finish_tile(block, w_row, x_row, n_w, n_x, acc);
		return;
	}
	LLM_UNROLL
	for (int i = 0; i < n_w; i++)
	{
		LLM_UNROLL
		for (int j = 0; j < n_x; j++)
			v16_store(storage + (i * task->n_x + j) * 16, acc[i][j]);
	}
}

LLM_INLINE void
multiply_tile_of(Form form, int n_w, int64_t n_x, const Block *block,
				 int64_t w_row, int64_t x_row, const char *ahead, int n_ahead)
{
#define CASE(n)                                                           \
	case n:                                                               \
		multiply_tile(form, n_w, n, block, w_row, x_row, ahead, n_ahead); \
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
#endif
		default:
			assert(false);
	}
#undef CASE
}

/* A block of n_w rows with all of x, in tiles of about equal height. */
LLM_INLINE void
multiply_block(Form form, const Block *block, int n_panel_rows)
{
	const LlmCpuLinearTask *task = block->task;
	const int64_t row_bytes =
		task->n_cols * w_step_bytes(form) / step_cols(form);
	int64_t n_tiles = (task->n_x + TILE_X - 1) / TILE_X;
	/* spread over the tiles; a single one is as fast as memory anyway */
	int n_ahead = n_tiles >= 4 ? 1 : n_tiles >= 2 ? 2 : 0;

	for (int64_t tile = 0; tile < n_tiles; tile++)
	{
		int64_t x_row = task->n_x * tile / n_tiles;
		int64_t n_x = task->n_x * (tile + 1) / n_tiles - x_row;
		int64_t ahead_row = tile * n_ahead * (PANEL_ROWS / 4);
		int row = 0;

		for (; row + TILE_W <= n_panel_rows; row += TILE_W)
		{
			int64_t at = ahead_row + row / 4 * n_ahead;
			bool fetch = block->next != NULL && row % 4 == 0 &&
						 at + n_ahead <= PANEL_ROWS;

			multiply_tile_of(form, TILE_W, n_x, block, block->w_row + row,
							 x_row, block->next + (fetch ? at * row_bytes : 0),
							 fetch ? n_ahead : 0);
		}
		for (; row < n_panel_rows; row++)
			multiply_tile_of(form, 1, n_x, block, block->w_row + row, x_row,
							 block->next, 0);
	}
}

/* Bias, and out to where the results belong, whole cache lines at a time. */
LLM_INLINE void
store_panel(const LlmCpuLinearTask *task, int64_t w_row, int n_rows)
{
	V16 bias = v16_zero();

	if (task->bias.data != NULL)
		bias =
			v16_load_first_as(task->bias.data, task->bias.dtype, w_row, n_rows);
	for (int64_t j = 0; j < task->n_x; j++)
	{
		float *out = task->out + j * task->out_stride + w_row;
		V16 sums = v16_add(v16_load(task->scratch + j * PANEL_ROWS), bias);

		if (n_rows == PANEL_ROWS)
			v16_store(out, sums);
		else
			v16_store_first(out, sums, n_rows);
	}
}

/*
 * Steps of a block of columns: a tile of x is to fit into the first-level
 * cache, but going on with stored accumulators has its price too.
 */
LLM_INLINE int64_t
choose_block(Form form, const LlmCpuLinearTask *task)
{
	int64_t n_steps = task->n_cols / step_cols(form);
	bool has_many_tiles = task->n_x > 4 * TILE_X;

	/* with one tile of x there is nothing to keep in the cache */
	if (task->n_x <= TILE_X ||
		(has_many_tiles && n_steps * x_step_bytes(form) <= 8192))
		return n_steps;
	return 4096 / x_step_bytes(form);
}

LLM_INLINE void
multiply(Form form, const LlmCpuLinearTask *task, int64_t row_begin,
		 int64_t row_end)
{
	const int64_t w_step = w_step_bytes(form);
	const int64_t n_steps = task->n_cols / step_cols(form);
	const int64_t row_bytes = task->n_cols * w_step / step_cols(form);
	const int64_t block_steps = choose_block(form, task);

	for (int64_t row = row_begin; row < row_end; row += PANEL_ROWS)
	{
		int n_rows =
			row_end - row < PANEL_ROWS ? (int) (row_end - row) : PANEL_ROWS;
		Block block = { .task = task, .w_row = row };

		do
		{
			const char *w = (const char *) task->w + row * row_bytes;

			block.end = block.first + block_steps;
			block.is_last = block.end >= n_steps;
			if (block.is_last)
				block.end = n_steps;
			block.next = NULL;
			if (!block.is_last)
				block.next = w + block.end * w_step;
			else if (row + 2 * PANEL_ROWS <= row_end)
				block.next = w + PANEL_ROWS * row_bytes;
			multiply_block(form, &block, n_rows);
			block.first = block.end;
		} while (!block.is_last);
		store_panel(task, row, n_rows);
	}
}

static inline void
multiply_f32(const LlmCpuLinearTask *task, int64_t row_begin, int64_t row_end)
{
	multiply(FORM_F32, task, row_begin, row_end);
}

static inline void
multiply_f16(const LlmCpuLinearTask *task, int64_t row_begin, int64_t row_end)
{
	multiply(FORM_F16, task, row_begin, row_end);
}

static inline void
multiply_bf16(const LlmCpuLinearTask *task, int64_t row_begin, int64_t row_end)
{
	multiply(FORM_BF16, task, row_begin, row_end);
}

/* Rows are whole steps, and one line longer: see LLM_CPU_ROW_PAD. */
static inline int64_t
prepared_row_bytes(int64_t n_cols)
{
	return (n_cols + 31) / 32 * 128 + LLM_CPU_ROW_PAD;
}

static inline void
prepare_plain(const float *x, int64_t n_cols, void *out)
{
	memcpy(out, x, (size_t) n_cols * sizeof(float));
	memset((float *) out + n_cols, 0,
		   (size_t) ((n_cols + 31) / 32 * 128 - n_cols * 4));
}

static inline void
prepare_pairs(const float *x, int64_t n_cols, void *out)
{
	float *dest = out;

	memset(dest + n_cols / 32 * 32, 0,
		   n_cols % 32 == 0 ? 0 : 32 * sizeof(float));
	for (int64_t k = 0; k + 32 <= n_cols; k += 32)
	{
		for (int i = 0; i < 16; i++)
		{
			dest[k + i] = x[k + 2 * i];
			dest[k + 16 + i] = x[k + 2 * i + 1];
		}
	}
	for (int64_t k = n_cols / 32 * 32; k < n_cols; k++)
		dest[k / 32 * 32 + (k % 2) * 16 + k % 32 / 2] = x[k];
}

#define LINEAR_KERNELS                                                \
	{                                                                 \
		.f32 = { prepared_row_bytes, prepare_plain, multiply_f32 },   \
		.f16 = { prepared_row_bytes, prepare_plain, multiply_f16 },   \
		.bf16 = { prepared_row_bytes, prepare_pairs, multiply_bf16 }, \
	}

#endif /* LLM_CPU_LINEAR_BODY_H */
