/*
 * test_train.c
 *	  The trainer against PEFT: gradients of every matrix in every family,
 *	  curves of 100 steps; packing, recomputing, dropout, going on.
 *
 * test/unit/test_train.c
 */
#include <stdlib.h>
#include <unistd.h>

#include "test/unit/gradient_sketch.h"
#include "test/unit/train_rig.h"

/* ------------------------------------------------------------------------
 * Against PEFT
 * ------------------------------------------------------------------------
 */
/* Of PEFT's gradient of a pair's matrix; a shared A is the first pair's. */
static const float *
expected_sketch(const TrainRig *rig, int32_t i, LlmTrainMatrix which)
{
	static const char *const kinds[] = { "A", "B", "magnitude" };
	const LlmTrainPair *pair =
		&rig->pairs[which == LLM_TRAIN_A ? fused_first(rig, i) : i];
	const float *expected;
	int64_t n;
	char name[64];
	int n_name;

	n_name = snprintf(name, sizeof(name), "grad.%d.%s.%s", pair->layer_idx,
					  llm_adapter_module_name(pair->module), kinds[which]);
	if (llm_adapter_is_expert(pair->module))
		snprintf(name + n_name, sizeof(name) - (size_t) n_name, ".%d",
				 pair->expert_idx);
	expected = expected_data(rig, name, &n);
	CHECK_INT_EQ(n, SKETCH_SUMS);
	return expected;
}

static void
check_gradients(TrainRig *rig, const TrainCase *c, const char *isa)
{
	int64_t n_all;
	float *all = all_gradients(rig, &n_all);
	const float *at = all;
	double worst = 0;

	for (int32_t i = 0; i < 3 * rig->options.n_pairs; i++)
	{
		LlmTrainMatrix which = (LlmTrainMatrix) (i % 3);
		int64_t n = llm_trainer_matrix_size(rig->trainer, i / 3, which);
		double error;

		if (n == 0)
			continue;
		error = sketch_error(at, n, expected_sketch(rig, i / 3, which));
		worst = error > worst ? error : worst;
		if (!(error <= bound(GRADIENT_ERROR, CUDA_GRADIENT_ERROR)))
			CHECK_FAIL("%s on %s: matrix %d of pair %d is %.3g off", c->name,
					   isa, i % 3, i / 3, error);
		at += n;
	}
	if (getenv("LLM_TEST_VERBOSE") != NULL)
		printf("%s on %s: gradients within %.3g\n", c->name, isa, worst);
	free(all);
}

static void
check_case(const TrainCase *c, const char *isa)
{
	const double most = bound(LOSS_ERROR, CUDA_LOSS_ERROR);
	TrainRig rig;
	int64_t n;
	const float *expected;
	double loss;

	if (!rig_make(&rig, c, isa, NULL))
		return;
	loss = pass(&rig, &rig.batch, rig.weights);
	expected = expected_data(&rig, "loss", &n);
	if (!(fabs(loss / (double) *expected - 1) <= most))
		CHECK_FAIL("%s: loss %.8g, not %.8g", c->name, loss,
				   (double) *expected);
	if (c->router_coef > 0)
	{
		loss = llm_trainer_router_loss(rig.trainer);
		expected = expected_data(&rig, "router_loss", &n);
		if (!(fabs(loss / (double) *expected - 1) <= most))
			CHECK_FAIL("%s: the routers' loss %.8g, not %.8g", c->name, loss,
					   (double) *expected);
	}
	expected = expected_data(&rig, "log_probs", &n);
	CHECK(error_of(rig.log_probs, expected, n) <= most);
	check_gradients(&rig, c, isa);
	rig_free(&rig);
}

static void
test_gradients(void)
{
	static const char *const isas[] = { "portable", "avx2", "avx512" };

	for (int i = 0; i < N_CASES * 3; i++)
		check_case(&cases[i / 3], isas[i % 3]);
}

