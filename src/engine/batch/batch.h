/*
 * batch.h
 *	  Which tokens of which requests the next step computes: continuous
 *	  batching, chunked prefill, paged KV blocks, prefix cache, preemption.
 *
 * Pure bookkeeping over ids and counts: no tensor, no clock of its own, no
 * I/O, so that thousands of random schedules are tested in a second.  The
 * step loop calls plan, starts the step, commits it, and says for which
 * sequences it draws a token; what these are it may say after the next plan.
 * README.md has the rules and why nobody starves.
 *
 * src/engine/batch/batch.h
 */
#ifndef LLM_BATCH_H
#define LLM_BATCH_H

#include "src/common/util/error.h"

typedef struct LlmPlanner LlmPlanner;
typedef struct LlmSequence LlmSequence;

typedef enum LlmRequestClass
{
	LLM_CLASS_INTERACTIVE,
	LLM_CLASS_BATCH
} LlmRequestClass;

typedef struct LlmPlannerConfig
{
	int32_t block_size; /* tokens */
	int32_t n_blocks;
	int32_t max_num_seqs;			/* sequences in one step */
	int32_t max_num_batched_tokens; /* tokens in one step; at least
									 * max_num_seqs */
	int32_t max_model_len;
	bool enable_prefix_caching;

	/*
	 * Where rotary embeddings depend on a sequence's length (README.md): up
	 * to rope_short_len tokens they do not; 0 = they never do.
	 */
	int32_t rope_short_len;
	bool rope_grows;	   /* longer ones: each length rotates in its own way;
						 * else all of them alike */
	bool rope_restarts;	   /* who outgrows it is computed anew; not where
						 * rope_grows */
	bool separates_phases; /* a step computes tokens of prompts, or generated
							* ones, one of a sequence; what is generated is
							* not in the prefix cache */
	int64_t aging_us;	   /* a batch request that has waited so long takes
					   * turns with interactive ones */
} LlmPlannerConfig;

typedef struct LlmPlannerRequest
{
	uint64_t request_id;
	const int32_t *prompt_ids; /* copied */
	int32_t n_prompt;		   /* >= 1; rotations may depend on it, so it
								* is the same when a request is resumed */
	const int32_t *output_ids; /* copied: tokens of an earlier executor */
	int32_t n_output;
	int32_t max_tokens;	   /* most output tokens, n_output included; 0 = none:
						 * the sequence is to be removed when its prompt is
						 * computed */
	int32_t n_prompt_rows; /* so many of the prompt's last tokens get logit
							* rows; 0 = one.  More than one only without
							* output */
	int32_t n_rotated;	   /* the length by which the prompt is rotated; 0 =
							* its own */
	bool is_pooled;		   /* every token has to be computed: it takes
							* nothing from the prefix cache */
	LlmRequestClass request_class;
	uint32_t tenant_id;	 /* fairness is between tenants */
	uint64_t adapter_id; /* 0 = none; part of the prefix key */
	uint64_t cache_salt; /* part of the prefix key */
	int64_t arrival_us;
	void *owner; /* the step loop's own record */
} LlmPlannerRequest;

/* A sequence's part of a planned step. */
typedef struct LlmPlannedSequence
{
	LlmSequence *sequence;
	int32_t first_token; /* index into the step's tokens */
	int32_t n_tokens;
	int32_t logit_row;	  /* index into logit_rows of the first, or -1:
						* its prompt is not so far yet */
	int32_t n_logit_rows; /* of its last tokens of this step */
} LlmPlannedSequence;

/*
 * Arrays owned by the planner, valid until the next plan.  Sequences that
 * compute one token come first.  Unused block table entries are 0.
 *
 * A sequence may read blocks that another one fills in the same step: every
 * layer has to write the keys and values of all tokens before it attends.
 *
 * A token that is not known yet has id LLM_DRAWN_TOKEN(r): the one that row r
 * of the draw before, the caller's r of llm_planner_expect, gives.
 */
#define LLM_DRAWN_TOKEN(row) (-1 - (row))

