/*
 * plan_merge.c
 *	  Calls in the actions of MERGE.
 *
 * What an action computes is computed from a row of the join below the node
 * that writes, so its calls are made there, by a stage over the join.  Which
 * action a row will take is decided as the node does: matched or not, and the
 * conditions in their order; that makes the calls' guards.
 *
 * The node reads the target's row anew, and goes through the actions again if
 * somebody else has changed it meanwhile.  What the stage has computed holds
 * for the version of the row that the join saw.  So an expression E of an
 * action becomes
 *
 *		CASE WHEN target.ctid = ctid of the join's row
 *			 THEN E with the stage's answers ELSE E END
 *
 * and for rows that are not matched, whose action may come after a match that
 * was deleted meanwhile, CASE WHEN ctid of the join's row IS NULL.
 *
 * The join must return the target's columns that the actions need.  Only the
 * planner can add them, so they are asked for before it runs: as a column of
 * the query whose name says what it holds.  It is one row of them all, since
 * of a plain column the planner would think that actions could use it
 * themselves, and those must go on reading the target's row.
 *
 * src/server/scan/plan_merge.c
 */
#include "postgres.h"

#include "src/server/pg_compat.h"
#include "src/server/scan/scan_internal.h"

#include "access/sysattr.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/value.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Calls of calls go as deep as this. */
#define MAX_DEPTH 16

/* -- before planning -- */

/* A call, or a function that may turn out to hold one when it is inlined. */
static bool
may_be_call(Oid function_id, void *context)
{
	HeapTuple tuple;
	bool is_sql;

	if (llm_scan_ops(function_id) != NULL)
		return true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function_id));
	if (!HeapTupleIsValid(tuple))
		return false;
	is_sql = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == SQLlanguageId;
	ReleaseSysCache(tuple);
	return is_sql;
}

static bool
may_have_call_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return check_functions_in_node(node, may_be_call, NULL) ||
		   expression_tree_walker(node, may_have_call_walker, context);
}

/* Before the numbers of columns, in the name of the row of them. */
#define ROW_NAME "llm_ext target columns"

/* Add a column of the target to the row, once. */
static void
add_to_row(const Query *query, RowExpr *row, StringInfo name, const Var *var)
{
	Oid table = rt_fetch(query->resultRelation, query->rtable)->relid;
	Var *column;
	ListCell *lc;

	foreach (lc, row->args)
		if (lfirst_node(Var, lc)->varattno == var->varattno)
			return;
	column = copyObjectImpl(var);
	llm_compat_mark_merge_target(query, column);
	row->args = lappend(row->args, column);
	/* a name that no row of the statement's own has, or they would be one */
	row->colnames =
		lappend(row->colnames,
				makeString(psprintf("%s of target",
									get_attname(table, var->varattno, false))));
	appendStringInfo(name, " %d", var->varattno);
}

static void
ask_for_columns(Query *query, List *vars)
{
	RowExpr *row = makeNode(RowExpr);
	StringInfoData name;
	ListCell *lc;

	initStringInfo(&name);
	appendStringInfoString(&name, ROW_NAME);
	row->row_typeid = RECORDOID;
	row->row_format = COERCE_EXPLICIT_CALL;
	row->location = -1;
	foreach (lc, vars)
	{
		Var *var = lfirst_node(Var, lc);

		if (var->varno == query->resultRelation && var->varattno > 0)
			add_to_row(query, row, &name, var);
	}
	if (row->args != NIL)
		query->targetList =
			list_make1(makeTargetEntry((Expr *) row, 1, name.data, true));
}

void
llm_merge_prepare(Query *query)
{
	ListCell *lc;

	foreach (lc, query->cteList)
	{
		Node *inner = lfirst_node(CommonTableExpr, lc)->ctequery;

		if (IsA(inner, Query))
			llm_merge_prepare((Query *) inner);
	}
	/* a view with triggers has its rows from elsewhere */
	if (query->commandType != CMD_MERGE || query->targetList != NIL ||
		rt_fetch(query->resultRelation, query->rtable)->relkind ==
			RELKIND_VIEW ||
		!may_have_call_walker((Node *) query->mergeActionList, NULL))
		return;
	ask_for_columns(
		query,
		pull_var_clause((Node *) list_make2(query->mergeActionList,
											llm_compat_merge_condition(query)),
						0));
}

/* -- from an action's frame to the join's -- */

typedef struct Merge
{
	const PlannedStmt *stmt;
	const ModifyTable *modify;
	int ctid_column;
	int row_column;			/* of the target's columns, or 0 */
	const char *row_attnos; /* which ones, as in its name */
	Index relation;			/* the table whose actions are looked at */
	bool is_lost;			/* something is not to be had in the join */
} Merge;

