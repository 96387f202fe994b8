/*
 * test_train_session.c
 *	  The executor as a trainer, through its channel: a job from files to an
 *	  adapter, interrupted, cancelled, refused.
 *
 * test/unit/test_train_session.c
 */
#include <math.h>
#include <sys/stat.h>

#include "src/common/adapter/adapter.h"
#include "src/common/dataset/dataset.h"
#include "src/common/ipc/busy_sign.h"
#include "src/engine/compute/compute.h"
#include "test/unit/executor_rig.h"

#define MODELS "test/vectors/model"
#define N_ROWS 12
#define MAX_LOGS 64

static char dir[] = "/tmp/llm_ext-test-train.XXXXXX";

/* What came back of a job. */
typedef struct Outcome
{
	int n_logs;
	LlmWireTrainLog logs[MAX_LOGS];
	int n_saved;
	bool is_trained;
	LlmWireTrained trained;
	bool is_failed;
	LlmError error;
} Outcome;

static const char *
path_of(const char *name)
{
	static char paths[8][256];
	static int next;
	char *path = paths[next++ % 8];

	snprintf(path, 256, "%s/%s", dir, name);
	return path;
}

static void
write_bytes(const char *path, const LlmStrbuf *bytes)
{
	FILE *file = fopen(path, "wb");

	if (file == NULL || fwrite(bytes->data, 1, bytes->len, file) != bytes->len)
		abort();
	fclose(file);
}

static void
fill_example(int i, int which, int32_t *ids, uint8_t *labels,
			 LlmExample *example)
{
	*example = (LlmExample){ 6 + (i * 5 + which) % 13, ids, labels };
	for (int t = 0; t < example->n_tokens; t++)
	{
		ids[t] = 3 + (i * 29 + t * t * 3 + which * 7) % 250;
		labels[t] = t >= 3;
	}
}

static void
write_rows(const char *name, LlmDatasetKind kind, int first)
{
	LlmDatasetWriter writer;
	LlmStrbuf file = { 0 };
	uint8_t header[LLM_DATASET_HEADER_BYTES] = { 0 };
	LlmError err = { 0 };

	llm_dataset_writer_init(&writer, kind);
	llm_strbuf_append(&file, header, sizeof(header));
	for (int i = first; i < first + N_ROWS; i++)
	{
		int32_t ids[2][32];
		uint8_t labels[2][32];
		LlmDatasetRow row = { 0 };

		fill_example(i, 0, ids[0], labels[0], &row.first);
		if (kind == LLM_DATASET_PAIRS)
			fill_example(i, 1, ids[1], labels[1], &row.second);
		row.is_desirable = kind == LLM_DATASET_SINGLES && i % 2 == 0;
		CHECK(llm_dataset_write_row(&writer, &row, &file, &err));
	}
	CHECK(llm_dataset_write_end(&writer, &file, header, &err));
	memcpy(file.data, header, sizeof(header));
	write_bytes(path_of(name), &file);
	llm_dataset_writer_free(&writer);
	llm_strbuf_free(&file);
}

static void
write_dataset(const char *name, LlmDatasetKind kind)
{
	write_rows(name, kind, 0);
}

/* Where jobs run. */
static const char *device = "cpu";

/* Start a job; options are JSON members that begin with a comma. */
static void
start_job(const char *model, const char *dataset, const char *output,
		  const char *options)
{
	LlmStrbuf json = { 0 };

	start_executor();
	llm_strbuf_printf(&json,
					  "{\"path\": \"%s/%s\", \"num_threads\": 2, "
					  "\"device\": \"%s\", \"dataset\": \"%s\", "
					  "\"output\": \"%s\", \"cutoff_len\": 64, "
					  "\"per_device_train_batch_size\": 4, "
					  "\"learning_rate\": 0.01%s}",
					  MODELS, model, device, path_of(dataset), path_of(output),
					  options);
	send_frame(LLM_MESSAGE_TRAIN, 0, json.data, json.len);
	llm_strbuf_free(&json);
}

