/*
 * unicode_class.h
 *	  The character classes that tokenizer components speak of, and the
 *	  byte-level alphabet.
 *
 * Categories come from utf8proc, so a character that its Unicode version does
 * not know yet belongs to no class.
 *
 * src/common/tokenizer/unicode_class.h
 */
#ifndef LLM_UNICODE_CLASS_H
#define LLM_UNICODE_CLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/common/util/strbuf.h"
#include "src/common/util/utf8.h"

/* The property White_Space. */
extern bool llm_unicode_is_whitespace(uint32_t cp);

/* General category N*. */
extern bool llm_unicode_is_numeric(uint32_t cp);

/*
 * The next four are the reference's, which knows fewer characters than
 * utf8proc does.  General categories Cc, Cf, Co:
 */
extern bool llm_unicode_is_control(uint32_t cp);

/* General category Mn. */
extern bool llm_unicode_is_nonspacing(uint32_t cp);

/* General category M*, as StripAccents has it. */
extern bool llm_unicode_is_accent(uint32_t cp);

/* General category P*, or ASCII punctuation (which includes $+<=>^`|~). */
extern bool llm_unicode_is_punctuation(uint32_t cp);

/* General category M*. */
extern bool llm_unicode_is_mark(uint32_t cp);

/* What \w matches: letters, marks, decimal digits, connectors, joiners. */
extern bool llm_unicode_is_word(uint32_t cp);

/* Lower case; at most two characters.  Returns their number. */
extern int llm_unicode_lowercase(uint32_t cp, uint32_t lower[2]);

/*
 * The byte-level alphabet: a printable character for every byte, itself where
 * it is printable Latin-1, else one from U+0100 on.
 */
extern uint32_t llm_byte_level_encode(unsigned char byte);

/* The byte of a character of the alphabet, or -1. */
extern int llm_byte_level_decode(uint32_t cp);

/*
 * Append text, with U+FFFD for every maximal part of a character that is no
 * UTF-8.  Returns the bytes consumed: unless is_end, a character that is cut
 * off by the end of the text is left for later.
 */
extern size_t llm_unicode_append_lossy(LlmStrbuf *out, const char *text,
									   size_t len, bool is_end);

/*
 * As llm_utf8_decode, but a byte that starts no valid character counts as one
 * character of its own (U+FFFD): for loops that must always advance.
 */
static inline int
llm_unicode_next(const char *text, size_t len, uint32_t *cp)
{
	int n;

	if ((unsigned char) text[0] < 0x80)
	{
		*cp = (unsigned char) text[0];
		return 1;
	}
	n = llm_utf8_decode(text, len, cp);
	if (n == 0)
	{
		*cp = 0xFFFD;
		return 1;
	}
	return n;
}

#endif /* LLM_UNICODE_CLASS_H */
