/*
 * grammar_container.c
 *	  Objects and arrays.
 *
 * Members come in the order of the schema's properties, optional ones may be
 * left out, additional ones come last.  Where nothing says what additional
 * properties are, there are none beside listed ones; in the same way there
 * are no items behind prefixItems.  Such answers are valid, and those that a
 * reader of the schema expects.
 *
 * src/common/grammar/grammar_container.c
 */
#include <string.h>

#include "src/common/grammar/grammar_schema.h"

LlmGrammarNodeId
llm_schema_build_mark(LlmSchemaCompiler *c, char mark, LlmGrammarNodeId next)
{
	LlmGrammarNodeId space = llm_grammar_build_bytes(c->b, ' ', ' ', next);

	return llm_grammar_build_bytes(c->b, (uint8_t) mark, (uint8_t) mark,
								   llm_grammar_build_or(c->b, space, next));
}

/* -- arrays -- */

/* A comma and an item, min to max times. */
static LlmGrammarNodeId
build_more_items(LlmSchemaCompiler *c, const LlmSchemaAll *item, uint32_t min,
				 uint32_t max, LlmGrammarNodeId next)
{
	LlmGrammarBuilder *b = c->b;
	LlmGrammarNodeId label;
	LlmGrammarNodeId node;

	if (max == 0)
		return next;
	if (max == LLM_GRAMMAR_UNBOUNDED && min <= 1)
	{
		label = llm_grammar_build_label(b);
		node = llm_schema_build_mark(c, ',', llm_schema_build(c, item, label));
		llm_grammar_set_label(b, label, llm_grammar_build_or(b, node, next));
		return min == 0 ? label : node;
	}
	node = llm_schema_build_mark(
		c, ',', llm_schema_build(c, item, llm_grammar_build_return(b)));
	return llm_grammar_build_repeat(b, node, min, max, next);
}

/* What applies to the i-th item; false: a schema "false" does. */
static bool
collect_item(LlmSchemaCompiler *c, const LlmSchemaView *view, size_t i,
			 LlmSchemaAll *all)
{
	all->n_objects = 0;
	for (size_t j = 0; j < view->n_objects; j++)
	{
		const LlmSchemaJson *prefix =
			llm_schema_json_get(view->objects[j], "prefixItems");
		const LlmSchemaJson *schema =
			llm_schema_json_get(view->objects[j], "items");
		size_t index = i;

		if (prefix != NULL && i < prefix->n_children)
		{
			for (schema = prefix->child; index > 0; index--)
				schema = schema->next;
		}
		if (schema == NULL)
			continue;
		if (schema->kind == LLM_SCHEMA_JSON_ARRAY)
			llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
							"is not supported as a list; prefixItems is",
							schema);
		if (schema->kind == LLM_SCHEMA_JSON_FALSE)
			return false;
		llm_schema_add(c, all, schema);
	}
	return true;
}

static uint32_t
count_prefix(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	size_t n = 0;

	for (size_t j = 0; j < view->n_objects; j++)
	{
		const LlmSchemaJson *prefix =
			llm_schema_json_get(view->objects[j], "prefixItems");

		if (prefix == NULL)
			continue;
		if (prefix->kind != LLM_SCHEMA_JSON_ARRAY)
			llm_schema_fail(c, LLM_ERROR_FORMAT, "must be a list", prefix);
		if (prefix->n_children > n)
			n = prefix->n_children;
	}
	return (uint32_t) n;
}

/* Behind n_prefix items, at the place where a comma or the end may come. */
static LlmGrammarNodeId
build_rest(LlmSchemaCompiler *c, const LlmSchemaView *view, uint32_t n_prefix,
		   uint32_t min, uint32_t max, LlmGrammarNodeId end)
{
	LlmGrammarBuilder *b = c->b;
	LlmSchemaAll item;
	bool allowed = collect_item(c, view, n_prefix, &item);
	LlmGrammarNodeId items;

	if (n_prefix > 0 && llm_schema_find(view, "items") == NULL)
		allowed = false;
	min = min > n_prefix ? min - n_prefix : 0;
	if (max != LLM_GRAMMAR_UNBOUNDED)
		max = max > n_prefix ? max - n_prefix : 0;
	if (!allowed || max == 0)
		return min == 0 ? end : llm_grammar_build_never(b);
	if (n_prefix > 0)
		return build_more_items(c, &item, min, max, end);
	items = build_more_items(c, &item, min > 0 ? min - 1 : 0,
							 max == LLM_GRAMMAR_UNBOUNDED ? max : max - 1, end);
	items = llm_schema_build(c, &item, items);
	return min == 0 ? llm_grammar_build_or(b, items, end) : items;
}

