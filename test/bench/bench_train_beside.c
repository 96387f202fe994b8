/*
 * bench_train_beside.c
 *	  Serving while a job trains on the same GPU.
 *
 * Two executors are started as the server starts them, one that serves a model
 * of made-up weights and one that trains an adapter (rank 16, all linear
 * layers, packed micro-batches of 4096 tokens) on the same weights.  This
 * program plays the scheduler: it sends requests, writes the sign by which a
 * job knows of them, and looks at the clock.  Three times, without a job, with
 * one, and with one that yields to serving:
 *
 *	  latency	  requests of 128 tokens in, 64 out, that arrive as if by
 *				  chance, four a second; how long they take, and their first
 *				  token
 *	  throughput  64 clients, each of which asks again when it is answered,
 *				  128/128
 *
 * beside the job's own rate in each of these windows, and while nothing is
 * served.
 *
 *	  bench_train_beside [--seconds N] [--model DIR] [--device DEVICE]
 *
 * test/bench/bench_train_beside.c
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/common/dataset/dataset.h"
#include "src/common/ipc/busy_sign.h"
#include "src/common/ipc/ipc_channel.h"
#include "test/bench/bench_gpu_model.h"

#define N_CLIENTS 64
#define ARRIVALS_PER_S 4
#define MAX_REQUESTS 65536
#define ROW_TOKENS 512
#define BATCH_ROWS 8
#define N_ROWS 64

/* An executor, and what it has said. */
typedef struct Process
{
	pid_t pid; /* 0: none */
	LlmChannel *channel;
	int64_t n_logs; /* of a job */
	int64_t n_trained_tokens;
} Process;

typedef struct Request
{
	int64_t sent_us;
	int64_t first_us; /* 0: no token yet */
	int64_t end_us;	  /* 0: not ended */
} Request;

/* What a window of time has shown. */
typedef struct Window
{
	double seconds;
	int64_t n_tokens; /* generated in it */
	int64_t n_trained_tokens;
	int64_t first_request; /* those that were sent in it */
	int64_t end_request;
} Window;

static const char *model_path; /* NULL: the 8B shape */
static const char *device = "cuda";
static double window_s = 12;
static char dir[] = "/tmp/llm_ext-bench-beside.XXXXXX";
static char executor_path[PATH_MAX];
static LlmModelConfig config;
static LlmBusySign sign;
static Process server;
static Process trainer;
static Request requests[MAX_REQUESTS];
static int64_t n_requests;
static int64_t n_outstanding;
static int64_t n_generated;

/* ---- files ---- */

static const char *
path_of(const char *name)
{
	static char paths[8][PATH_MAX];
	static int next;
	char *path = paths[next++ % 8];

	snprintf(path, PATH_MAX, "%s/%s", dir, name);
	return path;
}

static void
write_file(const char *path, const void *data, size_t n_bytes)
{
	FILE *file = fopen(path, "we");

	if (file == NULL || fwrite(data, 1, n_bytes, file) != n_bytes ||
		fclose(file) != 0)
	{
		fprintf(stderr, "could not write \"%s\"\n", path);
		exit(1);
	}
}

static int32_t
row_tokens(void)
{
	return config.max_position < ROW_TOKENS ? config.max_position : ROW_TOKENS;
}

/* All labels but the first. */
static void
write_dataset(void)
{
	LlmDatasetWriter writer;
	uint8_t header[LLM_DATASET_HEADER_BYTES] = { 0 };
	int32_t ids[ROW_TOKENS];
	uint8_t labels[ROW_TOKENS];
	LlmStrbuf file = { 0 };
	LlmError err = { 0 };

	llm_dataset_writer_init(&writer, LLM_DATASET_PLAIN);
	llm_strbuf_append(&file, header, sizeof(header));
	for (int i = 0; i < N_ROWS; i++)
	{
		LlmDatasetRow row = { .first = { row_tokens(), ids, labels } };

		for (int t = 0; t < row_tokens(); t++)
		{
			ids[t] = (i * 7919 + t * 104729) % config.n_vocab;
			labels[t] = t > 0;
		}
		need(llm_dataset_write_row(&writer, &row, &file, &err), &err);
	}
	need(llm_dataset_write_end(&writer, &file, header, &err), &err);
	memcpy(file.data, header, sizeof(header));
	write_file(path_of("dataset"), file.data, file.len);
	llm_dataset_writer_free(&writer);
	llm_strbuf_free(&file);
}

