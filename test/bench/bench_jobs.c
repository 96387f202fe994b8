/*
 * bench_jobs.c
 *	  Whole jobs on a GPU: an executor with requests, through its channel.
 *
 * The executor's loop runs on a thread of this program, with a model of made-up
 * weights; requests are sent all at once, answered greedily, and end by their
 * length.  Prompts have nothing in common.  The bound of a job is that of its
 * steps (bench_gpu_model.h): prompts in steps of 8192 tokens, then steps of all
 * sequences at their mean length.
 *
 *	  bench_jobs [--kv DTYPE] [--requests N] [IN/OUT ...]
 *
 * test/bench/bench_jobs.c
 */
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/engine/executor/executor.h"
#include "test/bench/bench_gpu_model.h"

#define MAX_SEQS 256
#define STEP_TOKENS 8192
#define MAX_LEN 4224
#define N_FIRST_TOKENS 11

static LlmExecutor executor;
static LlmChannel *channel;
static char model_dir[] = "/tmp/llm_ext-bench-jobs.XXXXXX";
static uint64_t next_id = 1;

static void *
serve(void *unused)
{
	(void) unused;
	(void) llm_executor_run(&executor);
	return NULL;
}

/* ---- a model directory, an executor, its channel ---- */

static void
write_config(void)
{
	char path[128];
	FILE *file;

	if (mkdtemp(model_dir) == NULL)
		abort();
	snprintf(path, sizeof(path), "%s/config.json", model_dir);
	file = fopen(path, "we");
	if (file == NULL || fputs(llama_8b, file) == EOF || fclose(file) != 0)
		abort();
}

static void
open_executor(const char *kv_dtype)
{
	char options[512];
	int sv[2];
	LlmError err = { 0 };

	write_config();
	snprintf(options, sizeof(options),
			 "{\"path\": \"%s\", \"device\": \"cuda\", \"load_format\": "
			 "\"dummy\", \"max_num_seqs\": %d, \"max_num_batched_tokens\": "
			 "%d, \"max_model_len\": %d, \"kv_cache_dtype\": \"%s\"}",
			 model_dir, MAX_SEQS, STEP_TOKENS, MAX_LEN, kv_dtype);
	need(llm_executor_options_parse(options, strlen(options), &executor.options,
									&err),
		 &err);
	executor.options.measure_idle = true;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) != 0)
		abort();
	executor.channel = llm_channel_create(sv[0], &err);
	channel = llm_channel_create(sv[1], &err);
	need(executor.channel != NULL && channel != NULL, &err);
	need(llm_executor_load(&executor, &err), &err);
}

static void
close_executor(pthread_t thread)
{
	char path[128];

	llm_channel_free(channel);
	pthread_join(thread, NULL);
	llm_executor_unload(&executor);
	llm_channel_free(executor.channel);
	snprintf(path, sizeof(path), "%s/config.json", model_dir);
	unlink(path);
	rmdir(model_dir);
}

/* ---- requests ---- */

static void
send_request(uint32_t n_prompt, uint32_t max_tokens)
{
	LlmWireRequest wire = { .params = llm_sampling_params_default(),
							.request_class = 1,
							.n_prompt = n_prompt };
	int32_t ids[MAX_LEN];
	LlmError err = { 0 };

	wire.params.temperature = 0;
	wire.params.max_tokens = max_tokens;
	wire.params.ignore_eos = 1;
	for (uint32_t i = 0; i < n_prompt; i++)
		ids[i] = (int32_t) ((next_id * 7919 + i * 104729) % 128000);
	need(llm_channel_send(channel, LLM_MESSAGE_REQUEST, next_id++, &wire,
						  sizeof(wire), ids, n_prompt * sizeof(int32_t), &err),
		 &err);
}

/* Until so many requests have ended, or a first token has come. */
static void
wait_for(int32_t n_ends, bool is_first_token)
{
	LlmFrameHeader header;
	const void *payload;
	LlmError err = { 0 };

	while (n_ends > 0)
	{
		struct pollfd pfd = { .fd = llm_channel_fd(channel), .events = POLLIN };

		need(llm_channel_flush(channel, &err), &err);
		if (llm_channel_pending_bytes(channel) > 0)
			pfd.events |= POLLOUT;
		switch (llm_channel_receive(channel, &header, &payload, &err))
		{
			case LLM_RECEIVE_NOTHING:
				(void) poll(&pfd, 1, -1);
				continue;
			case LLM_RECEIVE_CLOSED:
				fprintf(stderr, "the executor is gone\n");
				exit(1);
			case LLM_RECEIVE_FRAME:
				break;
		}
		if (header.type == LLM_MESSAGE_FAILED)
			need(false, payload);
		if (header.type == LLM_MESSAGE_LOG)
			fprintf(stderr, "%.*s\n",
					(int) ((const LlmWireLog *) payload)->n_bytes,
					(const char *) ((const LlmWireLog *) payload + 1));
		if (header.type == LLM_MESSAGE_FINISHED)
			n_ends--;
		if (header.type == LLM_MESSAGE_TOKENS && is_first_token)
			return;
	}
}

