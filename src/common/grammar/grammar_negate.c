/*
 * grammar_negate.c
 *	  What a schema means where it must not hold, as schemas.
 *
 * A schema is all of its keywords, so its negation is any of its keywords'
 * negations, each of which is a schema again: "minimum" becomes numbers below
 * it, "required" an object without that name.  These are made once for each
 * schema; a schema within it is negated only when it is reached, by a "not"
 * that is a link to it, so that recursive schemas end.  A few negations say
 * what no keyword does; those have keywords of their own (grammar_schema.h).
 *
 * if, then and else, and what depends on a name, are made into alternatives
 * here in the same way.
 *
 * src/common/grammar/grammar_negate.c
 */
#include "src/common/grammar/grammar_schema.h"

#include <stdlib.h>
#include <string.h>

#define NUMERIC (LLM_SCHEMA_INTEGER | LLM_SCHEMA_NUMBER)

/* What is made of a schema, or of a keyword and a property. */
typedef enum Purpose
{
	NEGATION,
	CONDITION,
	DEPENDENCY,
	ADDITION
} Purpose;

struct LlmSchemaMade
{
	Purpose purpose;
	const LlmSchemaJson *source;
	const LlmSchemaJson *other;
	const LlmSchemaJson *made;
	struct LlmSchemaMade *next;
};

static const LlmSchemaJson *
find_made(LlmSchemaCompiler *c, Purpose purpose, const LlmSchemaJson *source,
		  const LlmSchemaJson *other)
{
	for (struct LlmSchemaMade *m = c->made; m != NULL; m = m->next)
	{
		if (m->purpose == purpose && m->source == source && m->other == other)
			return m->made;
	}
	return NULL;
}

static const LlmSchemaJson *
keep_made(LlmSchemaCompiler *c, Purpose purpose, const LlmSchemaJson *source,
		  const LlmSchemaJson *other, const LlmSchemaJson *made)
{
	struct LlmSchemaMade *m = llm_grammar_alloc(c->b, sizeof(*m));

	if (m == NULL)
		return NULL;
	*m = (struct LlmSchemaMade){ purpose, source, other, made, c->made };
	c->made = m;
	return made;
}

/* -- making schemas -- */

static LlmSchemaJson *
make_object(LlmSchemaCompiler *c, const LlmSchemaJson *made_for)
{
	return llm_schema_json_make(c->b, LLM_SCHEMA_JSON_OBJECT, made_for);
}

static void
put_link(LlmSchemaCompiler *c, LlmSchemaJson *object, const char *key,
		 const LlmSchemaJson *target)
{
	llm_schema_json_put(object, key, llm_schema_json_make_link(c->b, target));
}

static void
put_number(LlmSchemaCompiler *c, LlmSchemaJson *object, const char *key,
		   uint32_t number)
{
	llm_schema_json_put(object, key, llm_schema_json_make_number(c->b, number));
}

/* {"not": the schema} */
static LlmSchemaJson *
make_not(LlmSchemaCompiler *c, const LlmSchemaJson *schema)
{
	LlmSchemaJson *object = make_object(c, schema);

	put_link(c, object, "not", schema);
	return object;
}

static LlmSchemaJson *
make_list(LlmSchemaCompiler *c, LlmSchemaJson *object, const char *key,
		  const LlmSchemaJson *made_for)
{
	LlmSchemaJson *list =
		llm_schema_json_make(c->b, LLM_SCHEMA_JSON_ARRAY, made_for);

	llm_schema_json_put(object, key, list);
	return list;
}

/* Put {"types", key: value} into a list; returns it. */
static LlmSchemaJson *
put_typed(LlmSchemaCompiler *c, LlmSchemaJson *list,
		  const LlmSchemaJson *made_for, uint32_t types)
{
	LlmSchemaJson *object = make_object(c, made_for);

	put_number(c, object, LLM_SCHEMA_TYPES, types);
	llm_schema_json_put(list, NULL, object);
	return object;
}

static LlmSchemaJson *
make_name(LlmSchemaCompiler *c, const char *text, size_t len)
{
	LlmSchemaJson *name =
		llm_schema_json_make(c->b, LLM_SCHEMA_JSON_STRING, NULL);

	if (name != NULL)
	{
		name->text = text;
		name->text_len = len;
	}
	return name;
}

