/*
 * finetune_funcs.c
 *	  llm_finetune, llm_finetune_wait, llm_finetune_cancel,
 *	  llm_finetune_resume, and what the view llm.finetune_progress shows of
 *	  running jobs.
 *
 * src/server/finetune/finetune_funcs.c
 */
#include "postgres.h"

#include <math.h>

#include "src/server/catalog/adapter_catalog.h"
#include "src/server/catalog/adapter_store.h"
#include "src/server/finetune/finetune_commit.h"
#include "src/server/finetune/finetune_jobs.h"
#include "src/server/finetune/finetune_options.h"
#include "src/server/pg_compat.h"
#include "src/server/sql/adapter_choice.h"
#include "src/server/sql/model_handle.h"
#include "src/server/sql/text_convert.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(llm_finetune);
PG_FUNCTION_INFO_V1(llm_finetune_wait);
PG_FUNCTION_INFO_V1(llm_finetune_cancel);
PG_FUNCTION_INFO_V1(llm_finetune_resume);
PG_FUNCTION_INFO_V1(llm_list_finetune_jobs);

/* A waiter looks again at least so often. */
#define LOOK_MS 1000

/* -- submitting -- */

static void
prevent_on_standby(const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandDuringRecovery(function);
	llm_jobs_require();
}

/* The job's worker has a session of its own. */
static void
check_may_log_in(Oid role_id)
{
	HeapTuple role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role_id));
	bool may_log_in = HeapTupleIsValid(role) &&
					  ((Form_pg_authid) GETSTRUCT(role))->rolcanlogin;

	if (HeapTupleIsValid(role))
		ReleaseSysCache(role);
	if (!may_log_in)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" is not permitted to log in",
						GetUserNameFromId(role_id, true)),
				 errdetail("A fine-tuning job runs in a session of its own, as "
						   "the role that submits it.")));
}

/* Mistakes in the query fail the statement, not the job. */
static void
check_query(const char *query)
{
	SPIPlanPtr plan;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	plan = SPI_prepare(query, 0, NULL);
	if (plan == NULL || !SPI_is_cursor_plan(plan))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the query of a fine-tuning job must be one "
							   "SELECT")));
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
}

/* Which version the option means. */
static void
choose_start(const LlmFinetuneOptions *options, const LlmModelHandle *handle,
			 LlmJob *job)
{
	LlmAdapterVersion version;

	if (!options->continues)
		return;
	llm_adapter_resolve(
		options->continue_from > 0
			? psprintf("%s@%d", job->adapter, options->continue_from)
			: job->adapter,
		NULL, 0, GetUserId(), &version);
	llm_adapter_check_base(&version, handle);
	job->continue_from = version.version;
}

static char *
text_argument(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("%s must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

/* llm_finetune(adapter text, query text, options jsonb) → bigint */
Datum
llm_finetune(PG_FUNCTION_ARGS)
{
	LlmFinetuneOptions options;
	LlmModelHandle *handle;
	LlmJob job = { .id.database_id = MyDatabaseId, .id.role_id = GetUserId() };
	Datum json;

	prevent_on_standby("llm_finetune()");
	job.adapter = text_argument(fcinfo, 0, "adapter");
	job.query = text_argument(fcinfo, 1, "query");
	json = PG_ARGISNULL(2)
			   ? DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"))
			   : PG_GETARG_DATUM(2);
	llm_adapter_check_name(job.adapter);
	job.options = llm_job_options_text(json);
	llm_finetune_options_parse(job.options, &options);
	check_may_log_in(job.id.role_id);
	handle = llm_model_handle_get(options.model);
	job.model = handle->info.name;
	memcpy(job.base, handle->facts->fingerprint, LLM_FINGERPRINT_BYTES);
	job.is_new = !llm_adapter_store_check_owner(job.adapter);
	choose_start(&options, handle, &job);
	check_query(job.query);
	job.search_path = pstrdup(namespace_search_path);
	job.id.job_id = llm_job_insert(&job, json);
	llm_job_start_at_commit(&job.id);
	PG_RETURN_INT64(job.id.job_id);
}

/* -- waiting -- */

/* Somebody runs the job, or will. */
static bool
has_runner(const LlmJobId *id)
{
	LlmJobEntry entry;

	return llm_jobs_find(id, &entry) || llm_job_folder_exists(id);
}

static void
peek(int64 job_id, LlmJobState *state, LlmJobId *id)
{
	if (!llm_job_peek(job_id, state, id))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("fine-tuning job " INT64_FORMAT " does not exist", job_id),
			 errhint("Jobs are listed in llm.finetune_progress.")));
}

