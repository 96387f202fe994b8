/*
 * executor.h
 *	  The executor program: owner of a model, its KV cache and its requests.
 *
 *	  main.c				starts up, loads, runs, exits
 *	  executor_options.c	the LOAD message's JSON
 *	  executor_device.c		the device, and its memory
 *	  memory_plan.c			how memory is divided, line by line (memory_plan.h)
 *	  executor_share.c		one copy of the weights for several executors
 *	  weight_lender.c		how it comes from one to the other (weight_lender.h)
 *	  executor_warm_up.c	steps before the first request
 *	  executor_faults.c		failures made to order, in builds with asserts
 *	  executor_load.c		model directory to a ready executor
 *	  request_table.c		requests by id
 *	  constraint.c			requests with a grammar (constraint.h)
 *	  step_loop.c			receive, plan, compute, sample, send; forever
 *	  adapter_slots.c		adapters, and requests that wait for them
 *	  adapter_loader.c		the thread that loads them
 *	  row_answers.c			what each row of a step is for: draw, score, embed
 *
 * src/engine/executor/executor.h
 */
#ifndef LLM_EXECUTOR_H
#define LLM_EXECUTOR_H

#include "src/common/ipc/ipc_channel.h"
#include "src/engine/batch/batch.h"
#include "src/engine/executor/constraint.h"
#include "src/engine/executor/memory_plan.h"
#include "src/engine/executor/weight_lender.h"
#include "src/engine/model/model.h"
#include "src/engine/sample/sample.h"

/* What LOAD asks for.  Strings live as long as the struct. */
typedef struct LlmExecutorOptions
{
	char path[4096];		 /* model directory */
	char image_path[4096];	 /* model image to write; "" = none */
	char cache_dir[4096];	 /* for what was measured; "" = none */
	char share_dir[4096];	 /* where weights on a GPU are lent; "" = nowhere */
	char device[16];		 /* auto, cpu, cuda */
	char dtype[16];			 /* auto, float32, float16, bfloat16 */
	char kv_cache_dtype[16]; /* auto, float32, bfloat16, fp8, int8 */
	char quantization[16];	 /* none, int8, int4; of jobs also nf4 */
	bool dummy_weights;		 /* load_format = dummy */
	bool enable_prefix_caching;
	bool deterministic;		 /* equal requests get equal answers */
	bool enforce_eager;		 /* no CUDA graphs */
	bool measure_idle;		 /* by benchmarks alone */
	char async_stepping[16]; /* auto, on, off */
	double gpu_memory_utilization;
	int32_t max_model_len;			/* 0 = the model's, or what fits */
	int32_t max_num_seqs;			/* 0 = chosen */
	int32_t max_num_batched_tokens; /* 0 = chosen */
	int32_t block_size;				/* tokens */
	int32_t num_threads;			/* 0 = all CPUs of the affinity mask */
	int64_t kv_cache_memory_bytes;	/* 0 = chosen */
	int64_t aging_ms;
	uint64_t dummy_seed;
	int32_t max_loras; /* adapters in use at once; 0 = none */
	int32_t max_lora_rank;
	int32_t max_cpu_loras;	   /* kept in host memory; 0 = chosen */
	int32_t debug_crash_token; /* abort when a prompt holds it; -1 = off */
} LlmExecutorOptions;

extern bool
llm_executor_options_parse(const char *json, size_t len,
						   LlmExecutorOptions *options, LlmError *err);

typedef struct LlmExecRequest LlmExecRequest;

/* Requests by id; chained hash table. */
typedef struct LlmRequestTable
{
	LlmExecRequest **buckets;
	uint32_t n_buckets; /* a power of two */
	uint32_t n_requests;
} LlmRequestTable;

struct LlmExecRequest
{
	LlmExecRequest *next; /* in its bucket */
	uint64_t request_id;
	LlmSequence *sequence;	   /* owned by the planner */
	LlmSampler *sampler;	   /* GENERATE */
	LlmConstraint *constraint; /* NULL: no grammar */
	bool has_logprobs;
	uint32_t n_prompt;
	LlmRequestKind kind;

