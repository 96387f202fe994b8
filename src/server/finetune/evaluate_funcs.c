/*
 * evaluate_funcs.c
 *	  llm_evaluate_rows; llm_evaluate and llm_compare_adapters sum it up in SQL.
 *
 * src/server/finetune/evaluate_funcs.c
 */
#include "src/server/finetune/evaluate.h"

#include <math.h>

#include "fmgr.h"
#include "funcapi.h"
#include "src/server/report.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(llm_evaluate_rows);

enum
{
	COLUMN_ROW_NUMBER = 0,
	COLUMN_KEY,
	COLUMN_N_LABELS,
	COLUMN_LOG_PROB,
	COLUMN_REJECTED_LOG_PROB,
	COLUMN_EXPECTED,
	COLUMN_ANSWER,
	COLUMN_SCORE,
	COLUMN_REASON,
	COLUMN_COUNT
};

typedef struct EvaluateOutput
{
	ReturnSetInfo *rsinfo;
	const LlmEvaluateOptions *options;
} EvaluateOutput;

static void
set_column(Datum *values, bool *nulls, int column, Datum value)
{
	values[column] = value;
	nulls[column] = false;
}

static void
put_results(const EvaluateOutput *output, const LlmEvaluatedRow *row,
			Datum *values, bool *nulls)
{
	double score;

	set_column(values, nulls, COLUMN_N_LABELS, Int32GetDatum(row->n_labels));
	set_column(values, nulls, COLUMN_LOG_PROB, Float8GetDatum(row->log_prob));
	if (row->is_pair)
		set_column(values, nulls, COLUMN_REJECTED_LOG_PROB,
				   Float8GetDatum(row->rejected_log_prob));
	if (row->answer == NULL)
		return;
	set_column(values, nulls, COLUMN_EXPECTED, PointerGetDatum(row->expected));
	set_column(values, nulls, COLUMN_ANSWER, PointerGetDatum(row->answer));
	if (llm_evaluate_score(output->options, row, &score))
		set_column(values, nulls, COLUMN_SCORE, Float8GetDatum(score));
}

static void
put_row(void *arg, const LlmEvaluatedRow *row)
{
	const EvaluateOutput *output = arg;
	Datum values[COLUMN_COUNT] = { 0 };
	bool nulls[COLUMN_COUNT];

	memset(nulls, true, sizeof(nulls));
	set_column(values, nulls, COLUMN_ROW_NUMBER,
			   Int64GetDatum(row->row_number));
	if (row->key != NULL)
		set_column(values, nulls, COLUMN_KEY,
				   DirectFunctionCall1(jsonb_in, CStringGetDatum(row->key)));
	if (row->err.code == LLM_OK)
		put_results(output, row, values, nulls);
	else
		set_column(
			values, nulls, COLUMN_REASON,
			CStringGetTextDatum(llm_report_displayable(row->err.message)));
	tuplestore_putvalues(output->rsinfo->setResult, output->rsinfo->setDesc,
						 values, nulls);
}

/* llm_evaluate_rows(adapter text, query text, options jsonb) → TABLE (...) */
Datum
llm_evaluate_rows(PG_FUNCTION_ARGS)
{
	LlmEvaluateOptions options;
	EvaluateOutput output = { (ReturnSetInfo *) fcinfo->resultinfo, &options };
	const char *adapter = "";

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("query and options must not be null")));
	if (!PG_ARGISNULL(0))
		adapter = text_to_cstring(PG_GETARG_TEXT_PP(0));
	InitMaterializedSRF(fcinfo, 0);
	llm_evaluate_options_parse(PG_GETARG_DATUM(2), &options);
	llm_evaluate_query(adapter, text_to_cstring(PG_GETARG_TEXT_PP(1)), &options,
					   put_row, &output);
	return (Datum) 0;
}
