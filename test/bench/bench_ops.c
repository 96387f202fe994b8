/*
 * bench_ops.c
 *	  Speed of the CPU backend's operations, beside what the machine can do.
 *
 *	bench_ops [--isa NAME] [--op NAME] [--shape PART] [--threads N]
 *			  [--cpu-time] [--csv]
 *
 * PART is a part of a shape's name, such as "down" or "64 rows".
 *
 * The yardsticks are measured in the same run: bytes per second of a loop
 * that only reads, and operations per second of a loop that only multiplies
 * in registers.  Weights are laid out in a mapped file of 1 GiB that every
 * measurement walks through, so that nothing is found in a cache that a real
 * model would not find there.  Every figure is the best of several rounds:
 * other work on the machine can only slow one down.
 *
 * On a machine that others use too, --threads 1 --cpu-time counts the time
 * that this program was given instead of the time that passed.
 *
 * Shapes are those of a Llama with 1.2 billion parameters.
 *
 * test/bench/bench_ops.c
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

#define N_ROUNDS 5
#define ROUND_US 60000

#define F32 LLM_DTYPE_F32
#define F16 LLM_DTYPE_F16
#define BF16 LLM_DTYPE_BF16

#define DIM 2048
#define FFN_DIM 8192
#define N_VOCAB 128256
#define N_HEADS 32
#define N_KV_HEADS 8
#define HEAD_DIM 64
#define MAX_ROWS 512
#define BLOCK_SIZE 32
#define MAX_CONTEXT 4096
#define MAX_SEQS 64

static const char *const isa_names[] = {
	"portable", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16"
};

#define N_ISAS ((int) (sizeof(isa_names) / sizeof(isa_names[0])))

static struct
{
	const char *isa;
	const char *op;
	const char *shape;
	int n_threads;
	bool csv;
} flags;

/* What is measured, and with what. */
typedef struct Bench
{
	LlmCompute *compute;
	LlmDtype precision;
	const char *isa;
	char *weights; /* BUFFER_BYTES */
	size_t next;   /* where the next weight is taken */
	float *x;	   /* activations, large enough for every case */
	float *y;
	float *z;
	Yardsticks yardsticks;
	double read_gbs; /* of the last case's rounds */
	double peak_gflops;
} Bench;

/* Raise the yardsticks to what the machine can do at this moment. */
static void
measure_yardsticks(Bench *b)
{
	b->read_gbs = fmax(b->read_gbs, measure_reading(&b->yardsticks));
	b->peak_gflops = fmax(b->peak_gflops, measure_multiplying(&b->yardsticks));
}

/* ------------------------------------------------------------------------
 * Measuring
 * ------------------------------------------------------------------------
 */
typedef void (*Run)(Bench *b, void *arg);

/*
 * Microseconds of one run, the best round's mean.  The yardsticks are taken
 * between the rounds, because a shared machine's speed changes.
 */
static double
time_of(Bench *b, Run run, void *arg)
{
	double best = INFINITY;

	b->read_gbs = 0;
	b->peak_gflops = 0;
	run(b, arg);
	for (int round = 0; round < N_ROUNDS; round++)
	{
		int64_t start;
		int64_t us;
		int n = 0;

		measure_yardsticks(b);
		start = clock_us();
		do
		{
			run(b, arg);
			n++;
			us = clock_us() - start;
		} while (us < ROUND_US);
		best = fmin(best, (double) us / n);
	}
	return best;
}

static void
report(const Bench *b, const char *op, const char *shape, double us,
	   double bytes, double flops)
{
	double gbs = bytes / us / 1e3;
	double gflops = flops / us / 1e3;

	if (flags.csv)
	{
		printf("%s,%s,%s,%s,%.1f,%.2f,%.3f,%.1f,%.3f\n", b->isa,
			   llm_dtype_name(b->precision), op, shape, us, gbs,
			   gbs / b->read_gbs, gflops,
			   b->peak_gflops > 0 ? gflops / b->peak_gflops : 0);
		return;
	}
	printf("%-10s %-8s %-9s %-30s %10.1f us", b->isa,
		   b->precision == BF16 ? "bfloat16" : "float32", op, shape, us);
	if (bytes > 0)
		printf(" %7.2f GB/s %5.1f %%", gbs, 100 * gbs / b->read_gbs);
	else
		printf(" %7s      %5s  ", "", "");
	if (flops > 0)
		printf(" %7.1f GFLOP/s", gflops);
	if (flops > 0 && b->peak_gflops > 0)
		printf(" %5.1f %%", 100 * gflops / b->peak_gflops);
	printf("\n");
	fflush(stdout);
}

