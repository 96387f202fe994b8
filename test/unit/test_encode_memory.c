/*
 * test_encode_memory.c
 *	  What a tokenizer takes over from the text before never changes ids.
 *
 * Texts are made at random of added tokens, whole and cut, white space and
 * words, each beginning as the one before does.  A tokenizer that has encoded
 * them all has to give what one gives that was just opened.
 *
 * test/unit/test_encode_memory.c
 */
#include <cjson/cJSON.h>

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/util/mapped_file.h"
#include "test/unit/unit_test.h"

#define VECTORS "test/vectors/tokenizer/"
#define N_TEXTS 600

static LlmError err;
static uint64_t random_state = 12345;

static size_t
below(size_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) +
				   UINT64_C(1442695040888963407);
	return (size_t) (random_state >> 33) % n;
}

typedef struct Sample
{
	LlmMappedFile file;
	cJSON *json;
	const cJSON *added; /* [n_added] */
	int n_added;
	LlmStrbuf image;
} Sample;

static bool
load(const char *name, Sample *sample)
{
	char path[256];

	memset(sample, 0, sizeof(*sample));
	snprintf(path, sizeof(path), VECTORS "%s.json", name);
	if (!llm_mapped_file_open(&sample->file, path, &err) ||
		!llm_tokenizer_compile(sample->file.data, sample->file.size, NULL, 0,
							   path, &sample->image, &err))
	{
		CHECK_FAIL("%s: %s", name, err.message);
		return false;
	}
	sample->json = cJSON_ParseWithLength(sample->file.data, sample->file.size);
	sample->added = cJSON_GetObjectItem(sample->json, "added_tokens");
	sample->n_added = cJSON_GetArraySize(sample->added);
	return sample->n_added > 0;
}

static void
unload(Sample *sample)
{
	cJSON_Delete(sample->json);
	llm_strbuf_free(&sample->image);
	llm_mapped_file_close(&sample->file);
}

static void
append_piece(const Sample *sample, LlmStrbuf *text)
{
	static const char *const others[] = {
		" ",  "  ",		  "\n", " \n\t",		"Order ", "lamp", "12",
		"'s", "\xC3\xA4", "<",	"\xE2\x80\x83", "|>",	  "[",	  "\xFF"
	};
	const cJSON *token = cJSON_GetArrayItem(
		sample->added, (int) below((size_t) sample->n_added));
	const char *content = cJSON_GetObjectItem(token, "content")->valuestring;
	size_t len = strlen(content);

	switch (below(5))
	{
		case 0:
		case 1:
			llm_strbuf_append(text, content, len);
			break;
		case 2:
			llm_strbuf_append(text, content, below(len + 1));
			break;
		default:
			llm_strbuf_append_str(
				text, others[below(sizeof(others) / sizeof(others[0]))]);
	}
}

/* Ids by a tokenizer without a past. */
static bool
encode_anew(const Sample *sample, const LlmStrbuf *text, LlmIdbuf *ids)
{
	LlmTokenizer *tokenizer =
		llm_tokenizer_open(sample->image.data, sample->image.len, &err);
	bool ok = tokenizer != NULL &&
			  llm_tokenizer_encode(tokenizer, llm_strbuf_str(text), text->len,
								   true, NULL, ids, &err);

	llm_tokenizer_close(tokenizer);
	return ok;
}

/* Returns how many ids were taken over. */
static size_t
check_texts(const char *name, const Sample *sample)
{
	LlmTokenizer *tokenizer =
		llm_tokenizer_open(sample->image.data, sample->image.len, &err);
	LlmStrbuf text = { 0 };
	LlmIdbuf ids = { 0 };
	LlmIdbuf expected = { 0 };
	size_t n_taken = 0;

	for (int i = 0; i < N_TEXTS; i++)
	{
		text.len = below(text.len + 1);
		for (size_t n = 1 + below(8); n > 0; n--)
			append_piece(sample, &text);
		llm_idbuf_reset(&ids);
		llm_idbuf_reset(&expected);
		(void) llm_encode_memory_recall(&tokenizer->memory,
										llm_strbuf_str(&text), text.len, &ids);
		n_taken += ids.n_ids;
		llm_idbuf_reset(&ids);
		if (!llm_tokenizer_encode(tokenizer, llm_strbuf_str(&text), text.len,
								  true, NULL, &ids, &err) ||
			!encode_anew(sample, &text, &expected))
			CHECK_FAIL("%s: %s", name, err.message);
		if (ids.n_ids != expected.n_ids ||
			(ids.n_ids > 0 &&
			 memcmp(ids.ids, expected.ids, ids.n_ids * sizeof(int32_t)) != 0))
		{
			CHECK_FAIL("%s: text %d, \"%s\", has %zu ids, not %zu", name, i,
					   llm_strbuf_str(&text), ids.n_ids, expected.n_ids);
			break;
		}
		if (text.len > 400)
			llm_strbuf_reset(&text);
	}
	llm_strbuf_free(&text);
	llm_idbuf_free(&ids);
	llm_idbuf_free(&expected);
	llm_tokenizer_close(tokenizer);
	return n_taken;
}

/* Byte-level, with byte fallback, normalized, Unigram, WordPiece. */
static const char *const names[] = { "llama3", "qwen2",	 "llama2", "mistral",
									 "phi3",   "gemma",	 "t5",	   "bert",
									 "clip",   "mapped", "spaced", "prefixed" };

static void
test_random_texts(void)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		Sample sample;

		if (load(names[i], &sample))
			/* some normalize all added tokens, and take over nothing */
			printf("%s: %zu ids taken over\n", names[i],
				   check_texts(names[i], &sample));
		unload(&sample);
	}
}

/* An encoding that fails leaves nothing behind. */
static void
test_failure(void)
{
	static const char text[] = "<|begin_of_text|>one two three<|eot_id|>four";
	Sample sample;
	LlmTokenizer *tokenizer;
	LlmIdbuf ids = { 0 };
	LlmIdbuf limited = { .limit = 3 };

	if (!load("llama3", &sample))
		return;
	tokenizer = llm_tokenizer_open(sample.image.data, sample.image.len, &err);
	CHECK(llm_tokenizer_encode(tokenizer, text, strlen(text), false, NULL, &ids,
							   &err));
	CHECK(tokenizer->memory.n_marks > 0);
	CHECK(!llm_tokenizer_encode(tokenizer, text, strlen(text), false, NULL,
								&limited, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);
	CHECK_INT_EQ(limited.n_ids, 0);
	CHECK_INT_EQ(tokenizer->memory.n_marks, 0);
	llm_idbuf_free(&ids);
	llm_idbuf_free(&limited);
	llm_tokenizer_close(tokenizer);
	unload(&sample);
}

int
main(void)
{
	RUN_TEST(test_random_texts);
	RUN_TEST(test_failure);
	return unit_test_finish();
}
