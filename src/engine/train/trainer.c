/*
 * trainer.c
 *	  Making and freeing a trainer, and the layout of its memory.
 *
 * All device memory is one piece, which is laid out by walking over it twice:
 * once from NULL to learn its size, once to hand out addresses.
 *
 * src/engine/train/trainer.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/engine/train/train_internal.h"

/* A walk over the memory. */
typedef struct Walk
{
	char *base; /* NULL: only measuring */
	size_t n_bytes;
} Walk;

static void *
take(Walk *walk, int64_t n, size_t size)
{
	void *at = walk->base == NULL ? NULL : walk->base + walk->n_bytes;

	walk->n_bytes += ((size_t) n * size + 255) & ~(size_t) 255;
	return at;
}

static size_t
act_size(const LlmTrainer *t)
{
	return llm_dtype_bytes(t->compute->activation_dtype);
}

static bool
is_float(const LlmTrainer *t)
{
	return t->compute->activation_dtype == LLM_DTYPE_F32;
}

/* [max_tokens, dim] of act */
static void *
take_rows(const LlmTrainer *t, Walk *walk, int64_t dim)
{
	return take(walk, t->options.max_tokens * dim, act_size(t));
}

static float *
take_floats(Walk *walk, int64_t n)
{
	return take(walk, n, sizeof(float));
}

/* The first of the modules that have this one's input. */
static int
input_group(int module)
{
	switch (module)
	{
		case LLM_ADAPTER_K:
		case LLM_ADAPTER_V:
			return LLM_ADAPTER_Q;
		case LLM_ADAPTER_UP:
			return LLM_ADAPTER_GATE;
		default:
			return module;
	}
}

/* Where full recomputing has one set for all layers, it must hold any's. */
static bool
is_held(const LlmTrainer *t, const TrainPair *pair, int32_t layer_idx)
{
	return t->options.recompute == LLM_RECOMPUTE_FULL ||
		   pair->spec.layer_idx == layer_idx;
}

static void
lay_out_saved(const LlmTrainer *t, Walk *walk, int32_t layer_idx,
			  SavedLayer *saved)
{
	const LlmModelConfig *config = t->config;
	const int64_t q_dim = (int64_t) config->n_heads * config->head_dim;
	const int64_t kv_dim = (int64_t) config->n_kv_heads * config->head_dim;

	saved->q = take_rows(t, walk, q_dim);
	saved->k = take_rows(t, walk, kv_dim);
	saved->v = take_rows(t, walk, kv_dim);
	saved->q_raw = config->has_qk_norm ? take_rows(t, walk, q_dim) : NULL;
	saved->k_raw = config->has_qk_norm ? take_rows(t, walk, kv_dim) : NULL;
	saved->attention = take_rows(t, walk, q_dim);
	saved->log_sums =
		take_floats(walk, (int64_t) config->n_heads * t->options.max_tokens);
	saved->middle = take_rows(t, walk, config->hidden_size);
	/* a mixture keeps nothing */
	if (t->options.recompute == LLM_RECOMPUTE_FULL ||
		!train_is_mixture(t, layer_idx))
	{
		saved->gate = take_rows(t, walk, config->intermediate_size);
		saved->up = take_rows(t, walk, config->intermediate_size);
	}
	if (config->has_post_norms)
	{
		saved->o = take_rows(t, walk, config->hidden_size);
		saved->down = take_rows(t, walk, config->hidden_size);
	}
	for (int m = 0; m < N_MODULES; m++)
	{
		int64_t n_columns = 0;
		int64_t n_out = 0;

		for (int32_t i = 0; i < t->n_pairs; i++)
		{
			const TrainPair *pair = &t->pairs[i];

			if (!is_held(t, pair, layer_idx))
				continue;
			if (input_group((int) pair->spec.module) == m &&
				pair->shrunk_stride > n_columns)
				n_columns = pair->shrunk_stride;
			if ((int) pair->spec.module == m && pair->spec.has_magnitude)
				n_out = pair->n_out;
		}
		/* groups begin with their first module */
		saved->shrunk[m] = input_group(m) != m ? saved->shrunk[input_group(m)]
						   : n_columns > 0	   ? take_rows(t, walk, n_columns)
											   : NULL;
		saved->unscaled[m] = n_out > 0 ? take_rows(t, walk, n_out) : NULL;
	}
}

