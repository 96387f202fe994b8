/*
 * bench_train_gpu.c
 *	  Steps of training beside their bound, and the operations they consist of.
 *
 * LoRA of rank 16 on all projections of a Llama 3.1 8B with made-up weights,
 * every token a label.  A step is one micro-batch there and back and the
 * update.  Its bound is the time for the base model's products, there and
 * back to their inputs, at the rate of one large product, and for attention's
 * (2 there, 5 back) likewise.
 *
 *	  bench_train_gpu [--csv] [--layers N] [--nf4] [--parts]
 *
 * --nf4: the base model's projections in NF4 with nested scales (QLoRA), which
 * the host makes: with few layers, beside as many without.
 *
 * Without a GPU there is nothing to measure; bench_train has the CPU.
 *
 * test/bench/bench_train_gpu.c
 */
#include <string.h>

#include "src/engine/compute/compute_train.h"
#include "src/engine/train/train.h"
#include "test/bench/bench_gpu_model.h"

#define RANK 16
#define N_MODULES (LLM_ADAPTER_DOWN + 1)
#define MAX_LOGIT_ROWS 2048
#define N_TIMED 5

typedef struct Bench
{
	bool csv;
	bool parts;
	bool is_nf4;
	LlmModelConfig config;
	LlmCompute *compute;
	LlmModel *model;
	LlmTrainPair *pairs;
	int32_t n_pairs;
	int32_t max_tokens;
	double product_rate;
	double copy_rate;
} Bench;

/* ---- a model to train ---- */

static void
bench_open(Bench *bench)
{
	const LlmModelConfig *config = &bench->config;
	LlmError err = { 0 };
	LlmComputeOptions compute_options = {
		.precision = LLM_DTYPE_BF16,
		.max_rows = bench->max_tokens,
		.max_cols = config->intermediate_size,
		.max_seqs = 64,
		.max_context_len = bench->max_tokens,
		.max_heads = config->n_heads,
		.max_vocab = config->n_vocab,
		.arena_bytes =
			(size_t) llm_model_n_params(config) * 2 + ((size_t) 64 << 20),
	};
	LlmModelOptions model_options = {
		.weight_dtype = LLM_DTYPE_BF16,
		.dummy_weights = true,
		.dummy_seed = 1,
		.max_model_len = bench->max_tokens,
		.max_num_batched_tokens = bench->max_tokens,
		.max_logit_rows = 64,
	};

	if (bench->is_nf4)
		compute_options.arena_bytes = 0;
	if (bench->is_nf4)
		model_options.quantization = LLM_QUANTIZATION_NF4_NESTED;
	bench->compute = llm_compute_cuda_load(&compute_options, &err);
	need(bench->compute != NULL, &err);
	bench->model =
		llm_model_load(NULL, config, &model_options, bench->compute, &err);
	need(bench->model != NULL, &err);
	bench->pairs =
		calloc((size_t) config->n_layers * N_MODULES, sizeof(LlmTrainPair));
	need(bench->pairs != NULL, &err);
	for (int32_t i = 0; i < config->n_layers * N_MODULES; i++)
		bench->pairs[bench->n_pairs++] = (LlmTrainPair){
			.layer_idx = i / N_MODULES,
			.module = (LlmAdapterModule) (i % N_MODULES),
			.rank = RANK,
			.scale = 2,
		};
}

/* ---- steps ---- */

typedef struct StepCase
{
	const char *name;
	int32_t n_segments;
	int32_t n_each;
	LlmRecompute recompute;
	bool asks_first; /* log-probabilities before the way back, as for pairs */
} StepCase;

