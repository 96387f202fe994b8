/*
 * cpu_train_avx512.c
 *	  The kernels of training: AVX-512.
 *
 * src/engine/compute/cpu_train_avx512.c
 */
#define GEMM_ROWS 12
#define GEMM_VECTORS 2

#include "src/engine/compute/cpu_train_body.h"

const LlmCpuTrainKernels llm_cpu_train_avx512 = TRAIN_KERNELS;
