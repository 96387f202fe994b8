/*
 * kv_blocks.c
 *	  The pool of KV blocks: reference counts, free list, cached contents.
 *
 * A block is free or referenced.  Free ones hang in a doubly linked list in
 * the order in which they will be reused: at the head those without findable
 * contents, behind them the cached ones, least recently freed first.  A cached
 * block that is found again leaves the list from its middle.
 *
 * src/engine/batch/kv_blocks.c
 */
#include "src/engine/batch/kv_blocks.h"

#include <assert.h>
#include <stdlib.h>

typedef struct KvBlock
{
	int32_t n_refs;
	int32_t prev_free; /* -1 at the ends; meaningless while referenced */
	int32_t next_free;
} KvBlock;

struct LlmKvBlocks
{
	int32_t n_blocks;
	int32_t n_free;
	int32_t first_free;
	int32_t last_free;
	KvBlock *blocks; /* [n_blocks] */
	LlmPrefixCache *cache;
};

static void
push_free(LlmKvBlocks *pool, int32_t block_idx, bool at_head)
{
	KvBlock *block = &pool->blocks[block_idx];

	assert(block->n_refs == 0);
	block->prev_free = at_head ? -1 : pool->last_free;
	block->next_free = at_head ? pool->first_free : -1;
	if (block->prev_free >= 0)
		pool->blocks[block->prev_free].next_free = block_idx;
	else
		pool->first_free = block_idx;
	if (block->next_free >= 0)
		pool->blocks[block->next_free].prev_free = block_idx;
	else
		pool->last_free = block_idx;
	pool->n_free++;
}

static void
unlink_free(LlmKvBlocks *pool, int32_t block_idx)
{
	KvBlock *block = &pool->blocks[block_idx];

	assert(block->n_refs == 0 && pool->n_free > 0);
	if (block->prev_free >= 0)
		pool->blocks[block->prev_free].next_free = block->next_free;
	else
		pool->first_free = block->next_free;
	if (block->next_free >= 0)
		pool->blocks[block->next_free].prev_free = block->prev_free;
	else
		pool->last_free = block->prev_free;
	pool->n_free--;
}

LlmKvBlocks *
llm_kv_blocks_create(int32_t n_blocks, LlmError *err)
{
	LlmKvBlocks *pool = calloc(1, sizeof(LlmKvBlocks));

	assert(n_blocks > 0);
	if (pool != NULL)
		pool->blocks = calloc((size_t) n_blocks, sizeof(KvBlock));
	if (pool == NULL || pool->blocks == NULL)
	{
		llm_error_no_memory(err, (uint64_t) n_blocks * sizeof(KvBlock),
							"the KV block pool");
		llm_kv_blocks_free(pool);
		return NULL;
	}
	pool->cache = llm_prefix_cache_create(n_blocks, err);
	if (pool->cache == NULL)
	{
		llm_kv_blocks_free(pool);
		return NULL;
	}
	pool->n_blocks = n_blocks;
	pool->first_free = pool->last_free = -1;
	for (int32_t i = 0; i < n_blocks; i++)
		push_free(pool, i, false);
	return pool;
}

void
llm_kv_blocks_free(LlmKvBlocks *pool)
{
	if (pool == NULL)
		return;
	llm_prefix_cache_free(pool->cache);
	free(pool->blocks);
	free(pool);
}

int32_t
llm_kv_blocks_n_free(const LlmKvBlocks *pool)
{
	return pool->n_free;
}

int32_t
llm_kv_blocks_n_refs(const LlmKvBlocks *pool, int32_t block_idx)
{
	assert(block_idx >= 0 && block_idx < pool->n_blocks);
	return pool->blocks[block_idx].n_refs;
}

int32_t
llm_kv_blocks_take(LlmKvBlocks *pool)
{
	int32_t block_idx = pool->first_free;

	if (block_idx < 0)
		return -1;
	unlink_free(pool, block_idx);
	if (llm_prefix_cache_digest(pool->cache, block_idx) != NULL)
		llm_prefix_cache_forget(pool->cache, block_idx);
	pool->blocks[block_idx].n_refs = 1;
	return block_idx;
}

void
llm_kv_blocks_share(LlmKvBlocks *pool, int32_t block_idx)
{
	assert(block_idx >= 0 && block_idx < pool->n_blocks);
	assert(llm_prefix_cache_digest(pool->cache, block_idx) != NULL);

	if (pool->blocks[block_idx].n_refs == 0)
		unlink_free(pool, block_idx);
	pool->blocks[block_idx].n_refs++;
}

void
llm_kv_blocks_release(LlmKvBlocks *pool, int32_t block_idx)
{
	assert(block_idx >= 0 && block_idx < pool->n_blocks);
	assert(pool->blocks[block_idx].n_refs > 0);

	if (--pool->blocks[block_idx].n_refs == 0)
		push_free(pool, block_idx,
				  llm_prefix_cache_digest(pool->cache, block_idx) == NULL);
}

int32_t
llm_kv_blocks_find(const LlmKvBlocks *pool, const LlmPrefixDigest *digest)
{
	return llm_prefix_cache_find(pool->cache, digest);
}

bool
llm_kv_blocks_publish(LlmKvBlocks *pool, int32_t block_idx,
					  const LlmPrefixDigest *digest)
{
	assert(llm_kv_blocks_n_refs(pool, block_idx) == 1);
	return llm_prefix_cache_insert(pool->cache, block_idx, digest);
}

void
llm_kv_blocks_retract(LlmKvBlocks *pool, int32_t block_idx)
{
	assert(llm_kv_blocks_n_refs(pool, block_idx) > 0);
	/* another block may be the one that is found */
	if (llm_prefix_cache_digest(pool->cache, block_idx) != NULL)
		llm_prefix_cache_forget(pool->cache, block_idx);
}

const LlmPrefixDigest *
llm_kv_blocks_digest(const LlmKvBlocks *pool, int32_t block_idx)
{
	return llm_prefix_cache_digest(pool->cache, block_idx);
}

bool
llm_kv_blocks_check(const LlmKvBlocks *pool, const int32_t *n_refs,
					LlmError *err)
{
	int32_t n_listed = 0;
	int32_t n_free = 0;
	int32_t prev = -1;

	for (int32_t i = 0; i < pool->n_blocks; i++)
	{
		if (pool->blocks[i].n_refs != n_refs[i])
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "block %d counts %d references, block tables "
								 "hold %d",
								 i, pool->blocks[i].n_refs, n_refs[i]);
		n_free += n_refs[i] == 0;
	}
	for (int32_t i = pool->first_free; i >= 0; i = pool->blocks[i].next_free)
	{
		if (++n_listed > n_free || pool->blocks[i].n_refs != 0 ||
			pool->blocks[i].prev_free != prev)
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "the free list is broken at block %d", i);
		prev = i;
	}
	if (n_listed != n_free || n_free != pool->n_free || prev != pool->last_free)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "%d blocks are free, %d are listed, %d are "
							 "counted",
							 n_free, n_listed, pool->n_free);
	return llm_prefix_cache_check(pool->cache, err);
}