static bool
wanted(const char *op)
{
	return flags.op == NULL || strcmp(flags.op, op) == 0;
}

static bool
wanted_shape(const char *name)
{
	return flags.shape == NULL || strstr(name, flags.shape) != NULL;
}

/* ------------------------------------------------------------------------
 * linear
 * ------------------------------------------------------------------------
 */
typedef struct LinearShape
{
	const char *name;
	int n_cols;
	int n_out[LLM_LINEAR_MAX_PARTS];
} LinearShape;

static const LinearShape shapes[] = {
	{ "qkv", DIM, { 2048, 512, 512 } }, { "o", DIM, { 2048 } },
	{ "gate_up", DIM, { 8192, 8192 } }, { "down", FFN_DIM, { 2048 } },
	{ "lm_head", DIM, { N_VOCAB } },
};

#define N_SHAPES ((int) (sizeof(shapes) / sizeof(shapes[0])))

typedef struct LinearCase
{
	const LinearShape *shape;
	LlmDtype dtype;
	int n_rows;
} LinearCase;

static double
shape_weights(const LinearShape *s)
{
	return (double) s->n_cols * (s->n_out[0] + s->n_out[1] + s->n_out[2]);
}

/* Bytes of a part's weights. */
static size_t
weight_bytes(const Bench *b, const LinearCase *c, int part)
{
	int64_t n_rows = c->shape->n_out[part];
	int64_t n_cols = c->shape->n_cols;

	if (llm_dtype_is_float(c->dtype))
		return (size_t) (n_rows * n_cols) * llm_dtype_bytes(c->dtype);
	return b->compute->ops->quant_bytes(c->dtype, n_rows, n_cols);
}

static double
shape_bytes(const Bench *b, const LinearCase *c)
{
	return (double) (weight_bytes(b, c, 0) + weight_bytes(b, c, 1) +
					 weight_bytes(b, c, 2));
}

static const void *
take_weights(Bench *b, size_t n_bytes)
{
	const void *p;

	if (b->next + n_bytes > BUFFER_BYTES)
		b->next = 0;
	p = b->weights + b->next;
	b->next += n_bytes;
	return p;
}

static void
run_linear(Bench *b, void *arg)
{
	const LinearCase *c = arg;
	LlmLinearArgs args = { .x = b->x, .n_rows = c->n_rows };
	LlmError err;
	float *out = b->y;

	for (int p = 0; p < LLM_LINEAR_MAX_PARTS && c->shape->n_out[p] > 0; p++)
	{
		size_t n = (size_t) c->shape->n_out[p];

		args.part[p].weight = (LlmMatrix){
			.data = take_weights(b, weight_bytes(b, c, p)),
			.dtype = c->dtype,
			.n_rows = (int64_t) n,
			.n_cols = c->shape->n_cols,
		};
		args.part[p].out = out;
		args.part[p].out_stride = (int64_t) n;
		args.n_parts = p + 1;
		out += n * (size_t) c->n_rows;
	}
	check(b->compute->ops->linear(b->compute, &args, &err), &err);
}

static void
bench_linear(Bench *b, LlmDtype dtype, const int *rows, int n)
{
	char name[64];

	for (int i = 0; i < n; i++)
	{
		for (int s = 0; s < N_SHAPES; s++)
		{
			LinearCase c = { &shapes[s], dtype, rows[i] };
			double w = shape_weights(c.shape);

			/* a prompt needs the logits of its last token only */
			if (rows[i] > 64 && shapes[s].n_out[0] == N_VOCAB)
				continue;
			snprintf(name, sizeof(name), "%s %s, %d rows", c.shape->name,
					 llm_dtype_name(dtype), rows[i]);
			if (wanted_shape(name))
				report(b, "linear", name, time_of(b, run_linear, &c),
					   shape_bytes(b, &c), w * 2 * rows[i]);
		}
	}
}

