/*
 * relay.c
 *	  What executors answer, on its way into slots.
 *
 * Tokens are remembered for a successor of the executor and written to the
 * slot's ring in whole entries.  What finds no room is held, bounded by the
 * request's max_tokens, until the owner has read: a consumer that does not
 * read never holds anything else up.  Everything that an executor says is
 * checked; what cannot be true breaks it.
 *
 * src/server/scheduler/relay.c
 */
#include "postgres.h"

#include "src/server/scheduler/request_record.h"
#include "utils/memutils.h"

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
void
llm_record_write_pending(LlmRecord *record)
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
		llm_record_finish(record);
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
	llm_record_stall(record);
	/* the owner reads, then looks at wants_room; here the other way round */
	pg_memory_barrier();
	llm_record_write_pending(record);
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
is_to_embed(const LlmWireRequest *wire)
{
	return wire->kind == LLM_REQUEST_EMBED_LAST ||
		   wire->kind == LLM_REQUEST_EMBED_MEAN;
}

static bool
receive_tokens(LlmRecord *record, const LlmWireTokens *tokens, Size n_bytes,
			   LlmError *err)
{
	const LlmWireRequest *wire = (const LlmWireRequest *) record->input;
	Size entries_bytes = 0;
	LlmError why;

	if (!is_to_embed(wire) && n_bytes > sizeof(*tokens) &&
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
	if (wire->kind == LLM_REQUEST_GENERATE)
	{
		LlmUsageCounts used = { .n_output_tokens = tokens->n_tokens };

		llm_turn_counts.n_generated_tokens += tokens->n_tokens;
		llm_usage_charge(record, &used);
	}
	if (record->slot_idx != LLM_NONE &&
		!deliver_tokens(record, (const char *) (tokens + 1), tokens->n_tokens,
						entries_bytes, &why))
		llm_record_fail(record, &why);
	return true;
}

static bool
receive_embedding(LlmRecord *record, const char *floats, Size n_bytes,
				  LlmError *err)
{
	const LlmWireRequest *wire = (const LlmWireRequest *) record->input;
	Size n_written = 0;
	LlmError why;

	if (!is_to_embed(wire) || n_bytes == 0 || n_bytes % sizeof(float4) != 0)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "malformed embedding message of %zu bytes",
							 n_bytes);
	record->has_progress = true;
	record->n_strikes = 0;
	if (record->has_embedding || record->slot_idx == LLM_NONE)
		return true;
	record->has_embedding = true;
	n_written = write_entries(record, floats, n_bytes);
	if (n_written < n_bytes &&
		!hold_output(record, floats + n_written, n_bytes - n_written, &why))
		llm_record_fail(record, &why);
	return true;
}

/* At the end, when it is known how far the executor came. */
static void
charge_prompt(const LlmRecord *record, const LlmWireFinished *finished)
{
	const LlmWireRequest *wire = (const LlmWireRequest *) record->input;
	uint32 n_prompt = Min(finished->n_prompt, wire->n_prompt);
	LlmUsageCounts used = {
		.n_requests = 1,
		.n_prompt_tokens = n_prompt,
		.n_cached_tokens = Min(finished->n_cached, n_prompt),
	};

	llm_usage_charge(record, &used);
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
		charge_prompt(record, finished);
		llm_record_forget(record);
		return true;
	}
	if (was_probe && finished->reason == LLM_FINISH_LENGTH &&
		record->n_output < wire->params.max_tokens)
	{
		/* harmless: it runs on, with all that are found to be */
		record->n_strikes = 0;
		llm_record_enter_phase(record, LLM_RECORD_WAITING);
		return true;
	}
	record->finished = *finished;
	record->finished.n_output = record->n_output;
	record->finished.n_cached = Min(finished->n_cached, wire->n_prompt);
	charge_prompt(record, finished);
	llm_turn_counts.n_prompt_tokens += wire->n_prompt;
	llm_turn_counts.n_cached_tokens += record->finished.n_cached;
	llm_record_enter_phase(record, LLM_RECORD_DONE);
	if (!record->is_stalled)
		llm_record_finish(record);
	return true;
}

static bool
receive_failed(LlmRecord *record, const LlmError *why, Size n_bytes,
			   LlmError *err)
{
	LlmUsageCounts used = { .n_requests = 1 };
	LlmError copy;

	if (n_bytes != sizeof(*why))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "malformed failed message of %zu bytes", n_bytes);
	llm_usage_charge(record, &used);
	copy = *why;
	copy.message[sizeof(copy.message) - 1] = '\0';
	copy.hint[sizeof(copy.hint) - 1] = '\0';
	llm_record_enter_phase(record, LLM_RECORD_DONE);
	llm_record_fail(record, &copy);
	return true;
}

bool
llm_relay_receive(LlmExecutor *executor, const LlmFrameHeader *header,
				  const void *payload, LlmError *err)
{
	LlmRecord *record = llm_record_find(header->request_id);

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
		case LLM_MESSAGE_EMBEDDING:
			return receive_embedding(record, payload, header->n_bytes, err);
		case LLM_MESSAGE_FINISHED:
			return receive_finished(record, payload, header->n_bytes, err);
		default:
			Assert(header->type == LLM_MESSAGE_FAILED);
			return receive_failed(record, payload, header->n_bytes, err);
	}
}