static int64_t
max_shrunk_stride(const LlmTrainer *t)
{
	int64_t most = 1;

	for (int32_t i = 0; i < t->n_pairs; i++)
		most =
			t->pairs[i].shrunk_stride > most ? t->pairs[i].shrunk_stride : most;
	return most;
}

static void
lay_out_scratch(LlmTrainer *t, Walk *walk)
{
	const LlmModelConfig *config = t->config;
	const int64_t q_dim = (int64_t) config->n_heads * config->head_dim;
	const int64_t kv_dim = (int64_t) config->n_kv_heads * config->head_dim;
	const int64_t hidden = config->hidden_size;
	const int64_t inner = config->intermediate_size;
	int64_t widest = hidden > q_dim ? hidden : q_dim;
	TrainScratch *s = &t->scratch;

	widest = inner > widest ? inner : widest;
	s->normed = take_rows(t, walk, hidden);
	s->inner = take_rows(t, walk, inner);
	s->dropped = t->options.dropout > 0 ? take_rows(t, walk, widest) : NULL;
	s->shrunk = take_rows(t, walk, max_shrunk_stride(t));
	s->d_stream = take_rows(t, walk, hidden);
	s->d_block = take_rows(t, walk, hidden);
	s->d_q = take_rows(t, walk, q_dim);
	s->d_k = take_rows(t, walk, kv_dim);
	s->d_v = take_rows(t, walk, kv_dim);
	s->d_attention = take_rows(t, walk, q_dim);
	s->d_gate = take_rows(t, walk, inner);
	s->d_up = take_rows(t, walk, inner);
	s->d_inner = take_rows(t, walk, inner);
	s->d_out_sums =
		take_floats(walk, (int64_t) config->n_heads * t->options.max_tokens);
}

static void
lay_out_mixture(LlmTrainer *t, Walk *walk)
{
	const LlmModelConfig *config = t->config;
	const int64_t n_top = config->n_experts_per_token;
	const int64_t n = t->options.max_tokens * n_top;
	TrainMixture *m = &t->mixture;

	if (config->n_experts == 0)
		return;
	m->device_logits =
		take_floats(walk, (int64_t) t->options.max_tokens * config->n_experts);
	m->device_shares = take_floats(walk, n);
	m->device_entry_rows = take(walk, n, sizeof(int32_t));
	m->device_row_entries = take(walk, n, sizeof(int32_t));
	m->x = take_rows(t, walk, n_top * config->hidden_size);
	m->y = take_rows(t, walk, n_top * config->hidden_size);
	m->gate = take_rows(t, walk, n_top * config->expert_intermediate_size);
	m->up = take_rows(t, walk, n_top * config->expert_intermediate_size);
	m->inner = take_rows(t, walk, n_top * config->expert_intermediate_size);
	m->d_inner = take_rows(t, walk, n_top * config->expert_intermediate_size);
	if (m->max_rank == 0)
		return;
	for (int i = 0; i < N_EXPERT_MODULES; i++)
	{
		m->shrunk[i] = take_rows(t, walk, n_top * m->max_rank);
		m->d_shrunk[i] = take_rows(t, walk, n_top * m->max_rank);
	}
	m->weighed = take_rows(t, walk, n_top * m->max_rank);
	m->device_order = take(walk, n, sizeof(int32_t));
}