/* Experts that are stored in NF4: trained as they are, or decoded before. */
static void
test_nf4_experts(void)
{
	TrainCase c = { .name = "mixtral_experts",
					.modules = "qvGUD",
					.base = "../train/bnb_experts",
					.fused = "U" };
	float *gradients[2] = { NULL };
	int64_t n = 0;

	for (int i = 0; i < 2; i++)
	{
		TrainRig rig;

		c.quantization =
			i == 0 ? LLM_QUANTIZATION_DECODE : LLM_QUANTIZATION_NF4;
		if (!rig_make(&rig, &c, NULL, NULL))
			break;
		CHECK((llm_model_experts(rig.model.model, LLM_WEIGHT_EXPERT_UP, 1)[2]
				   .dtype == LLM_DTYPE_NF4) == (i == 1));
		(void) pass(&rig, &rig.batch, rig.weights);
		gradients[i] = all_gradients(&rig, &n);
		rig_free(&rig);
	}
	if (gradients[1] != NULL)
		CHECK(error_of(gradients[1], gradients[0], n) <= 1e-6);
	free(gradients[0]);
	free(gradients[1]);
}

/* The schedule of generate.py's curve. */
static double
rate_of(int step)
{
	return 2e-3 * (step < 10 ? step / 10.0 : (100 - step) / 90.0);
}

static void
check_curve(const char *name)
{
	const LlmTrainOptions options = { .weight_decay = 0.01,
									  .max_grad_norm = 1 };
	const TrainCase *c = cases;
	TrainRig rig;
	const float *expected;
	int64_t n;

	while (strcmp(c->name, name) != 0)
		c++;
	if (!rig_make(&rig, c, NULL, &options))
		return;
	expected = expected_data(&rig, "losses", &n);
	for (int step = 0; step < n; step++)
	{
		LlmError err = { 0 };
		double loss = pass(&rig, &rig.batch, rig.weights);
		double norm;

		CHECK(llm_trainer_update(rig.trainer, rate_of(step), &norm, &err));
		if (!(fabs(loss - (double) expected[step]) <=
			  CURVE_ERROR * (double) expected[step]))
			CHECK_FAIL("%s, step %d: loss %.6f, not %.6f", name, step, loss,
					   (double) expected[step]);
	}
	/* and it was no flat line */
	CHECK(expected[n - 1] < 0.5f * expected[0]);
	CHECK_INT_EQ(llm_trainer_n_steps(rig.trainer), n);
	rig_free(&rig);
}

static void
test_curves(void)
{
	check_curve("llama3");
	check_curve("qwen3");
}

/* ------------------------------------------------------------------------
 * What must make no difference
 * ------------------------------------------------------------------------
 */

/* Segments one by one, as accumulated micro-batches. */
static void
test_packing(void)
{
	TrainRig rig;
	float *packed;
	float *single;
	int64_t n;

	for (int i = 0; i < N_CASES; i++)
	{
		/* how evenly experts are visited is the batch's as a whole */
		if (cases[i].router_coef > 0 || !rig_make(&rig, &cases[i], NULL, NULL))
			continue;
		(void) pass(&rig, &rig.batch, rig.weights);
		packed = all_gradients(&rig, &n);
		CHECK(set_values(&rig));
		for (int32_t s = 0, label = 0; s < rig.batch.n_segments; s++)
		{
			int32_t first = rig.batch.segment_start[s];
			int32_t last = rig.batch.segment_start[s + 1];
			int32_t starts[2] = { 0, last - first };
			int32_t rows[MAX_LABELS];
			LlmTrainBatch one = {
				.n_tokens = last - first,
				.n_segments = 1,
				.token_ids = rig.batch.token_ids + first,
				.segment_start = starts,
				.label_rows = rows,
				.label_ids = rig.batch.label_ids + label,
			};

			while (label < rig.batch.n_labels &&
				   rig.batch.label_rows[label] < last)
				rows[one.n_labels++] = rig.batch.label_rows[label++] - first;
			(void) pass(&rig, &one, rig.weights);
		}
		single = all_gradients(&rig, &n);
		if (!(error_of(single, packed, n) <= bound(1e-6, CUDA_GRADIENT_ERROR)))
			CHECK_FAIL("%s: packed and single differ by %.3g", cases[i].name,
					   error_of(single, packed, n));
		free(packed);
		free(single);
		rig_free(&rig);
	}
}

