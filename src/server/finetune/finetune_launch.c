/*
 * finetune_launch.c
 *	  From folders to workers: shared memory, and the scheduler's turn.
 *
 * The scheduler has no database connection and knows jobs by their folders
 * alone.  It starts a worker for each, no more at a time than
 * llm_ext.max_finetune_jobs, whether the job was just submitted or was running
 * when the server went down.  A worker that takes its job has an entry in
 * shared memory until it exits; one that does not get so far (the role or the
 * database is gone, there is no room for workers) is tried again a few times,
 * then the folder goes, and the job's row says "interrupted" to who looks.
 *
 * src/server/finetune/finetune_launch.c
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "src/server/finetune/finetune_internal.h"
#include "src/server/finetune/finetune_subsys.h"
#include "src/server/pg_compat.h"
#include "src/server/scheduler/scheduler.h"
#include "src/server/settings.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define TRANCHE_NAME "llm_ext jobs"

#define MAX_STARTS 3		   /* that come to nothing */
#define RETRY_MS 2000		   /* between them */
#define IDLE_TURN_US 60000000L /* folders are looked for in any case */
#define BUSY_TURN_US 500000L   /* while workers are being started */

typedef struct LlmJobsShared
{
	LWLock *lock;				 /* set once */
	ConditionVariable changed;	 /* a job's row has changed */
	pg_atomic_uint32 n_requests; /* to look for folders; counts up */
	int32 n_entries;			 /* set once */
	LlmJobEntry entries[FLEXIBLE_ARRAY_MEMBER];
} LlmJobsShared;

static LlmJobsShared *shared;
static LlmJobEntry *own_entry; /* of this worker */

static shmem_request_hook_type previous_request_hook;
static shmem_startup_hook_type previous_startup_hook;

/* ------------------------------------------------------------------------
 * Shared memory
 * ------------------------------------------------------------------------
 */
static Size
shared_bytes(void)
{
	return offsetof(LlmJobsShared, entries) +
		   mul_size(llm_setting_max_finetune_jobs, sizeof(LlmJobEntry));
}

static void
request_shmem(void)
{
	if (previous_request_hook != NULL)
		previous_request_hook();
	RequestAddinShmemSpace(shared_bytes());
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

static void
startup_shmem(void)
{
	bool found;

	if (previous_startup_hook != NULL)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(TRANCHE_NAME, shared_bytes(), &found);
	if (!found)
	{
		memset(shared, 0, shared_bytes());
		shared->lock = &GetNamedLWLockTranche(TRANCHE_NAME)[0].lock;
		shared->n_entries = llm_setting_max_finetune_jobs;
		pg_atomic_init_u32(&shared->n_requests, 1);
		ConditionVariableInit(&shared->changed);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
llm_finetune_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

void
llm_jobs_require(void)
{
	llm_scheduler_require();
	if (shared->n_entries == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("fine-tuning is off"),
						errhint("Raise llm_ext.max_finetune_jobs and restart "
								"the server.")));
}

static bool
is_same(const LlmJobId *a, const LlmJobId *b)
{
	return a->job_id == b->job_id && a->database_id == b->database_id;
}

/* The lock is held.  NULL: nobody runs it. */
static LlmJobEntry *
find_entry(const LlmJobId *id)
{
	for (int32 i = 0; i < shared->n_entries; i++)
	{
		LlmJobEntry *entry = &shared->entries[i];

		if (entry->worker_pid != 0 && is_same(&entry->id, id))
			return entry;
	}
	return NULL;
}

static void
release_entry(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	own_entry->worker_pid = 0;
	LWLockRelease(shared->lock);
	own_entry = NULL;
	llm_jobs_announce_change();
	llm_jobs_wake_launcher();
}

bool
llm_jobs_claim(const LlmJobId *id)
{
	Assert(own_entry == NULL);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int32 i = 0; i < shared->n_entries && find_entry(id) == NULL; i++)
	{
		if (shared->entries[i].worker_pid != 0)
			continue;
		own_entry = &shared->entries[i];
		*own_entry = (LlmJobEntry){ .id = *id, .worker_pid = MyProcPid };
	}
	LWLockRelease(shared->lock);
	if (own_entry == NULL)
		return false;
	before_shmem_exit(release_entry, 0);
	return true;
}

void
llm_jobs_set_live(const LlmJobLive *live)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	own_entry->live = *live;
	LWLockRelease(shared->lock);
}

bool
llm_jobs_is_cancelled(void)
{
	bool is_cancelled;

	LWLockAcquire(shared->lock, LW_SHARED);
	is_cancelled = own_entry->is_cancelled;
	LWLockRelease(shared->lock);
	return is_cancelled;
}

int
llm_jobs_list(LlmJobEntry **entries)
{
	int n = 0;

	*entries = palloc((Size) (shared->n_entries + 1) * sizeof(LlmJobEntry));
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int32 i = 0; i < shared->n_entries; i++)
		if (shared->entries[i].worker_pid != 0)
			(*entries)[n++] = shared->entries[i];
	LWLockRelease(shared->lock);
	return n;
}

bool
llm_jobs_find(const LlmJobId *id, LlmJobEntry *entry)
{
	LlmJobEntry *found;

	LWLockAcquire(shared->lock, LW_SHARED);
	found = find_entry(id);
	if (found != NULL)
		*entry = *found;
	LWLockRelease(shared->lock);
	return found != NULL;
}

/* The signal goes under the lock: the process cannot have left its entry. */
bool
llm_jobs_cancel(const LlmJobId *id)
{
	LlmJobEntry *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = find_entry(id);
	if (entry != NULL)
	{
		entry->is_cancelled = true;
		(void) kill(entry->worker_pid, SIGINT);
	}
	LWLockRelease(shared->lock);
	return entry != NULL;
}

