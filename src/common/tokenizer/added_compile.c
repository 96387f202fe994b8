/*
 * added_compile.c
 *	  Added tokens: which there are, what their ids are, how they match.
 *
 * This follows the reference to the letter, since ids depend on it.  A list
 * of tokens is added in order; a content that the model or an earlier token
 * knows keeps its id, a new one gets the next free id (the id that the file
 * states is not used, there as here).  A later token of the same content
 * replaces the properties of the earlier one.
 *
 * tokenizer_config.json adds a second list, as transformers does when it
 * loads a directory: added_tokens_decoder, then the named special tokens
 * (bos_token and so on) that are not added tokens yet.  Its add_bos_token and
 * add_eos_token have no effect next to a tokenizer.json, there as here: the
 * post-processor alone decides.
 *
 * src/common/tokenizer/added_compile.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/tokenizer/tokenizer_compiler.h"

#define MAX_ADDED_TOKENS (1 << 17)

/* A token as a file describes it; texts are borrowed from the JSON tree. */
typedef struct TokenSpec
{
	const char *content;
	int64_t stated_id; /* orders the tokens of a configuration */
	uint32_t flags;
	bool is_plain; /* given as a string, not as an object */
} TokenSpec;

typedef struct TokenList
{
	TokenSpec *specs;
	size_t n;
	size_t capacity;
} TokenList;

/* What is known of a content. */
typedef struct NameSlot
{
	const char *content; /* NULL: free */
	uint32_t hash;
	int32_t token_id;
	bool is_special; /* some token of this content was */
} NameSlot;

/* What is known of an id; content NULL = it is no added token. */
typedef struct IdSlot
{
	const char *content;
	char *normalized; /* where it differs from the content; owned */
	uint32_t flags;
} IdSlot;

typedef struct AddedCompiler
{
	LlmImageBuilder *builder;
	LlmTokenImage view; /* of the model's vocabulary */
	LlmNormalizer normalizer;
	LlmEncodeGuard guard;
	NameSlot *names;
	size_t name_mask;
	size_t n_names;
	IdSlot *ids;
	size_t n_ids; /* slots; ids beyond are not added tokens */
	int64_t max_added_id;
	LlmError *err;
} AddedCompiler;

static bool
no_memory(AddedCompiler *ac)
{
	return llm_error_no_memory(ac->err, sizeof(NameSlot), "added tokens");
}

/* ------------------------------------------------------------- token lists */

static TokenSpec *
append_spec(TokenList *list)
{
	if (list->n == list->capacity)
	{
		size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
		TokenSpec *specs;

		if (capacity > 4 * (size_t) MAX_ADDED_TOKENS)
			return NULL;
		specs = realloc(list->specs, capacity * sizeof(*specs));
		if (specs == NULL)
			return NULL;
		list->specs = specs;
		list->capacity = capacity;
	}
	memset(&list->specs[list->n], 0, sizeof(list->specs[0]));
	return &list->specs[list->n++];
}

static bool
read_flag(AddedCompiler *ac, const cJSON *json, const char *key, uint32_t bit,
		  bool value, uint32_t *flags)
{
	if (!llm_json_get_bool(json, key, &value, ac->err))
		return false;
	if (value)
		*flags |= bit;
	return true;
}

/* A token object; "normalized" defaults to what "special" is not. */
static bool
read_spec(AddedCompiler *ac, const cJSON *json, TokenList *list)
{
	const cJSON *content = llm_json_get(json, "content");
	TokenSpec *spec = append_spec(list);

	if (spec == NULL)
		return no_memory(ac);
	if (!cJSON_IsString(content))
		return llm_error_set(ac->err, LLM_ERROR_FORMAT,
							 "an added token has no \"content\"");
	spec->content = content->valuestring;
	return llm_json_get_int(json, "id", &spec->stated_id, ac->err) &&
		   read_flag(ac, json, "single_word", LLM_ADDED_SINGLE_WORD, false,
					 &spec->flags) &&
		   read_flag(ac, json, "lstrip", LLM_ADDED_LSTRIP, false,
					 &spec->flags) &&
		   read_flag(ac, json, "rstrip", LLM_ADDED_RSTRIP, false,
					 &spec->flags) &&
		   read_flag(ac, json, "special", LLM_ADDED_SPECIAL, false,
					 &spec->flags) &&
		   read_flag(ac, json, "normalized", LLM_ADDED_NORMALIZED,
					 (spec->flags & LLM_ADDED_SPECIAL) == 0, &spec->flags);
}

