/*
 * test_model.c
 *	  Unit tests of src/engine/model: tiny models of every family against
 *	  what transformers computes with them (test/vectors/model/generate.py).
 *
 * Logits are compared row by row: the largest absolute difference of a row,
 * over the largest absolute logit of that row in the reference.
 *
 * test/unit/test_model.c
 */
#include "src/common/util/json.h"
#include "test/unit/model_rig.h"

static const char *const model_names[] = {
	"dynamic",		  "gemma",		 "gemma2",		  "gemma3",
	"gemma3_vision",  "glm",		 "glm4",		  "linear",
	"llama2",		  "llama3",		 "longrope",	  "mistral",
	"mixtral",		  "phi3",		 "phi3_longrope", "phi4_mini",
	"qwen2",		  "qwen25_yarn", "qwen3",		  "qwen3_moe",
	"qwen3_moe_step", "yarn",
};
#define N_MODELS (sizeof(model_names) / sizeof(model_names[0]))

static double worst_f32;
static double worst_bf16;

/* The prompt at once, or its last rows one by one, as decoding does. */
static bool
run_prompt(Rig *rig, const struct ExpectedPrompt *prompt, bool one_by_one,
		   float *logits)
{
	Sequence sequence;
	Step step;

	sequence_init(rig, &sequence, prompt->ids, prompt->n_ids);
	step_init(&step);
	if (!one_by_one)
	{
		step_add(&step, &sequence, prompt->n_ids, prompt->n_rows);
		return step_run(rig, &step, logits);
	}
	if (prompt->n_ids > prompt->n_rows)
	{
		step_add(&step, &sequence, prompt->n_ids - prompt->n_rows, 0);
		if (!step_run(rig, &step, logits))
			return false;
	}
	for (int i = 0; i < prompt->n_rows; i++)
	{
		step_init(&step);
		step_add(&step, &sequence, 1, 1);
		if (!step_run(rig, &step, logits + (size_t) i * rig->config.n_vocab))
			return false;
	}
	return true;
}

static void
check_logits(Rig *rig, const struct ExpectedPrompt *prompt, bool one_by_one,
			 const char *name)
{
	static float logits[MAX_STEP_TOKENS * MAX_VOCAB];
	bool is_f32 = rig->compute->precision == LLM_DTYPE_F32;
	double bound = is_f32 ? 1e-4 : 2e-2;
	double error;

	if (!run_prompt(rig, prompt, one_by_one, logits))
		return;
	error = relative_error(logits, prompt->logits_f32, prompt->n_rows,
						   rig->config.n_vocab);
	if (!(error <= bound))
		CHECK_FAIL("%s, %d tokens: error %g against f32", name, prompt->n_ids,
				   error);
	if (is_f32)
	{
		worst_f32 = fmax(worst_f32, error);
		return;
	}
	worst_bf16 = fmax(worst_bf16, error);
	/*
	 * A GPU rounds all activations, as the reference does, but other sums:
	 * the two err in ways of their own, and only f32 tells how far.
	 */
	if (rig->compute->activation_dtype == LLM_DTYPE_BF16)
		return;
	error = relative_error(logits, prompt->logits_bf16, prompt->n_rows,
						   rig->config.n_vocab);
	worst_bf16 = fmax(worst_bf16, error);
	if (!(error <= bound))
		CHECK_FAIL("%s, %d tokens: error %g against bf16", name, prompt->n_ids,
				   error);
}

/* Logits that the whole way there has led to, as generate has them. */
static void
check_end(const Rig *rig, const struct ExpectedPrompt *prompt,
		  const float *logits, const char *name)
{
	double error;

	CHECK((prompt->logits_end != NULL) ==
		  llm_rope_depends_on_length(&rig->config.rope));
	if (prompt->logits_end == NULL)
		return;
	error = relative_error(logits, prompt->logits_end, 1, rig->config.n_vocab);
	if (!(error <= 1e-4))
		CHECK_FAIL("%s, %d tokens: error %g after generation", name,
				   prompt->n_ids, error);
}

