/*
 * gguf_merges.c
 *	  Merges from SentencePiece's scores.
 *
 * SentencePiece joins the two neighbours whose union has the best score;
 * tokenizer.json lists merges by rank.  As transformers' converter does
 * (convert_slow_tokenizer.generate_merges), each way to cut a piece into two
 * pieces is a merge; they are ordered by the score of the whole, then by the
 * lengths of left and right in characters, all the greatest first, and where
 * these are equal by the ids of whole, left and right.
 *
 * User-defined pieces have the score 0 in SentencePiece's models; llama.cpp's
 * converter may write another one, which is not used.
 *
 * src/common/gguf/gguf_merges.c
 */
#include <stdlib.h>
#include <string.h>

#include "src/common/gguf/gguf_vocab.h"

#define MAX_MERGES ((size_t) 1 << 25)

typedef struct Merge
{
	float score;
	int32_t whole_id;
	int32_t left_id;
	int32_t right_id;
	int32_t left_chars;
	int32_t right_chars;
} Merge;

typedef struct MergeList
{
	Merge *merges; /* malloc'ed */
	size_t n_merges;
	size_t capacity;
} MergeList;

static bool
is_inside_character(char c)
{
	return ((unsigned char) c & 0xC0) == 0x80;
}

static int32_t
count_characters(const char *text, size_t len)
{
	int32_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += !is_inside_character(text[i]);
	return n;
}

static bool
append_merge(MergeList *list, Merge merge, LlmError *err)
{
	if (list->n_merges == list->capacity)
	{
		size_t capacity = list->capacity > 0 ? list->capacity * 2 : 4096;
		Merge *grown = capacity <= MAX_MERGES
						   ? realloc(list->merges, capacity * sizeof(*grown))
						   : NULL;

		if (grown == NULL)
			return llm_error_no_memory(err, capacity * sizeof(*grown),
									   "a vocabulary's merges");
		list->merges = grown;
		list->capacity = capacity;
	}
	list->merges[list->n_merges++] = merge;
	return true;
}

/* All ways to cut a piece into two. */
static bool
append_cuts(const GgufVocab *vocab, int32_t token_id, MergeList *list,
			LlmError *err)
{
	const GgufToken *token = &vocab->tokens[token_id];
	const char *text = token->text.data;
	size_t len = token->text.len;
	int32_t n_chars = count_characters(text, len);
	int32_t left_chars = 1;

	for (size_t cut = 1; cut < len; cut++)
	{
		Merge merge = { .whole_id = token_id };

		if (is_inside_character(text[cut]))
			continue;
		merge.left_chars = left_chars++;
		merge.right_chars = n_chars - merge.left_chars;
		merge.score = token->type == GGUF_TOKEN_USER_DEFINED ? 0 : token->score;
		merge.left_id = gguf_vocab_find(vocab, text, cut);
		if (merge.left_id < 0)
			continue;
		merge.right_id = gguf_vocab_find(vocab, text + cut, len - cut);
		if (merge.right_id >= 0 && !append_merge(list, merge, err))
			return false;
	}
	return true;
}

static int
compare_ints(int32_t a, int32_t b)
{
	return (a > b) - (a < b);
}

static int
compare_merges(const void *a, const void *b)
{
	const Merge *x = a;
	const Merge *y = b;
	int order;

	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	order = compare_ints(y->left_chars, x->left_chars);
	if (order == 0)
		order = compare_ints(y->right_chars, x->right_chars);
	if (order == 0)
		order = compare_ints(x->whole_id, y->whole_id);
	if (order == 0)
		order = compare_ints(x->left_id, y->left_id);
	return order != 0 ? order : compare_ints(x->right_id, y->right_id);
}

static void
append_text(const GgufVocab *vocab, int32_t token_id, LlmStrbuf *json)
{
	const LlmGgufText *text = &vocab->tokens[token_id].text;

	gguf_json_append_string(json, text->data, text->len);
}

bool
gguf_vocab_write_merges(const GgufVocab *vocab, LlmStrbuf *json, LlmError *err)
{
	MergeList list = { 0 };
	bool ok = true;

	/* control tokens are cut out of a text before anything merges */
	for (int32_t id = 0; ok && id < vocab->n_tokens; id++)
	{
		if (vocab->tokens[id].type != GGUF_TOKEN_CONTROL)
			ok = append_cuts(vocab, id, &list, err);
	}
	if (ok && list.n_merges > 0)
		qsort(list.merges, list.n_merges, sizeof(*list.merges), compare_merges);
	for (size_t i = 0; ok && i < list.n_merges; i++)
	{
		llm_strbuf_append_str(json, i > 0 ? ",[" : "[");
		append_text(vocab, list.merges[i].left_id, json);
		llm_strbuf_append_char(json, ',');
		append_text(vocab, list.merges[i].right_id, json);
		llm_strbuf_append_char(json, ']');
	}
	free(list.merges);
	return ok;
}
