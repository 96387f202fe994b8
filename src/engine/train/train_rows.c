/*
 * train_rows.c
 *	  Rows in micro-batches: their losses, there and back, and what these
 *	  compare with.
 *
 * Losses are normalized over the step, whatever its micro-batches: by all
 * labels for plain rows, by all rows otherwise.
 *
 * Singles are judged against how far the model as a whole has moved, which
 * KTO (Ethayarajh et al. 2024) estimates as TRL does: within a group every
 * prompt is given the answer of the row before it (the first that of the
 * last), and the mean gain of these over the reference, if positive, is the
 * group's KL.  It is a constant for the gradients.
 *
 * src/engine/train/train_rows.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/engine/train/train_job_internal.h"

/* What of a row becomes segments. */
typedef enum RowForm
{
	ROW_AS_IT_IS,
	ROW_MISMATCHED, /* its prompt with the neighbour's answer */
	ROW_REFERENCE	/* all that is compared with later */
} RowForm;

/* ------------------------------------------------------------------------
 * Datasets
 * ------------------------------------------------------------------------
 */
static bool
is_kind(const JobRows *rows, LlmDatasetKind kind)
{
	return llm_dataset_kind(rows->dataset) == kind;
}

/* ORPO as TRL has it: the likelihood is also the prompt's. */
static bool
learns_prompts(const LlmTrainJob *job, const JobRows *rows)
{
	const LlmPreferenceOptions *options = &job->options.preference;

	return is_kind(rows, LLM_DATASET_PAIRS) && options->orpo_full_nll &&
		   options->kind == LLM_PREFERENCE_ORPO;
}

static int64_t
unit_of(const JobRows *rows, int64_t row_idx)
{
	int64_t unit = row_idx / rows->unit_rows;

	return unit < rows->n_units ? unit : rows->n_units - 1;
}

/* The row of the group whose answer a row is given. */
static int64_t
neighbour_of(const JobRows *rows, int64_t row_idx)
{
	int64_t unit = unit_of(rows, row_idx);

	return row_idx == job_unit_first(rows, unit) ? job_unit_end(rows, unit) - 1
												 : row_idx - 1;
}

/* Where the answer begins: the first token that is learned. */
static int32_t
prompt_tokens(const LlmExample *example)
{
	int32_t n = 0;

	while (example->is_label[n] == 0)
		n++;
	return n;
}

/* Tokens of the mismatched sequence, cut at the longest segment. */
static int32_t
mismatched_tokens(const LlmExample *prompt, const LlmExample *answer,
				  int32_t max_segment)
{
	int32_t n =
		prompt_tokens(prompt) + answer->n_tokens - prompt_tokens(answer);

	return n < max_segment ? n : max_segment;
}

static int32_t
row_tokens(const JobRows *rows, int64_t row_idx, RowForm form,
		   int32_t max_segment)
{
	LlmDatasetRow row = llm_dataset_row(rows->dataset, row_idx);
	LlmDatasetRow other;
	int32_t n = 0;

	if (form != ROW_MISMATCHED)
		n = row.first.n_tokens + row.second.n_tokens;
	if (form == ROW_AS_IT_IS || !is_kind(rows, LLM_DATASET_SINGLES))
		return n;
	other = llm_dataset_row(rows->dataset, neighbour_of(rows, row_idx));
	return n + mismatched_tokens(&row.first, &other.first, max_segment);
}

static bool
check_row(const JobRows *rows, const LlmTrainJobOptions *options, int64_t i,
		  LlmError *err)
{
	LlmDatasetRow row = llm_dataset_row(rows->dataset, i);
	int32_t longest = row.first.n_tokens > row.second.n_tokens
						  ? row.first.n_tokens
						  : row.second.n_tokens;
	int32_t n_tokens;

	if (longest > options->max_segment)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "row %lld of the dataset has %d tokens, at most "
							 "%d can be trained at a time",
							 (long long) i + 1, longest, options->max_segment);
	n_tokens = row_tokens(rows, i, ROW_REFERENCE, options->max_segment);
	if (n_tokens > options->max_tokens)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "row %lld of the dataset has %d tokens in both "
							 "answers, a micro-batch holds %d",
							 (long long) i + 1, n_tokens, options->max_tokens);
	return true;
}

