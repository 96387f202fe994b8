/*
 * test_gguf_model.c
 *	  GGUF files as models: what a file computes against the model directory
 *	  that it was converted from (test/vectors/gguf/generate.py).
 *
 * A converted model has the same numbers, so the same bits must come out;
 * but for what the converter rounds to single precision (Llama 3's
 * frequencies, longrope's attention factor) and for Gemma 3, whose scale of
 * scores GGUF files cannot say: there transformers' own logits and the usual
 * bound count.
 *
 * test/unit/test_gguf_model.c
 */
#include "test/unit/model_rig.h"

#define GGUF_VECTORS "test/vectors/gguf"

static const struct
{
	const char *file;
	const char *dir;
	bool is_exact;
	double bound;		/* against transformers in f32 */
	LlmBaseMatch match; /* that adapters for the directory find */
} models[] = {
	{ "llama2-bf16", "llama2", true, 1e-4 },
	/* quantized to 1/254 */
	{ "llama2-q8_0", "llama2", false, 3e-2, LLM_BASE_ROUNDED },
	{ "llama3-f16", "llama3", false, 1e-4 },
	{ "linear-f32", "linear", true, 1e-4 },
	{ "qwen3-bf16", "qwen3", true, 1e-4 },
	{ "qwen25_yarn-bf16", "qwen25_yarn", true, 1e-4 },
	/* its q is twice the directory's: GGUF cannot say the scale of scores */
	{ "gemma2-bf16", "gemma2", true, 1e-4, LLM_BASE_OTHER },
	{ "gemma3-f32", "gemma3", false, 1e-4 },
	{ "glm4-bf16", "glm4", true, 1e-4 },
	{ "phi3_longrope-bf16", "phi3_longrope", false, 1e-4 },
	{ "mixtral-bf16", "mixtral", true, 1e-4 },
	{ "qwen3_moe-bf16", "qwen3_moe", true, 1e-4 },
};
#define N_MODELS (sizeof(models) / sizeof(models[0]))

/* Logits of a prompt's last rows. */
static bool
run_prompt(Rig *rig, const struct ExpectedPrompt *prompt, float *logits)
{
	Sequence sequence;
	Step step;

	sequence_init(rig, &sequence, prompt->ids, prompt->n_ids);
	step_init(&step);
	step_add(&step, &sequence, prompt->n_ids, prompt->n_rows);
	return step_run(rig, &step, logits);
}

static void
check_prompts(Rig *converted, Rig *original, const Expected *expected,
			  size_t model_idx)
{
	static float actual[MAX_STEP_TOKENS * MAX_VOCAB];
	static float same[MAX_STEP_TOKENS * MAX_VOCAB];

	for (int i = 0; i < MAX_SEQS; i++)
	{
		const struct ExpectedPrompt *prompt = &expected->prompts[i];
		size_t n = (size_t) prompt->n_rows * (size_t) converted->config.n_vocab;
		double error;

		REQUIRE(converted->config.n_vocab == original->config.n_vocab);
		if (!run_prompt(converted, prompt, actual) ||
			!run_prompt(original, prompt, same))
			return;
		if (models[model_idx].is_exact &&
			memcmp(actual, same, n * sizeof(float)) != 0)
			CHECK_FAIL("%s: logits of prompt %d differ from the directory's",
					   models[model_idx].file, i);
		if (converted->compute->precision != LLM_DTYPE_F32)
			continue;
		error = relative_error(actual, prompt->logits_f32, prompt->n_rows,
							   converted->config.n_vocab);
		if (!(error <= models[model_idx].bound))
			CHECK_FAIL("%s: prompt %d: error %g against f32",
					   models[model_idx].file, i, error);
	}
}

static void
check_model(size_t model_idx, LlmDtype precision)
{
	char path[200];
	char dir[200];
	Expected expected;
	Rig converted = { 0 };
	Rig original = { 0 };
	LlmError err = { 0 };

	snprintf(path, sizeof(path), GGUF_VECTORS "/%s.gguf",
			 models[model_idx].file);
	snprintf(dir, sizeof(dir), VECTORS "/%s", models[model_idx].dir);
	if (!expected_open(&expected, models[model_idx].dir))
		return;
	if (!rig_open(&converted, path, NULL, precision, &err) ||
		!rig_open(&original, dir, NULL, precision, &err))
		CHECK_FAIL("%s: %s", models[model_idx].file, err.message);
	else
		check_prompts(&converted, &original, &expected, model_idx);
	rig_close(&converted);
	rig_close(&original);
	llm_safetensors_close(expected.file);
}

static void
converted_models_compute_the_same_in_f32(void)
{
	for (size_t i = 0; i < N_MODELS; i++)
		check_model(i, LLM_DTYPE_F32);
}

