/*
 * model_weights.c
 *	  Weights from a checkpoint, or made up, to the device.
 *
 * A tensor is used where it lies in its mapped file; only one that is asked
 * for in a narrower dtype than it is stored in, that is quantized, or that is
 * not aligned for its dtype, is copied, and leaves its file's memory.  Vectors
 * (norms, biases) stay as stored: they are small, and their precision counts.
 *
 * src/engine/model/model_weights.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/quant/nf4.h"
#include "src/engine/model/model_internal.h"

/* Elements that tell a borrowed weight from another; of whole stored blocks. */
#define MAX_COMPARED 256

static int64_t
n_elements(const LlmWeightSpec *spec)
{
	return spec->n_rows * (spec->n_cols > 0 ? spec->n_cols : 1);
}

size_t
model_weight_bytes(const LlmModel *model, const LlmWeightSpec *spec,
				   LlmDtype dtype)
{
	if (llm_dtype_is_float(dtype))
		return (size_t) n_elements(spec) * llm_dtype_bytes(dtype);
	if (dtype == LLM_DTYPE_NF4)
		return llm_nf4_bytes(n_elements(spec), model->options.quantization ==
												   LLM_QUANTIZATION_NF4_NESTED);
	return model->compute->ops->quant_bytes(dtype, spec->n_rows, spec->n_cols);
}

static bool
is_norm(LlmWeightRole role)
{
	return role == LLM_WEIGHT_FINAL_NORM || role == LLM_WEIGHT_ATTN_NORM ||
		   role == LLM_WEIGHT_MLP_NORM || role == LLM_WEIGHT_Q_NORM ||
		   role == LLM_WEIGHT_K_NORM || role == LLM_WEIGHT_POST_ATTN_NORM ||
		   role == LLM_WEIGHT_POST_MLP_NORM;
}

/* NF4 by way of floats, some at a time. */
static void
fill_from_nf4(const WeightSource *source, int64_t first, int64_t n, char *dest)
{
	float floats[256];

	for (int64_t i = 0; i < n; i += 256)
	{
		int64_t n_now = n - i < 256 ? n - i : 256;

		llm_nf4_stored_decode(source->nf4, source->nf4_first + first + i, n_now,
							  floats);
		weight_convert(floats, LLM_DTYPE_F32,
					   dest + (size_t) i * llm_dtype_bytes(source->dtype),
					   source->dtype, n_now);
	}
}

void
weight_source_fill(const WeightSource *source, int64_t first, int64_t n,
				   void *dest)
{
	if (source->stored == NULL)
		dummy_weight_fill(&source->dummy, first, n, dest);
	else if (source->nf4 != NULL)
		fill_from_nf4(source, first, n, dest);
	else
		weight_convert((const char *) source->stored +
						   llm_dtype_stored_bytes(source->stored_dtype, first),
					   source->stored_dtype, dest, source->dtype, n);
}

/* Write all n elements through a staging buffer. */
static bool
fill_through_staging(LlmModel *model, const WeightSource *source, int64_t n,
					 char *data, LlmError *err)
{
	const LlmComputeOps *ops = model->compute->ops;
	size_t element_bytes = llm_dtype_bytes(source->dtype);
	int64_t n_staged = (int64_t) (STAGING_BYTES / element_bytes);
	char *staging = malloc(STAGING_BYTES);
	bool ok = true;

	if (staging == NULL)
		return llm_error_no_memory(err, STAGING_BYTES, "loading weights");
	for (int64_t first = 0; ok && first < n; first += n_staged)
	{
		int64_t n_now = n - first < n_staged ? n - first : n_staged;

		weight_source_fill(source, first, n_now, staging);
		/* the buffer is filled again next: the copy must be done */
		ok = ops->write(model->compute, data + (size_t) first * element_bytes,
						staging, (size_t) n_now * element_bytes, err) &&
			 ops->sync(model->compute, err);
	}
	free(staging);
	return ok;
}

/*
 * Whether a weight that is there already is the checkpoint's: some of its
 * elements are compared.
 */
