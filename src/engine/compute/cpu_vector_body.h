/*
 * cpu_vector_body.h
 *	  Kernels that go over a vector once: norm, rotation, activations,
 *	  conversion, and the passes that sampling makes over the logits.
 *
 * Sums are taken in fixed orders (four 16-lane accumulators by turns), so
 * they depend on the vector alone.
 *
 * src/engine/compute/cpu_vector_body.h
 */
#ifndef LLM_CPU_VECTOR_BODY_H
#define LLM_CPU_VECTOR_BODY_H

#include <assert.h>
#include <float.h>

#include "src/engine/compute/cpu_internal.h"
#include "src/engine/compute/cpu_simd.h"

static void
convert(const void *src, LlmDtype dtype, float scale, int64_t n, float *out)
{
	V16 factor = v16_set1(scale);
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		v16_store(out + i, v16_mul(v16_load_as(src, dtype, i), factor));
	if (i < n)
		v16_store_first(
			out + i, v16_mul(v16_load_first_as(src, dtype, i, n - i), factor),
			n - i);
}

/* ------------------------------------------------------------------------
 * RMSNorm
 * ------------------------------------------------------------------------
 */
static float
sum_squares(const float *x, int64_t n)
{
	V16 acc[4] = { v16_zero(), v16_zero(), v16_zero(), v16_zero() };
	float sums[4];
	int64_t i = 0;

	for (; i + 64 <= n; i += 64)
	{
		LLM_UNROLL
		for (int j = 0; j < 4; j++)
		{
			V16 v = v16_load(x + i + 16 * j);

			acc[j] = v16_fma(v, v, acc[j]);
		}
	}
	for (; i < n; i += 16)
	{
		V16 v = n - i >= 16 ? v16_load(x + i) : v16_load_first(x + i, n - i);

		acc[0] = v16_fma(v, v, acc[0]);
	}
	v16_reduce_add4(acc, sums);
	return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

static void
add_to(float *sum, const float *x, int64_t n)
{
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		v16_store(sum + i, v16_add(v16_load(sum + i), v16_load(x + i)));
	for (; i < n; i++)
		sum[i] += x[i];
}

static void
rms_norm(const LlmRmsNormArgs *args, const float *x, float *residual,
		 float *out)
{
	const int64_t dim = args->dim;
	const LlmVector *w = &args->weight;
	const V16 offset = v16_set1(args->weight_offset);
	const float *in = x;
	V16 factor;
	int64_t i = 0;

	assert(w->n == dim);
	if (residual != NULL)
	{
		add_to(residual, x, dim);
		in = residual;
	}
	factor =
		v16_set1(1.0f / sqrtf(sum_squares(in, dim) / (float) dim + args->eps));
	for (; i + 16 <= dim; i += 16)
	{
		V16 weight = v16_add(v16_load_as(w->data, w->dtype, i), offset);

		v16_store(out + i, v16_mul(v16_mul(v16_load(in + i), factor), weight));
	}
	if (i < dim)
	{
		V16 weight =
			v16_add(v16_load_first_as(w->data, w->dtype, i, dim - i), offset);
		V16 v = v16_load_first(in + i, dim - i);

		v16_store_first(out + i, v16_mul(v16_mul(v, factor), weight), dim - i);
	}
}

/* ------------------------------------------------------------------------
 * Rotary embedding
 * ------------------------------------------------------------------------
 */
static void
rope(float *head, const float *cos_sin, int32_t rotary_dim, bool interleaved)
{
	const int32_t half = rotary_dim / 2;
	const float *cosine = cos_sin;
	const float *sine = cos_sin + half;
	int32_t i = 0;

	if (interleaved)
	{
		for (; i < half; i++)
		{
			float a = head[2 * i];
			float b = head[2 * i + 1];

			head[2 * i] = a * cosine[i] - b * sine[i];
			head[2 * i + 1] = b * cosine[i] + a * sine[i];
		}
		return;
	}
	for (; i + 16 <= half; i += 16)
	{
		V16 a = v16_load(head + i);
		V16 b = v16_load(head + half + i);
		V16 c = v16_load(cosine + i);
		V16 s = v16_load(sine + i);

		v16_store(head + i, v16_sub(v16_mul(a, c), v16_mul(b, s)));
		v16_store(head + half + i, v16_add(v16_mul(b, c), v16_mul(a, s)));
	}
	for (; i < half; i++)
	{
		float a = head[i];
		float b = head[half + i];

		head[i] = a * cosine[i] - b * sine[i];
		head[half + i] = b * cosine[i] + a * sine[i];
	}
}

/* ------------------------------------------------------------------------
 * Activations
 * ------------------------------------------------------------------------
 */

/* x / (1 + e^-x); e^-x may overflow to infinity, which gives 0. */
LLM_INLINE V16
silu(V16 x)
{
	V16 e = v16_exp(v16_sub(v16_zero(), x));

	return v16_div(x, v16_add(v16_set1(1.0f), e));
}

/*
 * erfc(t) = e^(-t t) p(1 / (1 + 0.45 t)) for t >= 0, p a polynomial fitted
 * to 3e-8 of the value on 0 .. 10, beyond which a float holds 0.  gelu(x) is
 * x erfc(-x / sqrt(2)) / 2: from it directly where x < 0, so that small
 * results keep their digits, and as the rest of x otherwise.  At 30 it has
 * vanished; what lies beyond is cut off there, infinities included.
 */
LLM_INLINE V16
gelu(V16 x)
{
	static const float p[] = { -3.957572142e-02f, 2.577564383e-01f,
							   -6.327996101e-01f, 6.584829108e-01f,
							   -2.744154021e-01f, 3.275380831e-01f,
							   1.896100820e-01f,  2.600559126e-01f,
							   2.533253888e-01f,  2.194081231e-05f };
	V16 near = v16_max(v16_set1(-30.0f), v16_min(v16_set1(30.0f), x));
	V16 half = v16_mul(near, v16_set1(0.5f));
	V16 t = v16_mul(v16_abs(near), v16_set1(0.70710678118654752f));
	V16 u =
		v16_div(v16_set1(1.0f), v16_fma(t, v16_set1(0.45f), v16_set1(1.0f)));
	V16 sum = v16_set1(p[0]);
	V16 tail;

	for (size_t i = 1; i < sizeof(p) / sizeof(p[0]); i++)
		sum = v16_fma(sum, u, v16_set1(p[i]));
	tail = v16_exp(v16_sub(v16_zero(), v16_mul(near, half)));
	tail = v16_mul(half, v16_mul(sum, tail));
	return v16_select_lt(x, v16_zero(), tail, v16_sub(x, tail));
}

LLM_INLINE V16
gelu_tanh(V16 x)
{
	V16 cubic = v16_fma(v16_mul(x, v16_set1(0.044715f)), v16_mul(x, x), x);
	V16 t = v16_tanh(v16_mul(cubic, v16_set1(0.79788456080286536f)));
	V16 half = v16_mul(x, v16_set1(0.5f));

	return v16_fma(half, t, half);
}

LLM_INLINE V16
activate(LlmActivation activation, V16 x)
{
	if (activation == LLM_ACTIVATION_SILU)
		return silu(x);
	if (activation == LLM_ACTIVATION_GELU)
		return gelu(x);
	return gelu_tanh(x);
}

LLM_INLINE void
gated_act_as(LlmActivation activation, const float *gate, const float *up,
			 int64_t n, float *out)
{
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		v16_store(out + i, v16_mul(activate(activation, v16_load(gate + i)),
								   v16_load(up + i)));
	if (i < n)
	{
		V16 g = activate(activation, v16_load_first(gate + i, n - i));

		v16_store_first(out + i, v16_mul(g, v16_load_first(up + i, n - i)),
						n - i);
	}
}

static void
gated_act(LlmActivation activation, const float *gate, const float *up,
		  int64_t n, float *out)
{
	if (activation == LLM_ACTIVATION_SILU)
		gated_act_as(LLM_ACTIVATION_SILU, gate, up, n, out);
	else if (activation == LLM_ACTIVATION_GELU)
		gated_act_as(LLM_ACTIVATION_GELU, gate, up, n, out);
	else
		gated_act_as(LLM_ACTIVATION_GELU_TANH, gate, up, n, out);
}

/* ------------------------------------------------------------------------
 * Logits
 * ------------------------------------------------------------------------
 */

static void
soft_cap(float *x, int64_t n, float cap)
{
	V16 limit = v16_set1(cap);
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		v16_store(x + i,
				  v16_mul(v16_tanh(v16_div(v16_load(x + i), limit)), limit));
	if (i < n)
	{
		V16 rest = v16_div(v16_load_first(x + i, n - i), limit);

		v16_store_first(x + i, v16_mul(v16_tanh(rest), limit), n - i);
	}
}

/* 16 bits of a mask, from a multiple of 16. */
LLM_INLINE uint32_t
allowed_16(const uint32_t *mask, int64_t i)
{
	return mask == NULL ? 0xFFFF : mask[i / 32] >> (i & 16) & 0xFFFF;
}

LLM_INLINE bool
is_allowed(const float *x, const uint32_t *mask, int64_t i)
{
	return fabsf(x[i]) < INFINITY &&
		   (mask == NULL || (mask[i / 32] >> i % 32 & 1) != 0);
}

/* The largest value that is finite and allowed, -inf if there is none. */
LLM_INLINE float
max_allowed(const float *x, const uint32_t *mask, int64_t n)
{
	const V16 lowest = v16_set1(-INFINITY);
	const V16 infinity = v16_set1(INFINITY);
	V16 best = lowest;
	float result;
	int64_t i = 0;

	/* a NaN is not below infinity either */
	for (; i + 16 <= n; i += 16)
	{
		uint32_t bits = allowed_16(mask, i);
		V16 v;

		if (bits == 0)
			continue;
		v = v16_load(x + i);
		v = v16_select_lt(v16_abs(v), infinity, v, lowest);
		if (mask != NULL)
			v = v16_select_bits(bits, v, lowest);
		best = v16_max(v, best);
	}
	result = v16_reduce_max(best);
	for (; i < n; i++)
		result = is_allowed(x, mask, i) && x[i] > result ? x[i] : result;
	return result;
}

LLM_INLINE int64_t
argmax_allowed(const float *x, const uint32_t *mask, int64_t n)
{
	float best = max_allowed(x, mask, n);
	int64_t i = 0;

	if (best == -INFINITY)
		return -1;
	for (; i + 16 <= n; i += 16)
	{
		uint32_t bits = allowed_16(mask, i);

		if (bits != 0)
			bits &= v16_mask_ge(v16_load(x + i), v16_set1(best));
		/* an infinity also compares greater: look closely */
		for (; bits != 0; bits &= bits - 1)
		{
			int64_t at = i + __builtin_ctz(bits);

			if (x[at] == best)
				return at;
		}
	}
	while (x[i] != best || !is_allowed(x, mask, i))
		i++;
	assert(i < n);
	return i;
}

/* Twice, so that nobody pays for a mask who has none. */
static int64_t
argmax(const float *x, const uint32_t *mask, int64_t n)
{
	return mask == NULL ? argmax_allowed(x, NULL, n)
						: argmax_allowed(x, mask, n);
}

LLM_INLINE float
clean_allowed(const float *x, const uint32_t *mask, int64_t n, float *out)
{
	const V16 lowest = v16_set1(-INFINITY);
	const V16 infinity = v16_set1(INFINITY);
	V16 best = lowest;
	float result;
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
	{
		V16 v = v16_load(x + i);

		v = v16_select_lt(v16_abs(v), infinity, v, lowest);
		if (mask != NULL)
			v = v16_select_bits(allowed_16(mask, i), v, lowest);
		v16_store(out + i, v);
		best = v16_max(v, best);
	}
	result = v16_reduce_max(best);
	for (; i < n; i++)
	{
		out[i] = is_allowed(x, mask, i) ? x[i] : -INFINITY;
		result = out[i] > result ? out[i] : result;
	}
	return result;
}

static float
clean(const float *x, const uint32_t *mask, int64_t n, float *out)
{
	return mask == NULL ? clean_allowed(x, NULL, n, out)
						: clean_allowed(x, mask, n, out);
}

/*
 * exp(x), and 0 where that is hardly a normal number: forbidden tokens are
 * -inf, and results that underflow take a processor a hundred times longer.
 */
LLM_INLINE V16
weigh(V16 x)
{
	const V16 lowest = v16_set1(-87.0f);

	return v16_select_lt(x, lowest, v16_zero(), v16_exp(v16_max(lowest, x)));
}

/* Floats are summed over short stretches, the stretches in double. */
static double
exp_sum(const float *x, int64_t n, float max, float scale, float *out)
{
	const int64_t stretch = 1024;
	const V16 shift = v16_set1(max);
	const V16 factor = v16_set1(scale);
	double sum = 0;

	for (int64_t begin = 0; begin < n; begin += stretch)
	{
		int64_t end = begin + stretch < n ? begin + stretch : n;
		V16 acc = v16_zero();
		int64_t i = begin;

		for (; i + 16 <= end; i += 16)
		{
			V16 e = weigh(v16_mul(v16_sub(v16_load(x + i), shift), factor));

			if (out != NULL)
				v16_store(out + i, e);
			acc = v16_add(acc, e);
		}
		sum += (double) v16_reduce_add(acc);
		if (i < end)
		{
			V16 rest = v16_sub(v16_load_first(x + i, end - i), shift);
			float lanes[16];

			v16_store(lanes, weigh(v16_mul(rest, factor)));
			for (int64_t j = i; j < end; j++)
			{
				sum += (double) lanes[j - i];
				if (out != NULL)
					out[j] = lanes[j - i];
			}
		}
	}
	return sum;
}

static int64_t
find_ge(const float *x, int64_t n, float bound, int64_t capacity, int32_t *out)
{
	int64_t n_found = 0;
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
	{
		uint32_t mask = v16_mask_ge(v16_load(x + i), v16_set1(bound));

		for (; mask != 0; mask &= mask - 1, n_found++)
		{
			if (n_found < capacity)
				out[n_found] = (int32_t) i + __builtin_ctz(mask);
		}
	}
	for (; i < n; i++)
	{
		if (!(x[i] >= bound))
			continue;
		if (n_found < capacity)
			out[n_found] = (int32_t) i;
		n_found++;
	}
	return n_found;
}

#define VECTOR_KERNELS                                                  \
	{                                                                   \
		.convert = convert, .rms_norm = rms_norm, .rope = rope,         \
		.gated_act = gated_act, .soft_cap = soft_cap, .argmax = argmax, \
		.clean = clean, .exp_sum = exp_sum, .find_ge = find_ge,         \
	}

#endif /* LLM_CPU_VECTOR_BODY_H */
