/*
 * finetune_options.h
 *	  A job's options.
 *
 * Some are the dataset's (dataset_options.h), some the executor's, which knows
 * their defaults, and the rest are the job's own.
 *
 * src/server/finetune/finetune_options.h
 */
#ifndef LLM_FINETUNE_OPTIONS_H
#define LLM_FINETUNE_OPTIONS_H

#include "postgres.h"

#include "src/server/finetune/dataset_options.h"

typedef struct LlmFinetuneOptions
{
	LlmDatasetOptions dataset;
	bool has_cutoff_len;	/* else as long as model and default allow */
	char *train;			/* the executor's: a JSON object */
	char *model;			/* NULL: the default one */
	char *description;		/* of the adapter, or NULL */
	bool activate;			/* the version, when it is published */
	bool continues;			/* from a version of the adapter */
	int32 continue_from;	/* 0: the active one */
	bool publish_if_better; /* than the active version */
	int64 logging_steps;
} LlmFinetuneOptions;

/*
 * Parse a JSON object; raises an error for an option that is not known, a
 * value that is none of the option's, and options that exclude each other.
 * All strings are palloc'ed.
 */
extern void
llm_finetune_options_parse(const char *json, LlmFinetuneOptions *options);

#endif /* LLM_FINETUNE_OPTIONS_H */
