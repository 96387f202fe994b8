/*
 * jinja_compare.c
 *	  Equality, order, hashing, membership and sorting, as in Python.
 *
 * Numbers compare by value across int, float and bool; texts by code point,
 * which for UTF-8 is the order of the bytes; lists and tuples element by
 * element, to a bounded depth.
 *
 * src/common/template/jinja_compare.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_object.h"
#include "src/common/template/jinja_value.h"

/* How two numbers stand: a NaN stands in no order. */
typedef enum Standing
{
	BELOW = -1,
	SAME = 0,
	ABOVE = 1,
	UNORDERED = 2
} Standing;

static uint64_t
mix_hash(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xBF58476D1CE4E5B9u;
	x ^= x >> 27;
	x *= 0x94D049BB133111EBu;
	return x ^ (x >> 31);
}

static uint64_t
hash_bytes(const char *data, size_t len)
{
	uint64_t hash = len;
	uint64_t word;

	for (; len >= sizeof(word); data += sizeof(word), len -= sizeof(word))
	{
		memcpy(&word, data, sizeof(word));
		hash = mix_hash(hash ^ word);
	}
	word = 0;
	memcpy(&word, data, len);
	return mix_hash(hash ^ word);
}

uint64_t
llm_jinja_hash(LlmJinjaValue value)
{
	uint64_t hash;

	switch ((LlmJinjaKind) value.kind)
	{
		case LLM_JINJA_NONE:
		case LLM_JINJA_UNDEFINED:
			return mix_hash(value.kind);
		case LLM_JINJA_BOOL:
			return mix_hash(value.boolean);
		case LLM_JINJA_INT:
			return mix_hash((uint64_t) value.integer);
		case LLM_JINJA_FLOAT:
			if (value.real >= -9.2e18 && value.real <= 9.2e18 &&
				value.real == floor(value.real))
				return mix_hash((uint64_t) (int64_t) value.real);
			memcpy(&hash, &value.real, sizeof(hash));
			return mix_hash(hash);
		case LLM_JINJA_STRING:
		case LLM_JINJA_BIGINT:
			return hash_bytes(value.string->data, value.string->len);
		case LLM_JINJA_TUPLE:
			hash = value.list->n_items;
			for (size_t i = 0; i < value.list->n_items; i++)
				hash =
					mix_hash(hash * 31 + llm_jinja_hash(value.list->items[i]));
			return hash;
		default:
			return mix_hash((uint64_t) (uintptr_t) value.list);
	}
}

static Standing
compare_int_with_real(int64_t a, double b)
{
	int64_t whole;

	if (isnan(b))
		return UNORDERED;
	if (b >= 0x1p63)
		return BELOW;
	if (b < -0x1p63)
		return ABOVE;
	whole = (int64_t) b;
	if (a != whole)
		return a < whole ? BELOW : ABOVE;
	if (b == (double) whole)
		return SAME;
	return b > (double) whole ? BELOW : ABOVE;
}

static double
bigint_to_real(const LlmJinjaString *digits)
{
	char text[LLM_JINJA_MAX_DIGITS + 2];

	assert(digits->len < sizeof(text));
	memcpy(text, digits->data, digits->len);
	text[digits->len] = '\0';
	return strtod(text, NULL);
}

static Standing
compare_bigints(const LlmJinjaString *a, const LlmJinjaString *b)
{
	bool negative = a->data[0] == '-';
	int order;

	if (negative != (b->data[0] == '-'))
		return negative ? BELOW : ABOVE;
	if (a->len != b->len)
		order = a->len < b->len ? -1 : 1;
	else
		order = memcmp(a->data, b->data, a->len);
	if (order == 0)
		return SAME;
	return (order < 0) != negative ? BELOW : ABOVE;
}

static Standing
flip(Standing standing)
{
	return standing == UNORDERED ? UNORDERED : (Standing) - (int) standing;
}

