/*
 * dtype.h
 *	  Number formats of tensors.
 *
 * src/common/util/dtype.h
 */
#ifndef LLM_DTYPE_H
#define LLM_DTYPE_H

#include <stddef.h>
#include <stdint.h>

/*
 * The formats up to INT8 have elements of their own.  INT4 and those after it
 * come in blocks: elements of a row that share scales.  INT8, INT4 and INT4_K
 * as the format of a matrix are what a compute backend makes of quantized
 * weights, in a layout of its own; NF4 is that of src/common/quant/nf4.h, for
 * training, or what bitsandbytes' checkpoints hold; Q8_0 and those after it are
 * blocks as GGUF files store them.
 */
typedef enum LlmDtype
{
	LLM_DTYPE_F32,
	LLM_DTYPE_F16,
	LLM_DTYPE_BF16,
	LLM_DTYPE_FP8_E4M3,
	LLM_DTYPE_INT8,
	LLM_DTYPE_INT4,
	LLM_DTYPE_INT4_K,
	LLM_DTYPE_NF4,
	LLM_DTYPE_Q8_0,
	LLM_DTYPE_Q4_0,
	LLM_DTYPE_Q4_K,
	LLM_DTYPE_Q6_K,
	LLM_DTYPE_Q4_1,
	LLM_DTYPE_Q5_0,
	LLM_DTYPE_Q5_1,
	LLM_DTYPE_Q2_K,
	LLM_DTYPE_Q3_K,
	LLM_DTYPE_Q5_K,
	LLM_DTYPE_IQ4_NL,
	LLM_DTYPE_IQ4_XS,
	LLM_DTYPE_COUNT
} LlmDtype;

/* Whether an element alone has a meaning: a float. */
static inline int
llm_dtype_is_float(LlmDtype dtype)
{
	return dtype <= LLM_DTYPE_BF16;
}

/* Bytes of an element; not for formats in blocks. */
static inline size_t
llm_dtype_bytes(LlmDtype dtype)
{
	switch (dtype)
	{
		case LLM_DTYPE_F32:
			return 4;
		case LLM_DTYPE_F16:
		case LLM_DTYPE_BF16:
			return 2;
		default:
			return 1;
	}
}

/* Elements of a block: 1 where an element stands alone. */
static inline int64_t
llm_dtype_block_elements(LlmDtype dtype)
{
	switch (dtype)
	{
		case LLM_DTYPE_NF4:
			return 2;
		case LLM_DTYPE_Q8_0:
		case LLM_DTYPE_Q4_0:
		case LLM_DTYPE_Q4_1:
		case LLM_DTYPE_Q5_0:
		case LLM_DTYPE_Q5_1:
		case LLM_DTYPE_IQ4_NL:
		case LLM_DTYPE_INT4:
		case LLM_DTYPE_INT4_K:
			return 32;
		case LLM_DTYPE_Q2_K:
		case LLM_DTYPE_Q3_K:
		case LLM_DTYPE_Q4_K:
		case LLM_DTYPE_Q5_K:
		case LLM_DTYPE_Q6_K:
		case LLM_DTYPE_IQ4_XS:
			return 256;
		default:
			return 1;
	}
}

/*
 * Bytes of a block as files store it.  No file holds INT4 and INT4_K; NF4's
 * are the codes alone, two in a byte: their scales are tensors by themselves.
 */
static inline size_t
llm_dtype_block_bytes(LlmDtype dtype)
{
	switch (dtype)
	{
		case LLM_DTYPE_Q8_0:
			return 34;
		case LLM_DTYPE_Q4_0:
		case LLM_DTYPE_IQ4_NL:
			return 18;
		case LLM_DTYPE_Q4_1:
			return 20;
		case LLM_DTYPE_Q5_0:
			return 22;
		case LLM_DTYPE_Q5_1:
			return 24;
		case LLM_DTYPE_Q2_K:
			return 84;
		case LLM_DTYPE_Q3_K:
			return 110;
		case LLM_DTYPE_Q4_K:
			return 144;
		case LLM_DTYPE_Q5_K:
			return 176;
		case LLM_DTYPE_Q6_K:
			return 210;
		case LLM_DTYPE_IQ4_XS:
			return 136;
		default:
			return llm_dtype_bytes(dtype);
	}
}

/* Bytes of n stored elements, n a multiple of the block's. */
static inline size_t
llm_dtype_stored_bytes(LlmDtype dtype, int64_t n)
{
	return (size_t) (n / llm_dtype_block_elements(dtype)) *
		   llm_dtype_block_bytes(dtype);
}

/* The name users write in options and see in views. */
static inline const char *
llm_dtype_name(LlmDtype dtype)
{
	static const char *const names[LLM_DTYPE_COUNT] = {
		"float32", "float16", "bfloat16", "fp8",  "int8",	"int4",	 "int4_k",
		"nf4",	   "q8_0",	  "q4_0",	  "q4_k", "q6_k",	"q4_1",	 "q5_0",
		"q5_1",	   "q2_k",	  "q3_k",	  "q5_k", "iq4_nl", "iq4_xs"
	};

	return names[dtype];
}

#endif /* LLM_DTYPE_H */
