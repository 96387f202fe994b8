/*
 * jinja_exec.c
 *	  Run statements.
 *
 * Text goes to run->out; what captures text (macros, set and filter blocks)
 * puts its own buffer there meanwhile.  A break or continue sets run->jump
 * and unwinds to its loop by returning true.
 *
 * src/common/template/jinja_exec.c
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "src/common/template/jinja_ast.h"
#include "src/common/template/jinja_object.h"

typedef bool (*ExecFunction)(LlmJinjaRun *run, LlmJinjaFrame *frame,
							 const LlmJinjaStmt *stmt);

/* ---- frames ---- */

LlmJinjaFrame *
llm_jinja_create_frame(LlmJinjaRun *run, const LlmJinjaScope *scope,
					   LlmJinjaFrame *outer)
{
	LlmJinjaFrame *frame = llm_jinja_alloc(
		run, sizeof(*frame) + scope->n_slots * sizeof(LlmJinjaValue));

	if (frame == NULL)
		return NULL;
	frame->outer = outer;
	for (size_t i = 0; i < scope->n_slots; i++)
		frame->slots[i] = llm_jinja_missing();
	return frame;
}

/* The caller's variable, else a global function, else MISSING. */
static LlmJinjaValue
find_variable(const LlmJinjaRun *run, const LlmJinjaString *name)
{
	LlmJinjaValue value =
		llm_jinja_dict_find(run->exported, name->data, name->len);
	const LlmJinjaBuiltin *function;

	if (value.kind == LLM_JINJA_MISSING)
		value = llm_jinja_dict_find(run->variables, name->data, name->len);
	if (value.kind != LLM_JINJA_MISSING)
		return value;
	function = llm_jinja_find_global(name->data, name->len);
	if (function == NULL)
		return value;
	return (LlmJinjaValue){ .kind = LLM_JINJA_FUNCTION, .function = function };
}

bool
llm_jinja_enter_scope(LlmJinjaRun *run, const LlmJinjaScope *scope,
					  LlmJinjaFrame *frame)
{
	if (!llm_jinja_charge(run, scope->n_slots))
		return false;
	for (size_t i = 0; i < scope->n_slots; i++)
	{
		const LlmJinjaSlot *slot = &scope->slots[i];

		switch (slot->load)
		{
			case LLM_JINJA_LOAD_PARAMETER:
				break;
			case LLM_JINJA_LOAD_CONTEXT:
				frame->slots[i] = find_variable(run, slot->name);
				break;
			case LLM_JINJA_LOAD_ALIAS:
				frame->slots[i] = *llm_jinja_locate(frame, slot->alias);
				break;
			case LLM_JINJA_LOAD_NOTHING:
				frame->slots[i] = llm_jinja_missing();
				break;
		}
	}
	return true;
}

/* Macros that outlive their scope find its variables unset. */
static void
leave_scope(const LlmJinjaScope *scope, LlmJinjaFrame *frame)
{
	for (size_t i = 0; i < scope->n_slots; i++)
		frame->slots[i] = llm_jinja_missing();
}

/* ---- assigning ---- */

static bool
check_unpacked(LlmJinjaRun *run, size_t n_wanted, size_t n_given)
{
	if (n_given < n_wanted)
		return llm_jinja_fail(run,
							  "not enough values to unpack (expected %zu, got "
							  "%zu)",
							  n_wanted, n_given);
	if (n_given > n_wanted)
		return llm_jinja_fail(run, "too many values to unpack (expected %zu)",
							  n_wanted);
	return true;
}

static bool
assign_tuple(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *target,
			 LlmJinjaValue value)
{
	LlmJinjaList *items;

	if (!llm_jinja_is_iterable(value))
		return llm_jinja_fail(run, "cannot unpack non-iterable %s object",
							  llm_jinja_type_name(value));
	if (!llm_jinja_collect(run, value, &items) ||
		!check_unpacked(run, target->list.n_items, items->n_items))
		return false;
	for (size_t i = 0; i < items->n_items; i++)
		if (!llm_jinja_assign(run, frame, target->list.items[i],
							  items->items[i]))
			return false;
	return true;
}

