/*
 * dataset_query.c
 *	  Reading a query's rows, and converting them.
 *
 * The query runs by a cursor, read-only, in the snapshot and under the rights
 * of whoever called, so that row security holds.  What is not palloc'ed
 * belongs to a memory context of the reader, a child of the caller's: it goes
 * with it, whatever ends the statement.
 *
 * src/server/finetune/dataset_query.c
 */
#include "src/server/finetune/dataset_query.h"

#include "src/server/report.h"
#include "src/server/sql/text_convert.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

/* Rows may be large. */
#define ROWS_PER_FETCH 50

/* Of a row's key: columns, and bytes of each. */
#define MAX_KEY_COLUMNS 4
#define MAX_KEY_BYTES 60

typedef struct QueryReader
{
	MemoryContext context;
	MemoryContext row_context; /* reset with each row */
	LlmModelHandle *handle;	   /* pinned */
	const LlmDatasetOptions *options;
	LlmRowConverter *converter;
	LlmRowFormat format;

	/* [desc->natts] */
	TupleDesc desc;
	LlmRowColumn *columns;
	Datum *values;
	bool *nulls;
	LlmRowField *fields;

	int64 n_rows;
} QueryReader;

static void
release_reader(void *arg)
{
	QueryReader *reader = arg;

	llm_row_converter_free(reader->converter);
	if (reader->handle != NULL)
		llm_model_handle_unpin(reader->handle);
	reader->converter = NULL;
	reader->handle = NULL;
}

static QueryReader *
create_reader(LlmModelHandle *handle, const LlmDatasetOptions *options)
{
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "llm_ext dataset", ALLOCSET_DEFAULT_SIZES);
	QueryReader *reader = MemoryContextAllocZero(context, sizeof(*reader));
	MemoryContextCallback *callback =
		MemoryContextAllocZero(context, sizeof(*callback));

	reader->context = context;
	reader->row_context = AllocSetContextCreate(context, "llm_ext dataset row",
												ALLOCSET_DEFAULT_SIZES);
	reader->options = options;
	callback->func = release_reader;
	callback->arg = reader;
	MemoryContextRegisterResetCallback(context, callback);
	llm_model_handle_pin(handle);
	reader->handle = handle;
	return reader;
}

/* -- columns -- */

static LlmColumnType
column_type(Oid type)
{
	switch (getBaseType(type))
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return LLM_COLUMN_TEXT;
		case JSONOID:
		case JSONBOID:
			return LLM_COLUMN_JSON;
		case BOOLOID:
			return LLM_COLUMN_BOOL;
		default:
			return LLM_COLUMN_OTHER;
	}
}

/* A template that a model lacks is missed by the rows that need it. */
static const LlmChatTemplate *
find_template(LlmModelHandle *handle, bool has_tools)
{
	LlmError err;
	const LlmChatTemplate *chat_template;

	if (llm_model_image_template_source(handle->image).data == NULL)
		return NULL;
	chat_template =
		llm_model_image_chat_template(handle->image, has_tools, &err);
	if (chat_template == NULL)
		llm_report(ERROR, &err);
	return chat_template;
}

static void
prepare_converter(QueryReader *reader)
{
	LlmModelHandle *handle = reader->handle;
	const LlmModelImageFacts *facts = handle->facts;
	LlmRowModel model = {
		.tokenizer = handle->tokenizer,
		.chat_template = find_template(handle, false),
		.tool_template = find_template(handle, true),
		.special_tokens = llm_model_image_special_tokens(handle->image),
		.n_vocab = facts->n_vocab,
		.stop_ids = facts->stop_ids,
		.n_stop_ids = facts->n_stop_ids,
		.now = time(NULL),
	};
	LlmError err;

	reader->converter = llm_row_converter_create(&model, &reader->format,
												 &reader->options->row, &err);
	if (reader->converter == NULL)
		llm_report(ERROR, &err);
}

static void
read_columns(QueryReader *reader, TupleDesc desc)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	LlmError err;

	reader->desc = CreateTupleDescCopy(desc);
	reader->columns = palloc0(sizeof(LlmRowColumn) * Max(desc->natts, 1));
	reader->values = palloc0(sizeof(Datum) * Max(desc->natts, 1));
	reader->nulls = palloc0(sizeof(bool) * Max(desc->natts, 1));
	reader->fields = palloc0(sizeof(LlmRowField) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(reader->desc, i);

		reader->columns[i].name = NameStr(attribute->attname);
		reader->columns[i].type = column_type(attribute->atttypid);
	}
	if (!llm_row_format_detect(reader->columns, desc->natts,
							   &reader->options->row, &reader->format, &err))
		llm_report(ERROR, &err);
	MemoryContextSwitchTo(old);
}

static bool
is_part(const QueryReader *reader, int column)
{
	for (int i = 0; i < LLM_PART_COUNT; i++)
	{
		if (reader->format.parts[i] == column)
			return true;
	}
	return false;
}

/* -- rows -- */

static LlmRowField
read_field(const QueryReader *reader, int column)
{
	Datum value = reader->values[column];
	Oid type = getBaseType(TupleDescAttr(reader->desc, column)->atttypid);
	LlmTemplateText utf8;

	if (reader->nulls[column])
		return (LlmRowField){ 0 };
	switch (reader->columns[column].type)
	{
		case LLM_COLUMN_JSON:
			utf8 = llm_json_text(value, type);
			break;
		case LLM_COLUMN_TEXT:
			utf8 = llm_text_to_utf8(DatumGetTextPP(value));
			break;
		default:
			Assert(reader->columns[column].type == LLM_COLUMN_BOOL);
			utf8.data = DatumGetBool(value) ? "t" : "f";
			utf8.len = 1;
	}
	return (LlmRowField){ utf8.data, utf8.len };
}

