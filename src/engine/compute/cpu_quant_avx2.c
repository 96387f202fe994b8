/*
 * cpu_quant_avx2.c
 *	  Products with quantized weights: AVX2 and FMA.
 *
 * src/engine/compute/cpu_quant_avx2.c
 */
#define TILE_X 3

#include "src/engine/compute/cpu_quant_body.h"

const LlmCpuQuantKernels llm_cpu_quant_avx2 = QUANT_KERNELS;
