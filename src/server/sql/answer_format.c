/*
 * answer_format.c
 *	  Options that say what an answer has to look like: OpenAI's
 *	  response_format, vLLM's guided_* and structured_outputs.
 *
 * Schemas are taken as they are written: their members' order is the order in
 * which an answer's members come.
 *
 * src/server/sql/answer_format.c
 */
#include "postgres.h"

#include "src/server/sql/answer_format.h"
#include "src/server/sql/text_convert.h"

static void __attribute__((noreturn))
bad_format(const char *key, const char *expected)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("option \"%s\" must be %s", key, expected)));
	pg_unreachable();
}

/* The text of a JSON string, palloc'ed. */
static LlmTemplateText
string_text(const char *key, LlmTemplateText value)
{
	cJSON *json;
	LlmTemplateText text;

	if (llm_json_kind(value) != '"')
		bad_format(key, "a string");
	json = llm_json_parse_value(value, key);
	text.data = pstrdup(json->valuestring);
	text.len = strlen(text.data);
	cJSON_Delete(json);
	return text;
}

static LlmGrammarSource
string_source(const char *key, LlmTemplateText value, LlmGrammarKind kind)
{
	LlmGrammarSource source = { kind, string_text(key, value) };

	if (source.text.len == 0)
		bad_format(key, "a string that is not empty");
	return source;
}

/* A schema; as vLLM takes it also within a string. */
static LlmGrammarSource
schema_source(const char *key, LlmTemplateText value)
{
	LlmGrammarSource source = { LLM_GRAMMAR_JSON_SCHEMA };

	if (llm_json_kind(value) == '"')
		source.text = string_text(key, value);
	else
	{
		source.text.data = pnstrdup(value.data, value.len);
		source.text.len = value.len;
	}
	return source;
}

LlmGrammarSource
llm_answer_format_choice(const LlmTemplateText *texts, int n_texts,
						 const char *what)
{
	LlmGrammarSource source = { LLM_GRAMMAR_CHOICE };
	StringInfoData joined;

	initStringInfo(&joined);
	for (int i = 0; i < n_texts; i++)
	{
		if (texts[i].len == 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("%s must not be empty", what)));
		appendBinaryStringInfo(&joined, texts[i].data, (int) texts[i].len);
		appendStringInfoChar(&joined, '\0');
	}
	source.text.data = joined.data;
	source.text.len = (size_t) joined.len;
	return source;
}

static LlmGrammarSource
choice_source(const char *key, LlmTemplateText value)
{
	cJSON *json = llm_json_parse_value(value, key);
	LlmGrammarSource source = { LLM_GRAMMAR_NONE };

	PG_TRY();
	{
		const cJSON *item;
		int n_texts = 0;
		LlmTemplateText *texts;

		if (!cJSON_IsArray(json) || cJSON_GetArraySize(json) == 0)
			bad_format(key, "an array of strings that is not empty");
		texts = palloc(sizeof(LlmTemplateText) * cJSON_GetArraySize(json));
		cJSON_ArrayForEach(item, json)
		{
			if (!cJSON_IsString(item))
				bad_format(key, "an array of strings that is not empty");
			texts[n_texts].data = item->valuestring;
			texts[n_texts++].len = strlen(item->valuestring);
		}
		source = llm_answer_format_choice(texts, n_texts, "a choice");
	}
	PG_FINALLY();
	{
		cJSON_Delete(json);
	}
	PG_END_TRY();
	return source;
}

static LlmGrammarSource
object_source(const char *key, LlmTemplateText value)
{
	LlmGrammarSource source = { LLM_GRAMMAR_NONE };

	if (value.len == 4 && memcmp(value.data, "true", 4) == 0)
		source.kind = LLM_GRAMMAR_JSON_OBJECT;
	else if (value.len != 5 || memcmp(value.data, "false", 5) != 0)
		bad_format(key, "true or false");
	return source;
}

