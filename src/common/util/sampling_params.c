/*
 * sampling_params.c
 *	  Are sampling parameters within their ranges?
 *
 * The front end asks before it queues a request, so that the user sees the
 * message at once; the executor asks again, because it trusts nobody.  The
 * ranges are vLLM's.  Comparisons are written so that NaN fails them.
 *
 * src/common/util/sampling_params.c
 */
#include "src/common/util/sampling_params.h"

#include <math.h>

static bool
check_range(const char *name, float value, float low, float high, LlmError *err)
{
	if (value >= low && value <= high)
		return true;
	return llm_error_set(err, LLM_ERROR_INVALID,
						 "%s is %g, but must be between %g and %g", name,
						 (double) value, (double) low, (double) high);
}

static bool
check_probabilities(const LlmSamplingParams *params, LlmError *err)
{
	if (!(params->temperature >= 0) || isinf(params->temperature))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "temperature is %g, but must be at least 0",
							 (double) params->temperature);
	if (!(params->top_p > 0 && params->top_p <= 1))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "top_p is %g, but must be greater than 0 and at "
							 "most 1",
							 (double) params->top_p);
	return check_range("min_p", params->min_p, 0, 1, err);
}

static bool
check_penalties(const LlmSamplingParams *params, LlmError *err)
{
	if (!(params->repetition_penalty > 0) || isinf(params->repetition_penalty))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "repetition_penalty is %g, but must be greater "
							 "than 0",
							 (double) params->repetition_penalty);
	return check_range("presence_penalty", params->presence_penalty, -2, 2,
					   err) &&
		   check_range("frequency_penalty", params->frequency_penalty, -2, 2,
					   err);
}

static bool
check_counts(const LlmSamplingParams *params, int32_t n_vocab, LlmError *err)
{
	if (params->top_k < -1)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "top_k is %d, but must be at least 1, or 0 or -1 "
							 "for no limit",
							 params->top_k);
	if (params->n_logprobs < -1 || params->n_logprobs > LLM_MAX_LOGPROBS)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "logprobs is %d, but must be between 0 and %d",
							 params->n_logprobs, LLM_MAX_LOGPROBS);
	if (params->n_logprobs > n_vocab)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "logprobs is %d, but the vocabulary has only %d "
							 "tokens",
							 params->n_logprobs, n_vocab);
	if (params->max_tokens < 1 || params->max_tokens > INT32_MAX)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "max_tokens is %u, but must be between 1 and %d",
							 params->max_tokens, INT32_MAX);
	if (params->min_tokens > params->max_tokens)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "min_tokens is %u, but must be at most "
							 "max_tokens, which is %u",
							 params->min_tokens, params->max_tokens);
	if (params->ignore_eos > 1)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "ignore_eos is %u, but must be 0 or 1",
							 params->ignore_eos);
	return true;
}

bool
llm_sampling_params_check(const LlmSamplingParams *params, int32_t n_vocab,
						  LlmError *err)
{
	return check_probabilities(params, err) && check_penalties(params, err) &&
		   check_counts(params, n_vocab, err);
}
