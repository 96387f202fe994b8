/*
 * sequence.c
 *	  A request inside the planner: its tokens, blocks and place in line.
 *
 * All memory a sequence will ever need is taken at once, for max_tokens, in
 * one piece.  What is not used yet is not touched, so that the system does
 * not have to find pages for it.
 *
 * src/engine/batch/sequence.c
 */
#include "src/engine/batch/sequence.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/*
 * Whose logits are wanted has to be computed, whatever the cache holds.  One
 * row is that of the last token, wherever that will be.
 */
static void
set_rows(LlmSequence *sequence, const LlmPlannerRequest *request,
		 bool separates_phases)
{
	bool has_many = request->n_prompt_rows > 1;

	sequence->first_row =
		has_many ? request->n_prompt - request->n_prompt_rows : INT32_MAX;
	sequence->max_reusable = request->is_pooled ? 0
							 : has_many			? sequence->first_row
							 : separates_phases ? request->n_prompt - 1
												: INT32_MAX;
}

LlmSequence *
llm_sequence_create(const LlmPlannerRequest *request,
					const LlmPlannerConfig *config, LlmError *err)
{
	int32_t max_tokens = request->n_prompt + request->max_tokens;
	int32_t max_blocks = llm_blocks_for(max_tokens, config->block_size);
	size_t ids_bytes = (size_t) max_tokens * sizeof(int32_t);
	size_t blocks_bytes = (size_t) max_blocks * sizeof(int32_t);
	size_t digests_bytes = config->enable_prefix_caching
							   ? (size_t) max_blocks * sizeof(LlmPrefixDigest)
							   : 0;
	size_t n_bytes =
		sizeof(LlmSequence) + digests_bytes + ids_bytes + blocks_bytes;
	LlmSequence *sequence = malloc(n_bytes);
	char *next;

	if (sequence == NULL)
	{
		llm_error_no_memory(err, n_bytes, "a sequence");
		return NULL;
	}
	memset(sequence, 0, sizeof(LlmSequence));
	next = (char *) (sequence + 1);
	if (digests_bytes > 0)
		sequence->digests = (LlmPrefixDigest *) next;
	sequence->ids = (int32_t *) (next + digests_bytes);
	sequence->blocks = (int32_t *) (next + digests_bytes + ids_bytes);

	sequence->state = LLM_SEQUENCE_WAITING;
	sequence->rank = request->request_class == LLM_CLASS_INTERACTIVE
						 ? LLM_RANK_HIGH
						 : LLM_RANK_LOW;
	sequence->n_prompt = request->n_prompt;
	sequence->n_tokens = request->n_prompt + request->n_output;
	sequence->n_cached = -1;
	sequence->max_tokens = max_tokens;
	sequence->max_blocks = max_blocks;
	set_rows(sequence, request, config->separates_phases);
	sequence->arrival_us = request->arrival_us;
	sequence->request_id = request->request_id;
	sequence->owner = request->owner;
	sequence->adapter_id = request->adapter_id;
	sequence->cache_salt = request->cache_salt;
	if (request->n_rotated > 0)
		llm_sequence_rotate(sequence, request->n_rotated, config);
	else
		llm_sequence_rotate(sequence,
							config->rope_restarts ? sequence->n_tokens
												  : sequence->n_prompt,
							config);
	memcpy(sequence->ids, request->prompt_ids,
		   (size_t) request->n_prompt * sizeof(int32_t));
	if (request->n_output > 0)
		memcpy(sequence->ids + request->n_prompt, request->output_ids,
			   (size_t) request->n_output * sizeof(int32_t));
	return sequence;
}

void
llm_sequence_free(LlmSequence *sequence)
{
	free(sequence);
}

void
llm_sequence_rotate(LlmSequence *sequence, int32_t n_tokens,
					const LlmPlannerConfig *config)
{
	assert(sequence->n_computed == 0);

	if (config->rope_short_len == 0 || n_tokens <= config->rope_short_len)
		sequence->rope_len = 0;
	else if (config->rope_grows)
		sequence->rope_len = n_tokens;
	else
		sequence->rope_len = config->rope_short_len + 1;
	sequence->root = llm_prefix_digest_root(
		sequence->adapter_id, sequence->cache_salt, sequence->rope_len);
	sequence->n_digests = 0;
}

const LlmPrefixDigest *
llm_sequence_digest(LlmSequence *sequence, int32_t idx, int32_t block_size)
{
	assert(sequence->digests != NULL);
	assert((idx + 1) * block_size <= llm_sequence_n_known(sequence));

	while (sequence->n_digests <= idx)
	{
		int32_t n = sequence->n_digests;

		llm_prefix_digest_next(n == 0 ? &sequence->root
									  : &sequence->digests[n - 1],
							   sequence->ids + (size_t) n * (size_t) block_size,
							   block_size, &sequence->digests[n]);
		sequence->n_digests++;
	}
	return &sequence->digests[idx];
}

void *
llm_sequence_owner(const LlmSequence *sequence)
{
	return sequence->owner;
}

const int32_t *
llm_sequence_ids(const LlmSequence *sequence, int32_t *n_prompt,
				 int32_t *n_output)
{
	*n_prompt = sequence->n_prompt;
	*n_output = llm_sequence_n_known(sequence) - sequence->n_prompt;
	return sequence->ids;
}

int32_t
llm_sequence_n_cached(const LlmSequence *sequence)
{
	return sequence->n_cached < 0 ? 0 : sequence->n_cached;
}

int32_t
llm_sequence_n_prompt_done(const LlmSequence *sequence)
{
	return sequence->n_charged < sequence->n_prompt ? sequence->n_charged
													: sequence->n_prompt;
}

bool
llm_sequence_is_running(const LlmSequence *sequence)
{
	return sequence->state == LLM_SEQUENCE_RUNNING;
}
