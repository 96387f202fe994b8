/*
 * adapter_import.c
 *	  A PEFT adapter becomes an image.
 *
 * Three passes: give every tensor to its module, experts' out of their stacks;
 * look at each module, its rank, its shapes, its values; lay out the image.  Errors are those of the
 * first module that is wrong, in the order of the model.
 *
 * src/common/adapter/adapter_import.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/adapter/adapter_internal.h"

/* What an adapter has for a module. */
typedef struct Found
{
	const LlmStoredTensor *a;
	const LlmStoredTensor *b;
	const LlmStoredTensor *magnitude;
	const char *parameter; /* of experts, where they were in a stack */
	int32_t rank;
	double scale;
} Found;

typedef struct Import
{
	const LlmModelConfig *config;
	PeftConfig peft;
	LlmSafetensors *tensors;
	AdapterTarget *targets;
	const AdapterTarget **by_name;
	int n_targets;
	Found *found;		  /* [n_targets] */
	AdapterStack *stacks; /* [n_layers, 2] */
	LlmArena *arena;
	LlmStoredTensor *laid_out; /* the image's tensors, borrowing data */
	int n_laid_out;
	cJSON *metadata;
	LlmError *err;
} Import;

/* -- which tensor is whose -- */

typedef enum Part
{
	PART_A,
	PART_B,
	PART_MAGNITUDE,
	PART_BASE /* a copy of the base's embedding or head, which PEFT adds */
} Part;

typedef struct Suffix
{
	const char *text;
	Part part;
	bool is_embedding;
} Suffix;

static const Suffix suffixes[] = {
	{ ".lora_A.weight", PART_A, false },
	{ ".lora_B.weight", PART_B, false },
	{ ".lora_magnitude_vector", PART_MAGNITUDE, false },
	{ ".lora_magnitude_vector.weight", PART_MAGNITUDE, false },
	{ ".lora_embedding_A", PART_A, true },
	{ ".lora_embedding_B", PART_B, true },
	{ ".base_layer.weight", PART_BASE, false },
};

/* Cut a known suffix off; NULL where there is none. */
static const Suffix *
cut_suffix(char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++)
	{
		size_t n = strlen(suffixes[i].text);

		if (len > n && strcmp(name + len - n, suffixes[i].text) == 0)
		{
			name[len - n] = '\0';
			return &suffixes[i];
		}
	}
	return NULL;
}

static bool
unmatched(const Import *import, const char *name)
{
	llm_error_set(import->err, LLM_ERROR_FORMAT,
				  "tensor \"%s\" belongs to no module of architecture \"%s\" "
				  "that an adapter can change",
				  name, import->config->architecture);
	return llm_error_hint(import->err,
						  "The adapter was made for another base model, or "
						  "with a feature that is not supported.");
}

/* Where a tensor of a part goes, which is there once. */
static bool
put_tensor(const Import *import, const LlmStoredTensor **slot,
		   const LlmStoredTensor *tensor)
{
	if (*slot != NULL)
		return llm_error_set(import->err, LLM_ERROR_FORMAT,
							 "tensors \"%s\" and \"%s\" are of the same module",
							 (*slot)->name, tensor->name);
	*slot = tensor;
	return true;
}

/* One of all experts' matrices. */
static bool
assign_stacked(const Import *import, const char *plain, const Suffix *suffix,
			   const LlmStoredTensor *tensor)
{
	AdapterStack *stack =
		adapter_stack_find(import->config, import->stacks, plain);

	if (stack == NULL || suffix->is_embedding ||
		(suffix->part != PART_A && suffix->part != PART_B))
		return unmatched(import, tensor->name);
	return put_tensor(import, suffix->part == PART_A ? &stack->a : &stack->b,
					  tensor);
}

