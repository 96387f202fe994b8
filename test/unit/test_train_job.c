/*
 * test_train_job.c
 *	  Datasets, preference losses, learning rates, and jobs over them.
 *
 * test/unit/test_train_job.c
 */
#include "src/common/util/json.h"
#include "src/engine/train/train_job.h"
#include "test/unit/model_rig.h"

#define TRAIN_VECTORS "test/vectors/train"

/* ------------------------------------------------------------------------
 * Numbers from torch and transformers
 * ------------------------------------------------------------------------
 */
static double
number(const cJSON *object, const char *key)
{
	const cJSON *item = llm_json_get(object, key);

	if (!cJSON_IsNumber(item))
	{
		CHECK_FAIL("no number \"%s\"", key);
		return NAN;
	}
	return item->valuedouble;
}

static bool
is_near(double actual, double expected)
{
	return fabs(actual - expected) <= 1e-9 * fabs(expected) + 1e-15;
}

static void
check_loss(const cJSON *c)
{
	const cJSON *p = llm_json_get(c, "pair");
	const char *kind = cJSON_GetStringValue(llm_json_get(c, "kind"));
	LlmPreferenceOptions options = {
		.beta = number(c, "beta"),
		.label_smoothing = number(c, "label_smoothing"),
		.simpo_gamma = number(c, "simpo_gamma"),
		.ftx = number(c, "ftx"),
	};
	LlmPreferencePair pair = {
		.chosen = cJSON_GetArrayItem(p, 0)->valuedouble,
		.rejected = cJSON_GetArrayItem(p, 1)->valuedouble,
		.ref_chosen = cJSON_GetArrayItem(p, 2)->valuedouble,
		.ref_rejected = cJSON_GetArrayItem(p, 3)->valuedouble,
		.n_chosen = cJSON_GetArrayItem(p, 4)->valueint,
		.n_rejected = cJSON_GetArrayItem(p, 5)->valueint,
	};
	LlmPreferenceResult result;

	REQUIRE(llm_preference_kind_parse(kind, &options.kind));
	result = llm_preference_loss(&options, &pair);
	if (!is_near(result.loss, number(c, "loss")) ||
		!is_near(result.d_chosen, number(c, "d_chosen")) ||
		!is_near(result.d_rejected, number(c, "d_rejected")))
		CHECK_FAIL("%s: %.12g, %.12g, %.12g", kind, result.loss,
				   result.d_chosen, result.d_rejected);
}

static void
test_preference_losses(void)
{
	LlmError err = { 0 };
	cJSON *cases =
		llm_json_parse_file(TRAIN_VECTORS "/losses.json", 1 << 20, &err);
	const cJSON *c;
	LlmPreferenceKind kind;

	REQUIRE(cases != NULL);
	CHECK(cJSON_GetArraySize(cases) >= 30);
	cJSON_ArrayForEach(c, cases) check_loss(c);
	cJSON_Delete(cases);
	CHECK(!llm_preference_kind_parse("ppo", &kind));
}

static void
check_rates(const cJSON *c)
{
	const cJSON *extra = llm_json_get(c, "extra");
	const char *kind = cJSON_GetStringValue(llm_json_get(c, "kind"));
	LlmRateOptions options = {
		.learning_rate = 3e-4,
		.n_steps = (int64_t) number(c, "n_steps"),
		.n_warmup_steps = (int64_t) number(c, "n_warmup"),
		.n_cycles = strcmp(kind, "cosine_with_restarts") == 0 ? 3 : 0.5,
		.end_rate = 1e-7,
		.power = 1,
	};
	const cJSON *rate;
	int64_t step = 0;
	LlmError err = { 0 };

	CHECK(llm_rate_kind_parse(kind, &options.kind));
	CHECK(llm_json_get_double(extra, "min_lr_rate", &options.min_rate, &err));
	CHECK(llm_json_get_double(extra, "power", &options.power, &err));
	cJSON_ArrayForEach(rate, llm_json_get(c, "rates"))
	{
		double actual = llm_learning_rate(&options, step);

		if (!is_near(actual, rate->valuedouble))
			CHECK_FAIL("%s, step %lld: %.12g, not %.12g", kind,
					   (long long) step, actual, rate->valuedouble);
		step++;
	}
}

