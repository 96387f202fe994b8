/*
 * gguf.h
 *	  Reading GGUF files: metadata and tensors of a model in one file (or in
 *	  the pieces of a split one), mapped read-only.
 *
 * Everything a hostile header could say is checked when the file is opened:
 * counts, lengths, types, nesting, alignment, sizes, offsets, overlaps.
 * After that a value or a tensor is a pointer into the mapping.
 *
 * A GGUF file says what a model directory says in its own words; the second
 * half translates: llm_gguf_text gives the files that the directory would
 * have, llm_gguf_tensor_name the names that its tensors would have.
 *
 * src/common/gguf/gguf.h
 */
#ifndef LLM_GGUF_H
#define LLM_GGUF_H

#include <stddef.h>

#include "src/common/util/dtype.h"
#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

#define LLM_GGUF_MAX_DIMS 4

typedef struct LlmGguf LlmGguf;

/* A text in the file: borrowed, not NUL-terminated, of any bytes. */
typedef struct LlmGgufText
{
	const char *data;
	size_t len;
} LlmGgufText;

/* An array's elements, taken one by one from its beginning. */
typedef struct LlmGgufArray
{
	uint32_t type; /* of the elements; the file's number for it */
	uint64_t n_left;
	const char *next; /* borrowed */
} LlmGgufArray;

typedef struct LlmGgufTensor
{
	const char *name;	   /* borrowed */
	const char *type_name; /* "Q4_K" */
	bool is_known_dtype;   /* whether dtype is valid */
	LlmDtype dtype;
	int32_t n_dims;
	int64_t shape[LLM_GGUF_MAX_DIMS]; /* slowest first, as everywhere here */
	const void *data;				  /* aligned as the file says */
	size_t n_bytes;
	int32_t file_idx; /* of a split file's pieces */
} LlmGgufTensor;

/*
 * Open a file; the first piece of a split one (name-00001-of-0000N.gguf)
 * opens them all.  NULL: *err names the file and the key or tensor.
 */
extern LlmGguf *llm_gguf_open(const char *path, LlmError *err);

/* The same of bytes in memory, borrowed; "what" names them in messages. */
extern LlmGguf *llm_gguf_parse(const void *data, size_t n_bytes,
							   const char *what, LlmError *err);
extern void llm_gguf_close(LlmGguf *gguf);

/*
 * Metadata.  The getters leave *value where the key is absent, and fail where
 * its value has another type or does not fit.
 */
extern bool llm_gguf_has(const LlmGguf *gguf, const char *key);
extern bool llm_gguf_get_int(const LlmGguf *gguf, const char *key,
							 int64_t *value, LlmError *err);
extern bool llm_gguf_get_double(const LlmGguf *gguf, const char *key,
								double *value, LlmError *err);
extern bool llm_gguf_get_bool(const LlmGguf *gguf, const char *key, bool *value,
							  LlmError *err);
extern bool llm_gguf_get_text(const LlmGguf *gguf, const char *key,
							  LlmGgufText *value, LlmError *err);
extern bool llm_gguf_get_array(const LlmGguf *gguf, const char *key,
							   LlmGgufArray *value, LlmError *err);

/* Take the next element; false at the end, or where it is something else. */
extern bool llm_gguf_next_text(LlmGgufArray *array, LlmGgufText *text);
extern bool llm_gguf_next_number(LlmGgufArray *array, double *number);

/* Tensors, sorted by name. */
extern int llm_gguf_n_tensors(const LlmGguf *gguf);
extern const LlmGgufTensor *llm_gguf_get(const LlmGguf *gguf, int tensor_idx);

/* NULL where there is no tensor of that name. */
extern const LlmGgufTensor *
llm_gguf_find(const LlmGguf *gguf, const char *name);

/* The pieces; a borrowed path (or "what"), and the whole mapping. */
extern int llm_gguf_n_files(const LlmGguf *gguf);
extern const char *llm_gguf_path(const LlmGguf *gguf, int file_idx);
extern LlmGgufText llm_gguf_bytes(const LlmGguf *gguf, int file_idx);

/* What of a tensor differs from the Hugging Face checkpoint's. */
typedef enum LlmGgufChange
{
	LLM_GGUF_SAME,
	LLM_GGUF_PAIRED_ROWS, /* of a head's d rows, 2i and 2i + 1 are i, i + d/2 */
	LLM_GGUF_ADDED_ONE,	  /* to each element */
	LLM_GGUF_DROPPED,	  /* it follows from the config: no tensor there */
} LlmGgufChange;

typedef struct LlmGgufTensorName
{
	char name[128]; /* '@' stands for the expert */
	LlmGgufChange change;
	int64_t n_heads;   /* of paired rows */
	int64_t n_experts; /* shape[0] that '@' runs over; 0 = none */
} LlmGgufTensorName;

/* The Hugging Face name of a tensor; its own where there is none. */
extern bool
llm_gguf_tensor_name(const LlmGguf *gguf, const LlmGgufTensor *tensor,
					 LlmGgufTensorName *name, LlmError *err);

/*
 * Append the text of a file that the model's directory would have:
 * "config.json", "generation_config.json", "tokenizer.json",
 * "tokenizer_config.json".  *found false: it would not have it.
 */
extern bool llm_gguf_text(const LlmGguf *gguf, const char *name,
						  LlmStrbuf *text, bool *found, LlmError *err);

#endif /* LLM_GGUF_H */
