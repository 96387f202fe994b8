/*
 * executor_load.c
 *	  From a model directory to a ready executor.
 *
 * The order is the order of cost: everything that can be refused cheaply
 * (config, sizes, tokenizer) is looked at before weights are touched.
 *
 * src/engine/executor/executor_load.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/model_image/model_image.h"
#include "src/common/util/clock.h"
#include "src/engine/executor/adapter_slots.h"
#include "src/engine/executor/executor.h"

/*
 * A CPU step's latency is its prefill tokens: 256 of them keep the matrix
 * kernels near their best and stall decoding sequences least.
 */
#define CPU_MAX_NUM_BATCHED_TOKENS 256
#define CPU_MAX_NUM_SEQS 128

/*
 * A GPU's prefill is at its best from a few hundred tokens on; a step's room
 * for more lets long prompts in with few steps.
 */
#define GPU_MAX_NUM_BATCHED_TOKENS 8192
#define GPU_MAX_NUM_SEQS 256

static LlmDtype
dtype_by_name(const char *name, LlmDtype automatic)
{
	for (int dtype = 0; dtype < LLM_DTYPE_COUNT; dtype++)
		if (strcmp(name, llm_dtype_name((LlmDtype) dtype)) == 0)
			return (LlmDtype) dtype;
	assert(strcmp(name, "auto") == 0);
	return automatic;
}

/* How many sequences and tokens a step may have. */
static void
choose_step_sizes(LlmExecutor *executor)
{
	const LlmExecutorOptions *options = &executor->options;

	executor->max_num_seqs = options->max_num_seqs > 0 ? options->max_num_seqs
							 : executor->is_cuda	   ? GPU_MAX_NUM_SEQS
													   : CPU_MAX_NUM_SEQS;
	executor->max_num_batched_tokens =
		options->max_num_batched_tokens > 0 ? options->max_num_batched_tokens
		: executor->is_cuda					? GPU_MAX_NUM_BATCHED_TOKENS
											: CPU_MAX_NUM_BATCHED_TOKENS;
	if (executor->max_num_batched_tokens < executor->max_num_seqs)
		executor->max_num_batched_tokens = executor->max_num_seqs;
}

/* Context length and cache blocks, from options and config. */
static bool
choose_sizes(LlmExecutor *executor, LlmDtype kv_dtype, LlmError *err)
{
	const LlmExecutorOptions *options = &executor->options;
	const LlmModelConfig *config = &executor->config;
	LlmKvCacheSpec *spec = &executor->kv_spec;
	int64_t block_bytes =
		llm_model_kv_bytes_per_token(config, kv_dtype) * options->block_size;
	int64_t budget;
	int64_t n_blocks;
	int64_t useful_blocks;
	int64_t max_len = options->max_model_len;

	executor->max_model_len = options->max_model_len;
	if (!llm_executor_kv_budget(executor, &budget, err))
		return false;
	n_blocks = budget / block_bytes;
	if (max_len > config->max_position)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "max_model_len %lld is beyond the model's context "
							 "of %d tokens",
							 (long long) max_len, config->max_position);
	if (max_len == 0)
		max_len = n_blocks * options->block_size < config->max_position
					  ? n_blocks * options->block_size
					  : config->max_position;
	if (max_len < 1 || n_blocks * options->block_size < max_len)
	{
		llm_error_set(err, LLM_ERROR_NO_MEMORY,
					  "a sequence of %lld tokens needs %lld bytes of KV cache, "
					  "but there are %lld",
					  (long long) (max_len > 0 ? max_len : options->block_size),
					  (long long) ((max_len + options->block_size - 1) /
								   options->block_size * block_bytes),
					  (long long) budget);
		return llm_error_hint(err, "Raise llm_ext.kv_cache_memory or lower "
								   "llm_ext.max_model_len.");
	}
	executor->max_model_len = (int32_t) max_len;
	/* more blocks than all sequences at full length would never be used */
	useful_blocks = (max_len + options->block_size - 1) / options->block_size *
					executor->max_num_seqs;
	if (n_blocks > useful_blocks)
		n_blocks = useful_blocks;
	spec->n_layers = config->n_layers;
	spec->n_kv_heads = config->n_kv_heads;
	spec->head_dim = config->head_dim;
	spec->block_size = options->block_size;
	spec->n_blocks =
		(int32_t) (n_blocks > INT32_MAX / 2 ? INT32_MAX / 2 : n_blocks);
	spec->dtype = kv_dtype;
	llm_executor_complete_memory(executor);
	return true;
}

static bool
open_compute(LlmExecutor *executor, LlmDtype precision, LlmError *err)
{
	LlmComputeOptions options =
		llm_executor_compute_options(executor, precision);

	executor->compute = executor->is_cuda ? llm_compute_cuda_load(&options, err)
										  : llm_compute_cpu_open(&options, err);
	return executor->compute != NULL;
}

