/*
 * request.c
 *	  A backend process's side of a request: submit, poll, wait, release.
 *
 * A request lives in a memory context of its own, whose reset callback gives
 * the slot up; so does a callback at process exit.  Both, and the caller, may
 * come in any order: the slot's index is forgotten with the first.
 *
 * A slot never waits for its reader.  Polling a finished request frees its
 * slot at once, and a process that finds no free slot first empties all of
 * its own into its memory: otherwise sessions that each hold finished slots
 * while waiting for one more would wait for each other.
 *
 * src/server/scheduler/request.c
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/ilist.h"
#include "libpq/libpq-be.h"
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "src/common/util/clock.h"
#include "src/server/report.h"
#include "src/server/scheduler/scheduler_internal.h"
#include "src/server/settings.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#define SLOT_WAIT_MS 5
#define TOKEN_WAIT_MS 1000
#define CONNECTION_CHECK_US INT64CONST(3000000)

struct LlmRequest
{
	dlist_node node; /* in active_requests, while it has a slot */
	MemoryContext context;
	MemoryContextCallback on_reset;
	int32 slot_idx; /* LLM_NONE: given up, or finished and emptied */
	uint32 slot_generation;
	uint32 n_capacity;
	bool is_generating;
	bool is_embedding; /* the output ring has floats */
	int32 *token_ids;  /* or the floats' bits */
	float4 *logprobs;
	uint32 *n_top;
	LlmTopLogprob *top;
	LlmError error; /* code LLM_OK: none */
	LlmRequestResult result;
};

/* Requests of this process that hold a slot. */
static dlist_head active_requests = DLIST_STATIC_INIT(active_requests);
static int n_active_requests;

/* Requests in the queue for which the scheduler was not woken. */
static int n_unannounced;

/* The latch was set and reset while something else was waited for. */
static bool has_unread_news;

/* -- giving up -- */

/* The slot is not ours any more. */
static void
forget_slot(LlmRequest *request)
{
	Assert(request->slot_idx != LLM_NONE);
	request->slot_idx = LLM_NONE;
	dlist_delete(&request->node);
	n_active_requests--;
}

void
llm_request_release(LlmRequest *request)
{
	int32 slot_idx = request->slot_idx;
	bool wake = false;

	if (slot_idx == LLM_NONE)
		return;
	forget_slot(request);
	llm_scheduler_lock(LW_EXCLUSIVE);
	Assert(llm_slots[slot_idx].generation == request->slot_generation);
	wake = llm_slot_abandon(slot_idx);
	llm_scheduler_unlock();
	if (wake)
		llm_scheduler_wake();
}

static void
release_on_reset(void *arg)
{
	llm_request_release((LlmRequest *) arg);
}

static void
release_on_exit(int code, Datum arg)
{
	while (!dlist_is_empty(&active_requests))
		llm_request_release(
			dlist_head_element(LlmRequest, node, &active_requests));
}

/* -- the statement's tokens -- */

/* Tokens of requests that the client's current statement has made. */
static uint64 n_statement_tokens;
static TimestampTz statement_start;

/*
 * Count tokens, and end the statement where they are too many: no option of a
 * row's can turn that into a NULL.
 */
static void
count_statement_tokens(uint64 n_tokens)
{
	TimestampTz start = GetCurrentStatementStartTimestamp();

	if (start != statement_start)
		n_statement_tokens = 0;
	statement_start = start;
	n_statement_tokens += n_tokens;
	if (llm_setting_max_tokens_per_statement > 0 &&
		n_statement_tokens > (uint64) llm_setting_max_tokens_per_statement)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the statement used more than %d tokens",
						llm_setting_max_tokens_per_statement),
				 errhint("The limit is llm_ext.max_tokens_per_statement; it "
						 "counts prompts and answers.")));
}

/* -- reading the output ring -- */

static void *
grow_array(MemoryContext context, void *array, Size n_bytes)
{
	if (array == NULL)
		return MemoryContextAllocHuge(context, n_bytes);
	return repalloc_huge(array, n_bytes);
}

/* Make room for so many tokens. */
static void
reserve_tokens(LlmRequest *request, uint32 n_tokens)
{
	MemoryContext context = request->context;
	Size capacity = request->n_capacity;

	if (n_tokens <= capacity)
		return;
	capacity = Max(capacity * 2, Max(n_tokens, 32));
	request->token_ids =
		grow_array(context, request->token_ids, capacity * sizeof(int32));
	request->result.token_ids = request->token_ids;
	if (request->result.has_logprobs)
	{
		request->logprobs =
			grow_array(context, request->logprobs, capacity * sizeof(float4));
		request->n_top =
			grow_array(context, request->n_top, capacity * sizeof(uint32));
		request->top =
			grow_array(context, request->top,
					   capacity * LLM_MAX_LOGPROBS * sizeof(LlmTopLogprob));
		request->result.logprobs = request->logprobs;
		request->result.n_top = request->n_top;
		request->result.top = request->top;
	}
	request->n_capacity = (uint32) capacity;
}

