/*
 * cuda_mirror.h
 *	  The CUDA backend behind an interface of f32 activations in host memory,
 *	  so that the tests written for the CPU run on it as they are.
 *
 * Each operation brings its inputs to the device, rounded to bf16, runs, waits
 * and brings its outputs back.  An output that the device left alone keeps the
 * host's value.
 *
 * test/ops/cuda_mirror.h
 */
#ifndef LLM_CUDA_MIRROR_H
#define LLM_CUDA_MIRROR_H

#include "src/common/util/half_float.h"
#include "src/engine/compute/compute.h"
#include "test/unit/unit_test.h"

typedef struct Mirror
{
	LlmCompute base;
	LlmCompute *cuda;
	LlmStepInputs step; /* of the last step_upload; host arrays */
	int32_t max_rope_row;
} Mirror;

static inline LlmCompute *
mirrored(LlmCompute *compute)
{
	return ((Mirror *) compute)->cuda;
}

/* A test cannot go on when the device does not. */
static inline void
mirror_need(bool ok, const LlmError *err)
{
	if (ok)
		return;
	fprintf(stderr, "CUDA: %s\n", err->message);
	abort();
}

static inline void *
mirror_alloc(LlmCompute *compute, size_t n_bytes)
{
	LlmError err = { 0 };
	void *device = mirrored(compute)->ops->alloc(
		mirrored(compute), n_bytes == 0 ? 1 : n_bytes, "a test", &err);

	mirror_need(device != NULL, &err);
	return device;
}

static inline void *
mirror_bytes(LlmCompute *compute, const void *host, size_t n_bytes)
{
	LlmError err = { 0 };
	void *device = mirror_alloc(compute, n_bytes);

	mirror_need(n_bytes == 0 ||
					mirrored(compute)->ops->write(mirrored(compute), device,
												  host, n_bytes, &err),
				&err);
	mirror_need(mirrored(compute)->ops->sync(mirrored(compute), &err), &err);
	return device;
}

static inline void
mirror_free(LlmCompute *compute, const void *device)
{
	mirrored(compute)->ops->free(mirrored(compute), (void *) device);
}

static inline uint16_t *
mirror_round(const float *host, int64_t n)
{
	uint16_t *bits = malloc((size_t) n * 2 + 2);

	if (bits == NULL)
		abort();
	for (int64_t i = 0; i < n; i++)
		bits[i] = llm_float_to_bf16(host[i]);
	return bits;
}

/* Activations to the device. */
static inline void *
mirror_in(LlmCompute *compute, const void *host, int64_t n)
{
	uint16_t *bits;
	void *device;

	if (host == NULL)
		return NULL;
	bits = mirror_round(host, n);
	device = mirror_bytes(compute, bits, (size_t) n * 2);
	free(bits);
	return device;
}

/* Activations back, those that changed; the device's copy is freed. */
static inline void
mirror_out(LlmCompute *compute, void *host, void *device, int64_t n)
{
	float *values = host;
	uint16_t *before;
	uint16_t *after;
	LlmError err = { 0 };

	if (host == NULL)
		return;
	before = mirror_round(values, n);
	after = malloc((size_t) n * 2 + 2);
	if (after == NULL)
		abort();
	mirror_need(mirrored(compute)->ops->read(mirrored(compute), after, device,
											 (size_t) n * 2, &err),
				&err);
	for (int64_t i = 0; i < n; i++)
		if (after[i] != before[i])
			values[i] = llm_bf16_to_float(after[i]);
	free(before);
	free(after);
	mirror_free(compute, device);
}

/* f32 in and out, as logits are */
static inline void
mirror_floats_out(LlmCompute *compute, void *host, void *device, int64_t n)
{
	LlmError err = { 0 };

	mirror_need(mirrored(compute)->ops->read(mirrored(compute), host, device,
											 (size_t) n * 4, &err),
				&err);
	mirror_free(compute, device);
}

static inline LlmVector
mirror_vector(LlmCompute *compute, LlmVector vector)
{
	if (vector.data != NULL)
		vector.data =
			mirror_bytes(compute, vector.data,
						 (size_t) vector.n * llm_dtype_bytes(vector.dtype));
	return vector;
}

static inline LlmMatrix
mirror_matrix(LlmCompute *compute, LlmMatrix matrix)
{
	/* an expert that nobody chose may have none */
	if (matrix.data != NULL)
		matrix.data = mirror_bytes(compute, matrix.data,
								   (size_t) (matrix.n_rows * matrix.n_cols) *
									   llm_dtype_bytes(matrix.dtype));
	return matrix;
}

