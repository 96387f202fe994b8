/*
 * jinja_operator.c
 *	  Arithmetic, and what + * and % do to texts and lists.
 *
 * Integers have 64 bits: where Python would go on with more, this is an
 * error, never a wrong number.
 *
 * src/common/template/jinja_operator.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_object.h"
#include "src/common/template/jinja_value.h"

static const char *const signs[] = { "+",  "-", "*",		  "/",
									 "//", "%", "** or pow()" };

static bool
fail_overflow(LlmJinjaRun *run)
{
	return llm_jinja_fail(run, "integer arithmetic beyond 64 bits is not "
							   "supported");
}

static bool
fail_operands(LlmJinjaRun *run, LlmJinjaOperator op, LlmJinjaValue left,
			  LlmJinjaValue right)
{
	return llm_jinja_fail(
		run, "unsupported operand type(s) for %s: '%s' and '%s'", signs[op],
		llm_jinja_type_name(left), llm_jinja_type_name(right));
}

/* ---- integers ---- */

static bool
floor_divide_ints(LlmJinjaRun *run, LlmJinjaOperator op, int64_t a, int64_t b,
				  int64_t *result)
{
	int64_t quotient;
	int64_t rest;

	if (b == 0)
		return llm_jinja_fail(run, op == LLM_JINJA_MODULO
									   ? "integer modulo by zero"
									   : "integer division or modulo by zero");
	if (b == -1)
	{
		*result = 0;
		return op == LLM_JINJA_MODULO ||
			   !__builtin_sub_overflow((int64_t) 0, a, result) ||
			   fail_overflow(run);
	}
	quotient = a / b;
	rest = a % b;
	if (rest != 0 && (rest < 0) != (b < 0))
	{
		quotient--;
		rest += b;
	}
	*result = op == LLM_JINJA_MODULO ? rest : quotient;
	return true;
}

static bool
power_ints(LlmJinjaRun *run, int64_t base, int64_t exponent, LlmJinjaValue *out)
{
	int64_t result = 1;

	if (exponent < 0)
	{
		if (base == 0)
			return llm_jinja_fail(run, "0.0 cannot be raised to a negative "
									   "power");
		*out = llm_jinja_float(pow((double) base, (double) exponent));
		return true;
	}
	/* beyond 64 turns only 0, 1 and -1 do not overflow */
	if (base >= -1 && base <= 1 && exponent > 2)
		exponent = exponent % 2 == 0 ? 2 : 1;
	for (int64_t i = 0; i < exponent; i++)
		if (__builtin_mul_overflow(result, base, &result))
			return fail_overflow(run);
	*out = llm_jinja_int(result);
	return true;
}

static bool
operate_ints(LlmJinjaRun *run, LlmJinjaOperator op, const int64_t operand[2],
			 LlmJinjaValue *out)
{
	int64_t a = operand[0];
	int64_t b = operand[1];
	int64_t result = 0;
	bool overflows = false;

	switch (op)
	{
		case LLM_JINJA_ADD:
			overflows = __builtin_add_overflow(a, b, &result);
			break;
		case LLM_JINJA_SUBTRACT:
			overflows = __builtin_sub_overflow(a, b, &result);
			break;
		case LLM_JINJA_MULTIPLY:
			overflows = __builtin_mul_overflow(a, b, &result);
			break;
		case LLM_JINJA_DIVIDE:
			if (b == 0)
				return llm_jinja_fail(run, "division by zero");
			*out =
				llm_jinja_float((double) ((long double) a / (long double) b));
			return true;
		case LLM_JINJA_FLOOR_DIVIDE:
		case LLM_JINJA_MODULO:
			if (!floor_divide_ints(run, op, a, b, &result))
				return false;
			break;
		case LLM_JINJA_POWER:
			return power_ints(run, a, b, out);
	}
	if (overflows)
		return fail_overflow(run);
	*out = llm_jinja_int(result);
	return true;
}

/* ---- floats ---- */

