/*
 * train_rig.h
 *	  A tiny model with a trainer, and what PEFT says of the same: what
 *	  test_train.c does its tests with.
 *
 * test/unit/train_rig.h
 */
#ifndef LLM_TRAIN_RIG_H
#define LLM_TRAIN_RIG_H

#include <stdlib.h>

#include "src/engine/train/train.h"
#include "test/unit/model_rig.h"
#include "test/unit/train_values.h"

#define TRAIN_VECTORS "test/vectors/train"
#define RANK 2
#define ALPHA 3.0f
#define MAX_PAIRS 80
#define MAX_LABELS 64
#define N_MODULES 7

/* Bounds on |difference| / |expected|, of a whole tensor. */
#define GRADIENT_ERROR 1e-4
#define LOSS_ERROR 1e-5
#define CURVE_ERROR 1e-3

/*
 * The same on a GPU, whose activations and weights are bf16: each rounds by
 * 2^-9 of itself, and a tiny model's sums are too short to average that out.
 */
#define CUDA_GRADIENT_ERROR 0.1
#define CUDA_LOSS_ERROR 1e-2

/* Where rigs are made that say no path: NULL, the CPU's best; "cuda". */
static const char *default_isa;

static inline double
bound(double on_cpu, double on_cuda)
{
	return is_cuda(default_isa) ? on_cuda : on_cpu;
}

/* What is trained, as in generate.py. */
typedef struct TrainCase
{
	const char *name;
	const char *modules; /* their first letters: q k v o g u d, and of experts
						  * G U D */
	bool use_rslora;
	bool use_dora;
	const char *base;  /* the model, where it has another name */
	const char *fused; /* modules that share A with the one before */
	LlmQuantization quantization;
	double router_coef;
} TrainCase;

static const TrainCase cases[] = {
	{ "llama2", "qkvogud", false, false },
	{ "llama3", "qkvogud", false, true },
	{ "linear", "qkvogud", true, false },
	{ "mistral", "qkvogud", false, false },
	{ "qwen2", "qvd", false, true },
	{ "qwen3", "qkvogud", false, false },
	{ "glm", "qkvogud", false, false },
	{ "glm4", "qkvogud", false, false },
	{ "phi3", "qkvogud", false, false },
	{ "phi3_fused", "qkvgud", false, false, "phi3", "kvu" },
	{ "glm4_fused", "qgu", false, false, "glm4", "u" },
	{ "phi3_longrope", "qk", false, false },
	{ "gemma", "qkvogud", false, false },
	{ "gemma2", "qkvogud", false, false },
	{ "gemma3", "qkvogud", false, true },
	{ "yarn", "ogu", true, false },
	{ "dynamic", "qkv", false, false },
	{ "mixtral", "qkvo", false, false },
	{ "qwen3_moe", "qkvo", false, false },
	{ "qwen3_moe_step", "vo", false, true },
	{ "qwen3_nf4", "qkvogud", false, false, "qwen3", NULL,
	  LLM_QUANTIZATION_NF4 },
	{ "llama3_nf4_nested", "qvd", false, true, "llama3", NULL,
	  LLM_QUANTIZATION_NF4_NESTED },
	/* as it is stored, whatever is asked; and decoded when it is loaded */
	{ "bnb_nested", "qoud", false, false, "../train/bnb_nested", NULL,
	  LLM_QUANTIZATION_NF4 },
	{ "bnb_nested", "qoud", false, false, "../train/bnb_nested" },
	{ "mixtral_router", "qkv", false, false, "mixtral", .router_coef = 0.5 },
	{ "qwen3_moe_router", "vo", false, false, "qwen3_moe", .router_coef = 0.5 },
	{ "mixtral_experts", "qvGUD", true, false, "mixtral", "U" },
	{ "qwen3_moe_experts", "kgudGUD", false, false, "qwen3_moe" },
};

#define N_CASES ((int) (sizeof(cases) / sizeof(cases[0])))

/* ------------------------------------------------------------------------
 * A model with a trainer, and what PEFT says
 * ------------------------------------------------------------------------
 */
typedef struct TrainRig
{
	Rig model;
	const TrainCase *c;
	LlmTrainPair pairs[MAX_PAIRS];
	LlmTrainOptions options;
	LlmTrainer *trainer;
	LlmSafetensors *expected;
	LlmTrainBatch batch;
	float weights[MAX_LABELS]; /* 1 / n_labels */
	float log_probs[MAX_LABELS];
} TrainRig;

