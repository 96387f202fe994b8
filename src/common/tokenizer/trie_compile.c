/*
 * trie_compile.c
 *	  The models that are not BPE: vocabulary with scores, and the trie.
 *
 * Unigram's vocabulary is a list of (content, score), an id being a place in
 * it; of equal contents the last one counts, though each id keeps its text.
 * WordPiece's and WordLevel's is an object, as BPE's.
 *
 * Scores decide ties by their last bit, so they must be what the reference
 * reads.  Its JSON parser does not round a decimal number correctly but
 * divides (or multiplies) its digits by a power of ten; read_score does the
 * same with the digits of the shortest notation, which is how such files are
 * written.
 *
 * src/common/tokenizer/trie_compile.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/tokenizer/tokenizer_compiler.h"

/* Bounds what searching the trie can cost, and the trie's size. */
#define MAX_TRIE_TOKEN_BYTES 4096
#define MAX_TRIE_NODES (1 << 26)

#define UNKNOWN_PENALTY 10.0

/* ------------------------------------------------------------------ scores */

/* Digits and decimal exponent of the shortest text that means the value. */
static void
shortest_digits(double value, uint64_t *digits, int *exponent)
{
	char text[40];
	char *at;

	for (int precision = 1; precision <= 17; precision++)
	{
		snprintf(text, sizeof(text), "%.*e", precision - 1, value);
		if (strtod(text, NULL) == value)
			break;
	}
	*digits = 0;
	*exponent = 0;
	for (at = text; *at != 'e'; at++)
	{
		if (*at == '.')
			continue;
		*digits = *digits * 10 + (uint64_t) (*at - '0');
		*exponent -= *digits > 0 && at > text ? 1 : 0;
	}
	*exponent += (int) strtol(at + 1, NULL, 10);
	while (*digits > 0 && *digits % 10 == 0 && *exponent < 0)
	{
		*digits /= 10;
		(*exponent)++;
	}
}

static double
power_of_ten(int exponent)
{
	char text[16];

	assert(exponent >= 0 && exponent <= 308);
	snprintf(text, sizeof(text), "1e%d", exponent);
	return strtod(text, NULL);
}

/* The value as the reference reads it. */
static double
read_score(double value)
{
	uint64_t digits;
	int exponent;
	double score;

	if (value == 0 || !isfinite(value))
		return value;
	shortest_digits(fabs(value), &digits, &exponent);
	score = (double) digits;
	for (; exponent < -308; exponent += 308)
		score /= 1e308;
	score = exponent >= 0 ? score * power_of_ten(exponent)
						  : score / power_of_ten(-exponent);
	return value < 0 ? -score : score;
}

/* -------------------------------------------------------------- vocabulary */

static bool
bad_piece(size_t idx, LlmError *err)
{
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 "entry %zu of the vocabulary is no pair of a text and "
						 "a finite score",
						 idx);
}

static bool
compile_pieces(LlmImageBuilder *builder, const cJSON *vocab, LlmError *err)
{
	const cJSON *item;
	double min_score = INFINITY;
	size_t n = 0;

	cJSON_ArrayForEach(item, vocab)
	{
		const cJSON *content = cJSON_IsArray(item) ? item->child : NULL;
		const cJSON *value = content != NULL ? content->next : NULL;
		double score;

		if (value == NULL || value->next != NULL || !cJSON_IsString(content) ||
			!cJSON_IsNumber(value) || !isfinite(value->valuedouble))
			return bad_piece(n, err);
		score = read_score(value->valuedouble);
		if (!isfinite(score))
			return bad_piece(n, err);
		llm_compile_vocab_entry(builder, content->valuestring, (int32_t) n++,
								true);
		llm_image_builder_add(builder, LLM_TOKEN_SCORES, &score);
		if (score < min_score)
			min_score = score;
		if (!llm_image_builder_check(builder, err))
			return false;
	}
	builder->n_vocab_entries = (uint32_t) n;
	builder->header.unk_score = min_score - UNKNOWN_PENALTY;
	return true;
}

