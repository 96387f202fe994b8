/*
 * test_lora_model.c
 *	  Unit tests of adapters on models: what PEFT and transformers compute, and
 *	  batches that mix many adapters.
 *
 * test/unit/test_lora_model.c
 */
#include "test/unit/adapter_rig.h"
#include "test/unit/model_rig.h"

#define MAX_RANK 8

/* Adapters that PEFT made, and the models they were made for. */
static const struct
{
	const char *name;
	const char *base;
} peft_adapters[] = {
	{ "llama2_dora", "llama2" },
	{ "llama3_patterns", "llama3" },
	{ "llama3_head", "llama3" },
	{ "linear_dora", "linear" },
	{ "yarn", "yarn" },
	{ "mistral_rslora", "mistral" },
	{ "qwen2", "qwen2" },
	{ "qwen2_values", "qwen2" },
	{ "qwen3_dora", "qwen3" },
	{ "qwen3_moe", "qwen3_moe" },
	{ "mixtral", "mixtral" },
	{ "phi3", "phi3" },
	{ "phi3_longrope_dora", "phi3_longrope" },
	{ "glm4", "glm4" },
	{ "glm_dora", "glm" },
	{ "gemma", "gemma" },
	{ "gemma2", "gemma2" },
	{ "llama3_embed", "llama3" },
	{ "gemma2_embed", "gemma2" },
	{ "gemma3_dora", "gemma3" },
};
#define N_PEFT (sizeof(peft_adapters) / sizeof(peft_adapters[0]))

/* ---- images on a rig's device ---- */

typedef struct Loaded
{
	LlmModelAdapter host;
	void *device; /* the same where the device computes with host memory */
} Loaded;

static bool
to_device(Rig *rig, Loaded *loaded, LlmError *err)
{
	const LlmComputeOps *ops = rig->compute->ops;

	loaded->device = loaded->host.image;
	if (ops->copy_aside == NULL)
		return true;
	loaded->device =
		ops->alloc(rig->compute, loaded->host.n_bytes, "an adapter", err);
	if (loaded->device == NULL ||
		!ops->copy_aside(rig->compute, loaded->device, loaded->host.image,
						 loaded->host.n_bytes, err))
		return false;
	for (bool is_done = false; !is_done;)
	{
		if (!ops->copy_aside_done(rig->compute, &is_done, err))
			return false;
	}
	return true;
}

static void
unload(Rig *rig, Loaded *loaded)
{
	if (loaded->device != loaded->host.image)
		rig->compute->ops->free(rig->compute, loaded->device);
	llm_model_adapter_free(rig->model, &loaded->host);
}

static bool
load_adapter(Rig *rig, const char *name, const char *base, Loaded *loaded,
			 LlmError *err)
{
	char path[IMAGE_PATH_BYTES];
	char dir[200];
	bool ok;

	snprintf(dir, sizeof(dir), VECTORS "/%s", base);
	memset(loaded, 0, sizeof(*loaded));
	if (!import_adapter(name, dir, path, err))
		return false;
	ok = llm_model_adapter_load(rig->model, path, MAX_RANK, &loaded->host,
								err) &&
		 to_device(rig, loaded, err);
	unlink(path);
	return ok;
}

/* ---- as PEFT says ---- */

/* The logits of a prompt's last token, its tokens in steps of n_step. */
static void
prompt_logits(Rig *rig, const struct ExpectedPrompt *prompt,
			  const Loaded *adapter, int32_t n_step, float *logits)
{
	const void *loras[1] = { adapter->device };
	int32_t token_lora[MAX_STEP_TOKENS] = { 0 };
	Sequence sequence;
	Step step;

	sequence_init(rig, &sequence, prompt->ids, prompt->n_ids);
	while (sequence.n_computed < sequence.n_ids)
	{
		int32_t n_left = sequence.n_ids - sequence.n_computed;
		int32_t n = n_left < n_step ? n_left : n_step;

		step_init(&step);
		step_add(&step, &sequence, n, n == n_left);
		step.inputs.n_loras = 1;
		step.inputs.loras = loras;
		step.inputs.token_lora = token_lora;
		if (!step_run(rig, &step, logits))
			return;
	}
}

