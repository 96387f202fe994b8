/*
 * adapter_targets.c
 *	  The modules of a model that adapters may change.
 *
 * They follow from the family's list of weights: a module is a weight, or all
 * weights that are stored as one tensor, by the tensor's name without
 * ".weight".  Experts of mixtures have a module for each of their weights,
 * whatever a library makes of them in memory.
 *
 * src/common/adapter/adapter_targets.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/adapter/adapter_internal.h"

static const struct
{
	LlmWeightRole weight;
	LlmWeightRole bias; /* the weight's own role: there is none */
} module_roles[LLM_ADAPTER_MODULE_COUNT] = {
	[LLM_ADAPTER_Q] = { LLM_WEIGHT_Q, LLM_WEIGHT_Q_BIAS },
	[LLM_ADAPTER_K] = { LLM_WEIGHT_K, LLM_WEIGHT_K_BIAS },
	[LLM_ADAPTER_V] = { LLM_WEIGHT_V, LLM_WEIGHT_V_BIAS },
	[LLM_ADAPTER_O] = { LLM_WEIGHT_O, LLM_WEIGHT_O_BIAS },
	[LLM_ADAPTER_GATE] = { LLM_WEIGHT_GATE, LLM_WEIGHT_GATE_BIAS },
	[LLM_ADAPTER_UP] = { LLM_WEIGHT_UP, LLM_WEIGHT_UP_BIAS },
	[LLM_ADAPTER_DOWN] = { LLM_WEIGHT_DOWN, LLM_WEIGHT_DOWN_BIAS },
	[LLM_ADAPTER_LM_HEAD] = { LLM_WEIGHT_LM_HEAD, LLM_WEIGHT_LM_HEAD },
	[LLM_ADAPTER_EMBED] = { LLM_WEIGHT_EMBED, LLM_WEIGHT_EMBED },
	[LLM_ADAPTER_EXPERT_GATE] = { LLM_WEIGHT_EXPERT_GATE,
								  LLM_WEIGHT_EXPERT_GATE },
	[LLM_ADAPTER_EXPERT_UP] = { LLM_WEIGHT_EXPERT_UP, LLM_WEIGHT_EXPERT_UP },
	[LLM_ADAPTER_EXPERT_DOWN] = { LLM_WEIGHT_EXPERT_DOWN,
								  LLM_WEIGHT_EXPERT_DOWN },
};

LlmWeightRole
llm_adapter_module_weight(LlmAdapterModule module)
{
	assert((int) module >= 0 && module < LLM_ADAPTER_MODULE_COUNT);
	return module_roles[module].weight;
}

LlmWeightRole
llm_adapter_module_bias(LlmAdapterModule module)
{
	assert((int) module >= 0 && module < LLM_ADAPTER_LM_HEAD);
	return module_roles[module].bias;
}

/* False: no adapter changes weights of this role. */
static bool
module_of_role(LlmWeightRole role, LlmAdapterModule *module)
{
	for (int i = 0; i < LLM_ADAPTER_MODULE_COUNT; i++)
	{
		if (module_roles[i].weight != role)
			continue;
		*module = (LlmAdapterModule) i;
		return true;
	}
	return false;
}

const char *
adapter_plain_name(const char *name)
{
	static const char *const prefixes[] = { "base_model.", "model.",
											"language_model." };
	bool again = true;

	while (again)
	{
		again = false;
		for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		{
			size_t len = strlen(prefixes[i]);

			if (strncmp(name, prefixes[i], len) == 0)
			{
				name += len;
				again = true;
			}
		}
	}
	return name;
}

static void
start_target(AdapterTarget *target, const LlmWeightSpec *spec)
{
	size_t len = strlen(spec->name);
	static const char suffix[] = ".weight";

	if (len > sizeof(suffix) - 1 &&
		strcmp(spec->name + len - (sizeof(suffix) - 1), suffix) == 0)
		len -= sizeof(suffix) - 1;
	memset(target, 0, sizeof(*target));
	memcpy(target->name, spec->name, len);
	target->layer_idx = spec->layer_idx;
	target->expert_idx = spec->expert_idx > 0 ? spec->expert_idx : 0;
	target->n_in = spec->n_cols;
}