/* The columns that are no part, to find the row again: a JSON object. */
static const char *
make_key(const QueryReader *reader)
{
	StringInfoData key;
	int n = 0;

	initStringInfo(&key);
	for (int i = 0; i < reader->desc->natts && n < MAX_KEY_COLUMNS; i++)
	{
		Oid type = TupleDescAttr(reader->desc, i)->atttypid;
		Oid function_id;
		bool is_varlena;
		char *value;

		if (is_part(reader, i) || reader->nulls[i])
			continue;
		appendStringInfoString(&key, n++ == 0 ? "{" : ", ");
		llm_append_json_string(&key, reader->columns[i].name,
							   strlen(reader->columns[i].name));
		appendStringInfoString(&key, ": ");
		getTypeOutputInfo(type, &function_id, &is_varlena);
		value = OidOutputFunctionCall(function_id, reader->values[i]);
		if (type == INT2OID || type == INT4OID || type == INT8OID)
			appendStringInfoString(&key, value);
		else
			llm_append_json_string(
				&key, value, pg_mbcliplen(value, strlen(value), MAX_KEY_BYTES));
	}
	if (n == 0)
		return NULL;
	appendStringInfoChar(&key, '}');
	return key.data;
}

/* Is it the row's own fault? */
static bool
is_row_error(const LlmError *err)
{
	return err->code != LLM_ERROR_NO_MEMORY &&
		   err->code != LLM_ERROR_INTERNAL && err->code != LLM_ERROR_CANCELLED;
}

static LlmRowOutcome
convert(QueryReader *reader, LlmDatasetRow *row, LlmError *err)
{
	const volatile sig_atomic_t *interrupt = &InterruptPending;
	LlmRowOutcome outcome;

	for (;;)
	{
		llm_error_clear(err);
		outcome = llm_row_convert(reader->converter, reader->fields, interrupt,
								  row, err);
		if (outcome != LLM_ROW_BAD || err->code != LLM_ERROR_CANCELLED)
			break;
		CHECK_FOR_INTERRUPTS();
		/* it was no cancel, but one of those that come at intervals */
		interrupt = interrupt == &InterruptPending ? &QueryCancelPending : NULL;
	}
	if (outcome == LLM_ROW_BAD && !is_row_error(err))
		llm_report(ERROR, err);
	return outcome;
}

/* A row's examples to the sink, one after another. */
static bool
give_row(QueryReader *reader, LlmQueryRow *row, LlmRowSink sink, void *arg)
{
	row->n_examples = llm_query_row_is_good(row)
						  ? llm_row_converter_n_examples(reader->converter)
						  : 1;
	for (row->example_idx = 0; sink(arg, row);)
	{
		if (++row->example_idx == row->n_examples)
			return true;
		CHECK_FOR_INTERRUPTS();
		row->row.first = llm_row_converter_next(reader->converter);
	}
	return false;
}

static bool
read_row(QueryReader *reader, HeapTuple tuple, LlmRowSink sink, void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(reader->row_context);
	LlmError err;
	LlmQueryRow row = { .row_number = ++reader->n_rows,
						.err = &err,
						.kind = reader->format.kind,
						.converter = reader->converter };
	bool goes_on;

	CHECK_FOR_INTERRUPTS();
	heap_deform_tuple(tuple, reader->desc, reader->values, reader->nulls);
	for (int i = 0; i < reader->desc->natts; i++)
	{
		if (is_part(reader, i))
			reader->fields[i] = read_field(reader, i);
	}
	row.outcome = convert(reader, &row.row, &err);
	row.key = make_key(reader);
	goes_on = give_row(reader, &row, sink, arg);
	MemoryContextSwitchTo(old);
	MemoryContextReset(reader->row_context);
	return goes_on && (reader->options->max_samples == 0 ||
					   reader->n_rows < reader->options->max_samples);
}

/* -- the query -- */

static CommandTag
command_of(SPIPlanPtr plan)
{
	const CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));

	return source->commandTag;
}

static Portal
open_query(const char *query)
{
	SPIPlanPtr plan;
	Portal portal;

	plan = SPI_prepare(query, 0, NULL);
	if (plan == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the query of a dataset cannot be prepared: %s",
							   SPI_result_code_string(SPI_result))));
	/* what changes rows is no dataset, even where it returns them */
	if (!SPI_is_cursor_plan(plan) || command_of(plan) != CMDTAG_SELECT)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the query of a dataset must be one SELECT")));
	/* read-only: in the snapshot of the caller, and without changing a thing */
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	Assert(portal->tupDesc != NULL);
	return portal;
}

static void
read_rows(QueryReader *reader, Portal portal, LlmRowSink sink, void *arg)
{
	bool goes_on = true;

	while (goes_on)
	{
		SPITupleTable *table;
		uint64 n;

		SPI_cursor_fetch(portal, true, ROWS_PER_FETCH);
		table = SPI_tuptable;
		n = SPI_processed;
		goes_on = n > 0;
		for (uint64 i = 0; i < n && goes_on; i++)
			goes_on = read_row(reader, table->vals[i], sink, arg);
		SPI_freetuptable(table);
	}
}

void
llm_dataset_query_read(const char *query, LlmModelHandle *handle,
					   const LlmDatasetOptions *options, LlmRowSink sink,
					   void *arg)
{
	QueryReader *reader = create_reader(handle, options);
	Portal portal;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	portal = open_query(query);
	read_columns(reader, portal->tupDesc);
	prepare_converter(reader);
	read_rows(reader, portal, sink, arg);
	SPI_cursor_close(portal);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	MemoryContextDelete(reader->context);
}