static LlmTrainBatch
make_batch(const Bench *bench, const StepCase *c)
{
	const int32_t n = c->n_segments * c->n_each;
	int32_t *at = malloc((size_t) (4 * n + c->n_segments + 1) * 4);
	LlmTrainBatch batch = { .n_tokens = n, .n_segments = c->n_segments };
	LlmError err = { 0 };
	uint32_t random = 1;

	need(at != NULL, &err);
	batch.segment_start = at + 3 * n;
	batch.token_ids = at;
	batch.label_rows = at + n;
	batch.label_ids = at + 2 * n;
	for (int32_t i = 0; i <= c->n_segments; i++)
		at[3 * n + i] = i * c->n_each;
	for (int32_t i = 0; i < n; i++)
	{
		random = random * 1664525u + 1013904223u;
		at[i] = (int32_t) ((random >> 8) % (uint32_t) bench->config.n_vocab);
	}
	for (int32_t i = 0; i < n; i++)
	{
		if (i % c->n_each == c->n_each - 1)
			continue;
		at[n + batch.n_labels] = i;
		at[2 * n + batch.n_labels++] = at[i + 1];
	}
	return batch;
}

/* Seconds of the base model's products and attention at the measured rate. */
static double
bound_of(const Bench *bench, const StepCase *c)
{
	const LlmModelConfig *config = &bench->config;
	double n = (double) c->n_segments * c->n_each;
	double head = (double) config->n_vocab * config->hidden_size;
	double layers = (double) llm_model_n_params(config) - 2 * head;
	double pairs = n * (c->n_each + 1) / 2;
	double attention =
		2.0 * 7 * pairs * config->n_heads * config->head_dim * config->n_layers;

	return (4 * n * (layers + head) + attention) / bench->product_rate;
}

static void
run_step(LlmTrainer *trainer, const LlmTrainBatch *batch, const StepCase *c,
		 float *floats)
{
	float *weights = floats;
	float *log_probs = floats + batch->n_labels;
	double norm;
	LlmError err = { 0 };

	need(llm_trainer_forward(trainer, batch, true, &err), &err);
	if (c->asks_first)
		need(llm_trainer_log_probs(trainer, log_probs, &err), &err);
	need(llm_trainer_backward(trainer, weights, log_probs, &err) &&
			 llm_trainer_update(trainer, 1e-4, &norm, &err),
		 &err);
}

static void
measure_step(Bench *bench, const StepCase *c)
{
	LlmTrainOptions options = {
		.pairs = bench->pairs,
		.n_pairs = bench->n_pairs,
		.seed = 1,
		.recompute = c->recompute,
		.max_tokens = c->n_segments * c->n_each,
		.max_segment = c->n_each,
		.max_logit_rows = MAX_LOGIT_ROWS,
		.beta1 = 0.9,
		.beta2 = 0.999,
		.eps = 1e-8,
		.max_grad_norm = 1,
		.b_rate_ratio = 1,
	};
	LlmTrainBatch batch = make_batch(bench, c);
	LlmError err = { 0 };
	LlmTrainMemory memory = llm_train_memory(
		llm_model_config(bench->model), llm_model_options(bench->model),
		bench->compute->activation_dtype, &options);
	double gigabytes = (double) memory.total_bytes / 1e9;
	LlmTrainer *trainer = llm_trainer_create(bench->model, &options, &err);
	float *floats = malloc((size_t) batch.n_labels * 2 * sizeof(float));
	int64_t times[N_TIMED];
	double us;
	double bound_us = bound_of(bench, c) * 1e6;

	if (trainer == NULL && err.code == LLM_ERROR_NO_MEMORY)
	{
		printf("# %s %d x %d: %s\n", c->name, c->n_segments, c->n_each,
			   err.message);
		free((void *) batch.token_ids);
		free(floats);
		return;
	}
	need(trainer != NULL && floats != NULL, &err);
	for (int32_t i = 0; i < batch.n_labels; i++)
		floats[i] = 1.0f / (float) batch.n_labels;
	for (int i = -2; i < N_TIMED; i++)
	{
		int64_t start_us = llm_clock_us();

		run_step(trainer, &batch, c, floats);
		if (i >= 0)
			times[i] = llm_clock_us() - start_us;
	}
	us = median(times, N_TIMED);
	if (bench->csv)
		printf("%s,%d,%d,%.0f,%.0f,%.0f,%.3f,%.1f\n", c->name, c->n_segments,
			   c->n_each, us, batch.n_tokens / us * 1e6, bound_us,
			   bound_us / us, gigabytes);
	else
		printf("%-10s %2d x %5d tokens: %9.0f us, %7.0f tokens/s, %4.1f %% of "
			   "the bound, %.1f GB\n",
			   c->name, c->n_segments, c->n_each, us, batch.n_tokens / us * 1e6,
			   100 * bound_us / us, gigabytes);
	fflush(stdout);
	llm_trainer_free(trainer);
	free((void *) batch.token_ids);
	free(floats);
}

