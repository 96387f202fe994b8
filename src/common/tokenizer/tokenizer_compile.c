/*
 * tokenizer_compile.c
 *	  From tokenizer.json to an image: the entry, and the model.
 *
 * Of the file's parts, "truncation" and "padding" are not compiled: they are
 * options of whoever calls the encoder, and a caller here bounds its output
 * itself.
 *
 * src/common/tokenizer/tokenizer_compile.c
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/tokenizer/tokenizer_compiler.h"
#include "src/common/tokenizer/unicode_class.h"

#define MAX_MERGES (1 << 25)
#define MAX_MERGE_PAIR_BITS ((size_t) 1 << 22)

static size_t
power_of_two_above(size_t n)
{
	size_t power = 2;

	while (power < n)
		power *= 2;
	return power;
}

/* ------------------------------------------------------------ vocabulary */

void
llm_compile_vocab_entry(LlmImageBuilder *builder, const char *content,
						int32_t token_id, bool keeps_earlier)
{
	LlmStrbuf *table = &builder->sections[LLM_TOKEN_VOCAB_HASH];
	LlmTokenHashSlot *slots = (LlmTokenHashSlot *) (void *) table->data;
	size_t mask = table->len / sizeof(*slots) - 1;
	size_t len = strlen(content);
	uint32_t hash = llm_token_hash_text(content, len);
	size_t at = hash & mask;
	LlmTokenVocabEntry entry;

	for (; slots[at].entry != 0; at = (at + 1) & mask)
	{
		LlmTokenVocabEntry *other =
			(LlmTokenVocabEntry *) (void *) builder->sections[LLM_TOKEN_VOCAB]
				.data +
			(slots[at].entry - 1);

		if (slots[at].hash == hash && other->text.len == len &&
			memcmp(builder->sections[LLM_TOKEN_BLOB].data + other->text.off,
				   content, len) == 0)
		{
			if (!keeps_earlier)
			{
				other->token_id = token_id;
				return;
			}
			break;
		}
	}
	entry.text = llm_image_builder_text(builder, content, len);
	entry.token_id = token_id;
	slots[at].hash = hash;
	slots[at].entry =
		llm_image_builder_add(builder, LLM_TOKEN_VOCAB, &entry) + 1;
}

bool
llm_compile_vocab_table(LlmImageBuilder *builder, size_t n, LlmError *err)
{
	return llm_image_builder_table(builder, LLM_TOKEN_VOCAB_HASH,
								   power_of_two_above(n + n / 2 + 1),
								   0) != NULL ||
		   llm_image_builder_check(builder, err);
}

bool
llm_compile_vocab(LlmImageBuilder *builder, const cJSON *model, LlmError *err)
{
	const cJSON *vocab = llm_json_get(model, "vocab");
	const cJSON *item;
	size_t n = 0;

	if (!cJSON_IsObject(vocab))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the model has no \"vocab\" object");
	cJSON_ArrayForEach(item, vocab) n++;
	if (!llm_compile_vocab_table(builder, n, err))
		return false;
	cJSON_ArrayForEach(item, vocab)
	{
		double value = item->valuedouble;

		if (!cJSON_IsNumber(item) || value != floor(value) || value < 0 ||
			value >= LLM_TOKEN_MAX_IDS)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "the vocabulary's token \"%.100s\" has no id "
								 "between 0 and %d",
								 item->string, LLM_TOKEN_MAX_IDS - 1);
		llm_compile_vocab_entry(builder, item->string, (int32_t) value, false);
		if (!llm_image_builder_check(builder, err))
			return false;
	}
	builder->n_vocab_entries =
		(uint32_t) llm_image_builder_count(builder, LLM_TOKEN_VOCAB);
	return true;
}

