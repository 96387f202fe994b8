/*
 * plan_stage.c
 *	  Stages: our nodes, and how a plan node is split in two.
 *
 * A stage takes over the target list of the node it is put on.  The node below
 * keeps what it is, but only returns the leaves: the columns, aggregates and
 * window functions that the target list is made of.  So what the calls need is
 * computed early, ahead of the row's turn, and all else late, in the stage,
 * when the row is emitted: sequences, volatile functions and triggers see the
 * same order of events as without stages.
 *
 * Expressions of a finished plan refer to the node's inputs, so they stay as
 * they are below, and above every leaf becomes a column of the stage's scan
 * tuple (INDEX_VAR).
 *
 * A filter is split at the first conjunct that holds a call: from there on all
 * move to the stage, in their order, which row security depends on.  The next
 * conjunct with a call gets a stage above, so that it sees survivors only.
 *
 * src/server/scan/plan_stage.c
 */
#include "postgres.h"

#include "src/server/pg_compat.h"
#include "src/server/scan/scan_internal.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"

/* Stages over one node: nested calls go as deep as this. */
#define MAX_STAGES 16

/* -- small helpers -- */

bool
llm_stage_is(Plan *plan)
{
	return plan != NULL && IsA(plan, CustomScan) &&
		   ((CustomScan *) plan)->methods == &llm_batch_node_methods;
}

Var *
llm_stage_make_column(int varno, int attno, Node *expr)
{
	return makeVar(varno, (AttrNumber) attno, exprType(expr), exprTypmod(expr),
				   exprCollation(expr), 0);
}

/* The columns of a target list, as their parent refers to them. */
static List *
pass_on(List *targetlist, int varno, int first_attno)
{
	List *result = NIL;
	ListCell *lc;

	foreach (lc, targetlist)
	{
		TargetEntry *column = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));

		column->expr = (Expr *) llm_stage_make_column(
			varno, first_attno + foreach_current_index(lc),
			(Node *) column->expr);
		result = lappend(result, column);
	}
	return result;
}

CustomScan *
llm_stage_make(LlmRewrite *rewrite, Plan *below, LlmDemand demand)
{
	CustomScan *stage = makeNode(CustomScan);
	Plan *plan = &stage->scan.plan;

	plan->startup_cost = below->startup_cost;
	plan->total_cost = below->total_cost;
	plan->plan_rows = below->plan_rows;
	plan->plan_width = below->plan_width;
	plan->parallel_safe = below->parallel_safe;
	plan->plan_node_id = ++rewrite->max_node_id;
	plan->lefttree = below;
	plan->extParam = bms_copy(below->extParam);
	plan->allParam = bms_copy(below->allParam);
	stage->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	stage->methods = &llm_batch_node_methods;
	stage->custom_private = list_make1(makeInteger(demand));
	/* an asynchronous child would answer "not yet", which means "no more" */
	below->async_capable = false;
	rewrite->n_stages++;
	return stage;
}

/* -- replacing calls and leaves -- */

/* A whole row as its parent table's: nothing but a column that looks so. */
static bool
is_converted_row(Node *node)
{
	if (!IsA(node, ConvertRowtypeExpr))
		return false;
	while (IsA(node, ConvertRowtypeExpr))
		node = (Node *) ((ConvertRowtypeExpr *) node)->arg;
	return IsA(node, Var);
}

/* What only the node itself knows. */
static bool
is_leaf(const LlmSplit *split, Node *node)
{
	if (IsA(node, Var))
		return true;
	if (split->keeps_columns)
		return false;
	return IsA(node, Aggref) || IsA(node, WindowFunc) ||
		   IsA(node, GroupingFunc) || is_converted_row(node) ||
		   llm_compat_is_merge_support(node) ||
		   llm_compat_is_returning_expr(node);
}

static int
leaf_number(LlmSplit *split, Node *leaf)
{
	ListCell *lc;

	foreach (lc, split->leaves)
		if (equal(lfirst(lc), leaf))
			return foreach_current_index(lc) + 1;
	split->leaves = lappend(split->leaves, copyObject(leaf));
	return list_length(split->leaves);
}

