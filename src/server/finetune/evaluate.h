/*
 * evaluate.h
 *	  How good an adapter is on a query's rows: the log-probability of what
 *	  each row expects, and what is answered instead.
 *
 *	  evaluate_options.c	the options
 *	  evaluate_rows.c		requests of many rows side by side, results in order
 *	  evaluate_score.c		an answer beside what was expected
 *	  evaluate_funcs.c		llm_evaluate_rows
 *
 * Rows are converted as for training, so what is measured is what is trained;
 * an answer's prompt is the row's tokens in front of its last trained turn.
 *
 * src/server/finetune/evaluate.h
 */
#ifndef LLM_EVALUATE_H
#define LLM_EVALUATE_H

#include "postgres.h"

#include "src/server/finetune/dataset_query.h"
#include "src/server/sql/generation.h"

typedef enum LlmScoreKind
{
	LLM_SCORE_NONE = 0, /* nothing is answered */
	LLM_SCORE_EXACT,	/* the same text, but for spaces around it */
	LLM_SCORE_JSON,		/* the same JSON value */
	LLM_SCORE_REGEX,	/* a pattern finds the same in both */
	LLM_SCORE_SQL		/* an expression over expected, answer and key */
} LlmScoreKind;

typedef struct LlmEvaluateOptions
{
	LlmDatasetOptions dataset;
	LlmGenerateOptions generate; /* of the answers; the model's name, too */
	LlmScoreKind score;
	char *pattern;	  /* of REGEX */
	char *expression; /* of SQL */
} LlmEvaluateOptions;

/* Raises an error for a key that nothing knows, or a value out of range. */
extern void
llm_evaluate_options_parse(Datum options, LlmEvaluateOptions *result);

/* A row's result. */
typedef struct LlmEvaluatedRow
{
	int64 row_number;
	const char *key; /* JSON, or NULL */
	LlmError err;	 /* LLM_OK, or why there is nothing below */
	int32 n_labels;
	double log_prob;		  /* of all labels */
	bool is_pair;			  /* log_prob is the chosen one's */
	double rejected_log_prob; /* of pairs */
	text *expected;			  /* NULL: no answer was asked for */
	text *answer;
} LlmEvaluatedRow;

/* Takes a row, in order; runs in memory that is freed behind it. */
typedef void (*LlmEvaluatedSink)(void *arg, const LlmEvaluatedRow *row);

/*
 * Evaluate an adapter's version (NULL or "": the base model) on a query's rows,
 * llm_ext.batch_rows of them side by side.  A row that cannot be converted or
 * answered is a row with an error; all else is raised.
 */
extern void llm_evaluate_query(const char *adapter, const char *query,
							   const LlmEvaluateOptions *options,
							   LlmEvaluatedSink sink, void *arg);

/*
 * How well the answer matches; from 0 to 1 unless the expression says
 * otherwise.  False: the expression gave null.
 */
extern bool llm_evaluate_score(const LlmEvaluateOptions *options,
							   const LlmEvaluatedRow *row, double *score);

#endif /* LLM_EVALUATE_H */