static bool
check_groups(const JobRows *rows, const LlmTrainJobOptions *options,
			 LlmError *err)
{
	if (options->group_size < 2)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "KTO takes at least 2 rows at a time, not %d: a "
							 "row's KL is estimated with its neighbour's "
							 "answer",
							 options->group_size);
	if (options->batch_size % options->group_size != 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "a step of %d rows is no multiple of the %d rows "
							 "that KTO takes at a time",
							 options->batch_size, options->group_size);
	if (rows->n_rows < 2)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "KTO needs at least 2 rows");
	return true;
}

bool
job_rows_open(JobRows *rows, const LlmDataset *dataset,
			  const LlmTrainJobOptions *options, LlmError *err)
{
	const LlmDatasetKind kind = llm_dataset_kind(dataset);
	bool has_references =
		kind == LLM_DATASET_SINGLES ||
		(kind == LLM_DATASET_PAIRS &&
		 llm_preference_needs_reference(options->preference.kind));

	rows->dataset = dataset;
	rows->n_rows = llm_dataset_n_rows(dataset);
	rows->unit_rows = 1;
	if (kind == LLM_DATASET_SINGLES)
	{
		if (!check_groups(rows, options, err))
			return false;
		rows->unit_rows = options->group_size;
	}
	/* a row that is left over alone has no neighbour: it joins the last group */
	rows->n_units =
		rows->n_rows / rows->unit_rows + (rows->n_rows % rows->unit_rows > 1);
	for (int64_t i = 0; i < rows->n_rows; i++)
	{
		if (!check_row(rows, options, i, err))
			return false;
	}
	if (has_references)
		rows->references = calloc((size_t) rows->n_rows, sizeof(Reference));
	if (kind == LLM_DATASET_SINGLES)
		rows->kl = calloc((size_t) rows->n_units, sizeof(double));
	if ((has_references && rows->references == NULL) ||
		(kind == LLM_DATASET_SINGLES && rows->kl == NULL))
		return llm_error_no_memory(err,
								   (size_t) rows->n_rows * sizeof(Reference),
								   "a job's references");
	return true;
}

void
job_rows_close(JobRows *rows)
{
	free(rows->references);
	free(rows->kl);
}

/* ------------------------------------------------------------------------
 * Micro-batches
 * ------------------------------------------------------------------------
 */
