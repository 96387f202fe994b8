/*
 * test_attention.c
 *	  Rotary embedding, the paged cache and attention: every path against
 *	  naive loops in double, and the same bits however the work was cut.
 *
 * test/ops/test_attention.c
 */
#include "test/ops/ops_test.h"

#include "src/common/util/unit_code.h"

#define F32 LLM_DTYPE_F32
#define BF16 LLM_DTYPE_BF16
#define FP8 LLM_DTYPE_FP8_E4M3
#define INT8 LLM_DTYPE_INT8

#define MAX_SEQS 8

typedef struct AttentionCase
{
	int n_heads;
	int n_kv_heads;
	int head_dim;
	int rotary_dim;
	bool interleaved;
	bool norms;
	int block_size;
	LlmDtype kv_dtype;
	float soft_cap;
	int window;
	int n_seqs;
	int lens[MAX_SEQS]; /* tokens of each sequence in the end */
	int chunk;			/* new tokens of a sequence in a step; 0: all */
	int shared;			/* first tokens that are the same in all, in the
						 * same blocks */
} AttentionCase;

/* clang-format off */
static const AttentionCase cases[] = {
	/* heads kv dim rotary inter norms block kv    cap window seqs lens chunk */
	{  4,  4,  32,  32, false, false, 16, F32,  0,  0, 1, { 1 },           0 },
	{  8,  2,  64,  64, false, false, 16, F32,  0,  0, 2, { 40, 17 },      0 },
	{  8,  2,  64,  64, false, true,  32, BF16, 0,  0, 2, { 70, 33 },     16 },
	{ 14,  2,  64,  32, false, false, 64, F32,  0,  0, 3, { 5, 130, 64 },  0 },
	{  3,  1,  80,  80, true,  false, 16, F32,  0,  0, 2, { 20, 81 },      7 },
	{  3,  1,  80,  40, false, true,  32, BF16, 0,  0, 2, { 20, 81 },      7 },
	{  6,  2,  96,  96, true,  true,  16, BF16, 0,  0, 2, { 47, 1 },       5 },
	{ 16,  2, 128, 128, false, false, 16, F32,  0,  0, 2, { 66, 90 },     13 },
	{ 16,  2, 128, 128, false, false, 32, BF16, 0,  0, 2, { 66, 90 },     13 },
	{  4,  2, 256, 256, false, false, 16, BF16, 50, 20, 2, { 97, 10 },     8 },
	{  4,  2, 256, 128, false, false, 32, F32,  30, 33, 2, { 97, 150 },   40 },
	{  4,  4,  40,  20, true,  false, 16, F32,  0,  5, 2, { 23, 200 },    11 },
	{ 71,  1,  64,  64, false, false, 16, BF16, 0,  0, 1, { 9 },           2 },
	{  2,  1,  34,   6, false, false, 16, BF16, 0, 64, 1, { 150 },        50 },
	{  2,  1,  64,   0, false, false, 64, F32,  0,  0, 1, { 1300 },    512 },
	{  2,  1,  32,  32, false, false, 32, BF16, 0, 1100, 1, { 1300 },    900 },
	/* several tiles of 128 keys, groups of 4, 8 and 1 heads, ends anywhere */
	{  4,  1, 128, 128, false, false, 32, BF16, 0,  0, 2, { 650, 333 },    0 },
	{  4,  1, 128, 128, false, false, 64, BF16, 0,  0, 2, { 513, 256 },  130 },
	{  8,  1, 128, 128, false, false, 16, BF16, 0, 200, 2, { 517, 260 }, 190 },
	{  2,  2,  64,  64, false, false, 64, BF16, 30, 0, 2, { 640, 129 },  256 },
	{  8,  1,  64,  64, false, false, 256, BF16, 20, 300, 1, { 700 },    400 },
	{  3,  1,  96,  96, false, false, 128, BF16, 0, 70, 2, { 385, 40 },    0 },
	{  2,  1, 256, 256, false, false, 16, BF16, 0,  0, 2, { 390, 127 },  193 },
	/* codes: the same values whoever reads them; ends within 16 tokens */
	{  8,  2,  64,   0, false, false, 16, FP8,  0,  0, 2, { 40, 17 },      0 },
	{  8,  2,  64,   0, false, false, 16, INT8, 0,  0, 2, { 40, 17 },      0 },
	{  8,  2, 128, 128, false, true,  32, FP8,  0,  0, 2, { 70, 33 },     16 },
	{  8,  2, 128, 128, false, true,  32, INT8, 0,  0, 2, { 70, 33 },     16 },
	{  3,  1,  80,  40, false, false, 64, FP8,  0, 30, 2, { 20, 81 },      7 },
	{  2,  1,  34,   6, true,  false, 16, INT8, 0, 64, 1, { 150 },        50 },
	{  4,  1, 128, 128, false, false, 16, FP8,  0,  0, 2, { 290, 140 },    0 },
	{  4,  1, 128, 128, false, false, 64, INT8, 0,  0, 2, { 270, 129 },  130 },
	{  8,  1,  64,  64, false, false, 32, FP8, 20, 200, 1, { 400 },      270 },
	{  3,  1,  96,  96, false, false, 16, INT8, 0, 70, 2, { 385, 40 },     0 },
	{  2,  1, 256, 256, false, false, 16, FP8,  0,  0, 2, { 200, 127 },   93 },
	{ 20,  1, 128, 128, false, false, 16, FP8,  0,  0, 2, { 30, 80 },      1 },
	/* a beginning that all have: with one new token it is read together */
	{ 32, 16,  32,  32, false, false, 16, BF16, 0,  0, 3, { 301, 301, 301 }, 100, 288 },
	{ 16, 16,  32,  32, false, false, 32, FP8,  0, 290, 3, { 301, 301, 301 }, 100, 256 },
};
/* clang-format on */