/* Read until the job ends; cancel_at: after that log, 0 = never. */
static Outcome
await_job(int cancel_at)
{
	Outcome outcome = { 0 };
	LlmFrameHeader header;
	const void *payload;

	while (next_frame(&header, &payload))
	{
		switch (header.type)
		{
			case LLM_MESSAGE_TRAIN_LOG:
				if (outcome.n_logs < MAX_LOGS)
					memcpy(&outcome.logs[outcome.n_logs++], payload,
						   sizeof(LlmWireTrainLog));
				if (outcome.n_logs == cancel_at)
					send_frame(LLM_MESSAGE_CANCEL, 0, NULL, 0);
				break;
			case LLM_MESSAGE_TRAIN_SAVED:
				outcome.n_saved++;
				break;
			case LLM_MESSAGE_TRAINED:
				outcome.is_trained = true;
				memcpy(&outcome.trained, payload, sizeof(LlmWireTrained));
				break;
			case LLM_MESSAGE_FAILED:
				outcome.is_failed = true;
				memcpy(&outcome.error, payload, sizeof(LlmError));
				break;
			default:
				break;
		}
	}
	CHECK_INT_EQ(stop_executor(), 0);
	CHECK(outcome.is_trained != outcome.is_failed);
	return outcome;
}

static Outcome
run_job(const char *model, const char *dataset, const char *output,
		const char *options)
{
	start_job(model, dataset, output, options);
	return await_job(0);
}

static LlmStrbuf
read_bytes(const char *name)
{
	LlmStrbuf bytes = { 0 };
	FILE *file = fopen(path_of(name), "rb");
	char part[4096];
	size_t n;

	if (file == NULL)
	{
		CHECK_FAIL("no file \"%s\"", name);
		return bytes;
	}
	while ((n = fread(part, 1, sizeof(part), file)) > 0)
		llm_strbuf_append(&bytes, part, n);
	fclose(file);
	return bytes;
}

/* ------------------------------------------------------------------------
 * Jobs that end well
 * ------------------------------------------------------------------------
 */
static void
test_job(void)
{
	Outcome outcome = run_job("qwen3", "plain", "adapter",
							  ", \"num_train_epochs\": 6, \"lora_rank\": 4");
	LlmModelConfig config;
	LlmAdapterImage *image;
	LlmError err = { 0 };

	if (outcome.is_failed)
		CHECK_FAIL("%s", outcome.error.message);
	CHECK_INT_EQ(outcome.n_logs, 18);
	CHECK(outcome.logs[17].loss < 0.9 * outcome.logs[0].loss);
	CHECK(isnan(outcome.logs[17].eval_loss));
	CHECK_INT_EQ(outcome.logs[17].step, 18);
	CHECK_INT_EQ(outcome.n_saved, 0);
	REQUIRE(llm_model_config_read(MODELS "/qwen3", &config, &err));
	image = llm_adapter_image_open(path_of("adapter"), &config, &err);
	if (image == NULL)
		CHECK_FAIL("%s", err.message);
	REQUIRE(image != NULL);
	CHECK_INT_EQ(image->n_pairs, 7 * config.n_layers);
	CHECK_INT_EQ(image->max_rank, 4);
	/* alpha is twice the rank where it is not given */
	CHECK((double) image->pairs[0].scale == 2);
	llm_adapter_image_close(image);
	/* and it is what the next job may go on from */
	outcome = run_job("qwen3", "plain", "next",
					  ", \"max_steps\": 1, \"lora_rank\": 4, "
					  "\"disable_shuffling\": true, \"initial\": \"/none\"");
	CHECK(outcome.is_failed && strstr(outcome.error.message, "/none") != NULL);
}

static void
test_evaluation(void)
{
	char options[400];
	Outcome outcome;

	snprintf(options, sizeof(options),
			 ", \"max_steps\": 4, \"eval_steps\": 2, \"eval_dataset\": \"%s\"",
			 path_of("plain"));
	outcome = run_job("llama2", "plain", "adapter", options);
	REQUIRE(outcome.n_logs == 4);
	CHECK(isnan(outcome.logs[0].eval_loss));
	CHECK(isfinite(outcome.logs[1].eval_loss));
	CHECK(outcome.logs[3].eval_loss < outcome.logs[1].eval_loss);
}

/* A GPU's bf16 depends a little on what else is in a micro-batch. */
static double
first_error(void)
{
	return strcmp(device, "cpu") == 0 ? 1e-6 : 0.05;
}

