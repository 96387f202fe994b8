/*
 * model_dir_internal.h
 *	  What a family is, and what the files of this room share.
 *
 * A family describes: its tables and defaults stand in family_<name>.c, and
 * family_list.c names it once.  The code that reads configs and lists
 * tensors is the same for all.
 *
 * src/common/model_dir/model_dir_internal.h
 */
#ifndef LLM_MODEL_DIR_INTERNAL_H
#define LLM_MODEL_DIR_INTERNAL_H

#include "src/common/model_dir/model_dir.h"
#include "src/common/util/json.h"

#define MODEL_DIR_MAX_PATH_BYTES 4096

/* A bound on what configs say, far beyond what there is. */
#define MODEL_DIR_MAX_INTERMEDIATE (1 << 22)

/* config.json and generation_config.json are a few kilobytes. */
#define MODEL_DIR_MAX_CONFIG_BYTES ((size_t) 4 << 20)

/* tokenizer_config.json lists every added token. */
#define MODEL_DIR_MAX_TOKENIZER_CONFIG_BYTES ((size_t) 32 << 20)
#define MODEL_DIR_MAX_TEMPLATE_BYTES ((size_t) 1 << 20)
#define MODEL_DIR_MAX_TOKENIZER_BYTES ((size_t) 256 << 20)

/* A config that is being read; getters fail with its path in the message. */
typedef struct ConfigReader
{
	const cJSON *json;
	const char *path;
	const LlmFamily *family;
	LlmError *err;
} ConfigReader;

/*
 * The values that transformers' config class has where a key is missing.
 * A key that is present but null means "none" there, and here: derived from
 * other keys, or absent.
 */
typedef struct FamilyDefaults
{
	int32_t n_vocab;	/* 0 = the config must say it */
	int32_t n_heads;	/* likewise */
	int32_t n_kv_heads; /* 0 = as many as heads */
	int32_t head_dim;	/* 0 = hidden_size / n_heads */
	int32_t max_position;
	int32_t original_max_position; /* longrope, yarn; 0 = max_position */
	int32_t sliding_window;		   /* 0 = none */
	int32_t bos_token_id;		   /* -1 = none */
	int32_t eos_token_id;		   /* -1 = none */
	double norm_eps;			   /* 0 = 1e-6 */
	double rope_theta;			   /* 0 = 10000 */
	double sliding_rope_theta;	   /* 0 = all layers rotate alike */
	double partial_rotary_factor;  /* 0 = heads always rotate whole */
	LlmHiddenAct hidden_act;
	bool tie_word_embeddings;
} FamilyDefaults;

struct LlmFamily
{
	const char *name;
	const char *model_type;			  /* config.json's "model_type" */
	const char *const *architectures; /* ends with NULL; the first is the
									   * one meant where none is named */
	const char *const *keys;		  /* config keys beyond the common ones;
									   * ends with NULL */
	FamilyDefaults defaults;

	/*
	 * Models that also see: the keys beside "text_config", ending with NULL,
	 * and the model_type in it.  NULL where a config is of text alone.
	 */
	const char *const *outer_keys;
	const char *text_model_type;

	/* Which key names the activation; NULL = "hidden_act". */
	const char *hidden_act_key;

	/* What configs also call longrope; ends with NULL; or NULL. */
	const char *const *longrope_names;

	/*
	 * Custom code in "auto_map" that computes what transformers' own class
	 * does; NULL = none.
	 */
	const char *known_code;

	/* Whether linear scaling is in max_position_embeddings already. */
	bool max_position_is_scaled;

	/*
	 * Tensor names; '#' stands for the layer, '@' for the expert; NULL where
	 * there is none.  Roles of one name are stored as one tensor, one after the other.
	 */
	const char *const *tensor_names; /* [LLM_WEIGHT_ROLE_COUNT] */

