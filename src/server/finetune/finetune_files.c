/*
 * finetune_files.c
 *	  The folders of jobs.
 *
 * A folder's name says whose job it is: <database>-<role>-<job>, so that a
 * process without a database connection can start its worker.
 *
 * src/server/finetune/finetune_files.c
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/file_utils.h"
#include "miscadmin.h"
#include "src/server/finetune/finetune_internal.h"
#include "storage/fd.h"

/* The prefix makes base backups and pg_rewind skip the folder. */
#define JOBS_FOLDER "pgsql_tmp_llm_ext_jobs"

static const char *const file_names[] = {
	"dataset", "eval_dataset", "initial.safetensors", "baseline.safetensors",
	"state",   "checkpoint",   "adapter.safetensors",
};

StaticAssertDecl(lengthof(file_names) == LLM_JOB_FILE_COUNT,
				 "a file without a name");

static void
jobs_folder(char path[MAXPGPATH])
{
	snprintf(path, MAXPGPATH, "%s/%s", DataDir, JOBS_FOLDER);
}

static void
job_folder(const LlmJobId *id, char path[MAXPGPATH])
{
	snprintf(path, MAXPGPATH, "%s/%s/%u-%u-" INT64_FORMAT, DataDir, JOBS_FOLDER,
			 id->database_id, id->role_id, id->job_id);
}

void
llm_job_file_path(const LlmJobId *id, LlmJobFile file, char path[MAXPGPATH])
{
	char folder[MAXPGPATH];

	job_folder(id, folder);
	if (snprintf(path, MAXPGPATH, "%s/%s", folder, file_names[file]) >=
		MAXPGPATH)
		ereport(ERROR, (errcode(ERRCODE_NAME_TOO_LONG),
						errmsg("the data directory's path is too long")));
}

bool
llm_job_folder_create(const LlmJobId *id)
{
	char path[MAXPGPATH];

	jobs_folder(path);
	if (mkdir(path, S_IRWXU) != 0 && errno != EEXIST)
		return false;
	job_folder(id, path);
	return mkdir(path, S_IRWXU) == 0 || errno == EEXIST;
}

bool
llm_job_folder_exists(const LlmJobId *id)
{
	char path[MAXPGPATH];
	struct stat st;

	job_folder(id, path);
	return stat(path, &st) == 0;
}

void
llm_job_folder_clear(const LlmJobId *id)
{
	char path[MAXPGPATH];

	job_folder(id, path);
	if (llm_job_folder_exists(id))
		(void) rmtree(path, false);
}

void
llm_job_folder_remove(const LlmJobId *id)
{
	char path[MAXPGPATH];

	job_folder(id, path);
	if (llm_job_folder_exists(id))
		(void) rmtree(path, true);
}

static int
compare_ids(const void *a, const void *b)
{
	const LlmJobId *x = a;
	const LlmJobId *y = b;

	if (x->job_id != y->job_id)
		return x->job_id < y->job_id ? -1 : 1;
	return (x->database_id > y->database_id) -
		   (x->database_id < y->database_id);
}

int
llm_job_folder_list(LlmJobId **ids)
{
	int capacity = 16;
	int n = 0;
	char path[MAXPGPATH];
	struct dirent *item;
	DIR *dir;

	jobs_folder(path);
	*ids = palloc((Size) capacity * sizeof(LlmJobId));
	dir = opendir(path);
	if (dir == NULL)
		return 0; /* there never was a job */
	while ((item = readdir(dir)) != NULL)
	{
		LlmJobId id;
		long long job_id;
		int end = 0;

		if (sscanf(item->d_name, "%u-%u-%lld%n", &id.database_id, &id.role_id,
				   &job_id, &end) != 3 ||
			item->d_name[end] != '\0')
			continue;
		id.job_id = job_id;
		if (n == capacity)
		{
			capacity *= 2;
			*ids = repalloc(*ids, (Size) capacity * sizeof(LlmJobId));
		}
		(*ids)[n++] = id;
	}
	(void) closedir(dir);
	qsort(*ids, (Size) n, sizeof(LlmJobId), compare_ids);
	return n;
}
