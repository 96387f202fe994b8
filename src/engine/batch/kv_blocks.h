/*
 * kv_blocks.h
 *	  The pool of KV blocks: reference counts, free list, cached contents.
 *
 * src/engine/batch/kv_blocks.h
 */
#ifndef LLM_KV_BLOCKS_H
#define LLM_KV_BLOCKS_H

#include "src/engine/batch/prefix_cache.h"

typedef struct LlmKvBlocks LlmKvBlocks;

extern LlmKvBlocks *llm_kv_blocks_create(int32_t n_blocks, LlmError *err);
extern void llm_kv_blocks_free(LlmKvBlocks *pool);

/* Blocks that nobody refers to, cached ones included. */
extern int32_t llm_kv_blocks_n_free(const LlmKvBlocks *pool);
extern int32_t llm_kv_blocks_n_refs(const LlmKvBlocks *pool, int32_t block_idx);

/*
 * Take the free block that is least worth keeping, for new contents; its old
 * ones are forgotten.  -1: none is free.
 */
extern int32_t llm_kv_blocks_take(LlmKvBlocks *pool);

/* One more reference to a block with cached contents, free or not. */
extern void llm_kv_blocks_share(LlmKvBlocks *pool, int32_t block_idx);

/*
 * One reference less.  The last one makes the block free; cached contents
 * stay findable until the block is taken.  A sequence gives its blocks back
 * last one first, so that of a prefix the tail is reused before the head.
 */
extern void llm_kv_blocks_release(LlmKvBlocks *pool, int32_t block_idx);

/* The block with these contents, or -1. */
extern int32_t
llm_kv_blocks_find(const LlmKvBlocks *pool, const LlmPrefixDigest *digest);

/*
 * A referenced block has these contents from now on.  False: another block
 * has them, too, and stays the one that is found.
 */
extern bool llm_kv_blocks_publish(LlmKvBlocks *pool, int32_t block_idx,
								  const LlmPrefixDigest *digest);

/* Its contents do not come about: nobody finds it any more. */
extern void llm_kv_blocks_retract(LlmKvBlocks *pool, int32_t block_idx);

/* The contents a block is findable under, or NULL. */
extern const LlmPrefixDigest *
llm_kv_blocks_digest(const LlmKvBlocks *pool, int32_t block_idx);

/* n_refs[n_blocks] is what the block tables say. */
extern bool llm_kv_blocks_check(const LlmKvBlocks *pool, const int32_t *n_refs,
								LlmError *err);

#endif /* LLM_KV_BLOCKS_H */