/* ---- the operations ---- */

typedef struct Part
{
	const char *name;
	bool (*run)(Bench *bench, const void *args, LlmError *err);
	const void *args;
	double operations;
	double n_bytes; /* 0: its products count */
} Part;

static void
measure_part(Bench *bench, const Part *part)
{
	LlmError err = { 0 };
	int64_t times[N_TIMED];
	double us;

	for (int i = -1; i < N_TIMED; i++)
	{
		int64_t start_us = llm_clock_us();

		for (int j = 0; j < 4; j++)
			need(part->run(bench, part->args, &err), &err);
		need(bench->compute->ops->sync(bench->compute, &err), &err);
		if (i >= 0)
			times[i] = llm_clock_us() - start_us;
	}
	us = median(times, N_TIMED) / 4;
	if (part->n_bytes > 0)
		printf("  %-28s %9.1f us, %6.2f TB/s, %4.1f %% of a copy's\n",
			   part->name, us, part->n_bytes / us / 1e6,
			   100 * part->n_bytes / us * 1e6 / bench->copy_rate);
	else
		printf("  %-28s %9.1f us, %6.1f TFLOP/s, %4.1f %% of a product's\n",
			   part->name, us, part->operations / us / 1e6,
			   100 * part->operations / us * 1e6 / bench->product_rate);
	fflush(stdout);
}

static bool
run_product(Bench *bench, const void *args, LlmError *err)
{
	return bench->compute->ops->train->product(bench->compute, args, err);
}

static bool
run_attention(Bench *bench, const void *args, LlmError *err)
{
	const LlmSegmentAttentionBackArgs *back = args;

	return bench->compute->ops->train->attention(bench->compute, &back->forward,
												 err);
}

static bool
run_attention_back(Bench *bench, const void *args, LlmError *err)
{
	return bench->compute->ops->train->attention_back(bench->compute, args,
													  err);
}

static bool
run_cross_entropy(Bench *bench, const void *args, LlmError *err)
{
	return bench->compute->ops->train->cross_entropy(bench->compute, args, err);
}

static bool
run_gated_act_back(Bench *bench, const void *args, LlmError *err)
{
	return bench->compute->ops->train->gated_act_back(bench->compute, args,
													  err);
}

static bool
run_rms_norm_back(Bench *bench, const void *args, LlmError *err)
{
	return bench->compute->ops->train->rms_norm_back(bench->compute, args, err);
}

static bool
run_adamw(Bench *bench, const void *args, LlmError *err)
{
	return bench->compute->ops->train->adamw(bench->compute, args, err);
}

/* Memory full of numbers of about that size. */
static void *
filled(Bench *bench, int64_t n, float unit)
{
	LlmError err = { 0 };
	LlmFillNormalArgs fill = { .dtype = LLM_DTYPE_BF16, .n = n, .unit = unit };

	fill.dest = bench->compute->ops->alloc(bench->compute, (size_t) n * 2,
										   "a part", &err);
	fill.seed = (uint64_t) n;
	need(fill.dest != NULL &&
			 bench->compute->ops->fill_normal(bench->compute, &fill, &err),
		 &err);
	return fill.dest;
}

