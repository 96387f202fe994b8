/*
 * bench_words.h
 *	  Texts of tokens as large vocabularies have them: numbers, words of
 *	  letters with and without a space in front or a mark behind, JSON's marks,
 *	  pieces of UTF-8.
 *
 * test/bench/bench_words.h
 */
#ifndef LLM_BENCH_WORDS_H
#define LLM_BENCH_WORDS_H

#include <stdio.h>
#include <string.h>

#include "src/common/util/philox.h"

/* Any word of a bench fits, its final zero included. */
#define MAX_WORD_BYTES 48

/* The i-th word; some come more than once.  Returns its length. */
static inline size_t
make_word(uint64_t i, char *out)
{
	static const char *const tails[] = { "",	"",	   "",	"",	 "",   "\"",
										 "\",", "\":", ".", ",", "'s", "\n" };
	LlmPhilox r = llm_philox(1, i, 0);
	size_t n = 0;
	uint32_t letters = 2 + r.word[0] % 9;

	if (i < 1110)
		return (size_t) sprintf(out,
								i < 10	  ? "%d"
								: i < 110 ? "%02d"
										  : "%03d",
								(int) (i < 10	 ? i
									   : i < 110 ? i - 10
												 : i - 110));
	if (i % 50 == 0)
	{
		for (uint32_t k = 0; k <= r.word[1] % 6; k++)
			out[n++] = "{}[]\",: \n\\/-_=()"[llm_philox(2, i, k).word[0] % 16];
		return n;
	}
	if (i % 2 == 0)
		out[n++] = ' ';
	if (i % 7 == 0)
	{
		/* two or three letters of a script of two bytes each */
		for (uint32_t k = 0; k < 2 + r.word[1] % 3; k++)
		{
			out[n++] = (char) 0xD0;
			out[n++] = (char) (0x80 + llm_philox(3, i, k).word[0] % 64);
		}
		return n;
	}
	for (uint32_t k = 0; k < letters; k++)
		out[n++] =
			"etaoinshrdlucmfwypvbgkjqxz"[llm_philox(4, i, k).word[0] %
										 llm_philox(5, i, k).word[0] % 26];
	strcpy(out + n, tails[r.word[2] % 12]);
	return n + strlen(out + n);
}

#endif /* LLM_BENCH_WORDS_H */
