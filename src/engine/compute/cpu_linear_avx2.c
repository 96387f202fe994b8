/*
 * cpu_linear_avx2.c
 *	  Matrix products: AVX2, FMA and F16C.
 *
 * src/engine/compute/cpu_linear_avx2.c
 */
#define TILE_W 2
#define TILE_X 3

#include "src/engine/compute/cpu_linear_body.h"

const LlmCpuLinearKernels llm_cpu_linear_avx2 = LINEAR_KERNELS;
