/*
 * completion.h
 *	  A call of llm_completion, and the log-probabilities of its response.
 *
 * src/server/sql/completion.h
 */
#ifndef LLM_COMPLETION_H
#define LLM_COMPLETION_H

#include "src/server/sql/batch_call.h"
#include "src/server/sql/generation.h"

#include "lib/stringinfo.h"

typedef struct LlmCompletion
{
	LlmBatchCall batch; /* must be first */
	bool is_chat;
	LlmTemplateText request;
	LlmGenerateOptions options;
	LlmModelHandle *handle;
	LlmPrompt prompt;
	LlmTemplateText prompt_text; /* to be echoed */
	LlmGeneration *choices[LLM_MAX_CHOICES];
	LlmRequest *scoring; /* of the prompt's tokens but the first; or NULL */
	const LlmRequestResult *scores;
} LlmCompletion;

/*
 * Append the value of a choice's "logprobs", as chats or as text completions
 * have it; buf is room for a token's text.
 */
extern void
llm_completion_chat_logprobs(StringInfo json, const LlmCompletion *completion,
							 const LlmGeneration *generation, LlmStrbuf *buf);
extern void
llm_completion_text_logprobs(StringInfo json, const LlmCompletion *completion,
							 const LlmGeneration *generation, LlmStrbuf *buf);

/* The key "prompt_logprobs" with its value, behind a comma. */
extern void
llm_completion_prompt_logprobs(StringInfo json, const LlmCompletion *completion,
							   LlmStrbuf *buf);

#endif /* LLM_COMPLETION_H */
