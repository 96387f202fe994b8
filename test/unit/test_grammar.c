/*
 * test_grammar.c
 *	  Unit tests of src/common/grammar: languages, masks, hostile programs.
 *
 * test/unit/test_grammar.c
 */
#include <cjson/cJSON.h>

#include "src/common/grammar/grammar.h"
#include "src/common/util/philox.h"
#include "test/unit/unit_test.h"

typedef bool (*Compile)(const char *text, size_t len, LlmStrbuf *program,
						LlmError *err);

static LlmError err;

/* -- a small vocabulary: every byte, some words, pieces of characters -- */

#define END_ID 256
static const char *const words[] = {
	"{\"",	"\":",		"\": ",		"\", \"", "\"}",	  "}}",		  "]}",
	"},",	"[{",		"true",		"false",  "null",	  "1",		  "12",
	"123",	"0.",		"name",		"age",	  "a",		  "ab",		  "abc",
	"abc",	" ",		"  ",		"\\u",	  "\\\"",	  "00",		  "\xC3",
	"\xA9", "\xC3\xA9", "\xE2\x82", "\xAC\"", "\xF0\x9F", "\x98\x80", "]]]]",
	"[[[[", "\",",		"-1",		"e+",	  "2024-",	  "-02-",	  "yes",
	"no",	"maybe",	"yes, no",	"T",	  "Z\"",
};
#define N_WORDS ((int32_t) (sizeof(words) / sizeof(words[0])))
#define N_VOCAB (257 + N_WORDS + 3)

static LlmGrammarVocab *vocab;

static LlmGrammarToken
token_of(int32_t id)
{
	static char bytes[256];

	if (id < 256)
	{
		bytes[id] = (char) id;
		return (LlmGrammarToken){ &bytes[id], 1 };
	}
	if (id == END_ID || id >= 257 + N_WORDS)
		return (LlmGrammarToken){ "</s>", id == END_ID ? 4 : 0 };
	return (LlmGrammarToken){ words[id - 257], strlen(words[id - 257]) };
}

static void
make_vocab(void)
{
	LlmGrammarToken tokens[N_VOCAB];
	int32_t end_id = END_ID;

	for (int32_t i = 0; i < N_VOCAB; i++)
		tokens[i] = token_of(i);
	vocab = llm_grammar_vocab_create(tokens, N_VOCAB, &end_id, 1, &err);
	if (vocab == NULL)
		abort();
}

static LlmGrammar *
open_source(Compile compile, const char *text)
{
	LlmStrbuf program = { 0 };
	LlmGrammar *grammar = NULL;

	llm_error_clear(&err);
	if (compile(text, strlen(text), &program, &err))
		grammar = llm_grammar_open((const uint32_t *) program.data,
								   program.len / 4, vocab, 1 << 20, &err);
	llm_strbuf_free(&program);
	return grammar;
}

/* Does the whole text match? */
static bool
matches(LlmGrammar *grammar, const char *text)
{
	LlmGrammarMatcher *matcher = llm_grammar_matcher_create(grammar, &err);
	bool ok =
		llm_grammar_matcher_accept_bytes(matcher, text, strlen(text), &err) &&
		llm_grammar_matcher_may_end(matcher);

	llm_grammar_matcher_free(matcher);
	return ok;
}

/* Texts up to NULL: first those in the language, then those that are not. */
static void
check_language(Compile compile, const char *source, const char *const *accepted,
			   const char *const *rejected)
{
	LlmGrammar *grammar = open_source(compile, source);

	if (grammar == NULL)
	{
		CHECK_FAIL("%s: %s", source, err.message);
		return;
	}
	for (; *accepted != NULL; accepted++)
	{
		if (!matches(grammar, *accepted))
			CHECK_FAIL("%s does not accept %s", source, *accepted);
	}
	for (; *rejected != NULL; rejected++)
	{
		if (matches(grammar, *rejected))
			CHECK_FAIL("%s accepts %s", source, *rejected);
	}
	llm_grammar_close(grammar);
}

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void
check_error(Compile compile, const char *source, LlmErrorCode code,
			const char *part)
{
	LlmGrammar *grammar = open_source(compile, source);

	if (grammar != NULL)
		CHECK_FAIL("%s is no error", source);
	else if (err.code != (int32_t) code || strstr(err.message, part) == NULL)
		CHECK_FAIL("%s: error %d \"%s\", expected %d \"%s\"", source, err.code,
				   err.message, code, part);
	llm_grammar_close(grammar);
}

