/*
 * model_image.h
 *	  What PostgreSQL processes need of a loaded model, in one file.
 *
 * The executor writes the file when it loads a model: the compiled tokenizer,
 * the chat template's source, the special tokens and the sampling defaults.
 * Backend processes map it read-only, so its pages are shared by all of them
 * and a new connection parses nothing.  A file is never changed once it has
 * its name; a reloaded model gets another file.
 *
 * src/common/model_image/model_image.h
 */
#ifndef LLM_MODEL_IMAGE_H
#define LLM_MODEL_IMAGE_H

#include "src/common/model_dir/model_dir.h"
#include "src/common/template/chat_template.h"
#include "src/common/tokenizer/tokenizer.h"

typedef struct LlmModelImage LlmModelImage;

/* The few facts of a config that front ends use. */
typedef struct LlmModelImageFacts
{
	int32_t n_vocab; /* rows of the output layer */
	int32_t max_position;
	int32_t bos_token_id; /* -1 = none */
	int32_t n_stop_ids;
	int32_t stop_ids[LLM_MAX_STOP_IDS];
	char architecture[64];
	LlmGenerationDefaults defaults;

	/* what an adapter is held against */
	uint8_t fingerprint[LLM_FINGERPRINT_BYTES]; /* llm_model_fingerprint */
	uint8_t template_hash[LLM_FINGERPRINT_BYTES];
	uint8_t tokenizer_hash[LLM_FINGERPRINT_BYTES];
} LlmModelImageFacts;

/*
 * Read a model directory and write its image: to a temporary name first, then
 * renamed, so that no reader sees half a file.
 */
extern bool llm_model_image_write(const char *dir, const LlmModelConfig *config,
								  const char *image_path, LlmError *err);

/* Maps the file.  A handle is used by one thread. */
extern LlmModelImage *
llm_model_image_open(const char *image_path, LlmError *err);
extern void llm_model_image_close(LlmModelImage *image);

/* Borrowed from the image, like all that follow. */
extern LlmTokenizer *llm_model_image_tokenizer(LlmModelImage *image);
extern const LlmModelImageFacts *
llm_model_image_facts(const LlmModelImage *image);

/*
 * The template for conversations with or without tools (most models have one
 * for both).  Compiled on first use.  NULL: the model has none, or it does not
 * compile.
 */
extern const LlmChatTemplate *
llm_model_image_chat_template(LlmModelImage *image, bool has_tools,
							  LlmError *err);

/* The template's source; data NULL where the model has none. */
extern LlmTemplateText
llm_model_image_template_source(const LlmModelImage *image);

/* A JSON object of the special tokens' texts. */
extern LlmTemplateText
llm_model_image_special_tokens(const LlmModelImage *image);

#endif /* LLM_MODEL_IMAGE_H */
