/*
 * batch_simulator.h
 *	  A step loop without a model, for the tests of src/engine/batch.
 *
 * The simulated KV cache stores, for each row of each block, a hash of the
 * whole token prefix that ends there (adapter and salt included, and with
 * each token the length by which it is rotated, where that counts).  A step
 * writes the rows of its tokens, then every row that any of its sequences may
 * read must hold that sequence's own prefix: whatever way of sharing wrongly
 * there is, it shows here.
 *
 * Where it runs ahead, a step is planned before the tokens of the last one are
 * settled, and now and then one of these ends its request: then the step
 * computes a token in vain.  Where steps fail, some are withdrawn instead of
 * committed: what they would have written is garbage.
 *
 * test/unit/batch_simulator.h
 */
#ifndef LLM_BATCH_SIMULATOR_H
#define LLM_BATCH_SIMULATOR_H

#include "src/common/util/philox.h"
#include "src/engine/batch/planner_internal.h"
#include "test/unit/unit_test.h"

#define SIM_MAX_LEN 256
#define SIM_MAX_SEQS 512
#define SIM_N_TENANTS 8

typedef struct SimRequest
{
	LlmSequence *sequence; /* NULL: gone */
	int32_t ids[SIM_MAX_LEN];
	uint64_t prefix_hash[SIM_MAX_LEN]; /* [i]: of ids[0 .. i] */
	uint64_t root_hash;
	int32_t n_tokens;
	int32_t n_prompt;
	int32_t n_first;	 /* tokens of its first pass: all are rotated by it */
	int32_t max_total;	 /* tokens at which it is finished */
	int32_t n_remaining; /* before the plan */
	int32_t n_charged;	 /* first tokens that were computed */
	uint32_t tenant_id;
	uint64_t first_step; /* it was part of; UINT64_MAX = none yet */
	uint64_t end_step;
	int32_t row;	  /* of the draw that gives its last token; or -1 */
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
	uint64_t n_restarts;
	uint64_t n_stopped; /* where it runs ahead */
	bool runs_ahead;
	bool steps_fail;
	uint64_t n_withdrawn;
	int32_t max_requests;
	SimRequest *requests;  /* [max_requests], in order of arrival */
	uint64_t *rows;		   /* [n_blocks * block_size] prefix hashes */
	uint64_t *row_step;	   /* when a row was last written */
	int32_t *block_writer; /* request that last wrote it */
	uint64_t *block_step;
	int32_t *block_holders;			/* before the plan */
	uint64_t served[SIM_N_TENANTS]; /* tokens first computed */
	uint64_t n_served_now;
	const LlmPlannedStep *step;
} Sim;

static inline uint32_t
sim_random(Sim *sim, uint32_t n)
{
	return llm_philox(sim->seed, sim->n_random++, 0).word[0] % n;
}

static inline uint64_t
mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
	return hash ^ (hash >> 29);
}

static inline void
sim_open(Sim *sim, const LlmPlannerConfig *config, int32_t max_requests,
		 uint64_t seed)
{
	size_t n_rows = (size_t) config->n_blocks * (size_t) config->block_size;
	size_t n_blocks = (size_t) config->n_blocks;
	LlmError err;

	memset(sim, 0, sizeof(*sim));
	if (config->max_num_seqs > SIM_MAX_SEQS)
		abort();
	sim->config = *config;
	sim->seed = seed;
	sim->max_requests = max_requests;
	llm_error_clear(&err);
	sim->planner = llm_planner_create(config, &err);
	if (sim->planner == NULL)
	{
		fprintf(stderr, "cannot create a planner: %s\n", err.message);
		abort();
	}
	sim->requests = malloc((size_t) max_requests * sizeof(SimRequest));
	sim->rows = calloc(n_rows, sizeof(uint64_t));
	sim->row_step = calloc(n_rows, sizeof(uint64_t));
	sim->block_writer = calloc(n_blocks, sizeof(int32_t));
	sim->block_step = calloc(n_blocks, sizeof(uint64_t));
	sim->block_holders = calloc(n_blocks, sizeof(int32_t));
}

static inline void
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

