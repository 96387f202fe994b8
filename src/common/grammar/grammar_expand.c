/*
 * grammar_expand.c
 *	  From schemas to views: references followed, allOf merged, branches chosen.
 *
 * Every keyword is looked at here once: what the room does not know is an
 * error, so that no constraint is lost.  oneOf is anyOf whose branches exclude
 * each other; that must be visible in their types, their enums, or those of a
 * property that one of them requires, or it is an error.
 *
 * src/common/grammar/grammar_expand.c
 */
#include <stdlib.h>
#include <string.h>

#include "src/common/grammar/grammar_schema.h"

#define MAX_COUNT 0x7FFFFFFFu
#define MAX_EXCLUSION_DEPTH 4

/* What a keyword speaks of: a type, or 0 where it is about none. */
typedef struct Keyword
{
	const char *name;
	uint32_t types;
} Keyword;

#define NUMERIC (LLM_SCHEMA_INTEGER | LLM_SCHEMA_NUMBER)

static const Keyword keywords[] = {
	/* annotations, which say nothing about what is valid */
	{ "title", 0 },
	{ "description", 0 },
	{ "default", 0 },
	{ "example", 0 },
	{ "examples", 0 },
	{ "deprecated", 0 },
	{ "readOnly", 0 },
	{ "writeOnly", 0 },
	{ "discriminator", 0 },
	{ "contentMediaType", 0 },
	{ "contentEncoding", 0 },
	{ "$schema", 0 },
	{ "$id", 0 },
	{ "$comment", 0 },
	{ "$defs", 0 },
	{ "definitions", 0 },
	/* for any type */
	{ "type", 0 },
	{ "nullable", 0 },
	{ "enum", 0 },
	{ "const", 0 },
	{ "allOf", 0 },
	{ "anyOf", 0 },
	{ "oneOf", 0 },
	{ "$ref", 0 },
	/* for one type */
	{ "minimum", NUMERIC },
	{ "maximum", NUMERIC },
	{ "exclusiveMinimum", NUMERIC },
	{ "exclusiveMaximum", NUMERIC },
	{ "multipleOf", NUMERIC },
	{ "minLength", LLM_SCHEMA_STRING },
	{ "maxLength", LLM_SCHEMA_STRING },
	{ "pattern", LLM_SCHEMA_STRING },
	{ "format", LLM_SCHEMA_STRING },
	{ "items", LLM_SCHEMA_ARRAY },
	{ "prefixItems", LLM_SCHEMA_ARRAY },
	{ "minItems", LLM_SCHEMA_ARRAY },
	{ "maxItems", LLM_SCHEMA_ARRAY },
	{ "uniqueItems", LLM_SCHEMA_ARRAY },
	{ "properties", LLM_SCHEMA_OBJECT },
	{ "required", LLM_SCHEMA_OBJECT },
	{ "additionalProperties", LLM_SCHEMA_OBJECT },
	{ "minProperties", LLM_SCHEMA_OBJECT },
	{ "maxProperties", LLM_SCHEMA_OBJECT },
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

static void
check_keywords(LlmSchemaCompiler *c, const LlmSchemaJson *object)
{
	for (const LlmSchemaJson *child = object->child; child != NULL;
		 child = child->next)
	{
		if (strncmp(child->key, "x-", 2) == 0)
			continue; /* a vendor's annotation */
		if (find_keyword(child->key) == NULL ||
			(strcmp(child->key, "uniqueItems") == 0 &&
			 child->kind != LLM_SCHEMA_JSON_FALSE))
			llm_schema_fail(c, LLM_ERROR_UNSUPPORTED, "is not supported",
							child);
		if (strcmp(child->key, "$id") == 0 && object != c->root)
			llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
							"is supported in the root only", child);
	}
}

/* -- references -- */

static int
hex_digit(char c)
{
	const char *digits = "0123456789abcdef";
	const char *digit =
		c == '\0' ? NULL : strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c);

	return digit == NULL ? -1 : (int) (digit - digits);
}

