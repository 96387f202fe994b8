/*
 * bench_batch.c
 *	  What planning costs per step, and hashing per prompt.
 *
 * The planner works between two steps, while the device would idle: a decode
 * step of a large batch takes some 10 ms, of a small one 3 ms.  Planning
 * should be lost in that.
 *
 * test/bench/bench_batch.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "src/engine/batch/batch.h"
#include "src/engine/batch/prefix_cache.h"

#define BLOCK_SIZE 16
#define N_PROMPT 1000

static LlmPlanner *
make_planner(int32_t n_seqs, int32_t n_blocks)
{
	LlmPlannerConfig config = {
		.block_size = BLOCK_SIZE,
		.n_blocks = n_blocks,
		.max_num_seqs = n_seqs,
		.max_num_batched_tokens = 8192,
		.max_model_len = 131072,
		.enable_prefix_caching = true,
		.aging_us = 10000000,
	};
	LlmError err;
	LlmPlanner *planner = llm_planner_create(&config, &err);

	if (planner == NULL)
	{
		fprintf(stderr, "%s\n", err.message);
		exit(1);
	}
	return planner;
}

static void
add_request(LlmPlanner *planner, int32_t idx, int32_t n_prompt,
			int32_t max_tokens)
{
	int32_t *ids = malloc((size_t) n_prompt * sizeof(int32_t));
	LlmPlannerRequest request = {
		.request_id = (uint64_t) idx,
		.prompt_ids = ids,
		.n_prompt = n_prompt,
		.max_tokens = max_tokens,
		.request_class = LLM_CLASS_BATCH,
		.tenant_id = (uint32_t) idx % 7,
	};
	LlmError err;

	for (int32_t i = 0; i < n_prompt; i++)
		ids[i] = (i * 7919 + (i < 100 ? 0 : idx * 104729)) % 128000;
	if (llm_planner_add(planner, &request, &err) == NULL)
	{
		fprintf(stderr, "%s\n", err.message);
		exit(1);
	}
	free(ids);
}

typedef struct Cost
{
	double plan_us;
	double commit_us;
	double append_us;
	int32_t n_steps;
	int64_t n_tokens;
} Cost;

/* CPU time of this thread: others on the machine do not count. */
static double
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double) now.tv_sec * 1e6 + (double) now.tv_nsec / 1e3;
}

/* One step; the model is a counter. */
static bool
run_step(LlmPlanner *planner, Cost *cost)
{
	double start = now_us();
	const LlmPlannedStep *step = llm_planner_plan(planner, (int64_t) start);
	double planned = now_us();
	double committed;

	if (step == NULL)
		return false;
	llm_planner_commit(planner);
	committed = now_us();
	for (int32_t s = 0; s < step->n_seqs; s++)
	{
		if (step->sequences[s].logit_row >= 0)
			llm_planner_append(planner, step->sequences[s].sequence,
							   step->positions[step->query_start[s]]);
	}
	cost->append_us += now_us() - committed;
	cost->plan_us += planned - start;
	cost->commit_us += committed - planned;
	cost->n_tokens += step->n_tokens;
	cost->n_steps++;
	return true;
}

static void
print_cost(const char *what, const Cost *cost)
{
	printf("%-42s plan %7.1f us, commit %5.1f us, append %5.1f us, "
		   "%.0f tokens a step\n",
		   what, cost->plan_us / cost->n_steps, cost->commit_us / cost->n_steps,
		   cost->append_us / cost->n_steps,
		   (double) cost->n_tokens / cost->n_steps);
}

static void
bench_decode(int32_t n_seqs)
{
	int32_t n_decode = 512;
	LlmPlanner *planner = make_planner(n_seqs, n_seqs * 100);
	LlmPlannerStats stats;
	Cost prefill = { 0 };
	Cost decode = { 0 };
	char what[80];

	for (int32_t i = 0; i < n_seqs; i++)
		add_request(planner, i, N_PROMPT, 2 * n_decode);
	do
	{
		if (!run_step(planner, &prefill))
			exit(1);
		llm_planner_stats(planner, &stats);
	} while (stats.n_generated_tokens < (uint64_t) n_seqs ||
			 stats.n_waiting > 0);
	for (int32_t i = 0; i < n_decode / 2; i++)
		run_step(planner, &decode);
	snprintf(what, sizeof(what), "%d sequences, prompts:", n_seqs);
	print_cost(what, &prefill);
	snprintf(what, sizeof(what), "%d sequences, decoding at %d:", n_seqs,
			 N_PROMPT);
	print_cost(what, &decode);
	llm_planner_free(planner);
}

/* Full of decoding sequences, with a queue of so many behind them. */
static void
bench_queue(int32_t n_waiting)
{
	LlmPlanner *planner = make_planner(256, 256 * 100);
	Cost cost = { 0 };
	double start = now_us();
	char what[80];

	for (int32_t i = 0; i < 256 + n_waiting; i++)
		add_request(planner, i, 100, 1000);
	printf("%-42s %.2f us each\n", "adding requests of 100 tokens:",
		   (now_us() - start) / (256 + n_waiting));
	for (int i = 0; i < 10; i++)
		run_step(planner, &cost);
	cost = (Cost){ 0 };
	for (int i = 0; i < 300; i++)
		run_step(planner, &cost);
	snprintf(what, sizeof(what), "256 decoding, %d waiting:", n_waiting);
	print_cost(what, &cost);
	llm_planner_free(planner);
}

static void
bench_hashing(void)
{
	int32_t n_blocks = 20000;
	int32_t ids[BLOCK_SIZE] = { 0 };
	LlmPrefixDigest digest = llm_prefix_digest_root(0, 0, 0);
	double start = now_us();
	double us;

	for (int32_t i = 0; i < n_blocks; i++)
	{
		LlmPrefixDigest parent = digest;

		ids[0] = i;
		llm_prefix_digest_next(&parent, ids, BLOCK_SIZE, &digest);
	}
	us = now_us() - start;
	printf("%-42s %.2f us, %.1f ns a token; %.1f ms for 128k tokens\n",
		   "hashing a block of 16 tokens:", us / n_blocks,
		   us * 1e3 / n_blocks / BLOCK_SIZE,
		   us / n_blocks * 131072 / BLOCK_SIZE / 1e3);
}

/* A long prompt whose blocks are all cached: the dearest admission. */
static void
bench_cached_prompt(void)
{
	LlmPlanner *planner = make_planner(4, 20000);
	Cost first = { 0 };
	Cost second = { 0 };

	add_request(planner, 1, 120000, 100);
	for (int i = 0; i < 20; i++)
		run_step(planner, &first);
	add_request(planner, 1, 120000, 100);
	run_step(planner, &second);
	print_cost("prompt of 120k tokens, chunk by chunk:", &first);
	print_cost("prompt of 120k tokens, cached:", &second);
	llm_planner_free(planner);
}

int
main(void)
{
	bench_hashing();
	bench_decode(64);
	bench_decode(256);
	bench_decode(1024);
	bench_queue(0);
	bench_queue(10000);
	bench_cached_prompt();
	return 0;
}