	/*
	 * Tensors that checkpoints hold and nobody needs; '#' as above, '*' at
	 * the end for anything.
	 */
	const char *const *harmless_tensors; /* ends with NULL */

	/* What is the family's own: biases, norms, windows. */
	bool (*read)(const ConfigReader *reader, LlmModelConfig *config);
};

/* family_list.c */
extern const LlmFamily *const model_dir_families[]; /* ends with NULL */

/* family_llama.c: names that several families share */
extern const char *const family_llama_tensor_names[LLM_WEIGHT_ROLE_COUNT];
extern const char *const family_llama_harmless_tensors[];

/*
 * Gemma 2's and 3's tensors.  Mind the names: post_attention_layernorm is
 * what it says here.
 */
#define FAMILY_GEMMA_TENSOR_NAMES(prefix)                                      \
	{                                                                          \
		[LLM_WEIGHT_EMBED] = prefix "model.embed_tokens.weight",               \
		[LLM_WEIGHT_FINAL_NORM] = prefix "model.norm.weight",                  \
		[LLM_WEIGHT_LM_HEAD] = prefix "lm_head.weight",                        \
		[LLM_WEIGHT_ATTN_NORM] =                                               \
			prefix "model.layers.#.input_layernorm.weight",                    \
		[LLM_WEIGHT_Q] = prefix "model.layers.#.self_attn.q_proj.weight",      \
		[LLM_WEIGHT_K] = prefix "model.layers.#.self_attn.k_proj.weight",      \
		[LLM_WEIGHT_V] = prefix "model.layers.#.self_attn.v_proj.weight",      \
		[LLM_WEIGHT_O] = prefix "model.layers.#.self_attn.o_proj.weight",      \
		[LLM_WEIGHT_Q_BIAS] = prefix "model.layers.#.self_attn.q_proj.bias",   \
		[LLM_WEIGHT_K_BIAS] = prefix "model.layers.#.self_attn.k_proj.bias",   \
		[LLM_WEIGHT_V_BIAS] = prefix "model.layers.#.self_attn.v_proj.bias",   \
		[LLM_WEIGHT_O_BIAS] = prefix "model.layers.#.self_attn.o_proj.bias",   \
		[LLM_WEIGHT_Q_NORM] = prefix "model.layers.#.self_attn.q_norm.weight", \
		[LLM_WEIGHT_K_NORM] = prefix "model.layers.#.self_attn.k_norm.weight", \
		[LLM_WEIGHT_POST_ATTN_NORM] =                                          \
			prefix "model.layers.#.post_attention_layernorm.weight",           \
		[LLM_WEIGHT_MLP_NORM] =                                                \
			prefix "model.layers.#.pre_feedforward_layernorm.weight",          \
		[LLM_WEIGHT_GATE] = prefix "model.layers.#.mlp.gate_proj.weight",      \
		[LLM_WEIGHT_UP] = prefix "model.layers.#.mlp.up_proj.weight",          \
		[LLM_WEIGHT_DOWN] = prefix "model.layers.#.mlp.down_proj.weight",      \
		[LLM_WEIGHT_POST_MLP_NORM] =                                           \
			prefix "model.layers.#.post_feedforward_layernorm.weight",         \
	}

/* family_gemma.c, family_gemma2.c: what later Gemmas took over */
extern bool
family_gemma_read(const ConfigReader *reader, LlmModelConfig *config);
extern const char *const family_gemma2_tensor_names[LLM_WEIGHT_ROLE_COUNT];
extern bool
family_gemma2_read(const ConfigReader *reader, LlmModelConfig *config);

/* family_gemma3.c */
extern const char *const family_gemma3_keys[];
extern bool
family_gemma3_read(const ConfigReader *reader, LlmModelConfig *config);

