/*
 * adapter_image_store.c
 *	  An adapter's image becomes a version in the tables.
 *
 * src/server/catalog/adapter_image_store.c
 */
#include "postgres.h"

#include "src/server/adapter_files.h"
#include "src/server/catalog/adapter_image_store.h"
#include "src/server/catalog/adapter_store.h"
#include "src/server/report.h"

/* A row with more could not be dumped: its text would be too long. */
#define MAX_TENSOR_BYTES ((Size) 256 << 20)

static int
compare_data(const void *a, const void *b)
{
	const char *x = ((const LlmAdapterTensor *) a)->data;
	const char *y = ((const LlmAdapterTensor *) b)->data;

	return x < y ? -1 : x > y;
}

/* The image's tensors in the order of the file. */
static LlmAdapterTensor *
list_tensors(const LlmAdapterImage *image, int *n_tensors)
{
	LlmAdapterTensor *tensors;

	*n_tensors = llm_safetensors_n_tensors(image->tensors);
	tensors = palloc((Size) *n_tensors * sizeof(LlmAdapterTensor));
	for (int i = 0; i < *n_tensors; i++)
	{
		const LlmStoredTensor *stored = llm_safetensors_get(image->tensors, i);

		if (stored->n_bytes > MAX_TENSOR_BYTES)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("tensor \"%s\" has %zu bytes, more than the limit "
							"of %zu",
							stored->name, stored->n_bytes, MAX_TENSOR_BYTES)));
		tensors[i] = (LlmAdapterTensor){
			.name = stored->name,
			.dtype = stored->dtype_name,
			.n_dims = stored->n_dims,
			.shape = (const int64 *) stored->shape,
			.data = stored->data,
			.n_bytes = stored->n_bytes,
		};
	}
	qsort(tensors, (Size) *n_tensors, sizeof(LlmAdapterTensor), compare_data);
	return tensors;
}

static int32
store_tensors(const LlmAdapterNewImage *new_image, const LlmAdapterImage *image,
			  const uint8 digest[LLM_SHA256_BYTES])
{
	int n_tensors;
	LlmAdapterTensor *tensors = list_tensors(image, &n_tensors);
	LlmAdapterNewVersion version = {
		.model = new_image->model,
		.config = image->config_json,
		.origin = new_image->origin,
		.rank = image->max_rank,
		.n_modules = image->n_pairs,
		.is_dora = image->has_dora,
		.n_bytes = (int64) new_image->n_bytes,
		.digest = digest,
		.base = image->base,
		.template_hash = new_image->template_hash,
		.tokenizer_hash = new_image->tokenizer_hash,
		.header = new_image->bytes,
		.header_bytes = new_image->n_bytes - llm_adapter_image_bytes(image),
		.tensors = tensors,
		.n_tensors = n_tensors,
	};

	return llm_adapter_store_version(new_image->name, &version);
}

static void
write_file(const LlmAdapterNewImage *new_image, uint8 digest[LLM_SHA256_BYTES])
{
	char temp_path[MAXPGPATH];
	LlmSha256 sha;
	int fd;

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, new_image->bytes, new_image->n_bytes);
	llm_sha256_final(&sha, digest);
	if (llm_adapter_file_touch(digest, new_image->n_bytes))
		return;
	llm_adapter_file_temp_path(temp_path);
	fd = llm_adapter_file_create(temp_path);
	llm_adapter_file_write(fd, temp_path, new_image->bytes, new_image->n_bytes);
	llm_adapter_file_publish(fd, temp_path, digest);
}

int32
llm_adapter_store_image(const LlmAdapterNewImage *new_image, int32 *rank)
{
	uint8 digest[LLM_SHA256_BYTES];
	char path[MAXPGPATH];
	LlmAdapterImage *image;
	int32 number = 0;
	LlmError err;

	write_file(new_image, digest);
	llm_adapter_file_path(digest, path);
	image = llm_adapter_image_open(path, new_image->config, &err);
	if (image == NULL)
		llm_report(ERROR, &err);
	PG_TRY();
	{
		if (memcmp(image->base, new_image->base, LLM_FINGERPRINT_BYTES) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the files of model \"%s\" have changed since it "
							"was loaded",
							new_image->model),
					 errhint("Load it again.")));
		if (image->has_experts)
			ereport(
				WARNING,
				(errmsg("adapter \"%s\" changes experts of a mixture, which "
						"is not served beside the model",
						new_image->name),
				 errhint("Merge it with llm_merge_adapter, and serve the "
						 "model that this makes.")));
		if (rank != NULL)
			*rank = image->max_rank;
		number = store_tensors(new_image, image, digest);
	}
	PG_FINALLY();
	{
		llm_adapter_image_close(image);
	}
	PG_END_TRY();
	return number;
}
