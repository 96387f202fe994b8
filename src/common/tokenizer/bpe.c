/*
 * bpe.c
 *	  Byte pair encoding: from a word to token ids.
 *
 * A word becomes symbols (bytes or characters, by their ids), and the pair of
 * neighbours with the lowest rank is merged until no pair is left that
 * merges; of equal ranks the leftmost comes first.
 *
 * Three things make it fast.  Short runs of symbols are merged by scanning an
 * array of ranks, long ones with a heap, O(n log n).  Long words (without a
 * pre-tokenizer a whole text is one word) are cut first between symbols that
 * no chain of merges can ever join: a bitmap in the image knows, for the last
 * symbol of every left part and the first one of every right part of a merge,
 * which symbols meet.  And a bounded cache remembers the ids of short words
 * and runs; it is as large as a processor's second level cache likes.
 *
 * src/common/tokenizer/bpe.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/tokenizer/unicode_class.h"
#include "src/common/tokenizer/word_cache.h"

#define CHAR_CACHE_SLOTS 1024
#define SMALL_RUN 32	   /* symbols merged without a heap */
#define KEEP_SYMBOLS 65536 /* larger buffers are given back */

typedef struct CharSlot
{
	uint32_t cp; /* UINT32_MAX: free */
	int32_t token_id;
} CharSlot;

/* A merge that waits; ordered by rank, then position. */
typedef struct HeapEntry
{
	uint32_t rank;
	uint32_t pos;
	int32_t new_id;
} HeapEntry;

struct LlmBpe
{
	const LlmTokenImage *image; /* borrowed */
	LlmEncodeGuard *guard;		/* borrowed */
	uint32_t flags;
	bool cuts_runs; /* symbols do not depend on their place in the word */
	LlmWordCache cache;
	CharSlot chars[CHAR_CACHE_SLOTS];
	LlmStrbuf scratch; /* a mapped or decorated text */

	/* the run of symbols that is being collected */
	int32_t *symbols;
	size_t n_symbols;
	size_t symbol_capacity;
	size_t run_off;	   /* where its text starts in the word */
	bool run_is_plain; /* only characters of the vocabulary so far */
	const char *word;  /* that the run is part of */

	/* for the heap; allocated with room for a given run */
	int32_t *previous;
	int32_t *next;
	HeapEntry *heap;
	size_t n_heap;
	size_t heap_capacity;
};

LlmBpe *
llm_bpe_create(const LlmTokenImage *image, LlmEncodeGuard *guard, LlmError *err)
{
	LlmBpe *bpe = calloc(1, sizeof(*bpe));

	if (bpe == NULL || !llm_word_cache_init(&bpe->cache, err))
	{
		if (bpe == NULL)
			llm_error_no_memory(err, sizeof(*bpe), "a tokenizer's model");
		free(bpe);
		return NULL;
	}
	bpe->image = image;
	bpe->guard = guard;
	bpe->flags = image->header->flags;
	bpe->cuts_runs = image->header->subword_prefix.len == 0 &&
					 image->header->word_suffix.len == 0;
	for (size_t i = 0; i < CHAR_CACHE_SLOTS; i++)
		bpe->chars[i].cp = UINT32_MAX;
	return bpe;
}

static void
free_run_buffers(LlmBpe *bpe)
{
	free(bpe->symbols);
	free(bpe->previous);
	free(bpe->next);
	free(bpe->heap);
	bpe->symbols = bpe->previous = bpe->next = NULL;
	bpe->heap = NULL;
	bpe->symbol_capacity = bpe->heap_capacity = 0;
}

void
llm_bpe_free(LlmBpe *bpe)
{
	if (bpe == NULL)
		return;
	free_run_buffers(bpe);
	llm_strbuf_free(&bpe->scratch);
	llm_word_cache_free(&bpe->cache);
	free(bpe);
}

/* ----------------------------------------------------------------- merging */

