/*
 * jinja_print.c
 *	  Python's str() and repr().
 *
 * src/common/template/jinja_print.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_ast.h"
#include "src/common/template/jinja_object.h"
#include "src/common/template/jinja_text.h"
#include "src/common/template/jinja_value.h"

static bool
repr_within(LlmJinjaRun *run, LlmJinjaValue value, int depth, LlmStrbuf *buf);

/* ---- floats ---- */

/* Does "0.DIGITS * 10^exponent", as %.*e wrote it, read back as real? */
static bool
reads_back(const char *scientific, double real)
{
	return strtod(scientific, NULL) == real;
}

/* Add one to the last digit of "d.ddde+xx"; false where it would carry. */
static bool
raise_last_digit(char *scientific)
{
	char *exponent = strchr(scientific, 'e');

	assert(exponent != NULL);
	if (exponent[-1] == '9' || exponent[-1] == '.')
		return false;
	exponent[-1]++;
	return true;
}

/*
 * The shortest digits that read back as the same number.  At a power of two
 * the numbers below lie closer than those above, so the nearest decimal may
 * fail where its upper neighbour does not.
 */
static void
shortest_digits(double real, char *scientific, size_t size)
{
	int exponent;
	bool is_power_of_two = frexp(real, &exponent) == 0.5;

	for (int precision = 0; precision < 17; precision++)
	{
		snprintf(scientific, size, "%.*e", precision, real);
		if (reads_back(scientific, real))
			return;
		if (is_power_of_two && raise_last_digit(scientific) &&
			reads_back(scientific, real))
			return;
	}
}

void
llm_jinja_print_float(double real, LlmStrbuf *buf)
{
	char scientific[40];
	char digits[24];
	int n_digits = 0;
	int exponent;

	if (isnan(real) || isinf(real))
	{
		llm_strbuf_append_str(buf, isnan(real) ? "nan"
								   : real < 0  ? "-inf"
											   : "inf");
		return;
	}
	if (signbit(real))
		llm_strbuf_append_char(buf, '-');
	shortest_digits(fabs(real), scientific, sizeof(scientific));
	for (const char *c = scientific; *c != 'e'; c++)
		if (*c != '.')
			digits[n_digits++] = *c;
	exponent = atoi(strchr(scientific, 'e') + 1);
	while (n_digits > 1 && digits[n_digits - 1] == '0')
		n_digits--;
	if (exponent < -4 || exponent >= 16)
	{
		llm_strbuf_append(buf, digits, 1);
		if (n_digits > 1)
			llm_strbuf_append_char(buf, '.');
		llm_strbuf_append(buf, digits + 1, (size_t) n_digits - 1);
		llm_strbuf_printf(buf, "e%c%02d", exponent < 0 ? '-' : '+',
						  abs(exponent));
		return;
	}
	if (exponent < 0)
		llm_strbuf_append_str(buf, "0.");
	for (int i = exponent; i < -1; i++)
		llm_strbuf_append_char(buf, '0');
	for (int i = 0; i < n_digits || i <= exponent; i++)
	{
		if (i == exponent + 1 && exponent >= 0)
			llm_strbuf_append_char(buf, '.');
		llm_strbuf_append_char(buf, i < n_digits ? digits[i] : '0');
	}
	if (n_digits <= exponent + 1)
		llm_strbuf_append_str(buf, ".0");
}

/* ---- strings ---- */

static void
repr_char(uint32_t c, const char *bytes, int n, LlmStrbuf *buf)
{
	if (c == '\n')
		llm_strbuf_append_str(buf, "\\n");
	else if (c == '\r')
		llm_strbuf_append_str(buf, "\\r");
	else if (c == '\t')
		llm_strbuf_append_str(buf, "\\t");
	else if (llm_jinja_is_printable(c))
		llm_strbuf_append(buf, bytes, (size_t) n);
	else if (c < 0x100)
		llm_strbuf_printf(buf, "\\x%02x", c);
	else if (c < 0x10000)
		llm_strbuf_printf(buf, "\\u%04x", c);
	else
		llm_strbuf_printf(buf, "\\U%08x", c);
}

