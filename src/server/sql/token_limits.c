/*
 * token_limits.c
 *	  May the current role ask for more tokens today?
 *
 * A request begins while the budget is not used up; those that run then go on.
 * So a day's tokens exceed a budget by no more than what was in flight, and no
 * answer is cut in the middle.
 *
 * src/server/sql/token_limits.c
 */
#include "postgres.h"

#include "src/server/catalog/token_budgets.h"
#include "src/server/scheduler/scheduler.h"
#include "src/server/sql/token_limits.h"

#include "miscadmin.h"

void
llm_token_limits_check(void)
{
	Oid role_id = GetUserId();
	int64 budget = llm_token_budget_of(role_id);
	uint64 n_used;

	if (budget == LLM_NO_BUDGET)
		return;
	n_used = llm_scheduler_used_tokens(role_id);
	if (n_used < (uint64) budget)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("role \"%s\" has used up its tokens of today: %llu of %lld",
					GetUserNameFromId(role_id, false),
					(unsigned long long) n_used, (long long) budget),
			 errhint("Budgets are rows of llm.token_budgets; days begin at "
					 "midnight UTC.")));
}
