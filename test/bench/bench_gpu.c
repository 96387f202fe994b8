/*
 * bench_gpu.c
 *	  The forward pass on a GPU, beside what the GPU gives.
 *
 * Single steps of a model with made-up weights, each waited for, beside their
 * bounds (bench_gpu_model.h), and the model's products alone.
 *
 *	  bench_gpu [--csv] [--parts] [--eager] [--deterministic] [--layers N]
 *				[--kv DTYPE]
 *
 * test/bench/bench_gpu.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/clock.h"
#include "src/engine/model/model.h"
#include "test/bench/bench_gpu_model.h"

#define BLOCK_SIZE 16
#define MAX_TOKENS 8192
#define MAX_SEQS 256
#define MAX_LEN 33792
#define MAX_BLOCKS_PER_SEQ (MAX_LEN / BLOCK_SIZE)
#define N_BLOCKS 20480

typedef struct Bench
{
	bool csv;
	bool parts;
	bool eager;
	bool deterministic;
	LlmDtype kv_dtype;
	LlmModelConfig config;
	LlmCompute *compute;
	LlmModel *model;
	LlmKvCache *kv;
	Yardsticks yardsticks;
	int32_t token_ids[MAX_TOKENS];
	int32_t positions[MAX_TOKENS];
	int32_t rope_rows[MAX_TOKENS];
	int32_t token_seq[MAX_TOKENS];
	int32_t query_start[MAX_SEQS + 1];
	int32_t context_len[MAX_SEQS];
	int32_t block_tables[MAX_SEQS * MAX_BLOCKS_PER_SEQ];
	int32_t logit_rows[MAX_SEQS];
	LlmSampleRow rows[MAX_SEQS];
	LlmSampleResult results[MAX_SEQS];
} Bench;

/* ---- a model, its cache, its steps ---- */

