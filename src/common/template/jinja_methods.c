/*
 * jinja_methods.c
 *	  The methods of lists, dicts, numbers, loops and the like.
 *
 * Methods that would change a list or dict are listed without a function:
 * they exist, and using them is refused.
 *
 * src/common/template/jinja_methods.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/common/template/jinja_object.h"

/* ---- dicts ---- */

static bool
make_view(const LlmJinjaCall *call, LlmJinjaViewPart part, LlmJinjaValue *out)
{
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_VIEW,
							.view_part = (uint8_t) part,
							.dict = call->self.dict };
	return true;
}

static bool
dict_keys(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return make_view(call, LLM_JINJA_KEYS, out);
}

static bool
dict_values(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return make_view(call, LLM_JINJA_VALUES, out);
}

static bool
dict_items(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	return make_view(call, LLM_JINJA_ITEMS, out);
}

static bool
dict_get(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	if (!llm_jinja_dict_get(run, call->self.dict, call->slot[0], out))
		return false;
	if (out->kind == LLM_JINJA_MISSING)
		*out = call->slot[1].kind == LLM_JINJA_MISSING ? llm_jinja_none()
													   : call->slot[1];
	return true;
}

/* Values do not change, so a copy is the thing itself. */
static bool
copy_self(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	*out = call->self;
	return true;
}

/* ---- lists, tuples and ranges ---- */

static bool
count_items(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaList *items;
	int64_t count = 0;

	if (!llm_jinja_collect(run, call->self, &items))
		return false;
	for (size_t i = 0; i < items->n_items; i++)
	{
		bool same;

		if (!llm_jinja_equal(run, items->items[i], call->slot[0], &same))
			return false;
		count += same;
	}
	*out = llm_jinja_int(count);
	return true;
}

/* A start or stop of index(), counted from the end where negative. */
static bool
want_bound(LlmJinjaRun *run, LlmJinjaValue value, int64_t length,
		   int64_t *bound)
{
	if (value.kind == LLM_JINJA_MISSING)
		return true;
	if (!llm_jinja_as_int(value, bound))
		return llm_jinja_fail(run, "slice indices must be integers or have an "
								   "__index__ method");
	if (*bound < 0)
		*bound = *bound < -length ? 0 : *bound + length;
	return true;
}

static bool
index_of_item(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaList *items;
	LlmStrbuf repr;
	int64_t start = 0;
	int64_t stop;

	if (!llm_jinja_collect(run, call->self, &items))
		return false;
	stop = (int64_t) items->n_items;
	if (!want_bound(run, call->slot[1], (int64_t) items->n_items, &start) ||
		!want_bound(run, call->slot[2], (int64_t) items->n_items, &stop))
		return false;
	for (int64_t i = start; i < stop && i < (int64_t) items->n_items; i++)
	{
		bool same;

		if (!llm_jinja_equal(run, items->items[i], call->slot[0], &same))
			return false;
		*out = llm_jinja_int(i);
		if (same)
			return true;
	}
	if (call->self.kind == LLM_JINJA_TUPLE)
		return llm_jinja_fail(run, "tuple.index(x): x not in tuple");
	llm_jinja_init_buffer(&repr);
	if (llm_jinja_repr(run, call->slot[0], &repr))
		llm_jinja_fail(run, "%s is not in %s", llm_strbuf_str(&repr),
					   llm_jinja_type_name(call->self));
	llm_strbuf_free(&repr);
	return false;
}

/* ---- numbers ---- */

static bool
float_is_integer(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	*out = llm_jinja_bool(isfinite(call->self.real) &&
						  call->self.real == floor(call->self.real));
	return true;
}

static bool
int_bit_length(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	int64_t integer;
	uint64_t magnitude;
	int64_t n_bits = 0;

	if (!llm_jinja_as_int(call->self, &integer))
		return llm_jinja_fail(run, "integer arithmetic beyond 64 bits is not "
								   "supported");
	magnitude = integer < 0 ? 0 - (uint64_t) integer : (uint64_t) integer;
	for (; magnitude != 0; magnitude >>= 1)
		n_bits++;
	*out = llm_jinja_int(n_bits);
	return true;
}

/* ---- loops and cyclers ---- */

static bool
loop_cycle(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	const LlmJinjaArgs *args = call->args;

	if (args->n_args == 0 || args->n_kwargs > 0)
		return llm_jinja_fail(run, "no items for cycling given");
	*out = args->args[(size_t) call->self.loop->index0 % args->n_args];
	return true;
}