static void
test_learning_rates(void)
{
	LlmError err = { 0 };
	cJSON *cases =
		llm_json_parse_file(TRAIN_VECTORS "/rates.json", 1 << 20, &err);
	const cJSON *c;
	LlmRateKind kind;

	REQUIRE(cases != NULL);
	CHECK(cJSON_GetArraySize(cases) >= 10);
	cJSON_ArrayForEach(c, cases) check_rates(c);
	cJSON_Delete(cases);
	CHECK(!llm_rate_kind_parse("sometimes", &kind));
}

/* ------------------------------------------------------------------------
 * Datasets
 * ------------------------------------------------------------------------
 */
#define N_VOCAB 256
#define MAX_EXAMPLE 40

/* Row i's texts: lengths and ids that differ from row to row. */
typedef struct RowText
{
	int32_t ids[2][MAX_EXAMPLE];
	uint8_t is_label[2][MAX_EXAMPLE];
	LlmDatasetRow row;
} RowText;

static LlmExample
fill_example(RowText *text, int which, int32_t i)
{
	int32_t n = 4 + (i * 7 + which * 5) % 30;

	for (int32_t t = 0; t < n; t++)
	{
		text->ids[which][t] = 3 + (i * 31 + t * t * 3 + which * 17) % 250;
		text->is_label[which][t] = t >= n / 2;
	}
	return (LlmExample){ n, text->ids[which], text->is_label[which] };
}

static void
fill_row(RowText *text, LlmDatasetKind kind, int32_t i)
{
	memset(text, 0, sizeof(*text));
	text->row.first = fill_example(text, 0, i);
	if (kind == LLM_DATASET_PAIRS)
		text->row.second = fill_example(text, 1, i);
	text->row.is_desirable = kind == LLM_DATASET_SINGLES && i % 3 != 1;
}

/* A whole file; the caller frees it. */
static LlmStrbuf
make_file(LlmDatasetKind kind, int32_t n_rows)
{
	LlmDatasetWriter writer;
	LlmStrbuf file = { 0 };
	uint8_t header[LLM_DATASET_HEADER_BYTES] = { 0 };
	LlmError err = { 0 };

	llm_dataset_writer_init(&writer, kind);
	llm_strbuf_append(&file, header, sizeof(header));
	for (int32_t i = 0; i < n_rows; i++)
	{
		RowText text;

		fill_row(&text, kind, i);
		CHECK(llm_dataset_write_row(&writer, &text.row, &file, &err));
	}
	CHECK(llm_dataset_write_end(&writer, &file, header, &err));
	memcpy(file.data, header, sizeof(header));
	llm_dataset_writer_free(&writer);
	return file;
}

static void
check_example(const LlmExample *actual, const LlmExample *expected)
{
	REQUIRE(actual->n_tokens == expected->n_tokens);
	CHECK(memcmp(actual->token_ids, expected->token_ids,
				 (size_t) expected->n_tokens * sizeof(int32_t)) == 0);
	CHECK(memcmp(actual->is_label, expected->is_label,
				 (size_t) expected->n_tokens) == 0);
}

static void
test_dataset(void)
{
	for (int kind = LLM_DATASET_PLAIN; kind <= LLM_DATASET_SINGLES; kind++)
	{
		LlmStrbuf file = make_file((LlmDatasetKind) kind, 9);
		LlmError err = { 0 };
		LlmDataset *dataset =
			llm_dataset_open(file.data, file.len, N_VOCAB, &err);

		REQUIRE(dataset != NULL);
		CHECK_INT_EQ(llm_dataset_kind(dataset), kind);
		CHECK_INT_EQ(llm_dataset_n_rows(dataset), 9);
		for (int32_t i = 0; i < 9; i++)
		{
			LlmDatasetRow row = llm_dataset_row(dataset, i);
			RowText text;

			fill_row(&text, (LlmDatasetKind) kind, i);
			check_example(&row.first, &text.row.first);
			CHECK_INT_EQ(row.second.n_tokens, text.row.second.n_tokens);
			CHECK_INT_EQ(row.is_desirable, text.row.is_desirable);
			if (kind == LLM_DATASET_PAIRS)
				check_example(&row.second, &text.row.second);
		}
		llm_dataset_close(dataset);
		llm_strbuf_free(&file);
	}
}

