/*
 * plan_rewrite.c
 *	  From a finished plan to one with stages.
 *
 * The planner knows nothing of this: stages are put into the plan that it has
 * decided for, where every call has found its place, whatever statement it
 * came from.  Parents need no change, because a stage has the target list of
 * the node that it is put on.
 *
 * src/server/scan/plan_rewrite.c
 */
#include "postgres.h"

#include "src/server/scan/scan_internal.h"
#include "src/server/settings.h"

#include "executor/executor.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "optimizer/planmain.h"

/* -- looking at plans -- */

static List *
function_expressions(List *functions)
{
	List *result = NIL;
	ListCell *lc;

	foreach (lc, functions)
		result = lappend(result, lfirst_node(RangeTblFunction, lc)->funcexpr);
	return result;
}

/* What only nodes of this kind have. */
static List *
special_expressions(Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_NestLoop:
			return ((Join *) plan)->joinqual;
		case T_HashJoin:
			return list_make2(((Join *) plan)->joinqual,
							  ((HashJoin *) plan)->hashclauses);
		case T_MergeJoin:
			return list_make2(((Join *) plan)->joinqual,
							  ((MergeJoin *) plan)->mergeclauses);
		case T_IndexScan:
			return list_make2(((IndexScan *) plan)->indexqualorig,
							  ((IndexScan *) plan)->indexorderbyorig);
		case T_IndexOnlyScan:
			return list_make2(((IndexOnlyScan *) plan)->indexqual,
							  ((IndexOnlyScan *) plan)->indexorderby);
		case T_BitmapIndexScan:
			return ((BitmapIndexScan *) plan)->indexqualorig;
		case T_FunctionScan:
			return function_expressions(((FunctionScan *) plan)->functions);
		case T_ValuesScan:
			return ((ValuesScan *) plan)->values_lists;
		case T_TableFuncScan:
			return list_make1(((TableFuncScan *) plan)->tablefunc);
		case T_Result:
			return list_make1(((Result *) plan)->resconstantqual);
		case T_Limit:
			return list_make2(((Limit *) plan)->limitCount,
							  ((Limit *) plan)->limitOffset);
		case T_CustomScan:
			return list_make2(((CustomScan *) plan)->custom_exprs,
							  ((CustomScan *) plan)->custom_scan_tlist);
		default:
			return NIL;
	}
}

static List *
modify_expressions(ModifyTable *modify)
{
	List *result =
		list_make4(modify->returningLists, modify->onConflictSet,
				   modify->onConflictWhere, modify->withCheckOptionLists);
	ListCell *lc;
	ListCell *lca;

	foreach (lc, modify->mergeActionLists)
		foreach (lca, (List *) lfirst(lc))
		{
			MergeAction *action = lfirst_node(MergeAction, lca);

			result = lappend(result, action->qual);
			result = lappend(result, action->targetList);
		}
	return result;
}

List *
llm_plan_expressions(Plan *plan)
{
	List *special = IsA(plan, ModifyTable)
						? modify_expressions((ModifyTable *) plan)
						: special_expressions(plan);

	return list_make3(plan->targetlist, plan->qual, special);
}

/* Children besides the left and the right one. */
static List *
more_children(Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_Append:
			return ((Append *) plan)->appendplans;
		case T_MergeAppend:
			return ((MergeAppend *) plan)->mergeplans;
		case T_BitmapAnd:
			return ((BitmapAnd *) plan)->bitmapplans;
		case T_BitmapOr:
			return ((BitmapOr *) plan)->bitmapplans;
		case T_CustomScan:
			return ((CustomScan *) plan)->custom_plans;
		case T_SubqueryScan:
			return list_make1(((SubqueryScan *) plan)->subplan);
		default:
			return NIL;
	}
}

void
llm_plan_visit(Plan *plan, LlmPlanVisitor visit, void *context)
{
	ListCell *lc;

	if (plan == NULL)
		return;
	check_stack_depth();
	visit(plan, context);
	llm_plan_visit(plan->lefttree, visit, context);
	llm_plan_visit(plan->righttree, visit, context);
	foreach (lc, more_children(plan))
		llm_plan_visit(lfirst(lc), visit, context);
}

/* -- rewriting -- */

static Plan *rewrite_plan(LlmRewrite *rewrite, Plan *plan, LlmDemand demand);

/* How much of its children's rows a node will read. */
static LlmDemand
child_demand(Plan *plan, LlmDemand demand)
{
	switch (nodeTag(plan))
	{
		case T_Sort:
		case T_Hash:
		case T_ModifyTable:
			return LLM_DEMAND_FULL;
		case T_Agg:
			return ((Agg *) plan)->aggstrategy == AGG_SORTED ? demand
															 : LLM_DEMAND_FULL;
		case T_Limit:
		case T_MergeJoin:
			return LLM_DEMAND_RAMP;
		default:
			return demand;
	}
}

static void
rewrite_list(LlmRewrite *rewrite, List *plans, LlmDemand demand)
{
	ListCell *lc;

	foreach (lc, plans)
		lfirst(lc) = rewrite_plan(rewrite, lfirst(lc), demand);
}

/* Must the node keep a mark for its parent, which a stage cannot? */
static bool
must_mark(Plan *parent, Plan *child, bool parent_must_mark)
{
	if (IsA(parent, MergeJoin))
		return child == parent->righttree &&
			   !((MergeJoin *) parent)->skip_mark_restore;
	return parent_must_mark && IsA(parent, Result);
}

