/*
 * sample.h
 *	  A request's side of sampling: which ids are impossible now, and whether
 *	  a token ends the answer.
 *
 * The draw itself is an operation of the compute table (compute.h).
 *
 * src/engine/sample/sample.h
 */
#ifndef LLM_SAMPLE_H
#define LLM_SAMPLE_H

#include "src/common/ipc/ipc_message.h"
#include "src/engine/compute/compute.h"

typedef struct LlmSampler LlmSampler;

typedef struct LlmSamplerSpec
{
	LlmSamplingParams params;
	const int32_t *eos_ids; /* the model's; ignored under ignore_eos */
	int32_t n_eos_ids;
	const int32_t *stop_ids; /* the request's */
	int32_t n_stop_ids;
	const LlmLogitBias *bias;
	int32_t n_bias;
	int32_t n_vocab; /* ids beyond are refused */
	int32_t max_model_len;
	int32_t n_prompt;
} LlmSamplerSpec;

/* Everything is copied.  NULL: *err. */
extern LlmSampler *
llm_sampler_create(const LlmSamplerSpec *spec, LlmError *err);

/* NULL is allowed. */
extern void llm_sampler_free(LlmSampler *sampler);

/*
 * The record of the next draw.  It borrows from the sampler and from the ids,
 * and is valid until either changes.
 */
extern void
llm_sampler_fill_row(const LlmSampler *sampler, const int32_t *prompt_ids,
					 int32_t n_prompt, const int32_t *output_ids,
					 int32_t n_output, LlmSampleRow *row);

/*
 * What the token does that has just become output number n_output (counted
 * from 1): LLM_FINISH_NONE, _STOP, or _LENGTH at max_tokens or when the
 * context is full.
 */
extern LlmFinishReason
llm_sampler_finish_reason(const LlmSampler *sampler, int32_t token_id,
						  int32_t n_output);

#endif /* LLM_SAMPLE_H */
