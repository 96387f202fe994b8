/*
 * test_nf4.c
 *	  NF4 weights against bitsandbytes: what is stored, and what it stands for,
 *	  bit by bit.
 *
 * test/unit/test_nf4.c
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/quant/nf4.h"
#include "src/common/safetensors/safetensors.h"
#include "src/common/util/half_float.h"
#include "src/engine/compute/compute_train.h"
#include "test/unit/unit_test.h"

#define NF4_VECTORS "test/vectors/train/nf4.safetensors"
#define MAX_ELEMENTS 32768

static LlmSafetensors *vectors;
static LlmCompute *compute;

static const LlmStoredTensor *
find(const char *name, const char *part)
{
	char key[64];
	const LlmStoredTensor *tensor;

	snprintf(key, sizeof(key), "%s.%s", name, part);
	tensor = llm_safetensors_find(vectors, key);
	if (tensor == NULL)
	{
		CHECK_FAIL("no tensor \"%s\" in the vectors", key);
		abort();
	}
	return tensor;
}

static bool
is_tensor(const char *name, const char *part, const void *data)
{
	const LlmStoredTensor *tensor = find(name, part);

	return memcmp(tensor->data, data, tensor->n_bytes) == 0;
}

static float
number_at(const LlmStoredTensor *tensor, int64_t i)
{
	const char *at = tensor->data;
	uint16_t half;
	float value;

	if (tensor->dtype == LLM_DTYPE_F32)
	{
		memcpy(&value, at + 4 * i, 4);
		return value;
	}
	memcpy(&half, at + 2 * i, 2);
	return tensor->dtype == LLM_DTYPE_BF16 ? llm_bf16_to_float(half)
										   : llm_f16_to_float(half);
}

static bool
decode(const LlmNf4 *weight, int64_t n, LlmDtype dtype, void *out)
{
	LlmNf4Args args = {
		.codes = weight->codes,
		.map = weight->map,
		.offset = weight->offset,
		.scales = weight->scales,
		.scale_codes = weight->scale_codes,
		.values = weight->values,
		.out = out,
		.out_dtype = dtype,
		.n = n,
	};
	LlmError err = { 0 };

	return compute->ops->train->decode_nf4(compute, &args, &err);
}

/*
 * The offset is a mean, which torch adds up in an order of its own: it may
 * differ in the last place.  From bitsandbytes' own numbers everything follows
 * bit by bit.
 */
static void
check_case(const char *name, bool is_nested)
{
	const LlmStoredTensor *source = find(name, "weight");
	int64_t n = (int64_t) (source->n_bytes / llm_dtype_bytes(source->dtype));
	LlmNf4 weight;
	static float floats[MAX_ELEMENTS];
	static float magnitudes[MAX_ELEMENTS / LLM_NF4_BLOCK];
	static char decoded[MAX_ELEMENTS * sizeof(float)];
	void *data = aligned_alloc(64, llm_nf4_bytes(n, is_nested));

	REQUIRE(n <= MAX_ELEMENTS && data != NULL);
	weight = llm_nf4_at(data, n, is_nested);
	for (int64_t i = 0; i < n; i++)
		floats[i] = number_at(source, i);
	llm_nf4_encode(floats, n, weight.values, magnitudes);
	llm_nf4_finish(&weight, magnitudes, llm_nf4_n_blocks(n));
	CHECK(is_tensor(name, "values", weight.values));
	if (is_nested)
	{
		float offset = number_at(find(name, "offset"), 0);
		float scale = number_at(find(name, "scales"), 0);

		CHECK(is_tensor(name, "map", weight.map));
		CHECK(is_tensor(name, "nearest", weight.scale_codes));
		CHECK(fabsf(*weight.offset - offset) <= 1e-7f * offset);
		CHECK(fabsf(weight.scales[0] - scale) <= 1e-6f * scale);
		*weight.offset = offset;
		memcpy(weight.scale_codes, find(name, "scale_codes")->data,
			   find(name, "scale_codes")->n_bytes);
		memcpy(weight.scales, find(name, "scales")->data,
			   find(name, "scales")->n_bytes);
	}
	else
		CHECK(is_tensor(name, "scales", weight.scales));
	CHECK(decode(&weight, n, source->dtype, decoded));
	CHECK(is_tensor(name, "decoded", decoded));
	free(data);
}

static void
test_cases(void)
{
	check_case("plain", false);
	check_case("nested", true);
	check_case("halves", true);
}

/* The tables, by their bits: those of a real bitsandbytes. */
static void
test_tables(void)
{
	static const uint32_t some[][2] = {
		{ 0, 0xbf7e3333 },	 { 127, 0 },		  { 128, 0x3513a3b7 },
		{ 192, 0x3df80000 }, { 254, 0x3f7e3333 }, { 255, 0x3f800000 }
	};
	float magnitudes[1] = { 1 };
	LlmNf4 weight;
	char *data = aligned_alloc(64, llm_nf4_bytes(64, true));

	REQUIRE(data != NULL);
	weight = llm_nf4_at(data, 64, true);
	llm_nf4_finish(&weight, magnitudes, 1);
	for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++)
	{
		uint32_t bits;

		memcpy(&bits, &weight.map[some[i][0]], sizeof(bits));
		CHECK(bits == some[i][1]);
	}
	for (int i = 1; i < 256; i++)
		CHECK(weight.map[i] > weight.map[i - 1]);
	free(data);
}

/* What is not finite is not finite afterwards; an odd end is an end. */
static void
test_edges(void)
{
	float floats[67] = { 1, 2, -3 };
	float decoded[67];
	float magnitudes[2];
	LlmNf4 weight;
	char *data = aligned_alloc(64, llm_nf4_bytes(67, false));

	REQUIRE(data != NULL);
	floats[66] = 0.5f;
	weight = llm_nf4_at(data, 67, false);
	llm_nf4_encode(floats, 67, weight.values, magnitudes);
	llm_nf4_finish(&weight, magnitudes, 2);
	CHECK(decode(&weight, 67, LLM_DTYPE_F32, decoded));
	CHECK(decoded[2] == -3.0f && decoded[3] == 0.0f && decoded[66] == 0.5f);
	floats[5] = NAN;
	llm_nf4_encode(floats, 67, weight.values, magnitudes);
	CHECK(isnan(magnitudes[0]) && magnitudes[1] == 0.5f);
	free(data);
}

int
main(void)
{
	LlmComputeOptions options = {
		.precision = LLM_DTYPE_F32,
		.n_threads = 2,
		.max_rows = 1,
		.max_cols = 64,
		.max_seqs = 1,
		.max_context_len = 1,
		.max_heads = 1,
		.max_vocab = 1,
	};
	LlmError err = { 0 };

	vectors = llm_safetensors_open(NF4_VECTORS, &err);
	compute = llm_compute_cpu_open(&options, &err);
	if (vectors == NULL || compute == NULL)
	{
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	RUN_TEST(test_cases);
	RUN_TEST(test_tables);
	RUN_TEST(test_edges);
	compute->ops->close(compute);
	llm_safetensors_close(vectors);
	return unit_test_finish();
}
