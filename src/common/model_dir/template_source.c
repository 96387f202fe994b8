/*
 * template_source.c
 *	  The chat template's text and the special tokens it may name.
 *
 * src/common/model_dir/template_source.c
 */
#include <string.h>

#include "src/common/model_dir/model_dir_internal.h"
#include "src/common/util/utf8.h"

static bool
append_template(LlmStrbuf *source, const char *text, size_t len,
				const char *path, LlmError *err)
{
	if (len > MODEL_DIR_MAX_TEMPLATE_BYTES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "%s: the chat template has %zu bytes, more than "
							 "the limit of %zu",
							 path, len, MODEL_DIR_MAX_TEMPLATE_BYTES);
	if (!llm_utf8_is_valid(text, len) || memchr(text, '\0', len) != NULL)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: the chat template is not valid UTF-8", path);
	llm_strbuf_append(source, text, len);
	if (source->failed)
		return llm_error_no_memory(err, len, "the chat template");
	return true;
}

static bool
read_jinja_file(const char *dir, const char *name, LlmStrbuf *source,
				bool *found, LlmError *err)
{
	char path[MODEL_DIR_MAX_PATH_BYTES];
	LlmModelFile file;
	bool ok;

	if (!model_dir_path(path, dir, name, err) ||
		!llm_model_file_open(&file, dir, name, err))
		return false;
	*found = file.found;
	ok =
		!file.found || append_template(source, file.data, file.size, path, err);
	llm_model_file_close(&file);
	return ok;
}

/* Of [{"name": ..., "template": ...}, ...] the one of that name. */
static const cJSON *
find_template(const cJSON *list, const char *wanted)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, list)
	{
		const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");

		if (cJSON_IsString(name) && strcmp(name->valuestring, wanted) == 0)
			return cJSON_GetObjectItemCaseSensitive(item, "template");
	}
	return NULL;
}

/* A template that stands alone is the default one. */
static bool
read_json_value(const cJSON *item, const char *wanted, const char *path,
				LlmStrbuf *source, bool *found, LlmError *err)
{
	bool is_default = strcmp(wanted, "default") == 0;
	const cJSON *text = item;

	if (cJSON_IsArray(item))
		text = find_template(item, wanted);
	else if (!is_default)
		return true;
	if (cJSON_IsString(text))
	{
		*found = true;
		return append_template(source, text->valuestring,
							   strlen(text->valuestring), path, err);
	}
	if (text == NULL && !is_default)
		return true;
	if (cJSON_IsArray(item))
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "%s: none of the chat templates is called "
							 "\"%s\"",
							 path, wanted);
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 "%s: \"chat_template\" must be a string or an "
						 "array of named templates",
						 path);
}

/* Read the key "chat_template" of a JSON file, where there is one. */
static bool
read_json_file(const char *dir, const char *name, const char *wanted,
			   LlmStrbuf *source, bool *found, LlmError *err)
{
	char path[MODEL_DIR_MAX_PATH_BYTES];
	const cJSON *item;
	cJSON *json;
	bool ok;

	if (!model_dir_path(path, dir, name, err) ||
		!model_dir_parse(dir, name, MODEL_DIR_MAX_TOKENIZER_CONFIG_BYTES, &json,
						 err))
		return false;
	item = json != NULL ? llm_json_get(json, "chat_template") : NULL;
	ok =
		item == NULL || read_json_value(item, wanted, path, source, found, err);
	cJSON_Delete(json);
	return ok;
}

static bool
read_json_files(const char *dir, const char *wanted, LlmStrbuf *source,
				bool *found, LlmError *err)
{
	if (!read_json_file(dir, "chat_template.json", wanted, source, found, err))
		return false;
	return *found || read_json_file(dir, "tokenizer_config.json", wanted,
									source, found, err);
}

bool
llm_model_chat_template_read(const char *dir, LlmStrbuf *source, bool *found,
							 LlmError *err)
{
	*found = false;
	if (!read_jinja_file(dir, "chat_template.jinja", source, found, err))
		return false;
	return *found || read_json_files(dir, "default", source, found, err);
}

