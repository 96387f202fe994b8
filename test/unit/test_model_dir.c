/*
 * test_model_dir.c
 *	  Unit tests of src/common/model_dir: configs that must be understood,
 *	  configs that must be refused, and everything else of a directory.
 *
 * test/unit/test_model_dir.c
 */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/model_dir/model_dir.h"
#include "src/common/util/json.h"
#include "test/unit/unit_test.h"

#define VECTORS "test/vectors/model"

static char dir[] = "/tmp/llm_test_model_dir_XXXXXX";

static void
write_text(const char *name, const char *text)
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "wb");
	if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0)
		abort();
}

static void
remove_files(void)
{
	DIR *handle = opendir(dir);
	struct dirent *entry;

	while (handle != NULL && (entry = readdir(handle)) != NULL)
	{
		char path[600];

		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		unlink(path);
	}
	closedir(handle);
}

/* ---- configs ---- */

#define SIZES                                                                 \
	"\"vocab_size\": 1000, \"hidden_size\": 128, \"intermediate_size\": 256," \
	"\"num_hidden_layers\": 4, \"num_attention_heads\": 32"

#define LLAMA "{\"architectures\": [\"LlamaForCausalLM\"]," SIZES
#define MISTRAL "{\"architectures\": [\"MistralForCausalLM\"]," SIZES
#define QWEN2 "{\"architectures\": [\"Qwen2ForCausalLM\"]," SIZES
#define QWEN3 "{\"architectures\": [\"Qwen3ForCausalLM\"]," SIZES

/* Parse a config that must be good. */
static LlmModelConfig
parse(const char *text)
{
	LlmModelConfig config;
	LlmError err = { 0 };

	if (!llm_model_config_parse(text, strlen(text), "config.json", &config,
								&err))
		CHECK_FAIL("%s: \"%s\"", text, err.message);
	return config;
}

static void
missing_keys_get_the_defaults_of_transformers(void)
{
	LlmModelConfig config = parse(LLAMA "}");

	CHECK_STR_EQ(config.architecture, "LlamaForCausalLM");
	CHECK_STR_EQ(llm_family_name(config.family), "llama");
	CHECK_INT_EQ(config.n_kv_heads, 32);
	CHECK_INT_EQ(config.head_dim, 4);
	CHECK_INT_EQ(config.max_position, 2048);
	CHECK(config.norm_eps == 1e-6);
	CHECK_INT_EQ(config.hidden_act, LLM_HIDDEN_ACT_SILU);
	CHECK(!config.tie_word_embeddings && !config.has_qkv_bias);
	CHECK_INT_EQ(config.dtype, LLM_DTYPE_F32);
	CHECK_INT_EQ(config.rope.kind, LLM_ROPE_DEFAULT);
	CHECK(config.rope.theta == 10000);
	CHECK_INT_EQ(config.rope.rotary_dim, 4);
	CHECK_INT_EQ(config.bos_token_id, 1);
	CHECK_INT_EQ(config.n_stop_ids, 1);
	CHECK_INT_EQ(config.stop_ids[0], 2);
	CHECK_INT_EQ(config.sliding_window, 0);

	config = parse(MISTRAL "}");
	CHECK_INT_EQ(config.n_kv_heads, 8);
	CHECK_INT_EQ(config.sliding_window, 4096);
	CHECK(llm_layer_set_has(&config.sliding_layers, 0));
	CHECK_INT_EQ(config.max_position, 131072);

	config = parse(QWEN2 "}");
	CHECK_INT_EQ(config.n_kv_heads, 32);
	CHECK(config.has_qkv_bias && !config.has_o_bias && !config.has_qk_norm);
	CHECK_INT_EQ(config.sliding_window, 0);
	CHECK_INT_EQ(config.bos_token_id, -1);
	CHECK_INT_EQ(config.n_stop_ids, 0);

	config = parse(QWEN3 "}");
	CHECK_INT_EQ(config.head_dim, 128);
	CHECK(!config.has_qkv_bias && config.has_qk_norm);
}

static void
null_is_not_the_same_as_missing(void)
{
	LlmModelConfig config =
		parse(MISTRAL ",\"num_key_value_heads\": null,"
					  "\"sliding_window\": null, \"eos_token_id\": null,"
					  "\"bos_token_id\": null, \"head_dim\": null}");

	CHECK_INT_EQ(config.n_kv_heads, 32);
	CHECK_INT_EQ(config.sliding_window, 0);
	CHECK_INT_EQ(config.n_stop_ids, 0);
	CHECK_INT_EQ(config.bos_token_id, -1);
	CHECK_INT_EQ(config.head_dim, 4);
}

