/*
 * jinja_iterate.c
 *	  Iterating over values; Python's iterators, used up as they go.
 *
 * Iterators are lazy where Python's are, since a loop's filter may depend on
 * what the loop's body has changed.
 *
 * src/common/template/jinja_iterate.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/template/jinja_ast.h"
#include "src/common/template/jinja_object.h"
#include "src/common/template/jinja_value.h"
#include "src/common/util/utf8.h"

/* Items of a dict or view, in the part that the source asks for. */
static bool
entry_part(LlmJinjaRun *run, LlmJinjaValue source, size_t entry,
		   LlmJinjaValue *item)
{
	const LlmJinjaEntry *e = &source.dict->entries[entry];

	assert(entry < source.dict->n_entries);
	if (source.kind == LLM_JINJA_DICT || source.view_part == LLM_JINJA_KEYS)
		*item = e->key;
	else if (source.view_part == LLM_JINJA_VALUES)
		*item = e->value;
	else
		return llm_jinja_make_pair(run, e->key, e->value, item);
	return true;
}

/* The character at a byte position, which moves behind it. */
static bool
next_char(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	const LlmJinjaString *string = iterator->source.string;
	const char *at = string->data + iterator->position;
	uint32_t codepoint;
	int n;

	if ((size_t) iterator->position >= string->len)
	{
		*item = llm_jinja_missing();
		return true;
	}
	n = llm_utf8_decode(at, string->len - (size_t) iterator->position,
						&codepoint);
	assert(n > 0);
	iterator->position += n;
	return llm_jinja_borrow_string(run, at, (size_t) n, item);
}

static bool
next_forward(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	LlmJinjaValue source = iterator->source;
	int64_t length = 0;

	if (source.kind == LLM_JINJA_STRING)
		return next_char(run, iterator, item);
	llm_jinja_length(source, &length);
	if (iterator->position >= length)
	{
		*item = llm_jinja_missing();
		return true;
	}
	if (source.kind == LLM_JINJA_LIST || source.kind == LLM_JINJA_TUPLE)
		*item = source.list->items[iterator->position++];
	else if (source.kind == LLM_JINJA_RANGE)
		*item = llm_jinja_int(
			llm_jinja_range_item(source.range, iterator->position++));
	else
		return entry_part(run, source, (size_t) iterator->position++, item);
	return true;
}

/* position counts down: the number of items still to come. */
static bool
next_backward(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	LlmJinjaValue source = iterator->source;
	int64_t at;

	if (iterator->position <= 0)
	{
		*item = llm_jinja_missing();
		return true;
	}
	at = --iterator->position;
	if (source.kind == LLM_JINJA_LIST || source.kind == LLM_JINJA_TUPLE)
		*item = source.list->items[at];
	else if (source.kind == LLM_JINJA_RANGE)
		*item = llm_jinja_int(llm_jinja_range_item(source.range, at));
	else if (source.kind == LLM_JINJA_STRING)
		return llm_jinja_substring(run, source.string, (size_t) at, 1, item);
	else
		return entry_part(run, source, (size_t) at, item);
	return true;
}

static bool
next_nothing(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	(void) run;
	(void) iterator;
	*item = llm_jinja_missing();
	return true;
}

/* Iterating over the loop object takes its items, with the loop itself. */
static bool
next_of_loop(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	LlmJinjaValue current;

	if (!llm_jinja_loop_next(run, iterator->source.loop, &current))
		return false;
	if (current.kind == LLM_JINJA_MISSING)
	{
		*item = current;
		return true;
	}
	return llm_jinja_make_pair(run, current, iterator->source, item);
}

static LlmJinjaIterator *
create_iterator(LlmJinjaRun *run, LlmJinjaNext next, LlmJinjaValue source)
{
	LlmJinjaIterator *iterator = llm_jinja_alloc(run, sizeof(*iterator));

	if (iterator == NULL)
		return NULL;
	iterator->next = next;
	iterator->type_name = "iterator";
	iterator->source = source;
	iterator->position = 0;
	iterator->state = NULL;
	return iterator;
}

bool
llm_jinja_is_iterable(LlmJinjaValue value)
{
	int64_t length;

	return value.kind == LLM_JINJA_ITERATOR || value.kind == LLM_JINJA_LOOP ||
		   llm_jinja_length(value, &length);
}

bool
llm_jinja_iterate(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaIterator **out)
{
	LlmJinjaNext next = next_forward;

	if (value.kind == LLM_JINJA_ITERATOR)
	{
		*out = value.iterator;
		return true;
	}
	if (!llm_jinja_is_iterable(value))
		return llm_jinja_fail(run, "'%s' object is not iterable",
							  llm_jinja_type_name(value));
	if (value.kind == LLM_JINJA_UNDEFINED)
		next = next_nothing;
	else if (value.kind == LLM_JINJA_LOOP)
		next = next_of_loop;
	*out = create_iterator(run, next, value);
	return *out != NULL;
}

/* Generators may draw on each other, so this counts as recursion. */
bool
llm_jinja_next(LlmJinjaRun *run, LlmJinjaIterator *iterator,
			   LlmJinjaValue *item)
{
	bool ok;

	if (!llm_jinja_enter(run))
		return false;
	ok = iterator->next(run, iterator, item);
	llm_jinja_leave(run);
	return ok;
}

bool
llm_jinja_collect(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaList **out)
{
	LlmJinjaIterator *iterator;
	LlmJinjaList *list;
	LlmJinjaValue item;
	int64_t length = 8;

	if (!llm_jinja_iterate(run, value, &iterator))
		return false;
	llm_jinja_length(value, &length);
	list = llm_jinja_create_list(run, (size_t) length);
	if (list == NULL)
		return false;
	for (;;)
	{
		if (!llm_jinja_next(run, iterator, &item))
			return false;
		if (item.kind == LLM_JINJA_MISSING)
			break;
		if (!llm_jinja_push(run, list, item))
			return false;
	}
	*out = list;
	return true;
}

bool
llm_jinja_reversed(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaValue *out)
{
	static const char *const view_names[] = { "dict_reversekeyiterator",
											  "dict_reversevalueiterator",
											  "dict_reverseitemiterator" };
	LlmJinjaIterator *iterator;
	int64_t length;

	if (!llm_jinja_length(value, &length))
		return llm_jinja_fail(run, "'%s' object is not reversible",
							  llm_jinja_type_name(value));
	iterator = create_iterator(run, next_backward, value);
	if (iterator == NULL)
		return false;
	iterator->position = length;
	if (value.kind == LLM_JINJA_LIST)
		iterator->type_name = "list_reverseiterator";
	else if (value.kind == LLM_JINJA_RANGE)
		iterator->type_name = "range_iterator";
	else if (value.kind == LLM_JINJA_DICT)
		iterator->type_name = view_names[LLM_JINJA_KEYS];
	else if (value.kind == LLM_JINJA_VIEW)
		iterator->type_name = view_names[value.view_part];
	else
		iterator->type_name = "reversed";
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_ITERATOR, .iterator = iterator };
	return true;
}

bool
llm_jinja_make_generator(LlmJinjaRun *run, LlmJinjaNext next,
						 LlmJinjaValue source, void *state, LlmJinjaValue *out)
{
	LlmJinjaIterator *iterator = create_iterator(run, next, source);

	if (iterator == NULL)
		return false;
	iterator->type_name = "generator";
	iterator->state = state;
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_ITERATOR, .iterator = iterator };
	return true;
}
