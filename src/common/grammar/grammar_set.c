/*
 * grammar_set.c
 *	  Sets of characters, and the bytes that one of them may be.
 *
 * A range of code points becomes sequences of byte ranges that are complete
 * blocks of UTF-8 (as RE2 does): it is cut where the encoded length changes,
 * and then where its ends do not cover a whole block of continuation bytes.
 * Sequences of a sorted set come in byte order, and two of them either begin
 * with the same byte range or with ranges that are apart, so nodes are built
 * by grouping neighbours.
 *
 * Within a JSON string a character stands as itself where it may, and
 * otherwise as its one usual escape; U+0000 is no character of a JSON string
 * here, for PostgreSQL's jsonb has none.
 *
 * src/common/grammar/grammar_set.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/grammar/grammar_build.h"
#include "src/common/util/utf8.h"

#define MAX_CODE_POINT 0x10FFFFu

void
llm_grammar_set_add(LlmGrammarBuilder *b, LlmGrammarSet *set, uint32_t low,
					uint32_t high)
{
	if (set->n_ranges == set->capacity)
	{
		size_t capacity = set->capacity == 0 ? 8 : 2 * set->capacity;
		LlmGrammarRange *ranges =
			llm_grammar_alloc(b, capacity * sizeof(*ranges));

		if (ranges == NULL)
			return;
		if (set->n_ranges > 0)
			memcpy(ranges, set->ranges, set->n_ranges * sizeof(*ranges));
		set->ranges = ranges;
		set->capacity = capacity;
	}
	set->ranges[set->n_ranges++] = (LlmGrammarRange){ low, high };
}

static int
compare_ranges(const void *a, const void *b)
{
	const LlmGrammarRange *left = a;
	const LlmGrammarRange *right = b;

	return left->low < right->low ? -1 : left->low > right->low;
}

void
llm_grammar_set_normalize(LlmGrammarSet *set)
{
	size_t n = 0;

	if (set->n_ranges == 0)
		return;
	qsort(set->ranges, set->n_ranges, sizeof(LlmGrammarRange), compare_ranges);
	for (size_t i = 1; i < set->n_ranges; i++)
	{
		LlmGrammarRange *last = &set->ranges[n];

		if (set->ranges[i].low > last->high + 1)
			set->ranges[++n] = set->ranges[i];
		else if (set->ranges[i].high > last->high)
			last->high = set->ranges[i].high;
	}
	set->n_ranges = n + 1;
}

void
llm_grammar_set_invert(LlmGrammarBuilder *b, LlmGrammarSet *set)
{
	LlmGrammarSet inverse = { 0 };
	uint32_t next = 0;

	llm_grammar_set_add(b, set, 0xD800, 0xDFFF);
	llm_grammar_set_normalize(set);
	for (size_t i = 0; i < set->n_ranges; i++)
	{
		if (set->ranges[i].low > next)
			llm_grammar_set_add(b, &inverse, next, set->ranges[i].low - 1);
		next = set->ranges[i].high + 1;
	}
	if (next <= MAX_CODE_POINT)
		llm_grammar_set_add(b, &inverse, next, MAX_CODE_POINT);
	*set = inverse;
}

bool
llm_grammar_set_contains(const LlmGrammarSet *set, uint32_t c)
{
	for (size_t i = 0; i < set->n_ranges; i++)
	{
		if (c >= set->ranges[i].low && c <= set->ranges[i].high)
			return true;
	}
	return false;
}

/* -- UTF-8 -- */

typedef struct Sequence
{
	uint8_t n;
	uint8_t low[4];
	uint8_t high[4];
} Sequence;

typedef struct Sequences
{
	Sequence *items;
	size_t n;
	size_t capacity;
} Sequences;

static void
add_sequence(LlmGrammarBuilder *b, Sequences *list, uint32_t low, uint32_t high)
{
	char low_bytes[4];
	char high_bytes[4];
	Sequence *sequence;

	if (list->n == list->capacity)
	{
		size_t capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
		Sequence *items = llm_grammar_alloc(b, capacity * sizeof(*items));

		if (items == NULL)
			return;
		if (list->n > 0)
			memcpy(items, list->items, list->n * sizeof(*items));
		list->items = items;
		list->capacity = capacity;
	}
	sequence = &list->items[list->n++];
	sequence->n = (uint8_t) llm_utf8_encode(low, low_bytes);
	llm_utf8_encode(high, high_bytes);
	memcpy(sequence->low, low_bytes, 4);
	memcpy(sequence->high, high_bytes, 4);
}

/* Cut a range until each piece is a product of byte ranges. */
static void
split_range(LlmGrammarBuilder *b, Sequences *list, uint32_t low, uint32_t high)
{
	static const uint32_t last_of_length[] = { 0x7F, 0x7FF, 0xFFFF };

	if (low > high)
		return;
	for (size_t i = 0; i < 3; i++)
	{
		if (low <= last_of_length[i] && high > last_of_length[i])
		{
			split_range(b, list, low, last_of_length[i]);
			split_range(b, list, last_of_length[i] + 1, high);
			return;
		}
	}
	for (uint32_t bits = 6; high > 0x7F && bits <= 18; bits += 6)
	{
		uint32_t block = (1u << bits) - 1;

		if ((low & ~block) == (high & ~block))
			break;
		if ((low & block) != 0)
		{
			split_range(b, list, low, low | block);
			split_range(b, list, (low | block) + 1, high);
			return;
		}
		if ((high & block) != block)
		{
			split_range(b, list, low, (high & ~block) - 1);
			split_range(b, list, high & ~block, high);
			return;
		}
	}
	add_sequence(b, list, low, high);
}

