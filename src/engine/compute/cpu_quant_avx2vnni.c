/*
 * cpu_quant_avx2vnni.c
 *	  Products with quantized weights: AVX2 and AVX-VNNI.
 *
 * src/engine/compute/cpu_quant_avx2vnni.c
 */
#define TILE_X 3

#include "src/engine/compute/cpu_quant_body.h"

const LlmCpuQuantKernels llm_cpu_quant_avx2vnni = QUANT_KERNELS;
