/*
 * cuda_moe.cu
 *	  A mixture of experts, row by row.
 *
 * A warp computes one inner value of one chosen expert of one row, and then
 * one output of a row: right for decoding, where each expert is read about
 * once; long prompts read experts again for each row.  Addresses of a layer's
 * experts are sent to the device once.
 *
 * cuda/cuda_moe.cu
 */
#include "cuda/cuda_activation.cuh"

#include <stdlib.h>
#include <string.h>

#define MOE_WARPS 8
#define MAX_TOP 32
#define MAX_TABLES 512

/* The experts of a layer; on the device [3, n_experts]: gate, up, down. */
struct ExpertTable
{
	LlmMatrix *copy;	 /* host: what was sent */
	LlmMatrix *matrices; /* device */
	size_t list_bytes;	 /* of each third */
};

typedef struct Chosen
{
	int32_t expert;
	float weight;
} Chosen;

typedef struct MoeParams
{
	LlmMoeArgs args;
	const LlmMatrix *matrices;
	Chosen *chosen; /* [n_rows, n_top] ascending experts */
	float *inner;	/* [n_rows, n_top, inner_dim] */
} MoeParams;

bool
cuda_moe_open(LlmCuda *cuda, LlmError *err)
{
	const LlmComputeOptions *options = &cuda->options;
	size_t n_top = (size_t) options->max_experts_per_token;

	if (options->max_experts == 0)
		return true;
	cuda->experts = (ExpertTable *) calloc(MAX_TABLES, sizeof(ExpertTable));
	if (cuda->experts == NULL)
		return llm_error_no_memory(err, MAX_TABLES * sizeof(ExpertTable),
								   "experts");
	cuda->expert_scratch = (float *) cuda_alloc(
		&cuda->base,
		(size_t) options->max_rows * n_top *
			(sizeof(Chosen) + (size_t) options->max_expert_dim * sizeof(float)),
		"the activations of experts", err);
	return cuda->expert_scratch != NULL;
}

void
cuda_moe_close(LlmCuda *cuda)
{
	for (int i = 0; cuda->experts != NULL && i < MAX_TABLES; i++)
	{
		cuda_free(&cuda->base, cuda->experts[i].matrices);
		free(cuda->experts[i].copy);
	}
	free(cuda->experts);
	cuda_free(&cuda->base, cuda->expert_scratch);
}

/* Softmax over all experts, the n_top most probable ones; a warp per row. */
static __global__ void
choose_experts(const __grid_constant__ MoeParams p)
{
	const LlmMoeArgs &args = p.args;
	const float *logits =
		args.router_logits + (int64_t) blockIdx.x * args.n_experts;
	Chosen *chosen = p.chosen + (int64_t) blockIdx.x * args.n_top;
	const int lane = (int) threadIdx.x;
	int32_t picked[MAX_TOP];
	float probability[MAX_TOP];
	float max = -INFINITY;
	float sum = 0;
	float kept = 0;

	for (int32_t e = lane; e < args.n_experts; e += WARP)
		max = fmaxf(max, logits[e]);
	for (int offset = WARP / 2; offset > 0; offset /= 2)
		max = fmaxf(max, __shfl_xor_sync(FULL_MASK, max, offset));
	for (int32_t e = lane; e < args.n_experts; e += WARP)
		sum += expf(logits[e] - max);
	sum = warp_sum(sum);
	for (int32_t k = 0; k < args.n_top; k++)
	{
		float best = -INFINITY;
		int32_t best_expert = INT32_MAX;

		for (int32_t e = lane; e < args.n_experts; e += WARP)
		{
			/* what is not a number comes last; sum tells of it */
			float logit = isnan(logits[e]) ? -INFINITY : logits[e];
			bool is_taken = false;

			for (int32_t j = 0; j < k; j++)
				is_taken = is_taken || picked[j] == e;
			if (!is_taken && (logit > best || best_expert == INT32_MAX))
			{
				best = logit;
				best_expert = e;
			}
		}
		for (int offset = WARP / 2; offset > 0; offset /= 2)
		{
			float other = __shfl_xor_sync(FULL_MASK, best, offset);
			int32_t other_expert =
				__shfl_xor_sync(FULL_MASK, best_expert, offset);

			if (other > best || (other == best && other_expert < best_expert))
			{
				best = other;
				best_expert = other_expert;
			}
		}
		assert(best_expert < args.n_experts);
		picked[k] = best_expert;
		probability[k] = expf(best - max) / sum;
		kept += probability[k];
	}
	if (lane != 0)
		return;
	for (int32_t k = 0; k < args.n_top; k++)
	{
		int32_t place = 0;

		for (int32_t j = 0; j < args.n_top; j++)
			place += picked[j] < picked[k];
		chosen[place] = { picked[k], args.renormalize ? probability[k] / kept
													  : probability[k] };
	}
}

