/*
 * grammar_rig.h
 *	  A small vocabulary, languages checked text by text and masks token by
 *	  token: what the tests of src/common/grammar share.
 *
 * test/unit/grammar_rig.h
 */
#ifndef LLM_GRAMMAR_RIG_H
#define LLM_GRAMMAR_RIG_H

#include "src/common/grammar/grammar.h"
#include "src/common/util/philox.h"
#include "test/unit/unit_test.h"

typedef bool (*Compile)(const char *text, size_t len, LlmStrbuf *program,
						LlmError *err);

static LlmError err;

/* -- a small vocabulary: every byte, some words, pieces of characters -- */

#define END_ID 256
static const char *const words[] = {
	"{\"",	"\":",		"\": ",		"\", \"", "\"}",	  "}}",		  "]}",
	"},",	"[{",		"true",		"false",  "null",	  "1",		  "12",
	"123",	"0.",		"name",		"age",	  "a",		  "ab",		  "abc",
	"abc",	" ",		"  ",		"\\u",	  "\\\"",	  "00",		  "\xC3",
	"\xA9", "\xC3\xA9", "\xE2\x82", "\xAC\"", "\xF0\x9F", "\x98\x80", "]]]]",
	"[[[[", "\",",		"-1",		"e+",	  "2024-",	  "-02-",	  "yes",
	"no",	"maybe",	"yes, no",	"T",	  "Z\"",
};
#define N_WORDS ((int32_t) (sizeof(words) / sizeof(words[0])))
#define N_VOCAB (257 + N_WORDS + 3)

static LlmGrammarVocab *vocab;

static inline LlmGrammarToken
token_of(int32_t id)
{
	static char bytes[256];

	if (id < 256)
	{
		bytes[id] = (char) id;
		return (LlmGrammarToken){ &bytes[id], 1 };
	}
	if (id == END_ID || id >= 257 + N_WORDS)
		return (LlmGrammarToken){ "</s>", id == END_ID ? 4 : 0 };
	return (LlmGrammarToken){ words[id - 257], strlen(words[id - 257]) };
}

static inline void
make_vocab(void)
{
	LlmGrammarToken tokens[N_VOCAB];
	int32_t end_id = END_ID;

	for (int32_t i = 0; i < N_VOCAB; i++)
		tokens[i] = token_of(i);
	vocab = llm_grammar_vocab_create(tokens, N_VOCAB, &end_id, 1, &err);
	if (vocab == NULL)
		abort();
}

static inline LlmGrammar *
open_source(Compile compile, const char *text)
{
	LlmStrbuf program = { 0 };
	LlmGrammar *grammar = NULL;

	llm_error_clear(&err);
	if (compile(text, strlen(text), &program, &err))
		grammar = llm_grammar_open((const uint32_t *) program.data,
								   program.len / 4, vocab, 1 << 20, &err);
	llm_strbuf_free(&program);
	return grammar;
}

/* Does the whole text match? */
static inline bool
matches(LlmGrammar *grammar, const char *text)
{
	LlmGrammarMatcher *matcher = llm_grammar_matcher_create(grammar, &err);
	bool ok =
		llm_grammar_matcher_accept_bytes(matcher, text, strlen(text), &err) &&
		llm_grammar_matcher_may_end(matcher);

	llm_grammar_matcher_free(matcher);
	return ok;
}

/* Texts up to NULL: first those in the language, then those that are not. */
static inline void
check_language(Compile compile, const char *source, const char *const *accepted,
			   const char *const *rejected)
{
	LlmGrammar *grammar = open_source(compile, source);

	if (grammar == NULL)
	{
		CHECK_FAIL("%s: %s", source, err.message);
		return;
	}
	for (; *accepted != NULL; accepted++)
	{
		if (!matches(grammar, *accepted))
			CHECK_FAIL("%s does not accept %s", source, *accepted);
	}
	for (; *rejected != NULL; rejected++)
	{
		if (matches(grammar, *rejected))
			CHECK_FAIL("%s accepts %s", source, *rejected);
	}
	llm_grammar_close(grammar);
}

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

