/*
 * fuzz_grammar.c
 *	  Fuzz target: any source of a grammar, any program, any answer.
 *
 * The first byte says what the second part is: a JSON Schema, a regular
 * expression, a GBNF grammar, choices between newlines, or a program's words.
 * A byte 0xFF ends it (a program: half of the rest does); the rest chooses
 * tokens of what the masks allow, and each of them has to be accepted.
 *
 * test/fuzz/fuzz_grammar.c
 */
#include <string.h>

#include "src/common/grammar/grammar.h"
#include "test/fuzz/fuzz.h"

#define END_ID 256
#define N_VOCAB 262
#define MAX_STEPS 64
#define MAX_CHOICES 64

static LlmError err;
static LlmGrammarVocab *vocab;

static void
make_vocab(void)
{
	static const char *const words[] = { "{\"", "\": ", "true", "\xC3\xA9",
										 "12" };
	static char bytes[256];
	LlmGrammarToken tokens[N_VOCAB];
	int32_t end_id = END_ID;

	for (int i = 0; i < 256; i++)
	{
		bytes[i] = (char) i;
		tokens[i] = (LlmGrammarToken){ &bytes[i], 1 };
	}
	tokens[END_ID] = (LlmGrammarToken){ NULL, 0 };
	for (int i = END_ID + 1; i < N_VOCAB; i++)
		tokens[i] = (LlmGrammarToken){ words[i - END_ID - 1],
									   strlen(words[i - END_ID - 1]) };
	vocab = llm_grammar_vocab_create(tokens, N_VOCAB, &end_id, 1, &err);
	FUZZ_CHECK(vocab != NULL);
}

static bool
compile_choices(const char *text, size_t len, LlmStrbuf *program)
{
	char copy[512];
	const char *choices[MAX_CHOICES];
	size_t n_choices = 0;
	char *rest = copy;

	if (len >= sizeof(copy) || memchr(text, '\0', len) != NULL)
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	while (rest != NULL && n_choices < MAX_CHOICES)
		choices[n_choices++] = strsep(&rest, "\n");
	return llm_grammar_compile_choice(choices, n_choices, program, &err);
}

static bool
compile(int kind, const char *text, size_t len, LlmStrbuf *program)
{
	switch (kind)
	{
		case 0:
			return llm_grammar_compile_json_schema(text, len, program, &err);
		case 1:
			return llm_grammar_compile_regex(text, len, program, &err);
		case 2:
			return llm_grammar_compile_gbnf(text, len, program, &err);
		case 3:
			return compile_choices(text, len, program);
		default:
			llm_strbuf_append(program, text, len / 4 * 4);
			return program->len > 0;
	}
}

/* The first allowed token from a place on that the input chooses. */
static int32_t
choose_token(const uint32_t *mask, uint8_t place)
{
	for (int32_t i = 0; i < N_VOCAB; i++)
	{
		int32_t id = (i + place) % N_VOCAB;

		if ((mask[id / 32] >> id % 32 & 1) != 0)
			return id;
	}
	return -1;
}

static void
walk(LlmGrammar *grammar, const uint8_t *places, size_t n_places)
{
	LlmGrammarMatcher *matcher = llm_grammar_matcher_create(grammar, &err);
	uint32_t mask[(N_VOCAB + 31) / 32];

	FUZZ_CHECK(matcher != NULL);
	for (size_t i = 0; i < n_places && i < MAX_STEPS; i++)
	{
		int32_t id;

		if (!llm_grammar_matcher_fill_mask(matcher, mask, &err))
			break;
		id = choose_token(mask, places[i]);
		FUZZ_CHECK(id >= 0);
		FUZZ_CHECK((id == END_ID) <= llm_grammar_matcher_may_end(matcher));
		if (!llm_grammar_matcher_accept(matcher, id, &err))
		{
			FUZZ_CHECK(err.code != LLM_ERROR_INVALID);
			break;
		}
		if (id == END_ID)
			break;
	}
	FUZZ_CHECK(llm_grammar_matcher_rollback(matcher, 0));
	llm_grammar_matcher_free(matcher);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int kind = size > 0 ? data[0] % 5 : 0;
	const uint8_t *source = data + 1;
	const uint8_t *end;
	LlmStrbuf program = { 0 };

	if (size < 2)
		return 0;
	if (vocab == NULL)
		make_vocab();
	size--;
	end = kind == 4 ? source + size / 2 : memchr(source, 0xFF, size);
	if (end == NULL)
		end = source + size;
	if (compile(kind, (const char *) source, (size_t) (end - source), &program))
	{
		LlmGrammar *grammar =
			llm_grammar_open((const uint32_t *) program.data, program.len / 4,
							 vocab, 1 << 20, &err);

		/* what compiles also opens */
		FUZZ_CHECK(grammar != NULL || kind == 4);
		if (grammar != NULL)
			walk(grammar, end, (size_t) (source + size - end));
		llm_grammar_close(grammar);
	}
	llm_strbuf_free(&program);
	return 0;
}
