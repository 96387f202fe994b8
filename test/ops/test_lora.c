/*
 * test_lora.c
 *	  Adapters on linear operations: every path against naive loops in double,
 *	  and rows that do not depend on their company.
 *
 * test/ops/test_lora.c
 */
#include "test/ops/ops_test.h"

#define F32 LLM_DTYPE_F32
#define BF16 LLM_DTYPE_BF16
#define MAX_LORAS 64

typedef struct LoraCase
{
	int n_rows;
	int n_cols;
	int n_out[LLM_LINEAR_MAX_PARTS];
	int n_loras;
	int max_rank;
	LlmDtype dtype; /* of the weights, and the precision */
	bool has_gains; /* of every other adapter */
	bool has_bias;
	bool of_logit_rows;
	bool out_is_f32;
} LoraCase;

/* clang-format off */
static const LoraCase cases[] = {
	/* rows  cols  outputs          loras rank  dtype  gains  bias  logits f32 */
	{    1,   16, {  16,   0,   0 },  1,   1,  F32,  false, false, false, false },
	{    1,   17, {   5,   0,   0 },  1,   3,  F32,  true,  true,  false, false },
	{    4,  100, {  37,   9,   1 },  2,   8,  F32,  true,  true,  false, false },
	{    9,   64, {  64,  32,  32 },  3,  16,  BF16, false, false, false, false },
	{   33,  300, {  70,  41,   0 },  5,  24,  BF16, true,  true,  false, false },
	{   64, 1024, { 512, 128, 128 }, 64,  16,  BF16, false, false, false, false },
	{   70, 1056, { 264,   0,   0 },  1,  16,  BF16, false, true,  false, false },
	{  200,  512, { 160, 160,   0 },  7,  64,  BF16, true,  false, false, false },
	{   20, 4128, { 136,   0,   0 },  4,  33,  BF16, false, false, false, false },
	{  130,   96, { 200,   0,   0 },  2,  64,  F32,  false, false, false, false },
	{   24,  256, { 320,   0,   0 },  6,  16,  BF16, false, false, true,  true },
	{   16,  128, {  48,  24,  16 },  3,  20,  F32,  true,  true,  true,  false },
};
/* clang-format on */

/* Numbers as an image keeps them. */
static float
rounded(float value, LlmDtype dtype)
{
	return dtype == BF16 ? llm_bf16_to_float(llm_float_to_bf16(value)) : value;
}

/* An adapter: its numbers as they are stored, and its image. */
typedef struct Adapter
{
	LlmLoraShape shapes[1 + LLM_LINEAR_MAX_PARTS];
	float *down[LLM_LINEAR_MAX_PARTS];
	float *up[LLM_LINEAR_MAX_PARTS];
	float *gain[LLM_LINEAR_MAX_PARTS];
	void *image;
} Adapter;

typedef struct LoraData
{
	const LoraCase *c;
	float *x;
	Tensor weight[LLM_LINEAR_MAX_PARTS];
	Tensor bias[LLM_LINEAR_MAX_PARTS];
	float *out[LLM_LINEAR_MAX_PARTS];
	int64_t stride[LLM_LINEAR_MAX_PARTS];
	int n_parts;
	Adapter adapters[MAX_LORAS];
	const void *loras[MAX_LORAS];
	LlmStepInputs step;
	int32_t *token_lora;
	int32_t *logit_rows;
	int32_t query_start[2];
	int32_t context_len[1];
	int32_t block_table[1];
} LoraData;

/* Modules begin behind one that belongs to somebody else. */
#define FIRST_MODULE 1

