/*
 * cpu_train_avx2.c
 *	  The kernels of training: AVX2.
 *
 * src/engine/compute/cpu_train_avx2.c
 */
#define GEMM_ROWS 6
#define GEMM_VECTORS 1

#include "src/engine/compute/cpu_train_body.h"

const LlmCpuTrainKernels llm_cpu_train_avx2 = TRAIN_KERNELS;
