/*
 * torture.c
 *	  A developers' help: PostgreSQL's own functions as batchable calls.
 *
 * With llm_ext.debug_wrap_plans every plan gets stages and every function of
 * PostgreSQL's own that is not volatile is called ahead, so that PostgreSQL's
 * regression tests try the rewrite and the node: README.md says how to run
 * them.
 *
 * src/server/scan/torture.c
 */
#include "postgres.h"

#include "src/server/scan/torture.h"

#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

typedef struct PlainCall
{
	LlmBatchCall batch; /* must be first */
	Datum value;
	int16 type_len;
	bool is_by_value;
} PlainCall;

static LlmBatchCall *
start_call(FunctionCallInfo fcinfo, bool is_batch)
{
	Datum value = FunctionCallInvoke(fcinfo);
	PlainCall *call;

	if (fcinfo->isnull)
		return NULL;
	call = palloc0(sizeof(PlainCall));
	get_typlenbyval(get_func_rettype(fcinfo->flinfo->fn_oid), &call->type_len,
					&call->is_by_value);
	call->value = datumCopy(value, call->is_by_value, call->type_len);
	call->batch.is_repeatable =
		func_volatile(fcinfo->flinfo->fn_oid) != PROVOLATILE_VOLATILE;
	return &call->batch;
}

static bool
advance_call(LlmBatchCall *call)
{
	return true;
}

static Datum
finish_call(LlmBatchCall *batch, bool *isnull)
{
	PlainCall *call = (PlainCall *) batch;

	*isnull = false;
	return datumCopy(call->value, call->is_by_value, call->type_len);
}

const LlmBatchOps llm_plain_call_ops = { .start = start_call,
										 .advance = advance_call,
										 .finish = finish_call };

const LlmBatchOps *
llm_torture_find(Oid function_id)
{
	Oid type_id;

	if (function_id >= FirstNormalObjectId ||
		func_volatile(function_id) == PROVOLATILE_VOLATILE ||
		get_func_retset(function_id))
		return NULL;
	type_id = get_func_rettype(function_id);
	if (get_typtype(type_id) != TYPTYPE_BASE)
		return NULL;
	return &llm_plain_call_ops;
}
