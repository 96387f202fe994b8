/*
 * quant.c
 *	  The block formats of GGUF files, as floats and in plain form.
 *
 * The formulas are those of the formats' definition, ggml's ggml-quants.c
 * (dequantize_row_*).  A scale is an f16 (of K formats multiplied by a small
 * integer) and a value a small integer, so that their product is exact in f32
 * but for q6_k: what is computed here is what the format says, whether or not
 * the compiler contracts a product and a sum.
 *
 * src/common/quant/quant.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/quant/quant.h"
#include "src/common/util/half_float.h"

#define GROUP LLM_QUANT_GROUP_ELEMENTS

/* Elements of a block of the K formats, and its groups. */
#define K_ELEMENTS 256
#define K_GROUPS (K_ELEMENTS / GROUP)

static float
load_f16(const uint8_t *src)
{
	uint16_t bits;

	memcpy(&bits, src, sizeof(bits));
	return llm_f16_to_float(bits);
}

/* ------------------------------------------------------------------------
 * Groups of 32: q8_0, q4_0
 * ------------------------------------------------------------------------
 */

/* block: f16 scale, 32 int8 */
static float
unpack_q8_0(const uint8_t *block, uint8_t *values)
{
	memcpy(values, block + 2, GROUP);
	return load_f16(block);
}

/* Nibbles of 16 bytes: the low ones first, then the high ones. */
static void
unpack_nibbles(const uint8_t *src, int n_bytes, uint8_t *values)
{
	for (int i = 0; i < n_bytes; i++)
	{
		values[i] = src[i] & 15;
		values[n_bytes + i] = src[i] >> 4;
	}
}

/* block: f16 scale, 16 bytes of nibbles; value 8 is 0 */
static float
unpack_q4_0(const uint8_t *block, uint8_t *values)
{
	unpack_nibbles(block + 2, GROUP / 2, values);
	return load_f16(block);
}

/* ------------------------------------------------------------------------
 * Blocks of 256: q4_k, q6_k
 * ------------------------------------------------------------------------
 */

/*
 * Group g's 6-bit scale and minimum.  The first four of each lie in the low
 * bits of bytes 0 .. 3 and 4 .. 7; of the last four the low nibbles lie in
 * bytes 8 .. 11, and the two bits above them at the top of the first eight.
 */
static void
q4_k_scale_min(const uint8_t *packed, int g, int *scale, int *min)
{
	if (g < 4)
	{
		*scale = packed[g] & 63;
		*min = packed[g + 4] & 63;
		return;
	}
	*scale = (packed[g + 4] & 15) | packed[g - 4] >> 6 << 4;
	*min = packed[g + 4] >> 4 | packed[g] >> 6 << 4;
}

/*
 * block: f16 scale, f16 minimum, 12 bytes of groups' scales and minimums,
 * 128 bytes of nibbles, 32 of them for two groups
 */
static void
unpack_q4_k(const uint8_t *block, const LlmQuantGroups *out)
{
	out->scale_units[0] = load_f16(block);
	out->offset_units[0] = -load_f16(block + 2);
	for (int g = 0; g < K_GROUPS; g++)
	{
		int scale;
		int min;

		q4_k_scale_min(block + 4, g, &scale, &min);
		out->scales[g] = out->scale_units[0] * (float) scale;
		out->offsets[g] = out->offset_units[0] * (float) min;
	}
	for (int pair = 0; pair < K_GROUPS / 2; pair++)
		unpack_nibbles(block + 16 + pair * GROUP, GROUP,
					   out->values + pair * 2 * GROUP);
}

/*
 * block: 128 bytes of low nibbles, 64 of two high bits, 16 int8 scales of 16
 * elements each, f16 scale; two halves of 128 elements
 */
