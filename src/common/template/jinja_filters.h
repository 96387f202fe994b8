/*
 * jinja_filters.h
 *	  The filters that live outside of jinja_filters.c, by file.
 *
 * src/common/template/jinja_filters.h
 */
#ifndef LLM_JINJA_FILTERS_H
#define LLM_JINJA_FILTERS_H

#include "src/common/template/jinja_object.h"

/* jinja_{text,page,list}_filters.c; NULL: not theirs */
extern const LlmJinjaBuiltin *
llm_jinja_find_text_filter(const char *name, size_t len);
extern const LlmJinjaBuiltin *
llm_jinja_find_page_filter(const char *name, size_t len);
extern const LlmJinjaBuiltin *
llm_jinja_find_list_filter(const char *name, size_t len);

/* jinja_pprint.c */
extern bool llm_jinja_filter_pprint(LlmJinjaRun *run, const LlmJinjaCall *call,
									LlmJinjaValue *out);

/* ---- looking up "a.b.0" in items (jinja_attribute_path.c) ---- */

typedef struct LlmJinjaPath
{
	LlmJinjaValue *parts;
	size_t n_parts;
	LlmJinjaValue fallback; /* for undefined; MISSING or NONE: none */
	bool ignores_case;		/* texts come out in lower case */
} LlmJinjaPath;

/* attribute: a text with dots, a number; MISSING or NONE: the item itself. */
extern bool llm_jinja_make_path(LlmJinjaRun *run, LlmJinjaValue attribute,
								LlmJinjaPath *path);
extern bool llm_jinja_follow_path(LlmJinjaRun *run, const LlmJinjaPath *path,
								  LlmJinjaValue item, LlmJinjaValue *out);

/* One key per item; attribute may list several paths with commas. */
extern bool llm_jinja_make_keys(LlmJinjaRun *run, const LlmJinjaList *items,
								LlmJinjaValue attribute, bool ignores_case,
								LlmJinjaValue **keys);

/* Was an optional argument given, and is it true? */
static inline bool
llm_jinja_flag(LlmJinjaValue value, bool otherwise)
{
	return value.kind == LLM_JINJA_MISSING ? otherwise : llm_jinja_truth(value);
}

static inline bool
llm_jinja_is_absent(LlmJinjaValue value)
{
	return value.kind == LLM_JINJA_MISSING || value.kind == LLM_JINJA_NONE;
}

/* An optional integer argument, *integer untouched where absent. */
extern bool
llm_jinja_want_int(LlmJinjaRun *run, LlmJinjaValue value, int64_t *integer);

#endif /* LLM_JINJA_FILTERS_H */