/* -- regular expressions -- */

static void
test_regex(void)
{
	Compile regex = llm_grammar_compile_regex;

	check_language(regex, "a", LIST("a"), LIST("", "b", "aa"));
	check_language(regex, "^a|b$", LIST("a", "b"), LIST("ab", ""));
	check_language(regex, "(foo|fo)x?", LIST("foo", "fo", "foox", "fox"),
				   LIST("f", "fooxx"));
	check_language(regex, "[a-c]{2,3}", LIST("ab", "abc"),
				   LIST("a", "abca", "abd"));
	check_language(regex, "[^a-c]", LIST("d", "\xC3\xA9", "\xF0\x9F\x98\x80"),
				   LIST("a", "\xC3", "\xED\xA0\x80", "\xC0\xAF"));
	check_language(regex, "\\d{3}-\\d{4}", LIST("555-1234"),
				   LIST("5551234", "555-123"));
	check_language(regex, "a*b+c?", LIST("b", "aabbc"), LIST("a", "ac", "bcc"));
	check_language(regex, "(a|b*)*", LIST("", "abba"), LIST("c"));
	check_language(regex, "(a?){3}x", LIST("x", "aaax"), LIST("aaaax"));
	check_language(regex, "(ab){2,}", LIST("abab", "ababab"), LIST("ab"));
	check_language(regex, "(a{2}b){1,2}", LIST("aab", "aabaab"),
				   LIST("ab", "aabaabaab"));
	check_language(regex, "\\x41\\u00e9\\u{1F600}\\.",
				   LIST("A\xC3\xA9\xF0\x9F\x98\x80."), LIST("A"));
	check_language(regex, "\\p{Lu}\\P{L}", LIST("A1", "\xC3\x89-"),
				   LIST("a1", "AA"));
	check_language(regex, ".", LIST("a", "\xE2\x82\xAC"), LIST("\n", "\xE2"));
	check_language(regex, "(?:a)(?<n>b)+?", LIST("ab", "abb"), LIST("a"));
	check_language(regex, "[\\w.-]+@\\w+", LIST("a.b-c@d"), LIST("@d"));
	check_language(regex, "[\\]-]|\\s", LIST("]", "-", " "), LIST("[", ""));
}

static void
test_regex_errors(void)
{
	Compile regex = llm_grammar_compile_regex;

	check_error(regex, "(a", LLM_ERROR_FORMAT, "without end at byte 0");
	check_error(regex, "a)", LLM_ERROR_FORMAT, "byte 1");
	check_error(regex, "*a", LLM_ERROR_FORMAT, "repetition of nothing");
	check_error(regex, "a**", LLM_ERROR_FORMAT, "repetition of a repetition");
	check_error(regex, "(?=a)", LLM_ERROR_UNSUPPORTED, "look-around");
	check_error(regex, "(a)\\1", LLM_ERROR_UNSUPPORTED, "escape");
	check_error(regex, "\\bx", LLM_ERROR_UNSUPPORTED, "byte 0");
	check_error(regex, "a(^b)", LLM_ERROR_UNSUPPORTED, "anchor");
	check_error(regex, "[b-a]", LLM_ERROR_FORMAT, "range");
	check_error(regex, "\\p{Greek}", LLM_ERROR_UNSUPPORTED, "categor");
	check_error(regex, "a{3,2}", LLM_ERROR_FORMAT, "repetition");
	check_error(regex, "[\\ud800]", LLM_ERROR_FORMAT, "character number");
	check_error(regex, "a++", LLM_ERROR_UNSUPPORTED, "possessive");
}

