/*
 * test_answers.c
 *	  Requests that generate nothing: scores of a prompt's tokens, and
 *	  embeddings, against transformers; in whole steps and in chunks, alone and
 *	  in company, with the prefix cache warm, with preemption, and resumed.
 *
 * test/unit/test_answers.c
 */
#include <math.h>

#include "src/common/safetensors/safetensors.h"
#include "test/unit/executor_rig.h"
#include "test/unit/unit_test.h"

#define N_PROMPTS 4
#define MAX_PROMPT 128
#define MAX_HIDDEN 512

/* Chunks of a mean are summed apart, and computed in another order. */
#define TOLERANCE 2e-4

typedef struct Answer
{
	int n_tokens;
	int32_t ids[MAX_PROMPT];
	float logprobs[MAX_PROMPT];
	uint32_t n_top[MAX_PROMPT];
	int n_floats;
	float floats[MAX_HIDDEN];
	bool is_finished;
	LlmWireFinished finished;
	LlmError error; /* code LLM_OK: none */
} Answer;

#define MAX_ANSWERS 40
static Answer answers[MAX_ANSWERS];

typedef struct Reference
{
	LlmSafetensors *prompts;
	LlmSafetensors *expected;
	const char *name;
} Reference;

static const LlmStoredTensor *
find(const LlmSafetensors *file, const char *format, const char *name, int i)
{
	char key[64];

	snprintf(key, sizeof(key), format, name, i);
	return llm_safetensors_find(file, key);
}

static bool
open_reference(const char *name, Reference *reference)
{
	char path[192];
	LlmError err;

	reference->name = name;
	snprintf(path, sizeof(path), "test/vectors/model/%s/expected.safetensors",
			 name);
	reference->prompts = llm_safetensors_open(path, &err);
	reference->expected =
		llm_safetensors_open("test/vectors/answers/expected.safetensors", &err);
	if (reference->prompts != NULL && reference->expected != NULL)
		return true;
	CHECK_FAIL("%s", err.message);
	return false;
}

static void
close_reference(Reference *reference)
{
	llm_safetensors_close(reference->prompts);
	llm_safetensors_close(reference->expected);
}

static const int32_t *
prompt_of(const Reference *reference, int i, uint32_t *n_prompt)
{
	const LlmStoredTensor *tensor =
		find(reference->prompts, "%.0sp%d.ids", "", i);

	*n_prompt = (uint32_t) tensor->shape[0];
	return tensor->data;
}

static LlmWireRequest
request_of(LlmRequestKind kind, uint32_t n_prompt)
{
	LlmWireRequest wire = { .params = llm_sampling_params_default(),
							.kind = kind,
							.n_prompt = n_prompt };

	if (kind == LLM_REQUEST_SCORE)
	{
		wire.n_scored = wire.params.max_tokens = n_prompt - 1;
		wire.params.n_logprobs = 2;
	}
	return wire;
}

static void
send_prompt(uint64_t id, const LlmWireRequest *wire, const int32_t *prompt)
{
	LlmStrbuf bytes;

	llm_strbuf_init(&bytes);
	llm_strbuf_append(&bytes, wire, sizeof(*wire));
	llm_strbuf_append(&bytes, prompt, wire->n_prompt * sizeof(int32_t));
	/* tokens that were scored before are the prompt's own */
	llm_strbuf_append(&bytes, prompt + wire->n_prompt - wire->n_scored,
					  wire->n_output * sizeof(int32_t));
	send_frame(LLM_MESSAGE_REQUEST, id, bytes.data, bytes.len);
	llm_strbuf_free(&bytes);
}

static void
take_token(Answer *answer, const void *payload)
{
	const LlmWireTokens *tokens = payload;
	const char *at = (const char *) (tokens + 1);

	if (tokens->n_tokens != 1 || !tokens->has_logprobs ||
		answer->n_tokens == MAX_PROMPT)
		abort();
	memcpy(&answer->ids[answer->n_tokens], at, 4);
	memcpy(&answer->logprobs[answer->n_tokens], at + 4, 4);
	memcpy(&answer->n_top[answer->n_tokens++], at + 8, 4);
}

static void
collect(int n_ends)
{
	LlmFrameHeader header;
	const void *payload;

	while (n_ends > 0 && next_frame(&header, &payload))
	{
		Answer *answer = &answers[header.request_id % MAX_ANSWERS];

		if (header.type == LLM_MESSAGE_TOKENS)
			take_token(answer, payload);
		else if (header.type == LLM_MESSAGE_EMBEDDING)
		{
			CHECK_INT_EQ(answer->n_floats, 0);
			answer->n_floats = (int) (header.n_bytes / sizeof(float));
			if (answer->n_floats > MAX_HIDDEN)
				abort();
			memcpy(answer->floats, payload, header.n_bytes);
		}
		else if (header.type == LLM_MESSAGE_FINISHED)
		{
			memcpy(&answer->finished, payload, sizeof(answer->finished));
			answer->is_finished = true;
			n_ends--;
		}
		else if (header.type == LLM_MESSAGE_FAILED)
		{
			memcpy(&answer->error, payload, sizeof(answer->error));
			n_ends--;
		}
	}
	CHECK_INT_EQ(n_ends, 0);
}

