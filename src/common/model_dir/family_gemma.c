/*
 * family_gemma.c
 *	  Gemma (1), CodeGemma.
 *
 * Llama with embeddings times sqrt(hidden_size) and norms that multiply by
 * weight + 1.  Configs say "gelu" and mean its tanh approximation, which
 * the models were trained with.  Defaults: GemmaConfig.
 *
 * src/common/model_dir/family_gemma.c
 */
#include <math.h>

#include "src/common/model_dir/model_dir_internal.h"

static const char *const architectures[] = { "GemmaForCausalLM", NULL };
static const char *const keys[] = { "attention_bias", "hidden_activation",
									NULL };

bool
family_gemma_read(const ConfigReader *reader, LlmModelConfig *config)
{
	config->norm_adds_one = true;
	config->embed_scale = sqrt(config->hidden_size);
	if (!config_get_bool(reader, "attention_bias", &config->has_qkv_bias))
		return false;
	config->has_o_bias = config->has_qkv_bias;
	return true;
}

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	LlmHiddenAct second;

	if (config->hidden_act == LLM_HIDDEN_ACT_GELU)
		config->hidden_act = LLM_HIDDEN_ACT_GELU_TANH;
	second = config->hidden_act;
	if (!config_get_hidden_act(reader, "hidden_activation", &second))
		return false;
	if (second != config->hidden_act)
		return config_unsupported(
			reader, "\"hidden_act\" and \"hidden_activation\" differ");
	return family_gemma_read(reader, config) &&
		   sliding_layers_read(reader, 0, 0, config);
}

const LlmFamily family_gemma = {
	.name = "gemma",
	.model_type = "gemma",
	.architectures = architectures,
	.keys = keys,
	.defaults = { .n_kv_heads = 16,
				  .head_dim = 256,
				  .max_position = 8192,
				  .bos_token_id = 2,
				  .eos_token_id = 1,
				  .hidden_act = LLM_HIDDEN_ACT_GELU_TANH,
				  .tie_word_embeddings = true },
	.tensor_names = family_llama_tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
