/*
 * activity_funcs.c
 *	  The functions under the views llm.models, llm.executors, llm.activity,
 *	  llm.usage and llm.metrics.
 *
 * Everyone may look; of other roles' requests only members of
 * pg_read_all_stats see more than that they exist, as in pg_stat_activity.
 *
 * src/server/sql/activity_funcs.c
 */
#include "postgres.h"

#include "src/server/catalog/model_rights.h"
#include "src/server/report.h"
#include "src/server/scheduler/scheduler.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(llm_list_models);
PG_FUNCTION_INFO_V1(llm_list_executors);
PG_FUNCTION_INFO_V1(llm_list_activity);
PG_FUNCTION_INFO_V1(llm_list_usage);
PG_FUNCTION_INFO_V1(llm_list_metrics);

#define MODEL_COLUMNS 9
#define EXECUTOR_COLUMNS 17
#define ACTIVITY_COLUMNS 13
#define USAGE_COLUMNS 9

/* One row in the making: columns are appended in order. */
typedef struct RowBuilder
{
	ReturnSetInfo *rsinfo;
	Datum values[EXECUTOR_COLUMNS];
	bool nulls[EXECUTOR_COLUMNS];
	int n;
} RowBuilder;

static void
begin_row(RowBuilder *row, FunctionCallInfo fcinfo)
{
	memset(row, 0, sizeof(*row));
	row->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
}

static void
add_datum(RowBuilder *row, Datum value)
{
	Assert(row->n < EXECUTOR_COLUMNS);
	row->values[row->n++] = value;
}

static void
add_null(RowBuilder *row)
{
	row->nulls[row->n] = true;
	add_datum(row, (Datum) 0);
}

static void
add_text(RowBuilder *row, const char *value)
{
	if (value == NULL || *value == '\0')
		add_null(row);
	else
		add_datum(row, CStringGetTextDatum(llm_report_displayable(value)));
}

static void
add_count(RowBuilder *row, uint64 value)
{
	add_datum(row, Int64GetDatum((int64) value));
}

static void
add_time(RowBuilder *row, TimestampTz value)
{
	if (value == 0)
		add_null(row);
	else
		add_datum(row, TimestampTzGetDatum(value));
}

static void
end_row(RowBuilder *row, int n_columns)
{
	Assert(row->n == n_columns);
	Assert(row->rsinfo->setDesc->natts == n_columns);
	tuplestore_putvalues(row->rsinfo->setResult, row->rsinfo->setDesc,
						 row->values, row->nulls);
}

static const char *
model_state_name(LlmModelState state)
{
	switch (state)
	{
		case LLM_MODEL_LOADING:
			return "loading";
		case LLM_MODEL_READY:
			return "ready";
		case LLM_MODEL_FAILED:
			return "failed";
		case LLM_MODEL_EMPTY:
			break;
	}
	return NULL;
}

Datum
llm_list_models(PG_FUNCTION_ARGS)
{
	LlmModelInfo *infos;
	int n = llm_scheduler_list_models(&infos);
	bool see_paths = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		const LlmModelInfo *info = &infos[i];
		RowBuilder row;

		begin_row(&row, fcinfo);
		add_text(&row, info->name);
		add_text(&row, model_state_name(info->state));
		add_datum(&row, BoolGetDatum(info->is_default));
		add_datum(&row,
				  BoolGetDatum(llm_model_rights_has(GetUserId(), info->name)));
		add_text(&row, see_paths ? info->path : NULL);
		if (info->state == LLM_MODEL_READY)
		{
			add_datum(&row, Int32GetDatum(info->max_model_len));
			add_datum(&row, Int32GetDatum(info->n_vocab));
			add_time(&row, info->loaded_at);
		}
		else
		{
			add_null(&row);
			add_null(&row);
			add_null(&row);
		}
		add_text(&row, see_paths && info->error.code != LLM_OK
						   ? info->error.message
						   : NULL);
		end_row(&row, MODEL_COLUMNS);
	}
	return (Datum) 0;
}

Datum
llm_list_executors(PG_FUNCTION_ARGS)
{
	LlmExecutorRow *rows;
	int n = llm_scheduler_list_executors(&rows);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		const LlmExecutorRow *executor = &rows[i];
		const LlmWireStats *stats = &executor->stats;
		RowBuilder row;

		begin_row(&row, fcinfo);
		add_datum(&row, Int32GetDatum(executor->executor_idx));
		if (executor->pid > 0)
			add_datum(&row, Int32GetDatum(executor->pid));
		else
			add_null(&row);
		add_text(&row, executor->model);
		add_text(&row, executor->state);
		add_text(&row, executor->device);
		add_time(&row, executor->started_at);
		add_count(&row, executor->n_restarts);
		add_count(&row, executor->n_in_flight);
		add_count(&row, stats->n_running);
		add_count(&row, stats->n_waiting);
		add_count(&row, stats->n_blocks - stats->n_free_blocks);
		add_count(&row, stats->n_blocks);
		add_count(&row, stats->n_steps);
		add_count(&row, stats->n_generated_tokens);
		add_count(&row, stats->n_preemptions);
		add_count(&row, stats->memory_bytes);
		if (executor->facts[0] == '\0')
			add_null(&row);
		else
			add_datum(&row, DirectFunctionCall1(
								jsonb_in, CStringGetDatum(executor->facts)));
		end_row(&row, EXECUTOR_COLUMNS);
	}
	return (Datum) 0;
}

