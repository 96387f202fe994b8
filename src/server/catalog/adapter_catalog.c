/*
 * adapter_catalog.c
 *	  Reading adapters from their tables.
 *
 * Rows are found through the primary keys, under the active snapshot.
 *
 * src/server/catalog/adapter_catalog.c
 */
#include "postgres.h"

#include <unistd.h>

#include "src/server/adapter_files.h"
#include "src/server/catalog/adapter_catalog.h"
#include "src/server/pg_compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "common/string.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Columns of the tables, as llm_ext--0.1.sql declares them. */
enum
{
	NAMES_NAME = 1,
	NAMES_OWNER,
	NAMES_ACTIVE,
	NAMES_SPLIT_VERSION,
	NAMES_SPLIT_PERCENT
};

enum
{
	VERSIONS_ADAPTER = 1,
	VERSIONS_VERSION,
	VERSIONS_DIGEST,
	VERSIONS_N_BYTES,
	VERSIONS_BASE,
	VERSIONS_TEMPLATE_HASH,
	VERSIONS_TOKENIZER_HASH,
	VERSIONS_HEADER
};

enum
{
	TENSORS_ADAPTER = 1,
	TENSORS_VERSION,
	TENSORS_POSITION,
	TENSORS_NAME,
	TENSORS_DTYPE,
	TENSORS_SHAPE,
	TENSORS_DATA
};

enum
{
	GRANTS_ADAPTER = 1,
	GRANTS_GRANTEE
};

enum
{
	ROUTES_TENANT = 1,
	ROUTES_ADAPTER
};

/* A scan over the rows of one of the tables with given leading keys. */
typedef struct RowScan
{
	Relation table;
	Relation index;
	SysScanDesc scan;
} RowScan;

static Oid
relation_id(const char *name)
{
	Oid schema_id = get_namespace_oid("llm", true);
	Oid relation_id =
		OidIsValid(schema_id) ? get_relname_relid(name, schema_id) : InvalidOid;

	if (!OidIsValid(relation_id))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"llm.%s\" does not exist", name),
				 errhint("Run CREATE EXTENSION llm_ext in this database.")));
	return relation_id;
}

/* In the order of the primary key.  version 0: all. */
static void
begin_scan(RowScan *rows, const char *table, const char *key, int32 version)
{
	char index[NAMEDATALEN];
	ScanKeyData keys[2];

	snprintf(index, sizeof(index), "%s_pkey", table);
	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(key));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(version));
	rows->table = table_open(relation_id(table), AccessShareLock);
	rows->index = index_open(relation_id(index), AccessShareLock);
	rows->scan = systable_beginscan_ordered(rows->table, rows->index,
											GetActiveSnapshot(),
											version > 0 ? 2 : 1, keys);
}

static HeapTuple
next_row(RowScan *rows)
{
	return systable_getnext_ordered(rows->scan, ForwardScanDirection);
}

static void
end_scan(RowScan *rows)
{
	systable_endscan_ordered(rows->scan);
	index_close(rows->index, AccessShareLock);
	table_close(rows->table, AccessShareLock);
}

/* 0 where the column is null. */
static Datum
column(const RowScan *rows, HeapTuple row, int attribute)
{
	bool isnull;
	Datum value =
		heap_getattr(row, attribute, RelationGetDescr(rows->table), &isnull);

	return isnull ? (Datum) 0 : value;
}

/* -- rights -- */

bool
llm_adapter_may_use(Oid role_id, Oid owner, const char *name)
{
	RowScan rows;
	HeapTuple row;
	bool found = false;

	if (superuser_arg(role_id) ||
		(OidIsValid(owner) && has_privs_of_role(role_id, owner)))
		return true;
	begin_scan(&rows, "adapter_grants", name, 0);
	while (!found && (row = next_row(&rows)) != NULL)
	{
		Oid grantee = DatumGetObjectId(column(&rows, row, GRANTS_GRANTEE));

		found = !OidIsValid(grantee) || has_privs_of_role(role_id, grantee);
	}
	end_scan(&rows);
	return found;
}

