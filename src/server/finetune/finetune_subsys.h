/*
 * finetune_subsys.h
 *	  For _PG_init: shared memory of the jobs, and what starts their workers.
 *
 * src/server/finetune/finetune_subsys.h
 */
#ifndef LLM_FINETUNE_SUBSYS_H
#define LLM_FINETUNE_SUBSYS_H

/* Install the shared memory hooks; as llm_scheduler_init. */
extern void llm_finetune_init(void);

/*
 * The scheduler's turn: start workers of jobs that wait.  Returns when it
 * wants the next turn at the latest, in microseconds from now.
 */
extern long llm_finetune_launch(void);

#endif /* LLM_FINETUNE_SUBSYS_H */
