/*
 * unicode_table.h
 *	  Tables of characters: scripts, and what the reference does not know.
 *
 * src/common/tokenizer/unicode_table.h
 */
#ifndef LLM_UNICODE_TABLE_H
#define LLM_UNICODE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

/* Younger than the categories of BERT's components and of Punctuation. */
extern bool llm_unicode_is_young(uint32_t cp);

/* Younger than the marks of StripAccents. */
extern bool llm_unicode_is_young_accent(uint32_t cp);

/*
 * The script, as a number: Hiragana and Katakana count as Han; spaces and
 * unassigned characters have none.
 */
#define LLM_SCRIPT_NONE 0
extern int llm_unicode_script(uint32_t cp);

#endif /* LLM_UNICODE_TABLE_H */
