/*
 * test_adapter.c
 *	  Unit tests of src/common/adapter: adapters that PEFT wrote become images
 *	  and come back, and each kind of bad input is one clear error.
 *
 * test/unit/test_adapter.c
 */
#include <math.h>
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
	expect_refusal("\"target_parameters\": null",
				   "\"target_parameters\": [\"mlp.router\"]", NULL, NULL,
				   "\"target_parameters\" names \"mlp.router\"");
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

/* -- export and merge -- */

static void
remove_exported(void)
{
	static const char *const names[] = {
		"out/adapter_config.json",
		"out/adapter_model.safetensors",
		"out/config.json",
		"out/model.safetensors",
		"out/model.safetensors.index.json",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(temp_path(names[i]));
	for (int n = 1; n < 100; n++)
		for (int i = 1; i <= n; i++)
		{
			char name[64];

			snprintf(name, sizeof(name), "out/model-%05d-of-%05d.safetensors",
					 i, n);
			unlink(temp_path(name));
		}
	rmdir(temp_path("out"));
}

/* Import, export, and read what was exported; NULL: it failed. */
static LlmSafetensors *
export_adapter(const char *adapter, const char *model_dir,
			   LlmAdapterProfile profile, LlmError *err)
{
	LlmAdapterImage *image = import_and_open(adapter, model_dir);
	LlmSafetensors *exported = NULL;
	LlmModelConfig model;
	char out[256];

	snprintf(out, sizeof(out), "%s/out", dir);
	if (image == NULL || mkdir(out, 0700) != 0 ||
		!llm_model_config_read(model_dir, &model, err))
		abort();
	llm_error_clear(err);
	if (llm_adapter_export(image, &model, profile, out, err))
		exported = llm_safetensors_open(
			temp_path("out/adapter_model.safetensors"), err);
	llm_adapter_image_close(image);
	return exported;
}

/* What PEFT wrote comes back bit by bit, under the same names. */
static void
check_round_trip(const char *adapter, const char *model_dir)
{
	LlmError err;
	LlmSafetensors *exported =
		export_adapter(adapter, model_dir, LLM_ADAPTER_PROFILE_PEFT, &err);
	LlmSafetensors *original;
	char path[256];

	snprintf(path, sizeof(path), VECTORS "%s/adapter_model.safetensors",
			 adapter);
	original = llm_safetensors_open(path, &err);
	if (exported == NULL || original == NULL)
		CHECK_FAIL("%s: %s", adapter, err.message);
	else
		CHECK_INT_EQ(llm_safetensors_n_tensors(exported),
					 llm_safetensors_n_tensors(original));
	for (int i = 0; exported != NULL && original != NULL &&
					i < llm_safetensors_n_tensors(original);
		 i++)
	{
		const LlmStoredTensor *a = llm_safetensors_get(original, i);
		const LlmStoredTensor *b = llm_safetensors_find(exported, a->name);

		if (b == NULL || a->dtype != b->dtype || a->n_dims != b->n_dims ||
			a->n_bytes != b->n_bytes ||
			memcmp(a->data, b->data, a->n_bytes) != 0)
			CHECK_FAIL("%s: tensor \"%s\" came back otherwise", adapter,
					   a->name);
	}
	llm_safetensors_close(exported);
	llm_safetensors_close(original);
	remove_exported();
}

static void
exports_are_what_was_imported(void)
{
	check_round_trip("demo_one", DEMO);
	check_round_trip("demo_two", DEMO);
	check_round_trip("llama3_patterns", "test/vectors/model/llama3");
	check_round_trip("phi3_dora", "test/vectors/model/phi3");
}

/*
 * Experts' matrices, which PEFT stacked, go out as those of modules: read in
 * again they are the same.
 */
static void
stacks_become_modules(void)
{
	const char *model_dir = "test/vectors/model/mixtral";
	LlmAdapterImage *image = import_and_open("mixtral_stacked", model_dir);
	LlmAdapterImage *again = NULL;
	LlmSafetensors *exported;
	LlmModelConfig model;
	LlmStrbuf config;
	LlmStrbuf bytes;
	LlmError err;

	REQUIRE(image != NULL && image->has_experts);
	exported = export_adapter("mixtral_stacked", model_dir,
							  LLM_ADAPTER_PROFILE_PEFT, &err);
	REQUIRE(exported != NULL);
	CHECK(llm_safetensors_find(
			  exported, "base_model.model.model.layers.1.block_sparse_moe."
						"experts.5.w3.lora_B.weight") != NULL);
	config = read_file(temp_path("out/adapter_config.json"));
	CHECK(strstr(config.data, "target_parameters") == NULL);
	if (import_texts(&config, temp_path("out/adapter_model.safetensors"),
					 model_dir, &bytes, &err))
	{
		write_file(temp_path("image"), bytes.data, bytes.len);
		CHECK(llm_model_config_read(model_dir, &model, &err));
		again = llm_adapter_image_open(temp_path("image"), &model, &err);
	}
	if (again == NULL)
		CHECK_FAIL("%s", err.message);
	else
		CHECK_INT_EQ(again->n_pairs, 2 + 2 * 6 * 3);
	for (int32_t i = 0; again != NULL && i < again->n_pairs; i++)
	{
		const LlmAdapterPair *a = &image->pairs[i];
		const LlmAdapterPair *b = &again->pairs[i];

		CHECK(a->module == b->module && a->expert_idx == b->expert_idx &&
			  a->scale == b->scale && a->rank == b->rank &&
			  memcmp(a->a->data, b->a->data, a->a->n_bytes) == 0 &&
			  memcmp(a->b->data, b->b->data, a->b->n_bytes) == 0);
	}
	llm_strbuf_free(&config);
	llm_strbuf_free(&bytes);
	llm_safetensors_close(exported);
	llm_adapter_image_close(again);
	llm_adapter_image_close(image);
	remove_exported();
}

/* One rank and one factor for all modules; DoRA has no such form. */
static void
exports_for_vllm_are_uniform(void)
{
	LlmError err;
	LlmSafetensors *exported =
		export_adapter("llama3_patterns", "test/vectors/model/llama3",
					   LLM_ADAPTER_PROFILE_VLLM, &err);
	const LlmStoredTensor *b;
	LlmStrbuf config;
	cJSON *json;
	int64_t rank = 0;

	REQUIRE(exported != NULL);
	b = llm_safetensors_find(
		exported,
		"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
	REQUIRE(b != NULL);
	CHECK_INT_EQ(b->shape[1], 4);
	CHECK(((const float *) b->data)[2] == 0 &&
		  ((const float *) b->data)[0] != 0);
	config = read_file(temp_path("out/adapter_config.json"));
	json = llm_json_parse(config.data, config.len, "config", &err);
	CHECK(llm_json_get_int(json, "r", &rank, &err) && rank == 4);
	CHECK(llm_json_get(json, "rank_pattern") == NULL);
	CHECK(llm_json_get(json, "use_rslora") == NULL);
	cJSON_Delete(json);
	llm_strbuf_free(&config);
	llm_safetensors_close(exported);
	remove_exported();
	exported = export_adapter("phi3_dora", "test/vectors/model/phi3",
							  LLM_ADAPTER_PROFILE_VLLM, &err);
	CHECK(exported == NULL && strstr(err.message, "DoRA") != NULL);
	remove_exported();
}

/* Sum of a float32 tensor's elements, or of their squares. */
static double
sum_of(const LlmStoredTensor *tensor, bool squares)
{
	const float *values = tensor->data;
	double sum = 0;

	for (size_t i = 0; i < tensor->n_bytes / sizeof(float); i++)
		sum += squares ? (double) values[i] * values[i] : values[i];
	return sum;
}

/* PEFT's merge of the same adapter; sums of up to 20,000 weights. */
static void
check_merged(const LlmSafetensors *merged, const char *adapter)
{
	LlmStrbuf text = read_file(VECTORS "merged.json");
	LlmError err;
	cJSON *json = llm_json_parse(text.data, text.len, "merged.json", &err);
	const cJSON *expected;

	cJSON_ArrayForEach(expected, llm_json_get(json, adapter))
	{
		const LlmStoredTensor *tensor =
			llm_safetensors_find(merged, expected->string);
		double sum = cJSON_GetArrayItem(expected, 0)->valuedouble;
		double squares = cJSON_GetArrayItem(expected, 1)->valuedouble;

		/* PEFT does not untie: its merge changes both */
		if (strcmp(expected->string, "model.embed_tokens.weight") == 0)
			continue;
		if (tensor == NULL || tensor->dtype != LLM_DTYPE_F32)
			CHECK_FAIL("no \"%s\" in float32", expected->string);
		else if (fabs(sum_of(tensor, false) - sum) > 1e-3 ||
				 fabs(sum_of(tensor, true) - squares) > 1e-5 * squares)
			CHECK_FAIL("\"%s\": sums %g and %g instead of %g and %g",
					   expected->string, sum_of(tensor, false),
					   sum_of(tensor, true), sum, squares);
	}
	cJSON_Delete(json);
	llm_strbuf_free(&text);
}

/* A merged model has its base's norms, but is another base. */
static void
check_twin(const char *model_dir, const char *merged_dir)
{
	uint8_t of_base[LLM_FINGERPRINT_BYTES];
	uint8_t of_merged[LLM_FINGERPRINT_BYTES];
	LlmModelConfig model;
	LlmError err;

	REQUIRE(llm_model_config_read(model_dir, &model, &err) &&
			llm_model_fingerprint(&model, model_dir, of_base, &err));
	REQUIRE(llm_model_config_read(merged_dir, &model, &err) &&
			llm_model_fingerprint(&model, merged_dir, of_merged, &err));
	CHECK(memcmp(of_base, of_merged, 16) == 0);
	CHECK(llm_model_fingerprint_compare(of_base, of_merged) == LLM_BASE_OTHER);
}

static void
merge_and_check(const char *adapter, const char *model_dir, int n_merged)
{
	LlmAdapterMergeOptions options = { .has_dtype = true,
									   .dtype = LLM_DTYPE_F32,
									   .max_shard_bytes = 50000 };
	LlmAdapterImage *image = import_and_open(adapter, model_dir);
	LlmAdapterMergeReport report;
	LlmSafetensors *merged = NULL;
	LlmModelConfig model;
	LlmError err;
	char out[256];

	snprintf(out, sizeof(out), "%s/out", dir);
	REQUIRE(image != NULL && mkdir(out, 0700) == 0);
	REQUIRE(llm_model_config_read(model_dir, &model, &err));
	if (llm_adapter_merge(image, &model, model_dir, out, &options, &report,
						  &err))
		merged = llm_safetensors_open(out, &err);
	if (merged == NULL)
		CHECK_FAIL("%s: %s", adapter, err.message);
	else
	{
		CHECK_INT_EQ(report.n_merged, n_merged);
		CHECK(report.n_shards > 1);
		CHECK(report.max_change > 0 && report.max_rounding == 0);
		check_merged(merged, adapter);
		/* and it is a model */
		CHECK(llm_model_config_read(out, &model, &err));
		check_twin(model_dir, out);
		CHECK_INT_EQ(model.dtype, LLM_DTYPE_F32);
	}
	llm_safetensors_close(merged);
	llm_adapter_image_close(image);
	remove_exported();
}

static void
merges_are_peft_s(void)
{
	merge_and_check("llama3_patterns", "test/vectors/model/llama3", 15);
	merge_and_check("phi3_dora", "test/vectors/model/phi3", 6);
	merge_and_check("mixtral_stacked", "test/vectors/model/mixtral",
					2 + 2 * 6 * 3);
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
	RUN_TEST(exports_are_what_was_imported);
	RUN_TEST(stacks_become_modules);
	RUN_TEST(exports_for_vllm_are_uniform);
	RUN_TEST(merges_are_peft_s);
	unlink(temp_path("image"));
	unlink(temp_path("bad"));
	rmdir(dir);
	return unit_test_finish();
}
