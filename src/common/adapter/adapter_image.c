/*
 * adapter_image.c
 *	  Read an adapter image.
 *
 * Images are written by this room, but pass through tables, dumps and files:
 * everything is checked again when one is opened, so that the engine can take
 * the pairs' shapes as promises.
 *
 * src/common/adapter/adapter_image.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/adapter/adapter_internal.h"
#include "src/common/util/half_float.h"

const char *
llm_adapter_module_name(LlmAdapterModule module)
{
	static const char *const names[LLM_ADAPTER_MODULE_COUNT] = {
		"q",	"k",	   "v",		"o",		   "gate",		"up",
		"down", "lm_head", "embed", "expert_gate", "expert_up", "expert_down"
	};

	assert(module < LLM_ADAPTER_MODULE_COUNT);
	return names[module];
}

void
llm_adapter_pair_name(int32_t layer_idx, LlmAdapterModule module,
					  int32_t expert_idx,
					  char name[LLM_ADAPTER_PAIR_NAME_BYTES])
{
	static const char *const in_expert[] = { "gate", "up", "down" };

	if (layer_idx < 0)
		snprintf(name, LLM_ADAPTER_PAIR_NAME_BYTES, "%s",
				 llm_adapter_module_name(module));
	else if (llm_adapter_is_expert(module))
		snprintf(name, LLM_ADAPTER_PAIR_NAME_BYTES, "layers.%d.experts.%d.%s",
				 layer_idx, expert_idx,
				 in_expert[module - LLM_ADAPTER_EXPERT_GATE]);
	else
		snprintf(name, LLM_ADAPTER_PAIR_NAME_BYTES, "layers.%d.%s", layer_idx,
				 llm_adapter_module_name(module));
}

float
adapter_element(const LlmStoredTensor *tensor, size_t idx)
{
	const char *data = tensor->data;
	uint16_t bits;
	float value;

	if (tensor->dtype == LLM_DTYPE_F32)
	{
		memcpy(&value, data + 4 * idx, sizeof(value));
		return value;
	}
	memcpy(&bits, data + 2 * idx, sizeof(bits));
	return tensor->dtype == LLM_DTYPE_F16 ? llm_f16_to_float(bits)
										  : llm_bf16_to_float(bits);
}

typedef struct ImageReader
{
	LlmAdapterImage *image;
	const char *path;
	int n_used; /* tensors that belong to a pair */
	LlmError *err;
} ImageReader;

/* The pair's tensor of that suffix; *tensor NULL where there is none. */
static bool
find_tensor(ImageReader *reader, const char *pair_name, const char *suffix,
			const LlmStoredTensor **tensor)
{
	char name[ADAPTER_NAME_BYTES + 16];

	snprintf(name, sizeof(name), "%s.%s", pair_name, suffix);
	*tensor = llm_safetensors_find(reader->image->tensors, name);
	if (*tensor == NULL)
		return true;
	reader->n_used++;
	if (!(*tensor)->is_known_dtype || !llm_dtype_is_float((*tensor)->dtype))
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: tensor \"%s\" has dtype %s", reader->path,
							 name, (*tensor)->dtype_name);
	return true;
}

static bool
has_shape(const LlmStoredTensor *tensor, int64_t n_rows, int64_t n_cols)
{
	if (n_cols == 0)
		return tensor->n_dims == 1 && tensor->shape[0] == n_rows;
	return tensor->n_dims == 2 && tensor->shape[0] == n_rows &&
		   tensor->shape[1] == n_cols;
}

static bool
check_shapes(const ImageReader *reader, const LlmAdapterPair *pair,
			 const char *name)
{
	if (pair->rank > 0 && pair->rank <= LLM_ADAPTER_MAX_RANK &&
		has_shape(pair->a, pair->rank, pair->n_in) &&
		has_shape(pair->b, pair->n_out, pair->rank) &&
		(pair->magnitude == NULL || has_shape(pair->magnitude, pair->n_out, 0)))
		return true;
	return llm_error_set(reader->err, LLM_ERROR_FORMAT,
						 "%s: the matrices of \"%s\" do not have the shapes "
						 "that the model calls for",
						 reader->path, name);
}

