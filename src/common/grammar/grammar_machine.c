/*
 * grammar_machine.c
 *	  A grammar made deterministic as it runs.
 *
 * A step takes a config's threads over a byte and follows what reads nothing
 * (the closure): splits, calls, repetitions and returns.  A thread enters a
 * state only if the shallowest way on from there fits LLM_GRAMMAR_MAX_DEPTH,
 * so every thread can still reach the end of the text, and a config without
 * threads that may not end does not exist.
 *
 * Work of one step is bounded (MAX_WORK): an ambiguous or hostile program
 * fails its own request with LLM_ERROR_LIMIT.
 *
 * src/common/grammar/grammar_machine.c
 */
#include "src/common/grammar/grammar_machine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/grammar/grammar_mask.h"

#define MAX_WORK 16384u
#define SEEN_SLOTS (2 * MAX_WORK)

/* More than this between two trims fails the call. */
#define MAX_CONFIGS (1u << 20)
#define MAX_GROWTH_BYTES ((size_t) 256 << 20)

static uint32_t
fail_memory(LlmGrammar *grammar, size_t n_bytes)
{
	llm_error_no_memory(grammar->err, n_bytes, "grammar");
	return LLM_GRAMMAR_FAILED;
}

static uint32_t
mix(uint32_t hash, uint32_t value)
{
	hash = (hash ^ value) * 0x9E3779B1u;
	return hash ^ (hash >> 15);
}

/* Make room for one more element of an array. */
static bool
grow(void **array, uint32_t n, uint32_t *capacity, size_t element_bytes)
{
	uint32_t wanted = *capacity == 0 ? 64 : *capacity * 2;
	void *grown;

	if (n < *capacity)
		return true;
	if (wanted <= n)
		wanted = n + n / 2;
	grown = realloc(*array, wanted * element_bytes);
	if (grown == NULL)
		return false;
	*array = grown;
	*capacity = wanted;
	return true;
}

/* -- frames and configs, each stored once -- */

static uint32_t
hash_frame(const LlmGrammarFrame *frame)
{
	return mix(mix(mix(1, frame->call), frame->count), frame->parent);
}

static uint32_t
hash_config(const LlmGrammarThread *threads, uint32_t n, bool may_end)
{
	uint32_t hash = mix(n, may_end);

	for (uint32_t i = 0; i < n; i++)
		hash = mix(mix(hash, threads[i].state), threads[i].frame);
	return hash;
}

static void
table_insert(LlmGrammarTable *table, uint32_t hash, uint32_t number)
{
	uint32_t slot = hash & (table->n_slots - 1);

	while (table->slots[slot] != LLM_GRAMMAR_UNKNOWN)
		slot = (slot + 1) & (table->n_slots - 1);
	table->slots[slot] = number;
}

/* Room for n numbers at a load of a half; hashes come from the memory. */
static bool
table_reserve(LlmGrammarTable *table, uint32_t n, const LlmGrammarMemory *m)
{
	LlmGrammarTable larger = { .n_slots = table->n_slots };

	if (n * 2 <= table->n_slots)
		return true;
	if (larger.n_slots == 0)
		larger.n_slots = 256;
	while (larger.n_slots < n * 2)
		larger.n_slots *= 2;
	larger.slots = malloc((size_t) larger.n_slots * sizeof(uint32_t));
	if (larger.slots == NULL)
		return false;
	memset(larger.slots, 0xFF, (size_t) larger.n_slots * sizeof(uint32_t));
	for (uint32_t i = 0; i < table->n_slots; i++)
	{
		uint32_t number = table->slots[i];

		if (number == LLM_GRAMMAR_UNKNOWN)
			continue;
		if (table == &m->frame_table)
			table_insert(&larger, hash_frame(&m->frames[number]), number);
		else
		{
			const LlmGrammarConfig *config = &m->configs[number];

			table_insert(&larger,
						 hash_config(m->threads + config->first_thread,
									 config->n_threads, config->may_end),
						 number);
		}
	}
	free(table->slots);
	*table = larger;
	return true;
}

