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
#include "src/common/grammar/grammar_language.h"

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
	uint8_t parents[LLM_SCHEMA_MAX_OBJECTS]; /* where they came from */
} LlmSchemaView;

/* As a parent: the object came from outside, or from a negation. */
#define LLM_SCHEMA_NO_PARENT UINT8_MAX

/*
 * Keywords that no schema can have: what others mean where they must not hold
 * (grammar_negate.c).
 */
#define LLM_SCHEMA_TYPES "!types"		  /* a sum of LlmSchemaType */
#define LLM_SCHEMA_NOT_PATTERN "!pattern" /* likewise for the next ones: */
#define LLM_SCHEMA_NOT_FORMAT "!format"	  /* a link to the keyword */
#define LLM_SCHEMA_NOT_LISTED "!listed"	  /* of an enum or const */
#define LLM_SCHEMA_NOT_MULTIPLE "!multipleOf"
#define LLM_SCHEMA_NOT_ADDITIONAL "!additionalProperties"
#define LLM_SCHEMA_REFUSED "!" /* of a keyword that cannot be negated */

/* Schemas that all apply to a value, before they are expanded into views. */
typedef LlmSchemaView LlmSchemaAll;

typedef struct LlmSchemaViews
{
	LlmSchemaView *views;
	size_t n_views;
} LlmSchemaViews;

/* Which texts stand for a format. */
typedef enum LlmSchemaFormatUse
{
	LLM_SCHEMA_EXACT,  /* those that are generated */
	LLM_SCHEMA_BRIEF,  /* the same, up to LLM_SCHEMA_BRIEF_CHARS long */
	LLM_SCHEMA_OUTLINE /* all that might have it, and others */
} LlmSchemaFormatUse;

#define LLM_SCHEMA_BRIEF_CHARS 63

/* An array or object to be built: found by its view, built once. */
typedef struct LlmSchemaRule LlmSchemaRule;

typedef struct LlmSchemaCompiler
{
	LlmGrammarBuilder *b;
	const LlmSchemaJson *root;
	LlmSchemaRule *rules;					  /* linked; new ones come last */
	LlmSchemaRule **last_rule;				  /* where the next one goes */
	struct LlmSchemaChecked *checked;		  /* each oneOf is checked once */
	struct LlmSchemaMade *made;				  /* each negation is made once */
	struct LlmSchemaUnevaluated *unevaluated; /* likewise */
	uint32_t n_steps;			 /* of all expansions: proofs multiply them */
	LlmGrammarNodeId any_string; /* rules, 0 until they are needed */
	LlmGrammarNodeId any_value;
} LlmSchemaCompiler;

/* Errors, with the keyword and its JSON pointer. */
extern LlmGrammarNodeId
llm_schema_fail(LlmSchemaCompiler *c, LlmErrorCode code, const char *what,
				const LlmSchemaJson *keyword);

/* -- grammar_view.c -- */

/* An error for what is not known, but in schemas that were made. */
extern void
llm_schema_check_keywords(LlmSchemaCompiler *c, const LlmSchemaJson *object);

/* An error where it is no list of strings. */
extern void
llm_schema_check_names(LlmSchemaCompiler *c, const LlmSchemaJson *keyword);

/* Does a keyword, or any of an object, say what is valid by itself? */
extern bool llm_schema_is_constraint(const LlmSchemaJson *keyword);
extern bool llm_schema_constrains(const LlmSchemaJson *object);

/* The types that "type" keywords leave. */
extern uint32_t
llm_schema_types_of_object(LlmSchemaCompiler *c, const LlmSchemaJson *object);
extern uint32_t
llm_schema_types(LlmSchemaCompiler *c, const LlmSchemaView *view);

/* The types that may be generated: the above, or what the keywords speak of. */
extern uint32_t
llm_schema_generated_types(LlmSchemaCompiler *c, const LlmSchemaView *view);
extern uint32_t
llm_schema_type_of(LlmSchemaCompiler *c, const LlmSchemaJson *value);
extern void llm_schema_add(LlmSchemaCompiler *c, LlmSchemaAll *all,
						   const LlmSchemaJson *schema);

