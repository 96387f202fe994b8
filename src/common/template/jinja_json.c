/*
 * jinja_json.c
 *	  Read JSON into template values, losing nothing that a template prints.
 *
 * The order of keys, 1 against 1.0 and integers of any length are kept; of
 * equal keys the last value counts, in the first one's place.  The grammar
 * is RFC 8259's: no NaN, no comments.  A text that is no text in UTF-8 (half
 * a surrogate pair, alone) is refused, where Python would fail later.
 * Strings without escapes are borrowed from the text.
 *
 * src/common/template/jinja_json.c
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_value.h"
#include "src/common/util/json_slice.h"
#include "src/common/util/utf8.h"

typedef struct Reader
{
	LlmJinjaRun *run;
	const char *text;
	size_t len;
	size_t at;
	const char *what;
} Reader;

static bool read_value(Reader *reader, int depth, LlmJinjaValue *out);

static bool
fail_json(Reader *reader, const char *problem)
{
	return llm_error_set(reader->run->err, LLM_ERROR_INVALID,
						 "%s: invalid JSON at byte %zu: %s", reader->what,
						 reader->at + 1, problem);
}

/* The next byte, or NUL at the end. */
static char
peek(const Reader *reader)
{
	return reader->at < reader->len ? reader->text[reader->at] : '\0';
}

static void
skip_space(Reader *reader)
{
	while (reader->at < reader->len &&
		   (peek(reader) == ' ' || peek(reader) == '\n' ||
			peek(reader) == '\r' || peek(reader) == '\t'))
		reader->at++;
}

/* ---- strings ---- */

static bool
read_hex4(Reader *reader, uint32_t *value)
{
	*value = 0;
	for (int i = 0; i < 4; i++)
	{
		char c = peek(reader);
		uint32_t digit;

		if (c >= '0' && c <= '9')
			digit = (uint32_t) (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (uint32_t) ((c | 0x20) - 'a' + 10);
		else
			return fail_json(reader, "\\u needs four hexadecimal digits");
		*value = *value * 16 + digit;
		reader->at++;
	}
	return true;
}

/* Behind "\u": one unit, or two that make up one character. */
static bool
read_unicode_escape(Reader *reader, LlmStrbuf *buf)
{
	uint32_t high;
	uint32_t low = 0;
	char bytes[4];

	if (!read_hex4(reader, &high))
		return false;
	if (high >= 0xD800 && high <= 0xDBFF && peek(reader) == '\\' &&
		reader->at + 1 < reader->len && reader->text[reader->at + 1] == 'u')
	{
		reader->at += 2;
		if (!read_hex4(reader, &low))
			return false;
		if (low >= 0xDC00 && low <= 0xDFFF)
			high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
	}
	if (high >= 0xD800 && high <= 0xDFFF)
		return fail_json(reader, "unpaired surrogate in a string");
	llm_strbuf_append(buf, bytes, (size_t) llm_utf8_encode(high, bytes));
	return true;
}

static bool
read_escape(Reader *reader, LlmStrbuf *buf)
{
	static const char marks[] = "\"\\/bfnrt";
	static const char meant[] = "\"\\/\b\f\n\r\t";
	char c = peek(reader);
	const char *found = c == '\0' ? NULL : strchr(marks, c);

	if (found != NULL)
	{
		reader->at++;
		llm_strbuf_append_char(buf, meant[found - marks]);
		return true;
	}
	if (c != 'u')
		return fail_json(reader, "unknown escape in a string");
	reader->at++;
	return read_unicode_escape(reader, buf);
}

/* At a quote.  The end of the plain bytes that start here. */
static size_t
plain_end(const Reader *reader)
{
	return reader->at + llm_json_plain_bytes(reader->text + reader->at,
											 reader->len - reader->at);
}

static bool
read_string_bytes(Reader *reader, LlmStrbuf *buf)
{
	for (;;)
	{
		size_t end = plain_end(reader);

		llm_strbuf_append(buf, reader->text + reader->at, end - reader->at);
		reader->at = end;
		if (reader->at == reader->len)
			return fail_json(reader, "a string does not end");
		if (peek(reader) == '"')
			return true;
		if (peek(reader) != '\\')
			return fail_json(reader, "control character in a string");
		reader->at++;
		if (!read_escape(reader, buf))
			return false;
	}
}

static bool
read_string(Reader *reader, LlmJinjaValue *out)
{
	LlmStrbuf buf;
	size_t end;
	bool ok;

	reader->at++;
	end = plain_end(reader);
	if (end < reader->len && reader->text[end] == '"')
	{
		ok = llm_jinja_borrow_string(reader->run, reader->text + reader->at,
									 end - reader->at, out);
		reader->at = end + 1;
		return ok;
	}
	llm_jinja_init_buffer(&buf);
	ok = read_string_bytes(reader, &buf);
	reader->at++;
	return llm_jinja_finish_string(reader->run, &buf, ok, out);
}

/* ---- numbers ---- */

static size_t
skip_digits(Reader *reader)
{
	size_t start = reader->at;

	while (peek(reader) >= '0' && peek(reader) <= '9')
		reader->at++;
	return reader->at - start;
}

static bool
make_number(Reader *reader, size_t start, bool is_float, LlmJinjaValue *out)
{
	size_t len = reader->at - start;
	LlmJinjaValue text;
	char *digits = llm_jinja_alloc(reader->run, len + 1);

	if (digits == NULL)
		return false;
	memcpy(digits, reader->text + start, len);
	digits[len] = '\0';
	if (is_float)
	{
		*out = llm_jinja_float(strtod(digits, NULL));
		return true;
	}
	errno = 0;
	*out = llm_jinja_int(strtoll(digits, NULL, 10));
	if (errno == 0)
		return true;
	if (len > LLM_JINJA_MAX_DIGITS)
		return fail_json(reader, "an integer has too many digits");
	if (!llm_jinja_borrow_string(reader->run, digits, len, &text))
		return false;
	*out = text;
	out->kind = LLM_JINJA_BIGINT;
	return true;
}

static bool
read_number(Reader *reader, LlmJinjaValue *out)
{
	size_t start = reader->at;
	bool is_float = false;

	if (peek(reader) == '-')
		reader->at++;
	if (peek(reader) == '0')
		reader->at++;
	else if (skip_digits(reader) == 0)
		return fail_json(reader, "a value is expected");
	if (peek(reader) == '.')
	{
		reader->at++;
		is_float = true;
		if (skip_digits(reader) == 0)
			return fail_json(reader, "digits are expected");
	}
	if (peek(reader) == 'e' || peek(reader) == 'E')
	{
		reader->at++;
		is_float = true;
		if (peek(reader) == '+' || peek(reader) == '-')
			reader->at++;
		if (skip_digits(reader) == 0)
			return fail_json(reader, "digits are expected");
	}
	return make_number(reader, start, is_float, out);
}

/* ---- containers ---- */

/* Behind an item: on a comma go on, on the closing bracket end. */
static bool
read_separator(Reader *reader, char close, bool *more)
{
	skip_space(reader);
	*more = peek(reader) == ',';
	if (!*more && peek(reader) != close)
		return fail_json(reader, close == ']' ? "\",\" or \"]\" is expected"
											  : "\",\" or \"}\" is expected");
	reader->at++;
	skip_space(reader);
	return true;
}

static bool
read_array(Reader *reader, int depth, LlmJinjaValue *out)
{
	LlmJinjaList *list = llm_jinja_create_list(reader->run, 4);
	LlmJinjaValue item;
	bool more = true;

	if (list == NULL)
		return false;
	*out = llm_jinja_list(list);
	reader->at++;
	skip_space(reader);
	if (peek(reader) == ']')
	{
		reader->at++;
		return true;
	}
	while (more)
		if (!read_value(reader, depth + 1, &item) ||
			!llm_jinja_push(reader->run, list, item) ||
			!read_separator(reader, ']', &more))
			return false;
	return true;
}

static bool
read_entry(Reader *reader, int depth, LlmJinjaDict *dict)
{
	LlmJinjaValue key;
	LlmJinjaValue value;

	if (peek(reader) != '"')
		return fail_json(reader, "a key in double quotes is expected");
	if (!read_string(reader, &key))
		return false;
	skip_space(reader);
	if (peek(reader) != ':')
		return fail_json(reader, "\":\" is expected");
	reader->at++;
	skip_space(reader);
	return read_value(reader, depth + 1, &value) &&
		   llm_jinja_dict_set(reader->run, dict, key, value);
}

static bool
read_object(Reader *reader, int depth, LlmJinjaValue *out)
{
	LlmJinjaDict *dict = llm_jinja_create_dict(reader->run);
	bool more = true;

	if (dict == NULL)
		return false;
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_DICT, .dict = dict };
	reader->at++;
	skip_space(reader);
	if (peek(reader) == '}')
	{
		reader->at++;
		return true;
	}
	while (more)
		if (!read_entry(reader, depth, dict) ||
			!read_separator(reader, '}', &more))
			return false;
	return true;
}

