/*
 * cpu_quant_avx512vnni.c
 *	  Products with quantized weights: AVX-512 VNNI.
 *
 * src/engine/compute/cpu_quant_avx512vnni.c
 */
#define TILE_X 10

#include "src/engine/compute/cpu_quant_body.h"

const LlmCpuQuantKernels llm_cpu_quant_avx512vnni = QUANT_KERNELS;
