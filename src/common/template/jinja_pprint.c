/*
 * jinja_pprint.c
 *	  The pprint filter: Python's pprint.pformat, in 80 columns.
 *
 * What fits is printed as repr() does, with the keys of dicts in order; what
 * does not is broken behind each item, and texts behind words.  "Allowance"
 * are the columns that closing brackets will take behind the value.
 *
 * Algorithm: Lib/pprint.py of CPython.
 *
 * src/common/template/jinja_pprint.c
 */
#include <string.h>

#include "src/common/template/jinja_filters.h"
#include "src/common/template/jinja_text.h"

#define COLUMNS 80

typedef struct Pretty
{
	LlmJinjaRun *run;
	LlmStrbuf *out;
	int level; /* of containers and texts that are being broken */
} Pretty;

static bool format_value(Pretty *pretty, LlmJinjaValue value, int64_t indent,
						 int64_t allowance);

/* ---- keys in order ---- */

/* Python's order of keys: unlike types by the types' names. */
static bool
key_is_less(LlmJinjaRun *run, LlmJinjaValue a, LlmJinjaValue b, bool *less)
{
	bool both_numbers = llm_jinja_is_number(a) && llm_jinja_is_number(b);

	if (both_numbers || (a.kind == b.kind && (a.kind == LLM_JINJA_STRING ||
											  a.kind == LLM_JINJA_TUPLE)))
		return llm_jinja_order(run, LLM_JINJA_LESS,
							   (const LlmJinjaValue[2]){ a, b }, less);
	*less = strcmp(llm_jinja_type_name(a), llm_jinja_type_name(b)) < 0;
	return true;
}

/* Merge the halves of entries, each in order; spare has room for one. */
static bool
merge_entries(LlmJinjaRun *run, LlmJinjaEntry *entries, size_t n_left, size_t n,
			  LlmJinjaEntry *spare)
{
	size_t left = 0;
	size_t right = n_left;

	memcpy(spare, entries, n_left * sizeof(*spare));
	for (size_t to = 0; left < n_left && right < n; to++)
	{
		bool less;

		if (!key_is_less(run, entries[right].key, spare[left].key, &less))
			return false;
		entries[to] = less ? entries[right++] : spare[left++];
	}
	memcpy(entries + right - (n_left - left), spare + left,
		   (n_left - left) * sizeof(*spare));
	return true;
}

static bool
sort_entries(LlmJinjaRun *run, LlmJinjaEntry *entries, size_t n,
			 LlmJinjaEntry *spare)
{
	return n < 2 || (sort_entries(run, entries, n / 2, spare) &&
					 sort_entries(run, entries + n / 2, n - n / 2, spare) &&
					 merge_entries(run, entries, n / 2, n, spare));
}

static bool
sort_keys(LlmJinjaRun *run, LlmJinjaValue value, int depth, LlmJinjaValue *out);

static bool
sort_dict(LlmJinjaRun *run, const LlmJinjaDict *dict, int depth,
		  LlmJinjaValue *out)
{
	size_t n = dict->n_entries;
	LlmJinjaEntry *entries = llm_jinja_alloc(run, 2 * n * sizeof(*entries) + 1);
	LlmJinjaDict *sorted = llm_jinja_create_dict(run);

	if (entries == NULL || sorted == NULL || !llm_jinja_charge(run, n))
		return false;
	if (n > 0)
		memcpy(entries, dict->entries, n * sizeof(*entries));
	if (!sort_entries(run, entries, n, entries + n))
		return false;
	for (size_t i = 0; i < n; i++)
	{
		LlmJinjaValue value;

		if (!sort_keys(run, entries[i].value, depth + 1, &value) ||
			!llm_jinja_dict_set(run, sorted, entries[i].key, value))
			return false;
	}
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_DICT, .dict = sorted };
	return true;
}

/* A copy whose dicts have their keys in order. */
static bool
sort_keys(LlmJinjaRun *run, LlmJinjaValue value, int depth, LlmJinjaValue *out)
{
	LlmJinjaList *list;

	*out = value;
	if (depth > LLM_JINJA_MAX_VALUE_DEPTH)
		return llm_jinja_fail(run, "pprint: nested too deep");
	if (value.kind == LLM_JINJA_DICT)
		return sort_dict(run, value.dict, depth, out);
	if (value.kind != LLM_JINJA_LIST && value.kind != LLM_JINJA_TUPLE)
		return true;
	list = llm_jinja_create_list(run, value.list->n_items);
	if (list == NULL)
		return false;
	for (size_t i = 0; i < value.list->n_items; i++)
	{
		LlmJinjaValue item;

		if (!sort_keys(run, value.list->items[i], depth + 1, &item) ||
			!llm_jinja_push(run, list, item))
			return false;
	}
	out->list = list;
	return true;
}

