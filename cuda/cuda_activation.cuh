/*
 * cuda_activation.cuh
 *	  Activations of gated MLPs.
 *
 * cuda/cuda_activation.cuh
 */
#ifndef LLM_CUDA_ACTIVATION_CUH
#define LLM_CUDA_ACTIVATION_CUH

#include "cuda/cuda_internal.cuh"

/* Within some 100 ulp of f32 where x is far below 0; bf16's half is 32,768. */
static __device__ __forceinline__ float
logistic(float x)
{
	return __fdividef(1.0f, 1.0f + __expf(-x));
}

static __device__ __forceinline__ float
activate(LlmActivation kind, float x)
{
	if (kind == LLM_ACTIVATION_SILU)
		return x * logistic(x);
	if (kind == LLM_ACTIVATION_GELU)
		return 0.5f * x * erfcf(-x * 0.70710678f);
	/* (1 + tanh(y)) / 2 = logistic(2 y) */
	return x * logistic(1.59576912f * (x + 0.044715f * x * x * x));
}

/* Beyond these the limits, which 0 * inf would spoil. */
static __device__ __forceinline__ float
gate(LlmActivation kind, float x)
{
	return x < -1e4f ? 0.0f : activate(kind, x);
}

/*
 * The instance of a kernel for an activation: unrolled code of all of them is
 * long, and one is needed.
 */
#define ACTIVATION_INSTANCE(kernel, kind)                          \
	((kind) == LLM_ACTIVATION_SILU	 ? kernel<LLM_ACTIVATION_SILU> \
	 : (kind) == LLM_ACTIVATION_GELU ? kernel<LLM_ACTIVATION_GELU> \
									 : kernel<LLM_ACTIVATION_GELU_TANH>)

#endif /* LLM_CUDA_ACTIVATION_CUH */
