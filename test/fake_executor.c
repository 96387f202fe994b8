/*
 * fake_executor.c
 *	  An executor without a model, for tests of the scheduler.
 *
 * It speaks the channel's protocol and answers a request by repeating its
 * prompt: output token i is prompt token i modulo the prompt's length, so the
 * answer does not depend on when, or how often, the executor died on the way.
 * Token 0 ends an answer like a model's end token.
 *
 * The model's path names a real model directory or none at all; a real one
 * gets its image, so that SQL functions work with its tokenizer.  What goes
 * wrong is said in the path behind a question mark, as name=value pairs joined
 * by '&':
 *	  delay_ms=N	time per step; each request gets one token per step
 *	  load_ms=N		time to load
 *	  load=fail		LOAD_FAILED
 *	  load=crash	abort while loading
 *	  load=hang		never answer LOAD
 *	  crash=N		abort when a request's prompt holds token N
 *	  hang=N		stop answering when a prompt holds token N
 *	  garbage=N		send a malformed frame when a prompt holds token N
 *	  max_model_len=N
 * The option debug_crash_token works like crash.
 *
 * test/fake_executor.c
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/ipc/ipc_channel.h"
#include "src/common/model_image/model_image.h"
#include "src/common/util/clock.h"
#include "src/common/util/json.h"

#define MAX_REQUESTS 65536

typedef struct Settings
{
	char load[16];
	int delay_ms;
	int load_ms;
	int crash;
	int hang;
	int garbage;
	int max_model_len;
} Settings;

typedef struct FakeRequest
{
	uint64_t request_id;
	LlmWireRequest wire;
	int32_t *prompt_ids;
	uint32_t n_output;
} FakeRequest;

static Settings settings = {
	.crash = -1,
	.hang = -1,
	.garbage = -1,
	.max_model_len = 100000,
};
static LlmChannel *channel;
static FakeRequest requests[MAX_REQUESTS];
static uint32_t n_requests;

static void
exit_on_signal(int signal_number)
{
	_exit(0);
}

static void
flush(void)
{
	struct pollfd pfd = { .fd = llm_channel_fd(channel), .events = POLLOUT };
	LlmError err;

	while (llm_channel_flush(channel, &err) &&
		   llm_channel_pending_bytes(channel) > 0)
		(void) poll(&pfd, 1, 1000);
}

static void
send_frame(LlmMessageType type, uint64_t request_id, const void *payload,
		   size_t n_bytes)
{
	LlmError err;

	if (!llm_channel_send(channel, type, request_id, payload, n_bytes, NULL, 0,
						  &err))
		_exit(1);
}

static void
sleep_ms(int n_ms)
{
	if (n_ms > 0)
		usleep((useconds_t) n_ms * 1000);
}

/* -- loading -- */

static void
parse_setting(const char *name, const char *value)
{
	struct
	{
		const char *name;
		int *value;
	} numbers[] = {
		{ "delay_ms", &settings.delay_ms },
		{ "load_ms", &settings.load_ms },
		{ "crash", &settings.crash },
		{ "hang", &settings.hang },
		{ "garbage", &settings.garbage },
		{ "max_model_len", &settings.max_model_len },
	};

	if (strcmp(name, "load") == 0)
		snprintf(settings.load, sizeof(settings.load), "%s", value);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (strcmp(name, numbers[i].name) == 0)
			*numbers[i].value = atoi(value);
}

static void
parse_path(const char *path)
{
	const char *question = strchr(path, '?');
	char *copy;
	char *rest;

	if (question == NULL)
		return;
	copy = rest = strdup(question + 1);
	for (char *pair; (pair = strsep(&rest, "&")) != NULL;)
	{
		char *value = strchr(pair, '=');

		if (value == NULL)
			continue;
		*value++ = '\0';
		parse_setting(pair, value);
	}
	free(copy);
}

