/*
 * model_access.c
 *	  A loaded model's parts, for those that pass through it on their own.
 *
 * src/engine/model/model_access.c
 */
#include <assert.h>

#include "src/common/util/half_float.h"
#include "src/engine/model/model_internal.h"

LlmMatrix
llm_model_matrix(LlmModel *model, LlmWeightRole role, int32_t layer_idx)
{
	const ModelWeight *weight = model_weight(model, role, layer_idx);

	assert(weight->data != NULL && weight->n_cols > 0);
	return (LlmMatrix){ weight->data, weight->dtype, weight->n_rows,
						weight->n_cols };
}

LlmVector
llm_model_vector(LlmModel *model, LlmWeightRole role, int32_t layer_idx)
{
	const ModelWeight *weight = model_weight(model, role, layer_idx);

	assert(weight->n_cols == 0);
	return (LlmVector){ weight->data, weight->dtype, weight->n_rows };
}

const LlmMatrix *
llm_model_experts(const LlmModel *model, LlmWeightRole role, int32_t layer_idx)
{
	return model->expert_matrices + model_expert_idx(model, role, layer_idx);
}

const LlmRopeConfig *
llm_model_rope(const LlmModel *model, int32_t layer_idx, const float **cos_sin)
{
	const LlmModelConfig *config = &model->config;
	bool slides = config->has_sliding_rope &&
				  llm_layer_set_has(&config->sliding_layers, layer_idx);

	*cos_sin =
		slides ? model->rope.sliding_table.cos_sin : model->rope.table.cos_sin;
	return slides ? &config->sliding_rope : &config->rope;
}

LlmActivation
llm_model_activation(const LlmModel *model)
{
	switch (model->config.hidden_act)
	{
		case LLM_HIDDEN_ACT_SILU:
			return LLM_ACTIVATION_SILU;
		case LLM_HIDDEN_ACT_GELU:
			return LLM_ACTIVATION_GELU;
		case LLM_HIDDEN_ACT_GELU_TANH:
			return LLM_ACTIVATION_GELU_TANH;
	}
	assert(false);
	return LLM_ACTIVATION_SILU;
}

/*
 * transformers keeps the factor in the dtype it computes in, and Gemma was
 * trained that way: sqrt(3072) is 55.5 in bfloat16.
 */
float
llm_model_embed_scale(const LlmModel *model)
{
	float scale = (float) model->config.embed_scale;

	return model->compute->precision == LLM_DTYPE_BF16
			   ? llm_bf16_to_float(llm_float_to_bf16(scale))
			   : scale;
}

LlmCompute *
llm_model_compute(const LlmModel *model)
{
	return model->compute;
}

const LlmModelOptions *
llm_model_options(const LlmModel *model)
{
	return &model->options;
}

const uint8_t *
llm_model_fingerprint_of(const LlmModel *model)
{
	return model->fingerprint;
}
