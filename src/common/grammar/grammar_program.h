/*
 * grammar_program.h
 *	  The format of a compiled grammar, and its check.
 *
 * A program is a header of LLM_GRAMMAR_HEADER_WORDS words and instructions
 * behind it.  A state is the offset of an instruction.  The first word of an
 * instruction is its operation in the low byte and a count above it:
 *
 *	 BYTES   n, n times {low byte | high byte << 8, target}
 *	 SPLIT   n, n times {target}		go to each, reading nothing
 *	 CALL    target, next				run a rule, then go on at next
 *	 REPEAT  target, next, min, max		run it min to max times (UNBOUNDED)
 *	 RETURN								end of a rule, or of the text
 *
 * src/common/grammar/grammar_program.h
 */
#ifndef LLM_GRAMMAR_PROGRAM_H
#define LLM_GRAMMAR_PROGRAM_H

#include "src/common/grammar/grammar.h"

#define LLM_GRAMMAR_MAGIC 0x4D475247u /* "GRGM" */
#define LLM_GRAMMAR_VERSION 1u
#define LLM_GRAMMAR_UNBOUNDED UINT32_MAX

typedef enum LlmGrammarHeaderWord
{
	LLM_GRAMMAR_WORD_MAGIC,
	LLM_GRAMMAR_WORD_VERSION,
	LLM_GRAMMAR_WORD_N_WORDS,
	LLM_GRAMMAR_WORD_ROOT,
	LLM_GRAMMAR_HEADER_WORDS
} LlmGrammarHeaderWord;

typedef enum LlmGrammarOp
{
	LLM_GRAMMAR_BYTES,
	LLM_GRAMMAR_SPLIT,
	LLM_GRAMMAR_CALL,
	LLM_GRAMMAR_REPEAT,
	LLM_GRAMMAR_RETURN,
	LLM_GRAMMAR_OP_COUNT
} LlmGrammarOp;

/* No path from here ends within the depth that is allowed. */
#define LLM_GRAMMAR_NO_HEIGHT UINT16_MAX

static inline LlmGrammarOp
llm_grammar_op(uint32_t word)
{
	return (LlmGrammarOp) (word & 0xFFu);
}

static inline uint32_t
llm_grammar_count(uint32_t word)
{
	return word >> 8;
}

/* A call in the last place returns to its caller's caller: no frame. */
static inline bool
llm_grammar_is_tail(const uint32_t *words, uint32_t call)
{
	return words[words[call + 2]] == LLM_GRAMMAR_RETURN;
}

/*
 * Check every word, and compute each state's height: the frames that the
 * shallowest way from it to the end of its rule needs.  heights has n_words
 * elements, meaningful at states.  A machine that enters a state only where
 * depth + height fits never runs into a dead end.
 */
extern bool llm_grammar_program_check(const uint32_t *words, size_t n_words,
									  uint16_t *heights, LlmError *err);

#endif /* LLM_GRAMMAR_PROGRAM_H */
