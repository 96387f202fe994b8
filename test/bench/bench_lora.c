/*
 * bench_lora.c
 *	  Decode steps with adapters, beside the base model's in the same run.
 *
 * The model's weights are made up, and so are the adapters: rank 16 (or
 * --rank) on all linear layers, each in memory of its own.  Steps of all kinds
 * take turns, so that what else the machine does falls on all of them; medians
 * are printed, and what adapters add to the base's.
 *
 *	  bench_lora [--device cpu|cuda] [--csv] [--layers N] [--rank N] [--seqs N]
 *				 [--context N]
 *
 * test/bench/bench_lora.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/clock.h"
#include "src/engine/model/model.h"

#define BLOCK_SIZE 16
#define MAX_SEQS 256
#define MAX_LEN 4096
#define MAX_LORAS 64
#define MAX_STEPS 60

static const char llama_8b[] =
	"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
	"\"vocab_size\": 128256, \"hidden_size\": 4096, \"intermediate_size\": "
	"14336, \"num_hidden_layers\": 32, \"num_attention_heads\": 32,"
	"\"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-05,"
	"\"max_position_embeddings\": 8192, \"tie_word_embeddings\": false,"
	"\"rope_theta\": 500000.0, \"dtype\": \"bfloat16\"}";

static const char llama_1b[] =
	"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
	"\"vocab_size\": 32000, \"hidden_size\": 2048, \"intermediate_size\": "
	"8192, \"num_hidden_layers\": 16, \"num_attention_heads\": 32,"
	"\"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-05,"
	"\"max_position_embeddings\": 8192, \"tie_word_embeddings\": true,"
	"\"rope_theta\": 500000.0, \"dtype\": \"bfloat16\"}";

/* What the steps of a kind have. */
typedef struct Kind
{
	int32_t n_loras; /* 0: the base model */
	int64_t times[MAX_STEPS];
	int n_times;
} Kind;

typedef struct Bench
{
	bool csv;
	bool is_cuda;
	int32_t rank;
	int32_t n_seqs;
	int32_t context;
	int n_steps;
	LlmModelConfig config;
	LlmCompute *compute;
	LlmModel *model;
	LlmKvCache *kv;
	int32_t max_blocks;
	int32_t n_blocks;
	LlmModelAdapter host;
	const void *loras[MAX_LORAS];
	int32_t *block_tables;
} Bench;

static void
need(bool ok, const LlmError *err)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

