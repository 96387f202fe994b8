/*
 * ipc_message.h
 *	  What the scheduler and an executor say to each other.
 *
 * The channel is a byte stream (a socket pair today; a connection to another
 * host could carry it too) of frames: a fixed header, then n_bytes of payload.
 * Both ends run the same build of the same host type, so structs travel as
 * they are; the version in each header makes a mix-up an error.  Payload
 * arrays follow their struct without padding, each 4-byte aligned.
 *
 * Requests are named by an id that the scheduler never reuses.  The executor
 * answers every REQUEST with any number of TOKENS and exactly one FINISHED or
 * FAILED, also after a CANCEL (a FINISHED with LLM_FINISH_CANCELLED), so both
 * sides always agree on who is still there.
 *
 * src/common/ipc/ipc_message.h
 */
#ifndef LLM_IPC_MESSAGE_H
#define LLM_IPC_MESSAGE_H

#include "src/common/util/error.h"
#include "src/common/util/sampling_params.h"

#define LLM_IPC_VERSION 1

/* A frame larger than this is a protocol error. */
#define LLM_IPC_MAX_FRAME_BYTES (64u << 20)

/* The executor finds its channel here. */
#define LLM_IPC_EXECUTOR_FD 3

typedef enum LlmMessageType
{
	/* scheduler to executor */
	LLM_MESSAGE_LOAD = 1,		/* JSON text, see LlmExecutorOptions */
	LLM_MESSAGE_REQUEST,		/* LlmWireRequest and its arrays */
	LLM_MESSAGE_CANCEL,			/* empty; a request that is gone is ignored */
	LLM_MESSAGE_STOP,			/* empty; finish nothing, exit with 0 */
	LLM_MESSAGE_ADAPTER,		/* LlmWireAdapter and its path */
	LLM_MESSAGE_ADAPTER_FORGET, /* LlmWireAdapter without a path */
	LLM_MESSAGE_TRAIN, /* instead of LOAD: JSON text, see LlmTrainRequest */

	/* executor to scheduler */
	LLM_MESSAGE_LOADED = 64,   /* JSON text: facts of the loaded model */
	LLM_MESSAGE_LOAD_FAILED,   /* LlmError; the executor then exits */
	LLM_MESSAGE_TOKENS,		   /* LlmWireTokens and its entries */
	LLM_MESSAGE_FINISHED,	   /* LlmWireFinished */
	LLM_MESSAGE_FAILED,		   /* LlmError: this request cannot be served */
	LLM_MESSAGE_STATS,		   /* LlmWireStats, about once a second */
	LLM_MESSAGE_LOG,		   /* LlmWireLog and its text */
	LLM_MESSAGE_ADAPTER_STATE, /* LlmWireAdapterState, when it changes */
	LLM_MESSAGE_EMBEDDING,	   /* float [hidden_size], once, before FINISHED */
	LLM_MESSAGE_TRAIN_LOG,	   /* LlmWireTrainLog, after each step */
	LLM_MESSAGE_TRAIN_SAVED,   /* LlmWireTrainSaved: there is a new state */
	LLM_MESSAGE_TRAINED /* LlmWireTrained: the adapter is written; then it
						 * exits */
} LlmMessageType;

typedef struct LlmFrameHeader
{
	uint32_t n_bytes;	 /* of the payload */
	uint16_t type;		 /* LlmMessageType */
	uint16_t version;	 /* LLM_IPC_VERSION */
	uint64_t request_id; /* 0 where the message is about none */
} LlmFrameHeader;

_Static_assert(sizeof(LlmFrameHeader) == 16, "wire layout");

/*
 * Followed by int32 prompt_ids[n_prompt], int32 output_ids[n_output], int32
 * stop_ids[n_stop_ids], {int32 token_id; float bias}[n_bias], uint32
 * grammar[n_grammar_words].  output_ids are tokens that an earlier executor
 * generated for the same request: generation goes on behind them as if it had
 * never stopped.
 *
 * A request to SCORE generates nothing: its tokens are the last n_scored ones
 * of the prompt, in TOKENS with log-probabilities; max_tokens is n_scored.  A
 * request to embed is answered with an EMBEDDING instead of TOKENS.
 */
typedef enum LlmRequestKind
{
	LLM_REQUEST_GENERATE = 0,
	LLM_REQUEST_SCORE,
	LLM_REQUEST_EMBED_LAST, /* the last token's final hidden state */
	LLM_REQUEST_EMBED_MEAN, /* the mean of all tokens' */
	LLM_REQUEST_KIND_COUNT
} LlmRequestKind;

typedef struct LlmWireRequest
{
	LlmSamplingParams params;
	uint64_t cache_salt;	/* 0 = shared prefix cache */
	uint64_t adapter_id;	/* 0 = base model */
	uint32_t request_class; /* 0 interactive, 1 batch */
	uint32_t tenant_id;		/* fairness is between these */
	uint32_t n_prompt;
	uint32_t n_output;
	uint32_t n_stop_ids;
	uint32_t n_bias;
	uint32_t n_grammar_words; /* 0: no grammar */
	uint32_t kind;			  /* LlmRequestKind */
	uint32_t n_scored;		  /* SCORE: 1 to n_prompt - 1; else 0 */
	uint32_t reserved;
} LlmWireRequest;

