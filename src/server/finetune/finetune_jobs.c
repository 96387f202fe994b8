/*
 * finetune_jobs.c
 *	  A job's rows.
 *
 * src/server/finetune/finetune_jobs.c
 */
#include "postgres.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "src/common/util/mapped_file.h"
#include "src/server/catalog/owner_sql.h"
#include "src/server/finetune/finetune_jobs.h"
#include "src/server/pg_compat.h"
#include "src/server/report.h"
#include "src/server/sql/text_convert.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

/* Of a file, in one row. */
#define PART_BYTES ((Size) 4 << 20)

static const char *const state_names[] = {
	"queued", "reading", "training",  "publishing",
	"done",	  "failed",	 "cancelled", "interrupted",
};

StaticAssertDecl(lengthof(state_names) == LLM_JOB_INTERRUPTED + 1,
				 "a state without a name");

const char *
llm_job_state_name(LlmJobState state)
{
	return state_names[state];
}

static LlmJobState
parse_state(const char *name)
{
	for (int i = 0; i < lengthof(state_names); i++)
		if (strcmp(name, state_names[i]) == 0)
			return (LlmJobState) i;
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
					errmsg("a fine-tuning job has the state \"%s\"", name)));
}

/* -- reading -- */

static void
copy_hash(int column, uint8 hash[LLM_FINGERPRINT_BYTES])
{
	const bytea *value = llm_owner_result_bytes(column);

	if (value != NULL && VARSIZE_ANY_EXHDR(value) == LLM_FINGERPRINT_BYTES)
		memcpy(hash, VARDATA_ANY(value), LLM_FINGERPRINT_BYTES);
}

char *
llm_job_options_text(Datum options)
{
	LlmTemplateText text = llm_json_text(options, JSONBOID);

	return pnstrdup(text.data, text.len);
}

/* In SPI's memory, which the caller's copy outlives. */
static char *
result_string(int column, MemoryContext context)
{
	char *value = llm_owner_result_text(column);

	return value != NULL ? MemoryContextStrdup(context, value) : NULL;
}

static void
note_row(int64 job_id, LlmJob *job)
{
	memset(job, 0, sizeof(*job));
	job->id = (LlmJobId){ .job_id = job_id,
						  .database_id = MyDatabaseId,
						  .role_id = (Oid) llm_owner_result_int64(1) };
	job->state = parse_state(llm_owner_result_text(2));
}

static bool
select_job(int64 job_id, MemoryContext context, LlmJob *job)
{
	LlmOwnerParams params = { 0 };
	MemoryContext old;
	bool isnull;

	llm_owner_int64(&params, job_id);
	if (llm_owner_run("SELECT role::oid::int8, state, adapter, query, "
					  "options, model, search_path, continue_from, "
					  "is_new::int, attempts, checkpoint_step, base, "
					  "template_hash, tokenizer_hash, "
					  "(SELECT count(*) FROM llm.finetune_data d "
					  "WHERE d.job = id AND d.name = 'dataset') "
					  "FROM llm.finetune_jobs WHERE id = $1 FOR UPDATE",
					  &params) == 0)
		return false;
	note_row(job_id, job);
	job->adapter = result_string(3, context);
	job->query = result_string(4, context);
	old = MemoryContextSwitchTo(context);
	job->options = llm_job_options_text(llm_owner_result(5, &isnull));
	MemoryContextSwitchTo(old);
	job->model = result_string(6, context);
	job->search_path = result_string(7, context);
	job->continue_from = llm_owner_result_int(8);
	job->is_new = llm_owner_result_int(9) != 0;
	job->n_attempts = llm_owner_result_int(10);
	job->checkpoint_step = llm_owner_result_int64(11);
	copy_hash(12, job->base);
	copy_hash(13, job->template_hash);
	copy_hash(14, job->tokenizer_hash);
	job->has_dataset = llm_owner_result_int64(15) > 0;
	return true;
}

static bool
may_see(Oid user_id, Oid role_id)
{
	return superuser_arg(user_id) || has_privs_of_role(user_id, role_id);
}

