/*
 * train_session_internal.h
 *	  What the files of a job's executor share.
 *
 *	  train_options.c	the TRAIN message's JSON
 *	  train_session.c	model, trainer and job; steps and evaluations
 *	  train_baseline.c	how the held-out rows do with another adapter
 *	  train_files.c		states, and the adapter
 *
 * src/engine/executor/train_session_internal.h
 */
#ifndef LLM_TRAIN_SESSION_INTERNAL_H
#define LLM_TRAIN_SESSION_INTERNAL_H

#include "src/common/util/mapped_file.h"
#include "src/engine/executor/train_session.h"

/* How evaluations went; it goes on with the job. */
typedef struct TrainProgress
{
	double best_loss; /* infinity: there was none */
	int64_t best_step;
	int64_t n_evals_since_best;
	double last_loss;	  /* NaN: there was none */
	double baseline_loss; /* of what the job is to be better than; NaN: there
						   * is no such thing */
} TrainProgress;

typedef struct TrainSession
{
	LlmExecutor *executor;
	LlmTrainRequest request;
	LlmTrainPair *pairs;
	LlmAdapterImage *initial;
	LlmMappedFile dataset_file;
	LlmMappedFile eval_file;
	LlmDataset *dataset;
	LlmDataset *eval_dataset; /* or NULL */
	LlmTrainer *trainer;
	LlmTrainJob *job;
	TrainProgress progress;
	LlmStrbuf best;	 /* the adapter's image as it was at best_step, if kept */
	bool is_stopped; /* early */
} TrainSession;

/* A module's weight as the checkpoint stores it. */
extern bool train_find_spec(const LlmModelConfig *config, LlmWeightRole role,
							int32_t layer_idx, LlmWeightSpec *spec);

/* ---- train_baseline.c ---- */

/* Evaluate request.baseline; the trainer is made anew, before its first step. */
extern bool train_measure_baseline(TrainSession *s, LlmError *err);

/* ---- train_files.c ---- */
extern bool train_load_state(TrainSession *s, LlmError *err);
extern bool train_save_state(TrainSession *s, int64_t step, LlmError *err);

/* The adapter as it is now becomes s->best. */
extern bool train_keep_best(TrainSession *s, LlmError *err);

/* The adapter to its file: the best one that was kept, or as it is now. */
extern bool train_write_adapter(TrainSession *s, LlmError *err);

#endif /* LLM_TRAIN_SESSION_INTERNAL_H */
