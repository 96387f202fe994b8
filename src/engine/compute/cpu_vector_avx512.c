/*
 * cpu_vector_avx512.c
 *	  Kernels over one vector: AVX-512.
 *
 * src/engine/compute/cpu_vector_avx512.c
 */
#include "src/engine/compute/cpu_vector_body.h"

const LlmCpuVectorKernels llm_cpu_vector_avx512 = VECTOR_KERNELS;
