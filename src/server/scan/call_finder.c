/*
 * call_finder.c
 *	  Which calls of an expression may be made ahead of their row's turn.
 *
 * A call in a place that is not always evaluated (a branch of CASE, a later
 * argument of COALESCE, AND, OR) is found with guards: conditions that, all
 * true, say that the place will be reached.  A guard is evaluated twice, ahead
 * and in its own place, so it must be free of volatile functions, subqueries
 * and batchable calls; otherwise the call stays where it is, which is slow but
 * right.  So does a call with a volatile function in its arguments, whose
 * evaluations must keep their order, and one inside an expression of a kind
 * that this file does not know.
 *
 * src/server/scan/call_finder.c
 */
#include "postgres.h"

#include "src/server/scan/scan_internal.h"
#include "src/server/scan/torture.h"
#include "src/server/settings.h"

#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"

/* -- questions about expressions -- */

const LlmBatchOps *
llm_scan_ops(Oid function_id)
{
	const LlmBatchOps *ops = llm_batch_find(function_id);

	if (ops == NULL && llm_setting_debug_wrap_plans)
		ops = llm_torture_find(function_id);
	return ops;
}

static bool
is_call(Node *node)
{
	return IsA(node, FuncExpr) &&
		   llm_scan_ops(((FuncExpr *) node)->funcid) != NULL;
}

static bool
has_call_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return is_call(node) ||
		   expression_tree_walker(node, has_call_walker, context);
}

bool
llm_scan_has_call(Node *expr)
{
	return has_call_walker(expr, NULL);
}

static bool
has_call_here_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Aggref) || IsA(node, WindowFunc))
		return false;
	return is_call(node) ||
		   expression_tree_walker(node, has_call_here_walker, context);
}

bool
llm_scan_has_call_here(Node *expr)
{
	return has_call_here_walker(expr, NULL);
}

static bool
has_multiexpr_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubPlan) &&
		((SubPlan *) node)->subLinkType == MULTIEXPR_SUBLINK)
		return true;
	return expression_tree_walker(node, has_multiexpr_walker, context);
}

bool
llm_scan_has_multiexpr(Node *expr)
{
	return has_multiexpr_walker(expr, NULL);
}

/*
 * Is the expression tied to the place where it stands?  The value that
 * CaseTestExpr stands for is known inside its own CASE or array coercion,
 * which a context that is not NULL says.
 */
static bool
is_pinned_walker(Node *node, void *context)
{
	static bool knows_value = true;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_CaseTestExpr:
			return context == NULL;
		case T_CoerceToDomainValue:
		case T_SetToDefault:
			return true;
		case T_Param:
			return ((Param *) node)->paramkind == PARAM_MULTIEXPR;
		case T_FuncExpr:
			if (((FuncExpr *) node)->funcretset)
				return true;
			break;
		case T_OpExpr:
			if (((OpExpr *) node)->opretset)
				return true;
			break;
		case T_CaseExpr:
			if (is_pinned_walker((Node *) ((CaseExpr *) node)->arg, context))
				return true;
			if (((CaseExpr *) node)->arg != NULL)
				context = &knows_value;
			break;
		case T_ArrayCoerceExpr:
			return is_pinned_walker((Node *) ((ArrayCoerceExpr *) node)->arg,
									context);
		default:
			break;
	}
	return expression_tree_walker(node, is_pinned_walker, context);
}

static bool
is_volatile_function(Oid function_id, void *context)
{
	return func_volatile(function_id) == PROVOLATILE_VOLATILE;
}

static bool is_volatile_walker(Node *node, void *context);

static void
look_for_volatile(Plan *plan, void *context)
{
	bool *is_volatile = context;

	*is_volatile =
		*is_volatile ||
		is_volatile_walker((Node *) llm_plan_expressions(plan), NULL);
}

static bool
subplan_is_volatile(const PlannedStmt *stmt, const SubPlan *subplan)
{
	bool is_volatile = false;

	llm_plan_visit(list_nth(stmt->subplans, subplan->plan_id - 1),
				   look_for_volatile, &is_volatile);
	return is_volatile;
}

/*
 * Would evaluating the expression again, or at another time, make a
 * difference?  What aggregates and window functions return is computed by
 * their node in any case.  Without a statement any subquery counts.
 */
static bool
is_volatile_walker(Node *node, void *context)
{
	const PlannedStmt *stmt = context;

	if (node == NULL || IsA(node, Aggref) || IsA(node, WindowFunc))
		return false;
	if (IsA(node, NextValueExpr) ||
		check_functions_in_node(node, is_volatile_function, NULL))
		return true;
	if (IsA(node, SubPlan) &&
		(stmt == NULL || subplan_is_volatile(stmt, (SubPlan *) node)))
		return true;
	return expression_tree_walker(node, is_volatile_walker, context);
}

static bool
is_other_volatile(Oid function_id, void *context)
{
	return is_volatile_function(function_id, context) &&
		   llm_scan_ops(function_id) == NULL;
}

