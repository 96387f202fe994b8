/*
 * train_loss.c
 *	  From the last layer to the labels' probabilities, and back.
 *
 * Only rows with a label reach the head, and their logits exist for
 * max_logit_rows of them at a time: on the way back a chunk's logits are
 * computed, become their own derivative (in place where activations are f32,
 * too), and are multiplied into d_rows at once.
 *
 * src/engine/train/train_loss.c
 */
#include <assert.h>

#include "src/engine/train/train_internal.h"

/* The final norm of the stream at the labels' rows. */
static bool
norm_rows(LlmTrainer *t, LlmError *err)
{
	const int32_t n = t->batch->n_labels;
	LlmGatherArgs gather = {
		.x = t->inputs[t->config->n_layers],
		.rows = t->device.label_rows,
		.out = t->rows,
		.n_rows = n,
		.dim = t->config->hidden_size,
	};

	return t->ops->gather(t->compute, &gather, err) &&
		   train_rms_norm(t,
						  llm_model_vector(t->model, LLM_WEIGHT_FINAL_NORM, -1),
						  t->rows, t->rows_normed, n, err);
}

/* Labels first .. first + n - 1. */
static bool
score_chunk(LlmTrainer *t, int32_t first, int32_t n, bool has_weights,
			LlmError *err)
{
	const int64_t hidden = t->config->hidden_size;
	LlmLinearArgs linear = { .x = train_act_at(t, t->rows_normed,
											   first * hidden),
							 .n_rows = n,
							 .n_parts = 1,
							 .out_is_f32 = true };
	LlmCrossEntropyArgs entropy = {
		.logits = t->logits,
		.labels = t->device.label_ids + first,
		.weights = has_weights ? t->device.weights + first : NULL,
		.d_logits = t->d_logits,
		.log_probs = t->device.log_probs + first,
		.n_rows = n,
		.n_vocab = t->config->n_vocab,
		.soft_cap = (float) t->config->logit_soft_cap,
	};

	linear.part[0].weight = llm_model_matrix(t->model, LLM_WEIGHT_LM_HEAD, -1);
	linear.part[0].out = t->logits;
	linear.part[0].out_stride = t->config->n_vocab;
	return t->train->linear(t->compute, &linear, err) &&
		   t->train->cross_entropy(t->compute, &entropy, err);
}

/* d_rows = d_logits W */
static bool
chunk_back(LlmTrainer *t, int32_t first, int32_t n, LlmError *err)
{
	const int64_t hidden = t->config->hidden_size;
	LlmMatrix head = llm_model_matrix(t->model, LLM_WEIGHT_LM_HEAD, -1);
	LlmProductArgs args = {
		.a = { t->d_logits, t->compute->activation_dtype, t->config->n_vocab,
			   false },
		.b = { head.data, head.dtype, head.n_cols, false },
		.m = n,
		.n = hidden,
		.k = t->config->n_vocab,
		.scale = 1,
		.out = train_act_at(t, t->d_rows, first * hidden),
		.out_dtype = t->compute->activation_dtype,
		.out_stride = hidden,
	};

	return t->train->product(t->compute, &args, err);
}

static bool
score_labels(LlmTrainer *t, bool goes_back, LlmError *err)
{
	const int32_t n_labels = t->batch->n_labels;
	const int32_t most = t->options.max_logit_rows;

	if (n_labels == 0)
		return true;
	if (!norm_rows(t, err))
		return false;
	for (int32_t first = 0; first < n_labels; first += most)
	{
		int32_t n = n_labels - first < most ? n_labels - first : most;

		if (!score_chunk(t, first, n, goes_back, err) ||
			(goes_back && !chunk_back(t, first, n, err)))
			return false;
	}
	return true;
}

/* Waits for all that was enqueued. */
static bool
read_log_probs(LlmTrainer *t, float *log_probs, LlmError *err)
{
	return t->ops->read(t->compute, log_probs, t->device.log_probs,
						(size_t) t->batch->n_labels * sizeof(float), err);
}

bool
llm_trainer_log_probs(LlmTrainer *t, float *log_probs, LlmError *err)
{
	assert(t->batch != NULL);
	return score_labels(t, false, err) && read_log_probs(t, log_probs, err);
}

/* d_stream, of which only labels' rows are not zero. */
static bool
rows_back(LlmTrainer *t, LlmError *err)
{
	LlmScatterArgs scatter = {
		.x = t->d_rows,
		.rows = t->device.label_rows,
		.out = t->scratch.d_stream,
		.n_rows = t->batch->n_labels,
		.n_out_rows = t->batch->n_tokens,
		.dim = t->config->hidden_size,
	};

	return train_rms_norm_back(
			   t, llm_model_vector(t->model, LLM_WEIGHT_FINAL_NORM, -1),
			   t->rows, t->d_rows, t->d_rows, false, t->batch->n_labels, err) &&
		   t->train->scatter(t->compute, &scatter, err);
}

bool
llm_trainer_backward(LlmTrainer *t, const float *weights, float *log_probs,
					 LlmError *err)
{
	const LlmTrainBatch *batch = t->batch;
	bool ok;

	assert(batch != NULL && t->is_training);
	if (batch->n_labels == 0)
	{
		t->batch = NULL;
		return true;
	}
	ok = t->ops->write(t->compute, t->device.weights, weights,
					   (size_t) batch->n_labels * sizeof(float), err) &&
		 score_labels(t, true, err) && rows_back(t, err) &&
		 train_layers_back(t, err) && read_log_probs(t, log_probs, err);
	t->batch = NULL;
	return ok;
}