/* Grid: row and expert, inner values; a warp for each. */
static __global__ void
expert_inner(const __grid_constant__ MoeParams p)
{
	const LlmMoeArgs &args = p.args;
	const int lane = (int) threadIdx.x % WARP;
	const int64_t pair = blockIdx.x;
	const int64_t i = (int64_t) blockIdx.y * MOE_WARPS + threadIdx.x / WARP;
	const bf16 *x = (const bf16 *) args.x + pair / args.n_top * args.dim;
	const LlmMatrix *gates;
	const LlmMatrix *up;
	float gated = 0;
	float upped = 0;

	if (i >= args.inner_dim)
		return;
	gates = &p.matrices[p.chosen[pair].expert];
	up = gates + args.n_experts;
	for (int64_t k = lane; k < args.dim; k += WARP)
	{
		float value = __bfloat162float(x[k]);

		gated +=
			value * load_float(gates->data, gates->dtype, i * args.dim + k);
		upped += value * load_float(up->data, up->dtype, i * args.dim + k);
	}
	gated = warp_sum(gated);
	upped = warp_sum(upped);
	if (lane == 0)
		p.inner[pair * args.inner_dim + i] =
			gate(args.activation, gated) * upped;
}

/* Grid: rows, outputs; a warp for each. */
static __global__ void
expert_outputs(const __grid_constant__ MoeParams p)
{
	const LlmMoeArgs &args = p.args;
	const int lane = (int) threadIdx.x % WARP;
	const int64_t row = blockIdx.x;
	const int64_t i = (int64_t) blockIdx.y * MOE_WARPS + threadIdx.x / WARP;
	float out = 0;

	if (i >= args.dim)
		return;
	for (int32_t k = 0; k < args.n_top; k++)
	{
		const int64_t pair = row * args.n_top + k;
		const LlmMatrix *down =
			&p.matrices[2 * args.n_experts + p.chosen[pair].expert];
		float sum = 0;

		for (int64_t j = lane; j < args.inner_dim; j += WARP)
			sum += p.inner[pair * args.inner_dim + j] *
				   load_float(down->data, down->dtype, i * args.inner_dim + j);
		out += p.chosen[pair].weight * warp_sum(sum);
	}
	if (lane == 0)
		((bf16 *) args.out)[row * args.dim + i] = __float2bfloat16(out);
}

static bool
holds(const ExpertTable *table, const LlmMoeArgs *args, size_t list_bytes)
{
	return table->list_bytes == list_bytes &&
		   memcmp(table->copy, args->gate, list_bytes) == 0 &&
		   memcmp(table->copy + args->n_experts, args->up, list_bytes) == 0 &&
		   memcmp(table->copy + 2 * args->n_experts, args->down, list_bytes) ==
			   0;
}

/* Send a layer's experts to the device. */
static bool
fill_table(LlmCuda *cuda, ExpertTable *table, const LlmMoeArgs *args,
		   size_t list_bytes, LlmError *err)
{
	table->copy = (LlmMatrix *) malloc(3 * list_bytes);
	if (table->copy == NULL)
		return llm_error_no_memory(err, 3 * list_bytes, "a list of experts");
	memcpy(table->copy, args->gate, list_bytes);
	memcpy(table->copy + args->n_experts, args->up, list_bytes);
	memcpy(table->copy + 2 * args->n_experts, args->down, list_bytes);
	table->matrices = (LlmMatrix *) cuda_alloc(&cuda->base, 3 * list_bytes,
											   "a list of experts", err);
	if (table->matrices == NULL ||
		!cuda_write(&cuda->base, table->matrices, table->copy, 3 * list_bytes,
					err))
		return false;
	table->list_bytes = list_bytes;
	return true;
}

/* The layer's table on the device, sent there at its first use. */
static const LlmMatrix *
find_table(LlmCuda *cuda, const LlmMoeArgs *args, LlmError *err)
{
	size_t list_bytes = (size_t) args->n_experts * sizeof(LlmMatrix);
	ExpertTable *table = cuda->experts;

	assert(cuda->experts != NULL);
	for (; table < cuda->experts + MAX_TABLES; table++)
	{
		if (table->list_bytes == 0)
			return fill_table(cuda, table, args, list_bytes, err)
					   ? table->matrices
					   : NULL;
		if (holds(table, args, list_bytes))
			return table->matrices;
	}
	llm_error_set(err, LLM_ERROR_LIMIT,
				  "more than %d layers of experts are not supported",
				  MAX_TABLES);
	return NULL;
}

bool
cuda_moe(LlmCompute *compute, const LlmMoeArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	MoeParams params = { *args };
	int64_t n_pairs = (int64_t) args->n_rows * args->n_top;
	dim3 inner_grid((unsigned) n_pairs,
					(unsigned) ceil_div(args->inner_dim, MOE_WARPS));
	dim3 out_grid((unsigned) args->n_rows,
				  (unsigned) ceil_div(args->dim, MOE_WARPS));

	if (args->n_rows == 0)
		return true;
	if (!cuda_lora_settle(cuda, err))
		return false;
	assert(args->n_top <= MAX_TOP);
	assert(llm_dtype_is_float(args->gate[0].dtype));
	params.matrices = find_table(cuda, args, err);
	if (params.matrices == NULL)
		return false;
	params.chosen = (Chosen *) cuda->expert_scratch;
	params.inner = (float *) (params.chosen + n_pairs);
	choose_experts<<<(unsigned) args->n_rows, WARP, 0, cuda->stream>>>(params);
	if (!cuda_launched("choice of experts", err))
		return false;
	expert_inner<<<inner_grid, MOE_WARPS * WARP, 0, cuda->stream>>>(params);
	if (!cuda_launched("experts", err))
		return false;
	expert_outputs<<<out_grid, MOE_WARPS * WARP, 0, cuda->stream>>>(params);
	return cuda_launched("experts", err);
}
