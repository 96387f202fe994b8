/*
 * fuzz_config.c
 *	  Any bytes as config.json: a config is refused, or its numbers stay
 *	  within the bounds that everything behind relies on.
 *
 * test/fuzz/fuzz_config.c
 */
#include "src/common/model_dir/model_dir.h"
#include "test/fuzz/fuzz.h"

/* A hostile config may ask for very many weights: a sample is enough. */
#define MAX_SPECS 2000

static void
check_specs(const LlmModelConfig *config)
{
	LlmWeightSpec spec;

	for (int i = 0; i < MAX_SPECS && llm_model_weight_spec(config, i, &spec);
		 i++)
	{
		FUZZ_CHECK(spec.n_rows > 0 && spec.n_cols >= 0);
		FUZZ_CHECK(spec.name[0] != '\0');
		FUZZ_CHECK(spec.layer_idx < config->n_layers);
		FUZZ_CHECK(spec.first_row >= 0 &&
				   spec.first_row + spec.n_rows <= spec.stored_rows);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static LlmModelConfig config;
	LlmError err;

	if (!llm_model_config_parse((const char *) data, size, "config.json",
								&config, &err))
	{
		FUZZ_CHECK(err.message[0] != '\0');
		return 0;
	}
	FUZZ_CHECK(config.n_heads % config.n_kv_heads == 0);
	FUZZ_CHECK(config.rope.rotary_dim <= config.head_dim);
	FUZZ_CHECK(config.n_stop_ids <= LLM_MAX_STOP_IDS);
	FUZZ_CHECK(llm_model_kv_bytes_per_token(&config, LLM_DTYPE_F32) > 0);
	check_specs(&config);
	return 0;
}
