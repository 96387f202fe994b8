/*
 * typed_prompt.h
 *	  What the typed functions say to a model, all in one place.
 *
 * src/server/sql/typed_prompt.h
 */
#ifndef LLM_TYPED_PROMPT_H
#define LLM_TYPED_PROMPT_H

#include "postgres.h"

#include "src/server/sql/generation.h"

/* Two messages, in UTF-8: what to do, and the text to do it with. */
typedef struct LlmTypedPrompt
{
	LlmTemplateText system;
	LlmTemplateText user;
} LlmTypedPrompt;

/* All palloc what they return, and borrow the input. */
extern LlmTypedPrompt
llm_prompt_classify(LlmTemplateText input, const LlmTemplateText *labels,
					int n_labels);
extern LlmTypedPrompt
llm_prompt_filter(LlmTemplateText input, LlmTemplateText condition);
extern LlmTypedPrompt
llm_prompt_extract(LlmTemplateText input, LlmTemplateText schema);

/* Part of an aggregate's inputs, or answers for parts of them. */
extern LlmTypedPrompt
llm_prompt_aggregate(LlmTemplateText texts, LlmTemplateText instruction,
					 bool are_answers);

/*
 * The two as messages; as one message of the user where the template knows no
 * system's.
 */
extern LlmPromptMessages
llm_prompt_messages(const LlmTypedPrompt *prompt, bool with_system);

#endif /* LLM_TYPED_PROMPT_H */
