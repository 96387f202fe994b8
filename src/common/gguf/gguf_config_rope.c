/*
 * gguf_config_rope.c
 *	  The rotary embedding's part of config.json, from a GGUF file.
 *
 * Llama 3's frequencies are stored as what each is divided by, in tensor
 * "rope_freqs.weight", without the parameters they came from.  That is what
 * longrope's factors are: with the same list for short and long texts, and
 * an attention factor of 1, it rotates by exactly these frequencies.
 *
 * src/common/gguf/gguf_config_rope.c
 */
#include <string.h>

#include "src/common/gguf/gguf_internal.h"

static bool
out_of_memory(GgufConfig *config)
{
	config->failed = true;
	return true; /* noticed at the end */
}

static void
set_number(GgufConfig *config, cJSON *rope, const char *key, double value)
{
	if (cJSON_AddNumberToObject(rope, key, value) == NULL)
		config->failed = true;
}

/* Copy a number where the file has it. */
static bool
copy_number(GgufConfig *config, cJSON *rope, const char *name, const char *key)
{
	double value = 0;

	if (!gguf_config_get(config, name, &value))
		return false;
	if (gguf_config_has(config, name))
		set_number(config, rope, key, value);
	return true;
}

/* A number that must say nothing: neutral where it is given. */
static bool
need_neutral(const GgufConfig *config, const char *name, double neutral)
{
	double value = neutral;

	if (!gguf_config_get(config, name, &value))
		return false;
	return value == neutral ||
		   gguf_config_unsupported(
			   config, "metadata key \"%s\" is %g, which is not supported",
			   gguf_key(config->architecture, name).text, value);
}

/* A list of factors from a tensor of floats. */
static bool
copy_factors(GgufConfig *config, cJSON *rope, const char *tensor_name,
			 const char *key)
{
	const LlmGgufTensor *tensor = llm_gguf_find(config->gguf, tensor_name);
	const char *bytes;
	cJSON *list;

	if (tensor == NULL || tensor->n_dims != 1 || !tensor->is_known_dtype ||
		tensor->dtype != LLM_DTYPE_F32 || tensor->shape[0] > 4096)
		return gguf_config_unsupported(config,
									   "tensor \"%s\" must be a short list of "
									   "type F32",
									   tensor_name);
	list = cJSON_AddArrayToObject(rope, key);
	if (list == NULL)
		return out_of_memory(config);
	bytes = tensor->data;
	for (int64_t i = 0; i < tensor->shape[0]; i++)
	{
		double factor;
		cJSON *item;

		if (!gguf_load_number(GGUF_FLOAT32, bytes + 4 * i, &factor))
			return gguf_config_unsupported(
				config, "tensor \"%s\" holds a number that is not finite",
				tensor_name);
		item = cJSON_CreateNumber(factor);
		if (!cJSON_AddItemToArray(list, item))
		{
			cJSON_Delete(item);
			return out_of_memory(config);
		}
	}
	return true;
}

/* The original length stands outside of the object, where it has priority. */
static bool
write_factors(GgufConfig *config, cJSON *rope)
{
	bool is_common = llm_gguf_find(config->gguf, "rope_freqs.weight") != NULL;
	const char *short_name =
		is_common ? "rope_freqs.weight" : "rope_factors_short.weight";
	const char *long_name =
		is_common ? "rope_freqs.weight" : "rope_factors_long.weight";

	if (is_common)
		set_number(config, rope, "attention_factor", 1);
	else if (!copy_number(config, rope, "rope.scaling.attn_factor",
						  "attention_factor") ||
			 !gguf_config_copy(config, "rope.scaling.original_context_length",
							   "original_max_position_embeddings"))
		return false;
	return copy_factors(config, rope, short_name, "short_factor") &&
		   copy_factors(config, rope, long_name, "long_factor");
}

