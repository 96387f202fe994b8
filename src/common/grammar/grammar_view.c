/*
 * grammar_view.c
 *	  What the keywords of a view say, and which keywords there are.
 *
 * Every keyword of a schema is looked at once, where the schema is expanded:
 * what the room does not know is an error, so that no constraint is lost.
 *
 * src/common/grammar/grammar_view.c
 */
#include <stdlib.h>
#include <string.h>

#include "src/common/grammar/grammar_schema.h"

#define MAX_COUNT 0x7FFFFFFFu

#define NUMERIC (LLM_SCHEMA_INTEGER | LLM_SCHEMA_NUMBER)

typedef enum KeywordKind
{
	ANNOTATION, /* says nothing about what is valid */
	APPLICATOR, /* of schemas to the same value: gone once it is expanded */
	CONSTRAINT
} KeywordKind;

/* What the value of a keyword is, as far as it is looked at here. */
typedef enum Shape
{
	ANY,
	TEXT,
	NUMBER,
	TRUTH,
	VALUES, /* a list */
	LIST,	/* one that is not empty */
	NAMES,	/* a list of strings */
	MAP		/* an object */
} Shape;

typedef struct Keyword
{
	const char *name;
	KeywordKind kind;
	uint32_t types; /* that it speaks of; 0: any */
	Shape shape;
} Keyword;

static const Keyword keywords[] = {
	{ "title", ANNOTATION, 0, ANY },
	{ "description", ANNOTATION, 0, ANY },
	{ "default", ANNOTATION, 0, ANY },
	{ "example", ANNOTATION, 0, ANY },
	{ "examples", ANNOTATION, 0, ANY },
	{ "deprecated", ANNOTATION, 0, ANY },
	{ "readOnly", ANNOTATION, 0, ANY },
	{ "writeOnly", ANNOTATION, 0, ANY },
	{ "discriminator", ANNOTATION, 0, ANY },
	{ "contentMediaType", ANNOTATION, 0, ANY },
	{ "contentEncoding", ANNOTATION, 0, ANY },
	{ "contentSchema", ANNOTATION, 0, ANY },
	{ "externalDocs", ANNOTATION, 0, ANY },
	{ "xml", ANNOTATION, 0, ANY },
	{ "$schema", ANNOTATION, 0, ANY },
	{ "$id", ANNOTATION, 0, ANY },
	{ "$anchor", ANNOTATION, 0, ANY },
	{ "$comment", ANNOTATION, 0, ANY },
	{ "$defs", ANNOTATION, 0, ANY },
	{ "definitions", ANNOTATION, 0, ANY },
	{ "allOf", APPLICATOR, 0, LIST },
	{ "anyOf", APPLICATOR, 0, LIST },
	{ "oneOf", APPLICATOR, 0, LIST },
	{ "not", APPLICATOR, 0, ANY },
	{ "if", APPLICATOR, 0, ANY },
	{ "then", APPLICATOR, 0, ANY },
	{ "else", APPLICATOR, 0, ANY },
	{ "dependentRequired", APPLICATOR, 0, MAP },
	{ "dependentSchemas", APPLICATOR, 0, MAP },
	{ "dependencies", APPLICATOR, 0, MAP },
	{ "$ref", APPLICATOR, 0, TEXT },
	{ "type", CONSTRAINT, 0, ANY },
	{ "nullable", CONSTRAINT, 0, TRUTH },
	{ "enum", CONSTRAINT, 0, VALUES },
	{ "const", CONSTRAINT, 0, ANY },
	{ "minimum", CONSTRAINT, NUMERIC, NUMBER },
	{ "maximum", CONSTRAINT, NUMERIC, NUMBER },
	{ "exclusiveMinimum", CONSTRAINT, NUMERIC, NUMBER },
	{ "exclusiveMaximum", CONSTRAINT, NUMERIC, NUMBER },
	{ "multipleOf", CONSTRAINT, NUMERIC, NUMBER },
	{ "minLength", CONSTRAINT, LLM_SCHEMA_STRING, ANY },
	{ "maxLength", CONSTRAINT, LLM_SCHEMA_STRING, ANY },
	{ "pattern", CONSTRAINT, LLM_SCHEMA_STRING, TEXT },
	{ "format", CONSTRAINT, LLM_SCHEMA_STRING, TEXT },
	{ "items", CONSTRAINT, LLM_SCHEMA_ARRAY, ANY },
	{ "prefixItems", CONSTRAINT, LLM_SCHEMA_ARRAY, VALUES },
	{ "minItems", CONSTRAINT, LLM_SCHEMA_ARRAY, ANY },
	{ "maxItems", CONSTRAINT, LLM_SCHEMA_ARRAY, ANY },
	{ "unevaluatedItems", CONSTRAINT, LLM_SCHEMA_ARRAY, ANY },
	{ "uniqueItems", CONSTRAINT, LLM_SCHEMA_ARRAY, TRUTH },
	{ "contains", CONSTRAINT, LLM_SCHEMA_ARRAY, ANY },
	{ "minContains", CONSTRAINT, LLM_SCHEMA_ARRAY, ANY },
	{ "maxContains", CONSTRAINT, LLM_SCHEMA_ARRAY, ANY },
	{ "properties", CONSTRAINT, LLM_SCHEMA_OBJECT, MAP },
	{ "required", CONSTRAINT, LLM_SCHEMA_OBJECT, NAMES },
	{ "patternProperties", CONSTRAINT, LLM_SCHEMA_OBJECT, MAP },
	{ "propertyNames", CONSTRAINT, LLM_SCHEMA_OBJECT, ANY },
	{ "additionalProperties", CONSTRAINT, LLM_SCHEMA_OBJECT, ANY },
	{ "unevaluatedProperties", CONSTRAINT, LLM_SCHEMA_OBJECT, ANY },
	{ "minProperties", CONSTRAINT, LLM_SCHEMA_OBJECT, ANY },
	{ "maxProperties", CONSTRAINT, LLM_SCHEMA_OBJECT, ANY },
};