static inline const void *
expected_data(const TrainRig *rig, const char *name, int64_t *n)
{
	const LlmStoredTensor *tensor = llm_safetensors_find(rig->expected, name);

	if (tensor == NULL)
	{
		CHECK_FAIL("no tensor \"%s\" in the vectors", name);
		abort();
	}
	*n = (int64_t) tensor->n_bytes / 4;
	return tensor->data;
}

static inline void
choose_pair(TrainRig *rig, int32_t layer_idx, LlmAdapterModule module,
			int32_t expert_idx, char letter)
{
	const TrainCase *c = rig->c;

	if (strchr(c->modules, letter) == NULL)
		return;
	REQUIRE(rig->options.n_pairs < MAX_PAIRS);
	rig->pairs[rig->options.n_pairs++] = (LlmTrainPair){
		.layer_idx = layer_idx,
		.module = module,
		.expert_idx = expert_idx,
		.rank = RANK,
		.scale = ALPHA / (c->use_rslora ? sqrtf(RANK) : RANK),
		.has_magnitude = c->use_dora,
		.shares_a = c->fused != NULL && strchr(c->fused, letter) != NULL,
	};
}

static inline void
choose_pairs(TrainRig *rig, const TrainCase *c)
{
	static const char letters[N_MODULES + 1] = "qkvogud";

	rig->options.n_pairs = 0;
	for (int32_t layer = 0; layer < rig->model.config.n_layers; layer++)
	{
		const bool is_mixture =
			llm_layer_set_has(&rig->model.config.expert_layers, layer);

		for (int m = 0; m < (is_mixture ? LLM_ADAPTER_GATE : N_MODULES); m++)
			choose_pair(rig, layer, (LlmAdapterModule) m, 0, letters[m]);
		for (int i = 0; is_mixture && i < 3 * rig->model.config.n_experts; i++)
			choose_pair(rig, layer,
						(LlmAdapterModule) (LLM_ADAPTER_EXPERT_GATE + i % 3),
						i / 3, "GUD"[i % 3]);
	}
	rig->options.pairs = rig->pairs;
}

/*
 * Numbers of B in front of pair i's, in the matrix of generate.py that has
 * them: those of the modules that it is fused with.
 */
static inline int64_t
fused_before(const TrainRig *rig, int32_t i)
{
	int64_t n = 0;

	while (rig->pairs[i].shares_a)
		n += llm_trainer_matrix_size(rig->trainer, --i, LLM_TRAIN_B);
	return n;
}

/* The pair whose name such a matrix has. */
static inline int32_t
fused_first(const TrainRig *rig, int32_t i)
{
	while (rig->pairs[i].shares_a)
		i--;
	return i;
}

static inline float *
fill_values(const TrainRig *rig, int32_t i, LlmTrainMatrix which, float *at)
{
	const LlmTrainPair *pair = &rig->pairs[fused_first(rig, i)];
	int64_t n = llm_trainer_matrix_size(rig->trainer, i, which);
	int64_t before = which == LLM_TRAIN_B ? fused_before(rig, i) : 0;
	double scale =
		which == LLM_TRAIN_A ? 2 / sqrt((double) (n / pair->rank)) : 0.2;
	int64_t salt = pair->expert_idx * 1000 + pair->layer_idx * 100 +
				   (int) pair->module * 10 + (which == LLM_TRAIN_B);

	return train_values_fill(at, n, before, salt, scale);
}

static inline bool
set_values(TrainRig *rig)
{
	LlmStrbuf state = { 0 };
	LlmError err = { 0 };
	float *at;
	bool ok = llm_trainer_save(rig->trainer, &state, &err);

	at = (float *) (state.data + STATE_HEADER_BYTES);
	for (int32_t i = 0; ok && i < rig->options.n_pairs; i++)
	{
		if (!rig->pairs[i].shares_a)
			at = fill_values(rig, i, LLM_TRAIN_A, at);
	}
	for (int32_t i = 0; ok && i < rig->options.n_pairs; i++)
	{
		at = fill_values(rig, i, LLM_TRAIN_B, at);
		at += llm_trainer_matrix_size(rig->trainer, i, LLM_TRAIN_MAGNITUDE);
	}
	ok = ok && llm_trainer_load(rig->trainer, state.data, state.len, &err);
	if (!ok)
		CHECK_FAIL("state: %s", err.message);
	llm_strbuf_free(&state);
	return ok;
}

static inline void
rig_free(TrainRig *rig)
{
	llm_trainer_free(rig->trainer);
	llm_safetensors_close(rig->expected);
	rig_close(&rig->model);
}

