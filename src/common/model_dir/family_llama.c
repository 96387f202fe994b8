/*
 * family_llama.c
 *	  Llama 2, 3, 3.1, 3.2, 3.3 (text), and models of their architecture.
 *
 * RMSNorm, rotary embedding, grouped-query attention, gated MLP; biases only
 * where attention_bias and mlp_bias say so.  Defaults: LlamaConfig.
 *
 * src/common/model_dir/family_llama.c
 */
#include "src/common/model_dir/model_dir_internal.h"

/* Families that took over Llama's names share this table. */
const char *const family_llama_tensor_names[LLM_WEIGHT_ROLE_COUNT] = {
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
	[LLM_WEIGHT_O_BIAS] = "model.layers.#.self_attn.o_proj.bias",
	[LLM_WEIGHT_Q_NORM] = "model.layers.#.self_attn.q_norm.weight",
	[LLM_WEIGHT_K_NORM] = "model.layers.#.self_attn.k_norm.weight",
	[LLM_WEIGHT_MLP_NORM] = "model.layers.#.post_attention_layernorm.weight",
	[LLM_WEIGHT_GATE] = "model.layers.#.mlp.gate_proj.weight",
	[LLM_WEIGHT_UP] = "model.layers.#.mlp.up_proj.weight",
	[LLM_WEIGHT_DOWN] = "model.layers.#.mlp.down_proj.weight",
	[LLM_WEIGHT_GATE_BIAS] = "model.layers.#.mlp.gate_proj.bias",
	[LLM_WEIGHT_UP_BIAS] = "model.layers.#.mlp.up_proj.bias",
	[LLM_WEIGHT_DOWN_BIAS] = "model.layers.#.mlp.down_proj.bias",
};

/* Old checkpoints saved the rotary frequencies, which follow from config. */
const char *const family_llama_harmless_tensors[] = {
	"model.layers.#.self_attn.rotary_emb.inv_freq",
	"model.rotary_emb.inv_freq",
	NULL,
};

static const char *const architectures[] = { "LlamaForCausalLM", NULL };
static const char *const keys[] = { "attention_bias", "mlp_bias", NULL };

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	bool has_attention_bias = false;

	if (!config_get_bool(reader, "attention_bias", &has_attention_bias) ||
		!config_get_bool(reader, "mlp_bias", &config->has_mlp_bias))
		return false;
	config->has_qkv_bias = has_attention_bias;
	config->has_o_bias = has_attention_bias;
	return sliding_layers_read(reader, 0, 0, config);
}

const LlmFamily family_llama = {
	.name = "llama",
	.model_type = "llama",
	.architectures = architectures,
	.keys = keys,
	.defaults = { .n_kv_heads = 0,
				  .head_dim = 0,
				  .max_position = 2048,
				  .bos_token_id = 1,
				  .eos_token_id = 2 },
	.tensor_names = family_llama_tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
