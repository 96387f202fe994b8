/*
 * word_model.c
 *	  The models behind one door: from a word to token ids.
 *
 *	  bpe.c			BPE
 *	  unigram.c		Unigram
 *	  word_piece.c	WordPiece and WordLevel
 *
 * src/common/tokenizer/word_model.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/tokenizer/tokenizer_internal.h"

struct LlmWordModel
{
	LlmTokenModelKind kind;
	LlmBpe *bpe; /* that of the kind; the others are NULL */
	LlmUnigram *unigram;
	LlmWordPiece *word_piece;
};

LlmWordModel *
llm_word_model_create(const LlmTokenImage *image, LlmEncodeGuard *guard,
					  LlmError *err)
{
	LlmWordModel *model = calloc(1, sizeof(*model));
	bool ok = false;

	if (model == NULL)
	{
		llm_error_no_memory(err, sizeof(*model), "a tokenizer's model");
		return NULL;
	}
	model->kind = (LlmTokenModelKind) image->header->model_kind;
	switch (model->kind)
	{
		case LLM_TOKEN_MODEL_BPE:
			model->bpe = llm_bpe_create(image, guard, err);
			ok = model->bpe != NULL;
			break;
		case LLM_TOKEN_MODEL_UNIGRAM:
			model->unigram = llm_unigram_create(image, guard, err);
			ok = model->unigram != NULL;
			break;
		case LLM_TOKEN_MODEL_WORD_PIECE:
		case LLM_TOKEN_MODEL_WORD_LEVEL:
			model->word_piece = llm_word_piece_create(image, guard, err);
			ok = model->word_piece != NULL;
			break;
	}
	if (!ok)
	{
		llm_word_model_free(model);
		return NULL;
	}
	return model;
}

void
llm_word_model_free(LlmWordModel *model)
{
	if (model == NULL)
		return;
	llm_bpe_free(model->bpe);
	llm_unigram_free(model->unigram);
	llm_word_piece_free(model->word_piece);
	free(model);
}

bool
llm_word_model_encode(LlmWordModel *model, const char *word, size_t len,
					  LlmIdbuf *out, LlmError *err)
{
	assert(len > 0);
	switch (model->kind)
	{
		case LLM_TOKEN_MODEL_BPE:
			return llm_bpe_encode_word(model->bpe, word, len, out, err);
		case LLM_TOKEN_MODEL_UNIGRAM:
			return llm_unigram_encode_word(model->unigram, word, len, out, err);
		case LLM_TOKEN_MODEL_WORD_PIECE:
		case LLM_TOKEN_MODEL_WORD_LEVEL:
			return llm_word_piece_encode_word(model->word_piece, word, len, out,
											  err);
	}
	return llm_error_set(err, LLM_ERROR_INTERNAL, "unknown tokenizer model");
}

bool
llm_word_model_append(const LlmTokenImage *image, const int32_t *ids, size_t n,
					  LlmIdbuf *out, LlmError *err)
{
	for (size_t i = 0; i < n; i++)
	{
		if (ids[i] < 0 || (uint32_t) ids[i] >= image->n_ids)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "the tokenizer image is damaged: token id %d "
								 "is out of range",
								 ids[i]);
	}
	llm_idbuf_append_many(out, ids, n);
	return true;
}

bool
llm_word_model_append_unknown(const LlmTokenImage *image, LlmIdbuf *out,
							  LlmError *err)
{
	int32_t unk_id = image->header->unk_id;

	if (unk_id >= 0)
		return llm_word_model_append(image, &unk_id, 1, out, err);
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 "the text has a word that the tokenizer does not "
						 "know, and its unknown token is not in the "
						 "vocabulary");
}