bool
llm_jinja_assign(LlmJinjaRun *run, LlmJinjaFrame *frame,
				 const LlmJinjaExpr *target, LlmJinjaValue value)
{
	LlmJinjaValue *place;

	if (target->kind == LLM_JINJA_EXPR_TUPLE)
		return assign_tuple(run, frame, target, value);
	place = llm_jinja_locate(frame, target->name.place);
	if (target->kind == LLM_JINJA_EXPR_NAME)
	{
		*place = value;
		return true;
	}
	assert(target->kind == LLM_JINJA_EXPR_NAMESPACE_REF);
	if (place->kind != LLM_JINJA_NAMESPACE)
		return llm_jinja_fail(run, "cannot assign attribute on non-namespace "
								   "object");
	return llm_jinja_set_namespace(
		run, place->dict, llm_jinja_text(target->name.attribute), value);
}

/* Before the value is evaluated: attributes go to namespaces only. */
static bool
check_namespaces(LlmJinjaRun *run, LlmJinjaFrame *frame,
				 const LlmJinjaExpr *target)
{
	if (target->kind == LLM_JINJA_EXPR_NAMESPACE_REF &&
		llm_jinja_locate(frame, target->name.place)->kind !=
			LLM_JINJA_NAMESPACE)
		return llm_jinja_fail(run, "cannot assign attribute on non-namespace "
								   "object");
	for (size_t i = 0;
		 target->kind == LLM_JINJA_EXPR_TUPLE && i < target->list.n_items; i++)
		if (!check_namespaces(run, frame, target->list.items[i]))
			return false;
	return true;
}

/* Let blocks see what was assigned at the top level. */
static bool
export_target(LlmJinjaRun *run, LlmJinjaFrame *frame,
			  const LlmJinjaExpr *target)
{
	if (target->kind == LLM_JINJA_EXPR_NAME)
		return llm_jinja_dict_set(run, run->exported,
								  llm_jinja_text(target->name.name),
								  *llm_jinja_locate(frame, target->name.place));
	for (size_t i = 0;
		 target->kind == LLM_JINJA_EXPR_TUPLE && i < target->list.n_items; i++)
		if (!export_target(run, frame, target->list.items[i]))
			return false;
	return true;
}

static bool
exec_set(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	LlmJinjaValue value;

	if (!check_namespaces(run, frame, stmt->set.target) ||
		!llm_jinja_eval(run, frame, stmt->set.value, &value))
		return false;
	run->line = stmt->line;
	return llm_jinja_assign(run, frame, stmt->set.target, value) &&
		   (!stmt->set.is_exported ||
			export_target(run, frame, stmt->set.target));
}

/* ---- output ---- */

static bool
check_output(LlmJinjaRun *run)
{
	if (!run->out->failed)
		return true;
	return llm_error_set(run->err, LLM_ERROR_LIMIT,
						 "chat template line %d: output is longer than %zu MiB",
						 run->line, LLM_JINJA_MAX_OUTPUT_BYTES >> 20);
}

static bool
exec_text(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	(void) frame;
	llm_strbuf_append(run->out, stmt->text->data, stmt->text->len);
	return check_output(run);
}

static bool
print_out(LlmJinjaRun *run, LlmJinjaValue value)
{
	return llm_jinja_print(run, value, run->out) && check_output(run);
}

static bool
exec_output(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	LlmJinjaValue value;

	return llm_jinja_eval(run, frame, stmt->output, &value) &&
		   print_out(run, value);
}

/* The text of a body; nothing of worth where a jump left it. */
static bool
capture(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaBody *body,
		LlmJinjaValue *out)
{
	LlmStrbuf *outside = run->out;
	LlmStrbuf buf;
	bool ok;

	llm_jinja_init_buffer(&buf);
	run->out = &buf;
	ok = llm_jinja_exec(run, frame, body);
	run->out = outside;
	return llm_jinja_finish_string(run, &buf, ok, out);
}

