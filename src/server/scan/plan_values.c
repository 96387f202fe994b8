/*
 * plan_values.c
 *	  VALUES with calls: INSERT ... VALUES (1, f('a')), (2, f('b')).
 *
 * The expressions of a column are brought to a few forms, in which what
 * differs from row to row is a column of its own: f(arg) over the columns
 * (1, 'a'), (2, 'b').  The node that scans the VALUES then returns those, and
 * the forms are split from its target list like any other expression.  With
 * more forms than one, columns say which one a row has.
 *
 * Only what may be evaluated ahead becomes a column; volatile functions, and
 * conditions like CASE with all that they hold, remain in the form.  So a
 * sequence in VALUES is asked when its row is emitted.
 *
 * src/server/scan/plan_values.c
 */
#include "postgres.h"

#include "src/server/scan/scan_internal.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/value.h"
#include "parser/parsetree.h"

/* A row's form is found by trying all before it. */
#define MAX_FORMS 16

typedef struct Form
{
	Node *expr;	  /* over columns numbered from 1, the parts */
	List *parts;  /* of List: of each row that has it, its parts */
	int selector; /* column that is true for its rows; 0: the last form */
} Form;

/* A column of the VALUES whose expressions are taken over. */
typedef struct FormedColumn
{
	int column;
	bool is_volatile;
	List *forms;   /* of Form */
	List *of_rows; /* of Form, of each row */
	int n_uses;
	Node *expr; /* what the column is now */
} FormedColumn;

typedef struct Values
{
	LlmRewrite *rewrite;
	ValuesScan *scan;
	RangeTblEntry *rte;
	List *formed; /* of FormedColumn */
	bool has_row; /* somebody wants the whole row */
} Values;

/* -- forms -- */

typedef struct Taking
{
	const Values *values;
	List *parts;
} Taking;

static Node *
make_part(Taking *taking, Node *node)
{
	taking->parts = lappend(taking->parts, copyObject(node));
	return (Node *) llm_stage_make_column(
		(int) taking->values->scan->scan.scanrelid, list_length(taking->parts),
		node);
}

static Node *
take_parts_mutator(Node *node, void *context)
{
	Taking *taking = context;

	if (node == NULL)
		return NULL;
	if (!IsA(node, List) && !llm_scan_has_call(node))
		return llm_scan_may_move(taking->values->rewrite->stmt, node)
				   ? make_part(taking, node)
				   : (Node *) copyObject(node);
	switch (nodeTag(node))
	{
		case T_List:
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_CoerceToDomain:
		case T_CollateExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_MinMaxExpr:
		case T_NullTest:
		case T_BooleanTest:
			return expression_tree_mutator(node, take_parts_mutator, context);
		default:
			/* not all of it is evaluated, or not known to be */
			return (Node *) copyObject(node);
	}
}

static Form *
find_form(List *forms, Node *expr)
{
	ListCell *lc;

	foreach (lc, forms)
		if (equal(((Form *) lfirst(lc))->expr, expr))
			return lfirst(lc);
	return NULL;
}

static void
add_row(const Values *values, FormedColumn *formed, Node *expr)
{
	Taking taking = { .values = values };
	Node *form_expr = take_parts_mutator(expr, &taking);
	Form *form = find_form(formed->forms, form_expr);

	if (form == NULL)
	{
		form = palloc0(sizeof(Form));
		form->expr = form_expr;
		formed->forms = lappend(formed->forms, form);
	}
	form->parts = lappend(form->parts, taking.parts);
	formed->of_rows = lappend(formed->of_rows, form);
}

/* Does the column have calls, or what must not run ahead of its row? */
static FormedColumn *
form_column(const Values *values, int column)
{
	FormedColumn *formed = palloc0(sizeof(FormedColumn));
	bool has_call = false;
	ListCell *lc;

	formed->column = column;
	foreach (lc, values->scan->values_lists)
	{
		Node *expr = list_nth(lfirst_node(List, lc), column - 1);

		has_call = has_call || llm_scan_has_call(expr);
		formed->is_volatile =
			formed->is_volatile ||
			llm_scan_has_other_volatile(values->rewrite->stmt, expr);
	}
	if (!has_call && !formed->is_volatile)
		return NULL;
	foreach (lc, values->scan->values_lists)
		add_row(values, formed, list_nth(lfirst_node(List, lc), column - 1));
	return formed;
}

/* -- columns for what differs -- */

static Node *
column_of_row(const Values *values, int row_idx, int column)
{
	return list_nth(list_nth_node(List, values->scan->values_lists, row_idx),
					column - 1);
}

