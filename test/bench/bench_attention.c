/*
 * bench_attention.c
 *	  Attention alone on a GPU, in the shape of Llama 3.1 8B.
 *
 * Steps go through several layers of one cache, which together are larger
 * than the GPU's own cache, and are waited for once.  Bytes are those of keys
 * and values as stored, operations those of visible pairs.  The same shapes
 * run through torch in tools/bench-sdpa.py.
 *
 *	  bench_attention [--kv bfloat16|fp8|int8] [--shared]
 *
 * With --shared all sequences of a decode step have the same leading blocks.
 *
 * test/bench/bench_attention.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/clock.h"
#include "src/engine/compute/compute.h"

#define N_HEADS 32
#define N_KV_HEADS 8
#define HEAD_DIM 128
#define BLOCK_SIZE 16
#define MAX_SEQS 256
#define MAX_TOKENS 32768
#define MAX_LEN 32768
#define N_BLOCKS 20480
#define N_LAYERS 4
#define N_ROUNDS 5
#define ROW (N_HEADS * HEAD_DIM)

typedef struct Bench
{
	LlmCompute *compute;
	LlmKvCache *kv;
	LlmDtype kv_dtype;
	void *q;
	void *out;
	int32_t positions[MAX_TOKENS];
	int32_t token_seq[MAX_TOKENS];
	int32_t query_start[MAX_SEQS + 1];
	int32_t context_len[MAX_SEQS];
	int32_t block_tables[MAX_SEQS * (MAX_LEN / BLOCK_SIZE)];
} Bench;

typedef struct Shape
{
	int32_t n_seqs;
	int32_t n_new; /* tokens of each sequence */
	int32_t n_before;
	int32_t n_shared; /* of n_before, the same blocks in all sequences */
} Shape;

static void
need(bool ok, const LlmError *err)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

static void
bench_open(Bench *bench)
{
	LlmComputeOptions options = {
		.precision = LLM_DTYPE_BF16,
		.max_rows = MAX_TOKENS,
		.max_cols = 4096,
		.max_seqs = MAX_SEQS,
		.max_context_len = MAX_LEN,
		.max_heads = N_HEADS,
		.max_vocab = 1024,
		.kv_expand_bytes = (size_t) 128 << 20,
		.enforce_eager = true,
	};
	LlmKvCacheSpec spec = { N_LAYERS,	N_KV_HEADS, HEAD_DIM,
							BLOCK_SIZE, N_BLOCKS,	bench->kv_dtype };
	size_t n_bytes = (size_t) MAX_TOKENS * ROW * 2;
	LlmFillNormalArgs fill = { .dtype = LLM_DTYPE_BF16,
							   .n = (int64_t) MAX_TOKENS * ROW,
							   .unit = 0.005f,
							   .seed = 1 };
	LlmError err = { 0 };

	bench->compute = llm_compute_cuda_load(&options, &err);
	need(bench->compute != NULL, &err);
	bench->kv = bench->compute->ops->kv_create(bench->compute, &spec, &err);
	need(bench->kv != NULL, &err);
	bench->q = bench->compute->ops->alloc(bench->compute, n_bytes, "q", &err);
	bench->out =
		bench->compute->ops->alloc(bench->compute, n_bytes, "out", &err);
	need(bench->q != NULL && bench->out != NULL, &err);
	fill.dest = bench->q;
	need(bench->compute->ops->fill_normal(bench->compute, &fill, &err), &err);
}

/* Blocks of a sequence lie apart, as they do after a while. */
static LlmStepInputs
make_step(Bench *bench, const Shape *shape)
{
	int32_t len = shape->n_before + shape->n_new;
	int32_t stride = (len + BLOCK_SIZE - 1) / BLOCK_SIZE;
	LlmStepInputs inputs = {
		.n_tokens = shape->n_seqs * shape->n_new,
		.n_seqs = shape->n_seqs,
		.max_blocks_per_seq = stride,
		.max_query_len = shape->n_new,
		.max_context_len = len,
		.positions = bench->positions,
		.rope_rows = bench->positions,
		.token_seq = bench->token_seq,
		.query_start = bench->query_start,
		.context_len = bench->context_len,
		.block_tables = bench->block_tables,
	};

	for (int32_t i = 0; i < inputs.n_tokens; i++)
	{
		bench->positions[i] = shape->n_before + i % shape->n_new;
		bench->token_seq[i] = i / shape->n_new;
	}
	for (int32_t s = 0; s < shape->n_seqs; s++)
	{
		bench->query_start[s + 1] = (s + 1) * shape->n_new;
		bench->context_len[s] = len;
		for (int32_t b = 0; b < stride; b++)
		{
			bool is_shared = (b + 1) * BLOCK_SIZE <= shape->n_shared;
			int64_t i = is_shared ? b : (int64_t) s * stride + b;

			bench->block_tables[s * stride + b] =
				(int32_t) (i * 7919 % N_BLOCKS);
		}
	}
	return inputs;
}