	/* SCORE */
	int32_t n_top; /* alternatives wanted beside each token */
	int32_t n_scored;
	int32_t n_scores; /* of those, sent */
	int32_t last_id;  /* the prompt's last token: scored, never computed */

	/* EMBED_MEAN */
	double *sums; /* [hidden_size] over the first n_summed tokens */
	int32_t n_summed;

	/* adapter_slots.c */
	struct LlmAdapterEntry *adapter; /* NULL: the base model */
	bool is_parked;
	LlmExecRequest *prev_parked;
	LlmExecRequest *next_parked;
	void *message; /* LlmWireRequest and its arrays, while parked */
	size_t message_bytes;
};

extern bool llm_request_table_init(LlmRequestTable *table, LlmError *err);
extern void llm_request_table_destroy(LlmRequestTable *table);
extern LlmExecRequest *
llm_request_table_add(LlmRequestTable *table, uint64_t request_id,
					  LlmError *err);
extern LlmExecRequest *
llm_request_table_find(const LlmRequestTable *table, uint64_t request_id);

/* Frees the record and what it owns; the sequence must be gone. */
extern void
llm_request_table_remove(LlmRequestTable *table, LlmExecRequest *request);

/* The rows of a step from which tokens are drawn or scored. */
typedef struct LlmDraw
{
	LlmExecRequest **requests; /* [max_num_seqs]; NULL: nobody's, or gone */
	int32_t *positions;		   /* [max_num_seqs] of the row's own token */
	int32_t n_rows;
} LlmDraw;

typedef struct LlmExecutor
{
	LlmExecutorOptions options;
	LlmChannel *channel;
	bool is_cuda;
	LlmDeviceInfo device; /* where is_cuda */
	LlmMemoryPlan memory;
	LlmCompute *compute;
	LlmWeightLender *lender; /* of its weights; NULL: not lent */
	int borrowed_arena;		 /* descriptor; 0: the weights are its own */
	bool is_background;		 /* others on the same device come first */
	LlmModelConfig config;
	LlmModel *model;
	LlmKvCacheSpec kv_spec;
	LlmKvCache *kv;
	LlmPlanner *planner;
	LlmRequestTable requests;
	struct LlmAdapterSlots *adapters; /* NULL: max_loras is 0 */
	LlmConstraints *constraints; /* NULL: there is no image, so no tokenizer */
	int32_t max_model_len;
	int32_t max_num_seqs;
	int32_t max_num_batched_tokens;
	int64_t load_us;

	/* [max_num_seqs] each, taken once at load */
	LlmSampleRow *rows;
	LlmSampleResult *results;
	LlmRowRange *ranges; /* to be summed, of planned sequence ... */
	int32_t *range_seqs;
	int32_t n_ranges;
	float *sums; /* [max_num_seqs, hidden_size] */

	bool runs_ahead; /* plans a step while the last one is computed */
	LlmDraw draws[2];
	LlmDraw *drawing; /* whose results are on the way, or NULL */
	bool was_short;	  /* of device memory, at the last step */

	int64_t busy_from_us; /* not counted yet, while there is work */
	uint64_t busy_us;
	int64_t next_stats_us;
} LlmExecutor;

/*
 * executor_device.c: where a model runs, and its sizes there.  The budget of
 * the KV cache is computed when the sizes of steps are chosen.
 */
extern bool llm_executor_choose_device(LlmExecutor *executor, LlmError *err);
extern bool
llm_executor_kv_budget(LlmExecutor *executor, int64_t *budget, LlmError *err);
extern int64_t llm_executor_gpu_weight_bytes(const LlmExecutor *executor);
/* For rotary tables and what allocations are rounded up by. */
#define LLM_GPU_MARGIN_BYTES ((int64_t) 256 << 20)
/* After choosing the cache's size: the plan's last lines. */
extern void llm_executor_complete_memory(LlmExecutor *executor);
extern LlmComputeOptions
llm_executor_compute_options(const LlmExecutor *executor, LlmDtype precision);
extern LlmDtype llm_executor_weight_dtype(const LlmExecutor *executor);
extern LlmModelOptions
llm_executor_model_options(const LlmExecutor *executor, LlmDtype weight_dtype);

