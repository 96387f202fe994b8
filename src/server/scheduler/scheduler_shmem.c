/*
 * scheduler_shmem.c
 *	  Shared memory of the scheduler room: size, layout, start.
 *
 * One piece of the main segment, sized by llm_ext.max_requests and
 * llm_ext.max_models, holds a header, the slots, the models, the executors,
 * the adapters, the accounts and the rings, in this order.  The startup hook
 * runs again after a crash restart of the server, in a postmaster whose static
 * variables still point into the old segment: everything is set anew each
 * time.
 *
 * src/server/scheduler/scheduler_shmem.c
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "src/server/scheduler/scheduler_internal.h"
#include "src/server/scheduler/scheduler_subsys.h"
#include "src/server/settings.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#define TRANCHE_NAME "llm_ext"

LlmSchedulerShared *llm_shared;
LWLock *llm_shared_lock;
LlmSlot *llm_slots;
LlmModelEntry *llm_models;
LlmExecutorEntry *llm_executors;
LlmAdapterEntry *llm_adapters;
LlmUsageEntry *llm_usage;

LlmSchedulerTurn llm_scheduler_other_turn;

static char *rings; /* [n_slots] pairs of input and output */

static shmem_request_hook_type previous_request_hook;
static shmem_startup_hook_type previous_startup_hook;

#define RING_PAIR_BYTES (LLM_INPUT_RING_BYTES + LLM_OUTPUT_RING_BYTES)

/* Where each part begins; the last member is the size of all. */
typedef struct Layout
{
	int32 n_slots;
	int32 n_models;
	int32 n_executors;
	Size slots_off;
	Size models_off;
	Size executors_off;
	Size adapters_off;
	Size usage_off;
	Size rings_off;
	Size size;
} Layout;

static Layout
compute_layout(void)
{
	Layout layout = {
		.n_slots = llm_setting_max_requests,
		.n_models = llm_setting_max_models,
		/* while a model is replaced, it has two */
		.n_executors = llm_setting_max_models * 2,
	};

	layout.slots_off = MAXALIGN(sizeof(LlmSchedulerShared));
	layout.models_off = MAXALIGN(
		add_size(layout.slots_off, mul_size(layout.n_slots, sizeof(LlmSlot))));
	layout.executors_off = MAXALIGN(add_size(
		layout.models_off, mul_size(layout.n_models, sizeof(LlmModelEntry))));
	layout.adapters_off = MAXALIGN(
		add_size(layout.executors_off,
				 mul_size(layout.n_executors, sizeof(LlmExecutorEntry))));
	layout.usage_off = MAXALIGN(add_size(
		layout.adapters_off, LLM_MAX_ADAPTERS * sizeof(LlmAdapterEntry)));
	layout.rings_off = MAXALIGN(add_size(
		layout.usage_off, LLM_MAX_USAGE_ENTRIES * sizeof(LlmUsageEntry)));
	layout.size =
		add_size(layout.rings_off, mul_size(layout.n_slots, RING_PAIR_BYTES));
	return layout;
}

