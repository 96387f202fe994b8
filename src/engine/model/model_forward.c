/*
 * model_forward.c
 *	  The forward pass that all families share.
 *
 * A layer is: norm, q/k/v, rotate and cache, attention, o; norm, gate/up,
 * activation, down.  The residual stream is added inside the norm that
 * follows, so a block's output stays in BUFFER_X until then; families with
 * post norms normalize it there.
 *
 * Only the tokens in logit_rows are looked at after the last layer's
 * attention, so from there on only their rows are computed; where there is
 * none (a prompt's chunk that is not the last) the pass ends when the last
 * layer's keys and values are in the cache.
 *
 * src/engine/model/model_forward.c
 */
#include <assert.h>

#include "src/common/util/clock.h"
#include "src/engine/model/model_internal.h"

/* A step on its way through the layers. */
typedef struct Pass
{
	LlmModel *model;
	LlmCompute *compute;
	const LlmComputeOps *ops;
	const LlmModelConfig *config;
	const LlmStepInputs *step;
	LlmKvCache *kv;
	LlmError *err;
	int32_t n_rows;		   /* tokens, or logit rows at the end */
	bool is_narrow;		   /* the latter */
	void *residual;		   /* [n_rows, hidden] */
	void *attention;	   /* [n_rows, n_heads * head_dim] */
	bool has_block_output; /* BUFFER_X is to be added to the residual */
	int64_t mark_us;
} Pass;

static const char *const part_names[LLM_PART_COUNT] = {
	"embed",   "norm",	  "qkv",		"rope_kv", "attention",
	"o",	   "gate_up", "activation", "down",	   "router",
	"experts", "gather",  "lm_head",
};

const char *
llm_model_part_name(LlmModelPart part)
{
	assert((int) part >= 0 && part < LLM_PART_COUNT);
	return part_names[part];
}

/* An operation ended: account for it where somebody wants to know. */
static bool
mark(Pass *pass, LlmModelPart part)
{
	int64_t now_us;

	if (!pass->model->timing_enabled)
		return true;
	if (!pass->ops->sync(pass->compute, pass->err))
		return false;
	now_us = llm_clock_us();
	pass->model->timing.part_us[part] += now_us - pass->mark_us;
	pass->mark_us = now_us;
	return true;
}

/* The adapters of an operation whose first part is that module. */
static LlmLoraRows
lora_of(const Pass *pass, int32_t module_idx)
{
	return (LlmLoraRows){
		.step = pass->step->token_lora != NULL ? pass->step : NULL,
		.first_module = module_idx,
		.of_logit_rows = pass->is_narrow,
	};
}

static bool
embed(Pass *pass)
{
	LlmEmbedArgs args = {
		.table = llm_model_matrix(pass->model, LLM_WEIGHT_EMBED, -1),
		.token_ids = pass->step->token_ids,
		.out = pass->residual,
		.n_rows = pass->n_rows,
		.scale = llm_model_embed_scale(pass->model),
		.lora = lora_of(pass, model_lora_embed(pass->config)),
	};

	return pass->ops->embed(pass->compute, &args, pass->err) &&
		   mark(pass, LLM_PART_EMBED);
}

static float
norm_weight_offset(const LlmModelConfig *config)
{
	return config->norm_adds_one ? 1 : 0;
}

/* residual += block output; out = norm(residual) */
static bool
norm(Pass *pass, LlmWeightRole role, int32_t layer_idx, ModelBuffer out)
{
	void *x = pass->model->buffers[BUFFER_X];
	LlmRmsNormArgs args = {
		.x = pass->has_block_output ? x : pass->residual,
		.residual = pass->has_block_output ? pass->residual : NULL,
		.weight = llm_model_vector(pass->model, role, layer_idx),
		.out = pass->model->buffers[out],
		.n_rows = pass->n_rows,
		.dim = pass->config->hidden_size,
		.eps = (float) pass->config->norm_eps,
		.weight_offset = norm_weight_offset(pass->config),
	};

	return pass->ops->rms_norm(pass->compute, &args, pass->err) &&
		   mark(pass, LLM_PART_NORM);
}

