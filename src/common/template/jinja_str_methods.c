/*
 * jinja_str_methods.c
 *	  The methods of texts; those that split and join are in
 *	  jinja_str_split.c.
 *
 * Positions and lengths count characters; the work is done on bytes, since
 * in UTF-8 a whole text can only be found at a character's start.
 *
 * src/common/template/jinja_str_methods.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/template/jinja_filters.h"
#include "src/common/template/jinja_str_methods.h"
#include "src/common/template/jinja_text.h"
#include "src/common/util/utf8.h"

/* ---- arguments ---- */

static bool
is_given(LlmJinjaValue value)
{
	return value.kind != LLM_JINJA_MISSING;
}

bool
llm_jinja_want_text(LlmJinjaRun *run, LlmJinjaValue value,
					const LlmJinjaString **text)
{
	if (value.kind != LLM_JINJA_STRING)
	{
		llm_jinja_fail(run, "must be str, not %s", llm_jinja_type_name(value));
		return false;
	}
	*text = value.string;
	return true;
}

/* Bytes of a text between two optional character positions. */
typedef struct TextSpan
{
	const char *data;
	size_t len;
	int64_t start; /* characters before data */
	int64_t n_chars;
	bool is_empty; /* the end lies before the start */
} TextSpan;

static bool
want_bound(LlmJinjaRun *run, LlmJinjaValue value, int64_t *integer)
{
	if (!is_given(value) || value.kind == LLM_JINJA_NONE ||
		llm_jinja_as_int(value, integer))
		return true;
	return llm_jinja_fail(run, "slice indices must be integers or None or have "
							   "an __index__ method");
}

static bool
want_span(LlmJinjaRun *run, const LlmJinjaCall *call, TextSpan *span)
{
	const LlmJinjaString *text = call->self.string;
	int64_t length = (int64_t) text->n_chars;
	int64_t start = 0;
	int64_t end = length;
	size_t from;

	if (!want_bound(run, call->slot[1], &start) ||
		!want_bound(run, call->slot[2], &end))
		return false;
	end = end > length	  ? length
		  : end < -length ? 0
		  : end < 0		  ? end + length
						  : end;
	start = start < -length ? 0 : start < 0 ? start + length : start;
	memset(span, 0, sizeof(*span));
	span->is_empty = start > end;
	if (span->is_empty)
		return true;
	from = llm_jinja_char_offset(text, (size_t) start);
	span->data = text->data + from;
	span->len = llm_jinja_char_offset(text, (size_t) end) - from;
	span->start = start;
	span->n_chars = end - start;
	return llm_jinja_charge(run, text->len / 16);
}

static bool
answer(LlmJinjaValue *out, bool result)
{
	*out = llm_jinja_bool(result);
	return true;
}

bool
llm_jinja_mark(LlmJinjaRun *run, bool is_markup, LlmJinjaValue *text)
{
	LlmJinjaString *string;

	if (text->string->is_markup == is_markup)
		return true;
	string = llm_jinja_alloc(run, sizeof(*string));
	if (string == NULL)
		return false;
	*string = *text->string;
	string->is_markup = is_markup;
	text->string = string;
	return true;
}

/* ---- stripping and case ---- */

bool
llm_jinja_strip(LlmJinjaRun *run, LlmJinjaValue text, int sides,
				LlmJinjaValue chars, LlmJinjaValue *out)
{
	const char *data = text.string->data;
	size_t len = text.string->len;

	if (is_given(chars) && chars.kind != LLM_JINJA_NONE &&
		chars.kind != LLM_JINJA_STRING)
		return llm_jinja_fail(run, "strip arg must be None or str");
	llm_jinja_strip_text(&data, &len, (LlmJinjaSides) sides,
						 chars.kind == LLM_JINJA_STRING ? chars.string : NULL);
	return llm_jinja_borrow_string(run, data, len, out) &&
		   llm_jinja_mark(run, text.string->is_markup, out);
}

static bool
str_strip(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_strip(run, call->self, LLM_JINJA_BOTH, call->slot[0], out);
}

