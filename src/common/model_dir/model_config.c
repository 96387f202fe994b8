/*
 * model_config.c
 *	  From config.json to LlmModelConfig.
 *
 * The sizes that make a model (vocab_size, hidden_size, ...) must be there;
 * what may be missing gets the default of transformers' config class, which
 * the family states.  Everything is bounded here, so that products of sizes
 * stay far from overflowing wherever they are taken later.
 *
 * config_reader.c checks keys, rope_config.c and sliding_layers.c read their
 * parts, family_*.c what is a family's own; weight_spec.c says which tensors
 * follow from it.
 *
 * src/common/model_dir/model_config.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/model_dir/model_dir_internal.h"

#define MAX_VOCAB (1 << 24)
#define MAX_HIDDEN (1 << 20)
#define MAX_HEADS 4096
#define MAX_POSITION (1 << 30)

static bool
read_sizes(const ConfigReader *reader, LlmModelConfig *config)
{
	const FamilyDefaults *defaults = &reader->family->defaults;

	config->n_vocab = defaults->n_vocab;
	config->n_heads = defaults->n_heads;
	if (!config_need_int(reader, "vocab_size", 1, MAX_VOCAB,
						 &config->n_vocab) ||
		!config_need_int(reader, "hidden_size", 1, MAX_HIDDEN,
						 &config->hidden_size) ||
		!config_need_int(reader, "intermediate_size", 1,
						 MODEL_DIR_MAX_INTERMEDIATE,
						 &config->intermediate_size) ||
		!config_need_int(reader, "num_hidden_layers", 1, LLM_MAX_LAYERS,
						 &config->n_layers) ||
		!config_need_int(reader, "num_attention_heads", 1, MAX_HEADS,
						 &config->n_heads))
		return false;
	config->n_kv_heads = config->n_heads;
	if (!config_has(reader, "num_key_value_heads") && defaults->n_kv_heads > 0)
		config->n_kv_heads = defaults->n_kv_heads;
	config->max_position = defaults->max_position;
	config->norm_eps = defaults->norm_eps > 0 ? defaults->norm_eps : 1e-6;
	config->tie_word_embeddings = defaults->tie_word_embeddings;
	return config_get_int(reader, "num_key_value_heads", 1, MAX_HEADS,
						  &config->n_kv_heads) &&
		   config_get_int(reader, "max_position_embeddings", 1, MAX_POSITION,
						  &config->max_position) &&
		   config_get_double(reader, "rms_norm_eps", 0, 1, &config->norm_eps) &&
		   config_get_bool(reader, "tie_word_embeddings",
						   &config->tie_word_embeddings);
}

static bool
read_head_dim(const ConfigReader *reader, LlmModelConfig *config)
{
	config->head_dim = reader->family->defaults.head_dim;
	if (!config_get_int(reader, "head_dim", 1, LLM_MAX_HEAD_DIM,
						&config->head_dim))
		return false;
	if (config->head_dim == 0)
	{
		if (config->hidden_size % config->n_heads != 0)
			return llm_error_set(reader->err, LLM_ERROR_INVALID,
								 "%s: \"hidden_size\" (%d) is not a multiple "
								 "of \"num_attention_heads\" (%d)",
								 reader->path, config->hidden_size,
								 config->n_heads);
		config->head_dim = config->hidden_size / config->n_heads;
		if (config->head_dim > LLM_MAX_HEAD_DIM)
			return llm_error_set(reader->err, LLM_ERROR_LIMIT,
								 "%s: heads of %d dimensions are more than the "
								 "limit of %d",
								 reader->path, config->head_dim,
								 LLM_MAX_HEAD_DIM);
	}
	if (config->head_dim % 2 != 0)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: heads of %d dimensions cannot rotate: the "
							 "number must be even",
							 reader->path, config->head_dim);
	if (config->n_heads % config->n_kv_heads != 0)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"num_attention_heads\" (%d) is not a "
							 "multiple of \"num_key_value_heads\" (%d)",
							 reader->path, config->n_heads, config->n_kv_heads);
	return true;
}

bool
config_get_hidden_act(const ConfigReader *reader, const char *key,
					  LlmHiddenAct *act)
{
	static const struct
	{
		const char *name;
		LlmHiddenAct act;
	} names[] = {
		{ "silu", LLM_HIDDEN_ACT_SILU },
		{ "swish", LLM_HIDDEN_ACT_SILU },
		{ "gelu", LLM_HIDDEN_ACT_GELU },
		{ "gelu_new", LLM_HIDDEN_ACT_GELU_TANH },
		{ "gelu_fast", LLM_HIDDEN_ACT_GELU_TANH },
		{ "gelu_pytorch_tanh", LLM_HIDDEN_ACT_GELU_TANH },
	};
	const char *name = NULL;

	if (!config_get_string(reader, key, &name))
		return false;
	if (name == NULL)
		return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (strcmp(names[i].name, name) == 0)
		{
			*act = names[i].act;
			return true;
		}
	}
	return config_unsupported(reader, "\"%s\" \"%s\" is not supported", key,
							  name);
}

static bool
read_hidden_act(const ConfigReader *reader, LlmModelConfig *config)
{
	const char *key = reader->family->hidden_act_key;

	config->hidden_act = reader->family->defaults.hidden_act;
	return config_get_hidden_act(reader, key != NULL ? key : "hidden_act",
								 &config->hidden_act);
}

static bool
read_dtype(const ConfigReader *reader, LlmModelConfig *config)
{
	const char *name = NULL;

	config->dtype = LLM_DTYPE_F32;
	/* where both are there "dtype" wins, as in transformers */
	if (!config_get_string(reader, "torch_dtype", &name) ||
		!config_get_string(reader, "dtype", &name))
		return false;
	if (name == NULL)
		return true;
	if (strncmp(name, "torch.", 6) == 0)
		name += 6;
	for (int i = 0; i <= LLM_DTYPE_BF16; i++)
	{
		if (strcmp(llm_dtype_name((LlmDtype) i), name) == 0)
		{
			config->dtype = (LlmDtype) i;
			return true;
		}
	}
	return config_unsupported(reader, "dtype \"%s\" is not supported", name);
}

