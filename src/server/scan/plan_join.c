/*
 * plan_join.c
 *	  Joins: calls move to where many rows are at hand.
 *
 * The inner side of a nested loop sees one outer row at a time, so a call on
 * it would wait by itself.  Two shapes are common.  In LATERAL (SELECT f(o.x))
 * and LATERAL f(o.x) the inner side is one row made of the outer one: the call
 * moves to a stage over the outer side, and its result comes back as one more
 * parameter of the loop.  And a filter with a call on an inner scan moves
 * above the join, where it sees the same pairs of rows.
 *
 * src/server/scan/plan_join.c
 */
#include "postgres.h"

#include "src/server/scan/scan_internal.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

/* What a parameter of the loop stands for, or NULL. */
static Var *
loop_param_value(NestLoop *loop, Node *node)
{
	ListCell *lc;

	if (!IsA(node, Param) || ((Param *) node)->paramkind != PARAM_EXEC)
		return NULL;
	foreach (lc, loop->nestParams)
	{
		NestLoopParam *param = lfirst_node(NestLoopParam, lc);

		if (param->paramno == ((Param *) node)->paramid)
			return copyObject(param->paramval);
	}
	return NULL;
}

/*
 * Is the parameter the result of a subquery of the inner side's own?  That is
 * computed again for each outer row, so it is not to be had outside.
 */
static bool
is_inner_param(Plan *inner, Node *node)
{
	ListCell *lc;

	if (!IsA(node, Param) || ((Param *) node)->paramkind != PARAM_EXEC)
		return false;
	foreach (lc, inner->initPlan)
		if (list_member_int(lfirst_node(SubPlan, lc)->setParam,
							((Param *) node)->paramid))
			return true;
	switch (nodeTag(inner))
	{
		case T_SubqueryScan:
			return is_inner_param(((SubqueryScan *) inner)->subplan, node);
		case T_Memoize:
			return is_inner_param(inner->lefttree, node);
		default:
			return false;
	}
}

/* -- LATERAL: one inner row made of the outer one -- */

typedef struct Lateral
{
	NestLoop *loop;
	List *calls;		 /* of LlmFoundCall, on the inner side */
	int first_param;	 /* number of the first result's parameter */
	bool has_inner_data; /* an expression needs more than the outer row */
} Lateral;

static Node *
to_outer_mutator(Node *node, void *context)
{
	Lateral *lateral = context;
	Var *value;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var) || IsA(node, SubPlan) || IsA(node, AlternativeSubPlan) ||
		is_inner_param(lateral->loop->join.plan.righttree, node))
		lateral->has_inner_data = true;
	value = loop_param_value(lateral->loop, node);
	if (value != NULL)
		return (Node *) value;
	return expression_tree_mutator(node, to_outer_mutator, context);
}

static Node *
to_param_mutator(Node *node, void *context)
{
	Lateral *lateral = context;
	ListCell *lc;

	if (node == NULL)
		return NULL;
	foreach (lc, lateral->calls)
	{
		Param *param;

		if ((Node *) ((LlmFoundCall *) lfirst(lc))->expr != node)
			continue;
		param = makeNode(Param);
		param->paramkind = PARAM_EXEC;
		param->paramid = lateral->first_param + foreach_current_index(lc);
		param->paramtype = exprType(node);
		param->paramtypmod = exprTypmod(node);
		param->paramcollid = exprCollation(node);
		param->location = -1;
		return (Node *) param;
	}
	return expression_tree_mutator(node, to_param_mutator, context);
}

/* The node that makes the inner row, below subqueries. */
static Plan *
find_row_maker(Plan *inner)
{
	while (IsA(inner, SubqueryScan))
		inner = ((SubqueryScan *) inner)->subplan;
	return inner;
}

static List *
collect_lateral(LlmRewrite *rewrite, Plan *maker)
{
	LlmCallFinder finder = { .stmt = rewrite->stmt };
	ListCell *lc;

	if (IsA(maker, Result) && maker->lefttree == NULL &&
		((Result *) maker)->resconstantqual == NULL)
		llm_scan_collect(&finder, (Node *) maker->targetlist, NIL);
	else if (IsA(maker, FunctionScan))
		foreach (lc, ((FunctionScan *) maker)->functions)
		{
			Node *expr = lfirst_node(RangeTblFunction, lc)->funcexpr;

			if (IsA(expr, FuncExpr) && ((FuncExpr *) expr)->funcretset)
				expr = (Node *) ((FuncExpr *) expr)->args;
			llm_scan_collect(&finder, expr, NIL);
		}
	return finder.calls;
}