#define N_CASES (sizeof(cases) / sizeof(cases[0]))

/* A case's data, sequence by sequence, and how it went. */
typedef struct World
{
	const AttentionCase *c;
	int n_tokens; /* of all sequences in the end */
	int start[MAX_SEQS + 1];
	int done[MAX_SEQS];
	float *q; /* [n_tokens, n_heads, head_dim] as given */
	float *k;
	float *v;
	float *out; /* what attention has given, token by token */
	float *cos_sin;
	Tensor q_norm;
	Tensor k_norm;
	int32_t *block_tables;
	int max_blocks;
	LlmKvCache *kv;
} World;

#define LAYER 1 /* of two: the other one must not be touched */

static int
max_len(const AttentionCase *c)
{
	int longest = 0;

	for (int s = 0; s < c->n_seqs; s++)
		longest = c->lens[s] > longest ? c->lens[s] : longest;
	return longest;
}

/* The rows of the rotary table are in no order that a position tells. */
static int32_t
rope_row(const World *w, int32_t position)
{
	return max_len(w->c) - 1 - position;
}

static void
fill_tables(World *w)
{
	const AttentionCase *c = w->c;
	int n_positions = max_len(c);
	int half = c->rotary_dim / 2;
	int n_blocks;

	w->cos_sin = need((size_t) (n_positions * c->rotary_dim) * sizeof(float));
	for (int p = 0; p < n_positions; p++)
	{
		float *row = w->cos_sin + rope_row(w, p) * c->rotary_dim;

		for (int i = 0; i < half; i++)
		{
			double angle = p * pow(10000.0, -2.0 * i / c->rotary_dim);

			row[i] = (float) cos(angle);
			row[half + i] = (float) sin(angle);
		}
	}
	/* blocks in a shuffled order, block 0 unused */
	w->max_blocks = (n_positions + c->block_size - 1) / c->block_size;
	n_blocks = w->max_blocks * c->n_seqs;
	w->block_tables = need((size_t) n_blocks * sizeof(int32_t));
	for (int i = 0; i < n_blocks; i++)
	{
		int j = random_int(0, i);

		w->block_tables[i] = w->block_tables[j];
		w->block_tables[j] = i + 1;
	}
	for (int s = 1; s < c->n_seqs; s++)
		memcpy(w->block_tables + s * w->max_blocks, w->block_tables,
			   (size_t) (c->shared / c->block_size) * sizeof(int32_t));
}

