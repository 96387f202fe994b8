/*
 * train_module.c
 *	  A projection with its pair of matrices, there and back.
 *
 *	  y = W x + bias + s B (A x)						(Hu et al. 2021)
 *	  y = c * (W x + s B (A x)) + bias, c = m / |W + s B A|	(DoRA)
 *
 * with x after dropout in A x.  Back, with d_y given and, for DoRA, its norms
 * taken as constants, as its authors do:
 *
 *	  d_m += sum over rows of d_y * (W x + s B (A x)) / |W + s B A|
 *	  d_z = c * d_y (or d_y)
 *	  d_u = s d_z B, d_B += s d_z^T u, d_A += d_u^T x, d_x += d_z W + d_u A
 *
 * src/engine/train/train_module.c
 */
#include <assert.h>

#include "src/common/quant/nf4.h"
#include "src/engine/train/train_internal.h"

/* The pair's columns of an array [n_tokens, shrunk_stride]. */
static void *
shrunk_of(const LlmTrainer *t, const TrainPair *pair, const void *all)
{
	return train_act_at(t, all, pair->shrunk_first);
}

Module
train_module(LlmTrainer *t, int32_t layer_idx, LlmAdapterModule module,
			 SavedLayer *saved, void *y)
{
	TrainPair *pair = t->layer_pairs[layer_idx][module];

	return (Module){
		.module = module,
		.weight = llm_model_matrix(t->model, llm_adapter_module_weight(module),
								   layer_idx),
		.bias = llm_model_vector(t->model, llm_adapter_module_bias(module),
								 layer_idx),
		.pair = pair,
		.shrunk =
			pair != NULL ? shrunk_of(t, pair, saved->shrunk[module]) : NULL,
		.unscaled = saved->unscaled[module],
		.y = y,
	};
}

bool
train_weight(LlmTrainer *t, LlmMatrix stored, LlmMatrix *weight, LlmError *err)
{
	const LlmModelOptions *options = llm_model_options(t->model);
	const int64_t n = stored.n_rows * stored.n_cols;
	LlmNf4 parts;
	LlmNf4Args args = {
		.out = t->decoded,
		.out_dtype = options->weight_dtype,
		.n = n,
	};

	*weight = stored;
	if (stored.dtype != LLM_DTYPE_NF4)
		return true;
	parts = llm_nf4_at(stored.data, n,
					   options->quantization == LLM_QUANTIZATION_NF4_NESTED);
	args.codes = parts.codes;
	args.map = parts.map;
	args.offset = parts.offset;
	args.scales = parts.scales;
	args.scale_codes = parts.scale_codes;
	args.values = parts.values;
	weight->data = t->decoded;
	weight->dtype = args.out_dtype;
	return t->train->decode_nf4(t->compute, &args, err);
}

static bool
has_magnitude(const Module *m)
{
	return m->pair != NULL && m->pair->spec.has_magnitude;
}

/* Dropout of this pass, layer and module. */
static LlmDropoutArgs
dropout_args(const LlmTrainer *t, int32_t layer_idx, const Module *m,
			 const void *x, void *out)
{
	return (LlmDropoutArgs){
		.x = x,
		.out = out,
		.n = t->batch->n_tokens * m->weight.n_cols,
		.probability = t->options.dropout,
		.seed = t->options.seed,
		.sequence = ((uint64_t) t->n_passes * (uint64_t) t->config->n_layers +
					 (uint64_t) layer_idx) *
						N_MODULES +
					(uint64_t) m->module,
	};
}

static bool
drops(const LlmTrainer *t)
{
	return t->is_training && t->options.dropout > 0;
}

/* What A sees of x. */
static bool
adapter_input(LlmTrainer *t, int32_t layer_idx, const Module *m, const void *x,
			  const void **seen, LlmError *err)
{
	LlmDropoutArgs args = dropout_args(t, layer_idx, m, x, t->scratch.dropped);

	*seen = x;
	if (!drops(t))
		return true;
	*seen = t->scratch.dropped;
	return t->train->dropout(t->compute, &args, err);
}

/*
 * How many modules from this one on have matrices A one below the other, so
 * that one product with x makes all their A x side by side.
 */
static int
run_length(const LlmTrainer *t, const Module *modules, int n_modules)
{
	int n = 1;

	while (modules->pair != NULL && !drops(t) && n < n_modules &&
		   modules[n].pair != NULL)
	{
		const TrainPair *last = modules[n - 1].pair;

		if (modules[n].pair->place.a !=
			last->place.a + last->n_in * last->spec.rank)
			break;
		n++;
	}
	return n;
}

/* Columns of A x of a run of modules. */
static int64_t
run_columns(const Module *modules, int n_modules)
{
	int64_t n = 0;

	for (int i = 0; i < n_modules; i++)
		n += modules[i].pair->spec.rank;
	return n;
}

