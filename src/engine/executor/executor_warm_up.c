/*
 * executor_warm_up.c
 *	  Steps before the first request: what a GPU chooses and records at the
 *	  first steps of a size is done when requests come.
 *
 * A decode step of each size of the backend's ladder runs twice: algorithms are
 * chosen in the first pass, and the second one is recorded.  Their tokens
 * belong to no sequence, so that nothing is written to the cache.
 *
 * src/engine/executor/executor_warm_up.c
 */
#include <stdlib.h>

#include "src/engine/executor/executor.h"

#define N_PASSES 2

/* Arrays of [max_num_seqs], all in one piece. */
typedef struct EmptyStep
{
	int32_t *zeros;
	int32_t *ones;
	int32_t *nobody; /* -1 */
	int32_t *counts; /* 0, 1, 2, ...; one more */
} EmptyStep;

static bool
make_empty_step(EmptyStep *step, int32_t n, LlmError *err)
{
	size_t n_items = 4 * (size_t) n + 1;
	int32_t *items = calloc(n_items, sizeof(int32_t));

	if (items == NULL)
		return llm_error_no_memory(err, n_items * sizeof(int32_t),
								   "the first steps");
	*step = (EmptyStep){ items, items + n, items + 2 * n, items + 3 * n };
	for (int32_t i = 0; i < n; i++)
	{
		step->ones[i] = 1;
		step->nobody[i] = -1;
		step->counts[i] = i;
	}
	step->counts[n] = n;
	return true;
}

static bool
pass(LlmExecutor *executor, const EmptyStep *step, int32_t n, bool is_prompt,
	 LlmError *err)
{
	LlmStepInputs host = {
		.n_tokens = n,
		.n_seqs = n,
		.n_logit_rows = n,
		.max_blocks_per_seq = 1,
		.max_query_len = 1,
		.max_context_len = 1,
		.is_prompt = is_prompt,
		.token_ids = step->zeros,
		.positions = step->zeros,
		.rope_rows = step->zeros,
		.token_seq = step->nobody,
		.query_start = step->counts,
		.context_len = step->ones,
		.block_tables = step->zeros,
		.logit_rows = step->counts,
	};
	LlmStepInputs device;
	float *logits;

	return executor->compute->ops->step_upload(executor->compute, &host,
											   &device, err) &&
		   llm_model_forward(executor->model, &device, executor->kv, &logits,
							 err);
}

/* As products' row counts are classed: powers of two, then by 16, by 32. */
static int32_t
next_size(int32_t n)
{
	return n < 16 ? 2 * n : n < 256 ? n + 16 : n + 32;
}

bool
llm_executor_warm_up(LlmExecutor *executor, LlmError *err)
{
	int32_t most = executor->max_num_seqs;
	EmptyStep step = { 0 };
	bool ok = true;

	if (!executor->is_cuda)
		return true;
	if (!make_empty_step(&step, most, err))
		return false;
	for (int32_t n = 1; ok && n < most; n = next_size(n))
		for (int i = 0; ok && i < N_PASSES; i++)
			ok = pass(executor, &step, n, false, err);
	for (int i = 0; ok && i < N_PASSES; i++)
		ok = pass(executor, &step, most, false, err);
	if (ok && executor->options.deterministic)
		ok = pass(executor, &step, 1, true, err);
	ok = ok && executor->compute->ops->sync(executor->compute, err);
	free(step.zeros);
	return ok;
}