static void
families_read_their_own_keys(void)
{
	LlmModelConfig config =
		parse(LLAMA ",\"attention_bias\": true, \"mlp_bias\": true,"
					"\"hidden_act\": \"gelu_pytorch_tanh\", \"head_dim\": 16,"
					"\"num_key_value_heads\": 4, \"torch_dtype\": \"float16\","
					"\"eos_token_id\": [7, 8, 7], \"pretraining_tp\": 2}");

	CHECK(config.has_qkv_bias && config.has_o_bias && config.has_mlp_bias);
	CHECK_INT_EQ(config.hidden_act, LLM_HIDDEN_ACT_GELU_TANH);
	CHECK_INT_EQ(config.head_dim, 16);
	CHECK_INT_EQ(config.n_kv_heads, 4);
	CHECK_INT_EQ(config.dtype, LLM_DTYPE_F16);
	CHECK_INT_EQ(config.n_stop_ids, 2);
	CHECK_INT_EQ(config.stop_ids[1], 8);

	config = parse(QWEN3 ",\"attention_bias\": true,"
						 "\"dtype\": \"torch.bfloat16\"}");
	CHECK(config.has_qkv_bias && config.has_o_bias);
	CHECK_INT_EQ(config.dtype, LLM_DTYPE_BF16);
	config = parse("{\"model_type\": \"qwen2\"," SIZES "}");
	CHECK_STR_EQ(config.architecture, "Qwen2ForCausalLM");
}

static void
sliding_layers_follow_any_of_their_keys(void)
{
	LlmModelConfig config = parse(QWEN2 ",\"use_sliding_window\": true,"
										"\"sliding_window\": 64,"
										"\"max_window_layers\": 3}");

	CHECK_INT_EQ(config.sliding_window, 64);
	CHECK(!llm_layer_set_has(&config.sliding_layers, 2));
	CHECK(llm_layer_set_has(&config.sliding_layers, 3));
	config = parse(QWEN2 ",\"use_sliding_window\": true}");
	CHECK_INT_EQ(config.sliding_window, 0); /* 28 layers see everything */
	config = parse(QWEN2 ",\"use_sliding_window\": false,"
						 "\"sliding_window\": 64, \"max_window_layers\": 0}");
	CHECK_INT_EQ(config.sliding_window, 0);
	config = parse(QWEN3 ",\"use_sliding_window\": true,"
						 "\"sliding_window\": 64, \"layer_types\":"
						 "[\"full_attention\", \"sliding_attention\","
						 "\"sliding_attention\", \"sliding_attention\"]}");
	CHECK(!llm_layer_set_has(&config.sliding_layers, 0));
	CHECK(llm_layer_set_has(&config.sliding_layers, 1));
	config = parse(QWEN2 ",\"use_sliding_window\": true, \"sliding_window\": 8,"
						 "\"layer_types\": [\"full_attention\","
						 "\"sliding_attention\", \"full_attention\","
						 "\"full_attention\"]}");
	CHECK(llm_layer_set_has(&config.sliding_layers, 1));
	CHECK(!llm_layer_set_has(&config.sliding_layers, 2));
	config = parse(LLAMA ",\"layer_types\": [\"full_attention\","
						 "\"full_attention\", \"full_attention\","
						 "\"full_attention\"]}");
	CHECK_INT_EQ(config.sliding_window, 0);
}

