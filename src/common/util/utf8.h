/*
 * utf8.h
 *	  One UTF-8 character at a time.
 *
 * src/common/util/utf8.h
 */
#ifndef LLM_UTF8_H
#define LLM_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Bytes of the valid character that starts at text (1 to 4), or 0 where the
 * bytes are no valid UTF-8 (overlong, surrogate, beyond U+10FFFF, cut off).
 * len must be at least 1.
 */
extern int llm_utf8_decode(const char *text, size_t len, uint32_t *codepoint);

/* Write a character; returns its bytes (1 to 4).  dest has room for 4. */
extern int llm_utf8_encode(uint32_t codepoint, char *dest);

extern bool llm_utf8_is_valid(const char *text, size_t len);

/* Bytes of the ASCII that a text begins with. */
extern size_t llm_utf8_ascii_bytes(const char *text, size_t len);

/* Characters of a valid text. */
extern size_t llm_utf8_count(const char *text, size_t len);

/*
 * Length of the longest prefix that does not end within a character: what a
 * stream may emit now.  Bytes that can never become valid count as complete.
 */
extern size_t llm_utf8_complete_prefix(const char *text, size_t len);

#endif /* LLM_UTF8_H */
