/*
 * safetensors.c
 *	  Open a checkpoint: find its files, map them, index their tensors.
 *
 * A directory holds either model.safetensors or shards together with
 * model.safetensors.index.json, whose "weight_map" says in which shard each
 * tensor lies; where both exist the single file wins, as in transformers.
 * Tensors are kept sorted by name and found by bisection.
 *
 * The mapping is shared and read-only: several processes that load the same
 * model use the same pages.  A file that is truncated by someone else while
 * it is mapped raises SIGBUS in whoever touches the missing pages, which is
 * one reason why only the executor does.
 *
 * safetensors_header.c parses and checks one file.
 *
 * src/common/safetensors/safetensors.c
 */
#include "src/common/safetensors/safetensors_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/util/json.h"

#define SINGLE_FILE_NAME "model.safetensors"
#define INDEX_FILE_NAME "model.safetensors.index.json"

static bool
add_file(LlmSafetensors *tensors, const char *path, LlmError *err)
{
	StoredFile *file = &tensors->files[tensors->n_files];

	assert(tensors->n_files < SAFETENSORS_MAX_FILES);
	file->path = llm_arena_strndup(tensors->arena, path, strlen(path));
	if (file->path == NULL)
		return llm_error_no_memory(err, strlen(path), "a file name");
	if (!llm_mapped_file_open(&file->map, path, err))
		return false;
	tensors->n_files++; /* from here on close unmaps it */
	tensors->total_bytes += file->map.size;
	return safetensors_read_header(tensors, tensors->n_files - 1, err);
}

/* A shard is a plain file name: an index must not lead out of its folder. */
static bool
is_plain_file_name(const char *name)
{
	size_t len = strlen(name);
	static const char suffix[] = ".safetensors";

	return len > sizeof(suffix) - 1 && len < 256 && name[0] != '.' &&
		   strchr(name, '/') == NULL &&
		   strcmp(name + len - (sizeof(suffix) - 1), suffix) == 0;
}

static int
compare_strings(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* The shards' names, each once, sorted; borrowed from the index. */
static int
collect_shards(const cJSON *map, const char *index_path, const char **shards,
			   LlmError *err)
{
	const cJSON *entry;
	int n = 0;
	int n_unique = 0;

	cJSON_ArrayForEach(entry, map)
	{
		if (!cJSON_IsString(entry) || !is_plain_file_name(entry->valuestring))
		{
			llm_error_set(err, LLM_ERROR_FORMAT,
						  "%s: tensor \"%s\": \"%s\" is not the name of a "
						  "shard",
						  index_path, entry->string,
						  cJSON_IsString(entry) ? entry->valuestring : "");
			return -1;
		}
		/* neighbours mostly share their shard: keep the list short */
		if (n == 0 || strcmp(shards[n - 1], entry->valuestring) != 0)
			shards[n++] = entry->valuestring;
	}
	qsort(shards, (size_t) n, sizeof(*shards), compare_strings);
	for (int i = 0; i < n; i++)
	{
		if (i == 0 || strcmp(shards[i], shards[i - 1]) != 0)
			shards[n_unique++] = shards[i];
	}
	if (n_unique > SAFETENSORS_MAX_FILES)
	{
		llm_error_set(err, LLM_ERROR_LIMIT,
					  "%s: it names %d shards, more than the limit of %d",
					  index_path, n_unique, SAFETENSORS_MAX_FILES);
		return -1;
	}
	return n_unique;
}

static bool
open_shards(LlmSafetensors *tensors, const char *dir, const char *index_path,
			const cJSON *map, LlmError *err)
{
	int n_entries = cJSON_GetArraySize(map);
	const char **shards = calloc((size_t) n_entries + 1, sizeof(*shards));
	int n_shards;
	bool ok;

	if (shards == NULL)
		return llm_error_no_memory(err, (uint64_t) n_entries * sizeof(*shards),
								   "the list of shards");
	n_shards = collect_shards(map, index_path, shards, err);
	ok = n_shards >= 0;
	for (int i = 0; ok && i < n_shards; i++)
	{
		char path[4096];

		if ((size_t) snprintf(path, sizeof(path), "%s/%s", dir, shards[i]) >=
			sizeof(path))
			ok = llm_error_set(err, LLM_ERROR_LIMIT,
							   "the path of \"%s\" is too long", shards[i]);
		else
			ok = add_file(tensors, path, err);
	}
	free(shards);
	return ok;
}

static bool
open_index(LlmSafetensors *tensors, const char *dir, const char *index_path,
		   cJSON **index, LlmError *err)
{
	const cJSON *map;

	*index = llm_json_parse_file(index_path, SAFETENSORS_MAX_HEADER_BYTES, err);
	if (*index == NULL)
		return false;
	map = cJSON_GetObjectItemCaseSensitive(*index, "weight_map");
	if (!cJSON_IsObject(map) || map->child == NULL)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "%s: \"weight_map\" must be an object that names "
							 "each tensor's shard",
							 index_path);
	return open_shards(tensors, dir, index_path, map, err);
}

