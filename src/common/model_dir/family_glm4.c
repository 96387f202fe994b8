/*
 * family_glm4.c
 *	  GLM-4 of 2025 (GLM-4-9B-0414, GLM-4-32B-0414, GLM-Z1).
 *
 * family_glm.c's model with norms on the outputs of attention and of the
 * MLP.  Mind the names: post_attention_layernorm comes before the MLP.
 * Defaults: Glm4Config.
 *
 * src/common/model_dir/family_glm4.c
 */
#include "src/common/model_dir/model_dir_internal.h"

static const char *const architectures[] = { "Glm4ForCausalLM", NULL };

static const char *const tensor_names[LLM_WEIGHT_ROLE_COUNT] = {
	[LLM_WEIGHT_EMBED] = "model.embed_tokens.weight",
	[LLM_WEIGHT_FINAL_NORM] = "model.norm.weight",
	[LLM_WEIGHT_LM_HEAD] = "lm_head.weight",
	[LLM_WEIGHT_ATTN_NORM] = "model.layers.#.input_layernorm.weight",
	[LLM_WEIGHT_Q] = "model.layers.#.self_attn.q_proj.weight",
	[LLM_WEIGHT_K] = "model.layers.#.self_attn.k_proj.weight",
	[LLM_WEIGHT_V] = "model.layers.#.self_attn.v_proj.weight",
	[LLM_WEIGHT_O] = "model.layers.#.self_attn.o_proj.weight",
	[LLM_WEIGHT_Q_BIAS] = "model.layers.#.self_attn.q_proj.bias",
	[LLM_WEIGHT_K_BIAS] = "model.layers.#.self_attn.k_proj.bias",
	[LLM_WEIGHT_V_BIAS] = "model.layers.#.self_attn.v_proj.bias",
	[LLM_WEIGHT_POST_ATTN_NORM] =
		"model.layers.#.post_self_attn_layernorm.weight",
	[LLM_WEIGHT_MLP_NORM] = "model.layers.#.post_attention_layernorm.weight",
	[LLM_WEIGHT_GATE] = "model.layers.#.mlp.gate_up_proj.weight",
	[LLM_WEIGHT_UP] = "model.layers.#.mlp.gate_up_proj.weight",
	[LLM_WEIGHT_DOWN] = "model.layers.#.mlp.down_proj.weight",
	[LLM_WEIGHT_POST_MLP_NORM] = "model.layers.#.post_mlp_layernorm.weight",
};

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	config->has_post_norms = true;
	return family_glm_read(reader, config);
}

const LlmFamily family_glm4 = {
	.name = "glm4",
	.model_type = "glm4",
	.architectures = architectures,
	.keys = family_glm_keys,
	.defaults = { .n_kv_heads = 2,
				  .head_dim = 128,
				  .max_position = 131072,
				  .bos_token_id = -1,
				  .eos_token_id = -1,
				  .norm_eps = 1.5625e-07,
				  .partial_rotary_factor = 0.5 },
	.tensor_names = tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