/* An expression of an action, in both frames. */
typedef struct ActionExpr
{
	MergeAction *action;
	ListCell *place;  /* of the expression in the action */
	Node *expr;		  /* in the join's frame */
	List *guards;	  /* in the join's frame */
	bool has_answers; /* of the stage, by now */
} ActionExpr;

/* The number of the first column whose name begins with so much; 0 = none. */
static int
column_named(const List *columns, const char *start, size_t n_chars)
{
	ListCell *lc;

	foreach (lc, columns)
	{
		TargetEntry *column = lfirst_node(TargetEntry, lc);

		if (column->resjunk && column->resname != NULL &&
			strncmp(column->resname, start, n_chars) == 0)
			return foreach_current_index(lc) + 1;
	}
	return 0;
}

static void
find_columns(Merge *merge)
{
	const List *columns = merge->modify->plan.lefttree->targetlist;

	merge->ctid_column = column_named(columns, "ctid", sizeof("ctid"));
	merge->row_column = column_named(columns, ROW_NAME, strlen(ROW_NAME));
	if (merge->row_column > 0)
		merge->row_attnos =
			list_nth_node(TargetEntry, columns, merge->row_column - 1)
				->resname +
			strlen(ROW_NAME);
}

/* Where the row has the column; 0 = not at all. */
static int
row_field(const Merge *merge, AttrNumber attno)
{
	const char *next = merge->row_attnos;
	char *end;

	if (merge->row_column == 0)
		return 0;
	for (int field = 1; *next != '\0'; field++, next = end)
		if (strtol(next, &end, 10) == attno)
			return field;
	return 0;
}

static const AppendRelInfo *
find_parent(const PlannedStmt *stmt, Index child)
{
	ListCell *lc;

	foreach (lc, stmt->appendRelations)
		if (lfirst_node(AppendRelInfo, lc)->child_relid == child)
			return lfirst_node(AppendRelInfo, lc);
	return NULL;
}

/* The number that a table's column has in the table that MERGE names. */
static AttrNumber
root_column(const Merge *merge, AttrNumber attno)
{
	Index relation = merge->relation;

	if (merge->modify->rootRelation == 0)
		return attno;
	while (relation != merge->modify->rootRelation && attno > 0)
	{
		const AppendRelInfo *info = find_parent(merge->stmt, relation);

		if (info == NULL || attno > info->num_child_cols)
			return 0;
		attno = info->parent_colnos[attno - 1];
		relation = info->parent_relid;
	}
	return attno;
}

/* A column of the target as the join returns it. */
static Node *
make_target_column(Merge *merge, const Var *var)
{
	AttrNumber attno = root_column(merge, var->varattno);
	int field = row_field(merge, attno);
	FieldSelect *select = makeNode(FieldSelect);

	if (field == 0)
		merge->is_lost = true;
	select->arg = (Expr *) makeVar(OUTER_VAR, (AttrNumber) merge->row_column,
								   RECORDOID, -1, InvalidOid, 0);
	select->fieldnum = (AttrNumber) field;
	select->resulttype = var->vartype;
	select->resulttypmod = var->vartypmod;
	select->resultcollid = var->varcollid;
	return (Node *) select;
}

static Node *
to_join_mutator(Node *node, void *context)
{
	Merge *merge = context;
	Var *var = (Var *) node;

	if (node == NULL)
		return NULL;
	/* two places must not share a subquery */
	if (IsA(node, SubPlan) || IsA(node, AlternativeSubPlan))
		merge->is_lost = true;
	if (!IsA(node, Var))
		return expression_tree_mutator(node, to_join_mutator, context);
	if (var->varno == INNER_VAR)
		return (Node *) llm_stage_make_column(OUTER_VAR, var->varattno, node);
	if (var->varno == (int) merge->relation && var->varattno > 0)
		return make_target_column(merge, var);
	merge->is_lost = true;
	return node;
}

/* An expression in the join's frame; false: it needs more than that has. */
static bool
to_join(Merge *merge, void *expr, void *result)
{
	merge->is_lost = false;
	*(Node **) result = to_join_mutator(expr, merge);
	return !merge->is_lost;
}

static Node *
to_action_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Assert(((Var *) node)->varno == OUTER_VAR);
		return (Node *) llm_stage_make_column(INNER_VAR,
											  ((Var *) node)->varattno, node);
	}
	return expression_tree_mutator(node, to_action_mutator, context);
}

/* -- which action, seen from the join -- */

static Node *
make_null_test(Node *arg, NullTestType type)
{
	NullTest *test = makeNode(NullTest);

	test->arg = (Expr *) arg;
	test->nulltesttype = type;
	test->argisrow = false;
	test->location = -1;
	return (Node *) test;
}

