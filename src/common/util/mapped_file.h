/*
 * mapped_file.h
 *	  A whole file, mapped read-only and shared.
 *
 * src/common/util/mapped_file.h
 */
#ifndef LLM_MAPPED_FILE_H
#define LLM_MAPPED_FILE_H

#include <stddef.h>

#include "src/common/util/error.h"

typedef struct LlmMappedFile
{
	const char *data; /* never NULL after a successful open */
	size_t size;	  /* bytes */
} LlmMappedFile;

/* Regular files only.  On failure the struct is zeroed. */
extern bool
llm_mapped_file_open(LlmMappedFile *file, const char *path, LlmError *err);

/*
 * Bring all of it into memory, so that the first use does not wait for the
 * disk, and an unreadable file is an error now instead of a signal then.
 */
extern bool llm_mapped_file_prefetch(const LlmMappedFile *file,
									 const char *path, LlmError *err);

/*
 * A part of a mapped file was read for the last time: its whole pages leave
 * the process's memory.  Reading them again is no mistake, it brings them
 * back; but memory that is no mapped file's would lose its content.
 */
extern void llm_mapped_file_release(const void *data, size_t n_bytes);

/* Safe on a zeroed struct; zeroes it. */
extern void llm_mapped_file_close(LlmMappedFile *file);

#endif /* LLM_MAPPED_FILE_H */