static bool
str_lstrip(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_strip(run, call->self, LLM_JINJA_LEFT, call->slot[0], out);
}

static bool
str_rstrip(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_strip(run, call->self, LLM_JINJA_RIGHT, call->slot[0],
						   out);
}

bool
llm_jinja_change_case(LlmJinjaRun *run, LlmJinjaValue text, int mode,
					  LlmJinjaValue *out)
{
	LlmStrbuf buf;

	if (!llm_jinja_charge(run, text.string->len / 8))
		return false;
	llm_jinja_init_buffer(&buf);
	llm_jinja_map_case(text.string->data, text.string->len, (LlmJinjaCase) mode,
					   &buf);
	return llm_jinja_finish_string(run, &buf, true, out) &&
		   llm_jinja_mark(run, text.string->is_markup, out);
}

static bool
str_upper(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_change_case(run, call->self, LLM_JINJA_UPPER, out);
}

static bool
str_lower(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_change_case(run, call->self, LLM_JINJA_LOWER, out);
}

static bool
str_title(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_change_case(run, call->self, LLM_JINJA_TITLE, out);
}

static bool
str_capitalize(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_change_case(run, call->self, LLM_JINJA_CAPITALIZE, out);
}

static bool
str_swapcase(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_change_case(run, call->self, LLM_JINJA_SWAP, out);
}

static bool
str_casefold(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_change_case(run, call->self, LLM_JINJA_FOLD, out);
}

/* ---- finding ---- */

bool
llm_jinja_charge_backward(LlmJinjaRun *run, size_t len,
						  const LlmJinjaString *needle)
{
	return llm_jinja_charge(run, (len / 16 + 1) * (needle->len / 16 + 1));
}

const char *
llm_jinja_find_last(const char *data, size_t len, const LlmJinjaString *needle)
{
	for (size_t at = len + 1; at-- > 0;)
		if (at + needle->len <= len &&
			memcmp(data + at, needle->data, needle->len) == 0 &&
			(at == len || ((unsigned char) data[at] & 0xC0) != 0x80))
			return data + at;
	return NULL;
}

/* The position in characters, or -1. */
static bool
find_text(LlmJinjaRun *run, const LlmJinjaCall *call, bool from_right,
		  int64_t *position)
{
	const LlmJinjaString *needle;
	const char *found;
	TextSpan span;

	*position = -1;
	if (!llm_jinja_want_text(run, call->slot[0], &needle) ||
		!want_span(run, call, &span))
		return false;
	if (span.is_empty)
		return true;
	if (from_right)
	{
		if (!llm_jinja_charge_backward(run, span.len, needle))
			return false;
		found = llm_jinja_find_last(span.data, span.len, needle);
	}
	else
		found = memmem(span.data, span.len, needle->data, needle->len);
	if (found == NULL)
		return true;
	*position = span.start;
	for (const char *c = span.data; c < found; c++)
		*position += ((unsigned char) *c & 0xC0) != 0x80;
	return true;
}

static bool
str_find(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	int64_t position;

	if (!find_text(run, call, false, &position))
		return false;
	*out = llm_jinja_int(position);
	return true;
}

static bool
str_rfind(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	int64_t position;

	if (!find_text(run, call, true, &position))
		return false;
	*out = llm_jinja_int(position);
	return true;
}

static bool
str_index(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return str_find(run, call, out) &&
		   (out->integer >= 0 || llm_jinja_fail(run, "substring not found"));
}

static bool
str_rindex(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return str_rfind(run, call, out) &&
		   (out->integer >= 0 || llm_jinja_fail(run, "substring not found"));
}

static bool
str_count(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	const LlmJinjaString *needle;
	const char *at;
	TextSpan span;
	int64_t count = 0;

	if (!llm_jinja_want_text(run, call->slot[0], &needle) ||
		!want_span(run, call, &span))
		return false;
	if (needle->len == 0 && !span.is_empty)
		count = span.n_chars + 1;
	at = span.data;
	while (needle->len > 0 && !span.is_empty &&
		   (at = memmem(at, span.len - (size_t) (at - span.data), needle->data,
						needle->len)) != NULL)
	{
		count++;
		at += needle->len;
	}
	*out = llm_jinja_int(count);
	return true;
}