/* In single quotes, unless only double quotes avoid an escape. */
static void
repr_string(const LlmJinjaString *string, LlmStrbuf *buf)
{
	bool has_single = memchr(string->data, '\'', string->len) != NULL;
	bool has_double = memchr(string->data, '"', string->len) != NULL;
	char quote = has_single && !has_double ? '"' : '\'';
	int n;

	if (string->is_markup)
		llm_strbuf_append_str(buf, "Markup(");
	llm_strbuf_append_char(buf, quote);
	for (size_t at = 0; at < string->len; at += (size_t) n)
	{
		uint32_t c = llm_jinja_char_at(string->data, string->len, at, &n);

		if (c == (unsigned char) quote || c == '\\')
			llm_strbuf_append_char(buf, '\\');
		repr_char(c, string->data + at, n, buf);
	}
	llm_strbuf_append_char(buf, quote);
	if (string->is_markup)
		llm_strbuf_append_char(buf, ')');
}

void
llm_jinja_escape_html(const LlmJinjaString *string, LlmStrbuf *buf)
{
	for (size_t i = 0; i < string->len; i++)
	{
		char c = string->data[i];

		if (c == '&')
			llm_strbuf_append_str(buf, "&amp;");
		else if (c == '<')
			llm_strbuf_append_str(buf, "&lt;");
		else if (c == '>')
			llm_strbuf_append_str(buf, "&gt;");
		else if (c == '\'')
			llm_strbuf_append_str(buf, "&#39;");
		else if (c == '"')
			llm_strbuf_append_str(buf, "&#34;");
		else
			llm_strbuf_append_char(buf, c);
	}
}

/* ---- containers ---- */

static bool
repr_list(LlmJinjaRun *run, LlmJinjaValue value, int depth, LlmStrbuf *buf)
{
	bool is_tuple = value.kind == LLM_JINJA_TUPLE;
	size_t n = value.list->n_items;

	llm_strbuf_append_char(buf, is_tuple ? '(' : '[');
	for (size_t i = 0; i < n; i++)
	{
		if (i > 0)
			llm_strbuf_append_str(buf, ", ");
		if (!repr_within(run, value.list->items[i], depth + 1, buf))
			return false;
	}
	if (is_tuple && n == 1)
		llm_strbuf_append_char(buf, ',');
	llm_strbuf_append_char(buf, is_tuple ? ')' : ']');
	return true;
}

static bool
repr_entry(LlmJinjaRun *run, LlmJinjaValue value, size_t entry, int depth,
		   LlmStrbuf *buf)
{
	const LlmJinjaEntry *e = &value.dict->entries[entry];
	bool is_view = value.kind == LLM_JINJA_VIEW;

	if (is_view && value.view_part == LLM_JINJA_VALUES)
		return repr_within(run, e->value, depth + 1, buf);
	if (is_view && value.view_part == LLM_JINJA_ITEMS)
		llm_strbuf_append_char(buf, '(');
	if (!repr_within(run, e->key, depth + 1, buf))
		return false;
	if (is_view && value.view_part == LLM_JINJA_KEYS)
		return true;
	llm_strbuf_append_str(buf, is_view ? ", " : ": ");
	if (!repr_within(run, e->value, depth + 1, buf))
		return false;
	if (is_view)
		llm_strbuf_append_char(buf, ')');
	return true;
}

/* A dict, a view of one, or the attributes of a namespace. */
static bool
repr_dict(LlmJinjaRun *run, LlmJinjaValue value, int depth, LlmStrbuf *buf)
{
	LlmJinjaDict *dict = value.dict;
	bool is_view = value.kind == LLM_JINJA_VIEW;
	bool ok = true;

	if (dict->is_printing)
	{
		llm_strbuf_append_str(buf, "{...}");
		return true;
	}
	/* only a namespace can contain itself; other dicts may be shared */
	dict->is_printing = value.kind == LLM_JINJA_NAMESPACE;
	if (is_view)
		llm_strbuf_printf(buf, "%s(", llm_jinja_type_name(value));
	llm_strbuf_append_char(buf, is_view ? '[' : '{');
	for (size_t i = 0; ok && i < dict->n_entries; i++)
	{
		if (i > 0)
			llm_strbuf_append_str(buf, ", ");
		ok = repr_entry(run, value, i, depth, buf);
	}
	llm_strbuf_append_str(buf, is_view ? "])" : "}");
	dict->is_printing = false;
	return ok;
}

