/*
 * grammar_mask.c
 *	  Which tokens may follow a config: the trie walked with the machine.
 *
 * A walk over the whole trie of a large vocabulary takes a millisecond or two
 * where most tokens are allowed (inside a string), too long for every step.
 * But a token hardly ever looks further down the stack than the rule that it
 * is in.  So a config's threads are split at their topmost call: the part
 * above, the threads on an empty stack, is a config of its own, the same one
 * for every place that calls the rule.  Its walk is done once: the tokens it
 * allows, and the nodes at which its rule has ended (exits).  A mask is then
 * the union of its parts' tokens, and of what the caller's config allows
 * below each exit, mostly short ends such as what follows a closing quote.
 *
 * A repetition's count belongs to the part, or every mask within a long
 * bounded string would be a new one; but only its distance from the bounds
 * matters, up to the length of the longest token (part_count).
 *
 * Masks that were dear are remembered by config, parts by theirs.
 *
 * src/common/grammar/grammar_mask.c
 */
#include "src/common/grammar/grammar_mask.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A mask that visited fewer nodes is as quickly computed as found. */
#define DEAR_NODES 256

typedef struct Part
{
	uint32_t *mask;	 /* tokens allowed whatever is below the rule */
	uint32_t *exits; /* nodes with children at which the rule may have ended */
	uint32_t n_exits;
	uint32_t exit_capacity;
	uint32_t reach; /* most depth + height that its walk met */
} Part;

struct LlmGrammarMasks
{
	Part *parts;
	uint32_t n_parts;
	uint32_t part_capacity;
	uint32_t **masks;
	uint32_t n_masks;
	uint32_t mask_capacity;
	size_t n_bytes;
};

LlmGrammarMasks *
llm_grammar_masks_create(LlmError *err)
{
	LlmGrammarMasks *masks = calloc(1, sizeof(*masks));

	if (masks == NULL)
		llm_error_no_memory(err, sizeof(*masks), "grammar masks");
	return masks;
}

static void
forget(LlmGrammarMasks *masks)
{
	for (uint32_t i = 0; i < masks->n_parts; i++)
	{
		free(masks->parts[i].mask);
		free(masks->parts[i].exits);
	}
	for (uint32_t i = 0; i < masks->n_masks; i++)
		free(masks->masks[i]);
	masks->n_parts = 0;
	masks->n_masks = 0;
	masks->n_bytes = 0;
}

void
llm_grammar_masks_forget(LlmGrammar *grammar)
{
	forget(grammar->masks);
}

void
llm_grammar_masks_free(LlmGrammarMasks *masks)
{
	if (masks == NULL)
		return;
	forget(masks);
	free(masks->parts);
	free(masks->masks);
	free(masks);
}

size_t
llm_grammar_masks_bytes(const LlmGrammar *grammar)
{
	return grammar->masks == NULL ? 0 : grammar->masks->n_bytes;
}

static bool
fail_memory(LlmGrammar *grammar, size_t n_bytes)
{
	return llm_error_no_memory(grammar->err, n_bytes, "grammar masks");
}

/* -- walks -- */

typedef struct Walk
{
	LlmGrammar *grammar;
	uint32_t *mask;
	Part *part; /* collects exits; NULL: none */
	size_t n_visited;
} Walk;

static inline void
set_tokens(const LlmGrammarVocab *vocab, uint32_t *mask, uint32_t token)
{
	int32_t id = (int32_t) token;

	mask[token / 32] |= 1u << token % 32;
	if (vocab->next_same[id] < 0)
		return;
	while ((id = vocab->next_same[id]) >= 0)
		mask[id / 32] |= 1u << id % 32;
}

static bool
add_exit(Walk *walk, uint32_t node)
{
	Part *part = walk->part;

	if (part->n_exits == part->exit_capacity)
	{
		uint32_t capacity = part->n_exits == 0 ? 64 : 2 * part->n_exits;
		uint32_t *exits = realloc(part->exits, capacity * sizeof(uint32_t));

		if (exits == NULL)
			return fail_memory(walk->grammar, capacity * sizeof(uint32_t));
		part->exits = exits;
		part->exit_capacity = capacity;
	}
	part->exits[part->n_exits++] = node;
	return true;
}

