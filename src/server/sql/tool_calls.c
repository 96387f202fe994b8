/*
 * tool_calls.c
 *	  Tools in OpenAI's shape: making a model call one, and reading the calls
 *	  out of its answer.
 *
 * A forced call is an array of {"name", "parameters"}, whatever the model's
 * own convention, as in vLLM: the grammar knows bytes, and conventions may
 * begin with tokens that are no text.  Read back, an answer is taken for calls
 * only where all of it has the form of calls of known tools: a model that
 * talks about JSON is not to be misunderstood.
 *
 * src/server/sql/tool_calls.c
 */
#include "postgres.h"

#include "src/server/sql/text_convert.h"
#include "src/server/sql/tool_calls.h"

#include "common/pg_prng.h"

#define HERMES_OPEN "<tool_call>"
#define HERMES_CLOSE "</tool_call>"
#define MISTRAL_MARK "[TOOL_CALLS]"
#define MISTRAL_ARGUMENTS "[ARGS]"
#define LLAMA_MARK "<|python_tag|>"

/* -- the request's tools -- */

static void __attribute__((noreturn)) bad_tools(void)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("option \"tools\" must be an array of {\"type\": "
						   "\"function\", \"function\": {\"name\": ...}}")));
	pg_unreachable();
}

/* The next element of an array; *off is 0 at first. */
static bool
next_element(LlmTemplateText array, size_t *off, LlmTemplateText *element)
{
	const char *end;
	cJSON *json;

	/* at the opening bracket, a comma, or the closing bracket */
	*off += strspn(array.data + *off, " \t\r\n");
	if (*off >= array.len || array.data[*off] == ']')
		return false;
	*off += 1 + strspn(array.data + *off + 1, " \t\r\n");
	if (*off >= array.len || array.data[*off] == ']')
		return false;
	json = cJSON_ParseWithLengthOpts(array.data + *off, array.len - *off, &end,
									 false);
	if (json == NULL)
		bad_tools();
	cJSON_Delete(json);
	element->data = array.data + *off;
	element->len = (size_t) (end - element->data);
	*off += element->len;
	return true;
}

/* The function of a tool, and its name, palloc'ed. */
static LlmTemplateText
function_of(LlmTemplateText tool, char **name)
{
	LlmTemplateText function = { NULL, 0 };
	LlmTemplateText text = { NULL, 0 };
	cJSON *json;

	if (llm_json_kind(tool) == '{')
		function = llm_json_member(tool, "function");
	/* templates also take tools without the layer around them */
	if (function.data == NULL)
		function = tool;
	if (llm_json_kind(function) == '{')
		text = llm_json_member(function, "name");
	if (text.data == NULL || llm_json_kind(text) != '"')
		bad_tools();
	json = llm_json_parse_value(text, "name");
	*name = pstrdup(json->valuestring);
	cJSON_Delete(json);
	return function;
}

static bool
is_tool(LlmTemplateText tools, const char *name)
{
	LlmTemplateText tool;
	size_t off = 0;

	while (next_element(tools, &off, &tool))
	{
		char *known;

		(void) function_of(tool, &known);
		if (strcmp(known, name) == 0)
			return true;
	}
	return false;
}

/* -- tool_choice -- */

/*
 * A schema that becomes part of another one: references from its root begin
 * with its place now.  In valid JSON a string "$ref" with a colon behind it
 * can only be that key.
 */
static void
append_moved_schema(StringInfo json, LlmTemplateText schema, const char *place)
{
	static const char key[] = "\"$ref\"";
	size_t off = 0;

	while (off < schema.len)
	{
		const char *at =
			memmem(schema.data + off, schema.len - off, key, strlen(key));
		size_t end =
			at == NULL ? schema.len : (size_t) (at - schema.data) + strlen(key);

		while (at != NULL && end < schema.len &&
			   strchr(" \t\r\n:", schema.data[end]) != NULL)
			end++;
		appendBinaryStringInfo(json, schema.data + off, (int) (end - off));
		if (schema.len - end > 2 && memcmp(schema.data + end, "\"#", 2) == 0)
		{
			appendStringInfo(json, "\"#%s", place);
			end += 2;
		}
		off = end;
	}
}

static void
append_call_schema(StringInfo json, LlmTemplateText function, const char *name,
				   int index)
{
	LlmTemplateText parameters = llm_json_member(function, "parameters");

	appendStringInfo(json,
					 "%s{\"type\": \"object\", \"properties\": "
					 "{\"name\": {\"const\": ",
					 index > 0 ? ", " : "");
	llm_append_json_string(json, name, strlen(name));
	appendStringInfoString(json, "}, \"parameters\": ");
	if (parameters.data != NULL)
		append_moved_schema(
			json, parameters,
			psprintf("/items/anyOf/%d/properties/parameters", index));
	else
		appendStringInfoString(json, "{\"type\": \"object\"}");
	appendStringInfoString(json, "}, \"required\": [\"name\", \"parameters\"], "
								 "\"additionalProperties\": false}");
}

