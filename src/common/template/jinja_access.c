/*
 * jinja_access.c
 *	  Attributes, items and slices.
 *
 * As in jinja2's sandbox, "a.b" prefers an attribute of a's type over the
 * item, so that "d.items" is the method even where d has such a key, and
 * "a['b']" prefers the item.  What would change a list or dict is refused.
 *
 * src/common/template/jinja_access.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/template/jinja_ast.h"
#include "src/common/template/jinja_object.h"
#include "src/common/template/jinja_text.h"

/* ---- attributes ---- */

static bool
make_unsafe(LlmJinjaRun *run, LlmJinjaValue object, const LlmJinjaString *name,
			LlmJinjaValue *out)
{
	LlmJinjaValue hint;
	LlmStrbuf buf;

	llm_jinja_init_buffer(&buf);
	llm_strbuf_printf(&buf,
					  "access to attribute '%.*s' of '%s' object is unsafe.",
					  (int) name->len, name->data, llm_jinja_type_name(object));
	llm_strbuf_append(&buf, "", 1);
	return llm_jinja_finish_string(run, &buf, true, &hint) &&
		   llm_jinja_make_undefined_hint(run, hint.string->data, out);
}

static bool
make_method(LlmJinjaRun *run, LlmJinjaValue object,
			const LlmJinjaBuiltin *builtin, LlmJinjaValue *out)
{
	LlmJinjaMethod *method = llm_jinja_alloc(run, sizeof(*method));

	if (method == NULL)
		return false;
	method->self = object;
	method->builtin = builtin;
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_METHOD, .method = method };
	return true;
}

/* What only some values have; MISSING where it is nothing of the kind. */
static bool
find_special(LlmJinjaRun *run, LlmJinjaValue object, const LlmJinjaString *name,
			 LlmJinjaValue *out)
{
	LlmJinjaValue key = llm_jinja_text(name);

	*out = llm_jinja_missing();
	if (object.kind == LLM_JINJA_LOOP)
		return llm_jinja_loop_attribute(run, object, name, out);
	if (object.kind == LLM_JINJA_NAMESPACE)
		*out = llm_jinja_dict_find(object.dict, name->data, name->len);
	else if (object.kind == LLM_JINJA_TUPLE && object.is_group)
	{
		if (llm_jinja_string_is(key, "grouper"))
			*out = object.list->items[0];
		else if (llm_jinja_string_is(key, "list"))
			*out = object.list->items[1];
	}
	else if (object.kind == LLM_JINJA_MACRO && llm_jinja_string_is(key, "name"))
		*out = object.macro->node->name == NULL
				   ? llm_jinja_none()
				   : llm_jinja_text(object.macro->node->name);
	else if (object.kind == LLM_JINJA_CYCLER &&
			 llm_jinja_string_is(key, "current"))
		*out = object.cycler->items->items[object.cycler->position];
	else if (object.kind == LLM_JINJA_RANGE)
	{
		if (llm_jinja_string_is(key, "start"))
			*out = llm_jinja_int(object.range->start);
		else if (llm_jinja_string_is(key, "stop"))
			*out = llm_jinja_int(object.range->stop);
		else if (llm_jinja_string_is(key, "step"))
			*out = llm_jinja_int(object.range->step);
	}
	return true;
}

/* An attribute of the object's type; MISSING where there is none. */
static bool
find_attribute(LlmJinjaRun *run, LlmJinjaValue object,
			   const LlmJinjaString *name, LlmJinjaValue *out)
{
	const LlmJinjaBuiltin *builtin;

	if (!find_special(run, object, name, out))
		return false;
	if (out->kind != LLM_JINJA_MISSING)
		return true;
	if (name->len >= 4 && memcmp(name->data, "__", 2) == 0 &&
		memcmp(name->data + name->len - 2, "__", 2) == 0 &&
		object.kind != LLM_JINJA_NAMESPACE)
		return make_unsafe(run, object, name, out);
	builtin = llm_jinja_find_method(object, name->data, name->len);
	if (builtin == NULL)
		return true;
	if (builtin->call == NULL &&
		(object.kind == LLM_JINJA_LIST || object.kind == LLM_JINJA_DICT))
		return make_unsafe(run, object, name, out);
	return make_method(run, object, builtin, out);
}

/* ---- items ---- */

static int64_t
clamp_bigint(const LlmJinjaString *digits)
{
	return digits->data[0] == '-' ? INT64_MIN : INT64_MAX;
}

