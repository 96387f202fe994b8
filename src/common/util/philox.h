/*
 * philox.h
 *	  Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
 *
 * A number is a pure function of (key, counter), so a request that is resumed
 * on another executor, or computed on another device, draws the same ones.
 *
 * src/common/util/philox.h
 */
#ifndef LLM_PHILOX_H
#define LLM_PHILOX_H

#include <stdint.h>

typedef struct LlmPhilox
{
	uint32_t word[4];
} LlmPhilox;

static inline LlmPhilox
llm_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high)
{
	uint32_t k0 = (uint32_t) key;
	uint32_t k1 = (uint32_t) (key >> 32);
	LlmPhilox c = { { (uint32_t) counter_low, (uint32_t) (counter_low >> 32),
					  (uint32_t) counter_high,
					  (uint32_t) (counter_high >> 32) } };

	for (int round = 0; round < 10; round++)
	{
		uint64_t p0 = (uint64_t) 0xD2511F53u * c.word[0];
		uint64_t p1 = (uint64_t) 0xCD9E8D57u * c.word[2];
		LlmPhilox next = {
			{ (uint32_t) (p1 >> 32) ^ c.word[1] ^ k0, (uint32_t) p1,
			  (uint32_t) (p0 >> 32) ^ c.word[3] ^ k1, (uint32_t) p0 }
		};

		c = next;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	return c;
}

/* In [0, 1), 24 bits. */
static inline float
llm_philox_unit_float(uint32_t word)
{
	return (float) (word >> 8) * 5.9604644775390625e-8f;
}

#endif /* LLM_PHILOX_H */