/* ---- the operations ---- */

static inline void
mirror_close(LlmCompute *compute)
{
	mirrored(compute)->ops->close(mirrored(compute));
	free(compute);
}

static inline LlmKvCache *
mirror_kv_create(LlmCompute *compute, const LlmKvCacheSpec *spec, LlmError *err)
{
	LlmKvCacheSpec own = *spec;

	if (own.dtype == LLM_DTYPE_F32)
		own.dtype = LLM_DTYPE_BF16;
	return mirrored(compute)->ops->kv_create(mirrored(compute), &own, err);
}

static inline bool
mirror_step_upload(LlmCompute *compute, const LlmStepInputs *host,
				   LlmStepInputs *device, LlmError *err)
{
	Mirror *mirror = (Mirror *) compute;

	mirror->step = *host;
	mirror->max_rope_row = 0;
	for (int32_t i = 0; host->rope_rows != NULL && i < host->n_tokens; i++)
		if (host->rope_rows[i] > mirror->max_rope_row)
			mirror->max_rope_row = host->rope_rows[i];
	return mirror->cuda->ops->step_upload(mirror->cuda, host, device, err);
}

static inline bool
mirror_embed(LlmCompute *compute, const LlmEmbedArgs *host, LlmError *err)
{
	LlmEmbedArgs args = *host;
	int64_t n = args.n_rows * args.table.n_cols;
	bool ok;

	args.table = mirror_matrix(compute, args.table);
	args.token_ids =
		mirror_bytes(compute, host->token_ids, (size_t) args.n_rows * 4);
	args.out = mirror_in(compute, host->out, n);
	ok = mirrored(compute)->ops->embed(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, n);
	mirror_free(compute, args.table.data);
	mirror_free(compute, args.token_ids);
	return ok;
}

static inline bool
mirror_gather(LlmCompute *compute, const LlmGatherArgs *host, LlmError *err)
{
	LlmGatherArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.dim;
	int32_t last = 0;
	bool ok;

	for (int32_t i = 0; i < args.n_rows; i++)
		last = host->rows[i] > last ? host->rows[i] : last;
	args.x = mirror_in(compute, host->x, (int64_t) (last + 1) * args.dim);
	args.rows = mirror_bytes(compute, host->rows, (size_t) args.n_rows * 4);
	args.out = mirror_in(compute, host->out, n);
	ok = mirrored(compute)->ops->gather(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, n);
	mirror_free(compute, args.x);
	mirror_free(compute, args.rows);
	return ok;
}

/* The device's sums are f32, whatever its activations are. */
static inline bool
mirror_sum_rows(LlmCompute *compute, const LlmSumRowsArgs *host, LlmError *err)
{
	LlmSumRowsArgs args = *host;
	size_t n_bytes = (size_t) args.n_ranges * (size_t) args.dim * sizeof(float);
	int32_t end = 0;
	bool ok;

	for (int32_t i = 0; i < args.n_ranges; i++)
		if (host->ranges[i].first_row + host->ranges[i].n_rows > end)
			end = host->ranges[i].first_row + host->ranges[i].n_rows;
	args.x = mirror_in(compute, host->x, (int64_t) end * args.dim);
	args.out = mirror_bytes(compute, host->out, n_bytes);
	ok = mirrored(compute)->ops->sum_rows(mirrored(compute), &args, err) &&
		 mirrored(compute)->ops->read(mirrored(compute), host->out, args.out,
									  n_bytes, err);
	mirror_free(compute, args.x);
	mirror_free(compute, args.out);
	return ok;
}

static inline bool
mirror_rms_norm(LlmCompute *compute, const LlmRmsNormArgs *host, LlmError *err)
{
	LlmRmsNormArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.dim;
	bool is_in_place = host->x == host->out;
	bool ok;

	args.x = mirror_in(compute, host->x, n);
	args.residual = mirror_in(compute, host->residual, n);
	args.weight = mirror_vector(compute, args.weight);
	args.out = is_in_place ? (void *) args.x : mirror_in(compute, host->out, n);
	ok = mirrored(compute)->ops->rms_norm(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, n);
	mirror_out(compute, host->residual, args.residual, n);
	mirror_free(compute, args.weight.data);
	if (!is_in_place)
		mirror_free(compute, args.x);
	return ok;
}