static bool
read_added_tokens(AddedCompiler *ac, const cJSON *root, TokenList *list)
{
	const cJSON *tokens = llm_json_get(root, "added_tokens");
	const cJSON *token;

	if (tokens != NULL && !cJSON_IsArray(tokens))
		return llm_error_set(ac->err, LLM_ERROR_FORMAT,
							 "\"added_tokens\" is not an array");
	cJSON_ArrayForEach(token, tokens)
	{
		if (!read_spec(ac, token, list))
			return false;
	}
	return true;
}

static int
compare_stated_ids(const void *a, const void *b)
{
	int64_t left = ((const TokenSpec *) a)->stated_id;
	int64_t right = ((const TokenSpec *) b)->stated_id;

	return left < right ? -1 : left > right;
}

/* The configuration's own list, or the file's again, by stated id. */
static bool
read_config_tokens(AddedCompiler *ac, const cJSON *root, const cJSON *config,
				   TokenList *list)
{
	const cJSON *tokens = llm_json_get(config, "added_tokens_decoder");
	const cJSON *token;

	if (tokens == NULL)
	{
		if (!read_added_tokens(ac, root, list))
			return false;
	}
	else if (!cJSON_IsObject(tokens))
		return llm_error_set(ac->err, LLM_ERROR_FORMAT,
							 "\"added_tokens_decoder\" is not an object");
	cJSON_ArrayForEach(token, tokens)
	{
		char *end;

		if (!read_spec(ac, token, list))
			return false;
		list->specs[list->n - 1].stated_id = strtoll(token->string, &end, 10);
		if (end == token->string || *end != '\0')
			return llm_error_set(ac->err, LLM_ERROR_FORMAT,
								 "\"%.100s\" in \"added_tokens_decoder\" is "
								 "no token id",
								 token->string);
	}
	if (list->n > 0)
		qsort(list->specs, list->n, sizeof(list->specs[0]), compare_stated_ids);
	return true;
}

/* ---------------------------------------------------------------- entering */

static NameSlot *
find_name(AddedCompiler *ac, const char *content, size_t len)
{
	uint32_t hash = llm_token_hash_text(content, len);
	size_t at = hash & ac->name_mask;

	assert(2 * ac->n_names <= ac->name_mask + 1); /* so the search ends */
	while (ac->names[at].content != NULL &&
		   (ac->names[at].hash != hash ||
			strcmp(ac->names[at].content, content) != 0))
		at = (at + 1) & ac->name_mask;
	ac->names[at].hash = hash;
	return &ac->names[at];
}

static bool
grow_ids(AddedCompiler *ac, int64_t token_id)
{
	size_t n = ac->n_ids == 0 ? 1024 : ac->n_ids;
	IdSlot *ids;

	if (token_id >= LLM_TOKEN_MAX_IDS)
		return llm_error_set(ac->err, LLM_ERROR_LIMIT,
							 "the tokenizer has more than %d ids",
							 LLM_TOKEN_MAX_IDS);
	if ((size_t) token_id < ac->n_ids)
		return true;
	while (n <= (size_t) token_id)
		n *= 2;
	ids = realloc(ac->ids, n * sizeof(*ids));
	if (ids == NULL)
		return no_memory(ac);
	memset(ids + ac->n_ids, 0, (n - ac->n_ids) * sizeof(*ids));
	ac->ids = ids;
	ac->n_ids = n;
	return true;
}

