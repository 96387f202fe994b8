/*
 * bench_train.c
 *	  Training steps with made-up weights, beside what the products alone take.
 *
 * The bound is the time of the products with frozen weights, there and back,
 * at the rates that the same operations reach by themselves in this run, on
 * one matrix of the MLP: what is missing to it is attention, norms, the
 * adapter's own products, the loss and the optimizer.
 *
 *	  bench_train [--config DIR] [--device cpu|cuda] [--tokens N]
 *				  [--segment N] [--steps N] [--rank N] [--threads N]
 *				  [--quantization none|nf4] [--full]
 *
 * The model is of Qwen2.5 0.5B's shape unless --config names a directory or a
 * GGUF file; every token is a label; --full recomputes whole layers.
 *
 * test/bench/bench_train.c
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/clock.h"
#include "src/engine/compute/compute_train.h"
#include "src/engine/train/train.h"

#define MAX_TOKENS 16384
#define MAX_PAIRS 1024
#define MAX_SEGMENTS 1024
#define N_RATE_ROUNDS 5

static const char qwen_half_b[] =
	"{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\","
	"\"vocab_size\": 151936, \"hidden_size\": 896, \"intermediate_size\": 4864,"
	"\"num_hidden_layers\": 24, \"num_attention_heads\": 14,"
	"\"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-06,"
	"\"max_position_embeddings\": 32768, \"tie_word_embeddings\": true,"
	"\"rope_theta\": 1000000.0, \"use_sliding_window\": false,"
	"\"torch_dtype\": \"bfloat16\"}";

typedef struct Options
{
	const char *config_dir;
	bool is_cuda;
	bool recomputes;
	LlmQuantization quantization;
	int32_t n_tokens;
	int32_t segment;
	int32_t n_steps;
	int32_t rank;
	int32_t n_threads;
} Options;

typedef struct Bench
{
	Options options;
	LlmModelConfig config;
	LlmCompute *compute;
	LlmModel *model;
	LlmTrainer *trainer;
	LlmTrainPair pairs[MAX_PAIRS];
	int32_t n_pairs;
	int32_t token_ids[MAX_TOKENS];
	int32_t label_rows[MAX_TOKENS];
	int32_t label_ids[MAX_TOKENS];
	int32_t segment_start[MAX_SEGMENTS + 1];
	float weights[MAX_TOKENS];
	float log_probs[MAX_TOKENS];
} Bench;

static void
fail(const LlmError *err)
{
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

static void
read_config(Bench *b)
{
	LlmError err = { 0 };
	char dir[] = "/tmp/llm_bench_train_XXXXXX";
	char path[64];
	FILE *file;

	if (b->options.config_dir != NULL)
	{
		if (!llm_model_config_read(b->options.config_dir, &b->config, &err))
			fail(&err);
		return;
	}
	if (mkdtemp(dir) == NULL)
		abort();
	snprintf(path, sizeof(path), "%s/config.json", dir);
	file = fopen(path, "w");
	if (file == NULL || fputs(qwen_half_b, file) < 0 || fclose(file) != 0 ||
		!llm_model_config_read(dir, &b->config, &err))
		fail(&err);
	(void) remove(path);
	(void) remove(dir);
}

static void
open_compute(Bench *b)
{
	const LlmModelConfig *c = &b->config;
	const int32_t q_dim = c->n_heads * c->head_dim;
	int32_t widest = c->hidden_size > q_dim ? c->hidden_size : q_dim;
	LlmComputeOptions options = {
		.precision = b->options.is_cuda ? LLM_DTYPE_BF16 : LLM_DTYPE_F32,
		.n_threads = b->options.n_threads,
		.max_rows = b->options.n_tokens,
		.max_cols =
			widest > c->intermediate_size ? widest : c->intermediate_size,
		.max_seqs = 1,
		.max_context_len = b->options.segment,
		.max_heads = c->n_heads,
		.max_vocab = c->n_vocab,
		.max_experts = c->n_experts,
		.max_experts_per_token = c->n_experts_per_token,
		.max_expert_dim = c->expert_intermediate_size,
	};
	LlmError err = { 0 };

	b->compute = b->options.is_cuda ? llm_compute_cuda_load(&options, &err)
									: llm_compute_cpu_open(&options, &err);
	if (b->compute == NULL)
		fail(&err);
}

static void
choose_pairs(Bench *b)
{
	for (int32_t layer = 0; layer < b->config.n_layers; layer++)
	{
		bool is_mixture = llm_layer_set_has(&b->config.expert_layers, layer);
		int n_modules = is_mixture ? LLM_ADAPTER_GATE : LLM_ADAPTER_LM_HEAD;

		for (int m = 0; m < n_modules && b->n_pairs < MAX_PAIRS; m++)
			b->pairs[b->n_pairs++] =
				(LlmTrainPair){ .layer_idx = layer,
								.module = (LlmAdapterModule) m,
								.rank = b->options.rank,
								.scale = 2 };
	}
}

static void
make_trainer(Bench *b)
{
	const int32_t n_tokens = b->options.n_tokens;
	LlmModelOptions model = {
		.weight_dtype = LLM_DTYPE_BF16,
		.quantization = b->options.quantization,
		.dummy_weights = true,
		.dummy_seed = 1,
		.max_model_len = b->options.segment,
		.max_num_batched_tokens = n_tokens,
		.max_logit_rows = 1,
	};
	LlmTrainOptions train = {
		.pairs = b->pairs,
		.max_tokens = n_tokens,
		.max_segment = b->options.segment,
		.max_logit_rows = n_tokens < 256 ? n_tokens : 256,
		.recompute = b->options.recomputes ? LLM_RECOMPUTE_FULL
										   : LLM_RECOMPUTE_SELECTIVE,
		.beta1 = 0.9,
		.beta2 = 0.999,
		.eps = 1e-8,
		.max_grad_norm = 1,
		.b_rate_ratio = 1,
	};
	LlmTrainMemory memory;
	LlmError err = { 0 };

	b->model = llm_model_load(NULL, &b->config, &model, b->compute, &err);
	if (b->model == NULL)
		fail(&err);
	choose_pairs(b);
	train.n_pairs = b->n_pairs;
	memory = llm_train_memory(&b->config, llm_model_options(b->model),
							  b->compute->activation_dtype, &train);
	b->trainer = llm_trainer_create(b->model, &train, &err);
	if (b->trainer == NULL)
		fail(&err);
	printf("memory: weights %.2f GB, states %.2f, activations %.2f, scratch "
		   "%.2f, logits %.2f\n",
		   (double) llm_model_weight_bytes(b->model) / 1e9,
		   (double) memory.states_bytes / 1e9,
		   (double) memory.activations_bytes / 1e9,
		   (double) memory.scratch_bytes / 1e9,
		   (double) memory.logits_bytes / 1e9);
}

/* Every token but the last of a segment says the next. */
static LlmTrainBatch
make_batch(Bench *b)
{
	LlmTrainBatch batch = { .n_tokens = b->options.n_tokens,
							.token_ids = b->token_ids,
							.segment_start = b->segment_start,
							.label_rows = b->label_rows,
							.label_ids = b->label_ids };

	for (int32_t i = 0; i < batch.n_tokens; i++)
	{
		b->token_ids[i] =
			(int32_t) ((uint32_t) i * 7919u % (uint32_t) b->config.n_vocab);
		if (i % b->options.segment == 0 && batch.n_segments < MAX_SEGMENTS)
			b->segment_start[batch.n_segments++] = i;
	}
	b->segment_start[batch.n_segments] = batch.n_tokens;
	for (int32_t i = 0; i + 1 < batch.n_tokens; i++)
	{
		if ((i + 1) % b->options.segment == 0)
			continue;
		b->label_rows[batch.n_labels] = i;
		b->label_ids[batch.n_labels++] = b->token_ids[i + 1];
	}
	for (int32_t i = 0; i < batch.n_labels; i++)
		b->weights[i] = 1.0f / (float) batch.n_labels;
	return batch;
}