/* Merge few symbols in place; returns how many are left. */
static size_t
merge_small(const LlmTokenImage *image, int32_t *symbols, size_t n)
{
	const LlmTokenMerge *merges[SMALL_RUN];

	assert(n >= 1 && n <= SMALL_RUN);
	for (size_t i = 0; i + 1 < n; i++)
		merges[i] = llm_token_image_merge(image, symbols[i], symbols[i + 1]);
	for (;;)
	{
		uint32_t best_rank = UINT32_MAX;
		size_t best = 0;

		for (size_t i = 0; i + 1 < n; i++)
		{
			if (merges[i] != NULL && merges[i]->rank < best_rank)
			{
				best_rank = merges[i]->rank;
				best = i;
			}
		}
		if (best_rank == UINT32_MAX)
			return n;
		symbols[best] = merges[best]->new_id;
		n--;
		for (size_t i = best + 1; i < n; i++)
		{
			symbols[i] = symbols[i + 1];
			merges[i - 1] = merges[i];
		}
		if (best > 0)
			merges[best - 1] =
				llm_token_image_merge(image, symbols[best - 1], symbols[best]);
		if (best + 1 < n)
			merges[best] =
				llm_token_image_merge(image, symbols[best], symbols[best + 1]);
	}
}

static bool
heap_less(const HeapEntry *a, const HeapEntry *b)
{
	return a->rank != b->rank ? a->rank < b->rank : a->pos < b->pos;
}

static void
heap_sift_down(LlmBpe *bpe, size_t at)
{
	HeapEntry entry = bpe->heap[at];

	for (;;)
	{
		size_t child = 2 * at + 1;

		if (child >= bpe->n_heap)
			break;
		if (child + 1 < bpe->n_heap &&
			heap_less(&bpe->heap[child + 1], &bpe->heap[child]))
			child++;
		if (!heap_less(&bpe->heap[child], &entry))
			break;
		bpe->heap[at] = bpe->heap[child];
		at = child;
	}
	bpe->heap[at] = entry;
}

static void
heap_push(LlmBpe *bpe, HeapEntry entry)
{
	size_t at = bpe->n_heap++;

	assert(bpe->n_heap <= bpe->heap_capacity);
	while (at > 0)
	{
		size_t parent = (at - 1) / 2;

		if (!heap_less(&entry, &bpe->heap[parent]))
			break;
		bpe->heap[at] = bpe->heap[parent];
		at = parent;
	}
	bpe->heap[at] = entry;
}

static HeapEntry
heap_pop(LlmBpe *bpe)
{
	HeapEntry top = bpe->heap[0];

	bpe->n_heap--;
	if (bpe->n_heap > 0)
	{
		bpe->heap[0] = bpe->heap[bpe->n_heap];
		heap_sift_down(bpe, 0);
	}
	return top;
}

static bool
reserve_heap(LlmBpe *bpe, size_t n, LlmError *err)
{
	/* a merge takes one entry out and puts at most two in */
	size_t capacity = 2 * n;

	if (bpe->heap_capacity >= capacity)
		return true;
	free(bpe->previous);
	free(bpe->next);
	free(bpe->heap);
	bpe->heap_capacity = 0;
	bpe->previous = malloc(n * sizeof(int32_t));
	bpe->next = malloc(n * sizeof(int32_t));
	bpe->heap = malloc(capacity * sizeof(HeapEntry));
	if (bpe->previous == NULL || bpe->next == NULL || bpe->heap == NULL)
		return llm_error_no_memory(err, n * 32, "merging a long word");
	bpe->heap_capacity = capacity;
	return true;
}

static void
push_pair(LlmBpe *bpe, int32_t left, int32_t right)
{
	const LlmTokenMerge *merge;

	if (left < 0 || right < 0)
		return;
	merge = llm_token_image_merge(bpe->image, bpe->symbols[left],
								  bpe->symbols[right]);
	if (merge != NULL)
		heap_push(bpe,
				  (HeapEntry){ merge->rank, (uint32_t) left, merge->new_id });
}

/*
 * Merge the run with a heap.  Entries are not taken out when their symbols
 * change; an entry is stale when its pair no longer merges to its id.
 */
