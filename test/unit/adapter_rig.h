/*
 * adapter_rig.h
 *	  Adapters of test/vectors/lora as the images that executors read.
 *
 * test/unit/adapter_rig.h
 */
#ifndef LLM_ADAPTER_RIG_H
#define LLM_ADAPTER_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/adapter/adapter.h"

#define PEFT_ADAPTERS "test/vectors/lora"
#define IMAGE_PATH_BYTES 64

/* Write an image to a new file, which is the caller's to unlink. */
static bool
write_image(const LlmStrbuf *image, char path[IMAGE_PATH_BYTES])
{
	FILE *file;
	bool ok;

	strcpy(path, "/tmp/llm_test_adapter_XXXXXX");
	close(mkstemp(path));
	file = fopen(path, "wb");
	ok = file != NULL && fwrite(image->data, 1, image->len, file) == image->len;
	if (file != NULL)
		fclose(file);
	return ok;
}

/* Import PEFT's adapter "name" for the model of a directory. */
static bool
import_adapter(const char *name, const char *model_dir,
			   char path[IMAGE_PATH_BYTES], LlmError *err)
{
	char dir[200];
	char tensors[240];
	LlmModelConfig config;
	uint8_t fingerprint[LLM_FINGERPRINT_BYTES];
	LlmModelFile file;
	LlmAdapterSource source;
	LlmStrbuf image;
	bool ok;

	snprintf(dir, sizeof(dir), PEFT_ADAPTERS "/%s", name);
	snprintf(tensors, sizeof(tensors), "%s/adapter_model.safetensors", dir);
	if (!llm_model_config_read(model_dir, &config, err) ||
		!llm_model_fingerprint(&config, model_dir, fingerprint, err) ||
		!llm_model_file_open(&file, dir, "adapter_config.json", err))
		return false;
	source = (LlmAdapterSource){ file.data, file.size, tensors };
	llm_strbuf_init(&image);
	ok = llm_adapter_import(&source, &config, fingerprint, &image, err) &&
		 write_image(&image, path);
	llm_strbuf_free(&image);
	llm_model_file_close(&file);
	return ok;
}

#endif /* LLM_ADAPTER_RIG_H */
