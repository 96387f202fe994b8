/*
 * owner_sql.c
 *	  Statements on our own tables, run as their owner.
 *
 * src/server/catalog/owner_sql.c
 */
#include "postgres.h"

#include "src/server/catalog/owner_sql.h"
#include "src/server/pg_compat.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

void
llm_owner_begin(LlmOwnerSection *section)
{
	RangeVar *name = makeRangeVar("llm", "adapter_names", -1);
	Relation table = table_openrv(name, AccessShareLock);
	Oid owner = table->rd_rel->relowner;

	table_close(table, AccessShareLock);
	GetUserIdAndSecContext(&section->user_id, &section->security_context);
	SetUserIdAndSecContext(owner, section->security_context |
									  SECURITY_LOCAL_USERID_CHANGE |
									  SECURITY_NOFORCE_RLS);
	section->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
}

void
llm_owner_end(const LlmOwnerSection *section)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	AtEOXact_GUC(false, section->guc_level);
	SetUserIdAndSecContext(section->user_id, section->security_context);
}

/* -- parameters -- */

void
llm_owner_param(LlmOwnerParams *params, Oid type, Datum value)
{
	Assert(params->n < LLM_OWNER_MAX_PARAMS);
	params->types[params->n] = type;
	params->nulls[params->n] = ' ';
	params->values[params->n++] = value;
}

void
llm_owner_null(LlmOwnerParams *params, Oid type)
{
	llm_owner_param(params, type, (Datum) 0);
	params->nulls[params->n - 1] = 'n';
}

void
llm_owner_text(LlmOwnerParams *params, const char *value)
{
	llm_owner_param(params, TEXTOID, CStringGetTextDatum(value));
}

void
llm_owner_int(LlmOwnerParams *params, int32 value)
{
	llm_owner_param(params, INT4OID, Int32GetDatum(value));
}

void
llm_owner_int64(LlmOwnerParams *params, int64 value)
{
	llm_owner_param(params, INT8OID, Int64GetDatum(value));
}

void
llm_owner_bytes(LlmOwnerParams *params, const void *bytes, Size n_bytes)
{
	bytea *value = palloc_extended(VARHDRSZ + n_bytes, MCXT_ALLOC_HUGE);

	SET_VARSIZE(value, VARHDRSZ + n_bytes);
	memcpy(VARDATA(value), bytes, n_bytes);
	llm_owner_param(params, BYTEAOID, PointerGetDatum(value));
}

/* -- statements -- */

static uint64
execute(const char *sql, LlmOwnerParams *params, bool is_read_only)
{
	int rc =
		SPI_execute_with_args(sql, params->n, params->types, params->values,
							  params->nulls, is_read_only, 0);

	if (rc < 0)
		elog(ERROR, "could not run \"%s\": %s", sql,
			 SPI_result_code_string(rc));
	return SPI_processed;
}

uint64
llm_owner_run(const char *sql, LlmOwnerParams *params)
{
	return execute(sql, params, false);
}

uint64
llm_owner_look(const char *sql, LlmOwnerParams *params)
{
	return execute(sql, params, true);
}

Datum
llm_owner_result(int column, bool *isnull)
{
	Assert(SPI_processed > 0);
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column,
						 isnull);
}

int32
llm_owner_result_int(int column)
{
	bool isnull;
	Datum value = llm_owner_result(column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

int64
llm_owner_result_int64(int column)
{
	bool isnull;
	Datum value = llm_owner_result(column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

char *
llm_owner_result_text(int column)
{
	bool isnull;
	Datum value = llm_owner_result(column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

bytea *
llm_owner_result_bytes(int column)
{
	bool isnull;
	Datum value = llm_owner_result(column, &isnull);

	return isnull ? NULL : DatumGetByteaPP(value);
}
