/*
 * gguf_architectures.c
 *	  Architectures of GGUF files, and which ones of Hugging Face they are.
 *
 * A new one is a row of the table, the names that are its own, and what its
 * config.json says beyond what gguf_config.c writes for all.
 *
 * src/common/gguf/gguf_architectures.c
 */
#include <stdio.h>
#include <string.h>

#include "src/common/gguf/gguf_internal.h"

#define LAYER "model.layers.#."
#define MAX_LAYERS 65536

/* Mixtral; an expert's w1 is its gate, w2 down, w3 up. */
static const GgufNamePair llama_names[] = {
	{ "blk.#.ffn_gate_inp.weight", LAYER "block_sparse_moe.gate.weight" },
	{ "blk.#.ffn_gate_exps.weight",
	  LAYER "block_sparse_moe.experts.@.w1.weight" },
	{ "blk.#.ffn_down_exps.weight",
	  LAYER "block_sparse_moe.experts.@.w2.weight" },
	{ "blk.#.ffn_up_exps.weight",
	  LAYER "block_sparse_moe.experts.@.w3.weight" },
	{ NULL, NULL },
};

static const GgufNamePair qwen_moe_names[] = {
	{ "blk.#.ffn_gate_inp.weight", LAYER "mlp.gate.weight" },
	{ "blk.#.ffn_gate_exps.weight", LAYER "mlp.experts.@.gate_proj.weight" },
	{ "blk.#.ffn_up_exps.weight", LAYER "mlp.experts.@.up_proj.weight" },
	{ "blk.#.ffn_down_exps.weight", LAYER "mlp.experts.@.down_proj.weight" },
	{ NULL, NULL },
};

static const GgufNamePair phi3_names[] = {
	{ "blk.#.attn_qkv.weight", LAYER "self_attn.qkv_proj.weight" },
	{ "blk.#.ffn_up.weight", LAYER "mlp.gate_up_proj.weight" },
	{ NULL, NULL },
};

static const GgufNamePair gemma_names[] = {
	{ "blk.#.post_attention_norm.weight",
	  LAYER "post_attention_layernorm.weight" },
	{ "blk.#.ffn_norm.weight", LAYER "pre_feedforward_layernorm.weight" },
	{ "blk.#.post_ffw_norm.weight", LAYER "post_feedforward_layernorm.weight" },
	{ NULL, NULL },
};

static const GgufNamePair glm4_names[] = {
	{ "blk.#.ffn_up.weight", LAYER "mlp.gate_up_proj.weight" },
	{ "blk.#.post_attention_norm.weight",
	  LAYER "post_self_attn_layernorm.weight" },
	{ "blk.#.post_ffw_norm.weight", LAYER "post_mlp_layernorm.weight" },
	{ NULL, NULL },
};

static const GgufNamePair no_names[] = { { NULL, NULL } };

/* Llama, Mistral and Mixtral are one architecture in GGUF files. */
static bool
write_llama(GgufConfig *config)
{
	double window = 0;
	double n_experts = 0;

	if (!gguf_config_get(config, "attention.sliding_window", &window) ||
		!gguf_config_get(config, "expert_count", &n_experts))
		return false;
	if (n_experts > 0)
	{
		gguf_config_set_model(config, "MixtralForCausalLM", "mixtral");
		return gguf_config_copy(config, "expert_count", "num_local_experts") &&
			   gguf_config_copy(config, "expert_used_count",
								"num_experts_per_tok") &&
			   gguf_config_copy(config, "attention.sliding_window",
								"sliding_window");
	}
	if (window > 0)
	{
		gguf_config_set_model(config, "MistralForCausalLM", "mistral");
		return gguf_config_copy(config, "attention.sliding_window",
								"sliding_window");
	}
	gguf_config_set_bool(config, "attention_bias",
						 llm_gguf_find(config->gguf, "blk.0.attn_q.bias") !=
							 NULL);
	gguf_config_set_bool(config, "mlp_bias",
						 llm_gguf_find(config->gguf, "blk.0.ffn_up.bias") !=
							 NULL);
	return true;
}

/* Qwen3, GLM-4 */
static bool
write_attention_bias(GgufConfig *config)
{
	gguf_config_set_bool(config, "attention_bias",
						 llm_gguf_find(config->gguf, "blk.0.attn_q.bias") !=
							 NULL);
	return true;
}

/* The layers without a router are no mixtures: only the tensors say so. */
static bool
write_mlp_only_layers(GgufConfig *config)
{
	cJSON *list = cJSON_AddArrayToObject(config->out, "mlp_only_layers");
	double n_layers = 0;

	if (!gguf_config_get(config, "block_count", &n_layers))
		return false;
	for (int i = 0; i < n_layers && i < MAX_LAYERS; i++)
	{
		char name[64];
		cJSON *item;

		snprintf(name, sizeof(name), "blk.%d.ffn_gate_inp.weight", i);
		if (llm_gguf_find(config->gguf, name) != NULL)
			continue;
		item = cJSON_CreateNumber(i);
		if (!cJSON_AddItemToArray(list, item))
		{
			cJSON_Delete(item);
			config->failed = true;
		}
	}
	return true;
}

