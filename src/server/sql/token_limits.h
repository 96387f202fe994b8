/*
 * token_limits.h
 *	  May the current role ask for more tokens today?
 *
 * src/server/sql/token_limits.h
 */
#ifndef LLM_TOKEN_LIMITS_H
#define LLM_TOKEN_LIMITS_H

#include "postgres.h"

/* Raises an error where its budget is used up.  Before each request. */
extern void llm_token_limits_check(void);

#endif /* LLM_TOKEN_LIMITS_H */