/* An array of calls: of one tool, or of any (name NULL). */
static LlmGrammarSource
calls_format(LlmTemplateText tools, const char *name, bool many)
{
	LlmGrammarSource format = { LLM_GRAMMAR_JSON_SCHEMA };
	StringInfoData json;
	LlmTemplateText tool;
	size_t off = 0;
	int n_tools = 0;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"type\": \"array\", \"minItems\": 1, ");
	if (name != NULL || !many)
		appendStringInfoString(&json, "\"maxItems\": 1, ");
	appendStringInfoString(&json, "\"items\": {\"anyOf\": [");
	while (next_element(tools, &off, &tool))
	{
		char *known;
		LlmTemplateText function = function_of(tool, &known);

		if (name == NULL || strcmp(name, known) == 0)
			append_call_schema(&json, function, known, n_tools++);
	}
	appendStringInfoString(&json, "]}}");
	if (n_tools == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 name != NULL
					 ? errmsg("option \"tool_choice\" names the tool \"%s\", "
							  "which is not among the tools",
							  name)
					 : errmsg("option \"tool_choice\" is \"required\", but "
							  "there are no tools")));
	format.text.data = json.data;
	format.text.len = (size_t) json.len;
	return format;
}

LlmToolChoice
llm_tool_choice_read(const cJSON *value, LlmTemplateText tools, bool many,
					 LlmGrammarSource *format)
{
	const char *word = cJSON_IsString(value) ? value->valuestring : "";
	const cJSON *name = llm_json_get(llm_json_get(value, "function"), "name");

	if (strcmp(word, "auto") == 0)
		return LLM_TOOL_AUTO;
	if (strcmp(word, "none") == 0)
		return LLM_TOOL_NONE;
	if (strcmp(word, "required") != 0 && !cJSON_IsString(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"tool_choice\" must be \"none\", \"auto\", "
						"\"required\" or {\"type\": \"function\", "
						"\"function\": {\"name\": ...}}")));
	if (tools.data == NULL)
	{
		tools.data = "[]";
		tools.len = 2;
	}
	if (llm_json_kind(tools) != '[')
		bad_tools();
	*format =
		calls_format(tools, name != NULL ? name->valuestring : NULL, many);
	return LLM_TOOL_FORCED;
}

/* -- reading answers -- */

typedef struct CallReader
{
	LlmTemplateText tools;
	bool many;
	LlmToolCalls *calls;
} CallReader;

static LlmTemplateText
behind(LlmTemplateText text, size_t n_bytes)
{
	LlmTemplateText rest = { text.data + n_bytes, text.len - n_bytes };

	return rest;
}

static LlmTemplateText
skip_any(LlmTemplateText text, const char *set)
{
	size_t n = 0;

	while (n < text.len && strchr(set, text.data[n]) != NULL)
		n++;
	return behind(text, n);
}

static bool
skip_mark(LlmTemplateText *text, const char *mark)
{
	size_t len = strlen(mark);

	if (text->len < len || memcmp(text->data, mark, len) != 0)
		return false;
	*text = behind(*text, len);
	return true;
}

/* The JSON value that a text begins with; false: it begins with none. */
static bool
take_value(LlmTemplateText *text, LlmTemplateText *value)
{
	const char *end;
	cJSON *json = cJSON_ParseWithLengthOpts(text->data, text->len, &end, false);

	if (json == NULL)
		return false;
	cJSON_Delete(json);
	value->data = text->data;
	value->len = (size_t) (end - text->data);
	*text = behind(*text, value->len);
	return true;
}

static void
add_call(CallReader *reader, const char *name, LlmTemplateText arguments)
{
	StringInfo json = &reader->calls->json;

	if (reader->calls->n_calls > 0 && !reader->many)
		return;
	appendStringInfo(
		json,
		"%s{\"id\": \"call_%016llx\", \"type\": \"function\", "
		"\"function\": {\"name\": ",
		reader->calls->n_calls++ > 0 ? ", " : "",
		(unsigned long long) pg_prng_uint64(&pg_global_prng_state));
	llm_append_json_string(json, name, strlen(name));
	appendStringInfoString(json, ", \"arguments\": ");
	llm_append_json_string(json, arguments.data, arguments.len);
	appendStringInfoString(json, "}}");
}

/* What a JSON string says, palloc'ed; the text was parsed before. */
static char *
take_string(LlmTemplateText string)
{
	cJSON *json = cJSON_ParseWithLength(string.data, string.len);
	char *text = pstrdup(json != NULL ? json->valuestring : "");

	cJSON_Delete(json);
	return text;
}

