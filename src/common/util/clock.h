/*
 * clock.h
 *	  Monotonic time.
 *
 * src/common/util/clock.h
 */
#ifndef LLM_CLOCK_H
#define LLM_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t
llm_clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

#endif /* LLM_CLOCK_H */