/* BUFFER_X = norm(BUFFER_X), a block's output, where the family does so */
static bool
post_norm(Pass *pass, LlmWeightRole role, int32_t layer_idx)
{
	void *x = pass->model->buffers[BUFFER_X];
	LlmRmsNormArgs args = {
		.x = x,
		.weight = llm_model_vector(pass->model, role, layer_idx),
		.out = x,
		.n_rows = pass->n_rows,
		.dim = pass->config->hidden_size,
		.eps = (float) pass->config->norm_eps,
		.weight_offset = norm_weight_offset(pass->config),
	};

	assert(pass->has_block_output);
	if (!pass->config->has_post_norms)
		return true;
	return pass->ops->rms_norm(pass->compute, &args, pass->err) &&
		   mark(pass, LLM_PART_NORM);
}

/* Add an output to a linear operation on x. */
static void
add_part(const Pass *pass, LlmLinearArgs *args, LlmMatrix weight,
		 LlmVector bias, ModelBuffer buffer)
{
	int i = args->n_parts++;

	assert(i < LLM_LINEAR_MAX_PARTS);
	args->part[i].weight = weight;
	args->part[i].bias = bias;
	args->part[i].out = pass->model->buffers[buffer];
	args->part[i].out_stride = weight.n_rows;
}

/* The parts' outputs lie side by side in rows of their own. */
static void
join_parts(LlmLinearArgs *args)
{
	int64_t stride = 0;

	for (int i = 0; i < args->n_parts; i++)
		stride += args->part[i].weight.n_rows;
	for (int i = 0; i < args->n_parts; i++)
		args->part[i].out_stride = stride;
}

static int64_t
qkv_stride(const LlmModelConfig *config)
{
	return (int64_t) (config->n_heads + 2 * config->n_kv_heads) *
		   config->head_dim;
}

static bool
linear(Pass *pass, const LlmLinearArgs *args, LlmModelPart part)
{
	return pass->ops->linear(pass->compute, args, pass->err) &&
		   mark(pass, part);
}

static bool
project_qkv(Pass *pass, int32_t layer)
{
	LlmLinearArgs args = { .x = pass->model->buffers[BUFFER_X],
						   .n_rows = pass->n_rows };

	add_part(pass, &args, llm_model_matrix(pass->model, LLM_WEIGHT_Q, layer),
			 llm_model_vector(pass->model, LLM_WEIGHT_Q_BIAS, layer), BUFFER_Q);
	add_part(pass, &args, llm_model_matrix(pass->model, LLM_WEIGHT_K, layer),
			 llm_model_vector(pass->model, LLM_WEIGHT_K_BIAS, layer), BUFFER_K);
	add_part(pass, &args, llm_model_matrix(pass->model, LLM_WEIGHT_V, layer),
			 llm_model_vector(pass->model, LLM_WEIGHT_V_BIAS, layer), BUFFER_V);
	join_parts(&args);
	args.lora = lora_of(pass, model_lora_module(layer, LLM_ADAPTER_Q));
	return linear(pass, &args, LLM_PART_QKV);
}

static bool
rotate_and_cache(Pass *pass, int32_t layer)
{
	const LlmModelConfig *config = pass->config;
	bool slides = config->has_sliding_rope &&
				  llm_layer_set_has(&config->sliding_layers, layer);
	const LlmRopeConfig *rope = slides ? &config->sliding_rope : &config->rope;
	LlmRopeKvArgs args = {
		.step = pass->step,
		.q = pass->model->buffers[BUFFER_Q],
		.k = pass->model->buffers[BUFFER_K],
		.v = pass->model->buffers[BUFFER_V],
		.q_stride = qkv_stride(config),
		.k_stride = qkv_stride(config),
		.v_stride = qkv_stride(config),
		.q_norm = llm_model_vector(pass->model, LLM_WEIGHT_Q_NORM, layer),
		.k_norm = llm_model_vector(pass->model, LLM_WEIGHT_K_NORM, layer),
		.norm_eps = (float) config->norm_eps,
		.norm_weight_offset = norm_weight_offset(config),
		.cos_sin = slides ? pass->model->rope.sliding_table.cos_sin
						  : pass->model->rope.table.cos_sin,
		.rotary_dim = rope->rotary_dim,
		.interleaved = rope->interleaved,
		.n_heads = config->n_heads,
		.n_kv_heads = config->n_kv_heads,
		.head_dim = config->head_dim,
		.kv = pass->kv,
		.layer_idx = layer,
	};

	return pass->ops->rope_kv(pass->compute, &args, pass->err) &&
		   mark(pass, LLM_PART_ROPE_KV);
}

