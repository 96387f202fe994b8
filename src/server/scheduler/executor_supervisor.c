/*
 * executor_supervisor.c
 *	  Executors' lives: start, load, serve, restart, end.
 *
 *	EMPTY -> STARTING -> LOADING -> READY -> STOPPING -> EMPTY
 *				^  \________\_________|         ^
 *				|            v (process died)   | (never served: EMPTY)
 *				+------ BACKING_OFF ------------+
 *
 * An executor that served once is restarted for as long as its model is
 * wanted: at once the first time, then with growing pauses where it dies soon
 * after it became ready.  One that never did is the caller's failed load.
 * What a dead process still had in its channel is read before its death is
 * acted on, so no token that it sent is lost.
 *
 * src/server/scheduler/executor_supervisor.c
 */
#include "postgres.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "miscadmin.h"
#include "src/common/util/clock.h"
#include "src/server/report.h"
#include "src/server/scheduler/executor_spawn.h"
#include "src/server/scheduler/scheduler_process.h"
#include "src/server/settings.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#define MAX_FRAMES_PER_TURN 1024
#define MAX_FAILED_STARTS 5
#define MAX_BACKOFF_MS 30000
#define LONG_LIFE_US INT64CONST(10000000) /* forgives earlier deaths */
#define STOP_GRACE_US INT64CONST(1000000) /* from SIGTERM to SIGKILL */
#define REAP_INTERVAL_US INT64CONST(1000000)

static LlmExecutor *executors; /* [n_executors], by index of their entries */
static int64 next_reap_us;

static volatile sig_atomic_t child_has_died = true;

static bool
in_use(const LlmExecutor *executor)
{
	return executor->state != LLM_EXECUTOR_EMPTY;
}

static void
note_child_death(SIGNAL_ARGS)
{
	int saved_errno = errno;

	child_has_died = true;
	SetLatch(MyLatch);
	errno = saved_errno;
}

LlmExecutor *
llm_supervisor_executor(int32 idx)
{
	Assert(idx >= 0 && idx < llm_shared->n_executors);
	return &executors[idx];
}

/* -- the view's entry -- */

static void
publish(const LlmExecutor *executor)
{
	LlmExecutorEntry *entry = &llm_executors[executor->idx];

	llm_scheduler_lock(LW_EXCLUSIVE);
	entry->state = executor->state;
	entry->is_draining = executor->is_draining;
	entry->pid = executor->pid;
	entry->model_idx = executor->model_idx;
	strlcpy(entry->model, executor->model_name, sizeof(entry->model));
	llm_scheduler_unlock();
}

static void
publish_new(const LlmExecutor *executor)
{
	LlmExecutorEntry *entry = &llm_executors[executor->idx];

	llm_scheduler_lock(LW_EXCLUSIVE);
	entry->n_restarts = 0;
	entry->device[0] = '\0';
	strlcpy(entry->facts, "{}", sizeof(entry->facts));
	memset(&entry->stats, 0, sizeof(entry->stats));
	pg_atomic_write_u32(&entry->n_in_flight, 0);
	llm_scheduler_unlock();
}

/* -- start -- */

/* The process is not there (yet, or any more). */
static void
reset_process(LlmExecutor *executor)
{
	llm_channel_free(executor->channel);
	executor->channel = NULL;
	if (executor->log_fd >= 0)
		(void) close(executor->log_fd);
	executor->log_fd = -1;
	executor->log_line_bytes = 0;
	executor->pid = 0;
	executor->is_broken = executor->is_reaped = false;
	executor->is_readable = executor->log_is_readable = false;
	executor->load_deadline_us = executor->kill_at_us = 0;
	llm_scheduler_sockets_changed();
}

static bool
send_load(LlmExecutor *executor, LlmError *err)
{
	char *json = llm_load_options_compose(
		executor->path, executor->new_image_path, executor->options, err);
	bool ok;

	if (json == NULL)
		return false;
	ok = llm_channel_send(executor->channel, LLM_MESSAGE_LOAD, 0, json,
						  strlen(json), NULL, 0, err);
	llm_load_options_free(json);
	return ok;
}

