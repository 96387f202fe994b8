/*
 * train_params.c
 *	  The matrices that are trained: how they begin, the optimizer's step,
 *	  and states to go on from.
 *
 * As in PEFT, A begins uniform in +-1/sqrt(n_in) (Kaiming with a = sqrt(5))
 * and B with zeros, so that an adapter begins as nothing; a magnitude begins
 * as the lengths of its weight's rows.
 *
 * src/engine/train/train_params.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/half_float.h"
#include "src/common/util/philox.h"
#include "src/engine/train/train_internal.h"

/* Sequences of random numbers beside dropout's. */
#define INIT_SEQUENCE (UINT64_C(1) << 63)

/* ------------------------------------------------------------------------
 * DoRA
 * ------------------------------------------------------------------------
 */
static bool
weight_of(LlmTrainer *t, const TrainPair *pair, LlmMatrix *weight,
		  LlmError *err)
{
	LlmWeightRole role = llm_adapter_module_weight(pair->spec.module);

	return train_weight(
		t, llm_model_matrix(t->model, role, pair->spec.layer_idx), weight, err);
}

/* norms, from the values as they are */
static bool
compute_norms(LlmTrainer *t, TrainPair *pair, LlmError *err)
{
	LlmMatrix weight;
	const LlmDtype act = t->compute->activation_dtype;
	const void *a = train_act_at(t, t->copies, pair->place.a);
	const int32_t rank = pair->spec.rank;
	LlmProductArgs wa = {
		.b = { a, act, pair->n_in, true },
		.m = pair->n_out,
		.n = rank,
		.k = pair->n_in,
		.scale = 1,
		.out = pair->wa,
		.out_dtype = LLM_DTYPE_F32,
		.out_stride = rank,
	};
	LlmProductArgs aa;
	LlmAdaptedNormsArgs norms = {
		.weight_squares = pair->weight_squares,
		.b = t->values + pair->place.b,
		.wa = pair->wa,
		.aa = pair->aa,
		.out = pair->norms,
		.scale = pair->spec.scale,
		.n_rows = (int32_t) pair->n_out,
		.rank = rank,
	};

	if (!weight_of(t, pair, &weight, err))
		return false;
	wa.a = (LlmOperand){ weight.data, weight.dtype, weight.n_cols, false };
	aa = wa;
	aa.a = (LlmOperand){ a, act, pair->n_in, false };
	aa.m = rank;
	aa.out = pair->aa;
	return t->train->product(t->compute, &wa, err) &&
		   t->train->product(t->compute, &aa, err) &&
		   t->train->adapted_norms(t->compute, &norms, err);
}

/* What products take. */
static bool
copy_values(LlmTrainer *t, LlmError *err)
{
	LlmRoundArgs args = { t->values, t->copies, t->n_values };

	return t->copies == (void *) t->values ||
		   t->train->round(t->compute, &args, err);
}

bool
train_params_refresh(LlmTrainer *t, LlmError *err)
{
	if (!copy_values(t, err))
		return false;
	for (int32_t i = 0; i < t->n_pairs; i++)
	{
		TrainPair *pair = &t->pairs[i];
		LlmDivideArgs divide = {
			.a = t->values + pair->place.magnitude,
			.b = pair->norms,
			.out = pair->column_scales,
			.n = pair->n_out,
		};

		if (pair->spec.has_magnitude &&
			(!compute_norms(t, pair, err) ||
			 !t->train->divide(t->compute, &divide, err)))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Beginning
 * ------------------------------------------------------------------------
 */
static void
draw_a(const LlmTrainer *t, int32_t pair_idx, float *out)
{
	const TrainPair *pair = &t->pairs[pair_idx];
	const float bound = 1 / sqrtf((float) pair->n_in);

	for (int64_t i = 0; i < pair->n_in * pair->spec.rank; i++)
	{
		LlmPhilox draw = llm_philox(t->options.seed, (uint64_t) i / 4,
									INIT_SEQUENCE + (uint64_t) pair_idx);

		out[i] = bound * (2 * llm_philox_unit_float(draw.word[i % 4]) - 1);
	}
}

static void
read_tensor(const LlmStoredTensor *tensor, float *out, int64_t n)
{
	const char *at = tensor->data;

	for (int64_t i = 0; i < n; i++)
	{
		uint16_t half;

		if (tensor->dtype == LLM_DTYPE_F32)
		{
			memcpy(&out[i], at + 4 * i, 4);
			continue;
		}
		memcpy(&half, at + 2 * i, 2);
		out[i] = tensor->dtype == LLM_DTYPE_BF16 ? llm_bf16_to_float(half)
												 : llm_f16_to_float(half);
	}
}

static bool
fill_from_image(LlmTrainer *t, const LlmAdapterImage *image, float *values,
				LlmError *err)
{
	if (image->n_pairs != t->n_pairs)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the adapter to go on from has %d modules, the "
							 "job trains %d",
							 image->n_pairs, t->n_pairs);
	for (int32_t i = 0; i < t->n_pairs; i++)
	{
		const TrainPair *pair = &t->pairs[i];
		const LlmAdapterPair *from = llm_adapter_image_find_expert(
			image, pair->spec.layer_idx, pair->spec.module,
			pair->spec.expert_idx);

		if (from == NULL || from->rank != pair->spec.rank ||
			from->scale != pair->spec.scale ||
			(from->magnitude != NULL) != pair->spec.has_magnitude)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "module %s of layer %d of the adapter to go "
								 "on from differs from what the job trains",
								 llm_adapter_module_name(pair->spec.module),
								 pair->spec.layer_idx);
		read_tensor(from->a, values + pair->place.a,
					pair->n_in * pair->spec.rank);
		read_tensor(from->b, values + pair->place.b,
					pair->n_out * pair->spec.rank);
		if (from->magnitude != NULL)
			read_tensor(from->magnitude, values + pair->place.magnitude,
						pair->n_out);
	}
	return true;
}

