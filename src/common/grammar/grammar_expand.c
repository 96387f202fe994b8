/*
 * grammar_expand.c
 *	  From schemas to views: references followed, allOf merged, branches chosen.
 *
 * What is to be done is a list on the stack of the recursion: a branch goes on
 * with what comes behind its choice.  A branch of oneOf excludes the others:
 * where that is not visible (grammar_exclude.c) their negations apply too.
 *
 * src/common/grammar/grammar_expand.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/grammar/grammar_schema.h"

/* Steps of all expansions, and of one that is for a proof. */
#define MAX_STEPS 500000u
#define MAX_PROBE_STEPS 2000u

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

const LlmSchemaJson *
llm_schema_resolve(LlmSchemaCompiler *c, const LlmSchemaJson *ref)
{
	const LlmSchemaJson *value = c->root;
	const char *at = ref->text;
	char *step;

	if (*at != '#' || (at[1] != '\0' && at[1] != '/'))
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

/* -- expansion -- */

/* What is still to be done; a list on the stack of the recursion. */
typedef enum PendingKind
{
	SCHEMA,
	ANY_OF, /* the list of its branches */
	ONE_OF
} PendingKind;

typedef struct Pending
{
	const LlmSchemaJson *schema;
	PendingKind kind;
	const struct Pending *next;
	const struct Pending *origin; /* whose reference or branch this is */
	bool is_negation;
	uint8_t object_idx; /* in the view, once it is there */
} Pending;

typedef struct Expansion
{
	LlmSchemaCompiler *c;
	LlmSchemaViews *out;
	size_t capacity;
	uint32_t n_steps;
	bool is_probe;	   /* more views than there are do no harm, errors do */
	bool is_too_large; /* of a probe */
	const LlmSchemaJson *refused; /* a keyword whose negation was left out */
} Expansion;

static void expand(Expansion *e, const Pending *pending, LlmSchemaView *done);

static void
add_view(Expansion *e, const LlmSchemaView *view)
{
	LlmSchemaViews *out = e->out;

	if (out->n_views == LLM_SCHEMA_MAX_ALTERNATIVES)
	{
		e->is_too_large = true;
		if (e->is_probe)
			return;
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

/* The schemas of a list that do not visibly exclude a branch must not hold. */
static const Pending *
push_others(Expansion *e, const Pending *one_of, const LlmSchemaJson *branch,
			const Pending *rest)
{
	for (const LlmSchemaJson *other = one_of->schema->child; other != NULL;
		 other = other->next)
	{
		Pending *item;

		if (other == branch ||
			llm_schema_is_exclusive(e->c, one_of->schema, branch, other))
			continue;
		item = llm_grammar_alloc(e->c->b, sizeof(*item));
		if (item == NULL)
			return NULL;
		*item = (Pending){ .schema = llm_schema_negate(e->c, other),
						   .next = rest,
						   .origin = one_of->origin,
						   .is_negation = true };
		if (item->schema == NULL)
			return NULL;
		rest = item;
	}
	return rest;
}

/* Nothing is left of a branch, and what cannot be kept is a reason. */
static void
check_branch(Expansion *e, const LlmSchemaJson *branch, size_t n_views)
{
	if (!e->is_probe && e->refused != NULL && e->out->n_views == n_views &&
		!llm_grammar_failed(e->c->b))
		llm_schema_fail(e->c, LLM_ERROR_UNSUPPORTED,
						"has a branch that overlaps others in a way that is "
						"not supported",
						branch->parent);
}

static void
expand_choice(Expansion *e, const Pending *pending, LlmSchemaView *done)
{
	size_t n_objects = done->n_objects;
	const LlmSchemaJson *before = e->refused;

	for (const LlmSchemaJson *branch = pending->schema->child; branch != NULL;
		 branch = branch->next)
	{
		size_t n_views = e->out->n_views;
		Pending own = { .schema = llm_schema_json_follow(branch),
						.next = pending->next,
						.origin = pending->origin };

		if (pending->kind == ONE_OF)
		{
			e->refused = NULL;
			own.next = push_others(e, pending, branch, own.next);
		}
		done->n_objects = n_objects;
		if (!llm_grammar_failed(e->c->b))
			expand(e, &own, done);
		if (pending->kind == ONE_OF)
			check_branch(e, branch, n_views);
	}
	if (e->refused == NULL)
		e->refused = before;
	done->n_objects = n_objects;
}

/* Push allOf's members, then go on with what an object refers to. */
static void
expand_all_of(Expansion *e, const LlmSchemaJson *member, const Pending *self,
			  const Pending *rest, LlmSchemaView *done)
{
	Pending own = { .next = rest, .origin = self };

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
			list[n++] = llm_schema_json_follow(member);
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
	{
		own.schema = llm_schema_json_follow(member);
		expand(e, &own, done);
	}
}

/* What an object applies to the same value, beside allOf, before the rest. */
static const Pending *
push_applied(Expansion *e, const Pending *pending, Pending applied[8])
{
	static const char *const dependent[] = { "dependentRequired",
											 "dependentSchemas",
											 "dependencies" };
	LlmSchemaCompiler *c = e->c;
	const LlmSchemaJson *object = pending->schema;
	const LlmSchemaJson *schemas[8] = { NULL };
	const Pending *rest = pending->next;

	for (int i = 0; i < 3; i++)
	{
		const LlmSchemaJson *keyword =
			llm_schema_json_get(object, dependent[i]);

		if (keyword != NULL)
			schemas[i] = llm_schema_make_dependent(c, keyword);
	}
	if (llm_schema_json_get(object, "if") != NULL)
		schemas[3] = llm_schema_make_condition(c, object);
	if (llm_schema_json_get(object, "not") != NULL)
		schemas[4] = llm_schema_negate(c, llm_schema_json_get(object, "not"));
	schemas[5] = llm_schema_json_get(object, "anyOf");
	schemas[6] = llm_schema_json_get(object, "oneOf");
	if (llm_schema_json_get(object, "$ref") != NULL)
		schemas[7] = llm_schema_resolve(c, llm_schema_json_get(object, "$ref"));
	for (int i = 0; i < 8; i++)
	{
		if (schemas[i] == NULL)
			continue;
		applied[i] = (Pending){ .schema = schemas[i],
								.kind = i == 5	 ? ANY_OF
										: i == 6 ? ONE_OF
												 : SCHEMA,
								.next = rest,
								.origin = pending,
								.is_negation = i == 4 };
		rest = &applied[i];
	}
	return rest;
}

/* Put an object into the view; false: nothing satisfies both. */
static bool
add_object(Expansion *e, Pending *self, LlmSchemaView *done)
{
	LlmSchemaCompiler *c = e->c;

	llm_schema_add(c, done, self->schema);
	if (llm_grammar_failed(c->b))
		return false;
	self->object_idx = (uint8_t) (done->n_objects - 1);
	if (self->origin != NULL && !self->is_negation)
		done->parents[self->object_idx] = self->origin->object_idx;
	/* what was made contradicts much: see early, alternatives multiply */
	return llm_schema_types(c, done) != 0 &&
		   !(self->schema->is_made && !e->is_probe &&
			 llm_schema_is_empty(c, done, 0));
}

static void
expand_object(Expansion *e, const Pending *pending, LlmSchemaView *done)
{
	LlmSchemaCompiler *c = e->c;
	const LlmSchemaJson *object = pending->schema;
	const LlmSchemaJson *all_of = llm_schema_json_get(object, "allOf");
	const LlmSchemaJson *refused =
		llm_schema_json_get(object, LLM_SCHEMA_REFUSED);
	Pending applied[8];
	Pending self;
	const Pending *rest;

	llm_schema_check_keywords(c, object);
	if (llm_grammar_failed(c->b))
		return;
	if (refused != NULL && !e->is_probe)
	{
		e->refused = refused;
		return;
	}
	self = *pending;
	if (object->is_made && !llm_schema_constrains(object))
		self.object_idx = self.origin != NULL && !self.is_negation
							  ? self.origin->object_idx
							  : LLM_SCHEMA_NO_PARENT;
	else if (!add_object(e, &self, done))
		return;
	rest = push_applied(e, &self, applied);
	if (!llm_grammar_failed(c->b))
		expand_all_of(e, all_of != NULL ? all_of->child : NULL, &self, rest,
					  done);
}

static void
expand_schema(Expansion *e, const Pending *pending, LlmSchemaView *done)
{
	const LlmSchemaJson *schema = pending->schema;

	assert(schema->kind != LLM_SCHEMA_JSON_LINK);
	for (const Pending *p = pending->origin; p != NULL; p = p->origin)
	{
		if (p->schema == schema && p->kind == SCHEMA)
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

/*
 * All objects are there.  One that must have a property which additional ones
 * may not be, has one of those that the view lists.
 */
static void
finish_view(Expansion *e, LlmSchemaView *done, size_t from)
{
	LlmSchemaCompiler *c = e->c;
	const LlmSchemaJson *keyword = NULL;
	size_t n_objects = done->n_objects;
	size_t n_found = 0;

	for (; from < n_objects && keyword == NULL; from++)
		keyword =
			llm_schema_json_get(done->objects[from], LLM_SCHEMA_NOT_ADDITIONAL);
	if (keyword == NULL || e->is_probe)
	{
		/* in a proof, what is not evaluated may be anything */
		if (!e->is_probe)
			llm_schema_add_unevaluated(c, done);
		add_view(e, done);
		done->n_objects = n_objects;
		return;
	}
	for (size_t i = 0; i < n_objects; i++)
	{
		const LlmSchemaJson *list =
			llm_schema_json_get(done->objects[i], "properties");

		for (const LlmSchemaJson *p = list != NULL ? list->child : NULL;
			 p != NULL && !llm_grammar_failed(c->b); p = p->next)
		{
			if (done->objects[i]->is_made ||
				!llm_schema_is_additional(c, keyword->parent, p))
				continue;
			n_found++;
			llm_schema_add(c, done, llm_schema_make_addition(c, keyword, p));
			if (!llm_schema_is_empty(c, done, 0))
				finish_view(e, done, from);
			done->n_objects = n_objects;
		}
	}
	if (n_found == 0)
		e->refused = keyword;
}

static void
expand(Expansion *e, const Pending *pending, LlmSchemaView *done)
{
	size_t n_objects = done->n_objects;

	if (e->is_too_large || !llm_grammar_descend(e->c->b))
		return;
	e->n_steps++;
	if (e->is_probe && e->n_steps > MAX_PROBE_STEPS)
		e->is_too_large = true;
	else if (e->c->n_steps++ > MAX_STEPS)
		llm_grammar_fail(e->c->b, LLM_ERROR_LIMIT,
						 "schema has more than %u ways to choose among its "
						 "alternatives",
						 MAX_STEPS);
	else if (pending == NULL)
		finish_view(e, done, 0);
	else if (pending->kind != SCHEMA)
		expand_choice(e, pending, done);
	else
		expand_schema(e, pending, done);
	done->n_objects = n_objects;
	llm_grammar_ascend(e->c->b);
}

static void
expand_all(Expansion *e, const LlmSchemaAll *all)
{
	Pending pending[LLM_SCHEMA_MAX_OBJECTS];
	LlmSchemaView done = { .n_objects = 0 };

	memset(e->out, 0, sizeof(*e->out));
	for (size_t i = 0; i < all->n_objects; i++)
		pending[i] = (Pending){ .schema = all->objects[i],
								.next = i + 1 < all->n_objects ? &pending[i + 1]
															   : NULL };
	expand(e, all->n_objects > 0 ? pending : NULL, &done);
}

bool
llm_schema_expand(LlmSchemaCompiler *c, const LlmSchemaAll *all,
				  LlmSchemaViews *out)
{
	Expansion e = { .c = c, .out = out };

	expand_all(&e, all);
	if (out->n_views == 0 && e.refused != NULL)
		llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
						"is not supported where it must not hold", e.refused);
	return !llm_grammar_failed(c->b);
}

bool
llm_schema_probe(LlmSchemaCompiler *c, const LlmSchemaAll *all,
				 LlmSchemaViews *out)
{
	Expansion e = { .c = c, .out = out, .is_probe = true };

	expand_all(&e, all);
	return !e.is_too_large && !llm_grammar_failed(c->b);
}