static void
rotary_parameters_are_read_in_both_forms(void)
{
	LlmModelConfig config =
		parse(LLAMA ",\"max_position_embeddings\": 131072,"
					"\"rope_theta\": 500000.0, \"rope_scaling\":"
					"{\"rope_type\": \"llama3\", \"factor\": 8.0,"
					"\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0,"
					"\"original_max_position_embeddings\": 8192}}");

	CHECK_INT_EQ(config.rope.kind, LLM_ROPE_LLAMA3);
	CHECK(config.rope.theta == 500000 && config.rope.factor == 8);
	CHECK_INT_EQ(config.rope.original_max_position, 8192);
	CHECK_INT_EQ(config.max_position, 131072);

	config = parse(QWEN2 ",\"max_position_embeddings\": 32768,"
						 "\"rope_parameters\": {\"rope_type\": \"yarn\","
						 "\"rope_theta\": 1000000, \"factor\": 4.0,"
						 "\"original_max_position_embeddings\": 32768}}");
	CHECK_INT_EQ(config.rope.kind, LLM_ROPE_YARN);
	CHECK(config.rope.theta == 1000000 && config.rope.truncate);
	CHECK(config.rope.beta_fast == 32 && config.rope.beta_slow == 1);
	CHECK_INT_EQ(config.max_position, 131072);

	config = parse(LLAMA ",\"max_position_embeddings\": 4096,"
						 "\"rope_scaling\": {\"type\": \"linear\","
						 "\"factor\": 2.5}}");
	CHECK_INT_EQ(config.rope.kind, LLM_ROPE_LINEAR);
	CHECK_INT_EQ(config.max_position, 10240);

	config = parse(LLAMA ",\"rope_scaling\": {\"type\": \"dynamic\","
						 "\"factor\": 2}}");
	CHECK_INT_EQ(config.rope.kind, LLM_ROPE_DYNAMIC);
	CHECK_INT_EQ(config.rope.original_max_position, 2048);
	CHECK_INT_EQ(config.max_position, 4096);

	config = parse(LLAMA ",\"rope_scaling\": {\"rope_type\": \"longrope\","
						 "\"short_factor\": [1, 1.5], \"long_factor\": [2, 3]},"
						 "\"original_max_position_embeddings\": 1024}");
	CHECK_INT_EQ(config.rope.n_factors, 2);
	CHECK(config.rope.long_factor[1] == 3 && config.rope.factor == 2);

	config = parse(LLAMA ",\"rope_scaling\": null,"
						 "\"rope_parameters\": {\"rope_theta\": 77}}");
	CHECK(config.rope.theta == 77);
	config = parse(LLAMA ",\"rope_scaling\": {}, \"rope_theta\": 78}");
	CHECK(config.rope.theta == 78);
}