static void
lay_out_batch(LlmTrainer *t, Walk *walk)
{
	const int64_t n = t->options.max_tokens;
	DeviceBatch *d = &t->device;
	int64_t n_logits;

	d->token_ids = take(walk, n, sizeof(int32_t));
	d->segment_start = take(walk, n, sizeof(int32_t));
	d->segment_end = take(walk, n, sizeof(int32_t));
	d->rope_rows = take(walk, n, sizeof(int32_t));
	d->label_rows = take(walk, n, sizeof(int32_t));
	d->label_ids = take(walk, n, sizeof(int32_t));
	d->weights = take_floats(walk, n);
	d->log_probs = take_floats(walk, n);
	t->rows = take_rows(t, walk, t->config->hidden_size);
	t->rows_normed = take_rows(t, walk, t->config->hidden_size);
	t->d_rows = take_rows(t, walk, t->config->hidden_size);
	n_logits = (int64_t) t->options.max_logit_rows * t->config->n_vocab;
	t->logits = take_floats(walk, n_logits);
	t->d_logits = is_float(t) ? t->logits : take(walk, n_logits, act_size(t));
}

static void
lay_out_magnitude(Walk *walk, TrainPair *pair)
{
	if (!pair->spec.has_magnitude)
		return;
	pair->weight_squares = take_floats(walk, pair->n_out);
	pair->norms = take_floats(walk, pair->n_out);
	pair->column_scales = take_floats(walk, pair->n_out);
	pair->wa = take_floats(walk, pair->n_out * pair->spec.rank);
	pair->aa = take_floats(walk, (int64_t) pair->spec.rank * pair->spec.rank);
}

static int32_t
n_saved(const LlmTrainer *t)
{
	return t->options.recompute == LLM_RECOMPUTE_FULL ? 1 : t->config->n_layers;
}

/* A mixture has no gate, up and down of its own. */
static bool
has_module(const LlmModelConfig *config, int32_t layer_idx,
		   LlmAdapterModule module)
{
	return module < LLM_ADAPTER_GATE ||
		   !llm_layer_set_has(&config->expert_layers, layer_idx);
}

/* The shape of a module's weight. */
static int64_t
module_n_in(const LlmModelConfig *config, LlmAdapterModule module)
{
	switch (module)
	{
		case LLM_ADAPTER_O:
			return (int64_t) config->n_heads * config->head_dim;
		case LLM_ADAPTER_DOWN:
			return config->intermediate_size;
		case LLM_ADAPTER_EXPERT_DOWN:
			return config->expert_intermediate_size;
		default:
			return config->hidden_size;
	}
}

static int64_t
module_n_out(const LlmModelConfig *config, LlmAdapterModule module)
{
	switch (module)
	{
		case LLM_ADAPTER_Q:
			return (int64_t) config->n_heads * config->head_dim;
		case LLM_ADAPTER_K:
		case LLM_ADAPTER_V:
			return (int64_t) config->n_kv_heads * config->head_dim;
		case LLM_ADAPTER_GATE:
		case LLM_ADAPTER_UP:
			return config->intermediate_size;
		case LLM_ADAPTER_EXPERT_GATE:
		case LLM_ADAPTER_EXPERT_UP:
			return config->expert_intermediate_size;
		default:
			return config->hidden_size;
	}
}

/* Room for the largest weight as floats. */
static void
lay_out_decoded(LlmTrainer *t, Walk *walk)
{
	int64_t most =
		(int64_t) t->config->hidden_size *
		(t->config->n_experts > 0 ? t->config->expert_intermediate_size : 0);

	if (!train_is_nf4(t->model_options))
		return;
	for (int32_t i = 0; i < t->config->n_layers * N_MODULES; i++)
	{
		LlmAdapterModule module = (LlmAdapterModule) (i % N_MODULES);
		int64_t n;

		if (!has_module(t->config, i / N_MODULES, module))
			continue;
		n = module_n_in(t->config, module) * module_n_out(t->config, module);
		if (n > most)
			most = n;
	}
	t->decoded =
		take(walk, most, llm_dtype_bytes(t->model_options->weight_dtype));
}

