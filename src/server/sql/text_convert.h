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

/* A text as UTF-8; borrowed from the datum where nothing had to change. */
extern LlmTemplateText llm_text_to_utf8(const text *value);

/*
 * A text from UTF-8.  A character that the database's encoding lacks is an
 * error, as for client input; U+0000, which no text can hold, becomes U+FFFD.
 */
extern text *llm_text_from_utf8(const char *utf8, size_t len);

/* The JSON text of a json or jsonb datum, as UTF-8. */
extern LlmTemplateText llm_json_text(Datum value, Oid type_id);

/*
 * The value of a key of a JSON object, as its own text: key order, spacing
 * and numbers are kept.  data NULL where the key is absent or null.
 */
extern LlmTemplateText llm_json_member(LlmTemplateText object, const char *key);

/* '{' or '[' or ... : the first character that is no space; '\0' if none. */
extern char llm_json_kind(LlmTemplateText json);

/* Append a JSON string literal of UTF-8 bytes (invalid ones as U+FFFD). */
extern void
llm_append_json_string(StringInfo buf, const char *utf8, size_t len);

#endif /* LLM_TEXT_CONVERT_H */