/* Every byte and every length: accepted as something valid, or refused. */
static void
check_damaged(LlmDatasetKind kind)
{
	LlmStrbuf file = make_file(kind, 3);
	LlmError err = { 0 };
	int n_refused = 0;

	for (size_t n = 0; n < file.len; n++)
	{
		char *copy = malloc(n + 1);

		memcpy(copy, file.data, n);
		CHECK(llm_dataset_open(copy, n, N_VOCAB, &err) == NULL);
		free(copy);
	}
	for (size_t i = 0; i < file.len * 8; i++)
	{
		LlmDataset *dataset;

		file.data[i / 8] ^= (char) (1 << i % 8);
		dataset = llm_dataset_open(file.data, file.len, N_VOCAB, &err);
		n_refused += dataset == NULL;
		for (int32_t r = 0; dataset != NULL && r < 3; r++)
		{
			LlmDatasetRow row = llm_dataset_row(dataset, r);

			CHECK(llm_example_n_labels(&row.first) > 0);
		}
		llm_dataset_close(dataset);
		file.data[i / 8] ^= (char) (1 << i % 8);
	}
	CHECK(n_refused > (int) file.len);
	llm_strbuf_free(&file);
}

static void
test_damaged_dataset(void)
{
	check_damaged(LLM_DATASET_PAIRS);
	check_damaged(LLM_DATASET_SINGLES);
}

static void
test_unlearnable(void)
{
	LlmDatasetWriter writer;
	LlmStrbuf out = { 0 };
	RowText text;
	uint8_t header[LLM_DATASET_HEADER_BYTES];
	LlmError err = { 0 };

	llm_dataset_writer_init(&writer, LLM_DATASET_PLAIN);
	fill_row(&text, LLM_DATASET_PLAIN, 1);
	memset(text.is_label, 0, sizeof(text.is_label));
	CHECK(!llm_dataset_write_row(&writer, &text.row, &out, &err));
	CHECK(strstr(err.message, "no token of the example") != NULL);
	text.is_label[0][0] = 1;
	CHECK(!llm_dataset_write_row(&writer, &text.row, &out, &err));
	CHECK(strstr(err.message, "first token") != NULL);
	CHECK(!llm_dataset_write_end(&writer, &out, header, &err));
	CHECK(strstr(err.message, "no rows") != NULL);
	llm_dataset_writer_free(&writer);
	llm_strbuf_free(&out);
}

/* ------------------------------------------------------------------------
 * Jobs
 * ------------------------------------------------------------------------
 */
/* Where jobs run: NULL, the CPU; "cuda". */
static const char *device;

/* A GPU's bf16 depends a little on what else is in a micro-batch. */
static double
bound(double on_cpu, double on_cuda)
{
	return is_cuda(device) ? on_cuda : on_cpu;
}

#define MAX_PAIRS 16

typedef struct JobRig
{
	Rig model;
	LlmTrainPair pairs[MAX_PAIRS];
	LlmTrainer *trainer;
	LlmStrbuf file;
	LlmDataset *dataset;
	LlmTrainJob *job;
} JobRig;

static LlmTrainJobOptions
job_options(int32_t max_tokens)
{
	return (LlmTrainJobOptions){
		.preference = { .kind = LLM_PREFERENCE_SIGMOID,
						.beta = 0.1,
						.desirable_weight = 1,
						.undesirable_weight = 1 },
		.batch_size = 8,
		.group_size = 4,
		.n_epochs = 2.5,
		.seed = 11,
		.max_tokens = max_tokens,
		.max_segment = MAX_EXAMPLE,
		.rate = { .kind = LLM_RATE_COSINE,
				  .learning_rate = 5e-3,
				  .n_cycles = 0.5 },
		.warmup_ratio = 0.1,
	};
}

static void
job_close(JobRig *rig)
{
	llm_train_job_free(rig->job);
	llm_trainer_free(rig->trainer);
	llm_dataset_close(rig->dataset);
	llm_strbuf_free(&rig->file);
	rig_close(&rig->model);
}