static void
bench_open(Bench *bench)
{
	const LlmModelConfig *config = &bench->config;
	LlmError err = { 0 };
	LlmComputeOptions compute_options = {
		.precision = LLM_DTYPE_BF16,
		.max_rows = MAX_TOKENS,
		.max_cols = config->intermediate_size,
		.max_seqs = MAX_SEQS,
		.max_context_len = MAX_LEN,
		.max_heads = config->n_heads,
		.max_vocab = config->n_vocab,
		.arena_bytes =
			(size_t) llm_model_n_params(config) * 2 + ((size_t) 64 << 20),
		.kv_expand_bytes = (size_t) 128 << 20,
		.enforce_eager = bench->eager,
		.deterministic = bench->deterministic,
	};
	LlmModelOptions model_options = {
		.weight_dtype = LLM_DTYPE_BF16,
		.dummy_weights = true,
		.dummy_seed = 1,
		.max_model_len = MAX_LEN,
		.max_num_batched_tokens = MAX_TOKENS,
		.max_logit_rows = MAX_SEQS,
	};
	LlmKvCacheSpec spec = { .n_layers = config->n_layers,
							.n_kv_heads = config->n_kv_heads,
							.head_dim = config->head_dim,
							.block_size = BLOCK_SIZE,
							.n_blocks = N_BLOCKS,
							.dtype = bench->kv_dtype };
	int64_t start_us;

	bench->compute = llm_compute_cuda_load(&compute_options, &err);
	need(bench->compute != NULL, &err);
	start_us = llm_clock_us();
	bench->model =
		llm_model_load(NULL, config, &model_options, bench->compute, &err);
	need(bench->model != NULL, &err);
	need(bench->compute->ops->sync(bench->compute, &err), &err);
	fprintf(stderr, "weights made up in %.2f s\n",
			(double) (llm_clock_us() - start_us) / 1e6);
	bench->kv = bench->compute->ops->kv_create(bench->compute, &spec, &err);
	need(bench->kv != NULL, &err);
	/* blocks of a sequence lie apart, as they do after a while */
	for (int i = 0; i < MAX_SEQS * MAX_BLOCKS_PER_SEQ; i++)
		bench->block_tables[i] = (int32_t) ((int64_t) i * 7919 % N_BLOCKS);
	for (int i = 0; i < MAX_SEQS; i++)
		bench->rows[i].params = llm_sampling_params_default();
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
	const LlmComputeOps *ops = bench->compute->ops;
	LlmStepInputs device;
	LlmStepInputs inputs = {
		.n_tokens = n_seqs * n_new,
		.n_seqs = n_seqs,
		.n_logit_rows = n_seqs,
		.max_blocks_per_seq = MAX_BLOCKS_PER_SEQ,
		.max_query_len = n_new,
		.is_prompt = n_new > 1,
		.max_context_len = n_before + n_new,
		.token_ids = bench->token_ids,
		.positions = bench->positions,
		.rope_rows = bench->rope_rows,
		.token_seq = bench->token_seq,
		.query_start = bench->query_start,
		.context_len = bench->context_len,
		.block_tables = bench->block_tables,
		.logit_rows = bench->logit_rows,
	};
	LlmSampleArgs sample = { .n_rows = n_seqs,
							 .n_vocab = bench->config.n_vocab,
							 .rows = bench->rows,
							 .results = bench->results };
	LlmError err = { 0 };

	for (int32_t i = 0; i < inputs.n_tokens; i++)
	{
		bench->token_ids[i] =
			(i * 7919 + n_before * 31) % bench->config.n_vocab;
		bench->positions[i] = n_before + i % n_new;
		bench->rope_rows[i] = bench->positions[i];
		bench->token_seq[i] = i / n_new;
	}
	for (int32_t s = 0; s < n_seqs; s++)
	{
		bench->query_start[s + 1] = (s + 1) * n_new;
		bench->context_len[s] = n_before + n_new;
		bench->logit_rows[s] = (s + 1) * n_new - 1;
		bench->rows[s].params.temperature = s % 2 == 0 ? 0.0f : 0.8f;
		bench->rows[s].params.top_p = 0.95f;
	}
	need(ops->step_upload(bench->compute, &inputs, &device, &err) &&
			 llm_model_forward(bench->model, &device, bench->kv, &sample.logits,
							   &err) &&
			 ops->sample(bench->compute, &sample, &err) &&
			 ops->sync(bench->compute, &err),
		 &err);
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
measure(Bench *bench, int32_t n_seqs, int32_t n_new, int32_t n_before)
{
	int n_steps = n_new > 1 ? 5 : N_STEPS;
	int64_t times[N_STEPS];
	double step_us;
	double bound_us =
		1e6 * bound_s(&bench->yardsticks, n_seqs, n_new, n_before);

	/* the first steps choose algorithms and record graphs */
	for (int i = 0; i < 3; i++)
		run_step(bench, n_seqs, n_new, n_before);
	for (int i = 0; i < n_steps; i++)
	{
		int64_t start_us = llm_clock_us();

		run_step(bench, n_seqs, n_new, n_before);
		times[i] = llm_clock_us() - start_us;
	}
	step_us = median(times, n_steps);
	if (bench->csv)
		printf("%d,%d,%d,%.0f,%.1f,%.0f,%.3f\n", n_seqs, n_new, n_before,
			   step_us, n_seqs * n_new / step_us * 1e6, bound_us,
			   bound_us / step_us);
	else
		printf("%4d sequences, %5d new after %5d: %10.3f ms %10.1f tok/s, "
			   "bound %10.3f ms, %5.1f %%\n",
			   n_seqs, n_new, n_before, step_us / 1e3,
			   n_seqs * n_new / step_us * 1e6, bound_us / 1e3,
			   100 * bound_us / step_us);
	if (!bench->parts)
		return;
	llm_model_set_timing(bench->model, true);
	for (int i = 0; i < 3; i++)
		run_step(bench, n_seqs, n_new, n_before);
	print_parts(llm_model_timing(bench->model));
	llm_model_set_timing(bench->model, false);
}

static LlmDtype
dtype_by_name(const char *name)
{
	LlmDtype dtype = LLM_DTYPE_F32;

	while (dtype < LLM_DTYPE_COUNT && strcmp(llm_dtype_name(dtype), name) != 0)
		dtype++;
	if (dtype < LLM_DTYPE_COUNT)
		return dtype;
	fprintf(stderr, "unknown type \"%s\"\n", name);
	exit(1);
}

/* A long prompt in chunks of the largest step. */
static void
measure_chunks(Bench *bench, int32_t n_tokens)
{
	double bound_us = 0;
	int64_t start_us;
	double us;

	for (int32_t at = 0; at < n_tokens; at += MAX_TOKENS)
		bound_us += 1e6 * bound_s(&bench->yardsticks, 1, MAX_TOKENS, at);
	start_us = llm_clock_us();
	for (int32_t at = 0; at < n_tokens; at += MAX_TOKENS)
		run_step(bench, 1, MAX_TOKENS, at);
	us = (double) (llm_clock_us() - start_us);
	if (bench->csv)
		printf("%d,%d,%d,%.0f,%.1f,%.0f,%.3f\n", 1, n_tokens, 0, us,
			   n_tokens / us * 1e6, bound_us, bound_us / us);
	else
		printf("   1 sequences, %5d new in chunks:     %10.3f ms %10.1f "
			   "tok/s, bound %10.3f ms, %5.1f %%\n",
			   n_tokens, us / 1e3, n_tokens / us * 1e6, bound_us / 1e3,
			   100 * bound_us / us);
}

/* Rows of weights of a layer's products: q, k, v; o; gate, up; down. */
static void
measure_products(Bench *bench, int32_t n_rows)
{
	const LlmModelConfig *config = &bench->config;
	const LlmComputeOps *ops = bench->compute->ops;
	const int64_t dim = config->hidden_size;
	const int64_t inner = config->intermediate_size;
	const int64_t heads = config->n_heads + 2 * config->n_kv_heads;
	const int64_t shapes[4][2] = { { heads * config->head_dim, dim },
								   { dim, dim },
								   { 2 * inner, dim },
								   { dim, inner } };
	enum
	{
		COPIES = 4 /* so that weights do not stay in the cache */
	};
	LlmError err = { 0 };
	char *x = ops->alloc(bench->compute, (size_t) (n_rows * inner) * 2,
						 "inputs", &err);
	char *out = ops->alloc(bench->compute, (size_t) (n_rows * 2 * inner) * 2,
						   "outputs", &err);
	double us = 0;

	need(x != NULL && out != NULL, &err);
	for (int s = 0; s < 4; s++)
	{
		size_t n_bytes = (size_t) (shapes[s][0] * shapes[s][1]) * 2;
		char *w = ops->alloc(bench->compute, COPIES * n_bytes, "weights", &err);
		int64_t start_us = 0;

		need(w != NULL, &err);
		for (int i = -COPIES; i < config->n_layers; i++)
		{
			LlmLinearArgs args = { .x = x, .n_rows = n_rows, .n_parts = 1 };

			args.part[0].weight =
				(LlmMatrix){ w + (size_t) ((i + COPIES) % COPIES) * n_bytes,
							 LLM_DTYPE_BF16, shapes[s][0], shapes[s][1] };
			args.part[0].out = out;
			args.part[0].out_stride = shapes[s][0];
			if (i == 0)
			{
				need(ops->sync(bench->compute, &err), &err);
				start_us = llm_clock_us();
			}
			need(ops->linear(bench->compute, &args, &err), &err);
		}
		need(ops->sync(bench->compute, &err), &err);
		us += (double) (llm_clock_us() - start_us);
		ops->free(bench->compute, w);
	}
	ops->free(bench->compute, out);
	ops->free(bench->compute, x);
	printf("%4d rows: the layers' products alone %10.3f ms\n", n_rows,
		   us / 1e3);
}

static void
parse_options(int argc, char **argv, Bench *bench)
{
	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--csv") == 0)
			bench->csv = true;
		else if (strcmp(argv[i], "--parts") == 0)
			bench->parts = true;
		else if (strcmp(argv[i], "--eager") == 0)
			bench->eager = true;
		else if (strcmp(argv[i], "--deterministic") == 0)
			bench->deterministic = true;
		else if (strcmp(argv[i], "--layers") == 0 && i + 1 < argc)
			bench->config.n_layers = atoi(argv[++i]);
		else if (strcmp(argv[i], "--kv") == 0 && i + 1 < argc)
			bench->kv_dtype = dtype_by_name(argv[++i]);
		else
		{
			fprintf(stderr,
					"usage: %s [--csv] [--parts] [--eager] [--layers N] "
					"[--kv DTYPE]\n",
					argv[0]);
			exit(1);
		}
	}
}

