/*
 * quant_encode.c
 *	  int8 and int4 weights of floats.
 *
 * A scale is rounded to what its format can hold before the values are
 * chosen, so that its rounding costs next to nothing.
 *
 * src/common/quant/quant_encode.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/common/quant/quant.h"
#include "src/common/util/half_float.h"

#define GROUP LLM_QUANT_GROUP_ELEMENTS
#define UNIT_GROUPS LLM_QUANT_UNIT_GROUPS

/* What a scale or an offset of int4_k is at most, in units. */
#define MOST_UNITS 255.0f

/*
 * A group is worked on four elements at a time, with the vectors that
 * compilers offer on every processor; sums are taken in four lanes.
 */
typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));

#define N_FOURS (GROUP / 4)

static inline F4
f4_set1(float value)
{
	return (F4){ value, value, value, value };
}

static inline F4
f4_load(const float *src)
{
	F4 four;

	memcpy(&four, src, sizeof(four));
	return four;
}

/* Within low .. high. */
static inline F4
f4_clamp(F4 a, F4 low, F4 high)
{
	I4 is_low = (I4) (a < low);
	I4 is_high = (I4) (a > high);

	return (F4) (((I4) low & is_low) | ((I4) high & is_high) |
				 ((I4) a & ~(is_low | is_high)));
}

static inline float
f4_sum(F4 a)
{
	return (a[0] + a[2]) + (a[1] + a[3]);
}

/*
 * To the nearest integer, for |x| < 2^22: adding 1.5 * 2^23 leaves no bits for
 * a fraction.
 */
#define ROUNDING_MAGIC 12582912.0f

static inline F4
f4_round(F4 a)
{
	return (a + ROUNDING_MAGIC) - ROUNDING_MAGIC;
}

static inline float
round_small(float x)
{
	return (x + ROUNDING_MAGIC) - ROUNDING_MAGIC;
}

/* The smallest f16 value that is not below a number >= 0. */
static float
f16_at_least(float value)
{
	uint16_t bits = llm_float_to_f16(value);

	if (llm_f16_to_float(bits) < value)
		bits++;
	return llm_f16_to_float(bits);
}

static bool
is_finite(const float *src)
{
	F4 nothing = f4_set1(0);

	for (int i = 0; i < N_FOURS; i++)
		nothing += f4_load(src + 4 * i) * 0.0f;
	return f4_sum(nothing) == 0;
}

static float
inverse_of(float scale)
{
	return scale > 0 ? 1.0f / scale : 0.0f;
}

/* ------------------------------------------------------------------------
 * int8
 * ------------------------------------------------------------------------
 */
static void
encode_int8(const float *src, uint8_t *values, float *scale)
{
	float largest = 0;
	float inverse;

	if (!is_finite(src))
	{
		*scale = NAN;
		memset(values, 1, GROUP);
		return;
	}
	for (int i = 0; i < GROUP; i++)
		largest = fabsf(src[i]) > largest ? fabsf(src[i]) : largest;
	*scale = f16_at_least(largest / 127.0f);
	inverse = inverse_of(*scale);
	for (int i = 0; i < GROUP; i++)
		values[i] = (uint8_t) (int8_t) round_small(src[i] * inverse);
}

/* ------------------------------------------------------------------------
 * int4_k
 * ------------------------------------------------------------------------
 */

/* A line w = scale * value + offset, offset <= 0, and a group's values on it */
typedef struct Line
{
	float scale;
	float offset;
	F4 values[N_FOURS];
} Line;

/* The best values for a line. */
static void
choose_values(const float *src, Line *line)
{
	F4 inverse = f4_set1(inverse_of(line->scale));

	for (int i = 0; i < N_FOURS; i++)
	{
		F4 w = f4_load(src + 4 * i);
		F4 value =
			f4_clamp((w - line->offset) * inverse, f4_set1(0), f4_set1(15));

		line->values[i] = f4_round(value);
	}
}

