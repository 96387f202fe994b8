/*
 * train_forward.c
 *	  A micro-batch through the layers, keeping what the way back needs.
 *
 * The pass is model_forward.c's with segments in the place of a cache, and
 * with the stream before each layer and between its halves kept.
 *
 * src/engine/train/train_forward.c
 */
#include <assert.h>
#include <math.h>

#include "src/engine/train/train_internal.h"

SavedLayer *
train_saved(const LlmTrainer *t, int32_t layer_idx)
{
	return &t->saved[t->options.recompute == LLM_RECOMPUTE_FULL ? 0
																: layer_idx];
}

bool
train_rms_norm(LlmTrainer *t, LlmVector weight, const void *x, void *out,
			   int32_t n_rows, LlmError *err)
{
	LlmRmsNormArgs args = {
		.x = x,
		.weight = weight,
		.out = out,
		.n_rows = n_rows,
		.dim = (int32_t) weight.n,
		.eps = (float) t->config->norm_eps,
		.weight_offset = t->config->norm_adds_one ? 1 : 0,
	};

	return t->ops->rms_norm(t->compute, &args, err);
}

static bool
norm_layer(LlmTrainer *t, LlmWeightRole role, int32_t layer_idx, const void *x,
		   void *out, LlmError *err)
{
	return train_rms_norm(t, llm_model_vector(t->model, role, layer_idx), x,
						  out, t->batch->n_tokens, err);
}

static bool
add(LlmTrainer *t, const void *a, const void *b, void *out, LlmError *err)
{
	LlmAddArgs args = { a, b, out,
						(int64_t) t->batch->n_tokens * t->config->hidden_size };

	return t->train->add(t->compute, &args, err);
}

bool
train_rotate(LlmTrainer *t, int32_t layer_idx, void *q, void *k,
			 bool is_inverse, LlmError *err)
{
	const float *cos_sin;
	const LlmRopeConfig *rope = llm_model_rope(t->model, layer_idx, &cos_sin);
	LlmRotateArgs args = {
		.x = q,
		.cos_sin = cos_sin,
		.rope_rows = t->device.rope_rows,
		.n_tokens = t->batch->n_tokens,
		.n_heads = t->config->n_heads,
		.head_dim = t->config->head_dim,
		.rotary_dim = rope->rotary_dim,
		.interleaved = rope->interleaved,
		.is_inverse = is_inverse,
	};

	if (!t->train->rotate(t->compute, &args, err))
		return false;
	args.x = k;
	args.n_heads = t->config->n_kv_heads;
	return t->train->rotate(t->compute, &args, err);
}

LlmSegmentAttentionArgs
train_attention_args(const LlmTrainer *t, int32_t layer_idx)
{
	const LlmModelConfig *config = t->config;
	const SavedLayer *saved = train_saved(t, layer_idx);

	return (LlmSegmentAttentionArgs){
		.q = saved->q,
		.k = saved->k,
		.v = saved->v,
		.segment_start = t->device.segment_start,
		.segment_end = t->device.segment_end,
		.out = saved->attention,
		.log_sums = saved->log_sums,
		.n_tokens = t->batch->n_tokens,
		.n_heads = config->n_heads,
		.n_kv_heads = config->n_kv_heads,
		.head_dim = config->head_dim,
		.scale = (float) config->attention_scale,
		.soft_cap = (float) config->attention_soft_cap,
		.sliding_window = llm_layer_set_has(&config->sliding_layers, layer_idx)
							  ? config->sliding_window
							  : 0,
	};
}

/* q and k of the projection become those that attend. */
static bool
prepare_heads(LlmTrainer *t, int32_t layer_idx, SavedLayer *saved,
			  LlmError *err)
{
	const LlmModelConfig *config = t->config;
	const int32_t n = t->batch->n_tokens;

	if (config->has_qk_norm &&
		(!train_rms_norm(
			 t, llm_model_vector(t->model, LLM_WEIGHT_Q_NORM, layer_idx),
			 saved->q_raw, saved->q, n * config->n_heads, err) ||
		 !train_rms_norm(
			 t, llm_model_vector(t->model, LLM_WEIGHT_K_NORM, layer_idx),
			 saved->k_raw, saved->k, n * config->n_kv_heads, err)))
		return false;
	return train_rotate(t, layer_idx, saved->q, saved->k, false, err);
}

