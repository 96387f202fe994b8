/*
 * cpu_lora_avx2.c
 *	  Adapters: AVX2, FMA and F16C.
 *
 * src/engine/compute/cpu_lora_avx2.c
 */
#define LORA_ROWS 1

#include "src/engine/compute/cpu_lora_body.h"

const LlmCpuLoraKernels llm_cpu_lora_avx2 = LORA_KERNELS;
