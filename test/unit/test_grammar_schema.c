/*
 * test_grammar_schema.c
 *	  Unit tests of src/common/grammar: JSON Schema.
 *
 * test/unit/test_grammar_schema.c
 */
#include <cjson/cJSON.h>

#include "test/unit/grammar_rig.h"

#define SCHEMA llm_grammar_compile_json_schema

static void
test_schema_scalars(void)
{
	check_language(SCHEMA, "{\"type\":\"null\"}", LIST("null"), LIST("1", ""));
	check_language(SCHEMA, "{\"type\":\"boolean\"}", LIST("true", "false"),
				   LIST("\"true\"", "null"));
	check_language(SCHEMA, "{\"type\":\"integer\"}",
				   LIST("0", "-1", "12345678901"),
				   LIST("01", "-0", "1.0", "1e3", "-", "+1"));
	check_language(SCHEMA, "{\"type\":\"number\"}",
				   LIST("0", "-1.5", "1e10", "0.001", "1.25E-7"),
				   LIST("00", ".5", "1.", "1e", "-", "1e1000"));
	check_language(SCHEMA, "{\"type\":[\"integer\",\"null\"]}",
				   LIST("1", "null"), LIST("true", "1.5"));
	check_language(SCHEMA, "{\"type\":\"integer\",\"nullable\":true}",
				   LIST("1", "null"), LIST("true"));
	check_language(SCHEMA, "{\"enum\":[\"a\",1,null,{\"k\":[1,\"x\"]},1.5]}",
				   LIST("\"a\"", "1", "null", "{\"k\":[1,\"x\"]}", "1.5"),
				   LIST("\"b\"", "a", "{}"));
	check_language(SCHEMA, "{\"type\":\"string\",\"enum\":[\"a\",1,\"\\\"q\"]}",
				   LIST("\"a\"", "\"\\\"q\""), LIST("1"));
	check_language(SCHEMA, "{\"const\":{\"a\":true}}", LIST("{\"a\":true}"),
				   LIST("{}", "true"));
}

static void
test_schema_numbers(void)
{
	check_language(SCHEMA,
				   "{\"type\":\"integer\",\"minimum\":-12,\"maximum\":105}",
				   LIST("-12", "-9", "-1", "0", "9", "10", "99", "100", "105"),
				   LIST("-13", "106", "110", "1000", "-20", "-0"));
	check_language(
		SCHEMA,
		"{\"type\":\"integer\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":3}",
		LIST("1", "2"), LIST("0", "3", "-1"));
	check_language(SCHEMA,
				   "{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}",
				   LIST("2", "3"), LIST("1", "4"));
	check_language(SCHEMA, "{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
				   LIST("0", "0.0", "0.5", "1", "1.00", "0.999"),
				   LIST("1.01", "-0.1", "2", "10", "1e-1"));
	check_language(SCHEMA, "{\"type\":\"number\",\"exclusiveMinimum\":0.25}",
				   LIST("0.26", "0.251", "1", "1000000.5", "0.2500001"),
				   LIST("0.25", "0.250", "0", "0.2", "-1"));
	check_language(SCHEMA,
				   "{\"type\":\"number\",\"minimum\":-1.5,"
				   "\"exclusiveMaximum\":-0.5}",
				   LIST("-1.5", "-1", "-0.51", "-1.49"),
				   LIST("-0.5", "-1.51", "0", "1", "-0.50", "-2"));
	check_language(SCHEMA, "{\"type\":\"integer\",\"maximum\":-10}",
				   LIST("-10", "-11", "-99", "-100"), LIST("-9", "0", "10"));
	check_language(SCHEMA, "{\"type\":\"integer\",\"minimum\":1e3}",
				   LIST("1000", "1001", "25000"), LIST("999", "0"));
	check_language(SCHEMA, "{\"type\":\"integer\",\"multipleOf\":7}",
				   LIST("0", "7", "-14", "700"), LIST("1", "15"));
	check_language(SCHEMA, "{\"type\":\"number\",\"multipleOf\":0.01}",
				   LIST("0", "1.5", "1.25"), LIST("1.255"));
	check_language(
		SCHEMA,
		"{\"allOf\":[{\"type\":\"integer\",\"minimum\":1},{\"maximum\":5},"
		"{\"type\":\"number\",\"minimum\":3}]}",
		LIST("3", "5"), LIST("2", "6", "3.5"));
}

