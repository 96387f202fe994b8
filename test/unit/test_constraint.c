/*
 * test_constraint.c
 *	  Unit tests of the executor's constraints, with the demo model's
 *	  tokenizer: masks beside a step, resuming, sharing, failing alone.
 *
 * test/unit/test_constraint.c
 */
#include <unistd.h>

#include "src/common/grammar/grammar.h"
#include "src/common/model_image/model_image.h"
#include "src/common/util/json.h"
#include "src/common/util/philox.h"
#include "src/engine/executor/constraint.h"
#include "test/unit/unit_test.h"

#define MODEL_DIR "models/demo"
#define MAX_ROWS 8
#define MAX_TOKENS 400

static LlmError err;
static LlmModelConfig config;
static LlmModelImage *image;
static LlmConstraints *constraints;

/* An answer in the making. */
typedef struct Draw
{
	LlmConstraint *constraint;
	int32_t ids[MAX_TOKENS];
	size_t n_ids;
	uint64_t seed;
} Draw;

static LlmStrbuf
compile_schema(const char *schema)
{
	LlmStrbuf program = { 0 };

	if (!llm_grammar_compile_json_schema(schema, strlen(schema), &program,
										 &err))
		CHECK_FAIL("%s: %s", schema, err.message);
	return program;
}

static LlmConstraint *
open_program(const LlmStrbuf *program, const int32_t *ids, size_t n_ids)
{
	return llm_constraint_open(constraints, (const uint32_t *) program->data,
							   program->len / 4, ids, n_ids, &err);
}

/* One of the allowed tokens; now and then an end token where there is one. */
static int32_t
draw_token(const uint32_t *mask, Draw *draw)
{
	LlmPhilox r = llm_philox(draw->seed, 0, (uint32_t) draw->n_ids);
	int32_t start = (int32_t) (r.word[0] % (uint32_t) config.n_vocab);

	for (int32_t i = 0; i < config.n_stop_ids; i++)
	{
		int32_t id = config.stop_ids[i];

		if ((mask[id / 32] >> id % 32 & 1) != 0 && r.word[1] % 4 == 0)
			return id;
	}
	for (int32_t i = 0; i < config.n_vocab; i++)
	{
		int32_t id = (start + i) % config.n_vocab;

		if ((mask[id / 32] >> id % 32 & 1) != 0)
			return id;
	}
	return -1;
}

/* One step of all draws that have not ended; false: there was none. */
static bool
step(Draw *draws, int n_draws)
{
	const uint32_t *masks[MAX_ROWS] = { NULL };
	bool any = false;

	for (int i = 0; i < n_draws; i++)
		if (!llm_constraint_has_ended(draws[i].constraint) &&
			draws[i].n_ids < MAX_TOKENS)
		{
			masks[i] =
				llm_constraints_add_row(constraints, i, draws[i].constraint);
			any = true;
		}
	llm_constraints_start(constraints);
	llm_constraints_wait(constraints);
	for (int i = 0; i < n_draws; i++)
	{
		int32_t id;

		if (masks[i] == NULL)
			continue;
		id = draw_token(masks[i], &draws[i]);
		draws[i].ids[draws[i].n_ids++] = id;
		if (!llm_constraint_accept(draws[i].constraint, id, &err))
			CHECK_FAIL("token %d: %s", id, err.message);
	}
	return any;
}

/* What a user would read. */
static void
text_of(const Draw *draw, LlmStrbuf *text)
{
	llm_strbuf_reset(text);
	if (!llm_tokenizer_decode(llm_model_image_tokenizer(image), draw->ids,
							  draw->n_ids, true, text, &err))
		CHECK_FAIL("%s", err.message);
}

static const char person[] =
	"{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\", "
	"\"maxLength\": 20}, \"age\": {\"type\": \"integer\", \"minimum\": 0, "
	"\"maximum\": 150}, \"vip\": {\"type\": \"boolean\"}}, \"required\": "
	"[\"name\", \"age\", \"vip\"], \"additionalProperties\": false}";

static void
answers_are_of_the_grammar(void)
{
	LlmStrbuf program = compile_schema(person);
	LlmStrbuf text = { 0 };
	Draw draws[MAX_ROWS];

	for (uint64_t round = 0; round < 10; round++)
	{
		memset(draws, 0, sizeof(draws));
		for (int i = 0; i < MAX_ROWS; i++)
		{
			draws[i].seed = round * MAX_ROWS + (uint64_t) i;
			draws[i].constraint = open_program(&program, NULL, 0);
			REQUIRE(draws[i].constraint != NULL);
		}
		while (step(draws, MAX_ROWS))
			;
		for (int i = 0; i < MAX_ROWS; i++)
		{
			cJSON *json;
			const cJSON *age;

			CHECK(llm_constraint_has_ended(draws[i].constraint));
			text_of(&draws[i], &text);
			json =
				llm_json_parse(llm_strbuf_str(&text), text.len, "answer", &err);
			if (json == NULL)
				CHECK_FAIL("%s: %s", llm_strbuf_str(&text), err.message);
			age = llm_json_get(json, "age");
			CHECK(cJSON_IsNumber(age) && age->valueint >= 0 &&
				  age->valueint <= 150);
			CHECK(cJSON_IsString(llm_json_get(json, "name")));
			CHECK(cJSON_IsBool(llm_json_get(json, "vip")));
			cJSON_Delete(json);
			llm_constraint_close(draws[i].constraint);
		}
	}
	llm_strbuf_free(&text);
	llm_strbuf_free(&program);
}