/* "required": [name] */
static void
put_required(LlmSchemaCompiler *c, LlmSchemaJson *object, const char *text,
			 size_t len)
{
	llm_schema_json_put(make_list(c, object, "required", object), NULL,
						make_name(c, text, len));
}

/* "properties": {name: value} */
static void
put_property(LlmSchemaCompiler *c, LlmSchemaJson *object, const char *name,
			 size_t len, LlmSchemaJson *value)
{
	LlmSchemaJson *properties =
		llm_schema_json_make(c->b, LLM_SCHEMA_JSON_OBJECT, object);

	llm_schema_json_put(properties, name, value);
	llm_schema_json_put(object, "properties", properties);
	if (value != NULL)
		value->key_len = len;
}

/* An object without a name. */
static void
put_lack(LlmSchemaCompiler *c, LlmSchemaJson *object, const char *name,
		 size_t len)
{
	put_property(c, object, name, len,
				 llm_schema_json_make(c->b, LLM_SCHEMA_JSON_FALSE, object));
}

/* -- keyword by keyword -- */

typedef struct Negation
{
	LlmSchemaCompiler *c;
	const LlmSchemaJson *object;
	LlmSchemaJson *any; /* the alternatives */
} Negation;

static bool
is_key(const LlmSchemaJson *keyword, const char *name)
{
	return strcmp(keyword->key, name) == 0;
}

/* {"types", key: link to what the keyword says} */
static void
negate_by(Negation *n, const LlmSchemaJson *keyword, uint32_t types,
		  const char *key)
{
	put_link(n->c, put_typed(n->c, n->any, keyword, types), key, keyword);
}

/* A count that is one less, or one more; not below none. */
static void
negate_count(Negation *n, const LlmSchemaJson *keyword, uint32_t types,
			 const char *key)
{
	const LlmSchemaView view = { .objects = { n->object }, .n_objects = 1 };
	bool is_min = strncmp(keyword->key, "min", 3) == 0;
	uint32_t count = llm_schema_count(n->c, &view, keyword->key, !is_min);

	if (is_min && count == 0)
		return;
	put_number(n->c, put_typed(n->c, n->any, keyword, types), key,
			   is_min ? count - 1 : count + 1);
}

/* Each schema of a list, negated on its own. */
static void
negate_each(Negation *n, const LlmSchemaJson *keyword, LlmSchemaJson *list)
{
	for (const LlmSchemaJson *schema = keyword->child; schema != NULL;
		 schema = schema->next)
		llm_schema_json_put(list, NULL, make_not(n->c, schema));
}

static void
negate_any_of(Negation *n, const LlmSchemaJson *keyword)
{
	LlmSchemaJson *object = make_object(n->c, keyword);

	negate_each(n, keyword, make_list(n->c, object, "allOf", keyword));
	llm_schema_json_put(n->any, NULL, object);
}

/* {"allOf": [both]} */
static void
put_both(LlmSchemaCompiler *c, LlmSchemaJson *list, LlmSchemaJson *left,
		 LlmSchemaJson *right, const LlmSchemaJson *made_for)
{
	LlmSchemaJson *object = make_object(c, made_for);
	LlmSchemaJson *both = make_list(c, object, "allOf", made_for);

	llm_schema_json_put(both, NULL, left);
	llm_schema_json_put(both, NULL, right);
	llm_schema_json_put(list, NULL, object);
}

/* None of them, or two. */
static void
negate_one_of(Negation *n, const LlmSchemaJson *keyword)
{
	negate_any_of(n, keyword);
	for (const LlmSchemaJson *left = keyword->child; left != NULL;
		 left = left->next)
	{
		for (const LlmSchemaJson *right = left->next; right != NULL;
			 right = right->next)
			put_both(n->c, n->any, llm_schema_json_make_link(n->c->b, left),
					 llm_schema_json_make_link(n->c->b, right), keyword);
	}
}

static void
negate_if(Negation *n, const LlmSchemaJson *condition)
{
	LlmSchemaCompiler *c = n->c;
	const LlmSchemaJson *met = llm_schema_json_get(n->object, "then");
	const LlmSchemaJson *other = llm_schema_json_get(n->object, "else");

	if (met != NULL)
		put_both(c, n->any, llm_schema_json_make_link(c->b, condition),
				 make_not(c, met), condition);
	if (other != NULL)
		put_both(c, n->any, make_not(c, condition), make_not(c, other),
				 condition);
}

