/*
 * scan_main.c
 *	  Batched execution: calls of many rows side by side.
 *
 *	  call_finder.c		which calls may be made ahead of their row's turn
 *	  plan_stage.c		our node in a plan: how a node is split in two
 *	  plan_join.c		joins: calls move to where many rows are at hand
 *	  plan_values.c		VALUES with calls
 *	  plan_returning.c	what RETURNING computes of rows that were written
 *	  plan_merge.c		calls in the actions of MERGE
 *	  plan_rewrite.c	the whole plan
 *	  batch_node.c		the node at run time: read ahead, emit in order
 *	  answers.c			calls in flight, and what they brought
 *	  row_queue.c		rows that wait for their turn
 *	  node_explain.c	what EXPLAIN shows of our node
 *	  unbatched.c		which calls stay one by one, and why
 *	  torture.c			PostgreSQL's own functions as batchable calls
 *
 * This file has the hooks.
 *
 * src/server/scan/scan_main.c
 */
#include "postgres.h"

#include <ctype.h>

#include "src/server/pg_compat.h"
#include "src/server/scan/scan_internal.h"
#include "src/server/scan/scan_subsys.h"
#include "src/server/settings.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "optimizer/planner.h"

/* An ExecutorRun that is going on; functions run queries inside queries. */
typedef struct RunningQuery
{
	EState *estate;
	uint64 n_asked; /* rows; 0 = all */
	struct RunningQuery *outer;
} RunningQuery;

static RunningQuery *running;
static planner_hook_type previous_planner;
static ExecutorRun_hook_type previous_run;
static ExplainOneQuery_hook_type previous_explain;

uint64
llm_scan_asked_rows(EState *estate)
{
	/* another EState is a recheck of one row inside the running query */
	if (running == NULL || running->estate != estate)
		return 0;
	return running->n_asked;
}

/* Torture leaves EXPLAIN alone, whose output the tests know by heart. */
static bool
is_explain(const char *query_string)
{
	while (isspace((unsigned char) *query_string))
		query_string++;
	return pg_strncasecmp(query_string, "explain", strlen("explain")) == 0;
}

static bool
wants_stages(CmdType command, const char *query_string)
{
	if (llm_setting_debug_wrap_plans && query_string != NULL &&
		is_explain(query_string))
		return false;
	return llm_setting_enable_batching && command != CMD_UTILITY;
}

/* Is the next plan for EXPLAIN, and what did planning leave unbatched? */
static bool is_explaining;
static List *unbatched;

static PlannedStmt *
plan_with_stages(Query *parse, const char *query_string, int cursor_options,
				 ParamListInfo params)
{
	/* not what is planned while this is planned, or runs */
	bool is_explained = is_explaining;
	PlannedStmt *stmt;

	is_explaining = false;
	if (wants_stages(parse->commandType, query_string))
		llm_merge_prepare(parse);
	if (previous_planner != NULL)
		stmt = previous_planner(parse, query_string, cursor_options, params);
	else
		stmt = standard_planner(parse, query_string, cursor_options, params);
	if (wants_stages(stmt->commandType, query_string))
		llm_plan_rewrite(stmt, cursor_options);
	if (is_explained && llm_setting_enable_batching)
		unbatched = llm_scan_unbatched(stmt);
	return stmt;
}

static void
note_and_run(LLM_EXECUTOR_RUN_PARAMS)
{
	RunningQuery query = { .estate = query_desc->estate,
						   .n_asked = count,
						   .outer = running };

	running = &query;
	PG_TRY();
	{
		if (previous_run != NULL)
			previous_run(LLM_EXECUTOR_RUN_ARGS);
		else
			standard_ExecutorRun(LLM_EXECUTOR_RUN_ARGS);
	}
	PG_FINALLY();
	{
		running = query.outer;
	}
	PG_END_TRY();
}

/* Behind the plan, where a reader looks; other formats have no place for it. */
static void
explain_unbatched(ExplainState *es)
{
	ListCell *lc;

	if (es->format != EXPLAIN_FORMAT_TEXT)
		return;
	foreach (lc, unbatched)
		ExplainPropertyText("Not Batched", lfirst(lc), es);
}

static void
explain_query(LLM_EXPLAIN_QUERY_PARAMS)
{
	unbatched = NIL;
	is_explaining = true;
	PG_TRY();
	{
		if (previous_explain != NULL)
			previous_explain(LLM_EXPLAIN_QUERY_ARGS);
		else
			llm_compat_explain_query(LLM_EXPLAIN_QUERY_ARGS);
	}
	PG_FINALLY();
	{
		is_explaining = false;
	}
	PG_END_TRY();
	explain_unbatched(es);
	unbatched = NIL;
}

void
llm_scan_init(void)
{
	RegisterCustomScanMethods(&llm_batch_node_methods);
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_planner = planner_hook;
	planner_hook = plan_with_stages;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = note_and_run;
	previous_explain = ExplainOneQuery_hook;
	ExplainOneQuery_hook = explain_query;
}