typedef struct SortEntry
{
	LlmStoredTensor tensor;
	int file_idx;
} SortEntry;

static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const SortEntry *) a)->tensor.name,
				  ((const SortEntry *) b)->tensor.name);
}

/* Sort by name; two tensors of one name are an error. */
static bool
sort_by_name(LlmSafetensors *tensors, LlmError *err)
{
	size_t n = (size_t) tensors->n_tensors;
	SortEntry *entries;

	if (n == 0)
		return true;
	entries = malloc(n * sizeof(*entries));
	if (entries == NULL)
		return llm_error_no_memory(err, n * sizeof(*entries),
								   "the list of tensors");
	for (size_t i = 0; i < n; i++)
		entries[i] =
			(SortEntry){ tensors->tensors[i], tensors->tensor_file[i] };
	qsort(entries, n, sizeof(*entries), compare_names);
	for (size_t i = 0; i < n; i++)
	{
		tensors->tensors[i] = entries[i].tensor;
		tensors->tensor_file[i] = entries[i].file_idx;
	}
	free(entries);
	for (size_t i = 1; i < n; i++)
	{
		if (strcmp(tensors->tensors[i - 1].name, tensors->tensors[i].name) == 0)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "%s: tensor \"%s\" occurs twice",
								 tensors->files[tensors->tensor_file[i]].path,
								 tensors->tensors[i].name);
	}
	return true;
}

/* Each tensor must lie in the shard that the index names. */
static bool
check_index(const LlmSafetensors *tensors, const char *index_path,
			const cJSON *index, LlmError *err)
{
	const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
	const cJSON *entry;

	cJSON_ArrayForEach(entry, map)
	{
		const LlmStoredTensor *tensor =
			llm_safetensors_find(tensors, entry->string);
		const char *path;

		if (tensor == NULL)
			return llm_error_set(err, LLM_ERROR_NOT_FOUND,
								 "%s: tensor \"%s\" is not in shard \"%s\"",
								 index_path, entry->string, entry->valuestring);
		path = llm_safetensors_path(tensors, tensor);
		if (strcmp(strrchr(path, '/') + 1, entry->valuestring) != 0)
			return llm_error_set(
				err, LLM_ERROR_FORMAT,
				"%s: tensor \"%s\" is in \"%s\", not in shard \"%s\"",
				index_path, entry->string, path, entry->valuestring);
	}
	return true;
}

static bool
is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool
exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static bool
open_directory(LlmSafetensors *tensors, const char *dir, LlmError *err)
{
	char single_path[4096];
	char index_path[4096];
	cJSON *index = NULL;
	bool ok;

	if (strlen(dir) > sizeof(index_path) - 64)
		return llm_error_set(err, LLM_ERROR_LIMIT, "the path is too long");
	snprintf(single_path, sizeof(single_path), "%s/" SINGLE_FILE_NAME, dir);
	snprintf(index_path, sizeof(index_path), "%s/" INDEX_FILE_NAME, dir);
	if (exists(single_path))
		return add_file(tensors, single_path, err) &&
			   sort_by_name(tensors, err);
	if (!exists(index_path))
	{
		llm_error_set(err, LLM_ERROR_NOT_FOUND,
					  "directory \"%s\" has neither \"" SINGLE_FILE_NAME
					  "\" nor \"" INDEX_FILE_NAME "\"",
					  dir);
		return llm_error_hint(err, "weights in other formats (.bin, .pt) have "
								   "to be saved as safetensors first");
	}
	ok = open_index(tensors, dir, index_path, &index, err) &&
		 sort_by_name(tensors, err) &&
		 check_index(tensors, index_path, index, err);
	cJSON_Delete(index);
	return ok;
}

