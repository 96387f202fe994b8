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
#include "src/engine/compute/compute_train.h"
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

typedef bool (*MirrorLinear)(LlmCompute *, const LlmLinearArgs *, LlmError *);

static inline bool
mirror_linear_by(LlmCompute *compute, const LlmLinearArgs *host,
				 MirrorLinear linear, LlmError *err)
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
	ok = linear(mirrored(compute), &args, err);
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

static inline bool
mirror_linear(LlmCompute *compute, const LlmLinearArgs *host, LlmError *err)
{
	return mirror_linear_by(compute, host, mirrored(compute)->ops->linear, err);
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

/* ---- the operations of training ---- */

static inline const LlmTrainOps *
mirrored_train(LlmCompute *compute)
{
	return mirrored(compute)->ops->train;
}

static inline void *
mirror_floats(LlmCompute *compute, const void *host, int64_t n)
{
	return host == NULL ? NULL : mirror_bytes(compute, host, (size_t) n * 4);
}

static inline bool
mirror_train_linear(LlmCompute *compute, const LlmLinearArgs *host,
					LlmError *err)
{
	return mirror_linear_by(compute, host, mirrored_train(compute)->linear,
							err);
}

/* [n_rows, n_cols] as the product sees it; f32 becomes bf16. */
static inline LlmOperand
mirror_operand(LlmCompute *compute, LlmOperand operand, int64_t n_rows,
			   int64_t n_cols)
{
	int64_t n = operand.is_transposed ? (n_cols - 1) * operand.stride + n_rows
									  : (n_rows - 1) * operand.stride + n_cols;

	operand.data = operand.dtype == LLM_DTYPE_F32
					   ? mirror_in(compute, operand.data, n)
					   : mirror_bytes(compute, operand.data, (size_t) n * 2);
	if (operand.dtype == LLM_DTYPE_F32)
		operand.dtype = LLM_DTYPE_BF16;
	return operand;
}

/* An out_dtype of bf16 is f32 at home, as activations are. */
static inline bool
mirror_product(LlmCompute *compute, const LlmProductArgs *host, LlmError *err)
{
	LlmProductArgs args = *host;
	int64_t n = (args.m - 1) * args.out_stride + args.n;
	bool is_act = args.out_dtype == LLM_DTYPE_BF16;
	bool ok;

	args.a = mirror_operand(compute, args.a, args.m, args.k);
	args.b = mirror_operand(compute, args.b, args.k, args.n);
	args.out = is_act ? mirror_in(compute, host->out, n)
					  : mirror_floats(compute, host->out, n);
	ok = mirrored_train(compute)->product(mirrored(compute), &args, err);
	if (is_act)
		mirror_out(compute, host->out, args.out, n);
	else
		mirror_floats_out(compute, host->out, args.out, n);
	mirror_free(compute, args.a.data);
	mirror_free(compute, args.b.data);
	return ok;
}

static inline bool
mirror_add(LlmCompute *compute, const LlmAddArgs *host, LlmError *err)
{
	LlmAddArgs args = *host;
	bool ok;

	args.a = mirror_in(compute, host->a, args.n);
	args.b = mirror_in(compute, host->b, args.n);
	args.out = mirror_in(compute, host->out, args.n);
	ok = mirrored_train(compute)->add(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, args.n);
	mirror_free(compute, args.a);
	mirror_free(compute, args.b);
	return ok;
}

static inline bool
mirror_rms_norm_back(LlmCompute *compute, const LlmRmsNormBackArgs *host,
					 LlmError *err)
{
	LlmRmsNormBackArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.dim;
	bool is_in_place = host->d_y == host->d_x;
	bool ok;

	args.x = mirror_in(compute, host->x, n);
	args.d_y = mirror_in(compute, host->d_y, n);
	args.weight = mirror_vector(compute, args.weight);
	args.d_x =
		is_in_place ? (void *) args.d_y : mirror_in(compute, host->d_x, n);
	ok = mirrored_train(compute)->rms_norm_back(mirrored(compute), &args, err);
	mirror_out(compute, host->d_x, args.d_x, n);
	mirror_free(compute, args.x);
	mirror_free(compute, args.weight.data);
	if (!is_in_place)
		mirror_free(compute, args.d_y);
	return ok;
}

static inline bool
mirror_rotate(LlmCompute *compute, const LlmRotateArgs *host, LlmError *err)
{
	LlmRotateArgs args = *host;
	int64_t n = (int64_t) args.n_tokens * args.n_heads * args.head_dim;
	int32_t last = 0;
	bool ok;

	for (int32_t i = 0; i < args.n_tokens; i++)
		last = host->rope_rows[i] > last ? host->rope_rows[i] : last;
	args.x = mirror_in(compute, host->x, n);
	args.cos_sin = mirror_floats(compute, host->cos_sin,
								 (int64_t) (last + 1) * args.rotary_dim);
	args.rope_rows = mirror_floats(compute, host->rope_rows, args.n_tokens);
	ok = mirrored_train(compute)->rotate(mirrored(compute), &args, err);
	mirror_out(compute, host->x, args.x, n);
	mirror_free(compute, args.cos_sin);
	mirror_free(compute, args.rope_rows);
	return ok;
}

/* What attention reads, to the device; out and log_sums, too. */
static inline LlmSegmentAttentionArgs
mirror_segments(LlmCompute *compute, const LlmSegmentAttentionArgs *host)
{
	LlmSegmentAttentionArgs args = *host;
	int64_t n_q = (int64_t) args.n_tokens * args.n_heads * args.head_dim;
	int64_t n_kv = (int64_t) args.n_tokens * args.n_kv_heads * args.head_dim;

	args.q = mirror_in(compute, host->q, n_q);
	args.k = mirror_in(compute, host->k, n_kv);
	args.v = mirror_in(compute, host->v, n_kv);
	args.segment_start =
		mirror_floats(compute, host->segment_start, args.n_tokens);
	args.segment_end = mirror_floats(compute, host->segment_end, args.n_tokens);
	args.out = mirror_in(compute, host->out, n_q);
	args.log_sums = mirror_floats(compute, host->log_sums,
								  (int64_t) args.n_heads * args.n_tokens);
	return args;
}

static inline void
mirror_segments_free(LlmCompute *compute, const LlmSegmentAttentionArgs *args)
{
	mirror_free(compute, args->q);
	mirror_free(compute, args->k);
	mirror_free(compute, args->v);
	mirror_free(compute, args->segment_start);
	mirror_free(compute, args->segment_end);
}

static inline bool
mirror_segment_attention(LlmCompute *compute,
						 const LlmSegmentAttentionArgs *host, LlmError *err)
{
	LlmSegmentAttentionArgs args = mirror_segments(compute, host);
	bool ok = mirrored_train(compute)->attention(mirrored(compute), &args, err);

	mirror_out(compute, host->out, args.out,
			   (int64_t) args.n_tokens * args.n_heads * args.head_dim);
	mirror_floats_out(compute, host->log_sums, args.log_sums,
					  (int64_t) args.n_heads * args.n_tokens);
	mirror_segments_free(compute, &args);
	return ok;
}

static inline bool
mirror_segment_attention_back(LlmCompute *compute,
							  const LlmSegmentAttentionBackArgs *host,
							  LlmError *err)
{
	LlmSegmentAttentionBackArgs args = *host;
	const LlmSegmentAttentionArgs *forward = &host->forward;
	int64_t n_sums = (int64_t) forward->n_tokens * forward->n_heads;
	int64_t n_q = n_sums * forward->head_dim;
	int64_t n_kv =
		(int64_t) forward->n_tokens * forward->n_kv_heads * forward->head_dim;
	bool ok;

	args.forward = mirror_segments(compute, forward);
	args.d_out = mirror_in(compute, host->d_out, n_q);
	args.d_q = mirror_in(compute, host->d_q, n_q);
	args.d_k = mirror_in(compute, host->d_k, n_kv);
	args.d_v = mirror_in(compute, host->d_v, n_kv);
	args.d_out_sums = mirror_floats(compute, host->d_out_sums, n_sums);
	ok = mirrored_train(compute)->attention_back(mirrored(compute), &args, err);
	mirror_out(compute, host->d_q, args.d_q, n_q);
	mirror_out(compute, host->d_k, args.d_k, n_kv);
	mirror_out(compute, host->d_v, args.d_v, n_kv);
	mirror_free(compute, args.d_out);
	mirror_free(compute, args.d_out_sums);
	mirror_free(compute, args.forward.out);
	mirror_free(compute, args.forward.log_sums);
	mirror_segments_free(compute, &args.forward);
	return ok;
}

static inline bool
mirror_gated_act_back(LlmCompute *compute, const LlmGatedActBackArgs *host,
					  LlmError *err)
{
	LlmGatedActBackArgs args = *host;
	bool ok;

	args.gate = mirror_in(compute, host->gate, args.n);
	args.up = mirror_in(compute, host->up, args.n);
	args.d_out = mirror_in(compute, host->d_out, args.n);
	args.d_gate = host->d_gate == host->gate
					  ? (void *) args.gate
					  : mirror_in(compute, host->d_gate, args.n);
	args.d_up = host->d_up == host->up ? (void *) args.up
									   : mirror_in(compute, host->d_up, args.n);
	ok = mirrored_train(compute)->gated_act_back(mirrored(compute), &args, err);
	mirror_out(compute, host->d_gate, args.d_gate, args.n);
	mirror_out(compute, host->d_up, args.d_up, args.n);
	mirror_free(compute, args.d_out);
	if (host->d_gate != host->gate)
		mirror_free(compute, args.gate);
	if (host->d_up != host->up)
		mirror_free(compute, args.up);
	return ok;
}

/* Derivatives are apart from the logits there, and in their place here. */
static inline bool
mirror_cross_entropy(LlmCompute *compute, const LlmCrossEntropyArgs *host,
					 LlmError *err)
{
	LlmCrossEntropyArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.n_vocab;
	bool ok;

	args.logits = mirror_floats(compute, host->logits, n);
	args.labels = mirror_floats(compute, host->labels, args.n_rows);
	args.weights = mirror_floats(compute, host->weights, args.n_rows);
	args.log_probs = mirror_floats(compute, host->log_probs, args.n_rows);
	args.d_logits = mirror_in(compute, host->d_logits, n);
	ok = mirrored_train(compute)->cross_entropy(mirrored(compute), &args, err);
	mirror_out(compute, host->d_logits, args.d_logits, n);
	mirror_floats_out(compute, host->log_probs, args.log_probs, args.n_rows);
	mirror_free(compute, args.logits);
	mirror_free(compute, args.labels);
	mirror_free(compute, args.weights);
	return ok;
}

static inline bool
mirror_scatter(LlmCompute *compute, const LlmScatterArgs *host, LlmError *err)
{
	LlmScatterArgs args = *host;
	int64_t n_out = (int64_t) args.n_out_rows * args.dim;
	bool ok;

	args.x = mirror_in(compute, host->x, (int64_t) args.n_rows * args.dim);
	args.rows = mirror_floats(compute, host->rows, args.n_rows);
	args.out = mirror_in(compute, host->out, n_out);
	ok = mirrored_train(compute)->scatter(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, n_out);
	mirror_free(compute, args.x);
	mirror_free(compute, args.rows);
	return ok;
}

static inline bool
mirror_dropout(LlmCompute *compute, const LlmDropoutArgs *host, LlmError *err)
{
	LlmDropoutArgs args = *host;
	bool ok;

	args.x = mirror_in(compute, host->x, args.n);
	args.out = mirror_in(compute, host->out, args.n);
	ok = mirrored_train(compute)->dropout(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, args.n);
	mirror_free(compute, args.x);
	return ok;
}

static inline bool
mirror_noise(LlmCompute *compute, const LlmNoiseArgs *host, LlmError *err)
{
	LlmNoiseArgs args = *host;
	bool ok;

	args.x = mirror_in(compute, host->x, args.n);
	ok = mirrored_train(compute)->noise(mirrored(compute), &args, err);
	mirror_out(compute, host->x, args.x, args.n);
	return ok;
}

static inline bool
mirror_scale_columns(LlmCompute *compute, const LlmScaleColumnsArgs *host,
					 LlmError *err)
{
	LlmScaleColumnsArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.dim;
	bool ok;

	args.x = mirror_in(compute, host->x, n);
	args.scales = mirror_floats(compute, host->scales, args.dim);
	args.bias = mirror_vector(compute, args.bias);
	args.out = mirror_in(compute, host->out, n);
	ok = mirrored_train(compute)->scale_columns(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, n);
	mirror_free(compute, args.x);
	mirror_free(compute, args.scales);
	mirror_free(compute, args.bias.data);
	return ok;
}

static inline bool
mirror_column_dots(LlmCompute *compute, const LlmColumnDotsArgs *host,
				   LlmError *err)
{
	LlmColumnDotsArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.dim;
	bool ok;

	args.a = mirror_in(compute, host->a, n);
	args.b = mirror_in(compute, host->b, n);
	args.divisors = mirror_floats(compute, host->divisors, args.dim);
	args.out = mirror_floats(compute, host->out, args.dim);
	ok = mirrored_train(compute)->column_dots(mirrored(compute), &args, err);
	mirror_floats_out(compute, host->out, args.out, args.dim);
	mirror_free(compute, args.a);
	mirror_free(compute, args.b);
	mirror_free(compute, args.divisors);
	return ok;
}

static inline bool
mirror_row_squares(LlmCompute *compute, const LlmRowSquaresArgs *host,
				   LlmError *err)
{
	LlmRowSquaresArgs args = *host;
	bool ok;

	args.weight = mirror_matrix(compute, args.weight);
	args.out = mirror_floats(compute, host->out, args.weight.n_rows);
	ok = mirrored_train(compute)->row_squares(mirrored(compute), &args, err);
	mirror_floats_out(compute, host->out, args.out, args.weight.n_rows);
	mirror_free(compute, args.weight.data);
	return ok;
}

static inline bool
mirror_adapted_norms(LlmCompute *compute, const LlmAdaptedNormsArgs *host,
					 LlmError *err)
{
	LlmAdaptedNormsArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.rank;
	bool ok;

	args.weight_squares =
		mirror_floats(compute, host->weight_squares, args.n_rows);
	args.b = mirror_floats(compute, host->b, n);
	args.wa = mirror_floats(compute, host->wa, n);
	args.aa = mirror_floats(compute, host->aa, (int64_t) args.rank * args.rank);
	args.out = mirror_floats(compute, host->out, args.n_rows);
	ok = mirrored_train(compute)->adapted_norms(mirrored(compute), &args, err);
	mirror_floats_out(compute, host->out, args.out, args.n_rows);
	mirror_free(compute, args.weight_squares);
	mirror_free(compute, args.b);
	mirror_free(compute, args.wa);
	mirror_free(compute, args.aa);
	return ok;
}

/* Both come back as they are, f32 or 16 bits. */
static inline bool
mirror_decode_nf4(LlmCompute *compute, const LlmNf4Args *host, LlmError *err)
{
	LlmNf4Args args = *host;
	int64_t n_blocks = (args.n + 63) / 64;
	size_t n_bytes = (size_t) args.n * llm_dtype_bytes(args.out_dtype);
	bool is_nested = host->scale_codes != NULL;
	bool ok;

	args.codes = mirror_floats(compute, host->codes, 16);
	args.map = mirror_floats(compute, host->map, 256);
	args.offset = mirror_floats(compute, host->offset, 1);
	args.scales = mirror_floats(compute, host->scales,
								is_nested ? (n_blocks + 255) / 256 : n_blocks);
	if (is_nested)
		args.scale_codes =
			mirror_bytes(compute, host->scale_codes, (size_t) n_blocks);
	args.values =
		mirror_bytes(compute, host->values, (size_t) (args.n + 1) / 2);
	args.out = mirror_alloc(compute, n_bytes);
	ok = mirrored_train(compute)->decode_nf4(mirrored(compute), &args, err) &&
		 mirrored(compute)->ops->read(mirrored(compute), host->out, args.out,
									  n_bytes, err);
	mirror_free(compute, args.codes);
	mirror_free(compute, args.map);
	mirror_free(compute, args.offset);
	mirror_free(compute, args.scales);
	mirror_free(compute, args.scale_codes);
	mirror_free(compute, args.values);
	mirror_free(compute, args.out);
	return ok;
}

static inline bool
mirror_combine(LlmCompute *compute, const LlmCombineArgs *host, LlmError *err)
{
	LlmCombineArgs args = *host;
	int64_t n_visits = (int64_t) args.n_rows * args.n_entries;
	int64_t n_out = (int64_t) args.n_rows * args.dim;
	int32_t last = 0;
	bool ok;

	for (int64_t i = 0; i < n_visits; i++)
		last = host->entries[i] > last ? host->entries[i] : last;
	args.x = mirror_in(compute, host->x, (int64_t) (last + 1) * args.dim);
	args.entries = mirror_floats(compute, host->entries, n_visits);
	args.factors = mirror_floats(compute, host->factors, last + 1);
	args.out = mirror_in(compute, host->out, n_out);
	ok = mirrored_train(compute)->combine(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, n_out);
	mirror_free(compute, args.x);
	mirror_free(compute, args.entries);
	mirror_free(compute, args.factors);
	return ok;
}

static inline bool
mirror_row_dots(LlmCompute *compute, const LlmRowDotsArgs *host, LlmError *err)
{
	LlmRowDotsArgs args = *host;
	int64_t n = (int64_t) args.n_rows * args.dim;
	bool ok;

	args.a = mirror_in(compute, host->a, n);
	args.b = mirror_in(compute, host->b, n);
	args.out = mirror_floats(compute, host->out, args.n_rows);
	ok = mirrored_train(compute)->row_dots(mirrored(compute), &args, err);
	mirror_floats_out(compute, host->out, args.out, args.n_rows);
	mirror_free(compute, args.a);
	mirror_free(compute, args.b);
	return ok;
}

static inline bool
mirror_divide(LlmCompute *compute, const LlmDivideArgs *host, LlmError *err)
{
	LlmDivideArgs args = *host;
	bool ok;

	args.a = mirror_floats(compute, host->a, args.n);
	args.b = mirror_floats(compute, host->b, args.n);
	args.out = mirror_floats(compute, host->out, args.n);
	ok = mirrored_train(compute)->divide(mirrored(compute), &args, err);
	mirror_floats_out(compute, host->out, args.out, args.n);
	mirror_free(compute, args.a);
	mirror_free(compute, args.b);
	return ok;
}

static inline bool
mirror_round_values(LlmCompute *compute, const LlmRoundArgs *host,
					LlmError *err)
{
	LlmRoundArgs args = *host;
	bool ok;

	args.x = mirror_floats(compute, host->x, args.n);
	args.out = mirror_in(compute, host->out, args.n);
	ok = mirrored_train(compute)->round(mirrored(compute), &args, err);
	mirror_out(compute, host->out, args.out, args.n);
	mirror_free(compute, args.x);
	return ok;
}

static inline bool
mirror_adamw(LlmCompute *compute, const LlmAdamwArgs *host, LlmError *err)
{
	LlmAdamwArgs args = *host;
	bool ok;

	args.p = mirror_floats(compute, host->p, args.n);
	args.d_p = mirror_floats(compute, host->d_p, args.n);
	args.m = mirror_floats(compute, host->m, args.n);
	args.v = mirror_floats(compute, host->v, args.n);
	ok = mirrored_train(compute)->adamw(mirrored(compute), &args, err);
	mirror_floats_out(compute, host->p, args.p, args.n);
	mirror_floats_out(compute, host->m, args.m, args.n);
	mirror_floats_out(compute, host->v, args.v, args.n);
	mirror_free(compute, args.d_p);
	return ok;
}

static inline bool
mirror_sum_squares(LlmCompute *compute, const float *x, int64_t n, double *sum,
				   LlmError *err)
{
	float *device = mirror_floats(compute, x, n);
	bool ok = mirrored_train(compute)->sum_squares(mirrored(compute), device, n,
												   sum, err);

	mirror_free(compute, device);
	return ok;
}

static const LlmTrainOps mirror_train = {
	.linear = mirror_train_linear,
	.product = mirror_product,
	.add = mirror_add,
	.rms_norm_back = mirror_rms_norm_back,
	.rotate = mirror_rotate,
	.attention = mirror_segment_attention,
	.attention_back = mirror_segment_attention_back,
	.gated_act_back = mirror_gated_act_back,
	.cross_entropy = mirror_cross_entropy,
	.scatter = mirror_scatter,
	.dropout = mirror_dropout,
	.noise = mirror_noise,
	.scale_columns = mirror_scale_columns,
	.column_dots = mirror_column_dots,
	.row_squares = mirror_row_squares,
	.adapted_norms = mirror_adapted_norms,
	.decode_nf4 = mirror_decode_nf4,
	.divide = mirror_divide,
	.combine = mirror_combine,
	.row_dots = mirror_row_dots,
	.round = mirror_round_values,
	.adamw = mirror_adamw,
	.sum_squares = mirror_sum_squares,
};

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
	ops.train = &mirror_train;
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
