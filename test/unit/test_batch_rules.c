/*
 * test_batch_rules.c
 *	  Unit tests of src/engine/batch: each scheduling rule by itself.
 *
 * test/unit/test_batch_rules.c
 */
#include "test/unit/batch_simulator.h"

/* A prompt of which the first n_common tokens are the same for all. */
static SimRequest *
add(Sim *sim, LlmRequestClass request_class, uint32_t tenant_id,
	int32_t n_common, int32_t n_own, int32_t max_tokens)
{
	int32_t ids[SIM_MAX_LEN];
	LlmPlannerRequest request = {
		.prompt_ids = ids,
		.n_prompt = n_common + n_own,
		.max_tokens = max_tokens,
		.request_class = request_class,
		.tenant_id = tenant_id,
	};

	for (int32_t i = 0; i < request.n_prompt; i++)
		ids[i] = i < n_common ? 100 + i : 1000 + sim->n_requests;
	return sim_add(sim, &request, NULL);
}

static SimRequest *
add_batch(Sim *sim, int32_t n_common, int32_t n_own, int32_t max_tokens)
{
	return add(sim, LLM_CLASS_BATCH, 0, n_common, n_own, max_tokens);
}

static SimRequest *
add_interactive(Sim *sim, int32_t n_common, int32_t n_own, int32_t max_tokens)
{
	return add(sim, LLM_CLASS_INTERACTIVE, 1, n_common, n_own, max_tokens);
}

static LlmPlannerConfig
roomy_config(void)
{
	LlmPlannerConfig config = {
		.block_size = 4,
		.n_blocks = 400,
		.max_num_seqs = 16,
		.max_num_batched_tokens = 200,
		.max_model_len = SIM_MAX_LEN,
		.enable_prefix_caching = true,
		.aging_us = 1000000,
	};

	return config;
}

static void
drain(Sim *sim)
{
	for (int i = 0; i < 5000 && sim->n_alive > 0; i++)
	{
		sim->now_us += 1000;
		REQUIRE(sim_step(sim));
	}
	sim_check_empty(sim);
	sim_close(sim);
}

static bool
is_running(const SimRequest *request)
{
	return request->sequence != NULL &&
		   llm_sequence_is_running(request->sequence);
}

/* ------------------------------------------------------------- prefixes */

static void
rows_that_arrive_together_share_their_prefix(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *rows[8];
	Sim sim;

	sim_open(&sim, &config, 16, 1);
	for (int i = 0; i < 8; i++)
		rows[i] = add_batch(&sim, 40, 3, 5);
	REQUIRE(sim_step(&sim));

	/* one computes the prefix, all compute their tails, in one step */
	CHECK_INT_EQ(sim.step->n_seqs, 8);
	CHECK_INT_EQ(sim.step->n_tokens, 40 + 8 * 3);
	CHECK_INT_EQ(sim.step->n_logit_rows, 8);
	CHECK_INT_EQ(llm_sequence_n_cached(rows[0]->sequence), 0);
	for (int i = 1; i < 8; i++)
		CHECK_INT_EQ(llm_sequence_n_cached(rows[i]->sequence), 40);
	drain(&sim);
}

static void
the_last_prompt_token_is_always_computed(void)
{
	LlmPlannerConfig config = roomy_config();
	Sim sim;

	sim_open(&sim, &config, 16, 1);
	for (int i = 0; i < 3; i++)
	{
		/* 40 tokens are ten full blocks */
		SimRequest *request = add_batch(&sim, 40, 0, 1);

		REQUIRE(sim_step(&sim));
		CHECK(request->sequence == NULL);
		CHECK_INT_EQ(sim.step->n_tokens, i == 0 ? 40 : 4);
		CHECK_INT_EQ(sim.step->n_logit_rows, 1);
	}
	drain(&sim);
}

static void
adapters_and_salts_do_not_share(void)
{
	LlmPlannerConfig config = roomy_config();
	int32_t ids[20] = { 0 };
	Sim sim;

	sim_open(&sim, &config, 16, 1);
	for (uint64_t i = 0; i < 8; i++)
	{
		/* each combination twice */
		LlmPlannerRequest request = { .prompt_ids = ids,
									  .n_prompt = 20,
									  .max_tokens = 1,
									  .adapter_id = i & 1,
									  .cache_salt = i >> 1 & 1 };

		REQUIRE(sim_add(&sim, &request, NULL) != NULL);
		REQUIRE(sim_step(&sim));
		CHECK_INT_EQ(sim.step->n_tokens, i < 4 ? 20 : 4);
	}
	drain(&sim);
}

