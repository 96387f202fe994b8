/*
 * cpu_train_portable.c
 *	  The kernels of training: plain C.
 *
 * src/engine/compute/cpu_train_portable.c
 */
#define GEMM_ROWS 4
#define GEMM_VECTORS 1

#include "src/engine/compute/cpu_train_body.h"

const LlmCpuTrainKernels llm_cpu_train_portable = TRAIN_KERNELS;
