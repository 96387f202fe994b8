/*
 * adapter_config.c
 *	  PEFT's adapter_config.json.
 *
 * Keys that are not known are ignored, since every version of PEFT adds some;
 * keys that are known to change what the adapter computes, and that are set,
 * are refused by name.
 *
 * Which modules are targets, and their ranks, follow PEFT: a list of names
 * matches a module of that name or ending in "." and it; a string is a regular
 * expression for the whole name.  A key of rank_pattern or alpha_pattern is a
 * regular expression for the end of a name, from its beginning or a dot on.
 *
 * src/common/adapter/adapter_config.c
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include <math.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/adapter/adapter_internal.h"

#define WHAT "adapter_config.json"

/* Patterns are outside input: bounds on what matching may cost. */
#define MAX_PATTERN_BYTES 4096
#define MATCH_LIMIT 100000

/* Features that change the computation and are not served. */
static const char *const refused_keys[] = {
	"alora_invocation_tokens",
	"arrow_config",
	"bdlora_config",
	"kasa_config",
	"lora_bias",
	"layer_replication",
	"modules_to_save",
	"monteclora_config",
	"trainable_token_indices",
	"use_bdlora",
	"use_qalora",
	"velora_config",
};

/* Trainings that change the base model's weights, too. */
static const char *const refused_inits[] = { "pissa",	"olora", "corda",
											 "lora_ga", "loftq", "mica" };

static const char *const exported_keys[] = {
	"alpha_pattern",
	"base_model_name_or_path",
	"lora_alpha",
	"lora_dropout",
	"r",
	"rank_pattern",
	"target_modules",
	"exclude_modules",
	"task_type",
	"layers_to_transform",
	"layers_pattern",
	"revision",
};

static bool
config_error(LlmError *err, const char *key, const char *what)
{
	return llm_error_set(err, LLM_ERROR_FORMAT, WHAT ": \"%s\" %s", key, what);
}

/* Null, false, an empty list or object: as if it were not there. */
static bool
is_unset(const cJSON *value)
{
	return value == NULL || cJSON_IsNull(value) || cJSON_IsFalse(value) ||
		   ((cJSON_IsArray(value) || cJSON_IsObject(value)) &&
			value->child == NULL);
}

static bool
refuse_features(const cJSON *json, LlmError *err)
{
	const cJSON *init = llm_json_get(json, "init_lora_weights");
	const cJSON *bias = llm_json_get(json, "bias");

	for (size_t i = 0; i < sizeof(refused_keys) / sizeof(*refused_keys); i++)
	{
		if (is_unset(llm_json_get(json, refused_keys[i])))
			continue;
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  WHAT ": \"%s\" is set, which is not supported",
					  refused_keys[i]);
		if (strcmp(refused_keys[i], "modules_to_save") == 0)
			llm_error_hint(err, "Whole matrices of its own are a model: merge "
								"the adapter, or train \"lm_head\" and "
								"\"embed_tokens\" as target_modules.");
		return false;
	}
	if (!is_unset(llm_json_get(json, "fan_in_fan_out")))
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 WHAT ": \"fan_in_fan_out\" is for models with "
								  "transposed weights");
	if (bias != NULL &&
		(!cJSON_IsString(bias) || strcmp(bias->valuestring, "none") != 0))
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 WHAT ": \"bias\" is not \"none\": trained biases "
								  "are not supported");
	for (size_t i = 0; i < sizeof(refused_inits) / sizeof(*refused_inits); i++)
	{
		if (!cJSON_IsString(init) ||
			strncmp(init->valuestring, refused_inits[i],
					strlen(refused_inits[i])) != 0)
			continue;
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  WHAT ": \"init_lora_weights\" is \"%s\": its training "
						   "changed the base model's weights",
					  init->valuestring);
		return llm_error_hint(err, "Save it with PEFT's "
								   "path_initial_model_for_weight_conversion, "
								   "which makes it a plain LoRA adapter.");
	}
	return true;
}

static bool
check_kind(const cJSON *json, LlmError *err)
{
	const char *type = NULL;

	if (!llm_json_get_string(json, "peft_type", &type, err))
		return false;
	if (type == NULL || strcmp(type, "LORA") != 0)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 WHAT ": \"peft_type\" is \"%s\"; only \"LORA\" "
								  "is supported",
							 type != NULL ? type : "missing");
	return true;
}