/* One step of a pointer, its escapes undone, into a buffer that suffices. */
static size_t
decode_step(const char *text, size_t len, char *out)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
	{
		char c = text[i];

		if (c == '%' && i + 2 < len && hex_digit(text[i + 1]) >= 0 &&
			hex_digit(text[i + 2]) >= 0)
		{
			c = (char) (hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
			i += 2;
		}
		else if (c == '~' && i + 1 < len)
			c = text[++i] == '1' ? '/' : '~';
		out[n++] = c;
	}
	return n;
}

static const LlmSchemaJson *
step_into(const LlmSchemaJson *value, const char *step, size_t len)
{
	size_t index = 0;
	const LlmSchemaJson *child;

	if (value->kind == LLM_SCHEMA_JSON_OBJECT)
		return llm_schema_json_get_len(value, step, len);
	if (value->kind != LLM_SCHEMA_JSON_ARRAY || len == 0 || len > 9)
		return NULL;
	for (size_t i = 0; i < len; i++)
	{
		if (step[i] < '0' || step[i] > '9')
			return NULL;
		index = index * 10 + (size_t) (step[i] - '0');
	}
	for (child = value->child; child != NULL && index > 0; index--)
		child = child->next;
	return child;
}

static const LlmSchemaJson *
resolve(LlmSchemaCompiler *c, const LlmSchemaJson *ref)
{
	const LlmSchemaJson *value = c->root;
	const char *at = ref->text;
	char *step;

	if (ref->kind != LLM_SCHEMA_JSON_STRING || *at != '#' ||
		(at[1] != '\0' && at[1] != '/'))
	{
		llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
						"must be a pointer into the same schema (#/...)", ref);
		return NULL;
	}
	step = llm_grammar_alloc(c->b, ref->text_len + 1);
	if (step == NULL)
		return NULL;
	for (at++; *at == '/' && value != NULL;)
	{
		size_t len = strcspn(at + 1, "/");

		value = step_into(value, step, decode_step(at + 1, len, step));
		at += 1 + len;
	}
	if (value == NULL)
		llm_schema_fail(c, LLM_ERROR_FORMAT, "points to nothing", ref);
	return value;
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

static uint32_t
types_of_object(LlmSchemaCompiler *c, const LlmSchemaJson *object)
{
	const LlmSchemaJson *type = llm_schema_json_get(object, "type");
	const LlmSchemaJson *nullable = llm_schema_json_get(object, "nullable");
	uint32_t types = 0;

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
llm_schema_types(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	uint32_t types = LLM_SCHEMA_ANY;

	for (size_t i = 0; i < view->n_objects; i++)
		types &= types_of_object(c, view->objects[i]);
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
		for (const LlmSchemaJson *child = view->objects[i]->child;
			 child != NULL; child = child->next)
		{
			const Keyword *keyword = find_keyword(child->key);

			spoken_of |= keyword != NULL ? keyword->types : 0;
		}
	}
	return spoken_of != 0 ? spoken_of : types;
}

