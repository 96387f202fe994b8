/*
 * step_arrays.c
 *	  The planned step as the arrays the kernels read.
 *
 * Sequences that compute one token come first, then those that compute
 * several, so that a kernel for each kind finds its own in one piece.
 *
 * src/engine/batch/step_arrays.c
 */
#include "src/engine/batch/planner_internal.h"

#include <assert.h>
#include <string.h>

static void
fill_tokens(LlmPlanner *planner, const LlmSequence *sequence)
{
	LlmPlannedStep *step = &planner->step;
	int32_t at = step->n_tokens;

	memcpy(planner->token_ids + at, sequence->ids + sequence->n_computed,
		   (size_t) sequence->n_planned * sizeof(int32_t));
	for (int32_t i = 0; i < sequence->n_planned; i++)
	{
		planner->positions[at + i] = sequence->n_computed + i;
		planner->token_seq[at + i] = step->n_seqs;
	}
}

static void
fill_sequence(LlmPlanner *planner, LlmSequence *sequence)
{
	LlmPlannedStep *step = &planner->step;
	LlmPlannedSequence *out = &planner->sequences[step->n_seqs];
	int32_t n_planned = sequence->n_planned;
	int32_t context_len = sequence->n_computed + n_planned;
	bool is_complete = context_len == sequence->n_tokens;
	int32_t n_rows = sequence->n_rows;

	fill_tokens(planner, sequence);
	out->sequence = sequence;
	out->first_token = step->n_tokens;
	out->n_tokens = n_planned;
	out->logit_row = n_rows > 0 ? step->n_logit_rows : -1;
	out->n_logit_rows = n_rows;
	planner->query_start[step->n_seqs] = step->n_tokens;
	planner->context_len[step->n_seqs] = context_len;
	planner->rope_len[step->n_seqs] = sequence->rope_len;
	step->n_tokens += n_planned;
	step->n_seqs++;
	for (int32_t i = n_rows; i > 0; i--)
		planner->logit_rows[step->n_logit_rows++] = step->n_tokens - i;
	assert(step->n_logit_rows <= planner->config.max_num_seqs);
	if (!is_complete || n_planned > 1 ||
		sequence->n_computed < sequence->n_prompt)
		step->n_prefill_tokens += n_planned;
	if (n_planned > step->max_query_len)
		step->max_query_len = n_planned;
	if (context_len > step->max_context_len)
		step->max_context_len = context_len;
}

static void
fill_block_tables(LlmPlanner *planner)
{
	LlmPlannedStep *step = &planner->step;
	int32_t stride =
		llm_blocks_for(step->max_context_len, planner->config.block_size);

	assert(stride <= planner->max_blocks_per_seq);
	step->max_blocks_per_seq = stride;
	for (int32_t i = 0; i < step->n_seqs; i++)
	{
		const LlmSequence *sequence = step->sequences[i].sequence;
		size_t n_used = (size_t) sequence->n_blocks;
		int32_t *row = planner->block_tables + (size_t) i * (size_t) stride;

		assert(sequence->n_blocks <= stride);
		memcpy(row, sequence->blocks, n_used * sizeof(int32_t));

		/* nobody reads the rest, but it shall be valid */
		memset(row + n_used, 0, ((size_t) stride - n_used) * sizeof(int32_t));
	}
}

void
llm_planner_fill_step(LlmPlanner *planner)
{
	planner->step = (LlmPlannedStep){
		.sequences = planner->sequences,
		.token_ids = planner->token_ids,
		.positions = planner->positions,
		.token_seq = planner->token_seq,
		.query_start = planner->query_start,
		.context_len = planner->context_len,
		.rope_len = planner->rope_len,
		.block_tables = planner->block_tables,
		.logit_rows = planner->logit_rows,
		.is_prompt = planner->phase == LLM_PHASE_PROMPTS,
	};
	for (int32_t i = 0; i < planner->n_planned; i++)
	{
		if (planner->planned[i]->n_planned == 1)
			fill_sequence(planner, planner->planned[i]);
	}
	for (int32_t i = 0; i < planner->n_planned; i++)
	{
		if (planner->planned[i]->n_planned > 1)
			fill_sequence(planner, planner->planned[i]);
	}
	planner->query_start[planner->step.n_seqs] = planner->step.n_tokens;
	assert(planner->step.n_seqs == planner->n_planned);
	assert(planner->step.n_tokens <= planner->config.max_num_batched_tokens);
	fill_block_tables(planner);
}
