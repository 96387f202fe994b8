/*
 * grammar_valid.c
 *	  Is a value of a schema's enum or const valid for what applies beside it?
 *
 * Formats are known by texts that surely have them and by an outline of all
 * that may (grammar_format.c), so the question is asked in two ways: is it
 * certain that the value is valid, or is it possible?  Under "not" the two
 * change places.
 *
 * src/common/grammar/grammar_valid.c
 */
#include <string.h>

#include "src/common/grammar/grammar_schema.h"
#include "src/common/util/utf8.h"

typedef struct Question
{
	LlmSchemaCompiler *c;
	const LlmSchemaJson *object;
	const LlmSchemaJson *value;
	bool sure;
} Question;

static bool
holds(const Question *q, const LlmSchemaJson *schema,
	  const LlmSchemaJson *value)
{
	return llm_schema_holds(q->c, schema, value, q->sure);
}

static const LlmSchemaJson *
get(const Question *q, const char *key)
{
	return llm_schema_json_get(q->object, key);
}

static bool
is_in(const LlmSchemaJson *value, const LlmSchemaJson *list)
{
	for (const LlmSchemaJson *other = list->child; other != NULL;
		 other = other->next)
	{
		if (llm_schema_json_equal(value, other))
			return true;
	}
	return false;
}

static bool
is_within(const Question *q, size_t n, const char *min, const char *max)
{
	const LlmSchemaView view = { .objects = { q->object }, .n_objects = 1 };

	return n >= llm_schema_count(q->c, &view, min, false) &&
		   n <= llm_schema_count(q->c, &view, max, true);
}

static bool
is_valid_string(const Question *q)
{
	const LlmSchemaView view = { .objects = { q->object }, .n_objects = 1 };
	const LlmLanguage *language;
	LlmLanguageTerms terms;
	size_t n_chars = 0;

	for (size_t i = 0; i < q->value->text_len; i++)
		n_chars += ((uint8_t) q->value->text[i] & 0xC0) != 0x80;
	if (!is_within(q, n_chars, "minLength", "maxLength"))
		return false;
	if (get(q, "pattern") == NULL && get(q, LLM_SCHEMA_NOT_PATTERN) == NULL &&
		get(q, "format") == NULL && get(q, LLM_SCHEMA_NOT_FORMAT) == NULL)
		return true; /* lists are looked at for all types */
	llm_schema_collect_text(
		q->c, &view, q->sure ? LLM_SCHEMA_EXACT : LLM_SCHEMA_OUTLINE, &terms);
	terms.min = 0;
	terms.max = LLM_GRAMMAR_UNBOUNDED;
	language = llm_schema_create_language(q->c, &terms, &view);
	return language != NULL &&
		   llm_language_contains(language, q->value->text, q->value->text_len);
}

/* -- arrays -- */

static bool
has_duplicates(const LlmSchemaJson *array)
{
	for (const LlmSchemaJson *left = array->child; left != NULL;
		 left = left->next)
	{
		for (const LlmSchemaJson *right = left->next; right != NULL;
			 right = right->next)
		{
			if (llm_schema_json_equal(left, right))
				return true;
		}
	}
	return false;
}

static bool
has_contained(const Question *q)
{
	const LlmSchemaJson *schema = get(q, "contains");
	size_t n_sure = 0;
	size_t n_possible = 0;

	if (schema == NULL)
		return true;
	for (const LlmSchemaJson *item = q->value->child; item != NULL;
		 item = item->next)
	{
		n_sure += llm_schema_holds(q->c, schema, item, true);
		n_possible += llm_schema_holds(q->c, schema, item, false);
	}
	if (get(q, "minContains") == NULL && (q->sure ? n_sure : n_possible) == 0)
		return false;
	/* at least as many as are sure, at most as many as are possible */
	return is_within(q, q->sure ? n_sure : n_possible, "minContains",
					 "noContains") &&
		   is_within(q, q->sure ? n_possible : n_sure, "noContains",
					 "maxContains");
}

static bool
is_valid_array(const Question *q)
{
	const LlmSchemaJson *prefix = get(q, "prefixItems");
	const LlmSchemaJson *items = get(q, "items");
	const LlmSchemaJson *unique = get(q, "uniqueItems");
	const LlmSchemaJson *schema = prefix != NULL ? prefix->child : NULL;

	if (!is_within(q, q->value->n_children, "minItems", "maxItems") ||
		(unique != NULL && unique->kind == LLM_SCHEMA_JSON_TRUE &&
		 has_duplicates(q->value)) ||
		!has_contained(q))
		return false;
	for (const LlmSchemaJson *item = q->value->child; item != NULL;
		 item = item->next)
	{
		const LlmSchemaJson *own = schema != NULL ? schema : items;

		if (own != NULL && !holds(q, own, item))
			return false;
		schema = schema != NULL ? schema->next : NULL;
	}
	return true;
}

