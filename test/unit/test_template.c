/*
 * test_template.c
 *	  Unit tests of src/common/template.
 *
 * Most cases are in test/vectors/template: what transformers makes of our
 * templates, to be matched byte for byte.  The rest are bounds, input that is
 * no good, and templates and inputs broken at random.
 *
 * test/unit/test_template.c
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/common/template/chat_template.h"
#include "src/common/template/jinja_value.h"
#include "src/common/util/json.h"
#include "src/common/util/philox.h"
#include "src/common/util/utf8.h"
#include "test/unit/unit_test.h"

#define VECTORS "test/vectors/template/"
#define NOW ((time_t) 1753362000) /* as in make_vectors.py */
#define MAX_VECTOR_BYTES ((size_t) 4 << 20)
#define N_MUTATIONS 20000

/* ---- rendering one thing ---- */

typedef struct Rendering
{
	bool ok;
	LlmStrbuf text;
	LlmError err;
} Rendering;

static LlmTemplateText
text_of(const char *text)
{
	return (LlmTemplateText){ text, text == NULL ? 0 : strlen(text) };
}

static void
render_bytes(Rendering *result, const char *source, size_t len,
			 const LlmTemplateInput *input)
{
	LlmChatTemplate *chat_template;

	memset(result, 0, sizeof(*result));
	llm_strbuf_init(&result->text);
	chat_template = llm_chat_template_compile(source, len, &result->err);
	if (chat_template != NULL)
		result->ok = llm_chat_template_render(chat_template, input,
											  &result->text, &result->err);
	llm_chat_template_free(chat_template);
}

static void
free_rendering(Rendering *result)
{
	llm_strbuf_free(&result->text);
}

static LlmTemplateInput
plain_input(void)
{
	return (LlmTemplateInput){
		.messages = text_of("[{\"role\": \"user\", \"content\": \"hi\"}]"),
		.now = NOW
	};
}

/* Check the text, or (expected NULL) the code and a part of the message. */
static void
check_render(const char *source, const LlmTemplateInput *input,
			 const char *expected)
{
	Rendering result;

	render_bytes(&result, source, strlen(source), input);
	if (!result.ok)
		CHECK_FAIL("%.80s: %s", source, result.err.message);
	else
		CHECK_STR_EQ(llm_strbuf_str(&result.text), expected);
	free_rendering(&result);
}

static void
check_error(const char *source, const LlmTemplateInput *input,
			LlmErrorCode code, const char *part)
{
	Rendering result;

	render_bytes(&result, source, strlen(source), input);
	if (result.ok)
		CHECK_FAIL("%.80s: rendered \"%.80s\"", source,
				   llm_strbuf_str(&result.text));
	else if (result.err.code != (int) code ||
			 strstr(result.err.message, part) == NULL)
		CHECK_FAIL("%.80s: code %d, \"%s\", expected code %d, \"%s\"", source,
				   result.err.code, result.err.message, (int) code, part);
	CHECK_INT_EQ(result.text.len, 0);
	free_rendering(&result);
}

/* ---- vectors ---- */

static char *
read_file(const char *path, size_t *len)
{
	FILE *file = fopen(path, "rb");
	char *data = malloc(MAX_VECTOR_BYTES);

	*len = 0;
	if (file != NULL && data != NULL)
		*len = fread(data, 1, MAX_VECTOR_BYTES, file);
	if (file != NULL)
		fclose(file);
	return data;
}

static const char *
string_of(const cJSON *object, const char *key)
{
	return cJSON_GetStringValue(llm_json_get(object, key));
}

/* "chat template line 3: x" without its line; other messages as they are. */
static const char *
without_line(const char *message)
{
	static const char prefix[] = "chat template line ";
	const char *rest;

	if (strncmp(message, prefix, strlen(prefix)) != 0)
		return message;
	rest = strchr(message, ':');
	return rest == NULL ? message : rest + 2;
}

