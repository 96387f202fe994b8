/*
 * family_qwen2.c
 *	  Qwen2, Qwen2.5 (dense, text).
 *
 * Llama with biases on q, k and v and none on o, whatever the config says;
 * layers from max_window_layers on slide where use_sliding_window is true.
 * Defaults: Qwen2Config.
 *
 * src/common/model_dir/family_qwen2.c
 */
#include "src/common/model_dir/model_dir_internal.h"

static const char *const architectures[] = { "Qwen2ForCausalLM", NULL };
static const char *const keys[] = { "use_sliding_window", "sliding_window",
									"max_window_layers", NULL };

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	config->has_qkv_bias = true;
	return qwen_sliding_layers_read(reader, config);
}

const LlmFamily family_qwen2 = {
	.name = "qwen2",
	.model_type = "qwen2",
	.architectures = architectures,
	.keys = keys,
	.defaults = { .n_kv_heads = 32,
				  .head_dim = 0,
				  .max_position = 32768,
				  .sliding_window = 4096,
				  .bos_token_id = -1,
				  .eos_token_id = -1 },
	.tensor_names = family_llama_tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
