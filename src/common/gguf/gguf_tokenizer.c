/*
 * gguf_tokenizer.c
 *	  The tokenizer.json that a GGUF file's model would have.
 *
 * Two kinds are known: "gpt2", byte-level BPE, whose split expression has a
 * name in "tokenizer.ggml.pre" (gguf_pre.c), and "llama", SentencePiece's
 * BPE, whose merges follow from scores (gguf_merges.c) and whose normalizer
 * is that of Llama 2, or of Gemma where no space is put before a text.
 *
 * Control and user-defined tokens become added tokens.  What GGUF files do
 * not say of these (lstrip, rstrip, single_word) is off.
 *
 * src/common/gguf/gguf_tokenizer.c
 */
#include <string.h>

#include "src/common/gguf/gguf_internal.h"
#include "src/common/gguf/gguf_pre.h"
#include "src/common/gguf/gguf_vocab.h"
#include "src/common/util/utf8.h"

#define SPACE_MARK "\xE2\x96\x81" /* U+2581 */

#define BYTE_LEVEL                                        \
	"{\"type\":\"ByteLevel\",\"add_prefix_space\":false," \
	"\"trim_offsets\":false,\"use_regex\":false}"

typedef struct TokenizerWriter
{
	const LlmGguf *gguf;
	GgufVocab vocab;
	LlmStrbuf *json;
	LlmError *err;
} TokenizerWriter;

static bool
is_sentencepiece(LlmGgufText model)
{
	return model.len == 5 && memcmp(model.data, "llama", 5) == 0;
}

static bool
is_added(GgufTokenType type)
{
	return type == GGUF_TOKEN_CONTROL || type == GGUF_TOKEN_USER_DEFINED ||
		   type == GGUF_TOKEN_UNKNOWN;
}

static void
append_token(TokenizerWriter *writer, int32_t token_id)
{
	const LlmGgufText *text = &writer->vocab.tokens[token_id].text;

	gguf_json_append_string(writer->json, text->data, text->len);
}

static void
write_added_tokens(TokenizerWriter *writer)
{
	const char *separator = "";

	llm_strbuf_append_str(writer->json, "\"added_tokens\":[");
	for (int32_t id = 0; id < writer->vocab.n_tokens; id++)
	{
		GgufTokenType type = writer->vocab.tokens[id].type;

		/* a token without text would be found everywhere */
		if (!is_added(type) || writer->vocab.tokens[id].text.len == 0)
			continue;
		llm_strbuf_printf(writer->json, "%s{\"id\":%d,\"content\":", separator,
						  id);
		append_token(writer, id);
		llm_strbuf_printf(writer->json,
						  ",\"single_word\":false,\"lstrip\":false,"
						  "\"rstrip\":false,\"normalized\":false,"
						  "\"special\":%s}",
						  type == GGUF_TOKEN_USER_DEFINED ? "false" : "true");
		separator = ",";
	}
	llm_strbuf_append_char(writer->json, ']');
}

/* The tokens that the model itself knows. */
static void
write_vocab(TokenizerWriter *writer, bool with_added)
{
	const char *separator = "";

	llm_strbuf_append_str(writer->json, "\"vocab\":{");
	for (int32_t id = 0; id < writer->vocab.n_tokens; id++)
	{
		GgufTokenType type = writer->vocab.tokens[id].type;

		if (!with_added && (is_added(type) || type == GGUF_TOKEN_UNUSED))
			continue;
		llm_strbuf_append_str(writer->json, separator);
		append_token(writer, id);
		llm_strbuf_printf(writer->json, ":%d", id);
		separator = ",";
	}
	llm_strbuf_append_char(writer->json, '}');
}

/* ---- special tokens around a text ---- */

/* The id that a key names, or -1; an error where there is no such token. */
static bool
get_token_id(const TokenizerWriter *writer, const char *key, int64_t *id)
{
	*id = -1;
	if (!llm_gguf_get_int(writer->gguf, key, id, writer->err))
		return false;
	if (*id < 0 || *id >= writer->vocab.n_tokens)
		return llm_error_set(writer->err, LLM_ERROR_FORMAT,
							 "%s: metadata key \"%s\" names no token",
							 llm_gguf_path(writer->gguf, 0), key);
	return true;
}