static inline void
check_error(Compile compile, const char *source, LlmErrorCode code,
			const char *part)
{
	LlmGrammar *grammar = open_source(compile, source);

	if (grammar != NULL)
		CHECK_FAIL("%s is no error", source);
	else if (err.code != (int32_t) code || strstr(err.message, part) == NULL)
		CHECK_FAIL("%s: error %d \"%s\", expected %d \"%s\"", source, err.code,
				   err.message, code, part);
	llm_grammar_close(grammar);
}

/* -- masks -- */

/* Every token, tried byte by byte. */
static inline void
check_mask(LlmGrammar *grammar, LlmGrammarMatcher *matcher, const char *what)
{
	LlmGrammarMatcher *probe = llm_grammar_matcher_create(grammar, &err);
	uint32_t mask[(N_VOCAB + 31) / 32];

	if (!llm_grammar_matcher_fill_mask(matcher, mask, &err))
	{
		CHECK_FAIL("%s: %s", what, err.message);
		llm_grammar_matcher_free(probe);
		return;
	}
	for (int32_t id = 0; id < N_VOCAB; id++)
	{
		LlmGrammarToken token = token_of(id);
		bool expected = token.len > 0;
		bool actual = mask[id / 32] >> id % 32 & 1;

		llm_grammar_matcher_copy(probe, matcher);
		if (id == END_ID)
			expected = llm_grammar_matcher_may_end(matcher);
		else
		{
			for (size_t i = 0; i < token.len && expected; i++)
				expected = llm_grammar_matcher_accept_bytes(
					probe, token.bytes + i, 1, &err);
		}
		if (actual != expected)
			CHECK_FAIL("%s: token %d (%.*s) is %s", what, id, (int) token.len,
					   token.bytes, actual ? "allowed" : "not allowed");
		llm_grammar_matcher_copy(probe, matcher);
		if (llm_grammar_matcher_accept(probe, id, &err) != actual)
			CHECK_FAIL("%s: mask and accept differ in token %d", what, id);
	}
	llm_grammar_matcher_free(probe);
}

static inline uint32_t
draw(uint64_t seed, uint64_t at, uint32_t n)
{
	return llm_philox(seed, at, 0).word[0] % n;
}

/* A random allowed token; the end only where it is drawn or must come. */
static inline int32_t
draw_token(const uint32_t *mask, uint64_t seed, uint64_t at)
{
	int32_t allowed[N_VOCAB];
	uint32_t n = 0;

	for (int32_t id = 0; id < N_VOCAB; id++)
	{
		if (mask[id / 32] >> id % 32 & 1)
			allowed[n++] = id;
	}
	return n == 0 ? -1 : allowed[draw(seed, at, n)];
}

/* Walk by masks until the end or max_tokens; the text; false: not ended. */
static inline bool
walk(LlmGrammar *grammar, uint64_t seed, int max_tokens, bool check,
	 LlmStrbuf *text)
{
	LlmGrammarMatcher *matcher = llm_grammar_matcher_create(grammar, &err);
	uint32_t mask[(N_VOCAB + 31) / 32];
	bool ended = false;

	for (int i = 0; i < max_tokens && !ended; i++)
	{
		int32_t id;

		if (check)
			check_mask(grammar, matcher, llm_strbuf_str(text));
		if (!llm_grammar_matcher_fill_mask(matcher, mask, &err))
		{
			CHECK_FAIL("%s: %s", llm_strbuf_str(text), err.message);
			break;
		}
		id = draw_token(mask, seed, (uint64_t) i);
		if (!llm_grammar_matcher_accept(matcher, id, &err))
			CHECK_FAIL("%s: %s", llm_strbuf_str(text), err.message);
		ended = id == END_ID;
		if (!ended)
			llm_strbuf_append(text, token_of(id).bytes, token_of(id).len);
	}
	llm_grammar_matcher_free(matcher);
	return ended;
}

static inline void
check_masks(Compile compile, const char *source)
{
	LlmGrammar *grammar = open_source(compile, source);

	if (grammar == NULL)
	{
		CHECK_FAIL("%s: %s", source, err.message);
		return;
	}
	for (uint64_t seed = 0; seed < 6; seed++)
	{
		LlmStrbuf text = { 0 };

		walk(grammar, seed, 30, true, &text);
		llm_strbuf_free(&text);
	}
	llm_grammar_close(grammar);
}

#endif /* LLM_GRAMMAR_RIG_H */
