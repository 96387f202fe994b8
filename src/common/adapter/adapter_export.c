/*
 * adapter_export.c
 *	  An image as PEFT's two files again.
 *
 * Tensors go out bit by bit as they came in: parts of a fused module are put
 * together again.  For readers that know one rank and one factor only (vLLM),
 * all modules are padded with zeros to the largest rank and what their factors
 * differ by is multiplied into B, in F32.
 *
 * src/common/adapter/adapter_export.c
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/adapter/adapter_internal.h"
#include "src/common/util/arena.h"

typedef struct Export
{
	const LlmAdapterImage *image;
	bool for_vllm;
	float scale; /* of all modules, for_vllm */
	LlmStoredTensor *tensors;
	int n_tensors;
	LlmArena *arena; /* names and data */
	LlmError *err;
} Export;

/* An empty tensor of that name and shape; its data is for the caller. */
static LlmStoredTensor *
add_tensor(Export *export, const char *module, const char *suffix,
		   LlmDtype dtype, int64_t n_rows, int64_t n_cols)
{
	LlmStoredTensor *tensor = &export->tensors[export->n_tensors++];
	char name[2 * ADAPTER_NAME_BYTES];
	int len =
		snprintf(name, sizeof(name), "base_model.model.%s.%s", module, suffix);

	*tensor = (LlmStoredTensor){
		.name = llm_arena_strndup(export->arena, name, (size_t) len),
		.dtype_name = llm_safetensors_dtype_name(dtype),
		.is_known_dtype = true,
		.dtype = dtype,
		.n_dims = n_cols > 0 ? 2 : 1,
		.shape = { n_rows, n_cols },
		.n_bytes = (size_t) (n_rows * (n_cols > 0 ? n_cols : 1)) *
				   llm_dtype_bytes(dtype),
	};
	tensor->data = llm_arena_alloc0(export->arena, tensor->n_bytes);
	if (tensor->name != NULL && tensor->data != NULL)
		return tensor;
	llm_error_no_memory(export->err, tensor->n_bytes, "an adapter's tensor");
	return NULL;
}

static char *
writable(LlmStoredTensor *tensor)
{
	return (char *) (uintptr_t) tensor->data;
}

/* -- as it came -- */

/* Rows of all parts, one after the other. */
static bool
add_joined(Export *export, const AdapterTarget *target, const char *suffix,
		   const LlmStoredTensor *const parts[])
{
	LlmStoredTensor *joined =
		add_tensor(export, target->name, suffix, parts[0]->dtype, target->n_out,
				   parts[0]->n_dims == 2 ? parts[0]->shape[1] : 0);
	size_t used = 0;

	if (joined == NULL)
		return false;
	for (int i = 0; i < target->n_parts; i++)
	{
		memcpy(writable(joined) + used, parts[i]->data, parts[i]->n_bytes);
		used += parts[i]->n_bytes;
	}
	assert(used == joined->n_bytes);
	return true;
}

static bool
add_as_it_came(Export *export, const AdapterTarget *target,
			   const LlmAdapterPair *const pairs[])
{
	bool is_embedding = target->parts[0].module == LLM_ADAPTER_EMBED;
	const LlmStoredTensor *a = pairs[0]->a;
	const LlmStoredTensor *b[ADAPTER_MAX_PARTS];
	const LlmStoredTensor *magnitude[ADAPTER_MAX_PARTS];
	LlmStoredTensor *copy;

	for (int i = 0; i < target->n_parts; i++)
	{
		b[i] = pairs[i]->b;
		magnitude[i] = pairs[i]->magnitude;
	}
	copy = add_tensor(export, target->name,
					  is_embedding ? "lora_embedding_A" : "lora_A.weight",
					  a->dtype, a->shape[0], a->shape[1]);
	if (copy == NULL)
		return false;
	memcpy(writable(copy), a->data, a->n_bytes);
	return add_joined(export, target,
					  is_embedding ? "lora_embedding_B" : "lora_B.weight", b) &&
		   (magnitude[0] == NULL ||
			add_joined(export, target, "lora_magnitude_vector", magnitude));
}

/* -- for vLLM -- */

static bool
add_padded(Export *export, const AdapterTarget *target,
		   const LlmAdapterPair *const pairs[])
{
	int64_t rank = export->image->max_rank;
	const LlmStoredTensor *a = pairs[0]->a;
	LlmStoredTensor *wide_a = add_tensor(export, target->name, "lora_A.weight",
										 LLM_DTYPE_F32, rank, target->n_in);
	LlmStoredTensor *wide_b = add_tensor(export, target->name, "lora_B.weight",
										 LLM_DTYPE_F32, target->n_out, rank);
	float *to;

	if (wide_a == NULL || wide_b == NULL)
		return false;
	to = (float *) (void *) writable(wide_a);
	for (int64_t i = 0; i < pairs[0]->rank * target->n_in; i++)
		to[i] = adapter_element(a, (size_t) i);
	to = (float *) (void *) writable(wide_b);
	for (int part = 0; part < target->n_parts; part++)
	{
		const LlmAdapterPair *pair = pairs[part];

		for (int64_t row = 0; row < pair->n_out; row++, to += rank)
			for (int64_t i = 0; i < pair->rank; i++)
				to[i] =
					adapter_element(pair->b, (size_t) (row * pair->rank + i)) *
					(pair->scale / export->scale);
	}
	return true;
}

