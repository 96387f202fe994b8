/*
 * safetensors_header.c
 *	  The header of one safetensors file.
 *
 * A file is: the header's length in bytes (8 bytes, little-endian), the
 * header (a JSON object: tensor name -> {dtype, shape, data_offsets}, and
 * perhaps "__metadata__"), then the data.  As in the reference
 * implementation the tensors' ranges must tile the data: no overlap, no
 * hole, nothing left over.  That makes every header that lies about sizes
 * an error here, and none later.
 *
 * src/common/safetensors/safetensors_header.c
 */
#include "src/common/safetensors/safetensors_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/json.h"

typedef struct DtypeName
{
	const char *name;
	int n_bits;
	bool is_known;
	LlmDtype dtype;
} DtypeName;

/* Those that are not known to us still have a size that can be checked. */
static const DtypeName dtype_names[] = {
	{ "F32", 32, true, LLM_DTYPE_F32 },
	{ "F16", 16, true, LLM_DTYPE_F16 },
	{ "BF16", 16, true, LLM_DTYPE_BF16 },
	{ "F8_E4M3", 8, true, LLM_DTYPE_FP8_E4M3 },
	{ "I8", 8, true, LLM_DTYPE_INT8 },
	{ "F64", 64 },
	{ "I64", 64 },
	{ "U64", 64 },
	{ "I32", 32 },
	{ "U32", 32 },
	{ "I16", 16 },
	{ "U16", 16 },
	{ "U8", 8 },
	{ "BOOL", 8 },
	{ "F8_E5M2", 8 },
};

typedef struct HeaderParse
{
	const char *path;
	uint64_t data_start;   /* offset of the data in the file */
	uint64_t n_data_bytes; /* of the data in the file */
	LlmError *err;
} HeaderParse;

const char *
llm_safetensors_dtype_name(LlmDtype dtype)
{
	for (size_t i = 0; i < sizeof(dtype_names) / sizeof(dtype_names[0]); i++)
	{
		if (dtype_names[i].is_known && dtype_names[i].dtype == dtype)
			return dtype_names[i].name;
	}
	assert(false);
	return "";
}

static const DtypeName *
find_dtype(const char *name)
{
	for (size_t i = 0; i < sizeof(dtype_names) / sizeof(dtype_names[0]); i++)
	{
		if (strcmp(dtype_names[i].name, name) == 0)
			return &dtype_names[i];
	}
	return NULL;
}

static bool
tensor_error(const HeaderParse *parse, const char *name, const char *what)
{
	return llm_error_set(parse->err, LLM_ERROR_FORMAT, "%s: tensor \"%s\": %s",
						 parse->path, name, what);
}

/* A JSON number that is an exact count; 2^53 bounds what a double holds. */
static bool
get_count(const cJSON *item, uint64_t *value)
{
	if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
		item->valuedouble > 9007199254740992.0 ||
		item->valuedouble != (double) (uint64_t) item->valuedouble)
		return false;
	*value = (uint64_t) item->valuedouble;
	return true;
}

static bool
read_shape(const HeaderParse *parse, const cJSON *shape,
		   LlmStoredTensor *tensor, uint64_t *n_elements)
{
	const cJSON *item;

	if (!cJSON_IsArray(shape))
		return tensor_error(parse, tensor->name, "\"shape\" must be an array");
	cJSON_ArrayForEach(item, shape)
	{
		uint64_t n;

		if (tensor->n_dims == LLM_SAFETENSORS_MAX_DIMS)
			return tensor_error(parse, tensor->name, "too many dimensions");
		if (!get_count(item, &n))
			return tensor_error(parse, tensor->name,
								"a dimension is not a count");
		if (__builtin_mul_overflow(*n_elements, n, n_elements))
			return tensor_error(parse, tensor->name, "its size overflows");
		tensor->shape[tensor->n_dims++] = (int64_t) n;
	}
	return true;
}

static bool
check_size(const HeaderParse *parse, const LlmStoredTensor *tensor, int n_bits,
		   uint64_t n_elements)
{
	uint64_t n_total_bits;

	if (__builtin_mul_overflow(n_elements, (uint64_t) n_bits, &n_total_bits))
		return tensor_error(parse, tensor->name, "its size overflows");
	if (n_total_bits / 8 != tensor->n_bytes)
		return llm_error_set(
			parse->err, LLM_ERROR_FORMAT,
			"%s: tensor \"%s\": its shape and dtype %s take %llu bytes, but "
			"its data has %zu",
			parse->path, tensor->name, tensor->dtype_name,
			(unsigned long long) (n_total_bits / 8), tensor->n_bytes);
	return true;
}

