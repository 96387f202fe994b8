/*
 * dataset_funcs.c
 *	  llm_finetune_validate, llm_finetune_preview, llm_finetune_preview_text:
 *	  what fine-tuning would make of a query's rows.
 *
 * src/server/finetune/dataset_funcs.c
 */
#include "src/server/finetune/dataset_query.h"
#include "src/server/finetune/finetune_options.h"
#include "src/server/report.h"
#include "src/server/sql/text_convert.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(llm_finetune_validate);
PG_FUNCTION_INFO_V1(llm_finetune_preview);
PG_FUNCTION_INFO_V1(llm_finetune_preview_text);

enum
{
	ARG_QUERY = 0,
	ARG_OPTIONS,
	ARG_N_ROWS
};

#define VALIDATE_COLUMNS 4
#define PREVIEW_COLUMNS 6
#define PREVIEW_TEXT_COLUMNS 6

/* A call of one of the functions. */
typedef struct DatasetCall
{
	ReturnSetInfo *rsinfo;
	LlmModelHandle *handle;
	LlmDatasetOptions options;
	const char *query;
	int32 n_wanted; /* rows to preview that are still missing */
} DatasetCall;

/*
 * All options of fine-tuning are understood, so that a job's can be tried.
 * False: the query is null, so that there are no rows.
 */
static bool
begin_call(DatasetCall *call, FunctionCallInfo fcinfo)
{
	LlmFinetuneOptions options;
	LlmTemplateText json = { "{}", 2 };

	memset(call, 0, sizeof(*call));
	InitMaterializedSRF(fcinfo, 0);
	call->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	if (!PG_ARGISNULL(ARG_OPTIONS))
		json = llm_json_text(PG_GETARG_DATUM(ARG_OPTIONS), JSONBOID);
	llm_finetune_options_parse(pnstrdup(json.data, json.len), &options);
	if (PG_ARGISNULL(ARG_QUERY))
		return false;
	call->query = text_to_cstring(PG_GETARG_TEXT_PP(ARG_QUERY));
	call->handle = llm_model_handle_get(options.model);
	call->options = options.dataset;
	if (!options.has_cutoff_len)
		call->options.row.cutoff_len = Min(call->options.row.cutoff_len,
										   call->handle->facts->max_position);
	return true;
}

static void
put_row(DatasetCall *call, Datum *values, bool *nulls)
{
	tuplestore_putvalues(call->rsinfo->setResult, call->rsinfo->setDesc, values,
						 nulls);
}

static Datum
text_datum(const char *utf8, size_t len)
{
	return PointerGetDatum(llm_text_from_utf8(utf8, len));
}

/* -- validate -- */

static bool
put_problem(void *arg, const LlmQueryRow *row)
{
	static const char *const severities[] = {
		[LLM_ROW_TRUNCATED] = "truncated",
		[LLM_ROW_SPLIT] = "split",
		[LLM_ROW_DROPPED] = "dropped",
		[LLM_ROW_BAD] = "error",
	};
	Datum values[VALIDATE_COLUMNS] = { 0 };
	bool nulls[VALIDATE_COLUMNS] = { false };

	if (row->outcome == LLM_ROW_GOOD || row->example_idx > 0)
		return true;
	values[0] = Int64GetDatum(row->row_number);
	nulls[1] = row->key == NULL;
	if (row->key != NULL)
		values[1] = llm_jsonb_from_utf8(row->key, strlen(row->key));
	values[2] = CStringGetTextDatum(severities[row->outcome]);
	values[3] = text_datum(row->err->message, strlen(row->err->message));
	put_row(arg, values, nulls);
	return true;
}

/*
 * llm_finetune_validate(query text, options jsonb) → setof (row_number, key,
 * severity, reason)
 */
Datum
llm_finetune_validate(PG_FUNCTION_ARGS)
{
	DatasetCall call;

	if (begin_call(&call, fcinfo))
		llm_dataset_query_read(call.query, call.handle, &call.options,
							   put_problem, &call);
	PG_RETURN_NULL();
}

/* -- preview -- */