static void
request_shmem(void)
{
	if (previous_request_hook != NULL)
		previous_request_hook();
	RequestAddinShmemSpace(compute_layout().size);
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

static void
init_slots(void)
{
	for (int32 i = 0; i < llm_shared->n_slots; i++)
	{
		LlmSlot *slot = &llm_slots[i];

		pg_atomic_init_u32(&slot->state, LLM_SLOT_FREE);
		pg_atomic_init_u32(&slot->n_output, 0);
		pg_atomic_init_u32(&slot->wants_room, 0);
		llm_ring_init(&slot->input, LLM_INPUT_RING_BYTES);
		llm_ring_init(&slot->output, LLM_OUTPUT_RING_BYTES);
		slot->next_idx = i + 1 < llm_shared->n_slots ? i + 1 : LLM_NONE;
	}
	llm_shared->free_head_idx = 0;
	llm_shared->n_free_slots = (uint32) llm_shared->n_slots;
}

static void
init_shared(const Layout *layout)
{
	/* the rings need no initialization: nothing is read before it is written */
	memset(llm_shared, 0, layout->rings_off);
	llm_shared->magic = LLM_SHARED_MAGIC;
	llm_shared->n_slots = layout->n_slots;
	llm_shared->n_models = layout->n_models;
	llm_shared->n_executors = layout->n_executors;
	ConditionVariableInit(&llm_shared->model_changed);
	llm_shared->default_model_idx = LLM_NONE;
	for (int i = 0; i < 2; i++)
		llm_shared->queues[i] = (LlmSlotList){ LLM_NONE, LLM_NONE };
	llm_shared->abandoned = (LlmSlotList){ LLM_NONE, LLM_NONE };
	init_slots();
	for (int32 i = 0; i < layout->n_models; i++)
	{
		llm_models[i].executor_idx = LLM_NONE;
		llm_models[i].load_executor_idx = LLM_NONE;
	}
	for (int32 i = 0; i < layout->n_executors; i++)
	{
		llm_executors[i].model_idx = LLM_NONE;
		pg_atomic_init_u32(&llm_executors[i].n_in_flight, 0);
	}
}

static void
startup_shmem(void)
{
	Layout layout = compute_layout();
	bool found;
	char *base;

	if (previous_startup_hook != NULL)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	base = ShmemInitStruct("llm_ext scheduler", layout.size, &found);
	llm_shared = (LlmSchedulerShared *) base;
	llm_shared_lock = &GetNamedLWLockTranche(TRANCHE_NAME)[0].lock;
	llm_slots = (LlmSlot *) (base + layout.slots_off);
	llm_models = (LlmModelEntry *) (base + layout.models_off);
	llm_executors = (LlmExecutorEntry *) (base + layout.executors_off);
	llm_adapters = (LlmAdapterEntry *) (base + layout.adapters_off);
	llm_usage = (LlmUsageEntry *) (base + layout.usage_off);
	rings = base + layout.rings_off;
	if (!found)
		init_shared(&layout);
	LWLockRelease(AddinShmemInitLock);
	Assert(llm_shared->magic == LLM_SHARED_MAGIC);
}

static void
register_worker(void)
{
	BackgroundWorker worker = { 0 };

	/* no database connection: it must not hold up anything in any database */
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "llm_ext", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "llm_scheduler_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "llm_ext scheduler", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "llm_ext scheduler", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

void
llm_scheduler_init(LlmSchedulerTurn other_turn)
{
	llm_scheduler_other_turn = other_turn;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	register_worker();
}

void
llm_scheduler_require(void)
{
	if (llm_shared != NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("llm_ext is not in shared_preload_libraries"),
			 errhint("Add llm_ext to shared_preload_libraries and restart the "
					 "server.")));
}

void
llm_scheduler_lock(LWLockMode mode)
{
	LWLockAcquire(llm_shared_lock, mode);
}

void
llm_scheduler_unlock(void)
{
	LWLockRelease(llm_shared_lock);
	llm_slot_log_moves();
}

void
llm_scheduler_wake(void)
{
	Latch *latch = llm_shared->scheduler_latch;

	/* read without the lock: a stale latch is woken in vain */
	if (latch != NULL)
		SetLatch(latch);
}

char *
llm_slot_input(int32 slot_idx)
{
	return rings + (Size) slot_idx * RING_PAIR_BYTES;
}

char *
llm_slot_output(int32 slot_idx)
{
	return llm_slot_input(slot_idx) + LLM_INPUT_RING_BYTES;
}

/* -- wait events -- */

uint32
llm_wait_event_main(void)
{
	static uint32 cache;

	return llm_compat_wait_event(&cache, "LlmSchedulerMain");
}

uint32
llm_wait_event_tokens(void)
{
	static uint32 cache;

	return llm_compat_wait_event(&cache, "LlmTokens");
}

uint32
llm_wait_event_slot(void)
{
	static uint32 cache;

	return llm_compat_wait_event(&cache, "LlmRequestSlot");
}

uint32
llm_wait_event_input(void)
{
	static uint32 cache;

	return llm_compat_wait_event(&cache, "LlmRequestInput");
}

uint32
llm_wait_event_model(void)
{
	static uint32 cache;

	return llm_compat_wait_event(&cache, "LlmModelLoad");
}
