/*
 * jinja_tests.c
 *	  The tests of the template language: "x is defined".
 *
 * src/common/template/jinja_tests.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/common/template/jinja_object.h"
#include "src/common/template/jinja_text.h"

static bool
answer(LlmJinjaValue *out, bool result)
{
	*out = llm_jinja_bool(result);
	return true;
}

/* value % divisor == wanted */
static bool
test_rest(LlmJinjaRun *run, const LlmJinjaValue operand[2], int64_t wanted,
		  LlmJinjaValue *out)
{
	LlmJinjaValue rest;
	bool same;

	if (operand[0].kind == LLM_JINJA_BIGINT)
	{
		const LlmJinjaString *digits = operand[0].string;
		LlmJinjaValue last = llm_jinja_int(digits->data[digits->len - 1] - '0');

		if (operand[1].kind == LLM_JINJA_INT && operand[1].integer == 2)
			return test_rest(run, (LlmJinjaValue[2]){ last, operand[1] },
							 wanted, out);
	}
	if (!llm_jinja_operate(run, LLM_JINJA_MODULO, operand[0], operand[1],
						   &rest) ||
		!llm_jinja_equal(run, rest, llm_jinja_int(wanted), &same))
		return false;
	return answer(out, same);
}

static bool
test_odd(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return test_rest(run, (LlmJinjaValue[2]){ call->self, llm_jinja_int(2) }, 1,
					 out);
}

static bool
test_even(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return test_rest(run, (LlmJinjaValue[2]){ call->self, llm_jinja_int(2) }, 0,
					 out);
}

static bool
test_divisibleby(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return test_rest(run, (LlmJinjaValue[2]){ call->self, call->slot[0] }, 0,
					 out);
}

/* ---- kinds ---- */

static bool
test_defined(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind != LLM_JINJA_UNDEFINED);
}

static bool
test_undefined(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind == LLM_JINJA_UNDEFINED);
}

static bool
test_none(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind == LLM_JINJA_NONE);
}

static bool
test_boolean(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind == LLM_JINJA_BOOL);
}

static bool
test_true(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind == LLM_JINJA_BOOL && call->self.boolean);
}

static bool
test_false(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out,
				  call->self.kind == LLM_JINJA_BOOL && !call->self.boolean);
}

static bool
test_integer(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind == LLM_JINJA_INT ||
						   call->self.kind == LLM_JINJA_BIGINT);
}

static bool
test_float(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind == LLM_JINJA_FLOAT);
}

static bool
test_number(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, llm_jinja_is_number(call->self));
}

static bool
test_string(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind == LLM_JINJA_STRING);
}

static bool
test_mapping(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind == LLM_JINJA_DICT);
}

/* Has a length and items: undefined values count, dicts too. */
static bool
test_sequence(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	int64_t length;

	(void) run;
	return answer(out, call->self.kind != LLM_JINJA_VIEW &&
						   llm_jinja_length(call->self, &length));
}

static bool
test_iterable(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, llm_jinja_is_iterable(call->self));
}

static bool
test_callable(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	uint8_t kind = call->self.kind;

	(void) run;
	return answer(out,
				  kind == LLM_JINJA_UNDEFINED || kind == LLM_JINJA_LOOP ||
					  kind == LLM_JINJA_MACRO || kind == LLM_JINJA_METHOD ||
					  kind == LLM_JINJA_FUNCTION || kind == LLM_JINJA_JOINER);
}

static bool
test_escaped(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return answer(out, call->self.kind == LLM_JINJA_STRING &&
						   call->self.string->is_markup);
}

/* Is there a built-in of that name?  Names are the keys of a dict. */
static bool
answer_known(LlmJinjaRun *run, LlmJinjaValue name,
			 const LlmJinjaBuiltin *(*find)(const char *name, size_t len),
			 LlmJinjaValue *out)
{
	if (!llm_jinja_is_hashable(name))
		return llm_jinja_fail(run, "unhashable type: '%s'",
							  llm_jinja_type_name(name));
	return answer(out, name.kind == LLM_JINJA_STRING &&
						   find(name.string->data, name.string->len) != NULL);
}

static bool
test_filter(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return answer_known(run, call->self, llm_jinja_find_filter, out);
}

static bool
test_test(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return answer_known(run, call->self, llm_jinja_find_test, out);
}

/* ---- texts ---- */

/* Some cased letter, and none of the other case. */
static bool
is_all_of(const LlmJinjaString *string, bool upper)
{
	bool found = false;
	int n;

	for (size_t at = 0; at < string->len; at += (size_t) n)
	{
		uint32_t c = llm_jinja_char_at(string->data, string->len, at, &n);
		bool is_upper = llm_jinja_is_upper_char(c);
		bool is_lower = llm_jinja_is_lower_char(c);

		if ((upper ? is_lower : is_upper) || llm_jinja_is_title_char(c))
			return false;
		found = found || (upper ? is_upper : is_lower);
	}
	return found;
}

static bool
test_case(LlmJinjaRun *run, const LlmJinjaCall *call, bool upper,
		  LlmJinjaValue *out)
{
	LlmJinjaValue text;

	if (!llm_jinja_to_string(run, call->self, &text))
		return false;
	return answer(out, is_all_of(text.string, upper));
}

static bool
test_lower(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return test_case(run, call, false, out);
}

static bool
test_upper(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return test_case(run, call, true, out);
}

/* ---- comparisons ---- */