/* A count such as minItems: the tightest of a view's. */
extern uint32_t
llm_schema_count(LlmSchemaCompiler *c, const LlmSchemaView *view,
				 const char *keyword, bool is_max);

/* The first object's keyword; NULL: none has it. */
extern const LlmSchemaJson *
llm_schema_find(const LlmSchemaView *view, const char *keyword);

/* -- grammar_expand.c -- */

/* Follow references, merge allOf, choose branches. */
extern bool llm_schema_expand(LlmSchemaCompiler *c, const LlmSchemaAll *all,
							  LlmSchemaViews *out);

/*
 * The same for a proof: views may allow more than the schemas do, not less.
 * false: too many, or failed.
 */
extern bool llm_schema_probe(LlmSchemaCompiler *c, const LlmSchemaAll *all,
							 LlmSchemaViews *out);

/* What a $ref points to; NULL: an error. */
extern const LlmSchemaJson *
llm_schema_resolve(LlmSchemaCompiler *c, const LlmSchemaJson *ref);

/* -- grammar_negate.c: schemas that are made, once for each -- */

/* The values that a schema does not allow. */
extern const LlmSchemaJson *
llm_schema_negate(LlmSchemaCompiler *c, const LlmSchemaJson *schema);

/* if, then and else of an object as alternatives. */
extern const LlmSchemaJson *
llm_schema_make_condition(LlmSchemaCompiler *c, const LlmSchemaJson *object);

/* dependentRequired, dependentSchemas or dependencies as alternatives. */
extern const LlmSchemaJson *
llm_schema_make_dependent(LlmSchemaCompiler *c, const LlmSchemaJson *keyword);

/* The property is there, and not as additionalProperties wants it. */
extern const LlmSchemaJson *
llm_schema_make_addition(LlmSchemaCompiler *c, const LlmSchemaJson *keyword,
						 const LlmSchemaJson *property);

/* -- grammar_unevaluated.c -- */

/* Add to a complete view what its unevaluated... keywords mean in it. */
extern void
llm_schema_add_unevaluated(LlmSchemaCompiler *c, LlmSchemaView *view);

/* -- grammar_exclude.c -- */

/* Is it certain that no value satisfies a view, or schemas together? */
extern bool
llm_schema_is_empty(LlmSchemaCompiler *c, const LlmSchemaView *view, int depth);
extern bool
llm_schema_are_empty(LlmSchemaCompiler *c, const LlmSchemaAll *all, int depth);

/* Do two branches of a oneOf visibly exclude each other? */
extern bool
llm_schema_is_exclusive(LlmSchemaCompiler *c, const LlmSchemaJson *one_of,
						const LlmSchemaJson *left, const LlmSchemaJson *right);

/* -- grammar_valid.c -- */

/* Is a value valid?  sure: certainly, or else possibly. */
extern bool llm_schema_holds(LlmSchemaCompiler *c, const LlmSchemaJson *schema,
							 const LlmSchemaJson *value, bool sure);
extern bool
llm_schema_view_holds(LlmSchemaCompiler *c, const LlmSchemaView *view,
					  const LlmSchemaJson *value, bool sure);

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
						uint32_t types, LlmGrammarNodeId next);

/* Is it certain that no number satisfies a view?  Does this one? */
extern bool
llm_schema_has_no_number(LlmSchemaCompiler *c, const LlmSchemaView *view);
extern bool
llm_schema_is_number(LlmSchemaCompiler *c, const LlmSchemaView *view,
					 const LlmSchemaJson *value);
extern bool
llm_schema_is_whole(LlmSchemaCompiler *c, const LlmSchemaJson *value);
extern int
llm_schema_compare_numbers(LlmSchemaCompiler *c, const LlmSchemaJson *left,
						   const LlmSchemaJson *right);