/* Equal keys and values where blocks are shared. */
static void
share_beginnings(World *w)
{
	const AttentionCase *c = w->c;
	int64_t n_kv = (int64_t) c->n_kv_heads * c->head_dim;
	size_t n_bytes = (size_t) (c->shared * n_kv) * sizeof(float);

	for (int s = 1; s < c->n_seqs; s++)
	{
		memcpy(w->k + w->start[s] * n_kv, w->k, n_bytes);
		memcpy(w->v + w->start[s] * n_kv, w->v, n_bytes);
	}
}

/*
 * As a GPU gets them, so that all paths have the same codes, which a rounding
 * in front of them would change by much; vectors of very different sizes.
 */
static void
make_codable(World *w)
{
	const AttentionCase *c = w->c;
	int64_t n_kv = (int64_t) w->n_tokens * c->n_kv_heads * c->head_dim;

	for (int64_t i = 0; i < n_kv; i++)
	{
		float size = ldexpf(1, (int) (i / c->head_dim % 5) - 4);

		w->k[i] = llm_bf16_to_float(llm_float_to_bf16(w->k[i] * size));
		w->v[i] = llm_bf16_to_float(llm_float_to_bf16(w->v[i] * size));
	}
}

static World
world_create(const AttentionCase *c)
{
	World w = { .c = c };
	int64_t dim = c->head_dim;

	for (int s = 0; s < c->n_seqs; s++)
		w.start[s + 1] = w.start[s] + c->lens[s];
	w.n_tokens = w.start[c->n_seqs];
	w.q = need((size_t) (w.n_tokens * c->n_heads * dim) * sizeof(float));
	w.k = need((size_t) (w.n_tokens * c->n_kv_heads * dim) * sizeof(float));
	w.v = need((size_t) (w.n_tokens * c->n_kv_heads * dim) * sizeof(float));
	w.out = need((size_t) (w.n_tokens * c->n_heads * dim) * sizeof(float));
	/* scores with a spread that makes softmax choose */
	fill_random(w.q, w.n_tokens * c->n_heads * dim, 3.0f);
	fill_random(w.k, w.n_tokens * c->n_kv_heads * dim, 2.0f);
	fill_random(w.v, w.n_tokens * c->n_kv_heads * dim, 1.0f);
	if (llm_dtype_is_coded(c->kv_dtype))
		make_codable(&w);
	share_beginnings(&w);
	if (c->norms)
	{
		w.q_norm = tensor_random(dim, BF16, 2.0f, 0);
		w.k_norm = tensor_random(dim, F32, 2.0f, 0);
	}
	fill_tables(&w);
	return w;
}

static void
world_open_kv(World *w, LlmCompute *compute)
{
	LlmKvCacheSpec spec = {
		.n_layers = 2,
		.n_kv_heads = w->c->n_kv_heads,
		.head_dim = w->c->head_dim,
		.block_size = w->c->block_size,
		.n_blocks = w->max_blocks * w->c->n_seqs + 1,
		.dtype = w->c->kv_dtype,
	};
	LlmError err = { 0 };

	w->kv = compute->ops->kv_create(compute, &spec, &err);
	if (w->kv == NULL)
	{
		CHECK_FAIL("kv_create: %s", err.message);
		abort();
	}
	memset(w->done, 0, sizeof(w->done));
	memset(w->out, 0,
		   (size_t) (w->n_tokens * w->c->n_heads * w->c->head_dim) *
			   sizeof(float));
}

static void
world_free(World *w)
{
	free(w->q);
	free(w->k);
	free(w->v);
	free(w->out);
	free(w->cos_sin);
	tensor_free(&w->q_norm);
	tensor_free(&w->k_norm);
	free(w->block_tables);
}

/* The new tokens of one step; counts[s] of sequence s. */
typedef struct Step
{
	LlmStepInputs inputs;
	int32_t *positions;
	int32_t *rope_rows;
	int32_t *token_seq;
	int32_t *source; /* index into the world's tokens */
	int32_t query_start[MAX_SEQS + 1];
	int32_t context_len[MAX_SEQS];
} Step;