static bool
read_scale(const ImageReader *reader, const char *name, float *scale)
{
	char key[ADAPTER_NAME_BYTES + 16];
	const char *text;
	char *end;
	double value;

	snprintf(key, sizeof(key), "scale.%s", name);
	text = llm_safetensors_metadata(reader->image->tensors, key);
	value = text != NULL ? strtod(text, &end) : NAN;
	if (!isfinite((float) value) || *end != '\0')
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: \"%s\" has no scale", reader->path, name);
	*scale = (float) value;
	return true;
}

/* Add a part of a target, if the image has it. */
static bool
read_pair(ImageReader *reader, const AdapterTarget *target, int part)
{
	LlmAdapterImage *image = reader->image;
	LlmAdapterPair pair = { .layer_idx = target->layer_idx,
							.module = target->parts[part].module,
							.expert_idx = target->expert_idx,
							.n_in = target->n_in,
							.n_out = target->parts[part].n_rows };
	char name[LLM_ADAPTER_PAIR_NAME_BYTES];

	llm_adapter_pair_name(pair.layer_idx, pair.module, pair.expert_idx, name);
	if (!find_tensor(reader, name, "A", &pair.a) ||
		!find_tensor(reader, name, "B", &pair.b) ||
		!find_tensor(reader, name, "magnitude", &pair.magnitude))
		return false;
	if (pair.a == NULL && pair.b == NULL && pair.magnitude == NULL)
		return true;
	if (pair.a == NULL || pair.b == NULL)
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: \"%s\" lacks a matrix", reader->path, name);
	if (pair.a->n_dims == 2 && pair.a->shape[0] <= LLM_ADAPTER_MAX_RANK)
		pair.rank = (int32_t) pair.a->shape[0];
	if (pair.magnitude != NULL && pair.module >= LLM_ADAPTER_EMBED)
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: \"%s\" has no magnitudes", reader->path,
							 name);
	if (!check_shapes(reader, &pair, name) ||
		!read_scale(reader, name, &pair.scale))
		return false;
	image->pairs[image->n_pairs++] = pair;
	if (pair.rank > image->max_rank)
		image->max_rank = pair.rank;
	image->has_dora |= pair.magnitude != NULL;
	image->has_experts |= llm_adapter_is_expert(pair.module);
	return true;
}

static bool
read_pairs(ImageReader *reader, const LlmModelConfig *config)
{
	LlmAdapterImage *image = reader->image;
	int n_targets;
	AdapterTarget *targets =
		adapter_targets_list(config, &n_targets, reader->err);
	size_t capacity = (size_t) n_targets * ADAPTER_MAX_PARTS;
	bool ok = targets != NULL;

	if (ok)
		image->pairs = calloc(capacity, sizeof(*image->pairs));
	if (ok && image->pairs == NULL)
		ok = llm_error_no_memory(reader->err, capacity * sizeof(*image->pairs),
								 "an adapter's modules");
	for (int i = 0; ok && i < n_targets; i++)
		for (int part = 0; ok && part < targets[i].n_parts; part++)
			ok = read_pair(reader, &targets[i], part);
	free(targets);
	if (ok && image->n_pairs == 0)
		ok = llm_error_set(reader->err, LLM_ERROR_FORMAT,
						   "%s: no tensor belongs to a module of the model",
						   reader->path);
	if (ok && reader->n_used != llm_safetensors_n_tensors(image->tensors))
		ok = llm_error_set(reader->err, LLM_ERROR_FORMAT,
						   "%s: %d of its tensors belong to no module of the "
						   "model",
						   reader->path,
						   llm_safetensors_n_tensors(image->tensors) -
							   reader->n_used);
	return ok;
}