static bool
merge_heap(LlmBpe *bpe, LlmError *err)
{
	size_t n = bpe->n_symbols;
	size_t n_left = 0;

	if (!reserve_heap(bpe, n, err))
		return false;
	bpe->n_heap = 0;
	for (size_t i = 0; i < n; i++)
	{
		bpe->previous[i] = (int32_t) i - 1;
		bpe->next[i] = i + 1 < n ? (int32_t) i + 1 : -1;
	}
	for (size_t i = 0; i + 1 < n; i++)
	{
		push_pair(bpe, (int32_t) i, (int32_t) i + 1);
		if (!llm_encode_guard_tick(bpe->guard))
			return llm_encode_cancelled(err);
	}
	while (bpe->n_heap > 0)
	{
		HeapEntry top = heap_pop(bpe);
		int32_t right = bpe->next[top.pos];
		const LlmTokenMerge *merge;

		if (!llm_encode_guard_tick(bpe->guard))
			return llm_encode_cancelled(err);
		if (bpe->symbols[top.pos] < 0 || right < 0)
			continue;
		merge = llm_token_image_merge(bpe->image, bpe->symbols[top.pos],
									  bpe->symbols[right]);
		if (merge == NULL || merge->new_id != top.new_id)
			continue;
		bpe->symbols[top.pos] = top.new_id;
		bpe->symbols[right] = -1;
		bpe->next[top.pos] = bpe->next[right];
		if (bpe->next[right] >= 0)
			bpe->previous[bpe->next[right]] = (int32_t) top.pos;
		push_pair(bpe, bpe->previous[top.pos], (int32_t) top.pos);
		push_pair(bpe, (int32_t) top.pos, bpe->next[top.pos]);
	}
	for (size_t i = 0; i < n; i++)
	{
		if (bpe->symbols[i] >= 0)
			bpe->symbols[n_left++] = bpe->symbols[i];
	}
	bpe->n_symbols = n_left;
	return true;
}

/* ------------------------------------------------------------ runs of symbols */

static bool
reserve_symbols(LlmBpe *bpe, size_t n, LlmError *err)
{
	size_t capacity = bpe->symbol_capacity < 256 ? 256 : bpe->symbol_capacity;
	int32_t *symbols;

	if (n <= bpe->symbol_capacity)
		return true;
	while (capacity < n)
		capacity *= 2;
	if (capacity > INT32_MAX / 4)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "a word of the text is too long for the "
							 "tokenizer: %zu symbols",
							 n);
	symbols = realloc(bpe->symbols, capacity * sizeof(int32_t));
	if (symbols == NULL)
		return llm_error_no_memory(err, capacity * sizeof(int32_t),
								   "a long word");
	bpe->symbols = symbols;
	bpe->symbol_capacity = capacity;
	return true;
}

/*
 * Merge the collected run, whose text ends at end_off of the word, and append
 * its ids.
 */
static bool
finish_run(LlmBpe *bpe, size_t end_off, LlmIdbuf *out, LlmError *err)
{
	LlmWordKey key;
	bool cached = false;

	if (bpe->n_symbols == 0)
		return true;
	if (bpe->n_symbols > 1 && bpe->run_is_plain && bpe->cuts_runs)
	{
		cached = llm_word_key_make(bpe->word + bpe->run_off,
								   end_off - bpe->run_off, LLM_CACHE_RUN, &key);
		if (cached && llm_word_cache_get(&bpe->cache, &key, out))
		{
			bpe->n_symbols = 0;
			return true;
		}
	}
	if (bpe->n_symbols <= SMALL_RUN)
		bpe->n_symbols = merge_small(bpe->image, bpe->symbols, bpe->n_symbols);
	else if (!merge_heap(bpe, err))
		return false;
	if (!llm_word_model_append(bpe->image, bpe->symbols, bpe->n_symbols, out,
							   err))
		return false;
	if (cached)
		llm_word_cache_put(&bpe->cache, &key, bpe->symbols, bpe->n_symbols);
	bpe->n_symbols = 0;
	return true;
}

static void
start_word(LlmBpe *bpe, const char *word)
{
	bpe->word = word;
	bpe->n_symbols = 0;
	bpe->run_off = 0;
	bpe->run_is_plain = true;
}

/*
 * Add a symbol whose text starts at off; the run before it is finished where
 * the two can never merge.  Unknown and fallback symbols are not plain.
 */
static bool
add_symbol(LlmBpe *bpe, int32_t token_id, size_t off, bool is_plain,
		   LlmIdbuf *out, LlmError *err)
{
	if (bpe->n_symbols > 0 && bpe->cuts_runs &&
		!llm_token_image_may_merge(bpe->image, bpe->symbols[bpe->n_symbols - 1],
								   token_id))
	{
		if (!finish_run(bpe, off, out, err))
			return false;
	}
	if (bpe->n_symbols == 0)
	{
		bpe->run_off = off;
		bpe->run_is_plain = true;
		if (!llm_encode_guard_tick(bpe->guard))
			return llm_encode_cancelled(err);
	}
	if (!reserve_symbols(bpe, bpe->n_symbols + 1, err))
		return false;
	bpe->symbols[bpe->n_symbols++] = token_id;
	bpe->run_is_plain = bpe->run_is_plain && is_plain;
	return true;
}

