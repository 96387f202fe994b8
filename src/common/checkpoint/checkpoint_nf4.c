/*
 * checkpoint_nf4.c
 *	  Safetensors whose matrices bitsandbytes stored in NF4.
 *
 * Such a matrix X is a tensor "X" of codes, and beside it
 *
 *	  X.quant_state.bitsandbytes__nf4	JSON: shape, block sizes, offset
 *	  X.quant_map						F32 [16]
 *	  X.absmax							F32 [n_blocks], or nested U8 and then
 *	  X.nested_absmax					F32 [n_blocks / 256]
 *	  X.nested_quant_map				F32 [256]
 *
 * All that becomes one tensor of dtype NF4 with the matrix's own shape; what
 * belongs to it is not listed.  Matrices that were left out of the
 * quantization are tensors like any others.
 *
 * src/common/checkpoint/checkpoint_nf4.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/checkpoint/checkpoint_internal.h"
#include "src/common/util/json.h"

#define STATE_SUFFIX ".quant_state.bitsandbytes__"
#define NAME_BYTES 512

/* All but the codes themselves. */
static const char *const part_suffixes[] = { STATE_SUFFIX "nf4", ".quant_map",
											 ".absmax", ".nested_absmax",
											 ".nested_quant_map" };

/* A matrix that is being put together. */
typedef struct Nf4Reader
{
	const LlmSafetensors *files;
	const LlmStoredTensor *codes;
	Nf4Tensor *tensor;
	int64_t n_blocks;
	LlmError *err;
} Nf4Reader;

static bool
has_suffix(const char *name, const char *suffix)
{
	size_t len = strlen(name);
	size_t suffix_len = strlen(suffix);

	return len > suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
}

/* The tensor whose name is the first len bytes of one and a suffix. */
static const LlmStoredTensor *
find_beside(const LlmSafetensors *files, const char *name, size_t len,
			const char *suffix)
{
	char key[NAME_BYTES];

	if ((size_t) snprintf(key, sizeof(key), "%.*s%s", (int) len, name,
						  suffix) >= sizeof(key))
		return NULL;
	return llm_safetensors_find(files, key);
}

/* Whether a tensor is part of a matrix in NF4, and not its codes. */
static bool
is_part(const LlmSafetensors *files, const LlmStoredTensor *tensor)
{
	for (size_t i = 0; i < sizeof(part_suffixes) / sizeof(part_suffixes[0]);
		 i++)
	{
		size_t len = strlen(tensor->name) - strlen(part_suffixes[i]);

		if (has_suffix(tensor->name, part_suffixes[i]) &&
			find_beside(files, tensor->name, len, STATE_SUFFIX "nf4") != NULL &&
			find_beside(files, tensor->name, len, "") != NULL)
			return true;
	}
	return false;
}

static bool
refuse(const Nf4Reader *reader, const char *what)
{
	return llm_error_set(reader->err, LLM_ERROR_FORMAT, "%s: tensor \"%s\" %s",
						 llm_safetensors_path(reader->files, reader->codes),
						 reader->codes->name, what);
}

/* The data of a part, which has n elements of a dtype; NULL: *err. */
static const void *
part_of(const Nf4Reader *reader, const char *suffix, const char *dtype_name,
		size_t n_bytes)
{
	const char *name = reader->codes->name;
	const LlmStoredTensor *part =
		find_beside(reader->files, name, strlen(name), suffix);

	if (part != NULL && strcmp(part->dtype_name, dtype_name) == 0 &&
		part->n_bytes == n_bytes)
		return part->data;
	llm_error_set(reader->err, LLM_ERROR_FORMAT,
				  "%s: tensor \"%s%s\" is not %s of %zu bytes",
				  llm_safetensors_path(reader->files, reader->codes), name,
				  suffix, dtype_name, n_bytes);
	return NULL;
}

/* The matrix's own shape. */
static bool
read_shape(Nf4Reader *reader, const cJSON *state)
{
	const cJSON *shape = llm_json_get(state, "shape");
	LlmStoredTensor *stored = &reader->tensor->stored;
	const cJSON *item;

	stored->n_dims = 0;
	cJSON_ArrayForEach(item, shape)
	{
		if (!cJSON_IsNumber(item) || item->valuedouble < 1 ||
			item->valuedouble > INT32_MAX || stored->n_dims == 2)
			return refuse(reader, "has a quant_state of no matrix");
		stored->shape[stored->n_dims++] = (int64_t) item->valuedouble;
	}
	if (!cJSON_IsArray(shape) || stored->n_dims != 2 ||
		stored->shape[0] * stored->shape[1] % 2 != 0 ||
		stored->n_bytes != (size_t) (stored->shape[0] * stored->shape[1] / 2))
		return refuse(reader,
					  "has another size than the shape in its quant_state");
	reader->n_blocks =
		(stored->shape[0] * stored->shape[1] + LLM_NF4_BLOCK - 1) /
		LLM_NF4_BLOCK;
	return true;
}

static bool
read_nested(Nf4Reader *reader, double offset)
{
	LlmNf4Stored *parts = &reader->tensor->parts;
	const int64_t n_scales =
		(reader->n_blocks + LLM_NF4_NESTED_BLOCK - 1) / LLM_NF4_NESTED_BLOCK;

	parts->offset = (float) offset;
	parts->scale_codes =
		part_of(reader, ".absmax", "U8", (size_t) reader->n_blocks);
	if (parts->scale_codes == NULL)
		return false;
	parts->map =
		part_of(reader, ".nested_quant_map", "F32", 256 * sizeof(float));
	if (parts->map == NULL)
		return false;
	parts->scales = part_of(reader, ".nested_absmax", "F32",
							(size_t) n_scales * sizeof(float));
	return parts->scales != NULL;
}