static bool
keeps_calls_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return IsA(node, SubPlan) || IsA(node, AlternativeSubPlan) ||
		   check_functions_in_node(node, is_other_volatile, NULL) ||
		   expression_tree_walker(node, keeps_calls_walker, context);
}

bool
llm_scan_may_keep_calls(Node *expr)
{
	return keeps_calls_walker(expr, NULL);
}

static bool
other_volatile_walker(Node *node, void *context)
{
	const PlannedStmt *stmt = context;

	if (node == NULL)
		return false;
	if (IsA(node, SubPlan))
		return subplan_is_volatile(stmt, (SubPlan *) node);
	return IsA(node, AlternativeSubPlan) || IsA(node, NextValueExpr) ||
		   check_functions_in_node(node, is_other_volatile, NULL) ||
		   expression_tree_walker(node, other_volatile_walker, context);
}

bool
llm_scan_has_other_volatile(const PlannedStmt *stmt, Node *expr)
{
	return other_volatile_walker(expr, (void *) stmt);
}

static bool
guards_are_usable(List *guards)
{
	return !is_volatile_walker((Node *) guards, NULL) &&
		   !llm_scan_has_call((Node *) guards) &&
		   !is_pinned_walker((Node *) guards, NULL);
}

static bool
arguments_are_usable(const LlmCallFinder *finder, List *args)
{
	return !is_volatile_walker((Node *) args, (void *) finder->stmt) &&
		   !is_pinned_walker((Node *) args, NULL) &&
		   !has_multiexpr_walker((Node *) args, NULL);
}

bool
llm_scan_may_move(const PlannedStmt *stmt, Node *expr)
{
	LlmCallFinder finder = { .stmt = stmt };

	return arguments_are_usable(&finder, list_make1(expr));
}

/* -- guards -- */

static List *
with_guard(List *guards, Node *guard)
{
	return lappend(list_copy(guards), guard);
}

/* AND goes on while no argument was false, OR while none was true. */
static Node *
make_boolean_guard(BoolExprType type, Node *arg)
{
	BooleanTest *test = makeNode(BooleanTest);

	test->arg = (Expr *) arg;
	test->booltesttype = type == AND_EXPR ? IS_NOT_FALSE : IS_NOT_TRUE;
	test->location = -1;
	return (Node *) test;
}

static Node *
make_null_guard(Node *arg)
{
	NullTest *test = makeNode(NullTest);

	test->arg = (Expr *) arg;
	test->nulltesttype = IS_NULL;
	test->argisrow = false;
	test->location = -1;
	return (Node *) test;
}

static CaseWhen *
make_when(Expr *condition, bool result)
{
	CaseWhen *when = makeNode(CaseWhen);

	when->expr = condition;
	when->result = (Expr *) makeBoolConst(result, false);
	when->location = -1;
	return when;
}

/* CASE [arg] WHEN ... with booleans for results. */
static Node *
make_case_guard(CaseExpr *original, List *whens, bool otherwise)
{
	CaseExpr *guard;

	if (whens == NIL)
		return makeBoolConst(otherwise, false);
	guard = makeNode(CaseExpr);
	guard->casetype = BOOLOID;
	guard->arg = original->arg;
	guard->args = whens;
	guard->defresult = (Expr *) makeBoolConst(otherwise, false);
	guard->location = -1;
	return (Node *) guard;
}

/* -- collecting -- */

static void
collect_list(LlmCallFinder *finder, List *list, List *guards)
{
	ListCell *lc;

	foreach (lc, list)
		llm_scan_collect(finder, lfirst(lc), guards);
}

static void
collect_function(LlmCallFinder *finder, FuncExpr *expr, List *guards)
{
	LlmFoundCall *call;

	if (expr->funcretset)
		return;
	if (!is_call((Node *) expr) || llm_scan_has_call_here((Node *) expr->args))
	{
		collect_list(finder, expr->args, guards);
		return;
	}
	if (!arguments_are_usable(finder, expr->args) || !guards_are_usable(guards))
		return;
	call = palloc(sizeof(LlmFoundCall));
	call->expr = expr;
	call->guards = guards;
	finder->calls = lappend(finder->calls, call);
}

static void
collect_boolean(LlmCallFinder *finder, BoolExpr *expr, List *guards)
{
	ListCell *lc;

	foreach (lc, expr->args)
	{
		llm_scan_collect(finder, lfirst(lc), guards);
		if (expr->boolop != NOT_EXPR)
			guards = with_guard(guards,
								make_boolean_guard(expr->boolop, lfirst(lc)));
	}
}

static void
collect_coalesce(LlmCallFinder *finder, CoalesceExpr *expr, List *guards)
{
	ListCell *lc;

	foreach (lc, expr->args)
	{
		llm_scan_collect(finder, lfirst(lc), guards);
		guards = with_guard(guards, make_null_guard(lfirst(lc)));
	}
}

