/*
 * batch_node.c
 *	  The node at run time: read ahead, start calls, emit in order.
 *
 * What bounds the reading is calls in flight (llm_ext.batch_rows), so that one
 * slow answer does not leave the engine idle: rows behind it go on being read,
 * up to REORDER_FACTOR windows.  Where the parent may stop early (a cursor, a
 * LIMIT that is not directly above), the window is in rows, starts at what was
 * asked for, and doubles whenever it was used up.
 *
 * An error in a row's arguments is kept back until its turn, where that is
 * safe: in our own code and PostgreSQL's own functions.  Others may hold
 * resources that only an abort gives back, so theirs is raised at once.
 *
 * This node never calls ExecScan: it has no table of its own, and a recheck
 * (EvalPlanQual) runs a copy of it over a child that returns one row.
 *
 * src/server/scan/batch_node.c
 */
#include "postgres.h"

#include "src/server/pg_compat.h"
#include "src/server/scan/batch_node.h"
#include "src/server/scan/torture.h"
#include "src/server/scheduler/scheduler.h"
#include "src/server/settings.h"

#include "access/transam.h"
#include "catalog/objectaccess.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* Rows held behind one that is slow, in windows. */
#define REORDER_FACTOR 16
/* The first window where the parent may stop at any row. */
#define FIRST_WINDOW 8

/* -- beginning -- */

/* What ExecInitFunc does for functions that an expression calls. */
static void
check_may_execute(Oid function_id)
{
	AclResult result = llm_compat_function_aclcheck(function_id, GetUserId());

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function_id));
	InvokeFunctionExecuteHook(function_id);
}

static LlmValueType
value_type(Oid type_id)
{
	LlmValueType type;

	get_typlenbyval(type_id, &type.len, &type.is_by_value);
	return type;
}

static void
append_oid(StringInfo buf, Oid oid)
{
	appendBinaryStringInfo(buf, (const char *) &oid, sizeof(oid));
}

static void
append_type(StringInfo buf, Node *expr)
{
	append_oid(buf, exprType(expr));
	append_oid(buf, (Oid) exprTypmod(expr));
}

static void
make_signature(LlmCallSite *site, FuncExpr *expr)
{
	ListCell *lc;

	initStringInfo(&site->signature);
	append_oid(&site->signature, expr->funcid);
	append_oid(&site->signature, expr->inputcollid);
	append_type(&site->signature, (Node *) expr);
	foreach (lc, expr->args)
		append_type(&site->signature, lfirst(lc));
}

static void
init_site(LlmCallSite *site, FuncExpr *expr, LlmAnswerCounts *counts)
{
	ListCell *lc;

	check_may_execute(expr->funcid);
	site->ops = llm_scan_ops(expr->funcid);
	if (site->ops == NULL)
		site->ops = &llm_plain_call_ops; /* settings have changed */
	fmgr_info(expr->funcid, &site->flinfo);
	fmgr_info_set_expr((Node *) expr, &site->flinfo);
	site->n_args = list_length(expr->args);
	site->fcinfo = palloc0(SizeForFunctionCallInfo(site->n_args));
	InitFunctionCallInfoData(*site->fcinfo, &site->flinfo, site->n_args,
							 expr->inputcollid, NULL, NULL);
	site->arg_types = palloc0(sizeof(LlmValueType) * (site->n_args + 1));
	foreach (lc, expr->args)
		site->arg_types[foreach_current_index(lc)] =
			value_type(exprType(lfirst(lc)));
	site->result_type = value_type(expr->funcresulttype);
	site->counts = counts;
	make_signature(site, expr);
}

static bool
is_foreign_function(Oid function_id, void *context)
{
	return function_id >= FirstNormalObjectId &&
		   llm_batch_find(function_id) == NULL;
}

/* Might evaluation leave something behind that only an abort cleans up? */
static bool
has_foreign_code(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return IsA(node, SubPlan) || IsA(node, AlternativeSubPlan) ||
		   check_functions_in_node(node, is_foreign_function, NULL) ||
		   expression_tree_walker(node, has_foreign_code, context);
}