static bool
try_start_process(LlmExecutor *executor, LlmError *err)
{
	LlmSpawnedProcess process;
	LlmExecutorEntry *entry = &llm_executors[executor->idx];
	const char *program = llm_executor_program();

	/* an exec that fails can only say 127: look first */
	if (access(program, X_OK) != 0)
		return llm_error_errno(err, "could not run the executor \"%s\"",
							   program);
	if (!llm_executor_spawn(executor->model_name, &process, err))
		return false;
	executor->pid = process.pid;
	executor->log_fd = process.log_fd;
	executor->channel = llm_channel_create(process.channel_fd, err);
	if (executor->channel == NULL)
	{
		(void) close(process.channel_fd);
		(void) kill(executor->pid, SIGKILL);
		return false;
	}
	llm_image_make_path(executor->new_image_path,
						sizeof(executor->new_image_path), executor->idx);
	llm_scheduler_sockets_changed();
	llm_scheduler_lock(LW_EXCLUSIVE);
	entry->started_at = GetCurrentTimestamp();
	llm_scheduler_unlock();
	return send_load(executor, err);
}

/*
 * A start that fails is dealt with in the next turn, when the caller has noted
 * which executor it is.
 */
static void
start_process(LlmExecutor *executor)
{
	executor->state = LLM_EXECUTOR_STARTING;
	executor->restart_at_us = 0;
	llm_adapters_executor_started(executor);
	llm_error_clear(&executor->last_error);
	if (llm_setting_load_timeout_s > 0)
		executor->load_deadline_us =
			llm_clock_us() + llm_setting_load_timeout_s * INT64CONST(1000000);
	if (try_start_process(executor, &executor->last_error))
		ereport(LOG, (errmsg("starting executor for model \"%s\", PID %d",
							 executor->model_name, (int) executor->pid)));
	else
		llm_scheduler_turn_at(llm_scheduler_now_us());
	publish(executor);
}

LlmExecutor *
llm_supervisor_start(const LlmExecutorSpec *spec, LlmError *err)
{
	LlmExecutor *executor = NULL;

	for (int32 i = 0; i < llm_shared->n_executors && executor == NULL; i++)
		if (!in_use(&executors[i]))
			executor = &executors[i];
	if (executor == NULL)
	{
		llm_error_set(err, LLM_ERROR_LIMIT, "all %d executors are in use",
					  llm_shared->n_executors);
		llm_error_hint(err, "Raise llm_ext.max_models, or wait for replaced "
							"models to finish their requests.");
		return NULL;
	}
	executor->model_idx = spec->model_idx;
	executor->load_ticket = spec->load_ticket;
	strlcpy(executor->model_name, spec->model_name,
			sizeof(executor->model_name));
	strlcpy(executor->path, spec->path, sizeof(executor->path));
	strlcpy(executor->options, spec->options, sizeof(executor->options));
	strlcpy(executor->image_path,
			spec->image_path != NULL ? spec->image_path : "",
			sizeof(executor->image_path));
	executor->has_served = spec->has_served;
	executor->is_draining = false;
	executor->backoff_ms = 0;
	executor->n_failed_starts = 0;
	publish_new(executor);
	start_process(executor);
	return executor;
}

/* -- end -- */

static void
free_executor(LlmExecutor *executor)
{
	Assert(executor->pid == 0 && executor->n_records == 0);
	llm_image_remove(executor->new_image_path);
	executor->state = LLM_EXECUTOR_EMPTY;
	executor->model_idx = LLM_NONE;
	executor->is_draining = false;
	publish(executor);
}

void
llm_supervisor_stop(LlmExecutor *executor)
{
	Assert(executor->n_records == 0);
	llm_image_retire(executor->image_path);
	executor->state = LLM_EXECUTOR_STOPPING;
	executor->restart_at_us = 0;
	if (executor->pid == 0)
	{
		free_executor(executor);
		return;
	}
	(void) kill(executor->pid, SIGTERM);
	executor->kill_at_us = llm_clock_us() + STOP_GRACE_US;
	publish(executor);
}

void
llm_supervisor_drain(LlmExecutor *executor)
{
	executor->is_draining = true;
	publish(executor);
}

