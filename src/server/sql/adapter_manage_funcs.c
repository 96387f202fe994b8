/*
 * adapter_manage_funcs.c
 *	  llm_activate_adapter, llm_rollback_adapter, llm_drop_adapter,
 *	  llm_split_adapter, llm_grant_adapter, llm_revoke_adapter, llm_set_route,
 *	  and the function under llm.adapters.
 *
 * src/server/sql/adapter_manage_funcs.c
 */
#include "postgres.h"

#include "src/server/catalog/adapter_store.h"
#include "src/server/pg_compat.h"
#include "src/server/scheduler/scheduler.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(llm_activate_adapter);
PG_FUNCTION_INFO_V1(llm_rollback_adapter);
PG_FUNCTION_INFO_V1(llm_drop_adapter);
PG_FUNCTION_INFO_V1(llm_split_adapter);
PG_FUNCTION_INFO_V1(llm_grant_adapter);
PG_FUNCTION_INFO_V1(llm_revoke_adapter);
PG_FUNCTION_INFO_V1(llm_set_route);
PG_FUNCTION_INFO_V1(llm_list_adapter_use);

/* The first argument; raises the standard error where nothing may change. */
static char *
name_to_change(FunctionCallInfo fcinfo, const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("the name must not be null")));
	return text_to_cstring(PG_GETARG_TEXT_PP(0));
}

/* llm_activate_adapter(name text, version integer) */
Datum
llm_activate_adapter(PG_FUNCTION_ARGS)
{
	llm_adapter_store_activate(name_to_change(fcinfo, "llm_activate_adapter()"),
							   PG_GETARG_INT32(1));
	PG_RETURN_VOID();
}

/* llm_rollback_adapter(name text) → integer */
Datum
llm_rollback_adapter(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(llm_adapter_store_rollback(
		name_to_change(fcinfo, "llm_rollback_adapter()")));
}

/* llm_drop_adapter(name text, version integer DEFAULT NULL) */
Datum
llm_drop_adapter(PG_FUNCTION_ARGS)
{
	char *name = name_to_change(fcinfo, "llm_drop_adapter()");
	int32 version = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);

	if (!PG_ARGISNULL(1) && version < 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("adapter \"%s\" has no version %d", name, version)));
	llm_adapter_store_drop(name, version);
	PG_RETURN_VOID();
}

/* llm_split_adapter(name text, version integer, percent integer) */
Datum
llm_split_adapter(PG_FUNCTION_ARGS)
{
	char *name = name_to_change(fcinfo, "llm_split_adapter()");
	int32 percent = PG_GETARG_INT32(2);

	if (percent < 0 || percent > 100)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("percent must be between 0 and 100, not %d", percent)));
	llm_adapter_store_split(name, PG_GETARG_INT32(1), percent);
	PG_RETURN_VOID();
}

/* -- rights and routes -- */

static Oid
grantee_argument(FunctionCallInfo fcinfo)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(1));

	return pg_strcasecmp(name, "public") == 0 ? InvalidOid
											  : get_role_oid(name, false);
}

/* llm_grant_adapter(name text, grantee text) */
Datum
llm_grant_adapter(PG_FUNCTION_ARGS)
{
	llm_adapter_store_grant(name_to_change(fcinfo, "llm_grant_adapter()"),
							grantee_argument(fcinfo));
	PG_RETURN_VOID();
}

/* llm_revoke_adapter(name text, grantee text) */
Datum
llm_revoke_adapter(PG_FUNCTION_ARGS)
{
	llm_adapter_store_revoke(name_to_change(fcinfo, "llm_revoke_adapter()"),
							 grantee_argument(fcinfo));
	PG_RETURN_VOID();
}

/* llm_set_route(tenant text, adapter text): NULL ends the route */
Datum
llm_set_route(PG_FUNCTION_ARGS)
{
	char *tenant = name_to_change(fcinfo, "llm_set_route()");
	char *adapter = NULL;

	if (*tenant == '\0')
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
						errmsg("a tenant's name must not be empty")));
	if (!PG_ARGISNULL(1))
	{
		LlmAdapterVersion version;

		adapter = text_to_cstring(PG_GETARG_TEXT_PP(1));
		llm_adapter_resolve(adapter, NULL, 0, GetUserId(), &version);
	}
	llm_adapter_store_route(tenant, adapter);
	PG_RETURN_VOID();
}

/* -- llm.adapters -- */

static Datum
digest_datum(const uint8 digest[LLM_SHA256_BYTES])
{
	bytea *bytes = palloc(VARHDRSZ + LLM_SHA256_BYTES);

	SET_VARSIZE(bytes, VARHDRSZ + LLM_SHA256_BYTES);
	memcpy(VARDATA(bytes), digest, LLM_SHA256_BYTES);
	return PointerGetDatum(bytes);
}

/*
 * llm.list_adapter_use() → TABLE (digest bytea, residency text,
 * resident_bytes bigint, requests bigint, tokens bigint, last_used
 * timestamptz)
 */
Datum
llm_list_adapter_use(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LlmAdapterRow *rows;
	int n_rows;

	InitMaterializedSRF(fcinfo, 0);
	n_rows = llm_scheduler_list_adapters(&rows);
	for (int i = 0; i < n_rows; i++)
	{
		Datum values[6] = {
			digest_datum(rows[i].digest),
			CStringGetTextDatum(rows[i].residency),
			Int64GetDatum((int64) rows[i].n_bytes),
			Int64GetDatum((int64) rows[i].n_requests),
			Int64GetDatum((int64) rows[i].n_tokens),
			TimestampTzGetDatum(rows[i].used_at),
		};
		bool nulls[6] = { false };

		nulls[5] = rows[i].used_at == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