static bool
check_weight(LlmModel *model, const WeightSource *source, int64_t n,
			 const char *data, LlmError *err)
{
	const size_t element_bytes = llm_dtype_bytes(source->dtype);
	int64_t n_compared = n < MAX_COMPARED ? n : MAX_COMPARED;
	int64_t first = (n - n_compared) / 2 / MAX_COMPARED * MAX_COMPARED;
	char expected[MAX_COMPARED * sizeof(double)];
	char found[MAX_COMPARED * sizeof(double)];

	if (source->stored == NULL)
		return true;
	weight_source_fill(source, first, n_compared, expected);
	if (!model->compute->ops->read(model->compute, found,
								   data + (size_t) first * element_bytes,
								   (size_t) n_compared * element_bytes, err))
		return false;
	return memcmp(expected, found, (size_t) n_compared * element_bytes) == 0 ||
		   llm_error_set(
			   err, LLM_ERROR_INTERNAL,
			   "weights that were borrowed are not those of \"%s\"",
			   llm_checkpoint_path(model->tensors,
								   llm_checkpoint_get(model->tensors, 0)));
}

/* Allocate device memory and fill it. */
static bool
make_weight(LlmModel *model, const LlmWeightSpec *spec,
			const WeightSource *source, LlmError *err)
{
	const LlmComputeOps *ops = model->compute->ops;
	ModelWeight *weight = model_weight_of(model, spec);
	int64_t n = n_elements(spec);
	char *data = ops->weight_alloc(model->compute,
								   (size_t) n * llm_dtype_bytes(source->dtype),
								   spec->name, err);

	if (data == NULL)
		return false;
	weight->data = data;
	weight->owner = WEIGHT_ALLOCATED;
	weight->dtype = source->dtype;
	if (model->options.weights_are_there)
		return check_weight(model, source, n, data, err);
	if (source->stored == NULL && !source->dummy.is_constant &&
		ops->fill_normal != NULL)
	{
		LlmFillNormalArgs args =
			dummy_weight_args(&source->dummy, (void *) data, n);

		return ops->fill_normal(model->compute, &args, err);
	}
	return fill_through_staging(model, source, n, data, err);
}

static bool
map_weight(LlmModel *model, const LlmWeightSpec *spec,
		   const WeightSource *source, LlmError *err)
{
	ModelWeight *weight = model_weight_of(model, spec);
	size_t n_bytes =
		(size_t) n_elements(spec) * llm_dtype_bytes(source->stored_dtype);

	weight->data = model->compute->ops->weight(model->compute, source->stored,
											   n_bytes, spec->name, err);
	if (weight->data == NULL)
		return false;
	weight->owner = WEIGHT_MAPPED;
	weight->dtype = source->stored_dtype;
	return true;
}

/* A weight's elements in its tensor, which may hold others around them. */
static void
find_stored(const LlmModel *model, const LlmWeightSpec *spec,
			WeightSource *source)
{
	const LlmStoredTensor *tensor =
		llm_checkpoint_find(model->tensors, spec->name);
	int64_t n_cols = spec->n_cols > 0 ? spec->n_cols : 1;

	assert(tensor != NULL && tensor->is_known_dtype);
	assert(spec->first_row + spec->n_rows <= spec->stored_rows);
	assert(tensor->n_bytes ==
		   llm_dtype_stored_bytes(tensor->dtype, spec->stored_rows * n_cols));
	source->stored_dtype = tensor->dtype;
	if (tensor->dtype == LLM_DTYPE_NF4)
	{
		source->nf4 = llm_checkpoint_nf4(model->tensors, tensor);
		source->nf4_first = spec->first_row * n_cols;
	}
	source->stored =
		(const char *) tensor->data +
		llm_dtype_stored_bytes(tensor->dtype, spec->first_row * n_cols);
}

/*
 * Matrices of a GPU are all of one format, that of its activations; elsewhere
 * a checkpoint's numbers are taken as they are unless narrower ones are asked
 * for.
 */
static bool
must_convert(const LlmModel *model, LlmDtype stored, LlmDtype wanted)
{
	if (model->compute->activation_dtype == LLM_DTYPE_BF16)
		return stored != wanted;
	return llm_dtype_bytes(wanted) < llm_dtype_bytes(stored);
}

LlmDtype
model_float_dtype(const LlmModel *model, const LlmWeightSpec *spec,
				  const WeightSource *source)
{
	bool is_converted =
		source->stored == NULL || !llm_dtype_is_float(source->stored_dtype) ||
		(spec->n_cols > 0 &&
		 must_convert(model, source->stored_dtype, source->dtype));

	return is_converted ? source->dtype : source->stored_dtype;
}

