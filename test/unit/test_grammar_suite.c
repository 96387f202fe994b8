/*
 * test_grammar_suite.c
 *	  JSON Schemas as grammars against the JSON Schema Test Suite.
 *
 * The suite (github.com/json-schema-org/JSON-Schema-Test-Suite) is not part of
 * this repository: LLM_SCHEMA_SUITE names its folder tests/draft2020-12, and
 * without it the test is skipped.  A grammar may generate less than a schema
 * allows (README.md of the room lists what), never more: an instance that is
 * not valid and is accepted fails the test.  The figures go to stderr.
 *
 * test/unit/test_grammar_suite.c
 */
#include <cjson/cJSON.h>

#include "src/common/grammar/grammar.h"
#include "src/common/util/json.h"
#include "test/unit/unit_test.h"

static const char *const files[] = {
	"additionalProperties",
	"allOf",
	"anyOf",
	"boolean_schema",
	"const",
	"contains",
	"default",
	"dependentRequired",
	"dependentSchemas",
	"enum",
	"exclusiveMaximum",
	"exclusiveMinimum",
	"if-then-else",
	"infinite-loop-detection",
	"items",
	"maxContains",
	"maxItems",
	"maxLength",
	"maxProperties",
	"maximum",
	"minContains",
	"minItems",
	"minLength",
	"minProperties",
	"minimum",
	"multipleOf",
	"not",
	"oneOf",
	"pattern",
	"patternProperties",
	"prefixItems",
	"properties",
	"propertyNames",
	"ref",
	"required",
	"type",
	"unevaluatedItems",
	"unevaluatedProperties",
	"uniqueItems",
	"optional/dependencies-compatibility",
	"optional/format/date",
	"optional/format/date-time",
	"optional/format/duration",
	"optional/format/email",
	"optional/format/hostname",
	"optional/format/idn-email",
	"optional/format/ipv4",
	"optional/format/ipv6",
	"optional/format/iri",
	"optional/format/iri-reference",
	"optional/format/json-pointer",
	"optional/format/relative-json-pointer",
	"optional/format/time",
	"optional/format/uri",
	"optional/format/uri-reference",
	"optional/format/uuid",
};

typedef struct Figures
{
	int n_schemas;
	int n_refused; /* schemas with what is not supported */
	int n_valid;
	int n_generated; /* of the valid instances */
	int n_invalid;
	int n_accepted; /* of those that are not */
} Figures;

static LlmError err;
static LlmGrammarVocab *vocab;

static void
make_vocab(void)
{
	static char bytes[256];
	LlmGrammarToken tokens[257];
	int32_t end_id = 256;

	for (int i = 0; i < 256; i++)
	{
		bytes[i] = (char) i;
		tokens[i] = (LlmGrammarToken){ &bytes[i], 1 };
	}
	tokens[256] = (LlmGrammarToken){ NULL, 0 };
	vocab = llm_grammar_vocab_create(tokens, 257, &end_id, 1, &err);
	if (vocab == NULL)
		abort();
}

/* The grammar of a schema; NULL: *refused says if that is all right. */
static LlmGrammar *
open_schema(const cJSON *schema, bool *refused)
{
	char *text = cJSON_PrintUnformatted(schema);
	LlmStrbuf program = { 0 };
	LlmGrammar *grammar = NULL;

	llm_error_clear(&err);
	if (llm_grammar_compile_json_schema(text, strlen(text), &program, &err))
		grammar = llm_grammar_open((const uint32_t *) program.data,
								   program.len / 4, vocab, 1 << 20, &err);
	*refused = err.code == LLM_ERROR_UNSUPPORTED;
	if (grammar == NULL && !*refused && err.code != LLM_ERROR_INVALID)
		CHECK_FAIL("%s: %s", text, err.message);
	llm_strbuf_free(&program);
	free(text);
	return grammar;
}