/* Each of these must be refused with a message that has both texts. */
static const struct
{
	const char *text;
	LlmErrorCode code;
	const char *message;
	const char *more;
} refused[] = {
	{ "", LLM_ERROR_FORMAT, "config.json", "malformed JSON" },
	{ "{\"architectures\": [", LLM_ERROR_FORMAT, "malformed JSON", "" },
	{ "[]", LLM_ERROR_FORMAT, "JSON object", "" },
	{ "{}", LLM_ERROR_INVALID, "architectures", "model_type" },
	{ "{\"architectures\": 7}", LLM_ERROR_INVALID, "architectures", "" },
	{ "{\"architectures\": [\"GPT2LMHeadModel\"]}", LLM_ERROR_UNSUPPORTED,
	  "\"GPT2LMHeadModel\"", "not supported" },
	{ "{\"model_type\": \"mamba\"}", LLM_ERROR_UNSUPPORTED, "\"mamba\"", "" },
	{ LLAMA ",\"model_type\": \"mistral\"}", LLM_ERROR_UNSUPPORTED, "mistral",
	  "LlamaForCausalLM" },
	{ "{\"architectures\": [\"LlamaForCausalLM\"]}", LLM_ERROR_INVALID,
	  "vocab_size", "missing" },
	{ LLAMA ",\"num_key_value_heads\": 5}", LLM_ERROR_INVALID,
	  "num_key_value_heads", "not a multiple" },
	{ LLAMA ",\"num_key_value_heads\": 0}", LLM_ERROR_INVALID,
	  "num_key_value_heads", "is 0" },
	{ LLAMA ",\"num_key_value_heads\": \"8\"}", LLM_ERROR_INVALID,
	  "num_key_value_heads", "integer" },
	{ LLAMA ",\"head_dim\": 5}", LLM_ERROR_INVALID, "even", "5" },
	{ LLAMA ",\"head_dim\": 513}", LLM_ERROR_INVALID, "head_dim", "512" },
	{ LLAMA ",\"max_position_embeddings\": 1e12}", LLM_ERROR_INVALID,
	  "max_position_embeddings", "" },
	{ LLAMA ",\"rms_norm_eps\": -1}", LLM_ERROR_INVALID, "rms_norm_eps", "-1" },
	{ LLAMA ",\"hidden_act\": \"relu2\"}", LLM_ERROR_UNSUPPORTED, "relu2", "" },
	{ LLAMA ",\"torch_dtype\": \"float64\"}", LLM_ERROR_UNSUPPORTED, "float64",
	  "" },
	{ LLAMA ",\"tie_word_embeddings\": 1}", LLM_ERROR_INVALID,
	  "tie_word_embeddings", "" },
	{ LLAMA ",\"eos_token_id\": 1000}", LLM_ERROR_INVALID, "eos_token_id",
	  "999" },
	{ LLAMA ",\"eos_token_id\": [1, \"a\"]}", LLM_ERROR_INVALID, "eos_token_id",
	  "" },
	{ LLAMA ",\"eos_token_id\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}",
	  LLM_ERROR_LIMIT, "eos_token_id", "16" },
	{ LLAMA ",\"bos_token_id\": -1}", LLM_ERROR_INVALID, "bos_token_id", "" },
	/* keys that change what is computed */
	{ LLAMA ",\"quantization_config\": {\"quant_method\": \"awq\"}}",
	  LLM_ERROR_UNSUPPORTED, "\"awq\"", "quantized" },
	{ LLAMA ",\"partial_rotary_factor\": 0.5}", LLM_ERROR_UNSUPPORTED,
	  "partial_rotary_factor", "0.5" },
	{ LLAMA ",\"attn_logit_softcapping\": 50.0}", LLM_ERROR_UNSUPPORTED,
	  "attn_logit_softcapping", "llama" },
	{ LLAMA ",\"sliding_window\": 4096}", LLM_ERROR_UNSUPPORTED,
	  "sliding_window", "llama" },
	{ LLAMA ",\"embedding_multiplier\": 12}", LLM_ERROR_UNSUPPORTED,
	  "embedding_multiplier", "" },
	{ LLAMA ",\"some_new_trick\": true}", LLM_ERROR_UNSUPPORTED,
	  "some_new_trick", "not known" },
	{ LLAMA ",\"auto_map\": {\"AutoModelForCausalLM\": \"x.Y\"}}",
	  LLM_ERROR_UNSUPPORTED, "auto_map", "" },
	{ QWEN2 ",\"attention_bias\": true}", LLM_ERROR_UNSUPPORTED,
	  "attention_bias", "qwen2" },
	{ QWEN2 ",\"num_experts\": 8}", LLM_ERROR_UNSUPPORTED, "num_experts", "" },
	{ QWEN2 ",\"use_mrope\": true}", LLM_ERROR_UNSUPPORTED, "use_mrope", "" },
	{ QWEN2 ",\"layer_types\": [\"full_attention\"]}", LLM_ERROR_INVALID,
	  "layer_types", "4 names" },
	{ QWEN2 ",\"layer_types\": [\"full_attention\", \"linear_attention\","
			"\"full_attention\", \"full_attention\"]}",
	  LLM_ERROR_UNSUPPORTED, "linear_attention", "layer 1" },
	{ QWEN2 ",\"layer_types\": [\"full_attention\", \"full_attention\","
			"\"full_attention\", \"sliding_attention\"]}",
	  LLM_ERROR_INVALID, "layer_types", "sliding_window" },
	/* rotary embeddings */
	{ LLAMA ",\"rope_scaling\": \"linear\"}", LLM_ERROR_INVALID, "rope_scaling",
	  "object" },
	{ LLAMA ",\"rope_scaling\": {\"type\": \"mrope\"}}", LLM_ERROR_UNSUPPORTED,
	  "mrope", "rope_scaling" },
	{ LLAMA ",\"rope_scaling\": {\"type\": \"linear\","
			"\"rope_type\": \"dynamic\", \"factor\": 2}}",
	  LLM_ERROR_INVALID, "dynamic", "linear" },
	{ LLAMA ",\"rope_scaling\": {\"type\": \"linear\"}}", LLM_ERROR_INVALID,
	  "factor", "missing" },
	{ LLAMA ",\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}}",
	  LLM_ERROR_INVALID, "factor", "is 0" },
	{ LLAMA ",\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2,"
			"\"alpha\": 1000}}",
	  LLM_ERROR_UNSUPPORTED, "alpha", "linear" },
	{ LLAMA ",\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8,"
			"\"low_freq_factor\": 4, \"high_freq_factor\": 4}}",
	  LLM_ERROR_INVALID, "high_freq_factor", "greater" },
	{ LLAMA ",\"rope_scaling\": {\"type\": \"longrope\","
			"\"short_factor\": [1], \"long_factor\": [1, 2]}}",
	  LLM_ERROR_INVALID, "short_factor", "2 numbers" },
	{ LLAMA ",\"rope_scaling\": {\"type\": \"longrope\","
			"\"short_factor\": [1, 0], \"long_factor\": [1, 2]}}",
	  LLM_ERROR_INVALID, "short_factor", "positive" },
	{ LLAMA ",\"rope_theta\": 0}", LLM_ERROR_INVALID, "rope_theta", "" },
	{ LLAMA ",\"rope_parameters\": {\"full_attention\": {}}}",
	  LLM_ERROR_UNSUPPORTED, "full_attention", "" },
};

