/*
 * grammar_json.h
 *	  JSON as a schema needs it: numbers as they are written, places by name.
 *
 * src/common/grammar/grammar_json.h
 */
#ifndef LLM_GRAMMAR_JSON_H
#define LLM_GRAMMAR_JSON_H

#include <string.h>

#include "src/common/grammar/grammar_build.h"

typedef enum LlmSchemaJsonKind
{
	LLM_SCHEMA_JSON_NULL,
	LLM_SCHEMA_JSON_FALSE,
	LLM_SCHEMA_JSON_TRUE,
	LLM_SCHEMA_JSON_NUMBER,
	LLM_SCHEMA_JSON_STRING,
	LLM_SCHEMA_JSON_ARRAY,
	LLM_SCHEMA_JSON_OBJECT,
	LLM_SCHEMA_JSON_LINK /* stands for its target, which has other parents */
} LlmSchemaJsonKind;

typedef struct LlmSchemaJson LlmSchemaJson;
struct LlmSchemaJson
{
	LlmSchemaJsonKind kind;
	const char *text; /* a string decoded, a number as written; ends in NUL */
	size_t text_len;
	const char *key; /* in an object, decoded; ends in NUL */
	size_t key_len;
	size_t n_children;
	LlmSchemaJson *child;		 /* the first */
	const LlmSchemaJson *target; /* of a link */
	LlmSchemaJson *next;
	const LlmSchemaJson *parent;
	bool is_made;  /* not of the source: its parent is what it was made for */
	uint8_t types; /* that it leaves as a schema, once asked; 0: not yet */
};

/* NULL: failed, as the builder says.  A key that occurs twice is an error. */
extern const LlmSchemaJson *
llm_schema_json_parse(LlmGrammarBuilder *b, const char *text, size_t len);

/* -- values that the compiler makes; NULL: failed -- */

/* An empty object, array or link, made for a value of the source. */
extern LlmSchemaJson *
llm_schema_json_make(LlmGrammarBuilder *b, LlmSchemaJsonKind kind,
					 const LlmSchemaJson *made_for);
extern LlmSchemaJson *
llm_schema_json_make_link(LlmGrammarBuilder *b, const LlmSchemaJson *target);
extern LlmSchemaJson *
llm_schema_json_make_number(LlmGrammarBuilder *b, uint32_t number);

/* Put a made value, under a key that is borrowed (NULL: in an array), last. */
extern void llm_schema_json_put(LlmSchemaJson *parent, const char *key,
								LlmSchemaJson *value);

/* What a link stands for, or the value itself. */
extern const LlmSchemaJson *llm_schema_json_follow(const LlmSchemaJson *value);

/* A member, what it stands for where it is a link; NULL: there is none. */
extern const LlmSchemaJson *
llm_schema_json_get_len(const LlmSchemaJson *object, const char *key,
						size_t len);

/* Inline, for most keys are literals and this is asked all the time. */
static inline const LlmSchemaJson *
llm_schema_json_get(const LlmSchemaJson *object, const char *key)
{
	return llm_schema_json_get_len(object, key, strlen(key));
}

/* The same value?  Numbers by value, objects whatever their order. */
extern bool
llm_schema_json_equal(const LlmSchemaJson *left, const LlmSchemaJson *right);

/* Where a value stands, as a JSON pointer ("" is the root). */
extern const char *
llm_schema_json_pointer(LlmGrammarBuilder *b, const LlmSchemaJson *value);

/* Compact JSON, numbers as written, as bytes that this room's strings have. */
extern void llm_schema_json_write(const LlmSchemaJson *value, LlmStrbuf *out);
extern void
llm_schema_json_write_string(const char *text, size_t len, LlmStrbuf *out);

#endif /* LLM_GRAMMAR_JSON_H */
