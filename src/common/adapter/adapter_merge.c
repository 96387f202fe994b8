/*
 * adapter_merge.c
 *	  A checkpoint with an adapter in its weights.
 *
 * The tensors of the base model are read row by row, changed where the adapter
 * says so, and written to new shards: neither model has to fit into memory,
 * and a base file that somebody cuts short is an error, not a signal.
 * adapter_merge_files.c writes what is not a tensor.
 *
 * src/common/adapter/adapter_merge.c
 */
#include "src/common/adapter/adapter_merge.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/util/half_float.h"

/* A tensor that is written, and what it is made of. */
typedef struct OutTensor
{
	LlmStoredTensor out;		   /* name, dtype, shape, bytes */
	const LlmStoredTensor *source; /* of the base */
	const AdapterTarget *target;   /* NULL: nothing changes it */
	int shard_idx;
} OutTensor;

typedef struct Merge
{
	const LlmAdapterImage *image;
	const LlmModelConfig *config;
	const LlmAdapterMergeOptions *options;
	const char *dir;
	LlmSafetensors *base;
	AdapterTarget *targets;
	const AdapterTarget **by_name;
	int n_targets;
	OutTensor *tensors;
	int n_tensors;
	int n_shards;
	bool unties_head;
	LlmAdapterMergeReport *report;
	LlmError *err;

	/* the source file that is open */
	int source_fd;
	const char *source_path;

	/* the pair that is being merged, in float32 */
	const LlmAdapterPair *pair;
	float *a; /* [rank, n_in] */
	float *b; /* [n_out, rank] */
} Merge;

/* -- reading the base -- */

static bool
open_source(Merge *merge, const LlmStoredTensor *tensor)
{
	const char *path = llm_safetensors_path(merge->base, tensor);

	if (merge->source_fd >= 0 && merge->source_path == path)
		return true;
	if (merge->source_fd >= 0)
		close(merge->source_fd);
	merge->source_path = path;
	merge->source_fd = open(path, O_RDONLY | O_CLOEXEC);
	return merge->source_fd >= 0 ||
		   llm_error_errno(merge->err, "could not open \"%s\"", path);
}

/* Bytes of a tensor's data from an offset on. */
static bool
read_bytes(Merge *merge, const LlmStoredTensor *tensor, size_t off, void *dest,
		   size_t n_bytes)
{
	uint64_t begin = llm_safetensors_offset(merge->base, tensor) + off;
	char *to = dest;

	if (!open_source(merge, tensor))
		return false;
	while (n_bytes > 0)
	{
		ssize_t n = pread(merge->source_fd, to, n_bytes, (off_t) begin);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return llm_error_errno(merge->err, "could not read \"%s\"",
								   merge->source_path);
		if (n == 0)
			return llm_error_set(merge->err, LLM_ERROR_FORMAT,
								 "%s: the file is truncated",
								 merge->source_path);
		to += n;
		begin += (uint64_t) n;
		n_bytes -= (size_t) n;
	}
	return true;
}

static void
widen(const void *from, LlmDtype dtype, float *to, int64_t n)
{
	LlmStoredTensor row = { .data = from, .dtype = dtype };

	for (int64_t i = 0; i < n; i++)
		to[i] = adapter_element(&row, (size_t) i);
}

static void
narrow(const float *from, LlmDtype dtype, void *to, int64_t n)
{
	uint16_t *halves = to;

	if (dtype == LLM_DTYPE_F32)
	{
		memcpy(to, from, (size_t) n * sizeof(float));
		return;
	}
	for (int64_t i = 0; i < n; i++)
		halves[i] = dtype == LLM_DTYPE_F16 ? llm_float_to_f16(from[i])
										   : llm_float_to_bf16(from[i]);
}

/* -- one row -- */

/* The pair that changes a row of a target; *row becomes its own row. */
static const LlmAdapterPair *
pair_of_row(const Merge *merge, const AdapterTarget *target, int64_t *row)
{
	for (int i = 0; i < target->n_parts; i++)
	{
		int64_t first = target->parts[i].first_row;

		if (target->parts[i].module == LLM_ADAPTER_EMBED ||
			(*row >= first && *row < first + target->parts[i].n_rows))
		{
			*row -= first;
			return adapter_pair_of_part(merge->image, target, i);
		}
	}
	return NULL;
}

