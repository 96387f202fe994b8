/*
 * jinja_loop.c
 *	  The "loop" variable: where a for loop is, and what comes next.
 *
 * Items are fetched as late as possible; asking for the length or the next
 * item fetches ahead.
 *
 * src/common/template/jinja_loop.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/template/jinja_object.h"

bool
llm_jinja_make_loop(LlmJinjaRun *run, LlmJinjaValue iterable,
					LlmJinjaLoop **out)
{
	LlmJinjaLoop *loop = llm_jinja_alloc(run, sizeof(*loop));

	if (loop == NULL)
		return false;
	memset(loop, 0, sizeof(*loop));
	loop->iterable = iterable;
	loop->index0 = -1;
	loop->length = -1;
	*out = loop;
	return llm_jinja_iterate(run, iterable, &loop->iterator);
}

bool
llm_jinja_loop_next(LlmJinjaRun *run, LlmJinjaLoop *loop, LlmJinjaValue *item)
{
	if (loop->after.kind != LLM_JINJA_MISSING)
	{
		*item = loop->after;
		loop->after = llm_jinja_missing();
	}
	else if (!llm_jinja_next(run, loop->iterator, item))
		return false;
	if (item->kind == LLM_JINJA_MISSING)
		return true;
	loop->index0++;
	loop->before = loop->current;
	loop->current = *item;
	return true;
}

bool
llm_jinja_loop_length(LlmJinjaRun *run, LlmJinjaLoop *loop, int64_t *length)
{
	LlmJinjaValue rest;
	LlmJinjaList *items;

	if (loop->length < 0 && !llm_jinja_length(loop->iterable, &loop->length))
	{
		rest = (LlmJinjaValue){ .kind = LLM_JINJA_ITERATOR,
								.iterator = loop->iterator };
		if (!llm_jinja_collect(run, rest, &items) ||
			!llm_jinja_iterate(run, llm_jinja_list(items), &loop->iterator))
			return false;
		loop->length = (int64_t) items->n_items + loop->index0 + 1 +
					   (loop->after.kind != LLM_JINJA_MISSING);
	}
	*length = loop->length;
	return true;
}

/* The item after this one, kept for the next turn; MISSING at the end. */
static bool
peek(LlmJinjaRun *run, LlmJinjaLoop *loop)
{
	return loop->after.kind != LLM_JINJA_MISSING ||
		   llm_jinja_next(run, loop->iterator, &loop->after);
}

static bool
neighbour(LlmJinjaRun *run, LlmJinjaLoop *loop, bool is_next,
		  LlmJinjaValue *out)
{
	if (is_next && !peek(run, loop))
		return false;
	*out = is_next ? loop->after : loop->before;
	if (is_next ? out->kind != LLM_JINJA_MISSING : loop->index0 > 0)
		return true;
	return llm_jinja_make_undefined_hint(
		run, is_next ? "there is no next item" : "there is no previous item",
		out);
}

bool
llm_jinja_loop_attribute(LlmJinjaRun *run, LlmJinjaValue value,
						 const LlmJinjaString *name, LlmJinjaValue *out)
{
	LlmJinjaLoop *loop = value.loop;
	LlmJinjaValue key = llm_jinja_text(name);
	int64_t length;

	*out = llm_jinja_missing();
	if (llm_jinja_string_is(key, "index0"))
		*out = llm_jinja_int(loop->index0);
	else if (llm_jinja_string_is(key, "index"))
		*out = llm_jinja_int(loop->index0 + 1);
	else if (llm_jinja_string_is(key, "first"))
		*out = llm_jinja_bool(loop->index0 == 0);
	else if (llm_jinja_string_is(key, "depth0"))
		*out = llm_jinja_int(loop->depth0);
	else if (llm_jinja_string_is(key, "depth"))
		*out = llm_jinja_int(loop->depth0 + 1);
	else if (llm_jinja_string_is(key, "last"))
	{
		if (!peek(run, loop))
			return false;
		*out = llm_jinja_bool(loop->after.kind == LLM_JINJA_MISSING);
	}
	else if (llm_jinja_string_is(key, "previtem"))
		return neighbour(run, loop, false, out);
	else if (llm_jinja_string_is(key, "nextitem"))
		return neighbour(run, loop, true, out);
	else if (llm_jinja_string_is(key, "length") ||
			 llm_jinja_string_is(key, "revindex") ||
			 llm_jinja_string_is(key, "revindex0"))
	{
		if (!llm_jinja_loop_length(run, loop, &length))
			return false;
		if (name->len > 6)
			length -= loop->index0 + (name->len == 9);
		*out = llm_jinja_int(length);
	}
	return true;
}