static bool
job_open(JobRig *rig, LlmDatasetKind kind, const LlmTrainJobOptions *options)
{
	LlmTrainOptions train = {
		.pairs = rig->pairs,
		.seed = 5,
		.max_tokens = options->max_tokens,
		.max_segment = MAX_EXAMPLE,
		.max_logit_rows = 32,
		.beta1 = 0.9,
		.beta2 = 0.999,
		.eps = 1e-8,
		.max_grad_norm = 1,
		.b_rate_ratio = 1,
	};
	LlmError err = { 0 };

	memset(rig, 0, sizeof(*rig));
	if (!rig_open(&rig->model, VECTORS "/qwen3", device,
				  is_cuda(device) ? LLM_DTYPE_BF16 : LLM_DTYPE_F32, &err))
	{
		CHECK_FAIL("%s", err.message);
		return false;
	}
	for (int32_t i = 0; i < 2 * rig->model.config.n_layers; i++)
		rig->pairs[train.n_pairs++] = (LlmTrainPair){
			.layer_idx = i / 2,
			.module = i % 2 == 0 ? LLM_ADAPTER_V : LLM_ADAPTER_DOWN,
			.rank = 4,
			.scale = 2,
		};
	rig->trainer = llm_trainer_create(rig->model.model, &train, &err);
	rig->file = make_file(kind, 20);
	rig->dataset =
		llm_dataset_open(rig->file.data, rig->file.len, N_VOCAB, &err);
	if (rig->trainer != NULL && rig->dataset != NULL)
		rig->job = llm_train_job_create(rig->trainer, rig->dataset,
										rig->dataset, options, &err);
	if (rig->job != NULL)
		return true;
	CHECK_FAIL("%s", err.message);
	job_close(rig);
	return false;
}

/* Steps until there are none, or most; the last one's log. */
static LlmTrainLog
run(JobRig *rig, int64_t most)
{
	LlmTrainLog log = { 0 };
	LlmError err = { 0 };
	bool is_done = false;

	while (most-- > 0 && llm_train_job_step(rig->job, &log, &is_done, &err))
		;
	if (most >= 0 && !is_done)
		CHECK_FAIL("step: %s", err.message);
	return log;
}

static void
refer(JobRig *rig)
{
	LlmError err = { 0 };
	bool is_done = false;

	while (!is_done)
		REQUIRE(llm_train_job_refer(rig->job, &is_done, &err));
}

static double
evaluate(JobRig *rig)
{
	LlmError err = { 0 };
	LlmTrainEval eval = { .loss = NAN };

	CHECK(llm_train_job_evaluate(rig->job, &eval, &err));
	return eval.loss;
}

static void
test_job(void)
{
	LlmTrainJobOptions options = job_options(128);
	JobRig rig;
	LlmTrainLog log;
	double before;
	double after;

	options.rate.learning_rate = 2e-2;
	if (!job_open(&rig, LLM_DATASET_PLAIN, &options))
		return;
	/* 20 rows by 8 are 3 steps an epoch, 2.5 epochs of them 8 */
	CHECK_INT_EQ(llm_train_job_n_steps(rig.job), 8);
	before = evaluate(&rig);
	log = run(&rig, 1);
	CHECK_INT_EQ(log.step, 1);
	CHECK(log.learning_rate == 0); /* the warmup's first */
	CHECK(fabs(log.epoch - 8.0 / 20) < 1e-12);
	log = run(&rig, 100);
	CHECK_INT_EQ(log.step, 8);
	CHECK(fabs(log.epoch - (2 + 16.0 / 20)) < 1e-12);
	after = evaluate(&rig);
	if (!(after < 0.97 * before))
		CHECK_FAIL("the loss fell from %g to %g", before, after);
	job_close(&rig);
}

/* One micro-batch a step, or one for nearly each row. */
static void
test_accumulation(void)
{
	LlmTrainLog logs[2];

	for (int i = 0; i < 2; i++)
	{
		LlmTrainJobOptions options = job_options(i == 0 ? 128 : MAX_EXAMPLE);
		JobRig rig;

		if (!job_open(&rig, LLM_DATASET_PLAIN, &options))
			return;
		logs[i] = run(&rig, 5);
		job_close(&rig);
	}
	CHECK(fabs(logs[0].loss / logs[1].loss - 1) < bound(1e-5, 1e-2));
	CHECK(fabs(logs[0].grad_norm / logs[1].grad_norm - 1) < bound(1e-4, 0.05));
	CHECK_INT_EQ(logs[0].n_labels, logs[1].n_labels);
}

