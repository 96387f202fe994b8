/*
 * fuzz_adapter.c
 *	  Any bytes as an adapter: adapter_config.json, a NUL, and the tensors' file.
 *	  It is refused with a message, or its image can be opened and has nothing
 *	  but finite numbers of the model's shapes.  The tensors' file is taken for
 *	  an image, too: images pass through tables and dumps.
 *
 * test/fuzz/fuzz_adapter.c
 */
#include <math.h>
#include <string.h>

#include "src/common/adapter/adapter.h"
#include "test/fuzz/fuzz.h"

/* A byte in front says which model. */
static const char *const models[] = {
	"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
	"\"hidden_size\": 8, \"num_hidden_layers\": 2, \"num_attention_heads\": 2, "
	"\"num_key_value_heads\": 1, \"intermediate_size\": 12, "
	"\"vocab_size\": 10, \"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\", "
	"\"max_position_embeddings\": 64, \"tie_word_embeddings\": false}",
	"{\"architectures\": [\"Phi3ForCausalLM\"], \"model_type\": \"phi3\", "
	"\"hidden_size\": 8, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
	"\"num_key_value_heads\": 2, \"intermediate_size\": 6, "
	"\"vocab_size\": 10, \"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\", "
	"\"max_position_embeddings\": 64, "
	"\"original_max_position_embeddings\": 64, "
	"\"tie_word_embeddings\": true}",
};

static const LlmModelConfig *
model_of(uint8_t byte)
{
	static LlmModelConfig configs[2];
	static bool is_read;
	LlmError err;

	for (int i = 0; !is_read && i < 2; i++)
		if (!llm_model_config_parse(models[i], strlen(models[i]), "config.json",
									&configs[i], &err))
		{
			fprintf(stderr, "%s\n", err.message);
			abort();
		}
	is_read = true;
	return &configs[byte % 2];
}

static void
check_matrix(const LlmStoredTensor *tensor, int64_t n_rows, int64_t n_cols)
{
	FUZZ_CHECK(tensor->is_known_dtype && llm_dtype_is_float(tensor->dtype));
	FUZZ_CHECK(tensor->shape[0] == n_rows);
	FUZZ_CHECK(tensor->n_dims == (n_cols > 0 ? 2 : 1));
	FUZZ_CHECK(n_cols == 0 || tensor->shape[1] == n_cols);
	FUZZ_CHECK(tensor->n_bytes ==
			   (size_t) (n_rows * (n_cols > 0 ? n_cols : 1)) *
				   llm_dtype_bytes(tensor->dtype));
}

static void
check_image(const LlmAdapterImage *image)
{
	FUZZ_CHECK(image->n_pairs > 0 && image->config_json != NULL);
	for (int32_t i = 0; i < image->n_pairs; i++)
	{
		const LlmAdapterPair *pair = &image->pairs[i];

		FUZZ_CHECK(pair->rank > 0 && pair->rank <= image->max_rank);
		FUZZ_CHECK(isfinite(pair->scale));
		check_matrix(pair->a, pair->rank, pair->n_in);
		check_matrix(pair->b, pair->n_out, pair->rank);
		if (pair->magnitude != NULL)
			check_matrix(pair->magnitude, pair->n_out, 0);
		FUZZ_CHECK(llm_adapter_image_find_expert(image, pair->layer_idx,
												 pair->module,
												 pair->expert_idx) == pair);
	}
}

/* An image that we made ourselves must be one. */
static void
open_image(const void *data, size_t size, const LlmModelConfig *config,
		   bool must_open)
{
	char path[FUZZ_PATH_BYTES];
	int fd = fuzz_file(data, size, path);
	LlmError err = { 0 };
	LlmAdapterImage *image = llm_adapter_image_open(path, config, &err);

	if (image != NULL)
		check_image(image);
	else
	{
		FUZZ_CHECK(err.message[0] != '\0');
		if (must_open)
			fprintf(stderr, "%s\n", err.message);
		FUZZ_CHECK(!must_open);
	}
	llm_adapter_image_close(image);
	close(fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t base[LLM_FINGERPRINT_BYTES] = { 1 };
	const uint8_t *end = size > 0 ? memchr(data + 1, '\0', size - 1) : NULL;
	char path[FUZZ_PATH_BYTES];
	LlmAdapterSource source;
	LlmStrbuf image;
	LlmError err = { 0 };
	size_t n_tensors;
	int fd;

	if (end == NULL)
		return 0;
	n_tensors = size - (size_t) (end + 1 - data);
	open_image(end + 1, n_tensors, model_of(data[0]), false);
	fd = fuzz_file(end + 1, n_tensors, path);
	source = (LlmAdapterSource){ (const char *) data + 1,
								 (size_t) (end - data - 1), path };
	llm_strbuf_init(&image);
	if (llm_adapter_import(&source, model_of(data[0]), base, &image, &err))
		open_image(image.data, image.len, model_of(data[0]), true);
	else
		FUZZ_CHECK(err.message[0] != '\0');
	llm_strbuf_free(&image);
	close(fd);
	return 0;
}
