/*
 * family_mixtral.c
 *	  Mixtral 8x7B, 8x22B.
 *
 * Mistral whose MLPs are mixtures of experts, all layers of them; the
 * probabilities of the chosen experts are divided by their sum.  Defaults:
 * MixtralConfig, where a missing sliding_window means none.
 *
 * src/common/model_dir/family_mixtral.c
 */
#include "src/common/model_dir/model_dir_internal.h"

#define LAYER "model.layers.#."

static const char *const architectures[] = { "MixtralForCausalLM", NULL };
static const char *const keys[] = { "num_experts", "num_experts_per_tok",
									"num_local_experts", "sliding_window",
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
	[LLM_WEIGHT_MLP_NORM] = LAYER "post_attention_layernorm.weight",
	[LLM_WEIGHT_ROUTER] = LAYER "block_sparse_moe.gate.weight",
	[LLM_WEIGHT_EXPERT_GATE] = LAYER "block_sparse_moe.experts.@.w1.weight",
	[LLM_WEIGHT_EXPERT_UP] = LAYER "block_sparse_moe.experts.@.w3.weight",
	[LLM_WEIGHT_EXPERT_DOWN] = LAYER "block_sparse_moe.experts.@.w2.weight",
};

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	int32_t window = 0;

	if (!config_has(reader, "rms_norm_eps"))
		config->norm_eps = 1e-5;
	config->n_experts = 8;
	config->n_experts_per_token = 2;
	config->expert_intermediate_size = config->intermediate_size;
	config->renormalizes_experts = true;
	for (int32_t i = 0; i < config->n_layers; i++)
		llm_layer_set_add(&config->expert_layers, i);
	return expert_counts_read(reader, config) &&
		   config_get_int(reader, "sliding_window", 1, INT32_MAX, &window) &&
		   sliding_layers_read(reader, window, 0, config);
}

const LlmFamily family_mixtral = {
	.name = "mixtral",
	.model_type = "mixtral",
	.architectures = architectures,
	.keys = keys,
	.defaults = { .n_kv_heads = 8,
				  .head_dim = 0,
				  .max_position = 131072,
				  .rope_theta = 1e6,
				  .bos_token_id = 1,
				  .eos_token_id = 2 },
	.tensor_names = tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
