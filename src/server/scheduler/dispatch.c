/*
 * dispatch.c
 *	  Requests between slots and executors: collect, send, relay, resume.
 *
 * The scheduler keeps what each request needs to start over: the message as
 * the backend process wrote it and all tokens received since.  When an
 * executor dies, its successor gets both and goes on where the other stopped.
 *
 * One of the requests may have been the reason.  So all that were being served
 * become suspects, and before anything else runs, each is tried alone, for one
 * token: who survives that is cleared and runs on with the others.  A request
 * whose executor died twice while it was alone, without a token in between, is
 * failed.  Innocent requests are thus never failed, and a harmful one costs a
 * bounded number of restarts.  What this does not catch is a request that
 * kills only in company: all of them go on, one token per death at least.
 *
 * A consumer that does not read never holds anything up: what finds no room in
 * its ring waits here, bounded by the request's max_tokens.
 *
 * src/server/scheduler/dispatch.c
 */
#include "postgres.h"

#include "src/server/scheduler/scheduler_process.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define MAX_STRIKES 2
#define MAX_TAKEN 64 /* slots per locked section */

/* A queued slot, copied out of the locked section. */
typedef struct TakenSlot
{
	int32 slot_idx;
	Latch *owner_latch;
	int32 model_idx;
	uint32 model_generation;
	bool is_batch;
	uint64 input_bytes;
	int64 deadline_us;
} TakenSlot;

static HTAB *records_by_id;
static LlmRecord **record_of_slot; /* [n_slots] */
static dlist_head collecting = DLIST_STATIC_INIT(collecting);
static dlist_head stalled = DLIST_STATIC_INIT(stalled);
static dlist_head due = DLIST_STATIC_INIT(due);
static int64 next_due_us; /* no deadline is earlier; 0 = none */
static uint64 n_request_ids;
static MemoryContext dispatch_context;

/* This turn's counts. */
static LlmSchedulerCounters delta;
static bool has_delta;

