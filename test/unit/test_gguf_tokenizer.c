/*
 * test_gguf_tokenizer.c
 *	  Tokenizers of GGUF files against the tokenizer.json that they were
 *	  converted from: the same ids and texts for every string of
 *	  test/vectors/tokenizer/cases.jsonl, whichever tokenizer it was made for.
 *
 * test/unit/test_gguf_tokenizer.c
 */
#include <cjson/cJSON.h>

#include "src/common/gguf/gguf.h"
#include "src/common/tokenizer/tokenizer.h"
#include "src/common/util/mapped_file.h"
#include "test/unit/unit_test.h"

#define VECTORS "test/vectors/gguf/"
#define CASES "test/vectors/tokenizer/cases.jsonl"

static LlmError err;

typedef struct Compiled
{
	LlmStrbuf image;
	LlmTokenizer *tokenizer;
} Compiled;

static bool
compile(Compiled *compiled, const char *json, size_t len, const char *what)
{
	llm_strbuf_init(&compiled->image);
	compiled->tokenizer = NULL;
	if (!llm_tokenizer_compile(json, len, NULL, 0, what, &compiled->image,
							   &err))
		return false;
	compiled->tokenizer =
		llm_tokenizer_open(compiled->image.data, compiled->image.len, &err);
	return compiled->tokenizer != NULL;
}

static void
release(Compiled *compiled)
{
	if (compiled->tokenizer != NULL)
		llm_tokenizer_close(compiled->tokenizer);
	llm_strbuf_free(&compiled->image);
}

static bool
compile_json(Compiled *compiled, const char *path)
{
	LlmMappedFile file;
	bool ok;

	memset(compiled, 0, sizeof(*compiled));
	if (!llm_mapped_file_open(&file, path, &err))
		return false;
	ok = compile(compiled, file.data, file.size, path);
	llm_mapped_file_close(&file);
	return ok;
}

/* The tokenizer.json of a file, which is closed. */
static bool
take_json(LlmGguf *gguf, LlmStrbuf *json)
{
	bool found = false;
	bool ok = gguf != NULL &&
			  llm_gguf_text(gguf, "tokenizer.json", json, &found, &err);

	llm_gguf_close(gguf);
	return ok && found;
}

static bool
compile_gguf(Compiled *compiled, const char *path)
{
	LlmStrbuf json;
	bool ok;

	memset(compiled, 0, sizeof(*compiled));
	llm_strbuf_init(&json);
	ok = take_json(llm_gguf_open(path, &err), &json) &&
		 compile(compiled, llm_strbuf_str(&json), json.len, path);
	llm_strbuf_free(&json);
	return ok;
}

/* Encode, decode, compare; ends at the first string that differs. */
static bool
check_text(Compiled *expected, Compiled *actual, const char *text,
		   bool add_special)
{
	Compiled *both[2] = { expected, actual };
	LlmIdbuf ids[2];
	LlmStrbuf decoded[2];
	bool same = true;

	for (int i = 0; i < 2; i++)
	{
		llm_idbuf_init(&ids[i]);
		llm_strbuf_init(&decoded[i]);
		same =
			same &&
			llm_tokenizer_encode(both[i]->tokenizer, text, strlen(text),
								 add_special, NULL, &ids[i], &err) &&
			llm_tokenizer_decode(both[i]->tokenizer, ids[i].ids, ids[i].n_ids,
								 add_special, &decoded[i], &err);
	}
	same =
		same && ids[0].n_ids == ids[1].n_ids &&
		(ids[0].n_ids == 0 ||
		 memcmp(ids[0].ids, ids[1].ids, ids[0].n_ids * sizeof(int32_t)) == 0) &&
		strcmp(llm_strbuf_str(&decoded[0]), llm_strbuf_str(&decoded[1])) == 0;
	for (int i = 0; i < 2; i++)
	{
		llm_idbuf_free(&ids[i]);
		llm_strbuf_free(&decoded[i]);
	}
	return same;
}

static int
check_cases(Compiled *expected, Compiled *actual, const char *what)
{
	FILE *file = fopen(CASES, "r");
	char *line = NULL;
	size_t size = 0;
	int n = 0;

	if (file == NULL)
		return 0;
	while (getline(&line, &size, file) > 0)
	{
		cJSON *json = cJSON_Parse(line);
		const cJSON *text = cJSON_GetObjectItem(json, "text");

		if (cJSON_IsString(text))
		{
			n++;
			if (!check_text(expected, actual, text->valuestring, false) ||
				!check_text(expected, actual, text->valuestring, true))
				CHECK_FAIL("%s differs: \"%s\"", what, text->valuestring);
		}
		cJSON_Delete(json);
	}
	free(line);
	fclose(file);
	return n;
}

