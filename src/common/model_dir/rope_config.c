/*
 * rope_config.c
 *	  The rotary embedding's parameters.
 *
 * They stand in "rope_parameters" (transformers 5), or in "rope_scaling"
 * with "rope_theta" beside it (before), and their kind is called
 * "rope_type" or "type".  Where both objects are there, rope_scaling wins,
 * as in transformers.  Keys and defaults follow
 * transformers/modeling_rope_utils.py; keys that a kind does not know are
 * refused.
 *
 * The context length is config.json's max_position_embeddings, but for
 * linear, dynamic and yarn, whose configs keep the length before scaling
 * there: as in vLLM it is then the original length times the factor, if that
 * is more.
 *
 * src/common/model_dir/rope_config.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/common/model_dir/model_dir_internal.h"

#define MAX_THETA 1e15
#define MAX_FACTOR 1e6

static const char *const common_rope_keys[] = {
	"rope_type", "type", "rope_theta", "partial_rotary_factor", NULL,
};

static const struct RopeKindName
{
	const char *name;
	const char *const keys[10]; /* ends with NULL */
} rope_kinds[] = {
	[LLM_ROPE_DEFAULT] = { "default", { NULL } },
	[LLM_ROPE_LINEAR] = { "linear", { "factor", NULL } },
	[LLM_ROPE_DYNAMIC] = { "dynamic", { "factor", NULL } },
	[LLM_ROPE_YARN] = { "yarn",
						{ "factor", "original_max_position_embeddings",
						  "attention_factor", "beta_fast", "beta_slow",
						  "mscale", "mscale_all_dim", "truncate", "finetuned",
						  NULL } },
	[LLM_ROPE_LLAMA3] = { "llama3",
						  { "factor", "original_max_position_embeddings",
							"low_freq_factor", "high_freq_factor", NULL } },
	[LLM_ROPE_LONGROPE] = { "longrope",
							{ "factor", "original_max_position_embeddings",
							  "attention_factor", "short_factor", "long_factor",
							  NULL } },
};

#define N_ROPE_KINDS ((int) (sizeof(rope_kinds) / sizeof(rope_kinds[0])))

const char *
llm_rope_kind_name(LlmRopeKind kind)
{
	assert((int) kind >= 0 && (int) kind < N_ROPE_KINDS);
	return rope_kinds[kind].name;
}

static bool
read_kind(const ConfigReader *rope, LlmRopeKind *kind)
{
	const char *old_name = NULL;
	const char *name = NULL;

	if (!config_get_string(rope, "type", &old_name) ||
		!config_get_string(rope, "rope_type", &name))
		return false;
	if (name != NULL && old_name != NULL && strcmp(name, old_name) != 0)
		return llm_error_set(rope->err, LLM_ERROR_INVALID,
							 "%s: \"rope_type\" is \"%s\", but \"type\" is "
							 "\"%s\"",
							 rope->path, name, old_name);
	if (name == NULL)
		name = old_name;
	if (name == NULL)
		name = "default";
	for (int i = 0; i < N_ROPE_KINDS; i++)
	{
		if (strcmp(rope_kinds[i].name, name) == 0)
		{
			*kind = (LlmRopeKind) i;
			return true;
		}
	}
	return config_unsupported(rope, "rotary embedding \"%s\" is not supported",
							  name);
}

static bool
check_rope_keys(const ConfigReader *rope, LlmRopeKind kind)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, rope->json)
	{
		if (!cJSON_IsNull(item) &&
			!config_is_one_of(common_rope_keys, item->string) &&
			!config_is_one_of(rope_kinds[kind].keys, item->string))
			return config_unsupported(
				rope, "key \"%s\" is not known for rotary embedding \"%s\"",
				item->string, rope_kinds[kind].name);
	}
	return true;
}