/* Keys and values of every token of the first step, from q's numbers. */
static void
fill_cache(Bench *bench)
{
	Shape all = { N_BLOCKS * BLOCK_SIZE / MAX_LEN, 0, 0, 0 };

	for (int32_t before = 0; before < MAX_LEN; before += MAX_LEN / 16)
	{
		LlmStepInputs device;
		LlmStepInputs inputs;
		LlmError err = { 0 };

		all.n_before = before;
		all.n_new = MAX_LEN / 16;
		inputs = make_step(bench, &all);
		/* tables as for whole sequences, whatever is there yet */
		inputs.max_blocks_per_seq = MAX_LEN / BLOCK_SIZE;
		for (int32_t i = 0; i < all.n_seqs * (MAX_LEN / BLOCK_SIZE); i++)
			bench->block_tables[i] = i % N_BLOCKS;
		need(bench->compute->ops->step_upload(bench->compute, &inputs, &device,
											  &err),
			 &err);
		for (int32_t layer = 0; layer < N_LAYERS; layer++)
		{
			LlmRopeKvArgs args = { .step = &device,
								   .q = bench->out,
								   .k = bench->q,
								   .v = (char *) bench->q + layer * 2048,
								   .q_stride = ROW,
								   .k_stride = ROW / 2,
								   .v_stride = ROW / 2,
								   .n_heads = 1,
								   .n_kv_heads = N_KV_HEADS,
								   .head_dim = HEAD_DIM,
								   .kv = bench->kv,
								   .layer_idx = layer };

			need(bench->compute->ops->rope_kv(bench->compute, &args, &err),
				 &err);
		}
		need(bench->compute->ops->sync(bench->compute, &err), &err);
	}
}

static double
time_rounds(Bench *bench, const LlmStepInputs *device, int n_calls)
{
	LlmAttentionArgs args = { .step = device,
							  .q = bench->q,
							  .q_stride = ROW,
							  .out = bench->out,
							  .n_heads = N_HEADS,
							  .n_kv_heads = N_KV_HEADS,
							  .head_dim = HEAD_DIM,
							  .scale = 0.08838835f,
							  .kv = bench->kv };
	double best_us = 1e30;
	LlmError err = { 0 };

	for (int round = 0; round < N_ROUNDS; round++)
	{
		int64_t start_us = llm_clock_us();
		double us;

		for (int i = 0; i < n_calls; i++)
		{
			args.layer_idx = i % N_LAYERS;
			need(bench->compute->ops->attention(bench->compute, &args, &err),
				 &err);
		}
		need(bench->compute->ops->sync(bench->compute, &err), &err);
		us = (double) (llm_clock_us() - start_us) / n_calls;
		best_us = us < best_us ? us : best_us;
	}
	return best_us;
}

static void
measure(Bench *bench, const Shape *shape)
{
	LlmKvCacheSpec token = { 1,			 N_KV_HEADS, HEAD_DIM,
							 BLOCK_SIZE, 64,		 bench->kv_dtype };
	double token_bytes =
		(double) bench->compute->ops->kv_bytes(&token) / (64.0 * BLOCK_SIZE);
	LlmStepInputs inputs = make_step(bench, shape);
	LlmStepInputs device;
	double keys = (double) (shape->n_before + shape->n_new) * shape->n_seqs;
	double pairs = (double) shape->n_seqs * shape->n_new *
				   (shape->n_before + 0.5 * (shape->n_new + 1));
	double us;
	LlmError err = { 0 };

	need(bench->compute->ops->step_upload(bench->compute, &inputs, &device,
										  &err),
		 &err);
	us = time_rounds(bench, &device, pairs > 1e7 ? N_LAYERS : 16 * N_LAYERS);
	printf("%s,%d,%d,%d,%d,%.1f,%.3f,%.1f\n", llm_dtype_name(bench->kv_dtype),
		   shape->n_seqs, shape->n_new, shape->n_before, shape->n_shared, us,
		   keys * token_bytes / us / 1e6, 4 * pairs * ROW / us / 1e6);
}

static void
parse_options(int argc, char **argv, Bench *bench, bool *shared)
{
	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--shared") == 0)
			*shared = true;
		else if (strcmp(argv[i], "--kv") == 0 && i + 1 < argc)
		{
			LlmDtype dtype = LLM_DTYPE_F32;

			i++;
			while (dtype < LLM_DTYPE_COUNT &&
				   strcmp(llm_dtype_name(dtype), argv[i]) != 0)
				dtype++;
			bench->kv_dtype = dtype;
		}
		else
		{
			fprintf(stderr, "usage: %s [--kv DTYPE] [--shared]\n", argv[0]);
			exit(1);
		}
	}
}

int
main(int argc, char **argv)
{
	static const Shape own[] = {
		{ 1, 1, 1023, 0 },	{ 1, 1, 8191, 0 },	   { 1, 1, 32767, 0 },
		{ 8, 1, 1023, 0 },	{ 64, 1, 1023, 0 },	   { 256, 1, 1023, 0 },
		{ 1, 512, 0, 0 },	{ 1, 2048, 0, 0 },	   { 1, 8192, 0, 0 },
		{ 1, 32768, 0, 0 }, { 1, 2048, 30720, 0 }, { 16, 512, 0, 0 },
	};
	static const Shape common[] = {
		{ 256, 1, 1063, 0 },	{ 256, 1, 1063, 1000 }, { 256, 1, 1255, 0 },
		{ 256, 1, 1255, 1000 }, { 64, 1, 4063, 0 },		{ 64, 1, 4063, 4000 },
		{ 256, 1, 4063, 4000 }, { 256, 1, 4255, 4000 },
	};
	static Bench bench;
	bool shared = false;
	const Shape *shapes;
	size_t n;

	bench.kv_dtype = LLM_DTYPE_BF16;
	parse_options(argc, argv, &bench, &shared);
	bench_open(&bench);
	fill_cache(&bench);
	shapes = shared ? common : own;
	n = shared ? sizeof(common) / sizeof(*common) : sizeof(own) / sizeof(*own);
	printf("kv,sequences,new,before,shared,us,tb_per_s,tflop_per_s\n");
	for (size_t i = 0; i < n; i++)
		measure(&bench, &shapes[i]);
	bench.compute->ops->kv_free(bench.kv);
	bench.compute->ops->close(bench.compute);
	return 0;
}
