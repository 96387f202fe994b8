/*
 * text_convert.h
 *	  Between the database's text and the UTF-8 that models speak.
 *
 * src/server/sql/text_convert.h
 */
#ifndef LLM_TEXT_CONVERT_H
#define LLM_TEXT_CONVERT_H

#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "src/common/template/chat_template.h"
#include "src/common/util/json.h"

/* A text as UTF-8; borrowed from the datum where nothing had to change. */
extern LlmTemplateText llm_text_to_utf8(const text *value);

/* A call's text argument, not NULL; valid as long as its arguments are. */
extern LlmTemplateText llm_text_argument(FunctionCallInfo fcinfo, int arg);

/*
 * A text from UTF-8.  A character that the database's encoding lacks is an
 * error, as for client input; U+0000, which no text can hold, becomes U+FFFD,
 * and U+FFFD a question mark where the encoding lacks it.
 */
extern text *llm_text_from_utf8(const char *utf8, size_t len);

/* The same for an answer: NULL and an error that may stay with its row. */
extern text *
llm_text_try_from_utf8(const char *utf8, size_t len, LlmError *err);

/* jsonb of JSON in UTF-8. */
extern Datum llm_jsonb_from_utf8(const char *utf8, size_t len);

/* The JSON text of a json or jsonb datum, as UTF-8. */
extern LlmTemplateText llm_json_text(Datum value, Oid type_id);

/*
 * The next member of a JSON object that PostgreSQL has checked: its key,
 * palloc'ed, and its value as it was written.  *off is 0 at first.
 */
extern bool llm_json_next_member(LlmTemplateText object, size_t *off,
								 char **key, LlmTemplateText *value);

/*
 * The value of a key, the last one where it comes twice; data NULL where it is
 * absent or null.
 */
extern LlmTemplateText llm_json_member(LlmTemplateText object, const char *key);

/*
 * Parse one value (to be freed with cJSON_Delete) or raise an error, also for
 * U+0000, which would end a string early.  "what" names it in messages.
 */
extern cJSON *llm_json_parse_value(LlmTemplateText value, const char *what);

/* '{' or '[' or ... : the first character that is no space; '\0' if none. */
extern char llm_json_kind(LlmTemplateText json);

/* Append a JSON string literal of UTF-8 bytes (invalid ones as U+FFFD). */
extern void
llm_append_json_string(StringInfo buf, const char *utf8, size_t len);

#endif /* LLM_TEXT_CONVERT_H */
