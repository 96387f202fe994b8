/*
 * json_slice.c
 *	  Walking through a JSON text without taking it apart.
 *
 * src/common/util/json_slice.c
 */
#include "src/common/util/json_slice.h"

#include <string.h>

#include "src/common/util/utf8.h"

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t
skip_space(LlmJsonSlice json, size_t off)
{
	while (off < json.len && is_space(json.data[off]))
		off++;
	return off;
}

/* From the opening quote to behind the closing one. */
static size_t
skip_string(LlmJsonSlice json, size_t off)
{
	for (off++; off < json.len && json.data[off] != '"'; off++)
	{
		if (json.data[off] == '\\')
			off++;
	}
	return off + 1 < json.len ? off + 1 : json.len;
}

/* From a value's first byte to behind its last; always moves on. */
static size_t
skip_value(LlmJsonSlice json, size_t off)
{
	size_t depth = 0;

	do
	{
		const char c = json.data[off];

		if (c == '"')
			off = skip_string(json, off);
		else if (c == '[' || c == '{')
		{
			depth++;
			off++;
		}
		else if (depth > 0)
		{
			depth -= c == ']' || c == '}';
			off++;
		}
		else
		{
			do
				off++;
			while (off < json.len && !is_space(json.data[off]) &&
				   json.data[off] != ',' && json.data[off] != ']' &&
				   json.data[off] != '}');
		}
	} while (depth > 0 && off < json.len);
	return off;
}

char
llm_json_slice_kind(LlmJsonSlice value)
{
	const size_t off = value.data == NULL ? 0 : skip_space(value, 0);

	return value.data != NULL && off < value.len ? value.data[off] : '\0';
}

/* To the first byte of what follows an opening bracket or a comma. */
static bool
find_next(LlmJsonSlice list, size_t *off)
{
	*off = skip_space(list, *off);
	if (*off >= list.len || strchr("[{,", list.data[*off]) == NULL)
		return false;
	*off = skip_space(list, *off + 1);
	return *off < list.len && list.data[*off] != ']' && list.data[*off] != '}';
}

bool
llm_json_slice_next_item(LlmJsonSlice array, size_t *off, LlmJsonSlice *item)
{
	size_t end;

	if (!find_next(array, off))
		return false;
	end = skip_value(array, *off);
	*item = (LlmJsonSlice){ array.data + *off, end - *off };
	*off = end;
	return true;
}

bool
llm_json_slice_next_member(LlmJsonSlice object, size_t *off, LlmJsonSlice *key,
						   LlmJsonSlice *value)
{
	size_t end;

	if (!find_next(object, off) || object.data[*off] != '"')
		return false;
	end = skip_string(object, *off);
	*key = (LlmJsonSlice){ object.data + *off, end - *off };
	end = skip_space(object, end);
	if (end >= object.len || object.data[end] != ':')
		return false;
	*off = skip_space(object, end + 1);
	if (*off >= object.len)
		return false;
	end = skip_value(object, *off);
	*value = (LlmJsonSlice){ object.data + *off, end - *off };
	*off = end;
	return true;
}

LlmJsonSlice
llm_json_slice_member(LlmJsonSlice object, const char *key)
{
	LlmJsonSlice result = { 0 };
	LlmJsonSlice name;
	LlmJsonSlice value;
	size_t off = 0;

	if (llm_json_slice_kind(object) != '{')
		return result;
	while (llm_json_slice_next_member(object, &off, &name, &value))
	{
		if (llm_json_slice_is(name, key))
			result = value;
	}
	if (llm_json_slice_kind(result) == 'n')
		result.data = NULL;
	return result;
}

/* Four hex digits, or -1. */
static int32_t
read_hex(const char *text, size_t len)
{
	int32_t value = 0;

	if (len < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		const char *digits = "0123456789abcdef";
		const char c = text[i] >= 'A' && text[i] <= 'F'
						   ? (char) (text[i] - 'A' + 'a')
						   : text[i];
		const char *digit = c == '\0' ? NULL : strchr(digits, c);

		if (digit == NULL)
			return -1;
		value = value * 16 + (int32_t) (digit - digits);
	}
	return value;
}

