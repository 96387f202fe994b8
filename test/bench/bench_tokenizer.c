/*
 * bench_tokenizer.c
 *	  How fast the tokenizer is: MB/s, and the time to open an image.
 *
 *	  bench_tokenizer [tokenizer.json [text file]]
 *
 * Without arguments it uses the small vectors of the tests, and beside them a
 * synthetic tokenizer of the size of Llama 3's (128,000 tokens, 280,000
 * merges): what matters for opening an image and for cache misses is its
 * size, not what its tokens are.  The text is mixed: prose of several scripts,
 * code, numbers.
 *
 * test/bench/bench_tokenizer.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/tokenizer/tokenizer.h"
#include "src/common/util/clock.h"
#include "src/common/util/mapped_file.h"

#define VECTORS "test/vectors/tokenizer/"
#define TEXT_BYTES (4 * 1024 * 1024)
#define N_SYNTHETIC_MERGES 127000

static LlmError err;

static void
die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, err.message);
	exit(1);
}

static uint64_t
next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

/* Words of a skewed distribution, as in any natural text. */
static void
make_text(LlmStrbuf *text, uint64_t seed)
{
	static const char *const lines[] = {
		"The quick brown fox jumps over the lazy dog, and it isn't tired. ",
		"Please return the answer as JSON: {\"label\": \"positive\"}\n",
		"for (int i = 0; i < n_tokens; i++)\n\tsum += values[i] * 0.5;\n",
		"Der schnelle braune Fuchs springt \xC3\xBC"
		"ber den faulen Hund. ",
		"\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82, "
		"\xD0\xBC\xD0\xB8\xD1\x80! \xD0\xAD\xD1\x82\xD0\xBE "
		"\xD1\x82\xD0\xB5\xD1\x81\xD1\x82. ",
		"\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C\xEF\xBC\x8C\xE4\xBB"
		"\x8A\xE5\xA4\xA9\xE5\xA4\xA9\xE6\xB0\x94\xE5\xBE\x88\xE5\xA5\xBD\xE3"
		"\x80\x82",
		"2024-01-31 23:59:59 192.168.0.1 GET /index.html?id=42 200 1234\n",
		"\xF0\x9F\x98\x80 \xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD caf\xC3\xA9 "
		"na\xC3\xAFve \xE2\x82\xAC"
		"99.95 ",
	};

	while (text->len < TEXT_BYTES)
	{
		uint64_t r = next_random(&seed);

		if (r % 3 == 0)
		{
			llm_strbuf_append_str(text, lines[(r >> 8) % 8]);
			continue;
		}
		/* a sentence of words that are made up, few of them often */
		for (uint64_t n = 4 + (r >> 16) % 12; n > 0; n--)
		{
			uint64_t word = next_random(&seed);
			uint64_t letters = (word >> 40) % (1 + (word >> 50) % 5000);

			do
			{
				llm_strbuf_append_char(text, "etaoinshrdlucmfw"[letters % 16]);
				letters /= 16;
			} while (letters > 0);
			llm_strbuf_append_str(text, n > 1 ? " " : ". ");
		}
	}
	text->len = TEXT_BYTES; /* may cut a character: that is repaired */
}

/* The byte-level alphabet as JSON strings, by the table in the vocabulary. */
static void
append_letter(LlmStrbuf *out, unsigned letter)
{
	unsigned cp = letter < 94 ? 33 + letter : 256 + (letter - 94);

	if (cp >= 256 + 68)
		cp = 0xA1 + (cp - 256 - 68) + (cp - 256 - 68 >= 12 ? 1 : 0);
	if (cp == '"' || cp == '\\')
		llm_strbuf_append_char(out, '\\');
	if (cp < 0x80)
		llm_strbuf_append_char(out, (char) cp);
	else
	{
		llm_strbuf_append_char(out, (char) (0xC0 | (cp >> 6)));
		llm_strbuf_append_char(out, (char) (0x80 | (cp & 0x3F)));
	}
}

