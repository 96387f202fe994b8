/*
 * train_values.h
 *	  The values of matrices that the trainer's tests begin with: a formula
 *	  that test/vectors/train/generate.py knows, too.
 *
 * test/unit/train_values.h
 */
#ifndef LLM_TRAIN_VALUES_H
#define LLM_TRAIN_VALUES_H

#include <stdint.h>

/* A state: a header, then values and both moments, each all A, then the rest. */
#define STATE_HEADER_BYTES 32

/* Number i of a matrix, in about -0.5 .. 0.5. */
static inline float
train_value(int64_t i, int64_t salt)
{
	uint32_t x = (uint32_t) ((uint64_t) i * 2654435761u +
							 (uint64_t) salt * 40503u + 12345u);

	x ^= x >> 15;
	x *= 2246822519u;
	x ^= x >> 13;
	return (float) ((double) (x >> 8) / (1 << 24) - 0.5);
}

/* Numbers first .. first + n - 1 of a matrix; where the next one begins. */
static inline float *
train_values_fill(float *at, int64_t n, int64_t first, int64_t salt,
				  double scale)
{
	for (int64_t i = first; i < first + n; i++)
		*at++ = (float) ((double) train_value(i, salt) * scale);
	return at;
}

#endif /* LLM_TRAIN_VALUES_H */