static LlmTrainMemory
memory_of(const TrainRig *rig)
{
	return llm_train_memory(
		llm_model_config(rig->model.model), llm_model_options(rig->model.model),
		rig->model.compute->activation_dtype, &rig->options);
}

/* Recomputing saves activations and nothing else; the lines add up. */
static void
check_memory(TrainRig *selective, TrainRig *full)
{
	LlmTrainMemory a = memory_of(selective);
	LlmTrainMemory b = memory_of(full);

	CHECK(b.activations_bytes < a.activations_bytes);
	CHECK(b.states_bytes == a.states_bytes && b.states_bytes > 0);
	CHECK(b.scratch_bytes == a.scratch_bytes && b.scratch_bytes > 0);
	CHECK(b.logits_bytes == a.logits_bytes && b.logits_bytes > 0);
	CHECK(a.total_bytes == a.states_bytes + a.activations_bytes +
							   a.scratch_bytes + a.logits_bytes);
}

static void
test_recompute(void)
{
	const LlmTrainOptions full = { .recompute = LLM_RECOMPUTE_FULL,
								   .neftune_alpha = 5 };
	const LlmTrainOptions selective = { .neftune_alpha = 5 };

	for (int i = 0; i < N_CASES; i++)
	{
		TrainRig rigs[2];
		float *gradients[2];
		int64_t n;

		if (!rig_make(&rigs[0], &cases[i], NULL, &selective) ||
			!rig_make(&rigs[1], &cases[i], NULL, &full))
			return;
		for (int j = 0; j < 2; j++)
		{
			(void) pass(&rigs[j], &rigs[j].batch, rigs[j].weights);
			gradients[j] = all_gradients(&rigs[j], &n);
		}
		CHECK(memcmp(gradients[0], gradients[1], (size_t) n * sizeof(float)) ==
			  0);
		check_memory(&rigs[0], &rigs[1]);
		for (int j = 0; j < 2; j++)
		{
			free(gradients[j]);
			rig_free(&rigs[j]);
		}
	}
}

/* Eight steps, or four, a state, and four in another trainer. */
static void
test_going_on(void)
{
	const LlmTrainOptions options = { .dropout = 0.2f,
									  .neftune_alpha = 5,
									  .weight_decay = 0.1,
									  .max_grad_norm = 0.5 };
	const TrainCase *c = &cases[5];
	TrainRig rigs[2];
	LlmStrbuf states[3] = { 0 };
	LlmError err = { 0 };
	double norm;

	if (!rig_make(&rigs[0], c, NULL, &options) ||
		!rig_make(&rigs[1], c, NULL, &options))
		return;
	for (int step = 0; step < 8; step++)
	{
		TrainRig *second = step < 4 ? &rigs[0] : &rigs[1];

		if (step == 4)
		{
			CHECK(llm_trainer_save(rigs[0].trainer, &states[0], &err));
			CHECK(llm_trainer_load(rigs[1].trainer, states[0].data,
								   states[0].len, &err));
			CHECK(!llm_trainer_load(rigs[1].trainer, states[0].data,
									states[0].len - 4, &err));
			CHECK(strstr(err.message, "bytes") != NULL);
		}
		for (TrainRig *rig = &rigs[0]; rig != NULL;
			 rig = rig == second ? NULL : second)
		{
			(void) pass(rig, &rig->batch, rig->weights);
			CHECK(llm_trainer_update(rig->trainer, 1e-3, &norm, &err));
		}
	}
	CHECK(llm_trainer_save(rigs[0].trainer, &states[1], &err));
	CHECK(llm_trainer_save(rigs[1].trainer, &states[2], &err));
	CHECK(states[1].len == states[2].len &&
		  memcmp(states[1].data, states[2].data, states[1].len) == 0);
	CHECK(memcmp(states[1].data, states[0].data, states[1].len) != 0);
	for (int i = 0; i < 3; i++)
		llm_strbuf_free(&states[i]);
	rig_free(&rigs[0]);
	rig_free(&rigs[1]);
}

