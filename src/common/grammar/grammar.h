/*
 * grammar.h
 *	  Grammar-constrained decoding: JSON Schema, regular expressions, choices
 *	  and GBNF grammars as masks over a vocabulary.
 *
 * A source is compiled to a program: 32-bit words without pointers, which
 * travel in a message and are checked where they are opened.  A grammar is a
 * program opened over a vocabulary, with what was computed for it so far; a
 * matcher is the place of one sequence in it.  A grammar and its matchers are
 * used by one thread at a time; a vocabulary is immutable and shared.
 *
 * README.md says what each source supports, and how an executor uses this.
 *
 * src/common/grammar/grammar.h
 */
#ifndef LLM_GRAMMAR_H
#define LLM_GRAMMAR_H

#include "src/common/tokenizer/tokenizer.h"
#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

typedef struct LlmGrammarVocab LlmGrammarVocab;
typedef struct LlmGrammar LlmGrammar;
typedef struct LlmGrammarMatcher LlmGrammarMatcher;

#define LLM_GRAMMAR_MAX_SOURCE_BYTES (1u << 20)
#define LLM_GRAMMAR_MAX_WORDS (1u << 18)

/* Calls within calls; a text that nests deeper is not in the language. */
#define LLM_GRAMMAR_MAX_DEPTH 256

/* Tokens that llm_grammar_matcher_rollback can take back. */
#define LLM_GRAMMAR_MAX_ROLLBACK 64

/* Longer tokens are never allowed. */
#define LLM_GRAMMAR_MAX_TOKEN_BYTES 255

/*
 * Compile a source; the words are appended to *program (empty before, so that
 * they are aligned).  What a source asks and the room cannot do is
 * LLM_ERROR_UNSUPPORTED naming the keyword and where it stands (a JSON pointer
 * or a byte offset), a malformed source LLM_ERROR_FORMAT, one that is too
 * large LLM_ERROR_LIMIT, one that no text satisfies LLM_ERROR_INVALID.
 */
extern bool llm_grammar_compile_json_schema(const char *schema, size_t len,
											LlmStrbuf *program, LlmError *err);

/* Any JSON object. */
extern bool llm_grammar_compile_json_object(LlmStrbuf *program, LlmError *err);

/* The whole text must match. */
extern bool llm_grammar_compile_regex(const char *regex, size_t len,
									  LlmStrbuf *program, LlmError *err);

/* One of n_choices texts, none empty. */
extern bool
llm_grammar_compile_choice(const char *const *choices, size_t n_choices,
						   LlmStrbuf *program, LlmError *err);

/* llama.cpp's grammar format; the start is the rule "root". */
extern bool llm_grammar_compile_gbnf(const char *grammar, size_t len,
									 LlmStrbuf *program, LlmError *err);

/* SHA-256 of a program: equal programs may share a grammar. */
extern void
llm_grammar_hash(const void *program, size_t n_bytes, uint8_t digest[32]);

typedef struct LlmGrammarToken
{
	const char *bytes; /* what the token adds to a text */
	size_t len;		   /* 0: never allowed (special, unused) */
} LlmGrammarToken;

/*
 * A vocabulary of n_vocab tokens (the width of the logits).  end_ids end an
 * answer: they are allowed exactly where the grammar may end, whatever their
 * bytes.  Nothing is borrowed.
 */
extern LlmGrammarVocab *
llm_grammar_vocab_create(const LlmGrammarToken *tokens, int32_t n_vocab,
						 const int32_t *end_ids, size_t n_end_ids,
						 LlmError *err);

/* The same with a tokenizer's tokens; ids beyond its own are never allowed. */
extern LlmGrammarVocab *
llm_grammar_vocab_from_tokenizer(LlmTokenizer *tokenizer, int32_t n_vocab,
								 const int32_t *end_ids, size_t n_end_ids,
								 LlmError *err);
extern void llm_grammar_vocab_free(LlmGrammarVocab *vocab);

/* Words of a mask over the vocabulary: (n_vocab + 31) / 32. */
extern size_t llm_grammar_vocab_n_mask_words(const LlmGrammarVocab *vocab);

/*
 * Check a program and open it; the words are copied, the vocabulary is
 * borrowed.  What is computed on the way is kept in about cache_bytes (at
 * least 1 MiB is taken); everything forgotten is computed again when needed.
 */
extern LlmGrammar *llm_grammar_open(const uint32_t *words, size_t n_words,
									const LlmGrammarVocab *vocab,
									size_t cache_bytes, LlmError *err);

/* All its matchers must be gone. */
extern void llm_grammar_close(LlmGrammar *grammar);
extern size_t llm_grammar_used_bytes(const LlmGrammar *grammar);

/* A matcher stands at the start of an answer. */
extern LlmGrammarMatcher *
llm_grammar_matcher_create(LlmGrammar *grammar, LlmError *err);
extern void llm_grammar_matcher_reset(LlmGrammarMatcher *matcher);

/* dest and src are matchers of one grammar; rollback history included. */
extern void
llm_grammar_matcher_copy(LlmGrammarMatcher *dest, const LlmGrammarMatcher *src);
extern void llm_grammar_matcher_free(LlmGrammarMatcher *matcher);

/*
 * Move on by a token.  An end id ends the answer: nothing is allowed behind
 * it.  false, and the matcher stays where it was: LLM_ERROR_INVALID when the
 * grammar does not allow it, LLM_ERROR_LIMIT or LLM_ERROR_NO_MEMORY when the
 * next place could not be computed.
 */
extern bool llm_grammar_matcher_accept(LlmGrammarMatcher *matcher,
									   int32_t token_id, LlmError *err);

/* The same with bytes; all of them or none.  Counts as one token. */
extern bool
llm_grammar_matcher_accept_bytes(LlmGrammarMatcher *matcher, const char *bytes,
								 size_t len, LlmError *err);

/* Take back the last n_tokens; false if it does not remember so many. */
extern bool
llm_grammar_matcher_rollback(LlmGrammarMatcher *matcher, size_t n_tokens);

/* Was an end id accepted? */
extern bool llm_grammar_matcher_has_ended(const LlmGrammarMatcher *matcher);

/* Is the text so far an answer?  Is it one that nothing can follow? */
extern bool llm_grammar_matcher_may_end(const LlmGrammarMatcher *matcher);
extern bool llm_grammar_matcher_must_end(const LlmGrammarMatcher *matcher);

/*
 * Set bit (id % 32) of word (id / 32) for every token allowed next, and clear
 * all others.  False: as for accept, and LLM_ERROR_INVALID when no token of
 * the vocabulary continues the text (its tokens do not cover every byte).
 */
extern bool llm_grammar_matcher_fill_mask(LlmGrammarMatcher *matcher,
										  uint32_t *mask, LlmError *err);

/*
 * Append the bytes that must follow whatever is sampled, at most max_bytes;
 * none where there is a choice, ending the answer included.  The matcher
 * stays where it is.
 */
extern bool
llm_grammar_matcher_forced_bytes(LlmGrammarMatcher *matcher, size_t max_bytes,
								 LlmStrbuf *out, LlmError *err);

#endif /* LLM_GRAMMAR_H */
