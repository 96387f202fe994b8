/*
 * grammar_compile.c
 *	  The sources that need no parser of their own room: regular expressions
 *	  and choices.
 *
 * grammar_schema.c compiles JSON Schema, grammar_gbnf.c GBNF.
 *
 * src/common/grammar/grammar_compile.c
 */
#include <string.h>

#include "src/common/grammar/grammar_language.h"
#include "src/common/util/utf8.h"

static bool
check_source(const char *text, size_t len, const char *what, LlmError *err)
{
	if (len > LLM_GRAMMAR_MAX_SOURCE_BYTES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "%s has %zu bytes, the limit is %u", what, len,
							 LLM_GRAMMAR_MAX_SOURCE_BYTES);
	if (len > 0 && !llm_utf8_is_valid(text, len))
		return llm_error_set(err, LLM_ERROR_FORMAT, "%s is not valid UTF-8",
							 what);
	return true;
}

static LlmGrammarNodeId
build_regex(LlmGrammarBuilder *b, LlmPattern *pattern)
{
	LlmLanguageTerms terms = { .items = { { pattern, false } },
							   .n_items = 1,
							   .max = LLM_GRAMMAR_UNBOUNDED };
	LlmGrammarNodeId end = llm_grammar_build_return(b);
	const LlmLanguage *language;

	if (pattern == NULL || pattern->kind != LLM_PATTERN_BOTH)
		return llm_pattern_build(b, pattern, LLM_GRAMMAR_UTF8, end);
	language = llm_language_create(b, &terms, "regular expression");
	return language == NULL
			   ? 0
			   : llm_language_build(b, language, LLM_GRAMMAR_UTF8, end);
}

bool
llm_grammar_compile_regex(const char *regex, size_t len, LlmStrbuf *program,
						  LlmError *err)
{
	LlmGrammarBuilder *b;
	LlmPattern *pattern;
	bool ok;

	if (!check_source(regex, len, "regular expression", err))
		return false;
	b = llm_grammar_builder_create(err);
	if (b == NULL)
		return false;
	pattern =
		llm_pattern_parse_regex(b, regex, len, false, "regular expression");
	ok = llm_grammar_emit(b, build_regex(b, pattern), program);
	llm_grammar_builder_free(b);
	return ok;
}

static LlmGrammarNodeId
build_choices(LlmGrammarBuilder *b, const char *const *choices, size_t n)
{
	LlmGrammarToken *texts = llm_grammar_alloc(b, (n + 1) * sizeof(*texts));

	if (n == 0)
		return llm_grammar_fail(b, LLM_ERROR_INVALID,
								"a choice needs at least one text");
	for (size_t i = 0; texts != NULL && i < n; i++)
	{
		texts[i] = (LlmGrammarToken){ choices[i], strlen(choices[i]) };
		if (texts[i].len == 0)
			return llm_grammar_fail(b, LLM_ERROR_INVALID, "choice %zu is empty",
									i + 1);
		if (!llm_utf8_is_valid(texts[i].bytes, texts[i].len))
			return llm_grammar_fail(b, LLM_ERROR_FORMAT,
									"choice %zu is not valid UTF-8", i + 1);
	}
	if (texts == NULL)
		return 0;
	return llm_grammar_build_choice(b, texts, n, llm_grammar_build_return(b));
}

bool
llm_grammar_compile_choice(const char *const *choices, size_t n_choices,
						   LlmStrbuf *program, LlmError *err)
{
	LlmGrammarBuilder *b = llm_grammar_builder_create(err);
	bool ok;

	if (b == NULL)
		return false;
	ok = llm_grammar_emit(b, build_choices(b, choices, n_choices), program);
	llm_grammar_builder_free(b);
	return ok;
}
