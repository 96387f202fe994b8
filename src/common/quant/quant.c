/*
 * quant.c
 *	  The block formats of GGUF files, as floats and in plain form.
 *
 * The formulas are those of the formats' definition, ggml's ggml-quants.c
 * (dequantize_row_*).  A scale is an f16 (of K formats multiplied by a small
 * integer) and a value a small integer, so that their product is exact in f32
 * but for q6_k and iq4_xs, which have no sum: what is computed here is what
 * the format says, whether or not the compiler contracts a product and a sum.
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
 * Groups of 32
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

/* One more bit for each of 32 values, from four bytes. */
static void
add_fifth_bits(const uint8_t *bits, uint8_t *values)
{
	for (int i = 0; i < GROUP; i++)
		values[i] |= (uint8_t) ((bits[i / 8] >> (i % 8) & 1) << 4);
}

/* block: f16 scale, f16 offset, 16 bytes of nibbles */
static void
unpack_q4_1(const uint8_t *block, const LlmQuantGroups *out)
{
	unpack_nibbles(block + 4, GROUP / 2, out->values);
	out->scales[0] = load_f16(block);
	out->offsets[0] = load_f16(block + 2);
}

/* block: f16 scale, 4 bytes of fifth bits, 16 of nibbles; value 16 is 0 */
static float
unpack_q5_0(const uint8_t *block, uint8_t *values)
{
	unpack_nibbles(block + 6, GROUP / 2, values);
	add_fifth_bits(block + 2, values);
	for (int i = 0; i < GROUP; i++)
		values[i] = (uint8_t) (values[i] - 16);
	return load_f16(block);
}

/* block: f16 scale, f16 offset, 4 bytes of fifth bits, 16 of nibbles */
static void
unpack_q5_1(const uint8_t *block, const LlmQuantGroups *out)
{
	unpack_nibbles(block + 8, GROUP / 2, out->values);
	add_fifth_bits(block + 4, out->values);
	out->scales[0] = load_f16(block);
	out->offsets[0] = load_f16(block + 2);
}

/* What iq4_nl's and iq4_xs's nibbles stand for (ggml: kvalues_iq4nl). */
static void
unpack_iq4_values(const uint8_t *nibbles, uint8_t *values)
{
	static const int8_t table[16] = {
		-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
	};

	unpack_nibbles(nibbles, GROUP / 2, values);
	for (int i = 0; i < GROUP; i++)
		values[i] = (uint8_t) table[values[i]];
}

/* block: f16 scale, 16 bytes of nibbles */
static float
unpack_iq4_nl(const uint8_t *block, uint8_t *values)
{
	unpack_iq4_values(block + 2, values);
	return load_f16(block);
}

/* ------------------------------------------------------------------------
 * Blocks of 256
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
 * q4_k's and q5_k's blocks begin: f16 scale, f16 minimum, 12 bytes of groups'
 * scales and minimums
 */
static void
unpack_k_scales(const uint8_t *block, const LlmQuantGroups *out)
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
}

/* then: 128 bytes of nibbles, 32 of them for two groups */
static void
unpack_q4_k(const uint8_t *block, const LlmQuantGroups *out)
{
	unpack_k_scales(block, out);
	for (int pair = 0; pair < K_GROUPS / 2; pair++)
		unpack_nibbles(block + 16 + pair * GROUP, GROUP,
					   out->values + pair * 2 * GROUP);
}

/* then: 32 bytes, whose bit g is the fifth of group g; nibbles as q4_k's */
static void
unpack_q5_k(const uint8_t *block, const LlmQuantGroups *out)
{
	unpack_k_scales(block, out);
	for (int pair = 0; pair < K_GROUPS / 2; pair++)
		unpack_nibbles(block + 48 + pair * GROUP, GROUP,
					   out->values + pair * 2 * GROUP);
	for (int i = 0; i < K_ELEMENTS; i++)
		out->values[i] |=
			(uint8_t) ((block[16 + i % GROUP] >> (i / GROUP) & 1) << 4);
}

/*
 * block: f16 scale; of the groups' 6-bit scales the two high bits (16 bits)
 * and the low nibbles (4 bytes); 128 bytes of nibbles, 16 for a group
 */
static void
unpack_iq4_xs(const uint8_t *block, const LlmQuantGroups *out)
{
	for (int g = 0; g < K_GROUPS; g++)
	{
		int low = block[4 + g / 2] >> (g % 2 * 4) & 15;
		int high = block[2 + g / 4] >> (g % 4 * 2) & 3;

		out->scales[g] = load_f16(block) * (float) ((low | high << 4) - 32);
		unpack_iq4_values(block + 8 + g * GROUP / 2, out->values + g * GROUP);
	}
}