/* Remember the normalized content of an id where it differs. */
static bool
note_normalized(AddedCompiler *ac, const char *content, IdSlot *slot)
{
	size_t len = strlen(content);
	LlmPiece piece = { content, len, 0 };

	if (ac->normalizer.row.n_steps == 0)
		return true;
	if (!llm_normalizer_run(&ac->normalizer, piece, true, &piece, ac->err))
		return false;
	if (piece.len == len && memcmp(piece.text, content, len) == 0)
		return true;
	free(slot->normalized);
	slot->normalized = strndup(piece.text, piece.len);
	return slot->normalized != NULL || no_memory(ac);
}

/* Add one token; *next_id is the id for a content that has none. */
static bool
add_token(AddedCompiler *ac, const TokenSpec *spec, int64_t *next_id)
{
	size_t len = strlen(spec->content);
	NameSlot *name;
	IdSlot *slot;
	int64_t token_id;

	if (len == 0)
		return true;
	name = find_name(ac, spec->content, len);
	if (name->content != NULL)
	{
		slot = &ac->ids[name->token_id];
		if (strcmp(slot->content, spec->content) == 0 &&
			slot->flags == spec->flags)
			return true;
		token_id = name->token_id;
	}
	else
	{
		token_id = llm_token_image_find(&ac->view, spec->content, len);
		if (token_id < 0)
			token_id = (*next_id)++;
		if (!grow_ids(ac, token_id))
			return false;
		name->content = spec->content;
		name->token_id = (int32_t) token_id;
		ac->n_names++;
	}
	assert(token_id >= 0 && (size_t) token_id < ac->n_ids);
	slot = &ac->ids[token_id];
	if ((spec->flags & LLM_ADDED_NORMALIZED) != 0 &&
		!note_normalized(ac, spec->content, slot))
		return false;
	if ((spec->flags & LLM_ADDED_SPECIAL) != 0)
		name->is_special = true;
	slot->content = spec->content;
	slot->flags = spec->flags;
	if (token_id > ac->max_added_id)
		ac->max_added_id = token_id;
	return true;
}

static bool
add_tokens(AddedCompiler *ac, const TokenList *list)
{
	int64_t n_model = ac->builder->n_vocab_entries;
	int64_t next_id = n_model;

	if (ac->max_added_id >= 0 && (ac->max_added_id >= n_model || n_model == 0))
		next_id = ac->max_added_id + 1;
	for (size_t i = 0; i < list->n; i++)
	{
		if (!add_token(ac, &list->specs[i], &next_id))
			return false;
	}
	return true;
}

/* ----------------------------------------------------------- configuration */

/* The names that every tokenizer's configuration may give. */
static const char *const standard_names[] = {
	"bos_token", "eos_token", "unk_token",	"sep_token",
	"pad_token", "cls_token", "mask_token",
};

#define N_STANDARD_NAMES (sizeof(standard_names) / sizeof(standard_names[0]))

static bool
is_standard_name(const char *key)
{
	for (size_t i = 0; i < N_STANDARD_NAMES; i++)
	{
		if (strcmp(key, standard_names[i]) == 0)
			return true;
	}
	return false;
}

static bool
ends_with_token(const char *key)
{
	size_t len = strlen(key);

	return len >= 6 && strcmp(key + len - 6, "_token") == 0;
}

/* A named token's content: a string, or an object that has one. */
static const char *
named_content(const cJSON *value)
{
	if (cJSON_IsObject(value))
		value = llm_json_get(value, "content");
	return cJSON_IsString(value) ? value->valuestring : NULL;
}

static bool
same_spec(const TokenSpec *a, const TokenSpec *b)
{
	return a->is_plain == b->is_plain && a->flags == b->flags &&
		   strcmp(a->content, b->content) == 0;
}