static void
test_choice(void)
{
	const char *const choices[] = { "yes", "no", "yes, no", "maybe", "no" };
	const char *const empty[] = { "a", "" };
	LlmStrbuf program = { 0 };
	LlmGrammar *grammar;

	REQUIRE(llm_grammar_compile_choice(choices, 5, &program, &err));
	grammar = llm_grammar_open((uint32_t *) program.data, program.len / 4,
							   vocab, 0, &err);
	REQUIRE(grammar != NULL);
	CHECK(matches(grammar, "yes") && matches(grammar, "yes, no") &&
		  matches(grammar, "no") && matches(grammar, "maybe"));
	CHECK(!matches(grammar, "") && !matches(grammar, "ye") &&
		  !matches(grammar, "yes, "));
	llm_grammar_close(grammar);
	llm_strbuf_reset(&program);
	CHECK(!llm_grammar_compile_choice(empty, 2, &program, &err));
	CHECK_STR_EQ(err.message, "choice 2 is empty");
	CHECK(!llm_grammar_compile_choice(empty, 0, &program, &err));
	llm_strbuf_free(&program);
}

/* -- GBNF -- */

#define ARITHMETIC                                                     \
	"root ::= expr\n# a comment\nexpr ::= term (\"+\" term)* # more\n" \
	"term ::= [0-9]+ |\n  \"(\" expr \")\"\n"

static void
test_gbnf(void)
{
	Compile gbnf = llm_grammar_compile_gbnf;

	check_language(gbnf, ARITHMETIC, LIST("1", "1+2", "(1+(23))+4"),
				   LIST("", "1+", "(1", "1)", "()"));
	check_language(gbnf, "root ::= \"a\" b{2}\nb ::= \"x\" | \"y\" \"z\"?\n",
				   LIST("axx", "ayzy"), LIST("ax", "axxx"));
	check_language(gbnf, "root ::= [^\\n\"]+ \"\\x41\\u00e9\\n\"",
				   LIST("qA\xC3\xA9\n"), LIST("A\xC3\xA9\n"));
	check_language(gbnf, "root ::= (\n \"a\"\n | \"b\"\n)* \"c\"\n",
				   LIST("c", "abc"), LIST("ab"));
	check_language(gbnf, "root ::= . .", LIST("a\n"), LIST("a"));
	check_error(gbnf, "root ::= x", LLM_ERROR_FORMAT, "\"x\" is not defined");
	check_error(gbnf, "a ::= \"x\"", LLM_ERROR_FORMAT, "no rule \"root\"");
	check_error(gbnf, "root ::= root \"x\" | \"y\"", LLM_ERROR_UNSUPPORTED,
				"\"root\" is left-recursive");
	check_error(gbnf, "root ::= a? root \"x\" | \"y\"\na ::= \"q\"",
				LLM_ERROR_UNSUPPORTED, "left-recursive");
	check_error(gbnf, "root ::= \"x", LLM_ERROR_FORMAT, "without end");
	check_error(gbnf, "root ::= \"x\"\nroot ::= \"y\"", LLM_ERROR_FORMAT,
				"defined before at line 2");
	check_error(gbnf, "root ::= \"x\" root", LLM_ERROR_INVALID,
				"no text satisfies");
	check_error(gbnf, "root ::= <think>", LLM_ERROR_UNSUPPORTED, "token");
}

/* -- masks -- */