/* One more column; "exprs" has an expression for each row. */
static int
add_column(Values *values, const char *name, List *exprs)
{
	ListCell *lc;
	ListCell *lce;

	forboth(lc, values->scan->values_lists, lce, exprs) lfirst(lc) =
		lappend(lfirst(lc), lfirst(lce));
	values->rte->eref->colnames =
		lappend(values->rte->eref->colnames, makeString(pstrdup(name)));
	return list_length(linitial_node(List, values->scan->values_lists));
}

/* Is the part the same constant in all rows of the form? */
static bool
is_constant(const Form *form, int part_idx)
{
	Node *first = list_nth(linitial_node(List, form->parts), part_idx);
	ListCell *lc;

	if (!IsA(first, Const))
		return false;
	foreach (lc, form->parts)
		if (!equal(list_nth(lfirst_node(List, lc), part_idx), first))
			return false;
	return true;
}

/* The part as a column: in rows of other forms it is NULL. */
static Node *
add_part(Values *values, const FormedColumn *formed, const Form *form,
		 int part_idx)
{
	Node *sample = list_nth(linitial_node(List, form->parts), part_idx);
	const char *name =
		strVal(list_nth(values->rte->eref->colnames, formed->column - 1));
	List *exprs = NIL;
	int i = 0;
	ListCell *lc;

	foreach (lc, formed->of_rows)
		exprs = lappend(
			exprs,
			lfirst(lc) == form
				? list_nth(list_nth_node(List, form->parts, i++), part_idx)
				: (void *) makeNullConst(exprType(sample), exprTypmod(sample),
										 exprCollation(sample)));
	return (Node *) llm_stage_make_column(
		(int) values->scan->scan.scanrelid,
		add_column(values, psprintf("%s.%d", name, part_idx + 1), exprs),
		sample);
}

static Node *
put_parts_mutator(Node *node, void *context)
{
	List *parts = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
		return list_nth(parts, ((Var *) node)->varattno - 1);
	return expression_tree_mutator(node, put_parts_mutator, context);
}

/* The form over the columns of the VALUES. */
static Node *
finish_form(Values *values, const FormedColumn *formed, const Form *form)
{
	List *parts = NIL;

	for (int i = 0; i < list_length(linitial_node(List, form->parts)); i++)
		parts =
			lappend(parts, is_constant(form, i)
							   ? list_nth(linitial_node(List, form->parts), i)
							   : (void *) add_part(values, formed, form, i));
	return put_parts_mutator(form->expr, parts);
}

static Var *
add_selector(Values *values, const FormedColumn *formed, const Form *form)
{
	List *exprs = NIL;
	Node *sample;
	ListCell *lc;

	foreach (lc, formed->of_rows)
		exprs = lappend(exprs, makeBoolConst(lfirst(lc) == form, false));
	sample = linitial(exprs);
	return llm_stage_make_column((int) values->scan->scan.scanrelid,
								 add_column(values, "form", exprs), sample);
}

static void
finish_column(Values *values, FormedColumn *formed)
{
	Node *sample = column_of_row(values, 0, formed->column);
	CaseExpr *choice = makeNode(CaseExpr);
	ListCell *lc;

	choice->casetype = exprType(sample);
	choice->casecollid = exprCollation(sample);
	choice->location = -1;
	foreach (lc, formed->forms)
	{
		Form *form = lfirst(lc);
		CaseWhen *when = makeNode(CaseWhen);

		when->result = (Expr *) finish_form(values, formed, form);
		when->location = -1;
		if (lnext(formed->forms, lc) != NULL)
		{
			when->expr = (Expr *) add_selector(values, formed, form);
			choice->args = lappend(choice->args, when);
		}
		else
			choice->defresult = when->result;
	}
	formed->expr =
		choice->args == NIL ? (Node *) choice->defresult : (Node *) choice;
	/* what the column was is not evaluated any more */
	foreach (lc, values->scan->values_lists)
		list_nth_cell(lfirst_node(List, lc), formed->column - 1)->ptr_value =
			makeNullConst(exprType(sample), exprTypmod(sample),
						  exprCollation(sample));
}

/* -- their use -- */

static FormedColumn *
find_formed(const Values *values, Node *node)
{
	ListCell *lc;

	if (!IsA(node, Var) ||
		((Var *) node)->varno != (int) values->scan->scan.scanrelid)
		return NULL;
	foreach (lc, values->formed)
		if (((FormedColumn *) lfirst(lc))->column == ((Var *) node)->varattno)
			return lfirst(lc);
	return NULL;
}

