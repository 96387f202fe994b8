/*
 * ipc_ring.h
 *	  A byte ring in shared memory with one writer and one reader.
 *
 * Positions count bytes ever written and read, so full and empty need no flag;
 * each is written by one side only and published with release order after
 * the bytes it covers.  Initialization and hand-over between uses of the
 * memory must be ordered by the caller (a lock).  No pointers are kept: the
 * same ring may be mapped at different addresses.
 *
 * src/common/ipc/ipc_ring.h
 */
#ifndef LLM_IPC_RING_H
#define LLM_IPC_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct LlmRing
{
	_Atomic uint64_t written;  /* by the writer */
	_Atomic uint64_t consumed; /* by the reader */
	uint32_t capacity;		   /* bytes, a power of two; set once */
	uint32_t reserved;
} LlmRing;

static inline void
llm_ring_init(LlmRing *ring, uint32_t capacity_bytes)
{
	atomic_init(&ring->written, 0);
	atomic_init(&ring->consumed, 0);
	ring->capacity = capacity_bytes;
	ring->reserved = 0;
}

/*
 * Copy up to n_bytes into the ring's buffer (capacity bytes); returns how many
 * found room.
 */
extern size_t
llm_ring_write(LlmRing *ring, char *buffer, const void *bytes, size_t n_bytes);

/* Copy up to n_bytes out; returns how many were there. */
extern size_t
llm_ring_read(LlmRing *ring, const char *buffer, void *bytes, size_t n_bytes);

static inline size_t
llm_ring_readable(const LlmRing *ring)
{
	return (
		size_t) (atomic_load_explicit(&ring->written, memory_order_acquire) -
				 atomic_load_explicit(&ring->consumed, memory_order_relaxed));
}

static inline size_t
llm_ring_writable(const LlmRing *ring)
{
	return ring->capacity -
		   (size_t) (atomic_load_explicit(&ring->written,
										  memory_order_relaxed) -
					 atomic_load_explicit(&ring->consumed,
										  memory_order_acquire));
}

#endif /* LLM_IPC_RING_H */