void
llm_dispatch_init(void)
{
	HASHCTL control = { 0 };

	dispatch_context = AllocSetContextCreate(TopMemoryContext, "llm dispatch",
											 ALLOCSET_DEFAULT_SIZES);
	control.keysize = sizeof(uint64);
	control.entrysize = sizeof(uint64) + sizeof(LlmRecord *);
	control.hcxt = dispatch_context;
	records_by_id = hash_create("llm requests", 256, &control,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	record_of_slot = MemoryContextAllocZero(
		dispatch_context, (Size) llm_shared->n_slots * sizeof(LlmRecord *));
	/* ids of an earlier scheduler's requests must not come again */
	n_request_ids = (uint64) llm_shared->epoch << 40;
}

/* -- records -- */

typedef struct RecordEntry
{
	uint64 request_id;
	LlmRecord *record;
} RecordEntry;

static LlmRecord *
find_record(uint64 request_id)
{
	RecordEntry *entry =
		hash_search(records_by_id, &request_id, HASH_FIND, NULL);

	return entry != NULL ? entry->record : NULL;
}

static LlmRecord *
create_record(const TakenSlot *taken)
{
	MemoryContext context = AllocSetContextCreate(
		dispatch_context, "llm request record", ALLOCSET_SMALL_SIZES);
	LlmRecord *record = MemoryContextAllocZero(context, sizeof(LlmRecord));
	RecordEntry *entry;

	record->request_id = ++n_request_ids;
	record->context = context;
	record->phase = LLM_RECORD_COLLECTING;
	record->slot_idx = taken->slot_idx;
	record->owner_latch = taken->owner_latch;
	record->is_batch = taken->is_batch;
	record->input_bytes = taken->input_bytes;
	entry = hash_search(records_by_id, &record->request_id, HASH_ENTER, NULL);
	entry->record = record;
	record_of_slot[taken->slot_idx] = record;
	dlist_push_tail(&collecting, &record->node);
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
static void
enter_phase(LlmRecord *record, LlmRecordPhase phase)
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

static void
forget_record(LlmRecord *record)
{
	forget_slot(record);
	unlink_phase(record);
	if (record->executor != NULL)
	{
		Assert(record->executor->n_records > 0);
		record->executor->n_records--;
	}
	hash_search(records_by_id, &record->request_id, HASH_REMOVE, NULL);
	MemoryContextDelete(record->context);
}

/*
 * Nobody wants the answer any more.  Where the executor has the request, the
 * record stays until it says that it has not.
 */
static void
drop_record(LlmRecord *record)
{
	LlmError err;

	forget_slot(record);
	if (record->phase != LLM_RECORD_SENT)
		forget_record(record);
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
static void
fail_record(LlmRecord *record, const LlmError *why)
{
	int32 slot_idx = record->slot_idx;

	if (slot_idx != LLM_NONE)
	{
		llm_scheduler_lock(LW_EXCLUSIVE);
		if (is_ours(slot_idx))
		{
			llm_slots[slot_idx].error = *why;
			llm_slot_move(slot_idx, LLM_SLOT_FAILED);
		}
		llm_scheduler_unlock();
		llm_scheduler_wake_later(record->owner_latch);
		delta.n_failed++;
		has_delta = true;
	}
	drop_record(record);
}

/* All output is in the ring: tell the owner. */
static void
finish_record(LlmRecord *record)
{
	int32 slot_idx = record->slot_idx;

	Assert(record->phase == LLM_RECORD_DONE && !record->is_stalled);
	llm_scheduler_lock(LW_EXCLUSIVE);
	if (is_ours(slot_idx))
	{
		llm_slots[slot_idx].finished = record->finished;
		llm_slot_move(slot_idx, LLM_SLOT_FINISHED);
	}
	llm_scheduler_unlock();
	llm_scheduler_wake_later(record->owner_latch);
	delta.n_finished++;
	has_delta = true;
	forget_record(record);
}

/* -- taking slots -- */

/*
 * Empty queues and the list of the abandoned, as far as the arrays go.
 */
static void
pop_slots(TakenSlot *taken, int *n_taken, int32 *given_up, int *n_given_up)
{
	int32 slot_idx;

	*n_taken = *n_given_up = 0;
	llm_scheduler_lock(LW_EXCLUSIVE);
	for (int i = 0; i < 2; i++)
	{
		while (*n_taken < MAX_TAKEN &&
			   (slot_idx = llm_slot_list_pop(&llm_shared->queues[i])) !=
				   LLM_NONE)
		{
			LlmSlot *slot = &llm_slots[slot_idx];

			if (llm_slot_state(slot) == LLM_SLOT_ABANDONED)
			{
				llm_slot_free(slot_idx);
				llm_shared->counters.n_cancelled++;
				continue;
			}
			llm_slot_move(slot_idx, LLM_SLOT_ASSIGNED);
			taken[(*n_taken)++] = (TakenSlot){
				.slot_idx = slot_idx,
				.owner_latch = slot->owner_latch,
				.model_idx = slot->model_idx,
				.model_generation = slot->model_generation,
				.is_batch = slot->is_batch,
				.input_bytes = slot->input_bytes,
				.deadline_us = slot->deadline_us,
			};
		}
	}
	while (*n_given_up < MAX_TAKEN &&
		   (slot_idx = llm_slot_list_pop(&llm_shared->abandoned)) != LLM_NONE)
	{
		llm_slot_free(slot_idx);
		llm_shared->counters.n_cancelled++;
		given_up[(*n_given_up)++] = slot_idx;
	}
	llm_scheduler_unlock();
}

static void
take_slot(const TakenSlot *taken)
{
	LlmRecord *record = create_record(taken);
	LlmError err;

	record->executor =
		llm_models_route(taken->model_idx, taken->model_generation, &err);
	if (record->executor == NULL)
	{
		fail_record(record, &err);
		return;
	}
	record->executor->n_records++;
	record->input =
		MemoryContextAllocExtended(record->context, record->input_bytes,
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (record->input == NULL)
	{
		llm_error_no_memory(&err, record->input_bytes, "a request");
		fail_record(record, &err);
	}
}

void
llm_dispatch_take_slots(void)
{
	TakenSlot taken[MAX_TAKEN];
	int32 given_up[MAX_TAKEN];
	int n_taken;
	int n_given_up;

	do
	{
		pop_slots(taken, &n_taken, given_up, &n_given_up);
		/* a slot that was freed may already be in use again: forget it first */
		for (int i = 0; i < n_given_up; i++)
			if (record_of_slot[given_up[i]] != NULL)
				drop_record(record_of_slot[given_up[i]]);
		for (int i = 0; i < n_taken; i++)
			take_slot(&taken[i]);
	} while (n_taken == MAX_TAKEN || n_given_up == MAX_TAKEN);
}

/* -- input -- */

/* Do the counts of the message add up to its size? */
static bool
check_input(const LlmRecord *record, LlmError *err)
{
	const LlmWireRequest *wire = (const LlmWireRequest *) record->input;
	Size n_words;

	if (record->input_bytes >= sizeof(*wire))
	{
		n_words = (Size) wire->n_prompt + wire->n_stop_ids +
				  2 * (Size) wire->n_bias + wire->n_grammar_words;
		if (wire->n_output == 0 &&
			record->input_bytes == sizeof(*wire) + n_words * sizeof(int32))
			return true;
	}
	return llm_error_set(err, LLM_ERROR_INTERNAL,
						 "request message of %zu bytes is malformed",
						 record->input_bytes);
}

static void
collect_input(LlmRecord *record)
{
	LlmSlot *slot = &llm_slots[record->slot_idx];
	Size n_read =
		llm_ring_read(&slot->input, llm_slot_input(record->slot_idx),
					  record->input + record->n_collected_bytes,
					  record->input_bytes - record->n_collected_bytes);
	LlmError err;

	record->n_collected_bytes += n_read;
	if (record->n_collected_bytes < record->input_bytes)
	{
		if (n_read > 0)
			llm_scheduler_wake_later(record->owner_latch);
		return;
	}
	if (!check_input(record, &err))
	{
		fail_record(record, &err);
		return;
	}
	record->has_logprobs =
		((const LlmWireRequest *) record->input)->params.n_logprobs >= 0;
	enter_phase(record, LLM_RECORD_WAITING);
}

/* -- sending -- */

/* The message of a request that has output already; palloc'ed, or NULL. */
static char *
compose_resumed(const LlmRecord *record, const LlmWireRequest *wire,
				Size *n_bytes)
{
	Size prompt_bytes = (Size) wire->n_prompt * sizeof(int32);
	Size output_bytes = (Size) record->n_output * sizeof(int32);
	Size head_bytes = sizeof(*wire) + prompt_bytes;
	char *message;

	*n_bytes = record->input_bytes + output_bytes;
	message = MemoryContextAllocExtended(record->context, *n_bytes,
										 MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (message == NULL)
		return NULL;
	memcpy(message, wire, sizeof(*wire));
	memcpy(message + sizeof(*wire), record->input + sizeof(*wire),
		   prompt_bytes);
	memcpy(message + head_bytes, record->output_ids, output_bytes);
	memcpy(message + head_bytes + output_bytes, record->input + head_bytes,
		   record->input_bytes - head_bytes);
	return message;
}

static bool
send_message(LlmRecord *record, bool is_probe, LlmError *err)
{
	LlmChannel *channel = record->executor->channel;
	LlmWireRequest wire = *(const LlmWireRequest *) record->input;
	Size n_bytes;
	char *message;
	bool ok;

	wire.n_output = record->n_output;
	if (is_probe)
	{
		wire.params.max_tokens =
			Min(wire.params.max_tokens, record->n_output + 1);
		wire.params.min_tokens =
			Min(wire.params.min_tokens, wire.params.max_tokens);
	}
	if (record->n_output == 0)
		return llm_channel_send(channel, LLM_MESSAGE_REQUEST,
								record->request_id, &wire, sizeof(wire),
								record->input + sizeof(wire),
								record->input_bytes - sizeof(wire), err);
	message = compose_resumed(record, &wire, &n_bytes);
	if (message == NULL)
		return llm_error_no_memory(err, n_bytes, "a request");
	ok = llm_channel_send(channel, LLM_MESSAGE_REQUEST, record->request_id,
						  message, n_bytes, NULL, 0, err);
	pfree(message);
	return ok;
}

/* False: the request failed instead. */
static bool
send_record(LlmRecord *record, bool is_probe)
{
	LlmError err;

	if (!send_message(record, is_probe, &err))
	{
		fail_record(record, &err);
		return false;
	}
	if (record->was_sent)
	{
		delta.n_resumed++;
		has_delta = true;
	}
	record->was_sent = true;
	record->has_progress = false;
	enter_phase(record, LLM_RECORD_SENT);
	if (is_probe)
		record->executor->probe = record;
	return true;
}

/* Under the lock: show in the slot whether the executor has the request. */
static void
mark_slot(const LlmRecord *record, LlmSlotState state)
{
	int32 slot_idx = record->slot_idx;

	if (slot_idx == LLM_NONE || !is_ours(slot_idx) ||
		llm_slot_state(&llm_slots[slot_idx]) == state)
		return;
	llm_slot_move(slot_idx, state);
	llm_slots[slot_idx].executor_idx =
		state == LLM_SLOT_RUNNING ? record->executor->idx : LLM_NONE;
}

/* The last n_new requests of "sent" are new there. */
static void
mark_running(LlmExecutor *executor, int n_new)
{
	dlist_node *node = executor->sent.head.prev;

	if (n_new == 0)
		return;
	llm_scheduler_lock(LW_EXCLUSIVE);
	for (; n_new > 0; n_new--, node = node->prev)
		mark_slot(dlist_container(LlmRecord, node, node), LLM_SLOT_RUNNING);
	llm_scheduler_unlock();
}

void
llm_dispatch_pump(LlmExecutor *executor)
{
	int n_new = 0;

	if (executor->state != LLM_EXECUTOR_READY || executor->is_broken ||
		executor->probe != NULL)
		return;
	if (!dlist_is_empty(&executor->suspects))
	{
		if (executor->n_sent == 0)
			n_new += send_record(
				dlist_head_element(LlmRecord, node, &executor->suspects), true);
		else
			return;
	}
	else
		for (int i = 0; i < 2; i++)
			while (!dlist_is_empty(&executor->waiting[i]))
				n_new += send_record(
					dlist_head_element(LlmRecord, node, &executor->waiting[i]),
					false);
	mark_running(executor, n_new);
}

/* -- output -- */

static Size
entry_bytes(const char *entry)
{
	uint32 n_top;

	memcpy(&n_top, entry + 8, sizeof(n_top));
	return 12 + 8 * (Size) n_top;
}

/* Write whole entries, as many as find room; returns their bytes. */
static Size
write_entries(LlmRecord *record, const char *entries, Size n_bytes)
{
	LlmSlot *slot = &llm_slots[record->slot_idx];
	char *ring = llm_slot_output(record->slot_idx);
	Size n_written = 0;

	if (!record->has_logprobs)
	{
		Size room = llm_ring_writable(&slot->output) & ~(Size) 3;

		return llm_ring_write(&slot->output, ring, entries, Min(n_bytes, room));
	}
	while (n_written < n_bytes)
	{
		Size n_entry = entry_bytes(entries + n_written);

		if (llm_ring_writable(&slot->output) < n_entry)
			break;
		(void) llm_ring_write(&slot->output, ring, entries + n_written,
							  n_entry);
		n_written += n_entry;
	}
	return n_written;
}

/* Move pending output into the ring, as far as it goes. */
static void
write_pending(LlmRecord *record)
{
	LlmSlot *slot = &llm_slots[record->slot_idx];
	Size n_written =
		write_entries(record, record->pending + record->pending_start,
					  record->pending_end - record->pending_start);

	if (n_written > 0)
		llm_scheduler_wake_later(record->owner_latch);
	record->pending_start += n_written;
	if (record->pending_start < record->pending_end)
		return;
	record->pending_start = record->pending_end = 0;
	pg_atomic_write_u32(&slot->wants_room, 0);
	dlist_delete(&record->stall_node);
	record->is_stalled = false;
	if (record->phase == LLM_RECORD_DONE)
		finish_record(record);
}

/* Make *array larger; without memory nothing changes but the result. */
static bool
grow_array(MemoryContext context, void **array, Size used_bytes, Size n_bytes)
{
	void *larger = MemoryContextAllocExtended(
		context, n_bytes, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);

	if (larger == NULL)
		return false;
	if (*array != NULL)
	{
		memcpy(larger, *array, used_bytes);
		pfree(*array);
	}
	*array = larger;
	return true;
}

/* Keep what finds no room in the ring. */
static bool
hold_output(LlmRecord *record, const char *entries, Size n_bytes, LlmError *err)
{
	Size used = record->pending_end;
	Size need = used + n_bytes;

	if (need > record->pending_capacity)
	{
		Size capacity = Max(need, 2 * record->pending_capacity);

		if (!grow_array(record->context, (void **) &record->pending, used,
						capacity))
			return llm_error_no_memory(err, capacity, "output");
		record->pending_capacity = capacity;
	}
	memcpy(record->pending + used, entries, n_bytes);
	record->pending_end = need;
	if (record->is_stalled)
		return true;
	record->is_stalled = true;
	dlist_push_tail(&stalled, &record->stall_node);
	pg_atomic_write_u32(&llm_slots[record->slot_idx].wants_room, 1);
	/* the owner reads, then looks at wants_room; here the other way round */
	pg_memory_barrier();
	write_pending(record);
	return true;
}

/* Bytes of a TOKENS frame's entries, or 0 where they do not fit the frame. */
static Size
check_entries(const LlmRecord *record, const LlmWireTokens *tokens,
			  Size n_bytes)
{
	const char *entries = (const char *) (tokens + 1);
	Size left = n_bytes - sizeof(*tokens);

	if (!record->has_logprobs)
		return left == tokens->n_tokens * sizeof(int32) ? left : 0;
	for (uint32 i = 0; i < tokens->n_tokens; i++)
	{
		if (left < 12 || left < entry_bytes(entries) ||
			entry_bytes(entries) > 12 + 8 * LLM_MAX_LOGPROBS)
			return 0;
		left -= entry_bytes(entries);
		entries += entry_bytes(entries);
	}
	return left == 0 ? n_bytes - sizeof(*tokens) : 0;
}

/* Keep token ids for a successor of the executor. */
static bool
remember_tokens(LlmRecord *record, const char *entries, uint32 n_tokens,
				LlmError *err)
{
	uint32 need = record->n_output + n_tokens;

	if (need > record->output_capacity)
	{
		Size capacity = Max(Max(need, 64), 2 * (Size) record->output_capacity);

		if (!grow_array(record->context, (void **) &record->output_ids,
						record->n_output * sizeof(int32),
						capacity * sizeof(int32)))
			return llm_error_no_memory(err, capacity * sizeof(int32), "tokens");
		record->output_capacity = capacity;
	}
	for (uint32 i = 0; i < n_tokens; i++)
	{
		memcpy(&record->output_ids[record->n_output++], entries, sizeof(int32));
		entries += record->has_logprobs ? entry_bytes(entries) : sizeof(int32);
	}
	return true;
}

static bool
deliver_tokens(LlmRecord *record, const char *entries, uint32 n_tokens,
			   Size n_bytes, LlmError *err)
{
	Size n_written = 0;

	if (!remember_tokens(record, entries, n_tokens, err))
		return false;
	pg_atomic_write_u32(&llm_slots[record->slot_idx].n_output,
						record->n_output);
	if (!record->is_stalled)
	{
		n_written = write_entries(record, entries, n_bytes);
		llm_scheduler_wake_later(record->owner_latch);
	}
	return n_written == n_bytes ||
		   hold_output(record, entries + n_written, n_bytes - n_written, err);
}

static bool
receive_tokens(LlmRecord *record, const LlmWireTokens *tokens, Size n_bytes,
			   LlmError *err)
{
	const LlmWireRequest *wire = (const LlmWireRequest *) record->input;
	Size entries_bytes = 0;
	LlmError why;

	if (n_bytes > sizeof(*tokens) &&
		(tokens->has_logprobs != 0) == record->has_logprobs)
		entries_bytes = check_entries(record, tokens, n_bytes);
	if (entries_bytes == 0)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "malformed tokens message of %zu bytes", n_bytes);
	if (tokens->n_tokens > wire->params.max_tokens - record->n_output)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "request got more than its %u tokens",
							 wire->params.max_tokens);
	record->has_progress = true;
	record->n_strikes = 0;
	delta.n_generated_tokens += tokens->n_tokens;
	has_delta = true;
	if (record->slot_idx != LLM_NONE &&
		!deliver_tokens(record, (const char *) (tokens + 1), tokens->n_tokens,
						entries_bytes, &why))
		fail_record(record, &why);
	return true;
}

static bool
receive_finished(LlmRecord *record, const LlmWireFinished *finished,
				 Size n_bytes, LlmError *err)
{
	const LlmWireRequest *wire = (const LlmWireRequest *) record->input;
	bool was_probe = record->executor->probe == record;

	if (n_bytes != sizeof(*finished))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "malformed finished message of %zu bytes",
							 n_bytes);
	if (record->slot_idx == LLM_NONE)
	{
		forget_record(record);
		return true;
	}
	if (was_probe && finished->reason == LLM_FINISH_LENGTH &&
		record->n_output < wire->params.max_tokens)
	{
		/* harmless: it runs on, with all that are found to be */
		record->n_strikes = 0;
		enter_phase(record, LLM_RECORD_WAITING);
		return true;
	}
	record->finished = *finished;
	record->finished.n_output = record->n_output;
	record->finished.n_cached = Min(finished->n_cached, wire->n_prompt);
	delta.n_prompt_tokens += wire->n_prompt;
	delta.n_cached_tokens += record->finished.n_cached;
	enter_phase(record, LLM_RECORD_DONE);
	if (!record->is_stalled)
		finish_record(record);
	return true;
}

static bool
receive_failed(LlmRecord *record, const LlmError *why, Size n_bytes,
			   LlmError *err)
{
	LlmError copy;

	if (n_bytes != sizeof(*why))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "malformed failed message of %zu bytes", n_bytes);
	copy = *why;
	copy.message[sizeof(copy.message) - 1] = '\0';
	copy.hint[sizeof(copy.hint) - 1] = '\0';
	enter_phase(record, LLM_RECORD_DONE);
	fail_record(record, &copy);
	return true;
}

bool
llm_dispatch_receive(LlmExecutor *executor, const LlmFrameHeader *header,
					 const void *payload, LlmError *err)
{
	LlmRecord *record = find_record(header->request_id);

	if (record == NULL || record->executor != executor ||
		record->phase != LLM_RECORD_SENT)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "message of type %u about request %llu, which it "
							 "does not have",
							 header->type,
							 (unsigned long long) header->request_id);
	switch (header->type)
	{
		case LLM_MESSAGE_TOKENS:
			return receive_tokens(record, payload, header->n_bytes, err);
		case LLM_MESSAGE_FINISHED:
			return receive_finished(record, payload, header->n_bytes, err);
		default:
			Assert(header->type == LLM_MESSAGE_FAILED);
			return receive_failed(record, payload, header->n_bytes, err);
	}
}