static bool
exec_capture(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	LlmJinjaFrame *inner =
		llm_jinja_create_frame(run, &stmt->capture.scope, frame);
	LlmJinjaValue text;

	if (inner == NULL ||
		!llm_jinja_enter_scope(run, &stmt->capture.scope, inner) ||
		!capture(run, inner, &stmt->capture.body, &text))
		return false;
	if (run->jump != LLM_JINJA_NO_JUMP)
		return true;
	run->line = stmt->line;
	if (stmt->capture.filter != NULL &&
		!llm_jinja_eval_filter(run, inner, stmt->capture.filter, text, &text))
		return false;
	if (stmt->capture.target == NULL)
		return print_out(run, text);
	return check_namespaces(run, frame, stmt->capture.target) &&
		   llm_jinja_assign(run, frame, stmt->capture.target, text) &&
		   (!stmt->capture.is_exported ||
			export_target(run, frame, stmt->capture.target));
}

/* ---- if, with, block ---- */

static bool
exec_if(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	for (size_t i = 0; i < stmt->choice.n_branches; i++)
	{
		const LlmJinjaBranch *branch = &stmt->choice.branches[i];
		LlmJinjaValue test;

		if (branch->test == NULL)
			return llm_jinja_exec(run, frame, &branch->body);
		if (!llm_jinja_eval(run, frame, branch->test, &test))
			return false;
		if (llm_jinja_truth(test))
			return llm_jinja_exec(run, frame, &branch->body);
	}
	return true;
}

static bool
exec_with(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	LlmJinjaFrame *inner =
		llm_jinja_create_frame(run, &stmt->with.scope, frame);
	bool ok;

	if (inner == NULL || !llm_jinja_enter_scope(run, &stmt->with.scope, inner))
		return false;
	for (size_t i = 0; i < stmt->with.n_targets; i++)
	{
		LlmJinjaValue value;

		if (!llm_jinja_eval(run, frame, stmt->with.values[i], &value) ||
			!llm_jinja_assign(run, inner, stmt->with.targets[i], value))
			return false;
	}
	ok = llm_jinja_exec(run, inner, &stmt->with.body);
	leave_scope(&stmt->with.scope, inner);
	return ok;
}

static bool
exec_block(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	LlmJinjaFrame *own = llm_jinja_create_frame(run, &stmt->block.scope, NULL);

	(void) frame;
	return own != NULL && llm_jinja_enter_scope(run, &stmt->block.scope, own) &&
		   llm_jinja_exec(run, own, &stmt->block.body);
}

/* ---- loops ---- */

/* The items of a loop that pass its test. */
typedef struct TestedItems
{
	const LlmJinjaForNode *node;
	LlmJinjaFrame *frame;
	LlmJinjaIterator *iterator; /* NULL: not begun */
} TestedItems;

/* What the test unpacked is passed on, for the item may be used up. */
static bool
repack(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaExpr *target,
	   LlmJinjaValue *item)
{
	LlmJinjaList *items;

	if (target->kind != LLM_JINJA_EXPR_TUPLE)
		return true;
	items = llm_jinja_create_list(run, target->list.n_items);
	if (items == NULL)
		return false;
	for (size_t i = 0; i < target->list.n_items; i++)
	{
		const LlmJinjaExpr *part = target->list.items[i];

		if (part->kind == LLM_JINJA_EXPR_NAME)
			items->items[i] = *llm_jinja_locate(frame, part->name.place);
		else if (!repack(run, frame, part, &items->items[i]))
			return false;
	}
	items->n_items = target->list.n_items;
	*item = llm_jinja_tuple(items);
	return true;
}

