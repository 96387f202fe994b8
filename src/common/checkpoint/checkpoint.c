/*
 * checkpoint.c
 *	  One way to a model's tensors.
 *
 * src/common/checkpoint/checkpoint.c
 */
#include <stdlib.h>

#include "src/common/checkpoint/checkpoint.h"

struct LlmCheckpoint
{
	LlmSafetensors *safetensors;
};

LlmCheckpoint *
llm_checkpoint_open(const char *path, LlmError *err)
{
	LlmCheckpoint *checkpoint = calloc(1, sizeof(*checkpoint));

	if (checkpoint == NULL)
	{
		llm_error_no_memory(err, sizeof(*checkpoint), path);
		return NULL;
	}
	checkpoint->safetensors = llm_safetensors_open(path, err);
	if (checkpoint->safetensors == NULL)
	{
		free(checkpoint);
		return NULL;
	}
	return checkpoint;
}

void
llm_checkpoint_close(LlmCheckpoint *checkpoint)
{
	if (checkpoint == NULL)
		return;
	llm_safetensors_close(checkpoint->safetensors);
	free(checkpoint);
}

int
llm_checkpoint_n_tensors(const LlmCheckpoint *checkpoint)
{
	return llm_safetensors_n_tensors(checkpoint->safetensors);
}

const LlmStoredTensor *
llm_checkpoint_get(const LlmCheckpoint *checkpoint, int tensor_idx)
{
	return llm_safetensors_get(checkpoint->safetensors, tensor_idx);
}

const LlmStoredTensor *
llm_checkpoint_find(const LlmCheckpoint *checkpoint, const char *name)
{
	return llm_safetensors_find(checkpoint->safetensors, name);
}

const char *
llm_checkpoint_path(const LlmCheckpoint *checkpoint,
					const LlmStoredTensor *tensor)
{
	return llm_safetensors_path(checkpoint->safetensors, tensor);
}

bool
llm_checkpoint_prefetch(const LlmCheckpoint *checkpoint, LlmError *err)
{
	return llm_safetensors_prefetch(checkpoint->safetensors, err);
}

size_t
llm_checkpoint_total_bytes(const LlmCheckpoint *checkpoint)
{
	return llm_safetensors_total_bytes(checkpoint->safetensors);
}
