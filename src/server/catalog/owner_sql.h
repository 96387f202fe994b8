/*
 * owner_sql.h
 *	  Statements on our own tables, run as their owner.
 *
 * Users have no rights on the tables; what they may do is checked by those who
 * call this.  A section becomes the owner, sets a safe search_path and opens
 * SPI; its end puts everything back.  An error in between ends the transaction
 * or its part, which does the same.
 *
 * src/server/catalog/owner_sql.h
 */
#ifndef LLM_OWNER_SQL_H
#define LLM_OWNER_SQL_H

#include "postgres.h"

typedef struct LlmOwnerSection
{
	Oid user_id; /* who called */
	int security_context;
	int guc_level;
} LlmOwnerSection;

extern void llm_owner_begin(LlmOwnerSection *section);
extern void llm_owner_end(const LlmOwnerSection *section);

#define LLM_OWNER_MAX_PARAMS 24

/* Zeroed at first; $1 is what is added first. */
typedef struct LlmOwnerParams
{
	int n;
	Oid types[LLM_OWNER_MAX_PARAMS];
	Datum values[LLM_OWNER_MAX_PARAMS];
	char nulls[LLM_OWNER_MAX_PARAMS];
} LlmOwnerParams;

extern void llm_owner_param(LlmOwnerParams *params, Oid type, Datum value);
extern void llm_owner_null(LlmOwnerParams *params, Oid type);
extern void llm_owner_text(LlmOwnerParams *params, const char *value);
extern void llm_owner_int(LlmOwnerParams *params, int32 value);
extern void llm_owner_int64(LlmOwnerParams *params, int64 value);
extern void
llm_owner_bytes(LlmOwnerParams *params, const void *bytes, Size n_bytes);

/* Run one statement; returns the number of its rows. */
extern uint64 llm_owner_run(const char *sql, LlmOwnerParams *params);

/*
 * The same for a statement that only reads, under the active snapshot instead
 * of a new one.
 */
extern uint64 llm_owner_look(const char *sql, LlmOwnerParams *params);

/* A column (from 1) of the first row; 0 and NULL where it is null. */
extern Datum llm_owner_result(int column, bool *isnull);
extern int32 llm_owner_result_int(int column);
extern int64 llm_owner_result_int64(int column);
extern char *llm_owner_result_text(int column);

/* A bytea column of the first row, in SPI's memory; NULL where it is null. */
extern bytea *llm_owner_result_bytes(int column);

#endif /* LLM_OWNER_SQL_H */