static void
check_prompts(Rig *rig, size_t i, const Loaded *adapter, bool is_f32)
{
	Expected base;
	char path[200];
	char name[32];
	LlmError err;
	LlmSafetensors *expected;
	static float logits[MAX_STEP_TOKENS * MAX_VOCAB];

	snprintf(path, sizeof(path), PEFT_ADAPTERS "/%s/expected.safetensors",
			 peft_adapters[i].name);
	expected = llm_safetensors_open(path, &err);
	CHECK(expected != NULL);
	if (expected == NULL || !expected_open(&base, peft_adapters[i].base))
		return;
	for (int p = 1; p <= 2; p++)
	{
		const float *right;
		double error;

		snprintf(name, sizeof(name), "p%d.logits", p);
		right = llm_safetensors_find(expected, name)->data;
		/* whole, then token by token: decode steps as graphs, too */
		for (int32_t n_step = MAX_STEP_TOKENS; n_step >= 1;
			 n_step -= MAX_STEP_TOKENS - 1)
		{
			prompt_logits(rig, &base.prompts[p], adapter, n_step, logits);
			error = relative_error(logits, right, 1, rig->config.n_vocab);
			/* the base models' bounds; see test_model.c */
			if (!(error <= (is_f32 ? 1e-4 : 2.5e-2)))
				CHECK_FAIL("%s, prompt %d, steps of %d: error %.3g",
						   peft_adapters[i].name, p, n_step, error);
		}
	}
	llm_safetensors_close(base.file);
	llm_safetensors_close(expected);
}

static void
check_peft(const char *isa, LlmDtype precision)
{
	for (size_t i = 0; i < N_PEFT; i++)
	{
		char dir[200];
		Rig rig;
		Loaded loaded;
		LlmError err;

		snprintf(dir, sizeof(dir), VECTORS "/%s", peft_adapters[i].base);
		if (!rig_open(&rig, dir, isa, precision, &err))
		{
			CHECK_FAIL("%s: %s", dir, err.message);
			continue;
		}
		if (load_adapter(&rig, peft_adapters[i].name, peft_adapters[i].base,
						 &loaded, &err))
			check_prompts(&rig, i, &loaded, precision == LLM_DTYPE_F32);
		else
			CHECK_FAIL("%s: %s", peft_adapters[i].name, err.message);
		unload(&rig, &loaded);
		rig_close(&rig);
	}
}

static void
logits_are_those_of_peft(void)
{
	for (size_t i = 0; i < N_ISAS; i++)
	{
		if (!has_isa(isa_names[i]))
			continue;
		check_peft(isa_names[i], LLM_DTYPE_F32);
		check_peft(isa_names[i], LLM_DTYPE_BF16);
	}
	if (has_isa("cuda"))
	{
		check_peft("cuda", LLM_DTYPE_BF16);
		check_peft("cuda eager", LLM_DTYPE_BF16);
	}
}

/* ---- on converted models ---- */

/* Adapters for a model directory serve its GGUF file, whose rows of q and k
 * lie in another order. */