/* a [m, k] b [k, n]; transposed: as stored */
static void
measure_product_part(Bench *bench, const char *name, LlmProductArgs args)
{
	Part part = { name, run_product, &args,
				  2.0 * (double) args.m * (double) args.n * (double) args.k };
	double n_bytes = 2.0 * (double) (args.m * args.k + args.k * args.n) +
					 (args.out_dtype == LLM_DTYPE_F32 ? 4.0 : 2.0) *
						 (args.adds ? 2 : 1) * (double) (args.m * args.n);

	args.a.data = filled(bench, args.m * args.k, 0.01f);
	args.b.data = filled(bench, args.k * args.n, 0.001f);
	args.out = filled(bench, 2 * args.m * args.n, 0.001f);
	args.a.dtype = args.b.dtype = LLM_DTYPE_BF16;
	args.a.stride = args.a.is_transposed ? args.m : args.k;
	args.b.stride = args.b.is_transposed ? args.k : args.n;
	args.out_stride = args.n;
	args.scale = 1;
	/* thin ones are bound by memory */
	if (args.m <= 64 || args.n <= 64 || args.k <= 64)
		part.n_bytes = n_bytes;
	measure_part(bench, &part);
	bench->compute->ops->free(bench->compute, (void *) args.a.data);
	bench->compute->ops->free(bench->compute, (void *) args.b.data);
	bench->compute->ops->free(bench->compute, args.out);
}

static void
measure_product_parts(Bench *bench, int64_t n_tokens)
{
	const int64_t hidden = bench->config.hidden_size;
	const int64_t inner = bench->config.intermediate_size;
	const int64_t n_vocab = bench->config.n_vocab;
	const LlmDtype act = LLM_DTYPE_BF16;
	const LlmOperand by_rows = { 0 };
	const LlmOperand transposed = { .is_transposed = true };
	const struct
	{
		const char *name;
		LlmProductArgs args;
	} parts[] = {
		{ "q, o: x W^T",
		  { by_rows, transposed, n_tokens, hidden, hidden, .out_dtype = act } },
		{ "gate, up: x W^T",
		  { by_rows, transposed, n_tokens, inner, hidden, .out_dtype = act } },
		{ "down: x W^T",
		  { by_rows, transposed, n_tokens, hidden, inner, .out_dtype = act } },
		{ "q, o: d_y W",
		  { by_rows, by_rows, n_tokens, hidden, hidden, .out_dtype = act } },
		{ "up: += d_y W",
		  { by_rows, by_rows, n_tokens, hidden, inner, .adds = true,
			.out_dtype = act } },
		{ "down: d_y W",
		  { by_rows, by_rows, n_tokens, inner, hidden, .out_dtype = act } },
		{ "logits",
		  { by_rows, transposed, MAX_LOGIT_ROWS, n_vocab, hidden,
			.out_dtype = LLM_DTYPE_F32 } },
		{ "d_logits W",
		  { by_rows, by_rows, MAX_LOGIT_ROWS, hidden, n_vocab,
			.out_dtype = act } },
		{ "A x of q, k, v",
		  { by_rows, transposed, n_tokens, 3 * RANK, hidden,
			.out_dtype = act } },
		{ "gate: += B u",
		  { by_rows, transposed, n_tokens, inner, RANK, .adds = true,
			.out_dtype = act } },
		{ "gate: d_u = d_y B",
		  { by_rows, by_rows, n_tokens, RANK, inner, .out_dtype = act } },
		{ "gate: d_B += d_y^T u",
		  { transposed, by_rows, inner, RANK, n_tokens, .adds = true,
			.out_dtype = LLM_DTYPE_F32 } },
		{ "d_A += d_u^T x of q, k, v",
		  { transposed, by_rows, 3 * RANK, hidden, n_tokens, .adds = true,
			.out_dtype = LLM_DTYPE_F32 } },
		{ "gate: d_x += d_u A",
		  { by_rows, by_rows, n_tokens, hidden, RANK, .adds = true,
			.out_dtype = act } },
	};

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		measure_product_part(bench, parts[i].name, parts[i].args);
}

static int32_t *
upload(Bench *bench, const int32_t *host, int64_t n)
{
	LlmError err = { 0 };
	int32_t *device = bench->compute->ops->alloc(
		bench->compute, (size_t) n * sizeof(int32_t), "a part", &err);

	need(device != NULL &&
			 bench->compute->ops->write(bench->compute, device, host,
										(size_t) n * sizeof(int32_t), &err) &&
			 bench->compute->ops->sync(bench->compute, &err),
		 &err);
	return device;
}

