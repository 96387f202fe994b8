/*
 * finetune_internal.h
 *	  A job's identity, its folder, and what shared memory says of it.
 *
 * src/server/finetune/finetune_internal.h
 */
#ifndef LLM_FINETUNE_INTERNAL_H
#define LLM_FINETUNE_INTERNAL_H

#include "postgres.h"

#include "storage/condition_variable.h"
#include "storage/lwlock.h"

/* A job in the whole server. */
typedef struct LlmJobId
{
	int64 job_id; /* in its database */
	Oid database_id;
	Oid role_id; /* that submitted it, and as which it runs */
} LlmJobId;

/* -- folders (finetune_files.c) -- */

/*
 * A job has a folder of the data directory from the commit that submits it to
 * the one that ends it.  The folder is the wish that the job runs: whoever
 * starts workers looks for nothing else, and so finds after a crash what is to
 * be resumed.  Base backups skip it.
 */
typedef enum LlmJobFile
{
	LLM_JOB_FILE_DATASET,
	LLM_JOB_FILE_EVAL_DATASET,
	LLM_JOB_FILE_INITIAL,	 /* image of the adapter to go on from */
	LLM_JOB_FILE_BASELINE,	 /* image of the one to be better than */
	LLM_JOB_FILE_STATE,		 /* a checkpoint to go on from */
	LLM_JOB_FILE_CHECKPOINT, /* the executor's last one */
	LLM_JOB_FILE_OUTPUT,	 /* image of the trained adapter */
	LLM_JOB_FILE_COUNT
} LlmJobFile;

extern void
llm_job_file_path(const LlmJobId *id, LlmJobFile file, char path[MAXPGPATH]);

/* False and errno; no error is raised: it comes after a commit. */
extern bool llm_job_folder_create(const LlmJobId *id);
extern bool llm_job_folder_exists(const LlmJobId *id);

/* Its files, or all of it; what cannot be removed is a warning. */
extern void llm_job_folder_clear(const LlmJobId *id);
extern void llm_job_folder_remove(const LlmJobId *id);

/* All folders, the oldest jobs first; palloc'ed. */
extern int llm_job_folder_list(LlmJobId **ids);

/* -- shared memory (finetune_launch.c) -- */

/* What is only true while a worker runs. */
typedef struct LlmJobLive
{
	int32 executor_pid; /* 0: none */
	int64 step;
	int64 n_steps;
	double epoch;
	double loss; /* of the last step */
	double learning_rate;
	double grad_norm;
	double tokens_per_second;
	double seconds_left; /* NaN: not known yet */
	int64 memory_bytes;	 /* of the executor */
} LlmJobLive;

/* A running job; guarded by the lock of shared memory. */
typedef struct LlmJobEntry
{
	LlmJobId id;
	int32 worker_pid; /* 0: the entry is free */
	bool is_cancelled;
	LlmJobLive live;
} LlmJobEntry;

/* Raises an error where the library is not preloaded, or jobs are off. */
extern void llm_jobs_require(void);

/*
 * The worker takes its job until it exits.  False: another worker has it, or
 * there is no entry left.
 */
extern bool llm_jobs_claim(const LlmJobId *id);

extern void llm_jobs_set_live(const LlmJobLive *live);

/* Was the worker's job cancelled? */
extern bool llm_jobs_is_cancelled(void);

/* Copies of all entries in use; palloc'ed. */
extern int llm_jobs_list(LlmJobEntry **entries);
extern bool llm_jobs_find(const LlmJobId *id, LlmJobEntry *entry);

/* Tell the job's worker to stop; false: it has none. */
extern bool llm_jobs_cancel(const LlmJobId *id);

/* There may be a new folder; also after a commit: raises no errors. */
extern void llm_jobs_wake_launcher(void);

/* Some job's row has changed; sleep until then, or for timeout_ms. */
extern void llm_jobs_announce_change(void);
extern void llm_jobs_prepare_wait(void);
extern void llm_jobs_wait_change(long timeout_ms);
extern void llm_jobs_end_wait(void);

#endif /* LLM_FINETUNE_INTERNAL_H */