/* ------------------------------------------------ words of characters */

/* The unknown characters that are waiting to become one token. */
typedef struct PendingUnknown
{
	bool waits;
	size_t off;
} PendingUnknown;

/* The id of one character of a word, decorated as the model wants it. */
static int32_t
char_id(LlmBpe *bpe, const char *text, size_t len, uint32_t cp, bool is_first,
		bool is_last)
{
	const LlmTokenImageHeader *header = bpe->image->header;
	size_t extra_len;
	const char *extra;
	CharSlot *slot;

	if (bpe->cuts_runs)
	{
		slot = &bpe->chars[cp & (CHAR_CACHE_SLOTS - 1)];
		if (slot->cp != cp)
		{
			slot->cp = cp;
			slot->token_id = llm_token_image_find(bpe->image, text, len);
		}
		return slot->token_id;
	}
	llm_strbuf_reset(&bpe->scratch);
	if (!is_first)
	{
		extra = llm_token_image_text(bpe->image, header->subword_prefix,
									 &extra_len);
		llm_strbuf_append(&bpe->scratch, extra, extra_len);
	}
	llm_strbuf_append(&bpe->scratch, text, len);
	if (is_last)
	{
		extra =
			llm_token_image_text(bpe->image, header->word_suffix, &extra_len);
		llm_strbuf_append(&bpe->scratch, extra, extra_len);
	}
	return llm_token_image_find(bpe->image, llm_strbuf_str(&bpe->scratch),
								bpe->scratch.len);
}

/*
 * An unknown character as its bytes' tokens, if there is one for each.  The
 * decoration counts, as in the reference.
 */
static bool
add_fallback(LlmBpe *bpe, const char *text, size_t len, size_t off, bool *added,
			 LlmIdbuf *out, LlmError *err)
{
	const int32_t *ids = bpe->image->byte_ids + LLM_TOKEN_FALLBACK_IDS;

	*added = false;
	if (!bpe->cuts_runs)
	{
		text = llm_strbuf_str(&bpe->scratch);
		len = bpe->scratch.len;
	}
	for (size_t i = 0; i < len; i++)
	{
		if (ids[(unsigned char) text[i]] < 0)
			return true;
	}
	*added = true;
	for (size_t i = 0; i < len; i++)
	{
		if (!add_symbol(bpe, ids[(unsigned char) text[i]], off, false, out,
						err))
			return false;
	}
	return true;
}

static bool
add_pending(LlmBpe *bpe, PendingUnknown *pending, LlmIdbuf *out, LlmError *err)
{
	if (!pending->waits)
		return true;
	pending->waits = false;
	return add_symbol(bpe, bpe->image->header->unk_id, pending->off, false, out,
					  err);
}

static bool
add_unknown(LlmBpe *bpe, size_t off, PendingUnknown *pending, LlmIdbuf *out,
			LlmError *err)
{
	int32_t unk_id = bpe->image->header->unk_id;

	if (unk_id == LLM_TOKEN_NO_UNK)
		return true; /* dropped without a trace, as the reference does */
	if (unk_id < 0)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the text has a character that the tokenizer "
							 "does not know, and its unknown token is not in "
							 "the vocabulary");
	if (pending->waits && (bpe->flags & LLM_TOKEN_MODEL_FUSE_UNK) != 0)
		return true;
	if (!add_pending(bpe, pending, out, err))
		return false;
	pending->waits = true;
	pending->off = off;
	return true;
}

static bool
encode_chars(LlmBpe *bpe, const char *word, size_t len, LlmIdbuf *out,
			 LlmError *err)
{
	PendingUnknown pending = { false, 0 };

	start_word(bpe, word);
	for (size_t off = 0; off < len;)
	{
		uint32_t cp;
		size_t n = (size_t) llm_unicode_next(word + off, len - off, &cp);
		int32_t token_id =
			char_id(bpe, word + off, n, cp, off == 0, off + n == len);
		bool added = false;

		if (token_id >= 0)
		{
			if (!add_pending(bpe, &pending, out, err) ||
				!add_symbol(bpe, token_id, off, true, out, err))
				return false;
		}
		else
		{
			if ((bpe->flags & LLM_TOKEN_MODEL_BYTE_FALLBACK) != 0 &&
				!add_fallback(bpe, word + off, n, off, &added, out, err))
				return false;
			if (!added && !add_unknown(bpe, off, &pending, out, err))
				return false;
		}
		if (out->failed)
			return true; /* the caller reports it */
		off += n;
	}
	return add_pending(bpe, &pending, out, err) &&
		   finish_run(bpe, len, out, err);
}

