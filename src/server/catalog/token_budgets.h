/*
 * token_budgets.h
 *	  How many tokens a role may use in a day.
 *
 * src/server/catalog/token_budgets.h
 */
#ifndef LLM_TOKEN_BUDGETS_H
#define LLM_TOKEN_BUDGETS_H

#include "postgres.h"

#define LLM_NO_BUDGET (-1)

/*
 * The role's own budget, else that of PUBLIC, which does not bind superusers;
 * LLM_NO_BUDGET where there is neither.
 */
extern int64 llm_token_budget_of(Oid role_id);

#endif /* LLM_TOKEN_BUDGETS_H */