static void
test_pairs(void)
{
	Outcome outcome =
		run_job("glm4", "pairs", "adapter", ", \"num_train_epochs\": 4");

	if (outcome.is_failed)
		CHECK_FAIL("%s", outcome.error.message);
	REQUIRE(outcome.n_logs == 12);
	CHECK(fabs(outcome.logs[0].loss - 0.69314718055994531) < first_error());
	CHECK(outcome.logs[11].loss < 0.69);
	CHECK(outcome.logs[11].rewards.margin > 0);
	CHECK(outcome.logs[11].rewards.accuracy > 0.5);
	CHECK(outcome.logs[11].rewards.chosen > outcome.logs[11].rewards.rejected);
}

static void
test_singles(void)
{
	char options[400];
	Outcome outcome;

	snprintf(options, sizeof(options),
			 ", \"num_train_epochs\": 4, \"stage\": \"kto\", "
			 "\"kto_rejected_weight\": 2, \"quantization_bit\": 4, "
			 "\"eval_dataset\": \"%s\"",
			 path_of("singles"));
	outcome = run_job("qwen3", "singles", "adapter", options);
	if (outcome.is_failed)
		CHECK_FAIL("%s", outcome.error.message);
	REQUIRE(outcome.n_logs == 12);
	CHECK(fabs(outcome.logs[0].loss - 0.75) < first_error());
	CHECK(outcome.logs[11].eval_loss < 0.75);
	CHECK(outcome.logs[11].eval_rewards.margin > 0);
	CHECK(outcome.logs[11].eval_rewards.chosen >
		  outcome.logs[11].eval_rewards.rejected);
	CHECK(isnan(outcome.logs[0].eval_rewards.accuracy));
}

static void
check_same_files(const char *a, const char *b)
{
	LlmStrbuf bytes[2] = { read_bytes(a), read_bytes(b) };

	if (bytes[0].len == 0 || bytes[0].len != bytes[1].len ||
		memcmp(bytes[0].data, bytes[1].data, bytes[0].len) != 0)
		CHECK_FAIL("\"%s\" differs from \"%s\"", a, b);
	llm_strbuf_free(&bytes[0]);
	llm_strbuf_free(&bytes[1]);
}

/* The step whose evaluation is the best; the one before the first is none. */
static int
best_log(const Outcome *outcome)
{
	int best = 1;

	for (int i = 2; i < outcome->n_logs; i++)
	{
		if (outcome->logs[i].eval_loss < outcome->logs[best].eval_loss)
			best = i;
	}
	return best;
}

/*
 * The best evaluation's adapter is that of a job which ends there, also where
 * the job was interrupted after it.
 */
static void
test_best(void)
{
	static const char common[] =
		", \"lr_scheduler_type\": \"constant\", \"lora_alpha\": 64, "
		"\"lora_dropout\": 0.1, \"eval_steps\": 1, "
		"\"load_best_model_at_end\": true, \"eval_on_start\": true";
	char options[900];
	Outcome whole;
	Outcome rest;
	int best;

	snprintf(options, sizeof(options),
			 "%s, \"max_steps\": 16, \"eval_dataset\": \"%s\"", common,
			 path_of("overlapping"));
	whole = run_job("mistral", "plain", "best", options);
	REQUIRE(whole.n_logs == 17);
	CHECK_INT_EQ(whole.logs[0].step, 0);
	best = best_log(&whole);
	/* else the rows are chosen badly */
	REQUIRE(best > 2 && best < 12);
	CHECK_INT_EQ(whole.trained.step, best);
	CHECK(whole.trained.eval_loss == whole.logs[best].eval_loss);
	CHECK(whole.trained.baseline_loss == whole.logs[0].eval_loss);

	snprintf(options, sizeof(options),
			 "%s, \"max_steps\": %d, \"eval_dataset\": \"%s\"", common, best,
			 path_of("overlapping"));
	CHECK(run_job("mistral", "plain", "short", options).is_trained);
	check_same_files("best", "short");

	snprintf(options, sizeof(options),
			 "%s, \"max_steps\": 16, \"eval_dataset\": \"%s\", "
			 "\"save_steps\": %d, \"checkpoint\": \"%s\"",
			 common, path_of("overlapping"), best + 2, path_of("state"));
	start_job("mistral", "plain", "never", options);
	CHECK(await_job(best + 4).is_failed);
	snprintf(options, sizeof(options),
			 "%s, \"max_steps\": 16, \"eval_dataset\": \"%s\", "
			 "\"state\": \"%s\"",
			 common, path_of("overlapping"), path_of("state"));
	rest = run_job("mistral", "plain", "rest", options);
	CHECK_INT_EQ(rest.logs[0].step, best + 3);
	CHECK(memcmp(&rest.trained, &whole.trained, sizeof(LlmWireTrained)) == 0);
	check_same_files("best", "rest");
}

