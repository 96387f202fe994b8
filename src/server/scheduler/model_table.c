/*
 * model_table.c
 *	  The models that are served, as backend processes see them.
 *
 * Backend processes write what they want into a model's entry and wake the
 * scheduler (model_loads.c), which does it and broadcasts; they wait on a
 * condition variable.  A wait for the scheduler is bounded, a wait for a model
 * that loads is not, but can be cancelled like any statement.
 *
 * src/server/scheduler/model_table.c
 */
#include "postgres.h"

#include "miscadmin.h"
#include "src/common/util/clock.h"
#include "src/server/report.h"
#include "src/server/scheduler/scheduler_internal.h"
#include "storage/ipc.h"

#define MODEL_WAIT_MS 1000
#define SCHEDULER_POLL_MS 50

/* -- looking up; under the lock -- */

static int32
find_entry(const char *name)
{
	for (int32 i = 0; i < llm_shared->n_models; i++)
		if (llm_models[i].is_used && !llm_models[i].is_unloading &&
			strcmp(llm_models[i].name, name) == 0)
			return i;
	return LLM_NONE;
}

static int32
find_free_entry(void)
{
	for (int32 i = 0; i < llm_shared->n_models; i++)
		if (!llm_models[i].is_used)
			return i;
	return LLM_NONE;
}

static void
copy_info(int32 model_idx, LlmModelInfo *info)
{
	const LlmModelEntry *entry = &llm_models[model_idx];

	info->model_idx = model_idx;
	info->generation = entry->generation;
	info->state = entry->state;
	info->is_default = llm_shared->default_model_idx == model_idx;
	strlcpy(info->name, entry->name, sizeof(info->name));
	strlcpy(info->path, entry->path[0] != '\0' ? entry->path : entry->load_path,
			sizeof(info->path));
	strlcpy(info->image_path, entry->image_path, sizeof(info->image_path));
	info->max_model_len = entry->max_model_len;
	info->n_vocab = entry->n_vocab;
	info->max_lora_rank = entry->max_lora_rank;
	info->loaded_at = entry->loaded_at;
	info->error = entry->error;
}

/* -- waiting -- */

/*
 * Sleep until a model changes.  *missing_since_us measures how long there has
 * been no scheduler.
 */
static void
wait_for_change(bool has_scheduler, int64 *missing_since_us)
{
	if (has_scheduler)
		*missing_since_us = 0;
	else if (*missing_since_us == 0)
		*missing_since_us = llm_clock_us();
	else if (llm_clock_us() - *missing_since_us >
			 LLM_SCHEDULER_WAIT_MS * INT64CONST(1000))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the llm_ext scheduler is not running"),
						errhint("See the server log for the reason.")));
	(void) ConditionVariableTimedSleep(&llm_shared->model_changed,
									   has_scheduler ? MODEL_WAIT_MS
													 : SCHEDULER_POLL_MS,
									   llm_wait_event_model());
}

static void
report_no_model(const char *name)
{
	if (name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("model \"%s\" is not loaded", name),
				 errhint("Load it with llm_load_model; the view llm.models "
						 "shows what is loaded.")));
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("there is no default model"),
					errhint("Load a model with llm_load_model or the setting "
							"llm_ext.model, or choose one with "
							"llm_default_model.")));
}

static void
report_failed_model(const LlmModelInfo *info)
{
	LlmError err = { .code = info->error.code };

	llm_error_set(&err, (LlmErrorCode) info->error.code,
				  "model \"%s\" could not be loaded: %s", info->name,
				  info->error.message);
	strlcpy(err.hint, info->error.hint, sizeof(err.hint));
	llm_report(ERROR, &err);
}

void
llm_scheduler_get_model(const char *name, LlmModelInfo *info)
{
	int64 missing_since_us = 0;

	llm_scheduler_require();
	for (;;)
	{
		int32 model_idx;
		bool has_scheduler;

		llm_scheduler_lock(LW_SHARED);
		has_scheduler = llm_shared->scheduler_pid != 0;
		model_idx =
			name != NULL ? find_entry(name) : llm_shared->default_model_idx;
		if (model_idx != LLM_NONE)
			copy_info(model_idx, info);
		llm_scheduler_unlock();
		if (has_scheduler)
		{
			if (model_idx == LLM_NONE || info->state == LLM_MODEL_EMPTY)
				report_no_model(name);
			if (info->state == LLM_MODEL_FAILED)
				report_failed_model(info);
			if (info->state == LLM_MODEL_READY)
				break;
		}
		wait_for_change(has_scheduler, &missing_since_us);
	}
	ConditionVariableCancelSleep();
}

