/*
 * train_job.c
 *	  A dataset's rows in epochs of shuffled steps.
 *
 * Each epoch is a permutation of the rows (Fisher-Yates with Philox), made
 * when its first step comes.  The last step of an epoch has the rows that are
 * left.  Losses are normalized over the step, whatever its micro-batches: by
 * all labels for plain rows, by all pairs otherwise.
 *
 * src/engine/train/train_job.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/philox.h"
#include "src/engine/train/train_job.h"

/* Sequences of random numbers beside the trainer's. */
#define SHUFFLE_SEQUENCE (UINT64_C(1) << 62)

/* A pair's reference. */
typedef struct Reference
{
	double chosen;
	double rejected;
} Reference;

/* A micro-batch as it fills. */
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
} Micro;

struct LlmTrainJob
{
	LlmTrainer *trainer;
	const LlmDataset *dataset;
	LlmTrainJobOptions options;
	int64_t n_rows;
	int64_t steps_per_epoch;
	int64_t n_steps;
	int64_t *order; /* [n_rows] of epoch "ordered" */
	int64_t ordered;
	Reference *references; /* [n_rows], or NULL */
	Micro micro;
	int32_t *memory; /* of the micro-batch */
};

/* Sums over a step, or over an evaluation. */
typedef struct Sums
{
	double loss;
	double margin;
	int64_t n_right;
	int64_t n_pairs;
	int64_t n_tokens;
	int64_t n_labels;
} Sums;

/* ------------------------------------------------------------------------
 * Micro-batches
 * ------------------------------------------------------------------------
 */
static bool
alloc_micro(LlmTrainJob *job, LlmError *err)
{
	const size_t n = (size_t) job->options.max_tokens + 1;
	Micro *m = &job->micro;
	int32_t *at;

	/* seven arrays of 4 bytes, one of 8 */
	job->memory = malloc(9 * n * sizeof(int32_t));
	if (job->memory == NULL)
		return llm_error_no_memory(err, 9 * n * sizeof(int32_t),
								   "a micro-batch");
	m->rows = (int64_t *) job->memory;
	at = job->memory + 2 * n;
	m->token_ids = at;
	m->segment_start = at + n;
	m->label_rows = at + 2 * n;
	m->label_ids = at + 3 * n;
	m->label_start = at + 4 * n;
	m->weights = (float *) (at + 5 * n);
	m->log_probs = (float *) (at + 6 * n);
	return true;
}

static void
clear_micro(Micro *m)
{
	m->n_tokens = 0;
	m->n_segments = 0;
	m->n_labels = 0;
	m->n_rows = 0;
	m->segment_start[0] = 0;
	m->label_start[0] = 0;
}

static void
add_example(Micro *m, const LlmExample *example)
{
	memcpy(m->token_ids + m->n_tokens, example->token_ids,
		   (size_t) example->n_tokens * sizeof(int32_t));
	for (int32_t i = 1; i < example->n_tokens; i++)
	{
		if (!example->is_label[i])
			continue;
		/* said by the token before it */
		m->label_rows[m->n_labels] = m->n_tokens + i - 1;
		m->label_ids[m->n_labels++] = example->token_ids[i];
	}
	m->n_tokens += example->n_tokens;
	m->segment_start[++m->n_segments] = m->n_tokens;
	m->label_start[m->n_segments] = m->n_labels;
}

static void
add_row(Micro *m, const LlmDatasetRow *row, int64_t row_idx)
{
	add_example(m, &row->first);
	if (row->second.n_tokens > 0)
		add_example(m, &row->second);
	m->rows[m->n_rows++] = row_idx;
}

static LlmTrainBatch
batch_of(const Micro *m)
{
	return (LlmTrainBatch){
		.n_tokens = m->n_tokens,
		.n_segments = m->n_segments,
		.n_labels = m->n_labels,
		.token_ids = m->token_ids,
		.segment_start = m->segment_start,
		.label_rows = m->label_rows,
		.label_ids = m->label_ids,
	};
}

static int32_t
row_tokens(const LlmDatasetRow *row)
{
	return row->first.n_tokens + row->second.n_tokens;
}

/* ------------------------------------------------------------------------
 * Losses
 * ------------------------------------------------------------------------
 */

