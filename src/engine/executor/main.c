/*
 * main.c
 *	  The executor program.
 *
 * It is started by the scheduler with its channel on descriptor 3, serves one
 * model, and ends when the channel does.  Where the scheduler dies, the
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

#include "src/engine/executor/executor.h"

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
}

/* Wait for LOAD, the first message.  False: there will be none. */
static bool
receive_load(LlmExecutor *executor, LlmError *err)
{
	struct pollfd pfd = {
		.fd = llm_channel_fd(executor->channel),
		.events = POLLIN,
	};
	LlmFrameHeader header;
	const void *payload;

	for (;;)
	{
		switch (llm_channel_receive(executor->channel, &header, &payload, err))
		{
			case LLM_RECEIVE_CLOSED:
				return false;
			case LLM_RECEIVE_NOTHING:
				(void) poll(&pfd, 1, -1);
				continue;
			case LLM_RECEIVE_FRAME:
				break;
		}
		if (header.type != LLM_MESSAGE_LOAD)
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "expected a load message, got type %u",
								 header.type);
		return llm_executor_options_parse(payload, header.n_bytes,
										  &executor->options, err);
	}
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
	if (!receive_load(&executor, &err) || !llm_executor_load(&executor, &err) ||
		!report_loaded(&executor, &err))
		return report_failure(&executor, &err);
	status = llm_executor_run(&executor);
	llm_executor_unload(&executor);
	llm_channel_free(executor.channel);
	return status;
}
