/*
 * train_session.h
 *	  The executor in its other role: it trains one adapter, and exits.
 *
 *	  train_options.c	the TRAIN message's JSON
 *	  train_session.c	model, trainer and job; steps, states, the adapter
 *
 * src/engine/executor/train_session.h
 */
#ifndef LLM_TRAIN_SESSION_H
#define LLM_TRAIN_SESSION_H

#include "src/engine/executor/executor.h"
#include "src/engine/train/train_job.h"

/* Bits of LlmAdapterModule: a layer's projections, and its experts'. */
#define LLM_TRAIN_ALL_TARGETS ((1u << (LLM_ADAPTER_DOWN + 1)) - 1)
#define LLM_TRAIN_EXPERT_TARGETS                                   \
	(1u << LLM_ADAPTER_EXPERT_GATE | 1u << LLM_ADAPTER_EXPERT_UP | \
	 1u << LLM_ADAPTER_EXPERT_DOWN)

/*
 * What TRAIN asks for.  Names and defaults are those of LLaMA-Factory and of
 * transformers' TrainingArguments, where they have one.
 */
typedef struct LlmTrainRequest
{
	LlmExecutorOptions model; /* path, device, dtype, num_threads */
	char dataset[4096];		  /* file, see dataset.h */
	char eval_dataset[4096];  /* or "" */
	char initial[4096];		  /* image of the adapter to go on from, or "" */
	char state[4096];		  /* file of a state to go on from, or "" */
	char checkpoint[4096];	  /* file for states, or "" */
	char output[4096];		  /* file for the trained adapter's image */
	char stage[16];			  /* sft, dpo or kto; "": as the rows are */
	int64_t max_memory_bytes; /* beside the model; 0: what there is */
	int64_t save_steps;		  /* 0: no states */
	int64_t eval_steps;		  /* 0: only at the end */
	bool eval_on_start;		  /* also before the first step, logged as step 0 */

	/*
	 * Evaluations without progress that end the training; 0: all steps are
	 * taken.  The other two are of evaluations before the state.
	 */
	int64_t early_stopping_steps;
	double best_eval_loss; /* infinity: there was none */
	int64_t n_evals_since_best;

	int32_t lora_rank;
	double lora_alpha;
	double lora_dropout;
	uint32_t targets; /* bits of LlmAdapterModule */
	bool use_rslora;
	bool use_dora;
	bool disable_gradient_checkpointing;
	LlmTrainOptions train; /* but for its pairs */
	LlmTrainJobOptions job;
} LlmTrainRequest;

extern bool llm_train_request_parse(const char *json, size_t len,
									LlmTrainRequest *request, LlmError *err);

/*
 * Train as the message says; the program's exit code.  TRAIN_LOG comes after
 * every step, TRAIN_SAVED after every state, and one TRAINED or FAILED at the
 * end.  CANCEL ends it after the step that is under way, as a FAILED.
 */
extern int
llm_train_session_run(LlmExecutor *executor, const char *json, size_t len);

#endif /* LLM_TRAIN_SESSION_H */
