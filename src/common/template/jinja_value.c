/*
 * jinja_value.c
 *	  Making and asking values of the template language; errors and bounds.
 *
 * Everything lives in the run's arena and is freed with it, so nothing here
 * frees anything but text buffers.
 *
 * src/common/template/jinja_value.c
 */
#include "src/common/template/jinja_value.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_object.h"
#include "src/common/util/utf8.h"

#define LINEAR_SEARCH_ENTRIES 8

bool
llm_jinja_fail(LlmJinjaRun *run, const char *fmt, ...)
{
	char message[LLM_ERROR_MESSAGE_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	return llm_error_set(run->err, LLM_ERROR_TEMPLATE,
						 "chat template line %d: %s", run->line, message);
}

/* The name of a type, with its module where that is not Python's own. */
static const char *
qualified_name(const char *type_name)
{
	static const char *const names[][2] = {
		{ "Markup", "markupsafe.Markup" },
		{ "Macro", "jinja2.runtime.Macro" },
		{ "LoopContext", "jinja2.runtime.LoopContext" },
		{ "Cycler", "jinja2.utils.Cycler" },
		{ "Joiner", "jinja2.utils.Joiner" },
		{ "namespace",
		  "transformers.utils.chat_template_utils.TemplateNamespace" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(type_name, names[i][0]) == 0)
			return names[i][1];
	return type_name;
}

bool
llm_jinja_fail_undefined(LlmJinjaRun *run, LlmJinjaValue value)
{
	const LlmJinjaUndefined *undefined = value.undefined;
	bool is_attribute = undefined->name.kind == LLM_JINJA_STRING;
	LlmStrbuf name;

	assert(value.kind == LLM_JINJA_UNDEFINED);
	if (undefined->hint != NULL)
		return llm_jinja_fail(run, "%s", undefined->hint);
	llm_jinja_init_buffer(&name);
	if (llm_jinja_repr(run, undefined->name, &name))
	{
		const char *text = llm_strbuf_str(&name);
		const char *object =
			undefined->owner == NULL || strcmp(undefined->owner, "None") == 0
				? ""
				: " object";

		if (undefined->owner == NULL)
			llm_jinja_fail(run, "%s is undefined", text);
		else if (is_attribute)
			llm_jinja_fail(run, "'%s%s' has no attribute %s",
						   qualified_name(undefined->owner), object, text);
		else
			llm_jinja_fail(run, "%s%s has no element %s",
						   qualified_name(undefined->owner), object, text);
	}
	llm_strbuf_free(&name);
	return false;
}

void *
llm_jinja_alloc(LlmJinjaRun *run, size_t n_bytes)
{
	void *result = llm_arena_alloc(run->arena, n_bytes);

	if (result == NULL)
	{
		llm_error_set(run->err, LLM_ERROR_LIMIT,
					  "chat template line %d: more than %zu MiB of memory "
					  "needed",
					  run->line, LLM_JINJA_MAX_MEMORY_BYTES >> 20);
		return NULL;
	}
	return result;
}

bool
llm_jinja_charge(LlmJinjaRun *run, size_t n_steps)
{
	uint64_t before = run->n_steps / LLM_JINJA_STEPS_PER_POLL;

	run->n_steps += n_steps;
	if (run->n_steps / LLM_JINJA_STEPS_PER_POLL == before)
		return true;
	if (run->interrupt != NULL && *run->interrupt != 0)
		return llm_error_set(run->err, LLM_ERROR_CANCELLED,
							 "canceled while rendering the chat template");
	if (run->n_steps > LLM_JINJA_MAX_STEPS)
		return llm_error_set(
			run->err, LLM_ERROR_LIMIT,
			"chat template line %d: rendering takes more than %llu steps",
			run->line, (unsigned long long) LLM_JINJA_MAX_STEPS);
	return true;
}

bool
llm_jinja_borrow_string(LlmJinjaRun *run, const char *data, size_t len,
						LlmJinjaValue *out)
{
	LlmJinjaString *string = llm_jinja_alloc(run, sizeof(*string));

	if (string == NULL || !llm_jinja_charge(run, len / 64))
		return false;
	string->data = data;
	string->len = len;
	string->n_chars = llm_utf8_count(data, len);
	string->is_markup = false;
	*out = llm_jinja_text(string);
	return true;
}

bool
llm_jinja_copy_string(LlmJinjaRun *run, const char *data, size_t len,
					  LlmJinjaValue *out)
{
	char *copy = llm_jinja_alloc(run, len);

	if (copy == NULL)
		return false;
	if (len > 0)
		memcpy(copy, data, len);
	return llm_jinja_borrow_string(run, copy, len, out);
}

void
llm_jinja_init_buffer(LlmStrbuf *buf)
{
	llm_strbuf_init(buf);
	buf->limit = LLM_JINJA_MAX_OUTPUT_BYTES;
}

bool
llm_jinja_finish_string(LlmJinjaRun *run, LlmStrbuf *buf, bool ok,
						LlmJinjaValue *out)
{
	if (ok && buf->failed)
		ok = llm_error_set(run->err, LLM_ERROR_LIMIT,
						   "chat template line %d: a text grows beyond %zu MiB",
						   run->line, LLM_JINJA_MAX_OUTPUT_BYTES >> 20);
	if (ok)
		ok = llm_jinja_copy_string(run, llm_strbuf_str(buf), buf->len, out);
	llm_strbuf_free(buf);
	return ok;
}

bool
llm_jinja_make_undefined(LlmJinjaRun *run, const char *owner,
						 LlmJinjaValue name, LlmJinjaValue *out)
{
	LlmJinjaUndefined *undefined = llm_jinja_alloc(run, sizeof(*undefined));

	if (undefined == NULL)
		return false;
	undefined->hint = NULL;
	undefined->owner = owner;
	undefined->name = name;
	*out =
		(LlmJinjaValue){ .kind = LLM_JINJA_UNDEFINED, .undefined = undefined };
	return true;
}

bool
llm_jinja_make_undefined_hint(LlmJinjaRun *run, const char *hint,
							  LlmJinjaValue *out)
{
	if (!llm_jinja_make_undefined(run, NULL, llm_jinja_none(), out))
		return false;
	out->undefined->hint = hint;
	return true;
}

LlmJinjaList *
llm_jinja_create_list(LlmJinjaRun *run, size_t capacity)
{
	LlmJinjaList *list = llm_jinja_alloc(run, sizeof(*list));

	if (list == NULL)
		return NULL;
	list->items = NULL;
	list->n_items = 0;
	list->capacity = capacity;
	if (capacity > SIZE_MAX / sizeof(LlmJinjaValue))
		capacity = SIZE_MAX / sizeof(LlmJinjaValue);
	list->items = llm_jinja_alloc(run, capacity * sizeof(LlmJinjaValue));
	return list->items == NULL ? NULL : list;
}

bool
llm_jinja_push(LlmJinjaRun *run, LlmJinjaList *list, LlmJinjaValue item)
{
	if (list->n_items == list->capacity)
	{
		size_t capacity = list->capacity < 8 ? 8 : list->capacity * 2;
		LlmJinjaValue *items =
			llm_jinja_alloc(run, capacity * sizeof(LlmJinjaValue));

		if (items == NULL)
			return false;
		if (list->n_items > 0)
			memcpy(items, list->items, list->n_items * sizeof(LlmJinjaValue));
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->n_items++] = item;
	return true;
}

bool
llm_jinja_make_pair(LlmJinjaRun *run, LlmJinjaValue first, LlmJinjaValue second,
					LlmJinjaValue *out)
{
	LlmJinjaList *pair = llm_jinja_create_list(run, 2);

	if (pair == NULL)
		return false;
	pair->items[0] = first;
	pair->items[1] = second;
	pair->n_items = 2;
	*out = llm_jinja_tuple(pair);
	return true;
}

/* ---- dictionaries ---- */

LlmJinjaDict *
llm_jinja_create_dict(LlmJinjaRun *run)
{
	LlmJinjaDict *dict = llm_jinja_alloc(run, sizeof(*dict));

	if (dict != NULL)
		memset(dict, 0, sizeof(*dict));
	return dict;
}

/* Keys are compared without recursion bounds: hashables nest only as tuples,
 * whose depth llm_jinja_is_hashable has bounded. */
static bool
is_same_key(LlmJinjaRun *run, LlmJinjaValue a, LlmJinjaValue b, bool *same)
{
	if (a.kind == LLM_JINJA_STRING && b.kind == LLM_JINJA_STRING)
	{
		*same = a.string->len == b.string->len &&
				memcmp(a.string->data, b.string->data, a.string->len) == 0;
		return true;
	}
	return llm_jinja_equal(run, a, b, same);
}

/* The entry's number, or n_entries where absent. */
static bool
find_entry(LlmJinjaRun *run, const LlmJinjaDict *dict, LlmJinjaValue key,
		   uint64_t hash, size_t *entry)
{
	bool same = false;

	if (dict->buckets == NULL)
	{
		for (size_t i = 0; i < dict->n_entries; i++)
		{
			if (dict->entries[i].hash != hash)
				continue;
			if (!is_same_key(run, dict->entries[i].key, key, &same))
				return false;
			*entry = i;
			if (same)
				return true;
		}
		*entry = dict->n_entries;
		return true;
	}
	for (size_t b = hash & (dict->n_buckets - 1); dict->buckets[b] != 0;
		 b = (b + 1) & (dict->n_buckets - 1))
	{
		size_t i = dict->buckets[b] - 1;

		if (dict->entries[i].hash != hash)
			continue;
		if (!is_same_key(run, dict->entries[i].key, key, &same))
			return false;
		*entry = i;
		if (same)
			return true;
	}
	*entry = dict->n_entries;
	return true;
}

static void
insert_bucket(LlmJinjaDict *dict, size_t entry)
{
	size_t b = dict->entries[entry].hash & (dict->n_buckets - 1);

	while (dict->buckets[b] != 0)
		b = (b + 1) & (dict->n_buckets - 1);
	dict->buckets[b] = (uint32_t) entry + 1;
}

static bool
grow_dict(LlmJinjaRun *run, LlmJinjaDict *dict)
{
	size_t capacity = dict->capacity < 4 ? 4 : dict->capacity * 2;
	LlmJinjaEntry *entries = llm_jinja_alloc(run, capacity * sizeof(*entries));

	if (entries == NULL)
		return false;
	if (dict->n_entries > 0)
		memcpy(entries, dict->entries, dict->n_entries * sizeof(*entries));
	dict->entries = entries;
	dict->capacity = capacity;
	if (capacity <= LINEAR_SEARCH_ENTRIES)
		return true;
	dict->n_buckets = capacity * 2;
	dict->buckets = llm_jinja_alloc(run, dict->n_buckets * sizeof(uint32_t));
	if (dict->buckets == NULL)
		return false;
	memset(dict->buckets, 0, dict->n_buckets * sizeof(uint32_t));
	for (size_t i = 0; i < dict->n_entries; i++)
		insert_bucket(dict, i);
	return true;
}

static bool
check_hashable(LlmJinjaRun *run, LlmJinjaValue key)
{
	if (llm_jinja_is_hashable(key))
		return true;
	return llm_jinja_fail(run, "unhashable type: '%s'",
						  llm_jinja_type_name(key));
}

bool
llm_jinja_dict_set(LlmJinjaRun *run, LlmJinjaDict *dict, LlmJinjaValue key,
				   LlmJinjaValue value)
{
	uint64_t hash;
	size_t entry;

	if (!check_hashable(run, key))
		return false;
	hash = llm_jinja_hash(key);
	if (!find_entry(run, dict, key, hash, &entry))
		return false;
	if (entry < dict->n_entries)
	{
		dict->entries[entry].value = value;
		return true;
	}
	if (dict->n_entries == dict->capacity && !grow_dict(run, dict))
		return false;
	dict->entries[entry] =
		(LlmJinjaEntry){ .key = key, .value = value, .hash = hash };
	dict->n_entries++;
	if (dict->buckets != NULL)
		insert_bucket(dict, entry);
	return true;
}

bool
llm_jinja_dict_get(LlmJinjaRun *run, const LlmJinjaDict *dict,
				   LlmJinjaValue key, LlmJinjaValue *out)
{
	size_t entry;

	if (!check_hashable(run, key) ||
		!find_entry(run, dict, key, llm_jinja_hash(key), &entry))
		return false;
	*out = entry < dict->n_entries ? dict->entries[entry].value
								   : llm_jinja_missing();
	return true;
}

LlmJinjaValue
llm_jinja_dict_find(const LlmJinjaDict *dict, const char *key, size_t len)
{
	LlmJinjaString string = { .data = key, .len = len };
	LlmJinjaValue value = llm_jinja_text(&string);
	size_t entry = 0;
	bool ok = find_entry(NULL, dict, value, llm_jinja_hash(value), &entry);

	/* comparing a string with anything cannot fail */
	assert(ok);
	(void) ok;
	return entry < dict->n_entries ? dict->entries[entry].value
								   : llm_jinja_missing();
}

/* ---- asking values ---- */

bool
llm_jinja_truth(LlmJinjaValue value)
{
	int64_t length;

	switch ((LlmJinjaKind) value.kind)
	{
		case LLM_JINJA_MISSING:
		case LLM_JINJA_UNDEFINED:
		case LLM_JINJA_NONE:
			return false;
		case LLM_JINJA_BOOL:
			return value.boolean;
		case LLM_JINJA_INT:
			return value.integer != 0;
		case LLM_JINJA_FLOAT:
			return value.real != 0.0;
		case LLM_JINJA_LOOP: /* its length is at least that of its index */
			return true;
		default:
			return !llm_jinja_length(value, &length) || length != 0;
	}
}

const char *
llm_jinja_type_name(LlmJinjaValue value)
{
	static const char *const names[] = {
		[LLM_JINJA_MISSING] = "missing",
		[LLM_JINJA_UNDEFINED] = "Undefined",
		[LLM_JINJA_NONE] = "NoneType",
		[LLM_JINJA_BOOL] = "bool",
		[LLM_JINJA_INT] = "int",
		[LLM_JINJA_BIGINT] = "int",
		[LLM_JINJA_FLOAT] = "float",
		[LLM_JINJA_STRING] = "str",
		[LLM_JINJA_LIST] = "list",
		[LLM_JINJA_TUPLE] = "tuple",
		[LLM_JINJA_DICT] = "dict",
		[LLM_JINJA_RANGE] = "range",
		[LLM_JINJA_NAMESPACE] = "namespace",
		[LLM_JINJA_LOOP] = "LoopContext",
		[LLM_JINJA_MACRO] = "Macro",
		[LLM_JINJA_METHOD] = "builtin_function_or_method",
		[LLM_JINJA_FUNCTION] = "function",
		[LLM_JINJA_CYCLER] = "Cycler",
		[LLM_JINJA_JOINER] = "Joiner",
	};
	static const char *const views[] = { "dict_keys", "dict_values",
										 "dict_items" };

	if (value.kind == LLM_JINJA_VIEW)
		return views[value.view_part];
	if (value.kind == LLM_JINJA_ITERATOR)
		return value.iterator->type_name;
	if (value.kind == LLM_JINJA_STRING && value.string->is_markup)
		return "Markup";
	return names[value.kind];
}

static bool
is_hashable(LlmJinjaValue value, int depth)
{
	if (value.kind == LLM_JINJA_LIST || value.kind == LLM_JINJA_DICT ||
		value.kind == LLM_JINJA_VIEW)
		return false;
	if (value.kind == LLM_JINJA_TUPLE)
	{
		if (depth >= LLM_JINJA_MAX_VALUE_DEPTH)
			return false;
		for (size_t i = 0; i < value.list->n_items; i++)
			if (!is_hashable(value.list->items[i], depth + 1))
				return false;
	}
	return true;
}

bool
llm_jinja_is_hashable(LlmJinjaValue value)
{
	return is_hashable(value, 0);
}

bool
llm_jinja_is_number(LlmJinjaValue value)
{
	return value.kind == LLM_JINJA_BOOL || value.kind == LLM_JINJA_INT ||
		   value.kind == LLM_JINJA_BIGINT || value.kind == LLM_JINJA_FLOAT;
}

bool
llm_jinja_as_int(LlmJinjaValue value, int64_t *integer)
{
	if (value.kind == LLM_JINJA_INT)
		*integer = value.integer;
	else if (value.kind == LLM_JINJA_BOOL)
		*integer = value.boolean;
	else
		return false;
	return true;
}

bool
llm_jinja_length(LlmJinjaValue value, int64_t *length)
{
	switch ((LlmJinjaKind) value.kind)
	{
		case LLM_JINJA_UNDEFINED:
			*length = 0;
			return true;
		case LLM_JINJA_STRING:
			*length = (int64_t) value.string->n_chars;
			return true;
		case LLM_JINJA_LIST:
		case LLM_JINJA_TUPLE:
			*length = (int64_t) value.list->n_items;
			return true;
		case LLM_JINJA_DICT:
		case LLM_JINJA_VIEW:
			*length = (int64_t) value.dict->n_entries;
			return true;
		case LLM_JINJA_RANGE:
			*length = value.range->n_items;
			return true;
		default:
			return false;
	}
}

bool
llm_jinja_string_is(LlmJinjaValue value, const char *text)
{
	return value.kind == LLM_JINJA_STRING &&
		   value.string->len == strlen(text) &&
		   memcmp(value.string->data, text, value.string->len) == 0;
}
