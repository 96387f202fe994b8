/*
 * bench_constrained.c
 *	  What grammars cost an executor: answers with and without one, in turns.
 *
 * The executor's loop runs on a thread of this program, on the CPU, with a
 * small model of made-up weights and a vocabulary of 128,256 tokens; the
 * larger a model is, the less a mask weighs beside its step.  A round sends 64
 * requests at once and waits for all; answers end by their length, so each
 * grammar here can go on that far.  Rounds without and with the grammar take
 * turns.  Printed are the medians over the pairs of the time with against the
 * time without: by the clock, and in processor time, which hardly depends on
 * what else the machine does.  The first pair of a grammar is printed by
 * itself: it meets every place for the first time.
 *
 *	  bench_constrained [PAIRS [TOKENS]]
 *
 * test/bench/bench_constrained.c
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/common/grammar/grammar.h"
#include "src/common/util/clock.h"
#include "src/engine/executor/executor.h"
#include "test/bench/bench_words.h"

#define N_VOCAB 128256
#define END_ID (N_VOCAB - 1)
#define N_SEQS 64
#define N_PROMPT 16
#define MAX_PAIRS 64
#define N_SLOTS (1u << 19)

static LlmExecutor executor;
static LlmChannel *channel;
static char dir[] = "/tmp/llm_ext-bench-constrained.XXXXXX";
static uint64_t next_id = 1;
static uint32_t n_tokens = 48;

static const char config_json[] =
	"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
	"\"vocab_size\": 128256, \"hidden_size\": 512, \"intermediate_size\": 1408,"
	"\"num_hidden_layers\": 8, \"num_attention_heads\": 8,"
	"\"num_key_value_heads\": 4, \"rms_norm_eps\": 1e-05,"
	"\"max_position_embeddings\": 2048, \"tie_word_embeddings\": true,"
	"\"rope_theta\": 10000.0, \"eos_token_id\": 128255,"
	"\"dtype\": \"bfloat16\"}";

static void
need(bool ok, const LlmError *err)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

/* ---- a model directory ---- */

/* A byte in the alphabet of byte-level vocabularies, inside a JSON string. */
static void
append_letter(LlmStrbuf *json, unsigned byte)
{
	bool is_itself =
		(byte > ' ' && byte < 0x7F) || (byte >= 0xA1 && byte != 0xAD);
	unsigned cp = byte;

	if (!is_itself)
		cp = 0x100 + (byte <= ' '	 ? byte
					  : byte == 0xAD ? 67
									 : byte - 0x7F + 33);
	if (cp == '"' || cp == '\\')
		llm_strbuf_append_char(json, '\\');
	if (cp < 0x80)
		llm_strbuf_append_char(json, (char) cp);
	else
		llm_strbuf_printf(json, "%c%c", (char) (0xC0 | cp >> 6),
						  (char) (0x80 | (cp & 0x3F)));
}

static void
append_token(LlmStrbuf *json, const char *word, size_t len, int32_t id)
{
	llm_strbuf_append_str(json, id == 0 ? "\"" : ",\"");
	for (size_t i = 0; i < len; i++)
		append_letter(json, (unsigned char) word[i]);
	llm_strbuf_printf(json, "\":%d", id);
}

/* False: the word is there already. */
static bool
insert_word(char (*words)[MAX_WORD_BYTES], int32_t *slots, int32_t n)
{
	uint32_t slot = 2166136261u;

	for (const char *c = words[n]; *c != '\0'; c++)
		slot = (slot ^ (unsigned char) *c) * 16777619u;
	for (slot &= N_SLOTS - 1; slots[slot] > 0; slot = (slot + 1) % N_SLOTS)
		if (strcmp(words[slots[slot]], words[n]) == 0)
			return false;
	slots[slot] = n;
	return true;
}