static bool
read_factor_list(const ConfigReader *rope, const char *key, int32_t n,
				 float *factors)
{
	const cJSON *list = llm_json_get(rope->json, key);
	const cJSON *item;
	int32_t i = 0;

	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != n)
		return llm_error_set(rope->err, LLM_ERROR_INVALID,
							 "%s: \"%s\" must be an array of %d numbers",
							 rope->path, key, n);
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsNumber(item) || !(item->valuedouble > 0) ||
			item->valuedouble > MAX_FACTOR)
			return llm_error_set(rope->err, LLM_ERROR_INVALID,
								 "%s: \"%s\" must hold positive numbers",
								 rope->path, key);
		factors[i++] = (float) item->valuedouble;
	}
	return true;
}

/* yarn, llama3, longrope: the length that the model was first trained on. */
static bool
read_original_length(const ConfigReader *reader, const ConfigReader *rope,
					 LlmModelConfig *config)
{
	int32_t *length = &config->rope.original_max_position;

	*length = config->max_position;
	/* as in transformers, the one outside has priority */
	return config_get_int(rope, "original_max_position_embeddings", 2,
						  INT32_MAX, length) &&
		   config_get_int(reader, "original_max_position_embeddings", 2,
						  INT32_MAX, length);
}

static bool
need_factor(const ConfigReader *rope, const char *key, double min,
			double *value)
{
	if (llm_json_get(rope->json, key) == NULL)
		return llm_error_set(rope->err, LLM_ERROR_INVALID,
							 "%s: \"%s\" is missing", rope->path, key);
	return config_get_double(rope, key, min, MAX_FACTOR, value);
}

static bool
read_yarn(const ConfigReader *rope, LlmModelConfig *config)
{
	LlmRopeConfig *out = &config->rope;
	bool finetuned = true;

	out->factor = (double) config->max_position / out->original_max_position;
	out->beta_fast = 32;
	out->beta_slow = 1;
	out->truncate = true;
	if (!config_get_double(rope, "factor", 1, MAX_FACTOR, &out->factor) ||
		!config_get_double(rope, "beta_fast", 1e-3, MAX_FACTOR,
						   &out->beta_fast) ||
		!config_get_double(rope, "beta_slow", 1e-3, MAX_FACTOR,
						   &out->beta_slow) ||
		!config_get_double(rope, "mscale", 0, MAX_FACTOR, &out->mscale) ||
		!config_get_double(rope, "mscale_all_dim", 0, MAX_FACTOR,
						   &out->mscale_all_dim) ||
		!config_get_double(rope, "attention_factor", 1e-6, MAX_FACTOR,
						   &out->attention_factor) ||
		!config_get_bool(rope, "truncate", &out->truncate) ||
		!config_get_bool(rope, "finetuned", &finetuned))
		return false;
	if (!finetuned)
		return config_unsupported(rope, "yarn with \"finetuned\" false is not "
										"supported");
	if (out->beta_fast < out->beta_slow)
		return llm_error_set(rope->err, LLM_ERROR_INVALID,
							 "%s: \"beta_fast\" (%g) is less than "
							 "\"beta_slow\" (%g)",
							 rope->path, out->beta_fast, out->beta_slow);
	return true;
}

static bool
read_llama3(const ConfigReader *rope, LlmRopeConfig *out)
{
	if (!need_factor(rope, "factor", 1, &out->factor) ||
		!need_factor(rope, "low_freq_factor", 1e-6, &out->low_freq_factor) ||
		!need_factor(rope, "high_freq_factor", 1e-6, &out->high_freq_factor))
		return false;
	if (out->high_freq_factor <= out->low_freq_factor)
		return llm_error_set(rope->err, LLM_ERROR_INVALID,
							 "%s: \"high_freq_factor\" (%g) must be greater "
							 "than \"low_freq_factor\" (%g)",
							 rope->path, out->high_freq_factor,
							 out->low_freq_factor);
	return true;
}

static bool
read_longrope(const ConfigReader *rope, LlmModelConfig *config)
{
	LlmRopeConfig *out = &config->rope;

	out->n_factors = out->rotary_dim / 2;
	assert(out->n_factors <= LLM_MAX_ROPE_FACTORS);
	out->factor = (double) config->max_position / out->original_max_position;
	return config_get_double(rope, "factor", 1e-6, MAX_FACTOR, &out->factor) &&
		   config_get_double(rope, "attention_factor", 1e-6, MAX_FACTOR,
							 &out->attention_factor) &&
		   read_factor_list(rope, "short_factor", out->n_factors,
							out->short_factor) &&
		   read_factor_list(rope, "long_factor", out->n_factors,
							out->long_factor);
}