static inline bool
sim_check(Sim *sim)
{
	LlmError err;

	if (llm_planner_check(sim->planner, &err))
		return true;
	CHECK_FAIL("seed %llu, step %llu: %s", (unsigned long long) sim->seed,
			   (unsigned long long) sim->n_steps, err.message);
	return false;
}

/* Equal for lengths by which a token is rotated alike. */
static inline uint64_t
sim_rotation(const Sim *sim, int32_t n_first, int32_t position)
{
	int32_t len = n_first > position ? n_first : position + 1;

	if (sim->config.rope_short_len == 0 || len <= sim->config.rope_short_len)
		return 0;
	return sim->config.rope_grows ? (uint64_t) len : 1;
}

/* What the keys and values of ids[i] are made of. */
static inline void
sim_hash_token(const Sim *sim, SimRequest *request, int32_t i)
{
	uint64_t before = i == 0 ? request->root_hash : request->prefix_hash[i - 1];

	request->prefix_hash[i] = mix(mix(before, (uint64_t) request->ids[i]),
								  sim_rotation(sim, request->n_first, i));
}

static inline void
sim_push_token(Sim *sim, SimRequest *request, int32_t token_id)
{
	int32_t n = request->n_tokens++;

	request->ids[n] = token_id;
	if (sim->config.rope_restarts && n == sim->config.rope_short_len)
	{
		/* it outgrows its keys: all of them are made anew */
		request->n_first = n + 1;
		for (int32_t i = 0; i < n; i++)
			sim_hash_token(sim, request, i);
		sim->n_restarts += request->sequence != NULL;
	}
	sim_hash_token(sim, request, n);
}

/* ids is the prompt, then n_output tokens that were generated before. */
static inline SimRequest *
sim_add(Sim *sim, const LlmPlannerRequest *wanted, LlmError *err)
{
	SimRequest *request = &sim->requests[sim->n_requests];
	LlmPlannerRequest copy = *wanted;

	if (sim->n_requests == sim->max_requests)
		abort();
	memset(request, 0, sizeof(*request));
	request->root_hash = mix(mix(1, wanted->adapter_id), wanted->cache_salt);
	request->n_first = wanted->n_prompt;
	for (int32_t i = 0; i < wanted->n_prompt; i++)
		sim_push_token(sim, request, wanted->prompt_ids[i]);
	for (int32_t i = 0; i < wanted->n_output; i++)
		sim_push_token(sim, request, wanted->output_ids[i]);
	request->n_prompt = wanted->n_prompt;
	request->max_total = wanted->n_prompt + wanted->max_tokens;
	request->tenant_id = wanted->tenant_id;
	request->row = -1;
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

static inline void
sim_remove(Sim *sim, SimRequest *request)
{
	llm_planner_remove(sim->planner, request->sequence);
	request->sequence = NULL;
	request->end_step = sim->n_steps;
	sim->n_alive--;
}

/* What the planner must not change for the worse by planning. */
static inline void
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
			request->n_tokens == request->max_total
				? 0
				: request->n_tokens - request->sequence->n_computed;
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
static inline bool
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
	if (sim->config.separates_phases)
		SIM_CHECK(step->is_prompt
					  ? context_len <= request->n_prompt
					  : first >= request->n_prompt && part->n_tokens == 1);
	SIM_CHECK(first == part->sequence->n_computed);
	SIM_CHECK(part->first_token == step->query_start[s]);
	SIM_CHECK(part->n_tokens ==
			  step->query_start[s + 1] - step->query_start[s]);
	SIM_CHECK(context_len <= request->n_tokens);
	SIM_CHECK(context_len <= step->max_context_len);
	SIM_CHECK(part->n_tokens <= step->max_query_len);
	SIM_CHECK((part->logit_row >= 0) == (context_len == request->n_tokens));
	SIM_CHECK(request->n_tokens < request->max_total);
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
		SIM_CHECK(sim_rotation(sim, step->rope_len[s], position) ==
				  sim_rotation(sim, request->n_first, position));
		SIM_CHECK(step->token_ids[part->first_token + i] ==
				  (request->row >= 0 && position == request->n_tokens - 1
					   ? LLM_DRAWN_TOKEN(request->row)
					   : request->ids[position]));

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
	n_new = context_len - request->n_charged;
	if (n_new > 0)
	{
		sim->served[request->tenant_id] +=
			(uint64_t) (n_new < part->n_tokens ? n_new : part->n_tokens);
		request->n_charged = context_len;
	}
	if (request->first_step == UINT64_MAX)
		request->first_step = sim->n_steps;
	return true;
}

