/*
 * sliding_layers.c
 *	  Which layers see only a window of the context.
 *
 * A model's layers up to first_sliding_layer see everything, those from
 * there on the last sliding_window positions.  Configs say so with
 * max_window_layers or, layer by layer, with layer_types; patterns that
 * alternate are refused, since none of the families here has them.
 *
 * src/common/model_dir/sliding_layers.c
 */
#include <string.h>

#include "src/common/model_dir/model_dir_internal.h"

static bool
read_layer_types(const ConfigReader *reader, const cJSON *types,
				 int32_t n_layers, LlmLayerSet *sliding)
{
	const cJSON *item;
	int32_t layer_idx = 0;

	if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != n_layers)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"layer_types\" must be an array of %d names",
							 reader->path, n_layers);
	cJSON_ArrayForEach(item, types)
	{
		const char *type = cJSON_IsString(item) ? item->valuestring : "";

		if (strcmp(type, "sliding_attention") == 0)
			llm_layer_set_add(sliding, layer_idx);
		else if (strcmp(type, "full_attention") != 0)
			return config_unsupported(
				reader, "layer type \"%s\" of layer %d is not supported", type,
				layer_idx);
		layer_idx++;
	}
	return true;
}

bool
sliding_layers_read(const ConfigReader *reader, int32_t window,
					int32_t first_sliding, LlmModelConfig *config)
{
	const cJSON *types = llm_json_get(reader->json, "layer_types");
	LlmLayerSet sliding = { { 0 } };
	bool any = false;

	if (types != NULL)
	{
		if (!read_layer_types(reader, types, config->n_layers, &sliding))
			return false;
	}
	else if (window > 0)
	{
		for (int32_t i = first_sliding; i < config->n_layers; i++)
			llm_layer_set_add(&sliding, i);
	}
	for (int32_t i = 0; i < config->n_layers; i++)
		any = any || llm_layer_set_has(&sliding, i);
	if (any && window == 0)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"layer_types\" has sliding attention, but "
							 "there is no \"sliding_window\"",
							 reader->path);
	config->sliding_window = any ? window : 0;
	config->sliding_layers = sliding;
	return true;
}

bool
qwen_sliding_layers_read(const ConfigReader *reader, LlmModelConfig *config)
{
	bool use_window = false;
	int32_t window = config_has(reader, "sliding_window")
						 ? 0
						 : reader->family->defaults.sliding_window;
	int32_t first_sliding = 28;

	if (!config_get_bool(reader, "use_sliding_window", &use_window) ||
		!config_get_int(reader, "sliding_window", 0, INT32_MAX, &window) ||
		!config_get_int(reader, "max_window_layers", 0, INT32_MAX,
						&first_sliding))
		return false;
	return sliding_layers_read(reader, use_window ? window : 0, first_sliding,
							   config);
}
