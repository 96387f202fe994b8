/*
 * jinja_eval.c
 *	  Evaluate expressions.
 *
 * One function per kind of node, called through a table so that each level
 * of recursion takes only the stack of its own kind.
 *
 * src/common/template/jinja_eval.c
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "src/common/template/jinja_ast.h"
#include "src/common/template/jinja_object.h"

typedef bool (*EvalFunction)(LlmJinjaRun *run, LlmJinjaFrame *frame,
							 const LlmJinjaExpr *expr, LlmJinjaValue *out);

bool
llm_jinja_enter(LlmJinjaRun *run)
{
	if (!llm_jinja_charge(run, 1))
		return false;
	if (run->depth >= LLM_JINJA_MAX_DEPTH)
		return llm_error_set(run->err, LLM_ERROR_LIMIT,
							 "chat template line %d: recursion is more than %d "
							 "deep",
							 run->line, LLM_JINJA_MAX_DEPTH);
	run->depth++;
	return true;
}

LlmJinjaValue *
llm_jinja_locate(LlmJinjaFrame *frame, LlmJinjaPlace place)
{
	for (int i = 0; i < place.n_out; i++)
	{
		frame = frame->outer;
		assert(frame != NULL);
	}
	return &frame->slots[place.slot];
}

static bool
eval_const(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
		   LlmJinjaValue *out)
{
	(void) run;
	(void) frame;
	*out = expr->constant;
	return true;
}

static bool
eval_name(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
		  LlmJinjaValue *out)
{
	*out = *llm_jinja_locate(frame, expr->name.place);
	if (out->kind != LLM_JINJA_MISSING)
		return true;
	return llm_jinja_make_undefined(run, NULL, llm_jinja_text(expr->name.name),
									out);
}

static bool
eval_list(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
		  LlmJinjaValue *out)
{
	LlmJinjaList *list = llm_jinja_create_list(run, expr->list.n_items);

	if (list == NULL)
		return false;
	for (size_t i = 0; i < expr->list.n_items; i++)
		if (!llm_jinja_eval(run, frame, expr->list.items[i], &list->items[i]))
			return false;
	list->n_items = expr->list.n_items;
	*out = expr->kind == LLM_JINJA_EXPR_LIST ? llm_jinja_list(list)
											 : llm_jinja_tuple(list);
	return true;
}

static bool
eval_dict(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
		  LlmJinjaValue *out)
{
	LlmJinjaDict *dict = llm_jinja_create_dict(run);

	if (dict == NULL)
		return false;
	for (size_t i = 0; i < expr->list.n_items; i += 2)
	{
		LlmJinjaValue key;
		LlmJinjaValue value;

		if (!llm_jinja_eval(run, frame, expr->list.items[i], &key) ||
			!llm_jinja_eval(run, frame, expr->list.items[i + 1], &value) ||
			!llm_jinja_dict_set(run, dict, key, value))
			return false;
	}
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_DICT, .dict = dict };
	return true;
}

static bool
eval_attribute(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
			   LlmJinjaValue *out)
{
	LlmJinjaValue object;

	if (!llm_jinja_eval(run, frame, expr->attribute.object, &object))
		return false;
	run->line = expr->line;
	return llm_jinja_get_attribute(run, object, expr->attribute.name, out);
}

static bool
eval_item(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
		  LlmJinjaValue *out)
{
	LlmJinjaValue object;
	LlmJinjaValue key;

	if (!llm_jinja_eval(run, frame, expr->operands.left, &object) ||
		!llm_jinja_eval(run, frame, expr->operands.right, &key))
		return false;
	run->line = expr->line;
	return llm_jinja_get_item(run, object, key, out);
}

static bool
eval_slice(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
		   LlmJinjaValue *out)
{
	LlmJinjaValue object;
	LlmJinjaValue bounds[3];

	if (!llm_jinja_eval(run, frame, expr->slice.object, &object))
		return false;
	for (int i = 0; i < 3; i++)
	{
		bounds[i] = llm_jinja_none();
		if (expr->slice.bounds[i] != NULL &&
			!llm_jinja_eval(run, frame, expr->slice.bounds[i], &bounds[i]))
			return false;
	}
	run->line = expr->line;
	return llm_jinja_slice(run, object, bounds, out);
}

/* ---- arguments ---- */

