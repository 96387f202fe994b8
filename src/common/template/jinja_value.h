/*
 * jinja_value.h
 *	  Values of the template language: Python's, as far as templates see them.
 *
 * A value is 16 bytes and copied freely; what it points to lives in the
 * arena of the run (or of the compiled template, for constants) and never
 * changes, except for namespaces, cyclers, joiners, iterators and loops.
 *
 * Functions that can fail return false with the error recorded in the run.
 *
 * src/common/template/jinja_value.h
 */
#ifndef LLM_JINJA_VALUE_H
#define LLM_JINJA_VALUE_H

#include <signal.h>
#include <time.h>

#include "src/common/template/chat_template.h"
#include "src/common/template/jinja_limits.h"
#include "src/common/util/arena.h"
#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

typedef enum LlmJinjaKind
{
	LLM_JINJA_MISSING, /* no value: an unset variable or argument */
	LLM_JINJA_UNDEFINED,
	LLM_JINJA_NONE,
	LLM_JINJA_BOOL,
	LLM_JINJA_INT,
	LLM_JINJA_BIGINT, /* decimal digits of what does not fit an int64 */
	LLM_JINJA_FLOAT,
	LLM_JINJA_STRING,
	LLM_JINJA_LIST,
	LLM_JINJA_TUPLE,
	LLM_JINJA_DICT,
	LLM_JINJA_VIEW, /* dict.keys(), .values(), .items() */
	LLM_JINJA_RANGE,
	LLM_JINJA_ITERATOR, /* used up by iterating: map(), reverse, ... */
	LLM_JINJA_NAMESPACE,
	LLM_JINJA_LOOP,
	LLM_JINJA_MACRO,
	LLM_JINJA_METHOD, /* a built-in method and its object */
	LLM_JINJA_FUNCTION,
	LLM_JINJA_CYCLER,
	LLM_JINJA_JOINER
} LlmJinjaKind;

typedef enum LlmJinjaViewPart
{
	LLM_JINJA_KEYS,
	LLM_JINJA_VALUES,
	LLM_JINJA_ITEMS
} LlmJinjaViewPart;

typedef struct LlmJinjaString
{
	const char *data; /* valid UTF-8, not NUL-terminated */
	size_t len;		  /* bytes */
	size_t n_chars;
	bool is_markup; /* result of the safe and escape filters */
} LlmJinjaString;

typedef struct LlmJinjaValue
{
	uint8_t kind;	   /* an LlmJinjaKind */
	uint8_t view_part; /* VIEW: an LlmJinjaViewPart */
	bool is_group;	   /* TUPLE: made by groupby, has .grouper and .list */
	union
	{
		bool boolean;
		int64_t integer;
		double real;
		const LlmJinjaString *string; /* also BIGINT */
		struct LlmJinjaUndefined *undefined;
		struct LlmJinjaList *list; /* also TUPLE */
		struct LlmJinjaDict *dict; /* also VIEW and NAMESPACE */
		struct LlmJinjaRange *range;
		struct LlmJinjaIterator *iterator;
		struct LlmJinjaLoop *loop;
		struct LlmJinjaMacro *macro;
		struct LlmJinjaMethod *method;
		const struct LlmJinjaBuiltin *function;
		struct LlmJinjaCycler *cycler;
		struct LlmJinjaJoiner *joiner;
	};
} LlmJinjaValue;

_Static_assert(sizeof(LlmJinjaValue) == 16, "values are copied everywhere");

typedef struct LlmJinjaUndefined
{
	const char *hint;  /* the whole message, or NULL */
	const char *owner; /* type of the object that lacks it; NULL: a variable */
	LlmJinjaValue name;
} LlmJinjaUndefined;

typedef struct LlmJinjaList
{
	LlmJinjaValue *items;
	size_t n_items;
	size_t capacity;
} LlmJinjaList;

typedef struct LlmJinjaEntry
{
	LlmJinjaValue key;
	LlmJinjaValue value;
	uint64_t hash;
} LlmJinjaEntry;

/* Entries in insertion order; an index once a linear search would be slow. */
typedef struct LlmJinjaDict
{
	LlmJinjaEntry *entries;
	size_t n_entries;
	size_t capacity;
	uint32_t *buckets; /* entry number + 1; NULL while small */
	size_t n_buckets;  /* a power of two */
	bool is_printing;  /* cuts the repr of a namespace within itself */
} LlmJinjaDict;

typedef struct LlmJinjaRange
{
	int64_t start;
	int64_t stop;
	int64_t step;
	int64_t n_items;
} LlmJinjaRange;

/* In wrapping arithmetic: a step may be as long as the whole type. */
static inline int64_t
llm_jinja_range_item(const LlmJinjaRange *range, int64_t index)
{
	return (int64_t) ((uint64_t) range->start +
					  (uint64_t) index * (uint64_t) range->step);
}