static Step
step_create(World *w, const int counts[MAX_SEQS])
{
	Step step = { 0 };
	int n = 0;

	step.positions = need((size_t) w->n_tokens * sizeof(int32_t));
	step.rope_rows = need((size_t) w->n_tokens * sizeof(int32_t));
	step.token_seq = need((size_t) w->n_tokens * sizeof(int32_t));
	step.source = need((size_t) w->n_tokens * sizeof(int32_t));
	for (int s = 0; s < w->c->n_seqs; s++)
	{
		step.query_start[s] = n;
		for (int i = 0; i < counts[s]; i++, n++)
		{
			step.positions[n] = w->done[s] + i;
			step.rope_rows[n] = rope_row(w, w->done[s] + i);
			step.token_seq[n] = s;
			step.source[n] = w->start[s] + w->done[s] + i;
		}
		w->done[s] += counts[s];
		step.context_len[s] = w->done[s];
	}
	step.query_start[w->c->n_seqs] = n;
	step.inputs = (LlmStepInputs){
		.n_tokens = n,
		.n_seqs = w->c->n_seqs,
		.max_blocks_per_seq = w->max_blocks,
		.max_query_len = max_len(w->c),
		.max_context_len = max_len(w->c),
		.positions = step.positions,
		.rope_rows = step.rope_rows,
		.token_seq = step.token_seq,
		.block_tables = w->block_tables,
	};
	return step;
}

static void
step_free(Step *step)
{
	free(step->positions);
	free(step->rope_rows);
	free(step->token_seq);
	free(step->source);
}

/* q, k and v of the step's tokens, interleaved as a joint projection's. */
static float *
gather_qkv(const World *w, const Step *step, int64_t stride)
{
	const AttentionCase *c = w->c;
	int64_t q = (int64_t) c->n_heads * c->head_dim;
	int64_t kv = (int64_t) c->n_kv_heads * c->head_dim;
	float *qkv =
		need((size_t) (step->inputs.n_tokens * stride) * sizeof(float));

	for (int64_t i = 0; i < step->inputs.n_tokens; i++)
	{
		int64_t from = step->source[i];
		float *to = qkv + i * stride;

		memcpy(to, w->q + from * q, (size_t) q * sizeof(float));
		memcpy(to + q, w->k + from * kv, (size_t) kv * sizeof(float));
		memcpy(to + q + kv, w->v + from * kv, (size_t) kv * sizeof(float));
	}
	return qkv;
}

static void
run_step(World *w, LlmCompute *compute, const int counts[MAX_SEQS])
{
	const AttentionCase *c = w->c;
	int64_t q = (int64_t) c->n_heads * c->head_dim;
	int64_t kv = (int64_t) c->n_kv_heads * c->head_dim;
	/* with and without rows that are aligned to 16 bytes */
	int64_t stride = q + 2 * kv + (c->block_size == 16 ? 3 : 8);
	Step step = step_create(w, counts);
	float *qkv = gather_qkv(w, &step, stride);
	float *out = need((size_t) (step.inputs.n_tokens * q) * sizeof(float));
	LlmStepInputs device;
	LlmError err = { 0 };
	LlmRopeKvArgs rope = {
		.step = &device,
		.q = qkv,
		.k = qkv + q,
		.v = qkv + q + kv,
		.q_stride = stride,
		.k_stride = stride,
		.v_stride = stride,
		.norm_eps = 1e-6f,
		.norm_weight_offset = 1,
		.cos_sin = w->cos_sin,
		.rotary_dim = c->rotary_dim,
		.interleaved = c->interleaved,
		.n_heads = c->n_heads,
		.n_kv_heads = c->n_kv_heads,
		.head_dim = c->head_dim,
		.kv = w->kv,
		.layer_idx = LAYER,
	};
	LlmAttentionArgs attention = {
		.step = &device,
		.q = qkv,
		.q_stride = stride,
		.out = out,
		.n_heads = c->n_heads,
		.n_kv_heads = c->n_kv_heads,
		.head_dim = c->head_dim,
		.scale = 1.0f / sqrtf((float) c->head_dim),
		.soft_cap = c->soft_cap,
		.sliding_window = c->window,
		.kv = w->kv,
		.layer_idx = LAYER,
	};

	step.inputs.query_start = step.query_start;
	step.inputs.context_len = step.context_len;
	if (c->norms)
	{
		rope.q_norm = tensor_vector(&w->q_norm);
		rope.k_norm = tensor_vector(&w->k_norm);
	}
	CHECK(compute->ops->step_upload(compute, &step.inputs, &device, &err));
	CHECK(compute->ops->rope_kv(compute, &rope, &err));
	CHECK(compute->ops->attention(compute, &attention, &err));
	for (int64_t i = 0; i < step.inputs.n_tokens; i++)
		memcpy(w->out + step.source[i] * q, out + i * q,
			   (size_t) q * sizeof(float));
	free(qkv);
	free(out);
	step_free(&step);
}

