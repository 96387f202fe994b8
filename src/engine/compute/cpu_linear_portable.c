/*
 * cpu_linear_portable.c
 *	  Matrix products: plain C.
 *
 * src/engine/compute/cpu_linear_portable.c
 */
#define TILE_W 2
#define TILE_X 1

#include "src/engine/compute/cpu_linear_body.h"

const LlmCpuLinearKernels llm_cpu_linear_portable = LINEAR_KERNELS;
