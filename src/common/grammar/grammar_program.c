/*
 * grammar_program.c
 *	  The check of a compiled grammar: it may come from a hostile sender.
 *
 * Instructions are read in one sweep, which also finds where they start;
 * every target must be such a start.  Heights come from the ends backwards,
 * level by level: each state gets its height once, when the first (BYTES,
 * SPLIT) or the last (CALL, REPEAT) of what it waits for has one, so the work
 * is linear in the program (Knuth, "A generalization of Dijkstra's
 * algorithm", 1977).
 *
 * src/common/grammar/grammar_program.c
 */
#include "src/common/grammar/grammar_program.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/sha256.h"

#define NONE UINT32_MAX
#define N_LEVELS (LLM_GRAMMAR_MAX_DEPTH + 1)

typedef struct Heights
{
	const uint32_t *words;
	size_t n_words;
	uint16_t *heights;
	uint8_t *is_state;		/* [n_words] */
	uint32_t *first_caller; /* [n_words + 1]: where in callers */
	uint32_t *callers;		/* states that wait for this one */
	uint32_t *next_in_level;
	uint32_t levels[N_LEVELS]; /* lists of states to give this height */
} Heights;

static bool
damaged(LlmError *err, const char *what, size_t off)
{
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 "grammar program is damaged: %s at word %zu", what,
						 off);
}

/* Words of the instruction at off, or 0 where it is none. */
static size_t
instruction_words(const uint32_t *words, size_t n_words, size_t off)
{
	size_t count = llm_grammar_count(words[off]);
	size_t n;

	switch (words[off] & 0xFFu)
	{
		case LLM_GRAMMAR_BYTES:
			n = 1 + 2 * count;
			break;
		case LLM_GRAMMAR_SPLIT:
			n = 1 + count;
			break;
		case LLM_GRAMMAR_CALL:
			n = count == 0 ? 3 : 0;
			break;
		case LLM_GRAMMAR_REPEAT:
			n = count == 0 ? 5 : 0;
			break;
		case LLM_GRAMMAR_RETURN:
			n = count == 0 ? 1 : 0;
			break;
		default:
			n = 0;
	}
	return n <= n_words - off ? n : 0;
}

/* The number of states that an instruction may go to, and the i-th. */
static uint32_t
n_targets(const uint32_t *words, uint32_t state)
{
	switch (llm_grammar_op(words[state]))
	{
		case LLM_GRAMMAR_BYTES:
		case LLM_GRAMMAR_SPLIT:
			return llm_grammar_count(words[state]);
		case LLM_GRAMMAR_CALL:
		case LLM_GRAMMAR_REPEAT:
			return 2;
		default:
			return 0;
	}
}

static uint32_t
target_of(const uint32_t *words, uint32_t state, uint32_t i)
{
	if (llm_grammar_op(words[state]) == LLM_GRAMMAR_BYTES)
		return words[state + 2 + 2 * i];
	return words[state + 1 + i];
}

static bool
check_instruction(const Heights *h, uint32_t state, LlmError *err)
{
	const uint32_t *words = h->words;
	LlmGrammarOp op = llm_grammar_op(words[state]);

	for (uint32_t i = 0; i < n_targets(words, state); i++)
	{
		uint32_t target = target_of(words, state, i);

		if (target >= h->n_words || !h->is_state[target])
			return damaged(err, "a target is no state", state);
		if (op == LLM_GRAMMAR_BYTES)
		{
			uint32_t range = words[state + 1 + 2 * i];

			if (range > 0xFFFFu || (range & 0xFFu) > range >> 8)
				return damaged(err, "a range of bytes is none", state);
		}
	}
	if (op == LLM_GRAMMAR_REPEAT &&
		(words[state + 4] == 0 || words[state + 3] > words[state + 4]))
		return damaged(err, "a repetition's bounds are none", state);
	return true;
}

static bool
check_words(Heights *h, LlmError *err)
{
	const uint32_t *words = h->words;
	size_t n;

	for (size_t off = LLM_GRAMMAR_HEADER_WORDS; off < h->n_words; off += n)
	{
		n = instruction_words(words, h->n_words, off);
		if (n == 0)
			return damaged(err, "no instruction", off);
		h->is_state[off] = 1;
	}
	for (uint32_t off = 0; off < h->n_words; off++)
	{
		if (h->is_state[off] && !check_instruction(h, off, err))
			return false;
	}
	if (words[LLM_GRAMMAR_WORD_ROOT] >= h->n_words ||
		!h->is_state[words[LLM_GRAMMAR_WORD_ROOT]])
		return damaged(err, "the root is no state", LLM_GRAMMAR_WORD_ROOT);
	return true;
}

/* The inverse of target_of, in two sweeps: count, then fill. */
static void
collect_callers(Heights *h)
{
	for (uint32_t state = 0; state < h->n_words; state++)
	{
		if (!h->is_state[state])
			continue;
		for (uint32_t i = 0; i < n_targets(h->words, state); i++)
			h->first_caller[target_of(h->words, state, i) + 1]++;
	}
	for (size_t i = 0; i <= h->n_words; i++)
		h->first_caller[i + 1] += h->first_caller[i];
	/* filled from the back: first_caller[t + 1] falls to t's start */
	for (uint32_t state = 0; state < h->n_words; state++)
	{
		if (!h->is_state[state])
			continue;
		for (uint32_t i = 0; i < n_targets(h->words, state); i++)
			h->callers[--h->first_caller[target_of(h->words, state, i) + 1]] =
				state;
	}
}

