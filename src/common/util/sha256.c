/*
 * sha256.c
 *	  SHA-256 (FIPS 180-4).
 *
 * Own code because the engine links neither PostgreSQL's nor a TLS library;
 * it hashes token ids for the prefix cache and file contents for
 * fingerprints, and has no secrets to protect against timing.
 *
 * src/common/util/sha256.c
 */
#include "src/common/util/sha256.h"

#include <stdbool.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

static const uint32_t round_constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
	0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
	0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
	0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
	0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
	0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

static inline uint32_t
rotate_right(uint32_t x, int n)
{
	return (x >> n) | (x << (32 - n));
}

/*
 * One round.  The caller renames the eight words from round to round instead
 * of moving them.
 */
#define ROUND(a, b, c, d, e, f, g, h, i)                                       \
	do                                                                         \
	{                                                                          \
		uint32_t t1 =                                                          \
			h +                                                                \
			(rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)) + \
			((e & f) ^ (~e & g)) + round_constants[i] + w[i];                  \
                                                                               \
		d += t1;                                                               \
		h = t1 +                                                               \
			(rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)) + \
			((a & b) ^ (a & c) ^ (b & c));                                     \
	} while (0)

static void
compress_portable(uint32_t state[8], const uint8_t *block)
{
	uint32_t w[64];
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t) block[4 * i] << 24 |
			   (uint32_t) block[4 * i + 1] << 16 |
			   (uint32_t) block[4 * i + 2] << 8 | block[4 * i + 3];
	for (int i = 16; i < 64; i++)
	{
		uint32_t x = w[i - 15];
		uint32_t y = w[i - 2];

		w[i] = w[i - 16] + w[i - 7] +
			   (rotate_right(x, 7) ^ rotate_right(x, 18) ^ (x >> 3)) +
			   (rotate_right(y, 17) ^ rotate_right(y, 19) ^ (y >> 10));
	}
	for (int i = 0; i < 64; i += 8)
	{
		ROUND(a, b, c, d, e, f, g, h, i);
		ROUND(h, a, b, c, d, e, f, g, i + 1);
		ROUND(g, h, a, b, c, d, e, f, i + 2);
		ROUND(f, g, h, a, b, c, d, e, i + 3);
		ROUND(e, f, g, h, a, b, c, d, i + 4);
		ROUND(d, e, f, g, h, a, b, c, i + 5);
		ROUND(c, d, e, f, g, h, a, b, i + 6);
		ROUND(b, c, d, e, f, g, h, a, i + 7);
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
	state[5] += f;
	state[6] += g;
	state[7] += h;
}

#ifdef __x86_64__

/*
 * With the processor's own instructions.  They want the state as the vectors
 * (a b e f) and (c d g h); four rounds at a time, w[k] holding the message
 * words of rounds 4k .. 4k + 3, four of which are alive at any time.
 */
__attribute__((target("sha,sse4.1"))) static void
compress_x86(uint32_t state[8], const uint8_t *block)
{
	const __m128i swap =
		_mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
	__m128i low =
		_mm_shuffle_epi32(_mm_loadu_si128((const __m128i *) &state[0]), 0xB1);
	__m128i high =
		_mm_shuffle_epi32(_mm_loadu_si128((const __m128i *) &state[4]), 0x1B);
	__m128i abef = _mm_alignr_epi8(low, high, 8);
	__m128i cdgh = _mm_blend_epi16(high, low, 0xF0);
	__m128i abef_before = abef;
	__m128i cdgh_before = cdgh;
	__m128i w[4];

	for (int i = 0; i < 4; i++)
		w[i] = _mm_shuffle_epi8(
			_mm_loadu_si128((const __m128i *) (block + 16 * i)), swap);
#pragma GCC unroll 16
	for (int k = 0; k < 16; k++)
	{
		__m128i now = w[k % 4];
		__m128i sum = _mm_add_epi32(
			now, _mm_loadu_si128((const __m128i *) &round_constants[4 * k]));

		cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
		abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
		if (k < 12)
		{
			__m128i next = w[(k + 1) % 4];
			__m128i last = w[(k + 3) % 4];

			now = _mm_sha256msg1_epu32(now, next);
			now = _mm_add_epi32(now, _mm_alignr_epi8(last, w[(k + 2) % 4], 4));
			w[k % 4] = _mm_sha256msg2_epu32(now, last);
		}
	}
	abef = _mm_add_epi32(abef, abef_before);
	cdgh = _mm_add_epi32(cdgh, cdgh_before);
	low = _mm_shuffle_epi32(abef, 0x1B);
	high = _mm_shuffle_epi32(cdgh, 0xB1);
	_mm_storeu_si128((__m128i *) &state[0], _mm_blend_epi16(low, high, 0xF0));
	_mm_storeu_si128((__m128i *) &state[4], _mm_alignr_epi8(high, low, 8));
}

static bool
has_sha_instructions(void)
{
	uint32_t a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1))
		return false;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

#endif

static void
compress(uint32_t state[8], const uint8_t *block)
{
#ifdef __x86_64__
	/* 0: not asked yet; threads that ask at once find the same answer */
	static int how;
	int known = __atomic_load_n(&how, __ATOMIC_RELAXED);

	if (known == 0)
	{
		known = has_sha_instructions() ? 1 : 2;
		__atomic_store_n(&how, known, __ATOMIC_RELAXED);
	}
	if (known == 1)
	{
		compress_x86(state, block);
		return;
	}
#endif
	compress_portable(state, block);
}

void
llm_sha256_init(LlmSha256 *sha)
{
	static const uint32_t initial[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372,
										 0xa54ff53a, 0x510e527f, 0x9b05688c,
										 0x1f83d9ab, 0x5be0cd19 };

	memcpy(sha->state, initial, sizeof(initial));
	sha->n_bytes = 0;
}

void
llm_sha256_update(LlmSha256 *sha, const void *data, size_t len)
{
	const uint8_t *bytes = data;
	size_t fill = sha->n_bytes % 64;

	sha->n_bytes += len;
	if (fill > 0)
	{
		size_t take = 64 - fill < len ? 64 - fill : len;

		memcpy(sha->block + fill, bytes, take);
		bytes += take;
		len -= take;
		if (fill + take < 64)
			return;
		compress(sha->state, sha->block);
	}
	for (; len >= 64; bytes += 64, len -= 64)
		compress(sha->state, bytes);
	if (len > 0)
		memcpy(sha->block, bytes, len);
}

void
llm_sha256_final(LlmSha256 *sha, uint8_t digest[LLM_SHA256_BYTES])
{
	uint64_t n_bits = sha->n_bytes * 8;
	size_t fill = sha->n_bytes % 64;
	uint8_t length[8];
	static const uint8_t padding[64] = { 0x80 };

	llm_sha256_update(sha, padding, fill < 56 ? 56 - fill : 120 - fill);
	for (int i = 0; i < 8; i++)
		length[i] = (uint8_t) (n_bits >> (56 - 8 * i));
	llm_sha256_update(sha, length, 8);
	for (int i = 0; i < LLM_SHA256_BYTES; i++)
		digest[i] = (uint8_t) (sha->state[i / 4] >> (24 - 8 * (i % 4)));
}
