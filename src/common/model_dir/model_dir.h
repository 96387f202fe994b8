/*
 * model_dir.h
 *	  What a Hugging Face model directory, or a GGUF file, says about its
 *	  model.
 *
 * Both wings read it: the server to inspect a model before loading, the
 * executor to load it.  It reads config.json, generation_config.json,
 * tokenizer_config.json and the chat template files; weights are only listed
 * (names, shapes, dtypes).  A config that asks for something the family does
 * not know is refused by name, never guessed.
 *
 * A family is one file, family_<name>.c: which architectures it serves, which
 * config keys it knows, and how its tensors are called.
 *
 * src/common/model_dir/model_dir.h
 */
#ifndef LLM_MODEL_DIR_H
#define LLM_MODEL_DIR_H

#include "src/common/util/dtype.h"
#include "src/common/util/error.h"
#include "src/common/util/mapped_file.h"
#include "src/common/util/strbuf.h"

struct LlmCheckpoint;

#define LLM_MAX_STOP_IDS 16
#define LLM_FINGERPRINT_BYTES 32
#define LLM_MAX_HEAD_DIM 512
#define LLM_MAX_LAYERS 2048
#define LLM_MAX_EXPERTS 1024
#define LLM_MAX_ROPE_FACTORS (LLM_MAX_HEAD_DIM / 2)

typedef enum LlmRopeKind
{
	LLM_ROPE_DEFAULT,
	LLM_ROPE_LINEAR,
	LLM_ROPE_DYNAMIC,
	LLM_ROPE_YARN,
	LLM_ROPE_LLAMA3,
	LLM_ROPE_LONGROPE
} LlmRopeKind;

typedef struct LlmRopeConfig
{
	LlmRopeKind kind;
	double theta;
	double factor;
	double low_freq_factor;		   /* llama3 */
	double high_freq_factor;	   /* llama3 */
	double beta_fast;			   /* yarn */
	double beta_slow;			   /* yarn */
	double mscale;				   /* yarn; 0 = not given */
	double mscale_all_dim;		   /* yarn; 0 = not given */
	double attention_factor;	   /* 0 = not given */
	bool truncate;				   /* yarn: round the correction range */
	int32_t original_max_position; /* set but for default and linear */
	int32_t rotary_dim;			   /* dimensions of a head that rotate */
	bool interleaved;			   /* pairs (2i, 2i + 1) */
	int32_t n_factors;			   /* longrope: rotary_dim / 2, else 0 */
	float short_factor[LLM_MAX_ROPE_FACTORS];
	float long_factor[LLM_MAX_ROPE_FACTORS];
} LlmRopeConfig;

/*
 * Whether tokens beyond original_max_position rotate otherwise the longer
 * their sequence is.
 */
static inline bool
llm_rope_depends_on_length(const LlmRopeConfig *rope)
{
	return rope->kind == LLM_ROPE_DYNAMIC || rope->kind == LLM_ROPE_LONGROPE;
}

typedef enum LlmHiddenAct
{
	LLM_HIDDEN_ACT_SILU,
	LLM_HIDDEN_ACT_GELU,
	LLM_HIDDEN_ACT_GELU_TANH
} LlmHiddenAct;

typedef struct LlmFamily LlmFamily;

/* A bit for each layer. */
typedef struct LlmLayerSet
{
	uint64_t bits[LLM_MAX_LAYERS / 64];
} LlmLayerSet;

static inline bool
llm_layer_set_has(const LlmLayerSet *set, int32_t layer_idx)
{
	return (set->bits[layer_idx / 64] >> (layer_idx % 64) & 1) != 0;
}

static inline void
llm_layer_set_add(LlmLayerSet *set, int32_t layer_idx)
{
	set->bits[layer_idx / 64] |= UINT64_C(1) << (layer_idx % 64);
}

