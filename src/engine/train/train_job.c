/*
 * train_job.c
 *	  A dataset's rows in epochs of shuffled steps.
 *
 * Each epoch is a permutation of the units (Fisher-Yates with Philox), made
 * when its first step comes.  The last step of an epoch has the units that
 * are left.
 *
 * src/engine/train/train_job.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/philox.h"
#include "src/engine/train/train_job_internal.h"

/* Sequences of random numbers beside the trainer's. */
#define SHUFFLE_SEQUENCE (UINT64_C(1) << 62)

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */

/* Put units in the order of an epoch. */
static void
order_epoch(LlmTrainJob *job, int64_t epoch)
{
	if (job->ordered == epoch)
		return;
	job->ordered = epoch;
	for (int64_t i = 0; i < job->rows.n_units; i++)
		job->order[i] = i;
	for (int64_t i = job->rows.n_units - 1;
		 i > 0 && !job->options.disable_shuffling; i--)
	{
		LlmPhilox draw = llm_philox(job->options.seed, (uint64_t) i,
									SHUFFLE_SEQUENCE + (uint64_t) epoch);
		uint64_t wide = (uint64_t) draw.word[0] << 32 | draw.word[1];
		int64_t j = (int64_t) (wide % (uint64_t) (i + 1));
		int64_t other = job->order[j];

		job->order[j] = job->order[i];
		job->order[i] = other;
	}
}

/* The rows of a step's units. */
static RowList
list_rows(LlmTrainJob *job, const int64_t *units, int64_t n_units)
{
	RowList list = { .idx = job->step_rows };

	for (int64_t i = 0; i < n_units; i++)
	{
		for (int64_t row = job_unit_first(&job->rows, units[i]);
			 row < job_unit_end(&job->rows, units[i]); row++)
			job->step_rows[list.n++] = row;
	}
	return list;
}

/* Per label of plain rows, per row of others. */
static double
mean_loss(const Sums *sums)
{
	return sums->loss /
		   (double) (sums->n_compared > 0 ? sums->n_compared : sums->n_labels);
}

/* NaN: of nothing */
static double
mean_of(double sum, int64_t n)
{
	return n > 0 ? sum / (double) n : NAN;
}

static LlmTrainRewards
rewards_of(const Sums *sums)
{
	const double chosen = mean_of(sums->reward_good, sums->n_good);
	const double rejected = mean_of(sums->reward_bad, sums->n_bad);

	return (LlmTrainRewards){
		.accuracy = mean_of((double) sums->n_right, sums->n_compared),
		.chosen = chosen,
		.rejected = rejected,
		.margin = chosen - rejected,
	};
}

bool
llm_train_job_step(LlmTrainJob *job, LlmTrainLog *log, bool *is_done,
				   LlmError *err)
{
	const int64_t step = llm_trainer_n_steps(job->trainer);
	const int64_t epoch = step / job->steps_per_epoch;
	const int64_t first = step % job->steps_per_epoch * job->step_units;
	int64_t n = job->rows.n_units - first;
	Sums sums = { 0 };

	*is_done = step >= job->n_steps;
	if (*is_done)
		return false;
	assert(job->rows.references == NULL ||
		   job->rows.n_referred == job->rows.n_rows);
	if (n > job->step_units)
		n = job->step_units;
	order_epoch(job, epoch);
	*log = (LlmTrainLog){
		.step = step + 1,
		.n_steps = job->n_steps,
		.epoch =
			(double) epoch + (double) (first + n) / (double) job->rows.n_units,
		.learning_rate = llm_learning_rate(&job->options.rate, step),
	};
	if (!job_train_rows(job, list_rows(job, job->order + first, n), &sums,
						err) ||
		!llm_trainer_update(job->trainer, log->learning_rate, &log->grad_norm,
							err))
		return false;
	log->n_tokens = sums.n_tokens;
	log->n_labels = sums.n_labels;
	log->loss = mean_loss(&sums);
	log->rewards = rewards_of(&sums);
	return true;
}

/* ------------------------------------------------------------------------
 * Without training
 * ------------------------------------------------------------------------
 */
static bool
needs_reference(const JobRows *rows)
{
	return rows->references != NULL && rows->n_referred < rows->n_rows;
}

bool
llm_train_job_refer(LlmTrainJob *job, bool *is_done, LlmError *err)
{
	JobRows *rows = needs_reference(&job->rows) ? &job->rows : &job->eval_rows;

	*is_done = !needs_reference(rows);
	assert(*is_done || llm_trainer_n_steps(job->trainer) == 0);
	return *is_done || job_refer(job, rows, err);
}

