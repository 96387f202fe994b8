/*
 * settings.c
 *	  Every llm_ext.* setting.
 *
 * Names and meanings are vLLM's wherever it has one.  Those that describe an
 * executor are read by the scheduler when it starts one, so a reload changes
 * what the next load gets, never a running model; llm_load_model's options
 * override them for one model.
 *
 * src/server/settings.c
 */
#include "src/server/settings.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/plancache.h"

char *llm_setting_executor_path;
int llm_setting_max_requests;
int llm_setting_max_finetune_jobs = 2;
int llm_setting_max_models;
char *llm_setting_model;
char *llm_setting_model_name;
char *llm_setting_device;
char *llm_setting_dtype;
char *llm_setting_kv_cache_dtype;
char *llm_setting_quantization;
char *llm_setting_load_format;
int llm_setting_max_model_len;
int llm_setting_max_num_seqs;
int llm_setting_max_num_batched_tokens;
int llm_setting_block_size;
int llm_setting_kv_cache_memory_mb;
double llm_setting_gpu_memory_utilization;
int llm_setting_num_threads;
bool llm_setting_enable_prefix_caching;
bool llm_setting_enforce_eager;
bool llm_setting_deterministic;
char *llm_setting_async_stepping;
int llm_setting_aging_ms;
int llm_setting_load_timeout_s;
int llm_setting_executor_timeout_s;
char *llm_setting_tenant;
int llm_setting_max_adapter_size_mb;
int llm_setting_max_loras;
int llm_setting_max_lora_rank;
int llm_setting_max_cpu_loras;
int llm_setting_adapter_cache_mb;
bool llm_setting_queue_wait;
int llm_setting_request_timeout_ms;
int llm_setting_max_requests_per_backend;
bool llm_setting_enable_batching;
int llm_setting_batch_rows;
bool llm_setting_debug_wrap_plans;
int llm_setting_max_tokens_per_statement;
int llm_setting_on_error;
int llm_setting_debug_crash_token;

/* Is *value in a NULL-terminated list?  Else say what would be. */
static bool
check_choice(char **value, const char *const *choices, const char *detail)
{
	for (; *choices != NULL; choices++)
		if (strcmp(*value, *choices) == 0)
			return true;
	GUC_check_errdetail("%s", detail);
	return false;
}

static bool
check_device(char **value, void **extra, GucSource source)
{
	static const char *const choices[] = { "auto", "cpu", "cuda", NULL };

	return check_choice(value, choices, "Available values: auto, cpu, cuda.");
}

static bool
check_dtype(char **value, void **extra, GucSource source)
{
	static const char *const choices[] = { "auto", "float32", "bfloat16",
										   "float16", NULL };

	return check_choice(value, choices,
						"Available values: auto, float32, bfloat16, float16.");
}

static bool
check_kv_cache_dtype(char **value, void **extra, GucSource source)
{
	static const char *const choices[] = { "auto", "float32", "bfloat16",
										   "fp8",  "int8",	  NULL };

	return check_choice(
		value, choices,
		"Available values: auto, float32, bfloat16, fp8, int8.");
}

static bool
check_quantization(char **value, void **extra, GucSource source)
{
	static const char *const choices[] = { "none", "int8", "int4", NULL };

	return check_choice(value, choices, "Available values: none, int8, int4.");
}

static bool
check_load_format(char **value, void **extra, GucSource source)
{
	static const char *const choices[] = { "auto", "dummy", NULL };

	return check_choice(value, choices, "Available values: auto, dummy.");
}

static bool
check_async_stepping(char **value, void **extra, GucSource source)
{
	static const char *const choices[] = { "auto", "on", "off", NULL };

	return check_choice(value, choices, "Available values: auto, on, off.");
}

static bool
check_block_size(int *value, void **extra, GucSource source)
{
	if ((*value & (*value - 1)) == 0)
		return true;
	GUC_check_errdetail("The block size must be a power of two.");
	return false;
}

