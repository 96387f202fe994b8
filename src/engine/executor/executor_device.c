/*
 * executor_device.c
 *	  Which device a model runs on, and how much memory its cache gets there.
 *
 * On a GPU one budget is divided: gpu_memory_utilization of all its memory is
 * what the whole GPU may hold.  From it go what others use already, the
 * weights, the activations of the largest step, the slots of adapters, recorded
 * passes and the backend's scratch; the KV cache gets the rest.  All of it is
 * computed before anything is touched.
 *
 * src/engine/executor/executor_device.c
 */
#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "src/engine/executor/adapter_slots.h"
#include "src/engine/executor/executor.h"

/* Cache memory where none is set: this, or a quarter of the machine's. */
#define CPU_KV_CACHE_BYTES ((int64_t) 4 << 30)

/*
 * For recorded passes: some 300 launches each, of a few KB; those of a ladder
 * of batch sizes take less than this, and are forgotten when they do not.
 */
#define GPU_GRAPH_BYTES ((size_t) 512 << 20)

/* Where keys and values have 8 bits: for tens of thousands of tokens. */
#define GPU_KV_EXPAND_BYTES ((size_t) 128 << 20)

/* Prompts' keys and values are expanded on a GPU, where they are computed. */
static bool
is_kv_coded(const LlmExecutor *executor)
{
	const char *dtype = executor->options.kv_cache_dtype;

	return executor->is_cuda &&
		   (strcmp(dtype, "fp8") == 0 || strcmp(dtype, "int8") == 0);
}

static int32_t
max_int32(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

/* What a job of training may ask for. */
static bool
is_nf4(const LlmExecutor *executor)
{
	return strncmp(executor->options.quantization, "nf4", 3) == 0;
}

LlmComputeOptions
llm_executor_compute_options(const LlmExecutor *executor, LlmDtype precision)
{
	const LlmModelConfig *config = &executor->config;
	LlmComputeOptions options = {
		.precision = precision,
		.n_threads = executor->options.num_threads,
		.max_rows = executor->max_num_batched_tokens,
		.max_cols =
			max_int32(max_int32(config->hidden_size, config->intermediate_size),
					  config->n_heads * config->head_dim),
		.max_seqs = executor->max_num_seqs,
		.max_context_len = executor->max_model_len,
		.max_heads = config->n_heads,
		.max_vocab = config->n_vocab,
		.max_experts = config->n_experts,
		.max_experts_per_token = config->n_experts_per_token,
		.max_expert_dim = config->expert_intermediate_size,
		.max_loras = executor->options.max_loras,
		.max_lora_rank = executor->options.max_lora_rank,
		/* NF4 takes a quarter of it, and has no neighbours to join */
		.arena_bytes = executor->is_cuda && !is_nf4(executor)
						   ? (size_t) llm_executor_gpu_weight_bytes(executor)
						   : 0,
		.lends_arena =
			executor->options.share_dir[0] != '\0' && !executor->is_background,
		.borrowed_arena = executor->borrowed_arena,
		.is_background = executor->is_background,
		.kv_expand_bytes = is_kv_coded(executor) ? GPU_KV_EXPAND_BYTES : 0,
		.graph_bytes = executor->is_cuda && !executor->options.enforce_eager
						   ? GPU_GRAPH_BYTES
						   : 0,
		.deterministic = executor->options.deterministic,
		.enforce_eager = executor->options.enforce_eager,
		.measure_idle = executor->options.measure_idle,
		.cache_dir = executor->options.cache_dir,
	};

	return options;
}

static LlmQuantization
quantization_by_name(const char *name)
{
	if (strcmp(name, "int8") == 0)
		return LLM_QUANTIZATION_INT8;
	if (strcmp(name, "int4") == 0)
		return LLM_QUANTIZATION_INT4;
	/* these are what a job asks for, see train_options.c */
	if (strcmp(name, "nf4") == 0)
		return LLM_QUANTIZATION_NF4;
	if (strcmp(name, "nf4_nested") == 0)
		return LLM_QUANTIZATION_NF4_NESTED;
	assert(strcmp(name, "none") == 0);
	return LLM_QUANTIZATION_NONE;
}

LlmModelOptions
llm_executor_model_options(const LlmExecutor *executor, LlmDtype weight_dtype)
{
	LlmModelOptions options = {
		.weight_dtype = weight_dtype,
		.quantization = quantization_by_name(executor->options.quantization),
		.n_threads = executor->options.num_threads,
		.weights_are_there = executor->borrowed_arena > 0,
		.dummy_weights = executor->options.dummy_weights,
		.dummy_seed = executor->options.dummy_seed,
		.max_model_len = executor->max_model_len,
		.max_num_batched_tokens = executor->max_num_batched_tokens,
		.max_logit_rows = executor->max_num_seqs,
	};

	return options;
}

int64_t
llm_executor_gpu_weight_bytes(const LlmExecutor *executor)
{
	return llm_model_n_params(&executor->config) *
			   (int64_t) llm_dtype_bytes(LLM_DTYPE_BF16) +
		   LLM_GPU_MARGIN_BYTES / 4;
}

/* Weights in int8 and int4 have kernels on the CPU alone. */
static bool
check_quantization(const LlmExecutor *executor, LlmError *err)
{
	const char *quantization = executor->options.quantization;

	if (!executor->is_cuda || strcmp(quantization, "none") == 0 ||
		is_nf4(executor))
		return true;
	llm_error_set(err, LLM_ERROR_UNSUPPORTED,
				  "quantization \"%s\" is not supported on device \"cuda\"",
				  quantization);
	return llm_error_hint(err, "Set llm_ext.quantization to none or "
							   "llm_ext.device to cpu.");
}

bool
llm_executor_choose_device(LlmExecutor *executor, LlmError *err)
{
	const char *device = executor->options.device;
	LlmComputeOptions options = { .precision = LLM_DTYPE_BF16 };
	LlmError why = { 0 };

	executor->is_cuda = false;
	if (strcmp(device, "cpu") == 0)
		return true;
	if (llm_compute_cuda_info(&options, &executor->device, &why))
	{
		executor->is_cuda = true;
		return check_quantization(executor, err);
	}
	if (strcmp(device, "auto") == 0)
	{
		llm_executor_log(executor, false, "models run on the CPU: %s",
						 why.message);
		return true;
	}
	*err = why;
	return llm_error_hint(err, "Set llm_ext.device to auto or cpu.");
}

static int64_t
cpu_kv_budget(void)
{
	int64_t machine = (int64_t) sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);

	return machine / 4 < CPU_KV_CACHE_BYTES ? machine / 4 : CPU_KV_CACHE_BYTES;
}

