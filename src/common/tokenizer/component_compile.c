/*
 * component_compile.c
 *	  Normalizer, pre-tokenizer, decoder and post-processor: from JSON to
 *	  steps.
 *
 * A "Sequence" is flattened.  A pre-tokenizer may become several steps, since
 * the image knows only simple ones: ByteLevel is a leading space, a split
 * expression and the mapping to the byte-level alphabet.  Where that mapping
 * is the last thing that happens to a word it is left out altogether: the
 * model then takes words as bytes, which is what the mapping encodes.
 *
 * src/common/tokenizer/component_compile.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/tokenizer/tokenizer_compiler.h"
#include "src/common/tokenizer/unicode_class.h"

#define MAX_SEQUENCE_DEPTH 8

/* The split expression of GPT-2, which ByteLevel applies by itself. */
#define GPT2_PATTERN                                                     \
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" \
	"\\s+(?!\\S)|\\s+"

/* The component at work. */
typedef struct Component
{
	LlmImageBuilder *builder;
	LlmTokenSectionId section;
	const char *what; /* "normalizer" and so on */
	const char *type;
	const cJSON *json;
	int depth;
	LlmError *err;
} Component;

typedef bool (*ComponentCompiler)(Component *c);

static bool
unsupported(const Component *c)
{
	return llm_error_set(c->err, LLM_ERROR_UNSUPPORTED,
						 "the %s \"%.100s\" is not supported", c->what,
						 c->type);
}

static bool
malformed(const Component *c, const char *key)
{
	return llm_error_set(c->err, LLM_ERROR_FORMAT,
						 "the %s \"%s\" has a missing or malformed \"%s\"",
						 c->what, c->type, key);
}

/* ------------------------------------------------------------- parameters */

static bool
need_string(const Component *c, const char *key, const char **value)
{
	const cJSON *item = llm_json_get(c->json, key);

	if (!cJSON_IsString(item))
		return malformed(c, key);
	*value = item->valuestring;
	return true;
}

/* A string of exactly one character. */
static bool
need_char(const Component *c, const char *key, const char **value)
{
	uint32_t cp;

	if (!need_string(c, key, value))
		return false;
	if ((*value)[0] == '\0' || (size_t) llm_unicode_next(*value, strlen(*value),
														 &cp) != strlen(*value))
		return malformed(c, key);
	return true;
}

/* *value is the default where the key is absent. */
static bool
get_bool(const Component *c, const char *key, bool *value)
{
	const cJSON *item = llm_json_get(c->json, key);

	if (item == NULL)
		return true;
	if (!cJSON_IsBool(item))
		return malformed(c, key);
	*value = cJSON_IsTrue(item);
	return true;
}

static bool
get_count(const Component *c, const char *key, int32_t *value)
{
	const cJSON *item = llm_json_get(c->json, key);

	if (item == NULL)
		return true;
	if (!cJSON_IsNumber(item) || item->valuedouble < 0 ||
		item->valuedouble > 1000000 ||
		item->valuedouble != (double) (int32_t) item->valuedouble)
		return malformed(c, key);
	*value = (int32_t) item->valuedouble;
	return true;
}

static bool
add_step(const Component *c, LlmTokenStep step)
{
	if (llm_image_builder_count(c->builder, c->section) >= LLM_TOKEN_MAX_STEPS)
		return llm_error_set(c->err, LLM_ERROR_LIMIT,
							 "the tokenizer has more than %d %ss",
							 LLM_TOKEN_MAX_STEPS, c->what);
	llm_image_builder_add(c->builder, c->section, &step);
	return true;
}

static LlmTokenText
add_text(const Component *c, const char *text)
{
	return llm_image_builder_text(c->builder, text, strlen(text));
}

/* Translate an expression and make sure that it compiles. */
static bool
add_regex_text(const Component *c, const char *pattern, LlmTokenText *text)
{
	LlmStrbuf translated = { 0 };
	LlmSplitRegex *regex = NULL;

	if (llm_split_regex_translate(pattern, strlen(pattern), &translated,
								  c->err))
		regex = llm_split_regex_create(llm_strbuf_str(&translated),
									   translated.len, c->err);
	if (regex != NULL)
		*text = llm_image_builder_text(c->builder, llm_strbuf_str(&translated),
									   translated.len);
	llm_split_regex_free(regex);
	llm_strbuf_free(&translated);
	return regex != NULL;
}

