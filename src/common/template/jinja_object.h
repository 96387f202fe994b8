/*
 * jinja_object.h
 *	  What values with behaviour point to: calls, built-ins, macros, loops.
 *
 * src/common/template/jinja_object.h
 */
#ifndef LLM_JINJA_OBJECT_H
#define LLM_JINJA_OBJECT_H

#include "src/common/template/jinja_value.h"

struct LlmJinjaMacroNode;
struct LlmJinjaForNode;
struct LlmJinjaFrame;

typedef struct LlmJinjaKwarg
{
	const LlmJinjaString *name;
	LlmJinjaValue value;
} LlmJinjaKwarg;

typedef struct LlmJinjaArgs
{
	LlmJinjaValue *args;
	size_t n_args;
	LlmJinjaKwarg *kwargs;
	size_t n_kwargs;
} LlmJinjaArgs;

#define LLM_JINJA_MAX_PARAMS 6

/* A call of a built-in, its arguments bound to the parameters. */
typedef struct LlmJinjaCall
{
	LlmJinjaValue self;						  /* filter input, method object */
	LlmJinjaValue slot[LLM_JINJA_MAX_PARAMS]; /* MISSING where not given */
	const LlmJinjaArgs *args;				  /* as they came */
} LlmJinjaCall;

typedef bool (*LlmJinjaFunction)(LlmJinjaRun *run, const LlmJinjaCall *call,
								 LlmJinjaValue *out);

/*
 * A filter, test, method or global function.  params lists the parameters,
 * separated by spaces: "?" after a name makes it optional, "/" makes it
 * positional only.  params NULL: the function looks at args itself.  call
 * NULL: known to Python, but not to us (or refused by its sandbox).
 */
typedef struct LlmJinjaBuiltin
{
	const char *name;
	const char *params;
	LlmJinjaFunction call;
} LlmJinjaBuiltin;

typedef struct LlmJinjaMethod
{
	LlmJinjaValue self;
	const LlmJinjaBuiltin *builtin;
} LlmJinjaMethod;

typedef struct LlmJinjaMacro
{
	const struct LlmJinjaMacroNode *node;
	struct LlmJinjaFrame *frame; /* where it was defined */
} LlmJinjaMacro;

typedef struct LlmJinjaLoop
{
	LlmJinjaIterator *iterator;
	LlmJinjaValue iterable;
	int64_t index0;
	int64_t length; /* -1: not asked for yet */
	int64_t depth0;
	LlmJinjaValue before;
	LlmJinjaValue current;
	LlmJinjaValue after; /* MISSING: not peeked at */
	LlmJinjaValue last_changed;
	const struct LlmJinjaForNode *recursive; /* NULL: cannot be called */
	struct LlmJinjaFrame *frame;			 /* around the loop */
} LlmJinjaLoop;

typedef struct LlmJinjaCycler
{
	LlmJinjaList *items;
	size_t position;
} LlmJinjaCycler;

typedef struct LlmJinjaJoiner
{
	LlmJinjaValue separator;
	bool used;
} LlmJinjaJoiner;

/* ---- built-ins ---- */

extern const LlmJinjaBuiltin *
llm_jinja_find_filter(const char *name, size_t len);
extern const LlmJinjaBuiltin *llm_jinja_find_test(const char *name, size_t len);
extern const LlmJinjaBuiltin *
llm_jinja_find_global(const char *name, size_t len);

/* NULL: Python's type has no such attribute. */
extern const LlmJinjaBuiltin *
llm_jinja_find_method(LlmJinjaValue self, const char *name, size_t len);

extern const LlmJinjaBuiltin *
llm_jinja_find_str_method(const char *name, size_t len);

extern const LlmJinjaBuiltin *
llm_jinja_find_builtin(const LlmJinjaBuiltin *table, size_t n_entries,
					   const char *name, size_t len);

/* Bind args and call.  "kind" is "filter", "test", ..., for messages. */
extern bool
llm_jinja_call_builtin(LlmJinjaRun *run, const LlmJinjaBuiltin *builtin,
					   LlmJinjaValue self, const LlmJinjaArgs *args,
					   LlmJinjaValue *out);

/* As the above, by the name that a template gave as a value. */
extern bool
llm_jinja_apply_filter(LlmJinjaRun *run, LlmJinjaValue name, LlmJinjaValue self,
					   const LlmJinjaArgs *args, LlmJinjaValue *out);
extern bool
llm_jinja_apply_test(LlmJinjaRun *run, LlmJinjaValue name, LlmJinjaValue self,
					 const LlmJinjaArgs *args, bool *out);

/* ---- texts that methods and filters share (jinja_str_*.c) ---- */