static void
caching_can_be_turned_off(void)
{
	LlmPlannerConfig config = roomy_config();
	Sim sim;

	config.enable_prefix_caching = false;
	sim_open(&sim, &config, 16, 1);
	for (int i = 0; i < 2; i++)
		add_batch(&sim, 40, 1, 1);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(sim.step->n_tokens, 82);
	drain(&sim);
}

static void
generated_blocks_are_cached(void)
{
	LlmPlannerConfig config = roomy_config();
	LlmPlannerRequest next = { .max_tokens = 1 };
	SimRequest *request;
	Sim sim;

	sim_open(&sim, &config, 16, 1);
	request = add_batch(&sim, 8, 0, 20);
	while (request->sequence != NULL)
		REQUIRE(sim_step(&sim));

	/* the next turn of a chat: the last token was never computed */
	next.prompt_ids = request->ids;
	next.n_prompt = request->n_tokens;
	REQUIRE(sim_add(&sim, &next, NULL) != NULL);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(sim.step->n_tokens, 4);
	drain(&sim);
}

/* Of a finished sequence the tail is reused first, after uncached blocks. */
static void
eviction_takes_the_tail_first(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *request;
	Sim sim;

	config.n_blocks = 12;
	sim_open(&sim, &config, 16, 1);
	add_batch(&sim, 32, 1, 1);
	REQUIRE(sim_step(&sim));

	/* 8 cached blocks are free, 4 uncached; this takes 6 */
	add_batch(&sim, 0, 21, 1);
	REQUIRE(sim_step(&sim));
	request = add_batch(&sim, 32, 1, 2);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(llm_sequence_n_cached(request->sequence), 24);
	drain(&sim);
}

/* A prompt being computed takes over what another one computed meanwhile. */
static void
running_prompts_skip_what_became_cached(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *slow;
	SimRequest *fast;
	Sim sim;

	config.max_num_batched_tokens = 40;
	sim_open(&sim, &config, 16, 1);
	slow = add_batch(&sim, 200, 1, 1);
	REQUIRE(sim_step(&sim));
	fast = add_interactive(&sim, 200, 2, 1);
	while (fast->sequence != NULL)
		REQUIRE(sim_step(&sim));

	/* 40 by the slow one, 162 by the fast one, and its own last token */
	CHECK(sim.n_steps <= 7);
	if (slow->sequence != NULL)
		REQUIRE(sim_step(&sim));
	CHECK(slow->sequence == NULL);
	drain(&sim);
}

/* ------------------------------------------------------------- rotation */

/* Rotations change beyond 20 tokens. */
static LlmPlannerConfig
rotating_config(bool grows, bool restarts)
{
	LlmPlannerConfig config = roomy_config();

	config.rope_short_len = 20;
	config.rope_grows = grows;
	config.rope_restarts = restarts;
	return config;
}

static void
who_outgrows_its_keys_starts_anew_once(void)
{
	LlmPlannerConfig config = rotating_config(false, true);
	SimRequest *request;
	LlmPlannerStats stats;
	Sim sim;

	sim_open(&sim, &config, 16, 1);
	request = add_batch(&sim, 0, 15, 20);
	for (int n_tokens = 15; n_tokens <= 20; n_tokens++)
	{
		REQUIRE(sim_step(&sim));
		CHECK_INT_EQ(sim.step->n_tokens, n_tokens == 15 ? 15 : 1);
		CHECK_INT_EQ(sim.step->rope_len[0], 0);
	}

	/* the token that came last is the 21st: all are computed, for its logits */
	CHECK(is_running(request));
	CHECK_INT_EQ(request->n_tokens, 21);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(sim.step->n_tokens, 21);
	CHECK_INT_EQ(sim.step->n_logit_rows, 1);
	CHECK_INT_EQ(sim.step->rope_len[0], 21);
	while (sim.n_alive > 0)
	{
		REQUIRE(sim_step(&sim));
		CHECK_INT_EQ(sim.step->n_tokens, 1);
		CHECK_INT_EQ(sim.step->rope_len[0], 21);
	}
	llm_planner_stats(sim.planner, &stats);
	CHECK_INT_EQ(stats.n_restarts, 1);
	CHECK_INT_EQ(stats.n_preemptions, 0);
	drain(&sim);
}

