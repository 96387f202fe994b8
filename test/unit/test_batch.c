/*
 * test_batch.c
 *	  Unit tests of src/engine/batch: random schedules against a simulated KV
 *	  cache, and directed tests of each rule.
 *
 * The simulated cache stores, for each row of each block, a hash of the whole
 * token prefix that ends there (adapter and salt included).  A step writes the
 * rows of its tokens, then every row that any of its sequences may read must
 * hold that sequence's own prefix: whatever way of sharing wrongly there is,
 * it shows here.
 *
 * test/unit/test_batch.c
 */
#include "src/common/util/clock.h"
#include "src/common/util/philox.h"
#include "src/engine/batch/planner_internal.h"
#include "test/unit/unit_test.h"

#define MAX_REQUESTS 512
#define MAX_LEN 128

typedef struct SimRequest
{
	LlmSequence *sequence; /* NULL: gone */
	int32_t ids[MAX_LEN];
	uint64_t prefix_hash[MAX_LEN]; /* [i]: of ids[0 .. i] */
	uint64_t root_hash;
	int32_t n_tokens;
	int32_t n_prompt;
	int32_t max_total;	 /* tokens at which it is finished */
	int32_t n_remaining; /* before the plan */
	int32_t n_seats;	 /* steps it was part of */
	uint32_t tenant_id;
	uint64_t first_step; /* it was part of; UINT64_MAX = none yet */
	uint64_t end_step;
	bool was_running; /* before the plan */
	bool is_cancelled;
} SimRequest;

typedef struct Sim
{
	LlmPlannerConfig config;
	LlmPlanner *planner;
	uint64_t seed;
	uint64_t n_random;
	int64_t now_us;
	uint64_t n_steps;
	int32_t n_requests;
	int32_t n_alive;
	uint64_t n_appended;
	uint64_t n_cancelled;
	SimRequest *requests;  /* [MAX_REQUESTS] */
	uint64_t *rows;		   /* [n_blocks * block_size] prefix hashes */
	uint64_t *row_step;	   /* when a row was last written */
	int32_t *block_writer; /* request that last wrote it */
	uint64_t *block_step;
	int32_t *block_holders; /* before the plan */
	uint64_t served[8];		/* tokens first computed, by tenant */
	const LlmPlannedStep *step;
} Sim;

/* ------------------------------------------------------------ simulator */

static uint32_t
sim_random(Sim *sim, uint32_t n)
{
	return llm_philox(sim->seed, sim->n_random++, 0).word[0] % n;
}

static uint64_t
mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
	return hash ^ (hash >> 29);
}

static void
sim_open(Sim *sim, const LlmPlannerConfig *config, uint64_t seed)
{
	size_t n_rows = (size_t) config->n_blocks * (size_t) config->block_size;
	size_t n_blocks = (size_t) config->n_blocks;
	LlmError err;

	memset(sim, 0, sizeof(*sim));
	sim->config = *config;
	sim->seed = seed;
	llm_error_clear(&err);
	sim->planner = llm_planner_create(config, &err);
	if (sim->planner == NULL)
	{
		fprintf(stderr, "cannot create a planner: %s\n", err.message);
		abort();
	}
	sim->requests = malloc(MAX_REQUESTS * sizeof(SimRequest));
	sim->rows = calloc(n_rows, sizeof(uint64_t));
	sim->row_step = calloc(n_rows, sizeof(uint64_t));
	sim->block_writer = calloc(n_blocks, sizeof(int32_t));
	sim->block_step = calloc(n_blocks, sizeof(uint64_t));
	sim->block_holders = calloc(n_blocks, sizeof(int32_t));
}

static void
sim_close(Sim *sim)
{
	llm_planner_free(sim->planner);
	free(sim->requests);
	free(sim->rows);
	free(sim->row_step);
	free(sim->block_writer);
	free(sim->block_step);
	free(sim->block_holders);
}

static bool
sim_check(Sim *sim)
{
	LlmError err;

	if (llm_planner_check(sim->planner, &err))
		return true;
	CHECK_FAIL("seed %llu, step %llu: %s", (unsigned long long) sim->seed,
			   (unsigned long long) sim->n_steps, err.message);
	return false;
}