static bool
divide_floats(LlmJinjaRun *run, LlmJinjaOperator op, double a, double b,
			  double *result)
{
	double rest;
	double quotient;

	if (b == 0.0)
		return llm_jinja_fail(run, op == LLM_JINJA_DIVIDE ? "float division by "
															"zero"
								   : op == LLM_JINJA_MODULO
									   ? "float modulo"
									   : "float floor division by zero");
	if (op == LLM_JINJA_DIVIDE)
	{
		*result = a / b;
		return true;
	}
	rest = fmod(a, b);
	quotient = (a - rest) / b;
	if (rest == 0.0)
		rest = copysign(0.0, b);
	else if ((b < 0) != (rest < 0))
	{
		rest += b;
		quotient -= 1.0;
	}
	if (op == LLM_JINJA_MODULO)
		*result = rest;
	else if (quotient == 0.0)
		*result = copysign(0.0, a / b);
	else
	{
		*result = floor(quotient);
		if (quotient - *result > 0.5)
			*result += 1.0;
	}
	return true;
}

static bool
power_floats(LlmJinjaRun *run, double a, double b, double *result)
{
	if (a == 0.0 && b < 0.0)
		return llm_jinja_fail(run, "0.0 cannot be raised to a negative power");
	if (a < 0.0 && isfinite(b) && b != floor(b))
		return llm_jinja_fail(run, "complex numbers are not supported");
	*result = pow(a, b);
	if (isinf(*result) && isfinite(a) && isfinite(b))
		return llm_jinja_fail(run, "(34, 'Numerical result out of range')");
	return true;
}

static bool
operate_floats(LlmJinjaRun *run, LlmJinjaOperator op, const double operand[2],
			   LlmJinjaValue *out)
{
	double result = 0.0;

	switch (op)
	{
		case LLM_JINJA_ADD:
			result = operand[0] + operand[1];
			break;
		case LLM_JINJA_SUBTRACT:
			result = operand[0] - operand[1];
			break;
		case LLM_JINJA_MULTIPLY:
			result = operand[0] * operand[1];
			break;
		case LLM_JINJA_DIVIDE:
		case LLM_JINJA_FLOOR_DIVIDE:
		case LLM_JINJA_MODULO:
			if (!divide_floats(run, op, operand[0], operand[1], &result))
				return false;
			break;
		case LLM_JINJA_POWER:
			if (!power_floats(run, operand[0], operand[1], &result))
				return false;
			break;
	}
	*out = llm_jinja_float(result);
	return true;
}

static bool
to_real(LlmJinjaRun *run, LlmJinjaValue value, double *real)
{
	int64_t integer;
	LlmStrbuf digits;

	if (value.kind == LLM_JINJA_FLOAT)
		*real = value.real;
	else if (llm_jinja_as_int(value, &integer))
		*real = (double) integer;
	else
	{
		assert(value.kind == LLM_JINJA_BIGINT);
		llm_jinja_init_buffer(&digits);
		llm_strbuf_append(&digits, value.string->data, value.string->len);
		*real = strtod(llm_strbuf_str(&digits), NULL);
		llm_strbuf_free(&digits);
		if (isinf(*real))
			return llm_jinja_fail(run, "int too large to convert to float");
	}
	return true;
}

static bool
operate_numbers(LlmJinjaRun *run, LlmJinjaOperator op, LlmJinjaValue left,
				LlmJinjaValue right, LlmJinjaValue *out)
{
	int64_t integers[2];
	double reals[2];

	if (llm_jinja_as_int(left, &integers[0]) &&
		llm_jinja_as_int(right, &integers[1]))
		return operate_ints(run, op, integers, out);
	if (left.kind != LLM_JINJA_FLOAT && right.kind != LLM_JINJA_FLOAT)
		return fail_overflow(run);
	return to_real(run, left, &reals[0]) && to_real(run, right, &reals[1]) &&
		   operate_floats(run, op, reals, out);
}

/* ---- texts and lists ---- */

