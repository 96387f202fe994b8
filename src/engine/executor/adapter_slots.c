/*
 * adapter_slots.c
 *	  Which adapters are known, on the host and in slots, and who waits for
 *	  them.
 *
 * src/engine/executor/adapter_slots.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/clock.h"
#include "src/engine/executor/adapter_loader.h"
#include "src/engine/executor/adapter_slots.h"

/* Kept slots change hands for who has waited so long. */
#define TURN_US INT64_C(1000000)

/* A copy under way is looked after so often where no step runs. */
#define COPY_POLL_MS 1

#define N_BUCKETS 1024

typedef enum EntryState
{
	ENTRY_KNOWN,
	ENTRY_LOADING,
	ENTRY_ON_HOST,
	ENTRY_COPYING, /* to its slot */
	ENTRY_READY	   /* in its slot */
} EntryState;

typedef struct LlmAdapterEntry Entry;

struct LlmAdapterEntry
{
	Entry *next; /* in its bucket */
	Entry *prev_used;
	Entry *next_used; /* by last use, the longest ago first */
	uint64_t adapter_id;
	char *path;
	EntryState state;
	bool is_pinned;
	bool is_forgotten; /* gone with its last request */
	bool is_draining;  /* its slot is promised to another one */
	int32_t slot_idx;  /* COPYING, READY; otherwise -1 */
	int32_t n_active;  /* requests in the planner */
	int64_t wanted_us; /* ON_HOST: since when a slot is wanted; 0 = not */
	int64_t given_us;  /* its slot */
	LlmExecRequest *first_parked;
	LlmExecRequest *last_parked;
	LlmAdapterLoad load;
};

struct LlmAdapterSlots
{
	Entry *buckets[N_BUCKETS];
	Entry *first_used;
	Entry *last_used;
	LlmAdapterLoader *loader;
	int32_t n_slots;
	Entry **holders;	 /* [n_slots] */
	char *memory;		 /* device; NULL: host images are used as they are */
	size_t slot_bytes;	 /* of memory */
	const void **images; /* [n_slots] of the holders, on the device */
	int32_t *token_lora; /* [max_num_batched_tokens] */
	Entry *copying;		 /* the one, or NULL */
	int32_t n_on_host;	 /* images */
	int32_t max_on_host;
};

/* ------------------------------------------------------------------------
 * Entries
 * ------------------------------------------------------------------------
 */
static Entry **
bucket_of(LlmAdapterSlots *slots, uint64_t adapter_id)
{
	return &slots->buckets[adapter_id % N_BUCKETS];
}

static Entry *
find_entry(LlmAdapterSlots *slots, uint64_t adapter_id)
{
	Entry *entry = *bucket_of(slots, adapter_id);

	while (entry != NULL && entry->adapter_id != adapter_id)
		entry = entry->next;
	return entry;
}

static void
unlink_used(LlmAdapterSlots *slots, Entry *entry)
{
	if (entry->prev_used != NULL)
		entry->prev_used->next_used = entry->next_used;
	else
		slots->first_used = entry->next_used;
	if (entry->next_used != NULL)
		entry->next_used->prev_used = entry->prev_used;
	else
		slots->last_used = entry->prev_used;
}

static void
link_used(LlmAdapterSlots *slots, Entry *entry)
{
	entry->prev_used = slots->last_used;
	entry->next_used = NULL;
	if (slots->last_used != NULL)
		slots->last_used->next_used = entry;
	else
		slots->first_used = entry;
	slots->last_used = entry;
}

static void
note_use(LlmAdapterSlots *slots, Entry *entry)
{
	unlink_used(slots, entry);
	link_used(slots, entry);
}

