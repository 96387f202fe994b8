/*
 * jinja_filters.c
 *	  The registry of filters; filters over single values and numbers.
 *
 * Filters over texts are in jinja_text_filters.c and jinja_page_filters.c, over
 * items of something in jinja_list_filters.c; pprint is in jinja_pprint.c.
 *
 * src/common/template/jinja_filters.c
 */
#include "src/common/template/jinja_filters.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "src/common/template/jinja_text.h"

static bool
filter_default(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	bool replace =
		call->self.kind == LLM_JINJA_UNDEFINED ||
		(llm_jinja_flag(call->slot[1], false) && !llm_jinja_truth(call->self));

	*out = replace ? call->slot[0] : call->self;
	if (out->kind == LLM_JINJA_MISSING)
		return llm_jinja_borrow_string(run, "", 0, out);
	return true;
}

static bool
filter_attr(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue name = call->slot[0];

	if (name.kind != LLM_JINJA_STRING)
		return llm_jinja_fail(run, "attribute name must be string, not '%s'",
							  llm_jinja_type_name(name));
	/* no falling back on the item */
	if (call->self.kind == LLM_JINJA_DICT &&
		llm_jinja_find_method(call->self, name.string->data,
							  name.string->len) == NULL)
		return llm_jinja_make_undefined(run, "dict", name, out);
	return llm_jinja_get_attribute(run, call->self, name.string, out);
}

/* ---- tojson ---- */

static bool
want_separators(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaDumpStyle *style)
{
	LlmJinjaList *pair;

	if (llm_jinja_is_absent(value))
		return true;
	if (!llm_jinja_collect(run, value, &pair))
		return false;
	if (pair->n_items != 2 || pair->items[0].kind != LLM_JINJA_STRING ||
		pair->items[1].kind != LLM_JINJA_STRING)
		return llm_jinja_fail(run, "tojson: separators must be two texts");
	style->item_separator = pair->items[0].string;
	style->key_separator = pair->items[1].string;
	return true;
}

/* A text, or a number of spaces. */
static bool
want_indent(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaDumpStyle *style)
{
	static const LlmJinjaString space = { " ", 1, 1, false };
	LlmJinjaValue text;

	if (llm_jinja_is_absent(value))
		return true;
	if (value.kind != LLM_JINJA_STRING)
	{
		if (!llm_jinja_operate(run, LLM_JINJA_MULTIPLY, llm_jinja_text(&space),
							   value, &text))
			return false;
		value = text;
	}
	style->indent = value.string;
	return true;
}

static bool
filter_tojson(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	static const LlmJinjaString comma = { ",", 1, 1, false };
	static const LlmJinjaString comma_space = { ", ", 2, 2, false };
	static const LlmJinjaString colon_space = { ": ", 2, 2, false };
	LlmJinjaDumpStyle style = { 0 };
	LlmStrbuf buf;
	bool ok;

	style.ensure_ascii = llm_jinja_flag(call->slot[0], false);
	style.sort_keys = llm_jinja_flag(call->slot[3], false);
	if (!want_indent(run, call->slot[1], &style))
		return false;
	style.item_separator = style.indent == NULL ? &comma_space : &comma;
	style.key_separator = &colon_space;
	if (!want_separators(run, call->slot[2], &style))
		return false;
	llm_jinja_init_buffer(&buf);
	ok = llm_jinja_write_json(run, call->self, &style, &buf);
	return llm_jinja_finish_string(run, &buf, ok, out);
}

/* ---- numbers from texts ---- */

/*
 * A number's text as Python reads it: whitespace around it gone, and single
 * underscores between digits.  False where underscores stand elsewhere.
 */
static bool
clean_number(const LlmJinjaString *text, LlmStrbuf *buf)
{
	const char *data = text->data;
	size_t len = text->len;

	llm_jinja_strip_text(&data, &len, LLM_JINJA_BOTH, NULL);
	for (size_t i = 0; i < len; i++)
	{
		if (data[i] != '_')
			llm_strbuf_append_char(buf, data[i]);
		else if (i == 0 || i + 1 == len ||
				 !isalnum((unsigned char) data[i - 1]) ||
				 !isalnum((unsigned char) data[i + 1]))
			return false;
	}
	return len > 0 && memchr(data, '\0', len) == NULL && !buf->failed;
}

