/*
 * jinja_str_split.c
 *	  The methods of texts that replace, split and join.
 *
 * Pieces share the bytes of the text that they come from.
 *
 * src/common/template/jinja_str_split.c
 */
#include <string.h>

#include "src/common/template/jinja_filters.h"
#include "src/common/template/jinja_str_methods.h"
#include "src/common/template/jinja_text.h"

/* ---- replacing ---- */

/* An empty text is found before each character and at the end. */
static void
replace_between(const LlmJinjaString *text, const LlmJinjaString *to,
				int64_t count, LlmStrbuf *buf)
{
	int n;

	for (size_t at = 0; at < text->len; at += (size_t) n)
	{
		llm_jinja_char_at(text->data, text->len, at, &n);
		if (count != 0)
		{
			llm_strbuf_append(buf, to->data, to->len);
			count--;
		}
		llm_strbuf_append(buf, text->data + at, (size_t) n);
	}
	if (count != 0)
		llm_strbuf_append(buf, to->data, to->len);
}

bool
llm_jinja_replace_text(LlmJinjaRun *run, const LlmJinjaString *text,
					   const LlmJinjaString *const from_to[2], int64_t count,
					   LlmJinjaValue *out)
{
	const LlmJinjaString *from = from_to[0];
	const char *at = text->data;
	const char *end = text->data + text->len;
	LlmStrbuf buf;

	if (!llm_jinja_charge(run, text->len / 8))
		return false;
	llm_jinja_init_buffer(&buf);
	if (from->len == 0)
	{
		replace_between(text, from_to[1], count, &buf);
		return llm_jinja_finish_string(run, &buf, true, out);
	}
	while (count != 0)
	{
		const char *found =
			memmem(at, (size_t) (end - at), from->data, from->len);

		if (found == NULL)
			break;
		llm_strbuf_append(&buf, at, (size_t) (found - at));
		llm_strbuf_append(&buf, from_to[1]->data, from_to[1]->len);
		at = found + from->len;
		count--;
	}
	llm_strbuf_append(&buf, at, (size_t) (end - at));
	return llm_jinja_finish_string(run, &buf, true, out);
}

static bool
str_replace(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	const LlmJinjaString *from_to[2];
	int64_t count = -1;

	return llm_jinja_want_text(run, call->slot[0], &from_to[0]) &&
		   llm_jinja_want_text(run, call->slot[1], &from_to[1]) &&
		   llm_jinja_want_int(run, call->slot[2], &count) &&
		   llm_jinja_replace_text(run, call->self.string, from_to, count, out);
}

/* ---- splitting ---- */

static bool
push_text(LlmJinjaRun *run, LlmJinjaList *list, const char *data, size_t len)
{
	LlmJinjaValue piece;

	return llm_jinja_borrow_string(run, data, len, &piece) &&
		   llm_jinja_push(run, list, piece);
}

static bool
split_by_text(LlmJinjaRun *run, const LlmJinjaString *text,
			  const LlmJinjaString *separator, int64_t max, LlmJinjaList *list)
{
	const char *at = text->data;
	const char *end = text->data + text->len;

	while (max != 0)
	{
		const char *found =
			memmem(at, (size_t) (end - at), separator->data, separator->len);

		if (found == NULL)
			break;
		if (!push_text(run, list, at, (size_t) (found - at)))
			return false;
		at = found + separator->len;
		max--;
	}
	return push_text(run, list, at, (size_t) (end - at));
}

static bool
split_by_space(LlmJinjaRun *run, const LlmJinjaString *text, int64_t max,
			   LlmJinjaList *list)
{
	const char *at = text->data;
	size_t left = text->len;

	for (;;)
	{
		size_t len = 0;
		int n;

		llm_jinja_strip_text(&at, &left, LLM_JINJA_LEFT, NULL);
		if (left == 0)
			return true;
		if (max-- == 0)
			return push_text(run, list, at, left);
		while (len < left &&
			   !llm_jinja_is_space(llm_jinja_char_at(at, left, len, &n)))
			len += (size_t) n;
		if (!push_text(run, list, at, len))
			return false;
		at += len;
		left -= len;
	}
}

static void
reverse_list(LlmJinjaList *list)
{
	for (size_t i = 0; i < list->n_items / 2; i++)
	{
		LlmJinjaValue swap = list->items[i];

		list->items[i] = list->items[list->n_items - 1 - i];
		list->items[list->n_items - 1 - i] = swap;
	}
}

/* The pieces come in reverse. */
static bool
rsplit_by_text(LlmJinjaRun *run, const LlmJinjaString *text,
			   const LlmJinjaString *separator, int64_t max, LlmJinjaList *list)
{
	size_t left = text->len;

	/* the places looked at add up to the text's */
	if (!llm_jinja_charge_backward(run, left, separator))
		return false;
	while (max != 0)
	{
		const char *found;
		size_t from;

		found = llm_jinja_find_last(text->data, left, separator);
		if (found == NULL)
			break;
		from = (size_t) (found - text->data) + separator->len;
		if (!push_text(run, list, text->data + from, left - from))
			return false;
		left = from - separator->len;
		max--;
	}
	return push_text(run, list, text->data, left);
}

static bool
rsplit_by_space(LlmJinjaRun *run, const LlmJinjaString *text, int64_t max,
				LlmJinjaList *list)
{
	const char *data = text->data;
	size_t left = text->len;

	for (;;)
	{
		size_t start;
		int n;

		llm_jinja_strip_text(&data, &left, LLM_JINJA_RIGHT, NULL);
		if (left == 0)
			return true;
		if (max-- == 0)
			return push_text(run, list, data, left);
		start = left;
		while (start > 0)
		{
			size_t last = llm_jinja_char_before(data, start);

			if (llm_jinja_is_space(llm_jinja_char_at(data, left, last, &n)))
				break;
			start = last;
		}
		if (!push_text(run, list, data + start, left - start))
			return false;
		left = start;
	}
}

