/*
 * gguf_names.c
 *	  What tensors of GGUF files are called on Hugging Face.
 *
 * llama.cpp's converter renames tensors and changes a few: it stores the
 * fused experts of a layer as one tensor, adds 1 to the norms of Gemma, and
 * for architecture "llama" it reorders the rows of q and k, so that the two
 * halves of a head that rotate together become neighbours.  Here each change
 * is named, and whoever reads the tensors undoes it; so a model is the same
 * numbers whichever file it comes from.
 *
 * src/common/gguf/gguf_names.c
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "src/common/gguf/gguf_internal.h"

#define MAX_EXPERTS 65536
#define LAYER "model.layers.#."

/* Names that most architectures share; their own table comes first. */
static const GgufNamePair common_names[] = {
	{ "token_embd.weight", "model.embed_tokens.weight" },
	{ "output_norm.weight", "model.norm.weight" },
	{ "output.weight", "lm_head.weight" },
	{ "blk.#.attn_norm.weight", LAYER "input_layernorm.weight" },
	{ "blk.#.attn_q.weight", LAYER "self_attn.q_proj.weight" },
	{ "blk.#.attn_k.weight", LAYER "self_attn.k_proj.weight" },
	{ "blk.#.attn_v.weight", LAYER "self_attn.v_proj.weight" },
	{ "blk.#.attn_output.weight", LAYER "self_attn.o_proj.weight" },
	{ "blk.#.attn_q.bias", LAYER "self_attn.q_proj.bias" },
	{ "blk.#.attn_k.bias", LAYER "self_attn.k_proj.bias" },
	{ "blk.#.attn_v.bias", LAYER "self_attn.v_proj.bias" },
	{ "blk.#.attn_output.bias", LAYER "self_attn.o_proj.bias" },
	{ "blk.#.attn_q_norm.weight", LAYER "self_attn.q_norm.weight" },
	{ "blk.#.attn_k_norm.weight", LAYER "self_attn.k_norm.weight" },
	{ "blk.#.ffn_norm.weight", LAYER "post_attention_layernorm.weight" },
	{ "blk.#.ffn_gate.weight", LAYER "mlp.gate_proj.weight" },
	{ "blk.#.ffn_up.weight", LAYER "mlp.up_proj.weight" },
	{ "blk.#.ffn_down.weight", LAYER "mlp.down_proj.weight" },
	{ "blk.#.ffn_gate.bias", LAYER "mlp.gate_proj.bias" },
	{ "blk.#.ffn_up.bias", LAYER "mlp.up_proj.bias" },
	{ "blk.#.ffn_down.bias", LAYER "mlp.down_proj.bias" },
	{ NULL, NULL },
};

/* Frequencies of the rotary embedding, which the config says. */
static const char *const rope_tensors[] = {
	"rope_freqs.weight",
	"rope_factors_long.weight",
	"rope_factors_short.weight",
};

/* Where name fits pattern, the number that '#' stands for; else -1. */
static long
match_layer(const char *pattern, const char *name)
{
	const char *mark = strchr(pattern, '#');
	size_t prefix_len = mark != NULL ? (size_t) (mark - pattern) : 0;
	size_t n_digits = 0;
	long layer = 0;

	if (mark == NULL)
		return strcmp(pattern, name) == 0 ? 0 : -1;
	if (strncmp(pattern, name, prefix_len) != 0)
		return -1;
	name += prefix_len;
	for (; isdigit((unsigned char) name[n_digits]); n_digits++)
	{
		if (n_digits == 5)
			return -1;
		layer = layer * 10 + (name[n_digits] - '0');
	}
	if (n_digits == 0 || (n_digits > 1 && name[0] == '0') ||
		strcmp(mark + 1, name + n_digits) != 0)
		return -1;
	return layer;
}

static bool
rename_tensor(const GgufNamePair *pairs, const char *name,
			  LlmGgufTensorName *out)
{
	for (; pairs->gguf != NULL; pairs++)
	{
		long layer = match_layer(pairs->gguf, name);
		const char *mark = strchr(pairs->other, '#');

		if (layer < 0)
			continue;
		if (mark == NULL)
			snprintf(out->name, sizeof(out->name), "%s", pairs->other);
		else
			snprintf(out->name, sizeof(out->name), "%.*s%ld%s",
					 (int) (mark - pairs->other), pairs->other, layer,
					 mark + 1);
		return true;
	}
	return false;
}

static bool
ends_with(const char *text, const char *suffix)
{
	size_t len = strlen(text);
	size_t suffix_len = strlen(suffix);

	return len >= suffix_len && strcmp(text + len - suffix_len, suffix) == 0;
}

/* Rows of q and k come in pairs, head by head. */
static bool
find_paired_rows(const LlmGguf *gguf, const GgufArchitecture *architecture,
				 const LlmGgufTensor *tensor, LlmGgufTensorName *out,
				 LlmError *err)
{
	bool is_q = strstr(tensor->name, ".attn_q.") != NULL;
	GgufKey heads = gguf_key(architecture, "attention.head_count");
	GgufKey kv_heads = gguf_key(architecture, "attention.head_count_kv");

	if (!is_q && strstr(tensor->name, ".attn_k.") == NULL)
		return true;
	if (!llm_gguf_get_int(gguf, heads.text, &out->n_heads, err) ||
		(!is_q && !llm_gguf_get_int(gguf, kv_heads.text, &out->n_heads, err)))
		return false;
	if (out->n_heads < 1 || tensor->shape[0] % (2 * out->n_heads) != 0)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: tensor \"%s\" has %lld rows, which are not "
							 "pairs of %lld heads",
							 llm_gguf_path(gguf, tensor->file_idx),
							 tensor->name, (long long) tensor->shape[0],
							 (long long) out->n_heads);
	out->change = LLM_GGUF_PAIRED_ROWS;
	return true;
}

bool
llm_gguf_tensor_name(const LlmGguf *gguf, const LlmGgufTensor *tensor,
					 LlmGgufTensorName *name, LlmError *err)
{
	const GgufArchitecture *architecture = gguf_architecture(gguf, err);
	bool is_renamed;

	memset(name, 0, sizeof(*name));
	if (architecture == NULL)
		return false;
	for (size_t i = 0; i < sizeof(rope_tensors) / sizeof(rope_tensors[0]); i++)
	{
		if (strcmp(tensor->name, rope_tensors[i]) == 0)
			name->change = LLM_GGUF_DROPPED;
	}
	is_renamed = rename_tensor(architecture->names, tensor->name, name) ||
				 rename_tensor(common_names, tensor->name, name);
	if (!is_renamed)
		snprintf(name->name, sizeof(name->name), "%s", tensor->name);
	else if (strchr(name->name, '@') != NULL)
	{
		if (tensor->n_dims != 3 || tensor->shape[0] > MAX_EXPERTS)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "%s: tensor \"%s\" must hold up to %d "
								 "experts in 3 dimensions",
								 llm_gguf_path(gguf, tensor->file_idx),
								 tensor->name, MAX_EXPERTS);
		name->n_experts = tensor->shape[0];
	}
	if (architecture->adds_one && ends_with(tensor->name, "norm.weight"))
		name->change = LLM_GGUF_ADDED_ONE;
	return !architecture->pairs_rows ||
		   find_paired_rows(gguf, architecture, tensor, name, err);
}
