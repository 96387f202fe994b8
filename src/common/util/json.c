/*
 * json.c
 *	  Reading configuration files: cJSON with error messages.
 *
 * src/common/util/json.c
 */
#include "src/common/util/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/mapped_file.h"

/* Objects up to so many members are searched without sorting. */
#define FEW_MEMBERS 16

/* A member and its place, to be sorted by key. */
typedef struct Member
{
	cJSON *item;
	int place;
} Member;

static int
compare_members(const void *a, const void *b)
{
	const Member *left = a;
	const Member *right = b;
	int order = strcmp(left->item->string, right->item->string);

	return order != 0 ? order : left->place - right->place;
}

static bool
keep_last_of_few(cJSON *object)
{
	cJSON *next;

	for (cJSON *item = object->child; item != NULL; item = next)
	{
		next = item->next;
		for (cJSON *later = next; later != NULL; later = later->next)
		{
			if (strcmp(item->string, later->string) == 0)
			{
				cJSON_Delete(cJSON_DetachItemViaPointer(object, item));
				break;
			}
		}
	}
	return true;
}

static bool
keep_last_of_many(cJSON *object, int n_members)
{
	Member *members = malloc((size_t) n_members * sizeof(Member));
	int n = 0;

	if (members == NULL)
		return false;
	for (cJSON *item = object->child; item != NULL; item = item->next)
	{
		members[n] = (Member){ item, n };
		n++;
	}
	qsort(members, (size_t) n, sizeof(Member), compare_members);
	for (int i = 0; i + 1 < n; i++)
	{
		cJSON *item = members[i].item;

		if (strcmp(item->string, members[i + 1].item->string) == 0)
			cJSON_Delete(cJSON_DetachItemViaPointer(object, item));
	}
	free(members);
	return true;
}

/*
 * Of members with equal keys only the last remains, as in Python, while
 * cJSON's search would find the first.  Trees are at most as deep as cJSON
 * parses.
 */
static bool
keep_last_members(cJSON *tree)
{
	if (cJSON_IsObject(tree))
	{
		int n_members = cJSON_GetArraySize(tree);

		if (!(n_members <= FEW_MEMBERS ? keep_last_of_few(tree)
									   : keep_last_of_many(tree, n_members)))
			return false;
	}
	for (cJSON *item = tree->child; item != NULL; item = item->next)
	{
		if (item->child != NULL && !keep_last_members(item))
			return false;
	}
	return true;
}

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
	if (!keep_last_members(tree))
	{
		llm_error_no_memory(err, len, what);
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