LlmGrammarNodeId
llm_schema_fail(LlmSchemaCompiler *c, LlmErrorCode code, const char *what,
				const LlmSchemaJson *keyword)
{
	return llm_grammar_fail(
		c->b, code, "schema keyword \"%.100s\" at %.300s %s",
		keyword->key != NULL
			? keyword->key
			: (keyword->parent != NULL && keyword->parent->key != NULL
				   ? keyword->parent->key
				   : ""),
		llm_schema_json_pointer(c->b, keyword), what);
}

void
llm_schema_add(LlmSchemaCompiler *c, LlmSchemaAll *all,
			   const LlmSchemaJson *schema)
{
	if (all->n_objects == LLM_SCHEMA_MAX_OBJECTS)
	{
		llm_grammar_fail(c->b, LLM_ERROR_LIMIT,
						 "more than %d schemas apply to one value at %.300s",
						 LLM_SCHEMA_MAX_OBJECTS,
						 llm_schema_json_pointer(c->b, schema));
		return;
	}
	all->parents[all->n_objects] = LLM_SCHEMA_NO_PARENT;
	all->objects[all->n_objects++] = schema;
}

static const Keyword *
find_keyword(const char *name)
{
	for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++)
	{
		if (strcmp(keywords[i].name, name) == 0)
			return &keywords[i];
	}
	return NULL;
}

static bool
is_list_of_names(const LlmSchemaJson *value)
{
	if (value->kind != LLM_SCHEMA_JSON_ARRAY)
		return false;
	for (const LlmSchemaJson *name = value->child; name != NULL;
		 name = name->next)
	{
		if (name->kind != LLM_SCHEMA_JSON_STRING)
			return false;
	}
	return true;
}

void
llm_schema_check_names(LlmSchemaCompiler *c, const LlmSchemaJson *keyword)
{
	if (!is_list_of_names(keyword))
		llm_schema_fail(c, LLM_ERROR_FORMAT, "must be a list of names",
						keyword);
}

