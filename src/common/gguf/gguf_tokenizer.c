/*
 * gguf_tokenizer.c
 *	  The tokenizer.json that a GGUF file's model would have.
 *
 * src/common/gguf/gguf_tokenizer.c
 */
#include "src/common/gguf/gguf_internal.h"

bool
gguf_write_tokenizer(const LlmGguf *gguf, LlmStrbuf *text, LlmError *err)
{
	(void) text;
	return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
						 "%s: tokenizers of GGUF files are not supported",
						 llm_gguf_path(gguf, 0));
}
