/*
 * main.c
 *	  The executor program.
 *
 * It is started with its channel on descriptor 3, serves one model or trains
 * one adapter, and ends when the channel does.  Where the scheduler dies, the
 * channel closes or a SIGTERM comes (the scheduler asks for one as its parent
 * death signal); both end it with exit code 0, because an orphan's death by a
 * signal would alarm a postmaster that runs as process 1 of a container.
 *
 * src/engine/executor/main.c
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "src/engine/executor/train_session.h"

static void
exit_on_signal(int signal_number)
{
	_exit(0);
}

static void
set_up_signals(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = exit_on_signal;
	sigaction(SIGTERM, &action, NULL);
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	/* a file that may not grow any more is an error of the write */
	sigaction(SIGXFSZ, &action, NULL);
}

/*
 * Wait for the first message, LOAD or TRAIN; its payload is valid until the
 * next is received.  False: there will be none, or it is another.
 */
static bool
receive_task(LlmExecutor *executor, LlmFrameHeader *header,
			 const void **payload, LlmError *err)
{
	struct pollfd pfd = {
		.fd = llm_channel_fd(executor->channel),
		.events = POLLIN,
	};

	for (;;)
	{
		switch (llm_channel_receive(executor->channel, header, payload, err))
		{
			case LLM_RECEIVE_CLOSED:
				return false;
			case LLM_RECEIVE_NOTHING:
				(void) poll(&pfd, 1, -1);
				continue;
			case LLM_RECEIVE_FRAME:
				break;
		}
		return header->type == LLM_MESSAGE_LOAD ||
			   header->type == LLM_MESSAGE_TRAIN ||
			   llm_error_set(err, LLM_ERROR_INTERNAL,
							 "expected a load message, got type %u",
							 header->type);
	}
}

/* The payload lies in the channel's buffer: a copy. */
static int
train(LlmExecutor *executor, const void *payload, size_t n_bytes)
{
	LlmStrbuf json;
	int status;

	llm_strbuf_init(&json);
	llm_strbuf_append(&json, payload, n_bytes);
	status = llm_train_session_run(executor, llm_strbuf_str(&json), json.len);
	llm_strbuf_free(&json);
	llm_channel_free(executor->channel);
	return status;
}

static int
report_failure(LlmExecutor *executor, const LlmError *err)
{
	if (llm_channel_send(executor->channel, LLM_MESSAGE_LOAD_FAILED, 0, err,
						 sizeof(*err), NULL, 0, NULL))
		llm_executor_flush(executor);
	return 0;
}

static bool
report_loaded(LlmExecutor *executor, LlmError *err)
{
	LlmStrbuf json;
	bool ok;

	llm_strbuf_init(&json);
	llm_executor_describe(executor, &json);
	ok = !json.failed && llm_channel_send(executor->channel, LLM_MESSAGE_LOADED,
										  0, json.data, json.len, NULL, 0, err);
	llm_strbuf_free(&json);
	return ok;
}

int
main(int argc, char **argv)
{
	static LlmExecutor executor;
	LlmFrameHeader header;
	const void *payload;
	LlmError err;
	int status;

	set_up_signals();
	prctl(PR_SET_NAME, "llm_executor");
	executor.channel = llm_channel_create(LLM_IPC_EXECUTOR_FD, &err);
	if (executor.channel == NULL)
	{
		fprintf(stderr, "llm_executor is started by PostgreSQL: %s\n",
				err.message);
		return 1;
	}
	if (!receive_task(&executor, &header, &payload, &err))
		return report_failure(&executor, &err);
	if (header.type == LLM_MESSAGE_TRAIN)
		return train(&executor, payload, header.n_bytes);
	if (!llm_executor_options_parse(payload, header.n_bytes, &executor.options,
									&err) ||
		!llm_executor_load(&executor, &err) || !report_loaded(&executor, &err))
		return report_failure(&executor, &err);
	status = llm_executor_run(&executor);
	llm_executor_unload(&executor);
	llm_channel_free(executor.channel);
	return status;
}