LlmGrammarNodeId
llm_schema_build_array(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	LlmGrammarBuilder *b = c->b;
	uint32_t min = llm_schema_count(c, view, "minItems", false);
	uint32_t max = llm_schema_count(c, view, "maxItems", true);
	uint32_t n_prefix = count_prefix(c, view);
	LlmGrammarNodeId end =
		llm_grammar_build_bytes(b, ']', ']', llm_grammar_build_return(b));
	LlmGrammarNodeId node;

	if (min > max)
		return llm_grammar_build_never(b);
	node = build_rest(c, view, n_prefix, min, max, end);
	for (uint32_t i = n_prefix; i > 0 && !llm_grammar_failed(b); i--)
	{
		LlmSchemaAll item;
		LlmGrammarNodeId more = llm_grammar_build_never(b);

		if (i <= max && collect_item(c, view, i - 1, &item))
		{
			more = llm_schema_build(c, &item, node);
			if (i > 1)
				more = llm_schema_build_mark(c, ',', more);
		}
		node = i - 1 >= min ? llm_grammar_build_or(b, more, end) : more;
	}
	return llm_grammar_build_bytes(b, '[', '[', node);
}

/* -- objects -- */

typedef struct Member
{
	const char *name;
	size_t len;
	bool required;
} Member;

typedef struct Object
{
	LlmSchemaCompiler *c;
	const LlmSchemaView *view;
	Member *members;
	size_t n_members;
	bool has_properties;
	bool has_additional; /* explicit, in any object of the view */
} Object;

static Member *
find_member(Object *o, const char *name, size_t len)
{
	for (size_t i = 0; i < o->n_members; i++)
	{
		if (o->members[i].len == len &&
			memcmp(o->members[i].name, name, len) == 0)
			return &o->members[i];
	}
	o->members[o->n_members] = (Member){ name, len, false };
	return &o->members[o->n_members++];
}

static void
collect_members(Object *o)
{
	LlmSchemaCompiler *c = o->c;
	size_t n = 0;

	for (size_t i = 0; i < o->view->n_objects; i++)
	{
		const LlmSchemaJson *object = o->view->objects[i];
		const LlmSchemaJson *list = llm_schema_json_get(object, "properties");

		if (list != NULL && list->kind != LLM_SCHEMA_JSON_OBJECT)
			llm_schema_fail(c, LLM_ERROR_FORMAT, "must be an object", list);
		n += list != NULL ? list->n_children : 0;
		list = llm_schema_json_get(object, "required");
		n += list != NULL ? list->n_children : 0;
	}
	o->members = llm_grammar_alloc(c->b, (n + 1) * sizeof(Member));
	for (size_t i = 0; i < o->view->n_objects && o->members != NULL; i++)
	{
		const LlmSchemaJson *list =
			llm_schema_json_get(o->view->objects[i], "properties");

		o->has_properties = o->has_properties || list != NULL;
		for (const LlmSchemaJson *p = list != NULL ? list->child : NULL;
			 p != NULL; p = p->next)
			find_member(o, p->key, p->key_len);
		if (llm_schema_json_get(o->view->objects[i], "additionalProperties") !=
			NULL)
			o->has_additional = true;
	}
	for (size_t i = 0; i < o->view->n_objects && !llm_grammar_failed(c->b); i++)
	{
		const LlmSchemaJson *list =
			llm_schema_json_get(o->view->objects[i], "required");

		for (const LlmSchemaJson *p = list != NULL ? list->child : NULL;
			 p != NULL; p = p->next)
		{
			if (p->kind != LLM_SCHEMA_JSON_STRING)
				llm_schema_fail(c, LLM_ERROR_FORMAT, "must be a list of names",
								list);
			else
				find_member(o, p->text, p->text_len)->required = true;
		}
	}
}

/* What applies to a member (NULL: an additional one); false: none may be. */
static bool
collect_member(Object *o, const Member *member, LlmSchemaAll *all)
{
	all->n_objects = 0;
	for (size_t i = 0; i < o->view->n_objects; i++)
	{
		const LlmSchemaJson *object = o->view->objects[i];
		const LlmSchemaJson *list = llm_schema_json_get(object, "properties");
		const LlmSchemaJson *schema =
			member != NULL && list != NULL
				? llm_schema_json_get_len(list, member->name, member->len)
				: NULL;

		if (schema == NULL)
			schema = llm_schema_json_get(object, "additionalProperties");
		if (schema == NULL)
			continue;
		if (schema->kind == LLM_SCHEMA_JSON_FALSE)
			return false;
		llm_schema_add(o->c, all, schema);
	}
	return true;
}

static LlmGrammarNodeId
build_member(Object *o, const Member *member, const LlmSchemaAll *all,
			 LlmGrammarNodeId next)
{
	LlmStrbuf key = { 0 };
	LlmGrammarNodeId node =
		llm_schema_build_mark(o->c, ':', llm_schema_build(o->c, all, next));

	llm_schema_json_write_string(member->name, member->len, &key);
	node = llm_grammar_build_text(o->c->b, llm_strbuf_str(&key), key.len, node);
	llm_strbuf_free(&key);
	return node;
}

