/*
 * grammar_array.c
 *	  Arrays.
 *
 * Behind prefixItems there are no items where nothing says what they are.
 * Such answers are valid, and those that a reader of the schema expects.
 *
 * An array that contains so many of something is an automaton over its items,
 * whose states are counts.  Items that must differ are known where they are
 * values of a list: each is there or not, in the order of the list.
 *
 * src/common/grammar/grammar_array.c
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

/* What applies to the i-th item; false: there is none. */
static bool
collect_item(LlmSchemaCompiler *c, const LlmSchemaView *view, size_t i,
			 LlmSchemaAll *all)
{
	bool is_listed = false; /* by prefixItems of the source */
	size_t n_listed = 0;
	bool has_items = false;

	all->n_objects = 0;
	for (size_t j = 0; j < view->n_objects; j++)
	{
		const LlmSchemaJson *prefix =
			llm_schema_json_get(view->objects[j], "prefixItems");
		const LlmSchemaJson *schema =
			llm_schema_json_get(view->objects[j], "items");
		size_t index = i;

		has_items = has_items || schema != NULL;
		if (prefix != NULL && !view->objects[j]->is_made)
			is_listed = true;
		if (prefix != NULL && prefix->n_children > n_listed)
			n_listed = prefix->n_children;

		if (prefix != NULL && i < prefix->n_children)
		{
			for (schema = prefix->child; index > 0; index--)
				schema = schema->next;
		}
		if (schema == NULL)
			continue;
		schema = llm_schema_json_follow(schema);
		if (schema->kind == LLM_SCHEMA_JSON_ARRAY)
			llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
							"is not supported as a list; prefixItems is",
							schema);
		if (schema->kind == LLM_SCHEMA_JSON_FALSE)
			return false;
		llm_schema_add(c, all, schema);
	}
	return i < n_listed || !is_listed || has_items;
}

