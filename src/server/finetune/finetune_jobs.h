/*
 * finetune_jobs.h
 *	  A job's rows: llm.finetune_jobs, llm.finetune_log, llm.finetune_data.
 *
 * All of it happens in the caller's transaction, as the tables' owner; who may
 * do what is checked here where a user asks, and nowhere where the worker does.
 *
 * src/server/finetune/finetune_jobs.h
 */
#ifndef LLM_FINETUNE_JOBS_H
#define LLM_FINETUNE_JOBS_H

#include "postgres.h"

#include "src/common/ipc/ipc_message.h"
#include "src/common/model_dir/model_dir.h"
#include "src/server/finetune/finetune_internal.h"

/*
 *	             COMMIT of llm_finetune, llm_finetune_resume
 *	                  v
 *	 +----------- QUEUED              waits for its worker
 *	 |                v  a worker takes it
 *	 |            READING ----+       the query runs, the dataset is kept
 *	 |                v       |
 *	 +----------- TRAINING <--+--+    steps; checkpoints are kept
 *	 |                v       |  |
 *	 |            PUBLISHING -+  |    one commit: the version, and DONE
 *	 |                v       |  |
 *	 |              DONE      |  |
 *	 | cancel                 |  | a worker takes it, and the dataset is there
 *	 +-> CANCELLED <----------+  |
 *	 +-> FAILED <-------------+  |    an error, which is kept
 *	 +-> INTERRUPTED <--------+--+    died too often; or (seen, not stored)
 *	                                  nobody runs it, nor will by itself
 *
 * llm_finetune_resume takes FAILED and INTERRUPTED back to QUEUED.  The worker
 * alone moves a job that it has taken; the row's lock orders everybody.  What
 * the job would go on from is deleted when it is DONE or CANCELLED.
 */
typedef enum LlmJobState
{
	LLM_JOB_QUEUED,
	LLM_JOB_READING,
	LLM_JOB_TRAINING,
	LLM_JOB_PUBLISHING,
	LLM_JOB_DONE,
	LLM_JOB_FAILED,
	LLM_JOB_CANCELLED,
	LLM_JOB_INTERRUPTED
} LlmJobState;

extern const char *llm_job_state_name(LlmJobState state);

/* Does somebody run it, or will? */
static inline bool
llm_job_state_is_active(LlmJobState state)
{
	return state <= LLM_JOB_PUBLISHING;
}

/* A row; what is pointed to is palloc'ed. */
typedef struct LlmJob
{
	LlmJobId id;
	LlmJobState state;
	char *adapter;
	char *query;
	char *options; /* JSON text, in UTF-8 */
	char *model;
	char *search_path;	   /* in which the query's names are looked up */
	int32 continue_from;   /* version of the adapter; 0: none */
	bool is_new;		   /* there was no adapter of that name */
	int32 n_attempts;	   /* workers since the last checkpoint */
	int64 checkpoint_step; /* 0: none */
	bool has_dataset;	   /* it is kept */
	uint8 base[LLM_FINGERPRINT_BYTES];
	uint8 template_hash[LLM_FINGERPRINT_BYTES];	 /* with has_dataset */
	uint8 tokenizer_hash[LLM_FINGERPRINT_BYTES]; /* likewise */
} LlmJob;

/* -- users -- */

/* Options are jsonb; as JSON text in UTF-8, palloc'ed. */
extern char *llm_job_options_text(Datum options);

/* Add a queued job; returns its number. */
extern int64 llm_job_insert(const LlmJob *job, Datum options);

/*
 * Read and lock a row until the end of the transaction.  Raises errors where
 * there is none, or the caller is not in the job's role.
 */
extern void llm_job_lock(int64 job_id, LlmJob *job);

/*
 * The state that others see now, whatever this transaction's snapshot; false:
 * there is no such job, or the caller is not in its role.
 */
extern bool llm_job_peek(int64 job_id, LlmJobState *state, LlmJobId *id);

/* -- anybody who holds the row -- */

/* error NULL: none. */
extern void
llm_job_set_state(int64 job_id, LlmJobState state, const char *error);

/* Delete what it would go on from. */
extern void llm_job_forget_data(int64 job_id);

/* -- the worker -- */

/* Lock and read the row; false: it is gone. */
extern bool llm_job_read(const LlmJobId *id, LlmJob *job);

/* One more attempt, and the state that comes with it. */
extern void llm_job_begin(int64 job_id, LlmJobState state);

/* Keep a file's content under a name, in place of what was there. */
extern void
llm_job_store_file(int64 job_id, const char *name, const char *path);

/* Write what is kept to a file; false: there is nothing of that name. */
extern bool llm_job_load_file(int64 job_id, const char *name, const char *path);

typedef struct LlmJobDataset
{
	int64 n_rows;
	int64 n_eval_rows;
	int64 n_skipped_rows;
	const uint8 *template_hash;
	const uint8 *tokenizer_hash;
} LlmJobDataset;

extern void llm_job_note_dataset(int64 job_id, const LlmJobDataset *dataset);
extern void llm_job_note_checkpoint(int64 job_id, int64 step);

/* version 0: none was published; of what was trained, see LlmWireTrained. */
extern void
llm_job_note_result(int64 job_id, int32 version, const LlmWireTrained *trained);

/* What is logged of the steps since the row before. */
typedef struct LlmJobLogRow
{
	LlmWireTrainLog last; /* loss, tokens, rewards: of all these steps */
	double tokens_per_second;
	int64 memory_bytes;
} LlmJobLogRow;

extern void llm_job_log(int64 job_id, const LlmJobLogRow *row);

/* Forget rows of steps behind a checkpoint that is gone on from. */
extern void llm_job_trim_log(int64 job_id, int64 step);

#endif /* LLM_FINETUNE_JOBS_H */