/*
 * A "pattern": {"String": ...} or {"Regex": ...}.  An empty string matches
 * between all characters, as the expression it is for the reference.
 */
static bool
add_pattern(const Component *c, LlmTokenStep *step, LlmTokenStepKind literal,
			LlmTokenStepKind regex)
{
	const cJSON *pattern = llm_json_get(c->json, "pattern");
	const cJSON *text = llm_json_get(pattern, "String");

	step->kind = literal;
	if (text == NULL)
	{
		text = llm_json_get(pattern, "Regex");
		step->kind = regex;
	}
	if (!cJSON_IsString(text))
		return malformed(c, "pattern");
	if (text->valuestring[0] == '\0')
		step->kind = regex;
	if (step->kind == regex)
		return add_regex_text(c, text->valuestring, &step->text[0]);
	step->text[0] = add_text(c, text->valuestring);
	return true;
}

/* Compile each member of a "Sequence". */
static bool
compile_members(Component *c, const char *key, ComponentCompiler compile)
{
	const cJSON *members = llm_json_get(c->json, key);
	const cJSON *member;

	if (!cJSON_IsArray(members))
		return malformed(c, key);
	if (c->depth >= MAX_SEQUENCE_DEPTH)
		return llm_error_set(c->err, LLM_ERROR_LIMIT,
							 "the tokenizer nests %ss too deeply", c->what);
	cJSON_ArrayForEach(member, members)
	{
		Component inner = *c;

		inner.json = member;
		inner.depth++;
		if (!compile(&inner))
			return false;
	}
	return true;
}

/* Find out what kind of component it is. */
static bool
read_type(Component *c)
{
	const cJSON *type = llm_json_get(c->json, "type");

	if (!cJSON_IsString(type))
		return llm_error_set(c->err, LLM_ERROR_UNSUPPORTED,
							 "a %s without a \"type\" is not supported",
							 c->what);
	c->type = type->valuestring;
	return true;
}

static bool
is_type(const Component *c, const char *type)
{
	return strcmp(c->type, type) == 0;
}

/* ------------------------------------------------------------ normalizers */

/* Normalizers without parameters. */
static LlmTokenStepKind
plain_normalizer(const Component *c)
{
	static const struct
	{
		const char *type;
		LlmTokenStepKind kind;
	} kinds[] = {
		{ "NFC", LLM_NORM_NFC },
		{ "NFD", LLM_NORM_NFD },
		{ "NFKC", LLM_NORM_NFKC },
		{ "NFKD", LLM_NORM_NFKD },
		{ "Lowercase", LLM_NORM_LOWERCASE },
		{ "StripAccents", LLM_NORM_STRIP_ACCENTS },
		{ "Nmt", LLM_NORM_NMT },
		{ "ByteLevel", LLM_NORM_BYTE_LEVEL },
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		if (is_type(c, kinds[i].type))
			return kinds[i].kind;
	}
	return 0;
}

static bool
compile_normalizer(Component *c)
{
	LlmTokenStep step = { 0 };
	const char *text = NULL;
	bool left = true;
	bool right = true;

	if (!read_type(c))
		return false;
	if (is_type(c, "Sequence"))
		return compile_members(c, "normalizers", compile_normalizer);
	step.kind = plain_normalizer(c);
	if (step.kind != 0)
		return add_step(c, step);
	if (is_type(c, "Prepend"))
	{
		if (!need_string(c, "prepend", &text))
			return false;
		step.kind = LLM_NORM_PREPEND;
		step.text[0] = add_text(c, text);
		return add_step(c, step);
	}
	if (is_type(c, "Replace"))
	{
		if (!add_pattern(c, &step, LLM_NORM_REPLACE, LLM_NORM_REPLACE_REGEX) ||
			!need_string(c, "content", &text))
			return false;
		step.text[1] = add_text(c, text);
		return add_step(c, step);
	}
	if (is_type(c, "Strip"))
	{
		if (!get_bool(c, "strip_left", &left) ||
			!get_bool(c, "strip_right", &right))
			return false;
		step.kind = LLM_NORM_STRIP;
		step.numbers[0] = left;
		step.numbers[1] = right;
		return add_step(c, step);
	}
	return unsupported(c);
}

