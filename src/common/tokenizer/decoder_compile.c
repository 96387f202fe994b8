/*
 * decoder_compile.c
 *	  Decoders and post-processors: from JSON to steps and pieces.
 *
 * The clean-up of spaces that WordPiece's decoder, CTC's and a tokenizer's
 * configuration ask for is a row of replacements.
 *
 * src/common/tokenizer/decoder_compile.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/tokenizer/component_read.h"

/* --------------------------------------------------------------- decoders */

static bool
compile_strip_decoder(const LlmComponent *c)
{
	LlmTokenStep step = { .kind = LLM_DEC_STRIP };
	const char *content = NULL;

	if (!llm_component_need_char(c, "content", &content) ||
		!llm_component_get_count(c, "start", &step.numbers[0]) ||
		!llm_component_get_count(c, "stop", &step.numbers[1]))
		return false;
	step.text[0] = llm_component_add_text(c, content);
	return llm_component_add_step(c, step);
}

/* A replacement of tokens' text; an empty one matches between characters. */
static bool
add_replacement(const LlmComponent *c, const char *text, const char *content)
{
	LlmTokenStep step = { .kind = LLM_DEC_REPLACE };

	if (text[0] == '\0')
	{
		step.kind = LLM_DEC_REPLACE_REGEX;
		if (!llm_component_add_regex(c, text, &step.text[0]))
			return false;
	}
	else
		step.text[0] = llm_component_add_text(c, text);
	step.text[1] = llm_component_add_text(c, content);
	return llm_component_add_step(c, step);
}

/* The decoders' list has one replacement more than the configuration's. */
static bool
add_clean_up(const LlmComponent *c, bool is_decoder)
{
	static const char *const pairs[][2] = {
		{ " .", "." },	   { " ?", "?" },			{ " !", "!" },
		{ " ,", "," },	   { " ' ", "'" },			{ " n't", "n't" },
		{ " 'm", "'m" },   { " do not", " don't" }, { " 's", "'s" },
		{ " 've", "'ve" }, { " 're", "'re" },
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		if (!is_decoder && strcmp(pairs[i][0], " do not") == 0)
			continue;
		if (!add_replacement(c, pairs[i][0], pairs[i][1]))
			return false;
	}
	return true;
}

static bool
compile_word_piece_decoder(const LlmComponent *c)
{
	LlmTokenStep step = { .kind = LLM_DEC_WORD_PIECE };
	const char *prefix = NULL;
	bool cleanup = true;

	if (!llm_component_need_string(c, "prefix", &prefix) ||
		!llm_component_get_bool(c, "cleanup", &cleanup))
		return false;
	step.text[0] = llm_component_add_text(c, prefix);
	return llm_component_add_step(c, step) &&
		   (!cleanup || add_clean_up(c, true));
}

static bool
compile_ctc(const LlmComponent *c)
{
	const char *pad = NULL;
	const char *delimiter = NULL;
	bool cleanup = true;

	if (!llm_component_need_string(c, "pad_token", &pad) ||
		!llm_component_need_string(c, "word_delimiter_token", &delimiter) ||
		!llm_component_get_bool(c, "cleanup", &cleanup) ||
		!llm_component_add_plain(c, LLM_DEC_DEDUP, 0) ||
		!add_replacement(c, pad, ""))
		return false;
	if (cleanup &&
		(!add_clean_up(c, true) || !add_replacement(c, delimiter, " ")))
		return false;
	return llm_component_add_plain(c, LLM_DEC_DROP_EMPTY, 0);
}

static bool
compile_decoder(LlmComponent *c)
{
	LlmTokenStep step = { 0 };
	const char *text = NULL;

	if (!llm_component_read_type(c))
		return false;
	if (llm_component_is(c, "Sequence"))
		return llm_component_members(c, "decoders", compile_decoder);
	if (llm_component_is(c, "ByteLevel"))
		return llm_component_add_plain(c, LLM_DEC_BYTE_LEVEL, 0);
	if (llm_component_is(c, "ByteFallback"))
		return llm_component_add_plain(c, LLM_DEC_BYTE_FALLBACK, 0);
	if (llm_component_is(c, "Fuse"))
		return llm_component_add_plain(c, LLM_DEC_FUSE, 0);
	if (llm_component_is(c, "Strip"))
		return compile_strip_decoder(c);
	if (llm_component_is(c, "Replace"))
	{
		if (!llm_component_add_pattern(c, &step, LLM_DEC_REPLACE,
									   LLM_DEC_REPLACE_REGEX) ||
			!llm_component_need_string(c, "content", &text))
			return false;
		step.text[1] = llm_component_add_text(c, text);
		return llm_component_add_step(c, step);
	}
	if (llm_component_is(c, "Metaspace"))
	{
		step.kind = LLM_DEC_METASPACE;
		return llm_component_read_metaspace(c, &step) &&
			   llm_component_add_step(c, step);
	}
	if (llm_component_is(c, "BPEDecoder"))
	{
		if (!llm_component_need_string(c, "suffix", &text))
			return false;
		step.kind = LLM_DEC_BPE_SUFFIX;
		step.text[0] = llm_component_add_text(c, text);
		return llm_component_add_step(c, step);
	}
	if (llm_component_is(c, "WordPiece"))
		return compile_word_piece_decoder(c);
	if (llm_component_is(c, "CTC"))
		return compile_ctc(c);
	return llm_component_unsupported(c);
}

/*
 * transformers cleans up spaces where its configuration says so; for a BPE
 * tokenizer only where it insists, with a key that says what comes of it.
 */
