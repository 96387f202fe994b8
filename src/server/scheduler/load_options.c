/*
 * load_options.c
 *	  From settings and llm_load_model's options to the LOAD message.
 *
 * Options are checked in the backend process that gives them, so that a typo
 * is an error there and then.  The message is composed by the scheduler, from
 * its own view of the settings, whenever it starts an executor.
 *
 * src/server/scheduler/load_options.c
 */
#include "postgres.h"

#include "miscadmin.h"
#include "src/common/util/json.h"
#include "src/server/scheduler/scheduler_internal.h"
#include "src/server/settings.h"

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_COUNT,
	OPTION_SHARE, /* above 0, up to 1 */
	OPTION_BOOL
} OptionType;

typedef struct Option
{
	const char *key;
	OptionType type;
	const char *choices; /* of a text: " a b c " */
	int64 max;			 /* of a count */
	bool is_internal;	 /* set by us, not by llm_load_model's caller */
} Option;

static const Option known_options[] = {
	{ "device", OPTION_TEXT, " auto cpu cuda " },
	{ "dtype", OPTION_TEXT, " auto float32 bfloat16 float16 " },
	{ "kv_cache_dtype", OPTION_TEXT, " auto float32 bfloat16 fp8 int8 " },
	{ "quantization", OPTION_TEXT, " none int8 int4 " },
	{ "load_format", OPTION_TEXT, " auto dummy " },
	{ "async_stepping", OPTION_TEXT, " auto on off " },
	{ "max_model_len", OPTION_COUNT, NULL, 1 << 24 },
	{ "max_num_seqs", OPTION_COUNT, NULL, 4096 },
	{ "max_num_batched_tokens", OPTION_COUNT, NULL, 1 << 20 },
	{ "block_size", OPTION_COUNT, NULL, 64 },
	{ "kv_cache_memory_bytes", OPTION_COUNT, NULL, INT64CONST(1) << 50 },
	{ "gpu_memory_utilization", OPTION_SHARE },
	{ "num_threads", OPTION_COUNT, NULL, 1024 },
	{ "enable_prefix_caching", OPTION_BOOL },
	{ "enforce_eager", OPTION_BOOL },
	{ "deterministic", OPTION_BOOL },
	{ "max_loras", OPTION_COUNT, NULL, 1024 },
	{ "max_lora_rank", OPTION_COUNT, NULL, 512 },
	{ "max_cpu_loras", OPTION_COUNT, NULL, 1 << 20 },
	{ "aging_ms", OPTION_COUNT, NULL, PG_INT32_MAX },
	{ "seed", OPTION_COUNT, NULL, INT64CONST(1) << 52 },
	{ "cache_dir", OPTION_TEXT, NULL, 0, true },
	{ "share_dir", OPTION_TEXT, NULL, 0, true },
	{ "debug_crash_token", OPTION_COUNT, NULL, PG_INT32_MAX, true },
};

static const Option *
find_option(const char *key)
{
	for (int i = 0; i < lengthof(known_options); i++)
		if (!known_options[i].is_internal &&
			strcmp(known_options[i].key, key) == 0)
			return &known_options[i];
	return NULL;
}

static bool
check_text(const Option *option, const cJSON *value, LlmError *err)
{
	char padded[64];

	if (!cJSON_IsString(value))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "option \"%s\" must be a string", option->key);
	snprintf(padded, sizeof(padded), " %s ", value->valuestring);
	if (strchr(value->valuestring, ' ') == NULL &&
		strstr(option->choices, padded) != NULL)
		return true;
	llm_error_set(err, LLM_ERROR_INVALID,
				  "option \"%s\" does not know the value \"%s\"", option->key,
				  value->valuestring);
	return llm_error_hint(err, "It takes one of:%s", option->choices);
}

static bool
check_option(const Option *option, const cJSON *object, const cJSON *value,
			 LlmError *err)
{
	int64_t count = 0;

	switch (option->type)
	{
		case OPTION_TEXT:
			return check_text(option, value, err);
		case OPTION_COUNT:
			if (!llm_json_get_int(object, option->key, &count, err))
				return false;
			if (count >= 0 && count <= option->max)
				return true;
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "option \"%s\" must be between 0 and %lld, "
								 "not %lld",
								 option->key, (long long) option->max,
								 (long long) count);
		case OPTION_SHARE:
			if (cJSON_IsNumber(value) && value->valuedouble > 0 &&
				value->valuedouble <= 1)
				return true;
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "option \"%s\" must be above 0 and at most 1",
								 option->key);
		case OPTION_BOOL:
			if (cJSON_IsBool(value))
				return true;
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "option \"%s\" must be true or false",
								 option->key);
	}
	return false;
}

static bool
check_options(const cJSON *object, LlmError *err)
{
	const cJSON *value;

	if (!cJSON_IsObject(object))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "options must be a JSON object");
	cJSON_ArrayForEach(value, object)
	{
		const Option *option = find_option(value->string);

		if (option == NULL)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "unknown model option \"%s\"", value->string);
		if (!cJSON_IsNull(value) && !check_option(option, object, value, err))
			return false;
	}
	return true;
}