/* One sequence alone; its prompt in chunks of so many tokens. */
static void
check_greedy_alone(Rig *rig, const struct ExpectedPrompt *prompt, int32_t chunk,
				   const char *name)
{
	static float logits[MAX_VOCAB];
	int32_t n_end = prompt->n_ids + N_GREEDY;
	Sequence sequence;

	sequence_init(rig, &sequence, prompt->ids, prompt->n_ids);
	while (sequence.n_ids < n_end)
	{
		int32_t n = sequence.n_ids - sequence.n_computed;
		bool is_complete = n <= chunk;
		Step step;

		step_init(&step);
		step_add(&step, &sequence, is_complete ? n : chunk, is_complete);
		if (!step_run(rig, &step, logits))
			return;
		if (is_complete)
			sequence_push(rig, &sequence, argmax(logits, rig->config.n_vocab));
	}
	for (int i = 0; i < N_GREEDY; i++)
	{
		if (sequence.ids[prompt->n_ids + i] != prompt->greedy[i])
		{
			CHECK_FAIL("%s, %d tokens in chunks of %d: greedy token %d is %d, "
					   "expected %d",
					   name, prompt->n_ids, chunk, i,
					   sequence.ids[prompt->n_ids + i], prompt->greedy[i]);
			return;
		}
	}
	check_end(rig, prompt, logits, name);
}

/*
 * All prompts in one batch: each joins a few steps after the one before it,
 * so that some prefill while others decode, and leaves when it is done.
 */
static void
check_greedy_batched(Rig *rig, const Expected *expected, const char *name)
{
	static float logits[MAX_SEQS * MAX_VOCAB];
	Sequence sequences[MAX_SEQS];
	int n_done = 0;

	for (int i = 0; i < MAX_SEQS; i++)
		sequence_init(rig, &sequences[i], expected->prompts[i].ids,
					  expected->prompts[i].n_ids);
	for (int n_steps = 0; n_done < MAX_SEQS; n_steps++)
	{
		int row_of[MAX_SEQS];
		int n_rows = 0;
		Step step;

		step_init(&step);
		n_done = 0;
		for (int i = 0; i < MAX_SEQS; i++)
		{
			Sequence *sequence = &sequences[i];
			int32_t n = sequence->n_ids - sequence->n_computed;
			bool is_complete = n <= 16;

			row_of[i] = -1;
			if (sequence->n_ids == expected->prompts[i].n_ids + N_GREEDY)
				n_done++;
			else if (n_steps >= 3 * i)
			{
				step_add(&step, sequence, is_complete ? n : 16, is_complete);
				row_of[i] = is_complete ? n_rows++ : -1;
			}
		}
		if (step.inputs.n_tokens > 0 && !step_run(rig, &step, logits))
			return;
		for (int i = 0; i < MAX_SEQS; i++)
		{
			if (row_of[i] >= 0)
				sequence_push(
					rig, &sequences[i],
					argmax(logits + (size_t) row_of[i] * rig->config.n_vocab,
						   rig->config.n_vocab));
		}
	}
	for (int i = 0; i < MAX_SEQS; i++)
	{
		const struct ExpectedPrompt *prompt = &expected->prompts[i];

		if (memcmp(sequences[i].ids + prompt->n_ids, prompt->greedy,
				   N_GREEDY * sizeof(int32_t)) != 0)
			CHECK_FAIL("%s: batched greedy tokens of prompt %d differ", name,
					   i);
	}
}

static void
check_model(const char *model_name, const char *isa)
{
	char dir[200];
	char name[64];
	Expected expected;
	LlmError err;
	Rig rig;

	snprintf(dir, sizeof(dir), VECTORS "/%s", model_name);
	snprintf(name, sizeof(name), "%s on %s", model_name, isa);
	if (!expected_open(&expected, model_name))
		return;
	/* a GPU computes in bf16 alone */
	for (int half = is_cuda(isa); half < 2; half++)
	{
		if (!rig_open(&rig, dir, isa, half ? LLM_DTYPE_BF16 : LLM_DTYPE_F32,
					  &err))
		{
			CHECK_FAIL("%s: %s", name, err.message);
			break;
		}
		for (int i = 0; i < MAX_SEQS; i++)
		{
			const struct ExpectedPrompt *prompt = &expected.prompts[i];

			check_logits(&rig, prompt, false, name);
			/* where rotations depend on the length, the way there does, too */
			if (!llm_rope_depends_on_length(&rig.config.rope))
				check_logits(&rig, prompt, true, name);
			if (half)
				continue;
			check_greedy_alone(&rig, prompt, MAX_STEP_TOKENS, name);
			check_greedy_alone(&rig, prompt, 7, name);
		}
		if (!half)
			check_greedy_batched(&rig, &expected, name);
		rig_close(&rig);
	}
	llm_safetensors_close(expected.file);
}