/* Everything a sequence reads is its own. */
static inline bool
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
static inline bool
sim_check_decodes(Sim *sim)
{
	for (int32_t i = 0; i < sim->n_requests; i++)
	{
		const SimRequest *request = &sim->requests[i];

		if (request->sequence == NULL || !request->was_running ||
			!llm_sequence_is_running(request->sequence) ||
			request->n_remaining < 1 ||
			(request->n_remaining != 1 && !sim->config.separates_phases))
			continue;
		if (sim->config.separates_phases &&
			(sim->step->is_prompt ||
			 llm_sequence_is_in_prompt(request->sequence)))
			continue;
		SIM_CHECK(request->sequence->n_planned >= 1);
	}
	return true;
}

static inline bool
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

/* The tokens that were drawn arrive. */
static inline void
sim_settle(Sim *sim)
{
	for (int32_t i = 0; i < sim->n_requests; i++)
	{
		SimRequest *request = &sim->requests[i];
		bool is_stop;

		if (request->sequence == NULL || request->row < 0)
			continue;
		llm_planner_settle(sim->planner, request->sequence,
						   request->ids[request->n_tokens - 1]);
		request->row = -1;
		sim->n_appended++;
		is_stop = sim->runs_ahead && sim_random(sim, 16) == 0;
		sim->n_stopped += is_stop;
		if (is_stop || request->n_tokens == request->max_total)
			sim_remove(sim, request);
	}
}

/*
 * The "model": the next token is a function of the prefix, so that equal
 * requests give equal answers and share generated blocks, too.  Whoever left
 * since the step was planned has no use for one.
 */
static inline void
sim_sample(Sim *sim, SimRequest *const *drawing)
{
	for (int32_t row = 0; row < sim->config.max_num_seqs; row++)
	{
		SimRequest *request = drawing[row];

		if (request == NULL || request->sequence == NULL)
			continue;
		sim_push_token(
			sim, request,
			(int32_t) (request->prefix_hash[request->n_tokens - 1] % 3));
		llm_planner_expect(sim->planner, request->sequence, row);
		request->row = row;
	}
}

/* Requests by the step's logit rows. */
static inline void
sim_note_rows(const Sim *sim, SimRequest **drawing)
{
	for (int32_t s = 0; s < sim->step->n_seqs; s++)
	{
		const LlmPlannedSequence *part = &sim->step->sequences[s];

		if (part->logit_row >= 0)
			drawing[part->logit_row] = llm_sequence_owner(part->sequence);
	}
}

/*
 * The running sequence of the highest standing: the one that must never be
 * set back, lest nobody ever gets anywhere.
 */
static inline SimRequest *
sim_top(Sim *sim)
{
	for (int rank = 0; rank < LLM_N_RANKS; rank++)
	{
		/* interactive requests may take the place of any batch request */
		if (rank == LLM_RANK_LOW &&
			sim->planner->waiting.n_waiting[LLM_RANK_HIGH] > 0)
			break;
		if (sim->planner->running[rank].n > 0)
			return llm_sequence_owner(sim->planner->running[rank].sequences[0]);
	}
	return NULL;
}

/* What tenants paid in all; forgotten ones paid what is forgotten. */
static inline uint64_t
sim_paid(const Sim *sim)
{
	const LlmWaitQueue *waiting = &sim->planner->waiting;
	uint64_t n = 0;

	for (int32_t i = 0; i < waiting->n_tenants; i++)
		n += waiting->tenants[i]->served_tokens;
	return n;
}

static inline uint64_t
sim_served(const Sim *sim)
{
	uint64_t n = 0;

	for (int32_t i = 0; i < SIM_N_TENANTS; i++)
		n += sim->served[i];
	return n;
}