void
llm_supervisor_break(LlmExecutor *executor, const LlmError *why)
{
	if (executor->is_broken || executor->pid == 0)
		return;
	ereport(WARNING, (errmsg("killing executor of model \"%s\", PID %d",
							 executor->model_name, (int) executor->pid),
					  errdetail_internal("%s", why->message)));
	executor->is_broken = true;
	executor->last_error = *why;
	if (!executor->is_reaped)
		(void) kill(executor->pid, SIGKILL);
	llm_scheduler_sockets_changed();
}

/* The end of its stream: it is exiting, or of no use any more. */
static void
handle_end_of_stream(LlmExecutor *executor)
{
	executor->is_broken = true;
	if (!executor->is_reaped)
	{
		executor->kill_at_us = llm_clock_us() + STOP_GRACE_US;
		llm_scheduler_turn_at(executor->kill_at_us);
	}
	llm_scheduler_sockets_changed();
}

/* -- what a process says -- */

/* One line of its standard error, as ours. */
static void
emit_log_line(LlmExecutor *executor)
{
	char *line = executor->log_line;

	line[executor->log_line_bytes] = '\0';
	executor->log_line_bytes = 0;
	for (char *p = line; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || (unsigned char) *p > '~')
			*p = '?';
	if (line[0] != '\0')
		ereport(LOG, (errmsg("executor of model \"%s\", PID %d: %s",
							 executor->model_name, (int) executor->pid, line)));
}

static void
read_log(LlmExecutor *executor)
{
	char buffer[4096];
	ssize_t n;

	executor->log_is_readable = false;
	if (executor->log_fd < 0)
		return;
	n = read(executor->log_fd, buffer, sizeof(buffer));
	for (ssize_t i = 0; i < n; i++)
	{
		if (buffer[i] != '\n')
			executor->log_line[executor->log_line_bytes++] = buffer[i];
		if (buffer[i] == '\n' ||
			executor->log_line_bytes == sizeof(executor->log_line) - 1)
			emit_log_line(executor);
	}
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	emit_log_line(executor);
	(void) close(executor->log_fd);
	executor->log_fd = -1;
	llm_scheduler_sockets_changed();
}

/* The executor's own words, cut where they are not a string. */
static void
receive_log(LlmExecutor *executor, const LlmWireLog *log, Size n_bytes)
{
	char text[1024];
	Size len;

	if (n_bytes < sizeof(*log))
		return;
	len = Min(n_bytes - sizeof(*log), sizeof(text) - 1);
	memcpy(text, log + 1, len);
	text[len] = '\0';
	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char) *p < ' ')
			*p = '?';
	ereport(log->is_warning ? WARNING : LOG,
			(errmsg("executor of model \"%s\", PID %d: %s",
					executor->model_name, (int) executor->pid, text)));
}

static bool
receive_stats(LlmExecutor *executor, const LlmWireStats *stats, Size n_bytes,
			  LlmError *err)
{
	if (n_bytes != sizeof(*stats))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "malformed stats message of %zu bytes", n_bytes);
	llm_scheduler_lock(LW_EXCLUSIVE);
	llm_executors[executor->idx].stats = *stats;
	llm_scheduler_unlock();
	return true;
}

static bool
receive_loaded(LlmExecutor *executor, const char *facts, Size n_bytes,
			   LlmError *err)
{
	if (executor->state != LLM_EXECUTOR_STARTING &&
		executor->state != LLM_EXECUTOR_LOADING)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "unexpected loaded message");
	/* the name that backend processes know gets the new contents at once */
	if (executor->image_path[0] == '\0')
		strlcpy(executor->image_path, executor->new_image_path,
				sizeof(executor->image_path));
	else if (rename(executor->new_image_path, executor->image_path) < 0)
		return llm_error_errno(err, "could not rename \"%s\" to \"%s\"",
							   executor->new_image_path, executor->image_path);
	executor->new_image_path[0] = '\0';
	executor->state = LLM_EXECUTOR_READY;
	executor->has_served = true;
	executor->ready_us = llm_clock_us();
	executor->n_failed_starts = 0;
	executor->load_deadline_us = 0;
	publish(executor);
	ereport(LOG, (errmsg("executor of model \"%s\", PID %d, is ready",
						 executor->model_name, (int) executor->pid)));
	return llm_models_executor_ready(executor, facts, n_bytes, err);
}