/* Ids of the single bytes, in the byte-level alphabet and as <0x00>. */
static bool
compile_byte_ids(LlmImageBuilder *builder, LlmError *err)
{
	int32_t *ids = llm_image_builder_table(builder, LLM_TOKEN_BYTE_IDS,
										   LLM_TOKEN_N_BYTE_IDS, 0);
	LlmTokenImage view = llm_image_builder_view(builder);
	bool all_known = true;

	if (ids == NULL)
		return llm_image_builder_check(builder, err);
	for (int byte = 0; byte < 256; byte++)
	{
		char text[16];
		int len =
			llm_utf8_encode(llm_byte_level_encode((unsigned char) byte), text);

		ids[LLM_TOKEN_BYTE_LEVEL_IDS + byte] =
			llm_token_image_find(&view, text, (size_t) len);
		all_known = all_known && ids[LLM_TOKEN_BYTE_LEVEL_IDS + byte] >= 0;
		len = snprintf(text, sizeof(text), "<0x%02X>", (unsigned) byte);
		ids[LLM_TOKEN_FALLBACK_IDS + byte] =
			llm_token_image_find(&view, text, (size_t) len);
	}
	if (all_known && builder->header.subword_prefix.len == 0 &&
		builder->header.word_suffix.len == 0)
		builder->header.flags |= LLM_TOKEN_MODEL_BYTES_KNOWN;
	return true;
}

/* ---------------------------------------------------------------- merges */

/* The two parts of a merge. */
typedef struct MergeParts
{
	const char *left;
	size_t left_len;
	const char *right;
	size_t right_len;
} MergeParts;

/* A merge is "a b" or ["a", "b"]. */
static bool
read_merge(const cJSON *item, MergeParts *parts, LlmError *err)
{
	const cJSON *left;
	const cJSON *right;
	const char *space;

	if (cJSON_IsString(item))
	{
		space = strchr(item->valuestring, ' ');
		if (space == NULL || strchr(space + 1, ' ') != NULL)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "the merge \"%.100s\" is no pair",
								 item->valuestring);
		parts->left = item->valuestring;
		parts->left_len = (size_t) (space - item->valuestring);
		parts->right = space + 1;
		parts->right_len = strlen(space + 1);
		return true;
	}
	left = cJSON_IsArray(item) ? item->child : NULL;
	right = left != NULL ? left->next : NULL;
	if (right == NULL || right->next != NULL || !cJSON_IsString(left) ||
		!cJSON_IsString(right))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "a merge is neither a text nor a pair of texts");
	parts->left = left->valuestring;
	parts->left_len = strlen(left->valuestring);
	parts->right = right->valuestring;
	parts->right_len = strlen(right->valuestring);
	return true;
}

/* Looking up ids for the merges. */
typedef struct MergeCompiler
{
	LlmImageBuilder *builder;
	LlmTokenImage view;
	LlmTokenMerge *table;
	size_t mask;
	size_t prefix_len;
	LlmStrbuf joined;
	uint64_t *pair_bits;
	uint64_t pair_mask;
	bool cuts_nothing; /* every pair of symbols may merge */
} MergeCompiler;

static bool
find_part(const MergeCompiler *mc, const char *text, size_t len, int32_t *id,
		  LlmError *err)
{
	*id = llm_token_image_find(&mc->view, text, len);
	if (*id >= 0)
		return true;
	return llm_error_set(err, LLM_ERROR_FORMAT,
						 "the merges name \"%.*s\", which is not in the "
						 "vocabulary",
						 (int) (len > 100 ? 100 : len), text);
}

static void
enter_merge(MergeCompiler *mc, int32_t left, int32_t right, uint32_t rank,
			int32_t new_id)
{
	size_t at = llm_token_hash_pair(left, right) & mc->mask;

	assert(left >= 0 && right >= 0 && rank != UINT32_MAX);
	while (mc->table[at].rank != UINT32_MAX &&
		   (mc->table[at].left != left || mc->table[at].right != right))
		at = (at + 1) & mc->mask;
	mc->table[at] = (LlmTokenMerge){ left, right, rank, new_id };
}

/*
 * Note that the last symbol of the left part and the first of the right one
 * may meet in a merge.  Symbols are characters; a part whose outermost
 * character is not in the vocabulary never comes about.
 */
static void
enter_pair(MergeCompiler *mc, const MergeParts *parts)
{
	size_t last = parts->left_len;
	uint32_t cp;
	int32_t left;
	int32_t right;
	uint64_t bit;

	if (parts->left_len == 0 || parts->right_len == 0)
	{
		mc->cuts_nothing = true;
		return;
	}
	do
		last--;
	while (last > 0 && ((unsigned char) parts->left[last] & 0xC0) == 0x80);
	left = llm_token_image_find(&mc->view, parts->left + last,
								parts->left_len - last);
	right = llm_token_image_find(
		&mc->view, parts->right,
		(size_t) llm_unicode_next(parts->right, parts->right_len, &cp));
	if (left < 0 || right < 0)
		return;
	bit = llm_token_hash_pair(left, right) & mc->pair_mask;
	mc->pair_bits[bit >> 6] |= (uint64_t) 1 << (bit & 63);
}

