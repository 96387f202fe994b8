/*
 * grammar_schema.h
 *	  What the files that compile JSON Schema share.
 *
 * A view is what one value must satisfy: the schema objects that all apply to
 * it, with every $ref and allOf followed and one branch of each anyOf and
 * oneOf chosen.  Each object of a view counts with its own keywords only.
 *
 * src/common/grammar/grammar_schema.h
 */
#ifndef LLM_GRAMMAR_SCHEMA_H
#define LLM_GRAMMAR_SCHEMA_H

#include "src/common/grammar/grammar_json.h"

#define LLM_SCHEMA_MAX_OBJECTS 64		/* of a view */
#define LLM_SCHEMA_MAX_ALTERNATIVES 256 /* views of one value */

typedef enum LlmSchemaType
{
	LLM_SCHEMA_NULL = 1,
	LLM_SCHEMA_BOOLEAN = 2,
	LLM_SCHEMA_INTEGER = 4,
	LLM_SCHEMA_NUMBER = 8, /* those that are not integers */
	LLM_SCHEMA_STRING = 16,
	LLM_SCHEMA_ARRAY = 32,
	LLM_SCHEMA_OBJECT = 64,
	LLM_SCHEMA_ANY = 127
} LlmSchemaType;

typedef struct LlmSchemaView
{
	const LlmSchemaJson *objects[LLM_SCHEMA_MAX_OBJECTS];
	size_t n_objects;
} LlmSchemaView;

/* Schemas that all apply to a value, before they are expanded into views. */
typedef LlmSchemaView LlmSchemaAll;

typedef struct LlmSchemaViews
{
	LlmSchemaView *views;
	size_t n_views;
} LlmSchemaViews;

/* An array or object to be built: found by its view, built once. */
typedef struct LlmSchemaRule LlmSchemaRule;

typedef struct LlmSchemaCompiler
{
	LlmGrammarBuilder *b;
	const LlmSchemaJson *root;
	LlmSchemaRule *rules;			  /* linked; new ones come last */
	LlmSchemaRule **last_rule;		  /* where the next one goes */
	struct LlmSchemaChecked *checked; /* each oneOf is checked once */
	LlmGrammarNodeId any_string;	  /* rules, 0 until they are needed */
	LlmGrammarNodeId any_value;
} LlmSchemaCompiler;

/* Errors, with the keyword and its JSON pointer. */
extern LlmGrammarNodeId
llm_schema_fail(LlmSchemaCompiler *c, LlmErrorCode code, const char *what,
				const LlmSchemaJson *keyword);

/* -- grammar_expand.c -- */

/* Follow references, merge allOf, choose branches. */
extern bool llm_schema_expand(LlmSchemaCompiler *c, const LlmSchemaAll *all,
							  LlmSchemaViews *out);

/* The types that a view's "type" keywords leave. */
extern uint32_t
llm_schema_types(LlmSchemaCompiler *c, const LlmSchemaView *view);

/* The types that may be generated: the above, or what the keywords speak of. */
extern uint32_t
llm_schema_generated_types(LlmSchemaCompiler *c, const LlmSchemaView *view);
extern uint32_t llm_schema_type_of(const LlmSchemaJson *value);
extern void llm_schema_add(LlmSchemaCompiler *c, LlmSchemaAll *all,
						   const LlmSchemaJson *schema);

/* A count such as minItems: the tightest of a view's. */
extern uint32_t
llm_schema_count(LlmSchemaCompiler *c, const LlmSchemaView *view,
				 const char *keyword, bool is_max);

/* The first object's keyword; NULL: none has it. */
extern const LlmSchemaJson *
llm_schema_find(const LlmSchemaView *view, const char *keyword);

/* -- nodes that read a value and go on at next -- */

/* grammar_schema.c */
extern LlmGrammarNodeId
llm_schema_build(LlmSchemaCompiler *c, const LlmSchemaAll *all,
				 LlmGrammarNodeId next);
extern LlmGrammarNodeId
llm_schema_build_any(LlmSchemaCompiler *c, LlmGrammarNodeId next);

/* grammar_number.c */
extern LlmGrammarNodeId
llm_schema_build_number(LlmSchemaCompiler *c, const LlmSchemaView *view,
						bool is_integer, LlmGrammarNodeId next);

/* grammar_string.c */
extern LlmGrammarNodeId
llm_schema_build_string(LlmSchemaCompiler *c, const LlmSchemaView *view,
						LlmGrammarNodeId next);
extern LlmGrammarNodeId
llm_schema_build_any_string(LlmSchemaCompiler *c, LlmGrammarNodeId next);

/* A string that is none of n names. */
extern LlmGrammarNodeId
llm_schema_build_other_string(LlmSchemaCompiler *c, LlmGrammarToken *names,
							  size_t n, LlmGrammarNodeId next);

/* grammar_container.c: a whole array or object, ending in a return. */
extern LlmGrammarNodeId
llm_schema_build_array(LlmSchemaCompiler *c, const LlmSchemaView *view);
extern LlmGrammarNodeId
llm_schema_build_object(LlmSchemaCompiler *c, const LlmSchemaView *view);

/* A comma or colon, and at most one space. */
extern LlmGrammarNodeId
llm_schema_build_mark(LlmSchemaCompiler *c, char mark, LlmGrammarNodeId next);

#endif /* LLM_GRAMMAR_SCHEMA_H */
