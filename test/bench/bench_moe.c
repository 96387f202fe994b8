/*
 * bench_moe.c
 *	  Speed of a mixture of experts on the CPU, beside loops that only read
 *	  or only multiply.
 *
 *	bench_moe [--isa NAME] [--threads N] [--cpu-time]
 *
 * One layer in the shape of Qwen3-30B-A3B and one of Mixtral-8x7B, bf16
 * weights.  Decoding reads the weights of the experts that are visited, so
 * bytes are those of the experts that at least one row visits; rows choose at
 * random, and differently in each run.  The weights lie in a mapped file of
 * 1 GiB, several experts in the same place where that is too small.  The two
 * loops run between the rounds, and the best round of each counts: other work
 * on the machine can only slow one down.  There --threads 1 --cpu-time counts
 * the time that this program was given instead of the time that passed.
 *
 * test/bench/bench_moe.c
 */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/common/util/clock.h"
#include "src/engine/compute/compute.h"
#include "src/engine/compute/cpu_threads.h"
#include "test/bench/bench_yardsticks.h"

#define N_ROUNDS 7
#define ROUND_US 60000
#define MAX_ROWS 512
#define MAX_DIM 4096
#define MAX_EXPERTS 128
#define MAX_TOP 8

typedef struct Shape
{
	const char *name;
	int32_t dim;
	int32_t inner_dim;
	int32_t n_experts;
	int32_t n_top;
} Shape;

static const Shape shapes[] = {
	{ "Qwen3-30B-A3B", 2048, 768, 128, 8 },
	{ "Mixtral-8x7B", 4096, 14336, 8, 2 },
};

static const int32_t row_counts[] = { 1, 8, 32, 512 };

typedef struct Bench
{
	LlmCompute *compute;
	Yardsticks yardsticks;
	char *weights; /* BUFFER_BYTES */
	float *x;	   /* [MAX_ROWS, MAX_DIM] */
	float *out;
	float *logits; /* [MAX_ROWS, MAX_EXPERTS] */
	LlmMatrix matrix[3][MAX_EXPERTS];
	uint64_t random_state;
} Bench;

static float
random_float(Bench *b)
{
	b->random_state =
		b->random_state * 6364136223846793005u + 1442695040888963407u;
	return (float) (b->random_state >> 40) / (1 << 24);
}

static void
lay_out_experts(Bench *b, const Shape *shape)
{
	size_t n_bytes = (size_t) shape->dim * (size_t) shape->inner_dim * 2;
	size_t next = 0;

	for (int e = 0; e < shape->n_experts; e++)
	{
		for (int kind = 0; kind < 3; kind++)
		{
			bool is_down = kind == 2;

			if (next + n_bytes > BUFFER_BYTES)
				next = 0;
			b->matrix[kind][e] = (LlmMatrix){
				.data = b->weights + next,
				.dtype = LLM_DTYPE_BF16,
				.n_rows = is_down ? shape->dim : shape->inner_dim,
				.n_cols = is_down ? shape->inner_dim : shape->dim,
			};
			next += n_bytes;
		}
	}
}

/* New logits, n_top of each row far above the others; counts the chosen. */
static int
choose_experts(Bench *b, const Shape *shape, int32_t n_rows)
{
	bool is_visited[MAX_EXPERTS] = { false };
	int n_visited = 0;

	for (int32_t row = 0; row < n_rows; row++)
	{
		float *logits = b->logits + (size_t) row * (size_t) shape->n_experts;
		int n_chosen = 0;

		for (int i = 0; i < shape->n_experts; i++)
			logits[i] = random_float(b);
		while (n_chosen < shape->n_top)
		{
			int i = (int) (random_float(b) * (float) shape->n_experts);

			if (logits[i] > 1)
				continue;
			logits[i] += 4;
			n_chosen++;
			n_visited += !is_visited[i];
			is_visited[i] = true;
		}
	}
	return n_visited;
}

