/*
 * unigram.c
 *	  Unigram language models: from a word to token ids.
 *
 * Of all ways to write a word with tokens the one with the highest sum of
 * scores wins (Viterbi, left to right; of equal sums the one found first: at
 * each end the token that starts leftmost).  A character that is no token is
 * unknown, at a score below every token's.  Unknown characters in a row are
 * one unknown text, which is the token of that content if there is one, else
 * its bytes' tokens where the model falls back to bytes, else the unknown
 * token.  Sums are doubles added in the reference's order: ties are frequent
 * (runs of one character) and rounding decides them.
 *
 * The tokens that start at a character are found in the image's trie, so a
 * word takes time proportional to its length and that of the longest token.
 *
 * src/common/tokenizer/unigram.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/tokenizer/unicode_class.h"
#include "src/common/tokenizer/word_cache.h"

#define MAX_WORD_BYTES ((size_t) 1 << 27)
#define KEEP_NODES 65536 /* larger buffers are given back */
#define NO_NODE UINT32_MAX

/* The best way to write the word up to an offset. */
typedef struct PathNode
{
	double score;
	uint32_t from; /* where its last token starts; NO_NODE: none yet */
	int32_t token_id;
} PathNode;

struct LlmUnigram
{
	const LlmTokenImage *image; /* borrowed */
	LlmEncodeGuard *guard;		/* borrowed */
	LlmWordCache cache;
	uint32_t roots[256]; /* the trie's nodes by first byte */
	PathNode *nodes;	 /* [len + 1] of the word at work */
	size_t node_capacity;
};

LlmUnigram *
llm_unigram_create(const LlmTokenImage *image, LlmEncodeGuard *guard,
				   LlmError *err)
{
	LlmUnigram *unigram = calloc(1, sizeof(*unigram));

	if (unigram == NULL)
	{
		llm_error_no_memory(err, sizeof(*unigram), "a tokenizer's model");
		return NULL;
	}
	unigram->image = image;
	unigram->guard = guard;
	if (!llm_word_cache_init(&unigram->cache, err))
	{
		free(unigram);
		return NULL;
	}
	for (int byte = 0; byte < 256; byte++)
		unigram->roots[byte] = llm_token_image_child(image, LLM_TOKEN_TRIE_ROOT,
													 (unsigned char) byte);
	return unigram;
}

void
llm_unigram_free(LlmUnigram *unigram)
{
	if (unigram == NULL)
		return;
	llm_word_cache_free(&unigram->cache);
	free(unigram->nodes);
	free(unigram);
}

static bool
reserve_nodes(LlmUnigram *unigram, size_t n, LlmError *err)
{
	size_t capacity = 256;

	if (n > MAX_WORD_BYTES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "a word of the text is too long for the "
							 "tokenizer: %zu bytes",
							 n - 1);
	if (n <= unigram->node_capacity)
		return true;
	while (capacity < n)
		capacity *= 2;
	free(unigram->nodes);
	unigram->node_capacity = 0;
	unigram->nodes = malloc(capacity * sizeof(PathNode));
	if (unigram->nodes == NULL)
		return llm_error_no_memory(err, capacity * sizeof(PathNode),
								   "a long word");
	unigram->node_capacity = capacity;
	return true;
}

/* Enter a token if it makes the best way so far to its end. */
static bool
relax(PathNode *end, double score, uint32_t from, int32_t token_id)
{
	if (end->from != NO_NODE && !(score > end->score))
		return false;
	*end = (PathNode){ score, from, token_id };
	return true;
}

/* Enter every token that starts at off, where a character of n bytes does. */
static bool
extend_paths(LlmUnigram *unigram, const char *word, size_t len, size_t off,
			 size_t n, LlmError *err)
{
	const LlmTokenImage *image = unigram->image;
	double score_here = unigram->nodes[off].score;
	uint32_t node = unigram->roots[(unsigned char) word[off]];
	bool has_single = false;

	for (size_t end = off + 1; node != LLM_TOKEN_TRIE_ROOT; end++)
	{
		const LlmTokenVocabEntry *entry;

		if (((end - off) & 63) == 0 && !llm_encode_guard_tick(unigram->guard))
			return llm_encode_cancelled(err);
		entry = llm_token_image_trie_entry(image, node);
		if (entry != NULL)
		{
			relax(&unigram->nodes[end],
				  image->scores[entry - image->vocab] + score_here,
				  (uint32_t) off, entry->token_id);
			has_single = has_single || end - off == n;
		}
		if (end == len)
			break;
		node = llm_token_image_child(image, node, (unsigned char) word[end]);
	}
	if (has_single)
		return true;
	return !relax(&unigram->nodes[off + n],
				  image->header->unk_score + score_here, (uint32_t) off,
				  image->header->unk_id) ||
		   image->header->unk_id >= 0 ||
		   llm_error_set(err, LLM_ERROR_FORMAT,
						 "the text has a character that the tokenizer does "
						 "not know, and it has no unknown token");
}

