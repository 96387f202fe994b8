/*
 * plan_returning.c
 *	  RETURNING: calls of rows that were written.
 *
 * The node that writes goes on to do so, and returns the columns that its
 * RETURNING list is made of; the list itself is computed by a stage on top.
 * What the executor expects of a node that writes holds: it counts the rows,
 * and what asks a plan for its result type asks the stage.
 *
 * A row is written before the answers to earlier ones are there.  So a column
 * with a volatile function besides its calls stays with the node that writes:
 * it sees the table and sequences as it would have.  Where no more than some
 * rows are asked for (SPI), no more are written.
 *
 * Each partition or child has a RETURNING list of its own, over its own
 * columns.  Those that are routed to get theirs from the first when a row
 * comes; so the lists are split alike, or not at all.
 *
 * src/server/scan/plan_returning.c
 */
#include "postgres.h"

#include "src/server/scan/scan_internal.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"

/* A RETURNING list in two. */
typedef struct SplitReturning
{
	CustomScan *stage; /* what it computes; not yet part of a plan */
	List *columns;	   /* what is left to the node that writes */
} SplitReturning;

/* Is the column computed by the stage, of all tables alike? */
static bool
can_move(const LlmRewrite *rewrite, List *lists, int column_idx)
{
	ListCell *lc;

	foreach (lc, lists)
	{
		Node *column = list_nth(lfirst_node(List, lc), column_idx);

		if (!llm_scan_has_call(column) && !rewrite->torture)
			return false;
		if (llm_scan_has_other_volatile(rewrite->stmt, column))
			return false;
	}
	return true;
}

static Bitmapset *
choose_columns(const LlmRewrite *rewrite, List *lists)
{
	Bitmapset *moved = NULL;

	for (int i = 0; i < list_length(linitial_node(List, lists)); i++)
		if (can_move(rewrite, lists, i))
			moved = bms_add_member(moved, i);
	return moved;
}

/* Columns that stay come first, in their order: they may be volatile. */
static void
split_list(LlmRewrite *rewrite, List *list, const Bitmapset *moved,
		   SplitReturning *result)
{
	LlmCallFinder finder = { .stmt = rewrite->stmt };
	LlmSplit split = { 0 };
	List *targetlist = NIL;
	int n_kept = 0;
	ListCell *lc;

	foreach (lc, list)
	{
		Expr *expr = lfirst_node(TargetEntry, lc)->expr;

		if (bms_is_member(foreach_current_index(lc), moved))
			llm_scan_collect(&finder, (Node *) expr, NIL);
		else
			split.leaves = lappend(split.leaves, copyObject(expr));
	}
	result->stage = makeNode(CustomScan);
	split.calls = finder.calls;
	llm_stage_add_calls(result->stage, &split);
	foreach (lc, list)
	{
		TargetEntry *column = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));

		if (bms_is_member(foreach_current_index(lc), moved))
			column->expr = llm_stage_split_expr(&split, column->expr);
		else
			column->expr = (Expr *) llm_stage_make_column(
				INDEX_VAR, split.n_calls + ++n_kept, (Node *) column->expr);
		targetlist = lappend(targetlist, column);
	}
	result->stage->scan.plan.targetlist = targetlist;
	result->columns = llm_stage_add_leaves(result->stage, &split);
}

/* Would one stage do for both? */
static bool
are_alike(const SplitReturning *a, const SplitReturning *b)
{
	return equal(a->stage->custom_exprs, b->stage->custom_exprs) &&
		   equal(a->stage->custom_scan_tlist, b->stage->custom_scan_tlist) &&
		   equal(a->stage->scan.plan.targetlist,
				 b->stage->scan.plan.targetlist);
}

/* Split all lists; NIL: they differ in more than their tables' columns. */
static List *
split_lists(LlmRewrite *rewrite, List *lists, const Bitmapset *moved,
			SplitReturning *first)
{
	List *columns = NIL;
	ListCell *lc;

	foreach (lc, lists)
	{
		SplitReturning split;

		split_list(rewrite, lfirst(lc), moved, &split);
		if (columns == NIL)
			*first = split;
		else if (!are_alike(first, &split))
			return NIL;
		columns = lappend(columns, split.columns);
	}
	return columns;
}

Plan *
llm_returning_wrap(LlmRewrite *rewrite, ModifyTable *modify)
{
	/* what WITH writes is written in any case */
	LlmDemand demand = modify->canSetTag ? LLM_DEMAND_EXACT : LLM_DEMAND_ALL;
	SplitReturning split;
	CustomScan *stage;
	Bitmapset *moved;
	List *columns;

	if (modify->returningLists == NIL)
		return (Plan *) modify;
	moved = choose_columns(rewrite, modify->returningLists);
	if (bms_is_empty(moved))
		return (Plan *) modify;
	columns = split_lists(rewrite, modify->returningLists, moved, &split);
	if (columns == NIL ||
		(split.stage->custom_exprs == NIL && !rewrite->torture))
		return (Plan *) modify;
	stage = llm_stage_make(rewrite, &modify->plan, demand);
	stage->custom_exprs = split.stage->custom_exprs;
	stage->custom_scan_tlist = split.stage->custom_scan_tlist;
	stage->scan.plan.targetlist = split.stage->scan.plan.targetlist;
	modify->returningLists = columns;
	/* what EXPLAIN and our columns refer to */
	modify->plan.targetlist = copyObject(linitial(columns));
	/* calls of calls */
	return llm_stage_wrap(rewrite, (Plan *) stage, demand);
}
