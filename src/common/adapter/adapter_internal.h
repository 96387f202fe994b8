/*
 * adapter_internal.h
 *	  What the files of the adapter room share.
 *
 * src/common/adapter/adapter_internal.h
 */
#ifndef LLM_ADAPTER_INTERNAL_H
#define LLM_ADAPTER_INTERNAL_H

#include "src/common/adapter/adapter.h"
#include "src/common/util/json.h"

/* q, k and v in one */
#define ADAPTER_MAX_PARTS 3

#define ADAPTER_NAME_BYTES 160

/* A module of the model's code: one linear layer, perhaps several weights. */
typedef struct AdapterTarget
{
	char name[ADAPTER_NAME_BYTES]; /* "model.layers.0.self_attn.q_proj" */
	int32_t layer_idx;			   /* -1 outside layers */
	int64_t n_in;
	int64_t n_out; /* of all parts together */
	int n_parts;
	struct
	{
		LlmAdapterModule module;
		int64_t first_row;
		int64_t n_rows;
	} parts[ADAPTER_MAX_PARTS];
} AdapterTarget;

/* -- adapter_targets.c -- */

/*
 * The modules of a model that adapters may change, by layer, those outside
 * layers last; malloc'ed.  NULL: out of memory.
 */
extern AdapterTarget *adapter_targets_list(const LlmModelConfig *config,
										   int *n_targets, LlmError *err);

/*
 * What is left of a module's or tensor's name without the prefixes that
 * differ between versions of transformers and kinds of models: "layers.0...",
 * "embed_tokens", "lm_head".
 */
extern void
adapter_plain_name(const char *name, char plain[ADAPTER_NAME_BYTES]);

/* -- adapter_config.c -- */

/* adapter_config.json, checked. */
typedef struct PeftConfig
{
	cJSON *json;
	int32_t rank;
	double alpha;
	bool is_rslora;
	bool is_dora;
	const cJSON *rank_pattern;	/* object or NULL */
	const cJSON *alpha_pattern; /* likewise */
	const cJSON *targets;		/* array of names, or a string: a regex */
	const cJSON *excluded;		/* likewise, or NULL */
	const cJSON *layers;		/* numbers; NULL: all */
} PeftConfig;

extern bool peft_config_read(const char *text, size_t len, PeftConfig *config,
							 LlmError *err);
extern void peft_config_free(PeftConfig *config);

/* Whether the config says that this module has an adapter. */
extern bool
peft_config_targets(const PeftConfig *config, const AdapterTarget *target,
					bool *is_target, LlmError *err);

/* The module's rank and factor, patterns considered. */
extern bool peft_config_scale(const PeftConfig *config, const char *module_name,
							  int32_t *rank, double *scale, LlmError *err);

/* The keys that an export repeats, as a new object; NULL: out of memory. */
extern cJSON *peft_config_minimal(const PeftConfig *config);

/* -- adapter_image.c -- */

/* "layers.3.q", "lm_head" */
extern void adapter_pair_name(int32_t layer_idx, LlmAdapterModule module,
							  char name[ADAPTER_NAME_BYTES]);

/* Element idx of a float tensor, whatever its dtype and alignment. */
extern float adapter_element(const LlmStoredTensor *tensor, size_t idx);

#endif /* LLM_ADAPTER_INTERNAL_H */
