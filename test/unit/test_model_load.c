/*
 * test_model_load.c
 *	  Unit tests of src/engine/model: weights from files and made up, and
 *	  directories that must be refused.
 *
 * test/unit/test_model_load.c
 */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/util/half_float.h"
#include "test/unit/model_rig.h"

/* ---- weights ---- */

static void
weights_are_used_in_place_unless_narrowed(void)
{
	LlmError err = { 0 };
	LlmModelOptions options = model_options(LLM_DTYPE_BF16);
	const ModelWeight *weight;
	LlmModel *narrowed;
	Rig rig;

	/* stored in f32, wanted in f32 */
	REQUIRE(rig_open(&rig, VECTORS "/linear", NULL, LLM_DTYPE_F32, &err));
	weight = model_weight(rig.model, LLM_WEIGHT_Q, 0);
	CHECK_INT_EQ(weight->owner, WEIGHT_MAPPED);
	CHECK_INT_EQ(weight->dtype, LLM_DTYPE_F32);
	CHECK_INT_EQ(llm_model_weight_bytes(rig.model),
				 llm_model_n_params(&rig.config) * 4);

	/* stored in f32, wanted in bf16: matrices shrink, vectors stay */
	narrowed = llm_model_load(VECTORS "/linear", &rig.config, &options,
							  rig.compute, &err);
	REQUIRE(narrowed != NULL);
	weight = model_weight(narrowed, LLM_WEIGHT_Q, 1);
	CHECK_INT_EQ(weight->owner, WEIGHT_ALLOCATED);
	CHECK_INT_EQ(weight->dtype, LLM_DTYPE_BF16);
	{
		const LlmStoredTensor *stored = llm_checkpoint_find(
			narrowed->tensors, "model.layers.1.self_attn.q_proj.weight");
		const uint16_t *bits = weight->data;

		for (int i = 0; i < 64 * 32; i++)
			CHECK(bits[i] ==
				  llm_float_to_bf16(((const float *) stored->data)[i]));
	}
	weight = model_weight(narrowed, LLM_WEIGHT_Q_BIAS, 1);
	CHECK_INT_EQ(weight->owner, WEIGHT_MAPPED);
	CHECK_INT_EQ(weight->dtype, LLM_DTYPE_F32);
	llm_model_free(narrowed);
	rig_close(&rig);

	/* stored in bf16, wanted in f32: wider would cost and gain nothing */
	options = model_options(LLM_DTYPE_F32);
	REQUIRE(rig_open(&rig, VECTORS "/qwen3", NULL, LLM_DTYPE_F32, &err));
	narrowed = llm_model_load(VECTORS "/qwen3", &rig.config, &options,
							  rig.compute, &err);
	REQUIRE(narrowed != NULL);
	CHECK_INT_EQ(model_weight(narrowed, LLM_WEIGHT_Q, 0)->owner, WEIGHT_MAPPED);
	CHECK_INT_EQ(model_weight(narrowed, LLM_WEIGHT_LM_HEAD, -1)->owner,
				 WEIGHT_BORROWED);
	CHECK(model_weight(narrowed, LLM_WEIGHT_LM_HEAD, -1)->data ==
		  model_weight(narrowed, LLM_WEIGHT_EMBED, -1)->data);
	llm_model_free(narrowed);
	rig_close(&rig);
}

/* Three weights of one tensor, none of them copied. */
static void
rows_of_a_shared_tensor_are_used_in_place(void)
{
	LlmError err = { 0 };
	const LlmStoredTensor *stored;
	const ModelWeight *q;
	const ModelWeight *k;
	const ModelWeight *v;
	Rig rig;

	REQUIRE(rig_open(&rig, VECTORS "/phi3", NULL, LLM_DTYPE_F32, &err));
	stored = llm_checkpoint_find(rig.model->tensors,
								 "model.layers.1.self_attn.qkv_proj.weight");
	q = model_weight(rig.model, LLM_WEIGHT_Q, 1);
	k = model_weight(rig.model, LLM_WEIGHT_K, 1);
	v = model_weight(rig.model, LLM_WEIGHT_V, 1);
	CHECK_INT_EQ(q->owner, WEIGHT_MAPPED);
	CHECK_INT_EQ(v->owner, WEIGHT_MAPPED);
	CHECK(q->data == stored->data);
	CHECK((const char *) k->data ==
		  (const char *) q->data + q->n_rows * q->n_cols * 2);
	CHECK((const char *) v->data ==
		  (const char *) k->data + k->n_rows * k->n_cols * 2);
	CHECK_INT_EQ(llm_model_weight_bytes(rig.model),
				 llm_model_n_params(&rig.config) * 2);
	rig_close(&rig);
}

