/*
 * row_answers.c
 *	  What each row of a step is for: a token to draw, one to score, or hidden
 *	  states to sum.
 *
 * Scoring is teacher forcing: the logits of position p say how probable the
 * prompt's token at p + 1 was, so the prompt's last token is never computed.
 * The planner gives rows to the last so many positions, over as many chunks
 * as it takes, and lets the prefix cache serve only what lies before them.
 *
 * A mean is summed chunk by chunk.  A sequence that was preempted is computed
 * again from its start, since cached keys and values say nothing about hidden
 * states; what was counted before is skipped, as is what was scored.
 *
 * src/engine/executor/row_answers.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/engine/executor/executor.h"

/* -- requests -- */

static bool
check_score(const LlmWireRequest *wire, LlmError *err)
{
	if (wire->n_scored < 1 || wire->n_scored >= wire->n_prompt)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "%u tokens of a prompt of %u cannot be scored: "
							 "the first one has nothing before it",
							 wire->n_scored, wire->n_prompt);
	if (wire->params.n_logprobs < 0 ||
		wire->params.max_tokens != wire->n_scored)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "a request to score %u tokens has logprobs %d "
							 "and max_tokens %u",
							 wire->n_scored, wire->params.n_logprobs,
							 wire->params.max_tokens);
	return true;
}

static bool
prepare_score(LlmExecRequest *request, const LlmWireRequest *wire,
			  LlmPlannerRequest *planned, LlmError *err)
{
	if (!check_score(wire, err))
		return false;
	assert(wire->n_output < wire->n_scored);
	request->n_top = wire->params.n_logprobs;
	request->n_scored = (int32_t) wire->n_scored;
	request->n_scores = (int32_t) wire->n_output;
	request->last_id = planned->prompt_ids[wire->n_prompt - 1];
	/* what transformers computes passes the whole prompt */
	planned->n_rotated = planned->n_prompt--;
	planned->n_prompt_rows = request->n_scored - request->n_scores;
	return true;
}

static bool
prepare_mean(const LlmExecutor *executor, LlmExecRequest *request,
			 LlmPlannerRequest *planned, LlmError *err)
{
	size_t hidden_size = (size_t) executor->config.hidden_size;

	request->sums = calloc(hidden_size, sizeof(double));
	if (request->sums == NULL)
		return llm_error_no_memory(err, hidden_size * sizeof(double),
								   "an embedding");
	planned->is_pooled = true;
	return true;
}

bool
llm_executor_prepare_answer(const LlmExecutor *executor,
							LlmExecRequest *request, const LlmWireRequest *wire,
							LlmPlannerRequest *planned, LlmError *err)
{
	assert(request->kind != LLM_REQUEST_GENERATE);
	planned->output_ids = NULL;
	planned->n_output = 0;
	planned->max_tokens = 0;
	if (request->kind == LLM_REQUEST_SCORE)
		return prepare_score(request, wire, planned, err);
	if (wire->n_output > 0)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "a request to embed has %u output tokens",
							 wire->n_output);
	return request->kind == LLM_REQUEST_EMBED_LAST ||
		   prepare_mean(executor, request, planned, err);
}

/* -- rows -- */

static void
fill_drawn_row(LlmExecutor *executor, const LlmExecRequest *request,
			   int32_t row_idx)
{
	int32_t n_prompt;
	int32_t n_output;
	const int32_t *ids =
		llm_sequence_ids(request->sequence, &n_prompt, &n_output);

	llm_sampler_fill_row(request->sampler, ids, n_prompt, ids + n_prompt,
						 n_output, &executor->rows[row_idx]);
	if (request->constraint != NULL)
		executor->rows[row_idx].allowed_mask = llm_constraints_add_row(
			executor->constraints, row_idx, request->constraint);
}

/* n_output is the scored token's number, as it is a drawn one's. */
static void
fill_scored_row(const LlmExecRequest *request, int32_t position,
				LlmSampleRow *row)
{
	int32_t n_computed;
	int32_t n_output;
	const int32_t *ids =
		llm_sequence_ids(request->sequence, &n_computed, &n_output);
	int32_t scored_idx = position + 1;

	assert(n_computed + 1 == (int32_t) request->n_prompt && n_output == 0);
	*row = (LlmSampleRow){ .params = llm_sampling_params_default() };
	row->params.n_logprobs = request->n_top;
	row->is_forced = true;
	row->forced_id =
		scored_idx < n_computed ? ids[scored_idx] : request->last_id;
	row->n_output = scored_idx - (n_computed + 1 - request->n_scored);
	assert(row->n_output >= 0 && row->n_output < request->n_scored);
}

/* Nobody draws from it: its prompt is embedded, or its request gone. */
static void
fill_idle_row(LlmSampleRow *row)
{
	*row = (LlmSampleRow){ .params = llm_sampling_params_default() };
	row->params.temperature = 0;
}

