/*
 * quant_encode.c
 *	  int8 and int4 weights of floats.
 *
 * src/common/quant/quant_encode.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/common/quant/quant.h"

#define GROUP LLM_QUANT_GROUP_ELEMENTS

static float
largest_magnitude(const float *src)
{
	float largest = 0.0f;

	for (int i = 0; i < GROUP; i++)
		largest = fmaxf(largest, fabsf(src[i]));
	return largest;
}

static void
encode_int8(const float *src, uint8_t *values, float *scale)
{
	float largest = largest_magnitude(src);
	float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;

	*scale = largest / 127.0f;
	for (int i = 0; i < GROUP; i++)
		values[i] = (uint8_t) (int8_t) lrintf(src[i] * inverse);
}

/* A line w = scale * value + offset through the elements of a group. */
typedef struct Fit
{
	float scale;
	float offset;
	double error; /* squared, summed */
	uint8_t values[GROUP];
} Fit;

static void
round_values(const float *src, Fit *fit)
{
	float inverse = fit->scale > 0.0f ? 1.0f / fit->scale : 0.0f;

	fit->error = 0;
	for (int i = 0; i < GROUP; i++)
	{
		float value = rintf((src[i] - fit->offset) * inverse);
		float rest;

		value = fminf(fmaxf(value, 0.0f), 15.0f);
		fit->values[i] = (uint8_t) value;
		rest = fit->scale * value + fit->offset - src[i];
		fit->error += (double) rest * rest;
	}
}

/* Linear regression of src on the values chosen so far. */
static void
regress(const float *src, Fit *fit)
{
	double v = 0;
	double vv = 0;
	double w = 0;
	double vw = 0;
	double determinant;

	for (int i = 0; i < GROUP; i++)
	{
		v += fit->values[i];
		vv += fit->values[i] * fit->values[i];
		w += src[i];
		vw += fit->values[i] * (double) src[i];
	}
	determinant = GROUP * vv - v * v;
	if (determinant <= 0)
		return;
	fit->scale = (float) ((GROUP * vw - v * w) / determinant);
	fit->offset = (float) ((vv * w - v * vw) / determinant);
}

/*
 * Squared error has many local minima in (scale, offset).  From the whole
 * range and from narrower ones, which cut off outliers, alternate between the
 * best values and the best line.
 */
static void
encode_int4(const float *src, uint8_t *values, float *scale, float *offset)
{
	float min = src[0];
	float max = src[0];
	Fit best = { .error = INFINITY };

	for (int i = 1; i < GROUP; i++)
	{
		min = fminf(min, src[i]);
		max = fmaxf(max, src[i]);
	}
	for (int narrow = 0; narrow < 4; narrow++)
	{
		float margin = 0.04f * (float) narrow * (max - min);
		Fit fit = { .scale = (max - min - 2 * margin) / 15.0f,
					.offset = min + margin };

		for (int round = 0; round < 2; round++)
		{
			round_values(src, &fit);
			if (fit.error < best.error)
				best = fit;
			regress(src, &fit);
		}
	}
	*scale = best.scale;
	*offset = best.offset;
	memcpy(values, best.values, GROUP);
}

void
llm_quant_encode(LlmDtype dtype, const float *src, int64_t n,
				 const LlmQuantGroups *out)
{
	assert(dtype == LLM_DTYPE_INT8 || dtype == LLM_DTYPE_INT4);
	assert(n % GROUP == 0);
	for (int64_t g = 0; g < n / GROUP; g++)
	{
		if (dtype == LLM_DTYPE_INT8)
			encode_int8(src + g * GROUP, out->values + g * GROUP,
						&out->scales[g]);
		else
			encode_int4(src + g * GROUP, out->values + g * GROUP,
						&out->scales[g], &out->offsets[g]);
	}
}