static bool
next_tested(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	TestedItems *tested = iterator->state;
	const LlmJinjaForNode *node = tested->node;
	LlmJinjaValue passed;

	if (tested->iterator == NULL &&
		(!llm_jinja_enter_scope(run, &node->test_scope, tested->frame) ||
		 !llm_jinja_iterate(run, iterator->source, &tested->iterator)))
		return false;
	for (;;)
	{
		if (!llm_jinja_next(run, tested->iterator, item))
			return false;
		if (item->kind == LLM_JINJA_MISSING)
			return true;
		if (!llm_jinja_assign(run, tested->frame, node->target, *item) ||
			!llm_jinja_eval(run, tested->frame, node->test, &passed))
			return false;
		if (llm_jinja_truth(passed))
			return repack(run, tested->frame, node->target, item);
	}
}

static bool
make_tested(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaForNode *node,
			LlmJinjaValue *iterable)
{
	TestedItems *tested = llm_jinja_alloc(run, sizeof(*tested));

	if (tested == NULL)
		return false;
	tested->node = node;
	tested->iterator = NULL;
	tested->frame = llm_jinja_create_frame(run, &node->test_scope, frame);
	return tested->frame != NULL &&
		   llm_jinja_make_generator(run, next_tested, *iterable, tested,
									iterable);
}

static bool
exec_else(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaForNode *node)
{
	LlmJinjaFrame *inner =
		llm_jinja_create_frame(run, &node->else_scope, frame);

	return inner != NULL &&
		   llm_jinja_enter_scope(run, &node->else_scope, inner) &&
		   llm_jinja_exec(run, inner, &node->otherwise);
}

/*
 * "else" runs unless some turn came to its end: as in jinja2, a turn that
 * continue or break cut short does not count.
 */
static bool
run_loop(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaForNode *node,
		 LlmJinjaLoop *loop)
{
	LlmJinjaFrame *inner = llm_jinja_create_frame(run, &node->scope, frame);
	LlmJinjaValue self = { .kind = LLM_JINJA_LOOP, .loop = loop };
	LlmJinjaValue item;
	LlmJinjaJump jump = LLM_JINJA_NO_JUMP;
	bool completed = false;
	int line = run->line;

	if (inner == NULL)
		return false;
	loop->recursive = node->recursive ? node : NULL;
	loop->frame = frame;
	while (jump != LLM_JINJA_BREAK)
	{
		run->line = line;
		if (!llm_jinja_loop_next(run, loop, &item))
			return false;
		if (item.kind == LLM_JINJA_MISSING)
			break;
		*llm_jinja_locate(inner, node->loop_place) = self;
		if (!llm_jinja_assign(run, inner, node->target, item) ||
			!llm_jinja_enter_scope(run, &node->scope, inner) ||
			!llm_jinja_exec(run, inner, &node->body))
			return false;
		jump = run->jump;
		run->jump = LLM_JINJA_NO_JUMP;
		completed = completed || jump == LLM_JINJA_NO_JUMP;
	}
	leave_scope(&node->scope, inner);
	return completed || !node->has_else || exec_else(run, frame, node);
}

static bool
begin_loop(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaForNode *node,
		   LlmJinjaValue iterable, int64_t depth0)
{
	LlmJinjaLoop *loop;

	if (node->test != NULL && !make_tested(run, frame, node, &iterable))
		return false;
	if (!llm_jinja_make_loop(run, iterable, &loop))
		return false;
	loop->depth0 = depth0;
	return run_loop(run, frame, node, loop);
}

static bool
exec_for(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	LlmJinjaValue iterable;

	if (!llm_jinja_eval(run, frame, stmt->loop->iterable, &iterable))
		return false;
	run->line = stmt->line;
	return begin_loop(run, frame, stmt->loop, iterable, 0);
}

bool
llm_jinja_call_loop(LlmJinjaRun *run, const LlmJinjaLoop *loop,
					LlmJinjaValue iterable, LlmJinjaValue *out)
{
	LlmStrbuf *outside = run->out;
	LlmStrbuf buf;
	bool ok;

	if (!llm_jinja_enter(run))
		return false;
	llm_jinja_init_buffer(&buf);
	run->out = &buf;
	ok = begin_loop(run, loop->frame, loop->recursive, iterable,
					loop->depth0 + 1);
	run->out = outside;
	llm_jinja_leave(run);
	return llm_jinja_finish_string(run, &buf, ok, out);
}

