/*
 * cpu_attention_avx512.c
 *	  Attention over a chunk of the cache: AVX-512.
 *
 * src/engine/compute/cpu_attention_avx512.c
 */
#include "src/engine/compute/cpu_attention_body.h"

const LlmCpuAttentionKernels llm_cpu_attention_avx512 = ATTENTION_KERNELS;