/* Dummy norms multiply by 1, also where the weight is what comes to 1. */
static void
dummy_norms_do_nothing(void)
{
	static const char *const names[] = { "gemma2", "glm4" };

	for (int i = 0; i < 2; i++)
	{
		LlmModelOptions options = model_options(LLM_DTYPE_F32);
		LlmModelConfig config;
		LlmCompute *compute;
		LlmModel *model;
		LlmError err = { 0 };
		char dir[200];

		snprintf(dir, sizeof(dir), VECTORS "/%s", names[i]);
		REQUIRE(llm_model_config_read(dir, &config, &err));
		compute = open_compute(&config, NULL, LLM_DTYPE_F32, &err);
		REQUIRE(compute != NULL);
		options.dummy_weights = true;
		model = llm_model_load("nowhere", &config, &options, compute, &err);
		REQUIRE(model != NULL);
		for (int role = LLM_WEIGHT_POST_ATTN_NORM;
			 role <= LLM_WEIGHT_POST_MLP_NORM; role++)
		{
			const float *norm =
				model_weight(model, (LlmWeightRole) role, 0)->data;

			CHECK(norm[0] == (config.norm_adds_one ? 0 : 1));
		}
		llm_model_free(model);
		compute->ops->close(compute);
	}
}

static void
dummy_weights_are_near_normal(void)
{
	static float values[40000];
	static float again[40000];
	DummyWeight weight = { .seed = 7, .weight_idx = 3, .dtype = LLM_DTYPE_F32 };
	double sum = 0;
	double squares = 0;

	dummy_weight_fill(&weight, 0, 40000, values);
	for (int i = 0; i < 40000; i++)
	{
		sum += values[i];
		squares += (double) values[i] * values[i];
	}
	/* 4 deviations of the mean of 40,000; deviations within 2 percent */
	CHECK(fabs(sum / 40000) < 4 * 0.02 / 200);
	CHECK(fabs(sqrt(squares / 40000) - 0.02) < 0.0004);
	dummy_weight_fill(&weight, 20000, 20000, again);
	CHECK(memcmp(again, values + 20000, 20000 * sizeof(float)) == 0);
	weight.weight_idx = 4;
	dummy_weight_fill(&weight, 0, 40000, again);
	CHECK(memcmp(again, values, sizeof(values)) != 0);
	weight.is_constant = true;
	weight.constant = 1;
	dummy_weight_fill(&weight, 0, 8, again);
	CHECK(again[0] == 1.0f && again[7] == 1.0f);
}