/*
 * Let each node on the best path name the next one instead of the one before.
 * False: there is no path, which only a damaged image brings about.
 */
static bool
reverse_path(PathNode *nodes, size_t len)
{
	uint32_t at = (uint32_t) len;
	uint32_t from = nodes[len].from;

	while (at > 0)
	{
		uint32_t before;

		if (from >= at)
			return false;
		before = nodes[from].from;
		nodes[from].from = at;
		at = from;
		from = before;
	}
	return true;
}

/* A text of unknown characters. */
static bool
append_unknown(LlmUnigram *unigram, const char *text, size_t len, LlmIdbuf *out,
			   LlmError *err)
{
	const LlmTokenImage *image = unigram->image;
	const int32_t *byte_ids = image->byte_ids + LLM_TOKEN_FALLBACK_IDS;
	int32_t token_id = llm_token_image_find(image, text, len);
	bool falls_back =
		(image->header->flags & LLM_TOKEN_MODEL_BYTE_FALLBACK) != 0;

	if (token_id >= 0)
		return llm_word_model_append(image, &token_id, 1, out, err);
	for (size_t i = 0; falls_back && i < len; i++)
		falls_back = byte_ids[(unsigned char) text[i]] >= 0;
	if (!falls_back)
		return llm_word_model_append_unknown(image, out, err);
	for (size_t i = 0; i < len; i++)
	{
		if (!llm_word_model_append(image, &byte_ids[(unsigned char) text[i]], 1,
								   out, err))
			return false;
	}
	return true;
}

/* Append the ids along the reversed path. */
static bool
append_path(LlmUnigram *unigram, const char *word, size_t len, LlmIdbuf *out,
			LlmError *err)
{
	const PathNode *nodes = unigram->nodes;
	int32_t unk_id = unigram->image->header->unk_id;
	size_t unknown = 0; /* start of the unknown text that ends at off */

	for (size_t off = 0; off < len;)
	{
		size_t end = nodes[off].from;
		int32_t token_id = nodes[end].token_id;

		if (token_id == unk_id)
		{
			off = end;
			continue;
		}
		if (unknown < off &&
			!append_unknown(unigram, word + unknown, off - unknown, out, err))
			return false;
		if (!llm_word_model_append(unigram->image, &token_id, 1, out, err))
			return false;
		off = unknown = end;
	}
	return unknown == len ||
		   append_unknown(unigram, word + unknown, len - unknown, out, err);
}

static bool
encode_uncached(LlmUnigram *unigram, const char *word, size_t len,
				LlmIdbuf *out, LlmError *err)
{
	if (!reserve_nodes(unigram, len + 1, err))
		return false;
	for (size_t off = 0; off <= len; off++)
		unigram->nodes[off] = (PathNode){ 0, NO_NODE, 0 };
	for (size_t off = 0; off < len;)
	{
		uint32_t cp;
		size_t n = (size_t) llm_unicode_next(word + off, len - off, &cp);

		if (!llm_encode_guard_tick(unigram->guard))
			return llm_encode_cancelled(err);
		if (!extend_paths(unigram, word, len, off, n, err))
			return false;
		off += n;
	}
	if (!reverse_path(unigram->nodes, len))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the tokenizer image is damaged: its trie leads "
							 "nowhere");
	return append_path(unigram, word, len, out, err);
}

bool
llm_unigram_encode_word(LlmUnigram *unigram, const char *word, size_t len,
						LlmIdbuf *out, LlmError *err)
{
	LlmWordKey key;
	size_t start = out->n_ids;
	bool cached = llm_word_key_make(word, len, LLM_CACHE_WORD, &key);
	bool ok;

	assert(len > 0);
	if (cached && llm_word_cache_get(&unigram->cache, &key, out))
		return true;
	ok = encode_uncached(unigram, word, len, out, err);
	if (ok && cached && !out->failed && out->n_ids > start)
		llm_word_cache_put(&unigram->cache, &key, out->ids + start,
						   out->n_ids - start);
	if (unigram->node_capacity > KEEP_NODES)
	{
		free(unigram->nodes);
		unigram->nodes = NULL;
		unigram->node_capacity = 0;
	}
	return ok;
}
