/*
 * bench_grammar.c
 *	  What a mask costs, over a vocabulary of 128,000 tokens.
 *
 *	  bench_grammar [tokenizer.json]
 *
 * Without an argument the vocabulary is synthetic: every byte, then words of
 * letters, digits, punctuation, JSON's marks, pieces of UTF-8 (bench_words.h).  For each grammar a number of answers is drawn; of
 * every mask on the way the time is taken, once with nothing remembered (the
 * first answer) and once warm.
 *
 * test/bench/bench_grammar.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/common/grammar/grammar.h"
#include "src/common/util/clock.h"
#include "src/common/util/mapped_file.h"
#include "src/common/util/philox.h"
#include "test/bench/bench_words.h"

#define N_SYNTHETIC 128000
#define N_ANSWERS 64
#define MAX_TOKENS 200
#define MAX_SAMPLES (N_ANSWERS * MAX_TOKENS)

static LlmError err;
static int32_t n_vocab;

static void
die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, err.message);
	exit(1);
}

static double
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double) now.tv_sec * 1e6 + (double) now.tv_nsec * 1e-3;
}

/* -- the vocabulary -- */

static LlmGrammarVocab *
make_synthetic(void)
{
	static char text[N_SYNTHETIC][MAX_WORD_BYTES];
	LlmGrammarToken *tokens = calloc(N_SYNTHETIC, sizeof(*tokens));
	LlmGrammarVocab *vocab;
	int32_t end_id = N_SYNTHETIC - 1;

	if (tokens == NULL)
		exit(1);
	n_vocab = N_SYNTHETIC;
	for (int32_t i = 0; i < n_vocab; i++)
	{
		tokens[i].bytes = text[i];
		text[i][0] = (char) i;
		tokens[i].len = i < 256 ? 1 : make_word((uint64_t) i - 256, text[i]);
	}
	vocab = llm_grammar_vocab_create(tokens, n_vocab, &end_id, 1, &err);
	free(tokens);
	return vocab;
}

static LlmGrammarVocab *
make_from_file(const char *path)
{
	LlmMappedFile file;
	LlmStrbuf image = { 0 };
	LlmTokenizer *tokenizer = NULL;
	LlmGrammarVocab *vocab;
	int32_t end_id;

	if (!llm_mapped_file_open(&file, path, &err) ||
		!llm_tokenizer_compile(file.data, file.size, NULL, 0, path, &image,
							   &err) ||
		(tokenizer = llm_tokenizer_open(image.data, image.len, &err)) == NULL)
		die(path);
	n_vocab = llm_tokenizer_n_vocab(tokenizer);
	end_id = n_vocab - 1;
	vocab =
		llm_grammar_vocab_from_tokenizer(tokenizer, n_vocab, &end_id, 1, &err);
	llm_tokenizer_close(tokenizer);
	llm_strbuf_free(&image);
	llm_mapped_file_close(&file);
	return vocab;
}

/* -- answers -- */

static int32_t
draw_token(const uint32_t *mask, uint64_t seed, uint64_t at)
{
	uint32_t start = llm_philox(seed, at, 9).word[0] % (uint32_t) n_vocab;

	for (uint32_t i = 0; i < (uint32_t) n_vocab; i++)
	{
		uint32_t id = (start + i) % (uint32_t) n_vocab;

		if (mask[id / 32] >> id % 32 & 1)
			return (int32_t) id;
	}
	return -1;
}

static int
compare_doubles(const void *a, const void *b)
{
	double left = *(const double *) a;
	double right = *(const double *) b;

	return left < right ? -1 : left > right;
}

static void
report(const char *name, const char *when, double *us, size_t n)
{
	double sum = 0;

	if (n == 0)
		return;
	qsort(us, n, sizeof(*us), compare_doubles);
	for (size_t i = 0; i < n; i++)
		sum += us[i];
	printf("%-18s %-5s %6zu masks  mean %8.1f us  median %7.1f  p95 %8.1f  "
		   "max %8.1f\n",
		   name, when, n, sum / (double) n, us[n / 2], us[n * 95 / 100],
		   us[n - 1]);
}