uint32_t
llm_grammar_machine_frame(LlmGrammar *grammar, uint32_t call, uint32_t count,
						  uint32_t parent)
{
	LlmGrammarMemory *m = &grammar->memory;
	LlmGrammarFrame frame = { call, count, parent,
							  m->frames[parent].depth + 1 };
	uint32_t hash = hash_frame(&frame);
	uint32_t slot;

	if (!table_reserve(&m->frame_table, m->n_frames + 1, m) ||
		!grow((void **) &m->frames, m->n_frames, &m->frame_capacity,
			  sizeof(frame)))
		return fail_memory(grammar, m->n_frames * sizeof(frame));
	slot = hash & (m->frame_table.n_slots - 1);
	for (;;)
	{
		uint32_t number = m->frame_table.slots[slot];

		if (number == LLM_GRAMMAR_UNKNOWN)
			break;
		if (memcmp(&m->frames[number], &frame, sizeof(frame)) == 0)
			return number;
		slot = (slot + 1) & (m->frame_table.n_slots - 1);
	}
	m->frame_table.slots[slot] = m->n_frames;
	m->frames[m->n_frames] = frame;
	return m->n_frames++;
}

static int
compare_threads(const void *a, const void *b)
{
	const LlmGrammarThread *left = a;
	const LlmGrammarThread *right = b;

	if (left->state != right->state)
		return left->state < right->state ? -1 : 1;
	return left->frame < right->frame ? -1 : left->frame > right->frame;
}

static uint32_t
append_config(LlmGrammar *grammar, const LlmGrammarThread *threads,
			  uint32_t n_threads, bool may_end)
{
	LlmGrammarMemory *m = &grammar->memory;

	if (m->n_configs >= MAX_CONFIGS ||
		llm_grammar_machine_bytes(grammar) >
			grammar->cache_bytes + MAX_GROWTH_BYTES)
	{
		llm_error_set(grammar->err, LLM_ERROR_LIMIT,
					  "the grammar is too ambiguous: one token leads to more "
					  "than %u places",
					  m->n_configs);
		return LLM_GRAMMAR_FAILED;
	}
	if (!grow((void **) &m->configs, m->n_configs, &m->config_capacity,
			  sizeof(LlmGrammarConfig)) ||
		!grow((void **) &m->threads, m->n_threads + n_threads,
			  &m->thread_capacity, sizeof(LlmGrammarThread)))
		return fail_memory(grammar, m->n_configs * sizeof(LlmGrammarConfig));
	if (n_threads > 0)
		memcpy(m->threads + m->n_threads, threads,
			   n_threads * sizeof(LlmGrammarThread));
	m->configs[m->n_configs] = (LlmGrammarConfig){
		.first_thread = m->n_threads,
		.n_threads = n_threads,
		.may_end = may_end,
		.row = LLM_GRAMMAR_UNKNOWN,
		.mask = LLM_GRAMMAR_UNKNOWN,
		.part = LLM_GRAMMAR_UNKNOWN,
	};
	m->n_threads += n_threads;
	return m->n_configs++;
}

uint32_t
llm_grammar_machine_config(LlmGrammar *grammar, LlmGrammarThread *threads,
						   uint32_t n_threads, bool may_end)
{
	LlmGrammarMemory *m = &grammar->memory;
	uint32_t hash;
	uint32_t slot;
	uint32_t number;

	if (n_threads > 1)
		qsort(threads, n_threads, sizeof(LlmGrammarThread), compare_threads);
	hash = hash_config(threads, n_threads, may_end);
	if (!table_reserve(&m->config_table, m->n_configs + 1, m))
		return fail_memory(grammar, m->config_table.n_slots * 8);
	for (slot = hash & (m->config_table.n_slots - 1);
		 (number = m->config_table.slots[slot]) != LLM_GRAMMAR_UNKNOWN;
		 slot = (slot + 1) & (m->config_table.n_slots - 1))
	{
		const LlmGrammarConfig *config = &m->configs[number];

		if (config->n_threads == n_threads && config->may_end == may_end &&
			(n_threads == 0 ||
			 memcmp(m->threads + config->first_thread, threads,
					n_threads * sizeof(LlmGrammarThread)) == 0))
			return number;
	}
	number = append_config(grammar, threads, n_threads, may_end);
	if (number != LLM_GRAMMAR_FAILED)
		m->config_table.slots[slot] = number;
	return number;
}

