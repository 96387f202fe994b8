/*
 * adapter_merge.h
 *	  What the two files that merge share.
 *
 * src/common/adapter/adapter_merge.h
 */
#ifndef LLM_ADAPTER_MERGE_H
#define LLM_ADAPTER_MERGE_H

#include <stdio.h>

#include "src/common/adapter/adapter_internal.h"
#include "src/common/checkpoint/checkpoint.h"

/* A new file for writing; one that exists is an error. */
extern FILE *
merge_create_file(const char *dir, const char *name, LlmError *err);

extern bool merge_write_json(const char *dir, const char *name,
							 const cJSON *json, LlmError *err);

/*
 * Config, tokenizer, template and license of a model.  unties_head: say that
 * the head is not tied any more.  dtype: what the config is to name; NULL: as
 * it does.
 */
extern bool
merge_copy_files(const char *model_dir, const char *dir, bool unties_head,
				 const char *dtype, LlmError *err);

#endif /* LLM_ADAPTER_MERGE_H */