/* The calls over the outer side's columns; NIL: they need more than those. */
static List *
translate_calls(Lateral *lateral)
{
	List *result = NIL;
	ListCell *lc;

	foreach (lc, lateral->calls)
	{
		LlmFoundCall *inner = lfirst(lc);
		LlmFoundCall *outer = palloc(sizeof(LlmFoundCall));

		outer->expr =
			(FuncExpr *) to_outer_mutator((Node *) inner->expr, lateral);
		outer->guards =
			(List *) to_outer_mutator((Node *) inner->guards, lateral);
		result = lappend(result, outer);
	}
	return lateral->has_inner_data ? NIL : result;
}

static void
add_param_to_inner(Plan *inner, Plan *maker, int paramno)
{
	ListCell *lc;

	for (Plan *plan = inner;; plan = ((SubqueryScan *) plan)->subplan)
	{
		plan->extParam = bms_add_member(plan->extParam, paramno);
		plan->allParam = bms_add_member(plan->allParam, paramno);
		if (plan == maker)
			break;
	}
	if (IsA(maker, FunctionScan))
		foreach (lc, ((FunctionScan *) maker)->functions)
		{
			RangeTblFunction *function = lfirst_node(RangeTblFunction, lc);

			function->funcparams =
				bms_add_member(function->funcparams, paramno);
		}
}

/* Hand the results, appended to the outer side's columns, to the inner side. */
static void
add_result_params(LlmRewrite *rewrite, Lateral *lateral, int n_columns)
{
	NestLoop *loop = lateral->loop;
	Plan *inner = loop->join.plan.righttree;
	Plan *maker = find_row_maker(inner);
	ListCell *lc;

	lateral->first_param = list_length(rewrite->stmt->paramExecTypes);
	foreach (lc, lateral->calls)
	{
		Node *call = (Node *) ((LlmFoundCall *) lfirst(lc))->expr;
		int i = foreach_current_index(lc);
		NestLoopParam *param = makeNode(NestLoopParam);

		param->paramno = lateral->first_param + i;
		param->paramval =
			makeVar(OUTER_VAR, (AttrNumber) (n_columns + i + 1), exprType(call),
					exprTypmod(call), exprCollation(call), 0);
		loop->nestParams = lappend(loop->nestParams, param);
		rewrite->stmt->paramExecTypes =
			lappend_oid(rewrite->stmt->paramExecTypes, exprType(call));
		add_param_to_inner(inner, maker, param->paramno);
	}
	if (IsA(maker, Result))
		maker->targetlist =
			(List *) to_param_mutator((Node *) maker->targetlist, lateral);
	else
		foreach (lc, ((FunctionScan *) maker)->functions)
		{
			RangeTblFunction *function = lfirst_node(RangeTblFunction, lc);

			function->funcexpr = to_param_mutator(function->funcexpr, lateral);
		}
}

/* What is left of the inner side is not worth remembering. */
static Plan *
without_memoize(Plan *inner)
{
	return IsA(inner, Memoize) ? inner->lefttree : inner;
}

static void
hoist_lateral_calls(LlmRewrite *rewrite, NestLoop *loop, LlmDemand demand)
{
	Plan *plan = &loop->join.plan;
	Plan *maker = find_row_maker(without_memoize(plan->righttree));
	Lateral lateral = { .loop = loop };

	/* a call that stays must go on having its answers remembered */
	if (IsA(plan->righttree, Memoize) &&
		(maker->initPlan != NIL ||
		 llm_scan_may_keep_calls((Node *) llm_plan_expressions(maker))))
		return;
	/* nested calls go one level at a time */
	for (;;)
	{
		int n_columns = list_length(plan->lefttree->targetlist);
		List *calls;

		lateral.calls = collect_lateral(rewrite, maker);
		if (lateral.calls == NIL)
			return;
		calls = translate_calls(&lateral);
		if (calls == NIL)
			return;
		plan->righttree = without_memoize(plan->righttree);
		plan->lefttree =
			llm_stage_append_results(rewrite, plan->lefttree, calls, demand);
		add_result_params(rewrite, &lateral, n_columns);
	}
}

