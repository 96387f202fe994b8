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

/* The index of the first sliding layer; n_layers where none is. */
static bool
read_layer_types(const ConfigReader *reader, const cJSON *types,
				 int32_t n_layers, int32_t *first_sliding)
{
	const cJSON *item;
	int32_t layer_idx = 0;

	*first_sliding = n_layers;
	if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != n_layers)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"layer_types\" must be an array of %d names",
							 reader->path, n_layers);
	cJSON_ArrayForEach(item, types)
	{
		const char *type = cJSON_IsString(item) ? item->valuestring : "";
		bool slides = strcmp(type, "sliding_attention") == 0;

		if (!slides && strcmp(type, "full_attention") != 0)
			return config_unsupported(
				reader, "layer type \"%s\" of layer %d is not supported", type,
				layer_idx);
		if (slides && *first_sliding == n_layers)
			*first_sliding = layer_idx;
		if (!slides && *first_sliding < n_layers)
			return config_unsupported(
				reader,
				"\"layer_types\" puts full attention (layer %d) after "
				"sliding attention (layer %d), which is not supported",
				layer_idx, *first_sliding);
		layer_idx++;
	}
	return true;
}

bool
sliding_layers_read(const ConfigReader *reader, int32_t window,
					int32_t first_sliding, LlmModelConfig *config)
{
	const cJSON *types = llm_json_get(reader->json, "layer_types");

	if (window == 0)
		first_sliding = config->n_layers;
	if (types != NULL &&
		!read_layer_types(reader, types, config->n_layers, &first_sliding))
		return false;
	if (first_sliding < config->n_layers && window == 0)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"layer_types\" has sliding attention, but "
							 "there is no \"sliding_window\"",
							 reader->path);
	if (first_sliding >= config->n_layers)
	{
		config->sliding_window = 0;
		config->first_sliding_layer = config->n_layers;
	}
	else
	{
		config->sliding_window = window;
		config->first_sliding_layer = first_sliding;
	}
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
