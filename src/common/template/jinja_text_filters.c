/*
 * jinja_text_filters.c
 *	  Filters over texts; other values are turned into text first.
 *
 * src/common/template/jinja_text_filters.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/template/jinja_filters.h"
#include "src/common/template/jinja_text.h"

static bool
filter_string(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_to_string(run, call->self, out);
}

/* str() of a value: markup or not, the text is plain. */
static bool
plain_text(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaValue *out)
{
	return llm_jinja_to_string(run, value, out) &&
		   llm_jinja_mark(run, false, out);
}

static bool
filter_trim(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue text;

	return llm_jinja_to_string(run, call->self, &text) &&
		   llm_jinja_strip(run, text, LLM_JINJA_BOTH, call->slot[0], out);
}

/* ---- case ---- */

static bool
change_case(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaCase mode,
			LlmJinjaValue *out)
{
	LlmJinjaValue text;

	return llm_jinja_to_string(run, call->self, &text) &&
		   llm_jinja_change_case(run, text, (int) mode, out);
}

static bool
filter_upper(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return change_case(run, call, LLM_JINJA_UPPER, out);
}

static bool
filter_lower(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return change_case(run, call, LLM_JINJA_LOWER, out);
}

static bool
filter_capitalize(LlmJinjaRun *run, const LlmJinjaCall *call,
				  LlmJinjaValue *out)
{
	return change_case(run, call, LLM_JINJA_CAPITALIZE, out);
}

/* Between these, title() sees words. */
static bool
is_word_gap(uint32_t c)
{
	return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' ||
		   llm_jinja_is_space(c);
}

static bool
filter_title(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue value;
	const LlmJinjaString *text;
	LlmStrbuf buf;
	int n;

	if (!llm_jinja_to_string(run, call->self, &value) ||
		!llm_jinja_charge(run, value.string->len / 8))
		return false;
	text = value.string;
	llm_jinja_init_buffer(&buf);
	for (size_t at = 0; at < text->len;)
	{
		size_t end;
		uint32_t c = llm_jinja_char_at(text->data, text->len, at, &n);

		if (is_word_gap(c))
		{
			llm_strbuf_append(&buf, text->data + at, (size_t) n);
			at += (size_t) n;
			continue;
		}
		llm_jinja_map_case(text->data + at, (size_t) n, LLM_JINJA_UPPER, &buf);
		at += (size_t) n;
		for (end = at; end < text->len; end += (size_t) n)
			if (is_word_gap(llm_jinja_char_at(text->data, text->len, end, &n)))
				break;
		llm_jinja_map_case(text->data + at, end - at, LLM_JINJA_LOWER, &buf);
		at = end;
	}
	return llm_jinja_finish_string(run, &buf, true, out);
}

/* ---- markup ---- */

static bool
filter_safe(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_to_string(run, call->self, out) &&
		   llm_jinja_mark(run, true, out);
}

static bool
filter_forceescape(LlmJinjaRun *run, const LlmJinjaCall *call,
				   LlmJinjaValue *out)
{
	LlmJinjaValue text;
	LlmStrbuf buf;

	if (!llm_jinja_to_string(run, call->self, &text))
		return false;
	llm_jinja_init_buffer(&buf);
	llm_jinja_escape_html(text.string, &buf);
	return llm_jinja_finish_string(run, &buf, true, out) &&
		   llm_jinja_mark(run, true, out);
}

static bool
filter_escape(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	*out = call->self;
	if (call->self.kind == LLM_JINJA_STRING && call->self.string->is_markup)
		return true;
	return filter_forceescape(run, call, out);
}

/* ---- replacing and formatting ---- */

static bool
filter_replace(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue text;
	LlmJinjaValue from;
	LlmJinjaValue to;
	int64_t count = -1;

	if (!plain_text(run, call->self, &text) ||
		!plain_text(run, call->slot[0], &from) ||
		!plain_text(run, call->slot[1], &to) ||
		(!llm_jinja_is_absent(call->slot[2]) &&
		 !llm_jinja_want_int(run, call->slot[2], &count)))
		return false;
	return llm_jinja_replace_text(
		run, text.string,
		(const LlmJinjaString *const[2]){ from.string, to.string }, count, out);
}