static bool
receive_load_failed(LlmExecutor *executor, const LlmError *why, Size n_bytes,
					LlmError *err)
{
	if (n_bytes != sizeof(*why))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "malformed load failure of %zu bytes", n_bytes);
	/* acted on when the process has ended */
	executor->last_error = *why;
	executor->last_error.message[LLM_ERROR_MESSAGE_BYTES - 1] = '\0';
	executor->last_error.hint[LLM_ERROR_HINT_BYTES - 1] = '\0';
	return true;
}

static bool
receive_frame(LlmExecutor *executor, const LlmFrameHeader *header,
			  const void *payload, LlmError *err)
{
	switch (header->type)
	{
		case LLM_MESSAGE_LOADED:
			return receive_loaded(executor, payload, header->n_bytes, err);
		case LLM_MESSAGE_LOAD_FAILED:
			return receive_load_failed(executor, payload, header->n_bytes, err);
		case LLM_MESSAGE_TOKENS:
		case LLM_MESSAGE_EMBEDDING:
		case LLM_MESSAGE_FINISHED:
		case LLM_MESSAGE_FAILED:
			return llm_relay_receive(executor, header, payload, err);
		case LLM_MESSAGE_STATS:
			return receive_stats(executor, payload, header->n_bytes, err);
		case LLM_MESSAGE_ADAPTER_STATE:
			return llm_adapters_receive_state(executor, payload,
											  header->n_bytes, err);
		case LLM_MESSAGE_LOG:
			receive_log(executor, payload, header->n_bytes);
			return true;
		default:
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "unexpected message of type %u", header->type);
	}
}

/* Up to max_frames frames, all there are where it is 0. */
static void
receive_frames(LlmExecutor *executor, int max_frames)
{
	LlmFrameHeader header;
	const void *payload;
	LlmError err;

	executor->is_readable = false;
	for (int n = 0; !executor->is_broken; n++)
	{
		if (max_frames > 0 && n == max_frames)
		{
			/* the rest may lie in our buffer, where no wait would see it */
			executor->is_readable = true;
			llm_scheduler_turn_at(llm_scheduler_now_us());
			return;
		}
		switch (llm_channel_receive(executor->channel, &header, &payload, &err))
		{
			case LLM_RECEIVE_NOTHING:
				return;
			case LLM_RECEIVE_CLOSED:
				if (err.code == LLM_ERROR_INTERNAL)
					llm_supervisor_break(executor, &err);
				else
					handle_end_of_stream(executor);
				return;
			case LLM_RECEIVE_FRAME:
				executor->heard_us = llm_scheduler_now_us();
				break;
		}
		if (!receive_frame(executor, &header, payload, &err))
			llm_supervisor_break(executor, &err);
	}
}

/* -- death -- */

static void
back_off(LlmExecutor *executor, int delay_ms)
{
	executor->state = LLM_EXECUTOR_BACKING_OFF;
	executor->restart_at_us = llm_clock_us() + delay_ms * INT64CONST(1000);
	llm_scheduler_turn_at(executor->restart_at_us);
	publish(executor);
}

/* Double the pause before the next restart; returns the one before this. */
static int
next_backoff(LlmExecutor *executor)
{
	int delay_ms = executor->backoff_ms;

	executor->backoff_ms =
		delay_ms == 0 ? 1000 : Min(delay_ms * 2, MAX_BACKOFF_MS);
	return delay_ms;
}

/* It did not become ready. */
static void
handle_failed_start(LlmExecutor *executor)
{
	LlmError err;

	ereport(WARNING,
			(errmsg("could not load model \"%s\": %s", executor->model_name,
					executor->last_error.message)));
	if (!executor->has_served)
	{
		executor->state = LLM_EXECUTOR_STOPPING;
		llm_models_executor_failed(executor, &executor->last_error);
		free_executor(executor);
		return;
	}
	executor->n_failed_starts++;
	if (executor->n_failed_starts >= MAX_FAILED_STARTS)
	{
		llm_error_set(&err, LLM_ERROR_UNAVAILABLE,
					  "the executor of model \"%s\" could not be restarted: %s",
					  executor->model_name, executor->last_error.message);
		llm_error_hint(&err, "It is tried again from time to time; see the "
							 "server log.");
		llm_models_executor_failed(executor, &err);
		llm_dispatch_fail_all(executor, &err);
	}
	back_off(executor, next_backoff(executor));
}