/* -- values that are none of a list's -- */

static int
compare_numbers(LlmSchemaCompiler *c, const LlmSchemaJson *const *numbers,
				size_t i, size_t j)
{
	return llm_schema_compare_numbers(c, numbers[i], numbers[j]);
}

/* Below, between and above the numbers. */
static void
negate_numbers(Negation *n, const LlmSchemaJson *keyword,
			   const LlmSchemaJson **numbers, size_t n_numbers)
{
	LlmSchemaCompiler *c = n->c;

	for (size_t i = 1; i < n_numbers; i++)
	{
		for (size_t j = i; j > 0 && compare_numbers(c, numbers, j - 1, j) > 0;
			 j--)
		{
			const LlmSchemaJson *swapped = numbers[j];

			numbers[j] = numbers[j - 1];
			numbers[j - 1] = swapped;
		}
	}
	for (size_t i = 0; i <= n_numbers; i++)
	{
		LlmSchemaJson *object = put_typed(c, n->any, keyword, NUMERIC);

		if (i > 0)
			put_link(c, object, "exclusiveMinimum", numbers[i - 1]);
		if (i < n_numbers)
			put_link(c, object, "exclusiveMaximum", numbers[i]);
	}
}

/* What is left of a type when some of its values are listed. */
static void
negate_of_type(Negation *n, const LlmSchemaJson *keyword, uint32_t listed)
{
	LlmSchemaCompiler *c = n->c;
	uint32_t containers = listed & (LLM_SCHEMA_ARRAY | LLM_SCHEMA_OBJECT);

	if (listed & LLM_SCHEMA_STRING)
		negate_by(n, keyword, LLM_SCHEMA_STRING, LLM_SCHEMA_NOT_LISTED);
	if (containers != 0)
		negate_by(n, keyword, containers, LLM_SCHEMA_REFUSED);
	if (LLM_SCHEMA_ANY & ~listed)
		put_typed(c, n->any, keyword, LLM_SCHEMA_ANY & ~listed);
}

static void
negate_listed(Negation *n, const LlmSchemaJson *keyword)
{
	LlmSchemaCompiler *c = n->c;
	bool is_enum = is_key(keyword, "enum");
	const LlmSchemaJson **numbers =
		llm_grammar_alloc(c->b, (keyword->n_children + 1) * sizeof(*numbers));
	bool has_boolean[2] = { false, false };
	size_t n_numbers = 0;
	uint32_t listed = 0;

	for (const LlmSchemaJson *value = is_enum ? keyword->child : keyword;
		 value != NULL && numbers != NULL; value = is_enum ? value->next : NULL)
	{
		listed |= llm_schema_type_of(c, value);
		if (value->kind == LLM_SCHEMA_JSON_NUMBER)
			numbers[n_numbers++] = value;
		if (value->kind == LLM_SCHEMA_JSON_FALSE ||
			value->kind == LLM_SCHEMA_JSON_TRUE)
			has_boolean[value->kind == LLM_SCHEMA_JSON_TRUE] = true;
	}
	if (n_numbers > 0)
	{
		listed |= NUMERIC;
		negate_numbers(n, keyword, numbers, n_numbers);
	}
	if (has_boolean[0] != has_boolean[1])
		llm_schema_json_put(
			put_typed(c, n->any, keyword, LLM_SCHEMA_BOOLEAN), "const",
			llm_schema_json_make(c->b,
								 has_boolean[0] ? LLM_SCHEMA_JSON_TRUE
												: LLM_SCHEMA_JSON_FALSE,
								 keyword));
	negate_of_type(n, keyword, listed);
}

static void
negate_required(Negation *n, const LlmSchemaJson *keyword)
{
	for (const LlmSchemaJson *name = keyword->child; name != NULL;
		 name = name->next)
		put_lack(n->c, put_typed(n->c, n->any, keyword, LLM_SCHEMA_OBJECT),
				 name->text, name->text_len);
}

static void
negate_properties(Negation *n, const LlmSchemaJson *keyword)
{
	LlmSchemaCompiler *c = n->c;

	for (const LlmSchemaJson *p = keyword->child; p != NULL; p = p->next)
	{
		LlmSchemaJson *object;

		if (llm_schema_json_follow(p)->kind == LLM_SCHEMA_JSON_TRUE)
			continue;
		object = put_typed(c, n->any, keyword, LLM_SCHEMA_OBJECT);
		put_required(c, object, p->key, p->key_len);
		put_property(c, object, p->key, p->key_len, make_not(c, p));
	}
}