static float *
widen_matrix(const LlmStoredTensor *tensor)
{
	int64_t n = tensor->shape[0] * tensor->shape[1];
	float *wide = malloc((size_t) n * sizeof(float));

	if (wide != NULL)
		widen(tensor->data, tensor->dtype, wide, n);
	return wide;
}

static void
forget_pair(Merge *merge)
{
	free(merge->a);
	free(merge->b);
	merge->pair = NULL;
	merge->a = merge->b = NULL;
}

static bool
use_pair(Merge *merge, const LlmAdapterPair *pair)
{
	if (merge->pair == pair)
		return true;
	forget_pair(merge);
	merge->a = widen_matrix(pair->a);
	merge->b = widen_matrix(pair->b);
	if (merge->a == NULL || merge->b == NULL)
		return llm_error_no_memory(merge->err, pair->a->n_bytes,
								   "an adapter's matrix");
	merge->pair = pair;
	return true;
}

/* delta[i] = sum over r of B[row, r] A[r, i]; of embeddings B A transposed. */
static void
compute_delta(const Merge *merge, int64_t row, float *delta, int64_t n)
{
	const LlmAdapterPair *pair = merge->pair;
	int64_t rank = pair->rank;

	memset(delta, 0, (size_t) n * sizeof(float));
	for (int64_t r = 0; r < rank; r++)
	{
		bool is_embedding = pair->module == LLM_ADAPTER_EMBED;
		float factor = is_embedding ? merge->a[r * pair->n_in + row]
									: merge->b[row * rank + r];
		const float *from =
			is_embedding ? merge->b + r : merge->a + r * pair->n_in;
		int64_t stride = is_embedding ? rank : 1;

		for (int64_t i = 0; i < n; i++)
			delta[i] += factor * from[i * stride];
	}
}

/* DoRA: the changed row, scaled to its trained length. */
static void
apply_magnitude(const LlmAdapterPair *pair, int64_t row, float *values,
				int64_t n)
{
	double sum = 0;
	float factor;

	for (int64_t i = 0; i < n; i++)
		sum += (double) values[i] * values[i];
	factor = sum > 0 ? adapter_element(pair->magnitude, (size_t) row) /
						   (float) sqrt(sum)
					 : 0.0f;
	for (int64_t i = 0; i < n; i++)
		values[i] *= factor;
}

/* Change a row of n values in place; delta is room for as many. */
static bool
change_row(Merge *merge, const AdapterTarget *target, int64_t row,
		   float *values, float *delta, int64_t n)
{
	const LlmAdapterPair *pair = pair_of_row(merge, target, &row);
	LlmAdapterMergeReport *report = merge->report;

	if (pair == NULL)
		return true;
	if (!use_pair(merge, pair))
		return false;
	compute_delta(merge, row, delta, n);
	for (int64_t i = 0; i < n; i++)
	{
		float before = values[i];

		values[i] += pair->scale * delta[i];
		delta[i] = before;
	}
	if (pair->magnitude != NULL)
		apply_magnitude(pair, row, values, n);
	for (int64_t i = 0; i < n; i++)
	{
		if (!isfinite(values[i]))
			return llm_error_set(merge->err, LLM_ERROR_FORMAT,
								 "merging makes a weight of module \"%s\" "
								 "infinite",
								 target->name);
		report->max_change =
			fmax(report->max_change, fabs((double) values[i] - delta[i]));
	}
	return true;
}

/* -- one tensor -- */

/* Buffers for a row, in all its forms. */
typedef struct RowBuffers
{
	char *stored;
	float *values;
	float *delta;
	char *out;
} RowBuffers;

static void
note_rounding(Merge *merge, const RowBuffers *row, LlmDtype dtype, int64_t n)
{
	if (dtype == LLM_DTYPE_F32)
		return;
	widen(row->out, dtype, row->delta, n);
	for (int64_t i = 0; i < n; i++)
		merge->report->max_rounding =
			fmax(merge->report->max_rounding,
				 fabs((double) row->values[i] - row->delta[i]));
}

