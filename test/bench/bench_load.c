/*
 * bench_load.c
 *	  Loading a checkpoint: how long it takes from storage and from the page
 *	  cache, beside a loop that only reads the file, and how much memory the
 *	  loaded model keeps.
 *
 *	  bench_load [--csv] [--folder DIR]
 *
 * Writes a checkpoint of made-up bf16 weights (1.1 GB) to DIR, the current
 * folder where none is named, and removes it.  "From storage" means after the
 * kernel was asked to forget the file; a storage with a cache of its own may
 * still be faster than its disks.
 *
 * test/bench/bench_load.c
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/util/clock.h"
#include "src/engine/model/model.h"

#define BUFFER_BYTES ((size_t) 8 << 20)

static const char config_json[] =
	"{\"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": 32000,"
	"\"hidden_size\": 2048, \"intermediate_size\": 8192,"
	"\"num_hidden_layers\": 8, \"num_attention_heads\": 32,"
	"\"num_key_value_heads\": 8, \"max_position_embeddings\": 4096,"
	"\"tie_word_embeddings\": true, \"dtype\": \"bfloat16\"}";

typedef struct Bench
{
	bool csv;
	char dir[3000];
	char path[4096];
	size_t file_bytes;
	char *buffer;
} Bench;

static void
fail(const char *message)
{
	fprintf(stderr, "bench_load: %s\n", message);
	exit(1);
}

/* The header of all weights that the config calls for, in file order. */
static char *
make_header(const LlmModelConfig *config, size_t *data_bytes)
{
	char *json = malloc(1 << 20);
	size_t used = (size_t) sprintf(json, "{");
	LlmWeightSpec spec;

	*data_bytes = 0;
	for (int i = 0; llm_model_weight_spec(config, i, &spec); i++)
	{
		int64_t n = spec.n_rows * (spec.n_cols > 0 ? spec.n_cols : 1);
		char shape[64];

		snprintf(shape, sizeof(shape), spec.n_cols > 0 ? "%lld,%lld" : "%lld",
				 (long long) spec.n_rows, (long long) spec.n_cols);
		used += (size_t) sprintf(json + used,
								 "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],"
								 "\"data_offsets\":[%zu,%zu]}",
								 i > 0 ? "," : "", spec.name, shape,
								 *data_bytes, *data_bytes + 2 * (size_t) n);
		*data_bytes += 2 * (size_t) n;
	}
	used += (size_t) sprintf(json + used, "}");
	while (used % 8 != 0)
		json[used++] = ' ';
	json[used] = '\0';
	return json;
}

static void
write_checkpoint(Bench *bench, const LlmModelConfig *config)
{
	size_t data_bytes;
	char *header = make_header(config, &data_bytes);
	uint64_t n_header = strlen(header);
	uint64_t bits = 1;
	FILE *file = fopen(bench->path, "w");

	if (file == NULL || fwrite(&n_header, 8, 1, file) != 1 ||
		fwrite(header, n_header, 1, file) != 1)
		fail("could not write the checkpoint");
	for (size_t done = 0; done < data_bytes;)
	{
		size_t n =
			data_bytes - done < BUFFER_BYTES ? data_bytes - done : BUFFER_BYTES;
		uint16_t *weights = (uint16_t *) bench->buffer;

		/* of magnitude 2^-7 to 2^-4, so that activations stay finite */
		for (size_t i = 0; i < n / 2; i++)
		{
			bits = bits * UINT64_C(6364136223846793005) + 1442695040888963407u;
			weights[i] = (uint16_t) (0x3C00 + ((bits >> 40) & 0x81FF));
		}
		if (fwrite(bench->buffer, n, 1, file) != 1)
			fail("could not write the checkpoint");
		done += n;
	}
	if (fflush(file) != 0 || fsync(fileno(file)) != 0 || fclose(file) != 0)
		fail("could not write the checkpoint");
	bench->file_bytes = 8 + n_header + data_bytes;
	free(header);
}

static void
forget_file(const Bench *bench)
{
	int fd = open(bench->path, O_RDONLY);

	if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
		fail("could not drop the file from the page cache");
	close(fd);
}

