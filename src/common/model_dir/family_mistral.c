/*
 * family_mistral.c
 *	  Mistral 7B, Nemo, Small (text).
 *
 * Llama without biases, all of whose layers may slide.  Defaults:
 * MistralConfig; note that a config without the key sliding_window has one
 * of 4096, while one with null has none.
 *
 * src/common/model_dir/family_mistral.c
 */
#include "src/common/model_dir/model_dir_internal.h"

static const char *const architectures[] = { "MistralForCausalLM", NULL };
static const char *const keys[] = { "sliding_window", NULL };

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	int32_t window = config_has(reader, "sliding_window")
						 ? 0
						 : reader->family->defaults.sliding_window;

	return config_get_int(reader, "sliding_window", 1, INT32_MAX, &window) &&
		   sliding_layers_read(reader, window, 0, config);
}

const LlmFamily family_mistral = {
	.name = "mistral",
	.model_type = "mistral",
	.architectures = architectures,
	.keys = keys,
	.defaults = { .n_kv_heads = 8,
				  .head_dim = 0,
				  .max_position = 131072,
				  .sliding_window = 4096,
				  .bos_token_id = 1,
				  .eos_token_id = 2 },
	.tensor_names = family_llama_tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