static void
check_isa(const char *isa)
{
	if (!has_isa(isa))
		return;
	worst_f32 = worst_bf16 = 0;
	for (size_t i = 0; i < N_MODELS; i++)
		check_model(model_names[i], isa);
	fprintf(stderr, "%s: logits within %.1e (f32), %.1e (bf16)\n", isa,
			worst_f32, worst_bf16);
}

static void
portable_agrees_with_transformers(void)
{
	check_isa("portable");
}

static void
avx2_agrees_with_transformers(void)
{
	check_isa("avx2");
}

static void
avx512_agrees_with_transformers(void)
{
	check_isa("avx512");
}

static void
avx512bf16_agrees_with_transformers(void)
{
	check_isa("avx512bf16");
}

static void
cuda_agrees_with_transformers(void)
{
	check_isa("cuda");
}

/* ---- recorded passes ---- */

#define N_DECODING 3 /* less than the size that a step is brought to */
#define N_DECODED 6

/* The first pass runs as it is, the second is recorded, others are replayed. */
static void
check_replay(Rig *rig, const Step *step, bool is_wanted, const char *name)
{
	const LlmComputeOps *ops = rig->compute->ops;
	bool is_replayed = false;
	LlmStepInputs device;
	LlmError err;

	REQUIRE(ops->pass_begin != NULL);
	CHECK(ops->step_upload(rig->compute, &step->inputs, &device, &err));
	CHECK(
		ops->pass_begin(rig->compute, rig->model, rig->kv, &is_replayed, &err));
	if (!is_replayed)
		CHECK(ops->pass_end(rig->compute, true, &err));
	CHECK(ops->sync(rig->compute, &err));
	if (is_replayed != is_wanted)
		CHECK_FAIL("%s: a pass is %s", name,
				   is_replayed ? "replayed" : "not replayed");
}

/*
 * Sequences decode together, the first after so many tokens.  logits:
 * [N_DECODED, N_DECODING, n_vocab]
 */
static bool
decode_batch(Rig *rig, const Expected *expected, int32_t n_first, Step *step,
			 float *logits)
{
	Sequence sequences[N_DECODING];
	int32_t ids[MAX_LEN];

	for (int32_t s = 0; s < N_DECODING; s++)
	{
		const struct ExpectedPrompt *prompt = &expected->prompts[s];
		int32_t n_before = s == 0 ? n_first : 20 + s;
		int32_t n;

		for (int32_t i = 0; i < MAX_LEN; i++)
			ids[i] = prompt->ids[i % prompt->n_ids];
		sequence_init(rig, &sequences[s], ids, n_before + N_DECODED);
		for (int32_t left = n_before; left > 0; left -= n)
		{
			n = left < MAX_STEP_TOKENS ? left : MAX_STEP_TOKENS;
			step_init(step);
			step_add(step, &sequences[s], n, 0);
			if (!step_run(rig, step, logits))
				return false;
		}
	}
	for (int32_t i = 0; i < N_DECODED; i++)
	{
		step_init(step);
		for (int32_t s = 0; s < N_DECODING; s++)
			step_add(step, &sequences[s], 1, 1);
		if (!step_run(rig, step,
					  logits + (size_t) i * N_DECODING *
								   (size_t) rig->config.n_vocab))
			return false;
	}
	return true;
}