static void
adapters_serve_converted_models(void)
{
	static const char *const files[][2] = {
		{ "llama2_dora", "llama2-bf16" },
		{ "llama3_embed", "llama3-f16" },
		{ "llama3_patterns", "llama3-f16" },
		{ "linear_dora", "linear-f32" },
		{ "qwen3_dora", "qwen3-bf16" },
		{ "qwen3_moe", "qwen3_moe-bf16" },
		{ "mixtral", "mixtral-bf16" },
		{ "glm4", "glm4-bf16" },
		{ "gemma3_dora", "gemma3-f32" },
		{ "phi3_longrope_dora", "phi3_longrope-bf16" },
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
	{
		size_t of_peft = 0;
		char path[200];
		Rig rig;
		Loaded loaded;
		LlmError err;

		while (strcmp(peft_adapters[of_peft].name, files[i][0]) != 0)
			of_peft++;
		snprintf(path, sizeof(path), "test/vectors/gguf/%s.gguf", files[i][1]);
		if (!rig_open(&rig, path, NULL, LLM_DTYPE_F32, &err))
		{
			CHECK_FAIL("%s: %s", path, err.message);
			continue;
		}
		if (load_adapter(&rig, files[i][0], peft_adapters[of_peft].base,
						 &loaded, &err))
			check_prompts(&rig, of_peft, &loaded, true);
		else
			CHECK_FAIL("%s: %s", files[i][0], err.message);
		unload(&rig, &loaded);
		rig_close(&rig);
	}
}

/* ---- many at once ---- */

#define N_MIXED 64

/* Made-up adapters of all ranks, some with gains, each leaving some modules. */
static void
make_up(Rig *rig, Loaded *loaded, uint64_t seed)
{
	const LlmModelConfig *config = &rig->config;
	const LlmLoraFormat *format = &rig->compute->lora_format;
	int32_t q_dim = config->n_heads * config->head_dim;
	int32_t kv_dim = config->n_kv_heads * config->head_dim;
	int32_t h = config->hidden_size;
	int32_t inner = config->intermediate_size;
	const int32_t shapes_of[7][2] = { { h, q_dim },	 { h, kv_dim },
									  { h, kv_dim }, { q_dim, h },
									  { h, inner },	 { h, inner },
									  { inner, h } };
	int32_t n = config->n_layers * 7 + 2;
	LlmLoraShape *shapes = calloc((size_t) n, sizeof(*shapes));
	uint64_t state = seed * 7919 + 1;

	for (int32_t i = 0; i < n - 2; i++)
	{
		if ((i + (int32_t) seed) % 5 != 0)
			shapes[i] = (LlmLoraShape){ 1 + (int32_t) seed % MAX_RANK,
										shapes_of[i % 7][0],
										shapes_of[i % 7][1], seed % 3 == 0 };
	}
	loaded->host.n_bytes = llm_lora_image_bytes(format, shapes, n);
	loaded->host.image = rig->compute->ops->host_alloc(
		rig->compute, loaded->host.n_bytes, "an adapter", NULL);
	memset(loaded->host.image, 0, loaded->host.n_bytes);
	llm_lora_image_init(loaded->host.image, format, shapes, n);
	for (int32_t i = 0; i < n; i++)
	{
		size_t n_down = (size_t) (shapes[i].rank * shapes[i].n_in);
		size_t n_up = (size_t) (shapes[i].rank * shapes[i].n_out);
		size_t n_floats = n_down + n_up + (size_t) shapes[i].n_out;
		float *numbers = malloc((n_floats + 1) * sizeof(float));
		LlmLoraNumbers parts = { numbers, numbers + n_down, NULL };

		for (size_t k = 0; k < n_floats; k++)
		{
			state = state * 6364136223846793005u + 1442695040888963407u;
			numbers[k] = ((float) (state >> 40) / (1 << 23) - 1) * 0.15f;
		}
		if (shapes[i].has_gain)
		{
			for (size_t k = n_down + n_up; k < n_floats; k++)
				numbers[k] += 1;
			parts.gain = numbers + n_down + n_up;
		}
		if (shapes[i].rank > 0)
			llm_lora_image_write(loaded->host.image, format, i, &shapes[i],
								 &parts);
		free(numbers);
	}
	free(shapes);
}

/*
 * Steps of up to MAX_SEQS sequences over N_MIXED adapters and none, in chunks
 * of odd sizes that mix prompts and decoding; then each alone.
 */
typedef struct Mixed
{
	Rig rig;
	Loaded adapters[N_MIXED];
	const void *loras[N_MIXED];
	float *logits; /* [N_MIXED + 1, n_vocab] of each sequence's last token */
} Mixed;

#define MIXED_LEN 11

static void
start_sequence(Mixed *mixed, Sequence *sequence)
{
	static const int32_t ids[MIXED_LEN] = { 1,	17, 200, 33, 5,	 90,
											41, 8,	77,	 12, 150 };

	sequence_init(&mixed->rig, sequence, ids, MIXED_LEN);
}

/* Sequences first .. first + n - 1; the one past the adapters has none. */
static void
run_together(Mixed *mixed, int first, int n, float *logits)
{
	Sequence sequences[MAX_SEQS];
	int32_t n_vocab = mixed->rig.config.n_vocab;

	for (int i = 0; i < n; i++)
		start_sequence(mixed, &sequences[i]);
	for (bool more = true; more;)
	{
		static float out[MAX_STEP_TOKENS * MAX_VOCAB];
		int32_t token_lora[MAX_STEP_TOKENS];
		int row_of[MAX_SEQS];
		int n_rows = 0;
		Step step;

		more = false;
		step_init(&step);
		for (int i = 0; i < n; i++)
		{
			int32_t n_left = MIXED_LEN - sequences[i].n_computed;
			int32_t n_now = n_left < 3 + i ? n_left : 3 + i;

			row_of[i] = -1;
			if (n_left == 0)
				continue;
			for (int k = 0; k < n_now; k++)
				token_lora[step.inputs.n_tokens + k] =
					first + i < N_MIXED ? first + i : -1;
			step_add(&step, &sequences[i], n_now, n_now == n_left);
			if (n_now == n_left)
				row_of[i] = n_rows++;
			more = true;
		}
		if (!more)
			break;
		step.inputs.n_loras = N_MIXED;
		step.inputs.loras = mixed->loras;
		step.inputs.token_lora = token_lora;
		(void) step_run(&mixed->rig, &step, out);
		for (int i = 0; i < n; i++)
			if (row_of[i] >= 0)
				memcpy(logits + (size_t) (first + i) * (size_t) n_vocab,
					   out + (size_t) row_of[i] * (size_t) n_vocab,
					   (size_t) n_vocab * sizeof(float));
	}
}

static void
check_mixed(const char *isa, LlmDtype precision)
{
	Mixed mixed;
	LlmError err;
	size_t row_bytes;
	float *together;
	float *alone;

	memset(&mixed, 0, sizeof(mixed));
	if (!rig_open(&mixed.rig, VECTORS "/llama2", isa, precision, &err))
	{
		CHECK_FAIL("%s", err.message);
		return;
	}
	for (int i = 0; i < N_MIXED; i++)
	{
		make_up(&mixed.rig, &mixed.adapters[i], (uint64_t) i);
		CHECK(to_device(&mixed.rig, &mixed.adapters[i], &err));
		mixed.loras[i] = mixed.adapters[i].device;
	}
	row_bytes = (size_t) mixed.rig.config.n_vocab * sizeof(float);
	together = calloc(N_MIXED + 1, row_bytes);
	alone = calloc(N_MIXED + 1, row_bytes);
	for (int first = 0; first <= N_MIXED; first += MAX_SEQS)
		run_together(&mixed, first,
					 N_MIXED + 1 - first < MAX_SEQS ? N_MIXED + 1 - first
													: MAX_SEQS,
					 together);
	for (int i = 0; i <= N_MIXED; i++)
	{
		size_t at = (size_t) i * (size_t) mixed.rig.config.n_vocab;
		double error;

		run_together(&mixed, i, 1, alone);
		error = relative_error(together + at, alone + at, 1,
							   mixed.rig.config.n_vocab);
		/* other products for other sizes on a GPU, each rounded to bf16 */
		if (is_cuda(isa) ? !(error <= 2e-2) : error != 0)
			CHECK_FAIL("%s: adapter %d alone differs by %.3g", isa, i, error);
		/* and every adapter says something else */
		if (i > 0 && memcmp(alone, alone + at, row_bytes) == 0)
			CHECK_FAIL("%s: adapters 0 and %d say the same", isa, i);
	}
	free(together);
	free(alone);
	for (int i = 0; i < N_MIXED; i++)
		unload(&mixed.rig, &mixed.adapters[i]);
	rig_close(&mixed.rig);
}

static void
mixed_batches_equal_each_alone(void)
{
	for (size_t i = 0; i < N_ISAS; i++)
	{
		if (!has_isa(isa_names[i]))
			continue;
		check_mixed(isa_names[i], LLM_DTYPE_F32);
		check_mixed(isa_names[i], LLM_DTYPE_BF16);
	}
	if (has_isa("cuda"))
	{
		check_mixed("cuda", LLM_DTYPE_BF16);
		check_mixed("cuda eager", LLM_DTYPE_BF16);
	}
}

/* ---- what is refused ---- */

static void
expect_refusal(Rig *rig, const char *path, int32_t max_rank, LlmErrorCode code,
			   const char *message)
{
	LlmModelAdapter adapter;
	LlmError err = { 0 };

	if (llm_model_adapter_load(rig->model, path, max_rank, &adapter, &err))
		CHECK_FAIL("loaded, instead of: %s", message);
	else if (err.code != (int32_t) code || strstr(err.message, message) == NULL)
		CHECK_FAIL("\"%s\" instead of: %s", err.message, message);
	CHECK(adapter.image == NULL);
	llm_model_adapter_free(rig->model, &adapter);
}

/* An image whose value at a tensor's start became NaN on its way here. */
static void
spoil(const char *path, const LlmModelConfig *config)
{
	LlmError err;
	LlmAdapterImage *image = llm_adapter_image_open(path, config, &err);
	const uint8_t nan_f32[4] = { 0, 0, 0xC0, 0x7F };
	const LlmStoredTensor *tensor;
	LlmMappedFile map;
	FILE *file;

	CHECK(image != NULL);
	if (image == NULL)
		return;
	tensor = llm_adapter_image_find(image, 1, LLM_ADAPTER_UP)->b;
	CHECK(tensor->dtype == LLM_DTYPE_F32 &&
		  llm_mapped_file_open(&map, path, &err));
	file = fopen(path, "r+b");
	for (size_t at = 0; at + tensor->n_bytes <= map.size; at++)
	{
		if (memcmp(map.data + at, tensor->data, tensor->n_bytes) != 0)
			continue;
		fseek(file, (long) at, SEEK_SET);
		CHECK(fwrite(nan_f32, 1, 4, file) == 4);
		break;
	}
	fclose(file);
	llm_mapped_file_close(&map);
	llm_adapter_image_close(image);
}

static void
adapters_that_cannot_be_served_are_refused(void)
{
	char path[IMAGE_PATH_BYTES];
	Rig llama2;
	Rig qwen2;
	LlmError err;

	CHECK(import_adapter("llama2_dora", VECTORS "/llama2", path, &err));
	CHECK(rig_open(&llama2, VECTORS "/llama2", NULL, LLM_DTYPE_F32, &err));
	CHECK(rig_open(&qwen2, VECTORS "/mistral", NULL, LLM_DTYPE_F32, &err));
	expect_refusal(&llama2, path, 1, LLM_ERROR_LIMIT, "rank 2");
	expect_refusal(&llama2, "/nowhere/x", 8, LLM_ERROR_NOT_FOUND, "/nowhere/x");
	llama2.model->fingerprint[3] ^= 1;
	expect_refusal(&llama2, path, 8, LLM_ERROR_INVALID, "another base model");
	llama2.model->fingerprint[3] ^= 1;
	expect_refusal(&qwen2, path, 8, LLM_ERROR_FORMAT, path);
	spoil(path, &llama2.config);
	expect_refusal(&llama2, path, 8, LLM_ERROR_FORMAT, "\"layers.1.up\"");
	CHECK(truncate(path, 3000) == 0);
	expect_refusal(&llama2, path, 8, LLM_ERROR_FORMAT, path);
	unlink(path);
	rig_close(&llama2);
	rig_close(&qwen2);
}

int
main(void)
{
	RUN_TEST(logits_are_those_of_peft);
	RUN_TEST(adapters_serve_converted_models);
	RUN_TEST(mixed_batches_equal_each_alone);
	RUN_TEST(adapters_that_cannot_be_served_are_refused);
	return unit_test_finish();
}
