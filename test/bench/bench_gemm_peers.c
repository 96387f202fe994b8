/*
 * bench_gemm_peers.c
 *	  Matrix products beside the libraries that Debian packages: oneDNN and
 *	  OpenBLAS, where they are installed.
 *
 *	  bench_gemm_peers [--csv] [--threads N] [--cpu-time]
 *
 * Shapes are a prompt's in a Llama with 1.2 billion parameters.  Our weights
 * are bf16, the libraries' f32 (their bf16 products round the inputs too, and
 * on processors that start a bf16 product every other cycle are slower):
 * both multiply in f32.  The three take turns, and each one's best round
 * counts, since others may use the machine meanwhile.  With --cpu-time, for
 * one thread, the time that the program was given counts.
 *
 * The libraries are opened by name, so nothing here depends on them.
 *
 * test/bench/bench_gemm_peers.c
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/common/util/clock.h"
#include "src/engine/compute/compute.h"

#define N_ROUNDS 5
#define MAX_ROWS 512
#define MAX_DIM 16384
#define MAX_WEIGHTS ((size_t) 16384 * 2048)

typedef int (*DnnlSgemm)(char, char, int64_t, int64_t, int64_t, float,
						 const float *, int64_t, const float *, int64_t, float,
						 float *, int64_t);
typedef void (*CblasSgemm)(int, int, int, int, int, int, float, const float *,
						   int, const float *, int, float, float *, int);

/* cblas.h's numbers */
#define CBLAS_ROW_MAJOR 101
#define CBLAS_NO_TRANS 111
#define CBLAS_TRANS 112

typedef struct Bench
{
	bool csv;
	bool cpu_time;
	int n_threads;
	LlmCompute *compute;
	DnnlSgemm dnnl;
	CblasSgemm cblas;
	float *x;
	float *y;
	float *w;
	uint16_t *w_bf16;
} Bench;

typedef struct Shape
{
	const char *name;
	int32_t n_rows; /* of x */
	int32_t n_out;
	int32_t n_cols;
} Shape;

typedef enum Contender
{
	CONTENDER_OURS,
	CONTENDER_ONEDNN,
	CONTENDER_OPENBLAS,
	CONTENDER_COUNT
} Contender;

static int64_t
clock_us(const Bench *bench)
{
	struct timespec used;

	if (!bench->cpu_time)
		return llm_clock_us();
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (int64_t) used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

static void *
need(void *p)
{
	if (p == NULL)
	{
		fprintf(stderr, "bench_gemm_peers: out of memory\n");
		exit(1);
	}
	return p;
}

static void *
find_symbol(const char *library, const char *symbol)
{
	void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);

	return handle != NULL ? dlsym(handle, symbol) : NULL;
}

static bool
multiply(Bench *bench, Contender contender, const Shape *shape)
{
	LlmLinearArgs args = { .x = bench->x,
						   .n_rows = shape->n_rows,
						   .n_parts = 1 };
	LlmError err;

	switch (contender)
	{
		case CONTENDER_OURS:
			args.part[0].weight = (LlmMatrix){ bench->w_bf16, LLM_DTYPE_BF16,
											   shape->n_out, shape->n_cols };
			args.part[0].out = bench->y;
			args.part[0].out_stride = shape->n_out;
			return bench->compute->ops->linear(bench->compute, &args, &err);
		case CONTENDER_ONEDNN:
			return bench->dnnl != NULL &&
				   bench->dnnl('N', 'T', shape->n_rows, shape->n_out,
							   shape->n_cols, 1, bench->x, shape->n_cols,
							   bench->w, shape->n_cols, 0, bench->y,
							   shape->n_out) == 0;
		case CONTENDER_OPENBLAS:
			if (bench->cblas == NULL)
				return false;
			bench->cblas(CBLAS_ROW_MAJOR, CBLAS_NO_TRANS, CBLAS_TRANS,
						 shape->n_rows, shape->n_out, shape->n_cols, 1,
						 bench->x, shape->n_cols, bench->w, shape->n_cols, 0,
						 bench->y, shape->n_out);
			return true;
		case CONTENDER_COUNT:
			break;
	}
	return false;
}

/* GFLOP/s of each contender's best round; 0 where it is not there. */
static void
measure(Bench *bench, const Shape *shape, double best[CONTENDER_COUNT])
{
	double flops = 2.0 * shape->n_rows * (double) shape->n_out * shape->n_cols;

	memset(best, 0, CONTENDER_COUNT * sizeof(double));
	for (int round = 0; round < N_ROUNDS; round++)
	{
		for (int i = 0; i < CONTENDER_COUNT; i++)
		{
			int64_t start_us = clock_us(bench);
			double gflops;

			if (!multiply(bench, (Contender) i, shape))
				continue;
			gflops = flops / (double) (clock_us(bench) - start_us) / 1e3;
			if (round > 0 && gflops > best[i])
				best[i] = gflops;
		}
	}
}