static bool
index_item(LlmJinjaRun *run, LlmJinjaValue object, int64_t index,
		   LlmJinjaValue *out)
{
	int64_t length = 0;

	*out = llm_jinja_missing();
	if (object.kind == LLM_JINJA_VIEW || !llm_jinja_length(object, &length))
		return true;
	if (index < 0)
		index += length;
	if (index < 0 || index >= length)
		return true;
	if (object.kind == LLM_JINJA_STRING)
		return llm_jinja_substring(run, object.string, (size_t) index, 1,
								   out) &&
			   llm_jinja_mark(run, object.string->is_markup, out);
	*out = object.kind == LLM_JINJA_RANGE
			   ? llm_jinja_int(llm_jinja_range_item(object.range, index))
			   : object.list->items[index];
	return true;
}

/* Python's object[key]; MISSING where that raises a Type- or LookupError. */
static bool
find_item(LlmJinjaRun *run, LlmJinjaValue object, LlmJinjaValue key,
		  LlmJinjaValue *out)
{
	int64_t index;

	*out = llm_jinja_missing();
	if (object.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, object);
	if (object.kind == LLM_JINJA_DICT)
		return !llm_jinja_is_hashable(key) ||
			   llm_jinja_dict_get(run, object.dict, key, out);
	if (llm_jinja_as_int(key, &index))
		return index_item(run, object, index, out);
	return true;
}

bool
llm_jinja_get_attribute(LlmJinjaRun *run, LlmJinjaValue object,
						const LlmJinjaString *name, LlmJinjaValue *out)
{
	LlmJinjaValue key = llm_jinja_text(name);

	if (object.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, object);
	if (!find_attribute(run, object, name, out))
		return false;
	if (out->kind == LLM_JINJA_MISSING && !find_item(run, object, key, out))
		return false;
	if (out->kind != LLM_JINJA_MISSING)
		return true;
	return llm_jinja_make_undefined(
		run,
		object.kind == LLM_JINJA_NONE ? "None" : llm_jinja_type_name(object),
		key, out);
}

bool
llm_jinja_get_item(LlmJinjaRun *run, LlmJinjaValue object, LlmJinjaValue key,
				   LlmJinjaValue *out)
{
	if (!find_item(run, object, key, out))
		return false;
	if (out->kind == LLM_JINJA_MISSING && key.kind == LLM_JINJA_STRING &&
		!find_attribute(run, object, key.string, out))
		return false;
	if (out->kind != LLM_JINJA_MISSING)
		return true;
	return llm_jinja_make_undefined(
		run,
		object.kind == LLM_JINJA_NONE ? "None" : llm_jinja_type_name(object),
		key, out);
}

bool
llm_jinja_set_namespace(LlmJinjaRun *run, LlmJinjaDict *dict,
						LlmJinjaValue name, LlmJinjaValue value)
{
	if (name.kind == LLM_JINJA_STRING && name.string->len > 0 &&
		name.string->data[0] == '_')
		return llm_jinja_fail(run,
							  "Chat templates cannot store underscore-prefixed "
							  "attributes on a namespace, but got '%.*s'. "
							  "Please rename the attribute.",
							  (int) name.string->len, name.string->data);
	return llm_jinja_dict_set(run, dict, name, value);
}

/* ---- slices ---- */

bool
llm_jinja_substring(LlmJinjaRun *run, const LlmJinjaString *string,
					size_t start, size_t n, LlmJinjaValue *out)
{
	size_t from = llm_jinja_char_offset(string, start);
	LlmJinjaString rest = { .data = string->data + from,
							.len = string->len - from,
							.n_chars = string->n_chars - start };

	assert(start <= string->n_chars);
	if (string->n_chars != string->len &&
		!llm_jinja_charge(run, (start + n) / 8))
		return false;
	return llm_jinja_borrow_string(run, rest.data,
								   llm_jinja_char_offset(&rest, n), out);
}

typedef struct SliceSpan
{
	int64_t start;
	int64_t stop; /* of the slice, not necessarily an item's */
	int64_t step;
	int64_t n_items;
} SliceSpan;

/* A bound as an int, huge ones cut; *given is false for none. */
static bool
slice_bound(LlmJinjaRun *run, LlmJinjaValue bound, int64_t *integer,
			bool *given)
{
	*given = bound.kind != LLM_JINJA_NONE;
	if (!*given || llm_jinja_as_int(bound, integer))
		return true;
	if (bound.kind == LLM_JINJA_BIGINT)
	{
		*integer = clamp_bigint(bound.string);
		return true;
	}
	return llm_jinja_fail(run, "slice indices must be integers or None or have "
							   "an __index__ method");
}

/* Clamp a bound into [low, high], counting negative ones from the end. */
static int64_t
clamp_bound(int64_t bound, int64_t length, int64_t low, int64_t high)
{
	if (bound < 0)
		bound = bound < -length ? low : bound + length;
	return bound < low ? low : bound > high ? high : bound;
}

