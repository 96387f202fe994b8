/*
 * prefix_cache.c
 *	  Hash table from prefix digest to KV block.
 *
 * One entry per block, taken at create, chained into buckets by index.  A
 * digest is found by its first bytes and compared as a whole.  A cryptographic
 * hash, because a collision would hand one user's keys and values to another:
 * with SHA-256 nobody can make one.  The digests of a prefix form a chain, so
 * that a block is found only behind the very same tokens; the chain's root is
 * the adapter, the salt and the length that tokens are rotated by, which keeps
 * apart what must not be shared.
 *
 * The parent may leave the cache before its children.  They cannot be reached
 * then until somebody computes the parent again, and stay right meanwhile.
 *
 * src/engine/batch/prefix_cache.c
 */
#include "src/engine/batch/prefix_cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct PrefixEntry
{
	LlmPrefixDigest digest;
	int32_t next_block; /* in the bucket, or -1 */
	bool is_registered;
} PrefixEntry;

struct LlmPrefixCache
{
	int32_t n_blocks;
	int32_t n_registered;
	uint32_t bucket_mask;
	int32_t *buckets;	  /* [bucket_mask + 1] first block, or -1 */
	PrefixEntry *entries; /* [n_blocks] */
};

LlmPrefixDigest
llm_prefix_digest_root(uint64_t adapter_id, uint64_t cache_salt,
					   int32_t rope_len)
{
	LlmPrefixDigest root;

	/*
	 * Not hashed: no block's digest ends in 12 zero bytes, short of a break
	 * of SHA-256, so a root is never taken for one.
	 */
	memset(&root, 0, sizeof(root));
	memcpy(root.bytes, &adapter_id, sizeof(adapter_id));
	memcpy(root.bytes + 8, &cache_salt, sizeof(cache_salt));
	memcpy(root.bytes + 16, &rope_len, sizeof(rope_len));
	return root;
}

void
llm_prefix_digest_next(const LlmPrefixDigest *parent, const int32_t *token_ids,
					   int32_t n_tokens, LlmPrefixDigest *digest)
{
	LlmSha256 sha;

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, parent->bytes, sizeof(parent->bytes));
	llm_sha256_update(&sha, token_ids, (size_t) n_tokens * sizeof(int32_t));
	llm_sha256_final(&sha, digest->bytes);
}

static int32_t *
bucket_of(const LlmPrefixCache *cache, const LlmPrefixDigest *digest)
{
	uint32_t hash;

	memcpy(&hash, digest->bytes, sizeof(hash));
	return &cache->buckets[hash & cache->bucket_mask];
}

LlmPrefixCache *
llm_prefix_cache_create(int32_t n_blocks, LlmError *err)
{
	LlmPrefixCache *cache = calloc(1, sizeof(LlmPrefixCache));
	uint64_t n_buckets = 1;

	assert(n_blocks > 0);
	while (n_buckets < 2 * (uint64_t) n_blocks)
		n_buckets *= 2;
	if (cache != NULL)
	{
		cache->n_blocks = n_blocks;
		cache->bucket_mask = (uint32_t) (n_buckets - 1);
		cache->buckets = malloc(n_buckets * sizeof(int32_t));
		cache->entries = calloc((size_t) n_blocks, sizeof(PrefixEntry));
	}
	if (cache == NULL || cache->buckets == NULL || cache->entries == NULL)
	{
		llm_error_no_memory(err,
							n_buckets * sizeof(int32_t) +
								(uint64_t) n_blocks * sizeof(PrefixEntry),
							"the prefix cache");
		llm_prefix_cache_free(cache);
		return NULL;
	}
	memset(cache->buckets, 0xFF, n_buckets * sizeof(int32_t));
	return cache;
}

void
llm_prefix_cache_free(LlmPrefixCache *cache)
{
	if (cache == NULL)
		return;
	free(cache->buckets);
	free(cache->entries);
	free(cache);
}

int32_t
llm_prefix_cache_find(const LlmPrefixCache *cache,
					  const LlmPrefixDigest *digest)
{
	int32_t block_idx = *bucket_of(cache, digest);

	while (block_idx >= 0 && memcmp(&cache->entries[block_idx].digest, digest,
									sizeof(*digest)) != 0)
		block_idx = cache->entries[block_idx].next_block;
	assert(block_idx < cache->n_blocks);
	return block_idx;
}

bool
llm_prefix_cache_insert(LlmPrefixCache *cache, int32_t block_idx,
						const LlmPrefixDigest *digest)
{
	PrefixEntry *entry = &cache->entries[block_idx];
	int32_t *bucket = bucket_of(cache, digest);

	assert(block_idx >= 0 && block_idx < cache->n_blocks);
	assert(!entry->is_registered);

	if (llm_prefix_cache_find(cache, digest) >= 0)
		return false;
	entry->digest = *digest;
	entry->next_block = *bucket;
	entry->is_registered = true;
	*bucket = block_idx;
	cache->n_registered++;
	return true;
}

void
llm_prefix_cache_forget(LlmPrefixCache *cache, int32_t block_idx)
{
	PrefixEntry *entry = &cache->entries[block_idx];
	int32_t *link = bucket_of(cache, &entry->digest);

	assert(block_idx >= 0 && block_idx < cache->n_blocks);
	assert(entry->is_registered);

	while (*link != block_idx)
	{
		assert(*link >= 0);
		link = &cache->entries[*link].next_block;
	}
	*link = entry->next_block;
	entry->is_registered = false;
	cache->n_registered--;
}

const LlmPrefixDigest *
llm_prefix_cache_digest(const LlmPrefixCache *cache, int32_t block_idx)
{
	const PrefixEntry *entry = &cache->entries[block_idx];

	assert(block_idx >= 0 && block_idx < cache->n_blocks);
	return entry->is_registered ? &entry->digest : NULL;
}

bool
llm_prefix_cache_check(const LlmPrefixCache *cache, LlmError *err)
{
	int32_t n_chained = 0;
	int32_t n_registered = 0;

	for (int32_t i = 0; i < cache->n_blocks; i++)
		n_registered += cache->entries[i].is_registered;
	for (uint64_t b = 0; b <= cache->bucket_mask; b++)
	{
		for (int32_t i = cache->buckets[b]; i >= 0;
			 i = cache->entries[i].next_block)
		{
			if (++n_chained > n_registered || !cache->entries[i].is_registered)
				return llm_error_set(err, LLM_ERROR_INTERNAL,
									 "prefix bucket %llu chains block %d, "
									 "which is not registered",
									 (unsigned long long) b, i);
			if (llm_prefix_cache_find(cache, &cache->entries[i].digest) != i)
				return llm_error_set(err, LLM_ERROR_INTERNAL,
									 "block %d is not found by its digest", i);
		}
	}
	if (n_chained != n_registered || n_registered != cache->n_registered)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "%d blocks are registered, %d are chained, %d "
							 "are counted",
							 n_registered, n_chained, cache->n_registered);
	return true;
}
