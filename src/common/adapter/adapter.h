/*
 * adapter.h
 *	  LoRA adapters: read what PEFT writes, and what the executor serves.
 *
 * An adapter enters as a PEFT directory: adapter_config.json and
 * adapter_model.safetensors.  It is held against the base model's config once,
 * tensor by tensor, and becomes an adapter image: one safetensors file with
 * everything resolved that PEFT leaves to its reader (names, patterns, scales,
 * fused modules).  Images are what the catalog keeps and what executors map.
 *
 * An image's tensors are, in the dtype in which they came (F32, F16, BF16):
 *
 *	layers.<i>.<module>.A			[rank, n_in]
 *	layers.<i>.<module>.B			[n_out, rank]
 *	layers.<i>.<module>.magnitude	[n_out], DoRA only
 *
 * with module one of q k v o gate up down, or experts.<n>.gate, .up or .down of
 * a mixture, these without magnitudes; outside layers lm_head.A, lm_head.B and
 * embed.A [rank, n_vocab], embed.B [hidden, rank].  A module that the base
 * model stores fused (qkv_proj, gate_up_proj) is there in its parts, each with
 * a copy of A and its own rows of B.  F32 tensors come first, so that each
 * tensor is aligned to its elements.
 *
 * Its metadata: "format" (LLM_ADAPTER_FORMAT), "base" (fingerprint of the base
 * model, 64 hex digits), "config" (what an export needs of adapter_config.json,
 * as JSON) and for each pair "scale.layers.<i>.<module>": the factor of B A,
 * lora_alpha / r or lora_alpha / sqrt(r) after rank_pattern and alpha_pattern.
 *
 * What an adapter does (Hu et al. 2021; DoRA: Liu et al. 2024):
 *
 *	y = W x + scale * B (A x)
 *	DoRA:	y = m / |W + scale * B A|_row * (W x + scale * B (A x))
 *	embed:	y = E[token] + scale * B A[:, token]
 *
 * biases are added afterwards, unscaled.
 *
 * src/common/adapter/adapter.h
 */
#ifndef LLM_ADAPTER_H
#define LLM_ADAPTER_H

#include "src/common/model_dir/model_dir.h"
#include "src/common/safetensors/safetensors.h"
#include "src/common/util/strbuf.h"

#define LLM_ADAPTER_FORMAT "llm_ext adapter 1"
#define LLM_ADAPTER_MAX_RANK 1024
#define LLM_ADAPTER_MAX_CONFIG_BYTES ((size_t) 1 << 20)

typedef enum LlmAdapterModule
{
	LLM_ADAPTER_Q,
	LLM_ADAPTER_K,
	LLM_ADAPTER_V,
	LLM_ADAPTER_O,
	LLM_ADAPTER_GATE,
	LLM_ADAPTER_UP,
	LLM_ADAPTER_DOWN,
	LLM_ADAPTER_LM_HEAD, /* outside layers, this and the next */
	LLM_ADAPTER_EMBED,
	LLM_ADAPTER_EXPERT_GATE, /* of each expert of a mixture, in layers */
	LLM_ADAPTER_EXPERT_UP,
	LLM_ADAPTER_EXPERT_DOWN,
	LLM_ADAPTER_MODULE_COUNT
} LlmAdapterModule;

/* The matrices of one module. */
typedef struct LlmAdapterPair
{
	int32_t layer_idx; /* -1 outside layers */
	LlmAdapterModule module;
	int32_t expert_idx; /* of an expert's module, else 0 */
	int32_t rank;
	int64_t n_in;  /* of EMBED: n_vocab */
	int64_t n_out; /* of EMBED: hidden_size */
	float scale;
	const LlmStoredTensor *a;		  /* [rank, n_in] */
	const LlmStoredTensor *b;		  /* [n_out, rank] */
	const LlmStoredTensor *magnitude; /* [n_out]; NULL: plain LoRA */
} LlmAdapterPair;

typedef struct LlmAdapterImage
{
	LlmSafetensors *tensors; /* mapped; the pairs point into it */
	LlmAdapterPair *pairs;	 /* by layer, module, expert; layer -1 last */
	int32_t n_pairs;
	int32_t max_rank;
	bool has_dora;
	bool has_experts;
	uint8_t base[LLM_FINGERPRINT_BYTES];
	const char *config_json; /* the metadata's "config" */
} LlmAdapterImage;

/* "q", "gate", "lm_head", "expert_gate" ... */
extern const char *llm_adapter_module_name(LlmAdapterModule module);

