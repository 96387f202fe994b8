/*
 * word_piece.c
 *	  WordPiece and WordLevel models: from a word to token ids.
 *
 * WordPiece takes the longest token that the word starts with, then the
 * longest one that the rest starts with, as a continuation: behind a prefix
 * (usually ##).  A word that cannot be written so, or has too many characters,
 * is unknown as a whole.  WordLevel knows whole words only.
 *
 * The tokens are found in the image's trie; continuations start at the node
 * where the prefix ends.
 *
 * src/common/tokenizer/word_piece.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/tokenizer/unicode_class.h"
#include "src/common/tokenizer/word_cache.h"

struct LlmWordPiece
{
	const LlmTokenImage *image; /* borrowed */
	LlmEncodeGuard *guard;		/* borrowed */
	LlmWordCache cache;
	uint32_t inner_node;  /* where continuations start */
	bool has_inner_nodes; /* some token starts with the prefix */
};

/* Walk the prefix of continuations. */
static void
find_inner_node(LlmWordPiece *wp)
{
	size_t len;
	const char *prefix = llm_token_image_text(
		wp->image, wp->image->header->subword_prefix, &len);

	wp->inner_node = LLM_TOKEN_TRIE_ROOT;
	wp->has_inner_nodes = true;
	for (size_t i = 0; i < len && wp->has_inner_nodes; i++)
	{
		wp->inner_node = llm_token_image_child(wp->image, wp->inner_node,
											   (unsigned char) prefix[i]);
		wp->has_inner_nodes = wp->inner_node != LLM_TOKEN_TRIE_ROOT;
	}
}

LlmWordPiece *
llm_word_piece_create(const LlmTokenImage *image, LlmEncodeGuard *guard,
					  LlmError *err)
{
	LlmWordPiece *wp = calloc(1, sizeof(*wp));

	if (wp == NULL)
	{
		llm_error_no_memory(err, sizeof(*wp), "a tokenizer's model");
		return NULL;
	}
	wp->image = image;
	wp->guard = guard;
	if (!llm_word_cache_init(&wp->cache, err))
	{
		free(wp);
		return NULL;
	}
	find_inner_node(wp);
	return wp;
}

void
llm_word_piece_free(LlmWordPiece *wp)
{
	if (wp == NULL)
		return;
	llm_word_cache_free(&wp->cache);
	free(wp);
}

/* Does the text have more characters than that? */
static bool
is_longer_than(const char *text, size_t len, uint64_t max_chars)
{
	uint64_t n_chars = 0;

	if (len <= max_chars)
		return false;
	for (size_t i = 0; i < len; i++)
		n_chars += ((unsigned char) text[i] & 0xC0) != 0x80;
	return n_chars > max_chars;
}

/*
 * The longest token that the text at off starts with: its id, and its end in
 * *end; -1 where there is none.
 */
static int32_t
longest_piece(LlmWordPiece *wp, const char *word, size_t len, size_t off,
			  size_t *end)
{
	uint32_t node = off == 0 ? LLM_TOKEN_TRIE_ROOT : wp->inner_node;
	int32_t token_id = -1;

	if (off > 0 && !wp->has_inner_nodes)
		return -1;
	for (size_t i = off; i < len; i++)
	{
		const LlmTokenVocabEntry *entry;

		node = llm_token_image_child(wp->image, node, (unsigned char) word[i]);
		if (node == LLM_TOKEN_TRIE_ROOT)
			break;
		entry = llm_token_image_trie_entry(wp->image, node);
		if (entry != NULL)
		{
			token_id = entry->token_id;
			*end = i + 1;
		}
	}
	return token_id;
}

/* Append the pieces of a word; *known tells whether it has any. */
static bool
append_pieces(LlmWordPiece *wp, const char *word, size_t len, LlmIdbuf *out,
			  bool *known, LlmError *err)
{
	size_t n_before = out->n_ids;

	*known = false;
	if (is_longer_than(word, len, wp->image->header->max_word_chars))
		return true;
	for (size_t off = 0; off < len;)
	{
		size_t end = len;
		int32_t token_id = longest_piece(wp, word, len, off, &end);

		if (!llm_encode_guard_tick(wp->guard))
			return llm_encode_cancelled(err);
		if (token_id < 0)
		{
			out->n_ids = out->failed ? out->n_ids : n_before;
			return true;
		}
		if (!llm_word_model_append(wp->image, &token_id, 1, out, err))
			return false;
		assert(end > off);
		off = end;
	}
	*known = true;
	return true;
}

static bool
encode_uncached(LlmWordPiece *wp, const char *word, size_t len, LlmIdbuf *out,
				LlmError *err)
{
	int32_t token_id;
	bool known;

	if (wp->image->header->model_kind == LLM_TOKEN_MODEL_WORD_PIECE)
	{
		if (!append_pieces(wp, word, len, out, &known, err))
			return false;
		return known || llm_word_model_append_unknown(wp->image, out, err);
	}
	token_id = llm_token_image_find(wp->image, word, len);
	return token_id >= 0
			   ? llm_word_model_append(wp->image, &token_id, 1, out, err)
			   : llm_word_model_append_unknown(wp->image, out, err);
}

bool
llm_word_piece_encode_word(LlmWordPiece *wp, const char *word, size_t len,
						   LlmIdbuf *out, LlmError *err)
{
	LlmWordKey key;
	size_t start = out->n_ids;
	bool cached = llm_word_key_make(word, len, LLM_CACHE_WORD, &key);
	bool ok;

	assert(len > 0);
	if (cached && llm_word_cache_get(&wp->cache, &key, out))
		return true;
	ok = encode_uncached(wp, word, len, out, err);
	if (ok && cached && !out->failed && out->n_ids > start)
		llm_word_cache_put(&wp->cache, &key, out->ids + start,
						   out->n_ids - start);
	return ok;
}
