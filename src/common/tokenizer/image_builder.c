/*
 * image_builder.c
 *	  Sections that grow while a tokenizer is compiled, and the image they
 *	  become.
 *
 * src/common/tokenizer/image_builder.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/tokenizer/tokenizer_compiler.h"

void
llm_image_builder_free(LlmImageBuilder *builder)
{
	for (int i = 0; i < LLM_TOKEN_SECTION_COUNT; i++)
		llm_strbuf_free(&builder->sections[i]);
}

size_t
llm_image_builder_count(const LlmImageBuilder *builder,
						LlmTokenSectionId section)
{
	return builder->sections[section].len /
		   llm_token_section_element_bytes(section);
}

uint32_t
llm_image_builder_add(LlmImageBuilder *builder, LlmTokenSectionId section,
					  const void *element)
{
	uint32_t idx = (uint32_t) llm_image_builder_count(builder, section);

	assert(section != LLM_TOKEN_BLOB); /* texts have a function of their own */

	llm_strbuf_append(&builder->sections[section], element,
					  llm_token_section_element_bytes(section));
	return idx;
}

void *
llm_image_builder_table(LlmImageBuilder *builder, LlmTokenSectionId section,
						size_t count, int fill)
{
	LlmStrbuf *buffer = &builder->sections[section];
	size_t n_bytes = count * llm_token_section_element_bytes(section);
	char *table;

	llm_strbuf_reset(buffer);
	table = llm_strbuf_reserve(buffer, n_bytes);
	if (table == NULL)
		return NULL;
	memset(table, fill, n_bytes);
	buffer->len = n_bytes;
	return table;
}

LlmTokenText
llm_image_builder_text(LlmImageBuilder *builder, const char *text, size_t len)
{
	LlmStrbuf *blob = &builder->sections[LLM_TOKEN_BLOB];
	LlmTokenText where = { (uint32_t) blob->len, (uint32_t) len };

	if (blob->len + len > UINT32_MAX)
		blob->failed = true;
	llm_strbuf_append(blob, text, len);
	return where;
}

bool
llm_image_builder_check(const LlmImageBuilder *builder, LlmError *err)
{
	for (int i = 0; i < LLM_TOKEN_SECTION_COUNT; i++)
	{
		if (builder->sections[i].failed)
			return llm_error_no_memory(err, builder->sections[i].len,
									   "a tokenizer image");
	}
	return true;
}

LlmTokenImage
llm_image_builder_view(const LlmImageBuilder *builder)
{
	const LlmStrbuf *s = builder->sections;
	LlmTokenImage view = { 0 };

	view.header = &builder->header;
	view.blob = llm_strbuf_str(&s[LLM_TOKEN_BLOB]);
	view.n_blob_bytes = s[LLM_TOKEN_BLOB].len;
	view.vocab = (const void *) s[LLM_TOKEN_VOCAB].data;
	view.n_vocab_entries =
		(uint32_t) llm_image_builder_count(builder, LLM_TOKEN_VOCAB);
	view.vocab_hash = (const void *) s[LLM_TOKEN_VOCAB_HASH].data;
	view.vocab_hash_mask =
		(uint32_t) llm_image_builder_count(builder, LLM_TOKEN_VOCAB_HASH) - 1;
	return view;
}

bool
llm_image_builder_finish(LlmImageBuilder *builder, LlmStrbuf *out,
						 LlmError *err)
{
	LlmTokenImageHeader *header = &builder->header;
	uint64_t off = sizeof(*header);
	size_t start = out->len;
	char *dest;

	if (!llm_image_builder_check(builder, err))
		return false;
	memcpy(header->magic, LLM_TOKEN_IMAGE_MAGIC, sizeof(header->magic));
	header->version = LLM_TOKEN_IMAGE_VERSION;
	header->header_bytes = sizeof(*header);
	assert(llm_image_builder_count(builder, LLM_TOKEN_IDS) == header->n_ids);
	for (int i = 0; i < LLM_TOKEN_SECTION_COUNT; i++)
	{
		header->sections[i].off = off;
		header->sections[i].count =
			llm_image_builder_count(builder, (LlmTokenSectionId) i);
		off += (builder->sections[i].len + 7) / 8 * 8;
	}
	header->image_bytes = off;

	dest = llm_strbuf_reserve(out, (size_t) off);
	if (dest == NULL)
		return llm_error_no_memory(err, off, "a tokenizer image");
	memset(dest, 0, (size_t) off);
	memcpy(dest, header, sizeof(*header));
	for (int i = 0; i < LLM_TOKEN_SECTION_COUNT; i++)
	{
		if (builder->sections[i].len > 0)
			memcpy(dest + header->sections[i].off, builder->sections[i].data,
				   builder->sections[i].len);
	}
	out->len = start + (size_t) off;
	return true;
}
