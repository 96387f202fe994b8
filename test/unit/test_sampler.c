/*
 * test_sampler.c
 *	  Unit tests of src/engine/sample and of the sampling parameters' ranges.
 *
 * test/unit/test_sampler.c
 */
#include "src/engine/sample/sample.h"

#include <math.h>

#include "test/unit/unit_test.h"

#define N_VOCAB 100

static bool
is_valid(const LlmSamplingParams *params)
{
	LlmError err;

	llm_error_clear(&err);
	if (llm_sampling_params_check(params, N_VOCAB, &err))
	{
		CHECK_INT_EQ(err.code, LLM_OK);
		return true;
	}
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	CHECK(err.message[0] != '\0');
	return false;
}

typedef struct FloatRange
{
	size_t offset;
	float good[4];
	float bad[4];
} FloatRange;

/* Each parameter alone: its ends are in, the next float beyond is out. */
static void
float_ranges_have_exact_ends(void)
{
	float above_1 = nextafterf(1.0f, 2.0f);
	float above_2 = nextafterf(2.0f, 3.0f);
	float tiny = nextafterf(0.0f, 1.0f);
	const FloatRange ranges[] = {
		{ offsetof(LlmSamplingParams, temperature),
		  { 0, tiny, 1, 1e30f },
		  { -tiny, NAN, INFINITY, -1 } },
		{ offsetof(LlmSamplingParams, top_p),
		  { tiny, 0.5f, 1, 1 },
		  { 0, above_1, NAN, -0.5f } },
		{ offsetof(LlmSamplingParams, min_p),
		  { 0, 0.5f, 1, 1 },
		  { -tiny, above_1, NAN, INFINITY } },
		{ offsetof(LlmSamplingParams, repetition_penalty),
		  { tiny, 1, 2, 1e30f },
		  { 0, -1, NAN, INFINITY } },
		{ offsetof(LlmSamplingParams, presence_penalty),
		  { -2, 0, 2, 1 },
		  { -above_2, above_2, NAN, INFINITY } },
		{ offsetof(LlmSamplingParams, frequency_penalty),
		  { -2, 0, 2, 1 },
		  { -above_2, above_2, NAN, -INFINITY } },
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
	{
		for (int k = 0; k < 4; k++)
		{
			LlmSamplingParams params = llm_sampling_params_default();
			char *field = (char *) &params + ranges[i].offset;

			memcpy(field, &ranges[i].good[k], sizeof(float));
			CHECK(is_valid(&params));
			memcpy(field, &ranges[i].bad[k], sizeof(float));
			CHECK(!is_valid(&params));
		}
	}
}

static void
count_ranges_have_exact_ends(void)
{
	LlmSamplingParams good = llm_sampling_params_default();
	LlmSamplingParams params;

	for (int32_t top_k = -3; top_k <= 3; top_k++)
	{
		params = good;
		params.top_k = top_k;
		CHECK_INT_EQ(is_valid(&params), top_k >= -1);
	}
	for (int32_t n = -3; n <= LLM_MAX_LOGPROBS + 2; n++)
	{
		params = good;
		params.n_logprobs = n;
		CHECK_INT_EQ(is_valid(&params), n >= -1 && n <= LLM_MAX_LOGPROBS);
	}
	params = good;
	params.max_tokens = 0;
	CHECK(!is_valid(&params));
	params.max_tokens = (uint32_t) INT32_MAX + 1;
	CHECK(!is_valid(&params));
	params.max_tokens = 5;
	params.min_tokens = 5;
	CHECK(is_valid(&params));
	params.min_tokens = 6;
	CHECK(!is_valid(&params));
	params = good;
	params.ignore_eos = 2;
	CHECK(!is_valid(&params));
}

static void
messages_name_parameter_and_value(void)
{
	LlmSamplingParams params = llm_sampling_params_default();
	LlmError err;

	params.top_p = 1.5f;
	CHECK(!llm_sampling_params_check(&params, N_VOCAB, &err));
	CHECK_STR_EQ(err.message,
				 "top_p is 1.5, but must be greater than 0 and at most 1");
	params = llm_sampling_params_default();
	params.min_tokens = 17;
	CHECK(!llm_sampling_params_check(&params, N_VOCAB, &err));
	CHECK_STR_EQ(err.message, "min_tokens is 17, but must be at most "
							  "max_tokens, which is 16");
	params = llm_sampling_params_default();
	params.n_logprobs = 4;
	CHECK(!llm_sampling_params_check(&params, 3, &err));
	CHECK_STR_EQ(err.message,
				 "logprobs is 4, but the vocabulary has only 3 tokens");
}

static const int32_t eos_ids[] = { 7, 8, 9999 };
static const int32_t stop_ids[] = { 20, 7, 20 };
static const LlmLogitBias biases[] = { { 5, -100.0f }, { 6, 2.5f } };

static LlmSamplerSpec
example_spec(void)
{
	LlmSamplerSpec spec = {
		.params = llm_sampling_params_default(),
		.eos_ids = eos_ids,
		.n_eos_ids = 3,
		.stop_ids = stop_ids,
		.n_stop_ids = 3,
		.bias = biases,
		.n_bias = 2,
		.n_prompt = 4,
		.max_model_len = 50,
		.n_vocab = N_VOCAB,
	};

	return spec;
}

static bool
row_forbids(const LlmSampleRow *row, int32_t token_id)
{
	for (int32_t i = 0; i < row->n_forbidden; i++)
	{
		if (row->forbidden_ids[i] == token_id)
			return true;
	}
	return false;
}

static void
rows_carry_the_request(void)
{
	LlmSamplerSpec spec = example_spec();
	int32_t prompt_ids[4] = { 1, 2, 3, 4 };
	int32_t output_ids[16] = { 0 };
	int32_t own_stop_ids[3];
	LlmLogitBias own_biases[2];
	LlmSampler *sampler;
	LlmSampleRow row;

	memcpy(own_stop_ids, stop_ids, sizeof(stop_ids));
	memcpy(own_biases, biases, sizeof(biases));
	spec.stop_ids = own_stop_ids;
	spec.bias = own_biases;
	spec.params.min_tokens = 2;
	spec.params.seed = 12345;
	spec.params.n_logprobs = 3;
	sampler = llm_sampler_create(&spec, NULL);
	REQUIRE(sampler != NULL);

	/* the sampler owns copies */
	memset(own_stop_ids, 0, sizeof(own_stop_ids));
	memset(own_biases, 0, sizeof(own_biases));

	for (int32_t n_output = 0; n_output < 4; n_output++)
	{
		memset(&row, 0xFF, sizeof(row));
		llm_sampler_fill_row(sampler, prompt_ids, 4, output_ids, n_output,
							 &row);
		CHECK(row.prompt_ids == prompt_ids && row.n_prompt == 4);
		CHECK(row.output_ids == output_ids && row.n_output == n_output);
		CHECK(row.params.seed == 12345);
		CHECK(row.allowed_mask == NULL);
		REQUIRE(row.n_bias == 2);
		CHECK_INT_EQ(row.bias[1].token_id, 6);
		CHECK(row.bias[1].bias == 2.5f);

		/* each id once, the one outside the vocabulary not at all */
		CHECK_INT_EQ(row.n_forbidden, n_output < 2 ? 3 : 0);
		CHECK_INT_EQ(row_forbids(&row, 7), n_output < 2);
		CHECK_INT_EQ(row_forbids(&row, 8), n_output < 2);
		CHECK_INT_EQ(row_forbids(&row, 20), n_output < 2);
	}
	CHECK_INT_EQ(llm_sampler_n_logprobs(sampler), 3);
	llm_sampler_free(sampler);
	llm_sampler_free(NULL);
}

static void
stop_ids_end_a_request(void)
{
	for (int ignore_eos = 0; ignore_eos <= 1; ignore_eos++)
	{
		LlmSamplerSpec spec = example_spec();
		LlmSampler *sampler;
		LlmSampleRow row;

		spec.params.ignore_eos = (uint32_t) ignore_eos;
		spec.params.min_tokens = 1;
		sampler = llm_sampler_create(&spec, NULL);
		REQUIRE(sampler != NULL);

		/* 8 is only the model's, 7 the request's, too */
		CHECK_INT_EQ(llm_sampler_finish_reason(sampler, 8, 1),
					 ignore_eos ? LLM_FINISH_NONE : LLM_FINISH_STOP);
		CHECK_INT_EQ(llm_sampler_finish_reason(sampler, 7, 1), LLM_FINISH_STOP);
		CHECK_INT_EQ(llm_sampler_finish_reason(sampler, 20, 1),
					 LLM_FINISH_STOP);
		CHECK_INT_EQ(llm_sampler_finish_reason(sampler, 21, 1),
					 LLM_FINISH_NONE);
		row.is_forced = true; /* as a scored token leaves it */
		llm_sampler_fill_row(sampler, NULL, 4, NULL, 0, &row);
		CHECK(!row.is_forced);
		CHECK(row_forbids(&row, 8));
		llm_sampler_free(sampler);
	}
}

static void
length_ends_a_request(void)
{
	LlmSamplerSpec spec = example_spec();
	LlmSampler *sampler;

	spec.params.max_tokens = 3;
	sampler = llm_sampler_create(&spec, NULL);
	REQUIRE(sampler != NULL);
	CHECK_INT_EQ(llm_sampler_finish_reason(sampler, 1, 2), LLM_FINISH_NONE);
	CHECK_INT_EQ(llm_sampler_finish_reason(sampler, 1, 3), LLM_FINISH_LENGTH);
	CHECK_INT_EQ(llm_sampler_finish_reason(sampler, 7, 3), LLM_FINISH_STOP);
	llm_sampler_free(sampler);

	/* the context: 4 + 6 tokens */
	spec.params.max_tokens = 100;
	spec.max_model_len = 10;
	sampler = llm_sampler_create(&spec, NULL);
	REQUIRE(sampler != NULL);
	CHECK_INT_EQ(llm_sampler_finish_reason(sampler, 1, 5), LLM_FINISH_NONE);
	CHECK_INT_EQ(llm_sampler_finish_reason(sampler, 1, 6), LLM_FINISH_LENGTH);
	llm_sampler_free(sampler);
}

static void
bad_specs_are_refused(void)
{
	LlmSamplerSpec spec = example_spec();
	int32_t bad_stop_ids[] = { 3, N_VOCAB };
	LlmLogitBias bad_bias = { -1, 1.0f };
	LlmError err;

	spec.stop_ids = bad_stop_ids;
	spec.n_stop_ids = 2;
	CHECK(llm_sampler_create(&spec, &err) == NULL);
	CHECK_STR_EQ(err.message, "stop_token_ids contains 100, which is outside "
							  "the vocabulary of 100 tokens");
	spec = example_spec();
	spec.bias = &bad_bias;
	spec.n_bias = 1;
	CHECK(llm_sampler_create(&spec, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	bad_bias.token_id = 0;
	for (int i = 0; i < 3; i++)
	{
		const float values[] = { 100.5f, -INFINITY, NAN };

		bad_bias.bias = values[i];
		CHECK(llm_sampler_create(&spec, &err) == NULL);
		CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	}
	spec = example_spec();
	spec.params.top_p = 0;
	CHECK(llm_sampler_create(&spec, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	spec = example_spec();
	spec.n_stop_ids = 1000000;
	CHECK(llm_sampler_create(&spec, &err) == NULL);
	CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);

	/* nothing given is fine */
	memset(&spec, 0, sizeof(spec));
	spec.params = llm_sampling_params_default();
	spec.max_model_len = 10;
	spec.n_vocab = 10;
	llm_sampler_free(llm_sampler_create(&spec, &err));
}

int
main(void)
{
	RUN_TEST(float_ranges_have_exact_ends);
	RUN_TEST(count_ranges_have_exact_ends);
	RUN_TEST(messages_name_parameter_and_value);
	RUN_TEST(rows_carry_the_request);
	RUN_TEST(stop_ids_end_a_request);
	RUN_TEST(length_ends_a_request);
	RUN_TEST(bad_specs_are_refused);
	return unit_test_finish();
}