static double
worst_difference(const float *a, const float *b, int n)
{
	double worst = 0;

	for (int i = 0; i < n; i++)
	{
		double difference = fabs((double) a[i] - (double) b[i]);

		if (!(difference <= worst))
			worst = difference;
	}
	return worst;
}

/* The answer to prompt i of that kind, n_before of it known before. */
static void
check_answer(const Reference *reference, LlmRequestKind kind, int i,
			 uint32_t n_before)
{
	const Answer *answer = &answers[i * 3 + (int) kind];
	const char *const formats[] = { "", "%s.p%d.logprobs", "%s.p%d.last",
									"%s.p%d.mean" };
	const LlmStoredTensor *tensor =
		find(reference->expected, formats[kind], reference->name, i);
	const float *expected = tensor->data;
	uint32_t n_prompt;
	const int32_t *ids = prompt_of(reference, i, &n_prompt);
	int n = (int) tensor->shape[0] - (int) n_before;
	double worst;

	CHECK(answer->is_finished);
	CHECK_INT_EQ(answer->finished.reason, LLM_FINISH_STOP);
	CHECK_INT_EQ(answer->finished.n_prompt, n_prompt);
	if (kind == LLM_REQUEST_SCORE)
	{
		CHECK_INT_EQ(answer->n_tokens, n);
		CHECK(memcmp(answer->ids, ids + 1 + n_before, (size_t) n * 4) == 0);
		CHECK_INT_EQ(answer->n_top[0], 2);
		worst = worst_difference(answer->logprobs, expected + n_before, n);
	}
	else
	{
		CHECK_INT_EQ(answer->n_floats, n);
		worst = worst_difference(answer->floats, expected, n);
	}
	if (!(worst <= TOLERANCE))
		CHECK_FAIL("%s: kind %d of a prompt of %u tokens is off by %g",
				   reference->name, (int) kind, n_prompt, worst);
}

/* All prompts in all ways; "together": at once, else one by one. */
static void
ask_everything(const Reference *reference, bool together, uint32_t n_before)
{
	int n_sent = 0;

	memset(answers, 0, sizeof(answers));
	for (int i = 0; i < N_PROMPTS; i++)
	{
		for (int kind = LLM_REQUEST_SCORE; kind < LLM_REQUEST_KIND_COUNT;
			 kind++)
		{
			uint32_t n_prompt;
			const int32_t *prompt = prompt_of(reference, i, &n_prompt);
			LlmWireRequest wire = request_of((LlmRequestKind) kind, n_prompt);

			if (kind == LLM_REQUEST_SCORE)
			{
				if (n_prompt <= 1 + n_before)
					continue;
				wire.n_output = n_before;
			}
			send_prompt((uint64_t) (i * 3 + kind), &wire, prompt);
			n_sent++;
			if (!together)
				collect(1);
		}
	}
	if (together)
		collect(n_sent);
	for (int i = 0; i < N_PROMPTS; i++)
	{
		uint32_t n_prompt;

		(void) prompt_of(reference, i, &n_prompt);
		if (n_prompt > 1 + n_before)
			check_answer(reference, LLM_REQUEST_SCORE, i, n_before);
		check_answer(reference, LLM_REQUEST_EMBED_LAST, i, 0);
		check_answer(reference, LLM_REQUEST_EMBED_MEAN, i, 0);
	}
}

static void
prompts_are_judged_as_in_transformers(void)
{
	static const char *const names[] = { "llama3", "gemma2", "qwen3", "dynamic",
										 "mixtral" };
	/* whole prompts; small chunks with few rows; in turns for want of blocks */
	static const char *const options[] = {
		"",
		", \"max_num_seqs\": 3, \"max_num_batched_tokens\": 11",
		(", \"max_model_len\": 112, \"max_num_seqs\": 8, "
		 "\"max_num_batched_tokens\": 24, \"kv_cache_memory_bytes\": 131072"),
	};

	for (size_t k = 0; k < 3 * sizeof(names) / sizeof(names[0]); k++)
	{
		Reference reference;
		char dir[128];
		char all_options[256];
		LlmError err;
		cJSON *facts;

		if (!open_reference(names[k / 3], &reference))
			return;
		snprintf(dir, sizeof(dir), "test/vectors/model/%s", names[k / 3]);
		snprintf(all_options, sizeof(all_options),
				 ", \"device\": \"cpu\", \"dtype\": \"float32\"%s",
				 options[k % 3]);
		facts = load_from(dir, all_options, &err);
		if (facts == NULL)
			CHECK_FAIL("%s: %s", dir, err.message);
		else
		{
			ask_everything(&reference, false, 0);
			ask_everything(&reference, true, 0);
			ask_everything(&reference, true, 5);
		}
		cJSON_Delete(facts);
		CHECK_INT_EQ(stop_executor(), 0);
		close_reference(&reference);
	}
}

