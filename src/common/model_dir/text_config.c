/*
 * text_config.c
 *	  The language model in the config of a model that also sees.
 *
 * Such a config.json has the language model's config as "text_config", and
 * keys beside it that speak of the whole: these come first, as in
 * transformers.  What sees is left alone: it changes nothing of what the
 * model makes of text.
 *
 * src/common/model_dir/text_config.c
 */
#include <string.h>

#include "src/common/model_dir/model_dir_internal.h"

/* Keys of the whole that count for the language model. */
static const char *const shared_keys[] = {
	"bos_token_id",		   "dtype",		  "eos_token_id",
	"tie_word_embeddings", "torch_dtype", NULL,
};

static bool
take_shared_keys(const ConfigReader *reader, cJSON *text)
{
	for (const char *const *key = shared_keys; *key != NULL; key++)
	{
		const cJSON *item = llm_json_get(reader->json, *key);
		cJSON *copy;

		if (item == NULL)
			continue;
		copy = cJSON_Duplicate(item, true);
		cJSON_DeleteItemFromObjectCaseSensitive(text, *key);
		if (!cJSON_AddItemToObject(text, *key, copy))
		{
			cJSON_Delete(copy);
			return llm_error_no_memory(reader->err, 0, "a model's config");
		}
	}
	return true;
}

bool
text_config_take(ConfigReader *reader, cJSON **text)
{
	const cJSON *inner = llm_json_get(reader->json, "text_config");
	const char *model_type = reader->family->text_model_type;

	*text = NULL;
	if (!config_check_keys(reader, reader->family->outer_keys))
		return false;
	if (!cJSON_IsObject(inner))
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"text_config\" must be an object",
							 reader->path);
	*text = cJSON_Duplicate(inner, true);
	if (*text == NULL)
		return llm_error_no_memory(reader->err, 0, "a model's config");
	if (!take_shared_keys(reader, *text))
		return false;
	reader->json = *text;
	if (!config_get_string(reader, "model_type", &model_type))
		return false;
	if (strcmp(model_type, reader->family->text_model_type) != 0)
		return config_unsupported(reader,
								  "\"text_config\" of \"model_type\" \"%s\" "
								  "is not supported by family \"%s\"",
								  model_type, reader->family->name);
	return true;
}