/* Items before this one are any, this one is another. */
static void
negate_prefix(Negation *n, const LlmSchemaJson *keyword)
{
	LlmSchemaCompiler *c = n->c;
	uint32_t i = 0;

	for (const LlmSchemaJson *item = keyword->child; item != NULL;
		 item = item->next, i++)
	{
		LlmSchemaJson *object = put_typed(c, n->any, keyword, LLM_SCHEMA_ARRAY);
		LlmSchemaJson *list = make_list(c, object, "prefixItems", keyword);

		for (uint32_t j = 0; j < i; j++)
			llm_schema_json_put(
				list, NULL,
				llm_schema_json_make(c->b, LLM_SCHEMA_JSON_TRUE, keyword));
		llm_schema_json_put(list, NULL, make_not(c, item));
		put_number(c, object, "minItems", i + 1);
	}
}

static void
negate_contains(Negation *n, const LlmSchemaJson *keyword)
{
	LlmSchemaCompiler *c = n->c;
	const LlmSchemaView view = { .objects = { n->object }, .n_objects = 1 };
	const LlmSchemaJson *min = llm_schema_json_get(n->object, "minContains");
	uint32_t least =
		min == NULL ? 1 : llm_schema_count(c, &view, "minContains", false);
	uint32_t most = llm_schema_count(c, &view, "maxContains", true);
	LlmSchemaJson *object;

	if (least == 1)
		llm_schema_json_put(put_typed(c, n->any, keyword, LLM_SCHEMA_ARRAY),
							"items", make_not(c, keyword));
	else if (least > 1)
	{
		object = put_typed(c, n->any, keyword, LLM_SCHEMA_ARRAY);
		put_link(c, object, "contains", keyword);
		put_number(c, object, "minContains", 0);
		put_number(c, object, "maxContains", least - 1);
	}
	if (most != LLM_GRAMMAR_UNBOUNDED)
	{
		object = put_typed(c, n->any, keyword, LLM_SCHEMA_ARRAY);
		put_link(c, object, "contains", keyword);
		put_number(c, object, "minContains", most + 1);
	}
}

/* Some item, behind prefixItems, is another. */
static void
negate_items(Negation *n, const LlmSchemaJson *keyword)
{
	LlmSchemaCompiler *c = n->c;
	LlmSchemaJson *object;

	if (keyword->kind == LLM_SCHEMA_JSON_TRUE)
		return;
	if (llm_schema_json_get(n->object, "prefixItems") != NULL)
	{
		put_link(c, put_typed(c, n->any, keyword, LLM_SCHEMA_ARRAY),
				 LLM_SCHEMA_REFUSED, keyword);
		return;
	}
	object = put_typed(c, n->any, keyword, LLM_SCHEMA_ARRAY);
	llm_schema_json_put(object, "contains", make_not(c, keyword));
}

/* What applies other schemas to the same value; false: it is none of these. */
static bool
negate_applicator(Negation *n, const LlmSchemaJson *keyword)
{
	if (is_key(keyword, "$ref"))
	{
		const LlmSchemaJson *target = llm_schema_resolve(n->c, keyword);

		if (target != NULL)
			llm_schema_json_put(n->any, NULL, make_not(n->c, target));
	}
	else if (is_key(keyword, "not"))
		llm_schema_json_put(n->any, NULL,
							llm_schema_json_make_link(n->c->b, keyword));
	else if (is_key(keyword, "allOf"))
		negate_each(n, keyword, n->any);
	else if (is_key(keyword, "anyOf"))
		negate_any_of(n, keyword);
	else if (is_key(keyword, "oneOf"))
		negate_one_of(n, keyword);
	else if (is_key(keyword, "if"))
		negate_if(n, keyword);
	else if (is_key(keyword, "dependentRequired") ||
			 is_key(keyword, "dependentSchemas") ||
			 is_key(keyword, "dependencies"))
		llm_schema_json_put(
			n->any, NULL,
			make_not(n->c, llm_schema_make_dependent(n->c, keyword)));
	else
		return is_key(keyword, "then") || is_key(keyword, "else");
	return true;
}

