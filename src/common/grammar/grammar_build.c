/*
 * grammar_build.c
 *	  Building a program, from its end to its start.
 *
 * src/common/grammar/grammar_build.c
 */
#include "src/common/grammar/grammar_build.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BUILD_BYTES ((size_t) 256 << 20)
#define LABEL_UNSET UINT32_MAX

/* Levels of recursion: each takes about a kilobyte of stack. */
#define MAX_LEVELS 2000u

typedef struct Node
{
	uint32_t word;		/* as in the program */
	uint32_t first_arg; /* in args */
	uint32_t n_args;
	bool is_label; /* a SPLIT of one; its target is set later */
} Node;

struct LlmGrammarBuilder
{
	LlmArena *arena;
	LlmError *err;
	bool failed;
	uint32_t depth; /* of recursion in progress */
	Node *nodes;
	uint32_t n_nodes;
	uint32_t node_capacity;
	uint32_t *args;
	uint32_t n_args;
	uint32_t arg_capacity;
	uint32_t *table; /* node ids by content; 0: empty */
	uint32_t n_slots;
};

LlmGrammarBuilder *
llm_grammar_builder_create(LlmError *err)
{
	LlmGrammarBuilder *b = calloc(1, sizeof(*b));

	if (b != NULL)
		b->arena = llm_arena_create("grammar", MAX_BUILD_BYTES);
	if (b == NULL || b->arena == NULL)
	{
		llm_error_no_memory(err, sizeof(*b), "grammar");
		free(b);
		return NULL;
	}
	b->err = err;
	b->n_nodes = 1; /* 0 is no node */
	return b;
}

void
llm_grammar_builder_free(LlmGrammarBuilder *b)
{
	if (b == NULL)
		return;
	llm_arena_free(b->arena);
	free(b->nodes);
	free(b->args);
	free(b->table);
	free(b);
}

bool
llm_grammar_failed(const LlmGrammarBuilder *b)
{
	return b->failed;
}

LlmError *
llm_grammar_err(LlmGrammarBuilder *b)
{
	b->failed = true;
	return b->err;
}

LlmGrammarNodeId
llm_grammar_fail(LlmGrammarBuilder *b, LlmErrorCode code, const char *fmt, ...)
{
	char message[LLM_ERROR_MESSAGE_BYTES];
	va_list args;

	if (b->failed)
		return 0;
	b->failed = true;
	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	llm_error_set(b->err, code, "%s", message);
	return 0;
}

void *
llm_grammar_alloc(LlmGrammarBuilder *b, size_t n_bytes)
{
	void *memory = b->failed ? NULL : llm_arena_alloc0(b->arena, n_bytes);

	if (memory == NULL)
		llm_grammar_fail(b, LLM_ERROR_LIMIT,
						 "grammar is too large: it needs more than %zu MiB to "
						 "compile",
						 MAX_BUILD_BYTES >> 20);
	return memory;
}

bool
llm_grammar_descend(LlmGrammarBuilder *b)
{
	if (!b->failed && b->depth >= MAX_LEVELS)
		llm_grammar_fail(b, LLM_ERROR_LIMIT,
						 "grammar is nested more than %u levels deep",
						 MAX_LEVELS);
	if (b->failed)
		return false;
	b->depth++;
	return true;
}

void
llm_grammar_ascend(LlmGrammarBuilder *b)
{
	assert(b->depth > 0);
	b->depth--;
}

/* -- nodes -- */

static uint32_t
hash_node(uint32_t word, const uint32_t *args, size_t n)
{
	uint32_t hash = word * 0x9E3779B1u;

	for (size_t i = 0; i < n; i++)
	{
		hash = (hash ^ args[i]) * 0x85EBCA6Bu;
		hash ^= hash >> 15;
	}
	return hash;
}

static void *
grown(LlmGrammarBuilder *b, void *array, uint32_t *capacity, uint32_t wanted,
	  size_t element_bytes)
{
	uint32_t larger = *capacity == 0 ? 256 : *capacity;
	void *result;

	if (wanted <= *capacity)
		return array;
	while (larger < wanted)
		larger *= 2;
	result = realloc(array, larger * element_bytes);
	if (result == NULL)
	{
		b->failed = true;
		llm_error_no_memory(b->err, larger * element_bytes, "grammar");
		return array;
	}
	*capacity = larger;
	return result;
}