WeightSource
model_weight_source(const LlmModel *model, const LlmWeightSpec *spec,
					int weight_idx)
{
	WeightSource source = { .dtype = model->options.weight_dtype };

	if (model->tensors != NULL)
		find_stored(model, spec, &source);
	else
		source.dummy = (DummyWeight){
			.seed = model->options.dummy_seed,
			.weight_idx = weight_idx,
			.is_constant = is_norm(spec->role),
			.constant = model->config.norm_adds_one ? 0 : 1,
			.dtype = source.dtype,
		};
	return source;
}

static bool
load_weight(LlmModel *model, const LlmWeightSpec *spec, int weight_idx,
			LlmError *err)
{
	ModelWeight *weight = model_weight_of(model, spec);
	WeightSource source = model_weight_source(model, spec, weight_idx);
	LlmDtype dtype = model_quantized_dtype(model, spec, &source);

	weight->n_rows = spec->n_rows;
	weight->n_cols = spec->n_cols;
	if (dtype == LLM_DTYPE_NF4)
		return model_nf4_weight(model, spec, &source, err);
	if (!llm_dtype_is_float(dtype))
		return model_quantize_weight(model, spec, &source, dtype, err);
	source.dtype = model_float_dtype(model, spec, &source);
	if (source.stored != NULL && source.dtype == source.stored_dtype &&
		!model->options.weights_are_there &&
		(uintptr_t) source.stored % llm_dtype_bytes(source.stored_dtype) == 0)
		return map_weight(model, spec, &source, err);
	return make_weight(model, spec, &source, err);
}

/*
 * A head that is tied is the embedding.  A checkpoint may store it once
 * more, and then it must say the same: where the two differ nobody can know
 * which one is meant.
 */
static bool
tie_head(LlmModel *model, LlmError *err)
{
	ModelWeight *head = model_weight(model, LLM_WEIGHT_LM_HEAD, -1);
	LlmModelConfig untied = model->config;
	const LlmStoredTensor *stored = NULL;
	const LlmStoredTensor *embedding = NULL;
	LlmWeightSpec spec;

	*head = *model_weight(model, LLM_WEIGHT_EMBED, -1);
	head->owner = WEIGHT_BORROWED;
	if (model->tensors == NULL)
		return true;
	untied.tie_word_embeddings = false;
	for (int i = 0; llm_model_weight_spec(&untied, i, &spec); i++)
	{
		if (spec.role == LLM_WEIGHT_EMBED)
			embedding = llm_checkpoint_find(model->tensors, spec.name);
		if (spec.role == LLM_WEIGHT_LM_HEAD)
			stored = llm_checkpoint_find(model->tensors, spec.name);
	}
	assert(embedding != NULL);
	if (stored == NULL ||
		(stored->n_bytes == embedding->n_bytes &&
		 memcmp(stored->data, embedding->data, stored->n_bytes) == 0))
		return true;
	return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
						 "%s: \"tie_word_embeddings\" is true, but tensor "
						 "\"%s\" differs from \"%s\"",
						 llm_checkpoint_path(model->tensors, stored),
						 stored->name, embedding->name);
}

/*
 * Bytes of the weights that are made up, quantized or decoded; others stay
 * mapped.
 */
static double
needed_bytes(const LlmModel *model)
{
	LlmWeightSpec spec;
	double n = 0;

	for (int i = 0; llm_model_weight_spec(&model->config, i, &spec); i++)
	{
		WeightSource source = model_weight_source(model, &spec, i);
		LlmDtype dtype = model_quantized_dtype(model, &spec, &source);

		if (source.stored == NULL || source.nf4 != NULL ||
			!llm_dtype_is_float(dtype))
			n += (double) model_weight_bytes(model, &spec, dtype);
	}
	return n;
}

/*
 * The CPU backend's memory is only taken when it is touched, so that weights
 * that can never fit would end the process instead of the load.
 */
static bool
check_memory(const LlmModel *model, LlmError *err)
{
	double needed = needed_bytes(model);
	double machine =
		(double) sysconf(_SC_PHYS_PAGES) * (double) sysconf(_SC_PAGESIZE);

	if (strcmp(model->compute->ops->name, "cpu") != 0 || needed <= machine)
		return true;
	return llm_error_set(err, LLM_ERROR_NO_MEMORY,
						 "the weights take %.1f GB, but the machine has %.1f "
						 "GB of memory",
						 needed / 1e9, machine / 1e9);
}

