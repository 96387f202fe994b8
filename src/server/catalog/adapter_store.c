/*
 * adapter_store.c
 *	  Changing the tables of adapters.
 *
 * src/server/catalog/adapter_store.c
 */
#include "postgres.h"

#include "src/server/catalog/adapter_store.h"
#include "src/server/pg_compat.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* An error ends the transaction, or its part, and puts the rest back. */
typedef struct OwnerSection
{
	Oid user_id;
	int security_context;
	int guc_level;
} OwnerSection;

static void
begin_as_owner(OwnerSection *section)
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

static void
end_as_owner(const OwnerSection *section)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	AtEOXact_GUC(false, section->guc_level);
	SetUserIdAndSecContext(section->user_id, section->security_context);
}

/* -- statements -- */

#define MAX_PARAMS 20

typedef struct Params
{
	int n;
	Oid types[MAX_PARAMS];
	Datum values[MAX_PARAMS];
	char nulls[MAX_PARAMS];
} Params;

static void
add_param(Params *params, Oid type, Datum value)
{
	Assert(params->n < MAX_PARAMS);
	params->types[params->n] = type;
	params->nulls[params->n] = ' ';
	params->values[params->n++] = value;
}

static void
add_text(Params *params, const char *value)
{
	add_param(params, TEXTOID, CStringGetTextDatum(value));
}

static void
add_int(Params *params, int32 value)
{
	add_param(params, INT4OID, Int32GetDatum(value));
}

static void
add_bytes(Params *params, const void *bytes, Size n_bytes)
{
	bytea *value = palloc_extended(VARHDRSZ + n_bytes, MCXT_ALLOC_HUGE);

	SET_VARSIZE(value, VARHDRSZ + n_bytes);
	memcpy(VARDATA(value), bytes, n_bytes);
	add_param(params, BYTEAOID, PointerGetDatum(value));
}

/* Run one statement; returns the number of its rows. */
static uint64
run(const char *sql, Params *params)
{
	int rc = SPI_execute_with_args(sql, params->n, params->types,
								   params->values, params->nulls, false, 0);

	if (rc < 0)
		elog(ERROR, "could not change adapters: %s",
			 SPI_result_code_string(rc));
	return SPI_processed;
}

static int32
result_int(int column)
{
	bool isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
								column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

/* What the row of a name says, once it is locked. */
typedef struct NameRow
{
	Oid owner;
	int32 active; /* 0: none */
	int32 next_version;
} NameRow;

/* Lock the row until the end of the transaction; its owner may go on. */
static void
lock_name(const OwnerSection *section, const char *name, NameRow *row)
{
	Params params = { 0 };

	add_text(&params, name);
	if (run("SELECT owner, active, next_version "
			"FROM llm.adapter_names WHERE name = $1 FOR UPDATE",
			&params) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("adapter \"%s\" does not exist", name),
				 errhint("Registered adapters are listed in llm.adapters.")));
	row->owner = (Oid) result_int(1);
	row->active = result_int(2);
	row->next_version = result_int(3);
	if (!superuser_arg(section->user_id) &&
		!has_privs_of_role(section->user_id, row->owner))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of adapter \"%s\"", name)));
}

static void
begin_change(OwnerSection *section, const char *name, NameRow *row)
{
	begin_as_owner(section);
	lock_name(section, name, row);
}

static void
check_version(const char *name, int32 version)
{
	Params params = { 0 };

	add_text(&params, name);
	add_int(&params, version);
	if (run("SELECT 1 FROM llm.adapter_versions "
			"WHERE adapter = $1 AND version = $2",
			&params) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("adapter \"%s\" has no version %d", name, version),
				 errhint("Its versions are listed in llm.adapters.")));
}

/* -- registering -- */

