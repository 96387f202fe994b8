/*
 * strbuf.h
 *	  Growable byte and token-id buffers.
 *
 * Appending never fails loudly: a buffer that could not grow (or would pass
 * its limit) sets "failed" and ignores what follows, so a writer checks once
 * at the end.  The data of an LlmStrbuf is always NUL-terminated.
 *
 * src/common/util/strbuf.h
 */
#ifndef LLM_STRBUF_H
#define LLM_STRBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct LlmStrbuf
{
	char *data; /* malloc'ed; NULL while empty */
	size_t len; /* bytes used, without the NUL */
	size_t capacity;
	size_t limit; /* most bytes allowed; 0 = any */
	bool failed;
} LlmStrbuf;

extern void llm_strbuf_init(LlmStrbuf *buf);
extern void llm_strbuf_append(LlmStrbuf *buf, const void *bytes, size_t len);
extern void llm_strbuf_append_str(LlmStrbuf *buf, const char *text);
extern void llm_strbuf_append_char(LlmStrbuf *buf, char c);
extern void llm_strbuf_printf(LlmStrbuf *buf, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Room for so many more bytes, to be written by the caller; NULL: failed. */
extern char *llm_strbuf_reserve(LlmStrbuf *buf, size_t len);

/* Empty it, keeping the memory. */
extern void llm_strbuf_reset(LlmStrbuf *buf);
extern void llm_strbuf_free(LlmStrbuf *buf);

/* The text as a C string: "" while nothing was ever appended. */
static inline const char *
llm_strbuf_str(const LlmStrbuf *buf)
{
	return buf->data != NULL ? buf->data : "";
}

typedef struct LlmIdbuf
{
	int32_t *ids; /* malloc'ed; NULL while empty */
	size_t n_ids;
	size_t capacity;
	size_t limit; /* most ids allowed; 0 = any */
	bool failed;
} LlmIdbuf;

extern void llm_idbuf_init(LlmIdbuf *buf);
extern void llm_idbuf_append(LlmIdbuf *buf, int32_t token_id);
extern void llm_idbuf_append_many(LlmIdbuf *buf, const int32_t *ids, size_t n);
extern void llm_idbuf_reset(LlmIdbuf *buf);
extern void llm_idbuf_free(LlmIdbuf *buf);

#endif /* LLM_STRBUF_H */