static void
short_and_long_sequences_do_not_share(void)
{
	for (int restarts = 0; restarts < 2; restarts++)
	{
		LlmPlannerConfig config = rotating_config(false, restarts);
		/* common tokens, own tokens, cached tokens */
		static const int32_t prompts[][3] = {
			{ 18, 0, 0 },  /* short */
			{ 18, 10, 0 }, /* long: of the first one's tokens, none */
			{ 18, 2, 16 }, /* 20 tokens are short */
			{ 18, 3, 16 }, /* 21 are long */
			{ 18, 60, 16 },
		};
		Sim sim;

		sim_open(&sim, &config, 16, 1);
		for (size_t i = 0; i < sizeof(prompts) / sizeof(prompts[0]); i++)
		{
			SimRequest *request =
				add_batch(&sim, prompts[i][0], prompts[i][1], 2);

			REQUIRE(sim_step(&sim));
			CHECK_INT_EQ(llm_sequence_n_cached(request->sequence),
						 prompts[i][2]);
			REQUIRE(sim_step(&sim));
			CHECK(request->sequence == NULL);
		}
		drain(&sim);
	}
}

static void
only_prompts_of_equal_length_share_where_rotation_grows(void)
{
	LlmPlannerConfig config = rotating_config(true, false);
	static const int32_t prompts[][3] = {
		{ 17, 1, 0 },	{ 17, 2, 16 },	/* within 20 tokens all are alike */
		{ 28, 10, 0 },	{ 28, 11, 0 },	/* of another length */
		{ 28, 10, 28 }, { 28, 11, 28 }, /* of the same */
	};
	Sim sim;

	sim_open(&sim, &config, 16, 1);
	for (size_t i = 0; i < sizeof(prompts) / sizeof(prompts[0]); i++)
	{
		SimRequest *request = add_batch(&sim, prompts[i][0], prompts[i][1], 2);
		int32_t n_prompt = request->n_prompt;

		REQUIRE(sim_step(&sim));
		CHECK_INT_EQ(llm_sequence_n_cached(request->sequence), prompts[i][2]);
		CHECK_INT_EQ(sim.step->rope_len[0], n_prompt > 20 ? n_prompt : 0);
		REQUIRE(sim_step(&sim));
		CHECK_INT_EQ(sim.step->rope_len[0], n_prompt > 20 ? n_prompt : 0);
	}
	drain(&sim);
}

static void
a_resumed_request_is_rotated_as_it_was(void)
{
	for (int restarts = 0; restarts < 2; restarts++)
	{
		LlmPlannerConfig config = rotating_config(false, restarts);
		int32_t ids[25] = { 0 };
		LlmPlannerRequest request = {
			.prompt_ids = ids,
			.n_prompt = 15,
			.output_ids = ids + 15,
			.n_output = 10,
			.max_tokens = 20,
		};
		LlmPlannerStats stats;
		Sim sim;

		/* 25 tokens: with restarts, it has had its own */
		sim_open(&sim, &config, 16, 1);
		REQUIRE(sim_add(&sim, &request, NULL) != NULL);
		REQUIRE(sim_step(&sim));
		CHECK_INT_EQ(sim.step->n_tokens, 25);
		CHECK_INT_EQ(sim.step->rope_len[0], restarts ? 21 : 0);
		llm_planner_stats(sim.planner, &stats);
		CHECK_INT_EQ(stats.n_restarts, 0);
		drain(&sim);
	}
}

/* --------------------------------------------------- blocks and budgets */

static void
a_long_prompt_does_not_stop_decoding(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *decoding[4];
	SimRequest *prompt;
	Sim sim;

	config.max_num_batched_tokens = 16;
	sim_open(&sim, &config, 16, 1);
	for (int i = 0; i < 4; i++)
		decoding[i] = add_batch(&sim, 0, 4, 100);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(sim.step->n_logit_rows, 4);
	prompt = add_interactive(&sim, 0, 120, 1);
	for (int i = 0; i < 9; i++)
	{
		REQUIRE(sim_step(&sim));
		CHECK_INT_EQ(sim.step->n_tokens, 16);
		CHECK_INT_EQ(sim.step->n_prefill_tokens, 12);
		CHECK_INT_EQ(sim.step->n_logit_rows, 4);
	}
	CHECK_INT_EQ(decoding[3]->n_tokens, 4 + 10);
	REQUIRE(sim_step(&sim));
	CHECK(prompt->sequence == NULL);
	drain(&sim);
}