uint32_t
llm_schema_type_of(const LlmSchemaJson *value)
{
	switch (value->kind)
	{
		case LLM_SCHEMA_JSON_NULL:
			return LLM_SCHEMA_NULL;
		case LLM_SCHEMA_JSON_FALSE:
		case LLM_SCHEMA_JSON_TRUE:
			return LLM_SCHEMA_BOOLEAN;
		case LLM_SCHEMA_JSON_NUMBER:
			return strpbrk(value->text, ".eE") == NULL ? LLM_SCHEMA_INTEGER
													   : LLM_SCHEMA_NUMBER;
		case LLM_SCHEMA_JSON_STRING:
			return LLM_SCHEMA_STRING;
		case LLM_SCHEMA_JSON_ARRAY:
			return LLM_SCHEMA_ARRAY;
		default:
			return LLM_SCHEMA_OBJECT;
	}
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

/* -- expansion -- */

/* What is still to be done; a list on the stack of the recursion. */
typedef struct Pending
{
	const LlmSchemaJson *schema; /* or an anyOf, oneOf: is_choice */
	bool is_choice;
	const struct Pending *next;
	const struct Pending *origin; /* whose reference or branch this is */
} Pending;

typedef struct Expansion
{
	LlmSchemaCompiler *c;
	LlmSchemaViews *out;
	size_t capacity;
} Expansion;

static void expand(Expansion *e, const Pending *pending, LlmSchemaView *done);

static void
add_view(Expansion *e, const LlmSchemaView *view)
{
	LlmSchemaViews *out = e->out;

	if (out->n_views == LLM_SCHEMA_MAX_ALTERNATIVES)
	{
		llm_grammar_fail(e->c->b, LLM_ERROR_LIMIT,
						 "more than %d alternatives for one value at %.300s",
						 LLM_SCHEMA_MAX_ALTERNATIVES,
						 view->n_objects == 0 ? "/"
											  : llm_schema_json_pointer(
													e->c->b, view->objects[0]));
		return;
	}
	if (out->n_views == e->capacity)
	{
		size_t capacity = e->capacity == 0 ? 1 : 4 * e->capacity;
		LlmSchemaView *views =
			llm_grammar_alloc(e->c->b, capacity * sizeof(*views));

		if (views == NULL)
			return;
		if (out->n_views > 0)
			memcpy(views, out->views, out->n_views * sizeof(*views));
		out->views = views;
		e->capacity = capacity;
	}
	out->views[out->n_views++] = *view;
}

static void check_exclusive(LlmSchemaCompiler *c, const LlmSchemaJson *one_of);

static void
expand_choice(Expansion *e, const Pending *pending, LlmSchemaView *done)
{
	size_t n_objects = done->n_objects;

	if (pending->schema->kind != LLM_SCHEMA_JSON_ARRAY ||
		pending->schema->child == NULL)
	{
		llm_schema_fail(e->c, LLM_ERROR_FORMAT, "must be a list of schemas",
						pending->schema);
		return;
	}
	for (const LlmSchemaJson *branch = pending->schema->child; branch != NULL;
		 branch = branch->next)
	{
		Pending own = { .schema = branch,
						.next = pending->next,
						.origin = pending->origin };

		done->n_objects = n_objects;
		expand(e, &own, done);
	}
	done->n_objects = n_objects;
}

/* Push allOf's members, then go on with what an object refers to. */
static void
expand_all_of(Expansion *e, const LlmSchemaJson *member, const Pending *self,
			  const Pending *rest, LlmSchemaView *done)
{
	Pending own = { .schema = member, .next = rest, .origin = self };

	if (member == NULL)
		expand(e, rest, done);
	else if (member->next != NULL)
	{
		/* members in their order: the later ones are behind this one */
		const LlmSchemaJson *list[LLM_SCHEMA_MAX_OBJECTS];
		Pending *items;
		size_t n = 0;

		for (; member != NULL && n < LLM_SCHEMA_MAX_OBJECTS;
			 member = member->next)
			list[n++] = member;
		items = llm_grammar_alloc(e->c->b, n * sizeof(*items));
		if (member != NULL)
			llm_schema_fail(e->c, LLM_ERROR_LIMIT, "has too many members",
							member->parent);
		for (size_t i = 0; items != NULL && i < n; i++)
			items[i] = (Pending){ .schema = list[i],
								  .next = i + 1 < n ? &items[i + 1] : rest,
								  .origin = self };
		if (items != NULL)
			expand(e, items, done);
	}
	else
		expand(e, &own, done);
}

static void
expand_object(Expansion *e, const Pending *pending, LlmSchemaView *done)
{
	LlmSchemaCompiler *c = e->c;
	const LlmSchemaJson *object = pending->schema;
	const LlmSchemaJson *ref = llm_schema_json_get(object, "$ref");
	const LlmSchemaJson *any_of = llm_schema_json_get(object, "anyOf");
	const LlmSchemaJson *one_of = llm_schema_json_get(object, "oneOf");
	const LlmSchemaJson *all_of = llm_schema_json_get(object, "allOf");
	const Pending *rest = pending->next;
	Pending choice = { .schema = any_of, .is_choice = true, .origin = pending };
	Pending one = { .schema = one_of, .is_choice = true, .origin = pending };
	Pending target = { .origin = pending };

	check_keywords(c, object);
	llm_schema_add(c, done, object);
	if (any_of != NULL)
	{
		choice.next = rest;
		rest = &choice;
	}
	if (one_of != NULL)
	{
		check_exclusive(c, one_of);
		one.next = rest;
		rest = &one;
	}
	if (ref != NULL)
	{
		target.schema = resolve(c, ref);
		target.next = rest;
		rest = &target;
	}
	if (!llm_grammar_failed(c->b))
		expand_all_of(e, all_of != NULL ? all_of->child : NULL, pending, rest,
					  done);
}

static void
expand_schema(Expansion *e, const Pending *pending, LlmSchemaView *done)
{
	const LlmSchemaJson *schema = pending->schema;

	for (const Pending *p = pending->origin; p != NULL; p = p->origin)
	{
		if (p->schema == schema)
		{
			llm_grammar_fail(e->c->b, LLM_ERROR_INVALID,
							 "schema at %.300s refers to itself",
							 llm_schema_json_pointer(e->c->b, schema));
			return;
		}
	}
	if (schema->kind == LLM_SCHEMA_JSON_FALSE)
		return;
	if (schema->kind != LLM_SCHEMA_JSON_OBJECT &&
		schema->kind != LLM_SCHEMA_JSON_TRUE)
	{
		llm_grammar_fail(e->c->b, LLM_ERROR_FORMAT,
						 "schema at %.300s is neither an object nor a boolean",
						 llm_schema_json_pointer(e->c->b, schema));
		return;
	}
	for (size_t i = 0; i < done->n_objects; i++)
	{
		if (done->objects[i] == schema)
		{
			expand(e, pending->next, done); /* it applies already */
			return;
		}
	}
	if (schema->kind == LLM_SCHEMA_JSON_TRUE)
		expand(e, pending->next, done);
	else
		expand_object(e, pending, done);
}

static void
expand(Expansion *e, const Pending *pending, LlmSchemaView *done)
{
	size_t n_objects = done->n_objects;

	if (!llm_grammar_descend(e->c->b))
		return;
	if (pending == NULL)
		add_view(e, done);
	else if (pending->is_choice)
		expand_choice(e, pending, done);
	else
		expand_schema(e, pending, done);
	done->n_objects = n_objects;
	llm_grammar_ascend(e->c->b);
}

bool
llm_schema_expand(LlmSchemaCompiler *c, const LlmSchemaAll *all,
				  LlmSchemaViews *out)
{
	Pending pending[LLM_SCHEMA_MAX_OBJECTS];
	Expansion e = { .c = c, .out = out };
	LlmSchemaView done = { .n_objects = 0 };

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < all->n_objects; i++)
		pending[i] = (Pending){ .schema = all->objects[i],
								.next = i + 1 < all->n_objects ? &pending[i + 1]
															   : NULL };
	expand(&e, all->n_objects > 0 ? pending : NULL, &done);
	return !llm_grammar_failed(c->b);
}

