/*
 * safetensors_internal.h
 *	  What the two files of this room share.
 *
 * src/common/safetensors/safetensors_internal.h
 */
#ifndef LLM_SAFETENSORS_INTERNAL_H
#define LLM_SAFETENSORS_INTERNAL_H

#include "src/common/safetensors/safetensors.h"
#include "src/common/util/arena.h"
#include "src/common/util/json.h"
#include "src/common/util/mapped_file.h"

/* The reference implementation's own limit on the header. */
#define SAFETENSORS_MAX_HEADER_BYTES ((uint64_t) 100 * 1000 * 1000)

/* A model of 2,000 layers in one-layer shards; a bound, not a goal. */
#define SAFETENSORS_MAX_FILES 4096

typedef struct StoredFile
{
	const char *path; /* in the arena */
	LlmMappedFile map;
} StoredFile;

struct LlmSafetensors
{
	LlmArena *arena; /* names, paths and the arrays below */
	StoredFile *files;
	int n_files;
	LlmStoredTensor *tensors; /* sorted by name, no two alike; malloc'ed */
	int *tensor_file;		  /* [n_tensors] index into files; malloc'ed */
	int n_tensors;
	int capacity;
	size_t total_bytes;
	cJSON *metadata; /* the first file's; NULL where it has none */
};

/*
 * Parse and check the header of a mapped file and append its tensors, in
 * the order of their data.  Names are copied to the arena.
 */
extern bool
safetensors_read_header(LlmSafetensors *tensors, int file_idx, LlmError *err);

#endif /* LLM_SAFETENSORS_INTERNAL_H */