/* Every byte, then words, each once. */
static void
make_tokenizer(LlmStrbuf *json)
{
	char(*words)[MAX_WORD_BYTES] = calloc(N_VOCAB, MAX_WORD_BYTES);
	int32_t *slots = calloc(N_SLOTS, sizeof(int32_t));
	uint64_t i = 0;

	if (words == NULL || slots == NULL)
		abort();
	llm_strbuf_append_str(
		json, "{\"version\":\"1.0\",\"pre_tokenizer\":{\"type\":\"ByteLevel\","
			  "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":"
			  "false},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":"
			  "\"BPE\",\"vocab\":{");
	for (int32_t id = 0; id < 256; id++)
	{
		char byte = (char) id;

		words[id][0] = byte;
		(void) insert_word(words, slots, id);
		append_token(json, &byte, 1, id);
	}
	for (int32_t id = 256; id < END_ID;)
	{
		size_t len = make_word(i++, words[id]);

		words[id][len] = '\0';
		if (!insert_word(words, slots, id))
			continue;
		append_token(json, words[id], len, id);
		id++;
	}
	append_token(json, "<|end|>", 7, END_ID);
	llm_strbuf_append_str(json, "},\"merges\":[]}}");
	free(words);
	free(slots);
}

static void
write_file(const char *name, const char *text, size_t len)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "we");
	if (file == NULL || fwrite(text, 1, len, file) != len || fclose(file) != 0)
	{
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
}

