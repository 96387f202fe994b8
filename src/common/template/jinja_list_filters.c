/*
 * jinja_list_filters.c
 *	  Filters over the items of something.
 *
 * map, select, reject, their attr forms, unique, batch, slice and items are
 * generators as in jinja2: nothing happens, and nothing fails, before their
 * items are asked for, and they are true even where they have none.
 *
 * src/common/template/jinja_list_filters.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/template/jinja_filters.h"
#include "src/common/template/jinja_text.h"

/* ---- map, select, reject ---- */

typedef enum PickMode
{
	MAP,
	SELECT,
	REJECT
} PickMode;

typedef struct Pick
{
	PickMode mode;
	bool by_attribute; /* selectattr, rejectattr */
	bool prepared;
	bool applies; /* a filter or test, by name */
	LlmJinjaValue name;
	LlmJinjaPath path;
	LlmJinjaArgs given;		/* of the filter called */
	LlmJinjaArgs rest;		/* for the filter or test applied */
	LlmJinjaIterator *from; /* NULL: nothing to iterate over */
} Pick;

/* map(attribute=..., default=...) */
static bool
prepare_attribute_map(LlmJinjaRun *run, Pick *pick)
{
	LlmJinjaValue attribute = llm_jinja_missing();
	LlmJinjaValue fallback = llm_jinja_missing();

	for (size_t i = 0; i < pick->given.n_kwargs; i++)
	{
		LlmJinjaKwarg kwarg = pick->given.kwargs[i];
		LlmJinjaValue name = llm_jinja_text(kwarg.name);

		if (llm_jinja_string_is(name, "attribute"))
			attribute = kwarg.value;
		else if (llm_jinja_string_is(name, "default"))
			fallback = kwarg.value;
		else if (attribute.kind != LLM_JINJA_MISSING)
			return llm_jinja_fail(run, "Unexpected keyword argument '%.*s'",
								  (int) kwarg.name->len, kwarg.name->data);
	}
	if (attribute.kind == LLM_JINJA_MISSING)
		return llm_jinja_fail(run, "map requires a filter argument");
	if (!llm_jinja_make_path(run, attribute, &pick->path))
		return false;
	pick->path.fallback = fallback;
	return true;
}

/* The arguments are looked at when the first item is asked for. */
static bool
prepare_pick(LlmJinjaRun *run, Pick *pick, LlmJinjaValue source)
{
	size_t n_own = pick->by_attribute ? 1 : 0;

	pick->prepared = true;
	if (!llm_jinja_truth(source))
		return true;
	pick->rest = pick->given;
	if (pick->mode == MAP && pick->given.n_args == 0)
	{
		if (!prepare_attribute_map(run, pick))
			return false;
	}
	else if (pick->given.n_args < n_own)
		return llm_jinja_fail(run, "Missing parameter for attribute name");
	else
	{
		if (pick->by_attribute &&
			!llm_jinja_make_path(run, pick->given.args[0], &pick->path))
			return false;
		pick->applies = pick->given.n_args > n_own;
		if (pick->applies)
		{
			pick->name = pick->given.args[n_own];
			pick->rest.args += n_own + 1;
			pick->rest.n_args -= n_own + 1;
		}
	}
	return llm_jinja_iterate(run, source, &pick->from);
}

/* Is an item wanted?  Or, of a map, what becomes of it? */
static bool
judge_item(LlmJinjaRun *run, const Pick *pick, LlmJinjaValue *item,
		   bool *wanted)
{
	LlmJinjaValue seen;

	if (!llm_jinja_follow_path(run, &pick->path, *item, &seen))
		return false;
	*wanted = true;
	if (pick->mode == MAP)
	{
		*item = seen;
		return !pick->applies ||
			   llm_jinja_apply_filter(run, pick->name, seen, &pick->rest, item);
	}
	if (!pick->applies)
		*wanted = llm_jinja_truth(seen);
	else if (!llm_jinja_apply_test(run, pick->name, seen, &pick->rest, wanted))
		return false;
	if (pick->mode == REJECT)
		*wanted = !*wanted;
	return true;
}

static bool
next_picked(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	Pick *pick = iterator->state;
	bool wanted = false;

	if (!pick->prepared && !prepare_pick(run, pick, iterator->source))
		return false;
	*item = llm_jinja_missing();
	if (pick->from == NULL)
		return true;
	while (!wanted)
	{
		if (!llm_jinja_next(run, pick->from, item))
			return false;
		if (item->kind == LLM_JINJA_MISSING)
			return true;
		if (!judge_item(run, pick, item, &wanted))
			return false;
	}
	return true;
}

