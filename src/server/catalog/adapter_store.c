/*
 * adapter_store.c
 *	  Changing the tables of adapters.
 *
 * src/server/catalog/adapter_store.c
 */
#include "postgres.h"

#include "src/server/catalog/adapter_store.h"
#include "src/server/catalog/owner_sql.h"
#include "src/server/pg_compat.h"
#include "src/server/settings.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* What the row of a name says, once it is locked. */
typedef struct NameRow
{
	Oid owner;
	int32 active; /* 0: none */
	int32 next_version;
} NameRow;

static void
check_owner(const LlmOwnerSection *section, const char *name, Oid owner)
{
	if (!superuser_arg(section->user_id) &&
		!has_privs_of_role(section->user_id, owner))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of adapter \"%s\"", name)));
}

/* Lock the row until the end of the transaction; its owner may go on. */
static void
lock_name(const LlmOwnerSection *section, const char *name, NameRow *row)
{
	LlmOwnerParams params = { 0 };

	llm_owner_text(&params, name);
	if (llm_owner_run("SELECT owner, active, next_version "
					  "FROM llm.adapter_names WHERE name = $1 FOR UPDATE",
					  &params) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("adapter \"%s\" does not exist", name),
				 errhint("Registered adapters are listed in llm.adapters.")));
	row->owner = (Oid) llm_owner_result_int(1);
	row->active = llm_owner_result_int(2);
	row->next_version = llm_owner_result_int(3);
	check_owner(section, name, row->owner);
}

static void
begin_change(LlmOwnerSection *section, const char *name, NameRow *row)
{
	llm_owner_begin(section);
	lock_name(section, name, row);
}

/* The first column of the only row is the version's rank. */
static void
check_version(const char *name, int32 version)
{
	LlmOwnerParams params = { 0 };

	llm_owner_text(&params, name);
	llm_owner_int(&params, version);
	if (llm_owner_run("SELECT rank FROM llm.adapter_versions "
					  "WHERE adapter = $1 AND version = $2",
					  &params) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("adapter \"%s\" has no version %d", name, version),
				 errhint("Its versions are listed in llm.adapters.")));
}

/* The model that will serve it may have been loaded with another limit. */
static void
check_rank(const char *name, int32 version, int32 rank)
{
	if (rank > llm_setting_max_lora_rank)
		ereport(WARNING,
				(errmsg("version %d of adapter \"%s\" has rank %d, but "
						"llm_ext.max_lora_rank is %d",
						version, name, rank, llm_setting_max_lora_rank),
				 errhint("Raise llm_ext.max_lora_rank and load the model "
						 "again.")));
}

/* -- registering -- */

bool
llm_adapter_store_check_owner(const char *name)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	bool found;

	llm_owner_begin(&section);
	llm_owner_text(&params, name);
	found = llm_owner_run("SELECT owner FROM llm.adapter_names WHERE name = $1",
						  &params) > 0;
	if (found)
		check_owner(&section, name, (Oid) llm_owner_result_int(1));
	llm_owner_end(&section);
	return found;
}

