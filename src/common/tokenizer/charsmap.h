/*
 * charsmap.h
 *	  SentencePiece's precompiled replacements of characters.
 *
 * A charsmap is the length of a trie in bytes, the trie, and a run of texts
 * that each end with a NUL.  The trie is a double array of 32-bit units
 * (https://github.com/s-yata/darts-clone): bytes 0-7 of a unit are its label,
 * bit 8 tells that a text is found here, bits 9-30 are the offset to its
 * children; the value of a leaf is an offset into the texts.
 *
 * src/common/tokenizer/charsmap.h
 */
#ifndef LLM_CHARSMAP_H
#define LLM_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>

#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

/* The parts; borrowed, of any alignment. */
typedef struct LlmCharsmap
{
	const char *trie;
	size_t n_trie_bytes;
	const char *texts;
	size_t n_text_bytes;
} LlmCharsmap;

/* Decode base64, as tokenizer.json has it, and find the parts in *bytes. */
extern bool llm_charsmap_decode(const char *base64, LlmStrbuf *bytes,
								LlmCharsmap *map, LlmError *err);

/*
 * What stands for a text: the replacement of the shortest key that the text
 * starts with (sic: the reference replaces all of the text by it).  False:
 * nothing does.  The replacement is valid UTF-8.
 */
extern bool
llm_charsmap_find(const LlmCharsmap *map, const char *text, size_t len,
				  const char **replacement, size_t *replacement_len);

#endif /* LLM_CHARSMAP_H */
