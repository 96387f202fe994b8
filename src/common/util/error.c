/*
 * error.c
 *	  Errors as values.
 *
 * src/common/util/error.c
 */
#include "src/common/util/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Cut a half UTF-8 character that vsnprintf's truncation left at the end. */
static void
trim_partial_utf8(char *text, size_t n_bytes)
{
	size_t start = n_bytes;
	size_t need;
	unsigned char lead;

	while (start > 0 && n_bytes - start < 4 &&
		   ((unsigned char) text[start - 1] & 0xC0) == 0x80)
		start--;
	if (start == 0)
		return;
	lead = (unsigned char) text[start - 1];
	need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
	if (n_bytes - (start - 1) < need)
		text[start - 1] = '\0';
}

static void
format_into(char *dest, size_t size, const char *fmt, va_list args)
{
	int n = vsnprintf(dest, size, fmt, args);

	if (n < 0)
		dest[0] = '\0';
	else if ((size_t) n >= size)
		trim_partial_utf8(dest, size - 1);
}

bool
llm_error_set(LlmError *err, LlmErrorCode code, const char *fmt, ...)
{
	va_list args;

	if (err == NULL)
		return false;
	err->code = code;
	err->hint[0] = '\0';
	va_start(args, fmt);
	format_into(err->message, sizeof(err->message), fmt, args);
	va_end(args);
	return false;
}

bool
llm_error_hint(LlmError *err, const char *fmt, ...)
{
	va_list args;

	if (err == NULL)
		return false;
	va_start(args, fmt);
	format_into(err->hint, sizeof(err->hint), fmt, args);
	va_end(args);
	return false;
}

bool
llm_error_no_memory(LlmError *err, uint64_t n_bytes, const char *what)
{
	return llm_error_set(err, LLM_ERROR_NO_MEMORY,
						 "out of memory: could not allocate %llu bytes for %s",
						 (unsigned long long) n_bytes, what);
}

bool
llm_error_errno(LlmError *err, const char *fmt, ...)
{
	int saved_errno = errno;
	va_list args;
	char what[LLM_ERROR_MESSAGE_BYTES / 2];
	LlmErrorCode code;

	va_start(args, fmt);
	format_into(what, sizeof(what), fmt, args);
	va_end(args);
	code = saved_errno == ENOENT   ? LLM_ERROR_NOT_FOUND
		   : saved_errno == ENOMEM ? LLM_ERROR_NO_MEMORY
								   : LLM_ERROR_IO;
	return llm_error_set(err, code, "%s: %s", what, strerror(saved_errno));
}

void
llm_error_clear(LlmError *err)
{
	if (err == NULL)
		return;
	err->code = LLM_OK;
	err->message[0] = '\0';
	err->hint[0] = '\0';
}
