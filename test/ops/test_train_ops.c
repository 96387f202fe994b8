/*
 * test_train_ops.c
 *	  The operations of training against naive loops in double.
 *
 * Derivatives are checked against formulas written down anew here, which
 * finite differences of the naive forward loops confirm where these are
 * short; the trainer's own test compares whole gradients with PEFT's.  Numbers
 * that go in are such that bf16 has them, too: what a GPU's results differ by
 * is its own.
 *
 * test/ops/test_train_ops.c
 */
#include "src/common/util/philox.h"
#include "src/engine/compute/compute_train.h"
#include "test/ops/ops_test.h"

/* ------------------------------------------------------------------------
 * Products
 * ------------------------------------------------------------------------
 */
typedef struct ProductCase
{
	int64_t m;
	int64_t n;
	int64_t k;
	bool a_transposed;
	bool b_transposed;
	LlmDtype b_dtype;
	bool adds;
	bool is_aligned;  /* rows begin at multiples of 16 bytes, also in bf16 */
	bool out_is_bf16; /* on a GPU: as activations */
} ProductCase;

static const ProductCase product_cases[] = {
	{ 1, 1, 1, false, false, LLM_DTYPE_F32, false },
	{ 5, 33, 17, false, true, LLM_DTYPE_F32, true },
	{ 70, 65, 300, true, false, LLM_DTYPE_BF16, false },
	{ 193, 257, 64, false, false, LLM_DTYPE_BF16, true },
	{ 16, 520, 513, true, true, LLM_DTYPE_F16, false },
	{ 400, 8, 90, false, true, LLM_DTYPE_F32, true },
	/* y = x W^T, += u B^T; d_x = d_y W; d_u = d_y B; d_B += d_y^T u */
	{ 200, 96, 128, false, true, LLM_DTYPE_BF16, false, true, true },
	{ 100, 130, 16, false, true, LLM_DTYPE_F32, true, true, true },
	{ 200, 128, 96, false, false, LLM_DTYPE_BF16, false, true, true },
	{ 77, 48, 200, false, false, LLM_DTYPE_F32, false, true, true },
	{ 96, 16, 203, true, false, LLM_DTYPE_F32, true, true, false },
	{ 203, 520, 64, false, true, LLM_DTYPE_BF16, false, true, false },
	/* thin ones, added: y += u B^T, d_x += d_u A */
	{ 150, 136, 16, false, true, LLM_DTYPE_BF16, true, true, true },
	{ 129, 520, 24, false, false, LLM_DTYPE_BF16, true, true, true },
	{ 203, 264, 64, false, true, LLM_DTYPE_BF16, true, true, true },
	{ 40, 48, 8, false, false, LLM_DTYPE_BF16, true, true, true },
};

/* As bf16 has them. */
static Tensor
tensor_short(int64_t n, float scale)
{
	Tensor t = tensor_random(n, LLM_DTYPE_F32, scale, 0);

	for (int64_t i = 0; i < n; i++)
	{
		float *at = (float *) t.data + i;

		*at = llm_bf16_to_float(llm_float_to_bf16(*at));
		t.value[i] = (double) *at;
	}
	return t;
}

static double
element(const Tensor *t, int64_t stride, bool is_transposed, int64_t row,
		int64_t col)
{
	return t->value[is_transposed ? col * stride + row : row * stride + col];
}

static int64_t
stride_of(const ProductCase *c, int64_t n, int64_t more)
{
	return c->is_aligned ? (n + 7) / 8 * 8 + 8 : n + more;
}

static void
check_product(LlmCompute *compute, const ProductCase *c, const char *isa)
{
	int64_t a_stride = stride_of(c, c->a_transposed ? c->m : c->k, 3);
	int64_t b_stride = stride_of(c, c->b_transposed ? c->k : c->n, 1);
	int64_t n_b = (c->b_transposed ? c->n : c->k) * b_stride;
	Tensor a = tensor_short((c->a_transposed ? c->k : c->m) * a_stride, 1);
	Tensor b = c->b_dtype == LLM_DTYPE_F32
				   ? tensor_short(n_b, 1)
				   : tensor_random(n_b, c->b_dtype, 1, 0);
	bool is_cuda = isa == isa_names[N_ISAS];
	float *out = need((size_t) (c->m * c->n) * sizeof(float));
	double *expected = need((size_t) (c->m * c->n) * sizeof(double));
	LlmProductArgs args = {
		.a = { a.data, LLM_DTYPE_F32, a_stride, c->a_transposed },
		.b = { b.data, c->b_dtype, b_stride, c->b_transposed },
		.m = c->m,
		.n = c->n,
		.k = c->k,
		.scale = 0.75f,
		.adds = c->adds,
		.out = out,
		.out_dtype = is_cuda && c->out_is_bf16 ? LLM_DTYPE_BF16 : LLM_DTYPE_F32,
		.out_stride = c->n,
	};
	LlmError err = { 0 };

	fill_random(out, c->m * c->n, 1);
	for (int64_t i = 0; i < c->m * c->n; i++)
	{
		double sum = 0;

		for (int64_t k = 0; k < c->k; k++)
			sum += element(&a, a_stride, c->a_transposed, i / c->n, k) *
				   element(&b, b_stride, c->b_transposed, k, i % c->n);
		expected[i] = 0.75 * sum + (c->adds ? (double) out[i] : 0);
	}
	CHECK(compute->ops->train->product(compute, &args, &err));
	CHECK_NMSE(out, expected, c->m * c->n, F32_NMSE,
			   "product %lld x %lld x %lld on %s", (long long) c->m,
			   (long long) c->n, (long long) c->k, isa);
	tensor_free(&a);
	tensor_free(&b);
	free(out);
	free(expected);
}

