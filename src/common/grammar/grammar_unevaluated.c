/*
 * grammar_unevaluated.c
 *	  unevaluatedProperties and unevaluatedItems of a complete view.
 *
 * What counts as evaluated are the properties and items that the keyword's own
 * object speaks of, and those that the view's other objects do which came from
 * it, by references and branches.  So the keyword becomes additionalProperties
 * beside properties of all those names, or items behind so many prefixItems,
 * in a schema that is made once for the objects that take part.
 *
 * A value may satisfy more branches than the one that was chosen, which would
 * evaluate more, and items that contains has found are evaluated, too: both
 * are left out, so that less is generated than is valid.
 *
 * src/common/grammar/grammar_unevaluated.c
 */
#include <string.h>

#include "src/common/grammar/grammar_schema.h"

struct LlmSchemaUnevaluated
{
	const LlmSchemaJson *keyword;
	LlmSchemaView from; /* the objects that take part */
	const LlmSchemaJson *made;
	struct LlmSchemaUnevaluated *next;
};

static bool
is_from(const LlmSchemaView *view, size_t object, size_t ancestor)
{
	while (object != ancestor && view->parents[object] != LLM_SCHEMA_NO_PARENT)
		object = view->parents[object];
	return object == ancestor;
}

/* Objects of the source that came from one of the view; it is the first. */
static LlmSchemaView
collect_from(const LlmSchemaView *view, size_t ancestor)
{
	LlmSchemaView from = { .n_objects = 0 };

	from.objects[from.n_objects++] = view->objects[ancestor];
	for (size_t i = 0; i < view->n_objects; i++)
	{
		if (i != ancestor && !view->objects[i]->is_made &&
			is_from(view, i, ancestor))
			from.objects[from.n_objects++] = view->objects[i];
	}
	return from;
}

/* {key: true} for each key of the objects' keyword. */
static void
put_names(LlmSchemaCompiler *c, const LlmSchemaView *from, const char *keyword,
		  LlmSchemaJson *made)
{
	LlmSchemaJson *map =
		llm_schema_json_make(c->b, LLM_SCHEMA_JSON_OBJECT, made);

	for (size_t i = 0; i < from->n_objects && map != NULL; i++)
	{
		const LlmSchemaJson *own =
			llm_schema_json_get(from->objects[i], keyword);

		for (const LlmSchemaJson *p = own != NULL ? own->child : NULL;
			 p != NULL; p = p->next)
		{
			if (llm_schema_json_get_len(map, p->key, p->key_len) == NULL)
				llm_schema_json_put(
					map, p->key,
					llm_schema_json_make(c->b, LLM_SCHEMA_JSON_TRUE, p));
		}
	}
	llm_schema_json_put(made, keyword, map);
}

/* As many items as the longest of the objects' prefixItems, all true. */
static void
put_prefix(LlmSchemaCompiler *c, const LlmSchemaView *from, LlmSchemaJson *made)
{
	LlmSchemaJson *list =
		llm_schema_json_make(c->b, LLM_SCHEMA_JSON_ARRAY, made);

	for (size_t i = 0; i < from->n_objects && list != NULL; i++)
	{
		const LlmSchemaJson *own =
			llm_schema_json_get(from->objects[i], "prefixItems");

		while (own != NULL && list->n_children < own->n_children)
			llm_schema_json_put(
				list, NULL,
				llm_schema_json_make(c->b, LLM_SCHEMA_JSON_TRUE, own));
	}
	if (list != NULL && list->child != NULL)
		llm_schema_json_put(made, "prefixItems", list);
}

static const LlmSchemaJson *
make_evaluated(LlmSchemaCompiler *c, const LlmSchemaJson *keyword,
			   const LlmSchemaView *from, bool is_object)
{
	struct LlmSchemaUnevaluated *known = c->unevaluated;
	LlmSchemaJson *made;

	for (; known != NULL; known = known->next)
	{
		if (known->keyword == keyword &&
			known->from.n_objects == from->n_objects &&
			memcmp(known->from.objects, from->objects,
				   from->n_objects * sizeof(from->objects[0])) == 0)
			return known->made;
	}
	known = llm_grammar_alloc(c->b, sizeof(*known));
	made = llm_schema_json_make(c->b, LLM_SCHEMA_JSON_OBJECT, keyword);
	if (known == NULL || made == NULL)
		return NULL;
	if (is_object)
	{
		put_names(c, from, "properties", made);
		put_names(c, from, "patternProperties", made);
	}
	else
		put_prefix(c, from, made);
	llm_schema_json_put(made, is_object ? "additionalProperties" : "items",
						llm_schema_json_make_link(c->b, keyword));
	*known =
		(struct LlmSchemaUnevaluated){ keyword, *from, made, c->unevaluated };
	c->unevaluated = known;
	return made;
}

/* Does one of the objects speak of all properties, or of all items? */
static bool
is_all_evaluated(const LlmSchemaView *from, const char *rest,
				 const char *unevaluated)
{
	for (size_t i = 0; i < from->n_objects; i++)
	{
		if (llm_schema_json_get(from->objects[i], rest) != NULL ||
			(i > 0 &&
			 llm_schema_json_get(from->objects[i], unevaluated) != NULL))
			return true;
	}
	return false;
}

void
llm_schema_add_unevaluated(LlmSchemaCompiler *c, LlmSchemaView *view)
{
	static const char *const keywords[2][2] = {
		{ "items", "unevaluatedItems" },
		{ "additionalProperties", "unevaluatedProperties" },
	};
	size_t n_objects = view->n_objects;

	for (size_t i = 0; i < 2 * n_objects && !llm_grammar_failed(c->b); i++)
	{
		const char *const *names = keywords[i % 2];
		const LlmSchemaJson *keyword =
			llm_schema_json_get(view->objects[i / 2], names[1]);
		const LlmSchemaJson *made;
		LlmSchemaView from;

		if (keyword == NULL)
			continue;
		from = collect_from(view, i / 2);
		if (is_all_evaluated(&from, names[0], names[1]))
			continue;
		made = make_evaluated(c, keyword, &from, i % 2);
		if (made != NULL)
			llm_schema_add(c, view, made);
	}
}