/* The sum of a segment's log-probabilities. */
static double
segment_sum(const Micro *m, int32_t segment)
{
	double sum = 0;

	for (int32_t i = m->label_start[segment]; i < m->label_start[segment + 1];
		 i++)
		sum += (double) m->log_probs[i];
	return sum;
}

static void
weigh_segment(Micro *m, int32_t segment, double weight)
{
	for (int32_t i = m->label_start[segment]; i < m->label_start[segment + 1];
		 i++)
		m->weights[i] = (float) weight;
}

/* The losses of a micro-batch's pairs, each weighing "weight". */
static void
pair_losses(LlmTrainJob *job, const Reference *references, double weight,
			Sums *sums)
{
	Micro *m = &job->micro;

	for (int32_t i = 0; i < m->n_rows; i++)
	{
		LlmPreferencePair pair = {
			.chosen = segment_sum(m, 2 * i),
			.rejected = segment_sum(m, 2 * i + 1),
			.n_chosen = m->label_start[2 * i + 1] - m->label_start[2 * i],
			.n_rejected = m->label_start[2 * i + 2] - m->label_start[2 * i + 1],
		};
		LlmPreferenceResult result;

		if (references != NULL)
		{
			pair.ref_chosen = references[m->rows[i]].chosen;
			pair.ref_rejected = references[m->rows[i]].rejected;
		}
		result = llm_preference_loss(&job->options.preference, &pair);
		weigh_segment(m, 2 * i, -result.d_chosen * weight);
		weigh_segment(m, 2 * i + 1, -result.d_rejected * weight);
		sums->loss += result.loss;
		sums->margin += result.reward_chosen - result.reward_rejected;
		sums->n_right += result.reward_chosen > result.reward_rejected;
		sums->n_pairs++;
	}
}

static bool
is_pairs(const LlmTrainJob *job)
{
	return llm_dataset_kind(job->dataset) == LLM_DATASET_PAIRS;
}

/* The micro-batch there and back; "weight" is that of a label or a pair. */
static bool
train_micro(LlmTrainJob *job, double weight, Sums *sums, LlmError *err)
{
	Micro *m = &job->micro;
	const LlmTrainBatch batch = batch_of(m);

	if (!llm_trainer_forward(job->trainer, &batch, true, err))
		return false;
	if (is_pairs(job))
	{
		if (!llm_trainer_log_probs(job->trainer, m->log_probs, err))
			return false;
		pair_losses(job, job->references, weight, sums);
	}
	else
	{
		for (int32_t i = 0; i < m->n_labels; i++)
			m->weights[i] = (float) weight;
	}
	if (!llm_trainer_backward(job->trainer, m->weights, m->log_probs, err))
		return false;
	for (int32_t i = 0; i < m->n_labels && !is_pairs(job); i++)
		sums->loss -= (double) m->log_probs[i];
	sums->n_tokens += m->n_tokens;
	sums->n_labels += m->n_labels;
	return true;
}

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */

