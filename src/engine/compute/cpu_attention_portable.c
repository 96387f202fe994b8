/*
 * cpu_attention_portable.c
 *	  Attention over a chunk of the cache: plain C.
 *
 * src/engine/compute/cpu_attention_portable.c
 */
#include "src/engine/compute/cpu_attention_body.h"

const LlmCpuAttentionKernels llm_cpu_attention_portable = ATTENTION_KERNELS;
