/*
 * cuda_graph.cu
 *	  Passes over decode steps, recorded once and replayed as CUDA graphs.
 *
 * A pass is some 300 launches.  cuda_step.cu brings steps of one new token per
 * sequence to a size of a ladder, so that a few passes serve all batches, and
 * packs their inputs to the same addresses each time.  The first pass of a
 * size runs as it is, which chooses algorithms and sends lists of experts; the
 * second one is recorded; all others replay the record.
 *
 * A record holds the addresses of weights, cache and activations: whenever
 * memory is freed, all records are forgotten.
 *
 * cuda/cuda_graph.cu
 */
#include "cuda/cuda_internal.cuh"

#include <stdlib.h>
#include <string.h>

/* Sizes of batches, times a few numbers of pieces and of adapters' tiles. */
#define MAX_RECORDS 512

typedef struct PassRecord
{
	const void *model;
	const LlmKvCache *kv;
	int32_t n_seqs;
	int32_t n_pieces;
	int32_t n_lora_tiles;
	cudaGraphExec_t graph; /* NULL: ran once */
} PassRecord;

struct CudaGraphs
{
	PassRecord records[MAX_RECORDS];
	int n_records;
	PassRecord *current; /* being recorded */
};

bool
cuda_graph_open(LlmCuda *cuda, LlmError *err)
{
	cuda->graphs = (CudaGraphs *) calloc(1, sizeof(CudaGraphs));
	return cuda->graphs != NULL ||
		   llm_error_no_memory(err, sizeof(CudaGraphs), "recorded passes");
}

void
cuda_graph_forget(LlmCuda *cuda)
{
	CudaGraphs *graphs = cuda->graphs;

	if (graphs == NULL)
		return;
	assert(!cuda->is_capturing);
	/* the last one may be running */
	if (graphs->n_records > 0)
		(void) cudaStreamSynchronize(cuda->stream);
	for (int i = 0; i < graphs->n_records; i++)
	{
		if (graphs->records[i].graph != NULL)
			(void) cudaGraphExecDestroy(graphs->records[i].graph);
	}
	memset(graphs, 0, sizeof(*graphs));
}

void
cuda_graph_close(LlmCuda *cuda)
{
	cuda_graph_forget(cuda);
	free(cuda->graphs);
	cuda->graphs = NULL;
}

static PassRecord *
find_record(CudaGraphs *graphs, const PassRecord *wanted)
{
	for (int i = 0; i < graphs->n_records; i++)
	{
		PassRecord *record = &graphs->records[i];

		if (record->model == wanted->model && record->kv == wanted->kv &&
			record->n_seqs == wanted->n_seqs &&
			record->n_pieces == wanted->n_pieces &&
			record->n_lora_tiles == wanted->n_lora_tiles)
			return record;
	}
	return NULL;
}

bool
cuda_pass_begin(LlmCompute *compute, const void *model, const LlmKvCache *kv,
				bool *is_replayed, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	CudaGraphs *graphs = cuda->graphs;
	PassRecord wanted = { model, kv, cuda->plan.n_decode_seqs,
						  cuda->plan.n_pieces, cuda->plan.n_lora_tiles };
	PassRecord *record;

	assert(!cuda->is_capturing);
	*is_replayed = false;
	if (!cuda->plan.is_recordable)
		return true;
	record = find_record(graphs, &wanted);
	if (record == NULL)
	{
		if (graphs->n_records == MAX_RECORDS)
			cuda_graph_forget(cuda);
		graphs->records[graphs->n_records++] = wanted;
		return true;
	}
	if (record->graph != NULL)
	{
		CUDA_TRY(cudaGraphLaunch(record->graph, cuda->stream));
		*is_replayed = true;
		return cuda_idle_mark(cuda, IDLE_PASSED, err);
	}
	CUDA_TRY(
		cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));
	graphs->current = record;
	cuda->is_capturing = true;
	return true;
}

bool
cuda_pass_end(LlmCompute *compute, bool is_complete, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	PassRecord *record = cuda->graphs->current;
	cudaGraph_t graph = NULL;
	cudaError_t code;

	if (!cuda->is_capturing)
		return cuda_idle_mark(cuda, IDLE_PASSED, err);
	cuda->is_capturing = false;
	code = cudaStreamEndCapture(cuda->stream, &graph);
	if (!is_complete)
	{
		/* *err says already what failed */
		if (graph != NULL)
			(void) cudaGraphDestroy(graph);
		return true;
	}
	CUDA_TRY(code);
	code = cudaGraphInstantiate(&record->graph, graph, 0);
	(void) cudaGraphDestroy(graph);
	CUDA_TRY(code);
	CUDA_TRY(cudaGraphLaunch(record->graph, cuda->stream));
	return cuda_idle_mark(cuda, IDLE_PASSED, err);
}