static bool
exec_jump(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	(void) frame;
	run->jump = stmt->kind == LLM_JINJA_STMT_BREAK ? LLM_JINJA_BREAK
												   : LLM_JINJA_CONTINUE;
	return true;
}

/* ---- macros ---- */

static bool
make_macro(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt,
		   LlmJinjaValue *out)
{
	LlmJinjaMacro *macro = llm_jinja_alloc(run, sizeof(*macro));

	if (macro == NULL)
		return false;
	macro->node = stmt->macro.node;
	macro->frame = frame;
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_MACRO, .macro = macro };
	return true;
}

static bool
exec_macro(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	const LlmJinjaExpr *target = stmt->macro.node->target;
	LlmJinjaValue value;

	return make_macro(run, frame, stmt, &value) &&
		   llm_jinja_assign(run, frame, target, value) &&
		   (!stmt->macro.is_exported || export_target(run, frame, target));
}

static bool
exec_call_block(LlmJinjaRun *run, LlmJinjaFrame *frame,
				const LlmJinjaStmt *stmt)
{
	static const LlmJinjaString caller = { "caller", 6, 6, false };
	const LlmJinjaExpr *call = stmt->macro.call;
	LlmJinjaValue callee;
	LlmJinjaValue result;
	LlmJinjaArgs args;

	if (!llm_jinja_eval(run, frame, call->call.callee, &callee) ||
		!llm_jinja_eval_args(run, frame, call->call.args, &args))
		return false;
	/* the arguments left room for this one */
	args.kwargs[args.n_kwargs].name = &caller;
	if (!make_macro(run, frame, stmt, &args.kwargs[args.n_kwargs].value))
		return false;
	args.n_kwargs++;
	run->line = call->line;
	return llm_jinja_call(run, callee, &args, &result) &&
		   print_out(run, result);
}

/* Note where a generation block's text is. */
static bool
note_generation(LlmJinjaRun *run, size_t begin)
{
	const LlmTemplateSpan span = { begin, run->out->len };

	if (run->spans == NULL)
		return true;
	if (run->out != run->page)
		run->spans->is_partial = true;
	else
		llm_strbuf_append(&run->spans->items, &span, sizeof(span));
	return !run->spans->items.failed ||
		   llm_error_no_memory(run->err, run->spans->items.len,
							   "the places of generation blocks");
}

/* The body is a scope of its own; of its text only the place is wanted. */
static bool
exec_generation(LlmJinjaRun *run, LlmJinjaFrame *frame,
				const LlmJinjaStmt *stmt)
{
	const LlmJinjaMacroNode *node = stmt->macro.node;
	LlmJinjaFrame *inner = llm_jinja_create_frame(run, &node->scope, frame);
	const size_t begin = run->out->len;

	return inner != NULL && llm_jinja_enter_scope(run, &node->scope, inner) &&
		   llm_jinja_exec(run, inner, &node->body) &&
		   note_generation(run, begin);
}

/* Parameters that were not given take their defaults, in order. */
static bool
fill_defaults(LlmJinjaRun *run, const LlmJinjaMacroNode *node,
			  LlmJinjaFrame *frame)
{
	size_t n_plain = node->n_params - node->n_defaults;

	for (size_t i = 0; i < node->n_params; i++)
	{
		const LlmJinjaExpr *param = node->params[i];
		LlmJinjaValue *place = llm_jinja_locate(frame, param->name.place);
		LlmJinjaValue value;
		LlmStrbuf hint;

		if (place->kind != LLM_JINJA_MISSING)
			continue;
		if (i >= n_plain)
		{
			if (!llm_jinja_eval(run, frame, node->defaults[i - n_plain], place))
				return false;
			continue;
		}
		llm_jinja_init_buffer(&hint);
		llm_strbuf_printf(&hint, "parameter '%.*s' was not provided",
						  (int) param->name.name->len, param->name.name->data);
		llm_strbuf_append(&hint, "", 1);
		if (!llm_jinja_finish_string(run, &hint, true, &value) ||
			!llm_jinja_make_undefined_hint(run, value.string->data, place))
			return false;
	}
	return true;
}