/* The nodes below "top", which the text reaches in a config. */
static bool
walk_below(Walk *walk, uint32_t top, uint32_t config)
{
	LlmGrammar *grammar = walk->grammar;
	const LlmGrammarNode *nodes = grammar->vocab->nodes;
	uint32_t end = llm_grammar_node_end(&nodes[top]);
	uint32_t base = llm_grammar_node_depth(&nodes[top]);
	uint32_t configs[LLM_GRAMMAR_MAX_TOKEN_BYTES + 1]; /* by depth */
	uint32_t node = top + 1;

	configs[base] = config;
	while (node < end)
	{
		uint32_t depth = llm_grammar_node_depth(&nodes[node]);
		uint32_t node_end = llm_grammar_node_end(&nodes[node]);
		uint32_t token = llm_grammar_node_token(&nodes[node]);
		uint32_t next = llm_grammar_machine_step(
			grammar, configs[depth - 1], llm_grammar_node_byte(&nodes[node]));

		walk->n_visited++;
		if (walk->part != NULL &&
			grammar->memory.configs[configs[depth - 1]].reach >
				walk->part->reach)
			walk->part->reach =
				grammar->memory.configs[configs[depth - 1]].reach;
		if (next == LLM_GRAMMAR_DEAD)
		{
			node = node_end;
			continue;
		}
		if (next == LLM_GRAMMAR_FAILED)
			return false;
		configs[depth] = next;
		if (token != LLM_GRAMMAR_NO_TOKEN)
			set_tokens(grammar->vocab, walk->mask, token);
		if (walk->part != NULL && node + 1 < node_end &&
			grammar->memory.configs[next].may_end && !add_exit(walk, node))
			return false;
		node++;
	}
	return true;
}

/* -- parts -- */

/*
 * The least count from which a repetition looks the same to any token: no
 * token ends more runs than it has bytes.
 */
static uint32_t
part_count(const LlmGrammar *grammar, const LlmGrammarFrame *frame)
{
	uint32_t reach = grammar->vocab->max_token_bytes;
	uint32_t min = grammar->words[frame->call + 3];
	uint32_t max = grammar->words[frame->call + 4];

	if (frame->count < min && min - frame->count > reach)
		return 0;
	if (frame->count >= min &&
		(max == LLM_GRAMMAR_UNBOUNDED || max - frame->count > reach))
		return min;
	return frame->count;
}

static bool
is_call(const LlmGrammar *grammar, uint32_t frame)
{
	uint32_t call = grammar->memory.frames[frame].call;

	return frame == 0 ||
		   llm_grammar_op(grammar->words[call]) == LLM_GRAMMAR_CALL;
}

/* The topmost call of a stack, or its bottom. */
static uint32_t
topmost_call(const LlmGrammar *grammar, uint32_t frame)
{
	while (!is_call(grammar, frame))
		frame = grammar->memory.frames[frame].parent;
	return frame;
}

/* The stack above its topmost call, on an empty one; FAILED. */
static uint32_t
cut_stack(LlmGrammar *grammar, uint32_t frame)
{
	uint32_t chain[LLM_GRAMMAR_MAX_DEPTH];
	uint32_t n = 0;
	uint32_t cut = 0;

	for (; !is_call(grammar, frame);
		 frame = grammar->memory.frames[frame].parent)
		chain[n++] = frame;
	while (n > 0 && cut != LLM_GRAMMAR_FAILED)
	{
		LlmGrammarFrame from = grammar->memory.frames[chain[--n]];

		cut = llm_grammar_machine_frame(grammar, from.call,
										part_count(grammar, &from), cut);
	}
	return cut;
}

/* Memory for one more element of a list of pointers or parts. */
static bool
grow_list(LlmGrammar *grammar, void **list, uint32_t n, uint32_t *capacity,
		  size_t element_bytes)
{
	uint32_t wanted = *capacity == 0 ? 16 : 2 * *capacity;
	void *grown;

	if (n < *capacity)
		return true;
	grown = realloc(*list, wanted * element_bytes);
	if (grown == NULL)
		return fail_memory(grammar, wanted * element_bytes);
	*list = grown;
	*capacity = wanted;
	return true;
}

/* The part that a config is; UNKNOWN: failed. */
static uint32_t
get_part(LlmGrammar *grammar, uint32_t config, Walk *cost)
{
	LlmGrammarMasks *masks = grammar->masks;
	size_t n_words = llm_grammar_vocab_n_mask_words(grammar->vocab);
	Part part = { 0 };
	Walk walk = { .grammar = grammar, .part = &part };

	if (grammar->memory.configs[config].part != LLM_GRAMMAR_UNKNOWN)
		return grammar->memory.configs[config].part;
	if (!grow_list(grammar, (void **) &masks->parts, masks->n_parts,
				   &masks->part_capacity, sizeof(Part)))
		return LLM_GRAMMAR_UNKNOWN;
	part.mask = calloc(n_words, sizeof(uint32_t));
	walk.mask = part.mask;
	if (part.mask == NULL)
	{
		fail_memory(grammar, n_words * sizeof(uint32_t));
		return LLM_GRAMMAR_UNKNOWN;
	}
	if (!walk_below(&walk, 0, config))
	{
		free(part.mask);
		free(part.exits);
		return LLM_GRAMMAR_UNKNOWN;
	}
	cost->n_visited += walk.n_visited;
	masks->n_bytes += sizeof(Part) + (n_words + part.exit_capacity) * 4;
	masks->parts[masks->n_parts] = part;
	grammar->memory.configs[config].part = masks->n_parts;
	return masks->n_parts++;
}

/*
 * One group of threads: those above the same call.  *is_deep is set instead
 * where the limit of depth, which a part does not see, comes into reach.
 */
