/*
 * test_nf4.c
 *	  NF4 weights against bitsandbytes: what is stored, and what it stands for,
 *	  bit by bit; and the checkpoints that it writes.
 *
 * test/unit/test_nf4.c
 */
#include <stdlib.h>
#include <string.h>

#include "src/common/util/half_float.h"
#include "src/common/util/sha256.h"
#include "src/engine/compute/compute_train.h"
#include "test/unit/model_rig.h"

#define TRAIN_VECTORS "test/vectors/train"
#define NF4_VECTORS TRAIN_VECTORS "/nf4.safetensors"
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

/* The same bits as a tensor of which the vectors keep the digest alone. */
static bool
is_digest(const char *name, const char *part, const void *data, size_t n_bytes)
{
	uint8_t digest[LLM_SHA256_BYTES];
	LlmSha256 sha;

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, data, n_bytes);
	llm_sha256_final(&sha, digest);
	return is_tensor(name, part, digest);
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
	CHECK(is_digest(name, "decoded_sha256", decoded, source->n_bytes));
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

/* ------------------------------------------------------------------------
 * Checkpoints
 * ------------------------------------------------------------------------
 */
#define MAX_IDS 16

static bool
open_model(Rig *rig, const char *dir, LlmQuantization quantization,
		   LlmError *err)
{
	rig_quantization = quantization;
	return rig_open(rig, dir, NULL, LLM_DTYPE_F32, err);
}

/* A matrix of a model that was loaded as NF4 against what it decodes to. */
static void
check_decoded(Rig *rig, const LlmSafetensors *expected)
{
	static uint16_t decoded[MAX_ELEMENTS];
	const bool is_nested = llm_model_options(rig->model)->quantization ==
						   LLM_QUANTIZATION_NF4_NESTED;
	LlmWeightSpec spec;
	int n_checked = 0;

	for (int i = 0; llm_model_weight_spec(&rig->config, i, &spec); i++)
	{
		const ModelWeight *weight = model_weight_of(rig->model, &spec);
		const int64_t n = spec.n_rows * spec.n_cols;
		char name[160];
		const LlmStoredTensor *tensor;
		LlmNf4 parts;

		snprintf(name, sizeof(name), "decoded.%s", spec.name);
		tensor = llm_safetensors_find(expected, name);
		if (tensor == NULL)
			continue;
		REQUIRE(weight->dtype == LLM_DTYPE_NF4 && n <= MAX_ELEMENTS);
		parts = llm_nf4_at(weight->data, n, is_nested);
		CHECK(decode(&parts, n, tensor->dtype, decoded));
		if (memcmp(decoded,
				   (const char *) tensor->data +
					   2 * spec.first_row * spec.n_cols,
				   2 * (size_t) n) != 0)
			CHECK_FAIL("rows %lld ... of %s differ", (long long) spec.first_row,
					   spec.name);
		n_checked++;
	}
	CHECK(n_checked >= 2);
}

/* Served, weights are decoded: logits are those of transformers. */
static void
check_logits(Rig *rig, const char *name, const LlmSafetensors *expected)
{
	const LlmStoredTensor *ids = llm_safetensors_find(expected, "ids");
	const LlmStoredTensor *tensor = llm_safetensors_find(expected, "logits");
	static float logits[MAX_IDS * MAX_VOCAB];
	Sequence sequence;
	Step step;
	double error = 0;
	double largest = 0;

	REQUIRE(ids != NULL && tensor != NULL && ids->shape[0] <= MAX_IDS);
	sequence_init(rig, &sequence, ids->data, (int32_t) ids->shape[0]);
	step_init(&step);
	step_add(&step, &sequence, sequence.n_ids, sequence.n_ids);
	REQUIRE(step_run(rig, &step, logits));
	for (int64_t i = 0; i < tensor->shape[0] * tensor->shape[1]; i++)
	{
		const double value = (double) number_at(tensor, i);

		error = fmax(error, fabs((double) logits[i] - value));
		largest = fmax(largest, fabs(value));
	}
	if (!(error <= 1e-4 * largest))
		CHECK_FAIL("%s: logits differ by %g of %g", name, error, largest);
}

static void
check_checkpoint(const char *name)
{
	char path[256];
	LlmSafetensors *expected;
	LlmError err = { 0 };
	Rig rig;

	snprintf(path, sizeof(path), TRAIN_VECTORS "/%s/expected.safetensors",
			 name);
	expected = llm_safetensors_open(path, &err);
	snprintf(path, sizeof(path), TRAIN_VECTORS "/%s", name);
	if (expected == NULL ||
		!open_model(&rig, path, LLM_QUANTIZATION_NONE, &err))
	{
		CHECK_FAIL("%s: %s", name, err.message);
		return;
	}
	check_logits(&rig, name, expected);
	rig_close(&rig);
	if (open_model(&rig, path, LLM_QUANTIZATION_NF4, &err))
		check_decoded(&rig, expected);
	else
		CHECK_FAIL("%s as NF4: %s", name, err.message);
	rig_close(&rig);
	llm_safetensors_close(expected);
}

static void
test_checkpoints(void)
{
	check_checkpoint("bnb_nested");
	check_checkpoint("bnb_fused");
	check_checkpoint("bnb_experts");
}