/* The table at twice its size once it is half full. */
static void
reserve_table(LlmGrammarBuilder *b)
{
	uint32_t n_slots = b->n_slots == 0 ? 1024 : b->n_slots * 2;
	uint32_t *table;

	if (b->n_nodes * 2 < b->n_slots)
		return;
	table = calloc(n_slots, sizeof(uint32_t));
	if (table == NULL)
	{
		b->failed = true;
		llm_error_no_memory(b->err, n_slots * sizeof(uint32_t), "grammar");
		return;
	}
	for (uint32_t id = 1; id < b->n_nodes; id++)
	{
		const Node *node = &b->nodes[id];
		uint32_t slot;

		if (node->is_label)
			continue;
		slot = hash_node(node->word, b->args + node->first_arg, node->n_args) &
			   (n_slots - 1);
		while (table[slot] != 0)
			slot = (slot + 1) & (n_slots - 1);
		table[slot] = id;
	}
	free(b->table);
	b->table = table;
	b->n_slots = n_slots;
}

static LlmGrammarNodeId
append_node(LlmGrammarBuilder *b, uint32_t word, const uint32_t *args, size_t n)
{
	/* a node is a program's instruction, so the program's limit is enough */
	if (b->n_nodes >= LLM_GRAMMAR_MAX_WORDS ||
		b->n_args + n > 4 * (size_t) LLM_GRAMMAR_MAX_WORDS)
		return llm_grammar_fail(b, LLM_ERROR_LIMIT,
								"grammar is too large: more than %u words",
								LLM_GRAMMAR_MAX_WORDS);
	b->nodes =
		grown(b, b->nodes, &b->node_capacity, b->n_nodes + 1, sizeof(Node));
	b->args = grown(b, b->args, &b->arg_capacity, b->n_args + (uint32_t) n,
					sizeof(uint32_t));
	if (b->failed)
		return 0;
	if (n > 0)
		memcpy(b->args + b->n_args, args, n * sizeof(uint32_t));
	b->nodes[b->n_nodes] = (Node){ word, b->n_args, (uint32_t) n, false };
	b->n_args += (uint32_t) n;
	return b->n_nodes++;
}

/* The node of this content, an old one if there is one. */
static LlmGrammarNodeId
get_node(LlmGrammarBuilder *b, uint32_t word, const uint32_t *args, size_t n)
{
	uint32_t slot;
	LlmGrammarNodeId id;

	if (!b->failed)
		reserve_table(b);
	if (b->failed)
		return 0;
	slot = hash_node(word, args, n) & (b->n_slots - 1);
	for (; b->table[slot] != 0; slot = (slot + 1) & (b->n_slots - 1))
	{
		const Node *node = &b->nodes[b->table[slot]];

		if (node->word == word && node->n_args == n &&
			(n == 0 || memcmp(b->args + node->first_arg, args,
							  n * sizeof(uint32_t)) == 0))
			return b->table[slot];
	}
	id = append_node(b, word, args, n);
	b->table[slot] = id;
	return id;
}

LlmGrammarNodeId
llm_grammar_build_edges(LlmGrammarBuilder *b, const uint32_t *edges, size_t n)
{
	return get_node(b, LLM_GRAMMAR_BYTES | (uint32_t) n << 8, edges, 2 * n);
}

LlmGrammarNodeId
llm_grammar_build_never(LlmGrammarBuilder *b)
{
	return llm_grammar_build_edges(b, NULL, 0);
}

LlmGrammarNodeId
llm_grammar_build_return(LlmGrammarBuilder *b)
{
	return get_node(b, LLM_GRAMMAR_RETURN, NULL, 0);
}

LlmGrammarNodeId
llm_grammar_build_bytes(LlmGrammarBuilder *b, uint8_t low, uint8_t high,
						LlmGrammarNodeId next)
{
	uint32_t edge[2] = { low | (uint32_t) high << 8, next };

	assert(low <= high);
	return llm_grammar_build_edges(b, edge, 1);
}

LlmGrammarNodeId
llm_grammar_build_text(LlmGrammarBuilder *b, const char *text, size_t len,
					   LlmGrammarNodeId next)
{
	while (len-- > 0)
		next = llm_grammar_build_bytes(b, (uint8_t) text[len],
									   (uint8_t) text[len], next);
	return next;
}

LlmGrammarNodeId
llm_grammar_build_split(LlmGrammarBuilder *b, const LlmGrammarNodeId *targets,
						size_t n)
{
	if (n == 0)
		return llm_grammar_build_never(b);
	if (n == 1)
		return targets[0];
	return get_node(b, LLM_GRAMMAR_SPLIT | (uint32_t) n << 8, targets, n);
}

LlmGrammarNodeId
llm_grammar_build_or(LlmGrammarBuilder *b, LlmGrammarNodeId left,
					 LlmGrammarNodeId right)
{
	LlmGrammarNodeId both[2] = { left, right };

	return left == right ? left : llm_grammar_build_split(b, both, 2);
}