static bool
split(LlmJinjaRun *run, const LlmJinjaCall *call, bool from_right,
	  LlmJinjaValue *out)
{
	const LlmJinjaString *text = call->self.string;
	const LlmJinjaString *separator = NULL;
	LlmJinjaList *list = llm_jinja_create_list(run, 8);
	int64_t max = -1;
	bool ok;

	if (list == NULL || !llm_jinja_want_int(run, call->slot[1], &max) ||
		!llm_jinja_charge(run, text->len / 8))
		return false;
	if (call->slot[0].kind == LLM_JINJA_STRING)
		separator = call->slot[0].string;
	else if (!llm_jinja_is_absent(call->slot[0]))
		return llm_jinja_fail(run, "must be str or None, not %s",
							  llm_jinja_type_name(call->slot[0]));
	if (separator != NULL && separator->len == 0)
		return llm_jinja_fail(run, "empty separator");
	if (separator != NULL)
		ok = from_right ? rsplit_by_text(run, text, separator, max, list)
						: split_by_text(run, text, separator, max, list);
	else
		ok = from_right ? rsplit_by_space(run, text, max, list)
						: split_by_space(run, text, max, list);
	if (from_right)
		reverse_list(list);
	*out = llm_jinja_list(list);
	return ok;
}

static bool
str_split(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return split(run, call, false, out);
}

static bool
str_rsplit(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return split(run, call, true, out);
}

bool
llm_jinja_split_lines(LlmJinjaRun *run, const LlmJinjaString *text,
					  bool keep_ends, LlmJinjaList **out)
{
	LlmJinjaList *list = llm_jinja_create_list(run, 8);
	size_t start = 0;
	int n;

	if (list == NULL || !llm_jinja_charge(run, text->len / 8))
		return false;
	for (size_t at = 0; at < text->len; at += (size_t) n)
	{
		uint32_t c = llm_jinja_char_at(text->data, text->len, at, &n);

		if (!llm_jinja_is_line_break(c))
			continue;
		if (c == '\r' && at + 1 < text->len && text->data[at + 1] == '\n')
			n = 2;
		if (!push_text(run, list, text->data + start,
					   at + (keep_ends ? (size_t) n : 0) - start))
			return false;
		start = at + (size_t) n;
	}
	*out = list;
	return start == text->len ||
		   push_text(run, list, text->data + start, text->len - start);
}

static bool
str_splitlines(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_LIST };
	return llm_jinja_split_lines(run, call->self.string,
								 llm_jinja_truth(call->slot[0]), &out->list);
}

static bool
cut_in_three(LlmJinjaRun *run, const LlmJinjaCall *call, bool from_right,
			 LlmJinjaValue *out)
{
	const LlmJinjaString *text = call->self.string;
	LlmJinjaList *list = llm_jinja_create_list(run, 3);
	const LlmJinjaString *separator;
	const char *found;
	size_t before;

	if (list == NULL || !llm_jinja_want_text(run, call->slot[0], &separator))
		return false;
	if (separator->len == 0)
		return llm_jinja_fail(run, "empty separator");
	if (from_right && !llm_jinja_charge_backward(run, text->len, separator))
		return false;
	found = from_right ? llm_jinja_find_last(text->data, text->len, separator)
					   : memmem(text->data, text->len, separator->data,
								separator->len);
	*out = llm_jinja_tuple(list);
	if (found == NULL)
		return push_text(run, list, text->data, from_right ? 0 : text->len) &&
			   push_text(run, list, text->data, 0) &&
			   push_text(run, list, text->data, from_right ? text->len : 0);
	before = (size_t) (found - text->data);
	return push_text(run, list, text->data, before) &&
		   push_text(run, list, found, separator->len) &&
		   push_text(run, list, found + separator->len,
					 text->len - before - separator->len);
}

static bool
str_partition(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return cut_in_three(run, call, false, out);
}

static bool
str_rpartition(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return cut_in_three(run, call, true, out);
}

static bool
str_join(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	const LlmJinjaString *separator = call->self.string;
	LlmJinjaList *items;
	LlmStrbuf buf;

	if (!llm_jinja_collect(run, call->slot[0], &items))
		return false;
	llm_jinja_init_buffer(&buf);
	for (size_t i = 0; i < items->n_items; i++)
	{
		if (items->items[i].kind != LLM_JINJA_STRING)
		{
			llm_strbuf_free(&buf);
			return llm_jinja_fail(run,
								  "sequence item %zu: expected str instance, "
								  "%s found",
								  i, llm_jinja_type_name(items->items[i]));
		}
		if (i > 0)
			llm_strbuf_append(&buf, separator->data, separator->len);
		llm_strbuf_append(&buf, items->items[i].string->data,
						  items->items[i].string->len);
	}
	return llm_jinja_finish_string(run, &buf, true, out);
}

const LlmJinjaBuiltin *
llm_jinja_find_split_method(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "split", "sep? maxsplit?", str_split },
		{ "rsplit", "sep? maxsplit?", str_rsplit },
		{ "splitlines", "keepends?", str_splitlines },
		{ "replace", "old/ new/ count?/", str_replace },
		{ "join", "iterable/", str_join },
		{ "partition", "sep/", str_partition },
		{ "rpartition", "sep/", str_rpartition },
	};

	return llm_jinja_find_builtin(table, sizeof(table) / sizeof(table[0]), name,
								  len);
}