static inline bool
mirror_linear(LlmCompute *compute, const LlmLinearArgs *host, LlmError *err)
{
	LlmLinearArgs args = *host;
	int64_t sizes[LLM_LINEAR_MAX_PARTS];
	bool ok;

	args.x =
		mirror_in(compute, host->x, args.n_rows * host->part[0].weight.n_cols);
	for (int i = 0; i < args.n_parts; i++)
	{
		sizes[i] = (args.n_rows - 1) * args.part[i].out_stride +
				   args.part[i].weight.n_rows;
		args.part[i].weight = mirror_matrix(compute, args.part[i].weight);
		args.part[i].bias = mirror_vector(compute, args.part[i].bias);
		args.part[i].out =
			args.out_is_f32 ? mirror_bytes(compute, host->part[i].out,
										   (size_t) sizes[i] * 4)
							: mirror_in(compute, host->part[i].out, sizes[i]);
	}
	ok = mirrored(compute)->ops->linear(mirrored(compute), &args, err);
	for (int i = 0; i < args.n_parts; i++)
	{
		if (args.out_is_f32)
			mirror_floats_out(compute, host->part[i].out, args.part[i].out,
							  sizes[i]);
		else
			mirror_out(compute, host->part[i].out, args.part[i].out, sizes[i]);
		mirror_free(compute, args.part[i].weight.data);
		mirror_free(compute, args.part[i].bias.data);
	}
	mirror_free(compute, args.x);
	return ok;
}

/* q, k and v each with their stride; they may be parts of one buffer. */
static inline bool
mirror_rope_kv(LlmCompute *compute, const LlmRopeKvArgs *host, LlmError *err)
{
	const Mirror *mirror = (const Mirror *) compute;
	LlmRopeKvArgs args = *host;
	int64_t before = mirror->step.n_tokens - 1;
	int64_t kv_dim = (int64_t) args.n_kv_heads * args.head_dim;
	int64_t n_q =
		before * args.q_stride + (int64_t) args.n_heads * args.head_dim;
	bool ok;

	if (before < 0)
		return true;
	args.q = mirror_in(compute, host->q, n_q);
	args.k = mirror_in(compute, host->k, before * args.k_stride + kv_dim);
	args.v = mirror_in(compute, host->v, before * args.v_stride + kv_dim);
	args.q_norm = mirror_vector(compute, args.q_norm);
	args.k_norm = mirror_vector(compute, args.k_norm);
	args.cos_sin = mirror_bytes(compute, host->cos_sin,
								(size_t) (mirror->max_rope_row + 1) *
									(size_t) args.rotary_dim * 4);
	ok = mirrored(compute)->ops->rope_kv(mirrored(compute), &args, err);
	mirror_out(compute, host->q, args.q, n_q);
	mirror_free(compute, args.k);
	mirror_free(compute, args.v);
	mirror_free(compute, args.q_norm.data);
	mirror_free(compute, args.k_norm.data);
	mirror_free(compute, args.cos_sin);
	return ok;
}

static inline bool
mirror_attention(LlmCompute *compute, const LlmAttentionArgs *host,
				 LlmError *err)
{
	const Mirror *mirror = (const Mirror *) compute;
	LlmAttentionArgs args = *host;
	int64_t dim = (int64_t) args.n_heads * args.head_dim;
	int64_t before = mirror->step.n_tokens - 1;
	int64_t n = mirror->step.n_tokens * dim;
	bool ok;

	if (before < 0)
		return true;
	args.q = mirror_in(compute, host->q, before * args.q_stride + dim);
	args.out = mirror_in(compute, host->out, n);
	ok = mirrored(compute)->ops->attention(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, n);
	mirror_free(compute, args.q);
	return ok;
}

static inline bool
mirror_gated_act(LlmCompute *compute, const LlmGatedActArgs *host,
				 LlmError *err)
{
	LlmGatedActArgs args = *host;
	int64_t n_in = (args.n_rows - 1) * args.in_stride + args.dim;
	int64_t n = (int64_t) args.n_rows * args.dim;
	bool ok;

	args.gate = mirror_in(compute, host->gate, n_in);
	args.up = mirror_in(compute, host->up, n_in);
	args.out = mirror_in(compute, host->out, n);
	ok = mirrored(compute)->ops->gated_act(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, n);
	mirror_free(compute, args.gate);
	mirror_free(compute, args.up);
	return ok;
}

