/*
 * train_session.c
 *	  One job, from the TRAIN message to the trained adapter.
 *
 * src/engine/executor/train_session.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/util/clock.h"
#include "src/common/util/json.h"
#include "src/common/util/mapped_file.h"
#include "src/engine/executor/train_session_internal.h"

/* Labels whose logits exist at a time. */
#define GPU_LOGIT_ROWS 2048
#define NO_REWARDS ((LlmWireTrainRewards){ NAN, NAN, NAN, NAN })

/* ------------------------------------------------------------------------
 * Pairs
 * ------------------------------------------------------------------------
 */

/* A module's weight as the checkpoint stores it. */
bool
train_find_spec(const LlmModelConfig *config, LlmWeightRole role,
				int32_t layer_idx, LlmWeightSpec *spec)
{
	for (int i = 0; llm_model_weight_spec(config, i, spec); i++)
	{
		if (spec->role == role && spec->layer_idx == layer_idx)
			return true;
	}
	return false;
}

/*
 * Modules that are stored as one are one in PEFT's adapters: who targets a
 * part gets all, with one A.
 */
static uint32_t
whole_modules(const LlmModelConfig *config, uint32_t targets)
{
	static const uint32_t groups[] = {
		1u << LLM_ADAPTER_Q | 1u << LLM_ADAPTER_K | 1u << LLM_ADAPTER_V,
		1u << LLM_ADAPTER_GATE | 1u << LLM_ADAPTER_UP
	};
	LlmWeightSpec spec;

	if ((targets & groups[0]) != 0 &&
		train_find_spec(config, LLM_WEIGHT_K, 0, &spec) && spec.first_row > 0)
		targets |= groups[0];
	if ((targets & groups[1]) != 0 &&
		train_find_spec(config, LLM_WEIGHT_UP, 0, &spec) && spec.first_row > 0)
		targets |= groups[1];
	return targets;
}

static void
add_pair(TrainSession *s, int32_t layer_idx, LlmAdapterModule module,
		 int32_t expert_idx, bool shares_a)
{
	LlmTrainRequest *r = &s->request;
	const double root = r->use_rslora ? sqrt(r->lora_rank) : r->lora_rank;

	s->pairs[r->train.n_pairs++] = (LlmTrainPair){
		.layer_idx = layer_idx,
		.module = module,
		.expert_idx = expert_idx,
		.rank = r->lora_rank,
		.scale = (float) (r->lora_alpha / root),
		.has_magnitude = r->use_dora,
		.shares_a = shares_a,
	};
}

/* Those of a layer; the modules that it has. */
static uint32_t
add_layer_pairs(TrainSession *s, int32_t layer_idx)
{
	const LlmModelConfig *config = &s->executor->config;
	const uint32_t targets = s->request.targets;
	uint32_t found = 0;
	LlmWeightSpec spec;

	for (int m = 0; m <= LLM_ADAPTER_DOWN; m++)
	{
		if ((targets >> m & 1) == 0 ||
			!train_find_spec(config,
							 llm_adapter_module_weight((LlmAdapterModule) m),
							 layer_idx, &spec))
			continue;
		found |= 1u << m;
		add_pair(s, layer_idx, (LlmAdapterModule) m, 0, spec.first_row > 0);
	}
	if (!llm_layer_set_has(&config->expert_layers, layer_idx))
		return found;
	for (int32_t e = 0; e < config->n_experts; e++)
	{
		for (int m = LLM_ADAPTER_EXPERT_GATE; m <= LLM_ADAPTER_EXPERT_DOWN; m++)
		{
			if ((targets >> m & 1) != 0)
				add_pair(s, layer_idx, (LlmAdapterModule) m, e, false);
		}
	}
	return found | LLM_TRAIN_EXPERT_TARGETS;
}