/* One behind the other. */
static bool
join_strings(LlmJinjaRun *run, const LlmJinjaString *a, const LlmJinjaString *b,
			 LlmJinjaValue *out)
{
	size_t len = a->len + b->len;
	LlmJinjaString *result = llm_jinja_alloc(run, sizeof(*result) + len);
	char *data = (char *) (result + 1);

	if (result == NULL || !llm_jinja_charge(run, len / 64))
		return false;
	if (a->len > 0)
		memcpy(data, a->data, a->len);
	if (b->len > 0)
		memcpy(data + a->len, b->data, b->len);
	*result = (LlmJinjaString){ .data = data,
								.len = len,
								.n_chars = a->n_chars + b->n_chars };
	*out = llm_jinja_text(result);
	return true;
}

/* Text next to markup is escaped and becomes markup itself. */
static bool
add_strings(LlmJinjaRun *run, const LlmJinjaString *a, const LlmJinjaString *b,
			LlmJinjaValue *out)
{
	bool is_markup = a->is_markup || b->is_markup;
	LlmJinjaString *result;
	LlmStrbuf buf;

	if (!is_markup && b->len <= LLM_JINJA_MAX_OUTPUT_BYTES &&
		a->len <= LLM_JINJA_MAX_OUTPUT_BYTES - b->len)
		return join_strings(run, a, b, out);
	llm_jinja_init_buffer(&buf);
	if (is_markup && !a->is_markup)
		llm_jinja_escape_html(a, &buf);
	else
		llm_strbuf_append(&buf, a->data, a->len);
	if (is_markup && !b->is_markup)
		llm_jinja_escape_html(b, &buf);
	else
		llm_strbuf_append(&buf, b->data, b->len);
	if (!llm_jinja_finish_string(run, &buf, true, out))
		return false;
	if (!is_markup)
		return true;
	result = llm_jinja_alloc(run, sizeof(*result));
	if (result == NULL)
		return false;
	*result = *out->string;
	result->is_markup = true;
	out->string = result;
	return true;
}

static bool
add_lists(LlmJinjaRun *run, LlmJinjaValue left, LlmJinjaValue right,
		  LlmJinjaValue *out)
{
	const LlmJinjaList *a = left.list;
	const LlmJinjaList *b = right.list;
	LlmJinjaList *list = llm_jinja_create_list(run, a->n_items + b->n_items);

	if (list == NULL || !llm_jinja_charge(run, a->n_items + b->n_items))
		return false;
	if (a->n_items > 0)
		memcpy(list->items, a->items, a->n_items * sizeof(LlmJinjaValue));
	if (b->n_items > 0)
		memcpy(list->items + a->n_items, b->items,
			   b->n_items * sizeof(LlmJinjaValue));
	list->n_items = a->n_items + b->n_items;
	*out = left.kind == LLM_JINJA_LIST ? llm_jinja_list(list)
									   : llm_jinja_tuple(list);
	return true;
}

static bool
is_sequence(LlmJinjaValue value)
{
	return value.kind == LLM_JINJA_STRING || value.kind == LLM_JINJA_LIST ||
		   value.kind == LLM_JINJA_TUPLE;
}

static bool
add_sequences(LlmJinjaRun *run, LlmJinjaValue left, LlmJinjaValue right,
			  LlmJinjaValue *out)
{
	if (left.kind != right.kind)
	{
		const char *type = llm_jinja_type_name(left);

		return llm_jinja_fail(run, "can only concatenate %s (not \"%s\") to %s",
							  type, llm_jinja_type_name(right), type);
	}
	if (left.kind == LLM_JINJA_STRING)
		return add_strings(run, left.string, right.string, out);
	return add_lists(run, left, right, out);
}

static bool
repeat_string(LlmJinjaRun *run, const LlmJinjaString *string, int64_t n,
			  LlmJinjaValue *out)
{
	LlmStrbuf buf;

	llm_jinja_init_buffer(&buf);
	for (int64_t i = 0; i < n && string->len > 0 && !buf.failed; i++)
		llm_strbuf_append(&buf, string->data, string->len);
	return llm_jinja_finish_string(run, &buf, true, out);
}

