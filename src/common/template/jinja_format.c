/*
 * jinja_format.c
 *	  Python's two ways of formatting: "%s" % x and "{}".format(x).
 *
 * Both end in a Spec, which the number and text formatters below serve.
 * Widths and precisions are bounded, for a template may ask for anything.
 *
 * src/common/template/jinja_format.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_object.h"
#include "src/common/template/jinja_text.h"
#include "src/common/util/utf8.h"

#define MAX_WIDTH 100000
#define MAX_PRECISION 1000

typedef struct Spec
{
	char fill[4]; /* one character */
	int fill_len;
	char align; /* '<', '>', '^', '=', or NUL for the type's own */
	char sign;	/* '+', ' ', or NUL */
	bool alternate;
	bool grouped;
	char group; /* ',' or '_' */
	int64_t width;
	int64_t precision; /* -1: not given */
	char type;		   /* NUL: not given */
} Spec;

static const Spec plain_spec = { .fill = " ", .fill_len = 1, .precision = -1 };

/* ---- numbers and texts, formatted ---- */

static void
append_filled(LlmStrbuf *buf, const Spec *spec, const char *text, size_t len)
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
append_grouped(LlmStrbuf *buf, const Spec *spec, const char *digits)
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
append_number(LlmStrbuf *buf, const Spec *spec, bool negative,
			  const char *prefix, const char *digits)
{
	Spec field = *spec;
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
format_bigint(LlmJinjaRun *run, const LlmJinjaString *digits, const Spec *spec,
			  LlmStrbuf *buf)
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

static bool
format_int(LlmJinjaRun *run, LlmJinjaValue value, const Spec *spec,
		   LlmStrbuf *buf)
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
	char *dest = llm_strbuf_reserve(digits, MAX_PRECISION + 400);

	if (dest == NULL)
		return;
	digits->len +=
		(size_t) snprintf(dest, MAX_PRECISION + 400, "%.*g",
						  precision == 0 ? 1 : (int) precision, magnitude);
	if (strpbrk(dest, ".en") == NULL)
		llm_strbuf_append_str(digits, ".0");
}

static void
print_typed(double magnitude, const Spec *spec, char type, LlmStrbuf *digits)
{
	char pattern[8];
	char *dest = llm_strbuf_reserve(digits, MAX_PRECISION + 400);
	int precision = spec->precision < 0 ? 6 : (int) spec->precision;

	if (dest == NULL)
		return;
	snprintf(pattern, sizeof(pattern), "%%%s.*%c", spec->alternate ? "#" : "",
			 type);
	digits->len += (size_t) snprintf(dest, MAX_PRECISION + 400, pattern,
									 precision, magnitude);
}

static void
format_float(double real, const Spec *spec, LlmStrbuf *buf)
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