static bool
make_pick(LlmJinjaRun *run, const LlmJinjaCall *call, PickMode mode,
		  bool by_attribute, LlmJinjaValue *out)
{
	Pick *pick = llm_jinja_alloc(run, sizeof(*pick));

	if (pick == NULL)
		return false;
	memset(pick, 0, sizeof(*pick));
	pick->mode = mode;
	pick->by_attribute = by_attribute;
	pick->given = *call->args;
	return llm_jinja_make_generator(run, next_picked, call->self, pick, out);
}

static bool
filter_map(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return make_pick(run, call, MAP, false, out);
}

static bool
filter_select(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return make_pick(run, call, SELECT, false, out);
}

static bool
filter_reject(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return make_pick(run, call, REJECT, false, out);
}

static bool
filter_selectattr(LlmJinjaRun *run, const LlmJinjaCall *call,
				  LlmJinjaValue *out)
{
	return make_pick(run, call, SELECT, true, out);
}

static bool
filter_rejectattr(LlmJinjaRun *run, const LlmJinjaCall *call,
				  LlmJinjaValue *out)
{
	return make_pick(run, call, REJECT, true, out);
}

/* ---- other generators ---- */

typedef struct Unique
{
	LlmJinjaPath path;
	LlmJinjaDict *seen;
	LlmJinjaIterator *from; /* NULL: not begun */
	LlmJinjaValue attribute;
} Unique;

static bool
next_unique(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	Unique *unique = iterator->state;
	LlmJinjaValue key;
	LlmJinjaValue before;

	if (unique->from == NULL &&
		!llm_jinja_iterate(run, iterator->source, &unique->from))
		return false;
	do
	{
		if (!llm_jinja_next(run, unique->from, item))
			return false;
		if (item->kind == LLM_JINJA_MISSING)
			return true;
		if (!llm_jinja_follow_path(run, &unique->path, *item, &key) ||
			!llm_jinja_dict_get(run, unique->seen, key, &before))
			return false;
	} while (before.kind != LLM_JINJA_MISSING);
	return llm_jinja_dict_set(run, unique->seen, key, llm_jinja_none());
}

static bool
filter_unique(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	Unique *unique = llm_jinja_alloc(run, sizeof(*unique));

	if (unique == NULL)
		return false;
	memset(unique, 0, sizeof(*unique));
	if (!llm_jinja_make_path(run, call->slot[1], &unique->path))
		return false;
	unique->path.ignores_case = !llm_jinja_flag(call->slot[0], false);
	unique->seen = llm_jinja_create_dict(run);
	return unique->seen != NULL &&
		   llm_jinja_make_generator(run, next_unique, call->self, unique, out);
}

/* batch and slice: the lists, made when the first is asked for. */
typedef struct Lists
{
	int64_t n; /* items per list, or lists */
	LlmJinjaValue fill;
	LlmJinjaIterator *made; /* NULL: not begun */
} Lists;

static bool
push_list(LlmJinjaRun *run, LlmJinjaList *lists, LlmJinjaList **list)
{
	*list = llm_jinja_create_list(run, 4);
	return *list != NULL && llm_jinja_push(run, lists, llm_jinja_list(*list));
}

static bool
make_batches(LlmJinjaRun *run, const Lists *state, const LlmJinjaList *items,
			 LlmJinjaList *lists)
{
	LlmJinjaList *list = NULL;

	for (size_t i = 0; i < items->n_items; i++)
		if (((list == NULL || (int64_t) list->n_items == state->n) &&
			 !push_list(run, lists, &list)) ||
			!llm_jinja_push(run, list, items->items[i]))
			return false;
	while (list != NULL && !llm_jinja_is_absent(state->fill) &&
		   (int64_t) list->n_items < state->n)
		if (!llm_jinja_push(run, list, state->fill))
			return false;
	return true;
}

static bool
make_slices(LlmJinjaRun *run, const Lists *state, const LlmJinjaList *items,
			LlmJinjaList *lists)
{
	int64_t length = (int64_t) items->n_items;
	int64_t at = 0;

	if (state->n == 0)
		return llm_jinja_fail(run, "integer division or modulo by zero");
	for (int64_t s = 0; s < state->n; s++)
	{
		bool has_extra = s < length % state->n;
		int64_t end = at + length / state->n + has_extra;
		LlmJinjaList *list;

		if (!llm_jinja_charge(run, 1) || !push_list(run, lists, &list))
			return false;
		for (; at < end; at++)
			if (!llm_jinja_push(run, list, items->items[at]))
				return false;
		if (!has_extra && !llm_jinja_is_absent(state->fill) &&
			!llm_jinja_push(run, list, state->fill))
			return false;
	}
	return true;
}