/* -- objects -- */

static bool
is_valid_member(const Question *q, const LlmSchemaJson *member)
{
	const LlmSchemaJson *list = get(q, "properties");
	const LlmSchemaJson *patterns = get(q, "patternProperties");
	const LlmSchemaJson *names = get(q, "propertyNames");
	const LlmSchemaJson *own =
		list == NULL
			? NULL
			: llm_schema_json_get_len(list, member->key, member->key_len);
	bool is_listed = own != NULL;
	LlmSchemaJson name = { .kind = LLM_SCHEMA_JSON_STRING,
						   .text = member->key,
						   .text_len = member->key_len };

	if ((own != NULL && !holds(q, own, member)) ||
		(names != NULL && !holds(q, names, &name)))
		return false;
	for (const LlmSchemaJson *p = patterns != NULL ? patterns->child : NULL;
		 p != NULL; p = p->next)
	{
		if (!llm_schema_is_name(q->c, p, member->key, member->key_len))
			continue;
		is_listed = true;
		if (!holds(q, p, member))
			return false;
	}
	own = get(q, "additionalProperties");
	return is_listed || own == NULL || holds(q, own, member);
}

static bool
is_valid_object(const Question *q)
{
	const LlmSchemaJson *required = get(q, "required");

	if (!is_within(q, q->value->n_children, "minProperties", "maxProperties"))
		return false;
	for (const LlmSchemaJson *name = required != NULL ? required->child : NULL;
		 name != NULL; name = name->next)
	{
		if (llm_schema_json_get_len(q->value, name->text, name->text_len) ==
			NULL)
			return false;
	}
	for (const LlmSchemaJson *member = q->value->child; member != NULL;
		 member = member->next)
	{
		if (!is_valid_member(q, member))
			return false;
	}
	return true;
}

/* -- schemas -- */

/* Without what the object applies to the same value by other schemas. */
static bool
own_holds(const Question *q)
{
	const LlmSchemaView view = { .objects = { q->object }, .n_objects = 1 };
	const LlmSchemaJson *list = get(q, "enum");
	const LlmSchemaJson *only = get(q, "const");
	const LlmSchemaJson *listed = get(q, LLM_SCHEMA_NOT_LISTED);
	uint32_t type = llm_schema_type_of(q->c, q->value);

	if ((type & llm_schema_types_of_object(q->c, q->object)) == 0 ||
		(list != NULL && !is_in(q->value, list)) ||
		(only != NULL && !llm_schema_json_equal(q->value, only)))
		return false;
	if (listed != NULL && (strcmp(listed->key, "enum") == 0
							   ? is_in(q->value, listed)
							   : llm_schema_json_equal(q->value, listed)))
		return false;
	/* what was left out of a negation, or depends on the view, is not known */
	if (get(q, LLM_SCHEMA_REFUSED) != NULL ||
		get(q, LLM_SCHEMA_NOT_ADDITIONAL) != NULL ||
		get(q, "unevaluatedItems") != NULL ||
		get(q, "unevaluatedProperties") != NULL)
		return !q->sure;
	switch (q->value->kind)
	{
		case LLM_SCHEMA_JSON_NUMBER:
			return llm_schema_is_number(q->c, &view, q->value);
		case LLM_SCHEMA_JSON_STRING:
			return is_valid_string(q);
		case LLM_SCHEMA_JSON_ARRAY:
			return is_valid_array(q);
		case LLM_SCHEMA_JSON_OBJECT:
			return is_valid_object(q);
		default:
			return true;
	}
}

bool
llm_schema_view_holds(LlmSchemaCompiler *c, const LlmSchemaView *view,
					  const LlmSchemaJson *value, bool sure)
{
	for (size_t i = 0; i < view->n_objects; i++)
	{
		Question q = { c, view->objects[i], value, sure };

		if (!own_holds(&q))
			return false;
	}
	return true;
}

/*
 * Any view of the schema: those of a negation that were left out only make
 * less certain, and a probe has more views than there are, not less.
 */
bool
llm_schema_holds(LlmSchemaCompiler *c, const LlmSchemaJson *schema,
				 const LlmSchemaJson *value, bool sure)
{
	LlmSchemaAll all = { .n_objects = 0 };
	LlmSchemaViews views;

	llm_schema_add(c, &all, llm_schema_json_follow(schema));
	if (!llm_schema_probe(c, &all, &views))
		return !sure;
	for (size_t i = 0; i < views.n_views; i++)
	{
		if (llm_schema_view_holds(c, &views.views[i], value, sure))
			return true;
	}
	return false;
}
