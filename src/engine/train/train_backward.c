/*
 * train_backward.c
 *	  Gradients through the layers.
 *
 * d_stream is the loss's derivative with respect to the stream: behind a
 * layer when a layer begins, before it when it is through.  Both halves of a
 * layer add to the stream, so d_stream passes unchanged and gets the half's
 * part on top.  The first layer's input is not trained: its projections of q,
 * k and v pass nothing further back.
 *
 * src/engine/train/train_backward.c
 */
#include <assert.h>

#include "src/engine/train/train_internal.h"

bool
train_rms_norm_back(LlmTrainer *t, LlmVector weight, const void *x,
					const void *d_y, void *d_x, bool adds, int32_t n_rows,
					LlmError *err)
{
	LlmRmsNormBackArgs args = {
		.x = x,
		.d_y = d_y,
		.weight = weight,
		.d_x = d_x,
		.n_rows = n_rows,
		.dim = (int32_t) weight.n,
		.eps = (float) t->config->norm_eps,
		.weight_offset = t->config->norm_adds_one ? 1 : 0,
		.adds = adds,
	};

	return t->train->rms_norm_back(t->compute, &args, err);
}

/*
 * m->y = what reaches a block's output, which is module m's, from d_stream:
 * d_stream itself where there is no norm between, or a copy of it where the
 * way back overwrites y.
 */
static bool
leave_stream(LlmTrainer *t, LlmWeightRole norm, int32_t layer_idx,
			 const void *block, Module *m, LlmError *err)
{
	const int32_t n = t->batch->n_tokens;
	TrainScratch *s = &t->scratch;
	LlmVector weight = llm_model_vector(t->model, norm, layer_idx);
	size_t n_bytes = (size_t) n * (size_t) t->config->hidden_size *
					 llm_dtype_bytes(t->compute->activation_dtype);

	m->y = s->d_block;
	if (t->config->has_post_norms)
		return train_rms_norm_back(t, weight, block, s->d_stream, s->d_block,
								   false, n, err);
	if (m->pair != NULL && m->pair->spec.has_magnitude)
		return t->train->copy(t->compute, s->d_block, s->d_stream, n_bytes,
							  err);
	m->y = s->d_stream;
	return true;
}

/*
 * d_block becomes what reaches the MLP's input, the normed stream, which is made
 * again.
 */
static bool
dense_mlp_back(LlmTrainer *t, int32_t layer_idx, SavedLayer *saved,
			   const Module *down, LlmError *err)
{
	TrainScratch *s = &t->scratch;
	const LlmModelConfig *config = t->config;
	const int32_t n = t->batch->n_tokens;
	LlmVector norm = llm_model_vector(t->model, LLM_WEIGHT_MLP_NORM, layer_idx);
	Module in[] = {
		train_module(t, layer_idx, LLM_ADAPTER_GATE, saved, s->d_gate),
		train_module(t, layer_idx, LLM_ADAPTER_UP, saved, s->d_up),
	};
	LlmActivation activation = llm_model_activation(t->model);
	LlmGatedActArgs act = {
		.gate = saved->gate,
		.up = saved->up,
		.out = s->inner,
		.in_stride = config->intermediate_size,
		.n_rows = n,
		.dim = config->intermediate_size,
		.activation = activation,
	};
	LlmGatedActBackArgs act_back = {
		.gate = saved->gate,
		.up = saved->up,
		.d_out = s->d_inner,
		.d_gate = s->d_gate,
		.d_up = s->d_up,
		.n = (int64_t) n * config->intermediate_size,
		.activation = activation,
	};

	return t->ops->gated_act(t->compute, &act, err) &&
		   train_project_back(t, layer_idx, down, 1, s->inner, s->d_inner,
							  err) &&
		   t->train->gated_act_back(t->compute, &act_back, err) &&
		   train_rms_norm(t, norm, saved->middle, s->normed, n, err) &&
		   train_project_back(t, layer_idx, in, 2, s->normed, s->d_block, err);
}