/* From any token on, another executor draws the same. */
static void
resumes_anywhere(void)
{
	LlmStrbuf program = compile_schema(person);
	Draw whole = { .seed = 99 };

	whole.constraint = open_program(&program, NULL, 0);
	REQUIRE(whole.constraint != NULL);
	while (step(&whole, 1))
		;
	for (size_t n = 0; n <= whole.n_ids; n++)
	{
		Draw rest = { .seed = 99, .n_ids = n };

		memcpy(rest.ids, whole.ids, n * sizeof(int32_t));
		rest.constraint = open_program(&program, whole.ids, n);
		REQUIRE(rest.constraint != NULL);
		CHECK(llm_constraint_has_ended(rest.constraint) == (n == whole.n_ids));
		while (step(&rest, 1))
			;
		CHECK(rest.n_ids == whole.n_ids &&
			  memcmp(rest.ids, whole.ids, n * sizeof(int32_t)) == 0);
		llm_constraint_close(rest.constraint);
	}
	llm_constraint_close(whole.constraint);
	/* tokens that the grammar does not have */
	CHECK(open_program(&program, whole.ids + 1, 1) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	llm_strbuf_free(&program);
}

/* Where a choice is a beginning of another, an end token decides. */
static void
end_tokens_end(void)
{
	static const char *const labels[] = { "good", "good enough" };
	LlmStrbuf program = { 0 };
	LlmStrbuf text = { 0 };
	int n_short = 0;

	REQUIRE(llm_grammar_compile_choice(labels, 2, &program, &err));
	for (uint64_t seed = 0; seed < 40; seed++)
	{
		Draw draw = { .seed = seed };

		draw.constraint = open_program(&program, NULL, 0);
		REQUIRE(draw.constraint != NULL);
		while (step(&draw, 1))
			;
		text_of(&draw, &text);
		if (strcmp(llm_strbuf_str(&text), labels[0]) == 0)
			n_short++;
		else
			CHECK_STR_EQ(llm_strbuf_str(&text), labels[1]);
		CHECK(!llm_constraint_accept(draw.constraint, draw.ids[0], &err));
		llm_constraint_close(draw.constraint);
	}
	CHECK(n_short > 0 && n_short < 40);
	llm_strbuf_free(&text);
	llm_strbuf_free(&program);
}

static void
bad_requests_fail_alone(void)
{
	LlmStrbuf program = compile_schema(person);
	uint32_t *words = (uint32_t *) program.data;
	Draw draw = { .constraint = open_program(&program, NULL, 0) };
	int32_t wrong = 0;

	REQUIRE(draw.constraint != NULL);
	CHECK(llm_constraint_open(constraints, words, 1, NULL, 0, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_FORMAT);
	words[program.len / 8] ^= 0x7FFFFFFF;
	CHECK(open_program(&program, NULL, 0) == NULL);
	/* the first token of an object is never that of id 0 */
	CHECK(!llm_constraint_accept(draw.constraint, wrong, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	/* and the request may go on as if nothing had been */
	while (step(&draw, 1))
		;
	CHECK(llm_constraint_has_ended(draw.constraint));
	llm_constraint_close(draw.constraint);
	llm_strbuf_free(&program);
}

/* More grammars than are kept: those that nobody uses are forgotten. */
static void
many_grammars_come_and_go(void)
{
	char choice[32];
	const char *choices[] = { choice };
	Draw kept = { .seed = 1 };

	for (int i = 0; i < 100; i++)
	{
		LlmStrbuf program = { 0 };
		Draw draw = { .seed = 5 };

		snprintf(choice, sizeof(choice), "answer %d", i);
		REQUIRE(llm_grammar_compile_choice(choices, 1, &program, &err));
		draw.constraint = open_program(&program, NULL, 0);
		REQUIRE(draw.constraint != NULL);
		if (i == 0)
			kept.constraint = open_program(&program, NULL, 0);
		while (step(&draw, 1))
			;
		llm_constraint_close(draw.constraint);
		llm_strbuf_free(&program);
	}
	REQUIRE(kept.constraint != NULL);
	while (step(&kept, 1))
		;
	CHECK(llm_constraint_has_ended(kept.constraint));
	llm_constraint_close(kept.constraint);
}

int
main(void)
{
	char image_path[] = "/tmp/llm_ext-test-constraint.XXXXXX";
	int fd = mkstemp(image_path);
	LlmConstraintsConfig of_demo = { .image_path = image_path,
									 .max_rows = MAX_ROWS };

	if (fd < 0 || !llm_model_config_read(MODEL_DIR, &config, &err) ||
		!llm_model_image_write(MODEL_DIR, &config, image_path, &err))
	{
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	close(fd);
	of_demo.n_vocab = config.n_vocab;
	of_demo.end_ids = config.stop_ids;
	of_demo.n_end_ids = config.n_stop_ids;
	constraints = llm_constraints_create(&of_demo, &err);
	image = llm_model_image_open(image_path, &err);
	unlink(image_path);
	if (constraints == NULL || image == NULL)
	{
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	RUN_TEST(answers_are_of_the_grammar);
	RUN_TEST(resumes_anywhere);
	RUN_TEST(end_tokens_end);
	RUN_TEST(bad_requests_fail_alone);
	RUN_TEST(many_grammars_come_and_go);
	llm_model_image_close(image);
	llm_constraints_free(constraints);
	return unit_test_finish();
}
