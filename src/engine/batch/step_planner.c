/*
 * step_planner.c
 *	  Continuous batching: which tokens of which sequences a step computes.
 *
 *	  step_planner.c	the public functions; running sequences
 *	  admission.c		waiting sequences: who is let in
 *	  step_arrays.c		the planned step as the arrays the kernels read
 *	  wait_queue.c		waiting sequences: whose turn it is
 *	  sequence.c		a request's tokens and digests
 *	  kv_blocks.c		the pool of blocks
 *	  prefix_cache.c	blocks by contents
 *	  planner_check.c	every invariant
 *
 * There is no prefill phase and no decode phase: a sequence has tokens
 * (prompt and output) of which the first n_computed are in its blocks, and a
 * step brings it some tokens closer to having computed all.  When it does, it
 * gets a logit row and, from the caller, its next token.
 *
 * A plan visits sequences by standing: running ones of high rank, oldest
 * first; who waits with high rank; running ones of low rank, oldest first; who
 * waits with low rank.  A token is kept for everyone who decodes, whatever
 * comes before.  Only sequences of lower standing that were not visited yet
 * are preempted, so that what is planned stays planned.
 *
 * A block is offered to the prefix cache when the step that fills it is
 * planned, so that later sequences of the same step share it: every layer
 * writes the step's keys and values before it attends.  Where the last token
 * of a block is only expected, that happens when it is settled.
 *
 * src/engine/batch/step_planner.c
 */
#include "src/engine/batch/planner_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* One block in so many is kept free at admission. */
#define WATERMARK_DIVISOR 100

static bool
check_config(const LlmPlannerConfig *config, LlmError *err)
{
	const struct
	{
		const char *name;
		int64_t value;
		int64_t least;
	} bounds[] = {
		{ "block_size", config->block_size, 1 },
		{ "number of KV blocks", config->n_blocks, 1 },
		{ "max_num_seqs", config->max_num_seqs, 1 },
		{ "max_model_len", config->max_model_len, 1 },
		{ "aging time", config->aging_us, 0 },
		{ "trained length", config->rope_short_len, 0 },
	};

	for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++)
	{
		if (bounds[i].value < bounds[i].least)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "%s is %lld, but must be at least %lld",
								 bounds[i].name, (long long) bounds[i].value,
								 (long long) bounds[i].least);
	}
	if (config->max_num_batched_tokens < config->max_num_seqs)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "max_num_batched_tokens is %d, but must be at "
							 "least max_num_seqs, which is %d",
							 config->max_num_batched_tokens,
							 config->max_num_seqs);
	return true;
}

/* Memory for n ints, counted; NULL is found once at the end. */
static int32_t *
take_ints(size_t n, uint64_t *n_bytes)
{
	*n_bytes += n * sizeof(int32_t);
	return malloc(n * sizeof(int32_t));
}

static bool
take_arrays(LlmPlanner *planner, LlmError *err)
{
	size_t n_seqs = (size_t) planner->config.max_num_seqs;
	size_t n_tokens = (size_t) planner->config.max_num_batched_tokens;
	uint64_t n_bytes = 0;
	LlmRunningList *running = planner->running;

	planner->token_ids = take_ints(n_tokens, &n_bytes);
	planner->positions = take_ints(n_tokens, &n_bytes);
	planner->token_seq = take_ints(n_tokens, &n_bytes);
	planner->query_start = take_ints(n_seqs + 1, &n_bytes);
	planner->context_len = take_ints(n_seqs, &n_bytes);
	planner->rope_len = take_ints(n_seqs, &n_bytes);
	planner->logit_rows = take_ints(n_seqs, &n_bytes);
	planner->block_tables =
		take_ints(n_seqs * (size_t) planner->max_blocks_per_seq, &n_bytes);
	planner->sequences = malloc(n_seqs * sizeof(LlmPlannedSequence));
	planner->planned = malloc(n_seqs * sizeof(LlmSequence *));
	for (int rank = 0; rank < LLM_N_RANKS; rank++)
		running[rank].sequences = malloc(n_seqs * sizeof(LlmSequence *));
	if (planner->token_ids == NULL || planner->positions == NULL ||
		planner->token_seq == NULL || planner->query_start == NULL ||
		planner->context_len == NULL || planner->rope_len == NULL ||
		planner->logit_rows == NULL || planner->block_tables == NULL ||
		planner->sequences == NULL || planner->planned == NULL ||
		running[LLM_RANK_HIGH].sequences == NULL ||
		running[LLM_RANK_LOW].sequences == NULL)
		return llm_error_no_memory(err, n_bytes, "the step planner");
	return true;
}