static bool
write_yarn(GgufConfig *config, cJSON *rope)
{
	return need_neutral(config, "rope.scaling.attn_factor", 1) &&
		   need_neutral(config, "rope.scaling.yarn_attn_factor", 1) &&
		   need_neutral(config, "rope.scaling.yarn_ext_factor", 1) &&
		   need_neutral(config, "rope.scaling.yarn_log_multiplier", 0) &&
		   copy_number(config, rope, "rope.scaling.factor", "factor") &&
		   gguf_config_copy(config, "rope.scaling.original_context_length",
							"original_max_position_embeddings") &&
		   copy_number(config, rope, "rope.scaling.yarn_beta_fast",
					   "beta_fast") &&
		   copy_number(config, rope, "rope.scaling.yarn_beta_slow",
					   "beta_slow");
}

static bool
is_text(LlmGgufText text, const char *expected)
{
	return text.len == strlen(expected) &&
		   memcmp(text.data, expected, text.len) == 0;
}

static bool
has_factors(const GgufConfig *config)
{
	return llm_gguf_find(config->gguf, "rope_freqs.weight") != NULL ||
		   llm_gguf_find(config->gguf, "rope_factors_long.weight") != NULL ||
		   llm_gguf_find(config->gguf, "rope_factors_short.weight") != NULL;
}

/* What the file calls the kind; as in llama.cpp a factor alone is linear. */
static bool
read_kind(const GgufConfig *config, LlmGgufText *kind)
{
	GgufKey key = gguf_key(config->architecture, "rope.scaling.type");
	double factor = 1;

	if (!gguf_config_get(config, "rope.scaling.factor", &factor))
		return false;
	*kind = factor != 0 && factor != 1 ? (LlmGgufText){ "linear", 6 }
									   : (LlmGgufText){ "none", 4 };
	return !gguf_config_has(config, "rope.scaling.type") ||
		   llm_gguf_get_text(config->gguf, key.text, kind, config->err);
}

/* Which kind of rope_parameters it is; NULL: none that is known. */
static const char *
kind_name(const GgufConfig *config, LlmGgufText kind)
{
	if (has_factors(config))
		return is_text(kind, "none") || is_text(kind, "longrope") ? "longrope"
																  : NULL;
	if (is_text(kind, "none"))
		return "default";
	if (is_text(kind, "linear"))
		return "linear";
	return is_text(kind, "yarn") ? "yarn" : NULL;
}

static bool
write_kind(GgufConfig *config, cJSON *rope)
{
	LlmGgufText kind;
	const char *name;

	if (!read_kind(config, &kind))
		return false;
	name = kind_name(config, kind);
	if (name == NULL)
		return gguf_config_unsupported(
			config, "rotary embedding \"%.*s\" %s is not supported",
			(int) (kind.len < 64 ? kind.len : 64), kind.data,
			has_factors(config) ? "with a list of factors"
								: "without a list of factors");
	if (cJSON_AddStringToObject(rope, "rope_type", name) == NULL)
		config->failed = true;
	/* Phi-3's converter names the length although nothing scales from it */
	gguf_config_has(config, "rope.scaling.original_context_length");
	if (has_factors(config))
		return write_factors(config, rope);
	if (strcmp(name, "yarn") == 0)
		return write_yarn(config, rope);
	return need_neutral(config, "rope.scaling.attn_factor", 1) &&
		   (strcmp(name, "linear") != 0 ||
			copy_number(config, rope, "rope.scaling.factor", "factor"));
}

/* Dimensions of a head that rotate. */
static bool
write_partial_factor(GgufConfig *config)
{
	const cJSON *head_dim =
		cJSON_GetObjectItemCaseSensitive(config->out, "head_dim");
	double n_rotating = head_dim != NULL ? head_dim->valuedouble : 0;
	double n = n_rotating;

	if (!gguf_config_get(config, "rope.dimension_count", &n_rotating))
		return false;
	/* always: some families' default is another */
	if (n > 0)
		gguf_config_set(config, "partial_rotary_factor", n_rotating / n);
	return true;
}

bool
gguf_config_write_rope(GgufConfig *config)
{
	cJSON *rope = cJSON_AddObjectToObject(config->out, "rope_scaling");

	if (rope == NULL)
		return out_of_memory(config);
	return write_kind(config, rope) && write_partial_factor(config);
}