static void
sim_push_token(SimRequest *request, int32_t token_id)
{
	int32_t n = request->n_tokens++;

	request->ids[n] = token_id;
	request->prefix_hash[n] =
		mix(n == 0 ? request->root_hash : request->prefix_hash[n - 1],
			(uint64_t) token_id);
}

/* ids is the prompt, then n_output tokens that were generated before. */
static SimRequest *
sim_add(Sim *sim, const LlmPlannerRequest *wanted, LlmError *err)
{
	SimRequest *request = &sim->requests[sim->n_requests];
	LlmPlannerRequest copy = *wanted;

	if (sim->n_requests == MAX_REQUESTS)
		abort();
	memset(request, 0, sizeof(*request));
	request->root_hash = mix(mix(1, wanted->adapter_id), wanted->cache_salt);
	for (int32_t i = 0; i < wanted->n_prompt; i++)
		sim_push_token(request, wanted->prompt_ids[i]);
	for (int32_t i = 0; i < wanted->n_output; i++)
		sim_push_token(request, wanted->output_ids[i]);
	request->n_prompt = wanted->n_prompt;
	request->max_total = wanted->n_prompt + wanted->max_tokens;
	request->tenant_id = wanted->tenant_id;
	request->first_step = UINT64_MAX;
	copy.request_id = (uint64_t) sim->n_requests;
	copy.owner = request;
	copy.arrival_us = sim->now_us;
	request->sequence = llm_planner_add(sim->planner, &copy, err);
	if (request->sequence == NULL)
		return NULL;
	sim->n_requests++;
	sim->n_alive++;
	return request;
}

static void
sim_remove(Sim *sim, SimRequest *request)
{
	llm_planner_remove(sim->planner, request->sequence);
	request->sequence = NULL;
	request->end_step = sim->n_steps;
	sim->n_alive--;
}

/* What the planner must not change for the worse by planning. */
static void
sim_note_state(Sim *sim)
{
	for (int32_t i = 0; i < sim->config.n_blocks; i++)
		sim->block_holders[i] = llm_kv_blocks_n_refs(sim->planner->pool, i);
	for (int32_t i = 0; i < sim->n_requests; i++)
	{
		SimRequest *request = &sim->requests[i];

		if (request->sequence == NULL)
			continue;
		request->was_running = llm_sequence_is_running(request->sequence);
		request->n_remaining =
			request->n_tokens - request->sequence->n_computed;
	}
}