/* A name that is not listed, and its value. */
static LlmGrammarNodeId
build_additional(Object *o, const LlmSchemaAll *all, LlmGrammarNodeId next)
{
	LlmGrammarToken *names =
		llm_grammar_alloc(o->c->b, (o->n_members + 1) * sizeof(*names));

	if (names == NULL)
		return 0;
	for (size_t i = 0; i < o->n_members; i++)
		names[i] = (LlmGrammarToken){ o->members[i].name, o->members[i].len };
	return llm_schema_build_other_string(
		o->c, names, o->n_members,
		llm_schema_build_mark(o->c, ':', llm_schema_build(o->c, all, next)));
}

/* Counts that the members themselves do not settle are refused. */
static void
check_counts(Object *o, bool is_open)
{
	uint32_t min = llm_schema_count(o->c, o->view, "minProperties", false);
	uint32_t max = llm_schema_count(o->c, o->view, "maxProperties", true);
	size_t n_required = 0;

	for (size_t i = 0; i < o->n_members; i++)
		n_required += o->members[i].required;
	if (min > n_required && !(o->n_members == 0 && min == 1))
		llm_schema_fail(o->c, LLM_ERROR_UNSUPPORTED,
						"is supported for as many properties as are required",
						llm_schema_find(o->view, "minProperties"));
	if (max != LLM_GRAMMAR_UNBOUNDED &&
		(is_open ? o->n_members > 0 : max < o->n_members))
		llm_schema_fail(o->c, LLM_ERROR_UNSUPPORTED,
						"is supported without listed properties, or where it "
						"covers them all",
						llm_schema_find(o->view, "maxProperties"));
}

/* Only additional members, counted. */
static LlmGrammarNodeId
build_map(Object *o, const LlmSchemaAll *all, LlmGrammarNodeId end)
{
	LlmGrammarBuilder *b = o->c->b;
	uint32_t min = llm_schema_count(o->c, o->view, "minProperties", false);
	uint32_t max = llm_schema_count(o->c, o->view, "maxProperties", true);
	LlmGrammarNodeId more;
	LlmGrammarNodeId first;

	if (max == 0)
		return min == 0 ? end : llm_grammar_build_never(b);
	if (max == LLM_GRAMMAR_UNBOUNDED)
	{
		more = llm_grammar_build_label(b);
		first = build_additional(o, all, more);
		llm_grammar_set_label(
			b, more,
			llm_grammar_build_or(b, llm_schema_build_mark(o->c, ',', first),
								 end));
	}
	else
	{
		more = llm_schema_build_mark(
			o->c, ',', build_additional(o, all, llm_grammar_build_return(b)));
		first = build_additional(
			o, all, llm_grammar_build_repeat(b, more, 0, max - 1, end));
	}
	return min == 0 ? llm_grammar_build_or(b, first, end) : first;
}

/*
 * Listed members from the last to the first: "behind" is what may come where
 * a member has come before, "at_start" where none has.
 */
static LlmGrammarNodeId
build_members(Object *o, bool is_open, const LlmSchemaAll *additional,
			  LlmGrammarNodeId end)
{
	LlmGrammarBuilder *b = o->c->b;
	LlmGrammarNodeId behind = end;
	LlmGrammarNodeId at_start = end;

	if (is_open)
	{
		behind = llm_grammar_build_label(b);
		at_start = build_additional(o, additional, behind);
		llm_grammar_set_label(
			b, behind,
			llm_grammar_build_or(b, llm_schema_build_mark(o->c, ',', at_start),
								 end));
		at_start = llm_grammar_build_or(b, at_start, end);
	}
	for (size_t i = o->n_members; i > 0 && !llm_grammar_failed(b); i--)
	{
		const Member *member = &o->members[i - 1];
		LlmSchemaAll all;
		LlmGrammarNodeId node = llm_grammar_build_never(b);
		LlmGrammarNodeId later = node;

		if (collect_member(o, member, &all))
		{
			node = build_member(o, member, &all, behind);
			later = llm_schema_build_mark(o->c, ',', node);
		}
		else if (!member->required)
			continue;
		behind =
			member->required ? later : llm_grammar_build_or(b, later, behind);
		at_start =
			member->required ? node : llm_grammar_build_or(b, node, at_start);
	}
	return at_start;
}

LlmGrammarNodeId
llm_schema_build_object(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	LlmGrammarBuilder *b = c->b;
	Object o = { .c = c, .view = view };
	LlmGrammarNodeId end =
		llm_grammar_build_bytes(b, '}', '}', llm_grammar_build_return(b));
	LlmSchemaAll additional;
	bool is_open;

	collect_members(&o);
	is_open = collect_member(&o, NULL, &additional) &&
			  (o.has_additional || !o.has_properties);
	check_counts(&o, is_open);
	if (llm_grammar_failed(b))
		return 0;
	return llm_grammar_build_bytes(
		b, '{', '{',
		o.n_members == 0 && is_open
			? build_map(&o, &additional, end)
			: build_members(&o, is_open, &additional, end));
}
