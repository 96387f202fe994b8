/*
 * family_qwen3_moe.c
 *	  Qwen3 mixtures of experts: 30B-A3B, 235B-A22B, Coder (text).
 *
 * Qwen3 whose MLPs are mixtures of experts in every decoder_sparse_step-th
 * layer but those of mlp_only_layers.  Defaults: Qwen3MoeConfig; unlike
 * Qwen3, it has no default head_dim, and a window holds for all layers.
 *
 * src/common/model_dir/family_qwen3_moe.c
 */
#include "src/common/model_dir/model_dir_internal.h"

#define LAYER "model.layers.#."

static const char *const architectures[] = { "Qwen3MoeForCausalLM", NULL };
static const char *const keys[] = { "attention_bias",
									"decoder_sparse_step",
									"max_window_layers",
									"mlp_only_layers",
									"moe_intermediate_size",
									"norm_topk_prob",
									"num_experts",
									"num_experts_per_tok",
									"num_local_experts",
									"sliding_window",
									"use_qk_norm",
									"use_sliding_window",
									NULL };

static const char *const tensor_names[LLM_WEIGHT_ROLE_COUNT] = {
	[LLM_WEIGHT_EMBED] = "model.embed_tokens.weight",
	[LLM_WEIGHT_FINAL_NORM] = "model.norm.weight",
	[LLM_WEIGHT_LM_HEAD] = "lm_head.weight",
	[LLM_WEIGHT_ATTN_NORM] = LAYER "input_layernorm.weight",
	[LLM_WEIGHT_Q] = LAYER "self_attn.q_proj.weight",
	[LLM_WEIGHT_K] = LAYER "self_attn.k_proj.weight",
	[LLM_WEIGHT_V] = LAYER "self_attn.v_proj.weight",
	[LLM_WEIGHT_O] = LAYER "self_attn.o_proj.weight",
	[LLM_WEIGHT_Q_BIAS] = LAYER "self_attn.q_proj.bias",
	[LLM_WEIGHT_K_BIAS] = LAYER "self_attn.k_proj.bias",
	[LLM_WEIGHT_V_BIAS] = LAYER "self_attn.v_proj.bias",
	[LLM_WEIGHT_O_BIAS] = LAYER "self_attn.o_proj.bias",
	[LLM_WEIGHT_Q_NORM] = LAYER "self_attn.q_norm.weight",
	[LLM_WEIGHT_K_NORM] = LAYER "self_attn.k_norm.weight",
	[LLM_WEIGHT_MLP_NORM] = LAYER "post_attention_layernorm.weight",
	[LLM_WEIGHT_GATE] = LAYER "mlp.gate_proj.weight",
	[LLM_WEIGHT_UP] = LAYER "mlp.up_proj.weight",
	[LLM_WEIGHT_DOWN] = LAYER "mlp.down_proj.weight",
	[LLM_WEIGHT_ROUTER] = LAYER "mlp.gate.weight",
	[LLM_WEIGHT_EXPERT_GATE] = LAYER "mlp.experts.@.gate_proj.weight",
	[LLM_WEIGHT_EXPERT_UP] = LAYER "mlp.experts.@.up_proj.weight",
	[LLM_WEIGHT_EXPERT_DOWN] = LAYER "mlp.experts.@.down_proj.weight",
};

/* Whether "mlp_only_layers" lists a layer. */
static bool
is_mlp_only(const cJSON *list, int32_t layer_idx)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, list)
	{
		if (item->valuedouble == layer_idx)
			return true;
	}
	return false;
}

static bool
read_expert_layers(const ConfigReader *reader, LlmModelConfig *config)
{
	const cJSON *list = llm_json_get(reader->json, "mlp_only_layers");
	const cJSON *item;
	int32_t step = 1;

	if (!config_get_int(reader, "decoder_sparse_step", 1, INT32_MAX, &step))
		return false;
	if (list != NULL && !cJSON_IsArray(list))
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"mlp_only_layers\" must be an array",
							 reader->path);
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsNumber(item))
			return llm_error_set(reader->err, LLM_ERROR_INVALID,
								 "%s: \"mlp_only_layers\" must hold numbers",
								 reader->path);
	}
	for (int32_t i = 0; i < config->n_layers; i++)
	{
		if ((i + 1) % step == 0 && !is_mlp_only(list, i))
			llm_layer_set_add(&config->expert_layers, i);
	}
	return true;
}

/*
 * transformers lets all layers slide; a config that asks for a window in
 * some of them only is one that somebody means otherwise.
 */
static bool
read_window(const ConfigReader *reader, LlmModelConfig *config)
{
	bool use_window = false;
	int32_t window = config_has(reader, "sliding_window") ? 0 : 4096;
	int32_t first_sliding = 0;

	if (!config_get_bool(reader, "use_sliding_window", &use_window) ||
		!config_get_int(reader, "sliding_window", 0, INT32_MAX, &window) ||
		!config_get_int(reader, "max_window_layers", 0, INT32_MAX,
						&first_sliding))
		return false;
	if (use_window && window > 0 && first_sliding > 0)
		return config_unsupported(
			reader,
			"\"max_window_layers\" %d with \"use_sliding_window\" is "
			"not supported",
			first_sliding);
	return sliding_layers_read(reader, use_window ? window : 0, 0, config);
}

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	bool has_attention_bias = false;
	bool has_qk_norm = true;

	config->n_experts = 128;
	config->n_experts_per_token = 8;
	config->expert_intermediate_size = 768;
	if (!config_get_bool(reader, "attention_bias", &has_attention_bias) ||
		!config_get_bool(reader, "use_qk_norm", &has_qk_norm) ||
		!config_get_bool(reader, "norm_topk_prob",
						 &config->renormalizes_experts) ||
		!config_get_int(reader, "moe_intermediate_size", 1,
						MODEL_DIR_MAX_INTERMEDIATE,
						&config->expert_intermediate_size) ||
		!expert_counts_read(reader, config) ||
		!read_expert_layers(reader, config))
		return false;
	if (!has_qk_norm)
		return config_unsupported(reader,
								  "\"use_qk_norm\" false is not supported");
	config->has_qkv_bias = has_attention_bias;
	config->has_o_bias = has_attention_bias;
	config->has_qk_norm = true;
	return read_window(reader, config);
}

const LlmFamily family_qwen3_moe = {
	.name = "qwen3_moe",
	.model_type = "qwen3_moe",
	.architectures = architectures,
	.keys = keys,
	.defaults = { .n_kv_heads = 4,
				  .head_dim = 0,
				  .max_position = 32768,
				  .bos_token_id = -1,
				  .eos_token_id = -1 },
	.tensor_names = tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
