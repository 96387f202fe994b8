/*
 * test_model.c
 *	  Unit tests of src/engine/model: tiny models of every family against
 *	  what transformers computes with them (test/vectors/model/generate.py),
 *	  and directories that must be refused.
 *
 * Logits are compared row by row: the largest absolute difference of a row,
 * over the largest absolute logit of that row in the reference.
 *
 * test/unit/test_model.c
 */
#include <dirent.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/util/half_float.h"
#include "src/common/util/json.h"
#include "src/engine/model/model_internal.h"
#include "test/unit/unit_test.h"

#define VECTORS "test/vectors/model"

#define MAX_LEN 256
#define BLOCK_SIZE 16
#define MAX_BLOCKS_PER_SEQ (MAX_LEN / BLOCK_SIZE)
#define N_BLOCKS 97 /* prime, so that any stride visits all */
#define MAX_SEQS 4
#define MAX_STEP_TOKENS 128
#define N_GREEDY 48
#define MAX_VOCAB 320

static const char *const model_names[] = { "llama2",  "llama3", "linear",
										   "mistral", "qwen2",	"qwen25_yarn",
										   "qwen3" };
#define N_MODELS (sizeof(model_names) / sizeof(model_names[0]))

static const char *const isa_names[] = { "portable", "avx2", "avx512",
										 "avx512bf16" };
#define N_ISAS (sizeof(isa_names) / sizeof(isa_names[0]))

/* ---- a model with its cache, and sequences in it ---- */

typedef struct Sequence
{
	int32_t ids[MAX_LEN];
	int32_t n_ids;
	int32_t n_computed;
	int32_t block_table[MAX_BLOCKS_PER_SEQ];
} Sequence;

typedef struct Rig
{
	LlmModelConfig config;
	LlmCompute *compute;
	LlmModel *model;
	LlmKvCache *kv;
	int32_t next_block;
} Rig;

static void
rig_close(Rig *rig)
{
	if (rig->kv != NULL)
		rig->compute->ops->kv_free(rig->kv);
	llm_model_free(rig->model);
	if (rig->compute != NULL)
		rig->compute->ops->close(rig->compute);
	memset(rig, 0, sizeof(*rig));
}

static LlmCompute *
open_compute(const LlmModelConfig *config, const char *isa, LlmDtype precision,
			 LlmError *err)
{
	int32_t q_dim = config->n_heads * config->head_dim;
	int32_t widest = config->hidden_size > q_dim ? config->hidden_size : q_dim;
	LlmComputeOptions options = {
		.precision = precision,
		.n_threads = 2,
		.max_rows = MAX_STEP_TOKENS,
		.max_cols = widest > config->intermediate_size
						? widest
						: config->intermediate_size,
		.max_seqs = MAX_SEQS,
		.max_context_len = MAX_LEN,
		.max_heads = config->n_heads,
		.max_vocab = config->n_vocab,
		.isa = isa,
	};

	return llm_compute_cpu_open(&options, err);
}

static LlmModelOptions
model_options(LlmDtype weight_dtype)
{
	LlmModelOptions options = {
		.weight_dtype = weight_dtype,
		.max_model_len = MAX_LEN,
		.max_num_batched_tokens = MAX_STEP_TOKENS,
		.max_logit_rows = MAX_STEP_TOKENS,
	};

	return options;
}

static bool
rig_open(Rig *rig, const char *dir, const char *isa, LlmDtype precision,
		 LlmError *err)
{
	LlmModelOptions options;
	LlmKvCacheSpec spec = { .block_size = BLOCK_SIZE,
							.n_blocks = N_BLOCKS,
							.dtype = precision };

	memset(rig, 0, sizeof(*rig));
	if (!llm_model_config_read(dir, &rig->config, err))
		return false;
	rig->compute = open_compute(&rig->config, isa, precision, err);
	if (rig->compute == NULL)
		return false;
	options = model_options(rig->config.dtype);
	rig->model = llm_model_load(dir, &rig->config, &options, rig->compute, err);
	if (rig->model != NULL)
	{
		spec.n_layers = rig->config.n_layers;
		spec.n_kv_heads = rig->config.n_kv_heads;
		spec.head_dim = rig->config.head_dim;
		rig->kv = rig->compute->ops->kv_create(rig->compute, &spec, err);
	}
	if (rig->kv != NULL)
		return true;
	rig_close(rig);
	return false;
}

/* Blocks are dealt out of order, so that a table is really looked up. */
static void
sequence_init(Rig *rig, Sequence *sequence, const int32_t *ids, int32_t n_ids)
{
	memset(sequence, 0, sizeof(*sequence));
	memcpy(sequence->ids, ids, (size_t) n_ids * sizeof(*ids));
	sequence->n_ids = n_ids;
	for (int i = 0; i < MAX_BLOCKS_PER_SEQ; i++)
		sequence->block_table[i] = (rig->next_block++ * 41 + 5) % N_BLOCKS;
}