static Plan *rewrite_child(LlmRewrite *rewrite, Plan *child, LlmDemand demand,
						   bool keep_top);

static void
rewrite_children(LlmRewrite *rewrite, Plan *plan, LlmDemand demand,
				 bool keeps_mark)
{
	LlmDemand inner = IsA(plan, NestLoop) ? LLM_DEMAND_RAMP : demand;

	if (IsA(plan, ForeignScan))
		return; /* what is below it rechecks rows, one at a time */
	if (IsA(plan, SubqueryScan))
		((SubqueryScan *) plan)->subplan =
			rewrite_plan(rewrite, ((SubqueryScan *) plan)->subplan, demand);
	else if (!IsA(plan, BitmapAnd) && !IsA(plan, BitmapOr))
		rewrite_list(rewrite, more_children(plan), demand);
	plan->lefttree = rewrite_child(rewrite, plan->lefttree, demand,
								   must_mark(plan, plan->lefttree, keeps_mark));
	plan->righttree =
		rewrite_child(rewrite, plan->righttree, inner,
					  must_mark(plan, plan->righttree, keeps_mark));
}

static bool
is_join(Plan *plan)
{
	return IsA(plan, NestLoop) || IsA(plan, HashJoin) || IsA(plan, MergeJoin);
}

/* Rewrite a plan; its top node stays where it is if so asked. */
static Plan *
rewrite_child(LlmRewrite *rewrite, Plan *plan, LlmDemand demand, bool keep_top)
{
	if (plan == NULL)
		return NULL;
	check_stack_depth();
	if (is_join(plan))
		llm_join_rewrite(rewrite, (Join *) plan, demand);
	if (llm_stage_is(plan))
	{
		/* a join has put it there */
		plan->lefttree = rewrite_plan(rewrite, plan->lefttree, demand);
		return plan;
	}
	rewrite_children(rewrite, plan, child_demand(plan, demand), keep_top);
	if (IsA(plan, Agg) || IsA(plan, WindowAgg) || IsA(plan, ProjectSet))
		llm_stage_push_inside(rewrite, plan);
	if (keep_top)
		return plan;
	if (IsA(plan, ModifyTable))
	{
		llm_merge_rewrite(rewrite, (ModifyTable *) plan);
		return llm_returning_wrap(rewrite, (ModifyTable *) plan);
	}
	if (IsA(plan, ValuesScan))
		return llm_values_wrap(rewrite, (ValuesScan *) plan, demand);
	if (IsA(plan, Append))
		return llm_stage_lift_append((Append *) plan);
	if (IsA(plan, Limit))
		return llm_stage_sink_limit((Limit *) plan, demand);
	return llm_stage_wrap(rewrite, plan, demand);
}

static Plan *
rewrite_plan(LlmRewrite *rewrite, Plan *plan, LlmDemand demand)
{
	return rewrite_child(rewrite, plan, demand, false);
}

/* -- the statement -- */

typedef struct PlanFacts
{
	int max_node_id;
	bool has_call;
} PlanFacts;

static void
note_node(Plan *plan, void *context)
{
	PlanFacts *facts = context;

	facts->max_node_id = Max(facts->max_node_id, plan->plan_node_id);
	facts->has_call = facts->has_call ||
					  llm_scan_has_call((Node *) llm_plan_expressions(plan));
}

static bool
has_security_barrier(List *rtable)
{
	ListCell *lc;

	foreach (lc, rtable)
		if (lfirst_node(RangeTblEntry, lc)->security_barrier)
			return true;
	return false;
}

/*
 * A cursor that must go backward, which no stage can: keep its rows.  (A plan
 * that could not do so before has got its Material from the planner.)
 */
static Plan *
make_scrollable(LlmRewrite *rewrite, Plan *plan)
{
	Plan *top = materialize_finished_plan(plan);

	top->plan_node_id = ++rewrite->max_node_id;
	top->extParam = bms_copy(plan->extParam);
	top->allParam = bms_copy(plan->allParam);
	return top;
}

void
llm_plan_rewrite(PlannedStmt *stmt, int cursor_options)
{
	LlmRewrite rewrite = { .stmt = stmt,
						   .torture = llm_setting_debug_wrap_plans };
	PlanFacts facts = { 0 };
	ListCell *lc;

	llm_plan_visit(stmt->planTree, note_node, &facts);
	foreach (lc, stmt->subplans)
		llm_plan_visit(lfirst(lc), note_node, &facts);
	if (!facts.has_call && !rewrite.torture)
		return;
	rewrite.max_node_id = facts.max_node_id;
	rewrite.has_barriers =
		stmt->dependsOnRole || has_security_barrier(stmt->rtable);
	/* nodes of a finished plan may share expressions; what is moved must not */
	stmt->planTree = copyObject(stmt->planTree);
	stmt->subplans = copyObject(stmt->subplans);
	stmt->planTree = rewrite_plan(&rewrite, stmt->planTree, LLM_DEMAND_FULL);
	rewrite_list(&rewrite, stmt->subplans, LLM_DEMAND_RAMP);
	if ((cursor_options & CURSOR_OPT_SCROLL) &&
		!ExecSupportsBackwardScan(stmt->planTree))
		stmt->planTree = make_scrollable(&rewrite, stmt->planTree);
	/* the cost of calls is waiting, which no compiler makes faster */
	if (facts.has_call)
		stmt->jitFlags = PGJIT_NONE;
}