static inline bool
mirror_soft_cap(LlmCompute *compute, const LlmSoftCapArgs *host, LlmError *err)
{
	LlmSoftCapArgs args = *host;
	bool ok;

	args.x = mirror_bytes(compute, host->x, (size_t) args.n * 4);
	ok = mirrored(compute)->ops->soft_cap(mirrored(compute), &args, err);
	mirror_floats_out(compute, host->x, args.x, args.n);
	return ok;
}

static inline LlmMatrix *
mirror_experts(LlmCompute *compute, const LlmMatrix *host, int32_t n)
{
	LlmMatrix *list = calloc((size_t) n, sizeof(*list));

	if (list == NULL)
		abort();
	for (int32_t i = 0; i < n; i++)
		list[i] = mirror_matrix(compute, host[i]);
	return list;
}

static inline void
mirror_free_experts(LlmCompute *compute, const LlmMatrix *list, int32_t n)
{
	for (int32_t i = 0; i < n; i++)
		mirror_free(compute, list[i].data);
	free((void *) list);
}

static inline bool
mirror_moe(LlmCompute *compute, const LlmMoeArgs *host, LlmError *err)
{
	LlmMoeArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.dim;
	bool ok;

	args.x = mirror_in(compute, host->x, n);
	args.router_logits =
		mirror_bytes(compute, host->router_logits,
					 (size_t) args.n_rows * (size_t) args.n_experts * 4);
	args.out = mirror_in(compute, host->out, n);
	args.gate = mirror_experts(compute, host->gate, args.n_experts);
	args.up = mirror_experts(compute, host->up, args.n_experts);
	args.down = mirror_experts(compute, host->down, args.n_experts);
	ok = mirrored(compute)->ops->moe(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, n);
	mirror_free(compute, args.x);
	mirror_free(compute, args.router_logits);
	mirror_free_experts(compute, args.gate, args.n_experts);
	mirror_free_experts(compute, args.up, args.n_experts);
	mirror_free_experts(compute, args.down, args.n_experts);
	return ok;
}

/* Waits: results are there when it returns. */
static inline bool
mirror_sample(LlmCompute *compute, const LlmSampleArgs *host, LlmError *err)
{
	LlmSampleArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.n_vocab;
	bool ok;

	args.logits = mirror_bytes(compute, host->logits, (size_t) n * 4);
	ok = mirrored(compute)->ops->sample(mirrored(compute), &args, err) &&
		 mirrored(compute)->ops->sync(mirrored(compute), err);
	mirror_free(compute, args.logits);
	return ok;
}

static inline bool
mirror_sync(LlmCompute *compute, LlmError *err)
{
	return mirrored(compute)->ops->sync(mirrored(compute), err);
}

/* NULL: no GPU here, or it failed (then *err has another code). */
static inline LlmCompute *
mirror_open(const LlmComputeOptions *options, LlmError *err)
{
	static LlmComputeOps ops;
	LlmComputeOptions bf16 = *options;
	Mirror *mirror;
	LlmCompute *cuda;

	bf16.precision = LLM_DTYPE_BF16;
	/* steps as they come: operations are mirrored one by one */
	bf16.enforce_eager = true;
	cuda = llm_compute_cuda_load(&bf16, err);
	if (cuda == NULL)
		return NULL;
	ops = *cuda->ops;
	ops.close = mirror_close;
	ops.kv_create = mirror_kv_create;
	ops.step_upload = mirror_step_upload;
	ops.embed = mirror_embed;
	ops.gather = mirror_gather;
	ops.sum_rows = mirror_sum_rows;
	ops.rms_norm = mirror_rms_norm;
	ops.linear = mirror_linear;
	ops.rope_kv = mirror_rope_kv;
	ops.attention = mirror_attention;
	ops.gated_act = mirror_gated_act;
	ops.soft_cap = mirror_soft_cap;
	ops.moe = mirror_moe;
	ops.sample = mirror_sample;
	ops.sample_wait = mirror_sync;
	ops.sync = mirror_sync;
	mirror = calloc(1, sizeof(*mirror));
	if (mirror == NULL)
		abort();
	mirror->base.ops = &ops;
	mirror->base.activation_dtype = LLM_DTYPE_F32;
	mirror->base.precision = options->precision;
	mirror->base.lora_format = cuda->lora_format;
	mirror->cuda = cuda;
	return &mirror->base;
}

#endif /* LLM_CUDA_MIRROR_H */