/* The members of response_format.json_schema. */
static LlmGrammarSource
named_schema_source(LlmTemplateText object)
{
	static const char *const keys[] = { "name", "description", "strict",
										"schema" };
	LlmTemplateText schema = llm_json_member(object, "schema");
	LlmTemplateText value;
	size_t off = 0;
	char *key;

	if (llm_json_kind(object) != '{' || schema.data == NULL)
		bad_format("response_format.json_schema",
				   "an object with a \"schema\"");
	while (llm_json_next_member(object, &off, &key, &value))
	{
		bool is_known = false;

		for (int i = 0; i < lengthof(keys); i++)
			is_known |= strcmp(key, keys[i]) == 0;
		if (!is_known)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unrecognized option \"%s\"",
							psprintf("response_format.json_schema.%s", key))));
	}
	return schema_source("response_format.json_schema.schema", schema);
}

static LlmGrammarSource
response_format_source(const char *key, LlmTemplateText value)
{
	LlmGrammarSource source = { LLM_GRAMMAR_NONE };
	LlmTemplateText type;
	LlmTemplateText schema;
	char *name;

	if (llm_json_kind(value) != '{')
		bad_format(key, "an object");
	type = llm_json_member(value, "type");
	if (type.data == NULL)
		bad_format(key, "an object with a \"type\"");
	name = unconstify(char *, string_text("response_format.type", type).data);
	schema = llm_json_member(value, "json_schema");
	if (strcmp(name, "json_schema") == 0)
	{
		if (schema.data == NULL)
			bad_format(key, "an object with a \"json_schema\"");
		return named_schema_source(schema);
	}
	if (schema.data != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" has a \"json_schema\", but its "
							   "type is \"%s\"",
							   key, name)));
	if (strcmp(name, "json_object") == 0)
		source.kind = LLM_GRAMMAR_JSON_OBJECT;
	else if (strcmp(name, "text") != 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("option \"%s\" does not support the type \"%s\"",
							   key, name),
						errhint("Its types are \"text\", \"json_object\" and "
								"\"json_schema\".")));
	return source;
}

typedef LlmGrammarSource (*FormatReader)(const char *key,
										 LlmTemplateText value);

static LlmGrammarSource
regex_source(const char *key, LlmTemplateText value)
{
	return string_source(key, value, LLM_GRAMMAR_REGEX);
}

static LlmGrammarSource
gbnf_source(const char *key, LlmTemplateText value)
{
	return string_source(key, value, LLM_GRAMMAR_GBNF);
}

/* vLLM's newer name for all guided_* options: an object with one of these. */
static LlmGrammarSource
structured_source(const char *key, LlmTemplateText value)
{
	static const struct
	{
		const char *key;
		FormatReader read;
	} members[] = {
		{ "json", schema_source },	{ "json_object", object_source },
		{ "regex", regex_source },	{ "choice", choice_source },
		{ "grammar", gbnf_source },
	};
	LlmGrammarSource source = { LLM_GRAMMAR_NONE };
	LlmTemplateText member;
	size_t off = 0;
	char *name;

	if (llm_json_kind(value) != '{')
		bad_format(key, "an object");
	while (llm_json_next_member(value, &off, &name, &member))
	{
		int i = 0;

		if (member.len == 4 && memcmp(member.data, "null", 4) == 0)
			continue;
		while (i < lengthof(members) && strcmp(members[i].key, name) != 0)
			i++;
		if (i == lengthof(members))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unrecognized option \"%s.%s\"", key, name)));
		if (source.kind != LLM_GRAMMAR_NONE)
			bad_format(key, "an object with one form of the answer");
		source = members[i].read(psprintf("%s.%s", key, name), member);
	}
	return source;
}

LlmGrammarSource
llm_answer_format_read(const char *key, LlmTemplateText value)
{
	static const struct
	{
		const char *key;
		FormatReader read;
	} formats[] = {
		{ "response_format", response_format_source },
		{ "guided_json", schema_source },
		{ "guided_regex", regex_source },
		{ "guided_choice", choice_source },
		{ "guided_grammar", gbnf_source },
		{ "structured_outputs", structured_source },
	};

	for (int i = 0; i < lengthof(formats); i++)
		if (strcmp(formats[i].key, key) == 0)
			return formats[i].read(key, value);
	elog(ERROR, "option \"%s\" is no answer format", key);
}