static void
report_state(LlmExecutor *executor, const Entry *entry, bool has_failed)
{
	static const LlmAdapterResidency residency[] = {
		[ENTRY_KNOWN] = LLM_ADAPTER_ABSENT,
		[ENTRY_LOADING] = LLM_ADAPTER_LOADING,
		[ENTRY_ON_HOST] = LLM_ADAPTER_ON_HOST,
		[ENTRY_COPYING] = LLM_ADAPTER_ON_HOST,
		[ENTRY_READY] = LLM_ADAPTER_ON_DEVICE,
	};
	LlmWireAdapterState state = {
		.adapter_id = entry->adapter_id,
		.n_bytes = entry->load.adapter.n_bytes,
		.residency = has_failed ? LLM_ADAPTER_FAILED : residency[entry->state],
		.max_rank = (uint32_t) entry->load.adapter.max_rank,
	};

	llm_executor_send(executor, LLM_MESSAGE_ADAPTER_STATE, 0, &state,
					  sizeof(state));
}

/* The one place where states change. */
static void
set_state(LlmExecutor *executor, Entry *entry, EntryState state)
{
	assert((entry->slot_idx >= 0) ==
		   (state == ENTRY_COPYING || state == ENTRY_READY));
	entry->state = state;
	report_state(executor, entry, false);
}

/* Nobody uses or wants it. */
static bool
is_idle(const Entry *entry)
{
	return entry->n_active == 0 && entry->first_parked == NULL;
}

static void
drop_from_slot(LlmExecutor *executor, Entry *entry)
{
	LlmAdapterSlots *slots = executor->adapters;

	assert(entry->state == ENTRY_READY && entry->n_active == 0);
	slots->holders[entry->slot_idx] = NULL;
	slots->images[entry->slot_idx] = NULL;
	entry->slot_idx = -1;
	entry->is_draining = false;
	entry->wanted_us = 0;
	set_state(executor, entry, ENTRY_ON_HOST);
}

static void
drop_from_host(LlmExecutor *executor, Entry *entry)
{
	assert(entry->state == ENTRY_ON_HOST);
	llm_model_adapter_free(executor->model, &entry->load.adapter);
	executor->adapters->n_on_host--;
	entry->wanted_us = 0;
	set_state(executor, entry, ENTRY_KNOWN);
}

static void
free_entry(Entry *entry)
{
	free(entry->path);
	free(entry);
}

/* A forgotten entry goes as soon as nothing holds it. */
static void
let_go(LlmExecutor *executor, Entry *entry)
{
	LlmAdapterSlots *slots = executor->adapters;
	Entry **link = bucket_of(slots, entry->adapter_id);

	if (!entry->is_forgotten || !is_idle(entry) ||
		entry->state == ENTRY_LOADING || entry->state == ENTRY_COPYING)
		return;
	if (entry->state == ENTRY_READY)
		drop_from_slot(executor, entry);
	if (entry->state == ENTRY_ON_HOST)
		drop_from_host(executor, entry);
	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	unlink_used(slots, entry);
	free_entry(entry);
}

static void
start_load(LlmExecutor *executor, Entry *entry)
{
	assert(entry->state == ENTRY_KNOWN);
	entry->load = (LlmAdapterLoad){ .path = entry->path, .owner = entry };
	set_state(executor, entry, ENTRY_LOADING);
	llm_adapter_loader_add(executor->adapters->loader, &entry->load);
}

/* ------------------------------------------------------------------------
 * Parked requests
 * ------------------------------------------------------------------------
 */
static void
park(Entry *entry, LlmExecRequest *request)
{
	request->is_parked = true;
	request->next_parked = NULL;
	request->prev_parked = entry->last_parked;
	if (entry->last_parked != NULL)
		entry->last_parked->next_parked = request;
	else
		entry->first_parked = request;
	entry->last_parked = request;
}

static void
unpark(Entry *entry, LlmExecRequest *request)
{
	assert(request->is_parked);
	if (request->prev_parked != NULL)
		request->prev_parked->next_parked = request->next_parked;
	else
		entry->first_parked = request->next_parked;
	if (request->next_parked != NULL)
		request->next_parked->prev_parked = request->prev_parked;
	else
		entry->last_parked = request->prev_parked;
	request->is_parked = false;
}

/* Rows of statements beyond what a step has room for keep no slot. */
static bool
may_start(const LlmExecutor *executor, const Entry *entry,
		  const LlmWireRequest *wire)
{
	return entry->state == ENTRY_READY && !entry->is_draining &&
		   (wire->request_class == 0 ||
			entry->n_active < executor->max_num_seqs);
}