static Node *
make_not_true(List *conjuncts)
{
	BooleanTest *test = makeNode(BooleanTest);

	test->arg = make_ands_explicit(conjuncts);
	test->booltesttype = IS_NOT_TRUE;
	test->location = -1;
	return (Node *) test;
}

static Var *
ctid_of_join(const Merge *merge, int varno)
{
	return makeVar(varno, (AttrNumber) merge->ctid_column, TIDOID, -1,
				   InvalidOid, 0);
}

/* When a row comes to an action; unknown where the join cannot tell. */
typedef struct Reach
{
	List *guards;
	bool is_known;
} Reach;

static void
add_guard(Reach *reach, Node *guard)
{
	/* other actions share what was there */
	reach->guards = lappend(list_copy(reach->guards), guard);
}

/* From here on: rows for which a condition holds, or does not. */
static void
add_condition(Merge *merge, Reach *reach, List *condition, bool holds)
{
	List *conjuncts;

	if (!to_join(merge, condition, &conjuncts))
		reach->is_known = false;
	else if (holds)
		add_guard(reach, (Node *) make_ands_explicit(conjuncts));
	else
		add_guard(reach, make_not_true(conjuncts));
}

/* Which rows come to the actions of this kind? */
static Reach
reach_kind(Merge *merge, LlmMergeKind kind, List *join_condition)
{
	bool is_new = kind == LLM_MERGE_NOT_MATCHED;
	Reach reach = { .is_known = true };

	add_guard(&reach, make_null_test((Node *) ctid_of_join(merge, OUTER_VAR),
									 is_new ? IS_NULL : IS_NOT_NULL));
	/* where there is none, all rows of the target are matched */
	if (join_condition != NIL && !is_new)
		add_condition(merge, &reach, join_condition, kind == LLM_MERGE_MATCHED);
	return reach;
}

/* The expressions of a list that an action evaluates, if it comes there. */
static List *
add_expr(Merge *merge, List *exprs, const ActionExpr *expr, const Reach *reach)
{
	ActionExpr *added = palloc(sizeof(ActionExpr));

	*added = *expr;
	added->guards = reach->guards;
	if (!reach->is_known || !to_join(merge, lfirst(expr->place), &added->expr))
		return exprs;
	return lappend(exprs, added);
}

static List *
action_exprs(Merge *merge, MergeAction *action, Reach reach)
{
	ActionExpr expr = { .action = action };
	List *exprs = NIL;
	ListCell *lc;

	foreach (lc, (List *) action->qual)
	{
		expr.place = lc;
		exprs = add_expr(merge, exprs, &expr, &reach);
		add_condition(merge, &reach, list_make1(lfirst(lc)), true);
	}
	foreach (lc, action->targetList)
	{
		expr.place = lc;
		exprs = add_expr(merge, exprs, &expr, &reach);
	}
	return exprs;
}

/* All expressions of a table's actions. */
static List *
table_exprs(Merge *merge, int table_idx)
{
	List *join_condition =
		llm_compat_merge_join_condition(merge->modify, table_idx);
	Reach reach[LLM_N_MERGE_KINDS];
	List *exprs = NIL;
	ListCell *lc;

	merge->relation =
		(Index) list_nth_int(merge->modify->resultRelations, table_idx);
	for (int kind = 0; kind < LLM_N_MERGE_KINDS; kind++)
		reach[kind] = reach_kind(merge, (LlmMergeKind) kind, join_condition);
	foreach (lc, (List *) list_nth(merge->modify->mergeActionLists, table_idx))
	{
		MergeAction *action = lfirst_node(MergeAction, lc);
		Reach *here = &reach[llm_compat_merge_kind(action)];

		exprs = list_concat(exprs, action_exprs(merge, action, *here));
		/* the next ones: rows that this one has refused, if it does */
		if (action->qual != NULL)
			add_condition(merge, here, (List *) action->qual, false);
		else
			here->is_known = false;
	}
	return exprs;
}

/* -- with the stage's answers -- */

/* Move what can be moved to stages over the join; how many calls. */
static int
push_calls(LlmRewrite *rewrite, Plan *modify, List *exprs)
{
	int n_calls = 0;

	for (int i = 0; i < MAX_DEPTH; i++)
	{
		LlmCallFinder finder = { .stmt = rewrite->stmt };
		int n_columns = list_length(modify->lefttree->targetlist);
		ListCell *lc;

		foreach (lc, exprs)
		{
			ActionExpr *expr = lfirst(lc);
			int n_before = list_length(finder.calls);

			llm_scan_collect(&finder, expr->expr, expr->guards);
			expr->has_answers |= list_length(finder.calls) > n_before;
		}
		if (finder.calls == NIL)
			break;
		n_calls += list_length(finder.calls);
		modify->lefttree = llm_stage_append_results(
			rewrite, modify->lefttree, finder.calls, LLM_DEMAND_FULL);
		foreach (lc, exprs)
		{
			ActionExpr *expr = lfirst(lc);

			expr->expr =
				llm_stage_replace_calls(expr->expr, finder.calls, n_columns);
		}
	}
	return n_calls;
}

