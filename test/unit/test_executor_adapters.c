/*
 * test_executor_adapters.c
 *	  Adapters through an executor's channel: many on few slots, waiting,
 *	  cancelling, forgetting, and what cannot be served.
 *
 * The model and the adapters are those of test/vectors: PEFT made the
 * adapters, and test_lora_model.c compares what they compute.  Here answers
 * are compared with each adapter's own when it is alone.
 *
 * test/unit/test_executor_adapters.c
 */
#include <math.h>

#include "test/unit/adapter_rig.h"
#include "test/unit/executor_rig.h"
#include "test/unit/unit_test.h"

#define MODEL "test/vectors/model/llama3"
#define MAX_ANSWER 24
#define MAX_REQUESTS 1200
#define N_PATHS 2

/* Two adapters for one model; many ids are given to each. */
static const char *const names[N_PATHS] = { "llama3_patterns", "llama3_head" };
static char paths[N_PATHS][IMAGE_PATH_BYTES];

typedef struct Answer
{
	int n_tokens;
	int32_t ids[MAX_ANSWER];
	bool is_failed;
	LlmWireFinished finished;
	LlmError error;
} Answer;

static Answer answers[MAX_REQUESTS];

/* The last state that was told of an adapter. */
static uint32_t residency[MAX_REQUESTS];

static void
announce(uint64_t adapter_id, const char *path, bool is_pinned)
{
	LlmWireAdapter wire = { adapter_id, is_pinned, (uint32_t) strlen(path) };
	LlmStrbuf bytes;

	llm_strbuf_init(&bytes);
	llm_strbuf_append(&bytes, &wire, sizeof(wire));
	llm_strbuf_append(&bytes, path, strlen(path));
	send_frame(LLM_MESSAGE_ADAPTER, 0, bytes.data, bytes.len);
	llm_strbuf_free(&bytes);
}

static void
forget(uint64_t adapter_id)
{
	LlmWireAdapter wire = { .adapter_id = adapter_id };

	send_frame(LLM_MESSAGE_ADAPTER_FORGET, 0, &wire, sizeof(wire));
}

/* All requests ask the same. */
static void
ask(uint64_t id, uint64_t adapter_id, uint32_t request_class)
{
	struct
	{
		LlmWireRequest wire;
		int32_t prompt[20];
	} message = { .wire = { .params = llm_sampling_params_default(),
							.adapter_id = adapter_id,
							.request_class = request_class,
							.n_prompt = 20 } };

	memset(&answers[id], 0, sizeof(answers[id]));
	message.wire.params.temperature = 0;
	message.wire.params.max_tokens = MAX_ANSWER;
	message.wire.params.ignore_eos = 1;
	for (int i = 0; i < 20; i++)
		message.prompt[i] = 3 + i * 7;
	send_frame(LLM_MESSAGE_REQUEST, id, &message, sizeof(message));
}

static void
collect(int n_ends)
{
	LlmFrameHeader header;
	const void *payload;

	while (n_ends > 0 && next_frame(&header, &payload))
	{
		Answer *answer = &answers[header.request_id % MAX_REQUESTS];
		const LlmWireAdapterState *state = payload;

		switch (header.type)
		{
			case LLM_MESSAGE_TOKENS:
				memcpy(&answer->ids[answer->n_tokens++],
					   (const LlmWireTokens *) payload + 1, 4);
				break;
			case LLM_MESSAGE_FINISHED:
				memcpy(&answer->finished, payload, sizeof(answer->finished));
				n_ends--;
				break;
			case LLM_MESSAGE_FAILED:
				answer->is_failed = true;
				memcpy(&answer->error, payload, sizeof(answer->error));
				n_ends--;
				break;
			case LLM_MESSAGE_ADAPTER_STATE:
				residency[state->adapter_id % MAX_REQUESTS] = state->residency;
				break;
			default:
				break;
		}
	}
	CHECK_INT_EQ(n_ends, 0);
}

static bool
same_answer(const Answer *a, const Answer *b)
{
	return !a->is_failed && !b->is_failed && a->n_tokens == MAX_ANSWER &&
		   memcmp(a->ids, b->ids, sizeof(a->ids)) == 0;
}

static bool
load(const char *options)
{
	LlmError err;
	char all[300];
	cJSON *facts;

	snprintf(all, sizeof(all), ", \"device\": \"cpu\"%s", options);
	facts = load_from(MODEL, all, &err);
	if (facts == NULL)
	{
		CHECK_FAIL("could not load: %s", err.message);
		return false;
	}
	cJSON_Delete(facts);
	memset(residency, 0, sizeof(residency));
	return true;
}

