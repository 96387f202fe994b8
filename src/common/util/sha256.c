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

#include <string.h>

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

static void
compress(uint32_t state[8], const uint8_t *block)
{
	uint32_t w[64];
	uint32_t s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t) block[4 * i] << 24 |
			   (uint32_t) block[4 * i + 1] << 16 |
			   (uint32_t) block[4 * i + 2] << 8 | block[4 * i + 3];
	for (int i = 16; i < 64; i++)
	{
		uint32_t a = w[i - 15];
		uint32_t b = w[i - 2];

		w[i] = w[i - 16] + w[i - 7] +
			   (rotate_right(a, 7) ^ rotate_right(a, 18) ^ (a >> 3)) +
			   (rotate_right(b, 17) ^ rotate_right(b, 19) ^ (b >> 10));
	}
	memcpy(s, state, sizeof(s));
	for (int i = 0; i < 64; i++)
	{
		uint32_t sum1 = rotate_right(s[4], 6) ^ rotate_right(s[4], 11) ^
						rotate_right(s[4], 25);
		uint32_t choose = (s[4] & s[5]) ^ (~s[4] & s[6]);
		uint32_t t1 = s[7] + sum1 + choose + round_constants[i] + w[i];
		uint32_t sum0 = rotate_right(s[0], 2) ^ rotate_right(s[0], 13) ^
						rotate_right(s[0], 22);
		uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);

		memmove(s + 1, s, 7 * sizeof(uint32_t));
		s[4] += t1;
		s[0] = t1 + sum0 + majority;
	}
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
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
