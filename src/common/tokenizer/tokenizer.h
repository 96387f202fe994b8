/*
 * tokenizer.h
 *	  Text to token ids and back, exactly as Hugging Face's tokenizer.json
 *	  defines it.
 *
 * A tokenizer.json is compiled once, at model load, into an image: one flat,
 * position-independent run of bytes that holds the vocabulary, the merges and
 * every component's parameters.  Any number of processes map the image
 * read-only and open a tokenizer on it, which costs microseconds (split
 * expressions are compiled by PCRE2 on first use and kept by the handle).
 *
 * An open tokenizer is used by one thread at a time.  The image is checked
 * when it is opened (magic, version, every offset), so a damaged file is an
 * error, not a crash.
 *
 * src/common/tokenizer/tokenizer.h
 */
#ifndef LLM_TOKENIZER_H
#define LLM_TOKENIZER_H

#include <signal.h>

#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

typedef struct LlmTokenizer LlmTokenizer;
typedef struct LlmDetokenizer LlmDetokenizer;

/*
 * Compile tokenizer.json (text of json_len bytes; "path" is for messages).
 * config_text is tokenizer_config.json's text or NULL; of it only what
 * changes ids or decoded text counts, as transformers has it beside a
 * tokenizer.json: added_tokens_decoder, the special tokens it names,
 * split_special_tokens.  add_bos_token and add_eos_token do not: the
 * post-processor decides.  Appends the image to *image.  A component that is
 * not known is LLM_ERROR_UNSUPPORTED and is named.
 */
extern bool
llm_tokenizer_compile(const char *json_text, size_t json_len,
					  const char *config_text, size_t config_len,
					  const char *path, LlmStrbuf *image, LlmError *err);

/* The image is borrowed (8-byte aligned) and must outlive the tokenizer. */
extern LlmTokenizer *
llm_tokenizer_open(const void *image, size_t n_bytes, LlmError *err);
extern void llm_tokenizer_close(LlmTokenizer *tokenizer);

/* Ids are 0 .. n_vocab - 1, added tokens included. */
extern int32_t llm_tokenizer_n_vocab(const LlmTokenizer *tokenizer);

/* The id of a token's exact content (as in the vocabulary), or -1. */
extern int32_t llm_tokenizer_token_to_id(const LlmTokenizer *tokenizer,
										 const char *content, size_t len);

/* The content (as in the vocabulary), borrowed; NULL for an unused id. */
extern const char *llm_tokenizer_id_to_token(const LlmTokenizer *tokenizer,
											 int32_t token_id, size_t *len);

/* True for ids that skip_special_tokens leaves out of decoded text. */
extern bool
llm_tokenizer_is_special(const LlmTokenizer *tokenizer, int32_t token_id);

/*
 * Append the ids of a text.  add_special_tokens runs the post-processor
 * (BOS and the like).  The text need not be valid UTF-8: invalid bytes are
 * replaced by U+FFFD first, as a JSON front end would have done.  Where
 * *interrupt (may be NULL) becomes nonzero, encoding stops within a
 * millisecond or so with LLM_ERROR_CANCELLED.  out->limit bounds the result
 * (LLM_ERROR_LIMIT).
 */
extern bool llm_tokenizer_encode(LlmTokenizer *tokenizer, const char *text,
								 size_t len, bool add_special_tokens,
								 const volatile sig_atomic_t *interrupt,
								 LlmIdbuf *out, LlmError *err);

/*
 * Append the text of ids: always valid UTF-8 (bytes that form no character
 * become U+FFFD, as the reference does).  An id outside the vocabulary is an
 * error.
 */
extern bool
llm_tokenizer_decode(LlmTokenizer *tokenizer, const int32_t *ids, size_t n_ids,
					 bool skip_special_tokens, LlmStrbuf *out, LlmError *err);

/*
 * The text of one token as it stands alone, for logprob listings: its raw
 * bytes (perhaps no valid UTF-8).
 */
extern bool llm_tokenizer_token_bytes(LlmTokenizer *tokenizer, int32_t token_id,
									  LlmStrbuf *out, LlmError *err);

/*
 * Incremental decoding.  What the pushes and the final flush append adds up
 * to llm_tokenizer_decode of all ids; no piece ends within a UTF-8 character.
 * Cost per token does not grow with the length of the answer.
 */
extern LlmDetokenizer *
llm_detokenizer_create(LlmTokenizer *tokenizer, bool skip_special_tokens,
					   LlmError *err);
extern bool llm_detokenizer_push(LlmDetokenizer *detokenizer, int32_t token_id,
								 LlmStrbuf *out, LlmError *err);
extern bool llm_detokenizer_flush(LlmDetokenizer *detokenizer, LlmStrbuf *out,
								  LlmError *err);
extern void llm_detokenizer_free(LlmDetokenizer *detokenizer);

#endif /* LLM_TOKENIZER_H */
