/*
 * jinja_format.c
 *	  Format numbers and texts by a spec, as Python does.
 *
 * jinja_percent.c and jinja_braces.c read specs, each from its own notation.
 *
 * src/common/template/jinja_format.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_format.h"
#include "src/common/template/jinja_text.h"
#include "src/common/util/utf8.h"

const LlmJinjaSpec llm_jinja_plain_spec = { .fill = " ",
											.fill_len = 1,
											.precision = -1 };

/* ---- numbers and texts, formatted ---- */

static void
append_filled(LlmStrbuf *buf, const LlmJinjaSpec *spec, const char *text,
			  size_t len)
{
	int64_t n_chars = 0;
	int64_t missing;
	int64_t left;

	for (size_t i = 0; i < len; i++)
		n_chars += ((unsigned char) text[i] & 0xC0) != 0x80;
	missing = spec->width > n_chars ? spec->width - n_chars : 0;
	left = spec->align == '>' ? missing : spec->align == '^' ? missing / 2 : 0;
	for (int64_t i = 0; i < left; i++)
		llm_strbuf_append(buf, spec->fill, (size_t) spec->fill_len);
	llm_strbuf_append(buf, text, len);
	for (int64_t i = left; i < missing; i++)
		llm_strbuf_append(buf, spec->fill, (size_t) spec->fill_len);
}

/* "1234567" as "1,234,567"; what follows the digits stays. */
static void
append_grouped(LlmStrbuf *buf, const LlmJinjaSpec *spec, const char *digits)
{
	size_t n_digits = strspn(digits, "0123456789abcdefABCDEF");
	size_t size =
		spec->type == 'b' || spec->type == 'o' || (spec->type | 0x20) == 'x'
			? 4
			: 3;

	if (strchr("eEgGfF%", spec->type) != NULL || spec->type == '\0')
		n_digits = strspn(digits, "0123456789");
	for (size_t i = 0; i < n_digits; i++)
	{
		if (i > 0 && (n_digits - i) % size == 0)
			llm_strbuf_append_char(buf, spec->group);
		llm_strbuf_append_char(buf, digits[i]);
	}
	llm_strbuf_append_str(buf, digits + n_digits);
}

/* A number's digits without sign, set in its field. */
static void
append_number(LlmStrbuf *buf, const LlmJinjaSpec *spec, bool negative,
			  const char *prefix, const char *digits)
{
	LlmJinjaSpec field = *spec;
	LlmStrbuf text;
	size_t head;

	llm_jinja_init_buffer(&text);
	if (negative || spec->sign != '\0')
		llm_strbuf_append_char(&text, negative ? '-' : spec->sign);
	llm_strbuf_append_str(&text, prefix);
	head = text.len;
	if (spec->grouped)
		append_grouped(&text, spec, digits);
	else
		llm_strbuf_append_str(&text, digits);
	if (spec->align == '=')
	{
		/* the fill goes between the sign and the digits */
		llm_strbuf_append(buf, llm_strbuf_str(&text), head);
		field.align = '>';
		field.width -= (int64_t) head;
		append_filled(buf, &field, llm_strbuf_str(&text) + head,
					  text.len - head);
	}
	else
	{
		if (field.align == '\0')
			field.align = '>';
		append_filled(buf, &field, llm_strbuf_str(&text), text.len);
	}
	llm_strbuf_free(&text);
}

/* Digits of a magnitude in base 2, 8 or 16. */
static void
print_radix(uint64_t magnitude, unsigned bits, bool upper, char *digits)
{
	const char *symbols = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	char reversed[65];
	int n = 0;

	do
	{
		reversed[n++] = symbols[magnitude & ((1u << bits) - 1)];
		magnitude >>= bits;
	} while (magnitude != 0);
	while (n > 0)
		*digits++ = reversed[--n];
	*digits = '\0';
}

static bool
format_bigint(LlmJinjaRun *run, const LlmJinjaString *digits,
			  const LlmJinjaSpec *spec, LlmStrbuf *buf)
{
	bool negative = digits->data[0] == '-';
	LlmStrbuf text;

	if (spec->type != 'd' && spec->type != '\0')
		return llm_jinja_fail(run, "integer arithmetic beyond 64 bits is not "
								   "supported");
	llm_jinja_init_buffer(&text);
	llm_strbuf_append(&text, digits->data + negative, digits->len - negative);
	append_number(buf, spec, negative, "", llm_strbuf_str(&text));
	llm_strbuf_free(&text);
	return true;
}

bool
llm_jinja_format_int(LlmJinjaRun *run, LlmJinjaValue value,
					 const LlmJinjaSpec *spec, LlmStrbuf *buf)
{
	char type = spec->type;
	unsigned bits = type == 'b' ? 1 : type == 'o' ? 3 : 4;
	char digits[72];
	char prefix[3] = { '0', type, '\0' };
	int64_t integer = 0;
	uint64_t magnitude;

	if (value.kind == LLM_JINJA_BIGINT)
		return format_bigint(run, value.string, spec, buf);
	llm_jinja_as_int(value, &integer);
	magnitude = integer < 0 ? 0 - (uint64_t) integer : (uint64_t) integer;
	if (type == 'b' || type == 'o' || type == 'x' || type == 'X')
		print_radix(magnitude, bits, type == 'X', digits);
	else
	{
		snprintf(digits, sizeof(digits), "%llu",
				 (unsigned long long) magnitude);
		prefix[0] = '\0';
	}
	append_number(buf, spec, integer < 0, spec->alternate ? prefix : "",
				  digits);
	return true;
}