static void
measure_attention_parts(Bench *bench, int32_t n_each, int32_t n_segments)
{
	const LlmModelConfig *config = &bench->config;
	const int32_t n = n_each * n_segments;
	const int64_t n_q = (int64_t) n * config->n_heads * config->head_dim;
	const int64_t n_kv = (int64_t) n * config->n_kv_heads * config->head_dim;
	double products =
		2.0 * n * (n_each + 1) / 2 * config->n_heads * config->head_dim;
	int32_t *bounds = malloc((size_t) n * 2 * sizeof(int32_t));
	void *memory[11];
	LlmSegmentAttentionBackArgs args = { 0 };
	Part there = { "attention", run_attention, &args, 2 * products };
	Part back = { "attention back", run_attention_back, &args, 5 * products };

	for (int32_t i = 0; i < n; i++)
	{
		bounds[i] = i / n_each * n_each;
		bounds[n + i] = bounds[i] + n_each;
	}
	for (int i = 0; i < 9; i++)
		memory[i] = filled(
			bench, i == 1 || i == 2 || i == 6 || i == 7 ? n_kv : n_q, 0.01f);
	memory[9] = upload(bench, bounds, n);
	memory[10] = upload(bench, bounds + n, n);
	args.forward = (LlmSegmentAttentionArgs){
		.q = memory[0],
		.k = memory[1],
		.v = memory[2],
		.segment_start = memory[9],
		.segment_end = memory[10],
		.out = memory[3],
		.log_sums = memory[8],
		.n_tokens = n,
		.n_heads = config->n_heads,
		.n_kv_heads = config->n_kv_heads,
		.head_dim = config->head_dim,
		.scale = (float) config->attention_scale,
	};
	args.d_out = memory[4];
	args.d_q = memory[5];
	args.d_k = memory[6];
	args.d_v = memory[7];
	/* both fit where as many activations would */
	args.d_out_sums = (float *) memory[8] + (int64_t) n * config->n_heads;
	printf("%d segments of %d tokens:\n", n_segments, n_each);
	measure_part(bench, &there);
	measure_part(bench, &back);
	for (int i = 0; i < 11; i++)
		bench->compute->ops->free(bench->compute, memory[i]);
	free(bounds);
}

static void
measure_row_parts(Bench *bench, int64_t n_tokens)
{
	const int64_t hidden = bench->config.hidden_size;
	const int64_t n_inner = n_tokens * bench->config.intermediate_size;
	const int64_t n_logits = (int64_t) MAX_LOGIT_ROWS * bench->config.n_vocab;
	const int64_t n_values = (int64_t) 40 << 20;
	int32_t labels[MAX_LOGIT_ROWS] = { 0 };
	void *a = filled(bench, n_inner, 0.001f);
	void *b = filled(bench, n_inner, 0.001f);
	void *c = filled(bench, n_inner, 0.001f);
	char *wide = filled(bench, 8 * n_values, 0.001f);
	float *logits = filled(bench, 3 * n_logits, 0.001f);
	int32_t *device_labels = upload(bench, labels, MAX_LOGIT_ROWS);
	float *row_floats = (float *) c;
	LlmGatedActBackArgs act = { a, b, c, a, b, n_inner, LLM_ACTIVATION_SILU };
	LlmRmsNormBackArgs norm = { .x = a,
								.d_y = b,
								.weight = { c, LLM_DTYPE_BF16, hidden },
								.d_x = b,
								.n_rows = (int32_t) n_tokens,
								.dim = (int32_t) hidden,
								.eps = 1e-5f,
								.adds = true };
	LlmCrossEntropyArgs entropy = {
		.logits = logits,
		.labels = device_labels,
		.weights = row_floats,
		.d_logits = logits + n_logits,
		.log_probs = row_floats + MAX_LOGIT_ROWS,
		.n_rows = MAX_LOGIT_ROWS,
		.n_vocab = bench->config.n_vocab,
	};
	LlmAdamwArgs adamw = { .p = (float *) wide,
						   .d_p = (float *) wide + n_values,
						   .m = (float *) wide + 2 * n_values,
						   .v = (float *) wide + 3 * n_values,
						   .n = n_values,
						   .clip = 1,
						   .rate = 1e-6,
						   .beta1 = 0.9,
						   .beta2 = 0.999,
						   .eps = 1e-8,
						   .correction1 = 0.1,
						   .correction2 = 0.001 };
	const Part parts[] = {
		{ "gated activation back", run_gated_act_back, &act, 0,
		  10.0 * (double) n_inner },
		{ "norm back", run_rms_norm_back, &norm, 0,
		  8.0 * (double) (n_tokens * hidden) },
		{ "cross entropy", run_cross_entropy, &entropy, 0,
		  10.0 * (double) n_logits },
		{ "AdamW", run_adamw, &adamw, 0, 28.0 * (double) n_values },
	};

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		measure_part(bench, &parts[i]);
	bench->compute->ops->free(bench->compute, a);
	bench->compute->ops->free(bench->compute, b);
	bench->compute->ops->free(bench->compute, c);
	bench->compute->ops->free(bench->compute, wide);
	bench->compute->ops->free(bench->compute, logits);
	bench->compute->ops->free(bench->compute, device_labels);
}