static void
queue_state(Heights *h, uint32_t state, uint32_t level)
{
	if (level >= N_LEVELS || h->next_in_level[state] != NONE - 1)
		return;
	h->next_in_level[state] = h->levels[level];
	h->levels[level] = state;
}

/* One of the states that "state" waits for just got its height. */
static void
queue_caller(Heights *h, uint32_t state, uint32_t level)
{
	const uint32_t *words = h->words;
	LlmGrammarOp op = llm_grammar_op(words[state]);
	uint32_t target_height;
	uint32_t next_height;

	if (op == LLM_GRAMMAR_BYTES || op == LLM_GRAMMAR_SPLIT)
	{
		queue_state(h, state, level);
		return;
	}
	target_height = h->heights[words[state + 1]];
	next_height = h->heights[words[state + 2]];
	if (op == LLM_GRAMMAR_REPEAT && words[state + 3] == 0)
		target_height = 0;
	else if (target_height != LLM_GRAMMAR_NO_HEIGHT &&
			 !(op == LLM_GRAMMAR_CALL && llm_grammar_is_tail(words, state)))
		target_height++;
	if (target_height == LLM_GRAMMAR_NO_HEIGHT ||
		next_height == LLM_GRAMMAR_NO_HEIGHT)
		return;
	queue_state(h, state,
				target_height > next_height ? target_height : next_height);
}

static void
compute_heights(Heights *h)
{
	for (uint32_t i = 0; i < N_LEVELS; i++)
		h->levels[i] = NONE;
	for (uint32_t state = 0; state < h->n_words; state++)
	{
		h->heights[state] = LLM_GRAMMAR_NO_HEIGHT;
		h->next_in_level[state] = NONE - 1; /* in no list yet */
	}
	for (uint32_t state = 0; state < h->n_words; state++)
	{
		if (h->is_state[state] && h->words[state] == LLM_GRAMMAR_RETURN)
			queue_state(h, state, 0);
	}
	for (uint32_t level = 0; level < N_LEVELS; level++)
	{
		while (h->levels[level] != NONE)
		{
			uint32_t state = h->levels[level];

			h->levels[level] = h->next_in_level[state];
			assert(h->heights[state] == LLM_GRAMMAR_NO_HEIGHT);
			h->heights[state] = (uint16_t) level;
			/* collect_callers leaves t's list at [t + 1], up to [t + 2] */
			for (uint32_t i = h->first_caller[state + 1];
				 i < h->first_caller[state + 2]; i++)
				queue_caller(h, h->callers[i], level);
		}
	}
}

static bool
check_header(const uint32_t *words, size_t n_words, LlmError *err)
{
	if (n_words <= LLM_GRAMMAR_HEADER_WORDS)
		return damaged(err, "it ends", n_words);
	if (n_words > LLM_GRAMMAR_MAX_WORDS)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "grammar program has %zu words, the limit is %u",
							 n_words, LLM_GRAMMAR_MAX_WORDS);
	if (words[LLM_GRAMMAR_WORD_MAGIC] != LLM_GRAMMAR_MAGIC ||
		words[LLM_GRAMMAR_WORD_VERSION] != LLM_GRAMMAR_VERSION ||
		words[LLM_GRAMMAR_WORD_N_WORDS] != n_words)
		return damaged(err, "the header is not ours", 0);
	return true;
}

bool
llm_grammar_program_check(const uint32_t *words, size_t n_words,
						  uint16_t *heights, LlmError *err)
{
	Heights h = { .words = words, .n_words = n_words, .heights = heights };
	bool ok;

	if (!check_header(words, n_words, err))
		return false;
	h.is_state = calloc(n_words, 1);
	h.first_caller = calloc(n_words + 2, sizeof(uint32_t));
	h.callers = calloc(n_words, sizeof(uint32_t)); /* a target is a word */
	h.next_in_level = calloc(n_words, sizeof(uint32_t));
	ok = h.is_state != NULL && h.first_caller != NULL && h.callers != NULL &&
		 h.next_in_level != NULL;
	if (!ok)
		llm_error_no_memory(err, 13 * n_words, "grammar check");
	ok = ok && check_words(&h, err);
	if (ok)
	{
		collect_callers(&h);
		compute_heights(&h);
		if (heights[words[LLM_GRAMMAR_WORD_ROOT]] == LLM_GRAMMAR_NO_HEIGHT)
			ok = llm_error_set(err, LLM_ERROR_INVALID,
							   "no text satisfies the grammar");
	}
	free(h.is_state);
	free(h.first_caller);
	free(h.callers);
	free(h.next_in_level);
	return ok;
}

void
llm_grammar_hash(const void *program, size_t n_bytes, uint8_t digest[32])
{
	LlmSha256 sha;

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, program, n_bytes);
	llm_sha256_final(&sha, digest);
}