/* Of "g" without its type, Python wants a digit behind the point. */
static void
print_general(double magnitude, int64_t precision, LlmStrbuf *digits)
{
	char *dest = llm_strbuf_reserve(digits, LLM_JINJA_MAX_PRECISION + 400);

	if (dest == NULL)
		return;
	digits->len +=
		(size_t) snprintf(dest, LLM_JINJA_MAX_PRECISION + 400, "%.*g",
						  precision == 0 ? 1 : (int) precision, magnitude);
	if (strpbrk(dest, ".en") == NULL)
		llm_strbuf_append_str(digits, ".0");
}

static void
print_typed(double magnitude, const LlmJinjaSpec *spec, char type,
			LlmStrbuf *digits)
{
	char pattern[8];
	char *dest = llm_strbuf_reserve(digits, LLM_JINJA_MAX_PRECISION + 400);
	int precision = spec->precision < 0 ? 6 : (int) spec->precision;

	if (dest == NULL)
		return;
	snprintf(pattern, sizeof(pattern), "%%%s.*%c", spec->alternate ? "#" : "",
			 type);
	digits->len += (size_t) snprintf(dest, LLM_JINJA_MAX_PRECISION + 400,
									 pattern, precision, magnitude);
}

void
llm_jinja_format_float(double real, const LlmJinjaSpec *spec, LlmStrbuf *buf)
{
	double magnitude = fabs(real);
	bool negative = signbit(real) && !isnan(real);
	char type = spec->type == 'n' ? 'g' : spec->type;
	LlmStrbuf digits;

	llm_jinja_init_buffer(&digits);
	if (type == '%')
		print_typed(magnitude * 100.0, spec, 'f', &digits);
	else if (type != '\0')
		print_typed(magnitude, spec, type, &digits);
	else if (spec->precision < 0)
		llm_jinja_print_float(magnitude, &digits);
	else
		print_general(magnitude, spec->precision, &digits);
	if (type == '%')
		llm_strbuf_append_char(&digits, '%');
	append_number(buf, spec, negative, "", llm_strbuf_str(&digits));
	llm_strbuf_free(&digits);
}

void
llm_jinja_format_text(const LlmJinjaString *text, const LlmJinjaSpec *spec,
					  char align, LlmStrbuf *buf)
{
	LlmJinjaSpec field = *spec;
	size_t len = text->len;

	if (spec->precision >= 0)
		len = llm_jinja_char_offset(text, (size_t) spec->precision);
	if (field.align == '\0')
		field.align = align;
	append_filled(buf, &field, text->data, len);
}

/* Every character beyond ASCII escaped: Python's ascii(). */
static bool
make_ascii(LlmJinjaRun *run, LlmJinjaValue text, LlmJinjaValue *out)
{
	const LlmJinjaString *string = text.string;
	LlmStrbuf buf;
	int n;

	llm_jinja_init_buffer(&buf);
	for (size_t at = 0; at < string->len; at += (size_t) n)
	{
		uint32_t c = llm_jinja_char_at(string->data, string->len, at, &n);

		if (c < 0x80)
			llm_strbuf_append_char(&buf, (char) c);
		else
			llm_strbuf_printf(&buf,
							  c < 0x100		? "\\x%02x"
							  : c < 0x10000 ? "\\u%04x"
											: "\\U%08x",
							  c);
	}
	return llm_jinja_finish_string(run, &buf, true, out);
}

bool
llm_jinja_convert(LlmJinjaRun *run, LlmJinjaValue value, char conversion,
				  LlmJinjaValue *out)
{
	LlmStrbuf buf;
	bool ok;

	if (conversion == 's')
		return llm_jinja_to_string(run, value, out);
	llm_jinja_init_buffer(&buf);
	ok = llm_jinja_repr(run, value, &buf);
	return llm_jinja_finish_string(run, &buf, ok, out) &&
		   (conversion != 'a' || make_ascii(run, *out, out));
}

bool
llm_jinja_to_real(LlmJinjaRun *run, LlmJinjaValue value, double *real)
{
	LlmJinjaValue sum;

	if (value.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, value);
	if (!llm_jinja_is_number(value))
		return llm_jinja_fail(run, "must be real number, not %s",
							  llm_jinja_type_name(value));
	if (value.kind == LLM_JINJA_FLOAT)
	{
		*real = value.real;
		return true;
	}
	if (!llm_jinja_operate(run, LLM_JINJA_ADD, value, llm_jinja_float(0.0),
						   &sum))
		return false;
	*real = sum.real;
	return true;
}

bool
llm_jinja_format_char(LlmJinjaRun *run, LlmJinjaValue value,
					  const LlmJinjaSpec *spec, LlmStrbuf *buf)
{
	char bytes[4];
	LlmJinjaString text = { .data = bytes, .n_chars = 1 };
	int64_t integer;

	if (value.kind == LLM_JINJA_STRING && value.string->n_chars == 1)
		text = *value.string;
	else if (!llm_jinja_as_int(value, &integer))
		return llm_jinja_fail(run, "%%c requires int or char");
	else if (integer < 0 || integer > 0x10FFFF ||
			 (integer >= 0xD800 && integer <= 0xDFFF))
		return llm_jinja_fail(run, "%%c arg not in range(0x110000)");
	else
		text.len = (size_t) llm_utf8_encode((uint32_t) integer, bytes);
	llm_jinja_format_text(&text, spec, '>', buf);
	return true;
}