static void
read_output(LlmSlot *slot, int32 slot_idx, void *bytes, Size n_bytes)
{
	Size n_read =
		llm_ring_read(&slot->output, llm_slot_output(slot_idx), bytes, n_bytes);

	/* the scheduler writes whole entries only */
	if (n_read != n_bytes)
		elog(ERROR, "request slot %d: output ends within an entry", slot_idx);
}

/* One token with its log-probabilities. */
static void
read_logprob_entry(LlmRequest *request, LlmSlot *slot)
{
	uint32 i = request->result.n_tokens;
	uint32 n_top;

	reserve_tokens(request, i + 1);
	read_output(slot, request->slot_idx, &request->token_ids[i], sizeof(int32));
	read_output(slot, request->slot_idx, &request->logprobs[i], sizeof(float4));
	read_output(slot, request->slot_idx, &n_top, sizeof(n_top));
	if (n_top > LLM_MAX_LOGPROBS)
		elog(ERROR, "request slot %d: %u alternatives", request->slot_idx,
			 n_top);
	request->n_top[i] = n_top;
	read_output(slot, request->slot_idx,
				&request->top[(Size) i * LLM_MAX_LOGPROBS],
				n_top * sizeof(LlmTopLogprob));
	request->result.n_tokens = i + 1;
}

/* Move what the ring holds into our own memory.  True: there was something. */
static bool
read_tokens(LlmRequest *request)
{
	LlmSlot *slot = &llm_slots[request->slot_idx];
	LlmRequestResult *result = &request->result;
	uint32 n_before = result->n_tokens;
	Size n_bytes;

	StaticAssertStmt(sizeof(int32) == sizeof(float4),
					 "embeddings are read as tokens are");

	while ((n_bytes = llm_ring_readable(&slot->output)) > 0)
	{
		uint32 n_tokens = n_bytes / sizeof(int32);

		if (result->has_logprobs)
		{
			read_logprob_entry(request, slot);
			continue;
		}
		reserve_tokens(request, result->n_tokens + n_tokens);
		read_output(slot, request->slot_idx,
					&request->token_ids[result->n_tokens],
					n_tokens * sizeof(int32));
		result->n_tokens += n_tokens;
	}
	if (result->n_tokens == n_before)
		return false;
	/* pairs with the barrier between setting wants_room and trying again */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&slot->wants_room) != 0)
		llm_scheduler_wake();
	if (request->is_generating)
		count_statement_tokens(result->n_tokens - n_before);
	return true;
}

/*
 * Collect what has arrived; at the end of the request, its outcome too, and
 * free the slot.  True: there was something new.
 */
static bool
collect(LlmRequest *request)
{
	LlmSlot *slot;
	LlmSlotState state;
	bool has_news;

	if (request->slot_idx == LLM_NONE)
		return false;
	slot = &llm_slots[request->slot_idx];
	/* the state first: what precedes a final one is complete in the ring */
	state = llm_slot_state(slot);
	pg_read_barrier();
	has_news = read_tokens(request);
	if (state == LLM_SLOT_FINISHED && request->is_embedding)
	{
		request->result.n_floats = request->result.n_tokens;
		request->result.embedding = (const float4 *) request->token_ids;
		request->result.n_tokens = 0;
	}
	if (state == LLM_SLOT_FINISHED)
	{
		request->result.is_finished = true;
		request->result.reason = (LlmFinishReason) slot->finished.reason;
		request->result.n_cached = slot->finished.n_cached;
	}
	else if (state == LLM_SLOT_FAILED)
		request->error = slot->error;
	else
		return has_news;
	llm_request_release(request);
	return true;
}

static void
collect_all(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &active_requests)
	{
		(void) collect(dlist_container(LlmRequest, node, iter.cur));
	}
}

/* -- waiting -- */

void
llm_request_announce(void)
{
	if (n_unannounced == 0)
		return;
	n_unannounced = 0;
	llm_scheduler_wake();
}

/*
 * Waking the scheduler costs more than queueing a request, and takes a CPU
 * from an engine that has work: it can wait while the scheduler knows of four
 * times as many.
 */
