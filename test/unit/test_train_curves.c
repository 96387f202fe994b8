/*
 * test_train_curves.c
 *	  Jobs over preferences against TRL's trainers: the losses and rewards of
 *	  all steps, and the gradients of the last one.
 *
 * A job goes on from an adapter that is not nothing, so that its reference is
 * seen to be that adapter and not the base model.
 *
 * test/unit/test_train_curves.c
 */
#include <stdlib.h>

#include "src/engine/train/train_job.h"
#include "test/unit/gradient_sketch.h"
#include "test/unit/model_rig.h"
#include "test/unit/train_values.h"

#define TRAIN_VECTORS "test/vectors/train"
#define RANK 2
#define ALPHA 3.0f
#define MAX_PAIRS 32
#define MAX_ROWS 16
#define MAX_ROW_TOKENS 64

/*
 * Of the loss; of rewards, which are differences of sums of some ten, and
 * begin at nothing; and |difference| / |expected| of a matrix's gradients.
 */
#define LOSS_ERROR 1e-4
#define REWARD_ERROR 1e-4
#define GRADIENT_ERROR 1e-4

/* generate_preference.py's */
typedef struct CurveCase
{
	const char *name;
	LlmDatasetKind kind;
	LlmPreferenceOptions preference;
} CurveCase;

static const CurveCase cases[] = {
	{ "kto",
	  LLM_DATASET_SINGLES,
	  { .beta = 0.3, .desirable_weight = 1, .undesirable_weight = 1.5 } },
	{ "dpo",
	  LLM_DATASET_PAIRS,
	  { .kind = LLM_PREFERENCE_SIGMOID, .beta = 0.2 } },
	{ "hinge",
	  LLM_DATASET_PAIRS,
	  { .kind = LLM_PREFERENCE_HINGE, .beta = 0.3 } },
	{ "ipo", LLM_DATASET_PAIRS, { .kind = LLM_PREFERENCE_IPO, .beta = 0.4 } },
	{ "cdpo",
	  LLM_DATASET_PAIRS,
	  { .kind = LLM_PREFERENCE_SIGMOID,
		.beta = 0.2,
		.label_smoothing = 0.15 } },
	{ "rpo",
	  LLM_DATASET_PAIRS,
	  { .kind = LLM_PREFERENCE_SIGMOID, .beta = 0.2, .ftx = 0.5 } },
	{ "orpo",
	  LLM_DATASET_PAIRS,
	  { .kind = LLM_PREFERENCE_ORPO, .beta = 0.3, .orpo_full_nll = true } },
	{ "simpo",
	  LLM_DATASET_PAIRS,
	  { .kind = LLM_PREFERENCE_SIMPO, .beta = 2, .simpo_gamma = 0.4 } },
};

#define N_CASES ((int) (sizeof(cases) / sizeof(cases[0])))

typedef struct CurveRig
{
	Rig model;
	LlmSafetensors *expected;
	LlmTrainPair pairs[MAX_PAIRS];
	int32_t n_pairs;
	LlmTrainer *trainer;
	LlmStrbuf file;
	LlmDataset *dataset;
	LlmTrainJob *job;
} CurveRig;

static const void *
expected_data(const CurveRig *rig, const char *name, int64_t *n)
{
	const LlmStoredTensor *tensor = llm_safetensors_find(rig->expected, name);

	if (tensor == NULL)
	{
		CHECK_FAIL("no tensor \"%s\" in the vectors", name);
		abort();
	}
	*n = (int64_t) tensor->n_bytes / 4;
	return tensor->data;
}

/* ------------------------------------------------------------------------
 * The rows
 * ------------------------------------------------------------------------
 */
typedef struct Text
{
	int32_t ids[MAX_ROW_TOKENS];
	uint8_t is_label[MAX_ROW_TOKENS];
} Text;

static LlmExample
join(Text *text, const int32_t *prompt, int32_t n_prompt, const int32_t *answer,
	 int32_t n_answer)
{
	for (int32_t i = 0; i < n_prompt + n_answer; i++)
	{
		text->ids[i] = i < n_prompt ? prompt[i] : answer[i - n_prompt];
		text->is_label[i] = i >= n_prompt;
	}
	return (LlmExample){ n_prompt + n_answer, text->ids, text->is_label };
}

