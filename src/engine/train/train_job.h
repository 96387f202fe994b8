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
	LlmPreferenceOptions preference; /* of datasets of pairs */
	int32_t batch_size;				 /* rows of a step */
	double n_epochs;
	int64_t max_steps; /* 0: as many as n_epochs take */
	bool disable_shuffling;
	uint64_t seed;
	int32_t max_tokens;	 /* the trainer's */
	int32_t max_segment; /* likewise */
	LlmRateOptions rate; /* n_steps is filled in */
	double warmup_ratio; /* of all steps; where n_warmup_steps is 0 */
} LlmTrainJobOptions;

/* What a step was like. */
typedef struct LlmTrainLog
{
	int64_t step; /* the first is 1 */
	int64_t n_steps;
	double epoch; /* epochs that are through */
	double loss;  /* per label, or per pair */
	double learning_rate;
	double grad_norm;
	int64_t n_tokens; /* passed through the model */
	int64_t n_labels;
	double accuracy;	  /* pairs: share with the chosen one's reward higher */
	double reward_margin; /* pairs: mean */
} LlmTrainLog;

/*
 * The trainer and the dataset are borrowed.  A row that is longer than
 * max_segment, or does not fit max_tokens, is an error that names it.
 */
extern LlmTrainJob *
llm_train_job_create(LlmTrainer *trainer, const LlmDataset *dataset,
					 const LlmTrainJobOptions *options, LlmError *err);
extern void llm_train_job_free(LlmTrainJob *job);

extern int64_t llm_train_job_n_steps(const LlmTrainJob *job);

/*
 * What the losses compare with: the log-probabilities of row row_idx's pair
 * before the first step.  Once for every row, in order, before steps are
 * taken; nothing is to be done where the loss has no reference.
 */
extern bool
llm_train_job_refer(LlmTrainJob *job, int64_t row_idx, LlmError *err);
extern bool llm_train_job_needs_reference(const LlmTrainJob *job);

/* One step; false, with *err, or when *is_done says that there is none. */
extern bool llm_train_job_step(LlmTrainJob *job, LlmTrainLog *log,
							   bool *is_done, LlmError *err);

/*
 * The mean loss of a dataset's rows as they are now, each label weighing the
 * same (pairs: each pair).  The dataset is of the job's kind.
 */
extern bool llm_train_job_evaluate(LlmTrainJob *job, const LlmDataset *dataset,
								   double *loss, LlmError *err);

/* The trainer's state and the references; see llm_trainer_save. */
extern bool
llm_train_job_save(LlmTrainJob *job, LlmStrbuf *state, LlmError *err);
extern bool llm_train_job_load(LlmTrainJob *job, const void *state,
							   size_t n_bytes, LlmError *err);

#endif /* LLM_TRAIN_JOB_H */