LlmGrammarNodeId
llm_grammar_build_call(LlmGrammarBuilder *b, LlmGrammarNodeId target,
					   LlmGrammarNodeId next)
{
	uint32_t args[2] = { target, next };

	return get_node(b, LLM_GRAMMAR_CALL, args, 2);
}

LlmGrammarNodeId
llm_grammar_build_repeat(LlmGrammarBuilder *b, LlmGrammarNodeId target,
						 uint32_t min, uint32_t max, LlmGrammarNodeId next)
{
	uint32_t args[4] = { target, next, min, max };

	assert(min <= max);
	if (max == 0)
		return next;
	return get_node(b, LLM_GRAMMAR_REPEAT, args, 4);
}

LlmGrammarNodeId
llm_grammar_build_label(LlmGrammarBuilder *b)
{
	uint32_t unset = LABEL_UNSET;
	LlmGrammarNodeId id;

	if (b->failed)
		return 0;
	id = append_node(b, LLM_GRAMMAR_SPLIT | 1u << 8, &unset, 1);
	if (id != 0)
		b->nodes[id].is_label = true;
	return id;
}

void
llm_grammar_set_label(LlmGrammarBuilder *b, LlmGrammarNodeId label,
					  LlmGrammarNodeId target)
{
	if (b->failed)
		return;
	assert(b->nodes[label].is_label);
	assert(b->args[b->nodes[label].first_arg] == LABEL_UNSET);
	b->args[b->nodes[label].first_arg] = target;
}

/* -- choices -- */

static int
compare_texts(const void *a, const void *b)
{
	const LlmGrammarToken *left = a;
	const LlmGrammarToken *right = b;
	size_t len = left->len < right->len ? left->len : right->len;
	int order = len == 0 ? 0 : memcmp(left->bytes, right->bytes, len);

	if (order != 0)
		return order;
	return left->len < right->len ? -1 : left->len > right->len;
}

/* Texts first .. last - 1 agree in their first "at" bytes. */
static LlmGrammarNodeId
build_trie(LlmGrammarBuilder *b, const LlmGrammarToken *texts, size_t n,
		   size_t at, LlmGrammarNodeId next)
{
	uint32_t edges[512];
	size_t n_edges = 0;
	size_t shared = at;
	bool ends = false;
	LlmGrammarNodeId node;

	/* go over what all share in a loop: recursion is per branch */
	while (n > 0 && texts[0].len > shared && texts[n - 1].len > shared &&
		   texts[0].bytes[shared] == texts[n - 1].bytes[shared])
		shared++;
	for (size_t i = 0; i < n && !b->failed;)
	{
		size_t end = i;

		if (texts[i].len == shared)
		{
			ends = true;
			i++;
			continue;
		}
		while (end < n && texts[end].len > shared &&
			   texts[end].bytes[shared] == texts[i].bytes[shared])
			end++;
		edges[n_edges * 2] = (uint8_t) texts[i].bytes[shared] * 0x101u;
		edges[n_edges++ * 2 + 1] =
			build_trie(b, texts + i, end - i, shared + 1, next);
		i = end;
	}
	if (n_edges == 0)
		node = next;
	else
	{
		node = llm_grammar_build_edges(b, edges, n_edges);
		if (ends)
			node = llm_grammar_build_or(b, node, next);
	}
	return llm_grammar_build_text(b, texts[0].bytes + at, shared - at, node);
}

LlmGrammarNodeId
llm_grammar_build_choice(LlmGrammarBuilder *b, LlmGrammarToken *texts, size_t n,
						 LlmGrammarNodeId next)
{
	size_t longest = 0;

	if (n == 0)
		return llm_grammar_build_never(b);
	qsort(texts, n, sizeof(*texts), compare_texts);
	for (size_t i = 0; i < n; i++)
		longest = texts[i].len > longest ? texts[i].len : longest;
	/* each level of recursion has a kilobyte or two, one per shared byte */
	if (n > 1 && longest > 1024)
		return llm_grammar_fail(b, LLM_ERROR_LIMIT,
								"a choice of %zu texts has one of %zu bytes, "
								"the limit is 1024",
								n, longest);
	return build_trie(b, texts, n, 0, next);
}

/* -- layout -- */

/* Labels stand for their targets; one that leads to itself is left. */
static LlmGrammarNodeId
resolve(const LlmGrammarBuilder *b, LlmGrammarNodeId id)
{
	for (uint32_t i = 0; i < b->n_nodes && b->nodes[id].is_label; i++)
		id = b->args[b->nodes[id].first_arg];
	return id;
}