/* -- the closure -- */

static void
closure_begin(LlmGrammarClosure *closure)
{
	/* clean what the last one left, not the whole table, where that is less */
	if (closure->n_work > SEEN_SLOTS / 16)
		memset(closure->seen, 0xFF, SEEN_SLOTS * sizeof(uint32_t));
	else
	{
		for (uint32_t i = 0; i < closure->n_work; i++)
		{
			uint32_t slot =
				mix(mix(1, closure->work[i].state), closure->work[i].frame) &
				(SEEN_SLOTS - 1);

			while (closure->seen[slot] != LLM_GRAMMAR_UNKNOWN)
			{
				closure->seen[slot] = LLM_GRAMMAR_UNKNOWN;
				slot = (slot + 1) & (SEEN_SLOTS - 1);
			}
		}
	}
	closure->n_work = 0;
	closure->reach = 0;
	closure->may_end = false;
}

/* Add a thread, unless it is known or leads nowhere.  False: too many. */
static bool
closure_add(LlmGrammar *grammar, uint32_t state, uint32_t frame)
{
	LlmGrammarClosure *closure = &grammar->closure;
	uint32_t slot = mix(mix(1, state), frame) & (SEEN_SLOTS - 1);
	uint32_t reach =
		grammar->memory.frames[frame].depth + grammar->heights[state];

	if (grammar->heights[state] == LLM_GRAMMAR_NO_HEIGHT)
		return true;
	if (reach > closure->reach)
		closure->reach = reach;
	if (reach > LLM_GRAMMAR_MAX_DEPTH)
		return true;
	while (closure->seen[slot] != LLM_GRAMMAR_UNKNOWN)
	{
		const LlmGrammarThread *known = &closure->work[closure->seen[slot]];

		if (known->state == state && known->frame == frame)
			return true;
		slot = (slot + 1) & (SEEN_SLOTS - 1);
	}
	if (closure->n_work == MAX_WORK)
		return llm_error_set(grammar->err, LLM_ERROR_LIMIT,
							 "the grammar is too ambiguous: more than %u ways "
							 "to read a text at once",
							 LLM_GRAMMAR_MAX_THREADS);
	closure->seen[slot] = closure->n_work;
	closure->work[closure->n_work++] = (LlmGrammarThread){ state, frame };
	return true;
}

/* Push a frame and enter its rule; beyond the depth there is no such way. */
static bool
closure_enter(LlmGrammar *grammar, uint32_t call, uint32_t count,
			  uint32_t parent)
{
	uint32_t frame;

	if (grammar->memory.frames[parent].depth >= LLM_GRAMMAR_MAX_DEPTH)
	{
		grammar->closure.reach = LLM_GRAMMAR_MAX_DEPTH + 1;
		return true;
	}
	frame = llm_grammar_machine_frame(grammar, call, count, parent);
	return frame != LLM_GRAMMAR_FAILED &&
		   closure_add(grammar, grammar->words[call + 1], frame);
}

/* The rule of the topmost frame has ended. */
static bool
closure_return(LlmGrammar *grammar, uint32_t number)
{
	const uint32_t *words = grammar->words;
	LlmGrammarFrame frame = grammar->memory.frames[number];
	uint32_t min;
	uint32_t max;
	uint32_t count;

	if (number == 0)
	{
		grammar->closure.may_end = true;
		return true;
	}
	if (llm_grammar_op(words[frame.call]) == LLM_GRAMMAR_CALL)
		return closure_add(grammar, words[frame.call + 2], frame.parent);
	min = words[frame.call + 3];
	max = words[frame.call + 4];
	count = frame.count + 1;
	if (max == LLM_GRAMMAR_UNBOUNDED && count > min)
		count = min; /* what is beyond makes no difference */
	return (count < min ||
			closure_add(grammar, words[frame.call + 2], frame.parent)) &&
		   (count >= max ||
			closure_enter(grammar, frame.call, count, frame.parent));
}