/* The best line for the values chosen so far: linear regression. */
static void
choose_line(const float *src, Line *line)
{
	F4 sums[4] = { { 0 } };
	float v;
	float vv;
	float w;
	float vw;
	float determinant;

	for (int i = 0; i < N_FOURS; i++)
	{
		sums[0] += line->values[i];
		sums[1] += line->values[i] * line->values[i];
		sums[2] += f4_load(src + 4 * i);
		sums[3] += line->values[i] * f4_load(src + 4 * i);
	}
	v = f4_sum(sums[0]);
	vv = f4_sum(sums[1]);
	w = f4_sum(sums[2]);
	vw = f4_sum(sums[3]);
	determinant = GROUP * vv - v * v;
	if (determinant <= 0)
		return;
	line->scale = (GROUP * vw - v * w) / determinant;
	line->offset = (vv * w - v * vw) / determinant;
	if (line->offset > 0)
	{
		line->offset = 0;
		line->scale = vw / vv;
	}
}

/*
 * From the whole range to the best values, from these to their best line, and
 * so on; each step lowers the squared error, after a few by very little.
 */
#define N_ROUNDS 4

static Line
fit_line(const float *src)
{
	float min = 0;
	float max = src[0];
	Line line;

	for (int i = 0; i < GROUP; i++)
	{
		min = src[i] < min ? src[i] : min;
		max = src[i] > max ? src[i] : max;
	}
	line.scale = (max - min) / 15.0f;
	line.offset = min;
	for (int round = 0; round < N_ROUNDS; round++)
	{
		choose_values(src, &line);
		choose_line(src, &line);
	}
	return line;
}

/* A scale or an offset, in units rounded. */
static float
round_to(float value, float unit)
{
	return unit * round_small(value * inverse_of(unit));
}

static void
store_group(const float *src, Line *line, uint8_t *values)
{
	choose_values(src, line);
	for (int i = 0; i < GROUP; i++)
		values[i] = (uint8_t) line->values[i / 4][i % 4];
}

/* A unit of up to 8 groups, with an infinity or NaN among them. */
static void
encode_not_a_number(int n_groups, const LlmQuantGroups *out)
{
	*out->scale_units = NAN;
	*out->offset_units = NAN;
	memset(out->values, 0, (size_t) n_groups * GROUP);
	for (int g = 0; g < n_groups; g++)
	{
		out->scales[g] = NAN;
		out->offsets[g] = NAN;
	}
}

static void
encode_unit(const float *src, int n_groups, const LlmQuantGroups *out)
{
	Line lines[UNIT_GROUPS];
	float scale = 0;
	float depth = 0; /* -offset */

	for (int g = 0; g < n_groups; g++)
	{
		if (!is_finite(src + g * GROUP))
		{
			encode_not_a_number(n_groups, out);
			return;
		}
		lines[g] = fit_line(src + g * GROUP);
		scale = fmaxf(scale, lines[g].scale);
		depth = fmaxf(depth, -lines[g].offset);
	}
	scale = f16_at_least(scale / MOST_UNITS);
	depth = f16_at_least(depth / MOST_UNITS);
	*out->scale_units = scale;
	*out->offset_units = -depth;
	for (int g = 0; g < n_groups; g++)
	{
		lines[g].scale = round_to(lines[g].scale, scale);
		lines[g].offset = -round_to(-lines[g].offset, depth);
		out->scales[g] = lines[g].scale;
		out->offsets[g] = lines[g].offset;
		store_group(src + g * GROUP, &lines[g], out->values + g * GROUP);
	}
}

static void
encode_int4_k(const float *src, int64_t n, const LlmQuantGroups *out)
{
	for (int64_t g = 0; g < n / GROUP; g += UNIT_GROUPS)
	{
		int64_t n_groups = n / GROUP - g;
		LlmQuantGroups unit = { out->values + g * GROUP, out->scales + g,
								out->offsets + g,
								out->scale_units + g / UNIT_GROUPS,
								out->offset_units + g / UNIT_GROUPS };

		if (n_groups > UNIT_GROUPS)
			n_groups = UNIT_GROUPS;
		encode_unit(src + g * GROUP, (int) n_groups, &unit);
	}
}

void
llm_quant_encode(LlmDtype dtype, const float *src, int64_t n,
				 const LlmQuantGroups *out)
{
	assert(dtype == LLM_DTYPE_INT8 || dtype == LLM_DTYPE_INT4_K);
	assert(n % GROUP == 0);
	if (dtype == LLM_DTYPE_INT4_K)
	{
		encode_int4_k(src, n, out);
		return;
	}
	for (int64_t g = 0; g < n / GROUP; g++)
		encode_int8(src + g * GROUP, out->values + g * GROUP, &out->scales[g]);
}