/* ---- what is measured ---- */

static void
measure_first_tokens(void)
{
	static const uint32_t lengths[] = { 16, 128, 1024 };

	for (int k = 0; k < 3; k++)
	{
		int64_t times[N_FIRST_TOKENS];

		for (int i = 0; i < N_FIRST_TOKENS; i++)
		{
			int64_t start_us = llm_clock_us();

			send_request(lengths[k], 2);
			wait_for(1, true);
			times[i] = llm_clock_us() - start_us;
			wait_for(1, false);
		}
		printf("first token of a prompt of %4u tokens: %8.2f ms\n", lengths[k],
			   median(times, N_FIRST_TOKENS) / 1e3);
	}
}

static double
job_bound_s(const Yardsticks *yardsticks, int32_t n_requests, uint32_t n_in,
			uint32_t n_out)
{
	int32_t n_seqs = n_requests < MAX_SEQS ? n_requests : MAX_SEQS;
	int32_t n_prompts = STEP_TOKENS / (int32_t) n_in;
	double prompts_s =
		bound_s(yardsticks, n_prompts, (int32_t) n_in, 0) / n_prompts;
	double decode_s =
		bound_s(yardsticks, n_seqs, 1, (int32_t) (n_in + n_out / 2)) / n_seqs;

	return n_requests * (prompts_s + n_out * decode_s);
}

static void
measure_job(const Yardsticks *yardsticks, int32_t n_requests, uint32_t n_in,
			uint32_t n_out)
{
	double bound_us = 1e6 * job_bound_s(yardsticks, n_requests, n_in, n_out);
	double n_tokens = (double) n_requests * n_out;
	LlmDeviceTimes times = { 0 };
	LlmPlannerStats before;
	LlmPlannerStats after;
	int64_t start_us;
	double us;

	(void) executor.compute->ops->device_times(executor.compute, &times);
	llm_planner_stats(executor.planner, &before);
	start_us = llm_clock_us();
	for (int32_t i = 0; i < n_requests; i++)
		send_request(n_in, n_out);
	wait_for(n_requests, false);
	us = (double) (llm_clock_us() - start_us);
	llm_planner_stats(executor.planner, &after);
	(void) executor.compute->ops->device_times(executor.compute, &times);
	printf("%4u/%-4u %5d requests: %9.2f s %9.1f tok/s, bound %9.1f tok/s, "
		   "%5.1f %%, idle %5.2f %% of %lld steps, %lld preemptions\n",
		   n_in, n_out, n_requests, us / 1e6, n_tokens / us * 1e6,
		   n_tokens / bound_us * 1e6, 100 * bound_us / us,
		   times.step_us > 0 ? 100 * times.idle_us / times.step_us : 0.0,
		   (long long) times.n_steps,
		   (long long) (after.n_preemptions - before.n_preemptions));
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	static const char *const all_jobs[] = { "128/128", "1000/1000", "2048/128",
											"2048/2048", NULL };
	const char *kv_dtype = "bfloat16";
	int32_t n_requests = 0;
	Yardsticks yardsticks = { .config = &executor.config };
	pthread_t thread;
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++)
	{
		if (strcmp(argv[i], "--kv") == 0 && i + 1 < argc)
			kv_dtype = argv[++i];
		else if (strcmp(argv[i], "--requests") == 0 && i + 1 < argc)
			n_requests = atoi(argv[++i]);
	}
	open_executor(kv_dtype);
	yardsticks.kv_dtype = executor.kv_spec.dtype;
	yardsticks.copy_rate = measure_copy(executor.compute);
	yardsticks.product_rate = measure_product(executor.compute);
	printf("%s, %s cache of %d tokens: loaded in %.2f s, copy %.2f TB/s, "
		   "product %.0f TFLOP/s\n",
		   executor.device.name, kv_dtype,
		   executor.kv_spec.n_blocks * executor.kv_spec.block_size,
		   (double) executor.load_us / 1e6, yardsticks.copy_rate / 1e12,
		   yardsticks.product_rate / 1e12);
	if (pthread_create(&thread, NULL, serve, NULL) != 0)
		abort();
	measure_first_tokens();
	for (const char *const *job = i < argc ? (const char *const *) argv + i
										   : all_jobs;
		 *job != NULL; job++)
	{
		unsigned n_in = 0;
		unsigned n_out = 0;

		if (sscanf(*job, "%u/%u", &n_in, &n_out) != 2 || n_in == 0 ||
			n_out == 0 || n_in + n_out > MAX_LEN)
		{
			fprintf(stderr,
					"usage: %s [--kv DTYPE] [--requests N] [IN/OUT ...]\n",
					argv[0]);
			return 1;
		}
		measure_job(&yardsticks,
					n_requests > 0 ? n_requests
					: n_out <= 128 ? 4 * MAX_SEQS
								   : MAX_SEQS,
					n_in, n_out);
	}
	close_executor(thread);
	return 0;
}