static void
add_part(AdapterTarget *target, LlmAdapterModule module,
		 const LlmWeightSpec *spec)
{
	int part = target->n_parts++;

	assert(part < ADAPTER_MAX_PARTS);
	assert(spec->first_row == target->n_out);
	target->parts[part].module = module;
	target->parts[part].first_row = spec->first_row;
	target->parts[part].n_rows = spec->n_rows;
	target->n_out += spec->n_rows;
	if (module == LLM_ADAPTER_EMBED)
	{
		/* a table of rows is multiplied from the other side */
		target->n_in = spec->n_rows;
		target->n_out = spec->n_cols;
		target->parts[part].n_rows = spec->n_cols;
	}
}

/* A tied head is no weight, but a module like any other. */
static void
add_tied_head(AdapterTarget *target, const LlmModelConfig *config)
{
	LlmWeightSpec spec = { .role = LLM_WEIGHT_LM_HEAD,
						   .layer_idx = -1,
						   .expert_idx = -1,
						   .name = "lm_head.weight",
						   .n_rows = config->n_vocab,
						   .n_cols = config->hidden_size };

	start_target(target, &spec);
	add_part(target, LLM_ADAPTER_LM_HEAD, &spec);
}

static int
compare_targets(const void *a, const void *b)
{
	const AdapterTarget *x = a;
	const AdapterTarget *y = b;
	uint32_t x_layer = (uint32_t) x->layer_idx; /* -1 comes last */
	uint32_t y_layer = (uint32_t) y->layer_idx;

	if (x_layer != y_layer)
		return x_layer < y_layer ? -1 : 1;
	if (x->parts[0].module != y->parts[0].module)
		return (int) x->parts[0].module - (int) y->parts[0].module;
	return x->expert_idx - y->expert_idx;
}

AdapterTarget *
adapter_targets_list(const LlmModelConfig *config, int *n_targets,
					 LlmError *err)
{
	size_t capacity =
		(size_t) config->n_layers *
			(LLM_ADAPTER_LM_HEAD + 3 * (size_t) config->n_experts) +
		2;
	AdapterTarget *targets = calloc(capacity, sizeof(*targets));
	LlmAdapterModule module;
	LlmWeightSpec spec;
	int n = 0;

	if (targets == NULL)
	{
		llm_error_no_memory(err, capacity * sizeof(*targets),
							"the list of modules");
		return NULL;
	}
	for (int i = 0; llm_model_weight_spec(config, i, &spec); i++)
	{
		if (!module_of_role(spec.role, &module))
			continue;
		if (spec.first_row == 0)
		{
			assert((size_t) n < capacity);
			start_target(&targets[n++], &spec);
		}
		assert(n > 0);
		add_part(&targets[n - 1], module, &spec);
	}
	if (config->tie_word_embeddings)
		add_tied_head(&targets[n++], config);
	qsort(targets, (size_t) n, sizeof(*targets), compare_targets);
	for (int i = 0; i < n; i++)
		targets[i].plain = adapter_plain_name(targets[i].name);
	*n_targets = n;
	return targets;
}

static int
compare_plain(const void *a, const void *b)
{
	const AdapterTarget *const *x = a;
	const AdapterTarget *const *y = b;

	return strcmp((*x)->plain, (*y)->plain);
}

const AdapterTarget **
adapter_targets_by_name(const AdapterTarget *targets, int n_targets,
						LlmError *err)
{
	const AdapterTarget **by_name =
		malloc((size_t) n_targets * sizeof(*by_name));

	if (by_name == NULL)
	{
		llm_error_no_memory(err, (size_t) n_targets * sizeof(*by_name),
							"the list of modules");
		return NULL;
	}
	for (int i = 0; i < n_targets; i++)
		by_name[i] = &targets[i];
	qsort((void *) by_name, (size_t) n_targets, sizeof(*by_name),
		  compare_plain);
	return by_name;
}

static int
compare_wanted(const void *plain, const void *target)
{
	return strcmp(plain, (*(const AdapterTarget *const *) target)->plain);
}

const AdapterTarget *
adapter_target_find(const AdapterTarget *const *by_name, int n_targets,
					const char *plain)
{
	const AdapterTarget *const *found =
		bsearch(plain, (const void *) by_name, (size_t) n_targets,
				sizeof(*by_name), compare_wanted);

	return found != NULL ? *found : NULL;
}
