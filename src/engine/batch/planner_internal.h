/*
 * planner_internal.h
 *	  The planner's state, shared by the files of this room alone.
 *
 * src/engine/batch/planner_internal.h
 */
#ifndef LLM_PLANNER_INTERNAL_H
#define LLM_PLANNER_INTERNAL_H

#include "src/engine/batch/kv_blocks.h"
#include "src/engine/batch/wait_queue.h"

/* Sequences that hold a seat, oldest first. */
typedef struct LlmRunningList
{
	LlmSequence **sequences; /* [max_num_seqs] */
	int32_t n;
} LlmRunningList;

/* Whose tokens a step computes. */
typedef enum LlmPhase
{
	LLM_PHASE_ANY,
	LLM_PHASE_PROMPTS,
	LLM_PHASE_OUTPUTS
} LlmPhase;

struct LlmPlanner
{
	LlmPlannerConfig config;
	int32_t max_blocks_per_seq;
	int32_t watermark_blocks; /* kept free at admission, for growth */

	LlmKvBlocks *pool;
	LlmWaitQueue waiting;
	LlmRunningList running[LLM_N_RANKS];
	uint64_t next_serial;
	bool is_aged_turn; /* an aged request goes before the next interactive */

	/* the plan being made, or made and not yet committed */
	bool is_step_open;
	LlmPhase phase;
	bool had_no_blocks; /* somebody was preempted, so nobody is let in */
	int64_t now_us;
	int32_t n_tokens_left;	   /* of the step's budget */
	int32_t n_tokens_reserved; /* of those, for sequences that decode */
	int32_t n_rows_left;	   /* logit rows beyond one per sequence */
	int32_t n_blocks_promised; /* for known tokens of running ones */
	LlmSequence **planned;	   /* [max_num_seqs] */
	int32_t n_planned;

	/* what the step's pointers point to */
	LlmPlannedStep step;
	LlmPlannedSequence *sequences; /* [max_num_seqs] */
	int32_t *token_ids;			   /* [max_num_batched_tokens] */
	int32_t *positions;			   /* [max_num_batched_tokens] */
	int32_t *token_seq;			   /* [max_num_batched_tokens] */
	int32_t *query_start;		   /* [max_num_seqs + 1] */
	int32_t *context_len;		   /* [max_num_seqs] */
	int32_t *rope_len;			   /* [max_num_seqs] */
	int32_t *block_tables;		   /* [max_num_seqs, max_blocks_per_seq] */
	int32_t *logit_rows;		   /* [max_num_seqs] */

	uint64_t n_prompt_tokens;
	uint64_t n_cached_tokens;
	uint64_t n_generated_tokens;
	uint64_t n_preemptions;
	uint64_t n_restarts;
	uint64_t n_steps;
};

static inline int32_t
llm_planner_n_running(const LlmPlanner *planner)
{
	return planner->running[LLM_RANK_HIGH].n + planner->running[LLM_RANK_LOW].n;
}

/* step_planner.c */

/* Give a seat, or take it away. */
extern void llm_planner_seat(LlmPlanner *planner, LlmSequence *sequence);
extern void llm_planner_unseat(LlmPlanner *planner, LlmSequence *sequence);

/*
 * Back to its queue, without blocks, in favour of somebody of the given rank.
 * It must not be part of the step.
 */
extern void
llm_planner_preempt(LlmPlanner *planner, LlmSequence *victim, LlmRank by);

/*
 * Make as much of a running sequence part of the step as tokens and blocks
 * allow; may preempt others of lower standing, or itself.
 */
extern void llm_planner_schedule(LlmPlanner *planner, LlmSequence *sequence);

/* admission.c */

/* Let in who waits with high rank: also in place of running batch ones. */
extern void llm_planner_admit_high(LlmPlanner *planner);

/* Let in who waits with low rank. */
extern void llm_planner_admit_low(LlmPlanner *planner);

/* step_arrays.c */

extern void llm_planner_fill_step(LlmPlanner *planner);

#endif /* LLM_PLANNER_INTERNAL_H */