/* A block's output, through its norm where there is one, joins the stream. */
static bool
join_stream(LlmTrainer *t, LlmWeightRole norm, int32_t layer_idx,
			const void *stream, const void *block, void *out, LlmError *err)
{
	void *normed = t->scratch.normed;

	if (!t->config->has_post_norms)
		return add(t, stream, block, out, err);
	return norm_layer(t, norm, layer_idx, block, normed, err) &&
		   add(t, stream, normed, out, err);
}

static bool
attention_half(LlmTrainer *t, int32_t layer_idx, SavedLayer *saved,
			   LlmError *err)
{
	const bool has_norm = t->config->has_qk_norm;
	LlmSegmentAttentionArgs attention = train_attention_args(t, layer_idx);
	void *o = t->config->has_post_norms ? saved->o : t->scratch.d_block;
	Module qkv[] = {
		train_module(t, layer_idx, LLM_ADAPTER_Q, saved,
					 has_norm ? saved->q_raw : saved->q),
		train_module(t, layer_idx, LLM_ADAPTER_K, saved,
					 has_norm ? saved->k_raw : saved->k),
		train_module(t, layer_idx, LLM_ADAPTER_V, saved, saved->v),
	};
	Module out = train_module(t, layer_idx, LLM_ADAPTER_O, saved, o);

	return norm_layer(t, LLM_WEIGHT_ATTN_NORM, layer_idx, t->inputs[layer_idx],
					  t->scratch.normed, err) &&
		   train_project(t, layer_idx, qkv, 3, t->scratch.normed, err) &&
		   prepare_heads(t, layer_idx, saved, err) &&
		   t->train->attention(t->compute, &attention, err) &&
		   train_project(t, layer_idx, &out, 1, saved->attention, err) &&
		   join_stream(t, LLM_WEIGHT_POST_ATTN_NORM, layer_idx,
					   t->inputs[layer_idx], o, saved->middle, err);
}

/* The MLP's output of the normed stream. */
static bool
dense_mlp(LlmTrainer *t, int32_t layer_idx, SavedLayer *saved, void *down_out,
		  LlmError *err)
{
	Module in[] = {
		train_module(t, layer_idx, LLM_ADAPTER_GATE, saved, saved->gate),
		train_module(t, layer_idx, LLM_ADAPTER_UP, saved, saved->up),
	};
	Module down = train_module(t, layer_idx, LLM_ADAPTER_DOWN, saved, down_out);
	LlmGatedActArgs act = {
		.gate = saved->gate,
		.up = saved->up,
		.out = t->scratch.inner,
		.in_stride = t->config->intermediate_size,
		.n_rows = t->batch->n_tokens,
		.dim = t->config->intermediate_size,
		.activation = llm_model_activation(t->model),
	};

	return train_project(t, layer_idx, in, 2, t->scratch.normed, err) &&
		   t->ops->gated_act(t->compute, &act, err) &&
		   train_project(t, layer_idx, &down, 1, t->scratch.inner, err);
}

static bool
mlp_half(LlmTrainer *t, int32_t layer_idx, SavedLayer *saved, LlmError *err)
{
	void *down_out =
		t->config->has_post_norms ? saved->down : t->scratch.d_block;

	return norm_layer(t, LLM_WEIGHT_MLP_NORM, layer_idx, saved->middle,
					  t->scratch.normed, err) &&
		   (train_is_mixture(t, layer_idx)
				? train_mixture(t, layer_idx, t->scratch.normed, down_out, err)
				: dense_mlp(t, layer_idx, saved, down_out, err)) &&
		   join_stream(t, LLM_WEIGHT_POST_MLP_NORM, layer_idx, saved->middle,
					   down_out, t->inputs[layer_idx + 1], err);
}

bool
train_layer_forward(LlmTrainer *t, int32_t layer_idx, LlmError *err)
{
	SavedLayer *saved = train_saved(t, layer_idx);

	return attention_half(t, layer_idx, saved, err) &&
		   mlp_half(t, layer_idx, saved, err);
}

