/*
 * extract_funcs.c
 *	  llm_extract: data out of a text, by a JSON schema or by an SQL type.
 *
 * src/server/sql/extract_funcs.c
 */
#include "postgres.h"

#include "src/server/report.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/type_schema.h"
#include "src/server/sql/typed_call.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(llm_extract);
PG_FUNCTION_INFO_V1(llm_extract_type);
PG_FUNCTION_INFO_V1(llm_json_schema_in);
PG_FUNCTION_INFO_V1(llm_json_schema_out);

#define ADAPTER_ARG 2

typedef struct ExtractCall
{
	LlmTypedCall typed; /* must be first */
	Oid type_id;		/* of llm_extract_type */
	int32 typmod;
} ExtractCall;

static LlmBatchCall *
start_extract_by(ExtractCall *call, FunctionCallInfo fcinfo,
				 LlmTemplateText schema, bool is_batch)
{
	LlmTypedPrompt prompt =
		llm_prompt_extract(llm_text_argument(fcinfo, 0), schema);

	call->typed.options.format.kind = LLM_GRAMMAR_JSON_SCHEMA;
	call->typed.options.format.text = schema;
	llm_typed_call_submit(&call->typed, &prompt, is_batch);
	return &call->typed.batch;
}

/* The answer's JSON in the database's encoding; NULL: the row has failed. */
static char *
answer_json(LlmTypedCall *call)
{
	LlmTemplateText answer;
	text *json;

	if (!llm_typed_call_answer(call, &answer))
		return NULL;
	json = llm_text_try_from_utf8(answer.data, answer.len, &call->batch.err);
	return json != NULL ? text_to_cstring(json) : NULL;
}

static Datum
jsonb_of(const char *json)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

/*
 * -- by a schema --
 *
 * jsonb; or json, which keeps the order of its members; or a literal without
 * a type.  The last is why there is a type llm.json_schema: of the category of
 * strings, which literals prefer, but with no casts from any, so that nothing
 * else ever becomes one.
 */

Datum
llm_json_schema_in(PG_FUNCTION_ARGS)
{
	return DirectFunctionCall1(json_in, PG_GETARG_DATUM(0));
}

Datum
llm_json_schema_out(PG_FUNCTION_ARGS)
{
	return DirectFunctionCall1(textout, PG_GETARG_DATUM(0));
}

static LlmTemplateText
schema_argument(FunctionCallInfo fcinfo)
{
	if (get_fn_expr_argtype(fcinfo->flinfo, 1) == JSONBOID)
		return llm_json_text(PG_GETARG_DATUM(1), JSONBOID);
	return llm_text_argument(fcinfo, 1);
}

static LlmBatchCall *
start_extract(FunctionCallInfo fcinfo, bool is_batch)
{
	ExtractCall *call;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return NULL;
	call = palloc0(sizeof(*call));
	llm_typed_call_read(&call->typed, fcinfo, ADAPTER_ARG);
	return start_extract_by(call, fcinfo, schema_argument(fcinfo), is_batch);
}

static Datum
finish_extract(LlmBatchCall *batch, bool *isnull)
{
	const char *json = answer_json((LlmTypedCall *) batch);

	*isnull = json == NULL;
	return json != NULL ? jsonb_of(json) : (Datum) 0;
}

const LlmBatchOps llm_extract_ops = { "llm_extract", llm_extract, start_extract,
									  llm_typed_call_advance, finish_extract };

Datum
llm_extract(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_extract_ops);
}

/* -- by a type -- */

/* What is known of the type for all rows of a statement. */
typedef struct KnownType
{
	Oid type_id;
	int32 typmod;
	LlmTemplateText schema;
} KnownType;

static int32
argument_typmod(FmgrInfo *flinfo, int arg)
{
	Node *expr = flinfo->fn_expr;

	if (expr == NULL || !IsA(expr, FuncExpr) ||
		list_length(((FuncExpr *) expr)->args) <= arg)
		return -1;
	return exprTypmod(list_nth(((FuncExpr *) expr)->args, arg));
}

