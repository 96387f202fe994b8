/*
 * cpu_vector_portable.c
 *	  Kernels over one vector: plain C.
 *
 * src/engine/compute/cpu_vector_portable.c
 */
#include "src/engine/compute/cpu_vector_body.h"

const LlmCpuVectorKernels llm_cpu_vector_portable = VECTOR_KERNELS;