int
main(int argc, char **argv)
{
	static Bench bench;
	char device[160];
	LlmError err = { 0 };

	need(llm_model_config_parse(llama_8b, strlen(llama_8b), "Llama 3.1 8B",
								&bench.config, &err),
		 &err);
	bench.kv_dtype = LLM_DTYPE_BF16;
	parse_options(argc, argv, &bench);
	bench_open(&bench);
	bench.yardsticks.config = &bench.config;
	bench.yardsticks.kv_dtype = bench.kv_dtype;
	bench.yardsticks.copy_rate = measure_copy(bench.compute);
	bench.yardsticks.product_rate = measure_product(bench.compute);
	bench.compute->ops->describe(bench.compute, device, sizeof(device));
	if (bench.csv)
		printf("sequences,new,before,us,tokens_per_s,bound_us,of_bound\n");
	else
		printf("%s: copy %.2f TB/s, product %.0f TFLOP/s\n", device,
			   bench.yardsticks.copy_rate / 1e12,
			   bench.yardsticks.product_rate / 1e12);
	for (int32_t n_rows = 1; !bench.csv && n_rows <= 8192; n_rows *= 4)
		measure_products(&bench, n_rows);
	measure(&bench, 1, 1, 0);
	measure(&bench, 1, 1, 1023);
	measure(&bench, 1, 1, 8191);
	measure(&bench, 1, 1, 32767);
	measure(&bench, 8, 1, 1023);
	measure(&bench, 64, 1, 1023);
	measure(&bench, 256, 1, 1023);
	measure(&bench, 1, 512, 0);
	measure(&bench, 1, 2048, 0);
	measure(&bench, 1, 8192, 0);
	measure_chunks(&bench, 32768);
	bench_close(&bench);
	return 0;
}