/* Everything in steps of at most chunk tokens of each sequence. */
static void
run_world(World *w, LlmCompute *compute, int chunk)
{
	bool more = true;

	world_open_kv(w, compute);
	while (more)
	{
		int counts[MAX_SEQS] = { 0 };

		more = false;
		for (int s = 0; s < w->c->n_seqs; s++)
		{
			int left = w->c->lens[s] - w->done[s];

			counts[s] = chunk > 0 && left > chunk ? chunk : left;
			more = more || counts[s] > 0;
		}
		if (more)
			run_step(w, compute, counts);
	}
	compute->ops->kv_free(w->kv);
}

/* ------------------------------------------------------------------------
 * The naive loops
 * ------------------------------------------------------------------------
 */

/* Norm and rotation of one head. */
static void
naive_rope(const World *w, const float *head, const Tensor *norm, int position,
		   double *out)
{
	const AttentionCase *c = w->c;
	const float *cosine =
		w->cos_sin + (int64_t) rope_row(w, position) * c->rotary_dim;
	int half = c->rotary_dim / 2;
	double squares = 0;

	for (int d = 0; d < c->head_dim; d++)
	{
		out[d] = (double) head[d];
		squares += out[d] * out[d];
	}
	for (int d = 0; c->norms && d < c->head_dim; d++)
		out[d] *=
			(norm->value[d] + 1) / sqrt(squares / c->head_dim + (double) 1e-6f);
	for (int i = 0; i < half; i++)
	{
		int first = c->interleaved ? 2 * i : i;
		int second = c->interleaved ? 2 * i + 1 : i + half;
		double a = out[first];
		double b = out[second];

		out[first] = a * (double) cosine[i] - b * (double) cosine[half + i];
		out[second] = b * (double) cosine[i] + a * (double) cosine[half + i];
	}
}

/* A key or value as the cache holds it. */
static void
round_cached(const AttentionCase *c, double *x)
{
	uint32_t largest = 0;
	uint8_t unit;

	if (c->kv_dtype == F32)
		return;
	for (int d = 0; d < c->head_dim; d++)
	{
		uint32_t magnitude = llm_magnitude_bits((float) x[d]);

		largest = magnitude > largest ? magnitude : largest;
	}
	unit = llm_unit_of(c->kv_dtype, largest);
	for (int d = 0; d < c->head_dim; d++)
	{
		float value = (float) x[d];

		if (c->kv_dtype == BF16)
			value = llm_bf16_to_float(llm_float_to_bf16(value));
		else
			value = llm_code_value(c->kv_dtype,
								   llm_code_of(c->kv_dtype, value, unit), unit);
		x[d] = (double) value;
	}
}