static void
check_shape(LlmSchemaCompiler *c, const LlmSchemaJson *keyword, Shape shape)
{
	static const char *const what[] = { "",
										"must be a string",
										"must be a number",
										"must be true or false",
										"must be a list",
										"must be a list that is not empty",
										"must be a list of names",
										"must be an object" };
	bool ok = true;

	if (shape == TEXT)
		ok = keyword->kind == LLM_SCHEMA_JSON_STRING;
	else if (shape == NUMBER)
		ok = keyword->kind == LLM_SCHEMA_JSON_NUMBER;
	else if (shape == TRUTH)
		ok = keyword->kind == LLM_SCHEMA_JSON_FALSE ||
			 keyword->kind == LLM_SCHEMA_JSON_TRUE;
	else if (shape == VALUES)
		ok = keyword->kind == LLM_SCHEMA_JSON_ARRAY;
	else if (shape == LIST)
		ok = keyword->kind == LLM_SCHEMA_JSON_ARRAY && keyword->child != NULL;
	else if (shape == NAMES)
		ok = is_list_of_names(keyword);
	else if (shape == MAP)
		ok = keyword->kind == LLM_SCHEMA_JSON_OBJECT;
	if (!ok)
		llm_schema_fail(c, LLM_ERROR_FORMAT, what[shape], keyword);
}

static void
check_keyword(LlmSchemaCompiler *c, const LlmSchemaJson *object,
			  const LlmSchemaJson *keyword)
{
	const Keyword *known = find_keyword(keyword->key);

	if (known == NULL)
		llm_schema_fail(c, LLM_ERROR_UNSUPPORTED, "is not supported", keyword);
	else
		check_shape(c, keyword, known->shape);
	if (strcmp(keyword->key, "$id") == 0 && object != c->root)
		llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
						"is supported in the root only", keyword);
	if (strcmp(keyword->key, "format") == 0 && !llm_grammar_failed(c->b))
		llm_schema_check_format(c, keyword);
}

void
llm_schema_check_keywords(LlmSchemaCompiler *c, const LlmSchemaJson *object)
{
	for (const LlmSchemaJson *child = object->child;
		 child != NULL && !object->is_made; child = child->next)
	{
		if (strncmp(child->key, "x-", 2) != 0) /* a vendor's annotation */
			check_keyword(c, object, child);
	}
}

/* Keywords that were made are no applicators. */
bool
llm_schema_is_constraint(const LlmSchemaJson *keyword)
{
	const Keyword *known = find_keyword(keyword->key);

	return known == NULL ? *keyword->key == '!' : known->kind == CONSTRAINT;
}

bool
llm_schema_constrains(const LlmSchemaJson *object)
{
	for (const LlmSchemaJson *child = object->child; child != NULL;
		 child = child->next)
	{
		if (llm_schema_is_constraint(child))
			return true;
	}
	return false;
}

/* -- types -- */