/* -- when an executor dies -- */

/* A request that was being served when its executor died. */
static void
blame_record(LlmRecord *record, bool was_alone)
{
	LlmError err;

	if (record->slot_idx == LLM_NONE)
	{
		forget_record(record);
		return;
	}
	if (!record->has_progress && was_alone)
		record->n_strikes++;
	if (record->n_strikes < MAX_STRIKES)
	{
		enter_phase(record, LLM_RECORD_SUSPECT);
		return;
	}
	llm_error_set(&err, LLM_ERROR_EXECUTOR,
				  "the executor died twice while serving this request");
	llm_error_hint(&err, "See the server log for how it died.");
	enter_phase(record, LLM_RECORD_DONE);
	fail_record(record, &err);
}

void
llm_dispatch_executor_died(LlmExecutor *executor)
{
	bool was_alone = executor->n_sent == 1;
	dlist_iter iter;

	llm_scheduler_lock(LW_EXCLUSIVE);
	dlist_foreach(iter, &executor->sent)
	{
		mark_slot(dlist_container(LlmRecord, node, iter.cur),
				  LLM_SLOT_ASSIGNED);
	}
	llm_scheduler_unlock();
	while (!dlist_is_empty(&executor->sent))
		blame_record(dlist_head_element(LlmRecord, node, &executor->sent),
					 was_alone);
	Assert(executor->n_sent == 0 && executor->probe == NULL);
}