/* The lengths of DoRA's weights; magnitudes begin as these. */
static bool
init_magnitudes(LlmTrainer *t, bool has_values, LlmError *err)
{
	for (int32_t i = 0; i < t->n_pairs; i++)
	{
		TrainPair *pair = &t->pairs[i];
		LlmRowSquaresArgs squares = { .out = pair->weight_squares };

		if (!pair->spec.has_magnitude)
			continue;
		if (!weight_of(t, pair, &squares.weight, err) ||
			!t->train->row_squares(t->compute, &squares, err) ||
			!compute_norms(t, pair, err))
			return false;
		if (!has_values &&
			!t->train->copy(t->compute, t->values + pair->place.magnitude,
							pair->norms, (size_t) pair->n_out * sizeof(float),
							err))
			return false;
	}
	return true;
}

bool
train_params_init(LlmTrainer *t, const LlmAdapterImage *initial, LlmError *err)
{
	const size_t n_bytes = (size_t) t->n_values * sizeof(float);
	float *values = calloc((size_t) t->n_values, sizeof(float));
	bool ok = values != NULL;

	if (!ok)
		llm_error_no_memory(err, n_bytes, "an adapter's values");
	for (int32_t i = 0; ok && initial == NULL && i < t->n_pairs; i++)
	{
		if (!t->pairs[i].spec.shares_a)
			draw_a(t, i, values + t->pairs[i].place.a);
	}
	if (ok && initial != NULL)
		ok = fill_from_image(t, initial, values, err);
	ok = ok && t->ops->write(t->compute, t->values, values, n_bytes, err) &&
		 t->ops->sync(t->compute, err) && copy_values(t, err) &&
		 init_magnitudes(t, initial != NULL, err) &&
		 train_params_refresh(t, err);
	free(values);
	return ok;
}

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */
static bool
step_range(LlmTrainer *t, LlmAdamwArgs args, int64_t begin, int64_t end,
		   LlmError *err)
{
	args.p = t->values + begin;
	args.d_p = t->gradients + begin;
	args.m = t->moments1 + begin;
	args.v = t->moments2 + begin;
	args.n = end - begin;
	return args.n == 0 || t->train->adamw(t->compute, &args, err);
}

bool
llm_trainer_update(LlmTrainer *t, double rate, double *grad_norm, LlmError *err)
{
	const LlmTrainOptions *o = &t->options;
	LlmAdamwArgs args = {
		.clip = 1,
		.rate = rate,
		.decay = o->weight_decay,
		.beta1 = o->beta1,
		.beta2 = o->beta2,
		.eps = o->eps,
	};

	if (!t->train->sum_squares(t->compute, t->gradients, t->n_values, grad_norm,
							   err))
		return false;
	*grad_norm = sqrt(*grad_norm);
	if (!isfinite(*grad_norm))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the gradients of step %lld are not finite",
							 (long long) t->n_steps + 1);
	/* as torch's clip_grad_norm_ */
	if (o->max_grad_norm > 0 && *grad_norm + 1e-6 > o->max_grad_norm)
		args.clip = (float) (o->max_grad_norm / (*grad_norm + 1e-6));
	t->n_steps++;
	args.correction1 = 1 - pow(o->beta1, (double) t->n_steps);
	args.correction2 = 1 - pow(o->beta2, (double) t->n_steps);
	if (!step_range(t, args, 0, t->n_a_values, err))
		return false;
	args.rate = rate * o->b_rate_ratio;
	return step_range(t, args, t->n_a_values, t->n_values, err) &&
		   t->train->clear(t->compute, t->gradients,
						   (size_t) t->n_values * sizeof(float), err) &&
		   train_params_refresh(t, err);
}