/* Two bits of element i: two halves of 128, of four quarters of 32 each. */
static int
two_bits(const uint8_t *packed, int i)
{
	return packed[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/*
 * block: 16 bytes with the 4-bit scale and minimum of 16 elements each, 64 of
 * two bits, f16 scale, f16 minimum
 */
static void
decode_q2_k(const uint8_t *block, float *out)
{
	float scale_unit = load_f16(block + 80);
	float min_unit = load_f16(block + 82);

	for (int i = 0; i < K_ELEMENTS; i++)
	{
		float scale = scale_unit * (float) (block[i / 16] & 15);
		float min = min_unit * (float) (block[i / 16] >> 4);

		out[i] = scale * (float) two_bits(block + 16, i) - min;
	}
}

/*
 * block: 32 bytes, whose bit g is the third of group g's elements, 64 of the
 * lower two bits, 12 bytes of 6-bit scales of 16 elements each (nibbles, then
 * what is above them), f16 scale
 */
static void
decode_q3_k(const uint8_t *block, float *out)
{
	const uint8_t *packed = block + 96;
	float unit = load_f16(block + 108);

	for (int i = 0; i < K_ELEMENTS; i++)
	{
		int at = i / 16;
		int low = packed[at % 8] >> (at / 8 * 4) & 15;
		int high = packed[8 + at % 4] >> (at / 4 * 2) & 3;
		int third = block[i % GROUP] >> (i / GROUP) & 1;
		int value = two_bits(block + 32, i) | third << 2;

		out[i] = unit * (float) ((low | high << 4) - 32) * (float) (value - 4);
	}
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
		int quarter = i % 128 / 32;
		int low = block[i / 128 * 64 + quarter % 2 * 32 + i % 32];
		int value =
			(quarter < 2 ? low & 15 : low >> 4) | two_bits(block + 128, i) << 4;
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
		case LLM_DTYPE_Q5_0:
		case LLM_DTYPE_IQ4_NL:
			return LLM_DTYPE_INT8;
		case LLM_DTYPE_Q4_0:
			return LLM_DTYPE_INT4;
		case LLM_DTYPE_Q4_K:
			return LLM_DTYPE_INT4_K;
		default:
			return dtype;
	}
}

/* One block of groups of 32; false where they are smaller. */
static bool
unpack_block(LlmDtype dtype, const uint8_t *block, const LlmQuantGroups *out)
{
	switch (dtype)
	{
		case LLM_DTYPE_Q8_0:
			out->scales[0] = unpack_q8_0(block, out->values);
			return true;
		case LLM_DTYPE_Q5_0:
			out->scales[0] = unpack_q5_0(block, out->values);
			return true;
		case LLM_DTYPE_IQ4_NL:
			out->scales[0] = unpack_iq4_nl(block, out->values);
			return true;
		case LLM_DTYPE_IQ4_XS:
			unpack_iq4_xs(block, out);
			return true;
		case LLM_DTYPE_Q4_0:
			out->scales[0] = unpack_q4_0(block, out->values);
			out->offsets[0] = -8.0f * out->scales[0];
			return true;
		case LLM_DTYPE_Q4_1:
			unpack_q4_1(block, out);
			return true;
		case LLM_DTYPE_Q5_1:
			unpack_q5_1(block, out);
			return true;
		case LLM_DTYPE_Q4_K:
			unpack_q4_k(block, out);
			return true;
		case LLM_DTYPE_Q5_K:
			unpack_q5_k(block, out);
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

/* Elements of a block in groups of 32, whose values are int8 or unsigned. */
static void
decode_groups(LlmDtype dtype, const LlmQuantGroups *groups, float *out)
{
	bool is_signed = dtype == LLM_DTYPE_IQ4_XS ||
					 llm_quant_plain_dtype(dtype) == LLM_DTYPE_INT8;

	for (int i = 0; i < (int) llm_dtype_block_elements(dtype); i++)
	{
		float scale = groups->scales[i / GROUP];

		if (is_signed)
			out[i] = scale * (float) (int8_t) groups->values[i];
		else
			out[i] =
				scale * (float) groups->values[i] + groups->offsets[i / GROUP];
	}
}

static void
decode_block(LlmDtype dtype, const uint8_t *block, float *out)
{
	uint8_t values[K_ELEMENTS];
	float scales[K_GROUPS];
	float offsets[K_GROUPS];
	float units[2];
	LlmQuantGroups groups = { values, scales, offsets, &units[0], &units[1] };

	if (unpack_block(dtype, block, &groups))
		decode_groups(dtype, &groups, out);
	else if (dtype == LLM_DTYPE_Q2_K)
		decode_q2_k(block, out);
	else if (dtype == LLM_DTYPE_Q3_K)
		decode_q3_k(block, out);
	else
	{
		assert(dtype == LLM_DTYPE_Q6_K);
		decode_q6_k(block, out);
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
