/*
 * model.h
 *	  A loaded model: weights on a device and the forward pass over them.
 *
 * One forward pass serves every family; what differs between families is in
 * LlmModelConfig.  A model is used by the step loop alone.
 *
 * src/engine/model/model.h
 */
#ifndef LLM_MODEL_H
#define LLM_MODEL_H

#include "src/common/model_dir/model_dir.h"
#include "src/engine/compute/compute.h"

typedef struct LlmModel LlmModel;

typedef struct LlmModelOptions
{
	LlmDtype weight_dtype; /* what weights are kept as: the checkpoint's
								 * dtype is used in place where it is equal or
								 * narrower, and converted otherwise */
	bool dummy_weights;	   /* random weights from the config alone */
	uint64_t dummy_seed;
	int32_t max_model_len; /* positions that rope tables must cover */
	int32_t max_num_batched_tokens;
	int32_t max_logit_rows;
} LlmModelOptions;

/*
 * Map and check every tensor (names, shapes, dtypes; each must be used or be
 * known to be harmless), then bring them to the device.  compute is borrowed
 * and outlives the model.  NULL: *err names the file and the tensor.
 */
extern LlmModel *llm_model_load(const char *dir, const LlmModelConfig *config,
								const LlmModelOptions *options,
								LlmCompute *compute, LlmError *err);
extern void llm_model_free(LlmModel *model);

extern const LlmModelConfig *llm_model_config(const LlmModel *model);

/* Bytes of weights and of workspace on the device. */
extern size_t llm_model_weight_bytes(const LlmModel *model);
extern size_t llm_model_workspace_bytes(const LlmModel *model);

/*
 * Run one step: embeds the step's tokens, passes all layers, appends to the
 * cache, and leaves the logits of step->logit_rows in the model's logits
 * buffer [n_logit_rows, n_vocab] f32 (device), which *logits points to.
 */
extern bool llm_model_forward(LlmModel *model, const LlmStepInputs *step,
							  LlmKvCache *kv, float **logits, LlmError *err);

#endif /* LLM_MODEL_H */
