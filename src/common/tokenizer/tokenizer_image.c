/*
 * tokenizer_image.c
 *	  Opening a compiled tokenizer and looking tokens up in it.
 *
 * See tokenizer_image.h for what is checked when.
 *
 * src/common/tokenizer/tokenizer_image.c
 */
#include "src/common/tokenizer/tokenizer_image.h"

#include <assert.h>

static const struct
{
	const char *name;
	size_t element_bytes;
} section_kinds[LLM_TOKEN_SECTION_COUNT] = {
	[LLM_TOKEN_BLOB] = { "strings", 1 },
	[LLM_TOKEN_VOCAB] = { "vocabulary", sizeof(LlmTokenVocabEntry) },
	[LLM_TOKEN_VOCAB_HASH] = { "vocabulary hash", sizeof(LlmTokenHashSlot) },
	[LLM_TOKEN_IDS] = { "ids", sizeof(LlmTokenIdEntry) },
	[LLM_TOKEN_MERGES] = { "merges", sizeof(LlmTokenMerge) },
	[LLM_TOKEN_MERGE_PAIRS] = { "merge pairs", sizeof(uint64_t) },
	[LLM_TOKEN_BYTE_IDS] = { "byte ids", sizeof(int32_t) },
	[LLM_TOKEN_TRIE] = { "trie", sizeof(LlmTokenTrieNode) },
	[LLM_TOKEN_SCORES] = { "scores", sizeof(double) },
	[LLM_TOKEN_ADDED] = { "added tokens", sizeof(LlmTokenAdded) },
	[LLM_TOKEN_ADDED_NAMES] = { "added names", sizeof(LlmTokenAddedName) },
	[LLM_TOKEN_PATTERNS_RAW] = { "raw patterns", sizeof(LlmTokenPattern) },
	[LLM_TOKEN_PATTERNS_NORM] = { "normalized patterns",
								  sizeof(LlmTokenPattern) },
	[LLM_TOKEN_NORMALIZERS] = { "normalizers", sizeof(LlmTokenStep) },
	[LLM_TOKEN_PRE_TOKENIZERS] = { "pre-tokenizers", sizeof(LlmTokenStep) },
	[LLM_TOKEN_DECODERS] = { "decoders", sizeof(LlmTokenStep) },
	[LLM_TOKEN_POST_PIECES] = { "post-processor", sizeof(int32_t) },
};

_Static_assert(sizeof(LlmTokenImageHeader) % 8 == 0, "sections are aligned");
_Static_assert(sizeof(LlmTokenVocabEntry) == 12, "part of the format");
_Static_assert(sizeof(LlmTokenHashSlot) == 8, "part of the format");
_Static_assert(sizeof(LlmTokenIdEntry) == 8, "part of the format");
_Static_assert(sizeof(LlmTokenMerge) == 16, "part of the format");
_Static_assert(sizeof(LlmTokenTrieNode) == 12, "part of the format");
_Static_assert(sizeof(LlmTokenAdded) == 24, "part of the format");
_Static_assert(sizeof(LlmTokenAddedName) == 12, "part of the format");
_Static_assert(sizeof(LlmTokenPattern) == 12, "part of the format");
_Static_assert(sizeof(LlmTokenStep) == 32, "part of the format");

size_t
llm_token_section_element_bytes(LlmTokenSectionId section)
{
	assert(section < LLM_TOKEN_SECTION_COUNT);
	return section_kinds[section].element_bytes;
}

static bool
damaged(LlmError *err, const char *what)
{
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 "the tokenizer image is damaged: %s", what);
}

static bool
check_header(const void *bytes, size_t n_bytes, LlmError *err)
{
	const LlmTokenImageHeader *header = bytes;

	if (n_bytes < sizeof(*header))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the tokenizer image is too short: %zu bytes",
							 n_bytes);
	if ((uintptr_t) bytes % 8 != 0)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "the tokenizer image is not aligned");
	if (memcmp(header->magic, LLM_TOKEN_IMAGE_MAGIC, 8) != 0)
		return damaged(err, "wrong magic number");
	if (header->version != LLM_TOKEN_IMAGE_VERSION ||
		header->header_bytes != sizeof(*header))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the tokenizer image has version %u, expected %u",
							 header->version, LLM_TOKEN_IMAGE_VERSION);
	if (header->image_bytes > n_bytes)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the tokenizer image is cut off: it has %zu of "
							 "%llu bytes",
							 n_bytes, (unsigned long long) header->image_bytes);
	return true;
}

static bool
check_sections(const LlmTokenImageHeader *header, LlmError *err)
{
	for (int i = 0; i < LLM_TOKEN_SECTION_COUNT; i++)
	{
		const LlmTokenSection *section = &header->sections[i];

		if (section->off % 8 != 0 || section->off < sizeof(*header) ||
			section->off > header->image_bytes ||
			section->count > (header->image_bytes - section->off) /
								 section_kinds[i].element_bytes ||
			section->count > UINT32_MAX)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "the tokenizer image is damaged: section "
								 "\"%s\" lies outside",
								 section_kinds[i].name);
	}
	return true;
}

