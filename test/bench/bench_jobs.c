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
 * With --adapters N, N adapters of rank 16 on all linear layers are known, 64 of
 * them fit the device, and 256 clients ask for one after the other with Zipf's
 * frequencies; beside it the same without adapters.  All adapters are one file
 * under N names, so what is measured is where they have to be, not their disk.
 *
 *	  bench_jobs [--kv DTYPE] [--requests N] [--cache DIR] [--deterministic]
 *				 [--adapters N] [IN/OUT ...]
 *
 * test/bench/bench_jobs.c
 */
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/common/adapter/adapter.h"
#include "src/engine/executor/executor.h"
#include "test/bench/bench_gpu_model.h"

#define MAX_SEQS 256
#define STEP_TOKENS 8192
#define MAX_LEN 4224
#define N_FIRST_TOKENS 11
#define N_SLOTS 64
#define MAX_ADAPTERS 4096
#define RANK 16

/* What the command line asks for. */
typedef struct JobOptions
{
	const char *kv_dtype;
	const char *cache_dir;
	bool deterministic;
	int32_t n_requests; /* 0: as many as the job wants */
	int32_t n_adapters;
} JobOptions;

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
open_executor(const JobOptions *wanted)
{
	char options[4096];
	int sv[2];
	LlmError err = { 0 };

	write_config();
	snprintf(options, sizeof(options),
			 "{\"path\": \"%s\", \"device\": \"cuda\", \"load_format\": "
			 "\"dummy\", \"max_num_seqs\": %d, \"max_num_batched_tokens\": "
			 "%d, \"max_model_len\": %d, \"kv_cache_dtype\": \"%s\", "
			 "\"cache_dir\": \"%s\", \"deterministic\": %s, "
			 "\"max_loras\": %d, \"max_cpu_loras\": %d}",
			 model_dir, MAX_SEQS, STEP_TOKENS, MAX_LEN, wanted->kv_dtype,
			 wanted->cache_dir, wanted->deterministic ? "true" : "false",
			 wanted->n_adapters > 0 ? N_SLOTS : 0, 4 * N_SLOTS);
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
send_request(uint32_t n_prompt, uint32_t max_tokens, uint64_t adapter_id)
{
	LlmWireRequest wire = { .params = llm_sampling_params_default(),
							.request_class = 1,
							.adapter_id = adapter_id,
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

			send_request(lengths[k], 2, 0);
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
		send_request(n_in, n_out, 0);
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

/* ---- adapters ---- */

static const char *const module_names[] = {
	"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
	"self_attn.o_proj", "mlp.gate_proj",	"mlp.up_proj",
	"mlp.down_proj",
};

static void
module_shape(const LlmModelConfig *config, int module, int64_t *n_in,
			 int64_t *n_out)
{
	int64_t q = (int64_t) config->n_heads * config->head_dim;
	int64_t kv = (int64_t) config->n_kv_heads * config->head_dim;
	int64_t hidden = config->hidden_size;
	int64_t inner = config->intermediate_size;
	const int64_t shapes[][2] = { { hidden, q },	 { hidden, kv },
								  { hidden, kv },	 { q, hidden },
								  { hidden, inner }, { hidden, inner },
								  { inner, hidden } };

	*n_in = shapes[module][0];
	*n_out = shapes[module][1];
}

/* A safetensors file as PEFT writes it: its header, and how long its data is. */
static size_t
write_header(const LlmModelConfig *config, LlmStrbuf *header)
{
	size_t at = 0;

	llm_strbuf_printf(header, "{");
	for (int32_t layer = 0; layer < config->n_layers; layer++)
		for (int m = 0; m < 7; m++)
			for (int half = 0; half < 2; half++)
			{
				int64_t n_in;
				int64_t n_out;
				size_t n_bytes;

				module_shape(config, m, &n_in, &n_out);
				n_bytes = (size_t) ((half == 0 ? n_in : n_out) * RANK * 2);
				llm_strbuf_printf(
					header,
					"%s\"base_model.model.model.layers.%d.%s.lora_%c.weight\": "
					"{\"dtype\": \"BF16\", \"shape\": [%lld, %lld], "
					"\"data_offsets\": [%zu, %zu]}",
					at == 0 ? "" : ", ", layer, module_names[m], "AB"[half],
					(long long) (half == 0 ? RANK : n_out),
					(long long) (half == 0 ? n_in : RANK), at, at + n_bytes);
				at += n_bytes;
			}
	llm_strbuf_printf(header, "}");
	return at;
}

static void
write_tensors(const char *path)
{
	FILE *file = fopen(path, "we");
	LlmStrbuf header;
	size_t n_bytes;
	uint64_t n_header;
	uint64_t random = 1;

	if (file == NULL)
		abort();
	llm_strbuf_init(&header);
	n_bytes = write_header(&executor.config, &header);
	n_header = header.len;
	fwrite(&n_header, 8, 1, file);
	fwrite(header.data, 1, header.len, file);
	/* about 0.01 with a random sign and mantissa */
	for (size_t i = 0; i < n_bytes / 2; i++)
	{
		uint16_t half;

		random = random * 6364136223846793005u + 1442695040888963407u;
		half = (uint16_t) (0x3c00 | (random >> 33 & 0x807f));
		fwrite(&half, 2, 1, file);
	}
	if (fclose(file) != 0)
		abort();
	llm_strbuf_free(&header);
}

/* The adapter's image, as the server writes it, to path. */
static void
write_adapter(const char *path)
{
	static const char config[] =
		"{\"peft_type\": \"LORA\", \"r\": 16, \"lora_alpha\": 16, "
		"\"target_modules\": \"all-linear\", \"bias\": \"none\", "
		"\"task_type\": \"CAUSAL_LM\"}";
	uint8_t base[LLM_FINGERPRINT_BYTES] = { 0 };
	LlmAdapterSource source = { config, strlen(config), NULL };
	LlmStrbuf image;
	LlmError err = { 0 };
	char tensors[128];
	FILE *file;

	snprintf(tensors, sizeof(tensors), "%s/adapter.safetensors", model_dir);
	write_tensors(tensors);
	source.tensors_path = tensors;
	llm_strbuf_init(&image);
	need(llm_adapter_import(&source, &executor.config, base, &image, &err),
		 &err);
	unlink(tensors);
	file = fopen(path, "we");
	if (file == NULL || fwrite(image.data, 1, image.len, file) != image.len ||
		fclose(file) != 0)
		abort();
	llm_strbuf_free(&image);
}

static void
announce_adapter(uint64_t adapter_id, const char *path)
{
	LlmWireAdapter wire = { adapter_id, 0, (uint32_t) strlen(path) };
	LlmError err = { 0 };

	need(llm_channel_send(channel, LLM_MESSAGE_ADAPTER, 0, &wire, sizeof(wire),
						  path, strlen(path), &err),
		 &err);
}

/* The next adapter, by Zipf's frequencies: number i with 1 / i. */
static uint64_t
draw_adapter(const double *sums, int32_t n, uint64_t *random)
{
	double x;
	int32_t i = 0;

	*random = *random * 6364136223846793005u + 1442695040888963407u;
	x = (double) (*random >> 11) / 9007199254740992.0 * sums[n - 1];
	while (i < n - 1 && sums[i] <= x)
		i++;
	return (uint64_t) i + 1;
}

/* Waits for one request to end; its number. */
static uint64_t
wait_for_end(void)
{
	LlmFrameHeader header;
	const void *payload;
	LlmError err = { 0 };

	for (;;)
	{
		struct pollfd pfd = { .fd = llm_channel_fd(channel), .events = POLLIN };

		need(llm_channel_flush(channel, &err), &err);
		if (llm_channel_pending_bytes(channel) > 0)
			pfd.events |= POLLOUT;
		if (llm_channel_receive(channel, &header, &payload, &err) !=
			LLM_RECEIVE_FRAME)
		{
			(void) poll(&pfd, 1, -1);
			continue;
		}
		if (header.type == LLM_MESSAGE_FAILED)
			need(false, payload);
		if (header.type == LLM_MESSAGE_FINISHED)
			return header.request_id;
	}
}

/* MAX_SEQS clients, each asking again when it is answered. */
static void
measure_clients(const double *sums, int32_t n_adapters, int32_t n_requests)
{
	const uint32_t n_tokens = 128;
	uint64_t first_id = next_id;
	uint64_t random = 1;
	int64_t *times = malloc((size_t) n_requests * sizeof(int64_t));
	int64_t start_us = llm_clock_us();
	int32_t n_sent = 0;
	uint64_t i;
	int64_t us;

	if (times == NULL)
		abort();
	for (int32_t n_ended = 0; n_ended < n_requests;)
	{
		while (n_sent < n_requests && n_sent - n_ended < MAX_SEQS)
		{
			times[n_sent++] = llm_clock_us();
			send_request(
				n_tokens, n_tokens,
				n_adapters > 0 ? draw_adapter(sums, n_adapters, &random) : 0);
		}
		i = wait_for_end() - first_id;
		times[i] = llm_clock_us() - times[i];
		n_ended++;
	}
	us = llm_clock_us() - start_us;
	qsort(times, (size_t) n_requests, sizeof(int64_t), compare_times);
	printf("%5d adapters, %d slots, %d requests 128/128 of %d clients: %9.1f "
		   "tok/s, median %7.1f ms, p95 %7.1f ms\n",
		   n_adapters, N_SLOTS, n_requests, MAX_SEQS,
		   (double) n_requests * n_tokens / (double) us * 1e6,
		   (double) times[n_requests / 2] / 1e3,
		   (double) times[n_requests * 95 / 100] / 1e3);
	fflush(stdout);
	free(times);
}

static void
measure_adapters(int32_t n_adapters, int32_t n_requests)
{
	static double sums[MAX_ADAPTERS];
	char path[128];

	snprintf(path, sizeof(path), "%s/adapter", model_dir);
	write_adapter(path);
	for (int32_t i = 0; i < n_adapters; i++)
	{
		sums[i] = (i > 0 ? sums[i - 1] : 0) + 1.0 / (i + 1);
		announce_adapter((uint64_t) i + 1, path);
	}
	for (int round = 0; round < 2; round++)
	{
		measure_clients(NULL, 0, n_requests);
		measure_clients(sums, n_adapters, n_requests);
	}
	unlink(path);
}

static int
usage(const char *program)
{
	fprintf(stderr,
			"usage: %s [--kv DTYPE] [--requests N] [--cache DIR] "
			"[--deterministic] [--adapters N] [IN/OUT ...]\n",
			program);
	return 1;
}

/* The index of the first job, or -1. */
static int
read_options(int argc, char **argv, JobOptions *options)
{
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++)
	{
		bool has_value = i + 1 < argc;

		if (strcmp(argv[i], "--kv") == 0 && has_value)
			options->kv_dtype = argv[++i];
		else if (strcmp(argv[i], "--requests") == 0 && has_value)
			options->n_requests = atoi(argv[++i]);
		else if (strcmp(argv[i], "--cache") == 0 && has_value)
			options->cache_dir = argv[++i];
		else if (strcmp(argv[i], "--adapters") == 0 && has_value)
			options->n_adapters = atoi(argv[++i]);
		else if (strcmp(argv[i], "--deterministic") == 0)
			options->deterministic = true;
		else
			return -1;
	}
	return options->n_adapters <= MAX_ADAPTERS ? i : -1;
}

static void
open_all(const JobOptions *options, Yardsticks *yardsticks)
{
	open_executor(options);
	yardsticks->kv_dtype = executor.kv_spec.dtype;
	yardsticks->copy_rate = measure_copy(executor.compute);
	yardsticks->product_rate = measure_product(executor.compute);
	printf("%s, %s cache of %d tokens: loaded in %.2f s, copy %.2f TB/s, "
		   "product %.0f TFLOP/s%s\n",
		   executor.device.name, options->kv_dtype,
		   executor.kv_spec.n_blocks * executor.kv_spec.block_size,
		   (double) executor.load_us / 1e6, yardsticks->copy_rate / 1e12,
		   yardsticks->product_rate / 1e12,
		   options->deterministic ? ", deterministic" : "");
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	static const char *const all_jobs[] = { "128/128", "1000/1000", "2048/128",
											"2048/2048", NULL };
	JobOptions options = { .kv_dtype = "bfloat16", .cache_dir = "" };
	Yardsticks yardsticks = { .config = &executor.config };
	pthread_t thread;
	int i = read_options(argc, argv, &options);

	if (i < 0)
		return usage(argv[0]);
	open_all(&options, &yardsticks);
	if (pthread_create(&thread, NULL, serve, NULL) != 0)
		abort();
	if (options.n_adapters > 0)
		measure_adapters(options.n_adapters, options.n_requests > 0
												 ? options.n_requests
												 : 8 * MAX_SEQS);
	else
		measure_first_tokens();
	for (const char *const *job = i < argc ? (const char *const *) argv + i
								  : options.n_adapters > 0 ? all_jobs + 4
														   : all_jobs;
		 *job != NULL; job++)
	{
		unsigned n_in = 0;
		unsigned n_out = 0;

		if (sscanf(*job, "%u/%u", &n_in, &n_out) != 2 || n_in == 0 ||
			n_out == 0 || n_in + n_out > MAX_LEN)
			return usage(argv[0]);
		measure_job(&yardsticks,
					options.n_requests > 0 ? options.n_requests
					: n_out <= 128		   ? 4 * MAX_SEQS
										   : MAX_SEQS,
					n_in, n_out);
	}
	close_executor(thread);
	return 0;
}
