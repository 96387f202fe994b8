/*
 * cpu_train_body.h
 *	  The kernels of training, written once.
 *
 * Products pack both sides, whatever their layout and format, into panels of
 * GEMM_ROWS rows and GEMM_VECTORS vectors, so that one loop multiplies them
 * all; the including file defines the two as its registers allow.  A number
 * is summed chunk by chunk in one order that depends on the product's shape
 * alone.
 *
 * src/engine/compute/cpu_train_body.h
 */
#ifndef LLM_CPU_TRAIN_BODY_H
#define LLM_CPU_TRAIN_BODY_H

#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/common/util/half_float.h"
#include "src/engine/compute/cpu_simd.h"
#include "src/engine/compute/cpu_train.h"

#define GEMM_COLS (16 * GEMM_VECTORS)

LLM_INLINE int64_t
min_of(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* ------------------------------------------------------------------------
 * Products
 * ------------------------------------------------------------------------
 */

/* n stored neighbours from row "row", column "col" on, as floats. */
static void
read_row(const LlmOperand *from, int64_t row, int64_t col, int64_t n,
		 float *out)
{
	const char *at =
		(const char *) from->data +
		(row * from->stride + col) * (int64_t) llm_dtype_bytes(from->dtype);
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		v16_store(out + i, v16_load_as(at, from->dtype, i));
	if (i < n)
		v16_store_first(out + i, v16_load_first_as(at, from->dtype, i, n - i),
						n - i);
}

/* What a packed chunk is cut from: lines across the panel, terms along it. */
typedef struct Chunk
{
	const LlmOperand *from;
	int64_t line;
	int64_t n_lines;
	int64_t term;
	int64_t n_terms;
	bool lines_are_rows; /* of what is stored */
} Chunk;

/*
 * out[panel][term][width], lines beyond n_lines 0.  A chunk whose lines are
 * stored rows is transposed on the way.
 */
LLM_INLINE void
pack(const Chunk *chunk, int width, float *out)
{
	float row[LLM_CPU_PRODUCT_TERMS];

	for (int64_t first = 0; first < chunk->n_lines; first += width)
	{
		int64_t n = min_of(width, chunk->n_lines - first);
		float *panel = out + first * chunk->n_terms;

		if (n < width)
			memset(panel, 0, (size_t) (chunk->n_terms * width) * sizeof(float));
		if (chunk->lines_are_rows)
		{
			for (int64_t i = 0; i < n; i++)
			{
				read_row(chunk->from, chunk->line + first + i, chunk->term,
						 chunk->n_terms, row);
				for (int64_t k = 0; k < chunk->n_terms; k++)
					panel[k * width + i] = row[k];
			}
			continue;
		}
		for (int64_t k = 0; k < chunk->n_terms; k++)
			read_row(chunk->from, chunk->term + k, chunk->line + first, n,
					 panel + k * width);
	}
}

/* Where a panel of a meets a panel of b. */
typedef struct Meeting
{
	const float *a; /* [n_terms, GEMM_ROWS] */
	const float *b; /* [n_terms, GEMM_COLS] */
	int64_t n_terms;
	float *out;
	int64_t out_stride;
	int64_t n_rows;
	int64_t n_cols;
	float scale;
	bool adds;
} Meeting;

LLM_INLINE void
finish_row(const Meeting *meeting, int64_t row, const V16 sums[GEMM_VECTORS])
{
	float *out = meeting->out + row * meeting->out_stride;
	const V16 scale = v16_set1(meeting->scale);

	LLM_UNROLL
	for (int j = 0; j < GEMM_VECTORS; j++)
	{
		int64_t n = meeting->n_cols - 16 * j;
		V16 sum = v16_mul(sums[j], scale);

		if (n >= 16)
			v16_store(out + 16 * j, meeting->adds
										? v16_add(v16_load(out + 16 * j), sum)
										: sum);
		else if (n > 0)
			v16_store_first(out + 16 * j,
							meeting->adds
								? v16_add(v16_load_first(out + 16 * j, n), sum)
								: sum,
							n);
	}
}

LLM_INLINE void
multiply_panels(const Meeting *meeting)
{
	V16 sums[GEMM_ROWS][GEMM_VECTORS];

	LLM_UNROLL
	for (int i = 0; i < GEMM_ROWS; i++)
	{
		LLM_UNROLL
		for (int j = 0; j < GEMM_VECTORS; j++)
			sums[i][j] = v16_zero();
	}
	for (int64_t k = 0; k < meeting->n_terms; k++)
	{
		V16 b[GEMM_VECTORS];

		LLM_UNROLL
		for (int j = 0; j < GEMM_VECTORS; j++)
			b[j] = v16_load(meeting->b + k * GEMM_COLS + 16 * j);
		LLM_UNROLL
		for (int i = 0; i < GEMM_ROWS; i++)
		{
			V16 a = v16_set1(meeting->a[k * GEMM_ROWS + i]);

			LLM_UNROLL
			for (int j = 0; j < GEMM_VECTORS; j++)
				sums[i][j] = v16_fma(a, b[j], sums[i][j]);
		}
	}
	LLM_UNROLL
	for (int i = 0; i < GEMM_ROWS; i++)
	{
		if (i < meeting->n_rows)
			finish_row(meeting, i, sums[i]);
	}
}

static void
multiply_chunks(const LlmCpuProductTask *task, int64_t n_terms, const float *a,
				const float *b, bool adds)
{
	const LlmProductArgs *args = task->args;
	Meeting meeting = { .n_terms = n_terms,
						.out_stride = args->out_stride,
						.scale = args->scale,
						.adds = adds };

	for (int64_t col = 0; col < task->n_cols; col += GEMM_COLS)
	{
		meeting.b = b + col * n_terms;
		meeting.n_cols = min_of(GEMM_COLS, task->n_cols - col);
		for (int64_t row = 0; row < task->n_rows; row += GEMM_ROWS)
		{
			meeting.a = a + row * n_terms;
			meeting.n_rows = min_of(GEMM_ROWS, task->n_rows - row);
			meeting.out = (float *) args->out +
						  (task->row + row) * args->out_stride + task->col +
						  col;
			multiply_panels(&meeting);
		}
	}
}

static void
product(const LlmCpuProductTask *task)
{
	const LlmProductArgs *args = task->args;
	float *a = task->scratch;
	float *b = a + LLM_CPU_PRODUCT_TERMS * (LLM_CPU_PRODUCT_ROWS + 16);

	_Static_assert(GEMM_ROWS <= 16 && GEMM_COLS <= 48, "see the scratch");
	for (int64_t term = 0; term < args->k; term += LLM_CPU_PRODUCT_TERMS)
	{
		int64_t n_terms = min_of(LLM_CPU_PRODUCT_TERMS, args->k - term);
		Chunk left = { &args->a, task->row, task->n_rows,
					   term,	 n_terms,	!args->a.is_transposed };
		Chunk right = { &args->b, task->col, task->n_cols,
						term,	  n_terms,	 args->b.is_transposed };

		pack(&left, GEMM_ROWS, a);
		pack(&right, GEMM_COLS, b);
		multiply_chunks(task, n_terms, a, b, args->adds || term > 0);
	}
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */
static void
rms_norm_back(const LlmRmsNormBackArgs *args, const float *x, const float *d_y,
			  float *d_x)
{
	const LlmVector *w = &args->weight;
	const int32_t dim = args->dim;
	const V16 offset = v16_set1(args->weight_offset);
	V16 squares = v16_zero();
	V16 dots = v16_zero();
	float r;
	float mean;

	for (int32_t i = 0; i < dim; i += 16)
	{
		int64_t n = min_of(16, dim - i);
		V16 v = v16_load_first(x + i, n);
		V16 g = v16_mul(
			v16_load_first(d_y + i, n),
			v16_add(v16_load_first_as(w->data, w->dtype, i, n), offset));

		squares = v16_fma(v, v, squares);
		dots = v16_fma(g, v, dots);
	}
	r = 1.0f / sqrtf(v16_reduce_add(squares) / (float) dim + args->eps);
	mean = v16_reduce_add(dots) / (float) dim * r * r;
	for (int32_t i = 0; i < dim; i += 16)
	{
		int64_t n = min_of(16, dim - i);
		V16 v = v16_load_first(x + i, n);
		V16 g = v16_mul(
			v16_load_first(d_y + i, n),
			v16_add(v16_load_first_as(w->data, w->dtype, i, n), offset));
		V16 d = v16_mul(v16_fma(v, v16_set1(-mean), g), v16_set1(r));

		if (args->adds)
			d = v16_add(d, v16_load_first(d_x + i, n));
		v16_store_first(d_x + i, d, n);
	}
}

/* 1 / (1 + exp(-x)) */
LLM_INLINE V16
sigmoid(V16 x)
{
	const V16 one = v16_set1(1);

	return v16_div(one, v16_add(one, v16_exp(v16_sub(v16_zero(), x))));
}

/* activation(x), and its derivative in *slope */
LLM_INLINE V16
silu_with_slope(V16 x, V16 *slope)
{
	const V16 one = v16_set1(1);
	V16 s = sigmoid(x);

	*slope = v16_mul(s, v16_fma(x, v16_sub(one, s), one));
	return v16_mul(x, s);
}

/* x (1 + tanh(u)) / 2, u = c (x + 0.044715 x^3) */
LLM_INLINE V16
gelu_tanh_with_slope(V16 x, V16 *slope)
{
	const V16 c = v16_set1(0.79788456080286536f);
	const V16 half = v16_set1(0.5f);
	const V16 one = v16_set1(1);
	V16 square = v16_mul(x, x);
	V16 u = v16_mul(v16_mul(c, x), v16_fma(square, v16_set1(0.044715f), one));
	V16 t = v16_tanh(u);
	V16 u_slope = v16_mul(c, v16_fma(square, v16_set1(3 * 0.044715f), one));
	V16 phi = v16_mul(half, v16_add(one, t));

	*slope = v16_fma(v16_mul(half, x),
					 v16_mul(v16_sub(one, v16_mul(t, t)), u_slope), phi);
	return v16_mul(x, phi);
}

/* x Phi(x), Phi and its density from the C library's erf, lane by lane */
LLM_INLINE V16
gelu_with_slope(V16 x, V16 *slope)
{
	float lanes[16];
	float slopes[16];

	v16_store(lanes, x);
	for (int i = 0; i < 16; i++)
	{
		float v = lanes[i];
		float phi = 0.5f * (1.0f + erff(v * 0.70710678118654752f));

		slopes[i] = phi + v * 0.39894228040143268f * expf(-0.5f * v * v);
		lanes[i] = v * phi;
	}
	*slope = v16_load(slopes);
	return v16_load(lanes);
}

static void
gated_act_back(const LlmGatedActBackArgs *args, int64_t first, int64_t n_all)
{
	const float *gate = (const float *) args->gate + first;
	const float *up = (const float *) args->up + first;
	const float *d_out = (const float *) args->d_out + first;
	float *d_gate = (float *) args->d_gate + first;
	float *d_up = (float *) args->d_up + first;

	for (int64_t i = 0; i < n_all; i += 16)
	{
		int64_t n = min_of(16, n_all - i);
		V16 g = v16_load_first(gate + i, n);
		V16 u = v16_load_first(up + i, n);
		V16 d = v16_load_first(d_out + i, n);
		V16 slope;
		V16 value;

		if (args->activation == LLM_ACTIVATION_SILU)
			value = silu_with_slope(g, &slope);
		else if (args->activation == LLM_ACTIVATION_GELU_TANH)
			value = gelu_tanh_with_slope(g, &slope);
		else
			value = gelu_with_slope(g, &slope);
		v16_store_first(d_gate + i, v16_mul(v16_mul(d, u), slope), n);
		v16_store_first(d_up + i, v16_mul(d, value), n);
	}
}

/* A NaN among the logits makes the result one. */
static float
log_sum_exp(const float *logits, int64_t n)
{
	V16 max = v16_set1(-INFINITY);
	V16 sum = v16_zero();
	double total = 0;
	float top;

	for (int64_t i = 0; i + 16 <= n; i += 16)
		max = v16_max(max, v16_load(logits + i));
	top = v16_reduce_max(max);
	for (int64_t i = n / 16 * 16; i < n; i++)
		top = fmaxf(top, logits[i]);
	for (int64_t i = 0; i + 16 <= n; i += 16)
	{
		sum =
			v16_add(sum, v16_exp(v16_sub(v16_load(logits + i), v16_set1(top))));
		/* longer sums would lose digits */
		if (i % 4096 == 4080 || i + 32 > n)
		{
			total += (double) v16_reduce_add(sum);
			sum = v16_zero();
		}
	}
	for (int64_t i = n / 16 * 16; i < n; i++)
		total += exp((double) (logits[i] - top));
	return top + (float) log(total);
}

static void
soft_max_slopes(float *logits, int64_t n_all, float log_sum, float weight)
{
	for (int64_t i = 0; i < n_all; i += 16)
	{
		int64_t n = min_of(16, n_all - i);
		V16 x = v16_sub(v16_load_first(logits + i, n), v16_set1(log_sum));

		v16_store_first(logits + i, v16_mul(v16_exp(x), v16_set1(weight)), n);
	}
}

/* ------------------------------------------------------------------------
 * Scores of attention
 * ------------------------------------------------------------------------
 */

/* The keys first .. end - 1 of the tile that query i sees. */
LLM_INLINE void
visible_keys(const LlmCpuScoreTile *tile, int32_t i, int32_t *first,
			 int32_t *end)
{
	int32_t q = tile->first_q + i;
	int32_t n = q - tile->first_k + 1;

	*end = n < 0 ? 0 : n < tile->n_k ? n : tile->n_k;
	*first = 0;
	if (tile->sliding_window > 0 && n - tile->sliding_window > 0)
		*first = n - tile->sliding_window;
	if (*first > *end)
		*first = *end;
}

LLM_INLINE void
cap_scores(float *row, int32_t n, float cap)
{
	if (cap <= 0)
		return;
	for (int32_t j = 0; j < n; j += 16)
		v16_store(row + j, v16_mul(v16_tanh(v16_mul(v16_load(row + j),
													v16_set1(1 / cap))),
								   v16_set1(cap)));
}

static void
probabilities(const LlmCpuScoreTile *tile, const float *log_sums)
{
	for (int32_t i = 0; i < tile->n_q; i++)
	{
		float *row = tile->scores + i * LLM_CPU_TRAIN_TILE;
		int32_t first;
		int32_t end;

		visible_keys(tile, i, &first, &end);
		cap_scores(row, LLM_CPU_TRAIN_TILE, tile->soft_cap);
		for (int32_t j = 0; j < LLM_CPU_TRAIN_TILE; j += 16)
			v16_store(row + j, v16_exp(v16_sub(v16_load(row + j),
											   v16_set1(log_sums[i]))));
		for (int32_t j = 0; j < LLM_CPU_TRAIN_TILE; j++)
		{
			if (j < first || j >= end)
				row[j] = 0;
		}
	}
}

static void
soft_max_step(const LlmCpuScoreTile *tile, float *max, float *sum, float *out,
			  int64_t out_stride, int32_t head_dim)
{
	for (int32_t i = 0; i < tile->n_q; i++)
	{
		float *row = tile->scores + i * LLM_CPU_TRAIN_TILE;
		float *out_row = out + i * out_stride;
		float top = max[i];
		float factor;
		V16 added = v16_zero();
		int32_t first;
		int32_t end;

		visible_keys(tile, i, &first, &end);
		cap_scores(row, LLM_CPU_TRAIN_TILE, tile->soft_cap);
		for (int32_t j = 0; j < LLM_CPU_TRAIN_TILE; j++)
		{
			if (j < first || j >= end)
				row[j] = -INFINITY;
			top = row[j] > top ? row[j] : top;
		}
		if (first == end)
		{
			memset(row, 0, LLM_CPU_TRAIN_TILE * sizeof(float));
			continue;
		}
		for (int32_t j = 0; j < LLM_CPU_TRAIN_TILE; j += 16)
		{
			V16 p = v16_exp(v16_sub(v16_load(row + j), v16_set1(top)));

			v16_store(row + j, p);
			added = v16_add(added, p);
		}
		factor = expf(max[i] - top);
		sum[i] = sum[i] * factor + v16_reduce_add(added);
		max[i] = top;
		for (int32_t d = 0; d < head_dim; d++)
			out_row[d] *= factor;
	}
}

static void
score_slopes(const LlmCpuScoreTile *tile, const float *raw,
			 const float *out_sums, float *slopes)
{
	const V16 inverse = v16_set1(tile->soft_cap > 0 ? 1 / tile->soft_cap : 0);

	for (int32_t i = 0; i < tile->n_q; i++)
	{
		for (int32_t j = 0; j < LLM_CPU_TRAIN_TILE; j += 16)
		{
			int32_t at = i * LLM_CPU_TRAIN_TILE + j;
			V16 slope =
				v16_mul(v16_load(tile->scores + at),
						v16_sub(v16_load(slopes + at), v16_set1(out_sums[i])));

			if (tile->soft_cap > 0)
			{
				V16 t = v16_tanh(v16_mul(v16_load(raw + at), inverse));

				slope = v16_mul(slope, v16_sub(v16_set1(1), v16_mul(t, t)));
			}
			v16_store(slopes + at, slope);
		}
	}
}

/* ------------------------------------------------------------------------
 * The optimizer
 * ------------------------------------------------------------------------
 */
static void
adamw(const LlmAdamwArgs *args, int64_t begin, int64_t n_all)
{
	const float beta1 = (float) args->beta1;
	const float beta2 = (float) args->beta2;
	const float shrink = (float) (1 - args->rate * args->decay);
	const float step = (float) (args->rate / args->correction1);
	const float root = (float) sqrt(args->correction2);
	const float eps = (float) args->eps;

	for (int64_t i = begin; i < begin + n_all; i++)
	{
		float g = args->d_p[i] * args->clip;
		float m = args->m[i] + (1 - beta1) * (g - args->m[i]);
		float v = args->v[i] * beta2 + (1 - beta2) * g * g;

		args->m[i] = m;
		args->v[i] = v;
		args->p[i] = args->p[i] * shrink - step * m / (sqrtf(v) / root + eps);
	}
}

#define TRAIN_KERNELS                                                     \
	{                                                                     \
		.product = product, .rms_norm_back = rms_norm_back,               \
		.gated_act_back = gated_act_back, .probabilities = probabilities, \
		.soft_max_step = soft_max_step, .score_slopes = score_slopes,     \
		.adamw = adamw, .log_sum_exp = log_sum_exp,                       \
		.soft_max_slopes = soft_max_slopes,                               \
	}

#endif /* LLM_CPU_TRAIN_BODY_H */
