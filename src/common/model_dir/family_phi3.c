/*
 * family_phi3.c
 *	  Phi-3 mini and medium, Phi-3.5-mini, Phi-4, Phi-4-mini.
 *
 * Llama without biases; q, k and v are one tensor, gate and up another; all
 * layers slide where there is a window; heads may rotate in part.  Longrope
 * was called "su" and "yarn" at first, and the original length outside of
 * the rotary parameters counts alone.  Published configs name the code that
 * transformers took over.  Defaults: Phi3Config.
 *
 * src/common/model_dir/family_phi3.c
 */
#include "src/common/model_dir/model_dir_internal.h"

static const char *const architectures[] = { "Phi3ForCausalLM", NULL };
static const char *const keys[] = { "sliding_window", NULL };
static const char *const longrope_names[] = { "su", "yarn", NULL };

static const char *const tensor_names[LLM_WEIGHT_ROLE_COUNT] = {
	[LLM_WEIGHT_EMBED] = "model.embed_tokens.weight",
	[LLM_WEIGHT_FINAL_NORM] = "model.norm.weight",
	[LLM_WEIGHT_LM_HEAD] = "lm_head.weight",
	[LLM_WEIGHT_ATTN_NORM] = "model.layers.#.input_layernorm.weight",
	[LLM_WEIGHT_Q] = "model.layers.#.self_attn.qkv_proj.weight",
	[LLM_WEIGHT_K] = "model.layers.#.self_attn.qkv_proj.weight",
	[LLM_WEIGHT_V] = "model.layers.#.self_attn.qkv_proj.weight",
	[LLM_WEIGHT_O] = "model.layers.#.self_attn.o_proj.weight",
	[LLM_WEIGHT_MLP_NORM] = "model.layers.#.post_attention_layernorm.weight",
	[LLM_WEIGHT_GATE] = "model.layers.#.mlp.gate_up_proj.weight",
	[LLM_WEIGHT_UP] = "model.layers.#.mlp.gate_up_proj.weight",
	[LLM_WEIGHT_DOWN] = "model.layers.#.mlp.down_proj.weight",
};

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	int32_t window = 0;

	if (config->rope.kind != LLM_ROPE_DEFAULT &&
		config->rope.kind != LLM_ROPE_LONGROPE)
		return config_unsupported(
			reader, "family \"phi3\" does not support rotary embedding \"%s\"",
			llm_rope_kind_name(config->rope.kind));
	config->rope_restarts = config->rope.kind == LLM_ROPE_LONGROPE;
	return config_get_int(reader, "sliding_window", 1, INT32_MAX, &window) &&
		   sliding_layers_read(reader, window, 0, config);
}

const LlmFamily family_phi3 = {
	.name = "phi3",
	.model_type = "phi3",
	.architectures = architectures,
	.keys = keys,
	.defaults = { .n_kv_heads = 0,
				  .head_dim = 0,
				  .max_position = 4096,
				  .original_max_position = 4096,
				  .bos_token_id = 1,
				  .eos_token_id = 32000,
				  .norm_eps = 1e-5,
				  .partial_rotary_factor = 1 },
	.longrope_names = longrope_names,
	.known_code = "modeling_phi3.Phi3ForCausalLM",
	.tensor_names = tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
