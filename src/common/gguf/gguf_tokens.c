/*
 * gguf_tokens.c
 *	  Special tokens, chat template and sampling defaults of a GGUF file, as
 *	  tokenizer_config.json and generation_config.json say them.
 *
 * A model's makers name several tokens that end an answer in
 * generation_config.json.  GGUF files have keys for three, and llama.cpp
 * looks for the rest among the control tokens by their texts, as is done
 * here: without them a model talks on after its answer.
 *
 * src/common/gguf/gguf_tokens.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/gguf/gguf_internal.h"

#define TOKEN_TYPE_CONTROL 3
#define MAX_STOP_IDS 16
#define MAX_TEMPLATE_BYTES ((size_t) 1 << 20)

static const char *const stop_id_keys[] = {
	"tokenizer.ggml.eos_token_id",
	"tokenizer.ggml.eot_token_id",
	"tokenizer.ggml.eom_token_id",
};

/* Control tokens that end an answer, whatever the model. */
static const char *const stop_texts[] = {
	"<|eot_id|>",	 "<|eom_id|>",	  "<|im_end|>",		 "<|end|>",
	"<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|observation|>",
};

static const struct
{
	const char *metadata_key;
	const char *key;
} special_tokens[] = {
	{ "tokenizer.ggml.bos_token_id", "bos_token" },
	{ "tokenizer.ggml.eos_token_id", "eos_token" },
	{ "tokenizer.ggml.unknown_token_id", "unk_token" },
	{ "tokenizer.ggml.seperator_token_id", "sep_token" }, /* so spelt there */
	{ "tokenizer.ggml.padding_token_id", "pad_token" },
	{ "tokenizer.ggml.mask_token_id", "mask_token" },
};

static const struct
{
	const char *metadata_key;
	const char *key;
} sampling_defaults[] = {
	{ "general.sampling.temp", "temperature" },
	{ "general.sampling.top_k", "top_k" },
	{ "general.sampling.top_p", "top_p" },
	{ "general.sampling.min_p", "min_p" },
	{ "general.sampling.penalty_repeat", "repetition_penalty" },
};

/* ---- ids in config.json ---- */

static bool
add_stop_id(GgufConfig *config, cJSON *list, int64_t token_id)
{
	const cJSON *item;
	cJSON *added;

	cJSON_ArrayForEach(item, list)
	{
		if (item->valuedouble == (double) token_id)
			return true;
	}
	if (cJSON_GetArraySize(list) == MAX_STOP_IDS)
		return true;
	added = cJSON_CreateNumber((double) token_id);
	if (!cJSON_AddItemToArray(list, added))
	{
		cJSON_Delete(added);
		config->failed = true;
	}
	return true;
}

static bool
is_stop_text(LlmGgufText text)
{
	for (size_t i = 0; i < sizeof(stop_texts) / sizeof(stop_texts[0]); i++)
	{
		if (text.len == strlen(stop_texts[i]) &&
			memcmp(text.data, stop_texts[i], text.len) == 0)
			return true;
	}
	return false;
}

static bool
add_stop_ids_by_text(GgufConfig *config, cJSON *list)
{
	LlmGgufArray tokens = { 0 };
	LlmGgufArray types = { 0 };
	LlmGgufText text;
	double type;

	if (!llm_gguf_get_array(config->gguf, "tokenizer.ggml.tokens", &tokens,
							config->err) ||
		!llm_gguf_get_array(config->gguf, "tokenizer.ggml.token_type", &types,
							config->err))
		return false;
	for (int64_t id = 0; llm_gguf_next_text(&tokens, &text) &&
						 llm_gguf_next_number(&types, &type);
		 id++)
	{
		if (type == TOKEN_TYPE_CONTROL && is_stop_text(text) &&
			!add_stop_id(config, list, id))
			return false;
	}
	return true;
}

bool
gguf_config_write_token_ids(GgufConfig *config)
{
	size_t n_keys = sizeof(stop_id_keys) / sizeof(stop_id_keys[0]);
	int64_t bos = -1;
	cJSON *list;

	if (!llm_gguf_get_int(config->gguf, "tokenizer.ggml.bos_token_id", &bos,
						  config->err))
		return false;
	/* null says "none"; without the key the family's default would count */
	if (cJSON_AddNullToObject(config->out, "bos_token_id") == NULL)
		config->failed = true;
	if (bos >= 0)
		gguf_config_set(config, "bos_token_id", (double) bos);
	list = cJSON_AddArrayToObject(config->out, "eos_token_id");
	if (list == NULL)
	{
		config->failed = true;
		return true;
	}
	for (size_t i = 0; i < n_keys; i++)
	{
		int64_t id = -1;

		if (!llm_gguf_get_int(config->gguf, stop_id_keys[i], &id, config->err))
			return false;
		if (id >= 0 && !add_stop_id(config, list, id))
			return false;
	}
	return add_stop_ids_by_text(config, list);
}

/* ---- generation_config.json ---- */

