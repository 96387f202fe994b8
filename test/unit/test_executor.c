/*
 * test_executor.c
 *	  The executor program through its channel: load, answer, resume, cancel,
 *	  refuse, end.
 *
 * Models are dummies (random weights from a config that the test writes), so
 * answers mean nothing but are the same every time; but for those whose
 * rotary embeddings depend on the length, which planner and model have to get
 * right together: they are compared with transformers.
 *
 * test/unit/test_executor.c
 */
#include <math.h>
#include <sys/stat.h>

#include "src/common/safetensors/safetensors.h"
#include "test/unit/executor_rig.h"
#include "test/unit/unit_test.h"

#define N_VOCAB 300
#define MAX_ANSWER 600
#define MAX_PROMPT 800

static char model_dir[] = "/tmp/llm_ext-test-executor.XXXXXX";

/* What came back for one request. */
typedef struct Answer
{
	int n_tokens;
	int32_t ids[MAX_ANSWER];
	float logprobs[MAX_ANSWER];
	bool has_logprobs;
	bool is_finished;
	LlmWireFinished finished;
	bool is_failed;
	LlmError error;
} Answer;

#define MAX_REQUESTS 65
static Answer answers[MAX_REQUESTS];

static cJSON *
load(const char *more_options, LlmError *err)
{
	char options[512];

	snprintf(options, sizeof(options), ", \"load_format\": \"dummy\"%s",
			 more_options);
	memset(answers, 0, sizeof(answers));
	return load_from(model_dir, options, err);
}

static LlmWireRequest
greedy_request(uint32_t n_prompt, uint32_t max_tokens)
{
	LlmWireRequest wire = { .params = llm_sampling_params_default(),
							.n_prompt = n_prompt };

	wire.params.temperature = 0;
	wire.params.max_tokens = max_tokens;
	wire.params.ignore_eos = 1;
	wire.params.n_logprobs = 2;
	return wire;
}

static void
send_prompt(uint64_t id, const LlmWireRequest *wire, const int32_t *prompt,
			const int32_t *output)
{
	LlmStrbuf bytes;

	llm_strbuf_init(&bytes);
	llm_strbuf_append(&bytes, wire, sizeof(*wire));
	llm_strbuf_append(&bytes, prompt, wire->n_prompt * sizeof(int32_t));
	llm_strbuf_append(&bytes, output, wire->n_output * sizeof(int32_t));
	send_frame(LLM_MESSAGE_REQUEST, id, bytes.data, bytes.len);
	llm_strbuf_free(&bytes);
}

/* Prompt ids are made from the request's number. */
static void
send_request(uint64_t id, const LlmWireRequest *wire, const int32_t *output)
{
	int32_t prompt[MAX_PROMPT];

	if (wire->n_prompt > MAX_PROMPT)
		abort();
	for (uint32_t i = 0; i < wire->n_prompt; i++)
		prompt[i] = (int32_t) ((id * 37 + i * 11) % N_VOCAB);
	send_prompt(id, wire, prompt, output);
}

static void
take_tokens(Answer *answer, const void *payload)
{
	const LlmWireTokens *tokens = payload;
	const char *at = (const char *) (tokens + 1);

	answer->has_logprobs = tokens->has_logprobs;
	for (uint32_t i = 0; i < tokens->n_tokens; i++)
	{
		uint32_t n_top = 0;

		if (answer->n_tokens == MAX_ANSWER)
			abort();
		memcpy(&answer->ids[answer->n_tokens], at, 4);
		at += 4;
		if (tokens->has_logprobs)
		{
			memcpy(&answer->logprobs[answer->n_tokens], at, 4);
			memcpy(&n_top, at + 4, 4);
			at += 8 + 8 * (size_t) n_top;
		}
		answer->n_tokens++;
	}
}

