/*
 * train_session_internal.h
 *	  What the files of a job's executor share.
 *
 *	  train_options.c	the TRAIN message's JSON
 *	  train_session.c	model, trainer and job; steps and evaluations
 *	  train_baseline.c	how the held-out rows do with another adapter
 *	  train_files.c		states, and the adapter
 *	  train_budget.c	what a job takes, and whether there is as much
 *	  train_yield.c		pauses while requests are served
 *
 * src/engine/executor/train_session_internal.h
 */
#ifndef LLM_TRAIN_SESSION_INTERNAL_H
#define LLM_TRAIN_SESSION_INTERNAL_H

#include "src/common/ipc/busy_sign.h"
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

/*
 * The trainer's turns.  Where the job yields, layers are enqueued one by one,
 * and none while the sign says that there are requests: at most max_yield_ms
 * for a micro-batch, which then runs through, so that a job advances however
 * busy the server is.  A message in the channel, or its end, ends a pause.
 */
typedef struct TrainYield
{
	LlmExecutor *executor;
	LlmBusySign sign; /* open where the job yields */
	int64_t max_pause_us;
	int64_t batch_pause_us; /* of the micro-batch that is under way */
	int64_t n_pauses;		/* of the job */
	int64_t pause_us;
} TrainYield;

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
	TrainYield yield;
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

/* ---- train_budget.c ---- */

/*
 * Refuse a job that does not fit, with all numbers and before anything is
 * taken; choose what is computed again on the way back.  The device and the
 * sizes are set, and weights borrowed where they can be.
 */
extern bool train_plan_memory(LlmExecutor *executor, LlmTrainRequest *request,
							  LlmError *err);

/* ---- train_yield.c ---- */
extern bool train_yield_open(TrainYield *yield, LlmExecutor *executor,
							 const LlmTrainRequest *request, LlmError *err);

/* Tells of the pauses, too. */
extern void train_yield_close(TrainYield *yield);

/* An LlmTrainTurn; the argument is the TrainYield. */
extern bool train_yield_turn(void *yield, bool is_first, LlmError *err);

#endif /* LLM_TRAIN_SESSION_INTERNAL_H */