static void
announce_soon(void)
{
	n_unannounced++;
	if (n_unannounced * 4 > n_active_requests)
		llm_request_announce();
}

/*
 * Notice a client that went away while we wait: PostgreSQL itself looks only
 * where client_connection_check_interval says so.  Tokens that keep coming
 * must not keep us from looking, so the time is kept over calls.
 */
static void
check_client(void)
{
	static int64 next_check_us;
	int64 now_us = llm_clock_us();

	if (MyProcPort == NULL || now_us < next_check_us)
		return;
	next_check_us = now_us + CONNECTION_CHECK_US;
	if (!pq_check_connection())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
		CHECK_FOR_INTERRUPTS();
	}
}

static void
wait_for_latch(long timeout_ms, uint32 wait_event)
{
	llm_request_announce();
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout_ms, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* A failure is a result too: the caller decides what becomes of the row. */
static const LlmRequestResult *
deliver(LlmRequest *request)
{
	if (request->error.code != LLM_OK)
	{
		request->result.is_finished = true;
		request->result.reason = LLM_FINISH_ERROR;
		request->result.error = &request->error;
	}
	return &request->result;
}

const LlmRequestResult *
llm_request_poll(LlmRequest *request)
{
	(void) collect(request);
	return deliver(request);
}

/* When a wait first found no scheduler; 0 = it was there. */
static int64 missing_since_us;

/*
 * A scheduler that ends, or starts, fails what was in flight; this is for the
 * case that it cannot be started at all.
 */
static void
check_scheduler(void)
{
	int64 now_us = llm_clock_us();

	if (llm_shared->scheduler_pid != 0)
		missing_since_us = 0;
	else if (missing_since_us == 0)
		missing_since_us = now_us;
	else if (now_us - missing_since_us >
			 LLM_SCHEDULER_WAIT_MS * INT64CONST(1000))
	{
		while (!dlist_is_empty(&active_requests))
		{
			LlmRequest *request =
				dlist_head_element(LlmRequest, node, &active_requests);

			llm_request_release(request);
			llm_error_set(&request->error, LLM_ERROR_UNAVAILABLE,
						  "the scheduler is not running");
		}
	}
}

/* Wait for the queue: news of other requests may come meanwhile. */
static void
wait_for_queue(long timeout_ms, uint32 wait_event)
{
	has_unread_news = true;
	wait_for_latch(timeout_ms, wait_event);
}

bool
llm_request_has_news(void)
{
	bool has_news = has_unread_news || MyLatch->is_set;

	if (MyLatch->is_set)
		ResetLatch(MyLatch);
	has_unread_news = false;
	return has_news;
}

void
llm_request_wait_any(void)
{
	if (has_unread_news)
	{
		has_unread_news = false;
		llm_request_announce();
		return;
	}
	wait_for_latch(TOKEN_WAIT_MS, llm_wait_event_tokens());
	check_client();
	check_scheduler();
}

const LlmRequestResult *
llm_request_wait(LlmRequest *request)
{
	check_client();
	while (!collect(request) && request->slot_idx != LLM_NONE)
		llm_request_wait_any();
	return deliver(request);
}

/* -- submitting -- */

/* A request on its way into a slot. */
typedef struct Submission
{
	const LlmRequestSpec *spec;
	char *input; /* the REQUEST message */
	Size input_bytes;
	int64 deadline_us; /* 0 = none */
	TimestampTz submitted_at;
} Submission;

typedef enum ClaimOutcome
{
	CLAIM_DONE,
	CLAIM_NO_SLOT,
	CLAIM_NO_SCHEDULER,
	CLAIM_NO_MODEL /* it has been replaced or unloaded */
} ClaimOutcome;

static void
fill_slot(LlmSlot *slot, const Submission *submission)
{
	const LlmRequestSpec *spec = submission->spec;

	slot->owner_pid = MyProcPid;
	slot->owner_latch = MyLatch;
	slot->role_id = GetUserId();
	slot->database_id = MyDatabaseId;
	slot->model_idx = spec->model_idx;
	slot->model_generation = spec->model_generation;
	slot->is_batch = spec->is_batch;
	slot->n_prompt = spec->n_prompt;
	slot->max_tokens = spec->params.max_tokens;
	slot->input_bytes = submission->input_bytes;
	slot->deadline_us = submission->deadline_us;
	slot->submitted_at = submission->submitted_at;
	memcpy(slot->adapter, spec->adapter, sizeof(slot->adapter));
}

static bool
model_is_current(const LlmRequestSpec *spec)
{
	const LlmModelEntry *entry = &llm_models[spec->model_idx];

	return entry->is_used && !entry->is_unloading &&
		   entry->generation == spec->model_generation;
}

static ClaimOutcome
try_claim(LlmRequest *request, const Submission *submission)
{
	ClaimOutcome outcome = CLAIM_DONE;
	int32 slot_idx = LLM_NONE;

	if (n_active_requests >= llm_setting_max_requests_per_backend)
		return CLAIM_NO_SLOT;
	llm_scheduler_lock(LW_EXCLUSIVE);
	if (llm_shared->scheduler_pid == 0)
		outcome = CLAIM_NO_SCHEDULER;
	else if (!model_is_current(submission->spec))
		outcome = CLAIM_NO_MODEL;
	else if ((slot_idx = llm_slot_claim()) == LLM_NONE)
		outcome = CLAIM_NO_SLOT;
	else
	{
		fill_slot(&llm_slots[slot_idx], submission);
		request->slot_idx = slot_idx;
		request->slot_generation = llm_slots[slot_idx].generation;
		dlist_push_tail(&active_requests, &request->node);
		n_active_requests++;
		missing_since_us = 0;
	}
	llm_scheduler_unlock();
	return outcome;
}

static void
refuse(void)
{
	bool is_own_limit =
		n_active_requests >= llm_setting_max_requests_per_backend;

	llm_scheduler_lock(LW_EXCLUSIVE);
	llm_shared->counters.n_refused++;
	llm_scheduler_unlock();
	if (is_own_limit)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("too many requests in flight in this session"),
				 errhint("Raise llm_ext.max_requests_per_backend (now %d), or "
						 "set llm_ext.queue_wait to on.",
						 llm_setting_max_requests_per_backend)));
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					errmsg("too many requests in flight"),
					errhint("Raise llm_ext.max_requests (now %d), or set "
							"llm_ext.queue_wait to on.",
							llm_setting_max_requests)));
}

