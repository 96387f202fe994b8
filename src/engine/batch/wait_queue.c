/*
 * wait_queue.c
 *	  Who waits, and whose turn is it: fair between tenants, in order of
 *	  arrival within one.
 *
 * Start-time fair queueing: each tenant carries the number of tokens computed
 * for it as its virtual time, and the one furthest behind is next.  A tenant
 * that has left is remembered until the least served tenant present has caught
 * up with it; after that remembering it would change nothing.
 *
 * Queues are sorted by serial, so that a preempted sequence, which is older
 * than all that were never admitted, goes back to the head.
 *
 * The next tenant is found by looking at all of them: some nanoseconds each,
 * for the dozens to hundreds of roles a server has.
 *
 * src/engine/batch/wait_queue.c
 */
#include "src/engine/batch/wait_queue.h"

#include <assert.h>
#include <stdlib.h>

void
llm_wait_queue_reset(LlmWaitQueue *queue)
{
	for (int32_t i = 0; i < queue->n_tenants; i++)
		free(queue->tenants[i]);
	free(queue->tenants);
	*queue = (LlmWaitQueue){ 0 };
}

/* The virtual time of the least served tenant present; 0: nobody is. */
static uint64_t
least_served(const LlmWaitQueue *queue, bool *anybody)
{
	uint64_t least = UINT64_MAX;

	*anybody = false;
	for (int32_t i = 0; i < queue->n_tenants; i++)
	{
		const LlmTenant *tenant = queue->tenants[i];

		if (tenant->n_sequences == 0)
			continue;
		*anybody = true;
		if (tenant->served_tokens < least)
			least = tenant->served_tokens;
	}
	return *anybody ? least : 0;
}

/* Forget absent tenants who owe nothing: all of them when nobody is here. */
static void
forget_absent(LlmWaitQueue *queue, uint64_t least, bool anybody)
{
	int32_t n_kept = 0;

	for (int32_t i = 0; i < queue->n_tenants; i++)
	{
		LlmTenant *tenant = queue->tenants[i];

		if (tenant->n_sequences == 0 &&
			(!anybody || tenant->served_tokens <= least))
			free(tenant);
		else
			queue->tenants[n_kept++] = tenant;
	}
	queue->n_tenants = n_kept;
}

static LlmTenant *
find_tenant(const LlmWaitQueue *queue, uint32_t tenant_id)
{
	for (int32_t i = 0; i < queue->n_tenants; i++)
	{
		if (queue->tenants[i]->tenant_id == tenant_id)
			return queue->tenants[i];
	}
	return NULL;
}

static LlmTenant *
add_tenant(LlmWaitQueue *queue, uint32_t tenant_id, LlmError *err)
{
	LlmTenant *tenant = calloc(1, sizeof(LlmTenant));

	if (tenant != NULL && queue->n_tenants == queue->capacity)
	{
		int32_t capacity = queue->capacity == 0 ? 16 : 2 * queue->capacity;
		LlmTenant **tenants =
			realloc(queue->tenants, (size_t) capacity * sizeof(LlmTenant *));

		if (tenants == NULL)
		{
			free(tenant);
			tenant = NULL;
		}
		else
		{
			queue->tenants = tenants;
			queue->capacity = capacity;
		}
	}
	if (tenant == NULL)
	{
		llm_error_no_memory(err, sizeof(LlmTenant), "a tenant's queue");
		return NULL;
	}
	tenant->tenant_id = tenant_id;
	queue->tenants[queue->n_tenants++] = tenant;
	return tenant;
}

bool
llm_wait_queue_join(LlmWaitQueue *queue, LlmSequence *sequence,
					uint32_t tenant_id, LlmError *err)
{
	LlmTenant *tenant = find_tenant(queue, tenant_id);

	assert(sequence->tenant == NULL);
	if (tenant == NULL || tenant->n_sequences == 0)
	{
		bool anybody;
		uint64_t least = least_served(queue, &anybody);

		forget_absent(queue, least, anybody);
		tenant = find_tenant(queue, tenant_id);
		if (tenant == NULL)
			tenant = add_tenant(queue, tenant_id, err);
		if (tenant == NULL)
			return false;
		if (tenant->served_tokens < least)
			tenant->served_tokens = least;
	}
	tenant->n_sequences++;
	sequence->tenant = tenant;
	return true;
}

void
llm_wait_queue_leave(LlmWaitQueue *queue, LlmSequence *sequence)
{
	assert(sequence->tenant->n_sequences > 0);
	sequence->tenant->n_sequences--;
	sequence->tenant = NULL;
}

