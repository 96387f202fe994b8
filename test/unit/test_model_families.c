/*
 * test_model_families.c
 *	  Unit tests of src/common/model_dir: configs of each family as they are
 *	  published, read with the right values, and what none of them knows.
 *
 * test/unit/test_model_families.c
 */
#include <math.h>

#include "src/common/model_dir/model_dir.h"
#include "test/unit/unit_test.h"

static LlmModelConfig
parse(const char *text)
{
	LlmModelConfig config = { 0 };
	LlmError err = { 0 };

	if (!llm_model_config_parse(text, strlen(text), "config.json", &config,
								&err))
		CHECK_FAIL("%.200s: \"%s\"", text, err.message);
	return config;
}

static void
check_refused(const char *text, const char *message)
{
	LlmModelConfig config;
	LlmError err = { 0 };

	if (llm_model_config_parse(text, strlen(text), "config.json", &config,
							   &err))
		CHECK_FAIL("accepted: %.200s", text);
	else if (strstr(err.message, message) == NULL)
		CHECK_FAIL("%.200s: \"%s\"", text, err.message);
}

/* The spec of a role in layer 0. */
static LlmWeightSpec
spec_of(const LlmModelConfig *config, LlmWeightRole role)
{
	LlmWeightSpec spec = { 0 };

	for (int i = 0; llm_model_weight_spec(config, i, &spec); i++)
	{
		if (spec.role == role)
			return spec;
	}
	CHECK_FAIL("no weight of role %d", (int) role);
	return spec;
}

/* ---- GLM ---- */

#define GLM_SIZES                                                    \
	"\"hidden_size\": 4096, \"intermediate_size\": 13696,"           \
	"\"num_attention_heads\": 32, \"num_key_value_heads\": 2,"       \
	"\"num_hidden_layers\": 40, \"head_dim\": 128, \"hidden_act\": " \
	"\"silu\", \"vocab_size\": 151552, \"attention_dropout\": 0.0,"  \
	"\"initializer_range\": 0.02, \"pad_token_id\": 151329,"         \
	"\"rope_theta\": 10000.0, \"tie_word_embeddings\": false,"       \
	"\"torch_dtype\": \"bfloat16\", \"use_cache\": true"

static void
glm_of_2024_is_read(void)
{
	LlmModelConfig config =
		parse("{\"architectures\": [\"GlmForCausalLM\"], \"model_type\":"
			  "\"glm\", \"attention_bias\": true,"
			  "\"eos_token_id\": [151329, 151336, 151338],"
			  "\"max_position_embeddings\": 131072,"
			  "\"rms_norm_eps\": 1.5625e-07," GLM_SIZES "}");
	LlmWeightSpec gate = spec_of(&config, LLM_WEIGHT_GATE);
	LlmWeightSpec up = spec_of(&config, LLM_WEIGHT_UP);

	CHECK_STR_EQ(llm_family_name(config.family), "glm");
	CHECK(config.has_qkv_bias && !config.has_o_bias && !config.has_post_norms);
	CHECK_INT_EQ(config.rope.rotary_dim, 64);
	CHECK(config.rope.interleaved && config.norm_eps == 1.5625e-07);
	CHECK_INT_EQ(config.n_stop_ids, 3);
	CHECK_STR_EQ(gate.name, "model.layers.0.mlp.gate_up_proj.weight");
	CHECK_STR_EQ(up.name, gate.name);
	CHECK_INT_EQ(gate.first_row, 0);
	CHECK_INT_EQ(up.first_row, 13696);
	CHECK_INT_EQ(up.n_rows, 13696);
	CHECK_INT_EQ(up.stored_rows, 2 * 13696);
	/* as transformers counts glm-4-9b-chat-hf */
	CHECK_INT_EQ(llm_model_n_params(&config), 9399951360);
}

static void
glm_of_2025_is_read(void)
{
	LlmModelConfig config =
		parse("{\"architectures\": [\"Glm4ForCausalLM\"], \"model_type\":"
			  "\"glm4\", \"attention_bias\": false,"
			  "\"partial_rotary_factor\": 0.5, \"rms_norm_eps\": 1e-05,"
			  "\"max_position_embeddings\": 32768,"
			  "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0,"
			  "\"original_max_position_embeddings\": 32768}," GLM_SIZES "}");

	CHECK(!config.has_qkv_bias && config.has_post_norms);
	CHECK_INT_EQ(config.max_position, 131072);
	CHECK_INT_EQ(config.rope.rotary_dim, 64);
	/* GlmConfig's own ids where the config has none */
	CHECK_INT_EQ(config.n_stop_ids, 3);
	CHECK_INT_EQ(config.stop_ids[2], 151338);
	CHECK_STR_EQ(spec_of(&config, LLM_WEIGHT_MLP_NORM).name,
				 "model.layers.0.post_attention_layernorm.weight");
	CHECK_STR_EQ(spec_of(&config, LLM_WEIGHT_POST_ATTN_NORM).name,
				 "model.layers.0.post_self_attn_layernorm.weight");
}