static bool
choose_pairs(TrainSession *s, LlmError *err)
{
	LlmTrainRequest *r = &s->request;
	const LlmModelConfig *config = &s->executor->config;
	const size_t capacity =
		(size_t) config->n_layers *
		(LLM_ADAPTER_DOWN + 1 + 3 * (size_t) config->n_experts);
	uint32_t found = 0;

	s->pairs = calloc(capacity, sizeof(LlmTrainPair));
	if (s->pairs == NULL)
		return llm_error_no_memory(err, capacity * sizeof(LlmTrainPair),
								   "the pairs of a job");
	r->targets = whole_modules(config, r->targets);
	for (int32_t i = 0; i < config->n_layers; i++)
		found |= add_layer_pairs(s, i);
	r->train.pairs = s->pairs;
	/* "all" are those that there are: mixtures of experts lack some */
	if ((r->targets & LLM_TRAIN_ALL_TARGETS) == LLM_TRAIN_ALL_TARGETS)
		found |= LLM_TRAIN_ALL_TARGETS;
	for (int m = 0; m < LLM_ADAPTER_MODULE_COUNT; m++)
	{
		if ((r->targets & ~found & 1u << m) != 0)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "no layer of the model has a module \"%s\" "
								 "that an adapter could change",
								 llm_adapter_module_name((LlmAdapterModule) m));
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Opening
 * ------------------------------------------------------------------------
 */
static bool
open_dataset(const char *path, int32_t n_vocab, LlmMappedFile *file,
			 LlmDataset **dataset, LlmError *err)
{
	if (!llm_mapped_file_open(file, path, err))
		return false;
	*dataset = llm_dataset_open(file->data, file->size, n_vocab, err);
	return *dataset != NULL;
}

static bool
open_datasets(TrainSession *s, LlmError *err)
{
	const LlmTrainRequest *r = &s->request;
	int32_t n_vocab = s->executor->config.n_vocab;

	if (!open_dataset(r->dataset, n_vocab, &s->dataset_file, &s->dataset, err))
		return false;
	if (r->eval_dataset[0] == '\0')
		return true;
	if (!open_dataset(r->eval_dataset, n_vocab, &s->eval_file, &s->eval_dataset,
					  err))
		return false;
	if (llm_dataset_kind(s->eval_dataset) != llm_dataset_kind(s->dataset))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the held-out rows are of another kind than "
							 "those to train on");
	return true;
}

/* A stage that is named must be the one that the rows are made for. */
static bool
check_stage(const TrainSession *s, LlmError *err)
{
	static const struct
	{
		const char *stage;
		const char *rows;
	} kinds[] = {
		[LLM_DATASET_PLAIN] = { "sft", "plain texts" },
		[LLM_DATASET_PAIRS] = { "dpo", "pairs of answers" },
		[LLM_DATASET_SINGLES] = { "kto", "answers with a verdict" },
	};
	const char *stage = s->request.stage;
	LlmDatasetKind kind = llm_dataset_kind(s->dataset);

	if (stage[0] == '\0' || strcmp(stage, kinds[kind].stage) == 0)
		return true;
	return llm_error_set(err, LLM_ERROR_INVALID,
						 "stage \"%s\" cannot be trained on %s, which are "
						 "for \"%s\"",
						 stage, kinds[kind].rows, kinds[kind].stage);
}

/* The sizes of the device's scratch, and of labels' logits. */
static void
choose_sizes(TrainSession *s)
{
	LlmExecutor *e = s->executor;
	LlmTrainRequest *r = &s->request;

	e->max_model_len = r->job.max_segment;
	e->max_num_batched_tokens = r->job.max_tokens;
	/* fewer rows would be multiplied faster than the head is read */
	if (e->is_cuda)
		r->train.max_logit_rows = r->job.max_tokens < GPU_LOGIT_ROWS
									  ? r->job.max_tokens
									  : GPU_LOGIT_ROWS;
	e->max_num_seqs = r->train.max_logit_rows;
}

/*
 * With the weights of an executor that serves, where they can be had; what the
 * job takes is planned for the one case or the other.
 */
static bool
load_model(TrainSession *s, LlmError *err)
{
	LlmExecutor *e = s->executor;
	LlmError why = { 0 };

	e->options = s->request.model;
	e->options.max_loras = 0;
	e->is_background = true;
	if (!llm_executor_choose_device(e, err))
		return false;
	choose_sizes(s);
	if (llm_executor_borrow_weights(e))
	{
		if (!train_plan_memory(e, &s->request, err))
			return false;
		if (llm_executor_load_model(e, &why))
		{
			llm_executor_log(
				e, false,
				"the job uses the weights of the executor that "
				"serves%s",
				e->compute->is_arena_guarded ? ", for reading alone" : "");
			return true;
		}
		llm_executor_log(e, false, "the job loads weights of its own: %s",
						 why.message);
		llm_executor_unload(e);
	}
	return train_plan_memory(e, &s->request, err) &&
		   llm_executor_load_model(e, err);
}