/* Which statement is being left early. */
typedef enum LlmJinjaJump
{
	LLM_JINJA_NO_JUMP,
	LLM_JINJA_BREAK,
	LLM_JINJA_CONTINUE
} LlmJinjaJump;

/* One compilation or one rendering: where memory comes from and errors go. */
typedef struct LlmJinjaRun
{
	LlmArena *arena;
	LlmError *err;
	uint64_t n_steps;
	int depth;
	int line; /* of the node at work, for messages; 0 = none */
	const volatile sig_atomic_t *interrupt;

	/* rendering only */
	LlmStrbuf *out;
	const LlmStrbuf *page;	 /* the out that is the text itself */
	LlmTemplateSpans *spans; /* of generation blocks, or NULL */
	LlmJinjaDict *variables; /* what the caller gave */
	LlmJinjaDict *exported;	 /* top-level assignments, for {% block %} */
	LlmJinjaJump jump;
	time_t now;
} LlmJinjaRun;

/* ---- errors, memory, bounds ---- */

/* LLM_ERROR_TEMPLATE with the line.  Always returns false. */
extern bool llm_jinja_fail(LlmJinjaRun *run, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* What using an undefined value raises. */
extern bool llm_jinja_fail_undefined(LlmJinjaRun *run, LlmJinjaValue value);

/* NULL: the memory bound is reached, and the error is recorded. */
extern void *llm_jinja_alloc(LlmJinjaRun *run, size_t n_bytes);

/* Count work; false when the bound is reached or an interrupt is pending. */
extern bool llm_jinja_charge(LlmJinjaRun *run, size_t n_steps);

/* ---- making values ---- */

static inline LlmJinjaValue
llm_jinja_missing(void)
{
	return (LlmJinjaValue){ .kind = LLM_JINJA_MISSING };
}

static inline LlmJinjaValue
llm_jinja_none(void)
{
	return (LlmJinjaValue){ .kind = LLM_JINJA_NONE };
}

static inline LlmJinjaValue
llm_jinja_bool(bool boolean)
{
	return (LlmJinjaValue){ .kind = LLM_JINJA_BOOL, .boolean = boolean };
}

static inline LlmJinjaValue
llm_jinja_int(int64_t integer)
{
	return (LlmJinjaValue){ .kind = LLM_JINJA_INT, .integer = integer };
}

static inline LlmJinjaValue
llm_jinja_float(double real)
{
	return (LlmJinjaValue){ .kind = LLM_JINJA_FLOAT, .real = real };
}

static inline LlmJinjaValue
llm_jinja_text(const LlmJinjaString *string)
{
	return (LlmJinjaValue){ .kind = LLM_JINJA_STRING, .string = string };
}

static inline bool
llm_jinja_is(LlmJinjaValue value, LlmJinjaKind kind)
{
	return value.kind == kind;
}

/* The bytes are copied, or borrowed for as long as the run lasts. */
extern bool llm_jinja_copy_string(LlmJinjaRun *run, const char *data,
								  size_t len, LlmJinjaValue *out);
extern bool llm_jinja_borrow_string(LlmJinjaRun *run, const char *data,
									size_t len, LlmJinjaValue *out);

/*
 * The usual end of a function that builds text: frees the buffer, and where
 * ok holds and the buffer did not fail, returns its text as a string.
 */
extern bool llm_jinja_finish_string(LlmJinjaRun *run, LlmStrbuf *buf, bool ok,
									LlmJinjaValue *out);

/* A buffer for building text, bounded like everything else. */
extern void llm_jinja_init_buffer(LlmStrbuf *buf);

/* Undefined: a variable (owner NULL), or something that owner lacks. */
extern bool llm_jinja_make_undefined(LlmJinjaRun *run, const char *owner,
									 LlmJinjaValue name, LlmJinjaValue *out);
extern bool llm_jinja_make_undefined_hint(LlmJinjaRun *run, const char *hint,
										  LlmJinjaValue *out);

extern LlmJinjaList *llm_jinja_create_list(LlmJinjaRun *run, size_t capacity);
extern bool
llm_jinja_push(LlmJinjaRun *run, LlmJinjaList *list, LlmJinjaValue item);
extern bool llm_jinja_make_pair(LlmJinjaRun *run, LlmJinjaValue first,
								LlmJinjaValue second, LlmJinjaValue *out);

static inline LlmJinjaValue
llm_jinja_list(LlmJinjaList *list)
{
	return (LlmJinjaValue){ .kind = LLM_JINJA_LIST, .list = list };
}

static inline LlmJinjaValue
llm_jinja_tuple(LlmJinjaList *list)
{
	return (LlmJinjaValue){ .kind = LLM_JINJA_TUPLE, .list = list };
}

/* ---- dictionaries ---- */

extern LlmJinjaDict *llm_jinja_create_dict(LlmJinjaRun *run);

/* An unhashable key is an error.  An existing key keeps its place. */
extern bool llm_jinja_dict_set(LlmJinjaRun *run, LlmJinjaDict *dict,
							   LlmJinjaValue key, LlmJinjaValue value);

/* MISSING where absent. */
extern bool llm_jinja_dict_get(LlmJinjaRun *run, const LlmJinjaDict *dict,
							   LlmJinjaValue key, LlmJinjaValue *out);
extern LlmJinjaValue
llm_jinja_dict_find(const LlmJinjaDict *dict, const char *key, size_t len);

/* ---- asking values ---- */

extern bool llm_jinja_truth(LlmJinjaValue value);
extern const char *llm_jinja_type_name(LlmJinjaValue value);
extern bool llm_jinja_is_hashable(LlmJinjaValue value);

/* Bool, int or float; a bool counts as 0 or 1. */
extern bool llm_jinja_is_number(LlmJinjaValue value);

/* True and *integer set for INT and BOOL. */
extern bool llm_jinja_as_int(LlmJinjaValue value, int64_t *integer);

/* False where the type has no length. */
extern bool llm_jinja_length(LlmJinjaValue value, int64_t *length);

extern bool llm_jinja_string_is(LlmJinjaValue value, const char *text);

/* ---- comparing (jinja_compare.c) ---- */

typedef enum LlmJinjaOrder
{
	LLM_JINJA_LESS,
	LLM_JINJA_LESS_EQUAL,
	LLM_JINJA_GREATER,
	LLM_JINJA_GREATER_EQUAL
} LlmJinjaOrder;

extern uint64_t llm_jinja_hash(LlmJinjaValue value);
extern bool llm_jinja_equal(LlmJinjaRun *run, LlmJinjaValue a, LlmJinjaValue b,
							bool *result);
extern bool llm_jinja_order(LlmJinjaRun *run, LlmJinjaOrder order,
							const LlmJinjaValue pair[2], bool *result);
extern bool llm_jinja_contains(LlmJinjaRun *run, LlmJinjaValue container,
							   LlmJinjaValue item, bool *result);

/* Stable; keys and items move together.  items may equal keys. */
extern bool llm_jinja_sort(LlmJinjaRun *run, LlmJinjaValue *keys,
						   LlmJinjaValue *items, size_t n, bool reverse);

/* ---- printing (jinja_print.c) ---- */

/* Python's str() and repr(). */
extern bool
llm_jinja_print(LlmJinjaRun *run, LlmJinjaValue value, LlmStrbuf *buf);
extern bool
llm_jinja_repr(LlmJinjaRun *run, LlmJinjaValue value, LlmStrbuf *buf);
extern bool
llm_jinja_to_string(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaValue *out);
extern void llm_jinja_print_float(double real, LlmStrbuf *buf);

/* Copy with &, <, >, ' and " escaped for HTML. */
extern void llm_jinja_escape_html(const LlmJinjaString *string, LlmStrbuf *buf);

/* ---- iterating (jinja_iterate.c) ---- */

typedef struct LlmJinjaIterator LlmJinjaIterator;

/* Produces the next item, or MISSING at the end. */
typedef bool (*LlmJinjaNext)(LlmJinjaRun *run, LlmJinjaIterator *iterator,
							 LlmJinjaValue *item);

struct LlmJinjaIterator
{
	LlmJinjaNext next;
	const char *type_name;
	LlmJinjaValue source;
	int64_t position;
	void *state; /* of a generator */
};

/* "'int' object is not iterable" where it is not. */
extern bool llm_jinja_iterate(LlmJinjaRun *run, LlmJinjaValue value,
							  LlmJinjaIterator **out);
extern bool llm_jinja_is_iterable(LlmJinjaValue value);
extern bool llm_jinja_next(LlmJinjaRun *run, LlmJinjaIterator *iterator,
						   LlmJinjaValue *item);

/* Python's list(). */
extern bool
llm_jinja_collect(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaList **out);

/* Python's reversed(): "'int' object is not reversible". */
extern bool
llm_jinja_reversed(LlmJinjaRun *run, LlmJinjaValue value, LlmJinjaValue *out);

/* A generator: an iterator over what a function of ours produces. */
extern bool
llm_jinja_make_generator(LlmJinjaRun *run, LlmJinjaNext next,
						 LlmJinjaValue source, void *state, LlmJinjaValue *out);

/* ---- JSON (jinja_json.c, jinja_tojson.c) ---- */

/* "what" names the text in messages: "messages".  It outlives the run. */
extern bool llm_jinja_read_json(LlmJinjaRun *run, const char *text, size_t len,
								const char *what, LlmJinjaValue *out);

typedef struct LlmJinjaDumpStyle
{
	bool ensure_ascii;
	bool sort_keys;
	const LlmJinjaString *indent; /* NULL: one line */
	const LlmJinjaString *item_separator;
	const LlmJinjaString *key_separator;
} LlmJinjaDumpStyle;

extern bool
llm_jinja_write_json(LlmJinjaRun *run, LlmJinjaValue value,
					 const LlmJinjaDumpStyle *style, LlmStrbuf *buf);

#endif /* LLM_JINJA_VALUE_H */
