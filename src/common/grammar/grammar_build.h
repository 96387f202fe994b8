/*
 * grammar_build.h
 *	  Building a program, from its end to its start.
 *
 * A node is an instruction in the making.  Nodes name the nodes behind them,
 * so a text's end is built first: build(x, next) returns the node that reads
 * x and goes on at next.  Equal nodes are one node, which shares the common
 * ends of alternatives.  A loop needs a node before what is behind it: a
 * label, which is set later.
 *
 * Failure is sticky: once err is set every function returns node 0, which
 * every function accepts, and the caller looks at the end.
 *
 * src/common/grammar/grammar_build.h
 */
#ifndef LLM_GRAMMAR_BUILD_H
#define LLM_GRAMMAR_BUILD_H

#include "src/common/grammar/grammar_program.h"
#include "src/common/util/arena.h"

typedef uint32_t LlmGrammarNodeId;

typedef struct LlmGrammarBuilder LlmGrammarBuilder;

/* How characters become bytes: as UTF-8, or as within a JSON string. */
typedef enum LlmGrammarEncoding
{
	LLM_GRAMMAR_UTF8,
	LLM_GRAMMAR_JSON_STRING
} LlmGrammarEncoding;

/* Code points low .. high. */
typedef struct LlmGrammarRange
{
	uint32_t low;
	uint32_t high;
} LlmGrammarRange;

typedef struct LlmGrammarSet
{
	LlmGrammarRange *ranges; /* sorted and apart after set_normalize */
	size_t n_ranges;
	size_t capacity;
} LlmGrammarSet;

extern LlmGrammarBuilder *llm_grammar_builder_create(LlmError *err);
extern void llm_grammar_builder_free(LlmGrammarBuilder *b);

/* Memory that lives as long as the builder; NULL: failed. */
extern void *llm_grammar_alloc(LlmGrammarBuilder *b, size_t n_bytes);

extern bool llm_grammar_failed(const LlmGrammarBuilder *b);
extern LlmError *llm_grammar_err(LlmGrammarBuilder *b);

/* Record the error, unless there is one.  Returns 0. */
extern LlmGrammarNodeId
llm_grammar_fail(LlmGrammarBuilder *b, LlmErrorCode code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * One level deeper in a recursion over what users wrote; false, and an error,
 * where the stack might not suffice.  Each true needs its ascend.
 */
extern bool llm_grammar_descend(LlmGrammarBuilder *b);
extern void llm_grammar_ascend(LlmGrammarBuilder *b);

/* Nothing matches. */
extern LlmGrammarNodeId llm_grammar_build_never(LlmGrammarBuilder *b);
extern LlmGrammarNodeId llm_grammar_build_return(LlmGrammarBuilder *b);
extern LlmGrammarNodeId
llm_grammar_build_bytes(LlmGrammarBuilder *b, uint8_t low, uint8_t high,
						LlmGrammarNodeId next);
extern LlmGrammarNodeId
llm_grammar_build_text(LlmGrammarBuilder *b, const char *text, size_t len,
					   LlmGrammarNodeId next);

/* BYTES of several ranges: n times {low | high << 8, target}. */
extern LlmGrammarNodeId
llm_grammar_build_edges(LlmGrammarBuilder *b, const uint32_t *edges, size_t n);
extern LlmGrammarNodeId
llm_grammar_build_split(LlmGrammarBuilder *b, const LlmGrammarNodeId *targets,
						size_t n);
extern LlmGrammarNodeId
llm_grammar_build_or(LlmGrammarBuilder *b, LlmGrammarNodeId left,
					 LlmGrammarNodeId right);
extern LlmGrammarNodeId
llm_grammar_build_call(LlmGrammarBuilder *b, LlmGrammarNodeId target,
					   LlmGrammarNodeId next);

/* target ends in a return node and does not match the empty text. */
extern LlmGrammarNodeId
llm_grammar_build_repeat(LlmGrammarBuilder *b, LlmGrammarNodeId target,
						 uint32_t min, uint32_t max, LlmGrammarNodeId next);
extern LlmGrammarNodeId llm_grammar_build_label(LlmGrammarBuilder *b);
extern void llm_grammar_set_label(LlmGrammarBuilder *b, LlmGrammarNodeId label,
								  LlmGrammarNodeId target);

/* One character of a set, which must be normalized. */
extern LlmGrammarNodeId
llm_grammar_build_set(LlmGrammarBuilder *b, const LlmGrammarSet *set,
					  LlmGrammarEncoding encoding, LlmGrammarNodeId next);

/* One of n texts (sorted in place; equal ones count once), as a trie. */
extern LlmGrammarNodeId
llm_grammar_build_choice(LlmGrammarBuilder *b, LlmGrammarToken *texts, size_t n,
						 LlmGrammarNodeId next);

/* Lay out what the root reaches and append it to *program. */
extern bool llm_grammar_emit(LlmGrammarBuilder *b, LlmGrammarNodeId root,
							 LlmStrbuf *program);

/* Sets of characters, in the builder's memory. */
extern void llm_grammar_set_add(LlmGrammarBuilder *b, LlmGrammarSet *set,
								uint32_t low, uint32_t high);
extern void llm_grammar_set_normalize(LlmGrammarSet *set);

extern bool llm_grammar_set_contains(const LlmGrammarSet *set, uint32_t c);

/* All characters but those; surrogates are no characters. */
extern void llm_grammar_set_invert(LlmGrammarBuilder *b, LlmGrammarSet *set);

#endif /* LLM_GRAMMAR_BUILD_H */