/* ------------------------------------------------------------------------
 * Dropout and noise, by finite differences
 * ------------------------------------------------------------------------
 */

/* The loss with one number of the state moved; the same random numbers. */
static double
loss_near(TrainRig *rig, const LlmStrbuf *state, int64_t i, float by)
{
	float *at = (float *) (state->data + STATE_HEADER_BYTES) + i;
	const float kept = *at;
	LlmError err = { 0 };
	double loss = 0;

	*at += by;
	CHECK(llm_trainer_load(rig->trainer, state->data, state->len, &err));
	CHECK(llm_trainer_forward(rig->trainer, &rig->batch, true, &err));
	CHECK(llm_trainer_log_probs(rig->trainer, rig->log_probs, &err));
	for (int32_t j = 0; j < rig->batch.n_labels; j++)
		loss -= (double) rig->weights[j] * (double) rig->log_probs[j];
	*at = kept;
	return loss;
}

static void
test_dropout(void)
{
	const LlmTrainOptions options = { .dropout = 0.3f, .neftune_alpha = 10 };
	TrainRig rig;
	LlmStrbuf state = { 0 };
	LlmError err = { 0 };
	float a[128];
	double plain;

	if (!rig_make(&rig, &cases[5], NULL, &options))
		return;
	CHECK(llm_trainer_save(rig.trainer, &state, &err));
	(void) pass(&rig, &rig.batch, rig.weights);
	/* the first matrix: A of q in the first layer */
	CHECK_INT_EQ(llm_trainer_matrix_size(rig.trainer, 0, LLM_TRAIN_A), 128);
	CHECK(llm_trainer_read_gradients(rig.trainer, 0, LLM_TRAIN_A, a, &err));
	for (int i = 0; i < 128; i += 17)
	{
		const float by = 0.02f;
		double slope =
			(loss_near(&rig, &state, i, by) - loss_near(&rig, &state, i, -by)) /
			(2 * (double) by);

		if (!(fabs(slope - (double) a[i]) <= 2e-3 * fabs((double) a[i]) + 2e-5))
			CHECK_FAIL("slope %.6g at %d, gradient %.6g", slope, i,
					   (double) a[i]);
	}
	/* without training nothing is dropped, and twice is the same */
	CHECK(llm_trainer_forward(rig.trainer, &rig.batch, false, &err));
	CHECK(llm_trainer_log_probs(rig.trainer, rig.log_probs, &err));
	plain = (double) rig.log_probs[0];
	CHECK(llm_trainer_forward(rig.trainer, &rig.batch, false, &err));
	CHECK(llm_trainer_log_probs(rig.trainer, rig.log_probs, &err));
	CHECK((double) rig.log_probs[0] == plain);
	llm_strbuf_free(&state);
	rig_free(&rig);
}

/* ------------------------------------------------------------------------
 * Beginnings and refusals
 * ------------------------------------------------------------------------
 */

/* ---- what was trained, served ---- */

#define CONFIG "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 3}"

/* The trained adapter's image, in a file of its own: path is a template. */
static bool
write_image(TrainRig *rig, char *path)
{
	LlmStrbuf image = { 0 };
	char dir[256];
	uint8_t base[LLM_FINGERPRINT_BYTES];
	LlmError err = { 0 };
	FILE *file;
	bool ok;

	model_path(rig->c, dir);
	ok = llm_model_fingerprint(&rig->model.config, dir, base, &err) &&
		 llm_trainer_append_image(rig->trainer, base, CONFIG, &image, &err);
	file = ok ? fdopen(mkstemp(path), "wb") : NULL;
	ok = file != NULL && fwrite(image.data, 1, image.len, file) == image.len;
	if (file != NULL)
		fclose(file);
	if (!ok)
		CHECK_FAIL("image: %s", err.message);
	llm_strbuf_free(&image);
	return ok;
}

