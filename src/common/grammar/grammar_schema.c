/*
 * grammar_schema.c
 *	  JSON Schema.
 *
 * A value's schemas are expanded into views (grammar_expand.c), and a value is
 * one of its views' values.  Arrays and objects are rules that are called;
 * each is found by its view and built once, from a queue, so that recursive
 * schemas are recursive grammars and deep ones need no deep recursion here.
 *
 * grammar_number.c, grammar_string.c, grammar_array.c and grammar_object.c build
 * the values of each type.
 *
 * src/common/grammar/grammar_schema.c
 */
#include "src/common/grammar/grammar_schema.h"

#include <string.h>

#define NUMERIC (LLM_SCHEMA_INTEGER | LLM_SCHEMA_NUMBER)

struct LlmSchemaRule
{
	LlmSchemaView view;
	bool is_array;
	LlmGrammarNodeId label;
	LlmSchemaRule *next;
};

/* A call of the rule for a view's arrays or objects. */
static LlmGrammarNodeId
call_rule(LlmSchemaCompiler *c, const LlmSchemaView *view, bool is_array,
		  LlmGrammarNodeId next)
{
	LlmSchemaRule *rule;

	for (rule = c->rules; rule != NULL; rule = rule->next)
	{
		if (rule->is_array == is_array &&
			rule->view.n_objects == view->n_objects &&
			memcmp(rule->view.objects, view->objects,
				   view->n_objects * sizeof(view->objects[0])) == 0)
			return llm_grammar_build_call(c->b, rule->label, next);
	}
	rule = llm_grammar_alloc(c->b, sizeof(*rule));
	if (rule == NULL)
		return 0;
	rule->view = *view;
	rule->is_array = is_array;
	rule->label = llm_grammar_build_label(c->b);
	*c->last_rule = rule;
	c->last_rule = &rule->next;
	return llm_grammar_build_call(c->b, rule->label, next);
}

static LlmGrammarNodeId
build_rules(LlmSchemaCompiler *c, LlmGrammarNodeId root)
{
	for (LlmSchemaRule *rule = c->rules;
		 rule != NULL && !llm_grammar_failed(c->b); rule = rule->next)
		llm_grammar_set_label(c->b, rule->label,
							  rule->is_array
								  ? llm_schema_build_array(c, &rule->view)
								  : llm_schema_build_object(c, &rule->view));
	return llm_grammar_failed(c->b) ? 0 : root;
}

/* -- enum and const -- */

static void
write_value(LlmSchemaCompiler *c, const LlmSchemaJson *value,
			LlmGrammarToken *text)
{
	LlmStrbuf buf = { 0 };
	char *copy;

	llm_schema_json_write(value, &buf);
	copy = llm_grammar_alloc(c->b, buf.len + 1);
	if (copy != NULL && !buf.failed)
		memcpy(copy, llm_strbuf_str(&buf), buf.len);
	*text = (LlmGrammarToken){ copy, copy != NULL ? buf.len : 0 };
	llm_strbuf_free(&buf);
}

static LlmGrammarNodeId
build_listed(LlmSchemaCompiler *c, const LlmSchemaView *view,
			 LlmGrammarNodeId next)
{
	const LlmSchemaJson *only = llm_schema_find(view, "const");
	const LlmSchemaJson *list = llm_schema_find(view, "enum");
	LlmGrammarToken *texts;
	size_t n = 0;

	texts = llm_grammar_alloc(
		c->b, (1 + (list != NULL ? list->n_children : 0)) * sizeof(*texts));
	if (texts == NULL)
		return 0;
	for (const LlmSchemaJson *value = only != NULL ? only : list->child;
		 value != NULL; value = only != NULL ? NULL : value->next)
	{
		if (llm_schema_view_holds(c, view, value, true))
			write_value(c, value, &texts[n++]);
	}
	return llm_grammar_build_choice(c->b, texts, n, next);
}

/* -- values -- */

static LlmGrammarNodeId
build_literal(LlmSchemaCompiler *c, const char *text, LlmGrammarNodeId next)
{
	return llm_grammar_build_text(c->b, text, strlen(text), next);
}

