/*
 * scheduler_views.c
 *	  Snapshots of slots, executors and counters for the views.
 *
 * Rows are allocated before the lock is taken and filled under it, shared: a
 * view shows one moment, and costs the scheduler microseconds.
 *
 * src/server/scheduler/scheduler_views.c
 */
#include "postgres.h"

#include "src/server/scheduler/scheduler_internal.h"

/* Indexed by LlmExecutorState. */
static const char *const executor_state_names[] = {
	[LLM_EXECUTOR_EMPTY] = "empty",
	[LLM_EXECUTOR_STARTING] = "starting",
	[LLM_EXECUTOR_LOADING] = "loading",
	[LLM_EXECUTOR_READY] = "ready",
	[LLM_EXECUTOR_BACKING_OFF] = "backing off",
	[LLM_EXECUTOR_STOPPING] = "stopping",
};

static void
fill_activity(LlmActivityRow *row, int32 slot_idx)
{
	LlmSlot *slot = &llm_slots[slot_idx];

	row->slot_idx = (uint32) slot_idx;
	row->generation = slot->generation;
	row->state = llm_slot_state_name(llm_slot_state(slot));
	row->pid = slot->owner_pid;
	row->role_id = slot->role_id;
	row->database_id = slot->database_id;
	strlcpy(row->model, llm_models[slot->model_idx].name, sizeof(row->model));
	if (slot->executor_idx != LLM_NONE)
		row->executor_pid = llm_executors[slot->executor_idx].pid;
	row->is_batch = slot->is_batch;
	row->n_prompt = slot->n_prompt;
	row->n_output = pg_atomic_read_u32(&slot->n_output);
	row->max_tokens = slot->max_tokens;
	row->submitted_at = slot->submitted_at;
}

int
llm_scheduler_list_activity(LlmActivityRow **rows)
{
	int n_rows = 0;

	llm_scheduler_require();
	*rows = palloc0((Size) llm_shared->n_slots * sizeof(LlmActivityRow));
	llm_scheduler_lock(LW_SHARED);
	for (int32 i = 0; i < llm_shared->n_slots; i++)
		if (llm_slot_state(&llm_slots[i]) != LLM_SLOT_FREE)
			fill_activity(&(*rows)[n_rows++], i);
	llm_scheduler_unlock();
	return n_rows;
}

static void
fill_executor(LlmExecutorRow *row, int32 executor_idx)
{
	LlmExecutorEntry *entry = &llm_executors[executor_idx];

	row->executor_idx = executor_idx;
	row->pid = entry->pid;
	strlcpy(row->model, entry->model, sizeof(row->model));
	row->state = entry->state == LLM_EXECUTOR_READY && entry->is_draining
					 ? "draining"
					 : executor_state_names[entry->state];
	strlcpy(row->device, entry->device, sizeof(row->device));
	strlcpy(row->facts, entry->facts, sizeof(row->facts));
	row->n_restarts = entry->n_restarts;
	row->n_in_flight = pg_atomic_read_u32(&entry->n_in_flight);
	row->started_at = entry->started_at;
	row->stats = entry->stats;
}

int
llm_scheduler_list_executors(LlmExecutorRow **rows)
{
	int n_rows = 0;

	llm_scheduler_require();
	*rows = palloc0((Size) llm_shared->n_executors * sizeof(LlmExecutorRow));
	llm_scheduler_lock(LW_SHARED);
	for (int32 i = 0; i < llm_shared->n_executors; i++)
		if (llm_executors[i].state != LLM_EXECUTOR_EMPTY)
			fill_executor(&(*rows)[n_rows++], i);
	llm_scheduler_unlock();
	return n_rows;
}

int
llm_scheduler_list_adapters(LlmAdapterRow **rows)
{
	static const char *const residency_names[] = { "absent", "loading", "host",
												   "device", "failed" };
	int n_rows = 0;

	llm_scheduler_require();
	*rows = palloc(LLM_MAX_ADAPTERS * sizeof(LlmAdapterRow));
	llm_scheduler_lock(LW_SHARED);
	for (int32 i = 0; i < LLM_MAX_ADAPTERS; i++)
	{
		const LlmAdapterEntry *entry = &llm_adapters[i];
		LlmAdapterRow *row = &(*rows)[n_rows];

		if (entry->adapter_id == 0)
			continue;
		memcpy(row->digest, entry->digest, sizeof(row->digest));
		row->residency = residency_names[entry->residency];
		row->n_bytes = entry->n_bytes;
		row->n_requests = entry->n_requests;
		row->n_tokens = entry->n_tokens;
		row->used_at = entry->used_at;
		n_rows++;
	}
	llm_scheduler_unlock();
	return n_rows;
}

void
llm_scheduler_get_counters(LlmSchedulerCounters *counters)
{
	llm_scheduler_require();
	llm_scheduler_lock(LW_SHARED);
	*counters = llm_shared->counters;
	counters->n_slots = (uint32) llm_shared->n_slots;
	counters->n_free_slots = llm_shared->n_free_slots;
	counters->scheduler_pid = llm_shared->scheduler_pid;
	counters->scheduler_started_at = llm_shared->scheduler_started_at;
	llm_scheduler_unlock();
}
