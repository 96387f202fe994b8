/*
 * gguf_vocab.c
 *	  The vocabulary of a GGUF file in memory.
 *
 * src/common/gguf/gguf_vocab.c
 */
#include "src/common/gguf/gguf_vocab.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/utf8.h"

#define MAX_TOKENS (1 << 24)
#define MAX_TOKEN_BYTES 65536

/* FNV-1a */
static uint64_t
hash_text(const char *text, size_t len)
{
	uint64_t hash = UINT64_C(0xCBF29CE484222325);

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char) text[i]) * UINT64_C(0x100000001B3);
	return hash ^ hash >> 32;
}

/* The slot of a text: its own, or the free one where it would go. */
static size_t
find_slot(const GgufVocab *vocab, const char *text, size_t len)
{
	size_t at = (size_t) hash_text(text, len) & vocab->slot_mask;

	for (; vocab->slots[at] != 0; at = (at + 1) & vocab->slot_mask)
	{
		const GgufToken *token = &vocab->tokens[vocab->slots[at] - 1];

		if (token->text.len == len && memcmp(token->text.data, text, len) == 0)
			break;
	}
	return at;
}

int32_t
gguf_vocab_find(const GgufVocab *vocab, const char *text, size_t len)
{
	return vocab->slots[find_slot(vocab, text, len)] - 1;
}

static bool
check_text(const GgufVocab *vocab, int32_t token_id, LlmError *err)
{
	const GgufToken *token = &vocab->tokens[token_id];

	if (token->text.len > MAX_TOKEN_BYTES ||
		memchr(token->text.data, '\0', token->text.len) != NULL ||
		!llm_utf8_is_valid(token->text.data, token->text.len))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: the text of token %d is too long, or no "
							 "UTF-8, or holds a zero byte",
							 vocab->path, token_id);
	return true;
}

static bool
enter_tokens(GgufVocab *vocab, LlmError *err)
{
	size_t n_slots = 2;

	while (n_slots < (size_t) vocab->n_tokens * 2)
		n_slots *= 2;
	vocab->slots = calloc(n_slots, sizeof(*vocab->slots));
	if (vocab->slots == NULL)
		return llm_error_no_memory(err, n_slots * sizeof(*vocab->slots),
								   "a vocabulary");
	vocab->slot_mask = n_slots - 1;
	for (int32_t id = 0; id < vocab->n_tokens; id++)
	{
		const LlmGgufText *text = &vocab->tokens[id].text;
		size_t slot;

		if (!check_text(vocab, id, err))
			return false;
		slot = find_slot(vocab, text->data, text->len);
		if (vocab->slots[slot] != 0)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "%s: tokens %d and %d have the same text",
								 vocab->path, vocab->slots[slot] - 1, id);
		vocab->slots[slot] = id + 1;
	}
	return true;
}

static bool
read_tokens(GgufVocab *vocab, const LlmGguf *gguf, LlmError *err)
{
	LlmGgufArray texts = { 0 };
	LlmGgufArray types = { 0 };
	LlmGgufArray scores = { 0 };

	if (!llm_gguf_get_array(gguf, "tokenizer.ggml.tokens", &texts, err) ||
		!llm_gguf_get_array(gguf, "tokenizer.ggml.token_type", &types, err) ||
		!llm_gguf_get_array(gguf, "tokenizer.ggml.scores", &scores, err))
		return false;
	if (texts.n_left == 0 || texts.n_left > MAX_TOKENS ||
		types.n_left != texts.n_left ||
		(scores.n_left != 0 && scores.n_left != texts.n_left))
		return llm_error_set(
			err, LLM_ERROR_FORMAT,
			"%s: the vocabulary has %llu tokens, %llu types and %llu scores",
			vocab->path, (unsigned long long) texts.n_left,
			(unsigned long long) types.n_left,
			(unsigned long long) scores.n_left);
	vocab->tokens = calloc((size_t) texts.n_left, sizeof(*vocab->tokens));
	if (vocab->tokens == NULL)
		return llm_error_no_memory(err, texts.n_left * sizeof(*vocab->tokens),
								   "a vocabulary");
	vocab->n_tokens = (int32_t) texts.n_left;
	for (int32_t id = 0; id < vocab->n_tokens; id++)
	{
		GgufToken *token = &vocab->tokens[id];
		double type = 0;
		double score = 0;

		if (!llm_gguf_next_text(&texts, &token->text) ||
			!llm_gguf_next_number(&types, &type) ||
			(scores.n_left > 0 && !llm_gguf_next_number(&scores, &score)) ||
			!(type >= GGUF_TOKEN_NORMAL && type <= GGUF_TOKEN_BYTE))
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "%s: token %d has no text, an unknown type or "
								 "no score",
								 vocab->path, id);
		token->type = (GgufTokenType) type;
		token->score = (float) score;
	}
	return true;
}

static bool
is_user_defined_spaces(const GgufToken *token)
{
	if (token->type != GGUF_TOKEN_USER_DEFINED || token->text.len == 0)
		return false;
	for (size_t i = 0; i < token->text.len; i++)
	{
		if (token->text.data[i] != ' ')
			return false;
	}
	return true;
}

static bool
restore_spaces(GgufVocab *vocab, LlmError *err)
{
	static const char mark[] = "\xE2\x96\x81"; /* U+2581 */
	const size_t mark_len = sizeof(mark) - 1;
	size_t n_spaces = 0;
	size_t used = 0;

	for (int32_t id = 0; id < vocab->n_tokens; id++)
	{
		if (is_user_defined_spaces(&vocab->tokens[id]))
			n_spaces += vocab->tokens[id].text.len;
	}
	vocab->restored = malloc(n_spaces * mark_len + 1);
	if (vocab->restored == NULL)
		return llm_error_no_memory(err, n_spaces * mark_len, "a vocabulary");
	for (int32_t id = 0; id < vocab->n_tokens; id++)
	{
		LlmGgufText *text = &vocab->tokens[id].text;
		size_t n = text->len;

		if (!is_user_defined_spaces(&vocab->tokens[id]))
			continue;
		*text = (LlmGgufText){ vocab->restored + used, n * mark_len };
		for (; n > 0; n--, used += mark_len)
			memcpy(vocab->restored + used, mark, mark_len);
	}
	assert(used == n_spaces * mark_len);
	return true;
}

bool
gguf_vocab_open(GgufVocab *vocab, const LlmGguf *gguf, bool restores_spaces,
				LlmError *err)
{
	memset(vocab, 0, sizeof(*vocab));
	vocab->path = llm_gguf_path(gguf, 0);
	if (read_tokens(vocab, gguf, err) &&
		(!restores_spaces || restore_spaces(vocab, err)) &&
		enter_tokens(vocab, err))
		return true;
	gguf_vocab_close(vocab);
	return false;
}

void
gguf_vocab_close(GgufVocab *vocab)
{
	free(vocab->tokens);
	free(vocab->slots);
	free(vocab->restored);
	memset(vocab, 0, sizeof(*vocab));
}

void
gguf_json_append_string(LlmStrbuf *json, const char *text, size_t len)
{
	llm_strbuf_append_char(json, '"');
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c == '"' || c == '\\')
			llm_strbuf_append_char(json, '\\');
		if (c < 0x20)
			llm_strbuf_printf(json, "\\u%04x", c);
		else
			llm_strbuf_append_char(json, (char) c);
	}
	llm_strbuf_append_char(json, '"');
}