static void
init_calls(LlmBatchNode *node, CustomScan *stage)
{
	PlanState *planstate = &node->custom.ss.ps;
	ListCell *lc;

	node->n_sites = list_length(stage->custom_exprs);
	node->sites = palloc0(sizeof(LlmCallSite) * (node->n_sites + 1));
	node->guards = palloc0(sizeof(ExprState *) * (node->n_sites + 1));
	node->args = palloc0(sizeof(ExprState **) * (node->n_sites + 1));
	node->may_postpone = palloc0(sizeof(bool) * (node->n_sites + 1));
	foreach (lc, stage->custom_exprs)
	{
		int i = foreach_current_index(lc);
		List *exprs = lfirst_node(List, lc);
		TargetEntry *shown =
			list_nth_node(TargetEntry, stage->custom_scan_tlist, i);
		ListCell *lca;

		init_site(&node->sites[i], castNode(FuncExpr, shown->expr),
				  &node->counts);
		node->args[i] = palloc0(sizeof(ExprState *) * list_length(exprs));
		foreach (lca, exprs)
		{
			ExprState *state = ExecInitExpr(lfirst(lca), planstate);

			if (foreach_current_index(lca) == 0)
				node->guards[i] = state;
			else
				node->args[i][foreach_current_index(lca) - 1] = state;
		}
		node->may_postpone[i] = !has_foreign_code((Node *) exprs, NULL);
	}
}

/* Make ready for the first row, also of a rescan. */
static void
start_rows(LlmBatchNode *node)
{
	MemoryContext old = MemoryContextSwitchTo(node->context);

	node->queue = llm_row_queue_create(work_mem);
	node->capacity = llm_setting_batch_rows * REORDER_FACTOR;
	node->rows = palloc_extended(sizeof(LlmWaitingRow) * node->capacity,
								 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	MemoryContextSwitchTo(old);
	node->n_read = 0;
	node->n_emitted = 0;
	node->at_end = false;
	node->has_current = false;
	node->window = 0;
	node->window_end = 0;
	node->has_end = false;
}

static void
begin_node(CustomScanState *custom, EState *estate, int eflags)
{
	LlmBatchNode *node = (LlmBatchNode *) custom;
	CustomScan *stage = (CustomScan *) custom->ss.ps.plan;

	outerPlanState(custom) =
		ExecInitNode(outerPlan(stage), estate,
					 eflags & ~(EXEC_FLAG_BACKWARD | EXEC_FLAG_MARK));
	node->is_over_stage = llm_stage_is(outerPlan(stage));
	node->demand = (LlmDemand) intVal(linitial(stage->custom_private));
	init_calls(node, stage);
	node->leaf = ExecInitExtraTupleSlot(
		estate, ExecGetResultType(outerPlanState(custom)), &TTSOpsMinimalTuple);
	node->ahead = CreateExprContext(estate);
	node->answers = llm_answers_of(estate);
	node->context = AllocSetContextCreate(estate->es_query_cxt, "llm batch",
										  ALLOCSET_DEFAULT_SIZES);
}

/* -- reading ahead -- */

static LlmWaitingRow *
row_at(LlmBatchNode *node, int64 row_idx)
{
	return &node->rows[row_idx % node->capacity];
}

/* The scan tuple of a row, its results still NULL. */
static TupleTableSlot *
fill_leaves(LlmBatchNode *node, TupleTableSlot *leaves)
{
	TupleTableSlot *scan = node->custom.ss.ss_ScanTupleSlot;
	int n_leaves = leaves->tts_tupleDescriptor->natts;

	slot_getallattrs(leaves);
	ExecClearTuple(scan);
	for (int i = 0; i < node->n_sites; i++)
	{
		scan->tts_values[i] = (Datum) 0;
		scan->tts_isnull[i] = true;
	}
	memcpy(&scan->tts_values[node->n_sites], leaves->tts_values,
		   sizeof(Datum) * n_leaves);
	memcpy(&scan->tts_isnull[node->n_sites], leaves->tts_isnull,
		   sizeof(bool) * n_leaves);
	return ExecStoreVirtualTuple(scan);
}

/* Make a row's call, or find that there is none to make: NULL. */
static LlmAnswer *
start_call(LlmBatchNode *node, int i)
{
	LlmCallSite *site = &node->sites[i];
	bool isnull;
	Datum wanted =
		ExecEvalExprSwitchContext(node->guards[i], node->ahead, &isnull);
	MemoryContext old;
	LlmAnswer *answer;

	if (isnull || !DatumGetBool(wanted))
	{
		node->n_skipped++;
		return NULL;
	}
	old = MemoryContextSwitchTo(node->ahead->ecxt_per_tuple_memory);
	for (int j = 0; j < site->n_args; j++)
		site->fcinfo->args[j].value = ExecEvalExpr(
			node->args[i][j], node->ahead, &site->fcinfo->args[j].isnull);
	answer = llm_answers_get(node->answers, site);
	MemoryContextSwitchTo(old);
	return answer;
}

/* May the error wait for its row's turn? */
static bool
is_of_the_row(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
		default:
			return true;
	}
}

