/*
 * replay.c
 *	  Run a fuzz target over the files of a folder, without a fuzzer.
 *
 *	  replay_<target> [folder]
 *
 * The folder is test/fuzz/corpus/<target> where none is given.
 *
 * test/fuzz/replay.c
 */
#include <dirent.h>
#include <string.h>

#include "src/common/util/mapped_file.h"
#include "test/fuzz/fuzz.h"

/* In an exact allocation of its own, so that reading beyond it is seen. */
static void
replay_file(const char *path)
{
	LlmMappedFile file;
	LlmError err;
	uint8_t *copy;

	if (!llm_mapped_file_open(&file, path, &err))
	{
		fprintf(stderr, "%s\n", err.message);
		exit(1);
	}
	copy = malloc(file.size > 0 ? file.size : 1);
	if (copy == NULL)
		abort();
	memcpy(copy, file.data, file.size);
	fprintf(stderr, "%s\n", path);
	(void) LLVMFuzzerTestOneInput(copy, file.size);
	free(copy);
	llm_mapped_file_close(&file);
}

int
main(int argc, char **argv)
{
	const char *target = strrchr(argv[0], '_');
	char folder[4096];
	char path[8192];
	struct dirent **entries;
	int n_entries;
	int n_files = 0;

	snprintf(folder, sizeof(folder), "test/fuzz/corpus/%s",
			 target != NULL ? target + 1 : "");
	if (argc > 1)
		snprintf(folder, sizeof(folder), "%s", argv[1]);
	n_entries = scandir(folder, &entries, NULL, alphasort);
	for (int i = 0; i < n_entries; i++)
	{
		if (entries[i]->d_name[0] != '.')
		{
			snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
			replay_file(path);
			n_files++;
		}
		free(entries[i]);
	}
	if (n_files == 0)
	{
		fprintf(stderr, "\"%s\" holds no file\n", folder);
		return 1;
	}
	free(entries);
	printf("%d passed, 0 failed, 0 skipped\n", n_files);
	return 0;
}
