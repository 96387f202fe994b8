/*
 * request_record.c
 *	  A request in the scheduler's care: where it is, and how it ends.
 *
 * A record is made when a slot is taken and lives until both the slot and the
 * executor are done with the request; either may be first.  It is in exactly
 * one phase list, and all changes of phase go through one function, which
 * keeps the executors' counts.
 *
 * src/server/scheduler/request_record.c
 */
#include "postgres.h"

#include "src/server/scheduler/request_record.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

LlmSchedulerCounters llm_turn_counts;
dlist_head llm_records_collecting = DLIST_STATIC_INIT(llm_records_collecting);
dlist_head llm_records_stalled = DLIST_STATIC_INIT(llm_records_stalled);

static HTAB *records_by_id;
static LlmRecord **record_of_slot; /* [n_slots] */
static dlist_head due = DLIST_STATIC_INIT(due);
static int64 next_due_us; /* no deadline is earlier; 0 = none */
static uint64 n_request_ids;
static MemoryContext records_context;

void
llm_records_init(void)
{
	HASHCTL control = { 0 };

	records_context = AllocSetContextCreate(TopMemoryContext, "llm records",
											ALLOCSET_DEFAULT_SIZES);
	control.keysize = sizeof(uint64);
	control.entrysize = sizeof(uint64) + sizeof(LlmRecord *);
	control.hcxt = records_context;
	records_by_id = hash_create("llm requests", 256, &control,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	record_of_slot = MemoryContextAllocZero(
		records_context, (Size) llm_shared->n_slots * sizeof(LlmRecord *));
	/* ids of an earlier scheduler's requests must not come again */
	n_request_ids = (uint64) llm_shared->epoch << 40;
}

/* -- records -- */

typedef struct RecordEntry
{
	uint64 request_id;
	LlmRecord *record;
} RecordEntry;

LlmRecord *
llm_record_find(uint64 request_id)
{
	RecordEntry *entry =
		hash_search(records_by_id, &request_id, HASH_FIND, NULL);

	return entry != NULL ? entry->record : NULL;
}

LlmRecord *
llm_record_create(const LlmTakenSlot *taken)
{
	MemoryContext context = AllocSetContextCreate(
		records_context, "llm request record", ALLOCSET_SMALL_SIZES);
	LlmRecord *record = MemoryContextAllocZero(context, sizeof(LlmRecord));
	RecordEntry *entry;

	record->request_id = ++n_request_ids;
	record->context = context;
	record->phase = LLM_RECORD_COLLECTING;
	record->slot_idx = taken->slot_idx;
	record->owner_latch = taken->owner_latch;
	record->is_batch = taken->is_batch;
	record->role_id = taken->role_id;
	record->database_id = taken->database_id;
	record->input_bytes = taken->input_bytes;
	record->adapter_idx = LLM_NONE;
	entry = hash_search(records_by_id, &record->request_id, HASH_ENTER, NULL);
	entry->record = record;
	record_of_slot[taken->slot_idx] = record;
	dlist_push_tail(&llm_records_collecting, &record->node);
	if (taken->deadline_us != 0)
	{
		record->deadline_us = taken->deadline_us;
		dlist_push_tail(&due, &record->due_node);
		if (next_due_us == 0 || record->deadline_us < next_due_us)
			next_due_us = record->deadline_us;
	}
	return record;
}

/* Take the record out of the list of its phase. */
static void
unlink_phase(LlmRecord *record)
{
	if (record->phase == LLM_RECORD_DONE)
		return;
	dlist_delete(&record->node);
	if (record->phase == LLM_RECORD_SENT)
	{
		Assert(record->executor->n_sent > 0);
		record->executor->n_sent--;
		if (record->executor->probe == record)
			record->executor->probe = NULL;
	}
}

/* The one place where a record changes its phase. */
void
llm_record_enter_phase(LlmRecord *record, LlmRecordPhase phase)
{
	LlmExecutor *executor = record->executor;

	unlink_phase(record);
	record->phase = phase;
	switch (phase)
	{
		case LLM_RECORD_WAITING:
			dlist_push_tail(&executor->waiting[record->is_batch ? 1 : 0],
							&record->node);
			break;
		case LLM_RECORD_SUSPECT:
			/* interactive ones first */
			if (record->is_batch)
				dlist_push_tail(&executor->suspects, &record->node);
			else
				dlist_push_head(&executor->suspects, &record->node);
			break;
		case LLM_RECORD_SENT:
			dlist_push_tail(&executor->sent, &record->node);
			executor->n_sent++;
			break;
		case LLM_RECORD_DONE:
			Assert(executor->n_records > 0);
			executor->n_records--;
			record->executor = NULL;
			break;
		case LLM_RECORD_COLLECTING:
			Assert(false);
			break;
	}
}

/* The slot is not ours any more. */
static void
forget_slot(LlmRecord *record)
{
	if (record->slot_idx == LLM_NONE)
		return;
	record_of_slot[record->slot_idx] = NULL;
	record->slot_idx = LLM_NONE;
	record->owner_latch = NULL;
	if (record->is_stalled)
		dlist_delete(&record->stall_node);
	record->is_stalled = false;
	if (record->deadline_us != 0)
		dlist_delete(&record->due_node);
	record->deadline_us = 0;
}

void
llm_record_forget(LlmRecord *record)
{
	forget_slot(record);
	unlink_phase(record);
	if (record->executor != NULL)
	{
		Assert(record->executor->n_records > 0);
		record->executor->n_records--;
	}
	if (record->adapter_idx != LLM_NONE)
		llm_adapter_release(record->adapter_idx);
	hash_search(records_by_id, &record->request_id, HASH_REMOVE, NULL);
	MemoryContextDelete(record->context);
}

/*
 * Nobody wants the answer any more.  Where the executor has the request, the
 * record stays until it says that it has not.
 */
void
llm_record_drop(LlmRecord *record)
{
	LlmError err;

	forget_slot(record);
	if (record->phase != LLM_RECORD_SENT)
		llm_record_forget(record);
	else if (!llm_channel_send(record->executor->channel, LLM_MESSAGE_CANCEL,
							   record->request_id, NULL, 0, NULL, 0, &err))
		llm_supervisor_break(record->executor, &err);
}

/* -- outcomes -- */

/* May the scheduler still write to this slot?  Under the lock. */
static bool
is_ours(int32 slot_idx)
{
	LlmSlotState state = llm_slot_state(&llm_slots[slot_idx]);

	Assert(state == LLM_SLOT_ASSIGNED || state == LLM_SLOT_RUNNING ||
		   state == LLM_SLOT_ABANDONED);
	return state != LLM_SLOT_ABANDONED;
}

/* End a request with an error, whatever its phase. */
void
llm_record_fail(LlmRecord *record, const LlmError *why)
{
	int32 slot_idx = record->slot_idx;

	if (slot_idx != LLM_NONE)
	{
		llm_scheduler_lock(LW_EXCLUSIVE);
		if (is_ours(slot_idx))
		{
			llm_slots[slot_idx].error = *why;
			llm_slot_move(slot_idx, LLM_SLOT_FAILED);
			llm_turn_counts.n_failed++;
		}
		llm_scheduler_unlock();
		llm_scheduler_wake_later(record->owner_latch);
	}
	llm_record_drop(record);
}

/* All output is in the ring: tell the owner. */
void
llm_record_finish(LlmRecord *record)
{
	int32 slot_idx = record->slot_idx;

	Assert(record->phase == LLM_RECORD_DONE && !record->is_stalled);
	llm_scheduler_lock(LW_EXCLUSIVE);
	if (is_ours(slot_idx))
	{
		llm_slots[slot_idx].finished = record->finished;
		llm_slot_move(slot_idx, LLM_SLOT_FINISHED);
		llm_turn_counts.n_finished++;
		if (record->adapter_idx != LLM_NONE)
			llm_adapter_count(record->adapter_idx, record->n_output);
	}
	llm_scheduler_unlock();
	llm_scheduler_wake_later(record->owner_latch);
	llm_record_forget(record);
}

/* -- slots and deadlines -- */

LlmRecord *
llm_record_of_slot(int32 slot_idx)
{
	return record_of_slot[slot_idx];
}

void
llm_record_stall(LlmRecord *record)
{
	Assert(!record->is_stalled && record->slot_idx != LLM_NONE);
	record->is_stalled = true;
	dlist_push_tail(&llm_records_stalled, &record->stall_node);
	pg_atomic_write_u32(&llm_slots[record->slot_idx].wants_room, 1);
}

/* Under the lock: show in the slot whether the executor has the request. */
void
llm_record_mark_slot(const LlmRecord *record, LlmSlotState state)
{
	int32 slot_idx = record->slot_idx;

	if (slot_idx == LLM_NONE || !is_ours(slot_idx) ||
		llm_slot_state(&llm_slots[slot_idx]) == state)
		return;
	llm_slot_move(slot_idx, state);
	llm_slots[slot_idx].executor_idx =
		state == LLM_SLOT_RUNNING ? record->executor->idx : LLM_NONE;
}

void
llm_records_enforce_deadlines(void)
{
	int64 now_us = llm_scheduler_now_us();
	dlist_mutable_iter iter;
	LlmError err;

	if (next_due_us == 0)
		return;
	if (now_us >= next_due_us)
	{
		llm_error_set(&err, LLM_ERROR_TIMEOUT,
					  "request did not finish within its time limit");
		llm_error_hint(&err, "The limit is llm_ext.request_timeout, or the "
							 "request's own timeout option.");
		next_due_us = 0;
		dlist_foreach_modify(iter, &due)
		{
			LlmRecord *record = dlist_container(LlmRecord, due_node, iter.cur);

			if (record->deadline_us <= now_us)
				llm_record_fail(record, &err);
			else if (next_due_us == 0 || record->deadline_us < next_due_us)
				next_due_us = record->deadline_us;
		}
	}
	llm_scheduler_turn_at(next_due_us);
}
