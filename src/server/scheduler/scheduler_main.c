/*
 * scheduler_main.c
 *	  The scheduler worker: one loop.
 *
 *	  scheduler_shmem.c		shared memory: size, layout, start
 *	  slot_table.c			request slots: states, lists, owners
 *	  request.c				a backend process's side of a request
 *	  model_table.c			a backend process's side of the models
 *	  scheduler_views.c		what views show
 *	  load_options.c		from settings to the LOAD message
 *	  request_record.c		a request in the scheduler's care
 *	  dispatch.c			requests from slots to executors
 *	  relay.c				their answers on the way back
 *	  usage_accounts.c		who used how many tokens
 *	  model_loads.c			which executor serves which name
 *	  executor_supervisor.c	executors' lives
 *	  executor_spawn.c		fork and exec
 *	  image_files.c			files that executors write
 *
 * Everything that happens is found at one of four places: the worker's latch
 * (backend processes set it), the descriptors of executors, the signal that a
 * child has died, and the clock.  A turn handles all that is there and sleeps
 * again; an idle turn looks at no slot.  Latches of backend processes are
 * collected over a turn and each set once at its end.
 *
 * The worker has no database connection and takes no snapshot, so it runs on
 * a standby as well and is in nobody's way.
 *
 * src/server/scheduler/scheduler_main.c
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "src/common/util/clock.h"
#include "src/server/scheduler/request_record.h"
#include "src/server/scheduler/scheduler_process.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define IDLE_TURN_US INT64CONST(1000000)
#define MAX_WAIT_EVENTS 64

extern PGDLLEXPORT void llm_scheduler_main(Datum arg);

static int64 now_us;
static int64 next_turn_us;

/* Latches to set at the end of the turn; may hold one several times. */
static Latch **wake_list;
static int n_wakes;
static int wake_capacity;

static WaitEventSet *wait_set;
static bool wait_set_is_stale = true;

/* For each event in the set after the first two: who it is about. */
typedef struct WatchedSocket
{
	LlmExecutor *executor;
	bool is_log;
	bool wants_write;
} WatchedSocket;

static WatchedSocket *watched; /* by position in the set */
static int n_watched;

int64
llm_scheduler_now_us(void)
{
	return now_us;
}

void
llm_scheduler_turn_at(int64 when_us)
{
	if (when_us != 0 && when_us < next_turn_us)
		next_turn_us = when_us;
}

void
llm_scheduler_sockets_changed(void)
{
	wait_set_is_stale = true;
}

/* -- waking backend processes -- */

void
llm_scheduler_wake_later(Latch *latch)
{
	if (latch == NULL || (n_wakes > 0 && wake_list[n_wakes - 1] == latch))
		return;
	if (n_wakes == wake_capacity)
	{
		wake_capacity = Max(256, wake_capacity * 2);
		wake_list = wake_list == NULL
						? MemoryContextAlloc(TopMemoryContext,
											 wake_capacity * sizeof(Latch *))
						: repalloc(wake_list, wake_capacity * sizeof(Latch *));
	}
	wake_list[n_wakes++] = latch;
}

static int
compare_latches(const void *a, const void *b)
{
	uintptr_t left = (uintptr_t) * (Latch *const *) a;
	uintptr_t right = (uintptr_t) * (Latch *const *) b;

	return left < right ? -1 : left > right;
}

static void
wake_all(void)
{
	qsort(wake_list, n_wakes, sizeof(Latch *), compare_latches);
	for (int i = 0; i < n_wakes; i++)
		if (i == 0 || wake_list[i] != wake_list[i - 1])
			SetLatch(wake_list[i]);
	n_wakes = 0;
}

/* -- waiting -- */

static void
watch(LlmExecutor *executor, bool is_log, int fd)
{
	int pos = AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, fd, NULL, NULL);

	watched[pos] = (WatchedSocket){ executor, is_log, false };
	n_watched = pos + 1;
}

static void
rebuild_wait_set(void)
{
	int max_events = 2 + 2 * llm_shared->n_executors;

	if (watched == NULL)
		watched = MemoryContextAlloc(TopMemoryContext,
									 max_events * sizeof(WatchedSocket));
	memset(watched, 0, max_events * sizeof(WatchedSocket));
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = llm_compat_create_wait_event_set(max_events);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL,
					  NULL);
	n_watched = 2;
	for (int32 i = 0; i < llm_shared->n_executors; i++)
	{
		LlmExecutor *executor = llm_supervisor_executor(i);

		if (executor->channel != NULL && !executor->is_broken)
			watch(executor, false, llm_channel_fd(executor->channel));
		if (executor->log_fd >= 0)
			watch(executor, true, executor->log_fd);
	}
	wait_set_is_stale = false;
}