_Static_assert(sizeof(LlmWireRequest) == 112, "wire layout");

typedef struct LlmWireBias
{
	int32_t token_id;
	float bias;
} LlmWireBias;

/*
 * Followed by n_tokens entries: int32 token_id; where has_logprobs also float
 * logprob, uint32 n_top, n_top times {int32 token_id; float logprob}.
 */
typedef struct LlmWireTokens
{
	uint32_t n_tokens;
	uint32_t has_logprobs;
} LlmWireTokens;

typedef enum LlmFinishReason
{
	LLM_FINISH_NONE = 0,
	LLM_FINISH_STOP,   /* an eos or stop token */
	LLM_FINISH_LENGTH, /* max_tokens, or the context is full */
	LLM_FINISH_CANCELLED,
	LLM_FINISH_ERROR
} LlmFinishReason;

typedef struct LlmWireFinished
{
	uint32_t reason;   /* LlmFinishReason */
	uint32_t n_prompt; /* computed or found in the prefix cache: all, unless
						* it was cancelled */
	uint32_t n_cached; /* of the prompt, found in the prefix cache */
	uint32_t n_output;
} LlmWireFinished;

typedef struct LlmWireStats
{
	uint32_t n_waiting;
	uint32_t n_running;
	uint32_t n_free_blocks;
	uint32_t n_blocks;
	uint32_t block_size; /* tokens */
	uint32_t reserved;
	uint64_t n_steps;
	uint64_t n_prompt_tokens;
	uint64_t n_cached_tokens;
	uint64_t n_generated_tokens;
	uint64_t n_preemptions;
	uint64_t busy_us;	   /* time spent in steps */
	uint64_t memory_bytes; /* resident, of the executor */
} LlmWireStats;

/* See LlmTrainRewards. */
typedef struct LlmWireTrainRewards
{
	double accuracy;
	double chosen;
	double rejected;
	double margin;
} LlmWireTrainRewards;

/* See LlmTrainLog; eval_* are NaN where nothing was evaluated. */
typedef struct LlmWireTrainLog
{
	int64_t step;
	int64_t n_steps;
	int64_t n_tokens;
	int64_t n_labels;
	int64_t step_us;
	double epoch;
	double loss;
	double learning_rate;
	double grad_norm;
	LlmWireTrainRewards rewards;
	double eval_loss;
	LlmWireTrainRewards eval_rewards;
} LlmWireTrainLog;

typedef struct LlmWireTrainSaved
{
	int64_t step;
} LlmWireTrainSaved;

/* What was written; losses are NaN where nothing was evaluated. */
typedef struct LlmWireTrained
{
	int64_t step;		  /* whose state it is */
	double eval_loss;	  /* then */
	double baseline_loss; /* of what it is to be better than */
} LlmWireTrained;

typedef struct LlmWireLog
{
	uint32_t is_warning; /* 0: LOG, 1: WARNING */
	uint32_t n_bytes;	 /* of the text that follows */
} LlmWireLog;

/*
 * An adapter's version, by the id that requests name it by and that is never
 * used for other tensors; followed by the path of its image, which the
 * executor reads when a request asks for it, and perhaps again later.  It
 * comes before the first such request; once more changes what it says.
 *
 * ADAPTER_FORGET says that no more requests for it will come: those that are
 * there finish as if nothing had been said, then its memory is free.
 *
 * Neither is answered.  An image that cannot be served fails the requests that
 * ask for it, with the reason.
 */
typedef struct LlmWireAdapter
{
	uint64_t adapter_id;   /* not 0 */
	uint32_t is_pinned;	   /* loaded at once, and not evicted */
	uint32_t n_path_bytes; /* of the text that follows; 0: FORGET */
} LlmWireAdapter;

_Static_assert(sizeof(LlmWireAdapter) == 16, "wire layout");

typedef enum LlmAdapterResidency
{
	LLM_ADAPTER_ABSENT, /* known by its path alone */
	LLM_ADAPTER_LOADING,
	LLM_ADAPTER_ON_HOST,   /* ready to be copied to the device */
	LLM_ADAPTER_ON_DEVICE, /* requests can use it */
	LLM_ADAPTER_FAILED	   /* its image cannot be served */
} LlmAdapterResidency;

typedef struct LlmWireAdapterState
{
	uint64_t adapter_id;
	uint64_t n_bytes;	/* where it is resident; 0 before it was loaded */
	uint32_t residency; /* LlmAdapterResidency */
	uint32_t max_rank;	/* of its modules; 0 before it was loaded */
} LlmWireAdapterState;

_Static_assert(sizeof(LlmWireAdapterState) == 24, "wire layout");

#endif /* LLM_IPC_MESSAGE_H */
