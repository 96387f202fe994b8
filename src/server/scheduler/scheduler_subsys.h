/*
 * scheduler_subsys.h
 *	  For _PG_init: shared memory and the worker of the scheduler room.
 *
 * src/server/scheduler/scheduler_subsys.h
 */
#ifndef LLM_SCHEDULER_SUBSYS_H
#define LLM_SCHEDULER_SUBSYS_H

/*
 * What the worker does besides, once a turn; returns in how many microseconds
 * it wants the next turn at the latest.
 */
typedef long (*LlmSchedulerTurn)(void);

/*
 * Install the shared memory hooks and register the static background worker.
 * Only while shared_preload_libraries is processed, after the settings are
 * defined.
 */
extern void llm_scheduler_init(LlmSchedulerTurn other_turn);

#endif /* LLM_SCHEDULER_SUBSYS_H */