static bool
closure_follow(LlmGrammar *grammar, LlmGrammarThread thread)
{
	const uint32_t *words = grammar->words;
	uint32_t state = thread.state;

	switch (llm_grammar_op(words[state]))
	{
		case LLM_GRAMMAR_SPLIT:
			for (uint32_t i = 0; i < llm_grammar_count(words[state]); i++)
			{
				if (!closure_add(grammar, words[state + 1 + i], thread.frame))
					return false;
			}
			return true;
		case LLM_GRAMMAR_CALL:
			if (llm_grammar_is_tail(words, state))
				return closure_add(grammar, words[state + 1], thread.frame);
			return closure_enter(grammar, state, 0, thread.frame);
		case LLM_GRAMMAR_REPEAT:
			return (words[state + 3] > 0 ||
					closure_add(grammar, words[state + 2], thread.frame)) &&
				   closure_enter(grammar, state, 0, thread.frame);
		case LLM_GRAMMAR_RETURN:
			return closure_return(grammar, thread.frame);
		default:
			return true;
	}
}

/* Follow what was added; the config of the states that read. */
static uint32_t
closure_finish(LlmGrammar *grammar)
{
	LlmGrammarClosure *closure = &grammar->closure;
	LlmGrammarThread threads[LLM_GRAMMAR_MAX_THREADS];
	uint32_t n_threads = 0;

	for (uint32_t i = 0; i < closure->n_work; i++)
	{
		LlmGrammarThread thread = closure->work[i];

		if (llm_grammar_op(grammar->words[thread.state]) != LLM_GRAMMAR_BYTES)
		{
			if (!closure_follow(grammar, thread))
				return LLM_GRAMMAR_FAILED;
			continue;
		}
		if (n_threads == LLM_GRAMMAR_MAX_THREADS)
		{
			llm_error_set(grammar->err, LLM_ERROR_LIMIT,
						  "the grammar is too ambiguous: more than %u ways to "
						  "read a text at once",
						  LLM_GRAMMAR_MAX_THREADS);
			return LLM_GRAMMAR_FAILED;
		}
		threads[n_threads++] = thread;
	}
	return llm_grammar_machine_config(grammar, threads, n_threads,
									  closure->may_end);
}

static bool
add_behind_byte(LlmGrammar *grammar, LlmGrammarThread thread, uint8_t byte)
{
	const uint32_t *edges = grammar->words + thread.state + 1;
	uint32_t n_edges = llm_grammar_count(grammar->words[thread.state]);

	for (uint32_t i = 0; i < n_edges; i++, edges += 2)
	{
		if (byte >= (edges[0] & 0xFFu) && byte <= edges[0] >> 8 &&
			!closure_add(grammar, edges[1], thread.frame))
			return false;
	}
	return true;
}

static bool
give_row(LlmGrammar *grammar, uint32_t config)
{
	LlmGrammarMemory *m = &grammar->memory;
	size_t row_bytes = grammar->n_classes * sizeof(uint32_t);

	if (!grow((void **) &m->rows, m->n_rows, &m->row_capacity, row_bytes))
	{
		fail_memory(grammar, m->n_rows * row_bytes);
		return false;
	}
	memset(m->rows + (size_t) m->n_rows * grammar->n_classes, 0xFF, row_bytes);
	m->configs[config].row = m->n_rows++;
	return true;
}

