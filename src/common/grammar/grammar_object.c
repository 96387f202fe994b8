/*
 * grammar_object.c
 *	  Objects.
 *
 * Members come in the order of the schema's properties, optional ones may be
 * left out, others come last.  Where nothing says what additional properties
 * are, there are none beside listed ones and those of patternProperties.  Such
 * answers are valid, and those that a reader of the schema expects.
 *
 * Names that are not listed are told apart by the patterns that they match:
 * each set of patterns is a kind of names, a regular language of its own, and
 * has its own schemas.
 *
 * src/common/grammar/grammar_object.c
 */
#include <stdio.h>
#include <string.h>

#include "src/common/grammar/grammar_schema.h"

#define MAX_PATTERNS 5

typedef struct Member
{
	const char *name;
	size_t len;
	bool required;
} Member;

/* Names that match some of the patterns and none of the others. */
typedef struct Kind
{
	LlmGrammarNodeId name; /* the node behind the opening quote */
	LlmSchemaAll all;	   /* what applies to the value */
} Kind;

typedef struct Object
{
	LlmSchemaCompiler *c;
	const LlmSchemaView *view;
	Member *members;
	size_t n_members;
	const LlmSchemaJson *patterns[MAX_PATTERNS]; /* of different texts */
	size_t n_patterns;
	bool has_names;		 /* propertyNames */
	bool has_properties; /* of the source */
	bool has_additional; /* explicit, in any object of the view */
	bool sure;			 /* false: whatever may be, for proofs */
	Kind *kinds;
	size_t n_kinds;
	uint32_t min;
	uint32_t max;
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
add_pattern(Object *o, const LlmSchemaJson *pattern)
{
	for (size_t i = 0; i < o->n_patterns; i++)
	{
		if (strcmp(o->patterns[i]->key, pattern->key) == 0)
			return;
	}
	if (o->n_patterns == MAX_PATTERNS)
		llm_schema_fail(o->c, LLM_ERROR_LIMIT,
						"has more than 5 patterns for one object",
						pattern->parent);
	else
		o->patterns[o->n_patterns++] = pattern;
}

/* Members of one object of the view, required ones still to come. */
static void
collect_listed(Object *o, const LlmSchemaJson *object)
{
	const LlmSchemaJson *list = llm_schema_json_get(object, "properties");
	const LlmSchemaJson *patterns =
		llm_schema_json_get(object, "patternProperties");

	o->has_properties = o->has_properties || (list != NULL && !object->is_made);
	for (const LlmSchemaJson *p = list != NULL ? list->child : NULL; p != NULL;
		 p = p->next)
		find_member(o, p->key, p->key_len);
	for (const LlmSchemaJson *p = patterns != NULL ? patterns->child : NULL;
		 p != NULL && !llm_grammar_failed(o->c->b); p = p->next)
		add_pattern(o, p);
	if (llm_schema_json_get(object, "additionalProperties") != NULL)
		o->has_additional = true;
	if (llm_schema_json_get(object, "propertyNames") != NULL)
		o->has_names = true;
}

static void
collect_required(Object *o, const LlmSchemaJson *object)
{
	const LlmSchemaJson *list = llm_schema_json_get(object, "required");

	for (const LlmSchemaJson *p = list != NULL ? list->child : NULL; p != NULL;
		 p = p->next)
		find_member(o, p->text, p->text_len)->required = true;
}

static bool
collect_members(Object *o)
{
	LlmSchemaCompiler *c = o->c;
	size_t n = 0;

	for (size_t i = 0; i < o->view->n_objects; i++)
	{
		const LlmSchemaJson *object = o->view->objects[i];
		const LlmSchemaJson *list = llm_schema_json_get(object, "properties");

		n += list != NULL ? list->n_children : 0;
		list = llm_schema_json_get(object, "required");
		n += list != NULL ? list->n_children : 0;
	}
	o->members = llm_grammar_alloc(c->b, (n + 1) * sizeof(Member));
	if (o->members == NULL)
		return false;
	for (size_t i = 0; i < o->view->n_objects; i++)
		collect_listed(o, o->view->objects[i]);
	for (size_t i = 0; i < o->view->n_objects && !llm_grammar_failed(c->b); i++)
		collect_required(o, o->view->objects[i]);
	o->min = llm_schema_count(c, o->view, "minProperties", false);
	o->max = llm_schema_count(c, o->view, "maxProperties", true);
	return !llm_grammar_failed(c->b);
}

/* Add a schema; false: it is "false". */
static bool
add_schema(Object *o, LlmSchemaAll *all, const LlmSchemaJson *schema)
{
	schema = llm_schema_json_follow(schema);
	if (schema->kind == LLM_SCHEMA_JSON_FALSE)
		return false;
	llm_schema_add(o->c, all, schema);
	return true;
}

/*
 * What one object of the view says about the value of a name: a member's, or,
 * where it is NULL, one that matches the patterns of a set.  false: there is
 * no such value.
 */
static bool
collect_own(Object *o, const LlmSchemaJson *object, const Member *member,
			uint32_t patterns, LlmSchemaAll *all)
{
	const LlmSchemaJson *list = llm_schema_json_get(object, "properties");
	const LlmSchemaJson *own = llm_schema_json_get(object, "patternProperties");
	const LlmSchemaJson *additional =
		llm_schema_json_get(object, "additionalProperties");
	bool is_listed = false;

	if (member != NULL && list != NULL &&
		llm_schema_json_get_len(list, member->name, member->len) != NULL)
	{
		is_listed = true;
		if (!add_schema(
				o, all,
				llm_schema_json_get_len(list, member->name, member->len)))
			return false;
	}
	for (size_t i = 0; i < o->n_patterns && own != NULL; i++)
	{
		const LlmSchemaJson *schema = llm_schema_json_get_len(
			own, o->patterns[i]->key, o->patterns[i]->key_len);

		if (schema == NULL || !(patterns & 1u << i))
			continue;
		is_listed = true;
		if (!add_schema(o, all, schema))
			return false;
	}
	return is_listed || additional == NULL || add_schema(o, all, additional);
}

/* Does a name satisfy all propertyNames? */
static bool
is_name_allowed(Object *o, const Member *member)
{
	LlmSchemaJson name = { .kind = LLM_SCHEMA_JSON_STRING,
						   .text = member->name,
						   .text_len = member->len };

	for (size_t i = 0; i < o->view->n_objects && o->has_names; i++)
	{
		const LlmSchemaJson *names =
			llm_schema_json_get(o->view->objects[i], "propertyNames");

		if (names != NULL && !llm_schema_holds(o->c, names, &name, o->sure))
			return false;
	}
	return true;
}

/* What applies to a listed member; false: it cannot be there. */
static bool
collect_member(Object *o, const Member *member, LlmSchemaAll *all)
{
	uint32_t patterns = 0;

	all->n_objects = 0;
	for (size_t i = 0; i < o->n_patterns; i++)
	{
		if (llm_schema_is_name(o->c, o->patterns[i], member->name, member->len))
			patterns |= 1u << i;
	}
	if (!is_name_allowed(o, member))
		return false;
	for (size_t i = 0; i < o->view->n_objects; i++)
	{
		if (!collect_own(o, o->view->objects[i], member, patterns, all))
			return false;
	}
	return true;
}

/* -- names that are not listed -- */

/* All members' names, as one pattern. */
static LlmPattern *
create_listed(Object *o)
{
	LlmPattern *choice = llm_pattern_create(o->c->b, LLM_PATTERN_CHOICE);

	for (size_t i = 0; i < o->n_members; i++)
		llm_pattern_add(o->c->b, choice,
						llm_pattern_create_literal(o->c->b, o->members[i].name,
												   o->members[i].len));
	return choice;
}

/* What the objects' propertyNames leave, as views of a string. */
static bool
expand_names(Object *o, LlmSchemaViews *views)
{
	LlmSchemaAll all = { .n_objects = 0 };

	for (size_t i = 0; i < o->view->n_objects; i++)
	{
		const LlmSchemaJson *names =
			llm_schema_json_get(o->view->objects[i], "propertyNames");

		if (names != NULL)
			llm_schema_add(o->c, &all, names);
	}
	return llm_schema_expand(o->c, &all, views);
}

/* Names of one view that match the patterns of a set and no others. */
static LlmGrammarNodeId
build_name(Object *o, const LlmSchemaView *names, uint32_t patterns)
{
	LlmSchemaCompiler *c = o->c;
	LlmLanguageTerms terms;
	const LlmLanguage *language;

	if (!(llm_schema_types(c, names) & LLM_SCHEMA_STRING))
		return llm_grammar_build_never(c->b);
	llm_schema_collect_text(c, names, LLM_SCHEMA_BRIEF, &terms);
	for (size_t i = 0; i < o->n_patterns; i++)
		llm_schema_add_term(c, &terms, llm_schema_parse_name(c, o->patterns[i]),
							!(patterns & 1u << i));
	llm_schema_add_listed(c, &terms, names);
	if (o->n_members > 0)
		llm_schema_add_term(c, &terms, create_listed(o), true);
	language = llm_grammar_failed(c->b)
				   ? NULL
				   : llm_schema_create_language(c, &terms, o->view);
	return language == NULL ? 0 : llm_schema_build_language(c, language);
}

/* A kind of names, unless there are none or they may have no value. */
static void
add_kind(Object *o, uint32_t patterns, const LlmSchemaViews *names)
{
	LlmGrammarBuilder *b = o->c->b;
	Kind *kind = &o->kinds[o->n_kinds];
	LlmGrammarNodeId targets[LLM_SCHEMA_MAX_ALTERNATIVES];
	bool allowed = true;

	kind->all.n_objects = 0;
	for (size_t i = 0; i < o->view->n_objects && allowed; i++)
		allowed =
			collect_own(o, o->view->objects[i], NULL, patterns, &kind->all);
	if (!allowed)
		return;
	for (size_t i = 0; i < names->n_views && !llm_grammar_failed(b); i++)
		targets[i] = build_name(o, &names->views[i], patterns);
	if (llm_grammar_failed(b))
		return;
	kind->name = llm_grammar_build_split(b, targets, names->n_views);
	if (kind->name != llm_grammar_build_never(b))
		o->n_kinds++;
}

static void
collect_kinds(Object *o)
{
	LlmGrammarBuilder *b = o->c->b;
	bool is_open =
		o->has_additional || (!o->has_properties && o->n_patterns == 0);
	LlmSchemaViews names;
	LlmSchemaView any = { .n_objects = 0 };

	o->kinds =
		llm_grammar_alloc(b, ((size_t) 1 << o->n_patterns) * sizeof(Kind));
	if (o->kinds == NULL)
		return;
	if (o->n_patterns == 0 && !o->has_names)
	{
		/* the usual case needs no automata */
		Kind *kind = &o->kinds[0];
		bool allowed = is_open;

		for (size_t i = 0; i < o->view->n_objects && allowed; i++)
			allowed = collect_own(o, o->view->objects[i], NULL, 0, &kind->all);
		o->n_kinds = allowed;
		return;
	}
	names = (LlmSchemaViews){ &any, 1 };
	if (o->has_names && !expand_names(o, &names))
		return;
	for (uint32_t patterns = is_open ? 0 : 1; patterns < 1u << o->n_patterns;
		 patterns++)
		add_kind(o, patterns, &names);
}

/* -- nodes -- */

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

/* A name of a kind, and its value. */
static LlmGrammarNodeId
build_of_kind(Object *o, const Kind *kind, LlmGrammarNodeId next)
{
	LlmGrammarToken *names;

	next = llm_schema_build_mark(o->c, ':',
								 llm_schema_build(o->c, &kind->all, next));
	if (kind->name != 0)
		return llm_schema_build_opened(o->c, kind->name, next);
	names = llm_grammar_alloc(o->c->b, (o->n_members + 1) * sizeof(*names));
	if (names == NULL)
		return 0;
	for (size_t i = 0; i < o->n_members; i++)
		names[i] = (LlmGrammarToken){ o->members[i].name, o->members[i].len };
	return llm_schema_build_other_string(o->c, names, o->n_members, next);
}

static LlmGrammarNodeId
build_additional(Object *o, LlmGrammarNodeId next)
{
	LlmGrammarNodeId targets[1 << MAX_PATTERNS];

	for (size_t i = 0; i < o->n_kinds; i++)
		targets[i] = build_of_kind(o, &o->kinds[i], next);
	return llm_grammar_build_split(o->c->b, targets, o->n_kinds);
}

/* Behind n members: min to max more, each behind a comma, then the end. */
static LlmGrammarNodeId
build_more(Object *o, uint32_t min, uint32_t max, LlmGrammarNodeId end)
{
	LlmGrammarBuilder *b = o->c->b;
	LlmGrammarNodeId label;
	LlmGrammarNodeId more;

	if (max == 0)
		return end;
	if (max == LLM_GRAMMAR_UNBOUNDED && min == 0)
	{
		label = llm_grammar_build_label(b);
		more = llm_schema_build_mark(o->c, ',', build_additional(o, label));
		llm_grammar_set_label(b, label, llm_grammar_build_or(b, more, end));
		return label;
	}
	more = llm_schema_build_mark(
		o->c, ',', build_additional(o, llm_grammar_build_return(b)));
	return llm_grammar_build_repeat(b, more, min, max, end);
}

/* Behind the listed members, of which n are there. */
static LlmGrammarNodeId
build_end(Object *o, uint32_t n, LlmGrammarNodeId end)
{
	LlmGrammarBuilder *b = o->c->b;
	uint32_t min = o->min > n ? o->min - n : 0;
	uint32_t max = o->max == LLM_GRAMMAR_UNBOUNDED ? o->max
				   : o->max > n					   ? o->max - n
												   : 0;
	LlmGrammarNodeId node;

	if (n > o->max || min > max || min > (o->n_kinds > 0))
		return llm_grammar_build_never(b);
	if (o->n_kinds == 0 || max == 0)
		return end;
	if (n > 0)
		return build_more(o, min, max, end);
	node = build_more(o, min > 0 ? min - 1 : 0,
					  max == LLM_GRAMMAR_UNBOUNDED ? max : max - 1, end);
	node = build_additional(o, node);
	return min == 0 ? llm_grammar_build_or(b, node, end) : node;
}

/* Bounds that hold anyway are none: fewer counts are told apart. */
static uint32_t
settle_counts(Object *o)
{
	uint32_t n_required = 0;

	for (size_t i = 0; i < o->n_members; i++)
		n_required += o->members[i].required;
	if (o->min <= n_required)
		o->min = 0;
	if (o->max >= o->n_members && o->n_kinds == 0)
		o->max = LLM_GRAMMAR_UNBOUNDED;
	if (o->max != LLM_GRAMMAR_UNBOUNDED)
		return o->max < o->n_members ? o->max + 1 : (uint32_t) o->n_members;
	return o->min > 1
			   ? (o->min < o->n_members ? o->min : (uint32_t) o->n_members)
			   : 1;
}

/* Names that are not listed may be equal: of those only one surely counts. */
static void
check_counts(Object *o)
{
	for (size_t i = 0; i < o->view->n_objects && o->n_kinds > 0; i++)
	{
		const LlmSchemaView own = { .objects = { o->view->objects[i] },
									.n_objects = 1 };

		if (!own.objects[0]->is_made &&
			llm_schema_count(o->c, &own, "minProperties", false) >
				o->n_members + 1)
			llm_schema_fail(o->c, LLM_ERROR_UNSUPPORTED,
							"is supported up to one more than the properties "
							"that are listed",
							llm_schema_find(&own, "minProperties"));
	}
}

/*
 * Listed members from the last to the first: nodes[n] is what may come where n
 * members have come before; the last n stands for more, too.
 */
static LlmGrammarNodeId
build_members(Object *o, LlmGrammarNodeId end)
{
	LlmGrammarBuilder *b = o->c->b;
	uint32_t most = settle_counts(o);
	LlmGrammarNodeId *nodes = llm_grammar_alloc(b, (most + 2) * sizeof(*nodes));

	if (nodes == NULL)
		return 0;
	for (uint32_t n = 0; n <= most; n++)
		nodes[n] = build_end(o, n, end);
	for (size_t i = o->n_members; i > 0 && !llm_grammar_failed(b); i--)
	{
		const Member *member = &o->members[i - 1];
		LlmSchemaAll all;
		bool allowed = collect_member(o, member, &all);
		LlmGrammarNodeId next = 0;
		LlmGrammarNodeId value = 0;

		/* in this order: the node behind is still that of the next member */
		for (uint32_t n = 0; n <= most && n < i + 1; n++)
		{
			LlmGrammarNodeId node = llm_grammar_build_never(b);

			if (allowed && next != nodes[n < most ? n + 1 : most])
			{
				next = nodes[n < most ? n + 1 : most];
				value = build_member(o, member, &all, next);
			}
			if (allowed)
				node = n == 0 ? value : llm_schema_build_mark(o->c, ',', value);
			if (!member->required)
				node = allowed ? llm_grammar_build_or(b, node, nodes[n])
							   : nodes[n];
			nodes[n] = node;
		}
	}
	return nodes[0];
}

LlmGrammarNodeId
llm_schema_build_object(LlmSchemaCompiler *c, const LlmSchemaView *view)
{
	LlmGrammarBuilder *b = c->b;
	Object o = { .c = c, .view = view, .sure = true };
	LlmGrammarNodeId end =
		llm_grammar_build_bytes(b, '}', '}', llm_grammar_build_return(b));

	if (!collect_members(&o))
		return 0;
	collect_kinds(&o);
	check_counts(&o);
	if (llm_grammar_failed(b))
		return 0;
	return llm_grammar_build_bytes(b, '{', '{', build_members(&o, end));
}

/* -- questions -- */

bool
llm_schema_has_no_object(LlmSchemaCompiler *c, const LlmSchemaView *view,
						 int depth)
{
	Object o = { .c = c, .view = view };
	uint32_t n_required = 0;

	if (!collect_members(&o))
		return false;
	for (size_t i = 0; i < o.n_members; i++)
	{
		LlmSchemaAll all;

		if (!o.members[i].required)
			continue;
		n_required++;
		if (!collect_member(&o, &o.members[i], &all) ||
			llm_schema_are_empty(c, &all, depth + 1))
			return true;
	}
	return n_required > o.max || o.min > o.max;
}

bool
llm_schema_is_additional(LlmSchemaCompiler *c, const LlmSchemaJson *object,
						 const LlmSchemaJson *property)
{
	const LlmSchemaJson *list = llm_schema_json_get(object, "properties");
	const LlmSchemaJson *patterns =
		llm_schema_json_get(object, "patternProperties");

	if (list != NULL &&
		llm_schema_json_get_len(list, property->key, property->key_len) != NULL)
		return false;
	for (const LlmSchemaJson *p = patterns != NULL ? patterns->child : NULL;
		 p != NULL; p = p->next)
	{
		if (llm_schema_is_name(c, p, property->key, property->key_len))
			return false;
	}
	return true;
}
