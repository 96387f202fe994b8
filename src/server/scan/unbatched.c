/*
 * unbatched.c
 *	  Which calls of a finished plan stay one by one, and why.
 *
 * src/server/scan/unbatched.c
 */
#include "postgres.h"

#include "src/server/scan/scan_internal.h"

#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"

typedef struct Search
{
	const PlannedStmt *stmt;
	const char *because; /* of the place, or NULL: of the call */
	List *notes;		 /* of char *, each once */
} Search;

static void
add_note(Search *search, FuncExpr *call)
{
	char *note = psprintf("%s: %s", get_func_name(call->funcid),
						  search->because != NULL ? search->because
												  : llm_scan_refusal(call));
	ListCell *lc;

	foreach (lc, search->notes)
		if (strcmp(lfirst(lc), note) == 0)
			return;
	search->notes = lappend(search->notes, note);
}

static bool
note_calls_walker(Node *node, void *context)
{
	Search *search = context;

	if (node == NULL)
		return false;
	if (IsA(node, WindowFunc) && !((WindowFunc *) node)->winagg)
	{
		const char *because = search->because;

		search->because = "the window function chooses rows by itself";
		(void) expression_tree_walker(node, note_calls_walker, context);
		search->because = because;
		return false;
	}
	if (IsA(node, FuncExpr) &&
		llm_batch_find(((FuncExpr *) node)->funcid) != NULL)
		add_note(search, (FuncExpr *) node);
	return expression_tree_walker(node, note_calls_walker, context);
}

static const char *
reason_of_place(Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_Result:
			return plan->lefttree == NULL ? "there is one row" : NULL;
		case T_ValuesScan:
			return "its rows of VALUES differ too much, or are used as a whole";
		case T_FunctionScan:
		case T_TableFuncScan:
			return "it is an argument of a function in FROM";
		case T_NestLoop:
		case T_HashJoin:
		case T_MergeJoin:
			return ((Join *) plan)->jointype == JOIN_INNER
					   ? NULL
					   : "it is in the condition of an outer join or of a "
						 "subquery that became a join";
		default:
			return NULL;
	}
}

static void
note_calls(Search *search, void *exprs, const char *because)
{
	search->because = because;
	(void) note_calls_walker(exprs, search);
}

/* Rows that somebody else has changed meanwhile are not counted. */
static void
note_calls_of_action(MergeAction *action, Search *search)
{
	const char *because =
		"its action of MERGE has a subquery, a condition with a volatile "
		"function or call, or needs more than columns";
	ListCell *lc;

	foreach (lc, (List *) action->qual)
		note_calls(search, llm_merge_with_answers(lfirst(lc)), because);
	foreach (lc, action->targetList)
		note_calls(
			search,
			llm_merge_with_answers((Node *) lfirst_node(TargetEntry, lc)->expr),
			because);
}

/* Where rows are written one at a time. */
static void
note_calls_of_modify(ModifyTable *modify, Search *search)
{
	ListCell *lc;
	ListCell *lca;

	note_calls(search, modify->returningLists,
			   llm_scan_has_other_volatile(search->stmt,
										   (Node *) modify->returningLists)
				   ? "RETURNING has a volatile function or subquery beside it"
				   : NULL);
	note_calls(search, modify->onConflictSet, "it is in ON CONFLICT");
	note_calls(search, modify->onConflictWhere, "it is in ON CONFLICT");
	note_calls(search, modify->withCheckOptionLists,
			   "it checks rows that are written");
	foreach (lc, modify->mergeActionLists)
		foreach (lca, lfirst_node(List, lc))
			note_calls_of_action(lfirst_node(MergeAction, lca), search);
}

static void
note_calls_of_node(Plan *plan, void *context)
{
	Search *search = context;
	List *exprs = llm_plan_expressions(plan);

	if (IsA(plan, ModifyTable))
	{
		note_calls_of_modify((ModifyTable *) plan, search);
		return;
	}
	search->because = reason_of_place(plan);
	/* what the stage itself makes is not left over */
	if (llm_stage_is(plan))
		exprs = list_make2(plan->targetlist, plan->qual);
	(void) note_calls_walker((Node *) exprs, search);
}

List *
llm_scan_unbatched(PlannedStmt *stmt)
{
	Search search = { .stmt = stmt };
	ListCell *lc;

	llm_plan_visit(stmt->planTree, note_calls_of_node, &search);
	foreach (lc, stmt->subplans)
		llm_plan_visit(lfirst(lc), note_calls_of_node, &search);
	return search.notes;
}