/* Arguments of a node that name nodes: from, step, count. */
static uint32_t
target_args(const Node *node, uint32_t *from, uint32_t *step)
{
	*from = 0;
	*step = 1;
	switch (llm_grammar_op(node->word))
	{
		case LLM_GRAMMAR_BYTES:
			*from = 1;
			*step = 2;
			return node->n_args / 2;
		case LLM_GRAMMAR_SPLIT:
			return node->n_args;
		case LLM_GRAMMAR_CALL:
		case LLM_GRAMMAR_REPEAT:
			return 2;
		default:
			return 0;
	}
}

/* Give reachable nodes their offsets, in order of discovery. */
static uint32_t
lay_out(const LlmGrammarBuilder *b, LlmGrammarNodeId root, uint32_t *offsets,
		LlmGrammarNodeId *order)
{
	uint32_t n_order = 0;
	uint32_t off = LLM_GRAMMAR_HEADER_WORDS;

	offsets[root] = off;
	order[n_order++] = root;
	for (uint32_t i = 0; i < n_order; i++)
	{
		const Node *node = &b->nodes[order[i]];
		uint32_t from;
		uint32_t step;
		uint32_t n = target_args(node, &from, &step);

		offsets[order[i]] = off;
		off += 1 + node->n_args;
		for (uint32_t j = 0; j < n; j++)
		{
			LlmGrammarNodeId target =
				resolve(b, b->args[node->first_arg + from + j * step]);

			if (offsets[target] != 0)
				continue;
			offsets[target] = UINT32_MAX; /* found, placed later */
			order[n_order++] = target;
		}
	}
	order[n_order] = 0;
	return off;
}

static void
write_words(const LlmGrammarBuilder *b, const uint32_t *offsets,
			const LlmGrammarNodeId *order, uint32_t *words)
{
	for (; *order != 0; order++)
	{
		const Node *node = &b->nodes[*order];
		uint32_t *instruction = words + offsets[*order];
		uint32_t from;
		uint32_t step;
		uint32_t n = target_args(node, &from, &step);

		*instruction = node->word;
		if (node->n_args > 0)
			memcpy(instruction + 1, b->args + node->first_arg,
				   node->n_args * sizeof(uint32_t));
		for (uint32_t j = 0; j < n; j++)
		{
			uint32_t *arg = instruction + 1 + from + j * step;

			*arg = offsets[resolve(b, *arg)];
		}
	}
}

/* A program that no text satisfies is an error here, where the source is. */
static bool
check_program(const uint32_t *words, size_t n_words, LlmError *err)
{
	uint16_t *heights = malloc(n_words * sizeof(uint16_t));
	bool ok;

	if (heights == NULL)
		return llm_error_no_memory(err, n_words * 2, "grammar");
	ok = llm_grammar_program_check(words, n_words, heights, err);
	free(heights);
	return ok;
}

bool
llm_grammar_emit(LlmGrammarBuilder *b, LlmGrammarNodeId root,
				 LlmStrbuf *program)
{
	uint32_t *offsets;
	LlmGrammarNodeId *order;
	uint32_t *words;
	uint32_t n_words;

	assert(program->len == 0);
	offsets = llm_grammar_alloc(b, b->n_nodes * sizeof(uint32_t));
	order = llm_grammar_alloc(b, (b->n_nodes + 1) * sizeof(*order));
	if (b->failed)
		return false;
	root = resolve(b, root);
	n_words = lay_out(b, root, offsets, order);
	if (n_words > LLM_GRAMMAR_MAX_WORDS)
		return llm_error_set(b->err, LLM_ERROR_LIMIT,
							 "grammar is too large: %u words, the limit is %u",
							 n_words, LLM_GRAMMAR_MAX_WORDS);
	words = (uint32_t *) llm_strbuf_reserve(program, n_words * sizeof(*words));
	if (words == NULL)
		return llm_error_no_memory(b->err, n_words * sizeof(*words), "grammar");
	words[LLM_GRAMMAR_WORD_MAGIC] = LLM_GRAMMAR_MAGIC;
	words[LLM_GRAMMAR_WORD_VERSION] = LLM_GRAMMAR_VERSION;
	words[LLM_GRAMMAR_WORD_N_WORDS] = n_words;
	words[LLM_GRAMMAR_WORD_ROOT] = offsets[root];
	write_words(b, offsets, order, words);
	if (!check_program(words, n_words, b->err))
		return false;
	program->len += n_words * sizeof(*words);
	return true;
}