/* Decimal digits, maybe signed, as an int of any size. */
static bool
make_int(LlmJinjaRun *run, const char *digits, LlmJinjaValue *out)
{
	bool negative = digits[0] == '-';
	LlmStrbuf buf;
	long long value;

	errno = 0;
	value = strtoll(digits, NULL, 10);
	if (errno == 0)
	{
		*out = llm_jinja_int(value);
		return true;
	}
	digits += negative || digits[0] == '+';
	digits += strspn(digits, "0");
	if (strlen(digits) > LLM_JINJA_MAX_DIGITS)
		return llm_jinja_fail(run,
							  "Exceeds the limit (%d digits) for integer "
							  "string conversion",
							  LLM_JINJA_MAX_DIGITS);
	llm_jinja_init_buffer(&buf);
	if (negative)
		llm_strbuf_append_char(&buf, '-');
	llm_strbuf_append_str(&buf, digits);
	if (!llm_jinja_finish_string(run, &buf, true, out))
		return false;
	out->kind = LLM_JINJA_BIGINT;
	return true;
}

static int
digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

/* Behind "0x", "0o" or "0b" where the base allows it; sets a base of 0. */
static const char *
skip_base_prefix(const char *digits, int *base)
{
	int marked = 0;

	if (digits[0] == '0')
		marked = (digits[1] | 0x20) == 'x'	 ? 16
				 : (digits[1] | 0x20) == 'o' ? 8
				 : (digits[1] | 0x20) == 'b' ? 2
											 : 0;
	if (marked != 0 && (*base == 0 || *base == marked))
	{
		*base = marked;
		return digits + 2;
	}
	if (*base == 0)
		*base =
			digits[0] == '0' && strspn(digits, "0") < strlen(digits) ? -1 : 10;
	return digits;
}

/* Python's int(text, base); *valid is false where that is a ValueError. */
static bool
parse_int(LlmJinjaRun *run, const LlmJinjaString *text, int base,
		  LlmJinjaValue *out, bool *valid)
{
	LlmStrbuf buf;
	const char *digits;
	bool ok = true;
	bool signed_text;
	long long value;

	llm_jinja_init_buffer(&buf);
	*valid = clean_number(text, &buf);
	digits = llm_strbuf_str(&buf);
	signed_text = digits[0] == '-' || digits[0] == '+';
	digits = skip_base_prefix(digits + signed_text, &base);
	*valid = *valid && digits[0] != '\0';
	for (const char *c = digits; *valid && *c != '\0'; c++)
		*valid = digit_value(*c) < base;
	if (*valid && base == 10)
		ok = make_int(run, llm_strbuf_str(&buf), out);
	else if (*valid)
	{
		errno = 0;
		value = strtoll(digits, NULL, base);
		if (errno != 0)
			ok = llm_jinja_fail(run, "integer is too large");
		*out = llm_jinja_int(buf.data[0] == '-' ? -value : value);
	}
	llm_strbuf_free(&buf);
	return ok;
}

/* Python's float(text). */
static bool
parse_float(const LlmJinjaString *text, double *real)
{
	LlmStrbuf buf;
	const char *rest;
	char *end = NULL;
	bool valid;

	llm_jinja_init_buffer(&buf);
	valid = clean_number(text, &buf);
	rest = llm_strbuf_str(&buf);
	rest += *rest == '-' || *rest == '+';
	/* strtod reads more than Python does: hexadecimal, "nan(...)" */
	valid = valid &&
			(strspn(rest, "0123456789.eE+-") == strlen(rest) ||
			 strcasecmp(rest, "inf") == 0 ||
			 strcasecmp(rest, "infinity") == 0 || strcasecmp(rest, "nan") == 0);
	if (valid)
	{
		*real = strtod(llm_strbuf_str(&buf), &end);
		valid = *end == '\0' && end != llm_strbuf_str(&buf);
	}
	llm_strbuf_free(&buf);
	return valid;
}

/* ---- int and float ---- */

/* Python's int(float); *valid is false for NaN. */
static bool
truncate_float(LlmJinjaRun *run, double real, LlmJinjaValue *out, bool *valid)
{
	char digits[400];

	*valid = !isnan(real);
	if (!*valid)
		return true;
	if (isinf(real))
		return llm_jinja_fail(run, "cannot convert float infinity to integer");
	snprintf(digits, sizeof(digits), "%.0f", trunc(real));
	return make_int(run, digits, out);
}