static bool
session_open(TrainSession *s, LlmError *err)
{
	LlmExecutor *e = s->executor;
	LlmTrainRequest *r = &s->request;

	if (!llm_model_config_read(r->model.path, &e->config, err))
		return false;
	if (r->job.max_segment > e->config.max_position)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "cutoff_len %d is beyond the model's context of "
							 "%d tokens",
							 r->job.max_segment, e->config.max_position);
	if (!open_datasets(s, err) || !check_stage(s, err) ||
		!choose_pairs(s, err) || !load_model(s, err))
		return false;
	if (r->initial[0] != '\0')
	{
		s->initial = llm_adapter_image_open(r->initial, &e->config, err);
		if (s->initial == NULL)
			return false;
		r->train.initial = s->initial;
	}
	if (!llm_train_check(e->model, &r->train, err) ||
		!train_yield_open(&s->yield, e, r, err))
		return false;
	r->train.turn = r->yield_to_serving ? train_yield_turn : NULL;
	r->train.turn_arg = &s->yield;
	s->trainer = llm_trainer_create(e->model, &r->train, err);
	if (s->trainer == NULL)
		return false;
	s->job = llm_train_job_create(s->trainer, s->dataset, s->eval_dataset,
								  &r->job, err);
	return s->job != NULL;
}

static void
session_close(TrainSession *s)
{
	llm_train_job_free(s->job);
	llm_trainer_free(s->trainer);
	llm_adapter_image_close(s->initial);
	llm_dataset_close(s->dataset);
	llm_dataset_close(s->eval_dataset);
	llm_mapped_file_close(&s->dataset_file);
	llm_mapped_file_close(&s->eval_file);
	llm_strbuf_free(&s->best);
	free(s->pairs);
	llm_executor_unload(s->executor);
}

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */

/* Whether the other end wants no more of it, or is gone. */
static bool
is_cancelled(TrainSession *s, LlmError *err)
{
	LlmFrameHeader header;
	const void *payload;

	for (;;)
	{
		switch (
			llm_channel_receive(s->executor->channel, &header, &payload, err))
		{
			case LLM_RECEIVE_CLOSED:
				_exit(0);
			case LLM_RECEIVE_NOTHING:
				return false;
			case LLM_RECEIVE_FRAME:
				break;
		}
		if (header.type == LLM_MESSAGE_STOP)
			_exit(0);
		if (header.type == LLM_MESSAGE_CANCEL)
		{
			llm_error_set(err, LLM_ERROR_CANCELLED, "the job was cancelled");
			return true;
		}
	}
}

static LlmWireTrainRewards
wire_rewards(const LlmTrainRewards *rewards)
{
	return (LlmWireTrainRewards){ rewards->accuracy, rewards->chosen,
								  rewards->rejected, rewards->margin };
}

/* Evaluate into the step's message. */
static bool
evaluate(TrainSession *s, LlmWireTrainLog *wire, LlmError *err)
{
	LlmTrainEval eval;

	if (!llm_train_job_evaluate(s->job, &eval, err))
		return false;
	wire->eval_loss = eval.loss;
	wire->eval_rewards = wire_rewards(&eval.rewards);
	s->progress.last_loss = eval.loss;
	return true;
}

/*
 * A step's evaluation beside those before: what is the best is kept, and no
 * progress for too long ends the job.  As in transformers, the evaluation
 * before the first step is none of these.
 */
static bool
compare_evaluation(TrainSession *s, int64_t step, double loss, LlmError *err)
{
	const LlmTrainRequest *r = &s->request;
	TrainProgress *progress = &s->progress;

	if (loss < progress->best_loss)
	{
		progress->best_loss = loss;
		progress->best_step = step;
		progress->n_evals_since_best = 0;
		return !r->load_best || train_keep_best(s, err);
	}
	progress->n_evals_since_best++;
	s->is_stopped = r->early_stopping_steps > 0 &&
					progress->n_evals_since_best >= r->early_stopping_steps;
	return true;
}

