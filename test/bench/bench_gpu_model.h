/*
 * bench_gpu_model.h
 *	  The model that GPUs are measured with, and the yardsticks beside it.
 *
 * The shape is that of Llama 3.1 8B.  What a GPU gives is measured with the
 * operation that gathers rows, as a copy in bytes read and written, and with a
 * large matrix product.  The bound of a step is the time to read its weights
 * at the speed of the copy, or the time for its products at the speed of the
 * large one, whichever is longer, plus its part of the cache or its attention's
 * products, whichever is longer.
 *
 * test/bench/bench_gpu_model.h
 */
#ifndef LLM_BENCH_GPU_MODEL_H
#define LLM_BENCH_GPU_MODEL_H

#include <stdio.h>
#include <stdlib.h>

#include "src/common/util/clock.h"
#include "src/engine/model/model.h"

#define N_STEPS 20

static const char llama_8b[] =
	"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
	"\"vocab_size\": 128256, \"hidden_size\": 4096, \"intermediate_size\": "
	"14336,"
	"\"num_hidden_layers\": 32, \"num_attention_heads\": 32,"
	"\"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-05,"
	"\"max_position_embeddings\": 131072, \"tie_word_embeddings\": false,"
	"\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\","
	"\"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0,"
	"\"original_max_position_embeddings\": 8192}, \"dtype\": \"bfloat16\"}";

typedef struct Yardsticks
{
	const LlmModelConfig *config;
	LlmDtype kv_dtype;
	double copy_rate;	 /* bytes per second */
	double product_rate; /* operations per second */
} Yardsticks;

static inline void
need(bool ok, const LlmError *err)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

static inline int
compare_times(const void *a, const void *b)
{
	int64_t x = *(const int64_t *) a;
	int64_t y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

static inline double
median(int64_t *times, int n)
{
	qsort(times, (size_t) n, sizeof(*times), compare_times);
	return (double) times[n / 2];
}

/* ---- what the GPU gives ---- */

static inline double
measure_copy(LlmCompute *compute)
{
	const LlmComputeOps *ops = compute->ops;
	enum
	{
		ROWS = 1 << 16,
		DIM = 1 << 14
	};
	size_t n_bytes = (size_t) ROWS * DIM * 2;
	LlmError err = { 0 };
	char *from = ops->alloc(compute, n_bytes, "a copy", &err);
	char *to = ops->alloc(compute, n_bytes, "a copy", &err);
	int32_t *rows = ops->alloc(compute, ROWS * 4, "a copy", &err);
	int32_t *host = malloc(ROWS * sizeof(int32_t));
	LlmGatherArgs args = { from, rows, to, ROWS, DIM };
	int64_t times[N_STEPS];

	need(from != NULL && to != NULL && rows != NULL && host != NULL, &err);
	for (int i = 0; i < ROWS; i++)
		host[i] = i;
	need(ops->write(compute, rows, host, ROWS * 4, &err), &err);
	for (int i = 0; i < N_STEPS; i++)
	{
		int64_t start_us = llm_clock_us();

		need(ops->gather(compute, &args, &err) && ops->sync(compute, &err),
			 &err);
		times[i] = llm_clock_us() - start_us;
	}
	free(host);
	ops->free(compute, rows);
	ops->free(compute, to);
	ops->free(compute, from);
	return 2.0 * (double) n_bytes / median(times, N_STEPS) * 1e6;
}

static inline double
measure_product(LlmCompute *compute)
{
	const LlmComputeOps *ops = compute->ops;
	const int64_t n = 8192;
	size_t n_bytes = (size_t) (n * n) * 2;
	LlmError err = { 0 };
	char *a = ops->alloc(compute, n_bytes, "a product", &err);
	char *b = ops->alloc(compute, n_bytes, "a product", &err);
	char *c = ops->alloc(compute, n_bytes, "a product", &err);
	LlmFillNormalArgs fill = {
		.dest = a, .dtype = LLM_DTYPE_BF16, .n = n * n, .unit = 0.01f, .seed = 1
	};
	LlmLinearArgs args = { .x = a, .n_rows = (int32_t) n, .n_parts = 1 };
	int64_t times[N_STEPS];

	need(a != NULL && b != NULL && c != NULL, &err);
	need(ops->fill_normal(compute, &fill, &err), &err);
	fill.dest = b;
	fill.seed = 2;
	need(ops->fill_normal(compute, &fill, &err), &err);
	args.part[0].weight = (LlmMatrix){ b, LLM_DTYPE_BF16, n, n };
	args.part[0].out = c;
	args.part[0].out_stride = n;
	need(ops->linear(compute, &args, &err), &err);
	for (int i = 0; i < N_STEPS; i++)
	{
		int64_t start_us;

		need(ops->sync(compute, &err), &err);
		start_us = llm_clock_us();
		need(ops->linear(compute, &args, &err) && ops->sync(compute, &err),
			 &err);
		times[i] = llm_clock_us() - start_us;
	}
	ops->free(compute, a);
	ops->free(compute, b);
	ops->free(compute, c);
	return 2.0 * (double) (n * n * n) / median(times, N_STEPS) * 1e6;
}

/* Seconds that the step takes at the yardsticks' speed. */
static inline double
bound_s(const Yardsticks *yardsticks, int32_t n_seqs, int32_t n_new,
		int32_t n_before)
{
	const LlmModelConfig *config = yardsticks->config;
	double embedding = (double) config->n_vocab * config->hidden_size;
	double n_params = (double) llm_model_n_params(config) - embedding;
	double n_tokens = (double) n_seqs * n_new;
	double pairs = n_tokens * (n_before + 0.5 * n_new);
	double head_dims = (double) config->n_heads * config->head_dim;
	double products =
		2 * n_tokens * (n_params - embedding) + 2 * n_seqs * embedding;
	double attention = 4 * pairs * head_dims * config->n_layers;
	double kv =
		(double) n_seqs * (n_before + n_new) *
		(double) llm_model_kv_bytes_per_token(config, yardsticks->kv_dtype);
	double read_s = 2 * n_params / yardsticks->copy_rate;
	double multiply_s = products / yardsticks->product_rate;
	double kv_s = kv / yardsticks->copy_rate;
	double attention_s = attention / yardsticks->product_rate;

	return (read_s > multiply_s ? read_s : multiply_s) +
		   (kv_s > attention_s ? kv_s : attention_s);
}

#endif /* LLM_BENCH_GPU_MODEL_H */