/* {"name": ..., "arguments" or "parameters": ...} of a known tool. */
static bool
read_call_object(CallReader *reader, LlmTemplateText object)
{
	LlmTemplateText name = { NULL, 0 };
	LlmTemplateText arguments = { NULL, 0 };
	char *known;

	if (llm_json_kind(object) != '{')
		return false;
	name = llm_json_member(object, "name");
	arguments = llm_json_member(object, "arguments");
	if (arguments.data == NULL)
		arguments = llm_json_member(object, "parameters");
	if (name.data == NULL || llm_json_kind(name) != '"' ||
		(arguments.data != NULL && llm_json_kind(arguments) != '{' &&
		 llm_json_kind(arguments) != '"'))
		return false;
	if (arguments.data == NULL)
	{
		arguments.data = "{}";
		arguments.len = 2;
	}
	known = take_string(name);
	/* some models write the object within a string already */
	if (llm_json_kind(arguments) == '"')
	{
		arguments.data = take_string(arguments);
		arguments.len = strlen(arguments.data);
	}
	if (!is_tool(reader->tools, known))
		return false;
	add_call(reader, known, arguments);
	return true;
}

/* One call, or an array of them. */
static bool
read_calls_value(CallReader *reader, LlmTemplateText value)
{
	LlmTemplateText element;
	size_t off = 0;

	if (llm_json_kind(value) != '[')
		return read_call_object(reader, value);
	while (next_element(value, &off, &element))
		if (!read_call_object(reader, element))
			return false;
	return true;
}

/* Mistral's later form: name{...}, perhaps with a mark between. */
static bool
read_named_call(CallReader *reader, LlmTemplateText *text)
{
	LlmTemplateText rest = *text;
	LlmTemplateText arguments;
	size_t n = 0;
	char *name;

	while (n < rest.len && strchr("{[ \t\r\n\"", rest.data[n]) == NULL)
		n++;
	if (n == 0)
		return false;
	name = pnstrdup(rest.data, n);
	rest = behind(rest, n);
	(void) skip_mark(&rest, MISTRAL_ARGUMENTS);
	rest = skip_any(rest, " \t\r\n");
	if (rest.len == 0 || rest.data[0] != '{' || !is_tool(reader->tools, name) ||
		!take_value(&rest, &arguments))
		return false;
	add_call(reader, name, arguments);
	*text = rest;
	return true;
}

/* Calls and nothing else. */
static bool
read_bare_calls(CallReader *reader, LlmTemplateText text)
{
	LlmTemplateText value;

	text = skip_any(text, " \t\r\n");
	(void) skip_mark(&text, LLAMA_MARK);
	while (text.len > 0)
	{
		(void) skip_mark(&text, MISTRAL_MARK);
		text = skip_any(text, " \t\r\n");
		if (take_value(&text, &value) ? !read_calls_value(reader, value)
									  : !read_named_call(reader, &text))
			return false;
		text = skip_any(text, " \t\r\n;,");
	}
	return reader->calls->n_calls > 0;
}

/* Text, then calls within tags. */
static bool
read_tagged_calls(CallReader *reader, LlmTemplateText text, const char *open)
{
	LlmTemplateText rest = behind(text, (size_t) (open - text.data));
	LlmTemplateText value;

	while (skip_mark(&rest, HERMES_OPEN))
	{
		rest = skip_any(rest, " \t\r\n");
		if (!take_value(&rest, &value) || !read_calls_value(reader, value))
			return false;
		rest = skip_any(rest, " \t\r\n");
		/* the last one may lack its end where a stop string took it */
		(void) skip_mark(&rest, HERMES_CLOSE);
		rest = skip_any(rest, " \t\r\n");
	}
	reader->calls->content.len = (size_t) (open - text.data);
	return rest.len == 0 && reader->calls->n_calls > 0;
}

static bool
is_blank(LlmTemplateText text)
{
	return skip_any(text, " \t\r\n").len == 0;
}

void
llm_tool_calls_parse(LlmTemplateText answer, LlmTemplateText tools, bool many,
					 LlmToolCalls *calls)
{
	CallReader reader = { tools, many, calls };
	const char *open =
		memmem(answer.data, answer.len, HERMES_OPEN, strlen(HERMES_OPEN));
	bool ok;

	calls->content = answer;
	calls->n_calls = 0;
	initStringInfo(&calls->json);
	if (tools.data == NULL || llm_json_kind(tools) != '[')
		return;
	if (open != NULL)
		ok = read_tagged_calls(&reader, answer, open);
	else
	{
		ok = read_bare_calls(&reader, answer);
		calls->content.len = 0;
	}
	if (!ok)
	{
		calls->content = answer;
		calls->n_calls = 0;
	}
	else if (is_blank(calls->content))
		calls->content.len = 0;
}
