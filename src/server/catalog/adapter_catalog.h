/*
 * adapter_catalog.h
 *	  Adapters as rows: which version a name means, who may use it, and its
 *	  image as a file.
 *
 * Reading goes straight to the tables under the statement's snapshot, without
 * rights on them; so each statement sees what was committed when it began, and
 * a session what it did itself.  Writing is adapter_store.c's.
 *
 * src/server/catalog/adapter_catalog.h
 */
#ifndef LLM_ADAPTER_CATALOG_H
#define LLM_ADAPTER_CATALOG_H

#include "postgres.h"

#include "src/common/model_dir/model_dir.h"
#include "src/common/util/sha256.h"

#define LLM_ADAPTER_NAME_BYTES NAMEDATALEN

/* A version of an adapter. */
typedef struct LlmAdapterVersion
{
	char name[LLM_ADAPTER_NAME_BYTES];
	int32 version;
	int32 other_version; /* that shares the traffic, or 0 */
	Oid owner;
	int64 n_bytes; /* of the image */
	uint8 digest[LLM_SHA256_BYTES];
	uint8 base[LLM_FINGERPRINT_BYTES];
	uint8 template_hash[LLM_FINGERPRINT_BYTES];
	uint8 tokenizer_hash[LLM_FINGERPRINT_BYTES];
} LlmAdapterVersion;

/* Names are of the characters that all encodings have, and "@" is ours. */
extern void llm_adapter_check_name(const char *name);

/* The active version of a name, whoever asks; 0: there is none. */
extern int32 llm_adapter_active_version(const char *name);

/*
 * The version that a reference means: "name" the active one, "name@3" that
 * one.  Where two share the traffic of a name, the hash of key decides.
 * Raises errors where there is none, or where the role may not use it.
 */
extern void
llm_adapter_resolve(const char *reference, const void *key, Size key_bytes,
					Oid role_id, LlmAdapterVersion *version);

/* See that the image's file is there; see adapter_files.h. */
extern void llm_adapter_materialize(const LlmAdapterVersion *version);

/* The adapter of a tenant; palloc'ed.  NULL: it has no route. */
extern char *llm_adapter_route(const char *tenant);

extern bool llm_adapter_may_use(Oid role_id, Oid owner, const char *name);

#endif /* LLM_ADAPTER_CATALOG_H */
