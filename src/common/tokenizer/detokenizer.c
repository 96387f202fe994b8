/*
 * detokenizer.c
 *	  From token ids back to text, at once or as they come.
 *
 * A detokenizer feeds tokens to a chain of decoders (decode_steps.c), and
 * decoding at once is a detokenizer that is given everything and flushed.
 *
 * src/common/tokenizer/detokenizer.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/util/utf8.h"

struct LlmDetokenizer
{
	LlmTokenizer *tokenizer; /* borrowed */
	LlmDecodeChain *chain;
	bool skip_special_tokens;
};

LlmDetokenizer *
llm_detokenizer_create(LlmTokenizer *tokenizer, bool skip_special_tokens,
					   LlmError *err)
{
	LlmDetokenizer *detokenizer = calloc(1, sizeof(*detokenizer));

	if (detokenizer == NULL)
	{
		llm_error_no_memory(err, sizeof(*detokenizer), "a detokenizer");
		return NULL;
	}
	detokenizer->tokenizer = tokenizer;
	detokenizer->skip_special_tokens = skip_special_tokens;
	detokenizer->chain = llm_decode_chain_create(&tokenizer->decoders, err);
	if (detokenizer->chain == NULL)
	{
		free(detokenizer);
		return NULL;
	}
	return detokenizer;
}

void
llm_detokenizer_free(LlmDetokenizer *detokenizer)
{
	if (detokenizer == NULL)
		return;
	llm_decode_chain_free(detokenizer->chain);
	free(detokenizer);
}

/*
 * What decoders are fed for an id.  NULL without an error: an id between the
 * others that no token has, which decodes to nothing.
 */
static bool
token_text(const LlmTokenizer *tokenizer, int32_t token_id, const char **text,
		   size_t *len, LlmError *err)
{
	const LlmTokenImage *image = &tokenizer->image;
	const LlmTokenAdded *added;

	if (token_id < 0 || (uint32_t) token_id >= image->n_ids)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "token id %d is not in the vocabulary of %u",
							 token_id, image->n_ids);
	added = llm_token_image_added(image, token_id);
	if (added != NULL)
		*text = llm_token_image_text(image, added->decoded, len);
	else
		*text = llm_token_image_content(image, token_id, len);
	if (*text != NULL && !llm_utf8_is_valid(*text, *len))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the tokenizer image is damaged: token id %d is "
							 "no text",
							 token_id);
	return true;
}

static bool
check_output(const LlmStrbuf *out, LlmError *err)
{
	if (!out->failed)
		return true;
	if (out->limit != 0)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "the decoded text has more than %zu bytes",
							 out->limit);
	return llm_error_no_memory(err, out->len, "decoded text");
}

bool
llm_detokenizer_push(LlmDetokenizer *detokenizer, int32_t token_id,
					 LlmStrbuf *out, LlmError *err)
{
	const LlmTokenizer *tokenizer = detokenizer->tokenizer;
	const char *text = NULL;
	size_t len = 0;

	assert(out != NULL && detokenizer->chain != NULL);
	if (!token_text(tokenizer, token_id, &text, &len, err))
		return false;
	if (text == NULL || (detokenizer->skip_special_tokens &&
						 llm_tokenizer_is_special(tokenizer, token_id)))
		return true;
	return llm_decode_chain_token(detokenizer->chain, text, len, out, err) &&
		   check_output(out, err);
}

bool
llm_detokenizer_flush(LlmDetokenizer *detokenizer, LlmStrbuf *out,
					  LlmError *err)
{
	bool ok = llm_decode_chain_end(detokenizer->chain, out, err) &&
			  check_output(out, err);

	llm_decode_chain_reset(detokenizer->chain);
	return ok;
}

bool
llm_tokenizer_decode(LlmTokenizer *tokenizer, const int32_t *ids, size_t n_ids,
					 bool skip_special_tokens, LlmStrbuf *out, LlmError *err)
{
	if (tokenizer->decoder == NULL)
	{
		tokenizer->decoder = llm_detokenizer_create(tokenizer, false, err);
		if (tokenizer->decoder == NULL)
			return false;
		llm_decode_chain_expect_whole(tokenizer->decoder->chain);
	}
	tokenizer->decoder->skip_special_tokens = skip_special_tokens;
	for (size_t i = 0; i < n_ids; i++)
	{
		if (!llm_detokenizer_push(tokenizer->decoder, ids[i], out, err))
		{
			llm_decode_chain_reset(tokenizer->decoder->chain);
			return false;
		}
	}
	return llm_detokenizer_flush(tokenizer->decoder, out, err);
}

bool
llm_tokenizer_token_bytes(LlmTokenizer *tokenizer, int32_t token_id,
						  LlmStrbuf *out, LlmError *err)
{
	const char *text = NULL;
	size_t len = 0;

	if (!token_text(tokenizer, token_id, &text, &len, err))
		return false;
	return text == NULL ||
		   llm_decode_token_bytes(&tokenizer->decoders, text, len, out, err);
}