static void
decode_q6_k(const uint8_t *block, float *out)
{
	float unit = load_f16(block + 208);

	for (int i = 0; i < K_ELEMENTS; i++)
	{
		int half = i / 128;
		int quarter = i % 128 / 32;
		int at = i % 32;
		int low = block[half * 64 + quarter % 2 * 32 + at];
		int high = block[128 + half * 32 + at] >> (2 * quarter) & 3;
		int value = (quarter < 2 ? low & 15 : low >> 4) | high << 4;
		int8_t scale = (int8_t) block[192 + i / 16];

		out[i] = unit * (float) scale * (float) (value - 32);
	}
}

/* ------------------------------------------------------------------------
 * Any of them
 * ------------------------------------------------------------------------
 */
LlmDtype
llm_quant_plain_dtype(LlmDtype dtype)
{
	switch (dtype)
	{
		case LLM_DTYPE_Q8_0:
			return LLM_DTYPE_INT8;
		case LLM_DTYPE_Q4_0:
			return LLM_DTYPE_INT4;
		case LLM_DTYPE_Q4_K:
			return LLM_DTYPE_INT4_K;
		default:
			return dtype;
	}
}

/* One block; false where the format has no plain form. */
static bool
unpack_block(LlmDtype dtype, const uint8_t *block, const LlmQuantGroups *out)
{
	switch (dtype)
	{
		case LLM_DTYPE_Q8_0:
			out->scales[0] = unpack_q8_0(block, out->values);
			return true;
		case LLM_DTYPE_Q4_0:
			out->scales[0] = unpack_q4_0(block, out->values);
			out->offsets[0] = -8.0f * out->scales[0];
			return true;
		case LLM_DTYPE_Q4_K:
			unpack_q4_k(block, out);
			return true;
		default:
			return false;
	}
}

/* Element n and those after it, where there are any. */
static float *
part_of(float *array, int64_t n)
{
	return array == NULL ? NULL : array + n;
}

bool
llm_quant_unpack(LlmDtype dtype, const void *src, int64_t n,
				 const LlmQuantGroups *out)
{
	const int64_t n_elements = llm_dtype_block_elements(dtype);
	const size_t n_bytes = llm_dtype_block_bytes(dtype);
	const uint8_t *block = src;

	assert(n % n_elements == 0);
	if (llm_quant_plain_dtype(dtype) == dtype)
		return false;
	for (int64_t i = 0; i < n; i += n_elements, block += n_bytes)
	{
		LlmQuantGroups at = { out->values + i, out->scales + i / GROUP,
							  part_of(out->offsets, i / GROUP),
							  part_of(out->scale_units, i / K_ELEMENTS),
							  part_of(out->offset_units, i / K_ELEMENTS) };

		(void) unpack_block(dtype, block, &at);
	}
	return true;
}

static void
decode_block(LlmDtype dtype, const uint8_t *block, float *out)
{
	uint8_t values[K_ELEMENTS];
	float scales[K_GROUPS];
	float offsets[K_GROUPS];
	float units[2];
	LlmQuantGroups groups = { values, scales, offsets, &units[0], &units[1] };

	if (!unpack_block(dtype, block, &groups))
	{
		assert(dtype == LLM_DTYPE_Q6_K);
		decode_q6_k(block, out);
		return;
	}
	for (int i = 0; i < (int) llm_dtype_block_elements(dtype); i++)
	{
		if (dtype == LLM_DTYPE_Q8_0)
			out[i] = scales[0] * (float) (int8_t) values[i];
		else
			out[i] = scales[i / GROUP] * (float) values[i] + offsets[i / GROUP];
	}
}

void
llm_quant_decode(LlmDtype dtype, const void *src, int64_t n, float *out)
{
	const int64_t n_elements = llm_dtype_block_elements(dtype);
	const size_t n_bytes = llm_dtype_block_bytes(dtype);
	const uint8_t *block = src;

	assert(dtype >= LLM_DTYPE_Q8_0 && n % n_elements == 0);
	for (int64_t i = 0; i < n; i += n_elements, block += n_bytes)
		decode_block(dtype, block, out + i);
}
