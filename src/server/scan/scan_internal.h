/*
 * scan_internal.h
 *	  What the files of this room share: found calls, stages, the rewrite.
 *
 * A stage is one of our nodes in a plan: a CustomScan over the node it was
 * split from (its lefttree).  Its scan tuple is [results of calls | leaves],
 * described by custom_scan_tlist, whose first entries are the calls themselves
 * (FuncExprs over OUTER_VAR).  custom_exprs has one List per call: its guard,
 * then its arguments, over INDEX_VAR.  custom_private is one Integer, an
 * LlmDemand.
 *
 * src/server/scan/scan_internal.h
 */
#ifndef LLM_SCAN_INTERNAL_H
#define LLM_SCAN_INTERNAL_H

#include "postgres.h"

#include "nodes/extensible.h"
#include "nodes/plannodes.h"
#include "nodes/primnodes.h"
#include "src/server/sql/batch_call.h"

/* -- calls in expressions (call_finder.c) -- */

/* A call that may be made ahead of its row's turn. */
typedef struct LlmFoundCall
{
	FuncExpr *expr; /* the node itself in the plan, not a copy */
	List *guards;	/* all must be true for it to be made; NIL = always */
} LlmFoundCall;

/* What is batchable here: the functions, or in torture mode nearly all. */
extern const LlmBatchOps *llm_scan_ops(Oid function_id);

/* Is there a batchable call in the expression, or list of them? */
extern bool llm_scan_has_call(Node *expr);

/* The same, not looking into aggregates and window functions. */
extern bool llm_scan_has_call_here(Node *expr);

typedef struct LlmCallFinder
{
	const PlannedStmt *stmt; /* to look into subqueries */
	List *calls;			 /* found so far, of LlmFoundCall */
} LlmCallFinder;

/*
 * Add the calls that may be made ahead, innermost first: a call over another
 * one is found when that one has been replaced.
 */
extern void llm_scan_collect(LlmCallFinder *finder, Node *expr, List *guards);

/*
 * The same for calls inside aggregates, window functions and set-returning
 * functions: those are made below the node.
 */
extern void llm_scan_collect_inside(LlmCallFinder *finder, Node *expr);

/* Is there anything in it for which calls may have to stay where they are? */
extern bool llm_scan_may_keep_calls(Node *expr);

/* May an expression without calls be evaluated ahead of its row's turn? */
extern bool llm_scan_may_move(const PlannedStmt *stmt, Node *expr);

/* Would it matter, not counting the calls, when the expression is evaluated? */
extern bool llm_scan_has_other_volatile(const PlannedStmt *stmt, Node *expr);

/* Why a call was left in a node that could have a stage; a static string. */
extern const char *llm_scan_refusal(FuncExpr *call);

/* Subplan of a set of columns (UPDATE SET (a, b) = (SELECT ...)) inside? */
extern bool llm_scan_has_multiexpr(Node *expr);

/* -- stages (plan_stage.c) -- */

typedef enum LlmDemand
{
	LLM_DEMAND_FULL,  /* the parent will read everything */
	LLM_DEMAND_RAMP,  /* it may stop early: start small */
	LLM_DEMAND_EXACT, /* the child writes: not a row more than is asked for */
	LLM_DEMAND_ALL	  /* the child is run to its end, whatever is asked for */
} LlmDemand;

typedef struct LlmRewrite
{
	PlannedStmt *stmt;
	int max_node_id;
	int n_stages;
	bool has_barriers; /* row security or security barriers */
	bool torture;	   /* wrap every node */
} LlmRewrite;

extern bool llm_stage_is(Plan *plan);

/* Put stages over a node until no call is left that could be moved. */
extern Plan *llm_stage_wrap(LlmRewrite *rewrite, Plan *plan, LlmDemand demand);

/* Make calls inside aggregates' arguments and the like below the node. */
extern void llm_stage_push_inside(LlmRewrite *rewrite, Plan *plan);