/*
 * A special token that the configuration names: appended to the list unless
 * it is an added token, or one of the list's first n_known, already.  One that
 * is named twice in different ways is appended twice; the last one counts.
 */
static bool
name_special(AddedCompiler *ac, const cJSON *value, size_t n_known,
			 TokenList *list)
{
	const char *content = named_content(value);
	TokenSpec *spec;

	if (content == NULL || content[0] == '\0' ||
		find_name(ac, content, strlen(content))->content != NULL)
		return true;
	for (size_t i = 0; i < n_known; i++)
	{
		if (strcmp(list->specs[i].content, content) == 0)
			return true;
	}
	if (cJSON_IsObject(value))
	{
		if (!read_spec(ac, value, list))
			return false;
	}
	else
	{
		spec = append_spec(list);
		if (spec == NULL)
			return no_memory(ac);
		spec->content = content;
		spec->flags = LLM_ADDED_SPECIAL;
		spec->is_plain = true;
	}
	spec = &list->specs[list->n - 1];
	for (size_t i = n_known; i + 1 < list->n; i++)
	{
		if (same_spec(&list->specs[i], spec))
		{
			list->n--;
			return true;
		}
	}
	return true;
}

/* A token of the list whose content is some name's value is special. */
static void
mark_named(const cJSON *value, TokenList *list)
{
	const char *content = named_content(value);

	for (size_t i = 0; content != NULL && i < list->n; i++)
	{
		if (strcmp(list->specs[i].content, content) == 0)
			list->specs[i].flags |= LLM_ADDED_SPECIAL;
	}
}

/* A key that names a special token beyond the standard ones. */
static bool
is_custom_name(const cJSON *item)
{
	return named_content(item) != NULL && ends_with_token(item->string) &&
		   !is_standard_name(item->string);
}

/*
 * Every special token that the configuration names, by a key of its own or in
 * a list, first to last; "mark" instead marks those that have a key.
 */
static bool
for_each_special(AddedCompiler *ac, const cJSON *config, bool mark,
				 size_t n_known, TokenList *list)
{
	const cJSON *extra = llm_json_get(config, "extra_special_tokens");
	const cJSON *additional = llm_json_get(config, "additional_special_tokens");
	const cJSON *item;
	bool has_names = cJSON_IsObject(extra) && extra->child != NULL;
	bool ok = true;

	/* one list, the older key where the newer one is empty, or names and it */
	if (!has_names && (extra == NULL || extra->child == NULL))
		extra = additional;
	for (size_t i = 0; i < N_STANDARD_NAMES && ok; i++)
	{
		item = llm_json_get(config, standard_names[i]);
		if (mark)
			mark_named(item, list);
		else
			ok = name_special(ac, item, n_known, list);
	}
	cJSON_ArrayForEach(item, config)
	{
		if (!ok || !is_custom_name(item))
			continue;
		if (mark)
			mark_named(item, list);
		else
			ok = name_special(ac, item, n_known, list);
	}
	cJSON_ArrayForEach(item, extra)
	{
		if (mark && cJSON_IsObject(extra)) /* its keys are names */
			mark_named(item, list);
		else if (!mark && ok)
			ok = name_special(ac, item, n_known, list);
	}
	if (!has_names || mark)
		return ok;
	cJSON_ArrayForEach(item, additional)
	{
		if (ok)
			ok = name_special(ac, item, n_known, list);
	}
	return ok;
}

static bool
apply_config(AddedCompiler *ac, const cJSON *root, const cJSON *config)
{
	TokenList list = { 0 };
	size_t n_known;
	bool split_special = false;
	bool ok = read_config_tokens(ac, root, config, &list);

	n_known = list.n;
	ok = ok && for_each_special(ac, config, false, n_known, &list) &&
		 for_each_special(ac, config, true, n_known, &list) &&
		 add_tokens(ac, &list) &&
		 llm_json_get_bool(config, "split_special_tokens", &split_special,
						   ac->err);
	if (ok && split_special)
		ac->builder->header.flags |= LLM_TOKEN_KEEP_SPECIAL_TEXT;
	free(list.specs);
	return ok;
}

