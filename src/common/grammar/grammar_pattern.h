/*
 * grammar_pattern.h
 *	  What a regular expression and a GBNF rule are made of.
 *
 * src/common/grammar/grammar_pattern.h
 */
#ifndef LLM_GRAMMAR_PATTERN_H
#define LLM_GRAMMAR_PATTERN_H

#include "src/common/grammar/grammar_build.h"

/* Groups within groups, in the text of a pattern. */
#define LLM_PATTERN_MAX_DEPTH 200

typedef enum LlmPatternKind
{
	LLM_PATTERN_EMPTY,
	LLM_PATTERN_SET,  /* one character */
	LLM_PATTERN_TEXT, /* bytes as they are */
	LLM_PATTERN_SEQUENCE,
	LLM_PATTERN_CHOICE,
	LLM_PATTERN_REPEAT,
	LLM_PATTERN_RULE,
	LLM_PATTERN_BOTH /* its parts match the whole text, or do not (negated) */
} LlmPatternKind;

typedef struct LlmPattern LlmPattern;

/* A named pattern; what follows "pattern" belongs to grammar_pattern.c. */
typedef struct LlmPatternRule
{
	const char *name;
	size_t name_len;
	LlmPattern *pattern; /* NULL: named, not defined */
	LlmGrammarNodeId entry;
	uint32_t size; /* of its pattern, with what it is made of */
	bool nullable;
	uint8_t visit;
} LlmPatternRule;

struct LlmPattern
{
	LlmPatternKind kind;
	LlmGrammarSet set;
	uint32_t set_idx; /* grammar_language.c's number of it */
	const char *text;
	size_t text_len;
	LlmPattern **parts; /* of sequence and choice; parts[0] of repeat */
	size_t n_parts;
	size_t part_capacity;
	uint32_t min;
	uint32_t max;
	LlmPatternRule *rule;
	bool negated; /* as a part of BOTH */
};

/* NULL: failed, as the builder says. */
extern LlmPattern *
llm_pattern_create(LlmGrammarBuilder *b, LlmPatternKind kind);
extern void
llm_pattern_add(LlmGrammarBuilder *b, LlmPattern *pattern, LlmPattern *part);
extern LlmPattern *
llm_pattern_create_repeat(LlmGrammarBuilder *b, LlmPattern *part, uint32_t min,
						  uint32_t max);

/* The node that reads a pattern (not BOTH) and goes on at next. */
extern LlmGrammarNodeId
llm_pattern_build(LlmGrammarBuilder *b, const LlmPattern *pattern,
				  LlmGrammarEncoding encoding, LlmGrammarNodeId next);

/* A text as it is, a character for each of its sets. */
extern LlmPattern *
llm_pattern_create_literal(LlmGrammarBuilder *b, const char *text, size_t len);

/*
 * Keep, of what a pattern of sets matches, the texts of min to max characters,
 * by the bounds of its repetitions.  false: bounds cannot say it, and some
 * other texts are left.
 */
extern bool
llm_pattern_fit_length(LlmPattern *pattern, uint32_t min, uint32_t max);

/* Check rules and make them ready for llm_pattern_build. */
extern bool llm_pattern_prepare_rules(LlmGrammarBuilder *b,
									  LlmPatternRule **rules, size_t n_rules);

/*
 * Parse a regular expression.  "where" names it in messages.  is_search: it
 * may match anywhere in a text, unless ^ and $ say otherwise; if not, it is
 * the whole text.  With look-ahead it is BOTH, which only grammar_language.c
 * can build.  The text is borrowed until it is built.
 */
extern LlmPattern *
llm_pattern_parse_regex(LlmGrammarBuilder *b, const char *text, size_t len,
						bool is_search, const char *where);

/* Add the class of \d, \w, \s, \D, \W or \S; false for another letter. */
extern bool
llm_pattern_add_class(LlmGrammarBuilder *b, LlmGrammarSet *set, char letter);

/* Add a Unicode general category ("L", "Lu", "Letter"); false: unknown. */
extern bool llm_pattern_add_category(LlmGrammarBuilder *b, LlmGrammarSet *set,
									 const char *name, size_t len);

#endif /* LLM_GRAMMAR_PATTERN_H */
