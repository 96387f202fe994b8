/*
 * gguf_pre.h
 *	  How byte-level tokenizers of GGUF files split a text, by name.
 *
 * src/common/gguf/gguf_pre.h
 */
#ifndef LLM_GGUF_PRE_H
#define LLM_GGUF_PRE_H

#include "src/common/gguf/gguf.h"

typedef struct GgufPre
{
	const char *name;
	const char *expression; /* NULL: that of GPT-2, which ByteLevel knows */
	bool splits_digits;		/* first, each alone */
	bool has_nfc;			/* the text is normalized */
	bool ignores_merges;	/* a word that is in the vocabulary is a token */
	bool adds_bos;			/* where the file does not say */
} GgufPre;

/* By "tokenizer.ggml.pre".  NULL: unknown, or the file does not say. */
extern const GgufPre *gguf_pre_find(const LlmGguf *gguf, LlmError *err);

/* Append the member "pre_tokenizer". */
extern void gguf_pre_write(const GgufPre *pre, LlmStrbuf *json);

#endif /* LLM_GGUF_PRE_H */
