/*
 * gguf_header.c
 *	  The header of one GGUF file.
 *
 * A file is: "GGUF", version (u32), number of tensors and of metadata
 * entries (u64), the entries (key, type, value), the tensors (name,
 * dimensions with the fastest first, type, offset of the data), padding,
 * data.  A string is its length (u64) and its bytes, an array the type of
 * its elements (u32), their number (u64) and they.  Versions 2 and 3 have
 * the same layout; version 3 allows big-endian files, which are refused.
 *
 * Nothing is allocated for a count before as many bytes were seen to be
 * there as so many things need at least.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * src/common/gguf/gguf_header.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/gguf/gguf_internal.h"
#include "src/common/util/utf8.h"

/* The least bytes of an entry (key of one byte), and of a tensor. */
#define MIN_ENTRY_BYTES (8 + 1 + 4 + 1)
#define MIN_TENSOR_BYTES (8 + 1 + 4 + 8 + 4 + 8)

#define DEFAULT_ALIGNMENT 32

/* Formats of tensors: those that we have none for still have a size. */
typedef struct TensorType
{
	const char *name;
	int16_t block_elements;
	int16_t block_bytes;
	bool is_known;
	LlmDtype dtype;
} TensorType;

static const TensorType tensor_types[] = {
	[0] = { "F32", 1, 4, true, LLM_DTYPE_F32 },
	[1] = { "F16", 1, 2, true, LLM_DTYPE_F16 },
	[2] = { "Q4_0", 32, 18, true, LLM_DTYPE_Q4_0 },
	[3] = { "Q4_1", 32, 20, true, LLM_DTYPE_Q4_1 },
	[6] = { "Q5_0", 32, 22, true, LLM_DTYPE_Q5_0 },
	[7] = { "Q5_1", 32, 24, true, LLM_DTYPE_Q5_1 },
	[8] = { "Q8_0", 32, 34, true, LLM_DTYPE_Q8_0 },
	[9] = { "Q8_1", 32, 40, false, 0 },
	[10] = { "Q2_K", 256, 84, true, LLM_DTYPE_Q2_K },
	[11] = { "Q3_K", 256, 110, true, LLM_DTYPE_Q3_K },
	[12] = { "Q4_K", 256, 144, true, LLM_DTYPE_Q4_K },
	[13] = { "Q5_K", 256, 176, true, LLM_DTYPE_Q5_K },
	[14] = { "Q6_K", 256, 210, true, LLM_DTYPE_Q6_K },
	[15] = { "Q8_K", 256, 292, false, 0 },
	[16] = { "IQ2_XXS", 256, 66, false, 0 },
	[17] = { "IQ2_XS", 256, 74, false, 0 },
	[18] = { "IQ3_XXS", 256, 98, false, 0 },
	[19] = { "IQ1_S", 256, 50, false, 0 },
	[20] = { "IQ4_NL", 32, 18, true, LLM_DTYPE_IQ4_NL },
	[21] = { "IQ3_S", 256, 110, false, 0 },
	[22] = { "IQ2_S", 256, 82, false, 0 },
	[23] = { "IQ4_XS", 256, 136, true, LLM_DTYPE_IQ4_XS },
	[24] = { "I8", 1, 1, false, 0 },
	[25] = { "I16", 1, 2, false, 0 },
	[26] = { "I32", 1, 4, false, 0 },
	[27] = { "I64", 1, 8, false, 0 },
	[28] = { "F64", 1, 8, false, 0 },
	[29] = { "IQ1_M", 256, 56, false, 0 },
	[30] = { "BF16", 1, 2, true, LLM_DTYPE_BF16 },
	[34] = { "TQ1_0", 256, 54, false, 0 },
	[35] = { "TQ2_0", 256, 66, false, 0 },
	[39] = { "MXFP4", 32, 17, false, 0 },
	[40] = { "NVFP4", 64, 36, false, 0 },
};

#define N_TENSOR_TYPES (sizeof(tensor_types) / sizeof(tensor_types[0]))