static bool
compile_clean_up(const LlmComponent *c, const cJSON *config)
{
	bool clean_up = false;
	bool insists = c->builder->header.model_kind != LLM_TOKEN_MODEL_BPE;

	if (!llm_json_get_bool(config, "clean_up_tokenization_spaces", &clean_up,
						   c->err) ||
		!llm_json_get_bool(config,
						   "clean_up_tokenization_spaces_for_bpe_even_though_"
						   "it_will_corrupt_output",
						   &insists, c->err))
		return false;
	if (!clean_up || !insists)
		return true;
	return llm_component_add_plain(c, LLM_DEC_FUSE, 0) &&
		   add_clean_up(c, false);
}

bool
llm_compile_decoders(LlmComponent *c, const cJSON *root, const cJSON *config)
{
	c->json = llm_json_get(root, "decoder");
	if (c->json != NULL ? !compile_decoder(c)
						: !llm_component_add_plain(c, LLM_DEC_JOIN_SPACE, 0))
		return false;
	return config == NULL || compile_clean_up(c, config);
}

/* --------------------------------------------------------- post-processor */

static bool
add_post_piece(const LlmComponent *c, int32_t piece)
{
	if (llm_image_builder_count(c->builder, LLM_TOKEN_POST_PIECES) >= 4096)
		return llm_error_set(c->err, LLM_ERROR_LIMIT,
							 "the post-processor's template is too long");
	llm_image_builder_add(c->builder, LLM_TOKEN_POST_PIECES, &piece);
	return true;
}

static bool
add_post_id(const LlmComponent *c, const cJSON *id, const char *key)
{
	if (!cJSON_IsNumber(id) || id->valuedouble < 0 ||
		id->valuedouble >= LLM_TOKEN_MAX_IDS ||
		id->valuedouble != (double) (int32_t) id->valuedouble)
		return llm_component_malformed(c, key);
	return add_post_piece(c, (int32_t) id->valuedouble);
}

/* {"SpecialToken": {"id": "<s>", ...}}: the ids that stand for it. */
static bool
add_special_piece(const LlmComponent *c, const cJSON *special)
{
	const cJSON *name = llm_json_get(special, "id");
	const cJSON *ids;
	const cJSON *id;

	if (!cJSON_IsString(name))
		return llm_component_malformed(c, "single");
	ids = llm_json_get(llm_json_get(llm_json_get(c->json, "special_tokens"),
									name->valuestring),
					   "ids");
	if (!cJSON_IsArray(ids))
		return llm_component_malformed(c, "special_tokens");
	cJSON_ArrayForEach(id, ids)
	{
		if (!add_post_id(c, id, "special_tokens"))
			return false;
	}
	return true;
}

static bool
compile_template(const LlmComponent *c)
{
	const cJSON *single = llm_json_get(c->json, "single");
	const cJSON *piece;

	if (!cJSON_IsArray(single))
		return llm_component_malformed(c, "single");
	cJSON_ArrayForEach(piece, single)
	{
		const cJSON *sequence = llm_json_get(piece, "Sequence");
		const cJSON *special = llm_json_get(piece, "SpecialToken");

		if (sequence != NULL)
		{
			const cJSON *id = llm_json_get(sequence, "id");

			if (!cJSON_IsString(id) || strcmp(id->valuestring, "A") != 0)
				return llm_component_malformed(c, "single");
			if (!add_post_piece(c, LLM_TOKEN_POST_TEXT))
				return false;
		}
		else if (special == NULL)
			return llm_component_malformed(c, "single");
		else if (!add_special_piece(c, special))
			return false;
	}
	return true;
}

/* BertProcessing and RobertaProcessing: "cls" before, "sep" behind. */
static bool
compile_pair(const LlmComponent *c)
{
	const cJSON *cls = llm_json_get(c->json, "cls");
	const cJSON *sep = llm_json_get(c->json, "sep");

	if (!cJSON_IsArray(cls) || cJSON_GetArraySize(cls) != 2)
		return llm_component_malformed(c, "cls");
	if (!cJSON_IsArray(sep) || cJSON_GetArraySize(sep) != 2)
		return llm_component_malformed(c, "sep");
	return add_post_id(c, cJSON_GetArrayItem(cls, 1), "cls") &&
		   add_post_piece(c, LLM_TOKEN_POST_TEXT) &&
		   add_post_id(c, cJSON_GetArrayItem(sep, 1), "sep");
}

static bool
compile_post_processor(LlmComponent *c)
{
	if (!llm_component_read_type(c))
		return false;
	if (llm_component_is(c, "Sequence"))
		return llm_component_members(c, "processors", compile_post_processor);
	if (llm_component_is(c, "ByteLevel"))
		return true; /* it only trims offsets */
	if (!llm_component_is(c, "TemplateProcessing") &&
		!llm_component_is(c, "BertProcessing") &&
		!llm_component_is(c, "RobertaProcessing"))
		return llm_component_unsupported(c);
	if (llm_image_builder_count(c->builder, LLM_TOKEN_POST_PIECES) > 0)
		return llm_error_set(c->err, LLM_ERROR_UNSUPPORTED,
							 "more than one post-processor that adds tokens "
							 "is not supported");
	return llm_component_is(c, "TemplateProcessing") ? compile_template(c)
													 : compile_pair(c);
}

bool
llm_compile_post_processors(LlmComponent *c, const cJSON *root)
{
	c->json = llm_json_get(root, "post_processor");
	if (c->json != NULL && !compile_post_processor(c))
		return false;
	return llm_image_builder_count(c->builder, LLM_TOKEN_POST_PIECES) > 0 ||
		   add_post_piece(c, LLM_TOKEN_POST_TEXT);
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