bool
gguf_write_generation_config(const LlmGguf *gguf, LlmStrbuf *text, bool *found,
							 LlmError *err)
{
	size_t n = sizeof(sampling_defaults) / sizeof(sampling_defaults[0]);
	cJSON *json = cJSON_CreateObject();
	bool ok = json != NULL ||
			  llm_error_no_memory(err, 0, "a model's sampling defaults");

	*found = false;
	for (size_t i = 0; ok && i < n; i++)
	{
		const char *key = sampling_defaults[i].metadata_key;
		double value = 0;

		if (!llm_gguf_has(gguf, key))
			continue;
		*found = true;
		ok = llm_gguf_get_double(gguf, key, &value, err) &&
			 (cJSON_AddNumberToObject(json, sampling_defaults[i].key,
									  gguf_shortest_number((float) value)) !=
				  NULL ||
			  llm_error_no_memory(err, 0, "a model's sampling defaults"));
	}
	ok = ok && (!*found || gguf_print_json(json, text, err));
	cJSON_Delete(json);
	return ok;
}

/* ---- tokenizer_config.json ---- */

/* Add a text of the file to an object. */
static bool
add_text(const LlmGguf *gguf, cJSON *json, const char *key, LlmGgufText text,
		 LlmError *err)
{
	char *copy;
	bool ok;

	if (text.len > MAX_TEMPLATE_BYTES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "%s: \"%s\" has %zu bytes, more than the limit of "
							 "%zu",
							 llm_gguf_path(gguf, 0), key, text.len,
							 MAX_TEMPLATE_BYTES);
	if (text.len > 0 && memchr(text.data, '\0', text.len) != NULL)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: \"%s\" holds a zero byte",
							 llm_gguf_path(gguf, 0), key);
	copy = strndup(text.data, text.len);
	ok = copy != NULL && cJSON_AddStringToObject(json, key, copy) != NULL;
	free(copy);
	return ok || llm_error_no_memory(err, text.len, key);
}

static bool
add_special_token(const LlmGguf *gguf, cJSON *json, size_t idx, LlmError *err)
{
	const char *metadata_key = special_tokens[idx].metadata_key;
	LlmGgufArray tokens = { 0 };
	LlmGgufText text = { "", 0 };
	int64_t id = -1;

	if (!llm_gguf_get_int(gguf, metadata_key, &id, err) ||
		!llm_gguf_get_array(gguf, "tokenizer.ggml.tokens", &tokens, err))
		return false;
	if (!llm_gguf_has(gguf, metadata_key) || id == -1 || id == UINT32_MAX)
		return true; /* both mean "none" */
	if (id < 0 || (uint64_t) id >= tokens.n_left)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: metadata key \"%s\" is %lld, but there are "
							 "%llu tokens",
							 llm_gguf_path(gguf, 0), metadata_key,
							 (long long) id,
							 (unsigned long long) tokens.n_left);
	for (int64_t i = 0; i <= id; i++)
	{
		if (!llm_gguf_next_text(&tokens, &text))
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "%s: \"tokenizer.ggml.tokens\" must hold "
								 "strings",
								 llm_gguf_path(gguf, 0));
	}
	return add_text(gguf, json, special_tokens[idx].key, text, err);
}

/* Without an unnamed template: the named ones, of which a reader picks. */
static bool
add_named_templates(const LlmGguf *gguf, cJSON *json, LlmError *err)
{
	LlmGgufArray names = { 0 };
	LlmGgufText name;
	cJSON *list;

	if (!llm_gguf_get_array(gguf, "tokenizer.chat_templates", &names, err))
		return false;
	if (names.n_left == 0)
		return true;
	list = cJSON_AddArrayToObject(json, "chat_template");
	while (llm_gguf_next_text(&names, &name))
	{
		char key[GGUF_MAX_KEY_BYTES + 1];
		LlmGgufText text = { "", 0 };
		cJSON *entry = cJSON_CreateObject();

		if (!cJSON_AddItemToArray(list, entry))
		{
			cJSON_Delete(entry);
			return llm_error_no_memory(err, 0, "chat templates");
		}
		snprintf(key, sizeof(key), "tokenizer.chat_template.%.*s",
				 (int) (name.len < 200 ? name.len : 200), name.data);
		if (!llm_gguf_get_text(gguf, key, &text, err) ||
			!add_text(gguf, entry, "name", name, err) ||
			!add_text(gguf, entry, "template", text, err))
			return false;
	}
	return true;
}

static bool
add_tokens_and_template(const LlmGguf *gguf, cJSON *json, LlmError *err)
{
	size_t n = sizeof(special_tokens) / sizeof(special_tokens[0]);
	LlmGgufText text = { "", 0 };

	for (size_t i = 0; i < n; i++)
	{
		if (!add_special_token(gguf, json, i, err))
			return false;
	}
	if (!llm_gguf_has(gguf, "tokenizer.chat_template"))
		return add_named_templates(gguf, json, err);
	return llm_gguf_get_text(gguf, "tokenizer.chat_template", &text, err) &&
		   add_text(gguf, json, "chat_template", text, err);
}

bool
gguf_write_tokenizer_config(const LlmGguf *gguf, LlmStrbuf *text, LlmError *err)
{
	cJSON *json = cJSON_CreateObject();
	bool ok;

	if (json == NULL)
		return llm_error_no_memory(err, 0, "special tokens");
	ok = add_tokens_and_template(gguf, json, err) &&
		 gguf_print_json(json, text, err);
	cJSON_Delete(json);
	return ok;
}