static bool
read_token_ids(const ConfigReader *reader, LlmModelConfig *config)
{
	const FamilyDefaults *defaults = &reader->family->defaults;
	bool found;

	config->bos_token_id = -1;
	if (!config_has(reader, "bos_token_id") &&
		defaults->bos_token_id < config->n_vocab)
		config->bos_token_id = defaults->bos_token_id;
	if (!config_get_int(reader, "bos_token_id", 0, config->n_vocab - 1,
						&config->bos_token_id) ||
		!config_get_stop_ids(reader, config, &found))
		return false;
	if (!config_has(reader, "eos_token_id") && defaults->eos_token_id >= 0 &&
		defaults->eos_token_id < config->n_vocab)
	{
		config->stop_ids[0] = defaults->eos_token_id;
		config->n_stop_ids = 1;
	}
	return true;
}

static void
list_architectures(char *list, size_t size)
{
	size_t used = 0;

	list[0] = '\0';
	for (int i = 0; model_dir_families[i] != NULL; i++)
	{
		const char *const *name = model_dir_families[i]->architectures;

		for (; *name != NULL && used < size; name++)
			used += (size_t) snprintf(list + used, size - used, "%s%s",
									  used > 0 ? ", " : "", *name);
	}
}

/* Find the family by architecture, or by model_type where none is named. */
static bool
find_family(ConfigReader *reader, LlmModelConfig *config)
{
	const cJSON *list = llm_json_get(reader->json, "architectures");
	const cJSON *first = cJSON_IsArray(list) ? list->child : NULL;
	const char *architecture =
		cJSON_IsString(first) ? first->valuestring : NULL;
	const char *model_type = NULL;
	char known[400];

	if (!config_get_string(reader, "model_type", &model_type))
		return false;
	for (int i = 0; model_dir_families[i] != NULL; i++)
	{
		const LlmFamily *family = model_dir_families[i];

		if (architecture != NULL
				? !config_is_one_of(family->architectures, architecture)
				: model_type == NULL ||
					  strcmp(family->model_type, model_type) != 0)
			continue;
		if (model_type != NULL && strcmp(family->model_type, model_type) != 0)
			return config_unsupported(
				reader,
				"architecture \"%s\" with \"model_type\" \"%s\" is "
				"not supported",
				architecture, model_type);
		reader->family = family;
		config->family = family;
		snprintf(config->architecture, sizeof(config->architecture), "%s",
				 architecture != NULL ? architecture
									  : family->architectures[0]);
		return true;
	}
	list_architectures(known, sizeof(known));
	if (architecture == NULL && model_type == NULL)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: neither \"architectures\" nor \"model_type\" "
							 "says what the model is",
							 reader->path);
	config_unsupported(reader, "architecture \"%s\" is not supported",
					   architecture != NULL ? architecture : model_type);
	return llm_error_hint(reader->err, "supported are: %s", known);
}

