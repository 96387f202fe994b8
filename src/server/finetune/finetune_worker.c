/*
 * finetune_worker.c
 *	  The worker: one job from its row to its adapter.
 *
 * It is connected as the job's role, in the job's database, and holds no
 * transaction while steps are taken: training takes hours, and a snapshot that
 * old would keep dead rows from being cleaned up in the whole database.  So
 * each thing that must be there together is one commit: the dataset, a
 * checkpoint, the published version.
 *
 * An error ends the job, with the error in its row.  A worker that is told to
 * terminate, or dies, leaves row and folder as they are: the next one goes on
 * from the last checkpoint.  An executor that dies is started again from there
 * by this worker.
 *
 * src/server/finetune/finetune_worker.c
 */
#include "postgres.h"

#include <math.h>
#include <unistd.h>

#include "src/common/util/mapped_file.h"
#include "src/server/adapter_files.h"
#include "src/server/catalog/adapter_image_store.h"
#include "src/server/catalog/adapter_store.h"
#include "src/server/finetune/dataset_query.h"
#include "src/server/finetune/finetune_jobs.h"
#include "src/server/finetune/finetune_options.h"
#include "src/server/finetune/train_process.h"
#include "src/server/pg_compat.h"
#include "src/server/report.h"
#include "src/server/settings.h"
#include "src/server/sql/model_handle.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Workers and executors that a job may wear out without a new checkpoint. */
#define MAX_ATTEMPTS 4

extern PGDLLEXPORT void llm_finetune_worker_main(Datum arg);

/* Steps since the last row of the log. */
typedef struct LogSums
{
	int64 n_steps;
	double loss;
	int64 n_tokens;
	int64 n_labels;
	int64 step_us;
	LlmWireTrainRewards rewards; /* sums over steps that have them */
	LlmWireTrainRewards n_rewards;
} LogSums;

static struct
{
	LlmJobId id;
	MemoryContext context; /* as long as the worker */
	LlmJob job;
	LlmFinetuneOptions options;
	char model_path[MAXPGPATH];
	bool has_eval;
	LogSums sums;	  /* since the last row */
	LogSums all_sums; /* since the executor's start */
	LlmJobLive live;
	LlmWireTrained trained; /* at the end */
} worker;

/* -- transactions -- */

static void
begin_transaction(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
}

static void
commit_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	llm_jobs_announce_change();
}

static const char *
file_path(LlmJobFile file)
{
	static char paths[LLM_JOB_FILE_COUNT][MAXPGPATH];

	llm_job_file_path(&worker.id, file, paths[file]);
	return paths[file];
}

/* -- the job's beginning -- */

/* Take the job from whoever had it; false: nothing is to be done. */
static bool
take_job(void)
{
	MemoryContext old;
	bool runs;

	begin_transaction("beginning a fine-tuning job");
	old = MemoryContextSwitchTo(worker.context);
	runs = llm_job_read(&worker.id, &worker.job) &&
		   worker.job.id.role_id == worker.id.role_id &&
		   llm_job_state_is_active(worker.job.state);
	if (runs)
		llm_finetune_options_parse(worker.job.options, &worker.options);
	MemoryContextSwitchTo(old);
	if (runs && worker.job.n_attempts >= MAX_ATTEMPTS)
	{
		llm_job_set_state(worker.id.job_id, LLM_JOB_INTERRUPTED,
						  psprintf("the job's processes ended %d times without "
								   "a new checkpoint",
								   worker.job.n_attempts));
		runs = false;
	}
	if (runs)
		llm_job_begin(worker.id.job_id, worker.job.has_dataset
											? LLM_JOB_TRAINING
											: LLM_JOB_READING);
	commit_transaction();
	return runs;
}

/* The model that the job was submitted for, and no other of its name. */
static LlmModelHandle *
get_model(void)
{
	LlmModelHandle *handle = llm_model_handle_get(worker.job.model);

	if (memcmp(handle->facts->fingerprint, worker.job.base,
			   LLM_FINGERPRINT_BYTES) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("model \"%s\" is another one than when the job was "
						"submitted",
						worker.job.model)));
	strlcpy(worker.model_path, handle->info.path, MAXPGPATH);
	if (!worker.options.has_cutoff_len)
		worker.options.dataset.row.cutoff_len = Min(
			worker.options.dataset.row.cutoff_len, handle->facts->max_position);
	return handle;
}