#define SIM_CHECK(cond)                                           \
	do                                                            \
	{                                                             \
		if (!(cond))                                              \
		{                                                         \
			CHECK_FAIL("seed %llu, step %llu: %s",                \
					   (unsigned long long) sim->seed,            \
					   (unsigned long long) sim->n_steps, #cond); \
			return false;                                         \
		}                                                         \
	} while (0)

/* A planned sequence's tokens, table and logit row; then its writes. */
static bool
sim_write_sequence(Sim *sim, int32_t s, uint64_t n_preempted)
{
	const LlmPlannedStep *step = sim->step;
	const LlmPlannedSequence *part = &step->sequences[s];
	SimRequest *request = llm_sequence_owner(part->sequence);
	const int32_t *table = step->block_tables + s * step->max_blocks_per_seq;
	int32_t block_size = sim->config.block_size;
	int32_t context_len = step->context_len[s];
	int32_t first = context_len - part->n_tokens;
	int32_t n_new;

	SIM_CHECK(request->sequence == part->sequence);
	SIM_CHECK(llm_sequence_is_running(part->sequence));
	SIM_CHECK(part->n_tokens >= 1 && first >= 0);
	SIM_CHECK(first == part->sequence->n_computed);
	SIM_CHECK(part->first_token == step->query_start[s]);
	SIM_CHECK(part->n_tokens ==
			  step->query_start[s + 1] - step->query_start[s]);
	SIM_CHECK(context_len <= request->n_tokens);
	SIM_CHECK(context_len <= step->max_context_len);
	SIM_CHECK(part->n_tokens <= step->max_query_len);
	SIM_CHECK((part->logit_row >= 0) == (context_len == request->n_tokens));
	if (part->logit_row >= 0)
		SIM_CHECK(step->logit_rows[part->logit_row] ==
				  step->query_start[s + 1] - 1);
	SIM_CHECK((context_len - 1) / block_size < step->max_blocks_per_seq);
	for (int32_t i = 0; i < step->max_blocks_per_seq; i++)
		SIM_CHECK(table[i] >= 0 && table[i] < sim->config.n_blocks);

	for (int32_t i = 0; i < part->n_tokens; i++)
	{
		int32_t position = first + i;
		int32_t block_idx = table[position / block_size];
		size_t row = (size_t) block_idx * (size_t) block_size +
					 (size_t) (position % block_size);

		SIM_CHECK(step->positions[part->first_token + i] == position);
		SIM_CHECK(step->token_seq[part->first_token + i] == s);
		SIM_CHECK(step->token_ids[part->first_token + i] ==
				  request->ids[position]);

		/* one writer per block and step, one write per row */
		SIM_CHECK(sim->row_step[row] != sim->n_steps);
		SIM_CHECK(sim->block_step[block_idx] != sim->n_steps ||
				  sim->block_writer[block_idx] == request - sim->requests);

		/* nobody else held it before */
		SIM_CHECK(n_preempted > 0 || sim->block_holders[block_idx] <= 1);
		sim->row_step[row] = sim->n_steps;
		sim->block_step[block_idx] = sim->n_steps;
		sim->block_writer[block_idx] = (int32_t) (request - sim->requests);
		sim->rows[row] = request->prefix_hash[position];
	}
	n_new = context_len - request->n_seats;
	if (n_new > 0)
	{
		/* n_seats doubles as the high-water mark of computed tokens */
		sim->served[request->tenant_id % 8] +=
			(uint64_t) (n_new < part->n_tokens ? n_new : part->n_tokens);
		request->n_seats = context_len;
	}
	if (request->first_step == UINT64_MAX)
		request->first_step = sim->n_steps;
	return true;
}

/* Everything a sequence reads is its own. */
static bool
sim_read_sequence(Sim *sim, int32_t s)
{
	const LlmPlannedStep *step = sim->step;
	const SimRequest *request = llm_sequence_owner(step->sequences[s].sequence);
	const int32_t *table = step->block_tables + s * step->max_blocks_per_seq;
	int32_t block_size = sim->config.block_size;

	for (int32_t position = 0; position < step->context_len[s]; position++)
	{
		size_t row =
			(size_t) table[position / block_size] * (size_t) block_size +
			(size_t) (position % block_size);

		SIM_CHECK(sim->rows[row] == request->prefix_hash[position]);
	}
	return true;
}

/* Who decodes is part of every step, unless it was preempted. */
static bool
sim_check_decodes(Sim *sim)
{
	for (int32_t i = 0; i < sim->n_requests; i++)
	{
		const SimRequest *request = &sim->requests[i];

		if (request->sequence == NULL || !request->was_running ||
			!llm_sequence_is_running(request->sequence) ||
			request->n_remaining != 1)
			continue;
		SIM_CHECK(request->sequence->n_planned >= 1);
	}
	return true;
}

static bool
sim_check_totals(Sim *sim)
{
	const LlmPlannedStep *step = sim->step;
	int32_t n_prefill = 0;

	SIM_CHECK(step->n_tokens >= 1);
	SIM_CHECK(step->n_tokens <= sim->config.max_num_batched_tokens);
	SIM_CHECK(step->n_seqs <= sim->config.max_num_seqs);
	SIM_CHECK(step->query_start[0] == 0);
	SIM_CHECK(step->query_start[step->n_seqs] == step->n_tokens);
	for (int32_t i = 1; i < step->n_logit_rows; i++)
		SIM_CHECK(step->logit_rows[i - 1] < step->logit_rows[i]);
	for (int32_t s = 0; s < step->n_seqs; s++)
	{
		const LlmPlannedSequence *part = &step->sequences[s];
		const SimRequest *request = llm_sequence_owner(part->sequence);
		int32_t first = step->context_len[s] - part->n_tokens;

		if (part->n_tokens > 1 || first < request->n_prompt ||
			part->logit_row < 0)
			n_prefill += part->n_tokens;
		if (s > 0 && part->n_tokens == 1)
			SIM_CHECK(step->sequences[s - 1].n_tokens == 1);
	}
	SIM_CHECK(n_prefill == step->n_prefill_tokens);
	return true;
}

/*
 * The "model": the next token is a function of the prefix, so that equal
 * requests give equal answers and share generated blocks, too.
 */
static void
sim_sample(Sim *sim)
{
	const LlmPlannedStep *step = sim->step;

	for (int32_t s = 0; s < step->n_seqs; s++)
	{
		SimRequest *request;
		int32_t token_id;

		if (step->sequences[s].logit_row < 0)
			continue;
		request = llm_sequence_owner(step->sequences[s].sequence);
		token_id = (int32_t) (request->prefix_hash[request->n_tokens - 1] % 3);
		sim_push_token(request, token_id);
		llm_planner_append(sim->planner, request->sequence, token_id);
		sim->n_appended++;
		if (request->n_tokens == request->max_total)
			sim_remove(sim, request);
	}
}

/* One step with all its properties.  False: something is wrong, or idle. */
static bool
sim_step(Sim *sim)
{
	LlmPlannerStats before;
	LlmPlannerStats after;

	sim_note_state(sim);
	llm_planner_stats(sim->planner, &before);
	sim->n_steps++;
	sim->step = llm_planner_plan(sim->planner, sim->now_us);
	llm_planner_stats(sim->planner, &after);
	if (!sim_check(sim))
		return false;
	if (sim->step == NULL)
		return false;
	if (!sim_check_totals(sim) || !sim_check_decodes(sim))
		return false;
	for (int32_t s = 0; s < sim->step->n_seqs; s++)
	{
		if (!sim_write_sequence(sim, s,
								after.n_preemptions - before.n_preemptions))
			return false;
	}
	for (int32_t s = 0; s < sim->step->n_seqs; s++)
	{
		if (!sim_read_sequence(sim, s))
			return false;
	}
	llm_planner_commit(sim->planner);
	if (!sim_check(sim))
		return false;
	sim_sample(sim);
	return sim_check(sim);
}

/* Nobody is left, and nothing is kept. */
static void
sim_check_empty(Sim *sim)
{
	LlmPlannerStats stats;

	llm_planner_stats(sim->planner, &stats);
	CHECK_INT_EQ(sim->n_alive, 0);
	CHECK_INT_EQ(stats.n_waiting, 0);
	CHECK_INT_EQ(stats.n_running, 0);
	CHECK_INT_EQ(stats.n_free_blocks, sim->config.n_blocks);
	CHECK_INT_EQ(stats.n_generated_tokens, sim->n_appended);
	CHECK(stats.n_cached_tokens <= stats.n_prompt_tokens);
	CHECK(llm_planner_plan(sim->planner, sim->now_us) == NULL);
}

/* ----------------------------------------------------- random schedules */

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
	config.aging_us = 1000 * (int64_t) sim_random(random, 100);
	return config;
}

/* Few different prefixes over few different tokens: everything collides. */
static void
add_random_request(Sim *sim)
{
	LlmPlannerRequest request = { 0 };
	int32_t ids[MAX_LEN];
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

	sim_open(&sim, &config, seed);
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
	 * comes at least a token closer to its end, and is never set back.
	 */
	for (int32_t i = 0; i < sim.n_requests; i++)
	{
		if (sim.requests[i].sequence != NULL)
			n_tokens += (uint64_t) sim.requests[i].max_total;
	}
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
	uint64_t n_schedules = 3000;

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
	printf("%llu schedules: %llu requests, %llu steps, %llu preemptions, "
		   "%llu cached tokens, %llu cancelled, drained in %.2f of the bound\n",
		   (unsigned long long) n_schedules,
		   (unsigned long long) totals.n_requests,
		   (unsigned long long) totals.n_steps,
		   (unsigned long long) totals.n_preemptions,
		   (unsigned long long) totals.n_cached,
		   (unsigned long long) totals.n_cancelled, totals.worst_ratio);
}

int
main(void)
{
	RUN_TEST(random_schedules_keep_every_property);
	return unit_test_finish();
}
