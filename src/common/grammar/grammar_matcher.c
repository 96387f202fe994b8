/*
 * grammar_matcher.c
 *	  Grammars and matchers: what an executor holds.
 *
 * A matcher is a config's number and a ring of earlier ones.  An end id leads
 * to the dead config with "ended" set; taking it back leads to a live one,
 * so "ended" follows from the config.
 *
 * src/common/grammar/grammar_matcher.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/grammar/grammar_mask.h"

#define MIN_CACHE_BYTES ((size_t) 1 << 20)

LlmGrammar *
llm_grammar_open(const uint32_t *words, size_t n_words,
				 const LlmGrammarVocab *vocab, size_t cache_bytes,
				 LlmError *err)
{
	LlmGrammar *grammar = calloc(1, sizeof(*grammar));

	if (grammar == NULL)
	{
		llm_error_no_memory(err, sizeof(*grammar), "grammar");
		return NULL;
	}
	grammar->vocab = vocab;
	grammar->err = err;
	grammar->n_words = n_words;
	grammar->cache_bytes =
		cache_bytes < MIN_CACHE_BYTES ? MIN_CACHE_BYTES : cache_bytes;
	grammar->words = malloc(n_words * sizeof(uint32_t) + 1);
	grammar->heights = malloc(n_words * sizeof(uint16_t) + 1);
	grammar->masks = llm_grammar_masks_create(err);
	if (grammar->words == NULL || grammar->heights == NULL)
		llm_error_no_memory(err, n_words * 6, "grammar");
	else if (grammar->masks != NULL)
	{
		if (n_words > 0)
			memcpy(grammar->words, words, n_words * sizeof(uint32_t));
		if (llm_grammar_program_check(grammar->words, n_words, grammar->heights,
									  err) &&
			llm_grammar_machine_init(grammar))
			return grammar;
	}
	llm_grammar_close(grammar);
	return NULL;
}

void
llm_grammar_close(LlmGrammar *grammar)
{
	if (grammar == NULL)
		return;
	assert(grammar->matchers == NULL);
	llm_grammar_machine_free(grammar);
	llm_grammar_masks_free(grammar->masks);
	free(grammar->words);
	free(grammar->heights);
	free(grammar);
}

size_t
llm_grammar_used_bytes(const LlmGrammar *grammar)
{
	return sizeof(*grammar) + grammar->n_words * 6 +
		   llm_grammar_machine_bytes(grammar);
}

LlmGrammarMatcher *
llm_grammar_matcher_create(LlmGrammar *grammar, LlmError *err)
{
	LlmGrammarMatcher *matcher = calloc(1, sizeof(*matcher));

	if (matcher == NULL)
	{
		llm_error_no_memory(err, sizeof(*matcher), "grammar matcher");
		return NULL;
	}
	matcher->grammar = grammar;
	matcher->next = grammar->matchers;
	if (matcher->next != NULL)
		matcher->next->previous = matcher;
	grammar->matchers = matcher;
	llm_grammar_matcher_reset(matcher);
	return matcher;
}

void
llm_grammar_matcher_reset(LlmGrammarMatcher *matcher)
{
	matcher->config = matcher->grammar->start;
	matcher->n_history = 0;
	matcher->history_head = 0;
	memset(matcher->history, 0, sizeof(matcher->history)); /* the dead one */
}

void
llm_grammar_matcher_copy(LlmGrammarMatcher *dest, const LlmGrammarMatcher *src)
{
	assert(dest->grammar == src->grammar);
	dest->config = src->config;
	dest->n_history = src->n_history;
	dest->history_head = src->history_head;
	memcpy(dest->history, src->history, sizeof(src->history));
}

void
llm_grammar_matcher_free(LlmGrammarMatcher *matcher)
{
	if (matcher == NULL)
		return;
	if (matcher->previous != NULL)
		matcher->previous->next = matcher->next;
	else
		matcher->grammar->matchers = matcher->next;
	if (matcher->next != NULL)
		matcher->next->previous = matcher->previous;
	free(matcher);
}

static void
move_to(LlmGrammarMatcher *matcher, uint32_t config)
{
	matcher->history[matcher->history_head] = matcher->config;
	matcher->history_head =
		(matcher->history_head + 1) % LLM_GRAMMAR_MAX_ROLLBACK;
	if (matcher->n_history < LLM_GRAMMAR_MAX_ROLLBACK)
		matcher->n_history++;
	matcher->config = config;
}

/* Before a call's work, while only matchers hold numbers. */
static bool
begin_call(LlmGrammarMatcher *matcher, LlmError *err)
{
	matcher->grammar->err = err;
	return llm_grammar_machine_trim(matcher->grammar);
}

/* The config behind some bytes: DEAD, FAILED, or a live one. */
static uint32_t
config_behind(LlmGrammarMatcher *matcher, const char *bytes, size_t len)
{
	uint32_t config = matcher->config;

	for (size_t i = 0;
		 i < len && config != LLM_GRAMMAR_DEAD && config != LLM_GRAMMAR_FAILED;
		 i++)
		config = llm_grammar_machine_step(matcher->grammar, config,
										  (uint8_t) bytes[i]);
	return config;
}