/* Some adapters leave some parts alone. */
static void
make_adapter(LoraData *d, int i, const LlmLoraFormat *format)
{
	const LoraCase *c = d->c;
	Adapter *adapter = &d->adapters[i];
	size_t n_bytes;

	for (int p = 0; p < d->n_parts; p++)
	{
		LlmLoraShape *shape = &adapter->shapes[FIRST_MODULE + p];
		int32_t rank = (i + p) % 4 == 3 ? 0 : 1 + (i * 7 + p) % c->max_rank;

		if (i == 0)
			rank = c->max_rank;
		*shape = (LlmLoraShape){ rank, c->n_cols, c->n_out[p],
								 rank > 0 && c->has_gains && i % 2 == 0 };
		adapter->down[p] = need((size_t) (rank * c->n_cols) * sizeof(float));
		adapter->up[p] = need((size_t) (rank * c->n_out[p]) * sizeof(float));
		for (int k = 0; k < rank * c->n_cols; k++)
			adapter->down[p][k] = rounded(random_float(), format->dtype);
		for (int k = 0; k < rank * c->n_out[p]; k++)
			adapter->up[p][k] = rounded(0.3f * random_float(), format->dtype);
		if (!shape->has_gain)
			continue;
		adapter->gain[p] = need((size_t) c->n_out[p] * sizeof(float));
		for (int k = 0; k < c->n_out[p]; k++)
			adapter->gain[p][k] = 1 + 0.5f * random_float();
	}
	n_bytes = llm_lora_image_bytes(format, adapter->shapes,
								   FIRST_MODULE + d->n_parts);
	adapter->image = aligned_alloc(64, n_bytes);
	if (adapter->image == NULL)
		abort();
	memset(adapter->image, 0, n_bytes);
	llm_lora_image_init(adapter->image, format, adapter->shapes,
						FIRST_MODULE + d->n_parts);
	for (int p = 0; p < d->n_parts; p++)
	{
		LlmLoraNumbers numbers = { adapter->down[p], adapter->up[p],
								   adapter->gain[p] };
		const LlmLoraShape *shape = &adapter->shapes[FIRST_MODULE + p];

		if (shape->rank > 0)
			llm_lora_image_write(adapter->image, format, FIRST_MODULE + p,
								 shape, &numbers);
	}
	d->loras[i] = adapter->image;
}

static int
n_tokens(const LoraCase *c)
{
	return c->of_logit_rows ? 2 * c->n_rows : c->n_rows;
}

static void
make_step(LoraData *d)
{
	const LoraCase *c = d->c;
	int n = n_tokens(c);

	d->token_lora = need((size_t) n * sizeof(int32_t));
	d->logit_rows = need((size_t) c->n_rows * sizeof(int32_t));
	for (int i = 0; i < n; i++)
		d->token_lora[i] = random_int(-1, c->n_loras - 1);
	for (int i = 0; i < c->n_rows; i++)
		d->logit_rows[i] = c->of_logit_rows ? 2 * i + i % 2 : i;
	d->query_start[1] = n;
	d->context_len[0] = n;
	d->step = (LlmStepInputs){
		.n_tokens = n,
		.n_seqs = 1,
		.n_logit_rows = c->n_rows,
		.max_blocks_per_seq = 1,
		.max_query_len = n,
		.max_context_len = n,
		.query_start = d->query_start,
		.context_len = d->context_len,
		.block_tables = d->block_table,
		.logit_rows = d->logit_rows,
		.n_loras = c->n_loras,
		.token_lora = d->token_lora,
		.loras = d->loras,
	};
}

static LoraData *
setup(const LoraCase *c, const LlmLoraFormat *format)
{
	LoraData *d = need(sizeof(*d));

	d->c = c;
	d->x = need((size_t) (c->n_rows * c->n_cols) * sizeof(float));
	fill_random(d->x, (int64_t) c->n_rows * c->n_cols, 1.0f);
	for (int p = 0; p < LLM_LINEAR_MAX_PARTS && c->n_out[p] > 0; p++)
	{
		d->weight[p] =
			tensor_random((int64_t) c->n_out[p] * c->n_cols, c->dtype, 1.0f, 0);
		if (c->has_bias)
			d->bias[p] = tensor_random(c->n_out[p], F32, 1.0f, 0);
		d->stride[p] = c->n_out[p] + 8;
		d->out[p] = need((size_t) (c->n_rows * d->stride[p]) * sizeof(float));
		d->n_parts = p + 1;
	}
	for (int i = 0; i < c->n_loras; i++)
		make_adapter(d, i, format);
	make_step(d);
	return d;
}

