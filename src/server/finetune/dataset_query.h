/*
 * dataset_query.h
 *	  A query's rows as a dataset: read under the caller's rights and snapshot,
 *	  converted, written to a file for the executor.
 *
 * src/server/finetune/dataset_query.h
 */
#ifndef LLM_DATASET_QUERY_H
#define LLM_DATASET_QUERY_H

#include "postgres.h"

#include "src/server/finetune/dataset_options.h"
#include "src/server/sql/model_handle.h"

/* A row as it was converted; valid while its sink runs. */
typedef struct LlmQueryRow
{
	int64 row_number; /* from 1, as the query gives them */
	const char *key;  /* a JSON object of columns that are no part, or NULL */
	LlmRowOutcome outcome;
	int32 example_idx; /* a row that is split is several, one after another */
	int32 n_examples;
	LlmDatasetRow row;	 /* where the outcome is good, truncated or split */
	const LlmError *err; /* else */
	LlmDatasetKind kind;
	const LlmRowConverter *converter; /* for the text */
} LlmQueryRow;

static inline bool
llm_query_row_is_good(const LlmQueryRow *row)
{
	return row->outcome != LLM_ROW_BAD && row->outcome != LLM_ROW_DROPPED;
}

/* False: no more rows are wanted. */
typedef bool (*LlmRowSink)(void *arg, const LlmQueryRow *row);

/*
 * Run a query that returns rows, and give each to the sink, which runs with
 * the row's memory as current context.  Errors of the query are raised, as
 * are columns that make no rows to learn from.  Connects to SPI itself.
 */
extern void llm_dataset_query_read(const char *query, LlmModelHandle *handle,
								   const LlmDatasetOptions *options,
								   LlmRowSink sink, void *arg);

/* The bad rows that a summary names. */
#define LLM_SUMMARY_BAD_ROWS 10

typedef struct LlmBadRow
{
	int64 row_number;
	const char *key; /* or NULL */
	const char *reason;
} LlmBadRow;

/* What came of a query's rows.  Tokens and so on are of good rows. */
typedef struct LlmDatasetSummary
{
	LlmDatasetKind kind;
	int64 n_read;  /* rows that the queries gave, eval_query's included */
	int64 n_train; /* examples, pairs being one */
	int64 n_eval;
	int64 n_bad;
	int64 n_dropped;
	int64 n_truncated;
	int64 n_tokens; /* of both examples of pairs */
	int64 n_labels;
	int32 longest; /* tokens of the longest example */
	int n_named;
	LlmBadRow named[LLM_SUMMARY_BAD_ROWS]; /* the first ones */
} LlmDatasetSummary;

/*
 * Write the dataset of a query to train_path, and what is held out of it (or
 * the rows of eval_query) to eval_path, which may be NULL where the options
 * ask for neither.  Bad rows are raised, all at once, unless options skip
 * them; no good rows are an error.  What fails leaves no file.
 *
 * Strings of the summary are in the caller's memory context.
 */
extern void
llm_dataset_query_write(const char *query, LlmModelHandle *handle,
						const LlmDatasetOptions *options,
						const char *train_path, const char *eval_path,
						LlmDatasetSummary *summary);

#endif /* LLM_DATASET_QUERY_H */