static void
admission_leaves_a_watermark(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *second;
	Sim sim;

	config.n_blocks = 10;
	for (int n_own = 17; n_own <= 16 + 4; n_own += 3)
	{
		/* 17 and 20 tokens: five blocks; one of ten is kept free */
		sim_open(&sim, &config, 16, 1);
		add_batch(&sim, 0, 17, 3);
		second = add_batch(&sim, 0, n_own, 3);
		REQUIRE(sim_step(&sim));
		CHECK(!is_running(second));
		drain(&sim);
	}
	sim_open(&sim, &config, 16, 1);
	add_batch(&sim, 0, 17, 3);
	second = add_batch(&sim, 0, 16, 3);
	REQUIRE(sim_step(&sim));
	CHECK(is_running(second));
	drain(&sim);

	/* alone, a request may have the whole cache */
	sim_open(&sim, &config, 16, 1);
	second = add_batch(&sim, 0, 40, 1);
	REQUIRE(sim_step(&sim));
	CHECK(second->sequence == NULL);
	drain(&sim);
}

/* Who runs has a claim on the blocks of its whole prompt. */
static void
admission_counts_promised_blocks(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *second;
	Sim sim;

	config.n_blocks = 20;
	config.max_num_batched_tokens = 20;
	sim_open(&sim, &config, 16, 1);
	add_interactive(&sim, 0, 60, 4);
	REQUIRE(sim_step(&sim));
	second = add_batch(&sim, 0, 20, 4);
	for (int i = 0; i < 2; i++)
	{
		REQUIRE(sim_step(&sim));
		CHECK(!is_running(second));
	}
	drain(&sim);
}

static void
the_youngest_batch_sequence_is_preempted_first(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *interactive;
	SimRequest *older;
	SimRequest *younger;
	SimRequest *small;
	LlmPlannerStats stats;
	Sim sim;

	config.n_blocks = 14;
	sim_open(&sim, &config, 16, 1);
	older = add_batch(&sim, 0, 14, 30);
	younger = add_batch(&sim, 0, 14, 30);
	interactive = add_interactive(&sim, 0, 14, 30);
	REQUIRE(sim_step(&sim));
	REQUIRE(is_running(interactive) && is_running(older));
	REQUIRE(is_running(younger));
	small = NULL;
	do
	{
		REQUIRE(sim_step(&sim));
		llm_planner_stats(sim.planner, &stats);

		/* the next step needs three blocks */
		if (stats.n_free_blocks < 3 && older->n_tokens % 4 == 1 &&
			small == NULL)
			small = add(&sim, LLM_CLASS_BATCH, 3, 0, 2, 2);
	} while (stats.n_preemptions == 0);
	CHECK(is_running(interactive));
	CHECK(is_running(older));
	CHECK(!is_running(younger));

	/* nobody is let in by the step that had no block */
	REQUIRE(small != NULL);
	CHECK(!is_running(small));
	REQUIRE(sim_step(&sim));
	CHECK(is_running(small) || small->sequence == NULL);
	drain(&sim);
}

static void
a_preempted_sequence_resumes_from_the_cache(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *batch;
	SimRequest *urgent;
	int32_t n_tokens;
	Sim sim;

	config.max_num_seqs = 1;
	sim_open(&sim, &config, 16, 1);
	batch = add_batch(&sim, 0, 14, 30);
	for (int i = 0; i < 12; i++)
		REQUIRE(sim_step(&sim));
	n_tokens = batch->n_tokens;
	urgent = add_interactive(&sim, 0, 10, 2);
	REQUIRE(sim_step(&sim));
	CHECK(is_running(urgent) && !is_running(batch));
	REQUIRE(sim_step(&sim));
	CHECK(urgent->sequence == NULL);
	REQUIRE(sim_step(&sim));
	REQUIRE(is_running(batch));

	/* 26 tokens: six full blocks were kept, one token more was generated */
	CHECK_INT_EQ(n_tokens, 26);
	CHECK_INT_EQ(sim.step->n_tokens, 2);
	CHECK_INT_EQ(batch->n_tokens, 27);
	CHECK_INT_EQ(llm_sequence_n_cached(batch->sequence), 0);
	drain(&sim);
}