/* Keywords whose negation is another one's with the same value. */
static bool
negate_scalar(Negation *n, const LlmSchemaJson *keyword)
{
	static const struct
	{
		const char *name;
		uint32_t types;
		const char *negation;
		bool is_count;
	} pairs[] = {
		{ "minimum", NUMERIC, "exclusiveMaximum", false },
		{ "maximum", NUMERIC, "exclusiveMinimum", false },
		{ "exclusiveMinimum", NUMERIC, "maximum", false },
		{ "exclusiveMaximum", NUMERIC, "minimum", false },
		{ "multipleOf", NUMERIC, LLM_SCHEMA_NOT_MULTIPLE, false },
		{ "pattern", LLM_SCHEMA_STRING, LLM_SCHEMA_NOT_PATTERN, false },
		{ "minLength", LLM_SCHEMA_STRING, "maxLength", true },
		{ "maxLength", LLM_SCHEMA_STRING, "minLength", true },
		{ "minItems", LLM_SCHEMA_ARRAY, "maxItems", true },
		{ "maxItems", LLM_SCHEMA_ARRAY, "minItems", true },
		{ "minProperties", LLM_SCHEMA_OBJECT, "maxProperties", true },
		{ "maxProperties", LLM_SCHEMA_OBJECT, "minProperties", true },
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		if (!is_key(keyword, pairs[i].name))
			continue;
		if (pairs[i].is_count)
			negate_count(n, keyword, pairs[i].types, pairs[i].negation);
		else
			negate_by(n, keyword, pairs[i].types, pairs[i].negation);
		return true;
	}
	return false;
}

static void
negate_keyword(Negation *n, const LlmSchemaJson *keyword)
{
	LlmSchemaCompiler *c = n->c;
	const char *low;
	const char *high;
	uint32_t types;

	if (negate_applicator(n, keyword) || negate_scalar(n, keyword))
		return;
	if (is_key(keyword, "type") || is_key(keyword, LLM_SCHEMA_TYPES))
	{
		types = LLM_SCHEMA_ANY & ~llm_schema_types_of_object(c, n->object);
		if (types != 0)
			put_typed(c, n->any, keyword, types);
	}
	else if (is_key(keyword, "enum") || is_key(keyword, "const"))
		negate_listed(n, keyword);
	else if (is_key(keyword, "format") &&
			 !llm_schema_number_format(keyword, &low, &high))
		negate_by(n, keyword, LLM_SCHEMA_STRING, LLM_SCHEMA_NOT_FORMAT);
	else if (is_key(keyword, "required"))
		negate_required(n, keyword);
	else if (is_key(keyword, "properties"))
		negate_properties(n, keyword);
	else if (is_key(keyword, "prefixItems"))
		negate_prefix(n, keyword);
	else if (is_key(keyword, "items"))
		negate_items(n, keyword);
	else if (is_key(keyword, "contains"))
		negate_contains(n, keyword);
	else if (is_key(keyword, "minContains") || is_key(keyword, "maxContains") ||
			 is_key(keyword, "nullable"))
		return; /* seen with contains and type */
	else if (is_key(keyword, "additionalProperties") &&
			 keyword->kind != LLM_SCHEMA_JSON_TRUE)
		negate_by(n, keyword, LLM_SCHEMA_OBJECT, LLM_SCHEMA_NOT_ADDITIONAL);
	else if (!is_key(keyword, "additionalProperties") &&
			 llm_schema_is_constraint(keyword))
		put_link(c, put_typed(c, n->any, keyword, LLM_SCHEMA_ANY),
				 LLM_SCHEMA_REFUSED, keyword);
}

const LlmSchemaJson *
llm_schema_negate(LlmSchemaCompiler *c, const LlmSchemaJson *schema)
{
	Negation n = { .c = c };
	const LlmSchemaJson *known;
	LlmSchemaJson *made;

	schema = llm_schema_json_follow(schema);
	known = find_made(c, NEGATION, schema, NULL);
	if (known != NULL)
		return known;
	if (schema->kind != LLM_SCHEMA_JSON_OBJECT)
		return keep_made(
			c, NEGATION, schema, NULL,
			llm_schema_json_make(c->b,
								 schema->kind == LLM_SCHEMA_JSON_FALSE
									 ? LLM_SCHEMA_JSON_TRUE
									 : LLM_SCHEMA_JSON_FALSE,
								 schema));
	llm_schema_check_keywords(c, schema);
	made = make_object(c, schema);
	n.object = schema;
	n.any = make_list(c, made, "anyOf", schema);
	for (const LlmSchemaJson *keyword = schema->child;
		 keyword != NULL && !llm_grammar_failed(c->b); keyword = keyword->next)
		negate_keyword(&n, keyword);
	if (n.any != NULL && n.any->child == NULL)
		made = llm_schema_json_make(c->b, LLM_SCHEMA_JSON_FALSE, schema);
	return keep_made(c, NEGATION, schema, NULL, made);
}

