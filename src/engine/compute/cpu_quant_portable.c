/*
 * cpu_quant_portable.c
 *	  Products with quantized weights: plain C.
 *
 * src/engine/compute/cpu_quant_portable.c
 */
#define TILE_X 1

#include "src/engine/compute/cpu_quant_body.h"

const LlmCpuQuantKernels llm_cpu_quant_portable = QUANT_KERNELS;