/*
 * Symbols that are no single characters, the unknown and the byte tokens: if
 * merges name them, what enter_pair concludes from characters does not hold.
 */
static bool
is_odd_symbol(const MergeCompiler *mc, int32_t token_id)
{
	const int32_t *fallback = (const int32_t *) (const void *) mc->builder
								  ->sections[LLM_TOKEN_BYTE_IDS]
								  .data +
							  LLM_TOKEN_FALLBACK_IDS;

	if (token_id == mc->builder->header.unk_id)
		return true;
	for (int byte = 0; byte < 256; byte++)
	{
		if (fallback[byte] == token_id)
			return true;
	}
	return false;
}

/* Tokens of one character, and those of the form <...>, may be odd. */
static bool
may_be_odd(const char *text, size_t len, int32_t token_id, int32_t unk_id)
{
	return token_id == unk_id || (len == 6 && text[0] == '<');
}

static bool
compile_merge(MergeCompiler *mc, const cJSON *item, uint32_t rank,
			  LlmError *err)
{
	MergeParts parts = { 0 };
	int32_t unk_id = mc->builder->header.unk_id;
	int32_t left;
	int32_t right;
	int32_t new_id;

	if (!read_merge(item, &parts, err) ||
		!find_part(mc, parts.left, parts.left_len, &left, err) ||
		!find_part(mc, parts.right, parts.right_len, &right, err))
		return false;
	if (parts.right_len < mc->prefix_len)
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the merge of \"%.100s\" lacks the subword prefix",
							 parts.right);
	llm_strbuf_reset(&mc->joined);
	llm_strbuf_append(&mc->joined, parts.left, parts.left_len);
	llm_strbuf_append(&mc->joined, parts.right + mc->prefix_len,
					  parts.right_len - mc->prefix_len);
	if (mc->joined.failed)
		return llm_error_no_memory(err, parts.left_len, "a merge");
	if (!find_part(mc, llm_strbuf_str(&mc->joined), mc->joined.len, &new_id,
				   err))
		return false;
	enter_merge(mc, left, right, rank, new_id);
	enter_pair(mc, &parts);
	if ((may_be_odd(parts.left, parts.left_len, left, unk_id) &&
		 is_odd_symbol(mc, left)) ||
		(may_be_odd(parts.right, parts.right_len, right, unk_id) &&
		 is_odd_symbol(mc, right)))
		mc->cuts_nothing = true;
	return true;
}

static bool
allocate_merge_tables(MergeCompiler *mc, size_t n_merges, LlmError *err)
{
	size_t n_slots = power_of_two_above(n_merges + n_merges / 2 + 1);
	size_t n_bits = power_of_two_above(n_merges * 16);

	if (n_bits < 64)
		n_bits = 64;
	if (n_bits > MAX_MERGE_PAIR_BITS)
		n_bits = MAX_MERGE_PAIR_BITS;
	mc->table =
		llm_image_builder_table(mc->builder, LLM_TOKEN_MERGES, n_slots, 0xFF);
	mc->pair_bits = llm_image_builder_table(mc->builder, LLM_TOKEN_MERGE_PAIRS,
											n_bits / 64, 0);
	mc->mask = n_slots - 1;
	mc->pair_mask = n_bits - 1;
	return llm_image_builder_check(mc->builder, err);
}

/* Without a model (one that is not BPE) the tables stay empty. */
static bool
compile_merges(LlmImageBuilder *builder, const cJSON *model, LlmError *err)
{
	const cJSON *merges = llm_json_get(model, "merges");
	MergeCompiler mc = { .builder = builder,
						 .view = llm_image_builder_view(builder),
						 .prefix_len = builder->header.subword_prefix.len };
	const cJSON *item;
	size_t n = 0;
	uint32_t rank = 0;
	bool ok = true;

	if (model != NULL && !cJSON_IsArray(merges))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the model has no \"merges\" array");
	n = (size_t) cJSON_GetArraySize(merges);
	if (n > MAX_MERGES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "the model has %zu merges, more than %d", n,
							 MAX_MERGES);
	if (!allocate_merge_tables(&mc, n, err))
		return false;
	cJSON_ArrayForEach(item, merges)
	{
		/* a line that was copied from merges.txt */
		if (cJSON_IsString(item) &&
			strncmp(item->valuestring, "#version", 8) == 0)
			continue;
		ok = compile_merge(&mc, item, rank++, err);
		if (!ok)
			break;
	}
	if (mc.cuts_nothing)
		memset(mc.pair_bits, 0xFF, (mc.pair_mask + 1) / 8);
	llm_strbuf_free(&mc.joined);
	return ok;
}