/* -- conditions -- */

const LlmSchemaJson *
llm_schema_make_condition(LlmSchemaCompiler *c, const LlmSchemaJson *object)
{
	const LlmSchemaJson *condition = llm_schema_json_get(object, "if");
	const LlmSchemaJson *met = llm_schema_json_get(object, "then");
	const LlmSchemaJson *other = llm_schema_json_get(object, "else");
	const LlmSchemaJson *known = find_made(c, CONDITION, condition, NULL);
	LlmSchemaJson *made;
	LlmSchemaJson *any;

	if (known != NULL)
		return known;
	made = make_object(c, condition);
	any = make_list(c, made, "anyOf", condition);
	if (met != NULL)
		put_both(c, any, llm_schema_json_make_link(c->b, condition),
				 llm_schema_json_make_link(c->b, met), condition);
	else
		put_link(c, any, NULL, condition);
	if (other != NULL)
		put_both(c, any, make_not(c, condition),
				 llm_schema_json_make_link(c->b, other), condition);
	else
		llm_schema_json_put(any, NULL, make_not(c, condition));
	return keep_made(c, CONDITION, condition, NULL, made);
}

/* An object lacks the name, or what depends on it holds. */
static void
put_dependency(LlmSchemaCompiler *c, LlmSchemaJson *all,
			   const LlmSchemaJson *dependency)
{
	LlmSchemaJson *object = make_object(c, dependency);
	LlmSchemaJson *any = make_list(c, object, "anyOf", dependency);
	LlmSchemaJson *needs;

	put_lack(c, put_typed(c, any, dependency, LLM_SCHEMA_OBJECT),
			 dependency->key, dependency->key_len);
	if (dependency->kind == LLM_SCHEMA_JSON_ARRAY)
	{
		llm_schema_check_names(c, dependency);
		needs = make_object(c, dependency);
		put_link(c, needs, "required", dependency);
		llm_schema_json_put(any, NULL, needs);
	}
	else
	{
		put_typed(c, any, dependency, LLM_SCHEMA_ANY & ~LLM_SCHEMA_OBJECT);
		needs = make_object(c, dependency);
		put_number(c, needs, LLM_SCHEMA_TYPES, LLM_SCHEMA_OBJECT);
		put_required(c, needs, dependency->key, dependency->key_len);
		put_both(c, any, needs, llm_schema_json_make_link(c->b, dependency),
				 dependency);
	}
	llm_schema_json_put(all, NULL, object);
}

const LlmSchemaJson *
llm_schema_make_dependent(LlmSchemaCompiler *c, const LlmSchemaJson *keyword)
{
	const LlmSchemaJson *known = find_made(c, DEPENDENCY, keyword, NULL);
	LlmSchemaJson *made;
	LlmSchemaJson *all;

	if (known != NULL)
		return known;
	made = make_object(c, keyword);
	all = make_list(c, made, "allOf", keyword);
	for (const LlmSchemaJson *dependency = keyword->child;
		 dependency != NULL && !llm_grammar_failed(c->b);
		 dependency = dependency->next)
		put_dependency(c, all, dependency);
	return keep_made(c, DEPENDENCY, keyword, NULL, made);
}

const LlmSchemaJson *
llm_schema_make_addition(LlmSchemaCompiler *c, const LlmSchemaJson *keyword,
						 const LlmSchemaJson *property)
{
	const LlmSchemaJson *known = find_made(c, ADDITION, keyword, property);
	LlmSchemaJson *made;

	if (known != NULL)
		return known;
	made = make_object(c, keyword);
	put_required(c, made, property->key, property->key_len);
	put_property(c, made, property->key, property->key_len,
				 make_not(c, keyword));
	return keep_made(c, ADDITION, keyword, property, made);
}
