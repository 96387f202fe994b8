/*
 * model_loads.c
 *	  Which executor serves which name: the scheduler's side of the models.
 *
 * A load starts an executor of its own.  Only when that is ready does the
 * entry change over to it, in one locked step, and the old executor drains:
 * it finishes what it has and ends.  A load that fails leaves the old one
 * serving.
 *
 * The entries outlive a scheduler: the next one starts executors for them
 * again, under the same generation, so that nothing else changes for the
 * backend processes.
 *
 * src/server/scheduler/model_loads.c
 */
#include "postgres.h"

#include "src/common/util/json.h"
#include "src/server/scheduler/scheduler_process.h"
#include "src/server/settings.h"
#include "utils/timestamp.h"

/* What llm_ext.model named when it was last looked at. */
static char configured_path[MAXPGPATH];

/* -- entries; under the lock -- */

static void
clear_entry(LlmModelEntry *entry)
{
	entry->is_used = entry->is_unloading = entry->is_configured = false;
	entry->state = LLM_MODEL_EMPTY;
	entry->executor_idx = entry->load_executor_idx = LLM_NONE;
	entry->load_state = LLM_LOAD_NONE;
	entry->image_path[0] = '\0';
	entry->path[0] = '\0';
}

/* The load has ended without a model. */
static void
end_load(LlmModelEntry *entry, LlmLoadState state)
{
	entry->load_executor_idx = LLM_NONE;
	entry->load_state = state;
	/* a first load: there is nothing else under this name */
	if (entry->state == LLM_MODEL_LOADING && entry->executor_idx == LLM_NONE)
		entry->state = LLM_MODEL_EMPTY;
	if (entry->state == LLM_MODEL_EMPTY && state == LLM_LOAD_NONE)
		clear_entry(entry);
}

static void
fail_load(LlmModelEntry *entry, const LlmError *why)
{
	if (!entry->load_is_configured)
	{
		entry->load_error = *why;
		end_load(entry, LLM_LOAD_FAILED);
		return;
	}
	/* nobody waits: the error is kept where a model is missing for it */
	entry->load_executor_idx = LLM_NONE;
	entry->load_state = LLM_LOAD_NONE;
	if (entry->state == LLM_MODEL_READY)
		return;
	entry->state = LLM_MODEL_FAILED;
	entry->error = *why;
}

static void
broadcast(void)
{
	ConditionVariableBroadcast(&llm_shared->model_changed);
}

/* -- routing -- */

LlmExecutor *
llm_models_route(int32 model_idx, uint32 generation, LlmError *err)
{
	const LlmModelEntry *entry = &llm_models[model_idx];
	LlmExecutor *executor;

	if (entry->generation != generation || entry->executor_idx == LLM_NONE)
	{
		llm_error_set(err, LLM_ERROR_UNAVAILABLE,
					  "the model was replaced or unloaded while the request "
					  "was queued");
		llm_error_hint(err, "Run the statement again.");
		return NULL;
	}
	executor = llm_supervisor_executor(entry->executor_idx);
	if (entry->state == LLM_MODEL_FAILED)
	{
		*err = entry->error;
		return NULL;
	}
	return executor;
}

/* -- loads -- */

static void
start_load(int32 model_idx)
{
	LlmModelEntry *entry = &llm_models[model_idx];
	char path[MAXPGPATH];
	char options[LLM_LOAD_OPTIONS_BYTES];
	LlmExecutorSpec spec = {
		.model_idx = model_idx,
		.model_name = entry->name,
		.path = path,
		.options = options,
	};
	LlmExecutor *executor;
	LlmError err;

	llm_scheduler_lock(LW_EXCLUSIVE);
	strlcpy(path, entry->load_path, sizeof(path));
	strlcpy(options, entry->load_options, sizeof(options));
	spec.load_ticket = entry->load_ticket;
	llm_scheduler_unlock();
	executor = llm_supervisor_start(&spec, &err);
	llm_scheduler_lock(LW_EXCLUSIVE);
	if (executor == NULL)
		fail_load(entry, &err);
	else
	{
		/* it may have been cancelled meanwhile, which comes next then */
		entry->load_executor_idx = executor->idx;
		if (entry->load_state == LLM_LOAD_REQUESTED)
			entry->load_state = LLM_LOAD_RUNNING;
	}
	llm_scheduler_unlock();
	broadcast();
}