/*
 * executor_share.c: another executor may use the weights that were loaded; or
 * load_model is to use another's where there are such weights.  Either says in
 * the log why it is not so.
 */
extern void llm_executor_lend_weights(LlmExecutor *executor);
extern bool llm_executor_borrow_weights(LlmExecutor *executor);
extern void llm_executor_return_weights(LlmExecutor *executor);

/*
 * executor_faults.c: with asserts, operations fail as the file says that the
 * environment variable LLM_DEBUG_FAULTS names; without them nothing happens.
 */
extern void llm_executor_arm_faults(LlmExecutor *executor);

/* executor_warm_up.c: run the steps that choose and record; on a GPU. */
extern bool llm_executor_warm_up(LlmExecutor *executor, LlmError *err);

/* -- row_answers.c -- */

/*
 * Make a request that generates nothing ready: its kind, and what the planner
 * is to compute.  Call with planned describing the whole prompt.
 */
extern bool
llm_executor_prepare_answer(const LlmExecutor *executor,
							LlmExecRequest *request, const LlmWireRequest *wire,
							LlmPlannerRequest *planned, LlmError *err);

/*
 * Whose the step's rows and ranges are, and what its inputs say of them.
 * Nothing depends on tokens that are not known yet.
 */
extern void
llm_executor_assign_rows(LlmExecutor *executor, const LlmPlannedStep *step,
						 LlmStepInputs *inputs, LlmDraw *draw);

/*
 * Fill executor->rows, all tokens before them being known, and have grammars'
 * masks computed, which is to be waited for.
 */
extern void llm_executor_fill_rows(LlmExecutor *executor, const LlmDraw *draw);

/*
 * After the step: add the sums of a sequence's tokens to its request.  True:
 * they are all there, and *embedding [hidden_size] is the answer.
 */
extern bool
llm_executor_take_sums(LlmExecutor *executor, const LlmPlannedStep *step,
					   int32_t range_idx, float **embedding);

/* Make an executor ready to serve.  On failure what was taken is freed. */
extern bool llm_executor_load(LlmExecutor *executor, LlmError *err);
extern void llm_executor_unload(LlmExecutor *executor);

/*
 * The compute backend and the model alone, without a cache and requests: to be
 * trained on.  config, device and sizes are set.
 */
extern bool llm_executor_load_model(LlmExecutor *executor, LlmError *err);

/* Append the JSON of LOADED. */
extern void llm_executor_describe(const LlmExecutor *executor, LlmStrbuf *json);

/* Serve until the channel closes or STOP arrives; the program's exit code. */
extern int llm_executor_run(LlmExecutor *executor);

/* -- step_loop.c: what adapter_slots.c needs of it -- */

/* The executor cannot trust its state any more: the scheduler starts over. */
extern void __attribute__((noreturn))
llm_executor_give_up(LlmExecutor *executor, const LlmError *err);

/* Queue a frame, or give up. */
extern void
llm_executor_send(LlmExecutor *executor, LlmMessageType type,
				  uint64_t request_id, const void *payload, size_t n_bytes);

/* The planner may have it; a request that it refuses has failed. */
extern void
llm_executor_start_request(LlmExecutor *executor, LlmExecRequest *request,
						   const LlmWireRequest *wire, size_t n_bytes);

/* Tell the scheduler, and forget it. */
extern void
llm_executor_fail_request(LlmExecutor *executor, LlmExecRequest *request,
						  const LlmError *why);

/* Queue a line for the server's log. */
extern void
llm_executor_log(LlmExecutor *executor, bool is_warning, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Wait until all queued frames are written, the other end permitting. */
extern void llm_executor_flush(LlmExecutor *executor);

#endif /* LLM_EXECUTOR_H */
