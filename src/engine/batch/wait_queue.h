/*
 * wait_queue.h
 *	  Who waits, and whose turn is it: fair between tenants, in order of
 *	  arrival within one.
 *
 * src/engine/batch/wait_queue.h
 */
#ifndef LLM_WAIT_QUEUE_H
#define LLM_WAIT_QUEUE_H

#include "src/engine/batch/sequence.h"

struct LlmTenant
{
	uint32_t tenant_id;
	int32_t n_sequences;	/* waiting and running */
	uint64_t served_tokens; /* virtual: see llm_wait_queue_join */
	LlmSequence *first[LLM_N_RANKS];
	LlmSequence *last[LLM_N_RANKS];
};

typedef struct LlmWaitQueue
{
	LlmTenant **tenants; /* no particular order */
	int32_t n_tenants;
	int32_t capacity;
	int32_t n_waiting[LLM_N_RANKS];
} LlmWaitQueue;

/* An all-zero queue is ready for use; this gives its memory back. */
extern void llm_wait_queue_reset(LlmWaitQueue *queue);

/*
 * Make a sequence one of its tenant's.  A tenant that is new, or comes back,
 * starts with no more credit than the least served of those present: it does
 * not collect credit for the time it was away, and does not lose a debt by
 * leaving for a moment.  False: out of memory.
 */
extern bool llm_wait_queue_join(LlmWaitQueue *queue, LlmSequence *sequence,
								uint32_t tenant_id, LlmError *err);

/* A sequence that does not wait leaves for good. */
extern void llm_wait_queue_leave(LlmWaitQueue *queue, LlmSequence *sequence);

/* Line up by serial in the queue of its tenant and rank. */
extern void llm_wait_queue_insert(LlmWaitQueue *queue, LlmSequence *sequence);
extern void llm_wait_queue_remove(LlmWaitQueue *queue, LlmSequence *sequence);

/*
 * The next of a rank: the first of the least served tenant.  Of those that
 * arrived at before_us or earlier; INT64_MAX for all.  NULL: nobody.
 */
extern LlmSequence *llm_wait_queue_first(const LlmWaitQueue *queue,
										 LlmRank rank, int64_t before_us);

/* n_running[i] is what tenants[i] has running. */
extern bool llm_wait_queue_check(const LlmWaitQueue *queue,
								 const int32_t *n_running, LlmError *err);

#endif /* LLM_WAIT_QUEUE_H */