/* Read until n_ends more requests have ended. */
static void
collect(int n_ends)
{
	LlmFrameHeader header;
	const void *payload;

	while (n_ends > 0 && next_frame(&header, &payload))
	{
		Answer *answer = &answers[header.request_id % MAX_REQUESTS];

		switch (header.type)
		{
			case LLM_MESSAGE_TOKENS:
				take_tokens(answer, payload);
				break;
			case LLM_MESSAGE_FINISHED:
				answer->is_finished = true;
				memcpy(&answer->finished, payload, sizeof(answer->finished));
				n_ends--;
				break;
			case LLM_MESSAGE_FAILED:
				answer->is_failed = true;
				memcpy(&answer->error, payload, sizeof(answer->error));
				n_ends--;
				break;
			default:
				break;
		}
	}
	CHECK_INT_EQ(n_ends, 0);
}

static bool
load_or_fail(const char *options)
{
	LlmError err;
	cJSON *facts = load(options, &err);

	if (facts == NULL)
	{
		CHECK_FAIL("could not load: %s", err.message);
		return false;
	}
	cJSON_Delete(facts);
	return true;
}

static void
loads_and_describes_itself(void)
{
	LlmError err;
	cJSON *facts = load(", \"max_model_len\": 200, \"max_num_seqs\": 7", &err);
	int64_t value = 0;

	REQUIRE(facts != NULL);
	CHECK(llm_json_get_int(facts, "n_vocab", &value, &err));
	CHECK_INT_EQ(value, N_VOCAB);
	CHECK(llm_json_get_int(facts, "max_model_len", &value, &err));
	CHECK_INT_EQ(value, 200);
	CHECK(llm_json_get_int(facts, "max_num_seqs", &value, &err));
	CHECK_INT_EQ(value, 7);
	cJSON_Delete(facts);
	CHECK_INT_EQ(stop_executor(), 0);
}

/* Alone, all together, and resumed from any token: the same answer. */
static void
answers_do_not_depend_on_company(void)
{
	static Answer alone[40];
	LlmWireRequest wire;

	/* a promise of the CPU backend; on a GPU sums depend on the batch */
	if (!load_or_fail(", \"device\": \"cpu\", \"max_num_batched_tokens\": 40, "
					  "\"max_num_seqs\": 16"))
		return;
	for (uint64_t id = 1; id < 40; id++)
	{
		wire = greedy_request(1 + (uint32_t) id * 3, 5 + (uint32_t) id);
		send_request(id, &wire, NULL);
		collect(1);
		alone[id] = answers[id];
		CHECK(alone[id].is_finished && alone[id].has_logprobs);
		CHECK_INT_EQ(alone[id].n_tokens, 5 + id);
		CHECK_INT_EQ(alone[id].finished.reason, LLM_FINISH_LENGTH);
		CHECK(alone[id].logprobs[0] <= 0);
	}
	memset(answers, 0, sizeof(answers));
	for (uint64_t id = 1; id < 40; id++)
	{
		wire = greedy_request(1 + (uint32_t) id * 3, 5 + (uint32_t) id);
		send_request(id, &wire, NULL);
	}
	collect(39);
	for (uint64_t id = 1; id < 40; id++)
		CHECK(memcmp(answers[id].ids, alone[id].ids, sizeof(alone[id].ids)) ==
			  0);
	CHECK_INT_EQ(stop_executor(), 0);

	/* another executor goes on behind the first n tokens, a step ahead */
	if (!load_or_fail(", \"device\": \"cpu\", \"max_num_batched_tokens\": 16, "
					  "\"max_num_seqs\": 16"))
		return;
	for (uint64_t id = 1; id < 40; id++)
	{
		wire = greedy_request(1 + (uint32_t) id * 3, 5 + (uint32_t) id);
		wire.n_output = (uint32_t) id % (5 + (uint32_t) id + 1);
		send_request(id, &wire, alone[id].ids);
	}
	collect(39);
	for (uint64_t id = 1; id < 40; id++)
	{
		int n_before = (int) (id % (5 + id + 1));

		CHECK_INT_EQ(answers[id].n_tokens, 5 + (int) id - n_before);
		CHECK(memcmp(answers[id].ids, alone[id].ids + n_before,
					 (size_t) answers[id].n_tokens * 4) == 0);
	}
	CHECK_INT_EQ(stop_executor(), 0);
}

