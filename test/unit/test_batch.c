/*
 * test_batch.c
 *	  Unit tests of src/engine/batch: random schedules.
 *
 * Tiny pools, few tokens and few prefixes make everything collide; after
 * every operation llm_planner_check and the simulator's own properties must
 * hold, and when nobody arrives any more everybody must finish.
 *
 * test/unit/test_batch.c
 */
#include "test/unit/batch_simulator.h"

static LlmPlannerConfig
random_config(Sim *random)
{
	LlmPlannerConfig config = { 0 };

	config.block_size = 1 + (int32_t) sim_random(random, 8);
	config.n_blocks = 2 + (int32_t) sim_random(random, 40);
	config.max_num_seqs = 1 + (int32_t) sim_random(random, 8);
	config.max_num_batched_tokens =
		config.max_num_seqs + (int32_t) sim_random(random, 30);
	config.max_model_len = 4 + (int32_t) sim_random(random, 80);
	config.enable_prefix_caching = sim_random(random, 6) != 0;
	config.separates_phases = sim_random(random, 4) == 0;
	config.aging_us = 1000 * (int64_t) sim_random(random, 100);
	if (sim_random(random, 3) > 0)
	{
		config.rope_short_len =
			1 + (int32_t) sim_random(random, (uint32_t) config.max_model_len);
		config.rope_grows = sim_random(random, 3) == 0;
		config.rope_restarts = !config.rope_grows && sim_random(random, 2) == 0;
	}
	return config;
}

/* Few different prefixes over few different tokens: everything collides. */
static void
add_random_request(Sim *sim)
{
	LlmPlannerRequest request = { 0 };
	int32_t ids[SIM_MAX_LEN];
	uint32_t max_len = (uint32_t) sim->config.max_model_len;
	int32_t n_ids = 1 + (int32_t) sim_random(sim, max_len);
	int32_t n_common = (int32_t) sim_random(sim, (uint32_t) n_ids + 1);
	uint32_t family = sim_random(sim, 3);
	LlmError err;

	for (int32_t i = 0; i < n_ids; i++)
		ids[i] = i < n_common ? (int32_t) (mix(family, (uint64_t) i / 3) % 3)
							  : (int32_t) sim_random(sim, 2);
	request.prompt_ids = ids;
	request.n_prompt = n_ids;
	if (n_ids > 2 && sim_random(sim, 5) == 0)
	{
		request.n_output = (int32_t) sim_random(sim, (uint32_t) n_ids - 1);
		request.n_prompt = n_ids - request.n_output;
		request.output_ids = ids + request.n_prompt;
	}
	request.max_tokens = request.n_output + 1 + (int32_t) sim_random(sim, 20);
	request.request_class = (LlmRequestClass) sim_random(sim, 2);
	request.tenant_id = sim_random(sim, 4);
	request.adapter_id = sim_random(sim, 2);
	request.cache_salt = sim_random(sim, 5) == 0;
	llm_error_clear(&err);
	if (sim_add(sim, &request, &err) == NULL)
		CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);
}

static void
cancel_random_request(Sim *sim)
{
	SimRequest *request;

	if (sim->n_requests == 0)
		return;
	request = &sim->requests[sim_random(sim, (uint32_t) sim->n_requests)];
	if (request->sequence == NULL)
		return;
	request->is_cancelled = true;
	sim->n_cancelled++;
	sim_remove(sim, request);
}

typedef struct ScheduleTotals
{
	uint64_t n_steps;
	uint64_t n_requests;
	uint64_t n_preemptions;
	uint64_t n_cached;
	uint64_t n_cancelled;
	uint64_t n_restarts;
	uint64_t n_stopped;
	uint64_t n_withdrawn;
	double worst_ratio; /* steps to drain / tokens left */
} ScheduleTotals;

