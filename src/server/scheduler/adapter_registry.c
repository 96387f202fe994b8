/*
 * adapter_registry.c
 *	  Which adapters requests use, and which of them each executor has heard
 *	  of.
 *
 * A request names its adapter by the hash of its image.  Here the hash gets a
 * number, which is never used again for another, and with the first request
 * that an executor gets for it the executor hears number and file.  A new
 * process of an executor has heard of nothing.
 *
 * Entries lie in shared memory, for the view; only the scheduler writes them.
 * When all are taken, the one that was used least recently makes room, and
 * executors are told to forget it.
 *
 * src/server/scheduler/adapter_registry.c
 */
#include "postgres.h"

#include "src/server/adapter_files.h"
#include "src/server/scheduler/request_record.h"
#include "src/server/settings.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define TRIM_INTERVAL_US INT64CONST(60000000)

typedef struct DigestEntry
{
	uint8 digest[LLM_SHA256_BYTES]; /* hash key */
	int32 adapter_idx;
} DigestEntry;

static HTAB *entry_of_digest;
static uint32 n_in_flight[LLM_MAX_ADAPTERS]; /* records by adapter */
static uint64 n_adapter_ids;
static int64 trim_at_us;

void
llm_adapters_init(void)
{
	HASHCTL control = { 0 };

	control.keysize = LLM_SHA256_BYTES;
	control.entrysize = sizeof(DigestEntry);
	control.hcxt = TopMemoryContext;
	entry_of_digest = hash_create("llm adapters", 256, &control,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	/* as with requests: numbers of an earlier scheduler do not come again */
	n_adapter_ids = (uint64) llm_shared->epoch << 40;
	llm_scheduler_lock(LW_EXCLUSIVE);
	memset(llm_adapters, 0, LLM_MAX_ADAPTERS * sizeof(LlmAdapterEntry));
	llm_scheduler_unlock();
}

/* Executors that have heard of it get no more requests for it. */
static void
tell_to_forget(int32 adapter_idx)
{
	LlmWireAdapter wire = { .adapter_id =
								llm_adapters[adapter_idx].adapter_id };
	LlmError err;

	for (int32 i = 0; i < llm_shared->n_executors; i++)
	{
		LlmExecutor *executor = llm_supervisor_executor(i);

		if (executor->heard_of == NULL ||
			executor->heard_of[adapter_idx] != wire.adapter_id)
			continue;
		executor->heard_of[adapter_idx] = 0;
		if (executor->state == LLM_EXECUTOR_READY && !executor->is_broken &&
			!llm_channel_send(executor->channel, LLM_MESSAGE_ADAPTER_FORGET, 0,
							  &wire, sizeof(wire), NULL, 0, &err))
			llm_supervisor_break(executor, &err);
	}
}

/* An entry for a new adapter; LLM_NONE: all are in use by requests. */
static int32
find_place(void)
{
	int32 oldest = LLM_NONE;

	for (int32 i = 0; i < LLM_MAX_ADAPTERS; i++)
	{
		if (llm_adapters[i].adapter_id == 0)
			return i;
		if (n_in_flight[i] == 0 &&
			(oldest == LLM_NONE ||
			 llm_adapters[i].used_at < llm_adapters[oldest].used_at))
			oldest = i;
	}
	if (oldest == LLM_NONE)
		return LLM_NONE;
	tell_to_forget(oldest);
	hash_search(entry_of_digest, llm_adapters[oldest].digest, HASH_REMOVE,
				NULL);
	return oldest;
}

int32
llm_adapter_acquire(const uint8 digest[LLM_SHA256_BYTES], LlmError *err)
{
	DigestEntry *known = hash_search(entry_of_digest, digest, HASH_FIND, NULL);
	int32 idx = known != NULL ? known->adapter_idx : find_place();

	if (idx == LLM_NONE)
	{
		llm_error_set(err, LLM_ERROR_LIMIT,
					  "requests in flight use more than %d adapters",
					  LLM_MAX_ADAPTERS);
		return LLM_NONE;
	}
	if (known == NULL)
	{
		known = hash_search(entry_of_digest, digest, HASH_ENTER, NULL);
		known->adapter_idx = idx;
		llm_scheduler_lock(LW_EXCLUSIVE);
		memset(&llm_adapters[idx], 0, sizeof(LlmAdapterEntry));
		memcpy(llm_adapters[idx].digest, digest, LLM_SHA256_BYTES);
		llm_adapters[idx].adapter_id = ++n_adapter_ids;
		llm_scheduler_unlock();
	}
	n_in_flight[idx]++;
	return idx;
}

void
llm_adapter_release(int32 adapter_idx)
{
	Assert(n_in_flight[adapter_idx] > 0);
	n_in_flight[adapter_idx]--;
}

void
llm_adapter_count(int32 adapter_idx, uint32 n_tokens)
{
	LlmAdapterEntry *entry = &llm_adapters[adapter_idx];

	entry->n_requests++;
	entry->n_tokens += n_tokens;
	entry->used_at = GetCurrentTimestamp();
}

bool
llm_adapter_announce(LlmExecutor *executor, int32 adapter_idx,
					 uint64 *adapter_id, LlmError *err)
{
	LlmWireAdapter wire = { .adapter_id =
								llm_adapters[adapter_idx].adapter_id };
	char path[MAXPGPATH];

	*adapter_id = wire.adapter_id;
	if (executor->heard_of == NULL)
	{
		executor->heard_of = MemoryContextAllocExtended(
			TopMemoryContext, LLM_MAX_ADAPTERS * sizeof(uint64),
			MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
		if (executor->heard_of == NULL)
			return llm_error_no_memory(err, LLM_MAX_ADAPTERS * sizeof(uint64),
									   "adapters");
	}
	if (executor->heard_of[adapter_idx] == wire.adapter_id)
		return true;
	llm_adapter_file_path(llm_adapters[adapter_idx].digest, path);
	wire.n_path_bytes = (uint32) strlen(path);
	if (!llm_channel_send(executor->channel, LLM_MESSAGE_ADAPTER, 0, &wire,
						  sizeof(wire), path, wire.n_path_bytes, err))
		return false;
	executor->heard_of[adapter_idx] = wire.adapter_id;
	return true;
}

void
llm_adapters_executor_started(LlmExecutor *executor)
{
	if (executor->heard_of == NULL)
		return;
	llm_scheduler_lock(LW_EXCLUSIVE);
	for (int32 i = 0; i < LLM_MAX_ADAPTERS; i++)
	{
		if (executor->heard_of[i] != 0 &&
			executor->heard_of[i] == llm_adapters[i].adapter_id)
		{
			llm_adapters[i].residency = LLM_ADAPTER_ABSENT;
			llm_adapters[i].n_bytes = 0;
		}
		executor->heard_of[i] = 0;
	}
	llm_scheduler_unlock();
}

bool
llm_adapters_receive_state(LlmExecutor *executor,
						   const LlmWireAdapterState *state, Size n_bytes,
						   LlmError *err)
{
	if (n_bytes != sizeof(*state) || state->residency > LLM_ADAPTER_FAILED)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "malformed adapter state message of %zu bytes",
							 n_bytes);
	if (executor->heard_of == NULL)
		return true;
	for (int32 i = 0; i < LLM_MAX_ADAPTERS; i++)
	{
		if (executor->heard_of[i] != state->adapter_id ||
			llm_adapters[i].adapter_id != state->adapter_id)
			continue;
		llm_scheduler_lock(LW_EXCLUSIVE);
		llm_adapters[i].residency = state->residency;
		llm_adapters[i].n_bytes = state->n_bytes;
		llm_scheduler_unlock();
		/* its file may be made again: tell it once more with the next request */
		if (state->residency == LLM_ADAPTER_FAILED)
			executor->heard_of[i] = 0;
		break;
	}
	return true;
}

/* Is it the file of an adapter that requests in flight use? */
static bool
file_is_used(const char *path)
{
	for (int32 i = 0; i < LLM_MAX_ADAPTERS; i++)
	{
		char used[MAXPGPATH];

		if (n_in_flight[i] == 0)
			continue;
		llm_adapter_file_path(llm_adapters[i].digest, used);
		if (strcmp(path, used) == 0)
			return true;
	}
	return false;
}

void
llm_adapters_advance(void)
{
	if (llm_scheduler_now_us() < trim_at_us)
		return;
	trim_at_us = llm_scheduler_now_us() + TRIM_INTERVAL_US;
	llm_adapter_files_trim((uint64) llm_setting_adapter_cache_mb << 20,
						   file_is_used);
}