/* What stands behind "\u"; *n_bytes of it were read. */
static bool
read_unicode_escape(const char *text, size_t len, uint32_t *cp, size_t *n_bytes)
{
	const int32_t first = read_hex(text, len);
	int32_t second;

	*cp = (uint32_t) first;
	*n_bytes = 4;
	if (first < 0xD800 || first > 0xDFFF)
		return first >= 0;
	if (first > 0xDBFF || len < 10 || text[4] != '\\' || text[5] != 'u')
		return false;
	second = read_hex(text + 6, len - 6);
	if (second < 0xDC00 || second > 0xDFFF)
		return false;
	*cp = 0x10000 + (((uint32_t) first - 0xD800) << 10) +
		  ((uint32_t) second - 0xDC00);
	*n_bytes = 10;
	return true;
}

/* Append what an escape stands for; *off is behind its backslash. */
static bool
append_escape(const char *text, size_t len, size_t *off, LlmStrbuf *out)
{
	static const char names[] = "\"\\/bfnrt";
	static const char values[] = "\"\\/\b\f\n\r\t";
	const char *name = text[*off] == '\0' ? NULL : strchr(names, text[*off]);
	uint32_t cp;
	size_t n_bytes;
	char utf8[4];

	if (name != NULL)
	{
		llm_strbuf_append_char(out, values[name - names]);
		*off += 1;
		return true;
	}
	if (text[*off] != 'u' ||
		!read_unicode_escape(text + *off + 1, len - *off - 1, &cp, &n_bytes))
		return false;
	llm_strbuf_append(out, utf8, (size_t) llm_utf8_encode(cp, utf8));
	*off += 1 + n_bytes;
	return true;
}

bool
llm_json_slice_append_text(LlmJsonSlice string, LlmStrbuf *out)
{
	const char *text = string.data + 1;
	size_t len;
	size_t off = 0;

	if (string.data == NULL || string.len < 2 || string.data[0] != '"' ||
		string.data[string.len - 1] != '"')
		return false;
	len = string.len - 2;
	while (off < len)
	{
		const char *escape = memchr(text + off, '\\', len - off);
		const size_t plain =
			escape == NULL ? len - off : (size_t) (escape - text) - off;

		llm_strbuf_append(out, text + off, plain);
		off += plain;
		if (escape == NULL)
			break;
		if (++off >= len || !append_escape(text, len, &off, out))
			return false;
	}
	return true;
}

bool
llm_json_slice_is(LlmJsonSlice string, const char *text)
{
	const size_t len = strlen(text);
	LlmStrbuf decoded;
	bool same;

	if (string.data == NULL || string.len < 2)
		return false;
	if (memchr(string.data, '\\', string.len) == NULL)
		return string.data[0] == '"' && string.len == len + 2 &&
			   memcmp(string.data + 1, text, len) == 0;
	llm_strbuf_init(&decoded);
	same = llm_json_slice_append_text(string, &decoded) && decoded.len == len &&
		   !decoded.failed && memcmp(llm_strbuf_str(&decoded), text, len) == 0;
	llm_strbuf_free(&decoded);
	return same;
}

void
llm_json_append_string(LlmStrbuf *out, const char *text, size_t len)
{
	size_t begin = 0;

	llm_strbuf_append_char(out, '"');
	for (size_t i = 0; i < len; i++)
	{
		const unsigned char c = (unsigned char) text[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		llm_strbuf_append(out, text + begin, i - begin);
		if (c == '"' || c == '\\')
			llm_strbuf_printf(out, "\\%c", c);
		else
			llm_strbuf_printf(out, "\\u%04x", c);
		begin = i + 1;
	}
	llm_strbuf_append(out, text + begin, len - begin);
	llm_strbuf_append_char(out, '"');
}

/* -- plain text -- */

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Nonzero where one of a word's bytes is zero. */
static inline uint64_t
has_zero(uint64_t word)
{
	return (word - EACH(0x01)) & ~word & EACH(0x80);
}

static inline bool
is_plain(char c)
{
	return (unsigned char) c >= 0x20 && c != '"' && c != '\\';
}

size_t
llm_json_plain_bytes(const char *text, size_t len)
{
	size_t n = 0;
	uint64_t word;

	for (; len - n >= sizeof(word); n += sizeof(word))
	{
		memcpy(&word, text + n, sizeof(word));
		/* the last: a byte below 0x20 */
		if ((has_zero(word ^ EACH('"')) | has_zero(word ^ EACH('\\')) |
			 ((word - EACH(0x20)) & ~word & EACH(0x80))) != 0)
			break;
	}
	while (n < len && is_plain(text[n]))
		n++;
	return n;
}
