/*
 * server_path.h
 *	  Paths of the server's files in arguments, and who may name them.
 *
 * src/server/sql/server_path.h
 */
#ifndef LLM_SERVER_PATH_H
#define LLM_SERVER_PATH_H

#include "postgres.h"

/* "what" is what is read or written: "models". */
extern void llm_check_may_read_server_files(const char *what);
extern void llm_check_may_write_server_files(const char *what);

/* An absolute path, in its canonical form, palloc'ed. */
extern char *llm_path_argument(text *argument, const char *what);

#endif /* LLM_SERVER_PATH_H */
