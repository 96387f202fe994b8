/*
 * batch_call.c
 *	  Functions whose calls may run side by side: the table that says how.
 *
 * The catalog's prosrc is compared first, only to avoid loading the libraries
 * of other C functions; what counts is the address that fmgr finds.
 *
 * src/server/sql/batch_call.c
 */
#include "postgres.h"

#include "src/server/report.h"
#include "src/server/scheduler/scheduler.h"
#include "src/server/sql/batch_call.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

static const LlmBatchOps *const batchable[] = {
	&llm_chat_ops,
	&llm_ask_ops,
	&llm_generate_ops,
	&llm_completion_ops,
	&llm_classify_ops,
	&llm_filter_ops,
	&llm_score_ops,
	&llm_extract_ops,
	&llm_extract_type_ops,
	&llm_embed_ops,
	&llm_classify_probabilities_ops,
};

/* -- recognizing a function -- */

typedef struct KnownFunction
{
	Oid function_id; /* hash key */
	const LlmBatchOps *ops;
} KnownFunction;

/* What was looked up in this process, until pg_proc changes. */
static HTAB *known_functions;

static void
forget_functions(Datum arg, int cache_id, uint32 hash_value)
{
	if (known_functions != NULL)
		hash_destroy(known_functions);
	known_functions = NULL;
}

static void
create_known_functions(void)
{
	static bool callback_is_set;
	HASHCTL control = { .keysize = sizeof(Oid),
						.entrysize = sizeof(KnownFunction) };

	if (!callback_is_set)
		CacheRegisterSyscacheCallback(PROCOID, forget_functions, 0);
	callback_is_set = true;
	known_functions = hash_create("llm batchable functions", 64, &control,
								  HASH_ELEM | HASH_BLOBS);
}

/* The ops whose C function has this name; only a first guess. */
static const LlmBatchOps *
guess_ops(Oid function_id)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function_id));
	const LlmBatchOps *ops = NULL;
	bool isnull;
	Datum source;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId && !isnull)
	{
		char *symbol = TextDatumGetCString(source);

		for (int i = 0; i < lengthof(batchable) && ops == NULL; i++)
			if (strcmp(symbol, batchable[i]->symbol) == 0)
				ops = batchable[i];
		pfree(symbol);
	}
	ReleaseSysCache(tuple);
	return ops;
}

static const LlmBatchOps *
look_up_ops(Oid function_id)
{
	const LlmBatchOps *ops = guess_ops(function_id);
	FmgrInfo info;

	if (ops == NULL)
		return NULL;
	fmgr_info(function_id, &info);
	return info.fn_addr == ops->function && !info.fn_retset ? ops : NULL;
}

const LlmBatchOps *
llm_batch_find(Oid function_id)
{
	KnownFunction *known;
	const LlmBatchOps *ops;

	if (function_id < FirstNormalObjectId)
		return NULL;
	if (known_functions != NULL)
	{
		known = hash_search(known_functions, &function_id, HASH_FIND, NULL);
		if (known != NULL)
			return known->ops;
	}
	/* may read catalogs, and so invalidate what is known */
	ops = look_up_ops(function_id);
	if (known_functions == NULL)
		create_known_functions();
	known = hash_search(known_functions, &function_id, HASH_ENTER, NULL);
	known->ops = ops;
	return ops;
}

/* -- one call by itself -- */

void
llm_batch_report(const LlmBatchCall *call)
{
	Assert(call->err.code != LLM_OK);
	llm_report(call->null_on_error ? WARNING : ERROR, &call->err);
}

Datum
llm_batch_run(FunctionCallInfo fcinfo, const LlmBatchOps *ops)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(caller, "llm call", ALLOCSET_SMALL_SIZES);
	LlmBatchCall *call;
	Datum value = (Datum) 0;

	MemoryContextSwitchTo(context);
	call = ops->start(fcinfo, false);
	while (call != NULL && call->err.code == LLM_OK && !ops->advance(call))
		llm_request_wait_any();
	MemoryContextSwitchTo(caller);
	fcinfo->isnull = call == NULL;
	if (call != NULL && call->err.code == LLM_OK)
		value = ops->finish(call, &fcinfo->isnull);
	if (call != NULL && call->err.code != LLM_OK)
	{
		llm_batch_report(call);
		fcinfo->isnull = true;
	}
	MemoryContextDelete(context);
	return fcinfo->isnull ? (Datum) 0 : value;
}
