/*
 * model.c
 *	  Load and free a model.
 *
 * The siblings: model_weights.c brings weights to the device and
 * dummy_weights.c makes them up, rope_table.c computes the rotary table,
 * model_forward.c is the forward pass; model_adapter.c and model_dora.c
 * prepare adapters.
 *
 * Everything a step needs is allocated here, for the largest step that the
 * options allow; the forward pass allocates nothing.
 *
 * src/engine/model/model.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/engine/model/model_internal.h"

/* Inner values of a layer whose MLP is no mixture; 0 where there is none. */
static size_t
widest_mlp(const LlmModelConfig *config)
{
	for (int32_t i = 0; i < config->n_layers; i++)
	{
		if (!llm_layer_set_has(&config->expert_layers, i))
			return (size_t) config->intermediate_size;
	}
	return 0;
}

/* Bytes of each buffer for the largest step. */
static void
buffer_sizes(const LlmModelConfig *config, const LlmModelOptions *options,
			 size_t activation, size_t sizes[BUFFER_COUNT])
{
	size_t token = activation * (size_t) options->max_num_batched_tokens;
	size_t row = activation * (size_t) options->max_logit_rows;
	size_t q_dim = (size_t) config->n_heads * (size_t) config->head_dim;
	size_t kv_dim = (size_t) config->n_kv_heads * (size_t) config->head_dim;

	sizes[BUFFER_RESIDUAL] = token * (size_t) config->hidden_size;
	sizes[BUFFER_X] = token * (size_t) config->hidden_size;
	sizes[BUFFER_Q] = token * (q_dim + 2 * kv_dim);
	sizes[BUFFER_K] = sizes[BUFFER_V] = 0;
	sizes[BUFFER_ATTENTION] = token * q_dim;
	sizes[BUFFER_GATE] = 2 * token * widest_mlp(config);
	sizes[BUFFER_UP] = 0;
	sizes[BUFFER_INNER] = token * widest_mlp(config);
	sizes[BUFFER_EXPERT_X] =
		config->n_experts > 0 ? token * (size_t) config->hidden_size : 0;
	sizes[BUFFER_ROUTER] = sizeof(float) *
						   (size_t) options->max_num_batched_tokens *
						   (size_t) config->n_experts;
	sizes[BUFFER_ROW_ATTENTION] = row * q_dim;
	sizes[BUFFER_ROW_RESIDUAL] = row * (size_t) config->hidden_size;
	sizes[BUFFER_LOGITS] = sizeof(float) * (size_t) options->max_logit_rows *
						   (size_t) config->n_vocab;
	sizes[BUFFER_SUMS] = sizeof(float) * (size_t) options->max_logit_rows *
						 (size_t) config->hidden_size;
}

size_t
llm_model_activation_bytes(const LlmModelConfig *config,
						   const LlmModelOptions *options, LlmDtype dtype)
{
	size_t sizes[BUFFER_COUNT];
	size_t total = 0;

	buffer_sizes(config, options, llm_dtype_bytes(dtype), sizes);
	for (int i = 0; i < BUFFER_COUNT; i++)
		total += (sizes[i] + 63) & ~(size_t) 63;
	return total;
}

/* Those that lie in another one's rows. */
static void
place_inner_buffers(LlmModel *model)
{
	const LlmModelConfig *config = &model->config;
	size_t activation = llm_dtype_bytes(model->compute->activation_dtype);
	size_t head = (size_t) config->head_dim * activation;
	char *q = model->buffers[BUFFER_Q];
	char *gate = model->buffers[BUFFER_GATE];

	model->buffers[BUFFER_K] = q + (size_t) config->n_heads * head;
	model->buffers[BUFFER_V] =
		q + (size_t) (config->n_heads + config->n_kv_heads) * head;
	model->buffers[BUFFER_UP] = gate + widest_mlp(config) * activation;
}

static bool
create_workspace(LlmModel *model, LlmError *err)
{
	LlmDtype dtype = model->compute->activation_dtype;
	size_t sizes[BUFFER_COUNT];
	size_t total =
		llm_model_activation_bytes(&model->config, &model->options, dtype);

	buffer_sizes(&model->config, &model->options, llm_dtype_bytes(dtype),
				 sizes);
	model->workspace = model->compute->ops->alloc(
		model->compute, total, "the activations of a step", err);
	if (model->workspace == NULL)
		return false;
	model->workspace_bytes += total;
	total = 0;
	for (int i = 0; i < BUFFER_COUNT; i++)
	{
		model->buffers[i] = model->workspace + total;
		total += (sizes[i] + 63) & ~(size_t) 63;
	}
	place_inner_buffers(model);
	return true;
}

static bool
check_options(const LlmModelOptions *options, LlmError *err)
{
	assert(options->max_num_batched_tokens > 0);
	assert(options->max_logit_rows > 0);
	assert(options->max_model_len > 0);
	if (options->weight_dtype > LLM_DTYPE_BF16)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "weights of dtype \"%s\" are not supported",
							 llm_dtype_name(options->weight_dtype));
	return true;
}

LlmModel *
llm_model_load(const char *dir, const LlmModelConfig *config,
			   const LlmModelOptions *options, LlmCompute *compute,
			   LlmError *err)
{
	LlmModel *model;

	if (!check_options(options, err))
		return NULL;
	model = calloc(1, sizeof(*model));
	if (model == NULL)
	{
		llm_error_no_memory(err, sizeof(*model), "a model");
		return NULL;
	}
	model->config = *config;
	model->options = *options;
	model->compute = compute;
	/* a step has no more logit rows than tokens */
	if (model->options.max_logit_rows > options->max_num_batched_tokens)
		model->options.max_logit_rows = options->max_num_batched_tokens;
	if (!model_weights_load(model, dir, err) ||
		(!options->dummy_weights &&
		 !llm_model_fingerprint(config, dir, model->fingerprint, err)) ||
		!model_rope_create(model, err) || !create_workspace(model, err))
	{
		llm_model_free(model);
		return NULL;
	}
	return model;
}

void
llm_model_free(LlmModel *model)
{
	if (model == NULL)
		return;
	model_weights_free(model);
	model_rope_free(model);
	if (model->workspace != NULL)
		model->compute->ops->free(model->compute, model->workspace);
	free(model);
}

const LlmModelConfig *
llm_model_config(const LlmModel *model)
{
	return &model->config;
}

size_t
llm_model_weight_bytes(const LlmModel *model)
{
	return model->weight_bytes;
}

size_t
llm_model_workspace_bytes(const LlmModel *model)
{
	return model->workspace_bytes;
}

void
llm_model_set_timing(LlmModel *model, bool enabled)
{
	model->timing_enabled = enabled;
	memset(&model->timing, 0, sizeof(model->timing));
}

const LlmModelTiming *
llm_model_timing(const LlmModel *model)
{
	return &model->timing;
}