/* --------------------------------------------------------- pre-tokenizers */

static bool
read_behavior(const Component *c, LlmSplitBehavior *behavior)
{
	static const char *const names[] = {
		[LLM_SPLIT_REMOVED] = "Removed",
		[LLM_SPLIT_ISOLATED] = "Isolated",
		[LLM_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
		[LLM_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
		[LLM_SPLIT_CONTIGUOUS] = "Contiguous",
	};
	const char *name = NULL;

	if (!need_string(c, "behavior", &name))
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (strcmp(name, names[i]) == 0)
		{
			*behavior = (LlmSplitBehavior) i;
			return true;
		}
	}
	return malformed(c, "behavior");
}

static bool
add_split_step(const Component *c, LlmTokenStepKind kind,
			   LlmSplitBehavior behavior)
{
	LlmTokenStep step = { .kind = kind, .numbers = { behavior, 0 } };

	return add_step(c, step);
}

static bool
compile_split(const Component *c)
{
	LlmTokenStep step = { 0 };
	LlmSplitBehavior behavior = LLM_SPLIT_ISOLATED;
	bool invert = false;

	if (!add_pattern(c, &step, LLM_PRE_SPLIT, LLM_PRE_SPLIT_REGEX) ||
		!read_behavior(c, &behavior) || !get_bool(c, "invert", &invert))
		return false;
	step.numbers[0] = behavior;
	step.numbers[1] = invert;
	return add_step(c, step);
}

static bool
compile_byte_level(const Component *c)
{
	LlmTokenStep split = { .kind = LLM_PRE_SPLIT_REGEX,
						   .numbers = { LLM_SPLIT_ISOLATED, 0 } };
	bool add_prefix_space = true;
	bool use_regex = true;

	if (!get_bool(c, "add_prefix_space", &add_prefix_space) ||
		!get_bool(c, "use_regex", &use_regex))
		return false;
	if (add_prefix_space && !add_split_step(c, LLM_PRE_PREFIX_SPACE, 0))
		return false;
	if (use_regex && (!add_regex_text(c, GPT2_PATTERN, &split.text[0]) ||
					  !add_step(c, split)))
		return false;
	return add_split_step(c, LLM_PRE_BYTE_LEVEL, 0);
}

/* Also the decoder's: replacement and scheme, with an older name for it. */
static bool
read_metaspace(const Component *c, LlmTokenStep *step)
{
	const char *replacement = NULL;
	const char *scheme = "always";
	const cJSON *item = llm_json_get(c->json, "prepend_scheme");
	bool add_prefix_space = true;

	if (!need_char(c, "replacement", &replacement) ||
		!get_bool(c, "add_prefix_space", &add_prefix_space) ||
		(item != NULL && !need_string(c, "prepend_scheme", &scheme)))
		return false;
	step->text[0] = add_text(c, replacement);
	if (strcmp(scheme, "always") == 0)
		step->numbers[0] = LLM_PREPEND_ALWAYS;
	else if (strcmp(scheme, "first") == 0)
		step->numbers[0] = LLM_PREPEND_FIRST;
	else if (strcmp(scheme, "never") == 0)
		step->numbers[0] = LLM_PREPEND_NEVER;
	else
		return malformed(c, "prepend_scheme");
	if (!add_prefix_space)
	{
		if (item != NULL && step->numbers[0] != LLM_PREPEND_NEVER)
			return malformed(c, "add_prefix_space");
		step->numbers[0] = LLM_PREPEND_NEVER;
	}
	return true;
}

static bool
compile_metaspace(const Component *c)
{
	LlmTokenStep step = { .kind = LLM_PRE_METASPACE };
	LlmTokenStep cut = { .kind = LLM_PRE_SPLIT,
						 .numbers = { LLM_SPLIT_MERGED_WITH_NEXT, 0 } };
	bool split = true;

	if (!read_metaspace(c, &step) || !get_bool(c, "split", &split) ||
		!add_step(c, step))
		return false;
	cut.text[0] = step.text[0];
	return !split || add_step(c, cut);
}

static bool
compile_delimiter(const Component *c)
{
	LlmTokenStep step = { .kind = LLM_PRE_SPLIT,
						  .numbers = { LLM_SPLIT_REMOVED, 0 } };
	const char *delimiter = NULL;

	if (!need_char(c, "delimiter", &delimiter))
		return false;
	step.text[0] = add_text(c, delimiter);
	return add_step(c, step);
}

static bool
compile_digits(const Component *c)
{
	bool individual = false;

	return get_bool(c, "individual_digits", &individual) &&
		   add_split_step(c, LLM_PRE_DIGITS,
						  individual ? LLM_SPLIT_ISOLATED
									 : LLM_SPLIT_CONTIGUOUS);
}

static bool
compile_punctuation(const Component *c)
{
	LlmSplitBehavior behavior = LLM_SPLIT_ISOLATED;

	if (llm_json_get(c->json, "behavior") != NULL &&
		!read_behavior(c, &behavior))
		return false;
	return add_split_step(c, LLM_PRE_PUNCTUATION, behavior);
}

static bool
compile_fixed_length(const Component *c)
{
	LlmTokenStep step = { .kind = LLM_PRE_FIXED_LENGTH, .numbers = { 5, 0 } };

	if (!get_count(c, "length", &step.numbers[0]))
		return false;
	return step.numbers[0] > 0 ? add_step(c, step) : malformed(c, "length");
}

static bool
compile_pre_tokenizer(Component *c)
{
	if (!read_type(c))
		return false;
	if (is_type(c, "Sequence"))
		return compile_members(c, "pretokenizers", compile_pre_tokenizer);
	if (is_type(c, "Split"))
		return compile_split(c);
	if (is_type(c, "ByteLevel"))
		return compile_byte_level(c);
	if (is_type(c, "Metaspace"))
		return compile_metaspace(c);
	if (is_type(c, "Digits"))
		return compile_digits(c);
	if (is_type(c, "Punctuation"))
		return compile_punctuation(c);
	if (is_type(c, "Whitespace"))
		return add_split_step(c, LLM_PRE_WORDS, 0);
	if (is_type(c, "WhitespaceSplit"))
		return add_split_step(c, LLM_PRE_WHITESPACE, LLM_SPLIT_REMOVED);
	if (is_type(c, "BertPreTokenizer"))
		return add_split_step(c, LLM_PRE_WHITESPACE, LLM_SPLIT_REMOVED) &&
			   add_split_step(c, LLM_PRE_PUNCTUATION, LLM_SPLIT_ISOLATED);
	if (is_type(c, "CharDelimiterSplit"))
		return compile_delimiter(c);
	if (is_type(c, "FixedLength"))
		return compile_fixed_length(c);
	return unsupported(c);
}

/* Leave the last step to the model if it maps words to bytes. */
static void
hand_bytes_to_model(LlmImageBuilder *builder)
{
	LlmStrbuf *section = &builder->sections[LLM_TOKEN_PRE_TOKENIZERS];
	size_t n = llm_image_builder_count(builder, LLM_TOKEN_PRE_TOKENIZERS);
	const LlmTokenStep *steps = (const void *) section->data;

	if (n == 0 || steps[n - 1].kind != LLM_PRE_BYTE_LEVEL)
		return;
	section->len -= sizeof(*steps);
	builder->header.flags |= LLM_TOKEN_MODEL_BYTE_LEVEL;
}

/* --------------------------------------------------------------- decoders */

static bool
compile_strip_decoder(const Component *c)
{
	LlmTokenStep step = { .kind = LLM_DEC_STRIP };
	const char *content = NULL;

	if (!need_char(c, "content", &content) ||
		!get_count(c, "start", &step.numbers[0]) ||
		!get_count(c, "stop", &step.numbers[1]))
		return false;
	step.text[0] = add_text(c, content);
	return add_step(c, step);
}

static bool
compile_decoder(Component *c)
{
	LlmTokenStep step = { 0 };
	const char *text = NULL;

	if (!read_type(c))
		return false;
	if (is_type(c, "Sequence"))
		return compile_members(c, "decoders", compile_decoder);
	if (is_type(c, "ByteLevel"))
		return add_split_step(c, LLM_DEC_BYTE_LEVEL, 0);
	if (is_type(c, "ByteFallback"))
		return add_split_step(c, LLM_DEC_BYTE_FALLBACK, 0);
	if (is_type(c, "Fuse"))
		return add_split_step(c, LLM_DEC_FUSE, 0);
	if (is_type(c, "Strip"))
		return compile_strip_decoder(c);
	if (is_type(c, "Replace"))
	{
		if (!add_pattern(c, &step, LLM_DEC_REPLACE, LLM_DEC_REPLACE_REGEX) ||
			!need_string(c, "content", &text))
			return false;
		step.text[1] = add_text(c, text);
		return add_step(c, step);
	}
	if (is_type(c, "Metaspace"))
	{
		step.kind = LLM_DEC_METASPACE;
		return read_metaspace(c, &step) && add_step(c, step);
	}
	if (is_type(c, "BPEDecoder"))
	{
		if (!need_string(c, "suffix", &text))
			return false;
		step.kind = LLM_DEC_BPE_SUFFIX;
		step.text[0] = add_text(c, text);
		return add_step(c, step);
	}
	return unsupported(c);
}

/*
 * transformers cleans up spaces of a BPE tokenizer only where its
 * configuration insists, with a key that says what comes of it.
 */
static bool
compile_clean_up(Component *c, const cJSON *config)
{
	static const char *const pairs[][2] = {
		{ " .", "." },	   { " ?", "?" },	  { " !", "!" },   { " ,", "," },
		{ " ' ", "'" },	   { " n't", "n't" }, { " 'm", "'m" }, { " 's", "'s" },
		{ " 've", "'ve" }, { " 're", "'re" },
	};
	bool clean_up = false;
	bool insists = false;

	if (!llm_json_get_bool(config, "clean_up_tokenization_spaces", &clean_up,
						   c->err) ||
		!llm_json_get_bool(config,
						   "clean_up_tokenization_spaces_for_bpe_even_though_"
						   "it_will_corrupt_output",
						   &insists, c->err))
		return false;
	if (!clean_up || !insists)
		return true;
	if (!add_split_step(c, LLM_DEC_FUSE, 0))
		return false;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		LlmTokenStep step = { .kind = LLM_DEC_REPLACE };

		step.text[0] = add_text(c, pairs[i][0]);
		step.text[1] = add_text(c, pairs[i][1]);
		if (!add_step(c, step))
			return false;
	}
	return true;
}

