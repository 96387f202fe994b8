/*
 * arena.h
 *	  A bump allocator: many small pieces, freed together.
 *
 * Owners name their arena for the out-of-memory message and may bound it, so
 * that outside input (a template, a JSON text) cannot take all memory.  An
 * arena is used by one thread.
 *
 * src/common/util/arena.h
 */
#ifndef LLM_ARENA_H
#define LLM_ARENA_H

#include <stdbool.h>
#include <stddef.h>

typedef struct LlmArena LlmArena;

/* limit_bytes 0 = unbounded.  The name is borrowed.  NULL: out of memory. */
extern LlmArena *llm_arena_create(const char *name, size_t limit_bytes);

/*
 * Memory aligned for any type, not zeroed; llm_arena_alloc0 zeroes it.  NULL
 * when the system or the arena's bound has no more.  A request of 0 bytes
 * returns a valid pointer.
 */
extern void *llm_arena_alloc(LlmArena *arena, size_t n_bytes);
extern void *llm_arena_alloc0(LlmArena *arena, size_t n_bytes);

/* A NUL-terminated copy of n_bytes of text; NULL as above. */
extern char *
llm_arena_strndup(LlmArena *arena, const char *text, size_t n_bytes);

extern size_t llm_arena_used_bytes(const LlmArena *arena);

/* Forget all pieces but keep the first chunk for reuse. */
extern void llm_arena_reset(LlmArena *arena);

/* NULL is allowed. */
extern void llm_arena_free(LlmArena *arena);

#endif /* LLM_ARENA_H */
