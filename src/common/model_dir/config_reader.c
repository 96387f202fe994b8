/*
 * config_reader.c
 *	  Getters over a config's JSON whose messages name the file, and the
 *	  rule for keys nobody asked for.
 *
 * A key of config.json is one of four: common to all families or known to
 * this one, and then read; known to be harmless, and ignored; one that
 * other families compute with, allowed where it says "not here"; or
 * unknown, and then the config is refused by that key's name.  Ignoring an
 * unknown key would be a guess, and a wrong guess gives wrong answers
 * without a sound.  A key that is null says nothing.
 *
 * src/common/model_dir/config_reader.c
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/common/model_dir/model_dir_internal.h"

/* Put the path in front of a message that was just composed. */
static bool
in_file(const ConfigReader *reader)
{
	LlmError inner;

	if (reader->err == NULL)
		return false;
	inner = *reader->err;
	return llm_error_set(reader->err, (LlmErrorCode) inner.code, "%s: %s",
						 reader->path, inner.message);
}

bool
config_get_int(const ConfigReader *reader, const char *key, int64_t min,
			   int64_t max, int32_t *value)
{
	int64_t wide = *value;

	assert(min >= INT32_MIN && max <= INT32_MAX);
	if (!llm_json_get_int(reader->json, key, &wide, reader->err))
		return in_file(reader);
	if (llm_json_get(reader->json, key) == NULL)
		return true;
	if (wide < min || wide > max)
		return llm_error_set(
			reader->err, LLM_ERROR_INVALID,
			"%s: \"%s\" is %lld, but must be from %lld to %lld", reader->path,
			key, (long long) wide, (long long) min, (long long) max);
	*value = (int32_t) wide;
	return true;
}

bool
config_need_int(const ConfigReader *reader, const char *key, int64_t min,
				int64_t max, int32_t *value)
{
	if (llm_json_get(reader->json, key) == NULL && *value == 0)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"%s\" is missing", reader->path, key);
	return config_get_int(reader, key, min, max, value);
}

bool
config_get_double(const ConfigReader *reader, const char *key, double min,
				  double max, double *value)
{
	double given = *value;

	if (!llm_json_get_double(reader->json, key, &given, reader->err))
		return in_file(reader);
	if (llm_json_get(reader->json, key) == NULL)
		return true;
	if (given < min || given > max)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"%s\" is %g, but must be from %g to %g",
							 reader->path, key, given, min, max);
	*value = given;
	return true;
}

bool
config_get_bool(const ConfigReader *reader, const char *key, bool *value)
{
	return llm_json_get_bool(reader->json, key, value, reader->err) ||
		   in_file(reader);
}

bool
config_get_string(const ConfigReader *reader, const char *key,
				  const char **value)
{
	return llm_json_get_string(reader->json, key, value, reader->err) ||
		   in_file(reader);
}

bool
config_has(const ConfigReader *reader, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(reader->json, key) != NULL;
}

bool
config_is_one_of(const char *const *names, const char *name)
{
	for (; *names != NULL; names++)
	{
		if (strcmp(*names, name) == 0)
			return true;
	}
	return false;
}