/* Put rows in the order of an epoch. */
static void
order_epoch(LlmTrainJob *job, int64_t epoch)
{
	if (job->ordered == epoch)
		return;
	job->ordered = epoch;
	for (int64_t i = 0; i < job->n_rows; i++)
		job->order[i] = i;
	for (int64_t i = job->n_rows - 1; i > 0 && !job->options.disable_shuffling;
		 i--)
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

/* The weight of a label, or of a pair, among a step's rows. */
static double
step_weight(const LlmTrainJob *job, const int64_t *rows, int64_t n)
{
	int64_t n_labels = 0;

	if (is_pairs(job))
		return 1 / (double) n;
	for (int64_t i = 0; i < n; i++)
	{
		LlmDatasetRow row = llm_dataset_row(job->dataset, rows[i]);

		n_labels += llm_example_n_labels(&row.first);
	}
	return 1 / (double) n_labels;
}

static bool
train_rows(LlmTrainJob *job, const int64_t *rows, int64_t n, Sums *sums,
		   LlmError *err)
{
	const double weight = step_weight(job, rows, n);
	Micro *m = &job->micro;

	clear_micro(m);
	for (int64_t i = 0; i < n; i++)
	{
		LlmDatasetRow row = llm_dataset_row(job->dataset, rows[i]);

		if (m->n_tokens + row_tokens(&row) > job->options.max_tokens)
		{
			if (!train_micro(job, weight, sums, err))
				return false;
			clear_micro(m);
		}
		add_row(m, &row, rows[i]);
	}
	return train_micro(job, weight, sums, err);
}

bool
llm_train_job_step(LlmTrainJob *job, LlmTrainLog *log, bool *is_done,
				   LlmError *err)
{
	const int64_t step = llm_trainer_n_steps(job->trainer);
	const int64_t epoch = step / job->steps_per_epoch;
	const int64_t first = step % job->steps_per_epoch * job->options.batch_size;
	int64_t n = job->n_rows - first;
	Sums sums = { 0 };

	*is_done = step >= job->n_steps;
	if (*is_done)
		return false;
	if (n > job->options.batch_size)
		n = job->options.batch_size;
	order_epoch(job, epoch);
	*log = (LlmTrainLog){
		.step = step + 1,
		.n_steps = job->n_steps,
		.epoch = (double) epoch + (double) (first + n) / (double) job->n_rows,
		.learning_rate = llm_learning_rate(&job->options.rate, step),
	};
	if (!train_rows(job, job->order + first, n, &sums, err) ||
		!llm_trainer_update(job->trainer, log->learning_rate, &log->grad_norm,
							err))
		return false;
	log->n_tokens = sums.n_tokens;
	log->n_labels = sums.n_labels;
	log->loss =
		sums.loss / (double) (is_pairs(job) ? sums.n_pairs : sums.n_labels);
	if (sums.n_pairs > 0)
	{
		log->accuracy = (double) sums.n_right / (double) sums.n_pairs;
		log->reward_margin = sums.margin / (double) sums.n_pairs;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Without training
 * ------------------------------------------------------------------------
 */
static bool
score_micro(LlmTrainJob *job, LlmError *err)
{
	const LlmTrainBatch batch = batch_of(&job->micro);

	return llm_trainer_forward(job->trainer, &batch, false, err) &&
		   llm_trainer_log_probs(job->trainer, job->micro.log_probs, err);
}

bool
llm_train_job_needs_reference(const LlmTrainJob *job)
{
	return job->references != NULL;
}

bool
llm_train_job_refer(LlmTrainJob *job, int64_t row_idx, LlmError *err)
{
	LlmDatasetRow row = llm_dataset_row(job->dataset, row_idx);

	if (job->references == NULL)
		return true;
	assert(llm_trainer_n_steps(job->trainer) == 0);
	clear_micro(&job->micro);
	add_row(&job->micro, &row, row_idx);
	if (!score_micro(job, err))
		return false;
	job->references[row_idx] =
		(Reference){ .chosen = segment_sum(&job->micro, 0),
					 .rejected = segment_sum(&job->micro, 1) };
	return true;
}

bool
llm_train_job_evaluate(LlmTrainJob *job, const LlmDataset *dataset,
					   double *loss, LlmError *err)
{
	Micro *m = &job->micro;
	Sums sums = { 0 };

	assert(llm_dataset_kind(dataset) == llm_dataset_kind(job->dataset));
	assert(job->references == NULL || dataset == job->dataset);
	for (int64_t i = 0; i < llm_dataset_n_rows(dataset); i++)
	{
		LlmDatasetRow row = llm_dataset_row(dataset, i);

		clear_micro(m);
		add_row(m, &row, i);
		if (!score_micro(job, err))
			return false;
		sums.n_labels += m->n_labels;
		if (is_pairs(job))
			pair_losses(job, job->references, 1, &sums);
		else
			sums.loss -= segment_sum(m, 0);
	}
	*loss = sums.loss / (double) (is_pairs(job) ? sums.n_pairs : sums.n_labels);
	return true;
}

/* ------------------------------------------------------------------------
 * Making
 * ------------------------------------------------------------------------
 */
static bool
check_rows(const LlmDataset *dataset, const LlmTrainJobOptions *options,
		   LlmError *err)
{
	for (int64_t i = 0; i < llm_dataset_n_rows(dataset); i++)
	{
		LlmDatasetRow row = llm_dataset_row(dataset, i);
		int32_t longest = row.first.n_tokens > row.second.n_tokens
							  ? row.first.n_tokens
							  : row.second.n_tokens;

		if (longest > options->max_segment)
			return llm_error_set(err, LLM_ERROR_LIMIT,
								 "row %lld of the dataset has %d tokens, at "
								 "most %d can be trained at a time",
								 (long long) i + 1, longest,
								 options->max_segment);
		if (row_tokens(&row) > options->max_tokens)
			return llm_error_set(err, LLM_ERROR_LIMIT,
								 "row %lld of the dataset has %d tokens in "
								 "both answers, a micro-batch holds %d",
								 (long long) i + 1, row_tokens(&row),
								 options->max_tokens);
	}
	return true;
}

/* As transformers counts: ceil(epochs * steps of an epoch). */
static void
count_steps(LlmTrainJob *job)
{
	LlmTrainJobOptions *o = &job->options;

	job->steps_per_epoch = (job->n_rows + o->batch_size - 1) / o->batch_size;
	job->n_steps = o->max_steps;
	if (job->n_steps == 0)
		job->n_steps =
			(int64_t) ceil(o->n_epochs * (double) job->steps_per_epoch);
	o->rate.n_steps = job->n_steps;
	if (o->rate.n_warmup_steps == 0)
		o->rate.n_warmup_steps =
			(int64_t) ceil(o->warmup_ratio * (double) job->n_steps);
}

LlmTrainJob *
llm_train_job_create(LlmTrainer *trainer, const LlmDataset *dataset,
					 const LlmTrainJobOptions *options, LlmError *err)
{
	LlmTrainJob *job;
	bool has_references =
		llm_dataset_kind(dataset) == LLM_DATASET_PAIRS &&
		llm_preference_needs_reference(options->preference.kind);
	size_t n_rows = (size_t) llm_dataset_n_rows(dataset);

	assert(options->batch_size > 0);
	if (!check_rows(dataset, options, err))
		return NULL;
	job = calloc(1, sizeof(*job));
	if (job == NULL)
	{
		llm_error_no_memory(err, sizeof(*job), "a job");
		return NULL;
	}
	job->trainer = trainer;
	job->dataset = dataset;
	job->options = *options;
	job->n_rows = (int64_t) n_rows;
	job->ordered = -1;
	count_steps(job);
	job->order = malloc(n_rows * sizeof(int64_t));
	if (has_references)
		job->references = calloc(n_rows, sizeof(Reference));
	if (job->order == NULL || (has_references && job->references == NULL))
		llm_error_no_memory(err, n_rows * sizeof(Reference), "a job's rows");
	else if (alloc_micro(job, err))
		return job;
	llm_train_job_free(job);
	return NULL;
}

void
llm_train_job_free(LlmTrainJob *job)
{
	if (job == NULL)
		return;
	free(job->order);
	free(job->references);
	free(job->memory);
	free(job);
}

int64_t
llm_train_job_n_steps(const LlmTrainJob *job)
{
	return job->n_steps;
}

/* ------------------------------------------------------------------------
 * States
 * ------------------------------------------------------------------------
 */
static size_t
reference_bytes(const LlmTrainJob *job)
{
	return job->references == NULL ? 0
								   : (size_t) job->n_rows * sizeof(Reference);
}

bool
llm_train_job_save(LlmTrainJob *job, LlmStrbuf *state, LlmError *err)
{
	if (reference_bytes(job) > 0)
		llm_strbuf_append(state, job->references, reference_bytes(job));
	if (state->failed)
		return llm_error_no_memory(err, reference_bytes(job),
								   "the state of training");
	return llm_trainer_save(job->trainer, state, err);
}

bool
llm_train_job_load(LlmTrainJob *job, const void *state, size_t n_bytes,
				   LlmError *err)
{
	const size_t n_first = reference_bytes(job);

	if (n_bytes < n_first)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the state of training is damaged");
	if (!llm_trainer_load(job->trainer, (const char *) state + n_first,
						  n_bytes - n_first, err))
		return false;
	if (n_first > 0)
		memcpy(job->references, state, n_first);
	return true;
}