/* All products of one step: 16 layers and the logits. */
static void
run_all_linear(Bench *b, void *arg)
{
	LinearCase c = *(const LinearCase *) arg;

	for (int layer = 0; layer < 16; layer++)
	{
		for (int s = 0; s < N_SHAPES - 1; s++)
		{
			c.shape = &shapes[s];
			run_linear(b, &c);
		}
	}
	c.shape = &shapes[N_SHAPES - 1];
	c.n_rows = c.n_rows > 64 ? 1 : c.n_rows;
	run_linear(b, &c);
}

static void
bench_step(Bench *b, LlmDtype dtype, int n_rows)
{
	LinearCase c = { NULL, dtype, n_rows };
	double w = 0;
	double n_bytes = 0;
	char name[64];
	double us;
	double head = shape_weights(&shapes[N_SHAPES - 1]);

	snprintf(name, sizeof(name), "1.2B step %s, %d rows", llm_dtype_name(dtype),
			 n_rows);
	if (!wanted_shape(name))
		return;
	for (int s = 0; s < N_SHAPES; s++)
	{
		bool is_head = s == N_SHAPES - 1;

		c.shape = &shapes[s];
		w += is_head ? 0 : 16 * shape_weights(&shapes[s]);
		n_bytes += (is_head ? 1 : 16) * shape_bytes(b, &c);
	}
	us = time_of(b, run_all_linear, &c);
	snprintf(name, sizeof(name), "1.2B step %s, %d rows", llm_dtype_name(dtype),
			 n_rows);
	report(b, "step", name, us, n_bytes,
		   2 * (w * n_rows + head * (n_rows > 64 ? 1 : n_rows)));
	if (!flags.csv)
		printf("%60s %.1f tokens/s\n", "", n_rows / us * 1e6);
}

/* Quantized weights: the numbers of the buffer are as good as any. */
static void
bench_quantized(Bench *b, bool is_slow)
{
	static const int rows[] = { 1, 8, 32, 512 };
	static const LlmDtype dtypes[] = { LLM_DTYPE_INT8, LLM_DTYPE_INT4,
									   LLM_DTYPE_INT4_K };

	for (int i = 0; i < 3; i++)
	{
		if (wanted("linear"))
			bench_linear(b, dtypes[i], rows, is_slow ? 2 : 4);
		for (int k = 0; wanted("step") && k < (is_slow ? 2 : 4); k++)
			bench_step(b, dtypes[i], rows[k]);
	}
}

/* ------------------------------------------------------------------------
 * attention, rope_kv
 * ------------------------------------------------------------------------
 */
typedef struct AttentionCase
{
	LlmStepInputs step;
	int32_t positions[MAX_ROWS];
	int32_t token_seq[MAX_ROWS];
	int32_t query_start[MAX_SEQS + 1];
	int32_t context_len[MAX_SEQS];
	int32_t block_tables[MAX_SEQS * (MAX_CONTEXT / BLOCK_SIZE)];
	LlmKvCache *kv;
	float *cos_sin;
} AttentionCase;

static void
run_attention(Bench *b, void *arg)
{
	AttentionCase *c = arg;
	LlmError err;
	LlmAttentionArgs args = {
		.step = &c->step,
		.q = b->x,
		.q_stride = N_HEADS * HEAD_DIM,
		.out = b->y,
		.n_heads = N_HEADS,
		.n_kv_heads = N_KV_HEADS,
		.head_dim = HEAD_DIM,
		.scale = 0.125f,
		.kv = c->kv,
	};

	check(b->compute->ops->attention(b->compute, &args, &err), &err);
}

static void
run_rope(Bench *b, void *arg)
{
	AttentionCase *c = arg;
	LlmError err;
	LlmRopeKvArgs args = {
		.step = &c->step,
		.q = b->y,
		.k = b->z,
		.v = b->x,
		.q_stride = N_HEADS * HEAD_DIM,
		.k_stride = N_KV_HEADS * HEAD_DIM,
		.v_stride = N_KV_HEADS * HEAD_DIM,
		.cos_sin = c->cos_sin,
		.rotary_dim = HEAD_DIM,
		.n_heads = N_HEADS,
		.n_kv_heads = N_KV_HEADS,
		.head_dim = HEAD_DIM,
		.kv = c->kv,
	};

	check(b->compute->ops->rope_kv(b->compute, &args, &err), &err);
}