typedef bool (*MakeLists)(LlmJinjaRun *run, const Lists *state,
						  const LlmJinjaList *items, LlmJinjaList *lists);

static bool
next_list(LlmJinjaRun *run, LlmJinjaIterator *iterator, MakeLists make,
		  LlmJinjaValue *item)
{
	Lists *state = iterator->state;

	if (state->made == NULL)
	{
		LlmJinjaList *lists = llm_jinja_create_list(run, 4);
		LlmJinjaList *items;

		if (lists == NULL ||
			!llm_jinja_collect(run, iterator->source, &items) ||
			!make(run, state, items, lists) ||
			!llm_jinja_iterate(run, llm_jinja_list(lists), &state->made))
			return false;
	}
	return llm_jinja_next(run, state->made, item);
}

static bool
next_batch(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	return next_list(run, iterator, make_batches, item);
}

static bool
next_slice(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	return next_list(run, iterator, make_slices, item);
}

static bool
begin_lists(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaNext next,
			LlmJinjaValue *out)
{
	Lists *state = llm_jinja_alloc(run, sizeof(*state));

	if (state == NULL)
		return false;
	memset(state, 0, sizeof(*state));
	state->fill = call->slot[1];
	return llm_jinja_want_int(run, call->slot[0], &state->n) &&
		   llm_jinja_make_generator(run, next, call->self, state, out);
}

static bool
filter_batch(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return begin_lists(run, call, next_batch, out);
}

static bool
filter_slice(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return begin_lists(run, call, next_slice, out);
}

static bool
next_entry(LlmJinjaRun *run, LlmJinjaIterator *iterator, LlmJinjaValue *item)
{
	const LlmJinjaDict *dict = iterator->source.dict;
	size_t at = (size_t) iterator->position;

	*item = llm_jinja_missing();
	if (iterator->source.kind == LLM_JINJA_UNDEFINED)
		return true;
	if (iterator->source.kind != LLM_JINJA_DICT)
		return llm_jinja_fail(run, "Can only get item pairs from a mapping.");
	if (at >= dict->n_entries)
		return true;
	iterator->position++;
	return llm_jinja_make_pair(run, dict->entries[at].key,
							   dict->entries[at].value, item);
}

static bool
filter_items(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return llm_jinja_make_generator(run, next_entry, call->self, NULL, out);
}

/* ---- first, last, list, reverse ---- */

static bool
filter_first(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaIterator *iterator;

	if (!llm_jinja_iterate(run, call->self, &iterator) ||
		!llm_jinja_next(run, iterator, out))
		return false;
	return out->kind != LLM_JINJA_MISSING ||
		   llm_jinja_make_undefined_hint(
			   run, "No first item, sequence was empty.", out);
}

static bool
filter_last(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue reversed;

	if (!llm_jinja_reversed(run, call->self, &reversed) ||
		!llm_jinja_next(run, reversed.iterator, out))
		return false;
	return out->kind != LLM_JINJA_MISSING ||
		   llm_jinja_make_undefined_hint(
			   run, "No last item, sequence was empty.", out);
}

static bool
filter_list(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_LIST };
	return llm_jinja_collect(run, call->self, &out->list);
}

static bool
filter_reverse(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue bounds[3] = { llm_jinja_none(), llm_jinja_none(),
								llm_jinja_int(-1) };
	LlmJinjaList *items;
	int64_t length;

	if (call->self.kind == LLM_JINJA_STRING)
		return llm_jinja_slice(run, call->self, bounds, out);
	if (llm_jinja_length(call->self, &length))
		return llm_jinja_reversed(run, call->self, out);
	if (!llm_jinja_is_iterable(call->self))
		return llm_jinja_fail(run, "argument must be iterable");
	return llm_jinja_collect(run, call->self, &items) &&
		   llm_jinja_slice(run, llm_jinja_list(items), bounds, out);
}

/* ---- sorting and grouping ---- */

/* Python's sorted() takes only a number for its reverse. */
static bool
want_reverse(LlmJinjaRun *run, LlmJinjaValue value, bool *reverse)
{
	int64_t integer = 0;

	if (!llm_jinja_want_int(run, value, &integer))
		return false;
	*reverse = integer != 0;
	return true;
}

/*
 * jinja2 compares lists of one key each, and lists look for equality first:
 * so equal keys that have no order, as undefined ones, do not fail.
 */
