/*
 * sequence.h
 *	  A request inside the planner: its tokens, blocks and place in line.
 *
 *		add ──> WAITING ──admit──> RUNNING ──remove──> gone
 *		           │  <──preempt──                      ^
 *		           └──────────────────remove────────────┘
 *
 * The planner alone moves it: admit and preempt in plan (step_planner.c,
 * admission.c), remove where the caller asks.
 *
 * src/engine/batch/sequence.h
 */
#ifndef LLM_SEQUENCE_H
#define LLM_SEQUENCE_H

#include "src/engine/batch/batch.h"
#include "src/engine/batch/prefix_cache.h"

typedef struct LlmTenant LlmTenant;

typedef enum LlmSequenceState
{
	LLM_SEQUENCE_WAITING,
	LLM_SEQUENCE_RUNNING
} LlmSequenceState;

/* Who goes first; also the index of running lists and queues. */
typedef enum LlmRank
{
	LLM_RANK_HIGH, /* interactive, or batch that waited too long */
	LLM_RANK_LOW   /* batch */
} LlmRank;

#define LLM_N_RANKS 2

struct LlmSequence
{
	/* touched by every step */
	LlmSequenceState state;
	LlmRank rank;		/* LOW may become HIGH, for good */
	int32_t n_tokens;	/* prompt and output, an expected one included */
	int32_t n_computed; /* whose keys and values are in its blocks */
	int32_t n_planned;	/* of the step that is planned */
	int32_t n_rows;		/* logit rows of these: of the last ones */
	int32_t n_blocks;
	int32_t n_prompt;
	int32_t rope_len;		  /* 0, or beyond rope_short_len */
	int32_t n_charged;		  /* first tokens that its tenant has paid for */
	int32_t n_published;	  /* full blocks offered to the prefix cache */
	int32_t n_digests;		  /* of its full blocks, known so far */
	int32_t *ids;			  /* [max_tokens] */
	int32_t *blocks;		  /* [max_blocks] */
	LlmPrefixDigest *digests; /* [max_blocks]; NULL: no prefix caching */
	LlmPrefixDigest root;	  /* parent of the first block's digest */
	bool is_expecting;		  /* its last token is not known yet */
	bool is_reserved;		  /* the step being planned keeps a token for it */
	bool was_displaced;		  /* preempted by one of higher rank */
	LlmTenant *tenant;
	int64_t last_planned_us;
	uint64_t last_planned_step;

	/* set once */
	uint64_t serial; /* order of arrival */
	int64_t arrival_us;
	void *owner;
	uint64_t request_id;
	int32_t max_tokens; /* prompt included */
	int32_t max_blocks;
	int32_t first_row;	  /* tokens from this one on get logit rows */
	int32_t max_reusable; /* most tokens to take from the prefix cache */
	uint64_t adapter_id;
	uint64_t cache_salt;

	int32_t n_cached; /* of the prompt, at first admission; -1 = not yet */

	/* in its tenant's queue while it waits */
	LlmSequence *prev;
	LlmSequence *next;
};

/* The request is valid and max_tokens bounded.  NULL: out of memory. */
extern LlmSequence *
llm_sequence_create(const LlmPlannerRequest *request,
					const LlmPlannerConfig *config, LlmError *err);
extern void llm_sequence_free(LlmSequence *sequence);

/*
 * All its tokens are, from now on, those of a sequence of at least n_tokens:
 * sets rope_len, and with it the digests' root.
 */
extern void llm_sequence_rotate(LlmSequence *sequence, int32_t n_tokens,
								const LlmPlannerConfig *config);

/* The digest of its block so many; all of the block's tokens are known. */
extern const LlmPrefixDigest *
llm_sequence_digest(LlmSequence *sequence, int32_t idx, int32_t block_size);

/* The last known token is always computed: it is the one that yields logits. */
static inline int32_t
llm_sequence_reusable(const LlmSequence *sequence)
{
	return sequence->n_tokens - 1 < sequence->max_reusable
			   ? sequence->n_tokens - 1
			   : sequence->max_reusable;
}

/* Tokens whose ids are known. */
static inline int32_t
llm_sequence_n_known(const LlmSequence *sequence)
{
	return sequence->n_tokens - sequence->is_expecting;
}

/* Its next token is of the prompt. */
static inline bool
llm_sequence_is_in_prompt(const LlmSequence *sequence)
{
	return sequence->n_computed < sequence->n_prompt;
}

/* Tokens left to compute: never a generated one that ends the request. */
static inline int32_t
llm_sequence_n_left(const LlmSequence *sequence)
{
	bool is_last =
		sequence->is_expecting && sequence->n_tokens == sequence->max_tokens;

	return is_last ? 0 : sequence->n_tokens - sequence->n_computed;
}

static inline int32_t
llm_blocks_for(int32_t n_tokens, int32_t block_size)
{
	return n_tokens / block_size + (n_tokens % block_size != 0);
}

#endif /* LLM_SEQUENCE_H */
