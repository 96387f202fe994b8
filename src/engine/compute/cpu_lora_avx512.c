/*
 * cpu_lora_avx512.c
 *	  Adapters: AVX-512.
 *
 * src/engine/compute/cpu_lora_avx512.c
 */
#define LORA_ROWS 4

#include "src/engine/compute/cpu_lora_body.h"

const LlmCpuLoraKernels llm_cpu_lora_avx512 = LORA_KERNELS;