static const KnownType *
known_type(FmgrInfo *flinfo)
{
	KnownType *known = flinfo->fn_extra;
	MemoryContext old;

	if (known != NULL)
		return known;
	old = MemoryContextSwitchTo(flinfo->fn_mcxt);
	known = palloc0(sizeof(KnownType));
	known->type_id = get_fn_expr_argtype(flinfo, 1);
	if (!OidIsValid(known->type_id))
		ereport(ERROR, (errcode(ERRCODE_INDETERMINATE_DATATYPE),
						errmsg("could not determine the type to extract")));
	known->typmod = argument_typmod(flinfo, 1);
	known->schema = llm_type_schema(known->type_id, known->typmod);
	flinfo->fn_extra = known;
	MemoryContextSwitchTo(old);
	return known;
}

static LlmBatchCall *
start_extract_type(FunctionCallInfo fcinfo, bool is_batch)
{
	const KnownType *known;
	ExtractCall *call;

	if (PG_ARGISNULL(0))
		return NULL;
	known = known_type(fcinfo->flinfo);
	/* what a schema in quotes becomes where nothing says that it is one */
	if (known->type_id == TEXTOID && !PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the text to extract must be given as a type, not by "
						"a value"),
				 errhint("Cast a JSON schema to jsonb, as in '{...}'::jsonb; "
						 "for a text write NULL::text.")));
	call = palloc0(sizeof(*call));
	llm_typed_call_read(&call->typed, fcinfo, ADAPTER_ARG);
	call->type_id = known->type_id;
	call->typmod = known->typmod;
	return start_extract_by(call, fcinfo, known->schema, is_batch);
}

/*
 * PostgreSQL makes a value of JSON for columns: the type becomes that of a
 * record's only column.  Checks of domains and input functions are run.
 */
static Datum
value_of_json(const ExtractCall *call, const char *json, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 1);
	FmgrInfo flinfo;
	TupleDesc desc = CreateTemplateTupleDesc(1);
	ReturnSetInfo result = { .type = T_ReturnSetInfo };
	Datum record;

	TupleDescInitEntry(desc, 1, "value", call->type_id, call->typmod, 0);
	result.expectedDesc = BlessTupleDesc(desc);
	result.allowedModes = SFRM_ValuePerCall;
	fmgr_info(F_JSONB_TO_RECORD, &flinfo);
	InitFunctionCallInfoData(*fcinfo, &flinfo, 1, InvalidOid, NULL,
							 (fmNodePtr) &result);
	fcinfo->args[0].value = jsonb_of(psprintf("{\"value\": %s}", json));
	fcinfo->args[0].isnull = false;
	record = FunctionCallInvoke(fcinfo);
	return GetAttributeByNum(DatumGetHeapTupleHeader(record), 1, isnull);
}

/* The same where a value that the type refuses is the row's failure. */
static Datum
try_value_of_json(ExtractCall *call, const char *json, bool *isnull)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Datum value = (Datum) 0;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		value = value_of_json(call, json, isnull);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;
		int category;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		category = ERRCODE_TO_CATEGORY(error->sqlerrcode);
		if (category != ERRCODE_DATA_EXCEPTION &&
			category != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
			ReThrowError(error);
		llm_error_set(&call->typed.batch.err, LLM_ERROR_FORMAT, "%s",
					  error->message);
		*isnull = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return value;
}

static Datum
finish_extract_type(LlmBatchCall *batch, bool *isnull)
{
	ExtractCall *call = (ExtractCall *) batch;
	const char *json = answer_json(&call->typed);

	*isnull = json == NULL;
	if (json == NULL)
		return (Datum) 0;
	return batch->null_on_error ? try_value_of_json(call, json, isnull)
								: value_of_json(call, json, isnull);
}

const LlmBatchOps llm_extract_type_ops = { "llm_extract_type", llm_extract_type,
										   start_extract_type,
										   llm_typed_call_advance,
										   finish_extract_type };

Datum
llm_extract_type(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_extract_type_ops);
}