static bool
loop_changed(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaLoop *loop = call->self.loop;
	LlmJinjaList *given = llm_jinja_create_list(run, call->args->n_args);
	LlmJinjaValue now;
	bool same = false;

	if (given == NULL)
		return false;
	for (size_t i = 0; i < call->args->n_args; i++)
		given->items[i] = call->args->args[i];
	given->n_items = call->args->n_args;
	now = llm_jinja_tuple(given);
	if (loop->last_changed.kind != LLM_JINJA_MISSING &&
		!llm_jinja_equal(run, loop->last_changed, now, &same))
		return false;
	loop->last_changed = now;
	*out = llm_jinja_bool(!same);
	return true;
}

static bool
cycler_next(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaCycler *cycler = call->self.cycler;

	(void) run;
	*out = cycler->items->items[cycler->position];
	cycler->position = (cycler->position + 1) % cycler->items->n_items;
	return true;
}

static bool
cycler_reset(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	(void) run;
	call->self.cycler->position = 0;
	*out = llm_jinja_none();
	return true;
}

/* ---- which type has which ---- */

#define FIND_IN(table, name, len) \
	llm_jinja_find_builtin(table, sizeof(table) / sizeof((table)[0]), name, len)

static const LlmJinjaBuiltin *
find_dict_method(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "get", "key/ default?/", dict_get },
		{ "items", "", dict_items },
		{ "keys", "", dict_keys },
		{ "values", "", dict_values },
		{ "copy", "", copy_self },
		{ "clear", NULL, NULL },
		{ "fromkeys", NULL, NULL },
		{ "pop", NULL, NULL },
		{ "popitem", NULL, NULL },
		{ "setdefault", NULL, NULL },
		{ "update", NULL, NULL },
	};

	return FIND_IN(table, name, len);
}

static const LlmJinjaBuiltin *
find_list_method(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "index", "value/ start?/ stop?/", index_of_item },
		{ "count", "value/", count_items },
		{ "copy", "", copy_self },
		{ "append", NULL, NULL },
		{ "clear", NULL, NULL },
		{ "extend", NULL, NULL },
		{ "insert", NULL, NULL },
		{ "pop", NULL, NULL },
		{ "remove", NULL, NULL },
		{ "reverse", NULL, NULL },
		{ "sort", NULL, NULL },
	};

	return FIND_IN(table, name, len);
}

static const LlmJinjaBuiltin *
find_number_method(LlmJinjaKind kind, const char *name, size_t len)
{
	static const LlmJinjaBuiltin float_table[] = {
		{ "is_integer", "", float_is_integer },
		{ "as_integer_ratio", NULL, NULL },
		{ "conjugate", NULL, NULL },
		{ "fromhex", NULL, NULL },
		{ "hex", NULL, NULL },
		{ "imag", NULL, NULL },
		{ "real", NULL, NULL },
	};
	static const LlmJinjaBuiltin int_table[] = {
		{ "bit_length", "", int_bit_length },
		{ "as_integer_ratio", NULL, NULL },
		{ "bit_count", NULL, NULL },
		{ "conjugate", NULL, NULL },
		{ "denominator", NULL, NULL },
		{ "from_bytes", NULL, NULL },
		{ "imag", NULL, NULL },
		{ "numerator", NULL, NULL },
		{ "real", NULL, NULL },
		{ "to_bytes", NULL, NULL },
	};

	if (kind == LLM_JINJA_FLOAT)
		return FIND_IN(float_table, name, len);
	return FIND_IN(int_table, name, len);
}

static const LlmJinjaBuiltin *
find_loop_method(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "cycle", NULL, loop_cycle },
		{ "changed", NULL, loop_changed },
	};

	return FIND_IN(table, name, len);
}

static const LlmJinjaBuiltin *
find_cycler_method(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "next", "", cycler_next },
		{ "reset", "", cycler_reset },
	};

	return FIND_IN(table, name, len);
}

const LlmJinjaBuiltin *
llm_jinja_find_method(LlmJinjaValue self, const char *name, size_t len)
{
	const LlmJinjaBuiltin *found;

	switch ((LlmJinjaKind) self.kind)
	{
		case LLM_JINJA_STRING:
			return llm_jinja_find_str_method(name, len);
		case LLM_JINJA_DICT:
			return find_dict_method(name, len);
		case LLM_JINJA_LIST:
			return find_list_method(name, len);
		case LLM_JINJA_TUPLE:
		case LLM_JINJA_RANGE:
			/* of the list's methods, those two */
			found = find_list_method(name, len);
			return found != NULL && (found->call == index_of_item ||
									 found->call == count_items)
					   ? found
					   : NULL;
		case LLM_JINJA_BOOL:
		case LLM_JINJA_INT:
		case LLM_JINJA_BIGINT:
		case LLM_JINJA_FLOAT:
			return find_number_method((LlmJinjaKind) self.kind, name, len);
		case LLM_JINJA_LOOP:
			return find_loop_method(name, len);
		case LLM_JINJA_CYCLER:
			return find_cycler_method(name, len);
		default:
			return NULL;
	}
}
