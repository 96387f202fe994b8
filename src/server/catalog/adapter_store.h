/*
 * adapter_store.h
 *	  Changing the tables of adapters.
 *
 * All of it happens in the caller's transaction: COMMIT publishes, ROLLBACK
 * leaves nothing.  The rows are changed as the tables' owner, after it was
 * checked that the caller owns the adapter; changes of one adapter wait for
 * each other, readers for nobody.
 *
 * src/server/catalog/adapter_store.h
 */
#ifndef LLM_ADAPTER_STORE_H
#define LLM_ADAPTER_STORE_H

#include "postgres.h"

#include "src/server/catalog/adapter_catalog.h"

/* A tensor of a new version, in the order of the image. */
typedef struct LlmAdapterTensor
{
	const char *name;
	const char *dtype;
	int n_dims;
	const int64 *shape;
	const void *data;
	Size n_bytes;
} LlmAdapterTensor;

typedef struct LlmAdapterNewVersion
{
	const char *model;	/* that it was held against */
	const char *config; /* JSON text */
	const char *origin; /* where it came from */
	int32 rank;
	int32 n_modules;
	bool is_dora;
	int64 n_bytes; /* of the image */
	const uint8 *digest;
	const uint8 *base;
	const uint8 *template_hash;
	const uint8 *tokenizer_hash;
	const void *header; /* the image up to its tensors' data */
	Size header_bytes;
	const LlmAdapterTensor *tensors;
	int n_tensors;
} LlmAdapterNewVersion;

/*
 * Add a version, and the adapter where there is none of that name; returns
 * its number.
 */
extern int32 llm_adapter_store_version(const char *name,
									   const LlmAdapterNewVersion *version);

/*
 * May the caller add versions to this adapter?  Raises an error where it is
 * another role's; false: there is none of that name.
 */
extern bool llm_adapter_store_check_owner(const char *name);

extern void llm_adapter_store_activate(const char *name, int32 version);

/* To the version that was active before; returns it. */
extern int32 llm_adapter_store_rollback(const char *name);

/* version 0: the adapter with all of them. */
extern void llm_adapter_store_drop(const char *name, int32 version);

/* percent 0: no split any more. */
extern void
llm_adapter_store_split(const char *name, int32 version, int percent);

extern void llm_adapter_store_describe(const char *name, const char *text);

/* grantee InvalidOid: PUBLIC. */
extern void llm_adapter_store_grant(const char *name, Oid grantee);
extern void llm_adapter_store_revoke(const char *name, Oid grantee);

/* adapter NULL: no route any more. */
extern void llm_adapter_store_route(const char *tenant, const char *adapter);

#endif /* LLM_ADAPTER_STORE_H */
