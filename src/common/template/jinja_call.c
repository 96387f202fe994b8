/*
 * jinja_call.c
 *	  Calls: binding arguments, the global functions, callable objects.
 *
 * src/common/template/jinja_call.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_ast.h"
#include "src/common/template/jinja_object.h"

/* ---- binding arguments to the parameters of a built-in ---- */

typedef struct Param
{
	const char *name;
	size_t len;
	bool optional;
	bool positional_only;
} Param;

/* Read one parameter of the list and go past it. */
static bool
next_param(const char **list, Param *param)
{
	const char *at = *list;

	while (*at == ' ')
		at++;
	if (*at == '\0')
		return false;
	memset(param, 0, sizeof(*param));
	param->name = at;
	while (*at != '\0' && *at != ' ' && *at != '?' && *at != '/')
		at++;
	param->len = (size_t) (at - param->name);
	for (; *at == '?' || *at == '/'; at++)
		if (*at == '?')
			param->optional = true;
		else
			param->positional_only = true;
	*list = at;
	return true;
}

static bool
bind_kwargs(LlmJinjaRun *run, const LlmJinjaBuiltin *builtin,
			const LlmJinjaArgs *args, LlmJinjaCall *call)
{
	for (size_t i = 0; i < args->n_kwargs; i++)
	{
		const LlmJinjaString *name = args->kwargs[i].name;
		const char *list = builtin->params;
		Param param;
		size_t slot = 0;
		bool found = false;

		for (; !found && next_param(&list, &param); slot++)
			found = !param.positional_only && param.len == name->len &&
					memcmp(param.name, name->data, name->len) == 0;
		if (!found)
			return llm_jinja_fail(run,
								  "%s() got an unexpected keyword argument "
								  "'%.*s'",
								  builtin->name, (int) name->len, name->data);
		if (call->slot[slot - 1].kind != LLM_JINJA_MISSING)
			return llm_jinja_fail(run,
								  "%s() got multiple values for argument "
								  "'%.*s'",
								  builtin->name, (int) name->len, name->data);
		call->slot[slot - 1] = args->kwargs[i].value;
	}
	return true;
}

static bool
bind_args(LlmJinjaRun *run, const LlmJinjaBuiltin *builtin,
		  const LlmJinjaArgs *args, LlmJinjaCall *call)
{
	const char *list = builtin->params;
	Param param;
	size_t n_params = 0;

	while (next_param(&list, &param))
		n_params++;
	assert(n_params <= LLM_JINJA_MAX_PARAMS);
	if (args->n_args > n_params)
		return llm_jinja_fail(
			run, "%s() takes at most %zu argument%s (%zu given)", builtin->name,
			n_params, n_params == 1 ? "" : "s", args->n_args);
	for (size_t i = 0; i < args->n_args; i++)
		call->slot[i] = args->args[i];
	if (!bind_kwargs(run, builtin, args, call))
		return false;
	list = builtin->params;
	for (size_t i = 0; next_param(&list, &param); i++)
		if (!param.optional && call->slot[i].kind == LLM_JINJA_MISSING)
			return llm_jinja_fail(run, "%s() missing required argument '%.*s'",
								  builtin->name, (int) param.len, param.name);
	return true;
}

bool
llm_jinja_call_builtin(LlmJinjaRun *run, const LlmJinjaBuiltin *builtin,
					   LlmJinjaValue self, const LlmJinjaArgs *args,
					   LlmJinjaValue *out)
{
	LlmJinjaCall call = { .self = self, .args = args };

	if (builtin->call == NULL)
		return llm_jinja_fail(run, "'%s' is not supported", builtin->name);
	if (builtin->params != NULL && !bind_args(run, builtin, args, &call))
		return false;
	return builtin->call(run, &call, out);
}

const LlmJinjaBuiltin *
llm_jinja_find_builtin(const LlmJinjaBuiltin *table, size_t n_entries,
					   const char *name, size_t len)
{
	for (size_t i = 0; i < n_entries; i++)
		if (strlen(table[i].name) == len &&
			memcmp(table[i].name, name, len) == 0)
			return &table[i];
	return NULL;
}

/* ---- global functions ---- */

static bool
range_argument(LlmJinjaRun *run, LlmJinjaValue value, int64_t *integer)
{
	if (llm_jinja_as_int(value, integer))
		return true;
	if (value.kind == LLM_JINJA_BIGINT)
		return llm_jinja_fail(run, "range() argument is too large");
	return llm_jinja_fail(run,
						  "'%s' object cannot be interpreted as an integer",
						  llm_jinja_type_name(value));
}