/* startswith and endswith, of one text or any of a tuple. */
static bool
has_affix(LlmJinjaRun *run, const LlmJinjaCall *call, bool at_end,
		  LlmJinjaValue *out)
{
	LlmJinjaValue affix = call->slot[0];
	LlmJinjaList single = { &affix, 1, 1 };
	const LlmJinjaList *list = &single;
	TextSpan span;

	if (affix.kind == LLM_JINJA_TUPLE)
		list = affix.list;
	else if (affix.kind != LLM_JINJA_STRING)
		return llm_jinja_fail(
			run, "%s first arg must be str or a tuple of str, not %s",
			at_end ? "endswith" : "startswith", llm_jinja_type_name(affix));
	if (!want_span(run, call, &span))
		return false;
	for (size_t i = 0; i < list->n_items; i++)
	{
		const LlmJinjaString *text;

		if (!llm_jinja_want_text(run, list->items[i], &text))
			return false;
		if (!span.is_empty && text->len <= span.len &&
			memcmp(span.data + (at_end ? span.len - text->len : 0), text->data,
				   text->len) == 0)
			return answer(out, true);
	}
	return answer(out, false);
}

static bool
str_startswith(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return has_affix(run, call, false, out);
}

static bool
str_endswith(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return has_affix(run, call, true, out);
}

static bool
remove_affix(LlmJinjaRun *run, const LlmJinjaCall *call, bool at_end,
			 LlmJinjaValue *out)
{
	const LlmJinjaString *self = call->self.string;
	const LlmJinjaString *affix;
	size_t from;

	if (!llm_jinja_want_text(run, call->slot[0], &affix))
		return false;
	*out = call->self;
	if (affix->len > self->len)
		return true;
	from = at_end ? self->len - affix->len : 0;
	if (memcmp(self->data + from, affix->data, affix->len) != 0)
		return true;
	return llm_jinja_borrow_string(run, self->data + (at_end ? 0 : affix->len),
								   self->len - affix->len, out);
}

static bool
str_removeprefix(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return remove_affix(run, call, false, out);
}

static bool
str_removesuffix(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return remove_affix(run, call, true, out);
}

/* ---- filling up ---- */

static void
append_fill(LlmStrbuf *buf, const LlmJinjaString *fill, int64_t n)
{
	for (int64_t i = 0; i < n && !buf->failed; i++)
		llm_strbuf_append(buf, fill->data, fill->len);
}

static bool
pad(LlmJinjaRun *run, const LlmJinjaString *text, const int64_t fills[2],
	const LlmJinjaString *fill, LlmJinjaValue *out)
{
	LlmStrbuf buf;

	llm_jinja_init_buffer(&buf);
	append_fill(&buf, fill, fills[0]);
	llm_strbuf_append(&buf, text->data, text->len);
	append_fill(&buf, fill, fills[1]);
	return llm_jinja_finish_string(run, &buf, true, out);
}

static const LlmJinjaString space = { " ", 1, 1, false };

bool
llm_jinja_center(LlmJinjaRun *run, const LlmJinjaString *text, int64_t width,
				 LlmJinjaValue *out)
{
	int64_t missing = width - (int64_t) text->n_chars;
	int64_t left = missing > 0 ? missing / 2 + (missing & width & 1) : 0;

	return pad(run, text, (int64_t[2]){ left, missing - left }, &space, out);
}

