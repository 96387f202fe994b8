/*
 * scheduler_process.h
 *	  The scheduler worker's own memory: requests in its care and executors.
 *
 * Nothing here is shared.  dispatch.c moves requests between executors and
 * slots, executor_supervisor.c starts, watches and ends processes,
 * model_table.c decides which executor serves which name; scheduler_main.c
 * calls them once per turn.
 *
 * src/server/scheduler/scheduler_process.h
 */
#ifndef LLM_SCHEDULER_PROCESS_H
#define LLM_SCHEDULER_PROCESS_H

#include "postgres.h"

#include "lib/ilist.h"
#include "src/common/ipc/ipc_channel.h"
#include "src/server/scheduler/scheduler_internal.h"

/*
 * Where a request in the scheduler's care is; each phase has its list.
 *
 *	COLLECTING: its input is still coming in (list "collecting")
 *	WAITING: complete, not yet sent (the executor's "waiting", by class)
 *	SUSPECT: was being served when its executor died; to be tried alone
 *			 (the executor's "suspects")
 *	SENT: the executor has it (the executor's "sent")
 *	DONE: ended, but the slot's ring has no room for all output yet
 *			 (list "stalled" only)
 */
typedef enum LlmRecordPhase
{
	LLM_RECORD_COLLECTING,
	LLM_RECORD_WAITING,
	LLM_RECORD_SUSPECT,
	LLM_RECORD_SENT,
	LLM_RECORD_DONE
} LlmRecordPhase;

typedef struct LlmExecutor LlmExecutor;

/* A request in the scheduler's care. */
typedef struct LlmRecord
{
	uint64 request_id; /* hash key; never reused */
	LlmRecordPhase phase;
	dlist_node node;	   /* in the phase's list; not in DONE */
	dlist_node stall_node; /* in "stalled", while is_stalled */
	dlist_node due_node;   /* in "due", while deadline_us != 0 */
	MemoryContext context;
	LlmExecutor *executor; /* NULL in DONE */
	int32 slot_idx;		   /* LLM_NONE: given up; waits for the executor */
	Latch *owner_latch;
	bool is_batch;
	Oid role_id; /* whom to charge */
	Oid database_id;
	int64 deadline_us; /* 0 = none */

	/* the REQUEST message as the backend process wrote it */
	char *input;
	Size input_bytes;
	Size n_collected_bytes;
	int32 adapter_idx; /* LLM_NONE: the base model */

	/* tokens received from executors, to resume with */
	int32 *output_ids;
	uint32 n_output;
	uint32 output_capacity;
	bool has_logprobs;
	bool has_embedding; /* it came: a successor's is dropped */

	/* output entries that found no room in the ring */
	bool is_stalled;
	char *pending;
	Size pending_start;
	Size pending_end;
	Size pending_capacity;

	/* blame for executor deaths */
	bool was_sent;	   /* at least once: the next time resumes it */
	bool has_progress; /* a token came since it was sent */
	uint32 n_strikes;  /* deaths alone and without progress, in a row */

	LlmWireFinished finished; /* in DONE */
} LlmRecord;

/* An executor process and what is assigned to it. */
struct LlmExecutor
{
	int32 idx; /* of its entry in shared memory */
	LlmExecutorState state;
	pid_t pid; /* 0 = no process */
	LlmChannel *channel;
	int log_fd; /* read end of its standard error; -1 = closed */
	char log_line[1024];
	int log_line_bytes;
	bool is_readable; /* by the last wait */
	bool log_is_readable;
	bool is_broken; /* its channel is unusable; its death will follow */
	bool is_reaped; /* dead: no signals any more */

	/* what it runs */
	int32 model_idx;
	uint64 load_ticket; /* of the load it was started for */
	char model_name[LLM_MODEL_NAME_BYTES];
	char path[MAXPGPATH];
	char options[LLM_LOAD_OPTIONS_BYTES];
	char image_path[MAXPGPATH];		/* what backend processes map */
	char new_image_path[MAXPGPATH]; /* what the process writes */
	bool has_served;				/* was ready once: restart it */
	bool is_draining;				/* gets no new requests, then stops */

	/* times, monotonic; 0 = none */
	int64 ready_us;
	int64 heard_us; /* the last frame, or when requests were first sent */
	int64 restart_at_us;
	int64 load_deadline_us;
	int64 kill_at_us; /* SIGKILL follows where SIGTERM does not suffice */
	int backoff_ms;
	uint32 n_failed_starts; /* in a row */
	LlmError last_error;

	/* requests */
	dlist_head waiting[2]; /* interactive, batch */
	dlist_head suspects;
	dlist_head sent;
	LlmRecord *probe; /* the suspect that is tried alone now, or NULL */
	uint32 n_records; /* all of them, COLLECTING too */
	uint32 n_sent;

	/* the id of each adapter that its process was told of, or 0; NULL: none */
	uint64 *heard_of; /* [LLM_MAX_ADAPTERS] */
};

/* -- scheduler_main.c -- */

/* The time at the start of this turn. */
extern int64 llm_scheduler_now_us(void);

/* Set this latch at the end of the turn. */
extern void llm_scheduler_wake_later(Latch *latch);