/* Read one member of the header; the name is already set. */
static bool
read_tensor(const HeaderParse *parse, const cJSON *entry, LlmArena *arena,
			LlmStoredTensor *tensor, uint64_t *begin)
{
	const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
	const cJSON *offsets =
		cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
	const DtypeName *known;
	uint64_t n_elements = 1;
	uint64_t end;

	if (!cJSON_IsObject(entry))
		return tensor_error(parse, tensor->name, "must be an object");
	if (!cJSON_IsString(dtype) || strlen(dtype->valuestring) > 32)
		return tensor_error(parse, tensor->name, "\"dtype\" must be a name");
	if (!read_shape(parse, cJSON_GetObjectItemCaseSensitive(entry, "shape"),
					tensor, &n_elements))
		return false;
	if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
		!get_count(cJSON_GetArrayItem(offsets, 0), begin) ||
		!get_count(cJSON_GetArrayItem(offsets, 1), &end) || *begin > end)
		return tensor_error(parse, tensor->name,
							"\"data_offsets\" must be two ascending offsets");
	if (end > parse->n_data_bytes)
		return llm_error_set(
			parse->err, LLM_ERROR_FORMAT,
			"%s: tensor \"%s\" ends at byte %llu, but the file has only %llu "
			"bytes: it is truncated",
			parse->path, tensor->name,
			(unsigned long long) (parse->data_start + end),
			(unsigned long long) (parse->data_start + parse->n_data_bytes));

	known = find_dtype(dtype->valuestring);
	tensor->n_bytes = (size_t) (end - *begin);
	tensor->dtype_name = known != NULL
							 ? known->name
							 : llm_arena_strndup(arena, dtype->valuestring,
												 strlen(dtype->valuestring));
	if (tensor->dtype_name == NULL)
		return llm_error_no_memory(parse->err, 32, "a dtype's name");
	if (known == NULL)
		return true; /* whoever wants to use it will refuse it */
	tensor->is_known_dtype = known->is_known;
	tensor->dtype = known->dtype;
	return check_size(parse, tensor, known->n_bits, n_elements);
}

static bool
reserve_tensors(LlmSafetensors *tensors, int n_more, LlmError *err)
{
	int needed = tensors->n_tensors + n_more;
	LlmStoredTensor *grown;
	int *grown_file;

	if (needed <= tensors->capacity)
		return true;
	grown = realloc(tensors->tensors, (size_t) needed * sizeof(*grown));
	if (grown != NULL)
		tensors->tensors = grown;
	grown_file =
		realloc(tensors->tensor_file, (size_t) needed * sizeof(*grown_file));
	if (grown_file != NULL)
		tensors->tensor_file = grown_file;
	if (grown == NULL || grown_file == NULL)
		return llm_error_no_memory(err, (uint64_t) needed * sizeof(*grown),
								   "the list of tensors");
	tensors->capacity = needed;
	return true;
}

