/*
 * torture.h
 *	  A developers' help: PostgreSQL's own functions as batchable calls.
 *
 * src/server/scan/torture.h
 */
#ifndef LLM_TORTURE_H
#define LLM_TORTURE_H

#include "postgres.h"

#include "src/server/sql/batch_call.h"

/* Ops that call any function at once, through fmgr. */
extern const LlmBatchOps llm_plain_call_ops;

/* Those, where a function of PostgreSQL's own may be called ahead. */
extern const LlmBatchOps *llm_torture_find(Oid function_id);

#endif /* LLM_TORTURE_H */
