/*
 * adapter_internal.h
 *	  What the files of the adapter room share.
 *
 * src/common/adapter/adapter_internal.h
 */
#ifndef LLM_ADAPTER_INTERNAL_H
#define LLM_ADAPTER_INTERNAL_H

#include "src/common/adapter/adapter.h"
#include "src/common/util/arena.h"
#include "src/common/util/json.h"

/* q, k and v in one */
#define ADAPTER_MAX_PARTS 3

#define ADAPTER_NAME_BYTES 160

/* A module of the model's code: one linear layer, perhaps several weights. */
typedef struct AdapterTarget
{
	char name[ADAPTER_NAME_BYTES]; /* "model.layers.0.self_attn.q_proj" */
	const char *plain;			   /* what adapter_plain_name leaves of it */
	int32_t layer_idx;			   /* -1 outside layers */
	int32_t expert_idx;			   /* 0 where it is no expert's */
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
 * The modules of a model that adapters may change, by layer, module and
 * expert, those outside layers last; malloc'ed.  NULL: out of memory.
 */
extern AdapterTarget *adapter_targets_list(const LlmModelConfig *config,
										   int *n_targets, LlmError *err);

/* The same by plain name, malloc'ed; the targets are borrowed. */
extern const AdapterTarget **
adapter_targets_by_name(const AdapterTarget *targets, int n_targets,
						LlmError *err);

/* NULL where there is no such module. */
extern const AdapterTarget *
adapter_target_find(const AdapterTarget *const *by_name, int n_targets,
					const char *plain);

/*
 * What is left of a module's or tensor's name without the prefixes that
 * differ between versions of transformers and kinds of models: "layers.0...",
 * "embed_tokens", "lm_head".  It is the name's end.
 */
extern const char *adapter_plain_name(const char *name);

/* -- adapter_stack.c -- */

/* A layer's pairs for all experts at once; no tensors: there are none. */
typedef struct AdapterStack
{
	const LlmStoredTensor *a; /* [n_experts * rank, n_in] */
	const LlmStoredTensor *b; /* [n_out, rank * n_experts] */
	bool is_gate_up;		  /* else it is of down; once it is checked */
} AdapterStack;

/*
 * Which of stacks [n_layers, 2] a module's plain name means; NULL: it is none
 * of the experts of a mixture.
 */
extern AdapterStack *
adapter_stack_find(const LlmModelConfig *config, AdapterStack *stacks,
				   const char *plain);
extern bool adapter_stack_check(const LlmModelConfig *config,
								AdapterStack *stack, LlmError *err);

/* "experts.gate_up_proj", "experts.down_proj" */
extern const char *adapter_stack_parameter(const AdapterStack *stack);

/* Whether a checked stack, or an empty one, has an expert's module. */
extern bool
adapter_stack_has(const AdapterStack *stack, LlmAdapterModule module);

/* A target's own A, in the stack's data, and B, copied; false: no memory. */
extern void
adapter_stack_a(const AdapterStack *stack, const AdapterTarget *target,
				int32_t n_experts, LlmStoredTensor *a);
extern bool
adapter_stack_b(const AdapterStack *stack, const AdapterTarget *target,
				int32_t n_experts, LlmArena *arena, LlmStoredTensor *b);

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
	const cJSON *targets;		/* array of names, or a string: a regex; NULL
								 * where there are parameters */
	const cJSON *parameters;	/* of experts; array of names, or NULL */
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

/* Whether it says that of a parameter of experts. */
extern bool
peft_config_targets_parameter(const PeftConfig *config, const char *parameter);

/* The module's rank and factor, patterns considered. */
extern bool peft_config_scale(const PeftConfig *config, const char *module_name,
							  int32_t *rank, double *scale, LlmError *err);

/* The keys that an export repeats, as a new object; NULL: out of memory. */
extern cJSON *peft_config_minimal(const PeftConfig *config);

/*
 * Say in such an object that modules of a name are targets, too, with that
 * rank and factor; false: out of memory.
 */
extern bool
peft_config_add_target(const PeftConfig *config, cJSON *minimal,
					   const char *name, int32_t rank, double scale);

/* -- adapter_image.c -- */

/* The image's pair of a part; NULL: the adapter leaves it alone. */
extern const LlmAdapterPair *
adapter_pair_of_part(const LlmAdapterImage *image, const AdapterTarget *target,
					 int part);

/* Element idx of a float tensor, whatever its dtype and alignment. */
extern float adapter_element(const LlmStoredTensor *tensor, size_t idx);

#endif /* LLM_ADAPTER_INTERNAL_H */