static bool
filter_format(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	const LlmJinjaArgs *args = call->args;
	LlmJinjaList list = { args->args, args->n_args, args->n_args };
	LlmJinjaValue values = llm_jinja_tuple(&list);
	LlmJinjaValue format;

	if (args->n_args > 0 && args->n_kwargs > 0)
		return llm_jinja_fail(run, "can't handle positional and keyword "
								   "arguments at the same time");
	if (args->n_kwargs > 0)
	{
		values = (LlmJinjaValue){ .kind = LLM_JINJA_DICT };
		if (!llm_jinja_build_dict(run, args, &values.dict))
			return false;
	}
	return llm_jinja_to_string(run, call->self, &format) &&
		   llm_jinja_format_percent(run, format.string, values, out);
}

static bool
filter_center(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue text;
	int64_t width = 80;

	return llm_jinja_want_int(run, call->slot[0], &width) &&
		   llm_jinja_to_string(run, call->self, &text) &&
		   llm_jinja_center(run, text.string, width, out);
}

/* ---- lines and words ---- */

static bool
want_indention(LlmJinjaRun *run, LlmJinjaValue width, LlmJinjaValue *out)
{
	static const LlmJinjaString space = { " ", 1, 1, false };

	*out = width;
	if (width.kind == LLM_JINJA_STRING)
		return true;
	return llm_jinja_operate(
		run, LLM_JINJA_MULTIPLY, llm_jinja_text(&space),
		width.kind == LLM_JINJA_MISSING ? llm_jinja_int(4) : width, out);
}

static bool
filter_indent(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	static const LlmJinjaString newline = { "\n", 1, 1, false };
	bool first = llm_jinja_flag(call->slot[1], false);
	bool blank = llm_jinja_flag(call->slot[2], false);
	LlmJinjaValue indention;
	LlmJinjaValue text;
	LlmJinjaList *lines;
	LlmStrbuf buf;

	if (call->self.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, call->self);
	if (call->self.kind != LLM_JINJA_STRING)
		return llm_jinja_fail(
			run,
			call->self.kind == LLM_JINJA_LIST
				? "'%s' object has no attribute 'splitlines'"
				: "unsupported operand type(s) for +=: '%s' and 'str'",
			llm_jinja_type_name(call->self));
	if (!want_indention(run, call->slot[0], &indention) ||
		!llm_jinja_operate(run, LLM_JINJA_ADD, call->self,
						   llm_jinja_text(&newline), &text) ||
		!llm_jinja_split_lines(run, text.string, false, &lines))
		return false;
	llm_jinja_init_buffer(&buf);
	for (size_t i = 0; i < lines->n_items; i++)
	{
		const LlmJinjaString *line = lines->items[i].string;

		if (i > 0)
			llm_strbuf_append_char(&buf, '\n');
		if (i == 0 ? first : blank || line->len > 0)
			llm_strbuf_append(&buf, indention.string->data,
							  indention.string->len);
		llm_strbuf_append(&buf, line->data, line->len);
	}
	return llm_jinja_finish_string(run, &buf, true, out) &&
		   llm_jinja_mark(run, text.string->is_markup, out);
}

static bool
filter_wordcount(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue text;
	int64_t count = 0;
	bool in_word = false;
	int n;

	if (!llm_jinja_to_string(run, call->self, &text) ||
		!llm_jinja_charge(run, text.string->len / 8))
		return false;
	for (size_t at = 0; at < text.string->len; at += (size_t) n)
	{
		bool is_word = llm_jinja_is_word(
			llm_jinja_char_at(text.string->data, text.string->len, at, &n));

		count += is_word && !in_word;
		in_word = is_word;
	}
	*out = llm_jinja_int(count);
	return true;
}

/* Cut a text short, at a space unless it may be anywhere. */
static bool
shorten(LlmJinjaRun *run, const LlmJinjaString *text, int64_t n_chars,
		bool anywhere, const LlmJinjaString *end, LlmJinjaValue *out)
{
	LlmJinjaValue head;
	const char *space;
	size_t len;
	LlmStrbuf buf;

	if (!llm_jinja_substring(run, text, 0, (size_t) n_chars, &head))
		return false;
	len = head.string->len;
	space = anywhere ? NULL : memrchr(head.string->data, ' ', len);
	if (space != NULL)
		len = (size_t) (space - head.string->data);
	llm_jinja_init_buffer(&buf);
	llm_strbuf_append(&buf, head.string->data, len);
	llm_strbuf_append(&buf, end->data, end->len);
	return llm_jinja_finish_string(run, &buf, true, out);
}

