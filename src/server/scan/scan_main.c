/*
 * scan_main.c
 *	  Batched execution: calls of many rows side by side.
 *
 *	  call_finder.c		which calls may be made ahead of their row's turn
 *	  plan_stage.c		our node in a plan: how a node is split in two
 *	  plan_join.c		joins: calls move to where many rows are at hand
 *	  plan_rewrite.c	the whole plan
 *	  batch_node.c		the node at run time: read ahead, emit in order
 *	  answers.c			calls in flight, and what they brought
 *	  row_queue.c		rows that wait for their turn
 *	  node_explain.c	what EXPLAIN shows
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
wants_stages(const PlannedStmt *stmt, const char *query_string)
{
	if (llm_setting_debug_wrap_plans && query_string != NULL &&
		is_explain(query_string))
		return false;
	return llm_setting_enable_batching && stmt->commandType != CMD_UTILITY;
}

static PlannedStmt *
plan_with_stages(Query *parse, const char *query_string, int cursor_options,
				 ParamListInfo params)
{
	PlannedStmt *stmt =
		previous_planner != NULL
			? previous_planner(parse, query_string, cursor_options, params)
			: standard_planner(parse, query_string, cursor_options, params);

	if (wants_stages(stmt, query_string))
		llm_plan_rewrite(stmt, cursor_options);
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
}
