/*
 * fuzz_template.c
 *	  Any bytes as a chat template, rendered with a conversation: it renders
 *	  or fails, within its bounds.
 *
 * Bytes after a NUL are the messages; without one they are fixed.
 *
 * test/fuzz/fuzz_template.c
 */
#include <string.h>

#include "src/common/template/chat_template.h"
#include "test/fuzz/fuzz.h"

static const char messages[] =
	"[{\"role\": \"system\", \"content\": \"Be brief.\"},"
	"{\"role\": \"user\", \"content\": \"Hello\\n\\u00e9\"},"
	"{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": "
	"\"a1\", \"type\": \"function\", \"function\": {\"name\": \"f\", "
	"\"arguments\": {\"x\": [1, 2.5, true, null]}}}]},"
	"{\"role\": \"tool\", \"content\": \"3\", \"name\": \"f\"}]";
static const char tools[] =
	"[{\"type\": \"function\", \"function\": {\"name\": \"f\", "
	"\"description\": \"d\", \"parameters\": {\"type\": \"object\"}}}]";

static LlmTemplateText
text_of(const char *data, size_t len)
{
	return (LlmTemplateText){ data, len };
}

static void
render(const LlmChatTemplate *chat_template, LlmTemplateText given)
{
	LlmTemplateInput input = {
		.messages = given,
		.tools = text_of(tools, sizeof(tools) - 1),
		.special_tokens = text_of("{\"bos_token\": \"<s>\"}", 20),
		.add_generation_prompt = true,
	};
	LlmStrbuf out;
	LlmError err;

	llm_strbuf_init(&out);
	if (!llm_chat_template_render(chat_template, &input, &out, &err))
	{
		FUZZ_CHECK(err.message[0] != '\0');
		FUZZ_CHECK(out.len == 0);
	}
	llm_strbuf_free(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *source = (const char *) data;
	const char *end = size > 0 ? memchr(source, '\0', size) : NULL;
	size_t len = end != NULL ? (size_t) (end - source) : size;
	LlmError err;
	LlmChatTemplate *chat_template =
		llm_chat_template_compile(source, len, &err);

	if (chat_template == NULL)
	{
		FUZZ_CHECK(err.message[0] != '\0');
		return 0;
	}
	if (end != NULL)
		render(chat_template, text_of(end + 1, size - len - 1));
	else
		render(chat_template, text_of(messages, sizeof(messages) - 1));
	llm_chat_template_free(chat_template);
	return 0;
}
