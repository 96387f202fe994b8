/*
 * model_fingerprint.c
 *	  Tell base models apart, whatever their weights are stored in.
 *
 * Base and instruct models of one family have equal shapes, so shapes alone
 * would let an adapter be served on a model it was not trained on.  A
 * fingerprint has three parts:
 *
 *	  identity	what every file of a model has in common: the shapes, the base
 *				frequency of the rotary embedding, and the final norm, which
 *				every training moves and no quantization touches
 *	  samples	some values of every matrix, which tell a merged model from its
 *				base
 *	  storage	how far the samples can be trusted
 *
 * Samples are values as bfloat16, the narrowest format of checkpoints, so that
 * a model in safetensors and as an unquantized GGUF file has the same; what is
 * too small for float16 counts as 0.  Converting to a GGUF file of blocks, or
 * of float16, may round them: such files are said to be of another base only
 * where the identity differs.
 *
 * Two short pieces of rows are read of each matrix, of a layer's experts of
 * one: some pages of each file, which loading reads anyway.
 *
 * src/common/model_dir/model_fingerprint.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/model_dir/model_dir_internal.h"
#include "src/common/util/half_float.h"
#include "src/common/util/sha256.h"

#define IDENTITY_BYTES 16
#define STORAGE_BYTE (LLM_FINGERPRINT_BYTES - 1)

typedef enum Storage
{
	STORAGE_NONE, /* there are no weights */
	STORAGE_EXACT,
	STORAGE_ROUNDED
} Storage;

#define PIECE_VALUES 128
#define PIECES 2

/* Below this, float16 has fewer digits than bfloat16. */
#define SMALLEST 0x1p-16f

typedef struct Samples
{
	const LlmModelConfig *config;
	const LlmCheckpoint *checkpoint;
	LlmSha256 sha;
	Storage storage;
} Samples;

/*
 * Numbers as they survive single precision.  How a rotary embedding is
 * stretched is no part of it: the same weights serve short and long contexts.
 */
static void
append_facts(const LlmModelConfig *config, LlmStrbuf *facts)
{
	const LlmRopeConfig *rope = &config->rope;

	llm_strbuf_printf(
		facts, "%s %d %d %d %d %d %d %d %d %.6g",
		llm_family_name(config->family), config->n_vocab, config->hidden_size,
		config->n_layers, config->n_heads, config->n_kv_heads, config->head_dim,
		config->intermediate_size, config->n_experts, config->norm_eps);
	llm_strbuf_printf(facts, " %.6g %d %d", rope->theta, rope->rotary_dim,
					  rope->interleaved);
}

static void
hash_values(LlmSha256 *sha, const float *values, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
	{
		uint16_t bits =
			fabsf(values[i]) < SMALLEST ? 0 : llm_float_to_bf16(values[i]);

		llm_sha256_update(sha, &bits, sizeof(bits));
	}
}

static void
hash_final_norm(const LlmModelConfig *config, const LlmCheckpoint *checkpoint,
				LlmSha256 *sha)
{
	const char *name = config->family->tensor_names[LLM_WEIGHT_FINAL_NORM];
	const LlmStoredTensor *norm = llm_checkpoint_find(checkpoint, name);
	float value;

	if (norm == NULL || norm->n_dims != 1)
		return;
	for (int64_t i = 0; i < norm->shape[0]; i++)
	{
		if (!llm_checkpoint_read(checkpoint, norm, 0, i, 1, &value))
			return;
		/* GGUF files keep the sum, and only that is the same everywhere */
		if (config->norm_adds_one)
			value += 1;
		hash_values(sha, &value, 1);
	}
}