static bool
repr_namespace(LlmJinjaRun *run, LlmJinjaValue value, int depth, LlmStrbuf *buf)
{
	llm_strbuf_append_str(buf, "<Namespace ");
	if (!repr_dict(run, value, depth, buf))
		return false;
	llm_strbuf_append_char(buf, '>');
	return true;
}

static void
repr_range(const LlmJinjaRange *range, LlmStrbuf *buf)
{
	llm_strbuf_printf(buf, "range(%lld, %lld", (long long) range->start,
					  (long long) range->stop);
	if (range->step != 1)
		llm_strbuf_printf(buf, ", %lld", (long long) range->step);
	llm_strbuf_append_char(buf, ')');
}

/* Objects, whose repr in Python would show an address or is rarely seen. */
static bool
repr_object(LlmJinjaRun *run, LlmJinjaValue value, LlmStrbuf *buf)
{
	const LlmJinjaString *name;
	int64_t length;

	if (value.kind == LLM_JINJA_LOOP)
	{
		if (!llm_jinja_loop_length(run, value.loop, &length))
			return false;
		llm_strbuf_printf(buf, "<LoopContext %lld/%lld>",
						  (long long) value.loop->index0 + 1,
						  (long long) length);
		return true;
	}
	if (value.kind == LLM_JINJA_MACRO)
	{
		name = value.macro->node->name;
		llm_strbuf_append_str(buf, "<Macro ");
		if (name == NULL)
			llm_strbuf_append_str(buf, "anonymous");
		else
			repr_string(name, buf);
		llm_strbuf_append_char(buf, '>');
		return true;
	}
	llm_strbuf_printf(buf, "<%s object>", llm_jinja_type_name(value));
	return true;
}

static bool
repr_within(LlmJinjaRun *run, LlmJinjaValue value, int depth, LlmStrbuf *buf)
{
	if (depth > LLM_JINJA_MAX_VALUE_DEPTH)
		return llm_jinja_fail(run, "a value is nested more than %d deep",
							  LLM_JINJA_MAX_VALUE_DEPTH);
	if (!llm_jinja_charge(run, 1))
		return false;
	switch ((LlmJinjaKind) value.kind)
	{
		case LLM_JINJA_UNDEFINED:
			llm_strbuf_append_str(buf, "Undefined");
			return true;
		case LLM_JINJA_NONE:
			llm_strbuf_append_str(buf, "None");
			return true;
		case LLM_JINJA_BOOL:
			llm_strbuf_append_str(buf, value.boolean ? "True" : "False");
			return true;
		case LLM_JINJA_INT:
			llm_strbuf_printf(buf, "%lld", (long long) value.integer);
			return true;
		case LLM_JINJA_BIGINT:
			llm_strbuf_append(buf, value.string->data, value.string->len);
			return true;
		case LLM_JINJA_FLOAT:
			llm_jinja_print_float(value.real, buf);
			return true;
		case LLM_JINJA_STRING:
			repr_string(value.string, buf);
			return true;
		case LLM_JINJA_LIST:
		case LLM_JINJA_TUPLE:
			return repr_list(run, value, depth, buf);
		case LLM_JINJA_DICT:
		case LLM_JINJA_VIEW:
			return repr_dict(run, value, depth, buf);
		case LLM_JINJA_NAMESPACE:
			return repr_namespace(run, value, depth, buf);
		case LLM_JINJA_RANGE:
			repr_range(value.range, buf);
			return true;
		default:
			return repr_object(run, value, buf);
	}
}

bool
llm_jinja_repr(LlmJinjaRun *run, LlmJinjaValue value, LlmStrbuf *buf)
{
	return repr_within(run, value, 0, buf);
}

bool
llm_jinja_print(LlmJinjaRun *run, LlmJinjaValue value, LlmStrbuf *buf)
{
	if (value.kind == LLM_JINJA_UNDEFINED)
		return true;
	if (value.kind == LLM_JINJA_STRING)
	{
		llm_strbuf_append(buf, value.string->data, value.string->len);
		return llm_jinja_charge(run, value.string->len / 64);
	}
	return repr_within(run, value, 0, buf);
}

bool
llm_jinja_to_string(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaValue *out)
{
	LlmStrbuf buf;
	bool ok;

	if (value.kind == LLM_JINJA_STRING)
	{
		*out = value;
		return true;
	}
	llm_jinja_init_buffer(&buf);
	ok = llm_jinja_print(run, value, &buf);
	return llm_jinja_finish_string(run, &buf, ok, out);
}