/*
 * What is wanted of it is computed, the rest comes from the cache: of a
 * prompt of 83 tokens whose last 3 are scored, five blocks of 16 end before
 * the first wanted row; to embed it only the last token is needed, or all.
 */
static void
the_prefix_cache_serves_what_it_may(void)
{
	Reference reference;
	LlmError err;
	cJSON *facts;
	uint32_t n_prompt;
	const int32_t *prompt;
	LlmWireRequest wire;

	if (!open_reference("llama3", &reference))
		return;
	facts = load_from("test/vectors/model/llama3",
					  ", \"device\": \"cpu\", \"block_size\": 16", &err);
	REQUIRE(facts != NULL);
	cJSON_Delete(facts);
	memset(answers, 0, sizeof(answers));
	prompt = prompt_of(&reference, 3, &n_prompt);
	for (uint64_t id = 0; id < 5; id++)
	{
		static const LlmRequestKind kinds[] = {
			LLM_REQUEST_EMBED_MEAN, LLM_REQUEST_EMBED_MEAN,
			LLM_REQUEST_EMBED_LAST, LLM_REQUEST_SCORE, LLM_REQUEST_SCORE
		};

		wire = request_of(kinds[id], n_prompt);
		if (kinds[id] == LLM_REQUEST_SCORE)
			wire.n_scored = wire.params.max_tokens = id == 3 ? 2 : 3;
		send_prompt(id, &wire, prompt);
		collect(1);
	}
	CHECK_INT_EQ(n_prompt, 83);
	CHECK_INT_EQ(answers[0].finished.n_cached, 0);
	CHECK_INT_EQ(answers[1].finished.n_cached, 0);
	CHECK_INT_EQ(answers[2].finished.n_cached, 80);
	/* the first wanted row is that of token 80, or of token 79 */
	CHECK_INT_EQ(answers[3].finished.n_cached, 80);
	CHECK_INT_EQ(answers[4].finished.n_cached, 64);
	CHECK_INT_EQ(stop_executor(), 0);
	close_reference(&reference);
}

static void
what_cannot_be_answered_is_refused(void)
{
	static const int32_t prompt[4] = { 5, 6, 7, 8 };
	LlmError err;
	cJSON *facts =
		load_from("test/vectors/model/llama3", ", \"max_model_len\": 64", &err);
	LlmWireRequest wire = request_of(LLM_REQUEST_SCORE, 4);

	REQUIRE(facts != NULL);
	cJSON_Delete(facts);
	memset(answers, 0, sizeof(answers));
	wire.n_scored = wire.params.max_tokens = 4;
	send_prompt(1, &wire, prompt);
	wire.n_scored = 0;
	send_prompt(2, &wire, prompt);
	wire = request_of(LLM_REQUEST_SCORE, 4);
	wire.params.n_logprobs = -1;
	send_prompt(3, &wire, prompt);
	wire = request_of(LLM_REQUEST_KIND_COUNT, 4);
	send_prompt(4, &wire, prompt);
	wire = request_of(LLM_REQUEST_SCORE, 4);
	wire.n_output = 3;
	send_prompt(5, &wire, prompt);
	wire = request_of(LLM_REQUEST_EMBED_MEAN, 4);
	send_prompt(6, &wire, prompt);
	collect(6);
	for (int id = 1; id <= 4; id++)
		CHECK(answers[id].error.code != LLM_OK &&
			  answers[id].error.message[0] != '\0');
	/* all tokens were known: only the end was missing */
	CHECK(answers[5].is_finished && answers[5].n_tokens == 0);
	CHECK(answers[6].is_finished);
	CHECK_INT_EQ(stop_executor(), 0);
}

int
main(int argc, char **argv)
{
	(void) argc;
	find_executor(argv[0]);
	RUN_TEST(prompts_are_judged_as_in_transformers);
	stepping = "on";
	RUN_TEST(prompts_are_judged_as_in_transformers);
	RUN_TEST(the_prefix_cache_serves_what_it_may);
	RUN_TEST(what_cannot_be_answered_is_refused);
	return unit_test_finish();
}