/* -------------------------------------------------------------------- trie */

/* The entries below a node: a range of the sorted contents. */
typedef struct TrieRange
{
	uint32_t low;
	uint32_t high;
	uint32_t depth;
} TrieRange;

typedef struct TrieCompiler
{
	LlmImageBuilder *builder;
	const LlmTokenVocabEntry *entries;
	const unsigned char *blob;
	uint32_t *order;  /* entries sorted by content */
	LlmStrbuf ranges; /* TrieRange, by node */
} TrieCompiler;

/* For qsort_r; of equal contents the later entry comes last. */
static int
compare_contents(const void *a, const void *b, void *arg)
{
	const TrieCompiler *tc = arg;
	uint32_t left_idx = *(const uint32_t *) a;
	uint32_t right_idx = *(const uint32_t *) b;
	LlmTokenText left = tc->entries[left_idx].text;
	LlmTokenText right = tc->entries[right_idx].text;
	int order = memcmp(tc->blob + left.off, tc->blob + right.off,
					   left.len < right.len ? left.len : right.len);

	if (order != 0)
		return order;
	if (left.len != right.len)
		return left.len < right.len ? -1 : 1;
	return left_idx < right_idx ? -1 : left_idx > right_idx;
}

static bool
add_node(TrieCompiler *tc, unsigned char label, TrieRange range, LlmError *err)
{
	LlmTokenTrieNode node = { .label = label };

	if (llm_image_builder_count(tc->builder, LLM_TOKEN_TRIE) >= MAX_TRIE_NODES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "the vocabulary's tokens are too long in all");
	llm_image_builder_add(tc->builder, LLM_TOKEN_TRIE, &node);
	llm_strbuf_append(&tc->ranges, &range, sizeof(range));
	if (tc->ranges.failed)
		return llm_error_no_memory(err, tc->ranges.len, "a tokenizer image");
	return llm_image_builder_check(tc->builder, err);
}

/* Give a node its entry, and append its children. */
static bool
expand_node(TrieCompiler *tc, size_t node_idx, LlmError *err)
{
	LlmStrbuf *section = &tc->builder->sections[LLM_TOKEN_TRIE];
	TrieRange range = ((const TrieRange *) (void *) tc->ranges.data)[node_idx];
	LlmTokenTrieNode *node;
	uint32_t entry = 0;
	uint32_t first_child =
		(uint32_t) llm_image_builder_count(tc->builder, LLM_TOKEN_TRIE);
	uint16_t n_children = 0;
	uint32_t at = range.low;

	for (;
		 at < range.high && tc->entries[tc->order[at]].text.len == range.depth;
		 at++)
		entry = tc->order[at] + 1;
	while (at < range.high)
	{
		unsigned char label =
			tc->blob[tc->entries[tc->order[at]].text.off + range.depth];
		TrieRange child = { at, at, range.depth + 1 };

		for (; child.high < range.high &&
			   tc->blob[tc->entries[tc->order[child.high]].text.off +
						range.depth] == label;
			 child.high++)
			;
		if (!add_node(tc, label, child, err))
			return false;
		n_children++;
		at = child.high;
	}
	node = (LlmTokenTrieNode *) (void *) section->data + node_idx;
	node->first_child = first_child;
	node->n_children = n_children;
	node->entry = entry;
	return true;
}

static bool
build_trie(TrieCompiler *tc, LlmError *err)
{
	uint32_t n = tc->builder->n_vocab_entries;

	for (uint32_t i = 0; i < n; i++)
	{
		tc->order[i] = i;
		if (tc->entries[i].text.len > MAX_TRIE_TOKEN_BYTES)
			return llm_error_set(err, LLM_ERROR_LIMIT,
								 "the vocabulary's token with id %d has %u "
								 "bytes, more than %d",
								 tc->entries[i].token_id,
								 tc->entries[i].text.len, MAX_TRIE_TOKEN_BYTES);
	}
	if (n > 0)
		qsort_r(tc->order, n, sizeof(tc->order[0]), compare_contents, tc);
	if (!add_node(tc, 0, (TrieRange){ 0, n, 0 }, err))
		return false;
	for (size_t i = 0; i < llm_image_builder_count(tc->builder, LLM_TOKEN_TRIE);
		 i++)
	{
		if (!expand_node(tc, i, err))
			return false;
	}
	return true;
}