static void
report_no_scheduler(void)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("the llm_ext scheduler is not running"),
					errhint("See the server log for the reason.")));
}

/*
 * Take a slot, waiting for one where that is wanted.  False: the model was
 * replaced or unloaded meanwhile.
 */
static bool
claim_slot(LlmRequest *request, const Submission *submission)
{
	int64 no_scheduler_since_us = 0;

	for (;;)
	{
		int64 now_us = llm_clock_us();
		ClaimOutcome outcome = try_claim(request, submission);

		switch (outcome)
		{
			case CLAIM_DONE:
				return true;
			case CLAIM_NO_MODEL:
				return false;
			case CLAIM_NO_SCHEDULER:
				if (no_scheduler_since_us == 0)
					no_scheduler_since_us = now_us;
				else if (now_us - no_scheduler_since_us >
						 LLM_SCHEDULER_WAIT_MS * INT64CONST(1000))
					report_no_scheduler();
				break;
			case CLAIM_NO_SLOT:
				no_scheduler_since_us = 0;
				collect_all();
				if (try_claim(request, submission) == CLAIM_DONE)
					return true;
				if (!llm_setting_queue_wait)
					refuse();
				break;
		}
		if (submission->deadline_us != 0 && now_us > submission->deadline_us)
			ereport(ERROR,
					(errcode(llm_report_sqlstate(LLM_ERROR_TIMEOUT)),
					 errmsg("request timed out while it waited for room")));
		wait_for_queue(SLOT_WAIT_MS, llm_wait_event_slot());
		check_client();
	}
}

/*
 * Queue the request with as much of its input as fits the ring, then write
 * the rest as the scheduler reads.
 */
static void
send_input(LlmRequest *request, const Submission *submission)
{
	int32 slot_idx = request->slot_idx;
	LlmSlot *slot = &llm_slots[slot_idx];
	Size n_written = llm_ring_write(&slot->input, llm_slot_input(slot_idx),
									submission->input, submission->input_bytes);

	llm_scheduler_lock(LW_EXCLUSIVE);
	llm_slot_enqueue(slot_idx);
	llm_shared->counters.n_requests++;
	llm_scheduler_unlock();
	announce_soon();
	while (n_written < submission->input_bytes)
	{
		LlmSlotState state = llm_slot_state(slot);
		Size n;

		/* it may time out, or lose its scheduler, before it was read */
		if (state == LLM_SLOT_FINISHED || state == LLM_SLOT_FAILED)
			return;
		n = llm_ring_write(&slot->input, llm_slot_input(slot_idx),
						   submission->input + n_written,
						   submission->input_bytes - n_written);
		n_written += n;
		if (n > 0)
			llm_scheduler_wake();
		else
			wait_for_queue(TOKEN_WAIT_MS, llm_wait_event_input());
	}
}

