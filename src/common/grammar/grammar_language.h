/*
 * grammar_language.h
 *	  Regular languages: all of several patterns, none of others, so long.
 *
 * A language is a deterministic automaton over characters: patterns that apply
 * together are a product, a pattern that must not match is a complement, a
 * length is a counter.  Texts have neither U+0000 nor surrogates.
 *
 * src/common/grammar/grammar_language.h
 */
#ifndef LLM_GRAMMAR_LANGUAGE_H
#define LLM_GRAMMAR_LANGUAGE_H

#include "src/common/grammar/grammar_pattern.h"

/* Patterns that limit one text. */
#define LLM_LANGUAGE_MAX_TERMS 64

typedef struct LlmLanguageTerm
{
	LlmPattern *pattern; /* without rules, its texts without encoding */
	bool negated;		 /* what matches is not in the language */
} LlmLanguageTerm;

/* What a text must be; all terms are about the whole text. */
typedef struct LlmLanguageTerms
{
	LlmLanguageTerm items[LLM_LANGUAGE_MAX_TERMS];
	size_t n_items;
	uint32_t min; /* characters */
	uint32_t max; /* LLM_GRAMMAR_UNBOUNDED: no limit */
} LlmLanguageTerms;

typedef struct LlmLanguage LlmLanguage;

/*
 * The language of the terms; NULL, with LLM_ERROR_LIMIT that begins with
 * "where", if its automaton is too large.
 */
extern const LlmLanguage *
llm_language_create(LlmGrammarBuilder *b, const LlmLanguageTerms *terms,
					const char *where);
extern bool llm_language_is_empty(const LlmLanguage *language);
extern bool llm_language_contains(const LlmLanguage *language, const char *text,
								  size_t len);

/* The node that reads a text of it and goes on at next. */
extern LlmGrammarNodeId
llm_language_build(LlmGrammarBuilder *b, const LlmLanguage *language,
				   LlmGrammarEncoding encoding, LlmGrammarNodeId next);

#endif /* LLM_GRAMMAR_LANGUAGE_H */
