/*
 * test_model_quant.c
 *	  Unit tests of src/engine/model: models with quantized weights.
 *
 * A quantized model differs from the model it was made of in two ways: its
 * weights are rounded, which src/common/quant's tests measure, and so are the
 * inputs of its products.  Here it is held against a twin that has the same
 * rounded weights as floats, so that the second alone is left.
 *
 * test/unit/test_model_quant.c
 */
#include "test/unit/model_rig.h"

static const char *const model_names[] = { "gemma2",   "glm4", "linear",
										   "llama3",   "phi3", "qwen25_yarn",
										   "qwen3_moe" };
#define N_MODELS (sizeof(model_names) / sizeof(model_names[0]))

static const char *const quantization_names[] = { "decode", "none", "int8",
												  "int4" };

static float logits[MAX_STEP_TOKENS * MAX_VOCAB];
static float twin_logits[MAX_STEP_TOKENS * MAX_VOCAB];

/* ---- the twin ---- */

static void
make_float(Rig *rig, ModelWeight *weight)
{
	const LlmComputeOps *ops = rig->compute->ops;
	size_t n = (size_t) (weight->n_rows * weight->n_cols);
	int32_t *ids = calloc((size_t) weight->n_rows, sizeof(*ids));
	LlmError err = { 0 };
	float *floats = ops->alloc(rig->compute, n * sizeof(float), "", &err);
	LlmEmbedArgs args = { .table = { weight->data, weight->dtype,
									 weight->n_rows, weight->n_cols },
						  .token_ids = ids,
						  .out = floats,
						  .n_rows = (int32_t) weight->n_rows,
						  .scale = 1.0f };

	if (ids == NULL || floats == NULL)
		abort();
	for (int32_t i = 0; i < args.n_rows; i++)
		ids[i] = i;
	CHECK(ops->embed(rig->compute, &args, &err));
	if (weight->owner == WEIGHT_ALLOCATED)
		ops->free(rig->compute, (void *) weight->data);
	weight->data = floats;
	weight->dtype = LLM_DTYPE_F32;
	weight->owner = WEIGHT_ALLOCATED;
	free(ids);
}

/* Every quantized weight becomes floats; returns how many there were. */
static int
make_twin(Rig *rig)
{
	LlmModel *model = rig->model;
	ModelWeight *head = model_weight(model, LLM_WEIGHT_LM_HEAD, -1);
	LlmWeightSpec spec;
	int n = 0;

	for (int i = 0; llm_model_weight_spec(&model->config, i, &spec); i++)
	{
		ModelWeight *weight = model_weight_of(model, &spec);

		if (llm_dtype_is_float(weight->dtype))
			continue;
		make_float(rig, weight);
		n++;
		if (spec.expert_idx >= 0)
			model->expert_matrices[weight - model->experts] =
				(LlmMatrix){ weight->data, weight->dtype, weight->n_rows,
							 weight->n_cols };
	}
	if (model->config.tie_word_embeddings)
	{
		*head = *model_weight(model, LLM_WEIGHT_EMBED, -1);
		head->owner = WEIGHT_BORROWED;
	}
	return n;
}

/* ---- models ---- */

static bool
open_quantized(Rig *rig, const char *name, const char *isa,
			   LlmQuantization quantization)
{
	char dir[200];
	LlmError err = { 0 };
	LlmModelOptions options = model_options(LLM_DTYPE_F32);

	snprintf(dir, sizeof(dir), VECTORS "/%s", name);
	if (!rig_open(rig, dir, isa, LLM_DTYPE_F32, &err))
	{
		CHECK_FAIL("%s: %s", name, err.message);
		return false;
	}
	llm_model_free(rig->model);
	options.quantization = quantization;
	options.n_threads = 2;
	rig->model =
		llm_model_load(dir, &rig->config, &options, rig->compute, &err);
	if (rig->model != NULL)
		return true;
	CHECK_FAIL("%s: %s", name, err.message);
	rig_close(rig);
	return false;
}

static bool
run_prompt(Rig *rig, const struct ExpectedPrompt *prompt, float *out)
{
	Sequence sequence;
	Step step;

	sequence_init(rig, &sequence, prompt->ids, prompt->n_ids);
	step_init(&step);
	step_add(&step, &sequence, prompt->n_ids, prompt->n_rows);
	return step_run(rig, &step, out);
}

/*
 * A group's values are rounded to 127 steps on each side, which changes an
 * input by 0.4 % of its size; layers add up.  Weights of 4 bits change the
 * models themselves: random ones, with rows of 32 to 128 elements, very much.
 */
