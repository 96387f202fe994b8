/*
 * model_rig.h
 *	  A tiny model with its cache, steps over it, and what transformers says:
 *	  what the tests of src/engine/model share.
 *
 * test/unit/model_rig.h
 */
#ifndef LLM_MODEL_RIG_H
#define LLM_MODEL_RIG_H

#include <math.h>
#include <unistd.h>

#include "src/engine/model/model_internal.h"
#include "test/unit/unit_test.h"

#define VECTORS "test/vectors/model"

#define MAX_LEN 512
#define BLOCK_SIZE 16
#define MAX_BLOCKS_PER_SEQ (MAX_LEN / BLOCK_SIZE)
#define N_BLOCKS 193 /* prime, so that any stride visits all */
#define MAX_SEQS 4
#define MAX_STEP_TOKENS 128
#define N_GREEDY 48
#define MAX_VOCAB 320

static const char *const isa_names[] = {
	"portable", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16"
};
#define N_ISAS (sizeof(isa_names) / sizeof(isa_names[0]))

/* ---- a model with its cache, and sequences in it ---- */

typedef struct Sequence
{
	int32_t ids[MAX_LEN];
	int32_t n_ids;
	int32_t n_computed;
	int32_t rope_len;
	int32_t block_table[MAX_BLOCKS_PER_SEQ];
} Sequence;

typedef struct Rig
{
	LlmModelConfig config;
	LlmCompute *compute;
	LlmModel *model;
	LlmKvCache *kv;
	int32_t next_block;
} Rig;

static inline void
rig_close(Rig *rig)
{
	if (rig->kv != NULL)
		rig->compute->ops->kv_free(rig->kv);
	llm_model_free(rig->model);
	if (rig->compute != NULL)
		rig->compute->ops->close(rig->compute);
	memset(rig, 0, sizeof(*rig));
}

/* The GPU is tested like an instruction set of that name, or of these two. */
static inline bool
is_cuda_eager(const char *isa)
{
	return isa != NULL && strcmp(isa, "cuda eager") == 0;
}

static inline bool
is_cuda(const char *isa)
{
	return is_cuda_eager(isa) || (isa != NULL && strcmp(isa, "cuda") == 0);
}

static inline LlmCompute *
open_compute(const LlmModelConfig *config, const char *isa, LlmDtype precision,
			 LlmError *err)
{
	int32_t q_dim = config->n_heads * config->head_dim;
	int32_t widest = config->hidden_size > q_dim ? config->hidden_size : q_dim;
	LlmComputeOptions options = {
		.precision = precision,
		.n_threads = 2,
		.max_rows = MAX_STEP_TOKENS,
		.max_cols = widest > config->intermediate_size
						? widest
						: config->intermediate_size,
		.max_seqs = MAX_SEQS,
		.max_context_len = MAX_LEN,
		.max_heads = config->n_heads,
		.max_vocab = config->n_vocab,
		.max_experts = config->n_experts,
		.max_experts_per_token = config->n_experts_per_token,
		.max_expert_dim = config->expert_intermediate_size,
		.max_loras = 64,
		.max_lora_rank = 8,
		.isa = isa,
	};

	if (is_cuda(isa))
	{
		options.isa = NULL;
		options.enforce_eager = is_cuda_eager(isa);
		options.arena_bytes = (size_t) 16 << 20;
		return llm_compute_cuda_load(&options, err);
	}
	return llm_compute_cpu_open(&options, err);
}

/* What is to become of the weights; see LlmModelOptions. */
static LlmQuantization rig_quantization = LLM_QUANTIZATION_DECODE;

static inline LlmModelOptions
model_options(LlmDtype weight_dtype)
{
	LlmModelOptions options = {
		.weight_dtype = weight_dtype,
		.quantization = rig_quantization,
		.max_model_len = MAX_LEN,
		.max_num_batched_tokens = MAX_STEP_TOKENS,
		.max_logit_rows = MAX_STEP_TOKENS,
	};

	return options;
}

