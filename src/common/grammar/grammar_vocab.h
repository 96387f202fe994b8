/*
 * grammar_vocab.h
 *	  A vocabulary as a byte trie, flat and in preorder.
 *
 * src/common/grammar/grammar_vocab.h
 */
#ifndef LLM_GRAMMAR_VOCAB_H
#define LLM_GRAMMAR_VOCAB_H

#include "src/common/grammar/grammar.h"

#define LLM_GRAMMAR_NO_TOKEN 0xFFFFFFu
#define LLM_GRAMMAR_MAX_NODES 0xFFFFFFu

/*
 * The nodes below node i are i + 1 .. end - 1.  Node 0 is the root, of depth
 * 0; a node's byte leads to it from its parent.
 */
typedef struct LlmGrammarNode
{
	uint32_t end_and_depth;	 /* end << 8 | depth in bytes */
	uint32_t token_and_byte; /* token_id << 8 | byte */
} LlmGrammarNode;

struct LlmGrammarVocab
{
	LlmGrammarNode *nodes;
	uint32_t n_nodes;
	int32_t n_vocab;
	uint32_t max_token_bytes; /* longest in the trie */
	int32_t *next_same;		  /* [n_vocab]: another id of equal bytes, or -1 */
	uint32_t *offsets;		  /* [n_vocab + 1], into bytes */
	char *bytes;
	int32_t *end_ids;
	size_t n_end_ids;
};

static inline uint32_t
llm_grammar_node_end(const LlmGrammarNode *node)
{
	return node->end_and_depth >> 8;
}

static inline uint32_t
llm_grammar_node_depth(const LlmGrammarNode *node)
{
	return node->end_and_depth & 0xFFu;
}

static inline uint32_t
llm_grammar_node_token(const LlmGrammarNode *node)
{
	return node->token_and_byte >> 8;
}

static inline uint8_t
llm_grammar_node_byte(const LlmGrammarNode *node)
{
	return (uint8_t) node->token_and_byte;
}

extern bool
llm_grammar_vocab_is_end(const LlmGrammarVocab *vocab, int32_t token_id);

#endif /* LLM_GRAMMAR_VOCAB_H */
