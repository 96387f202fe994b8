/*
 * cpu_attention_avx2.c
 *	  Attention over a chunk of the cache: AVX2, FMA and F16C.
 *
 * src/engine/compute/cpu_attention_avx2.c
 */
#include "src/engine/compute/cpu_attention_body.h"

const LlmCpuAttentionKernels llm_cpu_attention_avx2 = ATTENTION_KERNELS;