static void
insert_version(const char *name, int32 number, Oid creator,
			   const LlmAdapterNewVersion *version)
{
	Params params = { 0 };

	add_text(&params, name);
	add_int(&params, number);
	add_bytes(&params, version->digest, LLM_SHA256_BYTES);
	add_param(&params, INT8OID, Int64GetDatum(version->n_bytes));
	add_bytes(&params, version->base, LLM_FINGERPRINT_BYTES);
	add_bytes(&params, version->template_hash, LLM_FINGERPRINT_BYTES);
	add_bytes(&params, version->tokenizer_hash, LLM_FINGERPRINT_BYTES);
	add_bytes(&params, version->header, version->header_bytes);
	add_text(&params, version->model);
	add_text(&params, version->config);
	add_int(&params, version->rank);
	add_int(&params, version->n_modules);
	add_param(&params, BOOLOID, BoolGetDatum(version->is_dora));
	add_text(&params, version->origin);
	add_param(&params, OIDOID, ObjectIdGetDatum(creator));
	(void) run("INSERT INTO llm.adapter_versions (adapter, version, digest, "
			   "n_bytes, base, template_hash, tokenizer_hash, header, model, "
			   "config, rank, n_modules, is_dora, origin, created_by) "
			   "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::json, $11, "
			   "$12, $13, $14, $15::regrole)",
			   &params);
}

static void
insert_tensor(const char *name, int32 number, int position,
			  const LlmAdapterTensor *tensor)
{
	Params params = { 0 };
	Datum *shape = palloc((Size) tensor->n_dims * sizeof(Datum));

	for (int i = 0; i < tensor->n_dims; i++)
		shape[i] = Int64GetDatum(tensor->shape[i]);
	add_text(&params, name);
	add_int(&params, number);
	add_int(&params, position);
	add_text(&params, tensor->name);
	add_text(&params, tensor->dtype);
	add_param(
		&params, INT8ARRAYOID,
		PointerGetDatum(construct_array(shape, tensor->n_dims, INT8OID, 8,
										FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)));
	add_bytes(&params, tensor->data, tensor->n_bytes);
	(void) run("INSERT INTO llm.adapter_tensors (adapter, version, position, "
			   "name, dtype, shape, data) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			   &params);
}

static void
insert_tensors(const char *name, int32 number,
			   const LlmAdapterNewVersion *version)
{
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "llm adapter tensor", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	for (int i = 0; i < version->n_tensors; i++)
	{
		insert_tensor(name, number, i, &version->tensors[i]);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

int32
llm_adapter_store_version(const char *name, const LlmAdapterNewVersion *version)
{
	OwnerSection section;
	Params insert = { 0 };
	Params number = { 0 };
	NameRow row;

	begin_as_owner(&section);
	add_text(&insert, name);
	add_param(&insert, OIDOID, ObjectIdGetDatum(section.user_id));
	(void) run("INSERT INTO llm.adapter_names (name, owner) "
			   "VALUES ($1, $2::regrole) ON CONFLICT DO NOTHING",
			   &insert);
	lock_name(&section, name, &row);
	add_text(&number, name);
	(void) run("UPDATE llm.adapter_names SET next_version = next_version + 1 "
			   "WHERE name = $1",
			   &number);
	insert_version(name, row.next_version, section.user_id, version);
	insert_tensors(name, row.next_version, version);
	end_as_owner(&section);
	return row.next_version;
}

/* -- which version serves -- */

void
llm_adapter_store_activate(const char *name, int32 version)
{
	OwnerSection section;
	Params params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	check_version(name, version);
	add_text(&params, name);
	add_int(&params, version);
	if (row.active != version)
		(void) run("UPDATE llm.adapter_names SET active = $2, "
				   "history = CASE WHEN active IS NULL THEN history "
				   "ELSE history || active END, "
				   "split_version = NULL, split_percent = NULL "
				   "WHERE name = $1",
				   &params);
	end_as_owner(&section);
}

int32
llm_adapter_store_rollback(const char *name)
{
	OwnerSection section;
	Params params = { 0 };
	NameRow row;
	int32 version;

	begin_change(&section, name, &row);
	add_text(&params, name);
	if (run("UPDATE llm.adapter_names "
			"SET active = history[cardinality(history)], "
			"history = trim_array(history, 1), "
			"split_version = NULL, split_percent = NULL "
			"WHERE name = $1 AND cardinality(history) > 0 RETURNING active",
			&params) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no other version of adapter \"%s\" was active before",
						name)));
	version = result_int(1);
	end_as_owner(&section);
	return version;
}

void
llm_adapter_store_split(const char *name, int32 version, int percent)
{
	OwnerSection section;
	Params params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	add_text(&params, name);
	if (percent == 0)
		(void) run("UPDATE llm.adapter_names SET split_version = NULL, "
				   "split_percent = NULL WHERE name = $1",
				   &params);
	else
	{
		check_version(name, version);
		if (version == row.active)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("version %d of adapter \"%s\" is the active "
								   "one",
								   version, name),
							errhint("Name the version that is to get a share "
									"of its traffic.")));
		add_int(&params, version);
		add_int(&params, percent);
		(void) run("UPDATE llm.adapter_names SET split_version = $2, "
				   "split_percent = $3 WHERE name = $1",
				   &params);
	}
	end_as_owner(&section);
}