static bool
assign_tensor(Import *import, const LlmStoredTensor *tensor)
{
	static const char base_prefix[] = "base_model.model.";
	char plain[ADAPTER_NAME_BYTES];
	const LlmStoredTensor **slot;
	const AdapterTarget *target = NULL;
	const Suffix *suffix;
	Found *found;
	LlmAdapterModule module;

	if (strlen(tensor->name) >= ADAPTER_NAME_BYTES ||
		strncmp(tensor->name, base_prefix, sizeof(base_prefix) - 1) != 0)
		return unmatched(import, tensor->name);
	snprintf(plain, sizeof(plain), "%s", adapter_plain_name(tensor->name));
	suffix = cut_suffix(plain);
	if (suffix == NULL)
		return unmatched(import, tensor->name);
	target = adapter_target_find(import->by_name, import->n_targets, plain);
	if (target == NULL)
		return assign_stacked(import, plain, suffix, tensor);
	found = &import->found[target - import->targets];
	module = target->parts[0].module;
	if (suffix->part == PART_BASE && target->layer_idx < 0)
		return true;
	if (suffix->part == PART_BASE ||
		suffix->is_embedding != (module == LLM_ADAPTER_EMBED))
		return unmatched(import, tensor->name);
	slot = suffix->part == PART_A	? &found->a
		   : suffix->part == PART_B ? &found->b
									: &found->magnitude;
	return put_tensor(import, slot, tensor);
}

/* -- experts in stacks -- */

/* An expert's module from its layer's stack. */
static bool
unstack(Import *import, const AdapterTarget *target, const AdapterStack *stack)
{
	const int32_t n_experts = import->config->n_experts;
	Found *found = &import->found[target - import->targets];
	LlmStoredTensor *parts = llm_arena_alloc(import->arena, 2 * sizeof(*parts));

	if (parts == NULL ||
		!adapter_stack_b(stack, target, n_experts, import->arena, &parts[1]))
		return llm_error_no_memory(import->err, stack->b->n_bytes,
								   "an adapter's matrix");
	adapter_stack_a(stack, target, n_experts, &parts[0]);
	found->parameter = adapter_stack_parameter(stack);
	return put_tensor(import, &found->a, &parts[0]) &&
		   put_tensor(import, &found->b, &parts[1]);
}

static bool
check_stacks(Import *import)
{
	const LlmModelConfig *config = import->config;

	for (int32_t i = 0; i < 2 * config->n_layers; i++)
	{
		AdapterStack *stack = &import->stacks[i];

		if ((stack->a != NULL || stack->b != NULL) &&
			!adapter_stack_check(config, stack, import->err))
			return false;
	}
	return true;
}

static bool
unstack_experts(Import *import)
{
	if (!check_stacks(import))
		return false;
	for (int i = 0; i < import->n_targets; i++)
	{
		const AdapterTarget *target = &import->targets[i];
		const LlmAdapterModule module = target->parts[0].module;
		const AdapterStack *stacks;

		if (!llm_adapter_is_expert(module))
			continue;
		stacks = &import->stacks[2 * target->layer_idx];
		for (int wrapper = 0; wrapper < 2; wrapper++)
		{
			if (adapter_stack_has(&stacks[wrapper], module) &&
				!unstack(import, target, &stacks[wrapper]))
				return false;
		}
	}
	return true;
}

/* Whether an expert's module without tensors should have been in a stack. */
static bool
lacks_stack(const Import *import, const AdapterTarget *target)
{
	const LlmAdapterModule module = target->parts[0].module;

	return llm_adapter_is_expert(module) &&
		   peft_config_targets_parameter(&import->peft,
										 module == LLM_ADAPTER_EXPERT_DOWN
											 ? "experts.down_proj"
											 : "experts.gate_up_proj");
}

static bool
assign_tensors(Import *import)
{
	for (int i = 0; i < llm_safetensors_n_tensors(import->tensors); i++)
	{
		if (!assign_tensor(import, llm_safetensors_get(import->tensors, i)))
			return false;
	}
	return true;
}

/* -- is each module right? -- */