/*
 * A vocabulary of Llama 3's size: token i beyond the alphabet joins an
 * earlier token and a letter.
 */
static void
make_tokenizer(LlmStrbuf *json)
{
	LlmStrbuf *tokens = calloc(256 + N_SYNTHETIC_MERGES, sizeof(*tokens));
	LlmStrbuf merges = { 0 };
	uint64_t seed = 1;
	int n = 256;

	if (tokens == NULL)
		exit(1);
	for (int i = 0; i < 256; i++)
		append_letter(&tokens[i], (unsigned) i);
	for (; n < 256 + N_SYNTHETIC_MERGES; n++)
	{
		/* letters, then ever longer tokens, each a different pair */
		int left = (n - 256) / 16;
		int right = "etaoinshrdlucmfw"[(n - 256) % 16] - 33;

		if (left < 256)
			left = left == 0 ? 94 + 32 : (int) (next_random(&seed) % 94);
		if (left < 94)
			left = "etaoinshrdlucmfw"[((n - 256) / 16) % 16] - 33;
		llm_strbuf_append(&tokens[n], tokens[left].data, tokens[left].len);
		llm_strbuf_append(&tokens[n], tokens[right].data, tokens[right].len);
		llm_strbuf_printf(&merges, "%s[\"%s\",\"%s\"]", n == 256 ? "" : ",",
						  tokens[left].data, tokens[right].data);
	}
	llm_strbuf_append_str(
		json, "{\"version\":\"1.0\",\"pre_tokenizer\":{\"type\":\"Sequence\","
			  "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
			  "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
			  "\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]"
			  "*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":"
			  "\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
			  "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":"
			  "false}]},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{"
			  "\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{");
	for (int i = 0; i < n; i++)
		llm_strbuf_printf(json, "%s\"%s\":%d", i == 0 ? "" : ",",
						  tokens[i].data, i);
	llm_strbuf_append_str(json, "},\"merges\":[");
	llm_strbuf_append(json, merges.data, merges.len);
	llm_strbuf_append_str(json, "]}}");
	for (int i = 0; i < n; i++)
		llm_strbuf_free(&tokens[i]);
	free(tokens);
	llm_strbuf_free(&merges);
}

/* Best of some runs, in microseconds. */
static int64_t
time_open(const LlmStrbuf *image)
{
	int64_t best = INT64_MAX;

	for (int i = 0; i < 20; i++)
	{
		int64_t start = llm_clock_us();
		LlmTokenizer *tokenizer =
			llm_tokenizer_open(image->data, image->len, &err);
		int64_t elapsed = llm_clock_us() - start;

		if (tokenizer == NULL)
			die("open");
		llm_tokenizer_close(tokenizer);
		if (elapsed < best)
			best = elapsed;
	}
	return best;
}

/* A new connection's first call: compiling the expressions is part of it. */
static int64_t
time_first_call(const LlmStrbuf *image)
{
	int64_t best = INT64_MAX;
	LlmIdbuf ids = { 0 };

	for (int i = 0; i < 20; i++)
	{
		int64_t start = llm_clock_us();
		LlmTokenizer *tokenizer =
			llm_tokenizer_open(image->data, image->len, &err);
		int64_t elapsed;

		if (tokenizer == NULL ||
			!llm_tokenizer_encode(tokenizer, "Hello, world!", 13, true, NULL,
								  &ids, &err))
			die("first call");
		elapsed = llm_clock_us() - start;
		llm_tokenizer_close(tokenizer);
		llm_idbuf_reset(&ids);
		if (elapsed < best)
			best = elapsed;
	}
	llm_idbuf_free(&ids);
	return best;
}