/* -- waiting -- */

void
llm_jobs_wake_launcher(void)
{
	(void) pg_atomic_fetch_add_u32(&shared->n_requests, 1);
	llm_scheduler_wake();
}

void
llm_jobs_announce_change(void)
{
	ConditionVariableBroadcast(&shared->changed);
}

void
llm_jobs_prepare_wait(void)
{
	ConditionVariablePrepareToSleep(&shared->changed);
}

void
llm_jobs_wait_change(long timeout_ms)
{
	static uint32 cache;

	(void) ConditionVariableTimedSleep(
		&shared->changed, timeout_ms,
		llm_compat_wait_event(&cache, "LlmFinetuneJob"));
}

void
llm_jobs_end_wait(void)
{
	(void) ConditionVariableCancelSleep();
}

/* ------------------------------------------------------------------------
 * The scheduler's turn
 * ------------------------------------------------------------------------
 */

/* A worker that this process has started, until its folder is gone. */
typedef struct Start
{
	LlmJobId id;
	BackgroundWorkerHandle *handle; /* NULL: there was no room for it */
	int n_starts;					/* in a row that came to nothing */
	TimestampTz retry_at;			/* 0: a worker is under way */
	bool has_folder;				/* of the last look */
	struct Start *next;
} Start;

static Start *starts;
static uint32 n_seen; /* of n_requests */

static Start *
find_start(const LlmJobId *id)
{
	for (Start *start = starts; start != NULL; start = start->next)
		if (is_same(&start->id, id))
			return start;
	return NULL;
}

static bool
start_worker(Start *start)
{
	BackgroundWorker worker = { 0 };
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool ok;

	StaticAssertStmt(sizeof(LlmJobId) <= BGW_EXTRALEN, "no room for an id");
	worker.bgw_flags =
		BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "llm_ext", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "llm_finetune_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "llm_ext job " INT64_FORMAT,
			 start->id.job_id);
	strlcpy(worker.bgw_type, "llm_ext job", BGW_MAXLEN);
	memcpy(worker.bgw_extra, &start->id, sizeof(start->id));
	if (start->handle != NULL)
		pfree(start->handle);
	start->handle = NULL;
	ok = RegisterDynamicBackgroundWorker(&worker, &start->handle);
	MemoryContextSwitchTo(old);
	return ok;
}

static void
try_start(const LlmJobId *id)
{
	Start *start = find_start(id);

	if (start == NULL)
	{
		start = MemoryContextAllocZero(TopMemoryContext, sizeof(Start));
		start->id = *id;
		start->next = starts;
		starts = start;
	}
	start->has_folder = true;
	start->retry_at = 0;
	if (start_worker(start))
	{
		start->n_starts++;
		return;
	}
	/* not the job's fault: as long as it takes */
	start->retry_at =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_MS);
	ereport(LOG,
			(errmsg("no room for the worker of fine-tuning job " INT64_FORMAT,
					id->job_id),
			 errhint("Raise max_worker_processes.")));
}

static bool
is_starting(const Start *start)
{
	pid_t pid;

	return start->handle != NULL &&
		   GetBackgroundWorkerPid(start->handle, &pid) != BGWH_STOPPED;
}

/* Has come to nothing too often: nobody will try again by itself. */
static void
give_up(const LlmJobId *id)
{
	ereport(LOG, (errmsg("the worker of fine-tuning job " INT64_FORMAT
						 " could not be started %d times",
						 id->job_id, MAX_STARTS)));
	llm_job_folder_remove(id);
	llm_jobs_announce_change();
}

/* May the job's worker be started now? */
static bool
wants_start(const LlmJobId *id)
{
	Start *start = find_start(id);
	LlmJobEntry entry;

	if (start != NULL)
		start->has_folder = true;
	if (llm_jobs_find(id, &entry))
	{
		if (start != NULL)
			start->n_starts = 0;
		return false;
	}
	if (start == NULL)
		return true;
	if (is_starting(start))
		return false;
	if (start->n_starts >= MAX_STARTS)
	{
		give_up(id);
		return false;
	}
	if (start->n_starts > 0 && start->retry_at == 0)
		start->retry_at =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_MS);
	return start->retry_at <= GetCurrentTimestamp();
}

static int
n_busy(void)
{
	LlmJobEntry *entries;
	int n = llm_jobs_list(&entries);

	for (Start *start = starts; start != NULL; start = start->next)
	{
		LlmJobEntry entry;

		if (is_starting(start) && !llm_jobs_find(&start->id, &entry))
			n++;
	}
	pfree(entries);
	return n;
}

/* Forget those whose folders are gone. */
static void
forget_ended(void)
{
	Start **link = &starts;

	while (*link != NULL)
	{
		Start *start = *link;

		if (start->has_folder || is_starting(start))
		{
			link = &start->next;
			continue;
		}
		*link = start->next;
		if (start->handle != NULL)
			pfree(start->handle);
		pfree(start);
	}
}

long
llm_finetune_launch(void)
{
	uint32 n_requests = pg_atomic_read_u32(&shared->n_requests);
	LlmJobId *ids;
	int n_ids;

	if (shared->n_entries == 0 || (n_requests == n_seen && starts == NULL))
		return IDLE_TURN_US;
	n_seen = n_requests;
	for (Start *start = starts; start != NULL; start = start->next)
		start->has_folder = false;
	n_ids = llm_job_folder_list(&ids);
	for (int i = 0; i < n_ids; i++)
	{
		if (wants_start(&ids[i]) && n_busy() < shared->n_entries)
			try_start(&ids[i]);
	}
	pfree(ids);
	forget_ended();
	return n_ids > 0 ? BUSY_TURN_US : IDLE_TURN_US;
}