/* Whether a name is another one's end, from a dot or the beginning on. */
static bool
ends_in_name(const char *module, const char *name)
{
	size_t module_len = strlen(module);
	size_t len = strlen(name);

	return len > 0 && len <= module_len &&
		   strcmp(module + module_len - len, name) == 0 &&
		   (len == module_len || module[module_len - len - 1] == '.');
}

/* A list of names, or a string; *value NULL where it is unset. */
static bool
get_names(const cJSON *json, const char *key, const cJSON **value,
		  LlmError *err)
{
	const cJSON *item;

	*value = llm_json_get(json, key);
	if (is_unset(*value))
		*value = NULL;
	if (*value == NULL || cJSON_IsString(*value))
		return true;
	if (!cJSON_IsArray(*value))
		return config_error(err, key, "must be a list of names or a string");
	cJSON_ArrayForEach(item, *value)
	{
		if (!cJSON_IsString(item))
			return config_error(err, key, "must be a list of names");
	}
	return true;
}

/*
 * target_parameters: of experts alone, by a list of names.  An adapter may
 * have nothing else.
 */
static bool
get_parameters(PeftConfig *config, LlmError *err)
{
	const cJSON *item;

	if (!get_names(config->json, "target_parameters", &config->parameters, err))
		return false;
	if (cJSON_IsString(config->parameters))
		return config_error(err, "target_parameters",
							"must be a list of names");
	cJSON_ArrayForEach(item, config->parameters)
	{
		if (!ends_in_name(item->valuestring, "experts.gate_up_proj") &&
			!ends_in_name(item->valuestring, "experts.down_proj"))
			return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
								 WHAT
								 ": \"target_parameters\" names \"%.200s\", "
								 "but only those of experts are supported",
								 item->valuestring);
	}
	return config->targets != NULL || config->parameters != NULL ||
		   config_error(err, "target_modules", "is missing");
}

static bool
get_pattern(const cJSON *json, const char *key, const cJSON **value,
			LlmError *err)
{
	const cJSON *item;

	*value = llm_json_get(json, key);
	if (is_unset(*value))
		*value = NULL;
	if (*value == NULL)
		return true;
	if (!cJSON_IsObject(*value))
		return config_error(err, key, "must be an object");
	cJSON_ArrayForEach(item, *value)
	{
		if (!cJSON_IsNumber(item))
			return config_error(err, key, "must map patterns to numbers");
	}
	return true;
}

static bool
get_layers(const cJSON *json, const cJSON **layers, LlmError *err)
{
	const cJSON *item;

	*layers = llm_json_get(json, "layers_to_transform");
	if (is_unset(*layers))
		*layers = NULL;
	if (*layers == NULL || cJSON_IsNumber(*layers))
		return true;
	if (!cJSON_IsArray(*layers))
		return config_error(err, "layers_to_transform", "must be a list");
	cJSON_ArrayForEach(item, *layers)
	{
		if (!cJSON_IsNumber(item))
			return config_error(err, "layers_to_transform",
								"must be a list of numbers");
	}
	return true;
}

static bool
read_values(PeftConfig *config, LlmError *err)
{
	const cJSON *json = config->json;
	int64_t rank = 8;

	config->alpha = 8;
	if (!llm_json_get_int(json, "r", &rank, err) ||
		!llm_json_get_double(json, "lora_alpha", &config->alpha, err) ||
		!llm_json_get_bool(json, "use_rslora", &config->is_rslora, err) ||
		!llm_json_get_bool(json, "use_dora", &config->is_dora, err) ||
		!get_pattern(json, "rank_pattern", &config->rank_pattern, err) ||
		!get_pattern(json, "alpha_pattern", &config->alpha_pattern, err) ||
		!get_names(json, "target_modules", &config->targets, err) ||
		!get_names(json, "exclude_modules", &config->excluded, err) ||
		!get_layers(json, &config->layers, err))
		return false;
	if (rank < 1 || rank > LLM_ADAPTER_MAX_RANK)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 WHAT ": rank %lld is not between 1 and %d",
							 (long long) rank, LLM_ADAPTER_MAX_RANK);
	config->rank = (int32_t) rank;
	return get_parameters(config, err);
}