/* Run the query, and keep what comes of it with the job. */
static void
read_dataset(void)
{
	LlmModelHandle *handle;
	LlmDatasetSummary summary;
	LlmJobDataset dataset;

	begin_transaction(worker.job.query);
	handle = get_model();
	/* as in the session that submitted the job */
	SetConfigOption("search_path", worker.job.search_path, PGC_USERSET,
					PGC_S_SESSION);
	llm_dataset_query_write(
		worker.job.query, handle, &worker.options.dataset,
		file_path(LLM_JOB_FILE_DATASET),
		worker.has_eval ? file_path(LLM_JOB_FILE_EVAL_DATASET) : NULL,
		&summary);
	llm_job_store_file(worker.id.job_id, "dataset",
					   file_path(LLM_JOB_FILE_DATASET));
	if (worker.has_eval)
		llm_job_store_file(worker.id.job_id, "eval_dataset",
						   file_path(LLM_JOB_FILE_EVAL_DATASET));
	dataset = (LlmJobDataset){
		.n_rows = summary.n_train,
		.n_eval_rows = summary.n_eval,
		.n_skipped_rows = summary.n_bad + summary.n_dropped,
		.template_hash = handle->facts->template_hash,
		.tokenizer_hash = handle->facts->tokenizer_hash,
	};
	llm_job_note_dataset(worker.id.job_id, &dataset);
	memcpy(worker.job.template_hash, dataset.template_hash,
		   LLM_FINGERPRINT_BYTES);
	memcpy(worker.job.tokenizer_hash, dataset.tokenizer_hash,
		   LLM_FINGERPRINT_BYTES);
	commit_transaction();
}

/* What an earlier worker has read. */
static void
load_dataset(void)
{
	begin_transaction("loading a fine-tuning job's dataset");
	(void) get_model();
	if (!llm_job_load_file(worker.id.job_id, "dataset",
						   file_path(LLM_JOB_FILE_DATASET)) ||
		(worker.has_eval &&
		 !llm_job_load_file(worker.id.job_id, "eval_dataset",
							file_path(LLM_JOB_FILE_EVAL_DATASET))))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("the job's dataset is gone")));
	commit_transaction();
}

/* A version of the adapter as a file that nobody removes meanwhile. */
static void
load_version(int32 number, LlmJobFile file)
{
	LlmAdapterVersion version;
	char path[MAXPGPATH];

	llm_adapter_resolve(psprintf("%s@%d", worker.job.adapter, number), NULL, 0,
						GetUserId(), &version);
	if (memcmp(version.base, worker.job.base, LLM_FINGERPRINT_BYTES) != 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("version %d of adapter \"%s\" is for another "
							   "model than the job trains on",
							   number, worker.job.adapter)));
	llm_adapter_materialize(&version);
	llm_adapter_file_path(version.digest, path);
	if (link(path, file_path(file)) != 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not link file \"%s\": %m", path)));
}

/* The versions to go on from, and to be better than. */
static void
load_versions(void)
{
	int32 active = 0;

	begin_transaction("loading a fine-tuning job's adapter");
	if (worker.job.continue_from > 0)
		load_version(worker.job.continue_from, LLM_JOB_FILE_INITIAL);
	if (worker.options.publish_if_better)
		active = llm_adapter_active_version(worker.job.adapter);
	if (active > 0 && active != worker.job.continue_from)
		load_version(active, LLM_JOB_FILE_BASELINE);
	commit_transaction();
}

/* -- steps -- */

static void
add_default(cJSON *json, const char *key, const char *value)
{
	if (cJSON_GetObjectItemCaseSensitive(json, key) == NULL)
		(void) cJSON_AddStringToObject(json, key, value);
}