/* ---- Phi ---- */

#define PHI                                                            \
	"{\"architectures\": [\"Phi3ForCausalLM\"], \"model_type\": "      \
	"\"phi3\", \"auto_map\": {\"AutoConfig\": "                        \
	"\"configuration_phi3.Phi3Config\", \"AutoModelForCausalLM\": "    \
	"\"modeling_phi3.Phi3ForCausalLM\"}, \"attention_bias\": false,"   \
	"\"embd_pdrop\": 0.0, \"resid_pdrop\": 0.0, \"hidden_act\": "      \
	"\"silu\", \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0,"      \
	"\"original_max_position_embeddings\": 4096, \"pad_token_id\": 0," \
	"\"hidden_size\": 96, \"intermediate_size\": 64, \"vocab_size\": " \
	"32064, \"num_hidden_layers\": 2, \"num_attention_heads\": 6,"     \
	"\"num_key_value_heads\": 2, \"eos_token_id\": 32000"

static void
phi_with_a_short_context_is_read(void)
{
	LlmModelConfig config =
		parse(PHI ",\"max_position_embeddings\": 4096,"
				  "\"rope_scaling\": null, \"sliding_window\": 2047}");
	LlmWeightSpec q = spec_of(&config, LLM_WEIGHT_Q);
	LlmWeightSpec k = spec_of(&config, LLM_WEIGHT_K);
	LlmWeightSpec v = spec_of(&config, LLM_WEIGHT_V);

	CHECK_INT_EQ(config.sliding_window, 2047);
	CHECK(llm_layer_set_has(&config.sliding_layers, 0));
	CHECK(llm_layer_set_has(&config.sliding_layers, 1));
	CHECK_INT_EQ(config.rope.rotary_dim, 16);
	CHECK(!config.rope_restarts);
	CHECK_STR_EQ(q.name, "model.layers.0.self_attn.qkv_proj.weight");
	CHECK_STR_EQ(v.name, q.name);
	CHECK_INT_EQ(q.stored_rows, 96 + 32 + 32);
	CHECK_INT_EQ(k.first_row, 96);
	CHECK_INT_EQ(v.first_row, 128);
	CHECK_INT_EQ(v.n_rows, 32);
	/* a window that is missing is none, too */
	CHECK_INT_EQ(parse(PHI "}").sliding_window, 0);
	CHECK_INT_EQ(parse(PHI "}").max_position, 4096);
}

#define EIGHT "[1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]"
#define SIX "[1, 1.1, 1.2, 1.3, 1.4, 1.5]"

static void
phi_with_a_long_context_is_read(void)
{
	static const char *const names[] = { "su", "yarn", "longrope" };

	for (int i = 0; i < 3; i++)
	{
		char text[2000];
		LlmModelConfig config;

		snprintf(text, sizeof(text),
				 PHI ",\"max_position_embeddings\": 131072, \"rope_scaling\":"
					 "{\"type\": \"%s\", \"short_factor\": " EIGHT ","
					 "\"long_factor\": " EIGHT "},"
					 "\"sliding_window\": 262144}",
				 names[i]);
		config = parse(text);
		CHECK_INT_EQ(config.rope.kind, LLM_ROPE_LONGROPE);
		CHECK_INT_EQ(config.rope.original_max_position, 4096);
		CHECK_INT_EQ(config.max_position, 131072);
		CHECK(config.rope.factor == 32 && config.rope_restarts);
		CHECK_INT_EQ(config.rope.n_factors, 8);
	}
}

/* Phi-4-mini: part of a head rotates; keys of its own that do nothing. */
static void
phi_that_rotates_in_part_is_read(void)
{
	LlmModelConfig config =
		parse(PHI ",\"max_position_embeddings\": 131072,"
				  "\"partial_rotary_factor\": 0.75, \"full_attn_mod\": 1,"
				  "\"interpolate_factor\": 1, \"lm_head_bias\": false,"
				  "\"mlp_bias\": false, \"tie_word_embeddings\": true,"
				  "\"rope_scaling\": {\"type\": \"longrope\","
				  "\"short_factor\": " SIX ", \"long_factor\": " SIX "},"
				  "\"sliding_window\": 262144}");

	CHECK_INT_EQ(config.rope.rotary_dim, 12);
	CHECK_INT_EQ(config.rope.n_factors, 6);
	CHECK(config.tie_word_embeddings);
}