static bool
report_step(TrainSession *s, const LlmTrainLog *log, int64_t start_us,
			LlmError *err)
{
	const LlmTrainRequest *r = &s->request;
	bool is_last = log->step == log->n_steps;
	LlmWireTrainLog wire = {
		.step = log->step,
		.n_steps = log->n_steps,
		.n_tokens = log->n_tokens,
		.n_labels = log->n_labels,
		.step_us = llm_clock_us() - start_us,
		.epoch = log->epoch,
		.loss = log->loss,
		.learning_rate = log->learning_rate,
		.grad_norm = log->grad_norm,
		.rewards = wire_rewards(&log->rewards),
		.eval_loss = NAN,
		.eval_rewards = NO_REWARDS,
	};

	if (s->eval_dataset != NULL &&
		(is_last || (r->eval_steps > 0 && log->step % r->eval_steps == 0)) &&
		(!evaluate(s, &wire, err) ||
		 !compare_evaluation(s, log->step, wire.eval_loss, err)))
		return false;
	llm_executor_send(s->executor, LLM_MESSAGE_TRAIN_LOG, 0, &wire,
					  sizeof(wire));
	return !(r->save_steps > 0 && r->checkpoint[0] != '\0' && !is_last &&
			 log->step % r->save_steps == 0) ||
		   train_save_state(s, log->step, err);
}

/* How good it is before it learns. */
static bool
report_start(TrainSession *s, LlmError *err)
{
	LlmWireTrainLog wire = {
		.n_steps = llm_train_job_n_steps(s->job),
		.loss = NAN,
		.learning_rate = NAN,
		.grad_norm = NAN,
		.rewards = NO_REWARDS,
	};

	if (s->eval_dataset == NULL || !s->request.eval_on_start ||
		llm_trainer_n_steps(s->trainer) > 0)
		return true;
	if (!evaluate(s, &wire, err))
		return false;
	s->progress.baseline_loss = wire.eval_loss;
	if (s->request.baseline[0] != '\0' && !train_measure_baseline(s, err))
		return false;
	llm_executor_send(s->executor, LLM_MESSAGE_TRAIN_LOG, 0, &wire,
					  sizeof(wire));
	return true;
}

/* What a preference is compared with, before the first step. */
static bool
refer(TrainSession *s, LlmError *err)
{
	bool is_done = false;

	while (!is_done)
	{
		if (is_cancelled(s, err) || !llm_train_job_refer(s->job, &is_done, err))
			return false;
	}
	return true;
}

static bool
session_train(TrainSession *s, LlmError *err)
{
	LlmTrainLog log = { 0 };
	bool is_done = false;

	if (!train_load_state(s, err) || !refer(s, err) || !report_start(s, err))
		return false;
	while (!s->is_stopped)
	{
		int64_t start_us = llm_clock_us();

		if (is_cancelled(s, err))
			return false;
		if (!llm_train_job_step(s->job, &log, &is_done, err))
			break;
		if (!report_step(s, &log, start_us, err))
			return false;
		llm_executor_flush(s->executor);
	}
	return (is_done || s->is_stopped) && train_write_adapter(s, err);
}

/* What became of it. */
static void
send_trained(TrainSession *s)
{
	const TrainProgress *progress = &s->progress;
	LlmWireTrained trained = {
		.step = llm_trainer_n_steps(s->trainer),
		.eval_loss = progress->last_loss,
		.baseline_loss = progress->baseline_loss,
	};

	if (s->best.len > 0)
	{
		trained.step = progress->best_step;
		trained.eval_loss = progress->best_loss;
	}
	llm_executor_send(s->executor, LLM_MESSAGE_TRAINED, 0, &trained,
					  sizeof(trained));
}

int
llm_train_session_run(LlmExecutor *executor, const char *json, size_t len)
{
	TrainSession session = {
		.executor = executor,
		.progress = { .best_loss = INFINITY,
					  .last_loss = NAN,
					  .baseline_loss = NAN },
	};
	LlmError err = { 0 };
	bool ok;

	ok = llm_train_request_parse(json, len, &session.request, &err) &&
		 session_open(&session, &err) && session_train(&session, &err);
	train_yield_close(&session.yield);
	if (ok)
		send_trained(&session);
	else
		llm_executor_send(executor, LLM_MESSAGE_FAILED, 0, &err, sizeof(err));
	llm_executor_flush(executor);
	session_close(&session);
	return 0;
}