/* Where reading stands; everything before "off" is checked. */
typedef struct HeaderReader
{
	LlmGguf *gguf;
	GgufFile *file;
	int file_idx;
	const char *data;
	size_t n_bytes;
	size_t off;
	const char *what; /* that is being read */
	LlmError *err;
} HeaderReader;

static bool
truncated(const HeaderReader *reader, uint64_t n_needed)
{
	llm_error_set(reader->err, LLM_ERROR_FORMAT,
				  "%s: %s needs %llu bytes at byte %zu, but the file has only "
				  "%zu: it is truncated or damaged",
				  reader->file->path, reader->what,
				  (unsigned long long) n_needed, reader->off, reader->n_bytes);
	/* spelled out: the compiler sees what stays unset only then */
	return false;
}

/* Go past so many bytes; *bytes is where they begin. */
static bool
take(HeaderReader *reader, uint64_t n, const char **bytes)
{
	assert(reader->off <= reader->n_bytes);
	if (n > reader->n_bytes - reader->off)
		return truncated(reader, n);
	*bytes = reader->data + reader->off;
	reader->off += (size_t) n;
	return true;
}

static bool
take_u32(HeaderReader *reader, uint32_t *value)
{
	const char *bytes;

	if (!take(reader, 4, &bytes))
		return false;
	*value = gguf_load_u32(bytes);
	return true;
}

static bool
take_u64(HeaderReader *reader, uint64_t *value)
{
	const char *bytes;

	if (!take(reader, 8, &bytes))
		return false;
	*value = gguf_load_u64(bytes);
	return true;
}

static bool
take_string(HeaderReader *reader, LlmGgufText *text)
{
	uint64_t len;

	if (!take_u64(reader, &len) || !take(reader, len, &text->data))
		return false;
	text->len = (size_t) len;
	return true;
}

/* A key or a name: printable in messages, and a C string. */
static bool
take_name(HeaderReader *reader, size_t max_bytes, const char **name)
{
	size_t start = reader->off;
	LlmGgufText text;

	if (!take_string(reader, &text))
		return false;
	if (text.len == 0 || text.len > max_bytes)
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: %s at byte %zu has %zu bytes, but must have "
							 "1 to %zu",
							 reader->file->path, reader->what, start, text.len,
							 max_bytes);
	for (size_t i = 0; i < text.len; i++)
	{
		if (text.data[i] < 0x20 || text.data[i] > 0x7E)
			return llm_error_set(reader->err, LLM_ERROR_FORMAT,
								 "%s: %s at byte %zu is not printable ASCII",
								 reader->file->path, reader->what, start);
	}
	*name = llm_arena_strndup(reader->gguf->arena, text.data, text.len);
	return *name != NULL ||
		   llm_error_no_memory(reader->err, text.len, "a metadata key");
}

/* ---- values ---- */

static bool
bad_value(const HeaderReader *reader, const char *key, const char *what,
		  uint64_t value)
{
	return llm_error_set(
		reader->err, LLM_ERROR_FORMAT, "%s: metadata key \"%s\" has %s %llu",
		reader->file->path, key, what, (unsigned long long) value);
}

static bool
check_bools(HeaderReader *reader, const char *key, const char *bytes,
			uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
	{
		if (bytes[i] != 0 && bytes[i] != 1)
			return bad_value(reader, key, "a truth value of",
							 (unsigned char) bytes[i]);
	}
	return true;
}

/* n values of a type without a size of its own: texts */
static bool
check_texts(HeaderReader *reader, uint64_t n)
{
	LlmGgufText text;

	for (uint64_t i = 0; i < n; i++)
	{
		if (!take_string(reader, &text))
			return false;
	}
	return true;
}

