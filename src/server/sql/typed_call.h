/*
 * typed_call.h
 *	  What the typed functions have in common: one question whose answer's
 *	  form a grammar decides.
 *
 * src/server/sql/typed_call.h
 */
#ifndef LLM_TYPED_CALL_H
#define LLM_TYPED_CALL_H

#include "postgres.h"

#include "src/server/sql/batch_call.h"
#include "src/server/sql/generation.h"
#include "src/server/sql/typed_prompt.h"

typedef struct LlmTypedCall
{
	LlmBatchCall batch; /* must be first */
	LlmGenerateOptions options;
	LlmGeneration *generation;
} LlmTypedCall;

/* An array of labels: as given, and in UTF-8. */
typedef struct LlmLabels
{
	int n_labels;
	text **values;
	LlmTemplateText *texts;
} LlmLabels;

/* Read an argument that holds labels: at least one, and none NULL. */
extern void
llm_labels_argument(FunctionCallInfo fcinfo, int arg, LlmLabels *labels);

/*
 * Read the arguments "adapter" and, behind it, "options".  Where the caller is
 * silent the answer is the most probable one, and models that think aloud are
 * asked not to.
 */
extern void llm_typed_call_read(LlmTypedCall *call, FunctionCallInfo fcinfo,
								int adapter_arg);

/* Models that think aloud are asked not to, unless the caller says otherwise. */
extern void llm_typed_answer_at_once(LlmGenerateOptions *options);

/* The same without a caller's options. */
extern void llm_typed_call_init(LlmTypedCall *call);

/* The prompt's tokens, as submit makes them. */
extern bool
llm_typed_call_prompt(const LlmTypedCall *call, LlmModelHandle *handle,
					  const LlmTypedPrompt *typed, LlmPrompt *prompt,
					  LlmError *err);

/*
 * Submit the prompt, its answer in the form of call->options.format; what
 * fails is in call->batch.err.
 */
extern void llm_typed_call_submit(LlmTypedCall *call,
								  const LlmTypedPrompt *prompt, bool is_batch);

/* LlmBatchOps.advance */
extern bool llm_typed_call_advance(LlmBatchCall *batch);

/*
 * The complete answer, in UTF-8; borrowed.  False: it was cut, and that is in
 * call->batch.err.
 */
extern bool llm_typed_call_answer(LlmTypedCall *call, LlmTemplateText *answer);

#endif /* LLM_TYPED_CALL_H */