/* The first count occurrences, or all where count is negative. */
extern bool llm_jinja_replace_text(LlmJinjaRun *run, const LlmJinjaString *text,
								   const LlmJinjaString *const from_to[2],
								   int64_t count, LlmJinjaValue *out);
extern bool llm_jinja_split_lines(LlmJinjaRun *run, const LlmJinjaString *text,
								  bool keep_ends, LlmJinjaList **out);
extern bool llm_jinja_change_case(LlmJinjaRun *run, LlmJinjaValue text,
								  int mode, LlmJinjaValue *out);
extern bool llm_jinja_strip(LlmJinjaRun *run, LlmJinjaValue text, int sides,
							LlmJinjaValue chars, LlmJinjaValue *out);
extern bool llm_jinja_center(LlmJinjaRun *run, const LlmJinjaString *text,
							 int64_t width, LlmJinjaValue *out);

/* A copy of the string that is markup, or is none. */
extern bool
llm_jinja_mark(LlmJinjaRun *run, bool is_markup, LlmJinjaValue *text);

/* ---- attributes, items, calls (jinja_access.c, jinja_call.c) ---- */

/* object.name: the attribute, else the item, else undefined. */
extern bool
llm_jinja_get_attribute(LlmJinjaRun *run, LlmJinjaValue object,
						const LlmJinjaString *name, LlmJinjaValue *out);

/* object[key]: the item, else the attribute, else undefined. */
extern bool llm_jinja_get_item(LlmJinjaRun *run, LlmJinjaValue object,
							   LlmJinjaValue key, LlmJinjaValue *out);

/* bounds: start, stop, step; NONE where absent. */
extern bool llm_jinja_slice(LlmJinjaRun *run, LlmJinjaValue object,
							const LlmJinjaValue bounds[3], LlmJinjaValue *out);

/* The bytes of characters [start, start + n) of a string, shared. */
extern bool llm_jinja_substring(LlmJinjaRun *run, const LlmJinjaString *string,
								size_t start, size_t n, LlmJinjaValue *out);

extern bool llm_jinja_call(LlmJinjaRun *run, LlmJinjaValue callee,
						   const LlmJinjaArgs *args, LlmJinjaValue *out);

/* Python's dict(): one mapping or list of pairs at most, then keywords. */
extern bool llm_jinja_build_dict(LlmJinjaRun *run, const LlmJinjaArgs *args,
								 LlmJinjaDict **out);

/* Refuses names that start with an underscore. */
extern bool llm_jinja_set_namespace(LlmJinjaRun *run, LlmJinjaDict *dict,
									LlmJinjaValue name, LlmJinjaValue value);

/* ---- operators (jinja_operator.c) ---- */

typedef enum LlmJinjaOperator
{
	LLM_JINJA_ADD,
	LLM_JINJA_SUBTRACT,
	LLM_JINJA_MULTIPLY,
	LLM_JINJA_DIVIDE,
	LLM_JINJA_FLOOR_DIVIDE,
	LLM_JINJA_MODULO,
	LLM_JINJA_POWER
} LlmJinjaOperator;

extern bool
llm_jinja_operate(LlmJinjaRun *run, LlmJinjaOperator op, LlmJinjaValue left,
				  LlmJinjaValue right, LlmJinjaValue *out);
extern bool
llm_jinja_negate(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaValue *out);
extern bool
llm_jinja_plus(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaValue *out);

/* ---- formatting (jinja_format.c) ---- */

/* Python's "%s" % args and "{}".format(...). */
extern bool
llm_jinja_format_percent(LlmJinjaRun *run, const LlmJinjaString *format,
						 LlmJinjaValue args, LlmJinjaValue *out);
extern bool
llm_jinja_format_braces(LlmJinjaRun *run, const LlmJinjaString *format,
						const LlmJinjaArgs *args, LlmJinjaValue *out);

/* ---- loops (jinja_loop.c) ---- */

extern bool llm_jinja_make_loop(LlmJinjaRun *run, LlmJinjaValue iterable,
								LlmJinjaLoop **out);
extern bool
llm_jinja_loop_next(LlmJinjaRun *run, LlmJinjaLoop *loop, LlmJinjaValue *item);

/* MISSING: loop has no such attribute. */
extern bool
llm_jinja_loop_attribute(LlmJinjaRun *run, LlmJinjaValue loop,
						 const LlmJinjaString *name, LlmJinjaValue *out);
extern bool
llm_jinja_loop_length(LlmJinjaRun *run, LlmJinjaLoop *loop, int64_t *length);

#endif /* LLM_JINJA_OBJECT_H */