static bool
check_array(HeaderReader *reader, const char *key, int depth)
{
	const char *bytes;
	uint32_t type;
	uint64_t n;

	if (depth == GGUF_MAX_ARRAY_DEPTH)
		return bad_value(reader, key, "arrays nested deeper than",
						 GGUF_MAX_ARRAY_DEPTH);
	if (!take_u32(reader, &type) || !take_u64(reader, &n))
		return false;
	if (type >= GGUF_TYPE_COUNT)
		return bad_value(reader, key, "an array of the unknown type", type);
	if (type == GGUF_STRING)
		return check_texts(reader, n);
	if (type != GGUF_ARRAY)
	{
		/* compare by division: the product may overflow */
		if (n > (reader->n_bytes - reader->off) / gguf_type_bytes(type))
			return bad_value(reader, key,
							 "an array that the file is too short for, of "
							 "length",
							 n);
		return take(reader, n * gguf_type_bytes(type), &bytes) &&
			   (type != GGUF_BOOL || check_bools(reader, key, bytes, n));
	}
	for (uint64_t i = 0; i < n; i++)
	{
		if (!check_array(reader, key, depth + 1))
			return false;
	}
	return true;
}

static bool
check_value(HeaderReader *reader, const GgufEntry *entry)
{
	const char *bytes;
	LlmGgufText text;

	if (entry->type >= GGUF_TYPE_COUNT)
		return bad_value(reader, entry->key, "the unknown type", entry->type);
	if (entry->type == GGUF_STRING)
		return take_string(reader, &text);
	if (entry->type == GGUF_ARRAY)
		return check_array(reader, entry->key, 0);
	return take(reader, gguf_type_bytes(entry->type), &bytes) &&
		   (entry->type != GGUF_BOOL ||
			check_bools(reader, entry->key, bytes, 1));
}

static int
compare_keys(const void *a, const void *b)
{
	return strcmp(((const GgufEntry *) a)->key, ((const GgufEntry *) b)->key);
}

static bool
read_entries(HeaderReader *reader, uint64_t n)
{
	GgufFile *file = reader->file;

	reader->what = "metadata";
	if (n > (reader->n_bytes - reader->off) / MIN_ENTRY_BYTES)
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: the header claims %llu metadata entries, "
							 "more than a file of %zu bytes can hold",
							 file->path, (unsigned long long) n,
							 reader->n_bytes);
	if (n == 0)
		return true;
	file->entries =
		llm_arena_alloc(reader->gguf->arena, (size_t) n * sizeof(GgufEntry));
	if (file->entries == NULL)
		return llm_error_no_memory(reader->err, n * sizeof(GgufEntry),
								   "metadata");
	for (uint64_t i = 0; i < n; i++)
	{
		GgufEntry *entry = &file->entries[i];

		reader->what = "a metadata key";
		if (!take_name(reader, GGUF_MAX_KEY_BYTES, &entry->key))
			return false;
		reader->what = entry->key;
		if (!take_u32(reader, &entry->type))
			return false;
		entry->value = reader->data + reader->off;
		if (!check_value(reader, entry))
			return false;
	}
	file->n_entries = (size_t) n;
	qsort(file->entries, file->n_entries, sizeof(GgufEntry), compare_keys);
	for (size_t i = 1; i < file->n_entries; i++)
	{
		if (strcmp(file->entries[i - 1].key, file->entries[i].key) == 0)
			return llm_error_set(reader->err, LLM_ERROR_FORMAT,
								 "%s: metadata key \"%s\" occurs twice",
								 file->path, file->entries[i].key);
	}
	return true;
}

/* ---- tensors ---- */

static bool
bad_tensor(const HeaderReader *reader, const LlmGgufTensor *tensor,
		   const char *what)
{
	return llm_error_set(reader->err, LLM_ERROR_FORMAT, "%s: tensor \"%s\": %s",
						 reader->file->path, tensor->name, what);
}

/* The dimensions, stored with the fastest first, and the number of elements. */
static bool
read_dims(HeaderReader *reader, LlmGgufTensor *tensor, int64_t *n_elements)
{
	uint32_t n_dims;

	*n_elements = 1;
	if (!take_u32(reader, &n_dims))
		return false;
	if (n_dims < 1 || n_dims > LLM_GGUF_MAX_DIMS)
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: tensor \"%s\" has %u dimensions, but must "
							 "have 1 to %d",
							 reader->file->path, tensor->name, n_dims,
							 LLM_GGUF_MAX_DIMS);
	tensor->n_dims = (int32_t) n_dims;
	for (uint32_t i = 0; i < n_dims; i++)
	{
		uint64_t n;

		if (!take_u64(reader, &n))
			return false;
		if (n == 0 || n > INT64_MAX ||
			__builtin_mul_overflow(*n_elements, (int64_t) n, n_elements))
			return bad_tensor(reader, tensor,
							  "a dimension is 0, or its size overflows");
		tensor->shape[n_dims - 1 - i] = (int64_t) n;
	}
	return true;
}

