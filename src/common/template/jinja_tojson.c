/*
 * jinja_tojson.c
 *	  Write values as JSON, byte for byte like Python's json.dumps.
 *
 * src/common/template/jinja_tojson.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/common/template/jinja_text.h"
#include "src/common/template/jinja_value.h"

typedef struct Writer
{
	LlmJinjaRun *run;
	const LlmJinjaDumpStyle *style;
	LlmStrbuf *buf;
} Writer;

static bool write_value(Writer *writer, LlmJinjaValue value, int depth);

static void
write_unit(LlmStrbuf *buf, uint32_t unit)
{
	llm_strbuf_printf(buf, "\\u%04x", unit);
}

static void
write_char(Writer *writer, uint32_t c, const char *bytes, int n)
{
	static const char marks[] = "\"\\\b\f\n\r\t";
	static const char names[] = "\"\\bfnrt";
	const char *found = c != 0 && c < 0x80 ? strchr(marks, (int) c) : NULL;

	if (found != NULL)
	{
		llm_strbuf_append_char(writer->buf, '\\');
		llm_strbuf_append_char(writer->buf, names[found - marks]);
	}
	else if (c < 0x20 || (c == 0x7F && writer->style->ensure_ascii))
		write_unit(writer->buf, c);
	else if (c < 0x80 || !writer->style->ensure_ascii)
		llm_strbuf_append(writer->buf, bytes, (size_t) n);
	else if (c < 0x10000)
		write_unit(writer->buf, c);
	else
	{
		write_unit(writer->buf, 0xD800 + ((c - 0x10000) >> 10));
		write_unit(writer->buf, 0xDC00 + ((c - 0x10000) & 0x3FF));
	}
}

static bool
write_string(Writer *writer, const LlmJinjaString *string)
{
	int n;

	if (!llm_jinja_charge(writer->run, string->len / 16))
		return false;
	llm_strbuf_append_char(writer->buf, '"');
	for (size_t at = 0; at < string->len; at += (size_t) n)
	{
		uint32_t c = llm_jinja_char_at(string->data, string->len, at, &n);

		write_char(writer, c, string->data + at, n);
	}
	llm_strbuf_append_char(writer->buf, '"');
	return true;
}

static void
write_float(double real, LlmStrbuf *buf)
{
	if (isnan(real))
		llm_strbuf_append_str(buf, "NaN");
	else if (isinf(real))
		llm_strbuf_append_str(buf, real < 0 ? "-Infinity" : "Infinity");
	else
		llm_jinja_print_float(real, buf);
}

/* Numbers, booleans and none; false where the value is nothing of these. */
static bool
write_scalar(Writer *writer, LlmJinjaValue value)
{
	LlmStrbuf *buf = writer->buf;

	switch ((LlmJinjaKind) value.kind)
	{
		case LLM_JINJA_NONE:
			llm_strbuf_append_str(buf, "null");
			return true;
		case LLM_JINJA_BOOL:
			llm_strbuf_append_str(buf, value.boolean ? "true" : "false");
			return true;
		case LLM_JINJA_INT:
			llm_strbuf_printf(buf, "%lld", (long long) value.integer);
			return true;
		case LLM_JINJA_BIGINT:
			llm_strbuf_append(buf, value.string->data, value.string->len);
			return true;
		case LLM_JINJA_FLOAT:
			write_float(value.real, buf);
			return true;
		default:
			return false;
	}
}

static bool
write_key(Writer *writer, LlmJinjaValue key)
{
	if (key.kind == LLM_JINJA_STRING)
		return write_string(writer, key.string);
	llm_strbuf_append_char(writer->buf, '"');
	if (!write_scalar(writer, key))
		return llm_jinja_fail(writer->run,
							  "keys must be str, int, float, bool or None, not "
							  "%s",
							  llm_jinja_type_name(key));
	llm_strbuf_append_char(writer->buf, '"');
	return true;
}