static void
call_off_load(int32 model_idx)
{
	LlmModelEntry *entry = &llm_models[model_idx];
	int32 executor_idx = entry->load_executor_idx;

	llm_scheduler_lock(LW_EXCLUSIVE);
	end_load(entry, LLM_LOAD_NONE);
	llm_scheduler_unlock();
	if (executor_idx != LLM_NONE)
		llm_supervisor_stop(llm_supervisor_executor(executor_idx));
	broadcast();
}

static void
unload(int32 model_idx)
{
	LlmModelEntry *entry = &llm_models[model_idx];
	int32 executor_idx = entry->executor_idx;

	llm_scheduler_lock(LW_EXCLUSIVE);
	clear_entry(entry);
	if (llm_shared->default_model_idx == model_idx)
		llm_shared->default_model_idx = LLM_NONE;
	llm_scheduler_unlock();
	if (executor_idx != LLM_NONE)
		llm_supervisor_drain(llm_supervisor_executor(executor_idx));
	broadcast();
}

void
llm_models_advance(void)
{
	if (!llm_shared->has_model_work)
		return;
	llm_scheduler_lock(LW_EXCLUSIVE);
	llm_shared->has_model_work = false;
	llm_scheduler_unlock();
	for (int32 i = 0; i < llm_shared->n_models; i++)
	{
		LlmModelEntry *entry = &llm_models[i];

		if (!entry->is_used)
			continue;
		if (entry->load_state == LLM_LOAD_REQUESTED)
			start_load(i);
		if (entry->load_state == LLM_LOAD_CANCELLED)
			call_off_load(i);
		if (entry->is_used && entry->is_unloading)
			unload(i);
	}
}

/* -- what executors report -- */

typedef struct Facts
{
	int64_t max_model_len;
	int64_t n_vocab;
	int64_t max_loras;
	int64_t max_lora_rank;
	char device[64];
} Facts;

static bool
parse_facts(const char *text, Size n_bytes, Facts *facts, LlmError *err)
{
	cJSON *json = llm_json_parse(text, n_bytes, "loaded message", err);
	const char *device = "";
	bool ok;

	if (json == NULL)
		return false;
	memset(facts, 0, sizeof(*facts));
	ok = llm_json_get_int(json, "max_model_len", &facts->max_model_len, err) &&
		 llm_json_get_int(json, "n_vocab", &facts->n_vocab, err) &&
		 llm_json_get_int(json, "max_loras", &facts->max_loras, err) &&
		 llm_json_get_int(json, "max_lora_rank", &facts->max_lora_rank, err) &&
		 llm_json_get_string(json, "device", &device, err);
	if (ok &&
		(facts->max_model_len <= 0 || facts->n_vocab <= 0 ||
		 facts->max_model_len > PG_INT32_MAX || facts->n_vocab > PG_INT32_MAX))
		ok = llm_error_set(err, LLM_ERROR_INTERNAL,
						   "loaded message without model length and "
						   "vocabulary");
	if (ok)
		strlcpy(facts->device, device, sizeof(facts->device));
	cJSON_Delete(json);
	return ok;
}

/* Under the lock. */
static void
publish_facts(const LlmExecutor *executor, const Facts *facts, const char *text,
			  Size n_bytes)
{
	LlmExecutorEntry *entry = &llm_executors[executor->idx];

	strlcpy(entry->device, facts->device, sizeof(entry->device));
	/* half an object would be none */
	if (n_bytes >= sizeof(entry->facts))
		strlcpy(entry->facts, "{}", sizeof(entry->facts));
	else
	{
		memcpy(entry->facts, text, n_bytes);
		entry->facts[n_bytes] = '\0';
	}
}

/*
 * Under the lock: serve the name with this executor from now on.  Returns the
 * executor that did so before, or LLM_NONE.
 */
static int32
change_over(LlmModelEntry *entry, const LlmExecutor *executor)
{
	int32 old_idx = entry->executor_idx;

	entry->executor_idx = executor->idx;
	entry->load_executor_idx = LLM_NONE;
	entry->generation++;
	strlcpy(entry->path, executor->path, sizeof(entry->path));
	strlcpy(entry->options, executor->options, sizeof(entry->options));
	strlcpy(entry->image_path, executor->image_path, sizeof(entry->image_path));
	entry->loaded_at = GetCurrentTimestamp();
	entry->load_state =
		entry->load_is_configured ? LLM_LOAD_NONE : LLM_LOAD_DONE;
	if (llm_shared->default_model_idx == LLM_NONE || entry->load_is_configured)
		llm_shared->default_model_idx = executor->model_idx;
	return old_idx;
}

