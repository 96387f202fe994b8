/*
 * node_explain.c
 *	  What EXPLAIN shows of our node.
 *
 * src/server/scan/node_explain.c
 */
#include "postgres.h"

#include "src/server/pg_compat.h"
#include "src/server/scan/batch_node.h"
#include "src/server/settings.h"

#include "utils/ruleutils.h"

static bool
is_conditional(const List *exprs)
{
	const Node *guard = linitial(exprs);

	return !IsA(guard, Const);
}

static void
explain_calls(const CustomScan *stage, List *ancestors, ExplainState *es)
{
	List *context = set_deparse_context_plan(
		es->deparse_cxt, (Plan *) &stage->scan.plan, ancestors);
	bool use_prefix = list_length(es->rtable) > 1 || es->verbose;
	List *calls = NIL;
	ListCell *lc;

	foreach (lc, stage->custom_exprs)
	{
		TargetEntry *shown = list_nth_node(
			TargetEntry, stage->custom_scan_tlist, foreach_current_index(lc));
		char *text = deparse_expression((Node *) shown->expr, context,
										use_prefix, false);

		if (is_conditional(lfirst(lc)))
			text = psprintf("%s where needed", text);
		calls = lappend(calls, text);
	}
	if (calls != NIL)
		ExplainPropertyList("Calls", calls, es);
}

static void
explain_counts(const LlmBatchNode *node, ExplainState *es)
{
	const LlmAnswerCounts *counts = &node->counts;
	double waited_us = INSTR_TIME_GET_MICROSEC(node->waited);

	ExplainPropertyUInteger("Requests", NULL, counts->n_requests, es);
	ExplainPropertyUInteger("Prompt Tokens", NULL, counts->n_prompt_tokens, es);
	ExplainPropertyUInteger("Cached Prompt Tokens", NULL,
							counts->n_cached_tokens, es);
	ExplainPropertyUInteger("Completion Tokens", NULL, counts->n_output_tokens,
							es);
	ExplainPropertyUInteger("Duplicates Saved", NULL, counts->n_duplicates, es);
	if (node->n_skipped > 0)
		ExplainPropertyUInteger("Calls Not Needed", NULL,
								(uint64) node->n_skipped, es);
	if (counts->n_failed > 0)
		ExplainPropertyUInteger("Failed Calls", NULL, counts->n_failed, es);
	ExplainPropertyInteger("Most In Flight", NULL, node->max_in_flight, es);
	if (!es->timing)
		return;
	ExplainPropertyFloat("Mean In Flight", NULL,
						 waited_us > 0 ? node->flight_us / waited_us : 0, 1,
						 es);
	ExplainPropertyFloat("Time Waiting", "ms", waited_us / 1000, 3, es);
}

void
llm_node_explain(CustomScanState *custom, List *ancestors, ExplainState *es)
{
	LlmBatchNode *node = (LlmBatchNode *) custom;

	explain_calls((CustomScan *) custom->ss.ps.plan, ancestors, es);
	if (es->costs)
		ExplainPropertyText(
			"Reads Ahead",
			node->demand == LLM_DEMAND_RAMP ? "as asked" : "all rows", es);
	if (es->analyze)
		explain_counts(node, es);
}