static void
a_resumed_request_goes_on_where_it_was(void)
{
	LlmPlannerConfig config = roomy_config();
	int32_t ids[30] = { 0 };
	LlmPlannerRequest wanted = { .prompt_ids = ids,
								 .n_prompt = 10,
								 .output_ids = ids + 10,
								 .n_output = 20,
								 .max_tokens = 22 };
	SimRequest *request;
	const int32_t *known;
	int32_t n_prompt;
	int32_t n_output;
	Sim sim;

	sim_open(&sim, &config, 16, 1);
	for (int i = 0; i < 30; i++)
		ids[i] = i;
	request = sim_add(&sim, &wanted, NULL);
	REQUIRE(request != NULL);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(sim.step->n_tokens, 30);
	CHECK_INT_EQ(sim.step->n_logit_rows, 1);
	known = llm_sequence_ids(request->sequence, &n_prompt, &n_output);
	CHECK_INT_EQ(n_prompt, 10);
	CHECK_INT_EQ(n_output, 21);
	CHECK(memcmp(known, ids, sizeof(ids)) == 0);

	/* found in the cache: 28 tokens, of which the prompt has 10 */
	request = sim_add(&sim, &wanted, NULL);
	REQUIRE(request != NULL);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(llm_sequence_n_cached(request->sequence), 10);
	drain(&sim);
}

/* -------------------------------------------------- ranks and fairness */

static void
interactive_requests_take_seats_and_blocks_of_batch(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *urgent;
	Sim sim;

	/* no seat, and no token beside those for decoding */
	config.max_num_seqs = 4;
	config.max_num_batched_tokens = 4;
	sim_open(&sim, &config, 16, 1);
	for (int i = 0; i < 6; i++)
		add_batch(&sim, 0, 1, 50);
	for (int i = 0; i < 5; i++)
		REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(sim.step->n_logit_rows, 4);
	urgent = add_interactive(&sim, 0, 1, 3);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(urgent->n_tokens, 2);
	CHECK_INT_EQ(sim.step->n_logit_rows, 4);
	drain(&sim);

	/* no block */
	config = roomy_config();
	config.n_blocks = 20;
	sim_open(&sim, &config, 16, 1);
	for (int i = 0; i < 4; i++)
		add_batch(&sim, 0, 17, 20);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(sim.step->n_seqs, 3);
	urgent = add_interactive(&sim, 0, 38, 3);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(urgent->n_tokens, 39);
	drain(&sim);
}

static void
interactive_requests_do_not_displace_each_other(void)
{
	LlmPlannerConfig config = roomy_config();
	LlmPlannerStats stats;
	Sim sim;

	config.max_num_seqs = 2;
	sim_open(&sim, &config, 64, 1);
	for (int i = 0; i < 20; i++)
		add_interactive(&sim, 0, 5, 4);
	while (sim.n_alive > 0)
		REQUIRE(sim_step(&sim));
	llm_planner_stats(sim.planner, &stats);
	CHECK_INT_EQ(stats.n_preemptions, 0);

	/* in order of arrival */
	for (int i = 1; i < 20; i++)
		CHECK(sim.requests[i].first_step >= sim.requests[i - 1].first_step);
	drain(&sim);
}

/*
 * An endless stream of interactive requests that could fill every seat, while
 * batch ones wait: from their aging on they get every second turn.
 */
static void
aged_batch_requests_take_turns_with_interactive_ones(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *batch[10];
	Sim sim;

	config.max_num_seqs = 2;
	config.aging_us = 20000;
	sim_open(&sim, &config, 2000, 1);
	for (int i = 0; i < 4; i++)
		add_interactive(&sim, 0, 5, 2);
	for (int i = 0; i < 10; i++)
		batch[i] = add_batch(&sim, 0, 5, 10);
	for (int i = 0; i < 200; i++)
	{
		sim.now_us += 1000;
		add_interactive(&sim, 0, 5, 2);
		REQUIRE(sim_step(&sim));
	}
	for (int k = 0; k < 10; k++)
	{
		CHECK(batch[k]->sequence == NULL);
		CHECK(batch[k]->first_step >= 20);

		/* 20 steps to age, then one after the other at the latest */
		CHECK(batch[k]->end_step <= 20 + (uint64_t) (k + 1) * 12);
	}
	drain(&sim);
}

/* The other side: a backlog of aged batch rows hardly delays interactive. */
static void
a_backlog_of_aged_rows_does_not_delay_interactive_ones(void)
{
	LlmPlannerConfig config = roomy_config();
	uint64_t worst = 0;
	Sim sim;

	config.max_num_seqs = 8;
	config.aging_us = 0;
	sim_open(&sim, &config, 2000, 1);
	for (int i = 0; i < 600; i++)
		add_batch(&sim, 0, 5, 20);
	for (int i = 0; i < 200; i++)
	{
		SimRequest *request = NULL;

		sim.now_us += 1000;
		if (i % 5 == 0)
			request = add_interactive(&sim, 0, 5, 4);
		REQUIRE(sim_step(&sim));
		if (request != NULL && request->first_step != sim.n_steps)
		{
			uint64_t start = sim.n_steps;

			while (request->first_step == UINT64_MAX)
				REQUIRE(sim_step(&sim));
			if (sim.n_steps - start > worst)
				worst = sim.n_steps - start;
		}
	}
	CHECK_INT_EQ(worst, 0);
	drain(&sim);
}