typedef struct Step
{
	LlmStepInputs inputs;
	int32_t token_ids[MAX_STEP_TOKENS];
	int32_t positions[MAX_STEP_TOKENS];
	int32_t token_seq[MAX_STEP_TOKENS];
	int32_t query_start[MAX_SEQS + 1];
	int32_t context_len[MAX_SEQS];
	int32_t block_tables[MAX_SEQS * MAX_BLOCKS_PER_SEQ];
	int32_t logit_rows[MAX_STEP_TOKENS];
} Step;

static void
step_init(Step *step)
{
	memset(step, 0, sizeof(*step));
	step->inputs.max_blocks_per_seq = MAX_BLOCKS_PER_SEQ;
	step->inputs.token_ids = step->token_ids;
	step->inputs.positions = step->positions;
	step->inputs.token_seq = step->token_seq;
	step->inputs.query_start = step->query_start;
	step->inputs.context_len = step->context_len;
	step->inputs.block_tables = step->block_tables;
	step->inputs.logit_rows = step->logit_rows;
}

/* Add a sequence's next n tokens; logits of its last n_logits of them. */
static void
step_add(Step *step, Sequence *sequence, int32_t n, int32_t n_logits)
{
	LlmStepInputs *inputs = &step->inputs;
	int32_t s = inputs->n_seqs++;

	for (int32_t i = 0; i < n; i++)
	{
		int32_t at = inputs->n_tokens++;

		step->token_ids[at] = sequence->ids[sequence->n_computed];
		step->positions[at] = sequence->n_computed++;
		step->token_seq[at] = s;
		if (i >= n - n_logits)
			step->logit_rows[inputs->n_logit_rows++] = at;
	}
	step->query_start[s + 1] = inputs->n_tokens;
	step->context_len[s] = sequence->n_computed;
	memcpy(step->block_tables + (size_t) s * MAX_BLOCKS_PER_SEQ,
		   sequence->block_table, sizeof(sequence->block_table));
	if (n > inputs->max_query_len)
		inputs->max_query_len = n;
	if (sequence->n_computed > inputs->max_context_len)
		inputs->max_context_len = sequence->n_computed;
}

/* logits: [n_logit_rows, n_vocab] */
static bool
step_run(Rig *rig, Step *step, float *logits)
{
	const LlmComputeOps *ops = rig->compute->ops;
	LlmStepInputs device;
	float *device_logits;
	LlmError err = { 0 };

	if (ops->step_upload(rig->compute, &step->inputs, &device, &err) &&
		llm_model_forward(rig->model, &device, rig->kv, &device_logits, &err) &&
		ops->sync(rig->compute, &err) &&
		ops->read(rig->compute, logits, device_logits,
				  (size_t) step->inputs.n_logit_rows *
					  (size_t) rig->config.n_vocab * sizeof(float),
				  &err))
		return true;
	CHECK_FAIL("step failed: %s", err.message);
	return false;
}

static int32_t
argmax(const float *row, int32_t n)
{
	int32_t best = 0;

	for (int32_t i = 1; i < n; i++)
	{
		if (row[i] > row[best])
			best = i;
	}
	return best;
}

/* ---- what transformers says ---- */

typedef struct Expected
{
	LlmSafetensors *file;
	struct ExpectedPrompt
	{
		const int32_t *ids;
		int32_t n_ids;
		const float *logits_f32; /* [n_rows, n_vocab] */
		const float *logits_bf16;
		int32_t n_rows;
		const int32_t *greedy; /* [N_GREEDY] */
	} prompts[MAX_SEQS];
} Expected;

static const LlmStoredTensor *
find_expected(const Expected *expected, int prompt_idx, const char *what)
{
	char name[64];

	snprintf(name, sizeof(name), "p%d.%s", prompt_idx, what);
	return llm_safetensors_find(expected->file, name);
}

static bool
expected_open(Expected *expected, const char *model_name)
{
	char path[200];
	LlmError err;

	snprintf(path, sizeof(path), VECTORS "/%s/expected.safetensors",
			 model_name);
	memset(expected, 0, sizeof(*expected));
	expected->file = llm_safetensors_open(path, &err);
	if (expected->file == NULL)
	{
		CHECK_FAIL("%s", err.message);
		return false;
	}
	for (int i = 0; i < MAX_SEQS; i++)
	{
		struct ExpectedPrompt *prompt = &expected->prompts[i];
		const LlmStoredTensor *ids = find_expected(expected, i, "ids");
		const LlmStoredTensor *f32 = find_expected(expected, i, "logits_f32");

		prompt->ids = ids->data;
		prompt->n_ids = (int32_t) ids->shape[0];
		prompt->logits_f32 = f32->data;
		prompt->n_rows = (int32_t) f32->shape[0];
		prompt->logits_bf16 = find_expected(expected, i, "logits_bf16")->data;
		prompt->greedy = find_expected(expected, i, "greedy")->data;
	}
	return true;
}