static bool
add_kwarg(LlmJinjaRun *run, LlmJinjaArgs *args, size_t capacity,
		  LlmJinjaKwarg kwarg)
{
	assert(args->n_kwargs < capacity);
	(void) capacity;
	for (size_t i = 0; i < args->n_kwargs; i++)
		if (args->kwargs[i].name->len == kwarg.name->len &&
			memcmp(args->kwargs[i].name->data, kwarg.name->data,
				   kwarg.name->len) == 0)
			return llm_jinja_fail(run,
								  "got multiple values for keyword argument "
								  "'%.*s'",
								  (int) kwarg.name->len, kwarg.name->data);
	args->kwargs[args->n_kwargs++] = kwarg;
	return true;
}

static bool
eval_kwargs(LlmJinjaRun *run, LlmJinjaFrame *frame,
			const LlmJinjaArgExprs *exprs, LlmJinjaArgs *args)
{
	LlmJinjaValue more = llm_jinja_none();
	size_t capacity = exprs->n_kwargs;

	if (exprs->more_kwargs != NULL)
	{
		if (!llm_jinja_eval(run, frame, exprs->more_kwargs, &more))
			return false;
		if (more.kind != LLM_JINJA_DICT)
			return llm_jinja_fail(run,
								  "argument after ** must be a mapping, not %s",
								  llm_jinja_type_name(more));
		capacity += more.dict->n_entries;
	}
	args->n_kwargs = 0;
	/* one more: a call block adds its caller */
	args->kwargs = llm_jinja_alloc(run, (capacity + 1) * sizeof(LlmJinjaKwarg));
	if (args->kwargs == NULL)
		return false;
	for (size_t i = 0; i < exprs->n_kwargs; i++)
	{
		LlmJinjaKwarg kwarg = { .name = exprs->kwargs[i].name };

		if (!llm_jinja_eval(run, frame, exprs->kwargs[i].value, &kwarg.value) ||
			!add_kwarg(run, args, capacity, kwarg))
			return false;
	}
	for (size_t i = 0; more.kind == LLM_JINJA_DICT && i < more.dict->n_entries;
		 i++)
	{
		LlmJinjaEntry *entry = &more.dict->entries[i];

		if (entry->key.kind != LLM_JINJA_STRING)
			return llm_jinja_fail(run, "keywords must be strings");
		if (!add_kwarg(run, args, capacity,
					   (LlmJinjaKwarg){ entry->key.string, entry->value }))
			return false;
	}
	return true;
}

bool
llm_jinja_eval_args(LlmJinjaRun *run, LlmJinjaFrame *frame,
					const LlmJinjaArgExprs *exprs, LlmJinjaArgs *args)
{
	LlmJinjaList *more = NULL;
	LlmJinjaValue value;

	args->n_args = exprs->n_args;
	args->args = llm_jinja_alloc(run, exprs->n_args * sizeof(LlmJinjaValue));
	if (args->args == NULL)
		return false;
	for (size_t i = 0; i < exprs->n_args; i++)
		if (!llm_jinja_eval(run, frame, exprs->args[i], &args->args[i]))
			return false;
	if (exprs->more_args != NULL)
	{
		LlmJinjaList given = { args->args, args->n_args, args->n_args };

		if (!llm_jinja_eval(run, frame, exprs->more_args, &value) ||
			!llm_jinja_collect(run, value, &more))
			return false;
		for (size_t i = 0; i < more->n_items; i++)
			if (!llm_jinja_push(run, &given, more->items[i]))
				return false;
		args->args = given.items;
		args->n_args = given.n_items;
	}
	return eval_kwargs(run, frame, exprs, args);
}

/* ---- calls, filters, tests ---- */

static bool
eval_call(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
		  LlmJinjaValue *out)
{
	LlmJinjaValue callee;
	LlmJinjaArgs args;

	if (!llm_jinja_eval(run, frame, expr->call.callee, &callee) ||
		!llm_jinja_eval_args(run, frame, expr->call.args, &args))
		return false;
	run->line = expr->line;
	if (!llm_jinja_call(run, callee, &args, out))
		return false;
	run->line = expr->line;
	return true;
}

