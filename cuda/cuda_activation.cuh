/*
 * cuda_activation.cuh
 *	  Activations of gated MLPs.
 *
 * cuda/cuda_activation.cuh
 */
#ifndef LLM_CUDA_ACTIVATION_CUH
#define LLM_CUDA_ACTIVATION_CUH

#include "cuda/cuda_internal.cuh"

static __device__ __forceinline__ float
activate(LlmActivation kind, float x)
{
	if (kind == LLM_ACTIVATION_SILU)
		return x / (1.0f + expf(-x));
	if (kind == LLM_ACTIVATION_GELU)
		return 0.5f * x * erfcf(-x * 0.70710678f);
	return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
}

/* Beyond these the limits, which 0 * inf would spoil. */
static __device__ __forceinline__ float
gate(LlmActivation kind, float x)
{
	return x < -1e4f ? 0.0f : activate(kind, x);
}

#endif /* LLM_CUDA_ACTIVATION_CUH */