static LlmAnswer *
start_call_or_postpone(LlmBatchNode *node, int i, ErrorData **error)
{
	MemoryContext old = CurrentMemoryContext;
	LlmAnswer *volatile answer = NULL;

	PG_TRY();
	{
		answer = start_call(node, i);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(node->context);
		*error = CopyErrorData();
		if (!is_of_the_row(*error))
			PG_RE_THROW();
		FlushErrorState();
		MemoryContextSwitchTo(old);
	}
	PG_END_TRY();
	return answer;
}

static void
read_row(LlmBatchNode *node, TupleTableSlot *leaves)
{
	LlmWaitingRow *row = row_at(node, node->n_read);

	row->error = NULL;
	if (row->answers == NULL)
		row->answers = MemoryContextAlloc(
			node->context, sizeof(LlmAnswer *) * (node->n_sites + 1));
	ResetExprContext(node->ahead);
	node->ahead->ecxt_scantuple = fill_leaves(node, leaves);
	llm_row_queue_push(node->queue, leaves);
	for (int i = 0; i < node->n_sites; i++)
	{
		row->answers[i] = NULL;
		if (row->error != NULL)
			continue;
		/* also where it is its turn: who reads from here may be ahead */
		if (node->may_postpone[i])
			row->answers[i] = start_call_or_postpone(node, i, &row->error);
		else
			row->answers[i] = start_call(node, i);
	}
	if (row->error != NULL)
		node->at_end = true;
	node->n_read++;
}

/*
 * How far to read at first, and again when so much was used up.  A window that
 * has become full has no end, but where the child writes.
 */
static void
open_window(LlmBatchNode *node)
{
	uint64 n_asked = llm_scan_asked_rows(node->custom.ss.ps.state);
	int64 full = llm_setting_batch_rows;

	node->has_end = node->demand == LLM_DEMAND_EXACT && n_asked > 0;
	if (node->has_end)
		node->window = (int64) Min((uint64) PG_INT32_MAX, n_asked);
	else if (node->demand == LLM_DEMAND_EXACT || node->demand == LLM_DEMAND_ALL)
		node->window = full;
	else if (node->window > 0)
		node->window = Min(node->window * 2, full);
	else if (node->demand != LLM_DEMAND_FULL)
		node->window = Min(full, FIRST_WINDOW);
	else if (n_asked > 0)
		node->window = (int64) Min((uint64) full, n_asked);
	else
		node->window = full;
	node->window_end = node->n_emitted + node->window;
}

