/*
 * component_compile.c
 *	  Normalizers and pre-tokenizers: from JSON to steps.
 *
 * A "Sequence" is flattened.  A pre-tokenizer may become several steps, since
 * the image knows only simple ones: ByteLevel is a leading space, a split
 * expression and the mapping to the byte-level alphabet.  Where that mapping
 * is the last thing that happens to a word it is left out altogether: the
 * model then takes words as bytes, which is what the mapping encodes.
 *
 * src/common/tokenizer/component_compile.c
 */
#include <string.h>

#include "src/common/tokenizer/charsmap.h"
#include "src/common/tokenizer/component_read.h"
#include "src/common/tokenizer/unicode_class.h"

/* The split expression of GPT-2, which ByteLevel applies by itself. */
#define GPT2_PATTERN                                                     \
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" \
	"\\s+(?!\\S)|\\s+"

/* ------------------------------------------------------------ normalizers */

/* Normalizers without parameters. */
static LlmTokenStepKind
plain_normalizer(const LlmComponent *c)
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
		if (llm_component_is(c, kinds[i].type))
			return kinds[i].kind;
	}
	return 0;
}

static bool
compile_charsmap(const LlmComponent *c)
{
	LlmTokenStep step = { .kind = LLM_NORM_CHARSMAP };
	LlmStrbuf bytes = { 0 };
	LlmCharsmap map;
	const char *base64 = NULL;
	bool ok = llm_component_need_string(c, "precompiled_charsmap", &base64) &&
			  llm_charsmap_decode(base64, &bytes, &map, c->err);

	if (ok)
	{
		step.text[0] =
			llm_image_builder_text(c->builder, map.trie, map.n_trie_bytes);
		step.text[1] =
			llm_image_builder_text(c->builder, map.texts, map.n_text_bytes);
		ok = llm_component_add_step(c, step);
	}
	llm_strbuf_free(&bytes);
	return ok;
}

static bool
compile_bert_normalizer(const LlmComponent *c)
{
	const cJSON *strip = llm_json_get(c->json, "strip_accents");
	bool clean_text = true;
	bool space_ideographs = true;
	bool lowercase = true;
	bool strip_accents;

	if (!llm_component_get_bool(c, "clean_text", &clean_text) ||
		!llm_component_get_bool(c, "handle_chinese_chars", &space_ideographs) ||
		!llm_component_get_bool(c, "lowercase", &lowercase))
		return false;
	strip_accents = lowercase;
	if (strip != NULL && !cJSON_IsNull(strip) &&
		!llm_component_get_bool(c, "strip_accents", &strip_accents))
		return false;
	return (!clean_text ||
			llm_component_add_plain(c, LLM_NORM_CLEAN_TEXT, 0)) &&
		   (!space_ideographs ||
			llm_component_add_plain(c, LLM_NORM_SPACE_IDEOGRAPHS, 0)) &&
		   (!strip_accents ||
			(llm_component_add_plain(c, LLM_NORM_NFD, 0) &&
			 llm_component_add_plain(c, LLM_NORM_STRIP_NONSPACING, 0))) &&
		   (!lowercase || llm_component_add_plain(c, LLM_NORM_LOWERCASE, 0));
}

static bool
compile_normalizer(LlmComponent *c)
{
	LlmTokenStep step = { 0 };
	const char *text = NULL;
	bool left = true;
	bool right = true;

	if (!llm_component_read_type(c))
		return false;
	if (llm_component_is(c, "Sequence"))
		return llm_component_members(c, "normalizers", compile_normalizer);
	step.kind = plain_normalizer(c);
	if (step.kind != 0)
		return llm_component_add_step(c, step);
	if (llm_component_is(c, "Precompiled"))
		return compile_charsmap(c);
	if (llm_component_is(c, "BertNormalizer"))
		return compile_bert_normalizer(c);
	if (llm_component_is(c, "Prepend"))
	{
		if (!llm_component_need_string(c, "prepend", &text))
			return false;
		step.kind = LLM_NORM_PREPEND;
		step.text[0] = llm_component_add_text(c, text);
		return llm_component_add_step(c, step);
	}
	if (llm_component_is(c, "Replace"))
	{
		if (!llm_component_add_pattern(c, &step, LLM_NORM_REPLACE,
									   LLM_NORM_REPLACE_REGEX) ||
			!llm_component_need_string(c, "content", &text))
			return false;
		step.text[1] = llm_component_add_text(c, text);
		return llm_component_add_step(c, step);
	}
	if (llm_component_is(c, "Strip"))
	{
		if (!llm_component_get_bool(c, "strip_left", &left) ||
			!llm_component_get_bool(c, "strip_right", &right))
			return false;
		step.kind = LLM_NORM_STRIP;
		step.numbers[0] = left;
		step.numbers[1] = right;
		return llm_component_add_step(c, step);
	}
	return llm_component_unsupported(c);
}

