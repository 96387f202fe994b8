/*
 * train_job.h
 *	  A job: a dataset's rows in epochs of shuffled steps.
 *
 * A step takes batch_size rows, packs them into as few micro-batches as hold
 * them, and updates once.  Which rows a step takes, and their order, follows
 * from the seed and the step's number alone, so a job goes on from a state
 * with nothing but its counters.
 *
 * src/engine/train/train_job.h
 */
#ifndef LLM_TRAIN_JOB_H
#define LLM_TRAIN_JOB_H

#include "src/common/dataset/dataset.h"
#include "src/engine/train/learning_rate.h"
#include "src/engine/train/preference_loss.h"
#include "src/engine/train/train.h"

typedef struct LlmTrainJob LlmTrainJob;

typedef struct LlmTrainJobOptions
{
	LlmPreferenceOptions preference; /* of pairs and singles */
	int32_t batch_size;				 /* rows of a step */
	int32_t group_size;				 /* of singles: rows whose KL is estimated
									  * together; divides batch_size */
	double n_epochs;
	int64_t max_steps; /* 0: as many as n_epochs take */
	bool disable_shuffling;
	uint64_t seed;
	int32_t max_tokens;	 /* the trainer's */
	int32_t max_segment; /* likewise */
	LlmRateOptions rate; /* n_steps is filled in */
	double warmup_ratio; /* of all steps; where n_warmup_steps is 0 */
} LlmTrainJobOptions;

/* How well preferences are told apart; NaN: not known, as of plain rows. */
typedef struct LlmTrainRewards
{
	double accuracy; /* pairs: share with the chosen one's reward higher;
					  * singles: of answers that moved to the right side */
	double chosen;	 /* mean reward of chosen, or desirable, answers */
	double rejected;
	double margin; /* the one less the other */
} LlmTrainRewards;

/* What a step was like. */
typedef struct LlmTrainLog
{
	int64_t step; /* the first is 1 */
	int64_t n_steps;
	double epoch; /* epochs that are through */
	double loss;  /* per label of plain rows, else per row */
	double learning_rate;
	double grad_norm;
	int64_t n_tokens; /* passed through the model */
	int64_t n_labels;
	LlmTrainRewards rewards;
} LlmTrainLog;

/* How held-out rows do. */
typedef struct LlmTrainEval
{
	double loss; /* as in the log */
	LlmTrainRewards rewards;
} LlmTrainEval;

/*
 * Trainer and datasets are borrowed; eval_dataset, of the same kind, may be
 * NULL.  A row that is longer than max_segment, or does not fit max_tokens, is
 * an error that names it.
 */
extern LlmTrainJob *
llm_train_job_create(LlmTrainer *trainer, const LlmDataset *dataset,
					 const LlmDataset *eval_dataset,
					 const LlmTrainJobOptions *options, LlmError *err);
extern void llm_train_job_free(LlmTrainJob *job);

extern int64_t llm_train_job_n_steps(const LlmTrainJob *job);

/*
 * Go on with another trainer on the same model, with limits as large: to
 * evaluate what it holds beside the same references.  Borrowed, too.
 */
extern void llm_train_job_set_trainer(LlmTrainJob *job, LlmTrainer *trainer);

/*
 * What the losses compare with: the log-probabilities of all rows before the
 * first step, of the adapter as it is then.  One micro-batch a call, until
 * *is_done; it is at once where the loss has no reference, or a state brought
 * them.
 */
extern bool llm_train_job_refer(LlmTrainJob *job, bool *is_done, LlmError *err);

/* One step; false, with *err, or when *is_done says that there is none. */
extern bool llm_train_job_step(LlmTrainJob *job, LlmTrainLog *log,
							   bool *is_done, LlmError *err);

/* The held-out rows as the adapter is now. */
extern bool
llm_train_job_evaluate(LlmTrainJob *job, LlmTrainEval *eval, LlmError *err);

/* The trainer's state and the references; see llm_trainer_save. */
extern bool
llm_train_job_save(LlmTrainJob *job, LlmStrbuf *state, LlmError *err);
extern bool llm_train_job_load(LlmTrainJob *job, const void *state,
							   size_t n_bytes, LlmError *err);

#endif /* LLM_TRAIN_JOB_H */