/* Two pieces of a matrix, where it is stored as floats. */
static void
hash_matrix(Samples *samples, const LlmWeightSpec *spec)
{
	const LlmStoredTensor *tensor =
		llm_checkpoint_find(samples->checkpoint, spec->name);
	int64_t n = spec->n_cols < PIECE_VALUES ? spec->n_cols : PIECE_VALUES;
	int64_t first = (spec->n_cols - n) / 2;
	float values[PIECE_VALUES];

	if (tensor == NULL || tensor->n_dims != 2 ||
		tensor->shape[0] != spec->stored_rows ||
		tensor->shape[1] != spec->n_cols)
	{
		/* codes of a quantization that keeps its own shapes */
		samples->storage = STORAGE_ROUNDED;
		return;
	}
	if (!llm_checkpoint_is_exact(samples->checkpoint, tensor))
		samples->storage = STORAGE_ROUNDED;
	for (int64_t i = 1; i <= PIECES; i++)
	{
		int64_t row = spec->first_row + i * spec->n_rows / (PIECES + 1);

		if (llm_checkpoint_read(samples->checkpoint, tensor, row, first, n,
								values))
			hash_values(&samples->sha, values, n);
	}
}

/* One expert of each layer stands for all. */
static bool
is_sampled(const LlmModelConfig *config, const LlmWeightSpec *spec)
{
	return spec->n_cols > 0 &&
		   (spec->expert_idx < 0 ||
			spec->expert_idx == spec->layer_idx % config->n_experts);
}

static void
hash_matrices(Samples *samples)
{
	LlmWeightSpec spec;

	samples->storage = STORAGE_EXACT;
	for (int i = 0; llm_model_weight_spec(samples->config, i, &spec); i++)
	{
		if (is_sampled(samples->config, &spec))
			hash_matrix(samples, &spec);
	}
}

bool
llm_model_fingerprint(const LlmModelConfig *config, const char *dir,
					  uint8_t fingerprint[LLM_FINGERPRINT_BYTES], LlmError *err)
{
	Samples samples = { .config = config };
	uint8_t digest[LLM_SHA256_BYTES];
	LlmCheckpoint *checkpoint;
	LlmStrbuf facts;
	LlmSha256 sha;

	llm_strbuf_init(&facts);
	append_facts(config, &facts);
	llm_sha256_init(&sha);
	llm_sha256_update(&sha, llm_strbuf_str(&facts), facts.len);
	llm_sha256_init(&samples.sha);
	if (facts.failed)
		return llm_error_no_memory(err, 256, "a fingerprint");
	llm_strbuf_free(&facts);
	checkpoint = llm_checkpoint_open(dir, NULL);
	if (checkpoint != NULL)
	{
		samples.checkpoint = checkpoint;
		hash_final_norm(config, checkpoint, &sha);
		hash_matrices(&samples);
	}
	llm_checkpoint_close(checkpoint);
	llm_sha256_final(&sha, digest);
	memcpy(fingerprint, digest, IDENTITY_BYTES);
	llm_sha256_final(&samples.sha, digest);
	memcpy(fingerprint + IDENTITY_BYTES, digest, STORAGE_BYTE - IDENTITY_BYTES);
	fingerprint[STORAGE_BYTE] = (uint8_t) samples.storage;
	return true;
}

LlmBaseMatch
llm_model_fingerprint_compare(const uint8_t a[LLM_FINGERPRINT_BYTES],
							  const uint8_t b[LLM_FINGERPRINT_BYTES])
{
	_Static_assert(IDENTITY_BYTES < STORAGE_BYTE, "there are samples");
	if (memcmp(a, b, IDENTITY_BYTES) != 0)
		return LLM_BASE_OTHER;
	if (memcmp(a + IDENTITY_BYTES, b + IDENTITY_BYTES,
			   STORAGE_BYTE - IDENTITY_BYTES) == 0)
		return LLM_BASE_SAME;
	return a[STORAGE_BYTE] == STORAGE_ROUNDED ||
				   b[STORAGE_BYTE] == STORAGE_ROUNDED
			   ? LLM_BASE_ROUNDED
			   : LLM_BASE_OTHER;
}
