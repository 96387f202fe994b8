/*
 * prefix_cache.h
 *	  Which KV block holds the keys and values of a given token prefix?
 *
 * src/engine/batch/prefix_cache.h
 */
#ifndef LLM_PREFIX_CACHE_H
#define LLM_PREFIX_CACHE_H

#include "src/common/util/error.h"
#include "src/common/util/sha256.h"

/*
 * Names the contents of a full block: its own token ids and, through its
 * parent's digest, all tokens before them, the adapter, the salt, and the
 * length by which they are rotated.
 */
typedef struct LlmPrefixDigest
{
	uint8_t bytes[LLM_SHA256_BYTES];
} LlmPrefixDigest;

typedef struct LlmPrefixCache LlmPrefixCache;

/* The parent of a sequence's first block. */
extern LlmPrefixDigest
llm_prefix_digest_root(uint64_t adapter_id, uint64_t cache_salt,
					   int32_t rope_len);

extern void
llm_prefix_digest_next(const LlmPrefixDigest *parent, const int32_t *token_ids,
					   int32_t n_tokens, LlmPrefixDigest *digest);

extern LlmPrefixCache *llm_prefix_cache_create(int32_t n_blocks, LlmError *err);
extern void llm_prefix_cache_free(LlmPrefixCache *cache);

/* The block registered under a digest, or -1. */
extern int32_t llm_prefix_cache_find(const LlmPrefixCache *cache,
									 const LlmPrefixDigest *digest);

/*
 * Register a block that is not registered.  False when another block already
 * has these contents: the first one stays.
 */
extern bool llm_prefix_cache_insert(LlmPrefixCache *cache, int32_t block_idx,
									const LlmPrefixDigest *digest);

/* The block gets new contents. */
extern void llm_prefix_cache_forget(LlmPrefixCache *cache, int32_t block_idx);

/* The digest a block is registered under, or NULL. */
extern const LlmPrefixDigest *
llm_prefix_cache_digest(const LlmPrefixCache *cache, int32_t block_idx);

extern bool llm_prefix_cache_check(const LlmPrefixCache *cache, LlmError *err);

#endif /* LLM_PREFIX_CACHE_H */