/* ----------------------------------------------------------------- model */

static bool
get_flag(const cJSON *model, const char *key, uint32_t bit, uint32_t *flags,
		 LlmError *err)
{
	bool value = false;

	if (!llm_json_get_bool(model, key, &value, err))
		return false;
	if (value)
		*flags |= bit;
	return true;
}

static bool
get_affix(LlmImageBuilder *builder, const cJSON *model, const char *key,
		  LlmTokenText *affix, LlmError *err)
{
	const char *text = NULL;

	if (!llm_json_get_string(model, key, &text, err))
		return false;
	if (text != NULL)
		*affix = llm_image_builder_text(builder, text, strlen(text));
	return true;
}

/* What the model is; files of early versions do not name it. */
static bool
read_model_kind(const cJSON *model, LlmTokenModelKind *kind, LlmError *err)
{
	static const char *const names[] = {
		[LLM_TOKEN_MODEL_BPE] = "BPE",
		[LLM_TOKEN_MODEL_UNIGRAM] = "Unigram",
		[LLM_TOKEN_MODEL_WORD_PIECE] = "WordPiece",
		[LLM_TOKEN_MODEL_WORD_LEVEL] = "WordLevel",
	};
	const char *type = NULL;

	if (!llm_json_get_string(model, "type", &type, err))
		return false;
	if (type == NULL)
	{
		if (llm_json_get(model, "merges") != NULL)
			type = "BPE";
		else if (llm_json_get(model, "max_input_chars_per_word") != NULL)
			type = "WordPiece";
		else if (llm_json_get(model, "unk_token") != NULL)
			type = "WordLevel";
		else if (cJSON_IsArray(llm_json_get(model, "vocab")))
			type = "Unigram";
		else
			return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
								 "the tokenizer model has no type");
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (strcmp(type, names[i]) == 0)
		{
			*kind = (LlmTokenModelKind) i;
			return true;
		}
	}
	return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
						 "the tokenizer model \"%.100s\" is not supported",
						 type);
}

bool
llm_compile_find_unknown(LlmImageBuilder *builder, const char *unk_token)
{
	LlmTokenImage view = llm_image_builder_view(builder);

	builder->header.unk_id =
		llm_token_image_find(&view, unk_token, strlen(unk_token));
	if (builder->header.unk_id < 0)
		builder->header.unk_id = LLM_TOKEN_MISSING_UNK;
	return true;
}

static bool
compile_bpe(LlmImageBuilder *builder, const cJSON *model, LlmError *err)
{
	LlmTokenImageHeader *header = &builder->header;
	const char *unk_token = NULL;
	double dropout = 0;

	if (!llm_json_get_double(model, "dropout", &dropout, err))
		return false;
	if (dropout != 0)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "a dropout of %g is not supported: token ids "
							 "would be random",
							 dropout);
	if (!get_flag(model, "fuse_unk", LLM_TOKEN_MODEL_FUSE_UNK, &header->flags,
				  err) ||
		!get_flag(model, "byte_fallback", LLM_TOKEN_MODEL_BYTE_FALLBACK,
				  &header->flags, err) ||
		!get_flag(model, "ignore_merges", LLM_TOKEN_MODEL_IGNORE_MERGES,
				  &header->flags, err) ||
		!get_affix(builder, model, "continuing_subword_prefix",
				   &header->subword_prefix, err) ||
		!get_affix(builder, model, "end_of_word_suffix", &header->word_suffix,
				   err) ||
		!llm_json_get_string(model, "unk_token", &unk_token, err) ||
		!llm_compile_vocab(builder, model, err))
		return false;
	header->unk_id = LLM_TOKEN_NO_UNK;
	return unk_token == NULL || llm_compile_find_unknown(builder, unk_token);
}