static bool
apply_builtin(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
			  LlmJinjaValue input, LlmJinjaValue *out)
{
	LlmJinjaArgs args;

	if (!llm_jinja_eval_args(run, frame, expr->apply.args, &args))
		return false;
	run->line = expr->line;
	if (expr->apply.builtin == NULL)
		return llm_jinja_fail(
			run, "No %s named '%.*s' found.",
			expr->kind == LLM_JINJA_EXPR_FILTER ? "filter" : "test",
			(int) expr->apply.name->len, expr->apply.name->data);
	return llm_jinja_call_builtin(run, expr->apply.builtin, input, &args, out);
}

static bool
eval_apply(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
		   LlmJinjaValue *out)
{
	LlmJinjaValue input;

	assert(expr->apply.input != NULL);
	return llm_jinja_eval(run, frame, expr->apply.input, &input) &&
		   apply_builtin(run, frame, expr, input, out);
}

bool
llm_jinja_eval_filter(LlmJinjaRun *run, LlmJinjaFrame *frame,
					  const LlmJinjaExpr *expr, LlmJinjaValue input,
					  LlmJinjaValue *out)
{
	assert(expr->kind == LLM_JINJA_EXPR_FILTER);
	if (expr->apply.input != NULL &&
		!llm_jinja_eval_filter(run, frame, expr->apply.input, input, &input))
		return false;
	return apply_builtin(run, frame, expr, input, out);
}

/* ---- operators ---- */

static bool
eval_unary(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
		   LlmJinjaValue *out)
{
	LlmJinjaValue operand;

	if (!llm_jinja_eval(run, frame, expr->operands.left, &operand))
		return false;
	run->line = expr->line;
	if (expr->kind == LLM_JINJA_EXPR_NEGATE)
		return llm_jinja_negate(run, operand, out);
	if (expr->kind == LLM_JINJA_EXPR_PLUS)
		return llm_jinja_plus(run, operand, out);
	assert(expr->kind == LLM_JINJA_EXPR_NOT);
	*out = llm_jinja_bool(!llm_jinja_truth(operand));
	return true;
}

static bool
eval_binary(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
			LlmJinjaValue *out)
{
	LlmJinjaValue left;
	LlmJinjaValue right;

	if (!llm_jinja_eval(run, frame, expr->operands.left, &left) ||
		!llm_jinja_eval(run, frame, expr->operands.right, &right))
		return false;
	run->line = expr->line;
	return llm_jinja_operate(run, (LlmJinjaOperator) expr->op, left, right,
							 out);
}

static bool
eval_and_or(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
			LlmJinjaValue *out)
{
	if (!llm_jinja_eval(run, frame, expr->operands.left, out))
		return false;
	if (llm_jinja_truth(*out) == (expr->kind == LLM_JINJA_EXPR_OR))
		return true;
	return llm_jinja_eval(run, frame, expr->operands.right, out);
}

static bool
eval_concat(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
			LlmJinjaValue *out)
{
	LlmJinjaList *items = llm_jinja_create_list(run, expr->list.n_items);
	LlmStrbuf buf;
	bool ok = true;

	if (items == NULL)
		return false;
	for (size_t i = 0; i < expr->list.n_items; i++)
		if (!llm_jinja_eval(run, frame, expr->list.items[i], &items->items[i]))
			return false;
	run->line = expr->line;
	llm_jinja_init_buffer(&buf);
	for (size_t i = 0; ok && i < expr->list.n_items; i++)
		ok = llm_jinja_print(run, items->items[i], &buf);
	return llm_jinja_finish_string(run, &buf, ok, out);
}

static bool
compare(LlmJinjaRun *run, uint8_t op, const LlmJinjaValue pair[2], bool *result)
{
	bool ok;

	switch (op)
	{
		case LLM_JINJA_COMPARE_EQUAL:
		case LLM_JINJA_COMPARE_UNEQUAL:
			ok = llm_jinja_equal(run, pair[0], pair[1], result);
			break;
		case LLM_JINJA_COMPARE_IN:
		case LLM_JINJA_COMPARE_NOT_IN:
			ok = llm_jinja_contains(run, pair[1], pair[0], result);
			break;
		default:
			return llm_jinja_order(run, (LlmJinjaOrder) op, pair, result);
	}
	if (op == LLM_JINJA_COMPARE_UNEQUAL || op == LLM_JINJA_COMPARE_NOT_IN)
		*result = !*result;
	return ok;
}

