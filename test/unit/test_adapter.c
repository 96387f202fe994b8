/*
 * test_adapter.c
 *	  Unit tests of src/common/adapter: adapters that PEFT wrote become images
 *	  and come back, and each kind of bad input is one clear error.
 *
 * test/unit/test_adapter.c
 */
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/adapter/adapter.h"
#include "src/common/util/json.h"
#include "test/unit/unit_test.h"

#define VECTORS "test/vectors/adapter/"
#define DEMO "models/demo"

static char dir[] = "/tmp/llm_test_adapter_XXXXXX";
static const uint8_t base[LLM_FINGERPRINT_BYTES] = { 1, 2, 0xfe };

static const char *
temp_path(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void
write_file(const char *path, const void *bytes, size_t n)
{
	FILE *file = fopen(path, "wb");

	if (file == NULL || fwrite(bytes, 1, n, file) != n || fclose(file) != 0)
		abort();
}

/* A file as a string buffer. */
static LlmStrbuf
read_file(const char *path)
{
	LlmMappedFile file;
	LlmStrbuf text;
	LlmError err;

	llm_strbuf_init(&text);
	if (!llm_mapped_file_open(&file, path, &err))
		abort();
	llm_strbuf_append(&text, file.data, file.size);
	llm_mapped_file_close(&file);
	return text;
}

static LlmStrbuf
read_part(const char *adapter, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), VECTORS "%s/%s", adapter, name);
	return read_file(path);
}

/* Import config text and a tensor file for a model. */
static bool
import_texts(const LlmStrbuf *config, const char *tensors_path,
			 const char *model_dir, LlmStrbuf *image, LlmError *err)
{
	LlmAdapterSource source = { config->data, config->len, tensors_path };
	LlmModelConfig model;

	llm_error_clear(err);
	llm_strbuf_init(image);
	if (!llm_model_config_read(model_dir, &model, err))
		abort();
	return llm_adapter_import(&source, &model, base, image, err);
}

/* Import an adapter of the vectors and open its image; NULL: it failed. */
static LlmAdapterImage *
import_and_open(const char *adapter, const char *model_dir)
{
	LlmStrbuf config = read_part(adapter, "adapter_config.json");
	LlmAdapterImage *image = NULL;
	LlmModelConfig model;
	LlmStrbuf bytes;
	LlmError err;
	char path[256];

	snprintf(path, sizeof(path), VECTORS "%s/adapter_model.safetensors",
			 adapter);
	if (import_texts(&config, path, model_dir, &bytes, &err))
	{
		write_file(temp_path("image"), bytes.data, bytes.len);
		(void) llm_model_config_read(model_dir, &model, &err);
		image = llm_adapter_image_open(temp_path("image"), &model, &err);
	}
	if (image == NULL)
		CHECK_FAIL("%s: %s", adapter, err.message);
	llm_strbuf_free(&config);
	llm_strbuf_free(&bytes);
	return image;
}

static void
images_hold_every_module(void)
{
	LlmAdapterImage *image = import_and_open("demo_one", DEMO);
	const LlmAdapterPair *pair;

	REQUIRE(image != NULL);
	CHECK_INT_EQ(image->n_pairs, 16);
	CHECK_INT_EQ(image->max_rank, 2);
	CHECK(!image->has_dora);
	CHECK(memcmp(image->base, base, sizeof(base)) == 0);
	pair = llm_adapter_image_find(image, 3, LLM_ADAPTER_V);
	REQUIRE(pair != NULL);
	CHECK_INT_EQ(pair->n_in, 256);
	CHECK_INT_EQ(pair->n_out, 128);
	CHECK_INT_EQ(pair->a->dtype, LLM_DTYPE_BF16);
	CHECK(pair->scale == 4.0f);
	CHECK(llm_adapter_image_find(image, 3, LLM_ADAPTER_K) == NULL);
	CHECK(llm_adapter_image_find(image, 8, LLM_ADAPTER_V) == NULL);
	CHECK(llm_adapter_image_find(image, -1, LLM_ADAPTER_LM_HEAD) == NULL);
	for (int32_t i = 1; i < image->n_pairs; i++)
		CHECK(image->pairs[i - 1].layer_idx < image->pairs[i].layer_idx ||
			  image->pairs[i - 1].module < image->pairs[i].module);
	llm_adapter_image_close(image);
}

