/*
 * jinja_str_methods.h
 *	  What the two files of methods of texts share.
 *
 * src/common/template/jinja_str_methods.h
 */
#ifndef LLM_JINJA_STR_METHODS_H
#define LLM_JINJA_STR_METHODS_H

#include "src/common/template/jinja_object.h"

/* NULL: no method that splits or joins. */
extern const LlmJinjaBuiltin *
llm_jinja_find_split_method(const char *name, size_t len);

extern bool llm_jinja_want_text(LlmJinjaRun *run, LlmJinjaValue value,
								const LlmJinjaString **text);

/* The last occurrence in a run of bytes, or NULL. */
extern const char *
llm_jinja_find_last(const char *data, size_t len, const LlmJinjaString *needle);

/* What finding it may cost where every place nearly fits. */
extern bool llm_jinja_charge_backward(LlmJinjaRun *run, size_t len,
									  const LlmJinjaString *needle);

#endif /* LLM_JINJA_STR_METHODS_H */
