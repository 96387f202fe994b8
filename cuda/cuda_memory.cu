/*
 * cuda_memory.cu
 *	  Device memory, and the way of weights to it.
 *
 * With options.arena_bytes one allocation is made at opening (cuda_arena.cu)
 * and handed out to weights from its start, so that those loaded one after
 * another lie side by side and products that share their input become one.
 * What does not fit is allocated alone.  The arena starts over when nothing of
 * it is in use.
 *
 * Weights travel from the mapped file through two pinned buffers: while the
 * device takes one, the other is filled, which reads the file.
 *
 * cuda/cuda_memory.cu
 */
#include "cuda/cuda_internal.cuh"

#include <string.h>

#define PINNED_BYTES ((size_t) 32 << 20)

bool
cuda_no_memory(LlmError *err, size_t n_bytes, const char *name)
{
	size_t free_bytes = 0;
	size_t total_bytes = 0;

	(void) cudaGetLastError(); /* the failure is reported here */
	(void) cudaMemGetInfo(&free_bytes, &total_bytes);
	return llm_error_set(err, LLM_ERROR_NO_MEMORY,
						 "out of GPU memory: %s takes %zu bytes, but %zu of "
						 "%zu are free",
						 name, n_bytes, free_bytes, total_bytes);
}

bool
cuda_memory_open(LlmCuda *cuda, LlmError *err)
{
	for (int i = 0; i < 2; i++)
	{
		CUDA_TRY(cudaMallocHost((void **) &cuda->pinned[i], PINNED_BYTES));
		CUDA_TRY(cudaEventCreateWithFlags(&cuda->pinned_free[i],
										  cudaEventDisableTiming));
	}
	return cuda_arena_open(cuda, err);
}

void
cuda_memory_close(LlmCuda *cuda)
{
	for (int i = 0; i < 2; i++)
	{
		if (cuda->pinned[i] != NULL)
			(void) cudaFreeHost(cuda->pinned[i]);
		if (cuda->pinned_free[i] != NULL)
			(void) cudaEventDestroy(cuda->pinned_free[i]);
	}
	cuda_arena_close(cuda);
}

static bool
is_in_arena(const LlmCuda *cuda, const void *address)
{
	return cuda->arena != NULL && (const char *) address >= cuda->arena &&
		   (const char *) address < cuda->arena + cuda->arena_bytes;
}

static size_t
round_bytes(size_t n_bytes)
{
	return (n_bytes + LLM_ARENA_ALIGN_BYTES - 1) / LLM_ARENA_ALIGN_BYTES *
		   LLM_ARENA_ALIGN_BYTES;
}

/* Neither is zeroed. */
static void *
take_memory(size_t n_bytes, const char *name, LlmError *err)
{
	void *address = NULL;

	if (n_bytes <= SIZE_MAX - LLM_ARENA_ALIGN_BYTES &&
		cudaMalloc(&address, round_bytes(n_bytes > 0 ? n_bytes : 1)) ==
			cudaSuccess)
		return address;
	cuda_no_memory(err, n_bytes, name);
	return NULL;
}

void *
cuda_weight_alloc(LlmCompute *compute, size_t n_bytes, const char *name,
				  LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	size_t left = cuda->arena_bytes - cuda->arena_used;
	void *address;

	if (n_bytes <= left && round_bytes(n_bytes) <= left)
	{
		address = cuda->arena + cuda->arena_used;
		cuda->arena_used += round_bytes(n_bytes);
		cuda->n_arena_items++;
		return address;
	}
	if (cuda->options.borrowed_arena == 0)
		return take_memory(n_bytes, name, err);
	llm_error_set(err, LLM_ERROR_INTERNAL,
				  "%s lies beyond the memory that was borrowed", name);
	return NULL;
}

void *
cuda_alloc(LlmCompute *compute, size_t n_bytes, const char *name, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	void *address = take_memory(n_bytes, name, err);
	cudaError_t code;

	if (address == NULL)
		return NULL;
	code = cudaMemsetAsync(address, 0, n_bytes, cuda->stream);
	if (code == cudaSuccess)
		return address;
	cuda_failed(err, code, name);
	cuda_free(compute, address);
	return NULL;
}

void
cuda_free(LlmCompute *compute, void *address)
{
	LlmCuda *cuda = llm_cuda(compute);

	if (address == NULL)
		return;
	cuda_graph_forget(cuda);
	if (!is_in_arena(cuda, address))
	{
		(void) cudaFree(address);
		return;
	}
	assert(cuda->n_arena_items > 0);
	if (--cuda->n_arena_items == 0)
		cuda->arena_used = 0;
}

bool
cuda_write(LlmCompute *compute, void *dest, const void *src, size_t n_bytes,
		   LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	CUDA_TRY(cudaMemcpyAsync(dest, src, n_bytes, cudaMemcpyHostToDevice,
							 cuda->stream));
	return true;
}

bool
cuda_read(LlmCompute *compute, void *dest, const void *src, size_t n_bytes,
		  LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	if (!cuda_lora_settle(cuda, err))
		return false;
	CUDA_TRY(cudaMemcpyAsync(dest, src, n_bytes, cudaMemcpyDeviceToHost,
							 cuda->stream));
	CUDA_TRY(cudaStreamSynchronize(cuda->stream));
	return true;
}

static bool
stream_weight(LlmCuda *cuda, char *dest, const char *mapped, size_t n_bytes,
			  LlmError *err)
{
	while (n_bytes > 0)
	{
		size_t n = n_bytes < PINNED_BYTES ? n_bytes : PINNED_BYTES;
		int i = cuda->next_pinned;

		CUDA_TRY(cudaEventSynchronize(cuda->pinned_free[i]));
		memcpy(cuda->pinned[i], mapped, n);
		CUDA_TRY(cudaMemcpyAsync(dest, cuda->pinned[i], n,
								 cudaMemcpyHostToDevice, cuda->stream));
		CUDA_TRY(cudaEventRecord(cuda->pinned_free[i], cuda->stream));
		cuda->next_pinned = 1 - i;
		dest += n;
		mapped += n;
		n_bytes -= n;
	}
	return true;
}

const void *
cuda_weight(LlmCompute *compute, const void *mapped, size_t n_bytes,
			const char *name, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	void *address = cuda_weight_alloc(compute, n_bytes, name, err);

	assert(cuda->options.borrowed_arena == 0);
	if (address == NULL)
		return NULL;
	if (stream_weight(cuda, (char *) address, (const char *) mapped, n_bytes,
					  err))
		return address;
	cuda_free(compute, address);
	return NULL;
}

void
cuda_weight_free(LlmCompute *compute, const void *address)
{
	cuda_free(compute, (void *) address);
}