/* Until the job's end, or until end_at; the state then. */
static LlmJobState
wait_for_end(int64 job_id, TimestampTz end_at)
{
	int n_unattended = 0;
	LlmJobState state;
	LlmJobId id;

	for (;;)
	{
		long left_ms;

		peek(job_id, &state, &id);
		if (!llm_job_state_is_active(state))
			return state;
		/* once may be between two commits, or between one and the folder */
		n_unattended = has_runner(&id) ? 0 : n_unattended + 1;
		if (n_unattended > 2)
			return LLM_JOB_INTERRUPTED;
		left_ms = end_at == DT_NOEND ? LOOK_MS
									 : TimestampDifferenceMilliseconds(
										   GetCurrentTimestamp(), end_at);
		if (left_ms <= 0)
			return state;
		llm_jobs_wait_change(Min(left_ms, LOOK_MS));
		CHECK_FOR_INTERRUPTS();
	}
}

/* llm_finetune_wait(job bigint, timeout interval) → text */
Datum
llm_finetune_wait(PG_FUNCTION_ARGS)
{
	TimestampTz end_at = DT_NOEND;
	LlmJobState state;
	int64 job_id;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	job_id = PG_GETARG_INT64(0);
	llm_jobs_require();
	if (llm_job_waits_for_commit(job_id))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("fine-tuning job " INT64_FORMAT
							   " starts when this transaction commits",
							   job_id)));
	if (!PG_ARGISNULL(1))
		end_at = DatumGetTimestampTz(DirectFunctionCall2(
			timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()),
			PG_GETARG_DATUM(1)));
	llm_jobs_prepare_wait();
	PG_TRY();
	{
		state = wait_for_end(job_id, end_at);
	}
	PG_FINALLY();
	{
		llm_jobs_end_wait();
	}
	PG_END_TRY();
	PG_RETURN_TEXT_P(cstring_to_text(llm_job_state_name(state)));
}

/* -- changing -- */

/*
 * llm_finetune_cancel(job bigint) → boolean
 *
 * A running job's worker is told; another's row says so at once.  One that has
 * failed loses what it could have gone on from.
 */
Datum
llm_finetune_cancel(PG_FUNCTION_ARGS)
{
	LlmJobState state;
	LlmJobId id;
	LlmJob job;

	prevent_on_standby("llm_finetune_cancel()");
	/* without the row's lock, for which its worker will wait */
	peek(PG_GETARG_INT64(0), &state, &id);
	if (llm_job_state_is_active(state) && llm_jobs_cancel(&id))
		PG_RETURN_BOOL(true);
	llm_job_lock(PG_GETARG_INT64(0), &job);
	if (job.state == LLM_JOB_DONE || job.state == LLM_JOB_CANCELLED)
		PG_RETURN_BOOL(false);
	if (!llm_job_state_is_active(job.state) || !llm_jobs_cancel(&job.id))
	{
		llm_job_set_state(job.id.job_id, LLM_JOB_CANCELLED, NULL);
		llm_job_forget_data(job.id.job_id);
	}
	PG_RETURN_BOOL(true);
}

/*
 * A job has ended in its row a moment before its worker removes the folder,
 * which must not be the next one's.
 */