static void
start_parked(LlmExecutor *executor, Entry *entry)
{
	LlmExecRequest *request;

	/* it stays, should the last request fail at once */
	entry->n_active++;
	while ((request = entry->first_parked) != NULL &&
		   may_start(executor, entry, request->message))
	{
		LlmWireRequest *message = request->message;
		size_t n_bytes = request->message_bytes;

		unpark(entry, request);
		entry->n_active++;
		request->message = NULL;
		llm_executor_start_request(executor, request, message, n_bytes);
		free(message);
	}
	entry->n_active--;
	let_go(executor, entry);
}

static void
fail_parked(LlmExecutor *executor, Entry *entry, const LlmError *why)
{
	entry->n_active++;
	while (entry->first_parked != NULL)
		llm_executor_fail_request(executor, entry->first_parked, why);
	entry->n_active--;
}

/* ------------------------------------------------------------------------
 * Host and slots
 * ------------------------------------------------------------------------
 */

/* Images that nobody needs go, the one used longest ago first. */
static void
trim_host(LlmExecutor *executor)
{
	LlmAdapterSlots *slots = executor->adapters;

	for (Entry *entry = slots->first_used;
		 entry != NULL && slots->n_on_host > slots->max_on_host;
		 entry = entry->next_used)
	{
		if (entry->state == ENTRY_ON_HOST && is_idle(entry) &&
			!entry->is_pinned)
			drop_from_host(executor, entry);
	}
}

static void
take_loaded(LlmExecutor *executor, int64_t now_us)
{
	LlmAdapterSlots *slots = executor->adapters;
	LlmAdapterLoad *load;

	while ((load = llm_adapter_loader_take(slots->loader)) != NULL)
	{
		Entry *entry = load->owner;

		assert(entry->state == ENTRY_LOADING);
		if (load->ok)
		{
			slots->n_on_host++;
			set_state(executor, entry, ENTRY_ON_HOST);
			if (entry->first_parked != NULL || entry->is_pinned)
				entry->wanted_us = now_us;
		}
		else
		{
			/* who asks again may find that the file is there now */
			entry->state = ENTRY_KNOWN;
			report_state(executor, entry, true);
			fail_parked(executor, entry, &load->err);
		}
		let_go(executor, entry);
	}
}

/* The one that has waited for a slot longest. */
static Entry *
first_wanted(const LlmAdapterSlots *slots)
{
	Entry *first = NULL;

	for (Entry *entry = slots->first_used; entry != NULL;
		 entry = entry->next_used)
	{
		if (entry->state == ENTRY_ON_HOST && entry->wanted_us > 0 &&
			(first == NULL || entry->wanted_us < first->wanted_us))
			first = entry;
	}
	return first;
}

/* A free slot, or that of whom nobody needs; -1: all are kept. */
static int32_t
find_slot(LlmExecutor *executor)
{
	LlmAdapterSlots *slots = executor->adapters;
	Entry *victim = NULL;
	int32_t slot_idx;

	for (int32_t i = 0; i < slots->n_slots; i++)
	{
		if (slots->holders[i] == NULL)
			return i;
	}
	for (Entry *entry = slots->first_used; entry != NULL;
		 entry = entry->next_used)
	{
		if (entry->state != ENTRY_READY || entry->n_active > 0 ||
			(entry->first_parked != NULL && !entry->is_draining))
			continue;
		if (victim == NULL || (victim->is_pinned && !entry->is_pinned))
			victim = entry;
	}
	if (victim == NULL)
		return -1;
	slot_idx = victim->slot_idx;
	drop_from_slot(executor, victim);
	if (victim->first_parked != NULL)
		victim->wanted_us = llm_clock_us();
	return slot_idx;
}

/* All slots are kept: whose was given longest ago takes nobody new. */
static void
drain_one(LlmAdapterSlots *slots)
{
	Entry *oldest = NULL;

	for (int32_t i = 0; i < slots->n_slots; i++)
	{
		Entry *entry = slots->holders[i];

		if (entry->is_draining)
			return;
		if (entry->state == ENTRY_READY &&
			(oldest == NULL || entry->given_us < oldest->given_us))
			oldest = entry;
	}
	if (oldest != NULL)
		oldest->is_draining = true;
}

