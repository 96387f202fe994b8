/*
 * model_adapter.c
 *	  From the file of an adapter to the image that compute backends read.
 *
 * The scale goes into B, and DoRA's magnitudes become gains of rows, which
 * takes a look at every weight that the adapter changes (model_dora.c).  All
 * of it happens on the host and in the calling thread, beside the steps.
 *
 * src/engine/model/model_adapter.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/engine/model/model_internal.h"

static int32_t
n_modules(const LlmModelConfig *config)
{
	return model_lora_embed(config) + 1;
}

static int32_t
module_idx_of(const LlmModelConfig *config, const LlmAdapterPair *pair)
{
	if (pair->module == LLM_ADAPTER_EMBED)
		return model_lora_embed(config);
	return pair->module == LLM_ADAPTER_LM_HEAD
			   ? model_lora_head(config)
			   : model_lora_module(pair->layer_idx, pair->module);
}

static LlmLoraShape
shape_of(const LlmAdapterPair *pair)
{
	return (LlmLoraShape){ .rank = pair->rank,
						   .n_in = (int32_t) pair->n_in,
						   .n_out = (int32_t) pair->n_out,
						   .has_gain = pair->magnitude != NULL };
}

static LlmLoraShape *
create_shapes(const LlmModelConfig *config, LlmError *err)
{
	size_t n = (size_t) n_modules(config);
	LlmLoraShape *shapes = calloc(n, sizeof(*shapes));

	if (shapes == NULL)
		llm_error_no_memory(err, n * sizeof(*shapes), "an adapter's modules");
	return shapes;
}

/* Every matrix that an adapter may change, at full rank and with gains. */
size_t
llm_model_adapter_max_bytes(const LlmModelConfig *config,
							const LlmLoraFormat *format, int32_t max_rank)
{
	int32_t hidden = config->hidden_size;
	int32_t q_dim = config->n_heads * config->head_dim;
	int32_t kv_dim = config->n_kv_heads * config->head_dim;
	int32_t inner = config->intermediate_size;
	const LlmLoraShape layer[] = {
		{ max_rank, hidden, q_dim, true },	{ max_rank, hidden, kv_dim, true },
		{ max_rank, hidden, kv_dim, true }, { max_rank, q_dim, hidden, true },
		{ max_rank, hidden, inner, true },	{ max_rank, hidden, inner, true },
		{ max_rank, inner, hidden, true },
	};
	const LlmLoraShape outside[] = {
		{ max_rank, hidden, config->n_vocab, true },
		{ max_rank, config->n_vocab, hidden, false },
	};

	_Static_assert(sizeof(layer) / sizeof(layer[0]) == LLM_ADAPTER_LM_HEAD,
				   "a shape for each module of a layer");
	return (size_t) config->n_layers *
			   llm_lora_image_bytes(format, layer, LORA_LAYER_MODULES) +
		   llm_lora_image_bytes(format, outside, 2);
}

/* An adapter on its way to its image. */
typedef struct AdapterLoad
{
	const LlmModel *model;
	const char *path;
	LlmAdapterImage *file;
	LlmLoraShape *shapes;
	LlmModelAdapter *adapter;
	DoraWork *dora; /* NULL: no DoRA */
	float *numbers; /* room for those of any pair */
	LlmError *err;
} AdapterLoad;

/* The tensor's n elements as f32, times scale; false: one is not finite. */
static bool
read_floats(const LlmStoredTensor *tensor, int64_t n, float scale, float *dest)
{
	bool is_finite = true;

	weight_convert(tensor->data, tensor->dtype, dest, LLM_DTYPE_F32, n);
	for (int64_t i = 0; i < n; i++)
	{
		dest[i] *= scale;
		/* NaN and infinities minus themselves are not 0 */
		is_finite &= dest[i] - dest[i] == 0;
	}
	return is_finite;
}

static bool
check_finite(const AdapterLoad *load, const LlmAdapterPair *pair,
			 bool is_finite)
{
	if (is_finite)
		return true;
	if (pair->layer_idx < 0)
		return llm_error_set(load->err, LLM_ERROR_FORMAT,
							 "%s: \"%s\" has a value that is not finite",
							 load->path, llm_adapter_module_name(pair->module));
	return llm_error_set(load->err, LLM_ERROR_FORMAT,
						 "%s: \"layers.%d.%s\" has a value that is not finite",
						 load->path, pair->layer_idx,
						 llm_adapter_module_name(pair->module));
}

static size_t
n_numbers(const LlmAdapterPair *pair)
{
	return (size_t) (pair->rank * (pair->n_in + pair->n_out) + pair->n_out);
}

