/*
 * jinja_attribute_path.c
 *	  The attribute argument of filters: "a.b.0" looked up in each item.
 *
 * src/common/template/jinja_attribute_path.c
 */
#include <string.h>

#include "src/common/template/jinja_filters.h"
#include "src/common/template/jinja_text.h"

bool
llm_jinja_want_int(LlmJinjaRun *run, LlmJinjaValue value, int64_t *integer)
{
	if (value.kind == LLM_JINJA_MISSING || llm_jinja_as_int(value, integer))
		return true;
	return llm_jinja_fail(run,
						  "'%s' object cannot be interpreted as an integer",
						  llm_jinja_type_name(value));
}

/* A part that is all digits is a number. */
static bool
make_part(LlmJinjaRun *run, const char *text, size_t len, LlmJinjaValue *part)
{
	int64_t number = 0;
	bool is_number = len > 0 && len <= 18;

	for (size_t i = 0; i < len && is_number; i++)
	{
		is_number = text[i] >= '0' && text[i] <= '9';
		number = number * 10 + (text[i] - '0');
	}
	if (!is_number)
		return llm_jinja_borrow_string(run, text, len, part);
	*part = llm_jinja_int(number);
	return true;
}

/* Cut a text at a character. */
static bool
cut(LlmJinjaRun *run, const LlmJinjaString *text, char at, LlmJinjaList **out)
{
	LlmJinjaList *list = llm_jinja_create_list(run, 2);
	const char *data = text->data;
	size_t start = 0;

	if (list == NULL)
		return false;
	for (size_t i = 0; i <= text->len; i++)
	{
		LlmJinjaValue part;

		if (i < text->len && data[i] != at)
			continue;
		if (!llm_jinja_borrow_string(run, data + start, i - start, &part) ||
			!llm_jinja_push(run, list, part))
			return false;
		start = i + 1;
	}
	*out = list;
	return true;
}

bool
llm_jinja_make_path(LlmJinjaRun *run, LlmJinjaValue attribute,
					LlmJinjaPath *path)
{
	LlmJinjaList *parts;

	memset(path, 0, sizeof(*path));
	if (llm_jinja_is_absent(attribute))
		return true;
	if (attribute.kind != LLM_JINJA_STRING)
	{
		parts = llm_jinja_create_list(run, 1);
		if (parts == NULL || !llm_jinja_push(run, parts, attribute))
			return false;
	}
	else
	{
		if (!cut(run, attribute.string, '.', &parts))
			return false;
		for (size_t i = 0; i < parts->n_items; i++)
			if (!make_part(run, parts->items[i].string->data,
						   parts->items[i].string->len, &parts->items[i]))
				return false;
	}
	path->parts = parts->items;
	path->n_parts = parts->n_items;
	return true;
}

bool
llm_jinja_follow_path(LlmJinjaRun *run, const LlmJinjaPath *path,
					  LlmJinjaValue item, LlmJinjaValue *out)
{
	for (size_t i = 0; i < path->n_parts; i++)
	{
		if (!llm_jinja_get_item(run, item, path->parts[i], &item))
			return false;
		if (item.kind == LLM_JINJA_UNDEFINED &&
			!llm_jinja_is_absent(path->fallback))
			item = path->fallback;
	}
	*out = item;
	if (path->ignores_case && item.kind == LLM_JINJA_STRING)
		return llm_jinja_change_case(run, item, LLM_JINJA_LOWER, out);
	return true;
}

/* The key of an item by several paths is the list of what they find. */
static bool
follow_paths(LlmJinjaRun *run, const LlmJinjaPath *paths, size_t n_paths,
			 LlmJinjaValue item, LlmJinjaValue *out)
{
	LlmJinjaList *key;

	if (n_paths == 1)
		return llm_jinja_follow_path(run, &paths[0], item, out);
	key = llm_jinja_create_list(run, n_paths);
	if (key == NULL)
		return false;
	for (size_t i = 0; i < n_paths; i++)
		if (!llm_jinja_follow_path(run, &paths[i], item, &key->items[i]))
			return false;
	key->n_items = n_paths;
	*out = llm_jinja_list(key);
	return true;
}

bool
llm_jinja_make_keys(LlmJinjaRun *run, const LlmJinjaList *items,
					LlmJinjaValue attribute, bool ignores_case,
					LlmJinjaValue **keys)
{
	LlmJinjaList single = { &attribute, 1, 1 };
	LlmJinjaList *names = &single;
	LlmJinjaPath *paths;

	if (attribute.kind == LLM_JINJA_STRING &&
		!cut(run, attribute.string, ',', &names))
		return false;
	paths = llm_jinja_alloc(run, names->n_items * sizeof(*paths));
	*keys = llm_jinja_alloc(run, items->n_items * sizeof(LlmJinjaValue));
	if (paths == NULL || *keys == NULL)
		return false;
	for (size_t i = 0; i < names->n_items; i++)
	{
		if (!llm_jinja_make_path(run, names->items[i], &paths[i]))
			return false;
		paths[i].ignores_case = ignores_case;
	}
	for (size_t i = 0; i < items->n_items; i++)
		if (!follow_paths(run, paths, names->n_items, items->items[i],
						  &(*keys)[i]))
			return false;
	return true;
}