/* n_cols 0: a vector. */
static bool
check_shape(const Import *import, const LlmStoredTensor *tensor, int64_t n_rows,
			int64_t n_cols)
{
	int64_t shape[2] = { n_rows, n_cols };
	int n_dims = n_cols > 0 ? 2 : 1;
	char expected[64];
	char actual[200];

	if (tensor->n_dims == n_dims &&
		memcmp(tensor->shape, shape, (size_t) n_dims * sizeof(*shape)) == 0)
		return true;
	llm_safetensors_print_shape(expected, sizeof(expected), shape, n_dims);
	llm_safetensors_print_shape(actual, sizeof(actual), tensor->shape,
								tensor->n_dims);
	return llm_error_set(import->err, LLM_ERROR_FORMAT,
						 "tensor \"%s\" has shape %s, but the base model and "
						 "the adapter's rank call for %s",
						 tensor->name, actual, expected);
}

static bool
check_values(const Import *import, const LlmStoredTensor *tensor)
{
	size_t n;

	if (!tensor->is_known_dtype || !llm_dtype_is_float(tensor->dtype))
	{
		llm_error_set(import->err, LLM_ERROR_UNSUPPORTED,
					  "tensor \"%s\" has dtype %s, which is not supported",
					  tensor->name, tensor->dtype_name);
		return llm_error_hint(import->err, "Supported are F32, F16 and BF16.");
	}
	n = tensor->n_bytes / llm_dtype_bytes(tensor->dtype);
	for (size_t i = 0; i < n; i++)
	{
		if (!isfinite(adapter_element(tensor, i)))
			return llm_error_set(import->err, LLM_ERROR_FORMAT,
								 "tensor \"%s\" holds values that are not "
								 "finite numbers",
								 tensor->name);
	}
	return true;
}

static bool
missing(const Import *import, const AdapterTarget *target, const char *what)
{
	return llm_error_set(import->err, LLM_ERROR_NOT_FOUND,
						 "the adapter has no %s for module \"%s\"", what,
						 target->name);
}

/* What patterns of ranks see: of a stack, "model.layers.0.mlp.experts..." */
static const char *
module_name(const AdapterTarget *target, const Found *found,
			char name[ADAPTER_NAME_BYTES])
{
	if (found->parameter == NULL)
		return target->name;
	snprintf(name, ADAPTER_NAME_BYTES, "model.layers.%d.mlp.%s",
			 target->layer_idx, found->parameter);
	return name;
}

static bool
check_module(const Import *import, const AdapterTarget *target, Found *found)
{
	bool is_dora = import->peft.is_dora;
	char name[ADAPTER_NAME_BYTES];

	if (found->a == NULL)
		return missing(import, target, "lora_A");
	if (found->b == NULL)
		return missing(import, target, "lora_B");
	if (is_dora && found->magnitude == NULL)
		return missing(import, target, "lora_magnitude_vector");
	if (is_dora && target->parts[0].module >= LLM_ADAPTER_EMBED)
		return llm_error_set(
			import->err, LLM_ERROR_UNSUPPORTED,
			"module \"%s\": DoRA on %s is not supported", target->name,
			llm_adapter_is_expert(target->parts[0].module) ? "experts"
														   : "embeddings");
	if (!is_dora && found->magnitude != NULL)
		return llm_error_set(import->err, LLM_ERROR_FORMAT,
							 "tensor \"%s\" is of a DoRA adapter, but "
							 "adapter_config.json says it is none",
							 found->magnitude->name);
	return peft_config_scale(&import->peft, module_name(target, found, name),
							 &found->rank, &found->scale, import->err) &&
		   check_shape(import, found->a, found->rank, target->n_in) &&
		   check_shape(import, found->b, target->n_out, found->rank) &&
		   (!is_dora ||
			check_shape(import, found->magnitude, target->n_out, 0)) &&
		   check_values(import, found->a) && check_values(import, found->b) &&
		   (!is_dora || check_values(import, found->magnitude));
}

static bool
check_modules(Import *import)
{
	int n_used = 0;

	for (int i = 0; i < import->n_targets; i++)
	{
		const AdapterTarget *target = &import->targets[i];
		Found *found = &import->found[i];
		bool is_target;

		if (found->a == NULL && found->b == NULL && found->magnitude == NULL)
		{
			if (!peft_config_targets(&import->peft, target, &is_target,
									 import->err))
				return false;
			if (is_target || lacks_stack(import, target))
				return missing(import, target, "tensors");
			continue;
		}
		if (!check_module(import, target, found))
			return false;
		n_used++;
	}
	if (n_used == 0)
		return llm_error_set(import->err, LLM_ERROR_FORMAT,
							 "the adapter changes no module of the model");
	return true;
}