static LlmTrainMemory
lay_out(LlmTrainer *t, Walk *walk)
{
	LlmTrainMemory memory = { 0 };

	t->values = take_floats(walk, t->n_values);
	t->copies = is_float(t) ? t->values : take(walk, t->n_values, act_size(t));
	t->gradients = take_floats(walk, t->n_values);
	t->moments1 = take_floats(walk, t->n_values);
	t->moments2 = take_floats(walk, t->n_values);
	for (int32_t i = 0; i < t->n_pairs; i++)
		lay_out_magnitude(walk, &t->pairs[i]);
	memory.states_bytes = walk->n_bytes;
	for (int32_t i = 0; i <= t->config->n_layers; i++)
		t->inputs[i] = take_rows(t, walk, t->config->hidden_size);
	for (int32_t i = 0; i < n_saved(t); i++)
		lay_out_saved(t, walk, i, &t->saved[i]);
	memory.activations_bytes = walk->n_bytes - memory.states_bytes;
	lay_out_scratch(t, walk);
	lay_out_mixture(t, walk);
	lay_out_decoded(t, walk);
	memory.scratch_bytes =
		walk->n_bytes - memory.activations_bytes - memory.states_bytes;
	memory.logits_bytes = walk->n_bytes;
	lay_out_batch(t, walk);
	memory.logits_bytes = walk->n_bytes - memory.logits_bytes;
	memory.total_bytes = walk->n_bytes;
	return memory;
}

/* ------------------------------------------------------------------------
 * Pairs
 * ------------------------------------------------------------------------
 */
/* The columns of A x, side by side for modules with the same input. */
static void
place_shrunk(TrainPair *(*pairs)[N_MODULES])
{
	for (int m = 0; m < N_MODULES; m++)
	{
		TrainPair *pair = (*pairs)[m];

		if (pair == NULL)
			continue;
		pair->shrunk_first = 0;
		pair->shrunk_stride = 0;
		for (int other = 0; other < N_MODULES; other++)
		{
			const TrainPair *beside = (*pairs)[other];

			if (beside == NULL || input_group(other) != input_group(m))
				continue;
			pair->shrunk_first += other < m ? beside->spec.rank : 0;
			pair->shrunk_stride += beside->spec.rank;
		}
	}
}

/* Where a pair stands among those of its layer. */
static TrainPair **
find_place(LlmTrainer *t, const LlmTrainPair *spec)
{
	assert(spec->layer_idx < t->config->n_layers);
	if (llm_adapter_is_expert(spec->module))
	{
		if (spec->rank > t->mixture.max_rank)
			t->mixture.max_rank = spec->rank;
		return train_expert_pair(t, spec->layer_idx, spec->module,
								 spec->expert_idx);
	}
	return &t->layer_pairs[spec->layer_idx][spec->module];
}

/* All A come first: LoRA+ has another rate for what follows. */
static bool
place_pairs(LlmTrainer *t, const LlmTrainOptions *options, LlmError *err)
{
	int64_t at = 0;

	for (int32_t i = 0; i < t->n_pairs; i++)
	{
		TrainPair *pair = &t->pairs[i];
		TrainPair **place = find_place(t, &options->pairs[i]);

		pair->spec = options->pairs[i];
		if (*place != NULL)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "module %s of layer %d is named twice",
								 llm_adapter_module_name(pair->spec.module),
								 pair->spec.layer_idx);
		*place = pair;
		pair->n_in = module_n_in(t->config, pair->spec.module);
		pair->n_out = module_n_out(t->config, pair->spec.module);
		pair->place.a = at;
		if (pair->spec.shares_a)
			pair->place.a = t->pairs[i - 1].place.a;
		else
			at += pair->n_in * pair->spec.rank;
	}
	t->n_a_values = at;
	for (int32_t i = 0; i < t->n_pairs; i++)
	{
		TrainPair *pair = &t->pairs[i];

		pair->place.b = at;
		at += pair->n_out * pair->spec.rank;
		pair->place.magnitude = at;
		at += pair->spec.has_magnitude ? pair->n_out : 0;
	}
	t->n_values = at;
	for (int32_t i = 0; i < t->config->n_layers; i++)
		place_shrunk(&t->layer_pairs[i]);
	return true;
}