/* The same request's log-probabilities, bit by bit. */
static void
check_same(const Answer *expected, uint64_t id, const char *how)
{
	const Answer *answer = &answers[id % MAX_REQUESTS];

	if (answer->n_tokens != expected->n_tokens ||
		memcmp(answer->ids, expected->ids,
			   (size_t) expected->n_tokens * sizeof(int32_t)) != 0 ||
		memcmp(answer->logprobs, expected->logprobs,
			   (size_t) expected->n_tokens * sizeof(float)) != 0)
		CHECK_FAIL("request %llu differs: %s", (unsigned long long) id, how);
}

#define N_COMPARED 32

/* Some are long enough to be cut. */
static void
send_compared(uint64_t id)
{
	LlmWireRequest wire =
		greedy_request((id % 8 == 0 ? 500 : 1) + (uint32_t) id * 4, 12);

	send_request(id, &wire, NULL);
}

/* Each prompt a second time is found in the cache. */
static void
compare_all(const Answer *expected, const char *how)
{
	for (int round = 0; round < 2; round++)
	{
		memset(answers, 0, sizeof(answers));
		for (uint64_t id = 1; id <= N_COMPARED; id++)
			send_compared(id);
		collect(N_COMPARED);
		for (uint64_t id = 1; id <= N_COMPARED; id++)
			check_same(&expected[id], id, how);
	}
}

/* On whatever device there is. */
static void
deterministic_means_equal_bits(void)
{
	static Answer alone[N_COMPARED + 1];
	static const char *const companies[] = {
		"\"max_num_batched_tokens\": 1024, \"max_num_seqs\": 1",
		"\"max_num_batched_tokens\": 8, \"max_num_seqs\": 8",
		"\"max_num_batched_tokens\": 40, \"max_num_seqs\": 32",
		"\"max_num_batched_tokens\": 2048, \"max_num_seqs\": 32, "
		"\"enable_prefix_caching\": false",
		"\"max_num_batched_tokens\": 2048, \"max_num_seqs\": 256, "
		"\"enforce_eager\": true",
		/* too small a cache: some are preempted and computed anew */
		"\"max_num_batched_tokens\": 64, \"max_num_seqs\": 16, "
		"\"max_model_len\": 1024, \"kv_cache_memory_bytes\": 655360",
	};
	char options[256];

	for (size_t i = 0; i < sizeof(companies) / sizeof(companies[0]); i++)
	{
		snprintf(options, sizeof(options), ", \"deterministic\": true, %s",
				 companies[i]);
		if (!load_or_fail(options))
			return;
		for (uint64_t id = 1; i == 0 && id <= N_COMPARED; id++)
		{
			send_compared(id);
			collect(1);
			alone[id] = answers[id];
			CHECK_INT_EQ(alone[id].n_tokens, 12);
		}
		compare_all(alone, companies[i]);
		CHECK_INT_EQ(stop_executor(), 0);
	}
}

/* All tokens are there, only FINISHED was lost with the first executor. */
static void
resumes_a_request_that_was_done(void)
{
	LlmWireRequest wire = greedy_request(4, 3);
	int32_t output[3] = { 1, 2, 3 };

	if (!load_or_fail(""))
		return;
	wire.n_output = 3;
	send_request(1, &wire, output);
	collect(1);
	CHECK(answers[1].is_finished);
	CHECK_INT_EQ(answers[1].n_tokens, 0);
	CHECK_INT_EQ(answers[1].finished.reason, LLM_FINISH_LENGTH);
	CHECK_INT_EQ(answers[1].finished.n_output, 3);
	CHECK_INT_EQ(stop_executor(), 0);
}

static void
seeds_decide_what_is_drawn(void)
{
	LlmWireRequest wire = greedy_request(4, 20);

	if (!load_or_fail(""))
		return;
	wire.params.temperature = 1;
	for (int round = 0; round < 3; round++)
	{
		wire.params.seed = round == 2 ? 9 : 8;
		/* the same prompt: ids are equal modulo N_VOCAB */
		send_request(1 + (uint64_t) round * N_VOCAB, &wire, NULL);
		collect(1);
	}
	CHECK(memcmp(answers[1].ids, answers[(1 + N_VOCAB) % MAX_REQUESTS].ids,
				 80) == 0);
	CHECK(memcmp(answers[1].ids, answers[(1 + 2 * N_VOCAB) % MAX_REQUESTS].ids,
				 80) != 0);
	CHECK_INT_EQ(stop_executor(), 0);
}