/* The TRAIN message; palloc'ed. */
static char *
compose_request(bool has_state)
{
	const char *options = worker.options.train;
	LlmError err;
	cJSON *json = llm_json_parse(options, strlen(options), "options", &err);
	char *text;
	char *copy;

	if (json == NULL)
		llm_report(ERROR, &err);
	add_default(json, "path", worker.model_path);
	add_default(json, "dataset", file_path(LLM_JOB_FILE_DATASET));
	if (worker.has_eval)
		add_default(json, "eval_dataset", file_path(LLM_JOB_FILE_EVAL_DATASET));
	if (worker.job.continue_from > 0)
		add_default(json, "initial", file_path(LLM_JOB_FILE_INITIAL));
	if (access(file_path(LLM_JOB_FILE_BASELINE), F_OK) == 0)
		add_default(json, "baseline", file_path(LLM_JOB_FILE_BASELINE));
	if (has_state)
		add_default(json, "state", file_path(LLM_JOB_FILE_STATE));
	add_default(json, "checkpoint", file_path(LLM_JOB_FILE_CHECKPOINT));
	add_default(json, "output", file_path(LLM_JOB_FILE_OUTPUT));
	add_default(json, "device", llm_setting_device);
	add_default(json, "dtype", llm_setting_dtype);
	add_default(json, "load_format", llm_setting_load_format);
	add_default(json, "share_dir", llm_image_folder());
	add_default(json, "busy_sign", llm_busy_sign_path());
	(void) cJSON_AddNumberToObject(json, "cutoff_len",
								   worker.options.dataset.row.cutoff_len);
	if (!cJSON_HasObjectItem(json, "save_steps"))
		(void) cJSON_AddNumberToObject(json, "save_steps", 500);
	if (!cJSON_HasObjectItem(json, "num_threads"))
		(void) cJSON_AddNumberToObject(json, "num_threads",
									   llm_setting_num_threads);
	text = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	if (text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	copy = MemoryContextStrdup(worker.context, text);
	cJSON_free(text);
	return copy;
}

static void
add_known(double *sum, double *n, double value)
{
	if (isnan(value))
		return;
	*sum += value;
	*n += 1;
}

static void
add_step(LogSums *sums, const LlmWireTrainLog *log)
{
	LlmWireTrainRewards *all = &sums->rewards;
	LlmWireTrainRewards *n = &sums->n_rewards;

	add_known(&all->accuracy, &n->accuracy, log->rewards.accuracy);
	add_known(&all->chosen, &n->chosen, log->rewards.chosen);
	add_known(&all->rejected, &n->rejected, log->rewards.rejected);
	add_known(&all->margin, &n->margin, log->rewards.margin);
	sums->n_steps++;
	sums->loss += log->loss;
	sums->n_tokens += log->n_tokens;
	sums->n_labels += log->n_labels;
	sums->step_us += log->step_us;
}

/* Of the steps that have them; NaN: none. */
static LlmWireTrainRewards
mean_rewards(const LogSums *sums)
{
	const LlmWireTrainRewards *all = &sums->rewards;
	const LlmWireTrainRewards *n = &sums->n_rewards;

	return (LlmWireTrainRewards){
		.accuracy = n->accuracy > 0 ? all->accuracy / n->accuracy : NAN,
		.chosen = n->chosen > 0 ? all->chosen / n->chosen : NAN,
		.rejected = n->rejected > 0 ? all->rejected / n->rejected : NAN,
		.margin = n->margin > 0 ? all->margin / n->margin : NAN,
	};
}

static double
tokens_per_second(const LogSums *sums)
{
	return sums->step_us > 0
			   ? (double) sums->n_tokens * 1e6 / (double) sums->step_us
			   : NAN;
}

static void
publish_live(const LlmWireTrainLog *log)
{
	const LogSums *all = &worker.all_sums;
	double step_s = (double) all->step_us / 1e6 / (double) all->n_steps;

	worker.live.step = log->step;
	worker.live.n_steps = log->n_steps;
	worker.live.epoch = log->epoch;
	worker.live.loss = log->loss;
	worker.live.learning_rate = log->learning_rate;
	worker.live.grad_norm = log->grad_norm;
	worker.live.tokens_per_second = tokens_per_second(all);
	worker.live.seconds_left = step_s * (double) (log->n_steps - log->step);
	worker.live.memory_bytes = llm_train_process_memory_bytes();
	llm_jobs_set_live(&worker.live);
}

static void
take_log(const LlmWireTrainLog *log)
{
	LlmJobLogRow row = { .last = *log };

	if (log->step > 0)
	{
		add_step(&worker.sums, log);
		add_step(&worker.all_sums, log);
		publish_live(log);
	}
	if (log->step % worker.options.logging_steps != 0 &&
		log->step != log->n_steps && isnan(log->eval_loss))
		return;
	row.last.loss = worker.sums.n_steps > 0
						? worker.sums.loss / (double) worker.sums.n_steps
						: NAN;
	row.last.n_tokens = worker.sums.n_tokens;
	row.last.n_labels = worker.sums.n_labels;
	row.last.rewards = mean_rewards(&worker.sums);
	row.tokens_per_second = tokens_per_second(&worker.sums);
	row.memory_bytes = worker.live.memory_bytes;
	memset(&worker.sums, 0, sizeof(worker.sums));
	begin_transaction("logging a fine-tuning job's steps");
	llm_job_log(worker.id.job_id, &row);
	commit_transaction();
}

static void
keep_checkpoint(int64 step)
{
	begin_transaction("keeping a fine-tuning job's checkpoint");
	llm_job_store_file(worker.id.job_id, "state",
					   file_path(LLM_JOB_FILE_CHECKPOINT));
	llm_job_note_checkpoint(worker.id.job_id, step);
	commit_transaction();
	worker.job.checkpoint_step = step;
	worker.job.n_attempts = 0;
}

/* Put the last checkpoint in place, and the log back to it. */
static bool
load_checkpoint(void)
{
	bool has_state;

	begin_transaction("loading a fine-tuning job's checkpoint");
	has_state = llm_job_load_file(worker.id.job_id, "state",
								  file_path(LLM_JOB_FILE_STATE));
	llm_job_trim_log(worker.id.job_id,
					 has_state ? worker.job.checkpoint_step : -1);
	commit_transaction();
	return has_state;
}

/* The executor's end without a word; raises an error after too many. */
static void
count_death(void)
{
	if (++worker.job.n_attempts >= MAX_ATTEMPTS)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("the executor of the job died %d times without a new "
						"checkpoint",
						worker.job.n_attempts),
				 errhint("The server's log may say why.")));
	ereport(LOG, (errmsg("the executor of fine-tuning job " INT64_FORMAT
						 " died; another goes on from step " INT64_FORMAT,
						 worker.id.job_id, worker.job.checkpoint_step)));
}