static bool
write_image(const char *path, const char *image_path, int *n_vocab,
			LlmError *err)
{
	static LlmModelConfig config;
	char dir[4096];
	FILE *file;

	snprintf(dir, sizeof(dir), "%.*s", (int) strcspn(path, "?"), path);
	if (access(dir, X_OK) == 0)
	{
		if (!llm_model_config_read(dir, &config, err))
			return false;
		*n_vocab = config.n_vocab;
		return llm_model_image_write(dir, &config, image_path, err);
	}
	file = fopen(image_path, "w");
	if (file == NULL)
		return llm_error_errno(err, "could not write \"%s\"", image_path);
	fputs("no model image", file);
	fclose(file);
	return true;
}

static void
fail_load(const LlmError *why)
{
	send_frame(LLM_MESSAGE_LOAD_FAILED, 0, why, sizeof(*why));
	flush();
	_exit(0);
}

static void
handle_load(const char *text, size_t n_bytes)
{
	LlmError err;
	cJSON *json = llm_json_parse(text, n_bytes, "load message", &err);
	const char *path = "";
	const char *image_path = "";
	int64_t crash = -1;
	int n_vocab = 1000;
	char facts[256];

	if (json == NULL || !llm_json_get_string(json, "path", &path, &err) ||
		!llm_json_get_string(json, "image_path", &image_path, &err) ||
		!llm_json_get_int(json, "debug_crash_token", &crash, &err))
		_exit(1);
	parse_path(path);
	if (crash >= 0)
		settings.crash = (int) crash;
	sleep_ms(settings.load_ms);
	if (strcmp(settings.load, "crash") == 0)
		abort();
	while (strcmp(settings.load, "hang") == 0)
		pause();
	if (strcmp(settings.load, "fail") == 0)
	{
		llm_error_set(&err, LLM_ERROR_FORMAT, "cannot load \"%s\"", path);
		llm_error_hint(&err, "It was told to fail.");
		fail_load(&err);
	}
	if (!write_image(path, image_path, &n_vocab, &err))
		fail_load(&err);
	fprintf(stderr, "fake executor loaded \"%s\"\n", path);
	snprintf(facts, sizeof(facts),
			 "{\"device\": \"fake\", \"n_vocab\": %d, \"max_model_len\": %d}",
			 n_vocab, settings.max_model_len);
	send_frame(LLM_MESSAGE_LOADED, 0, facts, strlen(facts));
	cJSON_Delete(json);
}

/* -- requests -- */

static void
finish_request(uint32_t i, LlmFinishReason reason)
{
	FakeRequest *request = &requests[i];
	LlmWireFinished finished = {
		.reason = reason,
		.n_prompt = request->wire.n_prompt,
		.n_output = request->n_output,
	};

	send_frame(LLM_MESSAGE_FINISHED, request->request_id, &finished,
			   sizeof(finished));
	free(request->prompt_ids);
	requests[i] = requests[--n_requests];
}

static void
misbehave(uint64_t request_id, int32_t token_id)
{
	if (token_id == settings.crash)
		abort();
	while (token_id == settings.hang)
		pause();
	if (token_id == settings.garbage)
		send_frame(LLM_MESSAGE_TOKENS, request_id, "garbage", 7);
}

static void
add_request(uint64_t request_id, const LlmWireRequest *wire)
{
	const int32_t *prompt_ids = (const int32_t *) (wire + 1);
	FakeRequest *request = &requests[n_requests];

	for (uint32_t i = 0; i < wire->n_prompt; i++)
		misbehave(request_id, prompt_ids[i]);
	if (n_requests == MAX_REQUESTS || wire->n_prompt == 0)
	{
		LlmError err;

		llm_error_set(&err, LLM_ERROR_INVALID, "the prompt is empty");
		send_frame(LLM_MESSAGE_FAILED, request_id, &err, sizeof(err));
		return;
	}
	*request = (FakeRequest){
		.request_id = request_id,
		.wire = *wire,
		.prompt_ids = malloc(wire->n_prompt * sizeof(int32_t)),
		.n_output = wire->n_output,
	};
	memcpy(request->prompt_ids, prompt_ids, wire->n_prompt * sizeof(int32_t));
	n_requests++;
}