static uint32_t
count_prefix(const LlmSchemaView *view)
{
	size_t n = 0;

	for (size_t j = 0; j < view->n_objects; j++)
	{
		const LlmSchemaJson *prefix =
			llm_schema_json_get(view->objects[j], "prefixItems");

		if (prefix == NULL)
			continue;
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

/* Items one after another, those of prefixItems and others. */
static LlmGrammarNodeId
build_plain(LlmSchemaCompiler *c, const LlmSchemaView *view, uint32_t min,
			uint32_t max, LlmGrammarNodeId end)
{
	LlmGrammarBuilder *b = c->b;
	uint32_t n_prefix = count_prefix(view);
	LlmGrammarNodeId node = build_rest(c, view, n_prefix, min, max, end);

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
	return node;
}

/* -- contains -- */

#define MAX_CONTAINED 3
#define MAX_STATES 1024u

/* So many items of a kind. */
typedef struct Contained
{
	const LlmSchemaJson *schema;
	uint32_t min;
	uint32_t max;
	uint32_t cap;  /* more are not told apart */
	uint32_t unit; /* what one more adds to a state's number */
} Contained;

typedef struct Counted
{
	LlmSchemaCompiler *c;
	const LlmSchemaView *view;
	Contained items; /* all of them */
	Contained kinds[MAX_CONTAINED];
	uint32_t n_kinds;
	uint32_t n_states;
	LlmGrammarNodeId *labels; /* [n_states]; 0: not reached */
	uint32_t *queue;
	uint32_t n_queued;
} Counted;

static uint32_t
count_of(const Contained *kind, uint32_t state)
{
	return state / kind->unit % (kind->cap + 1);
}

static bool
add_one(const Contained *kind, uint32_t *state)
{
	uint32_t n = count_of(kind, *state);

	if (n >= kind->max)
		return false;
	if (n < kind->cap)
		*state += kind->unit;
	return true;
}

static LlmGrammarNodeId
label_of(Counted *counted, uint32_t state)
{
	if (counted->labels[state] == 0)
	{
		counted->labels[state] = llm_grammar_build_label(counted->c->b);
		counted->queue[counted->n_queued++] = state;
	}
	return counted->labels[state];
}

/* An item that is of the kinds of a set, and of no others that are limited. */
static LlmGrammarNodeId
build_counted_item(Counted *counted, uint32_t state, uint32_t kinds)
{
	LlmSchemaCompiler *c = counted->c;
	uint32_t n_items = count_of(&counted->items, state);
	uint32_t next = state;
	LlmGrammarNodeId node;
	LlmSchemaAll all;

	if (!add_one(&counted->items, &next) ||
		!collect_item(c, counted->view, n_items, &all))
		return 0;
	for (uint32_t i = 0; i < counted->n_kinds; i++)
	{
		const Contained *kind = &counted->kinds[i];
		bool is_free = kind->max == LLM_GRAMMAR_UNBOUNDED;

		if (kinds & 1u << i)
		{
			if ((is_free && count_of(kind, state) >= kind->min) ||
				!add_one(kind, &next))
				return 0;
			llm_schema_add(c, &all, kind->schema);
		}
		else if (!is_free)
			llm_schema_add(c, &all, llm_schema_negate(c, kind->schema));
	}
	if (llm_grammar_failed(c->b))
		return 0;
	node = llm_schema_build(c, &all, label_of(counted, next));
	return n_items == 0 ? node : llm_schema_build_mark(c, ',', node);
}

static LlmGrammarNodeId
build_counted_state(Counted *counted, uint32_t state, LlmGrammarNodeId end)
{
	LlmGrammarBuilder *b = counted->c->b;
	LlmGrammarNodeId targets[(1 << MAX_CONTAINED) + 1];
	bool may_end = count_of(&counted->items, state) >= counted->items.min;
	size_t n = 0;

	for (uint32_t i = 0; i < counted->n_kinds; i++)
		may_end = may_end &&
				  count_of(&counted->kinds[i], state) >= counted->kinds[i].min;
	if (may_end)
		targets[n++] = end;
	for (uint32_t kinds = 0; kinds < 1u << counted->n_kinds; kinds++)
	{
		LlmGrammarNodeId node = build_counted_item(counted, state, kinds);

		if (node != 0)
			targets[n++] = node;
	}
	return llm_grammar_build_split(b, targets, n);
}

static void
add_kind(Counted *counted, Contained *kind, uint32_t at_least)
{
	kind->cap = kind->max != LLM_GRAMMAR_UNBOUNDED ? kind->max : kind->min;
	if (kind->cap < at_least)
		kind->cap = at_least;
	kind->unit = counted->n_states;
	if (kind->cap < MAX_STATES)
		counted->n_states *= kind->cap + 1;
	else
		counted->n_states = MAX_STATES + 1;
}

/* What each object's contains asks for. */
static void
collect_kinds(Counted *counted)
{
	LlmSchemaCompiler *c = counted->c;

	for (size_t i = 0; i < counted->view->n_objects; i++)
	{
		const LlmSchemaView own = { .objects = { counted->view->objects[i] },
									.n_objects = 1 };
		const LlmSchemaJson *schema = llm_schema_find(&own, "contains");
		Contained *kind = &counted->kinds[counted->n_kinds];

		if (schema == NULL)
			continue;
		if (counted->n_kinds == MAX_CONTAINED)
		{
			llm_schema_fail(c, LLM_ERROR_LIMIT,
							"applies to an array with more than two others",
							schema);
			return;
		}
		kind->schema = schema;
		kind->min = llm_schema_find(&own, "minContains") == NULL
						? 1
						: llm_schema_count(c, &own, "minContains", false);
		kind->max = llm_schema_count(c, &own, "maxContains", true);
		add_kind(counted, kind, 0);
		counted->n_kinds++;
		if (counted->n_states > MAX_STATES)
			llm_schema_fail(c, LLM_ERROR_LIMIT,
							"makes an automaton of more than 1024 states, with "
							"the other bounds of the array",
							schema);
	}
}

static LlmGrammarNodeId
build_counted(LlmSchemaCompiler *c, const LlmSchemaView *view, uint32_t min,
			  uint32_t max, LlmGrammarNodeId end)
{
	Counted counted = { .c = c, .view = view, .n_states = 1 };
	LlmGrammarNodeId start;

	counted.items.min = min;
	counted.items.max = max;
	add_kind(&counted, &counted.items, count_prefix(view) + 1);
	collect_kinds(&counted);
	if (llm_grammar_failed(c->b))
		return 0;
	counted.labels =
		llm_grammar_alloc(c->b, counted.n_states * sizeof(*counted.labels));
	counted.queue =
		llm_grammar_alloc(c->b, counted.n_states * sizeof(*counted.queue));
	if (llm_grammar_failed(c->b))
		return 0;
	start = label_of(&counted, 0);
	for (uint32_t i = 0; i < counted.n_queued && !llm_grammar_failed(c->b); i++)
		llm_grammar_set_label(
			c->b, counted.labels[counted.queue[i]],
			build_counted_state(&counted, counted.queue[i], end));
	return start;
}

/* -- uniqueItems -- */

static const LlmSchemaJson *
find_unique(const LlmSchemaView *view)
{
	for (size_t i = 0; i < view->n_objects; i++)
	{
		const LlmSchemaJson *unique =
			llm_schema_json_get(view->objects[i], "uniqueItems");

		if (unique != NULL && unique->kind == LLM_SCHEMA_JSON_TRUE)
			return unique;
	}
	return NULL;
}

typedef struct Values
{
	const LlmSchemaJson *items[LLM_SCHEMA_MAX_ALTERNATIVES];
	size_t n_items;
} Values;

static bool
add_value(LlmSchemaCompiler *c, Values *values, const LlmSchemaView *view,
		  const LlmSchemaJson *value)
{
	for (size_t i = 0; i < values->n_items; i++)
	{
		if (llm_schema_json_equal(values->items[i], value))
			return true;
	}
	if (!llm_schema_view_holds(c, view, value, true))
		return true;
	if (values->n_items == LLM_SCHEMA_MAX_ALTERNATIVES)
		return false;
	values->items[values->n_items++] = value;
	return true;
}

/* All values of a view; false: it has not only listed ones. */
static bool
add_values(LlmSchemaCompiler *c, Values *values, const LlmSchemaView *view)
{
	static const LlmSchemaJson literals[] = {
		{ .kind = LLM_SCHEMA_JSON_NULL },
		{ .kind = LLM_SCHEMA_JSON_FALSE },
		{ .kind = LLM_SCHEMA_JSON_TRUE },
	};
	const LlmSchemaJson *only = llm_schema_find(view, "const");
	const LlmSchemaJson *list = llm_schema_find(view, "enum");
	bool ok = true;

	if (only != NULL)
		return add_value(c, values, view, only);
	if (list != NULL)
	{
		for (const LlmSchemaJson *value = list->child; value != NULL && ok;
			 value = value->next)
			ok = add_value(c, values, view, value);
		return ok;
	}
	if (llm_schema_generated_types(c, view) &
		~(uint32_t) (LLM_SCHEMA_NULL | LLM_SCHEMA_BOOLEAN))
		return false;
	for (size_t i = 0; i < 3 && ok; i++)
		ok = add_value(c, values, view, &literals[i]);
	return ok;
}

/* From the last value to the first: [n], the node where n items are there. */
static LlmGrammarNodeId
build_chosen(LlmSchemaCompiler *c, const Values *values, uint32_t min,
			 uint32_t max, LlmGrammarNodeId end)
{
	LlmGrammarBuilder *b = c->b;
	size_t n_values = values->n_items;
	LlmGrammarNodeId *nodes =
		llm_grammar_alloc(b, (n_values + 1) * sizeof(*nodes));

	for (size_t n = 0; n <= n_values && nodes != NULL; n++)
		nodes[n] = n >= min && n <= max ? end : llm_grammar_build_never(b);
	for (size_t i = n_values; i > 0 && !llm_grammar_failed(b); i--)
	{
		LlmStrbuf text = { 0 };

		llm_schema_json_write(values->items[i - 1], &text);
		for (size_t n = 0; n < i; n++)
		{
			LlmGrammarNodeId taken = llm_grammar_build_text(
				b, llm_strbuf_str(&text), text.len, nodes[n + 1]);

			if (n > 0)
				taken = llm_schema_build_mark(c, ',', taken);
			nodes[n] = llm_grammar_build_or(b, taken, nodes[n]);
		}
		llm_strbuf_free(&text);
	}
	return nodes == NULL ? 0 : nodes[0];
}

static LlmGrammarNodeId
build_unique(LlmSchemaCompiler *c, const LlmSchemaView *view, uint32_t min,
			 uint32_t max, LlmGrammarNodeId end)
{
	const LlmSchemaJson *unique = find_unique(view);
	Values values = { .n_items = 0 };
	LlmSchemaViews views;
	LlmSchemaAll item;
	bool ok =
		count_prefix(view) == 0 && llm_schema_find(view, "contains") == NULL;

	if (ok && collect_item(c, view, 0, &item) &&
		llm_schema_expand(c, &item, &views))
	{
		for (size_t i = 0; i < views.n_views && ok; i++)
			ok = add_values(c, &values, &views.views[i]);
	}
	if (!ok)
		return llm_schema_fail(c, LLM_ERROR_UNSUPPORTED,
							   "is supported for items of an enum only",
							   unique);
	return build_chosen(c, &values, min, max, end);
}

LlmGrammarNodeId
llm_schema_build_array(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	LlmGrammarBuilder *b = c->b;
	uint32_t min = llm_schema_count(c, view, "minItems", false);
	uint32_t max = llm_schema_count(c, view, "maxItems", true);
	LlmGrammarNodeId end =
		llm_grammar_build_bytes(b, ']', ']', llm_grammar_build_return(b));
	LlmGrammarNodeId node;

	if (min > max)
		return llm_grammar_build_never(b);
	if (find_unique(view) != NULL && max > 1)
		node = build_unique(c, view, min, max, end);
	else if (llm_schema_find(view, "contains") != NULL)
		node = build_counted(c, view, min, max, end);
	else
		node = build_plain(c, view, min, max, end);
	return llm_grammar_build_bytes(b, '[', '[', node);
}
