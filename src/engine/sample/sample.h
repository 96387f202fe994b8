/*
 * sample.h
 *	  What one request wants done with its logits: rows for the compute
 *	  table's sample operation, and when a token ends the request.
 *
 * The operation itself is a kernel (compute.h); here is the bookkeeping
 * around it.  A sampler owns copies of all its arrays, so that rows can
 * borrow them for as long as the request lives.
 *
 * src/engine/sample/sample.h
 */
#ifndef LLM_SAMPLE_H
#define LLM_SAMPLE_H

#include "src/common/ipc/ipc_message.h"
#include "src/common/util/error.h"
#include "src/engine/compute/compute.h"

typedef struct LlmSampler LlmSampler;

typedef struct LlmSamplerSpec
{
	LlmSamplingParams params;
	const int32_t *eos_ids; /* the model's own stop ids; copied */
	int32_t n_eos_ids;
	const int32_t *stop_ids; /* the request's; copied */
	int32_t n_stop_ids;
	const LlmLogitBias *bias; /* copied; an id at most once */
	int32_t n_bias;
	int32_t n_prompt;
	int32_t max_model_len;
	int32_t n_vocab;
} LlmSamplerSpec;

/*
 * NULL: LLM_ERROR_INVALID for parameters out of range, stop or bias ids
 * outside the vocabulary; LLM_ERROR_NO_MEMORY.
 */
extern LlmSampler *
llm_sampler_create(const LlmSamplerSpec *spec, LlmError *err);

/* NULL is allowed. */
extern void llm_sampler_free(LlmSampler *sampler);

/*
 * Prepare the row that draws the token after n_output generated ones.  The
 * row borrows the ids given and the sampler's arrays.  Stop and eos ids are
 * forbidden while n_output < min_tokens (eos ids also under ignore_eos, as
 * in vLLM).
 */
extern void
llm_sampler_fill_row(const LlmSampler *sampler, const int32_t *prompt_ids,
					 int32_t n_prompt, const int32_t *output_ids,
					 int32_t n_output, LlmSampleRow *row);

/*
 * Does a token end the request?  n_output counts it.  LLM_FINISH_STOP wins
 * over LLM_FINISH_LENGTH where both apply.
 */
extern LlmFinishReason
llm_sampler_finish_reason(const LlmSampler *sampler, int32_t token_id,
						  int32_t n_output);

/* -1: this request wants no log-probabilities; else how many alternatives. */
extern int32_t llm_sampler_n_logprobs(const LlmSampler *sampler);

#endif /* LLM_SAMPLE_H */
