/*
 * test_template_input.c
 *	  What a chat template is given: plain messages, variables that come again.
 *
 * test/unit/test_template_input.c
 */
#include <string.h>

#include "src/common/template/chat_template.h"
#include "test/unit/unit_test.h"

static LlmError err;

static LlmTemplateText
text_of(const char *text)
{
	return (LlmTemplateText){ text, strlen(text) };
}

static LlmChatTemplate *
compile(const char *source)
{
	return llm_chat_template_compile(source, strlen(source), &err);
}

static bool
renders(const LlmChatTemplate *chat_template, const LlmTemplateInput *input,
		const char *expected)
{
	LlmStrbuf out = { 0 };
	bool ok = llm_chat_template_render(chat_template, input, &out, &err);

	if (ok)
		CHECK_STR_EQ(llm_strbuf_str(&out), expected);
	llm_strbuf_free(&out);
	return ok;
}

static void
plain_messages_are_as_from_json(void)
{
	static const LlmTemplateMessage plain[] = {
		{ { "system", 6 }, { "be \"short\"", 10 } },
		{ { "user", 4 }, { "\xC3\xA4\n", 3 } },
	};
	static const LlmTemplateMessage damaged[] = { { { "user", 4 },
													{ "\xFF", 1 } } };
	LlmTemplateInput json = { .messages = text_of(
								  "[{\"role\": \"system\", \"content\": \"be "
								  "\\\"short\\\"\"}, {\"role\": \"user\", "
								  "\"content\": \"\\u00e4\\n\"}]") };
	LlmTemplateInput input = { .plain_messages = plain, .n_plain_messages = 2 };
	LlmChatTemplate *chat_template =
		compile("{{ messages }}{{ messages[1].content | length }}"
				"{{ messages[0].role }}{{ messages[1].name is defined }}");
	static const char expected[] =
		"[{'role': 'system', 'content': 'be \"short\"'}, {'role': 'user', "
		"'content': '\xC3\xA4\\n'}]2systemFalse";

	REQUIRE(chat_template != NULL);
	CHECK(renders(chat_template, &json, expected));
	CHECK(renders(chat_template, &input, expected));
	input.plain_messages = damaged;
	input.n_plain_messages = 1;
	CHECK(!renders(chat_template, &input, ""));
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	llm_chat_template_free(chat_template);
}

/* They are read once while they stay the same; a copy must not show. */
static void
variables_follow_their_texts(void)
{
	char tokens[] = "{\"bos_token\": \"<s>\"}";
	char kwargs[] = "{\"a\": [1, 2]}";
	LlmTemplateInput input = { .messages = text_of("[{\"role\": \"user\"}]"),
							   .special_tokens = text_of(tokens),
							   .kwargs = text_of(kwargs) };
	LlmChatTemplate *chat_template = compile("{{ bos_token }}{{ a }}{{ b }}");

	REQUIRE(chat_template != NULL);
	for (int round = 0; round < 2; round++)
		CHECK(renders(chat_template, &input, "<s>[1, 2]"));
	/* other bytes at the same places */
	tokens[15] = '[';
	kwargs[7] = '7';
	for (int round = 0; round < 2; round++)
		CHECK(renders(chat_template, &input, "[s>[7, 2]"));
	kwargs[2] = 'b';
	CHECK(renders(chat_template, &input, "[s>[7, 2]"));
	input.kwargs = text_of("{\"messages\": 1}");
	CHECK(!renders(chat_template, &input, ""));
	CHECK_INT_EQ(err.code, LLM_ERROR_INVALID);
	input.kwargs = text_of("{\"b\": ");
	CHECK(!renders(chat_template, &input, ""));
	input.kwargs = (LlmTemplateText){ NULL, 0 };
	CHECK(renders(chat_template, &input, "[s>"));
	input.kwargs = text_of("{\"bos_token\": \"k\", \"a\": {\"x\": null}}");
	for (int round = 0; round < 2; round++)
		CHECK(renders(chat_template, &input, "k{'x': None}"));
	llm_chat_template_free(chat_template);
}

int
main(void)
{
	RUN_TEST(plain_messages_are_as_from_json);
	RUN_TEST(variables_follow_their_texts);
	return unit_test_finish();
}
