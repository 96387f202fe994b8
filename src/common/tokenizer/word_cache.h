/*
 * word_cache.h
 *	  A bounded cache from short words to the ids that a model gives them.
 *
 * Each word has one place, by its hash; a newcomer takes it over.  The whole
 * is as large as a processor's second level cache likes.
 *
 * src/common/tokenizer/word_cache.h
 */
#ifndef LLM_WORD_CACHE_H
#define LLM_WORD_CACHE_H

#include <stdlib.h>
#include <string.h>

#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

#define LLM_WORD_CACHE_SLOTS 8192
#define LLM_WORD_CACHE_KEY_BYTES 24
#define LLM_WORD_CACHE_IDS 8

/* What a cached text was: the same text may give other ids in another role. */
typedef enum LlmCacheRole
{
	LLM_CACHE_FREE = 0,
	LLM_CACHE_WORD,
	LLM_CACHE_RUN
} LlmCacheRole;

/* One cache line. */
typedef struct LlmWordSlot
{
	uint64_t key[LLM_WORD_CACHE_KEY_BYTES / 8]; /* zero-padded */
	uint8_t key_len;
	uint8_t role;
	uint8_t n_ids;
	uint8_t reserved[5];
	int32_t ids[LLM_WORD_CACHE_IDS];
} LlmWordSlot;

_Static_assert(sizeof(LlmWordSlot) == 64, "a slot is one cache line");

typedef struct LlmWordKey
{
	uint64_t words[LLM_WORD_CACHE_KEY_BYTES / 8];
	size_t len;
	LlmCacheRole role;
} LlmWordKey;

typedef struct LlmWordCache
{
	LlmWordSlot *slots;
} LlmWordCache;

static inline bool
llm_word_cache_init(LlmWordCache *cache, LlmError *err)
{
	cache->slots = calloc(LLM_WORD_CACHE_SLOTS, sizeof(LlmWordSlot));
	return cache->slots != NULL ||
		   llm_error_no_memory(err, LLM_WORD_CACHE_SLOTS * sizeof(LlmWordSlot),
							   "the tokenizer's cache");
}

static inline void
llm_word_cache_free(LlmWordCache *cache)
{
	free(cache->slots);
	cache->slots = NULL;
}

/* False: too long a text for the cache. */
static inline bool
llm_word_key_make(const char *text, size_t len, LlmCacheRole role,
				  LlmWordKey *key)
{
	if (len > LLM_WORD_CACHE_KEY_BYTES)
		return false;
	memset(key->words, 0, sizeof(key->words));
	memcpy(key->words, text, len);
	key->len = len;
	key->role = role;
	return true;
}

static inline LlmWordSlot *
llm_word_cache_slot(const LlmWordCache *cache, const LlmWordKey *key)
{
	uint64_t hash = key->words[0] * 0x9E3779B97F4A7C15u;

	hash = (hash ^ (hash >> 29) ^ key->words[1]) * 0xBF58476D1CE4E5B9u;
	hash = (hash ^ (hash >> 31) ^ key->words[2] ^ (uint64_t) key->role << 56) *
		   0x94D049BB133111EBu;
	return &cache->slots[(hash >> 40) & (LLM_WORD_CACHE_SLOTS - 1)];
}

/* Append the ids of a text, if they are known. */
static inline bool
llm_word_cache_get(const LlmWordCache *cache, const LlmWordKey *key,
				   LlmIdbuf *out)
{
	const LlmWordSlot *slot = llm_word_cache_slot(cache, key);

	if (slot->role != key->role || slot->key_len != key->len ||
		slot->key[0] != key->words[0] || slot->key[1] != key->words[1] ||
		slot->key[2] != key->words[2])
		return false;
	llm_idbuf_append_many(out, slot->ids, slot->n_ids);
	return true;
}

static inline void
llm_word_cache_put(const LlmWordCache *cache, const LlmWordKey *key,
				   const int32_t *ids, size_t n_ids)
{
	LlmWordSlot *slot;

	if (n_ids > LLM_WORD_CACHE_IDS)
		return;
	slot = llm_word_cache_slot(cache, key);
	memcpy(slot->key, key->words, sizeof(slot->key));
	slot->key_len = (uint8_t) key->len;
	slot->role = (uint8_t) key->role;
	slot->n_ids = (uint8_t) n_ids;
	if (n_ids > 0)
		memcpy(slot->ids, ids, n_ids * sizeof(*ids));
}

#endif /* LLM_WORD_CACHE_H */