/* ------------------------------------------------------------------------
 * States
 * ------------------------------------------------------------------------
 */
#define STATE_MAGIC UINT64_C(0x3120737464617274)

typedef struct StateHeader
{
	uint64_t magic;
	int64_t n_values;
	int64_t n_steps;
	int64_t n_passes;
} StateHeader;

bool
llm_trainer_save(LlmTrainer *t, LlmStrbuf *state, LlmError *err)
{
	const size_t n_bytes = (size_t) t->n_values * sizeof(float);
	const float *parts[] = { t->values, t->moments1, t->moments2 };
	StateHeader header = { STATE_MAGIC, t->n_values, t->n_steps, t->n_passes };
	char *dest;

	llm_strbuf_append(state, &header, sizeof(header));
	dest = llm_strbuf_reserve(state, 3 * n_bytes);
	if (dest == NULL)
		return llm_error_no_memory(err, 3 * n_bytes, "the state of training");
	for (int i = 0; i < 3; i++)
	{
		if (!t->ops->read(t->compute, dest + (size_t) i * n_bytes, parts[i],
						  n_bytes, err))
			return false;
	}
	state->len += 3 * n_bytes;
	state->data[state->len] = '\0';
	return true;
}

bool
llm_trainer_load(LlmTrainer *t, const void *state, size_t n_bytes,
				 LlmError *err)
{
	const size_t part_bytes = (size_t) t->n_values * sizeof(float);
	float *parts[] = { t->values, t->moments1, t->moments2 };
	const char *at = (const char *) state + sizeof(StateHeader);
	StateHeader header;

	if (n_bytes != sizeof(header) + 3 * part_bytes)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the state of training has %zu bytes, this job's "
							 "has %zu",
							 n_bytes, sizeof(header) + 3 * part_bytes);
	memcpy(&header, state, sizeof(header));
	if (header.magic != STATE_MAGIC || header.n_values != t->n_values ||
		header.n_steps < 0 || header.n_passes < 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the state of training is damaged");
	t->n_steps = header.n_steps;
	t->n_passes = header.n_passes;
	for (int i = 0; i < 3; i++)
	{
		if (!t->ops->write(t->compute, parts[i], at + (size_t) i * part_bytes,
						   part_bytes, err))
			return false;
	}
	return t->train->clear(t->compute, t->gradients, part_bytes, err) &&
		   t->ops->sync(t->compute, err) && train_params_refresh(t, err);
}

static int64_t
matrix_place(const LlmTrainer *t, int32_t pair_idx, LlmTrainMatrix which)
{
	const PairPlace *place = &t->pairs[pair_idx].place;

	return which == LLM_TRAIN_A	  ? place->a
		   : which == LLM_TRAIN_B ? place->b
								  : place->magnitude;
}

int64_t
llm_trainer_matrix_size(const LlmTrainer *t, int32_t pair_idx,
						LlmTrainMatrix which)
{
	const TrainPair *pair = &t->pairs[pair_idx];

	if (which == LLM_TRAIN_MAGNITUDE)
		return pair->spec.has_magnitude ? pair->n_out : 0;
	return pair->spec.rank * (which == LLM_TRAIN_A ? pair->n_in : pair->n_out);
}

static bool
read_matrix(LlmTrainer *t, const float *all, int32_t pair_idx,
			LlmTrainMatrix which, float *out, LlmError *err)
{
	return t->ops->read(t->compute, out, all + matrix_place(t, pair_idx, which),
						(size_t) llm_trainer_matrix_size(t, pair_idx, which) *
							sizeof(float),
						err);
}

bool
llm_trainer_read_values(LlmTrainer *t, int32_t pair_idx, LlmTrainMatrix which,
						float *out, LlmError *err)
{
	return read_matrix(t, t->values, pair_idx, which, out, err);
}

bool
llm_trainer_read_gradients(LlmTrainer *t, int32_t pair_idx,
						   LlmTrainMatrix which, float *out, LlmError *err)
{
	return read_matrix(t, t->gradients, pair_idx, which, out, err);
}