/* The same as the serving side loads it. */
static bool
load_image(TrainRig *rig, LlmModelAdapter *adapter)
{
	char path[] = "/tmp/llm_test_train_XXXXXX";
	LlmError err = { 0 };
	bool ok;

	if (!write_image(rig, path))
		return false;
	ok = llm_model_adapter_load(rig->model.model, path, RANK, adapter, &err);
	if (!ok)
		CHECK_FAIL("adapter: %s", err.message);
	unlink(path);
	return ok;
}

/*
 * The trainer's log-probabilities of the first segment, from serving: of a
 * model, with an adapter or with none.
 */
static void
check_served(TrainRig *rig, Rig *model, const LlmModelAdapter *adapter)
{
	const void *loras[1] = { adapter != NULL ? adapter->image : NULL };
	int32_t token_lora[MAX_STEP_TOKENS] = { 0 };
	int32_t n = rig->batch.segment_start[1];
	int32_t n_vocab = rig->model.config.n_vocab;
	static float logits[MAX_STEP_TOKENS * MAX_VOCAB];
	float served[MAX_LABELS];
	int32_t n_labels = 0;
	Sequence sequence;
	Step step;

	sequence_init(model, &sequence, rig->batch.token_ids, n);
	step_init(&step);
	step_add(&step, &sequence, n, n);
	step.inputs.n_loras = adapter != NULL;
	step.inputs.loras = loras;
	step.inputs.token_lora = adapter != NULL ? token_lora : NULL;
	if (!step_run(model, &step, logits))
		return;
	while (rig->batch.label_rows[n_labels] < n)
	{
		const float *row =
			logits + (int64_t) rig->batch.label_rows[n_labels] * n_vocab;
		double sum = 0;

		for (int32_t j = 0; j < n_vocab; j++)
			sum += exp((double) row[j]);
		served[n_labels] =
			(float) ((double) row[rig->batch.label_ids[n_labels]] - log(sum));
		n_labels++;
	}
	if (!(error_of(served, rig->log_probs, n_labels) <=
		  bound(1e-5, 2 * CUDA_LOSS_ERROR)))
		CHECK_FAIL("%s: served %.3g off", rig->c->name,
				   error_of(served, rig->log_probs, n_labels));
}

/* An adapter on experts is served by the model that it is merged into. */
static void
check_merged(TrainRig *rig)
{
	static const LlmAdapterMergeOptions options = {
		.has_dtype = true,
		.dtype = LLM_DTYPE_F32,
		.max_shard_bytes = (uint64_t) 1 << 30,
	};
	char path[] = "/tmp/llm_test_train_XXXXXX";
	char dir[] = "/tmp/llm_test_merge_XXXXXX";
	char base[256];
	char file[64];
	LlmAdapterMergeReport report;
	LlmAdapterImage *image;
	LlmModelAdapter adapter;
	LlmError err = { 0 };
	Rig merged;

	if (!write_image(rig, path))
		return;
	CHECK(
		!llm_model_adapter_load(rig->model.model, path, RANK, &adapter, &err) &&
		strstr(err.message, "changes experts of a mixture") != NULL);
	image = llm_adapter_image_open(path, &rig->model.config, &err);
	model_path(rig->c, base);
	REQUIRE(image != NULL && image->has_experts && mkdtemp(dir) != NULL);
	CHECK_INT_EQ(image->n_pairs, rig->options.n_pairs);
	if (!llm_adapter_merge(image, &rig->model.config, base, dir, &options,
						   &report, &err))
		CHECK_FAIL("merge: %s", err.message);
	CHECK_INT_EQ(report.n_merged, rig->options.n_pairs);
	rig_quantization = LLM_QUANTIZATION_DECODE;
	if (rig_open(&merged, dir, NULL, LLM_DTYPE_F32, &err))
		check_served(rig, &merged, NULL);
	else
		CHECK_FAIL("merged: %s", err.message);
	rig_close(&merged);
	llm_adapter_image_close(image);
	snprintf(file, sizeof(file), "%s/config.json", dir);
	CHECK(unlink(file) == 0);
	snprintf(file, sizeof(file), "%s/model.safetensors", dir);
	CHECK(unlink(file) == 0 && rmdir(dir) == 0 && unlink(path) == 0);
}

