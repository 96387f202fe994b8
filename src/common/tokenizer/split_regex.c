/*
 * split_regex.c
 *	  Compiling and running translated expressions with PCRE2.
 *
 * Matching may not run away: PCRE2's match and heap limits and a bounded JIT
 * stack turn a pathological expression into LLM_ERROR_LIMIT.  The text is
 * known to be valid UTF-8 (the encoder repaired it), so PCRE2's own check of
 * every subject is switched off.
 *
 * src/common/tokenizer/split_regex.c
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "src/common/tokenizer/split_regex.h"

#include <assert.h>
#include <pcre2.h>
#include <stdlib.h>

#include "src/common/tokenizer/unicode_class.h"

#define JIT_STACK_START_BYTES (32 * 1024)
#define JIT_STACK_MAX_BYTES (1024 * 1024)
#define MATCH_LIMIT 50000000
#define HEAP_LIMIT_KIB (64 * 1024)

struct LlmSplitRegex
{
	pcre2_code *code;
	pcre2_match_data *match;
	pcre2_match_context *context;
	pcre2_jit_stack *jit_stack;
	bool has_jit;
};

void
llm_split_regex_free(LlmSplitRegex *regex)
{
	if (regex == NULL)
		return;
	pcre2_match_data_free(regex->match);
	pcre2_match_context_free(regex->context);
	pcre2_jit_stack_free(regex->jit_stack);
	pcre2_code_free(regex->code);
	free(regex);
}

static pcre2_code *
compile_code(const char *pattern, size_t len, LlmError *err)
{
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	pcre2_code *code;
	int error_code;
	PCRE2_SIZE error_off;
	PCRE2_UCHAR message[160];

	if (context == NULL)
	{
		llm_error_no_memory(err, len, "a split expression");
		return NULL;
	}
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	pcre2_set_bsr(context, PCRE2_BSR_UNICODE);
	code = pcre2_compile((PCRE2_SPTR) pattern, len,
						 PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE |
							 PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE,
						 &error_code, &error_off, context);
	pcre2_compile_context_free(context);
	if (code == NULL)
	{
		if (pcre2_get_error_message(error_code, message, sizeof(message)) < 0)
			message[0] = '\0';
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "the expression \"%.*s\" cannot be compiled: %s",
					  (int) (len > 300 ? 300 : len), pattern,
					  (const char *) message);
	}
	return code;
}

LlmSplitRegex *
llm_split_regex_create(const char *pattern, size_t len, LlmError *err)
{
	LlmSplitRegex *regex = calloc(1, sizeof(*regex));

	if (regex == NULL)
	{
		llm_error_no_memory(err, sizeof(*regex), "a split expression");
		return NULL;
	}
	regex->code = compile_code(pattern, len, err);
	if (regex->code == NULL)
	{
		llm_split_regex_free(regex);
		return NULL;
	}
	regex->match = pcre2_match_data_create(1, NULL);
	regex->context = pcre2_match_context_create(NULL);
	if (regex->match == NULL || regex->context == NULL)
	{
		llm_error_no_memory(err, JIT_STACK_START_BYTES, "a split expression");
		llm_split_regex_free(regex);
		return NULL;
	}
	pcre2_set_match_limit(regex->context, MATCH_LIMIT);
	pcre2_set_heap_limit(regex->context, HEAP_LIMIT_KIB);
	/* without JIT (not built in, or no executable memory) it is only slower */
	if (pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0)
	{
		regex->jit_stack = pcre2_jit_stack_create(JIT_STACK_START_BYTES,
												  JIT_STACK_MAX_BYTES, NULL);
		if (regex->jit_stack != NULL)
			pcre2_jit_stack_assign(regex->context, NULL, regex->jit_stack);
		regex->has_jit = true;
	}
	return regex;
}

static bool
match_failed(int rc, LlmError *err)
{
	PCRE2_UCHAR message[160];

	if (pcre2_get_error_message(rc, message, sizeof(message)) < 0)
		message[0] = '\0';
	return llm_error_set(err, LLM_ERROR_LIMIT,
						 "a split expression of the tokenizer gave up: %s",
						 (const char *) message);
}

/* The first match at or after from.  rc as PCRE2's. */
static int
search(LlmSplitRegex *regex, const LlmRegexScan *scan, size_t from)
{
	/*
	 * The documentation forbids the JIT entry only for texts and options
	 * that pcre2_match would have had to check first.
	 */
	if (regex->has_jit)
		return pcre2_jit_match(regex->code, (PCRE2_SPTR) scan->text, scan->len,
							   from, PCRE2_NO_UTF_CHECK, regex->match,
							   regex->context);
	return pcre2_match(regex->code, (PCRE2_SPTR) scan->text, scan->len, from,
					   PCRE2_NO_UTF_CHECK, regex->match, regex->context);
}

bool
llm_split_regex_next(LlmSplitRegex *regex, LlmRegexScan *scan, bool *found,
					 size_t *start, size_t *end, LlmError *err)
{
	assert(regex->code != NULL && scan->text != NULL);
	*found = false;
	while (scan->pos <= scan->len)
	{
		const PCRE2_SIZE *at;
		int rc = search(regex, scan, scan->pos);

		if (rc == PCRE2_ERROR_NOMATCH)
		{
			scan->pos = scan->len + 1;
			return true;
		}
		if (rc < 0)
			return match_failed(rc, err);
		at = pcre2_get_ovector_pointer(regex->match);
		/* a reset start (\K) is never translated; distrust it all the same */
		if (at[0] > at[1] || at[1] > scan->len || at[0] < scan->pos)
			return match_failed(PCRE2_ERROR_INTERNAL, err);
		if (at[0] == at[1] && at[1] == scan->last_match_end)
		{
			uint32_t cp;

			scan->pos +=
				scan->pos < scan->len
					? (size_t) llm_unicode_next(scan->text + scan->pos,
												scan->len - scan->pos, &cp)
					: 1;
			continue;
		}
		*start = at[0];
		*end = at[1];
		scan->pos = at[1];
		scan->last_match_end = at[1];
		*found = true;
		return true;
	}
	return true;
}