static bool
read_base(const ImageReader *reader)
{
	LlmAdapterImage *image = reader->image;
	const char *format = llm_safetensors_metadata(image->tensors, "format");
	const char *base = llm_safetensors_metadata(image->tensors, "base");

	if (format == NULL || strcmp(format, LLM_ADAPTER_FORMAT) != 0)
		return llm_error_set(reader->err, LLM_ERROR_FORMAT,
							 "%s: it is no adapter image of format \"%s\"",
							 reader->path, LLM_ADAPTER_FORMAT);
	image->config_json = llm_safetensors_metadata(image->tensors, "config");
	for (int i = 0; i < LLM_FINGERPRINT_BYTES; i++)
	{
		unsigned byte;

		if (base == NULL || strlen(base) != 2 * LLM_FINGERPRINT_BYTES ||
			sscanf(base + 2 * i, "%2x", &byte) != 1 ||
			image->config_json == NULL)
			return llm_error_set(reader->err, LLM_ERROR_FORMAT,
								 "%s: its metadata is damaged", reader->path);
		image->base[i] = (uint8_t) byte;
	}
	return true;
}

LlmAdapterImage *
llm_adapter_image_open(const char *path, const LlmModelConfig *config,
					   LlmError *err)
{
	LlmAdapterImage *image = calloc(1, sizeof(*image));
	ImageReader reader = { .image = image, .path = path, .err = err };

	if (image == NULL)
	{
		llm_error_no_memory(err, sizeof(*image), "an adapter");
		return NULL;
	}
	image->tensors = llm_safetensors_open(path, err);
	if (image->tensors == NULL || !read_base(&reader) ||
		!read_pairs(&reader, config))
	{
		llm_adapter_image_close(image);
		return NULL;
	}
	return image;
}

void
llm_adapter_image_close(LlmAdapterImage *image)
{
	if (image == NULL)
		return;
	free(image->pairs);
	llm_safetensors_close(image->tensors);
	free(image);
}

/* In the order of an image's pairs. */
static int64_t
pair_key(int32_t layer_idx, LlmAdapterModule module, int32_t expert_idx)
{
	return ((int64_t) (uint32_t) layer_idx * LLM_ADAPTER_MODULE_COUNT +
			(int64_t) module) *
			   LLM_MAX_EXPERTS +
		   expert_idx;
}

const LlmAdapterPair *
llm_adapter_image_find_expert(const LlmAdapterImage *image, int32_t layer_idx,
							  LlmAdapterModule module, int32_t expert_idx)
{
	int64_t wanted = pair_key(layer_idx, module, expert_idx);
	int32_t low = 0;
	int32_t high = image->n_pairs;

	while (low < high)
	{
		int32_t middle = low + (high - low) / 2;
		const LlmAdapterPair *pair = &image->pairs[middle];
		int64_t key = pair_key(pair->layer_idx, pair->module, pair->expert_idx);

		if (key == wanted)
			return pair;
		if (key < wanted)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

const LlmAdapterPair *
llm_adapter_image_find(const LlmAdapterImage *image, int32_t layer_idx,
					   LlmAdapterModule module)
{
	return llm_adapter_image_find_expert(image, layer_idx, module, 0);
}

const LlmAdapterPair *
adapter_pair_of_part(const LlmAdapterImage *image, const AdapterTarget *target,
					 int part)
{
	return llm_adapter_image_find_expert(image, target->layer_idx,
										 target->parts[part].module,
										 target->expert_idx);
}

size_t
llm_adapter_image_bytes(const LlmAdapterImage *image)
{
	size_t n_bytes = 0;

	for (int i = 0; i < llm_safetensors_n_tensors(image->tensors); i++)
		n_bytes += llm_safetensors_get(image->tensors, i)->n_bytes;
	return n_bytes;
}