static void
check_rights(Oid role_id, const LlmAdapterVersion *version)
{
	if (!llm_adapter_may_use(role_id, version->owner, version->name))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for adapter \"%s\"", version->name),
			 errhint("Its owner can run: SELECT llm_grant_adapter(%s, %s);",
					 quote_literal_cstr(version->name),
					 quote_literal_cstr(GetUserNameFromId(role_id, false)))));
}

/* -- names -- */

void
llm_adapter_check_name(const char *name)
{
	if (*name == '\0' || strlen(name) >= LLM_ADAPTER_NAME_BYTES ||
		!pg_is_ascii(name) || strchr(name, '@') != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
						errmsg("adapter name \"%s\" must have 1 to %d ASCII "
							   "characters and no \"@\"",
							   name, LLM_ADAPTER_NAME_BYTES - 1)));
}

static void
no_such_adapter(const char *reference)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("adapter \"%s\" does not exist", reference),
			 errhint("Registered adapters are listed in llm.adapters.")));
}

/* "name@3" to name and 3; 0 where no version is given. */
static int32
split_reference(const char *reference, LlmAdapterVersion *version)
{
	const char *at = strrchr(reference, '@');
	Size len = at != NULL ? (Size) (at - reference) : strlen(reference);
	char *end;
	long number;

	if (len == 0 || len >= LLM_ADAPTER_NAME_BYTES)
		no_such_adapter(reference);
	memcpy(version->name, reference, len);
	version->name[len] = '\0';
	if (at == NULL)
		return 0;
	errno = 0;
	number = strtol(at + 1, &end, 10);
	if (at[1] < '0' || at[1] > '9' || *end != '\0' || errno != 0 ||
		number < 1 || number > PG_INT32_MAX)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"%s\" does not name a version of an adapter",
							   reference),
						errhint("Write \"name\" or \"name@3\".")));
	return (int32) number;
}

/* Does the hash of a key fall into the first percent? */
static bool
falls_into(int percent, const char *name, const void *key, Size key_bytes)
{
	uint8 digest[LLM_SHA256_BYTES];
	uint32 number;
	LlmSha256 sha;

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, name, strlen(name) + 1);
	llm_sha256_update(&sha, key, key_bytes);
	llm_sha256_final(&sha, digest);
	number = (uint32) digest[0] << 24 | (uint32) digest[1] << 16 |
			 (uint32) digest[2] << 8 | digest[3];
	return number % 100 < (uint32) percent;
}

/* The name's row: its owner, and which version it means. */
static void
read_name(const char *reference, int32 wanted, const void *key, Size key_bytes,
		  LlmAdapterVersion *version)
{
	RowScan rows;
	HeapTuple row;
	int32 split_version;

	begin_scan(&rows, "adapter_names", version->name, 0);
	row = next_row(&rows);
	if (row == NULL)
		no_such_adapter(reference);
	version->owner = DatumGetObjectId(column(&rows, row, NAMES_OWNER));
	version->version = DatumGetInt32(column(&rows, row, NAMES_ACTIVE));
	version->other_version = 0;
	split_version = DatumGetInt32(column(&rows, row, NAMES_SPLIT_VERSION));
	if (wanted > 0)
		version->version = wanted;
	else if (split_version > 0)
	{
		int percent = DatumGetInt32(column(&rows, row, NAMES_SPLIT_PERCENT));

		version->other_version = split_version;
		if (falls_into(percent, version->name, key, key_bytes))
		{
			version->other_version = version->version;
			version->version = split_version;
		}
	}
	end_scan(&rows);
	if (version->version == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("adapter \"%s\" has no active version", version->name),
				 errhint("Use llm_activate_adapter.")));
}

static void
read_hash(const RowScan *rows, HeapTuple row, int attribute, uint8 *hash)
{
	Datum value = column(rows, row, attribute);
	bytea *bytes = value != (Datum) 0 ? DatumGetByteaPP(value) : NULL;

	if (bytes == NULL || VARSIZE_ANY_EXHDR(bytes) != LLM_SHA256_BYTES)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("a row of llm.adapter_versions is damaged")));
	memcpy(hash, VARDATA_ANY(bytes), LLM_SHA256_BYTES);
}

