/*
 * model_internal.h
 *	  What the files of this room share.
 *
 * src/engine/model/model_internal.h
 */
#ifndef LLM_MODEL_INTERNAL_H
#define LLM_MODEL_INTERNAL_H

#include <assert.h>

#include "src/common/adapter/adapter.h"
#include "src/common/checkpoint/checkpoint.h"
#include "src/engine/model/model.h"

/*
 * Roles before the first of these are the model's; up to before the second
 * each layer's, and the rest each expert's.
 */
#define FIRST_LAYER_ROLE LLM_WEIGHT_ATTN_NORM
#define FIRST_EXPERT_ROLE LLM_WEIGHT_EXPERT_GATE
#define N_LAYER_ROLES (FIRST_EXPERT_ROLE - FIRST_LAYER_ROLE)
#define N_EXPERT_ROLES (LLM_WEIGHT_ROLE_COUNT - FIRST_EXPERT_ROLE)

/* Weights are converted and invented by so many bytes at a time. */
#define STAGING_BYTES ((size_t) 1 << 20)

typedef enum WeightOwner
{
	WEIGHT_BORROWED, /* absent, or another weight's data (a tied head) */
	WEIGHT_MAPPED,	 /* by ops->weight, in a mapped file */
	WEIGHT_ALLOCATED /* by ops->alloc or weight_alloc */
} WeightOwner;

typedef struct ModelWeight
{
	const void *data; /* device; NULL where the family has none */
	LlmDtype dtype;
	WeightOwner owner;
	int64_t n_rows;
	int64_t n_cols; /* 0 = a vector */
} ModelWeight;

/* The buffers of a step, carved from one allocation. */
typedef enum ModelBuffer
{
	BUFFER_RESIDUAL,	  /* [n_tokens, hidden] */
	BUFFER_X,			  /* [n_tokens, hidden] normed, or a block's output */
	BUFFER_Q,			  /* [n_tokens, all heads of q, k and v] */
	BUFFER_K,			  /* within BUFFER_Q */
	BUFFER_V,			  /* likewise */
	BUFFER_ATTENTION,	  /* [n_tokens, n_heads * head_dim] */
	BUFFER_GATE,		  /* [n_tokens, intermediate of gate and of up] */
	BUFFER_UP,			  /* within BUFFER_GATE */
	BUFFER_INNER,		  /* [n_tokens, intermediate] */
	BUFFER_EXPERT_X,	  /* [n_tokens, hidden] normed, of a mixture */
	BUFFER_ROUTER,		  /* [n_tokens, n_experts] f32 */
	BUFFER_ROW_ATTENTION, /* [n_logit_rows, n_heads * head_dim] */
	BUFFER_ROW_RESIDUAL,  /* [n_logit_rows, hidden] */
	BUFFER_LOGITS,		  /* [n_logit_rows, n_vocab] f32 */
	BUFFER_SUMS,		  /* [n_logit_rows, hidden] f32 */
	BUFFER_COUNT
} ModelBuffer;

/* The rotations of one rotary embedding. */
typedef struct RopeTable
{
	const LlmRopeConfig *rope;
	float *cos_sin; /* device [n_rows, rotary_dim] */
	float *staging; /* host [n_staged, rotary_dim] */
	int32_t len;	/* of the sequence that these are for; 0 = none yet */
	float inv_freq[LLM_MAX_HEAD_DIM / 2];
	float attention_factor;
} RopeTable;

/* What the rows of the tables stand for; see rope_table.c. */
typedef struct RopeRows
{
	int32_t n_short;
	int32_t n_long;
	int32_t n_step;
	int32_t n_staged;
	int32_t *of_tokens; /* host [max_num_batched_tokens] */
	RopeTable table;
	RopeTable sliding_table; /* where has_sliding_rope; the same rows */
} RopeRows;

struct LlmModel
{
	LlmModelConfig config;
	LlmModelOptions options;
	LlmCompute *compute;	/* borrowed */
	LlmCheckpoint *tensors; /* NULL with dummy weights */
	ModelWeight shared[FIRST_LAYER_ROLE];
	ModelWeight (*layers)[N_LAYER_ROLES];
	ModelWeight *experts; /* [n_layers, N_EXPERT_ROLES, n_experts], or NULL */
	LlmMatrix *expert_matrices; /* the same, as operations take them */
	RopeRows rope;
	uint8_t fingerprint[LLM_FINGERPRINT_BYTES]; /* that adapters name */
	char *workspace;
	void *buffers[BUFFER_COUNT];
	size_t weight_bytes;
	size_t workspace_bytes;
	bool timing_enabled;
	LlmModelTiming timing;
};

/* The first expert's; the layer's others follow. */
static inline size_t
model_expert_idx(const LlmModel *model, LlmWeightRole role, int32_t layer_idx)
{
	assert(role >= FIRST_EXPERT_ROLE && layer_idx >= 0);
	return ((size_t) layer_idx * N_EXPERT_ROLES + role - FIRST_EXPERT_ROLE) *
		   (size_t) model->config.n_experts;
}

/* The weight of a role that is no expert's. */
static inline ModelWeight *
model_weight(LlmModel *model, LlmWeightRole role, int32_t layer_idx)
{
	assert(role < FIRST_EXPERT_ROLE);
	return role < FIRST_LAYER_ROLE
			   ? &model->shared[role]
			   : &model->layers[layer_idx][role - FIRST_LAYER_ROLE];
}

