/*
 * checkpoint_gguf.c
 *	  The tensors of a GGUF file as the Hugging Face checkpoint has them.
 *
 * Names are translated when the file is opened, and a tensor of all experts
 * of a layer becomes one for each expert, which point into it.  What the
 * converter changed in the data (the order of rows of q and k, ones added to
 * norms) is undone in copies when the data is made ready; until then nothing
 * reads it, so that a file can be looked at without reading all of it.
 * Undoing is exact: rows move as they are stored, and for a norm w + 1 - 1
 * gives back each w whose sum was formed in single precision from a half.
 *
 * src/common/checkpoint/checkpoint_gguf.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/checkpoint/checkpoint_internal.h"
#include "src/common/util/mapped_file.h"

static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const TranslatedTensor *) a)->stored.name,
				  ((const TranslatedTensor *) b)->stored.name);
}

/* The names in HF's words; counts the tensors that they become. */
static bool
translate_names(TranslatedTensors *translated, LlmGgufTensorName *names,
				int64_t *n_total, LlmError *err)
{
	int n = llm_gguf_n_tensors(translated->gguf);

	*n_total = 0;
	for (int i = 0; i < n; i++)
	{
		const LlmGgufTensor *tensor = llm_gguf_get(translated->gguf, i);

		if (!llm_gguf_tensor_name(translated->gguf, tensor, &names[i], err))
			return false;
		*n_total += names[i].n_experts > 0 ? names[i].n_experts : 1;
		if (*n_total > INT32_MAX)
			return llm_error_set(err, LLM_ERROR_LIMIT,
								 "%s: the file has too many tensors",
								 llm_gguf_path(translated->gguf, 0));
	}
	return true;
}

/* '@' in a name becomes the expert's number. */
static const char *
expert_name(LlmArena *arena, const char *name, int64_t expert_idx)
{
	char expanded[160];
	const char *mark = expert_idx >= 0 ? strchr(name, '@') : NULL;

	if (mark == NULL)
		return llm_arena_strndup(arena, name, strlen(name));
	snprintf(expanded, sizeof(expanded), "%.*s%lld%s", (int) (mark - name),
			 name, (long long) expert_idx, mark + 1);
	return llm_arena_strndup(arena, expanded, strlen(expanded));
}

/* Append a tensor, or one of its experts where expert_idx is not -1. */
static bool
append_tensor(TranslatedTensors *translated, const LlmGgufTensor *source,
			  const LlmGgufTensorName *name, int64_t expert_idx, LlmError *err)
{
	TranslatedTensor *tensor = &translated->tensors[translated->n_tensors];
	LlmStoredTensor *stored = &tensor->stored;
	int first_dim = expert_idx >= 0;

	memset(tensor, 0, sizeof(*tensor));
	tensor->file_idx = source->file_idx;
	tensor->change = name->change;
	tensor->n_heads = name->n_heads;
	stored->name = expert_name(translated->arena, name->name, expert_idx);
	if (stored->name == NULL)
		return llm_error_no_memory(err, strlen(name->name), "a tensor's name");
	stored->dtype_name = source->type_name;
	stored->is_known_dtype = source->is_known_dtype;
	stored->dtype = source->dtype;
	stored->n_dims = source->n_dims - first_dim;
	for (int i = 0; i < stored->n_dims; i++)
		stored->shape[i] = source->shape[i + first_dim];
	stored->n_bytes = source->n_bytes;
	stored->data = source->data;
	if (expert_idx >= 0)
	{
		/* whole rows of whole blocks: the division leaves nothing */
		stored->n_bytes /= (size_t) source->shape[0];
		stored->data =
			(const char *) source->data + (size_t) expert_idx * stored->n_bytes;
	}
	translated->n_tensors++;
	return true;
}

static bool
append_tensors(TranslatedTensors *translated, const LlmGgufTensorName *names,
			   LlmError *err)
{
	for (int i = 0; i < llm_gguf_n_tensors(translated->gguf); i++)
	{
		const LlmGgufTensor *source = llm_gguf_get(translated->gguf, i);

		if (names[i].change == LLM_GGUF_DROPPED)
			continue;
		if (names[i].n_experts == 0 &&
			!append_tensor(translated, source, &names[i], -1, err))
			return false;
		for (int64_t e = 0; e < names[i].n_experts; e++)
		{
			if (!append_tensor(translated, source, &names[i], e, err))
				return false;
		}
	}
	return true;
}

static bool
sort_tensors(TranslatedTensors *translated, LlmError *err)
{
	TranslatedTensor *tensors = translated->tensors;

	qsort(tensors, (size_t) translated->n_tensors, sizeof(*tensors),
		  compare_names);
	for (int i = 1; i < translated->n_tensors; i++)
	{
		if (strcmp(tensors[i - 1].stored.name, tensors[i].stored.name) == 0)
			return llm_error_set(
				err, LLM_ERROR_FORMAT,
				"%s: two tensors of the file are tensor \"%s\"",
				llm_gguf_path(translated->gguf, tensors[i].file_idx),
				tensors[i].stored.name);
	}
	return true;
}