/* "a < b < c" evaluates b once, and c only where a < b. */
static bool
eval_compare(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
			 LlmJinjaValue *out)
{
	LlmJinjaValue pair[2];
	bool result = true;

	if (!llm_jinja_eval(run, frame, expr->list.items[0], &pair[0]))
		return false;
	for (size_t i = 1; result && i < expr->list.n_items; i++)
	{
		if (!llm_jinja_eval(run, frame, expr->list.items[i], &pair[1]))
			return false;
		run->line = expr->line;
		if (!compare(run, expr->list.comparisons[i - 1], pair, &result))
			return false;
		pair[0] = pair[1];
	}
	*out = llm_jinja_bool(result);
	return true;
}

static bool
eval_condition(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
			   LlmJinjaValue *out)
{
	LlmJinjaValue test;
	LlmJinjaValue hint;
	LlmStrbuf buf;

	if (!llm_jinja_eval(run, frame, expr->condition.test, &test))
		return false;
	if (llm_jinja_truth(test))
		return llm_jinja_eval(run, frame, expr->condition.then, out);
	if (expr->condition.otherwise != NULL)
		return llm_jinja_eval(run, frame, expr->condition.otherwise, out);
	llm_jinja_init_buffer(&buf);
	llm_strbuf_printf(&buf,
					  "the inline if-expression on line %d evaluated to false "
					  "and no else section was defined.",
					  expr->line);
	llm_strbuf_append(&buf, "", 1);
	return llm_jinja_finish_string(run, &buf, true, &hint) &&
		   llm_jinja_make_undefined_hint(run, hint.string->data, out);
}

static bool
eval_nothing(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
			 LlmJinjaValue *out)
{
	(void) frame;
	(void) expr;
	(void) out;
	return llm_jinja_fail(run, "a namespace reference has no value");
}

bool
llm_jinja_eval(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *expr,
			   LlmJinjaValue *out)
{
	static const EvalFunction functions[LLM_JINJA_EXPR_KIND_COUNT] = {
		[LLM_JINJA_EXPR_CONST] = eval_const,
		[LLM_JINJA_EXPR_NAME] = eval_name,
		[LLM_JINJA_EXPR_TUPLE] = eval_list,
		[LLM_JINJA_EXPR_LIST] = eval_list,
		[LLM_JINJA_EXPR_DICT] = eval_dict,
		[LLM_JINJA_EXPR_ATTRIBUTE] = eval_attribute,
		[LLM_JINJA_EXPR_ITEM] = eval_item,
		[LLM_JINJA_EXPR_SLICE] = eval_slice,
		[LLM_JINJA_EXPR_CALL] = eval_call,
		[LLM_JINJA_EXPR_FILTER] = eval_apply,
		[LLM_JINJA_EXPR_TEST] = eval_apply,
		[LLM_JINJA_EXPR_NEGATE] = eval_unary,
		[LLM_JINJA_EXPR_PLUS] = eval_unary,
		[LLM_JINJA_EXPR_NOT] = eval_unary,
		[LLM_JINJA_EXPR_BINARY] = eval_binary,
		[LLM_JINJA_EXPR_AND] = eval_and_or,
		[LLM_JINJA_EXPR_OR] = eval_and_or,
		[LLM_JINJA_EXPR_CONCAT] = eval_concat,
		[LLM_JINJA_EXPR_COMPARE] = eval_compare,
		[LLM_JINJA_EXPR_CONDITION] = eval_condition,
		[LLM_JINJA_EXPR_NAMESPACE_REF] = eval_nothing,
	};
	bool ok;

	assert(expr->kind < LLM_JINJA_EXPR_KIND_COUNT);
	if (!llm_jinja_enter(run))
		return false;
	run->line = expr->line;
	ok = functions[expr->kind](run, frame, expr, out);
	llm_jinja_leave(run);
	return ok;
}
