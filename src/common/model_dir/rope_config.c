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
 * Families whose sliding layers rotate differently have two of them:
 * "rope_parameters" holds one object for each layer type, and rope_theta and
 * rope_scaling are those of full attention.
 *
 * The context length is config.json's max_position_embeddings, but for
 * linear, dynamic and yarn, whose configs keep the length before scaling
 * there: as in vLLM it is then the original length times the factor, if that
 * is more (Gemma 3 has it in the key already).
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

/* An object of rotary parameters, and where it stands. */
typedef struct RopeReader
{
	ConfigReader rope;
	const ConfigReader *outer; /* config.json around it */
	LlmModelConfig *config;
} RopeReader;

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
	if (rope->family->longrope_names != NULL &&
		config_is_one_of(rope->family->longrope_names, name))
		name = rope_kinds[LLM_ROPE_LONGROPE].name;
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
read_original_length(const RopeReader *reader, LlmRopeConfig *out)
{
	static const char key[] = "original_max_position_embeddings";
	int32_t family_length = reader->rope.family->defaults.original_max_position;
	int32_t *length = &out->original_max_position;

	*length = reader->config->max_position;
	if (!config_get_int(&reader->rope, key, 2, INT32_MAX, length))
		return false;
	/* as in transformers, the one outside has priority, given or default */
	if (family_length > 0)
		*length = family_length;
	return config_get_int(reader->outer, key, 2, INT32_MAX, length);
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
read_yarn(const RopeReader *reader, LlmRopeConfig *out)
{
	const ConfigReader *rope = &reader->rope;
	bool finetuned = true;

	out->factor =
		(double) reader->config->max_position / out->original_max_position;
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
read_longrope(const RopeReader *reader, LlmRopeConfig *out)
{
	const ConfigReader *rope = &reader->rope;

	out->n_factors = out->rotary_dim / 2;
	assert(out->n_factors <= LLM_MAX_ROPE_FACTORS);
	out->factor =
		(double) reader->config->max_position / out->original_max_position;
	return config_get_double(rope, "factor", 1e-6, MAX_FACTOR, &out->factor) &&
		   config_get_double(rope, "attention_factor", 1e-6, MAX_FACTOR,
							 &out->attention_factor) &&
		   read_factor_list(rope, "short_factor", out->n_factors,
							out->short_factor) &&
		   read_factor_list(rope, "long_factor", out->n_factors,
							out->long_factor);
}

static void
extend_context(const RopeReader *reader, int32_t original_length, double factor)
{
	LlmModelConfig *config = reader->config;
	double length = floor(original_length * factor);

	if (length > config->max_position &&
		!reader->rope.family->max_position_is_scaled)
		config->max_position =
			length < (double) INT32_MAX ? (int32_t) length : INT32_MAX;
}

static bool
read_by_kind(const RopeReader *reader, LlmRopeConfig *out)
{
	const ConfigReader *rope = &reader->rope;

	switch (out->kind)
	{
		case LLM_ROPE_DEFAULT:
			return true;
		case LLM_ROPE_LINEAR:
			if (!need_factor(rope, "factor", 1, &out->factor))
				return false;
			extend_context(reader, reader->config->max_position, out->factor);
			return true;
		case LLM_ROPE_DYNAMIC:
			if (!need_factor(rope, "factor", 1, &out->factor))
				return false;
			out->original_max_position = reader->config->max_position;
			extend_context(reader, reader->config->max_position, out->factor);
			return true;
		case LLM_ROPE_YARN:
			if (!read_original_length(reader, out) || !read_yarn(reader, out))
				return false;
			extend_context(reader, out->original_max_position, out->factor);
			return true;
		case LLM_ROPE_LLAMA3:
			return read_original_length(reader, out) && read_llama3(rope, out);
		case LLM_ROPE_LONGROPE:
			return read_original_length(reader, out) &&
				   read_longrope(reader, out);
	}
	return llm_error_set(rope->err, LLM_ERROR_INTERNAL,
						 "rotary embedding %d is out of range",
						 (int) out->kind);
}

/* How many dimensions of a head rotate; the others pass. */
static bool
read_rotary_dim(const RopeReader *reader, LlmRopeConfig *out)
{
	static const char key[] = "partial_rotary_factor";
	const LlmFamily *family = reader->rope.family;
	double family_factor = family->defaults.partial_rotary_factor;
	double factor = family_factor > 0 ? family_factor : 1;

	if (!config_get_double(reader->outer, key, 0, 1, &factor) ||
		!config_get_double(&reader->rope, key, 0, 1, &factor))
		return false;
	if (factor != 1 && family_factor == 0)
		return config_unsupported(reader->outer,
								  "\"%s\" %g is not supported by family \"%s\"",
								  key, factor, family->name);
	out->rotary_dim = (int32_t) (reader->config->head_dim * factor);
	if (out->rotary_dim < 2 || out->rotary_dim % 2 != 0)
		return llm_error_set(reader->outer->err, LLM_ERROR_INVALID,
							 "%s: \"%s\" %g lets %d of %d dimensions of a head "
							 "rotate: the number must be even and not 0",
							 reader->outer->path, key, factor, out->rotary_dim,
							 reader->config->head_dim);
	return true;
}

/* object may be NULL: everything by default; theta_key stands outside of it */
static bool
read_rope(RopeReader *reader, const cJSON *object, const char *theta_key,
		  LlmRopeConfig *out)
{
	static const cJSON empty = { .type = cJSON_Object };
	ConfigReader *rope = &reader->rope;

	assert(reader->config->head_dim > 0 && reader->config->max_position > 0);
	assert(out->theta > 1);
	rope->json = object != NULL ? object : &empty;
	if (!cJSON_IsObject(rope->json))
		return llm_error_set(rope->err, LLM_ERROR_INVALID,
							 "%s must be an object", rope->path);
	out->factor = 1;
	return read_kind(rope, &out->kind) && check_rope_keys(rope, out->kind) &&
		   config_get_double(reader->outer, theta_key, 1.0001, MAX_THETA,
							 &out->theta) &&
		   config_get_double(rope, "rope_theta", 1.0001, MAX_THETA,
							 &out->theta) &&
		   read_rotary_dim(reader, out) && read_by_kind(reader, out);
}

static bool
is_given(const cJSON *object)
{
	return object != NULL && !(cJSON_IsObject(object) && object->child == NULL);
}

/* full_attention's object, with what rope_scaling says put over it */
static bool
merge_scaling(const RopeReader *reader, const cJSON *full, const cJSON *scaling,
			  cJSON **merged)
{
	const cJSON *item;

	if (full != NULL && !cJSON_IsObject(full))
		return llm_error_set(reader->rope.err, LLM_ERROR_INVALID,
							 "%s: \"full_attention\" must be an object",
							 reader->rope.path);
	*merged = full != NULL ? cJSON_Duplicate(full, true) : cJSON_CreateObject();
	cJSON_ArrayForEach(item, scaling)
	{
		cJSON *copy = cJSON_Duplicate(item, true);

		cJSON_DeleteItemFromObjectCaseSensitive(*merged, item->string);
		if (!cJSON_AddItemToObject(*merged, item->string, copy))
		{
			cJSON_Delete(copy);
			cJSON_Delete(*merged);
			return llm_error_no_memory(reader->rope.err, 0,
									   "rotary parameters");
		}
	}
	return true;
}

/* Two ropes: one of full attention, one of sliding layers. */
static bool
read_layer_ropes(RopeReader *reader, LlmModelConfig *config)
{
	static const char *const types[] = { "full_attention", "sliding_attention",
										 NULL };
	const cJSON *json = reader->outer->json;
	const cJSON *scaling = llm_json_get(json, "rope_scaling");
	const cJSON *parameters = llm_json_get(json, "rope_parameters");
	const cJSON *item;
	cJSON *full = NULL;
	bool ok;

	if ((is_given(scaling) && !cJSON_IsObject(scaling)) ||
		(is_given(parameters) && !cJSON_IsObject(parameters)))
		return llm_error_set(reader->rope.err, LLM_ERROR_INVALID,
							 "%s must be an object", reader->rope.path);
	cJSON_ArrayForEach(item, parameters)
	{
		if (!config_is_one_of(types, item->string))
			return config_unsupported(
				&reader->rope,
				"key \"%s\" is not known for family \"%s\", which has one "
				"object for each layer type",
				item->string, reader->rope.family->name);
	}
	if (!merge_scaling(reader, llm_json_get(parameters, types[0]), scaling,
					   &full))
		return false;
	config->has_sliding_rope = true;
	config->sliding_rope.theta =
		reader->rope.family->defaults.sliding_rope_theta;
	ok = read_rope(reader, full, "rope_theta", &config->rope) &&
		 read_rope(reader, llm_json_get(parameters, types[1]),
				   "rope_local_base_freq", &config->sliding_rope);
	cJSON_Delete(full);
	return ok;
}

bool
rope_config_read(const ConfigReader *reader, LlmModelConfig *config)
{
	const FamilyDefaults *defaults = &reader->family->defaults;
	const cJSON *scaling = llm_json_get(reader->json, "rope_scaling");
	bool is_old_form = is_given(scaling);
	char path[MODEL_DIR_MAX_PATH_BYTES + 32];
	RopeReader rope = { *reader, reader, config };

	snprintf(path, sizeof(path), "%s: %s", reader->path,
			 is_old_form ? "rope_scaling" : "rope_parameters");
	rope.rope.path = path;
	config->rope.theta =
		defaults->rope_theta > 0 ? defaults->rope_theta : 10000;
	if (defaults->sliding_rope_theta > 0)
		return read_layer_ropes(&rope, config);
	return read_rope(
		&rope,
		is_old_form ? scaling : llm_json_get(reader->json, "rope_parameters"),
		"rope_theta", &config->rope);
}
