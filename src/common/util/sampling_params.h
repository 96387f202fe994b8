/*
 * sampling_params.h
 *	  How a request's tokens are chosen: vLLM's names and meanings.
 *
 * Plain data of fixed layout: it crosses the ipc channel as it is.
 *
 * src/common/util/sampling_params.h
 */
#ifndef LLM_SAMPLING_PARAMS_H
#define LLM_SAMPLING_PARAMS_H

#include <stdint.h>

#include "src/common/util/error.h"

#define LLM_MAX_LOGPROBS 20

typedef struct LlmSamplingParams
{
	float temperature;		  /* 0 = greedy */
	float top_p;			  /* 1 = off; in (0, 1] */
	float min_p;			  /* 0 = off; in [0, 1] */
	int32_t top_k;			  /* 0 or -1 = off */
	float repetition_penalty; /* 1 = off; > 0; prompt and output */
	float presence_penalty;	  /* 0 = off; in [-2, 2]; output only */
	float frequency_penalty;  /* 0 = off; in [-2, 2]; output only */
	int32_t n_logprobs;		  /* -1 = none; 0 = the chosen token's own; up
								 * to LLM_MAX_LOGPROBS alternatives */
	uint64_t seed;			  /* always set: the front end draws one */
	uint32_t max_tokens;	  /* at least 1 */
	uint32_t min_tokens;	  /* stop ids are impossible before */
	uint32_t ignore_eos;	  /* 1: the model's own stop ids do not stop */
	uint32_t reserved;
} LlmSamplingParams;

_Static_assert(sizeof(LlmSamplingParams) == 56, "wire layout");

/* The neutral values: temperature 1, everything else off. */
static inline LlmSamplingParams
llm_sampling_params_default(void)
{
	LlmSamplingParams params = {
		.temperature = 1.0f,
		.top_p = 1.0f,
		.repetition_penalty = 1.0f,
		.n_logprobs = -1,
		.max_tokens = 16,
	};

	return params;
}

/* Are all values within their ranges?  LLM_ERROR_INVALID names the first. */
extern bool llm_sampling_params_check(const LlmSamplingParams *params,
									  int32_t n_vocab, LlmError *err);

#endif /* LLM_SAMPLING_PARAMS_H */
