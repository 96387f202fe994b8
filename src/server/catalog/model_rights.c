/*
 * model_rights.c
 *	  Who may use which model.
 *
 * Grants are rows of llm.model_grants (model, grantee), grantee 0 meaning
 * PUBLIC.  They are read directly, not through SPI: the caller has no rights
 * on the table, and needs none.  What was found is remembered until the
 * client's statement ends, so that a statement over a million rows reads the
 * table once, and a revocation that has committed is seen by the next one.
 *
 * src/server/catalog/model_rights.c
 */
#include "postgres.h"

#include "src/server/catalog/model_rights.h"
#include "src/server/pg_compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define GRANTS_SCHEMA "llm"
#define GRANTS_TABLE "model_grants"

/* Columns of llm.model_grants. */
enum
{
	GRANTS_MODEL = 1, /* text */
	GRANTS_GRANTEE	  /* regrole; 0 = PUBLIC */
};

/* The last grant that was found; valid for one statement of one role. */
static struct
{
	bool is_valid;
	LocalTransactionId xact;
	CommandId command;
	TimestampTz statement_start;
	Oid role_id;
	char model_name[NAMEDATALEN];
} remembered;

static bool
row_grants(TupleTableSlot *slot, Oid role_id, const char *model_name)
{
	bool isnull;
	Datum model = slot_getattr(slot, GRANTS_MODEL, &isnull);
	Oid grantee;

	if (isnull || strcmp(TextDatumGetCString(model), model_name) != 0)
		return false;
	grantee = DatumGetObjectId(slot_getattr(slot, GRANTS_GRANTEE, &isnull));
	if (isnull)
		return false;
	return !OidIsValid(grantee) || has_privs_of_role(role_id, grantee);
}

static bool
scan_grants(Oid role_id, const char *model_name)
{
	Oid schema_id = get_namespace_oid(GRANTS_SCHEMA, true);
	Oid table_id = OidIsValid(schema_id)
					   ? get_relname_relid(GRANTS_TABLE, schema_id)
					   : InvalidOid;
	Relation grants;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool found = false;

	if (!OidIsValid(table_id))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.%s\" does not exist", GRANTS_SCHEMA,
						GRANTS_TABLE),
				 errhint("Run CREATE EXTENSION llm_ext in this database.")));
	grants = table_open(table_id, AccessShareLock);
	slot = table_slot_create(grants, NULL);
	scan = table_beginscan(grants, GetActiveSnapshot(), 0, NULL);
	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
		found = row_grants(slot, role_id, model_name);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(grants, AccessShareLock);
	return found;
}

bool
llm_model_rights_has(Oid role_id, const char *model_name)
{
	LocalTransactionId xact = llm_compat_local_xid();
	CommandId command = GetCurrentCommandId(false);

	if (superuser_arg(role_id))
		return true;
	if (remembered.is_valid && remembered.xact == xact &&
		remembered.command == command &&
		remembered.statement_start == GetCurrentStatementStartTimestamp() &&
		remembered.role_id == role_id &&
		strcmp(remembered.model_name, model_name) == 0)
		return true;
	if (!scan_grants(role_id, model_name))
		return false;
	remembered.is_valid = true;
	remembered.xact = xact;
	remembered.command = command;
	remembered.statement_start = GetCurrentStatementStartTimestamp();
	remembered.role_id = role_id;
	strlcpy(remembered.model_name, model_name, sizeof(remembered.model_name));
	return true;
}

void
llm_model_rights_check(Oid role_id, const char *model_name)
{
	if (!llm_model_rights_has(role_id, model_name))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for model \"%s\"", model_name),
			 errhint("An administrator can run: SELECT llm_grant_model(%s, "
					 "%s);",
					 quote_literal_cstr(model_name),
					 quote_literal_cstr(GetUserNameFromId(role_id, false)))));
}
