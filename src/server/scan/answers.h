/*
 * answers.h
 *	  Calls in flight, and what they brought; equal ones made once.
 *
 * src/server/scan/answers.h
 */
#ifndef LLM_ANSWERS_H
#define LLM_ANSWERS_H

#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/execnodes.h"
#include "src/server/sql/batch_call.h"

typedef struct LlmAnswers LlmAnswers;
typedef struct LlmAnswer LlmAnswer;

/* What a plan node has asked for; EXPLAIN ANALYZE shows it. */
typedef struct LlmAnswerCounts
{
	int n_in_flight; /* calls that it started and that are not done */
	uint64 n_requests;
	uint64 n_prompt_tokens;
	uint64 n_cached_tokens;
	uint64 n_output_tokens;
	uint64 n_duplicates; /* calls that took another one's answer */
	uint64 n_failed;
} LlmAnswerCounts;

/* Types of a call's arguments and result, to copy and compare values. */
typedef struct LlmValueType
{
	int16 len;
	bool is_by_value;
} LlmValueType;

/* A call in a plan. */
typedef struct LlmCallSite
{
	const LlmBatchOps *ops;
	FmgrInfo flinfo;
	FunctionCallInfo fcinfo; /* arguments are set before each call */
	int n_args;
	LlmValueType *arg_types; /* [n_args] */
	LlmValueType result_type;
	/* function, collation, and all types and their modifiers: a NULL of
	 * another type is another argument */
	StringInfoData signature;
	LlmAnswerCounts *counts; /* of its node; lives as long as the statement */
} LlmCallSite;

/* Those of a running statement, shared by its nodes; gone with it. */
extern LlmAnswers *llm_answers_of(EState *estate);

/*
 * The answer to a call with the arguments in site->fcinfo, its own or that of
 * an equal one; NULL where it is NULL without asking.  Errors are raised.
 */
extern LlmAnswer *llm_answers_get(LlmAnswers *answers, LlmCallSite *site);

/* Take in what has arrived for all calls in flight. */
extern void llm_answers_advance(LlmAnswers *answers);

/* Is there an answer that has not come yet? */
extern bool llm_answers_any_in_flight(const LlmAnswers *answers);

/* Bytes of results that wait to be read. */
extern Size llm_answers_bytes(const LlmAnswers *answers);

extern bool llm_answer_is_done(const LlmAnswer *answer);

/*
 * The value of an answer that is done, valid until it is released; raises the
 * error of one that has failed, or warns and returns NULL.
 */
extern Datum llm_answer_value(LlmAnswer *answer, bool *isnull);

/* Its row has been emitted, or is not wanted any more. */
extern void llm_answer_release(LlmAnswers *answers, LlmAnswer *answer);

#endif /* LLM_ANSWERS_H */