void
llm_job_lock(int64 job_id, LlmJob *job)
{
	MemoryContext context = CurrentMemoryContext;
	LlmOwnerSection section;

	llm_owner_begin(&section);
	if (!select_job(job_id, context, job))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("fine-tuning job " INT64_FORMAT " does not exist", job_id),
			 errhint("Jobs are listed in llm.finetune_progress.")));
	if (!may_see(section.user_id, job->id.role_id))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("fine-tuning job " INT64_FORMAT " is of another role",
						job_id)));
	llm_owner_end(&section);
}

bool
llm_job_peek(int64 job_id, LlmJobState *state, LlmJobId *id)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	LlmJob job;
	bool found;

	/* a statement's snapshot would show the job as it was */
	PushActiveSnapshot(GetLatestSnapshot());
	llm_owner_begin(&section);
	llm_owner_int64(&params, job_id);
	found = llm_owner_look("SELECT role::oid::int8, state "
						   "FROM llm.finetune_jobs WHERE id = $1",
						   &params) > 0;
	if (found)
		note_row(job_id, &job);
	found = found && may_see(section.user_id, job.id.role_id);
	llm_owner_end(&section);
	PopActiveSnapshot();
	if (found)
	{
		*state = job.state;
		*id = job.id;
	}
	return found;
}

bool
llm_job_read(const LlmJobId *id, LlmJob *job)
{
	MemoryContext context = CurrentMemoryContext;
	LlmOwnerSection section;
	bool found;

	llm_owner_begin(&section);
	found = select_job(id->job_id, context, job);
	llm_owner_end(&section);
	return found;
}

/* -- writing -- */

static void
run_as_owner(const char *sql, LlmOwnerParams *params)
{
	LlmOwnerSection section;

	llm_owner_begin(&section);
	(void) llm_owner_run(sql, params);
	llm_owner_end(&section);
}

int64
llm_job_insert(const LlmJob *job, Datum options)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	int64 job_id;

	llm_owner_begin(&section);
	llm_owner_text(&params, job->adapter);
	llm_owner_text(&params, job->query);
	llm_owner_param(&params, JSONBOID, options);
	llm_owner_text(&params, job->model);
	llm_owner_param(&params, OIDOID, ObjectIdGetDatum(job->id.role_id));
	llm_owner_text(&params, job->search_path);
	llm_owner_bytes(&params, job->base, LLM_FINGERPRINT_BYTES);
	if (job->continue_from > 0)
		llm_owner_int(&params, job->continue_from);
	else
		llm_owner_null(&params, INT4OID);
	llm_owner_param(&params, BOOLOID, BoolGetDatum(job->is_new));
	(void) llm_owner_run(
		"INSERT INTO llm.finetune_jobs (adapter, query, options, model, role, "
		"search_path, base, continue_from, is_new) VALUES ($1, $2, $3, "
		"$4, $5::regrole, $6, $7, $8, $9) RETURNING id",
		&params);
	job_id = llm_owner_result_int64(1);
	llm_owner_end(&section);
	return job_id;
}

void
llm_job_set_state(int64 job_id, LlmJobState state, const char *error)
{
	LlmOwnerParams params = { 0 };

	llm_owner_int64(&params, job_id);
	llm_owner_text(&params, llm_job_state_name(state));
	if (error != NULL)
		llm_owner_text(&params, error);
	else
		llm_owner_null(&params, TEXTOID);
	llm_owner_param(&params, BOOLOID,
					BoolGetDatum(!llm_job_state_is_active(state)));
	llm_owner_param(&params, BOOLOID, BoolGetDatum(state == LLM_JOB_QUEUED));
	run_as_owner("UPDATE llm.finetune_jobs SET state = $2, error = $3, "
				 "finished_at = CASE WHEN $4 THEN clock_timestamp() END, "
				 "attempts = CASE WHEN $5 THEN 0 ELSE attempts END "
				 "WHERE id = $1",
				 &params);
}