bool
llm_load_options_normalize(const char *json, char *dest, size_t size,
						   LlmError *err)
{
	cJSON *object;
	bool ok;

	dest[0] = '\0';
	if (json == NULL || json[0] == '\0')
		json = "{}";
	object = llm_json_parse(json, strlen(json), "options", err);
	if (object == NULL)
		return false;
	ok = check_options(object, err);
	/* a test setting of the session that loads */
	if (ok && llm_setting_debug_crash_token >= 0 &&
		cJSON_AddNumberToObject(object, "debug_crash_token",
								llm_setting_debug_crash_token) == NULL)
		ok = llm_error_no_memory(err, size, "options");
	if (ok && !cJSON_PrintPreallocated(object, dest, (int) size, false))
		ok = llm_error_set(err, LLM_ERROR_LIMIT,
						   "options are longer than %zu bytes", size);
	cJSON_Delete(object);
	return ok;
}

static bool
add_settings(cJSON *object)
{
	double kv_bytes = (double) llm_setting_kv_cache_memory_mb * 1024 * 1024;

	return cJSON_AddStringToObject(object, "device", llm_setting_device) &&
		   cJSON_AddStringToObject(object, "dtype", llm_setting_dtype) &&
		   cJSON_AddStringToObject(object, "kv_cache_dtype",
								   llm_setting_kv_cache_dtype) &&
		   cJSON_AddStringToObject(object, "quantization",
								   llm_setting_quantization) &&
		   cJSON_AddStringToObject(object, "load_format",
								   llm_setting_load_format) &&
		   cJSON_AddStringToObject(object, "async_stepping",
								   llm_setting_async_stepping) &&
		   cJSON_AddNumberToObject(object, "max_model_len",
								   llm_setting_max_model_len) &&
		   cJSON_AddNumberToObject(object, "max_num_seqs",
								   llm_setting_max_num_seqs) &&
		   cJSON_AddNumberToObject(object, "max_loras",
								   llm_setting_max_loras) &&
		   cJSON_AddNumberToObject(object, "max_lora_rank",
								   llm_setting_max_lora_rank) &&
		   cJSON_AddNumberToObject(object, "max_cpu_loras",
								   llm_setting_max_cpu_loras) &&
		   cJSON_AddNumberToObject(object, "max_num_batched_tokens",
								   llm_setting_max_num_batched_tokens) &&
		   cJSON_AddNumberToObject(object, "block_size",
								   llm_setting_block_size) &&
		   cJSON_AddNumberToObject(object, "kv_cache_memory_bytes", kv_bytes) &&
		   cJSON_AddNumberToObject(object, "gpu_memory_utilization",
								   llm_setting_gpu_memory_utilization) &&
		   cJSON_AddNumberToObject(object, "num_threads",
								   llm_setting_num_threads) &&
		   cJSON_AddBoolToObject(object, "enable_prefix_caching",
								 llm_setting_enable_prefix_caching) &&
		   cJSON_AddBoolToObject(object, "deterministic",
								 llm_setting_deterministic) &&
		   cJSON_AddBoolToObject(object, "enforce_eager",
								 llm_setting_enforce_eager) &&
		   cJSON_AddNumberToObject(object, "aging_ms", llm_setting_aging_ms) &&
		   cJSON_AddNumberToObject(object, "debug_crash_token",
								   llm_setting_debug_crash_token);
}

/* Each option that is given takes the place of the setting. */
static bool
override_settings(cJSON *object, const char *options, LlmError *err)
{
	cJSON *overrides;
	cJSON *value;

	if (options[0] == '\0')
		return true;
	overrides = llm_json_parse(options, strlen(options), "options", err);
	if (overrides == NULL)
		return false;
	while ((value = overrides->child) != NULL)
	{
		cJSON_DetachItemViaPointer(overrides, value);
		if (cJSON_IsNull(value))
		{
			cJSON_Delete(value);
			continue;
		}
		/* not cJSON_Replace..., which frees the name that it is given */
		cJSON_DeleteItemFromObjectCaseSensitive(object, value->string);
		(void) cJSON_AddItemToObject(object, value->string, value);
	}
	cJSON_Delete(overrides);
	return true;
}

char *
llm_load_options_compose(const char *path, const char *image_path,
						 const char *options, LlmError *err)
{
	cJSON *object = cJSON_CreateObject();
	char *json = NULL;
	bool ok;

	ok = object != NULL && cJSON_AddStringToObject(object, "path", path) &&
		 cJSON_AddStringToObject(object, "image_path", image_path) &&
		 cJSON_AddStringToObject(object, "cache_dir", DataDir) &&
		 cJSON_AddStringToObject(object, "share_dir", llm_image_folder()) &&
		 add_settings(object);
	if (!ok)
		llm_error_no_memory(err, LLM_LOAD_OPTIONS_BYTES, "a load message");
	else if (override_settings(object, options, err))
	{
		json = cJSON_PrintUnformatted(object);
		if (json == NULL)
			llm_error_no_memory(err, LLM_LOAD_OPTIONS_BYTES, "a load message");
	}
	cJSON_Delete(object);
	return json;
}

void
llm_load_options_free(char *json)
{
	cJSON_free(json);
}