bool
config_unsupported(const ConfigReader *reader, const char *fmt, ...)
{
	char what[LLM_ERROR_MESSAGE_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	return llm_error_set(reader->err, LLM_ERROR_UNSUPPORTED, "%s: %s",
						 reader->path, what);
}

/* Read for every family. */
static const char *const common_keys[] = {
	"architectures",
	"bos_token_id",
	"dtype",
	"eos_token_id",
	"head_dim",
	"hidden_act",
	"hidden_size",
	"intermediate_size",
	"layer_types",
	"max_position_embeddings",
	"model_type",
	"num_attention_heads",
	"num_hidden_layers",
	"num_key_value_heads",
	"original_max_position_embeddings",
	"partial_rotary_factor",
	"rms_norm_eps",
	"rope_parameters",
	"rope_scaling",
	"rope_theta",
	"tie_word_embeddings",
	"torch_dtype",
	"vocab_size",
	NULL,
};

/*
 * Training, bookkeeping, how transformers runs or prints, and sampling
 * settings of old (today's stand in generation_config.json).
 * pretraining_tp only cut matrix products into slices.
 */
static const char *const harmless_keys[] = {
	"_attn_implementation",
	"_attn_implementation_autoset",
	"_commit_hash",
	"_flash_attn_2_enabled",
	"_name_or_path",
	"attention_dropout",
	"attn_implementation",
	"attn_pdrop",
	"bad_words_ids",
	"begin_suppress_tokens",
	"cache_implementation",
	"chunk_size_feed_forward",
	"classifier_dropout",
	"cross_attention_hidden_size",
	"decoder_start_token_id",
	"diversity_penalty",
	"do_sample",
	"early_stopping",
	"embd_pdrop",
	"encoder_no_repeat_ngram_size",
	"exponential_decay_length_penalty",
	"finetuning_task",
	"forced_bos_token_id",
	"forced_eos_token_id",
	"gradient_checkpointing",
	"hidden_dropout",
	"hidden_dropout_prob",
	"id2label",
	"initializer_range",
	"is_decoder",
	"is_llama_config",
	"label2id",
	"length_penalty",
	"max_length",
	"max_new_tokens",
	"max_sequence_length",
	"min_length",
	"model_max_length",
	"name_or_path",
	"neftune_noise_alpha",
	"no_repeat_ngram_size",
	"num_beam_groups",
	"num_beams",
	"num_labels",
	"num_return_sequences",
	"output_attentions",
	"output_hidden_states",
	"output_router_logits",
	"output_scores",
	"pad_token_id",
	"prefix",
	"pretraining_tp",
	"problem_type",
	"remove_invalid_values",
	"repetition_penalty",
	"resid_pdrop",
	"return_dict",
	"return_dict_in_generate",
	"router_aux_loss_coef",
	"router_jitter_noise",
	"sep_token_id",
	"suppress_tokens",
	"task_specific_params",
	"temperature",
	"tf_legacy_loss",
	"tokenizer_class",
	"tokenizer_model_max_length",
	"tokenizer_padding_side",
	"top_k",
	"top_p",
	"torchscript",
	"transformers.js_config",
	"transformers_version",
	"typical_p",
	"unk_token_id",
	"unsloth_fixed",
	"unsloth_version",
	"use_bfloat16",
	"use_cache",
	"use_flash_attention",
	"use_flash_attn",
	"use_return_dict",
	NULL,
};

/*
 * What other families compute with, written out by configs that do without:
 * false, 0 and nothing at all are as good as absent.
 */
static const char *const off_keys[] = {
	"add_cross_attention",
	"alibi",
	"attention_bias",
	"attn_logit_softcapping",
	"clip_qkv",
	"final_logit_softcapping",
	"is_encoder_decoder",
	"lm_head_bias",
	"mlp_bias",
	"num_experts",
	"num_local_experts",
	"pruned_heads",
	"qk_layernorm",
	"qkv_bias",
	"rope_interleaved",
	"shared_expert_intermediate_size",
	"sliding_window",
	"tie_encoder_decoder",
	"use_bidirectional_attention",
	"use_mrope",
	"use_qk_norm",
	"use_sliding_window",
	NULL,
};

/* ... and those that do nothing where they are 1. */
static const char *const unit_keys[] = {
	"embedding_multiplier",
	"full_attn_mod",
	"interpolate_factor",
	"logit_scale",
	"logits_scaling",
	"residual_multiplier",
	NULL,
};

static bool
is_off(const cJSON *item)
{
	return cJSON_IsFalse(item) ||
		   (cJSON_IsNumber(item) && item->valuedouble == 0) ||
		   ((cJSON_IsObject(item) || cJSON_IsArray(item)) &&
			item->child == NULL);
}

static const char *
string_or(const cJSON *object, const char *key, const char *absent)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsString(item) ? item->valuestring : absent;
}

/*
 * bitsandbytes' NF4 is what can be read; which weights are stored so, their
 * tensors say.  Configs without a method are from before there were others.
 */
