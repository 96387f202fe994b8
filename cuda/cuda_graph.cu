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
 * memory is freed, all records are forgotten.  So they are when they take more
 * of the device's memory than was set aside for them (options.graph_bytes),
 * and where there is none for one more: that step is made again.
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
	size_t used_bytes;	 /* of the device's memory, by what was measured */
	bool is_short;		 /* there was none: nothing is recorded any more */
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

static size_t
free_bytes(void)
{
	size_t n_free = 0;
	size_t n_total = 0;

	(void) cudaMemGetInfo(&n_free, &n_total);
	return n_free;
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
	if (!cuda->plan.is_recordable || graphs->is_short)
		return true;
	record = find_record(graphs, &wanted);
	if (record == NULL)
	{
		if (graphs->n_records == MAX_RECORDS ||
			(cuda->options.graph_bytes > 0 &&
			 graphs->used_bytes > cuda->options.graph_bytes))
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

/*
 * Make the record runnable.  *is_short: the device has no memory for it; the
 * others are gone, too.
 */
static bool
instantiate(LlmCuda *cuda, cudaGraph_t graph, bool *is_short, LlmError *err)
{
	CudaGraphs *graphs = cuda->graphs;
	PassRecord *record = graphs->current;
	size_t before = free_bytes();
	size_t after;
	cudaError_t code = cudaGraphInstantiate(&record->graph, graph, 0);

	*is_short = code == cudaErrorMemoryAllocation;
	if (*is_short)
	{
		record->graph = NULL;
		(void) cudaGetLastError();
		cuda_graph_forget(cuda);
		graphs->is_short = true;
		return true;
	}
	CUDA_TRY(code);
	after = free_bytes();
	graphs->used_bytes += before > after ? before - after : 0;
	return true;
}

/*
 * Launch what was captured: as a record, or where there is no memory for one,
 * as an error that has the step made again, then without recording.
 */
static bool
launch_captured(LlmCuda *cuda, cudaGraph_t graph, LlmError *err)
{
	bool is_short = false;
	PassRecord *record = cuda->graphs->current;

	if (!instantiate(cuda, graph, &is_short, err))
		return false;
	if (is_short)
		return llm_error_set(err, LLM_ERROR_NO_MEMORY,
							 "out of GPU memory for a recorded pass");
	CUDA_TRY(cudaGraphLaunch(record->graph, cuda->stream));
	return true;
}

bool
cuda_pass_end(LlmCompute *compute, bool is_complete, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	cudaGraph_t graph = NULL;
	cudaError_t code;
	bool ok;

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
	ok = launch_captured(cuda, graph, err);
	(void) cudaGraphDestroy(graph);
	return ok && cuda_idle_mark(cuda, IDLE_PASSED, err);
}
