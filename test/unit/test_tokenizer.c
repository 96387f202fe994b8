/*
 * test_tokenizer.c
 *	  The tokenizer against the reference's vectors, bad files, damaged images.
 *
 * The strings are made here, from fragments.txt, by the generator that
 * test/vectors/tokenizer/generate_vectors.py describes; digests.txt holds what
 * the reference made of every 50 of them.
 *
 * test/unit/test_tokenizer.c
 */
#include <assert.h>
#include <cjson/cJSON.h>

#include "src/common/tokenizer/split_regex.h"
#include "src/common/tokenizer/tokenizer.h"
#include "src/common/tokenizer/tokenizer_image.h"
#include "src/common/util/mapped_file.h"
#include "src/common/util/sha256.h"
#include "src/common/util/utf8.h"
#include "test/unit/unit_test.h"

#define VECTORS "test/vectors/tokenizer/"
#define BLOCK 50

static LlmError err;

/* ------------------------------------------------------------ the generator */

typedef struct Random
{
	uint64_t state;
} Random;

static uint64_t
next_random(Random *rnd)
{
	uint64_t z = rnd->state += 0x9E3779B97F4A7C15u;

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

typedef struct Fragment
{
	char *text; /* NULL: a range of characters */
	size_t len;
	uint32_t low;
	uint32_t high;
	uint32_t longest;
} Fragment;

static Fragment *fragments;
static size_t n_fragments;

static void
parse_fragment(const char *line, Fragment *fragment)
{
	unsigned low;
	unsigned high;
	unsigned longest;

	memset(fragment, 0, sizeof(*fragment));
	if (line[0] == 'T')
	{
		fragment->len = strcspn(line + 2, "\n") / 2;
		fragment->text = malloc(fragment->len + 1);
		for (size_t i = 0; i < fragment->len; i++)
		{
			unsigned byte = 0;

			sscanf(line + 2 + 2 * i, "%2x", &byte);
			fragment->text[i] = (char) byte;
		}
	}
	else if (sscanf(line, "R %x %x %u", &low, &high, &longest) == 3)
	{
		fragment->low = low;
		fragment->high = high;
		fragment->longest = longest;
	}
}

static bool
load_fragments(void)
{
	FILE *file = fopen(VECTORS "fragments.txt", "r");
	char line[4096];

	if (file == NULL)
		return false;
	fragments = malloc(4096 * sizeof(*fragments));
	while (fgets(line, sizeof(line), file) != NULL && n_fragments < 4096)
	{
		if (line[0] == 'T' || line[0] == 'R')
			parse_fragment(line, &fragments[n_fragments++]);
	}
	fclose(file);
	return n_fragments > 0;
}

static void
make_string(uint64_t seed, LlmStrbuf *out)
{
	Random rnd = { seed };
	uint64_t n = 1 + next_random(&rnd) % 20;

	if (next_random(&rnd) % 50 == 0)
		n *= 10;
	for (uint64_t i = 0; i < n; i++)
	{
		const Fragment *fragment = &fragments[next_random(&rnd) % n_fragments];
		uint64_t count;

		if (fragment->text != NULL)
		{
			llm_strbuf_append(out, fragment->text, fragment->len);
			continue;
		}
		count = 1 + next_random(&rnd) % fragment->longest;
		for (uint64_t k = 0; k < count; k++)
		{
			char bytes[4];
			uint32_t cp = fragment->low +
						  (uint32_t) (next_random(&rnd) %
									  (fragment->high - fragment->low + 1));

			llm_strbuf_append(out, bytes, (size_t) llm_utf8_encode(cp, bytes));
		}
	}
}

static void
make_ids(int32_t n_vocab, uint64_t seed, LlmIdbuf *out)
{
	Random rnd = { seed ^ 0x5555555555555555u };
	uint64_t n = next_random(&rnd) % 40;

	for (uint64_t i = 0; i < n; i++)
		llm_idbuf_append(out,
						 (int32_t) (next_random(&rnd) % (uint64_t) n_vocab));
}

static void
make_word(uint64_t seed, size_t n, LlmStrbuf *out)
{
	Random rnd = { seed };

	for (size_t i = 0; i < n; i++)
		llm_strbuf_append_char(out, "etaoinshrdlu"[next_random(&rnd) % 12]);
}

/* -------------------------------------------------------------- tokenizers */

typedef struct Loaded
{
	LlmStrbuf image;
	LlmTokenizer *tokenizer;
	LlmDetokenizer *streams[2]; /* keeping and skipping special tokens */
} Loaded;

static bool
open_image(Loaded *loaded)
{
	loaded->tokenizer =
		llm_tokenizer_open(loaded->image.data, loaded->image.len, &err);
	if (loaded->tokenizer == NULL)
		return false;
	for (int skip = 0; skip < 2; skip++)
		loaded->streams[skip] =
			llm_detokenizer_create(loaded->tokenizer, skip != 0, &err);
	return loaded->streams[0] != NULL && loaded->streams[1] != NULL;
}

static void
unload(Loaded *loaded)
{
	llm_detokenizer_free(loaded->streams[0]);
	llm_detokenizer_free(loaded->streams[1]);
	llm_tokenizer_close(loaded->tokenizer);
	llm_strbuf_free(&loaded->image);
	memset(loaded, 0, sizeof(*loaded));
}

/* NAME.json, or for NAME_configured also NAME_configured_config.json. */
static bool
load(const char *name, Loaded *loaded)
{
	const char *configured = strstr(name, "_configured");
	LlmMappedFile json = { 0 };
	LlmMappedFile config = { 0 };
	char path[256];
	bool ok;

	memset(loaded, 0, sizeof(*loaded));
	snprintf(
		path, sizeof(path), VECTORS "%.*s.json",
		(int) (configured != NULL ? configured - name : (long) strlen(name)),
		name);
	ok = llm_mapped_file_open(&json, path, &err);
	if (ok && configured != NULL)
	{
		snprintf(path, sizeof(path), VECTORS "%s_config.json", name);
		ok = llm_mapped_file_open(&config, path, &err);
	}
	ok = ok &&
		 llm_tokenizer_compile(json.data, json.size, config.data, config.size,
							   name, &loaded->image, &err) &&
		 open_image(loaded);
	llm_mapped_file_close(&json);
	llm_mapped_file_close(&config);
	if (!ok)
	{
		CHECK_FAIL("%s: %s", name, err.message);
		unload(loaded);
	}
	return ok;
}

static bool
encode(Loaded *loaded, const char *text, size_t len, bool special,
	   LlmIdbuf *out)
{
	llm_idbuf_reset(out);
	return llm_tokenizer_encode(loaded->tokenizer, text, len, special, NULL,
								out, &err);
}

/*
 * Decode at once and token by token; false where they differ or a piece ends
 * within a character.
 */
static bool
decode(Loaded *loaded, const LlmIdbuf *ids, bool skip, LlmStrbuf *out)
{
	LlmStrbuf streamed = { 0 };
	LlmDetokenizer *stream = loaded->streams[skip ? 1 : 0];
	size_t start;
	bool ok;

	llm_strbuf_reset(out);
	ok = llm_tokenizer_decode(loaded->tokenizer, ids->ids, ids->n_ids, skip,
							  out, &err);
	for (size_t i = 0; ok && i <= ids->n_ids; i++)
	{
		start = streamed.len;
		ok = i < ids->n_ids
				 ? llm_detokenizer_push(stream, ids->ids[i], &streamed, &err)
				 : llm_detokenizer_flush(stream, &streamed, &err);
		if (ok && !llm_utf8_is_valid(llm_strbuf_str(&streamed) + start,
									 streamed.len - start))
		{
			CHECK_FAIL("piece %zu is no UTF-8", i);
			ok = false;
		}
	}
	if (ok &&
		(streamed.len != out->len ||
		 memcmp(llm_strbuf_str(&streamed), llm_strbuf_str(out), out->len) != 0))
	{
		CHECK_FAIL("streamed text \"%s\" is not \"%s\"",
				   llm_strbuf_str(&streamed), llm_strbuf_str(out));
		ok = false;
	}
	llm_strbuf_free(&streamed);
	return ok;
}

/* ----------------------------------------------------------------- digests */

typedef struct Work
{
	LlmSha256 sha;
	LlmStrbuf text;
	LlmIdbuf ids;
	LlmIdbuf special;
	LlmStrbuf decoded;
} Work;

static void
free_work(Work *work)
{
	llm_strbuf_free(&work->text);
	llm_idbuf_free(&work->ids);
	llm_idbuf_free(&work->special);
	llm_strbuf_free(&work->decoded);
}

static void
digest_count(LlmSha256 *sha, size_t n)
{
	uint32_t count = (uint32_t) n;

	llm_sha256_update(sha, &count, sizeof(count));
}

static void
digest_ids(LlmSha256 *sha, const LlmIdbuf *ids)
{
	digest_count(sha, ids->n_ids);
	if (ids->n_ids > 0)
		llm_sha256_update(sha, ids->ids, ids->n_ids * sizeof(int32_t));
}

static bool
digest_decoded(Work *work, Loaded *loaded, const LlmIdbuf *ids, bool skip)
{
	if (!decode(loaded, ids, skip, &work->decoded))
		return false;
	digest_count(&work->sha, work->decoded.len);
	llm_sha256_update(&work->sha, llm_strbuf_str(&work->decoded),
					  work->decoded.len);
	return true;
}

static bool
digest_string(Work *work, Loaded *loaded, uint64_t seed)
{
	llm_strbuf_reset(&work->text);
	make_string(seed, &work->text);
	if (!encode(loaded, llm_strbuf_str(&work->text), work->text.len, false,
				&work->ids) ||
		!encode(loaded, llm_strbuf_str(&work->text), work->text.len, true,
				&work->special))
		return false;
	digest_ids(&work->sha, &work->ids);
	digest_ids(&work->sha, &work->special);
	if (!digest_decoded(work, loaded, &work->special, false) ||
		!digest_decoded(work, loaded, &work->special, true))
		return false;
	llm_idbuf_reset(&work->ids);
	make_ids(llm_tokenizer_n_vocab(loaded->tokenizer), seed, &work->ids);
	return digest_decoded(work, loaded, &work->ids, false) &&
		   digest_decoded(work, loaded, &work->ids, true);
}

/* The long text and the long word at the end of a tokenizer's digests. */
static bool
digest_long(Work *work, Loaded *loaded, uint64_t base)
{
	for (int i = 0; i < 2; i++)
	{
		llm_strbuf_reset(&work->text);
		if (i == 0)
		{
			for (uint64_t k = 0; k < 300; k++)
				make_string(base + k, &work->text);
		}
		else
			make_word(base, 20000, &work->text);
		if (!encode(loaded, work->text.data, work->text.len, true,
					&work->special))
			return false;
		digest_ids(&work->sha, &work->special);
		if (!digest_decoded(work, loaded, &work->special, false))
			return false;
	}
	return true;
}

/* Compare with the next line of digests.txt. */
static bool
check_digest(Work *work, FILE *file, const char *name, long start)
{
	uint8_t digest[LLM_SHA256_BYTES];
	char hex[20];
	char expected[64] = "";

	llm_sha256_final(&work->sha, digest);
	for (int i = 0; i < 8; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	if (fgets(expected, sizeof(expected), file) == NULL ||
		strncmp(hex, expected, 16) != 0)
	{
		CHECK_FAIL("%s: strings from %ld on differ: %s, expected %s", name,
				   start, hex, expected);
		return false;
	}
	return true;
}

static void
check_tokenizer(FILE *file, const char *name, long n_strings, uint64_t base)
{
	Loaded loaded;
	Work work = { 0 };
	int n_bad = 0;

	if (!load(name, &loaded))
		return;
	for (long start = 0; start <= n_strings; start += BLOCK)
	{
		bool ok = true;

		llm_sha256_init(&work.sha);
		for (long i = start; i < start + BLOCK && i < n_strings && ok; i++)
			ok = digest_string(&work, &loaded, base + (uint64_t) i);
		if (start == n_strings)
			ok = digest_long(&work, &loaded, base);
		if (!ok)
			CHECK_FAIL("%s: %s", name, err.message);
		if (!check_digest(&work, file, name, start) && ++n_bad == 5)
			break;
	}
	free_work(&work);
	unload(&loaded);
}

/* All tokenizers of a file of digests; their number. */
static int
check_digest_file(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[256];
	int n_tokenizers = 0;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
	{
		char name[64];
		long n_strings;
		unsigned long long base;

		if (sscanf(line, "%63s %ld %llu", name, &n_strings, &base) != 3)
			continue;
		check_tokenizer(file, name, n_strings, base);
		n_tokenizers++;
	}
	if (file != NULL)
		fclose(file);
	return n_tokenizers;
}

/* Ids, texts and streamed texts of all generated strings. */
static void
test_digests(void)
{
	CHECK_INT_EQ(check_digest_file(VECTORS "digests.txt"), 15);
	CHECK_INT_EQ(check_digest_file(VECTORS "digests_models.txt"), 8);
}

/* ------------------------------------------------------------------- cases */

static bool
same_ids(const LlmIdbuf *ids, const cJSON *expected)
{
	const cJSON *id;
	size_t i = 0;

	if (ids->n_ids != (size_t) cJSON_GetArraySize(expected))
		return false;
	cJSON_ArrayForEach(id, expected)
	{
		if (ids->ids[i++] != id->valueint)
			return false;
	}
	return true;
}

static const char *
case_text(const cJSON *item, const char *key)
{
	return cJSON_GetObjectItem(item, key)->valuestring;
}

static void
check_case(Loaded *loaded, const cJSON *item, Work *work)
{
	const char *text = case_text(item, "text");

	if (!encode(loaded, text, strlen(text), false, &work->ids) ||
		!same_ids(&work->ids, cJSON_GetObjectItem(item, "ids")))
		CHECK_FAIL("%s: ids of \"%s\" differ", case_text(item, "tokenizer"),
				   text);
	if (!encode(loaded, text, strlen(text), true, &work->ids) ||
		!same_ids(&work->ids, cJSON_GetObjectItem(item, "special")))
		CHECK_FAIL("%s: ids of \"%s\" with special tokens differ",
				   case_text(item, "tokenizer"), text);
	CHECK(decode(loaded, &work->ids, false, &work->decoded));
	CHECK_STR_EQ(llm_strbuf_str(&work->decoded), case_text(item, "decoded"));
	CHECK(decode(loaded, &work->ids, true, &work->decoded));
	CHECK_STR_EQ(llm_strbuf_str(&work->decoded), case_text(item, "skipped"));
}

/* The cases that are written out, to see what a digest only hints at. */
static void
test_cases(void)
{
	LlmMappedFile file;
	Loaded loaded = { 0 };
	Work work = { 0 };
	char loaded_name[64] = "";
	const char *at;
	int n_cases = 0;

	REQUIRE(llm_mapped_file_open(&file, VECTORS "cases.jsonl", &err));
	at = file.data;
	while (at < file.data + file.size)
	{
		const char *end =
			memchr(at, '\n', (size_t) (file.data + file.size - at));
		cJSON *item = cJSON_ParseWithLength(at, (size_t) (end - at));

		if (item == NULL)
		{
			CHECK_FAIL("case %d is no JSON", n_cases);
			break;
		}
		if (strcmp(loaded_name, case_text(item, "tokenizer")) != 0)
		{
			unload(&loaded);
			snprintf(loaded_name, sizeof(loaded_name), "%s",
					 case_text(item, "tokenizer"));
			if (!load(loaded_name, &loaded))
				break;
		}
		check_case(&loaded, item, &work);
		cJSON_Delete(item);
		at = end + 1;
		n_cases++;
	}
	CHECK(n_cases > 400);
	unload(&loaded);
	free_work(&work);
	llm_mapped_file_close(&file);
}

/* ------------------------------------------------------------ small things */

static void
test_lookups(void)
{
	Loaded loaded;
	LlmStrbuf bytes = { 0 };
	const char *content;
	size_t len;
	int32_t eot_id;
	int32_t n_vocab;

	REQUIRE(load("llama3", &loaded));
	n_vocab = llm_tokenizer_n_vocab(loaded.tokenizer);
	eot_id = llm_tokenizer_token_to_id(loaded.tokenizer, "<|eot_id|>", 10);
	CHECK(eot_id >= 0 && eot_id < n_vocab);
	CHECK(llm_tokenizer_is_special(loaded.tokenizer, eot_id));
	content = llm_tokenizer_id_to_token(loaded.tokenizer, eot_id, &len);
	CHECK(content != NULL && len == 10 &&
		  memcmp(content, "<|eot_id|>", 10) == 0);
	CHECK_INT_EQ(llm_tokenizer_token_to_id(loaded.tokenizer, "no such", 7), -1);
	CHECK(llm_tokenizer_id_to_token(loaded.tokenizer, n_vocab, &len) == NULL);
	CHECK(llm_tokenizer_id_to_token(loaded.tokenizer, -1, &len) == NULL);
	CHECK(!llm_tokenizer_is_special(loaded.tokenizer, -5));
	for (int32_t id = 0; id < n_vocab; id++)
	{
		content = llm_tokenizer_id_to_token(loaded.tokenizer, id, &len);
		CHECK(content != NULL &&
			  llm_tokenizer_token_to_id(loaded.tokenizer, content, len) == id);
	}

	/* "Ġthe" stands for " the" */
	CHECK(llm_tokenizer_token_bytes(
		loaded.tokenizer,
		llm_tokenizer_token_to_id(loaded.tokenizer, "\xC4\xA0the", 5), &bytes,
		&err));
	CHECK_STR_EQ(llm_strbuf_str(&bytes), " the");
	CHECK(!llm_tokenizer_token_bytes(loaded.tokenizer, n_vocab, &bytes, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	unload(&loaded);

	/* a byte token is its byte, the space mark a space */
	REQUIRE(load("llama2", &loaded));
	llm_strbuf_reset(&bytes);
	CHECK(llm_tokenizer_token_bytes(
		loaded.tokenizer,
		llm_tokenizer_token_to_id(loaded.tokenizer, "<0xE4>", 6), &bytes,
		&err));
	CHECK(llm_tokenizer_token_bytes(
		loaded.tokenizer,
		llm_tokenizer_token_to_id(loaded.tokenizer, "\xE2\x96\x81the", 6),
		&bytes, &err));
	CHECK_STR_EQ(llm_strbuf_str(&bytes), "\xE4 the");
	unload(&loaded);
	llm_strbuf_free(&bytes);
}

/* Bytes that are no UTF-8 count as U+FFFD, one for each maximal part. */
static void
test_invalid_utf8(void)
{
	static const struct
	{
		const char *bytes;
		const char *repaired;
	} cases[] = {
		{ "a\xFF"
		  "b",
		  "a\xEF\xBF\xBD"
		  "b" },
		{ "\xE4\xBD", "\xEF\xBF\xBD" },
		{ "\xE4\xBDx", "\xEF\xBF\xBDx" },
		{ "\xC0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD" },
		{ "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
		{ "\xF0\x9F\x98x", "\xEF\xBF\xBDx" },
		{ "\xF4\x90\x80\x80",
		  "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
	};
	Loaded loaded;
	LlmIdbuf ids = { 0 };
	LlmIdbuf expected = { 0 };

	REQUIRE(load("llama3", &loaded));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		CHECK(encode(&loaded, cases[i].bytes, strlen(cases[i].bytes), true,
					 &ids));
		CHECK(encode(&loaded, cases[i].repaired, strlen(cases[i].repaired),
					 true, &expected));
		CHECK(ids.n_ids == expected.n_ids &&
			  memcmp(ids.ids, expected.ids, ids.n_ids * sizeof(int32_t)) == 0);
	}
	llm_idbuf_free(&ids);
	llm_idbuf_free(&expected);
	unload(&loaded);
}

static void
test_limits(void)
{
	Loaded loaded;
	LlmIdbuf ids = { 0 };
	LlmStrbuf text = { 0 };
	volatile sig_atomic_t interrupt = 1;

	REQUIRE(load("llama2", &loaded));
	make_word(3, 1000, &text);

	/* a limit is an error and leaves what was there before */
	ids.limit = 20;
	llm_idbuf_append(&ids, 7);
	CHECK(!llm_tokenizer_encode(loaded.tokenizer, text.data, text.len, true,
								NULL, &ids, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);
	CHECK(ids.n_ids == 1 && ids.ids[0] == 7 && !ids.failed);
	CHECK(llm_tokenizer_encode(loaded.tokenizer, "the", 3, false, NULL, &ids,
							   &err));

	CHECK(!llm_tokenizer_encode(loaded.tokenizer, text.data, text.len, true,
								&interrupt, &ids, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_CANCELLED);

	/* nothing but the template's ids */
	llm_idbuf_reset(&ids);
	CHECK(
		llm_tokenizer_encode(loaded.tokenizer, "", 0, true, NULL, &ids, &err));
	CHECK_INT_EQ(ids.n_ids, 1);

	llm_strbuf_reset(&text);
	ids.ids[0] = llm_tokenizer_n_vocab(loaded.tokenizer);
	CHECK(!llm_tokenizer_decode(loaded.tokenizer, ids.ids, 1, false, &text,
								&err));
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	llm_idbuf_free(&ids);
	llm_strbuf_free(&text);
	unload(&loaded);
}

/* ---------------------------------------------------------- odd tokenizers */

/* Compile a tokenizer of a few tokens with these parts. */
static bool
load_text(const char *parts, const char *model, Loaded *loaded)
{
	LlmStrbuf json = { 0 };
	bool ok;

	memset(loaded, 0, sizeof(*loaded));
	llm_strbuf_printf(&json, "{\"version\":\"1.0\",%s\"model\":%s}", parts,
					  model);
	ok = llm_tokenizer_compile(json.data, json.len, NULL, 0, "t.json",
							   &loaded->image, &err) &&
		 open_image(loaded);
	if (!ok)
		unload(loaded);
	llm_strbuf_free(&json);
	return ok;
}

#define LETTERS                                                           \
	"{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\" \":3,"      \
	"\"<0xE2>\":4,\"<0x82>\":5,\"<0xAC>\":6,\"c\":7},\"merges\":[\"a b\"" \
	"]}"

/* What a decoder that strips the end may say, and when. */
static void
test_streamed_strip(void)
{
	static const int32_t ids[] = { 3, 3, 3, 0, 3, 3, 3, 1, 3, 3, 3 };
	static const char *const said[] = { "",	 "",	" ", "a", "", "",
										" ", "  b", "",	 "",  " " };
	Loaded loaded;
	LlmStrbuf text = { 0 };

	REQUIRE(load_text("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{"
					  "\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "
					  "\",\"start\":2,\"stop\":2}]},",
					  LETTERS, &loaded));
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
	{
		llm_strbuf_reset(&text);
		CHECK(llm_detokenizer_push(loaded.streams[0], ids[i], &text, &err));
		/* the third leading space may still be a trailing one */
		CHECK_STR_EQ(llm_strbuf_str(&text), i == 2	 ? ""
											: i == 3 ? " a"
													 : said[i]);
	}
	llm_strbuf_reset(&text);
	CHECK(llm_detokenizer_flush(loaded.streams[0], &text, &err));
	CHECK_STR_EQ(llm_strbuf_str(&text), "");
	llm_strbuf_free(&text);
	unload(&loaded);
}

/* A run of byte tokens is decided about as a whole. */
static void
test_byte_runs(void)
{
	static const struct
	{
		int32_t ids[5];
		size_t n;
		const char *text;
	} cases[] = {
		{ { 0, 4, 5, 6, 1 },
		  5,
		  "a\xE2\x82\xAC"
		  "b" },
		{ { 0, 4, 5, 1 },
		  4,
		  "a\xEF\xBF\xBD\xEF\xBF\xBD"
		  "b" },
		{ { 4, 5, 6, 4 },
		  4,
		  "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
	};
	Loaded loaded;
	LlmStrbuf text = { 0 };

	REQUIRE(load_text("\"decoder\":{\"type\":\"ByteFallback\"},", LETTERS,
					  &loaded));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		LlmIdbuf ids = { .ids = (int32_t *) (uintptr_t) cases[i].ids,
						 .n_ids = cases[i].n };

		CHECK(decode(&loaded, &ids, false, &text));
		CHECK_STR_EQ(llm_strbuf_str(&text), cases[i].text);
	}
	llm_strbuf_free(&text);
	unload(&loaded);
}

/* What cannot be done exactly is refused, and named. */
static void
test_refusals(void)
{
	static const struct
	{
		const char *parts;
		const char *model;
		LlmErrorCode code;
		const char *named;
	} cases[] = {
		{ "\"normalizer\":{\"type\":\"Precompiled\"},", LETTERS,
		  LLM_ERROR_FORMAT, "\"precompiled_charsmap\"" },
		{ "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":"
		  "\"!!!!\"},",
		  LETTERS, LLM_ERROR_FORMAT, "base64" },
		{ "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":"
		  "\"////fw==\"},",
		  LETTERS, LLM_ERROR_FORMAT, "trie of 2147483647 bytes" },
		{ "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
		  "\"NFX\"}]},",
		  LETTERS, LLM_ERROR_UNSUPPORTED, "\"NFX\"" },
		{ "\"pre_tokenizer\":{\"type\":\"Sieve\"},", LETTERS,
		  LLM_ERROR_UNSUPPORTED, "pre-tokenizer \"Sieve\"" },
		{ "\"decoder\":{\"type\":\"Morse\"},", LETTERS, LLM_ERROR_UNSUPPORTED,
		  "decoder \"Morse\"" },
		{ "\"decoder\":{\"type\":\"CTC\"},", LETTERS, LLM_ERROR_FORMAT,
		  "\"pad_token\"" },
		{ "\"post_processor\":{\"type\":\"Magic\"},", LETTERS,
		  LLM_ERROR_UNSUPPORTED, "post-processor \"Magic\"" },
		{ "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],"
		  "\"sep\":[\"b\",99]},",
		  LETTERS, LLM_ERROR_FORMAT, "token id 99" },
		{ "\"normalizer\":{\"type\":\"Replace\",\"content\":\"x\"},", LETTERS,
		  LLM_ERROR_FORMAT, "\"pattern\"" },
		{ "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":"
		  "\"a\"},\"behavior\":\"Sideways\"},",
		  LETTERS, LLM_ERROR_FORMAT, "\"behavior\"" },
		{ "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":"
		  "\"(a)\\\\1\"},\"behavior\":\"Isolated\"},",
		  LETTERS, LLM_ERROR_UNSUPPORTED, "(a)\\1" },
		{ "", "{\"type\":\"Trigram\",\"vocab\":[]}", LLM_ERROR_UNSUPPORTED,
		  "\"Trigram\"" },
		{ "", "{\"type\":\"Unigram\",\"vocab\":{}}", LLM_ERROR_FORMAT,
		  "\"vocab\" array" },
		{ "", "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[]}",
		  LLM_ERROR_FORMAT, "id 0" },
		{ "", "{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"b\"]]}",
		  LLM_ERROR_FORMAT, "entry 1" },
		{ "", "{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1e999]]}",
		  LLM_ERROR_FORMAT, "entry 0" },
		{ "", "{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"NaN\"]]}",
		  LLM_ERROR_FORMAT, "entry 0" },
		{ "", "{\"type\":\"WordPiece\",\"vocab\":{}}", LLM_ERROR_FORMAT,
		  "\"unk_token\"" },
		{ "",
		  "{\"type\":\"WordPiece\",\"vocab\":{},\"unk_token\":\"u\","
		  "\"continuing_subword_prefix\":\"##\"}",
		  LLM_ERROR_FORMAT, "\"max_input_chars_per_word\"" },
		{ "", "{\"type\":\"BPE\",\"merges\":[]}", LLM_ERROR_FORMAT,
		  "\"vocab\"" },
		{ "", "{\"type\":\"BPE\",\"vocab\":{\"a\":0}}", LLM_ERROR_FORMAT,
		  "\"merges\"" },
		{ "", "{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}",
		  LLM_ERROR_FORMAT, "\"a\"" },
		{ "", "{\"type\":\"BPE\",\"vocab\":{\"a\":4e9},\"merges\":[]}",
		  LLM_ERROR_FORMAT, "\"a\"" },
		{ "", "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a z\"]}",
		  LLM_ERROR_FORMAT, "\"z\"" },
		{ "", "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}",
		  LLM_ERROR_FORMAT, "\"aa\"" },
		{ "", "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}",
		  LLM_ERROR_FORMAT, "\"aa\"" },
		{ "", "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}",
		  LLM_ERROR_FORMAT, "merge" },
		{ "",
		  "{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":"
		  "[]}",
		  LLM_ERROR_UNSUPPORTED, "dropout" },
		{ "", "{\"type\":\"BPE\",\"vocab\":{\"a\\u0000\":0},\"merges\":[]}",
		  LLM_ERROR_UNSUPPORTED, "U+0000" },
		{ "\"added_tokens\":[{\"id\":1}],", LETTERS, LLM_ERROR_FORMAT,
		  "\"content\"" },
		{ "", "{]", LLM_ERROR_FORMAT, "malformed JSON" },
		{ "", "null", LLM_ERROR_FORMAT, "\"model\"" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Loaded loaded;

		llm_error_clear(&err);
		if (load_text(cases[i].parts, cases[i].model, &loaded))
		{
			CHECK_FAIL("case %zu was not refused", i);
			unload(&loaded);
			continue;
		}
		if (err.code != (int32_t) cases[i].code ||
			strstr(err.message, cases[i].named) == NULL ||
			strncmp(err.message, "t.json: ", 8) != 0)
			CHECK_FAIL("case %zu: %d \"%s\"", i, err.code, err.message);
	}
}

/* A token that the vocabulary lacks matters only to a text that needs it. */
static void
test_missing_unknown(void)
{
	Loaded loaded;
	LlmIdbuf ids = { 0 };

	REQUIRE(load_text("",
					  "{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":{"
					  "\"a\":0},\"merges\":[]}",
					  &loaded));
	CHECK(encode(&loaded, "aa", 2, false, &ids));
	CHECK(!encode(&loaded, "ax", 2, false, &ids));
	CHECK_INT_EQ(err.code, LLM_ERROR_FORMAT);
	llm_idbuf_free(&ids);
	unload(&loaded);
}

/* ------------------------------------------------------------- expressions */

static void
test_translation(void)
{
	static const struct
	{
		const char *pattern;
		const char *translated; /* NULL: refused */
	} cases[] = {
		{ "a|bc", "a|bc" },
		{ "\\p{N}{1,3}+", "(?:[\\p{N}]{1,3})+" },
		{ "a{2}?", "(?:a{2})?" },
		{ "a{,2}", "a{0,2}" },
		{ "a{1,}?", "a{1,}?" },
		{ "a{x", "a\\{x" },
		{ "[^\\r\\n]?+", "[^\\x{D}\\x{A}]?+" },
		{ "(?i:'s|'t)", "(?i:\\'s|\\'t)" },
		{ "(?m:.)", "(?s:.)" },
		{ "(?<name>a)(?#comment)b", "(?:a)b" },
		{ "\\p{Han}", "[\\p{sc:han}]" },
		{ "\\P{^Lu}", "[\\p{Lu}]" },
		{ "[a-c\\d]", "[a-c\\p{Nd}]" },
		{ "\\h\\v", "[0-9A-Fa-f]\\x{B}" },
		{ "[]a]", "[\\]a]" },
		{ "(?i:ss)", NULL },
		{ "(?i:\xC3\xA9)", NULL },
		{ "(?i:[\\p{L}])", NULL },
		{ "a(?i)b", NULL },
		{ "a++b**", NULL },
		{ "\\1", NULL },
		{ "\\X", NULL },
		{ "\\K", NULL },
		{ "[a[bc]]", NULL },
		{ "[a&&b]", NULL },
		{ "[a-\\d]", NULL },
		{ "[z-a]", NULL },
		{ "(a", NULL },
		{ "a)", NULL },
		{ "[a", NULL },
		{ "\\p{NoSuchThing}", NULL },
		{ "\\xE3", NULL },
		{ "a{3,1}", NULL },
		{ "\\", NULL },
		{ "(?P<x>a)", NULL },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		LlmStrbuf out = { 0 };
		bool ok = llm_split_regex_translate(
			cases[i].pattern, strlen(cases[i].pattern), &out, &err);

		if (ok != (cases[i].translated != NULL))
			CHECK_FAIL("\"%s\": %s", cases[i].pattern,
					   ok ? llm_strbuf_str(&out) : err.message);
		else if (ok)
			CHECK_STR_EQ(llm_strbuf_str(&out), cases[i].translated);
		else
			CHECK_INT_EQ(err.code, LLM_ERROR_UNSUPPORTED);
		llm_strbuf_free(&out);
	}
}

/* ---------------------------------------------------------- damaged images */

/* Use an image that may be anything; it must end well. */
static void
use_damaged(const char *bytes, size_t n_bytes, Random *rnd)
{
	/* of exactly this size, so that reading beyond is caught */
	char *copy = malloc(n_bytes + 1);
	Loaded loaded = { 0 };
	LlmStrbuf text = { 0 };
	LlmIdbuf ids = { 0 };

	memcpy(copy, bytes, n_bytes);
	copy = realloc(copy, n_bytes == 0 ? 1 : n_bytes);
	loaded.image.data = copy;
	loaded.image.len = n_bytes;
	if (open_image(&loaded))
	{
		int32_t n_vocab = llm_tokenizer_n_vocab(loaded.tokenizer);

		for (int i = 0; i < 4; i++)
		{
			llm_strbuf_reset(&text);
			make_string(next_random(rnd), &text);
			encode(&loaded, llm_strbuf_str(&text), text.len, true, &ids);
			for (size_t k = 0; k < ids.n_ids; k++)
				CHECK(ids.ids[k] >= 0 && ids.ids[k] < n_vocab);
			decode(&loaded, &ids, i % 2 == 0, &text);
			if (n_vocab == 0)
				continue;
			llm_idbuf_reset(&ids);
			make_ids(n_vocab, next_random(rnd), &ids);
			decode(&loaded, &ids, i % 2 == 0, &text);
			for (size_t k = 0; k < ids.n_ids; k++)
				llm_tokenizer_token_bytes(loaded.tokenizer, ids.ids[k], &text,
										  &err);
		}
	}
	llm_strbuf_free(&text);
	llm_idbuf_free(&ids);
	unload(&loaded); /* frees the copy */
}

static void
damage_image(const char *name, int n_rounds, Random *rnd)
{
	Loaded loaded;
	LlmStrbuf damaged = { 0 };
	LlmTokenImageHeader header;

	if (!load(name, &loaded))
		return;
	memcpy(&header, loaded.image.data, sizeof(header));
	for (int round = 0; round < n_rounds; round++)
	{
		/* in the header, in a section, or anywhere */
		uint64_t section = next_random(rnd) % (LLM_TOKEN_SECTION_COUNT + 2);
		uint64_t off = 0;
		uint64_t n_bytes = sizeof(header);

		llm_strbuf_reset(&damaged);
		llm_strbuf_append(&damaged, loaded.image.data, loaded.image.len);
		if (section < LLM_TOKEN_SECTION_COUNT)
		{
			off = header.sections[section].off;
			n_bytes =
				header.sections[section].count *
				llm_token_section_element_bytes((LlmTokenSectionId) section);
		}
		else if (section == LLM_TOKEN_SECTION_COUNT)
			n_bytes = loaded.image.len;
		for (uint64_t n = 1 + next_random(rnd) % 30; n > 0 && n_bytes > 0; n--)
			damaged.data[off + next_random(rnd) % n_bytes] ^=
				(char) (1u << (next_random(rnd) % 8));
		use_damaged(damaged.data, damaged.len, rnd);
	}
	for (size_t len = 0; len < loaded.image.len;
		 len += 1 + (size_t) (next_random(rnd) % (loaded.image.len / 40)))
	{
		use_damaged(loaded.image.data, len, rnd);
		CHECK(llm_tokenizer_open(loaded.image.data, len, &err) == NULL);
	}
	llm_strbuf_free(&damaged);
	unload(&loaded);
}

static void
test_damaged_images(void)
{
	Random rnd = { 4711 };
	int failures = unit_check_failures;

	damage_image("llama2", 300, &rnd);
	damage_image("llama3", 200, &rnd);
	damage_image("clip", 200, &rnd);
	damage_image("mapped", 200, &rnd);
	CHECK_INT_EQ(unit_check_failures, failures);
}

int
main(void)
{
	if (!load_fragments())
	{
		fprintf(stderr, "run from the top of the tree: no %s\n",
				VECTORS "fragments.txt");
		return 1;
	}
	RUN_TEST(test_digests);
	RUN_TEST(test_cases);
	RUN_TEST(test_lookups);
	RUN_TEST(test_invalid_utf8);
	RUN_TEST(test_limits);
	RUN_TEST(test_streamed_strip);
	RUN_TEST(test_byte_runs);
	RUN_TEST(test_refusals);
	RUN_TEST(test_missing_unknown);
	RUN_TEST(test_translation);
	RUN_TEST(test_damaged_images);
	for (size_t i = 0; i < n_fragments; i++)
		free(fragments[i].text);
	free(fragments);
	return unit_test_finish();
}