static void
naive_row(const World *w, const double *keys, const double *values, int seq,
		  int position, int head, double *out)
{
	const AttentionCase *c = w->c;
	int dim = c->head_dim;
	int kv_head = head * c->n_kv_heads / c->n_heads;
	int first =
		c->window > 0 && position >= c->window ? position - c->window + 1 : 0;
	int64_t token = w->start[seq] + position;
	double *q = need((size_t) dim * sizeof(double));
	double *score = need((size_t) (position + 1) * sizeof(double));
	double max = -INFINITY;
	double sum = 0;

	naive_rope(w, w->q + (token * c->n_heads + head) * dim, &w->q_norm,
			   position, q);
	for (int p = first; p <= position; p++)
	{
		int64_t at =
			((w->start[seq] + p) * (int64_t) c->n_kv_heads + kv_head) * dim;

		for (int d = 0; d < dim; d++)
			score[p] += q[d] * keys[at + d];
		score[p] /= sqrt((double) dim);
		if (c->soft_cap > 0)
			score[p] =
				(double) c->soft_cap * tanh(score[p] / (double) c->soft_cap);
		max = score[p] > max ? score[p] : max;
	}
	for (int p = first; p <= position; p++)
		sum += score[p] = exp(score[p] - max);
	for (int d = 0; d < dim; d++)
		out[d] = 0;
	for (int p = first; p <= position; p++)
	{
		int64_t at =
			((w->start[seq] + p) * (int64_t) c->n_kv_heads + kv_head) * dim;

		for (int d = 0; d < dim; d++)
			out[d] += score[p] / sum * values[at + d];
	}
	free(q);
	free(score);
}

/* [n_tokens, n_heads, head_dim] */
static double *
naive_world(const World *w)
{
	const AttentionCase *c = w->c;
	int64_t dim = c->head_dim;
	double *keys =
		need((size_t) (w->n_tokens * c->n_kv_heads * dim) * sizeof(double));
	double *values =
		need((size_t) (w->n_tokens * c->n_kv_heads * dim) * sizeof(double));
	double *out =
		need((size_t) (w->n_tokens * c->n_heads * dim) * sizeof(double));

	for (int s = 0; s < c->n_seqs; s++)
	{
		for (int p = 0; p < c->lens[s]; p++)
		{
			int64_t token = w->start[s] + p;

			for (int h = 0; h < c->n_kv_heads; h++)
			{
				int64_t at = (token * c->n_kv_heads + h) * dim;

				naive_rope(w, w->k + at, &w->k_norm, p, keys + at);
				round_cached(c, keys + at);
				for (int d = 0; d < dim; d++)
					values[at + d] = (double) w->v[at + d];
				round_cached(c, values + at);
			}
			for (int h = 0; h < c->n_heads; h++)
				naive_row(w, keys, values, s, p, h,
						  out + (token * c->n_heads + h) * dim);
		}
	}
	free(keys);
	free(values);
	return out;
}

/* ------------------------------------------------------------------------
 * Tests
 * ------------------------------------------------------------------------
 */

/*
 * f32: a score is good to some 1e-6 of itself and is exponentiated, so
 * weights are as good as scores are large (up to 30 here).  bf16: a key that
 * lies between two bf16 numbers may round the other way than the naive
 * loop's, when its last bits differ: 2^-8 of single values, seldom.  So may
 * a code: 2^-4 of single values, much more seldom.
 */
static double
bound_of(const AttentionCase *c)
{
	return c->kv_dtype == F32 ? 1e-11 : 1e-7;
}

/*
 * Queries and weights are rounded to bf16 on a GPU, too: scores of up to 30
 * are off by as many times the rounding.
 */
#define CUDA_SCORES 4

static void
test_attention(void)
{
	for (size_t i = 0; i < N_CASES; i++)
	{
		World w = world_create(&cases[i]);
		double *expected = naive_world(&w);

		FOR_EACH_PATH(F32, 1 + (int) i % 3)
		{
			path_nmse *= CUDA_SCORES;
			run_world(&w, compute, cases[i].chunk);
			CHECK_NMSE(w.out, expected,
					   (int64_t) w.n_tokens * w.c->n_heads * w.c->head_dim,
					   bound_of(w.c), "%s attention case %d", isa, (int) i);
		}
		free(expected);
		world_free(&w);
	}
}