static void
run_dummy(const LlmModelConfig *config, const char *isa, uint64_t seed,
		  float *logits)
{
	static const int32_t ids[5] = { 5, 6, 7, 8, 9 };
	LlmModelOptions options = model_options(LLM_DTYPE_BF16);
	LlmKvCacheSpec spec = { .n_layers = config->n_layers,
							.n_kv_heads = config->n_kv_heads,
							.head_dim = config->head_dim,
							.block_size = BLOCK_SIZE,
							.n_blocks = N_BLOCKS,
							.dtype = LLM_DTYPE_F32 };
	LlmError err = { 0 };
	Rig rig = { .config = *config };
	Sequence sequence;
	Step step;

	options.dummy_weights = true;
	options.dummy_seed = seed;
	rig.compute = open_compute(config, isa, LLM_DTYPE_F32, &err);
	REQUIRE(rig.compute != NULL);
	rig.model = llm_model_load("nowhere", config, &options, rig.compute, &err);
	REQUIRE(rig.model != NULL);
	CHECK_INT_EQ(llm_model_weight_bytes(rig.model),
				 llm_model_n_params(config) * 2);
	rig.kv = rig.compute->ops->kv_create(rig.compute, &spec, &err);
	REQUIRE(rig.kv != NULL);
	llm_model_set_timing(rig.model, true);
	sequence_init(&rig, &sequence, ids, 5);
	step_init(&step);
	step_add(&step, &sequence, 5, 1);
	CHECK(step_run(&rig, &step, logits));
	CHECK_INT_EQ(llm_model_timing(rig.model)->n_steps, 1);
	rig_close(&rig);
}

static void
dummy_models_follow_from_their_seed(void)
{
	static float first[MAX_VOCAB];
	static float second[MAX_VOCAB];
	LlmModelConfig config;
	LlmError err = { 0 };

	REQUIRE(llm_model_config_read(VECTORS "/qwen3", &config, &err));
	run_dummy(&config, NULL, 1, first);
	run_dummy(&config, NULL, 1, second);
	CHECK(memcmp(first, second, (size_t) config.n_vocab * 4) == 0);
	run_dummy(&config, NULL, 2, second);
	CHECK(memcmp(first, second, (size_t) config.n_vocab * 4) != 0);
	for (int32_t i = 0; i < config.n_vocab; i++)
		CHECK(isfinite(first[i]));
}

/* Sizes that no vector width divides: what is left over must count, too. */
static void
odd_sizes_agree_on_all_instruction_sets(void)
{
	static const char text[] =
		"{\"architectures\": [\"Qwen3ForCausalLM\"], \"vocab_size\": 131,"
		"\"hidden_size\": 101, \"intermediate_size\": 77, \"head_dim\": 18,"
		"\"num_hidden_layers\": 2, \"num_attention_heads\": 6,"
		"\"num_key_value_heads\": 2, \"attention_bias\": true}";
	static float reference[MAX_VOCAB];
	static float logits[MAX_VOCAB];
	LlmModelConfig config;
	LlmError err = { 0 };

	REQUIRE(llm_model_config_parse(text, strlen(text), "odd", &config, &err));
	run_dummy(&config, "portable", 3, reference);
	for (size_t i = 1; i < N_ISAS; i++)
	{
		double error;

		if (!has_isa(isa_names[i]))
			continue;
		run_dummy(&config, isa_names[i], 3, logits);
		error = relative_error(logits, reference, 1, config.n_vocab);
		if (!(error <= 1e-5))
			CHECK_FAIL("%s: error %g", isa_names[i], error);
	}
}

static void
weights_beyond_the_machine_are_refused(void)
{
	static const char text[] =
		"{\"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": 16000000,"
		"\"hidden_size\": 1000000, \"intermediate_size\": 4000000,"
		"\"num_hidden_layers\": 2000, \"num_attention_heads\": 4000}";
	LlmModelConfig tiny = { .n_vocab = 32,
							.hidden_size = 32,
							.intermediate_size = 32,
							.n_heads = 1,
							.head_dim = 32 };
	LlmModelOptions options = model_options(LLM_DTYPE_BF16);
	LlmModelConfig config;
	LlmError err = { 0 };
	LlmCompute *compute = open_compute(&tiny, NULL, LLM_DTYPE_F32, &err);

	REQUIRE(compute != NULL);
	REQUIRE(llm_model_config_parse(text, strlen(text), "huge", &config, &err));
	options.dummy_weights = true;
	CHECK(llm_model_load("", &config, &options, compute, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_NO_MEMORY);
	compute->ops->close(compute);
}

/* ---- directories that a test writes ---- */

static char bad_dir[] = "/tmp/llm_test_model_XXXXXX";

typedef struct FileText
{
	char *data;
	size_t size;
} FileText;

static FileText
read_file(const char *dir, const char *name)
{
	FileText text = { 0 };
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "rb");
	if (file == NULL)
		abort();
	text.data = malloc(1 << 20);
	text.size = fread(text.data, 1, (1 << 20) - 1, file);
	text.data[text.size] = '\0';
	fclose(file);
	return text;
}

