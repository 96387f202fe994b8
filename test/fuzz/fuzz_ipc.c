/*
 * fuzz_ipc.c
 *	  Any bytes as what the scheduler says to an executor with a loaded
 *	  model: requests are served or refused, and the loop ends with its
 *	  channel.
 *
 * The input is a series of frames: a type byte, two bytes of length, the
 * payload.  Headers are made here, or nothing would get beyond them; the type
 * 255 sends its payload as it is, header and all.  A message of a type that
 * an executor does not know ends it, as it should: types that are not are
 * sent as requests.
 *
 * test/fuzz/fuzz_ipc.c
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "src/engine/executor/executor.h"
#include "test/fuzz/fuzz.h"

#define RAW_FRAME 255

/* The executor is idle when it has said nothing for so long. */
#define QUIET_MS 4

/* Most quiet-free rounds: a request may be long. */
#define MAX_ROUNDS 2000

static const char config_json[] =
	"{\"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": 64, "
	"\"hidden_size\": 16, \"intermediate_size\": 16, \"num_hidden_layers\": 1, "
	"\"num_attention_heads\": 2, \"max_position_embeddings\": 64, "
	"\"eos_token_id\": 2}";

typedef struct Scheduler
{
	const uint8_t *data;
	size_t size;
	int fd;
} Scheduler;

/* Sends what the socket takes; an executor that has gone is fine. */
static bool
send_all(int fd, const void *bytes, size_t n_bytes)
{
	const char *at = bytes;

	while (n_bytes > 0)
	{
		ssize_t n = send(fd, at, n_bytes, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		at += n;
		n_bytes -= (size_t) n;
	}
	return true;
}

static LlmFrameHeader
header_of(uint8_t type, size_t n_bytes, uint64_t request_id)
{
	LlmFrameHeader header = { .n_bytes = (uint32_t) n_bytes,
							  .type = LLM_MESSAGE_REQUEST,
							  .version = LLM_IPC_VERSION,
							  .request_id = request_id };

	if (type == LLM_MESSAGE_CANCEL || type == LLM_MESSAGE_STOP)
		header.type = type;
	return header;
}

/*
 * Payload that begins with a header of the fuzzer's.  One that promises more
 * than follows is the last: what came next would be taken for its payload,
 * and then anything for a header, which ends an executor, as it should.
 */
static bool
send_raw(int fd, const uint8_t *payload, size_t n_bytes)
{
	LlmFrameHeader header;
	size_t n_payload;

	if (n_bytes < sizeof(header))
		return send_all(fd, payload, n_bytes) && false;
	memcpy(&header, payload, sizeof(header));
	header.type = LLM_MESSAGE_REQUEST;
	n_payload = n_bytes - sizeof(header);
	if (n_payload > header.n_bytes)
		n_payload = header.n_bytes;
	return send_all(fd, &header, sizeof(header)) &&
		   send_all(fd, payload + sizeof(header), n_payload) &&
		   n_payload == header.n_bytes;
}

static bool
send_frames(const Scheduler *scheduler)
{
	const uint8_t *at = scheduler->data;
	size_t left = scheduler->size;
	uint64_t request_id = 1;

	while (left >= 3)
	{
		size_t n = (size_t) (at[1] | at[2] << 8);
		LlmFrameHeader header;
		bool ok;

		if (n > left - 3)
			n = left - 3;
		header = header_of(at[0], n, request_id);
		if (header.type == LLM_MESSAGE_REQUEST)
			request_id++;
		else
			header.request_id--; /* about the request before it */
		ok = at[0] == RAW_FRAME
				 ? send_raw(scheduler->fd, at + 3, n)
				 : send_all(scheduler->fd, &header, sizeof(header)) &&
					   send_all(scheduler->fd, at + 3, n);
		if (!ok)
			return false;
		at += 3 + n;
		left -= 3 + n;
	}
	return true;
}

/* The other end of the channel: speak, listen until it is quiet, hang up. */
static void *
scheduler_main(void *arg)
{
	const Scheduler *scheduler = arg;
	static char answer[65536];

	if (send_frames(scheduler))
	{
		for (int i = 0; i < MAX_ROUNDS; i++)
		{
			struct pollfd pfd = { .fd = scheduler->fd, .events = POLLIN };

			if (poll(&pfd, 1, QUIET_MS) <= 0 ||
				recv(scheduler->fd, answer, sizeof(answer), 0) <= 0)
				break;
		}
	}
	shutdown(scheduler->fd, SHUT_RDWR);
	return NULL;
}

static const char *
model_dir(void)
{
	static char dir[] = "/tmp/llm_fuzz_XXXXXX";
	static bool is_made;
	char path[FUZZ_PATH_BYTES];
	FILE *file;

	if (is_made)
		return dir;
	is_made = true;
	if (mkdtemp(dir) == NULL)
		abort();
	snprintf(path, sizeof(path), "%s/config.json", dir);
	file = fopen(path, "w");
	if (file == NULL || fputs(config_json, file) < 0 || fclose(file) != 0)
		abort();
	return dir;
}

static void
load(LlmExecutor *executor)
{
	char json[256];
	LlmError err;

	snprintf(json, sizeof(json),
			 "{\"path\": \"%s\", \"device\": \"cpu\", \"load_format\": "
			 "\"dummy\", \"num_threads\": 1, \"max_num_seqs\": 4, "
			 "\"max_num_batched_tokens\": 16, \"kv_cache_memory_bytes\": "
			 "65536}",
			 model_dir());
	if (!llm_executor_options_parse(json, strlen(json), &executor->options,
									&err) ||
		!llm_executor_load(executor, &err))
	{
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	LlmExecutor executor;
	Scheduler scheduler = { data, size, -1 };
	pthread_t thread;
	LlmError err;
	int fds[2];

	memset(&executor, 0, sizeof(executor));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
		abort();
	scheduler.fd = fds[1];
	executor.channel = llm_channel_create(fds[0], &err);
	if (executor.channel == NULL)
		abort();
	load(&executor);
	if (pthread_create(&thread, NULL, scheduler_main, &scheduler) != 0)
		abort();
	FUZZ_CHECK(llm_executor_run(&executor) == 0);
	llm_executor_unload(&executor);
	llm_channel_free(executor.channel);
	pthread_join(thread, NULL);
	close(scheduler.fd);
	return 0;
}