/* The set of descriptors to wait for has changed. */
extern void llm_scheduler_sockets_changed(void);

/* Turn again no later than then. */
extern void llm_scheduler_turn_at(int64 when_us);

/* -- dispatch.c -- */

/* Take what backend processes have queued and given up. */
extern void llm_dispatch_take_slots(void);

/* Read input, write stalled output, enforce deadlines. */
extern void llm_dispatch_advance(void);

/* Send what may be sent now. */
extern void llm_dispatch_pump(LlmExecutor *executor);

/* The process died: blame, and hold what it had for its successor. */
extern void llm_dispatch_executor_died(LlmExecutor *executor);

/* Fail all that waits for this executor, or was sent to it. */
extern void llm_dispatch_fail_all(LlmExecutor *executor, const LlmError *why);

/* Add this turn's counts to the shared counters. */
extern void llm_dispatch_publish_counters(void);

/* -- relay.c -- */

/* A frame about a request.  False: the executor broke the protocol. */
extern bool
llm_relay_receive(LlmExecutor *executor, const LlmFrameHeader *header,
				  const void *payload, LlmError *err);

/* -- adapter_registry.c -- */

extern void llm_adapters_init(void);

/*
 * A request with this adapter came, or is gone.  LLM_NONE: there are too many
 * adapters in flight.
 */
extern int32
llm_adapter_acquire(const uint8 digest[LLM_SHA256_BYTES], LlmError *err);
extern void llm_adapter_release(int32 adapter_idx);

/* Under the lock: a request was answered. */
extern void llm_adapter_count(int32 adapter_idx, uint32 n_tokens);

/* See that the executor has heard of it before its request. */
extern bool llm_adapter_announce(LlmExecutor *executor, int32 adapter_idx,
								 uint64 *adapter_id, LlmError *err);

/* Its new process has heard of nothing. */
extern void llm_adapters_executor_started(LlmExecutor *executor);

/* An ADAPTER_STATE frame. */
extern bool llm_adapters_receive_state(LlmExecutor *executor,
									   const LlmWireAdapterState *state,
									   Size n_bytes, LlmError *err);

/* Once in a while: keep the folder of images small. */
extern void llm_adapters_advance(void);

/* -- usage_accounts.c -- */

/* At the start of a scheduler, and at its end. */
extern void llm_usage_init(void);
extern void llm_usage_close(void);

/* While the record has an executor. */
extern void
llm_usage_charge(const LlmRecord *record, const LlmUsageCounts *counts);

/* Once per turn: show what was charged, and keep it in the file. */
extern void llm_usage_publish(void);

/* -- image_files.c -- */

/* Make the folder; remove what no model needs. */
extern void llm_images_init(void);

/* How many requests there are, for jobs that yield to them. */
extern void llm_busy_sign_publish(uint32 n_requests);

/* A name for a new file. */
extern void llm_image_make_path(char *dest, Size size, int32 executor_idx);

/* Remove the file, now or a while later, and forget its name. */
extern void llm_image_remove(char *path);
extern void llm_image_retire(char *path);

/* Once in a while: remove what was retired. */
extern void llm_images_remove_retired(void);

/* -- executor_supervisor.c -- */

typedef struct LlmExecutorSpec
{
	int32 model_idx;
	uint64 load_ticket;
	const char *model_name;
	const char *path;
	const char *options;
	const char *image_path; /* NULL: a new one */
	bool has_served;
} LlmExecutorSpec;

extern void llm_supervisor_init(void);

/* Start an executor; NULL where no entry is free. */
extern LlmExecutor *
llm_supervisor_start(const LlmExecutorSpec *spec, LlmError *err);

/* No new requests; ends when those it has are done. */
extern void llm_supervisor_drain(LlmExecutor *executor);

/* End it now; it must have no requests. */
extern void llm_supervisor_stop(LlmExecutor *executor);

/* The executor's channel said something wrong: kill it, restart follows. */
extern void llm_supervisor_break(LlmExecutor *executor, const LlmError *why);

/* Reap, read frames and log lines, restart, time out: once per turn. */
extern void llm_supervisor_advance(void);

/* Send and write what can be, and show how much each has to do. */
extern void llm_supervisor_flush(void);

extern LlmExecutor *llm_supervisor_executor(int32 idx);

/* At exit: end all processes and wait for them. */
extern void llm_supervisor_end_all(void);

/* -- model_table.c -- */

/* At the start of a scheduler: serve again what was served before. */
extern void llm_models_init(void);

/* llm_ext.model may have changed. */
extern void llm_models_settings_changed(void);

/* Loads and unloads that were asked for. */
extern void llm_models_advance(void);

/* An executor answered LOAD, or could not be started. */
extern bool llm_models_executor_ready(LlmExecutor *executor, const char *facts,
									  Size facts_bytes, LlmError *err);
extern void
llm_models_executor_failed(LlmExecutor *executor, const LlmError *why);

/* The executor for a queued request; NULL: err says why there is none. */
extern LlmExecutor *
llm_models_route(int32 model_idx, uint32 generation, LlmError *err);

#endif /* LLM_SCHEDULER_PROCESS_H */
