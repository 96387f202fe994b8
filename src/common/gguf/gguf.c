/*
 * gguf.c
 *	  Open a GGUF file, or the pieces of a split one.
 *
 * The mapping is shared and read-only, as that of safetensors files.  A
 * split file's pieces are called <name>-00001-of-0000N.gguf and so on; each
 * says in "split.no" and "split.count" which it is.  The first has the
 * metadata, and its name is the model's.
 *
 * gguf_header.c checks one file, gguf_values.c reads metadata; gguf_names.c,
 * gguf_config.c, gguf_tokens.c and gguf_tokenizer.c say the same in the
 * words of a model directory.
 *
 * src/common/gguf/gguf.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/gguf/gguf_internal.h"

static LlmGguf *
create(LlmError *err)
{
	LlmGguf *gguf = calloc(1, sizeof(*gguf));

	if (gguf == NULL)
	{
		llm_error_no_memory(err, sizeof(*gguf), "a GGUF file");
		return NULL;
	}
	gguf->arena = llm_arena_create("GGUF metadata", 0);
	gguf->files = calloc(GGUF_MAX_FILES, sizeof(*gguf->files));
	if (gguf->arena == NULL || gguf->files == NULL)
	{
		llm_error_no_memory(err, GGUF_MAX_FILES * sizeof(*gguf->files),
							"a GGUF file");
		llm_gguf_close(gguf);
		return NULL;
	}
	return gguf;
}

static bool
name_file(LlmGguf *gguf, const char *path, LlmError *err)
{
	assert(gguf->n_files < GGUF_MAX_FILES);
	gguf->files[gguf->n_files].path =
		llm_arena_strndup(gguf->arena, path, strlen(path));
	return gguf->files[gguf->n_files].path != NULL ||
		   llm_error_no_memory(err, strlen(path), "a file name");
}

static bool
add_file(LlmGguf *gguf, const char *path, LlmError *err)
{
	GgufFile *file = &gguf->files[gguf->n_files];

	if (!name_file(gguf, path, err) ||
		!llm_mapped_file_open(&file->map, path, err))
		return false;
	file->is_mapped = true;
	gguf->n_files++; /* from here on close unmaps it */
	return gguf_read_header(gguf, gguf->n_files - 1, err);
}

/* "split.count" and "split.no" of a piece; 1 and 0 where it is whole. */
static bool
read_split(const GgufFile *file, int64_t *n_files, int64_t *no, LlmError *err)
{
	*n_files = 1;
	*no = 0;
	if (!gguf_file_get_int(file, "split.count", n_files, err) ||
		!gguf_file_get_int(file, "split.no", no, err))
		return false;
	if (*n_files == 0)
		*n_files = 1;
	if (*n_files < 1 || *n_files > GGUF_MAX_FILES || *no < 0 || *no >= *n_files)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: the file says that it is piece %lld of %lld",
							 file->path, (long long) *no, (long long) *n_files);
	return true;
}

static bool
add_pieces(LlmGguf *gguf, const char *path, int n_files, LlmError *err)
{
	char suffix[32];
	size_t stem_len;

	snprintf(suffix, sizeof(suffix), "-00001-of-%05d.gguf", n_files);
	if (strlen(path) <= strlen(suffix) ||
		strcmp(path + strlen(path) - strlen(suffix), suffix) != 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "%s: a file split into %d pieces is opened by "
							 "its first, whose name ends in \"%s\"",
							 path, n_files, suffix);
	stem_len = strlen(path) - strlen(suffix);
	for (int i = 1; i < n_files; i++)
	{
		char piece[4096];
		int64_t n_said;
		int64_t no;

		if (snprintf(piece, sizeof(piece), "%.*s-%05d-of-%05d.gguf",
					 (int) stem_len, path, i + 1,
					 n_files) >= (int) sizeof(piece))
			return llm_error_set(err, LLM_ERROR_LIMIT, "the path is too long");
		if (!add_file(gguf, piece, err) ||
			!read_split(&gguf->files[i], &n_said, &no, err))
			return false;
		if (n_said != n_files || no != i)
			return llm_error_set(
				err, LLM_ERROR_FORMAT,
				"%s: the file says that it is piece %lld of %lld, not %d of %d",
				piece, (long long) no, (long long) n_said, i, n_files);
	}
	return true;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const LlmGgufTensor *) a)->name,
				  ((const LlmGgufTensor *) b)->name);
}