/* Every token, tried byte by byte. */
static void
check_mask(LlmGrammar *grammar, LlmGrammarMatcher *matcher, const char *what)
{
	LlmGrammarMatcher *probe = llm_grammar_matcher_create(grammar, &err);
	uint32_t mask[(N_VOCAB + 31) / 32];

	if (!llm_grammar_matcher_fill_mask(matcher, mask, &err))
	{
		CHECK_FAIL("%s: %s", what, err.message);
		llm_grammar_matcher_free(probe);
		return;
	}
	for (int32_t id = 0; id < N_VOCAB; id++)
	{
		LlmGrammarToken token = token_of(id);
		bool expected = token.len > 0;
		bool actual = mask[id / 32] >> id % 32 & 1;

		llm_grammar_matcher_copy(probe, matcher);
		if (id == END_ID)
			expected = llm_grammar_matcher_may_end(matcher);
		else
		{
			for (size_t i = 0; i < token.len && expected; i++)
				expected = llm_grammar_matcher_accept_bytes(
					probe, token.bytes + i, 1, &err);
		}
		if (actual != expected)
			CHECK_FAIL("%s: token %d (%.*s) is %s", what, id, (int) token.len,
					   token.bytes, actual ? "allowed" : "not allowed");
		llm_grammar_matcher_copy(probe, matcher);
		if (llm_grammar_matcher_accept(probe, id, &err) != actual)
			CHECK_FAIL("%s: mask and accept differ in token %d", what, id);
	}
	llm_grammar_matcher_free(probe);
}

static uint32_t
draw(uint64_t seed, uint64_t at, uint32_t n)
{
	return llm_philox(seed, at, 0).word[0] % n;
}

/* A random allowed token; the end only where it is drawn or must come. */
static int32_t
draw_token(const uint32_t *mask, uint64_t seed, uint64_t at)
{
	int32_t allowed[N_VOCAB];
	uint32_t n = 0;

	for (int32_t id = 0; id < N_VOCAB; id++)
	{
		if (mask[id / 32] >> id % 32 & 1)
			allowed[n++] = id;
	}
	return n == 0 ? -1 : allowed[draw(seed, at, n)];
}

/* Walk by masks until the end or max_tokens; the text; false: not ended. */
static bool
walk(LlmGrammar *grammar, uint64_t seed, int max_tokens, bool check,
	 LlmStrbuf *text)
{
	LlmGrammarMatcher *matcher = llm_grammar_matcher_create(grammar, &err);
	uint32_t mask[(N_VOCAB + 31) / 32];
	bool ended = false;

	for (int i = 0; i < max_tokens && !ended; i++)
	{
		int32_t id;

		if (check)
			check_mask(grammar, matcher, llm_strbuf_str(text));
		if (!llm_grammar_matcher_fill_mask(matcher, mask, &err))
		{
			CHECK_FAIL("%s: %s", llm_strbuf_str(text), err.message);
			break;
		}
		id = draw_token(mask, seed, (uint64_t) i);
		if (!llm_grammar_matcher_accept(matcher, id, &err))
			CHECK_FAIL("%s: %s", llm_strbuf_str(text), err.message);
		ended = id == END_ID;
		if (!ended)
			llm_strbuf_append(text, token_of(id).bytes, token_of(id).len);
	}
	llm_grammar_matcher_free(matcher);
	return ended;
}

static void
check_masks(Compile compile, const char *source)
{
	LlmGrammar *grammar = open_source(compile, source);

	if (grammar == NULL)
	{
		CHECK_FAIL("%s: %s", source, err.message);
		return;
	}
	for (uint64_t seed = 0; seed < 6; seed++)
	{
		LlmStrbuf text = { 0 };

		walk(grammar, seed, 30, true, &text);
		llm_strbuf_free(&text);
	}
	llm_grammar_close(grammar);
}

static void
test_masks(void)
{
	check_masks(llm_grammar_compile_gbnf, ARITHMETIC);
	check_masks(llm_grammar_compile_regex, "(ab|abc|\xC3\xA9|\xE2\x82\xAC)+");
	check_masks(llm_grammar_compile_regex, "[a-z]{2,300}x{3}");
	check_masks(llm_grammar_compile_regex, "(a{1,2}b{0,3}){1,4}");
	check_masks(llm_grammar_compile_gbnf,
				"root ::= \"[\" (root (\",\" root)*)? \"]\"");
	check_masks(llm_grammar_compile_gbnf,
				"root ::= \"[\" root \"]\" | \"[[\" root \"]\" | \"1\" s\n"
				"s ::= \"2\" | \"23\" s");
}