/* ---------------------------------------------------------------- sections */

static int
compare_texts(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return order != 0 ? order : a_len < b_len ? -1 : a_len > b_len;
}

/* For qsort_r: the blob is the argument. */
static int
compare_patterns(const void *a, const void *b, void *arg)
{
	const LlmTokenPattern *left = a;
	const LlmTokenPattern *right = b;
	const char *blob = arg;
	int order = compare_texts(blob + left->text.off, left->text.len,
							  blob + right->text.off, right->text.len);

	return order != 0					? order
		   : left->added < right->added ? -1
										: left->added > right->added;
}

static int
compare_names(const void *a, const void *b, void *arg)
{
	const LlmTokenAddedName *left = a;
	const LlmTokenAddedName *right = b;
	const char *blob = arg;

	return compare_texts(blob + left->content.off, left->content.len,
						 blob + right->content.off, right->content.len);
}

static bool
is_special_text(AddedCompiler *ac, const char *text)
{
	const NameSlot *name = find_name(ac, text, strlen(text));

	return name->content != NULL && name->is_special;
}

/* The elements of an added token that has this id. */
static void
write_added(AddedCompiler *ac, int32_t token_id, LlmTokenIdEntry *id_entry)
{
	const IdSlot *slot = &ac->ids[token_id];
	const char *decoded =
		slot->normalized != NULL ? slot->normalized : slot->content;
	bool is_normalized = (slot->flags & LLM_ADDED_NORMALIZED) != 0;
	LlmTokenAdded added = { .token_id = token_id, .flags = slot->flags };
	LlmTokenPattern pattern;

	added.content = llm_image_builder_text(ac->builder, slot->content,
										   strlen(slot->content));
	added.decoded = added.content;
	if (slot->normalized != NULL)
		added.decoded = llm_image_builder_text(ac->builder, slot->normalized,
											   strlen(slot->normalized));
	/* by content, as the reference asks; once special, always special */
	added.flags &= ~(uint32_t) LLM_ADDED_SPECIAL;
	if (is_special_text(ac, slot->content))
		added.flags |= LLM_ADDED_SPECIAL;
	if (is_special_text(ac, decoded))
		added.flags |= LLM_ADDED_SKIPPED;
	pattern.added = llm_image_builder_add(ac->builder, LLM_TOKEN_ADDED, &added);
	id_entry->added = pattern.added + 1;
	pattern.text = is_normalized ? added.decoded : added.content;
	if (pattern.text.len > 0)
		llm_image_builder_add(ac->builder,
							  is_normalized ? LLM_TOKEN_PATTERNS_NORM
											: LLM_TOKEN_PATTERNS_RAW,
							  &pattern);
}

static void
write_names(AddedCompiler *ac)
{
	for (size_t i = 0; i <= ac->name_mask; i++)
	{
		const NameSlot *slot = &ac->names[i];
		LlmTokenAddedName name;

		if (slot->content == NULL)
			continue;
		name.content = llm_image_builder_text(ac->builder, slot->content,
											  strlen(slot->content));
		name.token_id = slot->token_id;
		llm_image_builder_add(ac->builder, LLM_TOKEN_ADDED_NAMES, &name);
	}
}

/* Sort a section that is looked up by text. */
static void
sort_section(AddedCompiler *ac, LlmTokenSectionId section,
			 int (*compare)(const void *, const void *, void *))
{
	LlmStrbuf *buffer = &ac->builder->sections[section];

	if (buffer->len > 0)
		qsort_r(buffer->data, llm_image_builder_count(ac->builder, section),
				llm_token_section_element_bytes(section), compare,
				ac->builder->sections[LLM_TOKEN_BLOB].data);
}