static bool
read_word(Reader *reader, const char *word, LlmJinjaValue value,
		  LlmJinjaValue *out)
{
	size_t len = strlen(word);

	if (len > reader->len - reader->at ||
		memcmp(reader->text + reader->at, word, len) != 0)
		return fail_json(reader, "a value is expected");
	reader->at += len;
	*out = value;
	return true;
}

static bool
read_value(Reader *reader, int depth, LlmJinjaValue *out)
{
	if (depth > LLM_JINJA_MAX_VALUE_DEPTH)
		return llm_error_set(reader->run->err, LLM_ERROR_LIMIT,
							 "%s: JSON is nested more than %d deep",
							 reader->what, LLM_JINJA_MAX_VALUE_DEPTH);
	if (!llm_jinja_charge(reader->run, 1))
		return false;
	switch (peek(reader))
	{
		case '{':
			return read_object(reader, depth, out);
		case '[':
			return read_array(reader, depth, out);
		case '"':
			return read_string(reader, out);
		case 't':
			return read_word(reader, "true", llm_jinja_bool(true), out);
		case 'f':
			return read_word(reader, "false", llm_jinja_bool(false), out);
		case 'n':
			return read_word(reader, "null", llm_jinja_none(), out);
		default:
			return read_number(reader, out);
	}
}

bool
llm_jinja_read_json(LlmJinjaRun *run, const char *text, size_t len,
					const char *what, LlmJinjaValue *out)
{
	Reader reader = { .run = run, .text = text, .len = len, .what = what };

	if (!llm_utf8_is_valid(text, len))
		return llm_error_set(run->err, LLM_ERROR_INVALID,
							 "%s: the text is not valid UTF-8", what);
	skip_space(&reader);
	if (!read_value(&reader, 0, out))
		return false;
	skip_space(&reader);
	return reader.at == len || fail_json(&reader, "nothing more is expected");
}
