/*
 * sampler.c
 *	  A request's sampling state: stop ids, forbidden ids, logit bias.
 *
 * One allocation holds the struct and its arrays.  Stop ids are kept as one
 * array, the request's first, then those of the model's ids that it lacks:
 * under ignore_eos only the first part stops, but the whole is what
 * min_tokens forbids.  The lists are a handful of ids, so that a linear search
 * beats anything cleverer.
 *
 * src/engine/sample/sampler.c
 */
#include "src/engine/sample/sample.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* More than any front end sends; bounds the linear searches. */
#define MAX_STOP_IDS 4096
#define MAX_BIASES 65536

struct LlmSampler
{
	LlmSamplingParams params;
	int32_t n_prompt;
	int32_t max_model_len;
	int32_t n_stop_ids; /* the first so many of all_stop_ids stop */
	int32_t n_all_stop_ids;
	int32_t n_bias;
	LlmLogitBias *bias;
	int32_t *all_stop_ids;
};

static bool
contains_id(const int32_t *ids, int32_t n_ids, int32_t token_id)
{
	for (int32_t i = 0; i < n_ids; i++)
	{
		if (ids[i] == token_id)
			return true;
	}
	return false;
}

static bool
check_stop_ids(const LlmSamplerSpec *spec, LlmError *err)
{
	if (spec->n_stop_ids > MAX_STOP_IDS)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "%d stop_token_ids are more than the limit of %d",
							 spec->n_stop_ids, MAX_STOP_IDS);
	for (int32_t i = 0; i < spec->n_stop_ids; i++)
	{
		if (spec->stop_ids[i] < 0 || spec->stop_ids[i] >= spec->n_vocab)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "stop_token_ids contains %d, which is "
								 "outside the vocabulary of %d tokens",
								 spec->stop_ids[i], spec->n_vocab);
	}
	return true;
}

static bool
check_bias(const LlmSamplerSpec *spec, LlmError *err)
{
	if (spec->n_bias > MAX_BIASES)
		return llm_error_set(
			err, LLM_ERROR_LIMIT,
			"logit_bias of %d tokens is more than the limit of %d",
			spec->n_bias, MAX_BIASES);
	for (int32_t i = 0; i < spec->n_bias; i++)
	{
		const LlmLogitBias *bias = &spec->bias[i];

		if (bias->token_id < 0 || bias->token_id >= spec->n_vocab)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "logit_bias names token %d, which is outside "
								 "the vocabulary of %d tokens",
								 bias->token_id, spec->n_vocab);
		/* "not in range" is written so that NaN is refused, too */
		if (!(bias->bias >= -100.0f && bias->bias <= 100.0f))
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "logit_bias of token %d is %g, but must be "
								 "between -100 and 100",
								 bias->token_id, (double) bias->bias);
	}
	return true;
}

static void
copy_stop_ids(LlmSampler *sampler, const LlmSamplerSpec *spec)
{
	int32_t n = 0;

	for (int32_t i = 0; i < spec->n_stop_ids; i++)
	{
		if (!contains_id(sampler->all_stop_ids, n, spec->stop_ids[i]))
			sampler->all_stop_ids[n++] = spec->stop_ids[i];
	}
	sampler->n_stop_ids = n;

	/* a model may name ids beyond its vocabulary: they are never drawn */
	for (int32_t i = 0; i < spec->n_eos_ids; i++)
	{
		int32_t token_id = spec->eos_ids[i];

		if (token_id >= 0 && token_id < spec->n_vocab &&
			!contains_id(sampler->all_stop_ids, n, token_id))
			sampler->all_stop_ids[n++] = token_id;
	}
	sampler->n_all_stop_ids = n;
	if (!spec->params.ignore_eos)
		sampler->n_stop_ids = n;
}

LlmSampler *
llm_sampler_create(const LlmSamplerSpec *spec, LlmError *err)
{
	size_t n_ids;
	size_t n_bytes;
	LlmSampler *sampler;

	assert(spec->n_eos_ids >= 0 && spec->n_stop_ids >= 0);
	assert(spec->n_bias >= 0 && spec->n_prompt >= 0);
	assert(spec->n_vocab > 0 && spec->max_model_len > 0);

	if (!llm_sampling_params_check(&spec->params, spec->n_vocab, err) ||
		!check_stop_ids(spec, err) || !check_bias(spec, err))
		return NULL;

	n_ids = (size_t) spec->n_stop_ids + (size_t) spec->n_eos_ids;
	n_bytes = sizeof(LlmSampler) + n_ids * sizeof(int32_t) +
			  (size_t) spec->n_bias * sizeof(LlmLogitBias);
	sampler = malloc(n_bytes);
	if (sampler == NULL)
	{
		llm_error_no_memory(err, n_bytes, "sampling parameters");
		return NULL;
	}
	sampler->params = spec->params;
	sampler->n_prompt = spec->n_prompt;
	sampler->max_model_len = spec->max_model_len;
	sampler->n_bias = spec->n_bias;
	sampler->bias = (LlmLogitBias *) (sampler + 1);
	sampler->all_stop_ids = (int32_t *) (sampler->bias + spec->n_bias);
	if (spec->n_bias > 0)
		memcpy(sampler->bias, spec->bias,
			   (size_t) spec->n_bias * sizeof(LlmLogitBias));
	copy_stop_ids(sampler, spec);
	return sampler;
}

void
llm_sampler_free(LlmSampler *sampler)
{
	free(sampler);
}

void
llm_sampler_fill_row(const LlmSampler *sampler, const int32_t *prompt_ids,
					 int32_t n_prompt, const int32_t *output_ids,
					 int32_t n_output, LlmSampleRow *row)
{
	bool too_early = (uint32_t) n_output < sampler->params.min_tokens;

	assert(n_prompt == sampler->n_prompt);
	assert(n_output >= 0);
	assert((uint32_t) n_output < sampler->params.max_tokens);

	/* all of it: the row may have been a scored one's before */
	*row = (LlmSampleRow){
		.params = sampler->params,
		.prompt_ids = prompt_ids,
		.output_ids = output_ids,
		.n_prompt = n_prompt,
		.n_output = n_output,
		.bias = sampler->n_bias > 0 ? sampler->bias : NULL,
		.n_bias = sampler->n_bias,
		.n_forbidden = too_early ? sampler->n_all_stop_ids : 0,
	};
	row->forbidden_ids = row->n_forbidden > 0 ? sampler->all_stop_ids : NULL;
}

LlmFinishReason
llm_sampler_finish_reason(const LlmSampler *sampler, int32_t token_id,
						  int32_t n_output)
{
	assert(token_id >= 0 && n_output >= 1);

	if (contains_id(sampler->all_stop_ids, sampler->n_stop_ids, token_id))
		return LLM_FINISH_STOP;
	if ((uint32_t) n_output >= sampler->params.max_tokens ||
		(int64_t) sampler->n_prompt + n_output >= sampler->max_model_len)
		return LLM_FINISH_LENGTH;
	return LLM_FINISH_NONE;
}

int32_t
llm_sampler_n_logprobs(const LlmSampler *sampler)
{
	return sampler->params.n_logprobs;
}
