/*
 * adapter_image_store.h
 *	  An adapter's image becomes a version in the tables.
 *
 * src/server/catalog/adapter_image_store.h
 */
#ifndef LLM_ADAPTER_IMAGE_STORE_H
#define LLM_ADAPTER_IMAGE_STORE_H

#include "postgres.h"

#include "src/common/adapter/adapter.h"

typedef struct LlmAdapterNewImage
{
	const char *name;			  /* of the adapter */
	const char *model;			  /* that it was held against */
	const char *origin;			  /* where it came from */
	const LlmModelConfig *config; /* of the model */
	const uint8 *base;			  /* fingerprint of the model; an image for
								   * another one is an error */
	const uint8 *template_hash;
	const uint8 *tokenizer_hash;
	const void *bytes; /* the image; see adapter.h */
	Size n_bytes;
} LlmAdapterNewImage;

/*
 * Write the image where executors look for it, and add it as a version, which
 * is returned, its largest rank in *rank (or NULL); see
 * llm_adapter_store_version.  Where the transaction is rolled
 * back a file stays, which no row names and the next clean-up takes.
 */
extern int32
llm_adapter_store_image(const LlmAdapterNewImage *image, int32 *rank);

#endif /* LLM_ADAPTER_IMAGE_STORE_H */