/* Phi3Config has 4096 where the key is missing outside, whatever is inside. */
static void
phi_counts_the_original_length_outside_alone(void)
{
	LlmModelConfig config = parse(
		"{\"model_type\": \"phi3\", \"hidden_size\": 96,"
		"\"intermediate_size\": 64, \"vocab_size\": 320, \"eos_token_id\": 2,"
		"\"num_hidden_layers\": 2, \"num_attention_heads\": 6,"
		"\"max_position_embeddings\": 8192, \"rope_scaling\": {\"rope_type\":"
		"\"longrope\", \"original_max_position_embeddings\": 2048,"
		"\"short_factor\": " EIGHT ", \"long_factor\": " EIGHT "}}");

	CHECK_INT_EQ(config.rope.original_max_position, 4096);
	CHECK(config.rope.factor == 2);
}

/* ---- Gemma ---- */

#define GEMMA_SIZES                                           \
	"\"hidden_size\": 2304, \"intermediate_size\": 9216,"     \
	"\"num_attention_heads\": 8, \"num_key_value_heads\": 4," \
	"\"num_hidden_layers\": 4, \"vocab_size\": 256000"

static void
gemma_is_read(void)
{
	LlmModelConfig config =
		parse("{\"architectures\": [\"GemmaForCausalLM\"],"
			  "\"hidden_act\": \"gelu\", \"hidden_activation\": null,"
			  "\"attention_bias\": false," GEMMA_SIZES "}");

	CHECK_INT_EQ(config.hidden_act, LLM_HIDDEN_ACT_GELU_TANH);
	CHECK(config.norm_adds_one && !config.has_post_norms);
	CHECK(config.tie_word_embeddings && config.embed_scale == 48);
	CHECK_INT_EQ(config.head_dim, 256);
	CHECK_INT_EQ(config.max_position, 8192);
	CHECK_INT_EQ(config.bos_token_id, 2);
	CHECK_INT_EQ(config.stop_ids[0], 1);
}

#define GEMMA2                                                       \
	"{\"architectures\": [\"Gemma2ForCausalLM\"], \"model_type\": "  \
	"\"gemma2\", \"cache_implementation\": \"hybrid\","              \
	"\"hidden_act\": \"gelu_pytorch_tanh\", \"hidden_activation\": " \
	"\"gelu_pytorch_tanh\"," GEMMA_SIZES

static void
gemma2_is_read(void)
{
	LlmModelConfig config =
		parse(GEMMA2 ",\"attn_logit_softcapping\": 50.0,"
					 "\"final_logit_softcapping\": 30.0, \"head_dim\": 128,"
					 "\"query_pre_attn_scalar\": 144,"
					 "\"sliding_window\": 4096, \"sliding_window_size\": 4096,"
					 "\"rope_theta\": 10000.0}");

	CHECK(config.attention_soft_cap == 50 && config.logit_soft_cap == 30);
	CHECK(fabs(config.attention_scale - 1.0 / 12) < 1e-15);
	CHECK(config.has_post_norms && config.norm_adds_one);
	CHECK_INT_EQ(config.sliding_window, 4096);
	CHECK(llm_layer_set_has(&config.sliding_layers, 0));
	CHECK(!llm_layer_set_has(&config.sliding_layers, 1));
	CHECK(llm_layer_set_has(&config.sliding_layers, 2));
	CHECK_STR_EQ(spec_of(&config, LLM_WEIGHT_MLP_NORM).name,
				 "model.layers.0.pre_feedforward_layernorm.weight");
	/* missing is the default, null is none */
	config = parse(GEMMA2 "}");
	CHECK(config.attention_soft_cap == 50 && config.logit_soft_cap == 30);
	CHECK(config.attention_scale == 1.0 / 16);
	CHECK_INT_EQ(config.sliding_window, 4096);
	config = parse(GEMMA2 ",\"attn_logit_softcapping\": null,"
						  "\"final_logit_softcapping\": null}");
	CHECK(config.attention_soft_cap == 0 && config.logit_soft_cap == 0);
}

