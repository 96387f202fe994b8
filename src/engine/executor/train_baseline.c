/*
 * train_baseline.c
 *	  How the held-out rows do with another adapter, which the job is to be
 *	  better than.
 *
 * The adapter may be of any rank and of other modules, so it gets a trainer of
 * its own.  Two may not fit: the job's is given back meanwhile, and is made
 * again from the same seed, before its first step.  References stay the job's,
 * or losses of preferences could not be compared.
 *
 * src/engine/executor/train_baseline.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/engine/executor/train_session_internal.h"

/* The pairs of an image, which has them in the trainer's order. */
static LlmTrainPair *
pairs_of(const LlmAdapterImage *image, LlmError *err)
{
	LlmTrainPair *pairs = calloc((size_t) image->n_pairs, sizeof(*pairs));

	if (pairs == NULL)
	{
		llm_error_no_memory(err, (size_t) image->n_pairs * sizeof(*pairs),
							"an adapter's pairs");
		return NULL;
	}
	for (int32_t i = 0; i < image->n_pairs; i++)
	{
		const LlmAdapterPair *pair = &image->pairs[i];

		if (pair->layer_idx < 0)
		{
			llm_error_set(err, LLM_ERROR_UNSUPPORTED,
						  "the active version changes %s, with which a job "
						  "cannot evaluate it",
						  llm_adapter_module_name(pair->module));
			free(pairs);
			return NULL;
		}
		pairs[i] = (LlmTrainPair){
			.layer_idx = pair->layer_idx,
			.module = pair->module,
			.expert_idx = pair->expert_idx,
			.rank = pair->rank,
			.scale = pair->scale,
			.has_magnitude = pair->magnitude != NULL,
		};
	}
	return pairs;
}

/* In place of the trainer that there is. */
static bool
make_trainer(TrainSession *s, const LlmTrainOptions *options, LlmError *err)
{
	llm_trainer_free(s->trainer);
	s->trainer = llm_trainer_create(s->executor->model, options, err);
	if (s->trainer != NULL)
		llm_train_job_set_trainer(s->job, s->trainer);
	return s->trainer != NULL;
}

bool
train_measure_baseline(TrainSession *s, LlmError *err)
{
	LlmTrainOptions options = s->request.train;
	LlmAdapterImage *image =
		llm_adapter_image_open(s->request.baseline, &s->executor->config, err);
	LlmTrainPair *pairs = NULL;
	LlmTrainEval eval;
	bool ok;

	assert(llm_trainer_n_steps(s->trainer) == 0);
	if (image != NULL)
		pairs = pairs_of(image, err);
	if (pairs == NULL)
	{
		llm_adapter_image_close(image);
		return false;
	}
	options.pairs = pairs;
	options.n_pairs = image->n_pairs;
	options.initial = image;
	options.dropout = 0;
	ok = make_trainer(s, &options, err) &&
		 llm_train_job_evaluate(s->job, &eval, err) &&
		 make_trainer(s, &s->request.train, err);
	if (ok)
		s->progress.baseline_loss = eval.loss;
	free(pairs);
	llm_adapter_image_close(image);
	return ok;
}
