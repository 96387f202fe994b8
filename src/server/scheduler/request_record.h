/*
 * request_record.h
 *	  A request in the scheduler's care: what dispatch.c and relay.c share.
 *
 * src/server/scheduler/request_record.h
 */
#ifndef LLM_REQUEST_RECORD_H
#define LLM_REQUEST_RECORD_H

#include "postgres.h"

#include "src/server/scheduler/scheduler_process.h"

/* A queued slot, copied out of the locked section. */
typedef struct LlmTakenSlot
{
	int32 slot_idx;
	Latch *owner_latch;
	int32 model_idx;
	uint32 model_generation;
	bool is_batch;
	Oid role_id;
	Oid database_id;
	uint64 input_bytes;
	uint8 adapter[LLM_SHA256_BYTES];
	int64 deadline_us;
} LlmTakenSlot;

/* What this turn adds to the shared counters. */
extern LlmSchedulerCounters llm_turn_counts;

extern void llm_records_init(void);

/* COLLECTING, without an executor. */
extern LlmRecord *llm_record_create(const LlmTakenSlot *taken);

/* NULL: unknown. */
extern LlmRecord *llm_record_find(uint64 request_id);

/* Of a slot that was taken; NULL: it has ended. */
extern LlmRecord *llm_record_of_slot(int32 slot_idx);

/* The one place where a record changes its phase. */
extern void llm_record_enter_phase(LlmRecord *record, LlmRecordPhase phase);

/* It has ended everywhere. */
extern void llm_record_forget(LlmRecord *record);

/*
 * Nobody wants the answer any more.  Where the executor has the request, the
 * record stays until it says that it has not.
 */
extern void llm_record_drop(LlmRecord *record);

/* End a request with an error, whatever its phase. */
extern void llm_record_fail(LlmRecord *record, const LlmError *why);

/* DONE, and all output is in the ring: tell the owner. */
extern void llm_record_finish(LlmRecord *record);

/* Under the lock: show in the slot whether the executor has the request. */
extern void llm_record_mark_slot(const LlmRecord *record, LlmSlotState state);

/* The record's output waits for room from now on. */
extern void llm_record_stall(LlmRecord *record);

/* Once per turn: fail what is overdue. */
extern void llm_records_enforce_deadlines(void);

/* Lists over all executors. */
extern dlist_head llm_records_collecting;
extern dlist_head llm_records_stalled;

/* -- relay.c -- */

/* Move pending output into the ring, as far as it goes. */
extern void llm_record_write_pending(LlmRecord *record);

#endif /* LLM_REQUEST_RECORD_H */