#define GEMMA3                                                      \
	"{\"architectures\": [\"Gemma3ForCausalLM\"], \"model_type\": " \
	"\"gemma3_text\", \"attn_logit_softcapping\": null,"            \
	"\"final_logit_softcapping\": null, \"cache_implementation\": " \
	"\"hybrid\", \"hidden_activation\": \"gelu_pytorch_tanh\","     \
	"\"eos_token_id\": [1, 106], \"head_dim\": 256,"                \
	"\"query_pre_attn_scalar\": 256, \"hidden_size\": 1152,"        \
	"\"intermediate_size\": 6912, \"num_attention_heads\": 4,"      \
	"\"num_key_value_heads\": 1, \"num_hidden_layers\": 7,"         \
	"\"vocab_size\": 262144, \"sliding_window\": 512"

static void
gemma3_is_read_in_both_forms(void)
{
	LlmModelConfig config =
		parse(GEMMA3 ",\"max_position_embeddings\": 32768,"
					 "\"rope_local_base_freq\": 10000, \"rope_scaling\": null,"
					 "\"rope_theta\": 1000000, \"sliding_window_pattern\": 6}");

	CHECK(config.has_qk_norm && config.has_sliding_rope);
	CHECK(config.rope.theta == 1000000 && config.sliding_rope.theta == 10000);
	CHECK_INT_EQ(config.sliding_window, 512);
	for (int i = 0; i < 7; i++)
		CHECK_INT_EQ(llm_layer_set_has(&config.sliding_layers, i), i != 5);
	CHECK(config.attention_soft_cap == 0 && config.logit_soft_cap == 0);

	config = parse(GEMMA3
				   ",\"max_position_embeddings\": 32768,"
				   "\"use_bidirectional_attention\": false,"
				   "\"_sliding_window_pattern\": 6, \"layer_types\":"
				   "[\"full_attention\", \"sliding_attention\","
				   "\"full_attention\", \"full_attention\", \"full_attention\","
				   "\"full_attention\", \"full_attention\"],"
				   "\"rope_parameters\": {\"full_attention\": {\"rope_type\":"
				   "\"linear\", \"factor\": 8.0, \"rope_theta\": 500000.0},"
				   "\"sliding_attention\": {\"rope_type\": \"default\","
				   "\"rope_theta\": 5000.0}}}");
	CHECK_INT_EQ(config.rope.kind, LLM_ROPE_LINEAR);
	CHECK(config.rope.factor == 8 && config.rope.theta == 500000);
	CHECK_INT_EQ(config.sliding_rope.kind, LLM_ROPE_DEFAULT);
	CHECK(config.sliding_rope.theta == 5000);
	CHECK_INT_EQ(config.sliding_rope.rotary_dim, 256);
	/* Gemma's context length is the scaled one already */
	CHECK_INT_EQ(config.max_position, 32768);
	CHECK(llm_layer_set_has(&config.sliding_layers, 1));
	CHECK(!llm_layer_set_has(&config.sliding_layers, 0));

	/* thetas by default; rope_scaling goes over rope_parameters */
	config = parse(GEMMA3 ",\"rope_parameters\": {\"full_attention\":"
						  "{\"rope_theta\": 7000}}, \"rope_scaling\":"
						  "{\"rope_type\": \"linear\", \"factor\": 4}}");
	CHECK(config.rope.theta == 7000 && config.rope.factor == 4);
	CHECK(config.sliding_rope.theta == 10000);
	config = parse(GEMMA3 "}");
	CHECK(config.rope.theta == 1000000);
	CHECK_INT_EQ(config.max_position, 131072);
}

#define SEEING_GEMMA3                                            \
	"{\"architectures\": [\"Gemma3ForConditionalGeneration\"],"  \
	"\"boi_token_index\": 255999, \"eoi_token_index\": 256000,"  \
	"\"eos_token_id\": [1, 106], \"image_token_index\": 262144," \
	"\"initializer_range\": 0.02, \"mm_tokens_per_image\": 256," \
	"\"model_type\": \"gemma3\", \"torch_dtype\": \"bfloat16\"," \
	"\"vision_config\": {\"hidden_size\": 1152, \"image_size\": 896}"

