/*
 * family_list.c
 *	  The families that can be loaded.
 *
 * A new family is one describing file and one line here.
 *
 * src/common/model_dir/family_list.c
 */
#include "src/common/model_dir/model_dir_internal.h"

const LlmFamily *const model_dir_families[] = {
	&family_gemma,	   &family_gemma2, &family_gemma3, &family_gemma3_vision,
	&family_glm,	   &family_glm4,   &family_llama,  &family_mistral,
	&family_mixtral,   &family_phi3,   &family_qwen2,  &family_qwen3,
	&family_qwen3_moe, NULL,
};

const char *
llm_family_name(const LlmFamily *family)
{
	return family->name;
}