static inline bool
rig_open(Rig *rig, const char *dir, const char *isa, LlmDtype precision,
		 LlmError *err)
{
	LlmModelOptions options;
	LlmKvCacheSpec spec = { .block_size = BLOCK_SIZE,
							.n_blocks = N_BLOCKS,
							.dtype = precision };

	memset(rig, 0, sizeof(*rig));
	if (!llm_model_config_read(dir, &rig->config, err))
		return false;
	rig->compute = open_compute(&rig->config, isa, precision, err);
	if (rig->compute == NULL)
		return false;
	options = model_options(is_cuda(isa) ? LLM_DTYPE_BF16 : rig->config.dtype);
	rig->model = llm_model_load(dir, &rig->config, &options, rig->compute, err);
	if (rig->model != NULL)
	{
		spec.n_layers = rig->config.n_layers;
		spec.n_kv_heads = rig->config.n_kv_heads;
		spec.head_dim = rig->config.head_dim;
		rig->kv = rig->compute->ops->kv_create(rig->compute, &spec, err);
	}
	if (rig->kv != NULL)
		return true;
	rig_close(rig);
	return false;
}

/* Blocks are dealt out of order, so that a table is really looked up. */
static inline void
sequence_init(Rig *rig, Sequence *sequence, const int32_t *ids, int32_t n_ids)
{
	memset(sequence, 0, sizeof(*sequence));
	memcpy(sequence->ids, ids, (size_t) n_ids * sizeof(*ids));
	sequence->n_ids = n_ids;
	sequence->rope_len = n_ids;
	for (int i = 0; i < MAX_BLOCKS_PER_SEQ; i++)
		sequence->block_table[i] = (rig->next_block++ * 41 + 5) % N_BLOCKS;
}

/*
 * A token that was generated.  Where the family wants it, who outgrows the
 * trained length is computed anew.
 */
static inline void
sequence_push(const Rig *rig, Sequence *sequence, int32_t id)
{
	sequence->ids[sequence->n_ids++] = id;
	if (rig->config.rope_restarts &&
		sequence->n_ids == rig->config.rope.original_max_position + 1)
	{
		sequence->rope_len = sequence->n_ids;
		sequence->n_computed = 0;
	}
}

typedef struct Step
{
	LlmStepInputs inputs;
	int32_t token_ids[MAX_STEP_TOKENS];
	int32_t positions[MAX_STEP_TOKENS];
	int32_t token_seq[MAX_STEP_TOKENS];
	int32_t query_start[MAX_SEQS + 1];
	int32_t context_len[MAX_SEQS];
	int32_t rope_len[MAX_SEQS];
	int32_t block_tables[MAX_SEQS * MAX_BLOCKS_PER_SEQ];
	int32_t logit_rows[MAX_STEP_TOKENS];
} Step;

static inline void
step_init(Step *step)
{
	memset(step, 0, sizeof(*step));
	step->inputs.max_blocks_per_seq = MAX_BLOCKS_PER_SEQ;
	step->inputs.token_ids = step->token_ids;
	step->inputs.positions = step->positions;
	step->inputs.token_seq = step->token_seq;
	step->inputs.query_start = step->query_start;
	step->inputs.context_len = step->context_len;
	step->inputs.block_tables = step->block_tables;
	step->inputs.logit_rows = step->logit_rows;
}

/* Add a sequence's next n tokens; logits of its last n_logits of them. */
static inline void
step_add(Step *step, Sequence *sequence, int32_t n, int32_t n_logits)
{
	LlmStepInputs *inputs = &step->inputs;
	int32_t s = inputs->n_seqs++;

	for (int32_t i = 0; i < n; i++)
	{
		int32_t at = inputs->n_tokens++;

		step->token_ids[at] = sequence->ids[sequence->n_computed];
		step->positions[at] = sequence->n_computed++;
		step->token_seq[at] = s;
		if (i >= n - n_logits)
			step->logit_rows[inputs->n_logit_rows++] = at;
	}
	step->query_start[s + 1] = inputs->n_tokens;
	step->context_len[s] = sequence->n_computed;
	step->rope_len[s] = sequence->rope_len;
	memcpy(step->block_tables + (size_t) s * MAX_BLOCKS_PER_SEQ,
		   sequence->block_table, sizeof(sequence->block_table));
	if (n > inputs->max_query_len)
		inputs->max_query_len = n;
	if (sequence->n_computed > inputs->max_context_len)
		inputs->max_context_len = sequence->n_computed;
}

