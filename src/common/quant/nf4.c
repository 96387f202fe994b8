/*
 * nf4.c
 *	  Making NF4 weights.
 *
 * Codes and map are bitsandbytes' to the bit.  Its map comes from torch's
 * linspace, which multiplies and adds at once.
 *
 * src/common/quant/nf4.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/common/quant/nf4.h"

#define N_CODES 16
#define N_MAP 256

/* The map's numbers below 1 are 0 and so many of each sign. */
#define N_POSITIVE 127

/* Quantiles of a normal distribution (bitsandbytes: functional.py). */
static const float nf4_codes[N_CODES] = {
	-1.0f,
	-0.6961928009986877f,
	-0.5250730514526367f,
	-0.39491748809814453f,
	-0.28444138169288635f,
	-0.18477343022823334f,
	-0.09105003625154495f,
	0.0f,
	0.07958029955625534f,
	0.16093020141124725f,
	0.24611230194568634f,
	0.33791524171829224f,
	0.44070982933044434f,
	0.5626170039176941f,
	0.7229568362236023f,
	1.0f,
};

#define ZERO_CODE 7

/* ------------------------------------------------------------------------
 * Parts
 * ------------------------------------------------------------------------
 */
int64_t
llm_nf4_n_blocks(int64_t n)
{
	return (n + LLM_NF4_BLOCK - 1) / LLM_NF4_BLOCK;
}

static int64_t
n_scales(int64_t n, bool is_nested)
{
	int64_t n_blocks = llm_nf4_n_blocks(n);

	return is_nested
			   ? (n_blocks + LLM_NF4_NESTED_BLOCK - 1) / LLM_NF4_NESTED_BLOCK
			   : n_blocks;
}

/* The next n_bytes of a weight; data NULL: only counted. */
static char *
take(char *data, size_t *used, size_t n_bytes)
{
	char *at = data == NULL ? NULL : data + *used;

	*used += (n_bytes + 63) / 64 * 64;
	return at;
}

static size_t
lay_out(char *data, int64_t n, bool is_nested, LlmNf4 *weight)
{
	size_t used = 0;

	weight->codes = (float *) take(data, &used, N_CODES * sizeof(float));
	weight->map = (float *) take(data, &used, N_MAP * sizeof(float));
	weight->offset = (float *) take(data, &used, sizeof(float));
	weight->scales = (float *) take(
		data, &used, (size_t) n_scales(n, is_nested) * sizeof(float));
	weight->scale_codes =
		is_nested ? (uint8_t *) take(data, &used, (size_t) llm_nf4_n_blocks(n))
				  : NULL;
	weight->values = (uint8_t *) take(data, &used, (size_t) (n + 1) / 2);
	return used;
}

size_t
llm_nf4_bytes(int64_t n, bool is_nested)
{
	LlmNf4 weight;

	return lay_out(NULL, n, is_nested, &weight);
}

LlmNf4
llm_nf4_at(const void *data, int64_t n, bool is_nested)
{
	LlmNf4 weight;

	assert((uintptr_t) data % 64 == 0);
	(void) lay_out((char *) data, n, is_nested, &weight);
	return weight;
}

/* ------------------------------------------------------------------------
 * Values
 * ------------------------------------------------------------------------
 */

/* How many borders between codes, their middles, lie below x. */
static uint8_t
nearest_code(float x)
{
	int n = 0;

	for (int i = 0; i + 1 < N_CODES; i++)
		n += x > (nf4_codes[i] + nf4_codes[i + 1]) * 0.5f;
	return (uint8_t) n;
}

static float
largest(const float *x, int64_t n)
{
	float most = 0;

	for (int64_t i = 0; i < n; i++)
	{
		float size = fabsf(x[i]);

		/* the negation keeps a NaN */
		if (!(size <= most))
			most = size;
		if (isnan(most))
			return most;
	}
	return most;
}