/* ------------------------------------------------------------------------
 * The micro-batch
 * ------------------------------------------------------------------------
 */
static bool
upload(LlmTrainer *t, void *dest, const void *src, int64_t n, LlmError *err)
{
	return n == 0 || t->ops->write(t->compute, dest, src, (size_t) n * 4, err);
}

/* Positions, segments and rotations of every token. */
static bool
upload_tokens(LlmTrainer *t, const LlmTrainBatch *batch, LlmError *err)
{
	const int32_t n = batch->n_tokens;
	int32_t *positions = t->staging;
	int32_t *token_seq = t->staging + t->options.max_tokens;
	int32_t *start = token_seq + t->options.max_tokens;
	int32_t *end = start + t->options.max_tokens;
	LlmStepInputs step = { .n_tokens = n,
						   .n_seqs = batch->n_segments,
						   .positions = positions,
						   .token_seq = token_seq };

	for (int32_t s = 0; s < batch->n_segments; s++)
	{
		int32_t first = batch->segment_start[s];
		int32_t last = batch->segment_start[s + 1];

		assert(first < last && last - first <= t->options.max_segment);
		t->rope_len[s] = last - first;
		for (int32_t i = first; i < last; i++)
		{
			positions[i] = i - first;
			token_seq[i] = s;
			start[i] = first;
			end[i] = last;
		}
	}
	return llm_model_rotate_step(t->model, &step, t->rope_len, err) &&
		   upload(t, t->device.rope_rows, step.rope_rows, n, err) &&
		   upload(t, t->device.segment_start, start, n, err) &&
		   upload(t, t->device.segment_end, end, n, err) &&
		   upload(t, t->device.token_ids, batch->token_ids, n, err) &&
		   upload(t, t->device.label_rows, batch->label_rows, batch->n_labels,
				  err) &&
		   upload(t, t->device.label_ids, batch->label_ids, batch->n_labels,
				  err) &&
		   t->ops->sync(t->compute, err);
}

/*
 * NEFTune (Jain et al. 2023): uniform noise of alpha / sqrt(n_tokens * hidden)
 * on the embeddings, n_tokens those of the segment.
 */
static bool
add_noise(LlmTrainer *t, LlmError *err)
{
	const LlmTrainBatch *batch = t->batch;
	const int64_t hidden = t->config->hidden_size;

	if (!t->is_training || t->options.neftune_alpha == 0)
		return true;
	for (int32_t s = 0; s < batch->n_segments; s++)
	{
		int64_t first = batch->segment_start[s];
		int64_t n = (batch->segment_start[s + 1] - first) * hidden;
		LlmNoiseArgs args = {
			.x = train_act_at(t, t->inputs[0], first * hidden),
			.n = n,
			.scale = t->options.neftune_alpha / sqrtf((float) n),
			.seed = ~t->options.seed,
			.sequence =
				(uint64_t) t->n_passes * (uint64_t) t->options.max_tokens +
				(uint64_t) s,
		};

		if (!t->train->noise(t->compute, &args, err))
			return false;
	}
	return true;
}

static bool
embed(LlmTrainer *t, LlmError *err)
{
	LlmEmbedArgs args = {
		.table = llm_model_matrix(t->model, LLM_WEIGHT_EMBED, -1),
		.token_ids = t->device.token_ids,
		.out = t->inputs[0],
		.n_rows = t->batch->n_tokens,
		.scale = llm_model_embed_scale(t->model),
	};

	return t->ops->embed(t->compute, &args, err);
}

bool
llm_trainer_forward(LlmTrainer *t, const LlmTrainBatch *batch, bool is_training,
					LlmError *err)
{
	assert(batch->n_tokens > 0 && batch->n_tokens <= t->options.max_tokens);
	assert(batch->n_labels <= batch->n_tokens);
	t->batch = batch;
	t->is_training = is_training;
	t->n_passes += is_training;
	if (!upload_tokens(t, batch, err) || !embed(t, err) || !add_noise(t, err))
		return false;
	for (int32_t i = 0; i < t->config->n_layers; i++)
	{
		if (!train_take_turn(t, i == 0, err) || !train_layer_forward(t, i, err))
			return false;
	}
	return true;
}
