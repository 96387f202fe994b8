/*
 * family_glm.c
 *	  GLM-4: "glm" of 2024 (glm-4-9b-hf, glm-4-9b-chat-hf, GLM-Edge) and "glm4"
 *	  of 2025 (GLM-4-9B-0414, GLM-4-32B-0414, GLM-Z1).
 *
 * Llama with biases on q, k and v where attention_bias says so (it does by
 * default) and never on o; half of each head's dimensions rotate, in
 * neighbouring pairs; gate and up are one tensor.  glm4 adds norms on the
 * outputs of attention and of the MLP.  Mind the names:
 * post_attention_layernorm comes before the MLP.  Defaults: GlmConfig,
 * Glm4Config.
 *
 * src/common/model_dir/family_glm.c
 */
#include "src/common/model_dir/model_dir_internal.h"

static const char *const glm_architectures[] = { "GlmForCausalLM", NULL };
static const char *const glm4_architectures[] = { "Glm4ForCausalLM", NULL };
static const char *const keys[] = { "attention_bias", NULL };

#define GLM_TENSORS                                                           \
	[LLM_WEIGHT_EMBED] = "model.embed_tokens.weight",                         \
	[LLM_WEIGHT_FINAL_NORM] = "model.norm.weight",                            \
	[LLM_WEIGHT_LM_HEAD] = "lm_head.weight",                                  \
	[LLM_WEIGHT_ATTN_NORM] = "model.layers.#.input_layernorm.weight",         \
	[LLM_WEIGHT_Q] = "model.layers.#.self_attn.q_proj.weight",                \
	[LLM_WEIGHT_K] = "model.layers.#.self_attn.k_proj.weight",                \
	[LLM_WEIGHT_V] = "model.layers.#.self_attn.v_proj.weight",                \
	[LLM_WEIGHT_O] = "model.layers.#.self_attn.o_proj.weight",                \
	[LLM_WEIGHT_Q_BIAS] = "model.layers.#.self_attn.q_proj.bias",             \
	[LLM_WEIGHT_K_BIAS] = "model.layers.#.self_attn.k_proj.bias",             \
	[LLM_WEIGHT_V_BIAS] = "model.layers.#.self_attn.v_proj.bias",             \
	[LLM_WEIGHT_MLP_NORM] = "model.layers.#.post_attention_layernorm.weight", \
	[LLM_WEIGHT_GATE] = "model.layers.#.mlp.gate_up_proj.weight",             \
	[LLM_WEIGHT_UP] = "model.layers.#.mlp.gate_up_proj.weight",               \
	[LLM_WEIGHT_DOWN] = "model.layers.#.mlp.down_proj.weight"

static const char *const glm_tensors[LLM_WEIGHT_ROLE_COUNT] = { GLM_TENSORS };

static const char *const glm4_tensors[LLM_WEIGHT_ROLE_COUNT] = {
	GLM_TENSORS,
	[LLM_WEIGHT_POST_ATTN_NORM] =
		"model.layers.#.post_self_attn_layernorm.weight",
	[LLM_WEIGHT_POST_MLP_NORM] = "model.layers.#.post_mlp_layernorm.weight",
};

/* GlmConfig puts these where eos_token_id is missing or null. */
static void
add_default_stop_ids(LlmModelConfig *config)
{
	static const int32_t ids[] = { 151329, 151336, 151338 };

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
	{
		if (ids[i] < config->n_vocab)
			config->stop_ids[config->n_stop_ids++] = ids[i];
	}
}

static bool
read_glm(const ConfigReader *reader, LlmModelConfig *config)
{
	config->has_qkv_bias = true;
	config->rope.interleaved = true;
	if (llm_json_get(reader->json, "eos_token_id") == NULL)
		add_default_stop_ids(config);
	return config_get_bool(reader, "attention_bias", &config->has_qkv_bias) &&
		   sliding_layers_read(reader, 0, 0, config);
}

static bool
read_glm4(const ConfigReader *reader, LlmModelConfig *config)
{
	config->has_post_norms = true;
	return read_glm(reader, config);
}

#define GLM_DEFAULTS                                                    \
	{                                                                   \
		.n_kv_heads = 2, .head_dim = 128, .max_position = 131072,       \
		.bos_token_id = -1, .eos_token_id = -1, .norm_eps = 1.5625e-07, \
		.partial_rotary_factor = 0.5                                    \
	}

const LlmFamily family_glm = {
	.name = "glm",
	.model_type = "glm",
	.architectures = glm_architectures,
	.keys = keys,
	.defaults = GLM_DEFAULTS,
	.tensor_names = glm_tensors,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_glm,
};

const LlmFamily family_glm4 = {
	.name = "glm4",
	.model_type = "glm4",
	.architectures = glm4_architectures,
	.keys = keys,
	.defaults = GLM_DEFAULTS,
	.tensor_names = glm4_tensors,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_glm4,
};