/* Seconds of a step. */
static double
time_step(Bench *b, const LlmTrainBatch *batch)
{
	int64_t start_us = llm_clock_us();
	double norm;
	LlmError err = { 0 };

	if (!llm_trainer_forward(b->trainer, batch, true, &err) ||
		!llm_trainer_backward(b->trainer, b->weights, b->log_probs, &err) ||
		!llm_trainer_update(b->trainer, 1e-4, &norm, &err) ||
		!b->compute->ops->sync(b->compute, &err))
		fail(&err);
	return (double) (llm_clock_us() - start_us) * 1e-6;
}

/* Best FLOP/s of the embedding's first rows as a weight, there or back. */
static double
measure_rate(Bench *b, bool is_back)
{
	const LlmComputeOps *ops = b->compute->ops;
	LlmMatrix w = llm_model_matrix(b->model, LLM_WEIGHT_EMBED, -1);
	const LlmDtype act = b->compute->activation_dtype;
	const int32_t n = b->options.n_tokens;
	LlmError err = { 0 };
	void *x;
	void *y;
	double best = 0;

	if (w.n_rows > b->config.intermediate_size)
		w.n_rows = b->config.intermediate_size;
	x = ops->alloc(b->compute, (size_t) (n * w.n_cols) * llm_dtype_bytes(act),
				   "x", &err);
	y = ops->alloc(b->compute, (size_t) (n * w.n_rows) * llm_dtype_bytes(act),
				   "y", &err);
	if (x == NULL || y == NULL)
		fail(&err);
	(void) ops->train->clear(
		b->compute, x, (size_t) (n * w.n_cols) * llm_dtype_bytes(act), &err);
	(void) ops->train->clear(
		b->compute, y, (size_t) (n * w.n_rows) * llm_dtype_bytes(act), &err);
	for (int i = 0; i < N_RATE_ROUNDS; i++)
	{
		int64_t start_us = llm_clock_us();
		LlmLinearArgs linear = { .x = x, .n_rows = n, .n_parts = 1 };
		LlmProductArgs product = {
			.a = { y, act, w.n_rows, false },
			.b = { w.data, w.dtype, w.n_cols, false },
			.m = n,
			.n = w.n_cols,
			.k = w.n_rows,
			.scale = 1,
			.out = x,
			.out_dtype = act,
			.out_stride = w.n_cols,
		};
		bool ok;
		double rate;

		linear.part[0].weight = w;
		linear.part[0].out = y;
		linear.part[0].out_stride = w.n_rows;
		ok = is_back ? ops->train->product(b->compute, &product, &err)
					 : ops->linear(b->compute, &linear, &err);
		if (!ok || !ops->sync(b->compute, &err))
			fail(&err);
		rate = 2.0 * n * (double) w.n_rows * (double) w.n_cols /
			   ((double) (llm_clock_us() - start_us) * 1e-6);
		best = rate > best ? rate : best;
	}
	ops->free(b->compute, x);
	ops->free(b->compute, y);
	return best;
}