static inline ModelWeight *
model_weight_of(LlmModel *model, const LlmWeightSpec *spec)
{
	return spec->expert_idx < 0
			   ? model_weight(model, spec->role, spec->layer_idx)
			   : &model->experts[model_expert_idx(model, spec->role,
												  spec->layer_idx) +
								 (size_t) spec->expert_idx];
}

/* model_weights.c: fill every weight from the checkpoint, or invent it */
extern bool model_weights_load(LlmModel *model, const char *dir, LlmError *err);
extern void model_weights_free(LlmModel *model);

/*
 * dummy_weights.c: elements first .. first + n - 1 of a weight, written to
 * dest in its dtype.
 */
typedef struct DummyWeight
{
	uint64_t seed;
	int weight_idx;
	bool is_constant; /* all elements are "constant": norms */
	float constant;
	LlmDtype dtype;
} DummyWeight;

/* The same for a device that does it itself, all of a weight; not for norms. */
extern LlmFillNormalArgs
dummy_weight_args(const DummyWeight *weight, void *dest, int64_t n);

extern void dummy_weight_fill(const DummyWeight *weight, int64_t first,
							  int64_t n, void *dest);

/*
 * dst[i] = src[i] in another format; both may be unaligned.  From a block
 * format n is a multiple of the block's elements.
 */
extern void weight_convert(const void *src, LlmDtype from, void *dest,
						   LlmDtype to, int64_t n);

/* ---- where a weight's elements come from, chunk by chunk ---- */
typedef struct WeightSource
{
	const void *stored; /* the weight's first element, or NULL */
	LlmDtype stored_dtype;
	const LlmNf4Stored *nf4; /* the tensor's parts, where that is NF4 ... */
	int64_t nf4_first;		 /* ... and the weight's first element in it */
	DummyWeight dummy;
	LlmDtype dtype; /* to be made */
} WeightSource;

/*
 * Elements first .. first + n - 1, in the source's dtype.  Of stored blocks
 * both are multiples of a block's elements.
 */
extern void weight_source_fill(const WeightSource *source, int64_t first,
							   int64_t n, void *dest);

/* model_weights.c: where the weight weight_idx, which spec describes, is */
extern WeightSource
model_weight_source(const LlmModel *model, const LlmWeightSpec *spec,
					int weight_idx);

/* The checkpoint, and what follows from it for the options. */
extern bool
model_open_checkpoint(LlmModel *model, const char *dir, LlmError *err);

/* What a weight takes on the device. */
extern size_t model_weight_bytes(const LlmModel *model,
								 const LlmWeightSpec *spec, LlmDtype dtype);

/* What a weight that is not quantized becomes: as stored, or converted. */
extern LlmDtype
model_float_dtype(const LlmModel *model, const LlmWeightSpec *spec,
				  const WeightSource *source);

/* ---- model_adapter.c, model_dora.c ---- */

/* An adapter changes so many modules of a layer: q k v o gate up down. */
#define LORA_LAYER_MODULES ((int32_t) LLM_ADAPTER_LM_HEAD)

static inline int32_t
model_lora_module(int32_t layer_idx, LlmAdapterModule module)
{
	assert(layer_idx >= 0 && module < LLM_ADAPTER_LM_HEAD);
	return layer_idx * LORA_LAYER_MODULES + (int32_t) module;
}

/* The head's is behind those of all layers, the embedding's the last. */
static inline int32_t
model_lora_head(const LlmModelConfig *config)
{
	return config->n_layers * LORA_LAYER_MODULES;
}

static inline int32_t
model_lora_embed(const LlmModelConfig *config)
{
	return model_lora_head(config) + 1;
}

/* A pair's numbers as f32, the scale in "up". */
typedef struct PairNumbers
{
	float *down; /* [rank, n_in] */
	float *up;	 /* [n_out, rank] */
	float *gain; /* [n_out] */
} PairNumbers;

/*
 * gain[o] = magnitude[o] / |W_o + (B A)_o|, of the module's weight W: what
 * DoRA makes of a row (Liu et al. 2024, eq. 5).
 */
typedef struct DoraWork DoraWork;
extern DoraWork *model_dora_create(const LlmModel *model, LlmError *err);
extern void model_dora_free(DoraWork *work);
extern bool model_dora_gain(DoraWork *work, const LlmAdapterPair *pair,
							const PairNumbers *numbers, LlmError *err);

/* ---- model_quantize.c ---- */

/*
 * What a weight is kept as: int8, int4 or int4_k, or source->dtype where it
 * stays floats.
 */
extern LlmDtype
model_quantized_dtype(const LlmModel *model, const LlmWeightSpec *spec,
					  const WeightSource *source);

/* Make such a weight; the weight's shape is set. */
extern bool model_quantize_weight(LlmModel *model, const LlmWeightSpec *spec,
								  const WeightSource *source, LlmDtype dtype,
								  LlmError *err);

/* ---- model_nf4.c ---- */

/* Whether the options make a weight NF4, or leave it so. */
extern bool model_is_nf4(const LlmModel *model, const LlmWeightSpec *spec,
						 const WeightSource *source);
extern bool model_nf4_weight(LlmModel *model, const LlmWeightSpec *spec,
							 const WeightSource *source, LlmError *err);

/*
 * rope_frequencies.c: the frequencies [rotary_dim / 2] in a sequence of len
 * tokens, and the factor on all cosines and sines.
 */
extern void model_rope_frequencies(const LlmRopeConfig *rope, int32_t len,
								   float *inv_freq, float *attention_factor);

/* rope_table.c */
extern bool model_rope_create(LlmModel *model, LlmError *err);
extern void model_rope_free(LlmModel *model);

#endif /* LLM_MODEL_INTERNAL_H */