static void
check_model(const char *name, const char *isa, LlmQuantization quantization)
{
	double bound = quantization == LLM_QUANTIZATION_INT8 ? 0.05 : 0.5;
	Expected expected;
	double twin_error = 0;
	double error = 0;
	Rig rig;

	if (!expected_open(&expected, name))
		return;
	if (open_quantized(&rig, name, isa, quantization))
	{
		const struct ExpectedPrompt *prompt = &expected.prompts[0];
		int32_t n_vocab = rig.config.n_vocab;

		CHECK(run_prompt(&rig, prompt, logits));
		CHECK(make_twin(&rig) > rig.config.n_layers);
		CHECK(run_prompt(&rig, prompt, twin_logits));
		twin_error =
			relative_error(logits, twin_logits, prompt->n_rows, n_vocab);
		error =
			relative_error(logits, prompt->logits_f32, prompt->n_rows, n_vocab);
		rig_close(&rig);
	}
	if (!(twin_error > 0 && twin_error < 0.03))
		CHECK_FAIL("%s, %s on %s: error %g against the twin", name,
				   quantization_names[quantization], isa, twin_error);
	if (!(error < bound))
		CHECK_FAIL("%s, %s on %s: error %g", name,
				   quantization_names[quantization], isa, error);
	llm_safetensors_close(expected.file);
}

static void
products_alone_differ_from_the_twin(void)
{
	for (size_t i = 0; i < N_MODELS; i++)
	{
		check_model(model_names[i], "portable", LLM_QUANTIZATION_INT8);
		check_model(model_names[i], "portable", LLM_QUANTIZATION_INT4);
	}
}

/* On every instruction set the same answer, to the bit of the products. */
static void
instruction_sets_agree(void)
{
	LlmError err = { 0 };
	Expected expected;

	REQUIRE(expected_open(&expected, "llama3"));
	for (size_t i = 1; i < N_ISAS; i++)
	{
		LlmQuantization quantization =
			i % 2 == 0 ? LLM_QUANTIZATION_INT8 : LLM_QUANTIZATION_INT4;
		LlmModelConfig config;
		LlmCompute *compute;
		Rig rig;

		REQUIRE(llm_model_config_read(VECTORS "/llama3", &config, &err));
		compute = open_compute(&config, isa_names[i], LLM_DTYPE_F32, &err);
		if (compute == NULL)
		{
			unit_test_skip(isa_names[i], "not supported by this processor");
			continue;
		}
		compute->ops->close(compute);
		REQUIRE(open_quantized(&rig, "llama3", "portable", quantization));
		CHECK(run_prompt(&rig, &expected.prompts[0], logits));
		rig_close(&rig);
		REQUIRE(open_quantized(&rig, "llama3", isa_names[i], quantization));
		CHECK(run_prompt(&rig, &expected.prompts[0], twin_logits));
		/* what is left are float operations, and roundings that they tip */
		CHECK(relative_error(twin_logits, logits, expected.prompts[0].n_rows,
							 rig.config.n_vocab) < 0.02);
		rig_close(&rig);
	}
	llm_safetensors_close(expected.file);
}

/* ---- which weights ---- */

static void
vectors_and_odd_rows_stay_floats(void)
{
	Rig rig;
	size_t n_bytes = 0;
	LlmWeightSpec spec;

	REQUIRE(open_quantized(&rig, "gemma2", NULL, LLM_QUANTIZATION_INT8));
	/* 48 columns are no multiple of a group, 96 are */
	CHECK_INT_EQ(model_weight(rig.model, LLM_WEIGHT_Q, 0)->dtype,
				 rig.config.dtype);
	CHECK_INT_EQ(model_weight(rig.model, LLM_WEIGHT_DOWN, 0)->dtype,
				 LLM_DTYPE_INT8);
	CHECK(llm_dtype_is_float(
		model_weight(rig.model, LLM_WEIGHT_ATTN_NORM, 0)->dtype));
	for (int i = 0; llm_model_weight_spec(&rig.config, i, &spec); i++)
	{
		const ModelWeight *weight = model_weight_of(rig.model, &spec);
		int64_t n = spec.n_rows * (spec.n_cols > 0 ? spec.n_cols : 1);

		n_bytes += llm_dtype_is_float(weight->dtype)
					   ? (size_t) n * llm_dtype_bytes(weight->dtype)
					   : rig.compute->ops->quant_bytes(
							 weight->dtype, spec.n_rows, spec.n_cols);
	}
	CHECK_INT_EQ(llm_model_weight_bytes(rig.model), n_bytes);
	rig_close(&rig);

	REQUIRE(open_quantized(&rig, "qwen3_moe", NULL, LLM_QUANTIZATION_INT4));
	CHECK(llm_dtype_is_float(
		model_weight(rig.model, LLM_WEIGHT_ROUTER, 0)->dtype));
	CHECK_INT_EQ(rig.model->experts[0].dtype, LLM_DTYPE_INT4_K);
	CHECK_INT_EQ(rig.model->expert_matrices[0].dtype, LLM_DTYPE_INT4_K);
	rig_close(&rig);

	REQUIRE(open_quantized(&rig, "llama3", NULL, LLM_QUANTIZATION_NONE));
	CHECK(llm_dtype_is_float(model_weight(rig.model, LLM_WEIGHT_Q, 0)->dtype));
	rig_close(&rig);
}

int
main(void)
{
	RUN_TEST(products_alone_differ_from_the_twin);
	RUN_TEST(instruction_sets_agree);
	RUN_TEST(vectors_and_odd_rows_stay_floats);
	return unit_test_finish();
}