static bool
repeat_list(LlmJinjaRun *run, LlmJinjaValue value, int64_t n,
			LlmJinjaValue *out)
{
	LlmJinjaList *list = llm_jinja_create_list(run, 0);

	if (list == NULL)
		return false;
	for (int64_t i = 0; i < n && value.list->n_items > 0; i++)
		for (size_t j = 0; j < value.list->n_items; j++)
			if (!llm_jinja_push(run, list, value.list->items[j]))
				return false;
	*out = value.kind == LLM_JINJA_LIST ? llm_jinja_list(list)
										: llm_jinja_tuple(list);
	return true;
}

static bool
repeat(LlmJinjaRun *run, LlmJinjaValue sequence, LlmJinjaValue times,
	   LlmJinjaValue *out)
{
	int64_t n;

	if (!llm_jinja_as_int(times, &n))
		return llm_jinja_fail(run,
							  "can't multiply sequence by non-int of type '%s'",
							  llm_jinja_type_name(times));
	if (sequence.kind == LLM_JINJA_STRING)
		return repeat_string(run, sequence.string, n, out);
	return repeat_list(run, sequence, n, out);
}

/* ---- all of them ---- */

bool
llm_jinja_operate(LlmJinjaRun *run, LlmJinjaOperator op, LlmJinjaValue left,
				  LlmJinjaValue right, LlmJinjaValue *out)
{
	if (llm_jinja_is_number(left) && llm_jinja_is_number(right))
		return operate_numbers(run, op, left, right, out);
	if (op == LLM_JINJA_MODULO && left.kind == LLM_JINJA_STRING)
		return llm_jinja_format_percent(run, left.string, right, out);
	if (left.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, left);
	if (right.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, right);
	if (op == LLM_JINJA_ADD && is_sequence(left))
		return add_sequences(run, left, right, out);
	if (op == LLM_JINJA_MULTIPLY && is_sequence(left))
		return repeat(run, left, right, out);
	if (op == LLM_JINJA_MULTIPLY && is_sequence(right))
		return repeat(run, right, left, out);
	return fail_operands(run, op, left, right);
}

/* "-" before digits: a literal like -9223372036854775808 fits an int64. */
static bool
negate_bigint(LlmJinjaRun *run, const LlmJinjaString *digits,
			  LlmJinjaValue *out)
{
	bool was_negative = digits->data[0] == '-';
	LlmStrbuf buf;

	if (!was_negative && digits->len == 19 &&
		memcmp(digits->data, "9223372036854775808", 19) == 0)
	{
		*out = llm_jinja_int(INT64_MIN);
		return true;
	}
	llm_jinja_init_buffer(&buf);
	if (!was_negative)
		llm_strbuf_append_char(&buf, '-');
	llm_strbuf_append(&buf, digits->data + was_negative,
					  digits->len - was_negative);
	if (!llm_jinja_finish_string(run, &buf, true, out))
		return false;
	out->kind = LLM_JINJA_BIGINT;
	return true;
}

bool
llm_jinja_negate(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaValue *out)
{
	int64_t integer;

	if (value.kind == LLM_JINJA_FLOAT)
		*out = llm_jinja_float(-value.real);
	else if (llm_jinja_as_int(value, &integer))
	{
		if (__builtin_sub_overflow((int64_t) 0, integer, &integer))
			return fail_overflow(run);
		*out = llm_jinja_int(integer);
	}
	else if (value.kind == LLM_JINJA_BIGINT)
		return negate_bigint(run, value.string, out);
	else if (value.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, value);
	else
		return llm_jinja_fail(run, "bad operand type for unary -: '%s'",
							  llm_jinja_type_name(value));
	return true;
}

bool
llm_jinja_plus(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaValue *out)
{
	int64_t integer;

	*out = value;
	if (value.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, value);
	if (!llm_jinja_is_number(value))
		return llm_jinja_fail(run, "bad operand type for unary +: '%s'",
							  llm_jinja_type_name(value));
	if (llm_jinja_as_int(value, &integer))
		*out = llm_jinja_int(integer);
	return true;
}
