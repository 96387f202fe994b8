/*
 * pg_compat.h
 *	  The differences between PostgreSQL 15, 16, 17 and 18, in one place.
 *
 * No other file tests PG_VERSION_NUM.  Where a newer major offers something
 * better (named wait events), older ones get the nearest thing they have.
 *
 * src/server/pg_compat.h
 */
#ifndef LLM_PG_COMPAT_H
#define LLM_PG_COMPAT_H

#include "postgres.h"

#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "nodes/primnodes.h"
#include "storage/latch.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
#include "utils/acl.h"
#include "utils/memutils.h"
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_proc.h"
#include "varatt.h"
#endif
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "llm_ext needs PostgreSQL 15 or later"
#endif

/* 18 shows a module's name and version in pg_get_loaded_modules(). */
#if PG_VERSION_NUM >= 180000
#define LLM_PG_MODULE_MAGIC(module_name, module_version) \
	PG_MODULE_MAGIC_EXT(.name = module_name, .version = module_version)
#else
#define LLM_PG_MODULE_MAGIC(module_name, module_version) PG_MODULE_MAGIC
#endif

/*
 * A wait event of our own for pg_stat_activity; before 17 all extensions
 * share one.  *cache is 0 at first and keeps the number for this process.
 */
static inline uint32
llm_compat_wait_event(uint32 *cache, const char *name)
{
	if (*cache == 0)
	{
#if PG_VERSION_NUM >= 170000
		*cache = WaitEventExtensionNew(name);
#else
		*cache = PG_WAIT_EXTENSION;
#endif
	}
	return *cache;
}

/* A wait event set that lives until it is freed. */
static inline WaitEventSet *
llm_compat_create_wait_event_set(int n_events)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, n_events);
#else
	return CreateWaitEventSet(TopMemoryContext, n_events);
#endif
}

/* The running transaction's number within this process. */
static inline LocalTransactionId
llm_compat_local_xid(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProc->vxid.lxid;
#else
	return MyProc->lxid;
#endif
}

/* May the role call the function? */
static inline AclResult
llm_compat_function_aclcheck(Oid function_id, Oid role_id)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function_id, role_id,
						   ACL_EXECUTE);
#else
	return pg_proc_aclcheck(function_id, role_id, ACL_EXECUTE);
#endif
}

/* ExecutorRun's parameters lost one in 18. */
#if PG_VERSION_NUM >= 180000
#define LLM_EXECUTOR_RUN_PARAMS \
	QueryDesc *query_desc, ScanDirection direction, uint64 count
#define LLM_EXECUTOR_RUN_ARGS query_desc, direction, count
#else
#define LLM_EXECUTOR_RUN_PARAMS                                   \
	QueryDesc *query_desc, ScanDirection direction, uint64 count, \
		bool execute_once
#define LLM_EXECUTOR_RUN_ARGS query_desc, direction, count, execute_once
#endif

/* What EXPLAIN does with one query; 17 and later export it. */
#define LLM_EXPLAIN_QUERY_PARAMS                                          \
	Query *query, int cursor_options, IntoClause *into, ExplainState *es, \
		const char *query_string, ParamListInfo params,                   \
		QueryEnvironment *query_env
#define LLM_EXPLAIN_QUERY_ARGS \
	query, cursor_options, into, es, query_string, params, query_env

static inline void
llm_compat_explain_query(LLM_EXPLAIN_QUERY_PARAMS)
{
#if PG_VERSION_NUM >= 170000
	standard_ExplainOneQuery(LLM_EXPLAIN_QUERY_ARGS);
#else
	BufferUsage usage = pgBufferUsage;
	BufferUsage used;
	instr_time start;
	instr_time duration;
	PlannedStmt *plan;

	INSTR_TIME_SET_CURRENT(start);
	plan = pg_plan_query(query, query_string, cursor_options, params);
	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, start);
	memset(&used, 0, sizeof(used));
	BufferUsageAccumDiff(&used, &pgBufferUsage, &usage);
	ExplainOnePlan(plan, into, es, query_string, params, query_env, &duration,
				   es->buffers ? &used : NULL);
#endif
}

/* merge_action() in RETURNING, which came with 17 */
static inline bool
llm_compat_is_merge_support(const Node *node)
{
#if PG_VERSION_NUM >= 170000
	return IsA(node, MergeSupportFunc);
#else
	return false;
#endif
}

/* When an action of MERGE is taken; the third kind came with 17. */
typedef enum LlmMergeKind
{
	LLM_MERGE_MATCHED,
	LLM_MERGE_NOT_MATCHED_BY_SOURCE,
	LLM_MERGE_NOT_MATCHED
} LlmMergeKind;
#define LLM_N_MERGE_KINDS 3

static inline LlmMergeKind
llm_compat_merge_kind(const MergeAction *action)
{
#if PG_VERSION_NUM >= 170000
	if (action->matchKind == MERGE_WHEN_NOT_MATCHED_BY_SOURCE)
		return LLM_MERGE_NOT_MATCHED_BY_SOURCE;
	return action->matchKind == MERGE_WHEN_MATCHED ? LLM_MERGE_MATCHED
												   : LLM_MERGE_NOT_MATCHED;
#else
	return action->matched ? LLM_MERGE_MATCHED : LLM_MERGE_NOT_MATCHED;
#endif
}

/* What tells matched rows from those the source does not have, or NULL. */
static inline Node *
llm_compat_merge_condition(const Query *query)
{
#if PG_VERSION_NUM >= 170000
	return query->mergeJoinCondition;
#else
	return NULL;
#endif
}

static inline List *
llm_compat_merge_join_condition(const ModifyTable *modify, int table_idx)
{
#if PG_VERSION_NUM >= 170000
	return (List *) list_nth(modify->mergeJoinConditions, table_idx);
#else
	return NIL;
#endif
}

/*
 * A column of MERGE's target in the query's target list: 16 wants to be told
 * which outer join may make it NULL, 17 and later find out.
 */
static inline void
llm_compat_mark_merge_target(const Query *query, Var *column)
{
#if PG_VERSION_NUM >= 160000 && PG_VERSION_NUM < 170000
	if (query->mergeUseOuterJoin)
		column->varnullingrels =
			bms_make_singleton(list_length(query->rtable) + 1);
#endif
}

/* OLD and NEW of a view in RETURNING, which came with 18 */
static inline bool
llm_compat_is_returning_expr(const Node *node)
{
#if PG_VERSION_NUM >= 180000
	return IsA(node, ReturningExpr);
#else
	return false;
#endif
}

#endif /* LLM_PG_COMPAT_H */
