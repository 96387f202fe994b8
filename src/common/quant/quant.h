/*
 * quant.h
 *	  Quantized weights: the block formats of GGUF files, and making int8 and
 *	  int4 weights of floats.
 *
 * The plain form, which every compute backend takes, is
 * w = scale * value + offset in groups of LLM_QUANT_GROUP_ELEMENTS
 * neighbouring elements of a row:
 *
 *	  int8	  value -128 .. 127, scale an f16 value, offset 0
 *	  int4	  value 0 .. 15, scale an f16 value, offset -8 * scale
 *	  int4_k  value 0 .. 15; LLM_QUANT_UNIT_GROUPS groups, or what is left of
 *			  a row, are a unit with two f16 values; scales and offsets are
 *			  0 .. 255 times these
 *
 * src/common/quant/quant.h
 */
#ifndef LLM_QUANT_H
#define LLM_QUANT_H

#include <stdbool.h>

#include "src/common/util/dtype.h"

#define LLM_QUANT_GROUP_ELEMENTS 32
#define LLM_QUANT_UNIT_GROUPS 8

/*
 * Groups of a row in plain form; the caller's memory.  A value is a byte,
 * int8_t for int8.
 */
typedef struct LlmQuantGroups
{
	uint8_t *values;	 /* [n] */
	float *scales;		 /* [n / LLM_QUANT_GROUP_ELEMENTS] */
	float *offsets;		 /* likewise; NULL for int8 */
	float *scale_units;	 /* [units]; NULL but for int4_k */
	float *offset_units; /* likewise */
} LlmQuantGroups;

/*
 * n elements, a multiple of the block's, of a block format (q8_0 ... iq4_xs) as
 * floats, with the formulas of the format's definition (ggml) in f32.
 */
extern void
llm_quant_decode(LlmDtype dtype, const void *src, int64_t n, float *out);

/*
 * The plain form that holds exactly what a block format says: q8_0, q5_0 and
 * iq4_nl -> int8, q4_0 -> int4, q4_k -> int4_k.  false: this format has none.
 */
extern bool llm_quant_unpack(LlmDtype dtype, const void *src, int64_t n,
							 const LlmQuantGroups *out);

/* The plain form's format, as above; the format itself where there is none. */
extern LlmDtype llm_quant_plain_dtype(LlmDtype dtype);

/*
 * Quantize a row of n floats, a multiple of LLM_QUANT_GROUP_ELEMENTS, to int8
 * (scale from the largest magnitude) or int4_k (a small squared error).  A
 * group (int4_k: a unit) with an infinity or NaN becomes NaN.
 */
extern void llm_quant_encode(LlmDtype dtype, const float *src, int64_t n,
							 const LlmQuantGroups *out);

#endif /* LLM_QUANT_H */
