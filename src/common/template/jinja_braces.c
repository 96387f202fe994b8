/*
 * jinja_braces.c
 *	  Python's "{}".format(x).
 *
 * src/common/template/jinja_braces.c
 */
#include <string.h>

#include "src/common/template/jinja_format.h"
#include "src/common/util/utf8.h"

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
	while (at < end && *at >= '0' && *at <= '9' &&
		   *number <= LLM_JINJA_MAX_WIDTH)
	{
		*number = (*number < 0 ? 0 : *number * 10) + (*at - '0');
		at++;
	}
	return at;
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static bool
read_spec(LlmJinjaRun *run, const char *at, const char *end, LlmJinjaSpec *spec)
{
	int n = at < end
				? llm_utf8_decode(at, (size_t) (end - at), &(uint32_t){ 0 })
				: 0;

	*spec = llm_jinja_plain_spec;
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
	if (spec->width > LLM_JINJA_MAX_WIDTH ||
		spec->precision > LLM_JINJA_MAX_PRECISION)
		return llm_jinja_fail(run, "width or precision is too big");
	if (at < end)
		spec->type = *at++;
	if (at < end)
		return llm_jinja_fail(run, "Invalid format specifier");
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
format_value(LlmJinjaRun *run, LlmJinjaValue value, const LlmJinjaSpec *spec,
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
			LlmJinjaSpec left = *spec;

			left.align = '<';
			llm_jinja_format_text(value.string, &left, '<', buf);
			return true;
		}
		llm_jinja_format_text(value.string, spec, '<', buf);
		return true;
	}
	if (is_int && spec->type == 'c')
		return llm_jinja_format_char(run, value, spec, buf);
	if (is_int && is_type_of(spec->type, "bdoxXn"))
	{
		if (spec->precision >= 0)
			return llm_jinja_fail(run, "Precision not allowed in integer "
									   "format specifier");
		return llm_jinja_format_int(run, value, spec, buf);
	}
	if ((is_int || value.kind == LLM_JINJA_FLOAT) &&
		is_type_of(spec->type, "eEfFgGn%"))
	{
		if (!llm_jinja_to_real(run, value, &real))
			return false;
		llm_jinja_format_float(real, spec, buf);
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
		return llm_jinja_fail(state->run, "tuple index out of range");
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
			LlmJinjaSpec *spec)
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
	LlmJinjaSpec spec;

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
		if (!llm_jinja_convert(state->run, value, conversion, &value))
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