static uint32_t
type_of_name(const LlmSchemaJson *name)
{
	static const struct
	{
		const char *name;
		uint32_t types;
	} types[] = {
		{ "null", LLM_SCHEMA_NULL },	   { "boolean", LLM_SCHEMA_BOOLEAN },
		{ "integer", LLM_SCHEMA_INTEGER }, { "number", NUMERIC },
		{ "string", LLM_SCHEMA_STRING },   { "array", LLM_SCHEMA_ARRAY },
		{ "object", LLM_SCHEMA_OBJECT },
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
	{
		if (name->kind == LLM_SCHEMA_JSON_STRING &&
			strcmp(types[i].name, name->text) == 0)
			return types[i].types;
	}
	return 0;
}

uint32_t
llm_schema_types_of_object(LlmSchemaCompiler *c, const LlmSchemaJson *object)
{
	const LlmSchemaJson *type = llm_schema_json_get(object, "type");
	const LlmSchemaJson *nullable = llm_schema_json_get(object, "nullable");
	const LlmSchemaJson *made = llm_schema_json_get(object, LLM_SCHEMA_TYPES);
	uint32_t types = 0;

	if (made != NULL)
		return (uint32_t) strtoul(made->text, NULL, 10);
	if (type == NULL)
		return LLM_SCHEMA_ANY;
	if (type->kind != LLM_SCHEMA_JSON_ARRAY)
		types = type_of_name(type);
	else
	{
		for (const LlmSchemaJson *name = type->child; name != NULL;
			 name = name->next)
		{
			if (type_of_name(name) == 0)
				llm_schema_fail(c, LLM_ERROR_FORMAT, "is no type", name);
			types |= type_of_name(name);
		}
	}
	if (types == 0)
		llm_schema_fail(c, LLM_ERROR_FORMAT, "is no type", type);
	if (nullable != NULL && nullable->kind == LLM_SCHEMA_JSON_TRUE)
		types |= LLM_SCHEMA_NULL;
	return types;
}

uint32_t
llm_schema_type_of(LlmSchemaCompiler *c, const LlmSchemaJson *value)
{
	switch (value->kind)
	{
		case LLM_SCHEMA_JSON_NULL:
			return LLM_SCHEMA_NULL;
		case LLM_SCHEMA_JSON_FALSE:
		case LLM_SCHEMA_JSON_TRUE:
			return LLM_SCHEMA_BOOLEAN;
		case LLM_SCHEMA_JSON_NUMBER:
			return llm_schema_is_whole(c, value) ? LLM_SCHEMA_INTEGER
												 : LLM_SCHEMA_NUMBER;
		case LLM_SCHEMA_JSON_STRING:
			return LLM_SCHEMA_STRING;
		case LLM_SCHEMA_JSON_ARRAY:
			return LLM_SCHEMA_ARRAY;
		default:
			return LLM_SCHEMA_OBJECT;
	}
}

/* The types of the values of an enum or const. */
static uint32_t
types_of_listed(LlmSchemaCompiler *c, const LlmSchemaJson *object)
{
	const LlmSchemaJson *list = llm_schema_json_get(object, "enum");
	const LlmSchemaJson *only = llm_schema_json_get(object, "const");
	uint32_t types = list == NULL ? LLM_SCHEMA_ANY : 0;

	for (const LlmSchemaJson *value = list != NULL ? list->child : NULL;
		 value != NULL; value = value->next)
		types |= llm_schema_type_of(c, value);
	return only == NULL ? types : types & llm_schema_type_of(c, only);
}

uint32_t
llm_schema_types(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	uint32_t types = LLM_SCHEMA_ANY;

	for (size_t i = 0; i < view->n_objects; i++)
	{
		/* remembered, for this is asked of the same objects all the time */
		LlmSchemaJson *object = (LlmSchemaJson *) view->objects[i];

		if (object->types == 0)
			object->types = (uint8_t) (llm_schema_types_of_object(c, object) &
									   types_of_listed(c, object));
		types &= object->types;
	}
	return types;
}

uint32_t
llm_schema_generated_types(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	uint32_t types = llm_schema_types(c, view);
	uint32_t spoken_of = 0;

	for (size_t i = 0; i < view->n_objects; i++)
	{
		if (llm_schema_json_get(view->objects[i], "type") != NULL)
			return types;
		if (view->objects[i]->is_made)
			continue;
		for (const LlmSchemaJson *child = view->objects[i]->child;
			 child != NULL; child = child->next)
		{
			const Keyword *keyword = find_keyword(child->key);

			spoken_of |= keyword != NULL ? keyword->types : 0;
		}
	}
	return spoken_of != 0 ? spoken_of & types : types;
}

const LlmSchemaJson *
llm_schema_find(const LlmSchemaView *view, const char *keyword)
{
	for (size_t i = 0; i < view->n_objects; i++)
	{
		const LlmSchemaJson *found =
			llm_schema_json_get(view->objects[i], keyword);

		if (found != NULL)
			return found;
	}
	return NULL;
}

uint32_t
llm_schema_count(LlmSchemaCompiler *c, const LlmSchemaView *view,
				 const char *keyword, bool is_max)
{
	uint32_t count = is_max ? LLM_GRAMMAR_UNBOUNDED : 0;

	for (size_t i = 0; i < view->n_objects; i++)
	{
		const LlmSchemaJson *value =
			llm_schema_json_get(view->objects[i], keyword);
		double number;
		uint32_t own;

		if (value == NULL)
			continue;
		number = value->kind == LLM_SCHEMA_JSON_NUMBER
					 ? strtod(value->text, NULL)
					 : -1;
		/* no answer is so long that a larger bound differs */
		own = number > MAX_COUNT ? MAX_COUNT
			  : number >= 0		 ? (uint32_t) number
								 : 0;
		if (number < 0 || (number <= MAX_COUNT && (double) own != number))
			llm_schema_fail(c, LLM_ERROR_FORMAT, "is no count", value);
		if (is_max ? own < count : own > count)
			count = own;
	}
	return count;
}