static void
remove_dir(void)
{
	static const char *const names[] = { "config.json", "tokenizer.json",
										 "image" };
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

/* ---- an executor ---- */

static void *
serve(void *unused)
{
	(void) unused;
	(void) llm_executor_run(&executor);
	return NULL;
}

static void
open_executor(void)
{
	LlmStrbuf tokenizer = { 0 };
	char options[512];
	int sv[2];
	LlmError err = { 0 };

	if (mkdtemp(dir) == NULL || socketpair(AF_UNIX, SOCK_STREAM, 0, sv) != 0)
		abort();
	make_tokenizer(&tokenizer);
	write_file("config.json", config_json, strlen(config_json));
	write_file("tokenizer.json", tokenizer.data, tokenizer.len);
	llm_strbuf_free(&tokenizer);
	snprintf(options, sizeof(options),
			 "{\"path\": \"%s\", \"image_path\": \"%s/image\", \"device\": "
			 "\"cpu\", \"load_format\": \"dummy\", \"max_num_seqs\": %d, "
			 "\"max_num_batched_tokens\": 2048, \"max_model_len\": 1024}",
			 dir, dir, N_SEQS);
	need(llm_executor_options_parse(options, strlen(options), &executor.options,
									&err),
		 &err);
	executor.channel = llm_channel_create(sv[0], &err);
	channel = llm_channel_create(sv[1], &err);
	need(executor.channel != NULL && channel != NULL, &err);
	need(llm_executor_load(&executor, &err), &err);
}

/* ---- rounds ---- */

static void
send_request(int32_t i, float temperature, const LlmStrbuf *program)
{
	LlmWireRequest wire = { .params = llm_sampling_params_default(),
							.request_class = 1,
							.n_prompt = N_PROMPT,
							.n_grammar_words = (uint32_t) (program->len / 4) };
	char arrays[N_PROMPT * 4 + LLM_GRAMMAR_MAX_WORDS * 4];
	LlmError err = { 0 };

	wire.params.temperature = temperature;
	wire.params.seed = next_id;
	wire.params.max_tokens = n_tokens;
	wire.params.ignore_eos = 1;
	for (int32_t k = 0; k < N_PROMPT; k++)
	{
		int32_t id = (i * 7919 + k * 104729) % N_VOCAB;

		memcpy(arrays + 4 * k, &id, 4);
	}
	if (program->len > 0)
		memcpy(arrays + sizeof(int32_t) * N_PROMPT, program->data,
			   program->len);
	need(llm_channel_send(channel, LLM_MESSAGE_REQUEST, next_id++, &wire,
						  sizeof(wire), arrays,
						  sizeof(int32_t) * N_PROMPT + program->len, &err),
		 &err);
}

/* Until so many requests have ended; returns how many tokens came. */
static uint64_t
wait_for(int32_t n_ends)
{
	LlmFrameHeader header;
	const void *payload;
	uint64_t n = 0;
	LlmError err = { 0 };

	while (n_ends > 0)
	{
		struct pollfd pfd = { .fd = llm_channel_fd(channel), .events = POLLIN };

		need(llm_channel_flush(channel, &err), &err);
		if (llm_channel_pending_bytes(channel) > 0)
			pfd.events |= POLLOUT;
		switch (llm_channel_receive(channel, &header, &payload, &err))
		{
			case LLM_RECEIVE_NOTHING:
				(void) poll(&pfd, 1, -1);
				continue;
			case LLM_RECEIVE_CLOSED:
				fprintf(stderr, "the executor is gone\n");
				exit(1);
			case LLM_RECEIVE_FRAME:
				break;
		}
		if (header.type == LLM_MESSAGE_FAILED)
			need(false, payload);
		if (header.type == LLM_MESSAGE_TOKENS)
			n += ((const LlmWireTokens *) payload)->n_tokens;
		if (header.type == LLM_MESSAGE_FINISHED)
			n_ends--;
	}
	return n;
}

typedef struct Cost
{
	double clock_us; /* of one token */
	double cpu_us;
} Cost;

static double
cpu_now_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
		   (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static Cost
run_round(float temperature, const LlmStrbuf *program)
{
	int64_t start_us = llm_clock_us();
	double cpu_us = cpu_now_us();
	double n;

	for (int32_t i = 0; i < N_SEQS; i++)
		send_request(i, temperature, program);
	n = (double) wait_for(N_SEQS);
	return (Cost){ (double) (llm_clock_us() - start_us) / n,
				   (cpu_now_us() - cpu_us) / n };
}

static int
compare_doubles(const void *a, const void *b)
{
	double x = *(const double *) a;
	double y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
median(double *values, int n)
{
	qsort(values, (size_t) n, sizeof(double), compare_doubles);
	return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

static void
bench(const char *name, float temperature, const LlmStrbuf *program,
	  int n_pairs)
{
	static const LlmStrbuf none = { 0 };
	double clock[MAX_PAIRS];
	double cpu[MAX_PAIRS];
	double plain_us[MAX_PAIRS];
	Cost first = run_round(temperature, program);

	for (int i = 0; i < n_pairs; i++)
	{
		Cost plain = run_round(temperature, &none);
		Cost with = run_round(temperature, program);

		clock[i] = with.clock_us / plain.clock_us;
		cpu[i] = with.cpu_us / plain.cpu_us;
		plain_us[i] = plain.clock_us;
	}
	printf("%-16s temperature %.0f: %+6.1f %% by the clock, %+6.1f %% of "
		   "processor time; %.0f tok/s without, first round %.0f tok/s\n",
		   name, temperature, 100 * (median(clock, n_pairs) - 1),
		   100 * (median(cpu, n_pairs) - 1), 1e6 / median(plain_us, n_pairs),
		   1e6 / first.clock_us);
	fflush(stdout);
}

static const char *const sources[][2] = {
	{ "regex", "([a-z]+ ){1000}" },
	{ "objects", "{\"type\":\"array\",\"items\":{\"type\":\"object\"},"
				 "\"minItems\":1000}" },
	{ "extract",
	  "{\"type\":\"array\",\"minItems\":1000,\"items\":{\"type\":\"object\","
	  "\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"
	  "\"integer\",\"minimum\":0,\"maximum\":150},\"born\":{\"type\":"
	  "\"string\",\"format\":\"date\"},\"price\":{\"type\":\"number\"},"
	  "\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},"
	  "\"kind\":{\"enum\":[\"a\",\"b\"]}},\"required\":[\"name\",\"age\","
	  "\"tags\",\"kind\"]}}" },
	{ "bounded strings", "{\"type\":\"array\",\"items\":{\"type\":\"string\","
						 "\"maxLength\":40},\"minItems\":1000}" },
};

int
main(int argc, char **argv)
{
	int n_pairs = argc > 1 ? atoi(argv[1]) : 7;
	LlmError err = { 0 };
	pthread_t thread;

	if (argc > 2)
		n_tokens = (uint32_t) atoi(argv[2]);
	if (n_pairs < 1 || n_pairs > MAX_PAIRS || n_tokens < 1 || n_tokens > 900)
	{
		fprintf(stderr, "usage: %s [PAIRS [TOKENS]]\n", argv[0]);
		return 1;
	}
	open_executor();
	if (pthread_create(&thread, NULL, serve, NULL) != 0)
		abort();
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
	{
		LlmStrbuf program = { 0 };
		const char *source = sources[i][1];

		need(*source == '{' ? llm_grammar_compile_json_schema(
								  source, strlen(source), &program, &err)
							: llm_grammar_compile_regex(source, strlen(source),
														&program, &err),
			 &err);
		bench(sources[i][0], 0, &program, n_pairs);
		bench(sources[i][0], 1, &program, n_pairs);
		llm_strbuf_free(&program);
	}
	llm_channel_free(channel);
	pthread_join(thread, NULL);
	llm_executor_unload(&executor);
	llm_channel_free(executor.channel);
	remove_dir();
	return 0;
}
