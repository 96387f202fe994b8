/*
 * weight_lender.h
 *	  A descriptor of weights' memory, from the executor that has them to
 *	  another of the same user.
 *
 * src/engine/executor/weight_lender.h
 */
#ifndef LLM_WEIGHT_LENDER_H
#define LLM_WEIGHT_LENDER_H

#include "src/engine/model/model.h"

typedef struct LlmWeightLender LlmWeightLender;

/*
 * Answer, in a thread, processes of this one's user that look in the folder
 * for weights of the key.  A lender of the same weights that is there already
 * is asked no more.  fd is taken over where that succeeds.
 */
extern LlmWeightLender *
llm_weight_lender_open(const char *folder, const LlmWeightKey *key, int fd,
					   LlmError *err);
extern void llm_weight_lender_close(LlmWeightLender *lender);

/*
 * A descriptor of these weights' memory, for the caller to close; -1: nobody
 * lends them.
 */
extern int
llm_weight_borrow(const char *folder, const LlmWeightKey *key, LlmError *err);

#endif /* LLM_WEIGHT_LENDER_H */