static void
append_special(TokenizerWriter *writer, int64_t token_id, bool is_definition)
{
	LlmStrbuf *json = writer->json;

	if (is_definition)
	{
		append_token(writer, (int32_t) token_id);
		llm_strbuf_append_str(json, ":{\"id\":");
		append_token(writer, (int32_t) token_id);
		llm_strbuf_printf(json, ",\"ids\":[%d],\"tokens\":[]}", (int) token_id);
		return;
	}
	llm_strbuf_append_str(json, "{\"SpecialToken\":{\"id\":");
	append_token(writer, (int32_t) token_id);
	llm_strbuf_append_str(json, ",\"type_id\":0}}");
}

static bool
write_post_processor(TokenizerWriter *writer, bool add_bos)
{
	LlmStrbuf *json = writer->json;
	bool add_eos = false;
	int64_t bos = -1;
	int64_t eos = -1;

	if (!llm_gguf_get_bool(writer->gguf, "tokenizer.ggml.add_bos_token",
						   &add_bos, writer->err) ||
		!llm_gguf_get_bool(writer->gguf, "tokenizer.ggml.add_eos_token",
						   &add_eos, writer->err) ||
		(add_bos &&
		 !get_token_id(writer, "tokenizer.ggml.bos_token_id", &bos)) ||
		(add_eos && !get_token_id(writer, "tokenizer.ggml.eos_token_id", &eos)))
		return false;
	if (!add_bos && !add_eos)
	{
		llm_strbuf_append_str(json, ",\"post_processor\":null");
		return true;
	}
	llm_strbuf_append_str(json, ",\"post_processor\":{\"type\":"
								"\"TemplateProcessing\",\"single\":[");
	if (add_bos)
	{
		append_special(writer, bos, false);
		llm_strbuf_append_char(json, ',');
	}
	llm_strbuf_append_str(json, "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}");
	if (add_eos)
	{
		llm_strbuf_append_char(json, ',');
		append_special(writer, eos, false);
	}
	llm_strbuf_append_str(json, "],\"pair\":[],\"special_tokens\":{");
	if (add_bos)
		append_special(writer, bos, true);
	if (add_eos && eos != bos)
	{
		llm_strbuf_append_str(json, add_bos ? "," : "");
		append_special(writer, eos, true);
	}
	llm_strbuf_append_str(json, "}}");
	return true;
}

/* ---- byte-level BPE ---- */

static bool
write_merge_texts(TokenizerWriter *writer)
{
	LlmGgufArray merges = { 0 };
	LlmGgufText text;
	const char *separator = "";

	if (!llm_gguf_get_array(writer->gguf, "tokenizer.ggml.merges", &merges,
							writer->err))
		return false;
	llm_strbuf_append_str(writer->json, ",\"merges\":[");
	while (llm_gguf_next_text(&merges, &text))
	{
		if (memchr(text.data, '\0', text.len) != NULL ||
			!llm_utf8_is_valid(text.data, text.len))
			return llm_error_set(writer->err, LLM_ERROR_FORMAT,
								 "%s: \"tokenizer.ggml.merges\" has a text "
								 "that is no UTF-8 or holds a zero byte",
								 llm_gguf_path(writer->gguf, 0));
		llm_strbuf_append_str(writer->json, separator);
		gguf_json_append_string(writer->json, text.data, text.len);
		separator = ",";
	}
	llm_strbuf_append_char(writer->json, ']');
	return *separator != '\0' ||
		   llm_error_set(writer->err, LLM_ERROR_FORMAT,
						 "%s: \"tokenizer.ggml.merges\" must hold strings",
						 llm_gguf_path(writer->gguf, 0));
}

static bool
write_byte_level(TokenizerWriter *writer)
{
	const GgufPre *pre = gguf_pre_find(writer->gguf, writer->err);

	if (pre == NULL ||
		!gguf_vocab_open(&writer->vocab, writer->gguf, false, writer->err))
		return false;
	write_added_tokens(writer);
	llm_strbuf_printf(writer->json, ",\"normalizer\":%s,",
					  pre->has_nfc ? "{\"type\":\"NFC\"}" : "null");
	gguf_pre_write(pre, writer->json);
	llm_strbuf_append_str(writer->json, ",\"decoder\":" BYTE_LEVEL);
	if (!write_post_processor(writer, pre->adds_bos))
		return false;
	llm_strbuf_printf(writer->json,
					  ",\"model\":{\"type\":\"BPE\",\"dropout\":null,"
					  "\"unk_token\":null,\"fuse_unk\":false,"
					  "\"byte_fallback\":false,\"ignore_merges\":%s,",
					  pre->ignores_merges ? "true" : "false");
	write_vocab(writer, false);
	if (!write_merge_texts(writer))
		return false;
	llm_strbuf_append_char(writer->json, '}');
	return true;
}