static bool
translate(TranslatedTensors *translated, LlmError *err)
{
	size_t n = (size_t) llm_gguf_n_tensors(translated->gguf);
	LlmGgufTensorName *names = calloc(n + 1, sizeof(*names));
	int64_t n_total = 0;
	bool ok;

	if (names == NULL)
		return llm_error_no_memory(err, n * sizeof(*names),
								   "the list of tensors");
	ok = translate_names(translated, names, &n_total, err);
	if (ok)
	{
		translated->tensors =
			calloc((size_t) n_total + 1, sizeof(*translated->tensors));
		ok = translated->tensors != NULL ||
			 llm_error_no_memory(
				 err, (uint64_t) n_total * sizeof(*translated->tensors),
				 "the list of tensors");
	}
	ok = ok && append_tensors(translated, names, err) &&
		 sort_tensors(translated, err);
	free(names);
	return ok;
}

bool
translated_tensors_open(TranslatedTensors *translated, const char *path,
						LlmError *err)
{
	memset(translated, 0, sizeof(*translated));
	translated->gguf = llm_gguf_open(path, err);
	if (translated->gguf == NULL)
		return false;
	translated->arena = llm_arena_create("tensor names", 0);
	if (translated->arena == NULL)
		llm_error_no_memory(err, 0, "tensor names");
	else if (translate(translated, err))
		return true;
	translated_tensors_close(translated);
	return false;
}

void
translated_tensors_close(TranslatedTensors *translated)
{
	for (int i = 0; i < translated->n_tensors; i++)
		free(translated->tensors[i].copy);
	free(translated->tensors);
	if (translated->arena != NULL)
		llm_arena_free(translated->arena);
	llm_gguf_close(translated->gguf);
	memset(translated, 0, sizeof(*translated));
}

/* ---- the data ---- */

/* Row h, t, i of [n_heads, 2, d / 2] is row h, i, t of [n_heads, d / 2, 2]. */
int64_t
translated_tensor_row(const TranslatedTensor *tensor, int64_t row)
{
	int64_t half;
	int64_t head;

	if (tensor->change != LLM_GGUF_PAIRED_ROWS)
		return row;
	half = tensor->stored.shape[0] / tensor->n_heads / 2;
	head = row / (2 * half);
	return (head * half + row % half) * 2 + row / half % 2;
}

static void
unpair_rows(const TranslatedTensor *tensor, char *out)
{
	const LlmStoredTensor *stored = &tensor->stored;
	const char *rows = stored->data;
	size_t row_bytes = stored->n_bytes / (size_t) stored->shape[0];

	assert(stored->shape[0] % (2 * tensor->n_heads) == 0);
	for (int64_t row = 0; row < stored->shape[0]; row++)
		memcpy(out + (size_t) row * row_bytes,
			   rows + (size_t) translated_tensor_row(tensor, row) * row_bytes,
			   row_bytes);
}

static void
subtract_one(const LlmStoredTensor *stored, char *out)
{
	for (size_t off = 0; off < stored->n_bytes; off += sizeof(float))
	{
		float value;

		memcpy(&value, (const char *) stored->data + off, sizeof(value));
		value -= 1;
		memcpy(out + off, &value, sizeof(value));
	}
}

static bool
undo_change(const TranslatedTensors *translated, TranslatedTensor *tensor,
			LlmError *err)
{
	LlmStoredTensor *stored = &tensor->stored;
	char *copy;

	if (tensor->change == LLM_GGUF_ADDED_ONE &&
		(!stored->is_known_dtype || stored->dtype != LLM_DTYPE_F32))
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "%s: tensor \"%s\" has dtype %s, but norms of "
							 "this architecture must have F32",
							 llm_gguf_path(translated->gguf, tensor->file_idx),
							 stored->name, stored->dtype_name);
	copy = malloc(stored->n_bytes);
	if (copy == NULL)
		return llm_error_no_memory(err, stored->n_bytes, stored->name);
	if (tensor->change == LLM_GGUF_PAIRED_ROWS)
		unpair_rows(tensor, copy);
	else
		subtract_one(stored, copy);
	llm_mapped_file_release(stored->data, stored->n_bytes);
	tensor->copy = copy;
	stored->data = copy;
	tensor->change = LLM_GGUF_SAME;
	return true;
}

bool
translated_tensors_undo_changes(TranslatedTensors *translated, LlmError *err)
{
	for (int i = 0; i < translated->n_tensors; i++)
	{
		if (translated->tensors[i].change != LLM_GGUF_SAME &&
			!undo_change(translated, &translated->tensors[i], err))
			return false;
	}
	return true;
}