typedef struct LlmPlannedStep
{
	int32_t n_tokens;
	int32_t n_seqs;
	int32_t n_logit_rows;
	int32_t n_prefill_tokens; /* all but those that only decode */
	int32_t max_blocks_per_seq;
	int32_t max_query_len;
	int32_t max_context_len;
	bool is_prompt; /* all of its tokens are of prompts; where phases are
					 * separated */
	const LlmPlannedSequence *sequences; /* [n_seqs] */
	const int32_t *token_ids;
	const int32_t *positions;
	const int32_t *token_seq;
	const int32_t *query_start;
	const int32_t *context_len;
	const int32_t *rope_len;	 /* [n_seqs] the least length by which a
								  * sequence's tokens are rotated; 0 = each
								  * by its position */
	const int32_t *block_tables; /* [n_seqs, max_blocks_per_seq] */
	const int32_t *logit_rows;
} LlmPlannedStep;

typedef struct LlmPlannerStats
{
	int32_t n_waiting;
	int32_t n_running;
	int32_t n_free_blocks; /* cached but unreferenced ones included */
	int32_t n_blocks;
	uint64_t n_prompt_tokens; /* of admitted requests */
	uint64_t n_cached_tokens; /* of those, found in the prefix cache */
	uint64_t n_generated_tokens;
	uint64_t n_preemptions;
	uint64_t n_restarts; /* rope_restarts */
	uint64_t n_steps;
} LlmPlannerStats;

extern LlmPlanner *
llm_planner_create(const LlmPlannerConfig *config, LlmError *err);
extern void llm_planner_free(LlmPlanner *planner);

/*
 * Queue a request.  NULL: LLM_ERROR_LIMIT when prompt and max_tokens could
 * never fit max_model_len or the whole cache (the message has the numbers),
 * LLM_ERROR_NO_MEMORY.
 */
extern LlmSequence *
llm_planner_add(LlmPlanner *planner, const LlmPlannerRequest *request,
				LlmError *err);

/* Finish or cancel: frees the sequence and gives its blocks back at once. */
extern void llm_planner_remove(LlmPlanner *planner, LlmSequence *sequence);

/*
 * Choose the next step.  NULL when nothing can run.  now_us is any monotonic
 * clock, the same as arrival_us.
 */
extern const LlmPlannedStep *
llm_planner_plan(LlmPlanner *planner, int64_t now_us);

/*
 * The planned step will be computed before any later one.  Must follow every
 * plan that returned a step, before tokens are expected or settled and before
 * sequences of the step are removed; other sequences may come and go
 * meanwhile.
 */
extern void llm_planner_commit(LlmPlanner *planner);

/*
 * Instead of commit: the planned step will not be computed.  All running
 * sequences go back to their queues and are computed anew; what they owed the
 * prefix cache is forgotten.
 */
extern void llm_planner_withdraw(LlmPlanner *planner);

/*
 * A token is being drawn, as row so many of the draw, for a sequence that had
 * a logit row in the step just committed and whose tokens are all known.  It
 * counts from now on.
 */
extern void
llm_planner_expect(LlmPlanner *planner, LlmSequence *sequence, int32_t row);

/*
 * The expected token is known: no later than after one more plan and commit.
 * The caller stops at max_tokens: the sequence is no longer planned, and has
 * to be removed once its last token is settled.
 */
extern void llm_planner_settle(LlmPlanner *planner, LlmSequence *sequence,
							   int32_t token_id);

/* Both at once. */
extern void llm_planner_append(LlmPlanner *planner, LlmSequence *sequence,
							   int32_t token_id);

extern void *llm_sequence_owner(const LlmSequence *sequence);

/* Its known tokens: n_output leaves out the expected one. */
extern const int32_t *llm_sequence_ids(const LlmSequence *sequence,
									   int32_t *n_prompt, int32_t *n_output);

/* Prompt tokens that were found in the prefix cache at first admission. */
extern int32_t llm_sequence_n_cached(const LlmSequence *sequence);

/* Prompt tokens computed, or found in the cache, at any time so far. */
extern int32_t llm_sequence_n_prompt_done(const LlmSequence *sequence);

/* False while the sequence waits (for its turn or after preemption). */
extern bool llm_sequence_is_running(const LlmSequence *sequence);

extern void
llm_planner_stats(const LlmPlanner *planner, LlmPlannerStats *stats);

/*
 * Check every invariant (each block free, cached or referenced exactly as
 * often as block tables say; no shared writable block; counts add up).
 * Returns false with a message.  For tests and debug builds: O(everything).
 */
extern bool llm_planner_check(const LlmPlanner *planner, LlmError *err);

#endif /* LLM_BATCH_H */