static void
configs_are_refused_by_name(void)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		LlmModelConfig config;
		LlmError err = { 0 };

		if (llm_model_config_parse(refused[i].text, strlen(refused[i].text),
								   "config.json", &config, &err))
			CHECK_FAIL("accepted: %s", refused[i].text);
		else if (err.code != (int32_t) refused[i].code ||
				 strstr(err.message, refused[i].message) == NULL ||
				 strstr(err.message, refused[i].more) == NULL ||
				 strstr(err.message, "config.json") == NULL)
			CHECK_FAIL("%s: code %d, \"%s\"", refused[i].text, err.code,
					   err.message);
	}
}

static void
unknown_architectures_are_told_what_is_known(void)
{
	static const char text[] = "{\"architectures\": [\"FooForCausalLM\"]}";
	static const char *const names[] = {
		" GemmaForCausalLM",   " Gemma2ForCausalLM",  " Gemma3ForCausalLM",
		" GlmForCausalLM",	   " Glm4ForCausalLM",	  " LlamaForCausalLM",
		" MistralForCausalLM", " MixtralForCausalLM", " Phi3ForCausalLM",
		" Qwen2ForCausalLM",   " Qwen3ForCausalLM",	  " Qwen3MoeForCausalLM",
	};
	LlmModelConfig config;
	LlmError err;

	CHECK(!llm_model_config_parse(text, strlen(text), "c", &config, &err));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (strstr(err.hint, names[i]) == NULL)
			CHECK_FAIL("\"%s\" does not name %s", err.hint, names[i]);
	}
}

static void
sizes_are_bounded(void)
{
	static const char *const keys[] = { "vocab_size", "hidden_size",
										"intermediate_size",
										"num_hidden_layers",
										"num_attention_heads" };
	static const char *const values[] = { "0",	  "-1",	  "1.5",  "1e300",
										  "true", "null", "\"x\"" };

	for (size_t k = 0; k < 5; k++)
	{
		for (size_t v = 0; v < 7; v++)
		{
			cJSON *json = cJSON_Parse(LLAMA "}");
			LlmModelConfig config;
			LlmError err = { 0 };
			char *text;

			cJSON_ReplaceItemInObject(json, keys[k], cJSON_Parse(values[v]));
			text = cJSON_PrintUnformatted(json);
			if (llm_model_config_parse(text, strlen(text), "c", &config, &err))
				CHECK_FAIL("accepted: %s", text);
			else if (strstr(err.message, keys[k]) == NULL)
				CHECK_FAIL("%s: \"%s\"", text, err.message);
			cJSON_free(text);
			cJSON_Delete(json);
		}
	}
}

/* Whatever byte of a config changes, it is read or refused with a message. */
static void
mutated_configs_do_no_harm(void)
{
	static const char text[] =
		QWEN2 ",\"use_sliding_window\": true, \"sliding_window\": 64,"
			  "\"max_window_layers\": 3, \"eos_token_id\": [1, 2],"
			  "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0,"
			  "\"original_max_position_embeddings\": 64}}";
	static const char bytes[] = { '0', '9', '-', '"', '[', '}', 'e', '\0' };
	char copy[sizeof(text)];

	for (size_t at = 0; at < sizeof(text) - 1; at++)
	{
		for (size_t b = 0; b < sizeof(bytes); b++)
		{
			LlmModelConfig config;
			LlmError err = { 0 };

			memcpy(copy, text, sizeof(text));
			copy[at] = bytes[b];
			if (llm_model_config_parse(copy, sizeof(text) - 1, "c", &config,
									   &err))
				CHECK(llm_model_n_params(&config) > 0);
			else
				CHECK(err.code != LLM_OK && err.message[0] != '\0');
		}
	}
}

/* ---- weights ---- */

