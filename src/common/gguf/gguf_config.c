/*
 * gguf_config.c
 *	  The config.json that a GGUF file's model would have.
 *
 * It is written so that the reader of config.json checks it as it checks
 * any other.  The rule of that reader holds for metadata too: a key of the
 * architecture is read, or known to say nothing more, or the file is refused
 * by that key's name.
 *
 * src/common/gguf/gguf_config.c
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/gguf/gguf_internal.h"

/* Metadata keys of any architecture that say nothing of the model. */
static const char *const harmless_names[] = {
	"rope.scaling.finetuned", /* how it was trained */
	"tensor_data_layout",	  /* where the weights came from */
	"vocab_size",			  /* the embedding says it, too */
};

/* Copied as they are. */
static const struct
{
	const char *name;
	const char *key;
	bool is_needed;
} copied[] = {
	{ "block_count", "num_hidden_layers", true },
	{ "embedding_length", "hidden_size", true },
	{ "feed_forward_length", "intermediate_size", true },
	{ "context_length", "max_position_embeddings", true },
	{ "attention.head_count", "num_attention_heads", true },
	{ "attention.layer_norm_rms_epsilon", "rms_norm_eps", true },
	{ "rope.freq_base", "rope_theta", false },
};

GgufKey
gguf_key(const GgufArchitecture *architecture, const char *name)
{
	GgufKey key;

	snprintf(key.text, sizeof(key.text), "%s.%s", architecture->name, name);
	return key;
}

double
gguf_shortest_number(float value)
{
	char text[40];

	for (int n_digits = 6; n_digits < 9; n_digits++)
	{
		snprintf(text, sizeof(text), "%.*g", n_digits, (double) value);
		if (strtof(text, NULL) == value)
			return strtod(text, NULL);
	}
	snprintf(text, sizeof(text), "%.9g", (double) value);
	return strtod(text, NULL);
}

/* ---- reading metadata ---- */

bool
gguf_config_unsupported(const GgufConfig *config, const char *fmt, ...)
{
	char what[LLM_ERROR_MESSAGE_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	return llm_error_set(config->err, LLM_ERROR_UNSUPPORTED, "%s: %s",
						 llm_gguf_path(config->gguf, 0), what);
}

/* The entry of a name, which counts as read from now on; or NULL. */
static const GgufEntry *
find_entry(const GgufConfig *config, const char *name)
{
	const GgufFile *file = &config->gguf->files[0];
	const GgufEntry *entry =
		gguf_find_entry(file, gguf_key(config->architecture, name).text);

	if (entry != NULL)
		config->is_read[entry - file->entries] = true;
	return entry;
}

bool
gguf_config_has(const GgufConfig *config, const char *name)
{
	return find_entry(config, name) != NULL;
}

/* An array says one number for each layer: they must be the same. */
static bool
get_common_number(const GgufConfig *config, const char *key, double *value)
{
	LlmGgufArray array = { 0 };
	double number;
	uint64_t n;

	if (!llm_gguf_get_array(config->gguf, key, &array, config->err))
		return false;
	n = array.n_left;
	for (uint64_t i = 0; i < n; i++)
	{
		if (!llm_gguf_next_number(&array, &number))
			return llm_error_set(config->err, LLM_ERROR_FORMAT,
								 "%s: metadata key \"%s\" must hold numbers",
								 llm_gguf_path(config->gguf, 0), key);
		if (i > 0 && number != *value)
			return gguf_config_unsupported(config,
										   "metadata key \"%s\" differs from "
										   "layer to layer, which is not "
										   "supported",
										   key);
		*value = number;
	}
	return true;
}

/* A float says what its shortest decimal says. */
bool
gguf_config_get(const GgufConfig *config, const char *name, double *value)
{
	GgufKey key = gguf_key(config->architecture, name);
	const GgufEntry *entry = find_entry(config, name);

	if (entry == NULL)
		return true;
	if (entry->type == GGUF_ARRAY)
		return get_common_number(config, key.text, value);
	if (!llm_gguf_get_double(config->gguf, key.text, value, config->err))
		return false;
	if (entry->type == GGUF_FLOAT32)
		*value = gguf_shortest_number((float) *value);
	return true;
}

static bool
is_harmless(const GgufEntry *entry, const char *name)
{
	double number;

	for (size_t i = 0; i < sizeof(harmless_names) / sizeof(harmless_names[0]);
		 i++)
	{
		if (strcmp(harmless_names[i], name) == 0)
			return true;
	}
	/* what other models have, and this one has not */
	return entry->type != GGUF_STRING && entry->type != GGUF_ARRAY &&
		   gguf_load_number(entry->type, entry->value, &number) && number == 0;
}

/* Whatever of the architecture nobody has read is refused. */
static bool
check_all_read(const GgufConfig *config)
{
	const GgufFile *file = &config->gguf->files[0];
	size_t prefix_len = strlen(config->architecture->name);

	for (size_t i = 0; i < file->n_entries; i++)
	{
		const char *key = file->entries[i].key;

		if (!config->is_read[i] &&
			strncmp(key, config->architecture->name, prefix_len) == 0 &&
			key[prefix_len] == '.' &&
			!is_harmless(&file->entries[i], key + prefix_len + 1))
			return gguf_config_unsupported(
				config, "metadata key \"%s\" is not known", key);
	}
	return true;
}

/* ---- writing config.json ---- */

static void
set_item(GgufConfig *config, const char *key, cJSON *item)
{
	cJSON_DeleteItemFromObjectCaseSensitive(config->out, key);
	if (item == NULL || !cJSON_AddItemToObject(config->out, key, item))
	{
		cJSON_Delete(item);
		config->failed = true;
	}
}

void
gguf_config_set(GgufConfig *config, const char *key, double number)
{
	set_item(config, key, cJSON_CreateNumber(number));
}

void
gguf_config_set_bool(GgufConfig *config, const char *key, bool value)
{
	set_item(config, key, cJSON_CreateBool(value));
}

void
gguf_config_set_text(GgufConfig *config, const char *key, const char *text)
{
	set_item(config, key, cJSON_CreateString(text));
}

void
gguf_config_set_model(GgufConfig *config, const char *architecture,
					  const char *model_type)
{
	set_item(config, "architectures",
			 cJSON_CreateStringArray(&architecture, 1));
	gguf_config_set_text(config, "model_type", model_type);
}

bool
gguf_config_copy(GgufConfig *config, const char *name, const char *key)
{
	double value = 0;

	if (!gguf_config_get(config, name, &value))
		return false;
	if (gguf_config_has(config, name))
		gguf_config_set(config, key, value);
	return true;
}

static bool
copy_numbers(GgufConfig *config)
{
	/* llama.cpp's default, where families have others */
	gguf_config_set(config, "rope_theta", 10000);
	for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++)
	{
		GgufKey key = gguf_key(config->architecture, copied[i].name);

		if (copied[i].is_needed && !llm_gguf_has(config->gguf, key.text))
			return llm_error_set(config->err, LLM_ERROR_INVALID,
								 "%s: metadata key \"%s\" is missing",
								 llm_gguf_path(config->gguf, 0), key.text);
		if (!gguf_config_copy(config, copied[i].name, copied[i].key))
			return false;
	}
	return true;
}