static bool
wrap_keys(LlmJinjaRun *run, LlmJinjaValue *keys, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		LlmJinjaList *list = llm_jinja_create_list(run, 1);

		if (list == NULL || !llm_jinja_push(run, list, keys[i]))
			return false;
		keys[i] = llm_jinja_list(list);
	}
	return true;
}

static bool
filter_sort(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	bool ignores_case = !llm_jinja_flag(call->slot[1], false);
	LlmJinjaList *items;
	LlmJinjaValue *keys;
	bool reverse;

	if (!llm_jinja_collect(run, call->self, &items) ||
		!want_reverse(run, call->slot[0], &reverse) ||
		!llm_jinja_make_keys(run, items, call->slot[2], ignores_case, &keys) ||
		!wrap_keys(run, keys, items->n_items) ||
		!llm_jinja_sort(run, keys, items->items, items->n_items, reverse))
		return false;
	*out = llm_jinja_list(items);
	return true;
}

static bool
filter_dictsort(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	bool ignores_case = !llm_jinja_flag(call->slot[0], false);
	LlmJinjaValue part = llm_jinja_int(0);
	LlmJinjaValue view = call->self;
	LlmJinjaList *items;
	LlmJinjaValue *keys;
	bool reverse;

	if (call->slot[1].kind != LLM_JINJA_MISSING &&
		!llm_jinja_string_is(call->slot[1], "key"))
	{
		if (!llm_jinja_string_is(call->slot[1], "value"))
			return llm_jinja_fail(run, "You can only sort by either \"key\" or "
									   "\"value\"");
		part = llm_jinja_int(1);
	}
	if (view.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, view);
	if (view.kind != LLM_JINJA_DICT)
		return llm_jinja_fail(run, "'%s' object has no attribute 'items'",
							  llm_jinja_type_name(view));
	view.kind = LLM_JINJA_VIEW;
	view.view_part = LLM_JINJA_ITEMS;
	if (!llm_jinja_collect(run, view, &items) ||
		!want_reverse(run, call->slot[2], &reverse) ||
		!llm_jinja_make_keys(run, items, part, ignores_case, &keys) ||
		!llm_jinja_sort(run, keys, items->items, items->n_items, reverse))
		return false;
	*out = llm_jinja_list(items);
	return true;
}

/* Pair each item with its key, so that sorting keeps them together. */
static bool
sort_with_keys(LlmJinjaRun *run, LlmJinjaList *items, const LlmJinjaPath *path,
			   LlmJinjaList *pairs)
{
	LlmJinjaValue *keys =
		llm_jinja_alloc(run, items->n_items * sizeof(LlmJinjaValue));

	if (keys == NULL)
		return false;
	for (size_t i = 0; i < items->n_items; i++)
	{
		LlmJinjaValue pair;

		if (!llm_jinja_follow_path(run, path, items->items[i], &keys[i]) ||
			!llm_jinja_make_pair(run, keys[i], items->items[i], &pair) ||
			!llm_jinja_push(run, pairs, pair))
			return false;
	}
	return llm_jinja_sort(run, keys, pairs->items, pairs->n_items, false);
}

static bool
filter_groupby(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaList *groups = llm_jinja_create_list(run, 4);
	LlmJinjaList *pairs = llm_jinja_create_list(run, 4);
	LlmJinjaList *items;
	LlmJinjaList *members = NULL;
	LlmJinjaPath path;
	LlmJinjaPath plain;

	if (groups == NULL || pairs == NULL ||
		!llm_jinja_collect(run, call->self, &items) ||
		!llm_jinja_make_path(run, call->slot[0], &path))
		return false;
	path.fallback = call->slot[1];
	plain = path;
	path.ignores_case = !llm_jinja_flag(call->slot[2], false);
	if (!sort_with_keys(run, items, &path, pairs))
		return false;
	for (size_t i = 0; i < pairs->n_items; i++)
	{
		LlmJinjaValue *pair = pairs->items[i].list->items;
		LlmJinjaValue group;
		LlmJinjaValue name;
		bool same = false;

		if (i > 0 && !llm_jinja_equal(run, pairs->items[i - 1].list->items[0],
									  pair[0], &same))
			return false;
		if (!same)
		{
			members = llm_jinja_create_list(run, 4);
			if (members == NULL ||
				!llm_jinja_follow_path(run, &plain, pair[1], &name) ||
				!llm_jinja_make_pair(run, name, llm_jinja_list(members),
									 &group))
				return false;
			group.is_group = true;
			if (!llm_jinja_push(run, groups, group))
				return false;
		}
		if (!llm_jinja_push(run, members, pair[1]))
			return false;
	}
	*out = llm_jinja_list(groups);
	return true;
}

/* ---- one value of many ---- */

