/*
 * json_slice.h
 *	  Walking through a JSON text without taking it apart: values stay as they
 *	  were written, numbers and key order included.
 *
 * A slice is a run of bytes of a longer text.  Nothing is checked but what is
 * walked over: a text that is no JSON gives slices that are none either, never
 * a read beyond its end.  Whoever reads a slice's value in earnest checks it.
 *
 * src/common/util/json_slice.h
 */
#ifndef LLM_JSON_SLICE_H
#define LLM_JSON_SLICE_H

#include "src/common/util/strbuf.h"

typedef struct LlmJsonSlice
{
	const char *data; /* NULL = absent */
	size_t len;
} LlmJsonSlice;

/* '{', '[', '"', 't', 'f', 'n', '-' or a digit; '\0' where nothing is. */
extern char llm_json_slice_kind(LlmJsonSlice value);

/* The next item of an array; *off is 0 at first.  False: there is none. */
extern bool
llm_json_slice_next_item(LlmJsonSlice array, size_t *off, LlmJsonSlice *item);

/* The next member of an object; the key is a string with its quotes. */
extern bool llm_json_slice_next_member(LlmJsonSlice object, size_t *off,
									   LlmJsonSlice *key, LlmJsonSlice *value);

/* A key's value, the last one's; absent also where it is null. */
extern LlmJsonSlice llm_json_slice_member(LlmJsonSlice object, const char *key);

/* Append a string's text as UTF-8.  False: it is no JSON string. */
extern bool llm_json_slice_append_text(LlmJsonSlice string, LlmStrbuf *out);

/* Is it the string of just that text? */
extern bool llm_json_slice_is(LlmJsonSlice string, const char *text);

/* Append a string literal of UTF-8 text. */
extern void
llm_json_append_string(LlmStrbuf *out, const char *text, size_t len);

/* Bytes from here that a JSON string holds as they are: most of them. */
extern size_t llm_json_plain_bytes(const char *text, size_t len);

#endif /* LLM_JSON_SLICE_H */
