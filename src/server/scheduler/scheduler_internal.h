/*
 * scheduler_internal.h
 *	  The scheduler room's shared memory, and what both sides do with it.
 *
 * One LWLock guards all of it except where a field says otherwise.  Inside a
 * locked section nothing is allocated, logged or raised, so that the lock is
 * never left behind with half-made changes.  No pointers are kept in shared
 * memory but latches, which lie in PGPROC entries: a stale one causes a
 * wakeup too many, never a fault.
 *
 * src/server/scheduler/scheduler_internal.h
 */
#ifndef LLM_SCHEDULER_INTERNAL_H
#define LLM_SCHEDULER_INTERNAL_H

#include "postgres.h"

#include "port/atomics.h"
#include "src/common/ipc/ipc_ring.h"
#include "src/common/util/sha256.h"
#include "src/server/pg_compat.h"
#include "src/server/scheduler/scheduler.h"
#include "src/server/scheduler/scheduler_subsys.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#define LLM_NONE (-1) /* no slot, model or executor */

#define LLM_INPUT_RING_BYTES (16 * 1024)
#define LLM_OUTPUT_RING_BYTES (8 * 1024)
#define LLM_LOAD_OPTIONS_BYTES 2048
#define LLM_FACTS_BYTES 4096
#define LLM_MAX_USAGE_ENTRIES 4096

/* Adapters that the scheduler keeps accounts of; unused ones make room. */
#define LLM_MAX_ADAPTERS 4096

/* How long a backend process waits for a scheduler that is not running. */
#define LLM_SCHEDULER_WAIT_MS 15000

/*
 * A request slot's life.  llm_slot_move makes every step; the name beside an
 * arrow says who calls it: B the backend process that owns the slot, S the
 * scheduler.
 *
 *	FREE -B-> FILLING -B-> QUEUED -S-> ASSIGNED -S-> RUNNING -S-> FINISHED
 *	            |            |           |  ^---S------|  \--S-> FAILED
 *	            B            B,S         B,S          B
 *	            v            v           v            v
 *	          FREE       ABANDONED or FAILED      ABANDONED
 *
 *	FINISHED, FAILED -B-> FREE      ABANDONED -S-> FREE
 *
 * The owner of a slot in each state, that is who may write its other fields:
 * nobody, the backend process, the queue, the scheduler, the scheduler, the
 * backend process, the backend process, the scheduler.
 */
typedef enum LlmSlotState
{
	LLM_SLOT_FREE = 0,	/* in the free list */
	LLM_SLOT_FILLING,	/* taken, being described */
	LLM_SLOT_QUEUED,	/* in a queue; input may still be coming */
	LLM_SLOT_ASSIGNED,	/* has an executor, which has not seen it (yet) */
	LLM_SLOT_RUNNING,	/* the executor has it */
	LLM_SLOT_FINISHED,	/* result complete */
	LLM_SLOT_FAILED,	/* error complete */
	LLM_SLOT_ABANDONED, /* its backend process has given it up */
	LLM_SLOT_STATE_COUNT
} LlmSlotState;

typedef struct LlmSlot
{
	/* Atomic.  state: changed under the lock, read by the owner without. */
	pg_atomic_uint32 state;
	pg_atomic_uint32 n_output;	 /* by the scheduler */
	pg_atomic_uint32 wants_room; /* by the scheduler: output waits for room */

	/*
	 * Bytes without the lock: input from backend process to scheduler while
	 * QUEUED to RUNNING, output the other way.  Reset when the slot is taken.
	 */
	LlmRing input;
	LlmRing output;

	/* Guarded by the lock. */
	uint32 generation; /* counts the uses of the slot */
	int32 next_idx;	   /* in the list that the state says */

	/* Written while FILLING, constant afterwards. */
	int32 owner_pid;
	Latch *owner_latch;
	Oid role_id;
	Oid database_id;
	int32 model_idx;
	uint32 model_generation;
	bool is_batch;
	uint32 n_prompt;
	uint32 max_tokens;
	uint64 input_bytes;				 /* of the whole request message */
	uint8 adapter[LLM_SHA256_BYTES]; /* of its image; zeros: none */
	int64 deadline_us;				 /* monotonic; 0 = none */
	TimestampTz submitted_at;

	/* Written by the scheduler. */
	int32 executor_idx;
	LlmWireFinished finished; /* before FINISHED */
	LlmError error;			  /* before FAILED */
} LlmSlot;

