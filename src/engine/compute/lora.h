/*
 * lora.h
 *	  Adapters as compute backends read them.
 *
 * An adapter changes some of a model's matrices ("modules"): W becomes
 * gain (W + B A), where A is [rank, n_in], B [n_out, rank], and a gain belongs
 * to a row.  All that a device needs of an adapter is one piece of memory, its
 * image: a table of modules, then their numbers where the table says.  Modules
 * have ranks of their own, rounded up to LLM_LORA_RANK_UNIT with zeros, so
 * that a few kernels serve all of them.
 *
 * A backend says in its LlmLoraFormat how it wants the numbers.  Images hold no
 * addresses and can be copied.
 *
 * src/engine/compute/lora.h
 */
#ifndef LLM_LORA_H
#define LLM_LORA_H

#include <stdbool.h>

#include "src/common/util/dtype.h"

/* Ranks are rounded up to multiples of this. */
#define LLM_LORA_RANK_UNIT 16

/* Rows of A, and rows of B by rank, are padded to multiples of this. */
#define LLM_LORA_COL_UNIT 32

/* Everything in an image begins at multiples of this. */
#define LLM_LORA_ALIGN_BYTES 64

typedef struct LlmLoraFormat
{
	LlmDtype dtype;	 /* of A and B: bf16 or f32; gains are f32 */
	bool up_by_rank; /* B as [rank, n_out] rather than [n_out, rank] */
} LlmLoraFormat;

/* An image begins with a table of these; offsets in LLM_LORA_ALIGN_BYTES. */
typedef struct LlmLoraModule
{
	int32_t rank;  /* rounded up; 0: the module stays what it is */
	uint32_t down; /* A [rank, llm_lora_cols(n_in)] */
	uint32_t up;   /* B [n_out, rank] or [rank, llm_lora_cols(n_out)] */
	uint32_t gain; /* [n_out]; 0: all are 1 */
} LlmLoraModule;

_Static_assert(sizeof(LlmLoraModule) == 16, "kernels read it at once");

/* A module's shape, and what an adapter makes of it. */
typedef struct LlmLoraShape
{
	int32_t rank; /* as it is; 0: not adapted */
	int32_t n_in;
	int32_t n_out;
	bool has_gain;
} LlmLoraShape;

static inline int32_t
llm_lora_rank(int32_t rank)
{
	return (rank + LLM_LORA_RANK_UNIT - 1) / LLM_LORA_RANK_UNIT *
		   LLM_LORA_RANK_UNIT;
}

static inline int64_t
llm_lora_cols(int64_t n)
{
	return (n + LLM_LORA_COL_UNIT - 1) / LLM_LORA_COL_UNIT * LLM_LORA_COL_UNIT;
}

static inline const LlmLoraModule *
llm_lora_module(const void *image, int32_t module_idx)
{
	return (const LlmLoraModule *) image + module_idx;
}

static inline const void *
llm_lora_part(const void *image, uint32_t offset)
{
	return (const char *) image + (size_t) offset * LLM_LORA_ALIGN_BYTES;
}

/* Bytes of an adapter's image; 0: more than offsets can say. */
extern size_t
llm_lora_image_bytes(const LlmLoraFormat *format, const LlmLoraShape *shapes,
					 int32_t n_modules);

/* Write the table of an image, whose memory is zeroed. */
extern void llm_lora_image_init(void *image, const LlmLoraFormat *format,
								const LlmLoraShape *shapes, int32_t n_modules);

/* A module's numbers; gain NULL where the shape has none. */
typedef struct LlmLoraNumbers
{
	const float *down; /* [rank, n_in] */
	const float *up;   /* [n_out, rank], times the adapter's scale */
	const float *gain; /* [n_out] */
} LlmLoraNumbers;

/* Write a module's numbers; its shape is the one the table was made of. */
extern void llm_lora_image_write(void *image, const LlmLoraFormat *format,
								 int32_t module_idx, const LlmLoraShape *shape,
								 const LlmLoraNumbers *numbers);

#endif /* LLM_LORA_H */
