/*
 * checkpoint_internal.h
 *	  A GGUF file's tensors, translated, and safetensors' with NF4 matrices.
 *
 * src/common/checkpoint/checkpoint_internal.h
 */
#ifndef LLM_CHECKPOINT_INTERNAL_H
#define LLM_CHECKPOINT_INTERNAL_H

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/gguf/gguf.h"
#include "src/common/util/arena.h"

/* A tensor under its Hugging Face name; the stored one first, to be found. */
typedef struct TranslatedTensor
{
	LlmStoredTensor stored;
	int32_t file_idx;
	LlmGgufChange change; /* SAME once it is undone */
	int64_t n_heads;	  /* of paired rows */
	void *copy;			  /* what data points to then; NULL = the mapping */
} TranslatedTensor;

typedef struct TranslatedTensors
{
	LlmGguf *gguf;
	LlmArena *arena;		   /* names */
	TranslatedTensor *tensors; /* sorted by name, no two alike; malloc'ed */
	int n_tensors;
} TranslatedTensors;

/* Zeroed on failure; closing a zeroed one is harmless. */
extern bool translated_tensors_open(TranslatedTensors *translated,
									const char *path, LlmError *err);
extern void translated_tensors_close(TranslatedTensors *translated);

/* Undo the changes, so that the data is what the Hugging Face file holds. */
extern bool
translated_tensors_undo_changes(TranslatedTensors *translated, LlmError *err);

/* Where a row is as long as the tensor's change is not undone. */
extern int64_t
translated_tensor_row(const TranslatedTensor *tensor, int64_t row);

/* ---- checkpoint_nf4.c ---- */

/* A tensor of safetensors; the stored one first, to be found. */
typedef struct Nf4Tensor
{
	LlmStoredTensor stored;
	const LlmStoredTensor *source; /* of the files */
	LlmNf4Stored parts;			   /* where its dtype is NF4 */
} Nf4Tensor;

/* All tensors of files of which some are in NF4; else there are none here. */
typedef struct Nf4Tensors
{
	Nf4Tensor *tensors; /* sorted by name; malloc'ed */
	int n_tensors;
	bool has_any; /* in NF4 */
	bool is_nested;
} Nf4Tensors;

/* Zeroed on failure; closing a zeroed one is harmless. */
extern bool nf4_tensors_open(Nf4Tensors *tensors, const LlmSafetensors *files,
							 LlmError *err);
extern void nf4_tensors_close(Nf4Tensors *tensors);
extern const Nf4Tensor *
nf4_tensors_find(const Nf4Tensors *tensors, const char *name);

#endif /* LLM_CHECKPOINT_INTERNAL_H */