/* llama.cpp renormalizes the chosen experts' weights always. */
static bool
write_qwen3_moe(GgufConfig *config)
{
	gguf_config_set_bool(config, "norm_topk_prob", true);
	return write_attention_bias(config) && write_mlp_only_layers(config) &&
		   gguf_config_copy(config, "expert_count", "num_experts") &&
		   gguf_config_copy(config, "expert_used_count",
							"num_experts_per_tok") &&
		   gguf_config_copy(config, "expert_feed_forward_length",
							"moe_intermediate_size");
}


static bool
write_phi3(GgufConfig *config)
{
	double window = 0;

	if (!gguf_config_get(config, "attention.sliding_window", &window))
		return false;
	if (window > 0)
		gguf_config_set(config, "sliding_window", window);
	return true;
}

static bool
write_gemma(GgufConfig *config)
{
	gguf_config_set_text(config, "hidden_activation", "gelu_pytorch_tanh");
	return true;
}

/*
 * Scores are divided by the root of a head's dimensions, but in the 27B
 * models by that of hidden size over heads.  GGUF files do not say; like
 * llama.cpp we know these by their number of layers.
 */
static bool
write_query_scalar(GgufConfig *config, int n_layers_of_27b)
{
	double n_layers = 0;
	double hidden = 0;
	double n_heads = 1;
	const cJSON *head_dim =
		cJSON_GetObjectItemCaseSensitive(config->out, "head_dim");
	double scalar = head_dim != NULL ? head_dim->valuedouble : 0;

	if (!gguf_config_get(config, "block_count", &n_layers) ||
		!gguf_config_get(config, "embedding_length", &hidden) ||
		!gguf_config_get(config, "attention.head_count", &n_heads))
		return false;
	if (n_layers == n_layers_of_27b && n_heads > 0)
		scalar = hidden / n_heads;
	gguf_config_set(config, "query_pre_attn_scalar", scalar);
	return true;
}

static bool
write_gemma2(GgufConfig *config)
{
	return write_gemma(config) && write_query_scalar(config, 46) &&
		   gguf_config_copy(config, "attention.sliding_window",
							"sliding_window") &&
		   gguf_config_copy(config, "attn_logit_softcapping",
							"attn_logit_softcapping") &&
		   gguf_config_copy(config, "final_logit_softcapping",
							"final_logit_softcapping");
}

static bool
write_gemma3(GgufConfig *config)
{
	return write_gemma(config) && write_query_scalar(config, 62) &&
		   gguf_config_copy(config, "attention.sliding_window",
							"sliding_window") &&
		   gguf_config_copy(config, "attention.sliding_window_pattern",
							"sliding_window_pattern") &&
		   gguf_config_copy(config, "rope.freq_base_swa",
							"rope_local_base_freq") &&
		   gguf_config_copy(config, "final_logit_softcapping",
							"final_logit_softcapping");
}

static const GgufArchitecture architectures[] = {
	{ "llama", "LlamaForCausalLM", "llama", llama_names, .pairs_rows = true,
	  .write_config = write_llama },
	{ "qwen2", "Qwen2ForCausalLM", "qwen2", no_names, .write_config = NULL },
	{ "qwen3", "Qwen3ForCausalLM", "qwen3", no_names,
	  .write_config = write_attention_bias },
	{ "qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe", qwen_moe_names,
	  .write_config = write_qwen3_moe },
	{ "phi3", "Phi3ForCausalLM", "phi3", phi3_names,
	  .write_config = write_phi3 },
	{ "gemma", "GemmaForCausalLM", "gemma", no_names, .adds_one = true,
	  .write_config = write_gemma },
	{ "gemma2", "Gemma2ForCausalLM", "gemma2", gemma_names, .adds_one = true,
	  .write_config = write_gemma2 },
	{ "gemma3", "Gemma3ForCausalLM", "gemma3_text", gemma_names,
	  .adds_one = true, .write_config = write_gemma3 },
	{ "glm4", "Glm4ForCausalLM", "glm4", glm4_names,
	  .write_config = write_attention_bias },
};

#define N_ARCHITECTURES (sizeof(architectures) / sizeof(architectures[0]))

const GgufArchitecture *
gguf_architecture(const LlmGguf *gguf, LlmError *err)
{
	const char *path = llm_gguf_path(gguf, 0);
	LlmGgufText name = { "", 0 };
	char known[200] = "";

	if (!llm_gguf_get_text(gguf, "general.architecture", &name, err))
		return NULL;
	for (size_t i = 0; i < N_ARCHITECTURES; i++)
	{
		size_t used = strlen(known);

		if (strlen(architectures[i].name) == name.len &&
			memcmp(architectures[i].name, name.data, name.len) == 0)
			return &architectures[i];
		snprintf(known + used, sizeof(known) - used, "%s%s", i > 0 ? ", " : "",
				 architectures[i].name);
	}
	if (name.len == 0)
		llm_error_set(err, LLM_ERROR_INVALID,
					  "%s: metadata key \"general.architecture\" does not say "
					  "what the model is",
					  path);
	else
	{
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "%s: architecture \"%.*s\" is not supported", path,
					  (int) (name.len < 64 ? name.len : 64), name.data);
		llm_error_hint(err, "supported in GGUF files are: %s", known);
	}
	return NULL;
}