static bool
call_range(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaRange *range = llm_jinja_alloc(run, sizeof(*range));
	bool has_stop = call->slot[1].kind != LLM_JINJA_MISSING;
	__int128 distance;
	__int128 step;

	if (range == NULL)
		return false;
	range->start = 0;
	range->step = 1;
	if (!range_argument(run, call->slot[0],
						has_stop ? &range->start : &range->stop) ||
		(has_stop && !range_argument(run, call->slot[1], &range->stop)) ||
		(call->slot[2].kind != LLM_JINJA_MISSING &&
		 !range_argument(run, call->slot[2], &range->step)))
		return false;
	if (range->step == 0)
		return llm_jinja_fail(run, "range() arg 3 must not be zero");
	distance = (__int128) range->stop - range->start;
	step = range->step;
	if (step < 0)
	{
		distance = -distance;
		step = -step;
	}
	distance = distance > 0 ? (distance - 1) / step + 1 : 0;
	if (distance > LLM_JINJA_MAX_RANGE)
		return llm_jinja_fail(run,
							  "Range too big. The sandbox blocks ranges larger "
							  "than MAX_RANGE (%d).",
							  LLM_JINJA_MAX_RANGE);
	range->n_items = (int64_t) distance;
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_RANGE, .range = range };
	return true;
}

/* One element of a list of pairs. */
static bool
add_pair(LlmJinjaRun *run, LlmJinjaDict *dict, LlmJinjaValue pair,
		 size_t number)
{
	LlmJinjaList *items;

	if (!llm_jinja_is_iterable(pair))
		return llm_jinja_fail(run,
							  "cannot convert dictionary update sequence "
							  "element #%zu to a sequence",
							  number);
	if (!llm_jinja_collect(run, pair, &items))
		return false;
	if (items->n_items != 2)
		return llm_jinja_fail(run,
							  "dictionary update sequence element #%zu has "
							  "length %zu; 2 is required",
							  number, items->n_items);
	return llm_jinja_dict_set(run, dict, items->items[0], items->items[1]);
}

static bool
add_entries(LlmJinjaRun *run, LlmJinjaDict *dict, LlmJinjaValue source)
{
	LlmJinjaList *pairs;

	if (source.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, source);
	if (source.kind == LLM_JINJA_DICT)
	{
		for (size_t i = 0; i < source.dict->n_entries; i++)
			if (!llm_jinja_dict_set(run, dict, source.dict->entries[i].key,
									source.dict->entries[i].value))
				return false;
		return true;
	}
	if (!llm_jinja_collect(run, source, &pairs))
		return false;
	for (size_t i = 0; i < pairs->n_items; i++)
		if (!add_pair(run, dict, pairs->items[i], i))
			return false;
	return true;
}

bool
llm_jinja_build_dict(LlmJinjaRun *run, const LlmJinjaArgs *args,
					 LlmJinjaDict **out)
{
	LlmJinjaDict *dict = llm_jinja_create_dict(run);

	if (dict == NULL)
		return false;
	if (args->n_args > 1)
		return llm_jinja_fail(run, "dict expected at most 1 argument, got %zu",
							  args->n_args);
	if (args->n_args == 1 && !add_entries(run, dict, args->args[0]))
		return false;
	for (size_t i = 0; i < args->n_kwargs; i++)
		if (!llm_jinja_dict_set(run, dict, llm_jinja_text(args->kwargs[i].name),
								args->kwargs[i].value))
			return false;
	*out = dict;
	return true;
}

static bool
call_dict(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_DICT };
	return llm_jinja_build_dict(run, call->args, &out->dict);
}

static bool
call_namespace(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaDict *given;
	LlmJinjaDict *dict = llm_jinja_create_dict(run);

	if (dict == NULL || !llm_jinja_build_dict(run, call->args, &given))
		return false;
	for (size_t i = 0; i < given->n_entries; i++)
		if (!llm_jinja_set_namespace(run, dict, given->entries[i].key,
									 given->entries[i].value))
			return false;
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_NAMESPACE, .dict = dict };
	return true;
}

/* The message is the template's own word: it passes through as it is. */
static bool
call_raise_exception(LlmJinjaRun *run, const LlmJinjaCall *call,
					 LlmJinjaValue *out)
{
	LlmStrbuf message;

	(void) out;
	llm_jinja_init_buffer(&message);
	if (llm_jinja_print(run, call->slot[0], &message))
	{
		llm_error_set(run->err, LLM_ERROR_TEMPLATE, "%s",
					  llm_strbuf_str(&message));
		llm_error_hint(run->err, "raised by the chat template in line %d",
					   run->line);
	}
	llm_strbuf_free(&message);
	return false;
}

/* Directives that Python answers itself for a time without zone. */
static void
prepare_time_format(const LlmJinjaString *format, LlmStrbuf *buf)
{
	for (size_t i = 0; i < format->len; i++)
	{
		char next = i + 1 < format->len ? format->data[i + 1] : '\0';

		if (format->data[i] != '%' || next == '\0')
			llm_strbuf_append_char(buf, format->data[i]);
		else
		{
			if (next == 'f')
				llm_strbuf_append_str(buf, "000000");
			else if (next != 'z' && next != 'Z')
				llm_strbuf_append(buf, format->data + i, 2);
			i++;
		}
	}
	/* never empty, so that strftime's 0 means "does not fit" */
	llm_strbuf_append_char(buf, '.');
}

