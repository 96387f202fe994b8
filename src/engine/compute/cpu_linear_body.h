/*
 * cpu_linear_body.h
 *	  Matrix products as dot products of rows: the kernels' one body.
 *
 * Both operands are row-major over the same columns, so a tile of rows of w
 * and rows of x needs no repacking: each pair has one 16-lane accumulator,
 * both sides step along the columns, and the accumulators' lanes are added at
 * a segment's end.  Every product is summed in the same order whatever the
 * tile's shape, which makes a row's result independent of the rows computed with
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

#define PANEL_ROWS LLM_CPU_PANEL_ROWS

_Static_assert(TILE_W == 4 || TILE_W == 2, "see finish_tile");
_Static_assert(TILE_X == 1 || TILE_X == 3 || TILE_X == 6,
			   "see multiply_tile_of");

/* What is multiplied with what. */
typedef enum Form
{
	FORM_F32,		 /* both f32 */
	FORM_F16,		 /* w f16, x f32 */
	FORM_BF16,		 /* w bf16, x f32 reordered by prepare_pairs() */
	FORM_BF16_INPUTS /* both bf16: cpu_linear_avx512bf16.c */
} Form;

/* Where a tile finds its rows of w. */
typedef enum Source
{
	SOURCE_WEIGHTS,		 /* in the weights */
	SOURCE_WEIGHTS_KEEP, /* there, and a widened copy is kept */
	SOURCE_KEPT			 /* in that copy */
} Source;

/* Columns that one step takes. */
LLM_INLINE int64_t
step_cols(Form form)
{
	return form == FORM_F32 || form == FORM_F16 ? 16 : 32;
}

/* Vectors of w and of x in a step: even and odd columns of bf16. */
LLM_INLINE int
step_parts(Form form)
{
	return form == FORM_BF16 ? 2 : 1;
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
	return 64 * step_parts(form);
}

LLM_INLINE int64_t
kept_step_bytes(Form form)
{
	return TILE_W * 64 * step_parts(form);
}

/*
 * A segment of the columns, of a panel of rows of w, with all of x.  A panel's
 * widened copy and a tile of x are about what the first-level cache feeds.
 */
typedef struct Segment
{
	const LlmCpuLinearTask *task;
	const char *w; /* the panel's first row, at the segment */
	int n_rows;
	int64_t first;	  /* step, of the task's columns */
	int64_t n_steps;  /* whole ones */
	bool has_rest;	  /* columns after the last whole step */
	const char *next; /* what is multiplied after this, or NULL */
} Segment;

/* Where the rows of a tile begin. */
typedef struct Rows
{
	const char *w[TILE_W];
	const char *x[TILE_X];
	char *kept; /* [steps, parts, TILE_W] vectors */
} Rows;

/* What a task's scratch holds: see llm_cpu_linear_thread_bytes(). */
LLM_INLINE float *
segment_sums(const LlmCpuLinearTask *task)
{
	return task->scratch;
}

LLM_INLINE float *
panel_sums(const LlmCpuLinearTask *task)
{
	return task->scratch + PANEL_ROWS * task->n_x;
}

LLM_INLINE char *
kept_rows(const LlmCpuLinearTask *task, int row)
{
	return (char *) (task->scratch + 2 * PANEL_ROWS * task->n_x +
					 row * LLM_CPU_SEGMENT_COLS);
}

/* What a tile is, all of it constant after inlining. */
typedef struct TileKind
{
	Form form;
	Source source;
	int n_x; /* rows of x; TILE_W of w */
} TileKind;