static void
write_file(const char *name, const FileText *text)
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", bad_dir, name);
	file = fopen(path, "wb");
	if (file == NULL || fwrite(text->data, 1, text->size, file) != text->size ||
		fclose(file) != 0)
		abort();
}

/* Replace the first "from" by "to" of the same length, or anywhere in text. */
static void
replace(FileText *text, const char *from, const char *to)
{
	size_t n_from = strlen(from);
	size_t n_to = strlen(to);
	char *at = memmem(text->data, text->size, from, n_from);

	if (at == NULL)
	{
		CHECK_FAIL("\"%s\" is not in the file", from);
		return;
	}
	memmove(at + n_to, at + n_from,
			text->size - (size_t) (at - text->data) - n_from + 1);
	memcpy(at, to, n_to);
	text->size += n_to - n_from;
}

static void
clear_bad_dir(void)
{
	DIR *handle = opendir(bad_dir);
	struct dirent *entry;

	while (handle != NULL && (entry = readdir(handle)) != NULL)
	{
		char path[600];

		snprintf(path, sizeof(path), "%s/%s", bad_dir, entry->d_name);
		unlink(path);
	}
	closedir(handle);
}

/* ---- unusual but good files ---- */

static uint64_t
header_bytes(const FileText *weights)
{
	uint64_t n = 0;

	for (int i = 0; i < 8; i++)
		n |= (uint64_t) (unsigned char) weights->data[i] << (8 * i);
	return n;
}

static void
set_header_bytes(FileText *weights, uint64_t n)
{
	for (int i = 0; i < 8; i++)
		weights->data[i] = (char) (n >> (8 * i));
}

/* Insert text into the header, so many bytes before its last brace. */
static void
insert_into_header(FileText *weights, const char *text)
{
	uint64_t n = header_bytes(weights);
	size_t at = 8 + (size_t) n;
	size_t len = strlen(text);

	while (weights->data[at - 1] != '}')
		at--;
	at--;
	memmove(weights->data + at + len, weights->data + at, weights->size - at);
	memcpy(weights->data + at, text, len);
	weights->size += len;
	set_header_bytes(weights, n + len);
}

static void
copy_config(const char *from)
{
	FileText text = read_file(from, "config.json");

	write_file("config.json", &text);
	free(text.data);
}

static void
check_last_logits(Rig *rig, const struct ExpectedPrompt *prompt)
{
	static float logits[MAX_STEP_TOKENS * MAX_VOCAB];
	Sequence sequence;
	Step step;

	sequence_init(rig, &sequence, prompt->ids, prompt->n_ids);
	step_init(&step);
	step_add(&step, &sequence, prompt->n_ids, prompt->n_rows);
	if (step_run(rig, &step, logits))
		CHECK(relative_error(logits, prompt->logits_f32, prompt->n_rows,
							 rig->config.n_vocab) <= 1e-4);
}

static void
misaligned_weights_are_copied(void)
{
	FileText weights = read_file(VECTORS "/llama2", "model.safetensors");
	LlmError err = { 0 };
	Expected expected;
	Rig rig;

	clear_bad_dir();
	copy_config(VECTORS "/llama2");
	insert_into_header(&weights, " ");
	write_file("model.safetensors", &weights);
	free(weights.data);
	REQUIRE(expected_open(&expected, "llama2"));
	if (!rig_open(&rig, bad_dir, NULL, LLM_DTYPE_F32, &err))
		CHECK_FAIL("%s", err.message);
	else
	{
		CHECK_INT_EQ(model_weight(rig.model, LLM_WEIGHT_Q, 0)->owner,
					 WEIGHT_ALLOCATED);
		check_last_logits(&rig, &expected.prompts[2]);
		rig_close(&rig);
	}
	llm_safetensors_close(expected.file);
}