static bool
add_group(Walk *walk, LlmGrammarThread *threads, uint32_t n_threads,
		  uint32_t call, bool *is_deep)
{
	LlmGrammar *grammar = walk->grammar;
	size_t n_words = llm_grammar_vocab_n_mask_words(grammar->vocab);
	uint32_t config =
		llm_grammar_machine_config(grammar, threads, n_threads, false);
	uint32_t number;
	uint32_t caller;
	Part *part;

	if (config == LLM_GRAMMAR_FAILED)
		return false;
	number = get_part(grammar, config, walk);
	if (number == LLM_GRAMMAR_UNKNOWN)
		return false;
	part = &grammar->masks->parts[number];
	if (grammar->memory.frames[call].depth + part->reach >
		LLM_GRAMMAR_MAX_DEPTH)
	{
		*is_deep = true;
		return true;
	}
	for (size_t i = 0; i < n_words; i++)
		walk->mask[i] |= part->mask[i];
	if (call == 0 || part->n_exits == 0)
		return true;
	caller = llm_grammar_machine_return(grammar, call);
	if (caller == LLM_GRAMMAR_FAILED)
		return false;
	for (uint32_t i = 0; i < part->n_exits; i++)
	{
		if (!walk_below(walk, part->exits[i], caller))
			return false;
	}
	walk->n_visited += n_words / 8 + part->n_exits;
	return true;
}

/* Equal neighbours of a sorted list once. */
static uint32_t
unique_threads(LlmGrammarThread *threads, uint32_t n)
{
	uint32_t n_unique = 0;

	for (uint32_t i = 0; i < n; i++)
	{
		bool known = false;

		for (uint32_t j = 0; j < n_unique && !known; j++)
			known = memcmp(&threads[j], &threads[i], sizeof(*threads)) == 0;
		if (!known)
			threads[n_unique++] = threads[i];
	}
	return n_unique;
}

static bool
add_groups(Walk *walk, uint32_t number, bool *is_deep)
{
	LlmGrammar *grammar = walk->grammar;
	LlmGrammarMemory *m = &grammar->memory;
	LlmGrammarConfig config = m->configs[number];
	LlmGrammarThread group[LLM_GRAMMAR_MAX_THREADS];
	uint32_t calls[LLM_GRAMMAR_MAX_THREADS];

	for (uint32_t i = 0; i < config.n_threads; i++)
		calls[i] =
			topmost_call(grammar, m->threads[config.first_thread + i].frame);
	for (uint32_t i = 0; i < config.n_threads; i++)
	{
		uint32_t call = calls[i];
		uint32_t n = 0;

		if (call == LLM_GRAMMAR_UNKNOWN)
			continue; /* in an earlier thread's group */
		for (uint32_t j = i; j < config.n_threads; j++)
		{
			LlmGrammarThread thread = m->threads[config.first_thread + j];

			if (calls[j] != call)
				continue;
			calls[j] = LLM_GRAMMAR_UNKNOWN;
			thread.frame = cut_stack(grammar, thread.frame);
			if (thread.frame == LLM_GRAMMAR_FAILED)
				return false;
			group[n++] = thread;
		}
		if (!add_group(walk, group, unique_threads(group, n), call, is_deep))
			return false;
	}
	return true;
}

static bool
remember(LlmGrammar *grammar, uint32_t config, const uint32_t *mask)
{
	LlmGrammarMasks *masks = grammar->masks;
	size_t n_bytes = llm_grammar_vocab_n_mask_words(grammar->vocab) * 4;

	if (!grow_list(grammar, (void **) &masks->masks, masks->n_masks,
				   &masks->mask_capacity, sizeof(uint32_t *)))
		return false;
	masks->masks[masks->n_masks] = malloc(n_bytes);
	if (masks->masks[masks->n_masks] == NULL)
		return fail_memory(grammar, n_bytes);
	memcpy(masks->masks[masks->n_masks], mask, n_bytes);
	masks->n_bytes += n_bytes + sizeof(uint32_t *);
	grammar->memory.configs[config].mask = masks->n_masks++;
	return true;
}

/* Without parts, from an empty mask. */
static bool
walk_all(Walk *walk, uint32_t config)
{
	memset(walk->mask, 0,
		   llm_grammar_vocab_n_mask_words(walk->grammar->vocab) * 4);
	return walk_below(walk, 0, config);
}

bool
llm_grammar_mask_compute(LlmGrammar *grammar, uint32_t config, uint32_t *mask)
{
	size_t n_bytes = llm_grammar_vocab_n_mask_words(grammar->vocab) * 4;
	uint32_t known = grammar->memory.configs[config].mask;
	Walk walk = { .grammar = grammar, .mask = mask };
	bool is_deep = false;

	if (known != LLM_GRAMMAR_UNKNOWN)
	{
		memcpy(mask, grammar->masks->masks[known], n_bytes);
		return true;
	}
	memset(mask, 0, n_bytes);
	if (!add_groups(&walk, config, &is_deep) ||
		(is_deep && !walk_all(&walk, config)))
		return false;
	return walk.n_visited < DEAR_NODES || remember(grammar, config, mask);
}