static bool
test_equal(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	bool same;

	return llm_jinja_equal(run, call->self, call->slot[0], &same) &&
		   answer(out, same);
}

static bool
test_unequal(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	bool same;

	return llm_jinja_equal(run, call->self, call->slot[0], &same) &&
		   answer(out, !same);
}

static bool
test_order(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaOrder order,
		   LlmJinjaValue *out)
{
	LlmJinjaValue pair[2] = { call->self, call->slot[0] };
	bool result;

	return llm_jinja_order(run, order, pair, &result) && answer(out, result);
}

static bool
test_less(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return test_order(run, call, LLM_JINJA_LESS, out);
}

static bool
test_less_equal(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return test_order(run, call, LLM_JINJA_LESS_EQUAL, out);
}

static bool
test_greater(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return test_order(run, call, LLM_JINJA_GREATER, out);
}

static bool
test_greater_equal(LlmJinjaRun *run, const LlmJinjaCall *call,
				   LlmJinjaValue *out)
{
	return test_order(run, call, LLM_JINJA_GREATER_EQUAL, out);
}

static bool
test_in(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	bool found;

	return llm_jinja_contains(run, call->slot[0], call->self, &found) &&
		   answer(out, found);
}

/* Identity: of the constants, small numbers and objects themselves. */
static bool
test_sameas(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue a = call->self;
	LlmJinjaValue b = call->slot[0];
	bool same = a.kind == b.kind;

	(void) run;
	if (a.kind == LLM_JINJA_BOOL)
		same = same && a.boolean == b.boolean;
	else if (a.kind == LLM_JINJA_INT)
		same = same && a.integer == b.integer && a.integer >= -5 &&
			   a.integer <= 256;
	else if (a.kind == LLM_JINJA_FLOAT)
		same = false;
	else if (a.kind == LLM_JINJA_STRING)
		same = same && a.string->data == b.string->data &&
			   a.string->len == b.string->len;
	else if (a.kind != LLM_JINJA_NONE)
		same = same && a.list == b.list;
	return answer(out, same);
}

const LlmJinjaBuiltin *
llm_jinja_find_test(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "defined", "", test_defined },
		{ "undefined", "", test_undefined },
		{ "none", "", test_none },
		{ "string", "", test_string },
		{ "mapping", "", test_mapping },
		{ "iterable", "", test_iterable },
		{ "sequence", "", test_sequence },
		{ "number", "", test_number },
		{ "integer", "", test_integer },
		{ "float", "", test_float },
		{ "boolean", "", test_boolean },
		{ "true", "", test_true },
		{ "false", "", test_false },
		{ "callable", "", test_callable },
		{ "odd", "", test_odd },
		{ "even", "", test_even },
		{ "divisibleby", "num", test_divisibleby },
		{ "lower", "", test_lower },
		{ "upper", "", test_upper },
		{ "escaped", "", test_escaped },
		{ "filter", "", test_filter },
		{ "test", "", test_test },
		{ "sameas", "other", test_sameas },
		{ "in", "seq", test_in },
		{ "==", "other/", test_equal },
		{ "eq", "other/", test_equal },
		{ "equalto", "other/", test_equal },
		{ "!=", "other/", test_unequal },
		{ "ne", "other/", test_unequal },
		{ "<", "other/", test_less },
		{ "lt", "other/", test_less },
		{ "lessthan", "other/", test_less },
		{ "<=", "other/", test_less_equal },
		{ "le", "other/", test_less_equal },
		{ ">", "other/", test_greater },
		{ "gt", "other/", test_greater },
		{ "greaterthan", "other/", test_greater },
		{ ">=", "other/", test_greater_equal },
		{ "ge", "other/", test_greater_equal },
	};

	return llm_jinja_find_builtin(table, sizeof(table) / sizeof(table[0]), name,
								  len);
}

static bool
name_is_known(LlmJinjaRun *run, LlmJinjaValue name, const char *kind,
			  const LlmJinjaBuiltin *builtin)
{
	LlmStrbuf repr;

	if (builtin != NULL)
		return true;
	llm_jinja_init_buffer(&repr);
	if (llm_jinja_repr(run, name, &repr))
		llm_jinja_fail(run, "No %s named %s.%s", kind, llm_strbuf_str(&repr),
					   name.kind == LLM_JINJA_UNDEFINED
						   ? " (Did you forget to quote the callable name?)"
						   : "");
	llm_strbuf_free(&repr);
	return false;
}

bool
llm_jinja_apply_test(LlmJinjaRun *run, LlmJinjaValue name, LlmJinjaValue self,
					 const LlmJinjaArgs *args, bool *out)
{
	const LlmJinjaBuiltin *builtin = NULL;
	LlmJinjaValue result;

	if (name.kind == LLM_JINJA_STRING)
		builtin = llm_jinja_find_test(name.string->data, name.string->len);
	if (!name_is_known(run, name, "test", builtin) ||
		!llm_jinja_call_builtin(run, builtin, self, args, &result))
		return false;
	*out = llm_jinja_truth(result);
	return true;
}

bool
llm_jinja_apply_filter(LlmJinjaRun *run, LlmJinjaValue name, LlmJinjaValue self,
					   const LlmJinjaArgs *args, LlmJinjaValue *out)
{
	const LlmJinjaBuiltin *builtin = NULL;

	if (name.kind == LLM_JINJA_STRING)
		builtin = llm_jinja_find_filter(name.string->data, name.string->len);
	return name_is_known(run, name, "filter", builtin) &&
		   llm_jinja_call_builtin(run, builtin, self, args, out);
}
