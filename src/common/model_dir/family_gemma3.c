/*
 * family_gemma3.c
 *	  Gemma 3, the text models.
 *
 * Gemma 2 with norms on the heads of q and k, five sliding layers to a full
 * one, and a rotary embedding of their own for the sliding ones.  Soft caps
 * are off unless given; transformers reads the one on attention scores and
 * does nothing with it, so neither do we.  Defaults: Gemma3TextConfig.
 *
 * src/common/model_dir/family_gemma3.c
 */
#include "src/common/model_dir/model_dir_internal.h"

static const char *const architectures[] = { "Gemma3ForCausalLM", NULL };

/* transformers writes _sliding_window_pattern and never reads it. */
const char *const family_gemma3_keys[] = {
	"_sliding_window_pattern", "attention_bias",
	"attn_logit_softcapping",  "final_logit_softcapping",
	"hidden_activation",	   "query_pre_attn_scalar",
	"rope_local_base_freq",	   "sliding_window",
	"sliding_window_pattern",  NULL
};

bool
family_gemma3_read(const ConfigReader *reader, LlmModelConfig *config)
{
	int32_t window = config_has(reader, "sliding_window")
						 ? 0
						 : reader->family->defaults.sliding_window;
	int32_t pattern = 6;

	config->has_qk_norm = true;
	if (!config_get_int(reader, "sliding_window", 1, INT32_MAX, &window) ||
		!config_get_int(reader, "sliding_window_pattern", 1, INT32_MAX,
						&pattern) ||
		!family_gemma2_read(reader, config))
		return false;
	config->attention_soft_cap = 0;
	return sliding_pattern_read(reader, window, pattern, config);
}

const LlmFamily family_gemma3 = {
	.name = "gemma3",
	.model_type = "gemma3_text",
	.architectures = architectures,
	.keys = family_gemma3_keys,
	.defaults = { .n_vocab = 262208,
				  .n_heads = 8,
				  .n_kv_heads = 4,
				  .head_dim = 256,
				  .max_position = 131072,
				  .sliding_window = 4096,
				  .bos_token_id = 2,
				  .eos_token_id = 1,
				  .rope_theta = 1000000,
				  .sliding_rope_theta = 10000,
				  .hidden_act = LLM_HIDDEN_ACT_GELU_TANH,
				  .tie_word_embeddings = true },
	.hidden_act_key = "hidden_activation",
	.max_position_is_scaled = true,
	.tensor_names = family_gemma2_tensor_names,
	.harmless_tensors = family_llama_harmless_tensors,
	.read = family_gemma3_read,
};
