/*
 * cuda_attention_expand.cu
 *	  The contexts of a step's prompts from 8-bit codes to bf16, once for a
 *	  layer, where scratch memory holds them.
 *
 * The prefill kernel reads a context again for every tile of queries, and
 * expanding codes each time would keep it from the tensor cores' speed.  What
 * is made here is a cache like any other, in blocks of 16 tokens.
 *
 * cuda/cuda_attention_expand.cu
 */
#include "cuda/cuda_code.cuh"

#define EXPAND_THREADS 128
#define EXPAND_GROUPS 8 /* of a block of threads */

typedef struct ExpandParams
{
	AttentionParams from;
	char *keys; /* bf16 */
	char *values;
	int32_t *tables; /* [any, from.table_stride] */
	const int32_t *seqs;
	const int32_t *first_groups; /* [n_prefill_seqs] */
} ExpandParams;

/*
 * 16 tokens' dimensions 8 i .. 8 i + 7 of values, which lie along tokens, to
 * matrices of 8 tokens by 8 dimensions.
 */
template <int DIM>
static __device__ __forceinline__ void
turn_values(bool is_e4m3, const char *codes, const char *units, int i,
			bf16 *group)
{
	uint32_t words[8][4];
	const uint4 own = *(const uint4 *) units;
	const uint32_t all[4] = { own.x, own.y, own.z, own.w };

#pragma unroll
	for (int d = 0; d < 8; d++)
	{
		uint4 row = *(const uint4 *) (codes + (8 * i + d) * 16);

		words[d][0] = row.x;
		words[d][1] = row.y;
		words[d][2] = row.z;
		words[d][3] = row.w;
	}
#pragma unroll
	for (int t = 0; t < CODE_GROUP; t++)
	{
		const int shift = (t / 8 * 2 + t % 2) * 8;
		float unit = unit_value(all[t / 4] >> t % 4 * 8 & 0xff);
		uint32_t out[4];

#pragma unroll
		for (int k = 0; k < 4; k++)
		{
			uint32_t low = words[2 * k][t % 8 / 2] >> shift & 0xff;
			uint32_t high = words[2 * k + 1][t % 8 / 2] >> shift & 0xff;

			out[k] = codes_to_bf16(is_e4m3, high << 8 | low, unit, unit);
		}
		*(uint4 *) (group + t / 8 * 8 * DIM + i * 64 + t % 8 * 8) =
			make_uint4(out[0], out[1], out[2], out[3]);
	}
}

/* Grid: groups by EXPAND_GROUPS, kv heads, sequences. */
template <int DIM>
static __global__ void
__launch_bounds__(EXPAND_THREADS)
	expand_context(const __grid_constant__ ExpandParams p)
{
	const AttentionParams &from = p.from;
	const bool is_e4m3 = from.kv_dtype == LLM_DTYPE_FP8_E4M3;
	const int32_t seq = p.seqs[blockIdx.z];
	const int32_t n_groups =
		(from.context_len[seq] + CODE_GROUP - 1) / CODE_GROUP;
	const int32_t first = p.first_groups[blockIdx.z];
	const int32_t *table =
		from.block_tables + (int64_t) seq * from.table_stride;
	const int32_t mask = (1 << from.block_shift) - 1;
	const int n_pieces = DIM + DIM / 8; /* of a group: keys, then values */

	for (int i = (int) threadIdx.x; i < EXPAND_GROUPS * n_pieces;
		 i += EXPAND_THREADS)
	{
		const bool is_key = i < EXPAND_GROUPS * DIM;
		const int j = is_key ? i : i - EXPAND_GROUPS * DIM;
		const int of_group = is_key ? DIM : DIM / 8;
		int32_t group = (int32_t) blockIdx.x * EXPAND_GROUPS + j / of_group;
		int32_t key = group * CODE_GROUP;
		const char *head;
		int64_t dest;

		if (group >= n_groups)
			continue;
		head = (is_key ? from.keys : from.values) +
			   ((int64_t) table[key >> from.block_shift] * from.n_kv_heads +
				blockIdx.y) *
				   from.head_bytes;
		dest = ((int64_t) (first + group) * from.n_kv_heads + blockIdx.y) *
			   CODE_GROUP * DIM;
		if (is_key)
			expand_key_piece<DIM>(is_e4m3,
								  head + (key & mask) * DIM + j % DIM * 16,
								  head + (mask + 1) * DIM + (key & mask),
								  j % DIM, (bf16 *) p.keys + dest);
		else
			turn_values<DIM>(is_e4m3, head + (key & mask) * DIM,
							 head + (mask + 1) * DIM + (key & mask),
							 j % of_group, (bf16 *) p.values + dest);
		if (blockIdx.y == 0 && j % of_group == 0)
			p.tables[(int64_t) seq * from.table_stride + group] = first + group;
	}
}

template <int DIM>
static bool
launch(LlmCuda *cuda, const ExpandParams &p, LlmError *err)
{
	const StepPlan *plan = &cuda->plan;
	dim3 grid((unsigned) ceil_div(plan->max_prefill_groups, EXPAND_GROUPS),
			  (unsigned) p.from.n_kv_heads, (unsigned) plan->n_prefill_seqs);

	expand_context<DIM><<<grid, EXPAND_THREADS, 0, cuda->stream>>>(p);
	return cuda_launched("expansion of prompts' contexts", err);
}

bool
cuda_attention_expand(LlmCuda *cuda, AttentionParams *params,
					  int32_t padded_dim, LlmError *err)
{
	const StepPlan *plan = &cuda->plan;
	size_t half_bytes = (size_t) plan->n_prefill_groups *
						(size_t) params->n_kv_heads * CODE_GROUP *
						(size_t) padded_dim * sizeof(bf16);
	ExpandParams p = { *params };
	bool ok;

	if (!llm_dtype_is_coded(params->kv_dtype) ||
		2 * half_bytes > cuda->options.kv_expand_bytes)
		return true;
	p.keys = cuda->expanded;
	p.values = cuda->expanded + half_bytes;
	p.tables = cuda->expanded_tables;
	p.seqs = plan->prefill_seqs;
	p.first_groups = plan->first_groups;
	switch (padded_dim)
	{
		case 64:
			ok = launch<64>(cuda, p, err);
			break;
		case 96:
			ok = launch<96>(cuda, p, err);
			break;
		case 128:
			ok = launch<128>(cuda, p, err);
			break;
		default:
			ok = launch<256>(cuda, p, err);
			break;
	}
	params->keys = p.keys;
	params->values = p.values;
	params->kv_dtype = LLM_DTYPE_BF16;
	params->head_bytes = CODE_GROUP * padded_dim * (int32_t) sizeof(bf16);
	params->block_tables = p.tables;
	params->block_shift = 4;
	return ok;
}

bool
cuda_attention_expand_open(LlmCuda *cuda, LlmError *err)
{
	const LlmComputeOptions *options = &cuda->options;

	if (options->kv_expand_bytes == 0)
		return true;
	cuda->expanded = (char *) cuda_alloc(&cuda->base, options->kv_expand_bytes,
										 "expanded keys and values", err);
	cuda->expanded_tables = (int32_t *) cuda_alloc(
		&cuda->base, cuda_table_bytes(options), "block tables", err);
	return cuda->expanded != NULL && cuda->expanded_tables != NULL;
}

void
cuda_attention_expand_close(LlmCuda *cuda)
{
	cuda_free(&cuda->base, cuda->expanded);
	cuda_free(&cuda->base, cuda->expanded_tables);
}