static void
weights_are_listed_in_order(void)
{
	LlmModelConfig config = parse(QWEN2 ",\"num_key_value_heads\": 4}");
	LlmWeightSpec spec;
	int64_t per_layer = 128 * 128 + 2 * 16 * 128 + 128 * 128 + 128 + 2 * 16 +
						3 * 128 * 256 + 2 * 128;
	int n = 0;

	while (llm_model_weight_spec(&config, n, &spec))
	{
		if (n == 0)
			CHECK_STR_EQ(spec.name, "model.embed_tokens.weight");
		if (n == 3)
		{
			CHECK_STR_EQ(spec.name, "model.layers.0.self_attn.k_proj.weight");
			CHECK_INT_EQ(spec.n_rows, 16);
			CHECK_INT_EQ(spec.n_cols, 128);
		}
		if (n == 6)
		{
			CHECK_STR_EQ(spec.name, "model.layers.0.self_attn.q_proj.bias");
			CHECK_INT_EQ(spec.n_cols, 0);
		}
		n++;
	}
	CHECK_STR_EQ(spec.name, "lm_head.weight");
	CHECK_INT_EQ(n, 1 + 4 * 12 + 2);
	CHECK_INT_EQ(llm_model_n_params(&config),
				 2 * 1000 * 128 + 128 + 4 * per_layer);
	CHECK_INT_EQ(llm_model_kv_bytes_per_token(&config, LLM_DTYPE_BF16),
				 2 * 4 * 16 * 2);
	config.tie_word_embeddings = true;
	CHECK_INT_EQ(llm_model_n_params(&config), 1000 * 128 + 128 + 4 * per_layer);
}

/* ---- the other files ---- */

static void
generation_config_is_read(void)
{
	LlmGenerationDefaults defaults;
	LlmModelConfig config;
	LlmError err = { 0 };

	remove_files();
	write_text("config.json", LLAMA ",\"eos_token_id\": 5}");
	CHECK(llm_generation_defaults_read(dir, &defaults, &err));
	CHECK(!defaults.present && !defaults.has_temperature);
	REQUIRE(llm_model_config_read(dir, &config, &err));
	CHECK_INT_EQ(config.stop_ids[0], 5);

	write_text("generation_config.json",
			   "{\"temperature\": 0.6, \"top_p\": 0.9, \"top_k\": -1,"
			   "\"repetition_penalty\": 1.05, \"max_new_tokens\": 99,"
			   "\"do_sample\": true, \"eos_token_id\": [8, 9]}");
	CHECK(llm_generation_defaults_read(dir, &defaults, &err));
	CHECK(defaults.present && defaults.has_temperature && defaults.has_top_k);
	CHECK(defaults.temperature == 0.6 && defaults.top_p == 0.9);
	CHECK(!defaults.has_min_p && defaults.has_repetition_penalty);
	CHECK_INT_EQ(defaults.top_k, 0);
	CHECK_INT_EQ(defaults.max_new_tokens, 99);
	REQUIRE(llm_model_config_read(dir, &config, &err));
	CHECK_INT_EQ(config.n_stop_ids, 2);
	CHECK_INT_EQ(config.stop_ids[1], 9);

	write_text("generation_config.json",
			   "{\"temperature\": 0.6, \"do_sample\": false}");
	CHECK(llm_generation_defaults_read(dir, &defaults, &err));
	CHECK(defaults.has_temperature && defaults.temperature == 0);
	write_text("generation_config.json", "{\"top_p\": 1.5}");
	CHECK(!llm_generation_defaults_read(dir, &defaults, &err));
	CHECK(strstr(err.message, "generation_config.json: \"top_p\" is 1.5") !=
		  NULL);
	write_text("generation_config.json", "{\"eos_token_id\": 100000}");
	CHECK(!llm_model_config_read(dir, &config, &err));
	CHECK(strstr(err.message, "generation_config.json") != NULL);
}

static void
check_template(const char *expected)
{
	LlmStrbuf text;
	LlmError err = { 0 };
	bool found;

	llm_strbuf_init(&text);
	CHECK(llm_model_chat_template_read(dir, &text, &found, &err));
	CHECK_INT_EQ(found, expected != NULL);
	CHECK_STR_EQ(llm_strbuf_str(&text), expected != NULL ? expected : "");
	llm_strbuf_free(&text);
}

