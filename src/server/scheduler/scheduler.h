/*
 * scheduler.h
 *	  How SQL functions (and other front ends) use the models: submit a
 *	  request, wait for its tokens, cancel it; load and unload models.
 *
 * A request belongs to the memory context it was created in: when that is
 * reset or deleted - at the end of the statement, on error, on cancel, on
 * subtransaction abort - its slot is given up, whatever state it is in.
 * Nothing here is to be called outside a transaction's normal flow of control
 * (ereport is used throughout).
 *
 * src/server/scheduler/scheduler.h
 */
#ifndef LLM_SCHEDULER_H
#define LLM_SCHEDULER_H

#include "postgres.h"

#include "src/common/ipc/ipc_message.h"
#include "src/common/util/error.h"
#include "src/common/util/sha256.h"
#include "utils/timestamp.h"

#define LLM_MODEL_NAME_BYTES NAMEDATALEN

/* Raises 55000 where the library was not preloaded. */
extern void llm_scheduler_require(void);

/* Set the scheduler's latch, if there is a scheduler. */
extern void llm_scheduler_wake(void);

typedef struct LlmRequest LlmRequest;

typedef struct LlmRequestSpec
{
	LlmRequestKind kind;
	uint32 n_scored;		 /* SCORE: of the prompt's last tokens; also
							  * params.max_tokens */
	int model_idx;			 /* from LlmModelInfo */
	uint32 model_generation; /* likewise: the request fails cleanly where
								 * the model was replaced in between */
	const int32 *prompt_ids; /* copied */
	uint32 n_prompt;
	LlmSamplingParams params;
	const int32 *stop_ids; /* besides the model's own */
	uint32 n_stop_ids;
	const LlmWireBias *bias;
	uint32 n_bias;
	const uint32 *grammar; /* a compiled program */
	uint32 n_grammar_words;
	bool is_batch; /* one of many rows of a statement */
	uint64 cache_salt;
	uint8 adapter[LLM_SHA256_BYTES]; /* hash of an image whose file exists
									  * (adapter_files.h); zeros: none */
	int timeout_ms;					 /* 0 = none besides statement_timeout */
} LlmRequestSpec;

typedef struct LlmTopLogprob
{
	int32 token_id;
	float4 logprob;
} LlmTopLogprob;

/* What has arrived so far; grows while the request runs. */
typedef struct LlmRequestResult
{
	bool is_finished;
	LlmFinishReason reason; /* once finished */
	const LlmError *error;	/* set where the request failed (reason
							 * LLM_FINISH_ERROR) */
	uint32 n_prompt;
	uint32 n_cached; /* once finished */
	uint32 n_tokens;
	const int32 *token_ids; /* [n_tokens] */
	bool has_logprobs;
	const float4 *logprobs;	  /* [n_tokens] */
	const uint32 *n_top;	  /* [n_tokens] */
	const LlmTopLogprob *top; /* [n_tokens][LLM_MAX_LOGPROBS] */
	uint32 n_floats;
	const float4 *embedding; /* [n_floats], of requests to embed */
} LlmRequestResult;

/*
 * Take a slot and queue the request.  Waits for a free slot where
 * llm_ext.queue_wait is on, else raises 53000 with the setting to raise.
 * NULL: the model was replaced or unloaded since the caller looked it up, so
 * the prompt may be wrong; look it up again.
 */
extern LlmRequest *llm_request_submit(const LlmRequestSpec *spec);

/*
 * Of many requests the last ones may have been queued without waking the
 * scheduler: do that now.  Waiting does, too; for callers that go on with
 * something else.
 */
extern void llm_request_announce(void);

/*
 * Could one more request be submitted now without waiting for a slot?  Others
 * may be faster, so this is only good for not asking in vain.
 */
extern bool llm_request_has_room(void);

/*
 * Collect what has arrived, without waiting.  A failed request is a result with
 * an error, not an ereport: the caller may want NULL for that row.  The result
 * is valid until the next call for this request.
 */
extern const LlmRequestResult *llm_request_poll(LlmRequest *request);

/*
 * May there be more to poll for some request of this process since the last
 * time that this was asked, or waited for?
 */
extern bool llm_request_has_news(void);

/* Wait until there is more to poll.  Interruptible. */
extern const LlmRequestResult *llm_request_wait(LlmRequest *request);

/*
 * Wait until there may be more to poll for some request of this process, or a
 * while has passed.  Interruptible.  For callers that poll several: poll all,
 * and wait where that brought nothing.
 */
extern void llm_request_wait_any(void);

/* Give the slot up, finished or not.  The memory goes with its context. */
extern void llm_request_release(LlmRequest *request);

/* -- models -- */

typedef enum LlmModelState
{
	LLM_MODEL_EMPTY = 0,
	LLM_MODEL_LOADING, /* nothing to serve with yet */
	LLM_MODEL_READY,
	LLM_MODEL_FAILED /* the configured model could not be loaded */
} LlmModelState;

