/*
 * batch_node.h
 *	  The state of our plan node, for EXPLAIN.
 *
 * src/server/scan/batch_node.h
 */
#ifndef LLM_BATCH_NODE_H
#define LLM_BATCH_NODE_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "src/server/scan/answers.h"
#include "src/server/scan/row_queue.h"
#include "src/server/scan/scan_internal.h"

/* A row that waits for its turn; its leaves are in the row queue. */
typedef struct LlmWaitingRow
{
	LlmAnswer **answers; /* [n_sites], NULL = result NULL */
	ErrorData *error;	 /* raised by its arguments; it is the last row */
} LlmWaitingRow;

typedef struct LlmBatchNode
{
	CustomScanState custom; /* must be first */
	LlmDemand demand;
	bool is_over_stage; /* the child is a node like this */
	bool is_raising;	/* the error of a row whose turn has come */
	int n_sites;
	LlmCallSite *sites;	  /* [n_sites] */
	ExprState **guards;	  /* [n_sites] */
	ExprState ***args;	  /* [n_sites][n_args] */
	bool *may_postpone;	  /* [n_sites] errors in arguments may wait */
	ExprContext *ahead;	  /* for guards and arguments */
	TupleTableSlot *leaf; /* the row whose turn it is */
	LlmAnswers *answers;

	/* reset by a rescan */
	MemoryContext context; /* of the following */
	LlmRowQueue *queue;
	LlmWaitingRow *rows; /* ring [capacity] */
	int capacity;
	int64 n_read;	  /* rows; the ring has [n_emitted, n_read) */
	int64 n_emitted;  /* rows whose turn has come */
	bool at_end;	  /* the child has no more, or a row has an error */
	bool has_current; /* row n_emitted - 1 holds its answers */
	int64 window;	  /* rows; see open_window */
	int64 window_end; /* where it is used up */
	bool has_end;	  /* even a full window ends there */

	/* for EXPLAIN ANALYZE, over all rescans */
	LlmAnswerCounts counts;
	int64 n_skipped; /* calls whose guard said no */
	instr_time waited;
	double flight_us; /* sum over waits of calls in flight x time */
	int max_in_flight;
} LlmBatchNode;

/* ExplainCustomScan */
extern void llm_node_explain(CustomScanState *custom, List *ancestors,
							 struct ExplainState *es);

#endif /* LLM_BATCH_NODE_H */