static void
fill_step(AttentionCase *c, int n_seqs, int n_query, int n_context)
{
	int per_seq = (n_context + BLOCK_SIZE - 1) / BLOCK_SIZE;
	int n = 0;

	for (int s = 0; s < n_seqs; s++)
	{
		c->query_start[s] = n;
		c->context_len[s] = n_context;
		for (int i = 0; i < n_query; i++, n++)
		{
			c->positions[n] = n_context - n_query + i;
			c->token_seq[n] = s;
		}
		/* neighbouring blocks of a sequence lie apart */
		for (int i = 0; i < per_seq; i++)
			c->block_tables[s * per_seq + i] = i * n_seqs + s;
	}
	c->query_start[n_seqs] = n;
	c->step = (LlmStepInputs){
		.n_tokens = n,
		.n_seqs = n_seqs,
		.max_blocks_per_seq = per_seq,
		.max_query_len = n_query,
		.max_context_len = n_context,
		.positions = c->positions,
		.rope_rows = c->positions,
		.token_seq = c->token_seq,
		.query_start = c->query_start,
		.context_len = c->context_len,
		.block_tables = c->block_tables,
	};
}

static void
bench_attention(Bench *b, LlmDtype kv_dtype)
{
	static const int cases[][3] = { { 1, 1, 128 },	 { 1, 1, 1024 },
									{ 1, 1, 4096 },	 { 16, 1, 1024 },
									{ 64, 1, 512 },	 { 1, 512, 512 },
									{ 1, 512, 4096 } };
	LlmKvCacheSpec spec = {
		.n_layers = 1,
		.n_kv_heads = N_KV_HEADS,
		.head_dim = HEAD_DIM,
		.block_size = BLOCK_SIZE,
		.n_blocks = MAX_SEQS * 512 / BLOCK_SIZE,
		.dtype = kv_dtype,
	};
	AttentionCase *c = need(calloc(1, sizeof(*c)));
	LlmError err;

	c->kv = b->compute->ops->kv_create(b->compute, &spec, &err);
	check(c->kv != NULL, &err);
	c->cos_sin = need(calloc(MAX_CONTEXT * HEAD_DIM, sizeof(float)));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		double n_query = cases[i][1];
		double n_context = cases[i][2];
		double pairs = n_query * (n_context - (n_query - 1) / 2) * cases[i][0];
		double bytes = 2.0 * cases[i][0] * n_context * N_KV_HEADS * HEAD_DIM *
					   (double) llm_dtype_bytes(kv_dtype);
		char name[64];

		fill_step(c, cases[i][0], cases[i][1], cases[i][2]);
		snprintf(name, sizeof(name), "%d x %d of %d, %s", cases[i][0],
				 cases[i][1], cases[i][2], llm_dtype_name(kv_dtype));
		if (wanted("attention"))
			report(b, "attention", name, time_of(b, run_attention, c), bytes,
				   pairs * N_HEADS * HEAD_DIM * 4);
		if (wanted("rope_kv"))
			report(b, "rope_kv", name, time_of(b, run_rope, c), 0, 0);
	}
	b->compute->ops->kv_free(c->kv);
	free(c->cos_sin);
	free(c);
}

/* ------------------------------------------------------------------------
 * The small ones
 * ------------------------------------------------------------------------
 */
static void
run_norm(Bench *b, void *arg)
{
	int n_rows = *(const int *) arg;
	LlmError err;
	LlmRmsNormArgs args = {
		.x = b->x,
		.residual = b->y,
		.weight = { b->weights, BF16, DIM },
		.out = b->z,
		.n_rows = n_rows,
		.dim = DIM,
		.eps = 1e-5f,
	};

	check(b->compute->ops->rms_norm(b->compute, &args, &err), &err);
}

static void
run_gated_act(Bench *b, void *arg)
{
	int n_rows = *(const int *) arg;
	LlmError err;
	LlmGatedActArgs args = {
		.gate = b->x,
		.up = b->x + FFN_DIM,
		.out = b->y,
		.in_stride = 2 * FFN_DIM,
		.n_rows = n_rows,
		.dim = FFN_DIM,
		.activation = LLM_ACTIVATION_SILU,
	};

	check(b->compute->ops->gated_act(b->compute, &args, &err), &err);
}