/* --------------------------------------------------------- post-processor */

static bool
add_post_piece(const Component *c, int32_t piece)
{
	if (llm_image_builder_count(c->builder, LLM_TOKEN_POST_PIECES) >= 4096)
		return llm_error_set(c->err, LLM_ERROR_LIMIT,
							 "the post-processor's template is too long");
	llm_image_builder_add(c->builder, LLM_TOKEN_POST_PIECES, &piece);
	return true;
}

static bool
add_post_id(const Component *c, const cJSON *id, const char *key)
{
	if (!cJSON_IsNumber(id) || id->valuedouble < 0 ||
		id->valuedouble >= LLM_TOKEN_MAX_IDS ||
		id->valuedouble != (double) (int32_t) id->valuedouble)
		return malformed(c, key);
	return add_post_piece(c, (int32_t) id->valuedouble);
}

/* {"SpecialToken": {"id": "<s>", ...}}: the ids that stand for it. */
static bool
add_special_piece(const Component *c, const cJSON *special)
{
	const cJSON *name = llm_json_get(special, "id");
	const cJSON *ids;
	const cJSON *id;

	if (!cJSON_IsString(name))
		return malformed(c, "single");
	ids = llm_json_get(llm_json_get(llm_json_get(c->json, "special_tokens"),
									name->valuestring),
					   "ids");
	if (!cJSON_IsArray(ids))
		return malformed(c, "special_tokens");
	cJSON_ArrayForEach(id, ids)
	{
		if (!add_post_id(c, id, "special_tokens"))
			return false;
	}
	return true;
}

