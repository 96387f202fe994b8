/*
 * tokenizer_compiler.h
 *	  What the files that make an image share.
 *
 *	  tokenizer_compile.c	the entry; vocabulary; the model BPE
 *	  trie_compile.c		the other models
 *	  component_compile.c	normalizer, pre-tokenizer, decoder, post-processor
 *	  added_compile.c		added tokens, and what tokenizer_config.json changes
 *	  image_builder.c		sections that grow and are put together
 *
 * Messages are composed without the file's path; the entry puts it in front.
 *
 * src/common/tokenizer/tokenizer_compiler.h
 */
#ifndef LLM_TOKENIZER_COMPILER_H
#define LLM_TOKENIZER_COMPILER_H

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/util/json.h"

typedef struct LlmImageBuilder
{
	LlmTokenImageHeader header; /* all but sections and image_bytes */
	LlmStrbuf sections[LLM_TOKEN_SECTION_COUNT];
	uint32_t n_vocab_entries; /* distinct contents of the model */
} LlmImageBuilder;

extern void llm_image_builder_free(LlmImageBuilder *builder);

/* Append one element; its index.  Failures show in llm_image_builder_check. */
extern uint32_t
llm_image_builder_add(LlmImageBuilder *builder, LlmTokenSectionId section,
					  const void *element);

/* A section of count elements, each byte set to fill; NULL: no memory. */
extern void *
llm_image_builder_table(LlmImageBuilder *builder, LlmTokenSectionId section,
						size_t count, int fill);
extern LlmTokenText
llm_image_builder_text(LlmImageBuilder *builder, const char *text, size_t len);
extern size_t llm_image_builder_count(const LlmImageBuilder *builder,
									  LlmTokenSectionId section);
extern bool
llm_image_builder_check(const LlmImageBuilder *builder, LlmError *err);

/* What was built so far, to look things up in; valid until the next change. */
extern LlmTokenImage llm_image_builder_view(const LlmImageBuilder *builder);

/* Put the sections together and append the image to out. */
extern bool llm_image_builder_finish(LlmImageBuilder *builder, LlmStrbuf *out,
									 LlmError *err);

/*
 * Enter a content and its id.  Of two equal contents the later one is found;
 * the earlier entry is gone unless keeps_earlier.
 */
extern void
llm_compile_vocab_entry(LlmImageBuilder *builder, const char *content,
						int32_t token_id, bool keeps_earlier);

/* Make room for n contents; entries can be entered then. */
extern bool
llm_compile_vocab_table(LlmImageBuilder *builder, size_t n, LlmError *err);

/* A model's "vocab" object: content to id. */
extern bool
llm_compile_vocab(LlmImageBuilder *builder, const cJSON *model, LlmError *err);

/* Set the header's unk_id; a content without an id is no error yet. */
extern bool
llm_compile_find_unknown(LlmImageBuilder *builder, const char *unk_token);

extern bool llm_compile_unigram(LlmImageBuilder *builder, const cJSON *model,
								LlmError *err);
extern bool llm_compile_word_piece(LlmImageBuilder *builder, const cJSON *model,
								   LlmTokenModelKind kind, LlmError *err);

/* Compile the components of the tree into steps; the model must be there. */
extern bool llm_compile_components(LlmImageBuilder *builder, const cJSON *root,
								   const cJSON *config, LlmError *err);

/* Check that ids of the post-processor exist, once all ids are known. */
extern bool
llm_compile_check_post(const LlmImageBuilder *builder, LlmError *err);

/* Added tokens and the id table; config may be NULL. */
extern bool
llm_compile_added_tokens(LlmImageBuilder *builder, const cJSON *root,
						 const cJSON *config, LlmError *err);

#endif /* LLM_TOKENIZER_COMPILER_H */