/* -1: to the left, 0: centered, 1: to the right. */
static bool
justify(LlmJinjaRun *run, const LlmJinjaCall *call, int side,
		LlmJinjaValue *out)
{
	const LlmJinjaString *text = call->self.string;
	const LlmJinjaString *fill = &space;
	int64_t width = 0;
	int64_t missing;
	int64_t left;

	if (!llm_jinja_want_int(run, call->slot[0], &width) ||
		(is_given(call->slot[1]) &&
		 !llm_jinja_want_text(run, call->slot[1], &fill)))
		return false;
	if (fill->n_chars != 1)
		return llm_jinja_fail(run, "The fill character must be exactly one "
								   "character long");
	missing = width - (int64_t) text->n_chars;
	if (missing <= 0)
	{
		*out = call->self;
		return true;
	}
	left = side < 0	  ? 0
		   : side > 0 ? missing
					  : missing / 2 + (missing & width & 1);
	return pad(run, text, (int64_t[2]){ left, missing - left }, fill, out);
}

static bool
str_ljust(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return justify(run, call, -1, out);
}

static bool
str_center(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return justify(run, call, 0, out);
}

static bool
str_rjust(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return justify(run, call, 1, out);
}

static bool
str_zfill(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	static const LlmJinjaString zero = { "0", 1, 1, false };
	const LlmJinjaString *text = call->self.string;
	size_t sign =
		text->len > 0 && (text->data[0] == '-' || text->data[0] == '+');
	int64_t width = 0;
	LlmStrbuf buf;

	if (!llm_jinja_want_int(run, call->slot[0], &width))
		return false;
	llm_jinja_init_buffer(&buf);
	llm_strbuf_append(&buf, text->data, sign);
	append_fill(&buf, &zero, width - (int64_t) text->n_chars);
	llm_strbuf_append(&buf, text->data + sign, text->len - sign);
	return llm_jinja_finish_string(run, &buf, true, out);
}

static bool
str_expandtabs(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	const LlmJinjaString *text = call->self.string;
	int64_t size = 8;
	int64_t column = 0;
	LlmStrbuf buf;
	int n;

	if (!llm_jinja_want_int(run, call->slot[0], &size))
		return false;
	llm_jinja_init_buffer(&buf);
	for (size_t at = 0; at < text->len; at += (size_t) n)
	{
		uint32_t c = llm_jinja_char_at(text->data, text->len, at, &n);
		int64_t fill = c == '\t' && size > 0 ? size - column % size : 0;

		if (c == '\t')
			append_fill(&buf, &space, fill);
		else
			llm_strbuf_append(&buf, text->data + at, (size_t) n);
		column = c == '\n' || c == '\r' ? 0 : column + (c == '\t' ? fill : 1);
	}
	return llm_jinja_finish_string(run, &buf, true, out);
}

/* ---- asking ---- */

/* Some character, and all of the kind. */
static bool
all_chars(const LlmJinjaCall *call, bool (*is_kind)(uint32_t), bool if_empty,
		  LlmJinjaValue *out)
{
	const LlmJinjaString *text = call->self.string;
	int n;

	for (size_t at = 0; at < text->len; at += (size_t) n)
		if (!is_kind(llm_jinja_char_at(text->data, text->len, at, &n)))
			return answer(out, false);
	return answer(out, text->len > 0 || if_empty);
}

static bool
is_alphanumeric(uint32_t c)
{
	return llm_jinja_is_alpha(c) || llm_jinja_is_numeric(c);
}

static bool
is_ascii(uint32_t c)
{
	return c < 0x80;
}

#define CHARACTER_METHOD(name, is_kind, if_empty)                   \
	static bool name(LlmJinjaRun *run, const LlmJinjaCall *call,    \
					 LlmJinjaValue *out)                            \
	{                                                               \
		return llm_jinja_charge(run, call->self.string->len / 8) && \
			   all_chars(call, is_kind, if_empty, out);             \
	}

CHARACTER_METHOD(str_isalpha, llm_jinja_is_alpha, false)
CHARACTER_METHOD(str_isalnum, is_alphanumeric, false)
CHARACTER_METHOD(str_isdigit, llm_jinja_is_digit, false)
CHARACTER_METHOD(str_isdecimal, llm_jinja_is_decimal, false)
CHARACTER_METHOD(str_isnumeric, llm_jinja_is_numeric, false)
CHARACTER_METHOD(str_isspace, llm_jinja_is_space, false)
CHARACTER_METHOD(str_isprintable, llm_jinja_is_printable, true)
CHARACTER_METHOD(str_isascii, is_ascii, true)