static Standing
compare_numbers(LlmJinjaValue a, LlmJinjaValue b)
{
	int64_t x;
	int64_t y;

	if (a.kind == LLM_JINJA_BIGINT && b.kind == LLM_JINJA_BIGINT)
		return compare_bigints(a.string, b.string);
	if (b.kind == LLM_JINJA_BIGINT)
		return flip(compare_numbers(b, a));
	if (a.kind == LLM_JINJA_BIGINT)
	{
		if (b.kind != LLM_JINJA_FLOAT)
			return a.string->data[0] == '-' ? BELOW : ABOVE;
		a = llm_jinja_float(bigint_to_real(a.string));
	}
	if (a.kind == LLM_JINJA_FLOAT && b.kind == LLM_JINJA_FLOAT)
	{
		if (isnan(a.real) || isnan(b.real))
			return UNORDERED;
		return a.real < b.real ? BELOW : a.real > b.real ? ABOVE : SAME;
	}
	if (a.kind == LLM_JINJA_FLOAT)
		return llm_jinja_as_int(b, &y) ? flip(compare_int_with_real(y, a.real))
									   : UNORDERED;
	if (!llm_jinja_as_int(a, &x))
		return UNORDERED;
	if (b.kind == LLM_JINJA_FLOAT)
		return compare_int_with_real(x, b.real);
	if (!llm_jinja_as_int(b, &y))
		return UNORDERED;
	return x < y ? BELOW : x > y ? ABOVE : SAME;
}

static Standing
compare_strings(const LlmJinjaString *a, const LlmJinjaString *b)
{
	size_t len = a->len < b->len ? a->len : b->len;
	int order = memcmp(a->data, b->data, len);

	if (order == 0 && a->len != b->len)
		order = a->len < b->len ? -1 : 1;
	return order < 0 ? BELOW : order > 0 ? ABOVE : SAME;
}

/* ---- equality ---- */

static bool equal_within(LlmJinjaRun *run, const LlmJinjaValue pair[2],
						 int depth, bool *result);

static bool
equal_lists(LlmJinjaRun *run, const LlmJinjaValue pair[2], int depth,
			bool *result)
{
	const LlmJinjaList *a = pair[0].list;
	const LlmJinjaList *b = pair[1].list;

	*result = a->n_items == b->n_items;
	for (size_t i = 0; *result && a != b && i < a->n_items; i++)
	{
		LlmJinjaValue items[2] = { a->items[i], b->items[i] };

		if (!equal_within(run, items, depth, result))
			return false;
	}
	return true;
}

static bool
equal_dicts(LlmJinjaRun *run, const LlmJinjaValue pair[2], int depth,
			bool *result)
{
	const LlmJinjaDict *a = pair[0].dict;
	const LlmJinjaDict *b = pair[1].dict;

	*result = a->n_entries == b->n_entries;
	for (size_t i = 0; *result && a != b && i < a->n_entries; i++)
	{
		LlmJinjaValue values[2] = { a->entries[i].value };

		if (!llm_jinja_dict_get(run, b, a->entries[i].key, &values[1]))
			return false;
		if (values[1].kind == LLM_JINJA_MISSING)
			*result = false;
		else if (!equal_within(run, values, depth, result))
			return false;
	}
	return true;
}

static bool
equal_ranges(const LlmJinjaRange *a, const LlmJinjaRange *b)
{
	if (a->n_items != b->n_items)
		return false;
	if (a->n_items == 0)
		return true;
	return a->start == b->start && (a->n_items == 1 || a->step == b->step);
}

static bool
equal_within(LlmJinjaRun *run, const LlmJinjaValue pair[2], int depth,
			 bool *result)
{
	LlmJinjaValue a = pair[0];
	LlmJinjaValue b = pair[1];

	*result = false;
	if (llm_jinja_is_number(a) && llm_jinja_is_number(b))
	{
		*result = compare_numbers(a, b) == SAME;
		return true;
	}
	if (a.kind != b.kind)
		return true;
	if (a.kind == LLM_JINJA_STRING)
	{
		*result = compare_strings(a.string, b.string) == SAME;
		return true;
	}
	if (a.kind == LLM_JINJA_NONE || a.kind == LLM_JINJA_UNDEFINED)
	{
		*result = true;
		return true;
	}
	if (a.kind == LLM_JINJA_RANGE)
	{
		*result = equal_ranges(a.range, b.range);
		return true;
	}
	if (a.kind == LLM_JINJA_LIST || a.kind == LLM_JINJA_TUPLE ||
		a.kind == LLM_JINJA_DICT)
	{
		if (depth >= LLM_JINJA_MAX_VALUE_DEPTH)
			return llm_jinja_fail(run, "a value is nested more than %d deep",
								  LLM_JINJA_MAX_VALUE_DEPTH);
		if (!llm_jinja_charge(run, 1))
			return false;
		return a.kind == LLM_JINJA_DICT
				   ? equal_dicts(run, pair, depth + 1, result)
				   : equal_lists(run, pair, depth + 1, result);
	}
	*result = a.list == b.list && a.view_part == b.view_part;
	return true;
}