/* A text cut to the precision and set in its field, by default on "align". */
static void
format_text(const LlmJinjaString *text, const Spec *spec, char align,
			LlmStrbuf *buf)
{
	Spec field = *spec;
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

/* What !s, !r, !a or %s, %r, %a make of a value. */
static bool
convert(LlmJinjaRun *run, LlmJinjaValue value, char conversion,
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

static bool
to_real(LlmJinjaRun *run, LlmJinjaValue value, double *real)
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

static bool
format_char(LlmJinjaRun *run, LlmJinjaValue value, const Spec *spec,
			LlmStrbuf *buf)
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
	format_text(&text, spec, '>', buf);
	return true;
}

/* ---- "%s" % args ---- */

typedef struct PercentState
{
	LlmJinjaRun *run;
	const LlmJinjaString *format;
	size_t at;
	LlmJinjaValue args;
	size_t n_used; /* of a tuple, or 1 for the single value */
	bool used_key;
} PercentState;

static bool
next_percent_arg(PercentState *state, LlmJinjaValue *arg)
{
	bool is_tuple = state->args.kind == LLM_JINJA_TUPLE;
	size_t n_args = is_tuple ? state->args.list->n_items : 1;

	if (state->n_used >= n_args)
		return llm_jinja_fail(state->run,
							  "not enough arguments for format string");
	*arg = is_tuple ? state->args.list->items[state->n_used] : state->args;
	state->n_used++;
	return true;
}

static char
percent_char(const PercentState *state)
{
	return state->at < state->format->len ? state->format->data[state->at]
										  : '\0';
}

/* "(key)": the value to format. */
static bool
read_percent_key(PercentState *state, LlmJinjaValue *arg)
{
	size_t start = state->at + 1;
	int n_open = 1;
	LlmJinjaValue key;

	if (state->args.kind != LLM_JINJA_DICT)
		return llm_jinja_fail(state->run, "format requires a mapping");
	for (state->at++; n_open > 0; state->at++)
	{
		if (state->at >= state->format->len)
			return llm_jinja_fail(state->run, "incomplete format key");
		n_open += percent_char(state) == '(';
		n_open -= percent_char(state) == ')';
	}
	if (!llm_jinja_borrow_string(state->run, state->format->data + start,
								 state->at - 1 - start, &key) ||
		!llm_jinja_dict_get(state->run, state->args.dict, key, arg))
		return false;
	state->used_key = true;
	if (arg->kind != LLM_JINJA_MISSING)
		return true;
	return llm_jinja_fail(state->run, "'%.*s'", (int) key.string->len,
						  key.string->data);
}

/* Digits, or "*" for an argument; -1 where there is neither. */
static bool
read_percent_number(PercentState *state, int64_t max, int64_t *number)
{
	LlmJinjaValue arg;

	*number = -1;
	if (percent_char(state) == '*')
	{
		state->at++;
		if (!next_percent_arg(state, &arg))
			return false;
		if (!llm_jinja_as_int(arg, number))
			return llm_jinja_fail(state->run, "* wants int");
	}
	for (; percent_char(state) >= '0' && percent_char(state) <= '9';
		 state->at++)
	{
		*number = (*number < 0 ? 0 : *number * 10) + percent_char(state) - '0';
		if (*number > max)
			break;
	}
	if (*number > max)
		return llm_jinja_fail(state->run, "width or precision is too big");
	return true;
}

/* Flags, width, precision and type, from behind "%" or its key. */
static bool
read_percent_spec(PercentState *state, Spec *spec)
{
	bool zero = false;
	bool left = false;

	*spec = plain_spec;
	for (;; state->at++)
	{
		char c = percent_char(state);

		if (c == '-')
			left = true;
		else if (c == '0')
			zero = true;
		else if (c == '#')
			spec->alternate = true;
		else if (c == '+' || (c == ' ' && spec->sign == '\0'))
			spec->sign = c;
		else if (c != ' ')
			break;
	}
	if (!read_percent_number(state, MAX_WIDTH, &spec->width))
		return false;
	if (percent_char(state) == '.')
	{
		state->at++;
		if (!read_percent_number(state, MAX_PRECISION, &spec->precision))
			return false;
		if (spec->precision < 0)
			spec->precision = 0;
	}
	if (percent_char(state) == 'h' || percent_char(state) == 'l' ||
		percent_char(state) == 'L')
		state->at++;
	if (state->at >= state->format->len)
		return llm_jinja_fail(state->run, "incomplete format");
	spec->type = percent_char(state);
	spec->align = left ? '<' : zero ? '=' : '>';
	if (zero && !left)
		spec->fill[0] = '0';
	return true;
}

static bool
fail_percent_type(PercentState *state, char type)
{
	return llm_jinja_fail(state->run,
						  "unsupported format character '%c' (0x%x) at index "
						  "%zu",
						  type, (unsigned char) type, state->at);
}

/* An integer's minimum of digits comes from the precision. */
static bool
percent_int(PercentState *state, LlmJinjaValue arg, Spec *spec, LlmStrbuf *buf)
{
	LlmJinjaRun *run = state->run;
	bool decimal = spec->type == 'd' || spec->type == 'i' || spec->type == 'u';
	static const LlmJinjaArgs no_args = { 0 };

	if (!llm_jinja_is_number(arg) || (!decimal && arg.kind == LLM_JINJA_FLOAT))
		return llm_jinja_fail(
			run, "%%%c format: %s is required, not %s", spec->type,
			decimal ? "a real number" : "an integer", llm_jinja_type_name(arg));
	if (arg.kind == LLM_JINJA_FLOAT &&
		!llm_jinja_call_builtin(run, llm_jinja_find_filter("int", 3), arg,
								&no_args, &arg))
		return false;
	if (spec->precision >= 0)
		return llm_jinja_fail(run, "a precision of integers is not supported");
	if (decimal)
		spec->type = 'd';
	return format_int(run, arg, spec, buf);
}

static bool
percent_one(PercentState *state, LlmJinjaValue arg, Spec *spec, LlmStrbuf *buf)
{
	LlmJinjaRun *run = state->run;
	LlmJinjaValue text;
	double real;

	switch (spec->type)
	{
		case 's':
		case 'r':
		case 'a':
			if (!convert(run, arg, spec->type, &text))
				return false;
			spec->fill[0] = ' ';
			spec->align = spec->align == '=' ? '>' : spec->align;
			format_text(text.string, spec, '>', buf);
			return true;
		case 'c':
			spec->fill[0] = ' ';
			spec->align = spec->align == '=' ? '>' : spec->align;
			spec->precision = -1;
			return format_char(run, arg, spec, buf);
		case 'd':
		case 'i':
		case 'u':
		case 'x':
		case 'X':
		case 'o':
			return percent_int(state, arg, spec, buf);
		case 'e':
		case 'E':
		case 'f':
		case 'F':
		case 'g':
		case 'G':
			if (!to_real(run, arg, &real))
				return false;
			format_float(real, spec, buf);
			return true;
		default:
			return fail_percent_type(state, spec->type);
	}
}

/* At a "%". */
static bool
format_directive(PercentState *state, LlmStrbuf *buf)
{
	LlmJinjaValue arg = llm_jinja_missing();
	Spec spec;

	state->at++;
	if (percent_char(state) == '(' && !read_percent_key(state, &arg))
		return false;
	if (!read_percent_spec(state, &spec))
		return false;
	if (spec.type == '%')
		llm_strbuf_append_char(buf, '%');
	else if ((arg.kind == LLM_JINJA_MISSING &&
			  !next_percent_arg(state, &arg)) ||
			 !percent_one(state, arg, &spec, buf))
		return false;
	state->at++;
	return true;
}

/* Are there arguments that no directive used?  Mappings may have them. */
static bool
has_unused_args(const PercentState *state)
{
	switch ((LlmJinjaKind) state->args.kind)
	{
		case LLM_JINJA_TUPLE:
			return state->n_used < state->args.list->n_items;
		case LLM_JINJA_DICT:
		case LLM_JINJA_LIST:
		case LLM_JINJA_RANGE:
		case LLM_JINJA_UNDEFINED:
			return false;
		default:
			return state->n_used == 0;
	}
}

bool
llm_jinja_format_percent(LlmJinjaRun *run, const LlmJinjaString *format,
						 LlmJinjaValue args, LlmJinjaValue *out)
{
	PercentState state = { .run = run, .format = format, .args = args };
	LlmStrbuf buf;
	bool ok = llm_jinja_charge(run, format->len / 8);

	llm_jinja_init_buffer(&buf);
	while (ok && state.at < format->len)
	{
		const char *start = format->data + state.at;
		const char *mark = memchr(start, '%', format->len - state.at);
		size_t n =
			mark == NULL ? format->len - state.at : (size_t) (mark - start);

		llm_strbuf_append(&buf, start, n);
		state.at += n;
		if (mark != NULL)
			ok = llm_jinja_charge(run, 1) && format_directive(&state, &buf);
	}
	if (ok && has_unused_args(&state))
		ok = llm_jinja_fail(run, "not all arguments converted during string "
								 "formatting");
	return llm_jinja_finish_string(run, &buf, ok, out);
}

/* ---- "{}".format(...) ---- */

typedef struct BraceState
{
	LlmJinjaRun *run;
	const LlmJinjaArgs *args;
	int64_t next_auto; /* -1 once a field has a number of its own */
	bool used_auto;
} BraceState;

static bool format_fields(BraceState *state, const char *text, size_t len,
						  int depth, LlmStrbuf *buf);

static bool
is_align(char c)
{
	return c == '<' || c == '>' || c == '^' || c == '=';
}

static const char *
read_spec_number(const char *at, const char *end, int64_t *number)
{
	while (at < end && *at >= '0' && *at <= '9' && *number <= MAX_WIDTH)
	{
		*number = (*number < 0 ? 0 : *number * 10) + (*at - '0');
		at++;
	}
	return at;
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static bool
read_spec(LlmJinjaRun *run, const char *at, const char *end, Spec *spec)
{
	int n = at < end
				? llm_utf8_decode(at, (size_t) (end - at), &(uint32_t){ 0 })
				: 0;

	*spec = plain_spec;
	if (n > 0 && at + n < end && is_align(at[n]))
	{
		memcpy(spec->fill, at, (size_t) n);
		spec->fill_len = n;
		spec->align = at[n];
		at += n + 1;
	}
	else if (n > 0 && is_align(*at))
		spec->align = *at++;
	if (at < end && (*at == '+' || *at == ' ' || *at == '-'))
	{
		spec->sign = *at == '-' ? '\0' : *at;
		at++;
	}
	if (at < end && *at == '#')
	{
		spec->alternate = true;
		at++;
	}
	if (at < end && *at == '0')
	{
		if (spec->align == '\0')
		{
			spec->align = '=';
			spec->fill[0] = '0';
			spec->fill_len = 1;
		}
		at++;
	}
	at = read_spec_number(at, end, &spec->width);
	if (at < end && (*at == ',' || *at == '_'))
	{
		spec->grouped = true;
		spec->group = *at++;
	}
	if (at < end && *at == '.')
	{
		at = read_spec_number(at + 1, end, &spec->precision);
		if (spec->precision < 0)
			return llm_jinja_fail(run, "Format specifier missing precision");
	}
	if (at < end)
		spec->type = *at++;
	if (at < end)
		return llm_jinja_fail(run, "Invalid format specifier");
	if (spec->width > MAX_WIDTH || spec->precision > MAX_PRECISION)
		return llm_jinja_fail(run, "width or precision is too big");
	return true;
}

static bool
fail_code(LlmJinjaRun *run, LlmJinjaValue value, char type)
{
	return llm_jinja_fail(run,
						  "Unknown format code '%c' for object of type '%s'",
						  type, llm_jinja_type_name(value));
}

static bool
is_type_of(char type, const char *types)
{
	return type == '\0' || strchr(types, type) != NULL;
}

/* Python's format(value, spec), the spec not empty. */
static bool
format_value(LlmJinjaRun *run, LlmJinjaValue value, const Spec *spec,
			 LlmStrbuf *buf)
{
	bool is_int = value.kind == LLM_JINJA_INT || value.kind == LLM_JINJA_BOOL ||
				  value.kind == LLM_JINJA_BIGINT;
	double real;

	if (value.kind == LLM_JINJA_STRING)
	{
		if (!is_type_of(spec->type, "s"))
			return fail_code(run, value, spec->type);
		if (spec->align == '=' && spec->fill[0] != '0')
			return llm_jinja_fail(run, "'=' alignment not allowed in string "
									   "format specifier");
		if (spec->align == '=')
		{
			Spec left = *spec;

			left.align = '<';
			format_text(value.string, &left, '<', buf);
			return true;
		}
		format_text(value.string, spec, '<', buf);
		return true;
	}
	if (is_int && spec->type == 'c')
		return format_char(run, value, spec, buf);
	if (is_int && is_type_of(spec->type, "bdoxXn"))
	{
		if (spec->precision >= 0)
			return llm_jinja_fail(run, "Precision not allowed in integer "
									   "format specifier");
		return format_int(run, value, spec, buf);
	}
	if ((is_int || value.kind == LLM_JINJA_FLOAT) &&
		is_type_of(spec->type, "eEfFgGn%"))
	{
		if (!to_real(run, value, &real))
			return false;
		format_float(real, spec, buf);
		return true;
	}
	if (is_int || value.kind == LLM_JINJA_FLOAT)
		return fail_code(run, value, spec->type);
	return llm_jinja_fail(run,
						  "unsupported format string passed to %s.__format__",
						  llm_jinja_type_name(value));
}

static bool
find_keyword(BraceState *state, const char *name, size_t len,
			 LlmJinjaValue *out)
{
	for (size_t i = 0; i < state->args->n_kwargs; i++)
	{
		const LlmJinjaKwarg *kwarg = &state->args->kwargs[i];

		if (kwarg->name->len == len &&
			memcmp(kwarg->name->data, name, len) == 0)
		{
			*out = kwarg->value;
			return true;
		}
	}
	return llm_jinja_fail(state->run, "'%.*s'", (int) len, name);
}

/* The argument a field names: nothing, a number or a keyword. */
static bool
find_field(BraceState *state, const char *name, size_t len, LlmJinjaValue *out)
{
	int64_t number = -1;
	const char *end = read_spec_number(name, name + len, &number);
	bool is_auto = len == 0;

	if (!is_auto && end != name + len)
		return find_keyword(state, name, len, out);
	if (is_auto ? state->next_auto < 0 : state->used_auto)
		return llm_jinja_fail(
			state->run, is_auto
							? "cannot switch from manual field specification "
							  "to automatic field numbering"
							: "cannot switch from automatic field numbering "
							  "to manual field specification");
	if (is_auto)
	{
		number = state->next_auto++;
		state->used_auto = true;
	}
	else
		state->next_auto = -1;
	if (number >= (int64_t) state->args->n_args)
		return llm_jinja_fail(state->run,
							  "Replacement index %lld out of range for "
							  "positional args tuple",
							  (long long) number);
	*out = state->args->args[number];
	return true;
}

/* "name.attribute[item]" */
static bool
follow_field(BraceState *state, const char *text, size_t len,
			 LlmJinjaValue *out)
{
	size_t at = 0;

	while (at < len && text[at] != '.' && text[at] != '[')
		at++;
	if (!find_field(state, text, at, out))
		return false;
	while (at < len)
	{
		bool is_item = text[at] == '[';
		size_t start = ++at;
		int64_t number = -1;
		LlmJinjaValue key;

		while (at < len &&
			   (is_item ? text[at] != ']' : text[at] != '.' && text[at] != '['))
			at++;
		if (at == start || (is_item && at == len))
			return llm_jinja_fail(state->run,
								  "Empty attribute in format string");
		if (!llm_jinja_borrow_string(state->run, text + start, at - start,
									 &key))
			return false;
		if (is_item &&
			read_spec_number(text + start, text + at, &number) == text + at)
			key = llm_jinja_int(number);
		if (!(is_item
				  ? llm_jinja_get_item(state->run, *out, key, out)
				  : llm_jinja_get_attribute(state->run, *out, key.string, out)))
			return false;
		at += is_item;
	}
	return true;
}

/* The spec may itself have fields: expand them, then read it. */
static bool
expand_spec(BraceState *state, const char *text, size_t len, int depth,
			Spec *spec)
{
	LlmStrbuf expanded;
	bool ok;

	llm_jinja_init_buffer(&expanded);
	ok = format_fields(state, text, len, depth + 1, &expanded);
	ok = ok && read_spec(state->run, llm_strbuf_str(&expanded),
						 llm_strbuf_str(&expanded) + expanded.len, spec);
	llm_strbuf_free(&expanded);
	return ok;
}

/* What stands between the braces. */
static bool
format_field(BraceState *state, const char *text, size_t len, int depth,
			 LlmStrbuf *buf)
{
	size_t name_len = 0;
	char conversion = '\0';
	LlmJinjaValue value;
	size_t at;
	Spec spec;

	for (bool in_item = false; name_len < len; name_len++)
	{
		char c = text[name_len];

		if (!in_item && (c == '!' || c == ':'))
			break;
		in_item = in_item ? c != ']' : c == '[';
	}
	at = name_len;
	if (!follow_field(state, text, name_len, &value))
		return false;
	if (at < len && text[at] == '!')
	{
		conversion = at + 1 < len ? text[at + 1] : '\0';
		at += 2;
		if (conversion == '\0' || strchr("sra", conversion) == NULL ||
			(at < len && text[at] != ':'))
			return llm_jinja_fail(state->run, "Unknown conversion specifier");
		if (!convert(state->run, value, conversion, &value))
			return false;
	}
	at += at < len;
	if (at >= len)
		return llm_jinja_print(state->run, value, buf);
	return expand_spec(state, text + at, len - at, depth, &spec) &&
		   format_value(state->run, value, &spec, buf);
}

/* The length up to the brace that closes; len where none does. */
static size_t
find_close(const char *text, size_t len)
{
	int n_open = 1;

	for (size_t i = 0; i < len; i++)
	{
		n_open += text[i] == '{';
		n_open -= text[i] == '}';
		if (n_open == 0)
			return i;
	}
	return len;
}

static bool
format_fields(BraceState *state, const char *text, size_t len, int depth,
			  LlmStrbuf *buf)
{
	if (depth > 2)
		return llm_jinja_fail(state->run, "Max string recursion exceeded");
	for (size_t at = 0; at < len; at++)
	{
		size_t field;

		if (text[at] != '{' && text[at] != '}')
			llm_strbuf_append_char(buf, text[at]);
		else if (at + 1 < len && text[at + 1] == text[at])
			llm_strbuf_append_char(buf, text[at++]);
		else if (text[at] == '}')
			return llm_jinja_fail(state->run,
								  "Single '}' encountered in format string");
		else
		{
			if (at + 1 == len)
				return llm_jinja_fail(
					state->run, "Single '{' encountered in format string");
			field = find_close(text + at + 1, len - at - 1);
			if (at + 1 + field == len)
				return llm_jinja_fail(state->run,
									  "expected '}' before end of string");
			if (!llm_jinja_charge(state->run, 1) ||
				!format_field(state, text + at + 1, field, depth, buf))
				return false;
			at += 1 + field;
		}
	}
	return true;
}

bool
llm_jinja_format_braces(LlmJinjaRun *run, const LlmJinjaString *format,
						const LlmJinjaArgs *args, LlmJinjaValue *out)
{
	BraceState state = { .run = run, .args = args };
	LlmStrbuf buf;
	bool ok;

	llm_jinja_init_buffer(&buf);
	ok = llm_jinja_charge(run, format->len / 8) &&
		 format_fields(&state, format->data, format->len, 1, &buf);
	return llm_jinja_finish_string(run, &buf, ok, out);
}