static bool
count_uses_walker(Node *node, void *context)
{
	Values *values = context;
	FormedColumn *formed;

	if (node == NULL)
		return false;
	if (IsA(node, Var) && ((Var *) node)->varattno == 0)
		values->has_row = true;
	formed = find_formed(values, node);
	if (formed != NULL)
		formed->n_uses++;
	return expression_tree_walker(node, count_uses_walker, context);
}

static Node *
use_forms_mutator(Node *node, void *context)
{
	const Values *values = context;
	FormedColumn *formed;
	Node *expr;

	if (node == NULL)
		return NULL;
	formed = find_formed(values, node);
	if (formed == NULL)
		return expression_tree_mutator(node, use_forms_mutator, context);
	expr = (Node *) copyObject(formed->expr);
	if (exprTypmod(expr) == ((Var *) node)->vartypmod)
		return expr;
	return (Node *) makeRelabelType(
		(Expr *) expr, ((Var *) node)->vartype, ((Var *) node)->vartypmod,
		((Var *) node)->varcollid, COERCE_IMPLICIT_CAST);
}

/* Can every column be evaluated once for its row, when it is emitted? */
static bool
can_use_forms(Values *values)
{
	Plan *plan = &values->scan->scan.plan;
	ListCell *lc;

	(void) count_uses_walker((Node *) list_make2(plan->targetlist, plan->qual),
							 values);
	if (values->has_row)
		return false;
	foreach (lc, values->formed)
	{
		const FormedColumn *formed = lfirst(lc);

		if (list_length(formed->forms) > MAX_FORMS ||
			(formed->is_volatile && (formed->n_uses == 0 || plan->qual != NIL)))
			return false;
	}
	return true;
}

static bool
is_used_twice(const Values *values)
{
	ListCell *lc;

	foreach (lc, values->formed)
		if (((FormedColumn *) lfirst(lc))->n_uses > 1)
			return true;
	return false;
}

/* A stage that makes no calls, for a column to be computed once below it. */
static CustomScan *
make_reader(LlmRewrite *rewrite, Plan *plan, LlmDemand demand)
{
	CustomScan *stage = llm_stage_make(rewrite, plan, demand);
	LlmSplit split = { 0 };

	stage->scan.plan.qual = llm_stage_split_expr(&split, plan->qual);
	stage->scan.plan.targetlist =
		llm_stage_split_expr(&split, plan->targetlist);
	plan->qual = NIL;
	plan->targetlist = llm_stage_add_leaves(stage, &split);
	return stage;
}

/* The range table is not ours alone. */
static RangeTblEntry *
own_range_table_entry(PlannedStmt *stmt, Index rti)
{
	RangeTblEntry *rte = copyObject(rt_fetch(rti, stmt->rtable));

	stmt->rtable = list_copy(stmt->rtable);
	list_nth_cell(stmt->rtable, (int) rti - 1)->ptr_value = rte;
	return rte;
}

Plan *
llm_values_wrap(LlmRewrite *rewrite, ValuesScan *scan, LlmDemand demand)
{
	Plan *plan = &scan->scan.plan;
	Values values = { .rewrite = rewrite, .scan = scan };
	CustomScan *reader = NULL;
	int n_columns = list_length(linitial_node(List, scan->values_lists));
	ListCell *lc;

	if (!llm_scan_has_call((Node *) scan->values_lists))
		return llm_stage_wrap(rewrite, plan, demand);
	for (int column = 1; column <= n_columns; column++)
	{
		FormedColumn *formed = form_column(&values, column);

		if (formed != NULL)
			values.formed = lappend(values.formed, formed);
	}
	if (!can_use_forms(&values))
		return llm_stage_wrap(rewrite, plan, demand);
	values.rte = own_range_table_entry(rewrite->stmt, scan->scan.scanrelid);
	foreach (lc, values.formed)
		finish_column(&values, lfirst(lc));
	if (is_used_twice(&values))
		reader = make_reader(rewrite, plan, demand);
	plan->targetlist =
		(List *) use_forms_mutator((Node *) plan->targetlist, &values);
	plan->qual = (List *) use_forms_mutator((Node *) plan->qual, &values);
	plan = llm_stage_wrap(rewrite, plan, demand);
	if (reader == NULL)
		return plan;
	reader->scan.plan.lefttree = plan;
	return llm_stage_wrap(rewrite, (Plan *) reader, demand);
}