static Node *
split_mutator(Node *node, void *context)
{
	LlmSplit *split = context;
	int attno;

	if (node == NULL)
		return NULL;
	if (IsA(node, FuncExpr) && !split->leaves_of_child)
	{
		ListCell *lc;

		foreach (lc, split->calls)
			if ((Node *) ((LlmFoundCall *) lfirst(lc))->expr == node)
				return (Node *) llm_stage_make_column(
					INDEX_VAR, foreach_current_index(lc) + 1, node);
	}
	if (!is_leaf(split, node))
		return expression_tree_mutator(node, split_mutator, context);
	if (split->keeps_columns)
	{
		Assert(((Var *) node)->varno == OUTER_VAR);
		attno = ((Var *) node)->varattno;
	}
	else
		attno = leaf_number(split, node);
	if (split->leaves_of_child)
		return (Node *) llm_stage_make_column(OUTER_VAR, attno, node);
	return (Node *) llm_stage_make_column(INDEX_VAR, split->n_calls + attno,
										  node);
}

void *
llm_stage_split_expr(LlmSplit *split, void *expr)
{
	return split_mutator(expr, split);
}

/* The calls, and how EXPLAIN shows them: the first columns to be scanned. */
void
llm_stage_add_calls(CustomScan *stage, LlmSplit *split)
{
	LlmSplit shown = { .keeps_columns = split->keeps_columns,
					   .leaves_of_child = true };
	ListCell *lc;

	split->n_calls = list_length(split->calls);
	foreach (lc, split->calls)
	{
		LlmFoundCall *call = lfirst(lc);
		Node *guard = call->guards == NIL
						  ? makeBoolConst(true, false)
						  : (Node *) make_ands_explicit(call->guards);

		stage->custom_exprs =
			lappend(stage->custom_exprs,
					lcons(llm_stage_split_expr(split, guard),
						  llm_stage_split_expr(split, call->expr->args)));
	}
	foreach (lc, split->calls)
	{
		LlmFoundCall *call = lfirst(lc);

		shown.leaves = split->leaves;
		stage->custom_scan_tlist = lappend(
			stage->custom_scan_tlist,
			makeTargetEntry(llm_stage_split_expr(&shown, call->expr),
							foreach_current_index(lc) + 1, NULL, false));
		Assert(list_length(shown.leaves) == list_length(split->leaves));
	}
}

/* The child's columns, which follow the calls in the scan tuple. */
static void
add_child_columns(CustomScan *stage, List *targetlist)
{
	ListCell *lc;

	foreach (lc, targetlist)
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;
		Var *column = llm_stage_make_column(
			OUTER_VAR, foreach_current_index(lc) + 1, expr);

		stage->custom_scan_tlist =
			lappend(stage->custom_scan_tlist,
					makeTargetEntry((Expr *) column,
									list_length(stage->custom_scan_tlist) + 1,
									NULL, false));
	}
}

static List *
make_targetlist(List *exprs)
{
	List *result = NIL;
	ListCell *lc;

	foreach (lc, exprs)
		result = lappend(result, makeTargetEntry(lfirst(lc),
												 foreach_current_index(lc) + 1,
												 NULL, false));
	return result;
}

List *
llm_stage_add_leaves(CustomScan *stage, const LlmSplit *split)
{
	List *targetlist = make_targetlist(split->leaves);

	add_child_columns(stage, targetlist);
	return targetlist;
}

/* -- splitting a node -- */

/* Does the node compute a target list, and leave us its place? */
static bool
can_split(Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_Result:
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
		case T_SubqueryScan:
		case T_FunctionScan:
		case T_ValuesScan:
		case T_TableFuncScan:
		case T_CteScan:
		case T_NamedTuplestoreScan:
		case T_WorkTableScan:
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
		case T_Agg:
		case T_Group:
		case T_WindowAgg:
		case T_Gather:
		case T_GatherMerge:
			return !llm_scan_has_multiexpr((Node *) plan->targetlist);
		case T_ForeignScan:
			/* it may modify rows by itself */
			return ((ForeignScan *) plan)->operation == CMD_SELECT;
		default:
			return llm_stage_is(plan);
	}
}

/* Does ExecQual see the node's filter, after its input and before its list? */
static bool
has_plain_filter(Plan *plan)
{
	return plan->qual != NIL && !IsA(plan, Result) && !IsA(plan, WindowAgg);
}

/*
 * Find the first conjunct of the filter with calls that can be made ahead; the
 * filter is to be split there.  -1: none.
 */
static int
collect_from_filter(LlmCallFinder *finder, Plan *plan)
{
	ListCell *lc;

	if (!has_plain_filter(plan))
		return -1;
	foreach (lc, plan->qual)
	{
		llm_scan_collect(finder, lfirst(lc), NIL);
		if (finder->calls != NIL)
			return foreach_current_index(lc);
	}
	return -1;
}