void
llm_job_forget_data(int64 job_id)
{
	LlmOwnerParams params = { 0 };

	llm_owner_int64(&params, job_id);
	run_as_owner("DELETE FROM llm.finetune_data WHERE job = $1", &params);
}

void
llm_job_begin(int64 job_id, LlmJobState state)
{
	LlmOwnerParams params = { 0 };

	llm_owner_int64(&params, job_id);
	llm_owner_text(&params, llm_job_state_name(state));
	run_as_owner("UPDATE llm.finetune_jobs SET state = $2, "
				 "attempts = attempts + 1, checkpoint_step = CASE WHEN EXISTS "
				 "(SELECT FROM llm.finetune_data d WHERE d.job = id "
				 "AND d.name = 'state') THEN checkpoint_step END, "
				 "started_at = coalesce(started_at, clock_timestamp()) "
				 "WHERE id = $1",
				 &params);
}

void
llm_job_note_dataset(int64 job_id, const LlmJobDataset *dataset)
{
	LlmOwnerParams params = { 0 };

	llm_owner_int64(&params, job_id);
	llm_owner_int64(&params, dataset->n_rows);
	llm_owner_int64(&params, dataset->n_eval_rows);
	llm_owner_int64(&params, dataset->n_skipped_rows);
	llm_owner_bytes(&params, dataset->template_hash, LLM_FINGERPRINT_BYTES);
	llm_owner_bytes(&params, dataset->tokenizer_hash, LLM_FINGERPRINT_BYTES);
	run_as_owner("UPDATE llm.finetune_jobs SET state = 'training', "
				 "n_rows = $2, n_eval_rows = $3, n_skipped_rows = $4, "
				 "template_hash = $5, tokenizer_hash = $6 WHERE id = $1",
				 &params);
}

void
llm_job_note_checkpoint(int64 job_id, int64 step)
{
	LlmOwnerParams params = { 0 };

	llm_owner_int64(&params, job_id);
	llm_owner_int64(&params, step);
	run_as_owner("UPDATE llm.finetune_jobs SET checkpoint_step = $2, "
				 "attempts = 1 WHERE id = $1",
				 &params);
}

/* -- the log -- */

static void
add_float(LlmOwnerParams *params, double value)
{
	if (isnan(value))
		llm_owner_null(params, FLOAT8OID);
	else
		llm_owner_param(params, FLOAT8OID, Float8GetDatum(value));
}

static void
add_rewards(LlmOwnerParams *params, const LlmWireTrainRewards *rewards)
{
	add_float(params, rewards->accuracy);
	add_float(params, rewards->chosen);
	add_float(params, rewards->rejected);
	add_float(params, rewards->margin);
}

void
llm_job_log(int64 job_id, const LlmJobLogRow *row)
{
	const LlmWireTrainLog *last = &row->last;
	LlmOwnerParams params = { 0 };

	llm_owner_int64(&params, job_id);
	llm_owner_int64(&params, last->step);
	llm_owner_int64(&params, last->n_steps);
	add_float(&params, last->epoch);
	add_float(&params, last->loss);
	add_float(&params, last->learning_rate);
	add_float(&params, last->grad_norm);
	llm_owner_int64(&params, last->n_tokens);
	llm_owner_int64(&params, last->n_labels);
	add_rewards(&params, &last->rewards);
	add_float(&params, last->eval_loss);
	add_rewards(&params, &last->eval_rewards);
	add_float(&params, row->tokens_per_second);
	llm_owner_int64(&params, row->memory_bytes);
	run_as_owner("INSERT INTO llm.finetune_log (job, step, n_steps, epoch, "
				 "loss, learning_rate, grad_norm, n_tokens, n_labels, "
				 "accuracy, chosen_reward, rejected_reward, reward_margin, "
				 "eval_loss, eval_accuracy, eval_chosen_reward, "
				 "eval_rejected_reward, eval_reward_margin, "
				 "tokens_per_second, memory_bytes) VALUES ($1, $2, $3, $4, $5, "
				 "$6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, "
				 "$19, $20)",
				 &params);
}