static bool
may_read(LlmBatchNode *node)
{
	int64 n_waiting = node->n_read - node->n_emitted;
	int n_in_flight = node->counts.n_in_flight;

	if (node->at_end || n_waiting >= node->capacity)
		return false;
	if (n_waiting == 0)
		return true;
	if ((node->has_end || node->window < llm_setting_batch_rows) &&
		node->n_read >= node->window_end)
		return false;
	return n_in_flight < llm_setting_batch_rows &&
		   llm_answers_bytes(node->answers) < (Size) work_mem * 1024 &&
		   llm_request_has_room();
}

/*
 * Where the child is a node of ours, the error of one of its rows may wait for
 * that row's turn, too: nothing was going on when it was raised.
 */
static TupleTableSlot *
read_child_or_postpone(LlmBatchNode *node, ErrorData **error)
{
	LlmBatchNode *child = (LlmBatchNode *) outerPlanState(&node->custom);
	MemoryContext old = CurrentMemoryContext;
	TupleTableSlot *volatile leaves = NULL;

	child->is_raising = false;
	PG_TRY();
	{
		leaves = ExecProcNode(&child->custom.ss.ps);
	}
	PG_CATCH();
	{
		if (!child->is_raising)
			PG_RE_THROW();
		MemoryContextSwitchTo(node->context);
		*error = CopyErrorData();
		FlushErrorState();
		MemoryContextSwitchTo(old);
	}
	PG_END_TRY();
	return leaves;
}

static TupleTableSlot *
read_child(LlmBatchNode *node, ErrorData **error)
{
	*error = NULL;
	if (node->is_over_stage && node->n_read > node->n_emitted)
		return read_child_or_postpone(node, error);
	return ExecProcNode(outerPlanState(&node->custom));
}

/* A row that will be nothing but an error. */
static void
add_failed_row(LlmBatchNode *node, ErrorData *error)
{
	LlmWaitingRow *row = row_at(node, node->n_read);

	if (row->answers == NULL)
		row->answers = MemoryContextAlloc(
			node->context, sizeof(LlmAnswer *) * (node->n_sites + 1));
	memset(row->answers, 0, sizeof(LlmAnswer *) * (node->n_sites + 1));
	row->error = error;
	node->at_end = true;
	node->n_read++;
}

/* Read rows as far as is allowed. */
static void
read_ahead(LlmBatchNode *node)
{
	while (may_read(node))
	{
		TupleTableSlot *leaves;
		ErrorData *error;

		CHECK_FOR_INTERRUPTS();
		leaves = read_child(node, &error);
		if (error != NULL)
			add_failed_row(node, error);
		else if (TupIsNull(leaves))
			node->at_end = true;
		else
			read_row(node, leaves);
		node->max_in_flight =
			Max(node->max_in_flight, node->counts.n_in_flight);
	}
	llm_request_announce();
}

/* -- emitting -- */

static bool
row_is_done(LlmBatchNode *node, const LlmWaitingRow *row)
{
	for (int i = 0; i < node->n_sites; i++)
		if (row->answers[i] != NULL && !llm_answer_is_done(row->answers[i]))
			return false;
	return true;
}

static void
wait_for_answers(LlmBatchNode *node)
{
	int n_in_flight = node->counts.n_in_flight;
	instr_time start;
	instr_time end;

	/* not always of this node: another one may have asked the same */
	Assert(llm_answers_any_in_flight(node->answers));
	INSTR_TIME_SET_CURRENT(start);
	llm_request_wait_any();
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	INSTR_TIME_ADD(node->waited, end);
	node->flight_us += (double) INSTR_TIME_GET_MICROSEC(end) * n_in_flight;
}

static void
wait_for_row(LlmBatchNode *node, const LlmWaitingRow *row)
{
	while (!row_is_done(node, row))
	{
		llm_answers_advance(node->answers);
		read_ahead(node);
		if (!row_is_done(node, row))
			wait_for_answers(node);
	}
}

static void
release_row(LlmBatchNode *node, LlmWaitingRow *row)
{
	for (int i = 0; i < node->n_sites; i++)
		if (row->answers[i] != NULL)
			llm_answer_release(node->answers, row->answers[i]);
}