/* Put a stage over the node that makes these calls. */
static Plan *
split_node(LlmRewrite *rewrite, Plan *plan, LlmDemand demand, List *calls,
		   int split_at)
{
	CustomScan *stage = llm_stage_make(rewrite, plan, demand);
	LlmSplit split = { .calls = calls };

	llm_stage_add_calls(stage, &split);
	if (split_at >= 0)
	{
		stage->scan.plan.qual =
			llm_stage_split_expr(&split, list_copy_tail(plan->qual, split_at));
		plan->qual = list_truncate(list_copy(plan->qual), split_at);
	}
	stage->scan.plan.targetlist =
		llm_stage_split_expr(&split, plan->targetlist);
	plan->targetlist = llm_stage_add_leaves(stage, &split);
	return (Plan *) stage;
}

/*
 * A Result without input is one row: there is nothing to read ahead.  But the
 * calls of SELECT f(a), f(b) may still run side by side.  (PL/pgSQL insists on
 * a bare Result for its expressions, which have one column.)
 */
static bool
is_too_small(Plan *plan, int n_calls)
{
	return IsA(plan, Result) && plan->lefttree == NULL &&
		   (n_calls < 2 || list_length(plan->targetlist) < 2);
}

/* Torture: a stage without calls where that could make a difference. */
static Plan *
wrap_for_nothing(LlmRewrite *rewrite, Plan *plan, LlmDemand demand)
{
	if (llm_stage_is(plan) || is_too_small(plan, 0) ||
		(IsA(plan, Result) && ((Result *) plan)->resconstantqual != NULL))
		return plan;
	return split_node(rewrite, plan, demand, NIL,
					  has_plain_filter(plan) ? 0 : -1);
}

Plan *
llm_stage_wrap(LlmRewrite *rewrite, Plan *plan, LlmDemand demand)
{
	for (int i = 0; i < MAX_STAGES && can_split(plan); i++)
	{
		LlmCallFinder finder = { .stmt = rewrite->stmt };
		int split_at = collect_from_filter(&finder, plan);

		if (finder.calls == NIL)
			llm_scan_collect(&finder, (Node *) plan->targetlist, NIL);
		if (finder.calls == NIL && rewrite->torture)
			return wrap_for_nothing(rewrite, plan, demand);
		if (finder.calls == NIL ||
			is_too_small(plan, list_length(finder.calls)))
			return plan;
		plan = split_node(rewrite, plan, demand, finder.calls, split_at);
	}
	return plan;
}

/* -- calls below a node -- */

Plan *
llm_stage_append_results(LlmRewrite *rewrite, Plan *plan, List *calls,
						 LlmDemand demand)
{
	CustomScan *stage = llm_stage_make(rewrite, plan, demand);
	LlmSplit split = { .calls = calls, .keeps_columns = true };
	List *targetlist;
	ListCell *lc;

	llm_stage_add_calls(stage, &split);
	add_child_columns(stage, plan->targetlist);
	targetlist = pass_on(plan->targetlist, INDEX_VAR, split.n_calls + 1);
	foreach (lc, calls)
	{
		Node *call = (Node *) ((LlmFoundCall *) lfirst(lc))->expr;
		Var *result = llm_stage_make_column(
			INDEX_VAR, foreach_current_index(lc) + 1, call);

		targetlist =
			lappend(targetlist,
					makeTargetEntry((Expr *) result,
									list_length(targetlist) + 1, NULL, false));
	}
	stage->scan.plan.targetlist = targetlist;
	return (Plan *) stage;
}

typedef struct InsideCalls
{
	List *calls;
	int n_columns; /* of the child, before the results */
} InsideCalls;

static Node *
inside_mutator(Node *node, void *context)
{
	InsideCalls *inside = context;
	ListCell *lc;

	if (node == NULL)
		return NULL;
	if (IsA(node, FuncExpr))
		foreach (lc, inside->calls)
			if ((Node *) ((LlmFoundCall *) lfirst(lc))->expr == node)
				return (Node *) llm_stage_make_column(
					OUTER_VAR,
					inside->n_columns + foreach_current_index(lc) + 1, node);
	return expression_tree_mutator(node, inside_mutator, context);
}

Node *
llm_stage_replace_calls(Node *expr, List *calls, int n_columns)
{
	InsideCalls inside = { .calls = calls, .n_columns = n_columns };

	return inside_mutator(expr, &inside);
}