/* What llm_ext.model named before gives way to the new model. */
static void
retire_configured(int32 new_idx)
{
	llm_scheduler_lock(LW_EXCLUSIVE);
	for (int32 i = 0; i < llm_shared->n_models; i++)
		if (i != new_idx && llm_models[i].is_used &&
			llm_models[i].is_configured &&
			llm_models[i].load_state == LLM_LOAD_NONE)
			llm_models[i].is_unloading = llm_shared->has_model_work = true;
	llm_scheduler_unlock();
	llm_scheduler_turn_at(llm_scheduler_now_us());
}

bool
llm_models_executor_ready(LlmExecutor *executor, const char *text, Size n_bytes,
						  LlmError *err)
{
	LlmModelEntry *entry = &llm_models[executor->model_idx];
	Facts facts = { 0 };
	int32 old_idx = LLM_NONE;
	bool is_loaded;
	bool is_current;

	if (!parse_facts(text, n_bytes, &facts, err))
		return false;
	llm_scheduler_lock(LW_EXCLUSIVE);
	publish_facts(executor, &facts, text, n_bytes);
	is_loaded = entry->load_state == LLM_LOAD_RUNNING &&
				entry->load_executor_idx == executor->idx &&
				entry->load_ticket == executor->load_ticket;
	if (is_loaded)
		old_idx = change_over(entry, executor);
	is_current = entry->executor_idx == executor->idx;
	if (is_current)
	{
		entry->state = LLM_MODEL_READY;
		entry->error.code = LLM_OK;
		entry->max_model_len = (int32) facts.max_model_len;
		entry->n_vocab = (int32) facts.n_vocab;
		entry->max_lora_rank =
			facts.max_loras > 0 ? (int32) facts.max_lora_rank : 0;
	}
	llm_scheduler_unlock();
	if (old_idx != LLM_NONE)
		llm_supervisor_drain(llm_supervisor_executor(old_idx));
	if (is_loaded && entry->load_is_configured)
		retire_configured(executor->model_idx);
	if (is_current)
		broadcast();
	return true;
}

void
llm_models_executor_failed(LlmExecutor *executor, const LlmError *why)
{
	LlmModelEntry *entry = &llm_models[executor->model_idx];

	llm_scheduler_lock(LW_EXCLUSIVE);
	if (entry->load_executor_idx == executor->idx &&
		entry->load_ticket == executor->load_ticket)
	{
		if (entry->load_state == LLM_LOAD_RUNNING)
			fail_load(entry, why);
		else
			/* cancelled: the executor is gone before it was stopped */
			entry->load_executor_idx = LLM_NONE;
	}
	else if (entry->executor_idx == executor->idx)
	{
		entry->state = LLM_MODEL_FAILED;
		entry->error = *why;
	}
	llm_scheduler_unlock();
	broadcast();
}

/* -- llm_ext.model -- */

/* The name for a directory: the setting, or the directory's last part. */
static void
configured_name(const char *path, char *name, Size size)
{
	char copy[MAXPGPATH];
	const char *last;

	if (llm_setting_model_name[0] != '\0')
	{
		strlcpy(name, llm_setting_model_name, size);
		return;
	}
	strlcpy(copy, path, sizeof(copy));
	canonicalize_path(copy);
	last = last_dir_separator(copy);
	strlcpy(name, last != NULL ? last + 1 : copy, size);
}

/* Under the lock: an entry of this name, or an unused one. */
static int32
choose_entry(const char *name)
{
	int32 free_idx = LLM_NONE;

	for (int32 i = 0; i < llm_shared->n_models; i++)
	{
		if (!llm_models[i].is_used)
			free_idx = free_idx == LLM_NONE ? i : free_idx;
		else if (!llm_models[i].is_unloading &&
				 strcmp(llm_models[i].name, name) == 0)
			return i;
	}
	return free_idx;
}

/* Under the lock.  False: the entry is busy, or there is none. */
static bool
request_configured_load(const char *name, const char *path)
{
	int32 model_idx = choose_entry(name);
	LlmModelEntry *entry;

	if (model_idx == LLM_NONE ||
		llm_models[model_idx].load_state != LLM_LOAD_NONE)
		return false;
	entry = &llm_models[model_idx];
	if (!entry->is_used)
	{
		clear_entry(entry);
		entry->is_used = true;
		strlcpy(entry->name, name, sizeof(entry->name));
	}
	entry->is_configured = true;
	if (entry->state != LLM_MODEL_READY)
		entry->state = LLM_MODEL_LOADING;
	entry->load_state = LLM_LOAD_REQUESTED;
	entry->load_ticket = ++llm_shared->n_load_tickets;
	entry->load_is_configured = true;
	strlcpy(entry->load_path, path, sizeof(entry->load_path));
	entry->load_options[0] = '\0';
	if (llm_shared->default_model_idx == LLM_NONE)
		llm_shared->default_model_idx = model_idx;
	llm_shared->has_model_work = true;
	return true;
}

