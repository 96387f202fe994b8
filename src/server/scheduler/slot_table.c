/*
 * slot_table.c
 *	  Request slots: states, lists, owners.
 *
 * Every state has its place: FREE slots are in the free list; QUEUED ones in
 * the queue of their class; ABANDONED ones in the queue where they were
 * QUEUED, else in the list of the abandoned; the others in no list, since
 * their owner knows them.  So the scheduler finds its work without looking at
 * idle slots.
 *
 * src/server/scheduler/slot_table.c
 */
#include "postgres.h"

#include "src/server/scheduler/scheduler_internal.h"

#define BIT(state) (1u << (state))

/* From each state, where to. */
static const uint32
	allowed_moves[LLM_SLOT_STATE_COUNT] PG_USED_FOR_ASSERTS_ONLY = {
		[LLM_SLOT_FREE] = BIT(LLM_SLOT_FILLING),
		[LLM_SLOT_FILLING] = BIT(LLM_SLOT_QUEUED) | BIT(LLM_SLOT_FREE),
		[LLM_SLOT_QUEUED] = BIT(LLM_SLOT_ASSIGNED) | BIT(LLM_SLOT_FAILED) |
							BIT(LLM_SLOT_ABANDONED),
		[LLM_SLOT_ASSIGNED] = BIT(LLM_SLOT_RUNNING) | BIT(LLM_SLOT_FINISHED) |
							  BIT(LLM_SLOT_FAILED) | BIT(LLM_SLOT_ABANDONED),
		[LLM_SLOT_RUNNING] = BIT(LLM_SLOT_ASSIGNED) | BIT(LLM_SLOT_FINISHED) |
							 BIT(LLM_SLOT_FAILED) | BIT(LLM_SLOT_ABANDONED),
		[LLM_SLOT_FINISHED] = BIT(LLM_SLOT_FREE),
		[LLM_SLOT_FAILED] = BIT(LLM_SLOT_FREE),
		[LLM_SLOT_ABANDONED] = BIT(LLM_SLOT_FREE),
	};

static const char *const state_names[LLM_SLOT_STATE_COUNT] = {
	"free",	   "filling",  "queued", "assigned",
	"running", "finished", "failed", "abandoned",
};

/*
 * Moves made under the lock, to be logged after it.  A full array loses the
 * rest: it is a debugging aid.
 */
#define MAX_LOGGED_MOVES 32

typedef struct LoggedMove
{
	int32 slot_idx;
	uint32 generation;
	uint8 from;
	uint8 to;
} LoggedMove;

static LoggedMove logged_moves[MAX_LOGGED_MOVES];
static int n_logged_moves;

const char *
llm_slot_state_name(LlmSlotState state)
{
	Assert(state < LLM_SLOT_STATE_COUNT);
	return state_names[state];
}

void
llm_slot_log_moves(void)
{
	int n_moves = n_logged_moves;

	n_logged_moves = 0;
	if (n_moves == 0 || !message_level_is_interesting(DEBUG3))
		return;
	for (int i = 0; i < n_moves; i++)
		elog(DEBUG3, "request slot %d/%u: %s to %s", logged_moves[i].slot_idx,
			 logged_moves[i].generation,
			 llm_slot_state_name(logged_moves[i].from),
			 llm_slot_state_name(logged_moves[i].to));
}

static inline LlmSlot *
slot_at(int32 slot_idx)
{
	Assert(slot_idx >= 0 && slot_idx < llm_shared->n_slots);
	Assert(LWLockHeldByMeInMode(llm_shared_lock, LW_EXCLUSIVE));
	return &llm_slots[slot_idx];
}

void
llm_slot_move(int32 slot_idx, LlmSlotState to)
{
	LlmSlot *slot = slot_at(slot_idx);
	LlmSlotState from = llm_slot_state(slot);

	Assert((allowed_moves[from] & BIT(to)) != 0);
	if (n_logged_moves < MAX_LOGGED_MOVES)
		logged_moves[n_logged_moves++] =
			(LoggedMove){ slot_idx, slot->generation, from, to };
	/* result and error are visible before the state that announces them */
	pg_write_barrier();
	pg_atomic_write_u32(&slot->state, to);
}

/* -- lists -- */

void
llm_slot_list_push(LlmSlotList *list, int32 slot_idx)
{
	Assert(slot_at(slot_idx)->next_idx == LLM_NONE);
	if (list->tail_idx == LLM_NONE)
		list->head_idx = slot_idx;
	else
		llm_slots[list->tail_idx].next_idx = slot_idx;
	list->tail_idx = slot_idx;
}

