/*
 * test_model_experts.c
 *	  Unit tests of src/common/model_dir: what configs of mixtures of experts
 *	  say, and the weights that follow from them.
 *
 * test/unit/test_model_experts.c
 */
#include "src/common/checkpoint/checkpoint.h"
#include "src/common/model_dir/model_dir.h"
#include "src/common/util/json.h"
#include "test/unit/unit_test.h"

#define VECTORS "test/vectors/model"

#define SIZES                                                                 \
	"\"vocab_size\": 1000, \"hidden_size\": 128, \"intermediate_size\": 256," \
	"\"num_hidden_layers\": 6, \"num_attention_heads\": 32"

#define MIXTRAL "{\"architectures\": [\"MixtralForCausalLM\"]," SIZES
#define QWEN3_MOE "{\"architectures\": [\"Qwen3MoeForCausalLM\"]," SIZES

static LlmModelConfig
parse(const char *text)
{
	LlmModelConfig config = { 0 };
	LlmError err = { 0 };

	if (!llm_model_config_parse(text, strlen(text), "config.json", &config,
								&err))
		CHECK_FAIL("%s: \"%s\"", text, err.message);
	return config;
}

static void
missing_keys_get_the_defaults_of_transformers(void)
{
	LlmModelConfig config = parse(MIXTRAL "}");

	CHECK_STR_EQ(llm_family_name(config.family), "mixtral");
	CHECK_INT_EQ(config.n_kv_heads, 8);
	CHECK_INT_EQ(config.head_dim, 4);
	CHECK_INT_EQ(config.max_position, 131072);
	CHECK(config.norm_eps == 1e-5 && config.rope.theta == 1e6);
	CHECK_INT_EQ(config.sliding_window, 0);
	CHECK_INT_EQ(config.bos_token_id, 1);
	CHECK_INT_EQ(config.stop_ids[0], 2);
	CHECK_INT_EQ(config.n_experts, 8);
	CHECK_INT_EQ(config.n_experts_per_token, 2);
	CHECK_INT_EQ(config.expert_intermediate_size, 256);
	CHECK(config.renormalizes_experts && !config.has_qk_norm);
	CHECK_INT_EQ(config.expert_layers.bits[0], 63);

	config = parse(QWEN3_MOE "}");
	CHECK_STR_EQ(llm_family_name(config.family), "qwen3_moe");
	CHECK_INT_EQ(config.n_kv_heads, 4);
	CHECK_INT_EQ(config.head_dim, 4);
	CHECK_INT_EQ(config.max_position, 32768);
	CHECK(config.norm_eps == 1e-6 && config.rope.theta == 10000);
	CHECK_INT_EQ(config.sliding_window, 0);
	CHECK_INT_EQ(config.n_stop_ids, 0);
	CHECK_INT_EQ(config.n_experts, 128);
	CHECK_INT_EQ(config.n_experts_per_token, 8);
	CHECK_INT_EQ(config.expert_intermediate_size, 768);
	CHECK(!config.renormalizes_experts && config.has_qk_norm);
	CHECK_INT_EQ(config.expert_layers.bits[0], 63);
}

static void
layers_are_chosen_by_step_and_list(void)
{
	LlmModelConfig config = parse(QWEN3_MOE ",\"mlp_only_layers\": [0, 4]}");

	CHECK_INT_EQ(config.expert_layers.bits[0], 0x2e);
	config = parse(QWEN3_MOE ",\"decoder_sparse_step\": 2}");
	CHECK_INT_EQ(config.expert_layers.bits[0], 0x2a);
	config = parse(QWEN3_MOE ",\"decoder_sparse_step\": 2,"
							 "\"mlp_only_layers\": [3, 77]}");
	CHECK_INT_EQ(config.expert_layers.bits[0], 0x22);
	config = parse(QWEN3_MOE ",\"mlp_only_layers\": null}");
	CHECK_INT_EQ(config.expert_layers.bits[0], 63);
}

static void
windows_are_for_all_layers(void)
{
	LlmModelConfig config = parse(MIXTRAL ",\"sliding_window\": 16}");

	CHECK_INT_EQ(config.sliding_window, 16);
	CHECK_INT_EQ(config.sliding_layers.bits[0], 63);
	config = parse(MIXTRAL ",\"sliding_window\": null}");
	CHECK_INT_EQ(config.sliding_window, 0);
	config = parse(QWEN3_MOE ",\"use_sliding_window\": true}");
	CHECK_INT_EQ(config.sliding_window, 4096);
	CHECK_INT_EQ(config.sliding_layers.bits[0], 63);
	config = parse(QWEN3_MOE ",\"sliding_window\": 16,"
							 "\"max_window_layers\": 28}");
	CHECK_INT_EQ(config.sliding_window, 0);
}