/* Wait for room in a socket only while something waits to be written. */
static void
update_write_interest(void)
{
	for (int pos = 2; pos < n_watched; pos++)
	{
		WatchedSocket *socket = &watched[pos];
		bool wants_write =
			!socket->is_log &&
			llm_channel_pending_bytes(socket->executor->channel) > 0;

		if (wants_write == socket->wants_write)
			continue;
		socket->wants_write = wants_write;
		ModifyWaitEvent(
			wait_set, pos,
			WL_SOCKET_READABLE | (wants_write ? WL_SOCKET_WRITEABLE : 0), NULL);
	}
}

static void
wait_for_work(void)
{
	WaitEvent events[MAX_WAIT_EVENTS];
	int64 left_us;
	int n_events;

	if (wait_set_is_stale)
		rebuild_wait_set();
	update_write_interest();
	left_us = next_turn_us - llm_clock_us();
	n_events = WaitEventSetWait(wait_set,
								left_us <= 0 ? 0 : (long) (left_us / 1000) + 1,
								events, MAX_WAIT_EVENTS, llm_wait_event_main());
	for (int i = 0; i < n_events; i++)
	{
		WatchedSocket *socket = &watched[events[i].pos];

		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (socket->executor == NULL)
			continue;
		else if (socket->is_log)
			socket->executor->log_is_readable = true;
		else if (events[i].events & WL_SOCKET_READABLE)
			socket->executor->is_readable = true;
	}
	CHECK_FOR_INTERRUPTS();
}

/* -- taking office, leaving it -- */

static void
fail_all_slots(void)
{
	LlmError why;

	llm_error_set(&why, LLM_ERROR_UNAVAILABLE, "the scheduler was restarted");
	llm_error_hint(&why, "Run the statement again.");
	llm_scheduler_lock(LW_EXCLUSIVE);
	llm_shared->scheduler_pid = 0;
	llm_slots_fail_all(&why);
	llm_scheduler_unlock();
	llm_slots_wake_failed();
	ConditionVariableBroadcast(&llm_shared->model_changed);
}

/* Whatever the reason is, leave no executor and nobody waiting behind. */
static void
leave_office(int code, Datum arg)
{
	fail_all_slots();
	llm_supervisor_end_all();
	llm_usage_close();
}

/*
 * The predecessor may have died anywhere: everything that was in flight is
 * failed, and a new epoch begins.  Only then may requests come in.
 */
static void
take_office(void)
{
	llm_scheduler_lock(LW_EXCLUSIVE);
	llm_shared->epoch++;
	llm_scheduler_unlock();
	fail_all_slots();
	before_shmem_exit(leave_office, 0);
	llm_usage_init();
	llm_records_init();
	llm_adapters_init();
	llm_supervisor_init();
	llm_models_init();
	llm_scheduler_lock(LW_EXCLUSIVE);
	llm_shared->scheduler_latch = MyLatch;
	llm_shared->scheduler_pid = MyProcPid;
	llm_shared->scheduler_started_at = GetCurrentTimestamp();
	llm_scheduler_unlock();
	ConditionVariableBroadcast(&llm_shared->model_changed);
}

static void
take_turn(void)
{
	now_us = llm_clock_us();
	next_turn_us = now_us + IDLE_TURN_US;
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		llm_models_settings_changed();
	}
	/* queued requests before unloads: those still belong to the model */
	llm_dispatch_take_slots();
	llm_models_advance();
	llm_supervisor_advance();
	llm_dispatch_advance();
	llm_supervisor_flush();
	llm_dispatch_publish_counters();
	llm_adapters_advance();
	llm_usage_publish();
	llm_scheduler_turn_at(now_us + llm_scheduler_other_turn());
	wake_all();
}

void
llm_scheduler_main(Datum arg)
{
	MemoryContext turn_context;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	now_us = llm_clock_us();
	turn_context = AllocSetContextCreate(TopMemoryContext, "llm scheduler turn",
										 ALLOCSET_DEFAULT_SIZES);
	take_office();
	MemoryContextSwitchTo(turn_context);
	for (;;)
	{
		take_turn();
		MemoryContextReset(turn_context);
		wait_for_work();
	}
}
