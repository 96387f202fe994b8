/*
 * tool_calls.h
 *	  Tools in OpenAI's shape: making a model call one, and reading the calls
 *	  out of its answer.
 *
 * src/server/sql/tool_calls.h
 */
#ifndef LLM_TOOL_CALLS_H
#define LLM_TOOL_CALLS_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "src/common/util/json.h"
#include "src/server/sql/grammar_cache.h"

typedef enum LlmToolChoice
{
	LLM_TOOL_AUTO, /* the model decides */
	LLM_TOOL_NONE,
	LLM_TOOL_FORCED /* the answer is one call or several, and nothing else */
} LlmToolChoice;

/*
 * Read tool_choice: "none", "auto", "required", or {"type": "function",
 * "function": {"name": ...}}.  Where a call is forced, the format of the
 * answer; at most one call unless many are allowed.  Mistakes are raised.
 */
extern LlmToolChoice
llm_tool_choice_read(const cJSON *value, LlmTemplateText tools, bool many,
					 LlmGrammarSource *format);

typedef struct LlmToolCalls
{
	LlmTemplateText content; /* the text before them; borrowed */
	int n_calls;
	StringInfoData json; /* OpenAI's array of them, where there are any */
} LlmToolCalls;

/*
 * The calls in an answer, of the tools that the request has: what stands
 * within <tool_call> tags (Hermes, Qwen), behind [TOOL_CALLS] (Mistral) or
 * <|python_tag|> (Llama 3.1); and, as these marks are special tokens that an
 * answer's text may lack, an answer that is nothing but calls in their form.
 * Everything else is content.
 */
extern void llm_tool_calls_parse(LlmTemplateText answer, LlmTemplateText tools,
								 bool many, LlmToolCalls *calls);

#endif /* LLM_TOOL_CALLS_H */