void
llm_job_note_result(int64 job_id, int32 version, const LlmWireTrained *trained)
{
	LlmOwnerParams params = { 0 };

	llm_owner_int64(&params, job_id);
	if (version > 0)
		llm_owner_int(&params, version);
	else
		llm_owner_null(&params, INT4OID);
	llm_owner_int64(&params, trained->step);
	add_float(&params, trained->eval_loss);
	add_float(&params, trained->baseline_loss);
	run_as_owner("UPDATE llm.finetune_jobs SET version = $2, "
				 "trained_step = $3, eval_loss = $4, active_eval_loss = $5 "
				 "WHERE id = $1",
				 &params);
}

void
llm_job_trim_log(int64 job_id, int64 step)
{
	LlmOwnerParams params = { 0 };

	llm_owner_int64(&params, job_id);
	llm_owner_int64(&params, step);
	run_as_owner("DELETE FROM llm.finetune_log WHERE job = $1 AND step > $2",
				 &params);
}

/* -- files as rows -- */

static void
insert_part(int64 job_id, const char *name, int part, const char *data,
			Size n_bytes)
{
	LlmOwnerParams params = { 0 };

	llm_owner_int64(&params, job_id);
	llm_owner_text(&params, name);
	llm_owner_int(&params, part);
	llm_owner_bytes(&params, data, n_bytes);
	(void) llm_owner_run("INSERT INTO llm.finetune_data (job, name, part, data)"
						 " VALUES ($1, $2, $3, $4)",
						 &params);
}

static void
insert_parts(int64 job_id, const char *name, const LlmMappedFile *file)
{
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "llm job data", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Size off = 0;

	for (int part = 0; part == 0 || off < file->size; part++)
	{
		Size n_bytes = Min(PART_BYTES, file->size - off);

		insert_part(job_id, name, part, file->data + off, n_bytes);
		off += n_bytes;
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

void
llm_job_store_file(int64 job_id, const char *name, const char *path)
{
	LlmOwnerSection section;
	LlmOwnerParams params = { 0 };
	LlmMappedFile file;
	LlmError err;

	if (!llm_mapped_file_open(&file, path, &err))
		llm_report(ERROR, &err);
	PG_TRY();
	{
		llm_owner_begin(&section);
		llm_owner_int64(&params, job_id);
		llm_owner_text(&params, name);
		(void) llm_owner_run(
			"DELETE FROM llm.finetune_data WHERE job = $1 AND name = $2",
			&params);
		insert_parts(job_id, name, &file);
		llm_owner_end(&section);
	}
	PG_FINALLY();
	{
		llm_mapped_file_close(&file);
	}
	PG_END_TRY();
}

static void
write_part(int fd, const char *path, const bytea *part)
{
	const char *data = VARDATA_ANY(part);
	Size left = VARSIZE_ANY_EXHDR(part);

	while (left > 0)
	{
		ssize_t n = write(fd, data, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			ereport(ERROR, (errcode_for_file_access(),
							errmsg("could not write file \"%s\": %m", path)));
		data += n;
		left -= (Size) n;
	}
}

bool
llm_job_load_file(int64 job_id, const char *name, const char *path)
{
	LlmOwnerSection section;
	int fd = OpenTransientFile(path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	int part = 0;

	if (fd < 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not create file \"%s\": %m", path)));
	llm_owner_begin(&section);
	for (;; part++)
	{
		LlmOwnerParams params = { 0 };

		llm_owner_int64(&params, job_id);
		llm_owner_text(&params, name);
		llm_owner_int(&params, part);
		if (llm_owner_run("SELECT data FROM llm.finetune_data "
						  "WHERE job = $1 AND name = $2 AND part = $3",
						  &params) == 0)
			break;
		write_part(fd, path, llm_owner_result_bytes(1));
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	llm_owner_end(&section);
	if (CloseTransientFile(fd) != 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not write file \"%s\": %m", path)));
	return part > 0;
}