/* -- filters of inner scans -- */

typedef struct Lift
{
	NestLoop *loop;
	Plan *inner;
	bool has_subquery;
} Lift;

/* Where the inner scan returns a column; it may have to from now on. */
static AttrNumber
inner_column(Plan *inner, Node *var)
{
	ListCell *lc;

	foreach (lc, inner->targetlist)
		if (equal(lfirst_node(TargetEntry, lc)->expr, var))
			return (AttrNumber) (foreach_current_index(lc) + 1);
	inner->targetlist = lappend(
		inner->targetlist,
		makeTargetEntry(copyObject((Expr *) var),
						list_length(inner->targetlist) + 1, NULL, false));
	return (AttrNumber) list_length(inner->targetlist);
}

/* From the inner scan's frame to the join's. */
static Node *
lift_mutator(Node *node, void *context)
{
	Lift *lift = context;
	Var *value;

	if (node == NULL)
		return NULL;
	if (IsA(node, SubPlan) || IsA(node, AlternativeSubPlan) ||
		is_inner_param(lift->inner, node))
		lift->has_subquery = true;
	value = loop_param_value(lift->loop, node);
	if (value != NULL)
		return (Node *) value;
	if (!IsA(node, Var))
		return expression_tree_mutator(node, lift_mutator, context);
	return (Node *) makeVar(INNER_VAR, inner_column(lift->inner, node),
							exprType(node), exprTypmod(node),
							exprCollation(node), 0);
}

static int
first_with_call(List *conjuncts)
{
	ListCell *lc;

	foreach (lc, conjuncts)
		if (llm_scan_has_call_here(lfirst(lc)))
			return foreach_current_index(lc);
	return -1;
}

/*
 * The filter from its first call on becomes the join's.  Not where rows must
 * be checked in an order that the join would not keep.
 */
static void
lift_inner_filter(LlmRewrite *rewrite, NestLoop *loop)
{
	Plan *inner = loop->join.plan.righttree;
	Lift lift = { .loop = loop, .inner = inner };
	List *targetlist = inner->targetlist;
	int split_at;
	List *lifted;

	if (loop->join.jointype != JOIN_INNER || rewrite->has_barriers ||
		!(IsA(inner, SeqScan) || IsA(inner, IndexScan) ||
		  IsA(inner, IndexOnlyScan) || IsA(inner, BitmapHeapScan)))
		return;
	split_at = first_with_call(inner->qual);
	if (split_at < 0)
		return;
	inner->targetlist = list_copy(targetlist);
	lifted = (List *) lift_mutator(
		(Node *) list_copy_tail(inner->qual, split_at), &lift);
	if (lift.has_subquery)
	{
		inner->targetlist = targetlist;
		return;
	}
	inner->qual = list_truncate(list_copy(inner->qual), split_at);
	loop->join.plan.qual = list_concat(lifted, loop->join.plan.qual);
	/* the first match may be one that the lifted filter refuses */
	loop->join.inner_unique = false;
}

/* For an inner join, its condition is as good a filter above it. */
static void
lift_join_filter(Join *join)
{
	int split_at = first_with_call(join->joinqual);

	if (join->jointype != JOIN_INNER || split_at < 0)
		return;
	join->plan.qual =
		list_concat(list_copy_tail(join->joinqual, split_at), join->plan.qual);
	join->joinqual = list_truncate(list_copy(join->joinqual), split_at);
	join->inner_unique = false;
}

void
llm_join_rewrite(LlmRewrite *rewrite, Join *join, LlmDemand demand)
{
	if (IsA(join, NestLoop))
	{
		if (join->jointype == JOIN_INNER || join->jointype == JOIN_LEFT)
			hoist_lateral_calls(rewrite, (NestLoop *) join, demand);
		lift_inner_filter(rewrite, (NestLoop *) join);
	}
	lift_join_filter(join);
}