static void
chat_templates_are_found_in_their_order(void)
{
	LlmStrbuf text;
	LlmError err = { 0 };
	bool found;

	remove_files();
	check_template(NULL);
	write_text("tokenizer_config.json", "{\"bos_token\": \"<s>\"}");
	check_template(NULL);
	write_text("tokenizer_config.json", "{\"chat_template\": \"{{ a }}\\n\"}");
	check_template("{{ a }}\n");
	write_text("tokenizer_config.json",
			   "{\"chat_template\": [{\"name\": \"tool_use\","
			   "\"template\": \"T\"}, {\"name\": \"default\","
			   "\"template\": \"D\"}]}");
	check_template("D");
	write_text("chat_template.json", "{\"chat_template\": \"J\"}");
	check_template("J");
	write_text("chat_template.jinja", "{# x #}\n");
	check_template("{# x #}\n");

	remove_files();
	llm_strbuf_init(&text);
	write_text("tokenizer_config.json",
			   "{\"chat_template\": [{\"name\": \"rag\","
			   "\"template\": \"R\"}]}");
	CHECK(!llm_model_chat_template_read(dir, &text, &found, &err));
	CHECK(strstr(err.message, "\"default\"") != NULL);
	write_text("tokenizer_config.json", "{\"chat_template\": 7}");
	CHECK(!llm_model_chat_template_read(dir, &text, &found, &err));
	write_text("chat_template.jinja", "\xFF\xFE");
	CHECK(!llm_model_chat_template_read(dir, &text, &found, &err));
	CHECK(strstr(err.message, "UTF-8") != NULL);
	llm_strbuf_free(&text);
}

static void
special_tokens_are_collected(void)
{
	LlmStrbuf json;
	LlmError err = { 0 };

	remove_files();
	llm_strbuf_init(&json);
	CHECK(llm_model_special_tokens_read(dir, &json, &err));
	CHECK_STR_EQ(llm_strbuf_str(&json), "{}");
	llm_strbuf_reset(&json);
	write_text("tokenizer_config.json",
			   "{\"bos_token\": {\"content\": \"<s>\", \"lstrip\": false},"
			   "\"eos_token\": \"</s>\", \"pad_token\": null,"
			   "\"extra_special_tokens\": {\"image_token\": \"<img>\"}}");
	write_text("special_tokens_map.json",
			   "{\"eos_token\": \"other\", \"unk_token\": \"<unk>\","
			   "\"additional_special_tokens\": [\"<a>\", "
			   "{\"content\": \"<b>\"}]}");
	CHECK(llm_model_special_tokens_read(dir, &json, &err));
	CHECK_STR_EQ(llm_strbuf_str(&json),
				 "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\","
				 "\"image_token\":\"<img>\",\"unk_token\":\"<unk>\","
				 "\"additional_special_tokens\":[\"<a>\",\"<b>\"]}");
	llm_strbuf_free(&json);
}

/* ---- inspection ---- */

static cJSON *
inspect(const char *path)
{
	LlmStrbuf text;
	LlmError err = { 0 };
	cJSON *json = NULL;

	llm_strbuf_init(&text);
	if (!llm_model_inspect(path, &text, &err))
		CHECK_FAIL("%s", err.message);
	else
		json = llm_json_parse(text.data, text.len, "inspection", &err);
	llm_strbuf_free(&text);
	return json;
}

static const char *
string_of(const cJSON *json, const char *key)
{
	const cJSON *item = cJSON_GetObjectItem(json, key);

	return cJSON_IsString(item) ? item->valuestring : "";
}

static double
number_of(const cJSON *json, const char *key)
{
	const cJSON *item = cJSON_GetObjectItem(json, key);

	return cJSON_IsNumber(item) ? item->valuedouble : -1;
}

/* Whether one of the reasons has the text. */
static bool
has_reason(const cJSON *json, const char *text)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "unsupported"))
	{
		if (strstr(item->valuestring, text) != NULL)
			return true;
	}
	return false;
}

static void
good_directories_are_described(void)
{
	cJSON *json = inspect(VECTORS "/llama3");
	const cJSON *kv;

	REQUIRE(json != NULL);
	CHECK_STR_EQ(string_of(json, "architecture"), "LlamaForCausalLM");
	CHECK_STR_EQ(string_of(json, "family"), "llama");
	CHECK_STR_EQ(string_of(json, "rope"), "llama3");
	CHECK_STR_EQ(string_of(json, "dtype"), "float16");
	CHECK_INT_EQ(number_of(json, "context_length"), 256);
	CHECK_INT_EQ(number_of(json, "weight_bytes"),
				 2 * number_of(json, "n_params"));
	CHECK_INT_EQ(
		number_of(cJSON_GetObjectItem(json, "weight_bytes_by_dtype"), "F16"),
		number_of(json, "weight_bytes"));
	kv = cJSON_GetObjectItem(json, "kv_bytes_per_token");
	CHECK_INT_EQ(number_of(kv, "bfloat16"), 2 * 2 * 2 * 16 * 2);
	CHECK_INT_EQ(number_of(kv, "fp8"), 2 * 2 * 2 * (16 + 1));
	CHECK(cJSON_IsNull(cJSON_GetObjectItem(json, "license")));
	CHECK(cJSON_IsNull(cJSON_GetObjectItem(json, "chat_template")));
	/* the vectors have no tokenizer; that is all that is wrong */
	CHECK_INT_EQ(cJSON_GetArraySize(cJSON_GetObjectItem(json, "unsupported")),
				 1);
	CHECK(has_reason(json, "tokenizer.json"));
	cJSON_Delete(json);
}