LlmPlanner *
llm_planner_create(const LlmPlannerConfig *config, LlmError *err)
{
	LlmPlanner *planner;
	int32_t max_blocks;

	if (!check_config(config, err))
		return NULL;
	planner = calloc(1, sizeof(LlmPlanner));
	if (planner == NULL)
	{
		llm_error_no_memory(err, sizeof(LlmPlanner), "the step planner");
		return NULL;
	}
	max_blocks = llm_blocks_for(config->max_model_len, config->block_size);
	planner->config = *config;
	planner->max_blocks_per_seq =
		max_blocks < config->n_blocks ? max_blocks : config->n_blocks;
	planner->watermark_blocks = 1 + config->n_blocks / WATERMARK_DIVISOR;
	planner->pool = llm_kv_blocks_create(config->n_blocks, err);
	if (planner->pool == NULL || !take_arrays(planner, err))
	{
		llm_planner_free(planner);
		return NULL;
	}
	return planner;
}

/* All sequences of a tenant's queue. */
static void
free_queue(LlmTenant *tenant, LlmRank rank)
{
	while (tenant->first[rank] != NULL)
	{
		LlmSequence *next = tenant->first[rank]->next;

		llm_sequence_free(tenant->first[rank]);
		tenant->first[rank] = next;
	}
}

void
llm_planner_free(LlmPlanner *planner)
{
	if (planner == NULL)
		return;
	for (int rank = 0; rank < LLM_N_RANKS; rank++)
	{
		LlmRunningList *list = &planner->running[rank];

		for (int32_t i = 0; i < list->n; i++)
			llm_sequence_free(list->sequences[i]);
		free(list->sequences);
		for (int32_t i = 0; i < planner->waiting.n_tenants; i++)
			free_queue(planner->waiting.tenants[i], (LlmRank) rank);
	}
	llm_wait_queue_reset(&planner->waiting);
	llm_kv_blocks_free(planner->pool);
	free(planner->token_ids);
	free(planner->positions);
	free(planner->token_seq);
	free(planner->query_start);
	free(planner->context_len);
	free(planner->rope_len);
	free(planner->logit_rows);
	free(planner->block_tables);
	free(planner->sequences);
	free(planner->planned);
	free(planner);
}

static bool
check_request(const LlmPlanner *planner, const LlmPlannerRequest *request,
			  LlmError *err)
{
	const LlmPlannerConfig *config = &planner->config;
	int64_t n_tokens = (int64_t) request->n_prompt + request->max_tokens;
	int32_t n_blocks;

	if (request->n_prompt < 1)
		return llm_error_set(err, LLM_ERROR_INVALID, "the prompt is empty");
	if (request->max_tokens < 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "max_tokens is %d, but must be at least 0",
							 request->max_tokens);
	if (request->n_output < 0 ||
		request->n_output >=
			(request->max_tokens > 0 ? request->max_tokens : 1))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the request has %d output tokens already, but "
							 "max_tokens is %d",
							 request->n_output, request->max_tokens);
	if (n_tokens > config->max_model_len)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "prompt of %d tokens and max_tokens of %d exceed "
							 "the context length of %d tokens",
							 request->n_prompt, request->max_tokens,
							 config->max_model_len);

	/* the last generated token ends the request and is never computed */
	n_blocks = llm_blocks_for((int32_t) n_tokens - (request->max_tokens > 0),
							  config->block_size);
	if (n_blocks > config->n_blocks)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "prompt of %d tokens and max_tokens of %d need "
							 "%d KV blocks of %d tokens, but the cache has %d",
							 request->n_prompt, request->max_tokens, n_blocks,
							 config->block_size, config->n_blocks);
	return true;
}