static void
test_product(void)
{
	FOR_EACH_PATH(LLM_DTYPE_F32, 2)
	{
		for (size_t i = 0; i < sizeof(product_cases) / sizeof(ProductCase); i++)
			check_product(compute, &product_cases[i], isa);
	}
}

/* ------------------------------------------------------------------------
 * Attention
 * ------------------------------------------------------------------------
 */
#define N_TOKENS 420
#define N_HEADS 4
#define N_KV_HEADS 2

typedef struct AttentionRig
{
	int32_t head_dim;
	float soft_cap;
	int32_t sliding_window;
	Tensor q;
	Tensor k;
	Tensor v;
	Tensor d_out;
	int32_t start[N_TOKENS];
	int32_t end[N_TOKENS];
	double *out;
	double *d_q;
	double *d_k;
	double *d_v;
} AttentionRig;

static double *
doubles(int64_t n)
{
	return need((size_t) n * sizeof(double));
}

static const double *
head_of(const double *array, int32_t n_heads, int32_t token, int32_t head,
		int32_t head_dim)
{
	return array + ((int64_t) token * n_heads + head) * head_dim;
}

static double
dot(const double *a, const double *b, int32_t n)
{
	double sum = 0;

	for (int32_t i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

/* One query of one head, there and back. */
static void
naive_query(AttentionRig *rig, int32_t t, int32_t head)
{
	const int32_t d = rig->head_dim;
	const int32_t kv = head / (N_HEADS / N_KV_HEADS);
	const double scale = 1 / sqrt((double) d);
	const double *q = head_of(rig->q.value, N_HEADS, t, head, d);
	const double *d_out = head_of(rig->d_out.value, N_HEADS, t, head, d);
	double *out = (double *) head_of(rig->out, N_HEADS, t, head, d);
	double *d_q = (double *) head_of(rig->d_q, N_HEADS, t, head, d);
	double p[N_TOKENS];
	double cap_slope[N_TOKENS];
	double sum = 0;
	int32_t first = rig->start[t];

	if (rig->sliding_window > 0 && t - rig->sliding_window + 1 > first)
		first = t - rig->sliding_window + 1;
	for (int32_t j = first; j <= t; j++)
	{
		double s =
			scale * dot(q, head_of(rig->k.value, N_KV_HEADS, j, kv, d), d);

		cap_slope[j] = 1;
		if (rig->soft_cap > 0)
		{
			double h = tanh(s / (double) rig->soft_cap);

			s = (double) rig->soft_cap * h;
			cap_slope[j] = 1 - h * h;
		}
		p[j] = exp(s);
		sum += p[j];
	}
	for (int32_t j = first; j <= t; j++)
	{
		p[j] /= sum;
		for (int32_t i = 0; i < d; i++)
			out[i] += p[j] * head_of(rig->v.value, N_KV_HEADS, j, kv, d)[i];
	}
	for (int32_t j = first; j <= t; j++)
	{
		const double *v = head_of(rig->v.value, N_KV_HEADS, j, kv, d);
		const double *k = head_of(rig->k.value, N_KV_HEADS, j, kv, d);
		double *d_k = (double *) head_of(rig->d_k, N_KV_HEADS, j, kv, d);
		double *d_v = (double *) head_of(rig->d_v, N_KV_HEADS, j, kv, d);
		double slope = p[j] * (dot(v, d_out, d) - dot(out, d_out, d)) *
					   cap_slope[j] * scale;

		for (int32_t i = 0; i < d; i++)
		{
			d_v[i] += p[j] * d_out[i];
			d_q[i] += slope * k[i];
			d_k[i] += slope * q[i];
		}
	}
}

static void
rig_open(AttentionRig *rig)
{
	const int64_t n_q = (int64_t) N_TOKENS * N_HEADS * rig->head_dim;
	const int64_t n_kv = (int64_t) N_TOKENS * N_KV_HEADS * rig->head_dim;
	const int32_t ends[] = { 1, 20, 131, N_TOKENS };
	int32_t begin = 0;

	rig->q = tensor_short(n_q, 2);
	rig->k = tensor_short(n_kv, 2);
	rig->v = tensor_short(n_kv, 1);
	rig->d_out = tensor_short(n_q, 1);
	rig->out = doubles(n_q);
	rig->d_q = doubles(n_q);
	rig->d_k = doubles(n_kv);
	rig->d_v = doubles(n_kv);
	for (int s = 0; s < 4; s++)
	{
		for (int32_t t = begin; t < ends[s]; t++)
		{
			rig->start[t] = begin;
			rig->end[t] = ends[s];
		}
		begin = ends[s];
	}
	for (int32_t t = 0; t < N_TOKENS; t++)
	{
		for (int32_t h = 0; h < N_HEADS; h++)
			naive_query(rig, t, h);
	}
}

static void
rig_close(AttentionRig *rig)
{
	tensor_free(&rig->q);
	tensor_free(&rig->k);
	tensor_free(&rig->v);
	tensor_free(&rig->d_out);
	free(rig->out);
	free(rig->d_q);
	free(rig->d_k);
	free(rig->d_v);
}

static void
check_attention(LlmCompute *compute, AttentionRig *rig, const char *isa)
{
	const int64_t n_q = (int64_t) N_TOKENS * N_HEADS * rig->head_dim;
	const int64_t n_kv = (int64_t) N_TOKENS * N_KV_HEADS * rig->head_dim;
	float *all = need((size_t) (2 * n_q + 2 * n_kv + 2 * N_TOKENS * N_HEADS) *
					  sizeof(float));
	LlmSegmentAttentionBackArgs back = {
		.forward = { .q = rig->q.data,
					 .k = rig->k.data,
					 .v = rig->v.data,
					 .segment_start = rig->start,
					 .segment_end = rig->end,
					 .out = all,
					 .log_sums = all + 2 * n_q + 2 * n_kv,
					 .n_tokens = N_TOKENS,
					 .n_heads = N_HEADS,
					 .n_kv_heads = N_KV_HEADS,
					 .head_dim = rig->head_dim,
					 .scale = 1 / sqrtf((float) rig->head_dim),
					 .soft_cap = rig->soft_cap,
					 .sliding_window = rig->sliding_window },
		.d_out = rig->d_out.data,
		.d_q = all + n_q,
		.d_k = all + 2 * n_q,
		.d_v = all + 2 * n_q + n_kv,
		.d_out_sums = all + 2 * n_q + 2 * n_kv + N_TOKENS * N_HEADS,
	};
	LlmError err = { 0 };

	CHECK(compute->ops->train->attention(compute, &back.forward, &err));
	CHECK_NMSE(back.forward.out, rig->out, n_q, F32_NMSE, "attention, %s", isa);
	CHECK(compute->ops->train->attention_back(compute, &back, &err));
	CHECK_NMSE(back.d_q, rig->d_q, n_q, F32_NMSE, "d_q, dim %d, %s",
			   rig->head_dim, isa);
	CHECK_NMSE(back.d_k, rig->d_k, n_kv, F32_NMSE, "d_k, dim %d, %s",
			   rig->head_dim, isa);
	CHECK_NMSE(back.d_v, rig->d_v, n_kv, F32_NMSE, "d_v, dim %d, %s",
			   rig->head_dim, isa);
	free(all);
}

static void
test_segment_attention(void)
{
	AttentionRig rigs[] = {
		{ .head_dim = 16 },
		{ .head_dim = 40, .sliding_window = 9 },
		{ .head_dim = 64, .soft_cap = 3 },
		{ .head_dim = 256, .soft_cap = 5, .sliding_window = 70 },
		{ .head_dim = 128 },
		{ .head_dim = 128, .soft_cap = 4, .sliding_window = 40 },
		{ .head_dim = 50, .sliding_window = 2 },
	};

	for (size_t i = 0; i < sizeof(rigs) / sizeof(rigs[0]); i++)
	{
		rig_open(&rigs[i]);
		FOR_EACH_PATH(LLM_DTYPE_F32, 2)
		check_attention(compute, &rigs[i], isa);
		rig_close(&rigs[i]);
	}
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

/* The naive norm of a row: what finite differences are taken of. */
static double
norm_loss(const double *x, const double *weight, const double *d_y, int32_t dim)
{
	double squares = dot(x, x, dim);
	double sum = 0;

	for (int32_t i = 0; i < dim; i++)
		sum += d_y[i] * x[i] / sqrt(squares / dim + 1e-5) * (weight[i] + 1);
	return sum;
}

static void
check_rms_norm_back(LlmCompute *compute, int32_t dim, const char *isa)
{
	enum
	{
		MAX_DIM = 1048,
		N_ROWS = 3
	};
	Tensor x = tensor_short(N_ROWS * dim, 1);
	Tensor d_y = tensor_short(N_ROWS * dim, 1);
	Tensor weight = tensor_random(dim, LLM_DTYPE_BF16, 1, 0);
	float d_x[N_ROWS * MAX_DIM];
	double expected[N_ROWS * MAX_DIM];
	LlmRmsNormBackArgs args = { .x = x.data,
								.d_y = d_y.data,
								.weight = tensor_vector(&weight),
								.d_x = d_x,
								.n_rows = N_ROWS,
								.dim = dim,
								.eps = 1e-5f,
								.weight_offset = 1,
								.adds = true };
	LlmError err = { 0 };

	fill_random(d_x, N_ROWS * dim, 1);
	for (int i = 0; i < N_ROWS * dim; i++)
	{
		double *row = x.value + i / dim * dim;
		double *at = &x.value[i];
		double kept = *at;
		double more;
		double less;

		*at = kept + 1e-5;
		more = norm_loss(row, weight.value, d_y.value + i / dim * dim, dim);
		*at = kept - 1e-5;
		less = norm_loss(row, weight.value, d_y.value + i / dim * dim, dim);
		*at = kept;
		expected[i] = (double) d_x[i] + (more - less) / 2e-5;
	}
	CHECK(compute->ops->train->rms_norm_back(compute, &args, &err));
	CHECK_NMSE(d_x, expected, N_ROWS * dim, F32_NMSE, "rms_norm_back, %s", isa);
	tensor_free(&x);
	tensor_free(&d_y);
	tensor_free(&weight);
}

static double
activation_value(LlmActivation activation, double x)
{
	if (activation == LLM_ACTIVATION_SILU)
		return x / (1 + exp(-x));
	if (activation == LLM_ACTIVATION_GELU)
		return 0.5 * x * (1 + erf(x / sqrt(2)));
	return 0.5 * x *
		   (1 + tanh(sqrt(2 / 3.14159265358979323846) *
					 (x + 0.044715 * x * x * x)));
}

static void
check_gated_act_back(LlmCompute *compute, LlmActivation activation,
					 const char *isa)
{
	enum
	{
		N = 203
	};
	Tensor gate = tensor_short(N, 6);
	Tensor up = tensor_short(N, 1);
	Tensor d_out = tensor_short(N, 1);
	double d_gate[N];
	double d_up[N];
	LlmGatedActBackArgs args = { .gate = gate.data,
								 .up = up.data,
								 .d_out = d_out.data,
								 .d_gate = gate.data,
								 .d_up = up.data,
								 .n = N,
								 .activation = activation };
	LlmError err = { 0 };

	for (int i = 0; i < N; i++)
	{
		double g = gate.value[i];

		d_up[i] = d_out.value[i] * activation_value(activation, g);
		d_gate[i] = d_out.value[i] * up.value[i] *
					(activation_value(activation, g + 1e-5) -
					 activation_value(activation, g - 1e-5)) /
					2e-5;
	}
	CHECK(compute->ops->train->gated_act_back(compute, &args, &err));
	CHECK_NMSE(args.d_gate, d_gate, N, F32_NMSE, "d_gate %d, %s", activation,
			   isa);
	CHECK_NMSE(args.d_up, d_up, N, F32_NMSE, "d_up %d, %s", activation, isa);
	tensor_free(&gate);
	tensor_free(&up);
	tensor_free(&d_out);
}

/* -log softmax(cap(logits))[label] */
static double
entropy(const double *logits, int32_t n, int32_t label, double cap)
{
	double sum = 0;
	double own = 0;

	for (int32_t j = 0; j < n; j++)
	{
		double x = cap > 0 ? cap * tanh(logits[j] / cap) : logits[j];

		sum += exp(x);
		own = j == label ? x : own;
	}
	return log(sum) - own;
}

static void
check_cross_entropy(LlmCompute *compute, int32_t n_vocab, float cap,
					const char *isa)
{
	enum
	{
		MAX_VOCAB = 1240,
		N_ROWS = 3
	};
	const int32_t labels[N_ROWS] = { 0, n_vocab - 1, 50 };
	const float weights[N_ROWS] = { 0.5f, -2, 1 };
	Tensor logits = tensor_random(N_ROWS * n_vocab, LLM_DTYPE_F32, 5, 0);
	float log_probs[N_ROWS];
	double expected_log_probs[N_ROWS];
	double expected[N_ROWS * MAX_VOCAB];
	LlmCrossEntropyArgs args = { .logits = logits.data,
								 .labels = labels,
								 .weights = weights,
								 .d_logits = logits.data,
								 .log_probs = log_probs,
								 .n_rows = N_ROWS,
								 .n_vocab = n_vocab,
								 .soft_cap = cap };
	LlmError err = { 0 };

	for (int i = 0; i < N_ROWS * n_vocab; i++)
	{
		int row = i / n_vocab;
		double *x = logits.value + row * n_vocab;
		double kept = logits.value[i];
		double more;
		double less;

		expected_log_probs[row] =
			-entropy(x, n_vocab, labels[row], (double) cap);
		logits.value[i] = kept + 1e-5;
		more = entropy(x, n_vocab, labels[row], (double) cap);
		logits.value[i] = kept - 1e-5;
		less = entropy(x, n_vocab, labels[row], (double) cap);
		logits.value[i] = kept;
		expected[i] = (double) weights[row] * (more - less) / 2e-5;
	}
	CHECK(compute->ops->train->cross_entropy(compute, &args, &err));
	CHECK_NMSE(log_probs, expected_log_probs, N_ROWS, F32_NMSE, "log_probs, %s",
			   isa);
	CHECK_NMSE(args.logits, expected, N_ROWS * n_vocab, F32_NMSE,
			   "d_logits, cap %g, %s", (double) cap, isa);
	tensor_free(&logits);
}

static void
test_rows(void)
{
	FOR_EACH_PATH(LLM_DTYPE_F32, 2)
	{
		check_rms_norm_back(compute, 37, isa);
		check_rms_norm_back(compute, 128, isa);
		check_rms_norm_back(compute, 1048, isa);
		check_gated_act_back(compute, LLM_ACTIVATION_SILU, isa);
		check_gated_act_back(compute, LLM_ACTIVATION_GELU, isa);
		check_gated_act_back(compute, LLM_ACTIVATION_GELU_TANH, isa);
		check_cross_entropy(compute, 117, 0, isa);
		check_cross_entropy(compute, 117, 4, isa);
		check_cross_entropy(compute, 1240, 0, isa);
	}
}

/* Pair i of a head. */
static void
naive_pair(const LlmRotateArgs *args, double *head, const float *angles,
		   int32_t i)
{
	const int32_t half = args->rotary_dim / 2;
	double *a = head + (args->interleaved ? 2 * i : i);
	double *b = args->interleaved ? a + 1 : a + half;
	double c = (double) angles[i];
	double s = (double) angles[half + i];
	double x = *a;

	*a = x * c - *b * s;
	*b = *b * c + x * s;
}

static void
naive_rotate(const LlmRotateArgs *args, double *x)
{
	for (int32_t i = 0; i < args->n_tokens * args->n_heads; i++)
	{
		const float *angles =
			args->cos_sin +
			args->rope_rows[i / args->n_heads] * args->rotary_dim;

		for (int32_t j = 0; j < args->rotary_dim / 2; j++)
			naive_pair(args, x + (int64_t) i * args->head_dim, angles, j);
	}
}

/* There, and back to where it began. */
static void
check_rotate(int32_t head_dim, int32_t rotary_dim, bool interleaved)
{
	enum
	{
		MAX_DIM = 64,
		N_HEADS_HERE = 2
	};
	const int32_t rope_rows[3] = { 2, 0, 1 };
	const int32_t n = 3 * N_HEADS_HERE * head_dim;
	float cos_sin[3 * MAX_DIM];
	float x[3 * N_HEADS_HERE * MAX_DIM];
	double before[3 * N_HEADS_HERE * MAX_DIM];
	double behind[3 * N_HEADS_HERE * MAX_DIM];
	LlmRotateArgs args = { .x = x,
						   .cos_sin = cos_sin,
						   .rope_rows = rope_rows,
						   .n_tokens = 3,
						   .n_heads = N_HEADS_HERE,
						   .head_dim = head_dim,
						   .rotary_dim = rotary_dim,
						   .interleaved = interleaved };
	LlmError err = { 0 };

	for (int i = 0; i < 3 * rotary_dim / 2; i++)
	{
		float *row = cos_sin + i / (rotary_dim / 2) * rotary_dim;

		row[i % (rotary_dim / 2)] = cosf((float) i);
		row[rotary_dim / 2 + i % (rotary_dim / 2)] = sinf((float) i);
	}
	FOR_EACH_PATH(LLM_DTYPE_F32, 1)
	{
		fill_random(x, n, 1);
		for (int i = 0; i < n; i++)
			behind[i] = before[i] = (double) x[i];
		naive_rotate(&args, behind);
		args.is_inverse = false;
		CHECK(compute->ops->train->rotate(compute, &args, &err));
		CHECK_NMSE(x, behind, n, F32_NMSE, "rotate, %s", isa);
		args.is_inverse = true;
		CHECK(compute->ops->train->rotate(compute, &args, &err));
		CHECK_NMSE(x, before, n, F32_NMSE, "rotate back, %s", isa);
	}
}

static void
test_rotate(void)
{
	check_rotate(16, 8, false);
	check_rotate(16, 8, true);
	check_rotate(64, 64, false);
	check_rotate(40, 32, false);
}

/* ------------------------------------------------------------------------
 * Numbers
 * ------------------------------------------------------------------------
 */
static void
check_adamw(LlmCompute *compute, const char *isa)
{
	enum
	{
		N = 100
	};
	float p[N];
	float d_p[N];
	float m[N];
	float v[N];
	double expected[N];
	LlmAdamwArgs args = { .p = p,
						  .d_p = d_p,
						  .m = m,
						  .v = v,
						  .n = N,
						  .clip = 0.5f,
						  .rate = 1e-2,
						  .decay = 0.1,
						  .beta1 = 0.9,
						  .beta2 = 0.999,
						  .eps = 1e-8,
						  .correction1 = 1 - 0.9 * 0.9 * 0.9,
						  .correction2 = 1 - 0.999 * 0.999 * 0.999 };
	LlmError err = { 0 };

	fill_random(p, N, 1);
	fill_random(d_p, N, 1);
	fill_random(m, N, 1);
	fill_random(v, N, 1);
	for (int i = 0; i < N; i++)
	{
		double g = 0.5 * (double) d_p[i];
		double m_next;
		double v_next;

		v[i] = fabsf(v[i]);
		m_next = 0.9 * (double) m[i] + 0.1 * g;
		v_next = 0.999 * (double) v[i] + 0.001 * g * g;
		expected[i] = (double) p[i] * (1 - 1e-3) -
					  1e-2 * (m_next / args.correction1) /
						  (sqrt(v_next / args.correction2) + 1e-8);
	}
	CHECK(compute->ops->train->adamw(compute, &args, &err));
	CHECK_NMSE(p, expected, N, F32_NMSE, "adamw, %s", isa);
}

static void
check_dropout(LlmCompute *compute)
{
	enum
	{
		N = 40000
	};
	float *x = need(2 * N * sizeof(float));
	float *out = x + N;
	int n_dropped = 0;
	LlmDropoutArgs args = { .x = x,
							.out = out,
							.n = N,
							.probability = 0.25f,
							.seed = 3,
							.sequence = 9 };
	LlmError err = { 0 };

	for (int i = 0; i < N; i++)
		x[i] = 3;
	CHECK(compute->ops->train->dropout(compute, &args, &err));
	for (int i = 0; i < N; i++)
	{
		uint32_t word = llm_philox(3, (uint64_t) i / 4, 9).word[i % 4];

		CHECK(out[i] == (word < UINT32_C(1) << 30 ? 0 : 4));
		n_dropped += out[i] == 0;
	}
	/* of 10,000 expected, 87 is the standard deviation */
	CHECK(abs(n_dropped - N / 4) < 500);
	free(x);
}

/* DoRA's lengths against the rows of a weight that was put together. */
static void
check_adapted_norms(LlmCompute *compute, const char *isa)
{
	enum
	{
		N_ROWS = 7,
		N_COLS = 19,
		RANK = 3
	};
	Tensor w = tensor_random(N_ROWS * N_COLS, LLM_DTYPE_BF16, 1, 0);
	Tensor a = tensor_random(RANK * N_COLS, LLM_DTYPE_F32, 1, 0);
	Tensor b = tensor_random(N_ROWS * RANK, LLM_DTYPE_F32, 1, 0);
	float squares[N_ROWS];
	float wa[N_ROWS * RANK];
	float aa[RANK * RANK];
	float norms[N_ROWS];
	double expected[N_ROWS];
	const LlmTrainOps *train = compute->ops->train;
	LlmOperand a_back = { a.data, LLM_DTYPE_F32, N_COLS, true };
	LlmProductArgs wa_args = {
		.a = { w.data, LLM_DTYPE_BF16, N_COLS, false },
		.b = a_back,
		.m = N_ROWS,
		.n = RANK,
		.k = N_COLS,
		.scale = 1,
		.out = wa,
		.out_dtype = LLM_DTYPE_F32,
		.out_stride = RANK,
	};
	LlmProductArgs aa_args = {
		.a = { a.data, LLM_DTYPE_F32, N_COLS, false },
		.b = a_back,
		.m = RANK,
		.n = RANK,
		.k = N_COLS,
		.scale = 1,
		.out = aa,
		.out_dtype = LLM_DTYPE_F32,
		.out_stride = RANK,
	};
	LlmRowSquaresArgs squares_args = {
		.weight = { w.data, LLM_DTYPE_BF16, N_ROWS, N_COLS }, .out = squares
	};
	LlmAdaptedNormsArgs args = {
		squares, b.data, wa, aa, norms, 2, N_ROWS, RANK
	};
	LlmError err = { 0 };

	for (int i = 0; i < N_ROWS; i++)
	{
		expected[i] = 0;
		for (int j = 0; j < N_COLS; j++)
		{
			double sum = w.value[i * N_COLS + j];

			for (int r = 0; r < RANK; r++)
				sum += 2 * b.value[i * RANK + r] * a.value[r * N_COLS + j];
			expected[i] += sum * sum;
		}
		expected[i] = sqrt(expected[i]);
	}
	CHECK(train->product(compute, &wa_args, &err));
	CHECK(train->product(compute, &aa_args, &err));
	CHECK(train->row_squares(compute, &squares_args, &err));
	CHECK(train->adapted_norms(compute, &args, &err));
	CHECK_NMSE(norms, expected, N_ROWS, F32_NMSE, "adapted_norms, %s", isa);
	tensor_free(&w);
	tensor_free(&a);
	tensor_free(&b);
}

/* What is added, weighed, divided and put elsewhere. */
static void
check_simple(LlmCompute *compute, const char *isa)
{
	enum
	{
		ROWS = 70,
		DIM = 43,
		N = ROWS * DIM
	};
	const LlmTrainOps *train = compute->ops->train;
	Tensor a = tensor_short(N, 1);
	Tensor b = tensor_short(N, 1);
	float *out = need(2 * N * sizeof(float));
	double *expected = need(2 * N * sizeof(double));
	int32_t rows[ROWS];
	double squares = 0;
	double sum = 0;
	LlmAddArgs sums = { a.data, b.data, out, N };
	LlmScaleColumnsArgs scale = { .x = a.data,
								  .scales = b.data,
								  .bias = tensor_vector(&b),
								  .out = out,
								  .n_rows = ROWS,
								  .dim = DIM };
	LlmColumnDotsArgs dots = { a.data, b.data, (float *) b.data + DIM,
							   out,	   ROWS,   DIM };
	LlmDivideArgs divide = { a.data, b.data, out, N };
	LlmScatterArgs scatter = { a.data, rows, out, ROWS, 2 * ROWS, DIM };
	LlmRoundArgs rounds = { a.data, out, N };
	LlmRowDotsArgs row_dots = { a.data, b.data, out, ROWS, DIM };
	LlmCombineArgs combine = { a.data, rows, b.data, out, ROWS / 2, 2, DIM };
	LlmError err = { 0 };

	scale.bias.n = DIM;
	for (int i = 0; i < N; i++)
		expected[i] = a.value[i] + b.value[i];
	CHECK(train->add(compute, &sums, &err));
	CHECK_NMSE(out, expected, N, F32_NMSE, "add, %s", isa);
	for (int i = 0; i < N; i++)
		expected[i] = a.value[i] * b.value[i % DIM] + b.value[i % DIM];
	CHECK(train->scale_columns(compute, &scale, &err));
	CHECK_NMSE(out, expected, N, F32_NMSE, "scale_columns, %s", isa);
	for (int j = 0; j < DIM; j++)
	{
		double dot_sum = 0;

		out[j] = 2;
		for (int i = 0; i < ROWS; i++)
			dot_sum += a.value[i * DIM + j] * b.value[i * DIM + j];
		expected[j] = 2 + dot_sum / b.value[DIM + j];
	}
	CHECK(train->column_dots(compute, &dots, &err));
	CHECK_NMSE(out, expected, DIM, F32_NMSE, "column_dots, %s", isa);
	for (int i = 0; i < N; i++)
	{
		expected[i] = a.value[i] / b.value[i];
		squares += a.value[i] * a.value[i];
	}
	CHECK(train->divide(compute, &divide, &err));
	CHECK_NMSE(out, expected, N, F32_NMSE, "divide, %s", isa);
	CHECK(train->sum_squares(compute, a.data, N, &sum, &err));
	CHECK(fabs(sum / squares - 1) < 1e-12);
	for (int i = 0; i < ROWS; i++)
	{
		expected[i] = dot(a.value + i * DIM, b.value + i * DIM, DIM);
		rows[i] = (i * 37 + 5) % ROWS;
	}
	CHECK(train->row_dots(compute, &row_dots, &err));
	CHECK_NMSE(out, expected, ROWS, F32_NMSE, "row_dots, %s", isa);
	for (int i = 0; i < N / 2; i++)
	{
		const int32_t *entries = rows + i / DIM * 2;

		expected[i] = 0;
		for (int k = 0; k < 2; k++)
			expected[i] +=
				b.value[entries[k]] * a.value[entries[k] * DIM + i % DIM];
	}
	CHECK(train->combine(compute, &combine, &err));
	CHECK_NMSE(out, expected, N / 2, F32_NMSE, "combine, %s", isa);
	fill_random(out, N, 1);
	CHECK(train->round(compute, &rounds, &err));
	CHECK_NMSE(out, a.value, N, 0, "round, %s", isa);
	for (int i = 0; i < 2 * N; i++)
	{
		out[i] = 1;
		expected[i] = 0;
	}
	for (int i = 0; i < N; i++)
	{
		rows[i / DIM] = i / DIM * 2 + 1;
		expected[rows[i / DIM] * DIM + i % DIM] = a.value[i];
	}
	CHECK(train->scatter(compute, &scatter, &err));
	CHECK_NMSE(out, expected, 2 * N, 0, "scatter, %s", isa);
	tensor_free(&a);
	tensor_free(&b);
	free(out);
	free(expected);
}

static void
check_noise(LlmCompute *compute, const char *isa)
{
	enum
	{
		N = 1001
	};
	Tensor x = tensor_short(N, 1);
	double expected[N];
	LlmNoiseArgs args = {
		.x = x.data, .n = N, .scale = 2, .seed = 5, .sequence = 8
	};
	LlmError err = { 0 };

	for (int i = 0; i < N; i++)
	{
		uint32_t word = llm_philox(5, (uint64_t) i / 4, 8).word[i % 4];

		expected[i] =
			x.value[i] + 2 * (2 * (double) llm_philox_unit_float(word) - 1);
	}
	CHECK(compute->ops->train->noise(compute, &args, &err));
	CHECK_NMSE(x.data, expected, N, F32_NMSE, "noise, %s", isa);
	tensor_free(&x);
}

/* Bit by bit: the formula's roundings are part of it. */
static void
check_nf4(LlmCompute *compute, bool is_nested, LlmDtype dtype, const char *isa)
{
	enum
	{
		N = 64 * 300 + 21,
		N_BLOCKS = N / 64 + 1
	};
	float codes[16];
	float map[256];
	float offset = 0.7f;
	float scales[N_BLOCKS];
	uint8_t *bytes = need(N_BLOCKS + (N + 1) / 2);
	char *out = need(N * sizeof(float));
	LlmNf4Args args = { .codes = codes,
						.map = map,
						.offset = &offset,
						.scales = scales,
						.scale_codes = is_nested ? bytes : NULL,
						.values = bytes + N_BLOCKS,
						.out = out,
						.out_dtype = dtype,
						.n = N };
	LlmError err = { 0 };

	fill_random(codes, 16, 1);
	fill_random(map, 256, 1);
	fill_random(scales, N_BLOCKS, 3);
	for (int i = 0; i < N_BLOCKS + (N + 1) / 2; i++)
		bytes[i] = (uint8_t) random_u32();
	CHECK(compute->ops->train->decode_nf4(compute, &args, &err));
	for (int i = 0; i < N; i++)
	{
		int block = i / 64;
		int value = args.values[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15;
		float scale = scales[is_nested ? block / 256 : block];
		float magnitude =
			is_nested ? (float) ((double) map[bytes[block]] * (double) scale)
					  : scale;
		float expected;
		uint16_t half;

		if (is_nested)
			magnitude = (float) ((double) magnitude + (double) offset);
		expected = (float) ((double) codes[value] * (double) magnitude);
		half = llm_float_to_bf16(expected);
		if (memcmp(out + i * (int) llm_dtype_bytes(dtype),
				   dtype == LLM_DTYPE_F32 ? (void *) &expected : (void *) &half,
				   llm_dtype_bytes(dtype)) != 0)
		{
			CHECK_FAIL("value %d of NF4 as %s on %s", i, llm_dtype_name(dtype),
					   isa);
			break;
		}
	}
	free(bytes);
	free(out);
}

static void
test_numbers(void)
{
	FOR_EACH_PATH(LLM_DTYPE_F32, 2)
	{
		check_adamw(compute, isa);
		check_dropout(compute);
		check_simple(compute, isa);
		check_noise(compute, isa);
		check_nf4(compute, false, LLM_DTYPE_BF16, isa);
		check_nf4(compute, true, LLM_DTYPE_BF16, isa);
		check_nf4(compute, true, LLM_DTYPE_F32, isa);
		check_adapted_norms(compute, isa);
	}
}

/* The same bits whatever the number of threads. */
static void
test_threads_agree(void)
{
	ProductCase c = { 250, 300, 600, false, false, LLM_DTYPE_F32, false };
	Tensor a = tensor_random(c.m * c.k, LLM_DTYPE_F32, 1, 0);
	Tensor b = tensor_random(c.k * c.n, LLM_DTYPE_F32, 1, 0);
	float *outs = need((size_t) (2 * c.m * c.n) * sizeof(float));
	LlmError err = { 0 };

	for (int i = 0; i < 2; i++)
	{
		LlmCompute *compute = test_open(NULL, LLM_DTYPE_F32, 1 + 2 * i);
		LlmProductArgs args = {
			.a = { a.data, LLM_DTYPE_F32, c.k, false },
			.b = { b.data, LLM_DTYPE_F32, c.n, false },
			.m = c.m,
			.n = c.n,
			.k = c.k,
			.scale = 1,
			.out = outs + i * c.m * c.n,
			.out_dtype = LLM_DTYPE_F32,
			.out_stride = c.n,
		};

		CHECK(compute->ops->train->product(compute, &args, &err));
		compute->ops->close(compute);
	}
	CHECK(memcmp(outs, outs + c.m * c.n,
				 (size_t) (c.m * c.n) * sizeof(float)) == 0);
	tensor_free(&a);
	tensor_free(&b);
	free(outs);
}

int
main(void)
{
	RUN_TEST(skip_missing_isas);
	RUN_TEST(test_product);
	RUN_TEST(test_segment_attention);
	RUN_TEST(test_rows);
	RUN_TEST(test_rotate);
	RUN_TEST(test_numbers);
	RUN_TEST(test_threads_agree);
	return unit_test_finish();
}
