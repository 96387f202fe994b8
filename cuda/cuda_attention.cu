/*
 * cuda_attention.cu
 *	  The attention operation: who computes what.
 *
 * Sequences with one new token go to cuda_attention_decode.cu, the others to
 * cuda_attention_prefill.cu; a step may have both.
 *
 * cuda/cuda_attention.cu
 */
#include "cuda/cuda_internal.cuh"

static int32_t
log2_of(int32_t power)
{
	int32_t shift = 0;

	while ((1 << shift) < power)
		shift++;
	assert(1 << shift == power);
	return shift;
}

static AttentionParams
params_of(const LlmCuda *cuda, const LlmAttentionArgs *args)
{
	const LlmKvCache *kv = args->kv;
	const float log2_e = 1.4426950408889634f;
	AttentionParams params = { (const bf16 *) args->q, (bf16 *) args->out };

	params.keys = kv->data + 2 * args->layer_idx * kv->half_bytes;
	params.values = params.keys + kv->half_bytes;
	params.kv_dtype = kv->spec.dtype;
	params.head_bytes = kv->head_bytes;
	params.block_tables = args->step->block_tables;
	params.query_start = args->step->query_start;
	params.context_len = args->step->context_len;
	params.q_stride = args->q_stride;
	params.table_stride = args->step->max_blocks_per_seq;
	params.block_shift = log2_of(kv->spec.block_size);
	params.n_heads = args->n_heads;
	params.n_kv_heads = args->n_kv_heads;
	params.head_dim = args->head_dim;
	params.group = args->n_heads / args->n_kv_heads;
	params.window = args->sliding_window;
	params.scale = args->scale;
	params.scale_log2 = args->scale * log2_e;
	params.soft_cap = args->soft_cap;
	params.q_is_aligned = (uintptr_t) args->q % 16 == 0 &&
						  args->q_stride % 8 == 0 && args->head_dim % 8 == 0;
	params.partial_out = cuda->partial_out;
	params.partial_lse = cuda->partial_lse;
	return params;
}

bool
cuda_attention(LlmCompute *compute, const LlmAttentionArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	AttentionParams params = params_of(cuda, args);
	int32_t padded_dim = args->kv->padded_dim;

	assert(args->n_heads % args->n_kv_heads == 0);
	assert(args->n_heads <= cuda->options.max_heads);
	if (!cuda_lora_settle(cuda, err))
		return false;
	if (cuda->plan.n_decode_seqs > 0 &&
		!cuda_attention_decode(cuda, &params, padded_dim, err))
		return false;
	return cuda->plan.n_prefill_seqs == 0 ||
		   (cuda_attention_expand(cuda, &params, padded_dim, err) &&
			cuda_attention_prefill(cuda, &params, padded_dim, err));
}