static inline bool
llm_adapter_is_expert(LlmAdapterModule module)
{
	return module >= LLM_ADAPTER_EXPERT_GATE &&
		   module <= LLM_ADAPTER_EXPERT_DOWN;
}

/* "layers.3.q", "layers.3.experts.5.gate", "lm_head" */
#define LLM_ADAPTER_PAIR_NAME_BYTES 64
extern void llm_adapter_pair_name(int32_t layer_idx, LlmAdapterModule module,
								  int32_t expert_idx,
								  char name[LLM_ADAPTER_PAIR_NAME_BYTES]);

/*
 * The weight that a module is, and the bias beside it, which modules of layers
 * alone can have.  A tied head has no weight of its own.
 */
extern LlmWeightRole llm_adapter_module_weight(LlmAdapterModule module);
extern LlmWeightRole llm_adapter_module_bias(LlmAdapterModule module);

/*
 * Map an image and hold it against a model: every pair complete and of the
 * model's shapes, every tensor part of a pair.  Whether the image is of this
 * very model (base) is for the caller to compare.  NULL: *err.
 */
extern LlmAdapterImage *
llm_adapter_image_open(const char *path, const LlmModelConfig *config,
					   LlmError *err);
extern void llm_adapter_image_close(LlmAdapterImage *image);

/* NULL where the adapter leaves that module alone; of no expert's. */
extern const LlmAdapterPair *
llm_adapter_image_find(const LlmAdapterImage *image, int32_t layer_idx,
					   LlmAdapterModule module);

/* The same of any module; expert_idx 0 where it is no expert's. */
extern const LlmAdapterPair *
llm_adapter_image_find_expert(const LlmAdapterImage *image, int32_t layer_idx,
							  LlmAdapterModule module, int32_t expert_idx);

/* Bytes of all pairs' elements. */
extern size_t llm_adapter_image_bytes(const LlmAdapterImage *image);

/* What PEFT wrote. */
typedef struct LlmAdapterSource
{
	const char *config_json; /* text of adapter_config.json */
	size_t config_len;
	const char *tensors_path; /* adapter_model.safetensors; it is mapped, so
							   * nobody else may be able to truncate it */
} LlmAdapterSource;

/*
 * Make the image of a PEFT adapter for a base model.  Every tensor must
 * belong to a module of the model and every module that the config targets
 * must have its tensors; values must be finite.  What cannot be served as it
 * was trained is refused by name.
 */
extern bool
llm_adapter_import(const LlmAdapterSource *source, const LlmModelConfig *config,
				   const uint8_t base[LLM_FINGERPRINT_BYTES], LlmStrbuf *image,
				   LlmError *err);

typedef enum LlmAdapterProfile
{
	LLM_ADAPTER_PROFILE_PEFT, /* tensors as they came */
	LLM_ADAPTER_PROFILE_VLLM  /* one rank and one factor for all modules, F32 */
} LlmAdapterProfile;

/*
 * Write adapter_config.json and adapter_model.safetensors to an existing
 * directory that has neither.
 */
extern bool
llm_adapter_export(const LlmAdapterImage *image, const LlmModelConfig *config,
				   LlmAdapterProfile profile, const char *dir, LlmError *err);

typedef struct LlmAdapterMergeOptions
{
	bool has_dtype;
	LlmDtype dtype;				  /* F32, F16 or BF16; else each tensor's own */
	uint64_t max_shard_bytes;	  /* of tensors' data */
	bool (*is_interrupted)(void); /* asked between tensors; or NULL */
} LlmAdapterMergeOptions;

typedef struct LlmAdapterMergeReport
{
	int32_t n_merged;  /* tensors that were changed */
	int32_t n_tensors; /* of the checkpoint that was written */
	int32_t n_shards;
	double max_change;	 /* of a weight by the adapter */
	double max_rounding; /* of a weight by storing it */
} LlmAdapterMergeReport;

/*
 * Write a whole model with the adapter in its weights to an existing empty
 * directory: shards, and all that the model's directory says besides.
 * Arithmetic is in float32, rounded once, to nearest, when a weight is stored.
 * A head that is tied to the embedding is written by itself where the adapter
 * changes one of them.
 */
extern bool
llm_adapter_merge(const LlmAdapterImage *image, const LlmModelConfig *config,
				  const char *model_dir, const char *dir,
				  const LlmAdapterMergeOptions *options,
				  LlmAdapterMergeReport *report, LlmError *err);

#endif /* LLM_ADAPTER_H */