static bool
add_target(Export *export, const AdapterTarget *target)
{
	const LlmAdapterPair *pairs[ADAPTER_MAX_PARTS] = { NULL };

	for (int i = 0; i < target->n_parts; i++)
		pairs[i] = adapter_pair_of_part(export->image, target, i);
	if (pairs[0] == NULL)
		return true;
	/* an import makes all parts of a fused module, or none */
	for (int i = 1; i < target->n_parts; i++)
		if (pairs[i] == NULL)
			return llm_error_set(export->err, LLM_ERROR_FORMAT,
								 "module \"%s\" is there in parts only",
								 target->name);
	if (export->for_vllm && target->parts[0].module == LLM_ADAPTER_EMBED)
		return llm_error_set(export->err, LLM_ERROR_UNSUPPORTED,
							 "vLLM does not serve adapters of embeddings");
	return export->for_vllm ? add_padded(export, target, pairs)
							: add_as_it_came(export, target, pairs);
}

/* -- files -- */

static bool
write_file(const char *dir, const char *name, const LlmStrbuf *head,
		   const Export *tensors, LlmError *err)
{
	char path[4096];
	FILE *file;
	bool ok;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int) sizeof(path))
		return llm_error_set(err, LLM_ERROR_LIMIT, "path \"%s\" is too long",
							 dir);
	file = fopen(path, "wbx");
	if (file == NULL)
		return llm_error_errno(err, "could not create \"%s\"", path);
	ok = fwrite(head->data, 1, head->len, file) == head->len;
	for (int i = 0; ok && tensors != NULL && i < tensors->n_tensors; i++)
		ok = fwrite(tensors->tensors[i].data, 1, tensors->tensors[i].n_bytes,
					file) == tensors->tensors[i].n_bytes;
	if (fclose(file) != 0)
		ok = false;
	return ok || llm_error_errno(err, "could not write \"%s\"", path);
}

/* The config of the image; for vLLM one rank and one factor for all. */
static cJSON *
compose_config(const Export *export)
{
	cJSON *config = llm_json_parse(export->image->config_json,
								   strlen(export->image->config_json),
								   "the adapter's config", export->err);
	int32_t rank = export->image->max_rank;

	if (config == NULL || !export->for_vllm)
		return config;
	cJSON_DeleteItemFromObjectCaseSensitive(config, "rank_pattern");
	cJSON_DeleteItemFromObjectCaseSensitive(config, "alpha_pattern");
	cJSON_DeleteItemFromObjectCaseSensitive(config, "use_rslora");
	cJSON_DeleteItemFromObjectCaseSensitive(config, "r");
	cJSON_DeleteItemFromObjectCaseSensitive(config, "lora_alpha");
	cJSON_AddNumberToObject(config, "r", rank);
	cJSON_AddNumberToObject(config, "lora_alpha",
							(double) export->scale * rank);
	return config;
}

static bool
write_config(const Export *export, const char *dir)
{
	cJSON *config = compose_config(export);
	char *printed = config != NULL ? cJSON_Print(config) : NULL;
	LlmStrbuf text;
	bool ok;

	llm_strbuf_init(&text);
	if (printed != NULL)
		llm_strbuf_printf(&text, "%s\n", printed);
	if (config == NULL)
		ok = false;
	else if (printed == NULL || text.failed)
		ok = llm_error_no_memory(export->err, 4096, "an adapter's config");
	else
		ok = write_file(dir, "adapter_config.json", &text, NULL, export->err);
	cJSON_Delete(config);
	cJSON_free(printed);
	llm_strbuf_free(&text);
	return ok;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const LlmStoredTensor *) a)->name,
				  ((const LlmStoredTensor *) b)->name);
}

static bool
write_tensors(Export *export, const char *dir)
{
	cJSON *metadata = cJSON_CreateObject();
	LlmStrbuf head;
	bool ok;

	llm_strbuf_init(&head);
	qsort(export->tensors, (size_t) export->n_tensors, sizeof(*export->tensors),
		  compare_names);
	if (metadata == NULL ||
		cJSON_AddStringToObject(metadata, "format", "pt") == NULL)
		ok = llm_error_no_memory(export->err, 64, "metadata");
	else
	{
		llm_safetensors_append_header(&head, export->tensors, export->n_tensors,
									  metadata);
		ok = head.failed
				 ? llm_error_no_memory(export->err, head.len, "a header")
				 : write_file(dir, "adapter_model.safetensors", &head, export,
							  export->err);
	}
	cJSON_Delete(metadata);
	llm_strbuf_free(&head);
	return ok;
}

static bool
gather(Export *export, const LlmModelConfig *config)
{
	int n_targets;
	AdapterTarget *targets =
		adapter_targets_list(config, &n_targets, export->err);
	bool ok = targets != NULL;

	export->arena = llm_arena_create("adapter export", 0);
	export->tensors =
		calloc((size_t) (ok ? n_targets : 0) * 3 + 1, sizeof(*export->tensors));
	if (ok && (export->arena == NULL || export->tensors == NULL))
		ok = llm_error_no_memory(export->err, (uint64_t) n_targets,
								 "an adapter's tensors");
	for (int i = 0; ok && i < n_targets; i++)
		ok = add_target(export, &targets[i]);
	free(targets);
	return ok;
}

bool
llm_adapter_export(const LlmAdapterImage *image, const LlmModelConfig *config,
				   LlmAdapterProfile profile, const char *dir, LlmError *err)
{
	Export export = { .image = image,
					  .for_vllm = profile == LLM_ADAPTER_PROFILE_VLLM,
					  .scale = image->pairs[0].scale,
					  .err = err };
	bool ok;

	assert(image->n_pairs > 0);
	if (export.for_vllm && image->has_dora)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "vLLM does not serve DoRA adapters");
	if (export.scale == 0.0f)
		export.scale = 1.0f;
	ok = gather(&export, config) && write_config(&export, dir) &&
		 write_tensors(&export, dir);
	llm_arena_free(export.arena);
	free(export.tensors);
	return ok;
}