static bool
compile_template(const Component *c)
{
	const cJSON *single = llm_json_get(c->json, "single");
	const cJSON *piece;

	if (!cJSON_IsArray(single))
		return malformed(c, "single");
	cJSON_ArrayForEach(piece, single)
	{
		const cJSON *sequence = llm_json_get(piece, "Sequence");
		const cJSON *special = llm_json_get(piece, "SpecialToken");

		if (sequence != NULL)
		{
			const cJSON *id = llm_json_get(sequence, "id");

			if (!cJSON_IsString(id) || strcmp(id->valuestring, "A") != 0)
				return malformed(c, "single");
			if (!add_post_piece(c, LLM_TOKEN_POST_TEXT))
				return false;
		}
		else if (special == NULL)
			return malformed(c, "single");
		else if (!add_special_piece(c, special))
			return false;
	}
	return true;
}

/* BertProcessing and RobertaProcessing: "cls" before, "sep" behind. */
static bool
compile_pair(const Component *c)
{
	const cJSON *cls = llm_json_get(c->json, "cls");
	const cJSON *sep = llm_json_get(c->json, "sep");

	if (!cJSON_IsArray(cls) || cJSON_GetArraySize(cls) != 2)
		return malformed(c, "cls");
	if (!cJSON_IsArray(sep) || cJSON_GetArraySize(sep) != 2)
		return malformed(c, "sep");
	return add_post_id(c, cJSON_GetArrayItem(cls, 1), "cls") &&
		   add_post_piece(c, LLM_TOKEN_POST_TEXT) &&
		   add_post_id(c, cJSON_GetArrayItem(sep, 1), "sep");
}