/* gemma-3-4b-it says little of its language model. */
static void
the_text_model_of_gemma3_is_taken(void)
{
	LlmModelConfig config =
		parse(SEEING_GEMMA3 ",\"text_config\": {\"hidden_size\": 2560,"
							"\"intermediate_size\": 10240, \"model_type\":"
							"\"gemma3_text\", \"num_hidden_layers\": 34,"
							"\"rope_scaling\": {\"factor\": 8.0, \"rope_type\":"
							"\"linear\"}, \"sliding_window\": 1024}}");

	CHECK_STR_EQ(config.architecture, "Gemma3ForConditionalGeneration");
	CHECK_INT_EQ(config.n_vocab, 262208);
	CHECK_INT_EQ(config.n_heads, 8);
	CHECK_INT_EQ(config.n_kv_heads, 4);
	CHECK_INT_EQ(config.head_dim, 256);
	CHECK_INT_EQ(config.dtype, LLM_DTYPE_BF16);
	CHECK_INT_EQ(config.n_stop_ids, 2);
	CHECK_INT_EQ(config.max_position, 131072);
	CHECK(config.rope.factor == 8 && config.tie_word_embeddings);
	CHECK_STR_EQ(spec_of(&config, LLM_WEIGHT_EMBED).name,
				 "language_model.model.embed_tokens.weight");
	/* as transformers counts the language model of gemma-3-4b-it */
	CHECK_INT_EQ(llm_model_n_params(&config), 3880263168);
}

/* ---- what is refused ---- */

static void
what_no_family_knows_is_refused(void)
{
	check_refused(PHI ",\"rope_scaling\": {\"type\": \"linear\","
					  "\"factor\": 2}}",
				  "\"phi3\" does not support rotary embedding \"linear\"");
	check_refused(PHI ",\"rope_scaling\": {\"type\": \"su\","
					  "\"short_factor\": " SIX ", \"long_factor\": " SIX "}}",
				  "\"short_factor\" must be an array of 8 numbers");
	check_refused(PHI ",\"partial_rotary_factor\": 0.7}", "even");
	check_refused(PHI ",\"partial_rotary_factor\": 0}", "even");
	check_refused(PHI ",\"full_attn_mod\": 2}", "full_attn_mod");
	check_refused(PHI ",\"lm_head_bias\": true}", "lm_head_bias");
	check_refused("{\"architectures\": [\"GlmForCausalLM\"], \"auto_map\":"
				  "{\"AutoModelForCausalLM\": "
				  "\"modeling_phi3.Phi3ForCausalLM\"}," GLM_SIZES "}",
				  "auto_map");
	check_refused("{\"architectures\": [\"GemmaForCausalLM\"],"
				  "\"hidden_activation\": \"silu\"," GEMMA_SIZES "}",
				  "differ");
	check_refused(GEMMA2 ",\"attn_logit_softcapping\": 0}",
				  "attn_logit_softcapping");
	check_refused(GEMMA2 ",\"sliding_window_size\": 17}",
				  "sliding_window_size");
	check_refused(GEMMA2 ",\"sliding_window\": null}", "sliding_window");
	check_refused(GEMMA2 ",\"use_bidirectional_attention\": true}",
				  "use_bidirectional_attention");
	check_refused(GEMMA2 ",\"partial_rotary_factor\": 0.5}",
				  "partial_rotary_factor");
	check_refused(GEMMA3 ",\"use_bidirectional_attention\": true}",
				  "use_bidirectional_attention");
	check_refused(GEMMA3 ",\"rope_parameters\": {\"rope_type\": \"linear\","
						 "\"factor\": 8}}",
				  "\"rope_type\"");
	check_refused(GEMMA3 ",\"rope_parameters\": 7}", "must be an object");
	check_refused(GEMMA3 ",\"rope_parameters\": {\"full_attention\": []}}",
				  "\"full_attention\" must be an object");
	check_refused(GEMMA3 ",\"rope_parameters\": {\"sliding_attention\": 1}}",
				  "must be an object");
	check_refused(SEEING_GEMMA3 "}", "\"text_config\" must be an object");
	check_refused(SEEING_GEMMA3 ",\"text_config\": {\"model_type\":"
								"\"llama\"}}",
				  "\"llama\"");
	check_refused(SEEING_GEMMA3 ",\"text_config\": {}, \"hidden_size\": 7}",
				  "\"hidden_size\"");
	check_refused(SEEING_GEMMA3 ",\"text_config\": {},"
								"\"quantization_config\": {\"quant_method\":"
								"\"awq\"}}",
				  "\"awq\"");
}

int
main(void)
{
	RUN_TEST(glm_of_2024_is_read);
	RUN_TEST(glm_of_2025_is_read);
	RUN_TEST(phi_with_a_short_context_is_read);
	RUN_TEST(phi_with_a_long_context_is_read);
	RUN_TEST(phi_that_rotates_in_part_is_read);
	RUN_TEST(phi_counts_the_original_length_outside_alone);
	RUN_TEST(gemma_is_read);
	RUN_TEST(gemma2_is_read);
	RUN_TEST(gemma3_is_read_in_both_forms);
	RUN_TEST(the_text_model_of_gemma3_is_taken);
	RUN_TEST(what_no_family_knows_is_refused);
	return unit_test_finish();
}