static void
define_postmaster_settings(void)
{
	DefineCustomStringVariable(
		"llm_ext.executor_path", "Program that runs a model.",
		"Empty: llm_executor in PostgreSQL's library directory.",
		&llm_setting_executor_path, "", PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
		NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.max_requests",
		"Number of requests that may be in flight in the whole server.",
		"Each takes 26 kB of shared memory.", &llm_setting_max_requests, 1024,
		4, 65536, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("llm_ext.max_models",
							"Number of models that may be loaded at once.",
							NULL, &llm_setting_max_models, 8, 1, 256,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.max_finetune_jobs",
		"Fine-tuning jobs that may run at once in the whole server.",
		"Others wait.  Each takes one of max_worker_processes.  0: none may.",
		&llm_setting_max_finetune_jobs, 2, 0, 64, PGC_POSTMASTER, 0, NULL, NULL,
		NULL);
}

static void
define_model_settings(void)
{
	DefineCustomStringVariable(
		"llm_ext.model",
		"Model directory or GGUF file that is loaded at server start.",
		"It becomes the default model.", &llm_setting_model, "", PGC_SIGHUP,
		GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"llm_ext.model_name", "Name of the model in llm_ext.model.",
		"Empty: the last part of the directory.", &llm_setting_model_name, "",
		PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("llm_ext.device", "Where models run.",
							   "auto takes a GPU where there is one.",
							   &llm_setting_device, "auto", PGC_SIGHUP, 0,
							   check_device, NULL, NULL);
	DefineCustomStringVariable("llm_ext.dtype", "Data type of the weights.",
							   "auto keeps the type of the model's files; a "
							   "GPU computes in bfloat16.",
							   &llm_setting_dtype, "auto", PGC_SIGHUP, 0,
							   check_dtype, NULL, NULL);
	DefineCustomStringVariable("llm_ext.kv_cache_dtype",
							   "Data type of the KV cache.",
							   "fp8 and int8 halve it, at some loss of "
							   "accuracy; fp8 loses more.",
							   &llm_setting_kv_cache_dtype, "auto", PGC_SIGHUP,
							   0, check_kv_cache_dtype, NULL, NULL);
	DefineCustomStringVariable(
		"llm_ext.quantization", "What weights are rounded to.",
		"none keeps what the model's files hold, quantized or not.",
		&llm_setting_quantization, "none", PGC_SIGHUP, 0, check_quantization,
		NULL, NULL);
	DefineCustomStringVariable(
		"llm_ext.load_format", "Where weights come from.",
		"dummy fills them with random numbers, to measure speed with only a "
		"configuration at hand.",
		&llm_setting_load_format, "auto", PGC_SIGHUP, 0, check_load_format,
		NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.max_model_len",
		"Longest sequence, prompt and answer together, in tokens.",
		"0: the model's own limit, as far as memory allows.",
		&llm_setting_max_model_len, 0, 0, 1 << 24, PGC_SIGHUP, 0, NULL, NULL,
		NULL);
}

static void
define_executor_settings(void)
{
	DefineCustomIntVariable(
		"llm_ext.max_num_seqs", "Most sequences computed in one step.",
		"0: chosen for the device.", &llm_setting_max_num_seqs, 0, 0, 4096,
		PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.max_num_batched_tokens", "Most tokens computed in one step.",
		"0: chosen for the device.", &llm_setting_max_num_batched_tokens, 0, 0,
		1 << 20, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("llm_ext.block_size",
							"Tokens per block of the KV cache.", NULL,
							&llm_setting_block_size, 16, 16, 64, PGC_SIGHUP, 0,
							check_block_size, NULL, NULL);
	DefineCustomIntVariable("llm_ext.kv_cache_memory", "Size of the KV cache.",
							"0: chosen from the memory that is free.",
							&llm_setting_kv_cache_memory_mb, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"llm_ext.gpu_memory_utilization",
		"Share of a GPU's memory that may be in use when a model is loaded.",
		"The KV cache gets what weights and activations leave of it; "
		"fine-tuning jobs get what is left of the GPU.",
		&llm_setting_gpu_memory_utilization, 0.9, 0.01, 1, PGC_SIGHUP, 0, NULL,
		NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.num_threads", "Threads of an executor on the CPU.",
		"0: one for each core that the server may use.",
		&llm_setting_num_threads, 0, 0, 1024, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"llm_ext.enable_prefix_caching",
		"Keep computed prompt beginnings for later requests.", NULL,
		&llm_setting_enable_prefix_caching, true, PGC_SIGHUP, 0, NULL, NULL,
		NULL);
	DefineCustomBoolVariable(
		"llm_ext.deterministic",
		"Give equal requests equal answers, whatever is computed beside them.",
		"Costs some throughput: prompts and answers are computed in steps of "
		"their own.",
		&llm_setting_deterministic, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"llm_ext.enforce_eager",
		"Launch each operation on a GPU by itself, without CUDA graphs.", NULL,
		&llm_setting_enforce_eager, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"llm_ext.async_stepping",
		"Plan a step while the one before is computed.",
		"auto does so on a GPU; on the CPU it would only delay tokens.",
		&llm_setting_async_stepping, "auto", PGC_SIGHUP, 0,
		check_async_stepping, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.aging_time",
		"Waiting time that lifts a request above the next class.",
		"Interactive requests go before the rows of large statements; after "
		"this time a row is no longer overtaken.",
		&llm_setting_aging_ms, 5000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL,
		NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.load_timeout", "Longest time a model may take to load.",
		"0: no limit.", &llm_setting_load_timeout_s, 1800, 0, INT_MAX / 1000,
		PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.executor_timeout",
		"Longest silence of an executor that has requests.",
		"A busy executor reports after every step; one that does not is taken "
		"for hung, killed and started again.  0: no limit.",
		&llm_setting_executor_timeout_s, 600, 0, INT_MAX / 1000, PGC_SIGHUP,
		GUC_UNIT_S, NULL, NULL, NULL);
}

static const struct config_enum_entry on_error_choices[] = {
	{ "error", LLM_ON_ERROR_ERROR, false },
	{ "null", LLM_ON_ERROR_NULL, false },
	{ NULL, 0, false }
};

static void
define_request_settings(void)
{
	DefineCustomBoolVariable(
		"llm_ext.queue_wait",
		"Wait for room where too many requests are in flight.",
		"Off: raise an error at once.", &llm_setting_queue_wait, true,
		PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("llm_ext.request_timeout",
							"Longest time one request may take.",
							"0: no limit besides statement_timeout.",
							&llm_setting_request_timeout_ms, 0, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.max_requests_per_backend",
		"Most requests that one session may have in flight.", NULL,
		&llm_setting_max_requests_per_backend, 512, 1, 65536, PGC_SUSET, 0,
		NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.max_tokens_per_statement",
		"Most tokens, of prompts and answers, that one statement may use.",
		"0: no limit.", &llm_setting_max_tokens_per_statement, 0, 0, INT_MAX,
		PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable(
		"llm_ext.on_error", "What becomes of a row that fails.",
		"error ends the statement; null makes it NULL, with a warning.  The "
		"option on_error of a call goes first.",
		&llm_setting_on_error, LLM_ON_ERROR_ERROR, on_error_choices,
		PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.debug_crash_token",
		"Token id that makes an executor crash, to test its restart.",
		"-1: off.  Used when a model is loaded.",
		&llm_setting_debug_crash_token, -1, -1, INT_MAX, PGC_SUSET,
		GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
}

static void
define_adapter_settings(void)
{
	DefineCustomStringVariable(
		"llm_ext.tenant", "Tenant whose route chooses the adapter.",
		"Used where a call names no adapter; see llm_set_route.",
		&llm_setting_tenant, "", PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.max_loras", "Adapters that one step may use at once.",
		"Each has a slot in the executor's memory.  0: no adapters are served.",
		&llm_setting_max_loras, 8, 0, 1024, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.max_lora_rank", "Largest rank of adapters that are served.",
		"Slots are made for it.", &llm_setting_max_lora_rank, 16, 1, 512,
		PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.max_cpu_loras",
		"Adapters that an executor keeps ready in the host's memory.",
		"0: chosen.", &llm_setting_max_cpu_loras, 0, 0, 1 << 20, PGC_SIGHUP, 0,
		NULL, NULL, NULL);
	DefineCustomIntVariable("llm_ext.max_adapter_size",
							"Largest adapter that may be registered.", NULL,
							&llm_setting_max_adapter_size_mb, 1024, 1, 65536,
							PGC_SUSET, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"llm_ext.adapter_cache_size",
		"Size of the folder from which executors read adapters.",
		"Files beyond it go, least recently used first, and are made again "
		"from the tables when they are asked for.",
		&llm_setting_adapter_cache_mb, 16384, 1, INT_MAX / 2, PGC_SIGHUP,
		GUC_UNIT_MB, NULL, NULL, NULL);
}

/* Plans that were kept were made for the old value. */
static void
assign_plan_setting(bool value, void *extra)
{
	if (IsUnderPostmaster)
		ResetPlanCache();
}

static void
define_batch_settings(void)
{
	DefineCustomBoolVariable(
		"llm_ext.enable_batching",
		"Run the calls of a statement's rows side by side.",
		"Off: one after the other, as PostgreSQL does by itself.",
		&llm_setting_enable_batching, true, PGC_USERSET, GUC_EXPLAIN, NULL,
		assign_plan_setting, NULL);
	DefineCustomIntVariable(
		"llm_ext.batch_rows",
		"Most calls that one node of a plan keeps in flight.",
		"1: one after the other.", &llm_setting_batch_rows, 256, 1, 8192,
		PGC_USERSET, GUC_EXPLAIN, NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"llm_ext.debug_wrap_plans",
		"Batch PostgreSQL's own functions too, in every plan.",
		"To test batched execution with PostgreSQL's regression tests.",
		&llm_setting_debug_wrap_plans, false, PGC_SUSET, GUC_NOT_IN_SAMPLE,
		NULL, assign_plan_setting, NULL);
}

void
llm_settings_define(void)
{
	define_adapter_settings();
	define_model_settings();
	define_executor_settings();
	define_request_settings();
	define_batch_settings();
	/* later is too late for some; without preloading nobody reads them */
	if (!process_shared_preload_libraries_in_progress)
		return;
	define_postmaster_settings();
	MarkGUCPrefixReserved("llm_ext");
}