typedef struct LlmModelConfig
{
	const LlmFamily *family;
	char architecture[64]; /* "LlamaForCausalLM" */
	int32_t n_vocab;
	int32_t hidden_size;
	int32_t n_layers;
	int32_t n_heads;
	int32_t n_kv_heads;
	int32_t head_dim;
	int32_t intermediate_size;
	int32_t max_position; /* context length */
	double norm_eps;
	LlmHiddenAct hidden_act;
	bool tie_word_embeddings;
	bool has_qkv_bias;
	bool has_o_bias;
	bool has_mlp_bias;
	bool has_qk_norm;			/* RMSNorm per head of q and k */
	bool has_post_norms;		/* a norm on the output of attention and of
								  * the MLP, before it is added */
	bool norm_adds_one;			/* norms multiply by weight + 1 */
	double embed_scale;			/* on embeddings; 1 */
	double attention_scale;		/* on q k^T; 1 / sqrt(head_dim) */
	double attention_soft_cap;	/* 0 = none */
	double logit_soft_cap;		/* 0 = none */
	int32_t sliding_window;		/* 0 = none */
	LlmLayerSet sliding_layers; /* empty where sliding_window is 0 */
	LlmDtype dtype;				/* torch_dtype / dtype; f32 where missing */
	LlmRopeConfig rope;
	bool rope_restarts;	   /* longrope: a sequence that outgrows
							* original_max_position is computed anew */
	bool has_sliding_rope; /* sliding layers rotate differently: */
	LlmRopeConfig sliding_rope;
	int32_t n_experts; /* of a mixture; 0 = none */
	int32_t n_experts_per_token;
	int32_t expert_intermediate_size;
	bool renormalizes_experts; /* weights of the chosen ones sum to 1 */
	LlmLayerSet expert_layers; /* whose MLP is a mixture of experts */
	int32_t bos_token_id;	   /* -1 = none */
	int32_t n_stop_ids;		   /* eos ids of generation_config or config */
	int32_t stop_ids[LLM_MAX_STOP_IDS];
} LlmModelConfig;

/* generation_config.json's sampling defaults; has_* where the file says so. */
typedef struct LlmGenerationDefaults
{
	bool present; /* the file exists */
	bool has_temperature;
	bool has_top_p;
	bool has_top_k;
	bool has_min_p;
	bool has_repetition_penalty;
	bool has_max_new_tokens;
	double temperature; /* do_sample false gives 0 here */
	double top_p;
	int32_t top_k;
	double min_p;
	double repetition_penalty;
	int32_t max_new_tokens;
} LlmGenerationDefaults;

/* Which weight of the forward pass a tensor is. */
typedef enum LlmWeightRole
{
	LLM_WEIGHT_EMBED,
	LLM_WEIGHT_FINAL_NORM,
	LLM_WEIGHT_LM_HEAD,
	LLM_WEIGHT_ATTN_NORM, /* per layer from here on */
	LLM_WEIGHT_Q,
	LLM_WEIGHT_K,
	LLM_WEIGHT_V,
	LLM_WEIGHT_O,
	LLM_WEIGHT_Q_BIAS,
	LLM_WEIGHT_K_BIAS,
	LLM_WEIGHT_V_BIAS,
	LLM_WEIGHT_O_BIAS,
	LLM_WEIGHT_Q_NORM,
	LLM_WEIGHT_K_NORM,
	LLM_WEIGHT_MLP_NORM,
	LLM_WEIGHT_GATE,
	LLM_WEIGHT_UP,
	LLM_WEIGHT_DOWN,
	LLM_WEIGHT_GATE_BIAS,
	LLM_WEIGHT_UP_BIAS,
	LLM_WEIGHT_DOWN_BIAS,
	LLM_WEIGHT_POST_ATTN_NORM, /* has_post_norms */
	LLM_WEIGHT_POST_MLP_NORM,
	LLM_WEIGHT_ROUTER,		/* [n_experts, hidden] */
	LLM_WEIGHT_EXPERT_GATE, /* per expert from here on */
	LLM_WEIGHT_EXPERT_UP,
	LLM_WEIGHT_EXPERT_DOWN,
	LLM_WEIGHT_ROLE_COUNT
} LlmWeightRole;

typedef struct LlmWeightSpec
{
	LlmWeightRole role;
	int32_t layer_idx;	/* -1 for those outside layers */
	int32_t expert_idx; /* -1 for those outside experts */
	char name[128];		/* tensor name in the checkpoint */
	int64_t n_rows;
	int64_t n_cols; /* 0 = a vector of n_rows */

	/*
	 * Checkpoints may store several weights as one tensor, one after the
	 * other (q/k/v, gate/up): this one is rows first_row .. first_row +
	 * n_rows - 1 of its stored_rows.  0 and n_rows where it stands alone.
	 */
	int64_t first_row;
	int64_t stored_rows;
} LlmWeightSpec;

/*
 * A file of a model directory, or the text that a GGUF file gives in its
 * place: "dir" is, here and below, a directory or a GGUF file.
 */