int32
llm_slot_list_pop(LlmSlotList *list)
{
	int32 slot_idx = list->head_idx;
	LlmSlot *slot;

	if (slot_idx == LLM_NONE)
		return LLM_NONE;
	slot = slot_at(slot_idx);
	list->head_idx = slot->next_idx;
	if (list->head_idx == LLM_NONE)
		list->tail_idx = LLM_NONE;
	slot->next_idx = LLM_NONE;
	return slot_idx;
}

/* -- taking and giving back -- */

int32
llm_slot_claim(void)
{
	int32 slot_idx = llm_shared->free_head_idx;
	LlmSlot *slot;

	if (slot_idx == LLM_NONE)
		return LLM_NONE;
	slot = slot_at(slot_idx);
	Assert(llm_slot_state(slot) == LLM_SLOT_FREE);
	Assert(llm_shared->n_free_slots > 0);
	llm_shared->free_head_idx = slot->next_idx;
	llm_shared->n_free_slots--;
	slot->next_idx = LLM_NONE;
	slot->generation++;
	slot->executor_idx = LLM_NONE;
	slot->error.code = LLM_OK;
	memset(&slot->finished, 0, sizeof(slot->finished));
	pg_atomic_write_u32(&slot->n_output, 0);
	pg_atomic_write_u32(&slot->wants_room, 0);
	llm_ring_init(&slot->input, LLM_INPUT_RING_BYTES);
	llm_ring_init(&slot->output, LLM_OUTPUT_RING_BYTES);
	llm_slot_move(slot_idx, LLM_SLOT_FILLING);
	return slot_idx;
}

void
llm_slot_free(int32 slot_idx)
{
	LlmSlot *slot = slot_at(slot_idx);

	Assert(slot->next_idx == LLM_NONE);
	llm_slot_move(slot_idx, LLM_SLOT_FREE);
	slot->owner_pid = 0;
	slot->next_idx = llm_shared->free_head_idx;
	llm_shared->free_head_idx = slot_idx;
	llm_shared->n_free_slots++;
}

void
llm_slot_enqueue(int32 slot_idx)
{
	LlmSlot *slot = slot_at(slot_idx);

	llm_slot_move(slot_idx, LLM_SLOT_QUEUED);
	llm_slot_list_push(&llm_shared->queues[slot->is_batch ? 1 : 0], slot_idx);
}

bool
llm_slot_abandon(int32 slot_idx)
{
	LlmSlot *slot = slot_at(slot_idx);

	switch (llm_slot_state(slot))
	{
		case LLM_SLOT_FILLING:
		case LLM_SLOT_FINISHED:
		case LLM_SLOT_FAILED:
			llm_slot_free(slot_idx);
			return false;
		case LLM_SLOT_QUEUED:
			/* stays in its queue, where the scheduler finds it */
			llm_slot_move(slot_idx, LLM_SLOT_ABANDONED);
			return true;
		case LLM_SLOT_ASSIGNED:
		case LLM_SLOT_RUNNING:
			llm_slot_move(slot_idx, LLM_SLOT_ABANDONED);
			llm_slot_list_push(&llm_shared->abandoned, slot_idx);
			return true;
		case LLM_SLOT_FREE:
		case LLM_SLOT_ABANDONED:
		case LLM_SLOT_STATE_COUNT:
			break;
	}
	Assert(false);
	return false;
}

void
llm_slots_fail_all(const LlmError *why)
{
	for (int i = 0; i < 2; i++)
		llm_shared->queues[i] = (LlmSlotList){ LLM_NONE, LLM_NONE };
	llm_shared->abandoned = (LlmSlotList){ LLM_NONE, LLM_NONE };
	for (int32 slot_idx = 0; slot_idx < llm_shared->n_slots; slot_idx++)
	{
		LlmSlot *slot = slot_at(slot_idx);
		LlmSlotState state = llm_slot_state(slot);

		switch (state)
		{
			case LLM_SLOT_QUEUED:
			case LLM_SLOT_ASSIGNED:
			case LLM_SLOT_RUNNING:
				slot->next_idx = LLM_NONE;
				slot->error = *why;
				llm_slot_move(slot_idx, LLM_SLOT_FAILED);
				llm_shared->counters.n_failed++;
				break;
			case LLM_SLOT_ABANDONED:
				slot->next_idx = LLM_NONE;
				llm_slot_free(slot_idx);
				break;
			default:
				break;
		}
	}
}

void
llm_slots_wake_failed(void)
{
	for (int32 slot_idx = 0; slot_idx < llm_shared->n_slots; slot_idx++)
		if (llm_slot_state(&llm_slots[slot_idx]) == LLM_SLOT_FAILED)
			SetLatch(llm_slots[slot_idx].owner_latch);
}
