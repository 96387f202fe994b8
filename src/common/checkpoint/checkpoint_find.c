/*
 * checkpoint_find.c
 *	  Which files a model's path means.
 *
 * src/common/checkpoint/checkpoint_find.c
 */
#include <ctype.h>
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "src/common/checkpoint/checkpoint.h"

static bool
ends_with(const char *name, const char *suffix)
{
	size_t len = strlen(name);
	size_t suffix_len = strlen(suffix);

	return len > suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
}

/* A piece of a split file but the first: "...-00002-of-00003.gguf". */
static bool
is_later_piece(const char *name)
{
	static const char pattern[] = "-#####-of-#####.gguf";
	size_t n = sizeof(pattern) - 1;
	size_t len = strlen(name);
	const char *end = name + len - n;

	if (len <= n)
		return false;
	for (size_t i = 0; i < n; i++)
	{
		if (pattern[i] == '#' ? !isdigit((unsigned char) end[i])
							  : pattern[i] != end[i])
			return false;
	}
	return strncmp(end, "-00001-", 7) != 0;
}

/* The last GGUF file of a directory, and how many there are. */
static bool
search_directory(const char *path, LlmStrbuf *gguf_path, int *n_files,
				 LlmError *err)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	bool has_safetensors = false;

	*n_files = 0;
	if (dir == NULL)
		return llm_error_errno(err, "could not open directory \"%s\"", path);
	while ((entry = readdir(dir)) != NULL)
	{
		has_safetensors =
			has_safetensors ||
			strcmp(entry->d_name, "model.safetensors") == 0 ||
			strcmp(entry->d_name, "model.safetensors.index.json") == 0;
		if (!ends_with(entry->d_name, ".gguf") || is_later_piece(entry->d_name))
			continue;
		(*n_files)++;
		llm_strbuf_reset(gguf_path);
		llm_strbuf_printf(gguf_path, "%s/%s", path, entry->d_name);
	}
	closedir(dir);
	if (has_safetensors)
		*n_files = 0;
	return true;
}

bool
llm_checkpoint_find_gguf(const char *path, LlmStrbuf *gguf_path, bool *found,
						 LlmError *err)
{
	struct stat st;
	int n_files = 1;

	*found = false;
	if (stat(path, &st) != 0)
		return llm_error_errno(err, "could not open \"%s\"", path);
	if (S_ISDIR(st.st_mode))
	{
		if (!search_directory(path, gguf_path, &n_files, err))
			return false;
	}
	else if (ends_with(path, ".safetensors"))
		return true;
	else
		llm_strbuf_append_str(gguf_path, path);
	if (n_files > 1)
	{
		llm_error_set(err, LLM_ERROR_INVALID,
					  "directory \"%s\" has %d GGUF files", path, n_files);
		return llm_error_hint(err, "Give the path of one of them.");
	}
	*found = n_files == 1;
	return !gguf_path->failed || llm_error_no_memory(err, 0, "a path");
}