static bool
filter_int(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue otherwise = call->slot[0].kind == LLM_JINJA_MISSING
								  ? llm_jinja_int(0)
								  : call->slot[0];
	LlmJinjaValue self = call->self;
	int64_t base = 10;
	int64_t integer;
	double real;
	bool valid = false;

	if (!llm_jinja_want_int(run, call->slot[1], &base))
		return false;
	if (self.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, self);
	*out = otherwise;
	if (llm_jinja_as_int(self, &integer))
		*out = llm_jinja_int(integer);
	else if (self.kind == LLM_JINJA_BIGINT)
		*out = self;
	else if (self.kind == LLM_JINJA_FLOAT)
		return truncate_float(run, self.real, out, &valid);
	else if (self.kind == LLM_JINJA_STRING)
	{
		if ((base == 0 || (base >= 2 && base <= 36)) &&
			!parse_int(run, self.string, (int) base, out, &valid))
			return false;
		if (valid)
			return true;
		*out = otherwise;
		if (parse_float(self.string, &real) && !isinf(real))
			return truncate_float(run, real, out, &valid);
	}
	return true;
}

static bool
filter_float(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue self = call->self;
	double real;

	if (self.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, self);
	*out = call->slot[0].kind == LLM_JINJA_MISSING ? llm_jinja_float(0.0)
												   : call->slot[0];
	if (self.kind == LLM_JINJA_STRING)
	{
		if (parse_float(self.string, &real))
			*out = llm_jinja_float(real);
		return true;
	}
	if (!llm_jinja_is_number(self))
		return true;
	return llm_jinja_operate(run, LLM_JINJA_ADD, self, llm_jinja_float(0.0),
							 out);
}

/* Python's float() of any value. */
static bool
want_float(LlmJinjaRun *run, LlmJinjaValue value, double *real)
{
	LlmJinjaValue sum;
	LlmStrbuf repr;

	if (llm_jinja_is_number(value))
	{
		if (!llm_jinja_operate(run, LLM_JINJA_ADD, value, llm_jinja_float(0.0),
							   &sum))
			return false;
		*real = sum.real;
		return true;
	}
	if (value.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, value);
	if (value.kind != LLM_JINJA_STRING)
		return llm_jinja_fail(run,
							  "float() argument must be a string or a real "
							  "number, not '%s'",
							  llm_jinja_type_name(value));
	if (parse_float(value.string, real))
		return true;
	llm_jinja_init_buffer(&repr);
	if (llm_jinja_repr(run, value, &repr))
		llm_jinja_fail(run, "could not convert string to float: %s",
					   llm_strbuf_str(&repr));
	llm_strbuf_free(&repr);
	return false;
}

static bool
filter_filesizeformat(LlmJinjaRun *run, const LlmJinjaCall *call,
					  LlmJinjaValue *out)
{
	/* 1000^2 to 1000^9 as the doubles nearest to them */
	static const double decimal[] = { 1e6,	1e9,  1e12, 1e15,
									  1e18, 1e21, 1e24, 1e27 };
	bool is_binary = llm_jinja_flag(call->slot[0], false);
	double base = is_binary ? 1024 : 1000;
	double unit = base;
	double bytes = 0;
	char text[400];
	int i = 0;

	if (!want_float(run, call->self, &bytes))
		return false;
	if (bytes == 1)
		snprintf(text, sizeof(text), "1 Byte");
	else if (bytes < base && isinf(bytes))
		return llm_jinja_fail(run, "cannot convert float infinity to integer");
	else if (bytes < base)
		snprintf(text, sizeof(text), "%.0f Bytes", trunc(bytes) + 0.0);
	else
	{
		for (; i < 8; i++)
		{
			unit = is_binary ? ldexp(1.0, 10 * (i + 2)) : decimal[i];
			/* 10^24 lies between its nearest double and the next one */
			if (bytes < unit || i == 7 || (bytes == 1e24 && unit == 1e24))
				break;
		}
		snprintf(text, sizeof(text), "%.1f %c%sB", base * bytes / unit,
				 is_binary ? "KMGTPEZY"[i] : "kMGTPEZY"[i],
				 is_binary ? "i" : "");
	}
	return llm_jinja_copy_string(run, text, strlen(text), out);
}

/* ---- abs and round ---- */

static bool
filter_abs(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue self = call->self;
	int64_t integer;

	if (!llm_jinja_is_number(self))
		return llm_jinja_fail(run, "bad operand type for abs(): '%s'",
							  llm_jinja_type_name(self));
	*out = self;
	if (self.kind == LLM_JINJA_FLOAT)
		*out = llm_jinja_float(fabs(self.real));
	else if (llm_jinja_as_int(self, &integer))
	{
		*out = llm_jinja_int(integer);
		if (integer < 0)
			return llm_jinja_negate(run, *out, out);
	}
	else if (self.string->data[0] == '-')
		return llm_jinja_negate(run, self, out);
	return true;
}

