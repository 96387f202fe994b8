/*
 * family_gemma2.c
 *	  Gemma 2.
 *
 * Gemma with norms on the outputs of attention and of the MLP, an attention
 * scale and soft caps from the config, and every other layer sliding, from
 * the first one on.  Defaults: Gemma2Config; a soft cap whose key is missing
 * is there, one that is null is not.
 *
 * src/common/model_dir/family_gemma2.c
 */
#include <math.h>

#include "src/common/model_dir/model_dir_internal.h"

#define MAX_SOFT_CAP 1e6

static const char *const architectures[] = { "Gemma2ForCausalLM", NULL };
static const char *const keys[] = {
	"attention_bias",		   "attn_logit_softcapping",
	"final_logit_softcapping", "hidden_activation",
	"query_pre_attn_scalar",   "sliding_window",
	"sliding_window_size",	   NULL
};

const char *const family_gemma2_tensor_names[LLM_WEIGHT_ROLE_COUNT] =
	FAMILY_GEMMA_TENSOR_NAMES("");

bool
family_gemma2_read(const ConfigReader *reader, LlmModelConfig *config)
{
	double scalar = 256;

	config->has_post_norms = true;
	if (!family_gemma_read(reader, config) ||
		!config_get_double(reader, "query_pre_attn_scalar", 1e-6, 1e9,
						   &scalar) ||
		!config_get_double(reader, "attn_logit_softcapping", 1e-3, MAX_SOFT_CAP,
						   &config->attention_soft_cap) ||
		!config_get_double(reader, "final_logit_softcapping", 1e-3,
						   MAX_SOFT_CAP, &config->logit_soft_cap))
		return false;
	config->attention_scale = 1 / sqrt(scalar);
	return true;
}

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	int32_t window = config_has(reader, "sliding_window")
						 ? 0
						 : reader->family->defaults.sliding_window;
	int32_t second;

	config->attention_soft_cap =
		config_has(reader, "attn_logit_softcapping") ? 0 : 50;
	config->logit_soft_cap =
		config_has(reader, "final_logit_softcapping") ? 0 : 30;
	if (!config_get_int(reader, "sliding_window", 1, INT32_MAX, &window))
		return false;
	second = window;
	if (!config_get_int(reader, "sliding_window_size", 1, INT32_MAX, &second))
		return false;
	if (second != window)
		return config_unsupported(reader,
								  "\"sliding_window\" is %d, but "
								  "\"sliding_window_size\" is %d",
								  window, second);
	return family_gemma2_read(reader, config) &&
		   sliding_pattern_read(reader, window, 2, config);
}

const LlmFamily family_gemma2 = {
	.name = "gemma2",
	.model_type = "gemma2",
	.architectures = architectures,
	.keys = keys,
	.defaults = { .n_kv_heads = 4,
				  .head_dim = 256,
				  .max_position = 8192,
				  .sliding_window = 4096,
				  .bos_token_id = 2,
				  .eos_token_id = 1,
				  .hidden_act = LLM_HIDDEN_ACT_GELU_TANH,
				  .tie_word_embeddings = true },
	.hidden_act_key = "hidden_activation",
	.tensor_names = family_gemma2_tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = read_config,
};