static bool
compile_post_processor(Component *c)
{
	if (!read_type(c))
		return false;
	if (is_type(c, "Sequence"))
		return compile_members(c, "processors", compile_post_processor);
	if (is_type(c, "ByteLevel"))
		return true; /* it only trims offsets */
	if (!is_type(c, "TemplateProcessing") && !is_type(c, "BertProcessing") &&
		!is_type(c, "RobertaProcessing"))
		return unsupported(c);
	if (llm_image_builder_count(c->builder, LLM_TOKEN_POST_PIECES) > 0)
		return llm_error_set(c->err, LLM_ERROR_UNSUPPORTED,
							 "more than one post-processor that adds tokens "
							 "is not supported");
	return is_type(c, "TemplateProcessing") ? compile_template(c)
											: compile_pair(c);
}

bool
llm_compile_check_post(const LlmImageBuilder *builder, LlmError *err)
{
	size_t n = llm_image_builder_count(builder, LLM_TOKEN_POST_PIECES);
	const int32_t *pieces =
		(const void *) builder->sections[LLM_TOKEN_POST_PIECES].data;

	for (size_t i = 0; i < n; i++)
	{
		if (pieces[i] != LLM_TOKEN_POST_TEXT &&
			(uint32_t) pieces[i] >= builder->header.n_ids)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "the post-processor adds token id %d, which "
								 "is not in the vocabulary",
								 pieces[i]);
	}
	return true;
}

/* ------------------------------------------------------------------ entry */

bool
llm_compile_components(LlmImageBuilder *builder, const cJSON *root,
					   const cJSON *config, LlmError *err)
{
	Component c = { .builder = builder, .err = err };

	c.section = LLM_TOKEN_NORMALIZERS;
	c.what = "normalizer";
	c.json = llm_json_get(root, "normalizer");
	if (c.json != NULL && !compile_normalizer(&c))
		return false;

	c.section = LLM_TOKEN_PRE_TOKENIZERS;
	c.what = "pre-tokenizer";
	c.json = llm_json_get(root, "pre_tokenizer");
	if (c.json != NULL && !compile_pre_tokenizer(&c))
		return false;
	hand_bytes_to_model(builder);

	c.section = LLM_TOKEN_DECODERS;
	c.what = "decoder";
	c.json = llm_json_get(root, "decoder");
	if (c.json != NULL && !compile_decoder(&c))
		return false;
	if (c.json == NULL && !add_split_step(&c, LLM_DEC_JOIN_SPACE, 0))
		return false;
	if (config != NULL && !compile_clean_up(&c, config))
		return false;

	c.section = LLM_TOKEN_POST_PIECES;
	c.what = "post-processor";
	c.json = llm_json_get(root, "post_processor");
	if (c.json != NULL && !compile_post_processor(&c))
		return false;
	if (llm_image_builder_count(builder, LLM_TOKEN_POST_PIECES) == 0 &&
		!add_post_piece(&c, LLM_TOKEN_POST_TEXT))
		return false;
	return llm_image_builder_check(builder, err);
}
