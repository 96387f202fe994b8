/*
 * executor_options.c
 *	  The LOAD message's JSON.
 *
 * The server has validated what users wrote; here every value is checked
 * again, because a wrong one would be served for hours.
 *
 * src/engine/executor/executor_options.c
 */
#include <stdlib.h>
#include <string.h>

#include "src/common/util/json.h"
#include "src/engine/executor/executor.h"

static bool
get_text(const cJSON *json, const char *key, char *dest, size_t size,
		 LlmError *err)
{
	const char *value = NULL;

	if (!llm_json_get_string(json, key, &value, err))
		return false;
	if (value == NULL)
		return true;
	if (strlen(value) >= size)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "\"%s\" is longer than %zu bytes", key, size - 1);
	strcpy(dest, value);
	return true;
}

static bool
get_count(const cJSON *json, const char *key, int64_t min, int64_t max,
		  int64_t *dest, LlmError *err)
{
	if (!llm_json_get_int(json, key, dest, err))
		return false;
	if (*dest < min || *dest > max)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "\"%s\" must be between %lld and %lld, not %lld",
							 key, (long long) min, (long long) max,
							 (long long) *dest);
	return true;
}

static bool
get_count32(const cJSON *json, const char *key, int64_t min, int64_t max,
			int32_t *dest, LlmError *err)
{
	int64_t value = *dest;

	if (!get_count(json, key, min, max, &value, err))
		return false;
	*dest = (int32_t) value;
	return true;
}

static bool
get_share(const cJSON *json, const char *key, double *dest, LlmError *err)
{
	if (!llm_json_get_double(json, key, dest, err))
		return false;
	if (!(*dest > 0 && *dest <= 1))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "\"%s\" must be above 0 and at most 1, not %g",
							 key, *dest);
	return true;
}

static bool
one_of(const char *key, const char *value, const char *const *choices,
	   LlmError *err)
{
	for (int i = 0; choices[i] != NULL; i++)
		if (strcmp(value, choices[i]) == 0)
			return true;
	return llm_error_set(err, LLM_ERROR_INVALID,
						 "\"%s\" does not know the value \"%s\"", key, value);
}

static bool
parse_texts(const cJSON *json, LlmExecutorOptions *options, LlmError *err)
{
	static const char *const devices[] = { "auto", "cpu", "cuda", NULL };
	static const char *const dtypes[] = { "auto", "float32", "float16",
										  "bfloat16", NULL };
	static const char *const kv_dtypes[] = { "auto", "float32", "bfloat16",
											 "fp8",	 "int8",	NULL };
	static const char *const switches[] = { "auto", "on", "off", NULL };
	static const char *const quantizations[] = { "none", "int8", "int4", NULL };
	static const char *const formats[] = { "auto", "dummy", NULL };
	char load_format[16] = "auto";

	if (!get_text(json, "path", options->path, sizeof(options->path), err) ||
		!get_text(json, "image_path", options->image_path,
				  sizeof(options->image_path), err) ||
		!get_text(json, "cache_dir", options->cache_dir,
				  sizeof(options->cache_dir), err) ||
		!get_text(json, "share_dir", options->share_dir,
				  sizeof(options->share_dir), err) ||
		!get_text(json, "device", options->device, sizeof(options->device),
				  err) ||
		!get_text(json, "dtype", options->dtype, sizeof(options->dtype), err) ||
		!get_text(json, "kv_cache_dtype", options->kv_cache_dtype,
				  sizeof(options->kv_cache_dtype), err) ||
		!get_text(json, "quantization", options->quantization,
				  sizeof(options->quantization), err) ||
		!get_text(json, "async_stepping", options->async_stepping,
				  sizeof(options->async_stepping), err) ||
		!get_text(json, "load_format", load_format, sizeof(load_format), err))
		return false;
	options->dummy_weights = strcmp(load_format, "dummy") == 0;
	return one_of("device", options->device, devices, err) &&
		   one_of("dtype", options->dtype, dtypes, err) &&
		   one_of("kv_cache_dtype", options->kv_cache_dtype, kv_dtypes, err) &&
		   one_of("quantization", options->quantization, quantizations, err) &&
		   one_of("async_stepping", options->async_stepping, switches, err) &&
		   one_of("load_format", load_format, formats, err);
}

static bool
parse_numbers(const cJSON *json, LlmExecutorOptions *options, LlmError *err)
{
	int64_t seed = 0;

	if (!get_count32(json, "max_model_len", 0, 1 << 24, &options->max_model_len,
					 err) ||
		!get_count32(json, "max_num_seqs", 0, 4096, &options->max_num_seqs,
					 err) ||
		!get_count32(json, "max_num_batched_tokens", 0, 1 << 20,
					 &options->max_num_batched_tokens, err) ||
		!get_count32(json, "block_size", 16, 64, &options->block_size, err) ||
		!get_count32(json, "num_threads", 0, 1024, &options->num_threads,
					 err) ||
		!get_count(json, "kv_cache_memory_bytes", 0, INT64_C(1) << 50,
				   &options->kv_cache_memory_bytes, err) ||
		!get_count(json, "aging_ms", 0, INT64_C(1) << 40, &options->aging_ms,
				   err) ||
		!get_count(json, "seed", 0, INT64_C(1) << 52, &seed, err) ||
		!get_count32(json, "max_loras", 0, 1024, &options->max_loras, err) ||
		!get_count32(json, "max_lora_rank", 1, 512, &options->max_lora_rank,
					 err) ||
		!get_count32(json, "max_cpu_loras", 0, 1 << 20, &options->max_cpu_loras,
					 err) ||
		!get_count32(json, "debug_crash_token", -1, INT32_MAX,
					 &options->debug_crash_token, err) ||
		!llm_json_get_bool(json, "enable_prefix_caching",
						   &options->enable_prefix_caching, err) ||
		!llm_json_get_bool(json, "deterministic", &options->deterministic,
						   err) ||
		!llm_json_get_bool(json, "enforce_eager", &options->enforce_eager,
						   err) ||
		!get_share(json, "gpu_memory_utilization",
				   &options->gpu_memory_utilization, err))
		return false;
	options->dummy_seed = (uint64_t) seed;
	if ((options->block_size & (options->block_size - 1)) != 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "\"block_size\" must be 16, 32 or 64, not %d",
							 options->block_size);
	return true;
}

bool
llm_executor_options_parse(const char *text, size_t len,
						   LlmExecutorOptions *options, LlmError *err)
{
	cJSON *json = llm_json_parse(text, len, "load message", err);
	bool ok;

	if (json == NULL)
		return false;
	memset(options, 0, sizeof(*options));
	strcpy(options->device, "auto");
	strcpy(options->dtype, "auto");
	strcpy(options->kv_cache_dtype, "auto");
	strcpy(options->quantization, "none");
	strcpy(options->async_stepping, "auto");
	options->enable_prefix_caching = true;
	options->block_size = 16;
	options->gpu_memory_utilization = 0.9;
	options->aging_ms = 5000;
	options->max_loras = 8;
	options->max_lora_rank = 16;
	options->debug_crash_token = -1;
	ok = parse_texts(json, options, err) && parse_numbers(json, options, err);
	cJSON_Delete(json);
	if (ok && options->path[0] == '\0')
		ok = llm_error_set(err, LLM_ERROR_INVALID, "no model path was given");
	return ok;
}