/* grammar_string.c */
extern LlmGrammarNodeId
llm_schema_build_string(LlmSchemaCompiler *c, const LlmSchemaView *view,
						LlmGrammarNodeId next);
extern LlmGrammarNodeId
llm_schema_build_any_string(LlmSchemaCompiler *c, LlmGrammarNodeId next);

/* What a view says about strings. */
extern void
llm_schema_collect_text(LlmSchemaCompiler *c, const LlmSchemaView *view,
						LlmSchemaFormatUse use, LlmLanguageTerms *terms);
extern const LlmLanguage *
llm_schema_create_language(LlmSchemaCompiler *c, const LlmLanguageTerms *terms,
						   const LlmSchemaView *view);

extern void llm_schema_add_term(LlmSchemaCompiler *c, LlmLanguageTerms *terms,
								LlmPattern *pattern, bool negated);

/* The strings of the view's enum and const, where it has them. */
extern void llm_schema_add_listed(LlmSchemaCompiler *c, LlmLanguageTerms *terms,
								  const LlmSchemaView *view);

/* A language behind the opening quote, up to a return; and with the quote. */
extern LlmGrammarNodeId
llm_schema_build_language(LlmSchemaCompiler *c, const LlmLanguage *language);
extern LlmGrammarNodeId
llm_schema_build_opened(LlmSchemaCompiler *c, LlmGrammarNodeId inside,
						LlmGrammarNodeId next);

/* A member of patternProperties: its pattern, and whether a name matches. */
extern LlmPattern *
llm_schema_parse_name(LlmSchemaCompiler *c, const LlmSchemaJson *pattern);
extern bool
llm_schema_is_name(LlmSchemaCompiler *c, const LlmSchemaJson *pattern,
				   const char *name, size_t len);

/* Is it certain that no string satisfies a view? */
extern bool
llm_schema_has_no_string(LlmSchemaCompiler *c, const LlmSchemaView *view);

/* A string that is none of n names. */
extern LlmGrammarNodeId
llm_schema_build_other_string(LlmSchemaCompiler *c, LlmGrammarToken *names,
							  size_t n, LlmGrammarNodeId next);

/* -- grammar_format.c -- */

/* An error where no such format is known. */
extern void
llm_schema_check_format(LlmSchemaCompiler *c, const LlmSchemaJson *keyword);
extern LlmPattern *
llm_schema_parse_format(LlmSchemaCompiler *c, const LlmSchemaJson *keyword,
						LlmSchemaFormatUse use);

/* Are its texts of up to LLM_SCHEMA_BRIEF_CHARS a smaller automaton? */
extern bool llm_schema_format_has_brief(const LlmSchemaJson *keyword);

/* The bounds of a format of numbers, NULL for none; false: not one of those. */
extern bool llm_schema_number_format(const LlmSchemaJson *keyword,
									 const char **low, const char **high);

/* grammar_array.c, grammar_object.c: a whole one, ending in a return. */
extern LlmGrammarNodeId
llm_schema_build_array(LlmSchemaCompiler *c, const LlmSchemaView *view);
extern LlmGrammarNodeId
llm_schema_build_object(LlmSchemaCompiler *c, const LlmSchemaView *view);

/* Is it certain that no object satisfies a view?  Depth is the caller's. */
extern bool llm_schema_has_no_object(LlmSchemaCompiler *c,
									 const LlmSchemaView *view, int depth);

/* Is a property neither listed nor matched by a pattern of an object? */
extern bool
llm_schema_is_additional(LlmSchemaCompiler *c, const LlmSchemaJson *object,
						 const LlmSchemaJson *property);

/* A comma or colon, and at most one space. */
extern LlmGrammarNodeId
llm_schema_build_mark(LlmSchemaCompiler *c, char mark, LlmGrammarNodeId next);

#endif /* LLM_GRAMMAR_SCHEMA_H */