static bool
compile_model(LlmImageBuilder *builder, const cJSON *root, LlmError *err)
{
	const cJSON *model = llm_json_get(root, "model");
	LlmTokenModelKind kind = LLM_TOKEN_MODEL_BPE;
	bool ok = false;

	if (!cJSON_IsObject(model))
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "the tokenizer has no \"model\" object");
	if (!read_model_kind(model, &kind, err))
		return false;
	switch (kind)
	{
		case LLM_TOKEN_MODEL_BPE:
			ok = compile_bpe(builder, model, err);
			break;
		case LLM_TOKEN_MODEL_UNIGRAM:
			ok = llm_compile_unigram(builder, model, err);
			break;
		case LLM_TOKEN_MODEL_WORD_PIECE:
		case LLM_TOKEN_MODEL_WORD_LEVEL:
			ok = llm_compile_word_piece(builder, model, kind, err);
			break;
	}
	return ok && compile_byte_ids(builder, err) &&
		   compile_merges(builder, kind == LLM_TOKEN_MODEL_BPE ? model : NULL,
						  err);
}

/* ----------------------------------------------------------------- entry */

/*
 * cJSON keeps strings as C strings, so an escaped NUL would silently cut one.
 * Finds "\u0000" whose backslash is not itself escaped.
 */
static bool
has_escaped_nul(const char *text, size_t len)
{
	const char *end = text + len;
	const char *at = text;

	while ((at = memmem(at, (size_t) (end - at), "\\u0000", 6)) != NULL)
	{
		const char *slash = at;

		while (slash > text && slash[-1] == '\\')
			slash--;
		if ((at - slash) % 2 == 0)
			return true;
		at += 6;
	}
	return false;
}

static cJSON *
parse_text(const char *text, size_t len, const char *what, LlmError *err)
{
	cJSON *tree;

	if (!llm_utf8_is_valid(text, len))
	{
		llm_error_set(err, LLM_ERROR_FORMAT, "%s: not valid UTF-8", what);
		return NULL;
	}
	if (has_escaped_nul(text, len))
	{
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "%s: strings with the character U+0000 are not "
					  "supported",
					  what);
		return NULL;
	}
	tree = llm_json_parse(text, len, what, err);
	if (tree != NULL && !cJSON_IsObject(tree))
	{
		llm_error_set(err, LLM_ERROR_FORMAT, "%s: not a JSON object", what);
		cJSON_Delete(tree);
		return NULL;
	}
	return tree;
}

static bool
compile_tree(LlmImageBuilder *builder, const cJSON *root, const cJSON *config,
			 LlmStrbuf *image, LlmError *err)
{
	const char *version = NULL;

	if (!llm_json_get_string(root, "version", &version, err))
		return false;
	if (version != NULL && strcmp(version, "1.0") != 0)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "version \"%.100s\" of the tokenizer's format is "
							 "not supported",
							 version);
	return compile_model(builder, root, err) &&
		   llm_compile_components(builder, root, config, err) &&
		   llm_compile_added_tokens(builder, root, config, err) &&
		   llm_compile_check_post(builder, err) &&
		   llm_image_builder_finish(builder, image, err);
}

/* Put the file's path in front of a message. */
static void
prefix_path(const char *path, LlmError *err)
{
	LlmError inner;

	if (err == NULL)
		return;
	inner = *err;
	llm_error_set(err, (LlmErrorCode) inner.code, "%.200s: %s", path,
				  inner.message);
	if (inner.hint[0] != '\0')
		llm_error_hint(err, "%s", inner.hint);
}

bool
llm_tokenizer_compile(const char *json_text, size_t json_len,
					  const char *config_text, size_t config_len,
					  const char *path, LlmStrbuf *image, LlmError *err)
{
	LlmImageBuilder builder;
	size_t n_before = image->len;
	cJSON *config = NULL;
	cJSON *root = parse_text(json_text, json_len, path, err);
	bool ok = root != NULL;

	if (ok && config_text != NULL)
	{
		config =
			parse_text(config_text, config_len, "tokenizer_config.json", err);
		ok = config != NULL;
	}
	if (ok)
	{
		memset(&builder, 0, sizeof(builder));
		ok = compile_tree(&builder, root, config, image, err);
		if (!ok)
		{
			prefix_path(path, err);
			image->len = n_before;
		}
		llm_image_builder_free(&builder);
	}
	cJSON_Delete(config);
	cJSON_Delete(root);
	return ok;
}