/*
 * The same bits from one prefill, from chunks of several sizes, from decoding
 * token by token; alone, beside other sequences; with 1 thread, and with
 * more than there are tiles, so that they split the context among them.
 */
static void
check_invariance(World *w, const char *isa)
{
	static const int ways[][2] = { { 1, 0 },  { 2, 1 },	  { 3, 7 },
								   { 2, 64 }, { 3, 900 }, { 3, 0 } };
	size_t bytes =
		(size_t) (w->n_tokens * w->c->n_heads * w->c->head_dim) * sizeof(float);
	float *whole = need(bytes);

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
	{
		LlmCompute *compute = test_open(isa, F32, ways[i][0]);

		/* token by token takes too long where the context is long */
		int chunk = ways[i][1] == 1 && w->n_tokens > 1000 ? 19 : ways[i][1];

		if (compute == NULL)
			break;
		run_world(w, compute, chunk);
		if (i == 0)
			memcpy(whole, w->out, bytes);
		if (memcmp(whole, w->out, bytes) != 0)
			CHECK_FAIL("%s: chunks of %d, %d threads differ", isa, chunk,
					   ways[i][0]);
		compute->ops->close(compute);
	}
	free(whole);
}

static void
test_attention_invariance(void)
{
	static const int picked[] = { 2, 4, 9, 10, 14, 15, 25, 27, 28 };

	for (size_t i = 0; i < sizeof(picked) / sizeof(picked[0]); i++)
	{
		World w = world_create(&cases[picked[i]]);

		for (int isa = 0; isa < N_ISAS - 1; isa++) /* bf16: as avx512 */
			check_invariance(&w, isa_names[isa]);
		world_free(&w);
	}
}

/* A sequence's result is the same alone and beside others. */
static void
test_attention_alone(void)
{
	static const AttentionCase both = { 8,	  2, 64, 64, false,		 false, 16,
										BF16, 0, 0,	 2,	 { 70, 33 }, 16 };
	static const AttentionCase alone = { 8,	   2, 64, 64, false,  false, 16,
										 BF16, 0, 0,  1,  { 70 }, 16 };

	FOR_EACH_ISA(F32, 2)
	{
		World w = world_create(&both);
		World first = world_create(&alone);

		memcpy(first.q, w.q, 70 * 8 * 64 * sizeof(float));
		memcpy(first.k, w.k, 70 * 2 * 64 * sizeof(float));
		memcpy(first.v, w.v, 70 * 2 * 64 * sizeof(float));
		run_world(&w, compute, 16);
		run_world(&first, compute, 9);
		CHECK(memcmp(first.out, w.out, 70 * 8 * 64 * sizeof(float)) == 0);
		(void) isa;
		world_free(&w);
		world_free(&first);
	}
}

static void
test_kv_errors(void)
{
	LlmCompute *compute = test_open(NULL, F32, 1);
	LlmKvCacheSpec spec = { 1, 1, 64, 16, 4, LLM_DTYPE_F16 };
	LlmError err = { 0 };

	REQUIRE(compute != NULL);
	CHECK(compute->ops->kv_create(compute, &spec, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_UNSUPPORTED);
	spec.dtype = F32;
	spec.head_dim = 1024;
	CHECK(compute->ops->kv_create(compute, &spec, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_UNSUPPORTED);
	spec.head_dim = 64;
	CHECK_INT_EQ(compute->ops->kv_bytes(&spec), 4 * 16 * 64 * 2 * 4);
	spec.dtype = FP8;
	CHECK_INT_EQ(compute->ops->kv_bytes(&spec), 4 * 16 * (64 + 1) * 2);
	spec.n_blocks = 2000000000;
	spec.n_layers = 1000;
	spec.n_kv_heads = 1000;
	CHECK(compute->ops->kv_create(compute, &spec, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_NO_MEMORY);
	compute->ops->close(compute);
}

int
main(void)
{
	RUN_TEST(skip_missing_isas);
	RUN_TEST(test_attention);
	RUN_TEST(test_attention_invariance);
	RUN_TEST(test_attention_alone);
	RUN_TEST(test_kv_errors);
	return unit_test_finish();
}