static bool
run_random_schedule(uint64_t seed, ScheduleTotals *totals)
{
	Sim random = { .seed = seed, .n_random = (uint64_t) 1 << 32 };
	LlmPlannerConfig config = random_config(&random);
	uint32_t arrival_rate = 1 + sim_random(&random, 8);
	uint32_t cancel_rate = sim_random(&random, 3);
	LlmPlannerStats stats;
	Sim sim;
	uint64_t n_tokens = 0;
	uint64_t drain_start;
	bool is_ok = true;

	sim_open(&sim, &config, 512, seed);
	sim.runs_ahead = sim_random(&random, 2) == 0;
	sim.steps_fail = sim_random(&random, 4) == 0;
	for (int turn = 0; turn < 40 && is_ok; turn++)
	{
		for (uint32_t n = sim_random(&sim, arrival_rate); n > 0; n--)
			add_random_request(&sim);
		if (sim_random(&sim, 4) < cancel_rate)
			cancel_random_request(&sim);
		is_ok = sim_check(&sim);
		sim.now_us += sim_random(&sim, 4000);
		if (sim.n_alive > 0)
			is_ok = is_ok && sim_step(&sim);
	}

	/*
	 * No more arrivals: in each step the oldest sequence of the highest rank
	 * comes at least a token closer to its end, and is never set back, but
	 * for the once that it may start anew.
	 */
	for (int32_t i = 0; i < sim.n_requests; i++)
	{
		if (sim.requests[i].sequence != NULL)
			n_tokens +=
				(uint64_t) (sim.requests[i].max_total + config.rope_short_len) *
				(config.separates_phases ? 2 : 1);
	}
	sim.steps_fail = false;
	drain_start = sim.n_steps;
	while (is_ok && sim.n_alive > 0 && sim.n_steps - drain_start <= n_tokens)
	{
		sim.now_us += sim_random(&sim, 4000);
		is_ok = sim_step(&sim);
	}
	if (is_ok && sim.n_alive > 0)
		CHECK_FAIL("seed %llu: %d requests starve", (unsigned long long) seed,
				   sim.n_alive);
	if (is_ok && sim.n_alive == 0)
		sim_check_empty(&sim);
	llm_planner_stats(sim.planner, &stats);
	totals->n_steps += sim.n_steps;
	totals->n_requests += (uint64_t) sim.n_requests;
	totals->n_preemptions += stats.n_preemptions;
	totals->n_cached += stats.n_cached_tokens;
	totals->n_cancelled += sim.n_cancelled;
	totals->n_restarts += sim.n_restarts;
	totals->n_stopped += sim.n_stopped;
	totals->n_withdrawn += sim.n_withdrawn;
	if (n_tokens > 0)
	{
		double ratio = (double) (sim.n_steps - drain_start) / (double) n_tokens;

		if (ratio > totals->worst_ratio)
			totals->worst_ratio = ratio;
	}
	sim_close(&sim);
	return is_ok && unit_check_failures == 0;
}

static void
random_schedules_keep_every_property(void)
{
	ScheduleTotals totals = { 0 };
	uint64_t n_schedules = 2500;

	if (getenv("LLM_TEST_SCHEDULES") != NULL)
		n_schedules = strtoull(getenv("LLM_TEST_SCHEDULES"), NULL, 10);
	for (uint64_t seed = 1; seed <= n_schedules; seed++)
	{
		if (!run_random_schedule(seed, &totals))
			return;
	}

	/* the schedules must have been worth running */
	CHECK(totals.n_preemptions > n_schedules);
	CHECK(totals.n_cached > n_schedules * 10);
	CHECK(totals.n_cancelled > n_schedules);
	CHECK(totals.n_restarts > n_schedules);
	CHECK(totals.n_stopped > n_schedules);
	CHECK(totals.n_withdrawn > n_schedules / 2);
	printf("%llu schedules: %llu requests, %llu steps, %llu preemptions, "
		   "%llu cached tokens, %llu cancelled, %llu restarts, drained in %.2f "
		   "of the bound\n",
		   (unsigned long long) n_schedules,
		   (unsigned long long) totals.n_requests,
		   (unsigned long long) totals.n_steps,
		   (unsigned long long) totals.n_preemptions,
		   (unsigned long long) totals.n_cached,
		   (unsigned long long) totals.n_cancelled,
		   (unsigned long long) totals.n_restarts, totals.worst_ratio);
}

int
main(void)
{
	RUN_TEST(random_schedules_keep_every_property);
	return unit_test_finish();
}
