/*
 * cpu_vector_avx2.c
 *	  Kernels over one vector: AVX2, FMA and F16C.
 *
 * src/engine/compute/cpu_vector_avx2.c
 */
#include "src/engine/compute/cpu_vector_body.h"

const LlmCpuVectorKernels llm_cpu_vector_avx2 = VECTOR_KERNELS;