bool
llm_grammar_matcher_accept(LlmGrammarMatcher *matcher, int32_t token_id,
						   LlmError *err)
{
	const LlmGrammarVocab *vocab = matcher->grammar->vocab;
	uint32_t config = LLM_GRAMMAR_DEAD;
	bool is_end;

	if (token_id < 0 || token_id >= vocab->n_vocab)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "token id %d is not in the vocabulary of %d "
							 "tokens",
							 token_id, vocab->n_vocab);
	if (!begin_call(matcher, err))
		return false;
	is_end = llm_grammar_vocab_is_end(vocab, token_id);
	if (is_end && llm_grammar_matcher_may_end(matcher))
	{
		move_to(matcher, LLM_GRAMMAR_DEAD);
		return true;
	}
	if (vocab->offsets[token_id + 1] > vocab->offsets[token_id])
		config = config_behind(matcher, vocab->bytes + vocab->offsets[token_id],
							   vocab->offsets[token_id + 1] -
								   vocab->offsets[token_id]);
	if (config == LLM_GRAMMAR_FAILED)
		return false;
	if (config == LLM_GRAMMAR_DEAD)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the grammar does not allow token %d here",
							 token_id);
	move_to(matcher, config);
	return true;
}

bool
llm_grammar_matcher_accept_bytes(LlmGrammarMatcher *matcher, const char *bytes,
								 size_t len, LlmError *err)
{
	uint32_t config;

	if (!begin_call(matcher, err))
		return false;
	config = config_behind(matcher, bytes, len);
	if (config == LLM_GRAMMAR_FAILED)
		return false;
	if (config == LLM_GRAMMAR_DEAD)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the grammar does not allow \"%.*s\" here",
							 (int) (len < 100 ? len : 100), bytes);
	move_to(matcher, config);
	return true;
}

bool
llm_grammar_matcher_rollback(LlmGrammarMatcher *matcher, size_t n_tokens)
{
	if (n_tokens > matcher->n_history)
		return false;
	if (n_tokens == 0)
		return true;
	matcher->history_head = (matcher->history_head + LLM_GRAMMAR_MAX_ROLLBACK -
							 (uint32_t) n_tokens) %
							LLM_GRAMMAR_MAX_ROLLBACK;
	matcher->n_history -= (uint32_t) n_tokens;
	matcher->config = matcher->history[matcher->history_head];
	return true;
}

static const LlmGrammarConfig *
config_of(const LlmGrammarMatcher *matcher)
{
	return &matcher->grammar->memory.configs[matcher->config];
}

bool
llm_grammar_matcher_has_ended(const LlmGrammarMatcher *matcher)
{
	return matcher->config == LLM_GRAMMAR_DEAD;
}

bool
llm_grammar_matcher_may_end(const LlmGrammarMatcher *matcher)
{
	return config_of(matcher)->may_end;
}

bool
llm_grammar_matcher_must_end(const LlmGrammarMatcher *matcher)
{
	return config_of(matcher)->may_end && config_of(matcher)->n_threads == 0;
}

bool
llm_grammar_matcher_fill_mask(LlmGrammarMatcher *matcher, uint32_t *mask,
							  LlmError *err)
{
	LlmGrammar *grammar = matcher->grammar;
	const LlmGrammarVocab *vocab = grammar->vocab;
	size_t n_words = llm_grammar_vocab_n_mask_words(vocab);
	uint32_t any = 0;

	if (!begin_call(matcher, err) ||
		!llm_grammar_mask_compute(grammar, matcher->config, mask))
		return false;
	if (llm_grammar_matcher_may_end(matcher))
	{
		for (size_t i = 0; i < vocab->n_end_ids; i++)
			mask[vocab->end_ids[i] / 32] |= 1u << vocab->end_ids[i] % 32;
	}
	for (size_t i = 0; i < n_words && any == 0; i++)
		any |= mask[i];
	if (any == 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "no token of the vocabulary continues the answer "
							 "in its grammar");
	return true;
}

/* The only byte that may follow a config, or -1; -2: failed. */
static int
only_byte(LlmGrammar *grammar, uint32_t config, uint32_t *behind)
{
	int only = -1;

	if (grammar->memory.configs[config].may_end)
		return -1;
	for (uint32_t i = 0; i < grammar->n_classes; i++)
	{
		uint8_t byte = grammar->byte_of[i];
		uint32_t next = llm_grammar_machine_step(grammar, config, byte);

		if (next == LLM_GRAMMAR_FAILED)
			return -2;
		if (next == LLM_GRAMMAR_DEAD)
			continue;
		if (only >= 0 || (byte < 255 && grammar->class_of[byte + 1] == i))
			return -1; /* a second class, or a class of several bytes */
		only = byte;
		*behind = next;
	}
	return only;
}

bool
llm_grammar_matcher_forced_bytes(LlmGrammarMatcher *matcher, size_t max_bytes,
								 LlmStrbuf *out, LlmError *err)
{
	uint32_t config;

	if (!begin_call(matcher, err))
		return false;
	config = matcher->config;
	for (size_t n = 0; n < max_bytes; n++)
	{
		int byte = only_byte(matcher->grammar, config, &config);

		if (byte == -2)
			return false;
		if (byte < 0)
			break;
		llm_strbuf_append_char(out, (char) byte);
	}
	if (out->failed)
		return llm_error_no_memory(err, max_bytes, "forced bytes");
	return true;
}