bool
peft_config_read(const char *text, size_t len, PeftConfig *config,
				 LlmError *err)
{
	memset(config, 0, sizeof(*config));
	if (len > LLM_ADAPTER_MAX_CONFIG_BYTES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 WHAT ": it has %zu bytes, more than the limit of "
								  "%zu",
							 len, LLM_ADAPTER_MAX_CONFIG_BYTES);
	config->json = llm_json_parse(text, len, WHAT, err);
	if (config->json == NULL)
		return false;
	if (cJSON_IsObject(config->json)
			? check_kind(config->json, err) &&
				  refuse_features(config->json, err) && read_values(config, err)
			: llm_error_set(err, LLM_ERROR_FORMAT,
							WHAT ": it is not a JSON object"))
		return true;
	peft_config_free(config);
	return false;
}

void
peft_config_free(PeftConfig *config)
{
	cJSON_Delete(config->json);
	memset(config, 0, sizeof(*config));
}

/* -- names -- */

/* Whether before, then the pattern, make up the whole name. */
static bool
match_regex(const char *before, const char *pattern, const char *name,
			bool *is_match, LlmError *err)
{
	LlmStrbuf text;
	pcre2_code *code = NULL;
	pcre2_match_data *data = NULL;
	pcre2_match_context *context = pcre2_match_context_create(NULL);
	PCRE2_SIZE offset;
	int rc = PCRE2_ERROR_NOMEMORY;

	llm_strbuf_init(&text);
	text.limit = MAX_PATTERN_BYTES;
	llm_strbuf_printf(&text, "%s(?:%s)", before, pattern);
	if (!text.failed && context != NULL)
		code = pcre2_compile((PCRE2_SPTR) text.data, text.len,
							 PCRE2_ANCHORED | PCRE2_ENDANCHORED, &rc, &offset,
							 NULL);
	if (code != NULL)
		data = pcre2_match_data_create_from_pattern(code, NULL);
	if (data != NULL)
	{
		pcre2_set_match_limit(context, MATCH_LIMIT);
		rc = pcre2_match(code, (PCRE2_SPTR) name, strlen(name), 0, 0, data,
						 context);
	}
	*is_match = data != NULL && rc >= 0;
	llm_strbuf_free(&text);
	pcre2_match_data_free(data);
	pcre2_code_free(code);
	pcre2_match_context_free(context);
	if (*is_match || (data != NULL && rc == PCRE2_ERROR_NOMATCH))
		return true;
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 WHAT ": pattern \"%.200s\" cannot be used", pattern);
}

/* Whether a list of names or a regular expression means a module. */
static bool
match_names(const cJSON *names, const char *module, bool *is_match,
			LlmError *err)
{
	const cJSON *name;

	*is_match = false;
	if (cJSON_IsString(names))
		return match_regex("", names->valuestring, module, is_match, err);
	cJSON_ArrayForEach(name, names)
	{
		*is_match |= ends_in_name(module, name->valuestring);
	}
	return true;
}

static bool
has_layer(const cJSON *layers, int32_t layer_idx)
{
	const cJSON *item;

	if (layers == NULL)
		return true;
	if (cJSON_IsNumber(layers))
		return layers->valuedouble == layer_idx;
	cJSON_ArrayForEach(item, layers)
	{
		if (item->valuedouble == layer_idx)
			return true;
	}
	return false;
}

bool
peft_config_targets(const PeftConfig *config, const AdapterTarget *target,
					bool *is_target, LlmError *err)
{
	bool is_excluded = false;

	if (cJSON_IsString(config->targets) &&
		strcmp(config->targets->valuestring, "all-linear") == 0)
		*is_target = target->layer_idx >= 0 &&
					 !llm_adapter_is_expert(target->parts[0].module);
	else if (!match_names(config->targets, target->name, is_target, err))
		return false;
	if (config->excluded != NULL &&
		!match_names(config->excluded, target->name, &is_excluded, err))
		return false;
	*is_target = *is_target && !is_excluded &&
				 has_layer(config->layers, target->layer_idx);
	return true;
}

bool
peft_config_targets_parameter(const PeftConfig *config, const char *parameter)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, config->parameters)
	{
		if (ends_in_name(item->valuestring, parameter))
			return true;
	}
	return false;
}

/* The first pattern that means the module; *value stays where none does. */
static bool
find_pattern(const cJSON *patterns, const char *module, double *value,
			 LlmError *err)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, patterns)
	{
		bool is_match;

		if (!match_regex("(?:.*\\.)?", item->string, module, &is_match, err))
			return false;
		if (is_match)
		{
			*value = item->valuedouble;
			break;
		}
	}
	return true;
}

