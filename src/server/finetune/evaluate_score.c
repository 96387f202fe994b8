/*
 * evaluate_score.c
 *	  An answer beside what was expected.
 *
 * Patterns and expressions run in SQL, as the caller.
 *
 * src/server/finetune/evaluate_score.c
 */
#include "src/server/finetune/evaluate.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "src/server/pg_compat.h"
#include "src/server/sql/text_convert.h"
#include "utils/builtins.h"

static LlmTemplateText
trimmed(const text *value)
{
	LlmTemplateText result = { VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value) };

	while (result.len > 0 && strchr(" \t\r\n", result.data[0]) != NULL)
	{
		result.data++;
		result.len--;
	}
	while (result.len > 0 &&
		   strchr(" \t\r\n", result.data[result.len - 1]) != NULL)
		result.len--;
	return result;
}

static bool
is_same_text(const LlmEvaluatedRow *row)
{
	LlmTemplateText expected = trimmed(row->expected);
	LlmTemplateText answer = trimmed(row->answer);

	return expected.len == answer.len &&
		   memcmp(expected.data, answer.data, answer.len) == 0;
}

/* Objects are the same whatever the order of their members. */
static bool
is_same_json(const LlmEvaluatedRow *row)
{
	LlmTemplateText expected = llm_text_to_utf8(row->expected);
	LlmTemplateText answer = llm_text_to_utf8(row->answer);
	cJSON *expected_json =
		llm_json_parse(expected.data, expected.len, "expected", NULL);
	cJSON *answer_json =
		llm_json_parse(answer.data, answer.len, "answer", NULL);
	bool is_same = expected_json != NULL && answer_json != NULL &&
				   cJSON_Compare(expected_json, answer_json, true);

	cJSON_Delete(expected_json);
	cJSON_Delete(answer_json);
	return is_same;
}

/* The value of a query's one column as a number. */
static bool
read_number(double *score)
{
	TupleDesc desc = SPI_tuptable->tupdesc;
	char *value = SPI_getvalue(SPI_tuptable->vals[0], desc, 1);

	if (value == NULL)
		return false;
	switch (SPI_gettypeid(desc, 1))
	{
		case BOOLOID:
			*score = value[0] == 't' ? 1 : 0;
			return true;
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			*score = DatumGetFloat8(
				DirectFunctionCall1(float8in, CStringGetDatum(value)));
			return true;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the expression must give a boolean or a number, "
							"not %s",
							SPI_gettype(desc, 1))));
	}
	return false;
}

static bool
run_expression(const char *expression, const LlmEvaluatedRow *row,
			   double *score)
{
	Oid types[] = { TEXTOID, TEXTOID, TEXTOID };
	Datum values[] = { PointerGetDatum(row->expected),
					   PointerGetDatum(row->answer), (Datum) 0 };
	char nulls[] = { ' ', ' ', 'n' };
	StringInfoData query;
	bool has_score;

	initStringInfo(&query);
	appendStringInfo(&query,
					 "SELECT (%s\n) FROM (SELECT $1 AS expected, $2 AS answer, "
					 "$3::pg_catalog.jsonb AS key) AS row",
					 expression);
	if (row->key != NULL)
	{
		values[2] = CStringGetTextDatum(row->key);
		nulls[2] = ' ';
	}
	SPI_connect();
	SPI_execute_with_args(query.data, 3, types, values, nulls, false, 2);
	if (SPI_tuptable == NULL || SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("the expression must give one value")));
	has_score = read_number(score);
	SPI_finish();
	return has_score;
}

static bool
run_pattern(const char *pattern, const LlmEvaluatedRow *row, double *score)
{
	const char *literal = quote_literal_cstr(pattern);

	return run_expression(
		psprintf("coalesce(pg_catalog.regexp_match(answer, %s) "
				 "OPERATOR(pg_catalog.=) pg_catalog.regexp_match(expected, %s),"
				 " false)",
				 literal, literal),
		row, score);
}

bool
llm_evaluate_score(const LlmEvaluateOptions *options,
				   const LlmEvaluatedRow *row, double *score)
{
	switch (options->score)
	{
		case LLM_SCORE_NONE:
			return false;
		case LLM_SCORE_EXACT:
			*score = is_same_text(row) ? 1 : 0;
			return true;
		case LLM_SCORE_JSON:
			*score = is_same_json(row) ? 1 : 0;
			return true;
		case LLM_SCORE_REGEX:
			return run_pattern(options->pattern, row, score);
		case LLM_SCORE_SQL:
			return run_expression(options->expression, row, score);
	}
	return false;
}