static int
compare_data(const void *a, const void *b)
{
	const LlmStoredTensor *x = a;
	const LlmStoredTensor *y = b;

	if (x->data != y->data)
		return (const char *) x->data < (const char *) y->data ? -1 : 1;
	/* empty tensors share their address with their successor */
	return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* The tensors, sorted by their data, must tile all of it. */
static bool
check_tiling(const HeaderParse *parse, const LlmStoredTensor *sorted, int n,
			 const char *data)
{
	uint64_t expected = 0;

	for (int i = 0; i < n; i++)
	{
		uint64_t begin = (uint64_t) ((const char *) sorted[i].data - data);

		if (begin < expected)
			return llm_error_set(
				parse->err, LLM_ERROR_FORMAT,
				"%s: the data of tensors \"%s\" and \"%s\" overlap",
				parse->path, sorted[i > 0 ? i - 1 : 0].name, sorted[i].name);
		if (begin > expected)
			return llm_error_set(
				parse->err, LLM_ERROR_FORMAT,
				"%s: %llu bytes before tensor \"%s\" belong to no tensor",
				parse->path, (unsigned long long) (begin - expected),
				sorted[i].name);
		expected = begin + sorted[i].n_bytes;
	}
	if (expected != parse->n_data_bytes)
		return llm_error_set(
			parse->err, LLM_ERROR_FORMAT,
			"%s: the last %llu bytes of the file belong to no tensor",
			parse->path, (unsigned long long) (parse->n_data_bytes - expected));
	return true;
}

static bool
read_members(LlmSafetensors *tensors, int file_idx, const cJSON *header,
			 const HeaderParse *parse)
{
	const char *data = tensors->files[file_idx].map.data + parse->data_start;
	int first = tensors->n_tensors;
	const cJSON *entry;

	if (!cJSON_IsObject(header))
		return llm_error_set(parse->err, LLM_ERROR_FORMAT,
							 "%s: the header is not a JSON object",
							 parse->path);
	if (!reserve_tensors(tensors, cJSON_GetArraySize(header), parse->err))
		return false;
	cJSON_ArrayForEach(entry, header)
	{
		LlmStoredTensor tensor = { 0 };
		uint64_t begin = 0;

		if (strcmp(entry->string, "__metadata__") == 0)
			continue;
		tensor.name = llm_arena_strndup(tensors->arena, entry->string,
										strlen(entry->string));
		if (tensor.name == NULL)
			return llm_error_no_memory(parse->err, strlen(entry->string),
									   "a tensor's name");
		if (!read_tensor(parse, entry, tensors->arena, &tensor, &begin))
			return false;
		tensor.data = data + begin;
		assert(tensors->n_tensors < tensors->capacity);
		tensors->tensor_file[tensors->n_tensors] = file_idx;
		tensors->tensors[tensors->n_tensors++] = tensor;
	}
	/* the array does not exist before there is a tensor */
	if (tensors->n_tensors == 0)
		return check_tiling(parse, NULL, 0, data);
	qsort(tensors->tensors + first, (size_t) (tensors->n_tensors - first),
		  sizeof(LlmStoredTensor), compare_data);
	return check_tiling(parse, tensors->tensors + first,
						tensors->n_tensors - first, data);
}

bool
safetensors_read_header(LlmSafetensors *tensors, int file_idx, LlmError *err)
{
	const StoredFile *file = &tensors->files[file_idx];
	HeaderParse parse = { .path = file->path, .err = err };
	uint64_t n_header_bytes = 0;
	char what[320];
	cJSON *header;
	bool ok;

	if (file->map.size < 8)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: the file has only %zu bytes: it is no "
							 "safetensors file or truncated",
							 file->path, file->map.size);
	if (memcmp(file->map.data, "version ", 8) == 0)
	{
		llm_error_set(err, LLM_ERROR_FORMAT,
					  "%s: the file is a Git LFS pointer, not the weights",
					  file->path);
		return llm_error_hint(err, "run \"git lfs pull\" where it came from");
	}
	for (int i = 0; i < 8; i++)
		n_header_bytes |= (uint64_t) (unsigned char) file->map.data[i]
						  << (8 * i);
	if (n_header_bytes > SAFETENSORS_MAX_HEADER_BYTES)
		return llm_error_set(
			err, LLM_ERROR_LIMIT,
			"%s: the header claims %llu bytes, more than the limit of %llu",
			file->path, (unsigned long long) n_header_bytes,
			(unsigned long long) SAFETENSORS_MAX_HEADER_BYTES);
	if (n_header_bytes > file->map.size - 8)
		return llm_error_set(
			err, LLM_ERROR_FORMAT,
			"%s: the header claims %llu bytes, but the file has only %zu: it "
			"is truncated",
			file->path, (unsigned long long) n_header_bytes, file->map.size);
	if (n_header_bytes == 0 || file->map.data[8] != '{')
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: the header does not begin with \"{\": it is "
							 "no safetensors file",
							 file->path);
	parse.data_start = 8 + n_header_bytes;
	parse.n_data_bytes = file->map.size - parse.data_start;
	snprintf(what, sizeof(what), "%s: header", file->path);
	header =
		llm_json_parse(file->map.data + 8, (size_t) n_header_bytes, what, err);
	if (header == NULL)
		return false;
	ok = read_members(tensors, file_idx, header, &parse);
	if (ok && file_idx == 0)
		tensors->metadata =
			cJSON_DetachItemFromObjectCaseSensitive(header, "__metadata__");
	cJSON_Delete(header);
	return ok;
}
