/*
 * planner_check.c
 *	  Every invariant of the planner, for tests and debug builds.
 *
 * Digests are compared, not computed again: that they name the right contents
 * is what the unit test's simulated cache verifies.
 *
 * src/engine/batch/planner_check.c
 */
#include "src/engine/batch/planner_internal.h"

#include <stdlib.h>
#include <string.h>

static bool
check_counts(const LlmPlanner *planner, const LlmSequence *sequence,
			 LlmError *err)
{
	int32_t n_end = sequence->n_computed + sequence->n_planned;
	int32_t n_blocks = llm_blocks_for(n_end, planner->config.block_size);
	int32_t n_known = llm_sequence_n_known(sequence);
	int32_t n_offered = n_end < n_known ? n_end : n_known;

	if (sequence->n_computed < 0 || n_end > sequence->n_tokens ||
		sequence->n_tokens > sequence->max_tokens ||
		sequence->n_blocks != n_blocks ||
		(sequence->n_planned > 0 && !planner->is_step_open) ||
		sequence->is_reserved)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "request %llu of %d tokens has computed %d, "
							 "computes %d now, and holds %d blocks",
							 (unsigned long long) sequence->request_id,
							 sequence->n_tokens, sequence->n_computed,
							 sequence->n_planned, sequence->n_blocks);
	if (planner->config.separates_phases && n_offered > sequence->n_prompt)
		n_offered = sequence->n_prompt;
	if (sequence->digests != NULL &&
		sequence->n_published != n_offered / planner->config.block_size)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "request %llu has published %d blocks of %d",
							 (unsigned long long) sequence->request_id,
							 sequence->n_published, sequence->n_blocks);
	return true;
}

/* Tokens are rotated by the length that the sequence has now, or had. */
static bool
check_rope(const LlmPlanner *planner, const LlmSequence *sequence,
		   LlmError *err)
{
	const LlmPlannerConfig *config = &planner->config;
	int32_t rope_len = sequence->rope_len;
	int32_t least =
		config->rope_restarts ? sequence->n_tokens : sequence->n_prompt;
	bool is_long = config->rope_short_len > 0 && least > config->rope_short_len;

	if ((rope_len != 0) != is_long ||
		(is_long &&
		 rope_len != (config->rope_grows ? sequence->n_prompt
										 : config->rope_short_len + 1)))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "request %llu of %d tokens, %d of them prompt, is "
							 "rotated by a length of %d",
							 (unsigned long long) sequence->request_id,
							 sequence->n_tokens, sequence->n_prompt, rope_len);
	return true;
}

/*
 * Blocks that are findable are full and hold what their digest says; blocks
 * that are shared are written by nobody, except by the one sequence whose
 * part of an open step fills them.
 */
static bool
check_blocks(const LlmPlanner *planner, const LlmSequence *sequence,
			 int32_t *n_refs, LlmError *err)
{
	int32_t block_size = planner->config.block_size;
	int32_t n_computed = sequence->n_computed / block_size;
	int32_t n_full = (sequence->n_computed + sequence->n_planned) / block_size;

	for (int32_t i = 0; i < sequence->n_blocks; i++)
	{
		int32_t block_idx = sequence->blocks[i];
		const LlmPrefixDigest *digest;

		if (block_idx < 0 || block_idx >= planner->config.n_blocks)
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "request %llu holds block %d of %d",
								 (unsigned long long) sequence->request_id,
								 block_idx, planner->config.n_blocks);
		n_refs[block_idx]++;
		digest = llm_kv_blocks_digest(planner->pool, block_idx);
		if (digest != NULL &&
			(i >= n_full ||
			 memcmp(digest, &sequence->digests[i], sizeof(*digest)) != 0))
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "block %d of request %llu is registered for "
								 "other contents",
								 block_idx,
								 (unsigned long long) sequence->request_id);
		if (i >= n_computed && digest == NULL &&
			llm_kv_blocks_n_refs(planner->pool, block_idx) != 1)
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "block %d, which request %llu writes, is "
								 "shared",
								 block_idx,
								 (unsigned long long) sequence->request_id);
	}
	return true;
}

static bool
check_list(const LlmPlanner *planner, LlmRank rank, int32_t *n_refs,
		   LlmError *err)
{
	const LlmRunningList *list = &planner->running[rank];

	for (int32_t i = 0; i < list->n; i++)
	{
		const LlmSequence *sequence = list->sequences[i];

		if (sequence->state != LLM_SEQUENCE_RUNNING || sequence->rank != rank ||
			sequence->prev != NULL || sequence->next != NULL ||
			(i > 0 && list->sequences[i - 1]->serial >= sequence->serial))
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "request %llu is at a wrong place among "
								 "those running",
								 (unsigned long long) sequence->request_id);
		if (!check_counts(planner, sequence, err) ||
			!check_rope(planner, sequence, err) ||
			!check_blocks(planner, sequence, n_refs, err))
			return false;
	}
	return true;
}

static bool
check_tenants(const LlmPlanner *planner, LlmError *err)
{
	const LlmWaitQueue *waiting = &planner->waiting;
	int32_t *n_running =
		calloc((size_t) waiting->n_tenants + 1, sizeof(int32_t));
	int32_t n_found = 0;
	bool is_ok;

	if (n_running == NULL)
		return llm_error_no_memory(err, 0, "checking the planner");
	for (int rank = 0; rank < LLM_N_RANKS; rank++)
	{
		const LlmRunningList *list = &planner->running[rank];

		for (int32_t i = 0; i < list->n; i++)
		{
			for (int32_t t = 0; t < waiting->n_tenants; t++)
			{
				bool is_its = list->sequences[i]->tenant == waiting->tenants[t];

				n_running[t] += is_its;
				n_found += is_its;
			}
		}
	}
	is_ok = llm_wait_queue_check(waiting, n_running, err);
	free(n_running);
	if (is_ok && n_found != llm_planner_n_running(planner))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "%d of %d running sequences have a tenant",
							 n_found, llm_planner_n_running(planner));
	return is_ok;
}

bool
llm_planner_check(const LlmPlanner *planner, LlmError *err)
{
	int32_t n_running = llm_planner_n_running(planner);
	int32_t *n_refs;
	bool is_ok;

	if (n_running > planner->config.max_num_seqs ||
		planner->n_tokens_reserved != 0 ||
		planner->is_step_open != (planner->n_planned > 0))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "%d sequences run, %d tokens are reserved, %d "
							 "sequences are planned",
							 n_running, planner->n_tokens_reserved,
							 planner->n_planned);
	n_refs = calloc((size_t) planner->config.n_blocks, sizeof(int32_t));
	if (n_refs == NULL)
		return llm_error_no_memory(err, 0, "checking the planner");
	is_ok = check_list(planner, LLM_RANK_HIGH, n_refs, err) &&
			check_list(planner, LLM_RANK_LOW, n_refs, err) &&
			llm_kv_blocks_check(planner->pool, n_refs, err) &&
			check_tenants(planner, err);
	free(n_refs);
	return is_ok;
}
