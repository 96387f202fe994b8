/*
 * dtype.h
 *	  Number formats of tensors.
 *
 * src/common/util/dtype.h
 */
#ifndef LLM_DTYPE_H
#define LLM_DTYPE_H

#include <stddef.h>

typedef enum LlmDtype
{
	LLM_DTYPE_F32,
	LLM_DTYPE_F16,
	LLM_DTYPE_BF16,
	LLM_DTYPE_FP8_E4M3,
	LLM_DTYPE_INT8,
	LLM_DTYPE_COUNT
} LlmDtype;

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

/* The name users write in options and see in views. */
static inline const char *
llm_dtype_name(LlmDtype dtype)
{
	static const char *const names[LLM_DTYPE_COUNT] = { "float32", "float16",
														"bfloat16", "fp8",
														"int8" };

	return names[dtype];
}

#endif /* LLM_DTYPE_H */