/* alpha 6, rank 4 and patterns of both, over sqrt(rank). */
static void
patterns_decide_rank_and_scale(void)
{
	LlmAdapterImage *image =
		import_and_open("llama3_patterns", "test/vectors/model/llama3");
	const LlmAdapterPair *pair;

	REQUIRE(image != NULL);
	CHECK_INT_EQ(image->n_pairs, 15);
	pair = llm_adapter_image_find(image, 0, LLM_ADAPTER_Q);
	CHECK(pair != NULL && pair->rank == 2 &&
		  pair->scale == (float) (6 / 1.4142135623730951));
	pair = llm_adapter_image_find(image, 1, LLM_ADAPTER_V);
	CHECK(pair != NULL && pair->rank == 4 && pair->scale == 0.75f);
	pair = llm_adapter_image_find(image, 0, LLM_ADAPTER_DOWN);
	CHECK(pair != NULL && pair->rank == 4 && pair->scale == 3.0f);
	pair = llm_adapter_image_find(image, 1, LLM_ADAPTER_DOWN);
	CHECK(pair != NULL && pair->rank == 3);
	pair = llm_adapter_image_find(image, -1, LLM_ADAPTER_LM_HEAD);
	CHECK(pair != NULL && pair->rank == 4 &&
		  pair == &image->pairs[image->n_pairs - 1]);
	llm_adapter_image_close(image);
}

/* Phi-3's q, k and v are one module: each part has A and its rows of B. */
static void
fused_modules_come_in_parts(void)
{
	LlmAdapterImage *image =
		import_and_open("phi3_dora", "test/vectors/model/phi3");
	LlmError err;
	LlmSafetensors *peft = llm_safetensors_open(
		VECTORS "phi3_dora/adapter_model.safetensors", &err);
	const LlmStoredTensor *fused;
	const char *rows;

	REQUIRE(image != NULL && peft != NULL);
	CHECK(image->has_dora);
	fused = llm_safetensors_find(
		peft,
		"base_model.model.model.layers.1.self_attn.qkv_proj.lora_B.weight");
	REQUIRE(fused != NULL);
	rows = fused->data;
	for (int module = LLM_ADAPTER_Q; module <= LLM_ADAPTER_V; module++)
	{
		const LlmAdapterPair *part =
			llm_adapter_image_find(image, 1, (LlmAdapterModule) module);

		REQUIRE(part != NULL && part->magnitude != NULL);
		CHECK(memcmp(part->b->data, rows, part->b->n_bytes) == 0);
		rows += part->b->n_bytes;
	}
	CHECK(rows == (const char *) fused->data + fused->n_bytes);
	llm_safetensors_close(peft);
	llm_adapter_image_close(image);
}

/* -- what is refused -- */

/* Replace the first "from" of a text. */
static void
replace(LlmStrbuf *text, const char *from, const char *to)
{
	char *at = memmem(text->data, text->len, from, strlen(from));
	LlmStrbuf changed;

	if (at == NULL)
		abort();
	llm_strbuf_init(&changed);
	llm_strbuf_append(&changed, text->data, (size_t) (at - text->data));
	llm_strbuf_append_str(&changed, to);
	at += strlen(from);
	llm_strbuf_append(&changed, at, (size_t) (text->data + text->len - at));
	llm_strbuf_free(text);
	*text = changed;
}

/* Import demo_one with changes; it must fail with a message that has "part". */
static void
expect_refusal(const char *config_from, const char *config_to,
			   const char *tensors_from, const char *tensors_to,
			   const char *part)
{
	LlmStrbuf config = read_part("demo_one", "adapter_config.json");
	LlmStrbuf tensors = read_part("demo_one", "adapter_model.safetensors");
	LlmStrbuf image;
	LlmError err;

	if (config_from != NULL)
		replace(&config, config_from, config_to);
	if (tensors_from != NULL)
		replace(&tensors, tensors_from, tensors_to);
	write_file(temp_path("bad"), tensors.data, tensors.len);
	if (import_texts(&config, temp_path("bad"), DEMO, &image, &err))
		CHECK_FAIL("imported, but \"%s\" was expected", part);
	else if (strstr(err.message, part) == NULL)
		CHECK_FAIL("\"%s\" instead of \"%s\"", err.message, part);
	llm_strbuf_free(&config);
	llm_strbuf_free(&tensors);
	llm_strbuf_free(&image);
}

static void
configs_that_cannot_be_served_are_refused(void)
{
	expect_refusal("\"r\": 2", "\"r\": 3", NULL, NULL,
				   "has shape [2, 256], but the base model and the adapter's "
				   "rank call for [3, 256]");
	expect_refusal("\"r\": 2", "\"r\": 0", NULL, NULL,
				   "rank 0 is not between 1 and 1024");
	expect_refusal("\"r\": 2", "\"r\": \"x\"", NULL, NULL, "\"r\"");
	expect_refusal("\"peft_type\": \"LORA\"", "\"peft_type\": \"LOHA\"", NULL,
				   NULL, "\"peft_type\" is \"LOHA\"");
	expect_refusal("\"bias\": \"none\"", "\"bias\": \"all\"", NULL, NULL,
				   "trained biases are not supported");
	expect_refusal("\"modules_to_save\": null",
				   "\"modules_to_save\": [\"lm_head\"]", NULL, NULL,
				   "\"modules_to_save\" is set");
	expect_refusal("\"init_lora_weights\": true",
				   "\"init_lora_weights\": \"pissa_niter_4\"", NULL, NULL,
				   "changed the base model's weights");
	expect_refusal("\"use_dora\": false", "\"use_dora\": true", NULL, NULL,
				   "no lora_magnitude_vector for module "
				   "\"model.layers.0.self_attn.q_proj\"");
	expect_refusal("\"q_proj\"", "\"q_proj\", \"k_proj\"", NULL, NULL,
				   "no tensors for module "
				   "\"model.layers.0.self_attn.k_proj\"");
	expect_refusal("\"rank_pattern\": {}", "\"rank_pattern\": {\"(\": 2}", NULL,
				   NULL, "pattern \"(\" cannot be used");
	expect_refusal("{", "[", NULL, NULL, "adapter_config.json");
}