static void
check_case(const char *name, const char *source, size_t len,
		   const LlmTemplateInput *input, const cJSON *expected)
{
	const char *text = string_of(expected, "text");
	const char *error = string_of(expected, "error");
	Rendering result;

	render_bytes(&result, source, len, input);
	if (text != NULL && !result.ok)
		CHECK_FAIL("%s: error \"%s\"", name, result.err.message);
	else if (text != NULL &&
			 (result.text.len != strlen(text) ||
			  memcmp(result.text.data == NULL ? "" : result.text.data, text,
					 result.text.len) != 0))
		CHECK_FAIL("%s: \"%s\", expected \"%s\"", name,
				   llm_strbuf_str(&result.text), text);
	else if (text == NULL && result.ok)
		CHECK_FAIL("%s: \"%s\", expected error \"%s\"", name,
				   llm_strbuf_str(&result.text), error == NULL ? "" : error);
	else if (error != NULL &&
			 strcmp(without_line(result.err.message), error) != 0)
		CHECK_FAIL("%s: error \"%s\", expected \"%s\"", name,
				   result.err.message, error);
	free_rendering(&result);
}

static void
language_matches_jinja2(void)
{
	LlmError err;
	cJSON *file =
		llm_json_parse_file(VECTORS "language.json", MAX_VECTOR_BYTES, &err);
	LlmTemplateInput input = plain_input();
	const cJSON *c;
	int n_cases = 0;

	REQUIRE(file != NULL);
	input.messages = text_of(string_of(file, "messages"));
	input.kwargs = text_of(string_of(file, "variables"));
	input.special_tokens = text_of(string_of(file, "special"));
	cJSON_ArrayForEach(c, llm_json_get(file, "cases"))
	{
		const char *source = string_of(c, "template");

		check_case(source, source, strlen(source), &input, c);
		n_cases++;
	}
	CHECK(n_cases >= 350);
	cJSON_Delete(file);
}

/* The text under a name that the case gives: {"a": "..."}["a"]. */
static LlmTemplateText
named_text(const cJSON *file, const cJSON *c, const char *kind)
{
	const char *name = string_of(c, kind);

	return text_of(name == NULL ? NULL
								: string_of(llm_json_get(file, kind), name));
}

static void
check_dialect_case(const cJSON *file, const cJSON *c)
{
	const char *flags = string_of(c, "flags");
	const char *dialect = string_of(c, "dialect");
	LlmTemplateInput input = { .now = NOW };
	char path[200];
	char name[200];
	char *source;
	size_t len;

	input.messages = named_text(file, c, "messages");
	input.tools = named_text(file, c, "tools");
	input.documents = named_text(file, c, "documents");
	input.kwargs = named_text(file, c, "kwargs");
	input.special_tokens = text_of(string_of(file, "special"));
	input.add_generation_prompt = flags != NULL && strchr(flags, 'g') != NULL;
	input.continue_final_message = flags != NULL && strchr(flags, 'c') != NULL;
	snprintf(path, sizeof(path), VECTORS "dialects/%s.jinja", dialect);
	snprintf(name, sizeof(name), "%s of %s (%s)", dialect,
			 string_of(c, "messages"), flags == NULL ? "" : flags);
	source = read_file(path, &len);
	REQUIRE(source != NULL && len > 0);
	check_case(name, source, len, &input, c);
	free(source);
}

static void
dialects_match_transformers(void)
{
	LlmError err;
	cJSON *file =
		llm_json_parse_file(VECTORS "dialects.json", MAX_VECTOR_BYTES, &err);
	const cJSON *c;
	int n_cases = 0;

	REQUIRE(file != NULL);
	cJSON_ArrayForEach(c, llm_json_get(file, "cases"))
	{
		check_dialect_case(file, c);
		n_cases++;
	}
	CHECK(n_cases >= 300);
	cJSON_Delete(file);
}

/* ---- input ---- */

static void
json_keeps_what_is_printed(void)
{
	LlmTemplateInput input = plain_input();

	input.kwargs = text_of(
		"{\"b\": 1, \"a\": 1.0, \"n\": 123456789012345678901234567890,"
		" \"e\": 1E2, \"z\": -0, \"f\": -0.0, \"b\": 2,"
		" \"s\": \"\\u00e9\\ud83d\\ude00\\/\\n\", \"l\": [ ] , \"o\": {}}");
	check_render("{{ b }} {{ a }} {{ n }} {{ e }} {{ z }} {{ f }} {{ s }}"
				 "{{ l }} {{ o }}",
				 &input,
				 "2 1.0 123456789012345678901234567890 100.0 0 -0.0 "
				 "\xC3\xA9\xF0\x9F\x98\x80/\n[] {}");
	input.kwargs = text_of("{\"x\": {\"b\": 1, \"a\": 2, \"b\": 3}}");
	check_render("{{ x }}", &input, "{'b': 3, 'a': 2}");
}

