/*
 * train_process.c
 *	  The executor of a job: started, listened to, ended.
 *
 * src/server/finetune/train_process.c
 */
#include "postgres.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "miscadmin.h"
#include "src/common/ipc/ipc_channel.h"
#include "src/server/finetune/train_process.h"
#include "src/server/pg_compat.h"
#include "src/server/report.h"
#include "src/server/scheduler/executor_spawn.h"
#include "storage/ipc.h"

/* From SIGTERM to SIGKILL. */
#define GRACE_MS 1000

#define TURN_MS 1000

static struct
{
	pid_t pid; /* 0: none */
	LlmChannel *channel;
	int log_fd; /* -1: closed */
	WaitEventSet *wait_set;
	char line[1024];
	Size line_bytes;
} process = { .log_fd = -1 };

static void
end_at_exit(int code, Datum arg)
{
	llm_train_process_end();
}

/* -- the log -- */

static void
emit_line(void)
{
	process.line[process.line_bytes] = '\0';
	process.line_bytes = 0;
	for (char *p = process.line; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || (unsigned char) *p > '~')
			*p = '?';
	if (process.line[0] != '\0')
		ereport(LOG, (errmsg("training executor, PID %d: %s", (int) process.pid,
							 process.line)));
}

/* False: the other end is closed. */
static bool
read_log(void)
{
	char buffer[4096];
	ssize_t n = read(process.log_fd, buffer, sizeof(buffer));

	for (ssize_t i = 0; i < n; i++)
	{
		if (buffer[i] != '\n')
			process.line[process.line_bytes++] = buffer[i];
		if (buffer[i] == '\n' || process.line_bytes == sizeof(process.line) - 1)
			emit_line();
	}
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void
close_log(void)
{
	if (process.log_fd < 0)
		return;
	emit_line();
	(void) close(process.log_fd);
	process.log_fd = -1;
}

/* -- start and end -- */

static void
make_wait_set(void)
{
	if (process.wait_set != NULL)
		FreeWaitEventSet(process.wait_set);
	process.wait_set = llm_compat_create_wait_event_set(4);
	AddWaitEventToSet(process.wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch,
					  NULL);
	AddWaitEventToSet(process.wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET,
					  NULL, NULL);
	AddWaitEventToSet(process.wait_set, WL_SOCKET_READABLE,
					  llm_channel_fd(process.channel), NULL, NULL);
	if (process.log_fd >= 0)
		AddWaitEventToSet(process.wait_set, WL_SOCKET_READABLE, process.log_fd,
						  NULL, NULL);
}

static void
send_job(const char *json)
{
	LlmError err;

	if (!llm_channel_send(process.channel, LLM_MESSAGE_TRAIN, 0, json,
						  strlen(json), NULL, 0, &err))
		llm_report(ERROR, &err);
	/* a few kB, which a new socket takes at once; if not, it died */
	if (!llm_channel_flush(process.channel, &err) ||
		llm_channel_pending_bytes(process.channel) > 0)
		ereport(LOG, (errmsg("a training executor took no message")));
}

int
llm_train_process_start(const char *model_name, const char *json)
{
	static bool is_registered;
	LlmSpawnedProcess spawned;
	const char *program = llm_executor_program();
	LlmError err;

	Assert(process.pid == 0);
	if (!is_registered)
		before_shmem_exit(end_at_exit, 0);
	is_registered = true;
	/* an exec that fails can only say 127: look first */
	if (access(program, X_OK) != 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not execute \"%s\": %m", program)));
	if (!llm_executor_spawn(model_name, &spawned, &err))
		llm_report(ERROR, &err);
	process.pid = spawned.pid;
	process.log_fd = spawned.log_fd;
	process.line_bytes = 0;
	process.channel = llm_channel_create(spawned.channel_fd, &err);
	if (process.channel == NULL)
	{
		(void) close(spawned.channel_fd);
		llm_report(ERROR, &err);
	}
	make_wait_set();
	send_job(json);
	return (int) process.pid;
}

