/*
 * model_nf4.c
 *	  Weights that become NF4, for training (QLoRA).
 *
 * As in bitsandbytes it is the projections of the layers; embedding, head,
 * norms, routers and experts stay as they are.  What a checkpoint stores fused
 * is quantized in its parts, so that each has its own offset.
 *
 * Of a checkpoint that bitsandbytes stored in NF4 already, it is those
 * projections, and experts, that it stored so, as they are to the bit.
 *
 * src/engine/model/model_nf4.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/quant/nf4.h"
#include "src/engine/compute/cpu_threads.h"
#include "src/engine/model/model_internal.h"

/* Blocks whose floats are looked at together. */
#define STAGED_BLOCKS 64

typedef struct Nf4Job
{
	WeightSource source;
	int64_t n;
	LlmNf4 weight;
	float *magnitudes; /* [n_blocks] */
} Nf4Job;

bool
model_is_nf4(const LlmModel *model, const LlmWeightSpec *spec,
			 const WeightSource *source)
{
	bool is_nested;

	if (model->options.quantization < LLM_QUANTIZATION_NF4)
		return false;
	if (model->tensors != NULL &&
		llm_checkpoint_has_nf4(model->tensors, &is_nested) &&
		source->nf4 == NULL)
		return false;
	if (source->nf4 != NULL && spec->expert_idx >= 0)
		return true;
	for (int m = 0; m < LLM_ADAPTER_LM_HEAD; m++)
	{
		if (llm_adapter_module_weight((LlmAdapterModule) m) == spec->role)
			return true;
	}
	return false;
}

static void
encode_blocks(void *arg, int thread_idx, int n_threads)
{
	const Nf4Job *job = arg;
	float floats[STAGED_BLOCKS * LLM_NF4_BLOCK];
	int64_t begin;
	int64_t end;

	llm_cpu_share(llm_nf4_n_blocks(job->n), 1, thread_idx, n_threads, &begin,
				  &end);
	for (int64_t block = begin; block < end; block += STAGED_BLOCKS)
	{
		int64_t last =
			block + STAGED_BLOCKS < end ? block + STAGED_BLOCKS : end;
		int64_t first = block * LLM_NF4_BLOCK;
		int64_t n = last * LLM_NF4_BLOCK < job->n
						? (last - block) * LLM_NF4_BLOCK
						: job->n - first;

		weight_source_fill(&job->source, first, n, floats);
		llm_nf4_encode(floats, n, job->weight.values + first / 2,
					   job->magnitudes + block);
	}
}

/* A stored weight, or the part of a fused one, as it is. */
static bool
copy_weight(const LlmWeightSpec *spec, const Nf4Job *job, LlmError *err)
{
	if (llm_nf4_stored_copy(job->source.nf4, job->source.nf4_first, job->n,
							&job->weight))
		return true;
	return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
						 "row %lld of tensor \"%s\" begins within a block of "
						 "its NF4 values, which training does not support",
						 (long long) spec->first_row, spec->name);
}

static bool
encode_weight(LlmModel *model, const LlmWeightSpec *spec, Nf4Job *job,
			  LlmError *err)
{
	LlmCpuThreads *threads;

	if (job->source.nf4 != NULL)
		return copy_weight(spec, job, err);
	threads = llm_cpu_threads_create(model->options.n_threads, err);
	if (threads == NULL)
		return false;
	llm_cpu_threads_run(threads, encode_blocks, job);
	llm_cpu_threads_free(threads);
	llm_nf4_finish(&job->weight, job->magnitudes, llm_nf4_n_blocks(job->n));
	return true;
}

bool
model_nf4_weight(LlmModel *model, const LlmWeightSpec *spec,
				 const WeightSource *source, LlmError *err)
{
	const LlmComputeOps *ops = model->compute->ops;
	const bool is_nested =
		model->options.quantization == LLM_QUANTIZATION_NF4_NESTED;
	ModelWeight *weight = model_weight_of(model, spec);
	Nf4Job job = { .source = *source, .n = spec->n_rows * spec->n_cols };
	size_t n_bytes = llm_nf4_bytes(job.n, is_nested);
	size_t n_magnitudes = (size_t) llm_nf4_n_blocks(job.n) * sizeof(float);
	void *staging = aligned_alloc(64, n_bytes);
	void *data = NULL;
	bool ok;

	job.magnitudes = malloc(n_magnitudes);
	ok = staging != NULL && job.magnitudes != NULL;
	if (!ok)
		llm_error_no_memory(err, n_bytes + n_magnitudes, "quantizing weights");
	else
	{
		job.source.dtype = LLM_DTYPE_F32;
		job.source.dummy.dtype = LLM_DTYPE_F32;
		job.weight = llm_nf4_at(staging, job.n, is_nested);
		data = ops->alloc(model->compute, n_bytes, spec->name, err);
		ok = data != NULL && encode_weight(model, spec, &job, err);
		weight->data = data;
		weight->owner = WEIGHT_ALLOCATED;
		weight->dtype = LLM_DTYPE_NF4;
	}
	ok = ok && ops->write(model->compute, data, staging, n_bytes, err) &&
		 ops->sync(model->compute, err);
	free(staging);
	free(job.magnitudes);
	return ok;
}