void
llm_executor_fill_rows(LlmExecutor *executor, const LlmDraw *draw)
{
	for (int32_t i = 0; i < draw->n_rows; i++)
	{
		const LlmExecRequest *request = draw->requests[i];

		if (request == NULL)
			fill_idle_row(&executor->rows[i]);
		else if (request->kind == LLM_REQUEST_GENERATE)
			fill_drawn_row(executor, request, i);
		else
			fill_scored_row(request, draw->positions[i], &executor->rows[i]);
	}
	if (executor->constraints != NULL)
		llm_constraints_start(executor->constraints);
}

static void
add_range(LlmExecutor *executor, int32_t seq_idx, int32_t first_row,
		  int32_t n_rows)
{
	assert(executor->n_ranges < executor->max_num_seqs);
	executor->ranges[executor->n_ranges] = (LlmRowRange){ first_row, n_rows };
	executor->range_seqs[executor->n_ranges++] = seq_idx;
}

/* The hidden states that count of a sequence to embed. */
static void
add_sums(LlmExecutor *executor, const LlmPlannedStep *step, int32_t seq_idx,
		 bool keeps_all_rows)
{
	const LlmPlannedSequence *planned = &step->sequences[seq_idx];
	const LlmExecRequest *request = llm_sequence_owner(planned->sequence);
	int32_t first = step->positions[planned->first_token];
	int32_t n_skipped = 0;

	if (request->kind == LLM_REQUEST_EMBED_LAST)
	{
		if (planned->logit_row >= 0)
			add_range(executor, seq_idx,
					  keeps_all_rows
						  ? planned->first_token + planned->n_tokens - 1
						  : planned->logit_row,
					  1);
		return;
	}
	assert(keeps_all_rows);
	if (request->n_summed > first)
		n_skipped = request->n_summed - first;
	if (n_skipped < planned->n_tokens)
		add_range(executor, seq_idx, planned->first_token + n_skipped,
				  planned->n_tokens - n_skipped);
}

static LlmRequestKind
kind_of(const LlmPlannedSequence *planned)
{
	return ((const LlmExecRequest *) llm_sequence_owner(planned->sequence))
		->kind;
}

/* The rows of a sequence: its last tokens of the step. */
static void
assign_sequence(const LlmPlannedStep *step, const LlmPlannedSequence *planned,
				LlmDraw *draw)
{
	bool is_drawn = kind_of(planned) == LLM_REQUEST_GENERATE ||
					kind_of(planned) == LLM_REQUEST_SCORE;

	for (int32_t i = 0; i < planned->n_logit_rows; i++)
	{
		int32_t row = planned->logit_row + i;

		draw->requests[row] =
			is_drawn ? llm_sequence_owner(planned->sequence) : NULL;
		draw->positions[row] = step->positions[step->logit_rows[row]];
		draw->n_rows += is_drawn;
	}
}

void
llm_executor_assign_rows(LlmExecutor *executor, const LlmPlannedStep *step,
						 LlmStepInputs *inputs, LlmDraw *draw)
{
	assert(step->n_logit_rows <= executor->max_num_seqs);
	executor->n_ranges = 0;
	draw->n_rows = 0;
	for (int32_t i = 0; i < step->n_seqs; i++)
	{
		const LlmPlannedSequence *planned = &step->sequences[i];

		assign_sequence(step, planned, draw);
		if (kind_of(planned) == LLM_REQUEST_EMBED_MEAN)
			inputs->keeps_all_rows = true;
	}
	inputs->skips_logits = draw->n_rows == 0;
	if (draw->n_rows > 0)
		draw->n_rows = step->n_logit_rows;
	for (int32_t i = 0; i < step->n_seqs; i++)
	{
		LlmRequestKind kind = kind_of(&step->sequences[i]);

		if (kind == LLM_REQUEST_EMBED_LAST || kind == LLM_REQUEST_EMBED_MEAN)
			add_sums(executor, step, i, inputs->keeps_all_rows);
	}
}

/* -- sums -- */

bool
llm_executor_take_sums(LlmExecutor *executor, const LlmPlannedStep *step,
					   int32_t range_idx, float **embedding)
{
	const LlmPlannedSequence *planned =
		&step->sequences[executor->range_seqs[range_idx]];
	LlmExecRequest *request = llm_sequence_owner(planned->sequence);
	int32_t hidden_size = executor->config.hidden_size;
	float *sums = executor->sums + (size_t) range_idx * (size_t) hidden_size;

	*embedding = sums;
	if (request->kind == LLM_REQUEST_EMBED_LAST)
		return true;
	for (int32_t i = 0; i < hidden_size; i++)
		request->sums[i] += (double) sums[i];
	request->n_summed += executor->ranges[range_idx].n_rows;
	assert(request->n_summed <= (int32_t) request->n_prompt);
	if (request->n_summed < (int32_t) request->n_prompt)
		return false;
	for (int32_t i = 0; i < hidden_size; i++)
		sums[i] = (float) (request->sums[i] / (double) request->n_summed);
	return true;
}
