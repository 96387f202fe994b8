/*
 * cuda_backend.cu
 *	  Opening the CUDA backend, and its table of operations.
 *
 * The siblings: cuda_memory.cu (device memory, weights), cuda_arena.cu (the
 * weights' memory, also of others), cuda_step.cu (a step's inputs),
 * cuda_graph.cu (recorded passes), cuda_idle.cu (waiting), cuda_linear.cu and
 * cuda_skinny*.cu (matrix products), cuda_kv_cache.cu and cuda_rope_kv.cu
 * (cache, rotary embedding), cuda_attention*.cu, cuda_norm.cu,
 * cuda_elementwise.cu, cuda_moe.cu, cuda_lora*.cu (adapters), cuda_sample.cu,
 * cuda_train*.cu (training).
 *
 * This is a library of its own, which the executor opens only where a GPU is
 * wanted; the functions at the end are all that it shows.
 *
 * cuda/cuda_backend.cu
 */
#include "cuda/cuda_internal.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED extern "C" __attribute__((visibility("default")))

/* What the driver, cuBLAS and the kernels' code take beside allocations. */
#define CONTEXT_BYTES ((size_t) 1 << 30)

static size_t
partial_bytes(const LlmComputeOptions *options, int32_t max_slots)
{
	return (size_t) max_slots * (size_t) options->max_heads *
		   (MAX_HEAD_DIM + 1) * sizeof(float);
}

static bool
attention_open(LlmCuda *cuda, LlmError *err)
{
	cuda->partial_out = (float *) cuda_alloc(
		&cuda->base, partial_bytes(&cuda->options, cuda->max_slots),
		"partial results of attention", err);
	cuda->partial_lse =
		cuda->partial_out + (size_t) cuda->max_slots *
								(size_t) cuda->options.max_heads * MAX_HEAD_DIM;
	return cuda->partial_out != NULL;
}

static void
cuda_close(LlmCompute *compute)
{
	LlmCuda *cuda = llm_cuda(compute);

	if (cuda->stream != NULL)
		(void) cudaStreamSynchronize(cuda->stream);
	cuda_idle_close(cuda);
	cuda_graph_close(cuda);
	cuda_sample_close(cuda);
	cuda_moe_close(cuda);
	cuda_lora_close(cuda);
	cuda_train_close(cuda);
	cuda_linear_close(cuda);
	cuda_step_close(cuda);
	cuda_free(compute, cuda->partial_out);
	cuda_attention_expand_close(cuda);
	cuda_memory_close(cuda);
	if (cuda->upload_stream != NULL)
		(void) cudaStreamDestroy(cuda->upload_stream);
	if (cuda->stream != NULL)
		(void) cudaStreamDestroy(cuda->stream);
	free(cuda);
}

static bool
cuda_sync(LlmCompute *compute, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	if (!cuda_lora_settle(cuda, err))
		return false;
	CUDA_TRY(cudaStreamSynchronize(cuda->stream));
	cuda_sample_deliver(cuda);
	return true;
}

static void
cuda_describe(const LlmCompute *compute, char *dest, size_t size)
{
	snprintf(dest, size, "cuda (%s)", ((const LlmCuda *) compute)->name);
}

static const LlmComputeOps *
cuda_ops(void)
{
	static LlmComputeOps ops;

	ops.name = "cuda";
	ops.close = cuda_close;
	ops.describe = cuda_describe;
	ops.alloc = cuda_alloc;
	ops.free = cuda_free;
	ops.write = cuda_write;
	ops.read = cuda_read;
	ops.weight = cuda_weight;
	ops.weight_free = cuda_weight_free;
	ops.weight_alloc = cuda_weight_alloc;
	ops.arena_lend = cuda_arena_lend;
	ops.fill_normal = cuda_fill_normal;
	ops.host_alloc = cuda_host_alloc;
	ops.host_free = cuda_host_free;
	ops.copy_aside = cuda_copy_aside;
	ops.copy_aside_done = cuda_copy_aside_done;
	ops.kv_create = cuda_kv_create;
	ops.kv_free = cuda_kv_free;
	ops.kv_bytes = cuda_kv_bytes;
	ops.step_upload = cuda_step_upload;
	ops.pass_begin = cuda_pass_begin;
	ops.pass_end = cuda_pass_end;
	ops.embed = cuda_embed;
	ops.rms_norm = cuda_rms_norm;
	ops.linear = cuda_linear;
	ops.rope_kv = cuda_rope_kv;
	ops.attention = cuda_attention;
	ops.gated_act = cuda_gated_act;
	ops.soft_cap = cuda_soft_cap;
	ops.moe = cuda_moe;
	ops.gather = cuda_gather;
	ops.sum_rows = cuda_sum_rows;
	ops.sample = cuda_sample;
	ops.sample_wait = cuda_sample_wait;
	ops.sync = cuda_sync;
	ops.device_times = cuda_idle_times;
	ops.train = cuda_train_ops();
	return &ops;
}

