/*
 * cpu_lora_portable.c
 *	  Adapters: portable C.
 *
 * src/engine/compute/cpu_lora_portable.c
 */
#define LORA_ROWS 1

#include "src/engine/compute/cpu_lora_body.h"

const LlmCpuLoraKernels llm_cpu_lora_portable = LORA_KERNELS;
