/*
 * bench_decode.c
 *	  The forward pass alone: prefill and decode with made-up weights.
 *
 * Decoding reads every weight once per step, whatever the batch, so its bound
 * is the memory's bandwidth; the loop that measures it reads a buffer of 1 GiB
 * with as many threads, before and after each row of the table, and its best
 * round counts, since others may use the machine meanwhile.  The model is of
 * Llama 3.2 1B's shape unless --config names a directory or a GGUF file.
 *
 *	  bench_decode [--csv] [--config DIR [--weights]] [--threads N]
 *				   [--dtype NAME] [--quantization none|int8|int4]
 *				   [--steps N] [--parts] [--cpu-time]
 *
 * Rows are of floats, int8 and int4 weights, unless --quantization asks for
 * some of them alone.
 *
 * --weights uses the directory's own weights, mapped, instead of made-up ones.
 * --threads 1 --cpu-time counts the time that this program was given instead
 * of the time that passed, for machines that others use.
 *
 * test/bench/bench_decode.c
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/common/util/clock.h"
#include "src/engine/model/model.h"

#define BLOCK_SIZE 16
#define N_PREFILL 512
#define MAX_SEQS 32
#define DECODE_CONTEXT 128
#define MAX_LEN 1024
#define MAX_BLOCKS_PER_SEQ (MAX_LEN / BLOCK_SIZE)
#define READ_BYTES ((size_t) 1 << 30)
#define MAX_THREADS 64
#define N_QUANTIZATIONS 3
#define MAX_ROWS (N_QUANTIZATIONS * 4)

static const char llama_1b[] =
	"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
	"\"vocab_size\": 128256, \"hidden_size\": 2048, \"intermediate_size\": "
	"8192,"
	"\"num_hidden_layers\": 16, \"num_attention_heads\": 32,"
	"\"num_key_value_heads\": 8, \"head_dim\": 64, \"rms_norm_eps\": 1e-05,"
	"\"max_position_embeddings\": 131072, \"tie_word_embeddings\": true,"
	"\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\","
	"\"factor\": 32.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0,"
	"\"original_max_position_embeddings\": 8192}, \"dtype\": \"bfloat16\"}";

static const struct
{
	const char *name;
	LlmQuantization quantization;
} quantizations[N_QUANTIZATIONS] = {
	{ "none", LLM_QUANTIZATION_NONE },
	{ "int8", LLM_QUANTIZATION_INT8 },
	{ "int4", LLM_QUANTIZATION_INT4 },
};

typedef struct Options
{
	bool csv;
	bool parts;
	bool real_weights;
	bool cpu_time;
	bool measures[N_QUANTIZATIONS]; /* of quantizations */
	const char *config_dir;
	int n_threads;
	int n_steps;
	LlmDtype dtype;
} Options;

typedef struct Bench
{
	Options options;
	LlmModelConfig config;
	LlmCompute *compute;
	LlmModel *model;
	LlmKvCache *kv;
	const char *weights; /* at work: a dtype or a quantization */
	const uint64_t *read_words;
	double bandwidth; /* bytes per second */
	const char *isa;
	int n_threads;
	int n_rows;
	struct BenchRow
	{
		const char *weights;
		char name[32];
		int32_t n_tokens;
		double step_us;
		double weight_bytes;
		LlmModelTiming timing;
	} rows[MAX_ROWS];
	int32_t token_ids[N_PREFILL];
	int32_t positions[N_PREFILL];
	int32_t token_seq[N_PREFILL];
	int32_t query_start[MAX_SEQS + 1];
	int32_t context_len[MAX_SEQS];
	int32_t rope_len[MAX_SEQS];
	int32_t block_tables[MAX_SEQS * MAX_BLOCKS_PER_SEQ];
	int32_t logit_rows[MAX_SEQS];
} Bench;