static void
write_files(void)
{
	LlmError err = { 0 };

	if (mkdtemp(dir) == NULL)
		abort();
	write_file(path_of("config.json"), llama_8b, strlen(llama_8b));
	if (model_path == NULL)
		model_path = dir;
	need(llm_model_config_read(model_path, &config, &err), &err);
	write_dataset();
	need(llm_busy_sign_create(&sign, path_of("busy"), &err), &err);
}

static void
remove_files(void)
{
	static const char *const names[] = { "config.json", "dataset", "busy",
										 "adapter" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		(void) unlink(path_of(names[i]));
	(void) rmdir(dir);
}

/* ---- executors ---- */

static void
start_process(Process *process)
{
	int sv[2];
	LlmError err = { 0 };

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0)
		abort();
	*process = (Process){ .pid = fork() };
	if (process->pid == 0)
	{
		dup2(sv[1], LLM_IPC_EXECUTOR_FD);
		execl(executor_path, "llm_executor", (char *) NULL);
		_exit(127);
	}
	close(sv[1]);
	process->channel = llm_channel_create(sv[0], &err);
	need(process->pid > 0 && process->channel != NULL, &err);
}

static void
end_process(Process *process)
{
	if (process->pid == 0)
		return;
	(void) kill(process->pid, SIGTERM);
	while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR)
		;
	llm_channel_free(process->channel);
	*process = (Process){ 0 };
}

static void
send_json(Process *process, LlmMessageType type, LlmStrbuf *json)
{
	LlmError err = { 0 };

	need(llm_channel_send(process->channel, type, 0, json->data, json->len,
						  NULL, 0, &err),
		 &err);
	llm_strbuf_free(json);
}

static void
fail_with(const void *payload)
{
	LlmError err;

	memcpy(&err, payload, sizeof(err));
	end_process(&trainer);
	end_process(&server);
	remove_files();
	fprintf(stderr, "%s\n%s\n", err.message, err.hint);
	exit(1);
}

static void
take_frame(Process *process, const LlmFrameHeader *header, const void *payload)
{
	LlmWireTrainLog log;
	LlmWireTokens tokens;

	switch (header->type)
	{
		case LLM_MESSAGE_LOG:
			printf("  %.*s\n", (int) ((const LlmWireLog *) payload)->n_bytes,
				   (const char *) ((const LlmWireLog *) payload + 1));
			break;
		case LLM_MESSAGE_TOKENS:
			memcpy(&tokens, payload, sizeof(tokens));
			n_generated += tokens.n_tokens;
			if (requests[header->request_id].first_us == 0)
				requests[header->request_id].first_us = llm_clock_us();
			break;
		case LLM_MESSAGE_FINISHED:
			requests[header->request_id].end_us = llm_clock_us();
			n_outstanding--;
			llm_busy_sign_set(&sign, (uint32_t) n_outstanding);
			break;
		case LLM_MESSAGE_TRAIN_LOG:
			memcpy(&log, payload, sizeof(log));
			process->n_logs++;
			process->n_trained_tokens += log.n_tokens;
			break;
		case LLM_MESSAGE_LOADED:
			process->n_logs = 1;
			break;
		case LLM_MESSAGE_FAILED:
		case LLM_MESSAGE_LOAD_FAILED:
			fail_with(payload);
			break;
		default:
			break;
	}
}

static void
take_frames(Process *process)
{
	LlmFrameHeader header;
	const void *payload;
	LlmError err = { 0 };

	if (process->pid == 0)
		return;
	need(llm_channel_flush(process->channel, &err), &err);
	for (;;)
	{
		switch (llm_channel_receive(process->channel, &header, &payload, &err))
		{
			case LLM_RECEIVE_NOTHING:
				return;
			case LLM_RECEIVE_CLOSED:
				fprintf(stderr, "an executor is gone\n");
				exit(1);
			case LLM_RECEIVE_FRAME:
				take_frame(process, &header, payload);
		}
	}
}

/* Whatever comes until then. */
static void
turn(int64_t until_us)
{
	Process *const both[] = { &server, &trainer };
	struct pollfd pfds[2];
	int64_t left_us = until_us - llm_clock_us();
	nfds_t n = 0;

	for (int i = 0; i < 2; i++)
	{
		if (both[i]->pid == 0)
			continue;
		pfds[n] = (struct pollfd){ .fd = llm_channel_fd(both[i]->channel),
								   .events = POLLIN };
		if (llm_channel_pending_bytes(both[i]->channel) > 0)
			pfds[n].events |= POLLOUT;
		n++;
	}
	(void) poll(pfds, n, left_us <= 0 ? 0 : (int) (left_us / 1000) + 1);
	take_frames(&server);
	take_frames(&trainer);
}