static void
check_adapter(TrainRig *rig)
{
	LlmModelAdapter adapter = { 0 };

	if (!load_image(rig, &adapter))
		return;
	check_served(rig, &rig->model, &adapter);
	llm_model_adapter_free(rig->model.model, &adapter);
}

static void
test_serving(void)
{
	for (int i = 0; i < N_CASES; i++)
	{
		TrainRig rig;
		LlmError err = { 0 };
		double norm;

		/* NF4 is for training: the adapter is served on the model as it is */
		if (cases[i].quantization != LLM_QUANTIZATION_DECODE ||
			!rig_make(&rig, &cases[i], NULL, NULL))
			continue;
		for (int step = 0; step < 3; step++)
		{
			(void) pass(&rig, &rig.batch, rig.weights);
			CHECK(llm_trainer_update(rig.trainer, 1e-2, &norm, &err));
		}
		CHECK(llm_trainer_forward(rig.trainer, &rig.batch, false, &err));
		CHECK(llm_trainer_log_probs(rig.trainer, rig.log_probs, &err));
		if (strpbrk(cases[i].modules, "GUD") == NULL)
			check_adapter(&rig);
		else if (!is_cuda(default_isa))
			check_merged(&rig);
		rig_free(&rig);
	}
}

/* A new adapter is nothing: the log-probabilities of the base model. */
static void
test_beginning(void)
{
	TrainRig rig;
	LlmTrainer *trainers[2];
	float log_probs[2][MAX_LABELS];
	float a[128];
	float most = 0;
	LlmError err = { 0 };

	if (!rig_make(&rig, &cases[1], NULL, NULL))
		return;
	trainers[0] = llm_trainer_create(rig.model.model, &rig.options, &err);
	rig.options.n_pairs = 1;
	rig.pairs[0].has_magnitude = false;
	trainers[1] = llm_trainer_create(rig.model.model, &rig.options, &err);
	REQUIRE(trainers[0] != NULL && trainers[1] != NULL);
	for (int i = 0; i < 2; i++)
	{
		CHECK(llm_trainer_forward(trainers[i], &rig.batch, false, &err));
		CHECK(llm_trainer_log_probs(trainers[i], log_probs[i], &err));
	}
	/* DoRA divides lengths by themselves, which rounds */
	CHECK(error_of(log_probs[0], log_probs[1], rig.batch.n_labels) <= 1e-6);
	CHECK(llm_trainer_read_values(trainers[1], 0, LLM_TRAIN_A, a, &err));
	for (int i = 0; i < 128; i++)
		most = fabsf(a[i]) > most ? fabsf(a[i]) : most;
	/* uniform in +-1/8 */
	CHECK(most > 0.11f && most <= 0.125f);
	llm_trainer_free(trainers[0]);
	llm_trainer_free(trainers[1]);
	rig_free(&rig);
}

static void
check_refused(TrainRig *rig, const char *part)
{
	LlmError err = { 0 };

	CHECK(llm_trainer_create(rig->model.model, &rig->options, &err) == NULL);
	if (strstr(err.message, part) == NULL)
		CHECK_FAIL("refused with \"%s\", not \"%s\"", err.message, part);
}

