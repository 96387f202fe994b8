/*
 * gradient_sketch.h
 *	  A gradient against the sums that test/vectors/train has of it.
 *
 * The vectors keep 16 sums of a matrix's numbers, each with signs of its own,
 * which follow from a number's place.  The mean square of the differences in
 * these sums estimates the square of |difference|, without bias: no number can
 * be off unseen.  generate.py's sketch() is the other side.
 *
 * test/unit/gradient_sketch.h
 */
#ifndef LLM_GRADIENT_SKETCH_H
#define LLM_GRADIENT_SKETCH_H

#include <math.h>
#include <stdint.h>

#define SKETCH_SUMS 16

/* A sign for each sum: bits 8 .. 23. */
static uint32_t
sketch_hash(int64_t i)
{
	uint32_t x = (uint32_t) ((uint64_t) i * 2654435761u + 12345u);

	x ^= x >> 15;
	x *= 2246822519u;
	x ^= x >> 13;
	x *= 3266489917u;
	return x ^ x >> 16;
}

/* |difference| / |expected|, of n numbers and their expected sums. */
static double
sketch_error(const float *values, int64_t n, const float *expected)
{
	double sums[SKETCH_SUMS] = { 0 };
	double error = 0;
	double norm = 0;

	for (int64_t i = 0; i < n; i++)
	{
		uint32_t bits = sketch_hash(i) >> 8;

		for (int k = 0; k < SKETCH_SUMS; k++)
			sums[k] +=
				(bits >> k & 1) != 0 ? -(double) values[i] : (double) values[i];
	}
	for (int k = 0; k < SKETCH_SUMS; k++)
	{
		error +=
			(sums[k] - (double) expected[k]) * (sums[k] - (double) expected[k]);
		norm += (double) expected[k] * (double) expected[k];
	}
	return error == 0 ? 0 : sqrt(error / norm);
}

#endif /* LLM_GRADIENT_SKETCH_H */