static void
check_recorded(const char *model_name)
{
	/* contexts in one piece, and in several */
	static const int32_t n_first[] = { 30, 400 };
	static float logits[2][N_DECODED * N_DECODING * MAX_VOCAB];
	static Step step;
	char dir[200];
	Expected expected;
	LlmError err;
	Rig rigs[2];

	snprintf(dir, sizeof(dir), VECTORS "/%s", model_name);
	if (!expected_open(&expected, model_name))
		return;
	REQUIRE(rig_open(&rigs[0], dir, "cuda", LLM_DTYPE_BF16, &err));
	REQUIRE(rig_open(&rigs[1], dir, "cuda eager", LLM_DTYPE_BF16, &err));
	for (size_t i = 0; i < sizeof(n_first) / sizeof(n_first[0]); i++)
	{
		size_t n_bytes = (size_t) (N_DECODED * N_DECODING) *
						 (size_t) rigs[0].config.n_vocab * sizeof(float);

		for (int r = 0; r < 2; r++)
		{
			if (decode_batch(&rigs[r], &expected, n_first[i], &step, logits[r]))
				check_replay(&rigs[r], &step, r == 0, model_name);
		}
		if (memcmp(logits[0], logits[1], n_bytes) != 0)
			CHECK_FAIL("%s: recorded passes give other logits after %d tokens",
					   model_name, n_first[i]);
	}
	for (int r = 0; r < 2; r++)
		rig_close(&rigs[r]);
	llm_safetensors_close(expected.file);
}

static void
cuda_graphs_change_no_bit(void)
{
	if (!has_isa("cuda"))
		return;
	for (size_t i = 0; i < N_MODELS; i++)
		check_recorded(model_names[i]);
}

/* ---- rotary tables ---- */

static void
check_rope_case(const cJSON *item, int case_idx)
{
	const cJSON *reference = cJSON_GetObjectItem(item, "inv_freq");
	char *text = cJSON_PrintUnformatted(cJSON_GetObjectItem(item, "config"));
	double factor = cJSON_GetObjectItem(item, "attention_factor")->valuedouble;
	int32_t max_len = cJSON_GetObjectItem(item, "max_len")->valueint;
	float inv_freq[LLM_MAX_HEAD_DIM / 2];
	float attention_factor;
	LlmModelConfig config;
	LlmError err = { 0 };
	bool ok = llm_model_config_parse(text, strlen(text), "case", &config, &err);

	cJSON_free(text);
	if (!ok)
	{
		CHECK_FAIL("case %d: %s", case_idx, err.message);
		return;
	}
	CHECK_INT_EQ(cJSON_GetArraySize(reference), config.rope.rotary_dim / 2);
	model_rope_frequencies(&config.rope, max_len, inv_freq, &attention_factor);
	if (!(fabs(attention_factor - factor) <= 1e-6 * factor))
		CHECK_FAIL("case %d: attention factor %g, expected %g", case_idx,
				   attention_factor, factor);
	for (int i = 0; i < config.rope.rotary_dim / 2; i++)
	{
		double expected = cJSON_GetArrayItem(reference, i)->valuedouble;

		/* two units in the last place */
		if (!(fabs(inv_freq[i] - expected) <= 2.4e-7 * expected))
		{
			CHECK_FAIL("case %d: frequency %d is %.9g, expected %.9g", case_idx,
					   i, inv_freq[i], expected);
			return;
		}
	}
}

static void
rotary_frequencies_agree_with_transformers(void)
{
	LlmError err = { 0 };
	cJSON *cases = llm_json_parse_file(VECTORS "/rope.json", 1 << 20, &err);
	const cJSON *item;
	int n = 0;

	REQUIRE(cases != NULL);
	cJSON_ArrayForEach(item, cases) check_rope_case(item, n++);
	CHECK(n >= 23);
	cJSON_Delete(cases);
}

int
main(void)
{
	RUN_TEST(portable_agrees_with_transformers);
	RUN_TEST(avx2_agrees_with_transformers);
	RUN_TEST(avx512_agrees_with_transformers);
	RUN_TEST(avx512bf16_agrees_with_transformers);
	RUN_TEST(cuda_agrees_with_transformers);
	RUN_TEST(cuda_graphs_change_no_bit);
	RUN_TEST(rotary_frequencies_agree_with_transformers);
	return unit_test_finish();
}