void
llm_wait_queue_insert(LlmWaitQueue *queue, LlmSequence *sequence)
{
	LlmTenant *tenant = sequence->tenant;
	LlmRank rank = sequence->rank;
	LlmSequence *next = tenant->first[rank];

	assert(sequence->state == LLM_SEQUENCE_WAITING);
	assert(sequence->prev == NULL && sequence->next == NULL);

	/* new ones go to the end, preempted ones close to the head */
	if (next != NULL && tenant->last[rank]->serial < sequence->serial)
		next = NULL;
	while (next != NULL && next->serial < sequence->serial)
		next = next->next;
	sequence->next = next;
	sequence->prev = next != NULL ? next->prev : tenant->last[rank];
	if (sequence->prev != NULL)
		sequence->prev->next = sequence;
	else
		tenant->first[rank] = sequence;
	if (next != NULL)
		next->prev = sequence;
	else
		tenant->last[rank] = sequence;
	queue->n_waiting[rank]++;
}

void
llm_wait_queue_remove(LlmWaitQueue *queue, LlmSequence *sequence)
{
	LlmTenant *tenant = sequence->tenant;
	LlmRank rank = sequence->rank;

	assert(sequence->state == LLM_SEQUENCE_WAITING);
	assert(queue->n_waiting[rank] > 0);

	if (sequence->prev != NULL)
		sequence->prev->next = sequence->next;
	else
		tenant->first[rank] = sequence->next;
	if (sequence->next != NULL)
		sequence->next->prev = sequence->prev;
	else
		tenant->last[rank] = sequence->prev;
	sequence->prev = sequence->next = NULL;
	queue->n_waiting[rank]--;
}

LlmSequence *
llm_wait_queue_first(const LlmWaitQueue *queue, LlmRank rank, int64_t before_us)
{
	LlmSequence *best = NULL;

	if (queue->n_waiting[rank] == 0)
		return NULL;
	for (int32_t i = 0; i < queue->n_tenants; i++)
	{
		LlmSequence *first = queue->tenants[i]->first[rank];

		if (first == NULL || first->arrival_us > before_us)
			continue;
		if (best == NULL ||
			first->tenant->served_tokens < best->tenant->served_tokens ||
			(first->tenant->served_tokens == best->tenant->served_tokens &&
			 first->serial < best->serial))
			best = first;
	}
	return best;
}

static bool
check_list(const LlmTenant *tenant, LlmRank rank, int32_t *n_waiting,
		   LlmError *err)
{
	const LlmSequence *prev = NULL;

	for (const LlmSequence *s = tenant->first[rank]; s != NULL; s = s->next)
	{
		if (s->prev != prev || s->tenant != tenant || s->rank != rank ||
			s->state != LLM_SEQUENCE_WAITING ||
			(prev != NULL && prev->serial >= s->serial))
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "the queue of tenant %u is broken at request "
								 "%llu",
								 tenant->tenant_id,
								 (unsigned long long) s->request_id);
		if (s->n_blocks != 0 || s->n_computed != 0 || s->n_planned != 0)
			return llm_error_set(
				err, LLM_ERROR_INTERNAL, "request %llu waits with %d blocks",
				(unsigned long long) s->request_id, s->n_blocks);
		(*n_waiting)++;
		prev = s;
	}
	if (tenant->last[rank] != prev)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "the queue of tenant %u has a wrong end",
							 tenant->tenant_id);
	return true;
}

bool
llm_wait_queue_check(const LlmWaitQueue *queue, const int32_t *n_running,
					 LlmError *err)
{
	int32_t n_waiting[LLM_N_RANKS] = { 0 };

	for (int32_t i = 0; i < queue->n_tenants; i++)
	{
		const LlmTenant *tenant = queue->tenants[i];
		int32_t n_sequences = n_running[i];

		for (int rank = 0; rank < LLM_N_RANKS; rank++)
		{
			int32_t n = 0;

			if (!check_list(tenant, rank, &n, err))
				return false;
			n_waiting[rank] += n;
			n_sequences += n;
		}
		if (n_sequences != tenant->n_sequences)
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "tenant %u counts %d sequences, but has %d",
								 tenant->tenant_id, tenant->n_sequences,
								 n_sequences);
	}
	for (int rank = 0; rank < LLM_N_RANKS; rank++)
	{
		if (n_waiting[rank] != queue->n_waiting[rank])
			return llm_error_set(err, LLM_ERROR_INTERNAL,
								 "%d sequences of rank %d wait, %d are counted",
								 n_waiting[rank], rank, queue->n_waiting[rank]);
	}
	return true;
}
