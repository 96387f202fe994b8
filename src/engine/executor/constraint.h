/*
 * constraint.h
 *	  Requests with a grammar: the tokens that each may draw next.
 *
 * A request's grammar becomes a constraint, its place in the grammar.  Per
 * step the loop names the rows that are constrained (_add_row), lets their
 * masks be computed beside the step (_start), waits for them before it
 * samples (_wait), and tells each constraint its token (_accept).
 *
 * src/engine/executor/constraint.h
 */
#ifndef LLM_CONSTRAINT_H
#define LLM_CONSTRAINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/common/util/error.h"

typedef struct LlmConstraints LlmConstraints; /* an executor's */
typedef struct LlmConstraint LlmConstraint;	  /* a request's */

typedef struct LlmConstraintsConfig
{
	const char *image_path; /* the model's image: its tokenizer */
	int32_t n_vocab;		/* width of the logits */
	const int32_t *end_ids; /* those beyond n_vocab are left out */
	int32_t n_end_ids;
	int32_t max_rows; /* of a step */
} LlmConstraintsConfig;

/* Reads the vocabulary and starts the thread. */
extern LlmConstraints *
llm_constraints_create(const LlmConstraintsConfig *config, LlmError *err);

/* All constraints must be closed.  NULL is allowed. */
extern void llm_constraints_free(LlmConstraints *constraints);

/*
 * Open a request's grammar (a program of grammar.h), and go to the place
 * behind output_ids.  Requests of equal programs share what is computed.  Not
 * between _start and _wait, like all that follows but _wait.
 */
extern LlmConstraint *
llm_constraint_open(LlmConstraints *constraints, const uint32_t *words,
					size_t n_words, const int32_t *output_ids, size_t n_output,
					LlmError *err);

/* NULL is allowed. */
extern void llm_constraint_close(LlmConstraint *constraint);

/*
 * Have the mask of a row's next token computed; it is what the sampler takes
 * (LlmSampleRow.allowed_mask), filled by _wait, and valid until the row is
 * added again.  Where it cannot be computed, everything is allowed and
 * _accept fails.
 */
extern const uint32_t *
llm_constraints_add_row(LlmConstraints *constraints, int32_t row,
						LlmConstraint *constraint);
extern void llm_constraints_start(LlmConstraints *constraints);
extern void llm_constraints_wait(LlmConstraints *constraints);

/* Move on by the token that was drawn. */
extern bool llm_constraint_accept(LlmConstraint *constraint, int32_t token_id,
								  LlmError *err);

/* Nothing can follow: the answer is complete, with or without an end token. */
extern bool llm_constraint_has_ended(const LlmConstraint *constraint);

#endif /* LLM_CONSTRAINT_H */
