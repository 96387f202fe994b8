/*
 * finetune_commit.c
 *	  What a transaction has submitted starts with its commit.
 *
 * The row is there with the commit; the folder, which makes somebody look for
 * the row, is made right after it, where errors can no longer be raised.  If
 * that fails, or the server does in between, the job is "interrupted" from its
 * beginning, and llm_finetune_resume makes the folder.
 *
 * src/server/finetune/finetune_commit.c
 */
#include "postgres.h"

#include "src/server/finetune/finetune_commit.h"

#include "access/xact.h"
#include "utils/memutils.h"

typedef struct Pending
{
	LlmJobId id;
	SubTransactionId subxact; /* in which it was submitted */
	struct Pending *next;
} Pending;

/* In TopTransactionContext. */
static Pending *pending;

static void
start_all(void)
{
	for (Pending *p = pending; p != NULL; p = p->next)
	{
		if (!llm_job_folder_create(&p->id))
			ereport(
				WARNING,
				(errmsg("could not start fine-tuning job " INT64_FORMAT ": %m",
						p->id.job_id),
				 errhint("Try again with llm_finetune_resume.")));
	}
	if (pending != NULL)
		llm_jobs_wake_launcher();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			start_all();
			pending = NULL;
			break;
		case XACT_EVENT_ABORT:
			pending = NULL;
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (pending != NULL)
				ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
								errmsg("a transaction that has submitted a "
									   "fine-tuning job cannot be prepared")));
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subxact,
					  SubTransactionId parent, void *arg)
{
	Pending **link = &pending;

	while (*link != NULL)
	{
		Pending *p = *link;

		if (p->subxact == subxact && event == SUBXACT_EVENT_ABORT_SUB)
		{
			*link = p->next;
			continue;
		}
		if (p->subxact == subxact && event == SUBXACT_EVENT_COMMIT_SUB)
			p->subxact = parent;
		link = &p->next;
	}
}

void
llm_job_start_at_commit(const LlmJobId *id)
{
	static bool is_registered;
	Pending *p = MemoryContextAlloc(TopTransactionContext, sizeof(Pending));

	if (!is_registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		is_registered = true;
	}
	p->id = *id;
	p->subxact = GetCurrentSubTransactionId();
	p->next = pending;
	pending = p;
}

bool
llm_job_waits_for_commit(int64 job_id)
{
	for (Pending *p = pending; p != NULL; p = p->next)
		if (p->id.job_id == job_id)
			return true;
	return false;
}
