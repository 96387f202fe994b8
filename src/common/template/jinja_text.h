/*
 * jinja_text.h
 *	  Characters and texts as Python's str sees them.
 *
 * src/common/template/jinja_text.h
 */
#ifndef LLM_JINJA_TEXT_H
#define LLM_JINJA_TEXT_H

#include "src/common/template/jinja_value.h"

/* str.isspace(), also what \s matches. */
extern bool llm_jinja_is_space(uint32_t codepoint);

/* Where str.splitlines() cuts. */
extern bool llm_jinja_is_line_break(uint32_t codepoint);

extern bool llm_jinja_is_printable(uint32_t codepoint);
extern bool llm_jinja_is_decimal(uint32_t codepoint);
extern bool llm_jinja_is_digit(uint32_t codepoint);
extern bool llm_jinja_is_numeric(uint32_t codepoint);
extern bool llm_jinja_is_alpha(uint32_t codepoint);

/* \w of regular expressions. */
extern bool llm_jinja_is_word(uint32_t codepoint);

/* What a template's lexer takes for a name, before it looks closer. */
extern bool llm_jinja_is_name_char(uint32_t codepoint);
extern bool llm_jinja_is_identifier(const char *text, size_t len);

extern bool llm_jinja_is_upper_char(uint32_t codepoint);
extern bool llm_jinja_is_lower_char(uint32_t codepoint);
extern bool llm_jinja_is_title_char(uint32_t codepoint);

typedef enum LlmJinjaCase
{
	LLM_JINJA_UPPER,
	LLM_JINJA_LOWER,
	LLM_JINJA_TITLE,	  /* str.title() */
	LLM_JINJA_CAPITALIZE, /* str.capitalize() */
	LLM_JINJA_SWAP,
	LLM_JINJA_FOLD
} LlmJinjaCase;

/* The full mappings, with the characters that become two or three. */
extern void llm_jinja_map_case(const char *text, size_t len, LlmJinjaCase mode,
							   LlmStrbuf *buf);

/* The character at a byte position; *n_bytes is its length. */
extern uint32_t
llm_jinja_char_at(const char *text, size_t len, size_t at, int *n_bytes);

/* Byte position where the last character before "end" starts. */
extern size_t llm_jinja_char_before(const char *text, size_t end);

/* Byte position of the character with a number, at most n_chars. */
extern size_t
llm_jinja_char_offset(const LlmJinjaString *string, size_t char_idx);

typedef enum LlmJinjaSides
{
	LLM_JINJA_LEFT = 1,
	LLM_JINJA_RIGHT = 2,
	LLM_JINJA_BOTH = 3
} LlmJinjaSides;

/* Shrink a run of bytes by the characters to strip; chars NULL: whitespace. */
extern void
llm_jinja_strip_text(const char **text, size_t *len, LlmJinjaSides sides,
					 const LlmJinjaString *chars);

#endif /* LLM_JINJA_TEXT_H */