static bool
load_weights(LlmExecutor *executor, LlmDtype weight_dtype, LlmError *err)
{
	LlmModelOptions options =
		llm_executor_model_options(executor, weight_dtype);

	executor->model = llm_model_load(executor->options.path, &executor->config,
									 &options, executor->compute, err);
	if (executor->model == NULL)
		return false;
	executor->kv = executor->compute->ops->kv_create(executor->compute,
													 &executor->kv_spec, err);
	return executor->kv != NULL;
}

static bool
create_planner(LlmExecutor *executor, LlmError *err)
{
	LlmPlannerConfig config = {
		.block_size = executor->kv_spec.block_size,
		.n_blocks = executor->kv_spec.n_blocks,
		.max_num_seqs = executor->max_num_seqs,
		.max_num_batched_tokens = executor->max_num_batched_tokens,
		.max_model_len = executor->max_model_len,
		.enable_prefix_caching = executor->options.enable_prefix_caching,
		.separates_phases = executor->options.deterministic,
		.aging_us = executor->options.aging_ms * 1000,
	};
	const LlmRopeConfig *rope = &executor->config.rope;
	size_t n = (size_t) executor->max_num_seqs;

	if (llm_rope_depends_on_length(rope))
	{
		config.rope_short_len = rope->original_max_position;
		config.rope_grows = rope->kind == LLM_ROPE_DYNAMIC;
		config.rope_restarts =
			!config.rope_grows && executor->config.rope_restarts;
	}

	executor->planner = llm_planner_create(&config, err);
	if (executor->planner == NULL ||
		!llm_request_table_init(&executor->requests, err))
		return false;
	executor->rows = calloc(n, sizeof(LlmSampleRow));
	executor->results = calloc(n, sizeof(LlmSampleResult));
	for (int i = 0; i < 2; i++)
	{
		executor->draws[i].requests = calloc(n, sizeof(LlmExecRequest *));
		executor->draws[i].positions = calloc(n, sizeof(int32_t));
	}
	executor->ranges = calloc(n, sizeof(LlmRowRange));
	executor->range_seqs = calloc(n, sizeof(int32_t));
	executor->sums =
		calloc(n * (size_t) executor->config.hidden_size, sizeof(float));
	if (executor->rows == NULL || executor->results == NULL ||
		executor->draws[0].requests == NULL ||
		executor->draws[0].positions == NULL ||
		executor->draws[1].requests == NULL ||
		executor->draws[1].positions == NULL || executor->ranges == NULL ||
		executor->range_seqs == NULL || executor->sums == NULL)
		return llm_error_no_memory(err, n * sizeof(LlmSampleResult),
								   "the rows of a step");
	return true;
}

/* What matrices become; a GPU computes in bf16, whatever is stored. */
LlmDtype
llm_executor_weight_dtype(const LlmExecutor *executor)
{
	return dtype_by_name(executor->options.dtype, executor->is_cuda
													  ? LLM_DTYPE_BF16
													  : executor->config.dtype);
}

/*
 * Gradients take sums of products that rounded inputs would drown in noise;
 * a GPU rounds them, and has sums that are long.
 */
bool
llm_executor_load_model(LlmExecutor *executor, LlmError *err)
{
	LlmModelOptions options = llm_executor_model_options(
		executor, llm_executor_weight_dtype(executor));

	if (!open_compute(executor,
					  executor->is_cuda ? LLM_DTYPE_BF16 : LLM_DTYPE_F32, err))
		return false;
	executor->model = llm_model_load(executor->options.path, &executor->config,
									 &options, executor->compute, err);
	return executor->model != NULL;
}

/* What grammars need: the tokenizer, as backend processes have it. */
static bool
create_constraints(LlmExecutor *executor, LlmError *err)
{
	LlmConstraintsConfig config = {
		.image_path = executor->options.image_path,
		.n_vocab = executor->config.n_vocab,
		.end_ids = executor->config.stop_ids,
		.n_end_ids = executor->config.n_stop_ids,
		.max_rows = executor->max_num_seqs,
	};

	if (config.image_path[0] == '\0')
		return true;
	executor->constraints = llm_constraints_create(&config, err);
	return executor->constraints != NULL;
}

/* Running ahead pays where the device works while the host goes on. */
static bool
choose_ahead(const LlmExecutor *executor)
{
	const char *wanted = executor->options.async_stepping;

	return strcmp(wanted, "auto") == 0 ? executor->compute->is_async
									   : strcmp(wanted, "on") == 0;
}

