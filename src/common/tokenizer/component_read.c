/*
 * component_read.c
 *	  Reading a component's JSON, and writing its steps.
 *
 * src/common/tokenizer/component_read.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/tokenizer/component_read.h"
#include "src/common/tokenizer/unicode_class.h"

#define MAX_SEQUENCE_DEPTH 8

bool
llm_component_unsupported(const LlmComponent *c)
{
	return llm_error_set(c->err, LLM_ERROR_UNSUPPORTED,
						 "the %s \"%.100s\" is not supported", c->what,
						 c->type);
}

bool
llm_component_malformed(const LlmComponent *c, const char *key)
{
	return llm_error_set(c->err, LLM_ERROR_FORMAT,
						 "the %s \"%s\" has a missing or malformed \"%s\"",
						 c->what, c->type, key);
}

/* ------------------------------------------------------------- parameters */

bool
llm_component_need_string(const LlmComponent *c, const char *key,
						  const char **value)
{
	const cJSON *item = llm_json_get(c->json, key);

	if (!cJSON_IsString(item))
		return llm_component_malformed(c, key);
	*value = item->valuestring;
	return true;
}

/* A string of exactly one character. */
bool
llm_component_need_char(const LlmComponent *c, const char *key,
						const char **value)
{
	uint32_t cp;

	if (!llm_component_need_string(c, key, value))
		return false;
	if ((*value)[0] == '\0' || (size_t) llm_unicode_next(*value, strlen(*value),
														 &cp) != strlen(*value))
		return llm_component_malformed(c, key);
	return true;
}

/* *value is the default where the key is absent. */
bool
llm_component_get_bool(const LlmComponent *c, const char *key, bool *value)
{
	const cJSON *item = llm_json_get(c->json, key);

	if (item == NULL)
		return true;
	if (!cJSON_IsBool(item))
		return llm_component_malformed(c, key);
	*value = cJSON_IsTrue(item);
	return true;
}

bool
llm_component_get_count(const LlmComponent *c, const char *key, int32_t *value)
{
	const cJSON *item = llm_json_get(c->json, key);

	if (item == NULL)
		return true;
	if (!cJSON_IsNumber(item) || item->valuedouble < 0 ||
		item->valuedouble > 1000000 ||
		item->valuedouble != (double) (int32_t) item->valuedouble)
		return llm_component_malformed(c, key);
	*value = (int32_t) item->valuedouble;
	return true;
}

bool
llm_component_add_step(const LlmComponent *c, LlmTokenStep step)
{
	if (llm_image_builder_count(c->builder, c->section) >= LLM_TOKEN_MAX_STEPS)
		return llm_error_set(c->err, LLM_ERROR_LIMIT,
							 "the tokenizer has more than %d %ss",
							 LLM_TOKEN_MAX_STEPS, c->what);
	llm_image_builder_add(c->builder, c->section, &step);
	return true;
}

LlmTokenText
llm_component_add_text(const LlmComponent *c, const char *text)
{
	return llm_image_builder_text(c->builder, text, strlen(text));
}

/* Translate an expression and make sure that it compiles. */
bool
llm_component_add_regex(const LlmComponent *c, const char *pattern,
						LlmTokenText *text)
{
	LlmStrbuf translated = { 0 };
	LlmSplitRegex *regex = NULL;

	if (llm_split_regex_translate(pattern, strlen(pattern), &translated,
								  c->err))
		regex = llm_split_regex_create(llm_strbuf_str(&translated),
									   translated.len, c->err);
	if (regex != NULL)
		*text = llm_image_builder_text(c->builder, llm_strbuf_str(&translated),
									   translated.len);
	llm_split_regex_free(regex);
	llm_strbuf_free(&translated);
	return regex != NULL;
}

/*
 * A "pattern": {"String": ...} or {"Regex": ...}.  An empty string matches
 * between all characters, as the expression it is for the reference.
 */
bool
llm_component_add_pattern(const LlmComponent *c, LlmTokenStep *step,
						  LlmTokenStepKind literal, LlmTokenStepKind regex)
{
	const cJSON *pattern = llm_json_get(c->json, "pattern");
	const cJSON *text = llm_json_get(pattern, "String");

	step->kind = literal;
	if (text == NULL)
	{
		text = llm_json_get(pattern, "Regex");
		step->kind = regex;
	}
	if (!cJSON_IsString(text))
		return llm_component_malformed(c, "pattern");
	if (text->valuestring[0] == '\0')
		step->kind = regex;
	if (step->kind == regex)
		return llm_component_add_regex(c, text->valuestring, &step->text[0]);
	step->text[0] = llm_component_add_text(c, text->valuestring);
	return true;
}

/* Compile each member of a "Sequence". */
bool
llm_component_members(LlmComponent *c, const char *key,
					  LlmComponentCompiler compile)
{
	const cJSON *members = llm_json_get(c->json, key);
	const cJSON *member;

	if (!cJSON_IsArray(members))
		return llm_component_malformed(c, key);
	if (c->depth >= MAX_SEQUENCE_DEPTH)
		return llm_error_set(c->err, LLM_ERROR_LIMIT,
							 "the tokenizer nests %ss too deeply", c->what);
	cJSON_ArrayForEach(member, members)
	{
		LlmComponent inner = *c;

		inner.json = member;
		inner.depth++;
		if (!compile(&inner))
			return false;
	}
	return true;
}

/* Find out what kind of component it is. */
bool
llm_component_read_type(LlmComponent *c)
{
	const cJSON *type = llm_json_get(c->json, "type");

	if (!cJSON_IsString(type))
		return llm_error_set(c->err, LLM_ERROR_UNSUPPORTED,
							 "a %s without a \"type\" is not supported",
							 c->what);
	c->type = type->valuestring;
	return true;
}

bool
llm_component_is(const LlmComponent *c, const char *type)
{
	return strcmp(c->type, type) == 0;
}

bool
llm_component_add_plain(const LlmComponent *c, LlmTokenStepKind kind,
						int32_t number)
{
	LlmTokenStep step = { .kind = kind, .numbers = { number, 0 } };

	return llm_component_add_step(c, step);
}

bool
llm_component_read_metaspace(const LlmComponent *c, LlmTokenStep *step)
{
	const char *replacement = NULL;
	const char *scheme = "always";
	const cJSON *item = llm_json_get(c->json, "prepend_scheme");
	bool add_prefix_space = true;

	if (!llm_component_need_char(c, "replacement", &replacement) ||
		!llm_component_get_bool(c, "add_prefix_space", &add_prefix_space) ||
		(item != NULL &&
		 !llm_component_need_string(c, "prepend_scheme", &scheme)))
		return false;
	step->text[0] = llm_component_add_text(c, replacement);
	if (strcmp(scheme, "always") == 0)
		step->numbers[0] = LLM_PREPEND_ALWAYS;
	else if (strcmp(scheme, "first") == 0)
		step->numbers[0] = LLM_PREPEND_FIRST;
	else if (strcmp(scheme, "never") == 0)
		step->numbers[0] = LLM_PREPEND_NEVER;
	else
		return llm_component_malformed(c, "prepend_scheme");
	if (!add_prefix_space)
	{
		if (item != NULL && step->numbers[0] != LLM_PREPEND_NEVER)
			return llm_component_malformed(c, "add_prefix_space");
		step->numbers[0] = LLM_PREPEND_NEVER;
	}
	return true;
}