/* ------------------------------------------------------------------------
 * Checks
 * ------------------------------------------------------------------------
 */
static bool
is_trainable(const LlmModelConfig *config, const LlmTrainPair *pair)
{
	if (pair->layer_idx < 0 || pair->layer_idx >= config->n_layers ||
		(int) pair->module < 0)
		return false;
	if (llm_adapter_is_expert(pair->module))
		return llm_layer_set_has(&config->expert_layers, pair->layer_idx) &&
			   pair->expert_idx >= 0 && pair->expert_idx < config->n_experts;
	return (int) pair->module < N_MODULES && pair->expert_idx == 0 &&
		   has_module(config, pair->layer_idx, pair->module);
}

static bool
check_pair(const LlmModelConfig *config, const LlmTrainOptions *options,
		   const LlmTrainPair *pair, LlmError *err)
{
	if (!is_trainable(config, pair))
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "module %s of layer %d cannot be trained",
							 llm_adapter_module_name(pair->module),
							 pair->layer_idx);
	if (pair->rank < 1 || pair->rank > LLM_ADAPTER_MAX_RANK)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "rank %d is not between 1 and %d", pair->rank,
							 LLM_ADAPTER_MAX_RANK);
	if (llm_adapter_is_expert(pair->module) &&
		(pair->has_magnitude || options->dropout > 0))
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "experts cannot be trained with %s",
							 pair->has_magnitude ? "DoRA" : "dropout");
	if (pair->has_magnitude && options->dropout > 0)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "dropout together with DoRA is not supported");
	return true;
}

/* Whether checkpoints store two neighbours as one: q k v, or gate up. */
static bool
are_fused(const LlmTrainPair *a, const LlmTrainPair *b)
{
	return (a->module == LLM_ADAPTER_Q && b->module == LLM_ADAPTER_K) ||
		   (a->module == LLM_ADAPTER_K && b->module == LLM_ADAPTER_V) ||
		   (a->module == LLM_ADAPTER_GATE && b->module == LLM_ADAPTER_UP) ||
		   (a->module == LLM_ADAPTER_EXPERT_GATE &&
			b->module == LLM_ADAPTER_EXPERT_UP &&
			a->expert_idx == b->expert_idx);
}

static bool
check_model(const LlmModel *model, LlmError *err)
{
	const LlmModelConfig *config = llm_model_config(model);

	if (llm_model_compute(model)->ops->train == NULL)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "compute backend \"%s\" cannot train",
							 llm_model_compute(model)->ops->name);
	if (config->n_experts > 0 &&
		(llm_model_compute(model)->ops->train->combine == NULL ||
		 llm_model_compute(model)->ops->train->row_dots == NULL))
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "compute backend \"%s\" cannot train mixtures of "
							 "experts",
							 llm_model_compute(model)->ops->name);
	if (train_is_nf4(llm_model_options(model)) &&
		llm_model_compute(model)->ops->train->decode_nf4 == NULL)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "compute backend \"%s\" cannot train on NF4 "
							 "weights",
							 llm_model_compute(model)->ops->name);
	if (llm_model_options(model)->quantization == LLM_QUANTIZATION_INT8 ||
		llm_model_options(model)->quantization == LLM_QUANTIZATION_INT4)
		return llm_error_set(
			err, LLM_ERROR_UNSUPPORTED,
			"a model that is quantized to int8 or int4 cannot be trained");
	return true;
}

