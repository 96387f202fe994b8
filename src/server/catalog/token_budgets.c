/*
 * token_budgets.c
 *	  How many tokens a role may use in a day.
 *
 * Budgets are rows of llm.token_budgets (role, tokens_per_day), role 0 meaning
 * PUBLIC.  They are read directly, not through SPI, and remembered until the
 * client's statement ends, as grants are (model_rights.c).
 *
 * src/server/catalog/token_budgets.c
 */
#include "postgres.h"

#include "src/server/catalog/token_budgets.h"
#include "src/server/pg_compat.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Columns of llm.token_budgets. */
enum
{
	BUDGET_ROLE = 1, /* regrole; 0 = PUBLIC */
	BUDGET_TOKENS	 /* bigint */
};

/* The last answer; valid for one statement of one role. */
static struct
{
	bool is_valid;
	LocalTransactionId xact;
	CommandId command;
	TimestampTz statement_start;
	Oid role_id;
	int64 n_tokens;
} remembered;

/* The role's own row, or else that of PUBLIC. */
static int64
scan_budgets(Oid role_id)
{
	Oid schema_id = get_namespace_oid("llm", true);
	Oid table_id = OidIsValid(schema_id)
					   ? get_relname_relid("token_budgets", schema_id)
					   : InvalidOid;
	int64 n_tokens = LLM_NO_BUDGET;
	Relation budgets;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (!OidIsValid(table_id))
		return LLM_NO_BUDGET;
	budgets = table_open(table_id, AccessShareLock);
	slot = table_slot_create(budgets, NULL);
	scan = table_beginscan(budgets, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool isnull;
		Oid grantee =
			DatumGetObjectId(slot_getattr(slot, BUDGET_ROLE, &isnull));

		if (grantee == role_id ||
			(!OidIsValid(grantee) && !superuser_arg(role_id)))
			n_tokens =
				DatumGetInt64(slot_getattr(slot, BUDGET_TOKENS, &isnull));
		if (grantee == role_id)
			break;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(budgets, AccessShareLock);
	return n_tokens;
}

int64
llm_token_budget_of(Oid role_id)
{
	LocalTransactionId xact = llm_compat_local_xid();
	CommandId command = GetCurrentCommandId(false);

	if (remembered.is_valid && remembered.xact == xact &&
		remembered.command == command &&
		remembered.statement_start == GetCurrentStatementStartTimestamp() &&
		remembered.role_id == role_id)
		return remembered.n_tokens;
	remembered.is_valid = false;
	remembered.n_tokens = scan_budgets(role_id);
	remembered.xact = xact;
	remembered.command = command;
	remembered.statement_start = GetCurrentStatementStartTimestamp();
	remembered.role_id = role_id;
	remembered.is_valid = true;
	return remembered.n_tokens;
}