static bool
load_all(LlmExecutor *executor, LlmError *err)
{
	const LlmExecutorOptions *options = &executor->options;
	LlmModelConfig *config = &executor->config;
	LlmDtype weight_dtype;
	LlmDtype precision;
	LlmDtype kv_dtype;

	if (!llm_model_config_read(options->path, config, err) ||
		!llm_executor_choose_device(executor, err))
		return false;
	weight_dtype = llm_executor_weight_dtype(executor);
	/* half precision products are exact only when done in f32 */
	precision = weight_dtype == LLM_DTYPE_BF16 ? LLM_DTYPE_BF16 : LLM_DTYPE_F32;
	kv_dtype = dtype_by_name(options->kv_cache_dtype, precision);
	choose_step_sizes(executor);
	if (!choose_sizes(executor, kv_dtype, err) ||
		(options->image_path[0] != '\0' &&
		 !llm_model_image_write(options->path, config, options->image_path,
								err)))
		return false;
	if (!open_compute(executor, precision, err))
		return false;
	executor->runs_ahead = choose_ahead(executor);
	if (!load_weights(executor, weight_dtype, err) ||
		!llm_adapter_slots_create(executor, err) ||
		!create_planner(executor, err) || !create_constraints(executor, err) ||
		!llm_executor_warm_up(executor, err))
		return false;
	llm_executor_lend_weights(executor);
	llm_executor_arm_faults(executor);
	return true;
}

bool
llm_executor_load(LlmExecutor *executor, LlmError *err)
{
	int64_t start_us = llm_clock_us();

	if (!load_all(executor, err))
	{
		llm_executor_unload(executor);
		return false;
	}
	executor->load_us = llm_clock_us() - start_us;
	return true;
}

void
llm_executor_unload(LlmExecutor *executor)
{
	llm_weight_lender_close(executor->lender);
	executor->lender = NULL;
	llm_request_table_destroy(&executor->requests);
	llm_constraints_free(executor->constraints);
	if (executor->planner != NULL)
		llm_planner_free(executor->planner);
	llm_adapter_slots_free(executor);
	if (executor->kv != NULL)
		executor->compute->ops->kv_free(executor->kv);
	if (executor->model != NULL)
		llm_model_free(executor->model);
	if (executor->compute != NULL)
		executor->compute->ops->close(executor->compute);
	llm_executor_return_weights(executor);
	free(executor->rows);
	free(executor->results);
	for (int i = 0; i < 2; i++)
	{
		free(executor->draws[i].requests);
		free(executor->draws[i].positions);
		executor->draws[i] = (LlmDraw){ 0 };
	}
	free(executor->ranges);
	free(executor->range_seqs);
	free(executor->sums);
	executor->constraints = NULL;
	executor->planner = NULL;
	executor->kv = NULL;
	executor->model = NULL;
	executor->compute = NULL;
	executor->rows = NULL;
	executor->results = NULL;
	executor->ranges = NULL;
	executor->range_seqs = NULL;
	executor->sums = NULL;
}

void
llm_executor_describe(const LlmExecutor *executor, LlmStrbuf *json)
{
	const LlmModelConfig *config = &executor->config;
	const LlmKvCacheSpec *spec = &executor->kv_spec;
	LlmMemoryPlan memory = executor->memory;
	char device[160];

	/* a GPU may pad heads */
	memory.bytes[LLM_MEMORY_KV_CACHE] =
		(int64_t) executor->compute->ops->kv_bytes(spec);
	/* on the CPU weights are mapped, and adapters used where they lie */
	if (!executor->is_cuda)
		memory.bytes[LLM_MEMORY_WEIGHTS] =
			(int64_t) llm_model_weight_bytes(executor->model);

	executor->compute->ops->describe(executor->compute, device, sizeof(device));
	llm_strbuf_printf(json,
					  "{\"architecture\": \"%s\", \"device\": \"%s\", "
					  "\"dtype\": \"%s\", \"quantization\": \"%s\", "
					  "\"precision\": \"%s\", "
					  "\"n_params\": %lld, \"n_vocab\": %d, "
					  "\"max_model_len\": %d, \"max_num_seqs\": %d, "
					  "\"max_num_batched_tokens\": %d, ",
					  config->architecture, device,
					  llm_dtype_name(config->dtype),
					  executor->options.quantization,
					  llm_dtype_name(executor->compute->precision),
					  (long long) llm_model_n_params(config), config->n_vocab,
					  executor->max_model_len, executor->max_num_seqs,
					  executor->max_num_batched_tokens);
	llm_strbuf_printf(
		json,
		"\"weight_bytes\": %zu, \"workspace_bytes\": %zu, "
		"\"kv_cache_bytes\": %zu, \"kv_cache_dtype\": \"%s\", "
		"\"kv_blocks\": %d, \"block_size\": %d, "
		"\"max_loras\": %d, \"max_lora_rank\": %d, "
		"\"enable_prefix_caching\": %s, \"deterministic\": %s, "
		"\"load_ms\": %lld, \"memory\": ",
		llm_model_weight_bytes(executor->model),
		llm_model_workspace_bytes(executor->model),
		executor->compute->ops->kv_bytes(spec), llm_dtype_name(spec->dtype),
		spec->n_blocks, spec->block_size, executor->options.max_loras,
		executor->options.max_lora_rank,
		executor->options.enable_prefix_caching ? "true" : "false",
		executor->options.deterministic ? "true" : "false",
		(long long) (executor->load_us / 1000));
	llm_memory_plan_describe(&memory, json);
	llm_strbuf_printf(json, "}");
}
