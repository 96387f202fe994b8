/*
 * model_files.c
 *	  The files of a model directory, and what a GGUF file has in their place.
 *
 * src/common/model_dir/model_files.c
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/gguf/gguf.h"
#include "src/common/model_dir/model_dir_internal.h"

bool
model_dir_path(char path[MODEL_DIR_MAX_PATH_BYTES], const char *dir,
			   const char *name, LlmError *err)
{
	int n = snprintf(path, MODEL_DIR_MAX_PATH_BYTES, "%s/%s", dir, name);

	if (n < 0 || n >= MODEL_DIR_MAX_PATH_BYTES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "the path of file \"%s\" is too long", name);
	return true;
}

static bool
open_in_gguf(LlmModelFile *file, const char *gguf_path, const char *name,
			 LlmError *err)
{
	LlmGguf *gguf = llm_gguf_open(gguf_path, err);
	bool ok;

	if (gguf == NULL)
		return false;
	ok = llm_gguf_text(gguf, name, &file->text, &file->found, err);
	llm_gguf_close(gguf);
	file->data = llm_strbuf_str(&file->text);
	file->size = file->text.len;
	return ok;
}

static bool
open_in_directory(LlmModelFile *file, const char *dir, const char *name,
				  LlmError *err)
{
	char path[MODEL_DIR_MAX_PATH_BYTES];
	struct stat st;

	if (!model_dir_path(path, dir, name, err))
		return false;
	/* any other trouble than absence is reported by opening it */
	if (stat(path, &st) != 0 && errno == ENOENT)
		return true;
	if (!llm_mapped_file_open(&file->map, path, err))
		return false;
	file->found = true;
	file->data = file->map.data;
	file->size = file->map.size;
	return true;
}

bool
llm_model_file_open(LlmModelFile *file, const char *dir, const char *name,
					LlmError *err)
{
	LlmStrbuf gguf_path;
	bool is_gguf;
	bool ok;

	memset(file, 0, sizeof(*file));
	file->data = "";
	llm_strbuf_init(&file->text);
	llm_strbuf_init(&gguf_path);
	ok = llm_checkpoint_find_gguf(dir, &gguf_path, &is_gguf, err) &&
		 (is_gguf ? open_in_gguf(file, llm_strbuf_str(&gguf_path), name, err)
				  : open_in_directory(file, dir, name, err));
	llm_strbuf_free(&gguf_path);
	if (!ok)
		llm_model_file_close(file);
	return ok;
}

void
llm_model_file_close(LlmModelFile *file)
{
	llm_mapped_file_close(&file->map);
	llm_strbuf_free(&file->text);
	memset(file, 0, sizeof(*file));
	file->data = "";
}

static bool
parse_object(const LlmModelFile *file, const char *path, size_t max_bytes,
			 cJSON **json, LlmError *err)
{
	if (file->size > max_bytes)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "%s: the file has %zu bytes, more than the limit "
							 "of %zu",
							 path, file->size, max_bytes);
	*json = llm_json_parse(file->data, file->size, path, err);
	if (*json == NULL || cJSON_IsObject(*json))
		return *json != NULL;
	cJSON_Delete(*json);
	*json = NULL;
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 "%s: the file must hold a JSON object", path);
}

bool
model_dir_parse(const char *dir, const char *name, size_t max_bytes,
				cJSON **json, LlmError *err)
{
	char path[MODEL_DIR_MAX_PATH_BYTES];
	LlmModelFile file;
	bool ok;

	*json = NULL;
	if (!model_dir_path(path, dir, name, err) ||
		!llm_model_file_open(&file, dir, name, err))
		return false;
	ok = !file.found || parse_object(&file, path, max_bytes, json, err);
	llm_model_file_close(&file);
	return ok;
}