static bool
write_row(Merge *merge, const OutTensor *tensor, int64_t row_idx,
		  const RowBuffers *row, FILE *file)
{
	const LlmStoredTensor *source = tensor->source;
	int64_t n = source->n_dims == 2 ? source->shape[1] : source->shape[0];
	size_t stored_bytes = (size_t) n * llm_dtype_bytes(source->dtype);
	size_t out_bytes = (size_t) n * llm_dtype_bytes(tensor->out.dtype);

	if (!read_bytes(merge, source, (size_t) row_idx * stored_bytes, row->stored,
					stored_bytes))
		return false;
	widen(row->stored, source->dtype, row->values, n);
	if (tensor->target != NULL &&
		!change_row(merge, tensor->target, row_idx, row->values, row->delta, n))
		return false;
	narrow(row->values, tensor->out.dtype, row->out, n);
	if (tensor->target != NULL)
		note_rounding(merge, row, tensor->out.dtype, n);
	return fwrite(row->out, 1, out_bytes, file) == out_bytes ||
		   llm_error_errno(merge->err, "could not write to \"%s\"", merge->dir);
}

static bool
write_rows(Merge *merge, const OutTensor *tensor, FILE *file)
{
	const LlmStoredTensor *source = tensor->source;
	int64_t n_rows = source->n_dims == 2 ? source->shape[0] : 1;
	size_t n =
		(size_t) (source->n_dims == 2 ? source->shape[1] : source->shape[0]);
	RowBuffers row = { malloc(n * 4 + 1), malloc(n * 4 + 1), malloc(n * 4 + 1),
					   malloc(n * 4 + 1) };
	bool ok = row.stored != NULL && row.values != NULL && row.delta != NULL &&
			  row.out != NULL;

	if (!ok)
		llm_error_no_memory(merge->err, n * 16, "a row of weights");
	for (int64_t i = 0; ok && i < n_rows; i++)
		ok = write_row(merge, tensor, i, &row, file);
	forget_pair(merge);
	free(row.stored);
	free(row.values);
	free(row.delta);
	free(row.out);
	return ok;
}

/* A tensor that stays as it is, whatever its dtype and shape. */
static bool
copy_tensor(Merge *merge, const OutTensor *tensor, FILE *file)
{
	char buffer[65536];
	size_t n_bytes = tensor->source->n_bytes;

	for (size_t off = 0; off < n_bytes;)
	{
		size_t n =
			n_bytes - off < sizeof(buffer) ? n_bytes - off : sizeof(buffer);

		if (!read_bytes(merge, tensor->source, off, buffer, n))
			return false;
		if (fwrite(buffer, 1, n, file) != n)
			return llm_error_errno(merge->err, "could not write to \"%s\"",
								   merge->dir);
		off += n;
	}
	return true;
}

static bool
write_tensor(Merge *merge, const OutTensor *tensor, FILE *file)
{
	if (merge->options->is_interrupted != NULL &&
		merge->options->is_interrupted())
		return llm_error_set(merge->err, LLM_ERROR_CANCELLED,
							 "merging was cancelled");
	if (tensor->target == NULL && tensor->out.dtype == tensor->source->dtype)
		return copy_tensor(merge, tensor, file);
	merge->report->n_merged += tensor->target != NULL;
	return write_rows(merge, tensor, file);
}

/* -- what is written -- */

/* The module whose weight a tensor is, if the adapter changes it. */
static const AdapterTarget *
find_target(const Merge *merge, const char *tensor_name)
{
	static const char suffix[] = ".weight";
	const AdapterTarget *target;
	char module[ADAPTER_NAME_BYTES];
	size_t len = strlen(tensor_name);

	if (len < sizeof(suffix) || len >= sizeof(module) ||
		strcmp(tensor_name + len - (sizeof(suffix) - 1), suffix) != 0)
		return NULL;
	len -= sizeof(suffix) - 1;
	snprintf(module, sizeof(module), "%.*s", (int) len, tensor_name);
	target = adapter_target_find(merge->by_name, merge->n_targets,
								 adapter_plain_name(module));
	if (target == NULL || strcmp(target->name, module) != 0)
		return NULL;
	for (int part = 0; part < target->n_parts; part++)
	{
		if (adapter_pair_of_part(merge->image, target, part) != NULL)
			return target;
	}
	return NULL;
}

