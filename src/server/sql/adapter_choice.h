/*
 * adapter_choice.h
 *	  Which adapter answers a call.
 *
 * src/server/sql/adapter_choice.h
 */
#ifndef LLM_ADAPTER_CHOICE_H
#define LLM_ADAPTER_CHOICE_H

#include "postgres.h"

#include "src/server/catalog/adapter_catalog.h"
#include "src/server/sql/model_handle.h"

typedef struct LlmAdapterChoice
{
	bool is_base; /* no adapter */
	LlmAdapterVersion version;
} LlmAdapterChoice;

/*
 * Choose by what the call says (NULL: nothing; "": the base model), or by the
 * tenant's route.  The key decides where two versions share a name's traffic;
 * NULL: the tenant, or else the prompt.  The image's file is there when this
 * returns.  Raises errors where the adapter does not exist, may not be used,
 * or was made for another model.
 */
extern void
llm_adapter_choose(const char *adapter, const char *key,
				   const int32 *prompt_ids, uint32 n_prompt,
				   LlmModelHandle *handle, LlmAdapterChoice *choice);

/*
 * Raise an error where a version was made for another model; where its weights
 * cannot be compared with the model's, warn once in a session.
 */
extern void llm_adapter_check_base(const LlmAdapterVersion *version,
								   const LlmModelHandle *handle);

#endif /* LLM_ADAPTER_CHOICE_H */
