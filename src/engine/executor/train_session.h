/*
 * train_session.h
 *	  The executor in its other role: it trains one adapter, and exits.
 *
 * train_session_internal.h lists the files.
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
	char baseline[4096];	  /* image to evaluate before the first step (with
							   * eval_on_start), or "": the adapter itself */
	char state[4096];		  /* file of a state to go on from, or "" */
	char checkpoint[4096];	  /* file for states, or "" */
	char output[4096];		  /* file for the trained adapter's image */
	char stage[16];			  /* sft, dpo or kto; "": as the rows are */
	int64_t max_memory_bytes; /* beside the model; 0: what there is */
	char busy_sign[4096];	  /* file, see busy_sign.h, or "" */
	bool yield_to_serving;	  /* pause while there are requests */
	int64_t max_yield_ms;	  /* for a micro-batch, in all */
	int64_t save_steps;		  /* 0: no states */
	int64_t eval_steps;		  /* 0: only at the end */
	bool eval_on_start;		  /* also before the first step, logged as step 0 */

	/*
	 * Evaluations without progress that end the training; 0: all steps are
	 * taken.
	 */
	int64_t early_stopping_steps;
	bool load_best; /* the adapter is that of the best evaluation */

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