static void
cancel_ends_a_request_once(void)
{
	LlmWireRequest wire = greedy_request(4, 500);

	if (!load_or_fail(""))
		return;
	send_request(1, &wire, NULL);
	send_request(2, &wire, NULL);
	send_frame(LLM_MESSAGE_CANCEL, 1, NULL, 0);
	send_frame(LLM_MESSAGE_CANCEL, 1, NULL, 0);
	send_frame(LLM_MESSAGE_CANCEL, 77, NULL, 0);
	collect(2);
	CHECK(answers[1].is_finished && answers[2].is_finished);
	CHECK_INT_EQ(answers[1].finished.reason, LLM_FINISH_CANCELLED);
	CHECK_INT_EQ(answers[2].n_tokens, 500);
	CHECK_INT_EQ(stop_executor(), 0);
}

/* Stop ids are seen a step late where the loop runs ahead. */
static void
running_ahead_changes_no_answer(void)
{
	static Answer inline_answers[MAX_REQUESTS];
	static const char *const modes[] = { "off", "on" };
	int n_stopped = 0;

	for (int mode = 0; mode < 2; mode++)
	{
		stepping = modes[mode];
		if (!load_or_fail(", \"device\": \"cpu\", "
						  "\"max_num_batched_tokens\": 24, "
						  "\"max_num_seqs\": 9, \"max_model_len\": 200, "
						  "\"kv_cache_memory_bytes\": 300000"))
			return;
		for (uint64_t id = 1; id < 40; id++)
		{
			LlmWireRequest wire = greedy_request(1 + (uint32_t) id * 3, 70);

			wire.params.ignore_eos = 0;
			wire.params.temperature = id % 3 == 0 ? 0 : 1.5f;
			wire.params.repetition_penalty = id % 4 == 0 ? 1.3f : 1;
			wire.params.seed = id;
			send_request(id, &wire, NULL);
		}
		collect(39);
		if (mode == 0)
			memcpy(inline_answers, answers, sizeof(answers));
		CHECK_INT_EQ(stop_executor(), 0);
	}
	for (int id = 1; id < 40; id++)
	{
		const Answer *expected = &inline_answers[id];

		CHECK(answers[id].is_finished);
		n_stopped += expected->finished.reason == LLM_FINISH_STOP;
		CHECK_INT_EQ(answers[id].n_tokens, expected->n_tokens);
		CHECK_INT_EQ(answers[id].finished.reason, expected->finished.reason);
		CHECK_INT_EQ(answers[id].finished.n_output, (int) expected->n_tokens);
		CHECK(memcmp(answers[id].ids, expected->ids, sizeof(expected->ids)) ==
			  0);
	}
	CHECK(n_stopped > 3 && n_stopped < 36);
	stepping = "auto";
}

static void
bad_requests_fail_alone(void)
{
	LlmWireRequest wire = greedy_request(4, 5);
	int32_t output[1] = { N_VOCAB };

	if (!load_or_fail(", \"max_model_len\": 64"))
		return;
	send_frame(LLM_MESSAGE_REQUEST, 1, &wire, sizeof(wire) - 4);
	send_frame(LLM_MESSAGE_REQUEST, 2, &wire, sizeof(wire));
	wire.n_output = 1;
	send_request(3, &wire, output);
	wire = greedy_request(60, 5);
	send_request(4, &wire, NULL);
	wire = greedy_request(0, 5);
	send_request(5, &wire, NULL);
	wire = greedy_request(4, 5);
	wire.params.top_p = 0;
	send_request(6, &wire, NULL);
	wire = greedy_request(4, 5);
	wire.adapter_id = 3;
	send_request(7, &wire, NULL);
	wire = greedy_request(4, 5);
	send_request(8, &wire, NULL);
	collect(8);
	for (int id = 1; id <= 7; id++)
		CHECK(answers[id].is_failed && answers[id].error.message[0] != '\0');
	CHECK(strstr(answers[4].error.message, "60") != NULL &&
		  strstr(answers[4].error.message, "64") != NULL);
	CHECK(answers[8].is_finished);
	CHECK_INT_EQ(stop_executor(), 0);
}

