/*
 * adapter_merge_files.c
 *	  The files of a merged checkpoint that are not tensors.
 *
 * src/common/adapter/adapter_merge_files.c
 */
#include "src/common/adapter/adapter_merge.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* What may lie in a model's directory besides its weights. */
static const char *const copied_files[] = {
	"generation_config.json",
	"tokenizer.json",
	"tokenizer_config.json",
	"special_tokens_map.json",
	"added_tokens.json",
	"tokenizer.model",
	"vocab.json",
	"merges.txt",
	"chat_template.jinja",
	"chat_template.json",
	"additional_chat_templates/tool_use.jinja",
	"preprocessor_config.json",
	"LICENSE",
	"NOTICE",
};

FILE *
merge_create_file(const char *dir, const char *name, LlmError *err)
{
	char path[4096];
	FILE *file;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int) sizeof(path))
	{
		llm_error_set(err, LLM_ERROR_LIMIT, "path \"%s\" is too long", dir);
		return NULL;
	}
	file = fopen(path, "wbx");
	if (file == NULL)
		llm_error_errno(err, "could not create \"%s\"", path);
	return file;
}

static bool
write_text(const char *dir, const char *name, const char *text, size_t len,
		   LlmError *err)
{
	FILE *file = merge_create_file(dir, name, err);
	bool ok;

	if (file == NULL)
		return false;
	ok = fwrite(text, 1, len, file) == len;
	if (fclose(file) != 0)
		ok = false;
	return ok || llm_error_errno(err, "could not write \"%s/%s\"", dir, name);
}

bool
merge_write_json(const char *dir, const char *name, const cJSON *json,
				 LlmError *err)
{
	char *text = cJSON_Print(json);
	bool ok = text != NULL ? write_text(dir, name, text, strlen(text), err)
						   : llm_error_no_memory(err, 4096, "a JSON text");

	cJSON_free(text);
	return ok;
}

/* Set a key where the object has it, or in the part of a model that sees. */
static bool
set_key(cJSON *config, const char *key, const cJSON *value)
{
	cJSON *text_config =
		cJSON_GetObjectItemCaseSensitive(config, "text_config");
	bool ok = true;

	if (cJSON_IsObject(text_config))
		ok = set_key(text_config, key, value);
	cJSON_DeleteItemFromObjectCaseSensitive(config, key);
	return ok &&
		   cJSON_AddItemToObject(config, key, cJSON_Duplicate(value, true));
}

static bool
write_changed_config(const LlmModelFile *file, const char *dir,
					 bool unties_head, const char *dtype, LlmError *err)
{
	cJSON *config = llm_json_parse(file->data, file->size, "config.json", err);
	cJSON *no = cJSON_CreateFalse();
	cJSON *name = cJSON_CreateString(dtype != NULL ? dtype : "");
	bool ok = config != NULL;

	if (ok && unties_head)
		ok = set_key(config, "tie_word_embeddings", no);
	if (ok && dtype != NULL)
	{
		bool is_new = cJSON_HasObjectItem(config, "dtype");

		ok = set_key(config, is_new ? "dtype" : "torch_dtype", name);
	}
	if (config != NULL)
		ok = ok ? merge_write_json(dir, "config.json", config, err)
				: llm_error_no_memory(err, 4096, "a config");
	cJSON_Delete(config);
	cJSON_Delete(no);
	cJSON_Delete(name);
	return ok;
}

static bool
copy_config(const char *model_dir, const char *dir, bool unties_head,
			const char *dtype, LlmError *err)
{
	LlmModelFile file;
	bool ok = llm_model_file_open(&file, model_dir, "config.json", err);

	if (!ok)
		return false;
	if (unties_head || dtype != NULL)
		ok = write_changed_config(&file, dir, unties_head, dtype, err);
	else
		ok = write_text(dir, "config.json", file.data, file.size, err);
	llm_model_file_close(&file);
	return ok;
}

/* A file in a folder of the model's directory needs that folder. */
static bool
make_folder(const char *dir, const char *name, LlmError *err)
{
	const char *slash = strchr(name, '/');
	char path[4096];

	if (slash == NULL)
		return true;
	snprintf(path, sizeof(path), "%s/%.*s", dir, (int) (slash - name), name);
	return mkdir(path, 0777) == 0 || errno == EEXIST ||
		   llm_error_errno(err, "could not create directory \"%s\"", path);
}

bool
merge_copy_files(const char *model_dir, const char *dir, bool unties_head,
				 const char *dtype, LlmError *err)
{
	for (size_t i = 0; i < sizeof(copied_files) / sizeof(*copied_files); i++)
	{
		LlmModelFile file;
		bool ok;

		if (!llm_model_file_open(&file, model_dir, copied_files[i], err))
			return false;
		ok = !file.found ||
			 (make_folder(dir, copied_files[i], err) &&
			  write_text(dir, copied_files[i], file.data, file.size, err));
		llm_model_file_close(&file);
		if (!ok)
			return false;
	}
	return copy_config(model_dir, dir, unties_head, dtype, err);
}
