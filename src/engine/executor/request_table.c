/*
 * request_table.c
 *	  The executor's requests by id.
 *
 * src/engine/executor/request_table.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/engine/executor/executor.h"

/* Chains stay short up to several times this many requests. */
#define N_BUCKETS 4096u

static LlmExecRequest **
bucket_of(const LlmRequestTable *table, uint64_t request_id)
{
	/* ids are a counter: their low bits spread well */
	return &table->buckets[request_id & (table->n_buckets - 1)];
}

bool
llm_request_table_init(LlmRequestTable *table, LlmError *err)
{
	table->n_buckets = N_BUCKETS;
	table->n_requests = 0;
	table->buckets = calloc(N_BUCKETS, sizeof(LlmExecRequest *));
	if (table->buckets == NULL)
		return llm_error_no_memory(err, N_BUCKETS * sizeof(void *),
								   "the request table");
	return true;
}

void
llm_request_table_destroy(LlmRequestTable *table)
{
	if (table->buckets == NULL)
		return;
	for (uint32_t i = 0; i < table->n_buckets; i++)
		while (table->buckets[i] != NULL)
			llm_request_table_remove(table, table->buckets[i]);
	free(table->buckets);
	table->buckets = NULL;
}

LlmExecRequest *
llm_request_table_add(LlmRequestTable *table, uint64_t request_id,
					  LlmError *err)
{
	LlmExecRequest **bucket = bucket_of(table, request_id);
	LlmExecRequest *request = calloc(1, sizeof(LlmExecRequest));

	assert(llm_request_table_find(table, request_id) == NULL);
	if (request == NULL)
	{
		llm_error_no_memory(err, sizeof(LlmExecRequest), "a request");
		return NULL;
	}
	request->request_id = request_id;
	request->next = *bucket;
	*bucket = request;
	table->n_requests++;
	return request;
}

LlmExecRequest *
llm_request_table_find(const LlmRequestTable *table, uint64_t request_id)
{
	LlmExecRequest *request = *bucket_of(table, request_id);

	while (request != NULL && request->request_id != request_id)
		request = request->next;
	return request;
}

void
llm_request_table_remove(LlmRequestTable *table, LlmExecRequest *request)
{
	LlmExecRequest **link = bucket_of(table, request->request_id);

	while (*link != request)
	{
		assert(*link != NULL);
		link = &(*link)->next;
	}
	*link = request->next;
	assert(table->n_requests > 0);
	table->n_requests--;
	llm_sampler_free(request->sampler);
	llm_constraint_close(request->constraint);
	free(request->sums);
	free(request);
}
