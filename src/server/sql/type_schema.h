/*
 * type_schema.h
 *	  A JSON Schema for the values of an SQL type.
 *
 * src/server/sql/type_schema.h
 */
#ifndef LLM_TYPE_SCHEMA_H
#define LLM_TYPE_SCHEMA_H

#include "postgres.h"

#include "src/common/template/chat_template.h"

/*
 * Composite types become objects with all their columns, arrays arrays, enums
 * lists of labels, domains what they are made of, with those of their checks
 * that a schema can say.  A text that the type's input function may still
 * refuse is a string.  Raises an error for types without values of their own.
 * Palloc'ed, UTF-8.
 */
extern LlmTemplateText llm_type_schema(Oid type_id, int32 typmod);

#endif /* LLM_TYPE_SCHEMA_H */