static bool
is_power_of_two(uint64_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

/* What the code that reads the sections takes for granted. */
static bool
check_shapes(const LlmTokenImageHeader *header, LlmError *err)
{
	const LlmTokenSection *s = header->sections;

	if (!is_power_of_two(s[LLM_TOKEN_VOCAB_HASH].count) ||
		!is_power_of_two(s[LLM_TOKEN_MERGES].count) ||
		!is_power_of_two(s[LLM_TOKEN_MERGE_PAIRS].count))
		return damaged(err, "a hash table has a wrong size");
	if (s[LLM_TOKEN_BYTE_IDS].count != LLM_TOKEN_N_BYTE_IDS)
		return damaged(err, "the byte table has a wrong size");
	if (header->model_kind > LLM_TOKEN_MODEL_WORD_LEVEL)
		return damaged(err, "unknown model");
	if (header->model_kind == LLM_TOKEN_MODEL_UNIGRAM &&
		s[LLM_TOKEN_SCORES].count != s[LLM_TOKEN_VOCAB].count)
		return damaged(err, "the score table has a wrong size");
	if (header->n_ids > LLM_TOKEN_MAX_IDS ||
		s[LLM_TOKEN_IDS].count != header->n_ids)
		return damaged(err, "the id table has a wrong size");
	if (s[LLM_TOKEN_NORMALIZERS].count > LLM_TOKEN_MAX_STEPS ||
		s[LLM_TOKEN_PRE_TOKENIZERS].count > LLM_TOKEN_MAX_STEPS ||
		s[LLM_TOKEN_DECODERS].count > LLM_TOKEN_MAX_STEPS)
		return damaged(err, "too many steps");
	return true;
}

const void *
llm_token_image_section(const LlmTokenImage *image, LlmTokenSectionId section,
						size_t *count)
{
	const LlmTokenSection *s = &image->header->sections[section];

	*count = (size_t) s->count;
	return (const char *) image->header + s->off;
}

bool
llm_token_image_open(LlmTokenImage *image, const void *bytes, size_t n_bytes,
					 LlmError *err)
{
	size_t count;

	if (!check_header(bytes, n_bytes, err) || !check_sections(bytes, err) ||
		!check_shapes(bytes, err))
		return false;

	image->header = bytes;
	image->n_ids = image->header->n_ids;
	image->blob =
		llm_token_image_section(image, LLM_TOKEN_BLOB, &image->n_blob_bytes);
	image->vocab = llm_token_image_section(image, LLM_TOKEN_VOCAB, &count);
	image->n_vocab_entries = (uint32_t) count;
	image->vocab_hash =
		llm_token_image_section(image, LLM_TOKEN_VOCAB_HASH, &count);
	image->vocab_hash_mask = (uint32_t) (count - 1);
	image->ids = llm_token_image_section(image, LLM_TOKEN_IDS, &count);
	image->merges = llm_token_image_section(image, LLM_TOKEN_MERGES, &count);
	image->merge_mask = (uint32_t) (count - 1);
	image->merge_pairs =
		llm_token_image_section(image, LLM_TOKEN_MERGE_PAIRS, &count);
	image->merge_pair_mask = (uint64_t) count * 64 - 1;
	image->byte_ids =
		llm_token_image_section(image, LLM_TOKEN_BYTE_IDS, &count);
	image->trie = llm_token_image_section(image, LLM_TOKEN_TRIE, &count);
	image->n_trie_nodes = (uint32_t) count;
	image->scores = llm_token_image_section(image, LLM_TOKEN_SCORES, &count);
	image->added = llm_token_image_section(image, LLM_TOKEN_ADDED, &count);
	image->n_added = (uint32_t) count;
	image->added_names =
		llm_token_image_section(image, LLM_TOKEN_ADDED_NAMES, &count);
	image->n_added_names = (uint32_t) count;
	return true;
}

int32_t
llm_token_image_find(const LlmTokenImage *image, const char *text, size_t len)
{
	uint32_t hash = llm_token_hash_text(text, len);
	uint32_t at = hash;

	for (uint32_t probes = 0; probes <= image->vocab_hash_mask; probes++, at++)
	{
		const LlmTokenHashSlot *slot =
			&image->vocab_hash[at & image->vocab_hash_mask];
		const LlmTokenVocabEntry *entry;
		const char *content;
		size_t content_len;

		if (slot->entry == 0)
			return -1;
		if (slot->hash != hash || slot->entry > image->n_vocab_entries)
			continue;
		entry = &image->vocab[slot->entry - 1];
		content = llm_token_image_text(image, entry->text, &content_len);
		if (content != NULL && content_len == len &&
			memcmp(content, text, len) == 0)
			return entry->token_id;
	}
	return -1;
}

int32_t
llm_token_image_find_added(const LlmTokenImage *image, const char *text,
						   size_t len)
{
	uint32_t low = 0;
	uint32_t high = image->n_added_names;

	while (low < high)
	{
		uint32_t middle = low + (high - low) / 2;
		const LlmTokenAddedName *name = &image->added_names[middle];
		size_t name_len;
		const char *content =
			llm_token_image_text(image, name->content, &name_len);
		size_t common = name_len < len ? name_len : len;
		int order = content == NULL ? -1 : memcmp(content, text, common);

		if (order == 0 && name_len == len)
			return name->token_id;
		if (order < 0 || (order == 0 && name_len < len))
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

const LlmTokenAdded *
llm_token_image_added(const LlmTokenImage *image, int32_t token_id)
{
	uint32_t added;

	if (token_id < 0 || (uint32_t) token_id >= image->n_ids)
		return NULL;
	added = image->ids[token_id].added;
	if (added == 0 || added > image->n_added)
		return NULL;
	return &image->added[added - 1];
}

const char *
llm_token_image_content(const LlmTokenImage *image, int32_t token_id,
						size_t *len)
{
	uint32_t entry;

	*len = 0;
	if (token_id < 0 || (uint32_t) token_id >= image->n_ids)
		return NULL;
	entry = image->ids[token_id].entry;
	if (entry == 0 || entry > image->n_vocab_entries)
		return NULL;
	return llm_token_image_text(image, image->vocab[entry - 1].text, len);
}