/* Correctly rounded in decimal, ties to even, as Python's round(). */
static double
round_float(double real, int64_t precision)
{
	char digits[700];
	double power;

	if (!isfinite(real) || precision > 330)
		return real;
	if (precision < -310)
		return copysign(0.0, real);
	if (precision >= 0)
	{
		snprintf(digits, sizeof(digits), "%.*f", (int) precision, real);
		return strtod(digits, NULL);
	}
	power = pow(10.0, (double) -precision);
	return nearbyint(real / power) * power;
}

static bool
round_int(LlmJinjaRun *run, int64_t integer, int64_t precision,
		  LlmJinjaValue *out)
{
	int64_t power = 1;
	int64_t rest;
	int64_t half;

	*out = llm_jinja_int(precision < -18 ? 0 : integer);
	if (precision >= 0 || precision < -18)
		return true;
	for (int64_t i = precision; i < 0; i++)
		power *= 10;
	rest = integer % power;
	half = power / 2;
	integer -= rest;
	if (rest > half || (rest == half && (integer / power) % 2 != 0))
		rest = power;
	else if (rest < -half || (rest == -half && (integer / power) % 2 != 0))
		rest = -power;
	else
		rest = 0;
	return llm_jinja_operate(run, LLM_JINJA_ADD, llm_jinja_int(integer),
							 llm_jinja_int(rest), out);
}

static bool
round_common(LlmJinjaRun *run, LlmJinjaValue self, LlmJinjaValue precision,
			 LlmJinjaValue *out)
{
	bool to_int = precision.kind == LLM_JINJA_NONE;
	int64_t places = 0;
	int64_t integer;
	bool valid;

	if (!to_int && !llm_jinja_want_int(run, precision, &places))
		return false;
	if (llm_jinja_as_int(self, &integer))
		return round_int(run, integer, places, out);
	*out = self;
	if (self.kind == LLM_JINJA_BIGINT)
		return places >= 0 ||
			   llm_jinja_fail(run, "integer arithmetic beyond 64 bits is not "
								   "supported");
	if (to_int)
		return truncate_float(run, nearbyint(self.real), out, &valid) &&
			   (valid ||
				llm_jinja_fail(run, "cannot convert float NaN to integer"));
	*out = llm_jinja_float(round_float(self.real, places));
	return true;
}

static bool
filter_round(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	bool ceils = llm_jinja_string_is(call->slot[1], "ceil");
	bool floors = llm_jinja_string_is(call->slot[1], "floor");
	LlmJinjaValue scaled;
	int64_t places = 0;
	double power;

	if (call->slot[1].kind != LLM_JINJA_MISSING && !ceils && !floors &&
		!llm_jinja_string_is(call->slot[1], "common"))
		return llm_jinja_fail(run, "method must be common, ceil or floor");
	if (!llm_jinja_is_number(call->self))
		return llm_jinja_fail(run,
							  ceils || floors
								  ? "must be real number, not %s"
								  : "type %s doesn't define __round__ method",
							  llm_jinja_type_name(call->self));
	if (!ceils && !floors)
		return round_common(run, call->self, call->slot[0], out);
	if (!llm_jinja_want_int(run, call->slot[0], &places))
		return false;
	power = pow(10.0, (double) places);
	if (!llm_jinja_operate(run, LLM_JINJA_MULTIPLY, call->self,
						   llm_jinja_float(power), &scaled))
		return false;
	*out = llm_jinja_float((ceils ? ceil(scaled.real) : floor(scaled.real)) /
						   power);
	return true;
}

const LlmJinjaBuiltin *
llm_jinja_find_filter(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "default", "default_value? boolean?", filter_default },
		{ "d", "default_value? boolean?", filter_default },
		{ "tojson", "ensure_ascii? indent? separators? sort_keys?",
		  filter_tojson },
		{ "int", "default? base?", filter_int },
		{ "float", "default?", filter_float },
		{ "abs", "", filter_abs },
		{ "round", "precision? method?", filter_round },
		{ "attr", "name", filter_attr },
		{ "filesizeformat", "binary?", filter_filesizeformat },
		{ "pprint", "", llm_jinja_filter_pprint },
		{ "random", NULL, NULL },
		{ "urlize", NULL, NULL },
	};
	const LlmJinjaBuiltin *found = llm_jinja_find_builtin(
		table, sizeof(table) / sizeof(table[0]), name, len);

	if (found == NULL)
		found = llm_jinja_find_text_filter(name, len);
	if (found == NULL)
		found = llm_jinja_find_page_filter(name, len);
	return found != NULL ? found : llm_jinja_find_list_filter(name, len);
}
