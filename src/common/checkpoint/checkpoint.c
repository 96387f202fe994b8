/*
 * checkpoint.c
 *	  One way to a model's tensors.
 *
 * checkpoint_find.c says which files a path means, checkpoint_gguf.c
 * translates the tensors of a GGUF file, checkpoint_nf4.c puts those of
 * bitsandbytes together.
 *
 * src/common/checkpoint/checkpoint.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/checkpoint/checkpoint_internal.h"
#include "src/common/util/half_float.h"
#include "src/common/util/mapped_file.h"

struct LlmCheckpoint
{
	LlmSafetensors *safetensors;  /* or NULL, and then "translated" */
	Nf4Tensors nf4;				  /* instead of the former's, if it has any */
	TranslatedTensors translated; /* of a GGUF file */
};

static bool
open_files(LlmCheckpoint *checkpoint, const char *path, LlmError *err)
{
	LlmStrbuf gguf_path;
	bool found;
	bool ok;

	llm_strbuf_init(&gguf_path);
	ok = llm_checkpoint_find_gguf(path, &gguf_path, &found, err);
	if (ok && found)
		ok = translated_tensors_open(&checkpoint->translated,
									 llm_strbuf_str(&gguf_path), err);
	else if (ok)
	{
		checkpoint->safetensors = llm_safetensors_open(path, err);
		ok = checkpoint->safetensors != NULL &&
			 nf4_tensors_open(&checkpoint->nf4, checkpoint->safetensors, err);
	}
	llm_strbuf_free(&gguf_path);
	return ok;
}

LlmCheckpoint *
llm_checkpoint_open(const char *path, LlmError *err)
{
	LlmCheckpoint *checkpoint = calloc(1, sizeof(*checkpoint));

	if (checkpoint == NULL)
	{
		llm_error_no_memory(err, sizeof(*checkpoint), path);
		return NULL;
	}
	if (!open_files(checkpoint, path, err))
	{
		llm_checkpoint_close(checkpoint);
		return NULL;
	}
	return checkpoint;
}

void
llm_checkpoint_close(LlmCheckpoint *checkpoint)
{
	if (checkpoint == NULL)
		return;
	nf4_tensors_close(&checkpoint->nf4);
	llm_safetensors_close(checkpoint->safetensors);
	translated_tensors_close(&checkpoint->translated);
	free(checkpoint);
}

int
llm_checkpoint_n_tensors(const LlmCheckpoint *checkpoint)
{
	if (checkpoint->nf4.has_any)
		return checkpoint->nf4.n_tensors;
	if (checkpoint->safetensors != NULL)
		return llm_safetensors_n_tensors(checkpoint->safetensors);
	return checkpoint->translated.n_tensors;
}

const LlmStoredTensor *
llm_checkpoint_get(const LlmCheckpoint *checkpoint, int tensor_idx)
{
	if (checkpoint->nf4.has_any)
	{
		assert(tensor_idx >= 0 && tensor_idx < checkpoint->nf4.n_tensors);
		return &checkpoint->nf4.tensors[tensor_idx].stored;
	}
	if (checkpoint->safetensors != NULL)
		return llm_safetensors_get(checkpoint->safetensors, tensor_idx);
	assert(tensor_idx >= 0 && tensor_idx < checkpoint->translated.n_tensors);
	return &checkpoint->translated.tensors[tensor_idx].stored;
}

static int
compare_name(const void *name, const void *tensor)
{
	return strcmp(name, ((const TranslatedTensor *) tensor)->stored.name);
}

const LlmStoredTensor *
llm_checkpoint_find(const LlmCheckpoint *checkpoint, const char *name)
{
	const TranslatedTensors *translated = &checkpoint->translated;
	const TranslatedTensor *tensor;
	const Nf4Tensor *nf4;

	if (checkpoint->nf4.has_any)
	{
		nf4 = nf4_tensors_find(&checkpoint->nf4, name);
		return nf4 != NULL ? &nf4->stored : NULL;
	}
	if (checkpoint->safetensors != NULL)
		return llm_safetensors_find(checkpoint->safetensors, name);
	tensor = bsearch(name, translated->tensors, (size_t) translated->n_tensors,
					 sizeof(*translated->tensors), compare_name);
	return tensor != NULL ? &tensor->stored : NULL;
}

static float
read_element(const LlmStoredTensor *tensor, int64_t idx)
{
	const char *data = tensor->data;
	float value;
	uint16_t bits;

	if (tensor->dtype == LLM_DTYPE_F32)
	{
		memcpy(&value, data + 4 * idx, sizeof(value));
		return value;
	}
	memcpy(&bits, data + 2 * idx, sizeof(bits));
	return tensor->dtype == LLM_DTYPE_F16 ? llm_f16_to_float(bits)
										  : llm_bf16_to_float(bits);
}

