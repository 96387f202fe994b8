/*
 * jinja_literal.c
 *	  The literals of a template: escapes in strings, the extent of numbers.
 *
 * src/common/template/jinja_literal.c
 */
#include <string.h>

#include "src/common/template/jinja_lexer.h"
#include "src/common/template/jinja_text.h"
#include "src/common/util/utf8.h"

/* \x, \u, \U: the digits; false where too few follow. */
static bool
decode_hex(const char *text, size_t len, size_t n_digits, uint32_t *value)
{
	*value = 0;
	if (len < n_digits)
		return false;
	for (size_t i = 0; i < n_digits; i++)
	{
		char c = text[i];
		uint32_t digit;

		if (c >= '0' && c <= '9')
			digit = (uint32_t) (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (uint32_t) ((c | 0x20) - 'a' + 10);
		else
			return false;
		*value = *value * 16 + digit;
	}
	return true;
}

static void
append_codepoint(LlmStrbuf *buf, uint32_t codepoint)
{
	char bytes[4];

	llm_strbuf_append(buf, bytes, (size_t) llm_utf8_encode(codepoint, bytes));
}

static size_t
decode_octal(const char *text, size_t len, LlmStrbuf *buf)
{
	uint32_t value = 0;
	size_t n = 0;

	while (n < len && n < 3 && text[n] >= '0' && text[n] <= '7')
		value = value * 8 + (uint32_t) (text[n++] - '0');
	append_codepoint(buf, value);
	return n;
}

/* A backslash before a character that ASCII lacks: Python decodes it twice. */
static size_t
decode_foreign(const char *text, size_t len, LlmStrbuf *buf)
{
	int n;
	uint32_t c = llm_jinja_char_at(text, len, 0, &n);

	llm_strbuf_printf(buf,
					  c < 0x100		? "\\x%02x"
					  : c < 0x10000 ? "\\u%04x"
									: "\\U%08x",
					  c);
	return (size_t) n;
}

/*
 * What stands behind a backslash; returns its bytes, or 0 with *problem set.
 */
static size_t
decode_escape(const char *text, size_t len, LlmStrbuf *buf,
			  const char **problem)
{
	static const char plain[] = "\\'\"abfnrtv";
	static const char meant[] = "\\'\"\a\b\f\n\r\t\v";
	char c = text[0];
	const char *found = c == '\0' ? NULL : strchr(plain, c);
	size_t n_digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
	uint32_t value;

	if (c == '\n')
		return 1;
	if (found != NULL)
	{
		llm_strbuf_append_char(buf, meant[found - plain]);
		return 1;
	}
	if (c >= '0' && c <= '7')
		return decode_octal(text, len, buf);
	if ((unsigned char) c >= 0x80)
		return decode_foreign(text, len, buf);
	if (c == 'N')
		*problem = "character names in strings are not supported";
	else if (c != 'x' && c != 'u' && c != 'U')
	{
		llm_strbuf_append_char(buf, '\\');
		llm_strbuf_append_char(buf, c);
		return 1;
	}
	else if (!decode_hex(text + 1, len - 1, n_digits, &value))
		*problem = c == 'x'	  ? "truncated \\xXX escape"
				   : c == 'u' ? "truncated \\uXXXX escape"
							  : "truncated \\UXXXXXXXX escape";
	else if (value > 0x10FFFF)
		*problem = "illegal Unicode character";
	else if (value >= 0xD800 && value <= 0xDFFF)
		*problem = "unpaired surrogates in strings are not supported";
	else
	{
		append_codepoint(buf, value);
		return n_digits + 1;
	}
	return 0;
}

void
llm_jinja_decode_string(const char *text, size_t len, LlmStrbuf *buf,
						const char **problem)
{
	*problem = NULL;
	for (size_t i = 0; i < len && *problem == NULL;)
	{
		if (text[i] != '\\')
			llm_strbuf_append_char(buf, text[i++]);
		else
			i += 1 + decode_escape(text + i + 1, len - i - 1, buf, problem);
	}
}

static bool
is_digit_of(char c, int base)
{
	if (base == 16 && (c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		return true;
	return c >= '0' && c <= '9' && c - '0' < base;
}

/* The end of digits with single underscores within: \d(_?\d)*. */
static size_t
skip_digits(const LlmJinjaString *source, size_t at, int base)
{
	const char *s = source->data;

	if (at >= source->len || !is_digit_of(s[at], base))
		return at;
	while (at < source->len)
	{
		if (is_digit_of(s[at], base))
			at++;
		else if (s[at] == '_' && at + 1 < source->len &&
				 is_digit_of(s[at + 1], base))
			at += 2;
		else
			break;
	}
	return at;
}

size_t
llm_jinja_match_float(const LlmJinjaString *source, size_t start)
{
	const char *s = source->data;
	size_t at = skip_digits(source, start, 10);
	bool has_fraction = false;
	size_t end;

	if (at == start || (start > 0 && s[start - 1] == '.'))
		return start;
	if (at < source->len && s[at] == '.')
	{
		end = skip_digits(source, at + 1, 10);
		has_fraction = end > at + 1;
		at = has_fraction ? end : at;
	}
	if (at < source->len && (s[at] | 0x20) == 'e')
	{
		size_t digits = at + 1;

		if (digits < source->len && (s[digits] == '+' || s[digits] == '-'))
			digits++;
		end = skip_digits(source, digits, 10);
		if (end > digits)
			return end;
	}
	return has_fraction ? at : start;
}

size_t
llm_jinja_match_integer(const LlmJinjaString *source, size_t start, int *base)
{
	const char *s = source->data;
	char mark = start + 1 < source->len ? (char) (s[start + 1] | 0x20) : '\0';
	size_t digits = start + 2;
	size_t end;

	*base = 10;
	if (s[start] != '0')
		return skip_digits(source, start, 10);
	if (mark == 'b' || mark == 'o' || mark == 'x')
	{
		*base = mark == 'b' ? 2 : mark == 'o' ? 8 : 16;
		if (digits < source->len && s[digits] == '_')
			digits++;
		end = skip_digits(source, digits, *base);
		if (end > digits)
			return end;
		*base = 10;
	}
	return skip_digits(source, start, 1);
}