static void
tear_down(LoraData *d)
{
	for (int i = 0; i < d->c->n_loras; i++)
	{
		for (int p = 0; p < d->n_parts; p++)
		{
			free(d->adapters[i].down[p]);
			free(d->adapters[i].up[p]);
			free(d->adapters[i].gain[p]);
		}
		free(d->adapters[i].image);
	}
	for (int p = 0; p < d->n_parts; p++)
	{
		tensor_free(&d->weight[p]);
		tensor_free(&d->bias[p]);
		free(d->out[p]);
	}
	free(d->x);
	free(d->token_lora);
	free(d->logit_rows);
	free(d);
}

static LlmLinearArgs
linear_args(const LoraData *d, const LlmStepInputs *step)
{
	const LoraCase *c = d->c;
	LlmLinearArgs args = {
		.x = d->x,
		.n_rows = c->n_rows,
		.n_parts = d->n_parts,
		.out_is_f32 = c->out_is_f32,
		.lora = { step, FIRST_MODULE, c->of_logit_rows },
	};

	for (int p = 0; p < d->n_parts; p++)
	{
		args.part[p].weight =
			(LlmMatrix){ d->weight[p].data, c->dtype, c->n_out[p], c->n_cols };
		if (c->has_bias)
			args.part[p].bias = tensor_vector(&d->bias[p]);
		args.part[p].out = d->out[p];
		args.part[p].out_stride = d->stride[p];
	}
	return args;
}

static int
adapter_of(const LoraData *d, int row)
{
	return d->token_lora[d->c->of_logit_rows ? d->logit_rows[row] : row];
}

static double
dot(const float *a, const float *b, int n)
{
	double sum = 0;

	for (int i = 0; i < n; i++)
		sum += (double) a[i] * (double) b[i];
	return sum;
}

/* What row and part should be, into expected [n_out]. */
static void
expect_row(const LoraData *d, int row, int p, double *expected)
{
	const LoraCase *c = d->c;
	const float *x = d->x + row * c->n_cols;
	int i = adapter_of(d, row);
	const Adapter *adapter = i >= 0 ? &d->adapters[i] : NULL;
	int rank = adapter != NULL ? adapter->shapes[FIRST_MODULE + p].rank : 0;
	double inner[64];

	for (int r = 0; r < rank; r++)
		inner[r] = dot(x, adapter->down[p] + r * c->n_cols, c->n_cols);
	for (int o = 0; o < c->n_out[p]; o++)
	{
		double sum = 0;

		for (int k = 0; k < c->n_cols; k++)
			sum += (double) x[k] * d->weight[p].value[o * c->n_cols + k];
		for (int r = 0; r < rank; r++)
			sum += inner[r] * (double) adapter->up[p][o * rank + r];
		if (rank > 0 && adapter->gain[p] != NULL)
			sum *= (double) adapter->gain[p][o];
		expected[o] = sum + (c->has_bias ? d->bias[p].value[o] : 0);
	}
}

static void
check_rows(const LoraData *d, const char *isa)
{
	const LoraCase *c = d->c;

	for (int p = 0; p < d->n_parts; p++)
	{
		int n_out = c->n_out[p];
		int64_t n = (int64_t) c->n_rows * n_out;
		double *expected = need((size_t) n * sizeof(double));
		float *actual = need((size_t) n * sizeof(float));

		for (int row = 0; row < c->n_rows; row++)
		{
			expect_row(d, row, p, expected + (int64_t) row * n_out);
			memcpy(actual + (int64_t) row * n_out,
				   d->out[p] + row * d->stride[p],
				   (size_t) n_out * sizeof(float));
		}
		/* avx512bf16 rounds x for the base's product */
		CHECK_NMSE(actual, expected, n,
				   strcmp(isa, "avx512bf16") == 0 ? 4e-6 : F32_NMSE,
				   "%s lora %dx%d to %d, %d adapters of rank %d", isa,
				   c->n_rows, c->n_cols, n_out, c->n_loras, c->max_rank);
		free(expected);
		free(actual);
	}
}

/* Images to where the path computes. */
static void
upload_images(LlmCompute *compute, LoraData *d, bool is_cuda)
{
	for (int i = 0; is_cuda && i < d->c->n_loras; i++)
		d->loras[i] = mirror_bytes(
			compute, d->adapters[i].image,
			llm_lora_image_bytes(&compute->lora_format, d->adapters[i].shapes,
								 FIRST_MODULE + d->n_parts));
}