static inline bool
sim_check_step(Sim *sim, const SimRequest *top, uint64_t n_preempted)
{
	uint64_t n_served = sim_served(sim);

	if (!sim_check_totals(sim) || !sim_check_decodes(sim))
		return false;
	SIM_CHECK(top == NULL || llm_sequence_is_running(top->sequence));

	/* who is on top now may be another one, whose rank was raised */
	top = sim_top(sim);
	SIM_CHECK(top == NULL || top->n_tokens == top->max_total ||
			  top->sequence->n_planned > 0 || sim->config.separates_phases);
	for (int32_t s = 0; s < sim->step->n_seqs; s++)
	{
		if (!sim_write_sequence(sim, s, n_preempted))
			return false;
	}
	for (int32_t s = 0; s < sim->step->n_seqs; s++)
	{
		if (!sim_read_sequence(sim, s))
			return false;
	}
	sim->n_served_now = sim_served(sim) - n_served;
	return true;
}

/* The step was not computed after all. */
static inline bool
sim_withdraw(Sim *sim)
{
	size_t n_rows =
		(size_t) sim->config.n_blocks * (size_t) sim->config.block_size;

	for (size_t row = 0; row < n_rows; row++)
		if (sim->row_step[row] == sim->n_steps)
			sim->rows[row] = UINT64_MAX;
	llm_planner_withdraw(sim->planner);
	sim->n_withdrawn++;
	if (!sim_check(sim))
		return false;
	for (int32_t i = 0; i < sim->n_requests; i++)
		SIM_CHECK(sim->requests[i].sequence == NULL ||
				  !llm_sequence_is_running(sim->requests[i].sequence));
	sim_settle(sim);
	return sim_check(sim);
}

/* One step with all its properties.  False: something is wrong, or idle. */
static inline bool
sim_step(Sim *sim)
{
	LlmPlannerStats before;
	LlmPlannerStats after;
	const SimRequest *top = sim_top(sim);
	SimRequest *drawing[SIM_MAX_SEQS] = { NULL };
	uint64_t n_paid = sim_paid(sim);
	uint64_t n_appended = sim->n_appended;

	sim_note_state(sim);
	llm_planner_stats(sim->planner, &before);
	sim->n_steps++;
	sim->step = llm_planner_plan(sim->planner, sim->now_us);
	llm_planner_stats(sim->planner, &after);
	if (!sim_check(sim))
		return false;
	if (sim->step == NULL)
	{
		/* everybody waits for a last token */
		sim_settle(sim);
		return sim->n_appended > n_appended && sim_check(sim);
	}
	if (!sim_check_step(sim, top, after.n_preemptions - before.n_preemptions))
		return false;
	SIM_CHECK(sim_paid(sim) - n_paid == sim->n_served_now);
	if (sim->steps_fail && sim_random(sim, 8) == 0)
		return sim_withdraw(sim);
	sim_note_rows(sim, drawing);
	llm_planner_commit(sim->planner);
	if (!sim_check(sim))
		return false;
	if (sim->runs_ahead)
		sim_settle(sim);
	sim_sample(sim, drawing);
	if (!sim->runs_ahead)
		sim_settle(sim);
	return sim_check(sim);
}

/* Nobody is left, and nothing is kept. */
static inline void
sim_check_empty(Sim *sim)
{
	LlmPlannerStats stats;
	uint64_t n_prompt_tokens = 0;

	for (int32_t i = 0; i < sim->n_requests; i++)
	{
		if (sim->requests[i].first_step != UINT64_MAX)
			n_prompt_tokens += (uint64_t) sim->requests[i].n_prompt;
	}
	llm_planner_stats(sim->planner, &stats);
	CHECK_INT_EQ(sim->n_alive, 0);
	CHECK_INT_EQ(stats.n_waiting, 0);
	CHECK_INT_EQ(stats.n_running, 0);
	CHECK_INT_EQ(stats.n_free_blocks, sim->config.n_blocks);
	CHECK_INT_EQ(stats.n_generated_tokens, sim->n_appended);
	CHECK_INT_EQ(stats.n_restarts, sim->n_restarts);
	CHECK_INT_EQ(stats.n_prompt_tokens, n_prompt_tokens);
	CHECK(stats.n_cached_tokens <= stats.n_prompt_tokens);
	CHECK(llm_planner_plan(sim->planner, sim->now_us) == NULL);
}

#endif /* LLM_BATCH_SIMULATOR_H */