static void
bench_small(Bench *b)
{
	static const int rows[] = { 1, 64, 512 };

	for (int i = 0; i < 3; i++)
	{
		int n = rows[i];
		char name[32];

		snprintf(name, sizeof(name), "%d rows", n);
		if (wanted("rms_norm"))
			report(b, "rms_norm", name, time_of(b, run_norm, &n),
				   16.0 * n * DIM, 0);
		if (wanted("gated_act"))
			report(b, "gated_act", name, time_of(b, run_gated_act, &n),
				   12.0 * n * FFN_DIM, 0);
	}
}

typedef struct SampleCase
{
	const char *name;
	LlmSamplingParams params;
} SampleCase;

typedef struct SampleRun
{
	LlmSampleRow rows[MAX_SEQS];
	LlmSampleResult results[MAX_SEQS];
	int n_rows;
} SampleRun;

static void
run_sample(Bench *b, void *arg)
{
	SampleRun *run = arg;
	LlmError err;
	LlmSampleArgs args = { .logits = b->x,
						   .n_rows = run->n_rows,
						   .n_vocab = N_VOCAB,
						   .rows = run->rows,
						   .results = run->results };

	for (int i = 0; i < run->n_rows; i++)
		run->rows[i].params.seed++;
	check(b->compute->ops->sample(b->compute, &args, &err), &err);
}

static void
bench_sample(Bench *b)
{
	SampleCase cases[6] = { { "greedy", { 0 } },	 { "plain", { 0 } },
							{ "top_k 50", { 0 } },	 { "top_p 0.9", { 0 } },
							{ "min_p 0.05", { 0 } }, { "logprobs 5", { 0 } } };
	SampleRun *run = need(calloc(1, sizeof(*run)));

	for (int i = 0; i < 6; i++)
		cases[i].params = llm_sampling_params_default();
	cases[0].params.temperature = 0;
	cases[2].params.top_k = 50;
	cases[3].params.top_p = 0.9f;
	cases[4].params.min_p = 0.05f;
	cases[5].params.n_logprobs = 5;
	for (int i = 0; i < 12; i++)
	{
		char name[64];

		run->n_rows = i % 2 == 0 ? 1 : 32;
		for (int j = 0; j < run->n_rows; j++)
			run->rows[j].params = cases[i / 2].params;
		snprintf(name, sizeof(name), "%s, %d rows", cases[i / 2].name,
				 run->n_rows);
		report(b, "sample", name, time_of(b, run_sample, run),
			   4.0 * N_VOCAB * run->n_rows, 0);
	}
	free(run);
}

/* ------------------------------------------------------------------------
 * Main
 * ------------------------------------------------------------------------
 */
static void
bench_path(Bench *b)
{
	static const int few[] = { 1 };
	static const int many[] = { 1, 2, 4, 8, 16, 32, 64, 512 };
	static const int some[] = { 1, 4, 512 };
	bool is_slow = strcmp(b->isa, "portable") == 0;

	if (!flags.csv)
		printf("\n%s, %d threads, precision %s; per cent of reading and of "
			   "multiplying at the same time\n",
			   b->isa, llm_compute_cpu_n_threads(b->compute),
			   llm_dtype_name(b->precision));
	if (wanted("linear"))
	{
		bench_linear(b, BF16, many, is_slow ? 4 : 8);
		if (b->precision == F32)
			bench_linear(b, F32, some, is_slow ? 2 : 3);
		if (b->precision == F32)
			bench_linear(b, F16, is_slow ? few : some, is_slow ? 1 : 3);
	}
	if (wanted("linear") || wanted("step"))
		bench_quantized(b, is_slow);
	if (wanted("step"))
	{
		bench_step(b, BF16, 1);
		bench_step(b, BF16, 8);
		if (!is_slow)
			bench_step(b, BF16, 64);
		if (!is_slow)
			bench_step(b, BF16, 512);
	}
	/* the others do not depend on the precision */
	if (b->precision == BF16)
		return;
	if (wanted("attention") || wanted("rope_kv"))
	{
		bench_attention(b, BF16);
		bench_attention(b, F32);
	}
	bench_small(b);
	if (wanted("sample"))
		bench_sample(b);
}