/* The same seeds, the same bits; another one for the rows' order, others. */
static void
test_seeds(void)
{
	LlmStrbuf states[3] = { 0 };
	LlmError err = { 0 };

	for (int i = 0; i < 3; i++)
	{
		LlmTrainJobOptions options = job_options(128);
		JobRig rig;

		options.seed += i == 2;
		if (!job_open(&rig, LLM_DATASET_PLAIN, &options))
			return;
		(void) run(&rig, 4);
		CHECK(llm_train_job_save(rig.job, &states[i], &err));
		job_close(&rig);
	}
	CHECK(states[0].len == states[1].len && states[0].len == states[2].len);
	CHECK(memcmp(states[0].data, states[1].data, states[0].len) == 0);
	CHECK(memcmp(states[0].data, states[2].data, states[0].len) != 0);
	for (int i = 0; i < 3; i++)
		llm_strbuf_free(&states[i]);
}

/* An epoch visits every row once, and the next one in another order. */
static void
test_shuffling(void)
{
	LlmTrainJobOptions options = job_options(128);
	JobRig rig;
	int64_t n_tokens[2] = { 0, 0 };
	int64_t first_tokens[2] = { 0, 0 };
	int64_t all = 0;

	if (!job_open(&rig, LLM_DATASET_PLAIN, &options))
		return;
	for (int64_t i = 0; i < llm_dataset_n_rows(rig.dataset); i++)
		all += llm_dataset_row(rig.dataset, i).first.n_tokens;
	for (int step = 0; step < 6; step++)
	{
		LlmTrainLog log = run(&rig, 1);

		n_tokens[step / 3] += log.n_tokens;
		if (step % 3 == 0)
			first_tokens[step / 3] = log.n_tokens;
	}
	CHECK_INT_EQ(n_tokens[0], all);
	CHECK_INT_EQ(n_tokens[1], all);
	CHECK(first_tokens[0] != first_tokens[1]);
	job_close(&rig);
}

/* An adapter begins as nothing: DPO's first loss is ln 2, and then falls. */
static void
test_pairs(void)
{
	static const LlmPreferenceKind kinds[] = {
		LLM_PREFERENCE_SIGMOID, LLM_PREFERENCE_HINGE, LLM_PREFERENCE_IPO,
		LLM_PREFERENCE_ORPO, LLM_PREFERENCE_SIMPO
	};

	for (int i = 0; i < 5; i++)
	{
		LlmTrainJobOptions options = job_options(128);
		JobRig rig;
		LlmTrainLog log;
		double before;

		options.preference.kind = kinds[i];
		options.preference.beta = kinds[i] == LLM_PREFERENCE_SIMPO ? 2 : 0.1;
		options.n_epochs = 6;
		if (!job_open(&rig, LLM_DATASET_PAIRS, &options))
			return;
		refer(&rig);
		before = evaluate(&rig);
		if (kinds[i] == LLM_PREFERENCE_SIGMOID)
			CHECK(fabs(before - 0.69314718055994531) < bound(1e-6, 0.05));
		log = run(&rig, 1);
		if (kinds[i] == LLM_PREFERENCE_SIGMOID)
			CHECK(fabs(log.loss - 0.69314718055994531) < bound(1e-6, 0.05) &&
				  fabs(log.rewards.margin) < bound(1e-6, 0.05));
		log = run(&rig, 100);
		CHECK(log.rewards.accuracy > 0.6 && log.rewards.margin > 0);
		if (!(evaluate(&rig) < before))
			CHECK_FAIL("loss %d did not fall from %g", i, before);
		job_close(&rig);
	}
}

static void
check_refused(JobRig *rig, const LlmTrainJobOptions *options, const char *part)
{
	LlmError err = { 0 };

	CHECK(llm_train_job_create(rig->trainer, rig->dataset, NULL, options,
							   &err) == NULL);
	if (strstr(err.message, part) == NULL)
		CHECK_FAIL("refused with \"%s\", not \"%s\"", err.message, part);
}