/* -- exclusion -- */

static bool exclude(LlmSchemaCompiler *c, const LlmSchemaJson *left,
					const LlmSchemaJson *right, int depth);

/* Has a view a list of values?  The one value of const is a list too. */
static const LlmSchemaJson *
first_value(const LlmSchemaView *view, bool *is_const)
{
	const LlmSchemaJson *list = llm_schema_find(view, "enum");
	const LlmSchemaJson *value = llm_schema_find(view, "const");

	*is_const = value != NULL;
	return value != NULL ? value : list != NULL ? list->child : NULL;
}

static bool
exclude_values(LlmSchemaCompiler *c, const LlmSchemaView *left,
			   const LlmSchemaView *right)
{
	bool left_const;
	bool right_const;
	const LlmSchemaJson *l = first_value(left, &left_const);
	const LlmSchemaJson *first = first_value(right, &right_const);
	uint32_t types = llm_schema_types(c, right);

	if (l == NULL)
		return false;
	for (; l != NULL; l = left_const ? NULL : l->next)
	{
		/* 1.0 is an integer: numbers are taken together */
		uint32_t type = llm_schema_type_of(l);

		type |= (type & NUMERIC) != 0 ? NUMERIC : 0;
		if ((type & types) == 0)
			continue;
		if (first == NULL)
			return false;
		for (const LlmSchemaJson *r = first; r != NULL;
			 r = right_const ? NULL : r->next)
		{
			if (llm_schema_json_equal(l, r))
				return false;
		}
	}
	return true;
}

