/*
 * adapter_files.h
 *	  The files that executors map adapters from.
 *
 * An adapter lives in tables; executors cannot read those.  So backend
 * processes write its image into a folder of the data directory, on first use,
 * under a name that is the content's hash.  A file is complete from the moment
 * it has its name and is never changed; whoever misses it makes it again.
 *
 * src/server/adapter_files.h
 */
#ifndef LLM_ADAPTER_FILES_H
#define LLM_ADAPTER_FILES_H

#include "postgres.h"

#include "src/common/util/sha256.h"

/* The file of an image; absolute. */
extern void llm_adapter_file_path(const uint8 digest[LLM_SHA256_BYTES],
								  char path[MAXPGPATH]);

/* A name for a file in the making, of this process alone. */
extern void llm_adapter_file_temp_path(char path[MAXPGPATH]);

/*
 * Is the file there, with so many bytes?  Marks it as used, so that it is not
 * removed soon.
 */
extern bool
llm_adapter_file_touch(const uint8 digest[LLM_SHA256_BYTES], uint64 n_bytes);

/* Create a temporary file, for llm_adapter_file_publish; raises errors. */
extern int llm_adapter_file_create(const char *temp_path);
extern void llm_adapter_file_write(int fd, const char *temp_path,
								   const void *bytes, Size n_bytes);

/* Make a complete temporary file durable, close it and give it its name. */
extern void llm_adapter_file_publish(int fd, const char *temp_path,
									 const uint8 digest[LLM_SHA256_BYTES]);

/*
 * Remove the files that were used least recently, until the rest has no more
 * than max_bytes; but none that was used within the last minutes, and none
 * that is_used says is.  Also remains of processes that are gone.
 */
extern void
llm_adapter_files_trim(uint64 max_bytes, bool (*is_used)(const char *path));

#endif /* LLM_ADAPTER_FILES_H */
