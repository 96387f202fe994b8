/*
 * gguf_vocab.h
 *	  The vocabulary of a GGUF file in memory, and writing JSON.
 *
 * src/common/gguf/gguf_vocab.h
 */
#ifndef LLM_GGUF_VOCAB_H
#define LLM_GGUF_VOCAB_H

#include "src/common/gguf/gguf.h"

/* What "tokenizer.ggml.token_type" says of a token. */
typedef enum GgufTokenType
{
	GGUF_TOKEN_NORMAL = 1,
	GGUF_TOKEN_UNKNOWN = 2,
	GGUF_TOKEN_CONTROL = 3,
	GGUF_TOKEN_USER_DEFINED = 4,
	GGUF_TOKEN_UNUSED = 5,
	GGUF_TOKEN_BYTE = 6
} GgufTokenType;

typedef struct GgufToken
{
	LlmGgufText text; /* UTF-8, without zero bytes */
	GgufTokenType type;
	float score; /* 0 where the file has none */
} GgufToken;

typedef struct GgufVocab
{
	const char *path;
	GgufToken *tokens; /* malloc'ed; the id is the index */
	int32_t n_tokens;
	char *restored; /* texts that were changed; malloc'ed */
	int32_t *slots; /* of a hash table: id + 1; 0 = free */
	size_t slot_mask;
} GgufVocab;

/*
 * Zeroed on failure.  Two tokens of one text are an error.  Where "restores
 * spaces", a user-defined token of nothing but spaces is again one of U+2581,
 * as SentencePiece has it and llama.cpp's converter does not.
 */
extern bool gguf_vocab_open(GgufVocab *vocab, const LlmGguf *gguf,
							bool restores_spaces, LlmError *err);
extern void gguf_vocab_close(GgufVocab *vocab);

/* The id of a text, or -1. */
extern int32_t
gguf_vocab_find(const GgufVocab *vocab, const char *text, size_t len);

/*
 * Append the merges that SentencePiece's scores stand for as the elements of
 * a JSON array, the first first.
 */
extern bool
gguf_vocab_write_merges(const GgufVocab *vocab, LlmStrbuf *json, LlmError *err);

/* Append a JSON string of a text that is UTF-8. */
extern void
gguf_json_append_string(LlmStrbuf *json, const char *text, size_t len);

#endif /* LLM_GGUF_VOCAB_H */