/* ---- layout ---- */

static bool
make_repr(Pretty *pretty, LlmJinjaValue value, const LlmJinjaString **out)
{
	LlmStrbuf buf;
	LlmJinjaValue text;
	bool ok;

	llm_jinja_init_buffer(&buf);
	ok = llm_jinja_repr(pretty->run, value, &buf);
	if (!llm_jinja_finish_string(pretty->run, &buf, ok, &text))
		return false;
	*out = text.string;
	return llm_jinja_charge(pretty->run, text.string->len / 8);
}

static void
break_line(Pretty *pretty, int64_t indent)
{
	llm_strbuf_append_char(pretty->out, '\n');
	for (int64_t i = 0; i < indent; i++)
		llm_strbuf_append_char(pretty->out, ' ');
}

static bool
format_dict(Pretty *pretty, const LlmJinjaDict *dict, int64_t indent,
			int64_t allowance)
{
	llm_strbuf_append_char(pretty->out, '{');
	indent++;
	for (size_t i = 0; i < dict->n_entries; i++)
	{
		const LlmJinjaString *key;

		if (i > 0)
		{
			llm_strbuf_append_char(pretty->out, ',');
			break_line(pretty, indent);
		}
		if (!make_repr(pretty, dict->entries[i].key, &key))
			return false;
		llm_strbuf_append(pretty->out, key->data, key->len);
		llm_strbuf_append_str(pretty->out, ": ");
		if (!format_value(pretty, dict->entries[i].value,
						  indent + (int64_t) key->n_chars + 2,
						  i + 1 == dict->n_entries ? allowance + 1 : 1))
			return false;
	}
	llm_strbuf_append_char(pretty->out, '}');
	return true;
}

static bool
format_list(Pretty *pretty, LlmJinjaValue value, int64_t indent,
			int64_t allowance)
{
	bool is_tuple = value.kind == LLM_JINJA_TUPLE;
	size_t n = value.list->n_items;
	const char *end = !is_tuple ? "]" : n == 1 ? ",)" : ")";

	llm_strbuf_append_char(pretty->out, is_tuple ? '(' : '[');
	indent++;
	for (size_t i = 0; i < n; i++)
	{
		if (i > 0)
		{
			llm_strbuf_append_char(pretty->out, ',');
			break_line(pretty, indent);
		}
		if (!format_value(pretty, value.list->items[i], indent,
						  i + 1 == n ? allowance + (int64_t) strlen(end) : 1))
			return false;
	}
	llm_strbuf_append_str(pretty->out, end);
	return true;
}

/* ---- texts ---- */

/* Pieces of a text that is being broken, as repr() prints them. */
typedef struct Pieces
{
	Pretty *pretty;
	LlmJinjaList *reprs;
	int64_t width;
	int64_t last_width; /* of the last piece, with what is behind it */
} Pieces;

static bool
add_piece(Pieces *pieces, const char *data, size_t len)
{
	LlmJinjaValue text;
	const LlmJinjaString *repr;

	return llm_jinja_borrow_string(pieces->pretty->run, data, len, &text) &&
		   make_repr(pieces->pretty, text, &repr) &&
		   llm_jinja_push(pieces->pretty->run, pieces->reprs,
						  llm_jinja_text(repr));
}

static bool
fits(Pieces *pieces, const char *data, size_t len, int64_t width, bool *result)
{
	LlmJinjaValue text;
	const LlmJinjaString *repr;

	if (!llm_jinja_borrow_string(pieces->pretty->run, data, len, &text) ||
		!make_repr(pieces->pretty, text, &repr))
		return false;
	*result = (int64_t) repr->n_chars <= width;
	return true;
}