static void
bad_json_is_refused(void)
{
	static const char *const texts[] = {
		"",
		"[",
		"{\"a\": 1,}",
		"{\"a\" 1}",
		"{\"a\": 01}",
		"{\"a\": .5}",
		"{\"a\": 1.}",
		"{\"a\": 1e}",
		"{\"a\": +1}",
		"{\"a\": NaN}",
		"{a: 1}",
		"{\"a\": tru}",
		"{} {}",
		"{\"a\": \"\\x\"}",
		"{\"a\": \"",
		"{\"a\": \"\\u12\"}",
		"{\"a\": \"\n\"}",
	};
	LlmTemplateInput input = plain_input();

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		input.kwargs = text_of(texts[i]);
		check_error("x", &input, LLM_ERROR_INVALID,
					"template variables: invalid JSON at byte");
	}
	input.kwargs = text_of("{\"a\": \"\\ud800\"}");
	check_error("x", &input, LLM_ERROR_INVALID, "unpaired surrogate");
	input.kwargs = text_of("{\"a\": \"\xFF\"}");
	check_error("x", &input, LLM_ERROR_INVALID, "not valid UTF-8");
}

static void
bad_input_is_refused(void)
{
	LlmTemplateInput input = plain_input();

	input.messages = text_of(NULL);
	check_error("x", &input, LLM_ERROR_INVALID, "messages are missing");
	input.messages = text_of("[]");
	check_error("x", &input, LLM_ERROR_INVALID, "messages are empty");
	input.messages = text_of("{}");
	check_error("x", &input, LLM_ERROR_INVALID, "must be an array, not dict");
	input.messages = text_of("[{}, 5]");
	check_error("x", &input, LLM_ERROR_INVALID, "item 2 of messages");
	input = plain_input();
	input.tools = text_of("[\"f\"]");
	check_error("x", &input, LLM_ERROR_INVALID, "item 1 of tools");
	input.tools = text_of("null");
	check_render("{{ tools }} {{ documents }}", &input, "None None");
	input.tools = text_of("[]");
	check_render("{{ tools }}", &input, "[]");
	input = plain_input();
	input.kwargs = text_of("{\"messages\": 1}");
	check_error("x", &input, LLM_ERROR_INVALID, "may not set \"messages\"");
	input.kwargs = text_of("[]");
	check_error("x", &input, LLM_ERROR_INVALID, "must be an object");
}

static void
variables_come_before_globals(void)
{
	LlmTemplateInput input = plain_input();

	input.special_tokens = text_of("{\"bos_token\": \"<s>\", \"x\": \"1\"}");
	input.kwargs = text_of("{\"x\": 2, \"range\": \"mine\"}");
	check_render("{{ bos_token }}{{ x }}{{ range }}", &input, "<s>2mine");
}

static void
null_fields_and_reasoning_are_prepared(void)
{
	LlmTemplateInput input = plain_input();

	input.messages = text_of("[{\"role\": \"assistant\", \"content\": null, "
							 "\"reasoning\": \"r\", \"x\": {\"y\": null}}]");
	check_render("{{ messages[0] }}", &input,
				 "{'thinking': 'r', 'role': 'assistant', 'reasoning': 'r', "
				 "'x': {'y': None}, 'reasoning_content': 'r'}");
}