static bool
measure_slice(LlmJinjaRun *run, const LlmJinjaValue bounds[3], int64_t length,
			  SliceSpan *span)
{
	int64_t stop = 0;
	bool has_start;
	bool has_stop;
	bool has_step;
	int64_t low;
	int64_t high;

	span->step = 1;
	if (!slice_bound(run, bounds[2], &span->step, &has_step) ||
		!slice_bound(run, bounds[0], &span->start, &has_start) ||
		!slice_bound(run, bounds[1], &stop, &has_stop))
		return false;
	if (span->step == 0)
		return llm_jinja_fail(run, "slice step cannot be zero");
	if (span->step < -INT64_MAX)
		span->step = -INT64_MAX;
	low = span->step < 0 ? -1 : 0;
	high = span->step < 0 ? length - 1 : length;
	span->start = has_start		   ? clamp_bound(span->start, length, low, high)
				  : span->step < 0 ? high
								   : low;
	stop = has_stop			? clamp_bound(stop, length, low, high)
		   : span->step < 0 ? low
							: high;
	if (span->step > 0)
		span->n_items =
			stop > span->start ? (stop - span->start - 1) / span->step + 1 : 0;
	else
		span->n_items =
			stop < span->start ? (span->start - stop - 1) / -span->step + 1 : 0;
	span->stop = stop;
	return true;
}

static bool
slice_string(LlmJinjaRun *run, const LlmJinjaString *string, SliceSpan span,
			 LlmJinjaValue *out)
{
	LlmStrbuf buf;
	size_t *offsets;
	size_t at = 0;

	if (span.n_items == 0)
		span.start = 0;
	if (span.step == 1 || span.n_items == 0)
		return llm_jinja_substring(run, string, (size_t) span.start,
								   (size_t) span.n_items, out);
	if (!llm_jinja_charge(run, string->n_chars))
		return false;
	offsets = llm_jinja_alloc(run, (string->n_chars + 1) * sizeof(size_t));
	if (offsets == NULL)
		return false;
	for (size_t i = 0; i < string->len; i++)
		if (((unsigned char) string->data[i] & 0xC0) != 0x80)
			offsets[at++] = i;
	offsets[at] = string->len;
	llm_jinja_init_buffer(&buf);
	for (int64_t i = 0; i < span.n_items; i++)
	{
		int64_t c = span.start + i * span.step;

		llm_strbuf_append(&buf, string->data + offsets[c],
						  offsets[c + 1] - offsets[c]);
	}
	return llm_jinja_finish_string(run, &buf, true, out);
}

static bool
slice_list(LlmJinjaRun *run, LlmJinjaValue object, SliceSpan span,
		   LlmJinjaValue *out)
{
	LlmJinjaList *list = llm_jinja_create_list(run, (size_t) span.n_items);

	if (list == NULL || !llm_jinja_charge(run, (size_t) span.n_items))
		return false;
	for (int64_t i = 0; i < span.n_items; i++)
		list->items[i] = object.list->items[span.start + i * span.step];
	list->n_items = (size_t) span.n_items;
	*out = object.kind == LLM_JINJA_LIST ? llm_jinja_list(list)
										 : llm_jinja_tuple(list);
	return true;
}

static bool
slice_range(LlmJinjaRun *run, const LlmJinjaRange *source, SliceSpan span,
			LlmJinjaValue *out)
{
	LlmJinjaRange *range = llm_jinja_alloc(run, sizeof(*range));

	if (range == NULL)
		return false;
	range->start = llm_jinja_range_item(source, span.start);
	range->step = (int64_t) ((uint64_t) source->step * (uint64_t) span.step);
	range->n_items = span.n_items;
	range->stop = llm_jinja_range_item(source, span.stop);
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_RANGE, .range = range };
	return true;
}

bool
llm_jinja_slice(LlmJinjaRun *run, LlmJinjaValue object,
				const LlmJinjaValue bounds[3], LlmJinjaValue *out)
{
	SliceSpan span;
	int64_t length = 0;

	if (object.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, object);
	if (object.kind == LLM_JINJA_DICT)
		return llm_jinja_fail(run, "unhashable type: 'slice'");
	if (object.kind == LLM_JINJA_VIEW || !llm_jinja_length(object, &length))
		return llm_jinja_fail(run, "'%s' object is not subscriptable",
							  llm_jinja_type_name(object));
	if (!measure_slice(run, bounds, length, &span))
		return false;
	if (object.kind == LLM_JINJA_STRING)
		return slice_string(run, object.string, span, out) &&
			   llm_jinja_mark(run, object.string->is_markup, out);
	if (object.kind == LLM_JINJA_RANGE)
		return slice_range(run, object.range, span, out);
	return slice_list(run, object, span, out);
}
