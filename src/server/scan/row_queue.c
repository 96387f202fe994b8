/*
 * row_queue.c
 *	  Rows that wait for their turn: first in, first out, spilling to disk.
 *
 * A tuplestore gives memory back when its head is read, but not the space of
 * its file.  So rows go into segments, each a tuplestore of its own, and a
 * segment is dropped when its last row was read: a statement over millions of
 * wide rows needs no more disk than a few windows.
 *
 * src/server/scan/row_queue.c
 */
#include "postgres.h"

#include "src/server/scan/row_queue.h"

#include "lib/ilist.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

/* A segment is full after so many times the memory that it may use. */
#define SEGMENT_MEMORIES 8

typedef struct Segment
{
	dlist_node node;
	Tuplestorestate *rows;
	Size n_bytes; /* ever put in */
	int64 n_unread;
} Segment;

struct LlmRowQueue
{
	MemoryContext context;
	dlist_head segments; /* oldest first */
	int memory_kb;		 /* for each of the two that are usually there */
};

LlmRowQueue *
llm_row_queue_create(int memory_kb)
{
	LlmRowQueue *queue = palloc0(sizeof(LlmRowQueue));

	queue->context = CurrentMemoryContext;
	queue->memory_kb = Max(memory_kb / 2, 64);
	dlist_init(&queue->segments);
	return queue;
}

static Segment *
add_segment(LlmRowQueue *queue)
{
	MemoryContext old = MemoryContextSwitchTo(queue->context);
	Segment *segment = palloc0(sizeof(Segment));

	segment->rows = tuplestore_begin_heap(false, false, queue->memory_kb);
	/* never read again: what was read may be forgotten */
	tuplestore_set_eflags(segment->rows, 0);
	dlist_push_tail(&queue->segments, &segment->node);
	MemoryContextSwitchTo(old);
	return segment;
}

static void
drop_segment(Segment *segment)
{
	tuplestore_end(segment->rows);
	dlist_delete(&segment->node);
	pfree(segment);
}

static bool
is_full(const LlmRowQueue *queue, const Segment *segment)
{
	return segment->n_bytes > (Size) queue->memory_kb * 1024 * SEGMENT_MEMORIES;
}

void
llm_row_queue_push(LlmRowQueue *queue, TupleTableSlot *slot)
{
	Segment *segment = NULL;
	MinimalTuple tuple;
	bool should_free;

	if (!dlist_is_empty(&queue->segments))
		segment = dlist_tail_element(Segment, node, &queue->segments);
	if (segment == NULL || is_full(queue, segment))
		segment = add_segment(queue);
	tuple = ExecFetchSlotMinimalTuple(slot, &should_free);
	segment->n_bytes += tuple->t_len;
	segment->n_unread++;
	if (should_free)
		pfree(tuple);
	tuplestore_puttupleslot(segment->rows, slot);
}

void
llm_row_queue_pop(LlmRowQueue *queue, TupleTableSlot *slot)
{
	Segment *segment = dlist_head_element(Segment, node, &queue->segments);

	/* the row that was read last keeps its segment until now */
	if (segment->n_unread == 0)
	{
		drop_segment(segment);
		segment = dlist_head_element(Segment, node, &queue->segments);
	}
	if (!tuplestore_gettupleslot(segment->rows, true, false, slot))
		elog(ERROR, "a row that waits for its turn is missing");
	segment->n_unread--;
	tuplestore_trim(segment->rows);
}

void
llm_row_queue_free(LlmRowQueue *queue)
{
	while (!dlist_is_empty(&queue->segments))
		drop_segment(dlist_head_element(Segment, node, &queue->segments));
	pfree(queue);
}
