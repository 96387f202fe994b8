/*
 * cpu_linear_avx512.c
 *	  Matrix products: AVX-512.
 *
 * src/engine/compute/cpu_linear_avx512.c
 */
#define TILE_W 4
#define TILE_X 6

#include "src/engine/compute/cpu_linear_body.h"

const LlmCpuLinearKernels llm_cpu_linear_avx512 = LINEAR_KERNELS;