static void
fail_list(dlist_head *records, const LlmExecutor *executor, const LlmError *why)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, records)
	{
		LlmRecord *record = dlist_container(LlmRecord, node, iter.cur);

		if (record->executor == executor)
			fail_record(record, why);
	}
}

void
llm_dispatch_fail_all(LlmExecutor *executor, const LlmError *why)
{
	Assert(dlist_is_empty(&executor->sent));
	fail_list(&collecting, executor, why);
	fail_list(&executor->suspects, executor, why);
	for (int i = 0; i < 2; i++)
		fail_list(&executor->waiting[i], executor, why);
}

/* -- once per turn -- */

static void
enforce_deadlines(void)
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
				fail_record(record, &err);
			else if (next_due_us == 0 || record->deadline_us < next_due_us)
				next_due_us = record->deadline_us;
		}
	}
	llm_scheduler_turn_at(next_due_us);
}

void
llm_dispatch_advance(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &collecting)
		collect_input(dlist_container(LlmRecord, node, iter.cur));
	dlist_foreach_modify(iter, &stalled)
		write_pending(dlist_container(LlmRecord, stall_node, iter.cur));
	enforce_deadlines();
}

void
llm_dispatch_publish_counters(void)
{
	LlmSchedulerCounters *total = &llm_shared->counters;

	if (!has_delta)
		return;
	llm_scheduler_lock(LW_EXCLUSIVE);
	total->n_finished += delta.n_finished;
	total->n_failed += delta.n_failed;
	total->n_resumed += delta.n_resumed;
	total->n_prompt_tokens += delta.n_prompt_tokens;
	total->n_cached_tokens += delta.n_cached_tokens;
	total->n_generated_tokens += delta.n_generated_tokens;
	llm_scheduler_unlock();
	memset(&delta, 0, sizeof(delta));
	has_delta = false;
}