void
llm_stage_push_inside(LlmRewrite *rewrite, Plan *plan)
{
	if (plan->lefttree == NULL)
		return;
	/* nested calls go one level at a time */
	for (int i = 0; i < MAX_STAGES; i++)
	{
		LlmCallFinder finder = { .stmt = rewrite->stmt };
		int n_columns = list_length(plan->lefttree->targetlist);

		llm_scan_collect_inside(&finder, (Node *) plan->targetlist);
		llm_scan_collect_inside(&finder, (Node *) plan->qual);
		if (finder.calls == NIL)
			return;
		plan->lefttree = llm_stage_append_results(
			rewrite, plan->lefttree, finder.calls, LLM_DEMAND_FULL);
		plan->targetlist = (List *) llm_stage_replace_calls(
			(Node *) plan->targetlist, finder.calls, n_columns);
		plan->qual = (List *) llm_stage_replace_calls((Node *) plan->qual,
													  finder.calls, n_columns);
	}
}

/* -- Limit and Append -- */

Plan *
llm_stage_sink_limit(Limit *limit, LlmDemand demand)
{
	CustomScan *stage = (CustomScan *) limit->plan.lefttree;

	if (limit->limitOption != LIMIT_OPTION_COUNT ||
		!llm_stage_is((Plan *) stage) || stage->scan.plan.qual != NIL)
		return (Plan *) limit;
	limit->plan.lefttree = stage->scan.plan.lefttree;
	limit->plan.targetlist =
		pass_on(limit->plan.lefttree->targetlist, OUTER_VAR, 1);
	stage->custom_private = list_make1(makeInteger(demand));
	stage->scan.plan.plan_rows = limit->plan.plan_rows;
	stage->scan.plan.extParam =
		bms_union(stage->scan.plan.extParam, limit->plan.extParam);
	stage->scan.plan.allParam =
		bms_union(stage->scan.plan.allParam, limit->plan.allParam);
	stage->scan.plan.lefttree = llm_stage_sink_limit(limit, demand);
	return (Plan *) stage;
}

static bool
targetlists_are_alike(List *a, List *b, bool same_expressions)
{
	ListCell *lca;
	ListCell *lcb;

	if (list_length(a) != list_length(b))
		return false;
	forboth(lca, a, lcb, b)
	{
		Node *x = (Node *) lfirst_node(TargetEntry, lca)->expr;
		Node *y = (Node *) lfirst_node(TargetEntry, lcb)->expr;

		if (same_expressions ? !equal(x, y)
							 : exprType(x) != exprType(y) ||
								   exprTypmod(x) != exprTypmod(y) ||
								   exprCollation(x) != exprCollation(y))
			return false;
	}
	return true;
}

static bool
stages_are_alike(CustomScan *a, CustomScan *b)
{
	return equal(a->custom_exprs, b->custom_exprs) &&
		   equal(a->scan.plan.qual, b->scan.plan.qual) &&
		   targetlists_are_alike(a->custom_scan_tlist, b->custom_scan_tlist,
								 true) &&
		   targetlists_are_alike(a->scan.plan.targetlist,
								 b->scan.plan.targetlist, true) &&
		   targetlists_are_alike(a->scan.plan.lefttree->targetlist,
								 b->scan.plan.lefttree->targetlist, false);
}

static bool
can_lift_append(Append *append)
{
	ListCell *lc;

	foreach (lc, append->appendplans)
		if (!llm_stage_is(lfirst(lc)) ||
			!stages_are_alike(linitial(append->appendplans), lfirst(lc)))
			return false;
	return append->appendplans != NIL;
}

/*
 * Without this a window would be drained at the end of every partition.  The
 * parent finds junk columns by name, and the Append has the names.
 */
Plan *
llm_stage_lift_append(Append *append)
{
	CustomScan *stage;
	Plan *plan;
	ListCell *lc;
	ListCell *lcn;

	if (!can_lift_append(append))
		return (Plan *) append;
	stage = linitial(append->appendplans);
	plan = &stage->scan.plan;
	foreach (lc, append->appendplans)
		lfirst(lc) = ((Plan *) lfirst(lc))->lefttree;
	plan->startup_cost = append->plan.startup_cost;
	plan->total_cost = append->plan.total_cost;
	plan->plan_rows = append->plan.plan_rows;
	plan->plan_width = append->plan.plan_width;
	plan->parallel_safe = append->plan.parallel_safe;
	plan->extParam = bms_copy(append->plan.extParam);
	plan->allParam = bms_copy(append->plan.allParam);
	forboth(lc, plan->targetlist, lcn, append->plan.targetlist)
	{
		TargetEntry *column = flatCopyTargetEntry(lfirst(lcn));

		column->expr = lfirst_node(TargetEntry, lc)->expr;
		lfirst(lc) = column;
	}
	append->plan.targetlist = pass_on(
		((Plan *) linitial(append->appendplans))->targetlist, OUTER_VAR, 1);
	plan->lefttree = llm_stage_lift_append(append);
	return (Plan *) stage;
}
