/*
 * cpu_inline.h
 *	  How kernels tell the compiler what has to stay in registers.
 *
 * src/engine/compute/cpu_inline.h
 */
#ifndef LLM_CPU_INLINE_H
#define LLM_CPU_INLINE_H

#define LLM_INLINE static inline __attribute__((always_inline))

/* In front of a loop over a small constant count: keep arrays in registers. */
#if defined(__clang__)
/* where a loop stays one, the result is the same */
#pragma clang diagnostic ignored "-Wpass-failed"
#define LLM_UNROLL _Pragma("unroll")
#else
#define LLM_UNROLL _Pragma("GCC unroll 32")
#endif

/* The compiler shall not mix the loads before with those after. */
#define LLM_KEEP_ORDER() __asm__ volatile("" ::: "memory")

#endif /* LLM_CPU_INLINE_H */
