/*
 * executor_rig.h
 *	  An executor of the same build as a child, and its channel.
 *
 * test/unit/executor_rig.h
 */
#ifndef LLM_EXECUTOR_RIG_H
#define LLM_EXECUTOR_RIG_H

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/common/ipc/ipc_channel.h"
#include "src/common/util/json.h"
#include "src/common/util/strbuf.h"
#include "test/unit/unit_test.h"

static char executor_path[PATH_MAX];
static pid_t child;
static LlmChannel *channel;

/* <build>/test/unit/test_... runs <build>/llm_executor. */
static void
find_executor(char *program)
{
	snprintf(executor_path, sizeof(executor_path), "%s/../../llm_executor",
			 dirname(program));
}

static void
start_executor(void)
{
	int sv[2];
	LlmError err;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) != 0)
		abort();
	child = fork();
	if (child == 0)
	{
		if (sv[1] != LLM_IPC_EXECUTOR_FD)
			dup2(sv[1], LLM_IPC_EXECUTOR_FD);
		for (int fd = LLM_IPC_EXECUTOR_FD + 1; fd < 64; fd++)
			close(fd);
		execl(executor_path, "llm_executor", (char *) NULL);
		_exit(127);
	}
	close(sv[1]);
	channel = llm_channel_create(sv[0], &err);
}

/* Exit status, or 1000 + signal. */
static int
wait_for_exit(void)
{
	int status;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int
stop_executor(void)
{
	llm_channel_free(channel);
	channel = NULL;
	return wait_for_exit();
}

static void
send_frame(LlmMessageType type, uint64_t id, const void *bytes, size_t n)
{
	LlmError err;

	if (!llm_channel_send(channel, type, id, bytes, n, NULL, 0, &err) ||
		!llm_channel_flush(channel, &err))
		CHECK_FAIL("could not send: %s", err.message);
}

/* The next frame; false at the end of the stream or after 60 s of silence. */
static bool
next_frame(LlmFrameHeader *header, const void **payload)
{
	LlmError err;

	for (;;)
	{
		struct pollfd pfd = { .fd = llm_channel_fd(channel), .events = POLLIN };
		LlmReceiveResult result;

		if (llm_channel_pending_bytes(channel) > 0)
		{
			(void) llm_channel_flush(channel, &err);
			pfd.events |= POLLOUT;
		}
		result = llm_channel_receive(channel, header, payload, &err);
		if (result != LLM_RECEIVE_NOTHING)
			return result == LLM_RECEIVE_FRAME;
		if (poll(&pfd, 1, 60000) == 0)
			return false;
	}
}

/* How executors are told to step. */
static const char *stepping = "auto";

/* Start and load; returns the facts, or NULL with *err. */
__attribute__((unused)) static cJSON *
load_from(const char *dir, const char *options, LlmError *err)
{
	LlmStrbuf json;
	LlmFrameHeader header;
	const void *payload;

	start_executor();
	llm_strbuf_init(&json);
	llm_strbuf_printf(&json,
					  "{\"path\": \"%s\", \"num_threads\": 2, "
					  "\"async_stepping\": \"%s\"%s}",
					  dir, stepping, options);
	send_frame(LLM_MESSAGE_LOAD, 0, json.data, json.len);
	llm_strbuf_free(&json);
	while (next_frame(&header, &payload))
	{
		if (header.type == LLM_MESSAGE_LOADED)
			return llm_json_parse(payload, header.n_bytes, "facts", err);
		if (header.type == LLM_MESSAGE_LOAD_FAILED)
		{
			memcpy(err, payload, sizeof(*err));
			return NULL;
		}
	}
	llm_error_set(err, LLM_ERROR_INTERNAL, "no answer");
	return NULL;
}

#endif /* LLM_EXECUTOR_RIG_H */