/* Store a tied head once more, with its last byte changed or not. */
static bool
load_with_stored_head(char change, LlmError *err)
{
	FileText weights = read_file(VECTORS "/llama3", "model.safetensors");
	LlmSafetensors *tensors =
		llm_safetensors_open(VECTORS "/llama3/model.safetensors", err);
	const LlmStoredTensor *embedding =
		llm_safetensors_find(tensors, "model.embed_tokens.weight");
	size_t n_data = weights.size - 8 - (size_t) header_bytes(&weights);
	char entry[200];
	Rig rig;
	bool ok;

	memcpy(weights.data + weights.size, embedding->data, embedding->n_bytes);
	weights.size += embedding->n_bytes;
	weights.data[weights.size - 1] ^= change;
	snprintf(entry, sizeof(entry),
			 ",\"lm_head.weight\":{\"dtype\":\"F16\",\"shape\":[%d,%d],"
			 "\"data_offsets\":[%zu,%zu]}",
			 (int) embedding->shape[0], (int) embedding->shape[1], n_data,
			 n_data + embedding->n_bytes);
	insert_into_header(&weights, entry);
	llm_safetensors_close(tensors);
	clear_bad_dir();
	copy_config(VECTORS "/llama3");
	write_file("model.safetensors", &weights);
	free(weights.data);
	ok = rig_open(&rig, bad_dir, NULL, LLM_DTYPE_F32, err);
	if (ok)
		rig_close(&rig);
	return ok;
}

static void
a_stored_tied_head_must_equal_the_embedding(void)
{
	LlmError err = { 0 };

	if (!load_with_stored_head(0, &err))
		CHECK_FAIL("%s", err.message);
	CHECK(!load_with_stored_head(1, &err));
	CHECK(strstr(err.message, "\"lm_head.weight\" differs") != NULL);
}

/* ---- directories that must be refused ---- */

typedef struct BadCase
{
	const char *config_from; /* NULL: no config.json at all */
	const char *config_to;
	const char *weights_from; /* NULL: unchanged */
	const char *weights_to;
	size_t n_cut; /* bytes off the weights' end */
	LlmErrorCode code;
	const char *message[2]; /* both must be in the message */
} BadCase;

#define SAME "vocab_size", "vocab_size"
#define SAME_WEIGHTS NULL, NULL, 0