static size_t
run_answer(LlmGrammar *grammar, uint64_t seed, uint32_t *mask, double *us)
{
	LlmGrammarMatcher *matcher = llm_grammar_matcher_create(grammar, &err);
	size_t n = 0;

	while (n < MAX_TOKENS && !llm_grammar_matcher_must_end(matcher))
	{
		double start = now_us();
		int32_t id;

		if (!llm_grammar_matcher_fill_mask(matcher, mask, &err))
			die("mask");
		us[n] = now_us() - start;
		id = draw_token(mask, seed, n++);
		if (id == n_vocab - 1)
			break;
		if (!llm_grammar_matcher_accept(matcher, id, &err))
			die("accept");
	}
	llm_grammar_matcher_free(matcher);
	return n;
}

static void
bench(const char *name, const char *source, const LlmGrammarVocab *vocab)
{
	static double us[MAX_SAMPLES];
	uint32_t *mask = malloc(llm_grammar_vocab_n_mask_words(vocab) * 4);
	LlmStrbuf program = { 0 };
	LlmGrammar *grammar;
	double start = now_us();
	double compile_us;
	bool ok =
		*source == '{'
			? llm_grammar_compile_json_schema(source, strlen(source), &program,
											  &err)
			: llm_grammar_compile_gbnf(source, strlen(source), &program, &err);
	size_t n = 0;

	if (!ok || mask == NULL)
		die(name);
	compile_us = now_us() - start;
	grammar = llm_grammar_open((uint32_t *) program.data, program.len / 4,
							   vocab, 32 << 20, &err);
	if (grammar == NULL)
		die(name);
	report(name, "cold", us, run_answer(grammar, 0, mask, us));
	for (uint64_t seed = 1; seed < N_ANSWERS; seed++)
		n += run_answer(grammar, seed, mask, us + n);
	report(name, "warm", us, n);
	printf("%-18s compiled in %.0f us, %zu words, %zu KiB in use\n", name,
		   compile_us, program.len / 4, llm_grammar_used_bytes(grammar) >> 10);
	llm_grammar_close(grammar);
	llm_strbuf_free(&program);
	free(mask);
}

int
main(int argc, char **argv)
{
	double start = now_us();
	LlmGrammarVocab *vocab =
		argc > 1 ? make_from_file(argv[1]) : make_synthetic();

	if (vocab == NULL)
		die("vocabulary");
	printf("%d tokens, vocabulary built in %.1f ms\n", n_vocab,
		   (now_us() - start) / 1000);
	bench("json_object", "{\"type\":\"object\"}", vocab);
	bench("classify", "root ::= \"praise\" | \"bug\" | \"question\"", vocab);
	bench("extract",
		  "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
		  "\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":150},"
		  "\"born\":{\"type\":\"string\",\"format\":\"date\"},\"price\":"
		  "{\"type\":\"number\"},\"tags\":{\"type\":\"array\",\"items\":"
		  "{\"type\":\"string\"}},\"kind\":{\"enum\":[\"a\",\"b\"]}},"
		  "\"required\":[\"name\",\"age\",\"tags\",\"kind\"]}",
		  vocab);
	bench("bounded strings",
		  "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":"
		  "40},\"minItems\":2,\"maxItems\":5}",
		  vocab);
	bench("pattern",
		  "{\"type\":\"string\",\"pattern\":\"^[A-Z][a-z]+( [a-z]+){2,20}$\"}",
		  vocab);
	bench("tree",
		  "{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":{\"type\":\"object\","
		  "\"properties\":{\"v\":{\"type\":\"string\"},\"kids\":{\"type\":"
		  "\"array\",\"items\":{\"$ref\":\"#/$defs/t\"}}},\"required\":[\"v\"]}"
		  "}}",
		  vocab);
	bench("arithmetic",
		  "root ::= term ([-+*/] term)*\n"
		  "term ::= [0-9]+ | [a-z]+ | \"(\" root \")\"\n",
		  vocab);
	llm_grammar_vocab_free(vocab);
	return 0;
}