static bool
alloc_weight_lists(LlmModel *model, LlmError *err)
{
	const LlmModelConfig *config = &model->config;
	size_t n_layers = (size_t) config->n_layers;
	size_t n_experts = n_layers * N_EXPERT_ROLES * (size_t) config->n_experts;

	model->layers = calloc(n_layers, sizeof(*model->layers));
	if (n_experts > 0)
	{
		model->experts = calloc(n_experts, sizeof(*model->experts));
		model->expert_matrices =
			calloc(n_experts, sizeof(*model->expert_matrices));
	}
	if (model->layers != NULL &&
		(n_experts == 0 ||
		 (model->experts != NULL && model->expert_matrices != NULL)))
		return true;
	return llm_error_no_memory(
		err,
		n_layers * sizeof(*model->layers) +
			n_experts *
				(sizeof(*model->experts) + sizeof(*model->expert_matrices)),
		"the list of weights");
}

static void
list_expert_matrices(LlmModel *model)
{
	size_t n = (size_t) model->config.n_layers * N_EXPERT_ROLES *
			   (size_t) model->config.n_experts;

	for (size_t i = 0; i < n; i++)
	{
		const ModelWeight *weight = &model->experts[i];

		model->expert_matrices[i] =
			(LlmMatrix){ weight->data, weight->dtype, weight->n_rows,
						 weight->n_cols };
	}
}

/* What a checkpoint stores in NF4 keeps its own way of nesting there. */
bool
model_open_checkpoint(LlmModel *model, const char *dir, LlmError *err)
{
	bool is_nested;

	model->tensors = llm_checkpoint_open(dir, err);
	if (model->tensors == NULL ||
		llm_model_check_tensors(&model->config, model->tensors, err, 1) > 0)
		return false;
	if (llm_checkpoint_has_nf4(model->tensors, &is_nested) &&
		model->options.quantization >= LLM_QUANTIZATION_NF4)
		model->options.quantization =
			is_nested ? LLM_QUANTIZATION_NF4_NESTED : LLM_QUANTIZATION_NF4;
	return true;
}

bool
model_weights_load(LlmModel *model, const char *dir, LlmError *err)
{
	LlmWeightSpec spec;

	if (!alloc_weight_lists(model, err) ||
		(!model->options.dummy_weights &&
		 (!model_open_checkpoint(model, dir, err) ||
		  (!model->options.weights_are_there &&
		   !llm_checkpoint_prefetch(model->tensors, err)))) ||
		!check_memory(model, err))
		return false;
	for (int i = 0; llm_model_weight_spec(&model->config, i, &spec); i++)
	{
		const ModelWeight *weight = model_weight_of(model, &spec);

		if (!load_weight(model, &spec, i, err))
			return false;
		if (model->tensors != NULL && weight->owner == WEIGHT_ALLOCATED)
			llm_checkpoint_release(
				model->tensors, llm_checkpoint_find(model->tensors, spec.name));
		model->weight_bytes += model_weight_bytes(model, &spec, weight->dtype);
	}
	list_expert_matrices(model);
	return !model->config.tie_word_embeddings || tie_head(model, err);
}

static void
free_weight(LlmModel *model, ModelWeight *weight)
{
	const LlmComputeOps *ops = model->compute->ops;

	if (weight->owner == WEIGHT_MAPPED)
		ops->weight_free(model->compute, weight->data);
	else if (weight->owner == WEIGHT_ALLOCATED)
		ops->free(model->compute, (void *) weight->data);
	memset(weight, 0, sizeof(*weight));
}

void
model_weights_free(LlmModel *model)
{
	size_t n_experts = (size_t) model->config.n_layers * N_EXPERT_ROLES *
					   (size_t) model->config.n_experts;

	for (int i = 0; i < FIRST_LAYER_ROLE; i++)
		free_weight(model, &model->shared[i]);
	for (int32_t layer = 0;
		 model->layers != NULL && layer < model->config.n_layers; layer++)
	{
		for (int i = 0; i < N_LAYER_ROLES; i++)
			free_weight(model, &model->layers[layer][i]);
	}
	for (size_t i = 0; model->experts != NULL && i < n_experts; i++)
		free_weight(model, &model->experts[i]);
	free(model->layers);
	free(model->experts);
	free(model->expert_matrices);
	model->layers = NULL;
	model->experts = NULL;
	model->expert_matrices = NULL;
	llm_checkpoint_close(model->tensors);
	model->tensors = NULL;
}