/* What the base model and each adapter say alone: answers 0, 1 and 2. */
static void
ask_alone(Answer alone[3])
{
	announce(101, paths[0], false);
	announce(102, paths[1], false);
	for (uint64_t i = 0; i < 3; i++)
	{
		ask(i, i == 0 ? 0 : 100 + i, 0);
		collect(1);
		alone[i] = answers[i];
		CHECK(same_answer(&alone[i], &alone[i]));
	}
	CHECK(!same_answer(&alone[0], &alone[1]));
	CHECK(!same_answer(&alone[0], &alone[2]));
	CHECK(!same_answer(&alone[1], &alone[2]));
}

static void
many_adapters_share_few_slots(void)
{
	Answer alone[3];

	if (!load(", \"max_loras\": 2, \"max_num_seqs\": 8, "
			  "\"max_num_batched_tokens\": 32"))
		return;
	ask_alone(alone);
	/* twenty adapters of either kind, three requests each and some without */
	for (uint64_t i = 0; i < 20; i++)
		announce(10 + i, paths[i % 2], i % 7 == 0);
	for (uint64_t i = 0; i < 80; i++)
		ask(i, i % 4 == 3 ? 0 : 10 + i / 4, i % 2);
	collect(80);
	for (uint64_t i = 0; i < 80; i++)
	{
		if (!same_answer(&answers[i], &alone[i % 4 == 3 ? 0 : 1 + i / 4 % 2]))
			CHECK_FAIL("request %d differs", (int) i);
	}
	CHECK_INT_EQ(stop_executor(), 0);
}

static int
count_resident(uint64_t first_id, int n)
{
	int n_resident = 0;

	for (int i = 0; i < n; i++)
		n_resident +=
			residency[first_id + (uint64_t) i] == LLM_ADAPTER_ON_HOST ||
			residency[first_id + (uint64_t) i] == LLM_ADAPTER_ON_DEVICE;
	return n_resident;
}

/* Images beyond max_cpu_loras go, the one used longest ago first. */
static void
the_hosts_cache_is_trimmed(void)
{
	Answer alone[3];

	if (!load(", \"max_loras\": 2, \"max_cpu_loras\": 4"))
		return;
	ask_alone(alone);
	forget(101);
	forget(102);
	for (uint64_t i = 1; i <= 10; i++)
	{
		announce(i, paths[i % 2], i == 1);
		ask(i, i, 0);
		collect(1);
		CHECK(same_answer(&answers[i], &alone[1 + i % 2]));
		CHECK(residency[i] == LLM_ADAPTER_ON_DEVICE);
		CHECK(count_resident(1, 10) <= 4);
	}
	/* the pinned one stayed, the others are the last */
	CHECK_INT_EQ(count_resident(1, 10), 4);
	CHECK(residency[1] == LLM_ADAPTER_ON_DEVICE);
	CHECK_INT_EQ(count_resident(8, 3), 3);
	/* one that went comes again */
	CHECK_INT_EQ(residency[3], LLM_ADAPTER_ABSENT);
	ask(11, 3, 0);
	collect(1);
	CHECK(same_answer(&answers[11], &alone[2]));
	CHECK_INT_EQ(residency[8], LLM_ADAPTER_ABSENT);
	CHECK_INT_EQ(stop_executor(), 0);
}

#define N_REGISTERED 1000

/* The request's adapter: number k with a probability of about 1 / k. */
static uint64_t
draw_adapter(uint64_t *state)
{
	double u;

	*state = *state * 6364136223846793005u + 1442695040888963407u;
	u = (double) (*state >> 11) / (double) (UINT64_C(1) << 53);
	return (uint64_t) pow(N_REGISTERED, u);
}

/* A thousand known ones, a few asked for all the time and most hardly ever. */
static void
a_thousand_adapters_share_64_slots(void)
{
	enum
	{
		N_ASKED = 300
	};
	static uint64_t of_request[N_ASKED];
	uint64_t state = 7;
	int n_loaded;
	Answer alone[3];

	if (!load(", \"max_loras\": 64, \"max_cpu_loras\": 96, "
			  "\"max_num_seqs\": 64"))
		return;
	ask_alone(alone);
	forget(101);
	forget(102);
	for (uint64_t i = 1; i <= N_REGISTERED; i++)
		announce(i, paths[i % 2], false);
	for (uint64_t i = 0; i < N_ASKED; i++)
	{
		of_request[i] = draw_adapter(&state);
		ask(i, of_request[i], 0);
	}
	collect(N_ASKED);
	for (uint64_t i = 0; i < N_ASKED; i++)
		if (!same_answer(&answers[i], &alone[1 + of_request[i] % 2]))
			CHECK_FAIL("request %d, adapter %d: another answer", (int) i,
					   (int) of_request[i]);
	n_loaded = count_resident(1, N_REGISTERED);
	if (n_loaded < 64 || n_loaded > 96)
		CHECK_FAIL("%d adapters are resident", n_loaded);
	CHECK_INT_EQ(stop_executor(), 0);
}