/* What a job is to be better than changes nothing of the job. */
static void
check_baseline(const char *dataset)
{
	char options[900];
	Outcome before;
	Outcome alone;
	Outcome beside;

	snprintf(options, sizeof(options),
			 ", \"max_steps\": 4, \"lora_rank\": 5, \"use_rslora\": true, "
			 "\"lora_target\": \"q_proj,down_proj\", "
			 "\"eval_dataset\": \"%s\"",
			 path_of(dataset));
	before = run_job("qwen3", dataset, "before", options);
	snprintf(options, sizeof(options),
			 ", \"max_steps\": 3, \"seed\": 9, \"eval_on_start\": true, "
			 "\"eval_dataset\": \"%s\"",
			 path_of(dataset));
	alone = run_job("qwen3", dataset, "alone", options);
	snprintf(options, sizeof(options),
			 ", \"max_steps\": 3, \"seed\": 9, \"eval_on_start\": true, "
			 "\"eval_dataset\": \"%s\", \"baseline\": \"%s\"",
			 path_of(dataset), path_of("before"));
	beside = run_job("qwen3", dataset, "beside", options);
	REQUIRE(before.is_trained && alone.is_trained && beside.is_trained);
	CHECK(alone.trained.baseline_loss == alone.logs[0].eval_loss);
	CHECK(fabs(beside.trained.baseline_loss - before.trained.eval_loss) <=
		  first_error() * before.trained.eval_loss);
	CHECK(beside.trained.baseline_loss < alone.trained.baseline_loss);
	CHECK(beside.trained.eval_loss == alone.trained.eval_loss);
	check_same_files("alone", "beside");
}

static void
test_baseline(void)
{
	check_baseline("plain");
	/* of preferences it is compared with the same reference */
	check_baseline("pairs");
	check_baseline("singles");
}

/* The same adapter whether the job was interrupted or not. */
static void
test_going_on(void)
{
	static const char common[] =
		", \"max_steps\": 6, \"lora_dropout\": 0.1, "
		"\"lr_scheduler_type\": \"cosine\", \"warmup_steps\": 2";
	char options[700];
	Outcome outcome;

	outcome = run_job("mistral", "plain", "whole", common);
	CHECK(outcome.is_trained);
	snprintf(options, sizeof(options),
			 "%s, \"save_steps\": 3, \"checkpoint\": \"%s\"", common,
			 path_of("state"));
	start_job("mistral", "plain", "never", options);
	outcome = await_job(4);
	CHECK(outcome.is_failed);
	CHECK_INT_EQ(outcome.error.code, LLM_ERROR_CANCELLED);
	CHECK_INT_EQ(outcome.n_saved, 1);
	CHECK(access(path_of("never"), F_OK) != 0);
	snprintf(options, sizeof(options), "%s, \"state\": \"%s\"", common,
			 path_of("state"));
	outcome = run_job("mistral", "plain", "rest", options);
	CHECK(outcome.is_trained);
	CHECK_INT_EQ(outcome.n_logs, 3);
	CHECK_INT_EQ(outcome.logs[0].step, 4);
	check_same_files("whole", "rest");
}

