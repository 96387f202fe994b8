/*
 * error.h
 *	  Errors as values, for code that knows neither PostgreSQL nor exit().
 *
 * A function that can fail returns bool (or a pointer) and takes an LlmError
 * as its last parameter.  The message is composed once, where the failure is
 * seen, with the offending value in it; callers pass it up untouched.  The
 * struct is plain data of a fixed size, so it travels in an ipc message and
 * lives in shared memory unchanged; src/server/report.c alone turns it into
 * an ereport.
 *
 * src/common/util/error.h
 */
#ifndef LLM_ERROR_H
#define LLM_ERROR_H

#include <stdbool.h>
#include <stdint.h>

typedef enum LlmErrorCode
{
	LLM_OK = 0,
	LLM_ERROR_INVALID,	   /* an argument or option has no meaning */
	LLM_ERROR_FORMAT,	   /* a file or text is malformed */
	LLM_ERROR_UNSUPPORTED, /* well-formed, but not something we can do */
	LLM_ERROR_NOT_FOUND,   /* a file, tensor, model or adapter is missing */
	LLM_ERROR_IO,		   /* the operating system said no */
	LLM_ERROR_NO_MEMORY,   /* host, device or KV memory does not suffice */
	LLM_ERROR_LIMIT,	   /* a documented limit would be exceeded */
	LLM_ERROR_TEMPLATE,	   /* the chat template refused its input */
	LLM_ERROR_CANCELLED,   /* the caller asked to stop */
	LLM_ERROR_QUEUE_FULL,  /* no room for another request */
	LLM_ERROR_UNAVAILABLE, /* nobody there to serve the request now */
	LLM_ERROR_EXECUTOR,	   /* the executor died of this request */
	LLM_ERROR_TIMEOUT,	   /* the request's deadline has passed */
	LLM_ERROR_INTERNAL,	   /* a promise of our own was broken */
	LLM_ERROR_CODE_COUNT
} LlmErrorCode;

#define LLM_ERROR_MESSAGE_BYTES 700
#define LLM_ERROR_HINT_BYTES 320

typedef struct LlmError
{
	int32_t code;						   /* an LlmErrorCode */
	char message[LLM_ERROR_MESSAGE_BYTES]; /* one lower-case line */
	char hint[LLM_ERROR_HINT_BYTES];	   /* the way out, or empty */
} LlmError;

/*
 * Record an error.  Always returns false, so that a failing function can end
 * with "return llm_error_set(err, ...)".  err may be NULL.  A message that is
 * too long is cut at a character boundary.
 */
extern bool llm_error_set(LlmError *err, LlmErrorCode code, const char *fmt,
						  ...) __attribute__((format(printf, 3, 4)));

/* Add the way out to an error that was just set.  Always returns false. */
extern bool llm_error_hint(LlmError *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The usual end of a failed allocation of so many bytes for so named a use. */
extern bool
llm_error_no_memory(LlmError *err, uint64_t n_bytes, const char *what);

/* The usual end of a failed system call: appends strerror(errno). */
extern bool llm_error_errno(LlmError *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

extern void llm_error_clear(LlmError *err);

#endif /* LLM_ERROR_H */
