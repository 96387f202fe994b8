/*
 * row_queue.h
 *	  Rows that wait for their turn: first in, first out, spilling to disk.
 *
 * src/server/scan/row_queue.h
 */
#ifndef LLM_ROW_QUEUE_H
#define LLM_ROW_QUEUE_H

#include "postgres.h"

#include "executor/tuptable.h"

typedef struct LlmRowQueue LlmRowQueue;

/*
 * memory_kb bounds what is kept in memory; temporary files stay within a few
 * times the rows that wait.  Lives in CurrentMemoryContext; files go with the
 * resource owner if it is not freed.
 */
extern LlmRowQueue *llm_row_queue_create(int memory_kb);

extern void llm_row_queue_push(LlmRowQueue *queue, TupleTableSlot *slot);

/* The oldest row into a slot of minimal tuples; valid until the next call. */
extern void llm_row_queue_pop(LlmRowQueue *queue, TupleTableSlot *slot);

extern void llm_row_queue_free(LlmRowQueue *queue);

#endif /* LLM_ROW_QUEUE_H */