/* -- JSON Schema -- */

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

	check_error(SCHEMA,
				"{\"properties\":{\"a/b\":{\"unevaluatedItems\":true}}}",
				unsupported,
				"\"unevaluatedItems\" at /properties/a~1b/unevaluatedItems");
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

/* The limit of depth ends a text, it does not get stuck in it. */
static void
test_depth(void)
{
	LlmGrammar *grammar = open_source(llm_grammar_compile_gbnf,
									  "root ::= \"[\" root \"]\" | \"1\"");
	LlmGrammarMatcher *matcher = llm_grammar_matcher_create(grammar, &err);
	int depth = 0;

	while (llm_grammar_matcher_accept_bytes(matcher, "[", 1, &err))
	{
		depth++;
		if (depth > LLM_GRAMMAR_MAX_DEPTH - 12)
			check_mask(grammar, matcher, "deep");
	}
	CHECK_INT_EQ(depth, LLM_GRAMMAR_MAX_DEPTH);
	CHECK(llm_grammar_matcher_accept_bytes(matcher, "1", 1, &err));
	while (depth-- > 0)
		CHECK(llm_grammar_matcher_accept_bytes(matcher, "]", 1, &err));
	CHECK(llm_grammar_matcher_must_end(matcher));
	llm_grammar_matcher_free(matcher);
	llm_grammar_close(grammar);
}

static void
test_rollback(void)
{
	LlmGrammar *grammar =
		open_source(llm_grammar_compile_gbnf, "root ::= \"abc\"* \"x\"");
	LlmGrammarMatcher *matcher = llm_grammar_matcher_create(grammar, &err);
	LlmStrbuf forced = { 0 };

	CHECK(!llm_grammar_matcher_rollback(matcher, 1));
	CHECK(llm_grammar_matcher_accept(matcher, 'a', &err));
	CHECK(llm_grammar_matcher_forced_bytes(matcher, 10, &forced, &err));
	CHECK_STR_EQ(llm_strbuf_str(&forced), "bc");
	CHECK(!llm_grammar_matcher_accept(matcher, 'x', &err));
	CHECK_STR_EQ(err.message, "the grammar does not allow token 120 here");
	CHECK(llm_grammar_matcher_rollback(matcher, 1));
	CHECK(llm_grammar_matcher_accept(matcher, 'x', &err));
	CHECK(llm_grammar_matcher_must_end(matcher));
	CHECK(llm_grammar_matcher_accept(matcher, END_ID, &err));
	CHECK(!llm_grammar_matcher_may_end(matcher));
	CHECK(!llm_grammar_matcher_accept(matcher, END_ID, &err));
	CHECK(llm_grammar_matcher_rollback(matcher, 2));
	for (int i = 0; i < 3 * LLM_GRAMMAR_MAX_ROLLBACK; i++)
		CHECK(llm_grammar_matcher_accept(matcher, "abc"[i % 3], &err));
	CHECK(!llm_grammar_matcher_rollback(matcher, LLM_GRAMMAR_MAX_ROLLBACK + 1));
	CHECK(llm_grammar_matcher_rollback(matcher, LLM_GRAMMAR_MAX_ROLLBACK));
	CHECK(!llm_grammar_matcher_rollback(matcher, 1));
	CHECK(llm_grammar_matcher_accept(
		matcher, "abc"[2 * LLM_GRAMMAR_MAX_ROLLBACK % 3], &err));
	CHECK(!llm_grammar_matcher_accept(matcher, N_VOCAB, &err));
	llm_strbuf_free(&forced);
	llm_grammar_matcher_free(matcher);
	llm_grammar_close(grammar);
}