static bool
read_device(LlmCuda *cuda, LlmError *err)
{
	cudaDeviceProp properties;

	CUDA_TRY(cudaGetDevice(&cuda->device));
	CUDA_TRY(cudaGetDeviceProperties(&properties, cuda->device));
	cuda->n_sms = properties.multiProcessorCount;
	cuda->capability = properties.major * 10 + properties.minor;
	snprintf(cuda->name, sizeof(cuda->name), "%.*s",
			 (int) sizeof(cuda->name) - 1, properties.name);
	if (cuda->capability >= 80)
		return true;
	return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
						 "%s has compute capability %d.%d, but 8.0 is needed",
						 cuda->name, properties.major, properties.minor);
}

/*
 * Priorities count among the streams of one context: all of a process, or of
 * all processes where they come through MPS.  Contexts take turns otherwise.
 */
static bool
open_streams(LlmCuda *cuda, LlmError *err)
{
	int least = 0;
	int greatest = 0;
	int priority;

	CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
	priority = cuda->options.is_background ? least : greatest;
	CUDA_TRY(cudaStreamCreateWithPriority(&cuda->stream, cudaStreamNonBlocking,
										  priority));
	CUDA_TRY(cudaStreamCreateWithPriority(&cuda->upload_stream,
										  cudaStreamNonBlocking, priority));
	return true;
}

static bool
open_parts(LlmCuda *cuda, LlmError *err)
{
	if (!read_device(cuda, err) || !open_streams(cuda, err))
		return false;
	return cuda_memory_open(cuda, err) && cuda_step_open(cuda, err) &&
		   cuda_idle_open(cuda, err) && cuda_graph_open(cuda, err) &&
		   cuda_linear_open(cuda, err) && attention_open(cuda, err) &&
		   cuda_attention_expand_open(cuda, err) && cuda_moe_open(cuda, err) &&
		   cuda_lora_open(cuda, err) && cuda_sample_open(cuda, err) &&
		   cuda_sync(&cuda->base, err);
}

EXPORTED LlmCompute *
llm_compute_cuda_open(const LlmComputeOptions *options, LlmError *err)
{
	LlmCuda *cuda;

	if (options->precision != LLM_DTYPE_BF16)
	{
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "a GPU computes in bfloat16, not in %s",
					  llm_dtype_name(options->precision));
		return NULL;
	}
	cuda = (LlmCuda *) calloc(1, sizeof(*cuda));
	if (cuda == NULL)
	{
		llm_error_no_memory(err, sizeof(*cuda), "the CUDA backend");
		return NULL;
	}
	cuda->base.ops = cuda_ops();
	cuda->base.is_async = true;
	cuda->base.activation_dtype = LLM_DTYPE_BF16;
	cuda->base.precision = LLM_DTYPE_BF16;
	cuda->base.lora_format.dtype = LLM_DTYPE_BF16;
	cuda->options = *options;
	cuda->own_products =
		options->isa != NULL && strcmp(options->isa, "own") == 0;
	cuda->options.isa = NULL;
	if (open_parts(cuda, err))
		return &cuda->base;
	cuda_close(&cuda->base);
	return NULL;
}

EXPORTED bool
llm_compute_cuda_device(const LlmComputeOptions *options, LlmDeviceInfo *info,
						LlmError *err)
{
	LlmCuda cuda = {};

	memset(info, 0, sizeof(*info));
	if (!read_device(&cuda, err))
		return false;
	CUDA_TRY(cudaMemGetInfo(&info->free_bytes, &info->total_bytes));
	snprintf(info->name, sizeof(info->name), "%s", cuda.name);
	info->scratch_bytes =
		CONTEXT_BYTES + WORKSPACE_BYTES + cuda_step_bytes(options) +
		cuda_sample_bytes(options) + cuda_lora_bytes(options) +
		options->kv_expand_bytes +
		(options->kv_expand_bytes > 0 ? cuda_table_bytes(options) : 0) +
		partial_bytes(options, cuda_max_slots(options, cuda.n_sms)) +
		(size_t) options->max_rows * (size_t) options->max_experts_per_token *
			((size_t) options->max_expert_dim + 2) * sizeof(float);
	return true;
}