/* One executor's steps; false: it died. */
static bool
follow_executor(void)
{
	LlmTrainEvent event;

	for (;;)
	{
		llm_train_process_wait(&event);
		switch (event.kind)
		{
			case LLM_TRAIN_EVENT_LOG:
				take_log(&event.log);
				break;
			case LLM_TRAIN_EVENT_SAVED:
				keep_checkpoint(event.saved.step);
				break;
			case LLM_TRAIN_EVENT_TRAINED:
				worker.trained = event.trained;
				return true;
			case LLM_TRAIN_EVENT_FAILED:
				llm_report(ERROR, &event.error);
				break;
			case LLM_TRAIN_EVENT_DIED:
				return false;
		}
	}
}

static void
train(void)
{
	bool is_trained;

	do
	{
		char *request = compose_request(load_checkpoint());

		memset(&worker.sums, 0, sizeof(worker.sums));
		memset(&worker.all_sums, 0, sizeof(worker.all_sums));
		worker.live = (LlmJobLive){ .seconds_left = NAN };
		worker.live.executor_pid =
			llm_train_process_start(worker.job.model, request);
		llm_jobs_set_live(&worker.live);
		pfree(request);
		is_trained = follow_executor();
		llm_train_process_end();
		worker.live.executor_pid = 0;
		llm_jobs_set_live(&worker.live);
		if (!is_trained)
			count_death();
	} while (!is_trained);
}

/* -- the job's end -- */

/* A version of an adapter that somebody dropped meanwhile is not wanted. */
static void
check_adapter(void)
{
	if (!llm_adapter_store_check_owner(worker.job.adapter) &&
		!worker.job.is_new)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("adapter \"%s\" was dropped while the job ran",
							   worker.job.adapter)));
}

/* Returns the version. */
static int32
store_adapter(const LlmMappedFile *file)
{
	LlmAdapterNewImage image = {
		.name = worker.job.adapter,
		.model = worker.job.model,
		.origin = psprintf("fine-tuning job " INT64_FORMAT, worker.id.job_id),
		.base = worker.job.base,
		.template_hash = worker.job.template_hash,
		.tokenizer_hash = worker.job.tokenizer_hash,
		.bytes = file->data,
		.n_bytes = file->size,
	};
	LlmModelConfig *config = palloc(sizeof(LlmModelConfig));
	int32 version;
	LlmError err;

	if (!llm_model_config_read(worker.model_path, config, &err))
		llm_report(ERROR, &err);
	image.config = config;
	version = llm_adapter_store_image(&image, NULL);
	if (worker.options.description != NULL)
		llm_adapter_store_describe(worker.job.adapter,
								   worker.options.description);
	if (worker.options.activate)
		llm_adapter_store_activate(worker.job.adapter, version);
	return version;
}

/* Is the adapter worth it?  The reason, palloc'ed, where it is not. */
static char *
reason_against(void)
{
	const LlmWireTrained *trained = &worker.trained;

	if (!worker.options.publish_if_better ||
		trained->eval_loss < trained->baseline_loss)
		return NULL;
	return psprintf("not published: the held-out loss is %.6g, and %.6g with "
					"what was active when the job began",
					trained->eval_loss, trained->baseline_loss);
}