static void
start_server(void)
{
	LlmStrbuf json = { 0 };
	int64_t start_us = llm_clock_us();

	start_process(&server);
	llm_strbuf_printf(
		&json,
		"{\"path\": \"%s\", \"device\": \"%s\", \"load_format\": \"dummy\", "
		"\"share_dir\": \"%s\", \"max_num_seqs\": %d, \"max_model_len\": %d, "
		"\"kv_cache_memory_bytes\": %lld}",
		model_path, device, dir, N_CLIENTS,
		config.max_position < 1024 ? config.max_position : 1024,
		strcmp(device, "cpu") == 0 ? 64ll << 20 : 8ll << 30);
	send_json(&server, LLM_MESSAGE_LOAD, &json);
	while (server.n_logs == 0)
		turn(INT64_MAX / 2);
	printf("the model was loaded in %.1f s\n",
		   (double) (llm_clock_us() - start_us) / 1e6);
}

/* Until its second step is through. */
static void
start_trainer(bool yields)
{
	LlmStrbuf json = { 0 };
	int64_t start_us = llm_clock_us();

	start_process(&trainer);
	llm_strbuf_printf(
		&json,
		"{\"path\": \"%s\", \"device\": \"%s\", \"load_format\": \"dummy\", "
		"\"share_dir\": \"%s\", \"dataset\": \"%s\", \"output\": \"%s\", "
		"\"lora_rank\": 16, \"cutoff_len\": %d, \"max_tokens\": %d, "
		"\"per_device_train_batch_size\": %d, \"max_steps\": 1000000, "
		"\"learning_rate\": 0.00001, \"busy_sign\": \"%s\", "
		"\"yield_to_serving\": %s}",
		model_path, device, dir, path_of("dataset"), path_of("adapter"),
		row_tokens(), row_tokens() * BATCH_ROWS, BATCH_ROWS, path_of("busy"),
		yields ? "true" : "false");
	send_json(&trainer, LLM_MESSAGE_TRAIN, &json);
	while (trainer.n_logs < 2)
		turn(INT64_MAX / 2);
	printf("the job's second step was through after %.1f s\n",
		   (double) (llm_clock_us() - start_us) / 1e6);
}

/* ---- requests ---- */

static void
send_request(uint32_t n_prompt, uint32_t max_tokens)
{
	LlmWireRequest wire = { .params = llm_sampling_params_default(),
							.n_prompt = n_prompt };
	int32_t ids[256];
	LlmError err = { 0 };

	if (n_requests == MAX_REQUESTS)
		abort();
	wire.params.temperature = 0;
	wire.params.max_tokens = max_tokens;
	wire.params.ignore_eos = 1;
	for (uint32_t i = 0; i < n_prompt; i++)
		ids[i] = (int32_t) (((uint32_t) n_requests * 7919 + i * 104729) %
							(uint32_t) config.n_vocab);
	llm_busy_sign_set(&sign, (uint32_t) ++n_outstanding);
	requests[n_requests].sent_us = llm_clock_us();
	need(llm_channel_send(server.channel, LLM_MESSAGE_REQUEST,
						  (uint64_t) n_requests++, &wire, sizeof(wire), ids,
						  n_prompt * sizeof(int32_t), &err),
		 &err);
	need(llm_channel_flush(server.channel, &err), &err);
}

static uint32_t
shortened(int32_t n)
{
	int32_t most = config.max_position / 4;

	return (uint32_t) (n < most ? n : most);
}

/* Exponential, of mean 1 / ARRIVALS_PER_S; the same ones every time. */
static int64_t
next_gap_us(uint64_t *random)
{
	*random = *random * 6364136223846793005u + 1442695040888963407u;
	return (
		int64_t) (-log(((double) (*random >> 11) + 1) / 9007199254740993.0) *
				  1e6 / ARRIVALS_PER_S);
}

typedef enum Load
{
	LOAD_NONE,
	LOAD_ARRIVALS,
	LOAD_CLIENTS
} Load;