/* Under the lock: does an entry serve the setting's model, or load it? */
static bool
configured_is_served(const char *name, const char *path)
{
	int32 model_idx = choose_entry(name);

	return model_idx != LLM_NONE && llm_models[model_idx].is_used &&
		   llm_models[model_idx].state != LLM_MODEL_FAILED &&
		   strcmp(llm_models[model_idx].path, path) == 0;
}

/* Under the lock: was it tried in vain? */
static bool
configured_has_failed(void)
{
	for (int32 i = 0; i < llm_shared->n_models; i++)
		if (llm_models[i].is_used && llm_models[i].is_configured &&
			llm_models[i].state == LLM_MODEL_FAILED)
			return true;
	return false;
}

void
llm_models_settings_changed(void)
{
	const char *path = llm_setting_model;
	char name[LLM_MODEL_NAME_BYTES];
	bool is_same = strcmp(path, configured_path) == 0;
	bool ok = true;

	if (path[0] == '\0' || strlen(path) >= MAXPGPATH)
		return;
	strlcpy(configured_path, path, sizeof(configured_path));
	configured_name(path, name, sizeof(name));
	llm_scheduler_lock(LW_EXCLUSIVE);
	/* one that was unloaded on purpose stays so until the setting changes */
	if (is_same ? configured_has_failed() : !configured_is_served(name, path))
		ok = request_configured_load(name, path);
	llm_scheduler_unlock();
	if (!ok)
		ereport(
			WARNING,
			(errmsg("could not load the model of llm_ext.model, \"%s\"", path),
			 errdetail("Another load under this name is in progress, or "
					   "llm_ext.max_models models are loaded already.")));
}

/* -- a new scheduler -- */

static void
resume_entry(int32 model_idx)
{
	LlmModelEntry *entry = &llm_models[model_idx];
	LlmExecutorSpec spec = {
		.model_idx = model_idx,
		.model_name = entry->name,
		.path = entry->path,
		.options = entry->options,
		.image_path = entry->image_path,
		.has_served = true,
	};
	LlmExecutor *executor;
	LlmError err;

	executor = llm_supervisor_start(&spec, &err);
	llm_scheduler_lock(LW_EXCLUSIVE);
	if (executor == NULL)
	{
		entry->state = LLM_MODEL_FAILED;
		entry->error = err;
	}
	else
		entry->executor_idx = executor->idx;
	llm_scheduler_unlock();
}

/* Under the lock: forget what the predecessor was about to do. */
static void
reset_entry(LlmModelEntry *entry, const LlmError *why)
{
	bool had_model = entry->executor_idx != LLM_NONE;

	entry->executor_idx = entry->load_executor_idx = LLM_NONE;
	if (had_model && !entry->is_unloading)
		entry->state = LLM_MODEL_LOADING;
	switch (entry->load_state)
	{
		case LLM_LOAD_REQUESTED:
		case LLM_LOAD_RUNNING:
			entry->load_error = *why;
			entry->load_state =
				entry->load_is_configured ? LLM_LOAD_NONE : LLM_LOAD_FAILED;
			break;
		case LLM_LOAD_CANCELLED:
			entry->load_state = LLM_LOAD_NONE;
			break;
		default:
			break;
	}
	if (entry->is_unloading)
		clear_entry(entry);
	else if (!had_model)
	{
		entry->state = LLM_MODEL_EMPTY;
		if (entry->load_state == LLM_LOAD_NONE)
			clear_entry(entry);
	}
}

void
llm_models_init(void)
{
	LlmError why;

	llm_error_set(&why, LLM_ERROR_UNAVAILABLE, "the scheduler was restarted");
	llm_scheduler_lock(LW_EXCLUSIVE);
	for (int32 i = 0; i < llm_shared->n_models; i++)
	{
		if (llm_models[i].is_used)
			reset_entry(&llm_models[i], &why);
		if (!llm_models[i].is_used && llm_shared->default_model_idx == i)
			llm_shared->default_model_idx = LLM_NONE;
	}
	llm_scheduler_unlock();
	for (int32 i = 0; i < llm_shared->n_models; i++)
		if (llm_models[i].is_used && llm_models[i].state == LLM_MODEL_LOADING)
			resume_entry(i);
	llm_models_settings_changed();
	broadcast();
}