/* A state that was cut is refused, wherever the cut is. */
static void
test_damaged_state(void)
{
	char options[700];
	LlmStrbuf state;

	snprintf(options, sizeof(options),
			 ", \"max_steps\": 2, \"save_steps\": 1, \"checkpoint\": \"%s\"",
			 path_of("state"));
	CHECK(run_job("qwen3", "plain", "adapter", options).is_trained);
	state = read_bytes("state");
	snprintf(options, sizeof(options), ", \"max_steps\": 2, \"state\": \"%s\"",
			 path_of("state"));
	for (int i = 0; i < 3; i++)
	{
		const size_t cuts[] = { state.len - 1, 60, 3 };
		LlmStrbuf cut = { .data = state.data, .len = cuts[i] };
		Outcome outcome;

		write_bytes(path_of("state"), &cut);
		outcome = run_job("qwen3", "plain", "never", options);
		if (!outcome.is_failed ||
			strstr(outcome.error.message, "state") == NULL)
			CHECK_FAIL("a state of %zu bytes: \"%s\"", cut.len,
					   outcome.error.message);
	}
	llm_strbuf_free(&state);
}

/* What an adapter can change of a mixture of experts: its attention. */
static void
test_mixture(void)
{
	Outcome outcome = run_job("qwen3_moe_step", "plain", "adapter",
							  ", \"num_train_epochs\": 4");
	LlmModelConfig config;
	LlmAdapterImage *image;
	LlmError err = { 0 };

	if (outcome.is_failed)
		CHECK_FAIL("%s", outcome.error.message);
	REQUIRE(outcome.n_logs == 12);
	CHECK(outcome.logs[11].loss < outcome.logs[0].loss);
	REQUIRE(llm_model_config_read(MODELS "/qwen3_moe_step", &config, &err));
	image = llm_adapter_image_open(path_of("adapter"), &config, &err);
	REQUIRE(image != NULL);
	CHECK(image->n_pairs >= 4 * config.n_layers &&
		  image->n_pairs < 7 * config.n_layers);
	llm_adapter_image_close(image);
}

/* Who names a part of what is stored as one trains all of it. */
static void
test_fused(void)
{
	Outcome outcome = run_job("phi3", "plain", "adapter",
							  ", \"max_steps\": 2, \"lora_target\": "
							  "\"q_proj,down_proj\", \"use_rslora\": true");
	LlmModelConfig config;
	LlmAdapterImage *image;
	LlmError err = { 0 };
	const char *peft = strcmp(device, "cuda") == 0 ? "peft-cuda" : "peft";
	char file[64];
	struct stat st;

	if (outcome.is_failed)
		CHECK_FAIL("%s", outcome.error.message);
	REQUIRE(llm_model_config_read(MODELS "/phi3", &config, &err));
	image = llm_adapter_image_open(path_of("adapter"), &config, &err);
	REQUIRE(image != NULL);
	CHECK_INT_EQ(image->n_pairs, 4 * config.n_layers);
	CHECK(strstr(image->config_json, "\"qkv_proj\",\"down_proj\"") != NULL);
	CHECK(mkdir(path_of(peft), 0700) == 0);
	if (!llm_adapter_export(image, &config, LLM_ADAPTER_PROFILE_PEFT,
							path_of(peft), &err))
		CHECK_FAIL("export: %s", err.message);
	snprintf(file, sizeof(file), "%s/adapter_model.safetensors", peft);
	CHECK(stat(path_of(file), &st) == 0);
	llm_adapter_image_close(image);
}

/* A model that bitsandbytes stored in NF4, trained as it is. */
static void
test_stored_nf4(void)
{
	Outcome outcome = run_job("../train/bnb_nested", "plain", "adapter",
							  ", \"max_steps\": 4, \"quantization_bit\": 4, "
							  "\"learning_rate\": 0.01");

	if (outcome.is_failed)
		CHECK_FAIL("%s", outcome.error.message);
	REQUIRE(outcome.n_logs == 4);
	CHECK(outcome.logs[3].loss < outcome.logs[0].loss);
}

