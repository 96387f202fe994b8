/*
 * arena.c
 *	  A bump allocator over a list of chunks.
 *
 * Chunks double from 4 KiB to 1 MiB; a piece larger than half a chunk gets a
 * chunk of its own, so that little is wasted at chunk ends.
 *
 * src/common/util/arena.c
 */
#include "src/common/util/arena.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CHUNK_BYTES ((size_t) 4096)
#define MAX_CHUNK_BYTES ((size_t) 1 << 20)
#define ALIGNMENT ((size_t) 16)

typedef struct ArenaChunk
{
	struct ArenaChunk *next;
	size_t size; /* bytes after the header */
	size_t used;
	size_t pad; /* keeps the data 16-byte aligned */
} ArenaChunk;

_Static_assert(sizeof(ArenaChunk) % 16 == 0, "chunk data must be aligned");

struct LlmArena
{
	const char *name;
	size_t limit_bytes; /* 0 = unbounded */
	size_t used_bytes;	/* sum of chunk sizes */
	size_t next_chunk_bytes;
	ArenaChunk *chunks; /* the head is the one being filled */
};

LlmArena *
llm_arena_create(const char *name, size_t limit_bytes)
{
	LlmArena *arena = calloc(1, sizeof(LlmArena));

	if (arena == NULL)
		return NULL;
	arena->name = name;
	arena->limit_bytes = limit_bytes;
	arena->next_chunk_bytes = FIRST_CHUNK_BYTES;
	return arena;
}

static ArenaChunk *
add_chunk(LlmArena *arena, size_t size)
{
	ArenaChunk *chunk;

	if (arena->limit_bytes != 0 &&
		(size > arena->limit_bytes ||
		 arena->used_bytes > arena->limit_bytes - size))
		return NULL;
	chunk = malloc(sizeof(ArenaChunk) + size);
	if (chunk == NULL)
		return NULL;
	chunk->size = size;
	chunk->used = 0;
	arena->used_bytes += size;
	return chunk;
}

void *
llm_arena_alloc(LlmArena *arena, size_t n_bytes)
{
	ArenaChunk *chunk = arena->chunks;
	size_t need;
	void *result;

	if (n_bytes > SIZE_MAX - ALIGNMENT)
		return NULL;
	need = (n_bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
	if (chunk == NULL || chunk->size - chunk->used < need)
	{
		bool own_chunk = need > arena->next_chunk_bytes / 2;

		chunk = add_chunk(arena, own_chunk ? need : arena->next_chunk_bytes);
		if (chunk == NULL)
			return NULL;
		if (own_chunk && arena->chunks != NULL)
		{
			/* keep filling the current head: put the full one behind it */
			chunk->next = arena->chunks->next;
			arena->chunks->next = chunk;
		}
		else
		{
			chunk->next = arena->chunks;
			arena->chunks = chunk;
			if (arena->next_chunk_bytes < MAX_CHUNK_BYTES)
				arena->next_chunk_bytes *= 2;
		}
	}
	assert(chunk->size - chunk->used >= need);
	result = (char *) (chunk + 1) + chunk->used;
	chunk->used += need;
	return result;
}

void *
llm_arena_alloc0(LlmArena *arena, size_t n_bytes)
{
	void *result = llm_arena_alloc(arena, n_bytes);

	if (result != NULL)
		memset(result, 0, n_bytes);
	return result;
}

char *
llm_arena_strndup(LlmArena *arena, const char *text, size_t n_bytes)
{
	char *result =
		n_bytes == SIZE_MAX ? NULL : llm_arena_alloc(arena, n_bytes + 1);

	if (result == NULL)
		return NULL;
	memcpy(result, text, n_bytes);
	result[n_bytes] = '\0';
	return result;
}

size_t
llm_arena_used_bytes(const LlmArena *arena)
{
	return arena->used_bytes;
}

void
llm_arena_reset(LlmArena *arena)
{
	ArenaChunk *keep = arena->chunks;

	if (keep == NULL)
		return;
	while (keep->next != NULL)
	{
		ArenaChunk *next = keep->next;

		keep->next = next->next;
		free(next);
	}
	keep->used = 0;
	arena->used_bytes = keep->size;
}

void
llm_arena_free(LlmArena *arena)
{
	if (arena == NULL)
		return;
	while (arena->chunks != NULL)
	{
		ArenaChunk *next = arena->chunks->next;

		free(arena->chunks);
		arena->chunks = next;
	}
	free(arena);
}
