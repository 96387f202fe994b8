/*
 * expert_config.c
 *	  How many experts a mixture has, and how many a token visits.
 *
 * transformers takes "num_experts" and "num_local_experts" for the same
 * attribute; a config may have either.
 *
 * src/common/model_dir/expert_config.c
 */
#include "src/common/model_dir/model_dir_internal.h"

/* In all layers together: sums of their sizes stay far from overflowing. */
#define MAX_EXPERTS_OF_MODEL 65536

bool
expert_counts_read(const ConfigReader *reader, LlmModelConfig *config)
{
	int32_t n_experts = config->n_experts;
	int32_t n_local = config->n_experts;

	if (!config_get_int(reader, "num_experts", 1, LLM_MAX_EXPERTS,
						&n_experts) ||
		!config_get_int(reader, "num_local_experts", 1, LLM_MAX_EXPERTS,
						&n_local) ||
		!config_get_int(reader, "num_experts_per_tok", 1, LLM_MAX_EXPERTS,
						&config->n_experts_per_token))
		return false;
	if (config_has(reader, "num_experts") &&
		config_has(reader, "num_local_experts") && n_experts != n_local)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"num_experts\" is %d, but "
							 "\"num_local_experts\" is %d",
							 reader->path, n_experts, n_local);
	config->n_experts = config_has(reader, "num_experts") ? n_experts : n_local;
	if (config->n_experts_per_token > config->n_experts)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "%s: \"num_experts_per_tok\" is %d, but there are "
							 "%d experts",
							 reader->path, config->n_experts_per_token,
							 config->n_experts);
	if ((int64_t) config->n_experts * config->n_layers > MAX_EXPERTS_OF_MODEL)
		return llm_error_set(reader->err, LLM_ERROR_LIMIT,
							 "%s: %d experts in each of %d layers are more "
							 "than the limit of %d",
							 reader->path, config->n_experts, config->n_layers,
							 MAX_EXPERTS_OF_MODEL);
	return true;
}