bool
llm_jinja_equal(LlmJinjaRun *run, LlmJinjaValue a, LlmJinjaValue b,
				bool *result)
{
	LlmJinjaValue pair[2] = { a, b };

	return equal_within(run, pair, 0, result);
}

/* ---- order ---- */

static bool
judge(LlmJinjaOrder order, Standing standing)
{
	switch (order)
	{
		case LLM_JINJA_LESS:
			return standing == BELOW;
		case LLM_JINJA_LESS_EQUAL:
			return standing == BELOW || standing == SAME;
		case LLM_JINJA_GREATER:
			return standing == ABOVE;
		case LLM_JINJA_GREATER_EQUAL:
			return standing == ABOVE || standing == SAME;
	}
	return false;
}

static bool order_within(LlmJinjaRun *run, LlmJinjaOrder order,
						 const LlmJinjaValue pair[2], int depth, bool *result);

/* The first elements that differ decide; where none does, the lengths. */
static bool
order_lists(LlmJinjaRun *run, LlmJinjaOrder order, const LlmJinjaValue pair[2],
			int depth, bool *result)
{
	const LlmJinjaList *a = pair[0].list;
	const LlmJinjaList *b = pair[1].list;

	for (size_t i = 0; i < a->n_items && i < b->n_items; i++)
	{
		LlmJinjaValue items[2] = { a->items[i], b->items[i] };
		bool same;

		if (!equal_within(run, items, depth, &same))
			return false;
		if (!same)
			return order_within(run, order, items, depth, result);
	}
	*result = judge(order, a->n_items < b->n_items	 ? BELOW
						   : a->n_items > b->n_items ? ABOVE
													 : SAME);
	return true;
}

static bool
order_within(LlmJinjaRun *run, LlmJinjaOrder order, const LlmJinjaValue pair[2],
			 int depth, bool *result)
{
	static const char *const signs[] = { "<", "<=", ">", ">=" };
	LlmJinjaValue a = pair[0];
	LlmJinjaValue b = pair[1];

	if (llm_jinja_is_number(a) && llm_jinja_is_number(b))
	{
		*result = judge(order, compare_numbers(a, b));
		return true;
	}
	if (a.kind == LLM_JINJA_STRING && b.kind == LLM_JINJA_STRING)
	{
		*result = judge(order, compare_strings(a.string, b.string));
		return true;
	}
	if (a.kind == b.kind &&
		(a.kind == LLM_JINJA_LIST || a.kind == LLM_JINJA_TUPLE))
	{
		if (depth >= LLM_JINJA_MAX_VALUE_DEPTH)
			return llm_jinja_fail(run, "a value is nested more than %d deep",
								  LLM_JINJA_MAX_VALUE_DEPTH);
		return llm_jinja_charge(run, 1) &&
			   order_lists(run, order, pair, depth + 1, result);
	}
	if (a.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, a);
	if (b.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, b);
	return llm_jinja_fail(run,
						  "'%s' not supported between instances of '%s' and "
						  "'%s'",
						  signs[order], llm_jinja_type_name(a),
						  llm_jinja_type_name(b));
}

bool
llm_jinja_order(LlmJinjaRun *run, LlmJinjaOrder order,
				const LlmJinjaValue pair[2], bool *result)
{
	return order_within(run, order, pair, 0, result);
}

/* ---- membership ---- */

static bool
range_contains(const LlmJinjaRange *range, LlmJinjaValue item)
{
	int64_t integer;
	__int128 distance;

	if (item.kind == LLM_JINJA_FLOAT && item.real == floor(item.real) &&
		fabs(item.real) < 1e15)
		integer = (int64_t) item.real;
	else if (!llm_jinja_as_int(item, &integer))
		return false;
	distance = (__int128) integer - range->start;
	if (distance % range->step != 0)
		return false;
	distance /= range->step;
	return distance >= 0 && distance < range->n_items;
}