int32
llm_adapter_active_version(const char *name)
{
	int32 version = 0;
	RowScan rows;
	HeapTuple row;

	begin_scan(&rows, "adapter_names", name, 0);
	row = next_row(&rows);
	if (row != NULL)
		version = DatumGetInt32(column(&rows, row, NAMES_ACTIVE));
	end_scan(&rows);
	return version;
}

void
llm_adapter_resolve(const char *reference, const void *key, Size key_bytes,
					Oid role_id, LlmAdapterVersion *version)
{
	RowScan rows;
	HeapTuple row;

	memset(version, 0, sizeof(*version));
	read_name(reference, split_reference(reference, version), key, key_bytes,
			  version);
	check_rights(role_id, version);
	begin_scan(&rows, "adapter_versions", version->name, version->version);
	row = next_row(&rows);
	if (row == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("adapter \"%s\" has no version %d",
							   version->name, version->version),
						errhint("Its versions are listed in llm.adapters.")));
	version->n_bytes = DatumGetInt64(column(&rows, row, VERSIONS_N_BYTES));
	read_hash(&rows, row, VERSIONS_DIGEST, version->digest);
	read_hash(&rows, row, VERSIONS_BASE, version->base);
	read_hash(&rows, row, VERSIONS_TEMPLATE_HASH, version->template_hash);
	read_hash(&rows, row, VERSIONS_TOKENIZER_HASH, version->tokenizer_hash);
	end_scan(&rows);
}

char *
llm_adapter_route(const char *tenant)
{
	char *adapter = NULL;
	RowScan rows;
	HeapTuple row;

	begin_scan(&rows, "adapter_routes", tenant, 0);
	row = next_row(&rows);
	if (row != NULL)
		adapter = TextDatumGetCString(column(&rows, row, ROUTES_ADAPTER));
	end_scan(&rows);
	return adapter;
}

/* -- images -- */

/* A file that is being written, and the hash of what is in it. */
typedef struct ImageFile
{
	char temp_path[MAXPGPATH];
	int fd;
	LlmSha256 sha;
} ImageFile;

static void
append_bytes(ImageFile *file, Datum value)
{
	bytea *bytes = DatumGetByteaPP(value);

	llm_adapter_file_write(file->fd, file->temp_path, VARDATA_ANY(bytes),
						   VARSIZE_ANY_EXHDR(bytes));
	llm_sha256_update(&file->sha, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	if ((Pointer) bytes != DatumGetPointer(value))
		pfree(bytes);
}

/* A header, then the tensors in the order of their positions. */
static void
append_rows(ImageFile *file, const LlmAdapterVersion *version)
{
	RowScan rows;
	HeapTuple row;

	begin_scan(&rows, "adapter_versions", version->name, version->version);
	row = next_row(&rows);
	if (row != NULL)
		append_bytes(file, column(&rows, row, VERSIONS_HEADER));
	end_scan(&rows);
	begin_scan(&rows, "adapter_tensors", version->name, version->version);
	while ((row = next_row(&rows)) != NULL)
	{
		append_bytes(file, column(&rows, row, TENSORS_DATA));
		CHECK_FOR_INTERRUPTS();
	}
	end_scan(&rows);
}

void
llm_adapter_materialize(const LlmAdapterVersion *version)
{
	uint8 digest[LLM_SHA256_BYTES];
	ImageFile file;

	if (llm_adapter_file_touch(version->digest, (uint64) version->n_bytes))
		return;
	llm_adapter_file_temp_path(file.temp_path);
	llm_sha256_init(&file.sha);
	file.fd = llm_adapter_file_create(file.temp_path);
	PG_TRY();
	{
		append_rows(&file, version);
		llm_sha256_final(&file.sha, digest);
		if (memcmp(digest, version->digest, sizeof(digest)) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the tensors of adapter \"%s\", version %d, are "
							"not those that were registered",
							version->name, version->version),
					 errhint("Register it again.")));
		llm_adapter_file_publish(file.fd, file.temp_path, version->digest);
	}
	PG_CATCH();
	{
		(void) unlink(file.temp_path);
		PG_RE_THROW();
	}
	PG_END_TRY();
}