/* What any way to load has to do at least. */
static double
read_seconds(const Bench *bench)
{
	int64_t start_us = llm_clock_us();
	int fd = open(bench->path, O_RDONLY);

	while (read(fd, bench->buffer, BUFFER_BYTES) > 0)
		;
	close(fd);
	return (double) (llm_clock_us() - start_us) / 1e6;
}

static double
resident_bytes(void)
{
	unsigned long long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (file == NULL || fscanf(file, "%*s %llu", &pages) != 1)
		fail("could not read /proc/self/statm");
	fclose(file);
	return (double) pages * (double) sysconf(_SC_PAGESIZE);
}

/* Load, and say how long it took and what memory it holds. */
static double
load_seconds(const Bench *bench, const LlmModelConfig *config, double *resident)
{
	LlmComputeOptions compute_options = {
		.precision = LLM_DTYPE_BF16,
		.max_rows = 256,
		.max_cols = 8192,
		.max_seqs = 32,
		.max_context_len = 4096,
		.max_heads = 32,
		.max_vocab = config->n_vocab,
	};
	LlmModelOptions options = { .weight_dtype = LLM_DTYPE_BF16,
								.max_model_len = 4096,
								.max_num_batched_tokens = 256,
								.max_logit_rows = 32 };
	LlmError err;
	LlmCompute *compute = llm_compute_cpu_open(&compute_options, &err);
	int64_t start_us = llm_clock_us();
	LlmModel *model = compute != NULL ? llm_model_load(bench->dir, config,
													   &options, compute, &err)
									  : NULL;
	double seconds = (double) (llm_clock_us() - start_us) / 1e6;

	if (model == NULL)
		fail(err.message);
	*resident = resident_bytes();
	llm_model_free(model);
	compute->ops->close(compute);
	return seconds;
}

static void
print_row(const Bench *bench, const char *name, double read, double load)
{
	double gb = (double) bench->file_bytes / 1e9;

	printf(bench->csv ? "%s,%.3f,%.3f,%.3f\n"
					  : "%-14s %8.2f GB/s read %8.2f GB/s load %6.2f\n",
		   name, gb / read, gb / load, read / load);
}

static void
parse_args(Bench *bench, int argc, char **argv)
{
	strcpy(bench->dir, ".");
	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--csv") == 0)
			bench->csv = true;
		else if (strcmp(argv[i], "--folder") == 0 && i + 1 < argc)
			snprintf(bench->dir, sizeof(bench->dir), "%s", argv[++i]);
		else
			fail("usage: bench_load [--csv] [--folder DIR]");
	}
	if (strlen(bench->dir) + 30 > sizeof(bench->dir))
		fail("the folder's name is too long");
	strcat(bench->dir, "/bench_load.XXXXXX");
	if (mkdtemp(bench->dir) == NULL)
		fail("could not make a folder for the checkpoint");
	snprintf(bench->path, sizeof(bench->path), "%s/model.safetensors",
			 bench->dir);
}

int
main(int argc, char **argv)
{
	static Bench bench;
	LlmModelConfig config;
	LlmError err;
	double resident;
	double read;

	parse_args(&bench, argc, argv);
	bench.buffer = malloc(BUFFER_BYTES);
	if (bench.buffer == NULL ||
		!llm_model_config_parse(config_json, strlen(config_json), "config",
								&config, &err))
		fail("could not begin");
	write_checkpoint(&bench, &config);
	if (bench.csv)
		printf("from,read_gb_per_s,load_gb_per_s,ratio\n");
	forget_file(&bench);
	read = read_seconds(&bench);
	forget_file(&bench);
	print_row(&bench, "storage", read,
			  load_seconds(&bench, &config, &resident));
	read = read_seconds(&bench);
	print_row(&bench, "page cache", read,
			  load_seconds(&bench, &config, &resident));
	if (!bench.csv)
		printf("resident memory of the process: %.3f of the file's %.2f GB\n",
			   resident / (double) bench.file_bytes,
			   (double) bench.file_bytes / 1e9);
	unlink(bench.path);
	rmdir(bench.dir);
	free(bench.buffer);
	return 0;
}