/* -------------------------------------------------------- words of bytes */

static bool
encode_bytes(LlmBpe *bpe, const char *word, size_t len, LlmIdbuf *out,
			 LlmError *err)
{
	const int32_t *ids = bpe->image->byte_ids + LLM_TOKEN_BYTE_LEVEL_IDS;

	start_word(bpe, word);
	if (len <= SMALL_RUN)
	{
		/* such a word is cached as a whole: no need to cut it */
		if (!reserve_symbols(bpe, len, err))
			return false;
		for (size_t i = 0; i < len; i++)
			bpe->symbols[i] = ids[(unsigned char) word[i]];
		bpe->n_symbols = len;
		bpe->run_is_plain = false;
		return finish_run(bpe, len, out, err);
	}
	for (size_t i = 0; i < len && !out->failed; i++)
	{
		if (!add_symbol(bpe, ids[(unsigned char) word[i]], i, true, out, err))
			return false;
	}
	return finish_run(bpe, len, out, err);
}

/* The word in the byte-level alphabet, in bpe->scratch. */
static void
map_bytes(LlmBpe *bpe, const char *word, size_t len)
{
	llm_strbuf_reset(&bpe->scratch);
	for (size_t i = 0; i < len; i++)
	{
		char bytes[4];
		int n = llm_utf8_encode(llm_byte_level_encode((unsigned char) word[i]),
								bytes);

		llm_strbuf_append(&bpe->scratch, bytes, (size_t) n);
	}
}

/* ----------------------------------------------------------------- words */

/* A word that is not in the cache. */
static bool
encode_uncached(LlmBpe *bpe, const char *word, size_t len, LlmIdbuf *out,
				LlmError *err)
{
	bool is_bytes = (bpe->flags & LLM_TOKEN_MODEL_BYTE_LEVEL) != 0;
	bool has_ids = (bpe->flags & LLM_TOKEN_MODEL_BYTES_KNOWN) != 0;
	bool ignore_merges = (bpe->flags & LLM_TOKEN_MODEL_IGNORE_MERGES) != 0;
	const char *text = word;
	size_t text_len = len;

	if (is_bytes && (ignore_merges || !has_ids))
	{
		map_bytes(bpe, word, len);
		if (bpe->scratch.failed)
			return llm_error_no_memory(err, 2 * len, "a long word");
		text = llm_strbuf_str(&bpe->scratch);
		text_len = bpe->scratch.len;
	}
	if (ignore_merges)
	{
		int32_t token_id = llm_token_image_find(bpe->image, text, text_len);

		if (token_id >= 0)
			return llm_word_model_append(bpe->image, &token_id, 1, out, err);
	}
	if (is_bytes && has_ids)
		return encode_bytes(bpe, word, len, out, err);
	if (is_bytes)
	{
		/* encode_chars uses the scratch buffer itself */
		LlmStrbuf mapped = bpe->scratch;
		bool ok;

		memset(&bpe->scratch, 0, sizeof(bpe->scratch));
		ok = encode_chars(bpe, mapped.data, mapped.len, out, err);
		llm_strbuf_free(&mapped);
		return ok;
	}
	return encode_chars(bpe, word, len, out, err);
}

bool
llm_bpe_encode_word(LlmBpe *bpe, const char *word, size_t len, LlmIdbuf *out,
					LlmError *err)
{
	LlmWordKey key;
	size_t start = out->n_ids;
	bool cached;
	bool ok;

	assert(len > 0);
	cached = llm_word_key_make(word, len, LLM_CACHE_WORD, &key);
	if (cached && llm_word_cache_get(&bpe->cache, &key, out))
		return true;
	ok = encode_uncached(bpe, word, len, out, err);
	if (ok && cached && !out->failed && out->n_ids > start)
		llm_word_cache_put(&bpe->cache, &key, out->ids + start,
						   out->n_ids - start);
	if (bpe->symbol_capacity > KEEP_SYMBOLS ||
		bpe->heap_capacity > 2 * KEEP_SYMBOLS)
		free_run_buffers(bpe);
	if (bpe->scratch.capacity > 4 * KEEP_SYMBOLS)
		llm_strbuf_free(&bpe->scratch);
	return ok;
}
