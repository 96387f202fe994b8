/*
 * model_handle.h
 *	  A model as a backend process sees it: its entry in the model table and
 *	  its mapped image, after the right to use it was checked.
 *
 * src/server/sql/model_handle.h
 */
#ifndef LLM_MODEL_HANDLE_H
#define LLM_MODEL_HANDLE_H

#include "postgres.h"

#include "src/common/model_image/model_image.h"
#include "src/server/scheduler/scheduler.h"

typedef struct LlmModelHandle
{
	LlmModelInfo info;
	LlmModelImage *image; /* NULL while unused */
	LlmTokenizer *tokenizer;
	const LlmModelImageFacts *facts;
	int n_users; /* answers being read through this handle */
} LlmModelHandle;

/*
 * The model of a name (NULL = the default one), loaded and permitted, or an
 * error.  The handle is borrowed: it stays valid for this call of a SQL
 * function, and longer between _pin and _unpin.
 */
extern LlmModelHandle *llm_model_handle_get(const char *name);
extern void llm_model_handle_pin(LlmModelHandle *handle);
extern void llm_model_handle_unpin(LlmModelHandle *handle);

/* The compiled chat template, or an error. */
extern const LlmChatTemplate *
llm_model_handle_template(LlmModelHandle *handle, bool has_tools);

#endif /* LLM_MODEL_HANDLE_H */