static void
add_activity_row(FunctionCallInfo fcinfo, const LlmActivityRow *activity)
{
	bool visible = has_privs_of_role(GetUserId(), activity->role_id) ||
				   has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	RowBuilder row;

	begin_row(&row, fcinfo);
	add_datum(&row, Int32GetDatum((int32) activity->slot_idx));
	add_count(&row, activity->generation);
	add_datum(&row, Int32GetDatum(activity->pid));
	add_datum(&row, ObjectIdGetDatum(activity->role_id));
	add_datum(&row, ObjectIdGetDatum(activity->database_id));
	if (visible)
	{
		add_text(&row, activity->state);
		add_text(&row, activity->model);
		if (activity->executor_pid > 0)
			add_datum(&row, Int32GetDatum(activity->executor_pid));
		else
			add_null(&row);
		add_text(&row, activity->is_batch ? "batch" : "interactive");
		add_count(&row, activity->n_prompt);
		add_count(&row, activity->n_output);
		add_count(&row, activity->max_tokens);
		add_time(&row, activity->submitted_at);
	}
	else
	{
		while (row.n < ACTIVITY_COLUMNS)
			add_null(&row);
	}
	end_row(&row, ACTIVITY_COLUMNS);
}

Datum
llm_list_activity(PG_FUNCTION_ARGS)
{
	LlmActivityRow *rows;
	int n = llm_scheduler_list_activity(&rows);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
		add_activity_row(fcinfo, &rows[i]);
	return (Datum) 0;
}

static Datum
bytes_datum(const uint8 *bytes, Size n_bytes)
{
	bytea *value = palloc(VARHDRSZ + n_bytes);

	SET_VARSIZE(value, VARHDRSZ + n_bytes);
	memcpy(VARDATA(value), bytes, n_bytes);
	return PointerGetDatum(value);
}

/* A line is shown to its role, and to members of pg_read_all_stats. */
Datum
llm_list_usage(PG_FUNCTION_ARGS)
{
	static const uint8 base_model[LLM_SHA256_BYTES];
	LlmUsageEntry *rows;
	int n = llm_scheduler_list_usage(&rows);
	bool sees_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		const LlmUsageKey *key = &rows[i].key;
		const LlmUsageCounts *counts = &rows[i].counts;
		RowBuilder row;

		if (!sees_all && (!OidIsValid(key->role_id) ||
						  !has_privs_of_role(GetUserId(), key->role_id)))
			continue;
		begin_row(&row, fcinfo);
		add_datum(&row, DateADTGetDatum(key->day));
		add_datum(&row, ObjectIdGetDatum(key->role_id));
		add_datum(&row, ObjectIdGetDatum(key->database_id));
		add_text(&row, key->model);
		if (memcmp(key->adapter, base_model, sizeof(base_model)) == 0)
			add_null(&row);
		else
			add_datum(&row, bytes_datum(key->adapter, sizeof(key->adapter)));
		add_count(&row, counts->n_requests);
		add_count(&row, counts->n_prompt_tokens);
		add_count(&row, counts->n_cached_tokens);
		add_count(&row, counts->n_output_tokens);
		end_row(&row, USAGE_COLUMNS);
	}
	return (Datum) 0;
}

static void
add_metric(FunctionCallInfo fcinfo, const char *name, uint64 value)
{
	RowBuilder row;

	begin_row(&row, fcinfo);
	add_text(&row, name);
	add_count(&row, value);
	end_row(&row, 2);
}

Datum
llm_list_metrics(PG_FUNCTION_ARGS)
{
	LlmSchedulerCounters counters;

	llm_scheduler_get_counters(&counters);
	InitMaterializedSRF(fcinfo, 0);
	add_metric(fcinfo, "requests", counters.n_requests);
	add_metric(fcinfo, "requests_finished", counters.n_finished);
	add_metric(fcinfo, "requests_failed", counters.n_failed);
	add_metric(fcinfo, "requests_cancelled", counters.n_cancelled);
	add_metric(fcinfo, "requests_resumed", counters.n_resumed);
	add_metric(fcinfo, "requests_refused", counters.n_refused);
	add_metric(fcinfo, "prompt_tokens", counters.n_prompt_tokens);
	add_metric(fcinfo, "prompt_tokens_cached", counters.n_cached_tokens);
	add_metric(fcinfo, "generation_tokens", counters.n_generated_tokens);
	add_metric(fcinfo, "executor_deaths", counters.n_executor_deaths);
	add_metric(fcinfo, "request_slots", counters.n_slots);
	add_metric(fcinfo, "request_slots_free", counters.n_free_slots);
	return (Datum) 0;
}