/* Is the row of the target the one that the join saw? */
static Expr *
make_same_row(const Merge *merge, const MergeAction *action)
{
	Var *seen = ctid_of_join(merge, INNER_VAR);
	Var *own;
	OpExpr *same;

	if (llm_compat_merge_kind(action) == LLM_MERGE_NOT_MATCHED)
		return (Expr *) make_null_test((Node *) seen, IS_NULL);
	own = makeVar((int) merge->relation, SelfItemPointerAttributeNumber, TIDOID,
				  -1, InvalidOid, 0);
	same =
		(OpExpr *) make_opclause(TIDEqualOperator, BOOLOID, false, (Expr *) own,
								 (Expr *) seen, InvalidOid, InvalidOid);
	set_opfuncid(same);
	return (Expr *) same;
}

static Expr *
make_choice(Expr *same_row, Expr *with_answers, Expr *otherwise)
{
	CaseExpr *choice = makeNode(CaseExpr);
	CaseWhen *when = makeNode(CaseWhen);

	when->expr = same_row;
	when->result = with_answers;
	when->location = -1;
	choice->casetype = exprType((Node *) otherwise);
	choice->casecollid = exprCollation((Node *) otherwise);
	choice->args = list_make1(when);
	choice->defresult = otherwise;
	choice->location = -1;
	return (Expr *) choice;
}

Node *
llm_merge_with_answers(Node *expr)
{
	CaseExpr *choice = (CaseExpr *) expr;
	CaseWhen *when;
	Node *test;

	if (!IsA(expr, CaseExpr) || choice->arg != NULL ||
		list_length(choice->args) != 1)
		return expr;
	when = linitial_node(CaseWhen, choice->args);
	test = (Node *) when->expr;
	if ((IsA(test, OpExpr) && ((OpExpr *) test)->opno == TIDEqualOperator) ||
		(IsA(test, NullTest) &&
		 exprType((Node *) ((NullTest *) test)->arg) == TIDOID))
		return (Node *) when->result;
	return expr;
}

/* Let a table's actions use the answers: "exprs" are its own, "source" those
 * of the first table, which have them. */
static void
use_answers(const Merge *merge, const List *exprs, const List *source)
{
	ListCell *lc;
	ListCell *lcs;

	forboth(lc, exprs, lcs, source)
	{
		ActionExpr *expr = lfirst(lc);
		const ActionExpr *answered = lfirst(lcs);
		Node *own = lfirst(expr->place);
		Node *other = to_action_mutator(answered->expr, NULL);
		Expr *same_row;

		if (!answered->has_answers)
			continue;
		same_row = make_same_row(merge, expr->action);
		if (IsA(own, TargetEntry))
		{
			TargetEntry *column = (TargetEntry *) own;

			column->expr = make_choice(same_row, ((TargetEntry *) other)->expr,
									   column->expr);
		}
		else
			lfirst(expr->place) =
				make_choice(same_row, (Expr *) other, (Expr *) own);
	}
}

/* Do the tables' actions differ in nothing but the numbers of columns? */
static bool
are_alike(const List *a, const List *b)
{
	ListCell *lca;
	ListCell *lcb;

	if (list_length(a) != list_length(b))
		return false;
	forboth(lca, a, lcb, b)
	{
		const ActionExpr *x = lfirst(lca);
		const ActionExpr *y = lfirst(lcb);

		if (!equal(x->expr, y->expr) || !equal(x->guards, y->guards))
			return false;
	}
	return true;
}

void
llm_merge_rewrite(LlmRewrite *rewrite, ModifyTable *modify)
{
	Merge merge = { .stmt = rewrite->stmt, .modify = modify };
	int n_tables = list_length(modify->mergeActionLists);
	List **exprs = palloc(sizeof(List *) * (n_tables + 1));

	if (!llm_scan_has_call((Node *) modify->mergeActionLists))
		return;
	find_columns(&merge);
	if (merge.ctid_column == 0)
		return;
	for (int i = 0; i < n_tables; i++)
	{
		exprs[i] = table_exprs(&merge, i);
		if (!are_alike(exprs[0], exprs[i]))
			return;
	}
	if (push_calls(rewrite, &modify->plan, exprs[0]) == 0)
		return;
	for (int i = 0; i < n_tables; i++)
	{
		merge.relation = (Index) list_nth_int(modify->resultRelations, i);
		use_answers(&merge, exprs[i], exprs[0]);
	}
}
