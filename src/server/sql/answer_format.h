/*
 * answer_format.h
 *	  Options that say what an answer has to look like: OpenAI's
 *	  response_format, vLLM's guided_* and structured_outputs.
 *
 * src/server/sql/answer_format.h
 */
#ifndef LLM_ANSWER_FORMAT_H
#define LLM_ANSWER_FORMAT_H

#include "postgres.h"

#include "src/server/sql/grammar_cache.h"

/*
 * Read an option's value (JSON, not null).  The source is palloc'ed; kind
 * NONE where the value leaves the form open.  A value of the wrong shape, or a
 * form that is not supported, is raised by name.
 */
extern LlmGrammarSource
llm_answer_format_read(const char *key, LlmTemplateText value);

/* A choice's source of texts in UTF-8; an empty text is an error. */
extern LlmGrammarSource llm_answer_format_choice(const LlmTemplateText *texts,
												 int n_texts, const char *what);

#endif /* LLM_ANSWER_FORMAT_H */
