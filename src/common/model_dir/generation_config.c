/*
 * generation_config.c
 *	  The sampling defaults that a model's makers recommend.
 *
 * Only what the file says is set; everything else of it (beam search,
 * cache kinds, ...) has no meaning here.
 *
 * src/common/model_dir/generation_config.c
 */
#include <float.h>
#include <string.h>

#include "src/common/model_dir/model_dir_internal.h"

static bool
get_double(const ConfigReader *reader, const char *key, double min, double max,
		   double *value, bool *has)
{
	*has = llm_json_get(reader->json, key) != NULL;
	return config_get_double(reader, key, min, max, value);
}

static bool
get_int(const ConfigReader *reader, const char *key, int64_t min,
		int32_t *value, bool *has)
{
	*has = llm_json_get(reader->json, key) != NULL;
	return config_get_int(reader, key, min, INT32_MAX, value);
}

static bool
read_defaults(const ConfigReader *reader, LlmGenerationDefaults *out)
{
	bool do_sample = true;

	if (!get_double(reader, "temperature", 0, 100, &out->temperature,
					&out->has_temperature) ||
		!get_double(reader, "top_p", 0, 1, &out->top_p, &out->has_top_p) ||
		!get_double(reader, "min_p", 0, 1, &out->min_p, &out->has_min_p) ||
		!get_double(reader, "repetition_penalty", FLT_MIN, 1000,
					&out->repetition_penalty, &out->has_repetition_penalty) ||
		!get_int(reader, "top_k", -1, &out->top_k, &out->has_top_k) ||
		!get_int(reader, "max_new_tokens", 1, &out->max_new_tokens,
				 &out->has_max_new_tokens) ||
		!config_get_bool(reader, "do_sample", &do_sample))
		return false;
	if (out->has_top_p && out->top_p == 0)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"top_p\" must be greater than 0",
							 reader->path);
	if (out->top_k < 0)
		out->top_k = 0; /* both mean "off" */
	if (!do_sample)
	{
		out->has_temperature = true;
		out->temperature = 0;
	}
	return true;
}

bool
llm_generation_defaults_read(const char *dir, LlmGenerationDefaults *defaults,
							 LlmError *err)
{
	char path[MODEL_DIR_MAX_PATH_BYTES];
	ConfigReader reader = { .path = path, .err = err };
	cJSON *json;
	bool ok;

	memset(defaults, 0, sizeof(*defaults));
	if (!model_dir_path(path, dir, "generation_config.json", err) ||
		!model_dir_parse(dir, "generation_config.json",
						 MODEL_DIR_MAX_CONFIG_BYTES, &json, err))
		return false;
	if (json == NULL)
		return true;
	defaults->present = true;
	reader.json = json;
	ok = read_defaults(&reader, defaults);
	cJSON_Delete(json);
	return ok;
}