uint32_t
llm_grammar_machine_compute(LlmGrammar *grammar, uint32_t number, uint8_t byte)
{
	LlmGrammarMemory *m = &grammar->memory;
	LlmGrammarConfig config = m->configs[number];
	uint32_t next;

	closure_begin(&grammar->closure);
	for (uint32_t i = 0; i < config.n_threads; i++)
	{
		if (!add_behind_byte(grammar, m->threads[config.first_thread + i],
							 byte))
			return LLM_GRAMMAR_FAILED;
	}
	next = closure_finish(grammar);
	if (next == LLM_GRAMMAR_FAILED)
		return next;
	if (config.row == LLM_GRAMMAR_UNKNOWN && !give_row(grammar, number))
		return LLM_GRAMMAR_FAILED;
	m->rows[(size_t) m->configs[number].row * grammar->n_classes +
			grammar->class_of[byte]] = next;
	if (m->configs[number].reach < grammar->closure.reach)
		m->configs[number].reach = grammar->closure.reach;
	return next;
}

uint32_t
llm_grammar_machine_return(LlmGrammar *grammar, uint32_t frame)
{
	closure_begin(&grammar->closure);
	if (!closure_return(grammar, frame))
		return LLM_GRAMMAR_FAILED;
	return closure_finish(grammar);
}

/* -- life -- */

/* Bytes are of one class where no edge of the program begins between them. */
static void
class_bytes(LlmGrammar *grammar)
{
	bool begins[257] = { true };
	uint32_t n = 0;

	for (size_t off = LLM_GRAMMAR_HEADER_WORDS; off < grammar->n_words;)
	{
		uint32_t word = grammar->words[off];

		switch (llm_grammar_op(word))
		{
			case LLM_GRAMMAR_BYTES:
				for (uint32_t i = 0; i < llm_grammar_count(word); i++)
				{
					uint32_t range = grammar->words[off + 1 + 2 * i];

					begins[range & 0xFFu] = true;
					begins[(range >> 8) + 1] = true;
				}
				off += 1 + 2 * (size_t) llm_grammar_count(word);
				break;
			case LLM_GRAMMAR_SPLIT:
				off += 1 + (size_t) llm_grammar_count(word);
				break;
			default:
				off += llm_grammar_op(word) == LLM_GRAMMAR_CALL		? 3
					   : llm_grammar_op(word) == LLM_GRAMMAR_REPEAT ? 5
																	: 1;
		}
	}
	for (uint32_t byte = 0; byte < 256; byte++)
	{
		if (begins[byte])
			grammar->byte_of[n++] = (uint8_t) byte;
		grammar->class_of[byte] = (uint8_t) (n - 1);
	}
	grammar->n_classes = n;
}

static void
memory_free(LlmGrammarMemory *m)
{
	free(m->frames);
	free(m->threads);
	free(m->configs);
	free(m->rows);
	free(m->frame_table.slots);
	free(m->config_table.slots);
	memset(m, 0, sizeof(*m));
}

/* The bottom frame, the dead config and the start. */
static bool
memory_begin(LlmGrammar *grammar)
{
	LlmGrammarMemory *m = &grammar->memory;

	if (!grow((void **) &m->frames, 0, &m->frame_capacity,
			  sizeof(LlmGrammarFrame)))
		return fail_memory(grammar, sizeof(LlmGrammarFrame)), false;
	m->frames[0] = (LlmGrammarFrame){ 0 };
	m->n_frames = 1;
	if (llm_grammar_machine_config(grammar, NULL, 0, false) ==
		LLM_GRAMMAR_FAILED)
		return false;
	closure_begin(&grammar->closure);
	if (!closure_add(grammar, grammar->words[LLM_GRAMMAR_WORD_ROOT], 0))
		return false;
	grammar->start = closure_finish(grammar);
	return grammar->start != LLM_GRAMMAR_FAILED;
}

bool
llm_grammar_machine_init(LlmGrammar *grammar)
{
	LlmGrammarClosure *closure = &grammar->closure;

	class_bytes(grammar);
	closure->work = malloc(MAX_WORK * sizeof(LlmGrammarThread));
	closure->seen = malloc(SEEN_SLOTS * sizeof(uint32_t));
	if (closure->work == NULL || closure->seen == NULL)
		return fail_memory(grammar, MAX_WORK * 16), false;
	memset(closure->seen, 0xFF, SEEN_SLOTS * sizeof(uint32_t));
	return memory_begin(grammar);
}