static void
free_images(LlmCompute *compute, LoraData *d, bool is_cuda)
{
	for (int i = 0; is_cuda && i < d->c->n_loras; i++)
		mirror_free(compute, d->loras[i]);
}

static void
test_values(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const LoraCase *c = &cases[i];

		FOR_EACH_PATH(c->dtype, 1 + (int) i % 3)
		{
			bool is_cuda = strcmp(isa, "cuda") == 0;
			LoraData *d = setup(c, &compute->lora_format);
			LlmStepInputs step;
			LlmLinearArgs args = linear_args(d, &step);
			LlmError err = { 0 };

			upload_images(compute, d, is_cuda);
			CHECK(compute->ops->step_upload(compute, &d->step, &step, &err) &&
				  compute->ops->linear(compute, &args, &err));
			check_rows(d, isa);
			free_images(compute, d, is_cuda);
			tear_down(d);
		}
	}
}

/* ---- embeddings ---- */

#define EMBED_SCALE 1.5f

/* The first part's adapters as those of a table: n_cols tokens. */
static void
check_embeddings(const LoraData *d, LlmCompute *compute, const char *isa,
				 const LlmStepInputs *step, const int32_t *token_ids)
{
	const LoraCase *c = d->c;
	int dim = c->n_out[0];
	int64_t n = (int64_t) c->n_rows * dim;
	Tensor table = tensor_random((int64_t) c->n_cols * dim, c->dtype, 1.0f, 0);
	double *expected = need((size_t) n * sizeof(double));
	float *out = need((size_t) n * sizeof(float));
	LlmEmbedArgs args = {
		.table = { table.data, c->dtype, c->n_cols, dim },
		.token_ids = token_ids,
		.out = out,
		.n_rows = c->n_rows,
		.scale = EMBED_SCALE,
		.lora = { step, FIRST_MODULE, false },
	};
	LlmError err = { 0 };

	CHECK(compute->ops->embed(compute, &args, &err));
	for (int64_t i = 0; i < n; i++)
	{
		int row = (int) (i / dim);
		int o = (int) (i % dim);
		int lora = d->token_lora[row];
		const Adapter *adapter = lora >= 0 ? &d->adapters[lora] : NULL;
		int rank = adapter != NULL ? adapter->shapes[FIRST_MODULE].rank : 0;
		double sum = table.value[token_ids[row] * dim + o];

		for (int r = 0; r < rank; r++)
			sum += (double) adapter->down[0][r * c->n_cols + token_ids[row]] *
				   (double) adapter->up[0][o * rank + r];
		expected[i] = sum * (double) EMBED_SCALE;
	}
	CHECK_NMSE(out, expected, n, F32_NMSE,
			   "%s embedding of %d tokens, %d rows, %d adapters of rank %d",
			   isa, c->n_cols, c->n_rows, c->n_loras, c->max_rank);
	free(out);
	free(expected);
	tensor_free(&table);
}

static void
test_embeddings(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const LoraCase *c = &cases[i];

		if (c->has_gains || c->of_logit_rows)
			continue;
		FOR_EACH_PATH(c->dtype, 1 + (int) i % 3)
		{
			bool is_cuda = strcmp(isa, "cuda") == 0;
			LoraData *d = setup(c, &compute->lora_format);
			int32_t *token_ids = need((size_t) c->n_rows * sizeof(int32_t));
			LlmStepInputs step;
			LlmError err = { 0 };

			for (int row = 0; row < c->n_rows; row++)
				token_ids[row] = random_int(0, c->n_cols - 1);
			d->step.token_ids = token_ids;
			upload_images(compute, d, is_cuda);
			CHECK(compute->ops->step_upload(compute, &d->step, &step, &err));
			check_embeddings(d, compute, isa, &step, token_ids);
			free_images(compute, d, is_cuda);
			tear_down(d);
			free(token_ids);
		}
	}
}

