/*
 * dispatch.c
 *	  Requests from slots to executors: take, collect, send, resume.
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
 * src/server/scheduler/dispatch.c
 */
#include "postgres.h"

#include "src/server/scheduler/request_record.h"
#include "utils/memutils.h"

#define MAX_STRIKES 2
#define MAX_TAKEN 64 /* slots per locked section */

/* -- taking slots -- */

/*
 * Empty queues and the list of the abandoned, as far as the arrays go.
 */
static void
pop_slots(LlmTakenSlot *taken, int *n_taken, int32 *given_up, int *n_given_up)
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
			taken[*n_taken] = (LlmTakenSlot){
				.slot_idx = slot_idx,
				.owner_latch = slot->owner_latch,
				.model_idx = slot->model_idx,
				.model_generation = slot->model_generation,
				.is_batch = slot->is_batch,
				.role_id = slot->role_id,
				.database_id = slot->database_id,
				.input_bytes = slot->input_bytes,
				.deadline_us = slot->deadline_us,
			};
			memcpy(taken[(*n_taken)++].adapter, slot->adapter,
				   sizeof(slot->adapter));
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

/* False: the record has failed. */
static bool
acquire_adapter(LlmRecord *record, const LlmTakenSlot *taken)
{
	static const uint8 none[LLM_SHA256_BYTES];
	LlmError err;

	if (memcmp(taken->adapter, none, sizeof(none)) == 0)
		return true;
	record->adapter_idx = llm_adapter_acquire(taken->adapter, &err);
	if (record->adapter_idx != LLM_NONE)
		return true;
	llm_record_fail(record, &err);
	return false;
}

static void
take_slot(const LlmTakenSlot *taken)
{
	LlmRecord *record = llm_record_create(taken);
	LlmError err;

	record->executor =
		llm_models_route(taken->model_idx, taken->model_generation, &err);
	if (record->executor == NULL)
	{
		llm_record_fail(record, &err);
		return;
	}
	record->executor->n_records++;
	if (!acquire_adapter(record, taken))
		return;
	record->input =
		MemoryContextAllocExtended(record->context, record->input_bytes,
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (record->input == NULL)
	{
		llm_error_no_memory(&err, record->input_bytes, "a request");
		llm_record_fail(record, &err);
	}
}

void
llm_dispatch_take_slots(void)
{
	LlmTakenSlot taken[MAX_TAKEN];
	int32 given_up[MAX_TAKEN];
	int n_taken;
	int n_given_up;

	do
	{
		pop_slots(taken, &n_taken, given_up, &n_given_up);
		/* a slot that was freed may already be in use again: forget it first */
		for (int i = 0; i < n_given_up; i++)
			if (llm_record_of_slot(given_up[i]) != NULL)
				llm_record_drop(llm_record_of_slot(given_up[i]));
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
		llm_record_fail(record, &err);
		return;
	}
	record->has_logprobs =
		((const LlmWireRequest *) record->input)->params.n_logprobs >= 0;
	llm_record_enter_phase(record, LLM_RECORD_WAITING);
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

	if (record->adapter_idx != LLM_NONE &&
		!llm_adapter_announce(record->executor, record->adapter_idx,
							  &wire.adapter_id, err))
		return false;
	wire.n_output = record->n_output;
	/* what generates nothing is short enough to be tried whole */
	if (is_probe && wire.kind == LLM_REQUEST_GENERATE)
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
		llm_record_fail(record, &err);
		return false;
	}
	if (record->was_sent)
	{
		llm_turn_counts.n_resumed++;
	}
	record->was_sent = true;
	record->has_progress = false;
	llm_record_enter_phase(record, LLM_RECORD_SENT);
	if (is_probe)
		record->executor->probe = record;
	return true;
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
		llm_record_mark_slot(dlist_container(LlmRecord, node, node),
							 LLM_SLOT_RUNNING);
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

/* -- when an executor dies -- */

/* A request that was being served when its executor died. */
static void
blame_record(LlmRecord *record, bool was_alone)
{
	LlmError err;

	if (record->slot_idx == LLM_NONE)
	{
		llm_record_forget(record);
		return;
	}
	if (!record->has_progress && was_alone)
		record->n_strikes++;
	if (record->n_strikes < MAX_STRIKES)
	{
		llm_record_enter_phase(record, LLM_RECORD_SUSPECT);
		return;
	}
	llm_error_set(&err, LLM_ERROR_EXECUTOR,
				  "the executor died twice while serving this request");
	llm_error_hint(&err, "See the server log for how it died.");
	llm_record_enter_phase(record, LLM_RECORD_DONE);
	llm_record_fail(record, &err);
}

void
llm_dispatch_executor_died(LlmExecutor *executor)
{
	bool was_alone = executor->n_sent == 1;
	dlist_iter iter;

	llm_scheduler_lock(LW_EXCLUSIVE);
	dlist_foreach(iter, &executor->sent)
	{
		llm_record_mark_slot(dlist_container(LlmRecord, node, iter.cur),
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
			llm_record_fail(record, why);
	}
}

void
llm_dispatch_fail_all(LlmExecutor *executor, const LlmError *why)
{
	Assert(dlist_is_empty(&executor->sent));
	fail_list(&llm_records_collecting, executor, why);
	fail_list(&executor->suspects, executor, why);
	for (int i = 0; i < 2; i++)
		fail_list(&executor->waiting[i], executor, why);
}

/* -- once per turn -- */

void
llm_dispatch_advance(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &llm_records_collecting)
		collect_input(dlist_container(LlmRecord, node, iter.cur));
	dlist_foreach_modify(iter, &llm_records_stalled) llm_record_write_pending(
		dlist_container(LlmRecord, stall_node, iter.cur));
	llm_records_enforce_deadlines();
}

void
llm_dispatch_publish_counters(void)
{
	static const LlmSchedulerCounters none;
	LlmSchedulerCounters *total = &llm_shared->counters;

	if (memcmp(&llm_turn_counts, &none, sizeof(none)) == 0)
		return;
	llm_scheduler_lock(LW_EXCLUSIVE);
	total->n_finished += llm_turn_counts.n_finished;
	total->n_failed += llm_turn_counts.n_failed;
	total->n_resumed += llm_turn_counts.n_resumed;
	total->n_prompt_tokens += llm_turn_counts.n_prompt_tokens;
	total->n_cached_tokens += llm_turn_counts.n_cached_tokens;
	total->n_generated_tokens += llm_turn_counts.n_generated_tokens;
	llm_scheduler_unlock();
	memset(&llm_turn_counts, 0, sizeof(llm_turn_counts));
}