static int
compare_times(const void *a, const void *b)
{
	int64_t x = *(const int64_t *) a;
	int64_t y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

static double
median(Kind *kind)
{
	qsort(kind->times, (size_t) kind->n_times, sizeof(int64_t), compare_times);
	return (double) kind->times[kind->n_times / 2];
}

static void
open_model(Bench *bench)
{
	const LlmModelConfig *config = &bench->config;
	LlmError err = { 0 };
	LlmComputeOptions compute_options = {
		.precision = LLM_DTYPE_BF16,
		.max_rows = MAX_SEQS,
		.max_cols = config->intermediate_size,
		.max_seqs = MAX_SEQS,
		.max_context_len = MAX_LEN,
		.max_heads = config->n_heads,
		.max_vocab = config->n_vocab,
		.max_loras = MAX_LORAS,
		.max_lora_rank = bench->rank,
	};
	LlmModelOptions model_options = {
		.weight_dtype = LLM_DTYPE_BF16,
		.dummy_weights = true,
		.dummy_seed = 1,
		.max_model_len = MAX_LEN,
		.max_num_batched_tokens = MAX_SEQS,
		.max_logit_rows = MAX_SEQS,
	};
	LlmKvCacheSpec spec = { .n_layers = config->n_layers,
							.n_kv_heads = config->n_kv_heads,
							.head_dim = config->head_dim,
							.block_size = BLOCK_SIZE,
							.n_blocks = bench->n_blocks,
							.dtype = LLM_DTYPE_BF16 };

	if (bench->is_cuda)
	{
		compute_options.arena_bytes =
			(size_t) llm_model_n_params(config) * 2 + ((size_t) 64 << 20);
		bench->compute = llm_compute_cuda_load(&compute_options, &err);
	}
	else
		bench->compute = llm_compute_cpu_open(&compute_options, &err);
	need(bench->compute != NULL, &err);
	bench->model =
		llm_model_load(NULL, config, &model_options, bench->compute, &err);
	need(bench->model != NULL, &err);
	bench->kv = bench->compute->ops->kv_create(bench->compute, &spec, &err);
	need(bench->kv != NULL, &err);
}

/* An image whose numbers are small and not zero; all bytes of it are read. */
static void
make_image(Bench *bench)
{
	const LlmModelConfig *config = &bench->config;
	const LlmLoraFormat *format = &bench->compute->lora_format;
	int32_t h = config->hidden_size;
	int32_t q = config->n_heads * config->head_dim;
	int32_t kv = config->n_kv_heads * config->head_dim;
	int32_t inner = config->intermediate_size;
	const LlmLoraShape layer[7] = {
		{ bench->rank, h, q, false },	  { bench->rank, h, kv, false },
		{ bench->rank, h, kv, false },	  { bench->rank, q, h, false },
		{ bench->rank, h, inner, false }, { bench->rank, h, inner, false },
		{ bench->rank, inner, h, false },
	};
	int32_t n = config->n_layers * 7 + 2;
	LlmLoraShape *shapes = calloc((size_t) n, sizeof(*shapes));
	LlmError err = { 0 };
	size_t table = (size_t) n * sizeof(LlmLoraModule);

	if (shapes == NULL)
		abort();
	for (int32_t i = 0; i < n - 2; i++)
		shapes[i] = layer[i % 7];
	bench->host.n_bytes = llm_lora_image_bytes(format, shapes, n);
	bench->host.image = bench->compute->ops->host_alloc(
		bench->compute, bench->host.n_bytes, "an adapter", &err);
	need(bench->host.image != NULL, &err);
	/* as bf16 0x3737 is 1.1e-5, as f32 0x37373737 is 1.1e-5 */
	memset(bench->host.image, 0, table);
	memset((char *) bench->host.image + table, 0x37,
		   bench->host.n_bytes - table);
	llm_lora_image_init(bench->host.image, format, shapes, n);
	free(shapes);
}

static void
copy_image(Bench *bench, void *dest, double *copy_us)
{
	const LlmComputeOps *ops = bench->compute->ops;
	int64_t start_us;
	LlmError err = { 0 };

	need(ops->sync(bench->compute, &err), &err);
	start_us = llm_clock_us();
	if (ops->copy_aside == NULL)
		memcpy(dest, bench->host.image, bench->host.n_bytes);
	else
	{
		need(ops->copy_aside(bench->compute, dest, bench->host.image,
							 bench->host.n_bytes, &err),
			 &err);
		for (bool is_done = false; !is_done;)
			need(ops->copy_aside_done(bench->compute, &is_done, &err), &err);
	}
	*copy_us = (double) (llm_clock_us() - start_us);
}

static void
make_adapters(Bench *bench, int32_t n_loras)
{
	LlmError err = { 0 };
	double copy_us = 0;

	make_image(bench);
	for (int32_t i = 0; i < n_loras; i++)
	{
		void *device = bench->compute->ops->alloc(
			bench->compute, bench->host.n_bytes, "an adapter", &err);

		need(device != NULL, &err);
		copy_image(bench, device, &copy_us);
		bench->loras[i] = device;
	}
	fprintf(stderr,
			"an adapter of rank %d: %.1f MB, from the host in %.2f ms\n",
			bench->rank, (double) bench->host.n_bytes / 1e6, copy_us / 1e3);
}

/* One decode step; sequence s has adapter s % n_loras. */
static int64_t
run_step(Bench *bench, int32_t n_loras)
{
	const LlmComputeOps *ops = bench->compute->ops;
	static int32_t ids[MAX_SEQS];
	static int32_t positions[MAX_SEQS];
	static int32_t sequences[MAX_SEQS];
	static int32_t query_start[MAX_SEQS + 1];
	static int32_t context_len[MAX_SEQS];
	static int32_t rope_len[MAX_SEQS];
	static int32_t token_lora[MAX_SEQS];
	LlmStepInputs device;
	float *logits;
	LlmError err = { 0 };
	int64_t start_us;
	LlmStepInputs host = {
		.n_tokens = bench->n_seqs,
		.n_seqs = bench->n_seqs,
		.n_logit_rows = bench->n_seqs,
		.max_blocks_per_seq = bench->max_blocks,
		.max_query_len = 1,
		.max_context_len = bench->context + 1,
		.token_ids = ids,
		.positions = positions,
		.token_seq = sequences,
		.query_start = query_start,
		.context_len = context_len,
		.block_tables = bench->block_tables,
		.logit_rows = sequences,
		.n_loras = n_loras,
		.loras = bench->loras,
		.token_lora = n_loras > 0 ? token_lora : NULL,
	};

	for (int32_t s = 0; s < bench->n_seqs; s++)
	{
		ids[s] = s * 31 % bench->config.n_vocab;
		positions[s] = bench->context;
		sequences[s] = s;
		query_start[s + 1] = s + 1;
		context_len[s] = bench->context + 1;
		token_lora[s] = n_loras > 0 ? s % n_loras : -1;
	}
	need(ops->sync(bench->compute, &err), &err);
	start_us = llm_clock_us();
	need(llm_model_rotate_step(bench->model, &host, rope_len, &err) &&
			 ops->step_upload(bench->compute, &host, &device, &err) &&
			 llm_model_forward(bench->model, &device, bench->kv, &logits,
							   &err) &&
			 ops->sync(bench->compute, &err),
		 &err);
	return llm_clock_us() - start_us;
}

static void
measure(Bench *bench, Kind *kinds, int n_kinds)
{
	double base_us;

	for (int step = -3; step < bench->n_steps; step++)
	{
		for (int k = 0; k < n_kinds; k++)
		{
			int64_t us = run_step(bench, kinds[k].n_loras);

			/* the first ones choose algorithms and record graphs */
			if (step >= 0)
				kinds[k].times[kinds[k].n_times++] = us;
		}
	}
	base_us = median(&kinds[0]);
	if (bench->csv)
		printf("sequences,context,rank,adapters,us,tokens_per_s,over_base\n");
	for (int k = 0; k < n_kinds; k++)
	{
		double us = median(&kinds[k]);

		if (bench->csv)
			printf("%d,%d,%d,%d,%.0f,%.1f,%.4f\n", bench->n_seqs,
				   bench->context, bench->rank, kinds[k].n_loras, us,
				   bench->n_seqs / us * 1e6, us / base_us - 1);
		else
			printf("%4d sequences of %5d tokens, %2d adapters of rank %d: "
				   "%9.3f ms %9.1f tok/s %+6.1f %%\n",
				   bench->n_seqs, bench->context, kinds[k].n_loras, bench->rank,
				   us / 1e3, bench->n_seqs / us * 1e6,
				   100 * (us / base_us - 1));
	}
}

static int32_t
number(int argc, char **argv, int *i)
{
	if (++*i >= argc)
	{
		fprintf(stderr, "%s: %s wants a number\n", argv[0], argv[*i - 1]);
		exit(1);
	}
	return atoi(argv[*i]);
}

static void
parse_options(int argc, char **argv, Bench *bench)
{
	LlmError err = { 0 };
	const char *text;
	int32_t n_layers = 0;

	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--csv") == 0)
			bench->csv = true;
		else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
			bench->is_cuda = strcmp(argv[++i], "cuda") == 0;
		else if (strcmp(argv[i], "--layers") == 0)
			n_layers = number(argc, argv, &i);
		else if (strcmp(argv[i], "--rank") == 0)
			bench->rank = number(argc, argv, &i);
		else if (strcmp(argv[i], "--seqs") == 0)
			bench->n_seqs = number(argc, argv, &i);
		else if (strcmp(argv[i], "--context") == 0)
			bench->context = number(argc, argv, &i);
		else
		{
			fprintf(stderr, "%s: unknown option %s\n", argv[0], argv[i]);
			exit(1);
		}
	}
	text = bench->is_cuda ? llama_8b : llama_1b;
	need(llm_model_config_parse(text, strlen(text), "the model", &bench->config,
								&err),
		 &err);
	if (n_layers > 0)
		bench->config.n_layers = n_layers;
	if (bench->n_seqs == 0)
		bench->n_seqs = bench->is_cuda ? 256 : 8;
	if (bench->n_seqs > MAX_SEQS || bench->context >= MAX_LEN)
		exit(1);
}

int
main(int argc, char **argv)
{
	static Bench bench = { .rank = 16, .context = 512 };
	static Kind kinds[] = { { 0 }, { 1 }, { 8 }, { 64 } };
	int n_kinds;

	parse_options(argc, argv, &bench);
	n_kinds = bench.is_cuda ? 4 : 3;
	bench.n_steps = bench.is_cuda ? MAX_STEPS : 15;
	bench.max_blocks = bench.context / BLOCK_SIZE + 1;
	bench.n_blocks = bench.max_blocks * bench.n_seqs;
	bench.block_tables = malloc(sizeof(int32_t) * (size_t) bench.n_blocks);
	if (bench.block_tables == NULL)
		abort();
	for (int32_t i = 0; i < bench.n_blocks; i++)
		bench.block_tables[i] = (int32_t) ((int64_t) i * 7919 % bench.n_blocks);
	open_model(&bench);
	make_adapters(&bench, kinds[n_kinds - 1].n_loras);
	measure(&bench, kinds, n_kinds);
	return 0;
}