/* The REQUEST message, as ipc_message.h describes it. */
static void
serialize_request(Submission *submission, MemoryContext context)
{
	const LlmRequestSpec *spec = submission->spec;
	LlmWireRequest wire = {
		.params = spec->params,
		.cache_salt = spec->cache_salt,
		.request_class = spec->is_batch ? 1 : 0,
		.tenant_id = GetUserId(),
		.kind = spec->kind,
		.n_scored = spec->n_scored,
		.n_prompt = spec->n_prompt,
		.n_stop_ids = spec->n_stop_ids,
		.n_bias = spec->n_bias,
		.n_grammar_words = spec->n_grammar_words,
	};
	Size prompt_bytes = (Size) spec->n_prompt * sizeof(int32);
	Size stop_bytes = (Size) spec->n_stop_ids * sizeof(int32);
	Size bias_bytes = (Size) spec->n_bias * sizeof(LlmWireBias);
	Size grammar_bytes = (Size) spec->n_grammar_words * sizeof(uint32);
	char *dest;

	submission->input_bytes =
		sizeof(wire) + prompt_bytes + stop_bytes + bias_bytes + grammar_bytes;
	if (submission->input_bytes > LLM_IPC_MAX_FRAME_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("request of %u prompt tokens, %u stop tokens, %u "
						"biases and %u words of grammar is too large",
						spec->n_prompt, spec->n_stop_ids, spec->n_bias,
						spec->n_grammar_words)));
	dest = MemoryContextAllocHuge(context, submission->input_bytes);
	submission->input = dest;
	memcpy(dest, &wire, sizeof(wire));
	dest += sizeof(wire);
	if (prompt_bytes > 0)
		memcpy(dest, spec->prompt_ids, prompt_bytes);
	dest += prompt_bytes;
	if (stop_bytes > 0)
		memcpy(dest, spec->stop_ids, stop_bytes);
	dest += stop_bytes;
	if (bias_bytes > 0)
		memcpy(dest, spec->bias, bias_bytes);
	dest += bias_bytes;
	if (grammar_bytes > 0)
		memcpy(dest, spec->grammar, grammar_bytes);
}

static LlmRequest *
create_request(const LlmRequestSpec *spec)
{
	static bool exit_callback_is_set;
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "llm request", ALLOCSET_SMALL_SIZES);
	LlmRequest *request = MemoryContextAllocZero(context, sizeof(LlmRequest));

	request->context = context;
	request->slot_idx = LLM_NONE;
	request->result.n_prompt = spec->n_prompt;
	request->result.has_logprobs = spec->params.n_logprobs >= 0;
	request->is_generating = spec->kind == LLM_REQUEST_GENERATE;
	request->is_embedding = spec->kind == LLM_REQUEST_EMBED_LAST ||
							spec->kind == LLM_REQUEST_EMBED_MEAN;
	request->on_reset.func = release_on_reset;
	request->on_reset.arg = request;
	MemoryContextRegisterResetCallback(context, &request->on_reset);
	if (!exit_callback_is_set)
	{
		before_shmem_exit(release_on_exit, 0);
		exit_callback_is_set = true;
	}
	return request;
}

bool
llm_request_has_room(void)
{
	bool has_room;

	llm_scheduler_require();
	if (n_active_requests >= llm_setting_max_requests_per_backend)
		return false;
	llm_scheduler_lock(LW_SHARED);
	has_room = llm_shared->n_free_slots > 0;
	llm_scheduler_unlock();
	return has_room;
}

LlmRequest *
llm_request_submit(const LlmRequestSpec *spec)
{
	LlmRequest *request;
	Submission submission = {
		.spec = spec,
		.submitted_at = GetCurrentTimestamp(),
	};

	llm_scheduler_require();
	if (spec->model_idx < 0 || spec->model_idx >= llm_shared->n_models)
		elog(ERROR, "model index %d does not exist", spec->model_idx);
	count_statement_tokens(spec->n_prompt);
	if (spec->timeout_ms > 0)
		submission.deadline_us =
			llm_clock_us() + spec->timeout_ms * INT64CONST(1000);
	request = create_request(spec);
	serialize_request(&submission, request->context);
	if (!claim_slot(request, &submission))
	{
		MemoryContextDelete(request->context);
		return NULL;
	}
	send_input(request, &submission);
	pfree(submission.input);
	return request;
}