static void
insert_version(const char *name, int32 number, Oid creator,
			   const LlmAdapterNewVersion *version)
{
	LlmOwnerParams params = { 0 };

	llm_owner_text(&params, name);
	llm_owner_int(&params, number);
	llm_owner_bytes(&params, version->digest, LLM_SHA256_BYTES);
	llm_owner_param(&params, INT8OID, Int64GetDatum(version->n_bytes));
	llm_owner_bytes(&params, version->base, LLM_FINGERPRINT_BYTES);
	llm_owner_bytes(&params, version->template_hash, LLM_FINGERPRINT_BYTES);
	llm_owner_bytes(&params, version->tokenizer_hash, LLM_FINGERPRINT_BYTES);
	llm_owner_bytes(&params, version->header, version->header_bytes);
	llm_owner_text(&params, version->model);
	llm_owner_text(&params, version->config);
	llm_owner_int(&params, version->rank);
	llm_owner_int(&params, version->n_modules);
	llm_owner_param(&params, BOOLOID, BoolGetDatum(version->is_dora));
	llm_owner_text(&params, version->origin);
	llm_owner_param(&params, OIDOID, ObjectIdGetDatum(creator));
	(void) llm_owner_run(
		"INSERT INTO llm.adapter_versions (adapter, version, digest, "
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
	LlmOwnerParams params = { 0 };
	Datum *shape = palloc((Size) tensor->n_dims * sizeof(Datum));

	for (int i = 0; i < tensor->n_dims; i++)
		shape[i] = Int64GetDatum(tensor->shape[i]);
	llm_owner_text(&params, name);
	llm_owner_int(&params, number);
	llm_owner_int(&params, position);
	llm_owner_text(&params, tensor->name);
	llm_owner_text(&params, tensor->dtype);
	llm_owner_param(
		&params, INT8ARRAYOID,
		PointerGetDatum(construct_array(shape, tensor->n_dims, INT8OID, 8,
										FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)));
	llm_owner_bytes(&params, tensor->data, tensor->n_bytes);
	(void) llm_owner_run(
		"INSERT INTO llm.adapter_tensors (adapter, version, position, "
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
	LlmOwnerSection section;
	LlmOwnerParams insert = { 0 };
	LlmOwnerParams number = { 0 };
	NameRow row;

	llm_owner_begin(&section);
	llm_owner_text(&insert, name);
	llm_owner_param(&insert, OIDOID, ObjectIdGetDatum(section.user_id));
	(void) llm_owner_run("INSERT INTO llm.adapter_names (name, owner) "
						 "VALUES ($1, $2::regrole) ON CONFLICT DO NOTHING",
						 &insert);
	lock_name(&section, name, &row);
	llm_owner_text(&number, name);
	(void) llm_owner_run(
		"UPDATE llm.adapter_names SET next_version = next_version + 1 "
		"WHERE name = $1",
		&number);
	insert_version(name, row.next_version, section.user_id, version);
	insert_tensors(name, row.next_version, version);
	llm_owner_end(&section);
	return row.next_version;
}

/* -- which version serves -- */

void
llm_adapter_store_activate(const char *name, int32 version)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	check_version(name, version);
	check_rank(name, version, llm_owner_result_int(1));
	llm_owner_text(&params, name);
	llm_owner_int(&params, version);
	if (row.active != version)
		(void) llm_owner_run("UPDATE llm.adapter_names SET active = $2, "
							 "history = CASE WHEN active IS NULL THEN history "
							 "ELSE history || active END, "
							 "split_version = NULL, split_percent = NULL "
							 "WHERE name = $1",
							 &params);
	llm_owner_end(&section);
}

int32
llm_adapter_store_rollback(const char *name)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	NameRow row;
	int32 version;

	begin_change(&section, name, &row);
	llm_owner_text(&params, name);
	if (llm_owner_run(
			"UPDATE llm.adapter_names "
			"SET active = history[cardinality(history)], "
			"history = trim_array(history, 1), "
			"split_version = NULL, split_percent = NULL "
			"WHERE name = $1 AND cardinality(history) > 0 RETURNING active",
			&params) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no other version of adapter \"%s\" was active before",
						name)));
	version = llm_owner_result_int(1);
	llm_owner_end(&section);
	return version;
}

void
llm_adapter_store_split(const char *name, int32 version, int percent)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	llm_owner_text(&params, name);
	if (percent == 0)
		(void) llm_owner_run(
			"UPDATE llm.adapter_names SET split_version = NULL, "
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
		llm_owner_int(&params, version);
		llm_owner_int(&params, percent);
		(void) llm_owner_run("UPDATE llm.adapter_names SET split_version = $2, "
							 "split_percent = $3 WHERE name = $1",
							 &params);
	}
	llm_owner_end(&section);
}

void
llm_adapter_store_drop(const char *name, int32 version)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	llm_owner_text(&params, name);
	if (version == 0)
		(void) llm_owner_run("DELETE FROM llm.adapter_names WHERE name = $1",
							 &params);
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
		llm_owner_int(&params, version);
		(void) llm_owner_run(
			"UPDATE llm.adapter_names SET "
			"history = array_remove(history, $2), "
			"split_percent = CASE WHEN split_version = $2 THEN NULL "
			"ELSE split_percent END, "
			"split_version = nullif(split_version, $2) WHERE name = $1",
			&params);
		(void) llm_owner_run("DELETE FROM llm.adapter_versions "
							 "WHERE adapter = $1 AND version = $2",
							 &params);
	}
	llm_owner_end(&section);
}

void
llm_adapter_store_describe(const char *name, const char *text)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	llm_owner_text(&params, name);
	llm_owner_text(&params, text);
	(void) llm_owner_run(
		"UPDATE llm.adapter_names SET description = $2 WHERE name = $1",
		&params);
	llm_owner_end(&section);
}

/* -- rights and routes -- */

static void
change_grant(const char *name, Oid grantee, const char *sql)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	NameRow row;

	begin_change(&section, name, &row);
	llm_owner_text(&params, name);
	llm_owner_param(&params, OIDOID, ObjectIdGetDatum(grantee));
	(void) llm_owner_run(sql, &params);
	llm_owner_end(&section);
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
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };

	llm_owner_begin(&section);
	llm_owner_text(&params, tenant);
	if (adapter == NULL)
		(void) llm_owner_run("DELETE FROM llm.adapter_routes WHERE tenant = $1",
							 &params);
	else
	{
		llm_owner_text(&params, adapter);
		(void) llm_owner_run("INSERT INTO llm.adapter_routes (tenant, adapter) "
							 "VALUES ($1, $2) ON CONFLICT (tenant) "
							 "DO UPDATE SET adapter = excluded.adapter",
							 &params);
	}
	llm_owner_end(&section);
}