static bool
check_quantization(const ConfigReader *reader, const cJSON *item)
{
	const bool has_4bit =
		cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "load_in_4bit"));
	const char *method =
		string_or(item, "quant_method", has_4bit ? "bitsandbytes" : "unknown");
	const char *type = string_or(item, "bnb_4bit_quant_type", "fp4");

	if (strcmp(method, "bitsandbytes") != 0)
		return config_unsupported(
			reader, "weights quantized with method \"%s\" are not supported",
			method);
	if (!has_4bit)
		return config_unsupported(
			reader, "8-bit weights of bitsandbytes are not supported");
	if (strcmp(type, "nf4") != 0)
		return config_unsupported(
			reader,
			"4-bit weights of bitsandbytes in \"%s\" are not "
			"supported",
			type);
	return true;
}

/*
 * Custom code for the language model may compute anything, but for code that
 * transformers took over; it may be named with its repository:
 * "owner/name--modeling_phi3.Phi3ForCausalLM".
 */
static bool
check_auto_map(const ConfigReader *reader, const cJSON *item)
{
	const cJSON *code =
		cJSON_GetObjectItemCaseSensitive(item, "AutoModelForCausalLM");
	const char *known = reader->family->known_code;
	const char *name = cJSON_IsString(code) ? code->valuestring : "";
	const char *repository_end = strstr(name, "--");

	if (repository_end != NULL)
		name = repository_end + 2;
	if (code != NULL && (known == NULL || strcmp(name, known) != 0))
		return config_unsupported(
			reader, "\"auto_map\" names custom code for the model, which is "
					"not supported");
	return true;
}

static bool
check_key(const ConfigReader *reader, const cJSON *item,
		  const char *const *keys)
{
	const char *key = item->string;

	if (cJSON_IsNull(item) || config_is_one_of(keys, key) ||
		(keys == reader->family->keys && config_is_one_of(common_keys, key)) ||
		config_is_one_of(harmless_keys, key))
		return true;
	if (strcmp(key, "quantization_config") == 0 ||
		strcmp(key, "compression_config") == 0)
		return check_quantization(reader, item);
	if (strcmp(key, "auto_map") == 0)
		return check_auto_map(reader, item);
	if (config_is_one_of(off_keys, key))
	{
		if (is_off(item))
			return true;
		return config_unsupported(reader,
								  "family \"%s\" does not support \"%s\"",
								  reader->family->name, key);
	}
	if (config_is_one_of(unit_keys, key) && cJSON_IsNumber(item) &&
		item->valuedouble == 1)
		return true;
	config_unsupported(reader, "key \"%s\" is not known for family \"%s\"", key,
					   reader->family->name);
	return llm_error_hint(reader->err,
						  "remove the key if it does not change what the "
						  "model computes");
}

bool
config_check_keys(const ConfigReader *reader, const char *const *keys)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, reader->json)
	{
		if (!check_key(reader, item, keys))
			return false;
	}
	return true;
}

static bool
add_stop_id(const ConfigReader *reader, const cJSON *item,
			LlmModelConfig *config)
{
	double id = cJSON_IsNumber(item) ? item->valuedouble : -1;

	if (!(id >= 0) || id >= config->n_vocab || id != (double) (int32_t) id)
		return llm_error_set(
			reader->err, LLM_ERROR_INVALID,
			"%s: \"eos_token_id\" must hold token ids from 0 to %d",
			reader->path, config->n_vocab - 1);
	for (int i = 0; i < config->n_stop_ids; i++)
	{
		if (config->stop_ids[i] == (int32_t) id)
			return true;
	}
	if (config->n_stop_ids == LLM_MAX_STOP_IDS)
		return llm_error_set(reader->err, LLM_ERROR_LIMIT,
							 "%s: \"eos_token_id\" has more than %d ids",
							 reader->path, LLM_MAX_STOP_IDS);
	config->stop_ids[config->n_stop_ids++] = (int32_t) id;
	return true;
}

bool
config_get_stop_ids(const ConfigReader *reader, LlmModelConfig *config,
					bool *found)
{
	const cJSON *item = llm_json_get(reader->json, "eos_token_id");
	const cJSON *id;

	assert(config->n_vocab > 0);
	*found = item != NULL;
	if (item == NULL)
		return true;
	config->n_stop_ids = 0;
	if (!cJSON_IsArray(item))
		return add_stop_id(reader, item, config);
	cJSON_ArrayForEach(id, item)
	{
		if (!add_stop_id(reader, id, config))
			return false;
	}
	return true;
}