static bool
read_parts(Nf4Reader *reader, const cJSON *state)
{
	LlmNf4Stored *parts = &reader->tensor->parts;
	const char *type = "";
	int64_t block = 0;
	int64_t nested_block = 0;
	double offset = 0;

	if (!llm_json_get_string(state, "quant_type", &type, reader->err) ||
		!llm_json_get_int(state, "blocksize", &block, reader->err) ||
		!llm_json_get_int(state, "nested_blocksize", &nested_block,
						  reader->err) ||
		!llm_json_get_double(state, "nested_offset", &offset, reader->err) ||
		!read_shape(reader, state))
		return false;
	if (strcmp(type, "nf4") != 0 || block != LLM_NF4_BLOCK ||
		(nested_block != 0 && nested_block != LLM_NF4_NESTED_BLOCK))
		return llm_error_set(
			reader->err, LLM_ERROR_UNSUPPORTED,
			"%s: tensor \"%s\" is %s in blocks of %lld and %lld, but only nf4 "
			"in blocks of %d and %d is supported",
			llm_safetensors_path(reader->files, reader->codes),
			reader->codes->name, type, (long long) block,
			(long long) nested_block, LLM_NF4_BLOCK, LLM_NF4_NESTED_BLOCK);
	parts->values = reader->codes->data;
	parts->codes = part_of(reader, ".quant_map", "F32", 16 * sizeof(float));
	if (parts->codes == NULL)
		return false;
	if (nested_block != 0)
		return read_nested(reader, offset);
	parts->scales = part_of(reader, ".absmax", "F32",
							(size_t) reader->n_blocks * sizeof(float));
	return parts->scales != NULL;
}

static bool
read_matrix(Nf4Reader *reader, const LlmStoredTensor *state)
{
	cJSON *json =
		llm_json_parse(state->data, state->n_bytes, state->name, reader->err);
	bool ok = json != NULL && read_parts(reader, json);

	reader->tensor->stored.is_known_dtype = true;
	reader->tensor->stored.dtype = LLM_DTYPE_NF4;
	reader->tensor->stored.dtype_name = "NF4";
	cJSON_Delete(json);
	return ok;
}

/* One tensor of the files, unless it is part of another. */
static bool
add_tensor(Nf4Tensors *tensors, const LlmSafetensors *files,
		   const LlmStoredTensor *source, LlmError *err)
{
	Nf4Tensor *tensor = &tensors->tensors[tensors->n_tensors];
	Nf4Reader reader = {
		.files = files, .codes = source, .tensor = tensor, .err = err
	};
	const size_t len = strlen(source->name);
	const LlmStoredTensor *state =
		find_beside(files, source->name, len, STATE_SUFFIX "nf4");
	bool is_nested;

	if (is_part(files, source))
		return true;
	if (find_beside(files, source->name, len, STATE_SUFFIX "fp4") != NULL)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "%s: tensor \"%s\" is stored in fp4, which is not "
							 "supported",
							 llm_safetensors_path(files, source), source->name);
	tensors->n_tensors++;
	*tensor = (Nf4Tensor){ .stored = *source, .source = source };
	if (state == NULL)
		return true;
	if (!read_matrix(&reader, state))
		return false;
	is_nested = tensor->parts.scale_codes != NULL;
	if (tensors->has_any && tensors->is_nested != is_nested)
		return refuse(&reader, "is nested, or others are: that is not "
							   "supported within one checkpoint");
	tensors->has_any = true;
	tensors->is_nested = is_nested;
	return true;
}

static bool
has_states(const LlmSafetensors *files)
{
	for (int i = 0; i < llm_safetensors_n_tensors(files); i++)
	{
		if (strstr(llm_safetensors_get(files, i)->name, STATE_SUFFIX) != NULL)
			return true;
	}
	return false;
}

bool
nf4_tensors_open(Nf4Tensors *tensors, const LlmSafetensors *files,
				 LlmError *err)
{
	const int n = llm_safetensors_n_tensors(files);

	if (!has_states(files))
		return true;
	tensors->tensors = calloc((size_t) n, sizeof(*tensors->tensors));
	if (tensors->tensors == NULL)
		return llm_error_no_memory(err, (size_t) n * sizeof(Nf4Tensor),
								   "a checkpoint");
	for (int i = 0; i < n; i++)
	{
		if (!add_tensor(tensors, files, llm_safetensors_get(files, i), err))
		{
			nf4_tensors_close(tensors);
			return false;
		}
	}
	return true;
}

void
nf4_tensors_close(Nf4Tensors *tensors)
{
	free(tensors->tensors);
	memset(tensors, 0, sizeof(*tensors));
}

static int
compare_name(const void *name, const void *tensor)
{
	return strcmp(name, ((const Nf4Tensor *) tensor)->stored.name);
}

const Nf4Tensor *
nf4_tensors_find(const Nf4Tensors *tensors, const char *name)
{
	return bsearch(name, tensors->tensors, (size_t) tensors->n_tensors,
				   sizeof(*tensors->tensors), compare_name);
}