LlmSafetensors *
llm_safetensors_open(const char *path, LlmError *err)
{
	LlmSafetensors *tensors = calloc(1, sizeof(*tensors));
	bool ok;

	if (tensors == NULL)
	{
		llm_error_no_memory(err, sizeof(*tensors), "a checkpoint");
		return NULL;
	}
	tensors->arena = llm_arena_create("tensor names", 0);
	tensors->files = calloc(SAFETENSORS_MAX_FILES, sizeof(*tensors->files));
	if (tensors->arena == NULL || tensors->files == NULL)
		ok = llm_error_no_memory(err, sizeof(*tensors->files), "a checkpoint");
	else if (is_directory(path))
		ok = open_directory(tensors, path, err);
	else
		ok = add_file(tensors, path, err) && sort_by_name(tensors, err);
	if (!ok)
	{
		llm_safetensors_close(tensors);
		return NULL;
	}
	return tensors;
}

void
llm_safetensors_close(LlmSafetensors *tensors)
{
	if (tensors == NULL)
		return;
	for (int i = 0; i < tensors->n_files; i++)
		llm_mapped_file_close(&tensors->files[i].map);
	free(tensors->files);
	free(tensors->tensors);
	free(tensors->tensor_file);
	cJSON_Delete(tensors->metadata);
	llm_arena_free(tensors->arena);
	free(tensors);
}

int
llm_safetensors_n_tensors(const LlmSafetensors *tensors)
{
	return tensors->n_tensors;
}

const LlmStoredTensor *
llm_safetensors_get(const LlmSafetensors *tensors, int tensor_idx)
{
	assert(tensor_idx >= 0 && tensor_idx < tensors->n_tensors);
	return &tensors->tensors[tensor_idx];
}

const LlmStoredTensor *
llm_safetensors_find(const LlmSafetensors *tensors, const char *name)
{
	int low = 0;
	int high = tensors->n_tensors;

	while (low < high)
	{
		int middle = low + (high - low) / 2;
		int order = strcmp(name, tensors->tensors[middle].name);

		if (order == 0)
			return &tensors->tensors[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

const char *
llm_safetensors_metadata(const LlmSafetensors *tensors, const char *key)
{
	return cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(tensors->metadata, key));
}

const char *
llm_safetensors_path(const LlmSafetensors *tensors,
					 const LlmStoredTensor *tensor)
{
	ptrdiff_t idx = tensor - tensors->tensors;

	assert(idx >= 0 && idx < tensors->n_tensors);
	return tensors->files[tensors->tensor_file[idx]].path;
}

uint64_t
llm_safetensors_offset(const LlmSafetensors *tensors,
					   const LlmStoredTensor *tensor)
{
	ptrdiff_t idx = tensor - tensors->tensors;

	assert(idx >= 0 && idx < tensors->n_tensors);
	return (uint64_t) ((const char *) tensor->data -
					   tensors->files[tensors->tensor_file[idx]].map.data);
}

bool
llm_safetensors_prefetch(const LlmSafetensors *tensors, LlmError *err)
{
	size_t machine_bytes =
		(size_t) sysconf(_SC_PHYS_PAGES) * (size_t) sysconf(_SC_PAGESIZE);

	if (tensors->total_bytes > machine_bytes / 4 * 3)
		return true;
	for (int i = 0; i < tensors->n_files; i++)
	{
		const StoredFile *file = &tensors->files[i];

		if (!llm_mapped_file_prefetch(&file->map, file->path, err))
			return false;
	}
	return true;
}

size_t
llm_safetensors_total_bytes(const LlmSafetensors *tensors)
{
	return tensors->total_bytes;
}

void
llm_safetensors_print_shape(char *text, size_t size, const int64_t *shape,
							int n_dims)
{
	size_t used = (size_t) snprintf(text, size, "[");

	for (int i = 0; i < n_dims && used < size; i++)
		used += (size_t) snprintf(text + used, size - used, "%s%lld",
								  i > 0 ? ", " : "", (long long) shape[i]);
	if (used < size)
		snprintf(text + used, size - used, "]");
}