bool
peft_config_scale(const PeftConfig *config, const char *module_name,
				  int32_t *rank, double *scale, LlmError *err)
{
	double r = config->rank;
	double alpha = config->alpha;

	if (!find_pattern(config->rank_pattern, module_name, &r, err) ||
		!find_pattern(config->alpha_pattern, module_name, &alpha, err))
		return false;
	/* the factor is a float when it is used */
	if (!(r >= 1 && r <= LLM_ADAPTER_MAX_RANK) || r != floor(r) ||
		!isfinite((float) alpha))
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 WHAT ": rank %g with alpha %g of module \"%s\" is "
								  "out of bounds",
							 r, alpha, module_name);
	*rank = (int32_t) r;
	*scale = config->is_rslora ? alpha / sqrt(r) : alpha / r;
	return true;
}

cJSON *
peft_config_minimal(const PeftConfig *config)
{
	cJSON *minimal = cJSON_CreateObject();
	bool ok = minimal != NULL &&
			  cJSON_AddStringToObject(minimal, "peft_type", "LORA") != NULL &&
			  cJSON_AddStringToObject(minimal, "bias", "none") != NULL &&
			  cJSON_AddTrueToObject(minimal, "inference_mode") != NULL &&
			  cJSON_AddTrueToObject(minimal, "init_lora_weights") != NULL &&
			  cJSON_AddFalseToObject(minimal, "fan_in_fan_out") != NULL;

	for (size_t i = 0; ok && i < sizeof(exported_keys) / sizeof(*exported_keys);
		 i++)
	{
		const cJSON *value = llm_json_get(config->json, exported_keys[i]);

		if (value != NULL)
			ok = cJSON_AddItemToObject(minimal, exported_keys[i],
									   cJSON_Duplicate(value, true));
	}
	/* older readers fail on keys that they do not know */
	if (ok && config->is_rslora)
		ok = cJSON_AddTrueToObject(minimal, "use_rslora") != NULL;
	if (ok && config->is_dora)
		ok = cJSON_AddTrueToObject(minimal, "use_dora") != NULL;
	if (ok)
		return minimal;
	cJSON_Delete(minimal);
	return NULL;
}

/* A number of a module's name, in an object that is made where there is none. */
static bool
add_pattern(cJSON *minimal, const char *key, const char *name, double number)
{
	cJSON *patterns = cJSON_GetObjectItemCaseSensitive(minimal, key);

	if (cJSON_IsNull(patterns))
	{
		cJSON_DeleteItemFromObjectCaseSensitive(minimal, key);
		patterns = NULL;
	}
	if (patterns == NULL)
		patterns = cJSON_AddObjectToObject(minimal, key);
	return patterns != NULL &&
		   cJSON_AddNumberToObject(patterns, name, number) != NULL;
}

/* A regular expression goes on with the name as another choice. */
static cJSON *
joined_targets(const char *regex, const char *name)
{
	LlmStrbuf text;
	cJSON *joined;

	llm_strbuf_init(&text);
	llm_strbuf_printf(&text, "(?:%s)|.*\\.%s", regex, name);
	joined = text.failed ? NULL : cJSON_CreateString(llm_strbuf_str(&text));
	llm_strbuf_free(&text);
	return joined;
}

bool
peft_config_add_target(const PeftConfig *config, cJSON *minimal,
					   const char *name, int32_t rank, double scale)
{
	const double alpha = scale * (config->is_rslora ? sqrt(rank) : rank);
	cJSON *targets =
		cJSON_GetObjectItemCaseSensitive(minimal, "target_modules");
	bool ok;

	if (cJSON_IsString(targets))
		ok = cJSON_ReplaceItemInObjectCaseSensitive(
			minimal, "target_modules",
			joined_targets(targets->valuestring, name));
	else
	{
		if (!cJSON_IsArray(targets))
		{
			cJSON_DeleteItemFromObjectCaseSensitive(minimal, "target_modules");
			targets = cJSON_AddArrayToObject(minimal, "target_modules");
		}
		ok = cJSON_AddItemToArray(targets, cJSON_CreateString(name));
	}
	if (ok && rank != config->rank)
		ok = add_pattern(minimal, "rank_pattern", name, rank);
	if (ok && (float) alpha != (float) config->alpha)
		ok = add_pattern(minimal, "alpha_pattern", name, alpha);
	return ok;
}