/* A singly linked list of slots through next_idx; add at the tail. */
typedef struct LlmSlotList
{
	int32 head_idx;
	int32 tail_idx;
} LlmSlotList;

typedef enum LlmLoadState
{
	LLM_LOAD_NONE = 0,
	LLM_LOAD_REQUESTED, /* by a backend process or a setting */
	LLM_LOAD_RUNNING,	/* an executor is loading */
	LLM_LOAD_DONE,		/* the requester has to acknowledge */
	LLM_LOAD_FAILED,	/* likewise; load_error says why */
	LLM_LOAD_CANCELLED	/* by the requester; the scheduler clears up */
} LlmLoadState;

/* A name under which a model is, was or will be served. */
typedef struct LlmModelEntry
{
	bool is_used;
	bool is_unloading;	/* found by no one any more */
	bool is_configured; /* named by llm_ext.model, now or before */
	LlmModelState state;
	uint32 generation; /* counts successful loads, over all uses */
	char name[LLM_MODEL_NAME_BYTES];
	char path[MAXPGPATH];
	char image_path[MAXPGPATH];
	char options[LLM_LOAD_OPTIONS_BYTES]; /* JSON object, or empty */
	int32 executor_idx;					  /* LLM_NONE while EMPTY */
	int32 max_model_len;
	int32 n_vocab;
	int32 max_lora_rank;
	TimestampTz loaded_at;
	LlmError error;

	/* a load in progress, which may be a replacement */
	LlmLoadState load_state;
	uint64 load_ticket;		 /* tells one load from the next */
	bool load_is_configured; /* by llm_ext.model: nobody waits */
	char load_path[MAXPGPATH];
	char load_options[LLM_LOAD_OPTIONS_BYTES];
	int32 load_executor_idx;
	LlmError load_error;
} LlmModelEntry;

typedef enum LlmExecutorState
{
	LLM_EXECUTOR_EMPTY = 0,
	LLM_EXECUTOR_STARTING,	  /* LOAD is on its way */
	LLM_EXECUTOR_LOADING,	  /* LOAD is delivered */
	LLM_EXECUTOR_READY,		  /* serves */
	LLM_EXECUTOR_BACKING_OFF, /* dead; started again at a given time */
	LLM_EXECUTOR_STOPPING	  /* asked to exit; its requests are gone */
} LlmExecutorState;

/* What views show of an executor; written by the scheduler. */
typedef struct LlmExecutorEntry
{
	LlmExecutorState state;
	bool is_draining;
	int32 pid; /* 0 = none */
	int32 model_idx;
	char model[LLM_MODEL_NAME_BYTES];
	char device[64];
	char facts[LLM_FACTS_BYTES];
	uint32 n_restarts;
	pg_atomic_uint32 n_in_flight; /* without the lock */
	TimestampTz started_at;
	LlmWireStats stats;
} LlmExecutorEntry;

/* An adapter that requests used; written by the scheduler. */
typedef struct LlmAdapterEntry
{
	uint64 adapter_id; /* 0: the entry is free */
	uint8 digest[LLM_SHA256_BYTES];
	uint32 residency; /* LlmAdapterResidency, as last reported */
	uint64 n_bytes;	  /* likewise */
	uint64 n_requests;
	uint64 n_tokens;
	TimestampTz used_at; /* 0: no request has ended yet */
} LlmAdapterEntry;

#define LLM_SHARED_MAGIC 0x6c6c6d31