/* ... of the family that is found; from the language model's part. */
static bool
read_text_config(const ConfigReader *reader, LlmModelConfig *config)
{
	if (!config_check_keys(reader, reader->family->keys) ||
		!read_sizes(reader, config) || !read_head_dim(reader, config) ||
		!read_hidden_act(reader, config) || !read_dtype(reader, config) ||
		!rope_config_read(reader, config) || !read_token_ids(reader, config))
		return false;
	config->embed_scale = 1;
	config->attention_scale = 1 / sqrt(config->head_dim);
	if (!reader->family->read(reader, config))
		return false;
	assert(config->n_heads % config->n_kv_heads == 0);
	assert(config->rope.rotary_dim <= config->head_dim);
	return true;
}

static bool
read_config(ConfigReader *reader, LlmModelConfig *config)
{
	cJSON *text = NULL;
	bool ok;

	memset(config, 0, sizeof(*config));
	if (!find_family(reader, config))
		return false;
	ok = (reader->family->outer_keys == NULL ||
		  text_config_take(reader, &text)) &&
		 read_text_config(reader, config);
	cJSON_Delete(text);
	return ok;
}

bool
llm_model_config_parse(const char *text, size_t len, const char *what,
					   LlmModelConfig *config, LlmError *err)
{
	ConfigReader reader = { .path = what, .err = err };
	cJSON *json = llm_json_parse(text, len, what, err);
	bool ok;

	if (json == NULL)
		return false;
	reader.json = json;
	ok = cJSON_IsObject(json)
			 ? read_config(&reader, config)
			 : llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: the file must hold a JSON object", what);
	cJSON_Delete(json);
	return ok;
}

/* generation_config.json's ids replace config.json's, as in transformers. */
static bool
read_generation_stop_ids(const char *dir, LlmModelConfig *config, LlmError *err)
{
	char path[MODEL_DIR_MAX_PATH_BYTES];
	ConfigReader reader = { .path = path, .err = err };
	cJSON *json;
	bool found;
	bool ok;

	if (!model_dir_path(path, dir, "generation_config.json", err) ||
		!model_dir_parse(dir, "generation_config.json",
						 MODEL_DIR_MAX_CONFIG_BYTES, &json, err))
		return false;
	if (json == NULL)
		return true;
	reader.json = json;
	ok = config_get_stop_ids(&reader, config, &found);
	cJSON_Delete(json);
	return ok;
}

static bool
check_path(const char *dir, LlmError *err)
{
	LlmStrbuf gguf_path;
	struct stat st;
	bool is_gguf;
	bool ok;

	if (stat(dir, &st) != 0)
		return llm_error_errno(err, "could not open directory \"%s\"", dir);
	llm_strbuf_init(&gguf_path);
	ok = llm_checkpoint_find_gguf(dir, &gguf_path, &is_gguf, err);
	llm_strbuf_free(&gguf_path);
	if (ok && !is_gguf && !S_ISDIR(st.st_mode))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "\"%s\" is neither a directory nor a GGUF file",
							 dir);
	return ok;
}

bool
llm_model_config_read(const char *dir, LlmModelConfig *config, LlmError *err)
{
	char path[MODEL_DIR_MAX_PATH_BYTES];
	ConfigReader reader = { .path = path, .err = err };
	cJSON *json;
	bool ok;

	if (!check_path(dir, err) ||
		!model_dir_path(path, dir, "config.json", err) ||
		!model_dir_parse(dir, "config.json", MODEL_DIR_MAX_CONFIG_BYTES, &json,
						 err))
		return false;
	if (json == NULL)
		return llm_error_set(err, LLM_ERROR_NOT_FOUND,
							 "directory \"%s\" has no \"config.json\"", dir);
	reader.json = json;
	ok = read_config(&reader, config);
	cJSON_Delete(json);
	return ok && read_generation_stop_ids(dir, config, err);
}