/* The row that was emitted last is not looked at any more. */
static void
release_current(LlmBatchNode *node)
{
	if (node->has_current)
		release_row(node, row_at(node, node->n_emitted - 1));
	node->has_current = false;
}

/* The next row's scan tuple, or NULL at the end. */
static TupleTableSlot *
next_row(LlmBatchNode *node)
{
	TupleTableSlot *scan;
	LlmWaitingRow *row;

	release_current(node);
	ExecClearTuple(node->leaf);
	if (node->n_emitted >= node->window_end)
		open_window(node);
	if (llm_request_has_news())
		llm_answers_advance(node->answers);
	read_ahead(node);
	if (node->n_emitted == node->n_read)
		return NULL;
	row = row_at(node, node->n_emitted);
	if (row->error != NULL)
	{
		node->is_raising = true;
		ReThrowError(row->error);
	}
	wait_for_row(node, row);
	llm_row_queue_pop(node->queue, node->leaf);
	scan = fill_leaves(node, node->leaf);
	node->n_emitted++;
	node->has_current = true;
	node->is_raising = true;
	for (int i = 0; i < node->n_sites; i++)
		if (row->answers[i] != NULL)
			scan->tts_values[i] =
				llm_answer_value(row->answers[i], &scan->tts_isnull[i]);
	node->is_raising = false;
	return scan;
}

static TupleTableSlot *
exec_node(CustomScanState *custom)
{
	LlmBatchNode *node = (LlmBatchNode *) custom;
	PlanState *planstate = &custom->ss.ps;
	ExprContext *context = planstate->ps_ExprContext;

	if (node->queue == NULL)
		start_rows(node);
	for (;;)
	{
		TupleTableSlot *scan;

		CHECK_FOR_INTERRUPTS();
		ResetExprContext(context);
		scan = next_row(node);
		if (scan == NULL)
			return planstate->ps_ProjInfo == NULL
					   ? ExecClearTuple(custom->ss.ss_ScanTupleSlot)
					   : ExecClearTuple(planstate->ps_ResultTupleSlot);
		context->ecxt_scantuple = scan;
		if (!ExecQual(planstate->qual, context))
		{
			InstrCountFiltered1(custom, 1);
			continue;
		}
		if (planstate->ps_ProjInfo == NULL)
			return scan;
		return ExecProject(planstate->ps_ProjInfo);
	}
}

/* -- ending -- */

/* Drop all rows, and give up calls that nobody else waits for. */
static void
forget_rows(LlmBatchNode *node)
{
	if (node->queue == NULL)
		return;
	release_current(node);
	while (node->n_emitted < node->n_read)
		release_row(node, row_at(node, node->n_emitted++));
	llm_row_queue_free(node->queue);
	node->queue = NULL;
	ExecClearTuple(node->leaf);
	ExecClearTuple(node->custom.ss.ss_ScanTupleSlot);
	MemoryContextReset(node->context);
}

static void
end_node(CustomScanState *custom)
{
	forget_rows((LlmBatchNode *) custom);
	ExecEndNode(outerPlanState(custom));
}

static void
rescan_node(CustomScanState *custom)
{
	forget_rows((LlmBatchNode *) custom);
	/* else the child is rescanned when it is asked for its first row */
	if (outerPlanState(custom)->chgParam == NULL)
		ExecReScan(outerPlanState(custom));
}

static const CustomExecMethods exec_methods = {
	.CustomName = "LlmBatch",
	.BeginCustomScan = begin_node,
	.ExecCustomScan = exec_node,
	.EndCustomScan = end_node,
	.ReScanCustomScan = rescan_node,
	.ExplainCustomScan = llm_node_explain,
};

static Node *
create_node(CustomScan *stage)
{
	LlmBatchNode *node = palloc0(sizeof(LlmBatchNode));

	NodeSetTag(node, T_CustomScanState);
	node->custom.methods = &exec_methods;
	return (Node *) node;
}

const CustomScanMethods llm_batch_node_methods = { "LlmBatch", create_node };