static bool
iterable_contains(LlmJinjaRun *run, LlmJinjaValue container, LlmJinjaValue item,
				  bool *result)
{
	LlmJinjaIterator *iterator;
	LlmJinjaValue candidate;

	if (!llm_jinja_iterate(run, container, &iterator))
		return false;
	do
	{
		if (!llm_jinja_next(run, iterator, &candidate) ||
			!llm_jinja_equal(run, candidate, item, result))
			return false;
	} while (!*result && candidate.kind != LLM_JINJA_MISSING);
	if (candidate.kind == LLM_JINJA_MISSING)
		*result = false;
	return true;
}

bool
llm_jinja_contains(LlmJinjaRun *run, LlmJinjaValue container,
				   LlmJinjaValue item, bool *result)
{
	LlmJinjaValue found;

	*result = false;
	if (container.kind == LLM_JINJA_STRING)
	{
		if (item.kind != LLM_JINJA_STRING)
			return llm_jinja_fail(run,
								  "'in <string>' requires string as left "
								  "operand, not %s",
								  llm_jinja_type_name(item));
		*result = memmem(container.string->data, container.string->len,
						 item.string->data, item.string->len) != NULL;
		return llm_jinja_charge(run, container.string->len / 64);
	}
	if (container.kind == LLM_JINJA_DICT ||
		(container.kind == LLM_JINJA_VIEW &&
		 container.view_part == LLM_JINJA_KEYS))
	{
		if (!llm_jinja_dict_get(run, container.dict, item, &found))
			return false;
		*result = found.kind != LLM_JINJA_MISSING;
		return true;
	}
	if (container.kind == LLM_JINJA_RANGE)
	{
		*result = range_contains(container.range, item);
		return true;
	}
	if (!llm_jinja_is_iterable(container))
		return llm_jinja_fail(run, "argument of type '%s' is not iterable",
							  llm_jinja_type_name(container));
	return iterable_contains(run, container, item, result);
}

/* ---- sorting ---- */

typedef struct SortSpan
{
	size_t start;
	size_t middle;
	size_t end;
} SortSpan;

/* Merge two sorted neighbours of the order array into another array. */
static bool
merge_spans(LlmJinjaRun *run, const LlmJinjaValue *keys, const size_t *from,
			size_t *to, SortSpan span, bool reverse)
{
	size_t left = span.start;
	size_t right = span.middle;

	for (size_t i = span.start; i < span.end; i++)
	{
		bool take_right = left == span.middle;

		if (!take_right && right < span.end)
		{
			LlmJinjaValue pair[2] = { keys[from[right]], keys[from[left]] };
			LlmJinjaValue turned[2] = { pair[1], pair[0] };

			if (!llm_jinja_charge(run, 1) ||
				!llm_jinja_order(run, LLM_JINJA_LESS, reverse ? turned : pair,
								 &take_right))
				return false;
		}
		to[i] = take_right ? from[right++] : from[left++];
	}
	return true;
}

bool
llm_jinja_sort(LlmJinjaRun *run, LlmJinjaValue *keys, LlmJinjaValue *items,
			   size_t n, bool reverse)
{
	size_t *from;
	size_t *to;
	LlmJinjaValue *sorted;

	if (n < 2)
		return true;
	from = llm_jinja_alloc(run, n * sizeof(size_t));
	to = llm_jinja_alloc(run, n * sizeof(size_t));
	sorted = llm_jinja_alloc(run, n * sizeof(LlmJinjaValue));
	if (from == NULL || to == NULL || sorted == NULL)
		return false;
	for (size_t i = 0; i < n; i++)
		from[i] = i;
	for (size_t width = 1; width < n; width *= 2)
	{
		size_t *swap = from;

		for (size_t start = 0; start < n; start += 2 * width)
		{
			SortSpan span = { start, start + width, start + 2 * width };

			span.middle = span.middle < n ? span.middle : n;
			span.end = span.end < n ? span.end : n;
			if (!merge_spans(run, keys, from, to, span, reverse))
				return false;
		}
		from = to;
		to = swap;
	}
	for (size_t i = 0; i < n; i++)
		sorted[i] = items[from[i]];
	memcpy(items, sorted, n * sizeof(LlmJinjaValue));
	return true;
}
