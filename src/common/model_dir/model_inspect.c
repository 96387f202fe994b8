/*
 * model_inspect.c
 *	  Describe a model directory without loading it.
 *
 * The answer is built from parts that fail on their own: each failure
 * becomes an entry of "unsupported", and the fields that depend on it are
 * null.  README.md lists the fields.
 *
 * src/common/model_dir/model_inspect.c
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/model_dir/model_dir_internal.h"
#include "src/common/util/sha256.h"
#include "src/common/util/utf8.h"

/* More tensors than these are counted, not listed. */
#define MAX_TENSOR_PROBLEMS 20

typedef struct Inspection
{
	const char *dir;
	cJSON *out;
	cJSON *unsupported;
	LlmModelConfig config;
	bool has_config;
	bool failed; /* out of memory */
} Inspection;

/* ---- appending to the answer; whatever fails is noticed at the end ---- */

/* Names come from files: bytes that are no UTF-8 become '?'. */
static void
clean_text(char *dest, size_t size, const char *text)
{
	size_t used = 0;

	while (*text != '\0' && used + 4 < size)
	{
		uint32_t codepoint;
		int n = llm_utf8_decode(text, strnlen(text, 4), &codepoint);

		if (n == 0)
		{
			dest[used++] = '?';
			text++;
			continue;
		}
		memcpy(dest + used, text, (size_t) n);
		used += (size_t) n;
		text += n;
	}
	dest[used] = '\0';
}

static void
add_item(Inspection *inspection, cJSON *object, const char *key, cJSON *item)
{
	if (item == NULL || object == NULL ||
		!cJSON_AddItemToObject(object, key, item))
	{
		cJSON_Delete(item);
		inspection->failed = true;
	}
}

static void
add_text(Inspection *inspection, const char *key, const char *text)
{
	char clean[MODEL_DIR_MAX_PATH_BYTES];

	if (text == NULL)
	{
		add_item(inspection, inspection->out, key, cJSON_CreateNull());
		return;
	}
	clean_text(clean, sizeof(clean), text);
	add_item(inspection, inspection->out, key, cJSON_CreateString(clean));
}

static void
add_number(Inspection *inspection, cJSON *object, const char *key,
		   double number)
{
	add_item(inspection, object, key, cJSON_CreateNumber(number));
}

/* A number that only a good config has; null otherwise. */
static void
add_config_number(Inspection *inspection, const char *key, double number)
{
	add_item(inspection, inspection->out, key,
			 inspection->has_config ? cJSON_CreateNumber(number)
									: cJSON_CreateNull());
}

static void
add_unsupported(Inspection *inspection, const char *reason)
{
	char clean[LLM_ERROR_MESSAGE_BYTES];
	cJSON *item;

	clean_text(clean, sizeof(clean), reason);
	item = cJSON_CreateString(clean);
	if (item == NULL || !cJSON_AddItemToArray(inspection->unsupported, item))
	{
		cJSON_Delete(item);
		inspection->failed = true;
	}
}

/* ---- the parts ---- */

/* What config.json calls itself, also where it cannot be served. */
static void
add_architecture(Inspection *inspection)
{
	const cJSON *list;
	const char *name = NULL;
	cJSON *json = NULL;

	if (inspection->has_config)
		name = inspection->config.architecture;
	else if (model_dir_parse(inspection->dir, "config.json",
							 MODEL_DIR_MAX_CONFIG_BYTES, &json, NULL) &&
			 json != NULL)
	{
		list = cJSON_GetObjectItemCaseSensitive(json, "architectures");
		if (cJSON_IsArray(list) && cJSON_IsString(list->child))
			name = list->child->valuestring;
	}
	add_text(inspection, "architecture", name);
	cJSON_Delete(json);
}

static void
add_stop_ids(Inspection *inspection)
{
	const LlmModelConfig *config = &inspection->config;
	cJSON *list = cJSON_CreateIntArray(config->stop_ids, config->n_stop_ids);

	add_item(inspection, inspection->out, "stop_token_ids", list);
}