/* cleaned: with a configuration that cleans up spaces in decoded text */
static void
bench(const char *name, const char *json, size_t json_len, bool cleaned,
	  const LlmStrbuf *text)
{
	const char *config =
		cleaned ? "{\"clean_up_tokenization_spaces\": true}" : NULL;
	LlmStrbuf image = { 0 };
	LlmStrbuf decoded = { 0 };
	LlmIdbuf ids = { 0 };
	LlmTokenizer *tokenizer;
	int64_t best_encode = INT64_MAX;
	int64_t best_decode = INT64_MAX;
	int64_t start = llm_clock_us();
	int64_t compile_us;

	if (!llm_tokenizer_compile(json, json_len, config,
							   cleaned ? strlen(config) : 0, name, &image,
							   &err))
		die(name);
	compile_us = llm_clock_us() - start;
	tokenizer = llm_tokenizer_open(image.data, image.len, &err);
	if (tokenizer == NULL)
		die(name);
	for (int i = 0; i < 5; i++)
	{
		llm_idbuf_reset(&ids);
		start = llm_clock_us();
		if (!llm_tokenizer_encode(tokenizer, text->data, text->len, true, NULL,
								  &ids, &err))
			die(name);
		if (llm_clock_us() - start < best_encode)
			best_encode = llm_clock_us() - start;
		llm_strbuf_reset(&decoded);
		start = llm_clock_us();
		if (!llm_tokenizer_decode(tokenizer, ids.ids, ids.n_ids, false,
								  &decoded, &err))
			die(name);
		if (llm_clock_us() - start < best_decode)
			best_decode = llm_clock_us() - start;
	}
	printf("%-12s %8d %9.1f %9lld %6lld %6lld %8.2f %9.1f %9.1f\n", name,
		   llm_tokenizer_n_vocab(tokenizer), (double) image.len / 1e6,
		   (long long) compile_us, (long long) time_open(&image),
		   (long long) time_first_call(&image),
		   (double) text->len / (double) ids.n_ids,
		   (double) text->len / (double) best_encode,
		   (double) decoded.len / (double) best_decode);
	llm_tokenizer_close(tokenizer);
	llm_strbuf_free(&image);
	llm_strbuf_free(&decoded);
	llm_idbuf_free(&ids);
}

static void
bench_file(const char *name, const char *path, bool cleaned,
		   const LlmStrbuf *text)
{
	LlmMappedFile file;

	if (!llm_mapped_file_open(&file, path, &err))
		die(path);
	bench(name, file.data, file.size, cleaned, text);
	llm_mapped_file_close(&file);
}

int
main(int argc, char **argv)
{
	static const char *const names[] = {
		"llama3",  "qwen2",	   "gpt2",	 "llama2", "mistral", "gemma",
		"clip",	   "prefixed", "spaced", "mapped", "gpt4o",	  "deepseek",
		"falcon",  "t5",	   "xlmr",	 "albert", "bert",	  "bert_cased",
		"wav2vec", "phi3",	   "glm4"
	};
	LlmStrbuf text = { 0 };
	LlmStrbuf json = { 0 };
	LlmMappedFile file;

	if (argc > 2)
	{
		if (!llm_mapped_file_open(&file, argv[2], &err))
			die(argv[2]);
		llm_strbuf_append(&text, file.data, file.size);
		llm_mapped_file_close(&file);
	}
	else
		make_text(&text, 42);
	printf("%-12s %8s %9s %9s %6s %6s %8s %9s %9s\n", "tokenizer", "ids",
		   "image MB", "build us", "open", "first", "B/token", "enc MB/s",
		   "dec MB/s");
	if (argc > 1)
		bench_file("file", argv[1], false, &text);
	else
	{
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		{
			char path[256];

			snprintf(path, sizeof(path), VECTORS "%s.json", names[i]);
			bench_file(names[i], path, false, &text);
		}
		bench_file("t5 cleaned", VECTORS "t5.json", true, &text);
		bench_file("bert cleaned", VECTORS "bert.json", true, &text);
		make_tokenizer(&json);
		bench("synthetic", json.data, json.len, false, &text);
	}
	llm_strbuf_free(&text);
	llm_strbuf_free(&json);
	return 0;
}