void
llm_adapter_store_drop(const char *name, int32 version)
{
	OwnerSection section;
	Params params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	add_text(&params, name);
	if (version == 0)
		(void) run("DELETE FROM llm.adapter_names WHERE name = $1", &params);
	else
	{
		check_version(name, version);
		if (version == row.active)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("version %d of adapter \"%s\" is the active one",
							version, name),
					 errhint("Activate another version, or drop the adapter "
							 "with all versions.")));
		add_int(&params, version);
		(void) run("UPDATE llm.adapter_names SET "
				   "history = array_remove(history, $2), "
				   "split_percent = CASE WHEN split_version = $2 THEN NULL "
				   "ELSE split_percent END, "
				   "split_version = nullif(split_version, $2) WHERE name = $1",
				   &params);
		(void) run("DELETE FROM llm.adapter_versions "
				   "WHERE adapter = $1 AND version = $2",
				   &params);
	}
	end_as_owner(&section);
}

void
llm_adapter_store_describe(const char *name, const char *text)
{
	OwnerSection section;
	Params params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	add_text(&params, name);
	add_text(&params, text);
	(void) run("UPDATE llm.adapter_names SET description = $2 WHERE name = $1",
			   &params);
	end_as_owner(&section);
}

/* -- rights and routes -- */

static void
change_grant(const char *name, Oid grantee, const char *sql)
{
	OwnerSection section;
	Params params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	add_text(&params, name);
	add_param(&params, OIDOID, ObjectIdGetDatum(grantee));
	(void) run(sql, &params);
	end_as_owner(&section);
}

void
llm_adapter_store_grant(const char *name, Oid grantee)
{
	change_grant(name, grantee,
				 "INSERT INTO llm.adapter_grants (adapter, grantee) "
				 "VALUES ($1, $2::regrole) ON CONFLICT DO NOTHING");
}

void
llm_adapter_store_revoke(const char *name, Oid grantee)
{
	change_grant(name, grantee,
				 "DELETE FROM llm.adapter_grants "
				 "WHERE adapter = $1 AND grantee = $2::regrole");
}

void
llm_adapter_store_route(const char *tenant, const char *adapter)
{
	OwnerSection section;
	Params params = { 0 };

	begin_as_owner(&section);
	add_text(&params, tenant);
	if (adapter == NULL)
		(void) run("DELETE FROM llm.adapter_routes WHERE tenant = $1", &params);
	else
	{
		add_text(&params, adapter);
		(void) run("INSERT INTO llm.adapter_routes (tenant, adapter) "
				   "VALUES ($1, $2) ON CONFLICT (tenant) "
				   "DO UPDATE SET adapter = excluded.adapter",
				   &params);
	}
	end_as_owner(&section);
}
