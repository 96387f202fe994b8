/*
 * checkpoint_internal.h
 *	  A GGUF file's tensors, translated.
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

#endif /* LLM_CHECKPOINT_INTERNAL_H */