static void
check_tokenizer(const char *name, const char *json_path)
{
	char path[200];
	Compiled expected;
	Compiled actual;

	snprintf(path, sizeof(path), VECTORS "tokenizer-%s.gguf", name);
	if (!compile_json(&expected, json_path))
		CHECK_FAIL("%s: %s", json_path, err.message);
	else if (!compile_gguf(&actual, path))
	{
		CHECK_FAIL("%s: %s", path, err.message);
		release(&actual);
	}
	else
	{
		CHECK(check_cases(&expected, &actual, name) > 500);
		release(&actual);
	}
	release(&expected);
}

static void
byte_level_tokenizers_give_the_same_ids(void)
{
	check_tokenizer("llama3", "test/vectors/tokenizer/llama3.json");
	check_tokenizer("qwen2", "test/vectors/tokenizer/qwen2.json");
	check_tokenizer("gpt2", "test/vectors/tokenizer/gpt2.json");
}

static void
sentencepiece_tokenizers_give_the_same_ids(void)
{
	check_tokenizer("llama", VECTORS "llama.json");
	check_tokenizer("gemma", VECTORS "gemma.json");
}

/* ---- pre-tokenizers by name ---- */

/* tokenizer-unsplit.gguf with another name of a pre-tokenizer. */
static bool
take_unsplit_json(const char *pre_name, LlmStrbuf *json)
{
	static const char key[] = "tokenizer.ggml.pre";
	static const char old[] = "gpt-2";
	uint64_t len = strlen(pre_name);
	LlmMappedFile file;
	LlmStrbuf changed;
	size_t at;
	bool ok;

	if (!llm_mapped_file_open(&file, VECTORS "tokenizer-unsplit.gguf", &err))
		return false;
	llm_strbuf_init(&changed);
	/* behind the key: type, length, text; no tensors whose place would move */
	at = (size_t) ((const char *) memmem(file.data, file.size, key,
										 strlen(key)) -
				   (const char *) file.data) +
		 strlen(key) + sizeof(uint32_t);
	llm_strbuf_append(&changed, file.data, at);
	llm_strbuf_append(&changed, &len, sizeof(len));
	llm_strbuf_append(&changed, pre_name, len);
	at += sizeof(len) + strlen(old);
	llm_strbuf_append(&changed, (const char *) file.data + at, file.size - at);
	llm_mapped_file_close(&file);
	ok = take_json(llm_gguf_parse(changed.data, changed.len, pre_name, &err),
				   json);
	llm_strbuf_free(&changed);
	return ok;
}

/* The same tokenizer with the reference's normalizer and pre-tokenizer. */
static bool
compile_reference(Compiled *compiled, const LlmStrbuf *json,
				  const cJSON *reference)
{
	cJSON *tokenizer = cJSON_ParseWithLength(json->data, json->len);
	const cJSON *member;
	char *text;
	bool ok;

	cJSON_ArrayForEach(member, reference)
	{
		cJSON_DeleteItemFromObject(tokenizer, member->string);
		cJSON_AddItemToObject(tokenizer, member->string,
							  cJSON_Duplicate(member, true));
	}
	text = cJSON_PrintUnformatted(tokenizer);
	ok = text != NULL &&
		 compile(compiled, text, strlen(text), reference->string);
	cJSON_free(text);
	cJSON_Delete(tokenizer);
	return ok;
}

static void
check_pre_tokenizer(const cJSON *reference)
{
	Compiled expected = { 0 };
	Compiled actual = { 0 };
	LlmStrbuf json;

	llm_strbuf_init(&json);
	if (!take_unsplit_json(reference->string, &json) ||
		!compile(&actual, json.data, json.len, reference->string) ||
		!compile_reference(&expected, &json, reference))
		CHECK_FAIL("%s: %s", reference->string, err.message);
	else
		CHECK(check_cases(&expected, &actual, reference->string) > 500);
	release(&expected);
	release(&actual);
	llm_strbuf_free(&json);
}

/* What a name stands for splits texts as Hugging Face's tokenizers do. */
static void
named_pre_tokenizers_split_as_the_reference(void)
{
	LlmMappedFile file;
	cJSON *references;
	const cJSON *reference;
	LlmStrbuf json;
	int n = 0;

	REQUIRE(llm_mapped_file_open(&file, VECTORS "pre_tokenizers.json", &err));
	references = cJSON_ParseWithLength(file.data, file.size);
	llm_mapped_file_close(&file);
	cJSON_ArrayForEach(reference, references)
	{
		check_pre_tokenizer(reference);
		n++;
	}
	CHECK(n > 15);
	cJSON_Delete(references);
	llm_strbuf_init(&json);
	CHECK(!take_unsplit_json("unheard-of", &json));
	CHECK(strstr(err.message, "\"unheard-of\" is not supported") != NULL);
	llm_strbuf_free(&json);
}

int
main(void)
{
	RUN_TEST(named_pre_tokenizers_split_as_the_reference);
	RUN_TEST(byte_level_tokenizers_give_the_same_ids);
	RUN_TEST(sentencepiece_tokenizers_give_the_same_ids);
	return unit_test_finish();
}
