/*
 * adapter_choice.c
 *	  Which adapter answers a call.
 *
 * src/server/sql/adapter_choice.c
 */
#include "postgres.h"

#include "src/server/sql/adapter_choice.h"

#include "src/server/settings.h"

#include "miscadmin.h"

/* Versions that this session was warned of; the first are forgotten first. */
#define MAX_WARNED 32

typedef struct Warned
{
	uint8 digests[MAX_WARNED][LLM_SHA256_BYTES];
	int n;
} Warned;

static bool
is_first_time(Warned *warned, const LlmAdapterVersion *version)
{
	for (int i = 0; i < Min(warned->n, MAX_WARNED); i++)
		if (memcmp(warned->digests[i], version->digest, LLM_SHA256_BYTES) == 0)
			return false;
	memcpy(warned->digests[warned->n++ % MAX_WARNED], version->digest,
		   LLM_SHA256_BYTES);
	return true;
}

void
llm_adapter_check_base(const LlmAdapterVersion *version,
					   const LlmModelHandle *handle)
{
	static Warned warned;

	switch (llm_model_fingerprint_compare(version->base,
										  handle->facts->fingerprint))
	{
		case LLM_BASE_SAME:
			break;
		case LLM_BASE_ROUNDED:
			if (is_first_time(&warned, version))
				ereport(
					WARNING,
					(errmsg("adapter \"%s\", version %d, may have been "
							"made for another model than \"%s\"",
							version->name, version->version, handle->info.name),
					 errdetail("Quantized weights cannot be compared with "
							   "those of its base model.")));
			break;
		case LLM_BASE_OTHER:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("adapter \"%s\", version %d, was made for another "
							"model than \"%s\"",
							version->name, version->version, handle->info.name),
					 errhint("Choose its model with the option \"model\", or "
							 "register the adapter for this one.")));
	}
}

/* An adapter trained on other prompts than it gets answers worse. */
static void
check_prompts(const LlmAdapterVersion *version, const LlmModelHandle *handle)
{
	static Warned warned;
	const LlmModelImageFacts *facts = handle->facts;

	if (memcmp(version->template_hash, facts->template_hash,
			   sizeof(version->template_hash)) == 0 &&
		memcmp(version->tokenizer_hash, facts->tokenizer_hash,
			   sizeof(version->tokenizer_hash)) == 0)
		return;
	if (is_first_time(&warned, version))
		ereport(WARNING,
				(errmsg("model \"%s\" makes prompts otherwise than when "
						"adapter \"%s\", version %d, was registered",
						handle->info.name, version->name, version->version),
				 errdetail("Its chat template or its tokenizer has changed.")));
}

void
llm_adapter_choose(const char *adapter, const char *key,
				   const int32 *prompt_ids, uint32 n_prompt,
				   LlmModelHandle *handle, LlmAdapterChoice *choice)
{
	const char *tenant = llm_setting_tenant != NULL ? llm_setting_tenant : "";

	memset(choice, 0, sizeof(*choice));
	if (adapter == NULL && *tenant != '\0')
		adapter = llm_adapter_route(tenant);
	if (adapter == NULL || *adapter == '\0')
	{
		choice->is_base = true;
		return;
	}
	if (key == NULL && *tenant != '\0')
		key = tenant;
	if (key != NULL)
		llm_adapter_resolve(adapter, key, strlen(key), GetUserId(),
							&choice->version);
	else
		llm_adapter_resolve(adapter, prompt_ids, n_prompt * sizeof(int32),
							GetUserId(), &choice->version);
	llm_adapter_check_base(&choice->version, handle);
	check_prompts(&choice->version, handle);
	llm_adapter_materialize(&choice->version);
}