static void
extend_context(LlmModelConfig *config, int32_t original_length)
{
	double length = floor(original_length * config->rope.factor);

	if (length > config->max_position)
		config->max_position =
			length < (double) INT32_MAX ? (int32_t) length : INT32_MAX;
}

static bool
read_by_kind(const ConfigReader *reader, const ConfigReader *rope,
			 LlmModelConfig *config)
{
	LlmRopeConfig *out = &config->rope;

	switch (out->kind)
	{
		case LLM_ROPE_DEFAULT:
			return true;
		case LLM_ROPE_LINEAR:
			if (!need_factor(rope, "factor", 1, &out->factor))
				return false;
			extend_context(config, config->max_position);
			return true;
		case LLM_ROPE_DYNAMIC:
			if (!need_factor(rope, "factor", 1, &out->factor))
				return false;
			out->original_max_position = config->max_position;
			extend_context(config, config->max_position);
			return true;
		case LLM_ROPE_YARN:
			if (!read_original_length(reader, rope, config) ||
				!read_yarn(rope, config))
				return false;
			extend_context(config, out->original_max_position);
			return true;
		case LLM_ROPE_LLAMA3:
			return read_original_length(reader, rope, config) &&
				   read_llama3(rope, out);
		case LLM_ROPE_LONGROPE:
			return read_original_length(reader, rope, config) &&
				   read_longrope(rope, config);
	}
	return llm_error_set(rope->err, LLM_ERROR_INTERNAL,
						 "rotary embedding %d is out of range",
						 (int) out->kind);
}

/* The object with the parameters; an empty one where there is none. */
static const cJSON *
find_rope_object(const ConfigReader *reader, const char **key)
{
	const cJSON *scaling = llm_json_get(reader->json, "rope_scaling");
	const cJSON *parameters = llm_json_get(reader->json, "rope_parameters");

	*key = "rope_scaling";
	if (scaling != NULL && !(cJSON_IsObject(scaling) && scaling->child == NULL))
		return scaling;
	*key = "rope_parameters";
	return parameters;
}

bool
rope_config_read(const ConfigReader *reader, LlmModelConfig *config)
{
	static const cJSON empty = { .type = cJSON_Object };
	char path[MODEL_DIR_MAX_PATH_BYTES + 32];
	LlmRopeConfig *out = &config->rope;
	double default_theta = reader->family->defaults.rope_theta;
	double partial_factor = 1;
	const char *key;
	const cJSON *object = find_rope_object(reader, &key);
	ConfigReader rope = *reader;

	assert(config->head_dim > 0 && config->max_position > 0);
	snprintf(path, sizeof(path), "%s: %s", reader->path, key);
	rope.path = path;
	rope.json = object != NULL ? object : &empty;
	if (!cJSON_IsObject(rope.json))
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s must be an object", path);
	out->theta = default_theta > 0 ? default_theta : 10000;
	out->factor = 1;
	if (!read_kind(&rope, &out->kind) || !check_rope_keys(&rope, out->kind) ||
		!config_get_double(reader, "rope_theta", 1.0001, MAX_THETA,
						   &out->theta) ||
		!config_get_double(&rope, "rope_theta", 1.0001, MAX_THETA,
						   &out->theta) ||
		!config_get_double(reader, "partial_rotary_factor", 0, 1,
						   &partial_factor) ||
		!config_get_double(&rope, "partial_rotary_factor", 0, 1,
						   &partial_factor))
		return false;
	if (partial_factor != 1)
		return config_unsupported(
			reader,
			"\"partial_rotary_factor\" %g is not supported by family "
			"\"%s\"",
			partial_factor, reader->family->name);
	out->rotary_dim = config->head_dim;
	return read_by_kind(reader, &rope, config);
}