static void
fill_inputs(Bench *b)
{
	int fd = memfd_create("bench_ops", 0);
	uint16_t *values;
	uint64_t state = 1;

	/* a mapped file, as weights are: pages of 4 KiB */
	if (fd < 0 || ftruncate(fd, (off_t) BUFFER_BYTES) != 0)
		need(NULL);
	b->weights = need(
		mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close(fd);
	b->yardsticks.buffer = b->weights;
	values = (uint16_t *) b->weights;
	/* numbers near 1 in all of the formats */
	for (size_t i = 0; i < BUFFER_BYTES / 2; i++)
	{
		state = state * 6364136223846793005u + 1442695040888963407u;
		values[i] = (uint16_t) (0x3F00 | (state >> 48 & 0x80FF));
	}
	b->x = need(calloc((size_t) MAX_ROWS * 2 * FFN_DIM, sizeof(float)));
	b->y = need(calloc((size_t) 64 * N_VOCAB, sizeof(float)));
	b->z = need(calloc((size_t) MAX_ROWS * 2 * FFN_DIM, sizeof(float)));
	for (size_t i = 0; i < (size_t) MAX_ROWS * 2 * FFN_DIM; i++)
	{
		state = state * 6364136223846793005u + 1442695040888963407u;
		/* about normal: as logits they have a tail */
		b->x[i] = (float) ((double) (state >> 40) / (1 << 23) +
						   (double) (state >> 16 & 0xFFFFFF) / (1 << 23) - 2) *
				  4;
	}
}

static void
parse_flags(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--csv") == 0)
			flags.csv = true;
		else if (strcmp(argv[i], "--cpu-time") == 0)
			uses_cpu_time = true;
		else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc)
			flags.isa = argv[++i];
		else if (strcmp(argv[i], "--op") == 0 && i + 1 < argc)
			flags.op = argv[++i];
		else if (strcmp(argv[i], "--shape") == 0 && i + 1 < argc)
			flags.shape = argv[++i];
		else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
			flags.n_threads = atoi(argv[++i]);
		else
		{
			fprintf(stderr,
					"usage: %s [--isa NAME] [--op NAME] "
					"[--threads N] [--cpu-time] [--csv]\n",
					argv[0]);
			exit(2);
		}
	}
}

int
main(int argc, char **argv)
{
	Bench bench = { 0 };
	static const LlmDtype precisions[] = { BF16, F32 };

	parse_flags(argc, argv);
	fill_inputs(&bench);
	if (flags.csv)
		printf("isa,precision,op,shape,us,gb_per_s,of_read,gflops,of_peak\n");
	for (int i = N_ISAS - 1; i >= 0; i--)
	{
		for (int p = 0; p < 2; p++)
		{
			LlmComputeOptions options = {
				.precision = precisions[p],
				.n_threads = flags.n_threads,
				.max_rows = MAX_ROWS,
				.max_cols = FFN_DIM,
				.max_seqs = MAX_SEQS,
				.max_context_len = MAX_CONTEXT,
				.max_heads = N_HEADS,
				.max_vocab = N_VOCAB,
				.isa = isa_names[i],
			};
			LlmError err = { 0 };

			/* rounding x is the last path's alone */
			if ((flags.isa != NULL && strcmp(flags.isa, isa_names[i]) != 0) ||
				(i < N_ISAS - 1 && precisions[p] == BF16) ||
				(i == N_ISAS - 1 && precisions[p] == F32))
				continue;
			bench.compute = llm_compute_cpu_open(&options, &err);
			if (bench.compute == NULL)
			{
				fprintf(stderr, "%s: %s\n", isa_names[i], err.message);
				continue;
			}
			bench.yardsticks.threads =
				llm_cpu_threads_create(flags.n_threads, &err);
			check(bench.yardsticks.threads != NULL, &err);
			bench.precision = precisions[p];
			bench.isa = isa_names[i];
			bench.yardsticks.isa = bench.isa;
			bench.yardsticks.precision = bench.precision;
			bench_path(&bench);
			bench.compute->ops->close(bench.compute);
			llm_cpu_threads_free(bench.yardsticks.threads);
		}
	}
	return 0;
}