/* The id table: model tokens first, then added ones. */
static bool
write_sections(AddedCompiler *ac)
{
	LlmImageBuilder *builder = ac->builder;
	const LlmTokenVocabEntry *entries =
		(const void *) builder->sections[LLM_TOKEN_VOCAB].data;
	int64_t max_id = ac->max_added_id;
	LlmTokenIdEntry *table;

	for (uint32_t i = 0; i < builder->n_vocab_entries; i++)
	{
		if (entries[i].token_id > max_id)
			max_id = entries[i].token_id;
	}
	builder->header.n_ids = (uint32_t) (max_id + 1);
	table = llm_image_builder_table(builder, LLM_TOKEN_IDS,
									builder->header.n_ids, 0);
	if (table == NULL)
		return no_memory(ac);
	for (uint32_t i = 0; i < builder->n_vocab_entries; i++)
		table[entries[i].token_id].entry = i + 1;
	for (int64_t id = 0; id <= ac->max_added_id; id++)
	{
		if (ac->ids[id].content != NULL)
			write_added(ac, (int32_t) id, &table[id]);
	}
	write_names(ac);
	if (!llm_image_builder_check(builder, ac->err))
		return false;
	sort_section(ac, LLM_TOKEN_ADDED_NAMES, compare_names);
	sort_section(ac, LLM_TOKEN_PATTERNS_RAW, compare_patterns);
	sort_section(ac, LLM_TOKEN_PATTERNS_NORM, compare_patterns);
	return true;
}

/* ------------------------------------------------------------------- entry */

/* Room for every name that root and config can bring. */
static bool
allocate_names(AddedCompiler *ac, const cJSON *root, const cJSON *config)
{
	size_t n = (size_t) cJSON_GetArraySize(llm_json_get(root, "added_tokens"));
	size_t n_slots = 64;

	if (config != NULL)
	{
		n += (size_t) cJSON_GetArraySize(config);
		n += (size_t) cJSON_GetArraySize(
			llm_json_get(config, "added_tokens_decoder"));
		n += (size_t) cJSON_GetArraySize(
			llm_json_get(config, "extra_special_tokens"));
		n += (size_t) cJSON_GetArraySize(
			llm_json_get(config, "additional_special_tokens"));
	}
	if (n > MAX_ADDED_TOKENS)
		return llm_error_set(ac->err, LLM_ERROR_LIMIT,
							 "the tokenizer has more than %d added tokens",
							 MAX_ADDED_TOKENS);
	while (n_slots < 2 * n)
		n_slots *= 2;
	ac->names = calloc(n_slots, sizeof(*ac->names));
	ac->name_mask = n_slots - 1;
	return ac->names != NULL || no_memory(ac);
}

bool
llm_compile_added_tokens(LlmImageBuilder *builder, const cJSON *root,
						 const cJSON *config, LlmError *err)
{
	AddedCompiler ac = { .builder = builder,
						 .view = llm_image_builder_view(builder),
						 .max_added_id = -1,
						 .err = err };
	LlmStepRow *row = &ac.normalizer.row;
	TokenList list = { 0 };
	bool ok;

	ac.normalizer.guard = &ac.guard;
	row->blob = ac.view.blob;
	row->n_blob_bytes = ac.view.n_blob_bytes;
	ok = llm_step_row_init(
			 row, (const void *) builder->sections[LLM_TOKEN_NORMALIZERS].data,
			 llm_image_builder_count(builder, LLM_TOKEN_NORMALIZERS), err) &&
		 allocate_names(&ac, root, config) &&
		 read_added_tokens(&ac, root, &list) && add_tokens(&ac, &list) &&
		 (config == NULL || apply_config(&ac, root, config)) &&
		 write_sections(&ac);
	for (size_t i = 0; i < ac.n_ids; i++)
		free(ac.ids[i].normalized);
	free(ac.ids);
	free(ac.names);
	free(list.specs);
	llm_normalizer_free(&ac.normalizer);
	return ok;
}