static void
add_kv_bytes(Inspection *inspection)
{
	static const LlmDtype dtypes[] = { LLM_DTYPE_F32, LLM_DTYPE_BF16,
									   LLM_DTYPE_FP8_E4M3, LLM_DTYPE_INT8 };
	cJSON *object = cJSON_CreateObject();

	for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
		add_number(inspection, object, llm_dtype_name(dtypes[i]),
				   (double) llm_model_kv_bytes_per_token(&inspection->config,
														 dtypes[i]));
	add_item(inspection, inspection->out, "kv_bytes_per_token", object);
}

static void
inspect_config(Inspection *inspection)
{
	const LlmModelConfig *config = &inspection->config;
	LlmError err = { 0 };

	inspection->has_config =
		llm_model_config_read(inspection->dir, &inspection->config, &err);
	if (!inspection->has_config)
		add_unsupported(inspection, err.message);
	add_architecture(inspection);
	add_text(inspection, "family",
			 inspection->has_config ? config->family->name : NULL);
	add_config_number(inspection, "context_length", config->max_position);
	add_config_number(inspection, "vocab_size", config->n_vocab);
	add_config_number(inspection, "hidden_size", config->hidden_size);
	add_config_number(inspection, "n_layers", config->n_layers);
	add_config_number(inspection, "n_heads", config->n_heads);
	add_config_number(inspection, "n_kv_heads", config->n_kv_heads);
	add_config_number(inspection, "head_dim", config->head_dim);
	add_config_number(inspection, "sliding_window", config->sliding_window);
	add_config_number(inspection, "n_experts", config->n_experts);
	add_config_number(inspection, "n_experts_per_token",
					  config->n_experts_per_token);
	add_text(inspection, "rope",
			 inspection->has_config ? llm_rope_kind_name(config->rope.kind)
									: NULL);
	add_text(inspection, "dtype",
			 inspection->has_config ? llm_dtype_name(config->dtype) : NULL);
	add_config_number(
		inspection, "n_params",
		inspection->has_config ? (double) llm_model_n_params(config) : 0);
	if (!inspection->has_config)
		return;
	add_kv_bytes(inspection);
	add_stop_ids(inspection);
}

/* Bytes of all tensors, by the dtype they are stored as. */
static void
add_weight_bytes(Inspection *inspection, const LlmCheckpoint *tensors)
{
	cJSON *object = cJSON_CreateObject();
	double total = 0;

	for (int i = 0; i < llm_checkpoint_n_tensors(tensors); i++)
	{
		const LlmStoredTensor *tensor = llm_checkpoint_get(tensors, i);
		char name[64];
		cJSON *sum;

		clean_text(name, sizeof(name), tensor->dtype_name);
		sum = cJSON_GetObjectItemCaseSensitive(object, name);
		total += (double) tensor->n_bytes;
		if (sum != NULL)
			cJSON_SetNumberValue(sum,
								 sum->valuedouble + (double) tensor->n_bytes);
		else
			add_number(inspection, object, name, (double) tensor->n_bytes);
	}
	add_number(inspection, inspection->out, "weight_bytes", total);
	add_item(inspection, inspection->out, "weight_bytes_by_dtype", object);
}

static void
inspect_weights(Inspection *inspection)
{
	LlmError problems[MAX_TENSOR_PROBLEMS];
	LlmError err = { 0 };
	LlmCheckpoint *tensors = llm_checkpoint_open(inspection->dir, &err);
	int n_problems;

	if (tensors == NULL)
	{
		add_unsupported(inspection, err.message);
		return;
	}
	add_weight_bytes(inspection, tensors);
	if (inspection->has_config)
	{
		n_problems = llm_model_check_tensors(&inspection->config, tensors,
											 problems, MAX_TENSOR_PROBLEMS);
		for (int i = 0; i < n_problems && i < MAX_TENSOR_PROBLEMS; i++)
			add_unsupported(inspection, problems[i].message);
		if (n_problems > MAX_TENSOR_PROBLEMS)
		{
			char more[80];

			snprintf(more, sizeof(more), "%d more problems with tensors",
					 n_problems - MAX_TENSOR_PROBLEMS);
			add_unsupported(inspection, more);
		}
	}
	llm_checkpoint_close(tensors);
}