static bool
add_tensor(Merge *merge, const LlmStoredTensor *source, const char *name)
{
	OutTensor *tensor = &merge->tensors[merge->n_tensors++];
	bool is_float = source->is_known_dtype && llm_dtype_is_float(source->dtype);

	*tensor = (OutTensor){ .out = *source,
						   .source = source,
						   .target = find_target(merge, name) };
	tensor->out.name = name;
	if (tensor->target != NULL && !is_float)
	{
		llm_error_set(merge->err, LLM_ERROR_UNSUPPORTED,
					  "tensor \"%s\" has dtype %s, into which nothing can be "
					  "merged",
					  name, source->dtype_name);
		return llm_error_hint(merge->err, "Merge into the model that the "
										  "quantized one was made of.");
	}
	if (merge->options->has_dtype && is_float && source->n_dims <= 2 &&
		source->n_dims > 0)
	{
		tensor->out.n_bytes = source->n_bytes / llm_dtype_bytes(source->dtype) *
							  llm_dtype_bytes(merge->options->dtype);
		tensor->out.dtype = merge->options->dtype;
		tensor->out.dtype_name =
			llm_safetensors_dtype_name(merge->options->dtype);
	}
	return true;
}

/* A tied head of its own, where head and embedding would not be alike. */
static bool
untie_head(Merge *merge)
{
	LlmWeightSpec spec;
	const LlmStoredTensor *embedding;

	merge->unties_head =
		merge->config->tie_word_embeddings &&
		(llm_adapter_image_find(merge->image, -1, LLM_ADAPTER_LM_HEAD) !=
			 NULL ||
		 llm_adapter_image_find(merge->image, -1, LLM_ADAPTER_EMBED) != NULL);
	if (!merge->unties_head)
		return true;
	(void) llm_model_weight_spec(merge->config, 0, &spec);
	embedding = llm_safetensors_find(merge->base, spec.name);
	if (embedding == NULL || strncmp(spec.name, "model.", 6) != 0)
		return llm_error_set(merge->err, LLM_ERROR_UNSUPPORTED,
							 "the head of architecture \"%s\" cannot be "
							 "separated from its embedding",
							 merge->config->architecture);
	return add_tensor(merge, embedding, "lm_head.weight");
}

static bool
list_tensors(Merge *merge)
{
	int n = llm_safetensors_n_tensors(merge->base);

	merge->tensors = calloc((size_t) n + 1, sizeof(*merge->tensors));
	if (merge->tensors == NULL)
		return llm_error_no_memory(merge->err, (uint64_t) n, "tensors");
	if (!untie_head(merge))
		return false;
	for (int i = 0; i < n; i++)
	{
		const LlmStoredTensor *source = llm_safetensors_get(merge->base, i);

		if (merge->unties_head && strcmp(source->name, "lm_head.weight") == 0)
			continue;
		if (!add_tensor(merge, source, source->name))
			return false;
	}
	return true;
}

/* Fill shards in order; a tensor larger than a shard has its own. */
static void
assign_shards(Merge *merge)
{
	uint64_t used = 0;

	merge->n_shards = 1;
	for (int i = 0; i < merge->n_tensors; i++)
	{
		OutTensor *tensor = &merge->tensors[i];

		if (used > 0 &&
			used + tensor->out.n_bytes > merge->options->max_shard_bytes)
		{
			merge->n_shards++;
			used = 0;
		}
		tensor->shard_idx = merge->n_shards - 1;
		used += tensor->out.n_bytes;
	}
}

/* -- shards -- */

static void
shard_name(const Merge *merge, int shard_idx, char name[64])
{
	if (merge->n_shards == 1)
		snprintf(name, 64, "model.safetensors");
	else
		snprintf(name, 64, "model-%05d-of-%05d.safetensors", shard_idx + 1,
				 merge->n_shards);
}

static bool
write_shard_data(Merge *merge, int first, int n, FILE *file)
{
	for (int i = first; i < first + n; i++)
	{
		if (!write_tensor(merge, &merge->tensors[i], file))
			return false;
	}
	return true;
}

/* The header of tensors first .. first + n - 1. */
static bool
compose_header(Merge *merge, int first, int n, LlmStrbuf *header)
{
	LlmStoredTensor *list = calloc((size_t) n + 1, sizeof(*list));
	cJSON *metadata = cJSON_CreateObject();
	bool ok = list != NULL && metadata != NULL &&
			  cJSON_AddStringToObject(metadata, "format", "pt") != NULL;

	for (int i = 0; ok && i < n; i++)
		list[i] = merge->tensors[first + i].out;
	if (ok)
		llm_safetensors_append_header(header, list, n, metadata);
	free(list);
	cJSON_Delete(metadata);
	return (ok && !header->failed) ||
		   llm_error_no_memory(merge->err, header->len, "a header");
}