static bool
fail_macro(LlmJinjaRun *run, const LlmJinjaMacroNode *node, const char *problem)
{
	if (node->name == NULL)
		return llm_jinja_fail(run, "macro None %s", problem);
	return llm_jinja_fail(run, "macro '%.*s' %s", (int) node->name->len,
						  node->name->data, problem);
}

/* Keywords that no parameter took. */
static bool
place_kwargs(LlmJinjaRun *run, const LlmJinjaMacroNode *node,
			 LlmJinjaFrame *frame, const LlmJinjaArgs *args, const bool *taken)
{
	LlmJinjaDict *rest = llm_jinja_create_dict(run);
	char problem[200];

	if (rest == NULL)
		return false;
	for (size_t i = 0; i < args->n_kwargs; i++)
	{
		LlmJinjaValue name = llm_jinja_text(args->kwargs[i].name);

		if (taken[i])
			continue;
		if (!llm_jinja_dict_set(run, rest, name, args->kwargs[i].value))
			return false;
	}
	if (node->takes_kwargs)
	{
		*llm_jinja_locate(frame, node->kwargs_place) =
			(LlmJinjaValue){ .kind = LLM_JINJA_DICT, .dict = rest };
		return true;
	}
	if (rest->n_entries == 0)
		return true;
	if (llm_jinja_dict_find(rest, "caller", 6).kind != LLM_JINJA_MISSING)
		return fail_macro(run, node,
						  "was invoked with two values for the special caller "
						  "argument. This is most likely a bug.");
	snprintf(problem, sizeof(problem), "takes no keyword argument '%.*s'",
			 (int) rest->entries[0].key.string->len,
			 rest->entries[0].key.string->data);
	return fail_macro(run, node, problem);
}

static bool
place_varargs(LlmJinjaRun *run, const LlmJinjaMacroNode *node,
			  LlmJinjaFrame *frame, const LlmJinjaArgs *args)
{
	size_t n_taken =
		args->n_args < node->n_params ? args->n_args : node->n_params;
	LlmJinjaList *rest;
	char problem[80];

	if (!node->takes_varargs)
	{
		if (args->n_args <= node->n_params)
			return true;
		snprintf(problem, sizeof(problem),
				 "takes not more than %zu argument(s)", node->n_params);
		return fail_macro(run, node, problem);
	}
	rest = llm_jinja_create_list(run, args->n_args - n_taken);
	if (rest == NULL)
		return false;
	for (size_t i = n_taken; i < args->n_args; i++)
		if (!llm_jinja_push(run, rest, args->args[i]))
			return false;
	*llm_jinja_locate(frame, node->varargs_place) = llm_jinja_tuple(rest);
	return true;
}

/* The keyword of that name, marked as taken; MISSING where there is none. */
static LlmJinjaValue
take_kwarg(const LlmJinjaArgs *args, const LlmJinjaString *name, bool *taken)
{
	for (size_t i = 0; i < args->n_kwargs; i++)
		if (args->kwargs[i].name->len == name->len &&
			memcmp(args->kwargs[i].name->data, name->data, name->len) == 0)
		{
			taken[i] = true;
			return args->kwargs[i].value;
		}
	return llm_jinja_missing();
}