/* -- the image -- */

static bool
add_tensor(Import *import, const char *pair_name, const char *suffix,
		   const LlmStoredTensor *source, int64_t first_row, int64_t n_rows)
{
	LlmStoredTensor *tensor = &import->laid_out[import->n_laid_out++];
	char name[ADAPTER_NAME_BYTES + 16];
	size_t row_bytes = source->n_bytes / (size_t) source->shape[0];
	int len = snprintf(name, sizeof(name), "%s.%s", pair_name, suffix);

	*tensor = *source;
	tensor->name = llm_arena_strndup(import->arena, name, (size_t) len);
	tensor->shape[0] = n_rows;
	tensor->data = (const char *) source->data + (size_t) first_row * row_bytes;
	tensor->n_bytes = (size_t) n_rows * row_bytes;
	if (tensor->name == NULL)
		return llm_error_no_memory(import->err, (uint64_t) len, "a name");
	return true;
}

static bool
add_scale(Import *import, const char *pair_name, double scale)
{
	char key[ADAPTER_NAME_BYTES + 16];
	char text[40];

	snprintf(key, sizeof(key), "scale.%s", pair_name);
	snprintf(text, sizeof(text), "%.17g", scale);
	if (cJSON_AddStringToObject(import->metadata, key, text) == NULL)
		return llm_error_no_memory(import->err, sizeof(text), "a scale");
	return true;
}

static bool
lay_out_module(Import *import, const AdapterTarget *target, const Found *found)
{
	for (int i = 0; i < target->n_parts; i++)
	{
		int64_t first_row = target->parts[i].first_row;
		int64_t n_rows = target->parts[i].n_rows;
		char name[LLM_ADAPTER_PAIR_NAME_BYTES];

		llm_adapter_pair_name(target->layer_idx, target->parts[i].module,
							  target->expert_idx, name);
		if (!add_tensor(import, name, "A", found->a, 0, found->rank) ||
			!add_tensor(import, name, "B", found->b, first_row, n_rows) ||
			(found->magnitude != NULL &&
			 !add_tensor(import, name, "magnitude", found->magnitude, first_row,
						 n_rows)) ||
			!add_scale(import, name, found->scale))
			return false;
	}
	return true;
}

/* Wide elements first, then by name. */
static int
compare_laid_out(const void *a, const void *b)
{
	const LlmStoredTensor *x = a;
	const LlmStoredTensor *y = b;
	int x_bytes = (int) llm_dtype_bytes(x->dtype);
	int y_bytes = (int) llm_dtype_bytes(y->dtype);

	return x_bytes != y_bytes ? y_bytes - x_bytes : strcmp(x->name, y->name);
}

/* "experts.7.w1" has the name "w1". */
static const char *
last_name(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot != NULL ? dot + 1 : name;
}

/*
 * Experts from stacks are exported as modules of their own: these become
 * targets by name, with one rank and factor each.
 */
static bool
describe_experts(Import *import, cJSON *minimal)
{
	const Found *first[LLM_ADAPTER_MODULE_COUNT] = { NULL };

	for (int i = 0; i < import->n_targets; i++)
	{
		const AdapterTarget *target = &import->targets[i];
		const Found *found = &import->found[i];
		const Found **seen = &first[target->parts[0].module];

		if (found->parameter == NULL)
			continue;
		if (*seen == NULL && !peft_config_add_target(&import->peft, minimal,
													 last_name(target->name),
													 found->rank, found->scale))
			return llm_error_no_memory(import->err, 1024,
									   "an adapter's config");
		if (*seen == NULL)
			*seen = found;
		if (found->rank != (*seen)->rank || found->scale != (*seen)->scale)
			return llm_error_set(import->err, LLM_ERROR_UNSUPPORTED,
								 "the ranks or factors of \"%s\" differ "
								 "between layers, which is not supported",
								 found->parameter);
	}
	return true;
}

