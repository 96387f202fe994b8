/*
 * grammar_exclude.c
 *	  Views that no value satisfies, and schemas that exclude each other.
 *
 * Two schemas exclude each other when every view of both together is empty.
 * A view is empty when it is so for each type: by bounds, by a language of
 * strings without texts, by a property that must be there and may have no
 * value.  What is not seen here is taken for possible.
 *
 * src/common/grammar/grammar_exclude.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/grammar/grammar_schema.h"

#define NUMERIC (LLM_SCHEMA_INTEGER | LLM_SCHEMA_NUMBER)

/* Properties within properties that are looked at. */
#define MAX_DEPTH 4

/* Is no value of a list possible? */
static bool
has_no_listed(LlmSchemaCompiler *c, const LlmSchemaView *view,
			  const LlmSchemaJson *list, bool is_enum)
{
	for (const LlmSchemaJson *value = is_enum ? list->child : list;
		 value != NULL; value = is_enum ? value->next : NULL)
	{
		if (llm_schema_view_holds(c, view, value, false))
			return false;
	}
	return true;
}

static bool
has_no_array(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	return llm_schema_count(c, view, "minItems", false) >
		   llm_schema_count(c, view, "maxItems", true);
}

static bool
has_no_type(LlmSchemaCompiler *c, const LlmSchemaView *view, uint32_t types,
			int depth)
{
	if (types & (LLM_SCHEMA_NULL | LLM_SCHEMA_BOOLEAN))
		return false;
	if ((types & NUMERIC) && !llm_schema_has_no_number(c, view))
		return false;
	if ((types & LLM_SCHEMA_ARRAY) && !has_no_array(c, view))
		return false;
	if ((types & LLM_SCHEMA_OBJECT) &&
		!llm_schema_has_no_object(c, view, depth))
		return false;
	return !(types & LLM_SCHEMA_STRING) || llm_schema_has_no_string(c, view);
}

bool
llm_schema_is_empty(LlmSchemaCompiler *c, const LlmSchemaView *view, int depth)
{
	uint32_t types = llm_schema_types(c, view);
	const LlmSchemaJson *only = llm_schema_find(view, "const");
	const LlmSchemaJson *list = llm_schema_find(view, "enum");

	if (types == 0 || llm_grammar_failed(c->b))
		return true;
	if (only != NULL)
		return has_no_listed(c, view, only, false);
	if (list != NULL)
		return has_no_listed(c, view, list, true);
	return depth < MAX_DEPTH && has_no_type(c, view, types, depth);
}

bool
llm_schema_are_empty(LlmSchemaCompiler *c, const LlmSchemaAll *all, int depth)
{
	LlmSchemaViews views;

	if (depth >= MAX_DEPTH || !llm_schema_probe(c, all, &views))
		return false;
	for (size_t i = 0; i < views.n_views; i++)
	{
		if (!llm_schema_is_empty(c, &views.views[i], depth))
			return false;
	}
	return true;
}

/* -- oneOf -- */

/* Which branches exclude which, found once for each oneOf. */
struct LlmSchemaChecked
{
	const LlmSchemaJson *one_of;
	size_t n;
	bool *excludes; /* [n, n]; NULL: on the way */
	struct LlmSchemaChecked *next;
};

static bool
exclude(LlmSchemaCompiler *c, const LlmSchemaJson *left,
		const LlmSchemaJson *right)
{
	LlmSchemaAll both = { .n_objects = 0 };

	left = llm_schema_json_follow(left);
	right = llm_schema_json_follow(right);
	llm_schema_add(c, &both, left);
	llm_schema_add(c, &both, right);
	return llm_schema_are_empty(c, &both, 0);
}

static struct LlmSchemaChecked *
check(LlmSchemaCompiler *c, const LlmSchemaJson *one_of)
{
	struct LlmSchemaChecked *checked =
		llm_grammar_alloc(c->b, sizeof(*checked));
	size_t n = one_of->n_children;
	bool *excludes = llm_grammar_alloc(c->b, n * n * sizeof(bool));
	const LlmSchemaJson *left = one_of->child;

	if (checked == NULL || excludes == NULL)
		return NULL;
	/* known before it is done: a recursive schema comes back to it */
	*checked = (struct LlmSchemaChecked){ one_of, n, NULL, c->checked };
	c->checked = checked;
	for (size_t i = 0; i < n; i++, left = left->next)
	{
		const LlmSchemaJson *right = left->next;

		for (size_t j = i + 1; j < n && !llm_grammar_failed(c->b);
			 j++, right = right->next)
		{
			excludes[i * n + j] = exclude(c, left, right);
			excludes[j * n + i] = excludes[i * n + j];
		}
	}
	checked->excludes = excludes;
	return checked;
}

static size_t
index_of(const LlmSchemaJson *list, const LlmSchemaJson *member)
{
	size_t i = 0;

	for (const LlmSchemaJson *other = list->child; other != member;
		 other = other->next)
		i++;
	return i;
}

bool
llm_schema_is_exclusive(LlmSchemaCompiler *c, const LlmSchemaJson *one_of,
						const LlmSchemaJson *left, const LlmSchemaJson *right)
{
	struct LlmSchemaChecked *checked = c->checked;

	while (checked != NULL && checked->one_of != one_of)
		checked = checked->next;
	if (checked == NULL)
		checked = check(c, one_of);
	/* on the way it is only asked what may be: more than there is will do */
	return checked == NULL || checked->excludes == NULL ||
		   checked->excludes[index_of(one_of, left) * checked->n +
							 index_of(one_of, right)];
}