int
llm_scheduler_list_models(LlmModelInfo **infos)
{
	int n_infos = 0;

	llm_scheduler_require();
	*infos = palloc0((Size) llm_shared->n_models * sizeof(LlmModelInfo));
	llm_scheduler_lock(LW_SHARED);
	for (int32 i = 0; i < llm_shared->n_models; i++)
		if (llm_models[i].is_used && !llm_models[i].is_unloading &&
			llm_models[i].state != LLM_MODEL_EMPTY)
			copy_info(i, &(*infos)[n_infos++]);
	llm_scheduler_unlock();
	return n_infos;
}

/* -- loading -- */

/* A load that this process waits for. */
typedef struct PendingLoad
{
	int32 model_idx;
	uint64 ticket;
} PendingLoad;

/* The outcome is known, or nobody waits for it any more; under the lock. */
static void
acknowledge_load(LlmModelEntry *entry)
{
	entry->load_state = LLM_LOAD_NONE;
	if (entry->state == LLM_MODEL_EMPTY)
		entry->is_used = false;
}

/* The wait was interrupted: call the load off. */
static void
cancel_load(int code, Datum arg)
{
	const PendingLoad *load = (PendingLoad *) DatumGetPointer(arg);
	LlmModelEntry *entry = &llm_models[load->model_idx];

	llm_scheduler_lock(LW_EXCLUSIVE);
	if (entry->load_ticket == load->ticket)
	{
		if (entry->load_state == LLM_LOAD_DONE ||
			entry->load_state == LLM_LOAD_FAILED)
			acknowledge_load(entry);
		else if (entry->load_state == LLM_LOAD_REQUESTED ||
				 entry->load_state == LLM_LOAD_RUNNING)
		{
			entry->load_state = LLM_LOAD_CANCELLED;
			llm_shared->has_model_work = true;
		}
	}
	llm_scheduler_unlock();
	llm_scheduler_wake();
}

static void
wait_for_load(const PendingLoad *load)
{
	LlmModelEntry *entry = &llm_models[load->model_idx];
	int64 missing_since_us = 0;
	LlmError err;

	for (;;)
	{
		LlmLoadState state = LLM_LOAD_NONE;
		bool has_scheduler;

		llm_scheduler_lock(LW_EXCLUSIVE);
		has_scheduler = llm_shared->scheduler_pid != 0;
		if (entry->load_ticket == load->ticket)
			state = entry->load_state;
		err = entry->load_error;
		if (state == LLM_LOAD_DONE || state == LLM_LOAD_FAILED)
			acknowledge_load(entry);
		llm_scheduler_unlock();
		if (state == LLM_LOAD_FAILED)
			llm_report(ERROR, &err);
		if (state == LLM_LOAD_DONE)
			break;
		if (state == LLM_LOAD_NONE)
			elog(ERROR, "load %llu has disappeared",
				 (unsigned long long) load->ticket);
		wait_for_change(has_scheduler, &missing_since_us);
	}
	ConditionVariableCancelSleep();
}

typedef enum LoadRequestOutcome
{
	LOAD_ACCEPTED,
	LOAD_TABLE_FULL,
	LOAD_BUSY
} LoadRequestOutcome;

static LoadRequestOutcome
request_load(PendingLoad *load, const char *name, const char *path,
			 const char *options)
{
	LlmModelEntry *entry;
	int32 model_idx = find_entry(name);

	if (model_idx == LLM_NONE)
		model_idx = find_free_entry();
	if (model_idx == LLM_NONE)
		return LOAD_TABLE_FULL;
	entry = &llm_models[model_idx];
	if (entry->load_state != LLM_LOAD_NONE)
		return LOAD_BUSY;
	if (!entry->is_used)
	{
		entry->is_used = true;
		entry->state = LLM_MODEL_LOADING;
		entry->executor_idx = LLM_NONE;
		entry->path[0] = entry->image_path[0] = '\0';
		strlcpy(entry->name, name, sizeof(entry->name));
	}
	entry->load_state = LLM_LOAD_REQUESTED;
	entry->load_ticket = ++llm_shared->n_load_tickets;
	entry->load_is_configured = false;
	entry->load_executor_idx = LLM_NONE;
	strlcpy(entry->load_path, path, sizeof(entry->load_path));
	strlcpy(entry->load_options, options, sizeof(entry->load_options));
	llm_shared->has_model_work = true;
	*load = (PendingLoad){ model_idx, entry->load_ticket };
	return LOAD_ACCEPTED;
}

