/*
 * json.h
 *	  Reading configuration files: cJSON with error messages.
 *
 * For texts whose numbers are plain and whose strings hold no NUL: config
 * files and options.  A chat's messages, where the difference between 1 and
 * 1.0 is printed, are read by the template room instead.
 *
 * Where an object says a key twice, the last one counts, as in Python.
 *
 * The getters look a key up in an object (case-sensitive), leave *value
 * untouched where the key is absent or null, and fail where it has another
 * type or does not fit.
 *
 * src/common/util/json.h
 */
#ifndef LLM_JSON_H
#define LLM_JSON_H

#include <cjson/cJSON.h>

#include "src/common/util/error.h"

/* "what" names the text in messages: a path or an argument.  NULL: err. */
extern cJSON *
llm_json_parse(const char *text, size_t len, const char *what, LlmError *err);

/* Read and parse a file of at most max_bytes. */
extern cJSON *
llm_json_parse_file(const char *path, size_t max_bytes, LlmError *err);

/* NULL where absent or null. */
extern const cJSON *llm_json_get(const cJSON *object, const char *key);

extern bool llm_json_get_bool(const cJSON *object, const char *key, bool *value,
							  LlmError *err);
extern bool llm_json_get_int(const cJSON *object, const char *key,
							 int64_t *value, LlmError *err);
extern bool llm_json_get_double(const cJSON *object, const char *key,
								double *value, LlmError *err);

/* The string is borrowed from the tree. */
extern bool llm_json_get_string(const cJSON *object, const char *key,
								const char **value, LlmError *err);

#endif /* LLM_JSON_H */
