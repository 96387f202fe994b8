/*
 * family_gemma3_vision.c
 *	  Gemma 3 of 4, 12 and 27 billion parameters, which also sees: its text
 *	  model.
 *
 * family_gemma3.c's model in "text_config", its tensors under
 * "language_model.".  transformers applies no soft cap to the logits of this
 * one, whatever the config says.  Defaults: Gemma3TextConfig.
 *
 * src/common/model_dir/family_gemma3_vision.c
 */
#include "src/common/model_dir/model_dir_internal.h"

static const char *const architectures[] = { "Gemma3ForConditionalGeneration",
											 NULL };

/* What speaks of images, and the keys that text_config.c takes along. */
static const char *const outer_keys[] = {
	"architectures",	   "boi_token_index",
	"bos_token_id",		   "dtype",
	"eoi_token_index",	   "eos_token_id",
	"image_token_index",   "mm_tokens_per_image",
	"model_type",		   "text_config",
	"tie_word_embeddings", "torch_dtype",
	"vision_config",	   NULL,
};

static const char *const tensor_names[LLM_WEIGHT_ROLE_COUNT] =
	FAMILY_GEMMA_TENSOR_NAMES("language_model.");

static const char *const harmless_tensors[] = {
	"multi_modal_projector.*",
	"vision_tower.*",
	NULL,
};

static bool
read_config(const ConfigReader *reader, LlmModelConfig *config)
{
	if (!family_gemma3_read(reader, config))
		return false;
	config->logit_soft_cap = 0;
	return true;
}

const LlmFamily family_gemma3_vision = {
	.name = "gemma3",
	.model_type = "gemma3",
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
	.outer_keys = outer_keys,
	.text_model_type = "gemma3_text",
	.tensor_names = tensor_names,
	.harmless_tensors = harmless_tensors,
	.read = read_config,
};