/* ---- configs as they are published, with the sizes that are known ---- */

static const struct
{
	const char *text;
	int64_t n_params;
	int n_weights;
} published[] = {
	/* Mixtral-8x7B-Instruct-v0.1 */
	{ "{\"architectures\": [\"MixtralForCausalLM\"],"
	  "\"attention_dropout\": 0.0, \"bos_token_id\": 1, \"eos_token_id\": 2,"
	  "\"hidden_act\": \"silu\", \"hidden_size\": 4096,"
	  "\"initializer_range\": 0.02, \"intermediate_size\": 14336,"
	  "\"max_position_embeddings\": 32768, \"model_type\": \"mixtral\","
	  "\"num_attention_heads\": 32, \"num_experts_per_tok\": 2,"
	  "\"num_hidden_layers\": 32, \"num_key_value_heads\": 8,"
	  "\"num_local_experts\": 8, \"output_router_logits\": false,"
	  "\"rms_norm_eps\": 1e-05, \"rope_theta\": 1000000.0,"
	  "\"router_aux_loss_coef\": 0.02, \"sliding_window\": null,"
	  "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\","
	  "\"transformers_version\": \"4.36.0.dev0\", \"use_cache\": true,"
	  "\"vocab_size\": 32000}",
	  46702792704, 995 },
	/* Mixtral-8x22B-v0.1 */
	{ "{\"architectures\": [\"MixtralForCausalLM\"],"
	  "\"attention_dropout\": 0.0, \"bos_token_id\": 1, \"eos_token_id\": 2,"
	  "\"hidden_act\": \"silu\", \"hidden_size\": 6144,"
	  "\"initializer_range\": 0.02, \"intermediate_size\": 16384,"
	  "\"max_position_embeddings\": 65536, \"model_type\": \"mixtral\","
	  "\"num_attention_heads\": 48, \"num_experts_per_tok\": 2,"
	  "\"num_hidden_layers\": 56, \"num_key_value_heads\": 8,"
	  "\"num_local_experts\": 8, \"output_router_logits\": false,"
	  "\"rms_norm_eps\": 1e-05, \"rope_theta\": 1000000,"
	  "\"router_aux_loss_coef\": 0.001, \"router_jitter_noise\": 0.0,"
	  "\"sliding_window\": null, \"tie_word_embeddings\": false,"
	  "\"torch_dtype\": \"bfloat16\", \"transformers_version\": \"4.38.0\","
	  "\"use_cache\": true, \"vocab_size\": 32000}",
	  140620634112, 1739 },
	/* Qwen3-30B-A3B */
	{ "{\"architectures\": [\"Qwen3MoeForCausalLM\"],"
	  "\"attention_bias\": false, \"attention_dropout\": 0.0,"
	  "\"bos_token_id\": 151643, \"decoder_sparse_step\": 1,"
	  "\"eos_token_id\": 151645, \"head_dim\": 128, \"hidden_act\": \"silu\","
	  "\"hidden_size\": 2048, \"initializer_range\": 0.02,"
	  "\"intermediate_size\": 6144, \"max_position_embeddings\": 40960,"
	  "\"max_window_layers\": 48, \"mlp_only_layers\": [],"
	  "\"model_type\": \"qwen3_moe\", \"moe_intermediate_size\": 768,"
	  "\"norm_topk_prob\": true, \"num_attention_heads\": 32,"
	  "\"num_experts\": 128, \"num_experts_per_tok\": 8,"
	  "\"num_hidden_layers\": 48, \"num_key_value_heads\": 4,"
	  "\"output_router_logits\": false, \"rms_norm_eps\": 1e-06,"
	  "\"rope_scaling\": null, \"rope_theta\": 1000000.0,"
	  "\"router_aux_loss_coef\": 0.001, \"sliding_window\": null,"
	  "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\","
	  "\"transformers_version\": \"4.51.0\", \"use_cache\": true,"
	  "\"use_sliding_window\": false, \"vocab_size\": 151936}",
	  30532122624, 18867 },
	/* Qwen3-235B-A22B */
	{ "{\"architectures\": [\"Qwen3MoeForCausalLM\"],"
	  "\"attention_bias\": false, \"attention_dropout\": 0.0,"
	  "\"bos_token_id\": 151643, \"decoder_sparse_step\": 1,"
	  "\"eos_token_id\": 151645, \"head_dim\": 128, \"hidden_act\": \"silu\","
	  "\"hidden_size\": 4096, \"initializer_range\": 0.02,"
	  "\"intermediate_size\": 12288, \"max_position_embeddings\": 40960,"
	  "\"max_window_layers\": 94, \"mlp_only_layers\": [],"
	  "\"model_type\": \"qwen3_moe\", \"moe_intermediate_size\": 1536,"
	  "\"norm_topk_prob\": true, \"num_attention_heads\": 64,"
	  "\"num_experts\": 128, \"num_experts_per_tok\": 8,"
	  "\"num_hidden_layers\": 94, \"num_key_value_heads\": 4,"
	  "\"output_router_logits\": false, \"rms_norm_eps\": 1e-06,"
	  "\"rope_scaling\": null, \"rope_theta\": 1000000.0,"
	  "\"router_aux_loss_coef\": 0.001, \"sliding_window\": null,"
	  "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\","
	  "\"transformers_version\": \"4.51.0\", \"use_cache\": true,"
	  "\"use_sliding_window\": false, \"vocab_size\": 151936}",
	  235093634560, 36945 },
	/* Qwen3-Coder-30B-A3B-Instruct */
	{ "{\"architectures\": [\"Qwen3MoeForCausalLM\"],"
	  "\"attention_dropout\": 0.0, \"decoder_sparse_step\": 1,"
	  "\"eos_token_id\": 151645, \"head_dim\": 128, \"hidden_act\": \"silu\","
	  "\"hidden_size\": 2048, \"initializer_range\": 0.02,"
	  "\"intermediate_size\": 5472, \"max_position_embeddings\": 262144,"
	  "\"max_window_layers\": 28, \"mlp_only_layers\": [],"
	  "\"model_type\": \"qwen3_moe\", \"moe_intermediate_size\": 768,"
	  "\"norm_topk_prob\": true, \"num_attention_heads\": 32,"
	  "\"num_experts\": 128, \"num_experts_per_tok\": 8,"
	  "\"num_hidden_layers\": 48, \"num_key_value_heads\": 4,"
	  "\"output_router_logits\": false, \"qkv_bias\": false,"
	  "\"rms_norm_eps\": 1e-06, \"rope_scaling\": null,"
	  "\"rope_theta\": 10000000, \"router_aux_loss_coef\": 0.0,"
	  "\"shared_expert_intermediate_size\": 0, \"sliding_window\": null,"
	  "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\","
	  "\"transformers_version\": \"4.52.3\", \"use_cache\": true,"
	  "\"use_qk_norm\": true, \"use_sliding_window\": false,"
	  "\"vocab_size\": 151936}",
	  30532122624, 18867 },
};

