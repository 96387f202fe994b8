/*
 * cpu_rope_kv.c
 *	  Head norms, rotary embedding, and the write to the cache.
 *
 * src/engine/compute/cpu_rope_kv.c
 */
#include <assert.h>

#include "src/engine/compute/cpu_internal.h"

/* Below so many values one thread is done before another has woken up. */
#define PARALLEL_VALUES 16384

typedef struct RopeJob
{
	const LlmCpu *cpu;
	const LlmRopeKvArgs *args;
} RopeJob;

/* All heads of one token of q or k, in place. */
static void
rotate_heads(const RopeJob *job, float *heads, int32_t n_heads,
			 const LlmVector *norm, const float *cos_sin)
{
	const LlmRopeKvArgs *args = job->args;
	LlmRmsNormArgs norm_args = {
		.weight = *norm,
		.dim = args->head_dim,
		.eps = args->norm_eps,
		.weight_offset = args->norm_weight_offset,
	};

	for (int32_t h = 0; h < n_heads; h++)
	{
		float *head = heads + (int64_t) h * args->head_dim;

		if (norm->data != NULL)
			job->cpu->vector.rms_norm(&norm_args, head, NULL, head);
		if (args->rotary_dim > 0)
			job->cpu->vector.rope(head, cos_sin, args->rotary_dim,
								  args->interleaved);
	}
}

static void
write_token(const LlmRopeKvArgs *args, int32_t token)
{
	const LlmStepInputs *step = args->step;
	int32_t position = step->positions[token];
	int32_t seq = step->token_seq[token];
	int32_t block_size = args->kv->spec.block_size;
	int32_t block =
		step->block_tables[(int64_t) seq * step->max_blocks_per_seq +
						   position / block_size];
	const float *k = (const float *) args->k + token * args->k_stride;
	const float *v = (const float *) args->v + token * args->v_stride;

	assert(position >= 0 && position / block_size < step->max_blocks_per_seq);
	for (int32_t h = 0; h < args->n_kv_heads; h++)
		llm_cpu_kv_write(
			args->kv, llm_cpu_kv_k(args->kv, args->layer_idx, block, h),
			llm_cpu_kv_v(args->kv, args->layer_idx, block, h),
			position % block_size, k + (int64_t) h * args->head_dim,
			v + (int64_t) h * args->head_dim);
}

static void
rope_job(void *arg, int thread_idx, int n_threads)
{
	const RopeJob *job = arg;
	const LlmRopeKvArgs *args = job->args;
	int64_t begin;
	int64_t end;

	llm_cpu_share(args->step->n_tokens, 1, thread_idx, n_threads, &begin, &end);
	for (int64_t token = begin; token < end; token++)
	{
		const float *cos_sin = NULL;

		if (args->rotary_dim > 0)
			cos_sin = args->cos_sin +
					  (int64_t) args->step->rope_rows[token] * args->rotary_dim;
		rotate_heads(job, (float *) args->q + token * args->q_stride,
					 args->n_heads, &args->q_norm, cos_sin);
		rotate_heads(job, (float *) args->k + token * args->k_stride,
					 args->n_kv_heads, &args->k_norm, cos_sin);
		write_token(args, (int32_t) token);
	}
}

bool
llm_cpu_rope_kv(LlmCompute *compute, const LlmRopeKvArgs *args, LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	RopeJob job = { .cpu = cpu, .args = args };
	int64_t n_values = (int64_t) args->step->n_tokens *
					   (args->n_heads + 2 * args->n_kv_heads) * args->head_dim;

	(void) err;
	assert(args->rotary_dim % 2 == 0 && args->rotary_dim <= args->head_dim);
	assert(args->kv->spec.head_dim == args->head_dim);
	assert(args->kv->spec.n_kv_heads == args->n_kv_heads);
	if (n_values < PARALLEL_VALUES)
		rope_job(&job, 0, 1);
	else
		llm_cpu_threads_run(cpu->threads, rope_job, &job);
	return true;
}