/* logits: [n_logit_rows, n_vocab] */
static inline bool
step_run(Rig *rig, Step *step, float *logits)
{
	const LlmComputeOps *ops = rig->compute->ops;
	LlmStepInputs device;
	float *device_logits;
	LlmError err = { 0 };

	if (llm_model_rotate_step(rig->model, &step->inputs, step->rope_len,
							  &err) &&
		ops->step_upload(rig->compute, &step->inputs, &device, &err) &&
		llm_model_forward(rig->model, &device, rig->kv, &device_logits, &err) &&
		ops->sync(rig->compute, &err) &&
		ops->read(rig->compute, logits, device_logits,
				  (size_t) step->inputs.n_logit_rows *
					  (size_t) rig->config.n_vocab * sizeof(float),
				  &err))
		return true;
	CHECK_FAIL("step failed: %s", err.message);
	return false;
}

static inline int32_t
argmax(const float *row, int32_t n)
{
	int32_t best = 0;

	for (int32_t i = 1; i < n; i++)
	{
		if (row[i] > row[best])
			best = i;
	}
	return best;
}

/* ---- what transformers says ---- */

typedef struct Expected
{
	LlmSafetensors *file;
	struct ExpectedPrompt
	{
		const int32_t *ids;
		int32_t n_ids;
		const float *logits_f32; /* [n_rows, n_vocab] */
		const float *logits_bf16;
		int32_t n_rows;
		const int32_t *greedy;	 /* [N_GREEDY] */
		const float *logits_end; /* [n_vocab] of the last of these, or NULL */
	} prompts[MAX_SEQS];
} Expected;

static inline const LlmStoredTensor *
find_expected(const Expected *expected, int prompt_idx, const char *what)
{
	char name[64];

	snprintf(name, sizeof(name), "p%d.%s", prompt_idx, what);
	return llm_safetensors_find(expected->file, name);
}

static inline bool
expected_open(Expected *expected, const char *model_name)
{
	char path[200];
	LlmError err;

	snprintf(path, sizeof(path), VECTORS "/%s/expected.safetensors",
			 model_name);
	memset(expected, 0, sizeof(*expected));
	expected->file = llm_safetensors_open(path, &err);
	if (expected->file == NULL)
	{
		CHECK_FAIL("%s", err.message);
		return false;
	}
	for (int i = 0; i < MAX_SEQS; i++)
	{
		struct ExpectedPrompt *prompt = &expected->prompts[i];
		const LlmStoredTensor *ids = find_expected(expected, i, "ids");
		const LlmStoredTensor *f32 = find_expected(expected, i, "logits_f32");
		const LlmStoredTensor *end;

		prompt->ids = ids->data;
		prompt->n_ids = (int32_t) ids->shape[0];
		prompt->logits_f32 = f32->data;
		prompt->n_rows = (int32_t) f32->shape[0];
		prompt->logits_bf16 = find_expected(expected, i, "logits_bf16")->data;
		prompt->greedy = find_expected(expected, i, "greedy")->data;
		end = find_expected(expected, i, "logits_end");
		prompt->logits_end = end != NULL ? end->data : NULL;
	}
	return true;
}

/* The largest difference of any row, over the row's largest value. */
static inline double
relative_error(const float *actual, const float *reference, int32_t n_rows,
			   int32_t n_cols)
{
	double worst = 0;

	for (int32_t r = 0; r < n_rows; r++)
	{
		double difference = 0;
		double largest = 0;

		for (int32_t c = 0; c < n_cols; c++)
		{
			double a = actual[(size_t) r * n_cols + c];
			double e = reference[(size_t) r * n_cols + c];

			/* the negation catches NaN */
			if (!(fabs(a - e) <= difference))
				difference = fabs(a - e);
			largest = fmax(largest, fabs(e));
		}
		if (!(difference / largest <= worst))
			worst = difference / largest;
	}
	return worst;
}

/* Whether an instruction set is there: skipped and said so otherwise. */
static inline bool
has_isa(const char *isa)
{
	LlmModelConfig config = { .n_vocab = 32,
							  .hidden_size = 32,
							  .intermediate_size = 32,
							  .n_heads = 1,
							  .head_dim = 32 };
	LlmError err;
	LlmCompute *compute = open_compute(
		&config, isa, is_cuda(isa) ? LLM_DTYPE_BF16 : LLM_DTYPE_F32, &err);

	if (compute == NULL)
	{
		CHECK(err.code == LLM_ERROR_UNSUPPORTED ||
			  err.code == LLM_ERROR_UNAVAILABLE);
		if (is_cuda(isa) && access("/dev/nvidia0", F_OK) == 0)
			CHECK_FAIL("a GPU is here, but %s", err.message);
		unit_test_skip(isa, err.message);
		return false;
	}
	compute->ops->close(compute);
	return true;
}

#endif /* LLM_MODEL_RIG_H */