static void
published_configs_give_the_known_sizes(void)
{
	for (size_t i = 0; i < sizeof(published) / sizeof(published[0]); i++)
	{
		LlmModelConfig config = parse(published[i].text);
		LlmWeightSpec spec;
		int64_t n_params = 0;
		int n = 0;

		for (; llm_model_weight_spec(&config, n, &spec); n++)
			n_params += spec.n_rows * (spec.n_cols > 0 ? spec.n_cols : 1);
		CHECK_INT_EQ(n, published[i].n_weights);
		CHECK_INT_EQ(n_params, published[i].n_params);
		CHECK_INT_EQ(llm_model_n_params(&config), published[i].n_params);
		CHECK(config.renormalizes_experts);
	}
}

/* ---- weights ---- */

static void
check_spec(const LlmModelConfig *config, int weight_idx, const char *name,
		   int64_t n_rows, int64_t n_cols)
{
	LlmWeightSpec spec;

	if (!llm_model_weight_spec(config, weight_idx, &spec))
	{
		CHECK_FAIL("there is no weight %d", weight_idx);
		return;
	}
	CHECK_STR_EQ(spec.name, name);
	CHECK_INT_EQ(spec.n_rows, n_rows);
	CHECK_INT_EQ(spec.n_cols, n_cols);
	CHECK_INT_EQ(spec.stored_rows, n_rows);
	CHECK((spec.expert_idx >= 0) == (strstr(name, "experts.") != NULL));
}

