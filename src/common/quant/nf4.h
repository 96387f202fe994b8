/*
 * nf4.h
 *	  Weights in NF4, the 4-bit format of QLoRA (Dettmers et al. 2023), as
 *	  bitsandbytes makes them.
 *
 * The elements of a matrix, row by row, are blocks of LLM_NF4_BLOCK.  An
 * element is one of 16 codes times its block's largest magnitude.  Nested
 * ("double quantization"), these magnitudes are themselves entries of a map of
 * 256 numbers times a scale that LLM_NF4_NESTED_BLOCK blocks share, plus an
 * offset, their mean.
 *
 * A weight is one piece of memory with all its tables, so that tables of
 * other makers can be kept, too.
 *
 * src/common/quant/nf4.h
 */
#ifndef LLM_NF4_H
#define LLM_NF4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LLM_NF4_BLOCK 64
#define LLM_NF4_NESTED_BLOCK 256

/* The parts of a weight of n elements in n_blocks. */
typedef struct LlmNf4
{
	float *codes;		  /* [16] */
	float *map;			  /* [256] */
	float *offset;		  /* [1] */
	float *scales;		  /* [n_blocks], or nested one for each 256 of them */
	uint8_t *scale_codes; /* [n_blocks] entries of map; NULL: not nested */
	uint8_t *values;	  /* [(n + 1) / 2] the first of two in the high half */
} LlmNf4;

extern int64_t llm_nf4_n_blocks(int64_t n);
extern size_t llm_nf4_bytes(int64_t n, bool is_nested);

/* The parts of a weight that begins at data, which is aligned to 64 bytes. */
extern LlmNf4 llm_nf4_at(const void *data, int64_t n, bool is_nested);

/*
 * The values of n elements that begin a block, and the magnitudes of their
 * blocks.  What is not finite spoils its block, as it spoils a product.
 */
extern void
llm_nf4_encode(const float *src, int64_t n, uint8_t *values, float *magnitudes);

/* Fill in the tables, and what becomes of all blocks' magnitudes. */
extern void
llm_nf4_finish(const LlmNf4 *weight, const float *magnitudes, int64_t n_blocks);

/*
 * A weight as bitsandbytes' checkpoints store it: parts that lie anywhere in
 * a file, and need not be aligned.
 */
typedef struct LlmNf4Stored
{
	const void *codes;		 /* F32 [16] */
	const void *scales;		 /* F32, as many as LlmNf4's */
	const void *scale_codes; /* U8 [n_blocks]; NULL: not nested */
	const void *map;		 /* F32 [256] of nested ones */
	float offset;			 /* likewise */
	const void *values;		 /* U8 [(n + 1) / 2] */
} LlmNf4Stored;

/* Elements first .. first + n - 1, to the bit what bitsandbytes decodes. */
extern void llm_nf4_stored_decode(const LlmNf4Stored *stored, int64_t first,
								  int64_t n, float *out);

/*
 * Elements first .. first + n - 1 as a weight by themselves, which is nested
 * where the stored one is.  False: no block, or no group of blocks with the
 * same scale, begins at the first.
 */
extern bool llm_nf4_stored_copy(const LlmNf4Stored *stored, int64_t first,
								int64_t n, const LlmNf4 *weight);

#endif /* LLM_NF4_H */