static void
final_message_is_left_open(void)
{
	static const char source[] =
		"{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}";
	static const char trimming[] = "{% for m in messages %}<{{ m.role }}>{{ "
								   "m.content | trim }}</>{% endfor %}";
	LlmTemplateInput input = plain_input();

	input.continue_final_message = true;
	input.messages =
		text_of("[{\"role\": \"user\", \"content\": \"a\"}, "
				"{\"role\": \"assistant\", \"content\": \"b  \"}]");
	check_render(source, &input, "<user>a</><assistant>b  ");
	check_render(trimming, &input, "<user>a</><assistant>b");
	check_error("{{ messages[0].content }}", &input, LLM_ERROR_INVALID,
				"does not appear");
	check_error("{{ messages[0]['con' + 'tent'] }}", &input, LLM_ERROR_INVALID,
				"does not use \"content\"");
	input.add_generation_prompt = true;
	check_error(source, &input, LLM_ERROR_INVALID, "exclude each other");
	input.add_generation_prompt = false;
	input.messages = text_of("[{\"role\": \"user\"}]");
	check_error(source, &input, LLM_ERROR_INVALID, "no content to continue");
	input.messages = text_of("[{\"role\": \"user\", \"content\": []}]");
	check_error(source, &input, LLM_ERROR_INVALID, "no text to continue");
	input.messages = text_of("[{\"role\": \"user\", \"content\": 5}]");
	check_error(source, &input, LLM_ERROR_INVALID, "but int");
}

/* ---- errors ---- */

static void
errors_name_their_line(void)
{
	LlmTemplateInput input = plain_input();
	Rendering result;
	static const char raising[] = "a\n{% if true %}\n{{ raise_exception('It''s "
								  "my \"message\"\\n!') }}{% endif %}";

	check_error("a\n{{ 1 }}\n{{ x.y }}", &input, LLM_ERROR_TEMPLATE,
				"chat template line 3: 'x' is undefined");
	check_error("a\n\n{% foo %}", &input, LLM_ERROR_TEMPLATE,
				"chat template line 3: Encountered unknown tag 'foo'.");
	check_error("{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}\n\n{{ m() }}",
				&input, LLM_ERROR_TEMPLATE, "line 2: division by zero");
	check_error("{{ [\n1,\n2 + 'a'\n] }}", &input, LLM_ERROR_TEMPLATE,
				"line 3");
	check_error("\n{{ 'x' | nofilter }}", &input, LLM_ERROR_TEMPLATE,
				"line 2: No filter named 'nofilter'.");
	check_error("{{ x is notest }}", &input, LLM_ERROR_TEMPLATE,
				"No test named 'notest'.");
	check_error("{{ nofunction() }}", &input, LLM_ERROR_TEMPLATE,
				"'nofunction' is undefined");
	render_bytes(&result, raising, strlen(raising), &input);
	CHECK(!result.ok);
	CHECK_INT_EQ(result.err.code, LLM_ERROR_TEMPLATE);
	CHECK_STR_EQ(result.err.message, "Its my \"message\"\n!");
	CHECK_STR_EQ(result.err.hint, "raised by the chat template in line 3");
	free_rendering(&result);
}