typedef struct LlmSchedulerShared
{
	/* Set once. */
	uint32 magic;
	int32 n_slots;
	int32 n_models;
	int32 n_executors;

	/* Guarded by itself. */
	ConditionVariable model_changed; /* broadcast after every change */

	/* Guarded by the lock. */
	int32 scheduler_pid; /* 0: none, or not yet in charge */
	uint32 epoch;		 /* counts schedulers */
	Latch *scheduler_latch;
	TimestampTz scheduler_started_at;
	int32 default_model_idx;
	bool has_model_work; /* a model entry waits for the scheduler */
	uint64 n_load_tickets;
	uint32 n_free_slots;
	int32 free_head_idx;
	LlmSlotList queues[2];		   /* QUEUED or ABANDONED: interactive, batch */
	LlmSlotList abandoned;		   /* ABANDONED after ASSIGNED or RUNNING */
	LlmSchedulerCounters counters; /* the first ten; see scheduler.h */
	bool usage_is_loaded;		   /* by the scheduler, from its file */
	int32 n_usage_entries;		   /* of llm_usage */
} LlmSchedulerShared;

/* -- scheduler_shmem.c -- */

/* NULL where the library was not preloaded. */
extern LlmSchedulerShared *llm_shared;
extern LWLock *llm_shared_lock;
extern LlmSlot *llm_slots;				/* [n_slots] */
extern LlmModelEntry *llm_models;		/* [n_models] */
extern LlmExecutorEntry *llm_executors; /* [n_executors] */
extern LlmAdapterEntry *llm_adapters;	/* [LLM_MAX_ADAPTERS] */

/*
 * [LLM_MAX_USAGE_ENTRIES] written by the scheduler, under the lock.
 */
extern LlmUsageEntry *llm_usage;

/* Set by _PG_init, and inherited by all processes. */
extern LlmSchedulerTurn llm_scheduler_other_turn;

extern void llm_scheduler_lock(LWLockMode mode);

/* Also writes the log lines of slots moved since llm_scheduler_lock. */
extern void llm_scheduler_unlock(void);

/* Wait events, by what is waited for. */
extern uint32 llm_wait_event_main(void);
extern uint32 llm_wait_event_tokens(void);
extern uint32 llm_wait_event_slot(void);
extern uint32 llm_wait_event_input(void);
extern uint32 llm_wait_event_model(void);

/* -- slot_table.c; all of it under the lock -- */

extern const char *llm_slot_state_name(LlmSlotState state);
extern void llm_slot_move(int32 slot_idx, LlmSlotState to);

static inline LlmSlotState
llm_slot_state(const LlmSlot *slot)
{
	return (LlmSlotState) pg_atomic_read_u32(
		unconstify(pg_atomic_uint32 *, &slot->state));
}

/* FREE to FILLING; LLM_NONE where no slot is free. */
extern int32 llm_slot_claim(void);

/* FILLING, FINISHED, FAILED or ABANDONED to FREE. */
extern void llm_slot_free(int32 slot_idx);

/* FILLING to QUEUED. */
extern void llm_slot_enqueue(int32 slot_idx);

/*
 * Give a slot up, as its owner, whatever its state is.  Returns true where the
 * scheduler has to be woken.
 */
extern bool llm_slot_abandon(int32 slot_idx);

extern void llm_slot_list_push(LlmSlotList *list, int32 slot_idx);
extern int32 llm_slot_list_pop(LlmSlotList *list);

/*
 * After the scheduler's end: fail what was in flight, free what was given up,
 * empty the lists.
 */
extern void llm_slots_fail_all(const LlmError *why);

/* Without the lock: wake all owners of failed slots. */
extern void llm_slots_wake_failed(void);

extern char *llm_slot_input(int32 slot_idx);
extern char *llm_slot_output(int32 slot_idx);

/* Write slot moves that happened under the lock to the log, at DEBUG3. */
extern void llm_slot_log_moves(void);

/* -- load_options.c -- */

/*
 * Check an object of executor options and write it in its shortest form.
 */
extern bool llm_load_options_normalize(const char *json, char *dest,
									   size_t size, LlmError *err);

/*
 * The LOAD message: settings, overridden by options, and the two paths.
 * Free with llm_load_options_free.
 */
extern char *llm_load_options_compose(const char *path, const char *image_path,
									  const char *options, LlmError *err);
extern void llm_load_options_free(char *json);

#endif /* LLM_SCHEDULER_INTERNAL_H */
