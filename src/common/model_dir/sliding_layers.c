/*
 * sliding_layers.c
 *	  Which layers see only a window of the context.
 *
 * Sliding layers see the last sliding_window positions, the others
 * everything.  Configs say which they are layer by layer, with layer_types;
 * where they do not, it is the family's rule: all of them, those from
 * max_window_layers on, or all but each n-th.
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

/* layer_types, or the given layers where the config does not say. */
static bool
read_layers(const ConfigReader *reader, int32_t window, LlmLayerSet sliding,
			LlmModelConfig *config)
{
	const cJSON *types = llm_json_get(reader->json, "layer_types");
	bool any = false;

	if (types != NULL)
	{
		memset(&sliding, 0, sizeof(sliding));
		if (!read_layer_types(reader, types, config->n_layers, &sliding))
			return false;
	}
	for (int32_t i = 0; i < config->n_layers; i++)
		any = any || llm_layer_set_has(&sliding, i);
	if (any && window == 0)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: layers have sliding attention (see "
							 "\"layer_types\"), but there is no "
							 "\"sliding_window\"",
							 reader->path);
	config->sliding_window = any ? window : 0;
	config->sliding_layers = sliding;
	return true;
}

bool
sliding_layers_read(const ConfigReader *reader, int32_t window,
					int32_t first_sliding, LlmModelConfig *config)
{
	LlmLayerSet sliding = { { 0 } };

	for (int32_t i = first_sliding; window > 0 && i < config->n_layers; i++)
		llm_layer_set_add(&sliding, i);
	return read_layers(reader, window, sliding, config);
}

bool
sliding_pattern_read(const ConfigReader *reader, int32_t window,
					 int32_t full_every, LlmModelConfig *config)
{
	LlmLayerSet sliding = { { 0 } };

	for (int32_t i = 0; i < config->n_layers; i++)
	{
		if ((i + 1) % full_every != 0)
			llm_layer_set_add(&sliding, i);
	}
	return read_layers(reader, window, sliding, config);
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
