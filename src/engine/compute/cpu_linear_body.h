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

_Static_assert(TILE_W == 4 || TILE_W == 2, "see store_tile");
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

#if defined(__AVX512BF16__)

/* Every lane adds the products of two neighbouring columns. */
LLM_INLINE void
step_tile_bf16_inputs(int n_w, int n_x, const char *const w[TILE_W],
					  const char *const x[MAX_TILE_X],
					  V16 acc[TILE_W][MAX_TILE_X])
{
	__m512bh w0[TILE_W];

	LLM_UNROLL
	for (int i = 0; i < n_w; i++)
		w0[i] = (__m512bh) _mm512_loadu_si512(w[i]);
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
	{
		__m512bh x0 = (__m512bh) _mm512_loadu_si512(x[j]);

		LLM_UNROLL
		for (int i = 0; i < n_w; i++)
			acc[i][j] = _mm512_dpbf16_ps(acc[i][j], w0[i], x0);
	}
}

#endif

/*
 * One step of every pair.  FORM_BF16 takes its 32 columns as two vectors, the
 * even columns and the odd ones.
 */
LLM_INLINE void
step_tile(Form form, int n_w, int n_x, const char *const w[TILE_W],
		  const char *const x[MAX_TILE_X], V16 acc[TILE_W][MAX_TILE_X])
{
	V16 w0[TILE_W];
	V16 w1[TILE_W];

#if defined(__AVX512BF16__)
	if (form == FORM_BF16_INPUTS)
	{
		step_tile_bf16_inputs(n_w, n_x, w, x, acc);
		return;
	}
#endif

	LLM_UNROLL
	for (int i = 0; i < n_w; i++)
	{
		if (form == FORM_BF16)
			v16_load_bf16_pairs(w[i], &w0[i], &w1[i]);
		else if (form == FORM_F16)
			w0[i] = v16_load_f16(w[i]);
		else
			w0[i] = v16_load(w[i]);
	}
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
	{
		V16 x0 = v16_load(x[j]);

		LLM_UNROLL
		for (int i = 0; i < n_w; i++)
			acc[i][j] = v16_fma(w0[i], x0, acc[i][j]);
	}
	if (form != FORM_BF16)
		return;
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
	{
		V16 x1 = v16_load(x[j] + 64);

		LLM_UNROLL
		for (int i = 0; i < n_w; i++)
			acc[i][j] = v16_fma(w1[i], x1, acc[i][j]);
	}
}

/* Add lanes and bias, store: rows of w are neighbouring outputs. */
LLM_INLINE void
store_tile(const LlmCpuLinearTask *task, int64_t w_row, int64_t x_row, int n_w,
		   int n_x, V16 acc[TILE_W][MAX_TILE_X])
{
	float bias[4] = { 0 };

	if (task->bias.data != NULL)
		v16_store_first(
			bias,
			v16_load_first_as(task->bias.data, task->bias.dtype, w_row, n_w),
			n_w);
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
	{
		float *out = task->out + (x_row + j) * task->out_stride + w_row;
		V16 in[4] = { v16_zero(), v16_zero(), v16_zero(), v16_zero() };
		float sums[4];

		LLM_UNROLL
		for (int i = 0; i < n_w; i++)
			in[i] = acc[i][j];
		v16_reduce_add4(in, sums);
		LLM_UNROLL
		for (int i = 0; i < n_w; i++)
			out[i] = sums[i] + bias[i];
	}
}

/* n_w rows of w with n_x rows of x; both constant after inlining. */
LLM_INLINE void
multiply_tile(Form form, int n_w, int n_x, const LlmCpuLinearTask *task,
			  int64_t w_row, int64_t x_row)
{
	const int64_t w_step = w_step_bytes(form);
	const int64_t w_size = w_step / step_cols(form);
	const int64_t row_bytes = task->n_cols * w_size;
	const int64_t n_whole = task->n_cols / step_cols(form);
	const int64_t n_rest = task->n_cols % step_cols(form);
	const char *w[TILE_W];
	const char *x[MAX_TILE_X];
	V16 acc[TILE_W][MAX_TILE_X];

	LLM_UNROLL
	for (int i = 0; i < n_w; i++)
	{
		w[i] = (const char *) task->w + (w_row + i) * row_bytes;
		LLM_UNROLL
		for (int j = 0; j < n_x; j++)
			acc[i][j] = v16_zero();
	}
	LLM_UNROLL
	for (int j = 0; j < n_x; j++)
		x[j] = (const char *) task->x + (x_row + j) * task->x_stride;

	for (int64_t k = 0; k < n_whole; k++)
	{
		step_tile(form, n_w, n_x, w, x, acc);
		LLM_UNROLL
		for (int i = 0; i < n_w; i++)
			w[i] += w_step;
		LLM_UNROLL
		for (int j = 0; j < n_x; j++)
			x[j] += x_step_bytes(form);
	}
	if (n_rest > 0)
	{
		/* x is padded with zeros, w ends here */
		char rest[TILE_W][64];

		for (int i = 0; i < n_w; i++)
		{
			memset(rest[i], 0, sizeof(rest[i]));
			memcpy(rest[i], w[i], (size_t) (n_rest * w_size));
			w[i] = rest[i];
		}
		step_tile(form, n_w, n_x, w, x, acc);
	}
	store_tile(task, w_row, x_row, n_w, n_x, acc);
}

/* n_w rows of w with all of x, in tiles of about equal height. */
LLM_INLINE void
multiply_rows(Form form, int n_w, const LlmCpuLinearTask *task, int64_t w_row)
{
	int32_t n_tiles = (task->n_x + TILE_X - 1) / TILE_X;

	for (int32_t tile = 0; tile < n_tiles; tile++)
	{
		int32_t x_row = (int32_t) ((int64_t) task->n_x * tile / n_tiles);
		int32_t x_end = (int32_t) ((int64_t) task->n_x * (tile + 1) / n_tiles);

		switch (x_end - x_row)
		{
			case 1:
				multiply_tile(form, n_w, 1, task, w_row, x_row);
				break;
			case 2:
				multiply_tile(form, n_w, 2, task, w_row, x_row);
				break;
#if TILE_X > 2
			case 3:
				multiply_tile(form, n_w, 3, task, w_row, x_row);
				break;
#endif
#if TILE_X > 3
			case 4:
				multiply_tile(form, n_w, 4, task, w_row, x_row);
				break;
			case 5:
				multiply_tile(form, n_w, 5, task, w_row, x_row);
				break;
			case 6:
				multiply_tile(form, n_w, 6, task, w_row, x_row);
				break;
#endif
			default:
				assert(false);
		}
	}
}

LLM_INLINE void
multiply(Form form, const LlmCpuLinearTask *task, int64_t row_begin,
		 int64_t row_end)
{
	int64_t row = row_begin;

	for (; row + TILE_W <= row_end; row += TILE_W)
		multiply_rows(form, TILE_W, task, row);
	for (; row < row_end; row++)
		multiply_rows(form, 1, task, row);
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

/* Rows are whole steps and 64-byte aligned. */
static inline int64_t
prepared_row_bytes(int64_t n_cols)
{
	return (n_cols + 31) / 32 * 128;
}

static inline void
prepare_plain(const float *x, int64_t n_cols, void *out)
{
	memcpy(out, x, (size_t) n_cols * sizeof(float));
	memset((float *) out + n_cols, 0,
		   (size_t) (prepared_row_bytes(n_cols) - n_cols * 4));
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
