/*
 * dataset_options.h
 *	  Options that say how a query's rows become a dataset.  Names are those of
 *	  LLaMA-Factory where it has them.
 *
 * src/server/finetune/dataset_options.h
 */
#ifndef LLM_DATASET_OPTIONS_H
#define LLM_DATASET_OPTIONS_H

#include "postgres.h"

#include "src/common/dataset/dataset_row.h"
#include "src/common/util/json.h"

typedef struct LlmDatasetOptions
{
	LlmRowOptions row;
	bool skips_bad_rows;	/* they are left out and counted */
	int64 max_samples;		/* rows to read at most; 0 = all */
	double val_size;		/* rows held out, below 1 a part of all; 0 = none */
	const char *eval_query; /* rows to evaluate with, or NULL */
	uint64 seed;			/* of the choice which rows are held out */
} LlmDatasetOptions;

/* Defaults: 2048 tokens, bad rows are errors, nothing held out. */
extern void llm_dataset_options_init(LlmDatasetOptions *options);

/*
 * Take one member of the options object; false where its name is none of
 * ours.  A value that is no good is raised.  Strings are copied into the
 * current memory context.
 */
extern bool
llm_dataset_options_take(LlmDatasetOptions *options, const cJSON *member);

/* All members were taken: do they go together? */
extern void llm_dataset_options_check(const LlmDatasetOptions *options);

#endif /* LLM_DATASET_OPTIONS_H */