/* --------------------------------------------------------- pre-tokenizers */

static bool
read_behavior(const LlmComponent *c, LlmSplitBehavior *behavior)
{
	static const char *const names[] = {
		[LLM_SPLIT_REMOVED] = "Removed",
		[LLM_SPLIT_ISOLATED] = "Isolated",
		[LLM_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
		[LLM_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
		[LLM_SPLIT_CONTIGUOUS] = "Contiguous",
	};
	const char *name = NULL;

	if (!llm_component_need_string(c, "behavior", &name))
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (strcmp(name, names[i]) == 0)
		{
			*behavior = (LlmSplitBehavior) i;
			return true;
		}
	}
	return llm_component_malformed(c, "behavior");
}

static bool
compile_split(const LlmComponent *c)
{
	LlmTokenStep step = { 0 };
	LlmSplitBehavior behavior = LLM_SPLIT_ISOLATED;
	bool invert = false;

	if (!llm_component_add_pattern(c, &step, LLM_PRE_SPLIT,
								   LLM_PRE_SPLIT_REGEX) ||
		!read_behavior(c, &behavior) ||
		!llm_component_get_bool(c, "invert", &invert))
		return false;
	step.numbers[0] = behavior;
	step.numbers[1] = invert;
	return llm_component_add_step(c, step);
}

static bool
compile_byte_level(const LlmComponent *c)
{
	LlmTokenStep split = { .kind = LLM_PRE_SPLIT_REGEX,
						   .numbers = { LLM_SPLIT_ISOLATED, 0 } };
	bool add_prefix_space = true;
	bool use_regex = true;

	if (!llm_component_get_bool(c, "add_prefix_space", &add_prefix_space) ||
		!llm_component_get_bool(c, "use_regex", &use_regex))
		return false;
	if (add_prefix_space &&
		!llm_component_add_plain(c, LLM_PRE_PREFIX_SPACE, 0))
		return false;
	if (use_regex &&
		(!llm_component_add_regex(c, GPT2_PATTERN, &split.text[0]) ||
		 !llm_component_add_step(c, split)))
		return false;
	return llm_component_add_plain(c, LLM_PRE_BYTE_LEVEL, 0);
}

static bool
compile_metaspace(const LlmComponent *c)
{
	LlmTokenStep step = { .kind = LLM_PRE_METASPACE };
	LlmTokenStep cut = { .kind = LLM_PRE_SPLIT,
						 .numbers = { LLM_SPLIT_MERGED_WITH_NEXT, 0 } };
	bool split = true;

	if (!llm_component_read_metaspace(c, &step) ||
		!llm_component_get_bool(c, "split", &split) ||
		!llm_component_add_step(c, step))
		return false;
	cut.text[0] = step.text[0];
	return !split || llm_component_add_step(c, cut);
}

static bool
compile_delimiter(const LlmComponent *c)
{
	LlmTokenStep step = { .kind = LLM_PRE_SPLIT,
						  .numbers = { LLM_SPLIT_REMOVED, 0 } };
	const char *delimiter = NULL;

	if (!llm_component_need_char(c, "delimiter", &delimiter))
		return false;
	step.text[0] = llm_component_add_text(c, delimiter);
	return llm_component_add_step(c, step);
}

static bool
compile_digits(const LlmComponent *c)
{
	bool individual = false;

	return llm_component_get_bool(c, "individual_digits", &individual) &&
		   llm_component_add_plain(c, LLM_PRE_DIGITS,
								   individual ? LLM_SPLIT_ISOLATED
											  : LLM_SPLIT_CONTIGUOUS);
}

static bool
compile_punctuation(const LlmComponent *c)
{
	LlmSplitBehavior behavior = LLM_SPLIT_ISOLATED;

	if (llm_json_get(c->json, "behavior") != NULL &&
		!read_behavior(c, &behavior))
		return false;
	return llm_component_add_plain(c, LLM_PRE_PUNCTUATION, behavior);
}

static bool
compile_fixed_length(const LlmComponent *c)
{
	LlmTokenStep step = { .kind = LLM_PRE_FIXED_LENGTH, .numbers = { 5, 0 } };

	if (!llm_component_get_count(c, "length", &step.numbers[0]))
		return false;
	return step.numbers[0] > 0 ? llm_component_add_step(c, step)
							   : llm_component_malformed(c, "length");
}

static bool
compile_pre_tokenizer(LlmComponent *c)
{
	if (!llm_component_read_type(c))
		return false;
	if (llm_component_is(c, "Sequence"))
		return llm_component_members(c, "pretokenizers", compile_pre_tokenizer);
	if (llm_component_is(c, "Split"))
		return compile_split(c);
	if (llm_component_is(c, "ByteLevel"))
		return compile_byte_level(c);
	if (llm_component_is(c, "Metaspace"))
		return compile_metaspace(c);
	if (llm_component_is(c, "Digits"))
		return compile_digits(c);
	if (llm_component_is(c, "Punctuation"))
		return compile_punctuation(c);
	if (llm_component_is(c, "Whitespace"))
		return llm_component_add_plain(c, LLM_PRE_WORDS, 0);
	if (llm_component_is(c, "WhitespaceSplit"))
		return llm_component_add_plain(c, LLM_PRE_WHITESPACE,
									   LLM_SPLIT_REMOVED);
	if (llm_component_is(c, "BertPreTokenizer"))
		return llm_component_add_plain(c, LLM_PRE_WHITESPACE,
									   LLM_SPLIT_REMOVED) &&
			   llm_component_add_plain(c, LLM_PRE_PUNCTUATION,
									   LLM_SPLIT_ISOLATED);
	if (llm_component_is(c, "CharDelimiterSplit"))
		return compile_delimiter(c);
	if (llm_component_is(c, "FixedLength"))
		return compile_fixed_length(c);
	if (llm_component_is(c, "UnicodeScripts"))
		return llm_component_add_plain(c, LLM_PRE_SCRIPTS, 0);
	return llm_component_unsupported(c);
}

/* Leave the last step to the model if it maps words to bytes. */
static void
hand_bytes_to_model(LlmImageBuilder *builder)
{
	LlmStrbuf *section = &builder->sections[LLM_TOKEN_PRE_TOKENIZERS];
	size_t n = llm_image_builder_count(builder, LLM_TOKEN_PRE_TOKENIZERS);
	const LlmTokenStep *steps = (const void *) section->data;

	if (builder->header.model_kind != LLM_TOKEN_MODEL_BPE || n == 0 ||
		steps[n - 1].kind != LLM_PRE_BYTE_LEVEL)
		return;
	section->len -= sizeof(*steps);
	builder->header.flags |= LLM_TOKEN_MODEL_BYTE_LEVEL;
}

/* ------------------------------------------------------------------ entry */

bool
llm_compile_components(LlmImageBuilder *builder, const cJSON *root,
					   const cJSON *config, LlmError *err)
{
	LlmComponent c = { .builder = builder, .err = err };

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
	if (!llm_compile_decoders(&c, root, config))
		return false;

	c.section = LLM_TOKEN_POST_PIECES;
	c.what = "post-processor";
	return llm_compile_post_processors(&c, root) &&
		   llm_image_builder_check(builder, err);
}