/*
 * A GPU's memory before the cache.  The sizes of steps are chosen;
 * max_model_len may not be: scratch is computed for the model's whole context
 * then.
 */
static bool
plan_gpu(LlmExecutor *executor, LlmError *err)
{
	const LlmExecutorOptions *wanted = &executor->options;
	LlmMemoryPlan *plan = &executor->memory;
	LlmDeviceInfo *gpu = &executor->device;
	LlmModelOptions model =
		llm_executor_model_options(executor, LLM_DTYPE_BF16);
	LlmComputeOptions options;

	if (executor->max_model_len == 0)
		executor->max_model_len = executor->config.max_position;
	options = llm_executor_compute_options(executor, LLM_DTYPE_BF16);
	if (!llm_compute_cuda_info(&options, gpu, err))
		return false;
	plan->device_bytes = (int64_t) gpu->total_bytes;
	/* a cache of a given size may have all that is free */
	plan->bytes[LLM_MEMORY_WITHHELD] =
		wanted->kv_cache_memory_bytes > 0
			? 0
			: (int64_t) ((1 - wanted->gpu_memory_utilization) *
						 (double) gpu->total_bytes);
	plan->bytes[LLM_MEMORY_OTHERS] =
		(int64_t) (gpu->total_bytes - gpu->free_bytes);
	plan->bytes[LLM_MEMORY_WEIGHTS] = llm_executor_gpu_weight_bytes(executor);
	plan->bytes[LLM_MEMORY_ACTIVATIONS] = (int64_t) llm_model_activation_bytes(
		&executor->config, &model, LLM_DTYPE_BF16);
	plan->bytes[LLM_MEMORY_ADAPTERS] =
		llm_adapter_slots_bytes(&executor->config, wanted);
	plan->bytes[LLM_MEMORY_SCRATCH] = (int64_t) gpu->scratch_bytes;
	plan->bytes[LLM_MEMORY_GRAPHS] = (int64_t) options.graph_bytes;
	plan->bytes[LLM_MEMORY_RESERVE] = LLM_GPU_MARGIN_BYTES;
	return true;
}

bool
llm_executor_kv_budget(LlmExecutor *executor, int64_t *budget, LlmError *err)
{
	LlmMemoryPlan *plan = &executor->memory;

	*plan = (LlmMemoryPlan){ 0 };
	*budget = executor->options.kv_cache_memory_bytes;
	if (executor->is_cuda)
		return plan_gpu(executor, err) &&
			   llm_memory_plan_check(plan, executor->device.name, budget, err);
	if (*budget == 0)
		*budget = cpu_kv_budget();
	return true;
}

void
llm_executor_complete_memory(LlmExecutor *executor)
{
	LlmMemoryPlan *plan = &executor->memory;
	LlmModelOptions model = llm_executor_model_options(executor, LLM_DTYPE_F32);

	plan->bytes[LLM_MEMORY_KV_CACHE] =
		llm_model_kv_bytes_per_token(&executor->config,
									 executor->kv_spec.dtype) *
		executor->kv_spec.block_size * executor->kv_spec.n_blocks;
	if (plan->device_bytes > 0)
		return;
	plan->bytes[LLM_MEMORY_ACTIVATIONS] = (int64_t) llm_model_activation_bytes(
		&executor->config, &model, LLM_DTYPE_F32);
}