static bool
read_type(HeaderReader *reader, LlmGgufTensor *tensor, int64_t n_elements)
{
	const TensorType *type;
	uint32_t number;
	uint64_t n_bytes;

	if (!take_u32(reader, &number))
		return false;
	if (number >= N_TENSOR_TYPES || tensor_types[number].name == NULL)
		return llm_error_set(reader->err, LLM_ERROR_UNSUPPORTED,
							 "%s: tensor \"%s\" has the unknown type %u",
							 reader->file->path, tensor->name, number);
	type = &tensor_types[number];
	if (tensor->shape[tensor->n_dims - 1] % type->block_elements != 0)
		return llm_error_set(
			reader->err, LLM_ERROR_FORMAT,
			"%s: tensor \"%s\" has rows of %lld elements, which are not "
			"whole blocks of type %s",
			reader->file->path, tensor->name,
			(long long) tensor->shape[tensor->n_dims - 1], type->name);
	if (__builtin_mul_overflow((uint64_t) (n_elements / type->block_elements),
							   (uint64_t) type->block_bytes, &n_bytes))
		return bad_tensor(reader, tensor, "its size overflows");
	tensor->type_name = type->name;
	tensor->is_known_dtype = type->is_known;
	tensor->dtype = type->dtype;
	tensor->n_bytes = (size_t) n_bytes;
	return true;
}

/* A tensor whose data is still an offset. */
typedef struct PlacedTensor
{
	LlmGgufTensor tensor;
	uint64_t off;
} PlacedTensor;

static bool
read_tensor(HeaderReader *reader, PlacedTensor *placed)
{
	LlmGgufTensor *tensor = &placed->tensor;
	int64_t n_elements;

	memset(placed, 0, sizeof(*placed));
	reader->what = "a tensor's name";
	if (!take_name(reader, GGUF_MAX_NAME_BYTES, &tensor->name))
		return false;
	reader->what = tensor->name;
	tensor->file_idx = reader->file_idx;
	return read_dims(reader, tensor, &n_elements) &&
		   read_type(reader, tensor, n_elements) &&
		   take_u64(reader, &placed->off);
}

static int
compare_offsets(const void *a, const void *b)
{
	uint64_t x = ((const PlacedTensor *) a)->off;
	uint64_t y = ((const PlacedTensor *) b)->off;

	return (x > y) - (x < y);
}

static bool
read_alignment(const HeaderReader *reader, int64_t *alignment)
{
	*alignment = DEFAULT_ALIGNMENT;
	if (!gguf_file_get_int(reader->file, "general.alignment", alignment,
						   reader->err))
		return false;
	if (*alignment < 1 || *alignment > GGUF_MAX_ALIGNMENT ||
		(*alignment & (*alignment - 1)) != 0)
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: \"general.alignment\" is %lld, but must be a "
							 "power of two up to %d",
							 reader->file->path, (long long) *alignment,
							 GGUF_MAX_ALIGNMENT);
	return true;
}