static void
wait_for_worker(const LlmJobId *id)
{
	LlmJobEntry entry;

	llm_jobs_prepare_wait();
	while (llm_jobs_find(id, &entry))
	{
		llm_jobs_wait_change(LOOK_MS);
		CHECK_FOR_INTERRUPTS();
	}
	llm_jobs_end_wait();
}

/* llm_finetune_resume(job bigint) */
Datum
llm_finetune_resume(PG_FUNCTION_ARGS)
{
	LlmJob job;

	prevent_on_standby("llm_finetune_resume()");
	llm_job_lock(PG_GETARG_INT64(0), &job);
	if (job.state == LLM_JOB_DONE || job.state == LLM_JOB_CANCELLED ||
		(llm_job_state_is_active(job.state) && has_runner(&job.id)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("fine-tuning job " INT64_FORMAT " is %s", job.id.job_id,
						llm_job_state_name(job.state)),
				 errhint("Jobs that have failed or were interrupted can be "
						 "resumed.")));
	check_may_log_in(job.id.role_id);
	wait_for_worker(&job.id);
	llm_job_set_state(job.id.job_id, LLM_JOB_QUEUED, NULL);
	llm_job_start_at_commit(&job.id);
	PG_RETURN_VOID();
}

/* -- the view -- */

#define LIVE_COLUMNS 12

static void
set_float(Datum *value, bool *isnull, double number)
{
	*isnull = isnan(number);
	*value = Float8GetDatum(number);
}

static void
put_entry(ReturnSetInfo *rsinfo, const LlmJobEntry *entry)
{
	const LlmJobLive *live = &entry->live;
	Datum values[LIVE_COLUMNS] = { Int64GetDatum(entry->id.job_id) };
	bool nulls[LIVE_COLUMNS] = { false };
	bool has_steps = live->n_steps > 0;

	memset(nulls + 1, true, sizeof(nulls) - 1);
	values[1] = Int32GetDatum(entry->worker_pid);
	nulls[1] = entry->worker_pid == 0;
	values[2] = Int32GetDatum(live->executor_pid);
	nulls[2] = live->executor_pid == 0;
	if (has_steps)
	{
		values[3] = Int64GetDatum(live->step);
		values[4] = Int64GetDatum(live->n_steps);
		nulls[3] = nulls[4] = false;
		set_float(&values[5], &nulls[5], live->epoch);
		set_float(&values[6], &nulls[6], live->loss);
		set_float(&values[7], &nulls[7], live->learning_rate);
		set_float(&values[8], &nulls[8], live->grad_norm);
		set_float(&values[9], &nulls[9], live->tokens_per_second);
		set_float(&values[10], &nulls[10], live->seconds_left);
		values[11] = Int64GetDatum(live->memory_bytes);
		nulls[11] = false;
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static bool
may_see(const LlmJobId *id)
{
	return id->database_id == MyDatabaseId &&
		   (has_privs_of_role(GetUserId(), id->role_id) ||
			has_privs_of_role(GetUserId(), ROLE_PG_MONITOR));
}

/*
 * llm.list_finetune_jobs() → TABLE (job bigint, worker_pid integer,
 * executor_pid integer, step bigint, n_steps bigint, epoch, loss,
 * learning_rate, grad_norm, tokens_per_second, seconds_left float8,
 * memory_bytes bigint): jobs of this database that run or are about to
 */
Datum
llm_list_finetune_jobs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LlmJobId *ids;
	int n_ids;

	llm_scheduler_require();
	InitMaterializedSRF(fcinfo, 0);
	/* a running job has a folder, too */
	n_ids = llm_job_folder_list(&ids);
	for (int i = 0; i < n_ids; i++)
	{
		LlmJobEntry entry = { .id = ids[i] };

		(void) llm_jobs_find(&ids[i], &entry);
		if (may_see(&ids[i]))
			put_entry(rsinfo, &entry);
	}
	return (Datum) 0;
}
