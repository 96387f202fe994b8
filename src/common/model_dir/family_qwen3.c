/*
 * family_qwen3.c
 *	  Qwen3 (dense, text).
 *
 * Qwen2 without its biases, with an RMSNorm on each head of q and k before
 * they rotate, and a head_dim of its own.  Defaults: Qwen3Config.
 *
 * src/common/model_dir/family_qwen3.c
 */
#include "src/common/model_dir/model_dir_internal.h"

static const char *const architectures[] = { "Qwen3ForCausalLM", NULL };
static const char *const keys[] = { "attention_bias", "use_sliding_window",
									"sliding_window", "max_window_layers",
									NULL };

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	bool has_attention_bias = false;

	if (!config_get_bool(reader, "attention_bias", &has_attention_bias))
		return false;
	config->has_qkv_bias = has_attention_bias;
	config->has_o_bias = has_attention_bias;
	config->has_qk_norm = true;
	return qwen_sliding_layers_read(reader, config);
}

const LlmFamily family_qwen3 = {
	.name = "qwen3",
	.model_type = "qwen3",
	.architectures = architectures,
	.keys = keys,
	.defaults = { .n_kv_heads = 32,
				  .head_dim = 128,
				  .max_position = 32768,
				  .sliding_window = 4096,
				  .bos_token_id = -1,
				  .eos_token_id = -1 },
	.tensor_names = family_llama_tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