static bool
compile_trie(LlmImageBuilder *builder, LlmError *err)
{
	TrieCompiler tc = {
		.builder = builder,
		.entries = (const void *) builder->sections[LLM_TOKEN_VOCAB].data,
		.blob = (const void *) builder->sections[LLM_TOKEN_BLOB].data
	};
	bool ok;

	tc.order =
		malloc(((size_t) builder->n_vocab_entries + 1) * sizeof(tc.order[0]));
	if (tc.order == NULL)
		return llm_error_no_memory(err, builder->n_vocab_entries * 4u,
								   "a tokenizer image");
	ok = build_trie(&tc, err);
	llm_strbuf_free(&tc.ranges);
	free(tc.order);
	return ok;
}

/* ------------------------------------------------------------------ models */

bool
llm_compile_unigram(LlmImageBuilder *builder, const cJSON *model, LlmError *err)
{
	const cJSON *vocab = llm_json_get(model, "vocab");
	size_t n = (size_t) cJSON_GetArraySize(vocab);
	int64_t unk_id = LLM_TOKEN_NO_UNK;
	bool falls_back = false;

	if (!cJSON_IsArray(vocab))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the model has no \"vocab\" array");
	if (n > LLM_TOKEN_MAX_IDS)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "the vocabulary has %zu tokens, more than %d", n,
							 LLM_TOKEN_MAX_IDS);
	if (!llm_json_get_int(model, "unk_id", &unk_id, err) ||
		!llm_json_get_bool(model, "byte_fallback", &falls_back, err))
		return false;
	if (llm_json_get(model, "unk_id") != NULL &&
		(unk_id < 0 || unk_id >= (int64_t) n))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the unknown token's id %lld is not in the "
							 "vocabulary of %zu",
							 (long long) unk_id, n);
	builder->header.model_kind = LLM_TOKEN_MODEL_UNIGRAM;
	builder->header.unk_id = (int32_t) unk_id;
	if (falls_back)
		builder->header.flags |= LLM_TOKEN_MODEL_BYTE_FALLBACK;
	return llm_compile_vocab_table(builder, n, err) &&
		   compile_pieces(builder, vocab, err) && compile_trie(builder, err);
}

bool
llm_compile_word_piece(LlmImageBuilder *builder, const cJSON *model,
					   LlmTokenModelKind kind, LlmError *err)
{
	LlmTokenImageHeader *header = &builder->header;
	const char *unk_token = NULL;
	const char *prefix = NULL;
	int64_t max_chars = -1;

	if (!llm_json_get_string(model, "unk_token", &unk_token, err) ||
		!llm_json_get_string(model, "continuing_subword_prefix", &prefix,
							 err) ||
		!llm_json_get_int(model, "max_input_chars_per_word", &max_chars, err))
		return false;
	if (unk_token == NULL)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the model has no \"unk_token\"");
	if (kind == LLM_TOKEN_MODEL_WORD_PIECE && prefix == NULL)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the model has no \"continuing_subword_prefix\"");
	if (kind == LLM_TOKEN_MODEL_WORD_PIECE && max_chars < 0)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the model has no \"max_input_chars_per_word\" "
							 "of 0 or more");
	header->model_kind = kind;
	if (kind == LLM_TOKEN_MODEL_WORD_PIECE)
	{
		header->max_word_chars = (uint64_t) max_chars;
		header->subword_prefix =
			llm_image_builder_text(builder, prefix, strlen(prefix));
	}
	return llm_compile_vocab(builder, model, err) &&
		   llm_compile_find_unknown(builder, unk_token) &&
		   (kind == LLM_TOKEN_MODEL_WORD_LEVEL || compile_trie(builder, err));
}
