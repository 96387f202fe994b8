/*
 * dummy_weights.c
 *	  Weights made up from a seed: for measuring without a checkpoint.
 *
 * Element i of weight w is a function of (seed, w, i) alone, so that a model
 * is the same on every device and whatever the chunks it is made in.  Norms
 * are what multiplies by 1; the rest is near normal with standard deviation 0.02, the usual
 * initialization: the sum of a random word's four bytes, 256 * 4 values in a
 * bell, which costs a tenth of a true normal.
 *
 * src/engine/model/dummy_weights.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/quant/quant.h"
#include "src/common/util/half_float.h"
#include "src/common/util/philox.h"
#include "src/engine/model/model_internal.h"

/*
 * A sum of four uniform bytes has mean 510 and variance
 * 4 * (256^2 - 1) / 12 = 21845, that is a deviation of 147.8.
 */
#define DUMMY_STD 0.02f
#define BYTE_SUM_MEAN 510
#define BYTE_SUM_STD 147.80054f

static void
store(void *dest, int64_t i, LlmDtype dtype, float value)
{
	uint16_t bits;

	if (dtype == LLM_DTYPE_F32)
	{
		memcpy((char *) dest + i * 4, &value, 4);
		return;
	}
	assert(dtype == LLM_DTYPE_F16 || dtype == LLM_DTYPE_BF16);
	bits = dtype == LLM_DTYPE_F16 ? llm_float_to_f16(value)
								  : llm_float_to_bf16(value);
	memcpy((char *) dest + i * 2, &bits, 2);
}

static float
load(const void *src, int64_t i, LlmDtype dtype)
{
	float value;
	uint16_t bits;

	if (dtype == LLM_DTYPE_F32)
	{
		memcpy(&value, (const char *) src + i * 4, 4);
		return value;
	}
	assert(dtype == LLM_DTYPE_F16 || dtype == LLM_DTYPE_BF16);
	memcpy(&bits, (const char *) src + i * 2, 2);
	return dtype == LLM_DTYPE_F16 ? llm_f16_to_float(bits)
								  : llm_bf16_to_float(bits);
}

/* Blocks by way of floats, a few of them at a time. */
static void
convert_blocks(const char *src, LlmDtype from, char *dest, LlmDtype to,
			   int64_t n)
{
	float values[256];

	for (int64_t i = 0; i < n; i += 256)
	{
		int64_t n_now = n - i < 256 ? n - i : 256;

		llm_quant_decode(from, src + llm_dtype_stored_bytes(from, i), n_now,
						 values);
		weight_convert(values, LLM_DTYPE_F32,
					   dest + (size_t) i * llm_dtype_bytes(to), to, n_now);
	}
}

void
weight_convert(const void *src, LlmDtype from, void *dest, LlmDtype to,
			   int64_t n)
{
	if (from == to)
	{
		memcpy(dest, src, (size_t) n * llm_dtype_bytes(from));
		return;
	}
	if (!llm_dtype_is_float(from))
	{
		convert_blocks(src, from, dest, to, n);
		return;
	}
	if (from == LLM_DTYPE_BF16 && to == LLM_DTYPE_F32)
	{
		/* the usual one, so that the loop knows both */
		for (int64_t i = 0; i < n; i++)
			store(dest, i, LLM_DTYPE_F32, load(src, i, LLM_DTYPE_BF16));
		return;
	}
	for (int64_t i = 0; i < n; i++)
		store(dest, i, to, load(src, i, from));
}

static float
normal_of(uint32_t word)
{
	int sum = (int) ((word & 255) + (word >> 8 & 255) + (word >> 16 & 255) +
					 (word >> 24));

	return (float) (sum - BYTE_SUM_MEAN) * (DUMMY_STD / BYTE_SUM_STD);
}

LlmFillNormalArgs
dummy_weight_args(const DummyWeight *weight, void *dest, int64_t n)
{
	LlmFillNormalArgs args = {
		.dest = dest,
		.dtype = weight->dtype,
		.n = n,
		.unit = DUMMY_STD / BYTE_SUM_STD,
		.seed = weight->seed,
		.sequence = (uint64_t) weight->weight_idx,
	};

	assert(!weight->is_constant);
	return args;
}

void
dummy_weight_fill(const DummyWeight *weight, int64_t first, int64_t n,
				  void *dest)
{
	LlmPhilox numbers = { { 0 } };

	assert(first % 4 == 0);
	for (int64_t i = 0; i < n; i++)
	{
		if (i % 4 == 0 && !weight->is_constant)
			numbers = llm_philox(weight->seed, (uint64_t) (first + i) / 4,
								 (uint64_t) weight->weight_idx);
		store(dest, i, weight->dtype,
			  weight->is_constant ? weight->constant
								  : normal_of(numbers.word[i % 4]));
	}
}