static void
inspect_template(Inspection *inspection)
{
	uint8_t digest[LLM_SHA256_BYTES];
	char hex[2 * LLM_SHA256_BYTES + 1];
	LlmSha256 sha;
	LlmStrbuf text;
	LlmError err = { 0 };
	bool found;

	llm_strbuf_init(&text);
	if (!llm_model_chat_template_read(inspection->dir, &text, &found, &err))
	{
		add_unsupported(inspection, err.message);
		found = false;
	}
	if (!found)
	{
		add_text(inspection, "chat_template", NULL);
		add_text(inspection, "chat_template_sha256", NULL);
	}
	else
	{
		llm_sha256_init(&sha);
		llm_sha256_update(&sha, llm_strbuf_str(&text), text.len);
		llm_sha256_final(&sha, digest);
		for (int i = 0; i < LLM_SHA256_BYTES; i++)
			snprintf(hex + 2 * i, 3, "%02x", digest[i]);
		add_item(inspection, inspection->out, "chat_template",
				 cJSON_CreateString(llm_strbuf_str(&text)));
		add_text(inspection, "chat_template_sha256", hex);
	}
	llm_strbuf_free(&text);
}

static void
inspect_tokenizer(Inspection *inspection)
{
	const cJSON *model;
	const cJSON *type = NULL;
	LlmError err = { 0 };
	cJSON *json;

	if (!model_dir_parse(inspection->dir, "tokenizer.json",
						 MODEL_DIR_MAX_TOKENIZER_BYTES, &json, &err))
		add_unsupported(inspection, err.message);
	else if (json == NULL)
		add_unsupported(inspection, "there is no \"tokenizer.json\"");
	else
	{
		model = cJSON_GetObjectItemCaseSensitive(json, "model");
		type = cJSON_GetObjectItemCaseSensitive(model, "type");
	}
	add_text(inspection, "tokenizer",
			 cJSON_IsString(type) ? type->valuestring : NULL);
	cJSON_Delete(json);
}

static void
inspect_generation_defaults(Inspection *inspection)
{
	LlmGenerationDefaults defaults;
	LlmError err = { 0 };
	cJSON *object;

	if (!llm_generation_defaults_read(inspection->dir, &defaults, &err))
	{
		add_unsupported(inspection, err.message);
		return;
	}
	object = cJSON_CreateObject();
	if (defaults.has_temperature)
		add_number(inspection, object, "temperature", defaults.temperature);
	if (defaults.has_top_p)
		add_number(inspection, object, "top_p", defaults.top_p);
	if (defaults.has_top_k)
		add_number(inspection, object, "top_k", defaults.top_k);
	if (defaults.has_min_p)
		add_number(inspection, object, "min_p", defaults.min_p);
	if (defaults.has_repetition_penalty)
		add_number(inspection, object, "repetition_penalty",
				   defaults.repetition_penalty);
	if (defaults.has_max_new_tokens)
		add_number(inspection, object, "max_new_tokens",
				   defaults.max_new_tokens);
	add_item(inspection, inspection->out, "generation_defaults", object);
}

static void
inspect_parts(Inspection *inspection)
{
	char license[256];

	add_text(inspection, "path", inspection->dir);
	add_text(inspection, "license",
			 model_license_read(inspection->dir, license, sizeof(license))
				 ? license
				 : NULL);
	inspect_config(inspection);
	inspect_weights(inspection);
	inspect_tokenizer(inspection);
	inspect_template(inspection);
	inspect_generation_defaults(inspection);
}

bool
llm_model_inspect(const char *dir, LlmStrbuf *json, LlmError *err)
{
	Inspection inspection = { .dir = dir };
	struct stat st;
	char *text = NULL;

	if (stat(dir, &st) != 0 || access(dir, R_OK) != 0)
		return llm_error_errno(err, "could not open directory \"%s\"", dir);
	inspection.out = cJSON_CreateObject();
	inspection.unsupported = cJSON_CreateArray();
	if (inspection.out != NULL && inspection.unsupported != NULL)
	{
		inspect_parts(&inspection);
		add_item(&inspection, inspection.out, "unsupported",
				 inspection.unsupported);
		if (!inspection.failed)
			text = cJSON_PrintUnformatted(inspection.out);
	}
	else
		cJSON_Delete(inspection.unsupported);
	cJSON_Delete(inspection.out);
	if (text == NULL)
		return llm_error_no_memory(err, 0, "a model's description");
	llm_strbuf_append_str(json, text);
	cJSON_free(text);
	return !json->failed ||
		   llm_error_no_memory(err, 0, "a model's description");
}