static void
cancel_request(uint64_t request_id)
{
	for (uint32_t i = 0; i < n_requests; i++)
		if (requests[i].request_id == request_id)
		{
			finish_request(i, LLM_FINISH_CANCELLED);
			return;
		}
}

static void
send_token(const FakeRequest *request, int32_t token_id)
{
	struct
	{
		LlmWireTokens tokens;
		int32_t token_id;
		float logprob;
		uint32_t n_top;
		struct
		{
			int32_t token_id;
			float logprob;
		} top[LLM_MAX_LOGPROBS];
	} message = { .tokens = { .n_tokens = 1 }, .token_id = token_id };
	int32_t n_logprobs = request->wire.params.n_logprobs;
	size_t n_bytes = sizeof(LlmWireTokens) + sizeof(int32_t);

	if (n_logprobs >= 0)
	{
		message.tokens.has_logprobs = 1;
		message.logprob = -0.5f;
		message.n_top = (uint32_t) n_logprobs;
		for (int32_t i = 0; i < n_logprobs; i++)
		{
			message.top[i].token_id = token_id + i;
			message.top[i].logprob = -0.5f - (float) i;
		}
		n_bytes += 8 + 8 * (size_t) n_logprobs;
	}
	send_frame(LLM_MESSAGE_TOKENS, request->request_id, &message, n_bytes);
}

/* One token for everybody. */
static void
run_step(void)
{
	sleep_ms(settings.delay_ms);
	for (uint32_t i = 0; i < n_requests;)
	{
		FakeRequest *request = &requests[i];
		int32_t token_id =
			request->prompt_ids[request->n_output % request->wire.n_prompt];

		if (request->n_output < request->wire.params.max_tokens)
		{
			request->n_output++;
			send_token(request, token_id);
		}
		if (token_id == 0)
			finish_request(i, LLM_FINISH_STOP);
		else if (request->n_output >= request->wire.params.max_tokens)
			finish_request(i, LLM_FINISH_LENGTH);
		else
			i++;
	}
}

static void
send_stats(void)
{
	LlmWireStats stats = { .n_running = n_requests };

	send_frame(LLM_MESSAGE_STATS, 0, &stats, sizeof(stats));
}

static void
handle_frame(const LlmFrameHeader *header, const void *payload)
{
	switch (header->type)
	{
		case LLM_MESSAGE_LOAD:
			handle_load(payload, header->n_bytes);
			break;
		case LLM_MESSAGE_REQUEST:
			add_request(header->request_id, payload);
			break;
		case LLM_MESSAGE_CANCEL:
			cancel_request(header->request_id);
			break;
		case LLM_MESSAGE_ADAPTER:
		case LLM_MESSAGE_ADAPTER_FORGET:
			break; /* any adapter repeats the prompt, too */
		default:
			_exit(header->type == LLM_MESSAGE_STOP ? 0 : 1);
	}
}

int
main(void)
{
	struct sigaction action = { .sa_handler = exit_on_signal };
	struct pollfd pfd;
	LlmFrameHeader header;
	const void *payload;
	int64_t next_stats_us = 0;
	LlmError err;

	sigaction(SIGTERM, &action, NULL);
	channel = llm_channel_create(LLM_IPC_EXECUTOR_FD, &err);
	if (channel == NULL)
		return 1;
	pfd = (struct pollfd){ .fd = llm_channel_fd(channel), .events = POLLIN };
	for (;;)
	{
		LlmReceiveResult result =
			llm_channel_receive(channel, &header, &payload, &err);

		if (result == LLM_RECEIVE_CLOSED)
			return 0;
		if (result == LLM_RECEIVE_FRAME)
		{
			handle_frame(&header, payload);
			continue;
		}
		if (n_requests > 0)
			run_step();
		if (llm_clock_us() >= next_stats_us)
		{
			send_stats();
			next_stats_us = llm_clock_us() + 1000000;
		}
		flush();
		if (n_requests == 0)
			(void) poll(&pfd, 1, 1000);
	}
}