static void
make_file(CurveRig *rig, LlmDatasetKind kind)
{
	LlmDatasetWriter writer;
	uint8_t header[LLM_DATASET_HEADER_BYTES] = { 0 };
	LlmError err = { 0 };
	int64_t n_sizes;
	int64_t n_ids;
	const int32_t *sizes = expected_data(rig, "sizes", &n_sizes);
	const int32_t *at = expected_data(rig, "ids", &n_ids);

	llm_dataset_writer_init(&writer, kind);
	llm_strbuf_append(&rig->file, header, sizeof(header));
	for (int64_t i = 0; i < n_sizes; i += 4)
	{
		const int32_t *s = sizes + i;
		Text texts[2];
		LlmDatasetRow row = { .is_desirable = s[3] != 0 };

		row.first = join(&texts[0], at, s[0], at + s[0], s[1]);
		if (s[2] > 0)
			row.second = join(&texts[1], at, s[0], at + s[0] + s[1], s[2]);
		at += s[0] + s[1] + s[2];
		CHECK(llm_dataset_write_row(&writer, &row, &rig->file, &err));
	}
	CHECK(llm_dataset_write_end(&writer, &rig->file, header, &err));
	memcpy(rig->file.data, header, sizeof(header));
	llm_dataset_writer_free(&writer);
}

/* ------------------------------------------------------------------------
 * The adapter
 * ------------------------------------------------------------------------
 */

static int64_t
n_values(const CurveRig *rig)
{
	int64_t n = 0;

	for (int32_t i = 0; i < rig->n_pairs; i++)
		n += llm_trainer_matrix_size(rig->trainer, i, LLM_TRAIN_A) +
			 llm_trainer_matrix_size(rig->trainer, i, LLM_TRAIN_B);
	return n;
}

static void
set_values(CurveRig *rig)
{
	LlmStrbuf state = { 0 };
	LlmError err = { 0 };
	float *at;

	REQUIRE(llm_trainer_save(rig->trainer, &state, &err));
	at = (float *) (state.data + STATE_HEADER_BYTES);
	for (int32_t i = 0; i < 2 * rig->n_pairs; i++)
	{
		const LlmTrainPair *pair = &rig->pairs[i % rig->n_pairs];
		const bool is_b = i >= rig->n_pairs;
		int64_t n = llm_trainer_matrix_size(rig->trainer, i % rig->n_pairs,
											is_b ? LLM_TRAIN_B : LLM_TRAIN_A);
		double scale = is_b ? 0.2 : 2 / sqrt((double) (n / RANK));
		int64_t salt = pair->layer_idx * 100 + (int) pair->module * 10 + is_b;

		at = train_values_fill(at, n, 0, salt, scale);
	}
	CHECK(llm_trainer_load(rig->trainer, state.data, state.len, &err));
	llm_strbuf_free(&state);
}

static void
choose_pairs(CurveRig *rig)
{
	static const LlmAdapterModule modules[] = { LLM_ADAPTER_Q, LLM_ADAPTER_V,
												LLM_ADAPTER_O,
												LLM_ADAPTER_DOWN };

	for (int32_t i = 0; i < 4 * rig->model.config.n_layers; i++)
		rig->pairs[rig->n_pairs++] = (LlmTrainPair){
			.layer_idx = i / 4,
			.module = modules[i % 4],
			.rank = RANK,
			.scale = ALPHA / RANK,
		};
}

/* ------------------------------------------------------------------------
 * Jobs
 * ------------------------------------------------------------------------
 */
static void
rig_free(CurveRig *rig)
{
	llm_train_job_free(rig->job);
	llm_trainer_free(rig->trainer);
	llm_dataset_close(rig->dataset);
	llm_strbuf_free(&rig->file);
	llm_safetensors_close(rig->expected);
	rig_close(&rig->model);
}

static void
open_job(CurveRig *rig, const CurveCase *c)
{
	LlmTrainJobOptions options = {
		.preference = c->preference,
		.batch_size = 6,
		.group_size = 3,
		.n_epochs = 3,
		.disable_shuffling = true,
		.max_tokens = 96,
		.max_segment = 64,
		.rate = { .kind = LLM_RATE_CONSTANT, .learning_rate = 5e-3 },
	};
	LlmTrainOptions train = {
		.pairs = rig->pairs,
		.n_pairs = rig->n_pairs,
		.max_tokens = options.max_tokens,
		.max_segment = options.max_segment,
		.max_logit_rows = 32,
		.beta1 = 0.9,
		.beta2 = 0.999,
		.eps = 1e-8,
		.b_rate_ratio = 1,
	};
	LlmError err = { 0 };
	bool is_done = false;

	rig->trainer = llm_trainer_create(rig->model.model, &train, &err);
	rig->dataset = llm_dataset_open(rig->file.data, rig->file.len,
									rig->model.config.n_vocab, &err);
	if (rig->trainer == NULL || rig->dataset == NULL)
	{
		CHECK_FAIL("%s", err.message);
		abort();
	}
	set_values(rig);
	rig->job =
		llm_train_job_create(rig->trainer, rig->dataset, NULL, &options, &err);
	if (rig->job == NULL)
	{
		CHECK_FAIL("%s", err.message);
		abort();
	}
	while (!is_done)
		REQUIRE(llm_train_job_refer(rig->job, &is_done, &err));
}

