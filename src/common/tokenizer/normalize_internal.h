/*
 * normalize_internal.h
 *	  What the normalizers' files share: a step at work.
 *
 * src/common/tokenizer/normalize_internal.h
 */
#ifndef LLM_NORMALIZE_INTERNAL_H
#define LLM_NORMALIZE_INTERNAL_H

#include "src/common/tokenizer/tokenizer_internal.h"

/* A step at work. */
typedef struct LlmNormalizerRun
{
	LlmNormalizer *normalizer;
	size_t step_idx;
	LlmPiece in;
	bool starts_text;
	LlmStrbuf *out;
	size_t origin_len; /* of what was written so far */
	bool unchanged;	   /* the step passes its input on */
} LlmNormalizerRun;

/* Write text that stems from the input's byte in_off. */
extern void llm_normalizer_write(LlmNormalizerRun *run, const char *text,
								 size_t len, size_t in_off);
extern void llm_normalizer_write_codepoint(LlmNormalizerRun *run, uint32_t cp,
										   size_t in_off);

/* Write a run of the input as it is. */
extern void
llm_normalizer_copy(LlmNormalizerRun *run, size_t start, size_t end);

/* One unit of work was done.  False: stop. */
extern bool llm_normalizer_tick(LlmNormalizerRun *run, LlmError *err);

/* The steps that have a file of their own. */
extern bool llm_normalizer_form(LlmNormalizerRun *run, LlmError *err);
extern bool llm_normalizer_charsmap(LlmNormalizerRun *run, LlmError *err);

#endif /* LLM_NORMALIZE_INTERNAL_H */