/* Experts by name, beside what else is trained; PEFT's files and back. */
static void
test_experts(void)
{
	Outcome outcome = run_job("qwen3_moe", "plain", "adapter",
							  ", \"max_steps\": 2, \"lora_target\": "
							  "\"v_proj,experts\"");
	const char *peft = strcmp(device, "cuda") == 0 ? "experts-cuda" : "experts";
	LlmAdapterImage *image;
	LlmModelConfig config;
	LlmError err = { 0 };
	int n_pairs = 0;

	if (outcome.is_failed)
		CHECK_FAIL("%s", outcome.error.message);
	REQUIRE(llm_model_config_read(MODELS "/qwen3_moe", &config, &err));
	image = llm_adapter_image_open(path_of("adapter"), &config, &err);
	REQUIRE(image != NULL);
	for (int32_t i = 0; i < config.n_layers; i++)
		n_pairs += llm_layer_set_has(&config.expert_layers, i)
					   ? 1 + 3 * config.n_experts
					   : 1;
	CHECK(image->has_experts);
	CHECK_INT_EQ(image->n_pairs, n_pairs);
	CHECK(mkdir(path_of(peft), 0700) == 0);
	if (!llm_adapter_export(image, &config, LLM_ADAPTER_PROFILE_PEFT,
							path_of(peft), &err))
		CHECK_FAIL("export: %s", err.message);
	llm_adapter_image_close(image);
}

/* ------------------------------------------------------------------------
 * Jobs that are refused
 * ------------------------------------------------------------------------
 */
static void
check_refused(const char *model, const char *dataset, const char *options,
			  const char *part)
{
	Outcome outcome = run_job(model, dataset, "refused", options);

	CHECK_INT_EQ(outcome.n_logs, 0);
	if (!outcome.is_failed || strstr(outcome.error.message, part) == NULL)
		CHECK_FAIL("\"%s\", not \"%s\"", outcome.error.message, part);
	CHECK(access(path_of("refused"), F_OK) != 0);
}

static void
test_refusals(void)
{
	check_refused("qwen3", "missing", "", "missing");
	check_refused("nothing", "plain", "", "nothing");
	check_refused("mixtral", "plain", ", \"lora_target\": \"v_proj,up_proj\"",
				  "module \"up\"");
	check_refused("qwen3", "plain", ", \"lora_target\": \"q_proj,x\"",
				  "module \"x\"");
	check_refused("qwen3", "plain", ", \"lora_target\": \"q_proj,experts\"",
				  "module \"expert_gate\"");
	check_refused("qwen3_moe", "plain",
				  ", \"lora_target\": \"experts\", \"lora_dropout\": 0.1",
				  "experts cannot be trained with dropout");
	check_refused("qwen3", "plain", ", \"lora_rank\": 0", "lora_rank");
	check_refused("qwen3", "plain", ", \"lr_scheduler_type\": \"odd\"", "odd");
	check_refused("qwen3", "pairs", ", \"pref_loss\": \"ppo\"", "ppo");
	check_refused("qwen3", "plain", ", \"cutoff_len\": 100000",
				  "beyond the model's context");
	check_refused("qwen3", "plain",
				  ", \"use_dora\": true, \"lora_dropout\": 0.1", "DoRA");
	check_refused("qwen3", "plain", ", \"quantization\": \"int8\"",
				  "quantized");
	check_refused("qwen3", "plain", ", \"quantization_bit\": 8", "must be 4");
	check_refused("qwen3", "plain", ", \"quantization_type\": \"fp4\"",
				  "must be \"nf4\"");
	check_refused("qwen3", "pairs", ", \"stage\": \"kto\"",
				  "cannot be trained on pairs");
	check_refused("qwen3", "singles", ", \"per_device_train_batch_size\": 1",
				  "at least 2 rows");
	check_refused("qwen3", "plain", ", \"max_tokens\": 8", "micro-batch");
	check_refused("qwen3", "plain", ", \"yield_to_serving\": true",
				  "busy_sign");
	check_refused("qwen3", "plain",
				  ", \"yield_to_serving\": true, \"busy_sign\": \"/no/sign\"",
				  "/no/sign");
	check_refused("qwen3", "plain", ", \"max_memory_bytes\": 10000",
				  "0.000 GB of memory are available: states");
}

/* Until a job has said that it pauses. */
static void
await_pause(void)
{
	LlmFrameHeader header;
	const void *payload;

	while (next_frame(&header, &payload))
	{
		if (header.type == LLM_MESSAGE_LOG &&
			memmem(payload, header.n_bytes, "pauses", 6) != NULL)
			return;
		if (header.type == LLM_MESSAGE_TRAIN_LOG ||
			header.type == LLM_MESSAGE_TRAINED ||
			header.type == LLM_MESSAGE_FAILED)
			break;
	}
	CHECK_FAIL("the job went on beside a request");
}

