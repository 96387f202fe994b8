/*
 * checkpoint.h
 *	  The tensors of a model, whatever files hold them: safetensors, one or
 *	  in shards, of a model directory, or one GGUF file.
 *
 * Tensors have the names that the family's checkpoints on Hugging Face give
 * them; what a GGUF file calls differently is translated when it is opened.
 * A matrix that bitsandbytes stored in NF4 is one tensor of dtype NF4.
 *
 * src/common/checkpoint/checkpoint.h
 */
#ifndef LLM_CHECKPOINT_H
#define LLM_CHECKPOINT_H

#include "src/common/quant/nf4.h"
#include "src/common/safetensors/safetensors.h"
#include "src/common/util/strbuf.h"

typedef struct LlmCheckpoint LlmCheckpoint;

/*
 * Which GGUF file a path means, if any: the file itself, or the only one of a
 * directory without safetensors (of a split file, the first piece).  *found
 * false: the path means a directory or file of safetensors.
 */
extern bool llm_checkpoint_find_gguf(const char *path, LlmStrbuf *gguf_path,
									 bool *found, LlmError *err);

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

/*
 * Elements first .. first + n - 1 of a row (of a vector: row 0) as the Hugging
 * Face checkpoint has them, whether the data was made ready or not.  False:
 * they are not stored as floats.
 */
extern bool llm_checkpoint_read(const LlmCheckpoint *checkpoint,
								const LlmStoredTensor *tensor, int64_t row,
								int64_t first, int64_t n, float *values);

/*
 * Whether a matrix has the values that its model was published with: GGUF
 * files of other formats than F32 and BF16 may have rounded them.
 */
extern bool llm_checkpoint_is_exact(const LlmCheckpoint *checkpoint,
									const LlmStoredTensor *tensor);

/* The parts of a tensor of dtype NF4; borrowed. */
extern const LlmNf4Stored *llm_checkpoint_nf4(const LlmCheckpoint *checkpoint,
											  const LlmStoredTensor *tensor);

/* Whether it has any, and then whether these are nested: all or none. */
extern bool
llm_checkpoint_has_nf4(const LlmCheckpoint *checkpoint, bool *is_nested);

/* The file that holds a tensor of these; borrowed. */
extern const char *llm_checkpoint_path(const LlmCheckpoint *checkpoint,
									   const LlmStoredTensor *tensor);

/*
 * Make the tensors' data ready to be read, once, before any of it is: bring
 * all files into memory, unless they are larger than the machine's, and undo
 * what a GGUF file changed in the data.
 */
extern bool llm_checkpoint_prefetch(LlmCheckpoint *checkpoint, LlmError *err);

/*
 * A tensor of these was read for the last time, and its file's pages need not
 * stay in memory.  Reading it again brings them back.
 */
extern void llm_checkpoint_release(const LlmCheckpoint *checkpoint,
								   const LlmStoredTensor *tensor);

/* Bytes of all files. */
extern size_t llm_checkpoint_total_bytes(const LlmCheckpoint *checkpoint);

#endif /* LLM_CHECKPOINT_H */
