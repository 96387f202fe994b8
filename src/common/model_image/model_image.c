/*
 * model_image.c
 *	  What PostgreSQL processes need of a loaded model, in one file.
 *
 * Layout: a header with the sections' offsets and sizes, then the sections,
 * each 64-byte aligned.  The reader trusts nothing but its own bounds checks:
 * the file lies in the data directory, but a damaged one must be an error.
 *
 * src/common/model_image/model_image.c
 */
#include "src/common/model_image/model_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/util/mapped_file.h"
#include "src/common/util/sha256.h"

#define IMAGE_MAGIC UINT64_C(0x31474D494D4C4C50)
#define IMAGE_VERSION 3
#define SECTION_ALIGNMENT ((size_t) 64)

typedef enum ImageSection
{
	SECTION_FACTS,			/* LlmModelImageFacts */
	SECTION_TOKENIZER,		/* an image of the tokenizer room */
	SECTION_TEMPLATE,		/* text; empty = none */
	SECTION_TOOL_TEMPLATE,	/* likewise: the one for tools, if it is another */
	SECTION_SPECIAL_TOKENS, /* JSON text */
	SECTION_COUNT
} ImageSection;

typedef struct ImageHeader
{
	uint64_t magic;
	uint32_t version;
	uint32_t n_sections;
	struct
	{
		uint64_t off;
		uint64_t n_bytes;
	} section[SECTION_COUNT];
} ImageHeader;

struct LlmModelImage
{
	LlmMappedFile file;
	const ImageHeader *header;
	LlmTokenizer *tokenizer;
	LlmChatTemplate *chat_template; /* NULL until first use */
	LlmChatTemplate *tool_template; /* likewise */
};

/* -- writing -- */

static void
append_section(LlmStrbuf *file, ImageHeader *header, ImageSection section,
			   const void *bytes, size_t n_bytes)
{
	static const char zeros[SECTION_ALIGNMENT];
	size_t misaligned = file->len % SECTION_ALIGNMENT;

	if (misaligned > 0)
		llm_strbuf_append(file, zeros, SECTION_ALIGNMENT - misaligned);
	header->section[section].off = file->len;
	header->section[section].n_bytes = n_bytes;
	llm_strbuf_append(file, bytes, n_bytes);
}