/*
 * A stage over "plan" that passes its columns on and appends the results of
 * calls, which are over OUTER_VAR = the columns of "plan".
 */
extern Plan *llm_stage_append_results(LlmRewrite *rewrite, Plan *plan,
									  List *calls, LlmDemand demand);

/* What becomes of expressions when their node is split. */
typedef struct LlmSplit
{
	List *calls; /* of LlmFoundCall */
	int n_calls;
	List *leaves; /* of Node, each once */
	/* what a leaf becomes: a column of the scan tuple behind the results, or
	 * one of the child's, for EXPLAIN */
	bool leaves_of_child;
	/* the input's columns stay at their places and are no leaves */
	bool keeps_columns;
} LlmSplit;

extern CustomScan *
llm_stage_make(LlmRewrite *rewrite, Plan *below, LlmDemand demand);

/* The calls of a split, for a stage: what is evaluated ahead. */
extern void llm_stage_add_calls(CustomScan *stage, LlmSplit *split);

/* An expression of the node as the stage evaluates it. */
extern void *llm_stage_split_expr(LlmSplit *split, void *expr);

/* What the node is left to return: a target list of the leaves. */
extern List *llm_stage_add_leaves(CustomScan *stage, const LlmSplit *split);

/* Results of calls in their places, appended to a child's n_columns. */
extern Node *llm_stage_replace_calls(Node *expr, List *calls, int n_columns);

/* A column as one more of a tuple: of INDEX_VAR, OUTER_VAR, INNER_VAR. */
extern Var *llm_stage_make_column(int varno, int attno, Node *expr);

/* Limit over a stage that drops no rows: the other way round. */
extern Plan *llm_stage_sink_limit(Limit *limit, LlmDemand demand);

/* Append over stages that are alike: one stage over the Append. */
extern Plan *llm_stage_lift_append(Append *append);

/* -- joins (plan_join.c) -- */

/* Move calls and filters out of the inner side, and out of join filters. */
extern void llm_join_rewrite(LlmRewrite *rewrite, Join *join, LlmDemand demand);

/* -- VALUES (plan_values.c) -- */

/* A stage over it, for calls in the rows and those of its target list. */
extern Plan *
llm_values_wrap(LlmRewrite *rewrite, ValuesScan *scan, LlmDemand demand);

/* -- nodes that write (plan_returning.c) -- */

/* A stage for what RETURNING computes. */
extern Plan *llm_returning_wrap(LlmRewrite *rewrite, ModifyTable *modify);

/* -- MERGE (plan_merge.c) -- */

/* Have the planner return the target's columns that calls in actions need. */
extern void llm_merge_prepare(Query *query);

/* Make the calls of actions below the node that writes. */
extern void llm_merge_rewrite(LlmRewrite *rewrite, ModifyTable *modify);

/* What an action's expression is but for rows that were changed meanwhile. */
extern Node *llm_merge_with_answers(Node *expr);

/* -- the whole plan (plan_rewrite.c) -- */

extern void llm_plan_rewrite(PlannedStmt *stmt, int cursor_options);

/* All expressions of a node, those of its children not. */
extern List *llm_plan_expressions(Plan *plan);

/* Visit a node and all below it. */
typedef void (*LlmPlanVisitor)(Plan *plan, void *context);
extern void llm_plan_visit(Plan *plan, LlmPlanVisitor visit, void *context);

/* -- EXPLAIN (unbatched.c) -- */

/* Calls that stay one by one, with the reason: a List of char *. */
extern List *llm_scan_unbatched(PlannedStmt *stmt);

/* -- the node at run time (batch_node.c) -- */

extern const CustomScanMethods llm_batch_node_methods;

/* Rows that the running ExecutorRun was asked for; 0 = all. */
extern uint64 llm_scan_asked_rows(EState *estate);

#endif /* LLM_SCAN_INTERNAL_H */
