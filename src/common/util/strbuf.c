/*
 * strbuf.c
 *	  Growable byte and token-id buffers.
 *
 * src/common/util/strbuf.c
 */
#include "src/common/util/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
llm_strbuf_init(LlmStrbuf *buf)
{
	memset(buf, 0, sizeof(*buf));
}

char *
llm_strbuf_reserve(LlmStrbuf *buf, size_t len)
{
	size_t need;

	if (buf->failed || len > SIZE_MAX / 4 - buf->len ||
		(buf->limit != 0 && buf->len + len > buf->limit))
	{
		buf->failed = true;
		return NULL;
	}
	need = buf->len + len + 1;
	if (need > buf->capacity)
	{
		size_t capacity = buf->capacity < 64 ? 64 : buf->capacity * 2;
		char *data;

		if (capacity < need)
			capacity = need;
		data = realloc(buf->data, capacity);
		if (data == NULL)
		{
			buf->failed = true;
			return NULL;
		}
		buf->data = data;
		buf->capacity = capacity;
	}
	buf->data[buf->len + len] = '\0';
	return buf->data + buf->len;
}

void
llm_strbuf_append(LlmStrbuf *buf, const void *bytes, size_t len)
{
	char *dest = llm_strbuf_reserve(buf, len);

	if (dest == NULL || len == 0)
		return;
	memcpy(dest, bytes, len);
	buf->len += len;
}

void
llm_strbuf_append_str(LlmStrbuf *buf, const char *text)
{
	llm_strbuf_append(buf, text, strlen(text));
}

void
llm_strbuf_append_char(LlmStrbuf *buf, char c)
{
	llm_strbuf_append(buf, &c, 1);
}

void
llm_strbuf_printf(LlmStrbuf *buf, const char *fmt, ...)
{
	va_list args;
	int len;
	char *dest;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len < 0)
	{
		buf->failed = true;
		return;
	}
	dest = llm_strbuf_reserve(buf, (size_t) len);
	if (dest == NULL)
		return;
	va_start(args, fmt);
	vsnprintf(dest, (size_t) len + 1, fmt, args);
	va_end(args);
	buf->len += (size_t) len;
}

void
llm_strbuf_reset(LlmStrbuf *buf)
{
	buf->len = 0;
	buf->failed = false;
	if (buf->data != NULL)
		buf->data[0] = '\0';
}

void
llm_strbuf_free(LlmStrbuf *buf)
{
	free(buf->data);
	memset(buf, 0, sizeof(*buf));
}

void
llm_idbuf_init(LlmIdbuf *buf)
{
	memset(buf, 0, sizeof(*buf));
}

/* Make room for n more ids. */
static bool
idbuf_grow(LlmIdbuf *buf, size_t n)
{
	size_t need;
	size_t capacity;
	int32_t *ids;

	if (buf->failed || n > SIZE_MAX / 16 - buf->n_ids ||
		(buf->limit != 0 && buf->n_ids + n > buf->limit))
	{
		buf->failed = true;
		return false;
	}
	need = buf->n_ids + n;
	if (need <= buf->capacity)
		return true;
	capacity = buf->capacity < 32 ? 32 : buf->capacity * 2;
	if (capacity < need)
		capacity = need;
	ids = realloc(buf->ids, capacity * sizeof(int32_t));
	if (ids == NULL)
	{
		buf->failed = true;
		return false;
	}
	buf->ids = ids;
	buf->capacity = capacity;
	return true;
}

void
llm_idbuf_append(LlmIdbuf *buf, int32_t token_id)
{
	if (idbuf_grow(buf, 1))
		buf->ids[buf->n_ids++] = token_id;
}

void
llm_idbuf_append_many(LlmIdbuf *buf, const int32_t *ids, size_t n)
{
	if (n == 0 || !idbuf_grow(buf, n))
		return;
	memcpy(buf->ids + buf->n_ids, ids, n * sizeof(int32_t));
	buf->n_ids += n;
}

void
llm_idbuf_reset(LlmIdbuf *buf)
{
	buf->n_ids = 0;
	buf->failed = false;
}

void
llm_idbuf_free(LlmIdbuf *buf)
{
	free(buf->ids);
	memset(buf, 0, sizeof(*buf));
}