static void
test_refusals(void)
{
	TrainRig rig;
	LlmTrainOptions options;
	TrainCase mixture = { "mixtral", "qkvo", false, false };

	if (!rig_make(&rig, &cases[1], NULL, NULL))
		return;
	options = rig.options;
	rig.options.dropout = 0.1f;
	check_refused(&rig, "DoRA");
	rig.options = options;
	rig.options.n_pairs = 0;
	check_refused(&rig, "nothing to train");
	rig.options = options;
	rig.options.max_segment = MAX_LEN + 1;
	check_refused(&rig, "do not fit");
	rig.options = options;
	rig.pairs[1] = rig.pairs[0];
	check_refused(&rig, "twice");
	rig.pairs[1].rank = 0;
	check_refused(&rig, "rank 0");
	rig.pairs[1].rank = 1;
	rig.pairs[1].module = LLM_ADAPTER_LM_HEAD;
	check_refused(&rig, "lm_head");
	rig.pairs[1].module = LLM_ADAPTER_V;
	rig.pairs[1].shares_a = true;
	check_refused(&rig, "share A");
	rig_free(&rig);

	if (!rig_make(&rig, &mixture, NULL, NULL))
		return;
	rig.pairs[1].module = LLM_ADAPTER_UP;
	check_refused(&rig, "module up of layer 0");
	rig_free(&rig);
}

/* ------------------------------------------------------------------------
 * On a GPU
 * ------------------------------------------------------------------------
 */

/* The same numbers are dropped, and the same noise comes, as on the CPU. */
static void
check_random(const TrainCase *c)
{
	const LlmTrainOptions options = { .dropout = 0.3f, .neftune_alpha = 10 };
	const char *const isas[2] = { "portable", "cuda" };
	float *gradients[2] = { NULL, NULL };
	int64_t n = 0;

	for (int i = 0; i < 2; i++)
	{
		TrainRig rig;

		if (!rig_make(&rig, c, isas[i], &options))
			break;
		(void) pass(&rig, &rig.batch, rig.weights);
		gradients[i] = all_gradients(&rig, &n);
		rig_free(&rig);
	}
	if (gradients[1] != NULL)
	{
		double error = error_of(gradients[1], gradients[0], n);

		if (!(error <= CUDA_GRADIENT_ERROR))
			CHECK_FAIL("%s: %.3g off the CPU with dropout", c->name, error);
	}
	free(gradients[0]);
	free(gradients[1]);
}

/* Two passes over the same batch give the same bits. */
static void
check_repeated(const TrainCase *c)
{
	float *gradients[2];
	TrainRig rig;
	int64_t n = 0;

	if (!rig_make(&rig, c, NULL, NULL))
		return;
	for (int i = 0; i < 2; i++)
	{
		CHECK(set_values(&rig));
		(void) pass(&rig, &rig.batch, rig.weights);
		gradients[i] = all_gradients(&rig, &n);
	}
	CHECK(memcmp(gradients[0], gradients[1], (size_t) n * sizeof(float)) == 0);
	free(gradients[0]);
	free(gradients[1]);
	rig_free(&rig);
}

static void
test_cuda(void)
{
	if (!has_isa("cuda"))
		return;
	default_isa = "cuda";
	for (int i = 0; i < N_CASES; i++)
	{
		check_case(&cases[i], "cuda");
		check_repeated(&cases[i]);
	}
	check_random(&cases[5]);
	test_packing();
	test_recompute();
	test_going_on();
	test_serving();
	default_isa = NULL;
}

int
main(void)
{
	RUN_TEST(test_gradients);
	RUN_TEST(test_nf4_experts);
	RUN_TEST(test_curves);
	RUN_TEST(test_packing);
	RUN_TEST(test_recompute);
	RUN_TEST(test_going_on);
	RUN_TEST(test_dropout);
	RUN_TEST(test_serving);
	RUN_TEST(test_beginning);
	RUN_TEST(test_refusals);
	RUN_TEST(test_cuda);
	return unit_test_finish();
}