void
llm_grammar_machine_free(LlmGrammar *grammar)
{
	memory_free(&grammar->memory);
	free(grammar->closure.work);
	free(grammar->closure.seen);
}

size_t
llm_grammar_machine_bytes(const LlmGrammar *grammar)
{
	const LlmGrammarMemory *m = &grammar->memory;

	return m->frame_capacity * sizeof(LlmGrammarFrame) +
		   m->thread_capacity * sizeof(LlmGrammarThread) +
		   m->config_capacity * sizeof(LlmGrammarConfig) +
		   (size_t) m->row_capacity * grammar->n_classes * sizeof(uint32_t) +
		   ((size_t) m->frame_table.n_slots + m->config_table.n_slots) *
			   sizeof(uint32_t) +
		   llm_grammar_masks_bytes(grammar);
}

/* -- forgetting -- */

/* A stack of the old memory, rebuilt in the new one from the bottom up. */
static uint32_t
move_stack(LlmGrammar *grammar, const LlmGrammarMemory *old, uint32_t frame)
{
	uint32_t chain[LLM_GRAMMAR_MAX_DEPTH];
	uint32_t n = 0;
	uint32_t moved = 0;

	for (; frame != 0; frame = old->frames[frame].parent)
		chain[n++] = frame;
	while (n > 0 && moved != LLM_GRAMMAR_FAILED)
	{
		const LlmGrammarFrame *from = &old->frames[chain[--n]];

		moved =
			llm_grammar_machine_frame(grammar, from->call, from->count, moved);
	}
	return moved;
}

static bool
move_config(LlmGrammar *grammar, const LlmGrammarMemory *old, uint32_t *number)
{
	LlmGrammarConfig config = old->configs[*number];
	LlmGrammarThread threads[LLM_GRAMMAR_MAX_THREADS];
	uint32_t moved;

	for (uint32_t i = 0; i < config.n_threads; i++)
	{
		threads[i] = old->threads[config.first_thread + i];
		threads[i].frame = move_stack(grammar, old, threads[i].frame);
		if (threads[i].frame == LLM_GRAMMAR_FAILED)
			return false;
	}
	moved = llm_grammar_machine_config(grammar, threads, config.n_threads,
									   config.may_end);
	if (moved == LLM_GRAMMAR_FAILED)
		return false;
	*number = moved;
	return true;
}

/*
 * In two passes, so that lack of memory leaves every number as it was: the
 * first one proves that all fit (and finds each again in the second).
 */
static bool
move_matchers(LlmGrammar *grammar, const LlmGrammarMemory *old, bool commit)
{
	for (LlmGrammarMatcher *m = grammar->matchers; m != NULL; m = m->next)
	{
		for (uint32_t i = 0; i <= LLM_GRAMMAR_MAX_ROLLBACK; i++)
		{
			uint32_t *place =
				i == LLM_GRAMMAR_MAX_ROLLBACK ? &m->config : &m->history[i];
			uint32_t number = *place;

			if (!move_config(grammar, old, &number))
				return false;
			if (commit)
				*place = number;
		}
	}
	return true;
}

bool
llm_grammar_machine_trim(LlmGrammar *grammar)
{
	LlmGrammarMemory old = grammar->memory;
	uint32_t old_start = grammar->start;

	if (llm_grammar_machine_bytes(grammar) <= grammar->cache_bytes)
		return true;
	memset(&grammar->memory, 0, sizeof(grammar->memory));
	if (!memory_begin(grammar) || !move_matchers(grammar, &old, false) ||
		!move_matchers(grammar, &old, true))
	{
		memory_free(&grammar->memory);
		grammar->memory = old;
		grammar->start = old_start;
		return false;
	}
	memory_free(&old);
	llm_grammar_masks_forget(grammar);
	return true;
}