static void
become_ready(LlmExecutor *executor, Entry *entry, int64_t now_us)
{
	entry->given_us = now_us;
	entry->wanted_us = 0;
	set_state(executor, entry, ENTRY_READY);
	start_parked(executor, entry);
}

/* Put it into a slot, at once or by a copy that is now under way. */
static bool
give_slot(LlmExecutor *executor, Entry *entry, int32_t slot_idx, int64_t now_us,
		  LlmError *err)
{
	LlmAdapterSlots *slots = executor->adapters;
	const LlmModelAdapter *adapter = &entry->load.adapter;
	const LlmComputeOps *ops = executor->compute->ops;

	entry->slot_idx = slot_idx;
	slots->holders[slot_idx] = entry;
	if (slots->memory == NULL)
	{
		slots->images[slot_idx] = adapter->image;
		become_ready(executor, entry, now_us);
		return true;
	}
	assert(adapter->n_bytes <= slots->slot_bytes && slots->copying == NULL);
	slots->images[slot_idx] =
		slots->memory + (size_t) slot_idx * slots->slot_bytes;
	slots->copying = entry;
	set_state(executor, entry, ENTRY_COPYING);
	return ops->copy_aside(executor->compute, (void *) slots->images[slot_idx],
						   adapter->image, adapter->n_bytes, err);
}

static bool
finish_copy(LlmExecutor *executor, int64_t now_us, LlmError *err)
{
	LlmAdapterSlots *slots = executor->adapters;
	Entry *entry = slots->copying;
	bool is_done = false;

	if (entry == NULL)
		return true;
	if (!executor->compute->ops->copy_aside_done(executor->compute, &is_done,
												 err))
		return false;
	if (is_done)
	{
		slots->copying = NULL;
		become_ready(executor, entry, now_us);
	}
	return true;
}

