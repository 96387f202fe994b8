/*
 * jinja_percent.c
 *	  Python's "%s" % x.
 *
 * src/common/template/jinja_percent.c
 */
#include <string.h>

#include "src/common/template/jinja_format.h"

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
read_percent_spec(PercentState *state, LlmJinjaSpec *spec)
{
	bool zero = false;
	bool left = false;

	*spec = llm_jinja_plain_spec;
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
	if (!read_percent_number(state, LLM_JINJA_MAX_WIDTH, &spec->width))
		return false;
	if (percent_char(state) == '.')
	{
		state->at++;
		if (!read_percent_number(state, LLM_JINJA_MAX_PRECISION,
								 &spec->precision))
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
percent_int(PercentState *state, LlmJinjaValue arg, LlmJinjaSpec *spec,
			LlmStrbuf *buf)
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
	return llm_jinja_format_int(run, arg, spec, buf);
}

static bool
percent_one(PercentState *state, LlmJinjaValue arg, LlmJinjaSpec *spec,
			LlmStrbuf *buf)
{
	LlmJinjaRun *run = state->run;
	LlmJinjaValue text;
	double real;

	switch (spec->type)
	{
		case 's':
		case 'r':
		case 'a':
			if (!llm_jinja_convert(run, arg, spec->type, &text))
				return false;
			spec->fill[0] = ' ';
			spec->align = spec->align == '=' ? '>' : spec->align;
			llm_jinja_format_text(text.string, spec, '>', buf);
			return true;
		case 'c':
			spec->fill[0] = ' ';
			spec->align = spec->align == '=' ? '>' : spec->align;
			spec->precision = -1;
			return llm_jinja_format_char(run, arg, spec, buf);
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
			if (!llm_jinja_to_real(run, arg, &real))
				return false;
			llm_jinja_format_float(real, spec, buf);
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
	LlmJinjaSpec spec;

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