/* Nothing is left when this returns; it is called at exit, too. */
void
llm_train_process_end(void)
{
	int waited_ms = 0;

	if (process.pid == 0)
		return;
	if (process.wait_set != NULL)
		FreeWaitEventSet(process.wait_set);
	process.wait_set = NULL;
	llm_channel_free(process.channel);
	process.channel = NULL;
	(void) kill(process.pid, SIGTERM);
	while (waitpid(process.pid, NULL, WNOHANG) == 0)
	{
		if (waited_ms == GRACE_MS)
			(void) kill(process.pid, SIGKILL);
		pg_usleep(10000);
		waited_ms += 10;
	}
	close_log();
	process.pid = 0;
}

/* -- listening -- */

static bool
take_payload(void *dest, Size n_bytes, const LlmFrameHeader *header,
			 const void *payload)
{
	if (header->n_bytes != n_bytes)
		return false;
	memcpy(dest, payload, n_bytes);
	return true;
}

/* The executor's own words. */
static void
relay_log(const LlmFrameHeader *header, const void *payload)
{
	LlmWireLog log;
	char text[1024];
	Size len;

	if (header->n_bytes < sizeof(log))
		return;
	memcpy(&log, payload, sizeof(log));
	len = Min(header->n_bytes - sizeof(log), sizeof(text) - 1);
	memcpy(text, (const char *) payload + sizeof(log), len);
	text[len] = '\0';
	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char) *p < ' ')
			*p = '?';
	ereport(LOG, (errmsg("training executor, PID %d: %s", (int) process.pid,
						 llm_report_displayable(text))));
}

/* False: no message of a training executor's. */
static bool
take_frame(const LlmFrameHeader *header, const void *payload,
		   LlmTrainEvent *event)
{
	switch (header->type)
	{
		case LLM_MESSAGE_TRAIN_LOG:
			event->kind = LLM_TRAIN_EVENT_LOG;
			return take_payload(&event->log, sizeof(event->log), header,
								payload);
		case LLM_MESSAGE_TRAIN_SAVED:
			event->kind = LLM_TRAIN_EVENT_SAVED;
			return take_payload(&event->saved, sizeof(event->saved), header,
								payload);
		case LLM_MESSAGE_TRAINED:
			event->kind = LLM_TRAIN_EVENT_TRAINED;
			return take_payload(&event->trained, sizeof(event->trained), header,
								payload);
		case LLM_MESSAGE_FAILED:
		case LLM_MESSAGE_LOAD_FAILED:
			event->kind = LLM_TRAIN_EVENT_FAILED;
			return take_payload(&event->error, sizeof(event->error), header,
								payload);
		default:
			return false;
	}
}

/* False: nothing was there. */
static bool
receive(LlmTrainEvent *event)
{
	LlmFrameHeader header;
	const void *payload;
	LlmError err;

	switch (llm_channel_receive(process.channel, &header, &payload, &err))
	{
		case LLM_RECEIVE_NOTHING:
			return false;
		case LLM_RECEIVE_CLOSED:
			event->kind = LLM_TRAIN_EVENT_DIED;
			return true;
		case LLM_RECEIVE_FRAME:
			break;
	}
	if (header.type == LLM_MESSAGE_LOG)
	{
		relay_log(&header, payload);
		return receive(event);
	}
	if (!take_frame(&header, payload, event))
		ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
						errmsg("a training executor sent a message of type %u "
							   "with %u bytes",
							   header.type, header.n_bytes)));
	return true;
}

void
llm_train_process_wait(LlmTrainEvent *event)
{
	static uint32 cache;

	Assert(process.pid != 0);
	for (;;)
	{
		WaitEvent events[4];

		CHECK_FOR_INTERRUPTS();
		if (receive(event))
			return;
		(void) WaitEventSetWait(process.wait_set, TURN_MS, events,
								lengthof(events),
								llm_compat_wait_event(&cache, "LlmTraining"));
		ResetLatch(MyLatch);
		if (process.log_fd >= 0 && !read_log())
		{
			close_log();
			make_wait_set();
		}
	}
}

int64
llm_train_process_memory_bytes(void)
{
	char path[64];
	long pages = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int) process.pid);
	file = fopen(path, "r");
	if (file == NULL)
		return 0;
	if (fscanf(file, "%*d %ld", &pages) != 1)
		pages = 0;
	(void) fclose(file);
	return (int64) pages * sysconf(_SC_PAGESIZE);
}