static void
weights_are_listed_expert_by_expert(void)
{
	LlmModelConfig config = parse(MIXTRAL ",\"num_local_experts\": 11}");
	int layer = 6 + 1 + 3 * 11;

	check_spec(&config, 0, "model.embed_tokens.weight", 1000, 128);
	check_spec(&config, 1 + 5, "model.layers.0.post_attention_layernorm.weight",
			   128, 0);
	check_spec(&config, 1 + 6, "model.layers.0.block_sparse_moe.gate.weight",
			   11, 128);
	check_spec(&config, 1 + 7,
			   "model.layers.0.block_sparse_moe.experts.0.w1.weight", 256, 128);
	check_spec(&config, 1 + layer + 8,
			   "model.layers.1.block_sparse_moe.experts.0.w3.weight", 256, 128);
	check_spec(&config, 1 + 2 * layer - 1,
			   "model.layers.1.block_sparse_moe.experts.10.w2.weight", 128,
			   256);
	check_spec(&config, 1 + 6 * layer, "model.norm.weight", 128, 0);
	check_spec(&config, 2 + 6 * layer, "lm_head.weight", 1000, 128);
}

/* A dense layer has gate, up and down instead. */
static void
dense_layers_keep_their_own_weights(void)
{
	LlmModelConfig config =
		parse(QWEN3_MOE ",\"mlp_only_layers\": [1], \"num_experts\": 4,"
						"\"num_experts_per_tok\": 2,"
						"\"moe_intermediate_size\": 24}");
	int first = 1 + (8 + 1 + 3 * 4);

	check_spec(&config, first - 1,
			   "model.layers.0.mlp.experts.3.down_proj.weight", 128, 24);
	check_spec(&config, first + 8, "model.layers.1.mlp.gate_proj.weight", 256,
			   128);
	check_spec(&config, first + 10, "model.layers.1.mlp.down_proj.weight", 128,
			   256);
	check_spec(&config, first + 11, "model.layers.2.input_layernorm.weight",
			   128, 0);
	check_spec(&config, first + 11 + 8, "model.layers.2.mlp.gate.weight", 4,
			   128);
}

/* Held against a config that differs a little from the checkpoint's. */
static int
count_problems(LlmModelConfig *config, LlmError *problem)
{
	LlmError err = { 0 };
	LlmCheckpoint *tensors = llm_checkpoint_open(VECTORS "/qwen3_moe", &err);
	int n;

	if (tensors == NULL)
	{
		CHECK_FAIL("%s", err.message);
		return -1;
	}
	n = llm_model_check_tensors(config, tensors, problem, 1);
	llm_checkpoint_close(tensors);
	return n;
}

static void
tensors_are_held_against_the_config(void)
{
	LlmModelConfig right;
	LlmModelConfig config;
	LlmError err = { 0 };

	REQUIRE(llm_model_config_read(VECTORS "/qwen3_moe", &right, &err));
	CHECK_INT_EQ(count_problems(&right, &err), 0);

	/* one expert fewer: its tensors and the routers' shape */
	config = right;
	config.n_experts--;
	CHECK_INT_EQ(count_problems(&config, &err), 2 * (3 + 1));

	/* one more is missing */
	config = right;
	config.n_experts++;
	CHECK_INT_EQ(count_problems(&config, &err), 2 * (3 + 1));
	CHECK(strstr(err.message, "model.layers.0.mlp.gate.weight") != NULL);

	/* a dense layer where the checkpoint has a mixture */
	config = right;
	config.expert_layers.bits[0] = 4;
	CHECK_INT_EQ(count_problems(&config, &err), 3 + 1 + 3 * 8);
	CHECK(strstr(err.message, "model.layers.0.mlp.gate_proj.weight") != NULL);

	/* and the other way round */
	config = right;
	config.expert_layers.bits[0] = 7;
	CHECK_INT_EQ(count_problems(&config, &err), 3 + 1 + 3 * 8);

	/* a layer fewer than there are */
	config = right;
	config.n_layers--;
	CHECK_INT_EQ(count_problems(&config, &err), 8 + 1 + 3 * 8);
}

