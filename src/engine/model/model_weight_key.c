/*
 * model_weight_key.c
 *	  What weights will take on a GPU, and whether two processes have the same in
 *	  the same places.
 *
 * Weights go to an arena one after the other, so their places follow from the
 * list of weights and what becomes of each; both are gone through as loading
 * does, without anything being loaded.  Files are told by what the file system
 * says of them, since one may be replaced by another under the same name, and
 * by the fingerprint, which reads some of their values.
 *
 * src/engine/model/model_weight_key.c
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/common/util/sha256.h"
#include "src/engine/model/model_internal.h"

/* A file as it is now: another one, or another content, has another. */
typedef struct FileIdentity
{
	uint64_t device;
	uint64_t inode;
	int64_t n_bytes;
	int64_t modified_s;
	int64_t modified_ns;
} FileIdentity;

static bool
hash_file(LlmSha256 *sha, const char *path, LlmError *err)
{
	FileIdentity identity = { 0 };
	struct stat st;

	if (stat(path, &st) != 0)
		return llm_error_errno(err, "could not look at \"%s\"", path);
	identity.device = (uint64_t) st.st_dev;
	identity.inode = (uint64_t) st.st_ino;
	identity.n_bytes = (int64_t) st.st_size;
	identity.modified_s = (int64_t) st.st_mtim.tv_sec;
	identity.modified_ns = (int64_t) st.st_mtim.tv_nsec;
	llm_sha256_update(sha, &identity, sizeof(identity));
	return true;
}

static bool
hash_files(LlmSha256 *sha, const LlmCheckpoint *tensors, LlmError *err)
{
	const char *last = NULL;

	for (int i = 0; i < llm_checkpoint_n_tensors(tensors); i++)
	{
		const char *path =
			llm_checkpoint_path(tensors, llm_checkpoint_get(tensors, i));

		if (path == last)
			continue;
		last = path;
		if (!hash_file(sha, path, err))
			return false;
	}
	return true;
}

/* What a weight takes of an arena. */
static size_t
arena_bytes(const LlmModel *model, const LlmWeightSpec *spec, LlmDtype dtype)
{
	return (model_weight_bytes(model, spec, dtype) + LLM_ARENA_ALIGN_BYTES -
			1) /
		   LLM_ARENA_ALIGN_BYTES * LLM_ARENA_ALIGN_BYTES;
}

static bool
hash_weights(LlmSha256 *sha, const LlmModel *model, LlmWeightKey *key,
			 LlmError *err)
{
	LlmWeightSpec spec;

	for (int i = 0; llm_model_weight_spec(&model->config, i, &spec); i++)
	{
		WeightSource source = model_weight_source(model, &spec, i);
		LlmDtype dtype = model_float_dtype(model, &spec, &source);
		int64_t place[4] = { (int64_t) key->n_bytes, spec.n_rows, spec.n_cols,
							 (int64_t) dtype };

		if (!llm_dtype_is_float(model_quantized_dtype(model, &spec, &source)))
			return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
								 "quantized weights are not shared");
		llm_sha256_update(sha, spec.name, strlen(spec.name) + 1);
		llm_sha256_update(sha, place, sizeof(place));
		key->n_bytes += arena_bytes(model, &spec, dtype);
	}
	return true;
}

/* Where the tensors come from: files, or a seed. */
static bool
hash_source(LlmSha256 *sha, const LlmModel *model, const char *dir,
			LlmError *err)
{
	uint8_t fingerprint[LLM_FINGERPRINT_BYTES];

	if (model->tensors == NULL)
	{
		llm_sha256_update(sha, &model->options.dummy_seed,
						  sizeof(model->options.dummy_seed));
		return true;
	}
	if (!llm_model_fingerprint(&model->config, dir, fingerprint, err) ||
		!hash_files(sha, model->tensors, err))
		return false;
	llm_sha256_update(sha, fingerprint, sizeof(fingerprint));
	return true;
}

/*
 * A model of a GPU, which computes in bf16 and quantizes nothing of its own:
 * its checkpoint and no weights.
 */
static LlmModel *
open_outline(const char *dir, const LlmModelConfig *config,
			 const LlmModelOptions *options, LlmError *err)
{
	static const LlmComputeOps no_ops;
	static LlmCompute device = { .ops = &no_ops,
								 .activation_dtype = LLM_DTYPE_BF16 };
	LlmModel *model = calloc(1, sizeof(*model));

	if (model == NULL)
	{
		llm_error_no_memory(err, sizeof(*model), "a model");
		return NULL;
	}
	model->config = *config;
	model->options = *options;
	model->compute = &device;
	if (options->dummy_weights || model_open_checkpoint(model, dir, err))
		return model;
	llm_checkpoint_close(model->tensors);
	free(model);
	return NULL;
}

static void
close_outline(LlmModel *model)
{
	llm_checkpoint_close(model->tensors);
	free(model);
}

bool
llm_model_plan_weights(const char *dir, const LlmModelConfig *config,
					   const LlmModelOptions *options, size_t *n_bytes,
					   LlmError *err)
{
	LlmModel *model = open_outline(dir, config, options, err);
	LlmWeightSpec spec;

	*n_bytes = 0;
	if (model == NULL)
		return false;
	for (int i = 0; llm_model_weight_spec(config, i, &spec); i++)
	{
		WeightSource source = model_weight_source(model, &spec, i);
		LlmDtype dtype = model_quantized_dtype(model, &spec, &source);

		if (llm_dtype_is_float(dtype))
			dtype = model_float_dtype(model, &spec, &source);
		*n_bytes += arena_bytes(model, &spec, dtype);
	}
	close_outline(model);
	return true;
}

bool
llm_model_weight_key(const char *dir, const LlmModelConfig *config,
					 const LlmModelOptions *options, LlmWeightKey *key,
					 LlmError *err)
{
	LlmModel *model = open_outline(dir, config, options, err);
	LlmSha256 sha;
	bool ok;

	memset(key, 0, sizeof(*key));
	if (model == NULL)
		return false;
	llm_sha256_init(&sha);
	ok = hash_source(&sha, model, dir, err) &&
		 hash_weights(&sha, model, key, err);
	llm_sha256_final(&sha, key->digest);
	close_outline(model);
	return ok;
}