/* Answers with a verdict: the first loss is a half of the weights, and falls. */
static void
test_singles(void)
{
	LlmTrainJobOptions options = job_options(128);
	JobRig rig;
	LlmTrainLog log;
	LlmTrainEval eval;
	LlmError err = { 0 };

	options.preference.undesirable_weight = 3;
	options.n_epochs = 8;
	if (!job_open(&rig, LLM_DATASET_SINGLES, &options))
		return;
	refer(&rig);
	/* 13 of 20 rows are desirable; nothing has moved, so that KL is 0 */
	CHECK(fabs(evaluate(&rig) - (13 * 0.5 + 7 * 1.5) / 20) < bound(1e-6, 0.05));
	log = run(&rig, 1);
	CHECK(fabs(log.rewards.margin) < bound(1e-6, 0.05));
	log = run(&rig, 100);
	CHECK_INT_EQ(log.step, 24);
	CHECK(llm_train_job_evaluate(rig.job, &eval, &err));
	if (!(eval.loss < 0.84 && eval.rewards.accuracy > 0.6 &&
		  eval.rewards.margin > 0))
		CHECK_FAIL("loss %g, accuracy %g, margin %g", eval.loss,
				   eval.rewards.accuracy, eval.rewards.margin);
	options.group_size = 1;
	check_refused(&rig, &options, "at least 2 rows");
	options.group_size = 3;
	check_refused(&rig, &options, "no multiple");
	job_close(&rig);
}

/* Stopped after three steps, and gone on with elsewhere: the same bits. */
static void
check_going_on(LlmDatasetKind kind)
{
	LlmTrainJobOptions options = job_options(128);
	JobRig rigs[2];
	LlmStrbuf states[3] = { 0 };
	LlmError err = { 0 };

	if (!job_open(&rigs[0], kind, &options) ||
		!job_open(&rigs[1], kind, &options))
		return;
	refer(&rigs[0]);
	(void) run(&rigs[0], 3);
	CHECK(llm_train_job_save(rigs[0].job, &states[0], &err));
	CHECK(llm_train_job_load(rigs[1].job, states[0].data, states[0].len, &err));
	for (int i = 0; i < 2; i++)
	{
		LlmTrainLog log = run(&rigs[i], 100);

		CHECK_INT_EQ(log.step, 8);
		CHECK(llm_train_job_save(rigs[i].job, &states[1 + i], &err));
	}
	CHECK(states[1].len == states[2].len &&
		  memcmp(states[1].data, states[2].data, states[1].len) == 0);
	CHECK(!llm_train_job_load(rigs[1].job, states[0].data, 7, &err));
	for (int i = 0; i < 3; i++)
		llm_strbuf_free(&states[i]);
	job_close(&rigs[0]);
	job_close(&rigs[1]);
}

static void
test_going_on(void)
{
	check_going_on(LLM_DATASET_PLAIN);
	check_going_on(LLM_DATASET_PAIRS);
	check_going_on(LLM_DATASET_SINGLES);
}

static void
test_long_rows(void)
{
	LlmTrainJobOptions options = job_options(128);
	JobRig rig;

	if (!job_open(&rig, LLM_DATASET_PAIRS, &options))
		return;
	options.max_segment = 20;
	check_refused(&rig, &options, "at most 20 can be trained");
	options.max_segment = MAX_EXAMPLE;
	options.max_tokens = 30;
	check_refused(&rig, &options, "both answers");
	job_close(&rig);
}

static void
test_cuda(void)
{
	if (!has_isa("cuda"))
		return;
	device = "cuda";
	test_job();
	test_accumulation();
	test_shuffling();
	test_pairs();
	test_singles();
	test_going_on();
	device = NULL;
}

int
main(void)
{
	RUN_TEST(test_preference_losses);
	RUN_TEST(test_learning_rates);
	RUN_TEST(test_dataset);
	RUN_TEST(test_damaged_dataset);
	RUN_TEST(test_unlearnable);
	RUN_TEST(test_job);
	RUN_TEST(test_accumulation);
	RUN_TEST(test_seeds);
	RUN_TEST(test_shuffling);
	RUN_TEST(test_pairs);
	RUN_TEST(test_singles);
	RUN_TEST(test_going_on);
	RUN_TEST(test_long_rows);
	RUN_TEST(test_cuda);
	return unit_test_finish();
}
