/*
 * test_model_kv.c
 *	  Whole models with a KV cache of 8-bit codes: logits against those of
 *	  transformers in f32, and no difference between ways to compute them.
 *
 * The models are tiny and their weights random, so attention chooses little
 * and a key's error goes straight through: trained models lose less.
 *
 * test/unit/test_model_kv.c
 */
#include "test/unit/model_rig.h"

static const char *const model_names[] = { "llama3", "qwen3", "gemma2",
										   "mistral", "glm4" };
#define N_MODELS (sizeof(model_names) / sizeof(model_names[0]))

typedef struct Format
{
	LlmDtype dtype;
	double bound; /* of the largest error, over the largest logit */
} Format;

/* e4m3 rounds by up to 2^-4, int8 by 2^-7 of a vector's largest value */
static const Format formats[] = { { LLM_DTYPE_FP8_E4M3, 0.08 },
								  { LLM_DTYPE_INT8, 0.03 } };
#define N_FORMATS (sizeof(formats) / sizeof(formats[0]))

static bool
open_coded(Rig *rig, const char *model_name, const char *isa, LlmDtype dtype)
{
	LlmKvCacheSpec spec = { .block_size = BLOCK_SIZE,
							.n_blocks = N_BLOCKS,
							.dtype = dtype };
	char dir[200];
	LlmError err = { 0 };

	snprintf(dir, sizeof(dir), VECTORS "/%s", model_name);
	if (!rig_open(rig, dir, isa, is_cuda(isa) ? LLM_DTYPE_BF16 : LLM_DTYPE_F32,
				  &err))
	{
		CHECK_FAIL("%s: %s", model_name, err.message);
		return false;
	}
	rig->compute->ops->kv_free(rig->kv);
	spec.n_layers = rig->config.n_layers;
	spec.n_kv_heads = rig->config.n_kv_heads;
	spec.head_dim = rig->config.head_dim;
	rig->kv = rig->compute->ops->kv_create(rig->compute, &spec, &err);
	if (rig->kv != NULL)
		return true;
	CHECK_FAIL("%s: %s", model_name, err.message);
	rig_close(rig);
	return false;
}

/* The prompt's last rows of logits, in chunks of so many tokens. */
static bool
run_chunks(Rig *rig, const struct ExpectedPrompt *prompt, int32_t chunk,
		   float *logits)
{
	int32_t first_row = prompt->n_ids - prompt->n_rows;
	Sequence sequence;

	sequence_init(rig, &sequence, prompt->ids, prompt->n_ids);
	while (sequence.n_computed < prompt->n_ids)
	{
		int32_t left = prompt->n_ids - sequence.n_computed;
		int32_t n = left < chunk ? left : chunk;
		int32_t n_rows = sequence.n_computed + n - first_row;
		Step step;

		n_rows = n_rows < 0 ? 0 : n_rows > n ? n : n_rows;
		step_init(&step);
		step_add(&step, &sequence, n, n_rows);
		if (!step_run(rig, &step, logits))
			return false;
		logits += (int64_t) n_rows * rig->config.n_vocab;
	}
	return true;
}

static double
check_prompt(Rig *rig, const struct ExpectedPrompt *prompt,
			 const Format *format, const char *name)
{
	static float logits[MAX_STEP_TOKENS * MAX_VOCAB];
	static float chunked[MAX_STEP_TOKENS * MAX_VOCAB];
	size_t n_bytes =
		(size_t) prompt->n_rows * (size_t) rig->config.n_vocab * sizeof(float);
	bool is_cpu = rig->compute->activation_dtype == LLM_DTYPE_F32;
	/* a GPU rounds activations besides, see test_model.c */
	double bound = format->bound + (is_cpu ? 0 : 2e-2);
	double error;

	if (!run_chunks(rig, prompt, MAX_STEP_TOKENS, logits) ||
		!run_chunks(rig, prompt, 1, chunked))
		return 0;
	error = fmax(relative_error(logits, prompt->logits_f32, prompt->n_rows,
								rig->config.n_vocab),
				 relative_error(chunked, prompt->logits_f32, prompt->n_rows,
								rig->config.n_vocab));
	if (!(error <= bound))
		CHECK_FAIL("%s, %d tokens: error %g exceeds %g", name, prompt->n_ids,
				   error, bound);
	if (is_cpu && memcmp(logits, chunked, n_bytes) != 0)
		CHECK_FAIL("%s, %d tokens: token by token differs", name,
				   prompt->n_ids);
	return error;
}

static void
check_isa(const char *isa)
{
	for (size_t f = 0; f < N_FORMATS; f++)
	{
		double worst = 0;

		for (size_t m = 0; m < N_MODELS; m++)
		{
			Expected expected;
			Rig rig;

			if (!expected_open(&expected, model_names[m]))
				return;
			if (open_coded(&rig, model_names[m], isa, formats[f].dtype))
			{
				for (int i = 0; i < MAX_SEQS; i++)
					worst =
						fmax(worst, check_prompt(&rig, &expected.prompts[i],
												 &formats[f], model_names[m]));
				rig_close(&rig);
			}
			llm_safetensors_close(expected.file);
		}
		fprintf(stderr, "%s: logits within %.1e with a cache of %s\n", isa,
				worst, llm_dtype_name(formats[f].dtype));
	}
}

static void
codes_keep_logits(void)
{
	for (size_t i = 0; i < N_ISAS; i++)
		if (has_isa(isa_names[i]))
			check_isa(isa_names[i]);
}

static void
codes_keep_logits_on_cuda(void)
{
	if (has_isa("cuda"))
		check_isa("cuda");
}

int
main(void)
{
	RUN_TEST(codes_keep_logits);
	RUN_TEST(codes_keep_logits_on_cuda);
	return unit_test_finish();
}