static void
loading_errors_are_reported(void)
{
	static const char *const options[] = {
		", \"max_model_len\": 100000",
		", \"kv_cache_memory_bytes\": 1000",
		", \"max_model_len\": 512, \"kv_cache_memory_bytes\": 60000",
		/* a GPU computes in bfloat16, and there may be none */
		", \"device\": \"cuda\", \"dtype\": \"float32\"",
		", \"gpu_memory_utilization\": 1.5",
		", \"dtype\": \"int3\"",
		", \"block_size\": 24",
		", \"path\": \"/nonexistent\", \"path\": 7",
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
	{
		LlmError err;
		cJSON *facts;

		llm_error_clear(&err);
		facts = load(options[i], &err);
		/* a duplicate key is the first one: it loads */
		if (i == sizeof(options) / sizeof(options[0]) - 1)
			cJSON_Delete(facts);
		else
			CHECK(facts == NULL && err.message[0] != '\0');
		CHECK_INT_EQ(stop_executor(), 0);
	}
}

static void
ends_quietly_whatever_happens(void)
{
	LlmWireRequest wire = greedy_request(4, 500);

	if (!load_or_fail(""))
		return;
	send_request(1, &wire, NULL);
	kill(child, SIGTERM);
	CHECK_INT_EQ(wait_for_exit(), 0);
	llm_channel_free(channel);

	if (!load_or_fail(""))
		return;
	send_request(1, &wire, NULL);
	CHECK_INT_EQ(stop_executor(), 0);

	if (!load_or_fail(""))
		return;
	send_request(1, &wire, NULL);
	send_frame(LLM_MESSAGE_STOP, 0, NULL, 0);
	CHECK_INT_EQ(wait_for_exit(), 0);
	llm_channel_free(channel);

	start_executor();
	CHECK_INT_EQ(stop_executor(), 0);
}

/* -- what transformers says -- */

#define N_PROMPTS 4
#define N_GREEDY 48

typedef struct Reference
{
	LlmSafetensors *file;
	const int32_t *prompts[N_PROMPTS];
	int n_prompt[N_PROMPTS];
	const int32_t *greedy[N_PROMPTS]; /* [N_GREEDY] */
	double logprob_end[N_PROMPTS];	  /* of the last of these */
} Reference;

static double
log_probability(const float *logits, int n, int32_t id)
{
	double sum = 0;

	for (int i = 0; i < n; i++)
		sum += exp((double) logits[i] - logits[id]);
	return -log(sum);
}

static bool
open_reference(const char *dir, Reference *reference)
{
	char path[192];
	LlmError err;

	snprintf(path, sizeof(path), "%s/expected.safetensors", dir);
	reference->file = llm_safetensors_open(path, &err);
	if (reference->file == NULL)
	{
		CHECK_FAIL("%s", err.message);
		return false;
	}
	for (int i = 0; i < N_PROMPTS; i++)
	{
		const LlmStoredTensor *tensor;

		snprintf(path, sizeof(path), "p%d.ids", i);
		tensor = llm_safetensors_find(reference->file, path);
		reference->prompts[i] = tensor->data;
		reference->n_prompt[i] = (int) tensor->shape[0];
		snprintf(path, sizeof(path), "p%d.greedy", i);
		tensor = llm_safetensors_find(reference->file, path);
		CHECK_INT_EQ(tensor->shape[0], N_GREEDY);
		reference->greedy[i] = tensor->data;
	}
	return true;
}

/* Not all references have them. */
static void
read_logprob_ends(Reference *reference)
{
	for (int i = 0; i < N_PROMPTS; i++)
	{
		const LlmStoredTensor *tensor;
		char name[64];

		snprintf(name, sizeof(name), "p%d.logits_end", i);
		tensor = llm_safetensors_find(reference->file, name);
		reference->logprob_end[i] =
			log_probability(tensor->data, (int) tensor->shape[0],
							reference->greedy[i][N_GREEDY - 1]);
	}
}

/*
 * All prompts at once, each going on behind its first n_before tokens of
 * output; then the same again, where much is in the prefix cache.
 */
static void
check_against(const Reference *reference, int n_before, const char *name)
{
	for (int round = 0; round < 2; round++)
	{
		memset(answers, 0, sizeof(answers));
		for (int i = 0; i < N_PROMPTS; i++)
		{
			LlmWireRequest wire =
				greedy_request((uint32_t) reference->n_prompt[i], N_GREEDY);

			wire.n_output = (uint32_t) n_before;
			send_prompt((uint64_t) i, &wire, reference->prompts[i],
						reference->greedy[i]);
		}
		collect(N_PROMPTS);
		for (int i = 0; i < N_PROMPTS; i++)
		{
			double difference;

			CHECK_INT_EQ(answers[i].n_tokens, N_GREEDY - n_before);
			if (memcmp(answers[i].ids, reference->greedy[i] + n_before,
					   (size_t) (N_GREEDY - n_before) * 4) != 0)
				CHECK_FAIL("%s: prompt of %d tokens, resumed after %d: other "
						   "tokens than transformers",
						   name, reference->n_prompt[i], n_before);
			difference = answers[i].logprobs[N_GREEDY - n_before - 1] -
						 reference->logprob_end[i];
			if (!(fabs(difference) <= 1e-4))
				CHECK_FAIL("%s: prompt of %d tokens, resumed after %d: last "
						   "log-probability is off by %g",
						   name, reference->n_prompt[i], n_before, difference);
		}
	}
}

/* Prompts, and generations that get there, within and beyond 48 tokens. */
static void
lengths_rotate_as_in_transformers(void)
{
	static const char *const names[] = { "dynamic", "longrope",
										 "phi3_longrope" };
	/* in one step each; in chunks of 16 and with preemption */
	static const char *const options[] = {
		", \"device\": \"cpu\", \"dtype\": \"float32\", \"max_num_seqs\": 4",
		", \"device\": \"cpu\", \"dtype\": \"float32\", \"max_num_seqs\": 4, "
		"\"max_model_len\": 131, \"max_num_batched_tokens\": 16, "
		"\"kv_cache_memory_bytes\": 98304",
	};

	for (size_t i = 0; i < 2 * sizeof(names) / sizeof(names[0]); i++)
	{
		const char *name = names[i / 2];
		char dir[128];
		Reference reference;
		LlmError err;
		cJSON *facts;

		snprintf(dir, sizeof(dir), "test/vectors/model/%s", name);
		if (!open_reference(dir, &reference))
			return;
		read_logprob_ends(&reference);
		facts = load_from(dir, options[i % 2], &err);
		if (facts == NULL)
			CHECK_FAIL("%s", err.message);
		else
		{
			static const int n_before[] = { 0, 7, 20, 47 };

			for (size_t k = 0; k < sizeof(n_before) / sizeof(int); k++)
				check_against(&reference, n_before[k], name);
		}
		cJSON_Delete(facts);
		CHECK_INT_EQ(stop_executor(), 0);
		llm_safetensors_close(reference.file);
	}
}

/* Within the trained length max_model_len changes nothing. */
static void
a_short_context_rotates_as_a_long_one(void)
{
	static const char *const names[] = { "dynamic", "longrope",
										 "phi3_longrope" };

	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
	{
		char dir[128];
		Reference reference;
		LlmError err;
		cJSON *facts;

		snprintf(dir, sizeof(dir), "test/vectors/model/%s", names[n]);
		if (!open_reference(dir, &reference))
			return;
		facts = load_from(dir,
						  ", \"device\": \"cpu\", \"dtype\": \"float32\", "
						  "\"max_model_len\": 48",
						  &err);
		REQUIRE(facts != NULL);
		memset(answers, 0, sizeof(answers));
		for (int i = 0; i < N_PROMPTS; i++)
		{
			int n_tokens = 48 - reference.n_prompt[i];
			LlmWireRequest wire = greedy_request(
				(uint32_t) reference.n_prompt[i], (uint32_t) n_tokens);

			if (n_tokens <= 0)
				continue;
			send_prompt((uint64_t) i, &wire, reference.prompts[i], NULL);
			collect(1);
			CHECK_INT_EQ(answers[i].n_tokens, n_tokens);
			CHECK(memcmp(answers[i].ids, reference.greedy[i],
						 (size_t) n_tokens * 4) == 0);
		}
		cJSON_Delete(facts);
		CHECK_INT_EQ(stop_executor(), 0);
		llm_safetensors_close(reference.file);
	}
}

/* Chunked, batched: the experts' scratch has room for what the planner does. */
static void
mixtures_answer_as_in_transformers(void)
{
	static const char *const names[] = { "mixtral", "qwen3_moe" };

	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
	{
		char dir[128];
		Reference reference;
		LlmError err;
		cJSON *facts;

		snprintf(dir, sizeof(dir), "test/vectors/model/%s", names[n]);
		if (!open_reference(dir, &reference))
			return;
		facts = load_from(dir,
						  ", \"device\": \"cpu\", \"dtype\": \"float32\", "
						  "\"max_num_seqs\": 4, "
						  "\"max_num_batched_tokens\": 16",
						  &err);
		REQUIRE(facts != NULL);
		memset(answers, 0, sizeof(answers));
		for (int i = 0; i < N_PROMPTS; i++)
		{
			LlmWireRequest wire =
				greedy_request((uint32_t) reference.n_prompt[i], N_GREEDY);

			send_prompt((uint64_t) i, &wire, reference.prompts[i], NULL);
		}
		collect(N_PROMPTS);
		for (int i = 0; i < N_PROMPTS; i++)
		{
			CHECK_INT_EQ(answers[i].n_tokens, N_GREEDY);
			CHECK(memcmp(answers[i].ids, reference.greedy[i],
						 (size_t) N_GREEDY * 4) == 0);
		}
		cJSON_Delete(facts);
		CHECK_INT_EQ(stop_executor(), 0);
		llm_safetensors_close(reference.file);
	}
}

static bool
write_config(void)
{
	char path[PATH_MAX];
	FILE *file;

	if (mkdtemp(model_dir) == NULL)
		return false;
	snprintf(path, sizeof(path), "%s/config.json", model_dir);
	file = fopen(path, "w");
	if (file == NULL)
		return false;
	fprintf(file,
			"{\"architectures\": [\"LlamaForCausalLM\"], "
			"\"model_type\": \"llama\", \"hidden_size\": 64, "
			"\"intermediate_size\": 96, \"num_hidden_layers\": 2, "
			"\"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
			"\"vocab_size\": %d, \"max_position_embeddings\": 1024, "
			"\"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
			"\"hidden_act\": \"silu\", \"tie_word_embeddings\": false, "
			"\"torch_dtype\": \"float32\", \"eos_token_id\": 2}",
			N_VOCAB);
	return fclose(file) == 0;
}

int
main(int argc, char **argv)
{
	char command[PATH_MAX + 16];

	find_executor(argv[0]);
	if (!write_config())
		return 1;
	RUN_TEST(loads_and_describes_itself);
	RUN_TEST(running_ahead_changes_no_answer);
	stepping = "on";
	RUN_TEST(answers_do_not_depend_on_company);
	RUN_TEST(deterministic_means_equal_bits);
	RUN_TEST(resumes_a_request_that_was_done);
	RUN_TEST(seeds_decide_what_is_drawn);
	RUN_TEST(cancel_ends_a_request_once);
	RUN_TEST(lengths_rotate_as_in_transformers);
	stepping = "auto";
	RUN_TEST(answers_do_not_depend_on_company);
	RUN_TEST(resumes_a_request_that_was_done);
	RUN_TEST(seeds_decide_what_is_drawn);
	RUN_TEST(cancel_ends_a_request_once);
	RUN_TEST(bad_requests_fail_alone);
	RUN_TEST(loading_errors_are_reported);
	RUN_TEST(ends_quietly_whatever_happens);
	RUN_TEST(lengths_rotate_as_in_transformers);
	RUN_TEST(a_short_context_rotates_as_a_long_one);
	RUN_TEST(mixtures_answer_as_in_transformers);
	snprintf(command, sizeof(command), "%s/config.json", model_dir);
	unlink(command);
	rmdir(model_dir);
	return unit_test_finish();
}
