/*
 * train_image.c
 *	  An adapter as it is now, as the image that the catalog keeps.
 *
 * src/engine/train/train_image.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/json.h"
#include "src/engine/train/train_internal.h"

#define NAME_BYTES (LLM_ADAPTER_PAIR_NAME_BYTES + 16)

/* A tensor to write, and where its numbers lie. */
typedef struct Part
{
	char name[NAME_BYTES];
	int32_t pair_idx;
	LlmTrainMatrix which;
} Part;

typedef struct Writer
{
	LlmTrainer *trainer;
	LlmStoredTensor *tensors; /* [3 * n_pairs] */
	Part *parts;			  /* likewise */
	int n_parts;
	cJSON *metadata;
} Writer;

static void
add_part(Writer *writer, int32_t pair_idx, LlmTrainMatrix which,
		 const char *pair_name)
{
	static const char *const suffixes[] = { "A", "B", "magnitude" };
	const TrainPair *pair = &writer->trainer->pairs[pair_idx];
	int64_t n = llm_trainer_matrix_size(writer->trainer, pair_idx, which);
	LlmStoredTensor *tensor = &writer->tensors[writer->n_parts];
	Part *part = &writer->parts[writer->n_parts];

	if (n == 0)
		return;
	writer->n_parts++;
	snprintf(part->name, sizeof(part->name), "%s.%s", pair_name,
			 suffixes[which]);
	part->pair_idx = pair_idx;
	part->which = which;
	tensor->name = part->name;
	tensor->dtype = LLM_DTYPE_F32;
	tensor->dtype_name = llm_safetensors_dtype_name(LLM_DTYPE_F32);
	tensor->n_bytes = (size_t) n * sizeof(float);
	tensor->n_dims = which == LLM_TRAIN_MAGNITUDE ? 1 : 2;
	tensor->shape[0] = which == LLM_TRAIN_A ? pair->spec.rank : pair->n_out;
	tensor->shape[1] = which == LLM_TRAIN_A ? pair->n_in : pair->spec.rank;
}

static bool
add_pair(Writer *writer, int32_t pair_idx)
{
	const LlmTrainPair *spec = &writer->trainer->pairs[pair_idx].spec;
	char name[LLM_ADAPTER_PAIR_NAME_BYTES];
	char key[NAME_BYTES];
	char scale[40];

	llm_adapter_pair_name(spec->layer_idx, spec->module, spec->expert_idx,
						  name);
	for (int which = LLM_TRAIN_A; which <= LLM_TRAIN_MAGNITUDE; which++)
		add_part(writer, pair_idx, (LlmTrainMatrix) which, name);
	snprintf(key, sizeof(key), "scale.%s", name);
	snprintf(scale, sizeof(scale), "%.17g", (double) spec->scale);
	return cJSON_AddStringToObject(writer->metadata, key, scale) != NULL;
}

static bool
describe(Writer *writer, const uint8_t base[LLM_FINGERPRINT_BYTES],
		 const char *config_json)
{
	char hex[2 * LLM_FINGERPRINT_BYTES + 1];

	for (int i = 0; i < LLM_FINGERPRINT_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", base[i]);
	return cJSON_AddStringToObject(writer->metadata, "format",
								   LLM_ADAPTER_FORMAT) != NULL &&
		   cJSON_AddStringToObject(writer->metadata, "base", hex) != NULL &&
		   cJSON_AddStringToObject(writer->metadata, "config", config_json) !=
			   NULL;
}

static bool
append_data(Writer *writer, LlmStrbuf *image, LlmError *err)
{
	for (int i = 0; i < writer->n_parts; i++)
	{
		const Part *part = &writer->parts[i];
		size_t n_bytes = writer->tensors[i].n_bytes;
		char *dest = llm_strbuf_reserve(image, n_bytes);
		float *values = malloc(n_bytes);
		bool ok = dest != NULL && values != NULL;

		if (!ok)
			llm_error_no_memory(err, n_bytes, "an adapter");
		else
			ok = llm_trainer_read_values(writer->trainer, part->pair_idx,
										 part->which, values, err);
		/* the image's bytes may lie at any address */
		if (ok)
			llm_strbuf_append(image, values, n_bytes);
		free(values);
		if (!ok)
			return false;
	}
	return true;
}

bool
llm_trainer_append_image(LlmTrainer *t,
						 const uint8_t base[LLM_FINGERPRINT_BYTES],
						 const char *config_json, LlmStrbuf *image,
						 LlmError *err)
{
	size_t capacity = 3 * (size_t) t->n_pairs;
	Writer writer = { .trainer = t,
					  .tensors = calloc(capacity, sizeof(LlmStoredTensor)),
					  .parts = calloc(capacity, sizeof(Part)),
					  .metadata = cJSON_CreateObject() };
	bool ok = writer.tensors != NULL && writer.parts != NULL &&
			  writer.metadata != NULL && describe(&writer, base, config_json);

	for (int32_t i = 0; ok && i < t->n_pairs; i++)
		ok = add_pair(&writer, i);
	if (!ok)
		llm_error_no_memory(err, capacity * sizeof(LlmStoredTensor),
							"an adapter's tensors");
	else
	{
		llm_safetensors_append_header(image, writer.tensors, writer.n_parts,
									  writer.metadata);
		ok = append_data(&writer, image, err);
	}
	free(writer.tensors);
	free(writer.parts);
	cJSON_Delete(writer.metadata);
	return ok;
}
