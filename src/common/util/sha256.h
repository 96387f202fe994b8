/*
 * sha256.h
 *	  SHA-256 (FIPS 180-4).
 *
 * src/common/util/sha256.h
 */
#ifndef LLM_SHA256_H
#define LLM_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define LLM_SHA256_BYTES 32

typedef struct LlmSha256
{
	uint32_t state[8];
	uint64_t n_bytes;
	uint8_t block[64];
} LlmSha256;

extern void llm_sha256_init(LlmSha256 *sha);
extern void llm_sha256_update(LlmSha256 *sha, const void *data, size_t len);
extern void llm_sha256_final(LlmSha256 *sha, uint8_t digest[LLM_SHA256_BYTES]);

#endif /* LLM_SHA256_H */