static void
test_schema_strings(void)
{
	check_language(SCHEMA, "{\"type\":\"string\"}",
				   LIST("\"\"", "\"a\\n\\u00e9\\/\"", "\"\xC3\xA9\"",
						"\"\\ud83d\\ude00\"", "\"\\ufffd\\u0a00\\u0001\""),
				   LIST("\"", "\"\n\"", "\"\\x\"", "\"\xFF\"", "\"\\ud800\"",
						"\"\\u0000\"", "\"\\udc00\"", "\"a\"\""));
	check_language(SCHEMA,
				   "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
				   LIST("\"ab\"", "\"\xC3\xA9\\n\\u00e9\"",
						"\"\\ud83d\\ude00\xF0\x9F\x98\x80\""),
				   LIST("\"a\"", "\"abcd\"", "\"\\n\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"pattern\":\"^a+\\\"$\"}",
				   LIST("\"a\\\"\"", "\"aa\\\"\""), LIST("\"a\"", "\"a\"\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"pattern\":\"b\"}",
				   LIST("\"b\"", "\"abc\"", "\"\\nb\""), LIST("\"a\"", "\"\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"format\":\"date\"}",
				   LIST("\"2024-02-29\"", "\"2023-12-31\"", "\"2000-02-29\""),
				   LIST("\"2023-02-29\"", "\"1900-02-29\"", "\"2024-04-31\"",
						"\"0000-01-01\"", "\"2024-1-1\""));
	check_language(
		SCHEMA, "{\"type\":\"string\",\"format\":\"date-time\"}",
		LIST("\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.25+02:00\""),
		LIST("\"2024-02-29 23:59:59Z\"", "\"2024-02-29T24:00:00Z\"",
			 "\"2024-02-29T23:59:59\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"format\":\"time\"}",
				   LIST("\"01:02:03Z\""), LIST("\"1:02:03Z\"", "\"01:02\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"format\":\"uuid\"}",
				   LIST("\"2eb8aa08-aa98-11ea-b4aa-73b441d16380\""),
				   LIST("\"2eb8aa08aa9811eab4aa73b441d16380\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"format\":\"email\"}",
				   LIST("\"joe.x+y@example.com\""),
				   LIST("\"joe\"", "\"@x.de\"", "\"a b@x.de\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"format\":\"ipv4\"}",
				   LIST("\"192.168.0.255\""), LIST("\"256.1.1.1\"", "\"1.2\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"format\":\"ipv6\"}",
				   LIST("\"::1\"", "\"1:2:3:4:5:6:7:8\"", "\"fe80::1\""),
				   LIST("\"1:2\"", "\"12345::\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"format\":\"uri\"}",
				   LIST("\"https://a.example/x?q=1#f\""), LIST("\"a b\""));
	check_language(SCHEMA, "{\"type\":\"string\",\"format\":\"duration\"}",
				   LIST("\"P1Y2M3D\"", "\"PT5M\""), LIST("\"P\"", "\"5M\""));
}

static void
test_schema_objects(void)
{
	check_language(
		SCHEMA,
		"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":"
		"\"integer\"},\"b\":{\"type\":\"boolean\"},\"c\":{\"type\":"
		"\"null\"}},\"required\":[\"b\"]}",
		LIST("{\"b\":true}", "{\"a\": 1, \"b\": true}",
			 "{\"b\":true,\"c\":null}", "{\"a\":1,\"b\":true,\"c\":null}"),
		LIST("{}", "{\"a\":1}", "{\"b\":true,\"a\":1}", "{\"b\":true,}",
			 "{,\"b\":true}", "{\"b\":true,\"d\":1}", "{\"b\":  true}",
			 "{ \"b\":true}", "{\"b\":1}"));
	check_language(SCHEMA,
				   "{\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2}}}",
				   LIST("{}", "{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"b\":2}"),
				   LIST("{\"a\":1\"b\":2}", "1"));
	check_language(
		SCHEMA,
		"{\"type\":\"object\",\"properties\":{\"ab\":{\"const\":1},\"\":"
		"{\"const\":3}},\"additionalProperties\":{\"const\":2}}",
		LIST("{}", "{\"ab\":1}", "{\"a\":2}", "{\"abc\":2,\"b\":2}",
			 "{\"ab\":1,\"\":3,\"x\\\"\":2}", "{\"\xC3\xA9\":2}"),
		LIST("{\"ab\":2}", "{\"\":2}", "{\"a\":1}", "{\"a\\u0062\":2}",
			 "{\"x\":2,\"ab\":1}"));
	check_language(
		SCHEMA, "{\"type\":\"object\"}",
		LIST("{}", "{\"a\":{\"b\":[1,{}]}}", "{\"a\":1, \"b\":\"\"}"),
		LIST("[]", "{\"a\"}", "{1:2}"));
	check_language(SCHEMA,
				   "{\"type\":\"object\",\"additionalProperties\":{\"type\":"
				   "\"integer\"},\"minProperties\":1,\"maxProperties\":2}",
				   LIST("{\"a\":1}", "{\"a\":1,\"b\":2}"),
				   LIST("{}", "{\"a\":1,\"b\":2,\"c\":3}", "{\"a\":\"\"}"));
	check_language(SCHEMA,
				   "{\"type\":\"object\",\"required\":[\"x\"],"
				   "\"properties\":{\"y\":false,\"z\":true}}",
				   LIST("{\"x\":1}", "{\"z\":[],\"x\":{}}"),
				   LIST("{}", "{\"y\":1,\"x\":1}"));
	check_language(SCHEMA,
				   "{\"allOf\":[{\"properties\":{\"a\":{\"minimum\":1}},"
				   "\"required\":[\"a\"]},{\"properties\":{\"a\":{\"type\":"
				   "\"integer\",\"maximum\":2},\"b\":{\"const\":0}}}]}",
				   LIST("{\"a\":1}", "{\"a\":2,\"b\":0}"),
				   LIST("{\"a\":0}", "{\"a\":3}", "{\"b\":0}"));
}

static void
test_schema_arrays(void)
{
	check_language(SCHEMA, "{\"type\":\"array\",\"items\":{\"const\":1}}",
				   LIST("[]", "[1]", "[1, 1,1]"),
				   LIST("[1,]", "[,1]", "[2]", "[1 1]", "[ 1]"));
	check_language(
		SCHEMA, "{\"type\":\"array\",\"items\":{\"const\":1},\"minItems\":1}",
		LIST("[1]", "[1,1]"), LIST("[]"));
	check_language(SCHEMA,
				   "{\"type\":\"array\",\"items\":{\"const\":1},\"minItems\":2,"
				   "\"maxItems\":3}",
				   LIST("[1,1]", "[1,1,1]"), LIST("[]", "[1]", "[1,1,1,1]"));
	check_language(SCHEMA, "{\"type\":\"array\",\"maxItems\":0,\"items\":{}}",
				   LIST("[]"), LIST("[1]"));
	check_language(SCHEMA,
				   "{\"prefixItems\":[{\"const\":1},{\"const\":2}],"
				   "\"items\":{\"const\":3},\"minItems\":1,\"maxItems\":4}",
				   LIST("[1]", "[1,2]", "[1,2,3]", "[1,2,3,3]"),
				   LIST("[]", "[2]", "[1,3]", "[1,2,3,3,3]"));
	check_language(SCHEMA, "{\"prefixItems\":[{\"const\":1}],\"items\":false}",
				   LIST("[]", "[1]"), LIST("[1,1]"));
	check_language(SCHEMA, "{\"type\":\"array\"}",
				   LIST("[]", "[1,\"a\",[null]]"), LIST("{}", "[", "[[]"));
}

#define TREE                                                               \
	"{\"$ref\":\"#/$defs/tree\",\"$defs\":{\"tree\":{\"type\":\"object\"," \
	"\"properties\":{\"v\":{\"type\":\"integer\"},\"kids\":{\"type\":"     \
	"\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"}}},\"required\":["     \
	"\"v\"]}}}"
#define UNION                                                               \
	"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":" \
	"\"a\"},\"x\":{\"type\":\"integer\"}},\"required\":[\"kind\",\"x\"]},"  \
	"{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"b\"},"      \
	"\"next\":{\"$ref\":\"#\"}},\"required\":[\"kind\"]},{\"type\":"        \
	"\"null\"}]}"

static void
test_schema_combined(void)
{
	check_language(SCHEMA, TREE,
				   LIST("{\"v\":1}",
						"{\"v\":1,\"kids\":[{\"v\":2},{\"v\":3,\"kids\":[]}]}"),
				   LIST("{}", "{\"v\":1,\"kids\":[1]}"));
	check_language(
		SCHEMA, UNION,
		LIST("null", "{\"kind\":\"a\",\"x\":1}",
			 "{\"kind\":\"b\",\"next\":{\"kind\":\"b\",\"next\":null}}"),
		LIST("{\"kind\":\"a\"}", "{\"kind\":\"c\"}"));
	check_language(SCHEMA,
				   "{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\","
				   "\"maxLength\":1}],\"title\":\"t\",\"x-vendor\":1}",
				   LIST("1", "\"a\""), LIST("null", "\"ab\""));
	check_language(SCHEMA,
				   "{\"type\":\"integer\",\"minimum\":0,\"anyOf\":[{\"maximum\""
				   ":3},{\"minimum\":7}]}",
				   LIST("0", "3", "7", "10"), LIST("-1", "4", "6"));
	check_language(SCHEMA, "true", LIST("1", "{\"a\":[]}", "\"x\""), LIST(""));
	check_language(SCHEMA,
				   "{\"$ref\":\"#/definitions/a~1b%25\","
				   "\"definitions\":{\"a/b%\":{\"const\":1}}}",
				   LIST("1"), LIST("2"));
}

static void
test_schema_errors(void)
{
	LlmErrorCode unsupported = LLM_ERROR_UNSUPPORTED;

	check_error(SCHEMA, "{\"properties\":{\"a/b\":{\"$dynamicRef\":\"#\"}}}",
				unsupported, "\"$dynamicRef\" at /properties/a~1b/$dynamicRef");
	check_error(SCHEMA, "{\"type\":\"array\",\"uniqueItems\":true}",
				unsupported, "\"uniqueItems\" at /uniqueItems");
	check_error(SCHEMA, "{\"not\":{\"uniqueItems\":true}}", unsupported,
				"\"uniqueItems\" at /not/uniqueItems");
	check_error(SCHEMA, "{\"anyOf\":[{},{\"not\":{\"$dynamicRef\":\"\"}}]}",
				unsupported, "\"$dynamicRef\" at /anyOf/1/not/$dynamicRef");
	check_error(SCHEMA, "{\"type\":\"string\",\"format\":\"color\"}",
				unsupported, "format \"color\"");
	check_error(SCHEMA, "{\"type\":\"string\",\"pattern\":\"(?=a)\"}",
				unsupported, "\"pattern\" at /pattern");
	check_error(SCHEMA,
				"{\"oneOf\":[{\"type\":\"array\"},{\"uniqueItems\":true}]}",
				unsupported, "\"oneOf\" at /oneOf");
	check_error(SCHEMA, "{\"$ref\":\"http://x\"}", unsupported, "\"$ref\"");
	check_error(SCHEMA, "{\"$ref\":\"#/nowhere\"}", LLM_ERROR_FORMAT,
				"points to nothing");
	check_error(SCHEMA, "{\"$ref\":\"#\"}", LLM_ERROR_INVALID,
				"refers to itself");
	check_error(SCHEMA, "{\"type\":\"integer\",\"multipleOf\":1001}",
				unsupported, "\"multipleOf\" at /multipleOf");
	check_error(SCHEMA, "{\"type\":\"color\"}", LLM_ERROR_FORMAT, "is no type");
	check_error(SCHEMA, "{\"type\":\"string\",\"minLength\":-1}",
				LLM_ERROR_FORMAT, "is no count");
	check_error(SCHEMA, "{\"type\":\"string\",\"enum\":[1]}", LLM_ERROR_INVALID,
				"no text satisfies");
	check_error(SCHEMA, "false", LLM_ERROR_INVALID, "no text satisfies");
	check_error(SCHEMA,
				"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},"
				"\"required\":[\"a\"]}",
				LLM_ERROR_INVALID, "no text satisfies");
	check_error(SCHEMA, "{\"type\":\"string\",", LLM_ERROR_FORMAT, "no JSON");
	check_error(SCHEMA, "{\"type\":1,\"type\":2}", LLM_ERROR_FORMAT, "twice");
	check_error(SCHEMA, "{\"enum\":[1],\"minimum\":2}", LLM_ERROR_INVALID,
				"no text satisfies");
	check_error(SCHEMA, "17", LLM_ERROR_FORMAT, "neither an object");
}

static void
test_schema_masks(void)
{
	check_masks(SCHEMA, "{\"type\":\"object\"}");
	check_masks(SCHEMA, TREE);
	check_masks(SCHEMA, UNION);
	check_masks(SCHEMA, "{\"type\":\"array\",\"items\":{\"type\":\"string\","
						"\"minLength\":2,\"maxLength\":9},\"maxItems\":3}");
	check_masks(SCHEMA,
				"{\"properties\":{\"name\":{\"type\":\"string\"},\"age\":"
				"{\"type\":\"number\",\"minimum\":-12.5,\"maximum\":123},"
				"\"at\":{\"type\":\"string\",\"format\":\"date-time\"}},"
				"\"additionalProperties\":{\"type\":\"boolean\"}}");
}

/* -- schemas written with ' for " -- */

static char *
quoted(const char *text)
{
	char *copy = strdup(text);

	for (char *c = copy; *c != '\0'; c++)
	{
		if (*c == '\'')
			*c = '"';
	}
	return copy;
}

static void
check_texts(LlmGrammar *grammar, const char *source, const char *const *texts,
			bool accepted)
{
	for (; *texts != NULL; texts++)
	{
		char *text = quoted(*texts);

		if (matches(grammar, text) != accepted)
			CHECK_FAIL("%s %s %s", source,
					   accepted ? "does not accept" : "accepts", text);
		free(text);
	}
}

static void
check_schema(const char *schema, const char *const *accepted,
			 const char *const *rejected)
{
	char *source = quoted(schema);
	LlmGrammar *grammar = open_source(SCHEMA, source);

	if (grammar == NULL)
		CHECK_FAIL("%s: %s", source, err.message);
	else
	{
		check_texts(grammar, source, accepted, true);
		check_texts(grammar, source, rejected, false);
	}
	llm_grammar_close(grammar);
	free(source);
}

static void
check_refused(const char *schema, LlmErrorCode code, const char *part)
{
	char *source = quoted(schema);

	check_error(SCHEMA, source, code, part);
	free(source);
}

static void
test_pattern_lengths(void)
{
	check_schema("{'type':'string','pattern':'^[a-z]+$','maxLength':3}",
				 LIST("'a'", "'abc'"), LIST("''", "'abcd'", "'A'"));
	check_schema("{'pattern':'^x[a-z]*y?$','minLength':2,'maxLength':3}",
				 LIST("'xa'", "'xy'", "'xay'"), LIST("'x'", "'xabc'", "'ay'"));
	check_schema("{'pattern':'^(ab)*$','minLength':3,'maxLength':5}",
				 LIST("'abab'"), LIST("''", "'ab'", "'aba'", "'ababab'"));
	check_schema("{'pattern':'^(a|bb|[0-9]{2,9})$','maxLength':2}",
				 LIST("'a'", "'bb'", "'12'"), LIST("'123'"));
	check_schema("{'pattern':'b','maxLength':3}",
				 LIST("'b'", "'abc'",
					  "'\xC3\xA9"
					  "b'"),
				 LIST("''", "'aaa'", "'aaab'"));
	check_schema("{'pattern':'^[\xC3\xA9\xE2\x82\xAC]*$','minLength':1,"
				 "'maxLength':2}",
				 LIST("'\xC3\xA9'", "'\xE2\x82\xAC\xC3\xA9'"),
				 LIST("''", "'\xC3\xA9\xC3\xA9\xC3\xA9'"));
	check_schema("{'allOf':[{'pattern':'^a'},{'pattern':'z$'},{'pattern':"
				 "'[0-9]'}]}",
				 LIST("'a0z'", "'az1z'"), LIST("'az'", "'0az'", "'a0'"));
	check_schema("{'pattern':'^(?=.*[A-Z])(?=.*[0-9]).{2,}$','maxLength':3}",
				 LIST("'A1'", "'1xA'"), LIST("'A'", "'ab1'", "'1AAA'"));
	check_schema("{'pattern':'^(?!-)[a-z-]+','not':{'pattern':'^(?=a)a(b|c)'}}",
				 LIST("'b-'", "'ad'"), LIST("'-a'", "'ab'", "''"));
	check_schema("{'type':'string','format':'date','pattern':'^20'}",
				 LIST("'2024-02-29'"), LIST("'1999-01-01'", "'2023-02-29'"));
	check_schema("{'type':'string','format':'email','maxLength':8}",
				 LIST("'a@b.cd'"), LIST("'abc@de.fgh'", "'a@b'"));
	check_schema("{'type':'string','format':'uuid','maxLength':36}",
				 LIST("'00000000-0000-4000-8000-000000000000'"), LIST("''"));
	check_refused("{'pattern':'^(a*b*c*)$','maxLength':10000}", LLM_ERROR_LIMIT,
				  "automaton of too many states");
	check_refused("{'pattern':'^[a-z]$','minLength':2}", LLM_ERROR_INVALID,
				  "no text satisfies");
	check_refused("{'pattern':'^(ab)*$','minLength':3,'maxLength':3}",
				  LLM_ERROR_INVALID, "no text satisfies");
}

static void
test_formats(void)
{
	check_schema("{'type':'string','format':'uuid4'}",
				 LIST("'00000000-0000-4000-8000-000000000000'"),
				 LIST("'00000000-0000-3000-8000-000000000000'"));
	check_schema("{'type':'integer','format':'int32'}",
				 LIST("2147483647", "-2147483648", "0"),
				 LIST("2147483648", "-2147483649", "0.5"));
	check_schema("{'type':'number','format':'double'}", LIST("1.5e3", "7"),
				 LIST("'a'"));
	check_schema("{'type':'string','format':'password','minLength':2}",
				 LIST("'ab'"), LIST("'a'"));
	check_schema("{'type':'string','format':'json-pointer'}",
				 LIST("''", "'/a~0/b'"), LIST("'a'", "'/~2'"));
	check_refused("{'type':'integer','format':'color'}", LLM_ERROR_UNSUPPORTED,
				  "format \"color\"");
}

static void
test_multiples(void)
{
	check_schema("{'type':'number','multipleOf':0.25}",
				 LIST("0.25", "1.5", "-3.75", "2"), LIST("0.3", "0.125"));
	check_schema("{'type':'integer','multipleOf':0.3}", LIST("0", "3", "-27"),
				 LIST("1", "4"));
	check_schema("{'allOf':[{'multipleOf':4},{'multipleOf':6}]}",
				 LIST("0", "12", "-120"), LIST("4", "6", "18"));
	check_schema("{'type':'integer','multipleOf':250,'minimum':1,"
				 "'maximum':1000}",
				 LIST("250", "1000"), LIST("0", "125", "1250"));
	check_schema("{'type':'number','not':{'type':'integer'}}",
				 LIST("0.5", "-1.25"), LIST("1", "2.0", "0", "1e-1"));
	check_schema("{'type':'integer','not':{'multipleOf':3}}",
				 LIST("1", "-2", "100"), LIST("0", "3", "-99"));
}

static void
test_not(void)
{
	check_schema("{'not':{'type':'string'}}", LIST("1", "null", "[]", "{}"),
				 LIST("'a'"));
	check_schema("{'type':'string','not':{'enum':['a','b\\n']}}",
				 LIST("''", "'ab'", "'b'"), LIST("'a'", "'b\\n'", "1"));
	check_schema("{'type':'integer','not':{'enum':[3,5]}}",
				 LIST("2", "4", "6", "-3"), LIST("3", "5"));
	check_schema("{'type':'boolean','not':{'const':true}}", LIST("false"),
				 LIST("true"));
	check_schema("{'type':'number','minimum':0,'not':{'minimum':2.5}}",
				 LIST("0", "2.49"), LIST("2.5", "3", "-1"));
	check_schema("{'type':'string','maxLength':4,'not':{'pattern':'^a'}}",
				 LIST("''", "'ba'"), LIST("'a'", "'ab'"));
	check_schema("{'type':'object','properties':{'a':{'type':'integer'},'b':"
				 "{'type':'integer'}},'not':{'required':['a','b']}}",
				 LIST("{}", "{'a':1}", "{'b':1}"), LIST("{'a':1,'b':1}"));
	check_schema("{'type':'object','properties':{'a':{'type':'integer'}},"
				 "'not':{'properties':{'a':{'maximum':3}}}}",
				 LIST("{'a':4}"), LIST("{}", "{'a':3}"));
	check_schema("{'type':'array','items':{'type':'integer'},'not':{'items':"
				 "{'minimum':0}}}",
				 LIST("[-1]", "[1,-1,2]"), LIST("[]", "[1]"));
	check_schema("{'type':'array','items':{'const':1},'not':{'maxItems':1}}",
				 LIST("[1,1]", "[1,1,1]"), LIST("[]", "[1]"));
	check_schema("{'type':'integer','not':{'anyOf':[{'minimum':5},{'not':"
				 "{'minimum':0}}]}}",
				 LIST("0", "4"), LIST("5", "-1"));
	check_schema("{'type':'object','properties':{'next':{'$ref':'#'},'v':"
				 "{'not':{'$ref':'#/$defs/big'}}},'$defs':{'big':{'type':"
				 "'integer','minimum':10}}}",
				 LIST("{'next':{'v':9}}", "{'v':null}"), LIST("{'v':10}"));
	check_refused("{'not':{}}", LLM_ERROR_INVALID, "no text satisfies");
}

static void
test_one_of(void)
{
	check_schema("{'oneOf':[{'type':'integer'},{'type':'number','minimum':2}]}",
				 LIST("1", "-7", "2.5"), LIST("2", "3", "1.5"));
	check_schema("{'oneOf':[{'type':'integer','maximum':5},{'type':'integer',"
				 "'minimum':3}]}",
				 LIST("2", "6"), LIST("3", "4", "5"));
	check_schema("{'type':'string','oneOf':[{'pattern':'^a'},{'pattern':'z$'}]"
				 "}",
				 LIST("'ab'", "'bz'"), LIST("'az'", "'b'"));
	check_schema("{'oneOf':[{'type':'string','format':'uuid'},{'type':'string',"
				 "'maxLength':3}]}",
				 LIST("'abc'", "'00000000-0000-0000-0000-000000000000'"),
				 LIST("'abcd'"));
	check_schema("{'type':'object','properties':{'a':{'const':1},'b':{'const':"
				 "2}},'oneOf':[{'required':['a']},{'required':['b']}]}",
				 LIST("{'a':1}", "{'b':2}"), LIST("{}", "{'a':1,'b':2}"));
	check_schema("{'oneOf':[{'properties':{'a':{'type':'integer'}},"
				 "'additionalProperties':false},{'properties':{'b':{'type':"
				 "'integer'}},'additionalProperties':false}]}",
				 LIST("{'a':1}", "{'b':2}"), LIST("{}", "{'a':1,'b':2}"));
	check_schema("{'oneOf':[{'const':'a'},{'type':'string','minLength':2},"
				 "{'enum':['a','bb','c']}]}",
				 LIST("'c'", "'xy'"), LIST("'a'", "'bb'", "'x'"));
	check_schema("{'oneOf':[{'type':'array','items':{'type':'integer'}},"
				 "{'type':'array','items':{'type':'string'}}]}",
				 LIST("[1]", "['a','b']"), LIST("[]", "[1,'a']"));
}

static void
test_conditions(void)
{
	check_schema(
		"{'type':'object','properties':{'kind':{'enum':['a','b']},"
		"'x':{'const':1},'y':{'const':2}},'required':['kind'],'if':"
		"{'properties':{'kind':{'const':'a'}}},'then':{'required':"
		"['x']},'else':{'required':['y'],'properties':{'x':false}}}",
		LIST("{'kind':'a','x':1}", "{'kind':'a','x':1,'y':2}",
			 "{'kind':'b','y':2}"),
		LIST("{'kind':'a'}", "{'kind':'b'}", "{'kind':'b','x':1,'y':2}"));
	check_schema("{'type':'integer','if':{'minimum':10},'then':{'multipleOf':"
				 "5}}",
				 LIST("3", "10", "15"), LIST("11"));
	check_schema("{'type':'object','properties':{'a':{'const':1},'b':{'const':"
				 "2},'c':{'const':3}},'dependentRequired':{'a':['b','c']}}",
				 LIST("{}", "{'b':2}", "{'a':1,'b':2,'c':3}"),
				 LIST("{'a':1}", "{'a':1,'b':2}"));
	check_schema("{'properties':{'a':{'const':1},'b':{'type':'integer'}},"
				 "'dependentSchemas':{'a':{'properties':{'b':{'minimum':5}}}}}",
				 LIST("{'b':1}", "{'a':1,'b':5}"), LIST("{'a':1,'b':4}"));
}

static void
test_names(void)
{
	check_schema("{'type':'object','patternProperties':{'^a':{'const':1},'z$':"
				 "{'type':'integer'}}}",
				 LIST("{}", "{'a':1}", "{'bz':7,'az':1}"),
				 LIST("{'a':2}", "{'az':2}", "{'b':1}"));
	check_schema("{'type':'object','properties':{'ab':{'const':7}},"
				 "'patternProperties':{'^a':{'type':'integer'}},"
				 "'additionalProperties':{'const':'x'}}",
				 LIST("{'ab':7,'a':1,'b':'x'}"),
				 LIST("{'ab':1}", "{'a':'x'}", "{'b':1}"));
	check_schema("{'type':'object','propertyNames':{'pattern':'^[a-z]+$',"
				 "'maxLength':2},'additionalProperties':{'const':1}}",
				 LIST("{}", "{'ab':1,'c':1}"), LIST("{'abc':1}", "{'A':1}"));
	check_schema("{'type':'object','propertyNames':{'enum':['p','q']},"
				 "'additionalProperties':{'const':1},'properties':{'r':{}}}",
				 LIST("{'p':1}", "{'q':1}"), LIST("{'r':1}", "{'s':1}"));
	check_schema("{'type':'object','properties':{'a':{'const':1},'b':{'const':"
				 "1},'c':{'const':1}},'minProperties':2,'maxProperties':2}",
				 LIST("{'a':1,'b':1}", "{'b':1,'c':1}", "{'a':1,'c':1}"),
				 LIST("{}", "{'a':1}", "{'a':1,'b':1,'c':1}"));
	check_schema("{'type':'object','properties':{'a':{'const':1}},'required':"
				 "['a'],'minProperties':2,'maxProperties':3,"
				 "'additionalProperties':{'const':2}}",
				 LIST("{'a':1,'b':2}", "{'a':1,'b':2,'c':2}"),
				 LIST("{'a':1}", "{'b':2,'c':2}", "{'a':1,'b':2,'c':2,'d':2}"));
	check_refused("{'type':'object','minProperties':2}", LLM_ERROR_UNSUPPORTED,
				  "\"minProperties\" at /minProperties");
}

static void
test_contains(void)
{
	check_schema("{'type':'array','items':{'type':'integer'},'contains':"
				 "{'const':7}}",
				 LIST("[7]", "[1,7,2]", "[7,7]"), LIST("[]", "[1]"));
	check_schema("{'type':'array','items':{'type':'integer'},'contains':"
				 "{'minimum':5},'minContains':2,'maxContains':2,'maxItems':3}",
				 LIST("[5,6]", "[5,1,6]"), LIST("[5]", "[5,6,7]", "[1,5,6,1]"));
	check_schema("{'prefixItems':[{'type':'integer'},{'type':'string'}],"
				 "'contains':{'const':1},'items':{'const':0}}",
				 LIST("[1]", "[1,'a',0]"), LIST("[]", "[2]", "[0,'a',1]"));
	check_schema("{'type':'array','items':{'enum':['a','b',null]},"
				 "'uniqueItems':true}",
				 LIST("[]", "['b']", "['a','b',null]"), LIST("['a','a']"));
	check_schema("{'type':'array','items':{'type':['boolean','null']},"
				 "'uniqueItems':true,'minItems':2,'maxItems':2}",
				 LIST("[null,true]", "[false,true]"),
				 LIST("[true]", "[null,null]"));
}

static void
test_unevaluated(void)
{
	check_schema("{'allOf':[{'$ref':'#/$defs/base'}],'properties':{'b':{'const'"
				 ":2}},'unevaluatedProperties':false,'$defs':{'base':{"
				 "'properties':{'a':{'const':1}}}}}",
				 LIST("{}", "{'b':2}", "{'b':2,'a':1}"),
				 LIST("{'c':1}", "{'a':2}"));
	check_schema("{'type':'object','oneOf':[{'properties':{'a':{'const':1}},"
				 "'required':['a']},{'properties':{'b':{'const':2}},'required':"
				 "['b']}],'unevaluatedProperties':{'const':0}}",
				 LIST("{'a':1}", "{'a':1,'z':0}", "{'b':2,'a':0}"),
				 LIST("{'a':1,'z':1}", "{}"));
	check_schema("{'prefixItems':[{'const':1}],'unevaluatedItems':{'const':2}}",
				 LIST("[]", "[1]", "[1,2,2]"), LIST("[2]", "[1,1]"));
	check_schema("{'type':'object','properties':{'a':{'const':1}},'not':{"
				 "'properties':{'b':{'type':'string'}}},"
				 "'unevaluatedProperties':{'type':'integer'}}",
				 LIST("{'a':1,'b':3}"), LIST("{'b':'x'}", "{'b':true}", "{}"));
}

static void
test_listed(void)
{
	check_schema("{'enum':['a','bcd',5,12,null],'minLength':2,'minimum':10}",
				 LIST("'bcd'", "12", "null"), LIST("'a'", "5"));
	check_schema("{'type':'string','enum':['a1','b'],'pattern':'[0-9]'}",
				 LIST("'a1'"), LIST("'b'"));
	check_schema("{'enum':[{'a':1},{'a':2,'b':1},[1],[2,3]],'required':['b'],"
				 "'maxItems':1}",
				 LIST("{'a':2,'b':1}", "[1]"), LIST("{'a':1}", "[2,3]"));
	check_schema("{'enum':[1,2,3,4],'oneOf':[{'minimum':2},{'maximum':3}]}",
				 LIST("1", "4"), LIST("2", "3"));
}

static void
test_new_masks(void)
{
	static const char *const sources[] = {
		"{'type':'string','pattern':'b','maxLength':30}",
		"{'type':'string','oneOf':[{'pattern':'^a'},{'pattern':'c$'}]}",
		("{'type':'object','patternProperties':{'^a':{'type':'integer'}},"
		 "'additionalProperties':{'const':'x'},'minProperties':1}"),
		"{'type':'array','items':{'type':'integer'},'contains':{'const':12}}",
		"{'type':'number','not':{'multipleOf':0.5}}",
	};

	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
	{
		char *source = quoted(sources[i]);

		check_masks(SCHEMA, source);
		free(source);
	}
}

/* -- round trips: answers by masks, checked by a validator of their own -- */

static bool
is_valid(const cJSON *root, const cJSON *schema, const cJSON *value);

static const cJSON *
get(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

static bool
is_of_type(const char *type, const cJSON *value)
{
	if (strcmp(type, "integer") == 0)
		return cJSON_IsNumber(value) &&
			   value->valuedouble == (double) (int64_t) value->valuedouble;
	return strcmp(type, "null") == 0	  ? cJSON_IsNull(value)
		   : strcmp(type, "boolean") == 0 ? cJSON_IsBool(value)
		   : strcmp(type, "number") == 0  ? cJSON_IsNumber(value)
		   : strcmp(type, "string") == 0  ? cJSON_IsString(value)
		   : strcmp(type, "array") == 0	  ? cJSON_IsArray(value)
										  : cJSON_IsObject(value);
}

static int
count_chars(const char *text)
{
	int n = 0;

	for (; *text != '\0'; text++)
		n += (*text & 0xC0) != 0x80;
	return n;
}

/* A count or number against the keywords of a lower and an upper bound. */
static bool
is_within(const cJSON *schema, const char *low, const char *high, double value)
{
	const cJSON *min = get(schema, low);
	const cJSON *max = get(schema, high);

	return (min == NULL || value >= min->valuedouble) &&
		   (max == NULL || value <= max->valuedouble);
}

static bool
is_valid_object(const cJSON *root, const cJSON *schema, const cJSON *value)
{
	const cJSON *properties = get(schema, "properties");
	const cJSON *additional = get(schema, "additionalProperties");
	const cJSON *name;
	const cJSON *member;

	cJSON_ArrayForEach(name, get(schema, "required"))
	{
		if (get(value, name->valuestring) == NULL)
			return false;
	}
	cJSON_ArrayForEach(member, value)
	{
		const cJSON *own = get(properties, member->string);

		if (own == NULL)
			own = additional;
		if (own != NULL && !is_valid(root, own, member))
			return false;
	}
	return true;
}

static bool
is_valid_array(const cJSON *root, const cJSON *schema, const cJSON *value)
{
	const cJSON *items = get(schema, "items");
	const cJSON *item;

	cJSON_ArrayForEach(item, value)
	{
		if (items != NULL && !is_valid(root, items, item))
			return false;
	}
	return is_within(schema, "minItems", "maxItems", cJSON_GetArraySize(value));
}

static bool
is_any_of(const cJSON *root, const cJSON *list, const cJSON *value)
{
	const cJSON *schema;

	cJSON_ArrayForEach(schema, list)
	{
		if (is_valid(root, schema, value))
			return true;
	}
	return list == NULL;
}

static bool
is_valid(const cJSON *root, const cJSON *schema, const cJSON *value)
{
	const cJSON *type = get(schema, "type");
	const cJSON *list = get(schema, "enum");
	const cJSON *option;
	bool listed = list == NULL;

	if (cJSON_IsBool(schema))
		return cJSON_IsTrue(schema);
	if (get(schema, "$ref") != NULL)
		return is_valid(root, get(get(root, "$defs"), "t"), value);
	cJSON_ArrayForEach(option, list)
	{
		listed = listed || cJSON_Compare(option, value, true);
	}
	if (!listed || (type != NULL && !is_of_type(type->valuestring, value)) ||
		!is_any_of(root, get(schema, "anyOf"), value))
		return false;
	if (cJSON_IsNumber(value))
		return is_within(schema, "minimum", "maximum", value->valuedouble);
	if (cJSON_IsString(value))
		return is_within(schema, "minLength", "maxLength",
						 count_chars(value->valuestring));
	if (cJSON_IsArray(value))
		return is_valid_array(root, schema, value);
	return !cJSON_IsObject(value) || is_valid_object(root, schema, value);
}

/* Answers of one schema; the number of those that ended. */
static int
check_answers(const char *source)
{
	LlmGrammar *grammar = open_source(SCHEMA, source);
	cJSON *schema = cJSON_Parse(source);
	int n_ended = 0;

	if (grammar == NULL || schema == NULL)
		CHECK_FAIL("%s: %s", source, err.message);
	for (uint64_t seed = 100; grammar != NULL && seed < 160; seed++)
	{
		LlmStrbuf text = { 0 };
		cJSON *value;

		if (walk(grammar, seed, 150, false, &text))
		{
			value =
				cJSON_ParseWithLengthOpts(text.data, text.len + 1, NULL, true);
			n_ended++;
			if (value == NULL || !is_valid(schema, schema, value))
				CHECK_FAIL("%s: invalid answer %s", source, text.data);
			cJSON_Delete(value);
		}
		llm_strbuf_free(&text);
	}
	cJSON_Delete(schema);
	llm_grammar_close(grammar);
	return n_ended;
}

static void
test_round_trips(void)
{
	static const char *const schemas[] = {
		"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\","
		"\"minimum\":-7,\"maximum\":1200},\"b\":{\"type\":\"number\","
		"\"minimum\":0.5,\"maximum\":2.25},\"c\":{\"enum\":[1,\"x\",null]}},"
		"\"required\":[\"b\"],\"additionalProperties\":{\"type\":"
		"\"boolean\"}}",
		"{\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":1,"
		"\"maxLength\":4},\"minItems\":1,\"maxItems\":4}",
		"{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"array\",\"items\":"
		"{\"type\":\"boolean\"},\"minItems\":2},{\"type\":\"string\","
		"\"maxLength\":3}]}",
		"{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":{\"type\":\"object\","
		"\"properties\":{\"v\":{\"type\":\"integer\"},\"k\":{\"type\":"
		"\"array\",\"items\":{\"$ref\":\"#/$defs/t\"},\"maxItems\":2}},"
		"\"required\":[\"v\"]}}}",
	};

	for (size_t i = 0; i < sizeof(schemas) / sizeof(schemas[0]); i++)
		CHECK(check_answers(schemas[i]) >= 10);
}

int
main(void)
{
	make_vocab();
	RUN_TEST(test_schema_scalars);
	RUN_TEST(test_schema_numbers);
	RUN_TEST(test_schema_strings);
	RUN_TEST(test_schema_objects);
	RUN_TEST(test_schema_arrays);
	RUN_TEST(test_schema_combined);
	RUN_TEST(test_schema_errors);
	RUN_TEST(test_schema_masks);
	RUN_TEST(test_pattern_lengths);
	RUN_TEST(test_formats);
	RUN_TEST(test_multiples);
	RUN_TEST(test_not);
	RUN_TEST(test_one_of);
	RUN_TEST(test_conditions);
	RUN_TEST(test_names);
	RUN_TEST(test_contains);
	RUN_TEST(test_unevaluated);
	RUN_TEST(test_listed);
	RUN_TEST(test_new_masks);
	RUN_TEST(test_round_trips);
	llm_grammar_vocab_free(vocab);
	return unit_test_finish();
}