static bool
call_strftime_now(LlmJinjaRun *run, const LlmJinjaCall *call,
				  LlmJinjaValue *out)
{
	LlmStrbuf format;
	LlmStrbuf text;
	struct tm now;
	size_t written = 0;

	if (call->slot[0].kind != LLM_JINJA_STRING)
		return llm_jinja_fail(run, "strftime() argument 1 must be str, not %s",
							  llm_jinja_type_name(call->slot[0]));
	if (localtime_r(&run->now, &now) == NULL)
		return llm_jinja_fail(run, "the current time has no calendar date");
	llm_jinja_init_buffer(&format);
	llm_jinja_init_buffer(&text);
	prepare_time_format(call->slot[0].string, &format);
	for (size_t size = 256; written == 0 && !format.failed; size *= 4)
	{
		char *dest = llm_strbuf_reserve(&text, size);

		if (dest == NULL || !llm_jinja_charge(run, size))
			break;
		written = strftime(dest, size, llm_strbuf_str(&format), &now);
	}
	text.len = written > 0 ? written - 1 : 0;
	llm_strbuf_free(&format);
	return llm_jinja_finish_string(run, &text, written > 0, out);
}

static bool
call_cycler(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaCycler *cycler = llm_jinja_alloc(run, sizeof(*cycler));
	const LlmJinjaArgs *args = call->args;

	if (cycler == NULL)
		return false;
	if (args->n_args == 0 || args->n_kwargs > 0)
		return llm_jinja_fail(run, "at least one item has to be provided");
	cycler->position = 0;
	cycler->items = llm_jinja_create_list(run, args->n_args);
	if (cycler->items == NULL)
		return false;
	for (size_t i = 0; i < args->n_args; i++)
		cycler->items->items[i] = args->args[i];
	cycler->items->n_items = args->n_args;
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_CYCLER, .cycler = cycler };
	return true;
}

static bool
call_joiner(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaJoiner *joiner = llm_jinja_alloc(run, sizeof(*joiner));

	if (joiner == NULL)
		return false;
	joiner->used = false;
	joiner->separator = call->slot[0];
	*out = (LlmJinjaValue){ .kind = LLM_JINJA_JOINER, .joiner = joiner };
	return call->slot[0].kind != LLM_JINJA_MISSING ||
		   llm_jinja_borrow_string(run, ", ", 2, &joiner->separator);
}

const LlmJinjaBuiltin *
llm_jinja_find_global(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "raise_exception", "message", call_raise_exception },
		{ "strftime_now", "format", call_strftime_now },
		{ "namespace", NULL, call_namespace },
		{ "range", "start/ stop?/ step?/", call_range },
		{ "dict", NULL, call_dict },
		{ "cycler", NULL, call_cycler },
		{ "joiner", "sep?", call_joiner },
		{ "lipsum", NULL, NULL },
	};

	return llm_jinja_find_builtin(table, sizeof(table) / sizeof(table[0]), name,
								  len);
}

/* ---- calling values ---- */

static bool
call_loop(LlmJinjaRun *run, const LlmJinjaLoop *loop, const LlmJinjaArgs *args,
		  LlmJinjaValue *out)
{
	if (args->n_args != 1 || args->n_kwargs != 0)
		return llm_jinja_fail(run, "loop() takes exactly one argument");
	if (loop->recursive == NULL)
		return llm_jinja_fail(run,
							  "The loop must have the 'recursive' marker to be "
							  "called recursively.");
	return llm_jinja_call_loop(run, loop, args->args[0], out);
}

static bool
use_joiner(LlmJinjaRun *run, LlmJinjaJoiner *joiner, LlmJinjaValue *out)
{
	if (!joiner->used)
	{
		joiner->used = true;
		return llm_jinja_borrow_string(run, "", 0, out);
	}
	*out = joiner->separator;
	return true;
}

static bool
call_value(LlmJinjaRun *run, LlmJinjaValue callee, const LlmJinjaArgs *args,
		   LlmJinjaValue *out)
{
	switch ((LlmJinjaKind) callee.kind)
	{
		case LLM_JINJA_FUNCTION:
			return llm_jinja_call_builtin(run, callee.function,
										  llm_jinja_missing(), args, out);
		case LLM_JINJA_METHOD:
			return llm_jinja_call_builtin(run, callee.method->builtin,
										  callee.method->self, args, out);
		case LLM_JINJA_MACRO:
			return llm_jinja_call_macro(run, callee.macro, args, out);
		case LLM_JINJA_LOOP:
			return call_loop(run, callee.loop, args, out);
		case LLM_JINJA_JOINER:
			return use_joiner(run, callee.joiner, out);
		case LLM_JINJA_UNDEFINED:
			return llm_jinja_fail_undefined(run, callee);
		default:
			return llm_jinja_fail(run, "'%s' object is not callable",
								  llm_jinja_type_name(callee));
	}
}

bool
llm_jinja_call(LlmJinjaRun *run, LlmJinjaValue callee, const LlmJinjaArgs *args,
			   LlmJinjaValue *out)
{
	bool ok;

	if (!llm_jinja_enter(run))
		return false;
	ok = call_value(run, callee, args, out);
	llm_jinja_leave(run);
	return ok;
}
