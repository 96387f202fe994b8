/*
 * nf4_stored.c
 *	  NF4 weights as bitsandbytes' checkpoints store them.
 *
 * Where magnitudes are nested, the product is rounded before the offset is
 * added, as bitsandbytes does it in two steps.
 *
 * src/common/quant/nf4_stored.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/quant/nf4.h"

static float
float_at(const void *floats, int64_t i)
{
	float value;

	memcpy(&value, (const char *) floats + 4 * i, sizeof(value));
	return value;
}

/* Products of doubles are exact: no compiler makes one rounding of two. */
static float
rounded_product(float a, float b)
{
	return (float) ((double) a * (double) b);
}

static float
magnitude_of(const LlmNf4Stored *stored, int64_t block)
{
	uint8_t code;
	float product;

	if (stored->scale_codes == NULL)
		return float_at(stored->scales, block);
	code = ((const uint8_t *) stored->scale_codes)[block];
	product =
		rounded_product(float_at(stored->map, code),
						float_at(stored->scales, block / LLM_NF4_NESTED_BLOCK));
	return (float) ((double) product + (double) stored->offset);
}

void
llm_nf4_stored_decode(const LlmNf4Stored *stored, int64_t first, int64_t n,
					  float *out)
{
	const uint8_t *values = stored->values;
	float magnitude = 0;

	for (int64_t i = first; i < first + n; i++)
	{
		int code = values[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15;

		if (i == first || i % LLM_NF4_BLOCK == 0)
			magnitude = magnitude_of(stored, i / LLM_NF4_BLOCK);
		*out++ = rounded_product(float_at(stored->codes, code), magnitude);
	}
}

/* Elements of "size" bytes from element "first" on. */
static void
copy_part(void *dest, const void *src, int64_t first, int64_t n, size_t size)
{
	memcpy(dest, (const char *) src + (size_t) first * size, (size_t) n * size);
}

bool
llm_nf4_stored_copy(const LlmNf4Stored *stored, int64_t first, int64_t n,
					const LlmNf4 *weight)
{
	const bool is_nested = stored->scale_codes != NULL;
	const int64_t n_blocks = llm_nf4_n_blocks(n);
	const int64_t unit = LLM_NF4_BLOCK * (is_nested ? LLM_NF4_NESTED_BLOCK : 1);
	const int64_t n_scales = (n + unit - 1) / unit;

	assert(is_nested == (weight->scale_codes != NULL));
	if (first % unit != 0)
		return false;
	copy_part(weight->codes, stored->codes, 0, 16, sizeof(float));
	if (is_nested)
	{
		copy_part(weight->map, stored->map, 0, 256, sizeof(float));
		copy_part(weight->scale_codes, stored->scale_codes,
				  first / LLM_NF4_BLOCK, n_blocks, 1);
	}
	*weight->offset = stored->offset;
	copy_part(weight->scales, stored->scales, first / unit, n_scales,
			  sizeof(float));
	copy_part(weight->values, stored->values, first / 2, (n + 1) / 2, 1);
	return true;
}