static bool
write_all(int fd, const char *bytes, size_t n_bytes)
{
	while (n_bytes > 0)
	{
		ssize_t n = write(fd, bytes, n_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		bytes += n;
		n_bytes -= (size_t) n;
	}
	return true;
}

static bool
write_file(const char *path, const LlmStrbuf *content, LlmError *err)
{
	char temp_path[4096];
	bool ok;
	int fd;

	if (snprintf(temp_path, sizeof(temp_path), "%s.%d.tmp", path,
				 (int) getpid()) >= (int) sizeof(temp_path))
		return llm_error_set(err, LLM_ERROR_LIMIT, "path \"%s\" is too long",
							 path);
	fd = open(temp_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return llm_error_errno(err, "could not create \"%s\"", temp_path);
	ok = write_all(fd, content->data, content->len);
	if (!ok)
		llm_error_errno(err, "could not write \"%s\"", temp_path);
	close(fd);
	if (ok && rename(temp_path, path) != 0)
		ok = llm_error_errno(err, "could not rename \"%s\"", temp_path);
	if (!ok)
		unlink(temp_path);
	return ok;
}

/* Compile <dir>/tokenizer.json. */
static bool
compile_tokenizer(const char *dir, LlmStrbuf *image, LlmError *err)
{
	char path[4096];
	LlmModelFile json;
	LlmModelFile config;
	bool ok;

	snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
	if (!llm_model_file_open(&json, dir, "tokenizer.json", err))
		return false;
	if (!json.found)
	{
		llm_error_set(err, LLM_ERROR_NOT_FOUND,
					  "directory \"%s\" has no \"tokenizer.json\"", dir);
		return llm_error_hint(err, "a tokenizer.model or vocab.json has to be "
								   "saved as tokenizer.json first");
	}
	ok = llm_model_file_open(&config, dir, "tokenizer_config.json", err);
	if (ok)
	{
		ok = llm_tokenizer_compile(json.data, json.size,
								   config.found ? config.data : NULL,
								   config.size, path, image, err);
		llm_model_file_close(&config);
	}
	llm_model_file_close(&json);
	return ok;
}

static bool
gather_facts(const char *dir, const LlmModelConfig *config,
			 LlmModelImageFacts *facts, LlmError *err)
{
	memset(facts, 0, sizeof(*facts));
	facts->n_vocab = config->n_vocab;
	facts->max_position = config->max_position;
	facts->bos_token_id = config->bos_token_id;
	facts->n_stop_ids = config->n_stop_ids;
	memcpy(facts->stop_ids, config->stop_ids, sizeof(facts->stop_ids));
	memcpy(facts->architecture, config->architecture,
		   sizeof(facts->architecture));
	return llm_generation_defaults_read(dir, &facts->defaults, err) &&
		   llm_model_fingerprint(config, dir, facts->fingerprint, err);
}

static void
hash_text(const LlmStrbuf *text, uint8_t hash[LLM_FINGERPRINT_BYTES])
{
	LlmSha256 sha;

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, llm_strbuf_str(text), text->len);
	llm_sha256_final(&sha, hash);
}

/* What goes into an image. */
typedef struct ImageContent
{
	LlmModelImageFacts facts;
	LlmStrbuf tokenizer;
	LlmStrbuf chat_template; /* empty: none */
	LlmStrbuf tool_template;
	LlmStrbuf special_tokens;
} ImageContent;

static bool
gather_content(const char *dir, const LlmModelConfig *config,
			   ImageContent *content, LlmError *err)
{
	bool found;

	bool ok;

	llm_strbuf_init(&content->tokenizer);
	llm_strbuf_init(&content->chat_template);
	llm_strbuf_init(&content->tool_template);
	llm_strbuf_init(&content->special_tokens);
	ok = gather_facts(dir, config, &content->facts, err) &&
		 compile_tokenizer(dir, &content->tokenizer, err) &&
		 llm_model_chat_template_read(dir, &content->chat_template, &found,
									  err) &&
		 llm_model_tool_template_read(dir, &content->tool_template, &found,
									  err) &&
		 llm_model_special_tokens_read(dir, &content->special_tokens, err);
	hash_text(&content->chat_template, content->facts.template_hash);
	hash_text(&content->tokenizer, content->facts.tokenizer_hash);
	return ok;
}

static void
free_content(ImageContent *content)
{
	llm_strbuf_free(&content->tokenizer);
	llm_strbuf_free(&content->chat_template);
	llm_strbuf_free(&content->tool_template);
	llm_strbuf_free(&content->special_tokens);
}

static void
append_text(LlmStrbuf *file, ImageHeader *header, ImageSection section,
			const LlmStrbuf *text)
{
	append_section(file, header, section, llm_strbuf_str(text), text->len);
}

static bool
compose_image(const ImageContent *content, LlmStrbuf *file, LlmError *err)
{
	ImageHeader header = {
		.magic = IMAGE_MAGIC,
		.version = IMAGE_VERSION,
		.n_sections = SECTION_COUNT,
	};

	llm_strbuf_append(file, &header, sizeof(header));
	append_section(file, &header, SECTION_FACTS, &content->facts,
				   sizeof(content->facts));
	append_text(file, &header, SECTION_TOKENIZER, &content->tokenizer);
	append_text(file, &header, SECTION_TEMPLATE, &content->chat_template);
	append_text(file, &header, SECTION_TOOL_TEMPLATE, &content->tool_template);
	append_text(file, &header, SECTION_SPECIAL_TOKENS,
				&content->special_tokens);
	if (file->failed)
		return llm_error_no_memory(err, file->len + content->tokenizer.len,
								   "a model image");
	memcpy(file->data, &header, sizeof(header));
	return true;
}

bool
llm_model_image_write(const char *dir, const LlmModelConfig *config,
					  const char *image_path, LlmError *err)
{
	ImageContent content;
	LlmStrbuf file;
	bool ok;

	llm_strbuf_init(&file);
	ok = gather_content(dir, config, &content, err) &&
		 compose_image(&content, &file, err) &&
		 write_file(image_path, &file, err);
	free_content(&content);
	llm_strbuf_free(&file);
	return ok;
}

/* -- reading -- */

static const char *
section_data(const LlmModelImage *image, ImageSection section)
{
	return image->file.data + image->header->section[section].off;
}

static size_t
section_bytes(const LlmModelImage *image, ImageSection section)
{
	return (size_t) image->header->section[section].n_bytes;
}

static bool
check_facts(const LlmMappedFile *file, const ImageHeader *header,
			const char *path, LlmError *err)
{
	const LlmModelImageFacts *facts =
		(const void *) (file->data + header->section[SECTION_FACTS].off);

	if (header->section[SECTION_FACTS].n_bytes != sizeof(*facts) ||
		facts->n_stop_ids < 0 || facts->n_stop_ids > LLM_MAX_STOP_IDS)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "\"%s\" is damaged: wrong facts", path);
	return true;
}