static bool
write_pair(const AdapterLoad *load, const LlmAdapterPair *pair)
{
	const LlmModel *model = load->model;
	int32_t idx = module_idx_of(&model->config, pair);
	float *up = load->numbers + pair->rank * pair->n_in;
	PairNumbers numbers = { load->numbers, up, up + pair->rank * pair->n_out };
	LlmLoraNumbers out = { numbers.down, numbers.up, numbers.gain };
	bool is_finite =
		read_floats(pair->a, pair->rank * pair->n_in, 1, numbers.down) &&
		read_floats(pair->b, pair->rank * pair->n_out, pair->scale, numbers.up);

	if (pair->magnitude == NULL)
		out.gain = NULL;
	if (is_finite && pair->magnitude != NULL)
		is_finite = read_floats(pair->magnitude, pair->n_out, 1, numbers.gain);
	if (!check_finite(load, pair, is_finite) ||
		(out.gain != NULL &&
		 !model_dora_gain(load->dora, pair, &numbers, load->err)))
		return false;
	llm_lora_image_write(load->adapter->image, &model->compute->lora_format,
						 idx, &load->shapes[idx], &out);
	return true;
}

static bool
check_file(const AdapterLoad *load, int32_t max_rank)
{
	const LlmAdapterImage *file = load->file;
	const LlmModel *model = load->model;

	if (!model->options.dummy_weights &&
		llm_model_fingerprint_compare(file->base, model->fingerprint) ==
			LLM_BASE_OTHER)
		return llm_error_set(load->err, LLM_ERROR_INVALID,
							 "%s: the adapter was made for another base model",
							 load->path);
	if (file->has_experts)
	{
		llm_error_set(load->err, LLM_ERROR_UNSUPPORTED,
					  "%s: the adapter changes experts of a mixture, which is "
					  "not served beside the model",
					  load->path);
		return llm_error_hint(load->err,
							  "Merge it: llm_merge_adapter writes a model with "
							  "the adapter in its weights.");
	}
	if (file->max_rank <= max_rank)
		return true;
	llm_error_set(load->err, LLM_ERROR_LIMIT,
				  "%s: the adapter has rank %d, but at most %d is served",
				  load->path, file->max_rank, max_rank);
	return llm_error_hint(load->err, "Raise llm_ext.max_lora_rank and load the "
									 "model again.");
}

static bool
create_image(AdapterLoad *load)
{
	const LlmModel *model = load->model;
	const LlmLoraFormat *format = &model->compute->lora_format;
	LlmModelAdapter *adapter = load->adapter;
	int32_t n = n_modules(&model->config);

	load->shapes = create_shapes(&model->config, load->err);
	if (load->shapes == NULL)
		return false;
	for (int32_t i = 0; i < load->file->n_pairs; i++)
		load->shapes[module_idx_of(&model->config, &load->file->pairs[i])] =
			shape_of(&load->file->pairs[i]);
	adapter->max_rank = load->file->max_rank;
	adapter->n_bytes = llm_lora_image_bytes(format, load->shapes, n);
	if (adapter->n_bytes == 0)
		return llm_error_set(load->err, LLM_ERROR_LIMIT,
							 "%s: the adapter is too large", load->path);
	adapter->image = model->compute->ops->host_alloc(
		model->compute, adapter->n_bytes, "an adapter", load->err);
	if (adapter->image == NULL)
		return false;
	memset(adapter->image, 0, adapter->n_bytes);
	llm_lora_image_init(adapter->image, format, load->shapes, n);
	return true;
}

static bool
create_numbers(AdapterLoad *load)
{
	size_t n = 0;

	for (int32_t i = 0; i < load->file->n_pairs; i++)
	{
		if (n_numbers(&load->file->pairs[i]) > n)
			n = n_numbers(&load->file->pairs[i]);
	}
	load->numbers = malloc(n * sizeof(float));
	return load->numbers != NULL ||
		   llm_error_no_memory(load->err, n * sizeof(float),
							   "an adapter's matrices");
}

static bool
fill_image(AdapterLoad *load)
{
	if (!create_numbers(load))
		return false;
	if (load->file->has_dora)
	{
		load->dora = model_dora_create(load->model, load->err);
		if (load->dora == NULL)
			return false;
	}
	for (int32_t i = 0; i < load->file->n_pairs; i++)
	{
		if (!write_pair(load, &load->file->pairs[i]))
			return false;
	}
	return true;
}

bool
llm_model_adapter_load(const LlmModel *model, const char *path,
					   int32_t max_rank, LlmModelAdapter *adapter,
					   LlmError *err)
{
	AdapterLoad load = {
		.model = model, .path = path, .adapter = adapter, .err = err
	};
	bool ok;

	memset(adapter, 0, sizeof(*adapter));
	load.file = llm_adapter_image_open(path, &model->config, err);
	ok = load.file != NULL && check_file(&load, max_rank) &&
		 create_image(&load) && fill_image(&load);
	free(load.shapes);
	free(load.numbers);
	model_dora_free(load.dora);
	llm_adapter_image_close(load.file);
	if (!ok)
		llm_model_adapter_free(model, adapter);
	return ok;
}

void
llm_model_adapter_free(const LlmModel *model, LlmModelAdapter *adapter)
{
	if (adapter->image != NULL)
		model->compute->ops->host_free(model->compute, adapter->image);
	memset(adapter, 0, sizeof(*adapter));
}