static bool
mlp_back(LlmTrainer *t, int32_t layer_idx, SavedLayer *saved, LlmError *err)
{
	TrainScratch *s = &t->scratch;
	const int32_t n = t->batch->n_tokens;
	LlmVector norm = llm_model_vector(t->model, LLM_WEIGHT_MLP_NORM, layer_idx);
	Module down = { 0 }; /* a mixture has none */

	if (!train_is_mixture(t, layer_idx))
		down = train_module(t, layer_idx, LLM_ADAPTER_DOWN, saved, NULL);
	if (!leave_stream(t, LLM_WEIGHT_POST_MLP_NORM, layer_idx, saved->down,
					  &down, err))
		return false;
	if (train_is_mixture(t, layer_idx))
	{
		if (!train_rms_norm(t, norm, saved->middle, s->normed, n, err) ||
			!train_mixture_back(t, layer_idx, s->normed, down.y, s->d_block,
								err))
			return false;
	}
	else if (!dense_mlp_back(t, layer_idx, saved, &down, err))
		return false;
	return train_rms_norm_back(t, norm, saved->middle, s->d_block, s->d_stream,
							   true, n, err);
}

static bool
heads_back(LlmTrainer *t, int32_t layer_idx, const SavedLayer *saved,
		   LlmError *err)
{
	TrainScratch *s = &t->scratch;
	const int32_t n = t->batch->n_tokens;
	LlmSegmentAttentionBackArgs attention = {
		.forward = train_attention_args(t, layer_idx),
		.d_out = s->d_attention,
		.d_q = s->d_q,
		.d_k = s->d_k,
		.d_v = s->d_v,
		.d_out_sums = s->d_out_sums,
	};

	if (!t->train->attention_back(t->compute, &attention, err) ||
		!train_rotate(t, layer_idx, s->d_q, s->d_k, true, err))
		return false;
	if (!t->config->has_qk_norm)
		return true;
	return train_rms_norm_back(
			   t, llm_model_vector(t->model, LLM_WEIGHT_Q_NORM, layer_idx),
			   saved->q_raw, s->d_q, s->d_q, false, n * t->config->n_heads,
			   err) &&
		   train_rms_norm_back(
			   t, llm_model_vector(t->model, LLM_WEIGHT_K_NORM, layer_idx),
			   saved->k_raw, s->d_k, s->d_k, false, n * t->config->n_kv_heads,
			   err);
}

static bool
attention_half_back(LlmTrainer *t, int32_t layer_idx, SavedLayer *saved,
					LlmError *err)
{
	TrainScratch *s = &t->scratch;
	const int32_t n = t->batch->n_tokens;
	const bool is_first = layer_idx == 0;
	LlmVector norm =
		llm_model_vector(t->model, LLM_WEIGHT_ATTN_NORM, layer_idx);
	Module out = train_module(t, layer_idx, LLM_ADAPTER_O, saved, NULL);
	Module qkv[] = {
		train_module(t, layer_idx, LLM_ADAPTER_Q, saved, s->d_q),
		train_module(t, layer_idx, LLM_ADAPTER_K, saved, s->d_k),
		train_module(t, layer_idx, LLM_ADAPTER_V, saved, s->d_v),
	};

	if (!leave_stream(t, LLM_WEIGHT_POST_ATTN_NORM, layer_idx, saved->o, &out,
					  err) ||
		!train_project_back(t, layer_idx, &out, 1, saved->attention,
							s->d_attention, err) ||
		!heads_back(t, layer_idx, saved, err) ||
		!train_rms_norm(t, norm, t->inputs[layer_idx], s->normed, n, err) ||
		!train_project_back(t, layer_idx, qkv, 3, s->normed,
							is_first ? NULL : s->d_block, err))
		return false;
	return is_first ||
		   train_rms_norm_back(t, norm, t->inputs[layer_idx], s->d_block,
							   s->d_stream, true, n, err);
}

bool
train_layers_back(LlmTrainer *t, LlmError *err)
{
	for (int32_t i = t->config->n_layers - 1; i >= 0; i--)
	{
		SavedLayer *saved = train_saved(t, i);

		if (!train_take_turn(t, false, err) ||
			(t->options.recompute == LLM_RECOMPUTE_FULL &&
			 !train_layer_forward(t, i, err)))
			return false;
		if (!mlp_back(t, i, saved, err) ||
			!attention_half_back(t, i, saved, err))
			return false;
	}
	return true;
}
