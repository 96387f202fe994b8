/*
 * grammar_mask.h
 *	  Which tokens may follow a config.
 *
 * src/common/grammar/grammar_mask.h
 */
#ifndef LLM_GRAMMAR_MASK_H
#define LLM_GRAMMAR_MASK_H

#include "src/common/grammar/grammar_machine.h"

extern LlmGrammarMasks *llm_grammar_masks_create(LlmError *err);
extern void llm_grammar_masks_free(LlmGrammarMasks *masks);
extern size_t llm_grammar_masks_bytes(const LlmGrammar *grammar);

/* Configs have new numbers: what is known of the old ones is void. */
extern void llm_grammar_masks_forget(LlmGrammar *grammar);

/* End ids are not set.  False: grammar->err says why. */
extern bool
llm_grammar_mask_compute(LlmGrammar *grammar, uint32_t config, uint32_t *mask);

#endif /* LLM_GRAMMAR_MASK_H */
