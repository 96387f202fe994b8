/*
 * grammar_cache.h
 *	  Grammars compiled once per process and source.
 *
 * src/server/sql/grammar_cache.h
 */
#ifndef LLM_GRAMMAR_CACHE_H
#define LLM_GRAMMAR_CACHE_H

#include "postgres.h"

#include "src/common/template/chat_template.h"
#include "src/common/util/error.h"

typedef enum LlmGrammarKind
{
	LLM_GRAMMAR_NONE = 0,
	LLM_GRAMMAR_JSON_OBJECT, /* any; the source is empty */
	LLM_GRAMMAR_JSON_SCHEMA,
	LLM_GRAMMAR_REGEX,
	LLM_GRAMMAR_CHOICE, /* texts, each with a NUL behind it */
	LLM_GRAMMAR_GBNF
} LlmGrammarKind;

/* What an answer has to look like; kind NONE: anything. */
typedef struct LlmGrammarSource
{
	LlmGrammarKind kind;
	LlmTemplateText text;
} LlmGrammarSource;

typedef struct LlmGrammarProgram
{
	const uint32 *words;
	uint32 n_words;
} LlmGrammarProgram;

/*
 * The program of a source, borrowed until the next call; none for NONE.
 * False: it does not compile.
 */
extern bool llm_grammar_cache_get(LlmGrammarSource source,
								  LlmGrammarProgram *program, LlmError *err);

#endif /* LLM_GRAMMAR_CACHE_H */