typedef struct LlmModelFile
{
	bool found;		  /* whether there is such a file */
	const char *data; /* "" where not */
	size_t size;	  /* bytes */
	LlmMappedFile map;
	LlmStrbuf text;
} LlmModelFile;

/* Zeroed, harmless to close, where it fails; *err names dir/name. */
extern bool llm_model_file_open(LlmModelFile *file, const char *dir,
								const char *name, LlmError *err);
extern void llm_model_file_close(LlmModelFile *file);

/* Read config.json (and generation_config.json's eos ids). */
extern bool
llm_model_config_read(const char *dir, LlmModelConfig *config, LlmError *err);

/* The same from the text of a config.json; "what" names it in messages. */
extern bool
llm_model_config_parse(const char *text, size_t len, const char *what,
					   LlmModelConfig *config, LlmError *err);

/* "llama", "qwen2" ... */
extern const char *llm_family_name(const LlmFamily *family);

/* "default", "llama3" ... */
extern const char *llm_rope_kind_name(LlmRopeKind kind);

extern bool
llm_generation_defaults_read(const char *dir, LlmGenerationDefaults *defaults,
							 LlmError *err);

/*
 * The weights a config calls for, in load order.  Iterate weight_idx from 0
 * until the function returns false.
 */
extern bool llm_model_weight_spec(const LlmModelConfig *config, int weight_idx,
								  LlmWeightSpec *spec);

/*
 * Hold the tensors of a checkpoint against the weights that a config calls
 * for: each must be there with its shape and a dtype that can be used, and
 * there must be no other, but for those that are known to be harmless
 * (README.md lists them).  Returns the number of problems; the
 * first max_problems of them are described.
 */
extern int llm_model_check_tensors(const LlmModelConfig *config,
								   const struct LlmCheckpoint *tensors,
								   LlmError *problems, int max_problems);

/* Parameters of the whole model; a tied head counts once. */
extern int64_t llm_model_n_params(const LlmModelConfig *config);

/*
 * Tell base models apart: what an adapter's matrices depend on, the family,
 * its shapes and its rotary embedding, hashed together with the final norm;
 * then some values of every matrix.  The same for a model's safetensors and
 * its unquantized GGUF file.  A directory without weights hashes without them.
 */
extern bool llm_model_fingerprint(const LlmModelConfig *config, const char *dir,
								  uint8_t fingerprint[LLM_FINGERPRINT_BYTES],
								  LlmError *err);

typedef enum LlmBaseMatch
{
	LLM_BASE_SAME,
	LLM_BASE_ROUNDED, /* as far as can be told: one of them is stored in a
					   * format that rounds */
	LLM_BASE_OTHER
} LlmBaseMatch;

extern LlmBaseMatch
llm_model_fingerprint_compare(const uint8_t a[LLM_FINGERPRINT_BYTES],
							  const uint8_t b[LLM_FINGERPRINT_BYTES]);

/* KV cache bytes of one token. */
extern int64_t
llm_model_kv_bytes_per_token(const LlmModelConfig *config, LlmDtype kv_dtype);

/*
 * The chat template's source: chat_template.jinja, or chat_template.json, or
 * tokenizer_config.json's chat_template (of several named ones "default").
 * Returns true with *found = false where the directory has none.
 */
extern bool llm_model_chat_template_read(const char *dir, LlmStrbuf *source,
										 bool *found, LlmError *err);

/*
 * The one that is for conversations with tools, where a directory has one of
 * its own: additional_chat_templates/tool_use.jinja, or "tool_use" of several
 * named ones.
 */
extern bool llm_model_tool_template_read(const char *dir, LlmStrbuf *source,
										 bool *found, LlmError *err);

/*
 * Append a JSON object of the special tokens that templates may name
 * (bos_token, eos_token, ... as strings) from tokenizer_config.json and
 * special_tokens_map.json.
 */
extern bool
llm_model_special_tokens_read(const char *dir, LlmStrbuf *json, LlmError *err);

/*
 * Describe a directory as a JSON object without loading it: license,
 * architecture, context length, chat template, parameters, bytes of weights
 * and of KV per token, and "unsupported": an array of reasons why it would
 * be refused (empty when it would load).  Fails only where the directory
 * cannot be read at all.
 */
extern bool llm_model_inspect(const char *dir, LlmStrbuf *json, LlmError *err);

#endif /* LLM_MODEL_DIR_H */