static bool
check_options(const LlmModelConfig *config, const LlmModelOptions *model,
			  const LlmTrainOptions *options, LlmError *err)
{
	if (options->n_pairs < 1)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "there is nothing to train");
	if (options->dropout < 0 || options->dropout >= 1)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "dropout %g is not in 0 to 1",
							 (double) options->dropout);
	if (options->max_segment > model->max_model_len ||
		options->max_tokens > model->max_num_batched_tokens)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "segments of %d tokens in micro-batches of %d do "
							 "not fit the model as it was loaded",
							 options->max_segment, options->max_tokens);
	for (int32_t i = 0; i < options->n_pairs; i++)
	{
		const LlmTrainPair *pair = &options->pairs[i];

		if (!check_pair(config, options, pair, err))
			return false;
		if (pair->shares_a &&
			(i == 0 || pair[-1].layer_idx != pair->layer_idx ||
			 pair[-1].rank != pair->rank || !are_fused(&pair[-1], pair)))
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "module %s of layer %d has nobody to share A "
								 "with",
								 llm_adapter_module_name(pair->module),
								 pair->layer_idx);
	}
	return true;
}

bool
llm_train_check(const LlmModel *model, const LlmTrainOptions *options,
				LlmError *err)
{
	return check_model(model, err) &&
		   check_options(llm_model_config(model), llm_model_options(model),
						 options, err);
}

/* ------------------------------------------------------------------------
 * Making
 * ------------------------------------------------------------------------
 */
static bool
alloc_mixture(LlmTrainer *t, LlmError *err)
{
	const size_t n_tokens = (size_t) t->options.max_tokens;
	const size_t n_experts = (size_t) t->config->n_experts;
	const size_t n = n_tokens * (size_t) t->config->n_experts_per_token;
	const size_t n_all = n_tokens * n_experts + 6 * n + n_experts + 1;
	const size_t n_sums = (size_t) t->config->n_layers * n_experts;
	TrainMixture *m = &t->mixture;

	if (n_experts == 0)
		return true;
	m->probabilities = malloc(n_all * sizeof(float));
	m->visits = calloc(2 * n_sums, sizeof(double));
	if (m->probabilities == NULL || m->visits == NULL)
		return llm_error_no_memory(
			err, n_all * sizeof(float) + 2 * n_sums * sizeof(double),
			"the trainer");
	m->probability_sums = m->visits + n_sums;
	m->shares = m->probabilities + n_tokens * n_experts;
	m->d_shares = m->shares + n;
	m->chosen = (int32_t *) (m->d_shares + n);
	m->entry_rows = m->chosen + n;
	m->row_entries = m->entry_rows + n;
	m->order = m->row_entries + n;
	m->first_entry = m->order + n;
	for (size_t i = 0; i < n; i++)
		m->order[i] = (int32_t) i;
	return true;
}

static bool
alloc_host(LlmTrainer *t, LlmError *err)
{
	const size_t n_layers = (size_t) t->config->n_layers;
	const size_t n_tokens = (size_t) t->options.max_tokens;

	t->pairs = calloc((size_t) t->n_pairs, sizeof(TrainPair));
	t->layer_pairs = calloc(n_layers, sizeof(*t->layer_pairs));
	t->expert_pairs =
		calloc(n_layers * N_EXPERT_MODULES * (size_t) t->config->n_experts + 1,
			   sizeof(TrainPair *));
	t->inputs = calloc(n_layers + 1, sizeof(void *));
	t->saved = calloc(n_layers, sizeof(SavedLayer));
	t->staging = malloc(4 * n_tokens * sizeof(int32_t));
	t->rope_len = malloc(n_tokens * sizeof(int32_t));
	if (t->pairs == NULL || t->layer_pairs == NULL || t->expert_pairs == NULL ||
		t->inputs == NULL || t->saved == NULL || t->staging == NULL ||
		t->rope_len == NULL)
		return llm_error_no_memory(err, 5 * n_tokens * sizeof(int32_t),
								   "the trainer");
	return alloc_mixture(t, err);
}