/* Blocks are shared within an adapter, never with another or the base. */
static void
prefixes_are_an_adapters_own(void)
{
	if (!load(""))
		return;
	announce(1, paths[0], false);
	announce(2, paths[0], false);
	for (uint64_t i = 0; i < 6; i++)
	{
		ask(i, i / 2, 0);
		collect(1);
		CHECK_INT_EQ(answers[i].finished.n_cached, i % 2 == 0 ? 0 : 16);
	}
	CHECK(same_answer(&answers[2], &answers[4]));
	CHECK_INT_EQ(stop_executor(), 0);
}

static void
requests_end_while_they_wait(void)
{
	Answer alone[3];

	if (!load(", \"max_loras\": 1"))
		return;
	ask_alone(alone);
	announce(5, paths[0], false);
	announce(6, paths[1], false);
	/* both wait for their adapters when they are cancelled */
	ask(10, 5, 0);
	ask(11, 6, 0);
	send_frame(LLM_MESSAGE_CANCEL, 10, NULL, 0);
	send_frame(LLM_MESSAGE_CANCEL, 11, NULL, 0);
	ask(12, 5, 0);
	collect(3);
	CHECK_INT_EQ(answers[10].finished.reason, LLM_FINISH_CANCELLED);
	CHECK_INT_EQ(answers[11].finished.reason, LLM_FINISH_CANCELLED);
	CHECK(same_answer(&answers[12], &alone[1]));
	/* those that are there finish; later ones find nothing */
	ask(13, 5, 0);
	ask(14, 6, 0);
	forget(5);
	forget(6);
	forget(7);
	collect(2);
	CHECK(same_answer(&answers[13], &alone[1]));
	CHECK(same_answer(&answers[14], &alone[2]));
	ask(15, 5, 0);
	collect(1);
	CHECK(answers[15].is_failed);
	CHECK_INT_EQ(answers[15].error.code, LLM_ERROR_NOT_FOUND);
	/* and may be told again */
	announce(5, paths[0], false);
	ask(16, 5, 0);
	collect(1);
	CHECK(same_answer(&answers[16], &alone[1]));
	CHECK_INT_EQ(stop_executor(), 0);
}

static void
bad_adapters_fail_their_requests_alone(void)
{
	if (!load(", \"max_loras\": 2, \"max_lora_rank\": 4"))
		return;
	/* rank 5 is one too many */
	announce(1, paths[0], false);
	announce(2, paths[1], false);
	announce(3, "/nowhere/at/all", true);
	announce(4, MODEL "/model.safetensors", false);
	for (uint64_t i = 0; i < 5; i++)
		ask(i, i, 0);
	ask(5, 77, 0);
	collect(6);
	CHECK(!answers[0].is_failed && !answers[2].is_failed);
	CHECK(answers[1].is_failed && answers[3].is_failed);
	CHECK(answers[4].is_failed && answers[5].is_failed);
	CHECK(strstr(answers[1].error.message, "rank 5") != NULL);
	CHECK(strstr(answers[3].error.message, "/nowhere/at/all") != NULL);
	CHECK_INT_EQ(residency[1], LLM_ADAPTER_FAILED);
	CHECK_INT_EQ(residency[2], LLM_ADAPTER_ON_DEVICE);
	CHECK_INT_EQ(residency[3], LLM_ADAPTER_FAILED);
	CHECK_INT_EQ(stop_executor(), 0);
	/* no room at all */
	if (!load(", \"max_loras\": 0"))
		return;
	announce(1, paths[0], true);
	ask(1, 1, 0);
	ask(0, 0, 0);
	collect(2);
	CHECK(answers[1].is_failed && !answers[0].is_failed);
	CHECK(strstr(answers[1].error.hint, "max_loras") != NULL);
	CHECK_INT_EQ(stop_executor(), 0);
}

int
main(int argc, char **argv)
{
	LlmError err;

	find_executor(argv[0]);
	for (int i = 0; i < N_PATHS; i++)
		if (!import_adapter(names[i], MODEL, paths[i], &err))
			CHECK_FAIL("%s: %s", names[i], err.message);
	RUN_TEST(many_adapters_share_few_slots);
	RUN_TEST(the_hosts_cache_is_trimmed);
	RUN_TEST(a_thousand_adapters_share_64_slots);
	RUN_TEST(prefixes_are_an_adapters_own);
	RUN_TEST(requests_end_while_they_wait);
	RUN_TEST(bad_adapters_fail_their_requests_alone);
	for (int i = 0; i < N_PATHS; i++)
		unlink(paths[i]);
	return unit_test_finish();
}
