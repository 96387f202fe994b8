/*
 * quant.h
 *	  Quantized weights: the block formats of GGUF files, and making int8 and
 *	  int4 weights of floats.
 *
 * Plain form, which every compute backend takes, is
 * w = scale * value + offset in groups of LLM_QUANT_GROUP_ELEMENTS
 * neighbouring elements of a row.
 *
 * src/common/quant/quant.h
 */
#ifndef LLM_QUANT_H
#define LLM_QUANT_H

#include <stdbool.h>

#include "src/common/util/dtype.h"

#define LLM_QUANT_GROUP_ELEMENTS 32

/*
 * Groups of a row in plain form; the caller's memory.  int8: values as
 * int8_t, offsets all 0 and not written.  int4: values 0 .. 15, a byte each.
 */
typedef struct LlmQuantGroups
{
	uint8_t *values; /* [n] */
	float *scales;	 /* [n / LLM_QUANT_GROUP_ELEMENTS] */
	float *offsets;	 /* likewise; NULL for int8 */
} LlmQuantGroups;

/*
 * n elements, a multiple of the block's, of a block format (q8_0 ... q6_k) as
 * floats, with the formulas of the format's definition (ggml) in f32.
 */
extern void
llm_quant_decode(LlmDtype dtype, const void *src, int64_t n, float *out);

/*
 * The plain form that holds exactly what a block format says: q8_0 -> int8,
 * q4_0 and q4_k -> int4.  false: this format has none (q6_k).
 */
extern bool llm_quant_unpack(LlmDtype dtype, const void *src, int64_t n,
							 const LlmQuantGroups *out);

/* The plain form's format, as above; the format itself where there is none. */
extern LlmDtype llm_quant_plain_dtype(LlmDtype dtype);

/*
 * Quantize n floats, a multiple of LLM_QUANT_GROUP_ELEMENTS, to int8 (scale
 * from the largest magnitude) or int4 (scale and offset that make the squared
 * error smallest).
 */
extern void llm_quant_encode(LlmDtype dtype, const float *src, int64_t n,
							 const LlmQuantGroups *out);

#endif /* LLM_QUANT_H */
