/*
 * batch_call.h
 *	  Functions whose calls may run side by side: the table that says how.
 *
 * A batchable SQL function is written in two halves, start and finish, and a
 * look in between.  Called by itself it does them one after the other
 * (llm_batch_run); the custom scan node of src/server/scan starts the calls of
 * many rows before it finishes the first.  To make a function batchable:
 *
 *	1. give it an LlmBatchOps, and a C function that is only
 *	   "return llm_batch_run(fcinfo, &llm_xxx_ops);"
 *	2. declare the ops below and list them in batch_call.c.
 *
 * A function is known by the address of its C code, not by its name: aliases
 * that users create are batched too, and what fmgr wraps (SECURITY DEFINER,
 * SET clauses) is not.  It must not be STRICT-dependent: start sees nulls.
 *
 * src/server/sql/batch_call.h
 */
#ifndef LLM_BATCH_CALL_H
#define LLM_BATCH_CALL_H

#include "postgres.h"

#include "fmgr.h"
#include "src/common/util/error.h"

/*
 * One call in the making: the first member of each function's own struct.  All
 * of a call, its requests too, lives in the memory context that start was
 * called in; deleting that gives everything up, at any time.
 */
typedef struct LlmBatchCall
{
	/* set by start */
	bool is_repeatable; /* equal arguments give an equal answer: greedy, or
						 * with a seed of the caller's */
	bool null_on_error; /* a failed row is NULL and a warning */
	/* set where the row failed; code LLM_OK otherwise */
	LlmError err;
	/* what it took, complete once finished */
	uint32 n_requests;
	uint64 n_prompt_tokens;
	uint64 n_cached_tokens;
	uint64 n_output_tokens;
} LlmBatchCall;

typedef struct LlmBatchOps
{
	const char *symbol;	 /* the C function's name ... */
	PGFunction function; /* ... and itself */

	/*
	 * Read the arguments (they live as long as the call) and submit the
	 * requests, in the class "batch" if so asked and the caller's
	 * options do not say otherwise.  Mistakes of the statement are raised;
	 * what belongs to the row goes into err.  NULL: the result is NULL and
	 * nothing had to be asked.  flinfo->fn_expr has the argument types.
	 */
	LlmBatchCall *(*start)(FunctionCallInfo fcinfo, bool is_batch);

	/*
	 * Take in what has arrived, and submit what depends on it, without
	 * waiting.  True: done, or failed.
	 */
	bool (*advance)(LlmBatchCall *call);

	/*
	 * The value, in CurrentMemoryContext; called once, when done and not
	 * failed.  May still fail, into err: then the value is not used.
	 */
	Datum (*finish)(LlmBatchCall *call, bool *isnull);
} LlmBatchOps;

extern const LlmBatchOps llm_chat_ops;
extern const LlmBatchOps llm_ask_ops;
extern const LlmBatchOps llm_generate_ops;
extern const LlmBatchOps llm_completion_ops;
extern const LlmBatchOps llm_classify_ops;
extern const LlmBatchOps llm_filter_ops;
extern const LlmBatchOps llm_score_ops;
extern const LlmBatchOps llm_extract_ops;
extern const LlmBatchOps llm_extract_type_ops;
extern const LlmBatchOps llm_embed_ops;
extern const LlmBatchOps llm_classify_probabilities_ops;

/* The ops of a function of this database; NULL: not batchable. */
extern const LlmBatchOps *llm_batch_find(Oid function_id);

/* The whole call: start, wait, finish. */
extern Datum llm_batch_run(FunctionCallInfo fcinfo, const LlmBatchOps *ops);

/*
 * Raise a failed row's error, or warn where it is to be NULL.  To be called
 * when the row's turn has come.
 */
extern void llm_batch_report(const LlmBatchCall *call);

#endif /* LLM_BATCH_CALL_H */
