/*
 * gguf_values.c
 *	  Metadata values, typed.
 *
 * Values are little-endian and lie at any address; gguf_header.c has checked
 * that they lie within the file.
 *
 * src/common/gguf/gguf_values.c
 */
#include <assert.h>
#include <endian.h>
#include <math.h>
#include <string.h>

#include "src/common/gguf/gguf_internal.h"

uint32_t
gguf_load_u32(const char *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof(value));
	return le32toh(value);
}

uint64_t
gguf_load_u64(const char *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof(value));
	return le64toh(value);
}

size_t
gguf_type_bytes(uint32_t type)
{
	static const size_t n_bytes[GGUF_TYPE_COUNT] = {
		[GGUF_UINT8] = 1,	[GGUF_INT8] = 1,	[GGUF_UINT16] = 2,
		[GGUF_INT16] = 2,	[GGUF_UINT32] = 4,	[GGUF_INT32] = 4,
		[GGUF_FLOAT32] = 4, [GGUF_BOOL] = 1,	[GGUF_UINT64] = 8,
		[GGUF_INT64] = 8,	[GGUF_FLOAT64] = 8,
	};

	assert(type < GGUF_TYPE_COUNT);
	return n_bytes[type];
}

/* false where it is no integer, or more than an int64_t holds */
static bool
load_int(uint32_t type, const char *bytes, int64_t *value)
{
	uint16_t half;
	uint64_t wide;

	switch (type)
	{
		case GGUF_UINT8:
			*value = (unsigned char) *bytes;
			return true;
		case GGUF_INT8:
			*value = (signed char) *bytes;
			return true;
		case GGUF_UINT16:
		case GGUF_INT16:
			memcpy(&half, bytes, sizeof(half));
			half = le16toh(half);
			*value = type == GGUF_INT16 ? (int16_t) half : half;
			return true;
		case GGUF_UINT32:
			*value = gguf_load_u32(bytes);
			return true;
		case GGUF_INT32:
			*value = (int32_t) gguf_load_u32(bytes);
			return true;
		case GGUF_UINT64:
		case GGUF_INT64:
			wide = gguf_load_u64(bytes);
			*value = (int64_t) wide;
			return type == GGUF_INT64 || wide <= INT64_MAX;
		default:
			return false;
	}
}

/* Integers, floats that are finite; not bool. */
bool
gguf_load_number(uint32_t type, const char *bytes, double *number)
{
	int64_t integer;
	uint32_t bits32;
	uint64_t bits64;
	float single;

	if (type == GGUF_FLOAT32)
	{
		bits32 = gguf_load_u32(bytes);
		memcpy(&single, &bits32, sizeof(single));
		*number = single;
		return isfinite(*number);
	}
	if (type == GGUF_FLOAT64)
	{
		bits64 = gguf_load_u64(bytes);
		memcpy(number, &bits64, sizeof(*number));
		return isfinite(*number);
	}
	if (!load_int(type, bytes, &integer))
		return false;
	*number = (double) integer;
	return true;
}

const GgufEntry *
gguf_find_entry(const GgufFile *file, const char *key)
{
	size_t low = 0;
	size_t high = file->n_entries;

	while (low < high)
	{
		size_t middle = low + (high - low) / 2;
		int order = strcmp(key, file->entries[middle].key);

		if (order == 0)
			return &file->entries[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

static bool
wrong_type(const GgufFile *file, const char *key, const char *expected,
		   LlmError *err)
{
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 "%s: metadata key \"%s\" must be %s", file->path, key,
						 expected);
}

bool
gguf_file_get_int(const GgufFile *file, const char *key, int64_t *value,
				  LlmError *err)
{
	const GgufEntry *entry = gguf_find_entry(file, key);

	return entry == NULL || load_int(entry->type, entry->value, value) ||
		   wrong_type(file, key, "an integer", err);
}

bool
llm_gguf_has(const LlmGguf *gguf, const char *key)
{
	return gguf_find_entry(&gguf->files[0], key) != NULL;
}

bool
llm_gguf_get_int(const LlmGguf *gguf, const char *key, int64_t *value,
				 LlmError *err)
{
	return gguf_file_get_int(&gguf->files[0], key, value, err);
}

bool
llm_gguf_get_double(const LlmGguf *gguf, const char *key, double *value,
					LlmError *err)
{
	const GgufFile *file = &gguf->files[0];
	const GgufEntry *entry = gguf_find_entry(file, key);

	return entry == NULL ||
		   gguf_load_number(entry->type, entry->value, value) ||
		   wrong_type(file, key, "a number", err);
}

bool
llm_gguf_get_bool(const LlmGguf *gguf, const char *key, bool *value,
				  LlmError *err)
{
	const GgufFile *file = &gguf->files[0];
	const GgufEntry *entry = gguf_find_entry(file, key);

	if (entry == NULL)
		return true;
	if (entry->type != GGUF_BOOL)
		return wrong_type(file, key, "true or false", err);
	*value = *entry->value != 0;
	return true;
}

static LlmGgufText
load_text(const char *bytes)
{
	return (LlmGgufText){ bytes + 8, (size_t) gguf_load_u64(bytes) };
}

bool
llm_gguf_get_text(const LlmGguf *gguf, const char *key, LlmGgufText *value,
				  LlmError *err)
{
	const GgufFile *file = &gguf->files[0];
	const GgufEntry *entry = gguf_find_entry(file, key);

	if (entry == NULL)
		return true;
	if (entry->type != GGUF_STRING)
		return wrong_type(file, key, "a string", err);
	*value = load_text(entry->value);
	return true;
}

bool
llm_gguf_get_array(const LlmGguf *gguf, const char *key, LlmGgufArray *value,
				   LlmError *err)
{
	const GgufFile *file = &gguf->files[0];
	const GgufEntry *entry = gguf_find_entry(file, key);

	if (entry == NULL)
		return true;
	if (entry->type != GGUF_ARRAY)
		return wrong_type(file, key, "an array", err);
	value->type = gguf_load_u32(entry->value);
	value->n_left = gguf_load_u64(entry->value + 4);
	value->next = entry->value + 12;
	return true;
}

bool
llm_gguf_next_text(LlmGgufArray *array, LlmGgufText *text)
{
	if (array->n_left == 0 || array->type != GGUF_STRING)
		return false;
	*text = load_text(array->next);
	array->next = text->data + text->len;
	array->n_left--;
	return true;
}

bool
llm_gguf_next_number(LlmGgufArray *array, double *number)
{
	if (array->n_left == 0 || array->type == GGUF_STRING ||
		array->type == GGUF_ARRAY ||
		!gguf_load_number(array->type, array->next, number))
		return false;
	array->next += gguf_type_bytes(array->type);
	array->n_left--;
	return true;
}