extern const LlmFamily family_gemma;
extern const LlmFamily family_gemma2;
extern const LlmFamily family_gemma3;
extern const LlmFamily family_gemma3_vision;
extern const LlmFamily family_glm;
extern const LlmFamily family_glm4;
extern const LlmFamily family_llama;
extern const LlmFamily family_mistral;
extern const LlmFamily family_mixtral;
extern const LlmFamily family_phi3;
extern const LlmFamily family_qwen2;
extern const LlmFamily family_qwen3;
extern const LlmFamily family_qwen3_moe;

/*
 * config_reader.c: the getters leave *value where the key is absent or null,
 * and fail where it has another type or is out of range.
 */
extern bool config_get_int(const ConfigReader *reader, const char *key,
						   int64_t min, int64_t max, int32_t *value);
/* ... fails too where the key is absent and *value 0 */
extern bool config_need_int(const ConfigReader *reader, const char *key,
							int64_t min, int64_t max, int32_t *value);
extern bool config_get_double(const ConfigReader *reader, const char *key,
							  double min, double max, double *value);
extern bool
config_get_bool(const ConfigReader *reader, const char *key, bool *value);
extern bool config_get_string(const ConfigReader *reader, const char *key,
							  const char **value);

/* model_config.c: the name of an activation */
extern bool config_get_hidden_act(const ConfigReader *reader, const char *key,
								  LlmHiddenAct *act);

/* Whether the key is there, be it with null. */
extern bool config_has(const ConfigReader *reader, const char *key);
extern bool config_is_one_of(const char *const *names /* ends with NULL */,
							 const char *name);

/* Refuse a value that is well-formed but not something we can do. */
extern bool config_unsupported(const ConfigReader *reader, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Refuse keys that are neither known nor harmless: keys are the family's,
 * to which the common ones come, or its outer_keys.
 */
extern bool
config_check_keys(const ConfigReader *reader, const char *const *keys);

/*
 * text_config.c: go on with the language model's part of a config; *text,
 * which reader->json is from here on, is the caller's to delete, also where
 * this fails.
 */
extern bool text_config_take(ConfigReader *reader, cJSON **text);

/* "eos_token_id": an id or a list of ids; *found where it is not null. */
extern bool config_get_stop_ids(const ConfigReader *reader,
								LlmModelConfig *config, bool *found);

/* rope_config.c: needs head_dim and max_position, and may extend the latter */
extern bool
rope_config_read(const ConfigReader *reader, LlmModelConfig *config);

/*
 * sliding_layers.c: "sliding_window" with the layers it is for: all of them,
 * or as "layer_types" says, or from layer first_sliding on.
 */
extern bool sliding_layers_read(const ConfigReader *reader, int32_t window,
								int32_t first_sliding, LlmModelConfig *config);

/* ... or, with a pattern, all layers but each full_every-th */
extern bool sliding_pattern_read(const ConfigReader *reader, int32_t window,
								 int32_t full_every, LlmModelConfig *config);

/* ... as Qwen2 and Qwen3 say it: use_sliding_window, max_window_layers */
extern bool
qwen_sliding_layers_read(const ConfigReader *reader, LlmModelConfig *config);

/*
 * expert_config.c: a mixture's "num_experts" or "num_local_experts", which
 * is one thing by two names, and "num_experts_per_tok"; what they are on
 * entry is what they are where the keys are missing.
 */
extern bool
expert_counts_read(const ConfigReader *reader, LlmModelConfig *config);

/* model_files.c: dir/name; false where it is too long */
extern bool model_dir_path(char path[MODEL_DIR_MAX_PATH_BYTES], const char *dir,
						   const char *name, LlmError *err);

/*
 * Parse dir/name where it exists; *json NULL where it does not.  The tree
 * is the caller's to delete.
 */
extern bool model_dir_parse(const char *dir, const char *name, size_t max_bytes,
							cJSON **json, LlmError *err);

/* model_license.c: false where the directory does not say */
extern bool model_license_read(const char *dir, char *license, size_t size);

#endif /* LLM_MODEL_DIR_INTERNAL_H */