bool
llm_checkpoint_read(const LlmCheckpoint *checkpoint,
					const LlmStoredTensor *tensor, int64_t row, int64_t first,
					int64_t n, float *values)
{
	/* the stored tensor is the first member of the translated one */
	const TranslatedTensor *translated = checkpoint->safetensors == NULL
											 ? (const TranslatedTensor *) tensor
											 : NULL;
	bool adds_one =
		translated != NULL && translated->change == LLM_GGUF_ADDED_ONE;
	int64_t n_cols = tensor->shape[tensor->n_dims - 1];

	assert(tensor->n_dims == 2 || (tensor->n_dims == 1 && row == 0));
	assert(first >= 0 && first + n <= n_cols);
	if (!tensor->is_known_dtype || !llm_dtype_is_float(tensor->dtype))
		return false;
	if (translated != NULL && tensor->n_dims == 2)
		row = translated_tensor_row(translated, row);
	for (int64_t i = 0; i < n; i++)
		values[i] = read_element(tensor, row * n_cols + first + i) -
					(adds_one ? 1.0f : 0.0f);
	return true;
}

bool
llm_checkpoint_is_exact(const LlmCheckpoint *checkpoint,
						const LlmStoredTensor *tensor)
{
	return tensor->is_known_dtype && llm_dtype_is_float(tensor->dtype) &&
		   (checkpoint->safetensors != NULL || tensor->dtype != LLM_DTYPE_F16);
}

const LlmNf4Stored *
llm_checkpoint_nf4(const LlmCheckpoint *checkpoint,
				   const LlmStoredTensor *tensor)
{
	assert(checkpoint->nf4.has_any && tensor->dtype == LLM_DTYPE_NF4);
	(void) checkpoint;
	/* the stored tensor is the first member here, too */
	return &((const Nf4Tensor *) tensor)->parts;
}

bool
llm_checkpoint_has_nf4(const LlmCheckpoint *checkpoint, bool *is_nested)
{
	*is_nested = checkpoint->nf4.is_nested;
	return checkpoint->nf4.has_any;
}

const char *
llm_checkpoint_path(const LlmCheckpoint *checkpoint,
					const LlmStoredTensor *tensor)
{
	if (checkpoint->nf4.has_any)
		tensor = ((const Nf4Tensor *) tensor)->source;
	if (checkpoint->safetensors != NULL)
		return llm_safetensors_path(checkpoint->safetensors, tensor);
	return llm_gguf_path(checkpoint->translated.gguf,
						 ((const TranslatedTensor *) tensor)->file_idx);
}

static bool
prefetch_gguf(const LlmGguf *gguf, size_t total_bytes, LlmError *err)
{
	size_t machine_bytes =
		(size_t) sysconf(_SC_PHYS_PAGES) * (size_t) sysconf(_SC_PAGESIZE);

	if (total_bytes > machine_bytes / 4 * 3)
		return true;
	for (int i = 0; i < llm_gguf_n_files(gguf); i++)
	{
		LlmGgufText bytes = llm_gguf_bytes(gguf, i);
		LlmMappedFile map = { bytes.data, bytes.len };

		if (!llm_mapped_file_prefetch(&map, llm_gguf_path(gguf, i), err))
			return false;
	}
	return true;
}

bool
llm_checkpoint_prefetch(LlmCheckpoint *checkpoint, LlmError *err)
{
	if (checkpoint->safetensors != NULL)
		return llm_safetensors_prefetch(checkpoint->safetensors, err);
	return prefetch_gguf(checkpoint->translated.gguf,
						 llm_checkpoint_total_bytes(checkpoint), err) &&
		   translated_tensors_undo_changes(&checkpoint->translated, err);
}

void
llm_checkpoint_release(const LlmCheckpoint *checkpoint,
					   const LlmStoredTensor *tensor)
{
	/* a changed tensor's pages were released when it was copied */
	if (checkpoint->safetensors != NULL ||
		((const TranslatedTensor *) tensor)->copy == NULL)
		llm_mapped_file_release(tensor->data, tensor->n_bytes);
}

size_t
llm_checkpoint_total_bytes(const LlmCheckpoint *checkpoint)
{
	const LlmGguf *gguf = checkpoint->translated.gguf;
	size_t total = 0;

	if (checkpoint->safetensors != NULL)
		return llm_safetensors_total_bytes(checkpoint->safetensors);
	for (int i = 0; i < llm_gguf_n_files(gguf); i++)
		total += llm_gguf_bytes(gguf, i).len;
	return total;
}
