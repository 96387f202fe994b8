/*
 * settings.h
 *	  Every llm_ext.* setting.
 *
 * src/server/settings.h
 */
#ifndef LLM_SETTINGS_H
#define LLM_SETTINGS_H

#include "postgres.h"

/* What becomes of a row that fails. */
typedef enum LlmOnError
{
	LLM_ON_ERROR_ERROR, /* the statement fails */
	LLM_ON_ERROR_NULL	/* NULL, and a warning */
} LlmOnError;

/* PGC_POSTMASTER; not defined where the library is not preloaded */
extern char *llm_setting_executor_path; /* '' = llm_executor in pkglibdir */
extern int llm_setting_max_requests;	/* request slots */
extern int llm_setting_max_models;
extern int llm_setting_max_finetune_jobs; /* running; 0 = none */

/* PGC_SIGHUP: used when an executor is started */
extern char *llm_setting_model;		 /* directory loaded at start; '' = none */
extern char *llm_setting_model_name; /* '' = the directory's last part */
extern char *llm_setting_device;	 /* auto | cpu | cuda */
extern char *llm_setting_dtype;		 /* auto | float32 | bfloat16 | float16 */
extern char *llm_setting_kv_cache_dtype; /* auto | float32 | bfloat16 |
										  * fp8 | int8 */
extern char *llm_setting_quantization;	 /* none | int8 | int4 */
extern char *llm_setting_load_format;	 /* auto | dummy */
extern int llm_setting_max_model_len;	 /* 0 = the model's own, bounded by
										 * memory */
extern int llm_setting_max_num_seqs;
extern int llm_setting_max_num_batched_tokens;
extern int llm_setting_block_size;
extern int llm_setting_kv_cache_memory_mb;		  /* 0 = chosen */
extern double llm_setting_gpu_memory_utilization; /* share of all of it */
extern int llm_setting_num_threads; /* 0 = all that the server may use */
extern bool llm_setting_enable_prefix_caching;
extern bool llm_setting_deterministic;
extern bool llm_setting_enforce_eager;	 /* no CUDA graphs */
extern char *llm_setting_async_stepping; /* auto | on | off */
extern int llm_setting_aging_ms;
extern int llm_setting_max_loras;
extern int llm_setting_max_lora_rank;
extern int llm_setting_max_cpu_loras; /* 0 = chosen */
extern int llm_setting_adapter_cache_mb;
extern int llm_setting_load_timeout_s;	   /* 0 = none */
extern int llm_setting_executor_timeout_s; /* of silence; 0 = none */

/* PGC_SUSET / PGC_USERSET */
extern char *llm_setting_tenant; /* '' = none */
extern int llm_setting_max_adapter_size_mb;
extern bool llm_setting_queue_wait;		   /* wait for a slot, or refuse */
extern int llm_setting_request_timeout_ms; /* 0 = none */
extern int llm_setting_max_requests_per_backend;
extern bool llm_setting_enable_batching;
extern int llm_setting_batch_rows;		  /* calls in flight per plan node */
extern bool llm_setting_debug_wrap_plans; /* stages everywhere */
extern int llm_setting_max_tokens_per_statement; /* 0 = no limit */
extern int llm_setting_on_error; /* LlmOnError: where options are silent */
extern int llm_setting_debug_crash_token; /* -1 = off */

/* Define all that may be defined now, and reserve the prefix. */
extern void llm_settings_define(void);

#endif /* LLM_SETTINGS_H */