LlmSequence *
llm_planner_add(LlmPlanner *planner, const LlmPlannerRequest *request,
				LlmError *err)
{
	LlmSequence *sequence;

	if (!check_request(planner, request, err))
		return NULL;
	assert(request->n_prompt_rows >= 0);
	assert(request->n_prompt_rows <= request->n_prompt);
	assert(request->n_prompt_rows <= 1 || request->max_tokens == 0);
	sequence = llm_sequence_create(request, &planner->config, err);
	if (sequence == NULL)
		return NULL;
	if (!llm_wait_queue_join(&planner->waiting, sequence, request->tenant_id,
							 err))
	{
		llm_sequence_free(sequence);
		return NULL;
	}
	sequence->serial = planner->next_serial++;
	llm_wait_queue_insert(&planner->waiting, sequence);
	return sequence;
}

/* The index of the first sequence that is not older. */
static int32_t
find_seat(const LlmRunningList *list, uint64_t serial)
{
	int32_t low = 0;
	int32_t high = list->n;

	while (low < high)
	{
		int32_t middle = low + (high - low) / 2;

		if (list->sequences[middle]->serial < serial)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void
llm_planner_seat(LlmPlanner *planner, LlmSequence *sequence)
{
	LlmRunningList *list = &planner->running[sequence->rank];
	int32_t at = find_seat(list, sequence->serial);

	assert(llm_planner_n_running(planner) < planner->config.max_num_seqs);
	memmove(&list->sequences[at + 1], &list->sequences[at],
			(size_t) (list->n - at) * sizeof(LlmSequence *));
	list->sequences[at] = sequence;
	list->n++;
	sequence->state = LLM_SEQUENCE_RUNNING;
}

void
llm_planner_unseat(LlmPlanner *planner, LlmSequence *sequence)
{
	LlmRunningList *list = &planner->running[sequence->rank];
	int32_t at = find_seat(list, sequence->serial);

	assert(at < list->n && list->sequences[at] == sequence);
	list->n--;
	memmove(&list->sequences[at], &list->sequences[at + 1],
			(size_t) (list->n - at) * sizeof(LlmSequence *));
}

/* Give its blocks back, the last one first: nothing of it is computed. */
static void
drop_blocks(LlmPlanner *planner, LlmSequence *sequence)
{
	assert(sequence->n_planned == 0);

	while (sequence->n_blocks > 0)
		llm_kv_blocks_release(planner->pool,
							  sequence->blocks[--sequence->n_blocks]);
	sequence->n_computed = 0;
	sequence->n_published = 0;
}

/* Give its blocks back, and its seat. */
static void
stop_running(LlmPlanner *planner, LlmSequence *sequence)
{
	assert(sequence->state == LLM_SEQUENCE_RUNNING);

	drop_blocks(planner, sequence);
	if (sequence->is_reserved)
		planner->n_tokens_reserved--;
	sequence->is_reserved = false;
	llm_planner_unseat(planner, sequence);
	sequence->state = LLM_SEQUENCE_WAITING;
}

void
llm_planner_remove(LlmPlanner *planner, LlmSequence *sequence)
{
	assert(sequence->n_planned == 0);

	if (sequence->state == LLM_SEQUENCE_RUNNING)
		stop_running(planner, sequence);
	else
		llm_wait_queue_remove(&planner->waiting, sequence);
	llm_wait_queue_leave(&planner->waiting, sequence);
	llm_sequence_free(sequence);
}

void
llm_planner_preempt(LlmPlanner *planner, LlmSequence *victim, LlmRank by)
{
	assert(by <= victim->rank);
	if (by < victim->rank)
		victim->was_displaced = true;
	stop_running(planner, victim);
	llm_wait_queue_insert(&planner->waiting, victim);
	planner->n_preemptions++;
}

/*
 * Take the place of whoever has the lowest standing below the given one.
 * False: nobody has.
 */
static bool
preempt_for(LlmPlanner *planner, const LlmSequence *sequence)
{
	for (int rank = LLM_RANK_LOW; rank >= (int) sequence->rank; rank--)
	{
		const LlmRunningList *list = &planner->running[rank];
		LlmSequence *last = list->n > 0 ? list->sequences[list->n - 1] : NULL;

		if (last == NULL || last == sequence)
			continue;
		assert(rank > (int) sequence->rank || last->serial > sequence->serial);
		llm_planner_preempt(planner, last, sequence->rank);
		planner->had_no_blocks = true;
		return true;
	}
	return false;
}

/*
 * Get blocks for so many more tokens.  Returns for how many there are: less
 * when no block is free, rather than preempting for more than it takes to go
 * on; 0 when the sequence itself had the lowest standing and was preempted.
 */
static int32_t
grow(LlmPlanner *planner, LlmSequence *sequence, int32_t n_tokens)
{
	int32_t block_size = planner->config.block_size;
	int32_t n_needed =
		llm_blocks_for(sequence->n_computed + n_tokens, block_size);

	assert(n_needed <= sequence->max_blocks);
	while (sequence->n_blocks < n_needed)
	{
		int32_t block_idx = llm_kv_blocks_take(planner->pool);
		int32_t n_room = sequence->n_blocks * block_size - sequence->n_computed;

		if (block_idx >= 0)
			sequence->blocks[sequence->n_blocks++] = block_idx;
		else if (n_room > 0)
			return n_room;
		else if (!preempt_for(planner, sequence))
		{
			planner->had_no_blocks = true;
			llm_planner_preempt(planner, sequence, sequence->rank);
			return 0;
		}
	}
	return n_tokens;
}

/*
 * Somebody else may have computed, meanwhile or earlier in this step, the
 * blocks that a sequence would compute next.
 */
static void
skip_cached(LlmPlanner *planner, LlmSequence *sequence)
{
	int32_t block_size = planner->config.block_size;
	int32_t max_hits = llm_sequence_reusable(sequence) / block_size;

	if (sequence->digests == NULL ||
		sequence->n_computed != sequence->n_blocks * block_size)
		return;
	while (sequence->n_blocks < max_hits)
	{
		int32_t block_idx = llm_kv_blocks_find(
			planner->pool,
			llm_sequence_digest(sequence, sequence->n_blocks, block_size));

		if (block_idx < 0)
			break;
		llm_kv_blocks_share(planner->pool, block_idx);
		sequence->blocks[sequence->n_blocks++] = block_idx;
		sequence->n_computed += block_size;
		sequence->n_published++;
	}
}

/*
 * Offer the blocks that are full once the step is done, and whose contents are
 * known, to the prefix cache.
 */
static void
publish(LlmPlanner *planner, LlmSequence *sequence)
{
	int32_t block_size = planner->config.block_size;
	int32_t n_known = llm_sequence_n_known(sequence);
	int32_t n_end = sequence->n_computed + sequence->n_planned;
	int32_t n_full = (n_end < n_known ? n_end : n_known) / block_size;

	if (sequence->digests == NULL)
		return;
	if (planner->config.separates_phases &&
		n_full > sequence->n_prompt / block_size)
		n_full = sequence->n_prompt / block_size;
	for (; sequence->n_published < n_full; sequence->n_published++)
		llm_kv_blocks_publish(
			planner->pool, sequence->blocks[sequence->n_published],
			llm_sequence_digest(sequence, sequence->n_published, block_size));
}

/* What is computed for the first time is paid for; recomputing is free. */
static void
charge(LlmSequence *sequence)
{
	int32_t from = sequence->n_charged > sequence->n_computed
					   ? sequence->n_charged
					   : sequence->n_computed;
	int32_t end = sequence->n_computed + sequence->n_planned;

	if (end > from)
		sequence->tenant->served_tokens += (uint64_t) (end - from);
	if (end > sequence->n_charged)
		sequence->n_charged = end;
}

/*
 * Of so many next tokens, those whose logit rows find room: one row is there
 * for every sequence.
 */
static int32_t
limit_rows(const LlmPlanner *planner, const LlmSequence *sequence,
		   int32_t n_tokens)
{
	int32_t n_before = sequence->first_row > sequence->n_computed
						   ? sequence->first_row - sequence->n_computed
						   : 0;
	int64_t n_most = (int64_t) n_before + 1 + planner->n_rows_left;

	return n_tokens < n_most ? n_tokens : (int32_t) n_most;
}

/* How many logit rows the planned tokens have. */
static int32_t
count_rows(const LlmSequence *sequence)
{
	int32_t end = sequence->n_computed + sequence->n_planned;
	int32_t first = sequence->first_row > sequence->n_computed
						? sequence->first_row
						: sequence->n_computed;

	if (sequence->first_row == INT32_MAX)
		return end == sequence->n_tokens;
	return end > first ? end - first : 0;
}

/* Does the step compute such tokens as the sequence's next one? */
static bool
is_in_phase(const LlmPlanner *planner, const LlmSequence *sequence)
{
	return planner->phase == LLM_PHASE_ANY ||
		   llm_sequence_is_in_prompt(sequence) ==
			   (planner->phase == LLM_PHASE_PROMPTS);
}

/* Tokens of the sequence that the step may have. */
static int32_t
n_left_in_phase(const LlmPlanner *planner, const LlmSequence *sequence)
{
	int32_t n_left = llm_sequence_n_left(sequence);
	int32_t n_prompt_left = sequence->n_prompt - sequence->n_computed;

	if (planner->phase == LLM_PHASE_PROMPTS && n_left > n_prompt_left)
		return n_prompt_left > 0 ? n_prompt_left : 0;
	if (planner->phase == LLM_PHASE_OUTPUTS && n_left > 1)
		return 1;
	return n_left;
}

void
llm_planner_schedule(LlmPlanner *planner, LlmSequence *sequence)
{
	int32_t n_limit = sequence->is_reserved
						  ? 1
						  : planner->n_tokens_left - planner->n_tokens_reserved;
	int32_t n_tokens;

	assert(sequence->state == LLM_SEQUENCE_RUNNING);
	assert(sequence->n_planned == 0);
	assert(planner->n_tokens_left >= planner->n_tokens_reserved);
	assert(sequence->n_tokens < sequence->max_tokens ||
		   sequence->max_tokens == sequence->n_prompt ||
		   sequence->is_expecting);

	if (n_limit <= 0 || llm_sequence_n_left(sequence) == 0 ||
		!is_in_phase(planner, sequence))
		return;
	if (!sequence->is_reserved)
		skip_cached(planner, sequence);
	n_tokens = n_left_in_phase(planner, sequence);
	n_tokens =
		limit_rows(planner, sequence, n_tokens < n_limit ? n_tokens : n_limit);
	n_tokens = grow(planner, sequence, n_tokens);
	if (n_tokens == 0)
		return;

	sequence->n_planned = n_tokens;
	sequence->n_rows = count_rows(sequence);
	if (sequence->n_rows > 1)
		planner->n_rows_left -= sequence->n_rows - 1;
	sequence->last_planned_us = planner->now_us;
	sequence->last_planned_step = planner->n_steps;
	planner->planned[planner->n_planned++] = sequence;
	planner->n_tokens_left -= n_tokens;
	if (sequence->is_reserved)
		planner->n_tokens_reserved--;
	sequence->is_reserved = false;
	charge(sequence);
	publish(planner, sequence);
}

/* Keep a token for everyone who decodes. */
static void
reserve_tokens(LlmPlanner *planner)
{
	planner->n_tokens_left = planner->config.max_num_batched_tokens;
	planner->n_tokens_reserved = 0;
	for (int rank = 0; rank < LLM_N_RANKS; rank++)
	{
		const LlmRunningList *list = &planner->running[rank];

		for (int32_t i = 0; i < list->n; i++)
		{
			LlmSequence *sequence = list->sequences[i];

			sequence->is_reserved = is_in_phase(planner, sequence) &&
									n_left_in_phase(planner, sequence) == 1;
			planner->n_tokens_reserved += sequence->is_reserved;
		}
	}
}

/*
 * A running batch sequence that prompts of higher rank have kept from its
 * turn for too long gets that rank.
 */
static void
raise_starved(LlmPlanner *planner)
{
	LlmRunningList *low = &planner->running[LLM_RANK_LOW];
	uint64_t n_turns = planner->config.separates_phases ? 2 : 1;

	for (int32_t i = 0; i < low->n; i++)
	{
		LlmSequence *sequence = low->sequences[i];

		/* a step may take longer than the aging time: that is no starving */
		if (sequence->last_planned_step + n_turns >= planner->n_steps ||
			llm_sequence_n_left(sequence) == 0 ||
			planner->now_us - sequence->last_planned_us <
				planner->config.aging_us)
			continue;
		llm_planner_unseat(planner, sequence);
		sequence->rank = LLM_RANK_HIGH;
		llm_planner_seat(planner, sequence);
		i--;
	}
}

static void
schedule_running(LlmPlanner *planner, LlmRank rank)
{
	const LlmRunningList *list = &planner->running[rank];

	for (int32_t i = 0; i < list->n; i++)
		llm_planner_schedule(planner, list->sequences[i]);
}

static bool
has_outputs_left(const LlmPlanner *planner)
{
	for (int rank = 0; rank < LLM_N_RANKS; rank++)
	{
		const LlmRunningList *list = &planner->running[rank];

		for (int32_t i = 0; i < list->n; i++)
			if (!llm_sequence_is_in_prompt(list->sequences[i]) &&
				llm_sequence_n_left(list->sequences[i]) > 0)
				return true;
	}
	return false;
}

/* Prompts and outputs take turns where there are both. */
static LlmPhase
next_phase(const LlmPlanner *planner)
{
	if (!planner->config.separates_phases)
		return LLM_PHASE_ANY;
	return planner->phase == LLM_PHASE_PROMPTS && has_outputs_left(planner)
			   ? LLM_PHASE_OUTPUTS
			   : LLM_PHASE_PROMPTS;
}

static void
plan_phase(LlmPlanner *planner, LlmPhase phase)
{
	planner->phase = phase;
	planner->n_planned = 0;
	planner->had_no_blocks = false;
	reserve_tokens(planner);

	planner->n_rows_left = planner->config.max_num_seqs -
						   llm_planner_n_running(planner) -
						   planner->waiting.n_waiting[LLM_RANK_HIGH] -
						   planner->waiting.n_waiting[LLM_RANK_LOW];
	if (planner->n_rows_left < 0)
		planner->n_rows_left = 0;

	schedule_running(planner, LLM_RANK_HIGH);
	if (phase != LLM_PHASE_OUTPUTS)
		llm_planner_admit_high(planner);
	schedule_running(planner, LLM_RANK_LOW);
	if (phase != LLM_PHASE_OUTPUTS)
		llm_planner_admit_low(planner);
	assert(planner->n_tokens_reserved == 0);
}

const LlmPlannedStep *
llm_planner_plan(LlmPlanner *planner, int64_t now_us)
{
	LlmPhase phase = next_phase(planner);

	assert(!planner->is_step_open);

	planner->now_us = now_us;
	raise_starved(planner);
	plan_phase(planner, phase);
	if (planner->n_planned == 0 && phase == LLM_PHASE_PROMPTS)
		plan_phase(planner, LLM_PHASE_OUTPUTS);
	if (planner->n_planned == 0)
		return NULL;
	planner->is_step_open = true;
	llm_planner_fill_step(planner);
	return &planner->step;
}

void
llm_planner_commit(LlmPlanner *planner)
{
	assert(planner->is_step_open);

	for (int32_t i = 0; i < planner->n_planned; i++)
	{
		LlmSequence *sequence = planner->planned[i];

		sequence->n_computed += sequence->n_planned;
		sequence->n_planned = 0;
		assert(sequence->n_computed <= sequence->n_tokens);
	}
	planner->n_planned = 0;
	planner->is_step_open = false;
	planner->n_steps++;
}

/* What was published of blocks that only the planned step would have filled. */
static void
retract(LlmPlanner *planner, const LlmSequence *sequence)
{
	for (int32_t i = sequence->n_computed / planner->config.block_size;
		 i < sequence->n_published; i++)
		llm_kv_blocks_retract(planner->pool, sequence->blocks[i]);
}

void
llm_planner_withdraw(LlmPlanner *planner)
{
	assert(planner->is_step_open);

	for (int32_t i = 0; i < planner->n_planned; i++)
	{
		retract(planner, planner->planned[i]);
		planner->planned[i]->n_planned = 0;
	}
	planner->n_planned = 0;
	planner->is_step_open = false;
	/* also who shares such a block, and is not planned: all of them */
	for (int rank = 0; rank < LLM_N_RANKS; rank++)
	{
		const LlmRunningList *list = &planner->running[rank];

		while (list->n > 0)
			llm_planner_preempt(planner, list->sequences[list->n - 1],
								(LlmRank) rank);
	}
}

/*
 * The sequence has outgrown what its keys are rotated for: it keeps its seat,
 * and is a prompt again.
 */
static void
restart(LlmPlanner *planner, LlmSequence *sequence)
{
	drop_blocks(planner, sequence);
	llm_sequence_rotate(sequence, sequence->n_tokens, &planner->config);
	planner->n_restarts++;
}

void
llm_planner_expect(LlmPlanner *planner, LlmSequence *sequence, int32_t row)
{
	assert(!planner->is_step_open);
	assert(sequence->state == LLM_SEQUENCE_RUNNING);
	assert(sequence->n_computed == sequence->n_tokens);
	assert(sequence->n_tokens < sequence->max_tokens);
	assert(!sequence->is_expecting);

	sequence->ids[sequence->n_tokens++] = LLM_DRAWN_TOKEN(row);
	sequence->is_expecting = true;
	if (planner->config.rope_restarts && sequence->rope_len == 0 &&
		sequence->n_tokens > planner->config.rope_short_len)
		restart(planner, sequence);
}

void
llm_planner_settle(LlmPlanner *planner, LlmSequence *sequence, int32_t token_id)
{
	assert(!planner->is_step_open);
	assert(sequence->is_expecting);

	sequence->ids[sequence->n_tokens - 1] = token_id;
	sequence->is_expecting = false;
	planner->n_generated_tokens++;
	/* a step that computes it may be under way */
	publish(planner, sequence);
}

void
llm_planner_append(LlmPlanner *planner, LlmSequence *sequence, int32_t token_id)
{
	llm_planner_expect(planner, sequence, 0);
	llm_planner_settle(planner, sequence, token_id);
}

void
llm_planner_stats(const LlmPlanner *planner, LlmPlannerStats *stats)
{
	stats->n_waiting = planner->waiting.n_waiting[LLM_RANK_HIGH] +
					   planner->waiting.n_waiting[LLM_RANK_LOW];
	stats->n_running = llm_planner_n_running(planner);
	stats->n_free_blocks = llm_kv_blocks_n_free(planner->pool);
	stats->n_blocks = planner->config.n_blocks;
	stats->n_prompt_tokens = planner->n_prompt_tokens;
	stats->n_cached_tokens = planner->n_cached_tokens;
	stats->n_generated_tokens = planner->n_generated_tokens;
	stats->n_preemptions = planner->n_preemptions;
	stats->n_restarts = planner->n_restarts;
	stats->n_steps = planner->n_steps;
}