bool
llm_train_job_evaluate(LlmTrainJob *job, LlmTrainEval *eval, LlmError *err)
{
	Sums sums = { 0 };

	assert(job->eval_rows.dataset != NULL);
	assert(!needs_reference(&job->eval_rows));
	if (!job_score_rows(job, &sums, err))
		return false;
	*eval = (LlmTrainEval){
		.loss = mean_loss(&sums),
		.rewards = rewards_of(&sums),
	};
	return true;
}

/* ------------------------------------------------------------------------
 * Making
 * ------------------------------------------------------------------------
 */

/* As transformers counts: ceil(epochs * steps of an epoch). */
static void
count_steps(LlmTrainJob *job)
{
	LlmTrainJobOptions *o = &job->options;

	job->step_units = o->batch_size / job->rows.unit_rows;
	job->steps_per_epoch =
		(job->rows.n_units + job->step_units - 1) / job->step_units;
	job->n_steps = o->max_steps;
	if (job->n_steps == 0)
		job->n_steps =
			(int64_t) ceil(o->n_epochs * (double) job->steps_per_epoch);
	o->rate.n_steps = job->n_steps;
	if (o->rate.n_warmup_steps == 0)
		o->rate.n_warmup_steps =
			(int64_t) ceil(o->warmup_ratio * (double) job->n_steps);
}

static bool
alloc_lists(LlmTrainJob *job, LlmError *err)
{
	const size_t n_units = (size_t) job->rows.n_units;
	const size_t n_rows = (size_t) job->options.batch_size + 1;

	job->order = malloc(n_units * sizeof(int64_t));
	job->step_rows = malloc(n_rows * sizeof(int64_t));
	if (job->order == NULL || job->step_rows == NULL)
		return llm_error_no_memory(err, (n_units + n_rows) * sizeof(int64_t),
								   "a job's rows");
	return job_micro_alloc(job, err);
}

LlmTrainJob *
llm_train_job_create(LlmTrainer *trainer, const LlmDataset *dataset,
					 const LlmDataset *eval_dataset,
					 const LlmTrainJobOptions *options, LlmError *err)
{
	LlmTrainJob *job = calloc(1, sizeof(*job));

	assert(options->batch_size > 0);
	assert(eval_dataset == NULL ||
		   llm_dataset_kind(eval_dataset) == llm_dataset_kind(dataset));
	if (job == NULL)
	{
		llm_error_no_memory(err, sizeof(*job), "a job");
		return NULL;
	}
	job->trainer = trainer;
	job->options = *options;
	job->ordered = -1;
	if (job_rows_open(&job->rows, dataset, options, err) &&
		(eval_dataset == NULL ||
		 job_rows_open(&job->eval_rows, eval_dataset, options, err)))
	{
		count_steps(job);
		if (alloc_lists(job, err))
			return job;
	}
	llm_train_job_free(job);
	return NULL;
}

void
llm_train_job_free(LlmTrainJob *job)
{
	if (job == NULL)
		return;
	job_rows_close(&job->rows);
	job_rows_close(&job->eval_rows);
	free(job->order);
	free(job->step_rows);
	free(job->memory);
	free(job);
}

int64_t
llm_train_job_n_steps(const LlmTrainJob *job)
{
	return job->n_steps;
}

void
llm_train_job_set_trainer(LlmTrainJob *job, LlmTrainer *trainer)
{
	job->trainer = trainer;
}

/* ------------------------------------------------------------------------
 * States
 * ------------------------------------------------------------------------
 */
static size_t
reference_bytes(const JobRows *rows)
{
	return rows->references == NULL ? 0
									: (size_t) rows->n_rows * sizeof(Reference);
}

bool
llm_train_job_save(LlmTrainJob *job, LlmStrbuf *state, LlmError *err)
{
	const JobRows *parts[] = { &job->rows, &job->eval_rows };

	for (int i = 0; i < 2; i++)
	{
		assert(!needs_reference(parts[i]));
		if (reference_bytes(parts[i]) > 0)
			llm_strbuf_append(state, parts[i]->references,
							  reference_bytes(parts[i]));
	}
	if (state->failed)
		return llm_error_no_memory(err, reference_bytes(&job->rows),
								   "the state of training");
	return llm_trainer_save(job->trainer, state, err);
}

bool
llm_train_job_load(LlmTrainJob *job, const void *state, size_t n_bytes,
				   LlmError *err)
{
	JobRows *parts[] = { &job->rows, &job->eval_rows };
	const char *at = state;
	size_t n_first = reference_bytes(parts[0]) + reference_bytes(parts[1]);

	if (n_bytes < n_first)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the state of training is damaged");
	if (!llm_trainer_load(job->trainer, at + n_first, n_bytes - n_first, err))
		return false;
	for (int i = 0; i < 2; i++)
	{
		if (reference_bytes(parts[i]) == 0)
			continue;
		memcpy(parts[i]->references, at, reference_bytes(parts[i]));
		parts[i]->n_referred = parts[i]->n_rows;
		at += reference_bytes(parts[i]);
	}
	return true;
}