/* A x of a run of modules */
static bool
shrink_run(LlmTrainer *t, int32_t layer_idx, const Module *run, int n_modules,
		   const void *x, LlmError *err)
{
	const TrainPair *pair = run->pair;
	const void *seen;
	LlmProductArgs args = {
		.b = train_a_operand(t, pair, true),
		.m = t->batch->n_tokens,
		.n = run_columns(run, n_modules),
		.k = pair->n_in,
		.scale = 1,
		.out = run->shrunk,
		.out_dtype = t->compute->activation_dtype,
		.out_stride = pair->shrunk_stride,
	};

	if (!adapter_input(t, layer_idx, run, x, &seen, err))
		return false;
	args.a = train_act_operand(t, seen, pair->n_in, false);
	return t->train->product(t->compute, &args, err);
}

/* y += s B (A x); with a magnitude y is scaled then */
static bool
finish_module(LlmTrainer *t, const Module *m, LlmError *err)
{
	const TrainPair *pair = m->pair;
	LlmProductArgs expand = {
		.a = train_act_operand(t, m->shrunk, pair->shrunk_stride, false),
		.b = train_b_operand(t, pair, true),
		.m = t->batch->n_tokens,
		.n = pair->n_out,
		.k = pair->spec.rank,
		.scale = pair->spec.scale,
		.adds = true,
		.out = has_magnitude(m) ? m->unscaled : m->y,
		.out_dtype = t->compute->activation_dtype,
		.out_stride = pair->n_out,
	};
	LlmScaleColumnsArgs scale = {
		.x = m->unscaled,
		.scales = pair->column_scales,
		.bias = m->bias,
		.out = m->y,
		.n_rows = t->batch->n_tokens,
		.dim = (int32_t) m->weight.n_rows,
	};

	return t->train->product(t->compute, &expand, err) &&
		   (!has_magnitude(m) ||
			t->train->scale_columns(t->compute, &scale, err));
}

/* W x of modules whose weights are at hand together. */
static bool
project_weights(LlmTrainer *t, const Module *modules, int n_modules,
				const void *x, LlmError *err)
{
	LlmLinearArgs linear = { .x = x,
							 .n_rows = t->batch->n_tokens,
							 .n_parts = n_modules };

	for (int i = 0; i < n_modules; i++)
	{
		const Module *m = &modules[i];

		if (!train_weight(t, m->weight, &linear.part[i].weight, err))
			return false;
		linear.part[i].out = has_magnitude(m) ? m->unscaled : m->y;
		linear.part[i].out_stride = m->weight.n_rows;
		if (!has_magnitude(m))
			linear.part[i].bias = m->bias;
	}
	return t->train->linear(t->compute, &linear, err);
}