static bool
attend(Pass *pass, int32_t layer)
{
	const LlmModelConfig *config = pass->config;
	LlmAttentionArgs args = {
		.step = pass->step,
		.q = pass->model->buffers[BUFFER_Q],
		.q_stride = qkv_stride(config),
		.out = pass->attention,
		.n_heads = config->n_heads,
		.n_kv_heads = config->n_kv_heads,
		.head_dim = config->head_dim,
		.scale = (float) config->attention_scale,
		.soft_cap = (float) config->attention_soft_cap,
		.sliding_window = llm_layer_set_has(&config->sliding_layers, layer)
							  ? config->sliding_window
							  : 0,
		.kv = pass->kv,
		.layer_idx = layer,
	};

	return pass->ops->attention(pass->compute, &args, pass->err) &&
		   mark(pass, LLM_PART_ATTENTION);
}

static bool
project_o(Pass *pass, int32_t layer)
{
	LlmLinearArgs args = { .x = pass->attention, .n_rows = pass->n_rows };

	add_part(pass, &args, llm_model_matrix(pass->model, LLM_WEIGHT_O, layer),
			 llm_model_vector(pass->model, LLM_WEIGHT_O_BIAS, layer), BUFFER_X);
	args.lora = lora_of(pass, model_lora_module(layer, LLM_ADAPTER_O));
	pass->has_block_output = true;
	return linear(pass, &args, LLM_PART_O);
}

/* BUFFER_X = down(act(gate(x)) * up(x)) */
static bool
mlp(Pass *pass, int32_t layer)
{
	void *const *buffers = pass->model->buffers;
	LlmLinearArgs in = { .x = buffers[BUFFER_X], .n_rows = pass->n_rows };
	LlmLinearArgs out = { .x = buffers[BUFFER_INNER], .n_rows = pass->n_rows };
	LlmGatedActArgs act = {
		.gate = buffers[BUFFER_GATE],
		.up = buffers[BUFFER_UP],
		.out = buffers[BUFFER_INNER],
		.in_stride = 2 * (int64_t) pass->config->intermediate_size,
		.n_rows = pass->n_rows,
		.dim = pass->config->intermediate_size,
		.activation = llm_model_activation(pass->model),
	};

	add_part(pass, &in, llm_model_matrix(pass->model, LLM_WEIGHT_GATE, layer),
			 llm_model_vector(pass->model, LLM_WEIGHT_GATE_BIAS, layer),
			 BUFFER_GATE);
	add_part(pass, &in, llm_model_matrix(pass->model, LLM_WEIGHT_UP, layer),
			 llm_model_vector(pass->model, LLM_WEIGHT_UP_BIAS, layer),
			 BUFFER_UP);
	join_parts(&in);
	in.lora = lora_of(pass, model_lora_module(layer, LLM_ADAPTER_GATE));
	add_part(pass, &out, llm_model_matrix(pass->model, LLM_WEIGHT_DOWN, layer),
			 llm_model_vector(pass->model, LLM_WEIGHT_DOWN_BIAS, layer),
			 BUFFER_X);
	out.lora = lora_of(pass, model_lora_module(layer, LLM_ADAPTER_DOWN));
	return linear(pass, &in, LLM_PART_GATE_UP) &&
		   pass->ops->gated_act(pass->compute, &act, pass->err) &&
		   mark(pass, LLM_PART_ACTIVATION) && linear(pass, &out, LLM_PART_DOWN);
}