static void
mixtures_are_described(void)
{
	LlmStrbuf text;
	LlmError err = { 0 };
	cJSON *json;

	llm_strbuf_init(&text);
	REQUIRE(llm_model_inspect(VECTORS "/qwen3_moe", &text, &err));
	json = llm_json_parse(text.data, text.len, "inspection", &err);
	REQUIRE(json != NULL);
	CHECK_INT_EQ(cJSON_GetObjectItem(json, "n_experts")->valueint, 8);
	CHECK_INT_EQ(cJSON_GetObjectItem(json, "n_experts_per_token")->valueint, 3);
	CHECK_INT_EQ(cJSON_GetObjectItem(json, "weight_bytes")->valueint,
				 2 * cJSON_GetObjectItem(json, "n_params")->valueint);
	/* the vectors have no tokenizer; that is all that is wrong */
	CHECK_INT_EQ(cJSON_GetArraySize(cJSON_GetObjectItem(json, "unsupported")),
				 1);
	cJSON_Delete(json);
	llm_strbuf_free(&text);
}

/* ---- what is refused ---- */

static const struct
{
	const char *text;
	LlmErrorCode code;
	const char *message;
} refused[] = {
	{ MIXTRAL ",\"num_local_experts\": 0}", LLM_ERROR_INVALID,
	  "\"num_local_experts\" is 0" },
	{ MIXTRAL ",\"num_local_experts\": 1025}", LLM_ERROR_INVALID,
	  "\"num_local_experts\" is 1025" },
	{ MIXTRAL ",\"num_local_experts\": 4, \"num_experts\": 5}",
	  LLM_ERROR_INVALID, "\"num_experts\" is 5" },
	{ MIXTRAL ",\"num_experts_per_tok\": 9}", LLM_ERROR_INVALID,
	  "\"num_experts_per_tok\" is 9, but there are 8" },
	{ MIXTRAL ",\"num_experts_per_tok\": 0}", LLM_ERROR_INVALID,
	  "\"num_experts_per_tok\" is 0" },
	{ "{\"architectures\": [\"MixtralForCausalLM\"], \"vocab_size\": 9,"
	  "\"hidden_size\": 64, \"intermediate_size\": 8,"
	  "\"num_hidden_layers\": 2048, \"num_attention_heads\": 8,"
	  "\"num_local_experts\": 33}",
	  LLM_ERROR_LIMIT, "33 experts in each of 2048 layers" },
	{ MIXTRAL ",\"shared_expert_intermediate_size\": 8}", LLM_ERROR_UNSUPPORTED,
	  "shared_expert_intermediate_size" },
	{ QWEN3_MOE ",\"qkv_bias\": true}", LLM_ERROR_UNSUPPORTED, "qkv_bias" },
	{ QWEN3_MOE ",\"use_qk_norm\": false}", LLM_ERROR_UNSUPPORTED,
	  "use_qk_norm" },
	{ QWEN3_MOE ",\"decoder_sparse_step\": 0}", LLM_ERROR_INVALID,
	  "decoder_sparse_step" },
	{ QWEN3_MOE ",\"mlp_only_layers\": 3}", LLM_ERROR_INVALID,
	  "mlp_only_layers" },
	{ QWEN3_MOE ",\"mlp_only_layers\": [\"1\"]}", LLM_ERROR_INVALID,
	  "mlp_only_layers" },
	{ QWEN3_MOE ",\"moe_intermediate_size\": 0}", LLM_ERROR_INVALID,
	  "moe_intermediate_size" },
	{ QWEN3_MOE ",\"use_sliding_window\": true, \"max_window_layers\": 3}",
	  LLM_ERROR_UNSUPPORTED, "max_window_layers" },
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
				 strstr(err.message, refused[i].message) == NULL)
			CHECK_FAIL("%s: code %d, \"%s\"", refused[i].text, err.code,
					   err.message);
	}
}

int
main(void)
{
	RUN_TEST(missing_keys_get_the_defaults_of_transformers);
	RUN_TEST(layers_are_chosen_by_step_and_list);
	RUN_TEST(windows_are_for_all_layers);
	RUN_TEST(published_configs_give_the_known_sizes);
	RUN_TEST(weights_are_listed_expert_by_expert);
	RUN_TEST(dense_layers_keep_their_own_weights);
	RUN_TEST(tensors_are_held_against_the_config);
	RUN_TEST(mixtures_are_described);
	RUN_TEST(configs_are_refused_by_name);
	return unit_test_finish();
}