static void
rig_make(CurveRig *rig, const CurveCase *c)
{
	char path[256];
	LlmError err = { 0 };

	memset(rig, 0, sizeof(*rig));
	snprintf(path, sizeof(path), TRAIN_VECTORS "/%s.safetensors", c->name);
	rig->expected = llm_safetensors_open(path, &err);
	REQUIRE(rig->expected != NULL);
	REQUIRE(rig_open(&rig->model, VECTORS "/qwen3", NULL, LLM_DTYPE_F32, &err));
	choose_pairs(rig);
	make_file(rig, c->kind);
	open_job(rig, c);
}

/* Where the first moments are. */
static const float *
moments(const CurveRig *rig, const LlmStrbuf *state)
{
	return (const float *) (state->data + STATE_HEADER_BYTES) + n_values(rig);
}

/*
 * The gradients of the step between two states: m' = b m + (1 - b) g.
 */
static void
check_gradients(const CurveRig *rig, const char *name, const LlmStrbuf *before,
				const LlmStrbuf *after)
{
	const float *m0 = moments(rig, before);
	const float *m1 = moments(rig, after);

	for (int32_t i = 0; i < 2 * rig->n_pairs; i++)
	{
		const LlmTrainPair *pair = &rig->pairs[i % rig->n_pairs];
		const bool is_b = i >= rig->n_pairs;
		int64_t n = llm_trainer_matrix_size(rig->trainer, i % rig->n_pairs,
											is_b ? LLM_TRAIN_B : LLM_TRAIN_A);
		float *gradient = malloc((size_t) n * sizeof(float));
		char key[64];
		int64_t n_expected;
		const float *expected;
		double error;

		snprintf(key, sizeof(key), "grad.%d.%s.%s", pair->layer_idx,
				 llm_adapter_module_name(pair->module), is_b ? "B" : "A");
		expected = expected_data(rig, key, &n_expected);
		REQUIRE(n_expected == SKETCH_SUMS && gradient != NULL);
		for (int64_t j = 0; j < n; j++)
			gradient[j] =
				(float) (((double) *m1++ - 0.9 * (double) *m0++) / 0.1);
		error = sketch_error(gradient, n, expected);
		if (!(error <= GRADIENT_ERROR))
			CHECK_FAIL("%s: %s is %.3g off", name, key, error);
		free(gradient);
	}
}

/* What TRL logs; it has no accuracy of singles. */
static void
check_rewards(const char *name, const LlmTrainLog *log, const float *expected)
{
	const double actual[] = { log->rewards.accuracy, log->rewards.chosen,
							  log->rewards.rejected, log->rewards.margin };

	/* answers are as good as each other at first, but for rounding */
	for (int i = log->step == 1 ? 1 : 0; i < 4; i++)
	{
		double size = 1 + fabs((double) expected[i]);

		if (!isnan(expected[i]) &&
			!(fabs(actual[i] - (double) expected[i]) <= REWARD_ERROR * size))
			CHECK_FAIL("%s, step %lld: reward %d is %.7f, not %.7f", name,
					   (long long) log->step, i, actual[i],
					   (double) expected[i]);
	}
}

static void
check_case(const CurveCase *c)
{
	CurveRig rig;
	LlmStrbuf states[2] = { 0 };
	LlmTrainLog log;
	LlmError err = { 0 };
	bool is_done = false;
	int64_t n_steps;
	int64_t n_rewards;
	const float *losses;
	const float *rewards;

	rig_make(&rig, c);
	rewards = expected_data(&rig, "rewards", &n_rewards);
	losses = expected_data(&rig, "losses", &n_steps);
	CHECK_INT_EQ(n_rewards, 4 * n_steps);
	CHECK_INT_EQ(llm_train_job_n_steps(rig.job), n_steps);
	for (int64_t step = 0; step < n_steps; step++)
	{
		if (step == n_steps - 1)
			CHECK(llm_trainer_save(rig.trainer, &states[0], &err));
		REQUIRE(llm_train_job_step(rig.job, &log, &is_done, &err));
		if (!(fabs(log.loss - (double) losses[step]) <=
			  LOSS_ERROR * (double) losses[step]))
			CHECK_FAIL("%s, step %lld: loss %.7f, not %.7f", c->name,
					   (long long) step, log.loss, (double) losses[step]);
		check_rewards(c->name, &log, rewards + 4 * step);
	}
	CHECK(!llm_train_job_step(rig.job, &log, &is_done, &err) && is_done);
	CHECK(llm_trainer_save(rig.trainer, &states[1], &err));
	check_gradients(&rig, c->name, &states[0], &states[1]);
	llm_strbuf_free(&states[0]);
	llm_strbuf_free(&states[1]);
	rig_free(&rig);
}

static void
test_curves(void)
{
	for (int i = 0; i < N_CASES; i++)
		check_case(&cases[i]);
}

int
main(void)
{
	RUN_TEST(test_curves);
	return unit_test_finish();
}