static Window
run_window(Load load, double seconds)
{
	Window window = { .first_request = n_requests };
	int64_t start_us = llm_clock_us();
	int64_t end_us = start_us + (int64_t) (seconds * 1e6);
	int64_t due_us = end_us;
	uint64_t random = 1;
	int64_t generated = n_generated;
	int64_t trained = trainer.n_trained_tokens;

	if (load == LOAD_ARRIVALS)
		due_us = start_us + next_gap_us(&random);
	while (llm_clock_us() < end_us)
	{
		while (load == LOAD_CLIENTS && n_outstanding < N_CLIENTS)
			send_request(shortened(128), shortened(128));
		while (load == LOAD_ARRIVALS && due_us <= llm_clock_us())
		{
			send_request(shortened(128), shortened(64));
			due_us += next_gap_us(&random);
		}
		turn(due_us < end_us ? due_us : end_us);
	}
	window.seconds = (double) (llm_clock_us() - start_us) / 1e6;
	window.n_tokens = n_generated - generated;
	window.n_trained_tokens = trainer.n_trained_tokens - trained;
	window.end_request = n_requests;
	while (n_outstanding > 0)
		turn(INT64_MAX / 2);
	return window;
}

/* ---- what is shown ---- */

static double
percentile_ms(const Window *window, bool of_first_tokens, int percent)
{
	static int64_t times[MAX_REQUESTS];
	size_t n = 0;

	for (int64_t i = window->first_request; i < window->end_request; i++)
		times[n++] =
			(of_first_tokens ? requests[i].first_us : requests[i].end_us) -
			requests[i].sent_us;
	if (n == 0)
		return 0;
	qsort(times, n, sizeof(int64_t), compare_times);
	return (double) times[(n - 1) * (size_t) percent / 100] / 1e3;
}

static double
training_rate(const Window *window)
{
	return (double) window->n_trained_tokens / window->seconds;
}

static void
show_windows(const char *name, const Window *idle, const Window *arrivals,
			 const Window *clients)
{
	printf(
		"%-14s | %7.1f %7.1f %7.1f %7.1f %7.0f | %8.0f %7.0f | %7.0f\n", name,
		percentile_ms(arrivals, false, 50), percentile_ms(arrivals, false, 95),
		percentile_ms(arrivals, true, 50), percentile_ms(arrivals, true, 95),
		training_rate(arrivals), (double) clients->n_tokens / clients->seconds,
		training_rate(clients), training_rate(idle));
	fflush(stdout);
}

static void
show_memory(const char *when)
{
	FILE *pipe;
	char line[128] = "";

	if (strcmp(device, "cuda") != 0)
		return;
	fflush(stdout);
	pipe = popen("nvidia-smi --query-gpu=memory.used --format=csv,noheader "
				 "2>/dev/null",
				 "r");
	if (pipe == NULL)
		return;
	if (fgets(line, sizeof(line), pipe) != NULL)
		printf("memory in use %s: %s", when, line);
	(void) pclose(pipe);
}

static void
measure(Window windows[3])
{
	windows[0] = run_window(LOAD_NONE, trainer.pid != 0 ? window_s / 3 : 0.01);
	windows[1] = run_window(LOAD_ARRIVALS, window_s);
	windows[2] = run_window(LOAD_CLIENTS, window_s * 2 / 3);
}

static int
usage(const char *program)
{
	fprintf(stderr, "usage: %s [--seconds N] [--model DIR] [--device DEVICE]\n",
			program);
	return 1;
}

int
main(int argc, char **argv)
{
	static const char *const names[] = { "no job", "a job", "one that yields" };
	Window windows[3][3];

	for (int i = 1; i < argc; i += 2)
	{
		if (i + 1 < argc && strcmp(argv[i], "--seconds") == 0)
			window_s = atof(argv[i + 1]);
		else if (i + 1 < argc && strcmp(argv[i], "--model") == 0)
			model_path = argv[i + 1];
		else if (i + 1 < argc && strcmp(argv[i], "--device") == 0)
			device = argv[i + 1];
		else
			return usage(argv[0]);
	}
	snprintf(executor_path, sizeof(executor_path), "%s/../../llm_executor",
			 dirname(argv[0]));
	setvbuf(stdout, NULL, _IOLBF, 0);
	write_files();
	start_server();
	(void) run_window(LOAD_CLIENTS, 1);
	for (int i = 0; i < 3; i++)
	{
		if (i > 0)
			start_trainer(i == 2);
		show_memory(names[i]);
		measure(windows[i]);
		end_process(&trainer);
	}
	printf("%-14s | %31s %7s | %8s %7s | %7s\n", "",
		   "4 requests/s: ms, ms of 1st token", "job", "64 cli.", "job",
		   "alone");
	printf("%-14s | %7s %7s %7s %7s %7s | %8s %7s | %7s\n", "", "median", "p95",
		   "median", "p95", "tok/s", "tok/s", "tok/s", "tok/s");
	for (int i = 0; i < 3; i++)
		show_windows(names[i], &windows[i][0], &windows[i][1], &windows[i][2]);
	end_process(&server);
	remove_files();
	return 0;
}