/* Turn offsets into pointers: aligned, within the file, not overlapping. */
static bool
place_tensors(HeaderReader *reader, PlacedTensor *placed, size_t n)
{
	const char *path = reader->file->path;
	uint64_t n_data_bytes;
	uint64_t data_start;
	uint64_t end = 0;
	int64_t alignment;

	if (!read_alignment(reader, &alignment))
		return false;
	data_start = (reader->off + (uint64_t) alignment - 1) /
				 (uint64_t) alignment * (uint64_t) alignment;
	n_data_bytes =
		data_start < reader->n_bytes ? reader->n_bytes - data_start : 0;
	qsort(placed, n, sizeof(*placed), compare_offsets);
	for (size_t i = 0; i < n; i++)
	{
		LlmGgufTensor *tensor = &placed[i].tensor;
		uint64_t off = placed[i].off;

		if (off % (uint64_t) alignment != 0)
			return llm_error_set(reader->err, LLM_ERROR_FORMAT,
								 "%s: tensor \"%s\" lies at offset %llu, which "
								 "is not aligned to %lld bytes",
								 path, tensor->name, (unsigned long long) off,
								 (long long) alignment);
		if (off > n_data_bytes || tensor->n_bytes > n_data_bytes - off)
			return llm_error_set(
				reader->err, LLM_ERROR_FORMAT,
				"%s: tensor \"%s\" has %zu bytes at offset %llu, but the file "
				"has only %llu bytes of data: it is truncated",
				path, tensor->name, tensor->n_bytes, (unsigned long long) off,
				(unsigned long long) n_data_bytes);
		if (off < end)
			return llm_error_set(
				reader->err, LLM_ERROR_FORMAT,
				"%s: the data of tensors \"%s\" and \"%s\" overlap", path,
				placed[i - 1].tensor.name, tensor->name);
		end = off + tensor->n_bytes;
		tensor->data = reader->data + data_start + off;
	}
	return true;
}

static bool
append_tensors(HeaderReader *reader, const PlacedTensor *placed, size_t n)
{
	LlmGguf *gguf = reader->gguf;
	size_t n_bytes = (gguf->n_tensors + n) * sizeof(*gguf->tensors);
	LlmGgufTensor *grown = realloc(gguf->tensors, n_bytes);

	if (grown == NULL)
		return llm_error_no_memory(reader->err, n_bytes, "the list of tensors");
	gguf->tensors = grown;
	for (size_t i = 0; i < n; i++)
		gguf->tensors[gguf->n_tensors++] = placed[i].tensor;
	return true;
}

static bool
read_tensors(HeaderReader *reader, uint64_t n)
{
	PlacedTensor *placed;
	bool ok = true;

	reader->what = "the list of tensors";
	if (n > (reader->n_bytes - reader->off) / MIN_TENSOR_BYTES)
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: the header claims %llu tensors, more than a "
							 "file of %zu bytes can hold",
							 reader->file->path, (unsigned long long) n,
							 reader->n_bytes);
	if (n == 0)
		return true;
	placed = malloc((size_t) n * sizeof(*placed));
	if (placed == NULL)
		return llm_error_no_memory(reader->err, n * sizeof(*placed),
								   "the list of tensors");
	for (uint64_t i = 0; ok && i < n; i++)
		ok = read_tensor(reader, &placed[i]);
	ok = ok && place_tensors(reader, placed, (size_t) n) &&
		 append_tensors(reader, placed, (size_t) n);
	free(placed);
	return ok;
}

static bool
read_version(HeaderReader *reader)
{
	const char *path = reader->file->path;
	const char *magic;
	uint32_t version;

	reader->what = "the header";
	if (reader->n_bytes < 4 || memcmp(reader->data, "GGUF", 4) != 0)
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: the file does not begin with \"GGUF\": it is "
							 "no GGUF file",
							 path);
	if (!take(reader, 4, &magic) || !take_u32(reader, &version))
		return false;
	if (version != 0 && (version & 0xFFFF) == 0)
		return llm_error_set(reader->err, LLM_ERROR_UNSUPPORTED,
							 "%s: the file is big-endian, which is not "
							 "supported",
							 path);
	if (version != 2 && version != 3)
		return llm_error_set(reader->err, LLM_ERROR_UNSUPPORTED,
							 "%s: version %u of GGUF is not supported, only 2 "
							 "and 3",
							 path, version);
	return true;
}

bool
gguf_read_header(LlmGguf *gguf, int file_idx, LlmError *err)
{
	GgufFile *file = &gguf->files[file_idx];
	HeaderReader reader = {
		.gguf = gguf,
		.file = file,
		.file_idx = file_idx,
		.data = file->map.data,
		.n_bytes = file->map.size,
		.err = err,
	};
	uint64_t n_tensors;
	uint64_t n_entries;

	return read_version(&reader) && take_u64(&reader, &n_tensors) &&
		   take_u64(&reader, &n_entries) && read_entries(&reader, n_entries) &&
		   read_tensors(&reader, n_tensors);
}