void
llm_nf4_encode(const float *src, int64_t n, uint8_t *values, float *magnitudes)
{
	for (int64_t first = 0; first < n; first += LLM_NF4_BLOCK)
	{
		int64_t end = n < first + LLM_NF4_BLOCK ? n : first + LLM_NF4_BLOCK;
		float most = largest(src + first, end - first);
		float inverse = 1 / most;

		magnitudes[first / LLM_NF4_BLOCK] = most;
		for (int64_t i = first; i < end; i++)
		{
			uint8_t code =
				most > 0 ? nearest_code(src[i] * inverse) : ZERO_CODE;

			if (i % 2 == 0)
				values[i / 2] = (uint8_t) (code << 4);
			else
				values[i / 2] |= code;
		}
	}
}

/* ------------------------------------------------------------------------
 * Magnitudes
 * ------------------------------------------------------------------------
 */

/*
 * bitsandbytes' dynamic map: for each decimal exponent -6 .. 0 the middles of
 * 1, 2, 4 ... 64 equal parts of 0.1 to 1, of both signs; 0; and 1.
 */
static void
fill_map(float *map)
{
	int at = 0;

	for (int e = 0; e < 7; e++)
	{
		const int n = 1 << e;
		const float step = (1.0f - 0.1f) / (float) n;
		const float unit = (float) pow(10, e - 6);
		float low = 0.1f;

		for (int k = 1; k <= n; k++)
		{
			/* torch's linspace goes from both ends to the middle */
			float high = k < (n + 1) / 2 ? fmaf(step, (float) k, 0.1f)
										 : fmaf(-step, (float) (n - k), 1.0f);
			float value = unit * ((low + high) * 0.5f);

			map[N_POSITIVE + 1 + at] = value;
			map[N_POSITIVE - 1 - at] = -value;
			low = high;
			at++;
		}
	}
	assert(at == N_POSITIVE);
	map[N_POSITIVE] = 0;
	map[N_MAP - 1] = 1;
}

/* The nearest entry, found as bitsandbytes does, which decides ties. */
static uint8_t
nearest_entry(const float *map, float x)
{
	int pivot = N_POSITIVE;
	int lower = 0;
	int upper = N_MAP - 1;

	for (int step = 64; step > 0; step /= 2)
	{
		if (x > map[pivot])
		{
			lower = pivot;
			pivot += step;
		}
		else
		{
			upper = pivot;
			pivot -= step;
		}
	}
	if (x > map[pivot])
		return (uint8_t) (x > (map[upper] + map[pivot]) * 0.5f ? upper : pivot);
	return (uint8_t) (x < (map[lower] + map[pivot]) * 0.5f ? lower : pivot);
}

static float
mean_of(const float *x, int64_t n)
{
	double sum = 0;

	for (int64_t i = 0; i < n; i++)
		sum += (double) x[i];
	return (float) (sum / (double) n);
}

void
llm_nf4_finish(const LlmNf4 *weight, const float *magnitudes, int64_t n_blocks)
{
	float offset = mean_of(magnitudes, n_blocks);

	memcpy(weight->codes, nf4_codes, sizeof(nf4_codes));
	fill_map(weight->map);
	*weight->offset = weight->scale_codes == NULL ? 0 : offset;
	if (weight->scale_codes == NULL)
	{
		memcpy(weight->scales, magnitudes, (size_t) n_blocks * sizeof(float));
		return;
	}
	for (int64_t first = 0; first < n_blocks; first += LLM_NF4_NESTED_BLOCK)
	{
		int64_t end = n_blocks < first + LLM_NF4_NESTED_BLOCK
						  ? n_blocks
						  : first + LLM_NF4_NESTED_BLOCK;
		float most = 0;

		for (int64_t i = first; i < end; i++)
		{
			float size = fabsf(magnitudes[i] - offset);

			if (!(size <= most))
				most = size;
		}
		weight->scales[first / LLM_NF4_NESTED_BLOCK] = most;
		for (int64_t i = first; i < end; i++)
			weight->scale_codes[i] =
				most > 0 ? nearest_entry(weight->map,
										 (magnitudes[i] - offset) * (1 / most))
						 : N_POSITIVE;
	}
}