static bool
move_adapters(LlmExecutor *executor, int64_t now_us, LlmError *err)
{
	LlmAdapterSlots *slots = executor->adapters;
	Entry *wanted;

	if (!finish_copy(executor, now_us, err))
		return false;
	while (slots->copying == NULL && (wanted = first_wanted(slots)) != NULL)
	{
		int32_t slot_idx = find_slot(executor);

		if (slot_idx < 0)
		{
			if (wanted->first_parked == NULL)
				wanted->wanted_us = 0; /* pinned: it was worth a try */
			else if (now_us - wanted->wanted_us >= TURN_US)
				drain_one(slots);
			return true;
		}
		if (!give_slot(executor, wanted, slot_idx, now_us, err))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * The interface
 * ------------------------------------------------------------------------
 */
int64_t
llm_adapter_slots_bytes(const LlmModelConfig *config,
						const LlmExecutorOptions *options)
{
	const LlmLoraFormat format = { LLM_DTYPE_BF16, false };

	if (options->max_loras == 0)
		return 0;
	return (int64_t) options->max_loras *
		   (int64_t) llm_model_adapter_max_bytes(config, &format,
												 options->max_lora_rank);
}

bool
llm_adapter_slots_create(LlmExecutor *executor, LlmError *err)
{
	const LlmExecutorOptions *options = &executor->options;
	const LlmComputeOps *ops = executor->compute->ops;
	size_t n_tokens = (size_t) executor->max_num_batched_tokens;
	size_t n_slots = (size_t) options->max_loras;
	LlmAdapterSlots *slots;

	if (n_slots == 0)
		return true;
	slots = calloc(1, sizeof(*slots));
	executor->adapters = slots;
	if (slots == NULL)
		return llm_error_no_memory(err, sizeof(*slots), "adapters");
	slots->n_slots = options->max_loras;
	slots->max_on_host = options->max_cpu_loras > options->max_loras
							 ? options->max_cpu_loras
							 : 4 * options->max_loras;
	slots->holders = calloc(n_slots, sizeof(*slots->holders));
	slots->images = calloc(n_slots, sizeof(*slots->images));
	slots->token_lora = malloc(n_tokens * sizeof(int32_t));
	if (slots->holders == NULL || slots->images == NULL ||
		slots->token_lora == NULL)
		return llm_error_no_memory(err, n_tokens * sizeof(int32_t), "adapters");
	if (ops->copy_aside != NULL)
	{
		slots->slot_bytes = llm_model_adapter_max_bytes(
			&executor->config, &executor->compute->lora_format,
			options->max_lora_rank);
		slots->memory =
			ops->alloc(executor->compute, n_slots * slots->slot_bytes,
					   "the slots of adapters", err);
		if (slots->memory == NULL)
			return false;
	}
	slots->loader =
		llm_adapter_loader_create(executor->model, options->max_lora_rank, err);
	return slots->loader != NULL;
}

void
llm_adapter_slots_free(LlmExecutor *executor)
{
	LlmAdapterSlots *slots = executor->adapters;
	Entry *entry;

	if (slots == NULL)
		return;
	llm_adapter_loader_free(slots->loader);
	while ((entry = slots->first_used) != NULL)
	{
		unlink_used(slots, entry);
		/* also what was loaded and not taken any more */
		llm_model_adapter_free(executor->model, &entry->load.adapter);
		free_entry(entry);
	}
	if (slots->memory != NULL)
		executor->compute->ops->free(executor->compute, slots->memory);
	free(slots->holders);
	free(slots->images);
	free(slots->token_lora);
	free(slots);
	executor->adapters = NULL;
}

static Entry *
add_entry(LlmAdapterSlots *slots, uint64_t adapter_id, LlmError *err)
{
	Entry **bucket = bucket_of(slots, adapter_id);
	Entry *entry = calloc(1, sizeof(*entry));

	if (entry == NULL)
	{
		llm_error_no_memory(err, sizeof(*entry), "an adapter");
		return NULL;
	}
	entry->adapter_id = adapter_id;
	entry->slot_idx = -1;
	entry->next = *bucket;
	*bucket = entry;
	link_used(slots, entry);
	return entry;
}

bool
llm_adapter_slots_announce(LlmExecutor *executor, const LlmWireAdapter *wire,
						   size_t n_bytes, LlmError *err)
{
	LlmAdapterSlots *slots = executor->adapters;
	Entry *entry;
	char *path;

	if (n_bytes < sizeof(*wire) || wire->adapter_id == 0 ||
		wire->n_path_bytes == 0 ||
		n_bytes != sizeof(*wire) + wire->n_path_bytes)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "adapter message of %zu bytes makes no sense",
							 n_bytes);
	/* requests for it will be refused */
	if (slots == NULL)
		return true;
	path = strndup((const char *) (wire + 1), wire->n_path_bytes);
	if (path == NULL)
		return llm_error_no_memory(err, wire->n_path_bytes, "an adapter");
	entry = find_entry(slots, wire->adapter_id);
	if (entry == NULL)
		entry = add_entry(slots, wire->adapter_id, err);
	if (entry == NULL)
	{
		free(path);
		return false;
	}
	entry->is_forgotten = false;
	entry->is_pinned = wire->is_pinned != 0;
	/* the loader may be reading the old one, which says the same */
	if (entry->state == ENTRY_LOADING)
		free(path);
	else
	{
		free(entry->path);
		entry->path = path;
	}
	if (entry->is_pinned && entry->state == ENTRY_KNOWN)
		start_load(executor, entry);
	return true;
}

bool
llm_adapter_slots_forget(LlmExecutor *executor, const LlmWireAdapter *wire,
						 size_t n_bytes, LlmError *err)
{
	Entry *entry;

	if (n_bytes != sizeof(*wire))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "adapter message of %zu bytes makes no sense",
							 n_bytes);
	if (executor->adapters == NULL)
		return true;
	entry = find_entry(executor->adapters, wire->adapter_id);
	if (entry == NULL)
		return true;
	entry->is_forgotten = true;
	entry->is_pinned = false;
	let_go(executor, entry);
	return true;
}