/* BUFFER_X = the mixture's output of BUFFER_EXPERT_X */
static bool
mixture(Pass *pass, int32_t layer)
{
	const LlmModelConfig *config = pass->config;
	void *const *buffers = pass->model->buffers;
	LlmLinearArgs router = { .x = buffers[BUFFER_EXPERT_X],
							 .n_rows = pass->n_rows,
							 .out_is_f32 = true };
	LlmMoeArgs args = {
		.x = buffers[BUFFER_EXPERT_X],
		.router_logits = buffers[BUFFER_ROUTER],
		.out = buffers[BUFFER_X],
		.n_rows = pass->n_rows,
		.dim = config->hidden_size,
		.inner_dim = config->expert_intermediate_size,
		.n_experts = config->n_experts,
		.n_top = config->n_experts_per_token,
		.renormalize = config->renormalizes_experts,
		.activation = llm_model_activation(pass->model),
	};
	LlmVector no_bias = { 0 };

	args.gate = llm_model_experts(pass->model, LLM_WEIGHT_EXPERT_GATE, layer);
	args.up = llm_model_experts(pass->model, LLM_WEIGHT_EXPERT_UP, layer);
	args.down = llm_model_experts(pass->model, LLM_WEIGHT_EXPERT_DOWN, layer);
	add_part(pass, &router,
			 llm_model_matrix(pass->model, LLM_WEIGHT_ROUTER, layer), no_bias,
			 BUFFER_ROUTER);
	return linear(pass, &router, LLM_PART_ROUTER) &&
		   pass->ops->moe(pass->compute, &args, pass->err) &&
		   mark(pass, LLM_PART_EXPERTS);
}

/* From here on only the rows whose logits are wanted. */
static bool
narrow_to_logit_rows(Pass *pass)
{
	LlmModel *model = pass->model;
	LlmGatherArgs residual = {
		.x = pass->residual,
		.rows = pass->step->logit_rows,
		.out = model->buffers[BUFFER_ROW_RESIDUAL],
		.n_rows = pass->step->n_logit_rows,
		.dim = pass->config->hidden_size,
	};
	LlmGatherArgs attention = {
		.x = pass->attention,
		.rows = pass->step->logit_rows,
		.out = model->buffers[BUFFER_ROW_ATTENTION],
		.n_rows = pass->step->n_logit_rows,
		.dim = pass->config->n_heads * pass->config->head_dim,
	};

	/* ascending rows, as many as tokens: all of them, in place */
	if (pass->step->n_logit_rows == pass->step->n_tokens ||
		pass->step->keeps_all_rows)
		return true;
	pass->n_rows = pass->step->n_logit_rows;
	pass->is_narrow = true;
	pass->residual = residual.out;
	pass->attention = attention.out;
	return pass->ops->gather(pass->compute, &residual, pass->err) &&
		   pass->ops->gather(pass->compute, &attention, pass->err) &&
		   mark(pass, LLM_PART_GATHER);
}

/* Is anything wanted beside keys and values? */
static bool
has_output(const Pass *pass)
{
	return pass->step->n_logit_rows > 0 || pass->step->keeps_all_rows;
}

static bool
layer_pass(Pass *pass, int32_t layer)
{
	bool is_last = layer == pass->config->n_layers - 1;
	bool is_mixture = llm_layer_set_has(&pass->config->expert_layers, layer);

	if (!norm(pass, LLM_WEIGHT_ATTN_NORM, layer, BUFFER_X) ||
		!project_qkv(pass, layer) || !rotate_and_cache(pass, layer))
		return false;
	if (is_last && !has_output(pass))
		return true;
	return attend(pass, layer) && (!is_last || narrow_to_logit_rows(pass)) &&
		   project_o(pass, layer) &&
		   post_norm(pass, LLM_WEIGHT_POST_ATTN_NORM, layer) &&
		   norm(pass, LLM_WEIGHT_MLP_NORM, layer,
				is_mixture ? BUFFER_EXPERT_X : BUFFER_X) &&
		   (is_mixture ? mixture(pass, layer) : mlp(pass, layer)) &&
		   post_norm(pass, LLM_WEIGHT_POST_MLP_NORM, layer);
}

/* *x = the normed rows whose logits are wanted; BUFFER_X stays as it is. */
static bool
select_logit_rows(Pass *pass, const void **x)
{
	LlmGatherArgs args = {
		.x = pass->model->buffers[BUFFER_X],
		.rows = pass->step->logit_rows,
		.out = pass->model->buffers[BUFFER_ROW_RESIDUAL],
		.n_rows = pass->step->n_logit_rows,
		.dim = pass->config->hidden_size,
	};

	*x = args.x;
	if (pass->n_rows == args.n_rows)
		return true;
	*x = args.out;
	pass->n_rows = args.n_rows;
	pass->is_narrow = true;
	return pass->ops->gather(pass->compute, &args, pass->err) &&
		   mark(pass, LLM_PART_GATHER);
}