/* It died while it served. */
static void
handle_crash(LlmExecutor *executor, pid_t pid, const char *how)
{
	int64 lived_us = llm_clock_us() - executor->ready_us;
	LlmExecutorEntry *entry = &llm_executors[executor->idx];

	ereport(WARNING,
			(errmsg("executor of model \"%s\", PID %d, %s",
					executor->model_name, (int) pid, how),
			 errdetail("It had %u requests, which its successor resumes.",
					   executor->n_sent)));
	llm_scheduler_lock(LW_EXCLUSIVE);
	llm_shared->counters.n_executor_deaths++;
	entry->n_restarts++;
	llm_scheduler_unlock();
	llm_dispatch_executor_died(executor);
	if (lived_us >= LONG_LIFE_US)
		executor->backoff_ms = 0;
	back_off(executor, next_backoff(executor));
}

static void
describe_death(int status, char *dest, Size size)
{
	if (WIFSIGNALED(status))
		snprintf(dest, size, "was terminated by signal %d (%s)",
				 WTERMSIG(status), pg_strsignal(WTERMSIG(status)));
	else
		snprintf(dest, size, "exited with exit code %d", WEXITSTATUS(status));
}

static void
handle_death(LlmExecutor *executor, int status)
{
	char how[128];
	pid_t pid = executor->pid;

	executor->is_reaped = true;
	describe_death(status, how, sizeof(how));
	if (executor->channel != NULL && executor->state != LLM_EXECUTOR_STOPPING)
		receive_frames(executor, 0);
	read_log(executor);
	if (executor->log_line_bytes > 0)
		emit_log_line(executor);
	reset_process(executor);
	llm_image_remove(executor->new_image_path);
	switch (executor->state)
	{
		case LLM_EXECUTOR_STOPPING:
			free_executor(executor);
			break;
		case LLM_EXECUTOR_READY:
			handle_crash(executor, pid, how);
			break;
		default:
			if (executor->last_error.code == LLM_OK)
				llm_error_set(&executor->last_error, LLM_ERROR_EXECUTOR,
							  "the executor %s while it loaded the model", how);
			handle_failed_start(executor);
			break;
	}
}

static void
reap(LlmExecutor *executor)
{
	int status;
	pid_t pid;

	if (executor->pid == 0)
		return;
	pid = waitpid(executor->pid, &status, WNOHANG);
	if (pid == executor->pid)
		handle_death(executor, status);
	else if (pid < 0 && errno == ECHILD)
		/* cannot happen: nobody else waits for our children */
		handle_death(executor, 0);
}

/* -- once per turn -- */

/*
 * An executor that has requests speaks after every step.  An idle one need
 * not; its silence counts from when it got something to do.
 */
static void
check_silence(LlmExecutor *executor)
{
	int64 now_us = llm_scheduler_now_us();
	int64 limit_us = llm_setting_executor_timeout_s * INT64CONST(1000000);
	LlmError err;

	if (executor->n_sent == 0)
		executor->heard_us = now_us;
	if (limit_us == 0 || executor->is_broken ||
		now_us - executor->heard_us < limit_us)
		return;
	llm_error_set(&err, LLM_ERROR_EXECUTOR,
				  "it has requests and was silent for %d seconds",
				  llm_setting_executor_timeout_s);
	llm_supervisor_break(executor, &err);
}

/* Things that happen at a given time. */
static void
check_times(LlmExecutor *executor)
{
	int64 now_us = llm_scheduler_now_us();

	if (executor->state == LLM_EXECUTOR_STARTING && executor->pid == 0)
	{
		handle_failed_start(executor);
		return;
	}
	if (executor->state == LLM_EXECUTOR_BACKING_OFF && executor->is_draining &&
		executor->n_records == 0)
	{
		llm_supervisor_stop(executor);
		return;
	}
	if (executor->restart_at_us != 0 && now_us >= executor->restart_at_us)
		start_process(executor);
	if (executor->load_deadline_us != 0 &&
		now_us >= executor->load_deadline_us && executor->pid != 0)
	{
		LlmError err;

		executor->load_deadline_us = 0;
		llm_error_set(&err, LLM_ERROR_TIMEOUT,
					  "the model did not load within %d seconds",
					  llm_setting_load_timeout_s);
		llm_error_hint(&err, "Raise llm_ext.load_timeout.");
		llm_supervisor_break(executor, &err);
	}
	if (executor->kill_at_us != 0 && now_us >= executor->kill_at_us)
	{
		executor->kill_at_us = 0;
		(void) kill(executor->pid, SIGKILL);
	}
	if (executor->state == LLM_EXECUTOR_READY)
		check_silence(executor);
	llm_scheduler_turn_at(executor->restart_at_us);
	llm_scheduler_turn_at(executor->load_deadline_us);
	llm_scheduler_turn_at(executor->kill_at_us);
}