/* ---- SentencePiece BPE ---- */

static void
write_spaces(TokenizerWriter *writer, bool add_prefix)
{
	static const char replace[] =
		"{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
		"\"content\":\"" SPACE_MARK "\"}";
	static const char decode[] =
		"{\"type\":\"Replace\",\"pattern\":{\"String\":\"" SPACE_MARK "\"},"
		"\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}";

	if (add_prefix)
		llm_strbuf_printf(writer->json,
						  ",\"normalizer\":{\"type\":\"Sequence\","
						  "\"normalizers\":[{\"type\":\"Prepend\","
						  "\"prepend\":\"" SPACE_MARK "\"},%s]}",
						  replace);
	else
		llm_strbuf_printf(writer->json, ",\"normalizer\":%s", replace);
	llm_strbuf_printf(writer->json,
					  ",\"pre_tokenizer\":null,\"decoder\":{\"type\":"
					  "\"Sequence\",\"decoders\":[%s%s]}",
					  decode,
					  add_prefix ? ",{\"type\":\"Strip\",\"content\":\" \","
								   "\"start\":1,\"stop\":0}"
								 : "");
}

/* SentencePiece could do more than these models ask of it. */
static bool
check_sentencepiece(const TokenizerWriter *writer)
{
	static const char remove_key[] = "tokenizer.ggml.remove_extra_whitespaces";
	bool removes = false;

	if (!llm_gguf_get_bool(writer->gguf, remove_key, &removes, writer->err))
		return false;
	if (removes)
		return llm_error_set(writer->err, LLM_ERROR_UNSUPPORTED,
							 "%s: metadata key \"%s\" is true, which is not "
							 "supported",
							 llm_gguf_path(writer->gguf, 0), remove_key);
	return true;
}

static int32_t
find_unknown_token(const GgufVocab *vocab)
{
	for (int32_t id = 0; id < vocab->n_tokens; id++)
	{
		if (vocab->tokens[id].type == GGUF_TOKEN_UNKNOWN)
			return id;
	}
	return -1;
}

static bool
write_sentencepiece(TokenizerWriter *writer)
{
	LlmStrbuf *json = writer->json;
	bool add_prefix = true;
	int32_t unknown;

	if (!check_sentencepiece(writer) ||
		!llm_gguf_get_bool(writer->gguf, "tokenizer.ggml.add_space_prefix",
						   &add_prefix, writer->err) ||
		!gguf_vocab_open(&writer->vocab, writer->gguf, true, writer->err))
		return false;
	write_added_tokens(writer);
	write_spaces(writer, add_prefix);
	if (!write_post_processor(writer, true))
		return false;
	llm_strbuf_append_str(json, ",\"model\":{\"type\":\"BPE\",\"dropout\":null,"
								"\"fuse_unk\":true,\"byte_fallback\":true,"
								"\"ignore_merges\":false,\"unk_token\":");
	unknown = find_unknown_token(&writer->vocab);
	if (unknown >= 0)
		append_token(writer, unknown);
	else
		llm_strbuf_append_str(json, "null");
	llm_strbuf_append_char(json, ',');
	write_vocab(writer, true);
	llm_strbuf_append_str(json, ",\"merges\":[");
	if (!gguf_vocab_write_merges(&writer->vocab, json, writer->err))
		return false;
	llm_strbuf_append_str(json, "]}");
	return true;
}

bool
gguf_write_tokenizer(const LlmGguf *gguf, LlmStrbuf *text, LlmError *err)
{
	TokenizerWriter writer = { .gguf = gguf, .json = text, .err = err };
	LlmGgufText model = { "", 0 };
	bool ok;

	if (!llm_gguf_get_text(gguf, "tokenizer.ggml.model", &model, err))
		return false;
	llm_strbuf_append_str(text, "{\"version\":\"1.0\",");
	if (is_sentencepiece(model))
		ok = write_sentencepiece(&writer);
	else if (model.len == 4 && memcmp(model.data, "gpt2", 4) == 0)
		ok = write_byte_level(&writer);
	else
		ok = llm_error_set(err, LLM_ERROR_UNSUPPORTED,
						   "%s: tokenizer \"%.*s\" is not supported",
						   llm_gguf_path(gguf, 0),
						   (int) (model.len < 64 ? model.len : 64), model.data);
	gguf_vocab_close(&writer.vocab);
	llm_strbuf_append_char(text, '}');
	return ok && (!text->failed ||
				  llm_error_no_memory(err, text->len, "a tokenizer"));
}