/*
 * A large aged request waits for blocks, small interactive ones would fit
 * again and again: they get in only in exchange for running batch sequences,
 * so that they cannot eat up what the large one waits for.
 */
static void
small_interactive_requests_do_not_starve_a_large_aged_one(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *large;
	Sim sim;

	config.n_blocks = 40;
	config.aging_us = 5000;
	sim_open(&sim, &config, 2000, 1);
	add_batch(&sim, 0, 20, 100);
	REQUIRE(sim_step(&sim));
	large = add(&sim, LLM_CLASS_BATCH, 2, 0, 125, 2);
	for (int i = 0; i < 100 && large->first_step == UINT64_MAX; i++)
	{
		sim.now_us += 1000;
		add_interactive(&sim, 0, 12, 8);
		REQUIRE(sim_step(&sim));
	}
	CHECK(large->first_step != UINT64_MAX);
	drain(&sim);
}

/* Interactive prompts use up every step: a running batch prompt goes on. */
static void
a_running_batch_prompt_is_not_starved_of_tokens(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *batch;
	Sim sim;

	config.max_num_seqs = 8;
	config.max_num_batched_tokens = 20;
	config.aging_us = 10000;
	sim_open(&sim, &config, 2000, 1);
	batch = add_batch(&sim, 0, 100, 2);
	REQUIRE(sim_step(&sim));
	for (int i = 0; i < 40; i++)
	{
		sim.now_us += 1000;
		add_interactive(&sim, 0, 30, 1);
		REQUIRE(sim_step(&sim));
	}
	CHECK(batch->sequence == NULL);
	CHECK(batch->end_step > 10);
	drain(&sim);
}

/*
 * An interactive request comes by whenever the batch prompt has almost been
 * computed, and nothing is cached: at last the prompt must not be thrown back.
 */
static void
a_batch_request_is_not_displaced_for_ever(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *batch;
	Sim sim;

	config.max_num_seqs = 1;
	config.max_num_batched_tokens = 10;
	config.enable_prefix_caching = false;
	config.aging_us = 30000;
	sim_open(&sim, &config, 2000, 1);
	batch = add_batch(&sim, 0, 100, 1);
	for (int i = 0; i < 100; i++)
	{
		sim.now_us += 1000;
		if (i % 9 == 8)
		{
			SimRequest *urgent = add_interactive(&sim, 0, 5, 2);

			REQUIRE(sim_step(&sim));
			if (i < 30)
				CHECK_INT_EQ(urgent->first_step, sim.n_steps);
		}
		else if (sim.n_alive > 0)
			REQUIRE(sim_step(&sim));
	}
	CHECK(batch->sequence == NULL);
	CHECK(batch->end_step > 30);
	drain(&sim);
}

static void
tenants_share_the_machine_evenly(void)
{
	LlmPlannerConfig config = roomy_config();
	Sim sim;
	int64_t bound;

	config.max_num_seqs = 4;
	config.max_num_batched_tokens = 24;
	sim_open(&sim, &config, 2000, 1);

	/* tenant 0 brings ten times as many, and was there first */
	for (int i = 0; i < 300; i++)
		add(&sim, LLM_CLASS_BATCH, 0, 0, 20, 10);
	for (int i = 0; i < 50; i++)
		REQUIRE(sim_step(&sim));
	sim.served[0] = 0;
	for (int i = 0; i < 30; i++)
		add(&sim, LLM_CLASS_BATCH, 1, 0, 30, 10);
	for (int i = 0; i < 30; i++)
		add(&sim, LLM_CLASS_BATCH, 2, 0, 5, 30);

	/* seats are not taken away: at most what runs is served out of turn */
	bound = (int64_t) config.max_num_seqs * 40;
	for (int i = 0; i < 60; i++)
	{
		int64_t difference;

		for (int k = 0; k < 2; k++)
			REQUIRE(sim_step(&sim));
		for (int a = 0; a < 3; a++)
		{
			difference =
				(int64_t) sim.served[a] - (int64_t) sim.served[(a + 1) % 3];
			CHECK(difference <= bound && -difference <= bound);
		}
	}

	/* and a newcomer owes and claims nothing for the time before it came */
	sim.served[0] = sim.served[3] = 0;
	for (int i = 0; i < 40; i++)
		add(&sim, LLM_CLASS_BATCH, 3, 0, 20, 10);
	for (int i = 0; i < 100; i++)
		REQUIRE(sim_step(&sim));
	CHECK(sim.served[3] <= sim.served[0] + (uint64_t) bound);
	CHECK(sim.served[0] <= sim.served[3] + (uint64_t) bound);
	drain(&sim);
}