static void
fail(const LlmError *err)
{
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

/* ---- what the memory gives ---- */

typedef struct ReadTask
{
	const uint64_t *words;
	size_t n_words;
	uint64_t sum;
} ReadTask;

static void *
read_all(void *arg)
{
	ReadTask *task = arg;
	uint64_t sums[8] = { 0 };

	/* independent sums, so that loads are all the loop waits for */
	for (size_t i = 0; i + 8 <= task->n_words; i += 8)
	{
		for (int k = 0; k < 8; k++)
			sums[k] += task->words[i + (size_t) k];
	}
	for (int k = 0; k < 8; k++)
		task->sum += sums[k];
	return NULL;
}

/* One round over all words; bytes per second. */
static double
read_round(const uint64_t *words, size_t n_words, int n_threads)
{
	ReadTask tasks[MAX_THREADS];
	pthread_t threads[MAX_THREADS];
	int64_t start_us = llm_clock_us();
	uint64_t sum = 0;

	for (int i = 0; i < n_threads; i++)
	{
		size_t n = n_words / (size_t) n_threads;

		tasks[i] = (ReadTask){ words + n * (size_t) i, n, 0 };
		if (pthread_create(&threads[i], NULL, read_all, &tasks[i]) != 0)
			exit(1);
	}
	for (int i = 0; i < n_threads; i++)
	{
		pthread_join(threads[i], NULL);
		sum += tasks[i].sum;
	}
	/* the sum is used, so that the loop cannot be dropped */
	return sum == 1 ? 0
					: (double) (n_words * sizeof(*words)) /
						  ((double) (llm_clock_us() - start_us) / 1e6);
}

/* Take the best of several rounds where it beats what was seen before. */
static void
measure_bandwidth(Bench *bench)
{
	int n_threads = llm_compute_cpu_n_threads(bench->compute);
	size_t n_words = READ_BYTES / sizeof(uint64_t);

	if (bench->read_words == NULL)
	{
		uint64_t *words = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE,
							   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (words == MAP_FAILED)
			exit(1);
		madvise(words, READ_BYTES, MADV_HUGEPAGE);
		for (size_t i = 0; i < n_words; i++)
			words[i] = i;
		bench->read_words = words;
	}
	for (int round = 0; round < 4; round++)
	{
		double rate = read_round(bench->read_words, n_words, n_threads);

		if (rate > bench->bandwidth)
			bench->bandwidth = rate;
	}
}

/* ---- a model, its cache, its steps ---- */

static int32_t
max_int32(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

static void
bench_open(Bench *bench, LlmQuantization quantization)
{
	const LlmModelConfig *config = &bench->config;
	LlmError err = { 0 };
	LlmComputeOptions compute_options = {
		.precision = bench->options.dtype == LLM_DTYPE_BF16 ? LLM_DTYPE_BF16
															: LLM_DTYPE_F32,
		.n_threads = bench->options.n_threads,
		.max_rows = N_PREFILL,
		.max_cols =
			max_int32(max_int32(config->hidden_size, config->intermediate_size),
					  config->n_heads * config->head_dim),
		.max_seqs = MAX_SEQS,
		.max_context_len = MAX_LEN,
		.max_heads = config->n_heads,
		.max_vocab = config->n_vocab,
		.max_experts = config->n_experts,
		.max_experts_per_token = config->n_experts_per_token,
		.max_expert_dim = config->expert_intermediate_size,
	};
	LlmModelOptions model_options = {
		.weight_dtype = bench->options.dtype,
		.quantization = quantization,
		.dummy_weights = !bench->options.real_weights,
		.dummy_seed = 1,
		.max_model_len = MAX_LEN,
		.max_num_batched_tokens = N_PREFILL,
		.max_logit_rows = MAX_SEQS,
	};
	LlmKvCacheSpec spec = { .n_layers = config->n_layers,
							.n_kv_heads = config->n_kv_heads,
							.head_dim = config->head_dim,
							.block_size = BLOCK_SIZE,
							.n_blocks = MAX_SEQS * MAX_BLOCKS_PER_SEQ,
							.dtype = compute_options.precision };

	bench->compute = llm_compute_cpu_open(&compute_options, &err);
	if (bench->compute == NULL)
		fail(&err);
	bench->model = llm_model_load(bench->options.config_dir, config,
								  &model_options, bench->compute, &err);
	if (bench->model == NULL)
		fail(&err);
	bench->kv = bench->compute->ops->kv_create(bench->compute, &spec, &err);
	if (bench->kv == NULL)
		fail(&err);
	for (int i = 0; i < MAX_SEQS * MAX_BLOCKS_PER_SEQ; i++)
		bench->block_tables[i] = i;
}

static void
bench_close(Bench *bench)
{
	bench->compute->ops->kv_free(bench->kv);
	llm_model_free(bench->model);
	bench->compute->ops->close(bench->compute);
}

/* One step of n_seqs sequences, each with n_new tokens after n_before. */
static void
run_step(Bench *bench, int32_t n_seqs, int32_t n_new, int32_t n_before)
{
	LlmStepInputs device;
	LlmStepInputs inputs = {
		.n_tokens = n_seqs * n_new,
		.n_seqs = n_seqs,
		.n_logit_rows = n_seqs,
		.max_blocks_per_seq = MAX_BLOCKS_PER_SEQ,
		.max_query_len = n_new,
		.max_context_len = n_before + n_new,
		.token_ids = bench->token_ids,
		.positions = bench->positions,
		.token_seq = bench->token_seq,
		.query_start = bench->query_start,
		.context_len = bench->context_len,
		.block_tables = bench->block_tables,
		.logit_rows = bench->logit_rows,
	};
	LlmError err = { 0 };
	float *logits;

	for (int32_t i = 0; i < inputs.n_tokens; i++)
	{
		bench->token_ids[i] =
			(i * 7919 + n_before * 31) % bench->config.n_vocab;
		bench->positions[i] = n_before + i % n_new;
		bench->token_seq[i] = i / n_new;
	}
	for (int32_t s = 0; s < n_seqs; s++)
	{
		bench->query_start[s + 1] = (s + 1) * n_new;
		bench->context_len[s] = n_before + n_new;
		bench->rope_len[s] = 1;
		bench->logit_rows[s] = (s + 1) * n_new - 1;
	}
	if (!llm_model_rotate_step(bench->model, &inputs, bench->rope_len, &err) ||
		!bench->compute->ops->step_upload(bench->compute, &inputs, &device,
										  &err) ||
		!llm_model_forward(bench->model, &device, bench->kv, &logits, &err) ||
		!bench->compute->ops->sync(bench->compute, &err))
		fail(&err);
}

static void
print_parts(const LlmModelTiming *timing)
{
	for (int i = 0; i < LLM_PART_COUNT; i++)
		printf("    %-10s %9.1f us per step\n",
			   llm_model_part_name((LlmModelPart) i),
			   (double) timing->part_us[i] / (double) timing->n_steps);
}

static void
add_row(Bench *bench, const char *name, int32_t n_tokens, double step_us)
{
	struct BenchRow *row = &bench->rows[bench->n_rows++];

	row->weights = bench->weights;
	row->weight_bytes = (double) llm_model_weight_bytes(bench->model);
	snprintf(row->name, sizeof(row->name), "%s", name);
	row->n_tokens = n_tokens;
	row->step_us = step_us;
	row->timing = *llm_model_timing(bench->model);
	measure_bandwidth(bench);
}

static void
print_row(const Bench *bench, const struct BenchRow *row)
{
	double tokens_per_s = row->n_tokens / row->step_us * 1e6;
	double rate = row->weight_bytes / row->step_us * 1e6;

	if (bench->options.csv)
		printf("%s,%s,%.0f,%.2f,%.2f,%.3f\n", row->weights, row->name,
			   row->step_us, tokens_per_s, rate / 1e9, rate / bench->bandwidth);
	else
		printf("%-9s %-12s %10.1f ms %10.1f tok/s %8.2f GB/s of weights "
			   "%6.1f %% of a read loop\n",
			   row->weights, row->name, row->step_us / 1e3, tokens_per_s,
			   rate / 1e9, 100 * rate / bench->bandwidth);
	if (bench->options.parts)
		print_parts(&row->timing);
}

static void
print_table(const Bench *bench)
{
	if (bench->options.csv)
		printf("weights,step,us,tokens_per_s,weights_gb_per_s,of_read_loop\n");
	else
		printf("%s, %s, %d threads, read loop %.2f GB/s\n",
			   bench->config.architecture, bench->isa, bench->n_threads,
			   bench->bandwidth / 1e9);
	for (int i = 0; i < bench->n_rows; i++)
		print_row(bench, &bench->rows[i]);
}

/* The time that passed, or that this program was given. */
static int64_t
clock_us(const Bench *bench)
{
	struct timespec used;

	if (!bench->options.cpu_time)
		return llm_clock_us();
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (int64_t) used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

static void
measure_prefill(Bench *bench)
{
	int64_t start_us;

	run_step(bench, 1, N_PREFILL, 0);
	llm_model_set_timing(bench->model, bench->options.parts);
	start_us = clock_us(bench);
	run_step(bench, 1, N_PREFILL, 0);
	add_row(bench, "prefill-512", N_PREFILL,
			(double) (clock_us(bench) - start_us));
}

static int
compare_times(const void *a, const void *b)
{
	int64_t x = *(const int64_t *) a;
	int64_t y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

/*
 * The median step: others may use the machine, too.  What the cache holds of
 * the context before (zeros) does not change the time it takes to read it.
 */
static void
measure_decode(Bench *bench, int32_t n_seqs)
{
	int n_steps = bench->options.n_steps;
	int64_t *times = calloc((size_t) n_steps, sizeof(*times));
	char name[32];

	run_step(bench, n_seqs, 1, DECODE_CONTEXT);
	llm_model_set_timing(bench->model, bench->options.parts);
	for (int i = 0; i < n_steps; i++)
	{
		int64_t start_us = clock_us(bench);

		run_step(bench, n_seqs, 1, DECODE_CONTEXT + 1 + i);
		times[i] = clock_us(bench) - start_us;
	}
	qsort(times, (size_t) n_steps, sizeof(*times), compare_times);
	snprintf(name, sizeof(name), "decode-%d", n_seqs);
	add_row(bench, name, n_seqs, (double) times[n_steps / 2]);
	free(times);
}

static LlmDtype
dtype_by_name(const char *name)
{
	for (int i = 0; i <= LLM_DTYPE_BF16; i++)
	{
		if (strcmp(llm_dtype_name((LlmDtype) i), name) == 0)
			return (LlmDtype) i;
	}
	fprintf(stderr, "unknown dtype \"%s\"\n", name);
	exit(1);
}

static void
ask_for_quantization(Options *options, const char *name)
{
	for (int i = 0; i < N_QUANTIZATIONS; i++)
	{
		if (strcmp(quantizations[i].name, name) == 0)
		{
			options->measures[i] = true;
			return;
		}
	}
	fprintf(stderr, "unknown quantization \"%s\"\n", name);
	exit(1);
}

static void
parse_options(int argc, char **argv, Options *options)
{
	for (int i = 1; i < argc; i++)
	{
		bool has_value = i + 1 < argc;

		if (strcmp(argv[i], "--csv") == 0)
			options->csv = true;
		else if (strcmp(argv[i], "--parts") == 0)
			options->parts = true;
		else if (strcmp(argv[i], "--weights") == 0)
			options->real_weights = true;
		else if (strcmp(argv[i], "--cpu-time") == 0)
			options->cpu_time = true;
		else if (strcmp(argv[i], "--quantization") == 0 && has_value)
			ask_for_quantization(options, argv[++i]);
		else if (strcmp(argv[i], "--config") == 0 && has_value)
			options->config_dir = argv[++i];
		else if (strcmp(argv[i], "--threads") == 0 && has_value)
			options->n_threads = atoi(argv[++i]);
		else if (strcmp(argv[i], "--steps") == 0 && has_value)
			options->n_steps = atoi(argv[++i]);
		else if (strcmp(argv[i], "--dtype") == 0 && has_value)
			options->dtype = dtype_by_name(argv[++i]);
		else
		{
			fprintf(stderr,
					"usage: %s [--csv] [--parts] [--config DIR [--weights]] "
					"[--threads N] [--steps N] [--dtype NAME] "
					"[--quantization NAME] [--cpu-time]\n",
					argv[0]);
			exit(1);
		}
	}
	if ((options->real_weights && options->config_dir == NULL) ||
		options->n_threads < 0 || options->n_threads > MAX_THREADS ||
		options->n_steps < 1 || options->n_steps > MAX_LEN - 2 * DECODE_CONTEXT)
	{
		fprintf(stderr, "an option is out of range\n");
		exit(1);
	}
}

static bool
asks_for_all(const Options *options)
{
	for (int i = 0; i < N_QUANTIZATIONS; i++)
	{
		if (options->measures[i])
			return false;
	}
	return true;
}

static void
measure_weights(Bench *bench, int quantization_idx)
{
	LlmQuantization quantization = quantizations[quantization_idx].quantization;

	bench->weights = quantization == LLM_QUANTIZATION_NONE
						 ? llm_dtype_name(bench->options.dtype)
						 : quantizations[quantization_idx].name;
	bench_open(bench, quantization);
	bench->isa = llm_compute_cpu_isa(bench->compute);
	bench->n_threads = llm_compute_cpu_n_threads(bench->compute);
	measure_bandwidth(bench);
	measure_prefill(bench);
	measure_decode(bench, 1);
	measure_decode(bench, 8);
	measure_decode(bench, 32);
	bench_close(bench);
}

int
main(int argc, char **argv)
{
	static Bench bench = { .options = { .n_steps = 9,
										.dtype = LLM_DTYPE_BF16 } };
	LlmError err = { 0 };

	parse_options(argc, argv, &bench.options);
	if (bench.options.config_dir != NULL
			? !llm_model_config_read(bench.options.config_dir, &bench.config,
									 &err)
			: !llm_model_config_parse(llama_1b, strlen(llama_1b),
									  "Llama 3.2 1B", &bench.config, &err))
		fail(&err);
	for (int i = 0; i < N_QUANTIZATIONS; i++)
	{
		if (asks_for_all(&bench.options) || bench.options.measures[i])
			measure_weights(&bench, i);
	}
	print_table(&bench);
	return 0;
}