static void
check_load_arguments(const char *name, const char *path)
{
	if (name[0] == '\0')
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the name of a model must not be empty")));
	if (strlen(name) >= LLM_MODEL_NAME_BYTES)
		ereport(ERROR, (errcode(ERRCODE_NAME_TOO_LONG),
						errmsg("model name \"%s\" is too long", name),
						errdetail("It may have up to %d bytes.",
								  LLM_MODEL_NAME_BYTES - 1)));
	if (strlen(path) >= MAXPGPATH)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("model path \"%s\" is too long", path)));
}

void
llm_scheduler_load_model(const char *name, const char *path,
						 const char *options_json)
{
	char options[LLM_LOAD_OPTIONS_BYTES];
	LoadRequestOutcome outcome;
	PendingLoad load;
	LlmError err;

	llm_scheduler_require();
	check_load_arguments(name, path);
	if (!llm_load_options_normalize(options_json, options, sizeof(options),
									&err))
		llm_report(ERROR, &err);
	llm_scheduler_lock(LW_EXCLUSIVE);
	outcome = request_load(&load, name, path, options);
	llm_scheduler_unlock();
	if (outcome == LOAD_TABLE_FULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d models are loaded already", llm_shared->n_models),
				 errhint("Unload one, or raise llm_ext.max_models.")));
	if (outcome == LOAD_BUSY)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("model \"%s\" is being loaded already", name)));
	llm_scheduler_wake();
	PG_ENSURE_ERROR_CLEANUP(cancel_load, PointerGetDatum(&load));
	{
		wait_for_load(&load);
	}
	PG_END_ENSURE_ERROR_CLEANUP(cancel_load, PointerGetDatum(&load));
}

/* -- unloading, choosing -- */

void
llm_scheduler_unload_model(const char *name)
{
	int64 missing_since_us = 0;
	int32 model_idx;
	uint32 generation = 0;
	bool is_busy = false;
	bool is_pending = true;
	bool has_scheduler;

	llm_scheduler_require();
	llm_scheduler_lock(LW_EXCLUSIVE);
	model_idx = find_entry(name);
	if (model_idx != LLM_NONE)
	{
		LlmModelEntry *entry = &llm_models[model_idx];

		generation = entry->generation;
		is_busy = entry->load_state != LLM_LOAD_NONE;
		if (!is_busy)
		{
			entry->is_unloading = true;
			llm_shared->has_model_work = true;
			if (llm_shared->default_model_idx == model_idx)
				llm_shared->default_model_idx = LLM_NONE;
		}
	}
	llm_scheduler_unlock();
	if (model_idx == LLM_NONE)
		report_no_model(name);
	if (is_busy)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("model \"%s\" is being loaded", name)));
	llm_scheduler_wake();
	for (;;)
	{
		llm_scheduler_lock(LW_SHARED);
		is_pending = llm_models[model_idx].is_unloading &&
					 llm_models[model_idx].generation == generation;
		has_scheduler = llm_shared->scheduler_pid != 0;
		llm_scheduler_unlock();
		if (!is_pending)
			break;
		wait_for_change(has_scheduler, &missing_since_us);
	}
	ConditionVariableCancelSleep();
}

void
llm_scheduler_set_default_model(const char *name)
{
	int32 model_idx;

	llm_scheduler_require();
	llm_scheduler_lock(LW_EXCLUSIVE);
	model_idx = find_entry(name);
	if (model_idx != LLM_NONE && llm_models[model_idx].state == LLM_MODEL_EMPTY)
		model_idx = LLM_NONE;
	if (model_idx != LLM_NONE)
		llm_shared->default_model_idx = model_idx;
	llm_scheduler_unlock();
	if (model_idx == LLM_NONE)
		report_no_model(name);
}