static void
collect_case(LlmCallFinder *finder, CaseExpr *expr, List *guards)
{
	List *earlier = NIL; /* the WHENs before, all not true */
	ListCell *lc;

	llm_scan_collect(finder, (Node *) expr->arg, guards);
	foreach (lc, expr->args)
	{
		CaseWhen *when = lfirst_node(CaseWhen, lc);
		List *reached =
			earlier == NIL
				? guards
				: with_guard(guards, make_case_guard(expr, earlier, true));
		List *taken = lappend(list_copy(earlier), make_when(when->expr, true));

		llm_scan_collect(finder, (Node *) when->expr, reached);
		llm_scan_collect(
			finder, (Node *) when->result,
			with_guard(guards, make_case_guard(expr, taken, false)));
		earlier = lappend(list_copy(earlier), make_when(when->expr, false));
	}
	llm_scan_collect(finder, (Node *) expr->defresult,
					 with_guard(guards, make_case_guard(expr, earlier, true)));
}

/* The arguments of an expression that evaluates all of them; else false. */
static bool
collect_plain(LlmCallFinder *finder, Node *expr, List *guards)
{
	Node *arg;

	switch (nodeTag(expr))
	{
		case T_TargetEntry:
			arg = (Node *) ((TargetEntry *) expr)->expr;
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			arg = (Node *) ((OpExpr *) expr)->args;
			break;
		case T_ScalarArrayOpExpr:
			arg = (Node *) ((ScalarArrayOpExpr *) expr)->args;
			break;
		case T_RelabelType:
			arg = (Node *) ((RelabelType *) expr)->arg;
			break;
		case T_CoerceViaIO:
			arg = (Node *) ((CoerceViaIO *) expr)->arg;
			break;
		case T_ArrayCoerceExpr:
			arg = (Node *) ((ArrayCoerceExpr *) expr)->arg;
			break;
		case T_CoerceToDomain:
			arg = (Node *) ((CoerceToDomain *) expr)->arg;
			break;
		case T_CollateExpr:
			arg = (Node *) ((CollateExpr *) expr)->arg;
			break;
		case T_ArrayExpr:
			arg = (Node *) ((ArrayExpr *) expr)->elements;
			break;
		case T_RowExpr:
			arg = (Node *) ((RowExpr *) expr)->args;
			break;
		case T_MinMaxExpr:
			arg = (Node *) ((MinMaxExpr *) expr)->args;
			break;
		case T_NullTest:
			arg = (Node *) ((NullTest *) expr)->arg;
			break;
		case T_BooleanTest:
			arg = (Node *) ((BooleanTest *) expr)->arg;
			break;
		case T_FieldSelect:
			arg = (Node *) ((FieldSelect *) expr)->arg;
			break;
		default:
			return false;
	}
	llm_scan_collect(finder, arg, guards);
	return true;
}

void
llm_scan_collect(LlmCallFinder *finder, Node *expr, List *guards)
{
	if (expr == NULL || !llm_scan_has_call_here(expr))
		return;
	check_stack_depth();
	switch (nodeTag(expr))
	{
		case T_List:
			collect_list(finder, (List *) expr, guards);
			break;
		case T_FuncExpr:
			collect_function(finder, (FuncExpr *) expr, guards);
			break;
		case T_BoolExpr:
			collect_boolean(finder, (BoolExpr *) expr, guards);
			break;
		case T_CoalesceExpr:
			collect_coalesce(finder, (CoalesceExpr *) expr, guards);
			break;
		case T_CaseExpr:
			collect_case(finder, (CaseExpr *) expr, guards);
			break;
		default:
			(void) collect_plain(finder, expr, guards);
			break;
	}
}

/* -- inside aggregates, window functions, set-returning functions -- */

static List *
filter_as_guards(Expr *filter)
{
	return filter == NULL ? NIL : list_make1(filter);
}

static bool
collect_inside_walker(Node *node, void *context)
{
	LlmCallFinder *finder = context;

	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		Aggref *aggref = (Aggref *) node;

		if (aggref->aggkind == AGGKIND_NORMAL)
			llm_scan_collect(finder, (Node *) aggref->args,
							 filter_as_guards(aggref->aggfilter));
		return false;
	}
	if (IsA(node, WindowFunc))
	{
		WindowFunc *func = (WindowFunc *) node;

		/* others, like first_value, look at the rows they please */
		if (func->winagg)
			llm_scan_collect(finder, (Node *) func->args,
							 filter_as_guards(func->aggfilter));
		return false;
	}
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcretset)
	{
		llm_scan_collect(finder, (Node *) ((FuncExpr *) node)->args, NIL);
		return false;
	}
	return expression_tree_walker(node, collect_inside_walker, context);
}

void
llm_scan_collect_inside(LlmCallFinder *finder, Node *expr)
{
	(void) collect_inside_walker(expr, finder);
}

/* -- why not -- */

const char *
llm_scan_refusal(FuncExpr *call)
{
	if (is_volatile_walker((Node *) call->args, NULL))
		return "an argument is volatile or a subquery";
	if (is_pinned_walker((Node *) call->args, NULL))
		return "an argument depends on its place";
	return "a condition around it is volatile or a subquery, or its place is "
		   "not known to be evaluated";
}