static bool
accepts(LlmGrammar *grammar, const cJSON *data)
{
	char *text = cJSON_PrintUnformatted(data);
	LlmGrammarMatcher *matcher = llm_grammar_matcher_create(grammar, &err);
	bool ok =
		llm_grammar_matcher_accept_bytes(matcher, text, strlen(text), &err) &&
		llm_grammar_matcher_may_end(matcher);

	llm_grammar_matcher_free(matcher);
	free(text);
	return ok;
}

/* What the test's own JSON reader cannot hold: long integers, and U+0000. */
static bool
is_beyond_reader(const char *description)
{
	return strstr(description, "NUL") != NULL ||
		   strstr(description, "minus one") != NULL;
}

/* One schema with its instances. */
static void
check_group(const char *file, const cJSON *group, Figures *figures)
{
	const char *what = cJSON_GetStringValue(llm_json_get(group, "description"));
	const cJSON *tests = llm_json_get(group, "tests");
	bool refused;
	LlmGrammar *grammar = open_schema(
		cJSON_GetObjectItemCaseSensitive(group, "schema"), &refused);
	const cJSON *test;

	figures->n_schemas++;
	figures->n_refused += grammar == NULL && refused;
	if (grammar == NULL && refused)
	{
		fprintf(stderr, "refused: %s: %s: %s\n", file, what, err.message);
		return;
	}
	cJSON_ArrayForEach(test, tests)
	{
		const char *which =
			cJSON_GetStringValue(llm_json_get(test, "description"));
		bool is_valid = cJSON_IsTrue(llm_json_get(test, "valid"));
		/* a schema that no text satisfies does not compile */
		bool is_accepted =
			grammar != NULL &&
			accepts(grammar, cJSON_GetObjectItemCaseSensitive(test, "data"));

		if (is_beyond_reader(which))
			continue;
		figures->n_valid += is_valid;
		figures->n_generated += is_valid && is_accepted;
		figures->n_invalid += !is_valid;
		figures->n_accepted += !is_valid && is_accepted;
		if (!is_valid && is_accepted)
			CHECK_FAIL("%s: %s: accepts \"%s\"", file, what, which);
	}
	llm_grammar_close(grammar);
}

static void
report(const char *name, const Figures *figures)
{
	fprintf(stderr,
			"%-28s %4d schemas, %3d refused; %4d of %4d valid generated; "
			"%d of %4d others accepted\n",
			name, figures->n_schemas, figures->n_refused, figures->n_generated,
			figures->n_valid, figures->n_accepted, figures->n_invalid);
}

static void
accepts_nothing_invalid(void)
{
	const char *suite = getenv("LLM_SCHEMA_SUITE");
	Figures total = { 0 };

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
	{
		char path[4096];
		Figures figures = { 0 };
		const cJSON *group;
		cJSON *groups;

		snprintf(path, sizeof(path), "%s/%s.json", suite, files[i]);
		groups = llm_json_parse_file(path, 1 << 20, &err);
		if (groups == NULL)
		{
			CHECK_FAIL("%s", err.message);
			continue;
		}
		cJSON_ArrayForEach(group, groups)
			check_group(files[i], group, &figures);
		cJSON_Delete(groups);
		report(files[i], &figures);
		total.n_schemas += figures.n_schemas;
		total.n_refused += figures.n_refused;
		total.n_valid += figures.n_valid;
		total.n_generated += figures.n_generated;
		total.n_invalid += figures.n_invalid;
		total.n_accepted += figures.n_accepted;
	}
	report("total", &total);
}

int
main(void)
{
	if (getenv("LLM_SCHEMA_SUITE") == NULL)
		unit_test_skip("accepts_nothing_invalid",
					   "LLM_SCHEMA_SUITE names no copy of the suite");
	else
	{
		make_vocab();
		RUN_TEST(accepts_nothing_invalid);
		llm_grammar_vocab_free(vocab);
	}
	return unit_test_finish();
}