static bool requires(const LlmSchemaView *view, const LlmSchemaJson *property)
{
	for (size_t i = 0; i < view->n_objects; i++)
	{
		const LlmSchemaJson *required =
			llm_schema_json_get(view->objects[i], "required");

		for (const LlmSchemaJson *name = required != NULL ? required->child
														  : NULL;
			 name != NULL; name = name->next)
		{
			if (name->kind == LLM_SCHEMA_JSON_STRING &&
				name->text_len == property->key_len &&
				memcmp(name->text, property->key, name->text_len) == 0)
				return true;
		}
	}
	return false;
}

/* Objects: a property that must be there, with values that exclude. */
static bool
exclude_properties(LlmSchemaCompiler *c, const LlmSchemaView *left,
				   const LlmSchemaView *right, int depth)
{
	const LlmSchemaJson *l = llm_schema_find(left, "properties");
	const LlmSchemaJson *r = llm_schema_find(right, "properties");

	if (l == NULL || r == NULL ||
		(llm_schema_types(c, left) & llm_schema_types(c, right)) !=
			LLM_SCHEMA_OBJECT)
		return false;
	for (const LlmSchemaJson *property = l->child; property != NULL;
		 property = property->next)
	{
		const LlmSchemaJson *other =
			llm_schema_json_get_len(r, property->key, property->key_len);

		if (other != NULL &&
			(requires(left, property) || requires(right, property)) &&
			exclude(c, property, other, depth))
			return true;
	}
	return false;
}

static bool
exclude_views(LlmSchemaCompiler *c, const LlmSchemaView *left,
			  const LlmSchemaView *right, int depth)
{
	return (llm_schema_types(c, left) & llm_schema_types(c, right)) == 0 ||
		   exclude_values(c, left, right) || exclude_values(c, right, left) ||
		   exclude_properties(c, left, right, depth);
}

/* Is it visible that no value satisfies both schemas? */
static bool
exclude(LlmSchemaCompiler *c, const LlmSchemaJson *left,
		const LlmSchemaJson *right, int depth)
{
	LlmSchemaAll left_all = { .objects = { left }, .n_objects = 1 };
	LlmSchemaAll right_all = { .objects = { right }, .n_objects = 1 };
	LlmSchemaViews l;
	LlmSchemaViews r;

	if (depth > MAX_EXCLUSION_DEPTH || !llm_schema_expand(c, &left_all, &l) ||
		!llm_schema_expand(c, &right_all, &r))
		return false;
	for (size_t i = 0; i < l.n_views; i++)
	{
		for (size_t j = 0; j < r.n_views; j++)
		{
			if (!exclude_views(c, &l.views[i], &r.views[j], depth + 1))
				return false;
		}
	}
	return true;
}

struct LlmSchemaChecked
{
	const LlmSchemaJson *one_of;
	struct LlmSchemaChecked *next;
};

/* Marked before it is looked at: a recursive schema comes back to it. */
static bool
mark_checked(LlmSchemaCompiler *c, const LlmSchemaJson *one_of)
{
	struct LlmSchemaChecked *mark;

	for (mark = c->checked; mark != NULL; mark = mark->next)
	{
		if (mark->one_of == one_of)
			return false;
	}
	mark = llm_grammar_alloc(c->b, sizeof(*mark));
	if (mark == NULL)
		return false;
	mark->one_of = one_of;
	mark->next = c->checked;
	c->checked = mark;
	return true;
}

static void
check_exclusive(LlmSchemaCompiler *c, const LlmSchemaJson *one_of)
{
	if (!mark_checked(c, one_of))
		return;
	for (const LlmSchemaJson *left = one_of->child; left != NULL;
		 left = left->next)
	{
		for (const LlmSchemaJson *right = left->next; right != NULL;
			 right = right->next)
		{
			if (!llm_grammar_failed(c->b) && !exclude(c, left, right, 0))
				llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
								"has branches that do not visibly exclude each "
								"other; anyOf is supported",
								one_of);
		}
	}
}