static LlmGrammarNodeId
build_view(LlmSchemaCompiler *c, const LlmSchemaView *view,
		   LlmGrammarNodeId next)
{
	LlmGrammarNodeId targets[8];
	size_t n = 0;
	uint32_t types;

	if (llm_schema_find(view, "enum") != NULL ||
		llm_schema_find(view, "const") != NULL)
		return build_listed(c, view, next);
	types = llm_schema_generated_types(c, view);
	if (view->n_objects == 0)
		return llm_schema_build_any(c, next);
	if (types & LLM_SCHEMA_NULL)
		targets[n++] = build_literal(c, "null", next);
	if (types & LLM_SCHEMA_BOOLEAN)
	{
		targets[n++] = build_literal(c, "true", next);
		targets[n++] = build_literal(c, "false", next);
	}
	if (types & NUMERIC)
		targets[n++] = llm_schema_build_number(c, view, types, next);
	if (types & LLM_SCHEMA_STRING)
		targets[n++] = llm_schema_build_string(c, view, next);
	if (types & LLM_SCHEMA_ARRAY)
		targets[n++] = call_rule(c, view, true, next);
	if (types & LLM_SCHEMA_OBJECT)
		targets[n++] = call_rule(c, view, false, next);
	return llm_grammar_build_split(c->b, targets, n);
}

/* Views that differ by annotations only are one. */
static void
drop_annotations(LlmSchemaView *view)
{
	size_t n = 0;

	for (size_t i = 0; i < view->n_objects; i++)
	{
		if (llm_schema_constrains(view->objects[i]))
			view->objects[n++] = view->objects[i];
	}
	view->n_objects = n;
}

LlmGrammarNodeId
llm_schema_build(LlmSchemaCompiler *c, const LlmSchemaAll *all,
				 LlmGrammarNodeId next)
{
	LlmSchemaViews views;
	LlmGrammarNodeId *targets;

	if (!llm_schema_expand(c, all, &views))
		return 0;
	targets = llm_grammar_alloc(c->b, (views.n_views + 1) * sizeof(*targets));
	if (targets == NULL)
		return 0;
	for (size_t i = 0; i < views.n_views; i++)
	{
		drop_annotations(&views.views[i]);
		targets[i] = build_view(c, &views.views[i], next);
	}
	return llm_grammar_build_split(c->b, targets, views.n_views);
}

/* -- any value -- */

LlmGrammarNodeId
llm_schema_build_any(LlmSchemaCompiler *c, LlmGrammarNodeId next)
{
	static const LlmSchemaView empty;
	LlmGrammarBuilder *b = c->b;
	LlmGrammarNodeId end = llm_grammar_build_return(b);
	LlmGrammarNodeId targets[7];

	if (c->any_value == 0)
	{
		c->any_value = llm_grammar_build_label(b);
		targets[0] = build_literal(c, "null", end);
		targets[1] = build_literal(c, "true", end);
		targets[2] = build_literal(c, "false", end);
		targets[3] = llm_schema_build_number(c, &empty, NUMERIC, end);
		targets[4] = llm_schema_build_any_string(c, end);
		targets[5] = call_rule(c, &empty, true, end);
		targets[6] = call_rule(c, &empty, false, end);
		llm_grammar_set_label(b, c->any_value,
							  llm_grammar_build_split(b, targets, 7));
	}
	return llm_grammar_build_call(b, c->any_value, next);
}

/* -- entry points -- */

static LlmGrammarNodeId
build_root(LlmSchemaCompiler *c)
{
	LlmSchemaAll all = { .n_objects = 0 };

	if (c->root == NULL)
		return 0;
	llm_schema_add(c, &all, c->root);
	return build_rules(
		c, llm_schema_build(c, &all, llm_grammar_build_return(c->b)));
}

bool
llm_grammar_compile_json_schema(const char *schema, size_t len,
								LlmStrbuf *program, LlmError *err)
{
	LlmSchemaCompiler c = { 0 };
	bool ok;

	if (len > LLM_GRAMMAR_MAX_SOURCE_BYTES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "schema has %zu bytes, the limit is %u", len,
							 LLM_GRAMMAR_MAX_SOURCE_BYTES);
	c.b = llm_grammar_builder_create(err);
	if (c.b == NULL)
		return false;
	c.last_rule = &c.rules;
	c.root = llm_schema_json_parse(c.b, schema, len);
	ok = llm_grammar_emit(c.b, build_root(&c), program);
	llm_grammar_builder_free(c.b);
	return ok;
}

bool
llm_grammar_compile_json_object(LlmStrbuf *program, LlmError *err)
{
	static const char any_object[] = "{\"type\":\"object\"}";

	return llm_grammar_compile_json_schema(any_object, sizeof(any_object) - 1,
										   program, err);
}
