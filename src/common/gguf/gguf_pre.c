/*
 * gguf_pre.c
 *	  How byte-level tokenizers of GGUF files split a text, by name.
 *
 * llama.cpp's converter recognizes a tokenizer by what it makes of a sample
 * text and writes the name of its family.  Each name stands for the
 * expression, the normalizer and the options that this family's
 * tokenizer.json has; a name that is not here is refused, since every other
 * guess gives other tokens.
 *
 * src/common/gguf/gguf_pre.c
 */
#include <string.h>

#include "src/common/gguf/gguf_pre.h"
#include "src/common/gguf/gguf_vocab.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Words, up to so many digits, other signs, line ends, spaces. */
#define WORDS(digits)                                     \
	CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
				 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES

/* The same, with marks among letters. */
#define MARKED_WORDS                                             \
	CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}" \
				 "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES

/* Words end where upper case follows lower case. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED_WORDS(digits, suffix)                                 \
	"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix             \
	"|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix "|" digits \
	"| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES

#define LLAMA3_EXPRESSION WORDS("\\p{N}{1,3}")
#define QWEN2_EXPRESSION WORDS("\\p{N}")
#define TEKKEN_EXPRESSION CASED_WORDS("\\p{N}", "")
#define GPT4O_EXPRESSION CASED_WORDS("\\p{N}{1,3}", CONTRACTIONS "?")

static const GgufPre known[] = {
	{ "llama-bpe", LLAMA3_EXPRESSION, false, false, true, true },
	{ "llama3", LLAMA3_EXPRESSION, false, false, true, true },
	{ "llama-v3", LLAMA3_EXPRESSION, false, false, true, true },
	{ "falcon3", LLAMA3_EXPRESSION, false, false, true, true },
	{ "pixtral", LLAMA3_EXPRESSION, false, false, true, true },
	{ "dbrx", LLAMA3_EXPRESSION, false, false, false, false },
	{ "smaug-bpe", LLAMA3_EXPRESSION, false, false, false, false },
	{ "glm4", LLAMA3_EXPRESSION, false, false, false, false },
	{ "chatglm-bpe", LLAMA3_EXPRESSION, false, false, false, false },
	{ "qwen2", QWEN2_EXPRESSION, false, true, false, false },
	{ "deepseek-r1-qwen", QWEN2_EXPRESSION, false, true, false, false },
	{ "qwen35", MARKED_WORDS, false, true, false, false },
	{ "tekken", TEKKEN_EXPRESSION, false, false, true, true },
	{ "gpt-4o", GPT4O_EXPRESSION, false, false, false, false },
	{ "llama4", GPT4O_EXPRESSION, false, false, false, false },
	{ "gpt-2", NULL, false, false, false, false },
	{ "smollm", NULL, true, false, false, false },
	{ "starcoder", NULL, true, false, false, false },
};

const GgufPre *
gguf_pre_find(const LlmGguf *gguf, LlmError *err)
{
	LlmGgufText name = { "", 0 };

	if (!llm_gguf_get_text(gguf, "tokenizer.ggml.pre", &name, err))
		return NULL;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
	{
		if (name.len == strlen(known[i].name) &&
			memcmp(name.data, known[i].name, name.len) == 0)
			return &known[i];
	}
	if (name.len > 0)
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "%s: pre-tokenizer \"%.*s\" is not supported",
					  llm_gguf_path(gguf, 0),
					  (int) (name.len < 64 ? name.len : 64), name.data);
	else
	{
		llm_error_set(err, LLM_ERROR_UNSUPPORTED,
					  "%s: metadata key \"tokenizer.ggml.pre\" is missing: "
					  "nobody can know how the tokenizer splits a text",
					  llm_gguf_path(gguf, 0));
		llm_error_hint(err, "convert the model again with a newer converter");
	}
	return NULL;
}

void
gguf_pre_write(const GgufPre *pre, LlmStrbuf *json)
{
	llm_strbuf_append_str(json, "\"pre_tokenizer\":{\"type\":\"Sequence\","
								"\"pretokenizers\":[");
	if (pre->splits_digits)
		llm_strbuf_append_str(
			json, "{\"type\":\"Digits\",\"individual_digits\":true},");
	if (pre->expression != NULL)
	{
		llm_strbuf_append_str(json, "{\"type\":\"Split\",\"pattern\":"
									"{\"Regex\":");
		gguf_json_append_string(json, pre->expression, strlen(pre->expression));
		llm_strbuf_append_str(json, "},\"behavior\":\"Isolated\","
									"\"invert\":false},");
	}
	llm_strbuf_printf(json,
					  "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
					  "\"trim_offsets\":false,\"use_regex\":%s}]}",
					  pre->expression == NULL ? "true" : "false");
}