static void
advance(LlmExecutor *executor, bool may_reap)
{
	if (executor->log_is_readable)
		read_log(executor);
	if (executor->is_readable && executor->channel != NULL)
		receive_frames(executor, MAX_FRAMES_PER_TURN);
	if (may_reap)
		reap(executor);
	if (in_use(executor))
		check_times(executor);
	if (executor->state == LLM_EXECUTOR_READY && executor->is_draining &&
		executor->n_records == 0)
		llm_supervisor_stop(executor);
}

void
llm_supervisor_advance(void)
{
	bool may_reap = child_has_died || llm_scheduler_now_us() >= next_reap_us;

	child_has_died = false;
	if (may_reap)
	{
		next_reap_us = llm_scheduler_now_us() + REAP_INTERVAL_US;
		llm_images_remove_retired();
	}
	for (int32 i = 0; i < llm_shared->n_executors; i++)
		if (in_use(&executors[i]))
			advance(&executors[i], may_reap);
}

void
llm_supervisor_flush(void)
{
	uint32 n_requests = 0;

	for (int32 i = 0; i < llm_shared->n_executors; i++)
	{
		LlmExecutor *executor = &executors[i];
		LlmError err;

		n_requests += executor->n_records;
		if (executor->channel == NULL || executor->is_broken)
			continue;
		llm_dispatch_pump(executor);
		/* where the other end is gone, its death is noticed as such */
		if (llm_channel_pending_bytes(executor->channel) > 0)
			(void) llm_channel_flush(executor->channel, &err);
		pg_atomic_write_u32(&llm_executors[i].n_in_flight, executor->n_records);
		if (executor->state == LLM_EXECUTOR_STARTING &&
			llm_channel_pending_bytes(executor->channel) == 0)
		{
			executor->state = LLM_EXECUTOR_LOADING;
			publish(executor);
		}
	}
	llm_busy_sign_publish(n_requests);
}

/* -- the scheduler's own start and end -- */

void
llm_supervisor_init(void)
{
	executors = MemoryContextAllocZero(
		TopMemoryContext, (Size) llm_shared->n_executors * sizeof(LlmExecutor));
	for (int32 i = 0; i < llm_shared->n_executors; i++)
	{
		LlmExecutor *executor = &executors[i];

		executor->idx = i;
		executor->model_idx = LLM_NONE;
		executor->log_fd = -1;
		dlist_init(&executor->waiting[0]);
		dlist_init(&executor->waiting[1]);
		dlist_init(&executor->suspects);
		dlist_init(&executor->sent);
		publish(executor);
	}
	llm_images_init();
	pqsignal(SIGCHLD, note_child_death);
}

static bool
all_ended(void)
{
	bool result = true;

	for (int32 i = 0; i < llm_shared->n_executors; i++)
	{
		if (executors[i].pid == 0)
			continue;
		if (waitpid(executors[i].pid, NULL, WNOHANG) == 0)
			result = false;
		else
			executors[i].pid = 0;
	}
	return result;
}

static void
signal_all(int signo)
{
	for (int32 i = 0; i < llm_shared->n_executors; i++)
		if (executors[i].pid != 0)
			(void) kill(executors[i].pid, signo);
}

void
llm_supervisor_end_all(void)
{
	int64 kill_at_us = llm_clock_us() + STOP_GRACE_US;

	if (executors == NULL)
		return;
	llm_busy_sign_publish(0);
	signal_all(SIGTERM);
	while (!all_ended() && llm_clock_us() < kill_at_us)
		pg_usleep(5000);
	signal_all(SIGKILL);
	while (!all_ended())
		pg_usleep(1000);
}