static void
bench_shape(Bench *b, const Shape *shape, int32_t n_rows)
{
	LlmMoeArgs args = {
		.x = b->x,
		.router_logits = b->logits,
		.out = b->out,
		.n_rows = n_rows,
		.dim = shape->dim,
		.inner_dim = shape->inner_dim,
		.n_experts = shape->n_experts,
		.n_top = shape->n_top,
		.renormalize = true,
		.activation = LLM_ACTIVATION_SILU,
		.gate = b->matrix[0],
		.up = b->matrix[1],
		.down = b->matrix[2],
	};
	double expert = 3.0 * shape->dim * shape->inner_dim;
	double flops = 2 * expert * n_rows * shape->n_top;
	double reading = 0;
	double multiplying = 0;
	double best_gbs = 0;
	double best_us = INFINITY;
	LlmError err;

	for (int round = 0; round < N_ROUNDS; round++)
	{
		int64_t us = 0;
		double n_visited = 0;
		int n = 0;

		reading = fmax(reading, measure_reading(&b->yardsticks));
		multiplying = fmax(multiplying, measure_multiplying(&b->yardsticks));
		for (; us < ROUND_US; n++)
		{
			int64_t start;

			n_visited += choose_experts(b, shape, n_rows);
			start = clock_us();
			check(b->compute->ops->moe(b->compute, &args, &err), &err);
			us += clock_us() - start;
		}
		best_us = fmin(best_us, (double) us / n);
		best_gbs = fmax(best_gbs, n_visited * expert * 2 / (double) us / 1e3);
	}
	printf("%-14s %4d rows %10.1f us %7.2f GB/s %5.1f %% of reading "
		   "%7.1f GFLOP/s %5.1f %% of multiplying\n",
		   shape->name, n_rows, best_us, best_gbs, 100 * best_gbs / reading,
		   flops / best_us / 1e3,
		   multiplying > 0 ? 100 * flops / best_us / 1e3 / multiplying : 0);
	fflush(stdout);
}

static void
fill_inputs(Bench *b)
{
	int fd = memfd_create("bench_moe", 0);
	uint16_t *values;

	/* a mapped file, as weights are: pages of 4 KiB */
	if (fd < 0 || ftruncate(fd, (off_t) BUFFER_BYTES) != 0)
		need(NULL);
	b->weights = need(
		mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close(fd);
	b->yardsticks.buffer = b->weights;
	values = (uint16_t *) b->weights;
	/* small numbers in bf16 */
	for (size_t i = 0; i < BUFFER_BYTES / 2; i++)
		values[i] = (uint16_t) (0x3C00 + (int) (random_float(b) * 256));
	b->x = need(calloc((size_t) MAX_ROWS * MAX_DIM, sizeof(float)));
	b->out = need(calloc((size_t) MAX_ROWS * MAX_DIM, sizeof(float)));
	b->logits = need(calloc((size_t) MAX_ROWS * MAX_EXPERTS, sizeof(float)));
	for (size_t i = 0; i < (size_t) MAX_ROWS * MAX_DIM; i++)
		b->x[i] = random_float(b) - 0.5f;
}

int
main(int argc, char **argv)
{
	Bench bench = { .random_state = 1 };
	LlmComputeOptions options = {
		.precision = LLM_DTYPE_BF16,
		.max_rows = MAX_ROWS,
		.max_cols = MAX_DIM,
		.max_seqs = 1,
		.max_context_len = 1,
		.max_heads = 1,
		.max_vocab = 1,
		.max_experts = MAX_EXPERTS,
		.max_experts_per_token = MAX_TOP,
		.max_expert_dim = 14336,
	};
	LlmError err = { 0 };

	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc)
			options.isa = argv[++i];
		else if (strcmp(argv[i], "--cpu-time") == 0)
			uses_cpu_time = true;
		else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
			options.n_threads = atoi(argv[++i]);
		else
		{
			fprintf(stderr,
					"usage: %s [--isa NAME] [--threads N] [--cpu-time]\n",
					argv[0]);
			return 2;
		}
	}
	bench.compute = llm_compute_cpu_open(&options, &err);
	check(bench.compute != NULL, &err);
	bench.yardsticks.threads = llm_cpu_threads_create(options.n_threads, &err);
	check(bench.yardsticks.threads != NULL, &err);
	bench.yardsticks.isa = llm_compute_cpu_isa(bench.compute);
	bench.yardsticks.precision = bench.compute->precision;
	fill_inputs(&bench);
	printf("%s, %d threads\n", llm_compute_cpu_isa(bench.compute),
		   llm_compute_cpu_n_threads(bench.compute));
	for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
	{
		lay_out_experts(&bench, &shapes[s]);
		for (size_t i = 0; i < sizeof(row_counts) / sizeof(row_counts[0]); i++)
			bench_shape(&bench, &shapes[s], row_counts[i]);
	}
	bench.compute->ops->close(bench.compute);
	llm_cpu_threads_free(bench.yardsticks.threads);
	return 0;
}
