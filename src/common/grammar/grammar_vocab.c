/*
 * grammar_vocab.c
 *	  A vocabulary as a byte trie, flat and in preorder.
 *
 * Tokens are sorted by their bytes; then each one shares the path of its
 * predecessor as far as they agree, and appends nodes for the rest, which is
 * preorder.  A walk therefore reads the nodes in memory order, and leaves a
 * subtree by one jump.
 *
 * src/common/grammar/grammar_vocab.c
 */
#include "src/common/grammar/grammar_vocab.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int
compare_tokens(const void *a, const void *b, void *context)
{
	const LlmGrammarVocab *vocab = context;
	int32_t left = *(const int32_t *) a;
	int32_t right = *(const int32_t *) b;
	size_t left_len = vocab->offsets[left + 1] - vocab->offsets[left];
	size_t right_len = vocab->offsets[right + 1] - vocab->offsets[right];
	int order = memcmp(vocab->bytes + vocab->offsets[left],
					   vocab->bytes + vocab->offsets[right],
					   left_len < right_len ? left_len : right_len);

	if (order != 0)
		return order;
	if (left_len != right_len)
		return left_len < right_len ? -1 : 1;
	return left < right ? -1 : left > right;
}

bool
llm_grammar_vocab_is_end(const LlmGrammarVocab *vocab, int32_t token_id)
{
	for (size_t i = 0; i < vocab->n_end_ids; i++)
	{
		if (vocab->end_ids[i] == token_id)
			return true;
	}
	return false;
}

/* Those that the trie holds; the others keep no bytes. */
static bool
copy_bytes(LlmGrammarVocab *vocab, const LlmGrammarToken *tokens, LlmError *err)
{
	uint64_t total = 0;

	for (int32_t i = 0; i < vocab->n_vocab; i++)
	{
		size_t len = tokens[i].len;

		if (len > LLM_GRAMMAR_MAX_TOKEN_BYTES ||
			llm_grammar_vocab_is_end(vocab, i))
			len = 0;
		vocab->offsets[i] = (uint32_t) total;
		total += len;
		if (total >= LLM_GRAMMAR_MAX_NODES)
			return llm_error_set(err, LLM_ERROR_LIMIT,
								 "vocabulary has more than %u bytes of tokens",
								 LLM_GRAMMAR_MAX_NODES);
	}
	vocab->offsets[vocab->n_vocab] = (uint32_t) total;
	vocab->bytes = malloc(total + 1);
	/* no trie has more nodes than its texts have bytes */
	vocab->nodes = malloc((total + 1) * sizeof(LlmGrammarNode));
	if (vocab->bytes == NULL || vocab->nodes == NULL)
		return llm_error_no_memory(err, total * 9, "grammar vocabulary");
	for (int32_t i = 0; i < vocab->n_vocab; i++)
	{
		size_t len = vocab->offsets[i + 1] - vocab->offsets[i];

		if (len > 0)
			memcpy(vocab->bytes + vocab->offsets[i], tokens[i].bytes, len);
	}
	return true;
}

/* Close the nodes of a path beyond depth: what is below them is complete. */
static void
close_path(LlmGrammarVocab *vocab, const uint32_t *path, size_t path_len,
		   size_t depth)
{
	for (size_t i = depth; i < path_len; i++)
		vocab->nodes[path[i]].end_and_depth |= vocab->n_nodes << 8;
}

static void
add_token(LlmGrammarVocab *vocab, int32_t token_id, uint32_t *path, size_t *len)
{
	const char *bytes = vocab->bytes + vocab->offsets[token_id];
	size_t n = vocab->offsets[token_id + 1] - vocab->offsets[token_id];
	size_t shared = 0;

	while (shared < *len && shared < n &&
		   llm_grammar_node_byte(&vocab->nodes[path[shared]]) ==
			   (uint8_t) bytes[shared])
		shared++;
	close_path(vocab, path, *len, shared);
	if (shared == n && n == *len)
	{
		LlmGrammarNode *node = &vocab->nodes[path[n - 1]];

		vocab->next_same[token_id] = (int32_t) llm_grammar_node_token(node);
		node->token_and_byte =
			(uint32_t) token_id << 8 | llm_grammar_node_byte(node);
		return;
	}
	assert(shared < n); /* sorted: no token is a prefix of its predecessor */
	for (size_t i = shared; i < n; i++)
	{
		LlmGrammarNode *node = &vocab->nodes[vocab->n_nodes];

		node->end_and_depth = (uint32_t) i + 1;
		node->token_and_byte = LLM_GRAMMAR_NO_TOKEN << 8 | (uint8_t) bytes[i];
		path[i] = vocab->n_nodes++;
	}
	vocab->nodes[path[n - 1]].token_and_byte =
		(uint32_t) token_id << 8 | (uint8_t) bytes[n - 1];
	*len = n;
	if (n > vocab->max_token_bytes)
		vocab->max_token_bytes = (uint32_t) n;
}