static void
write_line_start(Writer *writer, int depth)
{
	const LlmJinjaString *indent = writer->style->indent;

	if (indent == NULL)
		return;
	llm_strbuf_append_char(writer->buf, '\n');
	for (int i = 0; i < depth; i++)
		llm_strbuf_append(writer->buf, indent->data, indent->len);
}

static void
write_separator(Writer *writer, size_t i, int depth)
{
	const LlmJinjaString *separator = writer->style->item_separator;

	if (i > 0)
		llm_strbuf_append(writer->buf, separator->data, separator->len);
	write_line_start(writer, depth);
}

static bool
write_list(Writer *writer, const LlmJinjaList *list, int depth)
{
	if (list->n_items == 0)
	{
		llm_strbuf_append_str(writer->buf, "[]");
		return true;
	}
	llm_strbuf_append_char(writer->buf, '[');
	for (size_t i = 0; i < list->n_items; i++)
	{
		write_separator(writer, i, depth + 1);
		if (!write_value(writer, list->items[i], depth + 1))
			return false;
	}
	write_line_start(writer, depth);
	llm_strbuf_append_char(writer->buf, ']');
	return true;
}

/* The numbers of the entries, in the order to be written. */
static bool
order_entries(Writer *writer, const LlmJinjaDict *dict, LlmJinjaValue *order)
{
	LlmJinjaValue *keys;

	for (size_t i = 0; i < dict->n_entries; i++)
		order[i] = llm_jinja_int((int64_t) i);
	if (!writer->style->sort_keys)
		return true;
	keys = llm_jinja_alloc(writer->run, dict->n_entries * sizeof(*keys));
	if (keys == NULL)
		return false;
	for (size_t i = 0; i < dict->n_entries; i++)
		keys[i] = dict->entries[i].key;
	return llm_jinja_sort(writer->run, keys, order, dict->n_entries, false);
}

static bool
write_dict(Writer *writer, const LlmJinjaDict *dict, int depth)
{
	const LlmJinjaString *separator = writer->style->key_separator;
	LlmJinjaValue *order;

	if (dict->n_entries == 0)
	{
		llm_strbuf_append_str(writer->buf, "{}");
		return true;
	}
	order = llm_jinja_alloc(writer->run, dict->n_entries * sizeof(*order));
	if (order == NULL || !order_entries(writer, dict, order))
		return false;
	llm_strbuf_append_char(writer->buf, '{');
	for (size_t i = 0; i < dict->n_entries; i++)
	{
		const LlmJinjaEntry *entry = &dict->entries[order[i].integer];

		write_separator(writer, i, depth + 1);
		if (!write_key(writer, entry->key))
			return false;
		llm_strbuf_append(writer->buf, separator->data, separator->len);
		if (!write_value(writer, entry->value, depth + 1))
			return false;
	}
	write_line_start(writer, depth);
	llm_strbuf_append_char(writer->buf, '}');
	return true;
}

static bool
write_value(Writer *writer, LlmJinjaValue value, int depth)
{
	if (depth > LLM_JINJA_MAX_VALUE_DEPTH)
		return llm_jinja_fail(writer->run,
							  "a value is nested more than %d deep",
							  LLM_JINJA_MAX_VALUE_DEPTH);
	if (!llm_jinja_charge(writer->run, 1))
		return false;
	if (value.kind == LLM_JINJA_STRING)
		return write_string(writer, value.string);
	if (value.kind == LLM_JINJA_LIST || value.kind == LLM_JINJA_TUPLE)
		return write_list(writer, value.list, depth);
	if (value.kind == LLM_JINJA_DICT)
		return write_dict(writer, value.dict, depth);
	return write_scalar(writer, value) ||
		   llm_jinja_fail(writer->run,
						  "Object of type %s is not JSON serializable",
						  llm_jinja_type_name(value));
}

bool
llm_jinja_write_json(LlmJinjaRun *run, LlmJinjaValue value,
					 const LlmJinjaDumpStyle *style, LlmStrbuf *buf)
{
	Writer writer = { .run = run, .style = style, .buf = buf };

	return write_value(&writer, value, 0);
}
