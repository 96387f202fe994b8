/*
 * ipc_ring.c
 *	  A byte ring in shared memory with one writer and one reader.
 *
 * src/common/ipc/ipc_ring.c
 */
#include "src/common/ipc/ipc_ring.h"

#include <assert.h>
#include <string.h>

static inline size_t
min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t
llm_ring_write(LlmRing *ring, char *buffer, const void *bytes, size_t n_bytes)
{
	uint64_t written =
		atomic_load_explicit(&ring->written, memory_order_relaxed);
	size_t n = min_size(n_bytes, llm_ring_writable(ring));
	size_t off = (size_t) (written & (ring->capacity - 1));
	size_t first = min_size(n, ring->capacity - off);

	assert((ring->capacity & (ring->capacity - 1)) == 0);
	memcpy(buffer + off, bytes, first);
	memcpy(buffer, (const char *) bytes + first, n - first);
	atomic_store_explicit(&ring->written, written + n, memory_order_release);
	return n;
}

size_t
llm_ring_read(LlmRing *ring, const char *buffer, void *bytes, size_t n_bytes)
{
	uint64_t consumed =
		atomic_load_explicit(&ring->consumed, memory_order_relaxed);
	size_t n = min_size(n_bytes, llm_ring_readable(ring));
	size_t off = (size_t) (consumed & (ring->capacity - 1));
	size_t first = min_size(n, ring->capacity - off);

	assert((ring->capacity & (ring->capacity - 1)) == 0);
	memcpy(bytes, buffer + off, first);
	memcpy((char *) bytes + first, buffer, n - first);
	atomic_store_explicit(&ring->consumed, consumed + n, memory_order_release);
	return n;
}