static void
begin_preview(DatasetCall *call, FunctionCallInfo fcinfo, LlmRowSink sink)
{
	if (!begin_call(call, fcinfo) || PG_ARGISNULL(ARG_N_ROWS))
		return;
	call->n_wanted = PG_GETARG_INT32(ARG_N_ROWS);
	if (call->n_wanted < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the number of rows must be positive")));
	llm_dataset_query_read(call->query, call->handle, &call->options, sink,
						   call);
}

static const char *
example_name(const LlmQueryRow *row, int answer_idx)
{
	if (row->kind == LLM_DATASET_PAIRS)
		return answer_idx == 0 ? "chosen" : "rejected";
	return row->n_examples == 1 ? "example"
								: psprintf("example %d", row->example_idx + 1);
}

/* Rows that cannot be shown are named, and do not count. */
static bool
is_shown(const LlmQueryRow *row)
{
	if (llm_query_row_is_good(row))
		return true;
	ereport(WARNING, (errmsg("row " INT64_FORMAT " cannot be learned from: %s",
							 row->row_number,
							 llm_report_displayable(row->err->message))));
	return false;
}

/* Rows count, not the examples that they become. */
static bool
is_last_wanted(DatasetCall *call, const LlmQueryRow *row)
{
	return row->example_idx + 1 == row->n_examples && --call->n_wanted == 0;
}

static void
put_tokens(DatasetCall *call, const LlmQueryRow *row, int answer_idx)
{
	const LlmExample *example =
		answer_idx == 0 ? &row->row.first : &row->row.second;
	Datum values[PREVIEW_COLUMNS];
	bool nulls[PREVIEW_COLUMNS] = { false };
	LlmStrbuf token;
	LlmError err;

	values[0] = Int64GetDatum(row->row_number);
	values[1] = CStringGetTextDatum(example_name(row, answer_idx));
	llm_strbuf_init(&token);
	PG_TRY();
	{
		for (int32 i = 0; i < example->n_tokens; i++)
		{
			llm_strbuf_reset(&token);
			if (!llm_tokenizer_decode(call->handle->tokenizer,
									  &example->token_ids[i], 1, false, &token,
									  &err))
				llm_report(ERROR, &err);
			values[2] = Int32GetDatum(i);
			values[3] = Int32GetDatum(example->token_ids[i]);
			values[4] = text_datum(llm_strbuf_str(&token), token.len);
			values[5] = BoolGetDatum(example->is_label[i] != 0);
			put_row(call, values, nulls);
		}
	}
	PG_FINALLY();
	{
		llm_strbuf_free(&token);
	}
	PG_END_TRY();
}

static bool
preview_tokens(void *arg, const LlmQueryRow *row)
{
	DatasetCall *call = arg;

	if (!is_shown(row))
		return true;
	put_tokens(call, row, 0);
	if (row->kind == LLM_DATASET_PAIRS)
		put_tokens(call, row, 1);
	return !is_last_wanted(call, row);
}

/*
 * llm_finetune_preview(query text, options jsonb, n_rows int) → setof
 * (row_number, example, token_idx, token_id, token, is_trained)
 */
Datum
llm_finetune_preview(PG_FUNCTION_ARGS)
{
	DatasetCall call;

	begin_preview(&call, fcinfo, preview_tokens);
	PG_RETURN_NULL();
}

/* Tokens begin .. end - 1 as text; "text" is scratch. */
static Datum
decoded_text(DatasetCall *call, const LlmExample *example, int32 begin,
			 int32 end, LlmStrbuf *text)
{
	LlmError err;

	llm_strbuf_reset(text);
	if (!llm_tokenizer_decode(call->handle->tokenizer,
							  example->token_ids + begin,
							  (size_t) (end - begin), false, text, &err))
		llm_report(ERROR, &err);
	return text_datum(llm_strbuf_str(text), text->len);
}

/* The text of each run of learned tokens. */
static Datum
trained_texts(DatasetCall *call, const LlmExample *example, LlmStrbuf *text)
{
	ArrayBuildState *texts =
		initArrayResult(TEXTOID, CurrentMemoryContext, false);
	int32 end;

	for (int32 begin = 0; begin < example->n_tokens; begin = end)
	{
		end = begin + 1;
		if (example->is_label[begin] == 0)
			continue;
		while (end < example->n_tokens && example->is_label[end] != 0)
			end++;
		texts = accumArrayResult(texts,
								 decoded_text(call, example, begin, end, text),
								 false, TEXTOID, CurrentMemoryContext);
	}
	return makeArrayResult(texts, CurrentMemoryContext);
}

/* As it was rendered; of a row that was split what the example has of it. */
static Datum
rendered_text(DatasetCall *call, const LlmQueryRow *row, int answer_idx,
			  LlmStrbuf *text)
{
	const LlmTemplateText whole =
		llm_row_converter_text(row->converter, answer_idx);

	if (row->n_examples > 1)
		return decoded_text(call, &row->row.first, 0, row->row.first.n_tokens,
							text);
	return text_datum(whole.data, whole.len);
}

static void
put_text(DatasetCall *call, const LlmQueryRow *row, int answer_idx)
{
	const LlmExample *example =
		answer_idx == 0 ? &row->row.first : &row->row.second;
	Datum values[PREVIEW_TEXT_COLUMNS];
	bool nulls[PREVIEW_TEXT_COLUMNS] = { false };
	LlmStrbuf text;

	values[0] = Int64GetDatum(row->row_number);
	values[1] = CStringGetTextDatum(example_name(row, answer_idx));
	llm_strbuf_init(&text);
	PG_TRY();
	{
		values[2] = rendered_text(call, row, answer_idx, &text);
		values[3] = trained_texts(call, example, &text);
	}
	PG_FINALLY();
	{
		llm_strbuf_free(&text);
	}
	PG_END_TRY();
	values[4] = Int32GetDatum(example->n_tokens);
	values[5] = Int32GetDatum(llm_example_n_labels(example));
	put_row(call, values, nulls);
}

static bool
preview_texts(void *arg, const LlmQueryRow *row)
{
	DatasetCall *call = arg;

	if (!is_shown(row))
		return true;
	put_text(call, row, 0);
	if (row->kind == LLM_DATASET_PAIRS)
		put_text(call, row, 1);
	return !is_last_wanted(call, row);
}

/*
 * llm_finetune_preview_text(query text, options jsonb, n_rows int) → setof
 * (row_number, example, rendered, trained, n_tokens, n_trained)
 */
Datum
llm_finetune_preview_text(PG_FUNCTION_ARGS)
{
	DatasetCall call;

	begin_preview(&call, fcinfo, preview_texts);
	PG_RETURN_NULL();
}
