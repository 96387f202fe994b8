/*
 * json.c
 *	  Reading configuration files: cJSON with error messages.
 *
 * src/common/util/json.c
 */
#include "src/common/util/json.h"

#include <math.h>
#include <string.h>

#include "src/common/util/mapped_file.h"

/* cJSON recurses; its own limit is 1,000 levels, which a small stack bears. */
cJSON *
llm_json_parse(const char *text, size_t len, const char *what, LlmError *err)
{
	const char *end = NULL;
	cJSON *tree;

	/* a byte order mark is common in files edited on Windows */
	if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
	{
		text += 3;
		len -= 3;
	}
	tree = cJSON_ParseWithLengthOpts(text, len, &end, false);
	if (tree == NULL)
	{
		size_t off = end != NULL && end >= text ? (size_t) (end - text) : 0;

		llm_error_set(err, LLM_ERROR_FORMAT, "%s: malformed JSON near byte %zu",
					  what, off);
		return NULL;
	}
	while (end < text + len && strchr(" \t\r\n", *end) != NULL && *end != '\0')
		end++;
	if (end < text + len)
	{
		llm_error_set(err, LLM_ERROR_FORMAT,
					  "%s: unexpected text after the JSON value at byte %zu",
					  what, (size_t) (end - text));
		cJSON_Delete(tree);
		return NULL;
	}
	return tree;
}

cJSON *
llm_json_parse_file(const char *path, size_t max_bytes, LlmError *err)
{
	LlmMappedFile file;
	cJSON *tree;

	if (!llm_mapped_file_open(&file, path, err))
		return NULL;
	if (file.size > max_bytes)
	{
		llm_error_set(err, LLM_ERROR_LIMIT,
					  "%s: the file has %zu bytes, more than the limit of %zu",
					  path, file.size, max_bytes);
		llm_mapped_file_close(&file);
		return NULL;
	}
	tree = llm_json_parse(file.data, file.size, path, err);
	llm_mapped_file_close(&file);
	return tree;
}

const cJSON *
llm_json_get(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	return item == NULL || cJSON_IsNull(item) ? NULL : item;
}

static bool
wrong_type(LlmError *err, const char *key, const char *expected)
{
	return llm_error_set(err, LLM_ERROR_INVALID, "\"%s\" must be %s", key,
						 expected);
}

bool
llm_json_get_bool(const cJSON *object, const char *key, bool *value,
				  LlmError *err)
{
	const cJSON *item = llm_json_get(object, key);

	if (item == NULL)
		return true;
	if (!cJSON_IsBool(item))
		return wrong_type(err, key, "true or false");
	*value = cJSON_IsTrue(item);
	return true;
}

bool
llm_json_get_int(const cJSON *object, const char *key, int64_t *value,
				 LlmError *err)
{
	const cJSON *item = llm_json_get(object, key);

	if (item == NULL)
		return true;
	if (!cJSON_IsNumber(item) ||
		item->valuedouble != floor(item->valuedouble) ||
		fabs(item->valuedouble) > 9007199254740992.0)
		return wrong_type(err, key, "an integer");
	*value = (int64_t) item->valuedouble;
	return true;
}

bool
llm_json_get_double(const cJSON *object, const char *key, double *value,
					LlmError *err)
{
	const cJSON *item = llm_json_get(object, key);

	if (item == NULL)
		return true;
	if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
		return wrong_type(err, key, "a number");
	*value = item->valuedouble;
	return true;
}

bool
llm_json_get_string(const cJSON *object, const char *key, const char **value,
					LlmError *err)
{
	const cJSON *item = llm_json_get(object, key);

	if (item == NULL)
		return true;
	if (!cJSON_IsString(item))
		return wrong_type(err, key, "a string");
	*value = item->valuestring;
	return true;
}