static bool
project_logits(Pass *pass)
{
	LlmLinearArgs args = { .out_is_f32 = true };
	LlmSoftCapArgs cap = {
		.x = pass->model->buffers[BUFFER_LOGITS],
		.soft_cap = (float) pass->config->logit_soft_cap,
	};
	LlmVector no_bias = { 0 };

	if (pass->step->n_logit_rows == 0 || pass->step->skips_logits)
		return true;
	if (!select_logit_rows(pass, &args.x))
		return false;
	args.n_rows = pass->n_rows;
	cap.n = (int64_t) pass->n_rows * pass->config->n_vocab;
	add_part(pass, &args, llm_model_matrix(pass->model, LLM_WEIGHT_LM_HEAD, -1),
			 no_bias, BUFFER_LOGITS);
	args.lora = lora_of(pass, model_lora_head(pass->config));
	if (!linear(pass, &args, LLM_PART_LM_HEAD))
		return false;
	return cap.soft_cap == 0 ||
		   (pass->ops->soft_cap(pass->compute, &cap, pass->err) &&
			mark(pass, LLM_PART_LM_HEAD));
}

static bool
whole_pass(Pass *pass)
{
	if (!embed(pass))
		return false;
	for (int32_t layer = 0; layer < pass->config->n_layers; layer++)
	{
		if (!layer_pass(pass, layer))
			return false;
	}
	return !has_output(pass) ||
		   (norm(pass, LLM_WEIGHT_FINAL_NORM, -1, BUFFER_X) &&
			project_logits(pass));
}

/* Timing waits for each operation, which a recorded pass cannot. */
static bool
recorded_pass(Pass *pass)
{
	const LlmComputeOps *ops = pass->ops;
	bool is_replayed = false;
	bool is_complete;

	if (ops->pass_begin == NULL || pass->model->timing_enabled)
		return whole_pass(pass);
	if (!ops->pass_begin(pass->compute, pass->model, pass->kv, &is_replayed,
						 pass->err))
		return false;
	if (is_replayed)
		return true;
	is_complete = whole_pass(pass);
	return ops->pass_end(pass->compute, is_complete, pass->err) && is_complete;
}

bool
llm_model_forward(LlmModel *model, const LlmStepInputs *step, LlmKvCache *kv,
				  float **logits, LlmError *err)
{
	Pass pass = {
		.model = model,
		.compute = model->compute,
		.ops = model->compute->ops,
		.config = &model->config,
		.step = step,
		.kv = kv,
		.err = err,
		.n_rows = step->n_tokens,
		.residual = model->buffers[BUFFER_RESIDUAL],
		.attention = model->buffers[BUFFER_ATTENTION],
	};

	assert(step->n_tokens > 0);
	assert(step->n_tokens <= model->options.max_num_batched_tokens);
	assert(step->n_logit_rows <= step->n_tokens);
	assert(step->n_logit_rows <= model->options.max_logit_rows);
	assert(step->max_context_len <= model->options.max_model_len);
	*logits = model->buffers[BUFFER_LOGITS];
	if (model->timing_enabled)
	{
		pass.mark_us = llm_clock_us();
		model->timing.n_steps++;
	}
	return recorded_pass(&pass);
}

bool
llm_model_sum_hidden(LlmModel *model, const LlmRowRange *ranges,
					 int32_t n_ranges, float *sums, LlmError *err)
{
	const LlmComputeOps *ops = model->compute->ops;
	LlmSumRowsArgs args = {
		.x = model->buffers[BUFFER_X],
		.ranges = ranges,
		.out = model->buffers[BUFFER_SUMS],
		.n_ranges = n_ranges,
		.dim = model->config.hidden_size,
	};
	size_t n_bytes = (size_t) n_ranges * (size_t) args.dim * sizeof(float);

	assert(n_ranges > 0 && n_ranges <= model->options.max_logit_rows);
	return ops->sum_rows(model->compute, &args, err) &&
		   ops->read(model->compute, sums, args.out, n_bytes, err);
}