bool
train_project(LlmTrainer *t, int32_t layer_idx, const Module *modules,
			  int n_modules, const void *x, LlmError *err)
{
	/* one is decoded at a time */
	const int n_together = t->decoded == NULL ? n_modules : 1;

	for (int i = 0; i < n_modules; i += n_together)
	{
		if (!project_weights(t, modules + i, n_together, x, err))
			return false;
	}
	for (int i = 0; i < n_modules;)
	{
		int n = run_length(t, modules + i, n_modules - i);

		if (modules[i].pair != NULL &&
			!shrink_run(t, layer_idx, modules + i, n, x, err))
			return false;
		for (; n > 0; n--, i++)
		{
			if (modules[i].pair != NULL && !finish_module(t, &modules[i], err))
				return false;
		}
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Back
 * ------------------------------------------------------------------------
 */

/* The magnitude's gradient; d_y becomes d_z. */
static bool
magnitude_back(LlmTrainer *t, const Module *m, LlmError *err)
{
	const TrainPair *pair = m->pair;
	float *gradient = t->gradients + pair->place.magnitude;
	LlmColumnDotsArgs dots = {
		.a = m->y,
		.b = m->unscaled,
		.divisors = pair->norms,
		.out = gradient,
		.n_rows = t->batch->n_tokens,
		.dim = (int32_t) pair->n_out,
	};
	LlmScaleColumnsArgs scale = {
		.x = m->y,
		.scales = pair->column_scales,
		.out = m->y,
		.n_rows = t->batch->n_tokens,
		.dim = (int32_t) pair->n_out,
	};

	return t->train->column_dots(t->compute, &dots, err) &&
		   t->train->scale_columns(t->compute, &scale, err);
}

/* d_x += d_u A, through dropout where there is one */
static bool
adapter_input_back(LlmTrainer *t, int32_t layer_idx, const Module *m, void *d_x,
				   LlmError *err)
{
	const TrainPair *pair = m->pair;
	LlmProductArgs args = {
		.a = train_act_operand(t, shrunk_of(t, pair, t->scratch.shrunk),
							   pair->shrunk_stride, false),
		.b = train_a_operand(t, pair, false),
		.m = t->batch->n_tokens,
		.n = pair->n_in,
		.k = pair->spec.rank,
		.scale = 1,
		.adds = !drops(t),
		.out = drops(t) ? t->scratch.dropped : d_x,
		.out_dtype = t->compute->activation_dtype,
		.out_stride = pair->n_in,
	};
	LlmDropoutArgs dropout =
		dropout_args(t, layer_idx, m, t->scratch.dropped, d_x);

	dropout.adds = true;
	return t->train->product(t->compute, &args, err) &&
		   (!drops(t) || t->train->dropout(t->compute, &dropout, err));
}

/* d_u, left in the scratch, and the gradient of B */
static bool
expand_back(LlmTrainer *t, const Module *m, LlmError *err)
{
	const TrainPair *pair = m->pair;
	const int32_t rank = pair->spec.rank;
	const int32_t n_tokens = t->batch->n_tokens;
	LlmProductArgs d_u = {
		.a = train_act_operand(t, m->y, pair->n_out, false),
		.b = train_b_operand(t, pair, false),
		.m = n_tokens,
		.n = rank,
		.k = pair->n_out,
		.scale = pair->spec.scale,
		.out = shrunk_of(t, pair, t->scratch.shrunk),
		.out_dtype = t->compute->activation_dtype,
		.out_stride = pair->shrunk_stride,
	};
	LlmProductArgs d_b = {
		.a = train_act_operand(t, m->y, pair->n_out, true),
		.b = train_act_operand(t, m->shrunk, pair->shrunk_stride, false),
		.m = pair->n_out,
		.n = rank,
		.k = n_tokens,
		.scale = pair->spec.scale,
		.adds = true,
		.out = t->gradients + pair->place.b,
		.out_dtype = LLM_DTYPE_F32,
		.out_stride = rank,
	};

	return t->train->product(t->compute, &d_u, err) &&
		   t->train->product(t->compute, &d_b, err);
}

/* The gradients of a run's A, from d_u in the scratch. */
static bool
shrink_back(LlmTrainer *t, int32_t layer_idx, const Module *run, int n_modules,
			const void *x, LlmError *err)
{
	const TrainPair *pair = run->pair;
	const void *seen;
	LlmProductArgs d_a = {
		.a = train_act_operand(t, shrunk_of(t, pair, t->scratch.shrunk),
							   pair->shrunk_stride, true),
		.m = run_columns(run, n_modules),
		.n = pair->n_in,
		.k = t->batch->n_tokens,
		.scale = 1,
		.adds = true,
		.out = t->gradients + pair->place.a,
		.out_dtype = LLM_DTYPE_F32,
		.out_stride = pair->n_in,
	};

	if (!adapter_input(t, layer_idx, run, x, &seen, err))
		return false;
	d_a.b = train_act_operand(t, seen, pair->n_in, false);
	return t->train->product(t->compute, &d_a, err);
}

/* d_x = d_z W, or added */
static bool
weight_back(LlmTrainer *t, const Module *m, void *d_x, bool adds, LlmError *err)
{
	LlmMatrix weight;
	LlmProductArgs args = {
		.a = train_act_operand(t, m->y, m->weight.n_rows, false),
		.m = t->batch->n_tokens,
		.n = m->weight.n_cols,
		.k = m->weight.n_rows,
		.scale = 1,
		.adds = adds,
		.out = d_x,
		.out_dtype = t->compute->activation_dtype,
		.out_stride = m->weight.n_cols,
	};

	if (!train_weight(t, m->weight, &weight, err))
		return false;
	args.b = (LlmOperand){ weight.data, weight.dtype, weight.n_cols, false };
	return t->train->product(t->compute, &args, err);
}

/* d_x and the gradients but for A's; adds: d_x has something already */
static bool
module_back(LlmTrainer *t, int32_t layer_idx, const Module *m, void *d_x,
			bool adds, LlmError *err)
{
	if ((has_magnitude(m) && !magnitude_back(t, m, err)) ||
		(d_x != NULL && !weight_back(t, m, d_x, adds, err)))
		return false;
	if (m->pair == NULL)
		return true;
	return expand_back(t, m, err) &&
		   (d_x == NULL || adapter_input_back(t, layer_idx, m, d_x, err));
}

bool
train_project_back(LlmTrainer *t, int32_t layer_idx, const Module *modules,
				   int n_modules, const void *x, void *d_x, LlmError *err)
{
	for (int i = 0; i < n_modules;)
	{
		const Module *run = modules + i;
		int n = run_length(t, run, n_modules - i);

		for (int end = i + n; i < end; i++)
		{
			if (!module_back(t, layer_idx, &modules[i], d_x, i > 0, err))
				return false;
		}
		if (run->pair != NULL && !shrink_back(t, layer_idx, run, n, x, err))
			return false;
	}
	return true;
}