static void
equals_are_served_in_order_of_arrival(void)
{
	LlmPlannerConfig config = roomy_config();
	Sim sim;

	/* nobody has been served yet: tenants 2, 1, 0, 2, 1, 0 */
	config.max_num_seqs = 1;
	sim_open(&sim, &config, 64, 1);
	for (uint32_t i = 0; i < 6; i++)
		add(&sim, LLM_CLASS_BATCH, 2 - i % 3, 0, 10, 1);
	for (uint64_t i = 0; i < 6; i++)
	{
		REQUIRE(sim_step(&sim));
		CHECK_INT_EQ(sim.requests[i].first_step, i + 1);
	}
	drain(&sim);

	/* tenant 0 came first, but now its first request is the younger one */
	sim_open(&sim, &config, 64, 1);
	for (uint32_t i = 0; i < 3; i++)
		add(&sim, LLM_CLASS_BATCH, i % 2, 0, 10, 1);
	sim_remove(&sim, &sim.requests[0]);
	REQUIRE(sim_step(&sim));
	CHECK_INT_EQ(sim.requests[1].first_step, 1);
	drain(&sim);
}

static void
leaving_for_a_moment_does_not_clear_a_debt(void)
{
	LlmPlannerConfig config = roomy_config();
	SimRequest *greedy;
	SimRequest *modest;
	Sim sim;

	config.max_num_seqs = 1;
	sim_open(&sim, &config, 64, 1);
	greedy = add(&sim, LLM_CLASS_BATCH, 0, 0, 100, 1);
	add(&sim, LLM_CLASS_BATCH, 1, 0, 10, 1);
	add(&sim, LLM_CLASS_BATCH, 1, 0, 10, 1);
	modest = add(&sim, LLM_CLASS_BATCH, 1, 0, 10, 1);
	REQUIRE(sim_step(&sim));
	CHECK(greedy->sequence == NULL);
	greedy = add(&sim, LLM_CLASS_BATCH, 0, 0, 100, 1);
	for (int i = 0; i < 3; i++)
		REQUIRE(sim_step(&sim));
	CHECK(modest->sequence == NULL);
	CHECK_INT_EQ(greedy->first_step, UINT64_MAX);
	drain(&sim);
}

/* ---------------------------------------------------------- the contract */