/* Where a key is missing llama.cpp's default counts, not the family's. */
static bool
write_heads(GgufConfig *config)
{
	double hidden = 0;
	double n_heads = 0;
	double n_kv_heads;
	double head_dim = 0;
	double value_dim;

	if (!gguf_config_get(config, "embedding_length", &hidden) ||
		!gguf_config_get(config, "attention.head_count", &n_heads))
		return false;
	n_kv_heads = n_heads;
	if (!gguf_config_get(config, "attention.head_count_kv", &n_kv_heads) ||
		!gguf_config_get(config, "attention.key_length", &head_dim))
		return false;
	gguf_config_set(config, "num_key_value_heads", n_kv_heads);
	if (head_dim == 0 && n_heads > 0)
		head_dim = hidden / n_heads;
	gguf_config_set(config, "head_dim", head_dim);
	value_dim = head_dim;
	if (!gguf_config_get(config, "attention.value_length", &value_dim))
		return false;
	if (value_dim != head_dim)
		return gguf_config_unsupported(
			config,
			"heads of %g dimensions for keys and %g for values are not "
			"supported",
			head_dim, value_dim);
	return true;
}

/* What only the tensors say. */
static bool
write_tensor_facts(GgufConfig *config)
{
	const LlmGgufTensor *embedding =
		llm_gguf_find(config->gguf, "token_embd.weight");
	LlmDtype dtype = LLM_DTYPE_BF16;

	if (embedding == NULL || embedding->n_dims != 2)
		return llm_error_set(config->err, LLM_ERROR_NOT_FOUND,
							 "%s: tensor \"token_embd.weight\" is missing, or "
							 "has not 2 dimensions",
							 llm_gguf_path(config->gguf, 0));
	gguf_config_set(config, "vocab_size", (double) embedding->shape[0]);
	gguf_config_set_bool(config, "tie_word_embeddings",
						 llm_gguf_find(config->gguf, "output.weight") == NULL);
	if (embedding->is_known_dtype && llm_dtype_is_float(embedding->dtype))
		dtype = embedding->dtype;
	gguf_config_set_text(config, "dtype", llm_dtype_name(dtype));
	return true;
}

static bool
write_all(GgufConfig *config)
{
	const GgufArchitecture *architecture = config->architecture;

	gguf_config_set_model(config, architecture->architecture,
						  architecture->model_type);
	return copy_numbers(config) && write_heads(config) &&
		   write_tensor_facts(config) && gguf_config_write_rope(config) &&
		   gguf_config_write_token_ids(config) &&
		   (architecture->write_config == NULL ||
			architecture->write_config(config)) &&
		   check_all_read(config);
}

bool
gguf_print_json(const cJSON *json, LlmStrbuf *text, LlmError *err)
{
	char *printed = cJSON_PrintUnformatted(json);

	if (printed != NULL)
		llm_strbuf_append_str(text, printed);
	cJSON_free(printed);
	return (printed != NULL && !text->failed) ||
		   llm_error_no_memory(err, text->len, "a model's configuration");
}

bool
gguf_write_config(const LlmGguf *gguf, LlmStrbuf *text, LlmError *err)
{
	GgufConfig config = { .gguf = gguf, .err = err };
	bool ok;

	config.architecture = gguf_architecture(gguf, err);
	if (config.architecture == NULL)
		return false;
	config.is_read = calloc(gguf->files[0].n_entries + 1, sizeof(bool));
	config.out = cJSON_CreateObject();
	ok = config.is_read != NULL && config.out != NULL
			 ? write_all(&config)
			 : llm_error_no_memory(err, 0, "a model's configuration");
	if (ok && config.failed)
		ok = llm_error_no_memory(err, 0, "a model's configuration");
	ok = ok && gguf_print_json(config.out, text, err);
	cJSON_Delete(config.out);
	free(config.is_read);
	return ok;
}