static void
source_must_be_text(void)
{
	LlmError err;
	char *large = malloc(LLM_JINJA_MAX_SOURCE_BYTES + 1);

	CHECK(llm_chat_template_compile("\xFF", 1, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_TEMPLATE);
	REQUIRE(large != NULL);
	memset(large, 'x', LLM_JINJA_MAX_SOURCE_BYTES + 1);
	CHECK(llm_chat_template_compile(large, LLM_JINJA_MAX_SOURCE_BYTES + 1,
									&err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);
	free(large);
	llm_chat_template_free(NULL);
}

static void
template_renders_again_and_again(void)
{
	static const char source[] =
		"{% set ns = namespace(n=0) %}{% for m in messages %}"
		"{% set ns.n = ns.n + 1 %}{{ m.content }}{% endfor %}{{ ns.n }}";
	LlmTemplateInput input = plain_input();
	LlmError err;
	LlmStrbuf out;
	LlmChatTemplate *chat_template =
		llm_chat_template_compile(source, strlen(source), &err);

	REQUIRE(chat_template != NULL);
	llm_strbuf_init(&out);
	CHECK(llm_chat_template_render(chat_template, &input, &out, &err));
	CHECK(llm_chat_template_render(chat_template, &input, &out, &err));
	CHECK_STR_EQ(llm_strbuf_str(&out), "hi1hi1");
	input.messages = text_of("[]");
	CHECK(!llm_chat_template_render(chat_template, &input, &out, &err));
	CHECK_STR_EQ(llm_strbuf_str(&out), "hi1hi1");
	llm_strbuf_free(&out);
	llm_chat_template_free(chat_template);
}

/* ---- bounds ---- */

/* "open" n times, "middle", "close" n times. */
static char *
nest(const char *open, const char *middle, const char *close, int n)
{
	LlmStrbuf buf;

	llm_strbuf_init(&buf);
	for (int i = 0; i < n; i++)
		llm_strbuf_append_str(&buf, open);
	llm_strbuf_append_str(&buf, middle);
	for (int i = 0; i < n; i++)
		llm_strbuf_append_str(&buf, close);
	return buf.data;
}

static void
check_nesting(const char *open, const char *middle, const char *close,
			  const char *part)
{
	LlmTemplateInput input = plain_input();
	char *deep = nest(open, middle, close, 20000);
	char *modest = nest(open, middle, close, 30);
	Rendering result;

	REQUIRE(deep != NULL && modest != NULL);
	check_error(deep, &input, LLM_ERROR_TEMPLATE, part);
	render_bytes(&result, modest, strlen(modest), &input);
	CHECK(result.ok);
	free_rendering(&result);
	free(deep);
	free(modest);
}

static void
nesting_is_bounded(void)
{
	check_nesting("{% if 1 %}", "x", "{% endif %}", "nested more than");
	check_nesting("{% for x in [1] %}", "x", "{% endfor %}", "nested more");
	/* one byte each, to stay below the length of a source */
	LlmTemplateInput input = plain_input();
	char *parens = nest("(", "1", ")", 1000);
	char *lists = nest("[", "1", "]", 400);
	char *minus = nest("-", "1", "", 1000);
	char *sum = nest("1+", "1", "", 1000);
	char *dots = nest("", "x", ".x", 1000);
	char *const bodies[] = { parens, lists, minus, sum, dots };

	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
	{
		LlmStrbuf source;

		llm_strbuf_init(&source);
		llm_strbuf_printf(&source, "{{ %s }}", bodies[i]);
		check_error(llm_strbuf_str(&source), &input, LLM_ERROR_TEMPLATE,
					"nested");
		llm_strbuf_free(&source);
		free(bodies[i]);
	}
}

static void
recursion_is_bounded(void)
{
	LlmTemplateInput input = plain_input();

	check_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", &input,
				LLM_ERROR_LIMIT, "recursion is more than");
	check_error("{% macro m(x) %}{% set y %}{% if x %}{{ [m(x + 1)] }}"
				"{% endif %}{% endset %}{{ y }}{% endmacro %}{{ m(1) }}",
				&input, LLM_ERROR_LIMIT, "recursion is more than");
	check_error("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
				&input, LLM_ERROR_LIMIT, "recursion is more than");
	check_error("{% set ns = namespace(x=[]) %}{% for i in range(9999) %}"
				"{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
				&input, LLM_ERROR_TEMPLATE, "nested more than");
	check_error("{% set ns = namespace(x=[], y=[]) %}"
				"{% for i in range(9999) %}{% set ns.x = [ns.x] %}"
				"{% set ns.y = [ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
				&input, LLM_ERROR_TEMPLATE, "nested more than");
	check_error("{% set ns = namespace(x=1) %}{% for i in range(9999) %}"
				"{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x | tojson }}",
				&input, LLM_ERROR_TEMPLATE, "nested more than");
	check_error("{% set ns = namespace(x=()) %}{% for i in range(9999) %}"
				"{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} }}",
				&input, LLM_ERROR_TEMPLATE, "unhashable");
	check_error("{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}"
				"{% set ns.x = ns.x | map('string') %}{% endfor %}"
				"{{ ns.x | list }}",
				&input, LLM_ERROR_LIMIT, "recursion is more than");
}

static void
work_is_bounded(void)
{
	LlmTemplateInput input = plain_input();

	check_error("{% for i in range(100000) %}{% for j in range(100000) %}"
				"{% endfor %}{% endfor %}",
				&input, LLM_ERROR_LIMIT, "steps");
	check_error("{% set x = 'aaaaaaaaaa' * 1000000 %}"
				"{% for i in range(100000) %}{% if 'ab' in x %}{% endif %}"
				"{% endfor %}",
				&input, LLM_ERROR_LIMIT, "steps");
	check_error("{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
				"{% set ns.x = ns.x + ns.x %}{% endfor %}",
				&input, LLM_ERROR_LIMIT, "grows beyond");
	check_error("{% set ns = namespace(x=[1]) %}{% for i in range(99) %}"
				"{% set ns.x = ns.x + ns.x %}{% endfor %}",
				&input, LLM_ERROR_LIMIT, "memory");
	check_error("{% set x = 'x' * 1000000 %}{% for i in range(1000) %}"
				"{{ x }}{% endfor %}",
				&input, LLM_ERROR_LIMIT, "MiB");
	check_error("{{ 'x' * 10 ** 12 }}", &input, LLM_ERROR_LIMIT, "grows");
	check_error("{{ 'a'.ljust(10 ** 15) }}", &input, LLM_ERROR_LIMIT, "grows");
	check_error("{{ [1] * 10 ** 12 }}", &input, LLM_ERROR_LIMIT, "memory");
	check_error("{{ '%99999999d' % 1 }}", &input, LLM_ERROR_TEMPLATE, "big");
	check_error("{{ '{:99999999}'.format(1) }}", &input, LLM_ERROR_TEMPLATE,
				"big");
	check_error("{{ range(10 ** 9) }}", &input, LLM_ERROR_TEMPLATE, "Range");
	check_error("{{ 10 ** 30 }}", &input, LLM_ERROR_TEMPLATE, "64 bits");
	check_error("{{ [1] | slice(10 ** 12) | list }}", &input, LLM_ERROR_LIMIT,
				"");
	check_error("{{ [1] | batch(10 ** 12, 'x') | list }}", &input,
				LLM_ERROR_LIMIT, "");
	check_error("{{ 'x' | indent(10 ** 12) }}", &input, LLM_ERROR_LIMIT,
				"grows");
}

static void
deep_json_is_refused(void)
{
	LlmTemplateInput input = plain_input();
	char *arrays = nest("[", "1", "]", 100000);
	char *objects = nest("{\"a\":", "1", "}", 100000);

	REQUIRE(arrays != NULL && objects != NULL);
	input.messages = text_of(arrays);
	check_error("x", &input, LLM_ERROR_LIMIT, "nested more than");
	input = plain_input();
	input.kwargs = text_of(objects);
	check_error("x", &input, LLM_ERROR_LIMIT, "nested more than");
	free(arrays);
	free(objects);
}

static void
interrupt_ends_rendering(void)
{
	volatile sig_atomic_t interrupt = 1;
	LlmTemplateInput input = plain_input();

	input.interrupt = &interrupt;
	check_error("{% for i in range(100000) %}{{ i }}{% endfor %}", &input,
				LLM_ERROR_CANCELLED, "canceled");
	interrupt = 0;
	check_render("{{ 1 }}", &input, "1");
}

static void
time_is_the_callers(void)
{
	LlmTemplateInput input = plain_input();

	check_render("{{ strftime_now('%d %b %Y, %H:%M:%S.%f%z') }}", &input,
				 "24 Jul 2025, 13:00:00.000000");
	input.now = 0;
	check_render("{{ strftime_now('%Y-%m-%d') }}", &input, "1970-01-01");
}

/* ---- input broken at random ---- */

typedef struct Random
{
	uint64_t seed;
	uint64_t counter;
} Random;

static uint32_t
draw(Random *random, uint32_t below)
{
	return llm_philox(random->seed, random->counter++, 0).word[0] % below;
}

/* A few bytes removed, doubled, swapped or replaced. */
static char *
mutate(Random *random, const char *text, size_t len, size_t *mutated_len)
{
	static const char *const pieces[] = {
		"{%",	  "%}",	  "{{",	  "}}", "{#",		 "-%}", "|",  "(",	")",
		"[",	  "]",	  "{",	  "}",	"endfor",	 "if ", "\"", "'",	"\\",
		"[::-1]", " is ", " in ", "*",	"| tojson ", ",",	":",  "\n", "1e999",
	};
	char *copy = malloc(2 * len + 64);
	size_t n = len;

	*mutated_len = len;
	if (copy == NULL || len == 0)
		return copy;
	memcpy(copy, text, len);
	for (uint32_t i = 0, turns = 1 + draw(random, 4); i < turns; i++)
	{
		const char *piece =
			pieces[draw(random, sizeof(pieces) / sizeof(pieces[0]))];
		size_t at = draw(random, (uint32_t) n);
		size_t span = 1 + draw(random, 12);

		span = span < n - at ? span : n - at;
		switch (draw(random, 4))
		{
			case 0:
				memmove(copy + at, copy + at + span, n - at - span);
				n = n > span ? n - span : 1;
				break;
			case 1:
				memmove(copy + at + strlen(piece), copy + at, n - at);
				memcpy(copy + at, piece, strlen(piece));
				n += strlen(piece);
				break;
			case 2:
				memmove(copy + draw(random, (uint32_t) (n - span + 1)),
						copy + at, span);
				break;
			default:
				copy[at] = (char) draw(random, 128);
		}
	}
	*mutated_len = n;
	return copy;
}

/* Whatever happens, it is a text or an error, within bounds. */
static void
check_mutation(Random *random, const char *source, const cJSON *file)
{
	LlmTemplateInput input = { .now = NOW };
	const char *messages = string_of(file, "messages");
	const char *variables = string_of(file, "variables");
	bool breaks_input = draw(random, 4) == 0;
	size_t source_len = strlen(source);
	size_t len;
	char *broken;
	char *broken_input = NULL;
	Rendering result;

	input.messages = text_of(messages);
	input.kwargs = text_of(variables);
	if (breaks_input)
	{
		broken_input =
			mutate(random, variables, strlen(variables), &input.kwargs.len);
		input.kwargs.data = broken_input;
	}
	broken = mutate(random, source, source_len, &len);
	REQUIRE(broken != NULL);
	render_bytes(&result, broken, len, &input);
	if (!result.ok)
	{
		CHECK(result.err.code > LLM_OK && result.err.code < LLM_ERROR_INTERNAL);
		CHECK_INT_EQ(result.text.len, 0);
	}
	CHECK(result.text.len <= LLM_JINJA_MAX_OUTPUT_BYTES);
	CHECK(result.text.len == 0 ||
		  llm_utf8_is_valid(result.text.data, result.text.len));
	free_rendering(&result);
	free(broken);
	free(broken_input);
}

static void
broken_templates_do_no_harm(void)
{
	LlmError err;
	cJSON *file =
		llm_json_parse_file(VECTORS "language.json", MAX_VECTOR_BYTES, &err);
	Random random = { .seed = 20 };
	const cJSON *cases;
	int n_cases;

	REQUIRE(file != NULL);
	cases = llm_json_get(file, "cases");
	n_cases = cJSON_GetArraySize(cases);
	for (int i = 0; i < N_MUTATIONS; i++)
	{
		const cJSON *c =
			cJSON_GetArrayItem(cases, (int) draw(&random, (uint32_t) n_cases));

		check_mutation(&random, string_of(c, "template"), file);
	}
	cJSON_Delete(file);
}

int
main(void)
{
	setenv("TZ", "UTC", 1);
	tzset();
	RUN_TEST(language_matches_jinja2);
	RUN_TEST(dialects_match_transformers);
	RUN_TEST(json_keeps_what_is_printed);
	RUN_TEST(bad_json_is_refused);
	RUN_TEST(bad_input_is_refused);
	RUN_TEST(variables_come_before_globals);
	RUN_TEST(null_fields_and_reasoning_are_prepared);
	RUN_TEST(final_message_is_left_open);
	RUN_TEST(errors_name_their_line);
	RUN_TEST(source_must_be_text);
	RUN_TEST(template_renders_again_and_again);
	RUN_TEST(nesting_is_bounded);
	RUN_TEST(recursion_is_bounded);
	RUN_TEST(work_is_bounded);
	RUN_TEST(deep_json_is_refused);
	RUN_TEST(interrupt_ends_rendering);
	RUN_TEST(time_is_the_callers);
	RUN_TEST(broken_templates_do_no_harm);
	return unit_test_finish();
}
