/*
 * train_budget.c
 *	  What a job takes, and whether there is as much, before it is taken.
 *
 * On a GPU a job may take what is free when it starts, but for a reserve.  What
 * executors that serve hold is not free, whether requests fill it or not, so
 * llm_ext.gpu_memory_utilization says how much is left to jobs; weights that a
 * job borrows are theirs and cost it nothing.  On the host, memory is only
 * missed when it is written to: ask before.
 *
 * src/engine/executor/train_budget.c
 */
#include <stdio.h>

#include "src/engine/executor/train_session_internal.h"

typedef struct JobBudget
{
	double free_bytes; /* 0: nobody says */
	double weights;
	double backend;
	double reserve;
	double available; /* beside the model; 0: nobody says */
} JobBudget;

/* What the host can give without swapping; 0: it does not say. */
static double
host_bytes(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[256];
	long long kb = 0;

	if (file == NULL)
		return 0;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		if (sscanf(line, "MemAvailable: %lld kB", &kb) == 1)
			break;
	}
	(void) fclose(file);
	return (double) kb * 1024;
}

static bool
plan_gpu(LlmExecutor *executor, JobBudget *budget, LlmError *err)
{
	LlmComputeOptions compute =
		llm_executor_compute_options(executor, LLM_DTYPE_BF16);
	LlmModelOptions model = llm_executor_model_options(
		executor, llm_executor_weight_dtype(executor));
	size_t weight_bytes;

	if (!llm_compute_cuda_info(&compute, &executor->device, err) ||
		!llm_model_plan_weights(executor->options.path, &executor->config,
								&model, &weight_bytes, err))
		return false;
	if (weight_bytes < compute.arena_bytes)
		weight_bytes = compute.arena_bytes;
	budget->free_bytes = (double) executor->device.free_bytes;
	budget->weights = executor->borrowed_arena > 0 ? 0 : (double) weight_bytes;
	budget->backend = (double) executor->device.scratch_bytes;
	budget->reserve = (double) LLM_GPU_MARGIN_BYTES;
	return true;
}

static bool
plan_budget(LlmExecutor *executor, const LlmTrainRequest *request,
			JobBudget *budget, LlmError *err)
{
	double most = (double) request->max_memory_bytes;

	*budget = (JobBudget){ 0 };
	if (executor->is_cuda)
	{
		if (!plan_gpu(executor, budget, err))
			return false;
	}
	else
		budget->free_bytes = host_bytes();
	budget->available = budget->free_bytes - budget->weights - budget->backend -
						budget->reserve;
	if (most > 0 && (budget->free_bytes == 0 || most < budget->available))
		budget->available = most;
	return true;
}

static LlmTrainMemory
memory_of(const LlmExecutor *executor, const LlmTrainRequest *request)
{
	LlmModelOptions model = llm_executor_model_options(
		executor, llm_executor_weight_dtype(executor));

	return llm_train_memory(&executor->config, &model,
							executor->is_cuda ? LLM_DTYPE_BF16 : LLM_DTYPE_F32,
							&request->train);
}

static bool
refuse(const LlmExecutor *executor, const JobBudget *budget,
	   const LlmTrainMemory *memory, LlmError *err)
{
	char gpu[256] = "";

	if (executor->is_cuda)
		snprintf(gpu, sizeof(gpu),
				 "; %s has %.3f GB free, of which go: weights %.3f GB%s, "
				 "driver and kernels %.3f GB, reserve %.3f GB",
				 executor->device.name, budget->free_bytes / 1e9,
				 budget->weights / 1e9,
				 executor->borrowed_arena > 0 ? " (shared)" : "",
				 budget->backend / 1e9, budget->reserve / 1e9);
	llm_error_set(err, LLM_ERROR_NO_MEMORY,
				  "the job does not fit: beside the model it takes %.3f GB, "
				  "but %.3f GB of memory are available: states %.3f GB, "
				  "activations %.3f GB, scratch %.3f GB, logits %.3f GB%s",
				  (double) memory->total_bytes / 1e9,
				  budget->available > 0 ? budget->available / 1e9 : 0.0,
				  (double) memory->states_bytes / 1e9,
				  (double) memory->activations_bytes / 1e9,
				  (double) memory->scratch_bytes / 1e9,
				  (double) memory->logits_bytes / 1e9, gpu);
	return llm_error_hint(err,
						  "Lower cutoff_len, max_tokens or lora_rank, or leave "
						  "gradient checkpointing on%s.",
						  executor->is_cuda
							  ? "; or lower llm_ext.gpu_memory_utilization "
								"and load the model that serves again"
							  : "");
}

/* On a GPU layers are computed again only where it would not fit otherwise. */
bool
train_plan_memory(LlmExecutor *executor, LlmTrainRequest *request,
				  LlmError *err)
{
	LlmTrainMemory memory;
	JobBudget budget;

	if (!plan_budget(executor, request, &budget, err))
		return false;
	if (executor->is_cuda)
		request->train.recompute = LLM_RECOMPUTE_SELECTIVE;
	memory = memory_of(executor, request);
	if (executor->is_cuda && (double) memory.total_bytes > budget.available &&
		!request->disable_gradient_checkpointing)
	{
		request->train.recompute = LLM_RECOMPUTE_FULL;
		memory = memory_of(executor, request);
	}
	if ((budget.free_bytes == 0 && request->max_memory_bytes == 0) ||
		(double) memory.total_bytes <= budget.available)
		return true;
	return refuse(executor, &budget, &memory, err);
}