static void
print_row(const Bench *bench, const Shape *shape,
		  const double best[CONTENDER_COUNT])
{
	double peer = best[CONTENDER_ONEDNN] > best[CONTENDER_OPENBLAS]
					  ? best[CONTENDER_ONEDNN]
					  : best[CONTENDER_OPENBLAS];

	printf(bench->csv ? "%s,%d,%.1f,%.1f,%.1f,%.3f\n"
					  : "%-10s %5d rows %9.1f %9.1f %9.1f GFLOP/s %7.2f\n",
		   shape->name, shape->n_rows, best[CONTENDER_OURS],
		   best[CONTENDER_ONEDNN], best[CONTENDER_OPENBLAS],
		   peer > 0 ? best[CONTENDER_OURS] / peer : 0);
	fflush(stdout);
}

static void
parse_args(Bench *bench, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--csv") == 0)
			bench->csv = true;
		else if (strcmp(argv[i], "--cpu-time") == 0)
			bench->cpu_time = true;
		else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
			bench->n_threads = atoi(argv[++i]);
		else
		{
			fprintf(stderr, "usage: bench_gemm_peers [--csv] [--threads N] "
							"[--cpu-time]\n");
			exit(1);
		}
	}
}

static void
open_contenders(Bench *bench)
{
	LlmComputeOptions options = { .precision = LLM_DTYPE_BF16,
								  .n_threads = bench->n_threads,
								  .max_rows = MAX_ROWS,
								  .max_cols = 8192,
								  .max_seqs = 1,
								  .max_context_len = 16,
								  .max_heads = 1,
								  .max_vocab = 16 };
	char n_threads[16];
	LlmError err;

	bench->compute = llm_compute_cpu_open(&options, &err);
	if (bench->compute == NULL)
	{
		fprintf(stderr, "bench_gemm_peers: %s\n", err.message);
		exit(1);
	}
	snprintf(n_threads, sizeof(n_threads), "%d",
			 llm_compute_cpu_n_threads(bench->compute));
	setenv("OMP_NUM_THREADS", n_threads, 1);
	setenv("OPENBLAS_NUM_THREADS", n_threads, 1);
	bench->dnnl = (DnnlSgemm) find_symbol("libdnnl.so.2", "dnnl_sgemm");
	if (bench->dnnl == NULL)
		bench->dnnl = (DnnlSgemm) find_symbol("libdnnl.so.3", "dnnl_sgemm");
	bench->cblas = (CblasSgemm) find_symbol("libopenblas.so.0", "cblas_sgemm");
	if (bench->dnnl == NULL)
		fprintf(stderr,
				"oneDNN is not installed (package libdnnl2 or libdnnl3): "
				"its column stays 0\n");
	if (bench->cblas == NULL)
		fprintf(stderr, "OpenBLAS is not installed (package libopenblas0): its "
						"column stays 0\n");
}

static void
fill_operands(Bench *bench)
{
	uint32_t bits = 1;

	bench->x = need(aligned_alloc(64, (size_t) MAX_ROWS * 8192 * 4));
	bench->y = need(aligned_alloc(64, (size_t) MAX_ROWS * MAX_DIM * 4));
	bench->w = need(aligned_alloc(64, MAX_WEIGHTS * 4));
	bench->w_bf16 = need(aligned_alloc(64, MAX_WEIGHTS * 2));
	for (size_t i = 0; i < MAX_WEIGHTS; i++)
	{
		uint32_t word;

		bits = bits * 1664525u + 1013904223u;
		word = 0x3C000000u | (bits >> 8 & 0x81FF0000u);
		memcpy(&bench->w[i], &word, 4);
		bench->w_bf16[i] = (uint16_t) (word >> 16);
	}
	for (size_t i = 0; i < (size_t) MAX_ROWS * 8192; i++)
		bench->x[i] = bench->w[i];
}

int
main(int argc, char **argv)
{
	static const Shape layers[] = {
		{ "qkv", 0, 3072, 2048 },
		{ "o", 0, 2048, 2048 },
		{ "gate_up", 0, 16384, 2048 },
		{ "down", 0, 2048, 8192 },
	};
	static const int32_t row_counts[] = { 512, 256, 64, 32, 8 };
	static Bench bench;

	parse_args(&bench, argc, argv);
	open_contenders(&bench);
	fill_operands(&bench);
	printf(
		bench.csv
			? "product,rows,ours_gflops,onednn_gflops,openblas_gflops,ratio\n"
			: "product                 ours    oneDNN  OpenBLAS           "
			  "of the better\n");
	for (size_t r = 0; r < sizeof(row_counts) / sizeof(row_counts[0]); r++)
	{
		for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++)
		{
			Shape shape = layers[i];
			double best[CONTENDER_COUNT];

			shape.n_rows = row_counts[r];
			measure(&bench, &shape, best);
			print_row(&bench, &shape, best);
		}
	}
	bench.compute->ops->close(bench.compute);
	free(bench.x);
	free(bench.y);
	free(bench.w);
	free(bench.w_bf16);
	return 0;
}
