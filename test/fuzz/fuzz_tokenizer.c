/*
 * fuzz_tokenizer.c
 *	  Fuzz target: any tokenizer.json, any text, any ids.
 *
 * The input is a tokenizer.json, a byte 0xFF (which no JSON has) and a text.
 * What compiles is opened; the text is encoded, its ids and ids made of the
 * text's bytes are decoded, at once and token by token, which must agree.
 *
 * test/fuzz/fuzz_tokenizer.c
 */
#include <string.h>

#include "src/common/tokenizer/tokenizer.h"
#include "src/common/util/utf8.h"
#include "test/fuzz/fuzz.h"

static LlmError err;

static void
fuzz_decode(LlmTokenizer *tokenizer, const int32_t *ids, size_t n_ids,
			bool skip)
{
	LlmDetokenizer *stream = llm_detokenizer_create(tokenizer, skip, &err);
	LlmStrbuf whole = { 0 };
	LlmStrbuf streamed = { 0 };
	bool ok = llm_tokenizer_decode(tokenizer, ids, n_ids, skip, &whole, &err);

	FUZZ_CHECK(stream != NULL);
	for (size_t i = 0; ok && i <= n_ids; i++)
	{
		size_t start = streamed.len;

		ok = i < n_ids ? llm_detokenizer_push(stream, ids[i], &streamed, &err)
					   : llm_detokenizer_flush(stream, &streamed, &err);
		FUZZ_CHECK(!ok || llm_utf8_is_valid(llm_strbuf_str(&streamed) + start,
											streamed.len - start));
	}
	FUZZ_CHECK(!ok || (whole.len == streamed.len &&
					   memcmp(llm_strbuf_str(&whole), llm_strbuf_str(&streamed),
							  whole.len) == 0));
	llm_detokenizer_free(stream);
	llm_strbuf_free(&whole);
	llm_strbuf_free(&streamed);
}

static void
fuzz_text(LlmTokenizer *tokenizer, const char *text, size_t len)
{
	int32_t n_vocab = llm_tokenizer_n_vocab(tokenizer);
	LlmIdbuf ids = { .limit = 100000 };
	LlmStrbuf bytes = { 0 };

	if (llm_tokenizer_encode(tokenizer, text, len, true, NULL, &ids, &err))
	{
		for (size_t i = 0; i < ids.n_ids; i++)
			FUZZ_CHECK(ids.ids[i] >= 0 && ids.ids[i] < n_vocab);
		fuzz_decode(tokenizer, ids.ids, ids.n_ids, true);
	}
	llm_idbuf_reset(&ids);
	for (size_t i = 0; i < len && i < 64 && n_vocab > 0; i++)
		llm_idbuf_append(&ids, (unsigned char) text[i] % n_vocab);
	fuzz_decode(tokenizer, ids.ids, ids.n_ids, false);
	if (ids.n_ids > 0)
		FUZZ_CHECK(
			llm_tokenizer_token_bytes(tokenizer, ids.ids[0], &bytes, &err));
	llm_strbuf_free(&bytes);
	llm_idbuf_free(&ids);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *separator = size > 0 ? memchr(data, 0xFF, size) : NULL;
	size_t json_len = separator != NULL ? (size_t) (separator - data) : size;
	size_t text_off = separator != NULL ? json_len + 1 : size;
	LlmStrbuf image = { 0 };
	LlmTokenizer *tokenizer = NULL;

	if (llm_tokenizer_compile((const char *) data, json_len, NULL, 0, "fuzz",
							  &image, &err))
	{
		tokenizer = llm_tokenizer_open(image.data, image.len, &err);
		FUZZ_CHECK(tokenizer != NULL);
		fuzz_text(tokenizer, (const char *) data + text_off, size - text_off);
	}
	llm_tokenizer_close(tokenizer);
	llm_strbuf_free(&image);
	return 0;
}
