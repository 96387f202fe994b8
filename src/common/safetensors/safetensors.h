/*
 * safetensors.h
 *	  Reading safetensors files: one file, or a directory's shards with their
 *	  index, mapped read-only.
 *
 * Everything a hostile header could say is checked when the file is opened:
 * sizes, offsets, overlaps, dtypes, shapes.  After that a tensor is a pointer
 * into the mapping.
 *
 * src/common/safetensors/safetensors.h
 */
#ifndef LLM_SAFETENSORS_H
#define LLM_SAFETENSORS_H

#include "src/common/util/dtype.h"
#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

struct cJSON;

#define LLM_SAFETENSORS_MAX_DIMS 8

typedef struct LlmSafetensors LlmSafetensors;

typedef struct LlmStoredTensor
{
	const char *name;		/* borrowed */
	const char *dtype_name; /* as written: "BF16"; borrowed */
	bool is_known_dtype;	/* whether dtype is valid */
	LlmDtype dtype;
	int32_t n_dims;
	int64_t shape[LLM_SAFETENSORS_MAX_DIMS];
	const void *data; /* little-endian, perhaps unaligned */
	size_t n_bytes;
} LlmStoredTensor;

/*
 * Open model.safetensors, or the shards that model.safetensors.index.json
 * names, of a directory; or one file where path names a file.  Tensors are
 * sorted by name.  NULL: *err names the file and the tensor.
 */
extern LlmSafetensors *llm_safetensors_open(const char *path, LlmError *err);
extern void llm_safetensors_close(LlmSafetensors *tensors);

extern int llm_safetensors_n_tensors(const LlmSafetensors *tensors);
extern const LlmStoredTensor *
llm_safetensors_get(const LlmSafetensors *tensors, int tensor_idx);

/* NULL where there is no tensor of that name. */
extern const LlmStoredTensor *
llm_safetensors_find(const LlmSafetensors *tensors, const char *name);

/*
 * A text of the first file's "__metadata__"; borrowed.  NULL: it has none of
 * that key.
 */
extern const char *
llm_safetensors_metadata(const LlmSafetensors *tensors, const char *key);

/* The file that holds a tensor of these; borrowed. */
extern const char *llm_safetensors_path(const LlmSafetensors *tensors,
										const LlmStoredTensor *tensor);

/*
 * Where in that file the tensor's data begins, for those who must not map what
 * others may cut short.
 */
extern uint64_t llm_safetensors_offset(const LlmSafetensors *tensors,
									   const LlmStoredTensor *tensor);

/*
 * Bring all files into memory, unless they are larger than the machine's:
 * so that the first use does not wait for the disk, and an unreadable file
 * is an error now instead of a signal then.
 */
extern bool
llm_safetensors_prefetch(const LlmSafetensors *tensors, LlmError *err);

/* "[2, 256]", for messages. */
extern void llm_safetensors_print_shape(char *text, size_t size,
										const int64_t *shape, int n_dims);

/* "F32" ...; only those that files can hold. */
extern const char *llm_safetensors_dtype_name(LlmDtype dtype);

/*
 * Append the beginning of a safetensors file, up to where the data begins,
 * which is a multiple of 64 bytes: tensors' data follows in the order of the
 * array, without gaps.  Of the tensors name, dtype_name, shape and n_bytes
 * are read.  metadata: an object of strings, or NULL.
 */
extern void
llm_safetensors_append_header(LlmStrbuf *file, const LlmStoredTensor *tensors,
							  int n_tensors, const struct cJSON *metadata);

/* Bytes of all files. */
extern size_t llm_safetensors_total_bytes(const LlmSafetensors *tensors);

#endif /* LLM_SAFETENSORS_H */
