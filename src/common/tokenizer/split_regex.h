/*
 * split_regex.h
 *	  The regular expressions of tokenizer components, run by PCRE2.
 *
 * A tokenizer.json is written for Oniguruma with Ruby's syntax.  Where PCRE2
 * reads the same characters differently (\s, \w, \h, \v, {n,m}+, scripts, ...)
 * the expression is rewritten, once, when the tokenizer is compiled; what has
 * no exact counterpart is refused.
 *
 * src/common/tokenizer/split_regex.h
 */
#ifndef LLM_SPLIT_REGEX_H
#define LLM_SPLIT_REGEX_H

#include <stddef.h>

#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

typedef struct LlmSplitRegex LlmSplitRegex;

/*
 * Rewrite an expression from Oniguruma's syntax to PCRE2's (appended to
 * *out).  LLM_ERROR_UNSUPPORTED names what cannot be expressed.
 */
extern bool llm_split_regex_translate(const char *pattern, size_t len,
									  LlmStrbuf *out, LlmError *err);

/* Compile a translated expression, with JIT where the library has one. */
extern LlmSplitRegex *
llm_split_regex_create(const char *pattern, size_t len, LlmError *err);
extern void llm_split_regex_free(LlmSplitRegex *regex);

/* Walks the matches of a text as the reference's iterator does. */
typedef struct LlmRegexScan
{
	const char *text; /* valid UTF-8 */
	size_t len;
	size_t pos;
	size_t last_match_end; /* SIZE_MAX before the first match */
} LlmRegexScan;

static inline LlmRegexScan
llm_regex_scan(const char *text, size_t len)
{
	return (LlmRegexScan){ text, len, 0, SIZE_MAX };
}

/*
 * Find the next match.  Sets *found; an empty match right behind the previous
 * one is passed over.  False: the expression gave up (LLM_ERROR_LIMIT).
 */
extern bool
llm_split_regex_next(LlmSplitRegex *regex, LlmRegexScan *scan, bool *found,
					 size_t *start, size_t *end, LlmError *err);

#endif /* LLM_SPLIT_REGEX_H */