/* What passes the bound of memory is forgotten, and nobody notices. */
static void
test_trim(void)
{
	LlmGrammar *grammar = open_source(
		llm_grammar_compile_regex, "([a-z]{1,60000}[0-9]{1,60000}){1,60000}");
	LlmGrammarMatcher *matcher;
	LlmGrammarMatcher *other;

	REQUIRE(grammar != NULL);
	matcher = llm_grammar_matcher_create(grammar, &err);
	other = llm_grammar_matcher_create(grammar, &err);
	CHECK(llm_grammar_matcher_accept_bytes(other, "a", 1, &err));
	for (int i = 0; i < 60000; i++)
	{
		if (!llm_grammar_matcher_accept_bytes(matcher, "a", 1, &err))
		{
			CHECK_FAIL("byte %d: %s", i, err.message);
			break;
		}
	}
	CHECK(llm_grammar_used_bytes(grammar) < 4 << 20);
	CHECK(!llm_grammar_matcher_accept_bytes(matcher, "a", 1, &err));
	CHECK(llm_grammar_matcher_accept_bytes(matcher, "1", 1, &err));
	CHECK(llm_grammar_matcher_rollback(matcher, 3));
	CHECK(llm_grammar_matcher_accept_bytes(matcher, "aa", 2, &err));
	CHECK(!llm_grammar_matcher_accept_bytes(matcher, "a", 1, &err));
	CHECK(llm_grammar_matcher_accept_bytes(other, "a1", 2, &err));
	llm_grammar_matcher_free(matcher);
	llm_grammar_matcher_free(other);
	llm_grammar_close(grammar);
}

/* -- hostile programs -- */

static void
use_program(const uint32_t *program, size_t n)
{
	LlmGrammar *grammar = llm_grammar_open(program, n, vocab, 0, &err);
	LlmGrammarMatcher *matcher;
	uint32_t mask[(N_VOCAB + 31) / 32];

	if (grammar == NULL)
		return;
	matcher = llm_grammar_matcher_create(grammar, &err);
	for (int i = 0; i < 8; i++)
	{
		if (!llm_grammar_matcher_fill_mask(matcher, mask, &err) ||
			!llm_grammar_matcher_accept(matcher, draw_token(mask, n, i), &err))
			break;
	}
	llm_grammar_matcher_free(matcher);
	llm_grammar_close(grammar);
}

/* Words of an honest program, changed; then words at random. */
static void
test_hostile(void)
{
	LlmStrbuf program = { 0 };
	uint32_t *hostile;
	size_t n;

	REQUIRE(llm_grammar_compile_gbnf(ARITHMETIC, strlen(ARITHMETIC), &program,
									 &err));
	n = program.len / 4;
	hostile = malloc(program.len);
	for (uint64_t seed = 0; seed < 3000; seed++)
	{
		memcpy(hostile, program.data, program.len);
		for (uint32_t i = 0; i <= draw(seed, 99, 3); i++)
			hostile[4 + draw(seed, 2 * i, (uint32_t) n - 4)] =
				draw(seed, 2 * i + 1, 4) == 0
					? llm_philox(seed, i, 7).word[1]
					: draw(seed, 50 + i, (uint32_t) n + 4);
		use_program(hostile, n);
	}
	for (size_t len = 0; len < n; len++)
		CHECK(llm_grammar_open((uint32_t *) program.data, len, vocab, 0,
							   &err) == NULL);
	free(hostile);
	llm_strbuf_free(&program);
}

int
main(void)
{
	make_vocab();
	RUN_TEST(test_regex);
	RUN_TEST(test_regex_errors);
	RUN_TEST(test_choice);
	RUN_TEST(test_gbnf);
	RUN_TEST(test_masks);
	RUN_TEST(test_schema_scalars);
	RUN_TEST(test_schema_numbers);
	RUN_TEST(test_schema_strings);
	RUN_TEST(test_schema_objects);
	RUN_TEST(test_schema_arrays);
	RUN_TEST(test_schema_combined);
	RUN_TEST(test_schema_errors);
	RUN_TEST(test_schema_masks);
	RUN_TEST(test_round_trips);
	RUN_TEST(test_depth);
	RUN_TEST(test_rollback);
	RUN_TEST(test_trim);
	RUN_TEST(test_hostile);
	llm_grammar_vocab_free(vocab);
	return unit_test_finish();
}