/* The version, and that the job is done: one commit. */
static void
publish(void)
{
	LlmMappedFile file;
	char *against;
	int32 version = 0;
	LlmError err;

	begin_transaction("publishing a fine-tuned adapter");
	llm_job_set_state(worker.id.job_id, LLM_JOB_PUBLISHING, NULL);
	commit_transaction();
	if (!llm_mapped_file_open(&file, file_path(LLM_JOB_FILE_OUTPUT), &err))
		llm_report(ERROR, &err);
	PG_TRY();
	{
		begin_transaction("publishing a fine-tuned adapter");
		check_adapter();
		against = reason_against();
		if (against == NULL)
			version = store_adapter(&file);
		llm_job_note_result(worker.id.job_id, version, &worker.trained);
		llm_job_set_state(worker.id.job_id, LLM_JOB_DONE, against);
		llm_job_forget_data(worker.id.job_id);
		ForceSyncCommit();
		commit_transaction();
	}
	PG_FINALLY();
	{
		llm_mapped_file_close(&file);
	}
	PG_END_TRY();
}

static void
run_job(void)
{
	llm_job_folder_clear(&worker.id);
	worker.has_eval = worker.options.dataset.val_size > 0 ||
					  worker.options.dataset.eval_query != NULL;
	if (worker.job.has_dataset)
		load_dataset();
	else
		read_dataset();
	load_versions();
	train();
	publish();
}

static char *
describe_error(const ErrorData *error)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, error->message);
	if (error->detail != NULL)
		appendStringInfo(&text, "\n%s", error->detail);
	if (error->hint != NULL)
		appendStringInfo(&text, "\n%s", error->hint);
	return text.data;
}

/* What ended the job, into its row; the row may be gone. */
static void
note_failure(const ErrorData *error)
{
	bool is_cancelled = error->sqlerrcode == ERRCODE_QUERY_CANCELED;
	LlmJob job;

	begin_transaction("ending a fine-tuning job");
	if (llm_job_read(&worker.id, &job) && llm_job_state_is_active(job.state))
	{
		llm_job_set_state(worker.id.job_id,
						  is_cancelled ? LLM_JOB_CANCELLED : LLM_JOB_FAILED,
						  is_cancelled ? NULL : describe_error(error));
		if (is_cancelled)
			llm_job_forget_data(worker.id.job_id);
		ForceSyncCommit();
	}
	commit_transaction();
}

/* In a PG_CATCH: back to where transactions can begin. */
static ErrorData *
leave_error(void)
{
	ErrorData *error;

	HOLD_INTERRUPTS();
	QueryCancelPending = false;
	EmitErrorReport();
	MemoryContextSwitchTo(worker.context);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	RESUME_INTERRUPTS();
	return error;
}

static void
add_context(void *arg)
{
	errcontext("fine-tuning job " INT64_FORMAT, worker.id.job_id);
}

static void
run_and_note_failure(void)
{
	ErrorContextCallback context = { .callback = add_context };
	ErrorData *volatile error = NULL;

	error_context_stack = &context;
	PG_TRY();
	{
		if (take_job())
			run_job();
	}
	PG_CATCH();
	{
		error = leave_error();
	}
	PG_END_TRY();
	llm_train_process_end();
	/* it has ended: a cancel that comes now must not keep that from its row */
	pqsignal(SIGINT, SIG_IGN);
	QueryCancelPending = false;
	PG_TRY();
	{
		if (error != NULL)
			note_failure(error);
	}
	PG_CATCH();
	{
		(void) leave_error();
	}
	PG_END_TRY();
	error_context_stack = NULL;
}

/* -- the process -- */

/* What roles and databases may be set to must not get in the way. */
static void
set_up_session(void)
{
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET,
					PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_USERSET, PGC_S_OVERRIDE);
	/* a log row that is lost with the server is not missed */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_OVERRIDE);
}

void
llm_finetune_worker_main(Datum arg)
{
	memcpy(&worker.id, MyBgworkerEntry->bgw_extra, sizeof(worker.id));
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(worker.id.database_id,
											  worker.id.role_id, 0);
	if (!llm_jobs_claim(&worker.id))
		proc_exit(0);
	set_up_session();
	worker.context = AllocSetContextCreate(TopMemoryContext, "llm job",
										   ALLOCSET_DEFAULT_SIZES);
	run_and_note_failure();
	/* before the entry is free: nobody starts the job in between */
	llm_job_folder_remove(&worker.id);
	proc_exit(0);
}