/* Elements of the frozen weights that a token is multiplied with. */
static double
weight_elements(const Bench *b)
{
	LlmWeightSpec spec;
	double n = (double) b->config.n_vocab * b->config.hidden_size; /* head */
	double share =
		b->config.n_experts > 0
			? (double) b->config.n_experts_per_token / b->config.n_experts
			: 1;

	for (int i = 0; llm_model_weight_spec(&b->config, i, &spec); i++)
	{
		if (spec.layer_idx >= 0)
			n += (double) spec.n_rows * (double) spec.n_cols *
				 (spec.expert_idx >= 0 ? share : 1);
	}
	return n;
}

static void
parse(Bench *b, int argc, char **argv)
{
	Options *o = &b->options;

	*o = (Options){ .n_tokens = 512, .segment = 512, .n_steps = 3, .rank = 16 };
	for (int i = 1; i < argc; i++)
	{
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		/* the table is all there is */
		if (strcmp(argv[i], "--csv") == 0)
			continue;
		if (strcmp(argv[i], "--full") == 0)
		{
			o->recomputes = true;
			continue;
		}
		i++;
		if (strcmp(argv[i - 1], "--config") == 0)
			o->config_dir = value;
		else if (strcmp(argv[i - 1], "--device") == 0)
			o->is_cuda = strcmp(value, "cuda") == 0;
		else if (strcmp(argv[i - 1], "--tokens") == 0)
			o->n_tokens = atoi(value);
		else if (strcmp(argv[i - 1], "--segment") == 0)
			o->segment = atoi(value);
		else if (strcmp(argv[i - 1], "--steps") == 0)
			o->n_steps = atoi(value);
		else if (strcmp(argv[i - 1], "--rank") == 0)
			o->rank = atoi(value);
		else if (strcmp(argv[i - 1], "--threads") == 0)
			o->n_threads = atoi(value);
		else if (strcmp(argv[i - 1], "--quantization") == 0)
			o->quantization = strcmp(value, "nf4") == 0
								  ? LLM_QUANTIZATION_NF4_NESTED
								  : LLM_QUANTIZATION_DECODE;
		else
		{
			fprintf(stderr, "unknown option %s\n", argv[i - 1]);
			exit(2);
		}
	}
	if (o->n_tokens < 2 || o->n_tokens > MAX_TOKENS || o->segment < 2 ||
		o->n_steps < 1 || o->rank < 1)
	{
		fprintf(stderr, "a number is out of range\n");
		exit(2);
	}
	if (o->segment > o->n_tokens)
		o->segment = o->n_tokens;
}

int
main(int argc, char **argv)
{
	static Bench b;
	LlmTrainBatch batch;
	double best = INFINITY;
	double there;
	double back;
	double bound;

	parse(&b, argc, argv);
	read_config(&b);
	open_compute(&b);
	make_trainer(&b);
	batch = make_batch(&b);
	(void) time_step(&b, &batch);
	there = measure_rate(&b, false);
	back = measure_rate(&b, true);
	for (int i = 0; i < b.options.n_steps; i++)
	{
		double seconds = time_step(&b, &batch);

		best = seconds < best ? seconds : best;
	}
	bound = 2 * weight_elements(&b) * b.options.n_tokens *
			((b.options.recomputes ? 2 : 1) / there + 1 / back);
	printf("products: %.1f GFLOP/s there, %.1f back\n", there / 1e9,
		   back / 1e9);
	printf("%d tokens in segments of %d: %.3f s, %.1f tokens/s; products "
		   "alone %.3f s: %.0f %%\n",
		   b.options.n_tokens, b.options.segment, best,
		   b.options.n_tokens / best, bound, 100 * bound / best);
	llm_trainer_free(b.trainer);
	llm_model_free(b.model);
	b.compute->ops->close(b.compute);
	return 0;
}