/* Bytes of the word at the start and of the spaces behind it. */
static size_t
word_bytes(const char *data, size_t len)
{
	bool in_spaces = false;
	size_t at = 0;
	int n;

	for (; at < len; at += (size_t) n)
	{
		bool is_space =
			llm_jinja_is_space(llm_jinja_char_at(data, len, at, &n));

		if (in_spaces && !is_space)
			break;
		in_spaces = is_space;
	}
	return at;
}

/* A line that is too long: as many words as fit into each piece. */
static bool
add_words(Pieces *pieces, const LlmJinjaString *line, bool is_last)
{
	size_t start = 0;
	size_t end = 0;

	while (end < line->len)
	{
		size_t next = end + word_bytes(line->data + end, line->len - end);
		int64_t width =
			is_last && next == line->len ? pieces->last_width : pieces->width;
		bool fit;

		if (!fits(pieces, line->data + start, next - start, width, &fit))
			return false;
		if (!fit)
		{
			if (end > start &&
				!add_piece(pieces, line->data + start, end - start))
				return false;
			start = end;
		}
		end = next;
	}
	return end == start || add_piece(pieces, line->data + start, end - start);
}

static bool
collect_pieces(Pieces *pieces, const LlmJinjaString *text)
{
	LlmJinjaList *lines;

	if (!llm_jinja_split_lines(pieces->pretty->run, text, true, &lines))
		return false;
	for (size_t i = 0; i < lines->n_items; i++)
	{
		const LlmJinjaString *line = lines->items[i].string;
		bool is_last = i + 1 == lines->n_items;
		bool fit;

		if (!fits(pieces, line->data, line->len,
				  is_last ? pieces->last_width : pieces->width, &fit))
			return false;
		if (fit ? !add_piece(pieces, line->data, line->len)
				: !add_words(pieces, line, is_last))
			return false;
	}
	return true;
}

static bool
format_text(Pretty *pretty, const LlmJinjaString *text, int64_t indent,
			int64_t allowance)
{
	bool is_outermost = pretty->level == 1;
	Pieces pieces = { .pretty = pretty };

	indent += is_outermost;
	allowance += is_outermost;
	pieces.width = COLUMNS - indent;
	pieces.last_width = pieces.width - allowance;
	pieces.reprs = llm_jinja_create_list(pretty->run, 4);
	if (pieces.reprs == NULL || !collect_pieces(&pieces, text))
		return false;
	is_outermost = is_outermost && pieces.reprs->n_items > 1;
	if (is_outermost)
		llm_strbuf_append_char(pretty->out, '(');
	for (size_t i = 0; i < pieces.reprs->n_items; i++)
	{
		const LlmJinjaString *repr = pieces.reprs->items[i].string;

		if (i > 0)
			break_line(pretty, indent);
		llm_strbuf_append(pretty->out, repr->data, repr->len);
	}
	if (is_outermost)
		llm_strbuf_append_char(pretty->out, ')');
	return true;
}

/* ---- any value ---- */

static bool
format_value(Pretty *pretty, LlmJinjaValue value, int64_t indent,
			 int64_t allowance)
{
	const LlmJinjaString *repr;
	bool ok = true;

	if (!make_repr(pretty, value, &repr))
		return false;
	pretty->level++;
	if ((int64_t) repr->n_chars <= COLUMNS - indent - allowance)
		llm_strbuf_append(pretty->out, repr->data, repr->len);
	else if (value.kind == LLM_JINJA_DICT)
		ok = format_dict(pretty, value.dict, indent, allowance);
	else if (value.kind == LLM_JINJA_LIST || value.kind == LLM_JINJA_TUPLE)
		ok = format_list(pretty, value, indent, allowance);
	else if (value.kind == LLM_JINJA_STRING && !value.string->is_markup &&
			 value.string->len > 0)
		ok = format_text(pretty, value.string, indent, allowance);
	else
		llm_strbuf_append(pretty->out, repr->data, repr->len);
	pretty->level--;
	return ok;
}

bool
llm_jinja_filter_pprint(LlmJinjaRun *run, const LlmJinjaCall *call,
						LlmJinjaValue *out)
{
	LlmJinjaValue sorted;
	LlmStrbuf buf;
	Pretty pretty = { .run = run, .out = &buf };
	bool ok;

	if (!sort_keys(run, call->self, 0, &sorted))
		return false;
	llm_jinja_init_buffer(&buf);
	ok = format_value(&pretty, sorted, 0, 0);
	return llm_jinja_finish_string(run, &buf, ok, out);
}