static bool
find_extreme(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaOrder order,
			 LlmJinjaValue *out)
{
	LlmJinjaList *items;
	LlmJinjaPath path;
	LlmJinjaValue pair[2]; /* the candidate's key, the best's */

	if (!llm_jinja_collect(run, call->self, &items) ||
		!llm_jinja_make_path(run, call->slot[1], &path))
		return false;
	if (items->n_items == 0)
		return llm_jinja_make_undefined_hint(
			run, "No aggregated item, sequence was empty.", out);
	path.ignores_case = !llm_jinja_flag(call->slot[0], false);
	for (size_t i = 0; i < items->n_items; i++)
	{
		bool better = i == 0;

		if (!llm_jinja_follow_path(run, &path, items->items[i], &pair[0]) ||
			(i > 0 && !llm_jinja_order(run, order, pair, &better)))
			return false;
		if (!better)
			continue;
		pair[1] = pair[0];
		*out = items->items[i];
	}
	return true;
}

static bool
filter_min(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return find_extreme(run, call, LLM_JINJA_LESS, out);
}

static bool
filter_max(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	return find_extreme(run, call, LLM_JINJA_GREATER, out);
}

static bool
filter_sum(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaList *items;
	LlmJinjaPath path;

	*out = call->slot[1].kind == LLM_JINJA_MISSING ? llm_jinja_int(0)
												   : call->slot[1];
	if (out->kind == LLM_JINJA_STRING)
		return llm_jinja_fail(run, "sum() can't sum strings [use ''.join(seq) "
								   "instead]");
	if (!llm_jinja_collect(run, call->self, &items) ||
		!llm_jinja_make_path(run, call->slot[0], &path))
		return false;
	for (size_t i = 0; i < items->n_items; i++)
	{
		LlmJinjaValue item;

		if (!llm_jinja_follow_path(run, &path, items->items[i], &item) ||
			!llm_jinja_operate(run, LLM_JINJA_ADD, *out, item, out))
			return false;
	}
	return true;
}

static bool
filter_join(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue separator = call->slot[0];
	LlmJinjaList *items;
	LlmJinjaPath path;
	LlmStrbuf buf;
	bool ok = true;

	if (!llm_jinja_collect(run, call->self, &items) ||
		!llm_jinja_make_path(run, call->slot[1], &path))
		return false;
	llm_jinja_init_buffer(&buf);
	for (size_t i = 0; ok && i < items->n_items; i++)
	{
		LlmJinjaValue item;

		if (i > 0 && separator.kind != LLM_JINJA_MISSING)
			ok = llm_jinja_print(run, separator, &buf);
		ok = ok && llm_jinja_follow_path(run, &path, items->items[i], &item) &&
			 llm_jinja_print(run, item, &buf);
	}
	return llm_jinja_finish_string(run, &buf, ok, out);
}

static bool
filter_length(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	int64_t length;

	if (call->self.kind == LLM_JINJA_LOOP)
	{
		if (!llm_jinja_loop_length(run, call->self.loop, &length))
			return false;
	}
	else if (!llm_jinja_length(call->self, &length))
		return llm_jinja_fail(run, "object of type '%s' has no len()",
							  llm_jinja_type_name(call->self));
	*out = llm_jinja_int(length);
	return true;
}

const LlmJinjaBuiltin *
llm_jinja_find_list_filter(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "length", "", filter_length },
		{ "count", "", filter_length },
		{ "first", "", filter_first },
		{ "last", "", filter_last },
		{ "list", "", filter_list },
		{ "join", "d? attribute?", filter_join },
		{ "map", NULL, filter_map },
		{ "select", NULL, filter_select },
		{ "reject", NULL, filter_reject },
		{ "selectattr", NULL, filter_selectattr },
		{ "rejectattr", NULL, filter_rejectattr },
		{ "items", "", filter_items },
		{ "reverse", "", filter_reverse },
		{ "sort", "reverse? case_sensitive? attribute?", filter_sort },
		{ "dictsort", "case_sensitive? by? reverse?", filter_dictsort },
		{ "unique", "case_sensitive? attribute?", filter_unique },
		{ "groupby", "attribute default? case_sensitive?", filter_groupby },
		{ "min", "case_sensitive? attribute?", filter_min },
		{ "max", "case_sensitive? attribute?", filter_max },
		{ "sum", "attribute? start?", filter_sum },
		{ "batch", "linecount fill_with?", filter_batch },
		{ "slice", "slices fill_with?", filter_slice },
	};

	return llm_jinja_find_builtin(table, sizeof(table) / sizeof(table[0]), name,
								  len);
}
