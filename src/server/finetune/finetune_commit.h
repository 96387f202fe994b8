/*
 * finetune_commit.h
 *	  What a transaction has submitted starts with its commit.
 *
 * src/server/finetune/finetune_commit.h
 */
#ifndef LLM_FINETUNE_COMMIT_H
#define LLM_FINETUNE_COMMIT_H

#include "postgres.h"

#include "src/server/finetune/finetune_internal.h"

/* Let the job run once this transaction, or its part, has committed. */
extern void llm_job_start_at_commit(const LlmJobId *id);

/* Does the job wait for the end of this transaction? */
extern bool llm_job_waits_for_commit(int64 job_id);

#endif /* LLM_FINETUNE_COMMIT_H */
