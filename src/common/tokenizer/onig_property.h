/*
 * onig_property.h
 *	  Character properties of Oniguruma, spelled for PCRE2.
 *
 * src/common/tokenizer/onig_property.h
 */
#ifndef LLM_ONIG_PROPERTY_H
#define LLM_ONIG_PROPERTY_H

#include <stdbool.h>

/* members of a class, without its brackets */
#define CLASS_SPACE                                              \
	"\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}" \
	"\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define CLASS_NOT_SPACE                                                   \
	"\\x00-\\x08\\x0E-\\x1F\\x21-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}" \
	"\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}"           \
	"\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{D7FF}\\x{E000}-" \
	"\\x{10FFFF}"
#define CLASS_WORD                                         \
	"\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}" \
	"\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"
/* outside a class, \w and \b also take superscript digits and fractions */
#define CLASS_LONE_WORD CLASS_WORD "\\xB2\\xB3\\xB9\\xBC-\\xBE"
#define CLASS_HEX "0-9A-Fa-f"
#define CLASS_NOT_HEX "\\x00-\\x2F:-@G-`g-\\x{10FFFF}"

/*
 * The members of a character class that a property is in PCRE2's syntax.  The
 * name is in lower case, without separators.  *is_known is false for a name
 * that is no category and no POSIX class (a script, perhaps); NULL for a known
 * one: its negation cannot be written as members of a class.
 */
extern const char *
llm_onig_property_members(const char *name, bool negated, bool *is_known);

#endif /* LLM_ONIG_PROPERTY_H */