/* The sign shows a request: who yields waits, but not for ever. */
static void
test_yielding(void)
{
	char options[600];
	char forever[620];
	LlmStrbuf outputs[3];
	LlmBusySign sign;
	Outcome outcome;
	LlmError err = { 0 };

	REQUIRE(llm_busy_sign_create(&sign, path_of("busy"), &err));
	llm_busy_sign_set(&sign, 1);
	outcome = run_job("qwen3", "plain", "rude", ", \"max_steps\": 3");
	CHECK(outcome.is_trained);
	snprintf(options, sizeof(options),
			 ", \"max_steps\": 3, \"yield_to_serving\": true, "
			 "\"busy_sign\": \"%s\", \"max_yield_ms\": ",
			 path_of("busy"));
	snprintf(forever, sizeof(forever), "%s2147483647", options);
	strcat(options, "1");
	outcome = run_job("qwen3", "plain", "bounded", options);
	CHECK(outcome.is_trained);
	CHECK_INT_EQ(outcome.n_logs, 3);

	start_job("qwen3", "plain", "patient", forever);
	await_pause();
	llm_busy_sign_set(&sign, 0);
	outcome = await_job(0);
	CHECK(outcome.is_trained);
	CHECK_INT_EQ(outcome.n_logs, 3);

	llm_busy_sign_set(&sign, 2);
	start_job("qwen3", "plain", "never", forever);
	await_pause();
	send_frame(LLM_MESSAGE_CANCEL, 0, NULL, 0);
	outcome = await_job(0);
	CHECK(outcome.is_failed);
	CHECK_INT_EQ(outcome.error.code, LLM_ERROR_CANCELLED);
	CHECK(outcome.n_logs <= 1);

	/* nobody hears of a job that pauses when its channel is closed */
	start_job("qwen3", "plain", "never", forever);
	await_pause();
	CHECK_INT_EQ(stop_executor(), 0);
	llm_busy_sign_close(&sign);

	outputs[0] = read_bytes("rude");
	outputs[1] = read_bytes("bounded");
	outputs[2] = read_bytes("patient");
	for (int i = 1; i < 3; i++)
		CHECK(outputs[i].len > 0 && outputs[0].len == outputs[i].len &&
			  memcmp(outputs[0].data, outputs[i].data, outputs[0].len) == 0);
	for (int i = 0; i < 3; i++)
		llm_strbuf_free(&outputs[i]);
}

/* The same jobs on a GPU, where there is one. */
static void
test_cuda(void)
{
	LlmComputeOptions options = { .precision = LLM_DTYPE_BF16 };
	LlmDeviceInfo info;
	LlmError err = { 0 };

	if (!llm_compute_cuda_info(&options, &info, &err))
	{
		CHECK(err.code == LLM_ERROR_UNAVAILABLE ||
			  err.code == LLM_ERROR_UNSUPPORTED);
		CHECK(access("/dev/nvidia0", F_OK) != 0);
		unit_test_skip("cuda", err.message);
		return;
	}
	device = "cuda";
	test_job();
	test_evaluation();
	test_pairs();
	test_singles();
	test_best();
	test_baseline();
	test_going_on();
	test_yielding();
	test_fused();
	test_experts();
	device = "cpu";
}

int
main(int argc, char **argv)
{
	find_executor(argv[0]);
	if (mkdtemp(dir) == NULL)
		abort();
	write_dataset("plain", LLM_DATASET_PLAIN);
	write_dataset("pairs", LLM_DATASET_PAIRS);
	write_dataset("singles", LLM_DATASET_SINGLES);
	write_rows("overlapping", LLM_DATASET_PLAIN, 9);
	RUN_TEST(test_job);
	RUN_TEST(test_evaluation);
	RUN_TEST(test_pairs);
	RUN_TEST(test_singles);
	RUN_TEST(test_best);
	RUN_TEST(test_baseline);
	RUN_TEST(test_going_on);
	RUN_TEST(test_damaged_state);
	RUN_TEST(test_mixture);
	RUN_TEST(test_fused);
	RUN_TEST(test_stored_nf4);
	RUN_TEST(test_experts);
	RUN_TEST(test_yielding);
	RUN_TEST(test_refusals);
	RUN_TEST(test_cuda);
	return unit_test_finish();
}