static inline void
read_batch(TrainRig *rig)
{
	int64_t n;

	rig->batch.token_ids = expected_data(rig, "ids", &n);
	rig->batch.n_tokens = (int32_t) n;
	rig->batch.segment_start = expected_data(rig, "starts", &n);
	rig->batch.n_segments = (int32_t) n - 1;
	rig->batch.label_rows = expected_data(rig, "rows", &n);
	rig->batch.n_labels = (int32_t) n;
	rig->batch.label_ids = expected_data(rig, "labels", &n);
	rig->batch.router_weight = 1;
	for (int32_t i = 0; i < rig->batch.n_labels; i++)
		rig->weights[i] = 1.0f / (float) rig->batch.n_labels;
}

static inline void
model_path(const TrainCase *c, char path[256])
{
	snprintf(path, 256, VECTORS "/%s", c->base != NULL ? c->base : c->name);
}

/* options: what of them is not the case's; NULL: PEFT's own defaults. */
static inline bool
rig_make(TrainRig *rig, const TrainCase *c, const char *isa,
		 const LlmTrainOptions *options)
{
	char path[256];
	LlmError err = { 0 };

	if (isa == NULL)
		isa = default_isa;
	memset(rig, 0, sizeof(*rig));
	rig->c = c;
	snprintf(path, sizeof(path), TRAIN_VECTORS "/%s.safetensors", c->name);
	rig->expected = llm_safetensors_open(path, &err);
	model_path(c, path);
	rig_quantization = c->quantization;
	if (rig->expected == NULL ||
		!rig_open(&rig->model, path, isa,
				  is_cuda(isa) ? LLM_DTYPE_BF16 : LLM_DTYPE_F32, &err))
	{
		if (err.code != LLM_ERROR_UNSUPPORTED)
			CHECK_FAIL("%s: %s", c->name, err.message);
		rig_free(rig);
		return false;
	}
	if (options != NULL)
		rig->options = *options;
	rig->options.max_tokens = 64;
	rig->options.max_segment = 64;
	rig->options.max_logit_rows = 10;
	rig->options.beta1 = 0.9;
	rig->options.beta2 = 0.999;
	rig->options.eps = 1e-8;
	rig->options.b_rate_ratio = 1;
	rig->options.router_coef = c->router_coef;
	rig->options.seed = 7;
	choose_pairs(rig, c);
	read_batch(rig);
	rig->trainer = llm_trainer_create(rig->model.model, &rig->options, &err);
	if (rig->trainer != NULL && set_values(rig))
		return true;
	CHECK_FAIL("%s: %s", c->name, err.message);
	rig_free(rig);
	return false;
}

/* One micro-batch there and back; the loss. */
static inline double
pass(TrainRig *rig, const LlmTrainBatch *batch, const float *weights)
{
	LlmError err = { 0 };
	double loss = 0;

	if (!llm_trainer_forward(rig->trainer, batch, true, &err) ||
		!llm_trainer_backward(rig->trainer, weights, rig->log_probs, &err))
	{
		CHECK_FAIL("pass: %s", err.message);
		return NAN;
	}
	for (int32_t i = 0; i < batch->n_labels; i++)
		loss -= (double) weights[i] * (double) rig->log_probs[i];
	return loss;
}

static inline double
error_of(const float *actual, const float *expected, int64_t n)
{
	double error = 0;
	double norm = 0;

	for (int64_t i = 0; i < n; i++)
	{
		double d = (double) actual[i] - (double) expected[i];

		error += d * d;
		norm += (double) expected[i] * (double) expected[i];
	}
	return error == 0 ? 0 : sqrt(error / norm);
}

/* The gradients of all matrices, in order; the caller frees them. */
static inline float *
all_gradients(TrainRig *rig, int64_t *n)
{
	float *all;
	LlmError err = { 0 };

	*n = 0;
	for (int32_t i = 0; i < rig->options.n_pairs; i++)
	{
		for (int which = 0; which <= LLM_TRAIN_MAGNITUDE; which++)
			*n += llm_trainer_matrix_size(rig->trainer, i,
										  (LlmTrainMatrix) which);
	}
	all = malloc((size_t) *n * sizeof(float));
	*n = 0;
	for (int32_t i = 0; i < rig->options.n_pairs; i++)
	{
		for (int which = 0; which <= LLM_TRAIN_MAGNITUDE; which++)
		{
			if (llm_trainer_matrix_size(rig->trainer, i,
										(LlmTrainMatrix) which) > 0 &&
				!llm_trainer_read_gradients(
					rig->trainer, i, (LlmTrainMatrix) which, all + *n, &err))
				CHECK_FAIL("%s", err.message);
			*n += llm_trainer_matrix_size(rig->trainer, i,
										  (LlmTrainMatrix) which);
		}
	}
	return all;
}

#endif /* LLM_TRAIN_RIG_H */