/* A snapshot of one entry of the model table. */
typedef struct LlmModelInfo
{
	int model_idx;
	uint32 generation; /* changes with every (re)load */
	LlmModelState state;
	bool is_default;
	char name[LLM_MODEL_NAME_BYTES];
	char path[MAXPGPATH];
	char image_path[MAXPGPATH]; /* tokenizer and template, see
										 * model_image.h */
	int32 max_model_len;
	int32 n_vocab;
	int32 max_lora_rank; /* of adapters that it serves; 0: none */
	TimestampTz loaded_at;
	LlmError error; /* of the last attempt, while not READY */
} LlmModelInfo;

/*
 * Look a model up by name; NULL = the default one.  Waits while it is LOADING
 * for the first time (interruptible).  Raises an error where there is none or
 * it has FAILED.  Does not check rights.
 */
extern void llm_scheduler_get_model(const char *name, LlmModelInfo *info);

/* All entries; returns their number, the array is palloc'ed. */
extern int llm_scheduler_list_models(LlmModelInfo **infos);

/*
 * Load a model and serve it under a name, replacing the one of that name when
 * the new one is ready; if it fails, the old one keeps serving and the error
 * is raised here.  options_json: an object of executor options.  Waits until
 * done; cancelling the wait cancels the load.
 */
extern void llm_scheduler_load_model(const char *name, const char *path,
									 const char *options_json);

/* Requests in flight finish first; new ones are refused at once. */
extern void llm_scheduler_unload_model(const char *name);

extern void llm_scheduler_set_default_model(const char *name);

/* -- views -- */

typedef struct LlmActivityRow
{
	uint32 slot_idx;
	uint32 generation;
	const char *state; /* static string */
	int pid;
	Oid role_id;
	Oid database_id;
	char model[LLM_MODEL_NAME_BYTES];
	int executor_pid; /* 0 = none yet */
	bool is_batch;
	uint32 n_prompt;
	uint32 n_output;
	uint32 max_tokens;
	TimestampTz submitted_at;
} LlmActivityRow;

typedef struct LlmExecutorRow
{
	int executor_idx;
	int pid;
	char model[LLM_MODEL_NAME_BYTES];
	const char *state; /* static string: starting, loading, ready,
								 * draining, backing off */
	char device[64];
	char facts[4096]; /* the JSON text of LOADED */
	uint32 n_restarts;
	uint32 n_in_flight; /* requests assigned to it */
	TimestampTz started_at;
	LlmWireStats stats;
} LlmExecutorRow;

/* Counters since the server started. */
typedef struct LlmSchedulerCounters
{
	uint64 n_requests;
	uint64 n_finished;
	uint64 n_failed;
	uint64 n_cancelled;
	uint64 n_resumed; /* sent again after an executor died */
	uint64 n_refused; /* queue full */
	uint64 n_prompt_tokens;
	uint64 n_cached_tokens;
	uint64 n_generated_tokens;
	uint64 n_executor_deaths;
	uint32 n_slots;
	uint32 n_free_slots;
	int scheduler_pid; /* 0 while it is not running */
	TimestampTz scheduler_started_at;
} LlmSchedulerCounters;

/* What requests made of an adapter since the server, or a scheduler, began. */
typedef struct LlmAdapterRow
{
	uint8 digest[LLM_SHA256_BYTES];
	const char *residency; /* static string */
	uint64 n_bytes;
	uint64 n_requests;
	uint64 n_tokens;
	TimestampTz used_at; /* 0: never */
} LlmAdapterRow;

extern int llm_scheduler_list_adapters(LlmAdapterRow **rows);

typedef struct LlmUsageCounts
{
	uint64 n_requests;		/* ended, one way or another */
	uint64 n_prompt_tokens; /* computed or found in the prefix cache */
	uint64 n_cached_tokens; /* of those, found there */
	uint64 n_output_tokens; /* generated */
} LlmUsageCounts;

/* Without padding: keys are hashed as bytes. */
typedef struct LlmUsageKey
{
	uint8 adapter[LLM_SHA256_BYTES]; /* zeros: the base model */
	Oid role_id;					 /* InvalidOid: those that found no room */
	Oid database_id;
	int32 day; /* a date: days since 2000-01-01, in UTC */
	uint32 reserved;
	char model[LLM_MODEL_NAME_BYTES];
} LlmUsageKey;

typedef struct LlmUsageEntry
{
	LlmUsageKey key;
	LlmUsageCounts counts;
} LlmUsageEntry;

/* All accounts; returns their number, the array is palloc'ed. */
extern int llm_scheduler_list_usage(LlmUsageEntry **rows);

/* Prompt and output tokens of a role today, in all databases. */
extern uint64 llm_scheduler_used_tokens(Oid role_id);

extern int llm_scheduler_list_activity(LlmActivityRow **rows);
extern int llm_scheduler_list_executors(LlmExecutorRow **rows);
extern void llm_scheduler_get_counters(LlmSchedulerCounters *counters);

/*
 * Paths that training executors are told: where weights on a GPU are lent, and
 * the sign of requests (busy_sign.h).  Valid until the next call.
 */
extern const char *llm_image_folder(void);
extern const char *llm_busy_sign_path(void);

#endif /* LLM_SCHEDULER_H */