/* What training keeps as it is stored, and what it must not quantize. */
static void
test_left_out(void)
{
	LlmError err = { 0 };
	Rig rig;

	REQUIRE(open_model(&rig, TRAIN_VECTORS "/bnb_nested", LLM_QUANTIZATION_NF4,
					   &err));
	CHECK(llm_model_options(rig.model)->quantization ==
		  LLM_QUANTIZATION_NF4_NESTED);
	CHECK(llm_model_matrix(rig.model, LLM_WEIGHT_O, 0).dtype == LLM_DTYPE_NF4);
	CHECK(llm_model_matrix(rig.model, LLM_WEIGHT_O, 1).dtype == LLM_DTYPE_BF16);
	CHECK(llm_model_matrix(rig.model, LLM_WEIGHT_UP, 0).dtype ==
		  LLM_DTYPE_BF16);
	rig_close(&rig);
}

/* Write bnb_nested's file, "from" replaced by as long a text, to a folder. */
static bool
write_changed(const char *file, const char *dir, const char *from,
			  const char *to)
{
	char path[256];
	LlmMappedFile map;
	LlmError err = { 0 };
	size_t len = strlen(from);
	FILE *out;
	char *data;
	bool ok;

	snprintf(path, sizeof(path), TRAIN_VECTORS "/bnb_nested/%s", file);
	if (strlen(to) != len || !llm_mapped_file_open(&map, path, &err))
		return false;
	data = malloc(map.size);
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	out = fopen(path, "wb");
	ok = data != NULL && out != NULL;
	if (ok)
	{
		memcpy(data, map.data, map.size);
		for (size_t i = 0; i + len <= map.size; i++)
		{
			if (memcmp(data + i, from, len) == 0)
				memcpy(data + i, to, len);
		}
		ok = fwrite(data, 1, map.size, out) == map.size;
	}
	free(data);
	llm_mapped_file_close(&map);
	return (out == NULL || fclose(out) == 0) && ok;
}

/* What such a model is refused with; "": it is not. */
static void
check_refusal(const char *file, const char *from, const char *to,
			  const char *expected)
{
	char dir[] = "/tmp/test_nf4_XXXXXX";
	char path[256];
	LlmError err = { 0 };
	Rig rig;

	REQUIRE(mkdtemp(dir) != NULL);
	CHECK(write_changed("config.json", dir, "\n", "\n"));
	CHECK(write_changed("model.safetensors", dir, "\n", "\n"));
	CHECK(write_changed(file, dir, from, to));
	if (open_model(&rig, dir, LLM_QUANTIZATION_NF4, &err))
		CHECK_FAIL("%s was loaded with %s", file, to);
	else if (strstr(err.message, expected) == NULL)
		CHECK_FAIL("%s: \"%s\" is not in \"%s\"", to, expected, err.message);
	rig_close(&rig);
	snprintf(path, sizeof(path), "%s/config.json", dir);
	CHECK(unlink(path) == 0);
	snprintf(path, sizeof(path), "%s/model.safetensors", dir);
	CHECK(unlink(path) == 0 && rmdir(dir) == 0);
}

static void
test_refusals(void)
{
	const char *tensors = "model.safetensors";
	static const float scales[2];
	static const uint8_t codes[512];
	static char room[65536] __attribute__((aligned(64)));
	LlmNf4Stored stored = { .codes = scales, .scale_codes = codes };
	LlmNf4 weight = llm_nf4_at(room, 64, true);

	check_refusal("config.json", "\"bnb_4bit_quant_type\": \"nf4\"",
				  "\"bnb_4bit_quant_type\": \"fp4\"",
				  "4-bit weights of bitsandbytes in \"fp4\" are not supported");
	check_refusal("config.json", "\"load_in_4bit\": true",
				  "\"load_in_9bit\": true",
				  "8-bit weights of bitsandbytes are not supported");
	check_refusal("config.json", "\"quant_method\": \"bitsandbytes\"",
				  "\"quant_method\": \"bitsandbytez\"",
				  "method \"bitsandbytez\" are not supported");
	check_refusal(tensors, "bitsandbytes__nf4", "bitsandbytes__fp4",
				  "is stored in fp4, which is not supported");
	check_refusal(tensors, "\"blocksize\": 64", "\"blocksize\": 32",
				  "is nf4 in blocks of 32 and 256, but only");
	check_refusal(tensors, "\"shape\": [64, 128]", "\"shape\": [64, 129]",
				  "has another size than the shape in its quant_state");
	check_refusal(tensors, "\"shape\": [64, 128]", "\"shape\": [64.1234]",
				  "has another size than the shape in its quant_state");
	check_refusal(tensors, "weight.nested_absmax", "weight.nested_abzmax",
				  ".weight.nested_absmax\" is not F32 of 4 bytes");
	/* part of a fused matrix whose first block shares its scale */
	CHECK(!llm_nf4_stored_copy(&stored, 64, 64, &weight));
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
	RUN_TEST(test_checkpoints);
	RUN_TEST(test_left_out);
	RUN_TEST(test_refusals);
	compute->ops->close(compute);
	llm_safetensors_close(vectors);
	return unit_test_finish();
}
