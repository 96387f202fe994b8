/*
 * rows_relay.c
 *	  The requests of a statement, taken down and sent again without a server.
 *
 * Started by a scheduler (llm_ext.executor_path) it is an executor that has
 * another one do the work: it starts the llm_executor of its own folder,
 * passes all bytes on in both directions, and keeps what the scheduler said
 * in the file requests.log there.
 *
 *	  rows_relay --replay EXECUTOR LOG
 *
 * starts that executor, has it load the same model, and for every line on its
 * input sends the requests, all at once, and prints how many microseconds
 * they took: what the engine needs for the statement by itself.
 *
 * test/bench/rows_relay.c
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/common/ipc/ipc_channel.h"
#include "src/common/util/clock.h"
#include "src/common/util/mapped_file.h"

static void
die(const char *what)
{
	fprintf(stderr, "rows_relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Our end of its channel. */
static int
start_executor(const char *path, pid_t *child)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) != 0)
		die("socketpair");
	*child = fork();
	if (*child == 0)
	{
		if (dup2(sv[1], LLM_IPC_EXECUTOR_FD) < 0)
			_exit(126);
		for (int fd = LLM_IPC_EXECUTOR_FD + 1; fd < 64; fd++)
			close(fd);
		execl(path, "llm_executor", (char *) NULL);
		_exit(127);
	}
	if (*child < 0)
		die("fork");
	close(sv[1]);
	return sv[0];
}

/* ---- as an executor ---- */

static void
write_all(int fd, const char *bytes, size_t n)
{
	while (n > 0)
	{
		ssize_t n_written = write(fd, bytes, n);
		struct pollfd pfd = { .fd = fd, .events = POLLOUT };

		if (n_written >= 0)
		{
			bytes += n_written;
			n -= (size_t) n_written;
		}
		else if (errno == EAGAIN)
			(void) poll(&pfd, 1, -1);
		else if (errno != EINTR)
			exit(0);
	}
}

static void
relay(const char *folder)
{
	static char bytes[1 << 16];
	char path[PATH_MAX + 16];
	pid_t child;
	int log_fd;
	struct pollfd pfds[2] = { { .fd = LLM_IPC_EXECUTOR_FD, .events = POLLIN } };

	snprintf(path, sizeof(path), "%s/requests.log", folder);
	log_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (log_fd < 0)
		die(path);
	snprintf(path, sizeof(path), "%s/llm_executor", folder);
	pfds[1] =
		(struct pollfd){ .fd = start_executor(path, &child), .events = POLLIN };
	for (;;)
	{
		if (poll(pfds, 2, -1) < 0)
			continue;
		for (int i = 0; i < 2; i++)
		{
			ssize_t n = pfds[i].revents == 0
							? -1
							: read(pfds[i].fd, bytes, sizeof(bytes));

			if (n == 0)
			{
				close(pfds[1].fd);
				(void) waitpid(child, NULL, 0);
				exit(0);
			}
			if (n > 0 && i == 0)
				write_all(log_fd, bytes, (size_t) n);
			if (n > 0)
				write_all(pfds[1 - i].fd, bytes, (size_t) n);
		}
	}
}

/* ---- by itself ---- */

static LlmChannel *channel;
static LlmError err;

static void
need(bool ok)
{
	if (ok)
		return;
	fprintf(stderr, "rows_relay: %s\n", err.message);
	exit(1);
}

/* The next frame of this type, or one that says that something failed. */
static void
wait_for(LlmMessageType wanted)
{
	LlmFrameHeader header;
	const void *payload;

	for (;;)
	{
		struct pollfd pfd = { .fd = llm_channel_fd(channel), .events = POLLIN };

		need(llm_channel_flush(channel, &err));
		if (llm_channel_pending_bytes(channel) > 0)
			pfd.events |= POLLOUT;
		switch (llm_channel_receive(channel, &header, &payload, &err))
		{
			case LLM_RECEIVE_NOTHING:
				(void) poll(&pfd, 1, -1);
				continue;
			case LLM_RECEIVE_CLOSED:
				fprintf(stderr, "rows_relay: the executor is gone\n");
				exit(1);
			case LLM_RECEIVE_FRAME:
				break;
		}
		if (header.type == LLM_MESSAGE_FAILED ||
			header.type == LLM_MESSAGE_LOAD_FAILED)
		{
			err = *(const LlmError *) payload;
			need(false);
		}
		if (header.type == wanted)
			return;
	}
}

/* Send the log's frames of one type; returns how many there are. */
static uint64_t
send_frames(const LlmMappedFile *log, LlmMessageType type, uint64_t first_id)
{
	const char *bytes = log->data;
	uint64_t n = 0;

	for (size_t off = 0; off + sizeof(LlmFrameHeader) <= log->size;)
	{
		LlmFrameHeader header;

		memcpy(&header, bytes + off, sizeof(header));
		off += sizeof(header);
		if (header.version != LLM_IPC_VERSION ||
			header.n_bytes > log->size - off)
			break;
		if (header.type == type)
			need(llm_channel_send(channel, type, first_id + n++, bytes + off,
								  header.n_bytes, NULL, 0, &err));
		off += (header.n_bytes + 7) & ~(size_t) 7;
	}
	return n;
}

static void
replay(const char *executor, const char *log_path)
{
	LlmMappedFile log;
	uint64_t next_id = 1;
	char line[64];
	pid_t child;

	need(llm_mapped_file_open(&log, log_path, &err));
	channel = llm_channel_create(start_executor(executor, &child), &err);
	need(channel != NULL);
	(void) send_frames(&log, LLM_MESSAGE_LOAD, 0);
	wait_for(LLM_MESSAGE_LOADED);
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		int64_t start_us = llm_clock_us();
		uint64_t n = send_frames(&log, LLM_MESSAGE_REQUEST, next_id);

		next_id += n;
		for (uint64_t i = 0; i < n; i++)
			wait_for(LLM_MESSAGE_FINISHED);
		printf("%lld\n", (long long) (llm_clock_us() - start_us));
		fflush(stdout);
	}
	llm_channel_free(channel);
	(void) waitpid(child, NULL, 0);
	llm_mapped_file_close(&log);
}

int
main(int argc, char **argv)
{
	char self[PATH_MAX] = "";

	signal(SIGPIPE, SIG_IGN);
	if (argc == 4 && strcmp(argv[1], "--replay") == 0)
		replay(argv[2], argv[3]);
	else if (readlink("/proc/self/exe", self, sizeof(self) - 1) > 0)
		relay(dirname(self));
	return 0;
}