bool
llm_adapter_slots_enter(LlmExecutor *executor, LlmExecRequest *request,
						const LlmWireRequest *wire, size_t n_bytes,
						bool *is_ready, LlmError *err)
{
	LlmAdapterSlots *slots = executor->adapters;
	Entry *entry = NULL;

	*is_ready = wire->adapter_id == 0;
	if (*is_ready)
		return true;
	if (slots == NULL)
	{
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "the model was loaded without room for adapters");
		return llm_error_hint(err, "Set llm_ext.max_loras above 0 and load the "
								   "model again.");
	}
	entry = find_entry(slots, wire->adapter_id);
	if (entry == NULL)
		return llm_error_set(err, LLM_ERROR_NOT_FOUND,
							 "adapter %llu is not known to the executor",
							 (unsigned long long) wire->adapter_id);
	note_use(slots, entry);
	*is_ready = may_start(executor, entry, wire);
	if (!*is_ready)
	{
		request->message = malloc(n_bytes);
		if (request->message == NULL)
			return llm_error_no_memory(err, n_bytes, "a waiting request");
		memcpy(request->message, wire, n_bytes);
		request->message_bytes = n_bytes;
		park(entry, request);
	}
	else
		entry->n_active++;
	request->adapter = entry;
	if (entry->state == ENTRY_KNOWN)
		start_load(executor, entry);
	else if (entry->state == ENTRY_ON_HOST && entry->wanted_us == 0)
		entry->wanted_us = llm_clock_us();
	return true;
}

void
llm_adapter_slots_leave(LlmExecutor *executor, LlmExecRequest *request)
{
	Entry *entry = request->adapter;

	if (entry == NULL)
		return;
	request->adapter = NULL;
	free(request->message);
	request->message = NULL;
	if (request->is_parked)
		unpark(entry, request);
	else
	{
		assert(entry->n_active > 0);
		entry->n_active--;
	}
	/* nobody is left who wanted a slot */
	if (entry->state == ENTRY_ON_HOST && entry->first_parked == NULL)
		entry->wanted_us = 0;
	let_go(executor, entry);
}

void
llm_adapter_slots_turn(LlmExecutor *executor, int64_t now_us)
{
	LlmAdapterSlots *slots = executor->adapters;
	LlmError err;

	if (slots == NULL)
		return;
	take_loaded(executor, now_us);
	if (!move_adapters(executor, now_us, &err))
		llm_executor_give_up(executor, &err);
	trim_host(executor);
	for (int32_t i = 0; i < slots->n_slots; i++)
	{
		Entry *entry = slots->holders[i];

		if (entry != NULL && entry->first_parked != NULL)
			start_parked(executor, entry);
	}
}

int
llm_adapter_slots_fd(const LlmExecutor *executor)
{
	return executor->adapters == NULL
			   ? -1
			   : llm_adapter_loader_fd(executor->adapters->loader);
}

int
llm_adapter_slots_timeout(const LlmExecutor *executor)
{
	return executor->adapters != NULL && executor->adapters->copying != NULL
			   ? COPY_POLL_MS
			   : -1;
}

void
llm_adapter_slots_fill_step(const LlmExecutor *executor,
							const LlmPlannedStep *step, LlmStepInputs *host)
{
	LlmAdapterSlots *slots = executor->adapters;
	bool has_adapters = false;

	if (slots == NULL)
		return;
	for (int32_t s = 0; s < step->n_seqs; s++)
	{
		const LlmPlannedSequence *planned = &step->sequences[s];
		const LlmExecRequest *request = llm_sequence_owner(planned->sequence);
		const Entry *entry = request->adapter;

		assert(entry == NULL || entry->state == ENTRY_READY);
		has_adapters |= entry != NULL;
		for (int32_t i = 0; i < planned->n_tokens; i++)
			slots->token_lora[planned->first_token + i] =
				entry == NULL ? -1 : entry->slot_idx;
	}
	if (!has_adapters)
		return;
	host->n_loras = slots->n_slots;
	host->loras = slots->images;
	host->token_lora = slots->token_lora;
}
