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
#include "src/engine/executor/executor.h"

/*
 * A CPU step's latency is its prefill tokens: 256 of them keep the matrix
 * kernels near their best and stall decoding sequences least.
 */
#define CPU_MAX_NUM_BATCHED_TOKENS 256
#define CPU_MAX_NUM_SEQS 128

/* Cache memory where none is set: this, or a quarter of the machine's. */
#define CPU_KV_CACHE_BYTES ((int64_t) 4 << 30)

static LlmDtype
dtype_by_name(const char *name, LlmDtype automatic)
{
	for (int dtype = 0; dtype < LLM_DTYPE_COUNT; dtype++)
		if (strcmp(name, llm_dtype_name((LlmDtype) dtype)) == 0)
			return (LlmDtype) dtype;
	assert(strcmp(name, "auto") == 0);
	return automatic;
}

static int64_t
default_kv_bytes(void)
{
	int64_t machine = (int64_t) sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);

	return machine / 4 < CPU_KV_CACHE_BYTES ? machine / 4 : CPU_KV_CACHE_BYTES;
}

/* Context length, steps' sizes and cache blocks, from options and config. */
static bool
choose_sizes(LlmExecutor *executor, LlmDtype kv_dtype, LlmError *err)
{
	const LlmExecutorOptions *options = &executor->options;
	const LlmModelConfig *config = &executor->config;
	LlmKvCacheSpec *spec = &executor->kv_spec;
	int64_t budget = options->kv_cache_memory_bytes > 0
						 ? options->kv_cache_memory_bytes
						 : default_kv_bytes();
	int64_t block_bytes =
		llm_model_kv_bytes_per_token(config, kv_dtype) * options->block_size;
	int64_t n_blocks = budget / block_bytes;
	int64_t useful_blocks;
	int64_t max_len = options->max_model_len;

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
	executor->max_num_seqs =
		options->max_num_seqs > 0 ? options->max_num_seqs : CPU_MAX_NUM_SEQS;
	executor->max_num_batched_tokens = options->max_num_batched_tokens > 0
										   ? options->max_num_batched_tokens
										   : CPU_MAX_NUM_BATCHED_TOKENS;
	if (executor->max_num_batched_tokens < executor->max_num_seqs)
		executor->max_num_batched_tokens = executor->max_num_seqs;
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
	return true;
}

static int32_t
max_int32(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

static bool
open_compute(LlmExecutor *executor, LlmDtype precision, LlmError *err)
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
	};

	if (strcmp(executor->options.device, "cuda") == 0)
	{
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "device \"cuda\" is not available in this build");
		return llm_error_hint(err, "Set llm_ext.device to auto or cpu.");
	}
	executor->compute = llm_compute_cpu_open(&options, err);
	return executor->compute != NULL;
}

static bool
load_weights(LlmExecutor *executor, LlmDtype weight_dtype, LlmError *err)
{
	LlmModelOptions options = {
		.weight_dtype = weight_dtype,
		.dummy_weights = executor->options.dummy_weights,
		.dummy_seed = executor->options.dummy_seed,
		.max_model_len = executor->max_model_len,
		.max_num_batched_tokens = executor->max_num_batched_tokens,
		.max_logit_rows = executor->max_num_seqs,
	};

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
	executor->row_requests = calloc(n, sizeof(LlmExecRequest *));
	if (executor->rows == NULL || executor->results == NULL ||
		executor->row_requests == NULL)
		return llm_error_no_memory(err, n * sizeof(LlmSampleResult),
								   "sampling");
	return true;
}

static bool
load_all(LlmExecutor *executor, LlmError *err)
{
	const LlmExecutorOptions *options = &executor->options;
	LlmModelConfig *config = &executor->config;
	LlmDtype weight_dtype;
	LlmDtype precision;
	LlmDtype kv_dtype;

	if (!llm_model_config_read(options->path, config, err))
		return false;
	weight_dtype = dtype_by_name(options->dtype, config->dtype);
	/* half precision products are exact only when done in f32 */
	precision = weight_dtype == LLM_DTYPE_BF16 ? LLM_DTYPE_BF16 : LLM_DTYPE_F32;
	kv_dtype = dtype_by_name(options->kv_cache_dtype, precision);
	if (!choose_sizes(executor, kv_dtype, err) ||
		(options->image_path[0] != '\0' &&
		 !llm_model_image_write(options->path, config, options->image_path,
								err)))
		return false;
	return open_compute(executor, precision, err) &&
		   load_weights(executor, weight_dtype, err) &&
		   create_planner(executor, err);
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
	llm_request_table_destroy(&executor->requests);
	if (executor->planner != NULL)
		llm_planner_free(executor->planner);
	if (executor->kv != NULL)
		executor->compute->ops->kv_free(executor->kv);
	if (executor->model != NULL)
		llm_model_free(executor->model);
	if (executor->compute != NULL)
		executor->compute->ops->close(executor->compute);
	free(executor->rows);
	free(executor->results);
	free(executor->row_requests);
	executor->planner = NULL;
	executor->kv = NULL;
	executor->model = NULL;
	executor->compute = NULL;
	executor->rows = NULL;
	executor->results = NULL;
	executor->row_requests = NULL;
}

void
llm_executor_describe(const LlmExecutor *executor, LlmStrbuf *json)
{
	const LlmModelConfig *config = &executor->config;
	const LlmKvCacheSpec *spec = &executor->kv_spec;

	llm_strbuf_printf(json,
					  "{\"architecture\": \"%s\", \"device\": \"cpu (%s, %d "
					  "threads)\", \"dtype\": \"%s\", \"precision\": \"%s\", "
					  "\"n_params\": %lld, \"n_vocab\": %d, "
					  "\"max_model_len\": %d, \"max_num_seqs\": %d, "
					  "\"max_num_batched_tokens\": %d, ",
					  config->architecture,
					  llm_compute_cpu_isa(executor->compute),
					  llm_compute_cpu_n_threads(executor->compute),
					  llm_dtype_name(config->dtype),
					  llm_dtype_name(executor->compute->precision),
					  (long long) llm_model_n_params(config), config->n_vocab,
					  executor->max_model_len, executor->max_num_seqs,
					  executor->max_num_batched_tokens);
	llm_strbuf_printf(
		json,
		"\"weight_bytes\": %zu, \"workspace_bytes\": %zu, "
		"\"kv_cache_bytes\": %zu, \"kv_cache_dtype\": \"%s\", "
		"\"kv_blocks\": %d, \"block_size\": %d, "
		"\"enable_prefix_caching\": %s, \"load_ms\": %lld}",
		llm_model_weight_bytes(executor->model),
		llm_model_workspace_bytes(executor->model),
		executor->compute->ops->kv_bytes(spec), llm_dtype_name(spec->dtype),
		spec->n_blocks, spec->block_size,
		executor->options.enable_prefix_caching ? "true" : "false",
		(long long) (executor->load_us / 1000));
}
