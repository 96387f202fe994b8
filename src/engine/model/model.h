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

/* What becomes of matrices; vectors and routers stay floats. */
typedef enum LlmQuantization
{
	LLM_QUANTIZATION_DECODE, /* floats, also of stored blocks */
	LLM_QUANTIZATION_NONE,	 /* as stored: blocks stay what they are */
	LLM_QUANTIZATION_INT8,	 /* floats become int8 */
	LLM_QUANTIZATION_INT4,	 /* floats and 8-bit blocks become int4 */
	/* layers' projections become NF4 (nf4.h), nested or not: for training */
	LLM_QUANTIZATION_NF4,
	LLM_QUANTIZATION_NF4_NESTED
} LlmQuantization;

typedef struct LlmModelOptions
{
	LlmDtype weight_dtype; /* what weights are kept as: the checkpoint's
								 * dtype is used in place where it is equal or
								 * narrower, and converted otherwise */
	LlmQuantization quantization;
	int32_t n_threads; /* that quantize weights; 0: what the process may use */
	bool weights_are_there; /* in the arena that the backend has borrowed */
	bool dummy_weights;		/* random weights from the config alone */
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

/*
 * What lies in a GPU's arena once a model is loaded, and where: processes that
 * find the same digest can use one copy.  It covers the checkpoint's files,
 * values of every matrix, and name, format and place of each weight.
 */
typedef struct LlmWeightKey
{
	uint8_t digest[32];
	uint64_t n_bytes; /* of the arena, taken by weights */
} LlmWeightKey;

/* What weights will take on a GPU. */
extern bool
llm_model_plan_weights(const char *dir, const LlmModelConfig *config,
					   const LlmModelOptions *options, size_t *n_bytes,
					   LlmError *err);

/* False for weights that are not all floats on the device. */
extern bool llm_model_weight_key(const char *dir, const LlmModelConfig *config,
								 const LlmModelOptions *options,
								 LlmWeightKey *key, LlmError *err);

extern const LlmModelConfig *llm_model_config(const LlmModel *model);

/*
 * Parts of a model, as operations take them.  A vector that the model lacks
 * has data NULL.
 */
extern LlmMatrix
llm_model_matrix(LlmModel *model, LlmWeightRole role, int32_t layer_idx);
extern LlmVector
llm_model_vector(LlmModel *model, LlmWeightRole role, int32_t layer_idx);

/* [n_experts] of a mixture's layer: their gates, ups or downs. */
extern const LlmMatrix *
llm_model_experts(const LlmModel *model, LlmWeightRole role, int32_t layer_idx);

/* A layer's rotary embedding, and the table that rope_rows count in. */
extern const LlmRopeConfig *
llm_model_rope(const LlmModel *model, int32_t layer_idx, const float **cos_sin);

/* The MLP's activation, and the factor on embeddings. */
extern LlmActivation llm_model_activation(const LlmModel *model);
extern float llm_model_embed_scale(const LlmModel *model);
extern LlmCompute *llm_model_compute(const LlmModel *model);
extern const LlmModelOptions *llm_model_options(const LlmModel *model);

/* [LLM_FINGERPRINT_BYTES] what adapters for the model name. */
extern const uint8_t *llm_model_fingerprint_of(const LlmModel *model);

/* Bytes of weights and of workspace on the device. */
extern size_t llm_model_weight_bytes(const LlmModel *model);
extern size_t llm_model_workspace_bytes(const LlmModel *model);

/*
 * Choose the rotation of a step's tokens, before its arrays are uploaded:
 * sets step->rope_rows (valid until the next call) and computes what rows of
 * the rotary tables are missing.  The token at position p of sequence s is
 * rotated as part of max(rope_len[s], p + 1) tokens: rope_len[s], of host
 * arrays as all here, is the length of its first forward pass.
 */
extern bool llm_model_rotate_step(LlmModel *model, LlmStepInputs *step,
								  const int32_t *rope_len, LlmError *err);

/* What the activations of the largest step will take, before loading. */
extern size_t
llm_model_activation_bytes(const LlmModelConfig *config,
						   const LlmModelOptions *options, LlmDtype dtype);

/*
 * Run one step: embeds the step's tokens, passes all layers, appends to the
 * cache, and leaves the logits of step->logit_rows, unless it skips_logits, in
 * the model's logits buffer [n_logit_rows, n_vocab] f32 (device), which
 * *logits points to.  Where step->token_lora is set, tokens with an adapter
 * pass through the model that it makes of this one.
 */
extern bool llm_model_forward(LlmModel *model, const LlmStepInputs *step,
							  LlmKvCache *kv, float **logits, LlmError *err);

/*
 * Sums of the last hidden states, behind the final norm, of the step that
 * was passed forward last: ranges are of its tokens where it keeps_all_rows,
 * else of its logit rows.  sums [n_ranges, hidden_size] is on the host; at
 * most max_logit_rows ranges.  Waits for the device.
 */
extern bool llm_model_sum_hidden(LlmModel *model, const LlmRowRange *ranges,
								 int32_t n_ranges, float *sums, LlmError *err);

/*
 * Adapters.  An image's modules are those of LlmAdapterModule without EMBED,
 * layer by layer; that of the head comes last.
 */
typedef struct LlmModelAdapter
{
	void *image; /* in memory of ops->host_alloc */
	size_t n_bytes;
	int32_t max_rank; /* of its modules, as they are */
} LlmModelAdapter;

/*
 * Make the image of an adapter for this model from the file that the catalog
 * keeps.  Any thread may do it, steps or not.  What cannot be served is an
 * error that names it: another base model, a rank above max_rank, a changed
 * embedding, numbers that are not finite.
 */
extern bool llm_model_adapter_load(const LlmModel *model, const char *path,
								   int32_t max_rank, LlmModelAdapter *adapter,
								   LlmError *err);
extern void
llm_model_adapter_free(const LlmModel *model, LlmModelAdapter *adapter);

/* Bytes of an image that changes every module with rank max_rank. */
extern size_t
llm_model_adapter_max_bytes(const LlmModelConfig *config,
							const LlmLoraFormat *format, int32_t max_rank);

/* Where the time of forward passes went, in us since timing was enabled. */
typedef enum LlmModelPart
{
	LLM_PART_EMBED,
	LLM_PART_NORM,
	LLM_PART_QKV,
	LLM_PART_ROPE_KV,
	LLM_PART_ATTENTION,
	LLM_PART_O,
	LLM_PART_GATE_UP,
	LLM_PART_ACTIVATION,
	LLM_PART_DOWN,
	LLM_PART_ROUTER,
	LLM_PART_EXPERTS,
	LLM_PART_GATHER,
	LLM_PART_LM_HEAD,
	LLM_PART_COUNT
} LlmModelPart;

typedef struct LlmModelTiming
{
	int64_t part_us[LLM_PART_COUNT];
	int64_t n_steps;
} LlmModelTiming;

/*
 * Off at first.  While on, every operation is waited for, which slows a GPU
 * down.  Enabling resets the sums.
 */
extern void llm_model_set_timing(LlmModel *model, bool enabled);
extern const LlmModelTiming *llm_model_timing(const LlmModel *model);
extern const char *llm_model_part_name(LlmModelPart part);

#endif /* LLM_MODEL_H */
