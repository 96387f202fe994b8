/*
 * admission.c
 *	  Who of those that wait is let in.
 *
 * A sequence is let in when a seat is free, the step has a token left for it,
 * and the blocks of all its known tokens are there that are not cached
 * already: on top of the blocks that running sequences still need for their
 * known tokens ("promised"), and of a small watermark, so that it is not
 * preempted the moment somebody grows.
 *
 * Who does not fit closes the door behind itself: letting smaller ones pass
 * would starve it.  Two exceptions, each with its own argument (README.md):
 * an interactive request may take the place of running batch ones, and aged
 * batch requests take turns with interactive ones.
 *
 * src/engine/batch/admission.c
 */
#include "src/engine/batch/planner_internal.h"

#include <assert.h>

typedef enum Displace
{
	DISPLACE_NEVER,
	DISPLACE_IF_NEEDED,
	DISPLACE_AT_LEAST_ONE
} Displace;

static int32_t
outstanding_blocks(const LlmPlanner *planner, const LlmSequence *sequence)
{
	return llm_blocks_for(sequence->n_computed + llm_sequence_n_left(sequence),
						  planner->config.block_size) -
		   sequence->n_blocks;
}

/* Blocks that running sequences will take for tokens they already have. */
static void
count_promised(LlmPlanner *planner)
{
	planner->n_blocks_promised = 0;
	for (int rank = 0; rank < LLM_N_RANKS; rank++)
	{
		const LlmRunningList *list = &planner->running[rank];

		for (int32_t i = 0; i < list->n; i++)
			planner->n_blocks_promised +=
				outstanding_blocks(planner, list->sequences[i]);
	}
}

/*
 * Find the cached blocks that a waiting sequence starts with, and put them
 * into its table without referring to them.
 */
static int32_t
match_prefix(LlmPlanner *planner, LlmSequence *sequence)
{
	int32_t block_size = planner->config.block_size;
	int32_t max_hits = llm_sequence_reusable(sequence) / block_size;
	int32_t n_hits = 0;

	if (sequence->digests == NULL)
		return 0;
	while (n_hits < max_hits)
	{
		int32_t block_idx = llm_kv_blocks_find(
			planner->pool, llm_sequence_digest(sequence, n_hits, block_size));

		if (block_idx < 0)
			break;
		sequence->blocks[n_hits++] = block_idx;
	}
	return n_hits;
}

/* How many blocks more than needed there are; negative: so many lack. */
static int32_t
spare_blocks(const LlmPlanner *planner, const LlmSequence *sequence,
			 int32_t n_hits)
{
	int32_t n_free = llm_kv_blocks_n_free(planner->pool);
	int32_t n_needed =
		llm_blocks_for(sequence->n_tokens, planner->config.block_size) - n_hits;

	for (int32_t i = 0; i < n_hits; i++)
		n_needed +=
			llm_kv_blocks_n_refs(planner->pool, sequence->blocks[i]) == 0;

	/* alone, it may have everything: add saw to it that this suffices */
	if (llm_planner_n_running(planner) > 0)
		n_needed += planner->watermark_blocks;
	return n_free - planner->n_blocks_promised - n_needed;
}

static bool
has_room(const LlmPlanner *planner, const LlmSequence *sequence, int32_t n_hits)
{
	return llm_planner_n_running(planner) < planner->config.max_num_seqs &&
		   spare_blocks(planner, sequence, n_hits) >= 0;
}

/*
 * Preempt running batch sequences, youngest first, until there is room.
 * Nobody is preempted when that could not suffice.  (Blocks that victims share
 * with others are counted as if they became free: then it may happen in vain,
 * which costs the victims a recomputation of what is mostly cached.)
 */
static bool
displace(LlmPlanner *planner, LlmSequence *sequence, int32_t n_hits,
		 bool at_least_one)
{
	const LlmRunningList *low = &planner->running[LLM_RANK_LOW];
	int64_t n_spare = spare_blocks(planner, sequence, n_hits);

	for (int32_t i = 0; i < low->n; i++)
		n_spare += low->sequences[i]->n_blocks +
				   outstanding_blocks(planner, low->sequences[i]);
	if (n_spare < 0 || low->n == 0)
		return false;
	while (low->n > 0 && (at_least_one || !has_room(planner, sequence, n_hits)))
	{
		llm_planner_preempt(planner, low->sequences[low->n - 1], LLM_RANK_HIGH);
		count_promised(planner);
		at_least_one = false;
	}
	return has_room(planner, sequence, n_hits);
}

