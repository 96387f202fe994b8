/*
 * checkpoint.h
 *	  The tensors of a model, whatever files hold them: safetensors, one or
 *	  in shards, of a model directory, or one GGUF file.
 *
 * Tensors have the names that the family's checkpoints on Hugging Face give
 * them; what a GGUF file calls differently is translated when it is opened.
 *
 * src/common/checkpoint/checkpoint.h
 */
#ifndef LLM_CHECKPOINT_H
#define LLM_CHECKPOINT_H

#include "src/common/safetensors/safetensors.h"

typedef struct LlmCheckpoint LlmCheckpoint;

/*
 * Open the weights of a model directory, or of a file.  Tensors are sorted by
 * name.  NULL: *err names the file and the tensor.
 */
extern LlmCheckpoint *llm_checkpoint_open(const char *path, LlmError *err);
extern void llm_checkpoint_close(LlmCheckpoint *checkpoint);

extern int llm_checkpoint_n_tensors(const LlmCheckpoint *checkpoint);
extern const LlmStoredTensor *
llm_checkpoint_get(const LlmCheckpoint *checkpoint, int tensor_idx);

/* NULL where there is no tensor of that name. */
extern const LlmStoredTensor *
llm_checkpoint_find(const LlmCheckpoint *checkpoint, const char *name);

/* The file that holds a tensor of these; borrowed. */
extern const char *llm_checkpoint_path(const LlmCheckpoint *checkpoint,
									   const LlmStoredTensor *tensor);

/* As llm_safetensors_prefetch. */
extern bool
llm_checkpoint_prefetch(const LlmCheckpoint *checkpoint, LlmError *err);

/* Bytes of all files. */
extern size_t llm_checkpoint_total_bytes(const LlmCheckpoint *checkpoint);

#endif /* LLM_CHECKPOINT_H */
