/*
 * fuzz_safetensors.c
 *	  Any bytes as a safetensors file: opened or refused, and then every
 *	  byte of every tensor can be read.
 *
 * test/fuzz/fuzz_safetensors.c
 */
#include "src/common/safetensors/safetensors.h"
#include "test/fuzz/fuzz.h"

static void
read_all(const LlmSafetensors *tensors)
{
	volatile uint8_t sum = 0;

	for (int i = 0; i < llm_safetensors_n_tensors(tensors); i++)
	{
		const LlmStoredTensor *tensor = llm_safetensors_get(tensors, i);
		const uint8_t *data = tensor->data;

		for (size_t k = 0; k < tensor->n_bytes; k++)
			sum = (uint8_t) (sum + data[k]);
		FUZZ_CHECK(llm_safetensors_find(tensors, tensor->name) == tensor);
		FUZZ_CHECK(llm_safetensors_path(tensors, tensor) != NULL);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[FUZZ_PATH_BYTES];
	int fd = fuzz_file(data, size, path);
	LlmError err;
	LlmSafetensors *tensors = llm_safetensors_open(path, &err);

	if (tensors != NULL)
		read_all(tensors);
	else
		FUZZ_CHECK(err.message[0] != '\0');
	llm_safetensors_close(tensors);
	close(fd);
	return 0;
}