/* There is room: take the seat and the cached blocks, and plan a first part. */
static void
admit(LlmPlanner *planner, LlmSequence *sequence, int32_t n_hits,
	  bool is_promoted)
{
	llm_wait_queue_remove(&planner->waiting, sequence);
	if (is_promoted)
		sequence->rank = LLM_RANK_HIGH;
	for (int32_t i = 0; i < n_hits; i++)
		llm_kv_blocks_share(planner->pool, sequence->blocks[i]);
	sequence->n_blocks = sequence->n_published = n_hits;
	sequence->n_computed = n_hits * planner->config.block_size;
	if (sequence->n_cached < 0)
	{
		sequence->n_cached = sequence->n_computed < sequence->n_prompt
								 ? sequence->n_computed
								 : sequence->n_prompt;
		planner->n_prompt_tokens += (uint64_t) sequence->n_prompt;
		planner->n_cached_tokens += (uint64_t) sequence->n_cached;
	}
	llm_planner_seat(planner, sequence);
	llm_planner_schedule(planner, sequence);
	assert(sequence->n_planned > 0);
	planner->n_blocks_promised += outstanding_blocks(planner, sequence);
}

/*
 * Does the step have a token for a newcomer?  A victim that decodes leaves its
 * own: that counts where decoding alone has used up the step, not where other
 * prompts did, which will be done sooner or later.
 */
static bool
has_token(const LlmPlanner *planner, bool may_displace)
{
	const LlmRunningList *low = &planner->running[LLM_RANK_LOW];
	int32_t n_used =
		planner->config.max_num_batched_tokens - planner->n_tokens_left;

	if (planner->n_tokens_left > planner->n_tokens_reserved)
		return true;
	return may_displace && low->n > 0 && n_used == planner->n_planned &&
		   low->sequences[low->n - 1]->is_reserved;
}

static bool
try_admit(LlmPlanner *planner, LlmSequence *sequence, Displace how,
		  bool is_promoted)
{
	int32_t n_hits;

	/* preempted with its last token on the way: it is about to leave */
	if (llm_sequence_n_left(sequence) == 0)
		return false;
	if (!has_token(planner, how != DISPLACE_NEVER))
		return false;

	n_hits = match_prefix(planner, sequence);
	if (how == DISPLACE_AT_LEAST_ONE || !has_room(planner, sequence, n_hits))
	{
		if (how == DISPLACE_NEVER ||
			!displace(planner, sequence, n_hits, how == DISPLACE_AT_LEAST_ONE))
			return false;
	}
	if (!has_token(planner, false))
		return false;
	admit(planner, sequence, n_hits, is_promoted);
	return true;
}

/*
 * Interactive requests, and aged batch requests in turns with them.  While an
 * aged one cannot get in at its turn, interactive ones get in only in exchange
 * for running batch sequences, of which there is an end.
 */
void
llm_planner_admit_high(LlmPlanner *planner)
{
	LlmWaitQueue *waiting = &planner->waiting;
	int64_t aged_us = planner->now_us - planner->config.aging_us;

	if (waiting->n_waiting[LLM_RANK_HIGH] == 0)
		return;
	count_promised(planner);
	for (;;)
	{
		LlmSequence *next =
			llm_wait_queue_first(waiting, LLM_RANK_HIGH, INT64_MAX);
		LlmSequence *aged =
			llm_wait_queue_first(waiting, LLM_RANK_LOW, aged_us);
		bool in_turn = aged == NULL || !planner->is_aged_turn;

		if (next == NULL)
			break;
		if (!in_turn && try_admit(planner, aged, DISPLACE_NEVER, true))
		{
			planner->is_aged_turn = false;
			continue;
		}
		if (!try_admit(planner, next,
					   in_turn ? DISPLACE_IF_NEEDED : DISPLACE_AT_LEAST_ONE,
					   false))
			break;
		if (aged != NULL)
			planner->is_aged_turn = true;
	}
}

/*
 * Batch requests.  One that is aged and was displaced before gets high rank,
 * or interactive requests could throw it back again and again.
 */
void
llm_planner_admit_low(LlmPlanner *planner)
{
	LlmWaitQueue *waiting = &planner->waiting;
	int64_t aged_us = planner->now_us - planner->config.aging_us;

	if (waiting->n_waiting[LLM_RANK_HIGH] > 0 ||
		waiting->n_waiting[LLM_RANK_LOW] == 0 || planner->had_no_blocks)
		return;
	count_promised(planner);
	for (;;)
	{
		LlmSequence *next =
			llm_wait_queue_first(waiting, LLM_RANK_LOW, INT64_MAX);

		if (next == NULL ||
			!try_admit(planner, next, DISPLACE_NEVER,
					   next->was_displaced && next->arrival_us <= aged_us))
			break;
	}
}