/* ---- all of it ---- */

static void
parse_options(int argc, char **argv, Bench *bench)
{
	int32_t n_layers = 0;

	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--csv") == 0)
			bench->csv = true;
		else if (strcmp(argv[i], "--nf4") == 0)
			bench->is_nf4 = true;
		else if (strcmp(argv[i], "--parts") == 0)
			bench->parts = true;
		else if (strcmp(argv[i], "--layers") == 0 && i + 1 < argc)
			n_layers = atoi(argv[++i]);
		else
		{
			fprintf(stderr,
					"usage: bench_train_gpu [--csv] [--layers N] [--nf4] "
					"[--parts]\n");
			exit(2);
		}
	}
	if (n_layers > 0)
		bench->config.n_layers = n_layers;
	bench->max_tokens = 16384;
}

int
main(int argc, char **argv)
{
	static const StepCase cases[] = {
		{ "sft", 4, 2048, LLM_RECOMPUTE_SELECTIVE, false },
		{ "sft", 2, 4096, LLM_RECOMPUTE_SELECTIVE, false },
		{ "sft", 4, 4096, LLM_RECOMPUTE_SELECTIVE, false },
		{ "recompute", 2, 4096, LLM_RECOMPUTE_FULL, false },
		{ "pairs", 2, 4096, LLM_RECOMPUTE_SELECTIVE, true },
		{ "short", 64, 128, LLM_RECOMPUTE_SELECTIVE, false },
		{ "long", 1, 16384, LLM_RECOMPUTE_FULL, false },
	};
	static Bench bench;
	LlmComputeOptions options = { .precision = LLM_DTYPE_BF16 };
	LlmDeviceInfo info;
	LlmError err = { 0 };

	if (!llm_compute_cuda_info(&options, &info, &err))
	{
		printf("%s\n", err.message);
		return 0;
	}
	need(llm_model_config_parse(llama_8b, strlen(llama_8b), "Llama 3.1 8B",
								&bench.config, &err),
		 &err);
	parse_options(argc, argv, &bench);
	bench_open(&bench);
	bench.copy_rate = measure_copy(bench.compute);
	bench.product_rate = measure_product(bench.compute);
	if (bench.csv)
		printf("what,segments,tokens,us,tokens_per_s,bound_us,of_bound,gb\n");
	else
		printf("%d layers%s; copy %.2f TB/s, product %.2f TFLOP/s\n",
			   bench.config.n_layers, bench.is_nf4 ? " in NF4" : "",
			   bench.copy_rate / 1e12, bench.product_rate / 1e12);
	for (size_t i = 0; i < sizeof(cases) / sizeof(StepCase); i++)
		measure_step(&bench, &cases[i]);
	if (bench.parts)
	{
		measure_attention_parts(&bench, 4096, 2);
		measure_attention_parts(&bench, 2048, 4);
		measure_attention_parts(&bench, 128, 64);
		printf("8192 tokens:\n");
		measure_product_parts(&bench, 8192);
		measure_row_parts(&bench, 8192);
	}
	llm_model_free(bench.model);
	bench.compute->ops->close(bench.compute);
	free(bench.pairs);
	return 0;
}
