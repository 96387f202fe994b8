/*
 * model_fingerprint.c
 *	  Tell base models apart, whatever their weights are stored in.
 *
 * Base and instruct models of one family have equal shapes, so shapes alone
 * would let an adapter be served on a model it was not trained on.  The final
 * norm tells them apart: every training moves it, it is small, and
 * quantization leaves it alone.  Its values are hashed as bfloat16, the
 * narrowest format of checkpoints.
 *
 * src/common/model_dir/model_fingerprint.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/model_dir/model_dir_internal.h"
#include "src/common/util/half_float.h"
#include "src/common/util/sha256.h"

static void
append_facts(const LlmModelConfig *config, LlmStrbuf *facts)
{
	const LlmRopeConfig *rope = &config->rope;

	llm_strbuf_printf(
		facts, "%s %d %d %d %d %d %d %d %d %.17g",
		llm_family_name(config->family), config->n_vocab, config->hidden_size,
		config->n_layers, config->n_heads, config->n_kv_heads, config->head_dim,
		config->intermediate_size, config->n_experts, config->norm_eps);
	llm_strbuf_printf(facts, " %s %.17g %.17g %d %d",
					  llm_rope_kind_name(rope->kind), rope->theta, rope->factor,
					  rope->rotary_dim, rope->interleaved);
}

static float
element_value(const LlmStoredTensor *tensor, size_t idx)
{
	float value;
	uint16_t bits;

	if (tensor->dtype == LLM_DTYPE_F32)
	{
		memcpy(&value, (const char *) tensor->data + 4 * idx, sizeof(value));
		return value;
	}
	memcpy(&bits, (const char *) tensor->data + 2 * idx, sizeof(bits));
	return tensor->dtype == LLM_DTYPE_F16 ? llm_f16_to_float(bits)
										  : llm_bf16_to_float(bits);
}

static void
hash_final_norm(const LlmModelConfig *config, const LlmCheckpoint *checkpoint,
				LlmSha256 *sha)
{
	const char *name = config->family->tensor_names[LLM_WEIGHT_FINAL_NORM];
	const LlmStoredTensor *norm = llm_checkpoint_find(checkpoint, name);

	if (norm == NULL || !norm->is_known_dtype ||
		!llm_dtype_is_float(norm->dtype))
		return;
	for (size_t i = 0; i < norm->n_bytes / llm_dtype_bytes(norm->dtype); i++)
	{
		uint16_t bits = llm_float_to_bf16(element_value(norm, i));

		llm_sha256_update(sha, &bits, sizeof(bits));
	}
}

bool
llm_model_fingerprint(const LlmModelConfig *config, const char *dir,
					  uint8_t fingerprint[LLM_FINGERPRINT_BYTES], LlmError *err)
{
	LlmCheckpoint *checkpoint;
	LlmStrbuf facts;
	LlmSha256 sha;

	_Static_assert(LLM_FINGERPRINT_BYTES == LLM_SHA256_BYTES, "one hash");
	llm_sha256_init(&sha);
	llm_strbuf_init(&facts);
	append_facts(config, &facts);
	llm_sha256_update(&sha, llm_strbuf_str(&facts), facts.len);
	if (facts.failed)
	{
		llm_strbuf_free(&facts);
		return llm_error_no_memory(err, 256, "a fingerprint");
	}
	llm_strbuf_free(&facts);
	checkpoint = llm_checkpoint_open(dir, NULL);
	if (checkpoint != NULL)
		hash_final_norm(config, checkpoint, &sha);
	llm_checkpoint_close(checkpoint);
	llm_sha256_final(&sha, fingerprint);
	return true;
}