/* A row alone has the bits that it has among others, with any threads. */
static void
check_alone(const LoraCase *c, const char *isa)
{
	LlmCompute *compute = test_open(isa, c->dtype, 1);
	LlmCompute *threaded = test_open(isa, c->dtype, 3);
	LlmError err = { 0 };
	LoraData *d;
	LlmLinearArgs args;
	float *whole;
	size_t n_bytes;

	if (compute == NULL)
		return;
	d = setup(c, &compute->lora_format);
	args = linear_args(d, &d->step);
	n_bytes = (size_t) (c->n_rows * d->stride[0]) * sizeof(float);
	whole = need(n_bytes);
	CHECK(threaded->ops->linear(threaded, &args, &err));
	memcpy(whole, d->out[0], n_bytes);
	for (int row = 0; row < c->n_rows; row += 3)
	{
		LlmStepInputs step = d->step;
		int32_t token_lora[1] = { adapter_of(d, row) };
		const void *loras[1] = { NULL };

		if (token_lora[0] >= 0)
		{
			loras[0] = d->loras[token_lora[0]];
			token_lora[0] = 0;
		}
		step.n_tokens = step.n_logit_rows = step.n_loras = 1;
		step.token_lora = token_lora;
		step.loras = loras;
		args.lora.step = &step;
		args.lora.of_logit_rows = false;
		args.n_rows = 1;
		args.x = d->x + row * c->n_cols;
		CHECK(compute->ops->linear(compute, &args, &err));
		if (memcmp(whole + row * d->stride[0], d->out[0],
				   (size_t) c->n_out[0] * sizeof(float)) != 0)
			CHECK_FAIL("%s: row %d of %d alone differs", isa, row, c->n_rows);
	}
	free(whole);
	tear_down(d);
	compute->ops->close(compute);
	threaded->ops->close(threaded);
}

static void
test_company(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		for (int isa = 0; isa < N_ISAS; isa++)
			check_alone(&cases[i], isa_names[isa]);
	}
}

/* A step in which no token has an adapter is the base model's, bit by bit. */
static void
test_none(void)
{
	static const LoraCase c = { 9, 64, { 32, 16, 16 }, 2, 8, BF16 };

	FOR_EACH_ISA(BF16, 2)
	{
		LoraData *d = setup(&c, &compute->lora_format);
		LlmLinearArgs args = linear_args(d, NULL);
		size_t n_bytes = (size_t) (c.n_rows * d->stride[0]) * sizeof(float);
		float *base = need(n_bytes);
		LlmError err = { 0 };

		CHECK(compute->ops->linear(compute, &args, &err));
		memcpy(base, d->out[0], n_bytes);
		for (int i = 0; i < c.n_rows; i++)
			d->token_lora[i] = -1;
		args.lora.step = &d->step;
		CHECK(compute->ops->linear(compute, &args, &err));
		CHECK(memcmp(base, d->out[0], n_bytes) == 0);
		/* and one adapter changes its own rows alone */
		d->token_lora[4] = 1;
		CHECK(compute->ops->linear(compute, &args, &err));
		for (int row = 0; row < c.n_rows; row++)
		{
			const float *now = d->out[0] + row * d->stride[0];

			CHECK((memcmp(base + row * d->stride[0], now,
						  (size_t) d->stride[0] * sizeof(float)) == 0) ==
				  (row != 4));
		}
		free(base);
		tear_down(d);
	}
}

/* ---- the activation that completes gate and up, on a GPU ---- */

static void *
device_bytes(LlmCompute *gpu, const void *host, size_t n_bytes)
{
	LlmError err = { 0 };
	void *device = gpu->ops->alloc(gpu, n_bytes, "numbers", &err);

	if (device == NULL || !gpu->ops->write(gpu, device, host, n_bytes, &err) ||
		!gpu->ops->sync(gpu, &err))
		abort();
	return device;
}

