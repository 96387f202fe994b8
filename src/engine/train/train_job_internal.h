/*
 * train_job_internal.h
 *	  What the files of jobs share.
 *
 *	  train_job.c	a job: epochs, steps, states
 *	  train_rows.c	rows in micro-batches: losses, references
 *
 * src/engine/train/train_job_internal.h
 */
#ifndef LLM_TRAIN_JOB_INTERNAL_H
#define LLM_TRAIN_JOB_INTERNAL_H

#include "src/engine/train/train_job.h"

/* Log-probabilities of a row before the first step. */
typedef struct Reference
{
	double first;  /* of the chosen answer, or of a single one */
	double second; /* of the rejected one; of singles that of the neighbour's
					* answer to this row's prompt */
} Reference;

/*
 * A micro-batch as it fills.  A row is one or two segments, which follow each
 * other.
 */
typedef struct Micro
{
	int32_t n_tokens;
	int32_t n_segments;
	int32_t n_labels;
	int32_t n_rows;
	int32_t *token_ids;		/* [max_tokens] */
	int32_t *segment_start; /* [max_tokens + 1] */
	int32_t *label_rows;	/* [max_tokens] */
	int32_t *label_ids;
	int32_t *label_start; /* [max_tokens + 1] first label of each segment */
	int64_t *rows;		  /* [max_tokens] dataset rows */
	float *weights;
	float *log_probs;
	uint8_t *is_answer; /* of labels: not one of the prompt's */
} Micro;

/*
 * A dataset with what is known of its rows.  What is shuffled are units: a
 * row, or of singles a group of rows, whose KL is estimated together.
 */
typedef struct JobRows
{
	const LlmDataset *dataset; /* NULL: there are none */
	int64_t n_rows;
	int64_t n_units;
	int32_t unit_rows;	   /* the last unit may have fewer, or one more */
	Reference *references; /* [n_rows], or NULL */
	int64_t n_referred;
	double *kl; /* [n_units] of singles: as the step's model has it */
} JobRows;

struct LlmTrainJob
{
	LlmTrainer *trainer;
	LlmTrainJobOptions options;
	JobRows rows;
	JobRows eval_rows;
	int32_t step_units; /* of a full step */
	int64_t steps_per_epoch;
	int64_t n_steps;
	int64_t *order; /* [n_units] of epoch "ordered" */
	int64_t ordered;
	int64_t *step_rows; /* [step_units * unit_rows + 1] */
	Micro micro;
	int32_t *memory; /* of the micro-batch */
};

/* Sums over a step, or over an evaluation. */
typedef struct Sums
{
	double loss;
	int64_t n_compared; /* pairs, or singles */
	int64_t n_right;
	double reward_good; /* chosen or desirable ones */
	double reward_bad;
	int64_t n_good;
	int64_t n_bad;
	int64_t n_tokens;
	int64_t n_labels;
} Sums;

/* Rows of a dataset to go through; idx NULL: rows 0 .. n - 1. */
typedef struct RowList
{
	const int64_t *idx;
	int64_t n;
	int64_t next;
} RowList;

/* A unit's rows: first .. end - 1. */
static inline int64_t
job_unit_first(const JobRows *rows, int64_t unit)
{
	return unit * rows->unit_rows;
}

static inline int64_t
job_unit_end(const JobRows *rows, int64_t unit)
{
	return unit == rows->n_units - 1 ? rows->n_rows
									 : (unit + 1) * rows->unit_rows;
}

/* ---- train_rows.c ---- */
extern bool job_rows_open(JobRows *rows, const LlmDataset *dataset,
						  const LlmTrainJobOptions *options, LlmError *err);
extern void job_rows_close(JobRows *rows);
extern bool job_micro_alloc(LlmTrainJob *job, LlmError *err);

/* The next micro-batch of references; there must be rows left. */
extern bool job_refer(LlmTrainJob *job, JobRows *rows, LlmError *err);

/* A step's rows there and back. */
extern bool
job_train_rows(LlmTrainJob *job, RowList list, Sums *sums, LlmError *err);

/* All held-out rows, without going back. */
extern bool job_score_rows(LlmTrainJob *job, Sums *sums, LlmError *err);

#endif /* LLM_TRAIN_JOB_INTERNAL_H */
