/*
 * adapter_loader.h
 *	  A thread that turns adapters' files into images.
 *
 * src/engine/executor/adapter_loader.h
 */
#ifndef LLM_ADAPTER_LOADER_H
#define LLM_ADAPTER_LOADER_H

#include "src/engine/model/model.h"

typedef struct LlmAdapterLoader LlmAdapterLoader;

/* One adapter to be loaded; the caller's, who leaves it alone until it is
 * taken back. */
typedef struct LlmAdapterLoad
{
	struct LlmAdapterLoad *next;
	const char *path;
	void *owner;
	bool ok;
	LlmModelAdapter adapter; /* where ok */
	LlmError err;			 /* otherwise */
} LlmAdapterLoad;

extern LlmAdapterLoader *
llm_adapter_loader_create(const LlmModel *model, int32_t max_rank,
						  LlmError *err);

/* Waits for the load under way; others are given up. */
extern void llm_adapter_loader_free(LlmAdapterLoader *loader);

extern void
llm_adapter_loader_add(LlmAdapterLoader *loader, LlmAdapterLoad *load);

/* One that is done, in their order; NULL: none. */
extern LlmAdapterLoad *llm_adapter_loader_take(LlmAdapterLoader *loader);

/* Readable while there may be one to take. */
extern int llm_adapter_loader_fd(const LlmAdapterLoader *loader);

#endif /* LLM_ADAPTER_LOADER_H */