/* Products and activation of d on the device, with or without a wait between. */
static void
activate_on_gpu(LlmCompute *gpu, LoraData *d, bool waits, uint16_t *result)
{
	const LoraCase *c = d->c;
	int64_t dim = c->n_out[0];
	size_t n = (size_t) (c->n_rows * dim);
	LlmStepInputs step = { 0 };
	LlmLinearArgs args = linear_args(d, &step);
	LlmGatedActArgs act = { .in_stride = 2 * dim,
							.n_rows = c->n_rows,
							.dim = (int32_t) dim,
							.activation = LLM_ACTIVATION_SILU };
	LlmError err = { 0 };
	char *out = gpu->ops->alloc(gpu, 2 * n * 2, "gate and up", &err);
	uint16_t *bits;
	void *x;

	act.out = gpu->ops->alloc(gpu, n * 2, "activations", &err);
	if (out == NULL || act.out == NULL)
		abort();
	bits = mirror_round(d->x, (int64_t) c->n_rows * c->n_cols);
	x = device_bytes(gpu, bits, (size_t) (c->n_rows * c->n_cols) * 2);
	act.gate = out;
	act.up = out + dim * 2;
	args.x = x;
	for (int p = 0; p < 2; p++)
	{
		args.part[p].weight.data = device_bytes(
			gpu, d->weight[p].data, (size_t) (c->n_out[p] * c->n_cols) * 2);
		args.part[p].out = out + p * dim * 2;
		args.part[p].out_stride = 2 * dim;
	}
	CHECK(gpu->ops->step_upload(gpu, &d->step, &step, &err) &&
		  gpu->ops->linear(gpu, &args, &err) &&
		  (!waits || gpu->ops->sync(gpu, &err)) &&
		  gpu->ops->gated_act(gpu, &act, &err) &&
		  gpu->ops->read(gpu, result, act.out, n * 2, &err));
	for (int p = 0; p < 2; p++)
		gpu->ops->free(gpu, (void *) args.part[p].weight.data);
	gpu->ops->free(gpu, x);
	gpu->ops->free(gpu, out);
	gpu->ops->free(gpu, act.out);
	free(bits);
}

/* Together they have the bits that they have one after the other. */
static void
activation_completes_products(void)
{
	static const LoraCase pairs[] = {
		{ 100, 256, { 320, 320, 0 }, 7, 32, BF16, true, false, false, false },
		{ 5, 128, { 64, 64, 0 }, 3, 16, BF16, false, false, false, false },
		{ 64, 512, { 704, 704, 0 }, 64, 16, BF16, false, false, true, false },
	};
	LlmComputeOptions options = { .precision = BF16,
								  .max_rows = 256,
								  .max_cols = 1024,
								  .max_seqs = 64,
								  .max_context_len = 1024,
								  .max_heads = 8,
								  .max_vocab = 512,
								  .max_loras = MAX_LORAS,
								  .max_lora_rank = 64,
								  .enforce_eager = true };
	LlmError err = { 0 };
	LlmCompute *gpu = llm_compute_cuda_load(&options, &err);

	if (gpu == NULL && err.code == LLM_ERROR_UNAVAILABLE)
		return; /* FOR_EACH_PATH says so */
	if (gpu == NULL)
	{
		CHECK_FAIL("%s", err.message);
		return;
	}
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		const LoraCase *c = &pairs[i];
		LoraData *d = setup(c, &gpu->lora_format);
		size_t n_bytes = (size_t) (c->n_rows * c->n_out[0]) * 2;
		uint16_t *together = need(n_bytes);
		uint16_t *apart = need(n_bytes);

		for (int k = 0; k < c->n_loras; k++)
			d->loras[k] = device_bytes(
				gpu, d->adapters[k].image,
				llm_lora_image_bytes(&gpu->lora_format, d->adapters[k].shapes,
									 FIRST_MODULE + d->n_parts));
		activate_on_gpu(gpu, d, false, together);
		activate_on_gpu(gpu, d, true, apart);
		if (memcmp(together, apart, n_bytes) != 0)
			CHECK_FAIL("%d rows of %d, %d adapters: bits differ", c->n_rows,
					   c->n_out[0], c->n_loras);
		for (int k = 0; k < c->n_loras; k++)
			gpu->ops->free(gpu, (void *) d->loras[k]);
		free(together);
		free(apart);
		tear_down(d);
	}
	gpu->ops->close(gpu);
}

int
main(void)
{
	RUN_TEST(skip_missing_isas);
	RUN_TEST(test_values);
	RUN_TEST(test_embeddings);
	RUN_TEST(test_company);
	RUN_TEST(test_none);
	RUN_TEST(activation_completes_products);
	return unit_test_finish();
}