static bool
sort_tensors(LlmGguf *gguf, LlmError *err)
{
	if (gguf->n_tensors > 0)
		qsort(gguf->tensors, gguf->n_tensors, sizeof(*gguf->tensors),
			  compare_names);
	for (size_t i = 1; i < gguf->n_tensors; i++)
	{
		if (strcmp(gguf->tensors[i - 1].name, gguf->tensors[i].name) == 0)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "%s: tensor \"%s\" occurs twice",
								 gguf->files[gguf->tensors[i].file_idx].path,
								 gguf->tensors[i].name);
	}
	return true;
}

LlmGguf *
llm_gguf_open(const char *path, LlmError *err)
{
	LlmGguf *gguf = create(err);
	int64_t n_files;
	int64_t no;

	if (gguf == NULL)
		return NULL;
	if (!add_file(gguf, path, err) ||
		!read_split(&gguf->files[0], &n_files, &no, err) ||
		(n_files > 1 && !add_pieces(gguf, path, (int) n_files, err)) ||
		!sort_tensors(gguf, err))
	{
		llm_gguf_close(gguf);
		return NULL;
	}
	return gguf;
}

LlmGguf *
llm_gguf_parse(const void *data, size_t n_bytes, const char *what,
			   LlmError *err)
{
	LlmGguf *gguf = create(err);

	if (gguf == NULL)
		return NULL;
	if (!name_file(gguf, what, err))
	{
		llm_gguf_close(gguf);
		return NULL;
	}
	gguf->files[0].map = (LlmMappedFile){ data, n_bytes };
	gguf->n_files = 1;
	if (!gguf_read_header(gguf, 0, err) || !sort_tensors(gguf, err))
	{
		llm_gguf_close(gguf);
		return NULL;
	}
	return gguf;
}

void
llm_gguf_close(LlmGguf *gguf)
{
	if (gguf == NULL)
		return;
	for (int i = 0; i < gguf->n_files; i++)
	{
		if (gguf->files[i].is_mapped)
			llm_mapped_file_close(&gguf->files[i].map);
	}
	free(gguf->files);
	free(gguf->tensors);
	llm_arena_free(gguf->arena);
	free(gguf);
}

int
llm_gguf_n_tensors(const LlmGguf *gguf)
{
	return (int) gguf->n_tensors;
}

const LlmGgufTensor *
llm_gguf_get(const LlmGguf *gguf, int tensor_idx)
{
	assert(tensor_idx >= 0 && (size_t) tensor_idx < gguf->n_tensors);
	return &gguf->tensors[tensor_idx];
}

const LlmGgufTensor *
llm_gguf_find(const LlmGguf *gguf, const char *name)
{
	LlmGgufTensor key = { .name = name };

	if (gguf->n_tensors == 0)
		return NULL;
	return bsearch(&key, gguf->tensors, gguf->n_tensors, sizeof(key),
				   compare_names);
}

int
llm_gguf_n_files(const LlmGguf *gguf)
{
	return gguf->n_files;
}

const char *
llm_gguf_path(const LlmGguf *gguf, int file_idx)
{
	assert(file_idx >= 0 && file_idx < gguf->n_files);
	return gguf->files[file_idx].path;
}

LlmGgufText
llm_gguf_bytes(const LlmGguf *gguf, int file_idx)
{
	assert(file_idx >= 0 && file_idx < gguf->n_files);
	return (LlmGgufText){ gguf->files[file_idx].map.data,
						  gguf->files[file_idx].map.size };
}

bool
llm_gguf_text(const LlmGguf *gguf, const char *name, LlmStrbuf *text,
			  bool *found, LlmError *err)
{
	*found = true;
	if (strcmp(name, "config.json") == 0)
		return gguf_write_config(gguf, text, err);
	if (strcmp(name, "tokenizer.json") == 0)
		return gguf_write_tokenizer(gguf, text, err);
	if (strcmp(name, "tokenizer_config.json") == 0)
		return gguf_write_tokenizer_config(gguf, text, err);
	if (strcmp(name, "generation_config.json") == 0)
		return gguf_write_generation_config(gguf, text, found, err);
	*found = false;
	return true;
}