/* Sequences that agree before byte "at"; they are in byte order. */
static LlmGrammarNodeId
build_sequences(LlmGrammarBuilder *b, const Sequence *items, size_t n,
				size_t at, LlmGrammarNodeId next)
{
	uint32_t edges[512];
	size_t n_edges = 0;

	assert(at < sizeof(items->low));
	for (size_t i = 0; i < n;)
	{
		size_t end = i;
		LlmGrammarNodeId target = next;

		while (end < n && items[end].low[at] == items[i].low[at] &&
			   items[end].high[at] == items[i].high[at] &&
			   items[end].n == items[i].n)
			end++;
		/* of four bytes at most: the compiler sees that the depth is bounded */
		if (at + 1 < items[i].n && at + 1 < sizeof(items[i].low))
			target = build_sequences(b, items + i, end - i, at + 1, next);
		/* neighbours that lead to the same node are one edge */
		if (n_edges > 0 && edges[2 * n_edges - 1] == target &&
			(edges[2 * n_edges - 2] >> 8) + 1 == items[i].low[at])
			edges[2 * n_edges - 2] = (edges[2 * n_edges - 2] & 0xFFu) |
									 (uint32_t) items[i].high[at] << 8;
		else
		{
			assert(n_edges < 256);
			edges[2 * n_edges] = items[i].low[at] | (uint32_t) items[i].high[at]
														<< 8;
			edges[2 * n_edges++ + 1] = target;
		}
		i = end;
	}
	return llm_grammar_build_edges(b, edges, n_edges);
}

static LlmGrammarNodeId
build_utf8(LlmGrammarBuilder *b, const LlmGrammarSet *set,
		   LlmGrammarNodeId next)
{
	Sequences list = { 0 };

	for (size_t i = 0; i < set->n_ranges; i++)
	{
		uint32_t low = set->ranges[i].low;
		uint32_t high = set->ranges[i].high;

		/* surrogates are no characters, whatever a set says */
		if (low < 0xD800)
			split_range(b, &list, low, high < 0xD800 ? high : 0xD7FF);
		if (high > 0xDFFF)
			split_range(b, &list, low > 0xDFFF ? low : 0xE000, high);
	}
	if (llm_grammar_failed(b))
		return 0;
	return build_sequences(b, list.items, list.n, 0, next);
}

/* -- JSON strings -- */

/* The characters that need an escape: the choices behind the backslash. */
static LlmGrammarNodeId
build_escapes(LlmGrammarBuilder *b, const LlmGrammarSet *set,
			  LlmGrammarNodeId next)
{
	static const char letters[] = "b\bf\fn\nr\rt\t\"\"\\\\";
	LlmGrammarToken texts[64];
	char numbers[32][6];
	size_t n = 0;

	for (size_t i = 0; letters[i] != '\0'; i += 2)
	{
		if (llm_grammar_set_contains(set, (uint8_t) letters[i + 1]))
			texts[n++] = (LlmGrammarToken){ &letters[i], 1 };
	}
	for (uint32_t c = 1; c < 0x20; c++)
	{
		if (strchr("\b\f\n\r\t", (int) c) != NULL ||
			!llm_grammar_set_contains(set, c))
			continue;
		memcpy(numbers[c], "u00", 3);
		numbers[c][3] = "01"[c >> 4];
		numbers[c][4] = "0123456789abcdef"[c & 15];
		texts[n++] = (LlmGrammarToken){ numbers[c], 5 };
	}
	if (n == 0)
		return 0;
	return llm_grammar_build_bytes(b, '\\', '\\',
								   llm_grammar_build_choice(b, texts, n, next));
}

static LlmGrammarNodeId
build_json(LlmGrammarBuilder *b, const LlmGrammarSet *set,
		   LlmGrammarNodeId next)
{
	static const LlmGrammarRange plain[] = { { 0x20, 0x21 },
											 { 0x23, 0x5B },
											 { 0x5D, 0x10FFFF } };
	LlmGrammarSet rest = { 0 };
	LlmGrammarNodeId escapes = build_escapes(b, set, next);
	LlmGrammarNodeId node;

	for (size_t i = 0; i < set->n_ranges; i++)
	{
		for (size_t j = 0; j < sizeof(plain) / sizeof(plain[0]); j++)
		{
			uint32_t low = set->ranges[i].low;
			uint32_t high = set->ranges[i].high;

			low = low > plain[j].low ? low : plain[j].low;
			high = high < plain[j].high ? high : plain[j].high;
			if (low <= high)
				llm_grammar_set_add(b, &rest, low, high);
		}
	}
	if (rest.n_ranges == 0 && escapes != 0)
		return escapes;
	node = build_utf8(b, &rest, next);
	return escapes == 0 ? node : llm_grammar_build_or(b, node, escapes);
}

LlmGrammarNodeId
llm_grammar_build_set(LlmGrammarBuilder *b, const LlmGrammarSet *set,
					  LlmGrammarEncoding encoding, LlmGrammarNodeId next)
{
	if (llm_grammar_failed(b))
		return 0;
	return encoding == LLM_GRAMMAR_UTF8 ? build_utf8(b, set, next)
										: build_json(b, set, next);
}