static bool
check_header(const LlmMappedFile *file, const char *path, LlmError *err)
{
	const ImageHeader *header = (const ImageHeader *) file->data;

	if (file->size < sizeof(*header) || header->magic != IMAGE_MAGIC ||
		header->version != IMAGE_VERSION || header->n_sections != SECTION_COUNT)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "\"%s\" is not a model image of this version",
							 path);
	for (int i = 0; i < SECTION_COUNT; i++)
	{
		uint64_t off = header->section[i].off;

		if (off % SECTION_ALIGNMENT != 0 || off > file->size ||
			header->section[i].n_bytes > file->size - off)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "\"%s\" is damaged: section %d lies outside "
								 "the file",
								 path, i);
	}
	return check_facts(file, header, path, err);
}

LlmModelImage *
llm_model_image_open(const char *image_path, LlmError *err)
{
	LlmModelImage *image = calloc(1, sizeof(LlmModelImage));

	if (image == NULL)
	{
		llm_error_no_memory(err, sizeof(LlmModelImage), "a model image");
		return NULL;
	}
	if (!llm_mapped_file_open(&image->file, image_path, err))
	{
		free(image);
		return NULL;
	}
	if (!check_header(&image->file, image_path, err))
	{
		llm_model_image_close(image);
		return NULL;
	}
	image->header = (const ImageHeader *) image->file.data;
	image->tokenizer =
		llm_tokenizer_open(section_data(image, SECTION_TOKENIZER),
						   section_bytes(image, SECTION_TOKENIZER), err);
	if (image->tokenizer == NULL)
	{
		llm_model_image_close(image);
		return NULL;
	}
	return image;
}

void
llm_model_image_close(LlmModelImage *image)
{
	if (image == NULL)
		return;
	if (image->tokenizer != NULL)
		llm_tokenizer_close(image->tokenizer);
	llm_chat_template_free(image->chat_template);
	llm_chat_template_free(image->tool_template);
	llm_mapped_file_close(&image->file);
	free(image);
}

LlmTokenizer *
llm_model_image_tokenizer(LlmModelImage *image)
{
	return image->tokenizer;
}

const LlmModelImageFacts *
llm_model_image_facts(const LlmModelImage *image)
{
	return (const LlmModelImageFacts *) section_data(image, SECTION_FACTS);
}

static LlmTemplateText
section_text(const LlmModelImage *image, ImageSection section)
{
	LlmTemplateText text = { NULL, section_bytes(image, section) };

	if (text.len > 0)
		text.data = section_data(image, section);
	return text;
}

LlmTemplateText
llm_model_image_template_source(const LlmModelImage *image)
{
	return section_text(image, SECTION_TEMPLATE);
}

LlmTemplateText
llm_model_image_special_tokens(const LlmModelImage *image)
{
	LlmTemplateText text = { section_data(image, SECTION_SPECIAL_TOKENS),
							 section_bytes(image, SECTION_SPECIAL_TOKENS) };

	return text;
}

const LlmChatTemplate *
llm_model_image_chat_template(LlmModelImage *image, bool has_tools,
							  LlmError *err)
{
	LlmTemplateText source = section_text(image, SECTION_TOOL_TEMPLATE);
	LlmChatTemplate **compiled = &image->tool_template;

	if (!has_tools || source.data == NULL)
	{
		source = section_text(image, SECTION_TEMPLATE);
		compiled = &image->chat_template;
	}
	if (*compiled != NULL)
		return *compiled;
	if (source.data == NULL)
	{
		llm_error_set(err, LLM_ERROR_NOT_FOUND,
					  "the model has no chat template");
		llm_error_hint(err, "Use llm_generate with a prompt in the model's own "
							"format, or load a model that ships a template.");
		return NULL;
	}
	*compiled = llm_chat_template_compile(source.data, source.len, err);
	return *compiled;
}