static bool
write_shard(Merge *merge, int shard_idx, int first, int n)
{
	char name[64];
	LlmStrbuf header;
	FILE *file;
	bool ok;

	shard_name(merge, shard_idx, name);
	llm_strbuf_init(&header);
	ok = compose_header(merge, first, n, &header);
	file = ok ? merge_create_file(merge->dir, name, merge->err) : NULL;
	ok = file != NULL;
	if (ok && fwrite(header.data, 1, header.len, file) != header.len)
		ok = llm_error_errno(merge->err, "could not write to \"%s\"",
							 merge->dir);
	ok = ok && write_shard_data(merge, first, n, file);
	if (file != NULL && fclose(file) != 0 && ok)
		ok = llm_error_errno(merge->err, "could not write to \"%s\"",
							 merge->dir);
	llm_strbuf_free(&header);
	return ok;
}

static bool
write_shards(Merge *merge)
{
	int first = 0;

	while (first < merge->n_tensors)
	{
		int shard_idx = merge->tensors[first].shard_idx;
		int n = 0;

		while (first + n < merge->n_tensors &&
			   merge->tensors[first + n].shard_idx == shard_idx)
			n++;
		if (!write_shard(merge, shard_idx, first, n))
			return false;
		first += n;
	}
	return true;
}

/* model.safetensors.index.json, where there is more than one shard. */
static bool
write_index(const Merge *merge)
{
	cJSON *index = cJSON_CreateObject();
	cJSON *map = cJSON_AddObjectToObject(index, "weight_map");
	uint64_t total = 0;
	bool ok = map != NULL;

	for (int i = 0; ok && i < merge->n_tensors; i++)
	{
		char name[64];

		shard_name(merge, merge->tensors[i].shard_idx, name);
		total += merge->tensors[i].out.n_bytes;
		ok = cJSON_AddStringToObject(map, merge->tensors[i].out.name, name) !=
			 NULL;
	}
	ok = ok &&
		 cJSON_AddNumberToObject(cJSON_AddObjectToObject(index, "metadata"),
								 "total_size", (double) total) != NULL;
	ok = ok ? merge_write_json(merge->dir, "model.safetensors.index.json",
							   index, merge->err)
			: llm_error_no_memory(merge->err, 4096, "an index");
	cJSON_Delete(index);
	return ok;
}

static bool
prepare(Merge *merge, const char *model_dir)
{
	LlmStrbuf gguf;
	bool is_gguf;
	bool ok;

	llm_strbuf_init(&gguf);
	ok = llm_checkpoint_find_gguf(model_dir, &gguf, &is_gguf, merge->err);
	if (ok && is_gguf)
	{
		ok = llm_error_set(merge->err, LLM_ERROR_UNSUPPORTED,
						   "an adapter cannot be merged into a GGUF file");
		llm_error_hint(merge->err, "Load the model's safetensors instead.");
	}
	llm_strbuf_free(&gguf);
	if (!ok)
		return false;
	merge->base = llm_safetensors_open(model_dir, merge->err);
	if (merge->base == NULL)
		return false;
	merge->targets =
		adapter_targets_list(merge->config, &merge->n_targets, merge->err);
	if (merge->targets == NULL)
		return false;
	merge->by_name =
		adapter_targets_by_name(merge->targets, merge->n_targets, merge->err);
	return merge->by_name != NULL && list_tensors(merge);
}

bool
llm_adapter_merge(const LlmAdapterImage *image, const LlmModelConfig *config,
				  const char *model_dir, const char *dir,
				  const LlmAdapterMergeOptions *options,
				  LlmAdapterMergeReport *report, LlmError *err)
{
	Merge merge = { .image = image,
					.config = config,
					.options = options,
					.dir = dir,
					.report = report,
					.err = err,
					.source_fd = -1 };
	bool ok;

	memset(report, 0, sizeof(*report));
	ok = prepare(&merge, model_dir);
	if (ok)
	{
		assign_shards(&merge);
		ok = write_shards(&merge) &&
			 (merge.n_shards == 1 || write_index(&merge)) &&
			 merge_copy_files(
				 model_dir, dir, merge.unties_head,
				 options->has_dtype ? llm_dtype_name(options->dtype) : NULL,
				 err);
	}
	report->n_tensors = merge.n_tensors;
	report->n_shards = merge.n_shards;
	if (merge.source_fd >= 0)
		close(merge.source_fd);
	free(merge.tensors);
	free((void *) merge.by_name);
	free(merge.targets);
	llm_safetensors_close(merge.base);
	return ok;
}