static bool
filter_truncate(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	static const LlmJinjaString dots = { "...", 3, 3, false };
	const LlmJinjaString *end = &dots;
	int64_t length = 255;
	int64_t leeway = 5;
	int64_t n_chars;

	if (call->slot[2].kind == LLM_JINJA_STRING)
		end = call->slot[2].string;
	if (!llm_jinja_want_int(run, call->slot[0], &length) ||
		(!llm_jinja_is_absent(call->slot[3]) &&
		 !llm_jinja_want_int(run, call->slot[3], &leeway)))
		return false;
	if (length < (int64_t) end->n_chars)
		return llm_jinja_fail(run, "expected length >= %zu, got %lld",
							  end->n_chars, (long long) length);
	if (leeway < 0)
		return llm_jinja_fail(run, "expected leeway >= 0, got %lld",
							  (long long) leeway);
	if (!llm_jinja_length(call->self, &n_chars))
		return llm_jinja_fail(run, "object of type '%s' has no len()",
							  llm_jinja_type_name(call->self));
	*out = call->self;
	if (n_chars - length <= leeway)
		return true;
	if (call->self.kind != LLM_JINJA_STRING)
		return llm_jinja_fail(run, "truncate: expected a text, not '%s'",
							  llm_jinja_type_name(call->self));
	return shorten(run, call->self.string, length - (int64_t) end->n_chars,
				   llm_jinja_flag(call->slot[1], false), end, out);
}

/* ---- URLs ---- */

static bool
quote_url(LlmJinjaRun *run, LlmJinjaValue value, bool in_query, LlmStrbuf *buf)
{
	static const char safe[] = "abcdefghijklmnopqrstuvwxyz"
							   "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~";
	LlmJinjaValue text;

	if (!llm_jinja_to_string(run, value, &text) ||
		!llm_jinja_charge(run, text.string->len))
		return false;
	for (size_t i = 0; i < text.string->len; i++)
	{
		char c = text.string->data[i];

		if ((c != '\0' && strchr(safe, c) != NULL) || (c == '/' && !in_query))
			llm_strbuf_append_char(buf, c);
		else if (c == ' ' && in_query)
			llm_strbuf_append_char(buf, '+');
		else
			llm_strbuf_printf(buf, "%%%02X", (unsigned char) c);
	}
	return true;
}

/* The entries of a dict, or pairs, as a query: a=1&b=2. */
static bool
quote_pairs(LlmJinjaRun *run, LlmJinjaValue pairs, LlmStrbuf *buf)
{
	LlmJinjaList *list;

	if (pairs.kind == LLM_JINJA_DICT)
	{
		pairs.kind = LLM_JINJA_VIEW;
		pairs.view_part = LLM_JINJA_ITEMS;
	}
	if (!llm_jinja_collect(run, pairs, &list))
		return false;
	for (size_t i = 0; i < list->n_items; i++)
	{
		LlmJinjaList *pair;

		if (!llm_jinja_collect(run, list->items[i], &pair))
			return false;
		if (pair->n_items != 2)
			return llm_jinja_fail(run, "urlencode: expected pairs");
		if (i > 0)
			llm_strbuf_append_char(buf, '&');
		if (!quote_url(run, pair->items[0], true, buf))
			return false;
		llm_strbuf_append_char(buf, '=');
		if (!quote_url(run, pair->items[1], true, buf))
			return false;
	}
	return true;
}

static bool
filter_urlencode(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmStrbuf buf;
	bool ok;

	llm_jinja_init_buffer(&buf);
	if (call->self.kind == LLM_JINJA_STRING ||
		!llm_jinja_is_iterable(call->self))
		ok = quote_url(run, call->self, false, &buf);
	else
		ok = quote_pairs(run, call->self, &buf);
	return llm_jinja_finish_string(run, &buf, ok, out);
}

const LlmJinjaBuiltin *
llm_jinja_find_text_filter(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "trim", "chars?", filter_trim },
		{ "string", "", filter_string },
		{ "upper", "", filter_upper },
		{ "lower", "", filter_lower },
		{ "title", "", filter_title },
		{ "capitalize", "", filter_capitalize },
		{ "safe", "", filter_safe },
		{ "escape", "", filter_escape },
		{ "e", "", filter_escape },
		{ "forceescape", "", filter_forceescape },
		{ "replace", "old new count?", filter_replace },
		{ "format", NULL, filter_format },
		{ "center", "width?", filter_center },
		{ "indent", "width? first? blank?", filter_indent },
		{ "wordcount", "", filter_wordcount },
		{ "truncate", "length? killwords? end? leeway?", filter_truncate },
		{ "urlencode", "", filter_urlencode },
	};

	return llm_jinja_find_builtin(table, sizeof(table) / sizeof(table[0]), name,
								  len);
}