/* The largest difference of any row, over the row's largest value. */
static double
relative_error(const float *actual, const float *reference, int32_t n_rows,
			   int32_t n_cols)
{
	double worst = 0;

	for (int32_t r = 0; r < n_rows; r++)
	{
		double difference = 0;
		double largest = 0;

		for (int32_t c = 0; c < n_cols; c++)
		{
			double a = actual[(size_t) r * n_cols + c];
			double e = reference[(size_t) r * n_cols + c];

			/* the negation catches NaN */
			if (!(fabs(a - e) <= difference))
				difference = fabs(a - e);
			largest = fmax(largest, fabs(e));
		}
		if (!(difference / largest <= worst))
			worst = difference / largest;
	}
	return worst;
}

static double worst_f32;
static double worst_bf16;

static void
check_logits(Rig *rig, const struct ExpectedPrompt *prompt, const char *name)
{
	static float logits[MAX_STEP_TOKENS * MAX_VOCAB];
	bool is_f32 = rig->compute->precision == LLM_DTYPE_F32;
	double bound = is_f32 ? 1e-4 : 2e-2;
	double error;
	Sequence sequence;
	Step step;

	sequence_init(rig, &sequence, prompt->ids, prompt->n_ids);
	step_init(&step);
	step_add(&step, &sequence, prompt->n_ids, prompt->n_rows);
	if (!step_run(rig, &step, logits))
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
	error = relative_error(logits, prompt->logits_bf16, prompt->n_rows,
						   rig->config.n_vocab);
	worst_bf16 = fmax(worst_bf16, error);
	if (!(error <= bound))
		CHECK_FAIL("%s, %d tokens: error %g against bf16", name, prompt->n_ids,
				   error);
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
			sequence.ids[sequence.n_ids++] =
				argmax(logits, rig->config.n_vocab);
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
				sequences[i].ids[sequences[i].n_ids++] =
					argmax(logits + (size_t) row_of[i] * rig->config.n_vocab,
						   rig->config.n_vocab);
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

/* Whether an instruction set is there: skipped and said so otherwise. */
static bool
has_isa(const char *isa)
{
	LlmModelConfig config = { .n_vocab = 32,
							  .hidden_size = 32,
							  .intermediate_size = 32,
							  .n_heads = 1,
							  .head_dim = 32 };
	LlmError err;
	LlmCompute *compute = open_compute(&config, isa, LLM_DTYPE_F32, &err);

	if (compute == NULL)
	{
		CHECK_INT_EQ(err.code, LLM_ERROR_UNSUPPORTED);
		unit_test_skip(isa, err.message);
		return false;
	}
	compute->ops->close(compute);
	return true;
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
	for (int half = 0; half < 2; half++)
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

			check_logits(&rig, prompt, name);
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
	check_isa(isa_names[0]);
}

static void
avx2_agrees_with_transformers(void)
{
	check_isa(isa_names[1]);
}

static void
avx512_agrees_with_transformers(void)
{
	check_isa(isa_names[2]);
}

static void
avx512bf16_agrees_with_transformers(void)
{
	check_isa(isa_names[3]);
}

/* ---- rotary tables ---- */

static void
check_rope_case(const cJSON *item, int case_idx)
{
	const cJSON *reference = cJSON_GetObjectItem(item, "inv_freq");
	char *text = cJSON_PrintUnformatted(cJSON_GetObjectItem(item, "config"));
	double factor = cJSON_GetObjectItem(item, "attention_factor")->valuedouble;
	int32_t max_len = cJSON_GetObjectItem(item, "max_len")->valueint;
	double inv_freq[LLM_MAX_HEAD_DIM / 2];
	double attention_factor;
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
	model_rope_frequencies(&config, max_len, inv_freq, &attention_factor);
	if (!(fabs(attention_factor - factor) <= 1e-6 * factor))
		CHECK_FAIL("case %d: attention factor %g, expected %g", case_idx,
				   attention_factor, factor);
	for (int i = 0; i < config.rope.rotary_dim / 2; i++)
	{
		double expected = cJSON_GetArrayItem(reference, i)->valuedouble;

		/* the reference computes powers in single precision */
		if (!(fabs(inv_freq[i] - expected) <= 3e-6 * expected))
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
	CHECK(n >= 16);
	cJSON_Delete(cases);
}

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
		const LlmStoredTensor *stored = llm_safetensors_find(
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
	weight.is_norm = true;
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
		check_logits(&rig, &expected.prompts[2], "misaligned");
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
	RUN_TEST(portable_agrees_with_transformers);
	RUN_TEST(avx2_agrees_with_transformers);
	RUN_TEST(avx512_agrees_with_transformers);
	RUN_TEST(avx512bf16_agrees_with_transformers);
	RUN_TEST(rotary_frequencies_agree_with_transformers);
	RUN_TEST(weights_are_used_in_place_unless_narrowed);
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