static bool
place_arguments(LlmJinjaRun *run, const LlmJinjaMacroNode *node,
				LlmJinjaFrame *frame, const LlmJinjaArgs *args)
{
	static const LlmJinjaString caller_name = { "caller", 6, 6, false };
	bool *taken = llm_jinja_alloc(run, args->n_kwargs + 1);
	LlmJinjaValue caller;

	if (taken == NULL)
		return false;
	memset(taken, 0, args->n_kwargs + 1);
	for (size_t i = 0; i < node->n_params; i++)
		*llm_jinja_locate(frame, node->params[i]->name.place) =
			i < args->n_args
				? args->args[i]
				: take_kwarg(args, node->params[i]->name.name, taken);
	if (node->takes_caller)
	{
		caller = take_kwarg(args, &caller_name, taken);
		if (caller.kind == LLM_JINJA_MISSING &&
			!llm_jinja_make_undefined_hint(run, "No caller defined", &caller))
			return false;
		*llm_jinja_locate(frame, node->caller_place) = caller;
	}
	return place_kwargs(run, node, frame, args, taken) &&
		   place_varargs(run, node, frame, args);
}

bool
llm_jinja_call_macro(LlmJinjaRun *run, const LlmJinjaMacro *macro,
					 const LlmJinjaArgs *args, LlmJinjaValue *out)
{
	const LlmJinjaMacroNode *node = macro->node;
	LlmJinjaFrame *frame =
		llm_jinja_create_frame(run, &node->scope, macro->frame);

	assert(run->jump == LLM_JINJA_NO_JUMP);
	return frame != NULL && place_arguments(run, node, frame, args) &&
		   llm_jinja_enter_scope(run, &node->scope, frame) &&
		   fill_defaults(run, node, frame) &&
		   capture(run, frame, &node->body, out);
}

/* ---- dispatch ---- */

static bool
exec_refused(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	(void) frame;
	return llm_jinja_fail(run, "%s", stmt->refusal);
}

static bool
exec_stmt(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaStmt *stmt)
{
	static const ExecFunction functions[LLM_JINJA_STMT_KIND_COUNT] = {
		[LLM_JINJA_STMT_TEXT] = exec_text,
		[LLM_JINJA_STMT_OUTPUT] = exec_output,
		[LLM_JINJA_STMT_SET] = exec_set,
		[LLM_JINJA_STMT_SET_BLOCK] = exec_capture,
		[LLM_JINJA_STMT_IF] = exec_if,
		[LLM_JINJA_STMT_FOR] = exec_for,
		[LLM_JINJA_STMT_MACRO] = exec_macro,
		[LLM_JINJA_STMT_CALL_BLOCK] = exec_call_block,
		[LLM_JINJA_STMT_FILTER_BLOCK] = exec_capture,
		[LLM_JINJA_STMT_WITH] = exec_with,
		[LLM_JINJA_STMT_BLOCK] = exec_block,
		[LLM_JINJA_STMT_GENERATION] = exec_generation,
		[LLM_JINJA_STMT_BREAK] = exec_jump,
		[LLM_JINJA_STMT_CONTINUE] = exec_jump,
		[LLM_JINJA_STMT_REFUSED] = exec_refused,
	};

	assert(stmt->kind < LLM_JINJA_STMT_KIND_COUNT);
	run->line = stmt->line;
	return functions[stmt->kind](run, frame, stmt);
}

bool
llm_jinja_exec(LlmJinjaRun *run, LlmJinjaFrame *frame, const LlmJinjaBody *body)
{
	bool ok = true;

	if (!llm_jinja_enter(run))
		return false;
	for (size_t i = 0;
		 ok && i < body->n_stmts && run->jump == LLM_JINJA_NO_JUMP; i++)
		ok = llm_jinja_charge(run, 1) && exec_stmt(run, frame, body->stmts[i]);
	llm_jinja_leave(run);
	return ok;
}

bool
llm_jinja_exec_tree(LlmJinjaRun *run, const LlmJinjaTree *tree)
{
	LlmJinjaFrame *frame = llm_jinja_create_frame(run, &tree->scope, NULL);

	return frame != NULL && llm_jinja_enter_scope(run, &tree->scope, frame) &&
		   llm_jinja_exec(run, frame, &tree->body);
}