static void
tensors_that_do_not_match_are_refused(void)
{
	expect_refusal(NULL, NULL, "layers.0.self_attn.q_proj.lora_A",
				   "layers.9.self_attn.q_proj.lora_A",
				   "belongs to no module of architecture \"LlamaForCausalLM\"");
	expect_refusal(NULL, NULL, "layers.0.self_attn.q_proj.lora_A",
				   "layers.0.self_attn.x_proj.lora_A", "x_proj");
	expect_refusal(NULL, NULL, "q_proj.lora_A.weight", "q_proj.lora_C.weight",
				   "lora_C");
	expect_refusal(NULL, NULL, "\"BF16\",\"shape\":[2,256]",
				   "\"BF16\",\"shape\":[256,2]", "has shape [256, 2]");
	expect_refusal(NULL, NULL, "\"BF16\",\"shape\":[2,256]",
				   "\"I16\" ,\"shape\":[2,256]", "has dtype I16");
	expect_refusal(NULL, NULL, "\"data_offsets\":[0,", "\"data_offsets\":[4,",
				   "shape and dtype");
	expect_refusal(NULL, NULL, "{", "[", "the header");
}

static void
values_that_are_not_finite_are_refused(void)
{
	LlmStrbuf config = read_part("demo_one", "adapter_config.json");
	LlmStrbuf tensors = read_part("demo_one", "adapter_model.safetensors");
	LlmStrbuf image;
	LlmError err;

	memcpy(tensors.data + tensors.len - 2, "\xc0\x7f", 2); /* NaN */
	write_file(temp_path("bad"), tensors.data, tensors.len);
	CHECK(!import_texts(&config, temp_path("bad"), DEMO, &image, &err));
	CHECK(strstr(err.message, "not finite") != NULL);
	llm_strbuf_free(&image);
	write_file(temp_path("bad"), tensors.data, tensors.len - 2);
	CHECK(!import_texts(&config, temp_path("bad"), DEMO, &image, &err));
	CHECK(strstr(err.message, "truncated") != NULL);
	llm_strbuf_free(&image);
	llm_strbuf_free(&config);
	llm_strbuf_free(&tensors);
}

/* The demo's adapter is for none of the other models. */
static void
other_bases_are_refused(void)
{
	LlmStrbuf config = read_part("demo_one", "adapter_config.json");
	LlmStrbuf image;
	LlmError err;

	CHECK(!import_texts(&config, VECTORS "demo_one/adapter_model.safetensors",
						"test/vectors/model/llama3", &image, &err));
	llm_strbuf_free(&image);
	CHECK(!import_texts(&config, VECTORS "demo_one/adapter_model.safetensors",
						"test/vectors/model/phi3", &image, &err));
	CHECK(strstr(err.message, "belongs to no module") != NULL);
	llm_strbuf_free(&image);
	llm_strbuf_free(&config);
}

static void
fingerprints_tell_models_apart(void)
{
	static const char *const dirs[] = { DEMO, "test/vectors/model/llama3",
										"test/vectors/model/qwen3" };
	uint8_t fingerprints[3][LLM_FINGERPRINT_BYTES];
	uint8_t again[LLM_FINGERPRINT_BYTES];
	LlmModelConfig config;
	LlmError err;

	for (int i = 0; i < 3; i++)
	{
		REQUIRE(llm_model_config_read(dirs[i], &config, &err));
		CHECK(llm_model_fingerprint(&config, dirs[i], fingerprints[i], &err));
		CHECK(llm_model_fingerprint(&config, dirs[i], again, &err));
		CHECK(memcmp(fingerprints[i], again, sizeof(again)) == 0);
		CHECK(i == 0 ||
			  memcmp(fingerprints[i], fingerprints[i - 1], sizeof(again)) != 0);
	}
}

int
main(void)
{
	if (mkdtemp(dir) == NULL)
		return 1;
	RUN_TEST(images_hold_every_module);
	RUN_TEST(patterns_decide_rank_and_scale);
	RUN_TEST(fused_modules_come_in_parts);
	RUN_TEST(configs_that_cannot_be_served_are_refused);
	RUN_TEST(tensors_that_do_not_match_are_refused);
	RUN_TEST(values_that_are_not_finite_are_refused);
	RUN_TEST(other_bases_are_refused);
	RUN_TEST(fingerprints_tell_models_apart);
	unlink(temp_path("image"));
	unlink(temp_path("bad"));
	rmdir(dir);
	return unit_test_finish();
}