/* All but device memory and the model. */
static LlmTrainer *
prepare(const LlmModelConfig *config, const LlmModelOptions *model,
		const LlmTrainOptions *options, LlmError *err)
{
	LlmTrainer *t = calloc(1, sizeof(*t));

	if (t == NULL)
	{
		llm_error_no_memory(err, sizeof(*t), "the trainer");
		return NULL;
	}
	t->config = config;
	t->model_options = model;
	t->options = *options;
	t->options.pairs = NULL;
	t->options.initial = NULL;
	t->n_pairs = options->n_pairs;
	if (!check_options(config, model, options, err) || !alloc_host(t, err) ||
		!place_pairs(t, options, err))
	{
		llm_trainer_free(t);
		return NULL;
	}
	return t;
}

LlmTrainMemory
llm_train_memory(const LlmModelConfig *config, const LlmModelOptions *model,
				 LlmDtype activation_dtype, const LlmTrainOptions *options)
{
	LlmCompute device = { .activation_dtype = activation_dtype };
	LlmTrainMemory memory = { 0 };
	LlmError err = { 0 };
	LlmTrainer *t = prepare(config, model, options, &err);
	Walk walk = { 0 };

	if (t == NULL)
		return memory;
	t->compute = &device;
	memory = lay_out(t, &walk);
	llm_trainer_free(t);
	return memory;
}

/* The memory was planned for what the model has. */
static bool __attribute__((unused)) are_shapes_right(const LlmTrainer *t)
{
	for (int32_t i = 0; i < t->n_pairs; i++)
	{
		const TrainPair *pair = &t->pairs[i];
		LlmWeightRole role = llm_adapter_module_weight(pair->spec.module);
		int32_t layer_idx = pair->spec.layer_idx;
		LlmMatrix weight =
			llm_adapter_is_expert(pair->spec.module)
				? llm_model_experts(t->model, role,
									layer_idx)[pair->spec.expert_idx]
				: llm_model_matrix(t->model, role, layer_idx);

		if (weight.n_cols != pair->n_in || weight.n_rows != pair->n_out)
			return false;
	}
	return true;
}

LlmTrainer *
llm_trainer_create(LlmModel *model, const LlmTrainOptions *options,
				   LlmError *err)
{
	LlmTrainer *t;
	Walk walk = { 0 };

	if (!check_model(model, err))
		return NULL;
	t = prepare(llm_model_config(model), llm_model_options(model), options,
				err);
	if (t == NULL)
		return NULL;
	t->model = model;
	t->compute = llm_model_compute(model);
	t->ops = t->compute->ops;
	t->train = t->ops->train;
	assert(are_shapes_right(t));
	(void) lay_out(t, &walk);
	t->memory_bytes = walk.n_bytes;
	t->memory = t->ops->alloc(t->compute, walk.n_bytes, "training", err);
	walk = (Walk){ .base = t->memory };
	if (t->memory != NULL)
		(void) lay_out(t, &walk);
	if (t->memory == NULL || !train_params_init(t, options->initial, err))
	{
		llm_trainer_free(t);
		return NULL;
	}
	return t;
}

void
llm_trainer_free(LlmTrainer *trainer)
{
	if (trainer == NULL)
		return;
	if (trainer->memory != NULL)
		trainer->ops->free(trainer->compute, trainer->memory);
	free(trainer->pairs);
	free(trainer->layer_pairs);
	free(trainer->expert_pairs);
	free(trainer->inputs);
	free(trainer->saved);
	free(trainer->staging);
	free(trainer->mixture.probabilities);
	free(trainer->mixture.visits);
	free(trainer->rope_len);
	free(trainer);
}

int64_t
llm_trainer_n_steps(const LlmTrainer *trainer)
{
	return trainer->n_steps;
}