static void
converted_models_compute_the_same_in_bf16(void)
{
	for (size_t i = 0; i < N_MODELS; i++)
		check_model(i, LLM_DTYPE_BF16);
}

/* ---- what adapters know their base by ---- */

/* The converted file is its directory's model, and no other one's. */
static void
fingerprints_survive_conversion(void)
{
	uint8_t of_dir[N_MODELS][LLM_FINGERPRINT_BYTES];
	uint8_t of_file[N_MODELS][LLM_FINGERPRINT_BYTES];
	LlmModelConfig config;
	LlmError err = { 0 };

	for (size_t i = 0; i < N_MODELS; i++)
	{
		char path[200];

		snprintf(path, sizeof(path), VECTORS "/%s", models[i].dir);
		REQUIRE(llm_model_config_read(path, &config, &err) &&
				llm_model_fingerprint(&config, path, of_dir[i], &err));
		snprintf(path, sizeof(path), GGUF_VECTORS "/%s.gguf", models[i].file);
		REQUIRE(llm_model_config_read(path, &config, &err) &&
				llm_model_fingerprint(&config, path, of_file[i], &err));
	}
	for (size_t i = 0; i < N_MODELS; i++)
		for (size_t k = 0; k < N_MODELS; k++)
		{
			LlmBaseMatch match =
				llm_model_fingerprint_compare(of_dir[i], of_file[k]);
			LlmBaseMatch right = strcmp(models[i].dir, models[k].dir) == 0
									 ? models[k].match
									 : LLM_BASE_OTHER;

			if (match != right)
				CHECK_FAIL("%s and %s: %d, not %d", models[i].dir,
						   models[k].file, match, right);
		}
}

/* ---- all block formats, in a file split into pieces ---- */

/* The rig of a file with its matrices decoded to f32, or as they are. */
static bool
open_blocks(Rig *rig, LlmQuantization quantization)
{
	static const char path[] = GGUF_VECTORS "/blocks-00001-of-00003.gguf";
	LlmModelOptions options = model_options(LLM_DTYPE_F32);
	LlmError err = { 0 };

	options.quantization = quantization;
	options.n_threads = 2;
	if (rig_open(rig, path, NULL, LLM_DTYPE_F32, &err))
	{
		llm_model_free(rig->model);
		rig->model =
			llm_model_load(path, &rig->config, &options, rig->compute, &err);
		if (rig->model != NULL)
			return true;
		rig_close(rig);
	}
	CHECK_FAIL("%s: %s", path, err.message);
	return false;
}

static double
blocks_error(Rig *rig, const Expected *expected, int prompt_idx)
{
	static float actual[MAX_STEP_TOKENS * MAX_VOCAB];
	const LlmStoredTensor *ids = find_expected(expected, prompt_idx, "ids");
	const LlmStoredTensor *logits =
		find_expected(expected, prompt_idx, "logits_f32");
	struct ExpectedPrompt prompt = { .ids = ids->data,
									 .n_ids = (int32_t) ids->shape[0],
									 .n_rows = (int32_t) ids->shape[0] };

	if (!run_prompt(rig, &prompt, actual))
		return INFINITY;
	return relative_error(actual, logits->data, prompt.n_rows,
						  rig->config.n_vocab);
}

/*
 * As floats they are what python's gguf package makes of them.  As they are,
 * the inputs of products are rounded to 8 bits, too, and weights of formats
 * without a plain form.
 */
static void
block_formats_compute_what_they_say(void)
{
	Expected expected = { 0 };
	LlmError err = { 0 };
	Rig rig;

	expected.file =
		llm_safetensors_open(GGUF_VECTORS "/blocks.safetensors", &err);
	REQUIRE(expected.file != NULL);
	for (int stored = 0; stored < 2; stored++)
	{
		REQUIRE(open_blocks(&rig, stored ? LLM_QUANTIZATION_NONE
										 : LLM_QUANTIZATION_DECODE));
		for (int i = 0; i < 3; i++)
		{
			double error = blocks_error(&rig, &expected, i);

			if (!(error <= (stored ? 5e-2 : 1e-4)))
				CHECK_FAIL("prompt %d, %s: error %g", i,
						   stored ? "stored" : "decoded", error);
			CHECK(!stored || error > 1e-4);
		}
		rig_close(&rig);
	}
	llm_safetensors_close(expected.file);
}

int
main(void)
{
	RUN_TEST(block_formats_compute_what_they_say);
	RUN_TEST(fingerprints_survive_conversion);
	RUN_TEST(converted_models_compute_the_same_in_f32);
	RUN_TEST(converted_models_compute_the_same_in_bf16);
	return unit_test_finish();
}