static void
requests_that_cannot_fit_are_refused(void)
{
	LlmPlannerConfig config = roomy_config();
	int32_t ids[SIM_MAX_LEN] = { 0 };
	LlmPlannerRequest request = { .prompt_ids = ids,
								  .n_prompt = 200,
								  .max_tokens = 57 };
	LlmPlanner *planner;
	LlmError err;

	planner = llm_planner_create(&config, &err);
	REQUIRE(planner != NULL);
	CHECK(llm_planner_add(planner, &request, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);
	CHECK_STR_EQ(err.message, "prompt of 200 tokens and max_tokens of 57 "
							  "exceed the context length of 256 tokens");
	request.max_tokens = 56;
	CHECK(llm_planner_add(planner, &request, &err) != NULL);
	request.max_tokens = INT32_MAX;
	CHECK(llm_planner_add(planner, &request, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);
	llm_planner_free(planner);

	/* the last token is never computed: 41 tokens fit ten blocks of four */
	config.n_blocks = 10;
	planner = llm_planner_create(&config, &err);
	REQUIRE(planner != NULL);
	request.n_prompt = 40;
	request.max_tokens = 1;
	CHECK(llm_planner_add(planner, &request, &err) != NULL);
	request.max_tokens = 2;
	CHECK(llm_planner_add(planner, &request, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);
	CHECK_STR_EQ(err.message,
				 "prompt of 40 tokens and max_tokens of 2 need 11 KV blocks "
				 "of 4 tokens, but the cache has 10");
	request.n_prompt = 0;
	CHECK(llm_planner_add(planner, &request, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	request.n_prompt = 1;
	request.output_ids = ids;
	request.n_output = 2;
	CHECK(llm_planner_add(planner, &request, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	request.max_tokens = 0;
	CHECK(llm_planner_add(planner, &request, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	CHECK(llm_planner_check(planner, &err));
	llm_planner_free(planner);
	llm_planner_free(NULL);
}

static void
bad_configurations_are_refused(void)
{
	LlmPlannerConfig config = roomy_config();
	LlmError err;

	config.max_num_batched_tokens = 15;
	CHECK(llm_planner_create(&config, &err) == NULL);
	CHECK_STR_EQ(err.message, "max_num_batched_tokens is 15, but must be at "
							  "least max_num_seqs, which is 16");
	config = roomy_config();
	config.n_blocks = 0;
	CHECK(llm_planner_create(&config, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	config = roomy_config();
	config.block_size = -1;
	CHECK(llm_planner_create(&config, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	config = roomy_config();
	config.aging_us = -1;
	CHECK(llm_planner_create(&config, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
}

/* Requests may come while a step is being computed, and go if not in it. */
static void
requests_come_and_go_during_a_step(void)
{
	LlmPlannerConfig config = roomy_config();
	LlmError err;
	SimRequest *first;
	SimRequest *second;
	Sim sim;

	config.max_num_seqs = 1;
	sim_open(&sim, &config, 16, 1);
	first = add_batch(&sim, 0, 5, 3);
	REQUIRE(llm_planner_plan(sim.planner, 0) != NULL);
	second = add_batch(&sim, 0, 5, 3);
	CHECK(llm_planner_check(sim.planner, &err));
	sim_remove(&sim, second);
	CHECK(llm_planner_check(sim.planner, &err));
	llm_planner_commit(sim.planner);

	/* without its token a sequence has nothing to compute */
	CHECK(llm_planner_plan(sim.planner, 0) == NULL);
	llm_planner_append(sim.planner, first->sequence, 7);
	CHECK(llm_planner_plan(sim.planner, 0) != NULL);
	llm_planner_commit(sim.planner);
	sim_remove(&sim, first);
	CHECK(llm_planner_check(sim.planner, &err));
	CHECK(llm_planner_plan(sim.planner, 0) == NULL);

	/* what is left is freed with the planner */
	add_batch(&sim, 0, 5, 3);
	add_interactive(&sim, 0, 5, 3);
	REQUIRE(llm_planner_plan(sim.planner, 0) != NULL);
	sim_close(&sim);
}

int
main(void)
{
	RUN_TEST(rows_that_arrive_together_share_their_prefix);
	RUN_TEST(the_last_prompt_token_is_always_computed);
	RUN_TEST(adapters_and_salts_do_not_share);
	RUN_TEST(caching_can_be_turned_off);
	RUN_TEST(generated_blocks_are_cached);
	RUN_TEST(eviction_takes_the_tail_first);
	RUN_TEST(running_prompts_skip_what_became_cached);
	RUN_TEST(a_long_prompt_does_not_stop_decoding);
	RUN_TEST(admission_leaves_a_watermark);
	RUN_TEST(admission_counts_promised_blocks);
	RUN_TEST(the_youngest_batch_sequence_is_preempted_first);
	RUN_TEST(a_preempted_sequence_resumes_from_the_cache);
	RUN_TEST(a_resumed_request_goes_on_where_it_was);
	RUN_TEST(interactive_requests_take_seats_and_blocks_of_batch);
	RUN_TEST(interactive_requests_do_not_displace_each_other);
	RUN_TEST(aged_batch_requests_take_turns_with_interactive_ones);
	RUN_TEST(a_backlog_of_aged_rows_does_not_delay_interactive_ones);
	RUN_TEST(small_interactive_requests_do_not_starve_a_large_aged_one);
	RUN_TEST(a_running_batch_prompt_is_not_starved_of_tokens);
	RUN_TEST(a_batch_request_is_not_displaced_for_ever);
	RUN_TEST(tenants_share_the_machine_evenly);
	RUN_TEST(equals_are_served_in_order_of_arrival);
	RUN_TEST(leaving_for_a_moment_does_not_clear_a_debt);
	RUN_TEST(requests_that_cannot_fit_are_refused);
	RUN_TEST(bad_configurations_are_refused);
	RUN_TEST(requests_come_and_go_during_a_step);
	RUN_TEST(who_outgrows_its_keys_starts_anew_once);
	RUN_TEST(short_and_long_sequences_do_not_share);
	RUN_TEST(only_prompts_of_equal_length_share_where_rotation_grows);
	RUN_TEST(a_resumed_request_is_rotated_as_it_was);
	return unit_test_finish();
}
