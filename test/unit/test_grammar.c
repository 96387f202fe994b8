/*
 * test_grammar.c
 *	  Unit tests of src/common/grammar: languages, masks, hostile programs.
 *
 * test_grammar_schema.c has those of JSON Schema.
 *
 * test/unit/test_grammar.c
 */
#include "test/unit/grammar_rig.h"

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
	check_language(regex, "(?=.*\\d)(?!ab|.*x$)[a-z0-9]{3,4}",
				   LIST("a1b", "1xyz"), LIST("abc", "ab1", "12x", "a1"));
}

static void
test_regex_errors(void)
{
	Compile regex = llm_grammar_compile_regex;

	check_error(regex, "(a", LLM_ERROR_FORMAT, "without end at byte 0");
	check_error(regex, "a)", LLM_ERROR_FORMAT, "byte 1");
	check_error(regex, "*a", LLM_ERROR_FORMAT, "repetition of nothing");
	check_error(regex, "a**", LLM_ERROR_FORMAT, "repetition of a repetition");
	check_error(regex, "a(?=a)", LLM_ERROR_UNSUPPORTED, "look-around");
	check_error(regex, "(?=a)b|c", LLM_ERROR_UNSUPPORTED, "look-ahead");
	check_error(regex, "(?<=a)b", LLM_ERROR_UNSUPPORTED, "look-around");
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
	RUN_TEST(test_depth);
	RUN_TEST(test_rollback);
	RUN_TEST(test_trim);
	RUN_TEST(test_hostile);
	llm_grammar_vocab_free(vocab);
	return unit_test_finish();
}