static bool
describe(Import *import, const uint8_t base[LLM_FINGERPRINT_BYTES])
{
	cJSON *minimal = peft_config_minimal(&import->peft);
	bool is_described = minimal != NULL && describe_experts(import, minimal);
	char *config = is_described ? cJSON_PrintUnformatted(minimal) : NULL;
	char hex[2 * LLM_FINGERPRINT_BYTES + 1];
	bool ok;

	for (int i = 0; i < LLM_FINGERPRINT_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", base[i]);
	import->metadata = cJSON_CreateObject();
	ok = config != NULL && import->metadata != NULL &&
		 cJSON_AddStringToObject(import->metadata, "format",
								 LLM_ADAPTER_FORMAT) != NULL &&
		 cJSON_AddStringToObject(import->metadata, "base", hex) != NULL &&
		 cJSON_AddStringToObject(import->metadata, "config", config) != NULL;
	cJSON_Delete(minimal);
	cJSON_free(config);
	if (minimal != NULL && !is_described)
		return false;
	return ok || llm_error_no_memory(import->err, 1024, "an adapter's config");
}

static bool
lay_out(Import *import, LlmStrbuf *image)
{
	size_t capacity = (size_t) import->n_targets * ADAPTER_MAX_PARTS * 3;

	import->laid_out = calloc(capacity, sizeof(*import->laid_out));
	if (import->laid_out == NULL)
		return llm_error_no_memory(import->err,
								   capacity * sizeof(*import->laid_out),
								   "an adapter's tensors");
	for (int i = 0; i < import->n_targets; i++)
	{
		if (import->found[i].a != NULL &&
			!lay_out_module(import, &import->targets[i], &import->found[i]))
			return false;
	}
	assert((size_t) import->n_laid_out <= capacity);
	qsort(import->laid_out, (size_t) import->n_laid_out,
		  sizeof(*import->laid_out), compare_laid_out);
	llm_safetensors_append_header(image, import->laid_out, import->n_laid_out,
								  import->metadata);
	for (int i = 0; i < import->n_laid_out; i++)
		llm_strbuf_append(image, import->laid_out[i].data,
						  import->laid_out[i].n_bytes);
	if (image->failed)
		return llm_error_no_memory(import->err, image->len, "an adapter");
	return true;
}

static bool
prepare(Import *import, const LlmAdapterSource *source)
{
	if (!peft_config_read(source->config_json, source->config_len,
						  &import->peft, import->err))
		return false;
	import->tensors = llm_safetensors_open(source->tensors_path, import->err);
	if (import->tensors == NULL)
		return false;
	import->targets =
		adapter_targets_list(import->config, &import->n_targets, import->err);
	if (import->targets == NULL)
		return false;
	import->by_name = adapter_targets_by_name(import->targets,
											  import->n_targets, import->err);
	if (import->by_name == NULL)
		return false;
	import->found = calloc((size_t) import->n_targets, sizeof(*import->found));
	import->arena = llm_arena_create("adapter names", 0);
	import->stacks =
		calloc(2 * (size_t) import->config->n_layers, sizeof(*import->stacks));
	if (import->found == NULL || import->stacks == NULL ||
		import->arena == NULL)
		return llm_error_no_memory(
			import->err, (uint64_t) import->n_targets * sizeof(*import->found),
			"an adapter's modules");
	return true;
}

bool
llm_adapter_import(const LlmAdapterSource *source, const LlmModelConfig *config,
				   const uint8_t base[LLM_FINGERPRINT_BYTES], LlmStrbuf *image,
				   LlmError *err)
{
	Import import = { .config = config, .err = err };
	bool ok = prepare(&import, source) && assign_tensors(&import) &&
			  unstack_experts(&import) && check_modules(&import) &&
			  describe(&import, base) && lay_out(&import, image);

	peft_config_free(&import.peft);
	llm_safetensors_close(import.tensors);
	llm_arena_free(import.arena);
	free((void *) import.by_name);
	free(import.targets);
	free(import.found);
	free(import.stacks);
	free(import.laid_out);
	cJSON_Delete(import.metadata);
	return ok;
}