static void
trouble_is_listed_as_unsupported(void)
{
	LlmStrbuf text;
	LlmError err = { 0 };
	cJSON *json;

	remove_files();
	json = inspect(dir);
	CHECK(has_reason(json, "has no \"config.json\""));
	CHECK(has_reason(json, "model.safetensors"));
	cJSON_Delete(json);

	write_text("config.json", "{\"architectures\": [\"Gr\xC3\xBC\xFF\"]}");
	write_text("README.md", "---\nlanguage: en\nlicense: \"mit\"\n---\n# x\n");
	write_text("chat_template.jinja", "{{ messages }}");
	write_text("tokenizer.json", "{\"model\": {\"type\": \"Unigram\"}}");
	write_text("model.safetensors", "garbage that is long enough");
	json = inspect(dir);
	REQUIRE(json != NULL);
	CHECK_STR_EQ(string_of(json, "architecture"), "Gr\xC3\xBC?");
	CHECK_STR_EQ(string_of(json, "license"), "mit");
	CHECK_STR_EQ(string_of(json, "tokenizer"), "Unigram");
	CHECK_STR_EQ(string_of(json, "chat_template"), "{{ messages }}");
	/* sha256sum of the 14 bytes */
	CHECK_STR_EQ(
		string_of(json, "chat_template_sha256"),
		"f24189f08c85a1eb19a737306c3a13e85462ee33d964f28108d64a2485fa2171");
	CHECK(has_reason(json, "is not supported"));
	CHECK(has_reason(json, "model.safetensors"));
	CHECK(cJSON_IsNull(cJSON_GetObjectItem(json, "n_params")));
	cJSON_Delete(json);

	llm_strbuf_init(&text);
	CHECK(!llm_model_inspect("/tmp/llm_test_no_such_dir", &text, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_NOT_FOUND);
	llm_strbuf_free(&text);
}

static void
check_license(const char *name, const char *text, const char *expected)
{
	cJSON *json;

	remove_files();
	write_text(name, text);
	json = inspect(dir);
	CHECK_STR_EQ(string_of(json, "license"), expected);
	cJSON_Delete(json);
}

static void
licenses_are_found(void)
{
	check_license("README.md", "---\r\nlicense: apache-2.0\r\n---\r\n",
				  "apache-2.0");
	check_license("README.md",
				  "---\nlicense: other\nlicense_name: llama3.2\n---\n",
				  "llama3.2");
	check_license("README.md", "# A model\nlicense: mit\n", "");
	check_license("README.md", "---\nlicense_link: x\n---\nlicense: mit\n", "");
	check_license("LICENSE", "\n  Apache License\nVersion 2.0\n",
				  "Apache License");
	check_license("LICENSE", "", "");
}

int
main(void)
{
	if (mkdtemp(dir) == NULL)
		return 1;
	RUN_TEST(missing_keys_get_the_defaults_of_transformers);
	RUN_TEST(null_is_not_the_same_as_missing);
	RUN_TEST(families_read_their_own_keys);
	RUN_TEST(sliding_layers_follow_any_of_their_keys);
	RUN_TEST(rotary_parameters_are_read_in_both_forms);
	RUN_TEST(configs_are_refused_by_name);
	RUN_TEST(unknown_architectures_are_told_what_is_known);
	RUN_TEST(sizes_are_bounded);
	RUN_TEST(mutated_configs_do_no_harm);
	RUN_TEST(weights_are_listed_in_order);
	RUN_TEST(generation_config_is_read);
	RUN_TEST(chat_templates_are_found_in_their_order);
	RUN_TEST(special_tokens_are_collected);
	RUN_TEST(good_directories_are_described);
	RUN_TEST(trouble_is_listed_as_unsupported);
	RUN_TEST(licenses_are_found);
	remove_files();
	rmdir(dir);
	return unit_test_finish();
}