LLM_INLINE int64_t
min_of(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

LLM_INLINE V16
load_w(TileKind kind, int part, const char *raw, char *kept)
{
	V16 w;

	if (kind.source == SOURCE_KEPT)
		return v16_load(kept);
	if (kind.form == FORM_BF16)
		w = part == 0 ? v16_load_bf16_even(raw) : v16_load_bf16_odd(raw);
	else if (kind.form == FORM_F16)
		w = v16_load_f16(raw);
	else
		w = v16_load(raw);
	if (kind.source == SOURCE_WEIGHTS_KEEP)
		v16_store(kept, w);
	return w;
}

LLM_INLINE V16
multiply_add(Form form, V16 w, V16 x, V16 acc)
{
#if defined(__AVX512BF16__)
	/* every lane adds the products of two neighbouring columns */
	if (form == FORM_BF16_INPUTS)
		return _mm512_dpbf16_ps(acc, (__m512bh) w, (__m512bh) x);
#endif
	return v16_fma(w, x, acc);
}

/* Part 0 of step k or, of FORM_BF16, part 1: its odd columns. */
LLM_INLINE void
step_part(TileKind kind, int part, const Rows *rows, int64_t k,
		  V16 acc[TILE_W][TILE_X])
{
	const Form form = kind.form;
	char *kept = rows->kept + k * kept_step_bytes(form) + part * TILE_W * 64;
	V16 w[TILE_W];

	LLM_UNROLL
	for (int i = 0; i < TILE_W; i++)
		w[i] = load_w(kind, part, rows->w[i] + k * w_step_bytes(form),
					  kept + i * 64);
	LLM_UNROLL
	for (int j = 0; j < kind.n_x; j++)
	{
		V16 x = v16_load(rows->x[j] + k * x_step_bytes(form) + 64 * part);

		LLM_UNROLL
		for (int i = 0; i < TILE_W; i++)
			acc[i][j] = multiply_add(form, w[i], x, acc[i][j]);
	}
}

/* Step k of every pair. */
LLM_INLINE void
step_tile(TileKind kind, const Rows *rows, int64_t k, V16 acc[TILE_W][TILE_X])
{
	step_part(kind, 0, rows, k, acc);
	if (step_parts(kind.form) == 1)
		return;
	/* w is loaded again: there is no register to keep it in */
	LLM_KEEP_ORDER();
	step_part(kind, 1, rows, k, acc);
}

/* The columns after the last whole step: x is padded with zeros, w ends. */
LLM_INLINE void
step_rest(TileKind kind, const Segment *segment, const Rows *rows,
		  V16 acc[TILE_W][TILE_X])
{
	const Form form = kind.form;
	int64_t n_rest = segment->task->n_cols % step_cols(form);
	int64_t k = segment->n_steps;
	char rest[TILE_W][64];
	Rows last = { .kept = rows->kept + k * kept_step_bytes(form) };

	LLM_UNROLL
	for (int i = 0; i < TILE_W; i++)
	{
		last.w[i] = rest[i];
		if (kind.source == SOURCE_KEPT)
			continue;
		memset(rest[i], 0, sizeof(rest[i]));
		memcpy(rest[i], rows->w[i] + k * w_step_bytes(form),
			   (size_t) (n_rest * w_step_bytes(form) / step_cols(form)));
	}
	LLM_UNROLL
	for (int j = 0; j < kind.n_x; j++)
		last.x[j] = rows->x[j] + k * x_step_bytes(form);
	step_tile(kind, &last, 0, acc);
}

/* Add lanes: rows of w are neighbours in the segment's sums. */
LLM_INLINE void
finish_tile(TileKind kind, float *sums_at, V16 acc[TILE_W][TILE_X])
{
	LLM_UNROLL
	for (int j = 0; j < kind.n_x; j++)
	{
		V16 in[4] = { v16_zero(), v16_zero(), v16_zero(), v16_zero() };
		float sums[4];

		LLM_UNROLL
		for (int i = 0; i < TILE_W; i++)
			in[i] = acc[i][j];
		v16_reduce_add4(in, sums);
		memcpy(sums_at + j * PANEL_ROWS, sums, (size_t) TILE_W * sizeof(float));
	}
}

/* Steps between two rounds of prefetching. */
#define STEPS_PER_ROUND 8

/*
 * Rows of the next segment that a tile fetches into the second-level cache.
 * An address as a number, for it may lead beyond the weights.
 */
typedef struct Ahead
{
	uintptr_t rows;
	int n_rows;
} Ahead;

/* kind is constant after inlining. */
LLM_INLINE void
multiply_tile(TileKind kind, const Segment *segment, int w_row, int64_t x_row,
			  Ahead ahead)
{
	const LlmCpuLinearTask *task = segment->task;
	const int64_t w_step = w_step_bytes(kind.form);
	const int64_t n_steps = segment->n_steps;
	Rows rows = { .kept = kept_rows(task, w_row) };
	V16 acc[TILE_W][TILE_X];

	LLM_UNROLL
	for (int i = 0; i < TILE_W; i++)
	{
		/* where the panel ends, its last row again: nobody reads the result */
		rows.w[i] = segment->w +
					min_of(w_row + i, segment->n_rows - 1) * task->w_stride;
		LLM_UNROLL
		for (int j = 0; j < kind.n_x; j++)
			acc[i][j] = v16_zero();
	}
	LLM_UNROLL
	for (int j = 0; j < kind.n_x; j++)
		rows.x[j] = (const char *) task->x + (x_row + j) * task->x_stride +
					segment->first * x_step_bytes(kind.form);

	for (int64_t k = 0; k < n_steps;)
	{
		int64_t round_end = min_of(k + STEPS_PER_ROUND, n_steps);

		for (int i = 0; i < ahead.n_rows; i++)
		{
			for (int64_t at = 0; at < STEPS_PER_ROUND * w_step; at += 64)
				__builtin_prefetch(
					(const void *) (ahead.rows +
									(uintptr_t) (i * task->w_stride + at)),
					0, 2);
		}
		ahead.rows += (uintptr_t) (STEPS_PER_ROUND * w_step);
		for (; k < round_end; k++)
			step_tile(kind, &rows, k, acc);
	}
	if (segment->has_rest)
		step_rest(kind, segment, &rows, acc);
	finish_tile(kind, segment_sums(task) + x_row * PANEL_ROWS + w_row, acc);
}

/* A tile of n_x rows of x with all rows of a segment, n_w at a time. */
LLM_INLINE void
multiply_tiles(TileKind kind, const Segment *segment, int64_t x_row,
			   Ahead ahead)
{
	for (int row = 0; row < segment->n_rows; row += TILE_W)
	{
		multiply_tile(kind, segment, row, x_row, ahead);
		ahead.rows += (uintptr_t) (ahead.n_rows * segment->task->w_stride);
	}
}

LLM_INLINE void
multiply_tiles_of(Form form, Source source, int64_t n_x, const Segment *segment,
				  int64_t x_row, Ahead ahead)
{
#define CASE(x)                                                               \
	case x:                                                                   \
		multiply_tiles((TileKind){ form, source, x }, segment, x_row, ahead); \
		break

	switch (n_x)
	{
		CASE(1);
#if TILE_X >= 3
		CASE(2);
		CASE(3);
#endif
#if TILE_X >= 6
		CASE(4);
		CASE(5);
		CASE(6);
#endif
		default:
			assert(false);
	}
#undef CASE
}

/* A segment with all of x, in tiles of about equal height. */
LLM_INLINE void
multiply_segment(Form form, const Segment *segment)
{
	const int64_t n_x = segment->task->n_x;
	const int64_t n_tiles = (n_x + TILE_X - 1) / TILE_X;
	/* spread over the tiles; a single one is as fast as memory anyway */
	const int n_ahead = n_tiles >= 4 ? 1 : n_tiles >= 2 ? 2 : 0;
	const int ahead_rows = n_ahead * (PANEL_ROWS / TILE_W);
	/*
	 * Widening again for a few tiles is cheaper than to keep a copy, and so it
	 * is for small tiles: they pass twice the copy's bytes for a multiplication.
	 */
	const bool keeps = TILE_W == 4 && n_tiles >= 4;

	for (int64_t tile = 0; tile < n_tiles; tile++)
	{
		int64_t x_row = n_x * tile / n_tiles;
		int64_t n_tile = n_x * (tile + 1) / n_tiles - x_row;
		Ahead ahead = { 0 };

		if (segment->next != NULL && tile * ahead_rows < PANEL_ROWS)
			ahead = (Ahead){ (uintptr_t) segment->next +
								 (uintptr_t) (tile * ahead_rows *
											  segment->task->w_stride),
							 n_ahead };
		if (!keeps)
			multiply_tiles_of(form, SOURCE_WEIGHTS, n_tile, segment, x_row,
							  ahead);
		else if (tile == 0)
			multiply_tiles_of(form, SOURCE_WEIGHTS_KEEP, n_tile, segment, x_row,
							  ahead);
		else
			multiply_tiles_of(form, SOURCE_KEPT, n_tile, segment, x_row, ahead);
	}
}

/*
 * Add a segment's sums to those of the columns to its left.  At the end bias
 * is added, and everything goes where it belongs, whole cache lines at a time.
 */
LLM_INLINE void
add_segment(const Segment *segment, int64_t w_row, bool is_end)
{
	const LlmCpuLinearTask *task = segment->task;
	const float *sums = segment_sums(task);
	float *left = panel_sums(task);
	V16 bias = v16_zero();

	if (is_end && task->is_last && task->bias.data != NULL)
		bias = v16_load_first_as(task->bias.data, task->bias.dtype, w_row,
								 segment->n_rows);
	for (int64_t j = 0; j < task->n_x; j++)
	{
		float *out = task->out + j * task->out_stride + w_row;
		V16 sum = v16_load(sums + j * PANEL_ROWS);

		if (segment->first > 0)
			sum = v16_add(v16_load(left + j * PANEL_ROWS), sum);
		else if (!task->is_first)
			sum = v16_add(v16_load_first(out, segment->n_rows), sum);
		if (!is_end)
			v16_store(left + j * PANEL_ROWS, sum);
		else if (segment->n_rows == PANEL_ROWS)
			v16_store(out, v16_add(sum, bias));
		else
			v16_store_first(out, v16_add(sum, bias), segment->n_rows);
	}
}

LLM_INLINE void
multiply_panel(Form form, const LlmCpuLinearTask *task, int64_t row,
			   int64_t row_end)
{
	const int64_t n_whole = task->n_cols / step_cols(form);
	const int64_t n_steps = (task->n_cols - 1) / step_cols(form) + 1;
	const int64_t segment_steps = LLM_CPU_SEGMENT_COLS / step_cols(form);
	const char *w = (const char *) task->w + row * task->w_stride;
	Segment segment = { .task = task,
						.n_rows = (int) min_of(row_end - row, PANEL_ROWS) };

	for (; segment.first < n_steps; segment.first += segment_steps)
	{
		int64_t end = min_of(segment.first + segment_steps, n_steps);

		segment.n_steps = min_of(end, n_whole) - segment.first;
		segment.has_rest = end > n_whole;
		segment.w = w + segment.first * w_step_bytes(form);
		segment.next = NULL;
		if (end < n_steps && segment.n_rows == PANEL_ROWS)
			segment.next = w + end * w_step_bytes(form);
		else if (row + 2 * PANEL_ROWS <= row_end)
			segment.next = w + PANEL_ROWS * task->w_stride;
		multiply_segment(form, &segment);
		add_segment(&segment, row, end == n_steps);
	}
}

LLM_INLINE void
multiply(Form form, const LlmCpuLinearTask *task, int64_t row_begin,
		 int64_t row_end)
{
	for (int64_t row = row_begin; row < row_end; row += PANEL_ROWS)
		multiply_panel(form, task, row, row_end);
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
