/*
 * model_paths.c
 *	  The files of a model directory.
 *
 * src/common/model_dir/model_paths.c
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

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

bool
model_dir_has(const char *dir, const char *name)
{
	char path[MODEL_DIR_MAX_PATH_BYTES];
	struct stat st;

	return model_dir_path(path, dir, name, NULL) && stat(path, &st) == 0;
}

bool
model_dir_parse(const char *dir, const char *name, size_t max_bytes,
				cJSON **json, LlmError *err)
{
	char path[MODEL_DIR_MAX_PATH_BYTES];

	struct stat st;

	*json = NULL;
	if (!model_dir_path(path, dir, name, err))
		return false;
	/* any other trouble than absence is reported by opening it */
	if (stat(path, &st) != 0 && errno == ENOENT)
		return true;
	*json = llm_json_parse_file(path, max_bytes, err);
	if (*json == NULL)
		return false;
	if (!cJSON_IsObject(*json))
	{
		cJSON_Delete(*json);
		*json = NULL;
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: the file must hold a JSON object", path);
	}
	return true;
}