static bool
str_isidentifier(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, llm_jinja_is_identifier(call->self.string->data,
											   call->self.string->len));
}

static bool
ask_test(LlmJinjaRun *run, const LlmJinjaCall *call, const char *test,
		 LlmJinjaValue *out)
{
	static const LlmJinjaArgs none = { 0 };

	return llm_jinja_call_builtin(run, llm_jinja_find_test(test, strlen(test)),
								  call->self, &none, out);
}

static bool
str_isupper(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return ask_test(run, call, "upper", out);
}

static bool
str_islower(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return ask_test(run, call, "lower", out);
}

/* Capitals only behind what has no case, small letters only behind cased. */
static bool
str_istitle(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	const LlmJinjaString *text = call->self.string;
	bool in_word = false;
	bool found = false;
	int n;

	(void) run;
	for (size_t at = 0; at < text->len; at += (size_t) n)
	{
		uint32_t c = llm_jinja_char_at(text->data, text->len, at, &n);
		bool capital = llm_jinja_is_upper_char(c) || llm_jinja_is_title_char(c);
		bool small = llm_jinja_is_lower_char(c);

		if (capital ? in_word : small && !in_word)
			return answer(out, false);
		in_word = capital || small;
		found = found || in_word;
	}
	return answer(out, found);
}

static bool
str_format(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_format_braces(run, call->self.string, call->args, out);
}

const LlmJinjaBuiltin *
llm_jinja_find_str_method(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "strip", "chars?/", str_strip },
		{ "lstrip", "chars?/", str_lstrip },
		{ "rstrip", "chars?/", str_rstrip },
		{ "startswith", "prefix/ start?/ end?/", str_startswith },
		{ "endswith", "suffix/ start?/ end?/", str_endswith },
		{ "upper", "", str_upper },
		{ "lower", "", str_lower },
		{ "title", "", str_title },
		{ "capitalize", "", str_capitalize },
		{ "swapcase", "", str_swapcase },
		{ "casefold", "", str_casefold },
		{ "find", "sub/ start?/ end?/", str_find },
		{ "rfind", "sub/ start?/ end?/", str_rfind },
		{ "index", "sub/ start?/ end?/", str_index },
		{ "rindex", "sub/ start?/ end?/", str_rindex },
		{ "count", "sub/ start?/ end?/", str_count },
		{ "removeprefix", "prefix/", str_removeprefix },
		{ "removesuffix", "suffix/", str_removesuffix },
		{ "zfill", "width/", str_zfill },
		{ "ljust", "width/ fillchar?/", str_ljust },
		{ "rjust", "width/ fillchar?/", str_rjust },
		{ "center", "width/ fillchar?/", str_center },
		{ "expandtabs", "tabsize?", str_expandtabs },
		{ "isalpha", "", str_isalpha },
		{ "isalnum", "", str_isalnum },
		{ "isdigit", "", str_isdigit },
		{ "isdecimal", "", str_isdecimal },
		{ "isnumeric", "", str_isnumeric },
		{ "isspace", "", str_isspace },
		{ "isupper", "", str_isupper },
		{ "islower", "", str_islower },
		{ "istitle", "", str_istitle },
		{ "isascii", "", str_isascii },
		{ "isprintable", "", str_isprintable },
		{ "isidentifier", "", str_isidentifier },
		{ "format", NULL, str_format },
		{ "format_map", NULL, NULL },
		{ "encode", NULL, NULL },
		{ "maketrans", NULL, NULL },
		{ "translate", NULL, NULL },
	};

	const LlmJinjaBuiltin *found = llm_jinja_find_builtin(
		table, sizeof(table) / sizeof(table[0]), name, len);

	return found != NULL ? found : llm_jinja_find_split_method(name, len);
}