bool
job_micro_alloc(LlmTrainJob *job, LlmError *err)
{
	const size_t n = (size_t) job->options.max_tokens + 1;
	Micro *m = &job->micro;
	int32_t *at;

	/* one array of 8 bytes, seven of 4, one of 1 */
	job->memory = malloc(9 * n * sizeof(int32_t) + n);
	if (job->memory == NULL)
		return llm_error_no_memory(err, 9 * n * sizeof(int32_t) + n,
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
	m->is_answer = (uint8_t *) (at + 7 * n);
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

/*
 * Tokens first .. end - 1 of an example, at the end of the last segment.
 * learns_all: those that are no labels of the example count as the prompt's.
 */
static void
add_tokens(Micro *m, const LlmExample *example, int32_t first, int32_t end,
		   bool learns_all)
{
	for (int32_t i = first; i < end; i++)
	{
		const int32_t at = m->n_tokens++;
		const bool is_first = at == m->segment_start[m->n_segments];

		m->token_ids[at] = example->token_ids[i];
		if (!example->is_label[i] && (is_first || !learns_all))
			continue;
		/* said by the token before it */
		assert(!is_first);
		m->label_rows[m->n_labels] = at - 1;
		m->is_answer[m->n_labels] = example->is_label[i];
		m->label_ids[m->n_labels++] = example->token_ids[i];
	}
}

static void
end_segment(Micro *m)
{
	m->segment_start[++m->n_segments] = m->n_tokens;
	m->label_start[m->n_segments] = m->n_labels;
}

static void
add_example(Micro *m, const LlmExample *example, bool learns_all)
{
	add_tokens(m, example, 0, example->n_tokens, learns_all);
	end_segment(m);
}

static void
add_mismatched(Micro *m, const LlmExample *prompt, const LlmExample *answer,
			   int32_t max_segment)
{
	int32_t n = mismatched_tokens(prompt, answer, max_segment);
	int32_t n_prompt = prompt_tokens(prompt);
	int32_t first = prompt_tokens(answer);

	add_tokens(m, prompt, 0, n_prompt, false);
	add_tokens(m, answer, first, first + n - n_prompt, false);
	end_segment(m);
}

static void
add_row(LlmTrainJob *job, const JobRows *rows, int64_t row_idx, RowForm form)
{
	Micro *m = &job->micro;
	LlmDatasetRow row = llm_dataset_row(rows->dataset, row_idx);

	m->rows[m->n_rows++] = row_idx;
	if (form != ROW_MISMATCHED)
		add_example(m, &row.first, learns_prompts(job, rows));
	if (row.second.n_tokens > 0)
		add_example(m, &row.second, false);
	if (form != ROW_AS_IT_IS && is_kind(rows, LLM_DATASET_SINGLES))
	{
		LlmDatasetRow other =
			llm_dataset_row(rows->dataset, neighbour_of(rows, row_idx));

		add_mismatched(m, &row.first, &other.first, job->options.max_segment);
	}
}

/* A micro-batch of the next rows, as many as fit; false: there are none. */
static bool
fill_micro(LlmTrainJob *job, const JobRows *rows, RowList *list, RowForm form)
{
	Micro *m = &job->micro;

	clear_micro(m);
	for (; list->next < list->n; list->next++)
	{
		int64_t row_idx =
			list->idx == NULL ? list->next : list->idx[list->next];
		int32_t n = row_tokens(rows, row_idx, form, job->options.max_segment);

		if (m->n_tokens + n > job->options.max_tokens)
			break;
		add_row(job, rows, row_idx, form);
	}
	return m->n_rows > 0;
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

/* ------------------------------------------------------------------------
 * Losses
 * ------------------------------------------------------------------------
 */

/*
 * What counts how much, among all rows that are looked at: a row, and a label
 * of its own.  Of plain rows labels alone do, and of ORPO's pairs also those
 * of prompts, if they do.
 */
typedef struct Weights
{
	double row;
	double label;
} Weights;

/* The sum of a segment's log-probabilities: of the answer, or of all. */
static double
segment_sum(const Micro *m, int32_t segment, bool with_prompt)
{
	double sum = 0;

	for (int32_t i = m->label_start[segment]; i < m->label_start[segment + 1];
		 i++)
		sum += with_prompt || m->is_answer[i] ? (double) m->log_probs[i] : 0;
	return sum;
}

/* Labels of the answer. */
static int32_t
segment_labels(const Micro *m, int32_t segment)
{
	int32_t n = 0;

	for (int32_t i = m->label_start[segment]; i < m->label_start[segment + 1];
		 i++)
		n += m->is_answer[i];
	return n;
}

/* Each label, and besides each of the answer. */
static void
weigh_segment(Micro *m, int32_t segment, double all, double answer)
{
	for (int32_t i = m->label_start[segment]; i < m->label_start[segment + 1];
		 i++)
		m->weights[i] = (float) (all + (m->is_answer[i] ? answer : 0));
}

static void
count_reward(Sums *sums, double reward, bool is_good)
{
	*(is_good ? &sums->reward_good : &sums->reward_bad) += reward;
	*(is_good ? &sums->n_good : &sums->n_bad) += 1;
}

/* The loss of the micro-batch's pair i. */
static void
pair_loss(LlmTrainJob *job, const JobRows *rows, int32_t i, Weights weights,
		  Sums *sums)
{
	Micro *m = &job->micro;
	LlmPreferencePair pair = {
		.chosen = segment_sum(m, 2 * i, false),
		.rejected = segment_sum(m, 2 * i + 1, false),
		.n_chosen = segment_labels(m, 2 * i),
		.n_rejected = segment_labels(m, 2 * i + 1),
	};
	LlmPreferenceResult result;

	if (rows->references != NULL)
	{
		pair.ref_chosen = rows->references[m->rows[i]].first;
		pair.ref_rejected = rows->references[m->rows[i]].second;
	}
	result = llm_preference_loss(&job->options.preference, &pair);
	weigh_segment(m, 2 * i, weights.label, -result.d_chosen * weights.row);
	weigh_segment(m, 2 * i + 1, 0, -result.d_rejected * weights.row);
	sums->loss += result.loss;
	/* the sum is divided by the number of rows in the end */
	if (weights.label > 0)
		sums->loss -= segment_sum(m, 2 * i, true) * weights.label / weights.row;
	sums->n_compared++;
	sums->n_right += result.reward_chosen > result.reward_rejected;
	count_reward(sums, result.reward_chosen, true);
	count_reward(sums, result.reward_rejected, false);
}

static void
single_loss(LlmTrainJob *job, const JobRows *rows, int32_t i, Weights weights,
			Sums *sums)
{
	Micro *m = &job->micro;
	const int64_t row_idx = m->rows[i];
	LlmPreferenceSingle single = {
		.answer = segment_sum(m, i, false),
		.ref_answer = rows->references[row_idx].first,
		.kl = rows->kl[unit_of(rows, row_idx)],
		.n_labels = segment_labels(m, i),
		.is_desirable = llm_dataset_row(rows->dataset, row_idx).is_desirable,
	};
	LlmSingleResult result = llm_single_loss(&job->options.preference, &single);

	weigh_segment(m, i, 0, -result.d_answer * weights.row);
	sums->loss += result.loss;
	sums->n_compared++;
	sums->n_right += result.is_right;
	count_reward(sums, result.reward, single.is_desirable);
}

/*
 * The losses of a micro-batch whose log-probabilities are there, and what
 * they weigh its labels with.
 */
static void
micro_losses(LlmTrainJob *job, const JobRows *rows, Weights weights, Sums *sums)
{
	Micro *m = &job->micro;

	for (int32_t i = 0; i < m->n_rows; i++)
	{
		switch (llm_dataset_kind(rows->dataset))
		{
			case LLM_DATASET_PLAIN:
				sums->loss -= segment_sum(m, i, false);
				break;
			case LLM_DATASET_PAIRS:
				pair_loss(job, rows, i, weights, sums);
				break;
			case LLM_DATASET_SINGLES:
				single_loss(job, rows, i, weights, sums);
				break;
		}
	}
	sums->n_tokens += m->n_tokens;
	sums->n_labels += m->n_labels;
}

static bool
score_micro(LlmTrainJob *job, LlmError *err)
{
	const LlmTrainBatch batch = batch_of(&job->micro);

	return llm_trainer_forward(job->trainer, &batch, false, err) &&
		   llm_trainer_log_probs(job->trainer, job->micro.log_probs, err);
}

/* The KL of each group in the list, which has groups as a whole. */
static bool
estimate_kl(LlmTrainJob *job, JobRows *rows, RowList list, LlmError *err)
{
	const Micro *m = &job->micro;

	if (rows->kl == NULL)
		return true;
	memset(rows->kl, 0, (size_t) rows->n_units * sizeof(double));
	while (fill_micro(job, rows, &list, ROW_MISMATCHED))
	{
		if (!score_micro(job, err))
			return false;
		for (int32_t i = 0; i < m->n_rows; i++)
			rows->kl[unit_of(rows, m->rows[i])] +=
				segment_sum(m, i, false) - rows->references[m->rows[i]].second;
	}
	for (int64_t unit = 0; unit < rows->n_units; unit++)
	{
		double n =
			(double) (job_unit_end(rows, unit) - job_unit_first(rows, unit));

		rows->kl[unit] = rows->kl[unit] > 0 ? rows->kl[unit] / n : 0;
	}
	return true;
}

bool
job_refer(LlmTrainJob *job, JobRows *rows, LlmError *err)
{
	const Micro *m = &job->micro;
	RowList list = { .n = rows->n_rows, .next = rows->n_referred };

	assert(rows->references != NULL && rows->n_referred < rows->n_rows);
	(void) fill_micro(job, rows, &list, ROW_REFERENCE);
	if (!score_micro(job, err))
		return false;
	for (int32_t i = 0; i < m->n_rows; i++)
		rows->references[m->rows[i]] =
			(Reference){ .first = segment_sum(m, 2 * i, false),
						 .second = segment_sum(m, 2 * i + 1, false) };
	rows->n_referred = list.next;
	return true;
}

/* ------------------------------------------------------------------------
 * There and back
 * ------------------------------------------------------------------------
 */

static Weights
weigh_rows(const LlmTrainJob *job, const JobRows *rows, const RowList *list)
{
	const bool is_plain = is_kind(rows, LLM_DATASET_PLAIN);
	const bool learns_all = learns_prompts(job, rows);
	int64_t n_labels = 0;

	for (int64_t i = 0; (is_plain || learns_all) && i < list->n; i++)
	{
		LlmDatasetRow row = llm_dataset_row(
			rows->dataset, list->idx == NULL ? i : list->idx[i]);

		/* all but the first token, which nothing says */
		n_labels += learns_all ? row.first.n_tokens - 1
							   : llm_example_n_labels(&row.first);
	}
	return (Weights){ .row = is_plain ? 0 : 1 / (double) list->n,
					  .label = n_labels > 0 ? 1 / (double) n_labels : 0 };
}

/* The micro-batch there and back. */
static bool
train_micro(LlmTrainJob *job, Weights weights, Sums *sums, LlmError *err)
{
	Micro *m = &job->micro;
	LlmTrainBatch batch = batch_of(m);
	/* of plain rows the weights are known, the losses come with them */
	const bool is_plain = is_kind(&job->rows, LLM_DATASET_PLAIN);

	batch.router_weight =
		is_plain ? weights.label * m->n_labels : weights.row * m->n_rows;
	if (!llm_trainer_forward(job->trainer, &batch, true, err))
		return false;
	for (int32_t i = 0; i < m->n_labels; i++)
		m->weights[i] = (float) weights.label;
	if (!is_plain)
	{
		if (!llm_trainer_log_probs(job->trainer, m->log_probs, err))
			return false;
		micro_losses(job, &job->rows, weights, sums);
	}
	if (!llm_trainer_backward(job->trainer, m->weights, m->log_probs, err))
		return false;
	if (is_plain)
		micro_losses(job, &job->rows, weights, sums);
	return true;
}

bool
job_train_rows(LlmTrainJob *job, RowList list, Sums *sums, LlmError *err)
{
	const Weights weights = weigh_rows(job, &job->rows, &list);

	if (!estimate_kl(job, &job->rows, list, err))
		return false;
	while (fill_micro(job, &job->rows, &list, ROW_AS_IT_IS))
	{
		if (!train_micro(job, weights, sums, err))
			return false;
	}
	return true;
}

bool
job_score_rows(LlmTrainJob *job, Sums *sums, LlmError *err)
{
	JobRows *rows = &job->eval_rows;
	RowList list = { .n = rows->n_rows };
	const Weights weights = weigh_rows(job, rows, &list);

	if (!estimate_kl(job, rows, list, err))
		return false;
	while (fill_micro(job, rows, &list, ROW_AS_IT_IS))
	{
		if (!score_micro(job, err))
			return false;
		micro_losses(job, rows, weights, sums);
	}
	return true;
}