bool
llm_model_tool_template_read(const char *dir, LlmStrbuf *source, bool *found,
							 LlmError *err)
{
	LlmModelFile file;
	bool has_default_file;

	*found = false;
	if (!read_jinja_file(dir, "additional_chat_templates/tool_use.jinja",
						 source, found, err) ||
		!llm_model_file_open(&file, dir, "chat_template.jinja", err))
		return false;
	has_default_file = file.found;
	llm_model_file_close(&file);
	/* a file with the default one makes the JSON files count for nothing */
	return *found || has_default_file ||
		   read_json_files(dir, "tool_use", source, found, err);
}

/* ---- special tokens ---- */

static const char *const special_token_keys[] = {
	"bos_token", "eos_token", "unk_token",	"sep_token",
	"pad_token", "cls_token", "mask_token",
};

/* A token is its text, or an object with the text in "content". */
static const char *
token_text(const cJSON *item)
{
	if (cJSON_IsObject(item))
		item = cJSON_GetObjectItemCaseSensitive(item, "content");
	return cJSON_IsString(item) && llm_utf8_is_valid(item->valuestring,
													 strlen(item->valuestring))
			   ? item->valuestring
			   : NULL;
}

/* Copy what "from" has of a key unless "to" has it already. */
static bool
copy_token(cJSON *to, const cJSON *from, const char *key)
{
	const char *text = token_text(cJSON_GetObjectItemCaseSensitive(from, key));

	return text == NULL || cJSON_GetObjectItemCaseSensitive(to, key) != NULL ||
		   cJSON_AddStringToObject(to, key, text) != NULL;
}

static bool
copy_token_list(cJSON *to, const cJSON *from, const char *key)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(from, key);
	const cJSON *item;
	cJSON *copy;

	if (!cJSON_IsArray(list) || list->child == NULL ||
		cJSON_GetObjectItemCaseSensitive(to, key) != NULL)
		return true;
	copy = cJSON_AddArrayToObject(to, key);
	if (copy == NULL)
		return false;
	cJSON_ArrayForEach(item, list)
	{
		const char *text = token_text(item);
		cJSON *string = text != NULL ? cJSON_CreateString(text) : NULL;

		if (text != NULL && !cJSON_AddItemToArray(copy, string))
			return false;
	}
	return true;
}

/* {"image_token": "<image>", ...}: names that a model adds of its own */
static bool
copy_extra_tokens(cJSON *to, const cJSON *from)
{
	const cJSON *extra =
		cJSON_GetObjectItemCaseSensitive(from, "extra_special_tokens");
	const cJSON *item;

	if (!cJSON_IsObject(extra))
		return true;
	cJSON_ArrayForEach(item, extra)
	{
		if (llm_utf8_is_valid(item->string, strlen(item->string)) &&
			!copy_token(to, extra, item->string))
			return false;
	}
	return true;
}

static bool
collect_tokens(const char *dir, const char *name, cJSON *tokens, LlmError *err)
{
	size_t n = sizeof(special_token_keys) / sizeof(special_token_keys[0]);
	cJSON *json;
	bool ok = true;

	if (!model_dir_parse(dir, name, MODEL_DIR_MAX_TOKENIZER_CONFIG_BYTES, &json,
						 err))
		return false;
	if (json == NULL)
		return true;
	for (size_t i = 0; ok && i < n; i++)
		ok = copy_token(tokens, json, special_token_keys[i]);
	ok = ok && copy_token_list(tokens, json, "additional_special_tokens") &&
		 copy_extra_tokens(tokens, json);
	cJSON_Delete(json);
	return ok || llm_error_no_memory(err, 0, "the special tokens");
}

bool
llm_model_special_tokens_read(const char *dir, LlmStrbuf *json, LlmError *err)
{
	cJSON *tokens = cJSON_CreateObject();
	char *text = NULL;
	bool ok;

	if (tokens == NULL)
		return llm_error_no_memory(err, 0, "the special tokens");
	ok = collect_tokens(dir, "tokenizer_config.json", tokens, err) &&
		 collect_tokens(dir, "special_tokens_map.json", tokens, err);
	if (ok)
	{
		text = cJSON_PrintUnformatted(tokens);
		if (text != NULL)
			llm_strbuf_append_str(json, text);
		if (text == NULL || json->failed)
			ok = llm_error_no_memory(err, 0, "the special tokens");
		cJSON_free(text);
	}
	cJSON_Delete(tokens);
	return ok;
}