static const BadCase bad_cases[] = {
	{ NULL, NULL, SAME_WEIGHTS, LLM_ERROR_NOT_FOUND, { "config.json", "" } },
	{ "{", "[", SAME_WEIGHTS, LLM_ERROR_FORMAT, { "config.json", "JSON" } },
	{ "LlamaForCausalLM",
	  "GPT2LMHeadModel",
	  SAME_WEIGHTS,
	  LLM_ERROR_UNSUPPORTED,
	  { "GPT2LMHeadModel", "not supported" } },
	{ "\"hidden_size\": 64",
	  "\"hidden_size\": 64000000000",
	  SAME_WEIGHTS,
	  LLM_ERROR_INVALID,
	  { "hidden_size", "64000000000" } },
	{ "\"num_hidden_layers\": 2",
	  "\"num_hidden_layers\": -2",
	  SAME_WEIGHTS,
	  LLM_ERROR_INVALID,
	  { "num_hidden_layers", "-2" } },
	{ "\"vocab_size\": 256",
	  "\"vocab_size\": 16000000",
	  SAME_WEIGHTS,
	  LLM_ERROR_FORMAT,
	  { "model.embed_tokens.weight", "[16000000, 64]" } },
	{ "\"num_hidden_layers\": 2",
	  "\"num_hidden_layers\": 3",
	  SAME_WEIGHTS,
	  LLM_ERROR_NOT_FOUND,
	  { "model.layers.2.input_layernorm.weight", "missing" } },
	{ "\"num_hidden_layers\": 2",
	  "\"num_hidden_layers\": 1",
	  SAME_WEIGHTS,
	  LLM_ERROR_UNSUPPORTED,
	  { "model.layers.1.", "not part of" } },
	{ "\"tie_word_embeddings\": false",
	  "\"tie_word_embeddings\": true",
	  SAME_WEIGHTS,
	  LLM_ERROR_UNSUPPORTED,
	  { "lm_head.weight", "tie_word_embeddings" } },
	{ "\"attention_bias\": false",
	  "\"attention_bias\": true",
	  SAME_WEIGHTS,
	  LLM_ERROR_NOT_FOUND,
	  { "q_proj.bias", "missing" } },
	{ SAME,
	  NULL,
	  NULL,
	  100,
	  LLM_ERROR_FORMAT,
	  { "model.safetensors: tensor \"", "truncated" } },
	{ SAME,
	  NULL,
	  NULL,
	  230000,
	  LLM_ERROR_FORMAT,
	  { "model.safetensors", "truncated" } },
	{ SAME,
	  "model.norm.weight",
	  "model.morn.weight",
	  0,
	  LLM_ERROR_NOT_FOUND,
	  { "model.norm.weight", "missing" } },
	{ SAME,
	  "\"shape\":[64,128]",
	  "\"shape\":[128,64]",
	  0,
	  LLM_ERROR_FORMAT,
	  { "down_proj.weight", "[128, 64]" } },
	{ SAME,
	  "\"dtype\":\"BF16\"",
	  "\"dtype\":\"I16\" ",
	  0,
	  LLM_ERROR_UNSUPPORTED,
	  { "dtype I16", "tensor" } },
	{ SAME,
	  "BF16",
	  "XX16",
	  0,
	  LLM_ERROR_UNSUPPORTED,
	  { "dtype XX16", "tensor" } },
};

static void
check_bad_case(const BadCase *bad, int case_idx)
{
	FileText config_text = read_file(VECTORS "/llama2", "config.json");
	FileText weights = read_file(VECTORS "/llama2", "model.safetensors");
	LlmError err = { 0 };
	Rig rig;

	clear_bad_dir();
	if (bad->config_from != NULL)
	{
		replace(&config_text, bad->config_from, bad->config_to);
		write_file("config.json", &config_text);
	}
	if (bad->weights_from != NULL)
		replace(&weights, bad->weights_from, bad->weights_to);
	weights.size -= bad->n_cut;
	write_file("model.safetensors", &weights);
	free(config_text.data);
	free(weights.data);
	if (rig_open(&rig, bad_dir, "portable", LLM_DTYPE_F32, &err))
	{
		CHECK_FAIL("case %d was accepted", case_idx);
		rig_close(&rig);
		return;
	}
	if (err.code != (int32_t) bad->code ||
		strstr(err.message, bad->message[0]) == NULL ||
		strstr(err.message, bad->message[1]) == NULL)
		CHECK_FAIL("case %d: code %d, \"%s\"", case_idx, err.code, err.message);
}

static void
bad_directories_are_refused(void)
{
	int n = (int) (sizeof(bad_cases) / sizeof(bad_cases[0]));

	for (int i = 0; i < n; i++)
		check_bad_case(&bad_cases[i], i);
	clear_bad_dir();
}

int
main(void)
{
	if (mkdtemp(bad_dir) == NULL)
		return 1;
	RUN_TEST(weights_are_used_in_place_unless_narrowed);
	RUN_TEST(rows_of_a_shared_tensor_are_used_in_place);
	RUN_TEST(dummy_norms_do_nothing);
	RUN_TEST(dummy_weights_are_near_normal);
	RUN_TEST(dummy_models_follow_from_their_seed);
	RUN_TEST(weights_beyond_the_machine_are_refused);
	RUN_TEST(odd_sizes_agree_on_all_instruction_sets);
	RUN_TEST(misaligned_weights_are_copied);
	RUN_TEST(a_stored_tied_head_must_equal_the_embedding);
	RUN_TEST(bad_directories_are_refused);
	rmdir(bad_dir);
	return unit_test_finish();
}