static bool
build_trie(LlmGrammarVocab *vocab, LlmError *err)
{
	int32_t *order = malloc(((size_t) vocab->n_vocab + 1) * sizeof(int32_t));
	uint32_t path[LLM_GRAMMAR_MAX_TOKEN_BYTES];
	size_t path_len = 0;
	size_t n = 0;

	if (order == NULL)
		return llm_error_no_memory(err, vocab->n_vocab, "grammar vocabulary");
	for (int32_t i = 0; i < vocab->n_vocab; i++)
	{
		vocab->next_same[i] = -1;
		if (vocab->offsets[i + 1] > vocab->offsets[i])
			order[n++] = i;
	}
	qsort_r(order, n, sizeof(int32_t), compare_tokens, vocab);
	vocab->nodes[0].token_and_byte = LLM_GRAMMAR_NO_TOKEN << 8;
	vocab->n_nodes = 1;
	for (size_t i = 0; i < n; i++)
		add_token(vocab, order[i], path, &path_len);
	close_path(vocab, path, path_len, 0);
	vocab->nodes[0].end_and_depth = vocab->n_nodes << 8;
	free(order);
	return true;
}

LlmGrammarVocab *
llm_grammar_vocab_create(const LlmGrammarToken *tokens, int32_t n_vocab,
						 const int32_t *end_ids, size_t n_end_ids,
						 LlmError *err)
{
	LlmGrammarVocab *vocab;
	size_t n = (size_t) n_vocab + 1;

	if (n_vocab < 1 || n_vocab >= (int32_t) LLM_GRAMMAR_NO_TOKEN)
	{
		llm_error_set(err, LLM_ERROR_INVALID, "a vocabulary of %d tokens",
					  n_vocab);
		return NULL;
	}
	for (size_t i = 0; i < n_end_ids; i++)
	{
		if (end_ids[i] < 0 || end_ids[i] >= n_vocab)
		{
			llm_error_set(err, LLM_ERROR_INVALID,
						  "end id %d is not in the vocabulary of %d tokens",
						  end_ids[i], n_vocab);
			return NULL;
		}
	}
	vocab = calloc(1, sizeof(*vocab));
	if (vocab != NULL)
	{
		vocab->n_vocab = n_vocab;
		vocab->n_end_ids = n_end_ids;
		vocab->next_same = malloc(n * sizeof(int32_t));
		vocab->offsets = malloc(n * sizeof(uint32_t));
		vocab->end_ids = malloc((n_end_ids + 1) * sizeof(int32_t));
	}
	if (vocab == NULL || vocab->next_same == NULL || vocab->offsets == NULL ||
		vocab->end_ids == NULL)
		llm_error_no_memory(err, 12 * n, "grammar vocabulary");
	else
	{
		if (n_end_ids > 0)
			memcpy(vocab->end_ids, end_ids, n_end_ids * sizeof(int32_t));
		if (copy_bytes(vocab, tokens, err) && build_trie(vocab, err))
			return vocab;
	}
	llm_grammar_vocab_free(vocab);
	return NULL;
}

LlmGrammarVocab *
llm_grammar_vocab_from_tokenizer(LlmTokenizer *tokenizer, int32_t n_vocab,
								 const int32_t *end_ids, size_t n_end_ids,
								 LlmError *err)
{
	int32_t n_known = llm_tokenizer_n_vocab(tokenizer);
	LlmGrammarToken *tokens =
		calloc((size_t) (n_vocab > 0 ? n_vocab : 0) + 1, sizeof(*tokens));
	LlmStrbuf bytes = { 0 };
	LlmGrammarVocab *vocab = NULL;
	bool ok = tokens != NULL;

	if (!ok)
		llm_error_no_memory(err, sizeof(*tokens) * (size_t) n_vocab,
							"grammar vocabulary");
	for (int32_t i = 0; ok && i < n_vocab && i < n_known; i++)
	{
		size_t start = bytes.len;

		if (llm_tokenizer_is_special(tokenizer, i))
			continue;
		ok = llm_tokenizer_token_bytes(tokenizer, i, &bytes, err);
		tokens[i].len = bytes.len - start;
	}
	if (ok && bytes.failed)
		ok = llm_error_no_memory(err, bytes.len, "grammar vocabulary");
	if (ok)
	{
		const char *next = llm_strbuf_str(&bytes);

		for (int32_t i = 0; i < n_vocab; i++)
		{
			tokens[i].bytes = next;
			next += tokens[i].len;
		}
		vocab =
			llm_grammar_vocab_create(tokens, n_vocab, end_ids, n_end_ids, err);
	}
	llm_strbuf_free(&bytes);
	free(tokens);
	return vocab;
}

void
llm_grammar_vocab_free(LlmGrammarVocab *vocab)
{
	if (vocab == NULL)
		return;
	free(vocab->nodes);
	free(vocab->next_same);
	free(vocab->offsets);
	free(vocab->bytes);
	free(vocab->end_ids);
	free(vocab);
}

size_t
llm_grammar_vocab_n_mask_words(const LlmGrammarVocab *vocab)
{
	return ((size_t) vocab->n_vocab + 31) / 32;
}
